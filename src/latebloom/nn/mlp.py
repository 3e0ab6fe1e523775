"""Multilayer perceptron with the switches that the papers' experiments need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from latebloom.nn.norm import BatchNorm

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "identity": lambda x: x,
}


class Linear(eqx.Module):
    """Affine map of the last axis, initialised as U(±1/sqrt(in)) times `init_scale`.

    Whole numbers are features like any others; for indices see `OneHotLinear`.
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | None

    def __init__(
        self, in_size: int, out_size: int, *, key: PRNGKeyArray, use_bias: bool = True,
        init_scale: float = 1.0, dtype: jax.typing.DTypeLike = jnp.float32,
    ):  # fmt: skip
        weight_key, bias_key = jax.random.split(key)
        bound = init_scale / np.sqrt(in_size)
        draw = jax.random.uniform
        self.weight = draw(weight_key, (in_size, out_size), dtype, -bound, bound)
        self.bias = draw(bias_key, (out_size,), dtype, -bound, bound) if use_bias else None

    def __call__(self, x: Shaped[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            x = x.astype(self.weight.dtype)
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class OneHotLinear(Linear):
    """`Linear` of the sum of `n` one-hot vectors, given as indices [*batch, n] from 0 to in - 1.

    Rows of the weight matrix are gathered and added, which costs no matrix product. Indices are not
    checked; what is not a whole number raises `TypeError`.
    """

    def __call__(self, x: Shaped[Array, "*batch n"]) -> Float[Array, "*batch out"]:
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"one_hot takes indices, whole numbers [*batch, n], not {x.dtype}")
        y = self.weight[x].sum(axis=-2)
        return y if self.bias is None else y + self.bias


class MLP(eqx.Module):
    """[batch, in_size] -> [batch, out_size] through hidden layers of the given `widths`.

    - `init_scale` multiplies every initial weight and bias (large-initialisation experiments).
    - `logit_scale` multiplies the output (laziness experiments).
    - `norm="batch"` puts batch normalisation before every activation.
    - `one_hot`: the input [batch, n] are indices below `in_size`, for the sum of their one-hot vectors.

    Raises `ValueError` for an unknown activation or norm.
    """

    layers: tuple[Linear, ...]
    norms: tuple[BatchNorm, ...]
    logit_scale: float = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self, in_size: int, widths: Sequence[int], out_size: int, *, key: PRNGKeyArray,
        activation: str = "relu", use_bias: bool = True, init_scale: float = 1.0,
        logit_scale: float = 1.0, norm: str | None = None, one_hot: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
    ):  # fmt: skip
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, not {activation!r}")
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be None or 'batch', not {norm!r}")
        sizes = [in_size, *widths, out_size]
        keys = jax.random.split(key, len(sizes) - 1)
        first: type[Linear] = OneHotLinear if one_hot else Linear
        kinds = [first, *[Linear] * len(widths)]
        self.layers = tuple(
            kind(a, b, key=k, use_bias=use_bias, init_scale=init_scale, dtype=dtype)
            for kind, a, b, k in zip(kinds, sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.norms = tuple(BatchNorm(w, dtype=dtype) for w in widths) if norm else ()
        self.logit_scale = logit_scale
        self.activation = activation

    def preactivations(
        self, x: Shaped[Array, "batch in"] | Int[Array, "batch n"], *, train: bool = False
    ) -> tuple[Float[Array, "batch _width"], ...]:
        """What enters each activation, layer by layer, and at the end the logits."""
        seen = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.norms):
                x = self.norms[i](x, train=train)
            seen.append(x)
            x = ACTIVATIONS[self.activation](x)
        seen[-1] = seen[-1] * self.logit_scale
        return tuple(seen)

    def __call__(
        self, x: Shaped[Array, "batch in"] | Int[Array, "batch n"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch out"]:  # fmt: skip
        return self.preactivations(x, train=train)[-1]
