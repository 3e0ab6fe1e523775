"""The policies by name. Those that differ in their rule alone share a program: `Choice` picks the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from latebloom.methods.bandits.exploration import check_setting, unplayed
from latebloom.methods.bandits.neural.ee_net import EENet
from latebloom.methods.bandits.neural.linear import KernelRegression, LinearRegression
from latebloom.methods.bandits.neural.network import ArmNetwork
from latebloom.methods.bandits.neural.policy import OraclePolicy
from latebloom.methods.bandits.neural.regression import (
    Loss,
    NeuralRegression,
    Perturbation,
    Replay,
)
from latebloom.methods.bandits.neural.rules import (
    Choice,
    EpsilonGreedy,
    Greedy,
    InverseGap,
    LowerBound,
    SmallLossInverseGap,
    Thompson,
    Uniform,
)

NeuralName = Literal[
    "neu-fast", "neu-square", "uniform-square", "uniform-kl",
    "neural-ucb", "neural-ts", "neural-epsilon", "neural-greedy", "ee-net",
]  # fmt: skip
LinearName = Literal["linucb", "linear-square", "linear-fast", "kernel-ucb"]
# The loss of each, and which of the rules that share a program is its own.
PERTURBED: dict[str, tuple[Loss, int]] = {
    "neu-fast": ("kl", 0), "neu-square": ("square", 1),
    "uniform-kl": ("kl", 2), "uniform-square": ("square", 2),
}  # fmt: skip
WIDTHS = {"neural-greedy": 0, "neural-epsilon": 0, "neural-ucb": 1, "neural-ts": 2}
LINEAR = {"linucb": 0, "linear-square": 1, "linear-fast": 2}


def neural_policy(
    name: str, network: ArmNetwork, *, rate: float, explore: float, growth: float = 0.5,
    perturbation: Perturbation | None = None, replay: Replay | None = None, radius: float = 100.0,
) -> OraclePolicy:  # fmt: skip
    """A policy on a network trained online, or on replay where it is given.

    - "neu-fast", "neu-square" (Deb et al. 2024, arXiv:2312.07145): FastCB's rule on the KL loss and
      SquareCB's on the square loss, with γ_t = `explore` t^`growth`, on perturbed predictions;
      "uniform-kl" and "uniform-square" learn alike and play uniformly.
    - "neural-ucb", "neural-ts": `explore` is ν. "neural-epsilon": it is ε; "neural-greedy" has ε = 0.
    - "ee-net": it is the weight of the explorer.
    - `rate`: step size; `radius`: of the balls around the initial weights.

    Raises `ValueError` for another name.
    """
    if name in PERTURBED:
        loss, place = PERTURBED[name]
        oracle = NeuralRegression(network, loss, rate, 0.0, perturbation, replay, radius)
        gaps = (SmallLossInverseGap(explore, growth), InverseGap(explore, growth), Uniform())
        return OraclePolicy(oracle, _choice(gaps, place))
    if name == "ee-net":
        plain = NeuralRegression(network, "square", rate, replay=replay, radius=radius)
        return OraclePolicy(EENet(plain, explore), Greedy())
    oracle = NeuralRegression(network, "square", rate, replay=replay, radius=radius, ridge=1.0)
    epsilon = 0.0 if name == "neural-greedy" else explore
    check_setting("explore", explore, 0.0, 1.0 if name == "neural-epsilon" else np.inf)
    rules = (unplayed(EpsilonGreedy(0.0), epsilon), LowerBound(explore), Thompson(explore))
    return OraclePolicy(oracle, _choice(rules, _place(name, WIDTHS, get_args(NeuralName))))


def linear_policy(
    name: str, actions: int, inputs: int, *, ridge: float, explore: float,
    growth: float = 0.5, shared: bool = False, memory: int = 1000,
) -> OraclePolicy:  # fmt: skip
    """A policy on a linear regression (logistic for "linear-fast") or one with a kernel.

    - "linucb", "kernel-ucb": `explore` is ν; the kernel method remembers `memory` rounds.
    - "linear-square", "linear-fast": γ_t = `explore` t^`growth`.
    - `inputs`: of a context; `shared`: one regression for all actions, whose contexts differ.

    Raises `ValueError` for another name.
    """
    if name == "kernel-ucb":
        kernel = KernelRegression(actions, inputs, memory, ridge, shared)
        return OraclePolicy(kernel, LowerBound(explore))
    loss: Loss = "kl" if name == "linear-fast" else "square"
    oracle = LinearRegression(actions, inputs, ridge, loss, shared)
    rules = (LowerBound(explore), InverseGap(explore, growth), SmallLossInverseGap(explore, growth))
    return OraclePolicy(oracle, _choice(rules, _place(name, LINEAR, get_args(LinearName))))


def _place(name: str, places: Mapping[str, int], names: tuple[str, ...]) -> int:
    if name not in places:
        raise ValueError(f"there is no policy {name!r}; there are: {', '.join(names)}")
    return places[name]


def _choice(rules: tuple[Any, ...], place: int) -> Choice:
    return Choice(rules, np.int32(place))  # pyright: ignore
