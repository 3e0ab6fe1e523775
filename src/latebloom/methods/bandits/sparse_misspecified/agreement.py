"""All linear models on a few features that agree with what was measured, and what they predict.

A model is a constant and one coefficient a feature, of any size; it agrees if each of its predictions
is within epsilon of the result. The models of one set of features are a polytope; the range of
their predictions is read from its corners, exactly, and is infinite where nothing limits it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection, QhullError

# What rounding may move, relative to results and rows; widening the error keeps ranges true.
ROUNDING = 1e-9


class Agreement(NamedTuple):
    """The models of one set of features that agree with the measured rows.

    - `centre`: one of them: the coefficients and, last, the constant.
    - `low`, `high` [n]: the range of all their predictions for every row, perhaps infinite.
    - `news` [n]: squared distance of each row from the span of the measured ones.
    """

    centre: Float[np.ndarray, " s1"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    news: Float[np.ndarray, " n"]


class Fit(NamedTuple):
    """Least squares of the results on one set of features, whose rows end in a 1.

    Columns are rotated and scaled so that the measured rows are `basis` [m, r], orthonormal columns;
    `back` [s + 1, r] takes such coordinates to coefficients.
    """

    basis: Float[np.ndarray, "m r"]
    back: Float[np.ndarray, "s1 r"]
    place: Float[np.ndarray, " r"]
    residuals: Float[np.ndarray, " m"]


def fit(rows: Float[np.ndarray, "m s1"], results: Float[np.ndarray, " m"]) -> Fit:
    """The least-squares fit, in the measured rows' own coordinates."""
    left, scale, right = np.linalg.svd(rows, full_matrices=False)
    kept = scale > ROUNDING * scale[0]
    basis, back = left[:, kept], right[kept].T / scale[kept]
    place = basis.T @ results
    return Fit(basis, back, place, results - basis @ place)


def least_error(found: Fit) -> tuple[float, Float[np.ndarray, " r"]]:
    """The smallest largest error of any model, and its step from the least-squares fit.

    (Chebyshev's fit, a linear program.)
    """
    m, r = found.basis.shape
    unit = float(np.abs(found.residuals).max())
    if m <= r or unit == 0:
        return 0.0, np.zeros(r)
    ones = np.ones((m, 1))
    above, below = np.hstack([found.basis, -ones]), np.hstack([-found.basis, -ones])
    limits = np.concatenate([found.residuals, -found.residuals]) / unit
    done = linprog(
        np.append(np.zeros(r), 1.0), A_ub=np.vstack([above, below]), b_ub=limits,
        bounds=[*[(None, None)] * r, (0, None)], method="highs",
    )  # fmt: skip
    step = done.x[:r] * unit if done.success else np.zeros(r)
    return float(np.abs(found.residuals - found.basis @ step).max()), step


def agreement(
    rows: Float[np.ndarray, "n s1"], known: Bool[np.ndarray, " n"],
    results: Float[np.ndarray, " n"], epsilon: float,
) -> Agreement | None:  # fmt: skip
    """The models that predict every known row to within `epsilon`, or None where there are none.

    Where the best of them only just agrees, the tolerance is widened by a thousandth: the ranges may
    come out too wide, but never too narrow.
    """
    y = results[known]
    slack = epsilon + ROUNDING * float(np.abs(y).max())
    found = fit(rows[known], y)
    if np.sqrt(np.mean(found.residuals**2)) > slack:
        return None  # no model's largest error is below the least-squares fit's mean error
    step, worst = np.zeros(len(found.place)), float(np.abs(found.residuals).max())
    if worst > 0.9 * slack:
        worst, step = least_error(found)
        if worst > slack:
            return None
    slack = max(slack, 1.001 * worst)
    offsets = (found.residuals - found.basis @ step) / slack
    coordinates = rows @ found.back
    low, high = _extremes(found.basis, offsets, coordinates)
    inner = rows - coordinates @ (found.back / (found.back**2).sum(0)).T
    news = (inner**2).sum(1)
    free = news > ROUNDING * (rows**2).sum(1)
    centre = found.back @ (found.place + step)
    middle = rows @ centre
    low = np.where(free, -np.inf, middle + slack * low)
    high = np.where(free, np.inf, middle + slack * high)
    return Agreement(centre, low, high, np.where(free, news, 0.0))


def _extremes(
    basis: Float[np.ndarray, "m r"], offsets: Float[np.ndarray, " m"],
    directions: Float[np.ndarray, "n r"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:  # fmt: skip
    """Least and largest directions @ u over all u with |offsets - basis @ u| <= 1."""
    planes = np.vstack([
        np.column_stack([basis, -offsets - 1]), np.column_stack([-basis, offsets - 1])
    ])  # fmt: skip
    if basis.shape[1] == 1:
        slope, bound = planes[:, 0], -planes[:, 1]
        ends = bound[slope != 0] / slope[slope != 0]
        positive = slope[slope != 0] > 0
        corners = np.array([[ends[~positive].max()], [ends[positive].min()]])
    else:
        try:
            corners = HalfspaceIntersection(planes, np.zeros(basis.shape[1])).intersections
        except QhullError:
            return _extremes_one_by_one(planes, directions)
        if not np.isfinite(corners).all():
            return _extremes_one_by_one(planes, directions)
    values = directions @ corners.T
    return values.min(1), values.max(1)


def _extremes_one_by_one(
    planes: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same by two linear programs a direction, where the corners cannot be had."""

    def largest(direction: np.ndarray) -> float:
        done = linprog(
            -direction, A_ub=planes[:, :-1], b_ub=-planes[:, -1], bounds=(None, None),
            method="highs",
        )  # fmt: skip
        return -done.fun if done.success else np.inf

    low = [-largest(-direction) for direction in directions]
    return np.array(low), np.array([largest(direction) for direction in directions])
