"""Alternation of generations, and what moves with them, against NumPy's own fits and cases by hand."""

import numpy as np
import pytest

from latebloom.methods.bandits.payments.generations import (
    detrended,
    fast_share,
    lag_one,
    standardised_slope,
)

RNG = np.random.default_rng(0)


def test_what_is_left_of_a_line():
    values, t = RNG.normal(size=(3, 9)), np.arange(9)
    wanted = [row - np.polyval(np.polyfit(t, row, 1), t) for row in values]
    np.testing.assert_allclose(detrended(values), wanted, atol=1e-12)
    np.testing.assert_allclose(detrended(2 + 3.0 * t[None]), 0, atol=1e-12)


def test_alternation_and_its_period():
    t = np.arange(12)
    zigzag, third, slow = (-1.0) ** t, np.cos(2 * np.pi * t / 3), np.sin(2 * np.pi * t / 12)
    values = 0.5 + 0.1 * t + np.stack([zigzag, third, slow])  # a trend is no alternation
    r = detrended(values)
    by_hand = [(row[1:] * row[:-1]).sum() / (row**2).sum() for row in r]
    np.testing.assert_allclose(lag_one(values), by_hand)
    assert lag_one(values)[0] < -0.8 < lag_one(values)[1] < -0.2 < 0.4 < lag_one(values)[2]
    fast = fast_share(values)
    assert (fast[:2] > 0.9).all() and fast[2] < 0.3


def test_the_slope_is_that_beside_the_others_in_units_of_spread():
    other = RNG.normal(size=400)
    x = other + RNG.normal(size=400)
    y = 3 * x - 5 * other + 7
    assert standardised_slope(y, x, other) == pytest.approx(3 * x.std() / y.std())
    assert standardised_slope(y, x) == pytest.approx(np.corrcoef(x, y)[0, 1])  # alone
    assert standardised_slope(y, np.ones(400), other) == pytest.approx(0)  # what does not vary
