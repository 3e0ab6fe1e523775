"""Spends and outcomes from a file: the system behind them, what each channel returns, an action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data.columns import listed
from latebloom.data.files import Column, FileError, Unit, check_table, read_table
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.bandits.dynamical_linear import Recommendation, recommend

SHOWN_CHANNELS, SHOWN_PERIODS = 7, 150
LONGEST_MEMORY = 1 / 3  # of a record: what lasts longer cannot be told from a drift


@dataclass(frozen=True)
class Options:
    """How a record of spends and outcomes is read and what is recommended from it.

    - `spend`, `outcome`: columns; unless given, those whose names begin with "spend" and "outcome".
    - `weights`: what a unit of each outcome is worth (1 unless given).
    - `method`: "arx" (past outcomes too), "fir" (past spends only) or "predictor".
    - `lags`, `order`: None chooses. `season`: periods of a season, 1 for none. `trend`: whether
      outcomes may grow or fall in a straight line by themselves. `ridge`: shrinkage.
    - `budget`: to be shared out (the mean of the past unless given) in `parts`; `caps`: most a
      channel (its largest spend of the past unless given).
    - `time`: a column of times, whose rows must be evenly spaced; `time_unit`: of times that are
      numbers ("s", "ms", "us", "ns", "D" since 1970), unless their digits tell it.
    - `draws`: of the bootstrap behind the intervals; `seed`: of its random numbers.
    """

    spend: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    time: str = ""
    method: Literal["arx", "fir", "predictor"] = "arx"
    lags: int | None = None
    order: int | None = None
    season: int = 1
    trend: bool = True
    ridge: float = 0.0
    budget: float | None = None
    parts: int = 10
    caps: tuple[float, ...] = ()
    draws: int = 300
    seed: int = 0
    time_unit: Unit = "auto"


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    """Read one record (and, if given, one list of actions) and recommend an action."""
    if not 1 <= len(paths) <= 2:
        raise FileError(
            f"give one file of spends and outcomes, and at most one list of actions; not {len(paths)}"
        )
    _check_options(options)
    say("reading", None)
    table, spend, outcomes = read_record(paths[0], options)
    candidates = None
    if len(paths) == 2:
        candidates = read_table(paths[1], {name: Column(low=0) for name in spend})
    try:
        found = recommend(
            table, spend, outcomes, weights=options.weights or None, candidates=candidates,
            budget=options.budget, caps=options.caps or None, parts=options.parts,
            method=options.method, lags=options.lags, order=options.order, ridge=options.ridge,
            season=options.season, trend=options.trend, replicates=options.draws, seed=options.seed, say=say,
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    say("drawing", None)
    return Applied(
        found=(*_sentences(found, table, outcomes), *_unused(table, spend, outcomes, options)),
        summary=_summary(found, len(table)),
        tables={"channels": found.channels, "actions": found.actions, "impulse": found.impulse,
                "fit": found.fit},
        figures={"impulse": draw_impulse(found), "hankel": draw_hankel(found),
                 "fit": draw_fit(found), "channels": draw_channels(found)},
    )  # fmt: skip


def _check_options(options: Options) -> None:
    for name, least in (("parts", 1), ("season", 1), ("draws", 20), ("ridge", 0), ("seed", 0)):
        if not least <= getattr(options, name) < np.inf:
            raise FileError(f"setting {name} must be at least {least}")
    for name, least in (("lags", 2), ("order", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            raise FileError(f"setting {name} must be at least {least}")
    if options.budget is not None and not 0 < options.budget < np.inf:
        raise FileError("setting budget must be a number above 0")
    if not all(0 <= cap < np.inf for cap in options.caps):
        raise FileError("setting caps must be numbers, 0 or more")
    if not np.isfinite(options.weights).all():
        raise FileError("setting weights must be finite numbers")


def read_record(path: Path, options: Options) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The table, its spend columns and its outcome columns; raises `FileError`."""
    found: tuple[list[str], list[str]] = [], []

    def wanted(names: list[str]) -> dict[str, Column]:
        for kept, own in zip(found, _roles(names, path, options), strict=True):
            kept[:] = own
        columns = {name: Column(low=0, setting="spend") for name in found[0]}
        columns |= {name: Column(setting="outcome") for name in found[1]}
        if options.time:
            columns[options.time] = Column("time", unit=options.time_unit, setting="time")
        return columns

    table = read_table(path, wanted, min_rows=20)
    if options.time:
        table = _in_order(table, options.time, path)
    else:
        _check_order(table, [*found[0], *found[1]], path)
    return table, *found


def _roles(names: list[str], path: Path, options: Options) -> tuple[list[str], list[str]]:
    """The spend columns and the outcome columns of a file that has columns `names`."""
    spend = list(options.spend) or [c for c in names if c.lower().startswith("spend")]
    outcomes = list(options.outcome) or [c for c in names if c.lower().startswith("outcome")]
    for name, chosen, example in (("spend", spend, "tv,search"), ("outcome", outcomes, "orders")):
        if not chosen:
            raise FileError(
                f"{path} has no column whose name begins with {name!r}: name them with --set"
                f" {name}={example}; it has: {listed(names)}"
            )
    if both := set(spend) & set(outcomes):
        raise FileError(f"{path}: column {min(both)!r} is both a spend and an outcome")
    for setting, of in (("caps", spend), ("weights", outcomes)):
        values = getattr(options, setting)
        if values and len(values) != len(of):
            raise FileError(
                f"setting {setting} has {len(values)} values for {len(of)} columns: {listed(of)}"
            )
    return spend, outcomes


def _check_order(table: pd.DataFrame, used: Sequence[str], path: Path) -> None:
    """Refuse rows that a column of times, which nobody named, says are not in order."""
    for name in table.columns:
        times = None if name in used else _as_times(table, str(name))
        if times is not None and not times.is_monotonic_increasing:
            raise FileError(
                f"{path}: the rows are not in the order of the times in column {name!r}: give --set"
                f" time={name} to sort them by it, or leave the column out"
            )


def _as_times(table: pd.DataFrame, name: str) -> pd.Series | None:
    """The column as times, if it holds dates throughout (a number may be anything)."""
    column = pd.Series(table[name])
    numbers: Any = pd.to_numeric(column, errors="coerce")
    if (
        not pd.api.types.is_datetime64_any_dtype(column)
        and np.isfinite(numbers.to_numpy(float)).any()
    ):
        return None
    try:
        return pd.Series(check_table(pd.DataFrame({name: column}), {name: Column("time")})[name])
    except FileError:
        return None


def _unused(
    table: pd.DataFrame, spend: Sequence[str], outcomes: Sequence[str], options: Options
) -> list[str]:
    left = [str(c) for c in table.columns if c not in (*spend, *outcomes, options.time)]
    if not left:
        return []
    said = f"Not used: {', '.join(left)}."
    dates = [name for name in left if _as_times(table, name) is not None]
    if dates:
        said += f" Give --set time={dates[0]} to check that no period is missing."
    if set(left) - set(dates) and not options.spend:
        said += " If one of them is a spend, name all spends with --set spend=..."
    return [said]


def _in_order(table: pd.DataFrame, time: str, path: Path) -> pd.DataFrame:
    """The table sorted by time, after a check that no period is missing or given twice."""
    table = table.sort_values(time, kind="stable", ignore_index=True)
    gaps = table[time].diff().iloc[1:]
    usual = gaps.median()
    months = usual >= pd.Timedelta(days=28)  # calendar months and quarters differ by days
    odd = (gaps <= usual / 2) | (gaps >= usual * 1.5) if months else gaps != usual
    if odd.any():
        at = int(np.flatnonzero(odd.to_numpy())[0]) + 1
        raise FileError(
            f"{path}, column {time!r}: from {table[time][at - 1]:%Y-%m-%d %H:%M} to"
            f" {table[time][at]:%Y-%m-%d %H:%M} is not one period of {usual}: give one row a period,"
            " with 0 where nothing was spent"
        )
    return table


def _sentences(found: Recommendation, table: pd.DataFrame, outcomes: list[str]) -> list[str]:
    best, channels, what = found.actions.iloc[0], found.channels, " + ".join(outcomes)
    split = ", ".join(f"{name} {value:,.4g}" for name, value in found.best.items())
    said = [
        f"Recommended: {split}; in the long run {best.gain:+,.4g} {what} a period against the mean"
        f" of the past [95 %: {best.low:+,.4g}, {best.high:+,.4g}]."
    ]
    if best.gain_at_once < 0 < best.gain:
        said.append(f"In its first period it brings {best.gain_at_once:+,.4g}: the rest comes later.")  # fmt: skip
    said += _doubts(found, best, len(table))
    first, last = channels.loc[channels.at_once.idxmax()], channels.loc[channels.response.idxmax()]
    if first.channel != last.channel:
        said.append(
            f"{first.channel} returns most at once ({first.at_once:.4g} a unit), {last.channel} most"
            f" in the long run ({last.response:.4g} [{last.low:.4g}, {last.high:.4g}])."
        )
    identified = found.identified
    said.append(
        f"From {len(table):,} periods: a system of order {identified.order} from {identified.lags}"
        f" lags ({identified.method}); "
        + (f"1 % of an effect is left after {found.memory:.3g} periods." if np.isfinite(found.memory)
           else "it is unstable: its impulse responses are not to be trusted.")
    )  # fmt: skip
    r_squared = explained(found)
    said.append(f"The spends alone explain {max(r_squared, 0):.0%} of the variance of {what}.")
    system = channels.system_response
    outside = channels[(system < channels.low) | (system > channels.high)]
    if len(outside):
        said.append(
            f"The system of order {identified.order} misses the long-run response of"
            f" {', '.join(outside.channel)}: try a higher order for the impulse responses; the"
            " recommendation does not depend on it."
        )
    return said


def _doubts(found: Recommendation, best: pd.Series, periods: int) -> list[str]:
    """What speaks against taking the recommendation as it stands."""
    said = []
    if best.high < 0 < best.gain or best.low > 0 > best.gain:
        said.append("The interval contradicts the estimate: trust neither.")
    elif best.high < 0:
        said.append(
            "The whole interval lies below 0: no action is as good as the mean of the past."
        )
    elif best.low <= 0:
        said.append("The interval includes 0: the record does not show that the past can be beaten.")  # fmt: skip
    unstable = found.unstable > 0.1 * (found.unstable + len(found.replicates))
    if unstable or found.carried > periods * LONGEST_MEMORY:
        said.append(
            "Outcomes seem to remember more than a third of the record: a slow drift that no spend"
            " explains looks like that, and long-run responses and their intervals are then wrong; try"
            " --set method=fir, which does not take a drift for memory."
        )
    return said


def explained(found: Recommendation) -> float:
    """Share of the reward's variance that the system explains from the spends alone."""
    fit = found.fit.dropna()
    if fit.empty:
        return 0.0
    return float(1 - (fit.observed - fit.from_spend).var() / fit.observed.var())


def _summary(found: Recommendation, periods: int) -> dict[str, Any]:
    identified, system, best = found.identified, found.identified.system, found.actions.iloc[0]
    stable = np.isfinite(found.memory)
    return {
        "periods": periods, "method": identified.method, "lags": identified.lags,
        "order": identified.order, "recommended": found.best, "gain": float(best.gain),
        "gain_low": float(best.low), "gain_high": float(best.high),
        "gain_at_once": float(best.gain_at_once), "best_in": float(best.best_in),
        "memory": found.memory if stable else None,
        "spectral_radius": system.spectral_radius,
        "explained_by_spend": explained(found) if stable else None,
        "unstable_refits": found.unstable,
        "response": dict(zip(found.channels.channel, map(float, found.channels.response), strict=True)),
        "A": system.A.tolist(), "B": system.B.tolist(), "C": system.C.tolist(),
        "D": system.D.tolist(), "hankel_singular_values": identified.values.tolist(),
    }  # fmt: skip


def draw_impulse(found: Recommendation) -> MatplotlibFigure:
    """Reward of one unit of each channel over time: dots from the regression, line the system."""
    figure, ax = style.figure(1, 1, width=6.6, height=3.8)
    for place, channel in enumerate(found.channels.channel[:SHOWN_CHANNELS]):
        part, colour = found.impulse[found.impulse.channel == channel], style.colours[place]
        ax.plot(part.lag, part.system, color=colour, label=channel)
        ax.plot(part.lag, part.regression, ".", color=colour, alpha=0.6)
    ax.axhline(0, color=style.INK, linewidth=0.8)
    ax.set(xlabel="periods after the spend", ylabel="reward of one unit", xlim=(-0.5, None),
           title="impulse response (dots: regression, line: system)")  # fmt: skip
    ax.legend()
    return figure


def draw_hankel(found: Recommendation) -> MatplotlibFigure:
    """The Hankel singular values and where the order was cut."""
    values = found.identified.values
    values = values[values > 1e-9 * values[0]][:20]
    order = found.identified.order
    figure, ax = style.figure(1, 1, width=5.2, height=3.5)
    numbers = np.arange(1, len(values) + 1)
    ax.plot(numbers, values, "o-", color=style.colours[6])
    ax.plot(numbers[:order], values[:order], "o", color=style.colours[0], label=f"kept: {order}")
    ax.set(yscale="log", xlabel="number", ylabel="Hankel singular value", title="order of the system")  # fmt: skip
    ax.set_xticks(numbers[:: 1 if len(numbers) <= 10 else 2])
    ax.legend()
    return figure


def draw_fit(found: Recommendation) -> MatplotlibFigure:
    """Observed reward, one-step fit, and what the spends alone explain, in the last periods."""
    figure, ax = style.figure(1, 1, width=9.0, height=3.5)
    fit = found.fit.tail(SHOWN_PERIODS)
    ax.plot(fit.period, fit.observed, ".", color=style.colours[6], markersize=4, label="observed")
    ax.plot(fit.period, fit.fitted, color=style.colours[1], linewidth=1, alpha=0.8,
            label="fitted one step ahead")  # fmt: skip
    ax.plot(fit.period, fit.from_spend, color=style.colours[0], linewidth=1.4,
            label="from the spends alone")  # fmt: skip
    ax.set(xlabel="period", ylabel="reward")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def draw_channels(found: Recommendation) -> MatplotlibFigure:
    """What a unit of each channel returns at once and in the long run."""
    channels = found.channels
    places = np.arange(len(channels))
    figure, ax = style.figure(1, 1, width=6.0, height=1.4 + 0.55 * len(channels))
    errors = np.abs(channels[["low", "high"]].to_numpy().T - channels.response.to_numpy())
    ax.errorbar(channels.response, places - 0.12, xerr=errors, fmt="o", color=style.colours[0],
                label="in the long run (95 %)")  # fmt: skip
    ax.plot(channels.at_once, places + 0.12, "s", color=style.colours[4], label="at once")
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.set_yticks(places, channels.channel)
    ax.set(xlabel="reward of one unit of spend", ylim=(len(channels) - 0.4, -0.6))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


application = Application(
    about="spends by channel and outcomes by period in; the linear system behind them, impulse"
    " responses, long-run returns with intervals and a recommended split of the budget out",
    files="CSV or Parquet, one row a period (oldest first, or with --set time=COLUMN): columns of"
    " spends and of outcomes, named spend... and outcome... or by --set spend=tv,search --set"
    " outcome=orders; perhaps a second file that lists the actions to choose from (the spend columns)",
    options=Options,
    run=run,
)
