"""Candidates in a table, some of them measured: which one to take, or which one to measure next."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Float

from latebloom.methods.bandits.sparse_misspecified.agreement import (  # fmt: skip
    Agreement,
    agreement,
    fit,
    least_error,
)
from latebloom.methods.bandits.sparse_misspecified.nets import EpsilonTooSmall

MOST_SETS = 20_000
LEAST_SHARE = 0.01  # of the results' range: an epsilon that is read from few results is no smaller


@dataclass(frozen=True)
class Screening:
    """What the measured candidates leave possible.

    - `action`: the row to take if `decided`, else the row to measure next.
    - `promised`: the largest result that any model that agrees with all that was measured predicts
      for it; infinite where too little is measured to say.
    - `within`: if decided, no row's result is larger than that of `action` by more than this, as long
      as all results are linear in `sparsity` features, give or take `epsilon`. At most 2 epsilon.
    - `epsilon`: in units of the results; `epsilon_given`: whether it was given or read from them.
    - `survivors` [m, d]: for each of the sets of features with a model that agrees (of `sets` in
      all), one such model, in units of result per feature unit.
    - `low`, `high` [n]: the range of what all models that agree predict for every row.
    """

    action: int
    decided: bool
    promised: float
    within: float
    epsilon: float
    epsilon_given: bool
    sparsity: int
    sets: int
    survivors: Float[np.ndarray, "m d"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]

    def support_shares(self) -> Float[np.ndarray, " d"]:
        """For each feature, the share of surviving sets that use it."""
        return (self.survivors != 0).mean(0)


def screen(
    features: Float[np.ndarray, "n d"], results: Float[np.ndarray, " n"], *,
    sparsity: int = 2, epsilon: float | None = None, names: Sequence[str] | None = None,
) -> Screening:  # fmt: skip
    """Elimination of models on the rows that were measured (`results` not NaN).

    The rule of net elimination (Dong and Yang 2023, arXiv:2303.16998): propose the row of which some
    model that still agrees promises most; once that row is measured, no other can be much better.
    Models are a constant and `sparsity` coefficients of any size, and are not tried on a net: the
    range of their predictions is computed exactly, for each set of features. So the guarantee takes
    no bound on the coefficients, and is 2 `epsilon` at most where a net has 4.

    `epsilon`: how far any row's result (noise included, where results are noisy) may be from the
    linear model. By default twice what the best model leaves on the measured rows, 1 % of the
    results' range at least: an estimate, on which the guarantee then rests. `names` of the features,
    for messages.

    Raises `ValueError` for fewer than two measured rows, constant features, settings out of range,
    more than 20,000 sets of features, or (`EpsilonTooSmall`) an epsilon at which no model agrees.
    """
    x, unit = standardised(features, names)
    known, sets = _check(x, results, sparsity, epsilon)
    # Centred and scaled, since results may be a million and differ by one.
    middle = float(results[known].mean())
    spread = float(np.ptp(results[known]))
    scale = spread if spread > 0 else max(abs(middle), 1.0)
    y = (results - middle) / scale
    given = epsilon is not None
    error = epsilon / scale if given else max(2 * _best_error(x, known, y, sparsity), LEAST_SHARE)
    found: dict[tuple[int, ...], Agreement] = {}
    for support in itertools.combinations(range(x.shape[1]), sparsity):
        agreed = agreement(_rows(x, support), known, y, error)
        if agreed is not None:
            found[support] = agreed
    if not found:
        raise EpsilonTooSmall(
            f"no linear model on {sparsity} features agrees with the results to within "
            f"{error * scale:.3g}: give a larger epsilon or sparsity"
        )
    return _screening(found, known, results, error, middle, scale, unit, given, sets)


def _check(
    x: np.ndarray, results: np.ndarray, sparsity: int, epsilon: float | None
) -> tuple[np.ndarray, int]:
    """Which rows are measured, and how many sets of features there are."""
    if len(results) != len(x):
        raise ValueError(f"there are {len(x)} rows of features but {len(results)} results")
    if np.isinf(results).any():
        row = int(np.flatnonzero(np.isinf(results))[0])
        raise ValueError(
            f"the result of row {row} is infinite: give a number, or NaN if unmeasured"
        )
    known = np.isfinite(results)
    if known.sum() < 2:
        raise ValueError(f"{known.sum()} candidates have results; at least 2 are needed")
    if not 1 <= sparsity <= x.shape[1]:
        raise ValueError(f"the sparsity must be from 1 to {x.shape[1]}, not {sparsity}")
    if epsilon is not None and not 0 < epsilon < np.inf:
        raise ValueError(
            f"epsilon must be a positive number, not {epsilon:g}: leave it out to have it read from "
            "the results"
        )
    sets = comb(x.shape[1], sparsity)
    if sets > MOST_SETS:
        raise ValueError(
            f"{x.shape[1]} features have {sets:,} sets of {sparsity}, and at most {MOST_SETS:,} are "
            "searched: give a smaller sparsity or fewer features"
        )
    return known, sets


def _rows(x: np.ndarray, support: Sequence[int]) -> np.ndarray:
    return np.column_stack([x[:, list(support)], np.ones(len(x))])


def _best_error(x: np.ndarray, known: np.ndarray, y: np.ndarray, sparsity: int) -> float:
    """The smallest largest error of any model; sets in order of their least-squares fit, whose mean
    error bounds it, so that few linear programs are solved."""
    fits = [
        fit(_rows(x, support)[known], y[known])
        for support in itertools.combinations(range(x.shape[1]), sparsity)
    ]
    floors = np.array([np.sqrt(np.mean(one.residuals**2)) for one in fits])
    best = np.inf
    for i in np.argsort(floors, kind="stable"):
        if floors[i] >= best:
            break
        best = min(best, least_error(fits[i])[0])
    return float(best)


def _screening(
    found: dict[tuple[int, ...], Agreement], known: np.ndarray, results: np.ndarray, error: float,
    middle: float, scale: float, unit: np.ndarray, given: bool, sets: int,
) -> Screening:  # fmt: skip
    low = middle + scale * np.min([one.low for one in found.values()], axis=0)
    high = middle + scale * np.max([one.high for one in found.values()], axis=0)
    survivors = np.zeros((len(found), len(unit)))
    for row, (support, one) in enumerate(found.items()):
        survivors[row, list(support)] = scale * one.centre[:-1] / unit[list(support)]
    epsilon, best = error * scale, int(np.where(known, results, -np.inf).argmax())
    # What an open row's own result can be: a prediction that agrees, and its error.
    within = float(np.where(known, 0.0, high + epsilon - results[best]).max(initial=0.0))
    decided = within <= 2 * epsilon * (1 + 1e-6)
    if decided:
        action = best
    elif np.isinf(high).any():
        # Nothing limits these rows yet: the one that is newest to the models that agree.
        action = int(np.sum([one.news for one in found.values()], axis=0).argmax())
    else:
        action = int(np.where(known, -np.inf, high).argmax())
    sparsity = len(next(iter(found)))
    return Screening(
        action, decided, float(high[action]), within, epsilon, given, sparsity, sets, survivors,
        low, high,
    )  # fmt: skip


def standardised(
    features: Float[np.ndarray, "n d"], names: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " d"]]:
    """Features centred and scaled, rows of norm at most 1; and the unit of each column.

    Raises `ValueError` for a feature that is not finite or the same in all rows.
    """
    features = np.asarray(features, float)
    if features.ndim != 2 or not features.size:
        raise ValueError(
            f"features must be a table [rows, features], not of shape {features.shape}"
        )
    called = [f"feature {i}" if names is None else repr(names[i]) for i in range(features.shape[1])]
    for column, values in enumerate(features.T):
        if not np.isfinite(values).all():
            raise ValueError(f"{called[column]} holds a value that is not finite: drop the row")
        if np.ptp(values) == 0:
            raise ValueError(f"{called[column]} is the same in all rows: leave it out")
    centred = features - features.mean(0)
    # Scaled before squared: a column may be of the order of 1e200.
    size = np.abs(centred).max(0)
    spread = size * (centred / size).std(0)
    x = centred / spread
    largest = np.linalg.norm(x, axis=1).max()
    return x / largest, spread * largest
