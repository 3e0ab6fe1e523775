"""How well the end of a learning curve was foretold from its beginning.

For one measured curve: `sizes` [n], increasing, and `scores` [n] in percent. What lies within an eighth
of the largest size is seen, and forecasts are held to what lies beyond three eighths of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from latebloom.methods.learning_curves.estimator import CALM, LearningCurve
from latebloom.methods.learning_curves.forecasts import FORECASTS, stop_by_change, stop_by_gain
from latebloom.methods.learning_curves.metrics import reliability
from latebloom.methods.learning_curves.traces import FEWEST, NEVER, Frame, Trace, learning_trace

EARLY, LATE = 1 / 8, 3 / 8  # 100,000 and 300,000 of 800,000 words
Curve = tuple[np.ndarray, np.ndarray]  # sizes and scores


def early(sizes: np.ndarray, share: float = EARLY) -> int:
    """How many observations lie within a share of the largest size, give or take 2 %."""
    return int((sizes <= 1.02 * share * sizes[-1]).sum())


def late(sizes: np.ndarray, share: float = LATE) -> np.ndarray:
    """Which observations [n] lie at a share of the largest size or beyond, give or take 1 %."""
    return sizes >= 0.99 * share * sizes[-1]


def trace_of(sizes: np.ndarray, scores: np.ndarray, *, anchored: bool = True) -> Trace:
    """The learning trace of scores [n] or [runs, n]: kept, as many questions are put to it.

    Asymptotes have settled that move by at most 0.2 points while as much is added as the first size.
    """
    scores = np.atleast_2d(np.asarray(scores, float))
    sizes = np.asarray(sizes, float)
    return _trace(sizes.tobytes(), scores.tobytes(), len(scores), anchored)


@functools.lru_cache(maxsize=4096)
def _trace(sizes: bytes, scores: bytes, runs: int, anchored: bool) -> Trace:
    at = np.frombuffer(sizes)
    rows = np.frombuffer(scores).reshape(runs, -1)
    return learning_trace(at, rows, frame=Frame(CALM / at[0]), anchored=anchored)


def foretold(sizes: np.ndarray, scores: np.ndarray, how: str = "anchored") -> np.ndarray:
    """Forecasts at the late sizes from the early observations [late]; `how`: one of `FORECASTS`."""
    seen, at = early(sizes), sizes[late(sizes)]
    if how == "anchored":
        return trace_of(sizes[:seen], scores[:seen]).trends[0, -1](at)
    return FORECASTS[how](sizes[:seen], scores[None, :seen], at)[0]


def asymptote(sizes: np.ndarray, scores: np.ndarray, *, anchored: bool = True) -> float:
    """What the trend of the early observations tends to, in percent."""
    seen = early(sizes)
    return float(trace_of(sizes[:seen], scores[:seen], anchored=anchored).backbone[0, -1])


def held_by_interval(sizes: np.ndarray, scores: np.ndarray) -> float:
    """Share of late scores within the 90 % intervals of a `LearningCurve` of the early ones."""
    seen, at = early(sizes), late(sizes)
    curve = LearningCurve(upper=100.0).fit(sizes[:seen], scores[:seen])
    _, low, high = curve.forecast(sizes[at])
    return ((low <= scores[at]) & (scores[at] <= high)).mean()


def beats(sizes: np.ndarray, scores: np.ndarray, rival: str, ours: str = "power") -> np.ndarray:
    """Of curves `scores` [runs, n]: 1 where a forecast from the first half of the observations is nearer
    to the last score than a rival's, 1/2 where both are as near, else 0 [runs]."""
    half = len(sizes) // 2
    off, theirs = (
        np.abs(FORECASTS[how](sizes[:half], scores[:, :half], sizes[-1:])[:, 0] - scores[:, -1])
        for how in (ours, rival)
    )
    return (off < theirs) + 0.5 * (off == theirs)


def errors_at_end(sizes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How far the trend of each level of the anchored trace is off at the last size, in points [n - 2];
    NaN for the last level, which has seen it."""
    off = np.abs(trace_of(sizes, scores).trends[0](sizes[-1:])[..., 0] - scores[-1])
    return np.append(off[:-1], np.nan)


def stop_at(sizes: np.ndarray, scores: np.ndarray, tau: float) -> int:
    """Observation (from 0) at which the anchored trace says that at most `tau` points are to be gained,
    or `NEVER`."""
    place = int(trace_of(sizes, scores).stop(tau)[0])
    return place if place == NEVER else place + FEWEST - 1


def share_within(
    sizes: np.ndarray, scores: np.ndarray, tau: float, *, waiting: bool = True
) -> float:
    """Share of the scores after the stop that are within `tau` points of the trend there.

    Without `waiting`, after the first trend. NaN where it does not stop before the end.
    """
    stop = stop_at(sizes, scores, tau) if waiting else FEWEST - 1
    if stop == NEVER or stop + 1 == len(sizes):
        return np.nan
    trend = trace_of(sizes, scores).trends[0, stop - FEWEST + 1]
    return (np.abs(trend(sizes[stop + 1 :]) - scores[stop + 1 :]) <= tau).mean()


def stops_or_last(curves: Sequence[Curve], tau: float) -> list[int]:
    """`stop_at` of several curves; the last observation where there is none."""
    return [_or_last(stop_at(sizes, scores, tau), len(sizes)) for sizes, scores in curves]


def stops_by_rule(curves: Sequence[Curve], rule: str, stops: Sequence[int]) -> list[int]:
    """Observations at which a rule on the last step stops, the last where it does not.

    `rule`: "gain" (less for 1,000 units of size than a threshold) or "change". The threshold, one for
    all curves, is the one of 60 from 1e-4 to 3 points with which the mean size at the stop comes
    nearest to that at `stops`.
    """
    tries = [[_rule_stop(rule, *curve, least) for curve in curves]
             for least in np.geomspace(1e-4, 3, 60)]  # fmt: skip
    wanted = mean_size(curves, stops)
    return tries[int(np.argmin([abs(mean_size(curves, found) - wanted) for found in tries]))]


def spread_after(curves: Sequence[Curve], places: Sequence[int]) -> float:
    """Standard deviation over curves of what they still gain after a place of each, in points."""
    return np.std([y[-1] - y[i] for (_, y), i in zip(curves, places, strict=True)])  # pyright: ignore


def order_right(curves: Sequence[Curve], how: str = "anchored", margin: float = 0.0) -> np.ndarray:
    """`reliability` of the forecasts of several learners' curves at the late sizes, in percent."""
    said = np.array([foretold(sizes, scores, how) for sizes, scores in curves])
    return reliability(said, np.array([y[late(sizes)] for sizes, y in curves]), margin)


def mean_size(curves: Sequence[Curve], places: Sequence[int]) -> float:
    """Mean over curves of the size at a place of each."""
    return float(np.mean([sizes[i] for (sizes, _), i in zip(curves, places, strict=True)]))


def _rule_stop(rule: str, sizes: np.ndarray, scores: np.ndarray, least: float) -> int:
    one = scores[None]
    stop = stop_by_change(one, least) if rule == "change" else stop_by_gain(sizes, one, least)
    return _or_last(int(stop[0]), len(sizes))


def _or_last(place: int, count: int) -> int:
    return count - 1 if place == NEVER else place
