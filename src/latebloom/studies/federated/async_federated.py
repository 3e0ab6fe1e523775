"""A General Theory for Federated Optimization with Asynchronous and Heterogeneous Clients Updates.

Fraboni, Vidal, Kameni, Lorenzi (JMLR 24, 2023, arXiv 2206.10189).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data import load_examples
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures
from latebloom.measures import Effect, Measure, Traces, average, highest, measure, setting, tail
from latebloom.methods.federated import clock
from latebloom.methods.federated.problems import Classification, Quadratics
from latebloom.methods.federated.split import DirichletSplit
from latebloom.methods.federated.training import Federated, replay
from latebloom.methods.federated.weights import (
    Scheme,
    clockless_weights,
    polynomial_discount,
    surrogate,
    uniform,
    weights_from_participation,
)
from latebloom.nn import MLP


@dataclass(frozen=True)
class Config:
    """One run.

    - `problem`: "quadratic" (exact), "logistic" regression, or a "network" of one hidden layer.
    - `data`, `alpha`: examples, and the concentration of their Dirichlet split (inf: iid).
    - `percent`: the fastest client takes so much less time than the slowest, which takes 1.
    - `scheme`: with `buffer_size` or `window` where it needs them. `weights`: "time" for those that
      make it unbiased, "identical", or "mix" for FedAsync with rate 0.6 and discount power 0.5.
    - `horizon`: simulated time, observed `looks` times.
    """

    problem: Literal["quadratic", "logistic", "network"] = "quadratic"
    data: str = "mnist-5k"
    alpha: float = 0.1
    width: int = 64
    dim: int = 5

    clients: int = 10
    percent: float = 80.0
    random_times: bool = False
    scheme: Scheme = "async"
    weights: Literal["time", "identical", "mix"] = "time"
    buffer_size: int = 5
    window: float = 0.5

    learning_rate: float = 1e-3
    server_rate: float = 1.0
    local_steps: int = 1
    batch_size: int = 64
    horizon: float = 3000.0
    looks: int = 60


def make_process(config: Config) -> Federated:
    plan = make_schedule(config)
    same = clockless_weights(config.scheme, config.clients, buffer_size=config.buffer_size)
    mixes, discount = config.weights == "mix", None
    if config.weights == "time":
        used = weights_from_participation(plan.participation, uniform(config.clients))
    else:
        used = np.full(config.clients, 0.6) if mixes else same
    if mixes:
        discount = polynomial_discount(plan.staleness, 0.5)
    moments = np.linspace(0, config.horizon, config.looks + 1)
    return Federated(
        _problem(config), replay(plan, used, moments, discount=discount),
        learning_rate=config.learning_rate, local_steps=config.local_steps,
        server_rate=config.server_rate, surrogate=surrogate(same, plan.participation),
        update="mix" if mixes else "difference", x64=config.problem == "quadratic",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    return np.arange(config.looks + 1)


def make_schedule(config: Config) -> clock.Schedule:
    """Who takes part when."""
    rule = clock.rule_of(config.scheme, buffer_size=config.buffer_size, length=config.window)
    tau = clock.scenario(config.clients, config.percent)
    times = clock.exponential(tau) if config.random_times else clock.fixed(tau)
    return clock.schedule(rule, times, config.clients, config.horizon)


def _problem(config: Config) -> Any:
    if config.problem == "quadratic":
        return Quadratics(config.clients, config.dim)
    x_train, y_train, x_test, y_test = load_examples(config.data)
    classes = int(y_train.max()) + 1
    widths = (config.width,) if config.problem == "network" else ()
    return Classification(
        partial(_network, (x_train.shape[1], widths, classes)),
        DirichletSplit(y_train, y_test, config.clients, config.alpha),
        x_train, y_train, x_test, y_test, config.batch_size,
    )  # fmt: skip


def _network(sizes: tuple[int, tuple[int, ...], int], key: PRNGKeyArray) -> eqx.Module:
    return MLP(*sizes, key=key)


# Learning rates from the grid 1, 2, 5 x 10^-3, 10^-2, 10^-1 and 1 (the paper's spacing), on seeds 100
# and 101, by the federated training loss at the end. For the weights' comparison: tuned on "identical".
IID, FULL = float("inf"), {"data": "mnist", "learning_rate": 0.02, "horizon": 200.0, "looks": 20}
PROBLEMS: dict[str, dict[str, Any]] = {
    "mnist-iid": {"alpha": IID, "learning_rate": 0.5, "horizon": 500.0},
    "mnist-skewed": {"alpha": 0.1, "learning_rate": 0.5, "horizon": 500.0},
    "mnist-60k-iid": {"alpha": IID, **FULL},
    "mnist-60k-skewed": {"alpha": 0.1, **FULL},
    "satellite-skewed": {"data": "satellite", "learning_rate": 0.1, "horizon": 1000.0},
    "letter-skewed": {"data": "letter", "learning_rate": 0.2, "horizon": 1000.0},
}
SMALLEST_RATE = 0.001
RATES = {
    "f80-sync": 0.5, "f80-async": 0.005, "f80-async-identical": 0.01, "f80-fedasync": 1.0,
    "f80-fedfix-0.2": 0.1, "f80-fedfix-0.5": 0.2, "f80-fedfix-0.8": 0.5,
    "f80-fedbuff-5": 0.1, "f80-fedbuff-10": 0.5, "f80-fedbuff-10-weighted": 0.2,
    "f0-sync": 0.5, "f0-async": 0.005, "f0-fedfix-0.5": 0.2, "f0-fedbuff-10": 0.2,
    "f0-sync-server-2": 0.2,
}  # fmt: skip
SCHEMES: dict[str, dict[str, Any]] = {
    "sync": {"scheme": "sync"},
    "sync-server-2": {"scheme": "sync", "server_rate": 2.0},
    "async": {"scheme": "async"},
    "async-identical": {"scheme": "async", "weights": "identical"},
    "fedasync": {"scheme": "async", "weights": "mix"},
    "fedfix-0.2": {"scheme": "fedfix", "window": 0.2},
    "fedfix-0.5": {"scheme": "fedfix", "window": 0.5},
    "fedfix-0.8": {"scheme": "fedfix", "window": 0.8},
    "fedbuff-5": {"scheme": "fedbuff", "buffer_size": 5, "weights": "identical"},
    "fedbuff-10": {"scheme": "fedbuff", "buffer_size": 10, "weights": "identical"},
    "fedbuff-10-weighted": {"scheme": "fedbuff", "buffer_size": 10},
}

QUADRATIC = Config()
LOGISTIC = Config(problem="logistic", looks=30)
NETWORK = Config(
    problem="network", data="letter", clients=20, local_steps=10, horizon=100.0, looks=25
)
FEDFIX = (0.2, 0.5, 0.8)
MAIN = ("async", "fedfix-0.5", "fedbuff-10", "sync")


def _network_arm(name: str, **more: Any) -> Config:
    percent, scheme = name.split("-", 1)
    return replace(NETWORK, percent=float(percent[1:]), **SCHEMES[scheme], **more)


QUICK = replace(QUADRATIC, learning_rate=0.01)
QUADRATICS = {
    "async": QUADRATIC,
    "exponential": replace(QUADRATIC, random_times=True),
    **{f"fedfix-{w}": replace(QUICK, scheme="fedfix", window=w) for w in FEDFIX},
    "fedbuff-5": replace(QUICK, scheme="fedbuff"),
}
WEIGHTS: dict[str, Any] = {"": "time", "-identical": "identical"}
ARMS: dict[str, Config] = {
    "quadratic-sync": replace(QUICK, scheme="sync"),
    **{f"quadratic-{scheme}{end}": replace(config, weights=weights)
       for scheme, config in QUADRATICS.items() for end, weights in WEIGHTS.items()},
    **{f"{problem}{end}": replace(LOGISTIC, weights=weights, **options)
       for problem, options in PROBLEMS.items() for end, weights in WEIGHTS.items()},
    **{f"small-{s}": _network_arm(f"f80-{s}", learning_rate=SMALLEST_RATE) for s in MAIN},
    **{arm: _network_arm(arm, learning_rate=rate) for arm, rate in RATES.items()},
    **{f"m50-{p}-{s}": _network_arm(f"{p}-{s}", learning_rate=RATES[f"{p}-{s}"], clients=50)
       for p in ("f0", "f80") for s in MAIN},
}  # fmt: skip

loss, spread, over_time = tail("train_loss"), tail("train_loss_spread"), average("train_loss")
surrogate_loss = tail("surrogate_train_loss")


def distance(optimum: str) -> Measure:
    """Of the time average over the second half from an optimum."""

    def of(trace: xr.Dataset) -> np.ndarray:
        late = trace.model.values[:, trace.sizes["step"] // 2 :].mean(axis=1)
        return np.linalg.norm(late - trace[optimum].values[:, -1], axis=1)

    return Measure(f"distance from {optimum}", of)


right, wrong = distance("optimum"), distance("surrogate_optimum")


def worst(of: Measure, schemes: Sequence[str]) -> Effect:
    return highest(of[f"quadratic-{scheme}"] for scheme in schemes)


@measure("share by which the loss still falls in the second half")
def still_falls(trace: xr.Dataset) -> np.ndarray:
    values = trace.train_loss.values
    middle, few = values.shape[1] // 2, max(values.shape[1] // 10, 1)
    return 1 - values[:, -few:].mean(axis=1) / values[:, middle - few : middle + few].mean(axis=1)


def settled(*arms: str) -> tuple[Need]:
    return (Need(highest(still_falls[arm] for arm in arms), "< 0.1",
                 "the loss still falls by a tenth in the second half of the run"),)  # fmt: skip


def apart(one: str, other: str) -> Effect:
    """The largest |log10 ratio| of two loss curves."""

    def of(traces: Traces) -> np.ndarray:
        first, second = (traces[arm].train_loss.values for arm in (one, other))
        return np.abs(np.log10(first / second)).max(axis=1)

    return Effect((one, other), "largest |log10 ratio| of the losses", of)


def exact(id: str, text: str, *schemes: str) -> Claim:
    """Where runs end, the worst of the schemes; the null: the same with the other weights."""
    same = schemes[0].endswith("-identical")
    rivals = [name.removesuffix("-identical") if same else f"{name}-identical" for name in schemes]
    ratio = wrong / right if same else right / wrong
    return Claim(f"C1a.{id}", text, "in the limit, theorem 4 and example 2", worst(ratio, schemes), "< 0.05",
                 "ratio of distances", null=worst(ratio, rivals))  # fmt: skip


def weighted(problem: str) -> tuple[Claim, ...]:
    """Time-based weights less identical ones."""
    rows = (("loss", "Time-based weights end at a lower federated loss", "lower FP mean (Fig. 2a)", loss, "< 0"),
            ("spread", "and at a smaller spread of the clients' losses", "lower FP std (Fig. 2b)", spread, "< 0"),
            ("surrogate", "identical weights are better on their own surrogate", "lower SP mean (Fig. 2c)",
             surrogate_loss, "> 0"))  # fmt: skip
    arms = (problem, f"{problem}-identical")
    budget = "quick" if problem in ("satellite-skewed", "letter-skewed") else "thorough"
    return tuple(Claim(f"C1b.{id}.{problem}", text, paper, of[arms[0]] - of[arms[1]], holds, "nats", budget=budget,
                       needs=settled(*arms)) for id, text, paper, of, holds in rows)  # fmt: skip


def skew(data: str) -> Claim:
    pairs = [(f"{data}-{split}", f"{data}-{split}-identical") for split in ("skewed", "iid")]
    skewed, even = (loss[time] - loss[same] for time, same in pairs)
    return Claim(f"C1b.skew.{data}", "Skewed data make identical weights do more harm (skewed - iid)",
                 "twice as large for non-iid (Fig. 2)", skewed - even, "< 0", "nats", budget="thorough",
                 needs=settled(*pairs[0], *pairs[1]))  # fmt: skip


def faster(id: str, text: str, first: str, second: str) -> Claim:
    return Claim(f"C2.{id}", f"Smallest rate: {text}", "async above FedFix, FedBuff above FL (Figs 4-7)",
                 over_time[f"small-{first}"] - over_time[f"small-{second}"], "< 0", "nats, mean over time")  # fmt: skip


def beats(id: str, text: str, paper: str, one: str, other: str, budget: str = "thorough") -> Claim:
    return Claim(id, text, paper, loss[one] - loss[other], "< 0", "nats", budget=budget,
                 needs=settled(one, other))  # fmt: skip


FIXES = tuple(f"fedfix-{w}" for w in FEDFIX)
SAME_FIXES = tuple(f"{fix}-identical" for fix in FIXES)
FL, FIX = "FL below async (Fig. 3)", "FedFix-0.5 below FL (Fig. 3)"
BUFF = "FedBuff always beats async (Fig. 3)"
CLAIMS = (
    exact("time", "Quadratics: async with time-based weights ends at the federated optimum", "async"),
    exact("identical", "with identical weights at the optimum weighted by 1/tau", "async-identical"),
    exact("fedfix", "FedFix 0.2, 0.5, 0.8 with its weights end at the federated optimum", *FIXES),
    exact("fedfix-identical", "with d_i = p_i at their own surrogates' optima", *SAME_FIXES),
    exact("fedbuff", "FedBuff-5 with participation weights ends at the federated optimum", "fedbuff-5"),
    exact("fedbuff-identical", "with d_i = 1/c, as it is commonly run, it does not", "fedbuff-5-identical"),
    exact("exponential", "the same where client times are exponential", "exponential"),
    exact("exponential-identical", "and likewise with identical weights", "exponential-identical"),
    *(claim for problem in PROBLEMS for claim in weighted(problem)),
    skew("mnist"),
    skew("mnist-60k"),
    faster("async-fedfix", "async learns faster than FedFix-0.5", "async", "fedfix-0.5"),
    faster("async-fedbuff", "async learns faster than FedBuff-10", "async", "fedbuff-10"),
    faster("fedfix-sync", "FedFix-0.5 learns faster than FedAvg", "fedfix-0.5", "sync"),
    faster("fedbuff-sync", "FedBuff-10 learns faster than FedAvg", "fedbuff-10", "sync"),
    beats("C3.f0", "Best rates, equal clients: FedAvg beats async", FL, "f0-sync", "f0-async"),
    beats("C3.f80", "Best rates, unequal clients: FedAvg beats async", FL, "f80-sync", "f80-async"),
    beats("C3.fedfix", "Best rates, unequal clients: FedFix-0.5 beats FedAvg", FIX, "f80-fedfix-0.5", "f80-sync"),
    beats("C3.fedbuff.f0", "Best rates, equal clients: FedBuff-10 beats async", BUFF, "f0-fedbuff-10", "f0-async"),
    beats("C3.fedbuff.f80", "Best rates, unequal clients: FedBuff-10 beats async", BUFF,
          "f80-fedbuff-10", "f80-async"),
    beats("C3.fedfix-fedbuff", "Best rates, unequal clients: FedFix-0.5 beats FedBuff-10",
          "FedFix balances better than FedBuff", "f80-fedfix-0.5", "f80-fedbuff-10"),
    beats("C4", "Best rates, equal clients: FedFix-0.5 beats FedAvg even so", "FedFix can beat FL at F0",
          "f0-fedfix-0.5", "f0-sync"),
    Claim("C4.control", "FedFix-0.5 with equal clients is FedAvg with server rate 2",
          "behaves as with a server learning rate of 2", apart("f0-fedfix-0.5", "f0-sync-server-2"), "< 0.01",
          "largest |log10 ratio|", budget="thorough", null=apart("f0-fedfix-0.5", "f0-sync")),
    beats("M50.f0", "50 clients, best rates, equal: FedAvg beats async", FL, "m50-f0-sync", "m50-f0-async", "full"),
    beats("M50.f80", "50 clients, best rates, unequal: FedAvg beats async", FL, "m50-f80-sync", "m50-f80-async",
          "full"),
    beats("M50.fedfix", "50 clients, best rates, unequal: FedFix-0.5 beats FedAvg", FIX, "m50-f80-fedfix-0.5",
          "m50-f80-sync", "full"),
)  # fmt: skip


def timed(trace: xr.Dataset) -> xr.Dataset:
    """The trace with simulated time in place of steps."""
    horizon, looks = setting(trace, "horizon"), setting(trace, "looks")
    return trace.assign_coords(step=trace.step * horizon / looks)


TITLES = {
    "mnist-iid": "MNIST-5k, iid", "mnist-skewed": "MNIST-5k, skewed",
    "mnist-60k-iid": "MNIST, iid", "mnist-60k-skewed": "MNIST, skewed",
    "satellite-skewed": "Satellite, skewed", "letter-skewed": "Letter, skewed",
}  # fmt: skip
FITTED = ("mnist-iid", "mnist-skewed")  # the loss goes to zero
LINES = {
    "sync": "FedAvg", "async": "async", "fedfix-0.5": "FedFix-0.5", "fedbuff-10": "FedBuff-10",
    "fedasync": "FedAsync", "fedbuff-10-weighted": "FedBuff-10, weighted",
}  # fmt: skip
TIME, LOSS = "time (slowest rounds)", "federated loss (nats)"


def lines(prefix: str) -> dict[str, str]:
    return {f"{prefix}-{scheme}": f"{name} (η = {{learning_rate:g}})" for scheme, name in LINES.items()}  # fmt: skip


wall_clock = pictures.curves(
    "train_loss", ("unequal clients (F80), smallest rate", lines("small")),
    ("unequal clients (F80), best rates", lines("f80")),
    ("equal clients (F0), best rates", lines("f0")),
    as_drawn=timed, yscale="log", xlabel=TIME, ylabel=f"FP mean: {LOSS}",
)  # fmt: skip


def draw_wall_clock(traces: Traces) -> MatplotlibFigure:
    """The paper's figure 3, and its appendix's small learning rates; without what went astray."""
    figure = wall_clock(traces)
    top = figure.axes[0].get_ylim()[1]
    figure.axes[0].set_ylim(top=min(top, 10))
    return figure


@pictures.by_hand(4, 2, width=11, height=2.6, sharex=True, sharey=True)
def draw_clock(traces: Traces, *axes: Axes) -> None:
    base = replace(QUADRATIC, clients=5, horizon=20.0, buffer_size=2)
    for ax, (scheme, title) in zip(axes, (
        ("sync", "FedAvg: wait for all"), ("async", "async FedAvg: every arrival"),
        ("fedbuff", "FedBuff-2: two arrivals"), ("fedfix", "FedFix-0.5: fixed windows"),
    ), strict=True):  # fmt: skip
        pictures.gantt(ax, *make_schedule(replace(base, scheme=scheme)).rounds(range(5)), 4.0)
        ax.set(title=title, xlabel=TIME, ylabel="client")
        ax.label_outer()


def _when(*prefixes: str) -> tuple[str, ...]:
    return tuple(arm for arm in ARMS if arm.startswith(prefixes))


def _main(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}-{scheme}" for prefix in prefixes for scheme in MAIN)


way, AT_BEST = right / (right + wrong), [arm for arm in RATES if arm.startswith("f80")]
FIGURES = (
    Figure("wall-clock", "Federated loss over simulated time: at one small learning rate, and with "
           "each scheme's best (20 clients, network of 64 units on Letter, 10 local steps)",
           draw_wall_clock, (*_main("small", "f80"), "f0-sync")),
    Figure("weights", "Asynchronous FedAvg with identical and time-based weights: loss and spread over "
           "clients on the federated problem (FP) and on the surrogate (SP)",
           pictures.curves(
               {"FP mean (nats)": "train_loss", "FP std (nats)": "train_loss_spread",
                "SP mean (nats)": "surrogate_train_loss", "SP std (nats)": "surrogate_train_loss_spread"},
               *((TITLES[p], {p: "time-based", f"{p}-identical": "identical"}) for p in PROBLEMS),
               as_drawn=lambda trace: timed(trace).isel(step=slice(1, None)), xlabel=TIME,
               own={TITLES[p]: {"yscale": "log"} for p in FITTED}),
           ("letter-skewed", "letter-skewed-identical")),
    Figure("quadratics", "On quadratics (F80), unbiased weights end at the federated optimum and identical ones "
           "at the surrogate's; a dot for each seed",
           pictures.dots(
               {"where it ends": {scheme: {"unbiased": way[f"quadratic-{scheme}"],
                                           "identical": way[f"quadratic-{scheme}-identical"]}
                                  for scheme in ("async", "exponential", *FIXES, "fedbuff-5")}},
               xlim=(-0.1, 1.1), xticks=[0, 0.5, 1],
               xticklabels=["federated\noptimum", "midway", "optimum of\nthe surrogate"]),
           ("quadratic-async", "quadratic-async-identical")),
    Figure("control", "With equal clients FedFix-0.5 is FedAvg with a server rate of 2",
           pictures.curves(
               "train_loss", ("equal clients (F0)", {
                   "f0-sync": "FedAvg, best rate", "f0-fedfix-0.5": "FedFix-0.5, best rate",
                   "f0-sync-server-2": "FedAvg, server rate 2"}),
               look={"FedAvg, server rate 2": {"linestyle": (0, (2, 3))}},
               as_drawn=timed, yscale="log", xlabel="time (rounds)", ylabel=LOSS),
           ("f0-sync", "f0-fedfix-0.5", "f0-sync-server-2")),
    Figure("final", "Loss and its spread at the end with unequal clients (F80), each scheme at its best rate; "
           "dots: seeds, bars: means",
           pictures.dots({label: {arm.removeprefix("f80-"): of[arm] for arm in AT_BEST} for label, of in (
               (LOSS, loss), ("std of the clients' losses (nats)", spread))}, xlim=(0, None)),
           ("f80-sync", "f80-async")),
    Figure("clock", "Who works when: five clients under four waiting rules; lines are aggregations", draw_clock),
)  # fmt: skip


def _smoke() -> Budget:
    networks = (*_main("small", "f80"), "f80-fedasync", "f0-sync", "f0-fedfix-0.5", "f0-sync-server-2")  # fmt: skip
    others = ("quadratic-sync", "quadratic-async", "quadratic-async-identical",
              "quadratic-fedbuff-5", "mnist-iid", "mnist-iid-identical")  # fmt: skip
    digits = {key: {"data": "digits", "clients": 12} for key in networks}
    return Budget(2, (*others, *networks), {"horizon": 8.0, "looks": 8}, digits)


def _full() -> Budget:
    horizons = {key: {"horizon": 200000.0} for key in _when("mnist", "satellite", "letter")}
    horizons |= {key: {"horizon": 5000.0} for key in _when("small", "f0", "f80", "m50")}
    return Budget(6, settings={"looks": 250}, arm_settings=horizons)


study = Study(
    paper=Paper(
        slug="async-federated",
        title="A General Theory for Federated Optimization with Asynchronous and Heterogeneous "
        "Clients Updates",
        authors="Yann Fraboni, Richard Vidal, Laetitia Kameni, Marco Lorenzi",
        venue="JMLR 24",
        year=2023,
        arxiv="2206.10189",
        code="Accenture/Labs-Federated-Learning",
    ),
    family="federated",
    question="When clients finish at different times, which aggregation weights reach the right "
    "optimum, and is it worth waiting for the slow ones?",
    symptoms=(
        "fast clients dominate the federated model, slow ones are served badly",
        "asynchronous federated learning ends at a worse loss than synchronous",
        "stragglers hold up every federated round",
        "updates arrive stale",
        "how should delayed client updates be weighted",
        "which buffer size or waiting window for federated aggregation",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": _smoke(),
        "quick": Budget(6),
        "thorough": Budget(6, also=_when("quadratic-sync", "f80")),
        "full": _full(),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="quadratics; MNIST-5k, MNIST, Satellite and Letter with Dirichlet(0.1) splits",
    notes="Letter stands in for CIFAR and Shakespeare; the network has one hidden layer. Below the full budget the "
    "horizon is 100 slowest rounds where the paper has 5000, and 200 to 1000 where it has 200,000; a comparison of "
    "where runs end is out of reach while the loss still falls.",
    watch="train_loss",
)
