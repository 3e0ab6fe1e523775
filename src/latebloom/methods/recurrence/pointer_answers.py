"""How good answers in tokens are: hulls, triangulations and tours, each against the right one.

An answer has failed where it is none: without an end, a polygon that is not simple, triangles that are none, no tour.
Scores are one a problem, as float32, and not a number where they are not defined. Vinyals, Fortunato and Jaitly (NIPS
2015, arXiv 1506.03134), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.data.planar import Problems, cross, side
from latebloom.methods.recurrence.pointer import Writer
from latebloom.methods.recurrence.pointer_decoding import write

Kind = Literal["hull", "delaunay", "tour"]
Scores = dict[str, Float[Array, " batch"]]


def ends(tokens: Int[Array, "batch steps"]) -> tuple[Bool[Array, " batch"], Int[Array, " batch"]]:
    """Whether there is an end, and how many tokens stand before it."""
    over = tokens == 0
    ended = over.any(axis=1)
    return ended, jnp.where(ended, over.argmax(axis=1), tokens.shape[1])


def same_ring(
    tokens: Int[Array, "batch steps"], others: Int[Array, "batch others"],
    counts: Int[Array, " batch"], other_counts: Int[Array, " batch"],
) -> Bool[Array, " batch"]:  # fmt: skip
    """Whether two rings of so many tokens are one, wherever they begin and whichever way they turn.

    No token may be twice in the second.
    """
    n = max(tokens.shape[1], others.shape[1])
    a, b = (jnp.pad(t, ((0, 0), (0, n - t.shape[1]))) for t in (tokens, others))
    at, count = jnp.arange(n), jnp.maximum(other_counts, 1)[:, None]
    begin = ((b == a[:, :1]) & (at < count)).argmax(axis=1)[:, None]
    same = False
    for way in (1, -1):
        turned = jnp.take_along_axis(b, (begin + way * at) % count, axis=1)
        same = same | ((turned == a) | (at >= count)).all(axis=1)
    return same & (counts == other_counts)


def simple_polygons(corners: Float[Array, "batch steps 2"], counts: Int[Array, " batch"]) -> Bool[Array, " batch"]:  # fmt: skip
    """Whether the first `counts` corners make a polygon whose sides meet in neighbouring corners alone."""
    steps = corners.shape[1]
    at = jnp.arange(steps)
    after = jnp.where(at + 1 < counts[:, None], at + 1, 0)
    a = corners
    b = jnp.take_along_axis(corners, after[..., None], axis=1)
    c = jnp.take_along_axis(b, after[..., None], axis=1)
    there = at < counts[:, None]
    back = (side(b - a, c - b) == 0) & (((b - a) * (c - b)).sum(-1) <= 0)  # also for equal corners
    ai, bi, aj, bj = a[:, :, None], b[:, :, None], a[:, None], b[:, None]
    turn = lambda p, q, r: jnp.sign(side(q - p, r - p))  # noqa: E731
    apart = lambda p, q, r, s: jnp.minimum(p, q) <= jnp.maximum(r, s)  # noqa: E731
    boxes = (apart(ai, bi, aj, bj) & apart(aj, bj, ai, bi)).all(-1)
    meet = boxes & (turn(ai, bi, aj) * turn(ai, bi, bj) <= 0) & (turn(aj, bj, ai) * turn(aj, bj, bi) <= 0)  # fmt: skip
    near = (at[:, None] == at) | (after[:, :, None] == at) | (at[:, None] == after[:, None])
    wrong = meet & ~near & there[:, :, None] & there[:, None]
    return (counts >= 3) & ~(back & there).any(1) & ~wrong.any((1, 2))


def polygon_area(corners: Float[Array, "batch steps 2"], counts: Int[Array, " batch"]) -> Float[Array, " batch"]:  # fmt: skip
    """Area within the first `counts` corners of simple polygons."""
    there = (jnp.arange(corners.shape[1]) < counts[:, None])[..., None]
    from_first = jnp.where(there, corners - corners[:, :1], 0)
    return jnp.abs(cross(from_first[:, :-1], from_first[:, 1:]).sum(1)) / 2


def hull_scores(tokens: Int[Array, "batch steps"], problems: Problems) -> Scores:
    """Of hulls:

    - "exact": whether it is the polygon, wherever it begins and whichever way it turns;
    - "failed": whether it is no simple polygon with an end;
    - "area": that of the intersection with the true hull over the hull's; a simple polygon of points of the set lies
      within the hull, and so is the intersection. Not a number where it has failed, or the hull has no area.
    """
    ended, count = ends(tokens)
    _, true_count = ends(problems.targets)
    exact = ended & same_ring(tokens, problems.targets, count, true_count)
    corners, true = (_places(problems, t) for t in (tokens, problems.targets))
    failed = ~(ended & simple_polygons(corners, count))
    whole = polygon_area(true, true_count)
    share = polygon_area(corners, count) / jnp.where(whole > 0, whole, 1)
    return _numbers(exact=exact, failed=failed, area=jnp.where(failed | (whole == 0), jnp.nan, share))  # fmt: skip


def delaunay_scores(tokens: Int[Array, "batch steps"], problems: Problems) -> Scores:
    """Of triangulations:

    - "exact": whether all triangles are there, each once, and no other, in whatever order;
    - "failed": whether it has no end, a rest that makes no triangle, or a triangle with a corner twice;
    - "covered": the share of the true triangles that are among its own, those before such a rest. Not a number where
      there is none.
    """
    ended, count = ends(tokens)
    own, whole = _triangles(tokens, count)
    true, known = _triangles(problems.targets, ends(problems.targets)[1])
    same = (own[:, :, None] == true[:, None]).all(-1) & whole[:, :, None] & known[:, None]
    share = same.any(1).sum(1) / jnp.maximum(known.sum(1), 1)
    proper = (own[..., 0] < own[..., 1]) & (own[..., 1] < own[..., 2])
    failed = ~ended | (count % 3 != 0) | (whole & ~proper).any(1)
    exact = ~failed & (same.sum(1) == known).all(1) & (whole.sum(1) == known.sum(1))
    return _numbers(exact=exact, failed=failed, covered=jnp.where(known.any(1), share, jnp.nan))


def tour_scores(tokens: Int[Array, "batch steps"], problems: Problems) -> Scores:
    """Of round trips:

    - "exact": whether it is the target's, wherever it begins and whichever way it goes;
    - "failed": whether it is no tour, with each point once;
    - "length", and "gap": its length over that of the target, less 1. Not a number where it has failed.
    """
    n, counts = problems.points.shape[1], problems.counts
    _, count = ends(tokens)
    seen = (tokens[:, :, None] == jnp.arange(1, n + 1)).sum(1)
    failed = (count != counts) | (seen != (jnp.arange(n) < counts[:, None])).any(1)
    exact = ~failed & same_ring(tokens, problems.targets, count, counts)
    length, true = (round_trip(_places(problems, t), counts) for t in (tokens, problems.targets))
    gap = length / jnp.where(true > 0, true, 1) - 1
    length, gap = (jnp.where(failed, jnp.nan, a) for a in (length, gap))
    return _numbers(exact=exact, failed=failed, length=length, gap=gap)


def round_trip(places: Float[Array, "batch steps 2"], counts: Int[Array, " batch"]) -> Float[Array, " batch"]:  # fmt: skip
    """Length of the way through the first `counts` places, and back."""
    at = jnp.arange(places.shape[1])
    after = jnp.where(at + 1 < counts[:, None], at + 1, 0)
    leg = jnp.take_along_axis(places, after[..., None], axis=1) - places
    return jnp.where(at < counts[:, None], jnp.sqrt((leg**2).sum(-1)), 0).sum(1)


class Task(NamedTuple):
    """How many `steps` an answer for n points may take, how it is scored, whether it must be a tour."""

    steps: Callable[[int], int]
    scores: Callable[[Array, Problems], Scores]
    names: tuple[str, ...]
    tours: bool = False


TASKS: dict[str, Task] = {
    "hull": Task(lambda n: n + 1, hull_scores, ("exact", "failed", "area")),
    "delaunay": Task(lambda n: 3 * max(2 * n - 5, 0) + 1, delaunay_scores, ("exact", "failed", "covered")),
    "tour": Task(lambda n: n, tour_scores, ("exact", "failed", "length", "gap"), tours=True),
}  # fmt: skip


def task(kind: str) -> Task:
    """What is known of a kind of problem; raises `ValueError` for another kind."""
    if kind not in TASKS:
        raise ValueError(f"kind must be one of {', '.join(TASKS)}, not {kind!r}")
    return TASKS[kind]


@eqx.filter_jit
def judged(
    model: Writer, problems: Problems, kind: Kind, *, width: int = 1, tours: bool | None = None
) -> Scores:
    """Scores of what the model writes for each problem, with a beam of `width`.

    `tours`: whether it may write tours alone; left out, that is so for tours.

    Raises `ValueError` for another kind, and what `write` raises it for.
    """
    known = task(kind)
    steps = known.steps(problems.points.shape[1])
    valid = known.tours if tours is None else tours
    found = write(model, problems.points, problems.counts, steps=steps, width=width, tours=valid)
    return known.scores(found.tokens[:, 0], problems)


def _places(problems: Problems, tokens: Array) -> Array:
    """Points of the tokens [batch, steps]; of the end the first."""
    there = jnp.arange(problems.points.shape[1]) < problems.counts[:, None]
    points = jnp.where(there[..., None], problems.points, 0)
    return jnp.take_along_axis(points, jnp.maximum(tokens - 1, 0)[..., None], axis=1)


def _triangles(tokens: Array, count: Array) -> tuple[Array, Array]:
    """Triples of tokens, each ascending, and which are whole."""
    room = tokens.shape[1] // 3
    own = jnp.sort(tokens[:, : 3 * room].reshape(-1, room, 3), axis=-1)
    return own, jnp.arange(room) < (count // 3)[:, None]


def _numbers(**scores: Array) -> Scores:
    return {name: jnp.asarray(value, jnp.float32) for name, value in scores.items()}
