"""Off-policy estimates against hand-worked logs, NumPy, enumeration, and the truth of simulations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latebloom.methods.bandits.off_policy import (
    direct_method,
    doubly_robust,
    effective_sample_size,
    evaluate,
    importance_weights,
    ips,
    ratio,
    snips,
)

REWARD = np.array([1.0, 0.0, 1.0, 1.0], np.float32)
PROPENSITY = np.array([0.5, 0.25, 0.25, 1.0], np.float32)
TARGET = np.array([0.25, 0.5, 0.75, 1.0], np.float32)  # weights 0.5, 2, 3, 1


def test_estimates_worked_by_hand():
    assert ips(REWARD, PROPENSITY, TARGET).value == pytest.approx(4.5 / 4)
    assert snips(REWARD, PROPENSITY, TARGET).value == pytest.approx(4.5 / 6.5)
    predicted = np.array([0.5, 0.5, 1.0, 0.0], np.float32)
    expected = np.array([0.6, 0.4, 0.8, 0.2], np.float32)
    # 0.6 + 0.5 (0.5), 0.4 + 2 (-0.5), 0.8 + 3 (0), 0.2 + 1 (1)
    found = doubly_robust(REWARD, PROPENSITY, TARGET, predicted, expected)
    assert found.value == pytest.approx((0.85 - 0.6 + 0.8 + 1.2) / 4)
    terms = np.array([0.85, -0.6, 0.8, 1.2])
    assert found.error == pytest.approx(terms.std(ddof=1) / 2, rel=1e-5)
    assert found.low == pytest.approx(terms.mean() - 1.959964 * terms.std(ddof=1) / 2, abs=1e-5)
    assert direct_method(expected).value == pytest.approx(0.5)
    assert effective_sample_size(PROPENSITY, TARGET) == pytest.approx(6.5**2 / 14.25)


def test_snips_error_is_that_of_a_ratio():
    w = TARGET / PROPENSITY
    value = (w * REWARD).sum() / w.sum()
    error = np.sqrt((w**2 * (REWARD - value) ** 2).sum() * 4 / 3) / w.sum()
    assert snips(REWARD, PROPENSITY, TARGET).error == pytest.approx(error, rel=1e-5)


logs = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n),
        st.lists(st.floats(0.0625, 1, width=32), min_size=n, max_size=n),
        st.lists(st.floats(0.0625, 1, width=32), min_size=n, max_size=n),
    )
)


def padded(log):
    """As float32 arrays of one length, so that every example runs the same programs."""
    rows = np.arange(30) < len(log[0])
    columns = [np.pad(np.float32(c), (0, 30 - len(c)), constant_values=1.0) for c in log]
    return (*columns, rows)


@given(logs)
@settings(max_examples=40)
def test_the_policy_that_ran_is_worth_its_mean_reward(log):
    reward, propensity, _, rows = padded(log)
    for estimator in (ips, snips):
        found = estimator(reward, propensity, propensity, rows=rows)
        assert found.value == pytest.approx(np.mean(log[0]), abs=1e-5)
        assert found.error == pytest.approx(stats.sem(np.float64(log[0])), abs=1e-5)
    assert effective_sample_size(propensity, propensity, rows) == pytest.approx(len(log[0]))


@given(logs)
@settings(max_examples=40)
def test_invariants(log):
    reward, propensity, target, rows = padded(log)
    found = snips(reward, propensity, target, rows=rows)
    assert min(log[0]) - 1e-4 <= found.value <= max(log[0]) + 1e-4
    moved = snips(reward + 2, propensity, target, rows=rows)
    assert moved.value == pytest.approx(float(found.value) + 2, abs=1e-4)
    assert moved.error == pytest.approx(float(found.error), abs=1e-4)
    double = ips(2 * reward, propensity, target, rows=rows)
    assert double.value == pytest.approx(
        2 * float(ips(reward, propensity, target, rows=rows).value), rel=1e-4, abs=1e-6
    )
    assert 1 - 1e-4 <= effective_sample_size(propensity, target, rows) <= len(log[0]) + 1e-3
    # A model that knows every reward leaves nothing to correct.
    sure = doubly_robust(reward, propensity, target, reward, target, rows=rows)
    assert sure.value == pytest.approx(np.mean(np.float32(log[2])), abs=1e-5)


def test_rows_that_do_not_count_change_nothing():
    rows = np.array([True, True, True, True, False])
    more = [np.append(x, np.float32(0.0)) for x in (REWARD, PROPENSITY, TARGET)]
    key = jax.random.key(0)
    for estimator in (ips, snips):
        kept = estimator(*more, rows=rows, key=key, resamples=50)
        alone = estimator(REWARD, PROPENSITY, TARGET, key=key, resamples=50)
        np.testing.assert_allclose(kept[:4], alone[:4], rtol=1e-6)
        assert kept.bootstrap is not None and np.isfinite(kept.bootstrap).all()
    assert effective_sample_size(more[1], more[2], rows) == pytest.approx(6.5**2 / 14.25)


def test_unbiased_over_all_logs_of_two_rows():
    means, logging, target = np.array([0.2, 0.7, 0.5]), np.array([0.5, 0.3, 0.2]), [0.1, 0.1, 0.8]
    model = np.array([0.9, 0.1, 0.3])  # wrong, and DR is unbiased all the same
    total_ips = total_dr = 0.0
    for a in range(3):
        for b in range(3):
            chosen = np.array([a, b])
            r, p, t = (np.float32(np.asarray(x)[chosen]) for x in (means, logging, target))
            expected = np.full(2, np.dot(target, model), np.float32)
            chance = logging[a] * logging[b]
            total_ips += chance * float(ips(r, p, t).value)
            total_dr += chance * float(
                doubly_robust(r, p, t, np.float32(model[chosen]), expected).value
            )
    truth = np.dot(target, means)
    assert total_ips == pytest.approx(truth, abs=1e-5)
    assert total_dr == pytest.approx(truth, abs=1e-5)


def test_intervals_cover_the_truth_as_often_as_they_say():
    means, logging = jnp.array([0.8, 0.9, 0.6]), jnp.array([0.5, 0.2, 0.3])
    target, model = jnp.array([0.1, 0.8, 0.1]), jnp.array([0.7, 0.8, 0.7])

    def one(key):
        draw, noise = jax.random.split(key)
        a = jax.random.choice(draw, 3, (2000,), p=logging)
        r = (jax.random.uniform(noise, (2000,)) < means[a]).astype(jnp.float32)
        expected = jnp.full(2000, target @ model)
        found = evaluate(r, logging[a], target[a], model[a], expected)
        truth = target @ means
        return jnp.stack([(e.low <= truth) & (truth <= e.high) for e in found[1:4]])

    covered = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(1), 600))).mean(0)
    assert (covered > 0.925).all() and (covered < 0.975).all()


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(0)
    n = 400
    p = rng.uniform(0.2, 0.9, n).astype(np.float32)
    t = rng.uniform(0.2, 0.9, n).astype(np.float32)
    r = (rng.uniform(size=n) < 0.8).astype(np.float32)
    found = snips(r, p, t, key=jax.random.key(0), resamples=4000)
    w = t / p
    by_scipy = stats.bootstrap(
        (w * r, w), lambda x, y, axis: x.sum(axis) / y.sum(axis), paired=True, vectorized=True,
        method="percentile", n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.bootstrap is not None
    np.testing.assert_allclose(found.bootstrap, by_scipy, atol=0.006)
    np.testing.assert_allclose(found.bootstrap, (found.low, found.high), atol=0.012)


def test_a_log_that_says_nothing_gives_nan():
    none = np.zeros(4, bool)
    for estimator in (ips, snips):
        found = estimator(REWARD, PROPENSITY, TARGET, rows=none)
        assert np.isnan(found.value) and np.isnan(found.low)
    assert np.isnan(snips(REWARD, PROPENSITY, np.zeros(4, np.float32)).value)
    single = ratio(jnp.ones(1), jnp.ones(1))
    assert single.value == 1 and np.isnan(single.error)


@pytest.mark.parametrize(
    "propensity, target, says",
    [
        ([0.5, 0.0], [0.5, 0.5], "propensity in row 1 is 0, outside \\(0, 1\\]"),
        ([0.5, 1.2], [0.5, 0.5], "propensity in row 1 is 1.2"),
        ([0.5, 0.5], [-0.1, 0.5], "target in row 0 is -0.1, outside \\[0, 1\\]"),
        ([0.5, np.nan], [0.5, 0.5], "propensity in row 1"),
        ([0.5, 0.5, 0.5], [0.5, 0.5], "differ"),
        ([[0.5]], [[0.5]], "one number a row"),
    ],
)
def test_bad_probabilities_are_named(propensity, target, says):
    with pytest.raises(ValueError, match=says):
        importance_weights(np.float32(propensity), np.float32(target))
