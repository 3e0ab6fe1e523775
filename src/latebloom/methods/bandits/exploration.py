"""From predictions to exact action probabilities: every rule over an action set that may vary.

`values` [..., K] are predicted rewards, or losses with `feedback="loss"`; `allowed` [..., K] says
which actions there are. Each rule gives probabilities [..., K] that are zero outside the set and sum
to one within it, so that they can be logged as propensities.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Feedback = Literal["reward", "loss"]


def uniform(allowed: Bool[Array, "*b k"]) -> Float[Array, "*b k"]:
    """The same probability for every allowed action."""
    mask = allowed.astype(jnp.float32)
    return mask / mask.sum(-1, keepdims=True)


def greedy(
    values: Float[Array, "*b k"], allowed: Bool[Array, "*b k"], feedback: Feedback = "reward"
) -> Float[Array, "*b k"]:
    """All probability on the best prediction; ties go to the first action."""
    best = _losses(values, allowed, feedback).argmin(-1)
    return jax.nn.one_hot(best, values.shape[-1], dtype=jnp.float32)


def epsilon_greedy(
    values: Float[Array, "*b k"], allowed: Bool[Array, "*b k"], epsilon: Float[Array, ""] | float,
    feedback: Feedback = "reward",
) -> Float[Array, "*b k"]:  # fmt: skip
    """The best prediction, and with probability epsilon a uniformly drawn action."""
    return with_floor(greedy(values, allowed, feedback), allowed, epsilon)


def softmax(
    values: Float[Array, "*b k"], allowed: Bool[Array, "*b k"],
    temperature: Float[Array, ""] | float, feedback: Feedback = "reward",
) -> Float[Array, "*b k"]:  # fmt: skip
    """Boltzmann exploration: probabilities in proportion to exp(reward / temperature)."""
    return jax.nn.softmax(-_losses(values, allowed, feedback) / temperature, axis=-1)


def inverse_gap(
    values: Float[Array, "*b k"], allowed: Bool[Array, "*b k"], gamma: Float[Array, ""] | float,
    feedback: Feedback = "reward",
) -> Float[Array, "*b k"]:  # fmt: skip
    """Inverse-gap weighting of SquareCB (Foster and Rakhlin 2020, arXiv:2002.04926, algorithm 1).

    p_a = 1 / (K + gamma gap_a) for every allowed action but the best, which takes the rest; the
    best is never played with less than 1/K. `gamma` is of the order of 1/gap: much smaller and the
    rule is uniform, much larger and it is greedy.
    """
    losses = _losses(values, allowed, feedback)
    gaps = losses - losses.min(-1, keepdims=True)
    count = allowed.sum(-1, keepdims=True)
    return _rest_to_best(1 / (count + gamma * gaps), losses, allowed)


def small_loss_inverse_gap(
    losses: Float[Array, "*b k"], allowed: Bool[Array, "*b k"], gamma: Float[Array, ""] | float,
    least: float = 1e-4,
) -> Float[Array, "*b k"]:  # fmt: skip
    """Inverse-gap weighting of FastCB (Foster and Krishnamurthy 2021, arXiv:2107.02237).

    p_a = l_b / (K l_b + gamma (l_a - l_b)) with b the smallest predicted loss: exploration vanishes
    where the best action hardly loses. `losses` are in [0, 1] and are clipped to
    [`least`, 1 - `least`]; for predicted rewards give 1 - reward.
    """
    clipped = _losses(jnp.clip(losses, least, 1 - least), allowed, "loss")
    best = clipped.min(-1, keepdims=True)
    count = allowed.sum(-1, keepdims=True)
    return _rest_to_best(best / (count * best + gamma * (clipped - best)), clipped, allowed)


def with_floor(
    probabilities: Float[Array, "*b k"], allowed: Bool[Array, "*b k"],
    floor: Float[Array, ""] | float,
) -> Float[Array, "*b k"]:  # fmt: skip
    """Mix with the uniform rule, so that no allowed action has less than `floor` / K."""
    return (1 - floor) * probabilities + floor * uniform(allowed)


def draw(
    key: PRNGKeyArray, probabilities: Float[Array, " k"]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """An action drawn from the probabilities, and its propensity.

    By the inverse of the distribution function, so that policies that share a key and nearly agree
    nearly always draw the same action.
    """
    total = jnp.cumsum(probabilities)
    point = jax.random.uniform(key) * total[-1]
    action = (total <= point).sum(dtype=jnp.int32)
    # Rounding may put the point at the very end, behind actions of probability zero.
    last = len(total) - 1 - jnp.argmax(probabilities[::-1] > 0).astype(jnp.int32)
    action = jnp.minimum(action, last)
    return action, probabilities[action]


def _losses(values: Array, allowed: Array, feedback: Feedback) -> Array:
    """Losses, infinite outside the action set."""
    return jnp.where(allowed, -values if feedback == "reward" else values, jnp.inf)


def _rest_to_best(others: Array, losses: Array, allowed: Array) -> Array:
    best = jax.nn.one_hot(losses.argmin(-1), losses.shape[-1], dtype=others.dtype)
    others = jnp.where(allowed, others, 0.0) * (1 - best)
    return others + best * (1 - others.sum(-1, keepdims=True))
