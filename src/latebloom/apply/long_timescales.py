"""Recorded activity in; how long each unit remembers, with intervals, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latebloom.data.columns import FileError
from latebloom.data.recordings import read_recording
from latebloom.lab import Application, Applied, pictures
from latebloom.lab.application import Say
from latebloom.methods.recurrence.timescales import (
    BOUND,
    CONSTANT,
    FITTED,
    MISSING,
    NONE,
    SILENT,
    Timescales,
    timescales,
)

SHOWN, PANELS = 60, 12  # units that are drawn
SHORT = 0.05  # of a tau that trials' means cost, from which on it is said


@dataclass(frozen=True)
class Options:
    """- `lags` of the autocorrelation that are fitted, from lag `first` on, and the longest timescale, `most`; in steps.
    - `step`: time between two steps, in a `unit` of yours ("ms"); "none": as the file's time says, or 1.
    - `replicates` of the bootstrap (0: no intervals) at a `level`; `blocks` that are drawn ("none": trials if there are 8).
    - `time`, `trial`: the columns so called, if the table has them. `units`: columns that are units (all others if empty).
    """

    lags: int = 30
    first: int = 0
    most: float = 100.0
    step: float | None = None
    unit: str = ""
    replicates: int = 500
    level: float = 0.95
    blocks: int | None = None
    time: str = "time"
    trial: str = "trial"
    units: tuple[str, ...] = ()
    seed: int = 0


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"give one file of activity, not {', '.join(map(str, paths)) or 'nothing'}")
    say("reading the activity", 0.0)
    read = read_recording(paths[0], time=options.time, trial=options.trial, units=options.units)
    if options.step is not None and read.step is not None and not np.isclose(options.step, read.step, rtol=0.01):  # fmt: skip
        raise FileError(f"{paths[0]} says that a step is {read.step:g}, and the setting step {options.step:g}: leave the setting out, or the file's time")  # fmt: skip
    step = options.step if options.step is not None else read.step
    try:
        found = timescales(
            read.activity, names=read.names, lags=options.lags, first=options.first, most=options.most,
            step=1.0 if step is None else step, replicates=options.replicates, level=options.level,
            blocks=options.blocks, seed=options.seed, say=lambda share: say("fitting", 0.1 + 0.8 * share),
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    say("drawing", 0.95)
    unit = options.unit if options.unit else "steps" if step is None else "units of time"
    trials, time, units = read.activity.shape
    fitted = np.isin(found.status, (FITTED, BOUND, NONE))
    middle = np.quantile(found.tau[fitted], [0.25, 0.5, 0.75]) if fitted.any() else [np.nan] * 3
    summary = {
        "trials": trials, "steps": time, "units": units, "step": 1.0 if step is None else step, "unit": unit,
        "fitted": int(fitted.sum()), "quartiles": [float(q) for q in middle], "two_exponentials": int((found.models == 2).sum()),
        **{name.replace(" ", "_"): int((found.status == name).sum()) for name in (BOUND, NONE, SILENT, CONSTANT, MISSING)},
        "drawn": found.drawn, "drawn_as": found.drawn_as,
    }  # fmt: skip
    figures = {"timescales": draw(found, unit)} if fitted.any() else {}
    figures |= {"autocorrelations": draw_curves(found, unit)} if fitted.any() else {}
    tables = {"timescales": found.frame(), "autocorrelations": curves(found)}
    return Applied(sentences(found, time, unit, options), summary, tables, figures)


def curves(found: Timescales) -> pd.DataFrame:
    """A row a unit and lag."""
    units, lags = found.curves.shape
    return pd.DataFrame({
        "unit": np.repeat(found.names, lags), "lag": np.tile(found.lags, units),
        "autocorrelation": found.curves.ravel(), "fitted": found.fitted.ravel(),
    })  # fmt: skip


def sentences(found: Timescales, time: int, unit: str, options: Options) -> tuple[str, ...]:
    count = {name: int((found.status == name).sum()) for name in (BOUND, NONE, SILENT, CONSTANT, MISSING)}  # fmt: skip
    fitted = np.isin(found.status, (FITTED, BOUND, NONE))
    if not fitted.any():
        lost = ", ".join(f"{count[name]} {name}" for name in count if count[name])
        return (f"No unit can be fitted: {lost}.",)
    low, middle, high = np.quantile(found.tau[fitted], [0.25, 0.5, 0.75])
    said = [
        f"Timescales of {fitted.sum()} units: median {middle:.3g} {unit}, half of them from {low:.3g} to {high:.3g}; "
        f"{(found.models == 2).sum()} are better described by two exponentials, of which the slower is told."
    ]
    told = {
        BOUND: f"at the bound of {options.most:g} steps (as long, longer, or drifting: take more lags and a higher bound, or remove trends)",
        NONE: "that may forget within a step", SILENT: "that are silent", CONSTANT: "that are constant in each trial",
        MISSING: "with gaps or infinite values, which must be filled or cut out",
    }  # fmt: skip
    said += [f"Units {what}: {count[name]}." for name, what in told.items() if count[name]]
    tau = middle / (found.lags[1] - found.lags[0])
    if tau >= 1:
        keep = np.exp(-1 / tau)
        lost = tau * (1 + 3 * keep) / (keep * time)
        if lost > SHORT:
            said.append(f"Trials of {time} steps lose their means, which makes a timescale such as the median about {min(lost, 1):.0%} too short "
                        "(Kendall 1954); intervals do not know of that: take longer trials.")  # fmt: skip
    if found.drawn:
        unsure = ((found.two > 0.05) & (found.two < 0.95) & fitted).sum()
        said.append(f"Intervals ({found.level:.0%}) are from {found.drawn} {found.drawn_as}, drawn anew {options.replicates} times; in {unsure} units one "
                    "and two exponentials may both be right, and the interval covers both: tau_of_one is steadier there.")  # fmt: skip
    elif options.replicates:
        said.append(f"There are fewer than 8 trials, or blocks of {4 * options.lags} steps: no intervals are given.")  # fmt: skip
    return tuple(said)


def draw(found: Timescales, unit: str) -> Figure:
    """Units in order of their timescales, with intervals; of very many, evenly chosen ones."""
    good = np.flatnonzero(np.isin(found.status, (FITTED, BOUND)))
    good = good if len(good) else np.flatnonzero(found.models > 0)
    order = good[np.argsort(found.tau[good], kind="stable")]
    if len(order) > SHOWN:
        order = order[np.linspace(0, len(order) - 1, SHOWN).astype(int)]
    figure, (ax,) = pictures.panels(1, width=7, height=1.4 + 0.2 * len(order))
    top = 1.1 * max(found.tau[order].max(), np.nanmax(np.where(np.isfinite(found.high[order]), found.high[order], 0)))  # fmt: skip
    low = np.where(np.isnan(found.low[order]), found.tau[order], found.low[order])
    high = np.where(np.isnan(found.high[order]), found.tau[order], np.minimum(found.high[order], top))  # fmt: skip
    for models in (1, 2):
        at = np.flatnonzero(found.models[order] == models)
        look = pictures.nth_look(models - 1)
        ax.hlines(at, low[at], high[at], color=look["colour"], alpha=0.6)
        ax.plot(found.tau[order][at], at, "os"[models - 1], markersize=4, color=look["colour"],
                label=("one exponential", "two, the slower")[models - 1])  # fmt: skip
    ax.plot(high[np.isinf(found.high[order])], np.flatnonzero(np.isinf(found.high[order])), ">", color="grey", markersize=4,
            label="open above", linestyle="none")  # fmt: skip
    ax.set_yticks(range(len(order)), [found.names[i][:20] for i in order], fontsize=7)
    ax.set(
        xlabel=f"timescale in {unit}" + (f", {found.level:.0%}" if found.drawn else ""),
        xlim=(0, None),
    )
    pictures.legend_below(figure)
    return figure


def draw_curves(found: Timescales, unit: str) -> Figure:
    """Autocorrelations and their fits, of units from the shortest to the longest timescale."""
    good = np.flatnonzero(found.models > 0)
    order = good[np.argsort(found.tau[good], kind="stable")]
    order = order[np.unique(np.linspace(0, len(order) - 1, PANELS).astype(int))]
    figure, axes = pictures.panels(len(order), 4, width=11, height=2.4, sharey=True)
    for ax, unit_at in zip(axes, order, strict=True):
        ax.plot(found.lags, found.curves[unit_at], "o", markersize=3, color=pictures.nth_look(0)["colour"], label="recorded")  # fmt: skip
        ax.plot(
            found.lags, found.fitted[unit_at], color=pictures.nth_look(1)["colour"], label="fitted"
        )
        ax.set(
            title=f"{found.names[unit_at][:24]}: {found.tau[unit_at]:.3g}", xlabel=f"lag in {unit}"
        )
    axes[0].set_ylabel("autocorrelation")
    pictures.legend_below(figure)
    return figure


application = Application(
    about="Recorded activity of neurons or of a network's units: out come how long each of them remembers, from its autocorrelation, "
    "with intervals, and how many need two timescales.",
    files="one table with a row a step and a column a unit (and trial, and time, if wanted), or an .npy or .npz [trials, time, units]",
    options=Options,
    run=run,
    cite="Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius, Levina (2024), Emergent mechanisms for long timescales depend on "
    "training curriculum and affect performance in memory tasks, ICLR, arXiv 2309.12927",
)
