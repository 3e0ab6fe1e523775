"""What is said of the traces of `WatchedTraining`, in the vocabulary of `latebloom.measures`."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from latebloom.measures import Curve, Measure, seedwise
from latebloom.methods.grokking.local_complexity_phases import find_phases

RADIUS = 0.5
"""Of the cross-polytopes of which the terms speak, or the nearest that was recorded."""


def _at_radius(values: xr.DataArray) -> xr.DataArray:
    return values.sel(radius=RADIUS, method="nearest")


def complexity(points: str) -> Curve:
    """Local complexity of the whole network at one of `POINT_SETS`."""
    return Curve(
        f"LC at {points} points",
        lambda trace: _at_radius(trace.local_complexity.sel(points=points)).sum(
            "layer", skipna=False
        ),
    )


@seedwise("step at which the ascent of LC ends", complexity("train"))
def end_of_ascent(steps: np.ndarray, values: np.ndarray) -> float:
    return steps[find_phases(values).maximum]


@seedwise("smaller of ascent and second descent", complexity("train"))
def weakest(steps: np.ndarray, values: np.ndarray) -> float:
    return find_phases(values).weakest


def over_threshold(points: str) -> Measure:
    """Smaller of ascent and second descent over what it must exceed: the larger of 5 % of the
    curve's range and three half widths of its 99 % interval."""
    half_width = Curve("half width", lambda trace: _at_radius(trace.local_complexity_interval.sel(points=points)))  # fmt: skip

    @seedwise(f"phases at {points} points over their threshold", complexity(points), half_width)
    def ratio(steps: np.ndarray, values: np.ndarray, half_width: np.ndarray) -> Any:
        found, half = find_phases(values), np.float32(half_width.max())  # as it is kept
        return found.weakest / max(0.05 * found.range, 3 * half)

    return ratio
