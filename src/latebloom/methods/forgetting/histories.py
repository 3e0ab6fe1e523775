"""Histories of an environment, as `rehearsal.Ages` counts them: exponents, and what they look like.

Each function takes a trace with `drawn` and `chances` [seed, step, time, age]; those that draw put one line on
an axis and leave out ages at which nothing came.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from latebloom.measures import Measure
from latebloom.methods.forgetting.recency import Fit, Need, fit_ages, fit_need, lag_counts

What = Literal["age", "need", "lag"]
LEAST_LAG = 4  # odds k / a make a power law of the lags only in the tail


def fit_of(trace: xr.Dataset, seed: int, what: What) -> Fit:
    """The power law of one seed's histories, at the last observation.

    - `what`: of the "age" of what was drawn; of the "need" by age; or of the "lag" between two
      encounters, from `LEAST_LAG` on.
    """
    last = trace.isel(step=-1, seed=seed).transpose("time", "age")
    drawn, chances = last.drawn.values, last.chances.values
    if what == "age":
        return fit_ages(drawn, chances)
    if what == "need":
        return fit_need(Need(trace.age.values.astype(float), drawn.sum(0), chances.sum(0)))
    lags = lag_counts(drawn)
    seen = (np.arange(1, len(lags) + 1) >= min(LEAST_LAG, len(lags) - 1)).astype(float)
    return fit_ages(lags * seen, seen)


def fitted(what: What) -> Measure:
    """The exponent of `fit_of`, one a seed."""

    def of(trace: xr.Dataset) -> np.ndarray:
        return np.array([fit_of(trace, s, what).exponent for s in range(trace.sizes["seed"])])

    return Measure(f"exponent of {what}", of)


def said(trace: xr.Dataset, what: What, label: str) -> str:
    """A label with the mean exponent over seeds."""
    return f"{label} (fit: {fitted(what)(trace).mean():.2f})"


def draw_ages(ax: Axes, trace: xr.Dataset, **look: Any) -> None:
    """The share of each age in what came at the last time, over all seeds."""
    last = trace.isel(step=-1, time=-1).drawn.sum("seed")
    ax.plot(last.age, (last / last.sum()).where(last > 0), "o-", markersize=4, **look)


def draw_need(ax: Axes, trace: xr.Dataset, rare: float = 0.01, **look: Any) -> None:
    """The probability to be met by age, over all seeds, of ages that had a share `rare` of the most chances."""
    total = trace.isel(step=-1).sum("seed").transpose("time", "age")
    chances = total.chances.values.sum(0)
    often = chances >= rare * chances.max()
    met = np.where(often, total.drawn.values.sum(0), 0) / np.maximum(chances, 1)
    ax.plot(total.age.values, np.where(met > 0, met, np.nan), ".", **look)


def draw_lags(ax: Axes, trace: xr.Dataset, **look: Any) -> Float[np.ndarray, " lags"]:
    """The share of each time between two encounters, over all seeds; returns the times."""
    total = trace.isel(step=-1).sum("seed").transpose("time", "age")
    back = lag_counts(total.drawn.values)
    lags = total.age.values[: len(back)]
    ax.plot(lags, np.where(back > 0, back / back.sum(), np.nan), ".", **look)
    return lags
