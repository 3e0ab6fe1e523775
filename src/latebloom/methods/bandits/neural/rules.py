"""From predicted losses, and perhaps their widths, to action probabilities."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.bandits import exploration

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


class Uniform(eqx.Module):
    """Every action with the same probability."""

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.uniform(allowed)


class Greedy(eqx.Module):
    """The action with the smallest predicted loss."""

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.greedy(losses, allowed, "loss")


class EpsilonGreedy(eqx.Module):
    """The smallest predicted loss, and with probability `epsilon` any action."""

    epsilon: float

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.epsilon_greedy(losses, allowed, self.epsilon, "loss")


class InverseGap(eqx.Module):
    """SquareCB's weights with γ_t = `gamma` (t + 1)^`growth`."""

    gamma: float
    growth: float = 0.5

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        gamma = self.gamma * (round + 1.0) ** self.growth
        return exploration.inverse_gap(losses, allowed, gamma, "loss")


class SmallLossInverseGap(eqx.Module):
    """FastCB's weights, for losses in [0, 1], with γ_t = `gamma` (t + 1)^`growth`."""

    gamma: float
    growth: float = 0.5

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        gamma = self.gamma * (round + 1.0) ** self.growth
        return exploration.small_loss_inverse_gap(losses, allowed, gamma)


class LowerBound(eqx.Module):
    """The smallest predicted loss minus `nu` widths: the optimism of UCB, told in losses."""

    nu: float

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.greedy(losses - self.nu * _needed(widths), allowed, "loss")


class Thompson(eqx.Module):
    """Each action with the probability that its draw from N(loss, (`nu` width)²) is the smallest.

    The probabilities are integrals over one draw, by Gauss-Hermite quadrature, so that the policy's
    propensities are known.
    """

    nu: float

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return probability_of_least(losses, self.nu * _needed(widths), allowed)


def probability_of_least(
    means: Float[Array, " k"], deviations: Float[Array, " k"], allowed: Bool[Array, " k"]
) -> Float[Array, " k"]:
    """The probability of each of k independent Gaussian variables to be the smallest."""
    deviations = jnp.maximum(deviations, 1e-6)
    nodes, weights = jnp.asarray(NODES, jnp.float32), jnp.asarray(NODE_WEIGHTS, jnp.float32)
    draws = means[:, None] + deviations[:, None] * nodes  # [k, node]
    above = ndtr((means - draws[..., None]) / deviations)  # [k, node, other]
    others = allowed & ~jnp.eye(len(means), dtype=bool)[:, None]
    least = jnp.where(others, above, 1.0).prod(-1) @ weights
    least = jnp.where(allowed, least, 0.0)
    return least / least.sum()


class Choice(eqx.Module):
    """One of several rules, by its number: runs that differ in it share one compiled program."""

    rules: tuple[Rule, ...]
    number: Int[Array, ""]

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return jax.lax.switch(
            self.number, [lambda rule=rule: rule(losses, widths, allowed, round) for rule in self.rules]
        )  # fmt: skip


Rule = (
    Uniform
    | Greedy
    | EpsilonGreedy
    | InverseGap
    | SmallLossInverseGap
    | LowerBound
    | Thompson
    | Choice
)


def _needed(widths: Array | None) -> Array:
    if widths is None:
        raise ValueError("this rule needs widths: give the oracle a `ridge`")
    return widths
