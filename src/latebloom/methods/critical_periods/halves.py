"""Two eyes: each pathway of a network sees its own half of an image."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.data.images import Images
from latebloom.methods.critical_periods.deficits import Pathways
from latebloom.methods.critical_periods.sensitivity import Views
from latebloom.nn import MLP


def halves(images: Images) -> Views:
    """Left and right halves of images [n, height, width], pixels from 0 to 1.

    Of an odd width, the right half has the column in the middle.
    """

    def both(x: np.ndarray) -> tuple[Array, Array]:
        scaled, middle = jnp.asarray(x, jnp.float32) / 255, x.shape[2] // 2
        return scaled[:, :, :middle], scaled[:, :, middle:]

    labels = (jnp.asarray(y, jnp.int32) for y in (images.y_train, images.y_test))
    y_train, y_test = labels
    return Views(both(images.x_train), y_train, both(images.x_test), y_test)


class FlatMLP(eqx.Module):
    """An `MLP` of inputs [batch, ...] laid flat."""

    network: MLP

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch out"]:
        return self.network(x.reshape(len(x), -1))


def mlp_pathways(
    views: Sequence[Float[Array, "batch ..."]], widths: Sequence[int], outputs: int, key: PRNGKeyArray
) -> Pathways:  # fmt: skip
    """A pathway for each of the views, an `MLP` of what it sees with hidden layers of `widths`."""
    keys = jax.random.split(key, len(views))
    nets = (MLP(x[0].size, widths, outputs, key=k) for x, k in zip(views, keys, strict=True))
    return Pathways(tuple(FlatMLP(net) for net in nets))
