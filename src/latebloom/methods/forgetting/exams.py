"""Many ways of few-shot learning examined on the same episodes, once a network is pretrained.

A cell is a design, learned in one way. Cells of one shape are learned one after the other by one compiled
loop, their episodes side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.methods.forgetting import few_shot
from latebloom.methods.forgetting.corrupted import KINDS, corrupted
from latebloom.methods.forgetting.episodes import Design, Episode, Shelf, draw, reordered
from latebloom.methods.forgetting.few_shot import (
    Learner,
    Replay,
    Statistics,
    Tuning,
    answers,
    correct,
)
from latebloom.methods.forgetting.pretraining import Pretrained, Pretraining

SIMPLE = ("dot", "euclidean", "nearest", "logistic", "pixels")
STATISTICS = ("batch", "running", "alone")
FRACTIONS = tuple(round(0.1 * i, 1) for i in range(10))


@dataclass(frozen=True)
class Cell:
    """A design, learned in one way; `rate` names an entry of the tuned rates.

    Batch normalisation goes by the images of a batch in what tunes, by running statistics in what compares features
    of a network that stays as it is, both as in the released code.
    """

    design: Design
    how: str
    steps: int = 1
    rate: str = ""
    memory: int = 1
    replayed: int = 0
    images: str = "glyphs"
    backwards: bool = False
    episodes: int = 1  # of a third, where 3

    @property
    def statistics(self) -> Statistics:
        return "running" if self.how in SIMPLE else "batch"


@dataclass(frozen=True)
class Plan:
    """What is examined: `episodes` of each of the `cells`, (name, cell), on classes of a `part`.

    - `course`: ways of learning one long sequence of new classes, (name, cell), all of one design; examined on all
      classes so far after so many sets as `checks` says.
    - `robust`, `leaking`, `ordered`: names of cells that are also asked for corrupted targets; with other
      statistics of batch normalisation; by support set.
    - `rates`: for tuning, learning rates that each cell is run at instead of its own.
    """

    cells: tuple[tuple[str, Cell], ...]
    episodes: int
    course: tuple[tuple[str, Cell], ...] = ()
    checks: tuple[int, ...] = ()
    robust: tuple[str, ...] = ()
    leaking: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    part: Literal["validation", "test"] = "test"
    rates: tuple[float, ...] = ()


class Exams(Pretraining):
    """Pretraining, and every cell of a suite when it is looked at."""

    seeds_by: ClassVar[Literal["vmap", "map"]] = "map"
    plan: Plan = eqx.field(static=True, default=Plan((), 1))
    shelves: dict[str, Shelf] = eqx.field(default_factory=dict)  # of images that are no glyphs
    rates: dict[str, Array] = eqx.field(default_factory=dict)

    def observe(self, state: Pretrained) -> dict[str, Array]:
        cells, groups = dict(self.plan.cells), {}
        for name, c in cells.items():
            shape = (c.design.sets, c.design.images, c.design.outputs, c.replayed, c.episodes)
            groups.setdefault(name if c.how in SIMPLE else shape, []).append(name)
        if self.plan.rates:
            return {"accuracy": self._tried(state, cells, groups)}
        found, robust, leak, by_set = {}, {}, {}, {}
        for names in groups.values():
            mine = [cells[name] for name in names]
            stacked = [self.episodes(state, c) for c in mine]
            after: Any = [None] * len(mine)
            if mine[0].how not in SIMPLE:
                every = self.learned(state, mine, stacked, [self.rates[c.rate] for c in mine])
                after = [_at(every, i) for i in range(len(mine))]
            for name, c, episodes, learner in zip(names, mine, stacked, after, strict=True):
                right = self.right(state, c, episodes, learner)
                found[name] = right.mean()
                if name in self.plan.ordered:
                    by_set[name] = _by_set(right, episodes, c.design.sets)
                if name in self.plan.robust:
                    robust[name] = self.robust(state, c, episodes, learner)
                if name in self.plan.leaking:
                    leak[name] = jnp.stack([self.right(state, c, episodes, learner, s).mean() for s in STATISTICS])  # fmt: skip
        out = {"accuracy": jnp.stack([found[name] for name in cells])}
        if robust:
            out["robust"] = jnp.stack([robust[name] for name in self.plan.robust])
        if leak:
            out["leak"] = jnp.stack([leak[name] for name in self.plan.leaking])
        if by_set:
            out["by_set"] = jnp.stack([by_set[name] for name in self.plan.ordered])
        if self.plan.course:
            out["course"] = self.course(state)
        return out

    def course(self, state: Pretrained) -> Array:
        """Accuracy [way of learning, check] on all classes so far along one long sequence of sets."""
        plan, rows = self.plan, []
        for _, c in plan.course:
            design, after = c.design, None
            episodes = self.episodes(state, c)
            if c.how not in SIMPLE:
                after = _at(
                    self.learned(state, [c], [episodes], [self.rates[c.rate]], plan.checks), 0
                )
            row = []
            for i, sets in enumerate(plan.checks):
                n = sets * design.way
                part = Episode(episodes.rows[:, :sets], episodes.labels[:, :sets], *(a[:, : n * design.queries] for a in episodes[2:]))  # fmt: skip
                now = None if after is None else jax.tree.map(lambda a, i=i: a[:, i] if eqx.is_array(a) else a, after)  # fmt: skip
                row.append(self.right(state, replace(c, design=Design(sets, design.way)), part, now).mean())  # fmt: skip
            rows.append(jnp.stack(row))
        return jnp.stack(rows)

    def episodes(self, state: Pretrained, c: Cell) -> Episode:
        """The same images for all cells of a seed that draw as many, in the order in which they come."""
        shelf = self.shelves[c.images] if c.images in self.shelves else self.part(state, self.plan.part)  # fmt: skip
        count = max(1, self.plan.episodes // c.episodes)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(state.key, 7), i))(
            jnp.arange(count)
        )
        found = jax.vmap(lambda k: draw(k, c.design, shelf))(keys)
        back = jnp.arange(c.design.sets)[::-1]
        return jax.vmap(lambda e: reordered(e, back))(found) if c.backwards else found

    def learned(
        self, state: Pretrained, cells: Sequence[Cell], episodes: Sequence[Episode], rates: Sequence[Array],
        checks: Sequence[int] = (),
    ) -> Learner:  # fmt: skip
        """Learners [cell, episode] of cells of one shape: cells one after the other, episodes side by side; after
        `checks` sets, [cell, episode, check]."""
        start, first = self.learner(state, cells[0].design.outputs), cells[0]
        arrays, static = eqx.partition(start, eqx.is_array)
        rows = jnp.stack([e.rows for e in episodes]), jnp.stack([e.labels for e in episodes])
        numbers = jnp.array([(c.steps, c.memory, c.how == "replay") for c in cells])

        def of_cell(given: tuple[Any, ...]) -> Any:
            (rows, labels), (steps, memory, earlier), rate = given
            replay = Replay(first.replayed, memory, earlier == 1) if first.replayed else None
            keys = jax.random.split(jax.random.fold_in(state.key, 8), len(rows))

            def of_episode(rows: Array, labels: Array, key: PRNGKeyArray) -> Any:
                shown = Episode(rows, labels, rows[0], labels[0], labels[0])
                start = eqx.combine(arrays, static)
                after = few_shot.tuned(start, self.images, shown, Tuning(rate, steps, replay), key, bool(checks))  # fmt: skip
                kept = eqx.filter(after, eqx.is_array)
                at = np.array(checks) - 1
                return jax.tree.map(lambda a: a[at], kept) if checks else kept

            return jax.vmap(of_episode)(rows, labels, keys)

        return eqx.combine(jax.lax.map(of_cell, (rows, numbers, jnp.stack(list(rates)))), static)

    def _tried(self, state: Pretrained, cells: dict[str, Cell], groups: dict[Any, list[str]]) -> Array:  # fmt: skip
        """Accuracy [cell, rate]."""
        found = {}
        for names in groups.values():
            every = [(name, rate) for name in names for rate in self.plan.rates]
            mine = [cells[name] for name, _ in every]
            stacked = [self.episodes(state, c) for c in mine]
            after = self.learned(state, mine, stacked, [jnp.float32(rate) for _, rate in every])
            for test in dict.fromkeys(c.design.test for c in mine):  # one exam for all of a test
                places = np.array([i for i, c in enumerate(mine) if c.design.test == test])
                episodes = jax.tree.map(
                    lambda *a: jnp.concatenate(a), *(stacked[i] for i in places)
                )
                some = jax.tree.map(lambda a, at=places: a[at].reshape(-1, *a.shape[2:]) if eqx.is_array(a) else a, after)  # fmt: skip
                right = self.right(state, mine[places[0]], episodes, some)
                for i, share in zip(
                    places, right.reshape(len(places), -1).mean(axis=1), strict=True
                ):
                    found[every[i]] = share
        return jnp.array([[found[name, rate] for rate in self.plan.rates] for name in cells])

    def answer(self, state: Pretrained, c: Cell, episode: Episode, learner: Any, x: Array, statistics: Any) -> Array:  # fmt: skip
        """Logits [targets, outputs]; a head for more classes than there have been answers with those."""
        if c.how not in SIMPLE:
            return answers(learner, x, statistics)[:, : c.design.outputs]
        body = (lambda x: x.reshape(len(x), -1)) if c.how == "pixels" else state.learner.body
        known = few_shot.embedded(body, self.images, episode, statistics)
        asked, labels = answers(body, x, statistics), episode.labels.ravel()
        if c.how in ("nearest", "pixels"):
            return few_shot.nearest(asked, known, labels, c.design.outputs)
        if c.how == "logistic":
            return few_shot.logistic(asked, known, labels, c.design.outputs)
        metric: Any = c.how
        return few_shot.compared(asked, few_shot.prototypes(known, labels, c.design.outputs), metric)  # fmt: skip

    def right(self, state: Pretrained, c: Cell, episodes: Episode, learners: Any, statistics: str | None = None) -> Array:  # fmt: skip
        """1 or 0 [episode, target], by the cell's own statistics or others; "alone": targets of each label by
        themselves, as a batch."""
        statistics = c.statistics if statistics is None else statistics
        arrays, static = eqx.partition(learners, eqx.is_array)

        def one(given: tuple[Episode, Any]) -> Array:
            episode, own = given
            x, learner = self.images[episode.target_rows], eqx.combine(own, static)
            if statistics == "alone":
                parts = x.reshape(c.design.outputs, -1, *x.shape[1:])
                logits = jax.lax.map(lambda p: self.answer(state, c, episode, learner, p, "batch"), parts)  # fmt: skip
                return correct(logits.reshape(len(x), -1), episode.target_labels)
            return correct(self.answer(state, c, episode, learner, x, statistics), episode.target_labels)  # fmt: skip

        return jax.lax.map(one, (episodes, arrays))

    def robust(self, state: Pretrained, c: Cell, episodes: Episode, learners: Any) -> Array:
        """Accuracy [kind, fraction] on corrupted targets."""
        arrays, static = eqx.partition(learners, eqx.is_array)
        pairs = jnp.array([(k, f) for k in range(len(KINDS)) for f in FRACTIONS])

        def one(given: tuple[Episode, Any, PRNGKeyArray]) -> Array:
            episode, own, key = given
            x, learner = self.images[episode.target_rows], eqx.combine(own, static)
            ways = [partial(_spoilt, kind, key) for kind in KINDS]

            def at(pair: Array) -> Array:
                spoilt = jax.lax.switch(pair[0].astype(int), ways, x, pair[1])
                logits = self.answer(state, c, episode, learner, spoilt, c.statistics)
                return correct(logits, episode.target_labels).mean()

            return jax.lax.map(at, pairs)

        keys = jax.random.split(jax.random.fold_in(state.key, 9), len(episodes.rows))
        return jax.lax.map(one, (episodes, arrays, keys)).mean(axis=0).reshape(len(KINDS), -1)

    def quantities(self) -> dict[str, Quantity]:
        plan, names = self.plan, tuple(name for name, _ in self.plan.cells)
        if plan.rates:
            return {"accuracy": Quantity(dims=("cell", "rate"), coords={"cell": names, "rate": plan.rates})}  # fmt: skip
        cells = dict(plan.cells)
        sets = cells[plan.ordered[0]].design.sets if plan.ordered else 1
        return {
            "accuracy": Quantity(dims=("cell",), coords={"cell": names}),
            "robust": Quantity(dims=("asked", "kind", "fraction"), coords={"asked": plan.robust, "kind": KINDS, "fraction": FRACTIONS}),
            "leak": Quantity(dims=("leaking", "statistics"), coords={"leaking": plan.leaking, "statistics": STATISTICS}),
            "by_set": Quantity(dims=("ordered", "set"), coords={"ordered": plan.ordered, "set": range(sets)}),
            "course": Quantity(dims=("how", "check"), coords={"how": [name for name, _ in plan.course], "check": range(len(plan.checks))}),
        }  # fmt: skip


def _spoilt(kind: Any, key: PRNGKeyArray, x: Array, fraction: Array) -> Array:
    return corrupted(x, fraction, kind=kind, key=key)


def _at(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda a: a[i] if eqx.is_array(a) else a, tree)


def _by_set(right: Array, episodes: Episode, sets: int) -> Array:
    at = jax.nn.one_hot(episodes.target_set, sets)
    return (right[..., None] * at).sum(axis=(0, 1)) / at.sum(axis=(0, 1))
