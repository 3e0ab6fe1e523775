"""Sets of points in; a tour through each or its hull, how far from a bound, and a trained network, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latebloom.data.columns import FileError, shown
from latebloom.data.point_files import read_points, read_tsplib
from latebloom.lab import Application, Applied, pictures, style
from latebloom.lab.application import Say
from latebloom.methods.recurrence.pointer_solving import (
    MOST,
    POINTER,
    Answer,
    Solved,
    Solver,
    load_solver,
    pointed,
    save_solver,
    solve,
    train_solver,
)

SHOWN = 6  # sets that are drawn
INSTANCES = (".tsp", ".atsp")


@dataclass(frozen=True)
class Options:
    """- `kind`: a round trip through all points ("tour") or the convex "hull".
    - `network`: a file that an earlier run kept (network.npz), which is used again; else one is trained on sets of `low` to
      `high` points (of tours at most 12), drawn evenly, for `steps` updates on `batch` sets at `rate`, with `size` units.
    - `beam`: how many answers are followed at once.
    - `columns`: what the file calls them, where it calls them otherwise ("x=longitude,y=latitude,instance=day").
    """

    kind: Solved = "tour"
    network: str = ""
    low: int = 5
    high: int = 10
    size: int = 64
    steps: int = 6000
    batch: int = 64
    rate: float = 5e-3
    beam: int = 5
    seed: int = 0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Instance:
    """A set of points, and distances where the file has rules of its own for them."""

    file: str
    name: str
    points: np.ndarray
    between: np.ndarray | None


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if options.beam < 1:
        raise ValueError(f"beam must be at least 1, not {options.beam}")
    say("reading the points", 0.0)
    asked = read_instances(paths, options)
    solver = network(options, say)
    say("writing answers", 0.9)
    found = solve(solver, [i.points for i in asked], [i.between for i in asked], width=options.beam)
    say("drawing", 0.97)
    by_set: Any = pd.DataFrame([row(*pair) for pair in zip(asked, found, strict=True)])
    places = pd.concat([where(*pair) for pair in zip(asked, found, strict=True)], ignore_index=True)
    summary = {
        "kind": solver.kind, "sets": len(asked), "by_the_network": int((by_set["by"] == POINTER).sum()), "mean_gap": _mean(by_set["gap"]),
        "trained_on": [solver.low, solver.high], "most_points": int(by_set["points"].max()),
    }  # fmt: skip
    return Applied(
        sentences(by_set, solver), summary, {"sets": by_set, "answers": places},
        {"answers": draw_answers(asked, found), "pointers": draw_pointers(solver, asked[0], found[0])},
        {"network.npz": partial(save_solver, solver)},
    )  # fmt: skip


def network(options: Options, say: Say) -> Solver:
    """The one that is named, or one that is trained now."""
    if not options.network:
        return train_solver(
            options.kind, low=options.low, high=options.high, size=options.size, steps=options.steps, batch=options.batch,
            rate=options.rate, seed=options.seed, say=lambda share: say("training a network", 0.05 + 0.85 * share),
        )  # fmt: skip
    solver = load_solver(options.network)
    if solver.kind != options.kind:
        raise ValueError(f"the network {options.network} was trained for kind={solver.kind}, not {options.kind}: set kind={solver.kind}, or name no network")  # fmt: skip
    return solver


def read_instances(paths: Sequence[Path], options: Options) -> list[Instance]:
    """The sets of all files, each with points in the plane; raises `FileError`."""
    if not paths:
        raise FileError("give at least one file with points")
    found = []
    for path in paths:
        if path.suffix.lower() in INSTANCES:
            found.append(_instance(path, options.kind))
            continue
        known = read_points(path, options.columns)
        for name, points in zip(known.names, known.sets, strict=True):
            _check(path, name, points, options.kind)
            found.append(Instance(path.name, name, points, None))
    return found


def _instance(path: Path, kind: Solved) -> Instance:
    known = read_tsplib(path)
    if known.points is None:
        raise FileError(f"{path} has distances alone: the network reads points, so an instance with a NODE_COORD_SECTION is needed")  # fmt: skip
    _check(path, known.name, known.points, kind)
    return Instance(path.name, known.name, known.points, known.distances() if kind == "tour" else None)  # fmt: skip


def _check(path: Path, name: str, points: np.ndarray, kind: Solved) -> None:
    least = 3 if kind == "hull" else 1
    if not least <= len(points) <= MOST:
        raise FileError(f"{path}, instance {shown(name)}: a {kind} takes from {least} to {MOST:,} points, not {len(points):,}")  # fmt: skip


def row(one: Instance, answer: Answer) -> dict[str, Any]:
    return {
        "file": one.file, "instance": one.name, "points": len(one.points), "by": answer.by, "value": answer.value,
        "bound": answer.bound, "bound_is_exact": answer.exact, "gap": answer.gap, "rule": answer.rule, "places": len(answer.places),
    }  # fmt: skip


def where(one: Instance, answer: Answer) -> pd.DataFrame:
    """The answer in order, a row for each place; `point` counts from 1 in the file's order."""
    return pd.DataFrame({
        "file": one.file, "instance": one.name, "place": 1 + np.arange(len(answer.places)), "point": 1 + answer.places,
        "x": one.points[answer.places, 0], "y": one.points[answer.places, 1],
    })  # fmt: skip


def sentences(table: Any, solver: Solver) -> tuple[str, ...]:
    tour = solver.kind == "tour"
    own, count = table[table["by"] == POINTER], len(table)
    what = "tour" if tour else "polygon"
    gaps = own["gap"].dropna()
    said = []
    if len(gaps):
        than = _than(own) if tour else "of the area of the true hull is missing"
        said.append(f"{_sets(len(own), count)} answered by the network: {_percent(gaps.mean())} {than} on average, {_percent(gaps.max())} at most.")  # fmt: skip
    if len(own) < count:
        other = "the nearest neighbour answers" if tour else "the exact hull stands"
        said.append(f"For {count - len(own)} of {count} the network wrote no {what}: there {other} in its place (column by).")  # fmt: skip
    if tour and len(own):
        better, worse = int((own["value"] < own["rule"]).sum()), int((own["value"] > own["rule"]).sum())  # fmt: skip
        said.append(f"The network's tour is shorter than the nearest neighbour's in {better} sets, longer in {worse}.")  # fmt: skip
    beyond = int((table["points"] > solver.high).sum())
    if beyond:
        said.append(f"{beyond} of {count} sets have more points than the {solver.high} that it was trained up to: read their gaps before you rely on them.")  # fmt: skip
    if not tour and len(own):
        said.append("The true hull is quickly found without a network: use it where you need one that is right.")  # fmt: skip
    return tuple(said)


def _than(own: Any) -> str:
    if own["bound_is_exact"].all():
        return "longer than the shortest tour"
    least = "the shortest tour or " if own["bound_is_exact"].any() else ""
    return f"longer than {least}a bound that no tour is below"


def _sets(own: int, count: int) -> str:
    return f"{own} of {count} sets" if own < count else f"{count} sets" if count > 1 else "1 set"


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f} %"


def _mean(values: Any) -> float | None:
    return None if values.dropna().empty else float(values.mean())


def draw_answers(asked: Sequence[Instance], found: Sequence[Answer]) -> Figure:
    pairs = list(zip(asked, found, strict=True))[:SHOWN]
    figure, axes = pictures.panels(len(pairs), 3, height=3.6)
    for ax, (one, answer) in zip(axes, pairs, strict=True):
        ring = one.points[np.append(answer.places, answer.places[0])]
        ax.plot(*ring.T, color=style.colours[0 if answer.by == POINTER else 6], linewidth=1.3)
        ax.plot(*one.points.T, ".", color=style.colours[1], markersize=6 if len(one.points) < 100 else 3)  # fmt: skip
        gap = "" if np.isnan(answer.gap) else f", gap {_percent(answer.gap)}"
        ax.set(title=f"{one.name[:24]}: {answer.by}{gap}", aspect="equal", xlabel="x", ylabel="y")
        ax.title.set_fontsize(9)
    return figure


def draw_pointers(solver: Solver, one: Instance, answer: Answer) -> Figure:
    """Where the network points, at each step of the answer to the first set."""
    share = pointed(solver, one.points, answer)
    figure, (ax,) = pictures.panels(1, width=5.5, height=4.2)
    ground = ax.imshow(share, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")  # fmt: skip
    figure.colorbar(ground, label="probability")
    ax.set(xlabel="point (0: the end)", ylabel="step", title=f"{one.name[:24]}: where it points")
    _whole(ax)
    return figure


def _whole(ax: Axes) -> None:
    ax.grid(visible=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


application = Application(
    about="Points: a pointer network is trained, or one that was kept is used again; out come a round trip through each set, or its hull, "
    "always a valid one, how far it is from a bound, and the network.",
    files="files with points: tables (CSV, Parquet, JSON) with x, y and, where there are several sets, instance; or instances of TSPLIB (.tsp)",
    options=Options,
    run=run,
)
