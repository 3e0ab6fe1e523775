"""Distillation: the network before this task says what the old classes, or the features, should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from latebloom.core.calling import call
from latebloom.core.statistics import RunningStatistics
from latebloom.core.stream import Stream
from latebloom.methods.forgetting.method import Lesson, Losses, Method, check, one_of, wide


class LwF(Method):
    """loss(new) + strength KL(teacher || network) on the new inputs, both at a temperature.

    The teacher is the network after the last task. Probabilities are over all outputs, their divergence
    over the classes that the teacher has seen; with `over="seen"` both are over these, and with `over="each"`
    each of these is a question of its own (sigmoids, summed). At the first step of a task both are the same
    network.

    Source: Li & Hoiem 2016 (arXiv 1606.09282), Eq. 2; restricted to seen classes as in De Lange et al.
    2023 (arXiv 2205.13452); there is no old head of its own for each task. Smith et al. 2023 (arXiv 2203.17269)
    distil `over="seen"` beside softmax losses, and `over="each"` at temperature 1 beside sigmoid losses (LwF.MC).
    """

    strength: Float[Array, ""] | float = 1.0
    temperature: Float[Array, ""] | float = 2.0
    over: Literal["all", "seen", "each"] = eqx.field(static=True, default="all")

    def __check_init__(self) -> None:
        check(self, "strength")
        check(self, "temperature", above=True)
        one_of(self, "over", ("all", "seen", "each"))

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
        elif self.over == "each":
            apart = binary_divergence(before, now, known)
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


def binary_divergence(
    teacher: Float[Array, "batch classes"], student: Float[Array, "batch classes"],
    among: Bool[Array, " classes"],
) -> Float[Array, " batch"]:  # fmt: skip
    """sum over some classes of KL(sigmoid(teacher) || sigmoid(student)), in nats."""
    log = jax.nn.log_sigmoid
    yes = jax.nn.sigmoid(teacher) * (log(teacher) - log(student))
    no = jax.nn.sigmoid(-teacher) * (log(-teacher) - log(-student))
    return jnp.where(among, yes + no, 0).sum(axis=-1)


class FeatureDistillation(Method):
    """loss(new) + strength |f - f*|^2, f and f* the features of this network and of that after the last task.

    - `head(model)`: the part that makes logits of features, as for `equinox.tree_at`: what goes into it are
      the features, [batch, width].
    - `weighted`: both go through the teacher's head first; its outputs of classes that it has seen are
      compared, and their squares averaged.

    Means over the batch. The features are those of one pass with the logits. There is no term in the first task.

    Raises `ValueError` for a head that is none, and where more than a factor comes after it.

    Source: Smith et al. 2023 (arXiv 2203.17269); weighted: Smith et al. 2021 (arXiv 2106.09701).
    """

    strength: Float[Array, ""] | float = 1.0
    head: Callable[[Any], Any] = eqx.field(static=True, kw_only=True)
    weighted: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check(self, "strength")

    def init(self, model: Any, stream: Stream) -> tuple[Any, Bool[Array, " classes"]]:
        with_features(model, self.head)
        return eqx.filter(model, eqx.is_array), jnp.zeros(stream.classes.shape[1], bool)

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        arrays, known = own
        teacher, x = eqx.combine(arrays, model), lesson.new.x
        classes = lesson.new.allowed.shape[-1]
        known = jnp.pad(known, (0, classes - len(known)))
        check_last(lesson.exam, model, self.head, x)
        now, logits = parted(lesson.logits(with_features(model, self.head), x), classes)
        before, _ = parted(lesson.exam(with_features(teacher, self.head), x), classes)
        before = jax.lax.stop_gradient(before)
        if self.weighted:
            old = jax.lax.stop_gradient(self.head(teacher))
            apart = call(old, now) - call(old, before)
            squares = jnp.where(known, jnp.square(wide(apart)), 0) / jnp.maximum(known.sum(), 1)
        else:
            squares = jnp.square(wide(now) - wide(before))
        old_loss = jnp.where(known.any(), squares.sum(axis=-1).mean(), 0.0)
        return Losses(lesson.loss(logits, lesson.new), self.strength * old_loss)

    def turn(self, model: Any, own: Any, lesson: Lesson) -> tuple[Any, Bool[Array, " classes"]]:
        return eqx.filter(model, eqx.is_array), lesson.seen


class _Tap(eqx.Module):
    """What goes into a head, beside what comes out."""

    head: Any

    def __getattr__(self, name: str) -> Any:
        if name == "head" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.head, name)  # as of its weight, where that is shared

    def __call__(self, x: Array, *more: Any, **named: Any) -> Array:
        return jnp.concatenate([x, self.head(x, *more, **named)], axis=-1)


def with_features(model: Any, head: Callable[[Any], Any]) -> Any:
    """The network with outputs [batch, width + classes]: the features that go into its head, then its logits.

    What it multiplies its logits by, it multiplies the features by, too; nothing else may come after the head
    (`check_last`). Raises `ValueError` where `head(model)` is no part that can be called, or does not stand in the
    network once.
    """
    part = head(model)
    if not (isinstance(part, eqx.Module) and callable(part)):
        raise ValueError(
            f"head(model) must be the module that makes logits of features, as in lambda m: m.readout, not a {type(part).__name__}"
        )
    # Normalisations stay the same objects: by that their statistics are told apart.
    stop = lambda node: node is part or isinstance(node, RunningStatistics)  # noqa: E731
    if (times := sum(node is part for node in jax.tree.leaves(model, is_leaf=stop))) != 1:
        raise ValueError(
            f"head(model) must be a part of the network itself, as in lambda m: m.readout: this {type(part).__name__} "
            f"stands in it {times} times (what is cut or put together anew does not)"
        )
    return jax.tree.map(lambda node: _Tap(node) if node is part else node, model, is_leaf=stop)


def check_last(
    exam: Callable[[Any, Array], Array], model: Any, head: Callable[[Any], Any],
    x: Array | jax.ShapeDtypeStruct,
) -> None:  # fmt: skip
    """Raises `ValueError` where the logits of `with_features` are not the network's: where more than a factor comes after the head.

    `exam(model, x)`: how the network is called outside of training.
    """

    def logits(model: Any, x: Array) -> Array:
        found = exam(with_features(model, head), x)
        more = found.shape[-1] - exam(model, x).shape[-1]
        return found[..., more:] if more > 0 else found[..., :0]  # no features: it was not called

    if not agree(logits, exam, model, x):
        raise ValueError(
            "the network must end with head(model), called once: after it may come a factor, but no softmax, norm or "
            "choice of outputs. Leave that to the loss"
        )


def agree(
    one: Callable[[Any, Array], Array], other: Callable[[Any, Array], Array], model: Any,
    x: Array | jax.ShapeDtypeStruct,
) -> bool:  # fmt: skip
    """Whether two functions of a network and inputs [batch, ...] are the same, on made-up values of these shapes; True where nobody can say.

    It may be asked while JAX traces, and leaves nothing in the program.
    """
    rng = np.random.default_rng(0)

    def made_up(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return np.zeros(leaf.shape, leaf.dtype)
        if leaf.ndim > 1:
            return rng.normal(0, max(leaf.size, 1) ** -0.25, leaf.shape).astype(leaf.dtype)
        return np.asarray(rng.uniform(0.1, 1, leaf.shape)).astype(leaf.dtype)  # as variances are

    @eqx.filter_jit
    def both(model: Any, x: Array) -> tuple[Array, Array]:
        return one(model, x), other(model, x)

    try:
        given = jax.tree.map(made_up, (model, jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)))
        # Compiled first, so that it runs while JAX traces around it.
        quick = {"xla_backend_optimization_level": 0}
        found = both.lower(*given).compile(compiler_options=quick)(*given)
        a, b = (np.asarray(values, np.float32) for values in found)
    except Exception:  # whatever it is, it is told where the network is called in earnest
        return True
    if a.shape != b.shape:
        return False
    return not np.isfinite(b).all() or bool((np.abs(a - b) <= 0.02 * np.abs(b).max()).all())


def parted(
    outputs: Float[Array, "batch outputs"], classes: int
) -> tuple[Float[Array, "batch width"], Float[Array, "batch classes"]]:
    """Features and logits of `with_features`."""
    return outputs[:, :-classes], outputs[:, -classes:]
