"""Levels, half-lives and needed frequencies on traces worked by hand; the increasing fit against brute force."""

import itertools
import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from latebloom.methods.forgetting import accumulation, knowledge


def trace(accuracy, present=None, frequency=None, step=None, **config):
    accuracy = np.asarray(accuracy, float)
    dims = ("seed", "step", "task")
    zero = np.zeros_like(accuracy)
    parts = {"accuracy": accuracy, "present": zero if present is None else present,
             "frequency": zero if frequency is None else frequency}  # fmt: skip
    return xr.Dataset(
        {name: (dims, np.asarray(values, float)) for name, values in parts.items()},
        {"step": np.arange(accuracy.shape[1]) if step is None else step, "seed": range(len(accuracy)),
         "task": range(accuracy.shape[2])},
        {"config": json.dumps(config)},
    )  # fmt: skip


def test_levels_and_classes():
    one = trace([[[0, 0], [0.2, 0.4], [0.6, 0.8], [1, 0.5]]], step=[0, 10, 20, 30])
    np.testing.assert_allclose(accumulation.level(one, 10, 20), 0.5)
    np.testing.assert_allclose(accumulation.level(one, 15, 30, [1]), 0.65)
    np.testing.assert_allclose(accumulation.by_class(one, 20, 30), [[0.8, 0.65]])
    with pytest.raises(ValueError, match="nothing was observed from step 11 to 19"):
        accumulation.level(one, 11, 19)
    with pytest.raises(ValueError, match="no 'present'"):
        accumulation.present_and_absent(one.drop_vars("present"), 0, 9)


def test_what_a_task_takes_from_the_others():
    here = [[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]]
    values = [[[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.0, 0.2, 0.7], [0.9, 0.7, 0.3]]]
    one = trace(values, present=here)
    np.testing.assert_allclose(
        accumulation.present_and_absent(one, 0, 3), [[4.0 / 5, 1.2 / 7]], rtol=1e-12
    )
    # By the classes of the next observation.
    found = accumulation.present_and_absent(one, 0, 3, shift=1)
    np.testing.assert_allclose(found, [[(0.1 + 0.1 + 0.0 + 0.2 + 0.9) / 5, 3.9 / 7]])


def test_half_lives_by_hand_and_bounds():
    course = np.array([0.9, 0.9, 0.9, 0.7, 0.4, 0.3, 0.9, 0.1])
    one = trace(np.stack([np.full(8, 0.2), course], axis=-1)[None], step=10 * np.arange(8))
    # 0.8 above chance; 0.5 lies between 0.7 and 0.4, two thirds of the way.
    found = accumulation.half_life(one, [1], 20, chance=0.1, before=3)
    np.testing.assert_allclose(found, 10 + 10 * 2 / 3)
    # Since step 25, from the last observation up to then.
    np.testing.assert_allclose(
        accumulation.half_life(one, [1], 25, 0.1, before=2), 15 - 10 / 3, rtol=1e-12
    )
    still = trace(np.full((1, 5, 2), 0.6))
    assert accumulation.half_life(still, [0], 2, 0.1) == 2
    assert np.isnan(accumulation.half_life(still, [0], 2, 0.6)).all()
    dead = trace(np.full((1, 5, 2), np.nan))
    assert np.isnan(accumulation.half_life(dead, [0], 2, 0.1)).all()
    for after in (-1, 4):
        with pytest.raises(ValueError, match="nothing was observed before, or after"):
            accumulation.half_life(still, [0], after, 0.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=7))
def test_the_increasing_fit_is_the_best_of_all_blocks(pairs):
    x, y = np.array(pairs, float).T
    fitted = accumulation.increasing(x, y)
    levels = np.unique(x)
    best, least = None, np.inf
    for cuts in itertools.product([False, True], repeat=len(levels) - 1):
        block = np.concatenate([[0], np.cumsum(cuts)]).astype(int)[np.searchsorted(levels, x)]
        means = np.array([y[block == b].mean() for b in range(block.max() + 1)])
        if (np.diff(means) >= 0).all() and ((y - means[block]) ** 2).sum() < least - 1e-9:
            best, least = means[block], ((y - means[block]) ** 2).sum()
    np.testing.assert_allclose(fitted, best, atol=1e-9)


def test_needed_frequencies_and_bad_columns():
    often, right = np.array([0.3, 0.01, 0.1, 0.03]), np.array([0.9, 0.2, 0.5, 0.6])
    assert accumulation.needed_frequency(often, right, 0.55) == 0.03  # 0.5 and 0.6 are pooled
    assert accumulation.needed_frequency(often, right, 0.56) == 0.3
    assert np.isnan(accumulation.needed_frequency(often, right, 0.95))
    for x, y, message in (([1, 2], [1], "as many"), ([], [], "at least one"), ([1, np.nan], [1, 2], "finite")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            accumulation.increasing(np.array(x), np.array(y))


def test_rank_correlations_say_nothing_where_nothing_varies():
    often = np.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 3]])
    right = np.array([[3.0, 5, 9], [1, 1, 1], [1, np.nan, 2]])
    np.testing.assert_allclose(accumulation.rank_correlation(often, right), [1, np.nan, np.nan])


def test_measures_of_a_study_by_hand():
    tasks, classes = 50, 4
    values = np.zeros((1, tasks + 1, classes))
    values[0, 1:21] = 0.3
    values[0, 21:26] = 0.65
    values[0, 26:] = [0.9, 0.7, 0.3, 0.3]
    here = np.zeros_like(values)
    here[..., 0] = 1
    often = np.broadcast_to([0.5, 0.3, 0.1, 0.02], values.shape)
    one = trace(values, here, often, step=3 * np.arange(tasks + 1), tasks=tasks, steps=3, classes=classes, count=2)  # fmt: skip
    assert knowledge.late(one) == pytest.approx(55)
    assert knowledge.rise(one) == pytest.approx(25)
    assert knowledge.passed(one) == pytest.approx(30)  # tasks 3 to 6
    assert knowledge.through(one) == pytest.approx((20 * 30 + 5 * 65 + 25 * 55) / 50)
    assert knowledge.taken(one) == pytest.approx(0)  # the first ten tasks
    assert knowledge.left(one) == pytest.approx(((0.7 + 0.6) / 3 - 0.25) / 0.65)
    # The last two had 0.4 above chance at tasks 20 to 25 (once 0.05), and 0.05 afterwards.
    assert knowledge.kept_after(0.1)(one) == pytest.approx(0.05 / ((5 * 0.4 + 0.05) / 6))
    had = (5 * 0.05 + 5 * 0.4) / 10
    assert knowledge.half_life(one) == pytest.approx((0.4 - had / 2) / 0.35)
    assert knowledge.rank(one) == pytest.approx(np.sqrt(0.9), abs=0.01)
    assert knowledge.rarest(one) == pytest.approx(30) and knowledge.commonest(one) == pytest.approx(
        90
    )
    assert knowledge.needed("a", "b")({"a": one, "b": one}) == pytest.approx(0.02)
    dim = trace(values * 0.1, here, often, step=3 * np.arange(tasks + 1), tasks=tasks, steps=3, classes=classes, count=2)  # fmt: skip
    assert knowledge.needed("a", "b")({"a": dim, "b": one}) == 1
    assert knowledge.chance(one) == 25
    assert knowledge.between(0.1, 0.3)(one) == pytest.approx(70)
    assert np.isnan(knowledge.between(0.3, 0.4)(one)).all()


def test_what_classes_keep_that_just_left_and_what_is_known_of_recent_ones():
    here = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], float)[None]
    known = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.1], [0.5, 0.9, 0.3], [0.4, 0.7, 0.2], [0.2, 0.4, 0.8]])[None]  # fmt: skip
    # Two tasks between observations; class 2 came once in between, unseen.
    times = np.array([[1, 0, 0], [2, 0, 0], [2, 1, 1], [2, 3, 1], [3, 3, 2]]) / np.array([1, 2, 4, 6, 8])[:, None]  # fmt: skip
    one = trace(known, here, times[None], step=5 * np.array([0, 2, 4, 6, 8]), tasks=8, steps=5, classes=4, count=1)  # fmt: skip
    found = knowledge.since_last(one).accuracy.values[0]
    np.testing.assert_allclose(found, [[0.9, 0, 0], [0.8, 0, 0], [0, 0.9, 0.3], [0, 0.7, 0], [0.2, 0, 0.8]])  # fmt: skip
    # From task 6.4 on there is one observation alone, from which nothing can leave.
    assert np.isnan(knowledge.soon(one)).all()
    long = trace(known, here, times[None], step=[0, 79, 80, 90, 100], tasks=100, steps=1, classes=4, count=1)  # fmt: skip
    assert knowledge.soon(long) == pytest.approx((0.4 - 0.25) / (0.7 - 0.25))
    assert knowledge.learned(long) == pytest.approx(100 * (0.9 + 0.7 + 0.8) / 3)
    dead = one.assign(accuracy=one.accuracy * np.nan)
    assert np.isnan(knowledge.since_last(dead).accuracy).all()
    # The forgetful learner of the last fifth knows classes 0 and 2 of the last observation.
    assert knowledge.needed("a", "a", forgetful=True)({"a": one}) == pytest.approx(0.25)


def test_a_fit_beats_what_an_optimiser_finds():
    rng = np.random.default_rng(3)
    x, y = np.arange(12.0), rng.normal(size=12)

    def loss(steps):
        return ((np.concatenate([steps[:1], steps[0] + np.cumsum(np.exp(steps[1:]))]) - y) ** 2).sum()  # fmt: skip

    found = minimize(loss, np.full(12, -2.0), options={"maxiter": 2000}).fun
    assert ((accumulation.increasing(x, y) - y) ** 2).sum() <= found + 1e-6
