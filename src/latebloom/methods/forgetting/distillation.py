"""Learning without forgetting: the network before this task says what the old classes should be."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from latebloom.core.stream import Stream
from latebloom.methods.forgetting.method import Lesson, Losses, Method, check, one_of


class LwF(Method):
    """loss(new) + strength KL(teacher || network) on the new inputs, both at a temperature.

    The teacher is the network after the last task. Probabilities are over all outputs, their divergence
    over the classes that the teacher has seen; with `over="seen"` both are over these. At the first step
    of a task both are the same network.

    Source: Li & Hoiem 2016 (arXiv 1606.09282), Eq. 2; restricted to seen classes as in De Lange et al.
    2023 (arXiv 2205.13452); there is no old head of its own for each task.
    """

    strength: Float[Array, ""] | float = 1.0
    temperature: Float[Array, ""] | float = 2.0
    over: Literal["all", "seen"] = eqx.field(static=True, default="all")

    def __check_init__(self) -> None:
        check(self, "strength")
        check(self, "temperature", above=True)
        one_of(self, "over", ("all", "seen"))

    def init(self, model: Any, stream: Stream) -> tuple[Any, Bool[Array, " classes"]]:
        return eqx.filter(model, eqx.is_array), jnp.zeros(stream.classes.shape[1], bool)

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        arrays, known = own
        teacher = eqx.combine(arrays, model)
        logits = lesson.logits(model, lesson.new.x)
        known = jnp.pad(known, (0, logits.shape[1] - len(known)))
        before = jax.lax.stop_gradient(lesson.exam(teacher, lesson.new.x))
        before, now = before / self.temperature, logits / self.temperature
        if self.over == "seen":
            apart = proper_divergence(before, now, known)
        else:
            apart = divergence(before, now, known)
        old = self.strength * jnp.where(lesson.first, 0.0, apart.mean())
        return Losses(lesson.loss(logits, lesson.new), old)

    def turn(self, model: Any, own: Any, lesson: Lesson) -> tuple[Any, Bool[Array, " classes"]]:
        return eqx.filter(model, eqx.is_array), lesson.seen


def divergence(
    teacher: Float[Array, "batch classes"], student: Float[Array, "batch classes"],
    among: Bool[Array, " classes"],
) -> Float[Array, " batch"]:  # fmt: skip
    """sum over some classes of p (log p - log q), p and q the softmax over all, in nats."""
    p, q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    return (jnp.exp(p) * jnp.where(among, p - q, 0)).sum(axis=-1)


def proper_divergence(
    teacher: Float[Array, "batch classes"], student: Float[Array, "batch classes"],
    among: Bool[Array, " classes"],
) -> Float[Array, " batch"]:  # fmt: skip
    """KL(p || q), p and q the softmax over some classes, in nats; 0 without any."""
    some = among | ~among.any()
    teacher, student = (jnp.where(some, z, -jnp.inf) for z in (teacher, student))
    return divergence(teacher, student, among)
