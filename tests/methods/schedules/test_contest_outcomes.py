"""What contests came to: better entries, norms of pilots, and intervals over sets and seeds."""

import numpy as np
import pytest
import xarray as xr

from latebloom.methods.schedules.contest_outcomes import pilot_norms, tuned, two_way_interval
from latebloom.methods.schedules.refinement import made_up_norms

CELLS = ["linear", "linear+warm-up", "cosine", "cosine+warm-up", "refined"]


def test_a_family_is_represented_by_what_tuned_better():
    lowest = np.array([3.0, 2, 2, 3, 1])
    losses = np.broadcast_to(lowest[:, None] + [4, 0], (2, 1, len(CELLS), 2))
    dims = ("seed", "step", "cell", "tried_peak")
    trace = xr.Dataset({"tuning_loss": (dims, losses)}, {"cell": CELLS})
    found = {family: tuned(trace, family) for family in ("linear", "cosine", "refined")}
    assert found == {"linear": "linear+warm-up", "cosine": "cosine", "refined": "refined"}


def test_norms_of_the_pilot_are_the_first_half_of_the_contest():
    norms = np.arange(2 * 3 * 8 * 2.0).reshape(2, 3, 8, 2)  # [seed, step, iteration, recorded]
    trace = xr.Dataset({"gradient_norm": (("seed", "step", "iteration", "recorded"), norms)})
    np.testing.assert_array_equal(pilot_norms(trace), norms[:, -1, :4, 0])


def test_the_interval_over_sets_and_seeds_is_wider_than_over_seeds():
    rows = np.repeat([[-1.0], [1.0]], 5, axis=1)
    assert two_way_interval(rows).tolist() == [-1.0, 1.0]


def test_the_interval_covers_the_mean_of_all_sets():
    """Sets differ by 1, seeds by 0.5: the mean of all sets, 0, lies in nine intervals of ten."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        rows = rng.normal(size=(12, 1)) + 0.5 * rng.normal(size=(12, 6))
        low, high = two_way_interval(rows, draws=500, level=0.9)
        hits.append(low <= 0 <= high)
    assert np.mean(hits) == pytest.approx(0.88, abs=0.06)


def test_made_up_norms_start_where_the_paper_says():
    constant, early, rising, falling = made_up_norms().values()
    assert np.ptp(constant) == 0 and early[-1] == pytest.approx(1.0)
    assert rising[-1] > 1.9 and falling[-1] < 0.72 and early[0] > 3
