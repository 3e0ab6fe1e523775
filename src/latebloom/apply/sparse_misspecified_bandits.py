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
    """How the candidates are read and judged.

    - `sparsity`: how many features matter. `epsilon`: how far any result, its noise included, may be
      from a linear model of so many features, in units of the results; read from them unless given.
    - `result`, `name`: those columns; all others are features.
    """

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
        found = screen(
            features, results, sparsity=options.sparsity, epsilon=options.epsilon, names=columns
        )
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
    used = ", ".join(f"{columns[i]} ({shares[i]:.0%})" for i in order[:3])
    status = np.where(np.isfinite(results), "measured", "open").astype(object)
    status[found.action] = "take" if found.decided else "measure next"
    return Applied(
        (
            _advice(found, name, results),
            _about_epsilon(found),
            f"{measured} of {len(names)} candidates are measured; {len(found.survivors)} of "
            f"{found.sets} sets of {found.sparsity} features have a model that agrees with them",
            f"features that the surviving sets use: {used}",
        ),
        {
            "candidate": name,
            "decided": found.decided,
            "promised": found.promised if np.isfinite(found.promised) else None,
            "within": found.within if found.decided else None,
            "epsilon": found.epsilon,
            "epsilon_given": found.epsilon_given,
            "surviving_sets": len(found.survivors),
            "sets": found.sets,
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


def _advice(found: Screening, name: str, results: np.ndarray) -> str:
    best = np.nanmax(results)
    if found.decided:
        return (
            f"take {name}: it gave {best:.4g}, and no candidate's result is larger by more than "
            f"{found.within:.3g}, as long as results are linear in {found.sparsity} features, give "
            f"or take {found.epsilon:.3g}"
        )
    if np.isfinite(found.promised):
        return f"measure {name} next: it may reach {found.promised:.4g} (best so far {best:.4g})"
    return (
        f"measure {name} next: too little is measured to limit what it may reach (best so far "
        f"{best:.4g})"
    )


def _about_epsilon(found: Screening) -> str:
    if found.epsilon_given:
        return f"epsilon = {found.epsilon:.3g} was given"
    return (
        f"epsilon = {found.epsilon:.3g} is an estimate: twice what the best model leaves on the "
        "measured candidates, 1 % of their range at least; what is said above rests on it. If you "
        "know how far results may be off, noise included, give epsilon"
    )


def _draw_predictions(found: Screening, names: list[str], results: np.ndarray) -> Figure:
    order = np.argsort(-found.high)[:30]
    drawn, ax = figure(width=7, height=0.22 * len(order) + 1.4)
    places = np.arange(len(order))[::-1]
    low, high = _ends(found.low[order], found.high[order], results)
    ax.hlines(places, low, high, color=colours[0], linewidth=4, alpha=0.5,
              label="predictions of all models that agree")  # fmt: skip
    measured = np.isfinite(results[order])
    ax.errorbar(results[order][measured], places[measured], xerr=found.epsilon, fmt="o", capsize=2,
                color=colours[1], label="measured, ± epsilon")  # fmt: skip
    ax.set_yticks(places, [names[i] for i in order], fontsize=8)
    ax.set_xlabel("result")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return drawn


def _ends(low: np.ndarray, high: np.ndarray, results: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of bars to draw: what nothing limits is cut off beyond all that something does."""
    finite = np.concatenate([x[np.isfinite(x)] for x in (low, high, results)])
    room = 0.2 * max(float(np.ptp(finite)), 1e-12 * float(np.abs(finite).max()))
    ends = finite.min() - room, finite.max() + room
    return np.clip(low, *ends), np.clip(high, *ends)


def _draw_features(found: Screening, columns: list[str]) -> Figure:
    order = np.argsort(-found.support_shares())[:12]
    drawn, ax = figure(width=7, height=0.3 * len(order) + 1.2)
    ax.barh(np.arange(len(order))[::-1], found.support_shares()[order], color=colours[2])
    ax.set_yticks(np.arange(len(order))[::-1], [columns[i] for i in order])
    ax.set_xlabel("share of surviving sets that use the feature")
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
