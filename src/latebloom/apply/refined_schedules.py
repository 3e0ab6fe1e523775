"""A log of gradient norms in, a learning-rate schedule out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latebloom.data.files import Column, FileError, read_table, row_number
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.schedules.refined_run import FEWEST, RefinedRun, refine_run

COLLAPSED = 1000.0  # largest over smallest smoothed norm from which on we warn
FAR = 0.1  # RMS distance from which on no template is near


COLUMNS = {  # as trainers, Weights & Biases, Lightning, TensorBoard and MLflow call them
    "step": Column(
        low=0,
        aliases=("global_step", "train/global_step", "trainer/global_step", "iteration", "iter"),
    ),
    "grad_norm": Column(
        low=0, gaps=True, infinite=True,
        aliases=("train/grad_norm", "gradient_norm", "global_grad_norm", "train/gradient_norm",
                 "train/global_grad_norm", "grad_2.0_norm_total", "value"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """- `norm`: "l2" for SGD, "l1" for Adam. `steps`: length of the run to come ("none": as the log).
    - `trim`: entries left out at both ends. `window`: share of the run that the median filter
      spans. `floor`: quantile of the smoothed norms below which they are raised to it.
    - `columns`: what the log calls them, where it is not recognised ("grad_norm=train/norm").
    """

    norm: Literal["l1", "l2"] = "l2"
    steps: int | None = None
    trim: int = 2
    window: float = 0.1
    floor: float = 0.0
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"one log of gradient norms is needed, not {len(paths)} files")
    say("reading the log", 0.0)
    log = read_log(paths[0], options.columns)
    say("refining the schedule", 0.3)
    try:
        found = refine_run(
            log, norm=options.norm, steps=options.steps, trim=options.trim,
            window=options.window, floor=options.floor,
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    say("drawing", 0.8)
    return Applied(
        sentences(found, options),
        summary(found),
        {"schedule": found.schedule, "norms": norms(found)},
        {"schedule": draw(found)},
    )


def read_log(path: Path, chosen: Sequence[str] = ()) -> pd.DataFrame:
    """Columns `step` (increasing) and `grad_norm` (NaN where the file has none, NaN or infinity).

    Takes what trainers and trackers write: the CSV of Weights & Biases, TensorBoard or Lightning,
    a Hugging Face trainer_state.json, a line of JSON a step.

    Raises `FileError` that names the row.
    """
    log = read_table(path, COLUMNS, min_rows=FEWEST, chosen=chosen)
    steps, norms = log["step"].to_numpy(float), log["grad_norm"].to_numpy(float)
    given = np.flatnonzero(~np.isnan(norms))
    again = given[pd.Series(steps[given]).duplicated().to_numpy()]
    wrong = np.append(np.flatnonzero(np.diff(steps) < 0) + 1, again)
    if len(wrong):
        raise FileError(
            f"{path}, column 'step', row {row_number(log, wrong.min())}: steps must increase; sort "
            "the file, and keep one row a step where a run was resumed"
        )
    log["grad_norm"] = np.where(np.isfinite(norms), norms, np.nan)
    # an evaluation has rows of its own, without a norm, at steps that have one
    kept = ~np.isnan(norms) | ~np.isin(steps, steps[given])
    first = ~log["step"].where(kept).duplicated().to_numpy()
    return log.loc[kept & first].reset_index(drop=True)


def sentences(found: RefinedRun, options: Options) -> tuple[str, ...]:
    template, peak = found.template, found.refinement.peak_at
    dropped = f" ({found.dropped} that were not finite left out)" if found.dropped else ""
    said = [
        f"the refined schedule is highest at {peak:.0%} of the run; nearest template: warm-up over "
        f"{template.warmup:.0%}, then (1 - s)^{template.power:.2g} (RMS distance {template.error:.3f})",
        f"{found.recorded:,} norms used{dropped}; smoothed, the first is {found.start:.3g} and the "
        f"last {found.end:.3g} times their median",
    ]
    if template.error > FAR:
        said.append("no warm-up and power comes near the refined schedule: use the table itself")
    if found.bound is not None:
        said.append(
            f"the bound on the last iterate is {1 - found.bound:.1%} below that of linear decay, "
            "each at its best step size"
        )
    if found.spread > COLLAPSED and not options.floor:
        said.append(
            f"smoothed norms differ by a factor of {found.spread:.3g}: if the run fits its data to "
            "the end, nearly all weight goes there; try floor=0.1, or an earlier part of the log"
        )
    said.append("only the shape is refined: tune the peak learning rate anew")
    return tuple(said)


def summary(found: RefinedRun) -> dict[str, object]:
    return {
        "warmup": found.template.warmup,
        "power": found.template.power,
        "template_error": found.template.error,
        "peak_at": found.refinement.peak_at,
        "recorded": found.recorded,
        "dropped": found.dropped,
        "steps": len(found.schedule),
        "bound_over_linear": found.bound,
    }


def norms(found: RefinedRun) -> pd.DataFrame:
    """Recorded and smoothed norms, evenly spaced over the run."""
    refinement = found.refinement
    progress = np.linspace(0, 1, len(refinement.norms))
    return pd.DataFrame(
        {"progress": progress, "norm": refinement.norms, "smoothed": refinement.smoothed}
    )


def draw(found: RefinedRun) -> Figure:
    """Norms, the schedule with linear, cosine and template beside it, and the same in logarithms."""
    figure, (left, middle, right) = style.figure(1, 3)
    table, percent = norms(found), found.schedule["progress"] * 100
    left.plot(100 * table["progress"], table["norm"], color=style.colours[5], linewidth=0.6)
    left.plot([], [], color=style.colours[5], label="recorded")
    left.plot(
        100 * table["progress"], table["smoothed"], color=style.colours[1], label="median filter"
    )
    left.set(yscale="log", ylabel="gradient norm", title="norms of the run")
    left.legend()
    lines = (("linear", 6, ":"), ("cosine", 2, ":"), ("template", 0, "--"), ("refined", 1, "-"))
    for ax in (middle, right):
        for name, colour, dashes in lines:
            ax.plot(percent, found.schedule[name], dashes, color=style.colours[colour], label=name)
    middle.set(ylabel="share of the peak learning rate", title="schedule", ylim=(0, 1.05))
    right.set(yscale="log", ylim=(1e-3, 1.5), ylabel="share of the peak", title="in logarithms")
    right.legend(loc="lower left")
    for ax in (left, middle, right):
        ax.set_xlabel("share of the run in %")
    return figure


application = Application(
    about="Gradient norms of one training run in; out comes a learning-rate schedule refined for "
    "the next run on the same problem, with the warm-up and decay power that come nearest to it.",
    files="one CSV or Parquet with the columns step (increasing) and grad_norm (norm of the "
    "mini-batch gradient before clipping, without weight decay: L2 for SGD, L1 for Adam with norm=l1)",
    options=Options,
    run=run,
)
