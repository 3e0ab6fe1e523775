"""How a retrained policy explores: from a model's prediction to exact probabilities."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.exploration import check_setting


class Prediction(NamedTuple):
    """What a model says of each action: expected reward, and perhaps its width, or several draws."""

    mean: Float[Array, "*b k"]
    width: Float[Array, "*b k"] | None = None
    draws: Float[Array, "*b m k"] | None = None


class Rule(eqx.Module):
    """Probabilities of the allowed actions; `examples` is the size of the model's training set."""

    def __call__(
        self, seen: Prediction, allowed: Bool[Array, "*b k"], examples: Float[Array, ""]
    ) -> Float[Array, "*b k"]:
        raise NotImplementedError(f"{type(self).__name__} is not callable")


class Uniform(Rule):
    """Every allowed action alike: the data collection that costs most."""

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.uniform(allowed)


class Greedy(Rule):
    """The best prediction."""

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.greedy(seen.mean, allowed)


class EpsilonGreedy(Rule):
    """The best prediction, and with probability `epsilon` any action."""

    epsilon: float = 0.1

    def __check_init__(self) -> None:
        check_setting("epsilon", self.epsilon, 0.0, 1.0)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.epsilon_greedy(seen.mean, allowed, self.epsilon)


class Softmax(Rule):
    """Boltzmann exploration at `temperature`, in units of reward."""

    temperature: float = 0.02

    def __check_init__(self) -> None:
        check_setting("temperature", self.temperature, above=True)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.softmax(seen.mean, allowed, self.temperature)


class SquareCB(Rule):
    """Inverse-gap weights at a fixed `gamma`."""

    gamma: float = 200.0

    def __check_init__(self) -> None:
        check_setting("gamma", self.gamma)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.inverse_gap(seen.mean, allowed, self.gamma)


class Falcon(Rule):
    """Inverse-gap weights with γ = sqrt(K n / `complexity`).

    The schedule of FALCON (Simchi-Levi and Xu 2020, arXiv:2003.12699, algorithm 1): K allowed actions
    and n examples behind the model; `complexity` is n times the model's expected squared error.
    """

    complexity: float = 10.0

    def __check_init__(self) -> None:
        check_setting("complexity", self.complexity, above=True)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        count = allowed.sum(-1, keepdims=True)
        gamma = jnp.sqrt(count * examples / self.complexity)
        return exploration.inverse_gap(gamma * seen.mean, allowed, 1.0)


class FastCB(Rule):
    """Inverse-gap weights for small losses, the loss being 1 - reward."""

    gamma: float = 100.0

    def __check_init__(self) -> None:
        check_setting("gamma", self.gamma)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.small_loss_inverse_gap(1 - seen.mean, allowed, self.gamma)


class UpperBound(Rule):
    """The best prediction plus `nu` widths (LinUCB)."""

    nu: float = 0.1

    def __check_init__(self) -> None:
        check_setting("nu", self.nu)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        if seen.width is None:
            raise ValueError("UpperBound needs a learner that tells widths")
        return exploration.greedy(seen.mean + self.nu * seen.width, allowed)


class OneDraw(Rule):
    """Best action of a draw that is picked at random: Thompson sampling from an ensemble.

    An action's probability is the share of draws that it is the best of, so that it is known.
    """

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        if seen.draws is None:
            raise ValueError("OneDraw needs a learner that makes draws")
        best = jnp.where(allowed[..., None, :], seen.draws, -jnp.inf).argmax(-1)
        return jax.nn.one_hot(best, allowed.shape[-1], dtype=jnp.float32).mean(-2)


class Floored(Rule):
    """Another rule mixed with the uniform one: no allowed action has less than `floor` / K."""

    rule: Rule
    floor: float = 0.05

    def __check_init__(self) -> None:
        check_setting("floor", self.floor, 0.0, 1.0)

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        return exploration.with_floor(self.rule(seen, allowed, examples), allowed, self.floor)


class Picked(Rule):
    """One of several rules, by its place: policies that differ in it share one compiled program."""

    rules: tuple[Rule, ...]
    place: Int[Array, ""] | int

    def __call__(self, seen: Prediction, allowed: Array, examples: Array) -> Array:
        branches = [partial(_call, rule) for rule in self.rules]
        return jax.lax.switch(self.place, branches, seen, allowed, examples)


def _call(rule: Rule, seen: Prediction, allowed: Array, examples: Array) -> Array:
    return rule(seen, allowed, examples)


def exploration_cost(
    probabilities: Float[Array, "n k"], values: Float[Array, "n k"], allowed: Bool[Array, "n k"]
) -> Float[Array, ""]:
    """Reward per decision given up to exploring, by the model's own `values`: Σ_a p_a (f_b - f_a)."""
    best = jnp.where(allowed, values, -jnp.inf).max(-1)
    return (best - (probabilities * jnp.where(allowed, values, 0.0)).sum(-1)).mean()


def gamma_for_cost(
    values: Float[Array, "n k"], allowed: Bool[Array, "n k"], cost: Float[Array, ""] | float,
    lowest: float = 1e-2, highest: float = 1e7,
) -> Float[Array, ""]:  # fmt: skip
    """The smallest γ whose inverse-gap weights cost at most `cost` a decision (`exploration_cost`).

    The cost falls as γ grows, so that a bisection on log γ finds it; between `lowest` and `highest`.
    """

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        weights = exploration.inverse_gap(values, allowed, jnp.exp(middle))
        dear = exploration_cost(weights, values, allowed) > cost
        return jnp.where(dear, middle, low), jnp.where(dear, high, middle)

    ends = (jnp.log(jnp.float32(lowest)), jnp.log(jnp.float32(highest)))
    return jnp.exp(jax.lax.fori_loop(0, 40, halve, ends)[1])
