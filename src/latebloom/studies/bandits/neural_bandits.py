"""Contextual bandits with online neural regression: NeuSquareCB and NeuFastCB.

Deb, Ban, Zuo, He, Banerjee (ICLR 2024, arXiv 2312.07145).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from latebloom.core.interaction import Interaction
from latebloom.core.process import HostProcess, Process
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import tuned_beside
from latebloom.measures import Effect, Traces, best, effect, final, growth, lowest, mean
from latebloom.methods.bandits.neural import (
    ArmNetwork,
    BestInHindsight,
    LogDet,
    NeuralRegression,
    Perturbation,
    Replay,
    SyntheticBandit,
    draw_contexts,
    linear_policy,
    load_contexts,
    neural_policy,
    table_bandit,
)
from latebloom.methods.bandits.neural.by_name import LinearName, NeuralName
from latebloom.methods.bandits.regret import log_over_root

Method = NeuralName | LinearName | Literal["hindsight-square", "hindsight-kl", "log-det"]
SYNTHETIC = ("h1", "h2", "h3")


@dataclass(frozen=True)
class Config:
    """One method on one world.

    - `data`: a table played as a bandit, or a synthetic function; for "log-det" a table, or
      "orthogonal" or "random" unit contexts in as many dimensions as rounds.
    - `training`: "replay" (all that was seen, on a schedule) or "online" (one step a round).
    - `rate`, `explore`: step size (ridge, for linear and kernel methods), and γ, ν, ε or EE-Net's
      weight; `growth`: γ_t = γ t^growth.
    - `strength`, `draws`, `renew`: the perturbation, c_p m^{-1/4} and S.
    - `noise`: probability of a flipped reward. `order`: "clusters" serves the rows in blocks of
      k-means clusters.
    - `scale`: of the initial weights; `radius`: of the balls around them.
    - `limit`: steps of a replay; `memory`: rounds that the kernel method remembers.
    """

    method: Method = "neu-fast"
    data: str = "digits-8x8"
    training: Literal["replay", "online"] = "replay"
    rate: float = 1.0
    explore: float = 30.0
    growth: float = 0.5
    strength: float = 0.001
    draws: int = 8
    renew: bool = False
    noise: float = 0.0
    order: Literal["shuffled", "clusters"] = "shuffled"
    arms: Literal["disjoint", "heads"] = "disjoint"
    hidden: int = 100
    scale: float = 0.2
    radius: float = 100.0
    rounds: int = 10_000
    limit: int = 2000
    memory: int = 1000
    observations: int = 20


def make_process(config: Config) -> Process | HostProcess:
    if config.method == "log-det":
        return LogDet(partial(draw_contexts, config.data, config.rounds), config.hidden)
    # Networks so small run no faster side by side, and compile more slowly.
    return Interaction(make_world(config), make_policy(config), seeds_by="map")


def make_world(config: Config) -> Any:
    if config.data in SYNTHETIC:
        return SyntheticBandit(function=config.data)  # pyright: ignore
    return table_bandit(config.data, config.noise, in_clusters=config.order == "clusters")


def make_policy(config: Config) -> Any:
    synthetic, (actions, inputs) = config.data in SYNTHETIC, (4, 20)
    if not synthetic:
        x, _, actions = load_contexts(config.data)
        inputs = x.shape[1]
    if config.method in get_args(LinearName):
        return linear_policy(
            config.method, actions, inputs, ridge=config.rate, explore=config.explore,
            growth=config.growth, shared=synthetic, memory=min(config.memory, config.rounds),
        )  # fmt: skip
    arms = "contexts" if synthetic else config.arms
    network = ArmNetwork(actions, inputs, (config.hidden,), arms, config.scale)
    if config.method.startswith("hindsight"):
        loss: Any = config.method.removeprefix("hindsight-")
        everything = Replay(config.rounds)
        return BestInHindsight(
            NeuralRegression(network, loss, config.rate, replay=everything, radius=config.radius)
        )
    return neural_policy(
        config.method, network, rate=config.rate, explore=config.explore, growth=config.growth,
        perturbation=Perturbation(config.draws, config.strength, config.renew),
        replay=Replay(config.rounds, config.limit) if config.training == "replay" else None,
        radius=config.radius,
    )  # fmt: skip


def halves(rounds: int) -> np.ndarray:
    """All rounds, half of them, a quarter, ..., where regression regret is looked at."""
    return np.unique(np.round(rounds / 2.0 ** np.arange(6)).astype(int))


def schedule(config: Config) -> np.ndarray:
    """Evenly spaced rounds and the halves: one schedule for all, so that arms share programs."""
    even = np.linspace(0, config.rounds, config.observations + 1).round().astype(int)
    if config.method.startswith("hindsight"):
        even = np.zeros(1, int)
    return np.union1d(even, halves(config.rounds))


# (step size or ridge, exploration) that won on seeds 100 and 101 out of eight for every method, at the
# quick budget's rounds, trainings and width (written by benchmarks/neural_bandits_tuning.py).
TUNED: dict[str, dict[str, dict[str, tuple[float, float]]]] = tuned_beside(__file__)
DIGITS, SATELLITE, LETTER = REAL = ("digits-8x8", "satellite", "letter")
MORE = ("vowel", "vehicle", "dna", "shuttle", "mnist-5k")
OURS = ("neu-fast", "neu-square")
CITED = ("neural-ucb", "neural-ts", "neural-epsilon")  # whom the paper says it beats
NEURAL = (*OURS, *CITED, "neural-greedy")
LINEAR = ("linucb", "kernel-ucb", "linear-square", "linear-fast")
ALL = (*NEURAL, "ee-net", *LINEAR)
STRENGTHS = (0.0, 0.01, 0.1)  # beside the 0.001 of all other arms
NOISES = (0.05, 0.2)
LOSSES = {"square": "neu-square", "kl": "neu-fast"}
KINDS = ("orthogonal", "random", DIGITS)
LABELS = {
    "neu-fast": "NeuFastCB", "neu-square": "NeuSquareCB", "neural-ucb": "NeuralUCB",
    "neural-ts": "NeuralTS", "neural-epsilon": "neural ε-greedy", "neural-greedy": "neural greedy",
    "ee-net": "EE-Net", "linucb": "LinUCB", "kernel-ucb": "KernelUCB",
    "linear-square": "linear SquareCB", "linear-fast": "linear FastCB",
}  # fmt: skip


def tuned(method: Any, data: str, training: Any = "replay", **more: Any) -> Config:
    """The arm of a method with the settings that tuning found for this data set."""
    like = data if data in REAL else "h1" if data in SYNTHETIC else DIGITS
    rate, explore = TUNED[like][training][method]
    return Config(method, data, training, rate, explore, **more)


def uniform(loss: str, **more: Any) -> Config:
    """Uniform actions, one step a round at the step size of the method that has this loss."""
    rate, _ = TUNED[DIGITS]["online"][LOSSES[loss]]
    method: Any = f"uniform-{loss}"
    return Config(method, DIGITS, "online", rate, **more)


STRONG = tuned("neu-fast", DIGITS, "online", strength=0.01)
ARMS: dict[str, Config] = {
    **{f"{data}/{training}/{method}": tuned(method, data, training) for data in (*REAL, *MORE)
       for training, methods in (("replay", ALL), ("online", NEURAL)) for method in methods},
    **{f"{data}/replay/{m}-plain": tuned(m, data, strength=0.0) for data in REAL for m in OURS},
    **{f"strength-{s:g}/{m}": tuned(m, DIGITS, "online", strength=s) for m in OURS for s in STRENGTHS},
    **{f"noise-{q:g}/{m}": tuned(m, DIGITS, noise=q) for m in OURS for q in NOISES},
    "heads": tuned("neu-fast", DIGITS, "online", arms="heads"),
    **{f"draws-{s}": replace(STRONG, draws=s) for s in (1, 32)},
    "renewed": replace(STRONG, renew=True),
    **{f"clusters/{m}": tuned(m, SATELLITE, order="clusters") for m in (*OURS, *CITED)},
    **{f"{h}/{m}": tuned(m, h) for h in SYNTHETIC for m in (*OURS, *CITED, "linucb")},
    **{f"regression-{loss}": uniform(loss) for loss in LOSSES},
    **{f"regression-{loss}-plain": uniform(loss, strength=0.0) for loss in LOSSES},
    **{f"regression-kl-draws-{s}": uniform("kl", strength=0.01, draws=s) for s in (1, 8, 32)},
    "regression-kl-renewed": uniform("kl", strength=0.01, renew=True),
    "hindsight-square": Config("hindsight-square", DIGITS, rate=0.5),  # of 3, 1, 0.5, 0.2:
    "hindsight-kl": Config("hindsight-kl", DIGITS, rate=3.0),  # best fit on seeds 100 and 101
    **{f"dimension-{kind}": Config("log-det", kind, hidden=1024, rounds=800) for kind in KINDS},
}  # fmt: skip


mistakes = final("regret") / final("round")  # pseudo-regret a round
ON_DIGITS, *_ = REPLAY = [f"{data}/replay" for data in REAL]
ONLINE = [f"{data}/online" for data in (DIGITS, SATELLITE)]
A_ROUND, ALWAYS = "mistakes a round", "persistently outperforms"
BETTER = "beats the best of NeuralUCB, NeuralTS and neural ε-greedy"


def arms_of(methods: Sequence[str], *prefixes: str) -> tuple[str, ...]:
    """Names of the arms of methods, on tables and the like."""
    return tuple(f"{prefix}/{method}" for prefix in prefixes for method in methods)


def against(prefix: str, method: str, rivals: Sequence[str] = CITED) -> Effect:
    """Regret a round of a method minus that of the rival with the lowest mean over seeds."""
    rival = best((mistakes[arm] for arm in arms_of(rivals, prefix)), lowest=True)
    return mistakes[f"{prefix}/{method}"] - rival


def on_average(prefixes: Sequence[str], one: str, other: str) -> Effect:
    """Regret a round of one method minus that of another, mean over tables."""
    return mean(mistakes[f"{prefix}/{one}"] - mistakes[f"{prefix}/{other}"] for prefix in prefixes)


def saved_by_kl(noise: float) -> Effect:
    """Mistakes a round that the KL loss saves over the square loss, at a noise level."""
    prefix = f"noise-{noise:g}" if noise else ON_DIGITS
    return (mistakes[f"{prefix}/neu-square"] - mistakes[f"{prefix}/neu-fast"]) / (1 - 2 * noise)


def regression_regret(traces: Traces, loss: str, suffix: str = "") -> np.ndarray:
    """Cumulative loss minus that of the best network in hindsight, [seed, observed round > 0]."""
    past = traces[f"hindsight-{loss}"]
    online = traces[f"regression-{loss}{suffix}"].sel(step=past.step)
    total = online.error.values / 2 if loss == "square" else online.log_loss.values
    return (total - past.hindsight.values)[:, 1:]


def regression_end(loss: str, suffix: str = "") -> Effect:
    arms = (f"regression-{loss}{suffix}", f"hindsight-{loss}")
    return Effect(arms, f"regression regret of {arms[0]}", lambda t: regression_regret(t, loss, suffix)[:, -1])  # fmt: skip


def log_over_root_of(loss: str) -> Effect:
    """Log ratio of the misfits of a sqrt(T) + b and of a log T + b to the regression regret."""

    @effect(f"log T over sqrt(T), {loss}", f"regression-{loss}", f"hindsight-{loss}")
    def found(traces: Traces) -> np.ndarray:
        t = traces[f"hindsight-{loss}"].step.values[1:].astype(float)
        return log_over_root(regression_regret(traces, loss), t)

    return found


def cited(id: str, prefix: str, where: str, budget: str, **more: Any) -> Claim:
    return Claim(f"C1.{id}", f"NeuFastCB {BETTER} on {where}", ALWAYS, against(prefix, "neu-fast"),
                 "< 0", A_ROUND, budget=budget, **more)  # fmt: skip


exponent = growth("log_det", since=1 / 16)
LEARNED = Need(lowest(mistakes[arm] for arm in arms_of(("neu-fast", *CITED), REPLAY[2])), "< 0.5",
               "no method gets half of the letters right within so few rounds")  # fmt: skip
CLAIMS = (
    cited("digits", ON_DIGITS, "digits", "quick"),
    cited("satellite", REPLAY[1], "satellite pixels", "thorough"),
    cited("letter", REPLAY[2], "letters", "thorough", needs=(LEARNED,)),
    Claim("C1.square", f"NeuSquareCB {BETTER}, mean over the three", ALWAYS,
          mean(against(table, "neu-square") for table in REPLAY), "< 0", A_ROUND, budget="thorough"),
    Claim("C1.online", f"with one step a round and no replay, NeuFastCB {BETTER}", ALWAYS,
          mean(against(table, "neu-fast") for table in ONLINE), "< 0", A_ROUND, budget="thorough"),
    Claim("C1.clusters", f"when rows come in blocks of clusters, NeuFastCB {BETTER}",
          "others' bounds are empty or need i.i.d. contexts", against("clusters", "neu-fast"), "< 0", A_ROUND,
          budget="thorough"),
    Claim("C1.synthetic", f"on h1, h2 and h3, NeuFastCB {BETTER}", "-",
          mean(against(h, "neu-fast") for h in SYNTHETIC), "< 0", "regret a round"),
    Claim("C1.others", "NeuFastCB beats the best of greedy, LinUCB, KernelUCB and linear SquareCB and FastCB, "
          "mean over digits and satellite", "not all compared",
          mean(against(table, "neu-fast", ("neural-greedy", *LINEAR)) for table in REPLAY[:2]),
          "< 0", A_ROUND, budget="thorough"),
    Claim("C1.ee-net", "NeuFastCB beats EE-Net on digits", "not compared here",
          against(ON_DIGITS, "neu-fast", ["ee-net"]), "< 0", A_ROUND),
    Claim("C2", "the KL loss makes fewer mistakes than the square loss (NeuFastCB against NeuSquareCB), mean over "
          "the three", "especially the one based on KL loss", on_average(REPLAY, "neu-fast", "neu-square"), "< 0",
          A_ROUND, budget="thorough"),
    Claim("C2.digits", "so it does on digits", "especially the one based on KL loss",
          on_average([ON_DIGITS], "neu-fast", "neu-square"), "< 0", A_ROUND, added="after results"),
    Claim("C2.online", "so it does with one step a round", "especially the one based on KL loss",
          on_average(ONLINE, "neu-fast", "neu-square"), "< 0", A_ROUND, budget="thorough"),
    Claim("C2.noise", "its advantage on digits shrinks when a fifth of the rewards are flipped",
          "regret O(sqrt(K L*) + K)", saved_by_kl(0.0) - saved_by_kl(NOISES[-1]), "> 0", A_ROUND),
    Claim("C3.square", "online regression regret (square loss) follows a log T + b rather than a sqrt(T) + b",
          "O(log T)", log_over_root_of("square"), "> 0", "log ratio of squared misfits"),
    Claim("C3.kl", "online regression regret (KL loss) follows a log T + b rather than a sqrt(T) + b",
          "O(log T)", log_over_root_of("kl"), "> 0", "log ratio of squared misfits"),
    Claim("C3.perturb", "the perturbation lowers the regression regret (square loss)", "what makes O(log T) possible",
          regression_end("square") / regression_end("square", "-plain") - 1, "< 0", "relative"),
    Claim("A.fast", "the perturbation lowers NeuFastCB's regret, mean over the three", "not ablated",
          on_average(REPLAY, "neu-fast", "neu-fast-plain"), "< 0", A_ROUND, budget="thorough"),
    Claim("A.square", "the perturbation lowers NeuSquareCB's regret, mean over the three", "not ablated",
          on_average(REPLAY, "neu-square", "neu-square-plain"), "< 0", A_ROUND, budget="thorough"),
    Claim("C4.orthogonal", "the log det in the bounds of NeuralUCB and NeuralTS grows like T on orthogonal contexts",
          "Ω(T)", exponent["dimension-orthogonal"], "> 0.9", "exponent", null=exponent["dimension-digits-8x8"]),
    Claim("C4.random", "and on random contexts of high dimension", "Ω(T)", exponent["dimension-random"], "> 0.9",
          "exponent", null=exponent["dimension-digits-8x8"]),  # 64 pixels: few dimensions
)  # fmt: skip

SHORT = {DIGITS: "digits", SATELLITE: "satellite", LETTER: "letters"}
WORLDS = dict(zip(SYNTHETIC, ("h1 square", "h2 quadratic form", "h3 cosine"), strict=True))
COLOURS = {"neu-fast": 0, "neu-square": 5, "neural-ts": 4, "neural-epsilon": 2}
BY_STRENGTH = {0.0: "strength-0", 0.001: ONLINE[0], 0.01: "strength-0.01", 0.1: "strength-0.1"}
SIGNS = {  # the arm, and the suffix of the regression
    "none": ("strength-0/neu-fast", "-plain"), "1 draw": ("draws-1", "-draws-1"),
    "8 draws": ("strength-0.01/neu-fast", "-draws-8"), "32 draws": ("draws-32", "-draws-32"),
    "8, redrawn each round": ("renewed", "-renewed"),
}  # fmt: skip


@pictures.by_hand(2, width=9.0, legend=True)
def draw_exploration(traces: Traces, left: Axes, right: Axes) -> None:
    for method, colour in COLOURS.items():
        if (trace := traces.get(f"{ON_DIGITS}/{method}")) is None:
            continue
        rounds = trace["round"].values[0]
        rate = np.diff(trace.explored.values.mean(0)) / np.diff(rounds)
        look: dict[str, Any] = {"color": style.colours[colour]}
        left.plot((rounds[1:] + rounds[:-1]) / 2, rate, label=LABELS[method], **look)
        last = trace.isel(step=-1).sum("seed")
        counts, predicted, observed = (last[n].values for n in ("counts", "predicted", "observed"))
        said = counts > 20
        right.plot(predicted[said] / counts[said], observed[said] / counts[said], "o-", markersize=4, **look)  # fmt: skip
    right.plot([0, 1], [0, 1], "--", linewidth=1, color=style.INK)
    left.set(xlabel="rounds", ylabel="probability not on the likeliest action", ylim=(0, None),
             title="exploration on digits")  # fmt: skip
    right.set(xlabel="predicted loss of the played action", ylabel="observed loss, mean",
              title="calibration")  # fmt: skip


@pictures.by_hand(2, width=9.0, legend=True)
def draw_regression(traces: Traces, *axes: Axes) -> None:
    for ax, loss in zip(axes, ("square", "kl"), strict=True):
        t = traces[f"hindsight-{loss}"].step.values[1:].astype(float)
        for suffix, colour, label in (("", 0, "perturbed, 8 draws"), ("-plain", 1, "plain")):
            found = (("seed", "step"), regression_regret(traces, loss, suffix))
            style.band(ax, xr.Dataset({"regret": found}, {"step": t}), "regret",
                       colour=style.colours[colour], label=label, marker="o")  # fmt: skip
        average, fine = regression_regret(traces, loss).mean(0), np.geomspace(t[0], t[-1], 100)
        for shape, line, label in ((np.log, "--", "a log T + b"), (np.sqrt, ":", "a √T + b")):
            a, b = np.polyfit(shape(t), average, 1)
            ax.plot(fine, a * shape(fine) + b, line, color=style.INK, linewidth=1.2, label=label)
        ax.set(xlabel="rounds T", xscale="log", title=f"{'KL' if loss == 'kl' else 'square'} loss")
    axes[0].set_ylabel("regret to the best network in hindsight")


FIRST = arms_of((*OURS, *CITED), ON_DIGITS)
FIGURES = (
    Figure("regret", "Mistakes against rounds on tables played as bandits, networks with replay; bands from the lowest "
           "to the highest seed.",
           pictures.curves("regret", *((SHORT[d], {f"{d}/replay/{m}": LABELS[m] for m in (
               *NEURAL, "ee-net", "linear-fast", "kernel-ucb")}) for d in REAL),
               xlabel="rounds", ylabel="mistakes so far", xlim=(0, None), ylim=(0, None)), FIRST),
    Figure("final", "Mistakes a round at the end; dots: seeds, bars: means.",
           pictures.dots({f"{A_ROUND}, {SHORT[d]}": {LABELS[m]: {
               label: mistakes[f"{d}/{training}/{m}"]
               for training, label in (("replay", "replay (or exact update)"), ("online", "one step a round"))
               if f"{d}/{training}/{m}" in ARMS} for m in ALL} for d in REAL}), FIRST),
    Figure("exploration", "How much is explored, and how well losses are predicted.", draw_exploration,
           arms_of(tuple(COLOURS), ON_DIGITS)),
    Figure("ablation", "Without the perturbation, with more of it (its strength is $c_p m^{-1/4}$, 8 draws); digits, one "
           "step a round.",
           pictures.dots({A_ROUND: {f"strength {s:g}": {LABELS[m]: mistakes[f"{arms}/{m}"] for m in OURS}
                                    for s, arms in BY_STRENGTH.items()}}, xlim=(0, None)),
           arms_of(OURS, *BY_STRENGTH.values())),
    Figure("draws", "What draws of the signs do at strength 0.01: NeuFastCB's mistakes on digits, one step a round, and "
           "the regression regret with uniform actions.",
           pictures.dots({A_ROUND: {row: mistakes[arm] for row, (arm, _) in SIGNS.items()},
                          "regression regret, KL loss": {row: regression_end("kl", suffix)
                                                         for row, (_, suffix) in SIGNS.items()}}, xlim=(0, None)),
           ("strength-0/neu-fast", "draws-1", "regression-kl-plain", "hindsight-kl")),
    Figure("noise", "Mistakes a round that the KL loss saves over the square loss as rewards are flipped (digits).",
           pictures.dots({A_ROUND + " saved": {f"{q:.0%} flipped": saved_by_kl(q) for q in (0.0, *NOISES)}},
                         levels={"": 0}),
           arms_of(OURS, f"noise-{NOISES[-1]:g}", ON_DIGITS)),
    Figure("order", "An order of the rows that is not i.i.d. (satellite).",
           pictures.dots({A_ROUND: {LABELS[m]: {
               "shuffled": mistakes[f"{REPLAY[1]}/{m}"],
               "in blocks of clusters": mistakes[f"clusters/{m}"]} for m in (*OURS, *CITED)}}),
           arms_of((*OURS, *CITED), "clusters", REPLAY[1])),
    Figure("synthetic", "Synthetic rewards.",
           pictures.dots({f"regret a round, {title}": {
               LABELS[m]: mistakes[f"{h}/{m}"] for m in (*OURS, *CITED, "linucb")} for h, title in WORLDS.items()}),
           arms_of(("neu-fast", *CITED), *SYNTHETIC)),
    Figure("regression", "Regret of online regression with uniform actions on digits, and what fits it.",
           draw_regression,
           tuple(arm for loss in LOSSES
                 for arm in (f"regression-{loss}", f"regression-{loss}-plain", f"hindsight-{loss}"))),
    Figure("dimension", "log det(I + H) of the tangent kernel, the dimension in others' bounds, against the number of "
           "contexts.",
           pictures.curves("log_det", ("", {f"dimension-{k}": "digits (64 pixels)" if k in REAL else f"{k} (800 dimensions)"
                                            for k in KINDS}),
                           as_drawn=lambda trace: trace.sel(step=trace.step > 0), xscale="log", yscale="log",
                           look={"random (800 dimensions)": {"linestyle": "--"}},
                           xlabel="contexts T", ylabel="log det(I + H)"),
           tuple(f"dimension-{k}" for k in KINDS)),
)  # fmt: skip

DRAWN = (
    *arms_of(ALL, ON_DIGITS), *arms_of(OURS, *BY_STRENGTH.values(), f"noise-{NOISES[-1]:g}"), "draws-1",
    *(f"regression-kl{s}" for s in ("-plain", "-draws-1", "-draws-8")),
)  # fmt: skip
MORE_DRAWN = (*arms_of(NEURAL, *REPLAY, *ONLINE), "clusters/neu-square")
SMOKE = (*arms_of(("neu-fast", *CITED), ON_DIGITS), *(f"dimension-{kind}" for kind in KINDS))
DIMENSION = {f"dimension-{kind}": {"rounds": 800, "hidden": 1024} for kind in KINDS}
SHORTER = {"hidden": 50, "rounds": 1200, "limit": 200, "memory": 500}
TINY = {"hidden": 8, "rounds": 30, "limit": 20, "memory": 20, "observations": 3}

study = Study(
    paper=Paper(
        "neural-bandits", "Contextual Bandits with Online Neural Regression",
        "Rohan Deb, Yikun Ban, Shiliang Zuo, Jingrui He, Arindam Banerjee", "ICLR", 2024, "2312.07145",
    ),
    family="bandits",
    question="Is exploring by inverse gaps over an online neural regression better than confidence "
    "widths from its gradients, and does perturbing its predictions matter?",
    symptoms=(
        "which action to show to which user, rewards only for what was shown",
        "contextual bandit with a neural network explores too much or too little",
        "need propensities logged for off-policy evaluation",
        "NeuralUCB is slow or its bonus needs endless tuning",
        "linear bandit underfits, next policy from a bandit log",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE, TINY, {arm: {"rounds": 60, "hidden": 32} for arm in DIMENSION}),
        "quick": Budget(6, settings=SHORTER, arm_settings=DIMENSION, also=DRAWN),
        "thorough": Budget(6, settings=SHORTER, arm_settings=DIMENSION, also=(*DRAWN, *MORE_DRAWN)),
        "full": Budget(10, arm_settings=DIMENSION),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="scikit-learn digits; synthetic h1, h2, h3; beyond quick Satellite and "
    "LetterRecognition of mlbench; at full its Vowel, Vehicle, DNA and Shuttle, and MNIST-5k",
    watch="regret",
    notes="quick plays digits and the synthetic functions, thorough two more tables, both 1,200 rounds "
    "with 50 hidden units and trainings of at most 200 steps, and every "
    "method has the best step size and exploration of eight on seeds 100 and 101 at this scale; the "
    "paper's settings are 10,000 rounds, 100 units and 2,000 steps (full, with the same settings)",
)  # fmt: skip
