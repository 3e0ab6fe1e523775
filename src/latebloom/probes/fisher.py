"""Diagonal of the Fisher information of a network's parameters, with the labels that there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.training import gradients, trainable


def fisher_diagonal(
    losses: Callable[[Any, Any], Float[Array, " batch"]], model: Any, batches: Any,
    how: Literal["example", "batch"] = "example",
) -> Any:  # fmt: skip
    """Mean square of the gradients of a loss, a tree like `trainable(model)` of single precision at least.

    - `losses(model, batch)`: the loss of each example, such as minus the log of its label's probability.
    - `batches`: a tree of arrays [number, batch, ...].
    - `how`: of each example's gradient, the empirical Fisher information; or of the gradient of each
      batch's mean, which is cheap, common in code, and smaller by about the size of the batch.
    """

    def square(batch: Any) -> Any:
        slopes, _ = gradients(lambda m: losses(m, batch).mean(), model)
        return jax.tree.map(lambda x: jnp.square(x.astype(_wide(x))), slopes)

    if how == "example":
        batches = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), batches)
    elif how != "batch":
        raise ValueError(f"how must be 'example' or 'batch', not {how!r}")
    number = jax.tree.leaves(batches)[0].shape[0]

    def one(total: Any, batch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, square(batch)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x)), trainable(model))
    total, _ = jax.lax.scan(one, zeros, batches)
    return jax.tree.map(lambda x: x / number, total)


def _wide(x: Array) -> Any:
    """A precision in which a square is no zero and a sum does not stand still."""
    return jnp.promote_types(x.dtype, jnp.float32)
