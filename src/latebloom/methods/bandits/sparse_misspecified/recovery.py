"""Polynomially many queries where the error may grow with s: sparse recovery and designs."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog
from sklearn.linear_model import Lasso

from latebloom.methods.bandits.sparse_misspecified.design import g_optimal_design
from latebloom.methods.bandits.sparse_misspecified.nets import Found, check_actions
from latebloom.methods.bandits.sparse_misspecified.problem import Queries, greedy_support


def l1_minimiser(
    features: Float[np.ndarray, "n d"], rewards: Float[np.ndarray, " n"], epsilon: float
) -> Float[np.ndarray, " d"]:
    """The parameter of smallest 1-norm whose predictions are within epsilon of all rewards.

    A linear program in theta = u - v, solved by HiGHS. Raises `ValueError` if there is none.
    """
    d = features.shape[1]
    both = np.hstack([features, -features])
    done = linprog(
        np.ones(2 * d), A_ub=np.vstack([both, -both]),
        b_ub=np.concatenate([rewards + epsilon, epsilon - rewards]), method="highs",
    )  # fmt: skip
    if not done.success:
        raise ValueError(
            f"no parameter predicts all {len(rewards)} rewards to within epsilon = {epsilon:g}: "
            "give a larger epsilon"
        )
    return done.x[:d] - done.x[d:]


def l1_recovery(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int,
    rng: np.random.Generator, *, constant: float = 4.0, solver: str = "lp",
) -> Found:  # fmt: skip
    """Query `constant` s log d random actions, recover theta, play what it likes best.

    With incoherent features the loss is O(epsilon sqrt(s)) to O(epsilon s); nothing is guaranteed for
    others. `solver`: "lp" for `l1_minimiser` with epsilon, "lasso" for an L1 penalty of epsilon.
    """
    check_actions(features, epsilon, s)
    chosen = _sample(features, constant * s * np.log(features.shape[1]), rng)
    rewards = np.array([query(int(action)) for action in chosen])
    if solver == "lp":
        theta = l1_minimiser(features[chosen], rewards, epsilon)
    else:
        theta = lasso(features[chosen], rewards, epsilon)
    return Found(int((features @ theta).argmax()), query.count, np.inf)


def explore_then_commit_lasso(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int,
    rng: np.random.Generator, budget: int,
) -> Found:  # fmt: skip
    """ESTC (Hao, Lattimore and Wang 2020, arXiv:2011.04020): explore uniformly, LASSO, commit."""
    chosen = _sample(features, budget, rng)
    rewards = np.array([query(int(action)) for action in chosen])
    theta = lasso(features[chosen], rewards, np.sqrt(np.log(features.shape[1]) / budget) * epsilon)
    return Found(int((features @ theta).argmax()), query.count, np.inf)


def lasso(
    features: Float[np.ndarray, "n d"], rewards: Float[np.ndarray, " n"], penalty: float
) -> Float[np.ndarray, " d"]:
    """LASSO without intercept. Features are scaled to mean square 1 so that `penalty` is in units
    of reward."""
    scale = np.sqrt((features**2).mean(0)) + 1e-12
    fitted = Lasso(alpha=max(penalty, 1e-6), fit_intercept=False, max_iter=20_000)
    return fitted.fit(features / scale, rewards).coef_ / scale


def support_designs(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int
) -> Found:
    """Least squares on a G-optimal design of every support; the one that fits best decides.

    Loses O(epsilon sqrt(s)) and queries the union of C(d, s) small designs. The fit of a support is
    its largest residual over all actions queried for any of them.
    """
    check_actions(features, epsilon, s)
    supports = list(itertools.combinations(range(features.shape[1]), s))
    designs = [_core(features[:, support]) for support in supports]
    for actions, _ in designs:
        for action in actions:
            query(int(action))
    known = np.array(sorted(query.known))
    rewards = np.array([query.known[int(action)] for action in known])
    best, worst = 0, np.inf
    for support, (actions, weights) in zip(supports, designs, strict=True):
        x = features[:, support]
        theta = _weighted(x[actions], np.array([query(int(a)) for a in actions]), weights)
        error = np.abs(x[known] @ theta - rewards).max()
        if error < worst:
            best, worst = int((x @ theta).argmax()), error
    return Found(best, query.count, np.inf)


def pursuit_design(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int,
    rng: np.random.Generator, *, constant: float = 4.0,
) -> Found:  # fmt: skip
    """A heuristic: orthogonal matching pursuit on random queries names a support, and least squares
    on that support's G-optimal design decides. Nothing is guaranteed."""
    check_actions(features, epsilon, s)
    chosen = _sample(features, constant * s * np.log(features.shape[1]), rng)
    rewards = np.array([query(int(action)) for action in chosen])
    return _design_on(features, query, greedy_support(features[chosen], rewards, s))


def known_support(features: Float[np.ndarray, "n d"], query: Queries, support: np.ndarray) -> Found:
    """Least squares on the G-optimal design of the true support, told by an oracle."""
    return _design_on(features, query, support)


def _design_on(features: np.ndarray, query: Queries, support: np.ndarray) -> Found:
    x = features[:, support]
    actions, weights = _core(x)
    theta = _weighted(x[actions], np.array([query(int(a)) for a in actions]), weights)
    return Found(int((x @ theta).argmax()), query.count, np.inf)


def _core(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The actions that carry a design, with their weights."""
    weights = g_optimal_design(x).weights
    keep = min(np.count_nonzero(weights > 1e-3 / len(weights)), x.shape[1] * (x.shape[1] + 1))
    actions = np.argsort(-weights)[: max(keep, x.shape[1])]
    return actions, weights[actions] / weights[actions].sum()


def _weighted(x: np.ndarray, rewards: np.ndarray, weights: np.ndarray) -> np.ndarray:
    root = np.sqrt(weights)
    return np.linalg.lstsq(root[:, None] * x, root * rewards, rcond=None)[0]


def _sample(features: np.ndarray, count: float, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(len(features), min(int(np.ceil(count)), len(features)), replace=False)
