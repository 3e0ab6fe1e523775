"""Deformable registration of images with the smoothness of the deformation as a setting.

After HyperMorph (Hoopes et al. 2021, arXiv:2101.01035): the loss is
(1 - λ) MSE(moving ∘ (id + u), fixed) / σ² + λ |∇u|², and a hypernetwork answers every λ.
"""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.ndimage import gaussian_filter, map_coordinates

from latebloom.nn.conv import Conv


def warp(image: Float[Array, "h w"], displacement: Float[Array, "h w 2"]) -> Float[Array, "h w"]:
    """The image at x + u(x), bilinear, border values beyond the edge; u in pixels (row, column)."""
    height, width = image.shape
    place = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    at = place + displacement
    return jax.scipy.ndimage.map_coordinates(image, [at[..., 0], at[..., 1]], 1, mode="nearest")


def roughness(displacement: Float[Array, "*b h w 2"]) -> Float[Array, ""]:
    """Mean squared difference of neighbouring displacements, |∇u|²."""
    down = jnp.diff(displacement, axis=-3)
    right = jnp.diff(displacement, axis=-2)
    return (jnp.square(down).mean() + jnp.square(right).mean()) / 2


class UNet(eqx.Module):
    """Pairs [batch, h, w, 2] -> displacements [batch, h, w, 2]; h and w divisible by 4."""

    down: tuple[Conv, ...]
    up: tuple[Conv, ...]
    out: Conv

    def __init__(self, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        self.down = (
            Conv(2, width, 3, key=keys[0]),
            Conv(width, width, 3, stride=2, key=keys[1]),
            Conv(width, width, 3, stride=2, key=keys[2]),
        )
        self.up = (
            Conv(2 * width, width, 3, key=keys[3]),
            Conv(2 * width, width, 3, key=keys[4]),
        )
        self.out = Conv(width, 2, 3, key=keys[5])

    def __call__(self, pairs: Float[Array, "batch h w 2"]) -> Float[Array, "batch h w 2"]:
        seen = [pairs]
        for layer in self.down:
            seen.append(jax.nn.leaky_relu(layer(seen[-1]), 0.2))
        h = seen.pop()
        for layer in self.up:
            h = jnp.concatenate([h.repeat(2, 1).repeat(2, 2), seen.pop()], axis=-1)
            h = jax.nn.leaky_relu(layer(h), 0.2)
        return self.out(h)


class Registration(eqx.Module):
    """Register pairs of images; γ = λ, the weight of smoothness.

    - `pairs`: [n, h, w, 2], moving and fixed. `pairs_test`, `labels_test`: of the exam, with their
      label maps.
    - `size`: pairs of a batch. `noise`: σ, by which intensity differences are measured.
    """

    pairs: Float[Array, "n h w 2"]
    pairs_test: Float[Array, "m h w 2"]
    labels_test: Int[Array, "m h w 2"]
    size: int = eqx.field(static=True, default=8)
    noise: float = eqx.field(static=True, default=0.1)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "b h w 2"]:
        return self.pairs[jax.random.randint(key, (self.size,), 0, len(self.pairs))]

    def loss(
        self, primary: UNet, settings: Float[Array, " d"], batch: Float[Array, "b h w 2"]
    ) -> Float[Array, ""]:
        displacement = primary(batch)
        moved = jax.vmap(warp)(batch[..., 0], displacement)
        difference = jnp.square(moved - batch[..., 1]).mean() / self.noise**2
        return (1 - settings[0]) * difference + settings[0] * roughness(displacement)

    def evaluate(self, primary: UNet, settings: Float[Array, " d"]) -> Float[Array, ""]:
        return self.loss(primary, settings, self.pairs_test)

    def dice(self, primary: UNet) -> Float[Array, ""]:
        """Overlap of the moved and the fixed label maps, mean over labels but the background."""
        displacement = primary(self.pairs_test)
        kinds = jnp.arange(1, LABELS + 1)

        def one(label: Array) -> Array:
            moving, fixed = jnp.moveaxis((self.labels_test == label).astype(jnp.float32), -1, 0)
            moved = jax.vmap(warp)(moving, displacement)
            return 2 * (moved * fixed).sum() / jnp.maximum((moved + fixed).sum(), 1e-6)

        return jax.vmap(one)(kinds).mean()


LABELS = 4


def blob_pairs(
    count: int, size: int, seed: int
) -> tuple[Float[np.ndarray, "n h w 2"], Int[np.ndarray, "n h w 2"]]:
    """Pairs of images of soft ellipses, the second deformed by a random diffeomorphism.

    Returns intensities (moving, fixed) in about [0, 1] with noise 0.03, and label maps. The
    deformation integrates a Gaussian random velocity field of correlation length size / 8 whose
    amplitude is a tenth of the image.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    images = np.zeros((count, size, size, 2), np.float32)
    labels = np.zeros((count, size, size, 2), np.int32)
    for n in range(count):
        label = np.zeros((size, size), int)
        for kind in range(1, LABELS + 1):
            centre, radii = rng.uniform(0.25, 0.75, 2) * size, rng.uniform(0.08, 0.2, 2) * size
            angle = rng.uniform(0, np.pi)
            y, x = rows - centre[0], columns - centre[1]
            along, across = (
                x * np.cos(angle) + y * np.sin(angle),
                y * np.cos(angle) - x * np.sin(angle),
            )
            label[(along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1] = kind
        deformation = _diffeomorphism(rng, size)
        moved = np.asarray(map_coordinates(label, deformation, order=0, mode="nearest"), int)
        tones = np.zeros(LABELS + 1)
        tones[1:] = rng.permutation(np.linspace(0.35, 1.0, LABELS))
        for side, each in enumerate((label, moved)):
            soft = gaussian_filter(tones[each], size / 64)
            images[n, ..., side] = soft + 0.03 * rng.normal(size=soft.shape)
            labels[n, ..., side] = each
    return images, labels


def _diffeomorphism(rng: np.random.Generator, size: int) -> np.ndarray:
    """Where every pixel of the deformed image comes from: a velocity field, integrated by squaring."""
    velocity = np.stack(
        [gaussian_filter(rng.normal(size=(size, size)), size / 8) for _ in range(2)]
    )
    velocity *= 0.1 * size / np.abs(velocity).max()
    place = np.mgrid[:size, :size].astype(float)
    moved = velocity / 2**6
    for _ in range(6):
        at = place + moved
        moved = moved + np.stack([map_coordinates(m, at, order=1, mode="nearest") for m in moved])
    return place + moved


def register_blobs(count: int, pixels: int, size: int) -> Registration:
    """`Registration` of `count` pairs by `blob_pairs`, a fifth of them for the exam."""
    pairs, labels = _blobs(count, pixels)
    cut = count - count // 5
    return Registration(pairs[:cut], pairs[cut:], labels[cut:], size)


@cache
def _blobs(count: int, pixels: int) -> tuple[Float[Array, "n h w 2"], Int[Array, "n h w 2"]]:
    images, labels = blob_pairs(count, pixels, 0)
    return jnp.asarray(images), jnp.asarray(labels)
