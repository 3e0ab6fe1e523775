"""Dynamical linear bandits: what an action brings lingers in a hidden state.

Mussi, Metelli, Restelli (ICML 2023, arXiv 2211.08997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.interaction import Interaction, Policy
from latebloom.core.process import HostProcess, Process, log_steps
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.measures import Effect, Traces, at, final, growth, log10, lowest, measure
from latebloom.methods.bandits.dynamical_linear import (
    Bounds,
    Constant,
    Fixed,
    HeldLinearSystem,
    Identification,
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
        return Identification(
            published(config), budget_splits(budget=BUDGET), config.noise, method=config.method,
            order=config.order,
        )  # fmt: skip
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
    policy = make_policy(config, actions)
    padded = policy.padded(longest) if isinstance(policy, OptimisticLinear) else policy
    return Interaction(environment, padded)


SYNTHETIC = {f"noise-{sigma:g}": sigma for sigma in (0.1, 0.01, 0.001)}
BASELINES: tuple[PolicyName, ...] = (
    "linucb", "linucb-1", "d-linucb", "d-linucb-log", "ar2", "exp3", "batch-exp3",
)  # fmt: skip
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
    **{f"{name}-{policy}": Config(system="synthetic", noise=sigma, policy=policy)
       for name, sigma in SYNTHETIC.items() for policy in POLICIES},
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
}  # fmt: skip


regret, lost_at_1600 = final("regret"), at("regret", 4)
late_slope = growth("regret", against="round")  # over the last decade of rounds
error_at_1600 = at("distance", 4)


@measure("whether the action played most in the last tenth of the rounds is the best")
def settles(trace: xr.Dataset) -> np.ndarray:
    rounds = trace["round"].values[0]
    start = int(np.searchsorted(rounds, 0.9 * rounds[-1]))
    late = (trace.plays[:, -1] - trace.plays[:, start]).values
    return (late.argmax(axis=1) == best_action("advertising")).astype(float)


def more(arm: str) -> Effect:
    """Regret of an arm beyond that of DynLin-UCB on the advertising system."""
    return regret[f"ads-{arm}"] - regret["ads-dynlin"]


def least_more(policy: str) -> Effect:
    """The same on the synthetic system, at the noise level at which it is smallest."""
    return lowest(regret[f"{noise}-{policy}"] - regret[f"{noise}-dynlin"] for noise in SYNTHETIC)


def orders(above: str, below: str) -> Effect:
    return log10(regret[above] / regret[below])


memory = orders(radius_arm(0.9), radius_arm(0.5))
SPLITS, RATIO = budget_splits(budget=BUDGET), "log10 of ratio"
STEADY = SPLITS @ advertising_system().response
CLAIMS = (
    *(Claim(f"C1.slope-{r:g}", f"Regret grows more slowly than t^0.75 in the last decade of rounds, radius {r:g}",
            "O(sqrt(T)) regret", late_slope[radius_arm(r)], "< 0.75", "d log R / d log t",
            null=1.0)  # any action that is held for good but the best
      for r in RADII),
    Claim("C1.radius", "A longer memory costs regret: radius 0.9 against 0.5", "regret grows with rho",
          memory, "> 0", RATIO),
    Claim("C1.bound", "But no more than (1 - rho)^(-3/2) allows: a ratio below 11.2", "at most (1 - rho)^(-3/2)",
          memory, "< 1.049", RATIO),
    Claim("C1.dim", "From 2 to 10 dimensions regret grows at most fivefold", "linear in d",
          orders("dim-10", "dim-2"), "< 0.699", RATIO),
    *(Claim(f"C2.{policy}", f"On the synthetic system DynLin-UCB has less regret than {policy} at all noise levels",
            "lowest curve at sigma 0.1, 0.01, 0.001", least_more(policy), "> 0", "reward")
      for policy in BASELINES),
    *(Claim(f"C3.{policy}", f"On the advertising system it has less regret than {policy}",
            "lowest curve, human expert included", more(policy), "> 0", "reward")
      for policy in (*BASELINES, "expert")),
    Claim("C4.dynlin", "On the advertising system DynLin-UCB ends on the best action",
          "it converges to the best action", settles["ads-dynlin"], "> 0.5", "share of seeds",
          null=1 / len(SPLITS)),  # by chance
    *(Claim(f"C4.{policy}", f"And {policy}, which ignores the state, ends on another one",
            "methods that ignore the state can end on a wrong action", settles[f"ads-{policy}"], "< 0.5",
            "share of seeds", null=settles["ads-dynlin"])
      for policy in ("linucb", "linucb-1", "d-linucb")),
    Claim("C4.control", "Where the state lasts one round (radius 0) LinUCB and it are equally good", "(control)",
          abs(orders("radius-0", "radius-0-linucb")), "< 0.1", "|log10 of ratio|"),
    Claim("A.hold", "Without holding its actions it has more regret", "(ablation)", more("no-hold"), "> 0", "reward"),
    Claim("A.half", "So it has when it takes the spectral radius for half of what it is", "(ablation)",
          more("half-radius"), "> 0", "reward"),
    Claim("A.larger", "And when it takes it for 1.2 times as large", "(ablation)", more("larger-radius"), "> 0",
          "reward"),
    Claim("I.action", "1,600 periods of a record suffice to find the best action, by ARX and Ho-Kalman",
          "(the system itself was identified from a record)", lost_at_1600["identify-arx"], "< 0.03",
          "reward a round", null=float((STEADY.max() - STEADY).mean())),  # any action
    Claim("I.realisation", "The regression's impulse response gives a better system than its predictor form",
          "(the authors use the predictor form)",
          log10(error_at_1600["identify-predictor"] / error_at_1600["identify-arx"]), "> 0",
          "log10 of distance ratio"),
)  # fmt: skip

LABELS = {
    "dynlin": "DynLin-UCB", "dynlin-1": "DynLin-UCB, ridge 1", "linucb": "LinUCB", "linucb-1": "LinUCB, ridge 1",
    "d-linucb": "D-LinUCB", "d-linucb-log": "D-LinUCB, data not fading", "ar2": "AR2", "exp3": "Exp3",
    "batch-exp3": "Batch-Exp3", "expert": "human expert",
}  # fmt: skip
COLOURS = dict(zip(LABELS, (0, 0, 1, 1, 2, 2, 3, 4, 5, 6), strict=True))
NAMES = {name: f"synthetic, σ = {sigma:g}" for name, sigma in SYNTHETIC.items()}
NAMES["ads"] = "advertising"
ROUNDS, LOST = "round / 1000", "cumulative regret / 1000"


def look(policy: str) -> dict[str, Any]:
    dashes = (0, (4, 2)) if policy.endswith(("-1", "-log")) else "-"
    colour = style.colours[COLOURS[policy]]
    return {"label": LABELS[policy], "colour": colour, "linestyle": dashes}


def by_thousands(trace: xr.Dataset) -> xr.Dataset:
    rounds = trace["round"].values[0] / 1000
    return trace.assign(regret=trace.regret / 1000).assign_coords(step=rounds)


def draw_regret(traces: Traces) -> MatplotlibFigure:
    """Cumulative regret of all policies, one panel a system."""
    names = [name for name in NAMES if f"{name}-dynlin" in traces]
    figure, axes = pictures.panels(len(names), 4, width=3.6 * len(names), height=3.8)
    for ax, name in zip(axes, names, strict=False):
        for policy in (p for p in LABELS if f"{name}-{p}" in traces):
            style.band(ax, by_thousands(traces[f"{name}-{policy}"]), "regret", **look(policy))
        ours = by_thousands(traces[f"{name}-dynlin"])
        ax.set(xlim=(0, ours.step[-1]), ylim=(0, 3 * ours.regret[:, -1].mean()), xlabel=ROUNDS,
               title=NAMES[name])  # fmt: skip
    axes[0].set_ylabel(LOST)
    pictures.legend_below(figure)
    return figure


@pictures.by_hand(2, width=10.5, height=3.4)
def draw_actions(traces: Traces, left: Axes, right: Axes) -> None:
    """What each action is worth at once and in the long run, and how often the best is played."""
    places, at_once = np.arange(len(SPLITS)), SPLITS @ advertising_system().theta
    left.bar(places - 0.2, at_once, 0.38, color=style.colours[4], label="at once")
    left.bar(places + 0.2, STEADY, 0.38, color=style.colours[0], label="in the long run")
    left.set_xticks(places, ["\n".join(f"{x:g}" for x in split) for split in SPLITS])
    left.set(xlabel="spend on the three campaigns", ylabel="reward a round", ylim=(0, 0.78),
             title="the same six actions")  # fmt: skip
    left.legend(loc="upper left")
    for policy in (p for p in POLICIES if f"ads-{p}" in traces):
        trace, shown = traces[f"ads-{policy}"], look(policy)
        rounds = trace["round"].values[0]
        grid = np.searchsorted(rounds, np.linspace(0, rounds[-1], 21))
        plays = trace.plays.values[:, grid, best_action("advertising")].mean(0)
        right.plot((rounds[grid][1:] + rounds[grid][:-1]) / 2000, np.diff(plays) / np.diff(rounds[grid]),
                   color=shown["colour"], linestyle=shown["linestyle"], label=shown["label"])  # fmt: skip
    right.set(xlabel=ROUNDS, ylabel="share of rounds", ylim=(-0.02, 1.02),
              title="how often the best action is played")  # fmt: skip
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


MEMORIES = [1 / (1 - r) for r in RADII]
sizes = pictures.trend(
    ("memory", {"": (MEMORIES, [regret[radius_arm(r)] for r in RADII])}),
    ("dimension, ρ = 0.5", {"": (DIMS, [regret[dim_arm(d)] for d in DIMS])}),
    geometric=True, xscale="log", yscale="log", ylabel="final regret",
    own={"memory": {"xlabel": "1 / (1 - ρ)", "ticks": MEMORIES},
         "dimension, ρ = 0.5": {"xlabel": "dimension d", "ticks": DIMS}},
)  # fmt: skip
growing = pictures.curves(
    "regret", ("DynLin-UCB, 20 actions", {radius_arm(r): f"ρ = {r:g}" for r in RADII}),
    as_drawn=lambda t: t.assign_coords(step=t["round"].values[0]).isel(step=t["round"].values[0] >= 10),
    xscale="log", yscale="log", xlabel="round", ylabel="regret",
)  # fmt: skip


def draw_scaling(traces: Traces) -> MatplotlibFigure:
    """Growth of regret with memory and dimension, next to the bounds' own."""
    figure = sizes(traces)
    guides = ((radius_arm(0.5), 1.5, "$(1 - ρ)^{-3/2}$"), (dim_arm(2), 1.0, "linear"))
    for ax, (arm, power, label) in zip(figure.axes, guides, strict=False):
        if arm in traces:
            pictures.guide(ax, (2, np.exp(np.log(regret(traces[arm])).mean())), 10, power, label)
    return figure


def draw_growth(traces: Traces) -> MatplotlibFigure:
    figure = growing(traces)
    horizon = traces[radius_arm(0.0)]["round"].values[0, -1]
    pictures.guide(figure.axes[0], (1e3, 1e3**0.5), horizon, 0.5, "slope ½")
    return figure


FIGURES = (
    Figure("regret", "Cumulative regret of all policies on the published systems (mean over seeds, band: from the "
           "lowest to the highest).", draw_regret, ("ads-dynlin",)),
    Figure("final", "Regret at the end; dots: seeds, bars: means.",
           pictures.dots({title: {label: regret[f"{name}-{policy}"] for policy, label in LABELS.items()
                                  if f"{name}-{policy}" in ARMS} for name, title in NAMES.items()}, xscale="log"),
           ("ads-dynlin",)),
    Figure("actions", "Advertising system: the action that is best at once is poor in the long run (left), and "
           "policies that ignore the state never play the best one (right).", draw_actions, ("ads-dynlin",)),
    Figure("growth", "Random systems: growth of regret with rounds.", draw_growth, tuple(map(radius_arm, RADII))),
    Figure("scaling", "Random systems: growth of DynLin-UCB's regret with memory and dimension; dots: seeds.", draw_scaling,
           tuple(map(radius_arm, RADII))),
    Figure("ablation", "DynLin-UCB without holding its actions, and with a wrong spectral radius.",
           pictures.curves("regret", ("advertising system", {
               "ads-dynlin": "DynLin-UCB", "ads-no-hold": "learns every round",
               "ads-half-radius": "takes ρ for 0.5 ρ", "ads-larger-radius": "takes ρ for 1.2 ρ",
               "ads-linucb": "LinUCB"}), as_drawn=by_thousands, look={"LinUCB": {"linestyle": ":"}},
               xlim=(0, None), ylim=(0, None), xlabel=ROUNDS, ylabel=LOST),
           ("ads-dynlin", "ads-no-hold", "ads-half-radius", "ads-larger-radius", "ads-linucb")),
    Figure("identification", "Identifying the advertising system from a record: error of its long-run response, and "
           "reward lost a round by the action that looks best (mean and range over seeds).",
           pictures.curves({"error of the long-run response": "distance", "reward lost a round": "regret"},
                           ("", {"identify-fir": "FIR, 20 lags", "identify-arx": "ARX, 8 lags",
                                 "identify-predictor": "ARX, predictor form"}),
                           as_drawn=lambda t: t.assign_coords(step=t.periods.values[0]), xscale="log",
                           xlabel="periods of the record", own={"error of the long-run response": {"yscale": "log"}}),
           tuple(f"identify-{m}" for m in METHODS)),
)  # fmt: skip

SMOKE = ("ads-dynlin", "ads-linucb", "ads-expert", *(f"identify-{m}" for m in METHODS))
SHORTER = {arm: {"horizon": 100_000} for arm in ARMS if arm.startswith("noise")}
DRAWN = ("identify-fir", *(f"{name}-dynlin-1" for name in NAMES))
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
        "quick": Budget(8, arm_settings=SHORTER, also=DRAWN),
        "thorough": Budget(16, arm_settings=SHORTER, also=DRAWN),
        "full": Budget(16, arm_settings={
            arm: {"horizon": 1_000_000} for arm in ARMS if arm.startswith(("radius", "dim"))
        }),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="the paper's two systems (their matrices are published) and random ones",
    notes="Regret is measured on steady-state rewards, as in the paper. The first epoch lasts one "
    "round, where the authors' code holds it for two. D-LinUCB forgets, which the authors' log T "
    "variant does not; both are run.",
    watch="regret",
)  # fmt: skip
