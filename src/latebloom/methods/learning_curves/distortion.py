"""What outliers do to learning traces: distorted copies of a curve, and measures of their traces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latebloom.methods.learning_curves.foresight import early, late, trace_of
from latebloom.methods.learning_curves.metrics import mape, robustness
from latebloom.methods.learning_curves.traces import FEWEST, NEVER

STOP = 2.0  # points still to be gained at which a trace has done its work


class Copies(NamedTuple):
    """Scores in percent of copies of one curve [copies, n] at its `sizes` [n], and its own [n].

    What is measured of them is one number a copy, [copies].
    """

    sizes: np.ndarray
    scores: np.ndarray
    true: np.ndarray


def as_measured(sizes: np.ndarray, scores: np.ndarray) -> Copies:
    """The curve itself as the only copy."""
    return Copies(sizes, scores[None], scores)


def distorted(
    sizes: np.ndarray, scores: np.ndarray, seed: int, *, draws: int = 10, share: float = 0.05,
    drop: float = 3.0,
) -> Copies:  # fmt: skip
    """Copies in which a share of the observations, at least one, are `drop` points too low."""
    rng = np.random.default_rng([seed, len(scores)])
    count = max(1, round(share * len(scores)))
    copies = np.tile(scores, (draws, 1))
    for row in copies:
        row[rng.choice(len(scores), count, replace=False)] -= drop
    return Copies(sizes, copies, scores)


def robustness_rates(copies: Copies, *, anchored: bool = True) -> np.ndarray:
    """Robustness rates from the working level to the stop at 2 points, or to the end; NaN without a
    working level."""
    trace = trace_of(copies.sizes, copies.scores, anchored=anchored)
    ends = np.where(trace.stop(STOP) == NEVER, trace.backbone.shape[1] - 1, trace.stop(STOP))
    return np.array([
        np.nan if start == NEVER else robustness(row, start, end)
        for row, start, end in zip(trace.backbone, trace.working, ends, strict=True)
    ])  # fmt: skip


def errors_from_quarter(copies: Copies, *, anchored: bool = True) -> np.ndarray:
    """MAPE at the late sizes of the trends at a quarter of the largest size, against the curve itself."""
    place, at = early(copies.sizes, 1 / 4) - FEWEST, late(copies.sizes)
    trends = trace_of(copies.sizes, copies.scores, anchored=anchored).trends[:, place]
    return mape(trends(copies.sizes[at]), copies.true[at])


def levels_needed(copies: Copies, *, anchored: bool = True) -> np.ndarray:
    """Observations until the stop at 2 points, all of them without one."""
    stop = trace_of(copies.sizes, copies.scores, anchored=anchored).stop(STOP)
    return np.where(stop == NEVER, len(copies.sizes), stop + FEWEST).astype(float)
