"""One network that learns named tasks one after the other, each in a sparse sub-network of its own.

For networks and arrays of one's own; what happens in a task is that of `subnetworks`.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
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
from latebloom.core.dataset import Dataset
from latebloom.core.process import advanced
from latebloom.core.stream import Exams, Stream
from latebloom.methods.forgetting.continual import ContinualState
from latebloom.methods.forgetting.subnetworks import Subnetworks
from latebloom.methods.forgetting.topology import Topology, stepped_adam
from latebloom.nn.masks import dense_masks, masked, named_masks
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
        self.model, self.tasks = model, {}
        self.topology = Topology(growth="gradient") if topology is None else topology
        self.rate, self.optimiser, self.key = rate, optimiser, jax.random.key(seed)
        self._start = model
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

        Warns where hardly any weight is free. Raises `ValueError` for a task learned before, for arrays that
        do not fit each other or hold NaN, for more classes than there are outputs left, and where training
        diverges; then nothing has changed.
        """
        x, classes, index = self._examples(task, x, y)
        if min(epochs, batch_size) < 1:
            raise ValueError(
                f"epochs and batch_size must be at least 1, not {epochs} and {batch_size}"
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
        process = self._process(
            jnp.asarray(x), jnp.asarray(index, jnp.int32), classes, steps, batch
        )
        state = self._started(process, key)
        done = 0
        for stop in (*process.turns(), steps):
            state = advanced(process, state, stop - done)
            state, done = (_turned(process, state) if stop < steps else state), stop
        return self._over(process, state, task, classes)

    def _examples(self, task: Hashable, x: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        if not isinstance(task, Hashable):
            raise ValueError(f"task must be a name or a number, not {task!r}")
        if task in self.tasks:
            raise ValueError(f"task {task!r} was learned before, and what it uses is frozen")
        x, y = np.asarray(x), np.asarray(y)
        if y.ndim != 1 or len(x) != len(y) or not len(y):
            raise ValueError(
                f"x must be [n, ...] and y its n classes, not {list(x.shape)} and {list(y.shape)}"
            )
        _check_finite("x", x)
        _check_finite("y", y)
        try:
            classes, index = np.unique(y, return_inverse=True)
        except TypeError:
            kinds = ", ".join(sorted({type(one).__name__ for one in y}))
            raise ValueError(f"y mixes {kinds}: make all numbers, or all names") from None
        shape = eqx.filter_eval_shape(call, self.model, jnp.asarray(x[:1]))
        if self._outputs + len(classes) > shape.shape[-1]:
            raise ValueError(
                f"task {task!r} has {len(classes)} classes, but only {shape.shape[-1] - self._outputs} of the "
                f"network's {shape.shape[-1]} outputs are left: build it with more"
            )
        return x, classes, index + self._outputs

    def _process(
        self, x: Array, index: Array, classes: np.ndarray, steps: int, batch: int
    ) -> Subnetworks:
        outputs = eqx.filter_eval_shape(call, self.model, x[:1]).shape[-1]
        places = np.arange(outputs)
        mine = (places >= self._outputs) & (places < self._outputs + len(classes))
        rng = np.random.default_rng(len(self.tasks))
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

        Raises `ValueError` for a task that was not learned and for inputs that are not finite.
        """
        _check_finite("x", np.asarray(x))
        outputs = _called(self.network(task), jnp.asarray(x))
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


def _check_finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"{name} is not finite in row {row}: leave it out or fill in a value")


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
