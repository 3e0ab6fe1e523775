"""The kinds of picture that studies and applications draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from latebloom.lab import style


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
