"""The log of one training run, made into a learning-rate schedule for the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from latebloom.methods.schedules.last_iterate_bound import optimal_rates, tail_weight_bound
from latebloom.methods.schedules.refinement import (
    Norm,
    Refinement,
    Template,
    fit_template,
    refine,
    stretched,
)
from latebloom.optim.schedules import cosine_decay, polynomial_decay, schedule_values

FEWEST = 20  # recorded steps


@dataclass(frozen=True)
class RefinedRun:
    """What a log came to.

    - `schedule`: one row a step: progress (share of the run), the multipliers `refined`, `template`,
      `linear`, `cosine`, and for L2 norms `optimal`, which minimises the last-iterate bound.
    - `recorded`, `dropped`: finite norms that were used, and entries that were not finite.
    - `start`, `end`: smoothed norm at the ends over its median.
    - `bound`: theory's bound for the refined schedule over that for linear decay, each at its best
      step size; None for L1 norms.
    """

    refinement: Refinement
    template: Template
    schedule: pd.DataFrame
    recorded: int
    dropped: int
    start: float
    end: float
    bound: float | None

    @property
    def spread(self) -> float:
        """Largest smoothed norm over the smallest; infinite where some are 0."""
        smoothed = self.refinement.smoothed
        return float(smoothed.max() / smoothed.min()) if smoothed.min() > 0 else float("inf")


def refine_run(
    log: pd.DataFrame, *, norm: Norm = "l2", steps: int | None = None, trim: int = 2,
    window: float = 0.1, floor: float = 0.0,
) -> RefinedRun:  # fmt: skip
    """Refine a schedule from a table with columns `step` and `grad_norm`.

    - `norm`: which norm the log holds, "l2" (SGD) or "l1" (Adam).
    - `steps`: length of the run to come; that of the log if not given.
    - `trim`: finite entries left out at both ends, where loggers often write odd ones.
    - `window`, `floor`: see `refine`.

    Entries that are missing or not finite (overflow in mixed precision) are left out.

    Raises `ValueError` for fewer than 20 usable entries, steps that do not increase, norms below 0,
    and settings out of range.
    """
    places = log["step"].to_numpy(np.float64)
    norms = log["grad_norm"].to_numpy(np.float64)
    finite = np.isfinite(norms)
    kept = slice(trim, int(finite.sum()) - trim)
    used, at = norms[finite][kept], places[finite][kept]
    if trim < 0 or len(used) < FEWEST:
        raise ValueError(
            f"{len(used)} finite norms are left after trimming {trim} at both ends, where at least "
            f"{FEWEST} are needed"
        )
    refinement = refine(used, norm=norm, places=at, window=window, floor=floor)
    template = fit_template(refinement.schedule)
    length = round(at[-1] - at[0]) + 1 if steps is None else steps
    smoothed, bound = refinement.smoothed, None
    if norm == "l2" and smoothed.min() > 0:
        linear = tail_weight_bound(np.ones_like(smoothed), smoothed)
        bound = tail_weight_bound(smoothed**-2.0, smoothed) / linear
    start, end = smoothed[[0, -1]] / np.median(smoothed)
    return RefinedRun(
        refinement, template, _schedule(refinement, template, length, bound is not None),
        len(used), int((~finite).sum()), float(start), float(end), bound,
    )  # fmt: skip


def _schedule(
    refinement: Refinement, template: Template, steps: int, optimal: bool
) -> pd.DataFrame:
    table = {
        "step": np.arange(steps),
        "progress": np.arange(1, steps + 1) / steps,
        "refined": refinement.over(steps),
        "template": template.over(steps),
        "linear": schedule_values(polynomial_decay(), steps),
        "cosine": schedule_values(cosine_decay(), steps),
    }
    if optimal:
        rates, _ = optimal_rates(refinement.smoothed)
        table["optimal"] = stretched(rates / rates.max(), steps)
    return pd.DataFrame({name: np.asarray(values) for name, values in table.items()})
