"""One network that learns named tasks one after the other, each in a sparse sub-network of its own.

For networks and arrays of one's own; what happens in a task is that of `subnetworks`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, Shaped
from numpy.typing import ArrayLike
from scipy import sparse

from latebloom.core.calling import Given, call
from latebloom.core.checkpoint import load_arrays, save_arrays
from latebloom.core.dataset import Dataset
from latebloom.core.process import advanced
from latebloom.core.stream import Exams, Stream
from latebloom.methods.forgetting.continual import ContinualState
from latebloom.methods.forgetting.subnetworks import Subnetworks
from latebloom.methods.forgetting.topology import Topology, stepped_adam
from latebloom.nn.masks import dense_masks, layer_names, masked, named_masks
from latebloom.nn.rewiring import GROWTHS


class Learned(NamedTuple):
    """A finished task: its mask, its own biases and normalisation, its classes and their outputs."""

    mask: Any
    kept: Any
    classes: np.ndarray
    outputs: np.ndarray
    fitted: float  # training accuracy since the last update of the topology


class SparseContinualNet:
    """`learn(task, x, y)` one task after the other, `predict(task, x)` any of them, at any time, with the same answers.

    `save(path)` and `load(path)` keep it beyond the session.

    - `model`: an Equinox network, of a batch or of an example, with an output for each class of all tasks
      together.
    - `topology`: density, initialisation, growth and all else of `Topology`.
    - `rate` of Adam, which falls to a tenth after half of a task and again after three quarters; or an
      `optimiser` of your own, which needs momentum to grow by it.

    Raises `ValueError` for a model without layers that can be sparse.
    """

    def __init__(
        self, model: Any, topology: Topology | None = None, *, rate: float = 0.01,
        optimiser: optax.GradientTransformation | None = None, seed: int = 0,
    ):  # fmt: skip
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"rate must be a number above 0, not {rate}")
        # Weights read from a file are often NumPy's, which no gradient is taken of.
        model = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, model)
        self.topology = Topology(growth="gradient") if topology is None else topology
        self.rate, self.optimiser, self.key = rate, optimiser, jax.random.key(seed)
        self.model = self._start = model
        self._like = dense_masks(model, self.topology.ignore)
        self._used = jax.tree.map(jnp.zeros_like, self._like)
        self._tries = self._gains = jnp.zeros(len(GROWTHS))
        self._outputs = 0
        self.tasks: dict[Hashable, Learned] = {}

    def learn(
        self, task: Hashable, x: Shaped[Any, "n ..."], y: ArrayLike, *, epochs: int = 10, batch_size: int = 32
    ) -> float:  # fmt: skip
        """Learn a task and freeze what it uses; its training accuracy at the end.

        - `x` [n, ...], finite; `y` [n]: its classes, numbers or names, which get the next free outputs.

        Warns where hardly any weight is free, and where a layer did not move in the first task. Raises `ValueError`
        for a task learned before, for arrays that do not fit each other or hold NaN, for more classes than there
        are outputs left, and where training diverges; then nothing has changed.
        """
        x, classes, index = self._examples(task, x, y)
        if not all(isinstance(n, int | np.integer) and n >= 1 for n in (epochs, batch_size)):
            raise ValueError(
                f"epochs and batch_size must be whole numbers, at least 1, not {epochs} and {batch_size}"
            )
        free = 1 - sum(u.sum() for u in jax.tree.leaves(self._used)) / sum(
            u.size for u in jax.tree.leaves(self._used)
        )
        if self.tasks and free < 0.01:
            warnings.warn(
                f"only {float(free):.2%} of the weights are free: task {task!r} learns little but its biases",
                stacklevel=2,
            )
        batch = min(batch_size, len(x))
        steps = max(epochs * -(-len(x) // batch), 2)
        key = jax.random.fold_in(self.key, len(self.tasks))
        process = self._process(x, jnp.asarray(index, jnp.int32), classes, steps, batch, key)
        state = begun = self._started(process, key)
        done = 0
        for stop in (*process.turns(), steps):
            state = advanced(process, state, stop - done)
            state, done = (_turned(process, state) if stop < steps else state), stop
        fitted = self._over(process, state, task, classes)
        if len(self.tasks) == 1 and len(classes) > 1:
            self._warn_of_the_unmoved(begun)
        return fitted

    def _warn_of_the_unmoved(self, begun: ContinualState) -> None:
        """Of layers whose weights are 0, or what they were when the first task began: no gradient reaches them."""

        def stayed(mask: Any, old: Any, new: Any) -> Any:
            if mask is None or not mask.any():
                return None
            return None if ((new != old) & (new != 0)).any() else mask

        still = jax.tree.map(
            stayed, begun.own.mask, begun.model, self.model, is_leaf=lambda node: node is None
        )
        if names := layer_names(still):
            warnings.warn(
                f"{', '.join(names)} did not learn, but weights were pruned: a layer that is frozen is to be "
                f"whole, in a new learner with Topology(ignore={names})",
                stacklevel=3,
            )

    def _examples(self, task: Hashable, x: Any, y: Any) -> tuple[Array, np.ndarray, np.ndarray]:
        if not isinstance(task, Hashable):
            raise ValueError(f"task must be a name or a number, not {task!r}")
        if task in self.tasks:
            raise ValueError(f"task {task!r} was learned before, and what it uses is frozen")
        x, y = _inputs(x), np.asarray(y)
        y = (
            y.astype(object) if y.dtype.kind == "T" else y
        )  # NumPy's new texts cannot be saved as they are
        if y.ndim != 1 or len(x) != len(y) or not len(y):
            raise ValueError(
                f"x must be [n, ...] and y its n classes, not {list(x.shape)} and {list(y.shape)}"
            )
        if y.dtype.kind == "f":
            _check_finite("y", y)
        try:
            classes, index = np.unique(y, return_inverse=True)
        except TypeError:
            kinds = ", ".join(sorted({type(one).__name__ for one in y}))
            raise ValueError(f"y mixes {kinds}: make all numbers, or all names") from None
        shape = eqx.filter_eval_shape(call, self.model, x[:1])
        if self._outputs + len(classes) > shape.shape[-1]:
            raise ValueError(
                f"task {task!r} has {len(classes)} classes, but only {shape.shape[-1] - self._outputs} of the "
                f"network's {shape.shape[-1]} outputs are left: build it with more"
            )
        return x, classes, index + self._outputs

    def _process(
        self, x: Array, index: Array, classes: np.ndarray, steps: int, batch: int, key: Any
    ) -> Subnetworks:
        outputs = eqx.filter_eval_shape(call, self.model, x[:1]).shape[-1]
        places = np.arange(outputs)
        mine = (places >= self._outputs) & (places < self._outputs + len(classes))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        order = np.concatenate(
            [rng.permutation(len(x)) for _ in range(-(-steps * batch // len(x)))]
        )
        rows = order[: steps * batch].reshape(steps, batch)
        stream = Stream(
            rows=jnp.asarray(rows, jnp.int32), task=jnp.zeros(steps, jnp.int32), classes=jnp.asarray(mine[None]),
            exams=Exams(jnp.zeros((1, 1), jnp.int32), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)), starts=(0,),
        )  # fmt: skip
        rule, hyper = (_Stepped(steps), {"rate": self.rate}) if self.optimiser is None else (_Rule(self.optimiser), {})  # fmt: skip
        return Subnetworks(
            topology=self.topology, model=Given(self._start), data=Dataset(x, index, x[:1], index[:1]),
            stream=Given(stream), optimiser=rule, hyper=hyper,
        )  # fmt: skip

    def _started(self, process: Subnetworks, key: Any) -> ContinualState:
        state = process.init(key)
        # New initial values of the user's own kind are not known: those of the start, shuffled, stand for them.
        fresh = (
            _shuffled(self._start, self._like, jax.random.fold_in(key, 1))
            if self.tasks
            else self._start
        )
        scale = self.topology.refill if self.tasks else jnp.ones(())
        model, mask = process.begun(
            self.model, fresh, self._used, jax.random.fold_in(key, 2), scale
        )
        rule = process._rule(self._tries, self._gains, jax.random.fold_in(key, 3))
        best = state.own.best
        best = None if best is None else best._replace(model=model, mask=mask)
        own = state.own._replace(
            mask=mask, fired=mask, used=self._used, tries=self._tries, gains=self._gains, rule=rule, best=best
        )  # fmt: skip
        return state._replace(model=model, own=own)

    def _over(
        self, process: Subnetworks, state: ContinualState, task: Hashable, classes: np.ndarray
    ) -> float:
        found = process._chosen(state)
        kept = eqx.filter(process._unshared(found.model, found.mask), eqx.is_array)
        # A weight that is not finite would be so in every task: no mask makes it 0.
        if not all(
            jnp.isfinite(x).all()
            for x in jax.tree.leaves(eqx.filter(found.model, eqx.is_inexact_array))
        ):
            raise ValueError(
                f"training of task {task!r} diverged, its weights are not finite: take a lower rate, or "
                "single precision for half; a normalisation of weights divides by 0 where a row is empty"
            )
        if not self.topology.own_biases:
            kept = jax.tree.map(lambda _: None, kept)
        fitted = float(found.accuracy)
        places = self._outputs + np.arange(len(classes))
        self.tasks[task] = Learned(found.mask, kept, classes, places, fitted)
        rule = np.arange(len(GROWTHS)) == int(state.own.rule)
        self._tries, self._gains = self._tries + rule, self._gains + rule * fitted
        self._used = jax.tree.map(jnp.logical_or, self._used, found.mask)
        self.model, self._outputs = found.model, self._outputs + len(classes)
        return fitted

    def network(self, task: Hashable) -> Any:
        """The sub-network of a task: all weights that it does not use are 0, biases are its own, or with
        `own_biases` false those of the last task."""
        known = self._known(task)
        return masked(eqx.combine(known.kept, self.model), known.mask)

    def scores(self, task: Hashable, x: Shaped[Any, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Outputs for the task's classes, in the order of `tasks[task].classes`.

        Raises `ValueError` for a task that was not learned and for inputs that are not finite numbers.
        """
        outputs = _called(self.network(task), _inputs(x))
        return np.asarray(outputs)[:, self._known(task).outputs]

    def predict(self, task: Hashable, x: Shaped[Any, "n ..."]) -> np.ndarray:
        """The class of each example, [n], among those of the task."""
        return self._known(task).classes[self.scores(task, x).argmax(axis=1)]

    def _known(self, task: Hashable) -> Learned:
        if task not in self.tasks:
            known = ", ".join(map(repr, self.tasks)) or "none"
            raise ValueError(f"no task {task!r} was learned; there are: {known}")
        return self.tasks[task]

    def capacity(self) -> pd.DataFrame:
        """By layer: its weights, and the shares that are free, used by one task, and shared by several."""
        counts = {name: np.zeros(flag.shape, int) for name, flag in named_masks(self._like).items()}
        for known in self.tasks.values():
            for name, flag in named_masks(known.mask).items():
                counts[name] += np.asarray(flag)
        rows = {n: {"weights": c.size, "free": (c == 0).mean(), "used once": (c == 1).mean(), "shared": (c > 1).mean()}
                for n, c in counts.items()}  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def packed(self, task: Hashable) -> dict[str, np.ndarray]:
        """The task's mask with eight weights a byte, by layer; `numpy.unpackbits` undoes it."""
        return {n: np.packbits(np.asarray(m)) for n, m in named_masks(self._known(task).mask).items()}  # fmt: skip

    def sizes(self) -> pd.DataFrame:
        """KiB that each task takes beside the shared weights: its packed mask, and its own values."""
        rows = [{"mask": sum(p.nbytes for p in self.packed(t).values()) / 1024,
                 "own values": sum(x.nbytes for x in jax.tree.leaves(known.kept)) / 1024}
                for t, known in self.tasks.items()]  # fmt: skip
        names = pd.Index([*self.tasks], tupleize_cols=False, name="task")
        return pd.DataFrame(rows, names, ["mask", "own values"])

    def export(self, task: Hashable) -> dict[str, sparse.csr_array]:
        """The task's weights by layer as sparse matrices: as they are, or [all but the last, last dimension]."""
        model, flags = self.network(task), self._known(task).mask
        held = jax.tree.map(
            lambda m, x: None if m is None else x, flags, model, is_leaf=lambda n: n is None
        )
        return {
            name: sparse.csr_array(np.asarray(weight, np.promote_types(weight.dtype, np.float32)).reshape(-1, weight.shape[-1]))
            for name, weight in zip(named_masks(flags), jax.tree.leaves(held), strict=True)
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network, all tasks and their masks, aside and then renamed; `load` goes on to the bit.

        An optimiser of your own and what is no array in the network are not in the file. Raises `ValueError` where a
        task or a class is neither a number, text, nor a tuple of those.
        """
        arrays = {"key": self.key, "tries": self._tries, "gains": self._gains}
        arrays |= _numbered("start", self._start) | _numbered("model", self.model)
        tasks = []
        for i, (task, known) in enumerate(self.tasks.items()):
            arrays |= {
                f"mask{i}.{n}": packed for n, packed in enumerate(self.packed(task).values())
            }
            arrays |= _numbered(f"kept{i}", known.kept)
            by_name = known.classes.dtype.kind == "O"
            if not by_name:
                arrays[f"classes{i}"] = known.classes
            tasks.append({
                "name": _written(task), "classes": [*map(_written, known.classes)] if by_name else None,
                "outputs": known.outputs.tolist(), "fitted": known.fitted,
            })  # fmt: skip
        save_arrays(path, arrays, {"settings": self._settings(), "tasks": tasks})

    def load(self, path: str | os.PathLike[str]) -> SparseContinualNet:
        """Take over what another learner of such a network, made with the same settings, has saved; itself.

        The values of its weights do not matter. Raises `DamagedFile` for a file that is not what was written,
        `ValueError` for other settings or another network; then nothing has changed.
        """
        arrays, note = load_arrays(Path(path))
        if note.get("settings") != self._settings():
            raise ValueError(
                f"{path} was saved with {note.get('settings')}, this learner has {self._settings()}: make it with those"
            )
        start, model = (_taken(path, name, self.model, arrays) for name in ("start", "model"))
        flags, tree = jax.tree.flatten(self._like)
        whole = jax.tree.map(
            lambda mask, x: x if mask is None and self.topology.own_biases else None,
            self._like, eqx.filter(self.model, eqx.is_array), is_leaf=lambda node: node is None,
        )  # fmt: skip
        tasks: dict[Hashable, Learned] = {}
        for i, told in enumerate(note["tasks"]):
            masks = [
                jnp.asarray(np.unpackbits(arrays[f"mask{i}.{n}"], count=flag.size).reshape(flag.shape).astype(bool))
                for n, flag in enumerate(flags)
            ]  # fmt: skip
            names = told["classes"]
            classes = arrays[f"classes{i}"] if names is None else _objects(map(_read, names))
            tasks[_read(told["name"])] = Learned(
                jax.tree.unflatten(tree, masks), _taken(path, f"kept{i}", whole, arrays), classes,
                np.asarray(told["outputs"]), told["fitted"],
            )  # fmt: skip
        used = jax.tree.map(jnp.zeros_like, self._like)
        for known in tasks.values():
            used = jax.tree.map(jnp.logical_or, used, known.mask)
        self.key, self._tries, self._gains = (jnp.asarray(arrays[n]) for n in ("key", "tries", "gains"))  # fmt: skip
        self._start, self.model, self._used, self.tasks = start, model, used, tasks
        self._outputs = sum(len(known.classes) for known in tasks.values())
        return self

    def _settings(self) -> str:
        topology = self.topology
        told = {
            name: np.asarray(value).tolist() if eqx.is_array(value) else value
            for name, value in vars(topology).items()
        }  # fmt: skip
        rate = self.rate if self.optimiser is None else "an optimiser of its own"
        return ", ".join(f"{name}={value!r}" for name, value in {**told, "rate": rate}.items())


def _numbered(name: str, tree: Any) -> dict[str, Array]:
    """The arrays of a tree by `name` and their places."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return {f"{name}.{i}": leaf for i, leaf in enumerate(leaves)}


def _taken(path: Any, name: str, like: Any, arrays: Mapping[str, Any]) -> Any:
    """A tree like another, with the arrays that `_numbered` made of it."""
    held, rest = eqx.partition(like, eqx.is_array)
    old, tree = jax.tree.flatten(held)
    new = [jnp.asarray(v) for k, v in arrays.items() if k.rpartition(".")[0] == name]
    if [(a.shape, a.dtype) for a in old] != [(a.shape, a.dtype) for a in new]:
        raise ValueError(f"{path} was saved of another network: its arrays have other shapes")
    return eqx.combine(jax.tree.unflatten(tree, new), rest)


def _written(name: Any) -> Any:
    """A task or a class as JSON has it, tuples as lists."""
    name = name.item() if isinstance(name, np.generic) else name
    if isinstance(name, tuple):
        return [*map(_written, name)]
    if name is None or type(name) in (str, int, float, bool):
        return name
    raise ValueError(
        f"{name!r} cannot be saved: tasks and classes must be numbers, text, or tuples of those"
    )


def _read(written: Any) -> Any:
    return tuple(map(_read, written)) if isinstance(written, list) else written


def _objects(values: Iterable[Any]) -> np.ndarray:
    held = [*values]
    found = np.empty(len(held), object)
    found[:] = held
    return found


def _inputs(x: Any) -> Array:
    given = np.asarray(x)
    if (
        not (jnp.issubdtype(given.dtype, jnp.floating) or given.dtype.kind in "iub")
        or not given.ndim
    ):
        raise ValueError(f"x must be examples [n, ...] of real numbers, not {list(given.shape)} of {given.dtype}")  # fmt: skip
    with np.errstate(over="ignore"):  # what single precision does not hold is told below
        taken = jnp.asarray(given)
    if jnp.issubdtype(taken.dtype, jnp.floating):
        _check_finite("x", np.asarray(taken))
    return taken


def _check_finite(name: str, values: np.ndarray) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        row, kind = int(np.argwhere(~finite)[0][0]), values.dtype
        raise ValueError(
            f"{name} is not finite in row {row}, as {kind}: leave it out or fill in a value"
        )


class _Stepped(eqx.Module):
    """`stepped_adam` of so many steps; equal where these are, so that tasks of a size share a program."""

    steps: int = eqx.field(static=True)

    def __call__(self, rate: Array) -> optax.GradientTransformation:
        return stepped_adam(rate, self.steps)


class _Rule(eqx.Module):
    """An optimiser at hand, as what builds one."""

    rule: optax.GradientTransformation = eqx.field(static=True)

    def __call__(self) -> optax.GradientTransformation:
        return self.rule


@eqx.filter_jit
def _turned(process: Subnetworks, state: ContinualState) -> ContinualState:
    return process.turn(state)


@eqx.filter_jit
def _called(model: Any, x: Array) -> Array:
    return call(model, x)


def _shuffled(model: Any, masks: Any, key: Any) -> Any:
    """The model with the weights of each layer that can be sparse in another order."""
    keys = iter(jax.random.split(key, len(jax.tree.leaves(masks))))

    def moved(mask: Any, weight: Any) -> Any:
        if mask is None:
            return weight
        return jax.random.permutation(next(keys), weight.ravel()).reshape(weight.shape)

    return jax.tree.map(moved, masks, model, is_leaf=lambda node: node is None)
