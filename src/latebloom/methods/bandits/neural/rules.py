"""From predicted losses, and perhaps their widths, to action probabilities."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.exploration import check_setting

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(4)
# In deviations: between these points around every mean, all densities are smooth.
BREAKS = np.array([-6.0, -4.0, -2.8, -1.9, -1.2, -0.6, 0.0, 0.6, 1.2, 1.9, 2.8, 4.0, 6.0])


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

    def __check_init__(self) -> None:
        check_setting("epsilon", self.epsilon, 0.0, 1.0)

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.epsilon_greedy(losses, allowed, self.epsilon, "loss")


class InverseGap(eqx.Module):
    """SquareCB's weights with γ_t = `gamma` (t + 1)^`growth`."""

    gamma: float
    growth: float = 0.5

    def __check_init__(self) -> None:
        check_setting("gamma", self.gamma)
        check_setting("growth", self.growth)

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        gamma = self.gamma * (round + 1.0) ** self.growth
        return exploration.inverse_gap(losses, allowed, gamma, "loss")


class SmallLossInverseGap(eqx.Module):
    """FastCB's weights, for losses in [0, 1], with γ_t = `gamma` (t + 1)^`growth`."""

    gamma: float
    growth: float = 0.5

    def __check_init__(self) -> None:
        check_setting("gamma", self.gamma)
        check_setting("growth", self.growth)

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        gamma = self.gamma * (round + 1.0) ** self.growth
        return exploration.small_loss_inverse_gap(losses, allowed, gamma)


class LowerBound(eqx.Module):
    """The smallest predicted loss minus `nu` widths: the optimism of UCB, told in losses."""

    nu: float

    def __check_init__(self) -> None:
        check_setting("nu", self.nu)

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return exploration.greedy(losses - self.nu * _needed(widths), allowed, "loss")


class Thompson(eqx.Module):
    """Each action with the probability that its draw from N(loss, (`nu` width)²) is the smallest.

    The probabilities are integrals over one draw, so that the policy's propensities are known.
    """

    nu: float

    def __check_init__(self) -> None:
        check_setting("nu", self.nu)

    def __call__(
        self, losses: Array, widths: Array | None, allowed: Array, round: Array
    ) -> Float[Array, " k"]:
        return probability_of_least(losses, self.nu * _needed(widths), allowed)


def probability_of_least(
    means: Float[Array, " k"], deviations: Float[Array, " k"], allowed: Bool[Array, " k"]
) -> Float[Array, " k"]:
    """The probability of each of k independent Gaussian variables to be the smallest.

    p_a = ∫ density_a Π_b≠a P(b > t) dt, by Gauss-Legendre between break points that all variables have
    around their means: however different their deviations, none is stepped over. Good to 1e-4.
    """
    # Centred first: means far from 0 would leave float32 no digits for small deviations.
    means = means - jnp.where(allowed, means, jnp.inf).min()
    deviations = jnp.where(allowed, jnp.maximum(deviations, 1e-6), 1.0)
    means = jnp.where(allowed, means, 0.0)
    breaks = jnp.asarray(BREAKS, jnp.float32)
    ends = jnp.sort((means[:, None] + deviations[:, None] * breaks).reshape(-1))
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    nodes = (middle[:, None] + half[:, None] * jnp.asarray(NODES, jnp.float32)).reshape(-1)
    weights = (half[:, None] * jnp.asarray(NODE_WEIGHTS, jnp.float32)).reshape(-1)
    z = (nodes - means[:, None]) / deviations[:, None]  # [k, node]
    above = jnp.where(allowed[:, None], log_ndtr(-z), 0.0)
    log_density = -(z**2) / 2 - jnp.log(deviations)[:, None]
    least = jnp.exp(log_density + above.sum(0) - above) @ weights
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
