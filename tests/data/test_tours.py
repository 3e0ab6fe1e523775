"""Tours against all permutations, and what is known of heuristics."""

from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.data.tours import (
    Tours,
    christofides,
    counter_clockwise,
    distances,
    held_karp,
    minimum_matching,
    nearest_neighbour,
    one_tree_bound,
    tour_length,
)


def brute(d):
    n = len(d)
    ways = [(0, *p) for p in permutations(range(1, n))]
    return min(sum(d[a, b] for a, b in zip(w, [*w[1:], 0], strict=True)) for w in ways)


def test_held_karp_is_the_least_of_all_permutations():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 6):
        d = rng.random((3, n, n)) * (1 - np.eye(n))  # not symmetric
        found = held_karp(d)
        np.testing.assert_allclose(found.length, [brute(one) for one in d])
        np.testing.assert_allclose(tour_length(d, found.cities), found.length)
        assert (found.cities[:, 0] == 0).all()
        assert (np.sort(found.cities, axis=1) == np.arange(n)).all()
        alone = held_karp(d[0])
        assert alone.cities.tolist() == found.cities[0].tolist() and alone.length == found.length[0]


def test_sets_of_unequal_size_in_one_program_and_padding_is_not_looked_at():
    rng = np.random.default_rng(1)
    points = rng.random((6, 7, 2)).astype(np.float32)
    counts = np.array([1, 2, 3, 5, 6, 7])
    for b, n in enumerate(counts):
        points[b, n:] = np.nan
    d = distances(jnp.asarray(points))
    for solve in (held_karp, nearest_neighbour):
        both = jax.jit(solve)(d, jnp.asarray(counts)), solve(np.asarray(d), counts)
        for found in both:
            for b, n in enumerate(counts):
                alone = solve(np.asarray(d, np.float64)[b, :n, :n])
                assert found.length[b] == pytest.approx(float(alone.length), rel=1e-5)
                assert sorted(found.cities[b, :n].tolist()) == list(range(n))
                assert (np.asarray(found.cities[b, n:]) == -1).all()


def test_the_nearest_neighbour_by_hand():
    line = np.array([[0.0, 0], [1, 0], [-1.5, 0], [2.1, 0]])
    found = nearest_neighbour(distances(line))
    assert found.cities.tolist() == [0, 1, 3, 2] and found.length == pytest.approx(7.2)
    square = distances(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    assert nearest_neighbour(square).cities.tolist() == [0, 1, 2, 3]  # the first of two


def pairings(left):
    if not left:
        yield []
        return
    a, *rest = left
    for b in rest:
        for more in pairings([c for c in rest if c != b]):
            yield [(a, b), *more]


def test_christofides_stays_within_half_more_and_pairs_at_the_least_cost():
    rng = np.random.default_rng(2)
    for n in (1, 2, 3, 8, 11):
        d = distances(rng.random((n, 2)))
        found = christofides(d)
        assert sorted(found.cities.tolist()) == list(range(n)) and found.cities[0] == 0
        best = float(held_karp(d).length)
        assert best * (1 - 1e-9) <= found.length <= 1.5 * best + 1e-12
    ends = distances(rng.random((8, 2)))
    least = min(sum(ends[a, b] for a, b in way) for way in pairings(list(range(8))))
    pairs = minimum_matching(ends)
    assert ends[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(least)
    assert sorted(pairs.ravel().tolist()) == list(range(8))
    doubled = distances(np.repeat(rng.random((3, 2)), 2, axis=0))
    assert sorted(christofides(doubled).cities.tolist()) == list(range(6))


def spanning_trees(d):
    """The least total of all sets of n - 1 edges that connect all."""
    n, best = len(d), np.inf
    for edges in combinations(list(combinations(range(n), 2)), n - 1):
        reached = {0}
        for _ in range(n):
            reached |= {v for e in edges if set(e) & reached for v in e}
        best = min(best, sum(d[e] for e in edges)) if len(reached) == n else best
    return best


def test_no_tour_is_below_the_bound_of_1_trees():
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 6, 10):
        d = distances(rng.random((n, 2)))
        best = float(held_karp(d).length)
        assert one_tree_bound(d) <= best * (1 + 1e-9)
        if n == 6:  # at first: a tree of all but city 0, and the two shortest ways to it
            first = spanning_trees(d[1:, 1:]) + np.sort(d[0, 1:])[:2].sum()
            assert one_tree_bound(d, steps=1) == pytest.approx(first)
            assert first < one_tree_bound(d)
        if n > 2:
            assert one_tree_bound(d) > 0.9 * best
    square = distances(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    assert one_tree_bound(square) == pytest.approx(4)
    loose = rng.random((7, 7))  # no triangle holds
    loose = (loose + loose.T) * (1 - np.eye(7))
    assert one_tree_bound(loose) <= float(held_karp(loose).length) + 1e-9


def test_drawn_tours_are_the_shortest_and_turn_left():
    problems = Tours(3, 7).draw(jax.random.key(0), 60)
    points, counts = np.asarray(problems.points, np.float64), np.asarray(problems.counts)
    assert set(counts) == set(range(3, 8))
    for p, n, target, length in zip(
        points, counts, problems.targets, problems.lengths, strict=True
    ):
        assert length == n and target[0] == 1 and not target[n:].any()
        d = distances(p[:n])
        cities = np.asarray(target[:n]) - 1
        assert tour_length(d, cities) == pytest.approx(float(held_karp(d).length), rel=1e-5)
        corner = p[cities]
        after = np.roll(corner, -1, 0)
        assert (corner[:, 0] * after[:, 1] - corner[:, 1] * after[:, 0]).sum() > 0
    near = Tours(5, 5, labels="nearest").draw(jax.random.key(0), 60)
    d = distances(np.asarray(near.points))
    length = tour_length(d, np.asarray(near.targets) - 1)
    np.testing.assert_allclose(length, nearest_neighbour(d).length, rtol=1e-5)
    assert (length > held_karp(d).length + 1e-6).any()
    assert Tours(14, 14, labels="nearest").draw(jax.random.key(0), 2).targets.shape == (2, 14)


def test_a_tour_keeps_its_way_or_turns_around():
    points = jnp.array([[[0.0, 0], [1, 0], [1, 1], [9, 9]]] * 2)
    cities = jnp.array([[0, 1, 2, -1], [0, 2, 1, -1]])
    assert counter_clockwise(points, cities).tolist() == [[0, 1, 2, -1]] * 2


def test_bad_input_is_refused():
    for make, why in (
        (lambda: held_karp(np.zeros((2, 3))), "square"), (lambda: held_karp(np.zeros((17, 17))), "at most 16"),
        (lambda: christofides(np.triu(np.ones((3, 3)))), "symmetric"), (lambda: minimum_matching(np.ones((3, 3))), "even"),
        (lambda: one_tree_bound(np.triu(np.ones((3, 3)))), "symmetric"),
        (lambda: Tours(3, 13), "at most 12"), (lambda: Tours(3, 5, labels="x"), "labels must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            make()
