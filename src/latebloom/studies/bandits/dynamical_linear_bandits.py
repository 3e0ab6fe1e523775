"""Dynamical linear bandits: what an action brings lingers in a hidden state.

Mussi, Metelli, Restelli (ICML 2023, arXiv 2211.08997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import NullFormatter

from latebloom.core.interaction import Interaction, Policy
from latebloom.core.process import HostProcess, Process, Quantity, log_steps
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.bandits.dynamical_linear import (
    Bounds,
    Constant,
    Fixed,
    HeldLinearSystem,
    LinearSystem,
    OptimisticLinear,
    RandomDynamics,
    advertising_system,
    ar2,
    batch_size,
    budget_splits,
    d_lin_ucb,
    dynlin_ucb,
    exact_bounds,
    exp3,
    expert_split,
    growing_epochs,
    identify,
    lin_ucb,
    stateless_lin_ucb,
    synthetic_system,
    undiscounted_d_lin_ucb,
)
from latebloom.methods.bandits.dynamical_linear.identification import Method

PolicyName = Literal[
    "dynlin", "dynlin-1", "no-hold", "linucb", "linucb-1", "d-linucb", "d-linucb-log", "ar2",
    "exp3", "batch-exp3", "expert", "clairvoyant",
]  # fmt: skip
SystemName = Literal["synthetic", "advertising", "random"]
BUDGET = 1.5  # to be spent each day; at most 1 on a campaign
CONSTANT_HOLD = 100
LONGEST = 100  # rounds an action may be held: the same for all, so that they share programs
RANDOM_ACTIONS = 20


@dataclass(frozen=True)
class Config:
    """One policy on one system.

    - `system`: the two of the paper, or "random" ones of spectral `radius` and dimension `dim`.
    - `policy`: names ending in "-1" have ridge 1, the others log(horizon).
    - `radius_factor`: what the learner takes the spectral radius for, as a multiple of it.
    - `method`, `order`: with "identify" as task, how the system is identified from a record instead.
    """

    task: Literal["play", "identify"] = "play"
    system: SystemName = "advertising"
    policy: PolicyName = "dynlin"
    noise: float = 0.01
    horizon: int = 1_000_000
    radius: float = 0.5
    dim: int = 3
    radius_factor: float = 1.0
    method: Method = "arx"
    order: int = 3
    doublings: int = 5
    per_decade: int = 20


def published(config: Config) -> LinearSystem:
    return synthetic_system() if config.system == "synthetic" else advertising_system()


def bounds_of(config: Config) -> Bounds:
    """What the learner knows: the exact norms, but for the radius if that is misjudged."""
    if config.system == "random":
        exact = Bounds(config.radius, 1.0, 1.0, 1.0, 1.0, 1.0, config.noise)
    else:
        exact = exact_bounds(published(config), budget_splits(budget=BUDGET), config.noise)
    return replace(exact, radius=config.radius_factor * exact.radius)


def _hold(config: Config) -> tuple[int, int]:
    """The longest time an action is held, and the number of decisions."""
    if config.policy in ("dynlin", "dynlin-1"):
        epochs = growing_epochs(bounds_of(config).radius, config.horizon)
        return epochs.longest, int(epochs.until(config.horizon))
    hold = 1
    if config.policy == "batch-exp3":
        hold = batch_size(bounds_of(config).radius, config.horizon)
    if config.policy in ("expert", "clairvoyant"):
        hold = CONSTANT_HOLD
    return hold, -(-config.horizon // hold)


def schedule(config: Config) -> np.ndarray:
    """Decisions after which equally many rounds are over for all policies, as nearly as can be."""
    if config.task == "identify":
        return np.arange(config.doublings + 1)
    rounds = log_steps(config.horizon, config.per_decade)
    rounds = np.union1d(rounds, np.linspace(0, config.horizon, 21).astype(int))
    if config.policy in ("dynlin", "dynlin-1"):
        return np.unique(growing_epochs(bounds_of(config).radius, config.horizon).until(rounds))
    return np.unique(-(-rounds // _hold(config)[0]))


def make_policy(config: Config, actions: np.ndarray) -> Policy:
    shape, bounds, horizon = actions.shape, bounds_of(config), config.horizon
    known = (shape, bounds.theta, BUDGET)
    made = {
        "dynlin": partial(dynlin_ucb, shape, bounds, horizon),
        "dynlin-1": partial(dynlin_ucb, shape, bounds, horizon, ridge=1.0),
        "no-hold": partial(dynlin_ucb, shape, bounds, horizon, hold=False),
        "linucb": partial(lin_ucb, shape, bounds, horizon),
        "linucb-1": partial(stateless_lin_ucb, *known, horizon),
        "d-linucb": partial(d_lin_ucb, *known, bounds.noise, horizon),
        "d-linucb-log": partial(undiscounted_d_lin_ucb, shape, bounds, horizon),
        "ar2": partial(ar2, len(actions), bounds),
        "exp3": partial(exp3, len(actions), bounds, horizon),
        "batch-exp3": partial(exp3, len(actions), bounds, horizon, batch=_hold(config)[0]),
        "expert": partial(_constant, len(actions) - 1, horizon),
        "clairvoyant": partial(_constant, best_action(config.system), horizon),
    }
    return made[config.policy]()


def _constant(action: int, horizon: int) -> Constant:
    return Constant(np.int32(action), np.int32(CONSTANT_HOLD), np.int32(horizon))


def best_action(system: SystemName) -> int:
    """The action of the largest steady reward."""
    return int(np.argmax(budget_splits(budget=BUDGET) @ published(Config(system=system)).response))


def make_process(config: Config) -> Process | HostProcess:
    if config.task == "identify":
        return Identification(config)
    if config.system == "random":
        actions = np.zeros((RANDOM_ACTIONS, config.dim))
        draw: Any = RandomDynamics(config.radius, config.dim, RANDOM_ACTIONS)
        outputs = 1
    else:
        actions, outputs = budget_splits(budget=BUDGET), 3
        if config.policy == "expert":
            actions = np.vstack([actions, expert_split()])
        draw = Fixed(published(config), actions)
    longest = max(LONGEST, _hold(config)[0])
    environment = HeldLinearSystem(
        draw=draw, state_noise=config.noise, reward_noise=config.noise * outputs**0.5,
        actions=len(actions), longest=longest,
        learn_from="mean" if config.policy == "batch-exp3" else "last",
    )  # fmt: skip
    return Interaction(environment, _padded(make_policy(config, actions), longest))


def _padded(policy: Any, longest: int) -> Any:
    """The policy with starts of epochs that never come, so that all lengths make one program."""
    if not isinstance(policy, OptimisticLinear):
        return policy
    never = np.full(longest - len(policy.starts), np.iinfo(np.int32).max)
    starts = jnp.concatenate([policy.starts, jnp.asarray(never, jnp.int32)])
    return eqx.tree_at(lambda p: p.starts, policy, starts)


class Identification(HostProcess):
    """Identifies a published system from ever longer records of randomly scaled budget splits.

    Step k has 100 · 2ᵏ periods. Observed: the distance of the response found from the true one,
    and the steady reward lost a round by the action that looks best. Of a system that comes out
    unstable only the response at once is used.
    """

    def __init__(self, config: Config):
        self.config, self.system = config, published(config)
        self.actions = budget_splits(budget=BUDGET)

    def init(self, seed: int) -> tuple[int, int]:
        return (seed, 0)

    def step(self, state: tuple[int, int]) -> tuple[int, int]:
        return (state[0], state[1] + 1)

    def observe(self, state: tuple[int, int]) -> dict[str, Any]:
        seed, doubling = state
        rng, periods = np.random.default_rng(seed), 100 * 2**doubling
        splits = self.actions[rng.integers(len(self.actions), size=periods)]
        inputs = splits * rng.uniform(0.5, 1.5, (periods, 1))
        outputs = self.system.simulate(inputs, self.config.noise, seed)
        lags = 20 if self.config.method == "fir" else 8
        found = identify(
            inputs, outputs, lags=lags, method=self.config.method, order=self.config.order
        ).system
        stable = found.spectral_radius < 1
        response = found.response if stable else found.theta
        steady = self.actions @ self.system.response
        lost = steady.max() - steady[np.argmax(self.actions @ response)]
        distance = float(np.linalg.norm(response - self.system.response))
        return {"regret": lost, "distance": distance, "periods": periods}

    def quantities(self) -> dict[str, Quantity]:
        return {"distance": Quantity("reward", about="distance of the response from the true one")}


SYNTHETIC = {f"noise-{sigma:g}": sigma for sigma in (0.1, 0.01, 0.001)}
BASELINES: tuple[PolicyName, ...] = (
    "linucb",
    "linucb-1",
    "d-linucb",
    "d-linucb-log",
    "ar2",
    "exp3",
    "batch-exp3",
)
POLICIES: tuple[PolicyName, ...] = ("dynlin", "dynlin-1", *BASELINES)
RADII = (0.0, 0.5, 0.8, 0.9)
DIMS = (2, 3, 10)
RANDOM = Config(system="random", noise=0.1, horizon=200_000)
METHODS: tuple[Method, ...] = ("fir", "arx", "predictor")


def radius_arm(radius: float) -> str:
    return f"radius-{radius:g}"


def dim_arm(dim: int) -> str:
    return radius_arm(0.5) if dim == 3 else f"dim-{dim}"


ARMS: dict[str, Config] = {
    **{
        f"{name}-{policy}": Config(system="synthetic", noise=sigma, policy=policy)
        for name, sigma in SYNTHETIC.items()
        for policy in POLICIES
    },
    **{f"ads-{policy}": Config(policy=policy) for policy in POLICIES},
    "ads-expert": Config(policy="expert"),
    "ads-clairvoyant": Config(policy="clairvoyant"),
    "ads-no-hold": Config(policy="no-hold"),
    "ads-half-radius": Config(radius_factor=0.5),
    "ads-larger-radius": Config(radius_factor=1.2),
    **{radius_arm(r): replace(RANDOM, radius=r) for r in RADII},
    "radius-0-linucb": replace(RANDOM, radius=0.0, policy="linucb"),
    **{dim_arm(d): replace(RANDOM, dim=d) for d in DIMS if d != 3},
    **{f"identify-{m}": Config(task="identify", method=m) for m in METHODS},
}


def final_regret(traces: Traces, arm: str) -> np.ndarray:
    return traces[arm].regret.values[:, -1]


def more_than_dynlin(traces: Traces, arm: str) -> np.ndarray:
    """Regret of an arm beyond that of DynLin-UCB on the advertising system."""
    return final_regret(traces, arm) - final_regret(traces, "ads-dynlin")


def least_more_than_dynlin(traces: Traces, policy: str) -> np.ndarray:
    """The same on the synthetic system, at the noise level at which it is smallest."""
    gaps = [
        final_regret(traces, f"{noise}-{policy}") - final_regret(traces, f"{noise}-dynlin")
        for noise in SYNTHETIC
    ]
    return np.min(gaps, axis=0)


def late_slope(traces: Traces, arm: str) -> np.ndarray:
    """Slope of log regret against log round over the last decade of rounds, per seed."""
    rounds, regret = traces[arm]["round"].values[0], traces[arm].regret.values
    late = rounds >= rounds[-1] / 10
    return np.polyfit(np.log(rounds[late]), np.log(regret[:, late]).T, 1)[0]


def log_ratio(traces: Traces, above: str, below: str) -> np.ndarray:
    """log10 of the ratio of two arms' final regrets, per seed."""
    return np.log10(final_regret(traces, above) / final_regret(traces, below))


def distance_of_control(traces: Traces) -> np.ndarray:
    return np.abs(log_ratio(traces, "radius-0", "radius-0-linucb"))


def settles_on_best(traces: Traces, arm: str) -> np.ndarray:
    """Whether the action played most in the last tenth of the rounds is the best: 1 or 0."""
    trace = traces[arm]
    rounds = trace["round"].values[0]
    start = int(np.searchsorted(rounds, 0.9 * rounds[-1]))
    late = (trace.plays[:, -1] - trace.plays[:, start]).values
    return (late.argmax(axis=1) == best_action("advertising")).astype(float)


def lost_by_recommendation(traces: Traces) -> np.ndarray:
    return traces["identify-arx"].regret.sel(step=4).values


def closer_than_predictor(traces: Traces) -> np.ndarray:
    """Distance from the true response by the authors' realisation, over that by ours, log10."""
    theirs, ours = traces["identify-predictor"].distance, traces["identify-arx"].distance
    return np.log10(theirs.sel(step=4) / ours.sel(step=4)).values


CLAIMS = (
    *(
        Claim(
            f"C1.slope-{r:g}",
            f"Regret grows more slowly than t^0.75 in the last decade of rounds, radius {r:g}",
            "O(sqrt(T)) regret", (radius_arm(r),), partial(late_slope, arm=radius_arm(r)),
            "< 0.75", "d log R / d log t",
        )
        for r in RADII
    ),
    Claim("C1.radius", "A longer memory costs regret: radius 0.9 against 0.5",
          "regret grows with rho", (radius_arm(0.9), radius_arm(0.5)),
          partial(log_ratio, above=radius_arm(0.9), below=radius_arm(0.5)), "> 0", "log10 of ratio"),
    Claim("C1.bound", "But no more than (1 - rho)^(-3/2) allows: a ratio below 11.2",
          "at most (1 - rho)^(-3/2)", (radius_arm(0.9), radius_arm(0.5)),
          partial(log_ratio, above=radius_arm(0.9), below=radius_arm(0.5)), "< 1.049",
          "log10 of ratio"),
    Claim("C1.dim", "From 2 to 10 dimensions regret grows at most fivefold", "linear in d",
          ("dim-10", "dim-2"), partial(log_ratio, above="dim-10", below="dim-2"), "< 0.699",
          "log10 of ratio"),
    *(
        Claim(
            f"C2.{policy}",
            f"On the synthetic system DynLin-UCB has less regret than {policy} at all noise levels",
            "lowest curve at sigma 0.1, 0.01, 0.001",
            tuple(f"{noise}-{p}" for noise in SYNTHETIC for p in ("dynlin", policy)),
            partial(least_more_than_dynlin, policy=policy), "> 0", "reward",
        )
        for policy in BASELINES
    ),
    *(
        Claim(
            f"C3.{policy}", f"On the advertising system it has less regret than {policy}",
            "lowest curve, human expert included", ("ads-dynlin", f"ads-{policy}"),
            partial(more_than_dynlin, arm=f"ads-{policy}"), "> 0", "reward",
        )
        for policy in (*BASELINES, "expert")
    ),
    Claim("C4.dynlin", "On the advertising system DynLin-UCB ends on the best action",
          "it converges to the best action", ("ads-dynlin",),
          partial(settles_on_best, arm="ads-dynlin"), "> 0.5", "share of seeds"),
    *(
        Claim(
            f"C4.{policy}", f"And {policy}, which ignores the state, ends on another one",
            "methods that ignore the state can end on a wrong action", (f"ads-{policy}",),
            partial(settles_on_best, arm=f"ads-{policy}"), "< 0.5", "share of seeds",
        )
        for policy in ("linucb", "linucb-1", "d-linucb")
    ),
    Claim("C4.control", "Where the state lasts one round (radius 0) LinUCB and it are equally good",
          "(control)", ("radius-0", "radius-0-linucb"), distance_of_control, "< 0.1",
          "|log10 of ratio|"),
    Claim("A.hold", "Without holding its actions it has more regret", "(ablation)",
          ("ads-no-hold", "ads-dynlin"), partial(more_than_dynlin, arm="ads-no-hold"), "> 0",
          "reward"),
    Claim("A.half", "So it has when it takes the spectral radius for half of what it is",
          "(ablation)", ("ads-half-radius", "ads-dynlin"),
          partial(more_than_dynlin, arm="ads-half-radius"), "> 0", "reward"),
    Claim("A.larger", "And when it takes it for 1.2 times as large", "(ablation)",
          ("ads-larger-radius", "ads-dynlin"),
          partial(more_than_dynlin, arm="ads-larger-radius"), "> 0", "reward"),
    Claim("I.action", "1,600 periods of a record suffice to find the best action, by ARX and Ho-Kalman",
          "(the system itself was identified from a record)", ("identify-arx",),
          lost_by_recommendation, "< 0.03", "reward a round"),
    Claim("I.realisation", "The regression's impulse response gives a better system than its predictor form",
          "(the authors use the predictor form)", ("identify-arx", "identify-predictor"),
          closer_than_predictor, "> 0", "log10 of distance ratio"),
)  # fmt: skip

LOOK = {
    "dynlin": (0, "-", "DynLin-UCB"), "dynlin-1": (0, (0, (4, 2)), "DynLin-UCB, ridge 1"),
    "linucb": (1, "-", "LinUCB"), "linucb-1": (1, (0, (4, 2)), "LinUCB, ridge 1"),
    "d-linucb": (2, "-", "D-LinUCB"), "d-linucb-log": (2, (0, (4, 2)), "D-LinUCB, data not fading"),
    "ar2": (3, "-", "AR2"), "exp3": (4, "-", "Exp3"), "batch-exp3": (5, "-", "Batch-Exp3"),
    "expert": (6, "-", "human expert"),
}  # fmt: skip
NAMES = {
    **{name: f"synthetic, σ = {sigma:g}" for name, sigma in SYNTHETIC.items()},
    "ads": "advertising",
}


def _present(traces: Traces) -> list[str]:
    return [name for name in NAMES if f"{name}-dynlin" in traces]


def _curve(ax: Axes, trace: xr.Dataset, colour: int, dashes: Any, label: str, scale: float) -> None:
    """Mean regret over seeds, with its standard error, as in the paper."""
    rounds, regret = trace["round"].values[0] / scale, trace.regret.values / scale
    mean, error = regret.mean(0), regret.std(0) / np.sqrt(len(regret))
    ax.plot(rounds, mean, color=style.colours[colour], linestyle=dashes, label=label)
    ax.fill_between(rounds, mean - error, mean + error, color=style.colours[colour], alpha=0.2,
                    linewidth=0)  # fmt: skip


def draw_regret(traces: Traces) -> MatplotlibFigure:
    """Cumulative regret of all policies, one panel a system."""
    names = _present(traces)
    figure, axes = style.figure(1, len(names), width=3.6 * len(names), height=4.2, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for policy, look in LOOK.items():
            if f"{name}-{policy}" in traces:
                _curve(ax, traces[f"{name}-{policy}"], *look, scale=1000)
        top = 3 * final_regret(traces, f"{name}-dynlin").mean() / 1000
        horizon = traces[f"{name}-dynlin"]["round"].values[0, -1] / 1000
        ax.set(xlim=(0, horizon), ylim=(0, top), xlabel="round / 1000", title=NAMES[name])
    axes[0, 0].set_ylabel("cumulative regret / 1000")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def draw_final(traces: Traces) -> MatplotlibFigure:
    """Final regret of each policy and seed."""
    names = _present(traces)
    figure, axes = style.figure(1, len(names), width=2.7 * len(names) + 1.5, height=3.6,
                                sharey=True, squeeze=False)  # fmt: skip
    shown = [p for p in LOOK if any(f"{name}-{p}" in traces for name in names)]
    for ax, name in zip(axes[0], names, strict=True):
        for place, policy in enumerate(shown):
            if f"{name}-{policy}" in traces:
                regret = final_regret(traces, f"{name}-{policy}")
                colour = style.colours[LOOK[policy][0]]
                ax.plot(regret, np.full(len(regret), place), "o", color=colour, alpha=0.5,
                        markersize=5, markeredgewidth=0)  # fmt: skip
        ax.axvline(final_regret(traces, f"{name}-dynlin").mean(), color=style.colours[0],
                   linestyle=":", linewidth=1)  # fmt: skip
        ax.set(xscale="log", xlabel="final regret", title=NAMES[name])
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, 10 ** np.floor(np.log10(low))), high)
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_yticks(range(len(shown)), [LOOK[p][2] for p in shown])
    axes[0, 0].invert_yaxis()
    return figure


def draw_actions(traces: Traces) -> MatplotlibFigure:
    """What each action is worth at once and in the long run, and how often the best is played."""
    figure, (left, right) = style.figure(1, 2, width=10.5, height=3.8)
    actions, system = budget_splits(budget=BUDGET), advertising_system()
    places = np.arange(len(actions))
    for shift, values, label, colour in (
        (-0.2, actions @ system.theta, "at once", 4),
        (0.2, actions @ system.response, "in the long run", 0),
    ):
        left.bar(places + shift, values, 0.38, color=style.colours[colour], label=label)
    left.set_xticks(places, ["\n".join(f"{x:g}" for x in a) for a in actions])
    left.set(xlabel="spend on the three campaigns", ylabel="reward a round", ylim=(0, 0.78),
             title="the same six actions")  # fmt: skip
    left.legend(loc="upper left")
    for policy, (colour, dashes, label) in LOOK.items():
        if policy != "expert" and f"ads-{policy}" in traces:
            _share(right, traces[f"ads-{policy}"], colour, dashes, label)
    right.set(xlabel="round / 1000", ylabel="share of rounds", ylim=(-0.02, 1.02),
              title="how often the best action is played")  # fmt: skip
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _share(ax: Axes, trace: xr.Dataset, colour: int, dashes: Any, label: str) -> None:
    rounds = trace["round"].values[0]
    grid = np.searchsorted(rounds, np.linspace(0, rounds[-1], 21))
    plays = trace.plays.values[:, grid, best_action("advertising")]
    share = np.diff(plays, axis=1) / np.diff(rounds[grid])
    middle = (rounds[grid][1:] + rounds[grid][:-1]) / 2000
    ax.plot(middle, share.mean(0), color=style.colours[colour], linestyle=dashes, label=label)


def draw_scaling(traces: Traces) -> MatplotlibFigure:
    """Growth of regret with rounds, spectral radius and dimension, on random systems."""
    figure, (left, middle, right) = style.figure(1, 3, width=12)
    for place, radius in enumerate(RADII):
        trace = traces[radius_arm(radius)]
        rounds, regret = trace["round"].values[0], trace.regret.values
        late = rounds >= 10
        left.plot(rounds[late], np.exp(np.log(np.maximum(regret[:, late], 1e-3)).mean(0)),
                  color=style.colours[place], label=f"ρ = {radius:g}")  # fmt: skip
    rounds = np.array([1e3, rounds[-1]])
    left.plot(rounds, rounds**0.5, color=style.INK, linestyle=":", linewidth=1.2, label="slope ½")
    left.set(xscale="log", yscale="log", xlabel="round", ylabel="regret (geometric mean)",
             title="DynLin-UCB, 20 actions")  # fmt: skip
    left.legend(loc="upper left")
    arms = [radius_arm(r) for r in RADII]
    _against(middle, traces, [1 / (1 - r) for r in RADII], arms)
    start = np.exp(np.log(final_regret(traces, arms[1])).mean())
    line = np.array([2.0, 10.0])
    middle.plot(line, start * (line / 2) ** 1.5, color=style.INK, linestyle=":", linewidth=1.2,
                label="$(1 - ρ)^{-3/2}$")  # fmt: skip
    middle.set(xlabel="1 / (1 - ρ)", title="memory")
    dims = [d for d in DIMS if dim_arm(d) in traces]
    _against(right, traces, dims, [dim_arm(d) for d in dims])
    start = np.exp(np.log(final_regret(traces, dim_arm(dims[0]))).mean())
    line = np.array([2.0, 10.0])
    right.plot(
        line, start * line / 2, color=style.INK, linestyle=":", linewidth=1.2, label="linear"
    )
    right.set(xlabel="dimension d", title="dimension, ρ = 0.5")
    for ax in (middle, right):
        ax.legend(loc="lower right")
    return figure


def _against(ax: Axes, traces: Traces, levels: list[Any], arms: list[str]) -> None:
    finals = np.stack([final_regret(traces, arm) for arm in arms])
    ax.plot(levels, finals, ".", color=style.colours[0], alpha=0.5)
    ax.plot(levels, np.exp(np.log(finals).mean(1)), color=style.colours[0])
    ax.set(xscale="log", yscale="log", ylabel="final regret")
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.minorticks_off()


def draw_ablation(traces: Traces) -> MatplotlibFigure:
    """DynLin-UCB without its epochs, and with a wrong idea of the memory."""
    figure, ax = style.figure(1, 1, width=6.4, height=3.8)
    for arm, look in {
        "ads-dynlin": (0, "-", "DynLin-UCB"),
        "ads-no-hold": (1, "-", "learns every round"),
        "ads-half-radius": (2, "-", "takes ρ for 0.5 ρ"),
        "ads-larger-radius": (3, "-", "takes ρ for 1.2 ρ"),
        "ads-linucb": (6, (0, (4, 2)), "LinUCB"),
    }.items():
        _curve(ax, traces[arm], *look, scale=1000)
    ax.set(xlim=(0, None), ylim=(0, None), xlabel="round / 1000", ylabel="cumulative regret / 1000",
           title="advertising system")  # fmt: skip
    ax.legend(loc="upper left")
    return figure


def draw_identification(traces: Traces) -> MatplotlibFigure:
    """How many periods of a record it takes to know the system."""
    figure, (left, right) = style.figure(1, 2)
    for place, (method, label) in enumerate({
        "fir": "FIR, 20 lags", "arx": "ARX, 8 lags", "predictor": "ARX, predictor form",
    }.items()):  # fmt: skip
        trace = traces[f"identify-{method}"]
        periods = trace.periods.values[0]
        for ax, values in ((left, trace.distance.values), (right, trace.regret.values)):
            ax.plot(periods, values.mean(0), color=style.colours[place], label=label)
            ax.fill_between(periods, values.min(0), values.max(0), color=style.colours[place],
                            alpha=0.15, linewidth=0)  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="periods of the record",
             ylabel="error of the long-run response", title="what is learned")  # fmt: skip
    right.set(xscale="log", xlabel="periods of the record", ylabel="reward lost a round",
              title="by the action that looks best")  # fmt: skip
    left.legend(loc="lower left")
    return figure


SMOKE = ("ads-dynlin", "ads-linucb", "ads-expert", *(f"identify-{m}" for m in METHODS))
study = Study(
    paper=Paper(
        slug="dynamical-linear-bandits", title="Dynamical Linear Bandits",
        authors="Marco Mussi, Alberto Maria Metelli, Marcello Restelli", venue="ICML", year=2023,
        arxiv="2211.08997", code="marcomussi/DLB",
    ),
    family="bandits",
    question="If what an action brings comes later, through a hidden state, can a bandit still find "
    "the action that is best in the long run?",
    symptoms=(
        "the channel with the best immediate return gets all the budget",
        "advertising spend today brings conversions for weeks",
        "rewards depend on past actions, carry-over, adstock",
        "a bandit settles on an action that is good at once and poor in the long run",
        "which marketing channel works in the long run",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, arms=SMOKE, settings={"horizon": 2000, "per_decade": 5, "doublings": 4}),
        "quick": Budget(8, arm_settings={
            arm: {"horizon": 100_000} for arm in ARMS if arm.startswith("noise")
        }),
        "full": Budget(16, arm_settings={
            arm: {"horizon": 1_000_000} for arm in ARMS if arm.startswith(("radius", "dim"))
        }),
    },
    claims=CLAIMS,
    figures=(
        Figure("regret", "Cumulative regret of all policies on the published systems (mean over seeds, "
               "band: standard error).", draw_regret, ("ads-dynlin",)),
        Figure("final", "Regret at the end, one dot a seed; dotted: the mean of DynLin-UCB.", draw_final,
               ("ads-dynlin",)),
        Figure("actions", "Advertising system: the action that is best at once is poor in the long run "
               "(left), and policies that ignore the state never play the best one (right).",
               draw_actions, ("ads-dynlin",)),
        Figure("scaling", "Random systems: growth of regret with rounds, memory and dimension.",
               draw_scaling, tuple(radius_arm(r) for r in RADII)),
        Figure("ablation", "DynLin-UCB without holding its actions, and with a wrong spectral radius.",
               draw_ablation, ("ads-dynlin", "ads-no-hold", "ads-half-radius", "ads-larger-radius",
                               "ads-linucb")),
        Figure("identification", "Identifying the advertising system from a record: error of its long-run "
               "response and loss by the recommended action (mean and range over seeds).",
               draw_identification, tuple(f"identify-{m}" for m in METHODS)),
    ),
    data="the paper's two systems (their matrices are published) and random ones",
    notes="Regret is measured on steady-state rewards, as in the paper. The first epoch lasts one "
    "round, where the authors' code holds it for two. D-LinUCB forgets, which the authors' log T "
    "variant does not; both are run.",
    watch="regret",
)  # fmt: skip
