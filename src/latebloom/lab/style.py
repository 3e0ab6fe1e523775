"""The look of all figures: Okabe-Ito colours, readable sizes, axes that adapt to dark pages."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter, LogFormatter, NullFormatter
from PIL import Image

colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
LARGE = 2**19  # bytes of a picture beyond which it is kept in a palette
INK = "#1A2B3C"  # stands for the page's own text colour when a figure is shown in a page

_settings: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=colours),
    "axes.grid": True,
    "grid.color": "#7F7F7F",
    "grid.alpha": 0.18,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "latebloom",
}


def figure(
    nrows: int = 1,
    ncols: int = 1,
    width: float | None = None,
    height: float | None = None,
    **more: Any,
) -> tuple[Figure, Any]:
    """A figure in the house style with its axes, as from `plt.subplots`; sizes in inches."""
    size = (width or 4.6 * ncols, height or 3.3 * nrows)
    with mpl.rc_context(_settings):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(nrows, ncols, **more)


def band(
    ax: Axes, trace: xr.Dataset, name: str, *, label: str | None = None, colour: str | None = None,
    scale: float = 1.0, **line: Any,
) -> None:  # fmt: skip
    """Mean over seeds against the step, and a band from the lowest to the highest seed."""
    rows = trace[name].values * scale
    spread(ax, trace.step.values, rows, label=label, colour=colour, **line)


def spread(
    ax: Axes, x: np.ndarray, rows: np.ndarray, *, colour: str | None = None, band: bool = True,
    **line: Any,
) -> None:  # fmt: skip
    """Mean over seeds of `rows` [seed, x], and a band from the lowest to the highest; NaN is left out."""
    seen = np.isfinite(rows).any(axis=0)
    x, rows = x[seen], rows[:, seen]
    (drawn,) = ax.plot(x, np.nanmean(rows, axis=0), color=colour, **line)
    if band:
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)


def log_steps_axis(ax: Axes, label: str = "step") -> None:
    """Steps on a logarithmic axis that still shows step 0."""
    ax.set_xscale("symlog", linthresh=1)
    ax.set_xlim(left=0)
    ax.set_xlabel(label)


def _dress(figure: Figure) -> None:
    """Give what was drawn after the figure was made (legends, notes, twin axes) the house colours."""
    for legend in figure.findobj(Legend):
        legend.get_frame().set_visible(False)
    for artist in figure.findobj(Text):
        if to_hex(artist.get_color()) == "#000000":
            artist.set_color(INK)
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log" and isinstance(axis.get_minor_formatter(), LogFormatter):
                _label_decades(axis)
        for name, spine in ax.spines.items():
            if to_hex(spine.get_edgecolor()) == "#000000":
                spine.set_edgecolor(INK)
                ax.tick_params("both" if name == "bottom" else "y", colors=INK)


def _label_decades(axis: Axis) -> None:
    """Labels of a logarithmic axis that do not run into each other: decades; of few, 2 and 5 too."""
    if isinstance(axis.get_major_formatter(), FixedFormatter):
        return  # labels that somebody chose stay
    low, high = sorted(axis.get_view_interval())
    if high >= 100 * low:
        axis.set_minor_formatter(NullFormatter())
        return
    shown = "123456789" if high < 4 * low else "125"

    def label(value: float, _: int) -> str:
        return f"{value:g}" if f"{value:e}"[0] in shown else ""

    axis.set_minor_formatter(FuncFormatter(label))
    axis.set_major_formatter(FuncFormatter(label))


def svg(figure: Figure) -> str:
    """The figure as inline SVG whose text and axes take the colour of the page's text."""
    _dress(figure)
    buffer = io.StringIO()
    with mpl.rc_context(_settings):
        figure.savefig(buffer, format="svg", dpi=160, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # As wide as the page at most, and no wider than its letters stay of the page's size.
    width = 1.75 * 72 * figure.get_figwidth()
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="max-width: {width:.0f}px"', text, count=1
    )
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "currentColor").replace(INK.lower(), "currentColor")


def png(figure: Figure) -> bytes:
    """The figure as PNG on white, 160 dots an inch; in 256 colours where it would be large."""
    _dress(figure)
    buffer = io.BytesIO()
    with mpl.rc_context(_settings):
        figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    if buffer.tell() <= LARGE:
        return buffer.getvalue()
    smaller = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(256).save(smaller, format="png", optimize=True)
    return smaller.getvalue()
