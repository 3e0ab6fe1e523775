"""Classes that differ in nothing but when their spikes come: each channel fires once in each class.

An example is its class's pattern, late by a shift that all channels share, with jitter, losses and noise. A count of
spikes tells nothing of the class, and neither does any one channel.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8


class TimedPatterns(eqx.Module):
    """Patterns of `classes` classes over `channels` channels, and what examples make of them.

    - `at` [classes, channels]: when each channel begins to fire, `burst` steps long: the middle of one of the first `span` steps.
    - An example is shifted by 0 to `shift` whole steps, evenly; each burst moves by a normal `jitter` steps, each of its spikes is lost with
      probability `lost`, and each channel fires of itself in a step with probability `noise`.
    - It has `steps` = span + shift + burst + 2 steps; a spike outside of them is lost.

    Raises `ValueError` for fewer than two classes, fewer than one channel, a span below 1, a shift below 0, and for
    jitter, losses or noise that cannot be.
    """

    at: Float[Array, "classes channels"]
    jitter: float = eqx.field(static=True)
    lost: float = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    span: int = eqx.field(static=True)
    shift: int = eqx.field(static=True)
    burst: int = eqx.field(static=True)

    def __init__(
        self, classes: int, channels: int, *, key: PRNGKeyArray, span: int = 40, shift: int = 20,
        jitter: float = 1.0, lost: float = 0.1, noise: float = 0.005, burst: int = 1,
    ):  # fmt: skip
        if classes < 2 or channels < 1 or span < 1 or burst < 1 or shift < 0:
            raise ValueError(f"there must be 2 classes, a channel, a step of span and of a burst at least, and a shift from 0 on, not {classes}, {channels}, {span}, {burst}, {shift}")  # fmt: skip
        if not (jitter >= 0 and 0 <= lost < 1 and 0 <= noise < 1):
            raise ValueError(f"jitter must be from 0 on, lost and noise probabilities below 1, not {jitter}, {lost}, {noise}")  # fmt: skip
        self.at = 0.5 + jax.random.randint(key, (classes, channels), 0, span)
        self.jitter, self.lost, self.noise = jitter, lost, noise
        self.span, self.shift, self.burst = span, shift, burst

    @property
    def steps(self) -> int:
        return self.span + self.shift + self.burst + 2

    def draw(
        self, key: PRNGKeyArray, count: int
    ) -> tuple[UInt8[Array, "count steps channels"], Int[Array, " count"]]:
        """Examples, as many of each class as can be, and their classes."""
        keys = jax.random.split(key, 5)
        classes, channels = self.at.shape
        y = jax.random.permutation(keys[0], jnp.arange(count) % classes)
        late = jax.random.randint(keys[1], (count, 1), 0, self.shift + 1)
        when = self.at[y] + late + self.jitter * jax.random.normal(keys[2], (count, channels))
        since = jnp.arange(self.steps)[:, None] - jnp.floor(when)[:, None, :]
        kept = jax.random.bernoulli(keys[3], 1 - self.lost, since.shape)
        fired = (since >= 0) & (since < self.burst) & kept
        noise = jax.random.bernoulli(keys[4], self.noise, fired.shape)
        return fired.astype(jnp.uint8) + noise.astype(jnp.uint8), y

    def matched(
        self, x: UInt8[Array, "count steps channels"]
    ) -> Float[Array, "count classes"]:  # fmt: skip
        """Log likelihoods of the classes, nearly, but for a constant: what a filter that knows patterns and noise can tell.

        Each step counts as a Poisson process of its own. `argmax` of it is the accuracy to be had.
        """
        shifts = jnp.arange(self.shift + 1)
        t = jnp.arange(self.steps) + 0.5
        # [class, shift, step, channel]; the chance that a step is in a burst.
        from_it = t[:, None] - self.at[:, None, None, :] - shifts[:, None, None]
        edge = lambda x: 0.5 * (1 + jax.lax.erf(x / (self.jitter**2 + 1e-4) ** 0.5 / 2**0.5))  # noqa: E731
        inside = edge(from_it + 0.5) - edge(from_it + 0.5 - self.burst)
        rate = (1 - self.lost) * inside + jnp.maximum(self.noise, 1e-4)
        told = jnp.einsum("ntj,cstj->ncs", x.astype(jnp.float32), jnp.log(rate))
        return jax.nn.logsumexp(told, axis=2)
