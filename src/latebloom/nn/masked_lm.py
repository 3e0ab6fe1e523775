"""A masked language model: a small BERT (Devlin et al. 2019, arXiv 1810.04805)."""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.nn.mlp import Linear
from latebloom.nn.transformer import ACTIVATIONS, Block, LayerNorm, dropped


class MaskedLM(eqx.Module):
    """Tokens int [batch, n] -> logits [batch, n, vocabulary]; `at` gives those of some positions alone: the same of
    all sequences [k] or a slice, or of each its own [batch, k].

    Embeddings and learned positions, normalised; post-LN blocks with GELU units; a dense layer, GELU and a norm;
    then a product with the embeddings (`tied`) or with a matrix of its own, and a bias. Weights start from a normal
    distribution of deviation `spread`, biases at 0. (BERT adds to all positions one more vector, for the first of two
    sentences; here positions hold it.)

    Raises `ValueError` if `size` is not a multiple of `heads`.
    """

    embedding: Float[Array, "vocabulary size"]
    position: Float[Array, "positions size"]
    norm: LayerNorm
    blocks: tuple[Block, ...]
    dense: Linear
    dense_norm: LayerNorm
    output: Float[Array, "vocabulary size"] | None
    bias: Float[Array, " vocabulary"]
    dropout: float = eqx.field(static=True)

    def __init__(
        self, vocabulary: int, positions: int, *, key: PRNGKeyArray, size: int = 64, heads: int = 1,
        hidden: int = 128, layers: int = 6, dropout: float = 0.1, tied: bool = True, spread: float = 0.02,
    ):  # fmt: skip
        if size % heads:
            raise ValueError(f"size must be a multiple of heads, but {size} % {heads} is not 0")
        keys = jax.random.split(key, layers + 4)
        drawn = partial(_normal, spread)
        self.embedding = spread * jax.random.normal(keys[0], (vocabulary, size), jnp.float32)
        self.position = spread * jax.random.normal(keys[1], (positions, size), jnp.float32)
        self.norm, self.dense_norm = LayerNorm(size), LayerNorm(size)
        self.blocks = tuple(
            drawn(Block(size, heads, hidden, dropout, False, k, "gelu"), k) for k in keys[4:]
        )
        self.dense = drawn(Linear(size, size, key=keys[2]), keys[2])
        self.output = None if tied else spread * jax.random.normal(keys[3], (vocabulary, size))
        self.bias = jnp.zeros(vocabulary)
        self.dropout = dropout

    def states(
        self, x: Int[Array, "batch n"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> list[Float[Array, "batch n size"]]:
        """Embeddings with their positions, normalised, and what each block puts out."""
        keys = [None] * (len(self.blocks) + 1)
        if train and key is not None:
            keys = list(jax.random.split(key, len(keys)))
        h = self.norm(self.embedding[x] + self.position[: x.shape[1]])
        found = [dropped(h, self.dropout, keys[0])]
        for block, k in zip(self.blocks, keys[1:], strict=True):
            found.append(block(found[-1], k))
        return found

    def __call__(
        self, x: Int[Array, "batch n"], *, key: PRNGKeyArray | None = None, train: bool = False,
        at: Int[Array, " k"] | Int[Array, "batch k"] | slice = slice(None),
    ) -> Float[Array, "batch k vocabulary"]:  # fmt: skip
        h = self.states(x, key=key, train=train)[-1]
        own = not isinstance(at, slice) and at.ndim == 2
        h = h[jnp.arange(len(h))[:, None], at] if own else h[:, at]
        h = self.dense_norm(ACTIVATIONS["gelu"](self.dense(h)))
        return h @ (self.embedding if self.output is None else self.output).T + self.bias


def _normal(spread: float, module: Any, key: PRNGKeyArray) -> Any:
    """The module with the weights of its affine maps drawn anew, and their biases 0."""

    def linear(node: object) -> bool:
        return isinstance(node, Linear)

    found = [m for m in jax.tree.leaves(module, is_leaf=linear) if linear(m)]
    new = [
        eqx.tree_at(
            lambda l: (l.weight, l.bias), m,
            (spread * jax.random.normal(k, m.weight.shape, jnp.float32), jnp.zeros_like(m.bias)),
        )
        for m, k in zip(found, jax.random.split(key, len(found)), strict=True)
    ]  # fmt: skip
    return eqx.tree_at(
        lambda t: [m for m in jax.tree.leaves(t, is_leaf=linear) if linear(m)], module, new
    )
