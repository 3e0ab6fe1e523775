"""Search over a net of sparse parameters: exhaustive, and by elimination with lazy supports.

Dong and Yang (ICML 2023, arXiv:2303.16998) show that a sparse parameter lets O(epsilon^-s d^s)
queries find an O(epsilon)-optimal action, where dense linear bandits need exp(d).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from latebloom.methods.bandits.sparse_misspecified.problem import Queries


class EpsilonTooSmall(ValueError):
    """No parameter of the net agrees with the rewards: the model errs by more than epsilon."""


class Found(NamedTuple):
    """An action, how many rewards were asked for, and by how much it may be below the best.

    `within` is in units of reward; infinite where nothing is guaranteed.
    """

    action: int
    queries: int
    within: float


def ball_net(s: int, epsilon: float) -> Float[np.ndarray, "m s"]:
    """Points of the unit ball of R^s, such that every point of it is within epsilon of one.

    A cubic lattice of spacing 2 epsilon / sqrt(s); its points up to epsilon outside the ball are
    moved onto it, which brings them nearer to every point inside.
    """
    if not 0 < epsilon < 1 or s < 1:
        raise ValueError(f"epsilon must be in (0, 1) and s at least 1, not {epsilon} and {s}")
    spacing = 2 * epsilon / np.sqrt(s)
    ticks = spacing * np.arange(
        -np.ceil((1 + epsilon) / spacing), np.ceil((1 + epsilon) / spacing) + 1
    )
    points = np.stack(np.meshgrid(*[ticks] * s, indexing="ij"), axis=-1).reshape(-1, s)
    norms = np.linalg.norm(points, axis=1)
    points, norms = points[norms <= 1 + epsilon], norms[norms <= 1 + epsilon]
    return points / np.maximum(norms, 1)[:, None]


def net_size(d: int, s: int, epsilon: float) -> int:
    """Parameters in the sparse net of R^d: supports times points of the ball."""
    return comb(d, s) * len(ball_net(s, epsilon))


def repeats_needed(sigma: float, epsilon: float, parameters: int, delta: float = 0.05) -> int:
    """Measurements of each action after which noise moves no mean by more than epsilon, with
    probability 1 - delta over `parameters` actions: ceil(2 sigma^2 log(2 N / delta) / epsilon^2)."""
    return max(1, int(np.ceil(2 * sigma**2 * np.log(2 * parameters / delta) / epsilon**2)))


def net_search(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int, *,
    noisy: bool = False,
) -> Found:  # fmt: skip
    """Query the best action of every parameter in the net; return the best that was seen.

    At most C(d, s) (1 + 2/epsilon)^s queries up to a constant, and within 4 epsilon of the best (6
    with `noisy` rewards whose means are off by at most epsilon).
    """
    check_actions(features, epsilon, s)
    points = ball_net(s, epsilon)
    actions: set[int] = set()
    for support in itertools.combinations(range(features.shape[1]), s):
        actions |= set(np.unique((features[:, support] @ points.T).argmax(0)).tolist())
    for action in sorted(actions):
        query(action)
    return Found(query.best(), query.count, (6 if noisy else 4) * epsilon)


def dense_net_search(features: Float[np.ndarray, "n d"], query: Queries, epsilon: float) -> Found:
    """Net search without sparsity: a net of the whole ball, exponential in d."""
    return net_search(features, query, epsilon, features.shape[1])


def eliminate_parameters(
    features: Float[np.ndarray, "n d"], query: Queries, parameters: Float[np.ndarray, "m d"],
    slack: float,
) -> Found:  # fmt: skip
    """Elimination over a given list of parameters instead of a net.

    For instances where the candidates are known, as in the lower bound. Raises `EpsilonTooSmall` if
    every parameter dies.
    """
    predictions = features @ parameters.T
    alive = np.ones(len(parameters), bool)
    while alive.any():
        best = int(np.where(alive, predictions.max(0), -np.inf).argmax())
        action = int(predictions[:, best].argmax())
        reward = query(action)
        if abs(reward - predictions[action, best]) <= slack:
            return Found(action, query.count, 2 * slack)
        alive &= np.abs(predictions[action] - reward) <= slack
    raise EpsilonTooSmall("no parameter of the list agrees with the rewards")


class Promise(NamedTuple):
    """A parameter that agrees with all that was seen, and the best it promises."""

    support: tuple[int, ...]
    theta: Float[np.ndarray, " s"]
    action: int
    value: float


@dataclass
class _Support:
    """One support's share of the net: which points are alive, and what each promises."""

    columns: tuple[int, ...]
    alive: Bool[np.ndarray, " m"]
    promises: Float[np.ndarray, " m"]
    actions: np.ndarray

    def best(self) -> int:
        return int(np.where(self.alive, self.promises, -np.inf).argmax())


@dataclass
class NetElimination:
    """Keeps the parameters that agree with all rewards so far; proposes the most promising one.

    Supports are enumerated lazily: a tree over their columns is searched best-first, with the
    largest norm that an action can have on a support as the bound of what the support can promise.
    A support whose bound stays below what is promised elsewhere is never laid out.

    - `slack`: a parameter whose prediction is off by more than this is eliminated: 2 epsilon (net
      and misspecification), or 3 epsilon with noisy means.
    """

    features: Float[np.ndarray, "n d"]
    epsilon: float
    sparsity: int
    slack: float
    seen: list[tuple[int, float]] = field(default_factory=list)
    supports: list[_Support] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_actions(self.features, self.epsilon, self.sparsity)
        self.points = ball_net(self.sparsity, self.epsilon)
        self._tops = _top_sums(self.features**2, self.sparsity)
        self._tree = [(-self._bound(()), ())]

    def observe(self, action: int, reward: float) -> None:
        """Eliminate every parameter that predicts another reward for this action."""
        self.seen.append((action, reward))
        for support in self.supports:
            self._eliminate(support, action, reward)
        self.supports = [support for support in self.supports if support.alive.any()]

    def propose(self) -> Promise | None:
        """The living parameter that promises most; None if all are dead."""
        while self._tree and -self._tree[0][0] >= self._promised():
            _, columns = heapq.heappop(self._tree)
            if len(columns) == self.sparsity:
                self._lay_out(columns)
            else:
                for child in self._children(columns):
                    heapq.heappush(self._tree, (-self._bound(child), child))
        if not self.supports:
            return None
        support = max(self.supports, key=lambda one: one.promises[one.best()])
        i = support.best()
        return Promise(
            support.columns, self.points[i], int(support.actions[i]), float(support.promises[i])
        )

    def survivors(self) -> Float[np.ndarray, "m d"]:
        """All living parameters, on every support: nothing stays lazy."""
        while self._tree:
            _, columns = heapq.heappop(self._tree)
            if len(columns) == self.sparsity:
                self._lay_out(columns)
            else:
                self._tree += [(-self._bound(child), child) for child in self._children(columns)]
                heapq.heapify(self._tree)
        found = np.zeros(
            (sum(int(one.alive.sum()) for one in self.supports), self.features.shape[1])
        )
        row = 0
        for support in self.supports:
            living = self.points[support.alive]
            found[row : row + len(living), support.columns] = living
            row += len(living)
        return found

    def _promised(self) -> float:
        return max((one.promises[one.best()] for one in self.supports), default=-np.inf)

    def _lay_out(self, columns: tuple[int, ...]) -> None:
        predictions = self.features[:, columns] @ self.points.T
        alive = np.ones(len(self.points), bool)
        support = _Support(columns, alive, predictions.max(0), predictions.argmax(0))
        for action, reward in self.seen:
            self._eliminate(support, action, reward)
        if support.alive.any():
            self.supports.append(support)

    def _eliminate(self, support: _Support, action: int, reward: float) -> None:
        predicted = self.points @ self.features[action, support.columns]
        support.alive &= np.abs(predicted - reward) <= self.slack

    def _children(self, columns: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        left = self.sparsity - len(columns) - 1
        first = columns[-1] + 1 if columns else 0
        for column in range(first, self.features.shape[1] - left):
            yield (*columns, column)

    def _bound(self, columns: tuple[int, ...]) -> float:
        """Largest norm of an action on any support that begins with these columns."""
        first = columns[-1] + 1 if columns else 0
        rest = self._tops[self.sparsity - len(columns)][:, first]
        chosen = (self.features[:, columns] ** 2).sum(1)
        return float(np.sqrt((chosen + rest).max()))


def net_elimination(
    features: Float[np.ndarray, "n d"], query: Queries, epsilon: float, s: int, *,
    noisy: bool = False,
) -> Found:  # fmt: skip
    """Query the action that the most promising living parameter promises most of, until one keeps
    its promise.

    Within 4 epsilon of the best (6 with `noisy` rewards), usually after a few queries. Raises
    `EpsilonTooSmall` if every parameter dies.
    """
    slack = (3 if noisy else 2) * epsilon
    net = NetElimination(features, epsilon, s, slack)
    while (promise := net.propose()) is not None:
        reward = query(promise.action)
        if abs(reward - promise.value) <= slack:
            return Found(promise.action, query.count, 2 * slack)
        net.observe(promise.action, reward)
    raise EpsilonTooSmall(
        f"no {s}-sparse parameter agrees with the rewards to within epsilon = {epsilon:g}: "
        "give a larger epsilon or sparsity"
    )


def net_elimination_unknown_epsilon(
    features: Float[np.ndarray, "n d"], query: Queries, s: int, *,
    smallest: float = 0.02, noisy: bool = False,
) -> tuple[Found, float]:  # fmt: skip
    """Net elimination at `smallest`, doubled until a parameter survives; rewards are kept between.

    Returns what was found and the epsilon at which it was. Raises `EpsilonTooSmall` if none below 1
    will do.
    """
    epsilon = smallest
    while epsilon < 1:
        try:
            return net_elimination(features, query, epsilon, s, noisy=noisy), epsilon
        except EpsilonTooSmall:
            epsilon *= 2
    raise EpsilonTooSmall("the rewards are not linear in so few features, even to within 1")


def check_actions(features: Float[np.ndarray, "n d"], epsilon: float, s: int) -> None:
    """Raises `ValueError` for features, epsilon or sparsity that the guarantees do not cover."""
    if features.ndim != 2 or not len(features) or not np.isfinite(features).all():
        raise ValueError("features must be a finite table [actions, features] with at least a row")
    largest = np.linalg.norm(features, axis=1).max()
    if largest > 1 + 1e-9:
        raise ValueError(
            f"an action has norm {largest:.3g}, but at most 1 is allowed: divide the features by it "
            "(and multiply theta's bound)"
        )
    if not 1 <= s <= features.shape[1]:
        raise ValueError(f"the sparsity must be from 1 to {features.shape[1]}, not {s}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must be in (0, 1), not {epsilon}")


def _top_sums(squares: np.ndarray, most: int) -> list[np.ndarray]:
    """tops[k][a, j]: the sum of action a's k largest squares among columns j, j + 1, ..."""
    n, d = squares.shape
    largest = np.full((n, most), 0.0)
    tops = [np.zeros((n, d + 1)) for _ in range(most + 1)]
    for j in range(d - 1, -1, -1):
        largest = -np.sort(-np.column_stack([largest, squares[:, j]]), axis=1)[:, :most]
        for k in range(1, most + 1):
            tops[k][:, j] = largest[:, :k].sum(1)
    return tops
