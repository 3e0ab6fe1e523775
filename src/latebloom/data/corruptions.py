"""What is done to images when they are there: parts hidden, pixels lost, a coloured ground as a false cue.

What happens to a row depends on the seed and the number of the row alone: more rows leave the first as
they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from latebloom.data.draws import natural, uniforms

Shape = Literal["disc", "square"]
Noise = Literal["salt-and-pepper", "uniform"]
HIDDEN, NOISE, GROUND = range(8, 11)  # streams of random numbers
GRID = 4  # random colours of a texture along a side; pixels lie between them
GOLDEN = (math.sqrt(5) - 1) / 2  # steps along the hues that keep any number of them apart


def occluded(
    images: UInt8[np.ndarray, "n height width *channels"], fraction: float,
    *, seed: int, shape: Shape = "disc", level: int = 0,
) -> UInt8[np.ndarray, "n height width *channels"]:  # fmt: skip
    """Hide a disc or a square in each image: `fraction` of all pixels are set to `level`, rounded.

    It lies anywhere inside. A disc of more than π/4 of a square image does not fit; the pixels nearest to
    its centre are hidden, and the corners seen last. Images: uint8 [n, height, width] or
    [n, height, width, channels].

    Raises `ValueError` for other images, a fraction that is not from 0 to 1, another shape and a level
    that is no byte.
    """
    n, height, width = _check(images, fraction)
    seed = natural(seed, "seed")
    if shape not in ("disc", "square"):
        raise ValueError(f"shape must be 'disc' or 'square', not {shape!r}")
    if not 0 <= level <= 255:
        raise ValueError(f"level must be from 0 to 255, not {level}")
    count = round(fraction * height * width)
    reach = math.sqrt(count / math.pi) if shape == "disc" else math.sqrt(count) / 2
    sides = np.array([height, width])
    # Where it does not fit it still moves by half a pixel, so that images do not all lose the same.
    low = np.minimum(reach, sides / 2 - 0.5)
    hidden = np.zeros((n, height * width), bool)
    for row in range(n):
        centre = low + (sides - 2 * low) * uniforms(2, seed=seed, stream=HIDDEN, row=row)
        down, across = (np.abs(np.arange(side) + 0.5 - at)
                        for side, at in zip(sides, centre, strict=True))  # fmt: skip
        if shape == "disc":
            distance = down[:, None] ** 2 + across**2
        else:
            distance = np.maximum(down[:, None], across)
        hidden[row, _least(distance.ravel(), count)] = True
    out = images.copy()
    out[hidden.reshape(n, height, width)] = level
    return out


def noisy(
    images: UInt8[np.ndarray, "n height width *channels"], fraction: float,
    *, seed: int, kind: Noise = "salt-and-pepper",
) -> UInt8[np.ndarray, "n height width *channels"]:  # fmt: skip
    """Replace `fraction` of the pixels of each image, rounded: by 0 or 255, or by any level.

    "salt-and-pepper" pixels are black or white as a whole, each as likely; those of "uniform" noise have
    a level of their own in each channel. Some are by chance as they were. Images: uint8
    [n, height, width] or [n, height, width, channels].

    Raises `ValueError` for other images, a fraction that is not from 0 to 1 and another kind.
    """
    n, height, width = _check(images, fraction)
    seed = natural(seed, "seed")
    if kind not in ("salt-and-pepper", "uniform"):
        raise ValueError(f"kind must be 'salt-and-pepper' or 'uniform', not {kind!r}")
    pixels = height * width
    count = round(fraction * pixels)
    out = images.reshape(n, pixels, -1).copy()
    channels = out.shape[-1]
    for row in range(n):
        numbers = uniforms(pixels * (1 + channels), seed=seed, stream=NOISE, row=row)
        lost = _least(numbers[:pixels], count)
        levels = numbers[pixels:].reshape(pixels, channels)[lost]
        if kind == "uniform":
            out[row, lost] = (256 * levels).astype(np.uint8)
        else:
            out[row, lost] = np.where(levels[:, :1] < 0.5, 0, 255)
    return out.reshape(images.shape)


def coloured(
    images: UInt8[np.ndarray, "n height width"], cue: Sequence[int] | np.ndarray,
    *, seed: int, probability: float = 1.0, strength: float = 1.0, texture: float = 0.5,
) -> UInt8[np.ndarray, "n height width 3"]:  # fmt: skip
    """White glyphs on a textured ground whose colour tells the class, as a cue that should not be used.

    `cue` [n] numbers the colour of each image: labels for a colour of each class, `labels % 10` for ten
    colours that come again in each task. With `probability` the image has that colour, else any; 0 breaks
    the cue for a test. Number k has the hue frac(k (√5 - 1)/2), whatever the seed.

    - `strength` of the colour: from 0, grey, to 1, saturated
    - `texture`: contrast of the smooth random colours that the ground is multiplied by, from 0, flat,
      to 1

    Returns uint8 [n, height, width, 3]. Raises `ValueError` for other images, cues that are not one
    number from 0 for each, and parameters that are not from 0 to 1.
    """
    for name, value in (("probability", probability), ("strength", strength), ("texture", texture)):
        _check_share(name, value)
    n, height, width = _check(images)
    seed, cue = natural(seed, "seed"), np.asarray(cue)
    if images.ndim != 3:
        raise ValueError(f"images must be grey, [n, height, width], not {list(images.shape)}")
    if cue.shape != (n,) or cue.dtype.kind not in "iu" or (n and cue.min() < 0):
        raise ValueError(
            f"cue must be a number from 0 for each of the {n} images, not {cue.dtype} {list(cue.shape)}"
        )
    numbers = np.empty((n, 2 + 3 * GRID**2))
    for row in range(n):
        numbers[row] = uniforms(numbers.shape[1], seed=seed, stream=GROUND, row=row)
    hue = np.where(numbers[:, 0] < probability, GOLDEN * cue % 1, numbers[:, 1])
    tint = 1 - strength * (1 - hues(hue))
    grid = 1 + texture * (2 * numbers[:, 2:].reshape(n, GRID, GRID, 3) - 1)
    rows, columns = _between(height).astype(np.float32), _between(width).astype(np.float32)
    out = np.empty((n, height, width, 3), np.uint8)
    for row in range(n):
        paint = (0.5 * tint[row] * grid[row]).astype(np.float32)
        ground = np.tensordot(rows, np.tensordot(columns, paint, (1, 1)), (1, 1))
        ink = images[row, ..., None] / np.float32(255)
        out[row] = np.rint(255 * (ground + ink * (1 - ground)))
    return out


def hues(hue: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """Saturated red, green and blue from 0 to 1: 0 is red, 1/3 green, 2/3 blue."""
    turned = (hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1
    return np.clip(np.abs(6 * turned - 3) - 1, 0, 1)


def _between(side: int) -> Float[np.ndarray, "side grid"]:
    """Weights of the grid's values at each pixel's centre, linear between them."""
    at = (np.arange(side) + 0.5) / side * (GRID - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(GRID)))


def _least(values: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " count"]:
    """Where the `count` smallest are; of equal ones the first, on every platform."""
    return np.argsort(values, kind="stable")[:count]


def _check(images: np.ndarray, fraction: float = 0.0) -> tuple[int, int, int]:
    _check_share("fraction", fraction)
    rows = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not rows or 0 in images.shape[1:]:
        raise ValueError(
            "images must be uint8 [n, height, width], or with 1 or 3 channels last, not "
            f"{images.dtype} {list(images.shape)}: reshape classes and their drawings to rows"
        )
    n, height, width = images.shape[:3]
    return n, height, width


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")
