"""The worst cases: oracles are subgradients of the stated size, and runs match plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.methods.schedules.worst_case import (
    SCHEDULES,
    Drifts,
    Planes,
    Staircase,
    WorstCase,
    problems,
)

T = 100


@pytest.fixture(scope="module")
def trace():
    return unfold(WorstCase(T, repeats=4), seeds=4, steps=T, every=T, progress=False)


def drawn(problem, seed=0):
    return problem.start(jax.random.key(seed), T)


def mean_answer(problem, data, x, count=2000):
    keys = jax.random.split(jax.random.key(7), count)
    answers = np.asarray(jax.vmap(lambda k: problem.oracle(data, x, k))(keys), float)
    return answers.mean(axis=0), answers


@pytest.mark.parametrize("problem", [Planes(), Staircase()])
@settings(max_examples=5)
@given(seed=st.integers(0, 100))
def test_answers_are_subgradients_on_average(problem, seed):
    data, start = drawn(problem)
    rng = np.random.default_rng(seed)
    x = start + jnp.asarray(0.3 * rng.normal(size=start.shape), jnp.float32)
    y = start + jnp.asarray(0.3 * rng.normal(size=start.shape), jnp.float32)
    g, _ = mean_answer(problem, data, x)
    here, there = problem.excess(data, x)[0], problem.excess(data, y)[0]
    assert there >= here + g @ np.asarray(y - x) - 0.1


@pytest.mark.parametrize("problem", problems(T))
def test_answers_have_mean_square_one_at_most_and_starts_are_one_away(problem):
    data, start = drawn(problem)
    _, answers = mean_answer(problem, data, start)
    squares = answers**2 if isinstance(problem, Drifts) else (answers**2).sum(axis=1)
    assert (squares.mean(axis=0) < 1.03).all()
    if isinstance(problem, Drifts):
        np.testing.assert_allclose(start, 1.0)
    elif isinstance(problem, Planes):
        assert float(jnp.linalg.norm(start)) == pytest.approx(1.0, abs=1e-5)


def test_drifts_lean_towards_zero_by_their_slope():
    problem = Drifts()
    slopes, start = drawn(problem)
    g, _ = mean_answer(problem, slopes, -start, 20_000)
    np.testing.assert_allclose(g, -slopes, atol=0.03)
    np.testing.assert_allclose(problem.excess(slopes, 2 * start), 2 * slopes)


def test_the_staircase_is_a_maximum_of_planes_with_a_bottom_in_the_unit_ball():
    problem = Staircase()
    (climb, fall, depth), start = drawn(problem)
    h = np.tril(np.tile(np.asarray(climb), (T + 1, 1)), -1) - float(fall) * np.eye(T + 1)
    assert (np.linalg.norm(h, axis=1) <= 1 + 1e-6).all()
    x = np.random.default_rng(0).normal(size=T + 1).astype(np.float32)
    assert float(problem.excess((climb, fall, depth), x)[0]) == pytest.approx(
        max((h @ x).max() + float(depth), 0), abs=1e-4
    )
    u = np.linalg.solve(h, -np.ones(T + 1))
    assert float(depth) == pytest.approx(1 / np.linalg.norm(u), rel=1e-5)
    np.testing.assert_allclose(problem.excess((climb, fall, depth), u * float(depth)), 0, atol=1e-6)
    assert float(problem.excess((climb, fall, depth), start)[0]) == pytest.approx(float(depth))


def test_equal_steps_climb_the_staircase_one_plane_at_a_time(trace):
    (climb, fall, depth), x = drawn(Staircase())
    h = np.tril(np.tile(np.asarray(climb, float), (T + 1, 1)), -1) - float(fall) * np.eye(T + 1)
    z = np.zeros(T + 1)
    for t in range(T):
        assert (h @ z)[t] >= (h @ z).max() - 1e-9
        z = z - h[t] / np.sqrt(T)
    expected = ((h @ z).max() + float(depth)) * np.sqrt(T)
    found = trace.ratio.isel(seed=0, step=-1, scale=2).sel(schedule="flat", instance="staircase")
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_bound_holds_and_the_axes_are_named(trace):
    assert trace.schedule.values.tolist() == list(SCHEDULES)
    last = trace.ratio.isel(step=-1).mean("seed")
    linear = last.sel(schedule="linear").isel(scale=2)
    assert float(linear.max()) < 1.0
    assert float(last.sel(schedule="flat").max("instance").min()) > float(linear.max())
    # |x| seen exactly, by steps that shrink to nothing: no more is left than the last few steps.
    assert float(linear.sel(instance="absolute")) < 0.2


def test_horizons_that_make_no_sense():
    with pytest.raises(ValueError, match="steps must be"):
        WorstCase(1)
    with pytest.raises(ValueError, match="repeats"):
        WorstCase(10, repeats=0)
    assert [type(p) for p in problems(5000)] == [Drifts, Planes]
