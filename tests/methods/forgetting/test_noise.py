"""The lowest of noisy evaluations against simulation and closed forms."""

import numpy as np
import pytest
from scipy import stats

from latebloom.methods.forgetting.noise import lowest_by_noise, noise_floor


def test_the_noise_floor_is_the_mean_of_the_least_of_binomials():
    n, p, times = 20, 0.7, 5
    outcomes = np.arange(n + 1)
    cdf = 1 - (1 - stats.binom.cdf(outcomes, n, p)) ** times
    np.testing.assert_allclose(
        noise_floor(p, n, times), (outcomes * np.diff(cdf, prepend=0)).sum() / n
    )
    np.testing.assert_allclose(noise_floor([p, 1.0, 0.0], n, 1), [p, 1, 0])
    drawn = np.random.default_rng(0).binomial(n, p, (200_000, times)).min(axis=1) / n
    np.testing.assert_allclose(noise_floor(p, n, times), drawn.mean(), atol=1e-3)
    assert noise_floor(p, n, times, 0.5) == np.quantile(drawn, 0.5)
    assert noise_floor(0.9, 500, 1000) < 0.9 - 3 * np.sqrt(0.09 / 500)
    assert noise_floor(p, [10, 20], [[1], [2], [3]]).shape == (3, 2)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9, 1.0])
def test_noise_goes_below_its_bound_at_most_as_often_as_it_may(p):
    rng = np.random.default_rng(1)
    before = rng.binomial(100, p, 2000) / 100
    after = rng.binomial(100, p, (2000, 50)).min(axis=1) / 100
    assert (after < lowest_by_noise(before, 100, 50, 0.05)).mean() <= 0.05


def test_where_all_or_nothing_was_right():
    none, half, all_right = lowest_by_noise([0.0, 0.5, 1.0], 100, 50)
    assert none == 0 and 0.2 < half < 0.3 and 0.85 < all_right < 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: noise_floor(1.2, 10, 5), "accuracy must lie in"),
        (lambda: noise_floor(0.5, 0, 5), "examples must be a whole number from 1 on, not 0"),
        (lambda: noise_floor(0.5, 10, 0), "evaluations must be a whole number"),
        (lambda: noise_floor(0.5, 10, 5, 1.0), "quantile must lie between"),
    ],
)
def test_what_has_no_noise_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
