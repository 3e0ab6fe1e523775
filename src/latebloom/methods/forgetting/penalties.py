"""Methods that hold parameters near where they were: L2, EWC, SI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.stream import Stream
from latebloom.core.training import trainable
from latebloom.methods.forgetting.method import Lesson, Losses, Method, check, one_of
from latebloom.nn.mlp import Linear
from latebloom.probes.fisher import fisher_diagonal


class Anchored(NamedTuple):
    """Where parameters are held, and how much each matters, in single precision at least; trees like
    the parameters."""

    anchor: Any
    importance: Any
    tasks: Array  # so far


def _at_start(model: Any, head: Callable[[Any], Any] | None = None) -> Anchored:
    params = trainable(model)
    if head is not None:
        _check_head(params, head)
    nothing = jax.tree.map(
        lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params
    )
    return Anchored(params, nothing, jnp.zeros((), jnp.int32))


def _check_head(params: Any, head: Callable[[Any], Any]) -> None:
    try:
        part = head(params)
    except Exception as error:
        raise ValueError(
            "head(model) must name a part by its place, as lambda m: m.readout does, for it is asked of trees of parameters, "
            f"too; of one it raised {type(error).__name__}: {error}"
        ) from error
    if not jax.tree.leaves(part):
        raise ValueError(
            "head(model) has no parameters of its own: it must be the part that makes logits of features, as lambda m: m.readout "
            "(what is shared with another part is that part's); left out, all parameters are held"
        )


def distance(model: Any, own: Anchored) -> Float[Array, ""]:
    """Sum of importance (theta - anchor)^2 over all parameters."""
    parts = jax.tree.map(
        lambda p, a, w: (w * jnp.square(apart(p, a, w.dtype))).sum(),
        trainable(model), own.anchor, own.importance,
    )  # fmt: skip
    return jax.tree.reduce(jnp.add, parts, jnp.zeros(()))


def apart(p: Array, a: Array, dtype: Any) -> Array:
    """p - a in another precision, in which its square is no zero yet."""
    return p.astype(dtype) - a.astype(dtype)


Rows = Literal["free", "old"]


def axis_of_classes(head: Any, weights: Array, classes: int) -> int:
    """Along which axis of an array of the head its outputs lie: where as many features go in, an affine map's own.

    Raises `ValueError` where no one axis has as many entries as there are classes.
    """
    axes = [axis for axis, size in enumerate(weights.shape) if size == classes]
    if len(axes) == 2 and isinstance(head, eqx.nn.Linear | Linear):
        return 0 if isinstance(head, eqx.nn.Linear) else 1
    if len(axes) != 1:
        raise ValueError(
            f"the head must have one axis of {classes} classes, not {list(weights.shape)}: let it be an affine map alone"
        )
    return axes[0]


def _but_the_head(
    importance: Any, head: Callable[[Any], Any] | None, rows: Rows, lesson: Lesson
) -> Any:
    """The importance without the head's, but for the rows of classes seen so far if these are held."""
    if head is None:
        return importance
    classes = lesson.new.allowed.shape[-1]
    seen = jnp.pad(lesson.seen, (0, classes - len(lesson.seen)))

    def held(weights: Array) -> Array:
        if rows == "free":
            return jnp.zeros_like(weights)
        axis = axis_of_classes(head(importance), weights, classes)
        return weights * jnp.expand_dims(seen, [i for i in range(weights.ndim) if i != axis])

    return eqx.tree_at(head, importance, replace_fn=lambda part: jax.tree.map(held, part))


class L2(Method):
    """strength |theta - theta*|^2 / 2, theta* being the parameters after the last task.

    - `head(model)`: the part that makes logits of features, as for `equinox.tree_at`; its `rows` are "free",
      or those of classes seen so far are held ("old"). Left out, all parameters are held.

    Raises `ValueError` for a head without parameters.

    Source: with the head free, Smith et al. 2023 (arXiv 2203.17269), whose strength is half of this one.
    """

    strength: Float[Array, ""] | float = 1.0
    head: Callable[[Any], Any] | None = eqx.field(static=True, default=None)
    rows: Rows = eqx.field(static=True, default="free")

    def __check_init__(self) -> None:
        check(self, "strength")
        one_of(self, "rows", ("free", "old"))

    def init(self, model: Any, stream: Stream) -> Anchored:
        return _at_start(model, self.head)

    def losses(self, model: Any, own: Anchored, lesson: Lesson) -> Losses:
        new = lesson.loss(lesson.logits(model, lesson.new.x), lesson.new)
        return Losses(new, self.strength / 2 * distance(model, own))

    def turn(self, model: Any, own: Anchored, lesson: Lesson) -> Anchored:
        params = trainable(model)
        ones = jax.tree.map(jnp.ones_like, own.importance)
        ones = _but_the_head(ones, self.head, self.rows, lesson)
        return Anchored(params, ones, own.tasks + 1)


class EWC(Method):
    """Elastic weight consolidation: strength sum_i F_i (theta_i - theta*_i)^2.

    - `fisher`: of each example's gradient, or of those of batches (`probes.fisher`); from the first
      `batches` of a task, with true labels.
    - `combine`: Fisher matrices of tasks are averaged, or summed with the older ones times `decay`
      (online EWC; 1 for their plain sum). There is one anchor, after the last task.
    - `head`, `rows`: as in `L2`.

    The Fisher matrix is that of the loss that is learned by (`Lesson.criterion`).

    Raises `ValueError` for a head without parameters.

    Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), Eq. 3, without its 1/2; online: Schwarz et al.
    2018 (arXiv 1805.06370); averaged over tasks: De Lange et al. 2023 (arXiv 2205.13452).
    """

    strength: Float[Array, ""] | float = 1.0
    decay: Float[Array, ""] | float = 1.0
    batches: int = eqx.field(static=True, default=10)
    fisher: Literal["example", "batch"] = eqx.field(static=True, default="example")
    combine: Literal["average", "online"] = eqx.field(static=True, default="online")
    head: Callable[[Any], Any] | None = eqx.field(static=True, default=None)
    rows: Rows = eqx.field(static=True, default="free")

    def __check_init__(self) -> None:
        check(self, "strength")
        check(self, "decay", 0, 1)
        check(self, "batches", 1)
        one_of(self, "fisher", ("example", "batch"))
        one_of(self, "combine", ("average", "online"))
        one_of(self, "rows", ("free", "old"))

    @property
    def looks_back(self) -> int:
        return self.batches

    def init(self, model: Any, stream: Stream) -> Anchored:
        return _at_start(model, self.head)

    def losses(self, model: Any, own: Anchored, lesson: Lesson) -> Losses:
        new = lesson.loss(lesson.logits(model, lesson.new.x), lesson.new)
        return Losses(new, self.strength * distance(model, own))

    def turn(self, model: Any, own: Anchored, lesson: Lesson) -> Anchored:
        def losses(model: Any, batch: Any) -> Array:
            logits = lesson.exam(model, batch.x)
            return lesson.criterion(logits, batch.y, batch.allowed)

        found = fisher_diagonal(losses, model, lesson.new, self.fisher)
        found = _but_the_head(found, self.head, self.rows, lesson)
        if self.combine == "average":
            n = own.tasks
            total = jax.tree.map(lambda a, b: (n * a + b) / (n + 1), own.importance, found)
        else:
            total = jax.tree.map(lambda a, b: self.decay * a + b, own.importance, found)
        return Anchored(trainable(model), total, own.tasks + 1)


class PathIntegral(NamedTuple):
    held: Anchored
    path: Any  # sum of -gradient * movement since the last task


class SI(Method):
    """Synaptic intelligence: strength sum_i Omega_i (theta_i - theta*_i)^2.

    Omega adds, after each task, the integral of -gradient * movement over its steps, divided by the
    squared distance moved plus `damping`; the gradient is that of the new batch's loss alone. Unlike
    in the paper, a negative integral counts as 0.

    Source: Zenke, Poole, Ganguli 2017 (arXiv 1703.04200), Eqs. 3 to 5.
    """

    strength: Float[Array, ""] | float = 1.0
    damping: Float[Array, ""] | float = 0.1

    def __check_init__(self) -> None:
        check(self, "strength")
        check(self, "damping", above=True)

    def init(self, model: Any, stream: Stream) -> PathIntegral:
        start = _at_start(model)
        return PathIntegral(start, start.importance)

    def losses(self, model: Any, own: PathIntegral, lesson: Lesson) -> Losses:
        new = lesson.loss(lesson.logits(model, lesson.new.x), lesson.new)
        return Losses(new, self.strength * distance(model, own.held))

    def moved(self, own: PathIntegral, gradients: Any, before: Any, after: Any) -> PathIntegral:
        path = jax.tree.map(
            lambda w, g, a, b: w - g.astype(w.dtype) * apart(b, a, w.dtype),
            own.path, gradients, before, after,
        )  # fmt: skip
        return own._replace(path=path)

    def turn(self, model: Any, own: PathIntegral, lesson: Lesson) -> PathIntegral:
        params, held = trainable(model), own.held
        importance = jax.tree.map(
            lambda total, w, p, a: total
            + jnp.maximum(w, 0) / (jnp.square(apart(p, a, w.dtype)) + self.damping),
            held.importance, own.path, params, held.anchor,
        )  # fmt: skip
        nothing = jax.tree.map(jnp.zeros_like, own.path)
        return PathIntegral(Anchored(params, importance, held.tasks + 1), nothing)
