"""What is said of the traces of `Contest`, in the vocabulary of `latebloom.measures`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from latebloom.measures import Curve, Measure, measure
from latebloom.methods.schedules.contest_outcomes import pilot_norms, tuned
from latebloom.methods.schedules.refinement import Refinement, refine


def entry(family: str, what: str = "train_loss") -> Curve:
    """A family as it tuned better."""
    return Curve(f"{what} of {family}", lambda trace: trace[what].sel(cell=tuned(trace, family)))


def refined(text: str, of: Callable[[Refinement], float]) -> tuple[Measure, Measure]:
    """Of what each seed's run of linear decay refines to; and from its norms shuffled in time."""

    def each(trace: xr.Dataset) -> np.ndarray:
        return np.array([of(refine(row)) for row in pilot_norms(trace)])

    def shuffled(trace: xr.Dataset) -> np.ndarray:
        rows = enumerate(pilot_norms(trace))
        return np.array([of(refine(np.random.default_rng(i).permutation(row))) for i, row in rows])

    return Measure(text, each), Measure(f"{text} from shuffled norms", shuffled)


@measure("median norm of the first twentieth over the median norm")
def early_norms(trace: xr.Dataset) -> np.ndarray:
    norms = pilot_norms(trace)
    return np.median(norms[:, : norms.shape[1] // 20], axis=1) / np.median(norms, axis=1)
