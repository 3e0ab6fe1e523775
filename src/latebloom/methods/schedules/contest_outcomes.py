"""What contests of schedules came to: traces of `Contest`, one a data set."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from latebloom.methods.schedules.schedule_tuning import WARM


def tuned(trace: xr.Dataset, family: str) -> str:
    """The entry of a family with or without warm-up, whichever tuned better."""
    lowest = trace.tuning_loss.isel(seed=0, step=0).min("tried_peak")
    pair = [name for name in (family, family + WARM) if name in trace.cell.values]
    return min(pair, key=lambda name: float(lowest.sel(cell=name)))


def pilot_norms(trace: xr.Dataset) -> Float[np.ndarray, "seed step"]:
    """Gradient norms of every step of plain linear decay at its tuned peak, from which a schedule can be
    refined. The contest runs for twice as long."""
    norms = trace.gradient_norm.isel(step=-1, recorded=0).values
    return norms[:, : norms.shape[1] // 2]


def two_way_interval(
    rows: Float[np.ndarray, "set seed"], *, draws: int = 4000, level: float = 0.95
) -> Float[np.ndarray, " ends"]:
    """Bootstrap interval, [low, high], of the mean over data sets and seeds, both drawn anew, each for itself.

    It says what would be found on other data sets of the kind, not only with other seeds on these.
    """
    rng = np.random.default_rng(0)
    sets, seeds = rows.shape
    i = rng.integers(sets, size=(draws, sets, 1))
    j = rng.integers(seeds, size=(draws, 1, seeds))
    ends = 50 * (1 - level), 50 * (1 + level)
    return np.percentile(rows[i, j].mean(axis=(1, 2)), ends)
