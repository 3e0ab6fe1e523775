"""Follows a learner of anybody's through its tasks: after each update, how good it is at each of them.

    tracker = ContinualTracker({"cats": (x_cats, y_cats), "dogs": (x_dogs, y_dogs)})
    for name, batches in stream:
        for x, y in batches:
            model.partial_fit(x, y, classes=classes)
            tracker.update(model, learning=name)
    tracker.summary()

Its `trace()` is what `forgetting.metrics` computes from and what `latebloom.lab.pictures` draws.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr

from latebloom.core.calling import call
from latebloom.core.checkpoint import write_atomically
from latebloom.methods.forgetting import metrics

Metric = Callable[[np.ndarray, Any], float]
COLUMNS = ("seed", "iteration", "learning", "task", "accuracy")


def accuracy(y: np.ndarray, predicted: Any) -> float:
    """Share of the labels `y` [n] that are predicted right.

    - `predicted`: labels [n], or scores [n, classes], whose highest is the class index predicted. Scores
      with a NaN predict nothing, and are wrong.

    Raises `ValueError` for another shape, scores or fractions in place of labels, and labels of another
    kind than `y`.
    """
    predicted, y = _numbers(predicted), _numbers(y)
    if y.ndim != 1:
        raise ValueError(f"accuracy needs labels [n], not {list(y.shape)}: give another metric")
    if predicted.ndim not in (1, 2) or len(predicted) != len(y) or predicted.shape[1:] == (1,):
        raise ValueError(
            f"the predictor must give labels [{len(y)}] or scores [{len(y)}, classes], not {list(predicted.shape)}"
        )
    unsaid = np.zeros(len(y), bool)
    if predicted.ndim == 2:
        unsaid = np.isnan(predicted).any(axis=1)
        predicted = predicted.argmax(axis=1)
    elif predicted.dtype.kind == "f":
        unsaid = np.isnan(predicted)
        if (odd := predicted[~unsaid & (predicted != np.floor(predicted))]).size:
            raise ValueError(
                f"the predictor gives {odd[0]:g}, which is no label: give labels [n], or scores [n, classes]"
            )
    if (predicted.dtype.kind in "biuf") != (y.dtype.kind in "biuf"):
        raise ValueError(
            f"the predictor gives labels such as {predicted[:1].tolist()[0]!r}, the tasks have such as "
            f"{y[:1].tolist()[0]!r}: give both as the same"
        )
    return float(np.mean((predicted == y) & ~unsaid))


def _numbers(labels: Any) -> np.ndarray:
    """As an array, which is one of numbers where numbers came as objects."""
    labels = np.asarray(labels)
    if labels.dtype != object:
        return labels
    plain = np.asarray(labels.tolist())
    return plain if plain.dtype.kind in "biuf" else labels


class ContinualTracker:
    """Evaluates a predictor on fixed examples of each task, after each update or some of them.

    - `tasks`: name -> (x, y), evaluation examples [n, ...] and labels [n]; arrays, data frames or lists.
    - `metric(y, predicted)`: a score of which more is better, of the labels and of whatever the predictor
      gives; accuracy by default.
    - `every`: evaluate once in so many updates; `dense`: and after each of so many updates that follow a
      switch of tasks, where gaps are.
    - `examples`: at most so many of each task, drawn once by `seed`; None for all.
    - `ahead`: evaluate tasks that are still to come, too, which forward transfer needs.
    - `task_aware`: the predictor is called with (x, name of the task).

    Raises `ValueError` for tasks that hold no examples, or not as many labels, and for numbers below 1.
    """

    def __init__(
        self, tasks: Mapping[str, tuple[Any, Any]], *, metric: Metric = accuracy, every: int = 1,
        dense: int = 50, examples: int | None = 1000, seed: int = 0, ahead: bool = False,
        task_aware: bool = False,
    ) -> None:  # fmt: skip
        for name, value in (
            ("every", every),
            ("dense", dense),
            ("examples", examples),
        ):
            if value is not None and (int(value) != value or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, not {value}")
        if not tasks:
            raise ValueError("tasks is empty: give at least one name with its (x, y)")
        self.names = list(tasks)
        self.metric, self.every, self.dense, self.seed = metric, every, dense, seed
        self.ahead, self.task_aware = ahead, task_aware
        self.data = {
            name: _chosen(name, *_pair(name, task), examples, np.random.default_rng([seed, place]))
            for place, (name, task) in enumerate(tasks.items())
        }
        self.updates = 0
        self._learning: list[int] = []  # of each observation
        self._steps: list[int] = []
        self._scores: list[list[float]] = []
        self._switch = 0  # updates before the task that is being learned
        self._current: int | None = None
        self._seen: set[str] = set()
        self._warned: set[str] = set()

    def start(self, predictor: Any, learning: str) -> dict[str, float]:
        """Evaluate before the first update, which is on task `learning`; optional.

        Raises `ValueError` after an update.
        """
        if self._steps or self.updates:
            raise ValueError("start comes once, before the first update")
        self._current = self._index(learning)
        self._seen.add(learning)
        return self._observe(predictor)

    def update(
        self, predictor: Any, learning: str, *, updates: int = 1, evaluate: bool | None = None
    ) -> dict[str, float] | None:
        """To be called after each update: the score on each task that was evaluated, or None.

        - `predictor`: a function x -> labels [n] or scores [n, classes], an estimator with `predict`, or an
          Equinox module. A network of PyTorch must be in evaluation mode, and its outputs detached.
        - `learning`: the task whose batch made the update.
        - `updates`: how many were made since the last call, all on that task.
        - `evaluate`: whether now; None leaves it to `every` and `dense`. True for the last update of a task,
          where `every` would miss it.

        Warns once where, in the first 50 updates after a switch, more than 10 go by without an evaluation, and
        once where the end of a task is as far from one. Raises `ValueError` for a task that there is not, one
        that another follows before it was evaluated, a network of PyTorch in training mode, and a prediction
        of another shape.
        """
        if int(updates) != updates or updates < 1:
            raise ValueError(f"updates must be a whole number from 1 on, not {updates}")
        place = self._index(learning)
        last = max(self._steps, default=0)
        if self._current is not None and place != self._current:
            self._check_the_end(self.names[self._current], self.updates - last)
            self._switch = self.updates
        self._current = place
        self._seen.add(learning)
        before, self.updates = self.updates, self.updates + int(updates)
        since = self.updates - self._switch
        due = since <= self.dense or self.updates // self.every > before // self.every
        if not (due if evaluate is None else evaluate):
            return None
        missed = self.updates - max(last, self._switch)
        near = self._switch and max(last, self._switch) - self._switch < metrics.NEAR
        if near and missed > metrics.HIDES_A_GAP:
            self._warn(
                "gap",
                f"{missed} updates near the switch to {learning!r} went by without an evaluation, a gap may come "
                "and go in them: evaluate every update after a switch (every, dense, updates)",
            )
        return self._observe(predictor)

    def trace(self) -> xr.Dataset:
        """`accuracy` [seed, step, task] and `learning` [seed, step] of this one seed; see `metrics`.

        The coordinate `examples` [task] is how many a task is evaluated on. Raises `ValueError` where
        nothing was evaluated yet.
        """
        if not self._steps:
            raise ValueError("nothing was evaluated yet: call update after each update")
        trace = metrics.as_trace(
            self._scores, self._learning, steps=self._steps, tasks=self.names, seeds=[self.seed]
        )
        sizes = [len(y) for _, y in self.data.values()]
        return trace.assign_coords(examples=("task", sizes))

    def table(self) -> pd.DataFrame:
        """One row an evaluation: seed, iteration, learning, task, accuracy."""
        return table(self.trace())

    def summary(self, **settings: Any) -> dict[str, Any]:
        """`metrics.summary` of this run, as JSON has it: None for what is undefined, and in "undefined" why."""
        found = metrics.summary(self.trace(), **settings)
        numbers = {str(name): float(values[0]) for name, values in found.data_vars.items()}
        return {k: None if np.isnan(v) else v for k, v in numbers.items()} | found.attrs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `table()` as .csv or .parquet, aside and then renamed. See `save`."""
        save(self.trace(), path)

    def _index(self, learning: str) -> int:
        if learning not in self.data:
            raise ValueError(
                f"there is no task {learning!r} to learn; there are {', '.join(map(repr, self.names))}"
            )
        return self.names.index(learning)

    def _check_the_end(self, task: str, unseen: int) -> None:
        if not any(step > self._switch for step in self._steps[-1:]):
            raise ValueError(
                f"task {task!r} ends at update {self.updates} and was not evaluated since its first: leave evaluate "
                "to the tracker, or pass evaluate=True with its last update"
            )
        if unseen > metrics.HIDES_A_GAP:
            self._warn(
                "end",
                f"the last evaluation before update {self.updates}, the end of task {task!r}, is {unseen} updates "
                "older and stands for it: pass evaluate=True with the last update of a task",
                stacklevel=4,
            )

    def _warn(self, kind: str, message: str, stacklevel: int = 3) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=stacklevel)

    def _observe(self, predictor: Any) -> dict[str, float]:
        scores = {
            name: self._score(predictor, name)
            for name in self.names
            if self.ahead or name in self._seen
        }
        self._steps.append(self.updates)
        self._learning.append(self._current or 0)
        self._scores.append([scores.get(name, np.nan) for name in self.names])
        return scores

    def _score(self, predictor: Any, name: str) -> float:
        x, y = self.data[name]
        task = (name,) if self.task_aware else ()
        if hasattr(predictor, "predict"):
            predicted = predictor.predict(x, *task)
        elif isinstance(predictor, eqx.Module) and not task:
            predicted = call(predictor, x)
        elif getattr(predictor, "training", False) is True and hasattr(predictor, "eval"):
            raise ValueError(
                "predictor is a network in training mode, which an evaluation would change: give a function that "
                "calls its eval(), predicts and calls its train()"
            )
        elif callable(predictor):
            predicted = predictor(x, *task)
        else:
            raise ValueError(
                f"predictor must be a function of x or have a method predict, not {type(predictor).__name__}"
            )
        try:
            score = float(self.metric(y, predicted))
        except ValueError as error:
            raise ValueError(f"task {name!r}: {error}") from None
        if not np.isfinite(score):
            raise ValueError(
                f"task {name!r}: the metric is {score}: it must be finite, more is better"
            )
        return score


def join(traces: Sequence[xr.Dataset]) -> xr.Dataset:
    """Traces of several seeds as one, [seed, ...].

    Raises `ValueError` where two have the same seed, or tasks or steps differ.
    """
    if not traces:
        raise ValueError("there are no traces to join")
    for dim in ("task", "step"):
        for one in traces[1:]:
            if not np.array_equal(one[dim].values, traces[0][dim].values):
                raise ValueError(
                    f"the {dim}s of seed {one.seed.values[0]} differ from those of seed {traces[0].seed.values[0]}: "
                    "evaluate all alike"
                )
    seeds = [seed for one in traces for seed in one.seed.values.tolist()]
    if twice := sorted(seed for seed in set(seeds) if seeds.count(seed) > 1):
        raise ValueError(
            f"seed {twice[0]} occurs twice among the traces: give each tracker its own seed"
        )
    return xr.concat(traces, "seed", data_vars="minimal", coords="minimal", compat="override")


def table(trace: xr.Dataset) -> pd.DataFrame:
    """One row an evaluation: seed, iteration (updates made), learning (task), task, accuracy."""
    seeds, steps, tasks = (trace[dim].values for dim in ("seed", "step", "task"))
    values = trace.accuracy.transpose("seed", "step", "task").values
    learning = tasks[trace.learning.transpose("seed", "step").values.astype(int)]
    seed, step, task = np.nonzero(~np.isnan(values))
    columns = (
        seeds[seed], steps[step], learning[seed, step], tasks[task], values[seed, step, task],
    )  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def from_table(rows: pd.DataFrame) -> xr.Dataset:
    """The trace of a table with the columns iteration, learning, task, accuracy, and seed if there are several.

    Raises `ValueError` for a column that there is not, two accuracies or two tasks learned at one place, and
    seeds that were evaluated after other updates.
    """
    if lacks := [name for name in COLUMNS if name not in rows and name != "seed"]:
        raise ValueError(
            f"the table has no column {lacks[0]!r}; it has {', '.join(map(str, rows))}"
        )
    rows = rows if "seed" in rows else rows.assign(seed=0)
    places = rows.drop_duplicates(["seed", "iteration", "learning"])
    for cells, by in ((rows, ["seed", "iteration", "task"]), (places, ["seed", "iteration"])):
        if (twice := cells.duplicated(by).to_numpy()).any():
            one = cells[twice].iloc[0]
            what = f"task {one['task']!r} two accuracies" if "task" in by else "two tasks learned"
            raise ValueError(
                f"the table has {what} at iteration {one['iteration']} of seed {one['seed']}"
            )
    tasks = list(dict.fromkeys([*rows["learning"], *rows["task"]]))
    seeds, steps = (np.unique(rows[name].to_numpy()) for name in ("seed", "iteration"))
    if len(places) != len(seeds) * len(steps):
        raise ValueError("the seeds of the table were not all evaluated at the same iterations")
    accuracy = np.full((len(seeds), len(steps), len(tasks)), np.nan)
    learning = np.zeros(accuracy.shape[:2], int)
    of = {task: place for place, task in enumerate(tasks)}
    at = np.searchsorted(seeds, rows["seed"]), np.searchsorted(steps, rows["iteration"])
    accuracy[*at, [of[task] for task in rows["task"]]] = rows["accuracy"]
    learning[at] = [of[task] for task in rows["learning"]]
    return metrics.as_trace(accuracy, learning, steps=steps, tasks=tasks, seeds=seeds)


def save(trace: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write `table(trace)` to a .csv, .parquet or .pq file, aside and then renamed.

    Raises `ValueError` for another ending, and for Parquet without pyarrow.
    """
    ending = Path(path).suffix.lower()
    rows = table(trace)
    if ending == ".csv":
        payload = rows.to_csv(index=False).encode()
    elif ending in (".parquet", ".pq"):
        buffer = io.BytesIO()
        try:
            rows.to_parquet(buffer, index=False)
        except ImportError:
            raise ValueError(
                f"{path}: writing Parquet needs pyarrow: pip install 'latebloom[parquet]'"
            ) from None
        payload = buffer.getvalue()
    else:
        raise ValueError(f"{path} must end in .csv or .parquet, the tables that can be written")
    write_atomically(path, payload)


def _pair(name: str, task: Any) -> tuple[Any, Any]:
    try:
        x, y = task
    except (TypeError, ValueError):
        raise ValueError(f"task {name!r} must be a pair (x, y) of evaluation examples") from None
    return x, y


def _chosen(
    name: str, x: Any, y: Any, most: int | None, rng: np.random.Generator
) -> tuple[Any, np.ndarray]:
    """At most so many examples, drawn without replacement and kept in order."""
    x = x if hasattr(x, "shape") else np.asarray(x)
    y = np.asarray(y)
    if not len(y) or x.shape[0] != len(y):
        raise ValueError(
            f"task {name!r} has {x.shape[0]} examples and {len(y)} labels: as many, and some"
        )
    if pd.isna(y).any():
        raise ValueError(f"task {name!r}: label {int(np.argwhere(pd.isna(y))[0][0])} is missing")
    if most is None or most >= len(y):
        return x, y
    rows = np.sort(rng.choice(len(y), most, replace=False))
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows], y[rows]
