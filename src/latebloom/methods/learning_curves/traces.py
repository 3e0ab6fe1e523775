"""Learning traces: the trends fitted to the first 3, 4, 5, ... observations of a learning curve.

Vilares Ferro, Darriba Bilbao, Ribadas Pena, "Modeling of learning curves with applications to POS
tagging" (Computer Speech and Language 41, 2017; arXiv 2402.02515).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latebloom.methods.learning_curves.trends import HIGHEST, Trends, fit

FEWEST = 3  # observations that a power law is fitted to
NEVER = -1


@dataclass(frozen=True)
class Frame:
    """What counts as settled.

    - `verticality` nu and `slowdown` zeta >= 1: the asymptotes of successive trends may differ by
      nu^(1/zeta) percentage points a word (a unit of size), for `lookahead` lambda levels further on.
    - `feasible`: percent that no asymptote may exceed.
    - `anchor_weight`: weight of the virtual observation at infinity, where one observation weighs 1.
    """

    verticality: float = 4e-5
    slowdown: float = 1.0
    lookahead: int = 5
    feasible: float = 100.0
    anchor_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (self.verticality > 0 and self.slowdown >= 1):
            raise ValueError(
                f"verticality must be positive and slowdown at least 1, not {self.verticality:g} "
                f"and {self.slowdown:g}"
            )
        if self.lookahead < 0 or self.anchor_weight < 0:
            raise ValueError("lookahead and anchor_weight must be 0 or more")

    @property
    def steepest(self) -> float:
        """Largest change of the asymptote allowed, percentage points a unit of size."""
        return self.verticality ** (1 / self.slowdown)


@dataclass(frozen=True)
class Trace:
    """The trends of runs that share their sizes. Level l (position l - 3) saw the first l observations.

    - `sizes` [n]; `scores` percent [runs, n]; `trends` [runs, n - 2].
    - `working`, `prediction` [runs]: positions of the working and prediction level, or `NEVER`.
    - `known`: position from which on the working level is known, for it looks ahead, or `NEVER`.
    """

    sizes: np.ndarray
    scores: np.ndarray
    trends: Trends
    working: np.ndarray
    prediction: np.ndarray
    known: np.ndarray

    @property
    def last_sizes(self) -> np.ndarray:
        """The largest size that each level saw [n - 2]."""
        return self.sizes[FEWEST - 1 :]

    @property
    def backbone(self) -> np.ndarray:
        """Asymptotes, percent [runs, n - 2]."""
        return self.trends.asymptote

    @property
    def convergence(self) -> np.ndarray:
        """Layers of convergence chi: what each trend says is still to be gained beyond the last size
        that it saw, percentage points [runs, n - 2]."""
        here = np.stack([
            self.trends[:, i](self.last_sizes[i : i + 1])[..., 0]
            for i in range(len(self.last_sizes))
        ], axis=-1)  # fmt: skip
        return np.abs(here - self.backbone)

    def stop(self, tau: float) -> np.ndarray:
        """First position [runs] where predictions count, the working level is known, and chi <= tau;
        `NEVER` if there is none."""
        places = np.arange(len(self.last_sizes))
        ready = (places >= np.maximum(self.prediction, self.known)[:, None]) & (
            self.prediction[:, None] != NEVER
        )
        return first(ready & (self.convergence <= tau))


def learning_trace(
    sizes: np.ndarray, scores: np.ndarray, *, frame: Frame | None = None, anchored: bool = True,
    highest: float = HIGHEST,
) -> Trace:  # fmt: skip
    """Fit power laws to the first 3, 4, ..., n observations of each run.

    - `sizes`: increasing [n], n >= 3. `scores`: percent [runs, n]; NaN where there is none.
    - `anchored`: from the level after the working level on, the asymptote of the level before counts
      as one more observation, at size infinity.

    Raises `ValueError` for fewer than three sizes or sizes that do not increase.
    """
    frame = frame or Frame()
    sizes, scores = np.asarray(sizes, float), np.atleast_2d(np.asarray(scores, float))
    if len(sizes) < FEWEST:
        raise ValueError(f"a trend needs {FEWEST} sizes, and there are {len(sizes)}")
    if not (np.diff(sizes) > 0).all():
        raise ValueError("sizes must increase")
    levels = np.arange(FEWEST, len(sizes) + 1)
    seen = np.where(np.arange(len(sizes)) < levels[:, None], 1.0, 0.0)  # [levels, n]
    every = np.repeat(scores[:, None], len(levels), axis=1)
    free = fit(sizes, every, weights=np.broadcast_to(seen, every.shape), highest=highest)
    working, known = working_level(sizes, free.c, frame, highest)
    trends = free
    if anchored:
        trends = _anchored(sizes, scores, free, working, frame, highest)
    prediction = prediction_level(trends.asymptote, working, frame)
    return Trace(sizes, scores, trends, working, prediction, known)


def working_level(
    sizes: np.ndarray, backbone: np.ndarray, frame: Frame, highest: float = HIGHEST
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [runs] of the working level and of the level at which it is known, or `NEVER`.

    The first level from which on, for `lookahead` + 1 steps, the asymptote moves no faster than the
    frame allows. `backbone`: [runs, n - 2], for the last of the n `sizes`. An asymptote at `highest`,
    the bound of the search, is held there by nothing that was measured: it has not settled.
    """
    steps = np.abs(np.diff(backbone)) / np.diff(sizes[FEWEST - 1 :])
    held = backbone >= highest * (1 - 1e-9)
    calm = (steps <= frame.steepest) & ~(held[:, 1:] | held[:, :-1])
    span = frame.lookahead + 1
    if calm.shape[1] < span:
        nowhere = np.full(len(calm), NEVER)
        return nowhere, nowhere
    runs = np.lib.stride_tricks.sliding_window_view(calm, span, axis=1).min(-1)
    working = first(runs)
    return working, np.where(working == NEVER, NEVER, working + span)


def prediction_level(backbone: np.ndarray, working: np.ndarray, frame: Frame) -> np.ndarray:
    """First position [runs] from the working level on with a feasible asymptote, or `NEVER`."""
    places = np.arange(backbone.shape[1])
    from_working = (places >= working[:, None]) & (working[:, None] != NEVER)
    return first(from_working & (backbone <= frame.feasible))


def first(where: np.ndarray) -> np.ndarray:
    """Position of the first true entry of each row [runs, levels], or `NEVER`."""
    return np.where(where.any(1), where.argmax(1), NEVER)


def _anchored(
    sizes: np.ndarray, scores: np.ndarray, free: Trends, working: np.ndarray, frame: Frame,
    highest: float,
) -> Trends:  # fmt: skip
    """Free trends up to the working level, then each anchored at the asymptote before it."""
    a, c, theta, cost = free.a.copy(), free.c.copy(), free.theta.copy(), free.cost.copy()
    for place in range(1, free.c.shape[1]):
        rows = np.flatnonzero((working != NEVER) & (place > working))
        if not len(rows):
            continue
        level = place + FEWEST
        now = fit(
            sizes[:level], scores[rows, :level], anchor=c[rows, place - 1],
            anchor_weight=frame.anchor_weight, highest=highest,
        )  # fmt: skip
        a[rows, place], c[rows, place], cost[rows, place] = now.a, now.c, now.cost
        theta[rows, place] = now.theta
    return Trends(free.family, free.scale, a, c, theta, cost)
