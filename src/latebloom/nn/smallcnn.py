"""A small convolutional network with a hidden layer, for small images."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.conv import Conv
from latebloom.nn.mlp import Linear


class SmallCNN(eqx.Module):
    """[batch, height, width, channels] -> [batch, classes].

    Two 3x3 convolutions to 16 and 32 channels, each with ReLU and 2x2 max pooling, then a hidden
    layer of `width`. Map several seeds with `lax.map` (see `Conv`).

    Raises `ValueError` for images smaller than 4 x 4.
    """

    first: Conv
    second: Conv
    hidden: Linear
    readout: Linear

    def __init__(
        self, size: tuple[int, int], channels: int = 1, classes: int = 10, *, width: int = 128,
        key: PRNGKeyArray,
    ):  # fmt: skip
        if min(size) < 4:
            raise ValueError(f"images must be at least 4 x 4, not {size[0]} x {size[1]}")
        keys = jax.random.split(key, 4)
        self.first = Conv(channels, 16, 3, key=keys[0])
        self.second = Conv(16, 32, 3, key=keys[1])
        self.hidden = Linear((size[0] // 4) * (size[1] // 4) * 32, width, key=keys[2])
        self.readout = Linear(width, classes, key=keys[3])

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch classes"]:  # fmt: skip
        h = _pooled(jax.nn.relu(self.first(x)))
        h = _pooled(jax.nn.relu(self.second(h)))
        return self.readout(jax.nn.relu(self.hidden(h.reshape(len(h), -1))))


def _pooled(x: Array) -> Array:
    """Largest of every 2 x 2 pixels; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    return x[:, : 2 * h, : 2 * w].reshape(batch, h, 2, w, 2, channels).max(axis=(2, 4))
