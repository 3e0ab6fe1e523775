"""Generated dynamics against closed forms and an equation solved by SciPy."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from latebloom.data.dynamics import SPIRAL, gaussian_ring, irregular_oscillators, spiral_moments


def test_moments_of_the_spiral_begin_at_its_start_and_follow_its_drift():
    found = spiral_moments(jax.random.key(0), paths=4000, times=11, between=30)
    np.testing.assert_array_equal(found.means[0], [2, 0])
    np.testing.assert_array_equal(found.variances[0], 0)
    # Over a short time the mean is that without noise, the variance of the first element (0.2 x 2)^2 t.
    path = solve_ivp(lambda t, u: SPIRAL @ u**3, (0, 0.1), [2.0, 0.0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.means[1], path.y[:, -1], atol=0.06)
    again = spiral_moments(jax.random.key(1), paths=4000, times=11, between=60)
    error = np.sqrt(np.asarray(found.variances) / 4000)
    assert (np.abs(found.means - again.means) <= 5 * np.sqrt(2) * error).all()
    np.testing.assert_allclose(found.variances, again.variances, rtol=0.2, atol=0.01)


def test_series_are_damped_and_seen_at_rates_of_their_channels():
    found = irregular_oscillators(jax.random.key(0), 600, channels=12, times=20)
    assert found.values.shape == found.there.shape == (600, 20, 12)
    rates = np.asarray(found.there.mean(axis=(0, 1)))
    assert 0.01 < rates.min() and rates.max() < 0.65 and rates.max() > 3 * rates.min()
    assert found.there.any(axis=(1, 2)).all()
    other = irregular_oscillators(jax.random.key(0), 600, channels=12, times=20, part=1)
    np.testing.assert_allclose(other.there.mean(axis=(0, 1)), rates, atol=0.02)  # the same world
    assert (found.values != other.values).all()
    deviation = np.asarray(found.values).std(axis=(0, 2))
    assert deviation[-1] < deviation[0]
    with pytest.raises(ValueError, match="two times"):
        irregular_oscillators(jax.random.key(0), 5, times=1)


def test_the_ring_has_its_modes():
    x = np.asarray(gaussian_ring(jax.random.key(0), 6000))
    angle = np.arctan2(x[:, 1], x[:, 0]) / (np.pi / 3)
    near = np.round(angle) * np.pi / 3
    off = x - 5 * np.stack([np.cos(near), np.sin(near)], axis=-1)
    np.testing.assert_allclose(off.std(axis=0), np.sqrt(0.1**2 + 0.3**2), rtol=0.05)
    counts = np.bincount(np.round(angle).astype(int) % 6)
    assert (counts == 1000).all()
    with pytest.raises(ValueError, match="mode"):
        gaussian_ring(jax.random.key(0), 3)
