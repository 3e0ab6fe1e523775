"""Interventions on training that test what causes delayed generalisation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.core.training import Supervised


def without_true_class_gradient(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], when: Bool[Array, ""]
) -> Float[Array, "batch classes"]:
    """The same logits; while `when` is true no gradient flows through the true class's.

    It does on purpose what softmax collapse does by rounding (Prieto et al. 2025, App. B.1).
    """
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(true & when, jax.lax.stop_gradient(logits), logits)


class Interruptible(Supervised):
    """Supervised learning in which the true class loses its gradient from step `freeze_at` on.

    It never does where that is negative. `supervised`: of `Supervised`.
    """

    freeze_at: Int[Array, ""]

    def __init__(self, freeze_at: int, **supervised: Any):
        super().__init__(**supervised)
        self.freeze_at = jnp.int32(freeze_at)

    def objective(
        self, outputs: Float[Array, "batch classes"], labels: Int[Array, " batch"], step: Array
    ) -> Float[Array, ""]:
        frozen = (self.freeze_at >= 0) & (step >= self.freeze_at)
        return super().objective(without_true_class_gradient(outputs, labels, frozen), labels, step)
