"""How cumulative regret grows: which shape fits a curve of it, and with which exponent."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def log_over_root(
    regret: Float[np.ndarray, "seed t"], rounds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " seed"]:
    """Log ratio of the misfits of a sqrt(T) + b and of a log T + b: above 0 where the log fits better."""
    return np.log(_misfit(regret, np.sqrt(rounds)) / _misfit(regret, np.log(rounds)))


def regret_exponent(
    regret: Float[np.ndarray, "seed t"], rounds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " seed"]:
    """Slope of log regret over log rounds; regrets below 1 count as 1."""
    x, y = np.log10(rounds), np.log10(np.maximum(regret, 1.0))
    x = x - x.mean()
    return (x * (y - y.mean(1, keepdims=True))).sum(1) / (x**2).sum()


def _misfit(values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Squared error of the best a * shape + b, per seed."""
    columns = np.stack([shape, np.ones_like(shape)], axis=1)
    left = values.T - columns @ np.linalg.lstsq(columns, values.T, rcond=None)[0]
    return (left**2).sum(0)
