"""Images with a part hidden, or pixels lost, as JAX functions: for tests of recognition inside a compiled program.

`latebloom.data.occluded` and `noisy` do the same to bytes outside of one, alike on every platform.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Kind = Literal["disc", "square", "salt-and-pepper", "uniform"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OCCLUSIONS, NOISES = KINDS[:2], KINDS[2:]


def corrupted(
    images: Float[Array, "n height width channels"], fraction: float | Float[Array, ""],
    *, kind: Kind, key: PRNGKeyArray, low: float = 0.0, high: float = 1.0,
) -> Float[Array, "n height width channels"]:  # fmt: skip
    """Hide or replace `fraction` of the pixels of each image, rounded; it may be traced.

    - "disc", "square": they lie together, about a centre anywhere in the image where they fit, and become
      `low`. What does not fit covers the pixels nearest to its centre.
    - "salt-and-pepper": lost pixels become `low` or `high`; "uniform": anything between, each channel for
      itself.

    Raises `ValueError` for another kind, another shape, and a fraction that is known not to be from 0 to 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if images.ndim != 4:
        raise ValueError(f"images must be [n, height, width, channels], not {list(images.shape)}")
    if not isinstance(fraction, jax.core.Tracer) and not 0 <= float(fraction) <= 1:  # pyright: ignore
        raise ValueError(f"fraction must be from 0 to 1, not {fraction}")
    where, what = jax.random.split(key)
    shape = images.shape[:3]
    if kind in OCCLUSIONS:
        lost = _nearest(_distances(where, shape, fraction, kind), fraction)
        return jnp.where(lost[..., None], jnp.asarray(low, images.dtype), images)
    lost = _nearest(jax.random.uniform(where, shape), fraction)
    if kind == "uniform":
        new = jax.random.uniform(what, images.shape, images.dtype, low, high)
    else:
        salt = jax.random.bernoulli(what, 0.5, shape)[..., None]
        new = jnp.where(salt, jnp.asarray(high, images.dtype), jnp.asarray(low, images.dtype))
    return jnp.where(lost[..., None], new, images)


def _distances(
    key: PRNGKeyArray, shape: tuple[int, ...], fraction: float | Array, kind: Kind
) -> Float[Array, "n height width"]:
    """From a centre that leaves room for the shape: Euclid's for a disc, the larger side's for a square."""
    n, height, width = shape
    sides = jnp.array([height, width], jnp.float32)
    area = jnp.asarray(fraction, jnp.float32) * height * width
    reach = jnp.sqrt(area / jnp.pi) if kind == "disc" else jnp.sqrt(area) / 2
    low = jnp.minimum(
        reach, sides / 2 - 0.5
    )  # where it does not fit it still moves by half a pixel
    centre = low + (sides - 2 * low) * jax.random.uniform(key, (n, 2))
    down = jnp.abs(jnp.arange(height) + 0.5 - centre[:, :1])[:, :, None]
    across = jnp.abs(jnp.arange(width) + 0.5 - centre[:, 1:])[:, None, :]
    return down**2 + across**2 if kind == "disc" else jnp.maximum(down, across)


def _nearest(
    values: Float[Array, "n height width"], fraction: float | Array
) -> Bool[Array, "n height width"]:
    """Where the smallest are, as many as the fraction of all, rounded; of equals the first."""
    flat = values.reshape(len(values), -1)
    rank = jnp.argsort(jnp.argsort(flat, axis=1), axis=1)
    count = jnp.round(jnp.asarray(fraction, jnp.float32) * flat.shape[1])
    return (rank < count).reshape(values.shape)
