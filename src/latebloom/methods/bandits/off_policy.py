"""What another policy would have earned, from the log of the one that ran: IPS, SNIPS, DR.

Each estimator is a ratio of two sums over the rows of a log, so that one standard error (the delta
method) and one bootstrap serve them all. The functions take arrays [n], one entry a logged decision,
and can be traced; `rows` says which entries count (rewards that never arrived are false there).

`target` is the probability with which the policy in question would have played the logged action in
the logged context, `propensity` the one with which it was played.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

NORMAL = 1.959964  # the normal distribution's 97.5 % point


class Estimate(NamedTuple):
    """A policy's value in units of reward.

    - `error`: standard error. `low`, `high`: 95 % interval by the normal distribution.
    - `bootstrap`: 95 % percentile interval, where a key was given.

    All are NaN where the log says nothing (no rows, or no weight on any).
    """

    value: Float[Array, ""]
    error: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    bootstrap: tuple[Float[Array, ""], Float[Array, ""]] | None = None


class Evaluation(NamedTuple):
    """All estimates of one policy from one log.

    - `direct`: the model's own opinion, the mean of its expected rewards.
    - `effective_size`: see `effective_sample_size`.
    - `mean_weight`: of the importance weights; far from 1, the log does not cover the policy.
    """

    direct: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate
    effective_size: Float[Array, ""]
    mean_weight: Float[Array, ""]


def importance_weights(
    propensity: Float[ArrayLike, " n"], target: Float[ArrayLike, " n"],
    rows: Bool[ArrayLike, " n"] | None = None,
) -> Float[Array, " n"]:  # fmt: skip
    """target / propensity, and 0 for entries that do not count.

    Raises `ValueError` where propensities are not in (0, 1] or targets not in [0, 1] (checked on
    concrete arrays), or their shapes differ.
    """
    if np.shape(propensity) != np.shape(target):
        raise ValueError(
            f"propensity and target differ: {np.shape(propensity)}, {np.shape(target)}"
        )
    _check_probabilities(propensity, rows, "propensity", positive=True)
    _check_probabilities(target, rows, "target", positive=False)
    if rows is None:
        return jnp.asarray(target) / jnp.asarray(propensity)
    counted = jnp.asarray(rows)
    return jnp.where(counted, target, 0.0) / jnp.where(counted, propensity, 1.0)


def ips(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"],
    target: Float[ArrayLike, " n"], *, rows: Bool[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Estimate:  # fmt: skip
    """Inverse propensity scoring (Horvitz and Thompson 1952): the mean of w r.

    Unbiased where the logging policy could play all that the target plays. With `key` it comes with
    a bootstrap interval.
    """
    weights = importance_weights(propensity, target, rows)
    return ratio(weights * jnp.asarray(reward), jnp.ones_like(weights), rows, key, resamples)


def snips(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"],
    target: Float[ArrayLike, " n"], *, rows: Bool[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Estimate:  # fmt: skip
    """Self-normalised IPS (Swaminathan and Joachims 2015): Σ w r / Σ w.

    Never outside the range of the rewards; consistent, with a bias of order 1/n.
    """
    weights = importance_weights(propensity, target, rows)
    return ratio(weights * jnp.asarray(reward), weights, rows, key, resamples)


def doubly_robust(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"],
    target: Float[ArrayLike, " n"], predicted: Float[ArrayLike, " n"],
    expected: Float[ArrayLike, " n"], *, rows: Bool[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Estimate:  # fmt: skip
    """Doubly robust estimator (Dudik, Langford and Li 2011): the mean of m + w (r - f).

    `predicted` is a model's reward f of the logged action, `expected` its mean m = Σ_a π(a) f_a
    under the target policy. Unbiased where propensities or model are right, if the model was not
    fitted to these rows.
    """
    weights = importance_weights(propensity, target, rows)
    terms = jnp.asarray(expected) + weights * (jnp.asarray(reward) - jnp.asarray(predicted))
    return ratio(terms, jnp.ones_like(weights), rows, key, resamples)


def direct_method(
    expected: Float[ArrayLike, " n"], *, rows: Bool[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Estimate:  # fmt: skip
    """The mean of a model's `expected` rewards: as biased as the model, whatever its interval says."""
    terms = jnp.asarray(expected)
    return ratio(terms, jnp.ones_like(terms), rows, key, resamples)


def effective_sample_size(
    propensity: Float[ArrayLike, " n"], target: Float[ArrayLike, " n"],
    rows: Bool[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:  # fmt: skip
    """(Σ w)² / Σ w²: how many rows of the target's own log this log is worth (Kish 1965)."""
    weights = importance_weights(propensity, target, rows)
    return weights.sum() ** 2 / jnp.maximum((weights**2).sum(), jnp.finfo(weights.dtype).tiny)


def evaluate(
    reward: Float[ArrayLike, " n"], propensity: Float[ArrayLike, " n"],
    target: Float[ArrayLike, " n"], predicted: Float[ArrayLike, " n"],
    expected: Float[ArrayLike, " n"], *, rows: Bool[ArrayLike, " n"] | None = None,
    key: PRNGKeyArray | None = None, resamples: int = 1000,
) -> Evaluation:  # fmt: skip
    """All four estimates, see `doubly_robust` for the arguments. They share their resamples."""
    more = {"rows": rows, "key": key, "resamples": resamples}
    weights = importance_weights(propensity, target, rows)
    return Evaluation(
        direct_method(expected, **more),
        ips(reward, propensity, target, **more),
        snips(reward, propensity, target, **more),
        doubly_robust(reward, propensity, target, predicted, expected, **more),
        effective_sample_size(propensity, target, rows),
        weights.sum() / _rows(rows, target).sum(),
    )


def ratio(
    numerator: Float[Array, " n"], denominator: Float[Array, " n"],
    rows: Bool[ArrayLike, " n"] | None = None, key: PRNGKeyArray | None = None,
    resamples: int = 1000,
) -> Estimate:  # fmt: skip
    """Σ numerator / Σ denominator over independent rows, with its standard error and intervals."""
    counted = _rows(rows, numerator)
    top, bottom = jnp.where(counted, numerator, 0.0), jnp.where(counted, denominator, 0.0)
    count = counted.sum()
    value = _divide(top.sum(), bottom.sum())
    spread = jnp.where(counted, top - value * bottom, 0.0)
    small = count / jnp.maximum(count - 1, 1)
    error = _divide(jnp.sqrt((spread**2).sum() * small), jnp.abs(bottom.sum()))
    error = jnp.where(count > 1, error, jnp.nan)
    drawn = None if key is None else _bootstrap(key, top, bottom, counted, resamples)
    return Estimate(value, error, value - NORMAL * error, value + NORMAL * error, drawn)


def _bootstrap(
    key: PRNGKeyArray, top: Array, bottom: Array, counted: Array, resamples: int
) -> tuple[Array, Array]:
    count = counted.sum()
    order = jnp.argsort(~counted, stable=True)

    def once(key: PRNGKeyArray) -> Array:
        places = jax.random.randint(key, counted.shape, 0, jnp.maximum(count, 1))
        # The first `count` draws are a resample of the rows that count.
        drawn, used = order[places], jnp.arange(len(counted)) < count
        return _divide(
            jnp.where(used, top[drawn], 0.0).sum(), jnp.where(used, bottom[drawn], 0.0).sum()
        )

    values = jax.lax.map(once, jax.random.split(key, resamples))
    low, high = jnp.nanquantile(values, jnp.array([0.025, 0.975]))
    return low, high


def _divide(top: Array, bottom: Array) -> Array:
    return jnp.where(bottom == 0, jnp.nan, top / jnp.where(bottom == 0, 1.0, bottom))


def _rows(rows: ArrayLike | None, like: ArrayLike) -> Array:
    return jnp.ones(np.shape(like), bool) if rows is None else jnp.asarray(rows)


def _check_probabilities(
    values: ArrayLike, rows: ArrayLike | None, name: str, positive: bool
) -> None:
    if np.ndim(values) != 1:
        raise ValueError(f"{name} must be one number a row, not of shape {np.shape(values)}")
    if isinstance(values, Tracer) or isinstance(rows, Tracer):
        return
    values = np.asarray(values)
    wrong = ~((values > 0 if positive else values >= 0) & (values <= 1 + 1e-5))
    wrong &= True if rows is None else np.asarray(rows)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        bracket = "(" if positive else "["
        raise ValueError(f"{name} in row {at} is {values[at]:g}, outside {bracket}0, 1]")
