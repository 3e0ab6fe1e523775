"""Accuracies and gradients around switches, on traces worked by hand."""

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.forgetting import switches
from latebloom.methods.forgetting.metrics import per_seed

ENDS = np.array([30, 70, 120])  # of tasks of 30, 40 and 50 updates, learned in the order 2, 0, 1
ORDER = np.array([2, 0, 1])


def trace():
    """Two seeds; a task falls by 0.4 ten updates after its end; both gradients are counters of updates since a switch."""
    steps = np.arange(ENDS[-1] + 1)
    place = np.searchsorted(ENDS, steps)
    accuracy = np.full((2, len(steps), 3), 0.9)
    for end, task in zip(ENDS[:-1], ORDER[:-1], strict=True):
        accuracy[:, end + 10, task] = 0.5
    since = steps - np.concatenate([[0], ENDS])[place]
    old = 10.0 + since
    return xr.Dataset(
        {
            "accuracy": (("seed", "step", "task"), accuracy),
            "learning": (("seed", "step"), np.stack([ORDER[place]] * 2)),
            "stability": (("seed", "step"), np.stack([old, 2 * old])),
            "plasticity": (("seed", "step"), np.stack([100.0 / np.maximum(since, 1)] * 2)),
        },
        {"seed": [0, 1], "step": steps, "task": [0, 1, 2]},
    )


def test_switches_are_laid_over_each_other_as_far_as_all_go():
    around = switches.aligned(trace())
    assert around.step.values.tolist() == list(range(-20, 41))  # the second task has 40 updates
    assert around.change.sel(step=[-5, 0, 9, 10, 11]).values[0] == pytest.approx([0, 0, 0, -0.4, 0])
    assert around.stability.sel(step=[1, 40]).values.tolist() == [[11, 50], [22, 100]]
    # The last of tasks of 30 and 40 updates.
    assert around.stability.sel(step=0).values[0] == (40 + 50) / 2
    short = switches.aligned(trace(), before=3, after=5)
    xr.testing.assert_equal(short, around.sel(step=slice(-3, 5)))


def test_ratios_and_rises_against_the_counters():
    t = trace()
    ratio = (11 + 12 + 13) / (100 + 50 + 100 / 3)
    np.testing.assert_allclose(switches.gradient_ratio(t, 1, 3), [ratio, 2 * ratio])
    beyond = switches.gradient_ratio(t, 39, 60)  # a task has 40 updates at least
    np.testing.assert_allclose(beyond[0], (49 + 50) / (100 / 39 + 100 / 40))
    late = np.mean([np.arange(n - 8, n + 1).mean() + 10 for n in (40, 50)])
    new = [np.mean(100 / np.arange(n - 8, n + 1)) for n in (40, 50)]
    wanted = np.mean(
        [(np.arange(n - 8, n + 1).mean() + 10) / w for n, w in zip((40, 50), new, strict=True)]
    )
    assert late > 40
    np.testing.assert_allclose(switches.late_gradient_ratio(t)[0], wanted)
    settled = [np.mean(100 / np.arange(n - 9, n + 1)) / 100 for n in (30, 40)]
    np.testing.assert_allclose(switches.unsettled(t)[0], np.mean(settled))
    np.testing.assert_allclose(switches.rise(t, 20), [11 / 30] * 2)
    np.testing.assert_allclose(switches.rise(t, 20, late=True)[0], np.mean([30 / 49, 40 / 59]))


def test_a_seed_that_diverged_says_nothing_and_others_keep_their_numbers():
    t = trace().assign_coords(diverged_at=("seed", [-1, 50]))
    t["stability"][1, 50:] = np.nan
    t["learning"][1, 50:] = 0
    found = switches.rise(t, 20)
    np.testing.assert_allclose(found, [11 / 30, np.nan])
    change = switches.aligned(t).change.values
    assert np.isfinite(change[0]).all() and np.isnan(change[1]).all()
    dead = t.assign_coords(diverged_at=("seed", [3, 50]))
    assert np.isnan(per_seed(switches.rise)(dead)).tolist() == [True, True]
    around = switches.aligned(dead)
    assert around.change.shape == (2, 81) and np.isnan(around.stability).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.isel(step=slice(None, None, 2)), "every update observed"),
        (lambda t: t.drop_vars("stability"), "tell=True"),
    ],
)
def test_what_cannot_be_laid_over_each_other_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        switches.rise(change(trace()))
