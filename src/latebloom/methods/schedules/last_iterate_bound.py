"""What theory promises the last iterate of gradient descent, and the step sizes that promise most."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def last_iterate_bound(
    rates: np.ndarray | Sequence[float],
    norms: np.ndarray | Sequence[float],
    distance: float = 1.0,
) -> float:
    """Upper bound on f(x_n) - f(u) after steps x_{k+1} = x_k - rates_k g_k, |g_k| <= norms_k.

    distance^2 / (2 S_0) + sum_k G_k^2 r_k^2 / (2 S_0)
    + 1/2 sum_{k <= n-2} r_k / (S_k S_{k+1}) sum_{j >= k} G_j^2 r_j^2, with S_k = sum_{j >= k} r_j.

    It holds for any step sizes, and is about twice as loose as the tail-weight bound is for
    linear decay.

    Raises `ValueError` unless rates and norms are n >= 2 positive numbers and distance is positive.

    Source: Defazio et al. 2023 (arXiv 2310.07831), their second approach (authors' code).
    """
    r, g = _positive(rates, "rates"), _positive(norms, "norms")
    if len(r) != len(g):
        raise ValueError(f"there are {len(r)} rates and {len(g)} norms: give one of each a step")
    _check_distance(distance)
    tails = np.cumsum(r[::-1])[::-1]
    energies = np.cumsum((g * r)[::-1] ** 2)[::-1]
    overlap = np.sum(r[:-1] * energies[:-1] / (tails[:-1] * tails[1:]))
    return float((distance**2 + energies[0]) / (2 * tails[0]) + overlap / 2)


def optimal_rates(
    norms: np.ndarray | Sequence[float], distance: float = 1.0
) -> tuple[np.ndarray, float]:
    """The step sizes [n] that minimise `last_iterate_bound`, exactly, and the minimum.

    Summed by parts the bound is distance^2 / (2 S_0) + 1/2 sum_{k <= n-2} G_k^2 (S_k - S_{k+1})^2
    / S_{k+1} + 1/2 G_{n-1}^2 S_{n-1}: convex in S, and each term homogeneous, so that the best that
    can be done from S_k on is c_k S_k. A recursion from the end,
    c_{n-1} = G_{n-1}^2 / 2, c_k = G_k (sqrt(G_k^2 + 2 c_{k+1}) - G_k),
    with S_{k+1} / S_k = G_k / sqrt(G_k^2 + 2 c_{k+1}) and S_0 = distance / sqrt(2 c_0), replaces an
    iterative optimiser. Constant norms give nearly linear decay.

    Raises `ValueError` unless norms are n >= 2 positive numbers and distance is positive.
    """
    g = _positive(norms, "norms")
    _check_distance(distance)
    cost, kept = g[-1] ** 2 / 2, np.empty(len(g) - 1)
    for k, norm in zip(range(len(g) - 2, -1, -1), g[-2::-1].tolist(), strict=True):
        root = math.sqrt(norm * norm + 2 * cost)
        kept[k] = norm / root
        cost = 2 * norm * cost / (root + norm)
    tails = distance / math.sqrt(2 * cost) * np.concatenate([[1.0], np.cumprod(kept)])
    return np.append(tails[:-1] * (1 - kept), tails[-1]), distance * math.sqrt(2 * cost)


def tail_weight_bound(weights: np.ndarray, norms: np.ndarray, distance: float = 1.0) -> float:
    """Bound on f(x_T) - f(u) for gradient descent with tail weights, at the best step size.

    distance sqrt(sum_t w_t^2 |g_t|^2) / sum_t w_t. Uniform weights (linear decay) give
    distance G / sqrt(T) for norms of at most G; w_t = |g_t|^-2 minimises it, to
    distance / sqrt(sum_t |g_t|^-2).

    Source: Defazio et al. 2023 (arXiv 2310.07831), from Theorem 1 with the regret of gradient
    descent.
    """
    w, g = _positive(weights, "weights"), _positive(norms, "norms")
    _check_distance(distance)
    return float(distance * np.sqrt(np.sum((w * g) ** 2)) / np.sum(w))


def _positive(values: np.ndarray | Sequence[float], name: str) -> np.ndarray:
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all() or (found <= 0).any():
        raise ValueError(f"{name} must be a row of at least 2 finite numbers above 0")
    return found


def _check_distance(distance: float) -> None:
    if not 0 < distance < math.inf:
        raise ValueError(f"distance must be above 0, not {distance}")
