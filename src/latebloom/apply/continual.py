"""Examples with a task or a time in; which method forgets least at equal cost, and what a memory buys, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latebloom.data.files import Column, FileError
from latebloom.data.labelled import Labelled, read_examples
from latebloom.lab import Application, Applied, pictures, style
from latebloom.lab.application import Say
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.compare import FINE_TUNING, KEPT, Comparison, by_time, compare

MORE = {
    "task": Column("label", required=False, aliases=("domain", "site", "batch", "experience", "session")),
    "time": Column("time", required=False, aliases=("timestamp", "date", "datetime", "created_at")),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """- `periods`: so many tasks with as many examples each are made of a column `time`.
    - `methods` that are compared; `memory`: numbers of examples that those with a memory remember.
    - `told`: in use the task is known, so that only its classes compete.
    - `network`: "mlp", or "cnn" for images. `epochs` over each task, under fine-tuning; `seeds`: splits and
      runs. `size`: images of a folder are scaled to it.
    - `columns`: what the table calls them, where it calls them otherwise ("task=site,label=class").
    """

    periods: int = 5
    methods: tuple[str, ...] = (FINE_TUNING, "EWC", "LwF", "ER", "ER-ACE", "DER++", KEPT)
    memory: tuple[int, ...] = (50, 200, 1000)
    told: bool = False
    network: Literal["mlp", "cnn"] = "mlp"
    epochs: float = 10.0
    seeds: int = 8
    size: int = 28
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if options.size < 4:
        raise ValueError(f"size must be at least 4 pixels, not {options.size}")
    say("reading the examples", 0.0)
    data = read_stream(paths, options)
    try:
        task = data.more["task"] if "task" in data.more else by_time(data.more["time"], options.periods)  # fmt: skip
        found = compare(
            data.x, data.y, task, methods=options.methods, memory=options.memory, network=options.network,
            epochs=options.epochs, told=options.told, seeds=options.seeds,
            progress=lambda what, share: say(what, 0.02 + 0.93 * share),
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[-1]}: {error}") from None
    say("drawing", 0.96)
    figures = {"course": draw_course(found), "methods": draw_methods(found)}
    if len(found.sizes) > 1:
        figures["memory"] = draw_memory(found)
    summary = {
        "tasks": dict(zip(map(str, found.names), found.counts, strict=True)),
        "classes": [str(name) for name in found.classes],
        "most_accurate": {str(size): found.top(size) for size in found.sizes},
        "cost_of_forgetting": found.cost,
        "guess": found.guess,
    }
    tables = {"methods": found.table, "pairs": found.pairs, "tasks": found.tasks, "tried": found.tried}  # fmt: skip
    return Applied(sentences(found), summary, tables, figures)


def read_stream(paths: Sequence[Path], options: Options) -> Labelled:
    """Examples with a label and either a task or a time. Raises `FileError`."""
    data = read_examples(paths, options.size, options.columns, MORE, features=True)
    if len(data.more) != 1:
        has = "both" if data.more else "neither"
        raise FileError(
            f"{paths[-1]} must have either 'task' or 'time' for each example, and has {has}: name one with "
            "columns=task=..., or drop the other"
        )
    return data


def sentences(found: Comparison) -> tuple[str, ...]:
    rows = found.table.set_index("name")
    said = []
    for size in found.sizes:
        best, *others = found.top(size)
        means = f"with {percent(rows.loc[best, 'accuracy'])} over all tasks at the end"
        held = f"With {size} remembered examples" if size else "Without a memory"
        if len(found.competing(size)) == 1:
            said.append(f"{held}, {best} ends {means}.")
        elif others:
            said.append(
                f"{held}, {best} is ahead {means}, but not surely the most accurate: so may be "
                f"{', '.join(others)}."
            )
        else:
            said.append(f"{held}, {best} is the most accurate, {means}.")
    said = said[::-1]  # the largest memory first
    said += memory_sentences(found, rows)
    if found.cost is not None:
        lost, low, high = found.cost
        what = (
            f"what is forgotten costs {points(lost)} points [{points(low)}, {points(high)}]"
            if low > 0
            else f"no cost of forgetting can be told: {points(lost)} points [{points(low)}, {points(high)}]"
        )
        said.append(
            f"Fine-tuning ends with {percent(rows.loc[FINE_TUNING, 'accuracy'])}, the same updates on all data so "
            f"far with {percent(rows.loc[KEPT, 'accuracy'])}: {what}."
        )
    classes = "some classes occur in several" if found.shared else "each class occurs in one alone"
    said.append(
        f"{sum(found.counts):,} examples of {len(found.classes)} classes in {len(found.counts)} tasks of "
        f"{min(found.counts):,} to {max(found.counts):,}; {classes}; always saying the most frequent class would be right "
        f"on {percent(found.guess)}."
    )
    best = rows["accuracy"].idxmax()
    if rows.loc[best, "accuracy_low"] <= found.guess:
        said.insert(0, (
            "No method has surely learned more than the most frequent class: nothing can be said of them; try more "
            "epochs, or network=cnn for images."
        ))  # fmt: skip
    edge = [str(name) for name in rows.index if rows.at[name, "on_edge"]]
    if edge:
        said.append(
            f"Of {', '.join(edge)} the best setting is the first or last that was tried: others may be better still."
        )
    return tuple(said)


def memory_sentences(found: Comparison, rows: pd.DataFrame) -> list[str]:
    """What more memory brings the method that does best with the most of it."""
    sizes = [size for size in found.sizes if size]
    if len(sizes) < 2:
        return []
    largest = pd.DataFrame(rows[rows["memory"] == sizes[-1]])
    method = str(largest.sort_values("accuracy")["method"].iloc[-1])
    steps = [f"{percent(rows.loc[f'{method}, {size}', 'accuracy'])} at {size}" for size in sizes]
    return [f"More memory, {method}: {', '.join(steps)} remembered examples."]


def percent(value: Any) -> str:
    return f"{100 * float(value):.1f} %"


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def _shown(found: Comparison) -> list[str]:
    """Names for a figure: of those with a memory, the largest."""
    largest = max(found.sizes, default=0)
    table = found.table
    return table[(table["memory"] == 0) | (table["memory"] == largest)]["name"].tolist()


def draw_course(found: Comparison) -> Figure:
    """Accuracy over the tasks learned so far, and on the first task alone, after each task."""
    figure, (left, right) = pictures.panels(2, width=10, height=3.8, sharey=True)
    after = np.arange(1, len(found.names) + 1)
    for place, name in enumerate(_shown(found)):
        ends = metrics.accuracy_matrix(found.traces[name]).values
        so_far = np.stack([ends[:, k, : k + 1].mean(axis=1) for k in range(len(after))], axis=1)
        look = pictures.nth_look(place)
        style.spread(left, after, 100 * so_far, colour=look["colour"], linestyle=look["linestyle"], label=name)  # fmt: skip
        style.spread(right, after, 100 * ends[:, :, 0], colour=look["colour"], linestyle=look["linestyle"])  # fmt: skip
    left.set(title="all tasks so far", ylabel="accuracy in %", ylim=(0, 100))
    right.set(title=f"the first task ({found.names[0]})", ylabel="")
    for ax in (left, right):
        ax.set_xlabel("tasks learned")
        pictures.plain_ticks(ax, after.tolist()[:: max(1, len(after) // 10)])
    pictures.legend_below(figure)
    return figure


def draw_methods(found: Comparison) -> Figure:
    """Accuracy when each task was learned, and at the end: what lies between was forgotten."""
    table = found.table.sort_values("accuracy", kind="stable")
    figure, (ax,) = pictures.panels(1, width=7.2, height=0.9 + 0.3 * len(table))
    y = np.arange(len(table))
    ends, learned = 100 * table["accuracy"], 100 * table["learned"]
    ax.hlines(y, ends, learned, color=style.INK, linewidth=0.8, alpha=0.5)
    ax.plot(learned, y, "o", markerfacecolor="none", color=style.INK, label="when learned")
    low, high = 100 * table["accuracy_low"], 100 * table["accuracy_high"]
    ax.errorbar(ends, y, xerr=[ends - low, high - ends], fmt="o", color=style.colours[0], label="at the end, 95 %")  # fmt: skip
    ax.set(xlabel="accuracy over all tasks in %", xlim=(0, 102))
    ax.set_yticks(y, table["name"])
    ax.set_ylim(-0.6, len(table) - 0.4)
    pictures.legend_below(figure)
    return figure


def draw_memory(found: Comparison) -> Figure:
    """Final accuracy by the number of remembered examples."""
    figure, (ax,) = pictures.panels(1, width=6.4, height=3.8)
    table = pd.DataFrame(found.table[found.table["memory"] > 0])
    for place, (method, rows) in enumerate(table.groupby("method", sort=False)):
        rows = pd.DataFrame(rows).sort_values("memory")
        look = pictures.nth_look(place)
        ends = 100 * rows["accuracy"]
        bars = [ends - 100 * rows["accuracy_low"], 100 * rows["accuracy_high"] - ends]
        ax.errorbar(rows["memory"], ends, yerr=bars, marker="o", color=look["colour"],
                    linestyle=look["linestyle"], label=str(method), capsize=2)  # fmt: skip
    for name in (FINE_TUNING, KEPT):
        if name in found.traces:
            level = 100 * float(found.table.set_index("name").loc[name, "accuracy"])
            pictures.horizontal(ax, level, name)
    ax.set(
        xscale="log",
        xlabel="remembered examples",
        ylabel="accuracy over all tasks in %",
        ylim=(0, 102),
    )
    pictures.plain_ticks(ax, sorted(set(table["memory"])))
    ax.legend(fontsize=8, loc="lower right")
    return figure


application = Application(
    about="Labelled examples that come task after task: methods against forgetting are run on them at equal cost; "
    "out come what each knows at the end, which may be the most accurate with how much memory, and figures.",
    files="one .npz with the arrays x (features or images), y (labels) and task (or time); a folder of images and "
    "a table with the columns file, label and task (or time); or a table of features with label and task (or time)",
    options=Options,
    run=run,
    cite="De Lange, van de Ven, Tuytelaars (2023), Continual evaluation for lifelong learning, ICLR, arXiv 2205.13452; "
    "Nadeau, Bengio (2003), Inference for the generalization error, Machine Learning 52, 239-281",
)
