"""Batch normalisation whose running statistics travel with the model, not in hidden state."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.statistics import RunningStatistics


class BatchNorm(RunningStatistics):
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
            self.saw(mean, variance)
        else:
            mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        return (x - mean) * (self.scale * jax.lax.rsqrt(variance + self.eps)) + self.shift
