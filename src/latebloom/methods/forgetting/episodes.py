"""Episodes of continual few-shot learning: small support sets one after the other, then a test on all.

An episode is a table of row numbers with labels, drawn by a pure function, so that `jax.vmap` draws and
a compiled program learns a hundred at once. In the class test the targets are other images of the classes
that were seen; in the instance test they are the very images that were seen, each a label of its own.

Source: Antoniou et al. 2020 (arXiv 2004.11967); Kowadlo et al. 2024 (arXiv 2209.07863), who add the
instance test and more classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Shaped


class Episode(NamedTuple):
    """Rows of images, and labels within the episode.

    - `rows`, `labels`: of the support sets, in the order in which they are shown.
    - `target_rows`, `target_labels`: of the test; `target_set`: number of the last support set that has the
      target's class (or the image itself), from 0.
    """

    rows: Int[Array, "sets images"]
    labels: Int[Array, "sets images"]
    target_rows: Int[Array, " targets"]
    target_labels: Int[Array, " targets"]
    target_set: Int[Array, " targets"]


@dataclass(frozen=True)
class Design:
    """What an episode is like.

    - `sets` that are shown one after the other (the paper's NSS), each of `way` classes with `shots` images.
    - `change_every`: so many sets show the same classes, with new images, before others come (CCI).
    - `overwrite`: the labels of the first classes are used again for later ones; else block b of classes
      has labels from b * `way` on.
    - `queries`: targets of each class.
    - `test`: "classes"; or "instances": all images are of one class, each a label and a target.

    Raises `ValueError` for numbers below 1, sets that are no multiple of `change_every`, and an
    instance test with more than one class or labels used again.
    """

    sets: int
    way: int = 1
    shots: int = 1
    change_every: int = 1
    overwrite: bool = False
    queries: int = 5
    test: Literal["classes", "instances"] = "classes"

    def __post_init__(self) -> None:
        for name in ("sets", "way", "shots", "change_every", "queries"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
        if self.sets % self.change_every:
            raise ValueError(
                f"sets must be a multiple of change_every, not {self.sets} and {self.change_every}"
            )
        if self.test not in ("classes", "instances"):
            raise ValueError(f"test must be 'classes' or 'instances', not {self.test!r}")
        if self.test == "instances" and (self.way > 1 or self.change_every != self.sets):
            raise ValueError(
                "an instance test has one class all along: use Design.instances(sets, shots)"
            )
        if self.test == "instances" and self.overwrite:
            raise ValueError("labels of an instance test are not used again: leave overwrite False")

    @staticmethod
    def instances(sets: int, shots: int) -> Design:
        """`sets` * `shots` images of one class, each a label of its own."""
        return Design(sets, 1, shots, sets, test="instances")

    @property
    def images(self) -> int:
        """Of one support set."""
        return self.way * self.shots

    @property
    def classes(self) -> int:
        """That an episode draws."""
        return self.way * self.sets // self.change_every

    @property
    def outputs(self) -> int:
        """Labels of an episode."""
        if self.test == "instances":
            return self.sets * self.shots
        return self.way if self.overwrite else self.classes

    @property
    def targets(self) -> int:
        return self.outputs if self.test == "instances" else self.classes * self.queries

    @property
    def instances_needed(self) -> int:
        """Images that a class must have to be drawn."""
        own = self.shots * self.change_every
        return own if self.test == "instances" else own + self.queries


class Shelf(eqx.Module):
    """Rows of the images of each class; -1 where a class has fewer than the largest."""

    rows: Int[Array, "classes most"]

    def of(self, classes: Shaped[Array, " chosen"]) -> Shelf:
        """Some of the classes."""
        return Shelf(self.rows[classes])

    def fits(self, design: Design) -> Shelf:
        """Only the classes with enough images for a design.

        Raises `ValueError` where fewer of them are left than an episode draws.
        """
        enough = (np.asarray(self.rows) >= 0).sum(axis=1) >= design.instances_needed
        if enough.sum() < design.classes:
            raise ValueError(
                f"an episode draws {design.classes} classes with {design.instances_needed} images each, and "
                f"{enough.sum()} of {len(enough)} classes have as many: take fewer classes, sets, shots or queries"
            )
        return self.of(np.flatnonzero(enough))  # pyright: ignore


def by_class(labels: Sequence[Any] | np.ndarray) -> Shelf:
    """A shelf of labels [n] of any kind; classes in sorted order. Raises `ValueError` for none."""
    values, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if numbers.ndim != 1 or not len(values):
        raise ValueError("labels must be one for each image, [n], and at least one")
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    rows = np.full((len(values), max(map(len, parts))), -1, np.int32)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return Shelf(jnp.asarray(rows))


def draw(key: PRNGKeyArray, design: Design, shelf: Shelf) -> Episode:
    """An episode at random: classes and their images without replacement, in an order of its own.

    The shelf must hold enough for the design (`Shelf.fits` sees to it), which cannot be checked while
    this is traced.

    Raises `ValueError` for a shelf with too few classes, or too few images in its largest.
    """
    count, most = shelf.rows.shape
    if count < design.classes or most < design.instances_needed:
        raise ValueError(
            f"an episode draws {design.classes} classes with {design.instances_needed} images each; the shelf has "
            f"{count} classes of at most {most}"
        )
    which, order = jax.random.split(key)
    rows = shelf.rows[jax.random.permutation(which, count)[: design.classes]]
    lots = jnp.where(rows < 0, 2.0, jax.random.uniform(order, rows.shape))
    rows = jnp.take_along_axis(rows, jnp.argsort(lots, axis=1), axis=1)
    blocks = design.sets // design.change_every
    own = design.shots * design.change_every
    # [block, class, set of the block, shot], then sets in order
    shown = rows[:, :own].reshape(blocks, design.way, design.change_every, design.shots)
    support = shown.swapaxes(1, 2).reshape(design.sets, design.images)
    if design.test == "instances":
        labels = jnp.arange(design.outputs).reshape(design.sets, design.images)
        at = jnp.repeat(jnp.arange(design.sets), design.images)
        return Episode(support, labels, support.ravel(), labels.ravel(), at)
    numbers = jnp.arange(design.classes).reshape(blocks, design.way)
    names = numbers % design.way if design.overwrite else numbers
    labels = jnp.broadcast_to(names[:, :, None, None], shown.shape).swapaxes(1, 2)
    queries = (design.classes, design.queries)
    at = (jnp.arange(design.classes) // design.way + 1) * design.change_every - 1
    return Episode(
        support,
        labels.reshape(support.shape),
        rows[:, own : own + design.queries].ravel(),
        jnp.broadcast_to(names.reshape(-1, 1), queries).ravel(),
        jnp.broadcast_to(at[:, None], queries).ravel(),
    )


def draw_many(key: PRNGKeyArray, design: Design, shelf: Shelf, count: int) -> Episode:
    """So many episodes, stacked: every array has the episode as its first axis."""
    return jax.vmap(lambda k: draw(k, design, shelf))(jax.random.split(key, count))


def reordered(episode: Episode, order: Int[Array, " sets"]) -> Episode:
    """The same support sets in another order, labels and targets as they are: set `order[0]` comes first."""
    order = jnp.asarray(order)
    place = jnp.argsort(order)
    # A class of several sets is met last where the latest of them now stands.
    has = jax.vmap(lambda label: (episode.labels == label).any(axis=1))(episode.target_labels)
    last = jnp.where(has, place, -1).max(axis=1)
    return episode._replace(
        rows=episode.rows[order], labels=episode.labels[order], target_set=last.astype(episode.target_set.dtype)
    )  # fmt: skip


def arrangements(total: int) -> tuple[tuple[int, int], ...]:
    """All ways to show `total` images in sets of equal size, as (sets, images of each), from one set on.

    Raises `ValueError` for no image.
    """
    if total < 1:
        raise ValueError(f"total must be at least 1 image, not {total}")
    return tuple((sets, total // sets) for sets in range(1, total + 1) if total % sets == 0)
