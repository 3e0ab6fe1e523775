"""Convolutional stages that end in features, as few-shot learners embed small images."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.conv import Conv
from latebloom.nn.norm import BatchNorm


class StageNet(eqx.Module):
    """[batch, height, width, channels] -> features [batch, rows * columns * stages * filters].

    Each of `stages` is a 3 x 3 convolution with a bias, batch normalisation, leaky ReLU and 2 x 2 max
    pooling; the i-th has i `filters`. Nothing follows the last: a linear head goes on top.

    Raises `ValueError` for images that so many poolings leave nothing of.

    Source: the VGG of Antoniou et al. 2019 (arXiv 1810.09502), with filters that grow by stage as in the
    code of Kowadlo et al. 2024 (arXiv 2209.07863).
    """

    convolutions: tuple[Conv, ...]
    norms: tuple[BatchNorm, ...]
    features: int = eqx.field(static=True)

    def __init__(
        self, size: tuple[int, int], channels: int = 1, *, filters: int = 16, stages: int = 3, key: PRNGKeyArray
    ):  # fmt: skip
        if min(filters, stages, channels) < 1:
            raise ValueError(
                f"filters, stages and channels must be at least 1, not {filters}, {stages} and {channels}"
            )
        if min(size) < 2**stages:
            raise ValueError(
                f"images of {size[0]} x {size[1]} are too small for {stages} stages, which halve them: they "
                f"must be at least {2**stages} x {2**stages}"
            )
        widths = [channels, *(filters * (i + 1) for i in range(stages))]
        keys = jax.random.split(key, stages)
        self.convolutions = tuple(
            Conv(a, b, 3, key=k) for a, b, k in zip(widths[:-1], widths[1:], keys, strict=True)
        )
        self.norms = tuple(BatchNorm(width) for width in widths[1:])
        self.features = (size[0] // 2**stages) * (size[1] // 2**stages) * widths[-1]

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch features"]:  # fmt: skip
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = pooled(jax.nn.leaky_relu(norm(convolution(x), train=train)))
        return x.reshape(len(x), -1)


def pooled(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch rows columns channels"]:
    """Largest of every 2 x 2 pixels; an odd last row or column is left out.

    Two maxima of pairs: the gradient of one maximum of four divides by how many are equal to it, which is
    none where the compiler computes the pixels a second time and rounds them otherwise.
    """
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    x = x[:, : 2 * h, : 2 * w].reshape(batch, h, 2, w, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])
