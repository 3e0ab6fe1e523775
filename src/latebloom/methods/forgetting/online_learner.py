"""A classifier that learns from a stream of labelled batches, each seen once, whatever comes: OnPro for data of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped
from numpy.typing import ArrayLike

from latebloom.core import memory as memories
from latebloom.core.calling import builder, call
from latebloom.core.checkpoint import load_arrays, save_arrays
from latebloom.core.memory import RESERVOIR, Items, Memory
from latebloom.core.training import gradients, trainable, update
from latebloom.methods.forgetting.contrast import prototypes
from latebloom.methods.forgetting.method import Batch, Lesson
from latebloom.methods.forgetting.mixing import class_pairs, pair_distances
from latebloom.methods.forgetting.prototypes import Known, OnPro, as_matrix, begun
from latebloom.nn.projected import Projected

DIVERGED = "training has diverged, weights are not finite: take a lower rate"


class Learning(NamedTuple):
    """All that the next batch depends on."""

    model: Any
    moments: Any
    own: Known
    memory: Memory
    key: PRNGKeyArray
    step: Int[Array, ""]


class OnlineLearner:
    """`observe(x, y)` any number of examples at a time, `predict(x)` at any time.

    - `encoder`: an Equinox network that makes features [n, d], of a batch or an example, or `encoder(key)` that
      builds one; a readout for so many `classes`, and a projection to `projected` dimensions, at most d, are put on it.
    - `memory`: how many examples are kept, by reservoir sampling, and `replay`: how many are replayed with
      `batch_size` new ones.
    - `method`: an `OnPro`, which says what views suit the examples. Left out, they are images that may be mirrored, turned
      and cropped.
    - `optimiser`: left out, Adam at `rate` with momenta 0.9 and 0.99, and a weight decay of 0.0001 on what has
      a gradient: a leaf frozen by `stop_gradient` stays.
    - `settled`: a batch with a class that was never seen begins a new task, once the last has had so many
      batches. Until the first is over cross-entropy is on what comes, then on what is replayed. `observe(..., task=...)` says it instead:
      needed where all classes are there from the start, or the first task would never be over.
    - `watch`: after every so many batches the distances of the prototypes are kept; 0 for never.

    Raises `ValueError` for sizes that do not fit each other.
    """

    def __init__(
        self, encoder: Any, classes: int, *, memory: int = 200, replay: int = 64, batch_size: int = 10,
        projected: int = 128, method: OnPro | None = None, rate: float = 5e-4,
        optimiser: optax.GradientTransformation | None = None, settled: int = 10, watch: int = 100, seed: int = 0,
    ):  # fmt: skip
        numbers = {"classes": classes, "memory": memory, "replay": replay, "batch_size": batch_size, "projected": projected}  # fmt: skip
        for name, value in numbers.items():
            if not (isinstance(value, int | np.integer) and value >= 1):
                raise ValueError(f"{name} must be a whole number, at least 1, not {value}")
        if replay > memory:
            raise ValueError(f"replay must be at most the {memory} places of the memory, not {replay}")  # fmt: skip
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be a number above 0, not {rate}")
        if min(settled, watch) < 0:
            raise ValueError(f"settled and watch must be at least 0, not {settled} and {watch}")
        self.classes: list[Any] = []
        self.method = OnPro() if method is None else method
        if self.method.distilled:
            raise ValueError("the method must not be distilled: that needs the ends of tasks")
        self._encoder, self._outputs, self._seed = builder(encoder), classes, seed
        self._size, self._replay, self._batch, self._projected = memory, replay, batch_size, projected  # fmt: skip
        self._settled, self._watch = settled, watch
        adam = optax.chain(_decayed(1e-4), optax.adam(rate, b1=0.9, b2=0.99))
        self._rule = adam if optimiser is None else optimiser
        self._rate = float(rate) if optimiser is None else None
        self._state: Learning | None = None
        self._form: tuple[tuple[int, ...], str] | None = None
        self._task, self._since = 0, 0
        self._tasks: list[Any] = []
        self._looks: list[tuple[int, np.ndarray]] = []

    def observe(self, x: Shaped[Any, "n ..."], y: ArrayLike, *, task: Any = None) -> None:
        """Learn from n examples, in their order, `batch_size` at a time.

        - `x` [n, ...] finite floating-point numbers; `y` [n]: whole numbers or names; new ones are new classes.
        - `task`: a whole number or a name, of which each new one begins a new task.

        Raises `ValueError` for arrays that do not fit each other or what came before, for more classes than were
        announced, and where training has diverged.
        """
        x, y, task = self._checked(x), _names(y), None if task is None else _plain(task)
        if not len(x) or len(x) != len(y):
            raise ValueError(f"x must be [n, ...] and y its n classes, not {list(x.shape)} and {len(y)} of them")  # fmt: skip
        known = set(self.classes)
        new = [c for c in dict.fromkeys(y) if c not in known]
        if len(known) + len(new) > self._outputs:
            raise ValueError(
                f"y has the new class {new[0]!r}, but {len(known)} of the {self._outputs} announced are known: "
                "announce more classes"
            )
        for start in range(0, len(x), self._batch):
            self._learn(x[start : start + self._batch], y[start : start + self._batch], task)

    def _learn(self, x: np.ndarray, y: list[Any], task: Any) -> None:
        state = self._started(x.shape[1:], x.dtype) if self._state is None else self._state
        classes = list(dict.fromkeys([*self.classes, *y]))
        running, tasks, number = int(state.step) > 0, self._tasks, self._task
        first = not running
        if task is not None:
            first = task not in tasks
            tasks = [*tasks, task] if first else tasks
        elif len(classes) > len(self.classes) and self._since >= self._settled:
            first = True
        number += first and running
        place = {name: i for i, name in enumerate(classes)}
        n, room = len(y), self._batch
        rows = np.arange(room) % n
        labels = np.array([place[name] for name in y], np.int32)[rows]
        state = _stepped(
            self.method, self._rule, self._replay, state, jnp.asarray(x[rows]), jnp.asarray(labels),
            jnp.arange(room) < n, jnp.int32(number), jnp.asarray(first), jnp.arange(self._outputs) < len(classes),
        )  # fmt: skip
        # All at once: after a batch that cannot be learned from everything is as before.
        self._state, self.classes, self._tasks, self._task = state, classes, tasks, number
        self._since = 1 if first else self._since + 1
        self._form = x.shape[1:], str(x.dtype)
        if self._watch and int(state.step) % self._watch == 0:
            if not _finite(state.model):
                raise ValueError(DIVERGED)
            self._looks.append((int(state.step), self.distances().to_numpy()))

    def _checked(self, x: Any) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim < 2:
            raise ValueError(f"x must be examples [n, ...], not {list(x.shape)}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"x must be floating-point numbers, such as pixels / 255, not {x.dtype}")  # fmt: skip
        wide = x.astype(np.float32)
        if not np.isfinite(wide).all():
            raise ValueError(f"x is not finite in row {int(np.argwhere(~np.isfinite(wide))[0][0])}")
        if x.dtype == np.float64:
            x = wide
        if self._form is not None and (x.shape[1:], str(x.dtype)) != self._form:
            raise ValueError(
                f"x must be {self._form[1]} [n, {', '.join(map(str, self._form[0]))}] as before, "
                f"not {x.dtype} {list(x.shape)}"
            )
        return x

    def _started(self, shape: tuple[int, ...], dtype: Any) -> Learning:
        one, other, key = jax.random.split(jax.random.key(self._seed), 3)
        example = jax.ShapeDtypeStruct((2, *shape), dtype)
        model = Projected.around(
            self._encoder(one), example, self._outputs, self._projected, key=other
        )
        features = eqx.filter_eval_shape(call, model.encoder, example).shape[1]
        if self._projected > features:
            raise ValueError(f"projected must be at most the {features} features, not {self._projected}")  # fmt: skip
        # As they are after a step, so that a saved learner fits a new one.
        model = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, model)
        memory = memories.empty(self._size, jax.ShapeDtypeStruct(shape, dtype))
        return Learning(
            model, self._rule.init(trainable(model)), begun(self._outputs), memory, key, jnp.int32(0)
        )  # fmt: skip

    @property
    def model(self) -> Projected:
        """The network; called on examples it gives logits, in the order of `classes`."""
        return self._known().model

    @property
    def seen(self) -> int:
        """How many batches were learned from."""
        return 0 if self._state is None else int(self._state.step)

    def _known(self) -> Learning:
        if self._state is None:
            raise ValueError("nothing was observed so far")
        return self._state

    def scores(self, x: Shaped[Any, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Logits of the classes seen so far, in the order of `classes`.

        Raises `ValueError` for examples unlike those that were observed, and where training has diverged.
        """
        model = self.model
        x = np.asarray(x)
        if self._form is not None and jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.dtype(self._form[1]))
        outputs = np.asarray(_called(model, jnp.asarray(self._checked(x))), np.float32)
        if not np.isfinite(outputs).all():
            raise ValueError(DIVERGED)
        return outputs[:, : len(self.classes)]

    def predict(self, x: Shaped[Any, "n ..."]) -> np.ndarray:
        """The class of each example, [n], among those seen so far."""
        return _as_array(self.classes)[self.scores(x).argmax(axis=1)]

    def confusion(self, x: Shaped[Any, "n ..."], y: ArrayLike) -> pd.DataFrame:
        """How many examples of each class [rows] are told as which [columns]."""
        if len(np.asarray(x)) != len(_names(y)):
            raise ValueError(f"y must be a class for each of the {len(np.asarray(x))} examples, not {len(_names(y))}")  # fmt: skip
        names = list(dict.fromkeys([*self.classes, *_names(y)]))
        told, place = self.scores(x).argmax(axis=1), {name: i for i, name in enumerate(names)}
        counts = np.zeros((len(names), len(self.classes)), int)
        np.add.at(counts, ([place[name] for name in _names(y)], told), 1)
        return pd.DataFrame(
            counts, pd.Index(names, name="class"), pd.Index(self.classes, name="told")
        )

    def accuracy(self, x: Shaped[Any, "n ..."], y: ArrayLike) -> pd.Series:
        """Accuracy on the examples of each class, NaN for one without any."""
        table = self.confusion(x, y)
        right = [table[name][name] if name in table else 0 for name in table.index]
        count = table.sum(axis=1)
        return pd.Series(right / count.where(count > 0), table.index, name="accuracy")

    def memory(self) -> tuple[np.ndarray, np.ndarray]:
        """The examples that are remembered, and their classes."""
        memory = self._known().memory
        there = np.asarray(memory.filled)
        labels = np.asarray(memory.items.labels)[there]
        return np.asarray(memory.items.extra)[there], _as_array(self.classes)[labels]

    @property
    def memory_bytes(self) -> int:
        """What the memory takes."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._known().memory))

    def distances(self) -> pd.DataFrame:
        """Distances of the classes' prototypes: means over what is remembered of projections of length 1.

        NaN for a class of which nothing is remembered, or that is the same.
        """
        state = self._known()
        apart = np.array(_apart(state.model, state.memory, self._outputs))
        apart = np.where(np.isfinite(apart), apart, np.nan)[
            : len(self.classes), : len(self.classes)
        ]
        return pd.DataFrame(apart, pd.Index(self.classes, name="class"), pd.Index(self.classes, name="other"))  # fmt: skip

    def confusable(self, count: int = 5) -> pd.DataFrame:
        """The pairs of classes whose prototypes are closest, and their distance."""
        apart = self.distances()
        a, b = class_pairs(len(apart))
        table = pd.DataFrame({"class": apart.index[a], "other": apart.index[b], "distance": apart.to_numpy()[a, b]})  # fmt: skip
        return table.dropna().nsmallest(count, "distance").reset_index(drop=True)

    def over_time(self) -> xr.DataArray:
        """[batches, class, other]: the distances of prototypes as they were watched; NaN before a class came."""
        n = len(self.classes)
        table = np.full((len(self._looks), n, n), np.nan)
        for row, (_, apart) in zip(table, self._looks, strict=True):
            row[: len(apart), : len(apart)] = apart
        names = {"batches": [step for step, _ in self._looks], "class": self.classes, "other": self.classes}  # fmt: skip
        return xr.DataArray(table, names, ("batches", "class", "other"), name="distance")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the next batch depends on, aside and then renamed; `load` goes on to the bit."""
        leaves = jax.tree.leaves(eqx.filter(self._known(), eqx.is_array))
        arrays = {f"{i}": leaf for i, leaf in enumerate(leaves)}
        arrays |= {f"look{i}": apart for i, (_, apart) in enumerate(self._looks)}
        assert self._form is not None
        note = {
            "settings": self._settings(), "form": [list(self._form[0]), self._form[1]], "classes": self.classes,
            "task": self._task, "since": self._since, "tasks": self._tasks, "looks": [step for step, _ in self._looks],
        }  # fmt: skip
        save_arrays(path, arrays, note)

    def load(self, path: str | os.PathLike[str]) -> OnlineLearner:
        """Take over what another learner, made with the same settings, has saved; itself.

        Raises `DamagedFile` for a file that is not what was written, `ValueError` for other settings or another encoder.
        """
        arrays, note = load_arrays(Path(path))
        if note["settings"] != self._settings():
            raise ValueError(f"{path} was saved with other settings: make the learner with those")
        shape, dtype = tuple(note["form"][0]), jnp.dtype(note["form"][1])
        state = self._started(shape, dtype)
        held, rest = eqx.partition(state, eqx.is_array)
        old, tree = jax.tree.flatten(held)
        count = sum(name.isdigit() for name in arrays)
        new = [jnp.asarray(arrays[f"{i}"]) for i in range(count)]
        if [(a.shape, a.dtype) for a in old] != [(a.shape, a.dtype) for a in new]:
            raise ValueError(f"{path} was saved of another encoder or optimiser")
        self._state = eqx.combine(jax.tree.unflatten(tree, new), rest)
        self._form = shape, str(dtype)
        self.classes, self._tasks = list(note["classes"]), list(note["tasks"])
        self._task, self._since = note["task"], note["since"]
        self._looks = [(step, arrays[f"look{i}"]) for i, step in enumerate(note["looks"])]
        return self

    def _settings(self) -> str:
        own = (self._outputs, self._size, self._replay, self._batch, self._projected, self._settled, self._watch, self._rate)  # fmt: skip
        # Arrays by their values; functions by their names, since their addresses change.
        leaves = [np.asarray(v).tolist() if eqx.is_array_like(v) else getattr(v, "__name__", type(v).__name__)
                  for v in jax.tree.leaves(self.method)]  # fmt: skip
        view = self.method.view
        seen = repr(view) if isinstance(view, eqx.Module) else getattr(view, "__name__", type(view).__name__)  # fmt: skip
        return repr((own, leaves, self.method.feedback, self.method.copies, self.method.per_class, seen))  # fmt: skip


def _decayed(rate: float) -> optax.GradientTransformation:
    """Adds `rate` times the weights to the gradients of leaves that have any.

    Adam would move a leaf without a gradient, which is frozen, by the full learning rate.
    """

    def one(slope: Array, weight: Array) -> Array:
        return jnp.where(jnp.any(slope != 0), slope + rate * weight, slope)

    return optax.stateless(lambda slopes, weights: jax.tree.map(one, slopes, weights))


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int):
        raise ValueError(f"classes and tasks must be whole numbers or names, not {value!r}")
    return value


def _names(y: Any) -> list[Any]:
    # Of a list NumPy would make names of the numbers among names.
    labels = np.asarray(y, object if isinstance(y, list | tuple) else None)
    if labels.ndim != 1:
        raise ValueError(f"y must be a class for each example, [n], not {list(labels.shape)}")
    return [_plain(label) for label in labels.tolist()]


def _as_array(classes: list[Any]) -> np.ndarray:
    """As NumPy has them; numbers and names together as objects, since NumPy would make all of them names."""
    mixed = len({isinstance(name, str) for name in classes}) > 1
    return np.array(classes, object if mixed else None)


def _finite(model: Any) -> bool:
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


def _batch(items: Items, there: Bool[Array, " n"], outputs: int) -> Batch:
    allowed = jnp.ones((len(there), outputs), bool)
    return Batch(items.extra, items.labels, items.task, allowed, there)


@eqx.filter_jit
def _stepped(
    method: OnPro, rule: optax.GradientTransformation, replay: int, state: Learning, x: Array, y: Array,
    there: Array, task: Array, first: Array, seen: Array,
) -> Learning:  # fmt: skip
    outputs = len(seen)
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
    rows = jnp.full(len(y), state.step, jnp.int32)
    items = Items(rows, y, jnp.full(len(y), task), x)
    drawn, held = memories.draw(state.memory, keys[0], replay)
    place = jnp.arange(replay)
    shown = jax.tree.map(lambda v: v[place % jnp.maximum(held.sum(), 1)], drawn)
    instead = jax.tree.map(lambda v: v[place % len(y)], items)
    old = jax.tree.map(lambda a, b: jnp.where(held.any(), a, b), shown, instead)

    def batch_of(items: Items, there: Array) -> Batch:
        return _batch(items, there, outputs)

    lesson = Lesson(
        lambda model, x: call(model, x, keys[1], True), lambda model, x: call(model, x, None, False),
        batch_of(items, there), batch_of(old, held), None, task, first, seen, state.memory, batch_of, lambda: keys[2],
    )  # fmt: skip

    def loss(model: Any) -> tuple[Array, Any]:
        found = method.losses(model, state.own, lesson)
        return jnp.asarray(found.plasticity + found.stability, jnp.float32), found.own

    slopes, statistics, own = gradients(loss, state.model, has_aux=True)
    model, moments = update(rule, slopes, state.moments, state.model, statistics)
    memory = memories.add(state.memory, RESERVOIR, items, keys[3], there)
    return Learning(model, moments, jax.lax.stop_gradient(own), memory, state.key, state.step + 1)


@eqx.filter_jit
def _called(model: Any, x: Array) -> Array:
    return call(model, x)


@eqx.filter_jit
def _apart(model: Projected, memory: Memory, classes: int) -> Array:
    z = model.projection(call(model.encoder, memory.items.extra))
    found = prototypes(z, z, memory.items.labels, memory.filled, classes)
    return as_matrix(pair_distances(found.both, found.present), classes)
