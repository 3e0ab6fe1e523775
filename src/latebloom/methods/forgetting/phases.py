"""What is measured of a learner that rehearses after each task, in points of accuracy.

A trace is one of `continual.Continual`, observed after each task's own examples and after its rehearsal, whose
config has `examples`, `batch` and `rehearsal` (examples of a task, of a batch, and rehearsed ones as a share of
the task's own), and for `needed` the `exponent` of the law of need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from latebloom.measures import measure, setting
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.facilitation import (
    later_updates,
    slope_of_updates,
    updates_to_criterion,
)
from latebloom.methods.forgetting.rehearsal import PowerLaw


@measure("final accuracy over all tasks")
def accuracy(trace: xr.Dataset) -> np.ndarray:
    return 100 * metrics.per_seed(metrics.average_accuracy)(trace)


@measure("mean loss since a task was over")
def interference(trace: xr.Dataset) -> np.ndarray:
    return 100 * metrics.per_seed(metrics.forgetting)(trace)


def phases(trace: xr.Dataset) -> tuple[int, int]:
    """Updates of a task on its own examples, and with its rehearsal."""
    new = setting(trace, "examples") // setting(trace, "batch")
    return new, new + round(setting(trace, "rehearsal") * new)


@measure("mean loss since a task's own examples were over")
def lost(trace: xr.Dataset) -> np.ndarray:
    (new, length), tasks = phases(trace), np.arange(trace.sizes["task"] - 1)
    values = trace.accuracy.transpose("seed", "step", "task").values
    learned = values[:, np.searchsorted(trace.step.values, length * tasks + new), tasks]
    return 100 * (learned - values[:, -1, :-1]).mean(axis=1)


@measure("final accuracy, each task weighing as much as it is needed")
def needed(trace: xr.Dataset) -> np.ndarray:
    """Weights age^-exponent, the last task being of age 1."""
    last = trace.accuracy.isel(step=-1).transpose("seed", "task").values
    weights = PowerLaw(setting(trace, "exponent"))(np.arange(last.shape[1], 0, -1))
    return 100 * last @ weights / weights.sum()


def updates(trace: xr.Dataset) -> Float[np.ndarray, "seed task"]:
    """Updates of each task to 85 % of what the first reached, while its own examples come."""
    new, length = phases(trace)
    return updates_to_criterion(trace, length * np.arange(trace.sizes["task"]), new)


@measure("slope of log updates to criterion on the number of the task")
def slowing(trace: xr.Dataset) -> np.ndarray:
    return slope_of_updates(updates(trace))


@measure("log updates to criterion of the last quarter of tasks, minus those of the first")
def later(trace: xr.Dataset) -> np.ndarray:
    return later_updates(updates(trace))


def draw_learning(ax: Axes, trace: xr.Dataset, task: int, *, label: str, **look: Any) -> None:
    """Mean accuracy over seeds in % on a task, while its own examples come; negative ones count from the last."""
    new, length = phases(trace)
    since = trace.step.values - task % trace.sizes["task"] * length
    part = (since >= 0) & (since <= new)
    seen = 100 * trace.accuracy.isel(task=task, step=part).mean("seed")
    ax.plot(since[part], seen, label=label, **look)
