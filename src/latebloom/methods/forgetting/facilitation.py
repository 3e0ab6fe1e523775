"""Forward facilitation: whether later tasks are learned faster than earlier ones.

Source: Gandhi, Shah, Marupudi, Varma 2024 (arXiv 2401.10393), who ask for it in rehearsal by age.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import numpy as np
import xarray as xr
from jaxtyping import Float, Int, PRNGKeyArray

from latebloom.core.stream import Stream
from latebloom.core.training import trainable
from latebloom.methods.forgetting.continual import Continual, ContinualState
from latebloom.methods.forgetting.method import Method


class Restarted(Continual):
    """Each task is learned by the network of the start, which has learned no other: what facilitation is
    measured against. Without a method, which would have nothing to keep.

    Raises `ValueError` for a method or a memory.
    """

    def _check(self, stream: Stream) -> None:
        super()._check(stream)
        if type(self.method) is not Method or self.replay is not None:
            raise ValueError(
                "a network that starts anew keeps nothing: give it Method() and no replay"
            )

    def init(self, key: PRNGKeyArray) -> ContinualState:
        state = super().init(key)
        return state._replace(own=eqx.filter(state.model, eqx.is_array))

    def turns(self) -> tuple[int, ...]:
        return self.starts[1:]

    def turn(self, state: ContinualState) -> ContinualState:
        model = eqx.combine(state.own, state.model)
        moments = self.optimiser(**self.hyper).init(trainable(model))
        return state._replace(model=model, optimiser=moments)


def updates_to_criterion(
    trace: xr.Dataset,
    starts: Sequence[int] | Int[np.ndarray, " task"],
    within: int,
    share: float = 0.85,
) -> Float[np.ndarray, "seed task"]:
    """How many updates each task takes to a share of the accuracy that the first task reached.

    - `trace`: `accuracy` [seed, step, task], as of `continual.Continual`; `starts`: the step before each task's
      first update; `within`: so many updates belong to each task alone, after which the first task's accuracy
      counts.

    Between two evaluations on a straight line, at least 1; `within` where it does not get there, a lower bound;
    NaN for a seed that has diverged (coordinate `diverged_at`, see `latebloom.unfold`).
    Raises `ValueError` where a task was not evaluated within its updates, or the first not after them.
    """
    steps = trace.step.values
    values = trace.accuracy.transpose("seed", "task", "step").values.astype(float)
    if len(starts) != values.shape[1]:
        raise ValueError(f"starts must be one step for each of the {values.shape[1]} tasks, not {len(starts)}")  # fmt: skip
    at = np.flatnonzero(steps == starts[0] + within)
    if not len(at):
        raise ValueError(f"the first task must be evaluated at step {starts[0] + within}")
    lost = trace["diverged_at"].values >= 0 if "diverged_at" in trace.coords else np.zeros(len(values), bool)  # fmt: skip
    level = share * values[:, 0, at[0]]
    found = np.full(values.shape[:2], float(within))
    found[lost] = np.nan
    for task, start in enumerate(starts):
        inside = (steps >= start) & (steps <= start + within)
        x, lines = (steps[inside] - start).astype(float), values[:, task, inside]
        if not len(x) or np.isnan(lines[~lost]).any():
            raise ValueError(f"task {task} must be evaluated from step {start} to {start + within}")
        for seed in np.flatnonzero(~lost):
            line = lines[seed]
            reached = np.flatnonzero(line >= level[seed])
            if not len(reached):
                continue
            k = reached[0]
            step = x[k]
            if k:
                step = np.interp(level[seed], line[k - 1 : k + 1], x[k - 1 : k + 1])
            found[seed, task] = max(step, 1.0)
    return found


def slope_of_updates(updates: Float[np.ndarray, "seed task"]) -> Float[np.ndarray, " seed"]:
    """The slope of log updates on the number of the task: below 0 where later tasks are learned faster."""
    y = np.log(updates)
    found, known = np.full(len(y), np.nan), np.isfinite(y).all(axis=1)
    found[known] = np.polyfit(np.arange(y.shape[1]), y[known].T, 1)[0] if known.any() else np.nan
    return found


def later_updates(updates: Float[np.ndarray, "seed task"]) -> Float[np.ndarray, " seed"]:
    """Log updates of the last quarter of tasks, at least one, minus those of the first."""
    y = np.log(updates)
    return y[:, -max(y.shape[1] // 4, 1) :].mean(axis=1) - y[:, 0]
