"""Methods that keep predictions unsure, so that minima are wide: CPR."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from latebloom.methods.forgetting.around import Around, Kept
from latebloom.methods.forgetting.method import Lesson, Losses, check, mean_of


class CPR(Around):
    """Classifier projection regularisation: the host's losses, less `strength` times the mean entropy of the
    predictions on the new batch, in nats, among the classes that compete.

    Source: Cha et al. 2021 (arXiv 2006.07326), Eq. 3, which adds it to regularising methods.
    """

    strength: Float[Array, ""] | float = 0.5

    def __check_init__(self) -> None:
        check(self, "strength")

    def losses(self, model: Any, own: Kept, lesson: Lesson) -> Losses:
        # Before the host's own pass, whose statistics are those that a batch normalisation keeps.
        logits = lesson.logits(model, lesson.new.x)
        unsure = mean_of(entropy(logits, lesson.new.allowed), lesson.new.there)
        found = super().losses(model, own, lesson)
        return found._replace(stability=found.stability - self.strength * unsure)


def entropy(
    logits: Float[Array, "batch classes"], allowed: Bool[Array, "batch classes"]
) -> Float[Array, " batch"]:
    """Entropy of the softmax among the allowed classes, in nats."""
    log_p = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
    p = jnp.exp(log_p)
    return -jnp.where(allowed, p * jnp.where(allowed, log_p, 0), 0).sum(axis=-1)
