"""Additive attention: how well a query goes with each of several memories (Bahdanau, Cho and Bengio 2015, arXiv 1409.0473)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latebloom.nn.mlp import Linear


class AdditiveAttention(eqx.Module):
    """Scores u[j] = v . tanh(W1 memory[j] + W2 query); `-inf` where the mask is False.

    `prepared` is W1 memory, which all queries of one sequence share. No map has a bias, v starts uniform in
    +-1/sqrt(size).

    A softmax of scores that are all masked is NaN: leave one place open, as the end of a sequence.
    """

    memory: Linear
    query: Linear
    v: Float[Array, " size"]

    def __init__(self, memory_size: int, query_size: int, size: int, *, key: PRNGKeyArray):
        one, two, three = jax.random.split(key, 3)
        self.memory = Linear(memory_size, size, key=one, use_bias=False)
        self.query = Linear(query_size, size, key=two, use_bias=False)
        bound = float(size**-0.5)
        self.v = jax.random.uniform(three, (size,), jnp.float32, -bound, bound)

    def prepared(self, memory: Float[Array, "*batch n memory"]) -> Float[Array, "*batch n size"]:
        return self.memory(memory)

    def __call__(
        self, prepared: Float[Array, "*batch n size"], query: Float[Array, "*batch query"],
        mask: Bool[Array, "*batch n"] | None = None,
    ) -> Float[Array, "*batch n"]:  # fmt: skip
        scores = jnp.tanh(prepared + self.query(query)[..., None, :]) @ self.v
        return scores if mask is None else jnp.where(mask, scores, -jnp.inf)

    @staticmethod
    def read(
        scores: Float[Array, "*batch n"], memory: Float[Array, "*batch n memory"]
    ) -> Float[Array, "*batch memory"]:
        """The memories' mean, weighted by the softmax of their scores."""
        return (jax.nn.softmax(scores, axis=-1)[..., None] * memory).sum(axis=-2)
