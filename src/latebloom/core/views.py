"""What changes an input with its task: an order of the pixels, an angle."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped


class Permutation(eqx.Module):
    """Each task has an order of its own of all features; that of the first task is as they are.

    Source: Permuted MNIST (Goodfellow et al. 2013, arXiv 1312.6211).
    """

    order: Int[Array, "tasks features"]

    @staticmethod
    def drawn(tasks: int, features: int, *, key: PRNGKeyArray) -> Permutation:
        orders = jax.vmap(lambda k: jax.random.permutation(k, features))(
            jax.random.split(key, tasks)
        )
        return Permutation(orders.at[0].set(jnp.arange(features)))

    def __call__(
        self, x: Shaped[Array, "batch ..."], task: Int[Array, " batch"]
    ) -> Shaped[Array, "batch ..."]:
        flat = x.reshape(len(x), -1)
        return jnp.take_along_axis(flat, self.order[task], axis=1).reshape(x.shape)


class Rotation(eqx.Module):
    """Each task turns square images by an angle of its own, counter-clockwise, about their middle.

    Bilinear between pixels, 0 outside. Images are [batch, side, side] or [batch, side * side].

    Raises `ValueError` for images that are not square.
    """

    places: Int[Array, "tasks pixels 4"]
    weights: Float[Array, "tasks pixels 4"]

    def __init__(self, degrees: Sequence[float], side: int):
        angle = np.deg2rad(np.asarray(degrees, float))[:, None, None]
        grid = np.arange(side) - (side - 1) / 2
        down, right = np.meshgrid(grid, grid, indexing="ij")
        middle = (side - 1) / 2
        # Where the value at each pixel comes from.
        y = np.cos(angle) * down + np.sin(angle) * right + middle
        x = -np.sin(angle) * down + np.cos(angle) * right + middle
        places, weights = [], []
        for dy in (0, 1):
            for dx in (0, 1):
                row, column = np.floor(y).astype(int) + dy, np.floor(x).astype(int) + dx
                weight = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
                inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
                places.append(np.where(inside, row * side + column, 0))
                weights.append(np.where(inside, weight, 0))
        shape = (len(degrees), side * side, 4)
        self.places = jnp.asarray(np.stack(places, -1).reshape(shape), jnp.int32)
        self.weights = jnp.asarray(np.stack(weights, -1).reshape(shape), jnp.float32)

    def __call__(
        self, x: Float[Array, "batch ..."], task: Int[Array, " batch"]
    ) -> Float[Array, "batch ..."]:
        flat = x.reshape(len(x), -1)
        if flat.shape[1] != self.places.shape[1]:
            raise ValueError(
                f"images must have {self.places.shape[1]} pixels, as the rotation was made for, "
                f"not {flat.shape[1]}"
            )
        places, weights = self.places[task], self.weights[task].astype(x.dtype)
        parts = [
            jnp.take_along_axis(flat, places[:, :, k], axis=1) * weights[:, :, k] for k in range(4)
        ]
        return sum(parts[1:], parts[0]).reshape(x.shape)


class Unchanged(eqx.Module):
    """The view of streams in which a task is told by its examples alone."""

    def __call__(
        self, x: Shaped[Array, "batch ..."], task: Int[Array, " batch"]
    ) -> Shaped[Array, "batch ..."]:
        return x
