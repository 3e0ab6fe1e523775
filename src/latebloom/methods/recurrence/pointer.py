"""Pointer networks, which answer with places of their input, and two rivals with a fixed dictionary of places.

Vinyals, Fortunato and Jaitly (NIPS 2015, arXiv 1506.03134), section 2. All three read a set of points with one LSTM and
write with another, whose input is the point written last: they differ in how they score what comes next, and in nothing
else. Tokens: 0 is the end, j the j-th point, from 1 on; -1 stands before the first.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from latebloom.nn.attention import AdditiveAttention
from latebloom.nn.mlp import Linear
from latebloom.nn.recurrent import LSTM

Model = TypeVar("Model")


class Context(NamedTuple):
    """What a network knows of its input when it writes; the first axis of each is that of the batch."""

    points: Float[Array, "batch n features"]  # what pads is 0
    memory: Float[Array, "batch slots size"]
    prepared: Float[Array, "batch slots size"]
    open: Bool[Array, "batch slots"]  # the end, and points that there are


class Writer(eqx.Module):
    """A sequence of tokens from a set of points: `encode` once, then `step` by step.

    `model(points, counts, targets)` are the scores of every step when it is told what came before (teacher forcing),
    [batch, steps, n + 1]; -inf where there is no such point. Whatever pads the points may be anything, NaN too.
    """

    encoder: LSTM
    decoder: LSTM
    first: Float[Array, " features"]  # what the decoder is fed first

    def encode(
        self, points: Shaped[Array, "batch n features"], counts: Int[Array, " batch"]
    ) -> tuple[Context, Any]:
        """What is known of the points, and the state before the first token.

        Raises `ValueError` for points that are not [batch, n, features] with as many features as the network takes, and
        for counts that are not one a set.
        """
        weight = self.encoder.input.weight
        if points.ndim != 3 or points.shape[2] != len(weight):
            raise ValueError(f"points must be [batch, n, {len(weight)}], not {list(points.shape)}")
        if jnp.shape(counts) != points.shape[:1]:
            raise ValueError(f"counts must be one a set, {points.shape[0]}, not {list(jnp.shape(counts))}")  # fmt: skip
        points = points.astype(jnp.result_type(points, weight))
        there = jnp.arange(points.shape[1]) < counts[:, None]
        points = jnp.where(there[..., None], points, 0)
        state, memory = self.encoder(points, lengths=counts)
        memory, prepared = self.remember(memory)
        return Context(points, memory, prepared, jnp.pad(there, ((0, 0), (1, 0)), constant_values=True)), self.begin(state)  # fmt: skip

    def step(
        self, context: Context, state: Any, token: Int[Array, " batch"]
    ) -> tuple[Any, Float[Array, "batch slots"]]:
        """The state after writing `token`, and scores of what comes next."""
        place = jnp.maximum(token - 1, 0)[:, None, None]
        fed = jnp.take_along_axis(self.fed(context), place, axis=1)[:, 0]
        fed = jnp.where((token < 0)[:, None], self.first.astype(fed.dtype), fed)
        state, scores = self.write(context, state, fed)
        return state, jnp.where(context.open, scores, -jnp.inf)

    def __call__(
        self, points: Shaped[Array, "batch n features"], counts: Int[Array, " batch"], targets: Int[Array, "batch steps"],
    ) -> Float[Array, "batch steps slots"]:  # fmt: skip
        context, state = self.encode(points, counts)
        told = jnp.pad(targets.T[:-1], ((1, 0), (0, 0)), constant_values=-1)
        _, scores = jax.lax.scan(lambda state, token: self.step(context, state, token), state, told)
        return jnp.moveaxis(scores, 0, 1)

    def remember(self, memory: Array) -> tuple[Array, Array]:
        """What is looked up while writing, and its part of the scores."""
        return memory, memory

    def begin(self, state: Any) -> Any:
        """The state before the first token: the encoder's last."""
        return state

    def fed(self, context: Context) -> Float[Array, "batch n fed"]:
        """What the decoder is fed for each point: the point itself."""
        return context.points

    @abstractmethod
    def write(self, context: Context, state: Any, fed: Array) -> tuple[Any, Array]:
        """The next state and the scores of the end and of all points."""


class PointerNetwork(Writer):
    """Scores u[j] = v . tanh(W1 e_j + W2 d) of the encoder's outputs e_j at the decoder's output d (equation 3).

    e_0, the place of the end, is learned. It takes sets of any size, also larger than it has learned from.

    `feed`: what the decoder is fed, the "point" written last, or its "encoded" output e_j, as a public
    implementation does. Raises `ValueError` for another feed.
    """

    attention: AdditiveAttention
    end: Float[Array, " size"]
    feed: Literal["point", "encoded"] = eqx.field(static=True)

    def __init__(
        self, size: int, *, key: PRNGKeyArray, features: int = 2, feed: Literal["point", "encoded"] = "point",
    ):  # fmt: skip
        if feed not in ("point", "encoded"):
            raise ValueError(f'feed must be "point" or "encoded", not {feed!r}')
        keys = jax.random.split(key, 5)
        taken = features if feed == "point" else size
        self.encoder = LSTM(features, size, key=keys[0])
        self.decoder = LSTM(taken, size, key=keys[1])
        self.first = _around(keys[2], taken, size)
        self.attention = AdditiveAttention(size, size, size, key=keys[3])
        self.end = _around(keys[4], size, size)
        self.feed = feed

    def remember(self, memory: Array) -> tuple[Array, Array]:
        end = jnp.broadcast_to(self.end.astype(memory.dtype), memory[:, :1].shape)
        memory = jnp.concatenate([end, memory], axis=1)
        return memory, self.attention.prepared(memory)

    def fed(self, context: Context) -> Float[Array, "batch n fed"]:
        return context.points if self.feed == "point" else context.memory[:, 1:]

    def write(self, context: Context, state: Any, fed: Array) -> tuple[Any, Array]:
        state, out = self.decoder.step(state, self.decoder.input(fed))
        return state, self.attention(context.prepared, out)


class _Dictionary(Writer):
    """Scores from a fixed dictionary: the end and the places of `most` points."""

    def encode(
        self, points: Shaped[Array, "batch n features"], counts: Int[Array, " batch"]
    ) -> tuple[Context, Any]:
        most = self.readout.bias.shape[0] - 1  # pyright: ignore
        if points.ndim == 3 and points.shape[1] > most:
            raise ValueError(f"sets of {points.shape[1]} points go beyond the dictionary, which has places for {most}")  # fmt: skip
        return super().encode(points, counts)

    def among(self, scores: Array, context: Context) -> Array:
        return scores[:, : context.open.shape[1]]


class Seq2Seq(_Dictionary):
    """A readout of the decoder's output over the end and `most` places (Sutskever, Vinyals and Le 2014).

    Raises `ValueError` when called on sets of more points.
    """

    readout: Linear

    def __init__(self, size: int, most: int, *, key: PRNGKeyArray, features: int = 2):
        keys = jax.random.split(key, 4)
        self.encoder = LSTM(features, size, key=keys[0])
        self.decoder = LSTM(features, size, key=keys[1])
        self.first = _around(keys[2], features, size)
        self.readout = Linear(size, most + 1, key=keys[3])

    def write(self, context: Context, state: Any, fed: Array) -> tuple[Any, Array]:
        state, out = self.decoder.step(state, self.decoder.input(fed))
        return state, self.among(self.readout(out), context)


class AttentionSeq2Seq(_Dictionary):
    """A readout of the decoder's output d and of d' = sum_j a_j e_j, a the softmax of the pointer's scores (equation 2).

    d' is fed to the next step beside the point; at first it is 0. Each set must have a point.

    Raises `ValueError` when called on sets of more points than the `most` of the dictionary.
    """

    attention: AdditiveAttention
    readout: Linear

    def __init__(self, size: int, most: int, *, key: PRNGKeyArray, features: int = 2):
        keys = jax.random.split(key, 5)
        self.encoder = LSTM(features, size, key=keys[0])
        self.decoder = LSTM(features + size, size, key=keys[1])
        self.first = _around(keys[2], features, size)
        self.attention = AdditiveAttention(size, size, size, key=keys[3])
        self.readout = Linear(2 * size, most + 1, key=keys[4])

    def remember(self, memory: Array) -> tuple[Array, Array]:
        return memory, self.attention.prepared(memory)

    def begin(self, state: Any) -> Any:
        return state, jnp.zeros_like(state[0])

    def write(self, context: Context, state: Any, fed: Array) -> tuple[Any, Array]:
        inner, read = state
        entering = self.decoder.input(jnp.concatenate([fed, read], axis=-1))
        inner, out = self.decoder.step(inner, entering)
        scores = self.attention(context.prepared, out, context.open[:, 1:])
        read = self.attention.read(scores, context.memory)
        told = self.readout(jnp.concatenate([out, read], axis=-1))
        return (inner, read), self.among(told, context)


def sequence_loss(
    scores: Float[Array, "batch steps slots"], targets: Int[Array, "batch steps"], lengths: Int[Array, " batch"],
    per: Literal["sequence", "step"] = "sequence",
) -> Float[Array, ""]:  # fmt: skip
    """-log p of the targets in nats, on average over sequences, or over all steps that count (equation 1).

    Raises `ValueError` for another `per`.
    """
    if per not in ("sequence", "step"):
        raise ValueError(f'per must be "sequence" or "step", not {per!r}')
    on = jnp.arange(targets.shape[1]) < lengths[:, None]
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    token = jnp.where(on, targets, 0)[..., None]
    cost = -jnp.take_along_axis(jax.nn.log_softmax(scores), token, axis=-1)[..., 0]
    return jnp.where(on, cost, 0).sum() / (len(targets) if per == "sequence" else on.sum())


def uniform_start(model: Model, key: PRNGKeyArray, bound: float = 0.08) -> Model:
    """The model with every parameter drawn from U(-bound, bound), in its own precision."""
    leaves, tree = jax.tree.flatten(eqx.filter(model, eqx.is_inexact_array))
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.uniform(k, a.shape, jnp.float32, -bound, bound).astype(a.dtype) for k, a in zip(keys, leaves, strict=True)]  # fmt: skip
    return eqx.combine(jax.tree.unflatten(tree, drawn), model)


def _around(key: PRNGKeyArray, count: int, size: int) -> Float[Array, " count"]:
    bound = float(size**-0.5)
    return jax.random.uniform(key, (count,), jnp.float32, -bound, bound)
