"""More classes for a network that is in use, without the examples that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.calling import Given, as_examined, call
from latebloom.core.dataset import Dataset
from latebloom.core.stream import Exams, Stream
from latebloom.methods.forgetting.continual import Continual
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.head_losses import HeadLoss, Together
from latebloom.methods.forgetting.penalties import L2, axis_of_classes

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Expanded:
    """What came of it, for each strength.

    - `models`: the networks, by strength; outputs are the old classes, then `classes`, the new labels in order.
    - `table`: a row a strength: `new`, accuracy on new examples that were held back, among all classes, and
      `mistaken`, the share of them that is taken for an old class; `old`, accuracy on `old_examples`, and `before`, the
      same before the new classes came (NaN without any); `moved`, the length of the weights' way over their length.
    - `best`: the strength with the highest mean of `new` and `old`; None without old examples.
    """

    models: dict[float, Any]
    classes: tuple[Any, ...]
    table: pd.DataFrame
    best: float | None


def add_classes(
    model: Any, head: Callable[[Any], Any], x: Any, y: Any, *, strengths: Sequence[float] = STRENGTHS,
    distil: float = 1.0, old_examples: tuple[Any, Any] | None = None, steps: int = 300, batch_size: int = 32,
    rate: float = 1e-3, held_back: float = 0.2, seed: int = 0,
) -> Expanded:  # fmt: skip
    """Learns new classes next to the old ones by Adam: softmax over the new classes alone (one new class alone would have
    no gradient: over all), PredKD with weight `distil` on the old outputs, L2 to the given weights (old rows of the head included) at each of `strengths`.

    - `model`: any network that makes logits; `head(model)`: the affine part that makes them, as `lambda m: m.readout`.
      Batch normalisation keeps its statistics, dropout is off.
    - `x` [n, ...], `y` [n]: examples of new classes, with any labels; a share of `held_back` of each is for validation, one
      at least, and one at least is learned from.
    - `old_examples`: (x, y) of old classes, y their outputs' indices, to measure by; nothing is learned from them.

    Raises `ValueError` for a head that cannot grow, too few examples of a class, missing labels, values that are not finite,
    labels of old examples that are no outputs, settings out of range, and training that diverges at every strength (a
    strength at which it does is left out).

    Source: Smith et al. 2023 (arXiv 2203.17269).
    """
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or y.ndim != 1 or not len(y):
        raise ValueError(f"x and y must be as many examples, at least one, not {len(x)} and {np.shape(y)}")  # fmt: skip
    if not _finite(x):
        raise ValueError("x has values that are not finite: fill or drop these rows first")
    if len(strengths) == 0 or not all(np.isfinite(s) and s >= 0 for s in strengths):
        raise ValueError(f"strengths must be numbers from 0, at least one, not {strengths!r}")
    if min(steps, batch_size) < 1 or not 0 < held_back < 1 or not 0 < rate < np.inf:
        raise ValueError("steps and batch_size must be at least 1, held_back between 0 and 1, and rate above 0")  # fmt: skip
    if pd.isna(y).any():
        raise ValueError("y has labels that are missing: drop these examples first")
    classes, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ValueError(f"class {classes[counts.argmin()]} has {counts.min()} example: give at least 2")  # fmt: skip
    made = eqx.filter_eval_shape(call, model, x[:1]).shape
    if len(made) != 2:
        raise ValueError(f"the network must make logits [batch, classes], not {list(made)} of one example")  # fmt: skip
    outputs = made[1]
    if old_examples is not None:
        seen, known = np.asarray(old_examples[0]), np.asarray(old_examples[1])
        if known.ndim != 1 or not len(seen) == len(known) > 0:
            raise ValueError(f"old_examples must be as many x as y, at least one, not {len(seen)} and {np.shape(known)}")  # fmt: skip
        if not _finite(seen):
            raise ValueError("x of old_examples has values that are not finite: fill or drop these rows first")  # fmt: skip
        if known.dtype.kind not in "iu" or not ((known >= 0) & (known < outputs)).all():
            raise ValueError(f"labels of old examples must be outputs, from 0 to {outputs - 1}")
    key = jax.random.key(seed)
    start = grown(model, head, outputs, len(classes), key=key)
    data, stream = _plan(x, labels + outputs, outputs, steps, batch_size, held_back, seed)

    loss = "local_ce" if len(classes) > 1 else "ce"

    def process(strength: Any) -> Continual:
        host = Together((LwF(distil, over="seen"), L2(strength, head=head, rows="old")))
        return Continual(
            model=Given(start), data=data, stream=lambda key: stream, method=HeadLoss(host, loss),
            optimiser=optax.adam, hyper={"learning_rate": rate}, apply=as_examined, head="seen",
        )  # fmt: skip

    @eqx.filter_jit
    def run(strength: Array) -> Any:
        this = process(strength)
        state = this.turn(this.init(key)._replace(step=jnp.int32(1)))  # the old task is over
        arrays, rest = eqx.partition(state, eqx.is_array)

        def step(_: Array, arrays: Any) -> Any:
            return eqx.filter(this.step(eqx.combine(arrays, rest)), eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, steps, step, arrays), rest).model

    def old_accuracy(network: Any) -> float:
        if old_examples is None:
            return np.nan
        told = np.asarray(call(network, jnp.asarray(old_examples[0]))).argmax(axis=1)
        return float((told == np.asarray(old_examples[1])).mean())

    models, rows = {}, []
    for strength in strengths:
        network = run(jnp.float32(strength))
        if not all(
            _finite(leaf) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))
        ):
            continue
        models[float(strength)] = network
        told = np.asarray(call(network, data.x_test)).argmax(axis=1)
        rows.append({
            "strength": float(strength), "new": float((told == np.asarray(data.y_test)).mean()),
            "mistaken": float((told < outputs).mean()), "old": old_accuracy(network), "before": old_accuracy(model),
            "moved": _moved(start, network),
        })  # fmt: skip
    if not rows:
        raise ValueError(f"training diverged at every strength: take a rate below {rate:g}")
    table = pd.DataFrame(rows)
    mean = np.array([row["new"] + row["old"] for row in rows])
    best = None if old_examples is None else float(table["strength"].iloc[int(mean.argmax())])
    return Expanded(models, tuple(classes.tolist()), table, best)


def grown(
    model: Any, head: Callable[[Any], Any], outputs: int, more: int, *, key: PRNGKeyArray
) -> Any:
    """The network with `more` outputs after its `outputs`: new rows of the head's weights are uniform in +-1 / sqrt(features),
    its new biases the mean of the old.

    Raises `ValueError` where no one axis of each of the head's arrays has as many entries as there are outputs (of a square
    affine map it is known).
    """
    found = jax.tree.leaves(eqx.filter(head(model), eqx.is_inexact_array))
    if not found:
        raise ValueError("head(model) has no floating-point arrays that could grow")

    def grow(array: Any) -> Any:
        if not eqx.is_inexact_array(array):
            return array
        axis = axis_of_classes(head(model), array, outputs)
        shape = list(array.shape)
        shape[axis] = more
        if array.ndim == 1:
            new = jnp.full(shape, array.mean())
        else:
            bound = (outputs / array.size) ** 0.5
            new = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        return jnp.concatenate([array, new.astype(array.dtype)], axis=axis)

    return eqx.tree_at(head, model, replace_fn=lambda part: jax.tree.map(grow, part))


def _plan(
    x: np.ndarray, labels: np.ndarray, outputs: int, steps: int, batch: int, held_back: float, seed: int
) -> tuple[Dataset, Stream]:  # fmt: skip
    """The data, split class by class, and a stream of an old task of one step and a new one."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    place = np.empty(len(labels), int)
    for label in np.unique(labels):
        of = order[labels[order] == label]
        aside = min(len(of) - 1, max(1, round(held_back * len(of))))  # one at least is learned from
        place[of] = np.arange(len(of)) < aside
    train, test = np.flatnonzero(place == 0), np.flatnonzero(place == 1)
    rounds = -(-(steps + 1) * batch // len(train))
    rows = np.concatenate([rng.permutation(len(train)) for _ in range(rounds)])
    data = Dataset(*(jnp.asarray(a) for a in (x[train], labels[train].astype(np.int32), x[test], labels[test].astype(np.int32))))  # fmt: skip
    of_old = np.arange(labels.max() + 1) < outputs
    exams = Exams(jnp.zeros((2, 1), jnp.int32), jnp.arange(2), jnp.array([0, 1]))
    return data, Stream(
        jnp.asarray(rows[: (steps + 1) * batch].reshape(-1, batch), jnp.int32),
        jnp.minimum(jnp.arange(steps + 1), 1), jnp.asarray(np.stack([of_old, ~of_old])), exams, (0, 1),
    )  # fmt: skip


def _finite(values: Any) -> bool:
    """Whether all are finite; in any precision."""
    return not jnp.issubdtype(values.dtype, jnp.inexact) or bool(
        np.isfinite(np.asarray(values, np.float32)).all()
    )


def _moved(before: Any, after: Any) -> float:
    one, other = (eqx.filter(m, eqx.is_inexact_array) for m in (before, after))
    apart = jax.tree.map(lambda a, b: a.astype(jnp.float32) - b.astype(jnp.float32), one, other)
    return float(optax.tree.norm(apart) / optax.tree.norm(one))
