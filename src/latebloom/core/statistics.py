"""Running statistics of normalisation layers: what a pass saw, and leaves that are not learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
from jaxtyping import Array

Tape = list[tuple["RunningStatistics", Array, Array]]
Statistics = Sequence[tuple[Array, Array] | None]  # mean and variance that each layer saw, or None
_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)


class RunningStatistics(eqx.Module):
    """A layer that normalises by the batch in training and by running statistics afterwards.

    It has the fields `mean` and `variance`, where it likes: a field's place is a leaf's.
    """

    if TYPE_CHECKING:
        mean: Array
        variance: Array

    def saw(self, mean: Array, variance: Array) -> None:
        """Report the statistics of a batch to the `batch_statistics` around the call, if any."""
        if (tape := _tape.get()) is not None:
            tape.append((self, mean, variance))


def _is_norm(node: Any) -> bool:
    return isinstance(node, RunningStatistics)


def _norms(model: Any) -> list[RunningStatistics]:
    return [n for n in jax.tree.leaves(model, is_leaf=_is_norm) if _is_norm(n)]


def trainable_leaves(model: Any) -> Any:
    """Which leaves of a model are learned: its floating-point arrays, running statistics left out.

    A tree of booleans, for `eqx.filter` and `eqx.partition`.
    """

    def learned(node: Any) -> Any:
        if not _is_norm(node):
            return eqx.is_inexact_array(node)
        leaves = jax.tree.map(eqx.is_inexact_array, node)
        return eqx.tree_at(lambda n: (n.mean, n.variance), leaves, (False, False))

    return jax.tree.map(learned, model, is_leaf=_is_norm)


@contextlib.contextmanager
def batch_statistics(model: Any) -> Iterator[list[tuple[Array, Array] | None]]:
    """Collects what each layer with running statistics of `model` sees in a forward pass with `train=True`.

    Yields a list that holds, after the block, (mean, biased variance) for each of them in tree
    order, `None` for one that was not reached. It works while tracing: the list may leave a
    `value_and_grad` as auxiliary output.
    """
    tape: Tape = []
    seen: list[tuple[Array, Array] | None] = []
    token = _tape.set(tape)
    try:
        yield seen
    finally:
        _tape.reset(token)
    by_norm = {id(norm): (mean, variance) for norm, mean, variance in tape}
    seen.extend(by_norm.get(id(norm)) for norm in _norms(model))


def update_statistics(model: Any, seen: Statistics, momentum: float = 0.9) -> Any:
    """The model with running statistics moved by `1 - momentum` towards those just seen."""
    news = iter(seen)

    def move(node: Any) -> Any:
        if not _is_norm(node) or (new := next(news)) is None:
            return node
        mean = momentum * node.mean + (1 - momentum) * new[0]
        variance = momentum * node.variance + (1 - momentum) * new[1]
        return eqx.tree_at(lambda n: (n.mean, n.variance), node, (mean, variance))

    return jax.tree.map(move, model, is_leaf=_is_norm) if seen else model
