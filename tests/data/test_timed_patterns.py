"""Patterns of which nothing but the timing tells the class."""

import jax
import numpy as np
import pytest

from latebloom.data.timed_patterns import TimedPatterns


def test_counts_tell_nothing_and_timing_all():
    patterns = TimedPatterns(5, 12, key=jax.random.key(0), span=20, shift=8, jitter=0.7, noise=0.0, lost=0.0)  # fmt: skip
    x, y = (np.asarray(v) for v in patterns.draw(jax.random.key(1), 100))
    assert x.shape == (100, 31, 12) and np.bincount(y).tolist() == [20] * 5
    assert x.sum(1).max() == 1 and (x.sum(1) == 1).mean() > 0.98  # one a channel, but at the edges
    right = np.asarray(patterns.matched(x)).argmax(1) == y
    assert right.mean() > 0.95
    shuffled = np.stack([e[np.random.default_rng(i).permutation(31)] for i, e in enumerate(x)])
    assert (np.asarray(patterns.matched(shuffled)).argmax(1) == y).mean() < 0.5


def test_without_jitter_each_spike_is_where_the_pattern_says():
    patterns = TimedPatterns(3, 4, key=jax.random.key(0), span=9, shift=0, jitter=0.0, noise=0.0, lost=0.0)  # fmt: skip
    x, y = (np.asarray(v) for v in patterns.draw(jax.random.key(1), 6))
    for e, label in zip(x, y, strict=True):
        np.testing.assert_array_equal(e.argmax(0), np.floor(np.asarray(patterns.at)[label]))


def test_losses_and_noise_are_as_said():
    patterns = TimedPatterns(2, 50, key=jax.random.key(0), lost=0.3, noise=0.02)
    x, _ = patterns.draw(jax.random.key(1), 200)
    expected = 0.7 + 0.02 * patterns.steps  # but for bursts beyond the edges
    assert float(np.asarray(x).sum(1).mean()) == pytest.approx(expected, abs=0.04)
    for wrong in ({"classes": 1}, {"lost": 1.0}, {"jitter": -1.0}, {"shift": -1}):
        with pytest.raises(ValueError):
            TimedPatterns(**{"classes": 2, "channels": 3, "key": jax.random.key(0)} | wrong)


def test_bursts_are_as_long_as_said():
    patterns = TimedPatterns(3, 6, key=jax.random.key(0), span=9, shift=2, jitter=0.0, noise=0.0, lost=0.0, burst=3)  # fmt: skip
    x, y = (np.asarray(v) for v in patterns.draw(jax.random.key(1), 12))
    assert x.shape == (12, 16, 6) and (x.sum(1) == 3).all()
    starts = x.argmax(1)
    assert (
        np.ptp(starts - np.floor(np.asarray(patterns.at)[y]), axis=1) == 0
    ).all()  # shifted as one
    assert (np.asarray(patterns.matched(x)).argmax(1) == y).mean() > 0.9
