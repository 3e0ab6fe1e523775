"""What a run over many tasks of equal length knows, forgets and keeps: measures for studies.

A trace is one of `recurring.Recurring` whose config has `tasks`, `steps` (of a task), `classes`, and `count` (classes a task).
Accuracies are in %. See `accumulation` for the same on any trace.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from latebloom.measures import Effect, Measure, Traces, measure
from latebloom.methods.forgetting import accumulation


def settings(trace: xr.Dataset) -> dict[str, Any]:
    """The settings of the run, as they are kept with its trace."""
    return json.loads(trace.attrs["config"])


def level(trace: xr.Dataset, first: float, last: float, classes: Any = None) -> np.ndarray:
    """Accuracy in % from the end of one task to that of another, over the full test set or some classes."""
    steps = settings(trace)["steps"]
    return 100 * accumulation.level(trace, first * steps, last * steps, classes)


@measure("accuracy over the last fifth of the tasks")
def late(trace: xr.Dataset) -> np.ndarray:
    tasks = settings(trace)["tasks"]
    return level(trace, 0.8 * tasks, tasks)


@measure("accuracy over the first twenty tasks")
def early(trace: xr.Dataset) -> np.ndarray:
    return level(trace, 1, 20)


@measure("accuracy once every class is likely to have come")
def passed(trace: xr.Dataset) -> np.ndarray:
    config = settings(trace)
    once = math.ceil(config["classes"] / config["count"] * math.log(config["classes"]))
    return level(trace, once, 2 * once)


@measure("accuracy over all tasks")
def through(trace: xr.Dataset) -> np.ndarray:
    return level(trace, 1, settings(trace)["tasks"])


def _taken(trace: xr.Dataset, shift: int) -> np.ndarray:
    config = settings(trace)
    here, other = accumulation.present_and_absent(trace, config["steps"], 0.2 * config["tasks"] * config["steps"], shift).T  # fmt: skip
    return 100 * (here - other)


taken = Measure("in the first fifth, accuracy on the classes of the task just learned above the others", lambda t: _taken(t, 0))  # fmt: skip
taken_null = Measure("the same of the classes of a later task", lambda t: _taken(t, 7))


def _left(trace: xr.Dataset) -> np.ndarray:
    """What the others have above chance, over what the task just learned has."""
    config = settings(trace)
    end = config["tasks"] * config["steps"]
    here, other = accumulation.present_and_absent(trace, 0.8 * end, end).T - 1 / config["classes"]
    return other / here


left = Measure("above chance, the classes not in the task over those in it", _left)


@measure("in the last fifth, accuracy on the classes of the task just learned")
def learned(trace: xr.Dataset) -> np.ndarray:
    config = settings(trace)
    end = config["tasks"] * config["steps"]
    return 100 * accumulation.present_and_absent(trace, 0.8 * end, end)[:, 0]


@measure("above chance, classes that left the task an observation ago over what they had")
def soon(trace: xr.Dataset) -> np.ndarray:
    """In the last fifth; NaN where no class left."""
    config = settings(trace)
    seen = trace.step.values >= 0.8 * config["tasks"] * config["steps"]
    known, here = (trace[name].transpose("seed", "step", "task").values[:, seen] for name in ("accuracy", "present"))  # fmt: skip
    went = (here[:, :-1] > 0) & (here[:, 1:] == 0)
    above = known.astype(float) - 1 / config["classes"]
    had, has = (np.where(went, part, 0).sum(axis=(1, 2)) for part in (above[:, :-1], above[:, 1:]))
    return np.divide(has, had, out=np.full(len(had), np.nan), where=had > 0)


def half(trace: xr.Dataset, gone: bool) -> list[int]:
    classes = settings(trace)["classes"]
    return list(range(classes // 2, classes) if gone else range(classes // 2))


def kept_after(share: float, gone: bool = True) -> Measure:
    """Of what half of the classes had above chance when the others came for the last time (`gone`: these), the part
    left after a share of all tasks."""

    def of(trace: xr.Dataset) -> np.ndarray:
        config, classes = settings(trace), half(trace, gone)
        tasks, chance = config["tasks"], 100 / config["classes"]
        before = level(trace, 0.4 * tasks, 0.5 * tasks, classes) - chance
        after = level(trace, (0.48 + share) * tasks, (0.52 + share) * tasks, classes) - chance
        return after / before

    return Measure(f"share kept after {share:g} of the tasks", of)


def _half_life(trace: xr.Dataset) -> np.ndarray:
    config = settings(trace)
    found = accumulation.half_life(
        trace, half(trace, True), 0.5 * config["tasks"] * config["steps"], 1 / config["classes"]
    )
    return np.maximum(found / config["steps"], 0.1)


half_life = Measure("tasks until half is lost", _half_life)


def frequency_and_accuracy(trace: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Frequency and late accuracy in % of each class, [seed, class]."""
    end = trace.step.values[-1]
    return accumulation.last_frequency(trace), 100 * accumulation.by_class(trace, 0.8 * end, end)


def _rank(trace: xr.Dataset, roll: int) -> np.ndarray:
    often, right = frequency_and_accuracy(trace)
    return accumulation.rank_correlation(np.roll(often, roll * often.shape[1] // 2, axis=1), right)


rank = Measure("rank correlation of frequency and accuracy", lambda t: _rank(t, 0))
rank_null = Measure("the same, with the frequencies of other classes", lambda t: _rank(t, 1))


def third(rarest: bool) -> Measure:
    def of(trace: xr.Dataset) -> np.ndarray:
        often, right = frequency_and_accuracy(trace)
        order = np.argsort(often if rarest else -often, axis=1, kind="stable")[
            :, : often.shape[1] // 3
        ]
        return np.take_along_axis(right, order, axis=1).mean(axis=1)

    return Measure(f"accuracy on the {'rarest' if rarest else 'most frequent'} third", of)


rarest, commonest = third(True), third(False)


def between(low: float, high: float) -> Measure:
    """Accuracy on the classes that come in a share of the tasks above `low` and at most `high`; NaN without any."""

    def of(trace: xr.Dataset) -> np.ndarray:
        often, right = frequency_and_accuracy(trace)
        meant = (often > low) & (often <= high)
        total = np.where(meant, right, 0).sum(axis=1)
        return np.divide(total, meant.sum(axis=1), out=np.full(len(total), np.nan), where=meant.any(axis=1))  # fmt: skip

    return Measure(f"accuracy on the classes in {low:g} to {high:g} of the tasks", of)


def since_last(trace: xr.Dataset) -> xr.Dataset:
    """The trace of a learner that knows a class as this one does, but nothing of those that did not come since the
    observation before."""
    done = np.maximum(trace.step.values / settings(trace)["steps"], 1)[:, None]
    times = np.rint(trace.frequency.transpose("seed", "step", "task").values * done)
    came = np.diff(times, axis=1, prepend=0) > 0
    known = trace.accuracy.transpose("seed", "step", "task")
    return trace.assign(accuracy=known.where(came | known.isnull(), 0))


def needed(arm: str, like: str, *, forgetful: bool = False) -> Effect:
    """The share of tasks in which a class must come to reach half of the accuracy of another arm; 1 where none does.

    `forgetful`: of the learner that knows a class until the next observation alone (`since_last`), a null.
    """

    def of(traces: Traces) -> np.ndarray:
        often, right = frequency_and_accuracy(since_last(traces[arm]) if forgetful else traces[arm])
        target = late(traces[like]) / 2
        pairs = zip(often, right, target, strict=True)
        found = [
            accumulation.needed_frequency(*pair) if np.isfinite(pair[1]).all() else np.nan
            for pair in pairs
        ]
        dead = ~np.isfinite(right).all(axis=1)
        return np.where(dead, np.nan, np.nan_to_num(found, nan=1.0))

    known = ", were a class known until the next observation alone" if forgetful else ""
    return Effect((arm, like), f"frequency needed in {arm} for half of {like}{known}", of)


rise, beyond = late - early, late - passed
chance = Measure("chance", lambda t: np.full(t.sizes["seed"], 100 / settings(t)["classes"]))


def draw_parting(ax: Axes, trace: xr.Dataset, before: float, after: float, label: str, colour: str) -> None:  # fmt: skip
    """Accuracy on the half of the classes that came no more (a line, with a band from the lowest to the highest seed) and on
    the others (dotted), by tasks since then."""
    config = settings(trace)
    since = trace.step.values / config["steps"] - config["tasks"] / 2
    seen = (since >= -before) & (since <= after)
    for gone in (True, False):
        rows = 100 * trace.accuracy.isel(task=half(trace, gone)).mean("task").values[:, seen]
        what = "gone" if gone else "staying"
        ax.plot(since[seen], np.nanmean(rows, axis=0), "-" if gone else ":", color=colour, label=f"{label}: {what}")  # fmt: skip
        if gone:
            ax.fill_between(since[seen], np.nanmin(rows, axis=0), np.nanmax(rows, axis=0), color=colour, alpha=0.18, linewidth=0)  # fmt: skip


def draw_by_frequency(
    ax: Axes, trace: xr.Dataset, label: str, *, dots: bool = False, groups: int = 10, **look: Any
) -> None:
    """Accuracy against frequency: means of so many groups of classes, and classes of all seeds as `dots`.

    Classes that never came are left out.
    """
    often, right = (values.ravel() for values in frequency_and_accuracy(trace))
    order = np.argsort(often, kind="stable")
    order = order[(often[order] > 0) & np.isfinite(right[order])]
    if dots:
        ax.plot(often[order], right[order], ".", color=look.get("color"), alpha=0.15, markersize=4)
    parts = [part for part in np.array_split(order, groups) if len(part)]
    ax.plot([often[p].mean() for p in parts], [right[p].mean() for p in parts], markersize=5, label=label, **look)  # fmt: skip
