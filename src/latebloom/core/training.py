"""What a step of training is made of, as functions, and supervised learning as a process on them.

A method with a step of its own takes the rows of its batch from `batch_rows`, what it draws at random
from `step_key`, gradients from `gradients` and the new model from `update`; `Supervised` does no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from latebloom.core.calling import Apply, call, per_example
from latebloom.core.dataset import Dataset, check_targets
from latebloom.core.process import Process, Quantity
from latebloom.core.statistics import (
    Statistics,
    batch_statistics,
    trainable_leaves,
    update_statistics,
)

__all__ = [
    "Dataset", "Snapshot", "Supervised", "SupervisedState", "batch_rows", "each", "gradients", "per_example",
    "step_key", "trainable", "update",
]  # fmt: skip


def trainable(model: Any) -> Any:
    """The parameters of a model, as a tree in which everything else is None."""
    return eqx.filter(model, trainable_leaves(model))


def batch_rows(
    key: PRNGKeyArray, step: Int[Array, ""], n: int, batch_size: int | None
) -> Int[Array, " batch"]:
    """Which of `n` examples are in the batch of a step; all in order where `batch_size` is None.

    Drawn without replacement, reshuffled every epoch in an order that `key` fixes; an epoch's
    incomplete rest is dropped.
    """
    if batch_size is None:
        return jnp.arange(n)
    epoch, place = jnp.divmod(step, n // batch_size)
    places = place * batch_size + jnp.arange(batch_size)
    return shuffled(jax.random.fold_in(key, epoch), places, n)


def step_key(key: PRNGKeyArray, step: Int[Array, ""]) -> PRNGKeyArray:
    """Key of what a step draws at random, such as dropout, apart from the keys of `batch_rows`."""
    return jax.random.fold_in(jax.random.fold_in(key, 0x5EED), step)


def gradients(
    objective: Callable[[Any], Any], model: Any, has_aux: bool = False
) -> tuple[Any, ...]:
    """Gradients of `objective(model)`, a scalar, in the parameters, and what normalisations saw.

    With `has_aux` the objective returns a scalar and more, which is returned third. Gradients are
    a tree like `trainable(model)`.
    """
    params, rest = eqx.partition(model, trainable_leaves(model))

    def value(params: Any) -> tuple[Array, tuple[Statistics, Any]]:
        model = eqx.combine(params, rest)
        with batch_statistics(model) as seen:
            found = objective(model)
        loss, more = found if has_aux else (found, None)
        return loss, (seen, more)

    found, (seen, more) = jax.grad(value, has_aux=True)(params)
    return (found, seen, more) if has_aux else (found, seen)


def update(
    rule: optax.GradientTransformation, gradients: Any, moments: Any, model: Any,
    seen: Statistics = (), change: Callable[[Any], Any] = lambda updates: updates,
) -> tuple[Any, Any]:  # fmt: skip
    """The model after a step of the optimiser, with its running statistics moved, and new moments.

    `change` may scale or mask the updates. Parameters and moments keep their precision, so that
    hyperparameters in float32 do not make a half-precision model a single-precision one.
    """
    updates, after = rule.update(gradients, moments, trainable(model))
    moved = update_statistics(eqx.apply_updates(model, change(updates)), seen)
    return _like(moved, model), _like(after, moments)


def each(how: Literal["vmap", "map"], function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of each slice of `trees` (their arrays' first axis), side by side or one by one.

    One by one convolutions and matrix products stay plain. Other leaves are the same for all.
    """
    if how == "vmap":
        return eqx.filter_vmap(function)(*trees)
    arrays, static = eqx.partition(trees, eqx.is_array)
    out_static = []

    def one(arrays: Any) -> Any:
        out, rest = eqx.partition(function(*eqx.combine(arrays, static)), eqx.is_array)
        out_static.append(rest)
        return out

    return eqx.combine(jax.lax.map(one, arrays), out_static[0])


def _like(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: a.astype(b.dtype) if eqx.is_inexact_array(b) else a, new, old)


class SupervisedState(NamedTuple):
    model: Any
    optimiser: Any
    data: Dataset | None  # None where all seeds share the data of the process
    key: PRNGKeyArray
    step: Int[Array, ""]


class Snapshot(NamedTuple):
    """What a probe may look at, besides the model and the data."""

    train_logits: Array
    test_logits: Array
    gradients: Any  # of the objective on the whole training set, shaped like the parameters
    step: Int[Array, ""]


class Supervised(Process):
    """Gradient descent on a data set; one step is one update of the optimiser.

    - `model(key)` builds the network; `apply(model, x, key, train)` calls it on a batch. Left out, it
      is called as it takes its inputs: a batch, or one example (`latebloom.core.calling.call`).
    - `data`: a `Dataset` that all seeds share, or `data(key)` to draw one for each seed.
    - `optimiser(**hyper)` gives the Optax transformation. The values in `hyper` are array leaves,
      so that runs which differ in them share one compiled program.
    - `loss(outputs, labels)`: loss of each example; its mean is minimised.
    - `batch_size`: None for full batches, else batches drawn without replacement, reshuffled every
      epoch in an order that the seed fixes; a last incomplete batch is dropped.
    - `probes`: `name -> probe(model, data, snapshot)`, an array, or a dict of named ones; recorded
      beside `train_loss`, `test_loss` and, unless `accuracy=False`, `train_accuracy` and
      `test_accuracy`.
    - `about`: units and dimensions of what the probes return.

    Raises `ValueError` for a batch size that the data cannot fill and, unless `accuracy=False`, for labels
    of shared data that are not indices of the network's outputs.
    """

    model: Callable[[PRNGKeyArray], Any]
    data: Dataset | Callable[[PRNGKeyArray], Dataset]
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    loss: Callable[[Array, Array], Array]
    probes: Mapping[str, Callable[[Any, Dataset, Snapshot], Any]]
    apply: Apply
    about: Mapping[str, Quantity] = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    accuracy: bool = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore
    x64: bool = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any],
        data: Dataset | Callable[[PRNGKeyArray], Dataset],
        optimiser: Callable[..., optax.GradientTransformation],
        hyper: Mapping[str, Any],
        loss: Callable[[Array, Array], Array],
        probes: Mapping[str, Callable[[Any, Dataset, Snapshot], Any]] | None = None,
        apply: Apply = call,
        about: Mapping[str, Quantity] | None = None,
        batch_size: int | None = None, accuracy: bool = True,
        seeds_by: Literal["vmap", "map"] = "vmap", x64: bool = False,
    ):  # fmt: skip
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(data, Dataset) and batch_size and batch_size > len(data.x_train):
            raise ValueError(
                f"batch_size {batch_size} is more than the {len(data.x_train)} training examples"
            )
        self.model, self.data, self.optimiser = model, data, optimiser
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.loss, self.probes, self.apply = loss, dict(probes or {}), apply
        self.about = _Frozen(about or {})
        self.batch_size, self.accuracy = batch_size, accuracy
        self.seeds_by, self.x64 = seeds_by, x64
        if accuracy and isinstance(data, Dataset):
            self._check_labels(data)

    def _check_labels(self, data: Dataset) -> None:
        def outputs(key: PRNGKeyArray, x: Array) -> Array:
            return self.apply(self.model(key), x, None, False)

        if jnp.ndim(data.y_train) == 1:
            shape = eqx.filter_eval_shape(outputs, jax.random.key(0), data.x_train)
            check_targets(data.y_train, shape, "the train labels")
            check_targets(data.y_test, shape, "the test labels")

    def init(self, key: PRNGKeyArray) -> SupervisedState:
        model_key, data_key, step_key = jax.random.split(key, 3)
        model = self.model(model_key)
        data = None if isinstance(self.data, Dataset) else self.data(data_key)
        optimiser = self.optimiser(**self.hyper).init(trainable(model))
        return SupervisedState(model, optimiser, data, step_key, jnp.int32(0))

    def dataset(self, state: SupervisedState) -> Dataset:
        """The data that this state learns from."""
        return self.data if isinstance(self.data, Dataset) else state.data  # pyright: ignore

    def objective(self, outputs: Array, labels: Array, step: Array) -> Float[Array, ""]:
        """What is minimised. Override it where the loss changes with the step."""
        return self.loss(outputs, labels).mean()

    def batch(self, state: SupervisedState) -> tuple[Array, Array]:
        """Inputs and labels of the batch that the next step uses."""
        data = self.dataset(state)
        if self.batch_size is None:
            return data.x_train, data.y_train
        rows = batch_rows(state.key, state.step, len(data.x_train), self.batch_size)
        return data.x_train[rows], data.y_train[rows]

    def gradients(self, model: Any, x: Array, y: Array, key: Any, step: Array) -> tuple[Any, ...]:
        """Gradients of the objective in training mode, and what batch normalisations saw."""

        def objective(model: Any) -> Array:
            return self.objective(self.apply(model, x, key, True), y, step)

        return gradients(objective, model)

    def descend(
        self, objective: Callable[[Any], Array], model: Any, optimiser: Any
    ) -> tuple[Any, Any]:
        """The model and the optimiser's state after one step down `objective(model)`."""
        slopes, seen = gradients(objective, model)
        return update(self.optimiser(**self.hyper), slopes, optimiser, model, seen)

    def step(self, state: SupervisedState) -> SupervisedState:
        x, y = self.batch(state)
        key = step_key(state.key, state.step)
        slopes, seen = self.gradients(state.model, x, y, key, state.step)
        rule = self.optimiser(**self.hyper)
        model, optimiser = update(rule, slopes, state.optimiser, state.model, seen)
        return SupervisedState(model, optimiser, state.data, state.key, state.step + 1)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        data, model = self.dataset(state), state.model
        train = self.apply(model, data.x_train, None, False)
        test = self.apply(model, data.x_test, None, False)
        seen = {
            "train_loss": self.objective(train, data.y_train, state.step),
            "test_loss": self.objective(test, data.y_test, state.step),
        }
        if self.accuracy:
            seen["train_accuracy"] = accuracy(train, data.y_train)
            seen["test_accuracy"] = accuracy(test, data.y_test)
        if self.probes:
            gradients, _ = self.gradients(model, data.x_train, data.y_train, None, state.step)
            snapshot = Snapshot(train, test, gradients, state.step)
            for name, probe in self.probes.items():
                found = probe(model, data, snapshot)
                seen |= found if isinstance(found, dict) else {name: found}
        return seen

    def quantities(self) -> dict[str, Quantity]:
        own = {
            "train_loss": Quantity("nats or squared units", about="training loss"),
            "test_loss": Quantity("nats or squared units", about="test loss"),
            "train_accuracy": Quantity("1", about="training accuracy"),
            "test_accuracy": Quantity("1", about="test accuracy"),
        }
        return own | dict(self.about)


class _Frozen(dict):
    """A mapping that may be a static field: equal where its contents are written alike."""

    def __hash__(self) -> int:  # pyright: ignore
        return hash(repr(sorted(self.items())))


def accuracy(
    outputs: Float[Array, "batch classes"], labels: Int[Array, " batch"] | Float[Array, "batch c"]
) -> Float[Array, ""]:
    """Share of examples whose largest output is at the label (an index, or a one-hot row)."""
    if labels.ndim == outputs.ndim:
        labels = labels.argmax(axis=-1)
    right = (outputs.argmax(axis=-1) == labels).sum()
    # A compiler may multiply by a rounded 1/n, so that 1 is only almost reached.
    return jnp.where(right == len(labels), 1.0, right / len(labels)).astype(jnp.float32)


def shuffled(key: PRNGKeyArray, places: Int[Array, " k"], n: int) -> Int[Array, " k"]:
    """Images of `places` under a random permutation of range(n), without making it whole.

    A four-round Feistel network on the next even power of two, walked until it lands inside, so
    that an epoch's order costs a few integer operations for each example of the batch. (A sort for
    each epoch would run at every step, since seeds that run side by side cannot branch.)
    """
    return permuted(jax.random.bits(key, (4,), jnp.uint32), places, n, n)


def permuted(
    round_keys: UInt32[Array, "4 ..."],
    places: Int[Array, " *k"],
    n: int | Int[Array, " *k"],
    most: int,
) -> Int[Array, " *k"]:
    """Images of `places` under the permutation of range(n) that four keys fix, n being at most `most`."""
    half = max(1, (max(most - 1, 1).bit_length() + 1) // 2)
    mask = jnp.uint32((1 << half) - 1)

    def mix(x: Array) -> Array:
        left, right = x >> half, x & mask
        for k in round_keys:
            h = (right ^ k) * jnp.uint32(0x9E3779B1)
            h = (h ^ (h >> 15)) * jnp.uint32(0x85EBCA77)
            left, right = right, left ^ ((h ^ (h >> 13)) & mask)
        return (left << half) | right

    def outside(x: Array) -> Array:
        return (x >= n).any()

    def walk(x: Array) -> Array:
        return jnp.where(x >= n, mix(x), x)

    first = mix(places.astype(jnp.uint32))
    return jax.lax.while_loop(outside, walk, first).astype(jnp.int32)
