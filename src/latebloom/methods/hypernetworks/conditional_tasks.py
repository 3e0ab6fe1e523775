"""Tasks with a setting: a family of waves, and classification with costs that shift."""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.data import load_table


class Waves(eqx.Module):
    """Fit y = sin(2π (1 + 3 γ_1) x) + mean_j>1 (2 γ_j - 1) cos(2π j x) for x in [-1/2, 1/2].

    The loss is the squared error; the exact error on a fine grid is the exam.

    - `size`: points of a batch.
    """

    size: int = eqx.field(static=True, default=64)

    def target(self, settings: Float[Array, " d"], x: Float[Array, " n"]) -> Float[Array, " n"]:
        wave = jnp.sin(2 * np.pi * (1 + 3 * settings[0]) * x)
        if len(settings) == 1:
            return wave
        j = jnp.arange(2, len(settings) + 1)
        others = jnp.cos(2 * np.pi * j * x[:, None])
        return wave + (others * (2 * settings[1:] - 1)).mean(-1)

    def sample(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        return jax.random.uniform(key, (self.size,), minval=-0.5, maxval=0.5)

    def loss(
        self, primary: eqx.Module, settings: Float[Array, " d"], batch: Float[Array, " n"]
    ) -> Float[Array, ""]:
        found = primary(batch[:, None])[:, 0]  # pyright: ignore
        return jnp.square(found - self.target(settings, batch)).mean()

    def evaluate(self, primary: eqx.Module, settings: Float[Array, " d"]) -> Float[Array, ""]:
        return self.loss(primary, settings, jnp.linspace(-0.5, 0.5, 201))


class ShiftingCosts(eqx.Module):
    """Classify images where γ sets what a mistake costs: 2 γ on odd classes, 2 (1 - γ) on even ones.

    The loss is the cross-entropy weighted by cost; at γ = 0 the odd classes do not matter.

    - `x`, `y`: training images [n, h, w, c] and labels; `x_test`, `y_test`: of the exam.
    - `size`: images of a batch.
    """

    x: Float[Array, "n h w c"]
    y: Int[Array, " n"]
    x_test: Float[Array, "m h w c"]
    y_test: Int[Array, " m"]
    size: int = eqx.field(static=True, default=64)

    def sample(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        rows = jax.random.randint(key, (self.size,), 0, len(self.x))
        return self.x[rows], self.y[rows]

    def loss(
        self, primary: eqx.Module, settings: Float[Array, " d"], batch: tuple[Array, Array]
    ) -> Float[Array, ""]:
        x, y = batch
        logs = jax.nn.log_softmax(primary(x))  # pyright: ignore
        cost = 2 * jnp.where(y % 2 == 1, settings[0], 1 - settings[0])
        return -(cost * jnp.take_along_axis(logs, y[:, None], axis=1)[:, 0]).mean()

    def evaluate(self, primary: eqx.Module, settings: Float[Array, " d"]) -> Float[Array, ""]:
        return self.loss(primary, settings, (self.x_test, self.y_test))


def digits_with_costs(size: int) -> ShiftingCosts:
    """`ShiftingCosts` on scikit-learn's 1,797 digits of 8 x 8 pixels, all but 1,400 for the exam."""
    x, y = _digits()
    return ShiftingCosts(x[:1400], y[:1400], x[1400:], y[1400:], size)


@cache
def _digits() -> tuple[Float[Array, "n 8 8 1"], Int[Array, " n"]]:
    table = load_table("digits-8x8")
    order = np.random.default_rng(0).permutation(len(table.x))
    x = table.x.reshape(-1, 8, 8, 1)[order] / 16
    return jnp.asarray(x, jnp.float32), jnp.asarray(table.y[order], jnp.int32)
