"""Fits and pictures of histories whose counts are exact."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from latebloom.methods.forgetting import histories
from latebloom.methods.forgetting.rehearsal import lag_probabilities


def exact(odds, n=40, seeds=1):
    """Expected counts of tasks that come back with these odds: all that begin at every time."""
    age = np.arange(1.0, n)
    drawn = np.where(np.arange(n)[:, None] >= age, 1e6 * lag_probabilities(odds(age)), 0)
    both = {"drawn": drawn, "chances": np.where(drawn > 0, drawn / odds(age), 0)}
    dims = ("seed", "step", "time", "age")
    data = {name: (dims, np.tile(v, (seeds, 1, 1, 1))) for name, v in both.items()}
    return xr.Dataset(data, {"age": age, "step": [1], "seed": np.arange(seeds)})


def test_power_law_odds_and_their_lags_are_told_from_constant_ones():
    world, even = exact(lambda age: 0.5 / age, seeds=2), exact(lambda age: 0.1 + 0 * age)
    np.testing.assert_allclose(histories.fitted("need")(world), [1, 1], atol=0.01)
    assert histories.fit_of(world, 0, "lag").exponent == pytest.approx(1.5, abs=0.1)
    assert histories.fit_of(even, 0, "need").exponent == pytest.approx(0, abs=0.01)
    assert abs(histories.fit_of(even, 0, "lag").exponent - 1.5) > 0.2
    assert histories.said(even, "need", "even").startswith("even (fit: ")


def test_lines_are_shares_and_probabilities_by_age():
    world, ax = exact(lambda age: 0.5 / age), Figure().subplots()
    histories.draw_need(ax, world, rare=0.0)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.5 / np.arange(1.0, 40))
    lags = histories.draw_lags(ax, world)
    expected = lag_probabilities(0.5 / lags)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), expected / expected.sum())
    histories.draw_ages(ax, world)
    assert np.nansum(ax.lines[2].get_ydata()) == pytest.approx(1)
