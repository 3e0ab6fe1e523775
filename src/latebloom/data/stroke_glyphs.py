"""Stroke glyphs: any number of made-up characters, each in any number of drawings.

Where images of many classes with few examples each are asked for, and Omniglot (Lake et al. 2015:
1,623 characters, 20 drawings of each) is not at hand. A class is a few pen strokes; a drawing of it moves
the points of the strokes a little, and then turns, scales, shears and shifts the whole. All numbers
belong to a seed, a class and a drawing, so that more classes or drawings leave those there are alone.

The jitter is set so that pixels alone do not tell the classes: the nearest neighbour is right in about 55 %
of 20 classes known by one drawing each (68 % with half the jitter), logistic regression on pixels in about
75 % of 100 classes known by 15 (`benchmarks/glyph_difficulty.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy.special import ndtri

from latebloom.data.draws import natural, uniforms
from latebloom.data.images import Images

STROKE_SHARES = (0.2, 0.35, 0.3, 0.15)  # of classes that have 1, 2, 3, 4 strokes
STROKES, SEGMENTS = 4, 3  # at most: strokes of a class, cubic segments of a stroke
LOW, HIGH = 0.15, 0.85  # control points lie between, in image sides
ATTACHED = 0.6  # chance that a later stroke starts on an earlier one
SAMPLES = 60  # points of a segment that distances are taken to
DRAWN_SIDE = 28  # pixels of a side for which the pen's width is stated
FREE = 2 + 2 * SEGMENTS  # points of a stroke that are drawn; the other handles follow from them
CLASS, DRAWING, SPLIT = range(3)  # streams of random numbers
SIDES = range(8, 257)
BATCH = 256  # images of 28 pixels that are drawn together: they stay in the processor's cache
CHUNK = 4096  # images whose strokes are held at a time


@dataclass(frozen=True)
class Hand:
    """How far the drawings of a class differ: standard deviations of normal laws, but for the pen.

    - `rotation`: degrees
    - `scale`: of the logarithm of the size
    - `shear`: of x with y
    - `shift`: of x and of y, in image sides
    - `jitter`: of each control point, in image sides
    - `pen`: least and largest width in pixels of a 28-pixel image, uniform; it grows with the image

    Raises `ValueError` for a negative number, or a pen without width.
    """

    rotation: float = 8.0
    scale: float = 0.1
    shear: float = 0.1
    shift: float = 0.03
    jitter: float = 0.05
    pen: tuple[float, float] = (1.2, 2.4)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self)[:-1]:
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be a number from 0, not {value}")
        if len(self.pen) != 2 or not 0 < self.pen[0] <= self.pen[1] < math.inf:
            raise ValueError(f"pen must be a least and a largest width above 0, not {self.pen}")


class ClassSplit(NamedTuple):
    """Numbers of the classes for training, validation and testing, int64, each from the smallest."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


def glyphs(
    classes: int | Sequence[int] | np.ndarray, instances: int | Sequence[int] | np.ndarray,
    *, seed: int, size: int = DRAWN_SIDE, hand: Hand | None = None,
) -> UInt8[np.ndarray, "classes instances size size"]:  # fmt: skip
    """Draw glyphs: uint8 [classes, instances, size, size], 0 for the ground and 255 for the pen.

    `classes` and `instances` are how many, from number 0, or which: `range(100, 130)` are drawings that
    `100` has none of. An image depends on the seed, its two numbers, the size and the hand alone; strokes
    of a class are the same at every size. `hand`: how drawings differ (None: `Hand()`).

    - A class has 1 to 4 strokes with chances .2, .35, .3, .15. A stroke is a chain of 1 to 3 cubic
      Bézier segments, each as likely, with continuous derivatives; points that these leave free are
      uniform in [.15, .85]². A later stroke starts with chance .6 on an earlier one.
    - In a drawing the free points are moved, joints and starts on other strokes follow; then a map about
      the centre turns, scales, shears and shifts the image. Strokes may leave it.
    - A pixel at a distance of d pixels from the nearest of 60 points of each segment, for a pen w wide,
      is clip(1 - (d - w/2), 0, 1) of 255, rounded.

    Random bits are the same on all platforms; their logarithms and sines may differ in the last bit,
    and a pixel in a great many then by one level.

    Raises `ValueError` for numbers that are negative or come twice, a negative seed, and a size that is
    not from 8 to 256.
    """
    labels, drawings = _numbers(classes, "classes"), _numbers(instances, "instances")
    seed, hand = natural(seed, "seed"), Hand() if hand is None else hand
    if natural(size, "size") not in SIDES:
        raise ValueError(f"size must be from {SIDES[0]} to {SIDES[-1]} pixels, not {size}")
    batch = max(1, min(BATCH, BATCH * DRAWN_SIDE**2 // size**2))
    images = np.empty((len(labels) * len(drawings), size, size), np.uint8)
    pairs = itertools.product(labels, drawings)
    for start in range(0, len(images), CHUNK):
        chunk = list(itertools.islice(pairs, CHUNK))
        known = {label: _class_draws(seed, label) for label in {label for label, _ in chunk}}
        shapes = _shapes(np.stack([known[label] for label, _ in chunk]))
        numbers = np.stack([_drawing_draws(seed, *pair) for pair in chunk])
        controls, pens = _drawn(shapes, numbers, hand)
        for rows, segments in _batches(shapes.exists, batch):
            curves = np.take_along_axis(
                controls[rows].reshape(len(rows), -1, 4, 2), segments[:, :, None, None], axis=1
            )
            images[start + rows] = rasterised(size * curves, size / DRAWN_SIDE * pens[rows], size)
    return images.reshape(len(labels), len(drawings), size, size)


def glyph_images(
    classes: int | Sequence[int] | np.ndarray, train: int, test: int,
    *, seed: int, size: int = DRAWN_SIDE, hand: Hand | None = None,
) -> Images:  # fmt: skip
    """Glyphs of the same classes in a training and a test part, for learning that knows all classes.

    Drawings 0 to `train` - 1 of each class are for training, the next `test` for testing. Labels count
    `classes` from 0 as they are given; rows go through all classes in turn, so that the first n have
    equal shares of them. Raises what `glyphs` raises.
    """
    for name, count in (("train", train), ("test", test)):
        if natural(count, name) < 1:
            raise ValueError(f"{name} must be at least 1 drawing a class, not {count}")
    drawn = glyphs(classes, train + test, seed=seed, size=size, hand=hand)
    rows = drawn.swapaxes(0, 1)
    labels = np.broadcast_to(np.arange(len(drawn), dtype=np.int32), rows.shape[:2])
    x_train, y_train, x_test, y_test = (
        part.reshape(-1, *part.shape[2:])
        for part in (rows[:train], labels[:train], rows[train:], labels[train:])
    )
    return Images("glyphs", x_train, y_train, x_test, y_test, f"drawn with seed {seed}")


def class_split(
    classes: int, *, seed: int, shares: tuple[float, float, float] = (0.74, 0.13, 0.13)
) -> ClassSplit:
    """Classes 0 to `classes` - 1 at random in three parts that share none.

    `shares` of training, validation and testing as in continual few-shot learning on Omniglot (Antoniou
    et al. 2020); counts are rounded, and testing takes what is left.

    Raises `ValueError` where shares do not add up to 1, or leave a part without a class.
    """
    classes, seed = natural(classes, "classes"), natural(seed, "seed")
    order = np.argsort(uniforms(classes, seed=seed, stream=SPLIT, row=0))
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares must be three numbers from 0 that add up to 1, not {shares}")
    train, validation = (round(share * classes) for share in shares[:2])
    parts = np.split(order, [train, train + validation])
    if not all(map(len, parts)):
        raise ValueError(
            f"{classes} classes in shares of {shares} leave a part without any: take more classes"
        )
    return ClassSplit(*map(np.sort, parts))


def strokes(
    label: int, instance: int | None = None, *, seed: int, hand: Hand | None = None
) -> list[Float[np.ndarray, "segments 4 2"]]:
    """Control points (x, y) of a glyph's strokes, in image sides from the upper left corner.

    Those of one drawing, or without `instance` those of the class, as no hand has moved them.
    """
    label, seed = natural(label, "label"), natural(seed, "seed")
    shape = _shapes(_class_draws(seed, label)[None])
    if instance is None:
        controls = _chains(shape.free, shape)
    else:
        numbers = _drawing_draws(seed, label, natural(instance, "instance"))
        controls, _ = _drawn(shape, numbers[None], Hand() if hand is None else hand)
    return [chain[there] for chain, there in zip(controls[0], shape.exists[0], strict=True)
            if there.any()]  # fmt: skip


def rasterised(
    curves: Float[np.ndarray, "n segments 4 2"], widths: Float[np.ndarray, " n"], size: int
) -> UInt8[np.ndarray, "n size size"]:
    """Cubic Bézier segments drawn by pens of some width; control points (x, y) and widths in pixels.

    The centre of the first pixel is (.5, .5).
    """
    weights = _bernstein(np.linspace(0, 1, SAMPLES)).astype(np.float32)
    controls = np.ascontiguousarray(curves.T, np.float32)  # [2, 4, segments, n]
    points = np.zeros((2, SAMPLES, *controls.shape[2:]), np.float32)
    for k in range(4):
        points += weights[:, k, None, None] * controls[:, k, None]
    points = points.reshape(2, -1, len(curves))
    distance = np.sqrt(_nearest(points, size))
    ink = np.clip(1 - (distance - widths.astype(np.float32) / 2), 0, 1)
    return np.ascontiguousarray(np.moveaxis(np.rint(255 * ink).astype(np.uint8), -1, 0))


def _nearest(
    points: Float32[np.ndarray, "2 points n"], size: int
) -> Float32[np.ndarray, "size size n"]:
    """Squared distance of each pixel's centre to the nearest point; images side by side in memory."""
    centres = np.arange(size, dtype=np.float32)[:, None] + np.float32(0.5)
    nearest = np.full((size, size, points.shape[-1]), np.inf, np.float32)
    one = np.empty_like(nearest)
    for x, y in zip(*points, strict=True):
        np.add(((y - centres) ** 2)[:, None], ((x - centres) ** 2)[None], out=one)
        np.minimum(nearest, one, out=nearest)
    return nearest


def _numbers(chosen: int | Sequence[int] | np.ndarray, name: str) -> list[int]:
    """How many from number 0, or which, each once."""
    if np.ndim(chosen) == 0:
        found = list(range(natural(chosen, name)))
    else:
        found = [natural(each, name) for each in chosen]  # pyright: ignore[reportGeneralTypeIssues]
    if not found:
        raise ValueError(f"{name} is empty: give how many, at least 1, or which")
    values, times = np.unique(found, return_counts=True)
    if times.max() > 1:
        raise ValueError(f"{name} has {values[times.argmax()]} twice: name each once")
    return found


class _Shapes(NamedTuple):
    """Classes before a hand draws them, and where their strokes hang together."""

    exists: Bool[np.ndarray, "n strokes segments"]
    free: Float[np.ndarray, "n strokes free 2"]  # start, its handle, then handle and end by turns
    attached: Bool[np.ndarray, "n strokes"]
    host: Int[np.ndarray, "n strokes"]  # stroke that an attached one starts on
    segment: Int[np.ndarray, "n strokes"]  # and where
    t: Float[np.ndarray, "n strokes"]


def _class_draws(seed: int, label: int) -> np.ndarray:
    return uniforms(1 + 4 * STROKES + 2 * STROKES * FREE, seed=seed, stream=CLASS, row=label)


def _drawing_draws(seed: int, label: int, instance: int) -> np.ndarray:
    return uniforms(6 + 2 * STROKES * FREE, seed=seed, stream=DRAWING, row=label, column=instance)


def _shapes(numbers: Float[np.ndarray, "n draws"]) -> _Shapes:
    n = len(numbers)
    count = 1 + (numbers[:, :1] > np.cumsum(STROKE_SHARES)[:-1]).sum(axis=1)
    length, attached, host, place = np.moveaxis(numbers[:, 1 : 1 + 4 * STROKES].reshape(n, 4, -1), 1, 0)  # fmt: skip
    segments = 1 + (SEGMENTS * length).astype(int)
    there = np.arange(STROKES) < count[:, None]
    host = (host * np.arange(STROKES)).astype(int)  # one of those before, each as likely
    at = place * np.take_along_axis(segments, host, axis=1)
    free = LOW + (HIGH - LOW) * numbers[:, 1 + 4 * STROKES :].reshape(n, STROKES, FREE, 2)
    return _Shapes(
        there[..., None] & (np.arange(SEGMENTS) < segments[..., None]),
        free, (attached < ATTACHED) & (np.arange(STROKES) > 0), host, at.astype(int), at % 1,
    )  # fmt: skip


def _chains(
    free: Float[np.ndarray, "n strokes free 2"], shapes: _Shapes
) -> Float[np.ndarray, "n strokes segments 4 2"]:
    """Control points: a segment starts where and as fast as the one before ends."""
    n = len(free)
    controls = np.empty((n, STROKES, SEGMENTS, 4, 2))
    for s in range(STROKES):
        start, handle = free[:, s, 0], free[:, s, 1]
        if s:
            host = controls[np.arange(n), shapes.host[:, s], shapes.segment[:, s]]
            point = np.einsum("nk,nkd->nd", _bernstein(shapes.t[:, s]), host)
            start = np.where(shapes.attached[:, s, None], point, start)
        for k in range(SEGMENTS):
            before, end = free[:, s, 2 + 2 * k], free[:, s, 3 + 2 * k]
            controls[:, s, k] = np.stack([start, handle, before, end], axis=1)
            start, handle = end, 2 * end - before
    return controls


def _drawn(
    shapes: _Shapes, numbers: Float[np.ndarray, "n draws"], hand: Hand
) -> tuple[Float[np.ndarray, "n strokes segments 4 2"], Float[np.ndarray, " n"]]:
    """Control points as a hand has drawn them, in image sides, and widths of the pen for 28 pixels."""
    pens = hand.pen[0] + (hand.pen[1] - hand.pen[0]) * numbers[:, 0]
    normal = ndtri(numbers[:, 1:])
    controls = _chains(shapes.free + hand.jitter * normal[:, 5:].reshape(shapes.free.shape), shapes)
    angle = np.radians(hand.rotation * normal[:, 0])
    scale, shear = np.exp(hand.scale * normal[:, 1]), hand.shear * normal[:, 2]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.moveaxis(np.array([[cos, shear * cos - sin], [sin, shear * sin + cos]]), -1, 0)
    shift = 0.5 + hand.shift * normal[:, 3:5]
    return np.einsum("nij,nskcj->nskci", matrix, controls - 0.5) + shift[:, None, None, None], pens


def _batches(
    exists: Bool[np.ndarray, "n strokes segments"], batch: int
) -> Iterator[tuple[Int[np.ndarray, " rows"], Int[np.ndarray, "rows segments"]]]:
    """Rows with about as many segments, and which those are; a row with fewer repeats its first one."""
    exists = exists.reshape(len(exists), -1)
    count = exists.sum(axis=1)
    first = np.argsort(~exists, axis=1, kind="stable")
    order = np.argsort(count, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        each = np.arange(count[rows].max())
        yield rows, first[rows][:, : len(each)] * (each < count[rows, None])


def _bernstein(t: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4"]:
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=-1)
