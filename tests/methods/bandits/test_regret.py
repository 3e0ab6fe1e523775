"""Shapes of regret against curves made of them."""

import numpy as np

from latebloom.methods.bandits.regret import log_over_root, regret_exponent


def test_logs_and_roots_are_told_apart():
    t = np.array([50.0, 100, 200, 400, 800])
    noise = 0.01 * np.random.default_rng(0).normal(size=5)
    logs, roots = 3 * np.log(t) + 2 + noise, 3 * np.sqrt(t) - 1 + noise
    found = log_over_root(np.stack([logs, roots]), t)
    # What is left of a line through (shape, regret), by NumPy's own fit.
    left = [np.polyfit(f(t), logs, 1, full=True)[1][0] for f in (np.sqrt, np.log)]
    np.testing.assert_allclose(found[0], np.log(left[0] / left[1]), rtol=1e-6)
    assert found[0] > 3 and found[1] < -3


def test_the_exponent_is_that_of_a_power_law_and_little_regret_counts_as_one():
    t = np.array([10.0, 100, 1000])
    regret = np.stack([2 * t**0.4, 7 * t, [-5, 0.3, 100]])
    last = np.polyfit(np.log10(t), [0, 0, 2], 1)[0]
    np.testing.assert_allclose(regret_exponent(regret, t), [0.4, 1, last])
