"""Random views of images inside a compiled program: mirrored, grey, cropped; and the turned copies of an image.

Images are [batch, height, width, channels]. What happens to one depends on the key and its place alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.calling import Apply, call

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Views(eqx.Module):
    """A random view of each image: what SimCLR-like losses compare an image with.

    - `mirrored`: how likely an image is mirrored left to right; 0 where a mirrored thing is another thing.
    - `grey`: how likely an image of three channels loses its colours; one of a single channel has none.
    - `crop`: least and largest share of the image's area that is cut out and brought to its size again,
      its sides in a ratio of 3:4 to 4:3, bilinear; (1, 1) leaves it as it is. `aspect`: the largest
      ratio. A side that would not fit is that of the image.

    Source: Szegedy et al. 2015 (arXiv 1409.4842), Sec. 6, for the crops; the set is that of the code of OCM
    (Guo et al. 2022).

    Raises `ValueError` for chances that are not from 0 to 1, and shares that are no area.
    """

    mirrored: float = eqx.field(static=True)
    grey: float = eqx.field(static=True)
    crop: tuple[float, float] = eqx.field(static=True)
    aspect: float = eqx.field(static=True)

    def __init__(
        self, mirrored: float = 0.5, grey: float = 0.25, crop: Sequence[float] = (0.3, 1.0), aspect: float = 4 / 3
    ):  # fmt: skip
        for name, value in (("mirrored", mirrored), ("grey", grey)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {value}")
        if len(crop) != 2 or not 0 < crop[0] <= crop[1] <= 1:
            raise ValueError(
                f"crop must be a least and a largest share of the area, above 0 and up to 1, not {tuple(crop)}"
            )
        if not 1 <= aspect < np.inf:
            raise ValueError(f"aspect must be a ratio from 1, not {aspect}")
        self.mirrored, self.grey = float(mirrored), float(grey)
        self.crop, self.aspect = (float(crop[0]), float(crop[1])), float(aspect)

    def __call__(
        self, x: Float[Array, "batch h w c"], key: PRNGKeyArray
    ) -> Float[Array, "batch h w c"]:
        _check(x)
        # One draw for all: each takes long to compile.
        lost, flip, share, ratio, down, across = jax.random.uniform(key, (6, len(x)))
        if self.grey and x.shape[-1] == 3:
            x = jnp.where((lost < self.grey)[:, None, None, None], greyed(x), x)
        flipped = flip < self.mirrored
        area = self.crop[0] + share * (self.crop[1] - self.crop[0])
        side = jnp.exp((2 * ratio - 1) * np.log(self.aspect) / 2)
        height, width = jnp.minimum(jnp.sqrt(area) / side, 1), jnp.minimum(jnp.sqrt(area) * side, 1)
        return cropped(x, down * (1 - height), across * (1 - width), height, width, flipped)


def greyed(x: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """The luminance of red, green and blue, in all three channels."""
    weights = jnp.asarray(LUMINANCE, x.dtype)
    return jnp.broadcast_to((x @ weights)[..., None], x.shape)


def cropped(
    x: Float[Array, "batch h w c"], top: Float[Array, " batch"], left: Float[Array, " batch"],
    height: Float[Array, " batch"], width: Float[Array, " batch"], mirrored: Any = False,
) -> Float[Array, "batch h w c"]:  # fmt: skip
    """Rectangles of the images, in shares of their sides, brought to their size by bilinear interpolation.

    Values beyond the outermost pixels' centres are those of the nearest pixel. `mirrored` [batch]: left
    to right, afterwards.
    """
    rows = _between(x.shape[1], top, height, False)
    columns = _between(x.shape[2], left, width, mirrored)
    across = jnp.einsum("bvw,bhwc->bhvc", columns.astype(x.dtype), x)
    return jnp.einsum("buh,bhvc->buvc", rows.astype(x.dtype), across)


def _between(
    side: int, start: Array, length: Array, mirrored: Any
) -> Float[Array, "batch side side"]:
    """Weights of the pixels at each pixel of the cut-out, [batch, new, old]; it is separable."""
    places = (jnp.arange(side) + 0.5) / side
    at = jnp.where(jnp.asarray(mirrored)[..., None], 1 - places, places)
    at = (start[:, None] + at * length[:, None]) * side - 0.5
    at = jnp.clip(at, 0, side - 1)
    return jnp.maximum(0, 1 - jnp.abs(at[..., None] - jnp.arange(side)))


def turned_copies(
    x: Float[Array, "batch h w c"], copies: int
) -> Float[Array, "copies*batch h w c"]:
    """Copies of images by which a network is to tell how they were turned, copy after copy; the first is as it is.

    - `copies`: 1, of inputs of any shape; 4 for whole turns by 0, 180, 90 and 270 degrees, counter-clockwise; 16 for these of each of
      four inner ones: as it is, the left half turned by 180 degrees, both halves, the right half.

    Source: code of OCM (Guo et al. 2022).

    Raises `ValueError` for another number, images that are not square, and of odd width for 16.
    """
    if copies not in (1, 4, 16):
        raise ValueError(f"copies must be 1, 4 or 16, not {copies}")
    if copies == 1:
        return x
    _check(x)
    if x.shape[1] != x.shape[2]:
        raise ValueError(
            f"images must be square to be turned, not {x.shape[1]} x {x.shape[2]}: take copies=1"
        )
    if copies == 16:
        if x.shape[2] % 2:
            raise ValueError(
                f"images must have an even width for 16 copies, not {x.shape[2]}: take copies=4"
            )
        left, right = jnp.split(x, 2, axis=2)
        other = [part[:, ::-1, ::-1] for part in (left, right)]
        halves = ((left, right), (other[0], right), (other[0], other[1]), (left, other[1]))
        x = jnp.concatenate([jnp.concatenate(pair, axis=2) for pair in halves])
    return jnp.concatenate([jnp.rot90(x, turn, axes=(1, 2)) for turn in (0, 2, 1, 3)])


class Augmented(eqx.Module):
    """How a network is called so that in training it sees random views: `Continual(apply=Augmented(Views()))`.

    - `view(x, key)`; `apply` calls the network on it, with a key of its own.
    """

    view: Any
    apply: Apply = call

    def __call__(self, model: Any, x: Array, key: PRNGKeyArray | None, train: bool) -> Array:
        if train and key is not None:
            seen, key = jax.random.split(key)
            x = self.view(x, seen)
        return self.apply(model, x, key, train)


def _check(x: Array) -> None:
    if x.ndim != 4:
        mends = {3: "grey ones are x[..., None]", 2: "for other inputs take a view(x, key) of your own, and no turned copies"}  # fmt: skip
        mend = f": {mends[x.ndim]}" if x.ndim in mends else ""
        raise ValueError(
            f"images must be [batch, height, width, channels], not {list(x.shape)}{mend}"
        )
