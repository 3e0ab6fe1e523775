"""Exploration and supervised learning, generation after generation, on payments.

Vangara and Egg (OARS workshop at KDD 2025, arXiv 2412.00569).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.process import HostProcess, Process
from latebloom.data import load_open_bandit
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.measures import Curve, Effect, Measure, Traces, at, average, curve, effect, measure
from latebloom.methods.bandits.off_policy import NORMAL
from latebloom.methods.bandits.payments import by_name
from latebloom.methods.bandits.payments.chain import Chain
from latebloom.methods.bandits.payments.generations import (
    detrended,
    fast_share,
    lag_one,
    standardised_slope,
)
from latebloom.methods.bandits.payments.host import HostChain, LinearBandit, Trees
from latebloom.methods.bandits.payments.model import CrossedLogistic
from latebloom.methods.bandits.payments.open_bandit import OpenBanditCheck
from latebloom.methods.bandits.payments.policy import Retrained
from latebloom.methods.bandits.payments.world import PaymentWorld

CAMPAIGNS = ("all", "men", "women")


@dataclass(frozen=True)
class Config:
    """One chain of generations.

    - `rule` and its `strength`: ε, temperature, γ, or FALCON's complexity; "floored" is SquareCB with
      `floor` of the traffic uniform. "optimism" and "draw" go with the learners that tell widths
      or make draws (also "trees" and "linear", which run on the host).
    - `balance`: trains on a share of negatives, or a number of them, `balance_level`.
    - `slice`, `weighting`, `window`: as in `Retrained`. `ridge`: of the logistic regression.
    - `base`, `lift`, `persistence`, `delay`, `decline_delay`: the world's.
    - `late`: share of a batch that may arrive after it and is joined to the next log.
    - `parts`: into how many disjoint parts the Open Bandit logs are cut, one a seed.
    """

    kind: Literal["chain", "trees", "linear", "open-bandit"] = "chain"
    rule: str = "squarecb"
    strength: float = 1000.0
    floor: float = 0.1
    learner: Literal["supervised", "calibrated", "bootstrapped", "laplace"] = "supervised"
    members: int = 0
    balance: Literal["none", "share", "count"] = "none"
    balance_level: float = 0.15
    slice: float = 0.0
    weighting: float = 0.0
    window: int = 1
    ridge: float = 2.0
    base: float = 1.85
    lift: float = 0.35
    persistence: float = 1.0
    delay: float = 2.0
    decline_delay: float = 2.0
    late: float = 0.0
    batch: int = 20_000
    generations: int = 12
    contexts: int = 4_000
    trees: int = 100
    parts: int = 6


def make_process(config: Config) -> Process | HostProcess:
    if config.kind == "open-bandit":
        logs = {
            name: (load_open_bandit("random", name), load_open_bandit("bts", name))
            for name in CAMPAIGNS
        }
        return OpenBanditCheck(logs, config.parts)
    world = PaymentWorld(
        batch=config.batch, generations=config.generations, base=config.base, lift=config.lift,
        persistence=config.persistence, delay=config.delay, decline_delay=config.decline_delay,
    )  # fmt: skip
    rule = by_name.rule(config.rule, config.strength, config.floor)
    if config.kind == "trees":
        return HostChain(world, Trees(config.trees), rule, config.contexts)
    if config.kind == "linear":
        linear = LinearBandit(config.ridge, members=config.members)
        return HostChain(world, linear, rule, config.contexts)
    waiting = round(config.late * config.batch)
    learner = by_name.learner(
        config.learner, CrossedLogistic(world.sizes, 2, world.actions, ridge=config.ridge),
        strength=config.strength, members=config.members, balance=config.balance,
        balance_level=config.balance_level,
    )  # fmt: skip
    policy = Retrained(
        learner, rule, rows=config.batch + waiting,
        window=config.window, slice=config.slice, weighting=config.weighting,
    )  # fmt: skip
    return Chain(world, policy, contexts=config.contexts, waiting=waiting)


def schedule(config: Config) -> np.ndarray:
    return np.arange(1, len(CAMPAIGNS) + 1) if config.kind == "open-bandit" else np.arange(
        config.generations + 1)  # fmt: skip


GAMMAS = (10, 50, 200, 1000)
SQUARE = "squarecb-1000"
SQUARES = tuple(f"squarecb-{g}" for g in GAMMAS)
BASE = Config()
UNIFORM = replace(BASE, rule="uniform")

ARMS: dict[str, Config] = {
    "open-bandit": replace(BASE, kind="open-bandit"),
    "uniform": UNIFORM,
    "epsilon-slice": replace(BASE, rule="greedy", slice=0.1),
    "epsilon": replace(BASE, rule="epsilon", strength=0.1),
    "greedy": replace(BASE, rule="greedy"),
    "softmax": replace(BASE, rule="softmax", strength=0.005),
    **{f"squarecb-{g}": replace(BASE, strength=float(g)) for g in GAMMAS},
    "fastcb": replace(BASE, rule="fastcb", strength=100.0),
    "falcon": replace(BASE, rule="falcon", strength=1.0),
    "ucb": replace(BASE, learner="laplace", rule="optimism", strength=0.1),
    "thompson": replace(BASE, learner="laplace", rule="draw", strength=0.3, members=8),
    "bootstrap-thompson": replace(BASE, learner="bootstrapped", rule="draw", members=5),
    "squarecb-calibrated": replace(BASE, learner="calibrated"),
    "squarecb-floor": replace(BASE, rule="floored"),
    "squarecb-w2": replace(BASE, window=2),
    "squarecb-long": replace(BASE, window=4),
    "falcon-long": replace(BASE, rule="falcon", strength=1.0, window=4),
    "squarecb-weighted": replace(BASE, weighting=1.0),
    "squarecb-ratio": replace(BASE, balance="share", balance_level=0.15),
    "squarecb-count": replace(BASE, balance="count", balance_level=1000.0),
    "uniform-thinned": replace(UNIFORM, balance="share", balance_level=0.11),
    "squarecb-ridge": replace(BASE, ridge=10.0),
    "uniform-ridge": replace(UNIFORM, ridge=10.0),
    "squarecb-drift98": replace(BASE, persistence=0.98),
    "uniform-drift98": replace(UNIFORM, persistence=0.98),
    "squarecb-drift90": replace(BASE, persistence=0.9),
    "uniform-drift90": replace(UNIFORM, persistence=0.9),
    "squarecb-half": replace(BASE, base=-0.05),
    "uniform-half": replace(UNIFORM, base=-0.05),
    "squarecb-small": replace(BASE, lift=0.2),
    "uniform-small": replace(UNIFORM, lift=0.2),
    "squarecb-prompt": replace(BASE, delay=0.0, decline_delay=0.0),
    "squarecb-fast-declines": replace(BASE, delay=4.0, decline_delay=0.2),
    "squarecb-late": replace(BASE, late=0.1),
    "trees-squarecb": replace(BASE, kind="trees"),
    "trees-uniform": replace(UNIFORM, kind="trees"),
    "trees-epsilon": replace(BASE, kind="trees", rule="epsilon", strength=0.1),
    "linucb": replace(BASE, kind="linear", rule="optimism", strength=0.02),
    "lints": replace(BASE, kind="linear", rule="draw", members=8),
}


def trained(name: str) -> Curve:
    """From the first model on."""
    return curve(name)[1:]


def served(name: str) -> Measure:
    """Mean over the policies that serve generations 2, 3, ... to the last."""
    return average(curve(name)[1:-1])


def own_logs(name: str) -> Measure:
    """Mean over the models trained on a policy's own logs: all but the first, of a uniform log."""
    return average(curve(name)[2:])


def drop(name: str) -> Measure:
    """What own logs change against the uniform log."""
    return own_logs(name) - at(name, 1)


def of_own_models(text: str, found: Callable[[np.ndarray], np.ndarray]) -> Measure:
    """Of the values of the models trained on a policy's own logs, [seed, generation]."""
    return Measure(text, lambda trace: found(trace.greedy_gain.values[:, 2:]))


alternation = of_own_models("lag-1 autocorrelation of the detrended values", lag_one)
fast = of_own_models("share of the variance at periods of three generations and less", fast_share)
swing = of_own_models("standard deviation of the detrended values", lambda v: detrended(v).std(axis=1))  # fmt: skip


def off_policy_gaps(trace: xr.Dataset, name: str, world: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Estimate less truth of the greedy policy of the model that served, and its standard error;
    for logs 2, 3, ..., [seed, log]. `world`: the truth is that of so many seeds further on."""
    truth = np.roll(trace.greedy_value.values[:, 1:-1], -world, axis=0)
    return trace[f"{name}_value"].values[:, 2:] - truth, trace[f"{name}_error"].values[:, 2:]


def coverage(name: str, world: int = 0) -> Measure:
    def of(trace: xr.Dataset) -> np.ndarray:
        gap, error = off_policy_gaps(trace, name, world)
        return (np.abs(gap) <= 1.96 * error).mean(axis=1)

    return Measure(f"share of {name} intervals that hold the {'next seed' if world else 'model'}'s value", of)  # fmt: skip


def off_policy_error(name: str) -> Measure:
    return Measure(f"RMSE of {name}", lambda t: np.sqrt((off_policy_gaps(t, name)[0] ** 2).mean(axis=1)))  # fmt: skip


@measure("share of SNIPS intervals that hold the click rate of the next campaign")
def wrong_campaign(trace: xr.Dataset) -> np.ndarray:
    rate, error = (np.roll(trace[n].values, -1, axis=1) for n in ("on_policy", "on_policy_error"))
    reach = NORMAL * np.hypot(trace.snips_error.values, error)
    inside = np.abs(trace.snips_value.values - rate) <= reach
    return np.where(np.isnan(rate), np.nan, inside).mean(axis=1)


@effect("coefficient of the negative share", *SQUARES)
def slope_of_imbalance(traces: Traces) -> np.ndarray:
    """The standardised coefficient of the change in negative share, over all γ together, in a
    regression of the change in the model's value that also has the shift measures."""
    names = ("greedy_gain", "negative_share", "overlap", "action_shift")
    changes = [
        np.concatenate([np.diff(traces[arm][name].values[:, 1:], axis=1) for arm in SQUARES], 1)
        for name in names
    ]
    return np.array([standardised_slope(*columns) for columns in zip(*changes, strict=True)])


@effect("what thinning costs over what own logs cost", "uniform", "uniform-thinned", SQUARE)
def share_explained(traces: Traces) -> np.ndarray:
    """NaN where own logs cost less than 0.02."""
    uniform, thinned, own = (level(traces[a]) for a in ("uniform", "uniform-thinned", SQUARE))
    lost = uniform - own
    return np.divide(uniform - thinned, lost, out=np.full_like(lost, np.nan), where=lost > 0.02)


value, level, change = served("value"), own_logs("greedy_gain"), drop("greedy_gain")


def less(of: Measure, arm: str, than: str) -> Effect:
    return of[arm] - of[than]


RATE, GAP = "authorisation rate", "share of the gap to the oracle"
PAYS, WORSE = (
    "regression oracles improve immediate performance",
    "later generations may perform worse",
)
OSCILLATES = "performance may oscillate over generations"
CAUSE = "shifted rewards and more class imbalance are the cause"
CLAIMS = (
    Claim("C1", "SquareCB (γ = 1000) earns more than uniform exploration, from generation 2 on", PAYS,
          less(value, SQUARE, "uniform"), "> 0", RATE),
    Claim("C1.slice", "... and more than a supervised policy trained on a uniform tenth", PAYS,
          less(value, SQUARE, "epsilon-slice"), "> 0", RATE),
    Claim("C1.epsilon", "... and more than ε-greedy trained on all of its data", "not compared",
          less(value, SQUARE, "epsilon"), "> 0", RATE),
    Claim("C2", "Policies trained on SquareCB's logs are worse than the one trained on a uniform log", WORSE,
          drop("gain")[SQUARE], "< 0", GAP),
    Claim("C2.model", "So are their models, played greedily", WORSE, change[SQUARE], "< 0", GAP),
    Claim("C2.still", "A chain that always trains on uniform logs stands still", "the control", change["uniform"],
          "> -0.02", GAP, null=change[SQUARE]),
    Claim("C2.control", "The drop is beyond the control's", WORSE, less(change, SQUARE, "uniform"), "< 0", GAP),
    *(Claim(f"C2.{id}", text, WORSE, less(change, arm, control), "< 0", GAP, budget=budget)
      for id, text, arm, control, budget in (
        ("drift", "The same in a world that drifts (ρ = 0.9)", "squarecb-drift90", "uniform-drift90", "quick"),
        ("half", "The same where half of the payments are declined", "squarecb-half", "uniform-half", "quick"),
        ("small", "The same where there is less to be won (sd of v_a 0.2)", "squarecb-small", "uniform-small", "full"),
        ("trees", "The same with boosted trees", "trees-squarecb", "trees-uniform", "full"),
    )),
    Claim("C2.data", "Meanwhile the training sets' mean reward rises", "other aspects of the training data improve",
          drop("reward")[SQUARE], "> 0", RATE),
    Claim("C3", "A model falls as the negative share of its training set falls, shift held fixed", CAUSE,
          slope_of_imbalance, "> 0", "standardised slope"),
    Claim("C3.ratio", "At a fixed share of negatives (15 %) the drop shrinks", CAUSE,
          less(change, "squarecb-ratio", SQUARE), "> 0", GAP),
    Claim("C3.count", "At a fixed number of negatives (1000) the drop shrinks", CAUSE,
          less(change, "squarecb-count", SQUARE), "> 0", GAP),
    Claim("C3.reverse", "Uniform logs thinned to SquareCB's negative share lose half as much or more", CAUSE,
          share_explained, "> 0.5", "share"),
    Claim("C3.memory", "A memory of four logs or more shrinks the drop (our counter-hypothesis)", "not tested",
          less(change, "squarecb-long", SQUARE), "> 0", GAP),
    Claim("C3.ridge", "So does a stronger ridge, 10 for 2 (our counter-hypothesis)", "not tested",
          less(change, "squarecb-ridge", SQUARE), "> 0", GAP),
    Claim("C4", "Detrended values alternate: lag-1 autocorrelation below the control's", OSCILLATES,
          less(alternation, SQUARE, "uniform"), "< 0", "correlation"),
    Claim("C4.spectrum", "More of the variance is at periods of three generations and less", OSCILLATES,
          less(fast, SQUARE, "uniform"), "> 0", "share"),
    Claim("C4.gamma", "They swing more at γ = 1000 than at γ = 10", OSCILLATES, less(swing, SQUARE, "squarecb-10"),
          "> 0", GAP),
    Claim("C4.greedy", "Without exploration (greedy) they alternate, more than the control", OSCILLATES,
          less(alternation, "greedy", "uniform"), "< 0", "correlation", added="after results"),
    Claim("C4.memory", "A short memory alternates more than a long one", OSCILLATES,
          less(alternation, SQUARE, "squarecb-long"), "< 0", "correlation"),
    Claim("C5.dr", "DR's 95 % intervals hold the greedy policy's value, from SquareCB's logs", "not reported",
          coverage("dr")[SQUARE], "> 0.85", "share", null=coverage("dr", world=1)[SQUARE]),
    Claim("C5.snips", "SNIPS's do", "not reported", coverage("snips")[SQUARE], "> 0.85", "share",
          null=coverage("snips", world=1)[SQUARE]),
    Claim("C5.error", "SquareCB's logs tell it better than uniform ones (RMSE of DR)", "not reported",
          less(off_policy_error("dr"), SQUARE, "uniform"), "< 0", RATE),
    Claim("C5.open", "On the Open Bandit logs SNIPS agrees with the policy's own click rate", "not used",
          average("snips_covered")["open-bandit"], "> 0.8", "share of intervals",
          null=wrong_campaign["open-bandit"]),
)  # fmt: skip

NAMES = {
    "uniform": "uniform", "epsilon-slice": "ε-greedy, uniform tenth only", "epsilon": "ε-greedy",
    "greedy": "greedy", "softmax": "softmax", "fastcb": "FastCB", "falcon": "FALCON",
    "ucb": "UCB", "thompson": "Thompson", "bootstrap-thompson": "bootstrapped Thompson",
    **{f"squarecb-{g}": f"SquareCB, γ = {g}" for g in GAMMAS},
    "squarecb-calibrated": "SquareCB, recalibrated", "squarecb-floor": "SquareCB, floor of 0.1",
    "squarecb-w2": "SquareCB, 2 logs", "squarecb-long": "SquareCB, 4 logs or more",
    "falcon-long": "FALCON, 4 logs or more", "squarecb-weighted": "SquareCB, weights 1/p",
    "squarecb-ratio": "SquareCB, 15 % negatives", "squarecb-count": "SquareCB, 1000 negatives",
    "uniform-thinned": "uniform, 11 % negatives", "squarecb-ridge": "SquareCB, ridge 10",
    "linucb": "LinUCB", "lints": "LinTS", "trees-squarecb": "SquareCB, trees",
    "trees-epsilon": "ε-greedy, trees",
}  # fmt: skip
MAIN = ("uniform", "epsilon-slice", "epsilon", "greedy", "squarecb-200", SQUARE, "squarecb-long")
MENDED = (
    "uniform", "uniform-thinned", SQUARE, "squarecb-ratio", "squarecb-count", "squarecb-weighted",
    "squarecb-calibrated", "squarecb-floor", "squarecb-ridge", "squarecb-w2", "squarecb-long",
)  # fmt: skip
ALTERNATING = ("uniform", *SQUARES, "greedy", "epsilon", "softmax", "squarecb-w2", "squarecb-long")
LOGGED = ("uniform", *SQUARES, "epsilon", "fastcb", "softmax")
SCALE, GENERATION = "uniform 0, oracle 1", "generation of the model"


def named(*arms: str) -> dict[str, str]:
    return {arm: NAMES[arm] for arm in arms}


@pictures.by_hand(width=5.4, height=3.6, legend=True)
def draw_oscillation(traces: Traces, ax: Axes) -> None:
    for place, arm in enumerate(arm for arm in ("uniform", SQUARE, "greedy") if arm in traces):
        values = traces[arm].greedy_gain[:3, 2:]
        for seed, one in enumerate(values.values):
            ax.plot(values.step, one, color=style.colours[place], alpha=1 - 0.3 * seed, linewidth=1.4,
                    label=None if seed else NAMES[arm])  # fmt: skip
    ax.set(xlabel=GENERATION, ylabel=SCALE, title="value of the model, three seeds")


def draw_rules(traces: Traces) -> MatplotlibFigure:
    """Every rule, the best on top."""
    gain = served("gain")
    arms = [arm for arm in NAMES if arm in traces and not arm.startswith("uniform-")]
    arms.sort(key=lambda arm: -float(gain(traces[arm]).mean()))
    return pictures.dots({f"policy ({SCALE})": {NAMES[arm]: gain[arm] for arm in arms}})(traces)


CONTROL = ("uniform", SQUARE)
FIGURES = (
    Figure("generations", "Value of the policies, and of their models, generation by generation. Bands span the seeds.",
           pictures.curves({f"policy ({SCALE})": trained("gain"),
                            f"its model, greedily ({SCALE})": trained("greedy_gain")},
                           ("", named(*MAIN)), xlabel=GENERATION), MAIN),
    Figure("causes", "What each intervention does to the drop, and to the level; dots: seeds, bars: means.",
           pictures.dots({"change against the model of the uniform log": {NAMES[a]: change[a] for a in MENDED},
                          f"value of the model ({SCALE})": {NAMES[a]: level[a] for a in MENDED}}), CONTROL),
    Figure("oscillation", "Does the value alternate?", draw_oscillation, CONTROL),
    Figure("alternation", "Below 0 it alternates; dots: seeds, bars: means.",
           pictures.dots({"lag-1 autocorrelation, detrended": {NAMES[a]: alternation[a] for a in ALTERNATING}},
                         levels={"": 0}), CONTROL),
    Figure("logs", "The logs: imbalance, overlap, and what the model does not know.",
           pictures.curves({"share of declined in the training set": trained("negative_share"),
                            "effective share of the last log": trained("overlap"),
                            "RMSE on actions not played": trained("rmse_unplayed")},
                           ("", named("uniform", "epsilon", "greedy", "squarecb-200", SQUARE)), xlabel=GENERATION, ylim=(0, None),
                           own={"effective share of the last log": {"yscale": "log", "ylim": (1e-3, 1.5)}}), CONTROL),
    Figure("rules", "Every rule on the same worlds: mean value of the policies that serve generations 2 to the last; "
           "dots: seeds, bars: means.", draw_rules, CONTROL),
    Figure("off-policy", "Would the logs have told? The greedy policy valued from each rule's logs.",
           pictures.dots({"RMSE, authorisation rate": {NAMES[arm]: {
               name.upper(): off_policy_error(name)[arm] for name in ("ips", "snips", "dr")} for arm in LOGGED}},
               xscale="log", ticks=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)), CONTROL),
    Figure("open-bandit", "Open Bandit: the policy's clicks, valued from the random log; dots: parts of the logs.",
           pictures.dots({"clicks per 1000 recommendations": {f"campaign {name!r}": {
               label: 1000 * at(column, place)["open-bandit"] for label, column in (
                   ("its own click rate", "on_policy"), ("IPS", "ips_value"), ("SNIPS", "snips_value"),
                   ("DR", "dr_value"))} for place, name in enumerate(CAMPAIGNS, 1)}}, xlim=(0, None)),
           ("open-bandit",)),
)  # fmt: skip

SMOKE = (
    "uniform", "epsilon-slice", *SQUARES, "squarecb-long", "squarecb-ratio", "uniform-thinned",
)  # fmt: skip
QUICK = {"contexts": 1000, "generations": 10}
DRAWN = ("fastcb", "squarecb-weighted")

study = Study(
    paper=Paper(
        "payment-bandits",
        "Contextual Bandits in Payment Processing: Non-uniform Exploration and Supervised Learning "
        "at Adyen",
        "Vangara, Egg", "OARS workshop at KDD", 2025, "2412.00569",
    ),
    family="bandits",
    question="Does a policy that trains on its own exploration get worse, and is imbalance the cause?",
    symptoms=(
        "a model retrained on its own logs gets worse with every generation",
        "performance of a policy oscillates from one retraining to the next",
        "uniform exploration costs too much revenue",
        "few negatives left in the training data since the policy works",
        "how good would another policy have been on this bandit log",
        "propensity, off-policy evaluation, IPS, SNIPS, doubly robust",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE, {"batch": 400, "generations": 4, "contexts": 200, "trees": 5},
                        {"squarecb-long": {"window": 1}}),
        "quick": Budget(6, settings=QUICK, also=DRAWN),
        "thorough": Budget(8, settings=QUICK, also=DRAWN),
        "full": Budget(30, settings={"generations": 24, "parts": 10},
                       arm_settings={a: {"window": 24} for a in ("squarecb-long", "falcon-long")}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="simulated payments (24 actions, 20,000 a generation) and the small Open Bandit logs",
    notes="The paper's data are private, and no table of it was available: the world is a simulator "
    "with 83 % authorised under uniform exploration and 95 % at best, and the rules are the textbook "
    "ones. The model is logistic regression with the context crossed with the action (ridge 2), one "
    "day's log (W = 1), delays of 2 hours on average, late rewards dropped. V_g is the true value, by "
    "the simulator's probabilities on 4,000 fixed contexts, between uniform (0) and oracle (1). "
    "Rates, γ and temperatures were chosen on seeds 100 to 103. C3.reverse, C3.memory and C3.ridge "
    "are our own tests, made after the drop had been seen on those seeds; so are C5's thresholds. "
    "C4.greedy was added after greedy play had been seen to alternate on seeds 0 to 5. Below full there are "
    "10 generations; the long memory holds 4 logs, at full all of 24. Boosted trees (a "
    "generation takes seconds), LinUCB, LinTS, Thompson sampling, UCB, softmax, FALCON, "
    "recalibration, and drops, delays and late rewards in other worlds run in full only.",
    watch="greedy_gain",
)  # fmt: skip
