"""Updates to a criterion, by hand."""

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.forgetting.facilitation import (
    later_updates,
    slope_of_updates,
    updates_to_criterion,
)


def seen(first, second):
    """Accuracies of two tasks by step."""
    steps = sorted({*first, *second})
    values = np.array([[first.get(s, 0.1), second.get(s, np.nan)] for s in steps])
    return xr.Dataset({"accuracy": (("seed", "step", "task"), values[None])}, {"step": steps})


# The first task reaches 0.8 after its 8 updates, so that 0.68 is the criterion.
FIRST = {0: 0.1, 2: 0.2, 4: 0.6, 8: 0.8, 12: 0.8}


def test_between_two_evaluations_it_is_on_a_line():
    second = {12: 0.3, 14: 0.64, 16: 0.72, 20: 0.6, 24: 0.9}
    found = updates_to_criterion(seen(FIRST, second), [0, 12], 8)
    np.testing.assert_allclose(found, [[4 + 4 * 0.08 / 0.2, 2 + 2 * 0.5]])
    found = updates_to_criterion(seen(FIRST, second), [0, 12], 8, share=0.5)
    np.testing.assert_allclose(
        found, [[2 + 2 * 0.2 / 0.4, 2 * 0.1 / 0.34 if 2 * 0.1 / 0.34 > 1 else 1]]
    )


def test_at_once_counts_as_one_and_never_as_all():
    known, lost = {12: 0.7, 16: 0.9, 20: 0.9}, {12: 0.1, 16: 0.2, 20: 0.3}
    assert updates_to_criterion(seen(FIRST, known), [0, 12], 8)[0, 1] == 1
    assert updates_to_criterion(seen(FIRST, lost), [0, 12], 8)[0, 1] == 8


def test_a_seed_that_diverged_is_nan():
    trace = seen(FIRST, {12: 0.7, 16: 0.9, 20: 0.9})
    values = np.concatenate(
        [trace.accuracy.values, np.full((1, *trace.accuracy.shape[1:]), np.nan)]
    )
    both = xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values)},
        {"step": trace.step, "diverged_at": ("seed", [-1, 3])},
    )
    found = updates_to_criterion(both, [0, 12], 8)
    np.testing.assert_allclose(found[0], updates_to_criterion(trace, [0, 12], 8)[0])
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("starts", "within", "said"),
    [
        ([0], 8, "one step for each of the 2 tasks"),
        ([0, 12], 7, "evaluated at step 7"),
        ([0, 8], 8, "task 1 must be evaluated from step 8"),
    ],
)
def test_traces_that_cannot_say(starts, within, said):
    with pytest.raises(ValueError, match=said):
        updates_to_criterion(seen(FIRST, {12: 0.3, 20: 0.6}), starts, within)


def test_slopes_and_later_updates_by_hand_and_a_seed_without():
    updates = np.exp([[1.0, 2, 3, 4], [4.0, 4, 2, 2], [np.nan] * 4])
    np.testing.assert_allclose(slope_of_updates(updates), [1, -0.8, np.nan])
    np.testing.assert_allclose(later_updates(updates), [3, -2, np.nan])
    assert np.isnan(slope_of_updates(updates[2:])).all()
