"""What is trained from scratch on a window of logs, and what it then predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.methods.bandits.payments.calibration import Recalibration, recalibration
from latebloom.methods.bandits.payments.model import CrossedLogistic, Rows, Weights
from latebloom.methods.bandits.payments.resampling import EveryRow, Selection
from latebloom.methods.bandits.payments.rules import Prediction
from latebloom.methods.bandits.payments.world import Features


class Learner(eqx.Module):
    """Trains on rows and predicts the reward of all actions."""

    model: CrossedLogistic

    def start(self) -> Any:
        """Parameters of the shape that `fit` returns."""
        raise NotImplementedError(f"{type(self).__name__} has no start")

    def fit(self, rows: Rows, key: PRNGKeyArray) -> Any:
        """Parameters trained from scratch."""
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def predict(self, params: Any, features: Features) -> Prediction:
        raise NotImplementedError(f"{type(self).__name__} has no predict")


class Supervised(Learner):
    """Plain logistic regression on the rows that `selection` keeps."""

    selection: Selection = EveryRow()

    def start(self) -> Weights:
        return self.model.start()

    def fit(self, rows: Rows, key: PRNGKeyArray) -> Weights:
        kept, offset = self.selection(rows, key)
        return self.model.shifted(self.model.fit(kept), offset)

    def predict(self, params: Weights, features: Features) -> Prediction:
        return Prediction(self.model.predict(params, features))


class CalibratedState(NamedTuple):
    weights: Weights
    recalibration: Recalibration


class Calibrated(Learner):
    """Logistic regression, recalibrated on a `share` of the rows that it does not see.

    The recalibration is isotonic, with each row counted 1 / propensity times, so that it holds for
    all actions and not only for those that are played.
    """

    share: float = 0.2
    bins: int = eqx.field(static=True, default=20)

    def start(self) -> CalibratedState:
        steps = jnp.linspace(0.0, 1.0, self.bins)
        return CalibratedState(self.model.start(), Recalibration(steps, steps))

    def fit(self, rows: Rows, key: PRNGKeyArray) -> CalibratedState:
        held = jax.random.uniform(key, rows.weight.shape) < self.share
        weights = self.model.fit(rows._replace(weight=jnp.where(held, 0.0, rows.weight)))
        predicted = jax.nn.sigmoid(self.model.played(weights, rows.features, rows.action))
        counts = jnp.where(held, rows.weight / rows.propensity, 0.0)
        return CalibratedState(
            weights, recalibration(predicted, rows.reward, counts, bins=self.bins)
        )

    def predict(self, params: CalibratedState, features: Features) -> Prediction:
        return Prediction(params.recalibration(self.model.predict(params.weights, features)))


class Bootstrapped(Learner):
    """`members` logistic regressions, each on the rows reweighted by exponential draws.

    The Bayesian bootstrap, as in bootstrapped Thompson sampling (Cortes 2018, arXiv:1811.04383).
    """

    members: int = eqx.field(static=True, default=8)

    def start(self) -> Weights:
        return jax.tree.map(lambda w: jnp.zeros((self.members, *w.shape)), self.model.start())

    def fit(self, rows: Rows, key: PRNGKeyArray) -> Weights:
        def member(key: PRNGKeyArray) -> Weights:
            draws = jax.random.exponential(key, rows.weight.shape)
            return self.model.fit(rows._replace(weight=draws * rows.weight))

        return jax.lax.map(member, jax.random.split(key, self.members))

    def predict(self, params: Weights, features: Features) -> Prediction:
        draws = jax.vmap(lambda w: self.model.predict(w, features), out_axes=-2)(params)
        return Prediction(draws.mean(-2), draws=draws)


class LaplaceState(NamedTuple):
    weights: Weights
    variance: Float[Array, "f k"]
    draws: Weights | None


class Laplace(Learner):
    """Logistic regression with a diagonal Laplace posterior, for optimism or Thompson sampling.

    Chapelle and Li 2011, algorithm 3, retrained from scratch. With `members` draws from
    N(weights, `spread`² variance) for Thompson sampling; without, widths: the standard deviation of
    the logit times p (1 - p), that of the reward to first order.
    """

    spread: float = 1.0
    members: int = eqx.field(static=True, default=0)

    def start(self) -> LaplaceState:
        weights = self.model.start()
        draws = jax.tree.map(lambda w: jnp.zeros((self.members, *w.shape)), weights)
        return LaplaceState(weights, weights.crossed, draws if self.members else None)

    def fit(self, rows: Rows, key: PRNGKeyArray) -> LaplaceState:
        weights = self.model.fit(rows)
        deviations = self.model.deviations(rows, weights)
        variance = deviations.shared[:, None] ** 2 + deviations.crossed**2
        if not self.members:
            return LaplaceState(weights, variance, None)

        def draw(w: Array, deviation: Array, key: PRNGKeyArray) -> Array:
            noise = jax.random.normal(key, (self.members, *w.shape))
            return w + self.spread * deviation * noise

        draws = Weights(*map(draw, weights, deviations, jax.random.split(key)))
        return LaplaceState(weights, variance, draws)

    def predict(self, params: LaplaceState, features: Features) -> Prediction:
        mean = self.model.predict(params.weights, features)
        if params.draws is not None:
            each = jax.vmap(lambda w: self.model.predict(w, features), out_axes=-2)
            return Prediction(mean, draws=each(params.draws))
        codes, numbers = self.model.coded(features)
        variance = (
            params.variance[codes].sum(-2) + numbers**2 @ params.variance[self.model.levels :]
        )
        return Prediction(mean, width=mean * (1 - mean) * jnp.sqrt(variance))
