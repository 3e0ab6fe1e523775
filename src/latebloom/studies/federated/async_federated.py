"""A General Theory for Federated Optimization with Asynchronous and Heterogeneous Clients Updates.

Fraboni, Vidal, Kameni, Lorenzi (JMLR 24, 2023, arXiv 2206.10189).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data import load, load_table
from latebloom.data.images import image_names
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.pictures import gantt
from latebloom.lab.study import Traces
from latebloom.methods.federated import clock
from latebloom.methods.federated.problems import Classification, Quadratics
from latebloom.methods.federated.split import DirichletSplit
from latebloom.methods.federated.training import Federated, replay
from latebloom.methods.federated.weights import (
    Scheme,
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
    time_based = weights_from_participation(plan.participation, uniform(config.clients))
    same = identical_weights(config)
    moments = np.linspace(0, config.horizon, config.looks + 1)
    mixes = config.weights == "mix"
    if mixes:
        used = np.full(config.clients, 0.6)
    else:
        used = time_based if config.weights == "time" else same
    return Federated(
        _problem(config),
        replay(plan, used, moments,
               discount=polynomial_discount(plan.staleness, 0.5) if mixes else None),
        learning_rate=config.learning_rate, local_steps=config.local_steps,
        server_rate=config.server_rate, surrogate=surrogate(same, plan.participation),
        update="mix" if mixes else "difference", x64=config.problem == "quadratic",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    return np.arange(config.looks + 1)


def make_schedule(config: Config) -> clock.Schedule:
    """Who takes part when."""
    rule = {
        "sync": clock.everyone,
        "async": clock.first,
        "fedbuff": clock.buffer(config.buffer_size),
        "fedfix": clock.window(config.window),
    }[config.scheme]
    tau = clock.scenario(config.clients, config.percent)
    times = clock.exponential(tau) if config.random_times else clock.fixed(tau)
    return clock.schedule(rule, times, config.clients, config.horizon)


def identical_weights(config: Config) -> np.ndarray:
    """d_i that look at no clock: 1 for a lone update, else a mean over those that are awaited."""
    each = {"async": 1.0, "fedbuff": 1 / config.buffer_size}.get(config.scheme, 1 / config.clients)
    return np.full(config.clients, each)


def _problem(config: Config) -> Any:
    if config.problem == "quadratic":
        return Quadratics(config.clients, config.dim)
    x_train, y_train, x_test, y_test = _examples(config.data)
    classes = int(y_train.max()) + 1
    widths = (config.width,) if config.problem == "network" else ()
    return Classification(
        partial(_network, (x_train.shape[1], widths, classes)),
        DirichletSplit(y_train, y_test, config.clients, config.alpha),
        x_train, y_train, x_test, y_test, config.batch_size,
    )  # fmt: skip


def _network(sizes: tuple[int, tuple[int, ...], int], key: PRNGKeyArray) -> eqx.Module:
    return MLP(*sizes, key=key)


def _examples(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised inputs [n, features] and labels, training and test: by pixel mean for images."""
    if name in image_names():
        found = load(name)
        parts = [x.reshape(len(x), -1).astype(np.float32) for x in (found.x_train, found.x_test)]
        labels = [found.y_train, found.y_test]
        mean, deviation = parts[0].mean(), parts[0].std()
    else:
        table = load_table(name)
        order = np.random.default_rng(0).permutation(len(table.x))
        cut = round(0.8 * len(order))
        parts = [table.x[rows] for rows in (order[:cut], order[cut:])]
        labels = [table.y[rows] for rows in (order[:cut], order[cut:])]
        mean, deviation = parts[0].mean(axis=0), parts[0].std(axis=0)
    train, test = ((x - mean) / deviation for x in parts)
    return train, labels[0], test, labels[1]


# Learning rates from the grid 1, 2, 5 x 10^-3, 10^-2, 10^-1 and 1 (the paper's spacing), on seeds 100
# and 101, by the federated training loss at the end. For the weights' comparison: tuned on "identical".
PROBLEMS: dict[str, dict[str, Any]] = {
    "mnist-iid": {"alpha": float("inf"), "learning_rate": 0.5, "horizon": 500.0},
    "mnist-skewed": {"alpha": 0.1, "learning_rate": 0.5, "horizon": 500.0},
    "mnist-60k-iid": {
        "data": "mnist",
        "alpha": float("inf"),
        "learning_rate": 0.02,
        "horizon": 200.0,
        "looks": 20,
    },
    "mnist-60k-skewed": {
        "data": "mnist",
        "alpha": 0.1,
        "learning_rate": 0.02,
        "horizon": 200.0,
        "looks": 20,
    },
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


def _quadratic_arms() -> dict[str, Config]:
    quick = replace(QUADRATIC, learning_rate=0.01)
    schemes = {
        "async": QUADRATIC,
        "exponential": replace(QUADRATIC, random_times=True),
        **{f"fedfix-{w}": replace(quick, scheme="fedfix", window=w) for w in FEDFIX},
        "fedbuff-5": replace(quick, scheme="fedbuff"),
    }
    arms = {"quadratic-sync": replace(quick, scheme="sync")}
    for scheme, config in schemes.items():
        arms[f"quadratic-{scheme}"] = config
        arms[f"quadratic-{scheme}-identical"] = replace(config, weights="identical")
    return arms


def _logistic_arms() -> dict[str, Config]:
    arms = {}
    for problem, options in PROBLEMS.items():
        arms[problem] = replace(LOGISTIC, **options)
        arms[f"{problem}-identical"] = replace(LOGISTIC, weights="identical", **options)
    return arms


def _network_arms() -> dict[str, Config]:
    arms = {f"small-{s}": _network_arm(f"f80-{s}", learning_rate=SMALLEST_RATE) for s in MAIN}
    arms |= {arm: _network_arm(arm, learning_rate=rate) for arm, rate in RATES.items()}
    for arm in (f"{p}-{s}" for p in ("f0", "f80") for s in MAIN):
        arms[f"m50-{arm}"] = _network_arm(arm, learning_rate=RATES[arm], clients=50)
    return arms


ARMS = _quadratic_arms() | _logistic_arms() | _network_arms()


def _when(*prefixes: str) -> tuple[str, ...]:
    return tuple(arm for arm in ARMS if arm.startswith(prefixes))


def tail(trace: xr.Dataset, name: str) -> np.ndarray:
    """Mean over the last tenth of the observations, [seed]."""
    values = trace[name].values
    return values[:, -max(values.shape[1] // 10, 1) :].mean(axis=1)


def _distances(trace: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Of the time average over the second half: from the optimum, and from the surrogate's."""
    late = trace.model.values[:, trace.sizes["step"] // 2 :].mean(axis=1)
    optima = (trace[name].values[:, -1] for name in ("optimum", "surrogate_optimum"))
    right, wrong = (np.linalg.norm(late - optimum, axis=1) for optimum in optima)
    return right, wrong


def ends_at_the_optimum(arms: Sequence[str], traces: Traces) -> np.ndarray:
    ratios = [np.divide(*_distances(traces[arm])) for arm in arms]
    return np.max(ratios, axis=0)


def ends_at_the_surrogate(arms: Sequence[str], traces: Traces) -> np.ndarray:
    ratios = [np.divide(*_distances(traces[arm])[::-1]) for arm in arms]
    return np.max(ratios, axis=0)


def difference(first: str, second: str, name: str, traces: Traces) -> np.ndarray:
    return tail(traces[first], name) - tail(traces[second], name)


def more_with_skew(data: str, traces: Traces) -> np.ndarray:
    skewed, even = (
        difference(p, f"{p}-identical", "train_loss", traces)
        for p in (f"{data}-skewed", f"{data}-iid")
    )
    return skewed - even


def over_time(first: str, second: str, traces: Traces) -> np.ndarray:
    one, two = (traces[arm].train_loss.values.mean(axis=1) for arm in (first, second))
    return one - two


def same_curve(traces: Traces) -> np.ndarray:
    one, two = (traces[arm].train_loss.values for arm in ("f0-fedfix-0.5", "f0-sync-server-2"))
    return np.abs(np.log10(one / two)).max(axis=1)


def _exact(id: str, text: str, effect: Callable[..., np.ndarray], *arms: str) -> Claim:
    return Claim(id, text, "in the limit, theorem 4 and example 2", arms, partial(effect, arms),
                 "< 0.05", "ratio of distances")  # fmt: skip


def _compared(
    id: str, text: str, paper: str, arms: tuple[str, str], holds: str, name: str = "train_loss"
) -> Claim:
    return Claim(id, text, paper, arms, partial(difference, *arms, name), holds, "nats")


def _faster(id: str, text: str, first: str, second: str) -> Claim:
    arms = (f"small-{first}", f"small-{second}")
    return Claim(id, text, "async above FedFix, FedBuff above FL (Figs 4-7)", arms,
                 partial(over_time, *arms), "< 0", "nats, mean over time")  # fmt: skip


def _weights_claims() -> list[Claim]:
    return [claim for problem in PROBLEMS for claim in _weights_claims_on(problem)]


def _weights_claims_on(problem: str) -> tuple[Claim, ...]:
    arms = (problem, f"{problem}-identical")
    return (
        _compared(f"C1b.loss.{problem}", "Time-based weights end at a lower federated loss",
                  "lower FP mean (Fig. 2a)", arms, "< 0"),
        _compared(f"C1b.spread.{problem}", "and at a smaller spread of the clients' losses",
                  "lower FP std (Fig. 2b)", arms, "< 0", "train_loss_spread"),
        _compared(f"C1b.surrogate.{problem}", "identical weights are better on their own surrogate",
                  "lower SP mean (Fig. 2c)", arms, "> 0", "surrogate_train_loss"),
    )  # fmt: skip


def _fedfix(end: str = "") -> tuple[str, ...]:
    return tuple(f"quadratic-fedfix-{w}{end}" for w in FEDFIX)


def _skew(data: str) -> Claim:
    arms = tuple(f"{data}-{s}{end}" for s in ("skewed", "iid") for end in ("", "-identical"))
    return Claim(f"C1b.skew.{data}", "Skewed data make identical weights do more harm (skewed - iid)",
                 "twice as large for non-iid (Fig. 2)", arms, partial(more_with_skew, data), "< 0",
                 "nats")  # fmt: skip


CLAIMS = (
    _exact("C1a.time", "Quadratics: async with time-based weights ends at the federated optimum",
           ends_at_the_optimum, "quadratic-async"),
    _exact("C1a.identical", "with identical weights at the optimum weighted by 1/tau",
           ends_at_the_surrogate, "quadratic-async-identical"),
    _exact("C1a.fedfix", "FedFix 0.2, 0.5, 0.8 with its weights end at the federated optimum",
           ends_at_the_optimum, *_fedfix()),
    _exact("C1a.fedfix-identical", "with d_i = p_i at their own surrogates' optima",
           ends_at_the_surrogate, *_fedfix("-identical")),
    _exact("C1a.fedbuff", "FedBuff-5 with participation weights ends at the federated optimum",
           ends_at_the_optimum, "quadratic-fedbuff-5"),
    _exact("C1a.fedbuff-identical", "with d_i = 1/c, as it is commonly run, it does not",
           ends_at_the_surrogate, "quadratic-fedbuff-5-identical"),
    _exact("C1a.exponential", "the same where client times are exponential",
           ends_at_the_optimum, "quadratic-exponential"),
    _exact("C1a.exponential-identical", "and likewise with identical weights",
           ends_at_the_surrogate, "quadratic-exponential-identical"),
    *_weights_claims(),
    _skew("mnist"),
    _skew("mnist-60k"),
    _faster("C2.async-fedfix", "Smallest rate: async learns faster than FedFix-0.5",
            "async", "fedfix-0.5"),
    _faster("C2.async-fedbuff", "Smallest rate: async learns faster than FedBuff-10",
            "async", "fedbuff-10"),
    _faster("C2.fedfix-sync", "Smallest rate: FedFix-0.5 learns faster than FedAvg",
            "fedfix-0.5", "sync"),
    _faster("C2.fedbuff-sync", "Smallest rate: FedBuff-10 learns faster than FedAvg",
            "fedbuff-10", "sync"),
    _compared("C3.f0", "Best rates, equal clients: FedAvg beats async", "FL below async (Fig. 3)",
              ("f0-sync", "f0-async"), "< 0"),
    _compared("C3.f80", "Best rates, unequal clients: FedAvg beats async", "FL below async (Fig. 3)",
              ("f80-sync", "f80-async"), "< 0"),
    _compared("C3.fedfix", "Best rates, unequal clients: FedFix-0.5 beats FedAvg",
              "FedFix-0.5 below FL (Fig. 3)", ("f80-fedfix-0.5", "f80-sync"), "< 0"),
    _compared("C3.fedbuff.f0", "Best rates, equal clients: FedBuff-10 beats async",
              "FedBuff always beats async (Fig. 3)", ("f0-fedbuff-10", "f0-async"), "< 0"),
    _compared("C3.fedbuff.f80", "Best rates, unequal clients: FedBuff-10 beats async",
              "FedBuff always beats async (Fig. 3)", ("f80-fedbuff-10", "f80-async"), "< 0"),
    _compared("C3.fedfix-fedbuff", "Best rates, unequal clients: FedFix-0.5 beats FedBuff-10",
              "FedFix balances better than FedBuff", ("f80-fedfix-0.5", "f80-fedbuff-10"), "< 0"),
    _compared("C4", "Best rates, equal clients: FedFix-0.5 beats FedAvg even so",
              "FedFix can beat FL at F0", ("f0-fedfix-0.5", "f0-sync"), "< 0"),
    Claim("C4.control", "FedFix-0.5 with equal clients is FedAvg with server rate 2",
          "behaves as with a server learning rate of 2", ("f0-fedfix-0.5", "f0-sync-server-2"),
          same_curve, "< 0.01", "largest |log10 ratio|"),
    _compared("M50.f0", "50 clients, best rates, equal: FedAvg beats async",
              "FL below async (Fig. 3)", ("m50-f0-sync", "m50-f0-async"), "< 0"),
    _compared("M50.f80", "50 clients, best rates, unequal: FedAvg beats async",
              "FL below async (Fig. 3)", ("m50-f80-sync", "m50-f80-async"), "< 0"),
    _compared("M50.fedfix", "50 clients, best rates, unequal: FedFix-0.5 beats FedAvg",
              "FedFix-0.5 below FL (Fig. 3)", ("m50-f80-fedfix-0.5", "m50-f80-sync"), "< 0"),
)  # fmt: skip


def _timed(trace: xr.Dataset) -> xr.Dataset:
    """The trace with simulated time in place of steps."""
    config = json.loads(trace.attrs["config"])
    return trace.assign_coords(step=trace.step * config["horizon"] / config["looks"])


TITLES = {
    "mnist-iid": "MNIST-5k, iid", "mnist-skewed": "MNIST-5k, skewed",
    "mnist-60k-iid": "MNIST, iid", "mnist-60k-skewed": "MNIST, skewed",
    "satellite-skewed": "Satellite, skewed", "letter-skewed": "Letter, skewed",
}  # fmt: skip
FITTED = ("mnist-iid", "mnist-skewed")  # the loss goes to zero


def draw_weights(traces: Traces) -> MatplotlibFigure:
    """The paper's figure 2."""
    rows = (("train_loss", "FP mean"), ("train_loss_spread", "FP std"),
            ("surrogate_train_loss", "SP mean"), ("surrogate_train_loss_spread", "SP std"))  # fmt: skip
    problems = [p for p in PROBLEMS if {p, f"{p}-identical"} <= set(traces)]
    figure, axes = style.figure(4, len(problems), width=2.8 * len(problems), height=9,
                                squeeze=False, sharex="col")  # fmt: skip
    for column, problem in enumerate(problems):
        for row, (name, label) in enumerate(rows):
            ax = axes[row, column]
            for end, said, colour in (("-identical", "identical", 1), ("", "time-based", 0)):
                style.band(ax, _timed(traces[problem + end]).isel(step=slice(1, None)), name,
                           label=said, colour=style.colours[colour])  # fmt: skip
            ax.set(yscale="log" if problem in FITTED else "linear",
                   ylabel=f"{label} (nats)" if column == 0 else None)  # fmt: skip
            ax.set_title(TITLES[problem] if row == 0 else "")
        axes[3, column].set_xlabel("time (slowest rounds)")
    axes[0, 0].legend()
    return figure


LINES = {
    "sync": ("FedAvg", 0), "async": ("async", 1), "fedfix-0.5": ("FedFix-0.5", 2),
    "fedbuff-10": ("FedBuff-10", 3), "fedasync": ("FedAsync", 4),
    "fedbuff-10-weighted": ("FedBuff-10, weighted", 5),
}  # fmt: skip


def _schemes(ax: Axes, traces: Traces, prefix: str, names: Sequence[str], title: str) -> None:
    for name in names:
        if f"{prefix}-{name}" in traces:
            label, colour = LINES[name]
            trace = _timed(traces[f"{prefix}-{name}"])
            rate = json.loads(trace.attrs["config"])["learning_rate"]
            style.band(ax, trace, "train_loss", label=f"{label} (η = {rate:g})",
                       colour=style.colours[colour])  # fmt: skip
    ax.set(yscale="log", xlabel="time (slowest rounds)", title=title)
    top = ax.get_ylim()[1]
    ax.set_ylim(top=min(top, 10))


def draw_wall_clock(traces: Traces) -> MatplotlibFigure:
    """The paper's figure 3, and its appendix's small learning rates."""
    figure, axes = style.figure(1, 3, width=13, height=4.8)
    _schemes(axes[0], traces, "small", MAIN, "unequal clients (F80), smallest rate")
    _schemes(axes[1], traces, "f80", tuple(LINES), "unequal clients (F80), best rates")
    _schemes(axes[2], traces, "f0", MAIN, "equal clients (F0), best rates")
    axes[0].set_ylabel("FP mean: federated loss (nats)")
    for ax in axes:
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def draw_final(traces: Traces) -> MatplotlibFigure:
    """Each scheme at its best rate: loss at the end, and its spread over clients."""
    arms = [arm for arm in RATES if arm.startswith("f80") and arm in traces]
    figure, axes = style.figure(1, 2, width=10, height=3.8, sharey=True)
    for ax, name, label in zip(
        axes, ("train_loss", "train_loss_spread"),
        ("federated loss (nats)", "std of the clients' losses (nats)"), strict=True,
    ):  # fmt: skip
        for place, arm in enumerate(arms):
            values = tail(traces[arm], name)
            ax.plot(values, np.full(len(values), place), ".", color=style.colours[0], alpha=0.5)
            ax.plot(values.mean(), place, "|", color=style.colours[1], markersize=14,
                    markeredgewidth=2)  # fmt: skip
        ax.set(xlabel=label)
        ax.set_xlim(left=0)
    axes[0].set_yticks(range(len(arms)), [arm.removeprefix("f80-") for arm in arms])
    axes[0].set_title("unequal clients (F80), at the end")
    axes[1].set_title("dots: seeds, bars: means")
    return figure


def draw_control(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure()
    for arm, label, colour, dashes in (
        ("f0-sync", "FedAvg, best rate", 0, "-"),
        ("f0-fedfix-0.5", "FedFix-0.5, best rate", 2, "-"),
        ("f0-sync-server-2", "FedAvg, server rate 2", 1, (0, (2, 3))),
    ):
        style.band(ax, _timed(traces[arm]), "train_loss", label=label, linestyle=dashes,
                   colour=style.colours[colour])  # fmt: skip
    ax.set(yscale="log", xlabel="time (rounds)", ylabel="federated loss (nats)",
           title="equal clients (F0)")  # fmt: skip
    ax.legend()
    return figure


def draw_quadratics(traces: Traces) -> MatplotlibFigure:
    arms = [a for a in _when("quadratic") if a in traces and a != "quadratic-sync"]
    figure, ax = style.figure(width=7, height=4.2)
    for place, arm in enumerate(reversed(arms)):
        biased = arm.endswith("identical")
        right, wrong = _distances(traces[arm])
        share = right / (right + wrong)
        ax.plot(share, np.full(len(share), place), "o", alpha=0.6,
                color=style.colours[1 if biased else 0])  # fmt: skip
    labels = [arm.removeprefix("quadratic-") for arm in reversed(arms)]
    ax.set_yticks(range(len(arms)), labels)
    ax.set_xticks([0, 0.5, 1], ["federated optimum", "midway", "optimum of the surrogate"])
    ax.set(xlim=(-0.1, 1.1), title="where it ends (quadratics, F80; a dot for each seed)")
    return figure


def draw_clock(traces: Traces) -> MatplotlibFigure:
    figure, axes = style.figure(2, 2, width=11, height=5.2, sharex=True, sharey=True)
    base = replace(QUADRATIC, clients=5, horizon=20.0, buffer_size=2)
    for ax, (scheme, title) in zip(axes.flat, (
        ("sync", "FedAvg: wait for all"), ("async", "async FedAvg: every arrival"),
        ("fedbuff", "FedBuff-2: two arrivals"), ("fedfix", "FedFix-0.5: fixed windows"),
    ), strict=True):  # fmt: skip
        gantt(ax, *make_schedule(replace(base, scheme=scheme)).rounds(range(5)), 4.0)
        ax.set_title(title)
    for ax in axes[1]:
        ax.set_xlabel("time (slowest rounds)")
    for ax in axes[:, 0]:
        ax.set(ylabel="client")
    return figure


def _main(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}-{scheme}" for prefix in prefixes for scheme in MAIN)


def _smoke() -> Budget:
    networks = (
        *_main("small", "f80"),
        "f80-fedasync",
        "f0-sync",
        "f0-fedfix-0.5",
        "f0-sync-server-2",
    )
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
        "quick": Budget(6, arms=_when("quadratic", *PROBLEMS)),
        "networks": Budget(6, arms=_when("small", "f80", "f0")),
        "full": _full(),
    },
    claims=CLAIMS,
    figures=(
        Figure("wall-clock", "Federated loss over simulated time: at one small learning rate, and with "
               "each scheme's best (20 clients, network of 64 units on Letter, 10 local steps)",
               draw_wall_clock,
               (*_main("small", "f80"), "f0-sync")),
        Figure("weights", "Asynchronous FedAvg with identical and time-based weights: loss and spread over "
               "clients on the federated problem (FP) and on the surrogate (SP)", draw_weights,
               ("mnist-iid", "mnist-iid-identical")),
        Figure("quadratics", "On quadratics, unbiased weights end at the federated optimum and identical ones "
               "at the surrogate's", draw_quadratics, ("quadratic-async", "quadratic-async-identical")),
        Figure("control", "With equal clients FedFix-0.5 is FedAvg with a server rate of 2", draw_control,
               ("f0-sync", "f0-fedfix-0.5", "f0-sync-server-2")),
        Figure("final", "Loss and its spread at the end, each scheme at its best rate", draw_final,
               ("f80-sync", "f80-async")),
        Figure("clock", "Who works when: five clients under four waiting rules; lines are aggregations",
               draw_clock, ("quadratic-sync",)),
    ),
    data="quadratics; MNIST-5k, MNIST, Satellite and Letter with Dirichlet(0.1) splits",
    notes="Letter stands in for CIFAR and Shakespeare; the network has one hidden layer. The horizon is "
    "100 slowest rounds where the paper has 5000, and 200 to 1000 where it has 200,000.",
    watch="train_loss",
)  # fmt: skip
