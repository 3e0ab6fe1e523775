"""What is said of the traces of `Exams`, in the vocabulary of `latebloom.measures`: effects in percentage points.

Cells, ways of learning and arms are called as in the plan of the exams.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr

from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    chosen,
    effect,
    final,
    mean,
    measure,
)


def accuracy(name: str, arm: str) -> Effect:
    """Per cent of the targets of a cell."""
    return 100 * final("accuracy", cell=name)[arm]


def corrupted_at(name: str, arm: str, kinds: Iterable[str], fraction: float) -> Effect:
    """Per cent of the targets of a cell with a fraction of each lost, mean over kinds of corruption."""
    return mean(100 * _robust(name, kind, fraction)[arm] for kind in kinds)


def _robust(name: str, kind: str, fraction: float) -> Measure:
    @measure(f"accuracy of {name} with {fraction:.0%} {kind}")
    def found(trace: xr.Dataset) -> np.ndarray:
        values = trace.robust.sel(asked=name, kind=kind, fraction=fraction, method=None)
        return values.isel(step=-1).values

    return found


def drop(name: str, arm: str, kinds: Iterable[str], fraction: float = 0.5) -> Effect:
    """What corruption costs."""
    kinds = tuple(kinds)
    return corrupted_at(name, arm, kinds, 0.0) - corrupted_at(name, arm, kinds, fraction)


def lost_share(name: str, arm: str, kinds: Iterable[str], chance: float, fraction: float = 0.5) -> Effect:  # fmt: skip
    """What corruption costs, as a share of what was known above `chance` (per cent): 1 leaves a guess."""
    kinds = tuple(kinds)
    return drop(name, arm, kinds, fraction) / (corrupted_at(name, arm, kinds, 0.0) - chance)


def leak(name: str, arm: str, less: str) -> Effect:
    """Accuracy by the statistics of the whole target batch less that by others."""
    both = [100 * final("leak", leaking=name, statistics=s)[arm] for s in ("batch", less)]
    return both[0] - both[1]


def recency(name: str, arm: str, last: int) -> Effect:
    """Accuracy on the classes of the `last` support set (from 0) less that on those of the first."""
    early, late = (100 * final("by_set", ordered=name, set=s)[arm] for s in (0, last))
    return late - early


def above_chance(how: str, arm: str, classes: Sequence[int]) -> list[Effect]:
    """Accuracy along the course after each check, of so many `classes`: 1 is perfect and 0 chance."""
    found = [final("course", how=how, check=i)[arm] for i in range(len(classes))]
    return [(f - 1 / n) / (1 - 1 / n) for f, n in zip(found, classes, strict=True)]


def trend_by_lot(effects: Sequence[Effect], arm: str) -> Effect:
    """Rank correlation of effects with their order, once that is drawn by lot: a null."""

    @effect("the same with checks in an order by lot", arm)
    def found(traces: Traces) -> np.ndarray:
        values = np.stack([e(traces) for e in effects], axis=1)
        mixed = np.random.default_rng(0).permuted(values, axis=1)
        return np.array([np.corrcoef(np.argsort(np.argsort(v)), np.arange(len(v)))[0, 1] for v in mixed])  # fmt: skip

    return found


def spread(names: Sequence[str], arm: str, *, by_lot: bool = False) -> Effect:
    """The best cell less the worst, both as chosen on the other seeds; `by_lot`: with cells in an order by lot in
    each seed, a null."""
    cells = [accuracy(name, arm) for name in names]
    if by_lot:
        cells = [_by_lot(cells, place, arm) for place in range(len(cells))]
    return chosen(cells) - chosen(cells, lowest=True)


def by_lot(effects: Sequence[Effect], arm: str) -> list[Effect]:
    """The same effects in an order by lot in each seed, each in one place: of what has no order, a null."""
    return [_by_lot(effects, place, arm) for place in range(len(effects))]


def _by_lot(cells: Sequence[Effect], place: int, arm: str) -> Effect:
    """In each seed any of the cells, and each of them in one place."""

    @effect(f"cell {place} by lot", arm)
    def found(traces: Traces) -> np.ndarray:
        values = np.stack([cell(traces) for cell in cells], axis=1)
        return np.random.default_rng(0).permuted(values, axis=1)[:, place]

    return found
