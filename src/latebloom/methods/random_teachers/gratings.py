"""Images whose classes are textures, so that no pixel says anything by itself."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from latebloom.core.dataset import Dataset

ORIENTATIONS, WAVELENGTHS = 5, (5.5, 2.8)


def gratings(train: int, test: int, *, side: int = 8, seed: int = 0) -> Dataset:
    """Ten classes of stripes: five orientations, two wavelengths (5.5 and 2.8 pixels).

    Phase, contrast (0.5 to 1) and place of the Gaussian window (radius 2.5 pixels) are drawn anew for
    each image, the angle and the wavelength vary by 0.1 rad and 8 %, and every pixel has noise of
    standard deviation 0.1. The mean image of each class is grey. Images [n, side, side, 1] are shifted
    and scaled to mean 0 and variance 1 over all training pixels.

    Raises `ValueError` for fewer than one image.
    """
    if train < 1 or test < 1:
        raise ValueError(f"there must be at least one image of each part, not {train} and {test}")
    rng, n = np.random.default_rng(seed), train + test
    labels = rng.integers(0, ORIENTATIONS * len(WAVELENGTHS), n)

    def column(values: np.ndarray) -> np.ndarray:
        return values[:, None, None]

    angle = column(labels % ORIENTATIONS * np.pi / ORIENTATIONS + rng.normal(0, 0.1, n))
    wavelength = column(
        np.array(WAVELENGTHS)[labels // ORIENTATIONS] * np.exp(rng.normal(0, 0.08, n))
    )
    place = np.arange(side) - (side - 1) / 2
    across, down = np.meshgrid(place, place)
    x, y = (column(rng.uniform(-1.5, 1.5, n)) for _ in "xy")
    window = np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * 2.5**2))
    along = np.cos(angle) * across + np.sin(angle) * down
    phase, contrast = column(rng.uniform(0, 2 * np.pi, n)), column(rng.uniform(0.5, 1, n))
    images = contrast * window * np.cos(2 * np.pi * along / wavelength + phase)
    images += 0.1 * rng.normal(size=images.shape)
    images = (images - images[:train].mean()) / images[:train].std()
    pixels, classes = jnp.asarray(images[..., None], jnp.float32), jnp.asarray(labels, jnp.int32)
    return Dataset(pixels[:train], classes[:train], pixels[train:], classes[train:])
