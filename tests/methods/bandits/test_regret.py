"""Shapes of regret against curves made of them."""

import numpy as np

from latebloom.methods.bandits.regret import log_over_root


def test_logs_and_roots_are_told_apart():
    t = np.array([50.0, 100, 200, 400, 800])
    noise = 0.01 * np.random.default_rng(0).normal(size=5)
    logs, roots = 3 * np.log(t) + 2 + noise, 3 * np.sqrt(t) - 1 + noise
    found = log_over_root(np.stack([logs, roots]), t)
    # What is left of a line through (shape, regret), by NumPy's own fit.
    left = [np.polyfit(f(t), logs, 1, full=True)[1][0] for f in (np.sqrt, np.log)]
    np.testing.assert_allclose(found[0], np.log(left[0] / left[1]), rtol=1e-6)
    assert found[0] > 3 and found[1] < -3
