"""G-optimal designs, and the misspecification that hurts least squares on them most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Design(NamedTuple):
    """Weights of actions, summing to one, and how far from optimal they are.

    `weights` [n]; `information` [d, d] is sum_a weight_a phi_a phi_a^T; `worst` is the largest
    leverage phi_a^T information^-1 phi_a, which equals the rank of the features at the optimum
    (Kiefer and Wolfowitz 1960).
    """

    weights: Float[np.ndarray, " n"]
    information: Float[np.ndarray, "d d"]
    worst: float


def g_optimal_design(
    features: Float[np.ndarray, "n d"], iterations: int = 300, tolerance: float = 0.005
) -> Design:
    """Weights that minimise the largest leverage, by multiplicative updates (Titterington 1978).

    pi_a <- pi_a leverage_a / d until the largest leverage is within `tolerance` of d; points that
    cannot belong to an optimal design are dropped on the way. Features that do not span R^d are
    reduced to their span.
    """
    basis = _span(features)
    x = features @ basis
    n, d = x.shape
    kept, weights = np.arange(n), np.full(n, 1 / n)
    for _ in range(iterations):
        leverage = _leverages(x[kept], weights[kept])
        excess = leverage.max() / d - 1
        if excess <= tolerance:
            break
        weights[kept] *= leverage / d
        # No optimal design has a point of so small a leverage (Harman and Pronzato 2007).
        bound = d * (1 + excess / 2 - np.sqrt(excess * (4 + excess - 4 / d)) / 2)
        weights[kept[leverage < bound]] = 0
        kept = kept[leverage >= bound]
        weights /= weights.sum()
    information = features.T @ (weights[:, None] * features)
    leverage = _leverages(x[kept], weights[kept])
    return Design(weights, information, float(leverage.max()))


def least_squares_rows(
    features: Float[np.ndarray, "n d"], design: Design
) -> Float[np.ndarray, "n n"]:
    """W with: estimates of all rewards = W @ rewards, when each action is queried by its weight."""
    inverse = np.linalg.pinv(design.information, hermitian=True)
    return features @ inverse @ (design.weights[:, None] * features).T


def _span(features: np.ndarray) -> np.ndarray:
    _, scale, rows = np.linalg.svd(features, full_matrices=False)
    return rows[scale > 1e-9 * scale.max()].T


def _leverages(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    root = np.linalg.cholesky(x.T @ (weights[:, None] * x))
    return (np.linalg.solve(root, x.T) ** 2).sum(0)
