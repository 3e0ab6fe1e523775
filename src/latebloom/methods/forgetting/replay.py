"""Methods that show old examples again: ER, ER-ACE, DER, DER++, and supervised contrastive replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core import memory as memories
from latebloom.core.memory import Items
from latebloom.core.training import batch_rows
from latebloom.methods.forgetting.method import (
    Batch,
    Lesson,
    Losses,
    Method,
    check,
    mean_of,
    present,
    wide,
)


def together(model: Any, lesson: Lesson, *batches: Batch | None) -> list[Array]:
    """Logits of several batches by one pass, so that a batch normalisation sees them as one."""
    given = [batch for batch in batches if batch is not None]
    logits = lesson.logits(model, jnp.concatenate([batch.x for batch in given]))
    ends = np.cumsum([len(batch.y) for batch in given])[:-1]
    return jnp.split(logits, ends.tolist())


class ER(Method):
    """Experience replay: new_weight loss(new) + (1 - new_weight) loss(replayed).

    As long as nothing is in memory the first term stands alone, with its weight.

    Source: Chaudhry et al. 2019 (arXiv 1902.10486); weighted as in De Lange et al. 2023 (arXiv
    2205.13452). 1/2 follows the gradient of one batch of both.
    """

    replays: ClassVar[bool] = True
    new_weight: Float[Array, ""] | float = 0.5

    def __check_init__(self) -> None:
        check(self, "new_weight", 0, 1)

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        new, old = both(lesson)
        one, other = together(model, lesson, new, old)
        weight = self.new_weight
        return Losses(weight * lesson.loss(one, new), (1 - weight) * lesson.loss(other, old))


class ERACE(Method):
    """Experience replay with asymmetric cross-entropy: new examples compete among the classes of their
    batch and those not seen so far, replayed ones among all that compete.

    Source: Caccia et al. 2022 (arXiv 2104.05025). In the first task all compete.
    """

    replays: ClassVar[bool] = True

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        new, old = both(lesson)
        one, other = together(model, lesson, new, old)
        here = present(new.y, new.there, new.allowed.shape[1])
        seen = jnp.pad(lesson.seen, (0, len(here) - len(lesson.seen)))
        among = here | ~seen | (lesson.task == 0)
        return Losses(
            lesson.loss(one, new._replace(allowed=new.allowed & among)), lesson.loss(other, old)
        )


class DER(Method):
    """Dark experience replay: loss(new) + alpha |logits - those it had|^2 / classes + beta loss(replayed).

    Both terms draw their own batch. DER++ has beta > 0, DER beta = 0.

    Source: Buzzega et al. 2020 (arXiv 2004.07211), Eqs. 5 and 6; the mean over classes is that of the
    authors' code.
    """

    replays: ClassVar[bool] = True
    alpha: Float[Array, ""] | float = 0.5
    beta: Float[Array, ""] | float = 0.5

    def __check_init__(self) -> None:
        check(self, "alpha")
        check(self, "beta")

    def remembered(self, logits: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return logits

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        new, old = both(lesson)
        other = lesson.other
        assert other is not None
        logits, again, more = together(model, lesson, new, old, other)
        apart = mean_of(jnp.square(again - old.extra).mean(axis=1), old.there)
        kept = self.alpha * apart + self.beta * lesson.loss(more, other)
        return Losses(lesson.loss(logits, new), kept, logits)


class SCR(Method):
    """Supervised contrastive replay: examples of a class attract each other, and an exam goes by the
    nearest mean of the memory's features.

    - `encode(model, x)` [batch, features]: what is compared; features are brought to length 1.

    Source: Mai et al. 2021 (arXiv 2103.13885); the loss is that of Khosla et al. 2020 (arXiv
    2004.11362), Eq. 2. The authors' second view of each example, an augmentation of images, is left to
    the caller's data.
    """

    replays: ClassVar[bool] = True
    encode: Callable[[Any, Array], Float[Array, "batch features"]]
    temperature: Float[Array, ""] | float = 0.07

    def __check_init__(self) -> None:
        check(self, "temperature", above=True)

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        new, old = both(lesson)
        features = self.encode(model, jnp.concatenate([new.x, old.x]))
        there = jnp.concatenate([new.there, old.there])
        labels = jnp.concatenate([new.y, old.y])
        losses = supervised_contrast(features, labels, there, self.temperature)
        shown = there & _has_pair(labels, there)
        n = len(new.y)
        total = jnp.maximum(shown.sum(), 1)
        return Losses(
            jnp.where(shown, losses, 0)[:n].sum() / total,
            jnp.where(shown, losses, 0)[n:].sum() / total,
        )

    def scores(
        self, model: Any, own: Any, x: Array, memory: Batch | None
    ) -> Float[Array, "batch classes"]:
        assert memory is not None
        known, seen = (unit(wide(self.encode(model, asked))) for asked in (memory.x, x))
        belongs = (memory.y[:, None] == jnp.arange(memory.allowed.shape[1])) & memory.there[:, None]
        count = belongs.sum(axis=0)
        means = unit(belongs.T.astype(known.dtype) @ known / jnp.maximum(count, 1)[:, None])
        return jnp.where(count > 0, seen @ means.T, -jnp.inf)


def both(lesson: Lesson) -> tuple[Batch, Batch]:
    """The new batch and the replayed one."""
    assert lesson.old is not None
    return lesson.new, lesson.old


def supervised_contrast(
    features: Float[Array, "n d"], labels: Int[Array, " n"], there: Bool[Array, " n"],
    temperature: Float[Array, ""] | float = 0.07,
) -> Float[Array, " n"]:  # fmt: skip
    """Supervised contrastive loss of each example (Khosla et al. 2020, Eq. 2, L_out); 0 for one that is
    not there, or that has nobody of its class.

    Features are brought to length 1, in single precision at least.
    """
    z = unit(wide(features))
    others = there[None] & ~jnp.eye(len(labels), dtype=bool)
    logits = jnp.where(others, z @ z.T / temperature, -jnp.inf)
    some = others.any(axis=1)
    norm = jax.nn.logsumexp(jnp.where(some[:, None], logits, 0.0), axis=1)
    positive = others & there[:, None] & (labels[:, None] == labels)
    chance = jnp.where(positive, logits - norm[:, None], 0).sum(axis=1)
    return -chance / jnp.maximum(positive.sum(axis=1), 1)


def _has_pair(labels: Int[Array, " n"], there: Bool[Array, " n"]) -> Bool[Array, " n"]:
    others = there[None] & ~jnp.eye(len(labels), dtype=bool)
    return (others & (labels[:, None] == labels)).any(axis=1)


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Rows brought to length 1; a row of zeros stays."""
    largest = jax.lax.stop_gradient(jnp.abs(x).max(axis=-1, keepdims=True))
    x = x / jnp.where(largest > 0, largest, 1)
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def remembered_alone(
    labels: Int[Array, " n"], size: int, steps: int, batch: int, key: PRNGKeyArray
) -> Int[Array, "steps batch"]:  # fmt: skip
    """Batches of what a memory shared evenly by the classes holds in the end, epoch after epoch: GDumb's.

    Source: Prabhu et al. 2020 (ECCV, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning").
    """
    one, other = jax.random.split(jax.random.fold_in(key, 2))
    n = len(labels)
    items = Items(jnp.arange(n), labels, jnp.zeros(n, jnp.int32))
    kept = memories.add(memories.empty(size), memories.CLASS_BALANCED, items, one).items.rows
    size_of = min(batch, size)
    return jax.vmap(lambda step: kept[batch_rows(other, step, size, size_of)])(jnp.arange(steps))
