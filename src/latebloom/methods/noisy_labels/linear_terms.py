"""What is said of the traces of `TwoGaussians`, in the vocabulary of `latebloom.measures`.

One number a draw of a problem, of all seeds. The early stage is what comes before theta . v >= 0.1.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from latebloom.measures import Measure, at, combined, first_step, measure
from latebloom.methods.noisy_labels.two_gaussians import side_by_side


def of_draws(of: Measure) -> Measure:
    """A measure of each draw."""
    return Measure(f"{of.text}, each draw", lambda trace: of(side_by_side(trace)))


# Where the early stage ends; NaN where it had ended at the start.
stage = combined("if later than 0", lambda step: np.where(step > 0, step, np.nan),
                 first_step("alignment", 0.1, never="nan"))  # fmt: skip


@of_draws
@measure("least cosine of -gradient and v in the early stage")
def least_correlation(trace: xr.Dataset) -> np.ndarray:
    early = trace.step.values < stage(trace)[:, None]
    values = np.where(early, trace.correlation.values, np.inf).min(axis=1)
    return np.where(early.any(axis=1), values, np.nan)


def change(residual: str) -> Measure:
    """Of the mean squared residual over the early stage."""
    return of_draws(at(residual, stage) - at(residual, 0))
