"""How the need for things falls with the time since they were last met: fits to events.

Two questions, which have different answers: how old is what comes (`fit_ages`), and how likely does
something of an age come (`need`, `fit_need`).

Source: Anderson & Schooler 1991 (Psychological Science 2(6)) for need by recency; Clauset, Shalizi,
Newman 2009 (arXiv 0706.1062) for discrete power laws by maximum likelihood and their likelihood ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar


@dataclass(frozen=True)
class Fit:
    """A power law x^-exponent, and how it compares.

    - `exponent`: infinite where all that came had the youngest age that it could (or -infinite, the oldest):
      the steeper the law, the likelier.
    - `error`: standard error of the exponent, from the curvature of the likelihood; infinite with it.
    - `line`: minus the slope of a line through the logarithms of frequency and age, each age weighing as
      much as it was seen (for a look at it: ages that were not seen have no logarithm, which biases it).
    - `against_exponential`: log-likelihood minus that of the best exponential; `z`: over its standard
      error (Vuong), so that beyond 2 or below -2 one is told from the other.
    - `scale`: of `fit_need`, the probability at age 1; NaN in `fit_ages`.
    - `events`: how many were fitted.
    """

    exponent: float
    error: float
    line: float
    against_exponential: float
    z: float
    events: int
    scale: float = np.nan


@dataclass(frozen=True)
class Need:
    """For each `age`: how often something of this age could have come (`chances`), and came (`met`)."""

    age: Float[np.ndarray, " ages"]
    met: Int[np.ndarray, " ages"]
    chances: Int[np.ndarray, " ages"]

    @property
    def probability(self) -> Float[np.ndarray, " ages"]:
        """Of coming at an age; NaN without a chance."""
        return np.divide(self.met, self.chances, out=np.full(len(self.age), np.nan), where=self.chances > 0)  # fmt: skip


def fit_ages(counts: ArrayLike, chances: ArrayLike | None = None) -> Fit:
    """The power law of ages that were drawn, by maximum likelihood.

    - `counts`: [age], how often each age 1, 2, ... was drawn; or [draw, age], where each row is of draws that
      had only some of the ages to choose from.
    - `chances`: of the same shape, which ages could be drawn (or how many things of that age); left out, all.

    Within a row, age a has the probability chances(a) a^-d over its sum. Raises `ValueError` for a draw that
    could not be, and for fewer than two ages that could be drawn.
    """
    n = np.atleast_2d(np.asarray(counts, float))
    m = np.ones_like(n) if chances is None else np.atleast_2d(np.asarray(chances, float))
    if m.shape != n.shape or not all((np.isfinite(v) & (v >= 0)).all() for v in (n, m)):
        raise ValueError(f"counts {n.shape} and chances {m.shape} must be finite, not negative, and of one shape")  # fmt: skip
    if ((n > 0) & ~(m > 0)).any():
        raise ValueError("counts has an age drawn where chances says that it could not be")
    if not ((n.sum(axis=1) > 0) & ((m > 0).sum(axis=1) > 1)).any():
        raise ValueError("counts must hold a draw that had two ages or more to choose from")
    age = np.arange(1, n.shape[1] + 1.0)
    kept = (n.sum(axis=1) > 0) & ((m > 0).sum(axis=1) > 1)
    n, m = n[kept], m[kept]
    events = int(n.sum())
    places = np.arange(n.shape[1])
    could = m > 0
    youngest, oldest = (n[places == end[:, None]].sum() for end in
                        (could.argmax(axis=1), n.shape[1] - 1 - could[:, ::-1].argmax(axis=1)))  # fmt: skip
    if n.sum() in (youngest, oldest):
        return _endless(n.sum() == youngest, events)
    with np.errstate(divide="ignore"):
        base = np.log(m)

    def logs(of_age: Float[np.ndarray, " ages"]) -> np.ndarray:
        """Log probabilities [draw, age] of odds exp(of_age)."""
        odds = base + of_age
        top = odds.max(axis=1, keepdims=True)
        return odds - top - np.log(np.exp(odds - top).sum(axis=1, keepdims=True))

    def likelihood(of_age: np.ndarray) -> float:
        return float((n * np.where(n > 0, logs(of_age), 0)).sum())

    d = _best_anywhere(lambda d: likelihood(-d * np.log(age)), -5.0, 15.0)
    c = _best(lambda c: likelihood(-c * (age - 1)), -2.0, 20.0)
    power, other = logs(-d * np.log(age)), logs(-c * (age - 1))
    p = np.exp(power)
    spread = (p * np.log(age) ** 2).sum(axis=1) - (p * np.log(age)).sum(axis=1) ** 2
    error = 1 / np.sqrt((n.sum(axis=1) * spread).sum())
    with np.errstate(invalid="ignore"):
        apart = np.where(n > 0, power - other, 0)
    return Fit(d, float(error), _line(age, n, m), *_vuong(apart, n), events)


def need(
    task: ArrayLike, time: ArrayLike, *, until: float | None = None, period: float = 1.0
) -> Need:
    """How often a task that was last met a number of periods ago is met, from a log of events.

    - `task` [event]: what was met, anything that can be compared; `time` [event]: when, in any order, a number
      (dates as days since one of them: `(dates - dates.min()) / np.timedelta64(1, "D")`).
    - `period`: the unit of age, in units of time; several events of a task in one period are one.
    - `until`: the end of the log, left out its last event; what had not come back by then had its chances.

    Raises `ValueError` for times that are not finite, a task that is missing or cannot be compared, an empty log, or an
    end before its last event.
    """
    names = np.asarray(task)
    if (missing := np.flatnonzero(pd.isna(names))).size:
        raise ValueError(f"task must name what was met in every event, but event {missing[0]} has {names.flat[missing[0]]}")  # fmt: skip
    try:
        _, what = np.unique(names, return_inverse=True)
    except TypeError as error:
        raise ValueError("task must hold values that can be compared, all of one kind") from error
    if np.asarray(time).dtype.kind not in "iufb":
        raise ValueError("time must be numbers: give dates as days, (dates - dates.min()) / np.timedelta64(1, 'D')")  # fmt: skip
    when = np.asarray(time, float)
    if when.shape != what.shape or when.ndim != 1 or not len(when) or not np.isfinite(when).all():
        raise ValueError(
            "task and time must be lists of the same length, at least 1, with finite times"
        )
    if not period > 0:
        raise ValueError(f"period must be above 0, not {period}")
    if until is not None and not when.max() <= until < np.inf:
        raise ValueError(
            f"until must not be before the last event, at {when.max():g}, but is {until:g}"
        )
    start = when.min()
    place = np.floor((when - start) / period + 1e-9).astype(int)
    end = int(np.floor(((when.max() if until is None else until) - start) / period + 1e-9))
    if end > 10**7:
        raise ValueError(f"period {period:g} cuts the log into {end:.2g} ages: give a longer one")
    found = np.unique(np.stack([what, place]), axis=1)
    same = found[0, 1:] == found[0, :-1]
    lags = np.diff(found[1])[same]
    last = np.append(~same, True)
    waiting = end - found[1, last]  # chances that passed without an encounter, at ages up to this
    size = max(end, 1)
    met = np.bincount(lags, minlength=size + 1)[1:]
    lasting = met + np.bincount(waiting, minlength=size + 1)[1:]
    chances = lasting[::-1].cumsum()[::-1]
    return Need(np.arange(1, size + 1.0), met, chances)


def lag_counts(met: Float[np.ndarray, "time age"]) -> Float[np.ndarray, " lags"]:
    """How often something came back after 1, 2, ... times, of what began to wait in the first half.

    - `met` [time, age]: how often something of an age since it was last met came at each time; column 0 is
      age 1. Only times up to half of all are counted, so that all had the chance to end.
    """
    half = len(met) // 2
    return np.array([met[lag : half + lag, lag - 1].sum() for lag in range(1, half)])


def fit_need(found: Need) -> Fit:
    """The power law scale age^-exponent of the probability to come at an age, by maximum likelihood.

    Each chance is a draw by itself; the probability is at most 1. Raises `ValueError` where nothing came
    back, or all chances had one age, for more that came than could, and for ages that are not above 0.
    """
    if not (
        (found.age > 0).all() and (found.met >= 0).all() and (found.met <= found.chances).all()
    ):
        raise ValueError("need must have ages above 0, and met from 0 to chances at each")
    keep = found.chances > 0
    age, met, chances = found.age[keep], found.met[keep].astype(float), found.chances[keep]
    if not met.sum() or len(age) < 2:
        raise ValueError("need must hold something that came back, and chances at two ages or more")
    events = int(met.sum())
    if met.sum() in (ends := (met[age.argmin()], met[age.argmax()])):
        return _endless(met.sum() == ends[0], events)
    missed = chances - met

    def parts(shape: np.ndarray) -> tuple[float, float]:
        """The best log scale for odds exp(shape), and the likelihood with it."""

        def value(log_scale: float) -> float:
            p = np.clip(np.exp(np.minimum(log_scale + shape, 0)), 1e-300, 1 - 1e-9)
            return float((met * np.log(p) + missed * np.log1p(-p)).sum())

        at = _best(value, -15.0 - shape.max(), 5.0 - shape.min())
        return at, value(at)

    def logs(log_scale: float, shape: np.ndarray) -> np.ndarray:
        p = np.clip(np.exp(np.minimum(log_scale + shape, 0)), 1e-300, 1 - 1e-9)
        return np.stack([np.log(p), np.log1p(-p)])

    d = _best_anywhere(lambda d: parts(-d * np.log(age))[1], -3.0, 6.0)
    c = _best(lambda c: parts(-c * (age - 1))[1], -1.0, 5.0)
    scale = parts(-d * np.log(age))[0]
    power, other = logs(scale, -d * np.log(age)), logs(parts(-c * (age - 1))[0], -c * (age - 1))
    step = 1e-3
    values = [parts(-(d + e) * np.log(age))[1] for e in (-step, 0, step)]
    curvature = -(values[0] - 2 * values[1] + values[2]) / step**2
    error = 1 / np.sqrt(curvature) if curvature > 0 else np.inf
    ratio = _vuong(power - other, np.stack([met, missed]))
    line = _line(age, met[None], chances[None])
    return Fit(d, float(error), line, *ratio, events, float(np.exp(min(scale, 0.0))))


def _endless(young: bool, events: int) -> Fit:
    return Fit(np.inf if young else -np.inf, np.inf, np.nan, 0.0, 0.0, events)


def _best_anywhere(value: Callable[[float], float], low: float, high: float) -> float:
    """As `_best`, but where that is an end, sought beyond it."""
    found = _best(value, low, high)
    if min(found - low, high - found) > 1e-3:
        return found
    return _best(value, 8 * low, 8 * high)


def _best(value: Callable[[float], float], low: float, high: float) -> float:
    found: Any = minimize_scalar(lambda x: -value(x), bounds=(low, high), method="bounded",
                                 options={"xatol": 1e-7})  # fmt: skip
    return float(found.x)


def _line(
    age: Float[np.ndarray, " age"], seen: Float[np.ndarray, "draw age"], chances: Float[np.ndarray, "draw age"]
) -> float:  # fmt: skip
    """Minus the slope of log frequency on log age, one slope and a level a row."""
    on = (seen > 0) & (chances > 0)
    w = np.where(on, seen, 0.0)
    total = np.maximum(w.sum(axis=1, keepdims=True), 1e-300)
    x = np.broadcast_to(np.log(age), seen.shape)
    y = np.log(np.where(on, seen, 1.0) / np.where(on, chances, 1.0))
    x, y = (v - (w * v).sum(axis=1, keepdims=True) / total for v in (x, y))
    spread = (w * x * x).sum()
    return float(-(w * x * y).sum() / spread) if spread > 0 else np.nan


def _vuong(apart: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    n = counts.sum()
    total = (counts * apart).sum()
    spread = (counts * apart**2).sum() / n - (total / n) ** 2
    return float(total), float(total / np.sqrt(n * spread)) if spread > 0 else 0.0
