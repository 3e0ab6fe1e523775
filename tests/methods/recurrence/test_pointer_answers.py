"""Scores of answers against cases by hand, exact arithmetic and counting on a grid of places."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.data.planar import Problems, delaunay, hull, label_all
from latebloom.methods.recurrence.pointer import Seq2Seq
from latebloom.methods.recurrence.pointer_answers import (
    delaunay_scores,
    hull_scores,
    judged,
    polygon_area,
    simple_polygons,
    task,
    tour_scores,
)

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.25]]
NAN = float("nan")


def scored(score, points, label, answers, end=True):
    problems = label_all([points], label, end=end)
    answers = [a + [0] * (max(map(len, answers)) - len(a)) for a in answers]
    many = Problems(*(jnp.repeat(a, len(answers), axis=0) for a in problems))
    return {
        k: np.asarray(v).tolist() for k, v in jax.jit(score)(jnp.asarray(answers), many).items()
    }


def test_hulls_by_hand():
    answers = [
        [1, 2, 3, 4, 0],  # the hull
        [3, 4, 1, 2, 0],  # from another corner
        [1, 4, 3, 2, 0],  # the other way
        [1, 2, 3, 0],  # half of it
        [1, 2, 3, 4, 5, 0],  # with a dent
        [1, 3, 2, 4, 0],  # crossed
        [1, 2, 3, 2, 0],  # there and back
        [1, 2, 0],
        [1, 2, 3, 4, 5, 2],  # no end
        [1, 1, 2, 3, 4, 0],  # a corner twice
    ]
    found = scored(hull_scores, SQUARE, hull, answers)
    assert found["exact"] == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found["failed"] == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(found["area"], [1, 1, 1, 0.5, 0.75, *[NAN] * 5], rtol=1e-6)
    flat = scored(hull_scores, [[0, 0], [1, 1], [2, 2]], hull, [[1, 3, 0], [1, 2, 0]])
    assert flat["exact"] == [1, 0] and flat["failed"] == [1, 1] and np.isnan(flat["area"]).all()


def share(points, ring):
    """How much of a square of places is within a polygon, by counting crossings of rays."""
    at = (np.arange(200) + 0.5) / 200 * 4
    x, y = np.meshgrid(at, at)
    inside = np.zeros_like(x, bool)
    for (ax, ay), (bx, by) in zip(points[ring], points[np.roll(ring, -1)], strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return 16 * inside.mean()


def meets(a, b, c, d):
    """Whether segments have a place in common, in fractions: parametric, not by signs."""
    r, s, q = ([Fraction(int(v[i] - u[i])) for i in (0, 1)] for u, v in ((a, b), (c, d), (a, c)))
    by = lambda u, v: u[0] * v[1] - u[1] * v[0]  # noqa: E731
    if by(r, s) != 0:
        return 0 <= by(q, s) / by(r, s) <= 1 and 0 <= by(q, r) / by(r, s) <= 1
    if by(q, r) != 0 or by(q, s) != 0:
        return False
    way = 0 if r[0] != 0 or s[0] != 0 else 1
    (lo, hi), (l2, h2) = sorted((a[way], b[way])), sorted((c[way], d[way]))
    return max(lo, l2) <= min(hi, h2)


AREA, SIMPLE = jax.jit(polygon_area), jax.jit(simple_polygons)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=6))
def test_simple_polygons_by_the_definition(corners):
    n = len(corners)
    sides = [(corners[i], corners[(i + 1) % n]) for i in range(n)]
    simple = len(set(corners)) == n and not any(
        meets(*sides[i], *sides[j]) for i in range(n) for j in range(i) if i - j not in (1, n - 1)
    )
    for (a, b), (_, d) in zip(
        sides, sides[1:] + sides[:1], strict=True
    ):  # sides that go back upon each other
        u, v = np.subtract(b, a), np.subtract(d, b)
        simple = simple and not (u[0] * v[1] == u[1] * v[0] and u @ v < 0)
    padded = np.zeros((1, 6, 2), np.float32)
    padded[0, :n] = corners
    assert bool(SIMPLE(padded, jnp.array([n]))[0]) == simple
    if simple:
        points = np.array(corners, float)
        assert AREA(padded, jnp.array([n]))[0] == pytest.approx(
            share(points, np.arange(n)), abs=0.2
        )


def test_polygons_are_the_same_where_products_are_fused_with_sums():
    """Right ones are simple, and those that go there and back, or through a corner twice, are none."""
    points = jax.random.uniform(jax.random.key(0), (300, 12, 2))
    rings = [hull(p) for p in np.asarray(points)]
    corners, counts = np.zeros((900, 12, 2), np.float32), np.zeros(900, int)
    for i, (p, ring) in enumerate(zip(np.asarray(points), rings, strict=True)):
        ways = (
            ring,
            np.insert(ring, 2, ring[:1]),  # there and back
            np.append(ring[:3], ring[:3]),  # around twice
        )
        for way, own in enumerate(ways):
            corners[300 * way + i, : len(own)], counts[300 * way + i] = p[own], len(own)
    options = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
    given = jnp.asarray(corners), jnp.asarray(counts)
    simple = SIMPLE.lower(*given).compile(compiler_options=options)(*given)
    assert simple[:300].all() and not simple[300:].any()


def test_triangulations_by_hand():
    points = [[0, 0], [2, 0.1], [2.2, 2], [0, 2.3], [0.9, 0.8]]
    true = delaunay(points) + 1
    flat = true.ravel().tolist()
    assert len(true) == 4
    mixed = true[::-1, ::-1].ravel().tolist()
    answers = [
        [*flat, 0], [*mixed, 0], [*flat[:9], 0], [*flat[:8], 0], [*flat, *flat[:3], 0], [*flat[:9], 1, 1, 2, 0],
        flat, [0], [1, 3, 2, 0],
    ]  # fmt: skip
    answers[6] = [*flat, 1, 2, 3, 1]
    found = scored(delaunay_scores, points, delaunay, answers)
    assert found["exact"] == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found["failed"] == [0, 0, 0, 1, 0, 1, 1, 0, 0]
    np.testing.assert_allclose(found["covered"], [1, 1, 0.75, 0.5, 1, 0.75, 1, 0, 0])


def test_tours_by_hand():
    points = [[0, 0], [3, 0], [3, 4], [0, 4]]
    answers = [[1, 2, 3, 4], [3, 2, 1, 4], [1, 3, 2, 4], [1, 2, 3, 0], [1, 2, 3, 3], [1, 2, 3, 5]]
    found = scored(tour_scores, points, lambda p: [0, 1, 2, 3], answers, end=False)
    assert found["exact"] == [1, 1, 0, 0, 0, 0] and found["failed"] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(found["length"], [14, 14, 18, *[NAN] * 3])
    np.testing.assert_allclose(found["gap"], [0, 0, 18 / 14 - 1, *[NAN] * 3], atol=1e-6)
    # With an answer of one step more, and a set among larger ones.
    longer = scored(
        tour_scores, points, lambda p: [0, 1, 2, 3], [[1, 2, 3, 4, 0], [1, 2, 3, 4, 1]], end=False
    )
    assert longer["failed"] == [0, 1]


def test_what_a_model_writes_is_scored_and_a_dictionary_has_an_end():
    model = Seq2Seq(4, 5, key=jax.random.key(0))
    problems = label_all([SQUARE, SQUARE[:3]], hull)
    # It always writes the most probable token of its readout: here 2, 2, 2, ...
    stuck = eqx.tree_at(
        lambda m: (m.readout.weight, m.readout.bias),
        model,
        (jnp.zeros((4, 6)), jnp.arange(6) == 2.0),
    )
    found = judged(stuck, problems, "hull")
    assert found["failed"].tolist() == [1, 1] and not found["exact"].any()
    tours = label_all([SQUARE, SQUARE[:3]], lambda p: range(len(p)), end=False)
    assert judged(stuck, tours, "tour", width=2)["failed"].tolist() == [0, 0]
    assert judged(stuck, tours, "tour", tours=False)["failed"].tolist() == [1, 1]
    with pytest.raises(
        ValueError, match="6 points go beyond the dictionary, which has places for 5"
    ):
        judged(model, label_all([[*SQUARE, [2, 2]]], hull), "hull")
    with pytest.raises(ValueError, match="kind must be one of"):
        task("sort")
