"""A learning-rate schedule made for one problem, from the gradient norms of an earlier run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage, optimize

from latebloom.optim.schedules import polynomial_decay, schedule_values

Norm = Literal["l1", "l2"]
POWER = {"l1": -1.0, "l2": -2.0}  # of the norm, in the weight of a step
LEAST = 1e-6  # norms below this share of the largest count as this much


@dataclass(frozen=True)
class Refinement:
    """A refined schedule and what it was made from, all evenly spaced over the run.

    - `norms`, `smoothed`: gradient norms as recorded (resampled) and after the median filter.
    - `schedule`: multipliers of the peak learning rate; the highest is 1, the last 0.
    """

    norms: np.ndarray
    smoothed: np.ndarray
    schedule: np.ndarray

    def over(self, steps: int) -> np.ndarray:
        """The schedule stretched to a run of that many steps."""
        return stretched(self.schedule, steps)

    @property
    def peak_at(self) -> float:
        """Share of the run at which the schedule is highest: how long it warms up."""
        return float(np.argmax(self.schedule) / (len(self.schedule) - 1))


@dataclass(frozen=True)
class Template:
    """Linear warm-up over a share of the run, then (1 - s)^power; `error` is the RMS distance."""

    warmup: float
    power: float
    error: float

    def over(self, steps: int) -> np.ndarray:
        """The multipliers of a run of that many steps."""
        return np.asarray(schedule_values(polynomial_decay(self.power), steps, self.warmup))


def refine(
    norms: np.ndarray | Sequence[float], *,
    norm: Norm = "l2",
    places: np.ndarray | Sequence[float] | None = None,
    points: int = 10_000, window: float = 0.1, floor: float = 0.0,
) -> Refinement:  # fmt: skip
    """The schedule w_t * sum_{p > t} w_p with weights from smoothed gradient norms of one run.

    - `norms`: of the mini-batch gradient at every recorded step, without clipping and weight decay.
    - `norm`: "l2" for SGD (w = norm^-2), "l1" for Adam and its kin (w = norm^-1).
    - `places`: the steps at which they were recorded, increasing; evenly spaced if not given.
    - `points`: a shorter record is interpolated to this many points; a longer one keeps its length.
    - `window`: share of the run that the median filter spans.
    - `floor`: smoothed norms below this quantile are raised to it. Where the norms of a run fall
      to nothing at its end, their weights would else swallow the whole schedule. (Norms below a
      millionth of the largest count as that in any case.)

    Raises `ValueError` for norms that are not finite, negative or fewer than 10, that are mostly
    0, places that do not increase, and settings out of range.

    Source: Defazio et al. 2023 (arXiv 2310.07831), Algorithm 1 and the authors' code.
    """
    given = _checked(norms, points, window, floor, norm)
    if places is None:
        x = np.linspace(0, 1, len(given))
    else:
        x = np.asarray(places, np.float64)
        if x.shape != given.shape or (np.diff(x) <= 0).any():
            raise ValueError("places must be increasing, one for each norm")
        x = (x - x[0]) / (x[-1] - x[0])
    recorded = np.interp(np.linspace(0, 1, max(points, len(given))), x, given)
    smoothed = median_smooth(recorded, window)
    if floor:
        smoothed = np.maximum(smoothed, np.quantile(smoothed, floor))
    if not smoothed.max() > 0:
        raise ValueError("the gradient norms are mostly 0: there is nothing to refine from")
    weights = np.maximum(smoothed / smoothed.max(), LEAST) ** POWER[norm]
    return Refinement(recorded, smoothed, tail_schedule(weights))


def tail_schedule(weights: np.ndarray) -> np.ndarray:
    """w_t * sum_{p > t} w_p over its highest value: the step sizes of weighted gradient descent."""
    later = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)
    schedule = weights * later
    return schedule / schedule.max()


def median_smooth(values: np.ndarray, window: float = 0.1) -> np.ndarray:
    """Running median over a share `window` of the values (an odd count).

    Past the right end the values are mirrored, so that a trend at the end of a run survives; past
    the left end the first one is repeated, so that the large norms of the first steps do not.
    """
    width = 2 * (int(window * len(values)) // 2) + 1
    mirrored = np.pad(values, (0, 2 * width), mode="reflect")
    return ndimage.median_filter(mirrored, size=width, mode="nearest")[: len(values)]


def stretched(values: np.ndarray, steps: int) -> np.ndarray:
    """Evenly spaced values, interpolated to another number of steps; the ends stay the ends.

    Raises `ValueError` for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, not {steps}")
    return np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(values)), values)


def fit_template(schedule: np.ndarray, points: int = 500) -> Template:
    """The warm-up share and decay power whose template is nearest to a schedule in least squares.

    A grid over both, then a simplex search from its best cell.

    Raises `ValueError` for a schedule that is not finite, negative, or has no values above 0.
    """
    values = np.asarray(schedule, np.float64)
    if values.ndim != 1 or len(values) < 10 or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("a schedule must be at least 10 finite numbers of at least 0")
    if not values.max() > 0:
        raise ValueError("a schedule must rise above 0 somewhere")
    target = stretched(values / values.max(), points)
    s = np.linspace(0, 1, points)

    def distance(place: np.ndarray) -> float:
        warmup, power = np.clip(place[0], 0, 0.99), np.clip(place[1], 0.05, 20)
        outside = np.abs(place - [warmup, power]).sum()
        return float(np.mean((_template(s, warmup, power) - target) ** 2) + outside)

    grid = [np.array([w, p]) for w in np.arange(0, 0.99, 0.02) for p in np.geomspace(0.1, 10, 41)]
    start = min(grid, key=distance)
    corners = start + np.array([[0, 0], [0.02, 0], [0, 0.1]])
    found = optimize.minimize(
        distance, start, method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-12, "initial_simplex": corners},
    )  # fmt: skip
    best = min(found.x, start, np.array([0.0, found.x[1]]), key=distance)
    return Template(float(best[0]), float(best[1]), float(np.sqrt(distance(best))))


def made_up_norms(points: int = 2000) -> dict[str, np.ndarray]:
    """The paper's four made-up curves of gradient norms [points], by what they do."""
    x, knots = np.linspace(0, 1, points), [0, 0.003, 0.02, 0.03, 0.1, 1]
    heights = {
        "constant": [1] * 6, "large at first": [15, 6, 4, 2, 1, 1],
        "and rising later": [15, 6, 4, 2, 1, 2], "and falling later": [15, 6, 4, 2, 1, 0.7],
    }  # fmt: skip
    return {
        title: ndimage.gaussian_filter1d(np.interp(x, knots, h), points / 50, mode="nearest")
        for title, h in heights.items()
    }


def _template(s: np.ndarray, warmup: float, power: float) -> np.ndarray:
    left = np.clip((1 - s) / (1 - warmup), 0, 1)
    return np.where(s < warmup, s / max(warmup, 1e-9), left**power)


def _checked(
    norms: np.ndarray | Sequence[float], points: int, window: float, floor: float, norm: str
) -> np.ndarray:
    given = np.asarray(norms, np.float64)
    if given.ndim != 1 or len(given) < 10:
        raise ValueError(f"norms must be a row of at least 10 numbers, not {given.shape}")
    if not np.isfinite(given).all() or (given < 0).any():
        raise ValueError("gradient norms must be finite and not negative: drop overflowed steps")
    if norm not in POWER:
        raise ValueError(f"norm must be 'l1' or 'l2', not {norm!r}")
    if points < 10 or not 0 < window < 1 or not 0 <= floor < 1:
        raise ValueError(
            f"points must be at least 10, window in (0, 1) and floor in [0, 1), not {points}, "
            f"{window:g} and {floor:g}"
        )
    return given
