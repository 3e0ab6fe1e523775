"""From predictions to exact action probabilities: every rule over an action set that may vary.

`values` [..., K] are predicted rewards, or losses with `feedback="loss"`; `allowed` [..., K] says
which actions there are. Each rule gives probabilities [..., K] that are zero outside the set and sum
to one within it, so that they can be logged as propensities. They raise `ValueError` for settings out of
range and for a row that allows no action, where these are concrete (what is traced passes unchecked).
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Feedback = Literal["reward", "loss"]


def check_setting(
    name: str, value: Any, low: float = 0.0, high: float = np.inf, *, above: bool = False
) -> None:
    """Raises `ValueError` for a setting outside [low, high], or (low, high] with `above`, and for one
    that is not finite; what is traced passes."""
    if isinstance(value, Tracer) or not isinstance(
        value, int | float | np.ndarray | np.generic | jax.Array
    ):
        return
    values = np.asarray(value)
    good = np.isfinite(values) & (values <= high) & (values > low if above else values >= low)
    if not good.all():
        wanted = f"above {low:g}" if above else f"at least {low:g}"
        wanted += f" and at most {high:g}" if np.isfinite(high) else ""
        raise ValueError(f"{name} must be a finite number {wanted}, not {values[~good].flat[0]:g}")


def unplayed(rule: Any, strength: float) -> Any:
    """A rule of one number with another number, in range or not: it is carried, so that rules share a
    program, but another one is played."""
    return eqx.tree_at(lambda r: jax.tree.leaves(r)[0], rule, strength)


def uniform(allowed: Bool[Array, "*b k"]) -> Float[Array, "*b k"]:
    """The same probability for every allowed action."""
    _check_allowed(allowed)
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
    check_setting("epsilon", epsilon, 0.0, 1.0)
    return with_floor(greedy(values, allowed, feedback), allowed, epsilon)


def softmax(
    values: Float[Array, "*b k"], allowed: Bool[Array, "*b k"],
    temperature: Float[Array, ""] | float, feedback: Feedback = "reward",
) -> Float[Array, "*b k"]:  # fmt: skip
    """Boltzmann exploration: probabilities in proportion to exp(reward / temperature)."""
    check_setting("temperature", temperature, above=True)
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
    check_setting("gamma", gamma)
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
    check_setting("gamma", gamma)
    check_setting("least", least, 0.0, 0.5, above=True)
    clipped = _losses(jnp.clip(losses, least, 1 - least), allowed, "loss")
    best = clipped.min(-1, keepdims=True)
    count = allowed.sum(-1, keepdims=True)
    return _rest_to_best(best / (count * best + gamma * (clipped - best)), clipped, allowed)


def with_floor(
    probabilities: Float[Array, "*b k"], allowed: Bool[Array, "*b k"],
    floor: Float[Array, ""] | float,
) -> Float[Array, "*b k"]:  # fmt: skip
    """Mix with the uniform rule, so that no allowed action has less than `floor` / K."""
    check_setting("floor", floor, 0.0, 1.0)
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
    if values.shape[-1] != allowed.shape[-1]:
        raise ValueError(f"{values.shape[-1]} predictions do not fit {allowed.shape[-1]} actions")
    _check_allowed(allowed)
    return jnp.where(allowed, -values if feedback == "reward" else values, jnp.inf)


def _check_allowed(allowed: Array) -> None:
    if isinstance(allowed, Tracer):
        return
    none = ~np.asarray(allowed).any(-1)
    if none.any():
        raise ValueError(
            f"row {int(np.flatnonzero(none)[0])} allows no action: give it at least one"
        )


def _rest_to_best(others: Array, losses: Array, allowed: Array) -> Array:
    best = jax.nn.one_hot(losses.argmin(-1), losses.shape[-1], dtype=others.dtype)
    others = jnp.where(allowed, others, 0.0) * (1 - best)
    return others + best * (1 - others.sum(-1, keepdims=True))
