"""Finite action sets whose rewards are linear in a few features, up to a uniform error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latebloom.methods.bandits.sparse_misspecified.design import (
    Design,
    g_optimal_design,
    least_squares_rows,
)


@dataclass(frozen=True)
class Problem:
    """Actions with `features` [n, d] of norm at most 1, mean `rewards` [n], |rewards - features @
    theta| <= `epsilon`, and `theta` [d] of norm at most 1 with `sparsity` non-zeros."""

    features: Float[np.ndarray, "n d"]
    rewards: Float[np.ndarray, " n"]
    theta: Float[np.ndarray, " d"]
    epsilon: float
    sparsity: int

    def gap(self, action: int) -> float:
        """How much less than the best an action gives, in units of epsilon."""
        return float((self.rewards.max() - self.rewards[action]) / self.epsilon)


@dataclass
class Queries:
    """Asks for rewards, counts, and remembers: an action is measured `repeats` times at most once.

    `ask(action)` gives one (noisy) reward; the mean of `repeats` of them is kept and returned.
    """

    ask: Callable[[int], float]
    repeats: int = 1
    known: dict[int, float] = field(default_factory=dict)

    def __call__(self, action: int) -> float:
        if action not in self.known:
            self.known[action] = float(np.mean([self.ask(action) for _ in range(self.repeats)]))
        return self.known[action]

    @property
    def count(self) -> int:
        """Rewards asked for so far."""
        return self.repeats * len(self.known)

    def best(self) -> int:
        """The action with the largest reward so far."""
        return max(self.known, key=lambda action: self.known[action])


def queries(problem: Problem, sigma: float, rng: np.random.Generator, repeats: int = 1) -> Queries:
    """Queries of a problem's rewards with Gaussian noise of standard deviation `sigma`."""

    def ask(action: int) -> float:
        return float(problem.rewards[action] + sigma * rng.normal())

    return Queries(ask, repeats)


def sphere(rng: np.random.Generator, n: int, d: int) -> Float[np.ndarray, "n d"]:
    """`n` points drawn uniformly on the unit sphere of R^d."""
    points = rng.normal(size=(n, d))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def sparse_unit(rng: np.random.Generator, d: int, s: int) -> Float[np.ndarray, " d"]:
    """A unit vector with `s` random non-zeros."""
    theta = np.zeros(d)
    theta[rng.choice(d, s, replace=False)] = sphere(rng, 1, s)[0]
    return theta


def random_problem(
    rng: np.random.Generator, features: Float[np.ndarray, "n d"], s: int, epsilon: float
) -> Problem:
    """Misspecification of random sign and full size at every action."""
    theta = sparse_unit(rng, features.shape[1], s)
    error = epsilon * rng.choice([-1.0, 1.0], len(features))
    return Problem(features, features @ theta + error, theta, epsilon, s)


def compressible_problem(
    rng: np.random.Generator, features: Float[np.ndarray, "n d"], s: int, epsilon: float
) -> Problem:
    """Almost sparse: `s` large coefficients and a tail that moves no reward by more than epsilon.

    The tail is what misspecifies the model.
    """
    theta = sparse_unit(rng, features.shape[1], s)
    tail = np.where(theta == 0, rng.normal(size=len(theta)), 0)
    if tail.any():
        tail *= epsilon / np.abs(features @ tail).max()
    return Problem(features, features @ (theta + tail), theta, epsilon, s)


class Decoys(NamedTuple):
    """How least squares can be misled: `rows` [n, n] is its map from rewards to estimates, and column
    k of `biases` [n, n] what the signs of row k add to all estimates, in units of epsilon."""

    rows: Float[np.ndarray, "n n"]
    biases: Float[np.ndarray, "n n"]


def find_decoys(features: Float[np.ndarray, "n d"], design: Design | None = None) -> Decoys:
    """The decoys of the G-optimal design of these features."""
    rows = least_squares_rows(features, design or g_optimal_design(features))
    return Decoys(rows, rows @ np.sign(rows).T)


def adversarial_problem(
    rng: np.random.Generator, features: Float[np.ndarray, "n d"], s: int, epsilon: float,
    decoys: Decoys | None = None,
) -> Problem:  # fmt: skip
    """Misspecification chosen against least squares on the G-optimal design.

    The error is epsilon times the sign of one row of the least-squares map, so that the estimate of
    that action, the decoy, is too high by epsilon times the row's 1-norm. Among all actions at least
    epsilon below the best, the decoy is the one that costs least squares most.
    """
    theta = sparse_unit(rng, features.shape[1], s)
    values = features @ theta
    decoys = decoys or find_decoys(features)
    below = np.flatnonzero(values <= values.max() - epsilon)
    rewards = values[:, None] + epsilon * np.sign(decoys.rows[below]).T  # [action, decoy]
    chosen = (values[:, None] + epsilon * decoys.biases[:, below]).argmax(0)
    losses = rewards.max(0) - rewards[chosen, np.arange(len(below))]
    worst = rewards[:, losses.argmax()].copy()  # not a view, which would keep all of them
    return Problem(features, worst, theta, epsilon, s)


def needle_problem(
    rng: np.random.Generator, d: int, s: int, epsilon: float, coherence: float = 0.5,
    tries: int = 20_000,
) -> Problem:  # fmt: skip
    """All rewards are zero but one: the lower-bound instance.

    Actions are vectors of signs / sqrt(s) on `s` coordinates, packed until `tries` random ones in a
    row find no place, with inner products of at most `coherence`. The needle has reward
    epsilon / coherence and theta points at it, so that its neighbours' predictions stay within
    epsilon of zero.
    """
    support = rng.choice(d, s, replace=False)
    packed = _packing(rng, s, coherence, tries)
    features = np.zeros((len(packed), d))
    features[:, support] = packed
    needle = int(rng.integers(len(packed)))
    height = epsilon / coherence
    rewards = np.zeros(len(packed))
    rewards[needle] = height
    return Problem(features, rewards, height * features[needle], epsilon, s)


def _packing(rng: np.random.Generator, s: int, coherence: float, tries: int) -> np.ndarray:
    found = np.empty((0, s))
    drawn = 0
    while drawn < tries:
        batch = rng.choice([-1.0, 1.0], (256, s)) / np.sqrt(s)
        drawn += len(batch)
        fits = (np.abs(batch @ found.T) <= coherence + 1e-9).all(1)
        for point in batch[fits]:
            if (np.abs(found @ point) <= coherence + 1e-9).all():
                found = np.vstack([found, point])
                drawn = 0
    return found


def table_problem(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], s: int) -> Problem:
    """A real table as a problem: rows are actions, the best linear fit on `s` columns is theta.

    Columns are standardised and rows scaled to norm at most 1; the rewards are y in standard
    deviations, scaled with theta to norm at most 1, and epsilon is the fit's largest residual.
    """
    features = (x - x.mean(0)) / x.std(0)
    features /= np.linalg.norm(features, axis=1).max()
    support = greedy_support(features, y - y.mean(), s)
    coefficients = np.linalg.lstsq(features[:, support], y - y.mean(), rcond=None)[0]
    theta = np.zeros(x.shape[1])
    theta[support] = coefficients
    scale = np.linalg.norm(theta)
    theta, rewards = theta / scale, (y - y.mean()) / scale
    return Problem(features, rewards, theta, float(np.abs(rewards - features @ theta).max()), s)


def greedy_support(
    features: Float[np.ndarray, "n d"], rewards: Float[np.ndarray, " n"], s: int
) -> Int[np.ndarray, " s"]:
    """Columns chosen by orthogonal matching pursuit."""
    support: list[int] = []
    residual = rewards
    for _ in range(s):
        scores = np.abs(features.T @ residual)
        scores[support] = -1
        support.append(int(scores.argmax()))
        kept = features[:, support]
        residual = rewards - kept @ np.linalg.lstsq(kept, rewards, rcond=None)[0]
    return np.sort(np.array(support))
