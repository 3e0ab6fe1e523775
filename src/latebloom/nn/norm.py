"""Batch normalisation whose running statistics travel with the model, not in hidden state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tape = list[tuple["BatchNorm", Array, Array]]
_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)


class BatchNorm(eqx.Module):
    """Normalises the last axis over all others, then scales and shifts it.

    With `train=True` by the statistics of the batch itself, otherwise by the running ones, which
    `update_statistics` moves. Source: Ioffe & Szegedy 2015, algorithm 1.
    """

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]
    mean: Float[Array, " features"]
    variance: Float[Array, " features"]
    eps: float = eqx.field(static=True)

    def __init__(
        self, features: int, *, eps: float = 1e-5, dtype: jax.typing.DTypeLike = jnp.float32
    ):
        self.scale, self.shift = jnp.ones(features, dtype), jnp.zeros(features, dtype)
        self.mean, self.variance = jnp.zeros(features, dtype), jnp.ones(features, dtype)
        self.eps = eps

    def __call__(
        self, x: Float[Array, "*batch features"], *, train: bool = False
    ) -> Float[Array, "*batch features"]:
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            if (tape := _tape.get()) is not None:
                tape.append((self, mean, variance))
        else:
            mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        return (x - mean) * (self.scale * jax.lax.rsqrt(variance + self.eps)) + self.shift


def _is_norm(node: Any) -> bool:
    return isinstance(node, BatchNorm)


def _norms(model: Any) -> list[BatchNorm]:
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
    """Collects what each `BatchNorm` of `model` sees in a forward pass with `train=True`.

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


def update_statistics(
    model: Any, seen: list[tuple[Array, Array] | None], momentum: float = 0.9
) -> Any:
    """The model with running statistics moved by `1 - momentum` towards those just seen."""
    news = iter(seen)

    def move(node: Any) -> Any:
        if not _is_norm(node) or (new := next(news)) is None:
            return node
        mean = momentum * node.mean + (1 - momentum) * new[0]
        variance = momentum * node.variance + (1 - momentum) * new[1]
        return eqx.tree_at(lambda n: (n.mean, n.variance), node, (mean, variance))

    return jax.tree.map(move, model, is_leaf=_is_norm) if seen else model
