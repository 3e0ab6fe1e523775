"""Linear bandits that do not know of sparsity, or know of it only in the mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from latebloom.methods.bandits.sparse_misspecified.design import Design, g_optimal_design
from latebloom.methods.bandits.sparse_misspecified.nets import Found
from latebloom.methods.bandits.sparse_misspecified.problem import Queries


def all_actions(features: Float[np.ndarray, "n d"], query: Queries) -> Found:
    """Query everything: exact, and with few actions the best one can do."""
    for action in range(len(features)):
        query(action)
    return Found(query.best(), query.count, 0.0)


def design_least_squares(
    features: Float[np.ndarray, "n d"], query: Queries, design: Design | None = None
) -> Found:
    """Least squares on the G-optimal design: loses up to 2 epsilon (1 + sqrt(d)) (Lattimore,
    Szepesvari and Weisz 2020, arXiv:1911.07676)."""
    design = design or g_optimal_design(features)
    estimates = features @ _fit(features, query, design, np.arange(len(features)))
    return Found(int(estimates.argmax()), query.count, np.inf)


def phased_elimination(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, *,
    width: float = 0.0, phases: int = 10,
) -> Found:  # fmt: skip
    """Phased elimination with G-optimal designs on what is left (Lattimore et al. 2020, alg. 1).

    An action is eliminated when its estimate is more than 2 (width + epsilon sqrt(d)) below the best.
    `width` is the half width of the noise's interval in the first phase, halved in every phase; 0
    for rewards without noise.
    """
    d = features.shape[1]
    active = np.arange(len(features))
    estimates = np.zeros(len(features))
    for _ in range(phases):
        design = g_optimal_design(features[active])
        estimates = features[active] @ _fit(features[active], query, design, active)
        keep = estimates >= estimates.max() - 2 * (width + epsilon * np.sqrt(d))
        if keep.all():
            break
        active, estimates, width = active[keep], estimates[keep], width / 2
    return Found(int(active[estimates.argmax()]), query.count, np.inf)


def lin_ucb(
    features: Float[np.ndarray, "n d"], query: Queries, rounds: int, *,
    ridge: float = 0.1, radius: float = 1.0,
) -> Found:  # fmt: skip
    """OFUL with a fixed radius for `rounds` rounds; recommends the best estimate at the end."""
    d = features.shape[1]
    inverse, total = np.eye(d) / ridge, np.zeros(d)
    for _ in range(rounds):
        bonus = np.sqrt(np.einsum("nd,nd->n", features @ inverse, features))
        action = int((features @ (inverse @ total) + radius * bonus).argmax())
        x = features[action]
        inverse = inverse - np.outer(inverse @ x, inverse @ x) / (1 + x @ inverse @ x)
        total = total + query(action) * x
    return Found(int((features @ (inverse @ total)).argmax()), query.count, np.inf)


def sparse_oful(
    features: Float[np.ndarray, "n d"], query: Queries, rounds: int, *,
    rate: float = 0.5, radius: float = 0.5,
) -> Found:  # fmt: skip
    """Sparse OFUL by the online-to-confidence-set conversion (Abbasi-Yadkori, Pal and Szepesvari
    2012).

    An exponentiated-gradient learner over +-e_i, whose regret is logarithmic in d, predicts every
    reward; the confidence set is the ridge ball around the fit to its predictions, not to the
    rewards. Recommends the best estimate at the end.
    """
    d = features.shape[1]
    inverse, total = np.eye(d), np.zeros(d)
    plus = minus = np.zeros(d)
    for _ in range(rounds):
        bonus = np.sqrt(np.einsum("nd,nd->n", features @ inverse, features))
        action = int((features @ (inverse @ total) + radius * bonus).argmax())
        x, reward = features[action], query(action)
        weights = np.exp(np.concatenate([plus, minus]) - max(plus.max(), minus.max()))
        weights /= weights.sum()
        prediction = float((weights[:d] - weights[d:]) @ x) * np.sqrt(d)
        slope = 2 * (prediction - reward) * np.sqrt(d) * x
        plus, minus = plus - rate / d * slope, minus + rate / d * slope
        inverse = inverse - np.outer(inverse @ x, inverse @ x) / (1 + x @ inverse @ x)
        total = total + prediction * x
    return Found(int((features @ (inverse @ total)).argmax()), query.count, np.inf)


def _fit(
    features: np.ndarray, query: Queries, design: Design, actions: np.ndarray
) -> Float[np.ndarray, " d"]:
    """Least squares in which every action that carries the design counts by its weight."""
    carried = np.flatnonzero(design.weights > 1e-3 / len(features))
    rewards = np.array([query(int(actions[i])) for i in carried])
    weighted = design.weights[carried, None] * features[carried]
    inverse = np.linalg.pinv(weighted.T @ features[carried], hermitian=True)
    return inverse @ (weighted.T @ rewards)
