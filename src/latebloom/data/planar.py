"""Problems of points in the plane whose answer is a sequence of their indices: convex hulls, Delaunay triangulations.

One answer is the right one: `hull` and `delaunay` say in which order. They label one set in NumPy, with exact signs where
they matter; `Hulls` and `Delaunays` draw many in JAX, sets of unequal size padded to one. Tours: `latebloom.data.tours`.

Vinyals, Fortunato and Jaitly (NIPS 2015, arXiv 1506.03134), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.spatial import Delaunay, QhullError

Law = Literal["uniform", "ring", "clusters"]
LAWS = ("uniform", "ring", "clusters")
MOST_TRIANGULATED = 12  # points of a set that `Delaunays` draws: it looks at all triples


class Problems(NamedTuple):
    """Sets of points and the sequences that answer them.

    - `points` [batch, n, 2]; set b has `counts[b]` of them, and what follows may be anything.
    - `targets` [batch, steps]: 0 ends a sequence, j is the set's j-th point, from 1 on; 0 from the end on.
    - `lengths` [batch]: how many steps of the target count, its end included where it has one.
    """

    points: Float[Array, "batch n 2"]
    counts: Int[Array, " batch"]
    targets: Int[Array, "batch steps"]
    lengths: Int[Array, " batch"]


def checked_points(points: Any) -> Float[np.ndarray, "n 2"]:
    """Points in float64; raises `ValueError` for none, another shape, and coordinates that are not finite."""
    found = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found):
        raise ValueError(f"points must be [n, 2], with one point at least, not {list(found.shape)}")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise ValueError(f"point {row} is not finite: {found[row].tolist()}")
    return found


def orientation(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> int:
    """1 where a, b, c turn left, -1 where they turn right, 0 where they are on one line; exact."""
    left, right = (b[0] - a[0]) * (c[1] - a[1]), (b[1] - a[1]) * (c[0] - a[0])
    if abs(left - right) > 4e-16 * (abs(left) + abs(right)) + 1e-300:
        return 1 if left > right else -1
    (ax, ay), (bx, by), (cx, cy) = ([Fraction(float(v)) for v in p] for p in (a, b, c))
    turn = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return (turn > 0) - (turn < 0)


def hull(points: Any) -> Int[np.ndarray, " vertices"]:
    """Indices of the convex hull's vertices, counter-clockwise from the lowest index.

    Points within an edge are no vertices, and of equal points the first is one. Points on one line have two vertices.

    Raises `ValueError` for what are no points in the plane.
    """
    points = checked_points(points)
    _, first = np.unique(points, axis=0, return_index=True)  # in order of x, then y
    chains = []
    for way in (first, first[::-1]):
        chain: list[int] = []
        for i in way.tolist():
            while len(chain) > 1 and orientation(points[chain[-2]], points[chain[-1]], points[i]) <= 0:  # fmt: skip
                chain.pop()
            chain.append(i)
        chains.append(chain[:-1])
    ring = np.array(chains[0] + chains[1] if len(first) > 1 else first, np.int64)
    return np.roll(ring, -int(ring.argmin()))


def incentres(corners: Any) -> Any:
    """Centres of the inscribed circles of triangles [*batch, 3, 2]: [*batch, 2], as NumPy or JAX.

    A corner weighs as much as the side that faces it is long. Equal corners: their place.
    """
    xp: Any = jnp if isinstance(corners, jax.Array) else np
    sides = xp.roll(corners, -1, axis=-2) - xp.roll(corners, 1, axis=-2)
    long = xp.sqrt((sides**2).sum(axis=-1))
    total = long.sum(axis=-1, keepdims=True)
    share = xp.where(total > 0, long / xp.where(total > 0, total, 1.0), 1 / 3)
    return (corners * share[..., None]).sum(axis=-2)


def delaunay(points: Any) -> Int[np.ndarray, "triangles 3"]:
    """Triangles of the Delaunay triangulation: the indices of each ascend, triangles by x, then y of their incentres.

    Of points on one line, or fewer than three, there are none. Where more than three points are on one empty circle
    there are several triangulations, and this is Qhull's. Of equal points one is used.

    Raises `ValueError` for what are no points in the plane.
    """
    points = checked_points(points)
    if len(hull(points)) < 3:
        return np.zeros((0, 3), np.int64)
    try:
        found = np.sort(Delaunay(points).simplices.astype(np.int64), axis=1)
    except QhullError:  # a set that is flat within rounding
        return np.zeros((0, 3), np.int64)
    centres = incentres(points[found])
    return found[np.lexsort((centres[:, 1], centres[:, 0]))]


def label_all(
    sets: Sequence[Any], label: Callable[[np.ndarray], Any], *, end: bool = True
) -> Problems:
    """Problems of given point sets: `label(points)` gives indices from 0 on, of any shape; `end` is put after them.

    Sets are padded with 0 to the largest. Raises `ValueError` for no sets, what are no points, and for
    indices beyond them.
    """
    if not len(sets):
        raise ValueError("there must be at least one set of points")
    known = [checked_points(one) for one in sets]
    found = [np.asarray(label(one), np.int64).ravel() + 1 for one in known]
    for i, (one, tokens) in enumerate(zip(known, found, strict=True)):
        if ((tokens < 1) | (tokens > len(one))).any():
            raise ValueError(f"the label of set {i} has an index beyond its {len(one)} points")
    counts, lengths = (np.array([len(one) for one in of], np.int32) for of in (known, found))
    points = np.zeros((len(known), counts.max(), 2), np.float32)
    targets = np.zeros((len(known), lengths.max() + end), np.int32)
    for i, (one, tokens) in enumerate(zip(known, found, strict=True)):
        points[i, : len(one)], targets[i, : len(tokens)] = one, tokens
    return Problems(*map(jnp.asarray, (points, counts, targets, lengths + end)))


def draw_points(
    key: PRNGKeyArray, batch: int, low: int, high: int, law: Law = "uniform"
) -> tuple[Float[Array, "batch high 2"], Int[Array, " batch"]]:
    """Sets of `low` to `high` points in the unit square, evenly, and their counts.

    - "uniform" over the square;
    - "ring": at 0.35 to 0.5 from its middle, at even angles;
    - "clusters": at a normal distance of deviation 0.05 from one of three centres in [0.2, 0.8]^2 that each set draws,
      within the square.

    Padding is 0. Raises `ValueError` for another law, and for sizes that are none.
    """
    check_sizes(low, high, 1)
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
    sizes, places, more, centre = jax.random.split(key, 4)
    counts = jax.random.randint(sizes, (batch,), low, high + 1)
    points = jax.random.uniform(places, (batch, high, 2))
    if law == "ring":
        angle, radius = 2 * jnp.pi * points[..., 0], 0.35 + 0.15 * points[..., 1]
        points = 0.5 + radius[..., None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    elif law == "clusters":
        centres = jax.random.uniform(centre, (batch, 3, 2), minval=0.2, maxval=0.8)
        own = jax.random.randint(places, (batch, high, 1), 0, 3)
        points = jnp.take_along_axis(centres, own, axis=1)
        points = jnp.clip(points + 0.05 * jax.random.normal(more, (batch, high, 2)), 0, 1)
    return jnp.where((jnp.arange(high) < counts[:, None])[..., None], points, 0), counts


def check_sizes(low: int, high: int, least: int, most: int | None = None) -> None:
    """Raises `ValueError` unless `least` <= low <= high (<= most)."""
    if not least <= low <= high or (most is not None and high > most):
        limit = "" if most is None else f" and at most {most}"
        raise ValueError(f"sets must have low <= high points, at least {least}{limit}, not {low} and {high}")  # fmt: skip


def cross(a: Array, b: Array) -> Array:
    """The product of vectors [*batch, 2] that is above 0 where b is to the left of a."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def side(a: Array, b: Array) -> Array:
    """`cross`, and 0 where it is within the rounding of its products.

    Compilers round one of the two products and not the other (a fused multiply-add), which leaves something of vectors that
    are parallel, of either sign. Whole numbers below 2^11 in float32 stay exact.
    """
    left, right = a[..., 0] * b[..., 1], a[..., 1] * b[..., 0]
    near = 0.75 * float(jnp.finfo(left.dtype).eps) * (jnp.abs(left) + jnp.abs(right))
    return jnp.where(jnp.abs(left - right) <= near, 0, left - right)


def hull_tokens(
    points: Float[Array, "batch n 2"], counts: Int[Array, " batch"]
) -> tuple[Int[Array, "batch steps"], Int[Array, " batch"]]:
    """`hull` of padded sets: targets [batch, n + 1], and lengths with the end.

    Gift wrapping: the next vertex is the point with the fewest points to the right of the way to it. Signs are those of
    the points' own precision (`side`), exact for whole numbers of up to 11 bits in float32.
    """
    one, n = jax.vmap(_wrapped), points.shape[1]
    there = jnp.arange(n) < counts[:, None]
    return one(jnp.where(there[..., None], points, 0), there)


def _wrapped(points: Array, there: Array) -> tuple[Array, Array]:
    n, at = len(points), jnp.arange(len(points))
    x = jnp.where(there, points[:, 0], jnp.inf)
    y = jnp.where(x == x.min(), points[:, 1], jnp.inf)
    start = y.argmin()

    def one(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        current, done = state
        ways = points - points[current]
        far = (ways**2).sum(-1)
        turn = side(ways[:, None], ways[None])
        beaten = (turn < 0) | ((turn == 0) & (far > far[:, None]))
        count = jnp.where(there & (far > 0), (beaten & there).sum(1), n + 1)
        new = count.argmin()
        over = done | (new == start) | (count.min() > n)
        return (jnp.where(over, start, new), over), jnp.where(done, -1, current)

    _, ring = jax.lax.scan(one, (start, jnp.array(False)), None, length=n)
    length = (ring >= 0).sum()
    lowest = jnp.where(ring >= 0, ring, n).argmin()
    tokens = ring[(lowest + at) % length] + 1
    return jnp.append(jnp.where(at < length, tokens, 0), 0).astype(jnp.int32), length + 1


def delaunay_tokens(
    points: Float[Array, "batch n 2"], counts: Int[Array, " batch"], order: Float[Array, "batch triples"] | None = None,
) -> tuple[Int[Array, "batch steps"], Int[Array, " batch"]]:  # fmt: skip
    """`delaunay` of padded sets: targets [batch, 3 (2n - 5) + 1], and lengths with the end.

    Triangles whose circle holds no point, of all triples, so n is at most 12. Signs are those of the points' own
    precision: a set within rounding of a tie may differ from `delaunay`. Points on one circle: all its triangles, as far as there
    is room. With `order`, a number for each triple, triangles go by it.

    Raises `ValueError` for fewer than 3 or more than 12 points.
    """
    n = points.shape[1]
    check_sizes(n, n, 3, MOST_TRIANGULATED)
    triples = jnp.asarray(list(combinations(range(n), 3)))
    there = jnp.arange(n) < counts[:, None]
    points = jnp.where(there[..., None], points, 0)
    corners = points[:, triples]
    seen = (
        points[:, None, None] - jnp.swapaxes(corners, 1, 2)[:, :, :, None]
    )  # batch corner triple point 2
    a, b, c = seen[:, 0], seen[:, 1], seen[:, 2]
    up = lambda v: (v**2).sum(-1)  # noqa: E731
    inside = up(a) * cross(b, c) + up(b) * cross(c, a) + up(c) * cross(a, b)
    turn = side(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    own = (triples[:, :, None] == jnp.arange(n)).any(1)
    holds = (inside * jnp.sign(turn)[..., None] > 0) & there[:, None] & ~own
    found = there[:, triples].all(-1) & (turn != 0) & ~holds.any(-1)
    centres = incentres(corners)
    keys = (centres[..., 0], centres[..., 1]) if order is None else (order, order)
    by = jnp.lexsort((keys[1], keys[0], ~found), axis=-1)[:, : 2 * n - 5]
    count = jnp.minimum(found.sum(1), 2 * n - 5)
    on = jnp.arange(by.shape[1]) < count[:, None]
    tokens = jnp.where(on[..., None], triples[by] + 1, 0).reshape(len(points), -1)
    return jnp.pad(tokens, ((0, 0), (0, 1))).astype(jnp.int32), 3 * count + 1


class Hulls(eqx.Module):
    """Convex hulls of `low` to `high` points: see `hull`, `draw_points`.

    Raises `ValueError` for fewer than 3 points and another law.
    """

    low: int = eqx.field(static=True)
    high: int = eqx.field(static=True)
    law: Law = eqx.field(static=True, default="uniform")

    def __check_init__(self) -> None:
        check_draw(self.low, self.high, self.law)

    @eqx.filter_jit
    def draw(self, key: PRNGKeyArray, batch: int) -> Problems:
        points, counts = draw_points(key, batch, self.low, self.high, self.law)
        return Problems(points, counts, *hull_tokens(points, counts))


class Delaunays(eqx.Module):
    """Delaunay triangulations of `low` to `high` points, at most 12: see `delaunay`, `draw_points`.

    `order` of triangles: by their incentres, or "random", drawn for each set.

    Raises `ValueError` for fewer than 3 or more than 12 points, another law and another order.
    """

    low: int = eqx.field(static=True)
    high: int = eqx.field(static=True)
    law: Law = eqx.field(static=True, default="uniform")
    order: Literal["incentre", "random"] = eqx.field(static=True, default="incentre")

    def __check_init__(self) -> None:
        check_draw(self.low, self.high, self.law, MOST_TRIANGULATED)
        if self.order not in ("incentre", "random"):
            raise ValueError(f'order must be "incentre" or "random", not {self.order!r}')

    @eqx.filter_jit
    def draw(self, key: PRNGKeyArray, batch: int) -> Problems:
        points, counts = draw_points(key, batch, self.low, self.high, self.law)
        n, order = self.high, None
        if self.order == "random":
            order = jax.random.uniform(
                jax.random.fold_in(key, 1), (batch, n * (n - 1) * (n - 2) // 6)
            )
        return Problems(points, counts, *delaunay_tokens(points, counts, order))


def check_draw(low: int, high: int, law: str, most: int | None = None) -> None:
    """Raises `ValueError` for fewer than 3 points or more than `most`, and for another law."""
    check_sizes(low, high, 3, most)
    if law not in LAWS:
        raise ValueError(f"law must be one of {', '.join(LAWS)}, not {law!r}")
