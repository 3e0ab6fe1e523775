"""Terms on one curve in two layers, against the phases of it."""

import numpy as np
import xarray as xr

from latebloom.methods.grokking import local_complexity_terms as terms
from latebloom.methods.grokking.local_complexity_phases import find_phases

STEPS = np.array([0, 1, 10, 100, 1000, 10_000, 20_000, 40_000])
CURVE = np.array([6.0, 3, 1, 2, 6, 9, 4, 2])


def trace(half_width):
    """Two seeds, the second of which diverged; at the smaller radius stands nonsense."""
    counts = np.full((2, 8, 1, 2, 2), 99.0)
    counts[:, :, 0, 1] = CURVE[:, None] * (0.25, 0.75)
    counts[1, 3:] = np.nan
    dims = ("seed", "step", "points", "radius", "layer")
    width = np.full(counts.shape[:-1], half_width)
    return xr.Dataset(
        {"local_complexity": (dims, counts), "local_complexity_interval": (dims[:-1], width)},
        {"step": STEPS, "points": ["train"], "radius": [0.05, 0.6]},
    )


def test_phases_of_the_sum_over_layers_at_the_nearest_radius():
    found, wide = find_phases(CURVE), trace(1.0)
    np.testing.assert_allclose(terms.complexity("train")(wide)[0], CURVE)
    np.testing.assert_array_equal(terms.end_of_ascent(wide), [STEPS[found.maximum], np.nan])
    np.testing.assert_allclose(terms.weakest(wide), [found.weakest, np.nan])
    # The larger of three half widths and of a twentieth of the range.
    np.testing.assert_allclose(terms.over_threshold("train")(wide), [found.weakest / 3, np.nan])
    sure = terms.over_threshold("train")(trace(0.0))
    np.testing.assert_allclose(sure, [20 * found.weakest / found.range, np.nan])
