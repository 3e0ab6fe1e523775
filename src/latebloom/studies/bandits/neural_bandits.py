"""Contextual bandits with online neural regression: NeuSquareCB and NeuFastCB.

Deb, Ban, Zuo, He, Banerjee (ICLR 2024, arXiv 2312.07145).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.interaction import Interaction
from latebloom.core.process import HostProcess, Process, Quantity
from latebloom.data import load, load_table
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import Effect, Traces, best, effect, final, growth, lowest, mean
from latebloom.methods.bandits.neural import (
    ArmNetwork,
    BestInHindsight,
    Choice,
    ClassificationBandit,
    EENet,
    EpsilonGreedy,
    Greedy,
    InverseGap,
    KernelRegression,
    LinearRegression,
    LowerBound,
    NeuralRegression,
    OraclePolicy,
    Perturbation,
    Replay,
    SmallLossInverseGap,
    SyntheticBandit,
    Thompson,
    Uniform,
    contexts,
    log_det_growth,
    tangent_gram,
)
from latebloom.methods.bandits.neural.regression import Loss

Method = Literal[
    "neu-fast", "neu-square", "neural-ucb", "neural-ts", "neural-epsilon", "neural-greedy",
    "ee-net", "linucb", "kernel-ucb", "linear-square", "linear-fast",
    "uniform-square", "uniform-kl", "hindsight-square", "hindsight-kl", "log-det",
]  # fmt: skip
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


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Contexts, labels and the number of classes of a data set."""
    from sklearn.decomposition import PCA

    if name == "mnist-5k":
        images = load(name)
        x = np.concatenate([images.x_train, images.x_test]).reshape(-1, 784)
        y = np.concatenate([images.y_train, images.y_test]).astype(np.int32)
        x = contexts(PCA(50, random_state=0).fit_transform(x))
        classes = 10
    else:
        found = load_table(name)
        x, y, classes = contexts(found.x), found.y, len(found.classes)
    return x, y, classes


@cache
def clusters(name: str) -> np.ndarray:
    """The k-means cluster, of eight, of each row of a data set."""
    from sklearn.cluster import KMeans

    return KMeans(8, random_state=0).fit_predict(table(name)[0]).astype(np.int32)


def make_process(config: Config) -> Process | HostProcess:
    if config.method == "log-det":
        return LogDet(config)
    # Networks so small run no faster side by side, and compile more slowly.
    return Interaction(make_world(config), make_policy(config), seeds_by="map")


def make_world(config: Config) -> Any:
    if config.data in SYNTHETIC:
        return SyntheticBandit(function=config.data)  # pyright: ignore
    x, y, classes = table(config.data)
    group = clusters(config.data) if config.order == "clusters" else np.zeros(len(x), np.int32)
    return ClassificationBandit(
        classes, jnp.asarray(x), jnp.asarray(y), jnp.asarray(group), config.noise
    )


def make_policy(config: Config) -> Any:
    synthetic = config.data in SYNTHETIC
    actions, inputs = 4, 20
    if not synthetic:
        actions, inputs = table(config.data)[2], table(config.data)[0].shape[1]
    arms = "contexts" if synthetic else config.arms
    network = ArmNetwork(actions, inputs, (config.hidden,), arms, config.scale)
    if config.method in ("linucb", "linear-square", "linear-fast", "kernel-ucb"):
        return linear_policy(config, actions, inputs, synthetic)
    if config.method.startswith("hindsight"):
        loss = "kl" if config.method.endswith("kl") else "square"
        plain = NeuralRegression(
            network, loss, config.rate, replay=Replay(config.rounds), radius=config.radius
        )
        return BestInHindsight(plain)
    return neural_policy(config, network)


def neural_policy(config: Config, network: ArmNetwork) -> OraclePolicy:
    """Methods that differ in their rule alone share a program: `Choice` picks the rule."""
    e, g = config.explore, config.growth
    memory = Replay(config.rounds, config.limit) if config.training == "replay" else None
    perturbed: dict[str, tuple[Loss, int]] = {"neu-fast": ("kl", 0), "neu-square": ("square", 1),
                 "uniform-kl": ("kl", 2), "uniform-square": ("square", 2)}  # fmt: skip
    if config.method in perturbed:
        loss, number = perturbed[config.method]
        perturbation = Perturbation(config.draws, config.strength, config.renew)
        oracle = NeuralRegression(
            network, loss, config.rate, 0.0, perturbation, memory, config.radius
        )
        gaps = (SmallLossInverseGap(e, g), InverseGap(e, g), Uniform())
        return OraclePolicy(oracle, Choice(gaps, np.int32(number)))  # pyright: ignore
    if config.method == "ee-net":
        plain = NeuralRegression(
            network, "square", config.rate, replay=memory, radius=config.radius
        )
        return OraclePolicy(EENet(plain, e), Greedy())
    oracle = NeuralRegression(
        network, "square", config.rate, replay=memory, radius=config.radius, ridge=1.0
    )
    rules = (EpsilonGreedy(e), LowerBound(e), Thompson(e))
    methods = ("neural-epsilon", "neural-ucb", "neural-ts")
    if config.method == "neural-greedy":
        rules, number = (EpsilonGreedy(0.0), *rules[1:]), 0
    else:
        number = methods.index(config.method)
    return OraclePolicy(oracle, Choice(rules, np.int32(number)))  # pyright: ignore


def linear_policy(config: Config, actions: int, inputs: int, shared: bool) -> OraclePolicy:
    if config.method == "kernel-ucb":
        memory = min(config.memory, config.rounds)
        kernel = KernelRegression(actions, inputs, memory, config.rate, shared)
        return OraclePolicy(kernel, LowerBound(config.explore))
    methods = ("linucb", "linear-square", "linear-fast")
    loss = "kl" if config.method == "linear-fast" else "square"
    oracle = LinearRegression(actions, inputs, config.rate, loss, shared)
    e, g = config.explore, config.growth
    rules = (LowerBound(e), InverseGap(e, g), SmallLossInverseGap(e, g))
    return OraclePolicy(oracle, Choice(rules, np.int32(methods.index(config.method))))  # pyright: ignore


class LogDet(HostProcess):
    """Meets one context more a step; observed is log det(I + H) of those met."""

    def __init__(self, config: Config):
        self.config = config

    def init(self, seed: int) -> tuple[int, np.ndarray]:
        n, key = self.config.rounds, jax.random.key(seed)
        order, net = jax.random.split(key)
        if self.config.data == "orthogonal":
            x = jnp.eye(n)
        elif self.config.data == "random":
            x = jax.random.normal(order, (n, n))
            x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        else:
            rows = table(self.config.data)[0]
            x = jnp.asarray(rows)[jax.random.permutation(order, len(rows))[:n]]
        return 0, log_det_growth(tangent_gram(net, x, self.config.hidden))

    def step(self, state: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
        return state[0] + 1, state[1]

    def observe(self, state: tuple[int, np.ndarray]) -> dict[str, Any]:
        met, growth = state
        return {"log_det": np.float64(growth[met - 1] if met else 0.0)}

    def quantities(self) -> dict[str, Quantity]:
        return {"log_det": Quantity("1", about="log det(I + H)")}


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
# quick budget's rounds, trainings and width (benchmarks/neural_bandits_tuning.py).
TUNED: dict[tuple[str, str, str], tuple[float, float]] = {
    ("digits-8x8", "replay", "neu-fast"): (3, 1000), ("digits-8x8", "replay", "neu-square"): (3, 100),
    ("digits-8x8", "replay", "neural-ucb"): (3, 0.3), ("digits-8x8", "replay", "neural-ts"): (1, 0.1),
    ("digits-8x8", "replay", "neural-epsilon"): (3, 0.001), ("digits-8x8", "replay", "neural-greedy"): (3, 0),
    ("digits-8x8", "replay", "ee-net"): (1, 0.03), ("digits-8x8", "replay", "linucb"): (0.03, 0.03),
    ("digits-8x8", "replay", "kernel-ucb"): (0.1, 1), ("digits-8x8", "replay", "linear-square"): (0.03, 1000),
    ("digits-8x8", "replay", "linear-fast"): (0.3, 300),
    ("satellite", "replay", "neu-fast"): (1, 30), ("satellite", "replay", "neu-square"): (1, 1000),
    ("satellite", "replay", "neural-ucb"): (1, 0.03), ("satellite", "replay", "neural-ts"): (1, 0.1),
    ("satellite", "replay", "neural-epsilon"): (1, 0.001), ("satellite", "replay", "neural-greedy"): (0.333, 0),
    ("satellite", "replay", "ee-net"): (3, 1), ("satellite", "replay", "linucb"): (0.3, 0.1),
    ("satellite", "replay", "kernel-ucb"): (0.1, 0.3), ("satellite", "replay", "linear-square"): (0.3, 1000),
    ("satellite", "replay", "linear-fast"): (0.3, 1000),
    ("letter", "replay", "neu-fast"): (1, 1000), ("letter", "replay", "neu-square"): (1, 100),
    ("letter", "replay", "neural-ucb"): (3, 0.3), ("letter", "replay", "neural-ts"): (3, 0.1),
    ("letter", "replay", "neural-epsilon"): (3, 0.001), ("letter", "replay", "neural-greedy"): (3, 0),
    ("letter", "replay", "ee-net"): (3, 0.03), ("letter", "replay", "linucb"): (0.3, 0.03),
    ("letter", "replay", "kernel-ucb"): (0.1, 1), ("letter", "replay", "linear-square"): (0.3, 1000),
    ("letter", "replay", "linear-fast"): (0.03, 30),
    ("digits-8x8", "online", "neu-fast"): (4, 100), ("digits-8x8", "online", "neu-square"): (4, 30),
    ("digits-8x8", "online", "neural-ucb"): (4, 0.03), ("digits-8x8", "online", "neural-ts"): (4, 0.1),
    ("digits-8x8", "online", "neural-epsilon"): (4, 0.03), ("digits-8x8", "online", "neural-greedy"): (4, 0),
    ("satellite", "online", "neu-fast"): (2, 1000), ("satellite", "online", "neu-square"): (2, 300),
    ("satellite", "online", "neural-ucb"): (4, 0.03), ("satellite", "online", "neural-ts"): (4, 0.1),
    ("satellite", "online", "neural-epsilon"): (4, 0.001), ("satellite", "online", "neural-greedy"): (4, 0),
    ("letter", "online", "neu-fast"): (2, 300), ("letter", "online", "neu-square"): (4, 100),
    ("letter", "online", "neural-ucb"): (4, 0.03), ("letter", "online", "neural-ts"): (4, 0.03),
    ("letter", "online", "neural-epsilon"): (4, 0.03), ("letter", "online", "neural-greedy"): (4, 0),
    ("h1", "replay", "neu-fast"): (1, 300), ("h1", "replay", "neu-square"): (1, 30),
    ("h1", "replay", "neural-ucb"): (1, 0.3), ("h1", "replay", "neural-ts"): (1, 0.03),
    ("h1", "replay", "neural-epsilon"): (1, 0.001), ("h1", "replay", "linucb"): (0.3, 1),
}  # fmt: skip

REAL = ("digits-8x8", "satellite", "letter")
MORE = ("vowel", "vehicle", "dna", "shuttle", "mnist-5k")
NEURAL = ("neu-fast", "neu-square", "neural-ucb", "neural-ts", "neural-epsilon", "neural-greedy")
CITED = ("neural-ucb", "neural-ts", "neural-epsilon")  # whom the paper says it beats
OTHERS = ("neural-greedy", "ee-net", "linucb", "kernel-ucb", "linear-square", "linear-fast")
STRENGTHS = (0.0, 0.01, 0.1)  # beside the 0.001 of all other arms
NOISES = (0.05, 0.2)
HINDSIGHT_RATES = {"square": 0.5, "kl": 3.0}  # of 3, 1, 0.5, 0.2: best fit on seeds 100 and 101
KINDS = ("orthogonal", "random", "digits-8x8")
LABELS = {
    "neu-fast": "NeuFastCB", "neu-square": "NeuSquareCB", "neural-ucb": "NeuralUCB",
    "neural-ts": "NeuralTS", "neural-epsilon": "neural ε-greedy", "neural-greedy": "neural greedy",
    "ee-net": "EE-Net", "linucb": "LinUCB", "kernel-ucb": "KernelUCB",
    "linear-square": "linear SquareCB", "linear-fast": "linear FastCB",
}  # fmt: skip


def tuned(method: Any, data: str, training: Any = "replay", **more: Any) -> Config:
    """The arm of a method with the settings that tuning found for this data set."""
    like = data if data in REAL else "h1" if data in SYNTHETIC else "digits-8x8"
    rate, explore = TUNED[like, training, method]
    return Config(method, data, training, float(rate), float(explore), **more)


def name(data: str, training: str, method: str) -> str:
    return f"{data}/{training}/{method}"


def _arms() -> dict[str, Config]:
    arms: dict[str, Config] = {}
    for data in (*REAL, *MORE):
        for method in (*NEURAL, *OTHERS[1:]):
            arms[name(data, "replay", method)] = tuned(method, data)
        for method in NEURAL:
            arms[name(data, "online", method)] = tuned(method, data, "online")
    for data in REAL:
        for method in NEURAL[:2]:
            plain = tuned(method, data, strength=0.0)
            arms[name(data, "replay", f"{method}-plain")] = plain
    digits = "digits-8x8"
    for method in NEURAL[:2]:
        base = tuned(method, digits, "online")
        for strength in STRENGTHS:
            arms[f"strength-{strength:g}/{method}"] = replace(base, strength=strength)
        for noise in NOISES:
            arms[f"noise-{noise:g}/{method}"] = tuned(method, digits, noise=noise)
    fast = tuned("neu-fast", digits, "online")
    arms["heads"] = replace(fast, arms="heads")
    strong = replace(fast, strength=0.01)
    arms |= {f"draws-{s}": replace(strong, draws=s) for s in (1, 32)}
    arms["renewed"] = replace(strong, renew=True)
    for method in (*NEURAL[:2], *CITED):
        arms[f"clusters/{method}"] = tuned(method, "satellite", order="clusters")
    for h in SYNTHETIC:
        for method in (*NEURAL[:2], *CITED, "linucb"):
            arms[f"{h}/{method}"] = tuned(method, h)
    for loss, method in (("square", "neu-square"), ("kl", "neu-fast")):
        rate = float(TUNED[digits, "online", method][0])
        uniform: Any = f"uniform-{loss}"
        base = Config(uniform, digits, "online", rate)
        arms[f"regression-{loss}"] = base
        arms[f"regression-{loss}-plain"] = replace(base, strength=0.0)
        if loss == "kl":
            strong = replace(base, strength=0.01)
            arms |= {f"regression-kl-draws-{s}": replace(strong, draws=s) for s in (1, 8, 32)}
            arms["regression-kl-renewed"] = replace(strong, renew=True)
        past: Any = f"hindsight-{loss}"
        arms[past] = Config(past, digits, "replay", HINDSIGHT_RATES[loss])
    for kind in KINDS:
        arms[f"dimension-{kind}"] = Config("log-det", kind, hidden=1024, rounds=800)
    return arms


ARMS = _arms()


mistakes = final("regret") / final("round")  # pseudo-regret a round
ONLINE = ("digits-8x8", "satellite")
A_ROUND, ALWAYS = "mistakes a round", "persistently outperforms"
BETTER = "beats the best of NeuralUCB, NeuralTS and neural ε-greedy"


def _replay(*methods: str, data: Sequence[str] = REAL) -> tuple[str, ...]:
    return tuple(name(d, "replay", m) for d in data for m in methods)


def against_best(arm: str, rivals: Sequence[str]) -> Effect:
    """Regret a round of an arm minus that of the rival with the lowest mean over seeds."""
    return mistakes[arm] - best((mistakes[rival] for rival in rivals), lowest=True)


def against(prefix: str, method: str, rivals: Sequence[str] = CITED) -> Effect:
    return against_best(f"{prefix}/{method}", [f"{prefix}/{m}" for m in rivals])


def on_average(prefixes: Sequence[str], one: str, other: str) -> Effect:
    """Regret a round of one method minus that of another, mean over tables."""
    return mean(mistakes[f"{prefix}/{one}"] - mistakes[f"{prefix}/{other}"] for prefix in prefixes)


def saved_by_kl(noise: float) -> Effect:
    """Mistakes a round that the KL loss saves over the square loss, at a noise level."""
    prefix = f"noise-{noise:g}" if noise else "digits-8x8/replay"
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


def misfit(values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Squared error of the best a * shape + b, per seed."""
    columns = np.stack([shape, np.ones_like(shape)], axis=1)
    left = values.T - columns @ np.linalg.lstsq(columns, values.T, rcond=None)[0]
    return (left**2).sum(0)


def log_over_root(loss: str) -> Effect:
    """Log ratio of the misfits of a sqrt(T) + b and of a log T + b to the regression regret."""

    @effect(f"log T over sqrt(T), {loss}", f"regression-{loss}", f"hindsight-{loss}")
    def of(traces: Traces) -> np.ndarray:
        regret = regression_regret(traces, loss)
        t = traces[f"hindsight-{loss}"].step.values[1:].astype(float)
        return np.log(misfit(regret, np.sqrt(t)) / misfit(regret, np.log(t)))

    return of


def cited(id: str, prefix: str, where: str, budget: str, **more: Any) -> Claim:
    return Claim(f"C1.{id}", f"NeuFastCB {BETTER} on {where}", ALWAYS, against(prefix, "neu-fast"),
                 "< 0", A_ROUND, budget=budget, **more)  # fmt: skip


exponent = growth("log_det", since=1 / 16)
DIGITS, TABLES = "digits-8x8/replay", [f"{d}/replay" for d in REAL]
ONE_STEP = [f"{d}/online" for d in ONLINE]
LEARNED = Need(lowest(mistakes[arm] for arm in _replay("neu-fast", *CITED, data=REAL[2:])), "< 0.5",
               "no method gets half of the letters right within so few rounds")  # fmt: skip
CLAIMS = (
    cited("digits", DIGITS, "digits", "quick"),
    cited("satellite", TABLES[1], "satellite pixels", "thorough"),
    cited("letter", TABLES[2], "letters", "thorough", needs=(LEARNED,)),
    Claim("C1.square", f"NeuSquareCB {BETTER}, mean over the three", ALWAYS,
          mean(against(table, "neu-square") for table in TABLES), "< 0", A_ROUND, budget="thorough"),
    Claim("C1.online", f"with one step a round and no replay, NeuFastCB {BETTER}", ALWAYS,
          mean(against(table, "neu-fast") for table in ONE_STEP), "< 0", A_ROUND, budget="thorough"),
    Claim("C1.clusters", f"when rows come in blocks of clusters, NeuFastCB {BETTER}",
          "others' bounds are empty or need i.i.d. contexts", against("clusters", "neu-fast"), "< 0", A_ROUND,
          budget="thorough"),
    Claim("C1.synthetic", f"on h1, h2 and h3, NeuFastCB {BETTER}", "-",
          mean(against(h, "neu-fast") for h in SYNTHETIC), "< 0", "regret a round"),
    Claim("C1.others", "NeuFastCB beats the best of greedy, LinUCB, KernelUCB and linear SquareCB and FastCB, "
          "mean over digits and satellite", "not all compared",
          mean(against(table, "neu-fast", [m for m in OTHERS if m != "ee-net"]) for table in TABLES[:2]),
          "< 0", A_ROUND, budget="thorough"),
    Claim("C1.ee-net", "NeuFastCB beats EE-Net on digits", "not compared here",
          against(DIGITS, "neu-fast", ["ee-net"]), "< 0", A_ROUND),
    Claim("C2", "the KL loss makes fewer mistakes than the square loss (NeuFastCB against NeuSquareCB), mean over "
          "the three", "especially the one based on KL loss", on_average(TABLES, "neu-fast", "neu-square"), "< 0",
          A_ROUND, budget="thorough"),
    Claim("C2.digits", "so it does on digits", "especially the one based on KL loss",
          on_average([DIGITS], "neu-fast", "neu-square"), "< 0", A_ROUND, added="after results"),
    Claim("C2.online", "so it does with one step a round", "especially the one based on KL loss",
          on_average(ONE_STEP, "neu-fast", "neu-square"), "< 0", A_ROUND, budget="thorough"),
    Claim("C2.noise", "its advantage on digits shrinks when a fifth of the rewards are flipped",
          "regret O(sqrt(K L*) + K)", saved_by_kl(0.0) - saved_by_kl(NOISES[-1]), "> 0", A_ROUND),
    Claim("C3.square", "online regression regret (square loss) follows a log T + b rather than a sqrt(T) + b",
          "O(log T)", log_over_root("square"), "> 0", "log ratio of squared misfits"),
    Claim("C3.kl", "online regression regret (KL loss) follows a log T + b rather than a sqrt(T) + b",
          "O(log T)", log_over_root("kl"), "> 0", "log ratio of squared misfits"),
    Claim("C3.perturb", "the perturbation lowers the regression regret (square loss)", "what makes O(log T) possible",
          regression_end("square") / regression_end("square", "-plain") - 1, "< 0", "relative"),
    Claim("A.fast", "the perturbation lowers NeuFastCB's regret, mean over the three", "not ablated",
          on_average(TABLES, "neu-fast", "neu-fast-plain"), "< 0", A_ROUND, budget="thorough"),
    Claim("A.square", "the perturbation lowers NeuSquareCB's regret, mean over the three", "not ablated",
          on_average(TABLES, "neu-square", "neu-square-plain"), "< 0", A_ROUND, budget="thorough"),
    Claim("C4.orthogonal", "the log det in the bounds of NeuralUCB and NeuralTS grows like T on orthogonal contexts",
          "Ω(T)", exponent["dimension-orthogonal"], "> 0.9", "exponent", null=exponent["dimension-digits-8x8"]),
    Claim("C4.random", "and on random contexts of high dimension", "Ω(T)", exponent["dimension-random"], "> 0.9",
          "exponent", null=exponent["dimension-digits-8x8"]),  # 64 pixels: few dimensions
)  # fmt: skip

SHORT = {"digits-8x8": "digits", "satellite": "satellite", "letter": "letters"}
WORLDS = dict(zip(SYNTHETIC, ("h1 square", "h2 quadratic form", "h3 cosine"), strict=True))
COLOURS: dict[str, int] = dict(zip(("neu-fast", "neu-square", "neural-ts", "neural-epsilon"), (0, 5, 4, 2), strict=True))  # fmt: skip
STRONG = {
    "none": "strength-0/neu-fast", "1 draw": "draws-1", "8 draws": "strength-0.01/neu-fast",
    "32 draws": "draws-32", "8, redrawn each round": "renewed",
}  # fmt: skip
SUFFIXES = {
    "none": "-plain", "1 draw": "-draws-1", "8 draws": "-draws-8", "32 draws": "-draws-32",
    "8, redrawn each round": "-renewed",
}  # fmt: skip


def draw_exploration(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = pictures.panels(2, width=9.0)
    for method in (m for m in COLOURS if name("digits-8x8", "replay", m) in traces):
        trace, colour = traces[name("digits-8x8", "replay", method)], style.colours[COLOURS[method]]
        rounds = trace["round"].values[0]
        rate = np.diff(trace.explored.values.mean(0)) / np.diff(rounds)
        left.plot((rounds[1:] + rounds[:-1]) / 2, rate, color=colour, label=LABELS[method])
        last = trace.isel(step=-1).sum("seed")
        counts, predicted, observed = (last[n].values for n in ("counts", "predicted", "observed"))
        said = counts > 20
        right.plot(predicted[said] / counts[said], observed[said] / counts[said], "o-", markersize=4,
                   color=colour)  # fmt: skip
    right.plot([0, 1], [0, 1], "--", linewidth=1, color=style.INK)
    left.set(xlabel="rounds", ylabel="probability not on the likeliest action", ylim=(0, None),
             title="exploration on digits")  # fmt: skip
    right.set(xlabel="predicted loss of the played action", ylabel="observed loss, mean",
              title="calibration")  # fmt: skip
    pictures.legend_below(figure)
    return figure


def draw_regression(traces: Traces) -> MatplotlibFigure:
    figure, axes = pictures.panels(2, width=9.0)
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
    pictures.legend_below(figure)
    return figure


def _at_strength(method: str, strength: float) -> str:
    return name("digits-8x8", "online", method) if strength == 0.001 else f"strength-{strength:g}/{method}"  # fmt: skip


FIRST = _replay(*NEURAL[:2], *CITED, data=REAL[:1])
FIGURES = (
    Figure("regret", "Mistakes against rounds on tables played as bandits, networks with replay; bands from the lowest "
           "to the highest seed.",
           pictures.curves("regret", *((SHORT[d], {name(d, "replay", m): LABELS[m] for m in (
               *NEURAL, "ee-net", "linear-fast", "kernel-ucb")}) for d in REAL),
               xlabel="rounds", ylabel="mistakes so far", xlim=(0, None), ylim=(0, None)), FIRST),
    Figure("final", "Mistakes a round at the end; dots: seeds, bars: means.",
           pictures.dots({f"{A_ROUND}, {SHORT[d]}": {LABELS[m]: {
               label: mistakes[name(d, training, m)]
               for training, label in (("replay", "replay (or exact update)"), ("online", "one step a round"))
               if name(d, training, m) in ARMS} for m in (*NEURAL, *OTHERS[1:])} for d in REAL}), FIRST),
    Figure("exploration", "How much is explored, and how well losses are predicted.", draw_exploration,
           _replay(*COLOURS, data=REAL[:1])),
    Figure("ablation", "Without the perturbation, with more of it (its strength is $c_p m^{-1/4}$, 8 draws); digits, one "
           "step a round.",
           pictures.dots({A_ROUND: {f"strength {s:g}": {LABELS[m]: mistakes[_at_strength(m, s)] for m in NEURAL[:2]}
                                    for s in sorted((0.001, *STRENGTHS))}}, xlim=(0, None)),
           tuple(_at_strength(m, s) for s in (0.001, *STRENGTHS) for m in NEURAL[:2])),
    Figure("draws", "What draws of the signs do at strength 0.01: NeuFastCB's mistakes on digits, one step a round, and "
           "the regression regret with uniform actions.",
           pictures.dots({A_ROUND: {row: mistakes[arm] for row, arm in STRONG.items()},
                          "regression regret, KL loss": {row: regression_end("kl", suffix)
                                                         for row, suffix in SUFFIXES.items()}}, xlim=(0, None)),
           (STRONG["none"], STRONG["1 draw"], "regression-kl-plain", "hindsight-kl")),
    Figure("noise", "Mistakes a round that the KL loss saves over the square loss as rewards are flipped (digits).",
           pictures.dots({A_ROUND + " saved": {f"{q:.0%} flipped": saved_by_kl(q) for q in (0.0, *NOISES)}},
                         levels={"": 0}),
           (*(f"noise-{NOISES[-1]:g}/{m}" for m in NEURAL[:2]), *_replay(*NEURAL[:2], data=REAL[:1]))),
    Figure("order", "An order of the rows that is not i.i.d. (satellite).",
           pictures.dots({A_ROUND: {LABELS[m]: {
               "shuffled": mistakes[name("satellite", "replay", m)],
               "in blocks of clusters": mistakes[f"clusters/{m}"]} for m in (*NEURAL[:2], *CITED)}}),
           (*(f"clusters/{m}" for m in (*NEURAL[:2], *CITED)), *_replay(*NEURAL[:2], *CITED, data=REAL[1:2]))),
    Figure("synthetic", "Synthetic rewards.",
           pictures.dots({f"regret a round, {title}": {
               LABELS[m]: mistakes[f"{h}/{m}"] for m in (*NEURAL[:2], *CITED, "linucb")} for h, title in WORLDS.items()}),
           tuple(f"{h}/{m}" for h in SYNTHETIC for m in ("neu-fast", *CITED))),
    Figure("regression", "Regret of online regression with uniform actions on digits, and what fits it.",
           draw_regression,
           tuple(a for k in ("square", "kl") for a in (f"regression-{k}", f"regression-{k}-plain", f"hindsight-{k}"))),
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
    *_replay(*NEURAL, *OTHERS[1:], data=REAL[:1]), *(name(REAL[0], "online", m) for m in NEURAL[:2]),
    *(f"strength-{s:g}/{m}" for s in STRENGTHS for m in NEURAL[:2]), "draws-1",
    *(f"noise-{q:g}/{m}" for q in NOISES[-1:] for m in NEURAL[:2]),
    *(f"regression-kl{s}" for s in ("-plain", "-draws-1", "-draws-8")),
)  # fmt: skip
MORE_DRAWN = (
    *_replay(*NEURAL), *(name(d, "online", m) for d in ONLINE for m in NEURAL), "clusters/neu-square",
)  # fmt: skip
SMOKE = (*_replay("neu-fast", *CITED, data=REAL[:1]), *(f"dimension-{kind}" for kind in KINDS))
DIMENSION = {f"dimension-{kind}": {"rounds": 800, "hidden": 1024} for kind in KINDS}
SHORTER = {"hidden": 50, "rounds": 1200, "limit": 200, "memory": 500}
TINY = {"hidden": 8, "rounds": 30, "limit": 20, "memory": 20, "observations": 3}

study = Study(
    paper=Paper(
        slug="neural-bandits",
        title="Contextual Bandits with Online Neural Regression",
        authors="Rohan Deb, Yikun Ban, Shiliang Zuo, Jingrui He, Arindam Banerjee",
        venue="ICLR",
        year=2024,
        arxiv="2312.07145",
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
