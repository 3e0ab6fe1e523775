"""FFJORD: densities by an equation whose divergence is integrated with it, with the penalties of its solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.odes import Solution, solve
from latebloom.core.training import SupervisedState
from latebloom.methods.continuous.neural_ode import NeuralODELearner, Told, tolerances
from latebloom.methods.continuous.regularisers import KINDS
from latebloom.nn.mlp import Linear


class ConcatSquash(eqx.Module):
    """(W x + b) sigmoid(g t) + v t + c.

    Source: Grathwohl et al. 2019 (arXiv 1810.01367); the authors' code.
    """

    map: Linear
    gate: Float[Array, " out"]
    drift: Float[Array, " out"]
    offset: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        one, two, three = jax.random.split(key, 3)
        bound = float(np.sqrt(6 / (1 + out_size)))
        self.map = Linear(in_size, out_size, key=one)
        self.gate = jax.random.uniform(two, (out_size,), jnp.float32, -bound, bound)
        self.drift = jax.random.uniform(three, (out_size,), jnp.float32, -bound, bound)
        self.offset = jnp.zeros(out_size)

    def __call__(self, t: Any, x: Float[Array, "batch in"]) -> Float[Array, "batch out"]:
        return self.map(x) * jax.nn.sigmoid(self.gate * t) + self.drift * t + self.offset


class SquashField(eqx.Module):
    """Three `ConcatSquash` layers with softplus between."""

    layers: tuple[ConcatSquash, ...]

    def __init__(self, size: int, hidden: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        sizes = ((size, hidden), (hidden, hidden), (hidden, size))
        self.layers = tuple(ConcatSquash(*s, key=k) for s, k in zip(sizes, keys, strict=True))

    def __call__(self, t: Any, x: Float[Array, "batch size"]) -> Float[Array, "batch size"]:
        for layer in self.layers[:-1]:
            x = jax.nn.softplus(layer(t, x))
        return self.layers[-1](t, x)


class Flow(eqx.Module):
    """A density of x [batch, size]: that of N(0, 1) at time 1 of an equation that starts from x at 0, changed by its divergence.

    - `field(t, z)`: a module over batches.
    """

    field: Any
    rtol: float = eqx.field(static=True, default=1e-5)
    atol: float = eqx.field(static=True, default=1e-5)
    max_steps: int = eqx.field(static=True, default=256)

    def with_divergence(self, noise: Float[Array, "batch size"] | None) -> Any:
        """The field of (z, the log density's change [batch]); by Hutchinson's estimate with `noise`, exactly without."""
        return _WithDivergence(self.field, noise)

    def solution(
        self, x: Float[Array, "batch size"], noise: Array | None = None, **options: Any
    ) -> Solution:
        given = tolerances(self) | options
        return solve(self.with_divergence(noise), 0.0, 1.0, (x, jnp.zeros(len(x), x.dtype)), **given)  # fmt: skip

    def __call__(
        self, x: Float[Array, "batch size"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, " batch"]:  # fmt: skip
        """Log densities, with the exact divergence."""
        return log_density(*self.solution(x).y)


def log_density(z: Float[Array, "batch size"], change: Float[Array, " batch"]) -> Float[Array, " batch"]:  # fmt: skip
    """That of what an equation brought to z, `change` being the integral of the divergence."""
    return -0.5 * (z * z + np.log(2 * np.pi)).sum(axis=-1) + change


class _WithDivergence(eqx.Module):
    field: Any
    noise: Array | None

    def __call__(self, t: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        z, _ = state
        if self.noise is not None:
            slope, back = jax.vjp(lambda z: self.field(t, z), z)
            (row,) = back(self.noise.astype(slope.dtype))
            return slope, (row * self.noise).sum(axis=-1)
        basis = jnp.eye(z.shape[-1], dtype=z.dtype)

        def along(unit: Array) -> tuple[Array, Array]:
            slope, moved = jax.jvp(lambda z: self.field(t, z), (z,), (jnp.broadcast_to(unit, z.shape),))  # fmt: skip
            return slope, (moved * unit).sum(axis=-1)

        slopes, parts = jax.vmap(along)(basis)
        return slopes[0], parts.sum(axis=0)


class _Regularised(eqx.Module):
    """RNODE within a flow: kinetic energy and the row of the Jacobian that the divergence has already."""

    inner: _WithDivergence

    def __call__(self, t: Any, state: Any) -> Any:
        (z, _), r = state
        slope, back = jax.vjp(lambda z: self.inner.field(t, z), z)
        (row,) = back(self.inner.noise.astype(slope.dtype))  # pyright: ignore
        size = jnp.mean(slope * slope) + jnp.mean(row * row)
        return (slope, (row * self.inner.noise).sum(axis=-1)), size.astype(r.dtype)


class FlowLearner(NeuralODELearner):
    """`NeuralODELearner` of a `Flow`, by maximum likelihood; y of the data set is not looked at.

    The divergence is estimated with one noise a step. `train_loss` and `test_loss` are negative log likelihoods, exact.
    Penalties: "none", those of the solver, and "kinetic". `evaluations` are of the field with its divergence.
    """

    def __init__(self, **given: Any):
        if given.get("end_width", 0.0):
            raise ValueError("a flow has no end_width")
        super().__init__(loss=_negative, accuracy=False, **given)

    @classmethod
    def penalties(cls) -> tuple[str, ...]:
        return ("none", *KINDS, "kinetic")

    def cost(
        self, model: Flow, x: Array, y: Array, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, Told]:
        noise = jax.random.normal(key, x.shape, x.dtype)
        plain = model.with_divergence(noise)
        start = (x, jnp.zeros(len(x), x.dtype))
        field = _Regularised(plain) if self.penalty == "kinetic" else None
        (z, change), told = self.solved(plain, start, 1.0, key, tolerances(model), augmented=field)
        return self.charged(self.objective(log_density(z, change), y, step), told, step)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        data = self.dataset(state)
        found = state.model.solution(data.x_test, loop="forward", record=self.show > 0)
        train = state.model.solution(data.x_train, loop="forward").y
        losses = (-log_density(*y).mean() for y in (train, found.y))
        return dict(zip(("train_loss", "test_loss"), losses, strict=True)) | self.costs(found)


def _negative(found: Array, _: Array) -> Array:
    return -found


def squash_flow(size: int, hidden: int, **options: Any) -> Callable[[PRNGKeyArray], Flow]:
    """Builds the paper's flow from a key."""
    return lambda key: Flow(SquashField(size, hidden, key=key), **options)
