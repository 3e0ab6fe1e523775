"""Online prototype learning: prototypes of all classes kept apart, and the closest ones mixed; OCM, which it builds on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.augmentation import Views, turned_copies
from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.losses import masked_cross_entropy
from latebloom.methods.forgetting.contrast import (
    anchored_contrast,
    instance_contrast,
    prototype_contrast,
    prototypes,
    similarity,
)
from latebloom.methods.forgetting.method import (
    Batch,
    Lesson,
    Losses,
    Method,
    check,
    mean_of,
)
from latebloom.methods.forgetting.mixing import (
    Mixed,
    class_pairs,
    drawn_pairs,
    evenness,
    mixed,
    mixed_up,
    pair_chances,
    pair_counts,
    pair_distances,
)
from latebloom.methods.forgetting.replay import both


class Known(NamedTuple):
    """What is kept between steps.

    - `distances`: of the prototypes of the last replayed batch, inf for a class that was not in it.
    - `teacher`: arrays of the network after the last task, and the classes it has seen; or ().
    """

    distances: Float[Array, "classes classes"]
    teacher: Any = ()


class Shown(NamedTuple):
    """A batch of mixtures: labels `y` and `other`, and the `amount` of the latter."""

    x: Array
    y: Array
    other: Array
    amount: Array
    there: Array
    allowed: Array

    @staticmethod
    def plain(batch: Batch) -> Shown:
        return Shown(batch.x, batch.y, batch.y, jnp.zeros(len(batch.y)), batch.there, batch.allowed)

    @property
    def labels(self) -> Float[Array, " n"]:
        """Mixtures of the labels: only mixtures alike are of one pseudo-class, as in the released code."""
        one, other = self.y.astype(float), self.other.astype(float)
        return jnp.where(one == other, one, (1 - self.amount) * one + self.amount * other)


class OnPro(Method):
    """Online prototype equilibrium, and adaptive prototypical feedback, on the losses of OCM.

    For a network with an `encoder`, a `readout` and a `projection` (`latebloom.nn.Projected`), on images
    [batch, height, width, channels] of floating-point numbers; or on any such inputs, with copies=1 and a view that suits them.

    - `view(x, key)`: a random view of each example.
    - `new`, `seen`: weights of the contrast of the prototypes of the new batch, and of the replayed one,
      each of the images and of their views, never turned.
    - `instance`: weight of OCM's contrast of `copies` turned copies (`turned_copies`) of the images and of
      their views; its similarities are scaled by `scale` after the first task.
    - `feedback`: replayed images are mixed, from the second step of the second task on: a share `base` of
      them among themselves, and for the rest pairs of classes are drawn by the inverse distance of their
      prototypes at the last step (`pair_chances` with its `sharpness`: of 0 all pairs are alike). `chance`, `most` and `alpha` as in
      `mixing`. Without, nothing is mixed.
    - `per_class`: no more than so many images for each class so far are replayed after the first task.
    - `distilled`: after each task the network is kept as a teacher of replayed images, of their projections and of
      the logits of its classes; here both see one view, in the released code each its own.

    Cross-entropy is on views of the new images in the first task, and of the replayed ones afterwards. A
    batch normalisation keeps the statistics of that pass; the others see new and replayed images as one
    batch, and the untouched ones with their views as another. Of settings that are Python's 0 nothing is computed.

    It tells `evenness`, of the pairs' chances, and `closest`, the least distance of two prototypes.

    Source: Wei et al. 2023 (arXiv 2308.00301), and its code; Guo et al. 2022 (OCM).
    """

    replays: ClassVar[bool] = True
    view: Callable[[Array, PRNGKeyArray], Array] = Views()
    new: Float[Array, ""] | float = 1.0
    seen: Float[Array, ""] | float = 1.0
    instance: Float[Array, ""] | float = 1.0
    feedback: bool = eqx.field(static=True, default=True)
    sharpness: Float[Array, ""] | float = 1.0
    base: Float[Array, ""] | float = 0.75
    chance: Float[Array, ""] | float = 0.6
    most: Float[Array, ""] | float = 0.6
    alpha: Float[Array, ""] | float = 0.4
    temperature: Float[Array, ""] | float = 0.5
    instance_temperature: Float[Array, ""] | float = 0.07
    scale: Float[Array, ""] | float = 0.5
    copies: int = eqx.field(static=True, default=16)
    per_class: int = eqx.field(static=True, default=7)
    distilled: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        for name in ("new", "seen", "instance", "scale", "sharpness"):
            check(self, name)
        for name in ("base", "chance", "most"):
            check(self, name, 0, 1)
        for name in ("alpha", "temperature", "instance_temperature"):
            check(self, name, above=True)
        check(self, "per_class", 1)
        if self.copies not in (1, 4, 16):
            raise ValueError(
                f"copies of {type(self).__name__} must be 1, 4 or 16, not {self.copies}"
            )

    def does(self, part: str) -> bool:
        return self.distilled if part == "turn" else super().does(part)

    def init(self, model: Any, stream: Stream) -> Known:
        if not all(hasattr(model, part) for part in ("encoder", "readout", "projection")):
            raise ValueError(
                f"{type(self).__name__} needs a network with an encoder, a readout and a projection, as "
                "latebloom.nn.Projected.around(encoder, ...) makes of any encoder"
            )
        return begun(stream.classes.shape[1], model if self.distilled else None)

    def quantities(self) -> dict[str, Quantity]:
        even = "entropy of the pairs' chances / the highest"
        return {
            "evenness": Quantity("1", about=even, gaps=True),
            "closest": Quantity("1", about="least distance of two prototypes", gaps=True),
        }

    def losses(self, model: Any, own: Known, lesson: Lesson) -> Losses:
        assert lesson.key is not None
        kept = both(lesson)[1]
        keys = jax.random.split(lesson.key(), 6)
        early, classes = lesson.task == 0, len(own.distances)
        most = jnp.where(early, len(kept.y), self.per_class * lesson.seen.sum())
        kept = kept._replace(there=kept.there & (jnp.arange(len(kept.y)) < most))
        shown, even = self._fed_back(own, lesson, kept, keys[0])
        plastic = stable = jnp.zeros(())
        if not _none(self.instance) or self.distilled or not _none(self.new):
            one, two = self._contrasts(model, own, lesson, shown, keys[1:3])
            plastic, stable = plastic + one, stable + jnp.where(early, 0, two)
        if not _none(self.seen) or self.feedback:
            pair = jnp.concatenate([kept.x, self.viewed(kept.x, keys[3])])
            z = model.projection(lesson.logits(model.encoder, pair))
            groups = self.grouped(kept, keys[5])
            z, seen = jnp.split(z, 2)
            found = prototypes(z, seen, groups, kept.there, classes)
            stable = stable + self.seen * prototype_contrast(found, self.temperature)
            apart = pair_distances(jax.lax.stop_gradient(found.both), found.present)
            own = own._replace(distances=as_matrix(apart, classes))
        told, taught = self._told(own, lesson, model, early, shown, keys[4])
        distances = own.distances[class_pairs(classes)]
        closest = distances.min(initial=jnp.inf)
        return Losses(
            plastic + jnp.where(early, told, 0), stable + jnp.where(early, 0, told + taught),
            told={"evenness": even, "closest": jnp.where(jnp.isfinite(closest), closest, jnp.nan)}, own=own,
        )  # fmt: skip

    def _fed_back(
        self, own: Known, lesson: Lesson, kept: Batch, key: PRNGKeyArray
    ) -> tuple[Shown, Array]:
        """The replayed batch, mixed where it is time, and how even the pairs' chances are."""
        plain = Shown.plain(kept)
        classes = len(own.distances)
        distances = own.distances[class_pairs(classes)]
        if not self.feedback or not len(distances):
            return plain, jnp.array(jnp.nan)
        if not jnp.issubdtype(kept.x.dtype, jnp.inexact):
            raise ValueError(
                f"examples of {kept.x.dtype} cannot be mixed: make them floating-point numbers, or take feedback=False"
            )
        memory = lesson.memory
        assert memory is not None
        n, size = len(kept.y), kept.there.sum()
        ready = (lesson.task > 0) & ~lesson.first & jnp.isfinite(distances).any()
        number = jnp.where(ready, jnp.floor(self.base * size + 1e-4).astype(int), size)
        keys = jax.random.split(key, 3)
        among = mixed_up(n, number, jnp.where(ready, self.chance, 0.0), self.most, keys[0])
        chances = pair_chances(distances, self.sharpness)
        drawn = drawn_pairs(
            pair_counts(chances, size - number, keys[1]), memory.items.labels, memory.filled,
            jnp.isfinite(own.distances).any(axis=1), n, chance=self.chance, alpha=self.alpha, key=keys[2],
        )  # fmt: skip
        # The pairs come after those mixed among themselves.
        shift = jnp.maximum(jnp.arange(n) - number, 0)
        drawn = Mixed(*(part[shift] for part in drawn))
        take = jnp.arange(n) < number

        def side(rows: Array, places: Array) -> Batch:
            of = lesson.batch_of(jax.tree.map(lambda v: v[places], memory.items), kept.there)
            here = (among_x[rows] for among_x in (kept.x, kept.y, kept.allowed))
            x, y, allowed = (
                jnp.where(take.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
                for a, b in zip(here, (of.x, of.y, of.allowed), strict=True)
            )
            return kept._replace(x=x, y=y, allowed=allowed)

        a, b = side(among.one, drawn.one), side(among.other, drawn.other)
        amount = jnp.where(take, among.amount, drawn.amount)
        shown = Shown(
            mixed(a.x, b.x, amount), a.y, b.y, amount, kept.there,
            a.allowed | (b.allowed & (amount > 0)[:, None]),
        )  # fmt: skip
        return shown, evenness(chances, jnp.isfinite(distances))

    def _contrasts(
        self, model: Any, own: Known, lesson: Lesson, shown: Shown, keys: PRNGKeyArray
    ) -> tuple[Array, Array]:
        """What is contrasted of the new images, with their prototypes, and of the replayed ones."""
        fresh, n, classes = lesson.new, len(lesson.new.y), len(own.distances)
        turned = [turned_copies(x, self.copies) for x in (fresh.x, shown.x)]
        images = jnp.concatenate(turned)
        images = jnp.concatenate([images, self.viewed(images, keys[0])])
        features = lesson.logits(model.encoder, images)
        z = model.projection(features)
        # The new images' copies and the replayed ones', then the views of both in this order.
        cut = self.copies * n
        parts = [jnp.split(half, [cut]) for half in (*jnp.split(z, 2), *jnp.split(features, 2))]
        (z_new, z_old), (v_new, v_old), (h_new, h_old), (g_new, g_old) = parts
        room = max(features.shape[1] - z.shape[1], 1)
        starts = jax.random.randint(keys[1], (2,), 0, room)
        one = similarity(
            jnp.concatenate([z_new, v_new]), jnp.concatenate([h_new, g_new]), starts[0],
            jnp.where(lesson.task == 0, 1.0, self.scale),
        )  # fmt: skip
        two = similarity(
            jnp.concatenate([z_old, v_old]), jnp.concatenate([h_old, g_old]), starts[1], self.scale
        )
        copy = classes * jnp.repeat(jnp.arange(self.copies), n)
        labels = jnp.tile(fresh.y, self.copies) + copy
        copy = classes * jnp.repeat(jnp.arange(self.copies), len(shown.y))
        old_labels = jnp.tile(shown.labels, self.copies) + copy
        there, old_there = (jnp.tile(b.there, self.copies) for b in (fresh, shown))
        heat = self.instance_temperature
        plastic = self.instance * instance_contrast(one, labels.astype(float), there, heat, pairs=True)  # fmt: skip
        stable = self.instance * instance_contrast(two, old_labels, old_there, heat, pairs=False)
        if not _none(self.new):
            groups = self.grouped(fresh, keys[1])
            found = prototypes(z_new[:n], v_new[:n], groups, fresh.there, classes)
            plastic = plastic + self.new * prototype_contrast(found, self.temperature)
        if self.distilled:
            teacher = eqx.combine(own.teacher[0], model)
            anchors = teacher.projection(lesson.exam(teacher.encoder, turned[1]))
            anchors = jax.lax.stop_gradient(anchors)
            stable = stable + anchored_contrast(z_old, anchors, old_labels, old_there, heat)
        return plastic, stable

    def _told(
        self, own: Known, lesson: Lesson, model: Any, early: Array, shown: Shown, key: PRNGKeyArray
    ) -> tuple[Array, Array]:
        """Cross-entropy of the new images in the first task, of the replayed ones later; and the teacher's loss."""
        fresh = Shown.plain(lesson.new)
        n = max(len(fresh.y), len(shown.y))
        rows = jnp.arange(n)

        def padded(batch: Shown) -> Shown:
            some = jax.tree.map(lambda v: v[rows % len(batch.y)], batch)
            return some._replace(there=some.there & (rows < len(batch.y)))

        asked = jax.tree.map(lambda a, b: jnp.where(early, a, b), padded(fresh), padded(shown))
        x = self.viewed(asked.x, key)
        logits = lesson.logits(model, x)
        one, two = (masked_cross_entropy(logits, y, asked.allowed) for y in (asked.y, asked.other))
        # Where nothing is mixed in, the other term may be infinite: 0 times it would be NaN.
        loss = jnp.where(asked.amount > 0, (1 - asked.amount) * one + asked.amount * two, one)
        taught = jnp.zeros(())
        if self.distilled:
            arrays, known = own.teacher
            before = jax.lax.stop_gradient(lesson.exam(eqx.combine(arrays, model), x))
            known = jnp.pad(known, (0, logits.shape[1] - len(known)))
            apart = jnp.where(known, jnp.square(logits - before), 0).sum(axis=1)
            taught = mean_of(apart / jnp.maximum(known.sum(), 1), asked.there)
        return mean_of(loss, asked.there), taught

    def viewed(self, x: Array, key: PRNGKeyArray) -> Array:
        """A random view of each example, in the precision of the examples.

        Raises `ValueError` for a view of another shape.
        """
        seen = self.view(x, key)
        if seen.shape != x.shape:
            raise ValueError(
                f"the view must be {list(x.shape)} as its examples, not {list(seen.shape)}: view(x, key) takes a whole batch"
            )
        return seen.astype(x.dtype)

    def grouped(self, batch: Batch, key: PRNGKeyArray) -> Int[Array, " n"]:
        """What examples have in common that share a prototype: their labels."""
        return batch.y

    def turn(self, model: Any, own: Known, lesson: Lesson) -> Known:
        return own._replace(teacher=(eqx.filter(model, eqx.is_array), lesson.seen))


def ocm(view: Callable[[Array, PRNGKeyArray], Array] | None = None, **settings: Any) -> OnPro:
    """OCM: the instance contrast and, after a task, distillation; ER with that contrast alone for distilled=False.

    Source: Guo et al. 2022 (ICML, "Online Continual Learning through Mutual Information Maximization").
    """
    settings = {"new": 0.0, "seen": 0.0, "feedback": False, "distilled": True} | settings
    return OnPro(Views() if view is None else view, **settings)


def begun(classes: int, teacher: Any = None) -> Known:
    """What is known at the start; `teacher`: a network that stands for one until there is one."""
    kept = () if teacher is None else (eqx.filter(teacher, eqx.is_array), jnp.zeros(classes, bool))
    return Known(jnp.full((classes, classes), jnp.inf), kept)


def as_matrix(distances: Float[Array, " pairs"], classes: int) -> Float[Array, "classes classes"]:
    """Distances of pairs as a symmetric matrix, inf on its diagonal."""
    a, b = class_pairs(classes)
    empty = jnp.full((classes, classes), jnp.inf)
    return empty.at[a, b].set(distances).at[b, a].set(distances)


def _none(weight: Any) -> bool:
    return isinstance(weight, (int, float)) and weight == 0


class TwoViews(Method):
    """A method of contrasts that is shown each example, new and replayed, with a random view of it.

    - `host`: such as `SCR`, whose authors show both.
    """

    replays: ClassVar[bool] = True
    host: Method
    view: Callable[[Array, PRNGKeyArray], Array] = Views()

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        assert lesson.key is not None
        keys = jax.random.split(lesson.key())
        pairs = zip(both(lesson), keys, strict=True)
        new, old = (_doubled(batch, self.view, key) for batch, key in pairs)
        return self.host.losses(model, own, lesson._replace(new=new, old=old))

    def scores(self, model: Any, own: Any, x: Array, memory: Batch) -> Array | None:
        return self.host.scores(model, own, x, memory)


def _doubled(batch: Batch, view: Any, key: PRNGKeyArray) -> Batch:
    seen = view(batch.x, key)
    twice = [jnp.concatenate([v, v]) for v in (batch.y, batch.task, batch.allowed, batch.there)]
    return Batch(jnp.concatenate([batch.x, seen]), *twice)
