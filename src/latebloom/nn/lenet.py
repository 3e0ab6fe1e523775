"""The small convolutional network with pooling that continual-learning papers train on digits."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.nn.conv import Conv
from latebloom.nn.mlp import Linear


class LeNet(eqx.Module):
    """Twice 5 x 5 convolution, 2 x 2 max pooling, ReLU; a hidden layer; a readout: [b, side, side, 1] -> [b, classes].

    Convolutions see whole windows alone, so 28 pixels leave 4 x 4: with the usual 20 channels, 320 features.

    Raises `ValueError` for images whose maps pooling does not divide.
    """

    convs: tuple[Conv, Conv]
    hidden: Linear
    readout: eqx.Module

    def __init__(
        self, side: int, classes: int, *, key: PRNGKeyArray, channels: Sequence[int] = (10, 20),
        hidden: int = 50, readout: type = Linear,
    ):  # fmt: skip
        if side < 16 or side % 4:
            raise ValueError(f"side must be a multiple of 4 from 16 on, such as 28, not {side}")
        left = side // 4 - 3
        keys = jax.random.split(key, 4)
        one, two = channels
        self.convs = (
            Conv(1, one, 5, padding="VALID", key=keys[0]),
            Conv(one, two, 5, padding="VALID", key=keys[1]),
        )
        self.hidden = Linear(left * left * two, hidden, key=keys[2])
        self.readout = readout(hidden, classes, key=keys[3])

    def __call__(self, x: Float[Array, "b side side 1"]) -> Float[Array, "b classes"]:
        for conv in self.convs:
            x = jax.nn.relu(_pooled(conv(x)))
        return self.readout(jax.nn.relu(self.hidden(x.reshape(len(x), -1))))  # pyright: ignore


def _pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """The highest of each 2 x 2 pixels; a reshape, whose gradient is fast in loops on a CPU."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
