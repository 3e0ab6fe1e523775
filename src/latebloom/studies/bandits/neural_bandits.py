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
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import NullFormatter

from latebloom.core.interaction import Interaction
from latebloom.core.process import HostProcess, Process, Quantity
from latebloom.data import load, load_table
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
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
    ("digits-8x8", "replay", "neu-fast"): (3, 1000),
    ("digits-8x8", "replay", "neu-square"): (3, 100),
    ("digits-8x8", "replay", "neural-ucb"): (3, 0.3),
    ("digits-8x8", "replay", "neural-ts"): (1, 0.1),
    ("digits-8x8", "replay", "neural-epsilon"): (3, 0.001),
    ("digits-8x8", "replay", "neural-greedy"): (3, 0),
    ("digits-8x8", "replay", "ee-net"): (1, 0.03),
    ("digits-8x8", "replay", "linucb"): (0.03, 0.03),
    ("digits-8x8", "replay", "kernel-ucb"): (0.1, 1),
    ("digits-8x8", "replay", "linear-square"): (0.03, 1000),
    ("digits-8x8", "replay", "linear-fast"): (0.3, 300),
    ("satellite", "replay", "neu-fast"): (1, 30),
    ("satellite", "replay", "neu-square"): (1, 1000),
    ("satellite", "replay", "neural-ucb"): (1, 0.03),
    ("satellite", "replay", "neural-ts"): (1, 0.1),
    ("satellite", "replay", "neural-epsilon"): (1, 0.001),
    ("satellite", "replay", "neural-greedy"): (0.333, 0),
    ("satellite", "replay", "ee-net"): (3, 1),
    ("satellite", "replay", "linucb"): (0.3, 0.1),
    ("satellite", "replay", "kernel-ucb"): (0.1, 0.3),
    ("satellite", "replay", "linear-square"): (0.3, 1000),
    ("satellite", "replay", "linear-fast"): (0.3, 1000),
    ("letter", "replay", "neu-fast"): (1, 1000),
    ("letter", "replay", "neu-square"): (1, 100),
    ("letter", "replay", "neural-ucb"): (3, 0.3),
    ("letter", "replay", "neural-ts"): (3, 0.1),
    ("letter", "replay", "neural-epsilon"): (3, 0.001),
    ("letter", "replay", "neural-greedy"): (3, 0),
    ("letter", "replay", "ee-net"): (3, 0.03),
    ("letter", "replay", "linucb"): (0.3, 0.03),
    ("letter", "replay", "kernel-ucb"): (0.1, 1),
    ("letter", "replay", "linear-square"): (0.3, 1000),
    ("letter", "replay", "linear-fast"): (0.03, 30),
    ("digits-8x8", "online", "neu-fast"): (4, 100),
    ("digits-8x8", "online", "neu-square"): (4, 30),
    ("digits-8x8", "online", "neural-ucb"): (4, 0.03),
    ("digits-8x8", "online", "neural-ts"): (4, 0.1),
    ("digits-8x8", "online", "neural-epsilon"): (4, 0.03),
    ("digits-8x8", "online", "neural-greedy"): (4, 0),
    ("satellite", "online", "neu-fast"): (2, 1000),
    ("satellite", "online", "neu-square"): (2, 300),
    ("satellite", "online", "neural-ucb"): (4, 0.03),
    ("satellite", "online", "neural-ts"): (4, 0.1),
    ("satellite", "online", "neural-epsilon"): (4, 0.001),
    ("satellite", "online", "neural-greedy"): (4, 0),
    ("letter", "online", "neu-fast"): (2, 300),
    ("letter", "online", "neu-square"): (4, 100),
    ("letter", "online", "neural-ucb"): (4, 0.03),
    ("letter", "online", "neural-ts"): (4, 0.03),
    ("letter", "online", "neural-epsilon"): (4, 0.03),
    ("letter", "online", "neural-greedy"): (4, 0),
    ("h1", "replay", "neu-fast"): (1, 300),
    ("h1", "replay", "neu-square"): (1, 30),
    ("h1", "replay", "neural-ucb"): (1, 0.3),
    ("h1", "replay", "neural-ts"): (1, 0.03),
    ("h1", "replay", "neural-epsilon"): (1, 0.001),
    ("h1", "replay", "linucb"): (0.3, 1),
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


def mistakes(trace: xr.Dataset) -> np.ndarray:
    """Pseudo-regret a round at the end, per seed."""
    return trace.regret.values[:, -1] / trace["round"].values[:, -1]


def against_best(traces: Traces, arm: str, rivals: Sequence[str]) -> np.ndarray:
    """Regret a round of an arm minus that of the rival with the lowest mean over seeds."""
    best = min((mistakes(traces[rival]) for rival in rivals), key=np.mean)
    return mistakes(traces[arm]) - best


def against_cited(traces: Traces, data: str, training: str, method: str) -> np.ndarray:
    rivals = [name(data, training, m) for m in CITED]
    return against_best(traces, name(data, training, method), rivals)


def _mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(parts), axis=0)


def fast_on_digits(traces: Traces) -> np.ndarray:
    return against_cited(traces, "digits-8x8", "replay", "neu-fast")


def fast_on_satellite(traces: Traces) -> np.ndarray:
    return against_cited(traces, "satellite", "replay", "neu-fast")


def fast_on_letter(traces: Traces) -> np.ndarray:
    return against_cited(traces, "letter", "replay", "neu-fast")


def square_on_all(traces: Traces) -> np.ndarray:
    return _mean([against_cited(traces, data, "replay", "neu-square") for data in REAL])


def fast_online(traces: Traces) -> np.ndarray:
    return _mean([against_cited(traces, data, "online", "neu-fast") for data in ONLINE])


def fast_against_others(traces: Traces) -> np.ndarray:
    def one(data: str) -> np.ndarray:
        rivals = [name(data, "replay", m) for m in OTHERS if m != "ee-net"]
        return against_best(traces, name(data, "replay", "neu-fast"), rivals)

    return _mean([one(data) for data in ONLINE])


def fast_against_ee_net(traces: Traces) -> np.ndarray:
    return against_best(traces, "digits-8x8/replay/neu-fast", ["digits-8x8/replay/ee-net"])


def fast_on_clusters(traces: Traces) -> np.ndarray:
    return against_best(traces, "clusters/neu-fast", [f"clusters/{m}" for m in CITED])


def fast_on_synthetic(traces: Traces) -> np.ndarray:
    return _mean([against_best(traces, f"{h}/neu-fast", [f"{h}/{m}" for m in CITED])
                  for h in SYNTHETIC])  # fmt: skip


def fast_minus_square(traces: Traces) -> np.ndarray:
    return _mean([mistakes(traces[name(d, "replay", "neu-fast")])
                  - mistakes(traces[name(d, "replay", "neu-square")]) for d in REAL])  # fmt: skip


def fast_minus_square_online(traces: Traces) -> np.ndarray:
    return _mean([mistakes(traces[name(d, "online", "neu-fast")])
                  - mistakes(traces[name(d, "online", "neu-square")]) for d in ONLINE])  # fmt: skip


def gain_at(traces: Traces, noise: float) -> np.ndarray:
    """Mistakes a round that the KL loss saves over the square loss, at a noise level."""
    prefix = f"noise-{noise:g}/" if noise else "digits-8x8/replay/"
    saved = mistakes(traces[f"{prefix}neu-square"]) - mistakes(traces[f"{prefix}neu-fast"])
    return saved / (1 - 2 * noise)


def gain_lost_to_noise(traces: Traces) -> np.ndarray:
    return gain_at(traces, 0.0) - gain_at(traces, NOISES[-1])


def perturbed_minus_plain(traces: Traces, method: str) -> np.ndarray:
    return _mean([mistakes(traces[name(d, "replay", method)])
                  - mistakes(traces[name(d, "replay", f"{method}-plain")]) for d in REAL])  # fmt: skip


def fast_perturbed(traces: Traces) -> np.ndarray:
    return perturbed_minus_plain(traces, "neu-fast")


def square_perturbed(traces: Traces) -> np.ndarray:
    return perturbed_minus_plain(traces, "neu-square")


def regression_regret(traces: Traces, loss: str, suffix: str = "") -> np.ndarray:
    """Cumulative loss minus that of the best network in hindsight, [seed, observed round > 0]."""
    past = traces[f"hindsight-{loss}"]
    online = traces[f"regression-{loss}{suffix}"].sel(step=past.step)
    total = online.error.values / 2 if loss == "square" else online.log_loss.values
    return (total - past.hindsight.values)[:, 1:]


def misfit(values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Squared error of the best a * shape + b, per seed."""
    columns = np.stack([shape, np.ones_like(shape)], axis=1)
    left = values.T - columns @ np.linalg.lstsq(columns, values.T, rcond=None)[0]
    return (left**2).sum(0)


def log_over_root(traces: Traces, loss: str) -> np.ndarray:
    regret = regression_regret(traces, loss)
    t = traces[f"hindsight-{loss}"].step.values[1:].astype(float)
    return np.log(misfit(regret, np.sqrt(t)) / misfit(regret, np.log(t)))


def log_growth_square(traces: Traces) -> np.ndarray:
    return log_over_root(traces, "square")


def log_growth_kl(traces: Traces) -> np.ndarray:
    return log_over_root(traces, "kl")


def regression_perturbed(traces: Traces) -> np.ndarray:
    perturbed = regression_regret(traces, "square")[:, -1]
    return perturbed / regression_regret(traces, "square", "-plain")[:, -1] - 1


def growth(trace: xr.Dataset) -> np.ndarray:
    """Slope of log(log det) on log(rounds), per seed, from the sixteenth part of the rounds on."""
    later = trace.sel(step=trace.step >= trace.step[-1] / 16)
    t = np.log(later.step.values)
    return np.array([np.polyfit(t, np.log(row), 1)[0] for row in later.log_det.values])


def growth_orthogonal(traces: Traces) -> np.ndarray:
    return growth(traces["dimension-orthogonal"])


def growth_random(traces: Traces) -> np.ndarray:
    return growth(traces["dimension-random"])


def _replay(*methods: str, data: Sequence[str] = REAL) -> tuple[str, ...]:
    return tuple(name(d, "replay", m) for d in data for m in methods)


ONLINE = ("digits-8x8", "satellite")
BETTER = "beats the best of NeuralUCB, NeuralTS and neural ε-greedy"
CLAIMS = (
    Claim("C1.digits", f"NeuFastCB {BETTER} on digits", "persistently outperforms",
          _replay("neu-fast", *CITED, data=REAL[:1]), fast_on_digits, "< 0", "mistakes a round"),
    Claim("C1.satellite", f"NeuFastCB {BETTER} on satellite pixels", "persistently outperforms",
          _replay("neu-fast", *CITED, data=REAL[1:2]), fast_on_satellite, "< 0",
          "mistakes a round"),
    Claim("C1.letter", f"NeuFastCB {BETTER} on letters", "persistently outperforms",
          _replay("neu-fast", *CITED, data=REAL[2:]), fast_on_letter, "< 0", "mistakes a round"),
    Claim("C1.square", f"NeuSquareCB {BETTER}, mean over the three", "persistently outperforms",
          _replay("neu-square", *CITED), square_on_all, "< 0", "mistakes a round"),
    Claim("C1.online", f"with one step a round and no replay, NeuFastCB {BETTER}",
          "persistently outperforms",
          tuple(name(d, "online", m) for d in ONLINE for m in ("neu-fast", *CITED)),
          fast_online, "< 0", "mistakes a round"),
    Claim("C1.clusters", f"when rows come in blocks of clusters, NeuFastCB {BETTER}",
          "others' bounds are empty or need i.i.d. contexts",
          tuple(f"clusters/{m}" for m in ("neu-fast", *CITED)), fast_on_clusters, "< 0",
          "mistakes a round"),
    Claim("C1.synthetic", f"on h1, h2 and h3, NeuFastCB {BETTER}", "-",
          tuple(f"{h}/{m}" for h in SYNTHETIC for m in ("neu-fast", *CITED)),
          fast_on_synthetic, "< 0", "regret a round"),
    Claim("C1.others", "NeuFastCB beats the best of greedy, LinUCB, KernelUCB and linear SquareCB "
          "and FastCB, mean over digits and satellite", "not all compared",
          _replay("neu-fast", *(m for m in OTHERS if m != "ee-net"), data=REAL[:2]),
          fast_against_others, "< 0", "mistakes a round"),
    Claim("C1.ee-net", "NeuFastCB beats EE-Net on digits", "not compared here",
          _replay("neu-fast", "ee-net", data=REAL[:1]), fast_against_ee_net, "< 0",
          "mistakes a round"),
    Claim("C2", "the KL loss makes fewer mistakes than the square loss (NeuFastCB against "
          "NeuSquareCB), mean over the three", "especially the one based on KL loss",
          _replay("neu-fast", "neu-square"), fast_minus_square, "< 0", "mistakes a round"),
    Claim("C2.online", "so it does with one step a round", "especially the one based on KL loss",
          tuple(name(d, "online", m) for d in ONLINE for m in NEURAL[:2]),
          fast_minus_square_online, "< 0", "mistakes a round"),
    Claim("C2.noise", "its advantage on digits shrinks when a fifth of the rewards are flipped",
          "regret O(sqrt(K L*) + K)",
          (*_replay(*NEURAL[:2], data=REAL[:1]),
           *(f"noise-{NOISES[-1]:g}/{m}" for m in NEURAL[:2])),
          gain_lost_to_noise, "> 0", "mistakes a round"),
    Claim("C3.square", "online regression regret (square loss) follows a log T + b rather than "
          "a sqrt(T) + b", "O(log T)", ("regression-square", "hindsight-square"),
          log_growth_square, "> 0", "log ratio of squared misfits"),
    Claim("C3.kl", "online regression regret (KL loss) follows a log T + b rather than "
          "a sqrt(T) + b", "O(log T)", ("regression-kl", "hindsight-kl"),
          log_growth_kl, "> 0", "log ratio of squared misfits"),
    Claim("C3.perturb", "the perturbation lowers the regression regret (square loss)",
          "what makes O(log T) possible",
          ("regression-square", "regression-square-plain", "hindsight-square"),
          regression_perturbed, "< 0", "relative"),
    Claim("A.fast", "the perturbation lowers NeuFastCB's regret, mean over the three",
          "not ablated", _replay("neu-fast", "neu-fast-plain"), fast_perturbed, "< 0",
          "mistakes a round"),
    Claim("A.square", "the perturbation lowers NeuSquareCB's regret, mean over the three",
          "not ablated", _replay("neu-square", "neu-square-plain"), square_perturbed, "< 0",
          "mistakes a round"),
    Claim("C4.orthogonal", "the log det in the bounds of NeuralUCB and NeuralTS grows like T "
          "on orthogonal contexts", "Ω(T)", ("dimension-orthogonal",), growth_orthogonal,
          "> 0.9", "exponent"),
    Claim("C4.random", "and on random contexts of high dimension", "Ω(T)",
          ("dimension-random",), growth_random, "> 0.9", "exponent"),
)  # fmt: skip

COLOURS: dict[str, int] = dict(zip((*NEURAL, "ee-net"), (0, 5, 1, 4, 2, 6, 3), strict=True))
SHORT = {"digits-8x8": "digits", "satellite": "satellite", "letter": "letters"}


def draw_regret(traces: Traces) -> MatplotlibFigure:
    tables = played(traces)
    figure, axes = style.figure(
        1, len(tables), width=max(3.8 * len(tables), 6), height=3.9, squeeze=False
    )
    axes = axes[0]
    for ax, data in zip(axes, tables, strict=True):
        for method in (*NEURAL, "ee-net", "linear-fast", "kernel-ucb"):
            arm = name(data, "replay", method)
            if arm not in traces:
                continue
            colour = style.colours[COLOURS[method]] if method in COLOURS else "black"
            line = {"linear-fast": "--", "kernel-ucb": ":"}.get(method, "-")
            band(ax, traces[arm], colour, line, LABELS[method])
        ax.set(title=SHORT[data], xlabel="rounds", xlim=(0, None), ylim=(0, None))
    axes[0].set_ylabel("mistakes so far")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5 if len(tables) > 1 else 3,
    )
    return figure


def played(traces: Traces) -> list[str]:
    """Tables of which there are all the traces that its curves need."""
    return [
        d for d in REAL if all(arm in traces for arm in _replay(*NEURAL[:2], *CITED, data=(d,)))
    ]


def band(ax: Axes, trace: xr.Dataset, colour: str, line: str, label: str) -> None:
    rounds, regret = trace["round"].values[0], trace.regret.values
    ax.plot(rounds, regret.mean(0), line, color=colour, label=label)
    ax.fill_between(rounds, regret.min(0), regret.max(0), color=colour, alpha=0.12, linewidth=0)


def draw_final(traces: Traces) -> MatplotlibFigure:
    """Regret a round at the end, every method on every table, with and without replay."""
    methods, tables = (*NEURAL, *OTHERS[1:]), played(traces)
    figure, axes = style.figure(
        1, len(tables), width=max(3.8 * len(tables), 6), height=3.9, sharey=True, squeeze=False
    )
    axes = axes[0]
    for ax, data in zip(axes, tables, strict=True):
        for training, colour, shift in (("replay", 0, 0.0), ("online", 1, -0.28)):
            seen = [(i, traces[name(data, training, m)]) for i, m in enumerate(methods)
                    if name(data, training, m) in traces]  # fmt: skip
            for i, trace in seen:
                values = mistakes(trace)
                ax.plot(values, np.full(len(values), shift - i), ".", markersize=4, alpha=0.6,
                        color=style.colours[colour])  # fmt: skip
                ax.plot([values.mean()], [shift - i], "|", markersize=11, markeredgewidth=2,
                        color=style.colours[colour])  # fmt: skip
        ax.set(title=SHORT[data], xlabel="mistakes a round")
        ax.margins(x=0.08)
    axes[0].set_yticks(-np.arange(len(methods)), [LABELS[m] for m in methods])
    axes[0].plot([], [], ".", color=style.colours[0], label="replay (or exact update)")
    axes[0].plot([], [], ".", color=style.colours[1], label="one step a round")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def draw_exploration(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2, width=9.0, height=3.6)
    for method in ("neu-fast", "neu-square", "neural-ts", "neural-epsilon"):
        trace, colour = traces[name("digits-8x8", "replay", method)], style.colours[COLOURS[method]]
        rounds = trace["round"].values[0]
        rate = np.diff(trace.explored.values.mean(0)) / np.diff(rounds)
        left.plot((rounds[1:] + rounds[:-1]) / 2, rate, color=colour, label=LABELS[method])
        last = trace.isel(step=-1).sum("seed")
        counts, predicted, observed = (last[n].values for n in ("counts", "predicted", "observed"))
        said = counts > 20
        right.plot(
            predicted[said] / counts[said], observed[said] / counts[said], "o-", markersize=4,
            color=colour,
        )  # fmt: skip
    right.plot([0, 1], [0, 1], "--", linewidth=1, color="black")
    left.set(xlabel="rounds", ylabel="probability not on the likeliest action", ylim=(0, None),
             title="Exploration on digits")  # fmt: skip
    right.set(xlabel="predicted loss of the played action", ylabel="observed loss, mean",
              title="Calibration")  # fmt: skip
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_ablation(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2, width=9.5, height=3.5)
    strengths = (0.0, 0.001, 0.01, 0.1)
    for method in NEURAL[:2]:
        colour = style.colours[COLOURS[method]]
        arms = [name("digits-8x8", "online", method) if s == 0.001 else f"strength-{s:g}/{method}"
                for s in strengths]  # fmt: skip
        values = np.stack([mistakes(traces[arm]) for arm in arms])
        left.plot(range(4), values.mean(1), "o-", color=colour, label=LABELS[method])
        left.plot(range(4), values, ".", color=colour, alpha=0.4, markersize=4)
    left.set_xticks(range(4), [f"{s:g}" for s in strengths])
    left.set(xlabel="strength of the perturbation $c_p m^{-1/4}$ (8 draws)",
             ylabel="mistakes a round", ylim=(0, None), title="Digits, one step a round")  # fmt: skip
    left.legend(loc="lower left")
    arms = {"none": "strength-0/neu-fast", "1 draw": "draws-1", "8 draws": "strength-0.01/neu-fast",
            "32 draws": "draws-32", "8, redrawn\neach round": "renewed"}  # fmt: skip
    arms = {label: arm for label, arm in arms.items() if arm in traces}
    for i, arm in enumerate(arms.values()):
        dots(right, i, mistakes(traces[arm]), style.colours[COLOURS["neu-fast"]])
    right.set_xticks(range(len(arms)), list(arms))
    right.set(ylim=(0, None), title="NeuFastCB at strength 0.01", xlabel="draws of the signs")
    return figure


def draw_noise(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure(width=4.8, height=3.4)
    levels = (0.0, *(q for q in NOISES if f"noise-{q:g}/neu-fast" in traces))
    gains = np.stack([gain_at(traces, q) for q in levels])
    ax.plot(levels, gains, ".", color=style.colours[0], alpha=0.5)
    ax.plot(levels, gains.mean(1), "o-", color=style.colours[0])
    ax.axhline(0, color=style.colours[6], linewidth=1)
    ax.set(xlabel="share of flipped rewards", ylabel="mistakes a round saved",
           title="What the KL loss saves over the square loss")  # fmt: skip
    return figure


def draw_regression(traces: Traces) -> MatplotlibFigure:
    figure, axes = style.figure(1, 3, width=12.5, height=3.8)
    for ax, loss in zip(axes[:2], ("square", "kl"), strict=True):
        t = traces[f"hindsight-{loss}"].step.values[1:].astype(float)
        for suffix, colour, label in (("", 0, "perturbed, 8 draws"), ("-plain", 1, "plain")):
            regret = regression_regret(traces, loss, suffix)
            ax.plot(t, regret.mean(0), "o-", color=style.colours[colour], label=label)
            ax.fill_between(t, regret.min(0), regret.max(0), alpha=0.15, linewidth=0,
                            color=style.colours[colour])  # fmt: skip
        mean, fine = regression_regret(traces, loss).mean(0), np.geomspace(t[0], t[-1], 100)
        for shape, line, label in ((np.log, "--", "a log T + b"), (np.sqrt, ":", "a √T + b")):
            a, b = np.polyfit(shape(t), mean, 1)
            ax.plot(fine, a * shape(fine) + b, line, color="black", linewidth=1.2, label=label)
        ax.set(xlabel="rounds T", xscale="log", title=f"{'KL' if loss == 'kl' else 'Square'} loss")
    arms = {"none": "-plain", "1 draw": "-draws-1", "8 draws": "-draws-8", "32 draws": "-draws-32",
            "redrawn": "-renewed"}  # fmt: skip
    arms = {label: arm for label, arm in arms.items() if f"regression-kl{arm}" in traces}
    for i, suffix in enumerate(arms.values()):
        dots(axes[2], i, regression_regret(traces, "kl", suffix)[:, -1], style.colours[0])
    axes[2].set_xticks(range(len(arms)), list(arms), fontsize=8.5)
    axes[2].set(title="KL loss, strength 0.01, at the end", ylim=(0, None))
    axes[0].set_ylabel("regret to the best network in hindsight")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def draw_order(traces: Traces) -> MatplotlibFigure:
    """Blocks of clusters beside the plain shuffle."""
    figure, ax = style.figure(width=5.6, height=4.0)
    groups = {
        "shuffled": {m: name("satellite", "replay", m) for m in NEURAL},
        "in blocks of clusters": {m: f"clusters/{m}" for m in NEURAL},
    }
    draw_groups(ax, traces, groups)
    ax.set(ylabel="mistakes a round", title="Order of the rows (satellite)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_synthetic(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure(width=5.6, height=4.0)
    labels = dict(zip(SYNTHETIC, ("h1 square", "h2 quadratic form", "h3 cosine"), strict=True))
    draw_groups(ax, traces, {labels[h]: {m: f"{h}/{m}" for m in NEURAL} for h in SYNTHETIC})
    ax.set(ylabel="regret a round", title="Synthetic rewards")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_groups(ax: Axes, traces: Traces, groups: dict[str, dict[str, str]]) -> None:
    """Regret a round of each method, those of a group of arms side by side."""
    ran = [m for m in NEURAL if all(arms[m] in traces for arms in groups.values())]
    for i, method in enumerate(ran):
        colour = style.colours[COLOURS[method]]
        for x, arms in enumerate(groups.values()):
            dots(ax, x + 0.12 * (i - (len(ran) - 1) / 2), mistakes(traces[arms[method]]), colour)
        ax.plot([], [], "o", markersize=4, color=colour, label=LABELS[method])
    ax.set_xticks(range(len(groups)), list(groups))


def dots(ax: Axes, x: float, values: np.ndarray, colour: str) -> None:
    ax.plot(np.full(len(values), x), values, ".", color=colour, alpha=0.4, markersize=4)
    ax.plot([x], [values.mean()], "_", color=colour, markersize=9, markeredgewidth=2.2)


def draw_dimension(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure(width=4.8, height=3.6)
    for i, kind in enumerate(KINDS):
        trace = traces[f"dimension-{kind}"].sel(step=traces[f"dimension-{kind}"].step > 0)
        slope = growth(traces[f"dimension-{kind}"]).mean()
        label = {"digits-8x8": "digits (64 pixels)"}.get(kind, f"{kind} (800 dimensions)")
        ax.plot(trace.step, trace.log_det.mean("seed"), ("-", "--", "-")[i],
                label=f"{label}: exponent {slope:.2f}")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="contexts T", ylabel="log det(I + H)",
           title="The dimension in others' bounds")  # fmt: skip
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="upper left")
    return figure


FIGURES = (
    Figure("regret", "Mistakes against rounds on tables played as bandits, networks with "
           "replay; bands from the lowest to the highest seed.", draw_regret,
           _replay(*NEURAL[:2], *CITED, data=REAL[:1])),
    Figure("final", "Mistakes a round at the end, one dot a seed.", draw_final,
           _replay(*NEURAL[:2], *CITED, data=REAL[:1])),
    Figure("exploration", "How much is explored, and how well losses are predicted.",
           draw_exploration, _replay("neu-fast", "neu-square", "neural-ts", "neural-epsilon",
                                     data=REAL[:1])),
    Figure("ablation", "Without the perturbation, with more of it, with other draws.",
           draw_ablation, (*(f"strength-{s:g}/{m}" for s in STRENGTHS for m in NEURAL[:2]),
                           "draws-1",
                           *(name("digits-8x8", "online", m) for m in NEURAL[:2]))),
    Figure("noise", "The KL loss against the square loss as rewards are flipped (digits).",
           draw_noise, (*(f"noise-{q:g}/{m}" for q in NOISES[-1:] for m in NEURAL[:2]),
                        *_replay(*NEURAL[:2], data=REAL[:1]))),
    Figure("order", "An order that is not i.i.d.", draw_order,
           (*(f"clusters/{m}" for m in (*NEURAL[:2], *CITED)),
            *_replay(*NEURAL[:2], *CITED, data=REAL[1:2]))),
    Figure("synthetic", "Synthetic rewards.", draw_synthetic,
           tuple(f"{h}/{m}" for h in SYNTHETIC for m in ("neu-fast", *CITED))),
    Figure("regression", "Regret of online regression with uniform actions on digits, and what "
           "fits it.", draw_regression,
           tuple(a for k in ("square", "kl")
                 for a in (f"regression-{k}", f"regression-{k}-plain", f"hindsight-{k}"))
           + tuple(f"regression-kl-{s}" for s in ("draws-1", "draws-8"))),
    Figure("dimension", "log det(I + H) of the tangent kernel against the number of contexts.",
           draw_dimension, tuple(f"dimension-{k}" for k in KINDS)),
)  # fmt: skip

MORE_ARMS = ("heads", "renewed", "draws-32", "noise-0.05", "regression-kl-renewed",
             "regression-kl-draws-32")  # fmt: skip
PLAIN = ("neu-fast-plain", "neu-square-plain")
QUICK = (
    *_replay(*NEURAL, *PLAIN, *OTHERS[1:], data=REAL[:1]),
    *(name("digits-8x8", "online", m) for m in NEURAL[:2]),
    *(arm for arm in ARMS if not arm.startswith((*REAL, *MORE, *MORE_ARMS, "clusters"))
      and arm not in [f"{h}/{m}" for h in SYNTHETIC for m in ("neu-square", "linucb")]),
)  # fmt: skip
TABLES = (
    *_replay(*NEURAL, *PLAIN), *_replay(*OTHERS[2:], data=REAL[:2]),
    *(name(d, "online", m) for d in ONLINE for m in NEURAL),
    *(f"clusters/{m}" for m in (*NEURAL[:2], *CITED)),
)  # fmt: skip
SMOKE = (
    *_replay("neu-fast", *CITED, data=REAL[:1]),
    *(f"dimension-{kind}" for kind in KINDS),
)  # fmt: skip


AT_QUICK = {
    "hidden": 50, "rounds": 1200, "limit": 200, "memory": 500, "contexts": 800, "width": 1024,
}  # fmt: skip


def _small(**settings: Any) -> dict[str, Any]:
    """Settings of a budget: those of all arms, and those of the log det arms."""
    dimension = {"rounds": settings.pop("contexts"), "hidden": settings.pop("width")}
    return {
        "settings": settings,
        "arm_settings": {f"dimension-{kind}": dimension for kind in KINDS},
    }


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
        "smoke": Budget(2, SMOKE, **_small(
            hidden=8, rounds=30, limit=20, memory=20, observations=3, contexts=60, width=32)),
        "quick": Budget(6, QUICK, **_small(**AT_QUICK)),
        "tables": Budget(6, TABLES, **_small(**AT_QUICK)),
        "full": Budget(10, **_small(contexts=800, width=1024)),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="scikit-learn digits; synthetic h1, h2, h3; in the tables budget Satellite and "
    "LetterRecognition of mlbench; at full its Vowel, Vehicle, DNA and Shuttle, and MNIST-5k",
    watch="regret",
    notes="quick plays digits and the synthetic functions, tables the other tables, both 1,200 rounds "
    "with 50 hidden units and trainings of at most 200 steps, and every "
    "method has the best step size and exploration of eight on seeds 100 and 101 at this scale; the "
    "paper's settings are 10,000 rounds, 100 units and 2,000 steps (full, with the same settings)",
)  # fmt: skip
