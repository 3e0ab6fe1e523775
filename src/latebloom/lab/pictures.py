"""The kinds of picture that studies and applications draw.

`curves`, `observables`, `dots`, `trend` and `table` make what a `Figure` draws with: a function of the
traces. Each leaves out what needs an arm that was not run. A label or title may name settings of
its arm in braces, as in "{train_fraction:.0%} of the pairs". What goes to the axes as they are
(`ylim=`, `yscale=`, ...) is passed on to `Axes.set`, but for `ticks=`: the only ones of x, in plain
numbers; `own` has more of it for single panels, by title or by the label of what is drawn.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from latebloom.lab import style
from latebloom.measures import Curve, Effect, Observable, Traces, curve

Arms = Mapping[str, str]  # arm -> label
Picture = Callable[[Traces], MatplotlibFigure]
Own = Mapping[str, Mapping[str, Any]]

_DASHES = ("-", "--", "-.", ":")
_MARKERS = {"marker": "o", "markersize": 4}


def nth_look(place: int) -> dict[str, Any]:
    """Colour and dashes of a panel's n-th line: seven colours, and again with other dashes.

    Raises `ValueError` beyond 28 lines.
    """
    if place >= len(style.colours) * len(_DASHES):
        raise ValueError("more than 28 lines in one panel cannot be told apart: split the panel")
    dashes, colour = divmod(place, len(style.colours))
    return {"colour": style.colours[colour], "linestyle": _DASHES[dashes]}


def curves(
    names: Observable | Mapping[str, Observable], *groups: tuple[str, Arms], log_steps: bool = False,
    as_drawn: Callable[[xr.Dataset], xr.Dataset] | None = None,
    levels: Mapping[str, Mapping[str, float]] | None = None, look: Own | None = None,
    markers: bool = False, own: Own | None = None, **axes: Any,
) -> Picture:  # fmt: skip
    """A line for each arm: mean over seeds against the step, a band from lowest to highest seed.

    - One observable: a panel for each group of arms, (title, {arm: label}).
    - Several (label -> observable) of one group: a panel for each observable.
    - Several of several groups: a row for each observable, a column for each group.

    `as_drawn` changes a trace before it is drawn, as from steps to hours. `levels`: named
    horizontal lines, by the label of an observable. `look`: what a line looks like instead, by its
    label, as in {"linestyle": ":"}. `markers`: a dot at each observation. `log_steps`: steps on a
    logarithmic axis.
    """
    lines = {label: _curve(name) for label, name in names.items()} if isinstance(names, Mapping) else {"": _curve(names)}  # fmt: skip

    def draw(traces: Traces) -> MatplotlibFigure:
        shown = [(title, found) for title, arms in groups if (found := _labelled(arms, traces))]
        grid = len(lines) > 1 and len(groups) > 1
        many = grid or len(lines) == 1
        figure, places = _grid(len(lines), len(shown)) if grid else panels(
            len(shown) * len(lines), sharey=len(lines) == 1)  # fmt: skip
        looks, together = _looks([arms.values() for _, arms in shown])
        cells = [(row, column) for row in lines.items() for column in shown]
        for ax, ((what, line), (_, arms)) in zip(places, cells, strict=False):
            for arm, label in arms.items():
                trace = as_drawn(traces[arm]) if as_drawn else traces[arm]
                _band(ax, trace, line, label, looks[label] | (_MARKERS if markers else {}) | dict((look or {}).get(label, {})))  # fmt: skip
            for name, height in (levels or {}).get(what, {}).items():
                horizontal(ax, height, name)
        # A limit that is left open is that of all panels: when everything is drawn.
        for ax, ((what, _), (title, _)) in zip(places, cells, strict=False):
            _finish(ax, {"title": title if many else "", "ylabel": what, "xlabel": "step"}, axes,
                    own, (title, what), log_steps)  # fmt: skip
        _outer(places, rows=grid, columns=many)
        _legends(figure, places, together or grid)
        return figure

    return draw


def observables(
    names: Mapping[str, Observable] | Callable[[xr.Dataset], Mapping[str, Observable]], arms: Arms, *,
    each: Callable[[Axes, xr.Dataset], None] | None = None, log_steps: bool = False,
    as_drawn: Callable[[xr.Dataset], xr.Dataset] | None = None, look: Own | None = None,
    columns: int = 3, height: float = 3.3, own: Own | None = None, **axes: Any,
) -> Picture:  # fmt: skip
    """A panel for each arm (arm -> title), a line for each observable (label -> observable).

    `names` may depend on the trace, as on its layers. `each(ax, trace)` draws more on every panel.
    `as_drawn` and `look` are as in `curves`; labels that begin with "_" are not in the legend.
    """

    def draw(traces: Traces) -> MatplotlibFigure:
        shown = _labelled(arms, traces)
        drawn = {arm: as_drawn(traces[arm]) if as_drawn else traces[arm] for arm in shown}
        lines = {arm: names(trace) if callable(names) else names for arm, trace in drawn.items()}
        figure, places = panels(len(shown), columns, height=height, sharey=True)
        looks, together = _looks(list(lines.values()))
        for ax, arm in zip(places, shown, strict=False):
            for label, line in lines[arm].items():
                _band(ax, drawn[arm], _curve(line), label, looks[label] | dict((look or {}).get(label, {})))  # fmt: skip
            if each:
                each(ax, drawn[arm])
        for ax, (arm, title) in zip(places, shown.items(), strict=False):
            _finish(ax, {"title": title, "xlabel": "step"}, axes, own, (title, arm), log_steps)
        _outer(places, columns=True)
        _legends(figure, places, together)
        return figure

    return draw


def dots(
    measured: Mapping[str, Mapping[str, Effect | Mapping[str, Effect]]], *,
    levels: Mapping[str, float] | None = None, own: Own | None = None, **axes: Any,
) -> Picture:  # fmt: skip
    """A dot for each seed and a bar at their mean: title -> row -> effect, or label -> effect.

    A panel for each title, a colour for each label. `levels`: named vertical lines.
    """
    table = {title: {row: effects if isinstance(effects, Mapping) else {"": effects}
                     for row, effects in rows.items()} for title, rows in measured.items()}  # fmt: skip

    def draw(traces: Traces) -> MatplotlibFigure:
        shown = {title: {row: kept for row, effects in rows.items() if (kept := {
            label: e for label, e in effects.items() if _ran(e, traces)
        })} for title, rows in table.items()}  # fmt: skip
        shown = {title: rows for title, rows in shown.items() if rows}
        names = list(dict.fromkeys(row for rows in shown.values() for row in rows))
        labels = list(dict.fromkeys(label for rows in shown.values() for row in rows.values() for label in row))  # fmt: skip
        looks, _ = _looks([labels])
        width = 3.9 * min(max(len(shown), 1), 3) + 0.08 * max(map(len, names), default=0)
        height = 1.3 + 0.28 * max(len(names), 3)
        figure, places = panels(len(shown), sharey=True, width=width, height=height)
        for ax, (title, rows) in zip(places, shown.items(), strict=False):
            here = [label for label in labels if any(label in effects for effects in rows.values())]
            for row, effects in rows.items():
                for label, effect in effects.items():
                    apart = 0.24 * (here.index(label) - (len(here) - 1) / 2)
                    mark(ax, effect(traces), names.index(row) + apart, looks[label]["colour"], label)  # fmt: skip
            for name, place in (levels or {}).items():
                vertical(ax, place, name)
            _finish(ax, {"xlabel": title}, axes, own, (title,))
        if names:
            places[0].set_yticks(range(len(names)), names)
            places[0].set_ylim(len(names) - 0.4, -0.6)
        _legends(figure, places, True)
        return figure

    return draw


def trend(
    *groups: tuple[str, Mapping[str, tuple[Sequence[float], Sequence[Effect]]]],
    geometric: bool = False, levels: Mapping[str, float] | None = None, own: Own | None = None,
    **axes: Any,
) -> Picture:  # fmt: skip
    """Effects against a level: the mean as a line, the seeds as dots; sweeps, learning curves.

    A panel for each group, (title, {label: (levels, effects)}). `geometric`: the geometric mean.
    `levels`: named horizontal lines.
    """

    def draw(traces: Traces) -> MatplotlibFigure:
        shown = []
        for title, lines in groups:
            points = {label: _points(*line, traces) for label, line in lines.items()}
            shown += [(title, kept)] if (kept := {k: p for k, p in points.items() if p}) else []
        figure, places = panels(len(shown), sharey=True)
        looks, together = _looks([points for _, points in shown])
        for ax, (_, lines) in zip(places, shown, strict=False):
            for label, points in lines.items():
                colour, dashes = looks[label].values()
                means = [np.exp(np.log(v).mean()) if geometric else v.mean() for _, v in points]
                ax.plot([x for x, _ in points], means, "o", linestyle=dashes, color=colour,
                        markersize=4, label=label or None)  # fmt: skip
                for x, values in points:
                    ax.plot(np.full(len(values), x), values, ".", color=colour, alpha=0.4)
            for name, place in (levels or {}).items():
                horizontal(ax, place, name)
        for ax, (title, _) in zip(places, shown, strict=False):
            _finish(ax, {"title": title}, axes, own, (title,))
        _outer(places, columns=True)
        _legends(figure, places, together)
        return figure

    return draw


def table(
    cells: Mapping[str, Mapping[str, Effect]], *, norm: Normalize,
    text: str | Callable[[float], str] = "{:.2f}", of: Callable[[np.ndarray], Any] = np.mean,
    **axes: Any,
) -> Picture:  # fmt: skip
    """Numbers on a ground that is coloured by them: row -> column -> effect.

    `of`: a number of an effect's values by seed; `norm` takes it to a colour, `text` to what is written.
    """
    written = text.format if isinstance(text, str) else text

    def draw(traces: Traces) -> MatplotlibFigure:
        shown = {row: {column: of(effect(traces)) for column, effect in effects.items()
                       if _ran(effect, traces)} for row, effects in cells.items()}  # fmt: skip
        shown = {row: found for row, found in shown.items() if found}
        columns = list(dict.fromkeys(column for found in shown.values() for column in found))
        width = 1.2 + 0.07 * max(map(len, shown), default=0) + 0.85 * len(columns)
        figure, (ax,) = panels(1, width=width, height=1.4 + 0.34 * len(shown))
        if not shown:
            return figure
        values = np.array(
            [[row.get(column, np.nan) for column in columns] for row in shown.values()]
        )
        ground = ax.imshow(values, cmap="PuOr_r", norm=norm, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            light = np.dot(ground.cmap(norm(value))[:3], (0.2126, 0.7152, 0.0722))
            ax.text(column, row, "" if np.isnan(value) else written(value), ha="center", va="center",
                    fontsize=9, color="white" if light < 0.45 else "#222222")  # fmt: skip
        ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        ax.set_yticks(range(len(shown)), list(shown))
        ax.grid(False)
        ax.tick_params(length=0)
        _finish(ax, {}, axes, None, ())
        return figure

    return draw


def gantt(ax: Axes, spans: Sequence[np.ndarray], events: np.ndarray, until: float) -> None:
    """A row for each worker: bars of work in two alternating colours, gaps of waiting, and a line
    for each event, up to a time. `spans`: for each row the (beginnings, ends) of its work."""
    for place, (began, ended) in enumerate(spans):
        seen = began < until
        began, ended = began[seen], np.minimum(ended[seen], until)
        for kind in (0, 1):
            bars = list(zip(began[kind::2], (ended - began)[kind::2], strict=True))
            ax.broken_barh(bars, (place - 0.36, 0.72), color=style.colours[(0, 5)[kind]])
    for time in events[events <= until]:
        ax.axvline(time, color=style.colours[1], linewidth=0.7, alpha=0.8)
    ax.set(xlim=(0, until), ylim=(-0.6, len(spans) - 0.4))
    ax.grid(visible=False)


# Parts, for figures of another kind


def by_hand(
    count: int = 1, columns: int = 3, *, legend: bool = False, **more: Any
) -> Callable[[Callable[..., None]], Picture]:
    """Decorator: a function that draws on the axes of so many panels, `draw(traces, *axes)`, as a
    picture; `legend`: one for all of them, below. What else is given goes to `panels`."""

    def made(draw: Callable[..., None]) -> Picture:
        def picture(traces: Traces) -> MatplotlibFigure:
            figure, places = panels(count, columns, **more)
            draw(traces, *places)
            if legend:
                legend_below(figure)
            return figure

        return picture

    return made


def panels(
    count: int, columns: int = 3, *, width: float | None = None, height: float = 3.3, **more: Any
) -> tuple[MatplotlibFigure, list[Axes]]:
    """Axes for so many panels (at least one), in rows; `height` of a row and `width` in inches."""
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    width = width or (4.6 if columns == 1 else 3.9 * columns)
    figure, axes = style.figure(rows, columns, width, height * rows, squeeze=False, **more)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    return figure, list(axes.flat[: max(count, 1)])


def mark(ax: Axes, values: np.ndarray, place: float, colour: str, label: str = "") -> None:
    """Seeds as dots and their mean as a bar, in row `place`; one entry of the legend a label."""
    values = values[np.isfinite(values)]
    known = ax.get_legend_handles_labels()[1]
    ax.plot(values, np.full(len(values), place), ".", color=colour, alpha=0.5)
    if len(values):
        ax.plot([values.mean()], [place], "|", color=colour, markersize=12, markeredgewidth=2,
                label=None if label in known else label or None)  # fmt: skip


def plain_ticks(ax: Axes, ticks: Sequence[float]) -> None:
    """Those of the ticks that are in view, in plain numbers, as the only ones of x."""
    low, high = ax.get_xlim()
    seen = [tick for tick in ticks if low <= tick <= high]
    ax.set_xticks(seen, [f"{tick:g}" for tick in seen])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())  # of a logarithmic axis, whose own labels are few


def vertical(ax: Axes, place: float, label: str = "") -> None:
    """A dotted line across the panel at a step, with its name along it."""
    ax.axvline(place, color=style.INK, linestyle=(0, (1, 2)), linewidth=1)
    ax.annotate(label, (place, 0.99), xycoords=("data", "axes fraction"), rotation=90, ha="right",
                va="top", fontsize=8)  # fmt: skip


def horizontal(ax: Axes, place: float, label: str = "") -> None:
    """A dotted line across the panel at a value, with its name on it."""
    ax.axhline(place, color=style.INK, linestyle=(0, (1, 2)), linewidth=1)
    ax.annotate(label, (0.02, place), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)


def guide(
    ax: Axes, start: tuple[float, float], until: float, power: float, label: str = ""
) -> None:
    """A dotted line y ~ x^`power` from a point to an x, straight on logarithmic axes, with its name
    beyond its end."""
    end = start[1] * (until / start[0]) ** power
    ax.plot((start[0], until), (start[1], end), color=style.INK, linestyle=":", linewidth=1.2)
    ax.annotate(label, (until, end), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip


def shades(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Looks from dark to light in the order of the labels, as of the levels of a sweep."""
    labels = list(dict.fromkeys(labels))
    places = np.linspace(0, 0.9, len(labels))
    return {label: {"colour": to_hex(colormaps["viridis"](place)), "linestyle": "-"}
            for label, place in zip(labels, places, strict=True)}  # fmt: skip


def legend_below(figure: MatplotlibFigure) -> None:
    """One legend for all panels below them, an entry for each label; the figure grows for it."""
    found = _entries(figure.axes)
    if found:
        columns, rows = _fit(found, figure.get_figwidth())
        figure.set_figheight(figure.get_figheight() + 0.22 * rows)
        figure.legend(found.values(), found, loc="outside lower center", ncols=columns)


def _entries(axes: Iterable[Axes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return found


def _fit(labels: Sequence[str] | Mapping[str, Any], width: float) -> tuple[int, int]:
    """Columns and rows of a legend in a width in inches."""
    columns = max(1, int(width / (0.075 * max(map(len, labels), default=0) + 0.6)))
    columns = min(columns, max(len(labels), 1))
    return columns, -(-len(labels) // columns)


def _legends(figure: MatplotlibFigure, places: Sequence[Axes], together: bool) -> None:
    """One legend, or one below each panel."""
    if together:
        legend_below(figure)
        return
    rows = 0
    for ax in places:
        place, found = ax.get_subplotspec(), _entries([ax])
        width = figure.get_figwidth() / (place.get_gridspec().ncols if place else 1)
        columns, own_rows = _fit(found, width)
        rows = max(rows, own_rows)
        below = ax.transAxes + ScaledTranslation(0, -0.5, figure.dpi_scale_trans)
        ax.legend(found.values(), found, loc="upper center", ncols=columns, borderaxespad=0,
                  bbox_to_anchor=(0.5, 0), bbox_transform=below)  # fmt: skip
    figure.set_figheight(figure.get_figheight() + 0.22 * rows)


def _looks(panels: Sequence[Iterable[str]]) -> tuple[dict[str, dict[str, Any]], bool]:
    """The look of each label, and whether one legend serves all panels.

    It does where all panels have the same labels, or where there is a colour for each. Else a
    panel has a legend of its own, and labels look alike only if they never meet in a panel.
    """
    listed = [list(labels) for labels in panels]
    for labels in listed:
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"two lines of a panel are called {twice!r}")
    every = list(dict.fromkeys(itertools.chain(*listed)))
    together = len(every) <= len(style.colours) or all(set(p) == set(every) for p in listed)
    places: dict[str, int] = {}
    for label in every:
        near = every if together else itertools.chain(*(p for p in listed if label in p))
        taken = {places[other] for other in near if other in places}
        places[label] = next(i for i in itertools.count() if i not in taken)
    return {label: nth_look(place) for label, place in places.items()}, together


def _curve(name: Observable) -> Curve:
    return curve(name) if isinstance(name, str) else name


def _ran(effect: Effect, traces: Traces) -> bool:
    return all(arm in traces for arm in effect.arms)


def _labelled(arms: Arms, traces: Traces) -> dict[str, str]:
    """The arms that were run, their labels filled with settings."""
    found = {arm: label for arm, label in arms.items() if arm in traces}
    return {
        arm: label.format_map(json.loads(traces[arm].attrs["config"])) if "{" in label else label
        for arm, label in found.items()
    }


def _points(
    levels: Sequence[float], effects: Sequence[Effect], traces: Traces
) -> list[tuple[float, np.ndarray]]:
    values = [(x, e(traces)) for x, e in zip(levels, effects, strict=True) if _ran(e, traces)]
    finite = [(x, v[np.isfinite(v)]) for x, v in values]
    return [(x, v) for x, v in finite if len(v)]


def _band(ax: Axes, trace: xr.Dataset, line: Curve, label: str, look: Mapping[str, Any]) -> None:
    style.band(ax, xr.Dataset({"line": line(trace)}), "line", label=label or None, **look)


def _grid(rows: int, columns: int) -> tuple[MatplotlibFigure, list[Axes]]:
    size = {"width": max(2.8 * columns, 4.6), "height": 2.25 * rows}
    figure, axes = style.figure(rows, max(columns, 1), squeeze=False, sharex="col", **size)
    return figure, list(axes.flat)


def _finish(
    ax: Axes, usual: Mapping[str, Any], axes: Mapping[str, Any], own: Own | None, names: Sequence[str],
    log_steps: bool = False,
) -> None:  # fmt: skip
    """Titles, labels, limits and scales of a panel."""
    chosen = {**usual, **axes}
    for name in names:
        chosen |= (own or {}).get(name, {})
    ticks = chosen.pop("ticks", None)
    ax.set(**chosen)
    if ticks is not None:
        plain_ticks(ax, ticks)
    if log_steps:
        style.log_steps_axis(ax, chosen["xlabel"])


def _outer(places: Sequence[Axes], *, rows: bool = False, columns: bool = False) -> None:
    """In `columns` that mean the same, labels of y only on the left; in `rows`, titles only on top
    and labels of x only at the bottom."""
    for ax in places:
        place = ax.get_subplotspec()
        if place is None:
            continue
        if columns and not place.is_first_col():
            ax.set_ylabel("")
        if rows and not place.is_first_row():
            ax.set_title("")
        if rows and not place.is_last_row():
            ax.set_xlabel("")
