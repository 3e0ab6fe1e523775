"""What happens around the switches of tasks: accuracies and gradients laid over each other.

A trace is one of `continual.Continual` that tells both gradients and was observed after every update, its borders
at the same steps in all seeds. Measures are [seed], means over the borders; seeds that have diverged have NaN.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from latebloom.methods.forgetting.course import course_of, diverged, of_the_living


def ends_of_tasks(trace: xr.Dataset) -> Int[np.ndarray, " stretch"]:
    """The step after which each task is over, the last included.

    Raises `ValueError` where an update was not observed, or seeds differ.
    """
    course = course_of(trace)
    ends = course.steps[course.ends]
    if (np.diff(course.steps, prepend=-1) != 1).any() or (ends != ends[:1]).any():
        raise ValueError(
            "what happens around switches needs every update observed, and the same borders in all seeds"
        )
    return ends[0]


def aligned(trace: xr.Dataset, before: int = 20, after: int = 60) -> xr.Dataset:
    """Around switches, at step 0, mean over them [seed, step]: `plasticity`, `stability`, and `change` of the accuracy
    on the task just finished since its end."""
    seeds, dead = trace.seed, diverged(trace)
    if dead.all():
        steps = np.arange(-before, after + 1)
        unknown = (("seed", "step"), np.full((len(seeds), len(steps)), np.nan))
        names = ("change", "plasticity", "stability")
        return xr.Dataset(
            dict.fromkeys(names, unknown), {"seed": seeds, "step": steps}, trace.attrs
        )
    trace = trace.isel(seed=~dead)
    course, ends = course_of(trace), ends_of_tasks(trace)
    lengths = np.diff(ends, prepend=0)
    before, after = min(before, lengths[:-1].min()), min(after, lengths[1:].min())
    rows = ends[:-1, None] + np.arange(-before, after + 1)
    finished = np.stack(
        [course.accuracy[course.rows, row, task[:, None]]
         for row, task in zip(rows, course.order.T[:-1], strict=True)], axis=1,
    )  # fmt: skip
    found = {"change": finished - finished[:, :, [before]]}
    found |= {name: _norms(trace, name)[:, rows] for name in ("plasticity", "stability")}
    means = {name: (("seed", "step"), values.mean(axis=1)) for name, values in found.items()}
    steps = np.arange(-before, after + 1)
    living = xr.Dataset(means, {"seed": trace.seed, "step": steps}, trace.attrs)
    return living.reindex(seed=seeds)


@of_the_living
def gradient_ratio(trace: xr.Dataset, first: int, last: int) -> xr.DataArray:
    """|gradient that keeps the old| / |gradient that learns the new|, of `first` to `last` updates after a switch.

    Those beyond the end of a task are its last.
    """
    ends = ends_of_tasks(trace)
    since = np.minimum(np.arange(first, last + 1), np.diff(ends).min())
    return _ratio(trace, ends[:-1, None] + np.unique(since))


@of_the_living
def late_gradient_ratio(trace: xr.Dataset, share: float = 0.2) -> xr.DataArray:
    """`gradient_ratio` in the last `share` of each task but the first."""
    ends = ends_of_tasks(trace)
    length = np.diff(ends).min()
    return _ratio(trace, ends[1:, None] - np.arange(int(length * share), -1, -1))


@of_the_living
def unsettled(trace: xr.Dataset, updates: int = 10) -> xr.DataArray:
    """Gradient on a task in its last updates over that on the next one at its first.

    0 where each task ends in a minimum of its loss, 1 where the next one is no news.
    """
    ends = ends_of_tasks(trace)
    new = _norms(trace, "plasticity")
    updates = min(updates, np.diff(ends, prepend=0).min() - 1)
    before = new[:, ends[:-1, None] - np.arange(updates)].mean(axis=-1)
    return _a_seed(trace, before / new[:, ends[:-1] + 1])


@of_the_living
def rise(trace: xr.Dataset, updates: int = 50, *, late: bool = False) -> xr.DataArray:
    """Norm of the gradient that keeps the old over its peak in so many updates from there on.

    At the first update after a switch, or, if `late`, so many before a task is over, where nothing rises.
    """
    ends = ends_of_tasks(trace)
    updates = min(updates, np.diff(ends).min() - 1)
    first = ends[1:] - updates if late else ends[:-1] + 1
    kept = _norms(trace, "stability")[:, first[:, None] + np.arange(updates)]
    return _a_seed(trace, kept[:, :, 0] / kept.max(axis=-1))


def _norms(trace: xr.Dataset, name: str) -> Float[np.ndarray, "seed step"]:
    if name not in trace:
        raise ValueError(f"the trace has no {name!r}: let the process tell it (tell=True)")
    return trace[name].transpose("seed", "step").values


def _ratio(trace: xr.Dataset, rows: Int[np.ndarray, "border k"]) -> xr.DataArray:
    old, new = (_norms(trace, name)[:, rows].mean(axis=-1) for name in ("stability", "plasticity"))
    return _a_seed(trace, old / new)


def _a_seed(trace: xr.Dataset, values: Float[np.ndarray, "seed border"]) -> xr.DataArray:
    return xr.DataArray(values.mean(axis=1), {"seed": trace.seed.values}, ("seed",))
