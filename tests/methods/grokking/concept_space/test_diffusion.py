"""Variational diffusion against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from latebloom.methods.grokking.concept_space.diffusion import (
    LinearSchedule,
    alpha_sigma,
    ancestral_sample,
    antithetic_times,
    guided,
    losses,
    posterior,
    prior_kl,
)

GAMMAS = st.floats(-12, 12)


@given(GAMMAS)
@settings(deadline=None)
def test_alpha_and_sigma_have_the_right_snr(gamma):
    alpha, sigma = (float(v) for v in alpha_sigma(jnp.float32(gamma)))
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-5)
    assert 2 * (np.log(alpha) - np.log(sigma)) == pytest.approx(-gamma, abs=1e-3)


def test_schedule_is_linear_and_increasing_even_with_a_negative_slope():
    schedule = LinearSchedule(-5.0, 10.0)
    assert np.allclose(schedule(jnp.array([0.0, 0.5, 1.0])), [-5, 2.5, 10])
    negative = LinearSchedule.__new__(LinearSchedule)
    object.__setattr__(negative, "start", jnp.float32(-5))
    object.__setattr__(negative, "slope", jnp.float32(-15))
    assert np.allclose(negative(jnp.array([0.0, 1.0])), [-5, 10])


@given(st.floats(-6, 0), st.floats(0.1, 6), st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=50, deadline=None)
def test_posterior_is_the_conditional_of_the_joint_gaussian(gamma_s, ahead, x, z):
    """q(z_s | z_t, x) by conditioning the joint Gaussian of (z_s, z_t) given x."""
    gamma_t = gamma_s + ahead
    a_s, a_t = (1 / (1 + np.exp(g)) for g in (gamma_s, gamma_t))  # squared alphas
    s_s, s_t = 1 - a_s, 1 - a_t
    covariance = np.sqrt(a_t / a_s) * s_s
    mean = np.sqrt(a_s) * x + covariance / s_t * (z - np.sqrt(a_t) * x)
    variance = s_s - covariance**2 / s_t
    noise = (z - np.sqrt(a_t) * x) / np.sqrt(s_t)
    found = posterior(*(jnp.float32(v) for v in (z, noise, gamma_t, gamma_s)))
    assert float(found[0]) == pytest.approx(mean, abs=2e-3)
    assert float(found[1]) ** 2 == pytest.approx(variance, rel=2e-3, abs=1e-5)


def test_prior_kl_equals_the_integral():
    x, gamma = 0.8, 1.5
    mean, deviation = (1 / (1 + np.exp(gamma))) ** 0.5 * x, (1 / (1 + np.exp(-gamma))) ** 0.5
    q, p = stats.norm(mean, deviation), stats.norm()
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -12, 12)
    found = prior_kl(jnp.full((1, 2), x), lambda t: gamma * t)
    assert float(found[0]) == pytest.approx(2 * expected, rel=1e-4)


def test_times_are_antithetic():
    t = np.sort(np.asarray(antithetic_times(jax.random.key(0), 8)))
    assert np.allclose(np.diff(t), 1 / 8, atol=1e-6)
    assert 0 <= t[0] < 1 / 8


MEAN, DEVIATION = 0.7, 0.3


def gaussian_denoiser(z, gamma):
    """The best prediction of the noise if the data are normal with MEAN and DEVIATION."""
    alpha, sigma = alpha_sigma(gamma[:, None])
    return sigma * (z - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2)


def test_sampler_with_the_optimal_denoiser_reproduces_the_gaussian():
    schedule = LinearSchedule(-8.0, 8.0)
    x = np.asarray(
        jax.jit(lambda k: ancestral_sample(k, gaussian_denoiser, schedule, (20_000, 1), 200))(
            jax.random.key(0)
        )
    )
    assert x.mean() == pytest.approx(MEAN, abs=0.01)
    assert x.std() == pytest.approx(DEVIATION, rel=0.03)
    assert stats.kurtosis(x[:, 0]) == pytest.approx(0, abs=0.15)


def test_bound_of_the_optimal_denoiser_is_the_entropy():
    """With a perfect denoiser the diffusion term is gamma'/2 E|error|^2, integrated over t."""
    schedule = LinearSchedule(-8.0, 8.0)
    x = MEAN + DEVIATION * jax.random.normal(jax.random.key(1), (50_000, 1))
    terms = losses(jax.random.key(2), gaussian_denoiser, schedule, x, 0.05)

    def expected(gamma):
        a, s = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
        return 0.5 * a * DEVIATION**2 / (a * DEVIATION**2 + s)

    area, _ = integrate.quad(expected, -8, 8)
    assert float(terms["diffusion"].mean()) == pytest.approx(area / np.log(2), rel=0.02)
    miss = np.exp(-8.0) / 0.05**2
    nats = 0.5 * miss + np.log(0.05) + 0.5 * np.log(2 * np.pi)
    assert float(terms["reconstruction"].mean()) == pytest.approx(nats / np.log(2), rel=0.02)


def test_loss_of_the_schedule_has_a_gradient():
    x = jax.random.normal(jax.random.key(0), (64, 2))
    slope = jax.grad(
        lambda s: sum(t.mean() for t in losses(jax.random.key(1), gaussian_denoiser, s, x).values())
    )(LinearSchedule(-5.0, 10.0))
    assert float(slope.start) > 100  # the reconstruction term pulls gamma(0) down
    assert np.isfinite(float(slope.slope))


@given(st.floats(0, 3))
@settings(max_examples=10, deadline=None)
def test_guidance_interpolates(weight):
    def one(value):
        return lambda z, gamma: jnp.full_like(z, value)

    mixed = guided(one(2.0), one(1.0), weight)(jnp.zeros((1, 1)), jnp.zeros(1))
    assert float(mixed[0, 0]) == pytest.approx(1 + weight, rel=1e-5)


def test_bad_settings():
    with pytest.raises(ValueError, match="gamma_min"):
        LinearSchedule(3.0, 1.0)
    with pytest.raises(ValueError, match="steps of the sampler"):
        ancestral_sample(jax.random.key(0), gaussian_denoiser, LinearSchedule(), (1, 1), 0)
