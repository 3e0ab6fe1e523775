"""A readout whose class vectors have length 1, so that no class can outgrow another."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.mlp import MLP


class UnitLinear(eqx.Module):
    """x @ w / |w|, the weights of each output brought to length 1; no bias: [*batch, in] -> [*batch, out].

    Initialised as N(0, 2 / in); an output whose weights are all 0 is 0.

    Source: the weight-normalised head of Lesort et al. 2023 (arXiv 2207.04543).
    """

    weight: Float[Array, "in out"]

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        self.weight = jax.random.normal(key, (in_size, out_size)) * (2 / in_size) ** 0.5

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        weight = self.weight.astype(jnp.promote_types(self.weight.dtype, jnp.float32))
        square = jnp.square(weight).sum(axis=0)  # which float16 would not hold
        unit = weight * jax.lax.rsqrt(jnp.where(square > 0, square, 1))
        return x @ unit.astype(self.weight.dtype)


class UnitMLP(eqx.Module):
    """An MLP, at least one hidden layer, with a `UnitLinear` readout: [batch, in] -> [batch, classes]."""

    body: MLP
    readout: UnitLinear

    def __init__(self, in_size: int, widths: Sequence[int], classes: int, *, key: PRNGKeyArray):
        first, last = jax.random.split(key)
        self.body = MLP(in_size, widths[:-1], widths[-1], key=first)
        self.readout = UnitLinear(widths[-1], classes, key=last)

    def __call__(self, x: Float[Array, "batch in"]) -> Float[Array, "batch classes"]:
        return self.readout(jax.nn.relu(self.body(x)))
