"""Autocorrelations by their sums, fits against SciPy's, taus of processes that have one, intervals that hold it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.signal import lfilter

from latebloom.methods.recurrence.timescales import (
    BOUND,
    CONSTANT,
    FITTED,
    MISSING,
    NONE,
    SILENT,
    _compiled,
    autocorrelation,
    block_sums,
    fit,
    timescales,
)

RNG = np.random.default_rng(0)
T = np.arange(31)
taus = st.floats(0.05, 150)


def one(t, a, tau):
    return a * np.exp(-t / max(tau, 1e-9))


def two(t, a, fast, slow, c):
    return a * c * np.exp(-t / fast) + a * (1 - c) * np.exp(-t / slow)


def fits(curves, **more):
    with jax.enable_x64(True):
        found = _compiled(jnp.asarray(np.atleast_2d(curves)), **{"most": 100.0, "first": 0} | more)
        return type(found)(*(np.asarray(part) for part in found))


def autoregressive(tau, trials, time, units, rng=RNG):
    keep = np.exp(-1 / tau)
    noise = rng.normal(size=(trials, time + 300, units)) * np.sqrt(1 - keep**2)
    return lfilter([1], [1, -keep], noise, axis=1)[:, 300:]


def test_autocorrelation_is_its_sum():
    x = RNG.normal(3, 2, (3, 12, 2))
    want = np.zeros((2, 6))
    for trial in x:
        for unit in range(2):
            own = trial[:, unit] - trial[:, unit].mean()
            for lag in range(6):
                want[unit, lag] += (
                    sum(own[t] * own[t + lag] for t in range(12 - lag)) / (12 - lag) / 3
                )
    np.testing.assert_allclose(autocorrelation(x, 5), want, atol=1e-12)
    np.testing.assert_allclose(autocorrelation(jnp.asarray(x, jnp.float32), 5), want, atol=1e-4)


@settings(max_examples=20)
@given(st.integers(7, 30), st.integers(1, 6), st.integers(0, 2**32))
def test_blocks_of_a_trial_sum_to_the_trial(n, pieces, seed):
    x = np.random.default_rng(seed).normal(size=(2, n, 3))
    sums, counts = block_sums(x, 5, min(pieces, n // 2))
    np.testing.assert_array_equal(counts.sum(0), n - np.arange(6))
    scale = np.abs(x).max((0, 1))[:, None] ** 2
    whole = sums.sum((0, 1)) / (2 * (n - np.arange(6)))
    np.testing.assert_allclose(whole * scale, autocorrelation(x, 5), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    taus,
    taus,
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-3, 0.05, 0.3]),
    st.integers(0, 2**32),
)
def test_residuals_are_never_worse_than_those_of_curve_fit(fast, slow, a, c, noise, seed):
    """Beyond a thousandth: 0.03 of AIC. SciPy's from two starts, each."""
    rng = np.random.default_rng(seed)
    y = two(T, a, fast, slow, c) + noise * rng.normal(size=31)
    found = fits(y)
    starts = [(0.5, 1.0), (0.9, 20.0)], [(0.5, 1.0, 10.0, 0.5), (0.9, 3.0, 60.0, 0.3)]
    for place, (model, guesses) in enumerate(zip((one, two), starts, strict=True)):
        high = (1, 100) if place == 0 else (1, 100, 100, 1)
        for guess in guesses:
            best, _ = curve_fit(model, T, y, guess, bounds=([0] + [1e-9] * (len(high) - 1), high), maxfev=4000)  # fmt: skip
            theirs = ((model(T, *best) - y) ** 2).sum()
            assert found.rss[0, place] <= theirs * (1 + 1e-3) + 1e-13, (model, found, best)
    mine = one(T, *found.one[0]), one(T, *found.two[0, :2]) + one(T, *found.two[0, 2:])
    np.testing.assert_allclose([((m - y) ** 2).sum() for m in mine], found.rss[0], rtol=1e-6, atol=1e-15)  # fmt: skip
    assert found.rss[0, 1] <= found.rss[0, 0] and found.two[0, 1] <= found.two[0, 3]
    assert 0 <= found.two[0, 0] and 0 <= found.two[0, 2] and found.two[0, [0, 2]].sum() <= 1 + 1e-12
    assert (found.two[0, [1, 3]] <= 100 * (1 + 1e-9)).all()


def test_exact_curves_give_their_taus():
    curves = np.stack([one(T, 1, 3.7), one(T, 0.4, 55), two(T, 0.9, 1.3, 17, 0.6), one(T, 1, 1e-9), one(T, 1, 300)])  # fmt: skip
    found = fits(curves)
    np.testing.assert_allclose(found.one[[0, 1], 1], [3.7, 55], rtol=1e-6)
    np.testing.assert_allclose(found.two[2], [0.54, 1.3, 0.36, 17], rtol=1e-4)
    assert found.models.tolist()[:4] == [1, 1, 2, 1]
    assert found.slow[3] < 1e-3 and found.slow[4] == pytest.approx(100, rel=1e-6)


def test_aic_by_hand():
    y = two(T, 1, 1, 20, 0.5) + 0.01 * RNG.normal(size=31)
    found = fits(y)
    want = [2 * k + 31 * np.log(rss / 31) for k, rss in zip((2, 4), found.rss[0], strict=True)]
    np.testing.assert_allclose(found.aic[0], want, rtol=1e-10)
    assert found.models[0] == 2 and found.slow[0] == found.two[0, 3]


def test_lag_0_may_be_left_out():
    """White noise of observation stands at lag 0 alone."""
    y = 0.3 * np.exp(-T / 8)
    y[0] = 1
    assert fits(y, first=1).one[0] == pytest.approx([0.3, 8], rel=1e-5)
    assert fits(y).one[0, 1] < 4


def test_single_precision_under_jit_is_near():
    curves = two(T, 1, 2, 15, 0.5) + 0.02 * RNG.normal(size=(5, 31))
    low, high = jax.jit(fit)(jnp.asarray(curves, jnp.float32)), fits(curves)
    np.testing.assert_allclose(low.rss, high.rss, rtol=1e-3)
    np.testing.assert_allclose(low.slow, high.slow, rtol=0.05)


def test_taus_of_autoregressive_activity_come_out_in_the_users_unit():
    x = np.concatenate([autoregressive(tau, 20, 4000, 3) for tau in (1.0, 4.0, 12.0)], axis=2)
    found = timescales(x, replicates=200, step=0.5)
    want = 0.5 * np.repeat([1, 4, 12], 3)
    np.testing.assert_allclose(found.one, want, rtol=0.1)
    assert (found.one_low < found.one).all() and (found.one < found.one_high).all()
    assert (found.low <= found.tau).all() and (found.tau <= found.high).all()
    assert (
        found.drawn == 20
        and found.drawn_as == "trials"
        and np.isin(found.status, (FITTED, BOUND)).all()
    )
    single = found.models == 1  # AIC may take a second one, slow and small
    np.testing.assert_array_equal(found.tau, np.where(single, found.one, found.slow))
    assert (found.share[~single & (found.slow > 1.3 * want)] < 0.2).all()
    np.testing.assert_allclose(found.curves * autocorrelation(x, 30)[:, :1], autocorrelation(x, 30), atol=1e-9)  # fmt: skip
    assert found.lags[-1] == 15 and list(found.frame()["unit"]) == [str(i) for i in range(9)]
    faster = timescales(x, replicates=0)
    np.testing.assert_allclose(faster.tau * 0.5, found.tau)
    assert np.isnan(faster.low).all() and faster.drawn == 0


def test_slow_fluctuation_beside_a_fast_one_is_found():
    x = autoregressive(1.0, 30, 4000, 4) + autoregressive(20.0, 30, 4000, 4)
    found = timescales(x, replicates=100)
    assert (found.models == 2).all() and (found.two > 0.9).all()
    np.testing.assert_allclose(found.slow, 20, rtol=0.25)
    np.testing.assert_allclose(found.fast, 1, rtol=0.4)
    np.testing.assert_allclose(found.share, 0.5, atol=0.1)


def test_intervals_hold_the_truth_as_often_as_they_should():
    """100 units; trials long enough that their means cost little. Blocks of one recording, too."""
    rng = np.random.default_rng(5)
    found = timescales(autoregressive(3.0, 20, 1000, 100, rng), replicates=200)
    held = ((found.one_low <= 3) & (3 <= found.one_high)).mean()
    assert 0.90 <= held <= 0.99
    alone = timescales(autoregressive(3.0, 1, 8000, 100, rng), replicates=200)
    held = ((alone.one_low <= 3) & (3 <= alone.one_high)).mean()
    assert 0.86 <= held <= 0.99 and alone.drawn_as == "blocks" and alone.drawn == 50


def test_short_trials_are_told_to_make_taus_short():
    """What the docstring warns of: the truth, 20 steps, lies above nearly all intervals of trials of 60."""
    found = timescales(autoregressive(20.0, 200, 60, 16), lags=30, replicates=100)
    assert np.median(found.one) < 12 and (found.one_high < 20).mean() > 0.9


def test_units_that_cannot_be_fitted_are_said():
    x = autoregressive(3.0, 10, 200, 8)
    x[:, :, 1] = 0
    x[:, :, 2] = 0.1
    x[:, :, 3] = np.arange(10)[:, None]  # constant within each trial
    x[4, 7, 4] = np.nan
    x[4, 7, 5] = np.inf
    x[:, :, 6] = np.arange(200) / 7  # a ramp
    x[:, :, 7] = RNG.normal(size=(10, 200))
    found = timescales(x, replicates=100, most=20)
    assert found.status.tolist() == [
        FITTED,
        SILENT,
        CONSTANT,
        CONSTANT,
        MISSING,
        MISSING,
        BOUND,
        NONE,
    ]
    lost = [1, 2, 3, 4, 5]
    assert np.isnan(found.tau[lost]).all() and (found.models[lost] == 0).all() and np.isfinite(found.tau[[0, 6, 7]]).all()  # fmt: skip
    assert found.high[6] == np.inf and found.tau[6] == pytest.approx(20) and found.tau[7] < 0.15
    alone = timescales(x[:, :, [0]], replicates=100, most=20)
    assert alone.tau[0] == found.tau[0] and alone.low[0] == pytest.approx(found.low[0])
    nothing = timescales(x[:, :, lost], replicates=100)
    assert np.isnan(nothing.tau).all()


@settings(max_examples=15, deadline=None)
@given(st.floats(-1e150, 1e150).filter(lambda s: abs(s) > 1e-150), st.floats(-5, 5))
def test_scale_and_offset_do_not_matter(scale, offset):
    x = autoregressive(3.0, 8, 100, 2, np.random.default_rng(1))
    want, found = (timescales(y, lags=10, replicates=0) for y in (x, scale * (x + offset)))
    np.testing.assert_allclose(found.one, want.one, rtol=1e-5)


@pytest.mark.parametrize("kind", ["float32", "float16", "int16", "bool"])
def test_any_type_of_number(kind):
    x = np.clip(30 * autoregressive(5.0, 10, 300, 2), -127, 127)
    x = x > 0 if kind == "bool" else x.astype(kind)
    want = timescales(x.astype(float), replicates=0)
    np.testing.assert_array_equal(timescales(x, replicates=0).tau, want.tau)
    np.testing.assert_array_equal(timescales(jnp.asarray(x), replicates=0).tau, want.tau)


def test_a_unit_that_is_mostly_silent_has_an_interval():
    x = np.zeros((10, 100, 1))
    x[3] = autoregressive(2.0, 1, 100, 1)[0]
    found = timescales(x, lags=10, replicates=100)
    assert np.isfinite(found.tau[0]) and found.low[0] == 0


@pytest.mark.parametrize(("change", "says"), [
    ({"activity": np.zeros((5, 3))}, r"\[trials, time, units\], none of them 0, not \[5, 3\]: one recording \[time, units\] is activity\[None\]"),
    ({"activity": np.zeros((0, 50, 3))}, "none of them 0"),
    ({"activity": np.full((1, 50, 1), "a")}, "real numbers"),
    ({"activity": np.zeros((1, 50, 1), complex)}, "real numbers, not complex128"),
    ({"activity": np.zeros((2, 31, 1))}, "31 steps where 30 lags need at least 32"),
    ({"lags": 3}, "lags must be a whole number from 4"),
    ({"lags": True}, "lags must be a whole number"),
    ({"lags": 10.5}, "lags must be a whole number"),
    ({"first": 27}, "at least 5 of the 31 lags"),
    ({"first": -1}, "at least 5"),
    ({"most": 0}, "most must be a number of steps above 0"),
    ({"most": np.inf}, "most must be"),
    ({"step": 0}, "step must be a length of time"),
    ({"step": np.nan}, "step must be"),
    ({"level": 1.0}, "level must be between 0 and 1"),
    ({"replicates": 10}, "0 or at least 100"),
    ({"blocks": 7}, "multiple of the 2 trials from 8"),
    ({"blocks": 400}, "at least 2 steps each"),
    ({"names": ("a",)}, "names must be 2, one a unit"),
], ids=str)  # fmt: skip
def test_bad_input_is_refused(change, says):
    x = autoregressive(3.0, 2, 100, 2)
    with pytest.raises(ValueError, match=says):
        timescales(**{"activity": x, "replicates": 0} | change)
