"""Forecasts of accuracy at larger sizes: the anchored trend, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from latebloom.methods.learning_curves.traces import Frame, learning_trace
from latebloom.methods.learning_curves.trends import FAMILIES, Trends, fit

MIXED = ("power", "exponential", "mmf", "weibull")
Forecast = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def last_value(sizes: np.ndarray, scores: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The last score that is known, for ever."""
    n = len(sizes)
    last = n - 1 - np.isfinite(scores)[:, ::-1].argmax(1)
    return np.repeat(scores[np.arange(len(scores)), last][:, None], len(at), axis=1)


def extrapolated(
    sizes: np.ndarray, scores: np.ndarray, at: np.ndarray, *, family: str = "power", power: float = 0.0
) -> np.ndarray:  # fmt: skip
    """Least-squares curve of a family; squared residuals weigh size to the `power`."""
    weights = (sizes / sizes[-1]) ** power
    return fit(sizes, scores, family=family, weights=weights)(at)


def by_trace(
    sizes: np.ndarray, scores: np.ndarray, at: np.ndarray, *, anchored: bool = True,
    frame: Frame | None = None,
) -> np.ndarray:  # fmt: skip
    """The last trend of the learning trace."""
    trace = learning_trace(sizes, scores, frame=frame, anchored=anchored)
    return trace.trends[:, -1](at)


def resampled_trends(
    sizes: np.ndarray, scores: np.ndarray, draws: int, seed: int = 0, family: str = "power"
) -> Trends:
    """Curves [runs, draws] fitted to observations drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(sizes)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    known = np.isfinite(scores)
    weights = np.where((known[:, None] * weights).any(-1, keepdims=True), weights, 1.0)
    many = np.repeat(scores[:, None], draws, axis=1)
    return fit(sizes, many, family=family, weights=np.broadcast_to(weights, many.shape))


def ensemble(
    sizes: np.ndarray, scores: np.ndarray, at: np.ndarray, *, draws: int = 40
) -> np.ndarray:
    """Median of power laws fitted to observations drawn with replacement."""
    return np.median(resampled_trends(sizes, scores, draws)(at), axis=1)


def bayesian(
    sizes: np.ndarray, scores: np.ndarray, at: np.ndarray, *, families: tuple[str, ...] = MIXED
) -> np.ndarray:
    """Posterior mean over families and shapes, in the manner of Domhan, Springenberg and Hutter (2015).

    a, c and the noise are integrated out in closed form under flat priors, log(noise) included; shapes
    lie on each family's grid, with equal prior weight on families. Shapes whose best a is negative or
    whose asymptote exceeds 100 % are left out.
    """
    values, logs = zip(*(_posterior(family, sizes, scores, at) for family in families), strict=True)
    values, logs = np.concatenate(values, 1), np.concatenate(logs, 1)
    nothing = logs.max(1) == -np.inf
    logs[nothing] = 0.0
    weight = np.exp(logs - logs.max(1, keepdims=True))
    mean = np.einsum("pk,pkm->pm", weight, values) / weight.sum(1, keepdims=True)
    return np.where(nothing[:, None], last_value(sizes, scores, at), mean)


def _posterior(
    name: str, sizes: np.ndarray, scores: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions [P, K, m] of each shape of a family, and their log evidence [P, K]."""
    family = FAMILIES[name]
    ranges = zip(family.low, family.high, strict=True)
    axes = [np.geomspace(low, high, family.grid) for low, high in ranges]
    theta = [axis.reshape(-1, 1) for axis in np.meshgrid(*axes, indexing="ij")]
    shape, ahead = (family.shape(np.asarray(x) / sizes.min(), *theta) for x in (sizes, at))
    known = np.isfinite(scores).astype(float)
    y = np.where(known > 0, scores, 0.0)
    n = known.sum(1, keepdims=True)
    mean_y = (known * y).sum(1, keepdims=True) / n
    mean = known @ shape.T / n
    ss = known @ (shape**2).T - n * mean**2
    sy = (known * (y - mean_y)) @ shape.T
    a = -sy / np.maximum(ss, 1e-300)
    c = mean_y + a * mean
    left = (known * (y - mean_y) ** 2).sum(1, keepdims=True) - sy**2 / np.maximum(ss, 1e-300)
    left = np.maximum(left, 1e-6 * n)  # scores are not known better than to 0.001 points
    log = -0.5 * np.log(n * np.maximum(ss, 1e-300)) - 0.5 * (n - 2) * np.log(left)
    usable = (a > 0) & (c <= 100) & (c > 0) & (ss > 1e-12)
    log = np.where(usable, log - np.log(len(shape)), -np.inf)
    return c[..., None] - a[..., None] * ahead, log


FORECASTS: dict[str, Forecast] = {
    "anchored": by_trace,
    "power": partial(extrapolated, family="power"),
    "weighted": partial(extrapolated, family="power", power=1.0),
    "ensemble": ensemble,
    "bayesian": bayesian,
    "pow4": partial(extrapolated, family="pow4"),
    "mmf": partial(extrapolated, family="mmf"),
    "weibull": partial(extrapolated, family="weibull"),
    "exponential": partial(extrapolated, family="exponential"),
    "logarithmic": partial(extrapolated, family="logarithmic"),
    "last": last_value,
}


def stop_by_gain(
    sizes: np.ndarray, scores: np.ndarray, least: float, unit: float = 1000.0
) -> np.ndarray:
    """First position [runs] in `sizes` at which a step gained less than `least` points per `unit`
    words, or -1."""
    gain = np.diff(scores, axis=1) / np.diff(sizes) * unit
    return _after(gain < least)


def stop_by_change(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """First position [runs] at which two scores in a row differ by less than `epsilon`, or -1."""
    return _after(np.abs(np.diff(scores, axis=1)) < epsilon)


def _after(small: np.ndarray) -> np.ndarray:
    return np.where(small.any(1), small.argmax(1) + 1, -1)
