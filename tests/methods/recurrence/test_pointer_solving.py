"""Networks that are kept, and answers that are answers whatever the network writes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.core.checkpoint import save_arrays
from latebloom.data.planar import hull
from latebloom.data.tours import distances, held_karp, nearest_neighbour, tour_length
from latebloom.methods.recurrence.pointer import PointerNetwork, uniform_start
from latebloom.methods.recurrence.pointer_solving import (
    Solver,
    area,
    load_solver,
    pointed,
    save_solver,
    solve,
    train_solver,
)

KEY = jax.random.key(0)
MODEL = uniform_start(PointerNetwork(6, key=KEY), KEY, 2.0)
SOLVERS = {kind: Solver(MODEL, kind, 3, 5, 6) for kind in ("tour", "hull")}
RNG = np.random.default_rng(0)
SIX = RNG.random((6, 2))


def test_a_network_that_was_kept_answers_alike(tmp_path):
    solver = train_solver("hull", low=3, high=5, size=6, steps=13, batch=4)
    save_solver(solver, tmp_path / "n.npz")
    again = load_solver(tmp_path / "n.npz")
    assert (again.kind, again.low, again.high, again.size) == ("hull", 3, 5, 6)
    for a, b in zip(jax.tree.leaves(solver.model), jax.tree.leaves(again.model), strict=True):
        np.testing.assert_array_equal(a, b)
    points = RNG.random((5, 2))
    one, two = (pointed(s, points, solve(s, [points])[0]) for s in (solver, again))
    np.testing.assert_array_equal(one, two)


def test_training_is_that_of_the_learner_and_says_how_far_it_is():
    said = []
    short, long = (
        train_solver("tour", low=3, high=4, size=6, steps=n, batch=8, rate=0.02, say=said.append)
        for n in (3, 60)
    )
    assert said[:3] == [1 / 3, 2 / 3, 1] and said[3:] == pytest.approx(np.arange(1, 11) / 10)
    sets = list(RNG.random((40, 4, 2)))
    gaps = [np.mean([a.gap for a in solve(s, sets, width=1)]) for s in (short, long)]
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("kind", ["tour", "hull"])
@settings(max_examples=30)
@given(data=st.data())
def test_whatever_is_written_the_answer_is_one(kind, data):
    n = data.draw(st.integers(1 if kind == "tour" else 3, 6))
    coordinate = st.integers(-3, 3) if data.draw(st.booleans()) else st.floats(-1e6, 1e6)
    points = np.array(data.draw(st.lists(st.tuples(coordinate, coordinate), min_size=n, max_size=n)), float)  # fmt: skip
    found, _ = solve(SOLVERS[kind], [points, SIX], width=2)
    true = hull(points)
    if kind == "tour":
        assert sorted(found.places.tolist()) == list(range(n)) and found.by == "pointer"
        d = distances(points)
        assert found.value == pytest.approx(float(tour_length(d, found.places)))
        assert found.bound == pytest.approx(float(held_karp(d).length)) and found.exact
        assert found.value >= found.bound * (1 - 1e-9)
    else:
        assert found.by in ("pointer", "exact") and len(set(found.places.tolist())) == len(found.places)  # fmt: skip
        assert found.bound == pytest.approx(area(points[true]))
        if found.by == "exact":
            assert found.places.tolist() == true.tolist()
        assert found.value <= found.bound * (1 + 1e-5) + 1e-9


def test_where_nothing_is_written_a_rule_answers():
    broken = jax.tree.map(lambda a: a * jnp.nan, MODEL)
    points = RNG.random((7, 2))
    (tour,) = solve(Solver(broken, "tour", 3, 5, 6), [points])
    assert tour.by == "nearest neighbour"
    near = nearest_neighbour(distances(points))
    assert tour.places.tolist() == near.cities.tolist() and tour.value == pytest.approx(float(near.length))  # fmt: skip
    (ring,) = solve(Solver(broken, "hull", 3, 5, 6), [points])
    assert ring.by == "exact" and ring.places.tolist() == hull(points).tolist() and ring.gap == 0


def test_a_polygon_that_is_right_is_the_networks():
    """A network that always points at the next of 1, 2, 3 and then ends, made by hand."""

    class Counts(PointerNetwork):
        def write(self, context, state, fed):
            time = state[0][:, 0]
            state = (state[0] + 1, state[1])
            slots = jnp.arange(context.open.shape[1])
            return state, -100.0 * jnp.abs(slots - (time[:, None] + 1) % 4)

        def begin(self, state):
            return jax.tree.map(jnp.zeros_like, state)

    solver = Solver(Counts(6, key=KEY), "hull", 3, 5, 6)
    square = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    (found,) = solve(solver, [square], width=1)
    assert found.by == "pointer" and found.places.tolist() == [0, 1, 2]
    assert (found.value, found.bound, found.gap, found.rule) == (
        2,
        4,
        0.5,
        2,
    )  # extremes: the first of equals
    share = pointed(solver, square, found)
    assert share.shape == (4, 5) and share.argmax(1).tolist() == [1, 2, 3, 0]
    np.testing.assert_allclose(share.sum(1), 1, rtol=1e-5)


def test_sets_of_all_sizes_at_once_answer_as_alone_wherever_they_are():
    sets = [RNG.random((n, 2)) for n in (5, 3, 14, 1, 2)]
    together = solve(SOLVERS["tour"], sets)
    for one, found in zip(sets, together, strict=True):
        (alone,) = solve(SOLVERS["tour"], [one])
        (moved,) = solve(SOLVERS["tour"], [100 * one + 8])
        assert alone.places.tolist() == found.places.tolist() == moved.places.tolist()
        assert moved.value == pytest.approx(100 * found.value)
    assert not together[2].exact and together[2].bound <= float(held_karp(distances(sets[2])).length)  # fmt: skip


def test_tours_are_measured_by_the_distances_that_are_given():
    points = RNG.random((4, 2))
    d = np.array([[0, 1, 9, 1], [1, 0, 1, 9], [9, 1, 0, 1], [1, 9, 1, 0.0]])
    (found,) = solve(SOLVERS["tour"], [points], [d])
    assert found.bound == 4 and found.value == float(tour_length(d, found.places))
    assert found.rule == 4


def test_bad_input_is_refused(tmp_path):
    save_arrays(tmp_path / "other", {}, {"what": "else"})
    (tmp_path / "text").write_text("x")
    save_solver(SOLVERS["tour"], tmp_path / "short")
    (tmp_path / "short").write_bytes((tmp_path / "short").read_bytes()[:-9])
    solver, three = SOLVERS["tour"], np.zeros((3, 2))
    for make, why in (
        (lambda: train_solver("sort"), "kind must be"), (lambda: train_solver("tour", steps=0), "steps must be"),
        (lambda: train_solver("tour", rate=0.0), "rate must be"), (lambda: train_solver("tour", high=13), "at most 12"),
        (lambda: solve(solver, []), "there must be sets"), (lambda: solve(solver, [three], []), "1 and 0"),
        (lambda: solve(solver, [np.zeros((2001, 2))]), "2,001 points"), (lambda: solve(solver, [three], [np.zeros((2, 2))]), r"must be \[3, 3\]"),
        (lambda: solve(solver, [three * np.nan]), "not finite"), (lambda: solve(solver, [three], width=0), "width"),
        (lambda: load_solver(tmp_path / "none"), "cannot be read"), (lambda: load_solver(tmp_path / "text"), "no network that was kept"),
        (lambda: load_solver(tmp_path / "short"), "damaged"), (lambda: load_solver(tmp_path / "other"), "holds no pointer network"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            make()


def test_a_model_of_half_precision_can_be_kept(tmp_path):
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), MODEL)
    save_solver(Solver(half, "tour", 3, 5, 6), tmp_path / "n")
    again = load_solver(tmp_path / "n").model
    assert eqx.tree_equal(half, again)
