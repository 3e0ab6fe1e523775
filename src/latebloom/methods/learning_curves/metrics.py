"""How good forecasts are: percentage error, decision-making reliability, robustness rate."""

from __future__ import annotations

import numpy as np


def percentage_error(forecast: np.ndarray, real: np.ndarray) -> np.ndarray:
    """100 |forecast - real| / real, of the same shape; its mean over control levels is the MAPE."""
    return 100 * np.abs(np.asarray(forecast) - real) / real


def mape(forecast: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Mean absolute percentage error over the control levels, the last axis."""
    return percentage_error(forecast, real).mean(-1)


def reliability(forecast: np.ndarray, real: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Decision-making reliability: percent of pairs of learners, over all control levels, whose order
    was forecast rightly [...].

    - `forecast`, `real`: [..., learners, control levels].
    - `margin`: real differences of at most so many points are ties, which no forecast gets wrong.

    Raises `ValueError` for fewer than two learners.
    """
    forecast, real = np.asarray(forecast, float), np.asarray(real, float)
    if real.shape[-2] < 2:
        raise ValueError("to rank learners takes at least two of them")
    one, other = np.triu_indices(real.shape[-2], 1)
    said = np.sign(forecast[..., one, :] - forecast[..., other, :])
    apart = real[..., one, :] - real[..., other, :]
    right = (said == np.sign(apart)) | (np.abs(apart) <= margin)
    return 100 * right.mean((-2, -1))


def robustness(backbone: np.ndarray, start: int, end: int) -> float:
    """Percent of steps of the asymptote, from position `start` to `end`, that do not go up.

    `backbone`: [levels]. NaN if there is no step.
    """
    steps = np.diff(np.asarray(backbone, float)[start : end + 1])
    return float(100 * np.mean(steps <= 0)) if len(steps) else float("nan")


def mean_of_some(*rows: np.ndarray) -> np.ndarray:
    """Mean over rows of what is not NaN, NaN where all is."""
    table = np.array(rows, float)
    count = np.isfinite(table).sum(0)
    return np.where(count > 0, np.nansum(table, 0) / np.maximum(count, 1), np.nan)
