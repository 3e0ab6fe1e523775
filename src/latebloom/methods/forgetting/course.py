"""The course of a continual learner's trace: its tasks in the order in which they were learned, and their ends.

What a trace is, and a stretch of it, stands in `metrics`, which is computed from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

Metric = TypeVar("Metric", bound=Callable[..., Any])


class Undefined(ValueError):
    """A metric for which the trace lacks an evaluation; the message names it."""


def as_trace(
    accuracy: ArrayLike, learning: ArrayLike, *, steps: ArrayLike | None = None,
    tasks: Sequence[Any] | None = None, seeds: ArrayLike | None = None,
) -> xr.Dataset:  # fmt: skip
    """A trace of arrays.

    - `accuracy`: [seed, step, task], or [step, task] of a single seed.
    - `learning`: [seed, step], or [step] where all seeds learn the same.
    - `steps`, `tasks`, `seeds`: their labels; 0, 1, 2, ... if not given.

    Raises `ValueError` where they do not make a trace.
    """
    values = np.asarray(accuracy, float)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3:
        raise ValueError(f"accuracy must be [seed, step, task], not of shape {values.shape}")
    task = np.asarray(learning)
    try:
        task = np.broadcast_to(task, values.shape[:2]).copy()
    except ValueError:
        raise ValueError(
            f"learning must be [seed, step] = {list(values.shape[:2])} or [step], not {list(task.shape)}"
        ) from None
    names = {"seed": seeds, "step": steps, "task": tasks}
    coords = {}
    for (name, given), n in zip(names.items(), values.shape, strict=True):
        coords[name] = np.arange(n) if given is None else np.asarray(given)
        if coords[name].shape != (n,):
            raise ValueError(f"{name}s has {coords[name].size} labels, accuracy has {n} {name}s")
    trace = xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values), "learning": (("seed", "step"), task)},
        coords,
    )
    course_of(trace)
    return trace


@dataclass(frozen=True)
class Course:
    """A trace's arrays, and its stretches: their tasks `order` [seed, stretch] and the positions
    `ends` [seed, stretch] of their last observations."""

    accuracy: Float[np.ndarray, "seed step task"]
    learning: Int[np.ndarray, "seed step"]
    steps: Int[np.ndarray, " step"]
    tasks: np.ndarray
    seeds: np.ndarray
    order: Int[np.ndarray, "seed stretch"]
    ends: Int[np.ndarray, "seed stretch"]

    @property
    def rows(self) -> Int[np.ndarray, "seed 1"]:
        return np.arange(len(self.seeds))[:, None]

    @property
    def at_ends(self) -> Float[np.ndarray, "seed stretch task"]:
        return self.accuracy[self.rows, self.ends]

    @property
    def starts(self) -> Int[np.ndarray, "seed stretch"]:
        return np.insert(self.ends[:, :-1] + 1, 0, 0, axis=1)

    @property
    def updates_before(self) -> Int[np.ndarray, "seed stretch"]:
        """The updates that were made before each stretch, as far as the observations tell."""
        return np.insert(self.steps[self.ends[:, :-1]], 0, 0, axis=1)

    def first(self, positions: Int[np.ndarray, "seed stretch"]) -> Int[np.ndarray, "seed task"]:
        """Each task's least of the positions of its stretches; beyond all where it has none."""
        found = np.full((len(self.seeds), len(self.tasks)), len(self.steps))
        np.minimum.at(found, (self.rows, self.order), positions)
        return found

    @property
    def learned(self) -> Bool[np.ndarray, "seed task"]:
        return self.first(self.ends) < len(self.steps)

    @property
    def past(self) -> Bool[np.ndarray, "seed step task"]:
        """Where a task has been learned and is not being learned."""
        since = np.arange(len(self.steps))[:, None] > self.first(self.ends)[:, None]
        return since & (self.learning[..., None] != np.arange(len(self.tasks)))

    def array(self, values: np.ndarray, *dims: str) -> xr.DataArray:
        labels = {"seed": self.seeds, "step": self.steps, "task": self.tasks}
        return xr.DataArray(values, {dim: labels[dim] for dim in dims if dim in labels}, dims)

    def once(self, what: str) -> None:
        inner = np.sort(self.order, axis=1)
        twice = inner[:, 1:] == inner[:, :-1]
        if twice.any():
            seed, place = np.argwhere(twice)[0]
            raise Undefined(
                f"{what} is of tasks that are learned once, but seed {self.seeds[seed]} comes back to task "
                f"{self.name(inner[seed, place])}: use accuracy_matrix, min_accuracy or gap"
            )

    def several(self, what: str) -> None:
        if self.order.shape[1] < 2:
            raise Undefined(
                f"{what} needs a second task: only {self.name(self.order[0, 0])} was learned"
            )

    def name(self, task: Any) -> str:
        return repr(self.tasks[[task]].tolist()[0])

    def demand(
        self, needed: Bool[np.ndarray, "seed stretch task"], what: str
    ) -> Float[np.ndarray, "seed stretch task"]:
        """The accuracies at the ends of stretches. Raises `Undefined` where a needed one is NaN."""
        missing = needed & np.isnan(self.at_ends)
        if missing.any():
            seed, stretch, task = np.argwhere(missing)[0]
            raise Undefined(
                f"{what} needs task {self.name(task)} evaluated at step "
                f"{self.steps[self.ends[seed, stretch]]} of seed {self.seeds[seed]}, at the end of task "
                f"{self.name(self.order[seed, stretch])}"
            )
        return self.at_ends


def course_of(trace: xr.Dataset) -> Course:
    for name, dims in {"accuracy": ("seed", "step", "task"), "learning": ("seed", "step")}.items():
        if name not in trace:
            raise ValueError(f"the trace has no {name!r} [{', '.join(dims)}]")
        if set(trace[name].dims) != set(dims):
            has = ", ".join(map(str, trace[name].dims))
            raise ValueError(f"{name} must be [{', '.join(dims)}], not [{has}]")
    accuracy = trace.accuracy.transpose("seed", "step", "task").values.astype(float)
    learning = trace.learning.transpose("seed", "step").values
    steps, tasks, seeds = (trace[dim].values for dim in ("step", "task", "seed"))
    if 0 in accuracy.shape:
        raise ValueError(f"the trace is empty: accuracy has the shape {list(accuracy.shape)}")
    if np.isinf(accuracy).any():
        raise ValueError("accuracy is infinite somewhere: give NaN where a task was not evaluated")
    if learning.dtype.kind not in "iuf" or not np.all(np.mod(learning, 1) == 0):
        raise ValueError("learning must be the index of a task, a whole number, at every step")
    learning = learning.astype(np.int64)
    if learning.min() < 0 or learning.max() >= len(tasks):
        odd = learning.min() if learning.min() < 0 else learning.max()
        raise ValueError(f"learning must be an index of {len(tasks)} tasks from 0 on, not {odd}")
    if steps.dtype.kind not in "iu" or steps[0] < 0 or (np.diff(steps) <= 0).any():
        raise ValueError(
            "step must be whole numbers of updates from 0 on, each above the one before"
        )
    if len(steps) > 1 and steps[0] == 0 and (learning[:, 0] != learning[:, 1]).any():
        seed = int(np.flatnonzero(learning[:, 0] != learning[:, 1])[0])
        raise ValueError(
            f"learning of seed {seeds[seed]} is {learning[seed, 0]} at step 0 and {learning[seed, 1]} at the "
            "next: step 0 has the task of the first update, which must be evaluated after one of its updates"
        )
    last = np.ones(learning.shape, bool)
    last[:, :-1] = learning[:, 1:] != learning[:, :-1]
    counts = last.sum(axis=1)
    if (counts != counts[0]).any():
        seed = int(np.flatnonzero(counts != counts[0])[0])
        raise ValueError(
            f"all seeds must learn as many tasks: seed {seeds[0]} learns {counts[0]}, seed {seeds[seed]} "
            f"learns {counts[seed]}"
        )
    ends = np.nonzero(last)[1].reshape(len(seeds), -1)
    order = np.take_along_axis(learning, ends, axis=1)
    return Course(accuracy, learning, steps.astype(np.int64), tasks, seeds, order, ends)


def of_the_living(metric: Metric) -> Metric:
    """NaN for the seeds that have diverged, whose traces end early."""

    @functools.wraps(metric)
    def of(trace: xr.Dataset, *args: Any, **kwargs: Any) -> Any:
        dead = diverged(trace)
        if not dead.any():
            return metric(trace, *args, **kwargs)
        if dead.all():
            raise Undefined("every seed of the trace has diverged")
        return metric(trace.isel(seed=~dead), *args, **kwargs).reindex(seed=trace.seed.values)

    made: Any = of
    return made


def diverged(trace: xr.Dataset) -> Bool[np.ndarray, " seed"]:
    if "diverged_at" not in trace.coords:
        return np.zeros(trace.sizes.get("seed", 0), bool)
    return trace["diverged_at"].values >= 0
