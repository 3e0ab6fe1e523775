"""Does a learner accumulate knowledge? Measures of the accuracy on every class over a long stream.

A trace is one of `recurring.Recurring`: `accuracy`, `present` and `frequency` [seed, step, task], where a "task" is a
class, an exam of its own. Accuracies of classes oscillate with each task, so levels are means over windows.
Seeds that have diverged are NaN.

Source: Lesort et al. 2023 (arXiv 2207.04543).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats


def level(
    trace: xr.Dataset, first: float, last: float, classes: Sequence[int] | None = None
) -> Float[np.ndarray, " seed"]:
    """Mean accuracy over the classes (all, or some) and the observations from one step to another, both included.

    Raises `ValueError` where nothing was observed in between.
    """
    steps = trace.step.values
    seen = (steps >= first) & (steps <= last)
    if not seen.any():
        raise ValueError(f"nothing was observed from step {first:g} to {last:g}")
    values = _accuracy(trace)[:, seen]
    return (values if classes is None else values[:, :, list(classes)]).mean(axis=(1, 2))


def by_class(trace: xr.Dataset, first: float, last: float) -> Float[np.ndarray, "seed class"]:
    """Mean accuracy on each class over the observations from one step to another."""
    steps = trace.step.values
    return _accuracy(trace)[:, (steps >= first) & (steps <= last)].mean(axis=1)


def present_and_absent(
    trace: xr.Dataset, first: float, last: float, shift: int = 0
) -> Float[np.ndarray, "seed 2"]:
    """Mean accuracy on the classes of the task just learned, and on all others, within a window of steps.

    Its difference is what a task takes from the others. `shift`: by the classes of an observation so many later,
    a null of the same numbers.
    """
    steps = trace.step.values
    seen = (steps >= first) & (steps <= last)
    values, here = _accuracy(trace)[:, seen], _of(trace, "present")[:, seen] > 0
    here = np.roll(here, -shift, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = (
            np.where(which, values, 0).sum(axis=(1, 2)) / which.sum(axis=(1, 2))
            for which in (here, ~here)
        )
    return np.stack([one, other], axis=1)


def half_life(
    trace: xr.Dataset, classes: Sequence[int], after: float, chance: float, before: int = 10
) -> Float[np.ndarray, " seed"]:
    """Steps since `after` until some classes lose half of what they had above chance, by the mean accuracy over them.

    What they had: the mean over the last `before` observations up to then. Straight lines between observations; where it
    never comes so low, the whole rest of the run, a lower bound. NaN where there was nothing above chance to lose.

    Raises `ValueError` where nothing was observed before, or after.
    """
    steps = trace.step.values.astype(float)
    start = int(np.searchsorted(steps, after, side="right")) - 1
    if start < 0 or start == len(steps) - 1:
        raise ValueError(f"nothing was observed before, or after, step {after:g}")
    course = _accuracy(trace)[:, :, list(classes)].mean(axis=2) - chance
    had = course[:, max(0, start + 1 - before) : start + 1].mean(axis=1)
    found = np.full(len(course), np.nan)
    for seed in np.flatnonzero(had > 0):
        line = course[seed, start:] - had[seed] / 2
        low = np.flatnonzero(line <= 0)
        if not len(low):
            found[seed] = steps[-1] - after
        elif low[0] == 0:
            found[seed] = 0.0
        else:
            k = low[0]
            share = line[k - 1] / (line[k - 1] - line[k])
            found[seed] = (
                steps[start + k - 1] + share * (steps[start + k] - steps[start + k - 1]) - after
            )
    return found


def increasing(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Least-squares fit of y that never falls as x grows, at each x (pooling adjacent violators); ties share one value."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"x and y must be as many numbers, at least one, not {x.shape} and {y.shape}")  # fmt: skip
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite")
    where = np.unique(x, return_inverse=True)[1]
    weight = np.bincount(where).astype(float)
    value = np.bincount(where, y) / weight
    blocks: list[list[float]] = []  # mean, weight, number of levels
    for mean, of in zip(value, weight, strict=True):
        blocks.append([mean, of, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            a, b = blocks[-2], blocks.pop()
            total = a[1] + b[1]
            a[:] = [(a[0] * a[1] + b[0] * b[1]) / total, total, a[2] + b[2]]
    fitted = np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])
    return fitted[where]


def needed_frequency(
    frequency: Float[np.ndarray, " classes"], accuracy: Float[np.ndarray, " classes"], target: float
) -> float:
    """How frequent a class must be to reach an accuracy: the least frequency at which the increasing fit does.

    NaN where it never does.
    """
    fitted = increasing(frequency, accuracy)
    reached = np.asarray(frequency, float)[fitted >= target]
    return float(reached.min()) if len(reached) else np.nan


def rank_correlation(
    one: Float[np.ndarray, "seed class"], other: Float[np.ndarray, "seed class"]
) -> Float[np.ndarray, " seed"]:
    """Spearman's correlation over classes for each seed; NaN where one does not vary or is not finite."""
    found = np.full(len(one), np.nan)
    for seed, (a, b) in enumerate(zip(one, other, strict=True)):
        if np.isfinite([a, b]).all() and np.ptp(a) > 0 and np.ptp(b) > 0:
            found[seed] = stats.spearmanr(a, b)[0]
    return found


def last_frequency(trace: xr.Dataset) -> Float[np.ndarray, "seed class"]:
    """The share of all tasks that had each class."""
    return _of(trace, "frequency")[:, -1]


def _accuracy(trace: xr.Dataset) -> Float[np.ndarray, "seed step class"]:
    return _of(trace, "accuracy")


def _of(trace: xr.Dataset, name: str) -> Float[np.ndarray, "seed step class"]:
    if name not in trace:
        raise ValueError(f"the trace has no {name!r}: it must be one of Recurring")
    return trace[name].transpose("seed", "step", "task").values.astype(float)
