"""What is said of the traces of `ConceptSpace`, in the vocabulary of `latebloom.measures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    combined,
    curve,
    derived,
    measure,
    seedwise,
    spearman,
)
from latebloom.methods.grokking.concept_space.trajectory import (
    learning_time,
    signed_area,
    smooth,
    turning_point,
)


def unseen(name: str, concept: str, combination: str = "11") -> Curve:
    """On a combination of concepts that was never seen."""
    return curve(name, **{"class": combination, "concept": concept})


def best_of(name: str) -> Curve:
    """Of the variants of an intervention, at each checkpoint."""
    return Curve(f"best {name}", lambda trace: trace[name].max(str(trace[name].dims[-1])))


def smoothed(line: Curve) -> Curve:
    """As curves are before they are judged, see `smooth`."""
    return Curve(f"smooth {line.text}", lambda trace: np.stack([smooth(v) for v in line(trace).values]))  # fmt: skip


def learned(line: Curve, threshold: float = 0.9, never: Literal["end", "nan"] = "end") -> Measure:
    """Learning time of each seed's curve; the last step (or NaN) where it is not reached."""

    @seedwise(f"learning time of {line.text}", line)
    def time(steps: np.ndarray, values: np.ndarray) -> float:
        found = learning_time(steps, values, threshold=threshold)
        return steps[-1] if np.isnan(found) and never == "end" else found

    return time


def apart(of: Measure) -> Measure:
    """How far each seed is from the mean over seeds."""

    @measure(f"deviation of {of.text} from its mean")
    def deviation(trace: xr.Dataset) -> np.ndarray:
        values = of(trace)
        return np.abs(values - values.mean())

    return deviation


def order(levels: Sequence[float], effects: Sequence[Effect]) -> Effect:
    """Rank correlation; 0 where the effects do not vary, as that shows no order."""
    return combined("0 if none", np.nan_to_num, spearman(levels, effects))


plain = curve("accuracy", **{"class": "11"})
"""Of the plain prompt on the unseen class of two concepts."""


@derived("accuracy on the worst class seen in training")
def worst_seen(trace: xr.Dataset) -> np.ndarray:
    return trace.accuracy.values[..., trace["class"].str.count("1").values <= 1].min(2)


PATH = unseen("probability", "colour"), unseen("probability", "size")
"""Coordinates of the unseen class of two concepts."""


@seedwise("signed area of the unseen class's path", *map(smoothed, PATH))
def bend(steps: np.ndarray, colour: np.ndarray, size: np.ndarray) -> float:
    """Positive where the colour is ahead, see `signed_area`."""
    return signed_area(np.stack([colour, size], axis=1))


@seedwise("sharpest turn of the unseen class's path", *PATH)
def turn(steps: np.ndarray, colour: np.ndarray, size: np.ndarray) -> float:
    return turning_point(steps, np.stack([colour, size], axis=1))


def target_path(trace: xr.Dataset) -> Float[np.ndarray, "seed step 2"]:
    """Smoothed trajectory of the unseen class of two concepts."""
    return np.stack([smoothed(line)(trace).values for line in PATH], axis=2)
