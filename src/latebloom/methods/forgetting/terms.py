"""What is said of a continual learner's trace, in the vocabulary of `latebloom.measures`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from latebloom.measures import Measure
from latebloom.methods.forgetting import metrics


def percent(
    text: str, metric: Callable[[xr.Dataset], xr.DataArray], *, told: bool = False
) -> Measure:
    """100 times a metric of `metrics`, its mean over tasks: of the accuracy as it is, or `told` the task.

    NaN for a seed that diverged.
    """
    of = metrics.per_seed(metric)

    def found(trace: xr.Dataset) -> np.ndarray:
        return 100 * of(trace.assign(accuracy=trace.task_accuracy) if told else trace)

    return Measure(text, found)
