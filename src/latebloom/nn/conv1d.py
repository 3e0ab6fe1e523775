"""Convolution over time as a matrix product for each tap, whose gradients are matrix products, too."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped


class Conv1d(eqx.Module):
    """[batch, time, inputs] -> [batch, time', outputs]: y[t] = bias + sum over k of x[t + k dilation - before] weight[k].

    - `padding`: "same" (as many steps, zeros on both sides), "causal" (zeros before alone, so that no output sees what
      comes later), "valid" (none: (taps - 1) dilation steps fewer).
    - Weights and biases start uniform in +-1/sqrt(in taps) (PyTorch's default).

    Raises `ValueError` for another padding, taps or dilation below 1, and inputs too short to be "valid".
    """

    weight: Float[Array, "taps inputs outputs"]
    bias: Float[Array, " outputs"] | None
    dilation: int = eqx.field(static=True)
    padding: str = eqx.field(static=True)

    def __init__(
        self, in_size: int, out_size: int, taps: int, *, key: PRNGKeyArray, dilation: int = 1,
        padding: str = "same", use_bias: bool = True,
    ):  # fmt: skip
        if padding not in ("same", "causal", "valid"):
            raise ValueError(f'padding must be "same", "causal" or "valid", not {padding!r}')
        if taps < 1 or dilation < 1:
            raise ValueError(f"taps and dilation must be at least 1, not {taps} and {dilation}")
        one, two = jax.random.split(key)
        bound = float(1 / np.sqrt(in_size * taps))
        draw = jax.random.uniform
        self.weight = draw(one, (taps, in_size, out_size), jnp.float32, -bound, bound)
        self.bias = draw(two, (out_size,), jnp.float32, -bound, bound) if use_bias else None
        self.dilation, self.padding = dilation, padding

    def __call__(
        self, x: Shaped[Array, "batch time inputs"]
    ) -> Float[Array, "batch steps outputs"]:
        taps = len(self.weight)
        reach = (taps - 1) * self.dilation
        before = {"same": reach // 2, "causal": reach, "valid": 0}[self.padding]
        after = 0 if self.padding == "valid" else reach - before
        if x.shape[1] + before + after <= reach:
            raise ValueError(f"{taps} taps, {self.dilation} apart, need at least {reach + 1} steps, not {x.shape[1]}")  # fmt: skip
        padded = jnp.pad(x.astype(self.weight.dtype), ((0, 0), (before, after), (0, 0)))
        steps = padded.shape[1] - reach
        parts = (padded[:, k * self.dilation : k * self.dilation + steps] @ w for k, w in enumerate(self.weight))  # fmt: skip
        y = sum(parts, start=jnp.zeros((), self.weight.dtype))
        return y if self.bias is None else y + self.bias
