"""A small convolutional network for small images, and one that ends in features."""

from __future__ import annotations

from collections.abc import Sequence

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


class ConvFeatures(eqx.Module):
    """3x3 convolutions with ReLU, and the mean over the image: [b, h, w, channels] -> [b, widths[-1]].

    - `strides` of the convolutions; left out, all but the first halve the image.
    - `norm="batch"` puts batch normalisation before every ReLU.

    Raises `ValueError` for an unknown norm, without any convolution, and unless there is a stride for each.
    """

    layers: tuple[Conv, ...]
    norms: tuple[BatchNorm, ...]

    def __init__(
        self, channels: int, widths: Sequence[int], *, key: PRNGKeyArray, norm: str | None = None,
        strides: Sequence[int] | None = None,
    ):  # fmt: skip
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be None or 'batch', not {norm!r}")
        if not widths:
            raise ValueError("widths must name the channels of one convolution at least")
        strides = [1] + [2] * (len(widths) - 1) if strides is None else strides
        if len(strides) != len(widths):
            raise ValueError(f"strides must be {len(widths)}, one for each convolution")
        sizes = (channels, *widths)
        self.layers = tuple(
            Conv(sizes[i], sizes[i + 1], 3, stride=strides[i], use_bias=norm is None, key=k)
            for i, k in enumerate(jax.random.split(key, len(widths)))
        )
        self.norms = tuple(BatchNorm(width) for width in widths) if norm else ()

    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool = False
    ) -> Float[Array, "b features"]:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            x = jax.nn.relu(self.norms[i](x, train=train) if self.norms else x)
        return x.mean((1, 2))
