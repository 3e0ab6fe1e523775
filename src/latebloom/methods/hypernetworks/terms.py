"""What is said of the traces of `ConditionalTraining`, in the vocabulary of `latebloom.measures`.

Losses are compared as the mean of their logarithm over training, each seed at the learning rate that
is best on the other seeds.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from latebloom.measures import best_on_others, derived, measure

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
