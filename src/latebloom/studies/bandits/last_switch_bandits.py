"""Last-switch dependent bandits with monotone payoffs: planning by virtual states, and learning.

Foussoul, Goyal, Papadigenopoulos, Zeevi (ICML 2023, arXiv 2306.00338).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.interaction import Interaction, Policy
from latebloom.core.process import HostProcess, Process, Quantity
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.lab.verdict import interval
from latebloom.methods.bandits.last_switch import (
    GUARANTEE,
    UCB1,
    BlockLearner,
    Follow,
    Instances,
    LastSwitch,
    Learner,
    Lookahead,
    compare,
)
from latebloom.methods.bandits.last_switch.evaluation import WAYS
from latebloom.methods.bandits.last_switch.payoffs import Family

Task = Literal[
    "compare", "planner", "explore-then-commit", "optimistic", "ucb1", "block", "greedy", "lookahead",
    "round-robin",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One arm of the study: a family of instances, and what is done with them.

    - `task`: "compare" plays `instances` instances a seed with known payoffs, in every way there is,
      for `rounds` rounds; the others play one noisy instance a seed for `horizon` rounds.
    - `arms`, `idle`, `streak`: K, N and M of the instances.
    - `draws`, `best_of`, `depth`, `period`, `exact`: see `compare`; `depth` is also how far lookahead
      and the block learner see.
    - `exploration`: exploring takes about this many times T^(2/3) rounds. `width`: squared width of
      the optimistic learner's bounds over log(t)/count.
    """

    task: Task = "compare"
    family: Family = "jump"
    arms: int = 5
    idle: int = 8
    streak: int = 4
    instances: int = 1
    rounds: int = 2000
    draws: int = 200
    best_of: int = 64
    depth: int = 3
    period: int = 0
    exact: bool = False
    horizon: int = 100_000
    exploration: float = 4.0
    width: float = 0.5


def instance_key(seed: int, number: int) -> PRNGKeyArray:
    """Key of an instance; number 0 is the one that an `Interaction` with this seed meets."""
    own = jax.random.split(jax.random.key(seed), 4)[0]
    return own if number == 0 else jax.random.fold_in(own, number)


class Comparing(HostProcess):
    """Step i plays the i-th instance of a seed in all ways of `compare`.

    Observed, NaN for instances to come: `bound`, `virtual`, `upper` and `reward` by way, a round.
    """

    def __init__(self, config: Config):
        self.config = config

    def init(self, seed: int) -> dict[str, Any]:
        blank = np.full(self.config.instances, np.nan)
        return {
            "seed": seed, "done": 0, "bound": blank, "virtual": blank, "upper": blank,
            "reward": np.full((self.config.instances, len(WAYS)), np.nan),
        }  # fmt: skip

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        c, number = self.config, state["done"]
        key = instance_key(state["seed"], number)
        draw = Instances(c.family, c.arms, c.idle, c.streak)
        payoffs = np.asarray(eqx.filter_jit(draw)(key), np.float64)
        found = compare(
            payoffs, c.streak, jax.random.fold_in(key, 1), rounds=c.rounds, draws=c.draws,
            best_of=c.best_of, depth=c.depth, period=c.period, exact=c.exact,
        )  # fmt: skip
        state = state | {
            name: state[name].copy() for name in ("bound", "virtual", "upper", "reward")
        }
        state["bound"][number], state["virtual"][number] = found.bound, found.virtual
        state["upper"][number] = found.upper
        state["reward"][number] = [found.reward[way] for way in WAYS]
        return state | {"done": number + 1}

    def observe(self, state: dict[str, Any]) -> dict[str, Any]:
        return {name: state[name] for name in ("bound", "virtual", "upper", "reward")}

    def quantities(self) -> dict[str, Quantity]:
        each = partial(Quantity, "reward a round", gaps=True)
        return {
            "bound": each(("instance",), about="value of the relaxation"),
            "virtual": each(("instance",), about="exact expectation at virtual states"),
            "upper": each(("instance",), about="bound of value iteration"),
            "reward": each(("instance", "way"), {"way": WAYS}),
        }


def marks(horizon: int) -> tuple[int, ...]:
    """Rounds at which learning is observed: three a decade, from 100, and the horizon."""
    spaced = np.round(10 ** (np.arange(6, 31) / 3)).astype(int)
    return (*(int(r) for r in spaced[spaced < horizon]), horizon)


def make_process(config: Config) -> Process | HostProcess:
    if config.task == "compare":
        return Comparing(config)
    draw = Instances(config.family, config.arms, config.idle, config.streak)
    environment = LastSwitch(draw, config.arms, config.streak, noise="bernoulli")
    if config.task in ("planner", "explore-then-commit", "optimistic"):
        return Learner(
            environment, config.task, marks(config.horizon), exploration=config.exploration,
            width=config.width,
        )  # fmt: skip
    return Interaction(environment, _policy(config))


def _policy(config: Config) -> Policy:
    arms, size = config.arms, config.idle + config.streak
    if config.task == "ucb1":
        return UCB1(arms)
    if config.task == "block":
        return BlockLearner(arms, size, config.streak, config.depth)
    if config.task == "round-robin":
        return Follow(jnp.arange(arms, dtype=jnp.int32))
    return Lookahead(1 if config.task == "greedy" else config.depth, config.streak)


def schedule(config: Config) -> np.ndarray:
    if config.task == "compare":
        return np.array([config.instances])
    if config.task in ("planner", "explore-then-commit", "optimistic"):
        return np.arange(len(marks(config.horizon)) + 1)
    return np.array((0, *marks(config.horizon)))


SMALL, LARGE = (2, 3), (10, 50)
FAMILIES: tuple[Family, ...] = ("random", "jump", "satiation")
TIGHT = (4, 10, 20)
LEARNED: tuple[Family, ...] = ("jump", "satiation")
HORIZONS = {"short": 1_000, "middle": 10_000, "long": 100_000}


def _planning(family: Family, arms: int) -> Config:
    if family == "tight":
        draws = 1000 if arms < 20 else 500
        return Config(family=family, arms=arms, idle=arms - 1, streak=1, draws=draws)
    if arms in SMALL:
        period = 8 if arms == 2 else 6
        return Config(family=family, arms=arms, instances=7, period=period, exact=True)
    base = Config(family=family, arms=arms, idle=30, streak=8)
    return replace(base, instances=3) if arms == 10 else replace(base, depth=2)


def _learning(family: Family) -> dict[str, Config]:
    base = Config(family=family)
    tasks: tuple[Task, ...] = (
        "planner", "optimistic", "ucb1", "block", "greedy", "lookahead", "round-robin",
    )  # fmt: skip
    return {
        f"{family}-reference": replace(base, draws=1000),
        **{f"{family}-{task}": replace(base, task=task) for task in tasks},
        **{
            f"{family}-etc-{name}": replace(base, task="explore-then-commit", horizon=horizon)
            for name, horizon in HORIZONS.items()
        },
    }


KINDS: dict[Family, tuple[int, ...]] = {
    "random": SMALL + LARGE, "jump": SMALL + LARGE, "satiation": SMALL + LARGE, "tight": TIGHT,
}  # fmt: skip


def planning_arms(*families: Family, sizes: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of the arms that compare, of families and, if given, of numbers of arms."""
    return tuple(f"{f}-{k}" for f in families for k in KINDS[f] if sizes is None or k in sizes)


def _arms() -> dict[str, Config]:
    planned = {f"{f}-{k}": _planning(f, k) for f, sizes in KINDS.items() for k in sizes}
    return planned | _learning("jump") | _learning("satiation")


def _set(arms: Sequence[str], **settings: Any) -> dict[str, dict[str, Any]]:
    """The same settings for several arms."""
    return {arm: settings for arm in arms}


ARMS = _arms()
ALL_PLANNING = planning_arms(*KINDS)
ALL_SMALL = planning_arms(*FAMILIES, sizes=SMALL)


def share(trace: xr.Dataset, way: str) -> np.ndarray:
    """Reward over the relaxation's bound [seed, instance]."""
    last = trace.isel(step=-1)
    return (last.reward.sel(way=way) / last.bound).values


def _over_arms(traces: Traces, arms: Sequence[str], *ways: str) -> list[np.ndarray]:
    """For each way, the mean share over instances [arm, seed]."""
    return [np.stack([share(traces[a], w).mean(1) for a in arms if a in traces]) for w in ways]


def _gain(traces: Traces, arms: Sequence[str], way: str, over: str) -> np.ndarray:
    """Mean over arms of what one way earns beyond another, as a share of the bound, per seed."""
    first, second = _over_arms(traces, arms, way, over)
    return (first - second).mean(0)


def worst_share(traces: Traces, family: Family) -> np.ndarray:
    return _over_arms(traces, planning_arms(family), "planner")[0].min(0)


def distance_from_limit(traces: Traces) -> np.ndarray:
    found = _over_arms(traces, planning_arms("tight"), "planner")[0]
    sizes = np.array([k for k in TIGHT if f"tight-{k}" in traces])
    return np.abs(found - (1 - (1 - 1 / sizes) ** sizes)[:, None]).max(0)


def least_certificate(traces: Traces) -> np.ndarray:
    """The least, over all instances of a seed, of the planner's exact virtual reward over the bound."""
    last = [traces[arm].isel(step=-1) for arm in ALL_PLANNING]
    return np.stack([(t.virtual / t.bound).values.min(1) for t in last]).min(0)


def least_slack(traces: Traces) -> np.ndarray:
    """The least, over all small instances of a seed, of 1 - optimum / bound."""
    return np.stack([1 - share(traces[arm], "optimum").max(1) for arm in ALL_SMALL]).min(0)


def gain_over(traces: Traces, way: str, family: Family) -> np.ndarray:
    return _gain(traces, planning_arms(family), "planner", way)


def worth_of(traces: Traces, option: str) -> np.ndarray:
    return _gain(traces, ALL_PLANNING, option, "planner")


def practical_gain(traces: Traces, family: Family) -> np.ndarray:
    return _gain(traces, planning_arms(family), "planner-best-fill", "greedy")


def regret(traces: Traces, family: Family, arm: str) -> np.ndarray:
    """Expected reward of the planner that knows the payoffs, minus the arm's own [seed, step]."""
    rate = traces[f"{family}-reference"].isel(step=-1).reward.sel(way="planner").values[:, 0]
    trace = traces[f"{family}-{arm}"]
    return rate[:, None] * trace["round"].values - trace["mean"].values


def _horizons(traces: Traces, family: Family) -> np.ndarray:
    return np.array([int(traces[f"{family}-etc-{h}"]["round"][0, -1]) for h in HORIZONS])


def _slopes(horizons: np.ndarray, regrets: np.ndarray) -> np.ndarray:
    """Least-squares slope of log regret over log horizon, per seed; regrets below 1 count as 1."""
    x = np.log10(horizons)
    y = np.log10(np.maximum(regrets, 1.0))
    return ((x - x.mean()) * (y - y.mean(1, keepdims=True))).sum(1) / ((x - x.mean()) ** 2).sum()


def slope_of_commit(traces: Traces, family: Family) -> np.ndarray:
    ends = [regret(traces, family, f"etc-{h}")[:, -1] for h in HORIZONS]
    return _slopes(_horizons(traces, family), np.stack(ends, axis=1))


def slope_of(traces: Traces, arm: str, family: Family) -> np.ndarray:
    horizons = _horizons(traces, family)
    rounds = traces[f"{family}-{arm}"]["round"].values[0]
    steps = [int(np.flatnonzero(rounds == h)[0]) for h in horizons]
    return _slopes(horizons, regret(traces, family, arm)[:, steps])


def approximate_regret(traces: Traces, family: Family) -> np.ndarray:
    """(1 - 1/e) of the bound minus the reward of explore-then-commit, a round, at the last horizon."""
    bound = traces[f"{family}-reference"].isel(step=-1).bound.values[:, 0]
    trace = traces[f"{family}-etc-long"].isel(step=-1)
    return GUARANTEE * bound - (trace["mean"] / trace["round"]).values


def _etc_arms(family: Family) -> tuple[str, ...]:
    return (f"{family}-reference", *(f"{family}-etc-{h}" for h in HORIZONS))


def _claims() -> tuple[Claim, ...]:
    families: tuple[Family, ...] = (*FAMILIES, "tight")
    share_unit, slope_unit = "share of the bound", "log regret / log T"
    found = [
        Claim("C1.bound", "No policy beats the relaxation: the least of 1 - optimum / bound over all instances with 2 and 3 arms",
              "the relaxation bounds the optimum", ALL_SMALL, least_slack, "> -1e-6", share_unit),
        Claim("C1.certificate", "On every instance the planner's expected virtual reward, computed exactly, is at least 1 - 1/e of the bound",
              "approximation (almost) that of recharging bandits, 1 - 1/e", ALL_PLANNING, least_certificate, "> 0.63212", share_unit),
        *(Claim(f"C1.{f}", f"Played for 2,000 rounds, the planner earns 1 - 1/e of the bound on {f} instances, at the worst number of arms",
                "approximation (almost) that of recharging bandits, 1 - 1/e", planning_arms(f), partial(worst_share, family=f), "> 0.62212", share_unit)
          for f in families),
        Claim("C1.limit", "On the tight family it earns 1 - (1 - 1/L)^L of the bound: the largest distance over L = 4, 10, 20",
              "no number in the paper's abstract", planning_arms("tight"), distance_from_limit, "< 0.01", share_unit),
        *(Claim(f"C2.commit.{f}", f"Explore-then-commit: sublinear regret against the planner that knows the payoffs, {f}",
                "sublinear regret against the full-information counterpart", _etc_arms(f), partial(slope_of_commit, family=f), "< 1", slope_unit)
          for f in LEARNED),
        *(Claim(f"C2.optimistic.{f}", f"Optimistic epochs: the same, {f}",
                "sublinear regret against the full-information counterpart", (*_etc_arms(f), f"{f}-optimistic"), partial(slope_of, arm="optimistic", family=f), "< 1", slope_unit)
          for f in LEARNED),
        *(Claim(f"C2.blind.{f}", f"UCB1, which ignores the state, has linear regret, {f}",
                "not in the paper", (*_etc_arms(f), f"{f}-ucb1"), partial(slope_of, arm="ucb1", family=f), "> 0.9", slope_unit)
          for f in LEARNED),
        *(Claim(f"C2.approximate.{f}", f"At the last horizon explore-then-commit is above (1 - 1/e) of the bound, {f}",
                "sublinear approximate regret", (f"{f}-reference", f"{f}-etc-long"), partial(approximate_regret, family=f), "< 0", "reward a round")
          for f in LEARNED),
        Claim("C3", "Where runs pay (satiation), planning over pairs earns more than planning over delays alone",
              "a higher-dimensional relaxation is needed", planning_arms("satiation"), partial(gain_over, way="delay-only", family="satiation"), "> 0", share_unit),
        *(Claim(f"U1.{f}", f"The planner earns more than myopic greedy on {f} instances, mean over numbers of arms",
                "not in the paper", planning_arms(f), partial(gain_over, way="greedy", family=f), "> 0", share_unit) for f in families),
        *(Claim(f"U2.{f}", f"The planner earns more than looking 3 rounds ahead (2 with 50 arms) on {f} instances",
                "not in the paper", planning_arms(f), partial(gain_over, way="lookahead", family=f), "> 0", share_unit) for f in families),
        *(Claim(f"U3.{f}", f"The best of 64 roundings, with free rounds filled, earns more than myopic greedy on {f} instances",
                "not in the paper", planning_arms(f), partial(practical_gain, family=f), "> 0", share_unit) for f in families),
        *(Claim(f"V.{name}", f"{text} earns more than the plain planner, over all instances",
                "not in the paper", ALL_PLANNING, partial(worth_of, option=f"planner-{name}"), "> 0", share_unit)
          for name, text in (("fill", "Filling free rounds with unused arms"), ("best", "Keeping the best of 64 roundings"),
                             ("real", "Ranking by real states (not covered by the proof)"))),
    ]  # fmt: skip
    return tuple(found)


CLAIMS = _claims()

LOOK = {
    "planner": (style.colours[0], "o", "planner"),
    "planner-best-fill": (style.colours[5], "D", "planner, best of 64, filled"),
    "greedy": (style.colours[1], "s", "greedy"),
    "lookahead": (style.colours[4], "^", "lookahead"),
    "dyadic": (style.colours[3], "v", "periodic, powers of two"),
    "optimum": (style.colours[2], "_", "optimum (value iteration)"),
}
NAMES = {
    "random": "sorted uniforms",
    "jump": "pay jumps after a rest",
    "satiation": "runs pay, then tire",
    "tight": "tight instances",
}


def draw_certificate(traces: Traces) -> MatplotlibFigure:
    families: list[Family] = [f for f in KINDS if any(arm in traces for arm in planning_arms(f))]
    figure, axes = style.figure(1, len(families), width=3.1 * len(families), height=4.0,
                                sharey=True, squeeze=False)  # fmt: skip
    for ax, family in zip(axes[0], families, strict=True):
        sizes = [k for k in KINDS[family] if f"{family}-{k}" in traces]
        for place, size in enumerate(sizes):
            for i, (way, (colour, marker, _)) in enumerate(LOOK.items()):
                values = share(traces[f"{family}-{size}"], way).ravel()
                if np.isnan(values).all():
                    continue
                x = place + (i - 2.5) * 0.13
                low, high = np.quantile(values, [0.05, 0.95])
                ax.vlines(x, low, high, color=colour, alpha=0.45, linewidth=2.5)
                ax.scatter(x, values.mean(), s=34, color=colour, marker=marker, zorder=3,
                           linewidth=2 if marker == "_" else 0.5)  # fmt: skip
        ax.axhline(GUARANTEE, color=style.colours[6], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_xticks(range(len(sizes)), [str(k) for k in sizes])
        ax.set(xlabel="arms", title=NAMES[family], ylim=(0.35, 1.03))
        ax.set_xlim(-0.6, len(sizes) - 0.4)
    axes[0, 0].set_ylabel("reward / relaxation bound")
    axes[0, 0].annotate("1 − 1/e", (0, GUARANTEE), xycoords=("axes fraction", "data"),
                        xytext=(4, -12), textcoords="offset points", fontsize=9)  # fmt: skip
    handles = [
        axes[0, 0].plot([], [], color=c, marker=m, linestyle="", label=n, markeredgewidth=2)[0]
        for c, m, n in LOOK.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LOOK), columnspacing=1.2,
                  handletextpad=0.3)  # fmt: skip
    return figure


CURVES = {
    "optimistic": (style.colours[2], "optimistic epochs"),
    "block": (style.colours[3], "blocks of 3 (CombUCB1)"),
    "ucb1": (style.colours[1], "UCB1, blind to states"),
}


def draw_regret(traces: Traces) -> MatplotlibFigure:
    families: list[Family] = [f for f in LEARNED if f"{f}-etc-long" in traces]
    figure, axes = style.figure(1, len(families), width=4.9 * len(families), height=3.9,
                                squeeze=False)  # fmt: skip
    for ax, family in zip(axes[0], families, strict=True):
        horizons = _horizons(traces, family)
        ends = np.stack([regret(traces, family, f"etc-{h}")[:, -1] for h in HORIZONS], 1)
        _line(ax, horizons, ends, style.colours[0], "explore, then commit", marker="o")
        for arm, (colour, label) in CURVES.items():
            if f"{family}-{arm}" in traces:
                rounds = traces[f"{family}-{arm}"]["round"].values[0]
                _line(ax, rounds[1:], regret(traces, family, arm)[:, 1:], colour, label)
        _slope_guides(ax, horizons, max(float(ends[:, 0].mean()), 1.0))
        ax.set(xscale="log", yscale="log", xlabel="rounds", title=NAMES[family])
        ax.set_ylim(bottom=10)
    axes[0, 0].set_ylabel("regret against the planner\nthat knows the payoffs")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _line(
    ax: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str, **more: Any
) -> None:
    """Mean over seeds with its 95 % interval; what is not above 0 cannot be drawn on a log axis."""
    bounds = np.array([interval(column) for column in values.T]).T
    ax.plot(
        x, np.where(values.mean(0) > 0, values.mean(0), np.nan), color=colour, label=label, **more
    )
    if np.isfinite(bounds).all():
        ax.fill_between(x, np.maximum(bounds[0], 1e-3), np.maximum(bounds[1], 1e-3), color=colour,
                        alpha=0.18, linewidth=0)  # fmt: skip


def _slope_guides(ax: Axes, horizons: np.ndarray, start: float) -> None:
    ends = np.array([horizons[0], horizons[-1]], float)
    for power, text in ((1.0, "T"), (2 / 3, "T$^{2/3}$")):
        guide = 1.8 * start * (ends / ends[0]) ** power
        ax.plot(ends, guide, color=style.colours[6], linewidth=1, linestyle=":")
        ax.annotate(
            text, (ends[1], guide[1]), xytext=(3, -3), textcoords="offset points", fontsize=9
        )


BARS = (
    ("planner", "known payoffs: planner", 0),
    ("greedy", "known payoffs: greedy", 1),
    ("lookahead", "known payoffs: lookahead", 4),
    ("optimistic", "learning: optimistic epochs", 2),
    ("etc-long", "learning: explore, then commit", 0),
    ("block", "learning: blocks of 3", 3),
    ("ucb1", "learning: UCB1, blind", 1),
    ("round-robin", "round robin", 6),
)


def draw_rewards(traces: Traces) -> MatplotlibFigure:
    families: list[Family] = [f for f in LEARNED if f"{f}-etc-long" in traces]
    figure, axes = style.figure(1, len(families), width=4.4 * len(families) + 1.2, height=3.5,
                                sharey=True, squeeze=False)  # fmt: skip
    for ax, family in zip(axes[0], families, strict=True):
        bound = traces[f"{family}-reference"].isel(step=-1).bound.values[:, 0]
        shown = [bar for bar in BARS if f"{family}-{bar[0]}" in traces]
        for place, (arm, _, colour) in enumerate(reversed(shown)):
            trace = traces[f"{family}-{arm}"].isel(step=-1)
            values = (trace["mean"] / trace["round"]).values / bound
            low, high = interval(values)
            ax.barh(place, values.mean(), color=style.colours[colour], height=0.65, alpha=0.85)
            if np.isfinite(low):
                ax.plot([low, high], [place, place], color=style.INK, linewidth=1.4)
        ax.axvline(GUARANTEE, color=style.colours[6], linewidth=1.2, linestyle=(0, (4, 2)))
        ax.annotate("1 − 1/e", (GUARANTEE, 1), xycoords=("data", "axes fraction"), xytext=(4, -11),
                    textcoords="offset points", fontsize=9)  # fmt: skip
        ax.set_yticks(range(len(shown)), [label for _, label, _ in reversed(shown)])
        ax.set(xlabel="reward / relaxation bound", xlim=(0, 1.02), title=NAMES[family])
        ax.set_ylim(-0.6, len(shown) + 0.2)
        ax.grid(False, axis="y")
    return figure


OPTIONS = {
    "planner-fill": "fill\nfree rounds",
    "planner-best": "best of\n64 roundings",
    "planner-best-fill": "both",
    "planner-real": "rank by\nreal states",
    "delay-only": "delays only\n(single plays)",
}


def draw_options(traces: Traces) -> MatplotlibFigure:
    families: list[Family] = [f for f in KINDS if all(arm in traces for arm in planning_arms(f))]
    figure, ax = style.figure(1, 1, width=7.4, height=3.8)
    step = 0.8 / max(len(families), 1)
    for i, family in enumerate(families):
        for place, option in enumerate(OPTIONS):
            gains = 100 * _gain(traces, planning_arms(family), option, "planner")
            low, high = interval(gains)
            x = place + (i - (len(families) - 1) / 2) * step
            ax.bar(x, gains.mean(), width=0.9 * step, color=style.colours[i], alpha=0.85,
                   label=NAMES[family] if place == 0 else None)  # fmt: skip
            if np.isfinite(low):
                ax.plot([x, x], [low, high], color=style.INK, linewidth=1.4)
    ax.axhline(0, color=style.INK, linewidth=1)
    ax.set_xticks(range(len(OPTIONS)), list(OPTIONS.values()))
    ax.set(ylabel="reward beyond the plain planner\n(% of the bound)")
    ax.grid(False, axis="x")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


FIGURES = (
    Figure("certificate", "Mean reward over the relaxation's bound, with known payoffs, by number of arms; bars from the 5th to the 95th percentile of instances.",
           draw_certificate, ("jump-2",)),
    Figure("regret", "Regret against the planner that knows the payoffs, five arms, 0/1 rewards; bands are 95 % intervals of the mean. Explore-then-commit is a run of its own for every horizon. A curve that stops has met the planner or passed it.",
           draw_regret, tuple(_etc_arms("jump"))),
    Figure("rewards", "Reward a round at the last horizon over the relaxation's bound, five arms, 0/1 rewards.",
           draw_rewards, ("jump-reference", "jump-etc-long")),
    Figure("options", "What options add to the plain planner or take from it: mean over numbers of arms, 95 % intervals over seeds.",
           draw_options, planning_arms("jump")),
)  # fmt: skip

SMOKE = (*ALL_PLANNING, *_etc_arms("jump"), "jump-optimistic", "jump-ucb1", "jump-greedy")
SMOKE_SETTINGS = {
    "arms": 4, "idle": 3, "streak": 1, "instances": 1, "rounds": 60, "draws": 8, "best_of": 4,
    "horizon": 1000, "period": 0, "depth": 1,
}  # fmt: skip
SMOKE_HORIZONS = {"jump-etc-short": {"horizon": 215}, "jump-etc-middle": {"horizon": 464}}

study = Study(
    paper=Paper(
        "last-switch-bandits", "Last Switch Dependent Bandits with Monotone Payoff Functions",
        "Foussoul, Goyal, Papadigenopoulos, Zeevi", "ICML", 2023, "2306.00338",
    ),
    family="bandits",
    question="Can arms that tire when played and recover when rested be scheduled near the best, and learned?",
    symptoms=(
        "the same song, ad or notification works less each time it is shown and recovers after a pause",
        "rewards depend on how long an arm was idle or how often it was played in a row",
        "a bandit settles on one arm, wears it out, and its reward falls",
        "fatigue, satiation, boredom or recharging in recommendations",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE, SMOKE_SETTINGS, SMOKE_HORIZONS),
        "quick": Budget(6, None, {}, _set(planning_arms(*FAMILIES, sizes=(50,)), draws=100)),
        "full": Budget(24, None, {}, _set(planning_arms(*FAMILIES), instances=3)),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic: payoff tables drawn by `Instances`",
    notes=(
        "The paper has no experiments. Relaxation, rounding and both learners are reconstructed from its "
        "abstract, each with an argument of its own; constants may differ from the paper's. The satiation "
        "family caps p(-1) at p(1), or its payoffs would not be monotone."
    ),
    watch="mean",
    side_by_side=True,
)  # fmt: skip
