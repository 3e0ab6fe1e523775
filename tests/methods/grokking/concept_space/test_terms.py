"""Terms on traces of two seeds, worked by hand."""

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

from latebloom.methods.grokking.concept_space import smooth, terms

STEPS = np.arange(0, 600, 100)


def trace(colour, size):
    """Two seeds whose unseen class 11 has these P(concept = 1), the second with them exchanged."""
    path = np.stack([np.stack([colour, size], 1), np.stack([size, colour], 1)])
    every = np.zeros((2, len(STEPS), 4, 2))
    every[:, :, 3] = path
    right = np.array([0.25, 0.5, 0.75, 0.125]) * np.ones((2, len(STEPS), 1))
    tried = np.stack([np.zeros((2, len(STEPS))), every[..., 3, 0]], axis=2)
    return xr.Dataset(
        {
            "probability": (("seed", "step", "class", "concept"), every),
            "accuracy": (("seed", "step", "class"), right),
            "over_prompt_accuracy": (("seed", "step", "half"), tried),
        },
        {"step": STEPS, "class": ["00", "01", "10", "11"], "concept": ["colour", "size"]},
    )


def test_paths_bend_to_what_is_ahead_and_turn_where_they_change_direction():
    first = trace([0, 0.5, 1, 1, 1, 1], [0, 0, 0, 0.3, 0.6, 1])
    x, y = gaussian_filter1d([[0, 0.5, 1, 1, 1, 1], [0, 0, 0, 0.3, 0.6, 1]], 1.5)
    area = np.trapezoid(x, y) - (x[0] + x[-1]) / 2 * (y[-1] - y[0])  # to the left, less the chord's
    np.testing.assert_allclose(terms.bend(first), [area, -area])
    assert area > 0.1
    assert terms.turn(first).tolist() == [200, 200]
    path = terms.target_path(first)
    assert path.shape == (2, 6, 2)
    np.testing.assert_allclose(path[0, :, 0], smooth(np.array([0, 0.5, 1, 1, 1, 1])))
    np.testing.assert_array_equal(path[1], path[0][:, ::-1])


def test_a_learning_time_that_never_comes_is_the_end_or_nothing():
    found = trace([0, 1, 1, 1, 1, 1], [0] * 6)
    line = terms.unseen("probability", "colour")
    assert terms.learned(line, 0.6)(found).tolist() == [100, 500]
    assert np.isnan(terms.learned(line, 0.6, never="nan")(found)).tolist() == [False, True]


def test_the_worst_class_is_one_that_was_seen_and_the_best_variant_is_taken_step_by_step():
    found = trace([0, 1, 1, 1, 1, 1], [0] * 6)
    assert (terms.worst_seen(found) == 0.25).all()
    assert terms.best_of("over_prompt_accuracy")(found).values[0].tolist() == [0, 1, 1, 1, 1, 1]
