"""What a chain of generations shows: whether its values alternate, and what moves with them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def detrended(values: Float[np.ndarray, "seed t"]) -> Float[np.ndarray, "seed t"]:
    """Residuals about a line through the generations of each seed."""
    t = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slope = (values * t).sum(axis=1, keepdims=True) / (t**2).sum()
    return values - values.mean(axis=1, keepdims=True) - slope * t


def lag_one(values: Float[np.ndarray, "seed t"]) -> Float[np.ndarray, " seed"]:
    """Lag-1 autocorrelation of the detrended values: below 0 they alternate."""
    r = detrended(values)
    return (r[:, 1:] * r[:, :-1]).sum(axis=1) / np.maximum((r**2).sum(axis=1), 1e-12)


def fast_share(values: Float[np.ndarray, "seed t"]) -> Float[np.ndarray, " seed"]:
    """Share of the detrended values' variance at periods of three generations and less."""
    r = detrended(values)
    power = np.abs(np.fft.rfft(r, axis=1)) ** 2
    frequency = np.fft.rfftfreq(r.shape[1])
    return power[:, frequency > 0.33].sum(axis=1) / np.maximum(power[:, 1:].sum(axis=1), 1e-12)


def standardised_slope(
    y: Float[np.ndarray, " n"], x: Float[np.ndarray, " n"], *others: Float[np.ndarray, " n"]
) -> float:
    """The coefficient of `x` in a least-squares regression of `y` on it and others, all of spread 1."""
    y, *columns = (v - v.mean() for v in (y, x, *others))
    matrix = np.stack([v / max(float(v.std()), 1e-12) for v in columns], axis=1)
    return np.linalg.lstsq(matrix, y / max(float(y.std()), 1e-12), rcond=None)[0][0]
