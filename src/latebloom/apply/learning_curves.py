"""Scores at growing training sizes in; a forecast, required sizes and a stopping advice out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from latebloom.data.files import Column, FileError, read_table, row_number
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.learning_curves import LearningCurve
from latebloom.methods.learning_curves.estimator import best_score, odd_unit

COLUMNS = {
    "size": Column(
        low=0,
        above=True,
        aliases=("train_size", "train_sizes", "training_size", "n_train", "examples"),
    ),
    "score": Column(low=0, aliases=("test_score", "test_accuracy", "accuracy")),
    "seed": Column("label", required=False),
    "learner": Column("label", required=False),
}


@dataclass(frozen=True)
class Options:
    """- `target`: score for which the required size is wanted. `at`: size to forecast at (None: ten times
      the largest).
    - `tau`: stop where no more than this is to be gained (None: one hundredth of the best score).
    - `upper`: the best score there is (None: 1 if no score is above 1, 100 if all are; where some are,
      it must be given). `confidence` of the intervals.
    - `columns`: what the file calls them, where it calls them otherwise ("size=n,score=val_f1").
    """

    target: float | None = None
    at: float | None = None
    tau: float | None = None
    upper: float | None = None
    confidence: float = 0.9
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"one table of scores is needed, not {len(paths)} files")
    say("reading the scores", 0.0)
    table = read_scores(paths[0], options.columns)
    sizes = table["size"].to_numpy(float)
    upper = _best_score(options, table, paths[0])
    _check(options, table, upper, paths[0])
    curves = {}
    names = list(dict.fromkeys(table["learner"]))
    for done, name in enumerate(names):
        say(f"fitting {name}" if name else "fitting", 0.1 + 0.7 * done / len(names))
        curves[name] = fitted(table.loc[table["learner"] == name], upper, options, name, paths[0])
    say("drawing", 0.9)
    at = 10 * float(sizes.max()) if options.at is None else options.at
    tau = upper / 100 if options.tau is None else options.tau
    rows = [summary(name, curve, at, tau, options.target) for name, curve in curves.items()]
    return Applied(
        tuple(sentence for row in rows for sentence in sentences(row, at, tau, options)) + ranking(rows, at),
        {"learners": rows, "at": at, "tau": tau, "upper": upper},
        {"forecast": forecasts(curves, at), "levels": levels(curves)},
        {"curve": draw(curves, table, at, options.target)},
    )  # fmt: skip


def read_scores(path: Path, chosen: Sequence[str] = ()) -> pd.DataFrame:
    """Columns `size` > 0, `score` >= 0, `seed` and `learner` (text, "" where the file has none)."""
    table = read_table(path, COLUMNS, min_rows=5, chosen=chosen)
    for name in ("seed", "learner"):
        if name not in table:
            table[name] = ""
    twice = table.duplicated(["learner", "seed", "size"]).to_numpy()
    if twice.any() and _seeded(table):
        row = int(np.flatnonzero(twice)[0])
        raise FileError(
            f"{path}, column 'size', row {row_number(table, row)}: size {table['size'][row]:g} has a score of seed "
            f"{table['seed'][row]!r} already; keep one of them or name the seeds apart"
        )
    return table


def _seeded(table: pd.DataFrame) -> bool:
    return bool(np.any(table["seed"].to_numpy() != ""))


def _best_score(options: Options, table: pd.DataFrame, path: Path) -> float:
    scores = table["score"].to_numpy(float)
    odd = odd_unit(scores) if options.upper is None else None
    if odd is None:
        return best_score(scores, options.upper)
    side = "above 1 and others are not" if scores[odd] > 1 else "at most 1 and others are above"
    raise FileError(
        f"{path}, column 'score', row {row_number(table, odd)}: {scores[odd]:g} is {side}: give all scores "
        "as fractions or all in percent, or set upper, the best score there is"
    )


def _check(options: Options, table: pd.DataFrame, upper: float, path: Path) -> None:
    scores = table["score"].to_numpy(float)
    over = scores > upper
    if over.any():
        row = int(np.flatnonzero(over)[0])
        raise FileError(
            f"{path}, column 'score', row {row_number(table, row)}: {scores[row]:g} is above the best score "
            f"{upper:g}; set upper, or give all scores as fractions or all in percent"
        )
    for name in ("tau", "at"):
        value = getattr(options, name)
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, not {value:g}")
    if options.target is not None and not 0 < options.target <= upper:
        raise ValueError(
            f"target is a score above 0 and of at most {upper:g}, not {options.target:g}"
        )
    if not 0 < options.confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {options.confidence:g}")


def fitted(
    table: pd.DataFrame, upper: float, options: Options, name: str, path: Path
) -> LearningCurve:
    seeds = table["seed"].to_numpy() if _seeded(table) else None
    curve = LearningCurve(upper=upper, confidence=options.confidence)
    try:
        return curve.fit(table["size"].to_numpy(), table["score"].to_numpy(), seeds)
    except ValueError as error:
        of = f", learner {name!r}" if name else ""
        raise FileError(f"{path}, columns 'size' and 'score'{of}: {error}") from None


def summary(
    name: str, curve: LearningCurve, at: float, tau: float, target: float | None
) -> dict[str, object]:
    """JSON-able facts of one learner; sizes that are never reached are None."""
    expected = curve.forecast(np.array([at]))
    need = None if target is None else curve.required_size(target)
    a, b, c = curve.trend_.power_law()
    return {
        "learner": name,
        "sizes": len(curve.sizes_),
        "largest_size": float(curve.sizes_[-1]),
        "last_score": float(curve.scores_[-1]),
        "forecast": float(expected.score[0]),
        "forecast_low": float(expected.low[0]),
        "forecast_high": float(expected.high[0]),
        "asymptote": min(curve.asymptote_, curve.upper_),
        "feasible": bool(curve.asymptote_ <= curve.upper_),
        "remaining": curve.remaining(),
        "working_size": curve.working_size_,
        "prediction_size": curve.prediction_size_,
        "stop_size": curve.stop_size(tau),
        "a": float(a) * curve.upper_ / 100,
        "b": float(b),
        "c": float(c) * curve.upper_ / 100,
        "required_size": _finite(need.size) if need else None,
        "required_low": _finite(need.low) if need else None,
        "required_high": _finite(need.high) if need else None,
    }


def _finite(size: float) -> float | None:
    return size if np.isfinite(size) else None


def sentences(row: dict, at: float, tau: float, options: Options) -> list[str]:
    who = f"{row['learner']}: " if row["learner"] else ""
    percent = f"{options.confidence:.0%}"
    said = [
        f"{who}at size {_size(at)} a score of {row['forecast']:.4g} is expected ({percent} interval "
        f"{row['forecast_low']:.4g} to {row['forecast_high']:.4g}); the last one measured, at "
        f"{_size(row['largest_size'])}, is {row['last_score']:.4g}"
    ]
    if options.target is not None:
        said.append(f"{who}{_need(row, options.target)}")
    if not row["feasible"]:
        said.append(f"{who}the asymptote still lies above the best score: measure at larger sizes")
    if row["stop_size"] is not None:
        said.append(
            f"{who}from size {_size(row['stop_size'])} on the trend expects at most {tau:.3g} more (an "
            "estimate, no bound): stop"
        )
    elif row["prediction_size"] is None:
        said.append(f"{who}the asymptote has not settled yet: go on, and trust the interval only")
    else:
        said.append(f"{who}the trend expects {row['remaining']:.3g} more, above {tau:.3g}: go on")
    return said


def _need(row: dict, target: float) -> str:
    if row["last_score"] >= target:
        return f"the target {target:g} is reached already"
    if row["required_size"] is None:
        best = (
            f"it may be from {_size(row['required_low'])} on"
            if row["required_low"] is not None
            else "it is not"
        )
        return f"the target {target:g} is not reached at any size by the forecast; {best} at its upper bound"
    high = "no size" if row["required_high"] is None else _size(row["required_high"])
    return (
        f"the target {target:g} needs size {_size(row['required_size'])} (from "
        f"{_size(row['required_low'])} to {high})"
    )


def _size(size: float) -> str:
    return f"{size:,.0f}" if size >= 100 or size == round(size) else f"{size:.4g}"


def ranking(rows: Sequence[dict], at: float) -> tuple[str, ...]:
    if len(rows) < 2:
        return ()
    order = sorted(rows, key=lambda row: -row["forecast"])
    names = ", ".join(f"{row['learner']} ({row['forecast']:.4g})" for row in order)
    sure = order[0]["forecast_low"] > order[1]["forecast_high"]
    tail = "" if sure else "; the intervals of the first two overlap"
    return (f"order expected at size {_size(at)}: {names}{tail}",)


def forecasts(curves: dict[str, LearningCurve], at: float) -> pd.DataFrame:
    """Sizes from the smallest to `at` on a logarithmic grid, with score and interval."""
    frames = []
    for name, curve in curves.items():
        sizes = np.geomspace(curve.sizes_[0], max(at, curve.sizes_[-1]), 60)
        if (curve.sizes_ == curve.sizes_.round()).all():  # shares of the data are no whole numbers
            sizes = np.unique(sizes.round())
        found = curve.forecast(sizes)
        frames.append(pd.DataFrame({"learner": name, "size": sizes, **found._asdict()}))
    return pd.concat(frames, ignore_index=True)


def levels(curves: dict[str, LearningCurve]) -> pd.DataFrame:
    """Each level's asymptote, anchored and not, and what it expects beyond its last size."""
    frames = []
    for name, curve in curves.items():
        unit = curve.upper_ / 100
        frames.append(
            pd.DataFrame({
                "learner": name,
                "size": curve.trace_.last_sizes,
                "asymptote": curve.trace_.backbone[0] * unit,
                "asymptote_free": curve.free_trace_.backbone[0] * unit,
                "remaining": curve.trace_.convergence[0] * unit,
            })
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def draw(
    curves: dict[str, LearningCurve], table: pd.DataFrame, at: float, target: float | None
) -> Figure:
    """Scores with forecasts and intervals, and the asymptotes of all levels."""
    figure, (left, right) = style.figure(1, 2, width=10.5, height=4.0)
    for place, (name, curve) in enumerate(curves.items()):
        colour = style.colours[place % len(style.colours)]
        own = table[table["learner"] == name]
        left.plot(own["size"], own["score"], ".", color=colour, markersize=3, alpha=0.45)
        left.plot(
            curve.sizes_, curve.scores_, "o", color=colour, markersize=4, label=name or "measured"
        )
        sizes = np.geomspace(curve.sizes_[0], max(at, curve.sizes_[-1]), 200)
        found = curve.forecast(sizes)
        left.plot(sizes, found.score, color=colour, linewidth=1.4, label=None if name else "trend")
        ahead = sizes >= curve.sizes_[-1]
        left.fill_between(sizes[ahead], found.low[ahead], found.high[ahead], color=colour, alpha=0.18,
                          linewidth=0, label=None if name else "interval")  # fmt: skip
        unit = curve.upper_ / 100
        right.plot(curve.free_trace_.last_sizes, curve.free_trace_.backbone[0] * unit, "--", color=colour,
                   linewidth=1.0, label=None if name else "not anchored")  # fmt: skip
        right.plot(curve.trace_.last_sizes, curve.trace_.backbone[0] * unit, "o-", color=colour,
                   markersize=3, label=name or "anchored")  # fmt: skip
        if curve.working_size_ is not None:
            right.axvline(curve.working_size_, color=colour, linestyle=":", linewidth=1.5,
                          label=None if name else "working level")  # fmt: skip
    if target is not None:
        left.axhline(target, color=style.INK, linewidth=0.8, linestyle="--")
        left.annotate(f"target {target:g}", (0, target), xycoords=("axes fraction", "data"), ha="left",
                      xytext=(4, 4), textcoords="offset points", fontsize=9)  # fmt: skip
    ends = [curve.trace_.backbone[0, -1] * curve.upper_ / 100 for curve in curves.values()]
    room = max(np.ptp(ends), 0.05 * next(iter(curves.values())).upper_)
    left.set(xscale="log", xlabel="training size", ylabel="score")
    right.set(xscale="log", xlabel="largest size seen", ylabel="asymptote", title="asymptotes of the trends",
              ylim=(min(ends) - room, max(ends) + room))  # fmt: skip
    for ax in (left, right):
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_formatter(NullFormatter())
    left.legend(loc="lower right")
    if len(curves) == 1:
        right.legend(loc="best")
    return figure


application = Application(
    about="Scores measured at growing training sizes in; out come the score to expect at a larger size, "
    "the size that a target needs, both with intervals, and whether to stop collecting.",
    files="one CSV or Parquet with the columns size (examples or words learned from) and score (accuracy, "
    "F1, ...: higher is better, as fractions or in percent), and, if there are several, seed and learner",
    options=Options,
    run=run,
)
