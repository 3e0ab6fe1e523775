"""The best place on a grid of settings, by going to the best neighbour until none is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Climbed:
    """Where a climb ended.

    - `best`: its settings; `score`: what they scored.
    - `tried`: the score of all that were tried, NaN for one that failed.
    - `on_edge`: for each grid of several values, whether the best is its first or last.
    """

    best: tuple[float, ...]
    score: float
    tried: dict[tuple[float, ...], float]
    on_edge: tuple[bool, ...]


def climb(
    score: Callable[..., float], grids: Sequence[Sequence[float]], start: Sequence[float]
) -> Climbed:
    """Climbs from `start`, whose value of each grid is one of the grid's; NaN is worse than anything.

    Neighbours differ in one setting, by one place. The first of equals is kept.

    Raises `ValueError` for a start that is not on the grid.
    """
    lost = [
        i for i, (grid, value) in enumerate(zip(grids, start, strict=True)) if value not in grid
    ]
    if lost:
        raise ValueError(f"the start {start[lost[0]]} is not among {list(grids[lost[0]])}")
    known: dict[tuple[int, ...], float] = {}

    def at(place: tuple[int, ...]) -> float:
        if place not in known:
            known[place] = float(score(*(g[i] for g, i in zip(grids, place, strict=True))))
        return known[place] if np.isfinite(known[place]) else -np.inf

    place = tuple(list(grid).index(value) for grid, value in zip(grids, start, strict=True))
    while True:
        moves = [(i, by) for i in range(len(grids)) for by in (-1, 1)]
        near = [(*place[:i], place[i] + by, *place[i + 1 :]) for i, by in moves]
        near = [n for n in near if all(0 <= j < len(g) for g, j in zip(grids, n, strict=True))]
        best = max(near, key=at, default=place)
        if not at(best) > at(place):
            break
        place = best
    tried = {tuple(g[i] for g, i in zip(grids, p, strict=True)): v for p, v in known.items()}
    edge = tuple(len(g) > 1 and i in (0, len(g) - 1) for g, i in zip(grids, place, strict=True))
    return Climbed(
        tuple(g[i] for g, i in zip(grids, place, strict=True)), known[place], tried, edge
    )
