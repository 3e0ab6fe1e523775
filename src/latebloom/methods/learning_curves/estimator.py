"""Forecasts from one learning curve, in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from latebloom.methods.learning_curves.intervals import plausible
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

    - `upper`: the best score there is. None stands for 1 if no score is above 1, and for 100 if all are;
      where some are above 1 and some are not, it must be given.
    - `verticality`: percentage points a unit of size by which settled asymptotes may move; None stands
      for 0.2 points a step of median length. `slowdown`, `lookahead`, `anchor_weight`: see `Frame`.
    - `confidence` of the intervals. They hold the power laws, exponentials and stretched exponentials
      that the scores do not exclude (`intervals.plausible`), and add what the curve's own past forecasts
      missed, as it grows with the logarithm of how far ahead they look. Where three or more curves were
      measured (`runs`), they add what `draws` resamples of those differ by.

    After `fit`: `trace_` (anchored) and `free_trace_` (not), `sizes_`, `scores_` (means over runs),
    `asymptote_`, `working_size_` and `prediction_size_` (None while unsettled). Forecasts are those of
    the last trend; if its asymptote exceeds `upper`, of the best power law whose asymptote does not.
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

        Raises `ValueError` for scores or sizes out of range, scores of which it is not clear whether
        they are percentages, fewer than five sizes, scores that fall as the size grows, and a
        `confidence` outside (0, 1).
        """
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, not {self.confidence:g}")
        size, score = _checked(sizes, scores)
        upper = best_score(score, self.upper)
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
        last = self.trace_.trends[0, -1]
        self.trend_ = last if last.c <= 100 else fit(kinds, mean, highest=100.0)
        self.plausible_ = plausible(kinds, mean, self.confidence)
        self.asymptote_ = float(self.trace_.backbone[0, -1]) * upper / 100
        self.working_size_ = _size_at(self.trace_, self.trace_.working)
        self.prediction_size_ = _size_at(self.trace_, self.trace_.prediction)
        return self

    def predict(self, sizes: np.ndarray) -> np.ndarray:
        """Scores at `sizes` [m] (or [m, 1])."""
        self._check()
        return self.trend_(_ahead(sizes)) * self.upper_ / 100

    def forecast(self, sizes: np.ndarray) -> Forecast:
        """Scores at `sizes` [m] with their intervals."""
        self._check()
        at = _ahead(sizes)
        centre = self.trend_(at)
        low, high = self.plausible_.span(at)
        more = np.hypot(self._missed(at), self._between_runs(at))
        low = centre - np.hypot(np.maximum(centre - low, 0), more)
        high = centre + np.hypot(np.maximum(high - centre, 0), more)
        low, high = np.clip(low, 0, 100), np.clip(high, 0, 100)
        return Forecast(*(part * self.upper_ / 100 for part in (centre, low, high)))

    def required_size(self, score: float) -> Requirement:
        """How large the training set must be for a score, in the unit of the scores given.

        Raises `ValueError` for a score outside [0, `upper`].
        """
        self._check()
        if not 0 <= score <= self.upper_:
            raise ValueError(f"the score must lie between 0 and {self.upper_:g}, not {score:g}")
        at = np.geomspace(self.sizes_[0], self.sizes_[-1] * FARTHEST, 4001)
        some = at[::10]
        found = self.forecast(some)
        low, high = (np.interp(np.log(at), np.log(some), row) for row in (found.low, found.high))
        reached = np.flatnonzero(low < score)  # the lower bound may fall: what it must stay above
        surely = 0 if not len(reached) else reached[-1] + 1
        return Requirement(
            _first_size(at, self.predict(at) >= score), _first_size(at, high >= score),
            float(at[surely]) if surely < len(at) else float("inf"),
        )  # fmt: skip

    def remaining(self) -> float:
        """Layer of convergence chi: how much the forecast expects beyond the largest size."""
        self._check()
        here = self.trend_(self.sizes_[-1:])[0]
        return float(abs(here - self.trend_.c)) * self.upper_ / 100

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

    def _between_runs(self, at: np.ndarray) -> np.ndarray:
        """Half-width in percentage points [m] of the mean over runs: 0 for fewer than three.

        The spread of resampled means, with Student's t for the few runs that there are.
        """
        count = len(self.curves_)
        if count < 3:
            return np.zeros(len(at))
        t = stats.t.ppf((1 + self.confidence) / 2, count - 1)
        return t * np.sqrt(count / (count - 1)) * self._means_of_runs()(at).std(axis=0)

    def _means_of_runs(self) -> Trends:
        rng = np.random.default_rng(self.random_state)
        chosen = rng.integers(len(self.curves_), size=(self.draws, len(self.curves_)))
        picked = self.curves_[chosen]  # [draws, runs, sizes]
        count = np.isfinite(picked).sum(1)
        means = np.where(count > 0, np.nansum(picked, 1) / np.maximum(count, 1), np.nan)
        return fit(self.sizes_, means, highest=100.0)

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


def best_score(scores: np.ndarray, declared: float | None) -> float:
    """The best score there is: as declared, else 1 if no score [n] is above 1, or 100 if all are.

    Raises `ValueError` for one that is not positive, and where percentages and fractions may be mixed.
    """
    if declared is not None:
        if not (np.isfinite(declared) and declared > 0):
            raise ValueError(f"upper, the best score there is, must be positive, not {declared:g}")
        return float(declared)
    odd = odd_unit(scores)
    if odd is not None:
        raise ValueError(
            f"some scores are above 1 and some are not (such as {scores[odd]:g}): give all as fractions "
            "or all in percent, or say with `upper` what the best score is"
        )
    return 100.0 if scores.min() > 1 else 1.0


def odd_unit(scores: np.ndarray) -> int | None:
    """The first of the rarer scores where some are above 1, as percentages are, and some are not."""
    above = scores > 1
    if above.all() or not above.any():
        return None
    return int(np.argmax(above == (above.mean() <= 0.5)))


def _first_size(at: np.ndarray, where: np.ndarray) -> float:
    return float(at[where.argmax()]) if where.any() else float("inf")


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
    if len(runs) != len(where):
        raise ValueError(
            f"there are {len(where)} scores and {len(runs)} runs: they must be as many"
        )
    missing = np.flatnonzero(pd.isna(np.asarray(runs, object)))
    if len(missing):
        raise ValueError(f"the score at position {missing[0]} belongs to no run: name one")
    names, row = np.unique(np.asarray(runs), return_inverse=True)
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
