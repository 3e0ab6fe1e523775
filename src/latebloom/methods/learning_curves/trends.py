"""Curves c - a φ(x) fitted to accuracies by least squares, thousands of fits at once.

For a given shape φ, the best a and c are a linear problem with a closed form (variable projection,
Golub and Pereyra 1973), so that only the one or two numbers of the shape are searched: over a grid
that spans all of them, which stands for many starts, and then over ever finer ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

HIGHEST = 150.0  # percent: a fitted asymptote may exceed 100, which marks it as not yet feasible
_CHUNK = 4_000_000  # numbers that one array of the search may hold


class Family(NamedTuple):
    """A shape φ(x; θ) of x = size / first size, falling to 0 unless it is not `bounded`.

    `low`, `high`: the range of each number of θ, searched in logarithms over `grid` points each.
    """

    name: str
    shape: Callable[..., np.ndarray]
    low: tuple[float, ...]
    high: tuple[float, ...]
    grid: int
    bounded: bool = True


FAMILIES = {
    family.name: family
    for family in (
        Family("power", lambda x, b: x**-b, (0.01,), (4.0,), 49),
        Family("exponential", lambda x, b: np.exp(-b * (x - 1)), (1e-4,), (3.0,), 49),
        Family("pow4", lambda x, b, d: ((x + d) / (1 + d)) ** -b, (0.01, 0.01), (8.0, 300.0), 19),
        Family("mmf", lambda x, k, d: (1 + k) / (1 + k * x**d), (1e-3, 0.03), (1e3, 4.0), 19),
        Family("weibull", lambda x, k, d: np.exp(-k * (x**d - 1)), (1e-4, 0.03), (10.0, 2.0), 19),
        Family("logarithmic", lambda x: -np.log(x), (), (), 1, bounded=False),
    )
}


@dataclass(frozen=True)
class Trends:
    """Fitted curves A(x) = c - a φ(x / scale; θ), one for each of the leading indices.

    - `a`, `c`: [...]; `theta`: [..., 1 or 2 or 0]; `cost`: sum of squared residuals [...].
    - `scale`: the size at which φ is 1.
    """

    family: Family
    scale: float
    a: np.ndarray
    c: np.ndarray
    theta: np.ndarray
    cost: np.ndarray

    @property
    def asymptote(self) -> np.ndarray:
        """What the curve tends to [...]: c, or infinity if it grows for ever."""
        return self.c if self.family.bounded else np.where(self.a > 0, np.inf, self.c)

    def __call__(self, sizes: np.ndarray) -> np.ndarray:
        """Values at `sizes` [m] (or [..., m], with own sizes for each curve): [..., m]."""
        x = np.asarray(sizes, float) / self.scale
        theta = [self.theta[..., i, None] for i in range(self.theta.shape[-1])]
        return self.c[..., None] - self.a[..., None] * self.family.shape(x, *theta)

    def __getitem__(self, index: Any) -> Trends:
        """The curves at some of the leading indices."""
        parts = (part[index] for part in (self.a, self.c, self.theta, self.cost))
        return Trends(self.family, self.scale, *parts)

    def power_law(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(a, b, c) of -a x^(-b) + c with x in the unit of the sizes. Raises `ValueError` otherwise."""
        if self.family.name != "power":
            raise ValueError(f"a {self.family.name} trend has no power-law coefficients")
        b = self.theta[..., 0]
        return self.a * self.scale**b, b, self.c


def fit(
    sizes: np.ndarray, scores: np.ndarray, *, family: str = "power", weights: np.ndarray | None = None,
    anchor: np.ndarray | None = None, anchor_weight: float = 1.0, highest: float = HIGHEST,
) -> Trends:  # fmt: skip
    """Least-squares curves of a family through accuracies, with a >= 0 and 0 <= c <= `highest`.

    - `sizes`: positive [n]. `scores`: percent [..., n]; NaN where there is none.
    - `weights`: of the squared residuals, >= 0, [..., n] or [n]. At least one point must count.
    - `anchor`: a virtual observation [...] at size infinity, of weight `anchor_weight`: for a
      bounded family the extra residual c - anchor.

    Raises `ValueError` for sizes that are not positive, an unknown family, an anchor for a family
    without asymptote, and a curve without a single point.
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}; there are: {', '.join(FAMILIES)}")
    kind = FAMILIES[family]
    sizes, scores = np.asarray(sizes, float), np.asarray(scores, float)
    if not (sizes > 0).all():
        raise ValueError(f"sizes must be positive, and the least is {sizes.min():g}")
    if anchor is not None and not kind.bounded:
        raise ValueError(f"a {family} trend has no asymptote that could be anchored")
    lead, n = scores.shape[:-1], len(sizes)
    known = np.isfinite(scores)
    w = known * (1.0 if weights is None else np.broadcast_to(weights, scores.shape))
    y = np.where(known, scores, 0.0).reshape(-1, n)
    w = w.reshape(-1, n)
    if not w.any(axis=1).all():
        raise ValueError("a curve has no score that counts")
    pull = np.full(len(y), anchor_weight if anchor is not None else 0.0)
    to = np.zeros(len(y)) if anchor is None else np.broadcast_to(anchor, lead).reshape(-1)
    problem = _Problem(kind, sizes / sizes.min(), y, w, pull, to, highest)
    theta, a, c, cost = _search(problem)
    return Trends(
        kind, float(sizes.min()), a.reshape(lead), c.reshape(lead),
        theta.reshape(*lead, theta.shape[-1]), cost.reshape(lead),
    )  # fmt: skip


class _Problem(NamedTuple):
    family: Family
    x: np.ndarray  # [n]
    y: np.ndarray  # [P, n]
    w: np.ndarray  # [P, n]
    pull: np.ndarray  # [P] weight of the anchor
    to: np.ndarray  # [P] anchor
    highest: float

    def part(self, rows: slice) -> _Problem:
        return self._replace(y=self.y[rows], w=self.w[rows], pull=self.pull[rows], to=self.to[rows])


def _search(problem: _Problem) -> tuple[np.ndarray, ...]:
    """Best θ [P, d], a, c and cost [P]: a grid over everything, then boxes that shrink on the best."""
    low, high = np.log(problem.family.low), np.log(problem.family.high)
    d, count = len(low), len(problem.y)
    axes = [np.linspace(lo, hi, problem.family.grid) for lo, hi in zip(low, high, strict=True)]
    whole = (
        np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d) if d else np.zeros((1, 0))
    )
    rows = max(1, _CHUNK // (len(whole) * problem.y.shape[1]))
    parts = [problem.part(slice(i, i + rows)) for i in range(0, count, rows)]
    found = [_refine(part, whole, low, high) for part in parts]
    return tuple(np.concatenate(kind) for kind in zip(*found, strict=True))


def _refine(
    problem: _Problem, whole: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, ...]:
    d = whole.shape[1]
    best = _best(problem, np.broadcast_to(whole, (len(problem.y), *whole.shape)))
    if d == 0:
        return best
    reach = np.tile((high - low) / (problem.family.grid - 1), (len(problem.y), 1))
    points, rounds = (9, 8) if d == 1 else (5, 40)
    offsets = np.linspace(-1, 1, points)
    box = np.stack(np.meshgrid(*[offsets] * d, indexing="ij"), -1).reshape(-1, d)
    for _ in range(rounds):
        centre = np.log(best[0])
        tried = np.clip(centre[:, None] + reach[:, None] * box, low, high)
        now = _best(problem, tried)
        at_edge = np.abs(np.log(now[0]) - centre) > 0.99 * reach
        reach = np.where(at_edge, reach, reach / (points // 2 if d == 1 else 1.6))
        better = now[3] < best[3]
        best = tuple(
            np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(now, best, strict=True)
        )
    return best


def _best(problem: _Problem, logs: np.ndarray) -> tuple[np.ndarray, ...]:
    """The best of the candidates [P, K, d] of each problem: θ, a, c, cost."""
    theta = np.exp(logs)
    a, c, cost = _profile(problem, theta)
    rows, pick = np.arange(len(cost)), cost.argmin(1)
    return theta[rows, pick], a[rows, pick], c[rows, pick], cost[rows, pick]


def _profile(problem: _Problem, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best a >= 0 and c in [0, highest], and their cost, for each candidate θ [P, K, d]: [P, K].

    The anchor is one more point, with φ = 0. Where the free solution leaves the bounds, the best
    lies on a bound that it breaks.
    """
    numbers = [theta[..., i, None] for i in range(theta.shape[-1])]
    shape = problem.family.shape(problem.x, *numbers)
    shape = np.broadcast_to(shape, (*theta.shape[:2], len(problem.x)))
    w, y, pull, to = problem.w, problem.y, problem.pull[:, None], problem.to[:, None]
    total = w.sum(1, keepdims=True) + pull
    mean_y = ((w * y).sum(1, keepdims=True) + pull * to) / total
    apart_y = y - mean_y
    yy = (w * apart_y**2).sum(1, keepdims=True) + pull * (to - mean_y) ** 2

    mean = np.einsum("pkn,pn->pk", shape, w) / total
    apart = shape - mean[..., None]
    ss = np.einsum("pkn,pkn,pn->pk", apart, apart, w) + pull * mean**2
    sy = np.einsum("pkn,pn->pk", apart, w * apart_y) - pull * mean * (to - mean_y)

    def cost(a: np.ndarray, c: np.ndarray) -> np.ndarray:
        return yy + 2 * a * sy + a**2 * ss + total * (c - mean_y - a * mean) ** 2

    a = -sy / np.maximum(ss, 1e-300)
    c = mean_y + a * mean
    held = np.clip(c, 0, problem.highest)
    a_held = np.maximum((total * mean * (held - mean_y) - sy) / (ss + total * mean**2), 0)
    flat = np.broadcast_to(np.clip(mean_y, 0, problem.highest), a.shape)
    inside = (a >= 0) & (c == held)
    choose_flat = ~inside & (cost(np.zeros_like(a), flat) <= cost(a_held, held))
    a = np.where(inside, a, np.where(choose_flat, 0.0, a_held))
    c = np.where(inside, c, np.where(choose_flat, flat, held))
    return a, c, np.maximum(cost(a, c), 0.0)
