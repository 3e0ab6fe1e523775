"""A log is read as it was made, and a simulation meets the frequencies that it was given."""

from datetime import timedelta

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from latebloom.core.dataset import Dataset
from latebloom.core.stream import drawn
from latebloom.methods.forgetting.recurrence import Recurrence, expected, recurrence
from latebloom.nn import MLP


def test_a_log_by_hand():
    names = ["b", "a", "b", "c", "a", "b"]
    log = recurrence(names, [0.2, 1.9, 0.9, 7.5, 0.1, 1.2], period=1.0)
    assert log.classes == ("a", "b", "c")
    np.testing.assert_array_equal(log.plan, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert log.count == 2
    np.testing.assert_allclose(log.frequency, [2 / 3, 2 / 3, 1 / 3])
    # Two came again at once; by chance 4 * 2/3 would have.
    assert log.stickiness == pytest.approx(2 / (4 * 2 / 3))
    days = np.array(["2024-01-01", "2024-01-09", "2024-01-02"], "datetime64[D]")
    week = recurrence([3, 3, 4], days, period=np.timedelta64(7, "D"))
    np.testing.assert_array_equal(week.plan, [[1, 1], [1, 0]])
    assert np.isnan(recurrence([1], [0.0]).stickiness)
    assert np.isfinite(recurrence([1, 2, 1], [0, 0, 1]).weights).all()


def test_times_at_the_border_of_a_period():
    tenths = np.arange(50) * 0.1
    np.testing.assert_array_equal(recurrence(np.arange(50), tenths, period=0.1).plan, np.eye(50))
    assert len(recurrence(np.arange(50), tenths, period=0.2).plan) == 25
    # Differences of int8, and sums of float16, would not hold these.
    wide = recurrence([0, 1, 2], np.array([100, -100, 99], np.int8), period=100)
    np.testing.assert_array_equal(wide.plan, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    half = recurrence([0, 1], np.array([6e4, -6e4], np.float16), period=100)
    np.testing.assert_array_equal(half.plan, [[0, 1], [1, 0]])
    seconds = np.datetime64("2024-01-01") + np.arange(0, 7200, 600).astype("timedelta64[s]")
    hours = recurrence(np.arange(12) % 6, seconds, period=np.timedelta64(1, "h"))
    np.testing.assert_array_equal(hours.plan, np.ones((2, 6)))
    for period in (timedelta(hours=1), pd.Timedelta("1h")):
        np.testing.assert_array_equal(recurrence(np.arange(12) % 6, seconds, period=period).plan, hours.plan)  # fmt: skip


def test_draws_by_the_weights_come_about_as_often_as_in_the_log():
    odds = np.geomspace(0.02, 1, 12)
    plan = np.asarray(drawn(np.tile(odds, (4000, 1)), 3, key=jax.random.key(0)))
    log = Recurrence(tuple(range(12)), plan)
    assert log.stickiness == pytest.approx(1, abs=0.05) and log.count == 3
    again = np.asarray(drawn(np.tile(log.weights, (20_000, 1)), 3, key=jax.random.key(1)))
    np.testing.assert_allclose(again.mean(axis=0), log.frequency, atol=0.03)
    np.testing.assert_allclose(log.weights, odds / odds.sum(), rtol=0.35)
    bursts = Recurrence(tuple(range(12)), np.repeat(plan, 5, axis=0))
    assert bursts.stickiness > 1.7


rng = np.random.default_rng(0)
Y = np.tile(np.arange(4, dtype=np.int32), 40)
X = (rng.normal(size=(160, 6)) + 3 * np.eye(6)[Y]).astype(np.float32)
DATA = Dataset(*map(jnp.asarray, (X[:120], Y[:120], X[120:], Y[120:])))
LOG = Recurrence(("w", "x", "y", "z"), np.eye(4, dtype=bool)[[0, 1, 2] * 5 + [0]])


def simulate(log=LOG, data=DATA, **more):
    settings = {
        "steps": np.int64(4),
        "batch_size": 8,
        "seeds": 2,
        "exam_size": 10,
        "masked": False,
    } | more
    return expected(log, data, model=lambda key: MLP(6, (8,), 4, key=key), **settings)


def test_what_a_network_is_to_know():
    found = simulate()
    assert found["class"].tolist() == ["w", "x", "y", "z"]
    np.testing.assert_allclose(found.frequency, [6 / 16, 5 / 16, 5 / 16, 0])
    assert found.accuracy[3] == 0 and found.accuracy.max() > 0.3
    assert (found.low <= found.accuracy).all() and (found.accuracy <= found.high).all()
    more = simulate(tasks=30, masked=True)
    assert len(more) == 4 and np.isfinite(more.accuracy).all()


BAD = {
    "columns of one length": lambda: recurrence([1, 2], [0.0]),
    "at least 1": lambda: recurrence([], []),
    "times: row 1 has no value": lambda: recurrence([1, 2], [0.0, np.nan]),
    "classes: row 0 has no value": lambda: recurrence(np.array([None, "a"], object), [0.0, 1.0]),
    "classes: row 1 has no value": lambda: recurrence(["a", float("nan"), "b"], [0.0, 1.0, 2.0]),
    "times: row 1 is infinite": lambda: recurrence([1, 2], [0.0, np.inf]),
    "tasks must be at least 1, not 0": lambda: simulate(tasks=0),
    "times must be numbers or dates": lambda: recurrence([1, 2], ["a", "b"]),
    "period must be above 0": lambda: recurrence([1, 2], [0, 1], period=0),
    "period must be above 0 and a number in their unit, not nan": lambda: recurrence([1, 2], [0, 1], period=np.nan),
    "as times are dates, not 1.0": lambda: recurrence([1], np.array(["2024-01-01"], "datetime64[D]")),
    "as times are dates": lambda: recurrence(
        [1], np.array(["2024-01-01"], "datetime64[D]"), period=np.timedelta64("NaT", "D")),
    "has no fixed length in the unit of the times": lambda: recurrence(
        [1], np.array(["2024-01-01"], "datetime64[D]"), period=np.timedelta64(1, "M")),
    "data must have the labels 0 to 2": lambda: simulate(Recurrence((1, 2, 3), LOG.plan[:, :3])),
    "an interval needs two seeds": lambda: simulate(seeds=1),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_logs(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
