"""Pictures of the competition of two pathways for a mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from latebloom.methods.critical_periods.modes import strength_velocity


def draw_flow(ax: Axes, s: float, depth: int, *, constant: float = 0.0, **lines: Any) -> None:
    """Directions of the flow of both strengths of a mode of singular value `s`, where they are positive;
    `lines` as in `Axes.streamplot`, the rest as in `strength_velocity`."""
    grid = np.linspace(s / 200, s, 24)
    k = np.stack(np.meshgrid(grid, grid), axis=-1)
    arrows = np.moveaxis(strength_velocity(k, s, depth, constant=constant), -1, 0)
    look = {"density": 0.55, "linewidth": 0.5, "arrowsize": 0.6} | lines
    ax.streamplot(grid, grid, *arrows, **look)
