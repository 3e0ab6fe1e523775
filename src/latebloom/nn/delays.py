"""Connections with a weight and a delay each, both learned (Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv 2306.17670).

A connection with a delay is a convolution over time whose kernel has one tap. For gradients the tap is a normal
density around the delay, whose width shrinks in training (dilated convolution with learnable spacings).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped
from scipy.fft import next_fast_len

LEAST = 0.27  # of the density's deviation, in steps: below it no tap but one has a slope


def delay_kernel(
    weight: Float[Array, "inputs outputs"], delay: Float[Array, "inputs outputs"], taps: int,
    sigma: float | Float[Array, ""] | None,
) -> Float[Array, "taps inputs outputs"]:  # fmt: skip
    """What of `weight` each delay of 0 to taps - 1 steps has: all of it together, but for 1e-7.

    A normal density around `delay` with a deviation of |sigma| + 0.27 steps, normalised over the taps; with
    `sigma=None` the one tap nearest to the delay, as it is where delays are whole (no slope in `delay`).
    """
    at = jnp.arange(taps, dtype=delay.dtype)[:, None, None]
    if sigma is None:
        nearest = jnp.clip(jnp.round(delay), 0, taps - 1)
        return jnp.where(at == nearest, weight, jnp.zeros_like(weight))
    density = jnp.exp(-0.5 * jnp.square((at - delay) / (jnp.abs(sigma) + LEAST)))
    return weight * density / (density.sum(axis=0) + 1e-7)


def delayed(
    x: Shaped[Array, "*shape"],
    kernel: Float[Array, "taps inputs outputs"],
    after: int = 0,
) -> Float[Array, "batch steps outputs"]:
    """Of x [batch, time, inputs]: y[t] = sum over d of x[t - d] kernel[d], from zeros before the first step, and `after` steps beyond the last.

    By a Fourier transform over time, in which the taps cost next to nothing. Raises `ValueError` for inputs that are not
    [batch, time, inputs] with as many inputs as the kernel has.
    """
    if x.ndim != 3 or x.shape[2] != kernel.shape[1]:
        raise ValueError(f"inputs must be [batch, time, {kernel.shape[1]}], not {list(x.shape)}" + (": one sequence is x[None]" if x.ndim == 2 else ""))  # fmt: skip
    if after < 0:
        raise ValueError(f"after must be at least 0 steps, not {after}")
    steps, taps = x.shape[1] + after, len(kernel)
    if taps == 1:  # nothing is delayed
        now = x.astype(jnp.promote_types(kernel.dtype, jnp.float32)) @ kernel[0]
        return jnp.pad(now, ((0, 0), (0, after), (0, 0))).astype(kernel.dtype)
    n = next_fast_len(max(x.shape[1] + taps - 1, steps), real=True)
    dtype = jnp.promote_types(kernel.dtype, jnp.float32)
    seen = jnp.fft.rfft(jnp.moveaxis(x, 1, 0).astype(dtype), n, axis=0)
    into = jnp.fft.rfft(kernel.astype(dtype), n, axis=0)
    found = jnp.fft.irfft(seen @ into, n, axis=0)[:steps]
    return jnp.moveaxis(found, 0, 1).astype(kernel.dtype)


class Delays(eqx.Module):
    """[batch, time, inputs] -> [batch, time + after, outputs] by connections that each have a weight and a delay.

    - `delay`, in steps, from 0 to `taps` - 1; it starts uniform. An update may leave that range: `clipped` after it.
    - weights start uniform in +-sqrt(6 / in) (He et al. 2015); there is no bias.

    Raises `ValueError` for fewer than one tap.
    """

    weight: Float[Array, "inputs outputs"]
    delay: Float[Array, "inputs outputs"]
    taps: int = eqx.field(static=True)

    def __init__(self, in_size: int, out_size: int, taps: int, *, key: PRNGKeyArray):
        if taps < 1:
            raise ValueError(f"taps must be at least 1, the longest delay and one, not {taps}")
        one, two = jax.random.split(key)
        bound = float(np.sqrt(6 / in_size))
        self.weight = jax.random.uniform(one, (in_size, out_size), jnp.float32, -bound, bound)
        self.delay = jax.random.uniform(two, (in_size, out_size), jnp.float32, 0, taps - 1)
        self.taps = taps

    def __call__(
        self, x: Shaped[Array, "*shape"], sigma: float | Float[Array, ""] | None, after: int = 0
    ) -> Float[Array, "batch steps outputs"]:  # fmt: skip
        """`sigma`, `after`: see `kernel` and `delayed`."""
        return delayed(x, self.kernel(sigma), after)

    def kernel(
        self, sigma: float | Float[Array, ""] | None, weight: Float[Array, "inputs outputs"] | None = None
    ) -> Float[Array, "taps inputs outputs"]:  # fmt: skip
        """`delay_kernel` of the layer, or of another weight; a negative sigma is taps of one step at whole delays, as None is."""
        weight = self.weight if weight is None else weight
        one_step = delay_kernel(weight, self.delay, self.taps, None)
        if sigma is None:
            return one_step
        return jnp.where(jnp.asarray(sigma) < 0, one_step, delay_kernel(weight, self.delay, self.taps, sigma))  # fmt: skip

    def clipped(self) -> Delays:
        """The same with delays in their range; delays that are not here (another layer's, or partitioned off) stay so."""
        if not eqx.is_array(self.delay):
            return self
        return eqx.tree_at(lambda d: d.delay, self, jnp.clip(self.delay, 0, self.taps - 1))
