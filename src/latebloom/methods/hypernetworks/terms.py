"""What is said of the traces of `ConditionalTraining`, in the vocabulary of `latebloom.measures`.

Losses are compared as the mean of their logarithm over training, each seed at the learning rate that
is best on the other seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from latebloom.measures import Effect, Measure, best_on_others, combined, derived, measure

FLOOR = 1e-4
"""Added to a loss before its logarithm is taken."""


def area(trace: xr.Dataset) -> Float[np.ndarray, "seed rate"]:
    """Mean over training of log(validation loss + `FLOOR`); the start does not count, a run
    that broke down counts with the worst loss of the trace at the start."""
    loss = trace.loss.values
    worst = np.nanmax(loss[:, 0])
    limited = np.where(np.isfinite(loss), np.minimum(loss, worst), worst)
    return np.log(limited + FLOOR)[:, 1:].mean(1)


def at_tuned(
    values: Float[np.ndarray, "seed rate ..."], trace: xr.Dataset
) -> Float[np.ndarray, "seed ..."]:
    """Each seed's values at the rate whose `area` is lowest on the other seeds."""
    return values[np.arange(len(values)), best_on_others(area(trace), lowest=True)]


@measure("log loss, mean over training")
def log_loss(trace: xr.Dataset) -> np.ndarray:
    return at_tuned(area(trace), trace)


@derived("validation loss")
def validation(trace: xr.Dataset) -> np.ndarray:
    return at_tuned(trace.loss.values.swapaxes(1, 2), trace)


def failed(trace: xr.Dataset, loss: float) -> Bool[np.ndarray, "seed rate"]:
    """Whether a run ends at that loss or above it, or broke down."""
    last = trace.loss.values[:, -1]
    return ~np.isfinite(last) | (last >= loss)


def share_below(limit: float, effects: Iterable[Effect]) -> Effect:
    """The share of effects that are below a number, for each seed."""
    text = f"share below {limit:g}"
    return combined(text, lambda *values: (np.stack(values) < limit).mean(0), *effects)


def exponent(name: str, **where: Any) -> Measure:
    """Of an observable before training, in the size of the settings."""

    def of(trace: xr.Dataset) -> np.ndarray:
        values = trace[name].isel(step=0, **where).values
        return np.polyfit(np.log(trace["size"].values), np.log(values).T, 1)[0]

    return Measure(f"exponent of {name}", of)


@measure("coefficient of variation of gradient norms over settings")
def variation(trace: xr.Dataset) -> np.ndarray:
    """Before training."""
    norms = trace.gradient.values[:, 0]
    return norms.std(1) / norms.mean(1)
