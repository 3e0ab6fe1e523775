"""A small convolutional network for small images."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.conv import Conv
from latebloom.nn.mlp import Linear
from latebloom.nn.norm import BatchNorm


class ConvNet(eqx.Module):
    """Three convolutions, the mean over the image, an affine map: [b, h, w, 1] -> [b, classes].

    Channels are half of `width`, `width`, and twice that; the second and third halve the image.
    `norm="batch"` normalises before each activation.

    Raises `ValueError` for another norm.
    """

    layers: tuple[Conv, ...]
    readout: Linear
    norms: tuple[BatchNorm, ...]

    def __init__(self, width: int, classes: int, *, key: PRNGKeyArray, norm: str | None = None):
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be None or 'batch', not {norm!r}")
        keys = jax.random.split(key, 4)
        channels = (1, width // 2, width, 2 * width)
        self.layers = tuple(
            Conv(channels[i], channels[i + 1], 3, stride=1 if i == 0 else 2, key=keys[i])
            for i in range(3)
        )
        self.readout = Linear(2 * width, classes, key=keys[3])
        self.norms = tuple(BatchNorm(n) for n in channels[1:]) if norm else ()

    def __call__(
        self, x: Float[Array, "b h w 1"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "b classes"]:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = jax.nn.leaky_relu(x)
        return self.readout(x.mean((1, 2)))
