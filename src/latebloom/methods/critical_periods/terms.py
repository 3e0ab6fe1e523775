"""What is said of traces of pathways, modes and products, in the vocabulary of `latebloom.measures`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from latebloom.measures import Curve, Measure, measure
from latebloom.methods.critical_periods.modes import final_dominance
from latebloom.methods.critical_periods.sensitivity import lasting_harm


def of_case(case: int) -> Measure:
    """Final dominance of pathway a in a case of `ModeCompetition`."""
    return Measure(f"final dominance in case {case}", lambda trace: final_dominance(trace)[:, case])


def due(case: int, without: int = 2) -> Measure:
    """Dominance with a deficit minus that of the case without, from the same starts."""
    return of_case(case) - of_case(without)


def gap(ode: str, s: np.ndarray) -> Curve:
    """Largest |K - K of the ODE| / s over modes, of singular values `s`, and pathways of `TwoPathways`."""

    def of(trace: xr.Dataset) -> np.ndarray:
        apart = np.abs(trace.strength - trace[ode]).transpose("seed", "step", "path", "mode")
        return (apart.values / s).max(axis=(2, 3))

    return Curve(f"distance from {ode} / s", of)


@measure("mean distance of the singular values from where they start / largest")
def at_rest(trace: xr.Dataset) -> np.ndarray:
    """How far a `SpectralFlow` is from an equation in which nothing moves."""
    found = trace.descent.transpose("seed", "step", "rank").values
    return (np.abs(found - found[:, :1]).max(axis=2) / found[:, :, 0]).mean(axis=1)


def first_over_last(pathway: int) -> Measure:
    """Share of the fit that the first onset of `DeprivedTraining` costs a pathway, minus that of the last."""

    def of(trace: xr.Dataset) -> np.ndarray:
        lost = lasting_harm(trace, pathway, "share")
        return lost[:, 0] - lost[:, -1]

    return Measure("share of the fit that the first onset costs b, minus that of the last", of)
