"""Candidates in a table, some of them measured: which one to take, or which one to measure next."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from latebloom.methods.bandits.sparse_misspecified.nets import EpsilonTooSmall, ball_net
from latebloom.methods.bandits.sparse_misspecified.problem import greedy_support


@dataclass(frozen=True)
class Screening:
    """What the measured candidates leave possible.

    - `action`: the row to take if `decided`, else the row to measure next.
    - `promised`: its result according to the most promising parameter that agrees with all that was
      measured; `within`: if decided, by how much it can be below the best row.
    - `epsilon`: the model error at which that parameter agrees, in units of the results.
    - `survivors` [m, d]: all parameters that agree, in units of result per feature unit.
    - `low`, `high` [n]: the range of their predictions for every row.
    """

    action: int
    decided: bool
    promised: float
    within: float
    epsilon: float
    survivors: Float[np.ndarray, "m d"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]

    def support_shares(self) -> Float[np.ndarray, " d"]:
        """For each feature, the share of surviving parameters that use it."""
        return (self.survivors != 0).mean(0)


def screen(
    features: Float[np.ndarray, "n d"], results: Float[np.ndarray, " n"], *,
    sparsity: int = 2, epsilon: float | None = None, bound: float | None = None,
) -> Screening:  # fmt: skip
    """Net elimination on the rows that were measured (`results` not NaN), with an unknown constant.

    Features are centred, scaled to unit spread and then to row norm at most 1. A parameter agrees if
    some constant brings all its predictions to within 2 epsilon of the results; it promises its
    largest prediction with the largest such constant, so that the guarantee of 4 epsilon holds as
    without one. `bound` is the largest norm that the parameter may have on that scale (by
    default 1.5 times that of the best sparse fit); `epsilon` the tolerated model error in units of
    the results (by default the smallest, on a grid of doublings, that leaves a parameter alive).

    Raises `ValueError` for fewer than two measured rows, constant features, or an epsilon at which
    no parameter agrees.
    """
    x, unit = standardised(features)
    known = np.flatnonzero(np.isfinite(results))
    if len(known) < 2:
        raise ValueError(f"{len(known)} candidates have results; at least 2 are needed")
    if not 1 <= sparsity <= x.shape[1]:
        raise ValueError(f"the sparsity must be from 1 to {x.shape[1]}, not {sparsity}")
    bound = bound or _bound(x[known], results[known] - results[known].mean(), sparsity)
    grid = [epsilon / bound] if epsilon else [0.02 * 2.0**k for k in range(6)]
    for candidate in grid:
        if not 0 < candidate < 1:
            raise ValueError(
                f"epsilon must be in (0, {bound:.3g}), not {epsilon}: the results vary less"
            )
        found = _survivors(x, known, results[known] / bound, candidate, sparsity)
        if len(found[0]):
            return _screening(x, results, found, candidate, bound, unit)
    raise EpsilonTooSmall(
        f"no linear model on {sparsity} features agrees with the results to within "
        f"{grid[-1] * bound:.3g}: give a larger epsilon or sparsity"
    )


def _survivors(
    x: np.ndarray, known: np.ndarray, y: np.ndarray, epsilon: float, sparsity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of the net that agree with y up to a common constant, and the largest constant of
    each."""
    points, slack = ball_net(sparsity, epsilon), 2 * epsilon
    parameters, constants = [np.empty((0, x.shape[1]))], [np.empty(0)]
    for support in itertools.combinations(range(x.shape[1]), sparsity):
        residuals = y[:, None] - x[np.ix_(known, np.array(support))] @ points.T
        low, high = residuals.min(0), residuals.max(0)
        alive = high - low <= 2 * slack
        theta = np.zeros((alive.sum(), x.shape[1]))
        theta[:, support] = points[alive]
        parameters.append(theta)
        constants.append(low[alive] + slack)
    return np.concatenate(parameters), np.concatenate(constants)


def _screening(
    x: np.ndarray, results: np.ndarray, found: tuple[np.ndarray, np.ndarray], epsilon: float,
    bound: float, unit: np.ndarray,
) -> Screening:  # fmt: skip
    survivors, constants = found
    predictions = survivors @ x.T + constants[:, None]
    action = int(predictions.max(0).argmax())
    known = np.flatnonzero(np.isfinite(results))
    # The smallest constant that a survivor allows, for the lower end of its predictions.
    least = (results[known] / bound - survivors @ x[known].T).max(1) - 2 * epsilon
    lowest = survivors @ x.T + least[:, None]
    return Screening(
        action, bool(np.isfinite(results[action])), float(predictions.max() * bound),
        4 * epsilon * bound, epsilon * bound, survivors * bound / unit,
        lowest.min(0) * bound, predictions.max(0) * bound,
    )  # fmt: skip


def standardised(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " d"]]:
    """Features centred and scaled, rows of norm at most 1; and the unit of each column."""
    spread = features.std(0)
    if (spread == 0).any():
        column = int(np.flatnonzero(spread == 0)[0])
        raise ValueError(f"feature {column} is the same in all rows: leave it out")
    x = (features - features.mean(0)) / spread
    largest = np.linalg.norm(x, axis=1).max()
    return x / largest, spread * largest


def _bound(x: np.ndarray, y: np.ndarray, sparsity: int) -> float:
    support = greedy_support(x, y, min(sparsity, len(y) - 1))
    norm = np.linalg.norm(np.linalg.lstsq(x[:, support], y, rcond=None)[0])
    return float(1.5 * max(norm, 1e-12))
