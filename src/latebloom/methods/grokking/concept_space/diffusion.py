"""Variational diffusion in continuous time with a learned linear noise schedule.

Notation of Kingma et al., "Variational Diffusion Models" (2021): gamma(t) = -log SNR,
alpha^2 = sigmoid(-gamma), sigma^2 = sigmoid(gamma), z_t = alpha x + sigma eps, t in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Denoise = Callable[[Float[Array, "batch ..."], Float[Array, " times"]], Float[Array, "batch ..."]]
"""The predicted noise of noisy samples at the given gamma (one each, or one for all)."""


class LinearSchedule(eqx.Module):
    """gamma(t) = start + |slope| t, both learned."""

    start: Float[Array, ""]
    slope: Float[Array, ""]

    def __init__(self, gamma_min: float = -5.0, gamma_max: float = 10.0):
        if not gamma_min < gamma_max:
            raise ValueError(f"gamma_min {gamma_min} must be smaller than gamma_max {gamma_max}")
        self.start = jnp.asarray(gamma_min, jnp.float32)
        self.slope = jnp.asarray(gamma_max - gamma_min, jnp.float32)

    def __call__(self, t: Float[Array, ...]) -> Float[Array, ...]:
        return self.start + jnp.abs(self.slope) * t


def alpha_sigma(gamma: Float[Array, ...]) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """Scale of the signal and of the noise at `gamma`; their squares sum to 1."""
    return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))


def antithetic_times(key: PRNGKeyArray, batch: int) -> Float[Array, " batch"]:
    """Times t0 + i/batch with one uniform t0 in [0, 1/batch): evenly spread over [0, 1)."""
    return (jax.random.uniform(key) + jnp.arange(batch)) / batch


def posterior(
    z: Float[Array, ...],
    noise: Float[Array, ...],
    gamma_t: Float[Array, ...],
    gamma_s: Float[Array, ...],
) -> tuple[Float[Array, ...], Float[Array, ...]]:
    """Mean and standard deviation of q(z_s | z_t, x), s < t, x being given by its noise in z_t.

    Equations 32 to 34 of Kingma et al.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = alpha_sigma(gamma_t), alpha_sigma(gamma_s)
    c = -jnp.expm1(gamma_s - gamma_t)
    return alpha_s / alpha_t * (z - c * sigma_t * noise), sigma_s * jnp.sqrt(c)


def prior_kl(
    x: Float[Array, "batch ..."], schedule: Callable[[Float[Array, ""]], Float[Array, ""]]
) -> Float[Array, " batch"]:
    """KL(q(z_1 | x) || N(0, 1)) in nats, summed over the coordinates of a sample."""
    variance = jax.nn.sigmoid(schedule(jnp.ones(())))
    kl = 0.5 * (variance + (1 - variance) * x**2 - jnp.log(variance) - 1)
    return kl.reshape(len(x), -1).sum(1)


def losses(
    key: PRNGKeyArray,
    denoise: Denoise,
    schedule: LinearSchedule,
    x: Float[Array, "batch ..."],
    data_noise: Float[Array, ""] | float = 1e-3,
) -> dict[str, Float[Array, " batch"]]:
    """The three terms of the variational bound of each sample, in bits per coordinate.

    `diffusion` = gamma'(t)/2 |eps_hat - eps|^2 at antithetic times, `prior` = KL at t = 1, and
    `reconstruction` = -log N(x; z_0/alpha_0, data_noise^2). Their sum is the training loss. The
    reconstruction depends on the schedule only, and dwarfs the others while gamma(0) is large.
    """
    time_key, noise_key = jax.random.split(key)
    batch, spread = len(x), (-1, *[1] * (x.ndim - 1))
    bits = 1 / (np.prod(x.shape[1:]) * np.log(2))
    t = antithetic_times(time_key, batch)
    gamma, slope = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    alpha, sigma = alpha_sigma(gamma)
    noise, start_noise = jax.random.normal(noise_key, (2, *x.shape))
    z = alpha.reshape(spread) * x + sigma.reshape(spread) * noise
    squared = ((denoise(z, gamma) - noise) ** 2).reshape(batch, -1).sum(1)
    miss = jnp.exp(schedule(jnp.zeros(())) / 2) * start_noise / data_noise
    nats = 0.5 * miss**2 + jnp.log(data_noise) + 0.5 * np.log(2 * np.pi)
    return {
        "diffusion": bits * 0.5 * slope * squared,
        "prior": bits * prior_kl(x, schedule),
        "reconstruction": bits * nats.reshape(batch, -1).sum(1),
    }


def ancestral_sample(
    key: PRNGKeyArray,
    denoise: Denoise,
    schedule: Callable[[Float[Array, ...]], Float[Array, ...]],
    shape: tuple[int, ...],
    steps: int = 50,
) -> Float[Array, "batch ..."]:
    """Samples z_0 of the model, `shape` = (batch, ...), by `steps` equal steps from t = 1 to 0."""
    if steps < 1:
        raise ValueError(f"steps of the sampler must be at least 1, not {steps}")
    start_key, step_key = jax.random.split(key)

    def back(i: Array, z: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        t = 1.0 - i / steps
        gamma_t, gamma_s = schedule(t), schedule(t - 1.0 / steps)
        noise = denoise(z, gamma_t[None])
        mean, deviation = posterior(z, noise, gamma_t, gamma_s)
        return mean + deviation * jax.random.normal(jax.random.fold_in(step_key, i), shape)

    return jax.lax.fori_loop(0, steps, back, jax.random.normal(start_key, shape))


def guided(
    conditional: Denoise, unconditional: Denoise, weight: Float[Array, ""] | float
) -> Denoise:
    """Classifier-free guidance in the authors' form: eps_u + weight (eps_c - eps_u)."""

    def denoise(z: Float[Array, "batch ..."], gamma: Float[Array, " times"]):
        plain = unconditional(z, gamma)
        return plain + weight * (conditional(z, gamma) - plain)

    return denoise
