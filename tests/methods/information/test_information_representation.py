"""Information of layers against closed forms and brute force."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from latebloom.methods.information.representation import (
    NATS_PER_BIT,
    binned_information,
    choose_sigma,
    gaussian_log_densities,
    information,
    probe_with_noise,
)


def channel(snr, n, dims=1, seed=0):
    """x ~ N(0, snr) in each dimension, sent through noise of variance 1."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, np.sqrt(snr), (n, dims))
    return jnp.asarray(mean + rng.normal(size=mean.shape)), jnp.asarray(mean)


@pytest.mark.parametrize("snr, dims", [(0.5, 1), (15.0, 1), (200.0, 1), (3.0, 2)])
def test_gaussian_channel_in_closed_form(snr, dims):
    bits = 0.5 * dims * np.log2(1 + snr)
    assert bits < 4
    z, mean = channel(snr, 2000, dims)
    found = information(z, mean, jnp.ones_like(mean)) / NATS_PER_BIT
    assert found == pytest.approx(bits, abs=0.1)
    # E log p(z|x_j) over independent pairs is lower than log p(z|x) by snr a dimension, in nats
    upper = information(z, mean, jnp.ones_like(mean), "jensen")
    assert upper == pytest.approx(snr * dims, rel=0.1)


def test_monte_carlo_estimate_saturates_at_the_log_of_the_sample():
    z, mean = channel(1e8, 64)
    assert information(z, mean, jnp.ones_like(mean)) == pytest.approx(np.log(64), abs=0.01)


def test_independence_gives_nothing():
    z = jax.random.normal(jax.random.key(0), (200, 3))
    same = jnp.zeros((200, 3))
    for how in ("mc", "jensen"):
        assert information(z, same, same + 1, how) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="'mc' or 'jensen', not 'ksg'"):
        information(z, same, same + 1, "ksg")


def test_densities_and_estimates_by_brute_force():
    rng = np.random.default_rng(1)
    z, mean, sigma = rng.normal(size=(3, 12, 4))
    sigma = np.exp(sigma)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    pairs = stats.norm(mean[None], sigma[None]).logpdf(z[:, None]).sum(-1)
    np.testing.assert_allclose(gaussian_log_densities(z, mean, sigma), pairs, rtol=1e-5)

    def by_hand(rows, how):
        block = pairs[np.ix_(rows, rows)]
        marginal = block.mean(1) if how == "jensen" else np.log(np.exp(block).mean(1))
        return (np.diag(block) - marginal).mean()

    for how in ("mc", "jensen"):
        everyone = by_hand(np.arange(12), how)
        assert information(z, mean, sigma, how) == pytest.approx(everyone, rel=1e-4)
        classes = [by_hand(np.flatnonzero(labels == c), how) for c in range(3)]
        found = information(z, mean, sigma, how, jnp.asarray(labels))
        assert found == pytest.approx(np.dot(classes, [5, 4, 3]) / 12, rel=1e-4)
        some = np.array([0, 3, 5, 11])
        weights = jnp.zeros(12).at[some].set(1.0)
        found = information(z, mean, sigma, how, weights=weights)
        assert found == pytest.approx(by_hand(some, how), rel=1e-4)


def test_the_gradient_of_densities_is_that_of_the_formula():
    rng = np.random.default_rng(4)
    z, mean, sigma = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)), np.exp(rng.normal(size=(5, 3)))  # fmt: skip
    pull = rng.normal(size=(7, 5))

    def ours(z, mean, sigma):
        return (pull * gaussian_log_densities(z, mean, sigma)).sum()

    away, weight = z[:, None] - mean, pull[..., None]
    want = (
        -(weight * away / sigma**2).sum(1),
        (weight * away / sigma**2).sum(0),
        (weight * (away**2 / sigma**3 - 1 / sigma)).sum(0),
    )
    found = jax.jit(jax.grad(ours, (0, 1, 2)))(*map(jnp.float32, (z, mean, sigma)))
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_bins_by_counting():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 2)).astype(np.float32)
    labels = rng.integers(0, 3, 60)

    def entropy(rows):
        edges = np.linspace(rows.min(), rows.max(), 4 + 1)
        codes = np.clip(np.digitize(rows, edges) - 1, 0, 3)
        counts = np.array(list(Counter(map(tuple, codes)).values()))
        return stats.entropy(counts / counts.sum())

    assert binned_information(features, 4) == pytest.approx(entropy(features), rel=1e-5)
    classes = [entropy(features[labels == c]) for c in range(3)]
    found = binned_information(features, 4, jnp.asarray(labels))
    assert found == pytest.approx(np.dot(classes, np.bincount(labels) / 60), rel=1e-5)
    assert binned_information(features, 10**5) == pytest.approx(np.log(60), rel=1e-5)
    assert binned_information(jnp.ones((60, 2))) == pytest.approx(0, abs=1e-6)


def test_sigma_rule_by_brute_force():
    rng = np.random.default_rng(3)
    violated = 0
    for _ in range(200):
        table, marginal = rng.normal(size=(2, 5, 4)).astype(np.float32)
        want, floor, count = [0] * 4, -np.inf, 0
        for layer in (3, 2, 1, 0):
            fit = [s for s in range(5) if table[s, layer] >= floor]
            count += not fit
            want[layer] = max(fit or range(5), key=lambda s: marginal[s, layer])
            floor = table[want[layer], layer]
        chosen, violations = choose_sigma(table, marginal)
        assert chosen.tolist() == want and violations == count
        violated += count > 0
    assert 0 < violated < 200


def test_noise_probe_agrees_with_the_estimator_and_keeps_the_inequality():
    key = jax.random.key(0)
    x = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    layers = [3 * x, x @ np.ones((3, 2), np.float32)]
    found = probe_with_noise(layers, labels, key)
    assert found.violations == 0 and found.information[0] >= found.information[1]
    noise = np.asarray(jax.random.normal(key, (150, 5)))
    for place, layer in enumerate(layers):
        sigma = np.full(layer.shape, found.sigma[place], np.float32)
        z = layer + sigma * noise[:, 3 * place : 3 * place + layer.shape[1]]
        for labelled, value in ((None, found.information), (labels, found.given_class)):
            want = information(z, layer, sigma, labels=labelled)
            assert value[place] == pytest.approx(float(want), rel=1e-3)
    away = np.square(layers[1][:, None] - layers[1]).sum(-1)
    density = np.exp(-away / 2) / (2 * np.pi)  # sigma 1, two dimensions
    np.fill_diagonal(density, 0)
    want = np.log(density.sum(1) / 149).mean()
    assert found.log_marginal[5, 1] == pytest.approx(want, rel=1e-4)
    upper = probe_with_noise([layers[1]], labels, key, how="jensen", sigmas=(3.0,))
    assert upper.table[0, 0] == pytest.approx(away.mean() / (2 * 9), rel=0.1)
