"""Hulls and triangulations against brute force, SciPy and cases by hand."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from latebloom.data.planar import (
    Delaunays,
    Hulls,
    delaunay,
    delaunay_tokens,
    draw_points,
    hull,
    hull_tokens,
    incentres,
    label_all,
    side,
)


def vertices(points):
    """Corners of the hull, by definition: points that are in no segment and no triangle of others."""
    points = [tuple(map(int, p)) for p in points]
    turn = lambda a, b, c: (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])  # noqa: E731
    found = []
    for p in dict.fromkeys(points):
        rest = [q for q in dict.fromkeys(points) if q != p]
        between = any(
            turn(a, p, b) == 0 and (a[0] - p[0]) * (b[0] - p[0]) + (a[1] - p[1]) * (b[1] - p[1]) < 0
            for a, b in combinations(rest, 2)
        )
        within = any(
            turn(a, b, c) != 0 and len({np.sign(turn(a, b, p)), np.sign(turn(b, c, p)), np.sign(turn(c, a, p))}) == 1
            for a, b, c in combinations(rest, 3)
        )  # fmt: skip
        if not between and not within:
            found.append(points.index(p))
    return sorted(found)


def sequences(problems):
    return [
        np.asarray(t[:n]).tolist() for t, n in zip(problems.targets, problems.lengths, strict=True)
    ]


def test_hulls_are_scipys_from_the_lowest_index():
    rng = np.random.default_rng(0)
    for n in (3, 5, 20, 100):
        points = rng.random((n, 2))
        ring = ConvexHull(points).vertices
        np.testing.assert_array_equal(hull(points), np.roll(ring, -ring.argmin()))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9))
def test_hulls_of_equal_and_collinear_points(points):
    ring = hull(points)
    assert sorted(ring.tolist()) == vertices(points) and ring[0] == ring.min()
    corner = np.array(points)[ring]
    ways = np.roll(corner, -1, 0) - corner
    turns = ways[:, 0] * np.roll(ways, -1, 0)[:, 1] - ways[:, 1] * np.roll(ways, -1, 0)[:, 0]
    assert len(ring) < 3 or (turns > 0).all()
    padded = np.full((1, 9, 2), np.nan, np.float32)
    padded[0, : len(points)] = points
    tokens, length = COMPILED(padded, jnp.array([len(points)]))
    assert tokens[0, : length[0]].tolist() == [*(ring + 1).tolist(), 0]
    assert not tokens[0, length[0] :].any()


COMPILED = jax.jit(hull_tokens)
# As outside of tests, where products are fused with sums; the option stands before what XLA_FLAGS says.
AS_USERS_DO = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def test_hulls_are_the_same_where_products_are_fused_with_sums():
    points = jax.random.uniform(jax.random.key(2), (300, 9, 2))
    points = points.at[:100].set(jnp.round(4 * points[:100]))  # equal points, and on lines
    counts = jnp.arange(300) % 7 + 3
    compiled = COMPILED.lower(points, counts).compile(compiler_options=AS_USERS_DO)
    tokens, lengths = compiled(points, counts)
    for p, n, own, length in zip(np.asarray(points), counts, tokens, lengths, strict=True):
        assert own[: length - 1].tolist() == (hull(p[:n]) + 1).tolist()


def test_sides_are_exact_for_whole_numbers_and_0_within_rounding():
    rng = np.random.default_rng(4)
    a, b = rng.integers(-2047, 2048, (2, 5000, 2))
    b[::3] = a[::3] * rng.integers(-1, 2, (len(a[::3]), 1))  # parallel
    b[1::3] = a[1::3] + rng.integers(-1, 2, a[1::3].shape)  # nearly
    args = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    compiled = jax.jit(side).lower(*args).compile(compiler_options=AS_USERS_DO)
    true = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    np.testing.assert_array_equal(np.sign(compiled(*args)), np.sign(true))
    same = jax.random.normal(jax.random.key(0), (5000, 2))
    for times in (1.0, -1.0, 2.0):
        compiled = jax.jit(lambda v, t=times: side(v, t * v)).lower(same)
        assert not compiled.compile(compiler_options=AS_USERS_DO)(same).any()


def test_a_point_that_is_beside_a_line_by_the_last_bit_is_a_vertex():
    low = np.nextafter(0.5, 0)
    assert hull([[0, 0], [1, 1], [0.5, low]]).tolist() == [0, 2, 1]
    assert hull([[0, 0], [1, 1], [0.5, 0.5]]).tolist() == [0, 1]
    assert hull([[0.3, 0.3]]).tolist() == [0] and hull([[1, 1], [1, 1]]).tolist() == [0]


def test_drawn_hulls_are_those_of_numpy_and_come_from_their_seed():
    for law in ("uniform", "ring", "clusters"):
        problems = Hulls(3, 12, law).draw(jax.random.key(1), 200)
        counts = np.asarray(problems.counts)
        assert set(counts) == set(range(3, 13))
        sets = [np.asarray(p[:n]) for p, n in zip(problems.points, counts, strict=True)]
        again = label_all(sets, hull)
        assert sequences(problems) == sequences(again)
        np.testing.assert_array_equal(problems.points, again.points)
        assert all(((p >= 0) & (p <= 1)).all() for p in sets)
    again = Hulls(3, 12, law).draw(jax.random.key(1), 200)
    np.testing.assert_array_equal(problems.points, again.points)


def test_laws_put_points_where_they_say():
    ring, _ = draw_points(jax.random.key(0), 50, 20, 20, "ring")
    far = np.linalg.norm(np.asarray(ring) - 0.5, axis=-1)
    assert far.min() > 0.349 and far.max() < 0.501
    spread = {
        law: draw_points(jax.random.key(0), 200, 20, 20, law)[0].std(axis=1).mean()
        for law in ("uniform", "clusters")
    }
    assert spread["clusters"] < 0.8 * spread["uniform"]


def brute_delaunay(points):
    """Triples of exact, whole or float64 coordinates whose circle holds no other point."""
    found = []
    for t in combinations(range(len(points)), 3):
        a, b, c = points[list(t)]
        m = 2 * np.array([b - a, c - a])
        if abs(np.linalg.det(m)) < 1e-12:
            continue
        centre = np.linalg.solve(m, [b @ b - a @ a, c @ c - a @ a])
        far = np.linalg.norm(points - centre, axis=1)
        if (np.delete(far, t) > far[t[0]]).all():
            found.append(t)
    return found


def test_triangulations_by_brute_force_in_order_of_incentres():
    rng = np.random.default_rng(1)
    for n in (3, 5, 9):
        points = rng.random((n, 2))
        triangles = delaunay(points)
        assert sorted(map(tuple, triangles.tolist())) == brute_delaunay(points)
        assert len(triangles) == 2 * n - 2 - len(hull(points))
        centres = incentres(points[triangles])
        assert (np.diff(centres[:, 0]) > 0).all() and (np.diff(triangles, axis=1) > 0).all()


def test_incentres_are_as_far_from_each_side():
    corners = np.random.default_rng(0).random((5, 3, 2))
    centre = incentres(corners)[:, None]
    ways = np.roll(corners, -1, 1) - corners
    from_it = centre - corners
    far = np.abs(ways[..., 0] * from_it[..., 1] - ways[..., 1] * from_it[..., 0]) / np.linalg.norm(ways, axis=-1)  # fmt: skip
    np.testing.assert_allclose(far, far[:, :1].repeat(3, 1))
    np.testing.assert_allclose(incentres(np.ones((3, 2))), [1, 1])


def test_flat_sets_have_no_triangles_and_a_grid_is_tiled():
    assert delaunay([[0, 0], [1, 1], [2, 2], [3, 3]]).shape == (0, 3)
    assert delaunay([[0, 0], [1, 1]]).shape == (0, 3)
    grid = np.stack(np.meshgrid(np.arange(3.0), np.arange(3.0)), -1).reshape(-1, 2)
    corners = grid[delaunay(grid)]
    sides = corners[:, 1:] - corners[:, :1]
    assert np.abs(np.linalg.det(sides)).sum() / 2 == pytest.approx(4)
    flat = jnp.array([[[0.0, 0], [1, 1], [2, 2], [3, 3]]])
    tokens, length = jax.jit(delaunay_tokens)(flat, jnp.array([4]))
    assert length[0] == 1 and not tokens.any()


def test_drawn_triangulations_are_those_of_scipy():
    problems = Delaunays(3, 8).draw(jax.random.key(0), 150)
    sets = [np.asarray(p[:n]) for p, n in zip(problems.points, problems.counts, strict=True)]
    same = [
        a == b
        for a, b in zip(sequences(problems), sequences(label_all(sets, delaunay)), strict=True)
    ]
    assert np.mean(same) > 0.99
    mixed = Delaunays(3, 8, order="random").draw(jax.random.key(0), 150)
    triangles = lambda s: [tuple(s[i : i + 3]) for i in range(0, len(s) - 1, 3)]  # noqa: E731
    pairs = [
        (triangles(a), triangles(b))
        for a, b in zip(sequences(problems), sequences(mixed), strict=True)
    ]
    assert all(set(a) == set(b) for a, b in pairs) and any(a != b for a, b in pairs)


def test_bad_input_is_refused():
    for bad, why in (
        ([], "one point"),
        ([1, 2], "one point"),
        ([[0, np.nan]], "point 0 is not finite"),
    ):
        for f in (hull, delaunay):
            with pytest.raises(ValueError, match=why):
                f(bad)
    for make, why in (
        (lambda: Hulls(2, 5), "at least 3"), (lambda: Hulls(6, 5), "low <= high"),
        (lambda: Delaunays(3, 13), "at most 12"), (lambda: Delaunays(3, 5, order="y"), "order must be"),
        (lambda: Hulls(3, 5, "gauss"), "law must be"), (lambda: label_all([], hull), "at least one set"),
        (lambda: draw_points(jax.random.key(0), 2, 0, 3), "at least 1"),
        (lambda: draw_points(jax.random.key(0), 2, 1, 3, "x"), "law must be"),
        (lambda: label_all([[[0, 0]]], lambda p: [1]), "set 0 has an index beyond its 1"),
        (lambda: delaunay_tokens(jnp.zeros((1, 2, 2)), jnp.array([2])), "at least 3"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            make()
