"""Round trips: the shortest by dynamic programming, two heuristics, and problems that draw them.

Tours are indices of cities from 0 on, and begin at city 0; -1 pads.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from latebloom.data.planar import Law, Problems, check_draw, draw_points

MOST_EXACT = 16  # cities of `held_karp`: its tables double with each
MOST_DRAWN = 12  # cities of tours that are drawn in a program


class Tour(NamedTuple):
    """`cities` [*batch, n], and the `length` [*batch] of the round trip."""

    cities: Any
    length: Any


def distances(points: Any) -> Any:
    """Euclidean distances [*batch, n, n] of points [*batch, n, 2], as NumPy or JAX."""
    xp = _space(points)
    apart = points[..., :, None, :] - points[..., None, :, :]
    return xp.sqrt((apart**2).sum(axis=-1))


def tour_length(between: Any, cities: Any) -> Any:
    """Length [*batch] of the round trips `cities` [*batch, n] at distances [*batch, n, n]; -1 pads at a trip's end."""
    xp = _space(between)
    cities = xp.asarray(cities)
    there = cities >= 0
    last = there.sum(axis=-1, keepdims=True) - 1
    after = xp.where(xp.arange(cities.shape[-1]) < last, xp.roll(cities, -1, axis=-1), cities[..., :1])  # fmt: skip
    rows = xp.take_along_axis(between, xp.maximum(cities, 0)[..., None], axis=-2)
    legs = xp.take_along_axis(rows, xp.maximum(after, 0)[..., None], axis=-1)[..., 0]
    return xp.where(there, legs, 0).sum(axis=-1)


def held_karp(between: Any, counts: Any = None) -> Tour:
    """A shortest round trip of each of [*batch, n, n] distances from row to column; they need not be symmetric.

    Dynamic programming over sets of cities (Bellman 1962, Held and Karp 1962), all sets of one size at a time; NumPy
    for NumPy's arrays, else JAX. `counts` [*batch]: how many cities there are, the first ones.

    Raises `ValueError` for what is not square, and for more than 16 cities.
    """
    xp, shape = _space(between), _square(between)
    n = shape[-1]
    if n > MOST_EXACT:
        raise ValueError(f"held_karp takes at most {MOST_EXACT} cities, not {n}: use christofides")
    d = xp.reshape(between, (-1, n, n))
    batch = xp.arange(len(d))
    counts = xp.full(len(d), n) if counts is None else xp.reshape(xp.asarray(counts), (-1,))
    layers = _layers(n - 1)
    best, closed = d[:, 0, 1:, None], []
    parents: list[Any] = [None]
    for k, (sets, before, others) in enumerate(layers, 1):
        if k > 1:
            ways = best[:, before] + d[:, 1 + others, 1 + sets[..., None]]
            parents.append(ways.argmin(axis=-1))
            best = ways.min(axis=-1)
        closed.append(best[:, 0] + d[:, 1 : k + 1, 0])  # the first set is that of the first k
    length = xp.zeros(len(d), d.dtype)
    place, member = xp.zeros(len(d), int), xp.zeros(len(d), int)
    cities = [xp.zeros(len(d), int)]
    for k in range(n - 1, 0, -1):
        sets, before, _ = layers[k - 1]
        begins, close = counts - 1 == k, closed[k - 1]
        place = xp.where(begins, 0, place)
        member = xp.where(begins, close.argmin(axis=-1), member)
        length = xp.where(begins, close.min(axis=-1), length)
        city = 1 + xp.asarray(sets)[place, member]
        cities.insert(1, xp.where(counts - 1 >= k, city, -1))
        if k > 1:
            place, member = xp.asarray(before)[place, member], parents[k - 1][batch, place, member]
    return Tour(xp.stack(cities, axis=-1).reshape(shape[:-1]), length.reshape(shape[:-2]))


@lru_cache
def _layers(m: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For k = 1 to m: sets [sets, k] of k of range(m); the place among those of k - 1 of each without each of its
    members [sets, k]; and the members that are left [sets, k, k - 1]."""
    found, place = [], np.zeros(2**m, np.int64)
    for k in range(1, m + 1):
        sets = np.array(list(combinations(range(m), k)))
        bits = (1 << sets).sum(axis=1)
        rest = np.array([[b for b in range(k) if b != a] for a in range(k)], int).reshape(k, k - 1)
        found.append((sets, place[bits[:, None] ^ (1 << sets)], sets[:, rest]))
        place[bits] = np.arange(len(sets))
    return found


def nearest_neighbour(between: Any, counts: Any = None) -> Tour:
    """From city 0 always on to the nearest city not yet seen, then home; of equally near ones to the first.

    As `held_karp`: [*batch, n, n], NumPy or JAX. Raises `ValueError` for what is not square.
    """
    xp, shape = _space(between), _square(between)
    n = shape[-1]
    d = xp.reshape(between, (-1, n, n))
    batch, at = xp.arange(len(d)), xp.arange(n)
    counts = xp.full(len(d), n) if counts is None else xp.reshape(xp.asarray(counts), (-1,))
    current = xp.zeros(len(d), int)
    cities, open_ = [current], (at < counts[:, None]) & (at > 0)
    for k in range(1, n):
        current = xp.where(open_, d[batch, current], xp.inf).argmin(axis=-1)
        cities.append(xp.where(k < counts, current, -1))
        open_ = open_ & (at != current[:, None])
    found = xp.stack(cities, axis=-1)
    return Tour(found.reshape(shape[:-1]), tour_length(d, found).reshape(shape[:-2]))


def minimum_matching(between: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "pairs 2"]:
    """The pairing of all, an even number, with the least sum of distances; exact, as an integer program.

    Raises `ValueError` for an odd number.
    """
    n = _square(between)[-1]
    if n % 2:
        raise ValueError(f"only an even number can be paired, not {n}")
    if not n:
        return np.zeros((0, 2), np.int64)
    pairs = np.array(list(combinations(range(n), 2)))
    which = np.arange(len(pairs)).repeat(2)
    once = coo_array((np.ones(2 * len(pairs)), (pairs.ravel(), which)))
    found = milp(
        between[pairs[:, 0], pairs[:, 1]], integrality=np.ones(len(pairs)), bounds=Bounds(0, 1),
        constraints=LinearConstraint(once.tocsr(), 1, 1), options={"mip_rel_gap": 0},
    )  # fmt: skip
    if found.x is None:
        raise ValueError(f"the pairing was not found: {found.message}")
    return pairs[found.x > 0.5]


def christofides(between: Any) -> Tour:
    """A round trip at most 1.5 times as long as the shortest, where distances [n, n] are symmetric and of a metric.

    A shortest spanning tree, the best pairing of its cities of odd degree, and a walk along all of it that leaves out
    what it has seen (Christofides 1976). NumPy, one set at a time.

    Raises `ValueError` for what is not square or not symmetric.
    """
    d = np.asarray(between, np.float64)
    n = _square(d)[-1]
    if d.ndim != 2 or not np.allclose(d, d.T):
        raise ValueError("christofides takes one symmetric table of distances, [n, n]")
    edges = _spanning_tree(d)
    odd = np.flatnonzero(np.bincount(np.array(edges, int).ravel(), minlength=n) % 2)
    edges = edges + [(odd[a], odd[b]) for a, b in minimum_matching(d[np.ix_(odd, odd)])]
    near: list[list[int]] = [[] for _ in range(n)]
    for e, (a, b) in enumerate(edges):
        near[a].append(e)
        near[b].append(e)
    used, stack, walk = [False] * len(edges), [0], []
    while stack:
        here = stack[-1]
        while near[here] and used[near[here][-1]]:
            near[here].pop()
        if near[here]:
            e = near[here].pop()
            used[e] = True
            stack.append(int(edges[e][0] + edges[e][1] - here))
        else:
            walk.append(stack.pop())
    cities = np.array(list(dict.fromkeys(walk)))
    return Tour(cities, tour_length(d, cities))


def _spanning_tree(d: np.ndarray) -> list[tuple[int, int]]:
    """Edges of a shortest one (Prim)."""
    n, edges = len(d), []
    near, way = np.zeros(n, int), d[0].copy()
    open_ = np.arange(n) > 0
    for _ in range(n - 1):
        new = int(np.where(open_, way, np.inf).argmin())
        edges.append((int(near[new]), new))
        open_[new] = False
        nearer = d[new] < way
        near, way = np.where(nearer, new, near), np.where(nearer, d[new], way)
    return edges


def one_tree_bound(between: Any, steps: int = 100) -> float:
    """A length that no round trip is below, for symmetric distances [n, n]; no triangle need hold. NumPy.

    The best found of the shortest 1-trees (a spanning tree of all cities but the first, and the two shortest ways to
    that), where ways to a city cost more the more of them the tree uses (Held and Karp 1970, 1971).

    Raises `ValueError` for what is not square or not symmetric.
    """
    d = np.asarray(between, np.float64)
    n = _square(d)[-1]
    if d.ndim != 2 or not np.allclose(d, d.T):
        raise ValueError("one_tree_bound takes one symmetric table of distances, [n, n]")
    if n < 3:
        return float(2 * d[0, -1])
    best, price, step = -np.inf, np.zeros(n), 0.0
    for k in range(steps):
        cost = d + price + price[:, None]
        near = 1 + np.argsort(cost[0, 1:])[:2]
        edges = [(1 + a, 1 + b) for a, b in _spanning_tree(cost[1:, 1:])] + [(0, int(j)) for j in near]  # fmt: skip
        a, b = np.array(edges).T
        best = max(best, float(cost[a, b].sum() - 2 * price.sum()))
        degree = np.bincount(np.concatenate([a, b]), minlength=n)
        if (degree == 2).all():
            break  # it is a round trip, the shortest
        step = best / (2 * n) if k == 0 else 0.95 * step
        price += step * (degree - 2)
    return best


def counter_clockwise(
    points: Float[Array, "batch n 2"], cities: Int[Array, "batch n"]
) -> Int[Array, "batch n"]:
    """The tours [batch, n] in the direction in which they turn left around their area; -1 pads."""
    count = (cities >= 0).sum(axis=1)[:, None]
    at = jnp.arange(cities.shape[1])
    corner = jnp.take_along_axis(points, jnp.maximum(cities, 0)[..., None], axis=1)
    corner = jnp.where((at < count)[..., None], corner, corner[:, :1])
    after = jnp.roll(corner, -1, axis=1)
    area = (corner[..., 0] * after[..., 1] - corner[..., 1] * after[..., 0]).sum(axis=1)
    back = jnp.where(at == 0, 0, count - at)
    turned = jnp.where(at < count, jnp.take_along_axis(cities, back % cities.shape[1], axis=1), -1)
    return jnp.where((area < 0)[:, None], turned, cities)


class Tours(eqx.Module):
    """Round trips through `low` to `high` points from the first, counter-clockwise.

    - `labels`: the "shortest" (`held_karp`), of at most 12 points, or those of the "nearest" neighbour.

    Targets have no end: a tour has as many steps as there are points.

    Raises `ValueError` for fewer than 3 points, or more than 12 of the shortest, another law, and other labels.
    """

    low: int = eqx.field(static=True)
    high: int = eqx.field(static=True)
    law: Law = eqx.field(static=True, default="uniform")
    labels: Literal["shortest", "nearest"] = eqx.field(static=True, default="shortest")

    def __check_init__(self) -> None:
        if self.labels not in ("shortest", "nearest"):
            raise ValueError(f'labels must be "shortest" or "nearest", not {self.labels!r}')
        check_draw(self.low, self.high, self.law, MOST_DRAWN if self.labels == "shortest" else None)

    @eqx.filter_jit
    def draw(self, key: PRNGKeyArray, batch: int) -> Problems:
        points, counts = draw_points(key, batch, self.low, self.high, self.law)
        solve = held_karp if self.labels == "shortest" else nearest_neighbour
        cities = counter_clockwise(points, solve(distances(points), counts).cities)
        return Problems(points, counts, (cities + 1).astype(jnp.int32), counts)


def _space(x: Any) -> Any:
    return jnp if isinstance(x, jax.Array) else np


def _square(between: Any) -> tuple[int, ...]:
    shape = np.shape(between)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"distances must be square, [*batch, n, n], not {list(shape)}")
    return shape
