"""A small pre-activation residual network for images (He et al. 2016, arXiv 1603.05027)."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.conv import Conv
from latebloom.nn.mlp import Linear
from latebloom.nn.norm import BatchNorm


class ResidualBlock(eqx.Module):
    """norm, ReLU, 3x3, norm, ReLU, 3x3, added to the input (or to a 1x1 projection of it)."""

    norms: tuple[BatchNorm, ...]
    first: Conv
    second: Conv
    shortcut: Conv | None

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm: bool, *, key: PRNGKeyArray
    ):
        keys = jax.random.split(key, 3)
        bias = not norm  # a shift of the norm would make it idle
        self.norms = (BatchNorm(in_channels), BatchNorm(out_channels)) if norm else ()
        self.first = Conv(in_channels, out_channels, 3, stride=stride, use_bias=bias, key=keys[0])
        self.second = Conv(out_channels, out_channels, 3, use_bias=bias, key=keys[1])
        same = stride == 1 and in_channels == out_channels
        self.shortcut = (
            None
            if same
            else Conv(in_channels, out_channels, 1, stride=stride, use_bias=False, key=keys[2])
        )

    def __call__(self, x: Array, *, train: bool = False) -> Array:
        h = jax.nn.relu(self.norms[0](x, train=train) if self.norms else x)
        carried = x if self.shortcut is None else self.shortcut(h)
        h = self.first(h)
        h = jax.nn.relu(self.norms[1](h, train=train) if self.norms else h)
        return carried + self.second(h)


class ResNet(eqx.Module):
    """[batch, height, width, channels] -> [batch, out_size].

    A 3x3 convolution to `width` channels; one stage of blocks for each entry of
    `blocks_per_stage`, of which every later one halves the image and doubles the channels; norm,
    ReLU, mean over the image, affine map. Four stages of two blocks at width 64 are PreActResNet-18
    (11.2 M parameters); the default has 0.7 M. `norm="batch"` normalises before every ReLU.
    Map several seeds with `lax.map` (see `Conv`). Raises `ValueError` for an unknown norm.
    """

    stem: Conv
    blocks: tuple[ResidualBlock, ...]
    norm: BatchNorm | None
    readout: Linear

    def __init__(
        self, in_channels: int, out_size: int = 10, *, key: PRNGKeyArray, width: int = 16,
        blocks_per_stage: Sequence[int] = (2, 2, 2, 2), norm: str | None = None,
    ):  # fmt: skip
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be None or 'batch', not {norm!r}")
        stem_key, readout_key, *keys = jax.random.split(key, 2 + sum(blocks_per_stage))
        self.stem = Conv(in_channels, width, 3, use_bias=norm is None, key=stem_key)
        blocks, channels = [], width
        for stage, count in enumerate(blocks_per_stage):
            out_channels = width * 2**stage
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                block_key = keys[len(blocks)]
                blocks.append(
                    ResidualBlock(channels, out_channels, stride, norm == "batch", key=block_key)
                )
                channels = out_channels
        self.blocks = tuple(blocks)
        self.norm = BatchNorm(channels) if norm else None
        self.readout = Linear(channels, out_size, key=readout_key)

    def __call__(
        self, x: Float[Array, "batch height width channels"], *,
        key: PRNGKeyArray | None = None, train: bool = False,
    ) -> Float[Array, "batch out"]:  # fmt: skip
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, train=train)
        h = jax.nn.relu(h if self.norm is None else self.norm(h, train=train))
        return self.readout(h.mean((1, 2)))
