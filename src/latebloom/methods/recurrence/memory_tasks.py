"""Binary sequences to be remembered: N-parity and N-delayed match to sample.

Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), section 2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

TASKS = ("parity", "dms")


def draw_bits(key: PRNGKeyArray, task: str, batch: int, length: int) -> Float[Array, "batch length"]:  # fmt: skip
    """Bits of 0 and 1: of "parity" with a probability of their own for each sequence, from U(0, 1); of "dms" with 1/2.

    Raises `ValueError` for another task.
    """
    _check(task)
    one, two = jax.random.split(key)
    p = jax.random.uniform(one, (batch, 1)) if task == "parity" else 0.5
    return (jax.random.uniform(two, (batch, length)) < p).astype(jnp.float32)


def answers(bits: Float[Array, "batch length"], task: str, horizons: Int[Array, " n"]) -> Int[Array, "batch n"]:  # fmt: skip
    """For each horizon N: the parity of the last N bits; or whether the N-th from the end is the last. N from 1 to length.

    Raises `ValueError` for another task.
    """
    _check(task)
    backwards = bits[:, ::-1]
    if task == "parity":
        return jnp.cumsum(backwards, axis=1).astype(jnp.int32)[:, horizons - 1] % 2
    return (backwards[:, horizons - 1] == backwards[:, :1]).astype(jnp.int32)


def draw_length(key: PRNGKeyArray, horizon: Int[Array, ""]) -> Int[Array, ""]:
    """How many steps a batch has whose largest horizon is N: uniform over N + 2, ..., 4 N + 1."""
    return jax.random.randint(key, (), horizon + 2, 4 * horizon + 2)


def _check(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f'task must be "parity" or "dms", not {task!r}')
