"""Features and pixels on one scale, whatever their unit, offset and range."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@dataclass(frozen=True)
class Standardiser:
    """Takes the mean off examples and divides by the deviation, both of the data it was made of.

    Of features [n, d] each has its own; of images [n, height, width] there is one pair for all pixels, of
    [n, height, width, channels] one a channel. `of` computes in double precision and before any cast, so
    that neither an offset nor a unit costs digits. What does not vary becomes 0.
    """

    mean: np.ndarray
    deviation: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, x: np.ndarray) -> Standardiser:
        """Of examples [n, ...]. Raises `ValueError` unless they are finite numbers, at least one."""
        x = np.asarray(x)
        if x.dtype.kind not in "uifb" or x.ndim < 2 or not len(x) or not np.isfinite(x).all():
            raise ValueError("x must hold finite numbers [n, ...]: fill or drop what is missing")
        axes = (0,) if x.ndim == 2 else tuple(range(x.ndim - (x.ndim > 3)))
        wide = x.astype(np.float64)
        mean = wide.mean(axis=axes)
        deviation = np.where(np.ptp(wide, axis=axes) > 0, (wide - mean).std(axis=axes), 1.0)
        return cls(mean, deviation, x.shape[1:])

    def __call__(self, examples: np.ndarray) -> Array:
        """float32 [m, ...], images with a last axis of channels.

        Raises `ValueError` for examples of another shape.
        """
        examples = np.asarray(examples)
        if examples.shape[1:] != self.shape:
            raise ValueError(
                f"examples must be [n, {', '.join(map(str, self.shape))}], not {list(examples.shape)}"
            )
        scaled = (examples.astype(np.float64) - self.mean) / self.deviation
        scaled = scaled[..., None] if len(self.shape) == 2 else scaled
        return jnp.asarray(scaled, jnp.float32)
