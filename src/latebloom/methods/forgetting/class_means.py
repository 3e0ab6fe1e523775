"""Classes told by the nearest mean of features: what a frozen network can do without learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.calling import as_examined, batch_first, call, per_example, whole_batch
from latebloom.core.stream import Stream
from latebloom.methods.forgetting.distillation import agree, check_last, parted, with_features
from latebloom.methods.forgetting.method import Batch, Lesson, Losses, Method, check

KNOWN = None, as_examined, batch_first, call, per_example, whole_batch  # all the same in exams


class Means(NamedTuple):
    """Sums of the features of each class, and how many examples they are of."""

    total: Float[Array, "outputs width"]
    count: Float[Array, " outputs"]


class NearestClassMean(Method):
    """Learns nothing: an example gets the class whose mean of features is nearest, among those that compete.

    - `head(model)`: what `width` features go into, as in `FeatureDistillation`.
    - `batches`: of how many of each task's first batches the means are taken.

    On the features of a pre-trained network this is the baseline that methods with gradients have to beat.

    Raises `ValueError` where the features are not of that width, where more than a factor comes after the head, and for a
    process with an `apply` of its own.

    Source: Mensink et al. 2013 (IEEE TPAMI 35(11)); Rebuffi et al. 2017 (arXiv 1611.07725), Eq. 2, of all examples.
    """

    head: Callable[[Any], Any] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    batches: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        check(self, "width", 1)
        check(self, "batches", 1)

    @property
    def looks_back(self) -> int:
        return self.batches

    def init(self, model: Any, stream: Stream) -> Means:
        with_features(model, self.head)
        classes = stream.classes.shape[1]
        return Means(jnp.zeros((classes, self.width)), jnp.zeros(classes))

    def losses(self, model: Any, own: Means, lesson: Lesson) -> Losses:
        return Losses(jnp.zeros(()))

    def turn(self, model: Any, own: Means, lesson: Lesson) -> Means:
        classes, outputs = len(own.count), lesson.new.allowed.shape[-1]
        tapped = with_features(model, self.head)
        one = jax.ShapeDtypeStruct(
            lesson.new.x.shape[1:], lesson.new.x.dtype
        )  # batch of the task's
        check_last(lesson.exam, model, self.head, one)
        check_called(self, lesson, model, one)

        def add(own: Means, batch: Batch) -> tuple[Means, None]:
            features = self._checked(parted(lesson.exam(tapped, batch.x), outputs)[0])
            of = jax.nn.one_hot(batch.y, classes) * batch.there[:, None]
            return Means(own.total + of.T @ features, own.count + of.sum(axis=0)), None

        return jax.lax.scan(add, own, lesson.new)[0]

    def scores(self, model: Any, own: Means, x: Array, memory: Batch | None) -> Array:
        outputs = call(model, x).shape[1]
        features = self._checked(parted(call(with_features(model, self.head), x), outputs)[0])
        means = own.total / jnp.maximum(own.count, 1)[:, None]
        apart = jnp.square(features[:, None] - means).sum(axis=-1)
        scores = jnp.where(own.count > 0, -apart, -jnp.inf)
        spare = [(0, 0), (0, outputs - len(own.count))]  # outputs that are no class
        return jnp.pad(scores, spare, constant_values=-jnp.inf)

    def _checked(self, features: Array) -> Float[Array, "batch width"]:
        if features.shape[1] != self.width:
            raise ValueError(
                f"{features.shape[1]} features go into the head, but width is {self.width}"
            )
        return features.astype(jnp.float32)


def check_called(of: Method, lesson: Lesson, model: Any, x: Array | jax.ShapeDtypeStruct) -> None:
    """Raises `ValueError` where a process calls a network otherwise than the method, which calls it itself, does."""
    if not any(lesson.apply is one for one in KNOWN) and not agree(lesson.exam, call, model, x):
        raise ValueError(
            f"{type(of).__name__} calls the network itself, so that an apply of your own would be left out: put what it does "
            "into the network, or into the data"
        )
