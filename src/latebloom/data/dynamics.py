"""Data of dynamics: moments of a noisy spiral, irregularly observed oscillators, a ring of Gaussians. All drawn from a key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latebloom.core.sdes import SRIW1, one_step
from latebloom.core.sdes.brownian import drawn

SPIRAL = np.array([[-0.1, 2.0], [-2.0, -0.1]])
NOISE = 0.2


class Moments(NamedTuple):
    """Means and variances over paths at some times."""

    times: Float[Array, " times"]
    means: Float[Array, "times size"]
    variances: Float[Array, "times size"]


def spiral_drift(t: object, u: Float[Array, "*paths 2"]) -> Float[Array, "*paths 2"]:
    """A u^3 with A = [[-0.1, 2], [-2, -0.1]]."""
    return u**3 @ jnp.asarray(SPIRAL.T, u.dtype)


def spiral_diffusion(t: object, u: Float[Array, "*paths 2"]) -> Float[Array, "*paths 2"]:
    """0.2 u, each element with noise of its own."""
    return NOISE * u


def spiral_moments(
    key: PRNGKeyArray, *, paths: int = 10_000, times: int = 30, between: int = 20
) -> Moments:
    """Means and variances of du = A u^3 dt + 0.2 u dW from (2, 0), at evenly spaced times from 0 to 1.

    By `between` steps of equal length from time to time, of strong order 1.5.
    """
    h = jnp.asarray(1.0 / ((times - 1) * between))

    def step(u: Array, key: PRNGKeyArray) -> tuple[Array, None]:
        piece = drawn(h, *jax.random.normal(key, (2, *u.shape)))
        one = jnp.ones(())
        return one_step(spiral_drift, spiral_diffusion, h, u, h, piece.w, piece.h, one, one, SRIW1)[0], None  # fmt: skip

    def stretch(u: Array, key: PRNGKeyArray) -> tuple[Array, tuple[Array, Array]]:
        u, _ = jax.lax.scan(step, u, jax.random.split(key, between))
        return u, (u.mean(axis=0), u.var(axis=0, ddof=1))

    start = jnp.tile(jnp.asarray([2.0, 0.0]), (paths, 1))
    _, (means, variances) = jax.lax.scan(stretch, start, jax.random.split(key, times - 1))
    first = start[:1]
    return Moments(
        jnp.linspace(0.0, 1.0, times), jnp.concatenate([first, means]), jnp.concatenate([jnp.zeros_like(first), variances])
    )  # fmt: skip


class IrregularSeries(NamedTuple):
    """Series on a common grid of times from 0 to 1, each value there or not."""

    times: Float[Array, " times"]
    values: Float[Array, "series times channels"]
    there: Bool[Array, "series times channels"]


def irregular_oscillators(
    key: PRNGKeyArray, series: int, *, channels: int = 37, times: int = 49, noise: float = 0.05, part: int = 0
) -> IrregularSeries:  # fmt: skip
    """Two damped oscillators of each series' own frequency and damping, read through a random layer that all share.

    A stand-in for hourly records of patients: a channel is there at a time with a probability of its own, log-uniform
    from 0.02 to 0.6. `part`: other series of the same world (readout and probabilities), as for a test.

    Raises `ValueError` for fewer than one series or channel, or two times.
    """
    if series < 1 or channels < 1 or times < 2:
        raise ValueError(f"there must be a series, a channel and two times at least, not {series}, {channels} and {times}")  # fmt: skip
    world, own = jax.random.split(key)
    keys = jax.random.split(jax.random.fold_in(own, part), 5)
    mix, rate = jax.random.split(world)
    grid = jnp.linspace(0.0, 1.0, times)
    frequency = jax.random.uniform(keys[0], (series, 2), minval=4.0, maxval=12.0)
    damping = jax.random.uniform(keys[1], (series, 2), minval=0.3, maxval=2.0)
    phase = jax.random.uniform(keys[2], (series, 2), maxval=2 * jnp.pi)
    angle = frequency[:, None] * grid[:, None] + phase[:, None]
    size = jnp.exp(-damping[:, None] * grid[:, None])
    latent = jnp.concatenate([size * jnp.cos(angle), size * jnp.sin(angle)], axis=-1)
    values = jnp.tanh(latent @ jax.random.normal(mix, (4, channels)))
    values = values + noise * jax.random.normal(keys[3], values.shape)
    low, high = np.log(0.02), np.log(0.6)
    chance = jnp.exp(jax.random.uniform(rate, (channels,), minval=low, maxval=high))
    there = jax.random.bernoulli(keys[4], chance, values.shape)
    there = there.at[:, 0, 0].set(there[:, 0, 0] | ~there.any(axis=(1, 2)))  # none is empty
    return IrregularSeries(grid, values, there)


def gaussian_ring(
    key: PRNGKeyArray, count: int, *, modes: int = 6, radius: float = 5.0, deviation: float = 0.1, noise: float = 0.3
) -> Float[Array, "count 2"]:  # fmt: skip
    """Points around the modes of a ring, as many around each as can be; noise of both deviations is added.

    Raises `ValueError` for fewer points than modes.
    """
    if modes < 1 or count < modes:
        raise ValueError(f"there must be a point for each mode, not {count} for {modes}")
    angle = 2 * jnp.pi * ((jnp.arange(count) % modes) + 1) / modes
    centre = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    order, one = jax.random.split(key)
    spread = (deviation**2 + noise**2) ** 0.5
    return jax.random.permutation(order, centre + spread * jax.random.normal(one, (count, 2)))
