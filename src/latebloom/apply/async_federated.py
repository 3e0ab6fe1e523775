"""Weights, bias and a waiting policy from a table of client round trips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data.files import read_table
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.lab.pictures import gantt
from latebloom.methods.federated import planning
from latebloom.methods.federated.planning import COLUMNS, ClientLog, Plan, client_log, plan
from latebloom.methods.federated.weights import Scheme

SHOWN_CLIENTS = 12
SHOWN = 400  # aggregations in the chart of rounds
NAMES = {"sync": "synchronous", "async": "asynchronous", "fedbuff": "FedBuff", "fedfix": "FedFix"}


@dataclass(frozen=True)
class Options:
    """How the federation is run now, and how long and under which noise it is simulated.

    `window` in seconds for "fedfix"; `buffer_size` of FedBuff (None: a quarter of the clients);
    `horizon` in mean times of the slowest client. `columns`: what the file calls them, where it
    calls them otherwise ("seconds=round_trip,client=node").
    """

    scheme: Scheme = "async"
    window: float | None = None
    buffer_size: int | None = None
    horizon: float = 100.0
    heterogeneity: float = 1.0
    noise: float = 1.0
    seed: int = 0
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise ValueError(f"give one file with columns client and seconds, not {len(paths)}")
    log = read_log(paths[0], options.columns)
    settings = {name: value for name, value in vars(options).items() if name != "columns"}
    found = plan(log, **settings, say=say)
    return Applied(
        sentences(found, options.horizon), summary(found),
        {"clients": found.clients, "schemes": found.schemes, "curves": found.curves},
        {"weights": draw_weights(found), "rounds": draw_rounds(found),
         "staleness": draw_staleness(found), "schemes": draw_schemes(found)},
    )  # fmt: skip


def read_log(path: Path, chosen: Sequence[str] = ()) -> ClientLog:
    """The round trips of a file; raises `FileError`."""
    return client_log(read_table(path, COLUMNS, min_rows=2, chosen=chosen), where=str(path))


def _left(name: str, row: Any) -> str:
    if np.isnan(row["simulated_loss"]):
        return f"{name} was not simulated"
    return f"{name} {row['simulated_loss']:.3g}, with identical weights {row['simulated_loss_identical']:.3g}"


def sentences(found: Plan, asked: float) -> tuple[str, ...]:
    table: Any = found.clients
    excess = table["share_identical"] / table["importance"]
    most, least = excess.idxmax(), excess.idxmin()
    schemes: Any = found.schemes.set_index("scheme")
    used, chosen = schemes.loc[found.used], schemes.loc[found.chosen]
    slow, fast = table["mean_seconds"].idxmax(), table["mean_seconds"].idxmin()
    said = [
        f"{len(table)} clients, {int(table['rounds_logged'].sum()):,} round trips; the slowest "
        f"({table['client'][slow]}) takes {table['mean_seconds'][slow]:.4g} s on average, the "
        f"fastest ({table['client'][fast]}) {table['mean_seconds'][fast]:.4g} s",
        f"{found.used} with identical weights has bias chi^2 = {found.chi_square:.3g}: "
        f"{table['client'][most]} counts {excess[most]:.3g} times what it should, "
        f"{table['client'][least]} {excess[least]:.3g} times; the weights in clients.csv undo this",
        f"an update is {used['mean_staleness']:.3g} aggregations late on average, at most "
        f"{used['largest_staleness']:,}",
        f"recommended FedFix window: {found.window:.4g} s (simulated loss left "
        f"{chosen['simulated_loss']:.3g}; {_left(found.used, used)})",
    ]
    if found.cut:
        said.append(
            f"the clock of {', '.join(found.cut)} was cut short at {planning.LONGEST:,} aggregations, because the "
            "clients' times differ so much: what is said of clients that it hardly saw follows from their "
            "mean times, and no loss is simulated"
        )
    if found.horizon < asked:
        said.append(
            f"simulated over {found.horizon:.3g} of the slowest client's times, not {asked:g}, because "
            f"asynchronous clients would send more than {planning.LONGEST:,} updates"
        )
    few = int((table["rounds_logged"] < 5).sum())
    if few:
        said.append(f"{few} clients have fewer than 5 round trips: their weights are rough")
    return tuple(said)


def summary(found: Plan) -> dict[str, Any]:
    table: Any = found.clients
    weights = {
        name.removeprefix("weight_"): dict(zip(table["client"], table[name].tolist(), strict=True))
        for name in table
        if name.startswith("weight_")
    }
    schemes: Any = found.schemes
    simulated = zip(schemes["scheme"], schemes["simulated_loss"].tolist(), strict=True)
    return {
        "clients": len(table),
        "scheme_in_use": found.used,
        "chi_square_identical": found.chi_square if np.isfinite(found.chi_square) else None,
        "recommended_window_seconds": found.window,
        "recommended_weights": weights,
        "simulated_loss": {k: v if np.isfinite(v) else None for k, v in simulated},
    }


def draw_weights(found: Plan) -> MatplotlibFigure:
    """What each client should count, and what it counts under identical weights."""
    table: Any = found.clients.sort_values("mean_seconds")
    figure, ax = style.figure(width=7.5, height=3.6)
    place = np.arange(len(table))
    ax.bar(place, table["share_identical"], color=style.colours[1], alpha=0.8,
           label=f"identical weights ({_name(found.used)})")  # fmt: skip
    ax.plot(place, table["importance"], "_", color=style.INK, markersize=14, markeredgewidth=2,
            label="asked for")  # fmt: skip
    if len(table) <= 24:
        ax.set_xticks(place, table["client"], rotation=45, ha="right")
    ax.set(xlabel="client, fastest first", ylabel="share of the objective",
           title=f"bias χ² = {found.chi_square:.3g}")  # fmt: skip
    ax.grid(axis="x", visible=False)
    ax.legend()
    return figure


def draw_rounds(found: Plan) -> MatplotlibFigure:
    """Gantt chart of the first rounds under the scheme in use and under the FedFix window."""
    names = list(dict.fromkeys((found.used, found.chosen)))
    figure, axes = style.figure(len(names), 1, width=8.5, height=3.2 * len(names), squeeze=False)
    order = np.argsort(found.log.means)
    picked = order[np.unique(np.linspace(0, len(order) - 1, SHOWN_CLIENTS).round().astype(int))]
    for ax, name in zip(axes[:, 0], names, strict=True):
        clock = found.schedules[name]
        until = min(4 * found.log.means.max(), clock.times[min(SHOWN, len(clock.times)) - 1])
        gantt(ax, *clock.rounds(picked), until)
        ax.set_yticks(np.arange(len(picked)), [found.log.names[i] for i in picked])
        ax.set(xlabel="seconds", title=_name(name))
    return figure


def draw_staleness(found: Plan) -> MatplotlibFigure:
    """How late updates are, for the scheme in use and for the FedFix window."""
    names = list(dict.fromkeys((found.used, found.chosen)))
    figure, axes = style.figure(1, len(names), squeeze=False)
    for place, (ax, name) in enumerate(zip(axes[0], names, strict=True)):
        late = found.schedules[name].staleness
        width = max((late.max() + 1) // 30, 1)
        bins = np.arange(0, late.max() + width + 1, width) - 0.5
        ax.hist(late, bins=bins, weights=np.full(len(late), 1 / len(late)),
                color=style.colours[place], rwidth=0.9)  # fmt: skip
        ax.set(xlabel="staleness (aggregations)", ylabel="share of updates", title=_name(name))
    return figure


def draw_schemes(found: Plan) -> MatplotlibFigure:
    """Simulated loss over time at the best learning rates, and against the FedFix window."""
    figure, (left, right) = style.figure(1, 2, width=10)
    schemes: Any = found.schemes.set_index("scheme", drop=False)
    curves: Any = found.curves
    shown = list(dict.fromkeys(["sync", "async", found.used, found.chosen, *schemes.index]))
    shown = [name for name in shown if "fedfix" not in name or name in (found.used, found.chosen)]
    for colour, name in zip(style.colours, shown, strict=False):
        curve = curves[curves["scheme"] == name]
        left.plot(curve["seconds"], curve["loss"], color=colour, label=_name(name))
        if name == found.used:
            left.plot(curve["seconds"], curve["loss_identical"], color=colour, linestyle=":",
                      label=f"{_name(name)}, identical")  # fmt: skip
    left.set(yscale="log", xlabel="seconds", ylabel="loss above the optimum",
             title="simulated, each at its best rate")  # fmt: skip
    left.legend(fontsize=8)
    fixed = schemes[schemes["window_seconds"].notna()].sort_values("window_seconds")
    right.plot(fixed["window_seconds"], fixed["simulated_loss"], "o-", color=style.colours[2],
               label="FedFix")  # fmt: skip
    right.plot(found.window, schemes["simulated_loss"][found.chosen], "o", color=style.colours[1],
               markersize=10, fillstyle="none", markeredgewidth=2, label="recommended")  # fmt: skip
    for name, dashes in (("sync", "--"), ("async", ":")):
        right.axhline(
            schemes["simulated_loss"][name],
            color=style.INK,
            linestyle=dashes,
            linewidth=1,
            label=_name(name),
        )
    right.set(xscale="log", yscale="log", xlabel="window (s)", ylabel="loss left at the end",
              title="which window?")  # fmt: skip
    right.set_xticks(fixed["window_seconds"], [f"{w:.3g}" for w in fixed["window_seconds"]])
    right.minorticks_off()
    right.legend(fontsize=8)
    return figure


def _name(scheme: str) -> str:
    kind, _, number = scheme.partition("-")
    unit = " s" if kind == "fedfix" else ""
    return f"{NAMES[kind]} {number}{unit}".strip()


application = Application(
    about="Client round-trip times in; staleness, bias, aggregation weights and a FedFix window out.",
    files="one CSV or Parquet with columns client, seconds (a row for each round trip), and perhaps "
    "importance (one value for each client; equal if absent)",
    options=Options,
    run=run,
)
