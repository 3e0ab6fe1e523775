import numpy as np
import pytest

from latebloom.methods.grokking.local_complexity_phases import (
    find_phases,
    first_step_reaching,
    observation_steps,
)


def test_three_phases_of_a_hand_made_curve():
    phases = find_phases([5, 3, 1, 2, 6, 9, 4, 2], smoothing=0)
    assert (phases.minimum, phases.maximum) == (2, 5)
    assert (phases.first_descent, phases.ascent, phases.second_descent) == (4, 8, 7)
    assert phases.range == 8 and phases.weakest == 7


@pytest.mark.parametrize("curve", [np.arange(8.0), -np.arange(8.0), np.ones(8)])
def test_monotone_curves_have_no_phases(curve):
    assert find_phases(curve).weakest == 0


def test_ascent_is_the_largest_rise_not_the_highest_value():
    phases = find_phases([20, 4, 3, 8, 2], smoothing=0)
    assert (phases.minimum, phases.maximum, phases.ascent, phases.second_descent) == (2, 3, 5, 6)


def test_smoothing_takes_out_a_single_spike():
    curve = np.linspace(10, 0, 30)
    curve[15] += 1.0
    assert find_phases(curve, smoothing=0).weakest > 0.5
    assert find_phases(curve, smoothing=3).weakest < 0.05


@pytest.mark.parametrize("curve", [[1.0, 2.0], [1.0, np.nan, 2.0], np.zeros((3, 3))])
def test_bad_curves_are_refused(curve):
    with pytest.raises(ValueError, match="curve must be"):
        find_phases(curve)


def test_first_step_reaching():
    steps = np.array([0, 1, 10, 100])
    assert first_step_reaching(steps, np.array([0.0, 0.5, 0.95, 1.0])) == 10
    assert first_step_reaching(steps, np.array([1.0, 1.0, 1.0, 1.0])) == 1
    assert np.isnan(first_step_reaching(steps, np.zeros(4)))


def test_schedule_of_the_paper():
    steps = observation_steps(1_000_000)
    expected = [*range(30), *range(30, 150, 10), *range(200, 1000, 100), *range(1000, 10_000, 1000)]
    expected += [*range(6667, 1_000_000, 6667), 1_000_000]
    assert steps.tolist() == sorted(expected)
    assert observation_steps(5).tolist() == [0, 1, 2, 3, 4, 5]
