"""Accuracies by update and task in; what was lost right after each switch, and whether it came back, out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from latebloom.data.files import Column, FileError, read_table, row_number
from latebloom.lab import Application, Applied, pictures, style
from latebloom.lab.application import Say
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.noise import lowest_by_noise
from latebloom.methods.forgetting.tracker import from_table

COLUMNS = {
    "iteration": Column(
        "integer", low=0,
        aliases=("step", "global_step", "trainer/global_step", "iter", "update", "x"),
    ),
    "task": Column("label", aliases=("eval_task", "eval_exp", "experience", "domain", "tag", "key")),
    "accuracy": Column(gaps=True, aliases=("acc", "test_accuracy", "eval_accuracy", "score", "metric", "value")),
    "learning": Column("label", required=False, aliases=("train_task", "current_task", "training_task", "training_exp")),
    "seed": Column("label", required=False, aliases=("run", "run_id", "run_name")),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """- `starts`: the iteration before whose first update each task begins, where the file has no column
      `learning` ("cats=0,dogs=300").
    - `tasks`: the column of each task, where the table has a column a task ("cats=acc/cats,dogs=acc/dogs").
    - `lower`: less is better, as of a loss. `within`: updates after a switch in which the lowest is looked for.
    - `level`: share of a drop that must be regained to have recovered.
    - `examples`: how many test examples an accuracy stands on, to tell a gap from noise.
    - `columns`: what the file calls them, where it calls them otherwise ("accuracy=val_top1").
    """

    starts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    lower: bool = False
    within: int = 50
    level: float = 0.9
    examples: int | None = None
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"one table of accuracies is needed, not {len(paths)} files")
    say("reading the accuracies", 0.0)
    trace = read_trace(paths[0], options)
    say("looking at the switches", 0.4)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = metrics.gap(trace, options.within, options.level)
            totals = metrics.summary(trace, within=options.within)
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    rows = gaps(found)
    rows["evaluations"] = evaluations(trace, found, options.within)
    noise = None
    if options.examples is not None:
        least = lowest_by_noise(rows["before"], options.examples, rows["evaluations"])
        noise = pd.Series(least, rows.index)
    say("drawing", 0.7)
    undefined = totals.attrs["undefined"]
    table = pd.DataFrame([
        {"metric": name, "mean": float(value.mean()), "sd_over_seeds": _sd(value.values),
         "undefined": undefined.get(name, "")}
        for name, value in totals.items()
    ])  # fmt: skip
    return Applied(
        sentences(rows, totals, noise, options, [str(w.message) for w in warned]),
        {"switches": rows.to_dict("records"), "metrics": table.to_dict("records")},
        {"switches": rows, "metrics": table},
        {"accuracy": draw(trace, found, options), "switch": draw_switch(trace, found, options)},
    )  # fmt: skip


def read_rows(path: Path, options: Options) -> pd.DataFrame:
    """Columns `iteration`, `task`, `accuracy` (NaN for gaps; turned if less is better), `learning`, perhaps `seed`."""
    if not options.within >= 1:
        raise ValueError(f"within must be a number of updates from 1 on, not {options.within}")
    if not 0 < options.level <= 1:
        raise ValueError(f"level must be above 0 and at most 1, not {options.level}")
    if options.examples is not None and options.examples < 1:
        raise ValueError(f"examples must be at least 1, not {options.examples}")
    if options.lower and options.examples is not None:
        raise ValueError(
            "examples says how noisy a share of right answers is, which less is better (lower) is not: leave one out"
        )
    rows = (
        _wide(path, options)
        if options.tasks
        else read_table(path, COLUMNS, min_rows=4, chosen=options.columns)
    )
    if "learning" not in rows:
        if not options.starts:
            raise FileError(
                f"{path} has no column 'learning', the task that was trained on: name the column (columns="
                "learning=...), or say where tasks start, as in starts=cats=0,dogs=300"
            )
        rows["learning"] = _learning(rows, options.starts)
    elif options.starts:
        raise ValueError("starts are of no use: the file has a column 'learning' already")
    tasks, learned = set(rows["task"]), set(rows["learning"])
    if not tasks & learned:
        raise FileError(
            f"{path}: of the tasks learned ({', '.join(sorted(learned)[:20])}) none is evaluated "
            f"({', '.join(sorted(tasks)[:20])}): give both columns the same names"
        )
    if options.lower:
        rows["accuracy"] = -rows["accuracy"]
    elif options.examples is not None and not rows["accuracy"].dropna().between(0, 1).all():
        row = int(np.flatnonzero(~rows["accuracy"].between(0, 1) & rows["accuracy"].notna())[0])
        raise FileError(
            f"{path}, column 'accuracy', row {row_number(rows, row)}: {rows['accuracy'][row]:g} is no share of "
            "right answers: give fractions, or leave examples out"
        )
    return rows


def _wide(path: Path, options: Options) -> pd.DataFrame:
    """A table with a column a task as one with a row for each evaluation."""
    kept = ("iteration", "learning", "seed")
    names = [entry.partition("=")[0].strip() for entry in options.tasks]
    for entry, name in zip(options.tasks, names, strict=True):
        if "=" not in entry or not name or name in kept or names.count(name) > 1:
            raise ValueError(
                f"tasks must be of different names and columns, as in cats=acc/cats,dogs=acc/dogs, not {entry!r}"
            )
    score = Column(gaps=True) if options.examples is None else Column(gaps=True, low=0, high=1)
    asked = {name: COLUMNS[name] for name in kept} | dict.fromkeys(names, score)
    table = read_table(path, asked, min_rows=2, chosen=(*options.columns, *options.tasks))
    table = table.melt([name for name in kept if name in table], names, "task", "accuracy")
    return table.dropna(subset=["accuracy"]).reset_index(drop=True)


def read_trace(path: Path, options: Options) -> xr.Dataset:
    """The table as a trace of `latebloom.methods.forgetting.metrics`."""
    rows = read_rows(path, options)
    try:
        return from_table(rows)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None


def _learning(rows: pd.DataFrame, starts: Sequence[str]) -> list[str]:
    begin: dict[str, int] = {}
    for entry in starts:
        name, _, number = entry.rpartition("=")
        if not name or not number.isdigit():
            raise ValueError(
                f"starts must be of tasks and iterations, as in cats=0,dogs=300, not {entry!r}"
            )
        if (name := name.strip()) in begin:
            raise ValueError(
                f"starts has {name!r} twice: where tasks come back, the file needs a column 'learning'"
            )
        begin[name] = int(number)
    known = set(rows["task"])
    if strange := [name for name in begin if name not in known]:
        raise ValueError(
            f"starts: there is no task {strange[0]!r}; there are {', '.join(sorted(known)[:20])}"
        )
    names, at = list(begin), np.array(list(begin.values()))
    if (np.diff(at) <= 0).any() or at[0] != 0:
        raise ValueError("starts must begin with 0 and increase")
    if at[-1] >= (last := rows["iteration"].max()):
        raise ValueError(
            f"starts: {names[-1]} starts at {at[-1]}, but the last iteration of the file is {last}"
        )
    # An accuracy at a border was measured before the first update on the next task.
    place = np.searchsorted(at, rows["iteration"].to_numpy(), side="left") - 1
    return [names[max(p, 0)] for p in place]


def gaps(found: xr.Dataset) -> pd.DataFrame:
    """A row for each seed, switch and task learned before it."""
    rows = found.to_dataframe().dropna(subset=["before"]).reset_index()
    names = ["seed", "step", "finished", "begun", "task", "before", "lowest", "after", "drop", "recovery",
             "updates_to_lowest", "updates_to_recover"]  # fmt: skip
    return rows[names]  # pyright: ignore


def evaluations(trace: xr.Dataset, found: xr.Dataset, within: int) -> np.ndarray:
    """How many the lowest accuracy of each row of `gaps` is of."""
    known = trace.accuracy.transpose("seed", "step", "task").notnull().values
    total = np.insert(known.cumsum(axis=1), 0, 0, axis=1)
    steps, borders = trace.step.values, found.step.transpose("seed", "border").values
    over = np.append(borders[:, 1:], np.full((len(borders), 1), steps[-1]), axis=1)
    first, last = (
        np.searchsorted(steps, at, side="right")
        for at in (borders, np.minimum(borders + within, over))
    )
    seed = np.arange(len(borders))[:, None]
    counts = total[seed, last] - total[seed, first]
    return counts[found.before.transpose("seed", "border", "task").notnull().values]


def sentences(
    rows: pd.DataFrame, totals: xr.Dataset, noise: pd.Series | None, options: Options,
    warned: Sequence[str],
) -> tuple[str, ...]:  # fmt: skip
    what, sign = ("loss", -1) if options.lower else ("accuracy", 1)
    said = []
    just = rows[rows["task"] == rows["finished"]]
    for _, part in just.groupby(["step", "finished", "begun"], sort=True):
        step, finished, begun = (part[name].tolist()[0] for name in ("step", "finished", "begun"))
        mean = part[["before", "lowest", "after", "drop"]].mean()
        text = (
            f"After the switch from {finished!r} to {begun!r} at {step}, {what} on {finished!r} goes from "
            f"{sign * mean['before']:.3g} to {sign * mean['lowest']:.3g} within {options.within} updates, "
            f"and is {sign * mean['after']:.3g} when {begun!r} is over"
        )
        if noise is not None:
            beyond = int(np.less(part["lowest"], noise.loc[part.index]).sum())
            text += f" ({beyond} of {len(part)} seeds beyond noise)" if len(part) > 1 else (
                ": beyond noise" if beyond else ": no more than noise may do"
            )  # fmt: skip
        said.append(text + ".")
    ends, least = totals["average_accuracy"], totals["min_accuracy"]
    if not np.isnan(least).all():
        known = f"Averaged over tasks, {what} is {sign * float(ends.mean()):.3g} at the end; "
        whole = "" if np.isnan(ends).all() else known
        text = f"{whole}on those learned before, the worst that it ever was is {sign * float(least.mean()):.3g}."
        said.insert(0, text[0].upper() + text[1:])
    return (*said, *(f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(warned)))


def _sd(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _shown(trace: xr.Dataset, options: Options) -> tuple[Any, str]:
    accuracy = trace.accuracy.mean("seed")
    return (-accuracy, "loss") if options.lower else (accuracy, "accuracy")


def draw(trace: xr.Dataset, found: xr.Dataset, options: Options) -> Figure:
    """Each task over all updates, mean over seeds, with the switches."""
    values, what = _shown(trace, options)
    figure, (ax,) = pictures.panels(1, width=8, height=3.8)
    for place, task in enumerate(trace.task.values):
        one = values.sel(task=task).dropna("step")
        look = pictures.nth_look(place)
        ax.plot(
            one.step,
            one,
            color=look["colour"],
            linestyle=look["linestyle"],
            linewidth=1.2,
            label=str(task),
        )
    for step in np.unique(found.step.values):
        ax.axvline(step, color=style.INK, linestyle=":", linewidth=0.7)
    ax.set(xlabel="update", ylabel=what)
    if trace.sizes["task"] <= 20:
        pictures.legend_below(figure)
    return figure


def draw_switch(trace: xr.Dataset, found: xr.Dataset, options: Options) -> Figure:
    """The first updates after each switch, of the task just finished."""
    values, what = _shown(trace, options)
    switches = list(
        zip(found.step.values[0], found.finished.values[0], found.begun.values[0], strict=True)
    )[:12]
    figure, places = pictures.panels(len(switches), 3, height=2.9, sharey=True)
    for ax, (step, finished, begun) in zip(places, switches, strict=False):
        one = values.sel(task=finished).dropna("step")
        near = one.where(
            (one.step >= step - options.within // 2) & (one.step <= step + options.within),
            drop=True,
        )
        ax.plot(near.step - step, near, ".-", color=style.colours[0], markersize=4, linewidth=1.2)
        ax.axvline(0, color=style.INK, linestyle=":", linewidth=0.7)
        ax.set_title(f"{finished}, then {begun}", fontsize=9)
        ax.set(xlabel="updates since the switch", ylabel=what)
    return figure


application = Application(
    about="A table of accuracies measured during continual learning: what was lost right after each switch of tasks, "
    "whether and when it came back, the worst case, and all that task-end metrics say.",
    files="one CSV, TSV, JSON lines or Parquet table with iteration (updates made), task (evaluated), accuracy (any score) "
    "and learning (the task that is trained on); seed if there are several; or a column a task (tasks)",
    options=Options,
    run=run,
)  # fmt: skip
