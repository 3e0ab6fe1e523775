"""Networks whose laziness is set by the size of weights and outputs, and a task that shows it.

Kumar, Bordelon, Gershman, Pehlevan (2024), arXiv 2310.06110.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.data import Dataset


class ScaledMLP(eqx.Module):
    """The ReLU network of the paper's image experiments: [batch, in] -> [batch, out].

    Weights are `scale` * N(0, 2/fan_in) and every layer divides by sqrt(fan_in) once more, the
    readout by fan_in; no biases. `alpha` multiplies the output and is not trained. As the network
    is homogeneous of degree L (number of layers), only alpha * scale^L and the step size relative
    to `scale` matter.
    """

    weights: tuple[Float[Array, "in out"], ...]
    alpha: float = eqx.field(static=True)

    def __init__(
        self, sizes: Sequence[int], *, key: PRNGKeyArray, alpha: float = 1.0, scale: float = 1.0
    ):
        if len(sizes) < 3:
            raise ValueError(f"sizes must name input, hidden and output layers, got {sizes}.")
        keys = jax.random.split(key, len(sizes) - 1)
        self.weights = tuple(
            scale * jnp.sqrt(2 / a) * jax.random.normal(k, (a, b))
            for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
        )
        self.alpha = alpha

    def __call__(
        self, x: Float[Array, "batch in"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch out"]:
        *hidden, readout = self.weights
        for weight in hidden:
            x = jax.nn.relu(x @ weight / jnp.sqrt(weight.shape[0]))
        return self.alpha * (x @ readout) / readout.shape[0]


class NarrowTeacher(eqx.Module):
    """Draws a two-layer ReLU teacher of three units and Gaussian inputs [n, dim], anew for each key.

    The targets [n, 1] have mean square 1 over the `samples` for training and 1000 for testing.
    """

    dim: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        input_key, teacher_key = jax.random.split(key)
        x = jax.random.normal(input_key, (self.samples + 1000, self.dim))
        y = ScaledMLP((self.dim, 3, 1), key=teacher_key)(x)
        y = y / jnp.sqrt(jnp.mean(y**2))
        n = self.samples
        return Dataset(x[:n], y[:n], x[n:], y[n:])
