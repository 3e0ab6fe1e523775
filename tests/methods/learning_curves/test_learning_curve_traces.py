"""Levels, anchoring and the stop, on traces worked by hand; metrics by brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.learning_curves import (
    Frame,
    fit,
    learning_trace,
    mape,
    percentage_error,
    reliability,
    robustness,
)
from latebloom.methods.learning_curves.traces import NEVER, first, prediction_level, working_level

SIZES = np.arange(5000.0, 105_000, 5000)


def noisy(runs, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return 96 - 120 * SIZES**-0.3 + rng.normal(0, noise, (runs, len(SIZES)))


def test_the_working_level_by_hand():
    sizes = np.arange(1.0, 11)  # levels at sizes 3..10
    backbone = np.array([
        [120, 110, 105, 104.9, 104.8, 104.7, 99.0, 98.9],
        [120, 119.95, 119.9, 119.85, 99.9, 99.85, 99.8, 99.75],
        [120, 110, 100, 90, 80, 70, 60, 50],
    ])  # fmt: skip
    frame = Frame(verticality=0.2, lookahead=1)
    working, known = working_level(sizes, backbone, frame)
    assert working.tolist() == [2, 0, NEVER] and known.tolist() == [4, 2, NEVER]
    longer = Frame(verticality=0.2, lookahead=2)
    assert working_level(sizes, backbone, longer)[0].tolist() == [2, 0, NEVER]
    longest = Frame(verticality=0.2, lookahead=3)
    assert working_level(sizes, backbone, longest)[0].tolist() == [NEVER] * 3
    assert prediction_level(backbone, working, frame).tolist() == [6, 4, NEVER]
    short = working_level(sizes[:4], backbone[:, :2], frame)
    assert short[0].tolist() == [NEVER] * 3 and short[1].tolist() == [NEVER] * 3


def test_an_asymptote_at_the_bound_of_the_search_has_not_settled():
    sizes = np.arange(1.0, 11)
    backbone = np.array([[150, 150, 150, 150, 120, 119.9, 119.8, 119.7]])
    frame = Frame(verticality=0.2, lookahead=1)
    assert working_level(sizes, backbone, frame)[0].tolist() == [4]
    assert working_level(sizes, backbone, frame, highest=151.0)[0].tolist() == [0]


def test_an_anchor_does_not_hold_a_slow_curve_at_the_bound_of_the_search():
    # y = 99 - 90 x^-0.15: the first asymptotes lie at 150 %, whatever is measured.
    sizes, rng = np.geomspace(500, 20_000, 12), np.random.default_rng(0)
    scores = 99 - 90 * sizes**-0.15 + rng.normal(0, 0.1, (40, 12))
    trace = learning_trace(sizes, scores, frame=Frame(0.2 / np.median(np.diff(sizes))))
    for run in np.flatnonzero(trace.working != NEVER):
        assert trace.backbone[run, trace.working[run]] < 150
    free = learning_trace(sizes, scores, anchored=False)
    end = np.array([40_000.0])
    off = [np.abs(t.trends[:, -1](end)[:, 0] - (99 - 90 * end**-0.15)) for t in (trace, free)]
    assert off[0].max() < off[1].max() + 0.05


def test_slowdown_takes_a_root_and_steps_count_by_their_length():
    assert Frame(verticality=0.01, slowdown=2).steepest == pytest.approx(0.1)
    backbone = np.array([[100.0, 99.7, 99.4]])
    far, near = np.array([1.0, 2, 3, 13, 23]), np.array([1.0, 2, 3, 4, 5])
    frame = Frame(verticality=0.05, lookahead=1)
    assert working_level(far, backbone, frame)[0][0] == 0
    assert working_level(near, backbone, frame)[0][0] == NEVER


def test_every_level_is_a_fit_to_what_it_saw():
    scores = noisy(2)
    trace = learning_trace(SIZES, scores, anchored=False)
    assert trace.backbone.shape == (2, len(SIZES) - 2)
    for place in (0, 5, 17):
        alone = fit(SIZES[: place + 3], scores[:, : place + 3])
        np.testing.assert_allclose(trace.backbone[:, place], alone.c, rtol=1e-9)
        chi = alone.c - alone(SIZES[place + 2 : place + 3])[:, 0]
        np.testing.assert_allclose(trace.convergence[:, place], chi, rtol=1e-6)


def test_anchors_are_the_asymptotes_before():
    scores = noisy(3)
    frame = Frame(verticality=2e-4, lookahead=2, anchor_weight=1.5)
    free = learning_trace(SIZES, scores, frame=frame, anchored=False)
    trace = learning_trace(SIZES, scores, frame=frame)
    np.testing.assert_array_equal(trace.working, free.working)
    for run, working in enumerate(trace.working):
        assert 0 <= working < 12
        np.testing.assert_array_equal(
            trace.backbone[run, : working + 1], free.backbone[run, : working + 1]
        )
        previous = free.backbone[run, working]
        for place in range(working + 1, trace.backbone.shape[1]):
            level = place + 3
            alone = fit(SIZES[:level], scores[run, :level], anchor=previous, anchor_weight=1.5)
            assert trace.backbone[run, place] == pytest.approx(float(alone.c), rel=1e-9)
            previous = alone.c
    steps = [np.abs(np.diff(t.backbone[:, 12:])).sum() for t in (trace, free)]
    assert steps[0] < steps[1]


def test_without_a_working_level_nothing_is_anchored_or_stopped():
    scores = noisy(2, 1.0)
    frame = Frame(verticality=1e-12)
    trace = learning_trace(SIZES, scores, frame=frame)
    free = learning_trace(SIZES, scores, frame=frame, anchored=False)
    np.testing.assert_array_equal(trace.backbone, free.backbone)
    assert (trace.stop(1e6) == NEVER).all() and (trace.prediction == NEVER).all()


def test_the_stop_waits_for_levels_and_tau():
    exact = 96 - 120 * SIZES[None] ** -0.3
    trace = learning_trace(SIZES, exact, frame=Frame(lookahead=3))
    assert trace.working[0] == 0 and trace.known[0] == 4 and trace.prediction[0] == 0
    chi = 120 * SIZES**-0.3  # what is really to be gained
    np.testing.assert_allclose(trace.convergence[0], chi[2:], rtol=1e-3)
    for tau in (4.0, 4.5, 5.0, 50.0):
        want = max(4, int(np.argmax(chi[2:] <= tau)))
        assert trace.stop(tau)[0] == want
    assert trace.stop(3.0)[0] == NEVER
    later = np.array([2e5, 1e6, 1e9])
    gone = trace.trends[0, trace.stop(4.5)[0]](later) - exact[0, trace.stop(4.5)[0] + 2]
    assert (gone <= 4.5).all()


@given(st.integers(0, 2**31), st.floats(0.01, 1.0), st.integers(0, 6))
@settings(max_examples=15)
def test_levels_come_in_order(seed, noise, lookahead):
    trace = learning_trace(SIZES, noisy(3, noise, seed), frame=Frame(1e-4, lookahead=lookahead))
    for working, prediction, known in zip(
        trace.working, trace.prediction, trace.known, strict=True
    ):
        assert (working == NEVER) == (known == NEVER)
        assert prediction == NEVER or prediction >= working
        assert working == NEVER or known == working + lookahead + 1
    early, late = trace.stop(6.0), trace.stop(3.0)
    assert all(e <= l or l == NEVER for e, l in zip(early, late, strict=True))


def test_missing_observations_leave_a_trace_in_place():
    scores = noisy(1)
    scores[0, 7] = np.nan
    trace = learning_trace(SIZES, scores, anchored=False)
    assert np.isfinite(trace.backbone).all()
    assert trace.backbone[0, 5] == trace.backbone[0, 4]  # that level saw nothing new


def test_traces_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="a trend needs 3 sizes, and there are 2"):
        learning_trace(SIZES[:2], np.ones(2))
    with pytest.raises(ValueError, match="sizes must increase"):
        learning_trace(SIZES[::-1], np.ones(len(SIZES)))
    with pytest.raises(ValueError, match="slowdown at least 1, not 4e-05 and 0.5"):
        Frame(slowdown=0.5)
    with pytest.raises(ValueError, match="must be 0 or more"):
        Frame(lookahead=-1)


def test_first_is_the_first_or_never():
    assert first(np.array([[False, True, True], [False] * 3])).tolist() == [1, NEVER]


def test_percentage_errors_by_hand():
    np.testing.assert_allclose(
        percentage_error(np.array([99, 52.0]), np.array([100, 50.0])), [1, 4]
    )
    assert mape(np.array([99, 52.0]), np.array([100, 50.0])) == pytest.approx(2.5)


@given(st.integers(0, 2**31), st.floats(0, 1.0))
@settings(max_examples=30)
def test_reliability_is_counting_pairs(seed, margin):
    rng = np.random.default_rng(seed)
    said, real = rng.normal(size=(2, 4, 6))
    right = total = 0
    for level in range(6):
        for i, j in itertools.combinations(range(4), 2):
            gap = real[i, level] - real[j, level]
            total += 1
            right += abs(gap) <= margin or (said[i, level] > said[j, level]) == (gap > 0)
    assert reliability(said, real, margin) == pytest.approx(100 * right / total)


def test_reliability_of_the_truth_is_complete():
    real = np.random.default_rng(0).normal(size=(3, 5, 4))
    np.testing.assert_array_equal(reliability(real, real), 100)
    np.testing.assert_array_equal(reliability(-real, real), 0)
    with pytest.raises(ValueError, match="at least two"):
        reliability(real[:, :1], real[:, :1])


def test_robustness_counts_steps_that_do_not_go_up():
    backbone = np.array([120, 100, 101, 99, 99, 98, 98.5])
    assert robustness(backbone, 1, 5) == pytest.approx(75)  # +1, -2, 0, -1
    assert robustness(backbone, 0, 6) == pytest.approx(100 * 4 / 6)
    assert np.isnan(robustness(backbone, 3, 3))
