"""Posteriors of the weights against dense covariances, closed forms and numpy on snapshots."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from latebloom.methods.information.weights import (
    Swag,
    cumulative_log_densities,
    gaussian_kl,
    kl_information,
    layer_index,
    log_density,
    low_rank,
    multi_seed_information,
    sample,
    single_seed_information,
    stack,
)


class Net(eqx.Module):
    layers: list

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.layers = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3), (4,))]


@pytest.fixture(scope="module")
def snapshots():
    return [[Net(100 * p + t) for t in range(12)] for p in range(3)]


@pytest.fixture(scope="module")
def posteriors(snapshots):
    found = []
    for series in snapshots:
        swag = Swag.start(series[0], columns=5)
        for net in series:
            swag = swag.collect(net)
        found.append(swag)
    return found


def test_moments_and_deviations_of_snapshots(snapshots, posteriors):
    for series, swag in zip(snapshots, posteriors, strict=True):
        values = np.stack([np.concatenate([np.ravel(x) for x in net.layers]) for net in series])
        np.testing.assert_allclose(swag.mean, values.mean(0), atol=1e-6)
        np.testing.assert_allclose(swag.variance(), values.var(0), rtol=1e-4, atol=1e-6)
        means = np.cumsum(values, 0) / np.arange(1, 13)[:, None]
        want = (values - means)[-5:]
        np.testing.assert_allclose(np.sort(swag.deviations, 0), np.sort(want, 0), atol=1e-6)
        assert swag.blocks() == {".layers[0]": slice(0, 6), ".layers[1]": slice(6, 10)}


def test_variance_survives_single_precision():
    values = np.random.default_rng(0).normal(1000, 0.01, (20, 4)).astype(np.float32)
    swag = Swag.start(jnp.zeros(4))
    for row in values:
        swag = swag.collect(jnp.asarray(row))
    np.testing.assert_allclose(swag.variance(), values.astype(float).var(0), rtol=0.05)


def test_nothing_is_collected_where_it_is_not_time(posteriors):
    before = posteriors[0]
    assert eqx.tree_equal(before, before.collect(Net(7), when=False))
    with pytest.raises(ValueError, match="at least 2, not 1"):
        Swag.start(Net(0), columns=1)
    with pytest.raises(ValueError, match="posterior 1 has 0 snapshots"):
        stack([before, Swag.start(Net(0))])


def test_woodbury_density_against_the_dense_covariance():
    rng = np.random.default_rng(4)
    for n, k in ((30, 10), (4, 10)):
        mean, theta = rng.normal(size=n), rng.normal(size=(5, n))
        diagonal, columns = np.exp(rng.normal(size=n)), rng.normal(size=(k, n))
        dense = np.diag(diagonal) + columns.T @ columns
        want = stats.multivariate_normal(mean, dense).logpdf(theta)
        found = jax.jit(log_density)(*map(jnp.asarray, (theta, mean, diagonal, columns)))
        np.testing.assert_allclose(found, want, rtol=2e-4)


def covariances(swag, as_published=False):
    """Dense ones [posterior, n, n], block by block."""
    diagonal, columns = (np.asarray(a, float) for a in low_rank(swag, as_published))
    dense = np.zeros((len(diagonal), *[diagonal.shape[1]] * 2))
    for block in swag.blocks().values():
        part = columns[:, :, block]
        dense[:, block, block] = part.swapaxes(1, 2) @ part
    return dense + np.einsum("pn,nm->pnm", diagonal, np.eye(diagonal.shape[1]))


def test_draws_have_the_covariance_that_is_evaluated(posteriors):
    swag = stack(posteriors)
    draws = np.asarray(eqx.filter_jit(sample)(swag, jax.random.key(0), 40_000))
    for rows, mean, dense in zip(draws, swag.mean, covariances(swag), strict=True):
        np.testing.assert_allclose(rows.mean(0), mean, atol=0.05)
        np.testing.assert_allclose(np.cov(rows.T), dense, atol=0.12)


def test_published_densities_clamp_and_do_not_divide(posteriors):
    swag = stack(posteriors)
    (diagonal, columns), (same, published) = low_rank(swag), low_rank(swag, True)
    np.testing.assert_allclose(columns, swag.deviations / 2, rtol=1e-6)
    np.testing.assert_allclose(published, np.maximum(swag.deviations, 1e-30), rtol=1e-6)
    np.testing.assert_array_equal(diagonal, same)
    np.testing.assert_allclose(diagonal, swag.variance() + 1e-6, rtol=1e-6)


def test_cumulative_densities_add_up_layers(posteriors):
    swag, key = stack(posteriors), jax.random.key(3)
    theta = np.asarray(sample(swag, key, 2))
    for as_published in (False, True):
        log_q = cumulative_log_densities(swag, key, samples=2, as_published=jnp.bool_(as_published))
        assert log_q.shape == (2, 3, 2, 3)
        dense = covariances(swag, as_published)
        for j in range(3):
            for layer, end in enumerate((6, 10)):
                law = stats.multivariate_normal(swag.mean[j, :end], dense[j, :end, :end])
                want = law.logpdf(theta[..., :end])
                np.testing.assert_allclose(log_q[layer, ..., j], want, rtol=1e-3, atol=1e-3)
    assert [layer_index(path) for path in swag.blocks()] == [0, 1]
    with pytest.raises(ValueError, match="names no layer"):
        layer_index(".classifier.bias")


def test_estimates_by_loops():
    layers, d, m, t = 2, 3, 2, 4
    log_q = np.random.default_rng(5).normal(size=(layers, d, m, t, d, m))
    jensen, logsumexp = np.zeros((2, layers, m))
    multi = np.zeros(layers)
    for layer in range(layers):
        for i in range(d):
            for s in range(m):
                for draw in range(t):
                    row = log_q[layer, i, s, draw]
                    jensen[layer, s] += (row[i, s] - row[:, s].mean()) / (d * t)
                    prior = np.log(np.exp(row[:, s]).mean())
                    logsumexp[layer, s] += (row[i, s] - prior) / (d * t)
                    multi[layer] += (row[i].mean() - row.mean()) / (d * m * t)
    np.testing.assert_allclose(single_seed_information(log_q), jensen, rtol=1e-5)
    np.testing.assert_allclose(single_seed_information(log_q, "logsumexp"), logsumexp, rtol=1e-4)
    np.testing.assert_allclose(multi_seed_information(log_q), multi, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="'jensen' or 'logsumexp', not 'mean'"):
        single_seed_information(log_q, "mean")


def test_divergences_of_diagonal_gaussians():
    mean, variance = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[1.0, 4.0], [0.5, 2.0]])
    found = np.asarray(gaussian_kl(mean, variance))
    assert np.diag(found) == pytest.approx([0, 0], abs=1e-6)
    want = 0.5 * (4 / 0.5 + 4 / 2 + 1 / 0.5 + 4 / 2 - 2 + np.log(0.5) + np.log(2 / 4))
    assert found[0, 1] == pytest.approx(want, rel=1e-5)
    points = stats.norm(mean[0], np.sqrt(variance[0])).rvs((200_000, 2), random_state=0)
    logs = [
        stats.norm(m, np.sqrt(v)).logpdf(points).sum(1) for m, v in zip(mean, variance, strict=True)
    ]
    assert found[0, 1] == pytest.approx((logs[0] - logs[1]).mean(), rel=0.02)


def test_what_the_estimates_do_at_their_ends(posteriors):
    alike = stack([posteriors[0]] * 3)
    log_q = cumulative_log_densities(alike, jax.random.key(0))[:, :, None, :, :, None]
    for how in ("jensen", "logsumexp"):
        np.testing.assert_allclose(single_seed_information(log_q, how), 0, atol=1e-3)
    np.testing.assert_allclose(kl_information(alike), 0, atol=1e-4)
    far = [eqx.tree_at(lambda s: s.mean, p, p.mean + 1e3 * i) for i, p in enumerate(posteriors)]
    log_q = cumulative_log_densities(stack(far), jax.random.key(0))[:, :, None, :, :, None]
    np.testing.assert_allclose(single_seed_information(log_q, "logsumexp"), np.log(3), rtol=1e-5)
    np.testing.assert_allclose(kl_information(stack(far)), np.log(3), rtol=1e-5)
    assert (single_seed_information(log_q) > 1000).all()
