"""What a policy's logs and predictions look like: imbalance, exploration, overlap, realisability."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.bandits.payments.model import Rows


def weighted_mean(
    values: Float[Array, "*s"], weight: Float[Array, "*s"] | Bool[Array, "*s"]
) -> Float[Array, ""]:
    """Σ weight values / Σ weight; 0 where there is no weight."""
    weight = weight.astype(jnp.float32)
    return (weight * values).sum() / jnp.maximum(weight.sum(), 1e-9)


def negatives(rows: Rows) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Declined rows: their share of the rows that count, and their number."""
    weight = jnp.where(rows.weight > 0, 1.0, 0.0)
    lost = (weight * (1 - rows.reward)).sum()
    return lost / jnp.maximum(weight.sum(), 1.0), lost


def entropy(probabilities: Float[Array, "n k"], allowed: Bool[Array, "n k"]) -> Float[Array, ""]:
    """Mean entropy of the rows relative to the uniform policy's: 1 is uniform, 0 deterministic."""
    own = -xlogy(probabilities, probabilities).sum(-1)
    most = jnp.log(jnp.maximum(allowed.sum(-1), 2))
    return (own / most).mean()


def overlap(
    weights: Float[Array, " n"], counted: Float[Array, " n"] | Bool[Array, " n"]
) -> Float[Array, ""]:
    """Effective sample size of importance weights as a share of the rows that count."""
    w = jnp.where(counted > 0, weights, 0.0)
    count = jnp.maximum((counted > 0).sum(), 1)
    return w.sum() ** 2 / jnp.maximum((w**2).sum(), 1e-9) / count


def action_shift(
    share: Float[Array, " k"], action: Int[Array, " n"], weight: Float[Array, " n"]
) -> Float[Array, ""]:
    """Total variation between shares of actions and the shares among the rows of a log."""
    logged = jnp.zeros_like(share).at[action].add(jnp.where(weight > 0, 1.0, 0.0))
    logged = logged / jnp.maximum(logged.sum(), 1.0)
    return jnp.abs(share - logged).sum() / 2


def auc(
    score: Float[Array, " n"], mean: Float[Array, " n"], weight: Float[Array, " n"]
) -> Float[Array, ""]:
    """Area under the ROC curve, expected over labels that are 1 with probability `mean`.

    The probability that a positive outscores a negative, ties counting half, over pairs of distinct
    rows; 0.5 where there is no pair. Labels of 0 and 1 give the usual AUC.
    """
    return _auc(_ranked(score), mean, weight)


class _Ranking(NamedTuple):
    """Rows by rising score, and for each place where its run of ties begins and where it has ended."""

    order: Int[Array, " n"]
    first: Int[Array, " n"]
    after: Int[Array, " n"]


def _ranked(score: Float[Array, " n"]) -> _Ranking:
    order, place = jnp.argsort(score), jnp.arange(len(score))
    rises = jnp.diff(score[order]) > 0
    begins, ends = jnp.append(True, rises), jnp.append(rises, True)
    first = jax.lax.cummax(jnp.where(begins, place, 0))
    return _Ranking(
        order, first, jax.lax.cummin(jnp.where(ends, place + 1, len(place)), reverse=True)
    )


def _auc(ranking: _Ranking, mean: Array, weight: Array) -> Array:
    order, first, after = ranking
    up, down = (weight * mean)[order], (weight * (1 - mean))[order]
    below = jnp.append(0.0, jnp.cumsum(down))
    tied = below[after] - below[first]
    # A row is no pair with itself, though it is positive and negative in part.
    itself = (up * down).sum()
    won = (up * (below[first] + tied / 2)).sum() - itself / 2
    pairs = up.sum() * down.sum() - itself
    return jnp.where(pairs > 1e-9, won / jnp.maximum(pairs, 1e-9), 0.5)


def divergence(
    predicted: Float[Array, "*s"], mean: Float[Array, "*s"], weight: Float[Array, "*s"]
) -> Float[Array, ""]:
    """Mean KL(mean || predicted) in nats: the log-loss in excess of the best possible one."""
    p = jnp.clip(predicted, 1e-6, 1 - 1e-6)
    kl = xlogy(mean, mean) + xlogy(1 - mean, 1 - mean)
    kl -= mean * jnp.log(p) + (1 - mean) * jnp.log1p(-p)
    return weighted_mean(kl, weight)


def root_mean_square(
    predicted: Float[Array, "*s"], mean: Float[Array, "*s"], weight: Float[Array, "*s"]
) -> Float[Array, ""]:
    """Root of the weighted mean of (predicted - mean)²."""
    return jnp.sqrt(weighted_mean((predicted - mean) ** 2, weight))


def auc_by_action(
    score: Float[Array, "n k"], mean: Float[Array, "n k"], *weights: Float[Array, "n k"]
) -> list[Float[Array, " k"]]:
    """The AUC of each action's scores over the contexts, for each of several weightings."""

    def of_action(columns: tuple[Array, Array, list[Array]]) -> list[Array]:
        score, mean, weights = columns
        ranking = _ranked(score)
        return [_auc(ranking, mean, weight) for weight in weights]

    return jax.lax.map(of_action, (score.T, mean.T, [w.T for w in weights]))
