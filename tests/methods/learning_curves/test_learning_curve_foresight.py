"""Forecasts held to the end of a curve, stops, and distorted copies: power laws worked by hand."""

import numpy as np
import pytest

from latebloom.methods.learning_curves import LearningCurve, fit, learning_trace
from latebloom.methods.learning_curves import foresight as f
from latebloom.methods.learning_curves.distortion import (
    as_measured,
    distorted,
    errors_from_quarter,
    levels_needed,
    robustness_rates,
)
from latebloom.methods.learning_curves.forecasts import FORECASTS
from latebloom.methods.learning_curves.metrics import mean_of_some
from latebloom.methods.learning_curves.traces import NEVER, Frame

SIZES = np.concatenate([np.arange(5000.0, 101_000, 5000), np.arange(150_000, 801_000, 50_000)])


def power(top=96.0, a=120.0, b=0.3):
    return top - a * SIZES**-b


def noisy(seed=0):
    return power() + np.random.default_rng(seed).normal(0, 0.05, len(SIZES))


def test_early_and_late_sizes_of_the_papers_scale():
    assert SIZES[f.early(SIZES) - 1] == 100_000 and SIZES[f.early(SIZES, 1 / 4) - 1] == 200_000
    assert SIZES[f.late(SIZES)][0] == 300_000 and f.late(SIZES).sum() == 11
    run_on = SIZES + np.linspace(0, 30, len(SIZES))  # sentences run on
    assert f.early(run_on) == f.early(SIZES) and f.late(run_on).sum() == 11


def test_a_trace_is_that_of_its_frame_and_kept():
    scores = np.stack([noisy(0), noisy(1)])
    found = f.trace_of(SIZES, scores, anchored=False)
    wanted = learning_trace(SIZES, scores, frame=Frame(0.2 / 5000), anchored=False)
    np.testing.assert_array_equal(found.backbone, wanted.backbone)
    assert f.trace_of(SIZES, scores.copy(), anchored=False) is found
    assert f.trace_of(SIZES, scores) is not found


def test_exact_laws_are_foretold_and_their_asymptotes_found():
    end = power()[f.late(SIZES)]
    np.testing.assert_allclose(f.foretold(SIZES, power()), end, atol=0.02)
    np.testing.assert_allclose(f.foretold(SIZES, power(), "last"), power()[19])
    late = np.where(SIZES > 100_000, 0.0, power())  # what comes later is not looked at
    np.testing.assert_array_equal(f.foretold(SIZES, late), f.foretold(SIZES, power()))
    for anchored in (True, False):
        assert f.asymptote(SIZES, power(), anchored=anchored) == pytest.approx(96, abs=0.1)


def test_intervals_hold_the_late_scores_that_they_hold():
    scores = noisy()
    _, low, high = LearningCurve(upper=100.0).fit(SIZES[:20], scores[:20]).forecast(SIZES[-11:])
    assert f.held_by_interval(SIZES, scores) == np.mean(
        (low <= scores[-11:]) & (scores[-11:] <= high)
    )
    outside = scores.copy()
    outside[-3:] = 0.0
    assert f.held_by_interval(SIZES, outside) <= 8 / 11


def test_a_law_beats_the_last_score_on_a_law_and_ties_on_a_flat_curve():
    rows = np.stack([power(), np.full(len(SIZES), 80.0), np.where(SIZES < 5e5, power(), 80.0)])
    rows[2, -1] = rows[2, 16]  # it ends as high as at half of the observations
    np.testing.assert_array_equal(f.beats(SIZES, rows, "last"), [1, 0.5, 0])


def test_errors_at_the_end_are_of_the_trends_before_it():
    assert np.nanmax(f.errors_at_end(SIZES, power())) < 0.1 and np.isnan(f.errors_at_end(SIZES, power())[-1])  # fmt: skip
    scores = noisy()
    third = learning_trace(SIZES, scores, frame=Frame(0.2 / 5000)).trends[0, 2](SIZES[-1:])[0]
    assert f.errors_at_end(SIZES, scores)[2] == pytest.approx(abs(third - scores[-1]))


def test_stops_are_where_little_is_said_to_be_left():
    chi = 120 * SIZES**-0.3
    stop = f.stop_at(SIZES, power(), 4.0)
    assert stop == max(np.argmax(chi <= 4), 8)  # the working level is known from the ninth on
    assert f.stop_at(SIZES, power(), 0.01) == NEVER
    assert f.stops_or_last([(SIZES, power())] * 2, 0.01) == [33, 33]
    assert f.share_within(SIZES, power(), 4.0) == 1
    fallen = power() - 30 * (np.arange(len(SIZES)) > len(SIZES) - 5)
    assert f.share_within(SIZES, fallen, 4.0) == pytest.approx(1 - 4 / (33 - stop))
    assert f.share_within(SIZES, fallen, 4.0, waiting=False) == pytest.approx(1 - 4 / 31)
    assert np.isnan(f.share_within(SIZES, power(), 0.01))


@pytest.mark.parametrize("rule", ["gain", "change"])
def test_rules_stop_near_the_same_mean_size(rule):
    curves = [(SIZES, power()), (SIZES, power(97, 300, 0.4))]
    wanted = [10, 14]
    stops = f.stops_by_rule(curves, rule, wanted)
    off = []
    for least in np.geomspace(1e-4, 3, 60):
        places = []
        for sizes, scores in curves:
            step = np.diff(scores) / (np.diff(sizes) / 1000 if rule == "gain" else 1)
            small = np.abs(step) < least
            places.append(int(small.argmax()) + 1 if small.any() else 33)
        off.append((abs(SIZES[places].mean() - SIZES[wanted].mean()), places))
    assert stops == min(off, key=lambda pair: pair[0])[1]


def test_distorted_copies_are_lower_in_a_twentieth():
    copies = distorted(SIZES, power(), 0)
    off = copies.scores - copies.true
    assert off.shape == (10, 34) and set(np.round(off, 9).ravel()) == {0, -3}
    assert ((off < 0).sum(1) == 2).all()
    assert (distorted(SIZES, power(), 1).scores != copies.scores).any()
    few = distorted(SIZES[:5], power()[:5], 0, draws=2, share=0.05, drop=1.0)
    np.testing.assert_allclose((few.scores - few.true).sum(1), [-1, -1])


@pytest.mark.parametrize("anchored", [True, False])
def test_measures_of_copies_by_hand(anchored):
    exact = as_measured(SIZES, power())
    chi = 120 * SIZES**-0.3
    assert levels_needed(exact, anchored=anchored) == (np.argmax(chi <= 2) + 1 if (chi <= 2).any() else 34)  # fmt: skip
    copies = distorted(SIZES, noisy(), 0)
    rates = robustness_rates(copies, anchored=anchored)
    trace = f.trace_of(SIZES, copies.scores, anchored=anchored)
    for rate, row, start, stop in zip(rates, trace.backbone, trace.working, trace.stop(2.0), strict=True):  # fmt: skip
        steps = np.diff(row[start : None if stop == NEVER else stop + 1])
        assert start == NEVER or rate == pytest.approx(100 * np.mean(steps <= 0))


def test_errors_from_a_quarter_are_of_what_was_not_distorted():
    copies = distorted(SIZES, power(), 0, draws=1)
    seen, at = SIZES <= 200_000, SIZES >= 300_000
    alone = fit(SIZES[seen], copies.scores[0, seen])(SIZES[at])
    wanted = np.mean(100 * np.abs(alone - power()[at]) / power()[at])
    assert errors_from_quarter(copies, anchored=False) == pytest.approx(wanted, rel=1e-6)


def test_every_forecast_can_be_asked_for():
    for how in FORECASTS:
        assert f.foretold(SIZES, noisy(), how).shape == (11,)


def test_orders_of_two_laws_and_what_they_gain_after_a_place():
    pair = [(SIZES, power(b=0.33)), (SIZES, power(97.2, 114, 0.29))]  # they cross beyond 100,000
    assert f.order_right(pair) == 100 and f.order_right(pair, "last") == 0
    assert f.order_right(pair, "last", margin=50) == 100
    gains = [y[-1] - y[3] for _, y in pair]
    assert f.spread_after(pair, [3, 3]) == pytest.approx(np.ptp(gains) / 2)


def test_means_leave_out_what_says_nothing():
    rows = np.array([[1, np.nan, np.nan], [3, 5, np.nan]])
    np.testing.assert_array_equal(mean_of_some(*rows), [2, 5, np.nan])
