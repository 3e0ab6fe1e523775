"""Last-switch dependent bandits with monotone payoffs: planning by virtual states, and learning.

Foussoul, Goyal, Papadigenopoulos, Zeevi (ICML 2023, arXiv 2306.00338).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.interaction import Interaction, Policy
from latebloom.core.process import HostProcess, Process, Quantity
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures
from latebloom.measures import Effect, Measure, Traces, final, highest, lowest, mean, measure
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
from latebloom.methods.bandits.regret import regret_exponent

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
    tasks = [task for task in get_args(Task) if task not in ("compare", "explore-then-commit")]
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


def _etc_arms(family: Family) -> tuple[str, ...]:
    return (f"{family}-reference", *(f"{family}-etc-{h}" for h in HORIZONS))


ARMS: dict[str, Config] = {
    **{f"{f}-{k}": _planning(f, k) for f, sizes in KINDS.items() for k in sizes},
    **_learning("jump"),
    **_learning("satiation"),
}
ALL_PLANNING = planning_arms(*KINDS)
ALL_SMALL = planning_arms(*FAMILIES, sizes=SMALL)


def share(trace: xr.Dataset, way: str) -> np.ndarray:
    """Reward over the relaxation's bound [seed, instance]."""
    last = trace.isel(step=-1)
    return (last.reward.sel(way=way) / last.bound).values


def earned(way: str) -> Measure:
    return Measure(f"share of the bound that {way} earns", lambda t: share(t, way).mean(1))


@measure("least exact virtual reward over the bound")
def certificate(trace: xr.Dataset) -> np.ndarray:
    last = trace.isel(step=-1)
    return (last.virtual / last.bound).values.min(1)


@measure("least that the optimum leaves of the bound")
def slack(trace: xr.Dataset) -> np.ndarray:
    return 1 - share(trace, "optimum").max(1)


def worst(way: str, family: Family) -> Effect:
    return lowest(earned(way)[arm] for arm in planning_arms(family))


def from_limit(way: str) -> Effect:
    """The largest distance from 1 - (1 - 1/L)^L on tight instances."""
    return highest(abs(earned(way)[f"tight-{k}"] - (1 - (1 - 1 / k) ** k)) for k in TIGHT)


def gain(way: str, over: str, arms: Sequence[str]) -> Effect:
    """What one way earns beyond another, mean over arms."""
    return mean(earned(way)[arm] - earned(over)[arm] for arm in arms)


def regret(traces: Traces, family: Family, arm: str) -> np.ndarray:
    """Expected reward of the planner that knows the payoffs, minus the arm's own [seed, step]."""
    rate = final("reward", way="planner", instance=0)(traces[f"{family}-reference"])
    trace = traces[f"{family}-{arm}"]
    return rate[:, None] * trace["round"].values - trace["mean"].values


def commitments(traces: Traces, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """Horizons of explore-then-commit, and its regret at each [seed, horizon]."""
    arms = [f"etc-{h}" for h in HORIZONS]
    horizons = [int(traces[f"{family}-{arm}"]["round"][0, -1]) for arm in arms]
    return np.array(horizons), np.stack([regret(traces, family, a)[:, -1] for a in arms], axis=1)


def regret_slope(family: Family, arm: str) -> Effect:
    """Slope of log regret over log horizon. `arm` "etc": a run of its own for every horizon."""

    def of(traces: Traces) -> np.ndarray:
        horizons, regrets = commitments(traces, family)
        if arm != "etc":
            rounds = traces[f"{family}-{arm}"]["round"].values[0]
            steps = [int(np.flatnonzero(rounds == h)[0]) for h in horizons]
            regrets = regret(traces, family, arm)[:, steps]
        return regret_exponent(regrets, horizons)

    own = () if arm == "etc" else (f"{family}-{arm}",)
    return Effect((*_etc_arms(family), *own), f"log regret of {arm} over log T, {family}", of)


def approximate_regret(family: Family, arm: str) -> Effect:
    """(1 - 1/e) of the bound minus the arm's reward, a round, at the last horizon."""
    return GUARANTEE * bound[f"{family}-reference"] - a_round[f"{family}-{arm}"]


bound, a_round = final("bound", instance=0), final("mean") / final("round")
SHARE, SLOPE = "share of the bound", "log regret / log T"
NEAR, OWN = "approximation (almost) that of recharging bandits, 1 - 1/e", "not in the paper"
SUBLINEAR = "sublinear regret against the full-information counterpart"


def _compared(id: str, text: str, way: str, over: str) -> tuple[Claim, ...]:
    return tuple(Claim(f"{id}.{f}", text.format(f), OWN, gain(way, over, planning_arms(f)), "> 0", SHARE)
                 for f in KINDS)  # fmt: skip


def _learned(family: Family) -> tuple[Claim, ...]:
    slopes = {arm: regret_slope(family, arm) for arm in ("etc", "optimistic", "ucb1")}
    return (
        Claim(f"C2.commit.{family}", f"Explore-then-commit: sublinear regret against the planner that knows the payoffs, {family}",
              SUBLINEAR, slopes["etc"], "< 1", SLOPE, null=slopes["ucb1"]),
        Claim(f"C2.optimistic.{family}", f"Optimistic epochs: the same, {family}",
              SUBLINEAR, slopes["optimistic"], "< 1", SLOPE, null=slopes["ucb1"]),
        Claim(f"C2.blind.{family}", f"UCB1, which ignores the state, has linear regret, {family}",
              OWN, slopes["ucb1"], "> 0.9", SLOPE, null=slopes["optimistic"]),
        Claim(f"C2.approximate.{family}", f"At the last horizon explore-then-commit is above (1 - 1/e) of the bound, {family}",
              "sublinear approximate regret", approximate_regret(family, "etc-long"), "< 0", "reward a round",
              null=approximate_regret(family, "ucb1")),
    )  # fmt: skip


CLAIMS = (
    Claim("C1.bound", "No policy beats the relaxation: the least of 1 - optimum / bound over all instances with 2 and 3 arms",
          "the relaxation bounds the optimum", lowest(slack[arm] for arm in ALL_SMALL), "> -1e-6", SHARE),
    Claim("C1.certificate", "On every instance the planner's expected virtual reward, computed exactly, is at least 1 - 1/e of the bound",
          NEAR, lowest(certificate[arm] for arm in ALL_PLANNING), "> 0.63212", SHARE,
          null=lowest(worst("round-robin", f) for f in KINDS)),
    *(Claim(f"C1.{f}", f"Played for 2,000 rounds, the planner earns 1 - 1/e of the bound on {f} instances, at the worst number of arms",
            NEAR, worst("planner", f), "> 0.62212", SHARE, null=worst("round-robin", f)) for f in KINDS),
    Claim("C1.limit", "On the tight family it earns 1 - (1 - 1/L)^L of the bound: the largest distance over L = 4, 10, 20",
          "no number in the paper's abstract", from_limit("planner"), "< 0.01", SHARE, null=from_limit("round-robin")),
    *(claim for family in LEARNED for claim in _learned(family)),
    Claim("C3", "Where runs pay (satiation), planning over pairs earns more than planning over delays alone",
          "a higher-dimensional relaxation is needed", gain("planner", "delay-only", planning_arms("satiation")), "> 0", SHARE),
    *_compared("U1", "The planner earns more than myopic greedy on {} instances, mean over numbers of arms", "planner", "greedy"),
    *_compared("U2", "The planner earns more than looking 3 rounds ahead (2 with 50 arms) on {} instances", "planner", "lookahead"),
    *_compared("U3", "The best of 64 roundings, with free rounds filled, earns more than myopic greedy on {} instances",
               "planner-best-fill", "greedy"),
    *(Claim(f"V.{name}", f"{text} earns more than the plain planner, over all instances", OWN,
            gain(f"planner-{name}", "planner", ALL_PLANNING), "> 0", SHARE) for name, text in (
        ("fill", "Filling free rounds with unused arms"), ("best", "Keeping the best of 64 roundings"),
        ("real", "Ranking by real states (not covered by the proof)"))),
)  # fmt: skip

NAMES: dict[Family, str] = {
    "random": "sorted uniforms", "jump": "pay jumps after a rest",
    "satiation": "runs pay, then tire", "tight": "tight instances",
}  # fmt: skip
WITH_KNOWN = {
    "planner": "planner", "planner-best-fill": "planner, best of 64, filled", "greedy": "greedy",
    "lookahead": "lookahead", "dyadic": "periodic, powers of two", "optimum": "optimum (value iteration)",
}  # fmt: skip
LEARNERS = {
    "etc": "explore, then commit", "optimistic": "optimistic epochs",
    "block": "blocks of 3 (CombUCB1)", "ucb1": "UCB1, blind to states",
}  # fmt: skip
by_size = pictures.trend(
    *((NAMES[f], {label: (KINDS[f], [earned(way)[arm] for arm in planning_arms(f)])
                  for way, label in WITH_KNOWN.items()}) for f in KINDS),
    xlabel="arms", ylabel="reward / relaxation bound", ylim=(0.35, 1.03), xscale="log",
    levels={"1 − 1/e": GUARANTEE}, own={NAMES[f]: {"ticks": KINDS[f]} for f in KINDS},
)  # fmt: skip


def draw_regret(traces: Traces) -> MatplotlibFigure:
    shown: list[Family] = [f for f in LEARNED if all(arm in traces for arm in _etc_arms(f))]
    known, lines = {f: commitments(traces, f) for f in shown}, {}
    for family in shown:
        lines[f"{family}-etc"] = _over_rounds(*known[family])
        for arm in (arm for arm in LEARNERS if f"{family}-{arm}" in traces):
            rounds = traces[f"{family}-{arm}"]["round"].values[0]
            lines[f"{family}-{arm}"] = _over_rounds(rounds[1:], regret(traces, family, arm)[:, 1:])
    figure = pictures.curves(
        "regret", *((NAMES[f], {f"{f}-{arm}": label for arm, label in LEARNERS.items()}) for f in shown),
        xscale="log", yscale="log", xlabel="rounds", ylim=(10, None),
        look={LEARNERS["etc"]: {"marker": "o"}}, ylabel="regret against the planner\nthat knows the payoffs",
    )(lines)  # fmt: skip
    for ax, (horizons, ends) in zip(figure.axes, known.values(), strict=False):
        start = (horizons[0], 1.8 * max(float(ends[:, 0].mean()), 1.0))
        for power, text in ((1.0, "T"), (2 / 3, "T$^{2/3}$")):
            pictures.guide(ax, start, horizons[-1], power, text)
    return figure


def _over_rounds(rounds: np.ndarray, regrets: np.ndarray) -> xr.Dataset:
    """Regrets as a trace; what is not above 0 on average cannot be drawn on a log axis."""
    drawn = np.where(regrets.mean(0) > 0, regrets, np.nan)
    return xr.Dataset({"regret": (("seed", "step"), drawn)}, {"step": rounds})


POLICIES = {
    "planner": "known payoffs: planner", "greedy": "known payoffs: greedy",
    "lookahead": "known payoffs: lookahead", "optimistic": "learning: optimistic epochs",
    "etc-long": "learning: explore, then commit", "block": "learning: blocks of 3",
    "ucb1": "learning: UCB1, blind", "round-robin": "round robin",
}  # fmt: skip
OPTIONS = {
    "planner-fill": "fill free rounds", "planner-best": "best of 64 roundings", "planner-best-fill": "both",
    "planner-real": "rank by real states", "delay-only": "delays only (single plays)",
}  # fmt: skip
FIGURES = (
    Figure("certificate", "Mean reward over the relaxation's bound, with known payoffs, by number of arms; dots: seeds, each the mean of its instances.",
           by_size, ("jump-2",)),
    Figure("regret", "Regret against the planner that knows the payoffs, five arms, 0/1 rewards; bands from the lowest to the highest seed. Explore-then-commit is a run of its own for every horizon. A curve that stops has met the planner or passed it.",
           draw_regret, _etc_arms("jump")),
    Figure("rewards", "Reward a round at the last horizon over the relaxation's bound, five arms, 0/1 rewards; dots: seeds, bars: means.",
           pictures.dots({NAMES[f]: {row: a_round[f"{f}-{arm}"] / bound[f"{f}-reference"] for arm, row in POLICIES.items()}
                          for f in LEARNED}, levels={"1 − 1/e": GUARANTEE}, xlim=(0, 1.02)),
           ("jump-reference", "jump-etc-long")),
    Figure("options", "What options add to the plain planner or take from it: mean over numbers of arms; dots: seeds, bars: means.",
           pictures.dots({"reward beyond the plain planner (% of the bound)": {
               row: {NAMES[f]: 100 * gain(way, "planner", planning_arms(f)) for f in KINDS}
               for way, row in OPTIONS.items()}}, levels={"": 0}),
           planning_arms("jump")),
)  # fmt: skip

SMOKE = (*ALL_PLANNING, *_etc_arms("jump"), "jump-optimistic", "jump-ucb1", "jump-greedy")
SMOKE_SETTINGS = {
    "arms": 4, "idle": 3, "streak": 1, "instances": 1, "rounds": 60, "draws": 8, "best_of": 4,
    "horizon": 1000, "period": 0, "depth": 1,
}  # fmt: skip
FEWER = {arm: {"draws": 100} for arm in planning_arms(*FAMILIES, sizes=(50,))}
DRAWN = tuple(f"{f}-{policy}" for f in LEARNED for policy in POLICIES)
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
        "quick": Budget(6, arm_settings=FEWER, also=DRAWN),
        "thorough": Budget(12, arm_settings=FEWER, also=DRAWN),
        "full": Budget(24, arm_settings={arm: {"instances": 3} for arm in planning_arms(*FAMILIES)}),
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
