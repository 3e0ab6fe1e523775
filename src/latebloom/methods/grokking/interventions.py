"""Interventions on training that test what causes delayed generalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def without_true_class_gradient(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], when: Bool[Array, ""]
) -> Float[Array, "batch classes"]:
    """The same logits; while `when` is true no gradient flows through the true class's.

    It does on purpose what softmax collapse does by rounding (Prieto et al. 2025, App. B.1).
    """
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(true & when, jax.lax.stop_gradient(logits), logits)
