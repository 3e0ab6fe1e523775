"""Does sparsity help in learning misspecified linear bandits?

Dong & Yang (ICML 2023, arXiv:2303.16998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures
from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    at_least,
    average,
    combined,
    curve,
    highest,
    log,
    lowest,
    mean,
    measure,
    peak,
    slope_of,
    within,
)
from latebloom.methods.bandits.sparse_misspecified.searches import NEEDLE_METHODS, Searches
from latebloom.methods.bandits.sparse_misspecified.worlds import Setting, grid

PAIRS = ((1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2))
DIMENSIONS = (6, 10, 16, 24)
LARGE = (*DIMENSIONS, 32, 64)
HARD = grid("adversarial", LARGE, PAIRS)
HARD_SMALL = grid("adversarial", DIMENSIONS, PAIRS)
OTHERS = (
    Setting("random", 24, 2, 0.2),
    Setting("compressible", 24, 2, 0.2),
    Setting("diabetes", 10, 2, 0.0),
    Setting("breast-cancer", 30, 2, 0.0),
)
NEEDLES = grid("needle", (24,), tuple((s, 0.2) for s in (4, 8, 12, 16, 20)))
GAUSSIAN = grid("gaussian", (50, 200, 800), ((2, 0.1), (4, 0.1), (8, 0.1)))
COHERENT = grid("coherent", (200,), ((2, 0.1), (4, 0.1), (8, 0.1)))
NET_SIZES = tuple(Setting("net", 6, s, e) for s in (1, 2) for e in (0.025, 0.05, 0.1, 0.2))


@dataclass(frozen=True)
class Config:
    """A method on a list of settings, one a step.

    Attributes:
        actions: actions of an instance (Gaussian and coherent worlds have twice as many).
        sigma: standard deviation of the reward's noise; measurements are repeated accordingly.
        replicates: needles for each packing.
    """

    method: str = "net-elimination"
    settings: tuple[Setting, ...] = HARD
    actions: int = 1000
    sigma: float = 0.0
    replicates: int = 1


def make_process(config: Config) -> Searches:
    return Searches(
        config.method, config.settings, actions=config.actions, sigma=config.sigma,
        replicates=config.replicates,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    return np.arange(1, len(config.settings) + 1)


def log_of(name: str) -> Curve:
    return log(curve(name))


# A gap of less than 0.1 ε counts as this much.
log_gap, log_net = log(at_least(curve("gap"), 0.1)), log_of("net")
gap_slope = Measure("slope of log(gap / ε) on log d", slope_of(log_gap, on=log_of("d")))
net_in_d = Measure("exponent of the net in d", slope_of(log_net, on=log_of("d")))
net_in_epsilon = Measure("exponent of the net in 1 / ε", slope_of(log_net, on=-log_of("setting_epsilon")))  # fmt: skip
net_factor = Measure("factor of the net with each dimension", lambda t: np.exp(slope_of(log_net, on="d")(t)))  # fmt: skip
queries_in_s = Measure("slope of log queries on s", slope_of(log_of("queries"), on="s"))


@measure("median gap / (s ε)")
def gap_by_s(trace: xr.Dataset) -> np.ndarray:
    return np.median(trace.gap.values / trace.s.values, axis=1)


def violations(limit: float) -> Measure:
    """Share of settings in which the loss is more than the guarantee."""
    return Measure(f"share with gap > {limit:g} ε", lambda t: (t.gap.values > limit + 1e-9).mean(1))


def over_pairs(arm: str) -> Effect:
    return mean(within(gap_slope, s=s, setting_epsilon=e)[arm] for s, e in PAIRS)


def off(arm: str, exponent: Measure, **wanted: float) -> Effect:
    """Distance of a net's exponent from s, the larger of both sparsities."""
    return highest(abs(within(exponent, s=s, **wanted) - s)[arm] for s in (1, 2))


NEEDLE_ARMS = tuple(NEEDLE_METHODS)
gap, worst = average("gap"), peak("gap")
gap_by_root = peak(curve("gap") / combined("sqrt", np.sqrt, curve("s")))
# Least squares in the settings of the arms that it is the null of.
noisy_least_squares = mean(within(violations(6), d=d, setting_epsilon=0.1)["design"] for d in DIMENSIONS)  # fmt: skip
small_least_squares = highest(within(gap_by_root, d=d)["design"] for d in (6, 10))
CLAIMS = (
    Claim("C0.slope", "least squares loses more the more features there are: slope of log(gap / ε) on log d",
          "no polynomial method without sparsity beats ε √d", over_pairs("design"), "> 0.3",
          null=over_pairs("net-elimination")),
    Claim("C0.dense", "without sparsity a net grows exponentially: its factor with each dimension", "exp(d) queries",
          net_factor["dense-net"], "> 2", "ratio", null=within(net_factor, s=1, setting_epsilon=0.1)["net-search"]),
    Claim("C1.guarantee", "net search and elimination lose at most 4 ε on every instance (largest loss)",
          "O(ε)-optimal with O(ε^-s d^s) queries", highest([worst["net-search"], worst["net-elimination"]]),
          "< 4.000001", "ε", null=worst["design"]),
    Claim("C1.violations", "share of instances in which elimination breaks its guarantee", "none",
          violations(4)["net-elimination"], "< 0.001", null=violations(4)["design"]),
    Claim("C1.noisy", "with noisy rewards, share of instances that lose more than 6 ε", "with probability 1 - δ",
          violations(6)["net-elimination-noisy"], "< 0.05", null=noisy_least_squares),
    Claim("C1.flat", "elimination's loss does not grow with d: slope of log(gap / ε) on log d", "O(ε), whatever d",
          over_pairs("net-elimination"), "< 0.3", null=over_pairs("design")),
    Claim("C1.cost-d", "the net grows like d^s: distance of the exponent from s", "d^s",
          off("net-search", net_in_d, setting_epsilon=0.1), "< 0.2", null=1.0),  # the other sparsity's exponent
    Claim("C1.cost-epsilon", "the net grows like ε^-s: distance of the exponent from s", "ε^-s",
          off("net-sizes", net_in_epsilon), "< 0.2", null=1.0),
    Claim("C2.slope", "queries to find a needle grow exponentially with s, for every method",
          "Ω(exp(s)) queries for error O(s^δ ε), δ < 1", lowest(queries_in_s[arm] for arm in NEEDLE_ARMS), "> 0",
          "log / feature"),
    Claim("C2.half", "no method needs clearly less than half of all actions to find it", "no method can",
          lowest(gap[arm] for arm in NEEDLE_ARMS), "> 0.9", "ratio"),
    Claim("C3.bound", "with Gaussian features and 4 s log d queries, L1 recovery loses at most 4 s ε (median)",
          "error O(s^δ ε), δ ≥ 1, with poly(s/ε) queries", gap_by_s["l1-gaussian"], "< 4", "s ε",
          null=gap_by_s["l1-coherent"]),
    Claim("C3.growth", "that loss does not grow from d = 50 to d = 800", "no dependence on d but the logarithm",
          (within(gap, d=800) - within(gap, d=50))["l1-gaussian"], "< 1", "ε"),
    Claim("C3.bad", "with coherent columns it does grow", "good features are needed for this method",
          gap["l1-coherent"] - within(gap, d=200)["l1-gaussian"], "> 0", "ε"),
    Claim("C3.general", "a design for every support loses at most 4 ε √s, whatever the features (largest loss)",
          "even in general", gap_by_root["support-designs"], "< 4", "ε √s", null=small_least_squares),
)  # fmt: skip

Lines = dict[str, tuple[Sequence[float], Sequence[Effect]]]


def against_d(arms: dict[str, str], name: str, s: int, epsilon: float) -> Lines:
    by_d = [within(average(name), d=d, s=s, setting_epsilon=epsilon) for d in LARGE]
    return {
        label: (np.log2(LARGE).tolist(), [of[arm] for of in by_d]) for arm, label in arms.items()
    }


def against_s(arm: str, name: str) -> tuple[Sequence[float], list[Effect]]:
    levels = [s for _, _, s, _ in NEEDLES]
    return levels, [within(average(name), s=s)[arm] for s in levels]


def recovered(arm: str, *ds: int) -> Lines:
    return {
        f"s = {s}": (np.log2(ds).tolist(), [within(gap, d=d, s=s)[arm] for d in ds])
        for s in (2, 4, 8)
    }


def axis_of(*ds: int) -> dict[str, Any]:
    return {"xlabel": "features d", "xticks": np.log2(ds), "xticklabels": list(map(str, ds))}


NETS = {
    "net-elimination": "net elimination",
    "net-search": "net search",
    "known-support": "support known",
}
FITS = {
    "design": "least squares on the G-optimal design",
    "phased-elimination": "phased elimination",
}
NEEDLE_LABELS = ("elimination, told all needles", "search", "LASSO", "G-optimal design")
levels, counts = against_s(NEEDLE_ARMS[0], "actions")
half_of_all = {"half of all actions": (levels, [(count + 1) / 2 for count in counts])}
barrier = pictures.trend(
    *((f"sparsity {s}, ε = {e}", against_d(FITS | NETS, "gap", s, e)) for s, e in ((1, 0.1), (2, 0.2))),
    levels={"guarantee of the nets": 4}, ylabel="reward below the best / ε", **axis_of(*LARGE),
)  # fmt: skip
MAIN_ARMS = (
    "net-elimination", "net-search", "l1-recovery", "lasso", "pursuit",
    "known-support", "design", "phased-elimination", "lin-ucb", "sparse-oful",
    "explore-then-commit", "all-actions",
)  # fmt: skip
HARDEST = {"d": 24, "s": 2, "setting_epsilon": 0.2}
FIGURES = (
    Figure("barrier", "What is lost against the number of features, on instances made to mislead least squares: means, "
           "and a dot for each instance.", barrier, ("design", "net-elimination")),
    Figure("queries", "Left: what it costs. Right: the lower bound's instance, where nothing helps.",
           pictures.trend(
               ("sparsity 2, ε = 0.2, adversarial",
                against_d({"net-search": "parameters in the net"}, "net", 2, 0.2)
                | against_d({"l1-recovery": "L1 recovery"} | NETS, "queries", 2, 0.2)),
               ("one needle: the lower bound",
                {label: against_s(arm, "queries") for arm, label in zip(NEEDLE_ARMS, NEEDLE_LABELS, strict=True)}
                | half_of_all),
               own={"sparsity 2, ε = 0.2, adversarial": axis_of(*LARGE),
                    "one needle: the lower bound": {"xlabel": "sparsity s"}},
               yscale="log", ylabel="queries"),
           ("net-search", *NEEDLE_ARMS)),
    Figure("recovery", "L1 recovery from 4 s log d queries: Gaussian features, and columns that are nearly the same.",
           pictures.trend(("Gaussian features", recovered("l1-gaussian", 50, 200, 800)),
                          ("nearly the same columns", recovered("l1-coherent", 200)),
                          ylabel="reward below the best / ε", **axis_of(50, 200, 800)),
           ("l1-gaussian", "l1-coherent")),
    Figure("methods", "All methods at d = 24, sparsity 2, ε = 0.2. Dots: instances, bars: means.",
           pictures.dots({title: {arm: within(average(name), **HARDEST)[arm] for arm in MAIN_ARMS} for title, name in (
               ("reward below the best / ε", "gap"), ("rewards asked for", "queries"))},
               own={"rewards asked for": {"xscale": "log"}}), MAIN_ARMS),
)  # fmt: skip

SMOKE = {
    **dict.fromkeys(
        (*MAIN_ARMS, "unknown-epsilon", "net-elimination-noisy"),
        grid("adversarial", (6, 10), PAIRS),
    ),
    "l1-gaussian": grid("gaussian", (50, 200, 800), ((2, 0.1),)),
    "l1-coherent": grid("coherent", (200,), ((2, 0.1),)),
    "support-designs": grid("adversarial", (6,), PAIRS),
    "dense-net": grid("adversarial", (2, 3), ((1, 0.4),)),
    **dict.fromkeys(NEEDLE_ARMS, grid("needle", (24,), ((4, 0.2), (8, 0.2)))),
}

ARMS = {
    "net-elimination": Config(),
    "net-search": Config("net-search", HARD_SMALL),
    "net-elimination-noisy": Config(settings=HARD_SMALL[::2], sigma=0.3),
    "unknown-epsilon": Config("unknown-epsilon", grid("adversarial", (6, 10), PAIRS)),
    "net-elimination-others": Config(settings=OTHERS),
    "l1-others": Config("l1-recovery", OTHERS),
    "net-sizes": Config(settings=NET_SIZES),
    "dense-net": Config("dense-net", grid("adversarial", (2, 3, 4, 5), ((1, 0.4),))),
    "l1-recovery": Config("l1-recovery"),
    "lasso": Config("lasso"),
    "pursuit": Config("pursuit"),
    "support-designs": Config("support-designs", grid("adversarial", (6, 10), PAIRS)),
    "known-support": Config("known-support"),
    "design": Config("design"),
    "phased-elimination": Config("phased-elimination", HARD_SMALL),
    "lin-ucb": Config("lin-ucb", HARD_SMALL),
    "sparse-oful": Config("sparse-oful", HARD_SMALL),
    "explore-then-commit": Config("explore-then-commit", HARD_SMALL),
    "all-actions": Config("all-actions", HARD_SMALL),
    "l1-gaussian": Config("l1-recovery", GAUSSIAN),
    "l1-coherent": Config("l1-recovery", COHERENT),
    **{arm: Config(arm, NEEDLES, replicates=4) for arm in NEEDLE_ARMS},
}

study = Study(
    paper=Paper(
        "sparse-misspecified-bandits",
        "Does Sparsity Help in Learning Misspecified Linear Bandits?",
        "Jialin Dong and Lin F. Yang",
        "ICML",
        2023,
        "2303.16998",
    ),
    family="bandits",
    question="When rewards are linear only up to an error ε, does a sparse parameter break the "
    "barrier of ε √d?",
    symptoms=(
        "my linear model is a little wrong and the bandit picks a bad action",
        "thousands of candidates, few features matter, each measurement is expensive",
        "least squares is misled although the model's error is small",
        "which candidate should I measure next",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(
            2, settings={"actions": 100, "replicates": 1},
            arm_settings={arm: {"settings": settings} for arm, settings in SMOKE.items()},
        ),
        "quick": Budget(20, also=("phased-elimination", "known-support", "l1-recovery")),
        "thorough": Budget(20, also=tuple(ARMS)),
        "full": Budget(100, settings={"actions": 2000}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic; the tables diabetes and breast-cancer in two arms",
    notes="The paper is theory without experiments; instances and constants are this study's. A seed is an "
    "instance, a step is a setting (dimension, sparsity, ε). Net search and elimination are derived from the "
    "abstract's rate and its proof idea. The paper's method for general features at δ ≥ 1 is not used: a design for "
    "every support stands in for it, and its queries grow like d^s.",
    watch="gap",
    side_by_side=True,
)  # fmt: skip
