"""Early learning and memorisation in a linear model: softmax regression on two Gaussians.

Liu et al. (arXiv 2007.00151), section 3, Theorem 1 and appendix A.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.methods.noisy_labels import losses

EARLY = 0.1  # the early-learning stage ends when theta . v passes this


class LinearState(NamedTuple):
    x: Float[Array, "n p"]
    true: Float[Array, " n"]  # +-1
    labels: Float[Array, " n"]  # +-1
    theta: Float[Array, " p"]
    targets: Float[Array, "n 2"]
    step: Int[Array, ""]


class TwoGaussians(Process):
    """Full-batch descent of theta, with logits (theta x, -theta x), from the sphere of radius 2.

    x ~ N(+-v, sigma^2 I) with |v| = 1; a share `flipped` (Delta) of the labels is drawn at random, so
    that half of them are wrong. Descent at `rate` (eta) on cross-entropy plus `strength` times the
    early-learning term, whose targets are averaged with `beta`; strength 0 is the theorem's setting.
    Each seed runs `problems` independent draws (dimension problem).

    - `n` examples, `p` features of `most` that are held: all settings but `n` and `most` are array
      leaves and share one program.

    Observed: `alignment` theta . v; `wrong_accuracy`, `clean_accuracy`: shares of the two subsets
    predicted as they truly are; `test_accuracy`, of the distribution itself; `wrong_residual`,
    `clean_residual`: mean of kappa^2, kappa = tanh(theta x) - label; `correlation`: cosine of -gradient
    and v; `wrong_pull`, `clean_pull`: mean |gradient in the first logit| of both subsets.

    Raises `ValueError` for p out of range.
    """

    p: Int[Array, ""]
    sigma: Float[Array, ""]
    flipped: Float[Array, ""]
    rate: Float[Array, ""]
    strength: Float[Array, ""]
    beta: Float[Array, ""]
    n: int = eqx.field(static=True)
    most: int = eqx.field(static=True)
    problems: int = eqx.field(static=True)

    def __init__(
        self, *, n: int = 200, p: int = 170, sigma: float = 0.1, flipped: float = 0.4,
        rate: float = 0.9, strength: float = 0.0, beta: float = 0.9, most: int | None = None,
        problems: int = 1,
    ):  # fmt: skip
        most = most or p
        if not 2 <= p <= most:
            raise ValueError(f"p must be from 2 to {most}, the features held, not {p}")
        self.p, self.n, self.most, self.problems = jnp.int32(p), n, most, problems
        self.sigma, self.flipped, self.rate, self.strength, self.beta = map(
            jnp.float32, (sigma, flipped, rate, strength, beta)
        )

    def init(self, key: PRNGKeyArray) -> LinearState:
        return jax.vmap(self._draw)(jax.random.split(key, self.problems))

    def _draw(self, key: PRNGKeyArray) -> LinearState:
        keys = jax.random.split(key, 5)
        used = jnp.arange(self.most) < self.p
        true = jax.random.rademacher(keys[0], (self.n,), jnp.float32)
        drawn = jax.random.rademacher(keys[1], (self.n,), jnp.float32)
        changed = jax.random.uniform(keys[2], (self.n,)) < self.flipped
        spread = self.sigma * used * jax.random.normal(keys[3], (self.n, self.most))
        x = spread.at[:, 0].add(true)  # v is the first axis: the law does not depend on it
        theta = used * jax.random.normal(keys[4], (self.most,))
        theta = 2 * theta / jnp.linalg.norm(theta)
        labels = jnp.where(changed, drawn, true)
        return LinearState(x, true, labels, theta, jnp.zeros((self.n, 2)), jnp.int32(0))

    def step(self, state: LinearState) -> LinearState:
        return jax.vmap(self._step)(state)

    def _step(self, state: LinearState) -> LinearState:
        gradient, targets, _ = self._gradient(state)
        theta = state.theta - self.rate * gradient
        return state._replace(theta=theta, targets=targets, step=state.step + 1)

    def _gradient(self, state: LinearState) -> tuple[Array, Array, Array]:
        """Gradient in theta, targets moved, and each example's gradient in its first logit."""
        z = state.x @ state.theta
        logits = jnp.stack([z, -z], axis=-1)
        targets = losses.moved(state.targets, losses.predictions(logits), self.beta)
        classes = (state.labels < 0).astype(jnp.int32)
        pull = losses.elr_gradient(logits, classes, targets, self.strength)[:, 0]
        return pull @ state.x / self.n, targets, pull

    def observe(self, state: LinearState) -> dict[str, Array]:
        return jax.vmap(self._observe)(state)

    def _observe(self, state: LinearState) -> dict[str, Array]:
        gradient, _, pull = self._gradient(state)
        z, wrong = state.x @ state.theta, state.labels != state.true
        squared = (jnp.tanh(z) - state.labels) ** 2
        right = (z * state.true > 0).astype(jnp.float32)

        def mean(values: Array, subset: Array) -> Array:
            return jnp.where(subset, values, 0).sum() / jnp.maximum(subset.sum(), 1)

        size = jnp.linalg.norm(state.theta)
        return {
            "alignment": state.theta[0],
            "wrong_accuracy": mean(right, wrong),
            "clean_accuracy": mean(right, ~wrong),
            "test_accuracy": jax.scipy.stats.norm.cdf(
                state.theta[0] / jnp.maximum(self.sigma * size, 1e-12)
            ),
            "wrong_residual": mean(squared, wrong),
            "clean_residual": mean(squared, ~wrong),
            "correlation": -gradient[0] / jnp.maximum(jnp.linalg.norm(gradient), 1e-12),
            "wrong_pull": mean(jnp.abs(pull), wrong),
            "clean_pull": mean(jnp.abs(pull), ~wrong),
        }

    def quantities(self) -> dict[str, Quantity]:
        about = {
            "alignment": "θ · v",
            "wrong_accuracy": "wrong labels, predicted right",
            "clean_accuracy": "right labels, predicted right",
            "test_accuracy": "accuracy on the distribution",
            "wrong_residual": "mean κ² where the label is wrong",
            "clean_residual": "mean κ² where the label is right",
            "correlation": "cosine of -gradient and v",
            "wrong_pull": "mean |gradient in a logit| where the label is wrong",
            "clean_pull": "mean |gradient in a logit| where the label is right",
        }
        return {name: Quantity("1", ("problem",), about=text) for name, text in about.items()}


def side_by_side(trace: xr.Dataset) -> xr.Dataset:
    """A trace of `TwoGaussians` with each problem of each seed as a seed of its own.

    Observables [seed, step, problem] become [seed * problem, step], the problems of a seed together.
    """
    rows = {name: values.transpose("seed", "problem", "step").values.reshape(-1, trace.sizes["step"])
            for name, values in trace.items() if "problem" in values.dims}  # fmt: skip
    drawn = {name: (("seed", "step"), values) for name, values in rows.items()}
    return xr.Dataset(drawn, {"step": trace.step.values}, trace.attrs)
