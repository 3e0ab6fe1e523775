"""Forecasts from one learning curve, in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from latebloom.methods.learning_curves.forecasts import resampled_trends
from latebloom.methods.learning_curves.traces import FEWEST, NEVER, Frame, Trace, learning_trace
from latebloom.methods.learning_curves.trends import Trends, fit

LEAST = 5  # sizes from which on a forecast is made
CALM = 0.2  # percentage points that the asymptote may move in a step: 4e-5 a word in steps of 5,000
FARTHEST = 1e5  # times the largest size: what is reached later counts as never


class Forecast(NamedTuple):
    """Scores expected at some sizes, and an interval for each; in the unit of the scores given."""

    score: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Requirement(NamedTuple):
    """Size at which a score is reached: forecast, and between which sizes; infinity for never."""

    size: float
    low: float
    high: float


class LearningCurve(BaseEstimator):
    """Scores at larger training sizes, from those measured at small ones.

    Power laws are fitted to the first 3, 4, ... observations; once their asymptotes have settled, each
    is anchored at the one before (Vilares Ferro et al. 2017). The last one forecasts.

    - `upper`: the best score there is; 1 or 100 by the scores given if None.
    - `verticality`: percentage points a unit of size by which settled asymptotes may move; None stands
      for 0.2 points a step of median length. `slowdown`, `lookahead`, `anchor_weight`: see `Frame`.
    - `confidence` of the intervals. They add up what the curve's own past forecasts missed, as it grows
      with the logarithm of how far ahead they look, and what `draws` resamples differ by: of the
      curves where three or more were measured (`runs`), else of the observations.

    After `fit`: `trace_` (anchored) and `free_trace_` (not), `sizes_`, `scores_` (means over runs),
    `asymptote_`, `working_size_` and `prediction_size_` (None while unsettled).
    """

    def __init__(
        self, *, upper: float | None = None, verticality: float | None = None, slowdown: float = 1.0,
        lookahead: int = 5, anchor_weight: float = 1.0, confidence: float = 0.9, draws: int = 100,
        random_state: int = 0,
    ):  # fmt: skip
        self.upper, self.verticality, self.slowdown = upper, verticality, slowdown
        self.lookahead, self.anchor_weight = lookahead, anchor_weight
        self.confidence, self.draws, self.random_state = confidence, draws, random_state

    def fit(
        self, sizes: np.ndarray, scores: np.ndarray, runs: np.ndarray | None = None
    ) -> LearningCurve:
        """Learn from observations in any order; those of equal size are averaged.

        - `sizes`: training sizes [n] (or [n, 1]). `scores`: accuracies or the like, higher is better,
          between 0 and `upper` [n]. `runs`: which seed or fold each belongs to [n].

        Raises `ValueError` for scores or sizes out of range, fewer than five sizes, and scores that
        fall as the size grows.
        """
        size, score = _checked(sizes, scores)
        upper = self.upper or (1.0 if score.max() <= 1 else 100.0)
        if score.min() < 0 or score.max() > upper:
            raise ValueError(
                f"scores must lie between 0 and {upper:g}; give `upper` if they do not"
            )
        kinds, where = np.unique(size, return_inverse=True)
        if len(kinds) < LEAST:
            raise ValueError(
                f"a forecast needs scores at {LEAST} training sizes or more, and there are {len(kinds)}"
            )
        percent = 100 * score / upper
        mean = np.bincount(where, percent) / np.bincount(where)
        if np.ptp(mean) > 0 and np.corrcoef(kinds.argsort(), stats.rankdata(mean))[0, 1] < -0.5:
            raise ValueError("scores fall as the size grows: give accuracies, not errors or losses")
        self.sizes_, self.upper_ = kinds, upper
        self.scores_ = mean * upper / 100
        self.curves_ = _by_run(where, percent, runs, len(kinds))
        step = float(np.median(np.diff(kinds)))
        self.frame_ = Frame(
            CALM / step if self.verticality is None else self.verticality, self.slowdown,
            self.lookahead, anchor_weight=self.anchor_weight,
        )  # fmt: skip
        self.trace_ = learning_trace(kinds, mean, frame=self.frame_)
        self.free_trace_ = learning_trace(kinds, mean, frame=self.frame_, anchored=False)
        self.asymptote_ = float(self.trace_.backbone[0, -1]) * upper / 100
        self.working_size_ = _size_at(self.trace_, self.trace_.working)
        self.prediction_size_ = _size_at(self.trace_, self.trace_.prediction)
        return self

    def predict(self, sizes: np.ndarray) -> np.ndarray:
        """Scores at `sizes` [m] (or [m, 1])."""
        self._check()
        return self.trace_.trends[0, -1](_ahead(sizes)) * self.upper_ / 100

    def forecast(self, sizes: np.ndarray) -> Forecast:
        """Scores at `sizes` [m] with their intervals."""
        self._check()
        at = _ahead(sizes)
        centre = self.trace_.trends[0, -1](at)
        half = np.hypot(self._missed(at), self._resampled(at))
        low, high = np.clip(centre - half, 0, 100), np.clip(centre + half, 0, 100)
        return Forecast(*(part * self.upper_ / 100 for part in (centre, low, high)))

    def required_size(self, score: float) -> Requirement:
        """How large the training set must be for a score, in the unit of the scores given."""
        self._check()
        at = np.geomspace(self.sizes_[0], self.sizes_[-1] * FARTHEST, 4001)
        found = self.forecast(at)
        sizes = [at[row >= score] for row in (found.score, found.high, found.low)]
        return Requirement(*(float(s[0]) if len(s) else float("inf") for s in sizes))

    def remaining(self) -> float:
        """Layer of convergence chi: how much the last trend expects beyond the largest size."""
        self._check()
        return float(self.trace_.convergence[0, -1]) * self.upper_ / 100

    def stop_size(self, tau: float) -> float | None:
        """The first size at which no more than `tau`, in the unit of the scores, was to be gained; None
        if it was not reached, or the forecasts had not settled."""
        self._check()
        return _size_at(self.trace_, self.trace_.stop(100 * tau / self.upper_))

    def _missed(self, at: np.ndarray) -> np.ndarray:
        """Half-width in percentage points [m] that past forecasts needed."""
        mean = 100 * self.scores_ / self.upper_
        noise = _quantile(np.abs(mean - self.trace_.trends[0, -1](self.sizes_)), self.confidence)
        first = max(1, len(mean) // 3 - FEWEST)
        slopes = [
            np.maximum(np.abs(self.trace_.trends[0, place](later) - mean[seen:]) - noise, 0)
            / np.log(later / self.sizes_[seen - 1])
            for place in range(first, len(mean) - FEWEST)
            for seen in [place + FEWEST]
            for later in [self.sizes_[seen:]]
        ]
        slope = _quantile(np.concatenate(slopes), self.confidence)
        return noise + slope * np.log(np.maximum(at / self.sizes_[-1], 1))

    def _resampled(self, at: np.ndarray) -> np.ndarray:
        """Half-width in percentage points [m] by resampling."""
        tail = 100 * (1 - self.confidence) / 2
        low, high = np.percentile(self._draws()(at), [tail, 100 - tail], axis=0)
        return (high - low) / 2

    def _draws(self) -> Trends:
        if len(self.curves_) < 3:
            mean = 100 * self.scores_[None] / self.upper_
            return resampled_trends(self.sizes_, mean, self.draws, self.random_state)[0]
        rng = np.random.default_rng(self.random_state)
        chosen = rng.integers(len(self.curves_), size=(self.draws, len(self.curves_)))
        picked = self.curves_[chosen]  # [draws, runs, sizes]
        count = np.isfinite(picked).sum(1)
        means = np.where(count > 0, np.nansum(picked, 1) / np.maximum(count, 1), np.nan)
        return fit(self.sizes_, means)

    def _check(self) -> None:
        if not hasattr(self, "trace_"):
            raise NotFittedError("this LearningCurve has seen no scores: call fit first")


def train_until(
    train: Callable[[int], float], sizes: Iterable[int], tau: float,
    curve: LearningCurve | None = None,
) -> LearningCurve:  # fmt: skip
    """Train at growing sizes until no more than `tau` is to be gained, or the sizes are used up.

    - `train(size)`: the score of a learner trained on `size` examples. `tau`: in the unit of scores.

    Returns the fitted curve, whose `stop_size(tau)` is None if the sizes ran out first.
    """
    curve = curve or LearningCurve()
    seen: list[int] = []
    scores: list[float] = []
    for size in sizes:
        seen.append(size)
        scores.append(train(size))
        if len(seen) >= LEAST and (
            curve.fit(np.array(seen), np.array(scores)).stop_size(tau) is not None
        ):
            return curve
    return curve.fit(np.array(seen), np.array(scores))


def _checked(sizes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size, score = np.asarray(sizes, float), np.asarray(scores, float)
    if size.ndim == 2 and size.shape[1] == 1:
        size = size[:, 0]
    if size.ndim != 1 or size.shape != score.shape:
        raise ValueError(f"sizes {size.shape} and scores {score.shape} must be as many")
    if not (np.isfinite(size).all() and np.isfinite(score).all()):
        raise ValueError("sizes and scores must be finite numbers: drop the rows that are not")
    if not len(size) or size.min() <= 0:
        raise ValueError("training sizes must be positive numbers")
    return size, score


def _by_run(
    where: np.ndarray, percent: np.ndarray, runs: np.ndarray | None, count: int
) -> np.ndarray:
    """One curve a run [runs, sizes], NaN where it has no score."""
    if runs is None:
        return np.zeros((0, count))
    names, row = np.unique(np.asarray(runs), return_inverse=True)
    if len(row) != len(where):
        raise ValueError(f"there are {len(where)} scores and {len(row)} runs: they must be as many")
    total, seen = np.zeros((2, len(names), count))
    np.add.at(total, (row, where), percent)
    np.add.at(seen, (row, where), 1)
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _size_at(trace: Trace, position: np.ndarray) -> float | None:
    place = int(position[0])
    return None if place == NEVER else float(trace.last_sizes[place])


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else 0.0


def _ahead(sizes: np.ndarray) -> np.ndarray:
    at = np.asarray(sizes, float).reshape(-1)
    if not (np.isfinite(at).all() and (at > 0).all()):
        raise ValueError("sizes to forecast at must be positive finite numbers")
    return at
