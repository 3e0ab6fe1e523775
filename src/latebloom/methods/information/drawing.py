"""Pictures of how measures go with the generalisation gap, and of what layers keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes


def draw_correlations(ax: Axes, found: pd.DataFrame) -> None:
    """Kendall's tau of every measure of a `correlation_table`, its first row on top: over all models
    with the interval, inside data sets, and at equal training loss."""
    rows = np.arange(len(found))[::-1]
    marks = (("kendall", "o", "all models, 95 % over settings"), ("within", "s", "inside data sets"),
             ("partial", "^", "at equal training loss"))  # fmt: skip
    first, *_ = [
        ax.plot(found[name], rows + 0.22 * (1 - place), mark, markersize=5, label=label)[0]
        for place, (name, mark, label) in enumerate(marks)
    ]
    ax.hlines(
        rows + 0.22, found.low, found.high, color=first.get_color(), linewidth=1.2, zorder=1.9
    )
    ax.axvline(0, color="#7F7F7F", linestyle=":")
    ax.set_yticks(rows, list(found.index))
    ax.set_xlabel("Kendall's tau with the gap")


def draw_profiles(ax: Axes, profiles: Mapping[str, Float[np.ndarray, "seed model layer"]]) -> None:
    """Median of models by hidden layer, and a band from their tenth to their ninetieth percentile."""
    for mark, (label, values) in zip("os^vD", profiles.items(), strict=False):
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=(0, 1))
        depth = np.arange(1, len(middle) + 1)
        (line,) = ax.plot(depth, middle, f"{mark}-", markersize=4, label=label)
        ax.fill_between(depth, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        ax.set_xticks(depth)
    ax.set_xlabel("hidden layer")
    ax.legend()
