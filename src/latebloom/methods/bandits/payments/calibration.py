"""Isotonic recalibration of predicted rewards from a log, and the curve it rests on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Curve(NamedTuple):
    """Mean prediction, mean outcome and weight of the rows in each bin, by rising prediction."""

    predicted: Float[Array, " bins"]
    observed: Float[Array, " bins"]
    weight: Float[Array, " bins"]


def calibration_curve(
    predicted: Float[Array, " n"], outcome: Float[Array, " n"], weight: Float[Array, " n"],
    bins: int = 20,
) -> Curve:  # fmt: skip
    """Predictions against outcomes, in `bins` of equal total weight; rows of weight 0 are void."""
    order = jnp.argsort(predicted)
    p, y, w = predicted[order], outcome[order], weight[order]
    place = jnp.cumsum(w) - w / 2
    bin = jnp.clip((bins * place / jnp.maximum(w.sum(), 1e-9)).astype(jnp.int32), 0, bins - 1)

    def total(values: Array) -> Array:
        return jnp.zeros(bins).at[bin].add(values)

    mass = total(w)
    safe = jnp.maximum(mass, 1e-9)
    return Curve(total(w * p) / safe, total(w * y) / safe, mass)


def expected_calibration_error(curve: Curve) -> Float[Array, ""]:
    """Mean distance of prediction and outcome over the bins, by weight."""
    gap = jnp.abs(curve.predicted - curve.observed)
    return (curve.weight * gap).sum() / jnp.maximum(curve.weight.sum(), 1e-9)


def isotonic(y: Float[Array, " n"], weight: Float[Array, " n"]) -> Float[Array, " n"]:
    """The non-decreasing sequence nearest to y in weighted squares.

    By the min-max formula, value_i = max_{j <= i} min_{k >= i} mean(y_j..y_k), in O(n²) memory: for
    bins, not for rows. Entries of weight 0 follow their neighbours.
    """
    zero = jnp.zeros(1)
    sums = jnp.concatenate([zero, jnp.cumsum(y * weight)])
    mass = jnp.concatenate([zero, jnp.cumsum(weight)])
    total = sums[None, 1:] - sums[:-1, None]
    size = mass[None, 1:] - mass[:-1, None]
    places = jnp.arange(len(y))
    inside: Bool[Array, "n n"] = (places[:, None] <= places) & (size > 0)
    means = total / jnp.where(size > 0, size, 1.0)
    # Smallest mean over k >= i for each j, then the largest over j <= i.
    ends = jax.lax.cummin(jnp.where(inside, means, jnp.inf), axis=1, reverse=True)
    starts = jnp.where(jnp.isfinite(ends) & (places[:, None] <= places), ends, -jnp.inf)
    return starts.max(0)


class Recalibration(NamedTuple):
    """A rising map of predictions."""

    predicted: Float[Array, " bins"]
    value: Float[Array, " bins"]

    def __call__(self, p: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Interpolated between the bins, of slope 1 beyond them, in [0, 1].

        A thousandth of the prediction is mixed in, so that flat stretches leave no ties.
        """
        inner = jnp.interp(p, self.predicted, self.value)
        first, last = self.predicted[0], self.predicted[-1]
        outer = jnp.minimum(p - first, 0) + jnp.maximum(p - last, 0)
        return 0.999 * jnp.clip(inner + outer, 0, 1) + 0.001 * p


def recalibration(
    predicted: Float[Array, " n"], outcome: Float[Array, " n"], weight: Float[Array, " n"],
    bins: int = 20,
) -> Recalibration:  # fmt: skip
    """Isotonic map from predictions to outcomes, fitted to the bins of `calibration_curve`."""
    curve = calibration_curve(predicted, outcome, weight, bins)
    value = isotonic(curve.observed, curve.weight)
    # An empty bin has no mean prediction of its own: it takes its left neighbour's.
    predicted = jax.lax.cummax(jnp.where(curve.weight > 0, curve.predicted, 0.0))
    return Recalibration(predicted, value)
