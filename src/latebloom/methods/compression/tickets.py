"""Prune a network of your own by finding its lottery ticket, and keep what comes out."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, PRNGKeyArray
from scipy import sparse

from latebloom.core.calling import Given, builder, call
from latebloom.core.checkpoint import write_atomically
from latebloom.core.dataset import Dataset
from latebloom.core.progress import Tick, progress_bar
from latebloom.methods.compression.lottery import (
    LotteryState,
    LotteryTicket,
    MaskedTraining,
    StepSchedule,
    matching,
)
from latebloom.nn import Conv, Linear
from latebloom.nn.masks import (
    LAYERS,
    Masks,
    dense_masks,
    dense_matrices,
    empty_layers,
    masked,
    named_masks,
)
from latebloom.optim import sgd

FEWEST = 20


class EmptyLayerWarning(UserWarning):
    """A layer lost all its weights, so that nothing passes it."""


class DenseMatrixWarning(UserWarning):
    """A matrix of the network is neither a convolution nor a linear layer, and stays dense."""


class CoarseTestWarning(UserWarning):
    """The tolerance is less than one of the held-out examples."""


@dataclass(frozen=True)
class Ticket:
    """A sparse subnetwork that trains as well as the dense network, and how it was found.

    - `table`: a row a level: `level`, `density`, `accuracy` and `sd` over seeds, `error`, the standard
      error that the number of held-out examples gives the accuracy, `matches` (at most the tolerance
      below the dense accuracy), `pruning_distance` and `travelled` (`LotteryTicket`), and
      where controls were trained `random_accuracy`, `order_distance`, `random_pruning_distance`,
      `random_order_distance` and, for a model built from keys, `reinit_accuracy`.
    - `layers`: density of each layer at each level, mean over seeds.
    - `level`: the sparsest that matches and has no empty layer; 0 if none does.
    - `dense`: names of the weight tensors that were not pruned.
    - Of the first seed at that level: `masks`; `start`, the masked network at step k, which trains to
      the full accuracy from there; `model`, so trained.
    """

    table: pd.DataFrame
    layers: pd.DataFrame
    level: int
    dense: tuple[str, ...]
    masks: Masks
    start: Any
    model: Any

    @property
    def density(self) -> float:
        """Share of the prunable weights that the ticket has left."""
        return float(self.table["density"].iloc[self.level])


class _OfRate(eqx.Module):
    """Hands the rate over by place, whatever the optimiser calls it."""

    make: Callable[..., optax.GradientTransformation]

    def __call__(self, rate: Array) -> optax.GradientTransformation:
        return self.make(rate)


def find_ticket(
    model: Any, x: np.ndarray, y: np.ndarray, *, x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None, rounds: int = 10, fraction: float = 0.2, rewind: float = 0.05,
    epochs: int = 20, batch_size: int = 64, rate: float = 0.1, decay: float = 1e-4,
    warmup: float = 0.0, optimiser: Callable[..., optax.GradientTransformation] | None = None,
    ignore: Sequence[str] = (), count_ignored: bool = False, controls_at: Sequence[int] = (), seeds: int = 1,
    tolerance: float = 0.005, apply: Callable[..., Array] | None = None,
    progress: bool | Callable[[Tick], None] | None = None,
) -> Ticket:  # fmt: skip
    """Prune a classifier by `rounds` of iterative magnitude pruning with rewinding.

    - `model`: an Equinox model, or `model(key)` that builds one, so that seeds differ in their start
      and not in the order of the data alone. Called as `apply(model, x, key, train)`, unless given as it
      takes its inputs: a batch, or one example (`latebloom.core.calling.call`).
    - `x` [n, ...] as the model takes it: whole numbers stay whole. `y` [n] class indices. Without `x_test` and `y_test` a fifth
      of the examples is held out. The level is chosen by the accuracy on these, so that they are
      validation data: measure what you report on others.
    - `rewind`: at which share of the training weights are kept to come back to (k / T): 0 is the
      original lottery ticket. `fraction` of the weights left is pruned in a round.
    - `optimiser(rate)`: SGD with momentum 0.9 and weight `decay` unless given; the rate falls to a
      tenth at 50 % and at 75 % of `epochs`, after a linear `warmup` over that share of them.
    - `controls_at`: levels at which random masks, another data order and fresh weights are trained
      too (each takes five times as long). `ignore`: layers to keep dense (`dense_masks`), whose weights
      are part of what `fraction` is taken of if `count_ignored`, as in the authors' code.
    - `tolerance`: how far below the dense accuracy a match may be. `progress` as in `unfold`, in rounds.

    Calls that differ in `rewind`, `fraction`, `rate`, `decay`, `warmup` and `epochs` alone compile once.

    Warns where a layer loses all its weights (`EmptyLayerWarning`), a matrix that is neither a
    convolution nor a linear layer stays dense (`DenseMatrixWarning`), and the tolerance is finer than
    the held-out examples are (`CoarseTestWarning`). Raises `ValueError` for shapes and settings that
    make no sense, batch norms that keep their state outside the model, a training that diverges, and a
    dense network that has not learned: what matches it is no ticket.
    """
    build = builder(model)
    example = eqx.filter_eval_shape(build, jax.random.key(0))
    data = _dataset(x, y, x_test, y_test)
    _check(example, data, epochs, batch_size, rewind, rounds, seeds, controls_at, tolerance)
    _warn(example, data, ignore, tolerance)
    steps = epochs * (len(data.x_train) // batch_size)
    training = MaskedTraining(
        model=build, data=data, optimiser=sgd if optimiser is None else _OfRate(optimiser),
        hyper={"rate": rate, "decay": decay} if optimiser is None else {"rate": rate},
        loss=optax.softmax_cross_entropy_with_integer_labels, batch_size=batch_size,
        schedule=StepSchedule((steps // 2, steps * 3 // 4), warmup=round(warmup * steps)),
        apply=call if apply is None else apply,
    )  # fmt: skip
    process = LotteryTicket(
        training, steps=steps, rewind=round(rewind * steps), fraction=fraction, ignore=ignore,
        count_ignored=count_ignored, controls_at=controls_at, controlled=bool(controls_at),
    )  # fmt: skip
    _check_output(training, example, data)
    seen, states = _play(process, rounds, seeds, progress)
    _check_learned(seen["test_accuracy"][0], np.asarray(data.y_test))
    table = _table(seen, tolerance, len(data.x_test), fresh=not isinstance(build, Given))
    lost = [empty_layers(state.masks) for state in states]
    if any(lost):
        level = next(level for level, names in enumerate(lost) if names)
        warnings.warn(
            f"at level {level} nothing is left of {', '.join(lost[level])}: prune in smaller steps, "
            "or name it in ignore", EmptyLayerWarning, stacklevel=2,
        )  # fmt: skip
    level = max(i for i, names in enumerate(lost) if table["matches"].iloc[i] and not names)
    state = states[level]
    layers = pd.DataFrame(seen["layer_density"].mean(1), columns=list(named_masks(state.masks)))
    layers.insert(0, "level", table["level"])
    trained = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, state.runs)
    dense = dense_matrices(state.rewound, state.masks)
    start = masked(state.rewound, state.masks)
    return Ticket(table, layers, level, dense, state.masks, start, trained)


def _play(
    process: LotteryTicket, rounds: int, seeds: int, progress: bool | Callable[[Tick], None] | None
) -> tuple[dict[str, np.ndarray], list[LotteryState]]:
    """What was observed, [level, seed, ...], and the states of the first seed, by level."""
    keys = jax.vmap(jax.random.key)(np.arange(seeds, dtype=np.uint32))
    arrays, rest = eqx.partition(_start(process, keys), eqx.is_array)
    seen, states, start = [], [], time.perf_counter()
    with contextlib.ExitStack() as stack:
        report = (
            progress
            if callable(progress)
            else stack.enter_context(progress_bar("rounds of pruning", progress))
        )
        for level in range(rounds + 1):
            arrays, found = _round(process, arrays, rest)
            if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(arrays.runs)):
                raise ValueError(
                    f"training diverged at level {level}: take a lower rate or a warm-up"
                )
            seen.append({name: np.asarray(value, float) for name, value in found.items()})
            states.append(eqx.combine(jax.tree.map(lambda leaf: leaf[0], arrays), rest))
            left = (time.perf_counter() - start) / (level + 1) * (rounds - level)
            shown = {"test_accuracy": seen[-1]["test_accuracy"]}
            report(Tick(level + 1, rounds + 1, left, shown, np.arange(level + 1), {}))
    return {name: np.stack([row[name] for row in seen]) for name in seen[0]}, states


@eqx.filter_jit
def _start(process: LotteryTicket, keys: PRNGKeyArray) -> LotteryState:
    return eqx.filter_vmap(process.init)(keys)


@eqx.filter_jit
def _round(process: LotteryTicket, arrays: Any, rest: Any) -> Any:
    """The next round of every seed, one after another, and what is seen then."""

    def one(arrays: Any) -> Any:
        state = process.step(eqx.combine(arrays, rest))
        return eqx.filter(state, eqx.is_array), process.observe(state)

    return jax.lax.map(one, arrays)


def _table(seen: dict[str, np.ndarray], tolerance: float, tests: int, fresh: bool) -> pd.DataFrame:
    accuracy = seen["test_accuracy"]
    mean = accuracy.mean(1)
    table = {
        "level": np.arange(len(accuracy)),
        "density": seen["density"].mean(1),
        "accuracy": mean,
        "sd": accuracy.std(1, ddof=1) if accuracy.shape[1] > 1 else np.zeros(len(accuracy)),
        "error": np.sqrt(mean * (1 - mean) / tests),
        "matches": matching(accuracy.T, accuracy[0], tolerance),
        "pruning_distance": seen["pruning_distance"][..., 0].mean(1),
        "travelled": seen["travelled"][..., 0].mean(1),
    }
    if "random_accuracy" in seen:
        table["random_accuracy"] = seen["random_accuracy"].mean(1)
        table["order_distance"] = seen["order_distance"][..., 0].mean(1)
        for name in ("pruning_distance", "order_distance"):
            table[f"random_{name}"] = seen[name][..., 1].mean(1)
        if fresh:
            table["reinit_accuracy"] = seen["reinit_accuracy"].mean(1)
    return pd.DataFrame(table)


def _dataset(x: Any, y: Any, x_test: Any, y_test: Any) -> Dataset:
    x, y = np.asarray(x), np.asarray(y)
    if (x_test is None) != (y_test is None):
        raise ValueError("give both x_test and y_test, or neither")
    if len(x) != len(y) or len(x) < FEWEST or y.ndim != 1:
        raise ValueError(
            f"x and y must be [n, ...] and [n] with n at least {FEWEST}, not {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    if x_test is None:
        order = np.random.default_rng(0).permutation(len(x))
        held, rest = order[: len(x) // 5], order[len(x) // 5 :]
        x, y, x_test, y_test = x[rest], y[rest], x[held], y[held]
    x_test, y_test = np.asarray(x_test), np.asarray(y_test)
    if x_test.shape[1:] != x.shape[1:] or y_test.shape != x_test.shape[:1]:
        raise ValueError(
            f"x_test and y_test must be [n, ...] and [n] like x and y, not {list(x_test.shape)} and "
            f"{list(y_test.shape)}"
        )
    for part in (y, y_test):
        if part.dtype.kind not in "iu" or part.min() < 0:
            raise ValueError("labels must be class indices, whole numbers from 0 on")
    for part in (x, x_test):
        number = jnp.issubdtype(part.dtype, jnp.number) or part.dtype == bool
        if not number or not np.isfinite(part).all():
            raise ValueError("x must hold finite numbers: fill or drop what is missing")
    # In their own precision, up to single; whole numbers stay whole, as token indices must.
    return Dataset(jnp.asarray(x), jnp.asarray(y, jnp.int32), jnp.asarray(x_test), jnp.asarray(y_test, jnp.int32))  # fmt: skip


def _check(
    model: Any, data: Dataset, epochs: int, batch_size: int, rewind: float, rounds: int, seeds: int,
    controls_at: Sequence[int], tolerance: float,
) -> None:  # fmt: skip
    if epochs < 1 or rounds < 1 or seeds < 1:
        raise ValueError(
            f"epochs, rounds and seeds must be at least 1, not {epochs}, {rounds} and {seeds}"
        )
    if any(not 1 <= level <= rounds for level in controls_at):
        raise ValueError(
            f"controls_at must be levels from 1 to the {rounds} rounds, not {list(controls_at)}"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance must not be negative, not {tolerance}")
    if not 0 <= rewind <= 1:
        raise ValueError(f"rewind is a share of the training in [0, 1], not {rewind}")
    if not 1 <= batch_size <= len(data.x_train):
        raise ValueError(
            f"batch_size must be from 1 to the {len(data.x_train)} training examples, not {batch_size}"
        )
    nodes = jax.tree.leaves(model, is_leaf=lambda n: isinstance(n, eqx.nn.BatchNorm))
    if any(isinstance(node, eqx.nn.BatchNorm) for node in nodes):
        raise ValueError(
            "equinox.nn.BatchNorm keeps its statistics outside the model, where they cannot be "
            "rewound: use latebloom.nn.BatchNorm"
        )
    dense_masks(model)  # says so if there is nothing to prune


def _warn(model: Any, data: Dataset, ignore: Sequence[str], tolerance: float) -> None:
    masks = eqx.filter_eval_shape(dense_masks, model)
    left = [
        name for name in dense_matrices(model, masks) if not any(part in name for part in ignore)
    ]
    if left:
        warnings.warn(
            f"these stay dense, being neither convolutions nor linear layers: {', '.join(left)}",
            DenseMatrixWarning, stacklevel=3,
        )  # fmt: skip
    if tolerance < 1 / len(data.x_test):
        warnings.warn(
            f"a tolerance of {tolerance:g} is less than one of the {len(data.x_test)} held-out examples: "
            "a match means no fewer right; give more of them (x_test, y_test) or a larger tolerance",
            CoarseTestWarning, stacklevel=3,
        )  # fmt: skip


def _check_learned(dense: np.ndarray, labels: np.ndarray) -> None:
    """Raises where the dense network is right no more often than the most frequent class, or by chance."""
    commonest = np.bincount(labels).max() / len(labels)
    error = np.sqrt(commonest * (1 - commonest) / len(labels))
    if not dense.mean() > commonest + 2 * error:
        raise ValueError(
            f"the dense network is right on {dense.mean():.1%} of the held-out examples, of which the "
            f"most frequent class makes up {commonest:.1%}: it has not learned, so that a match would "
            "mean nothing; train for longer, or at another rate"
        )


def _check_output(training: MaskedTraining, model: Any, data: Dataset) -> None:
    out = eqx.filter_eval_shape(training.apply, model, data.x_test, None, False)
    classes = int(max(data.y_train.max(), data.y_test.max())) + 1
    if out.ndim != 2 or out.shape[1] < classes:
        raise ValueError(
            f"the model gives outputs {list(out.shape)} for {len(data.x_test)} examples of {classes} "
            f"classes: they must be [batch, {classes}]"
        )


def save_masks(path: str | os.PathLike[str], masks: Masks) -> None:
    """Write an NPZ with one array of booleans a layer, by its name."""
    _save(path, {name: np.asarray(mask) for name, mask in named_masks(masks).items()})


def load_masks(path: str | os.PathLike[str], model: Any) -> Masks:
    """Masks of a model from an NPZ of `save_masks`; layers that it lacks are not masked.

    Raises `ValueError` for a file that is none, a layer that the model lacks, and shapes that differ.
    """
    arrays = _load(path)
    dense = dense_masks(model)
    known = named_masks(dense)
    for name, array in arrays.items():
        if name not in known or known[name].shape != array.shape or array.dtype != bool:
            has = list(known[name].shape) if name in known else f"none ({', '.join(known)})"
            raise ValueError(
                f"{path} has a mask {array.dtype}{list(array.shape)} of {name!r}; the model's: {has}"
            )
    leaves, tree = jax.tree.flatten(dense)
    found = [
        jnp.asarray(arrays[name]) if name in arrays else None
        for name, _ in zip(known, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, found)


def sparse_layers(model: Any, masks: Masks) -> dict[str, sparse.csr_array]:
    """The masked weights of each layer as a CSR matrix.

    Layers of latebloom are [inputs, outputs] (x @ matrix), of Equinox [outputs, inputs] (matrix @ x);
    the inputs of a convolution are its taps times channels, as its weights are laid out in memory.
    """

    def is_layer(node: Any) -> bool:
        return isinstance(node, LAYERS)

    layers = [node for node in jax.tree.leaves(model, is_leaf=is_layer) if is_layer(node)]
    flags = [node for node in jax.tree.leaves(masks, is_leaf=is_layer) if is_layer(node)]
    pairs = [
        (node, flag) for node, flag in zip(layers, flags, strict=True) if flag.weight is not None
    ]
    found = {}
    for name, (layer, flag) in zip(named_masks(masks), pairs, strict=True):
        weight = np.asarray(layer.weight) * np.asarray(flag.weight)
        last = isinstance(layer, Linear | Conv)
        shape = (-1, weight.shape[-1]) if last else (len(weight), -1)
        found[name] = sparse.csr_array(weight.reshape(shape))
    return found


def save_sparse(path: str | os.PathLike[str], model: Any, masks: Masks) -> None:
    """Write an NPZ of the masked model: masked layers in CSR, all other arrays whole.

    A layer has four arrays, NAME/data, NAME/indices, NAME/indptr and NAME/shape, as
    `scipy.sparse.csr_array((data, indices, indptr), shape)` takes them.
    """
    arrays = {}
    for name, matrix in sparse_layers(model, masks).items():
        arrays |= {
            f"{name}/data": matrix.data, f"{name}/indices": matrix.indices,
            f"{name}/indptr": matrix.indptr, f"{name}/shape": np.array(matrix.shape),
        }  # fmt: skip
    _save(path, arrays | {name: np.asarray(x) for name, x in _others(model, masks).items()})


def load_sparse(path: str | os.PathLike[str], model: Any) -> Any:
    """A model of the same architecture with the weights of an NPZ of `save_sparse`.

    Raises `ValueError` for a file that is none, or of another architecture.
    """
    arrays = _load(path)
    leaves = []
    for place, leaf in jax.tree_util.tree_leaves_with_path(model):
        name = jax.tree_util.keystr(place).removeprefix(".")
        layer = name.removesuffix(".weight")
        if not eqx.is_array(leaf):
            leaves.append(leaf)
            continue
        try:
            if f"{layer}/data" in arrays:
                parts = (arrays[f"{layer}/{part}"] for part in ("data", "indices", "indptr"))
                matrix = sparse.csr_array(tuple(parts), shape=tuple(arrays[f"{layer}/shape"]))
                array = matrix.toarray().reshape(leaf.shape)
            else:
                array = arrays[name]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} does not hold {name} of this model ({error}): build the same architecture"
            ) from None
        if array.shape != leaf.shape:
            raise ValueError(
                f"{path}: {name} is {list(array.shape)}, the model's {list(leaf.shape)}"
            )
        leaves.append(jnp.asarray(array, leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(model), leaves)


def _others(model: Any, masks: Masks) -> dict[str, Array]:
    pruned = {f"{name}.weight" for name in named_masks(masks)}
    named = {
        jax.tree_util.keystr(place).removeprefix("."): leaf
        for place, leaf in jax.tree_util.tree_leaves_with_path(model)
    }
    return {n: leaf for n, leaf in named.items() if eqx.is_array(leaf) and n not in pruned}


def _save(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def _load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an NPZ that can be read ({error})") from None
