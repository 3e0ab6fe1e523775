"""A small transformer encoder over token indices, post- or pre-LN, with or without positions."""

from __future__ import annotations

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.nn.mlp import Linear


class LayerNorm(eqx.Module):
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts it."""

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]

    def __init__(self, features: int):
        self.scale, self.shift = jnp.ones(features), jnp.zeros(features)

    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + 1e-5) * self.scale + self.shift


# GELU by the error function, as BERT has it.
ACTIVATIONS = {"relu": jax.nn.relu, "gelu": partial(jax.nn.gelu, approximate=False)}
Prefix = tuple[Float[Array, "batch length size"], Float[Array, "batch length size"]]


def dropped(x: Array, rate: float, key: PRNGKeyArray | None) -> Array:
    if rate == 0 or key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class Block(eqx.Module):
    """Self-attention and a two-layer network, each with a residual connection."""

    query_key_value: Linear
    out: Linear
    up: Linear
    down: Linear
    norms: tuple[LayerNorm, LayerNorm]
    heads: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    pre_norm: bool = eqx.field(static=True)
    activation: Literal["relu", "gelu"] = eqx.field(static=True)

    def __init__(
        self, size: int, heads: int, hidden: int, dropout: float, pre_norm: bool, key: PRNGKeyArray,
        activation: Literal["relu", "gelu"] = "relu",
    ):  # fmt: skip
        keys = jax.random.split(key, 4)
        # Xavier-uniform for the joint projection (fan_in size, fan_out 3 size), zero biases for
        # attention: the initialisation of the standard encoder layer.
        xavier = float(np.sqrt(6 / (size + 3 * size)) * np.sqrt(size))
        joint = Linear(size, 3 * size, key=keys[0], init_scale=xavier)
        self.query_key_value = eqx.tree_at(lambda l: l.bias, joint, jnp.zeros(3 * size))
        out = Linear(size, size, key=keys[1])
        self.out = eqx.tree_at(lambda l: l.bias, out, jnp.zeros(size))
        self.up = Linear(size, hidden, key=keys[2])
        self.down = Linear(hidden, size, key=keys[3])
        self.norms = (LayerNorm(size), LayerNorm(size))
        self.heads, self.dropout, self.pre_norm = heads, dropout, pre_norm
        self.activation = activation

    def attend(
        self, x: Float[Array, "batch n size"], prefix: Prefix | None = None
    ) -> Float[Array, "batch n size"]:
        """`prefix`: keys and values [batch, length, size] that stand before those of the tokens."""
        batch, n, size = x.shape
        qkv = self.query_key_value(x).reshape(batch, n, 3, self.heads, size // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if prefix is not None:
            more = (p.reshape(batch, -1, self.heads, size // self.heads) for p in prefix)
            key, value = (
                jnp.concatenate(pair, axis=1) for pair in zip(more, (key, value), strict=True)
            )
        mixed = jax.nn.dot_product_attention(query, key, value)
        return self.out(mixed.reshape(batch, n, size))

    def __call__(
        self, x: Float[Array, "batch n size"], key: PRNGKeyArray | None
    ) -> Float[Array, "batch n size"]:
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)

        def feed(h: Array) -> Array:
            h = ACTIVATIONS[self.activation](self.up(h))
            return self.down(dropped(h, self.dropout, keys[1]))

        first, second = self.norms
        if self.pre_norm:
            x = x + dropped(self.attend(first(x)), self.dropout, keys[0])
            return x + dropped(feed(second(x)), self.dropout, keys[2])
        x = first(x + dropped(self.attend(x), self.dropout, keys[0]))
        return second(x + dropped(feed(x), self.dropout, keys[2]))


class Transformer(eqx.Module):
    """Tokens int [batch, n] -> logits [batch, out_size], read at the last position.

    - `pre_norm=False` is the post-LN encoder of Vaswani et al. 2017.
    - `positions=n` adds learned position embeddings for sequences of up to n tokens; 0 adds none.
    - `logit_scale` multiplies the output.

    Raises `ValueError` if `size` is not a multiple of `heads`.
    """

    embedding: Float[Array, "vocabulary size"]
    position: Float[Array, "positions size"] | None
    blocks: tuple[Block, ...]
    readout: Linear
    logit_scale: float = eqx.field(static=True)

    def __init__(
        self, vocabulary: int, out_size: int, *, key: PRNGKeyArray, size: int = 128,
        heads: int = 4, hidden: int = 2048, layers: int = 1, dropout: float = 0.1,
        pre_norm: bool = False, positions: int = 0, logit_scale: float = 1.0,
    ):  # fmt: skip
        if size % heads:
            raise ValueError(f"size must be a multiple of heads, but {size} % {heads} is not 0")
        keys = jax.random.split(key, layers + 3)
        self.embedding = jax.random.normal(keys[0], (vocabulary, size), jnp.float32)
        self.position = (
            0.02 * jax.random.normal(keys[1], (positions, size), jnp.float32) if positions else None
        )
        self.blocks = tuple(Block(size, heads, hidden, dropout, pre_norm, k) for k in keys[3:])
        self.readout = Linear(size, out_size, key=keys[2])
        self.logit_scale = logit_scale

    def __call__(
        self, x: Int[Array, "batch n"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch out"]:
        h = self.embedding[x]
        if self.position is not None:
            h = h + self.position[: x.shape[1]]
        for i, block in enumerate(self.blocks):
            h = block(h, jax.random.fold_in(key, i) if train and key is not None else None)
        return self.readout(h[:, -1]) * self.logit_scale
