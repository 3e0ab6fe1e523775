"""A table of candidates, some of them measured, in; the candidate to take or to measure next, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from latebloom.data.files import Column, FileError, read_table
from latebloom.lab.application import Application, Applied, Say
from latebloom.lab.style import colours, figure
from latebloom.methods.bandits.sparse_misspecified.screening import Screening, screen


@dataclass(frozen=True)
class Options:
    """How many features matter, and how far the model may be off (in units of the results)."""

    sparsity: int = 2
    epsilon: float | None = None
    result: str = "result"
    name: str = "name"


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    path = paths[0]
    if len(paths) > 1:
        raise FileError(f"{paths[1]}: one table of candidates is read, not {len(paths)}")
    table, columns = read_candidates(path, options)
    features, results = table[columns].to_numpy(float), table[options.result].to_numpy(float)
    say("eliminating models", None)
    try:
        found = screen(features, results, sparsity=options.sparsity, epsilon=options.epsilon)
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    names = table[options.name] if options.name in table else pd.Series(range(1, len(table) + 1))
    return _applied(found, names.astype(str).tolist(), columns, results)


def read_candidates(path: Path, options: Options) -> tuple[pd.DataFrame, list[str]]:
    """The table, and its feature columns: all that hold neither results nor names."""
    columns: list[str] = []

    def wanted(names: list[str]) -> dict[str, Column]:
        roles = {
            options.result: Column(gaps=True, setting="result"),
            options.name: Column("label", required=False, setting="name"),
        }
        columns[:] = [name for name in names if name not in roles]
        return roles | dict.fromkeys(columns, Column())

    table = read_table(path, wanted, min_rows=3)
    if len(columns) < options.sparsity:
        raise FileError(f"{path} has {len(columns)} feature columns; {options.sparsity} are needed")
    return table, columns


def _applied(
    found: Screening, names: list[str], columns: list[str], results: np.ndarray
) -> Applied:
    name, measured = names[found.action], int(np.isfinite(results).sum())
    shares = found.support_shares()
    order = np.argsort(-shares)
    first = (
        f"take {name}: it gave {results[found.action]:.4g}, and no candidate is better by more than "
        f"{found.within:.3g} if the model errs by at most {found.epsilon:.3g}"
        if found.decided
        else f"measure {name} next: it may reach {found.promised:.4g} "
        f"(best so far {np.nanmax(results):.4g})"
    )
    used = ", ".join(f"{columns[i]} ({shares[i]:.0%})" for i in order[:3])
    status = np.where(np.isfinite(results), "measured", "open").astype(object)
    status[found.action] = "take" if found.decided else "measure next"
    return Applied(
        (
            first,
            f"{measured} of {len(names)} candidates are measured; "
            f"{len(found.survivors)} models agree with them",
            f"features that the surviving models use: {used}",
        ),
        {
            "candidate": name,
            "decided": found.decided,
            "promised": found.promised,
            "within": found.within if found.decided else None,
            "epsilon": found.epsilon,
            "surviving_models": len(found.survivors),
            "feature_shares": {c: float(s) for c, s in zip(columns, shares, strict=True)},
        },
        {
            "candidates": pd.DataFrame(
                {"candidate": names, "status": status, "result": results,
                 "lowest_prediction": found.low, "highest_prediction": found.high}
            ).sort_values("highest_prediction", ascending=False)
        },
        {"predictions": _draw_predictions(found, names, results),
         "features": _draw_features(found, columns)},
    )  # fmt: skip


def _draw_predictions(found: Screening, names: list[str], results: np.ndarray) -> Figure:
    order = np.argsort(-found.high)[:30]
    drawn, ax = figure(width=7, height=0.22 * len(order) + 1.4)
    places = np.arange(len(order))[::-1]
    ax.hlines(places, found.low[order], found.high[order], color=colours[0], linewidth=4, alpha=0.5,
              label="predictions of all models that agree")  # fmt: skip
    measured = np.isfinite(results[order])
    ax.errorbar(results[order][measured], places[measured], xerr=found.epsilon, fmt="o", capsize=2,
                color=colours[1], label="measured, ± epsilon")  # fmt: skip
    ax.set_yticks(places, [names[i] for i in order], fontsize=8)
    ax.set_xlabel("result")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return drawn


def _draw_features(found: Screening, columns: list[str]) -> Figure:
    order = np.argsort(-found.support_shares())[:12]
    drawn, ax = figure(width=7, height=0.3 * len(order) + 1.2)
    ax.barh(np.arange(len(order))[::-1], found.support_shares()[order], color=colours[2])
    ax.set_yticks(np.arange(len(order))[::-1], [columns[i] for i in order])
    ax.set_xlabel("share of surviving models that use the feature")
    ax.set_xlim(0, 1)
    return drawn


application = Application(
    about="candidates of which some are measured -> the one to take, with a certificate, or the one "
    "to measure next",
    files="a table with numeric feature columns, a column `result` (empty where not measured) and, if "
    "you like, a column `name`",
    options=Options,
    run=run,
)
