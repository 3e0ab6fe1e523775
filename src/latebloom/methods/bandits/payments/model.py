"""Predicted rewards: logistic regression on the context, crossed with the action."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.payments.world import Features


class Rows(NamedTuple):
    """Logged decisions to learn from; a row counts as often as `weight` says (0: void)."""

    features: Features
    allowed: Bool[Array, "n k"]
    action: Int[Array, " n"]
    propensity: Float[Array, " n"]
    reward: Float[Array, " n"]
    weight: Float[Array, " n"]


class Weights(NamedTuple):
    """A coefficient of each feature for all actions, and its deviation for each action."""

    shared: Float[Array, " f"]
    crossed: Float[Array, "f k"]

    def table(self) -> Float[Array, "f k"]:
        return self.shared[:, None] + self.crossed


class Track(NamedTuple):
    """Weights on their way to the optimum; `promise` is what the last step was to lower the loss by."""

    weights: Weights
    loss: Float[Array, ""]
    promise: Float[Array, ""]
    steps: Int[Array, ""]


class CrossedLogistic(eqx.Module):
    """P(reward | context, action) = sigmoid(Σ_j (shared_j + crossed_ja) x_j).

    The features are every category's level (one-hot), the numbers and a constant. Fitted from
    scratch by maximum likelihood with `ridge` / 2 times the squared coefficients (all but the
    shared intercept), by at most `newton` damped Newton steps, each solved by at most `conjugate`
    steps of preconditioned conjugate gradients, until one promises less than `tolerance` nats a row.

    - `sizes`: levels of each category; `numbers`: how many; `actions`: K.

    Rewards are in [0, 1].
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    numbers: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    ridge: float = 2.0
    newton: int = eqx.field(static=True, default=15)
    conjugate: int = eqx.field(static=True, default=12)
    tolerance: float = 1e-5

    def __check_init__(self) -> None:
        check_setting("ridge", self.ridge)
        check_setting("tolerance", self.tolerance)

    @property
    def levels(self) -> int:
        return sum(self.sizes)

    def start(self) -> Weights:
        count = self.levels + self.numbers + 1
        return Weights(jnp.zeros(count), jnp.zeros((count, self.actions)))

    def logits(self, weights: Weights, features: Features) -> Float[Array, "*b k"]:
        """Logits of all actions."""
        table = weights.table()
        codes, numbers = self.coded(features)
        return table[codes].sum(-2) + numbers @ table[self.levels :]

    def predict(self, weights: Weights, features: Features) -> Float[Array, "*b k"]:
        """P(reward) of all actions, allowed or not."""
        return jax.nn.sigmoid(self.logits(weights, features))

    def played(
        self, weights: Weights, features: Features, action: Int[Array, " n"]
    ) -> Float[Array, " n"]:
        """Logits of the actions that were played."""
        table = weights.table()
        codes, numbers = self.coded(features)
        # Column by column and flat: on a CPU this gathers twice as fast as all at once.
        flat = table.reshape(-1)
        out = (numbers * table[self.levels :].T[action]).sum(-1)
        for j in range(len(self.sizes)):
            out = out + flat[codes[:, j] * self.actions + action]
        return out

    def fit(self, rows: Rows) -> Weights:
        """Maximum of the penalised likelihood of the rows."""

        def far(track: Track) -> Array:
            return (track.steps < self.newton) & (track.promise > self.tolerance * total)

        def step(track: Track) -> Track:
            move, promise = self._move(track.weights, rows, scale)
            weights, loss = self._shortened(track, move, rows)
            return Track(weights, loss, promise, track.steps + 1)

        scale, total = self._diagonal(rows), rows.weight.sum()
        start = self._intercept(rows)
        track = Track(start, self.loss(start, rows), jnp.float32(jnp.inf), jnp.int32(0))
        return jax.lax.while_loop(far, step, track).weights

    def _move(self, weights: Weights, rows: Rows, scale: Weights) -> tuple[Weights, Array]:
        """The Newton step, to be subtracted, and how far it promises to lower the loss."""
        _, transpose = jax.vjp(lambda w: self.played(w, *_x(rows)), self.start())
        penalty = self._penalty()
        p = jax.nn.sigmoid(self.played(weights, *_x(rows)))
        slope = transpose(rows.weight * (p - rows.reward))[0]
        gradient = jax.tree.map(lambda g, w, r: g + r * w, slope, weights, penalty)
        curvature = rows.weight * p * (1 - p)

        def hessian(v: Weights) -> Weights:
            product = transpose(curvature * self.played(v, *_x(rows)))[0]
            return jax.tree.map(lambda h, u, r: h + r * u, product, v, penalty)

        move, _ = cg(
            hessian, gradient, maxiter=self.conjugate, tol=1e-3,  # pyright: ignore
            M=lambda v: jax.tree.map(jnp.divide, v, scale),
        )  # fmt: skip
        along = jax.tree.map(lambda g, m: (g * m).sum(), gradient, move)
        return move, (along.shared + along.crossed) / 2

    def _shortened(self, track: Track, move: Weights, rows: Rows) -> tuple[Weights, Array]:
        """The step halved until the loss does not rise: far from the optimum Newton overshoots."""

        def at(share: Array) -> tuple[Weights, Array]:
            weights = jax.tree.map(lambda w, m: w - share * m, track.weights, move)
            return weights, self.loss(weights, rows)

        def rises(tried: tuple[Array, Weights, Array]) -> Array:
            # A float32 sum cannot tell losses apart that differ by a millionth.
            return ~(tried[2] <= track.loss * (1 + 1e-6)) & (tried[0] > 1e-4)

        def halve(tried: tuple[Array, Weights, Array]) -> tuple[Array, Weights, Array]:
            return (tried[0] / 2, *at(tried[0] / 2))

        one = jnp.float32(1)
        return jax.lax.while_loop(rises, halve, (one, *at(one)))[1:]

    def loss(self, weights: Weights, rows: Rows) -> Float[Array, ""]:
        """What `fit` minimises."""
        z = self.played(weights, *_x(rows))
        fit = rows.weight * (jax.nn.softplus(z) - rows.reward * z)
        squares = jax.tree.map(lambda w, r: (r * w**2).sum() / 2, weights, self._penalty())
        return fit.sum() + squares.shared + squares.crossed

    def shifted(self, weights: Weights, by: Float[Array, ""]) -> Weights:
        """The model with `by` added to every logit."""
        return weights._replace(shared=weights.shared.at[-1].add(by))

    def deviations(self, rows: Rows, weights: Weights) -> Weights:
        """Standard deviations of the coefficients: diagonal Laplace approximation."""
        p = jax.nn.sigmoid(self.played(weights, *_x(rows)))
        curvature = self._squares(rows, rows.weight * p * (1 - p))
        return jax.tree.map(
            lambda h, r: 1 / jnp.sqrt(h + jnp.maximum(r, 1e-3)), curvature, self._penalty()
        )

    def coded(self, features: Features) -> tuple[Array, Array]:
        offsets = np.cumsum((0, *self.sizes[:-1])).astype(np.int32)
        one = jnp.ones((*features.numbers.shape[:-1], 1))
        return features.categories + offsets, jnp.concatenate([features.numbers, one], -1)

    def _penalty(self) -> Weights:
        start = self.start()
        shared = jnp.full_like(start.shared, self.ridge).at[-1].set(0.0)
        return Weights(shared, jnp.full_like(start.crossed, self.ridge))

    def _rate(self, rows: Rows) -> Array:
        total = jnp.maximum(rows.weight.sum(), 1e-6)
        return jnp.clip((rows.weight * rows.reward).sum() / total, 1e-4, 1 - 1e-4)

    def _intercept(self, rows: Rows) -> Weights:
        rate = self._rate(rows)
        return self.shifted(self.start(), jnp.log(rate) - jnp.log1p(-rate))

    def _diagonal(self, rows: Rows) -> Weights:
        rate = self._rate(rows)
        squares = self._squares(rows, rows.weight * rate * (1 - rate))
        return jax.tree.map(lambda h, r: h + r + 1e-3, squares, self._penalty())

    def _squares(self, rows: Rows, weight: Array) -> Weights:
        """Σ weight x² of every coefficient."""
        squared = rows.features._replace(numbers=rows.features.numbers**2)
        _, transpose = jax.vjp(lambda w: self.played(w, squared, rows.action), self.start())
        return transpose(weight)[0]


def _x(rows: Rows) -> tuple[Features, Array]:
    return rows.features, rows.action
