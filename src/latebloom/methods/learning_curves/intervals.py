"""Between which scores a learning curve may go on: profile-likelihood intervals over many shapes.

The curves c - a exp(-k (x^d - 1)), x = size / first size, are exponentials at d = 1, stretched ones below
and power laws in the limit d -> 0. All of them count that fit the scores not much worse than the best:
those whose squared residuals r satisfy the F test of one value ahead,

    r <= r_best (1 + t^2 / (n - 4)),   t = Student's quantile with n - 4 degrees of freedom,

for four numbers are fitted (Bates and Watts 1988, Nonlinear Regression Analysis, section 6.1). The
interval at a size is what they span there, with 0 <= a <= c <= 100 percent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

FITTED = 4  # numbers of a curve: a, c, k, d
ROUNDING = 0.01  # percentage points: scores are not known better
SHAPES = (0.005, 1.6)  # range of d
LEFT = 9.0  # largest |logit| of the share of the rise that is left at the last size
GRID = 33
_RADII = np.array([0.0, 0.6, 1.0])
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CHUNK = 2_000_000  # numbers that one array may hold


class Plausible(NamedTuple):
    """Curves c - a exp(-k (x^d - 1)) that the scores do not exclude; x = size / `scale`.

    `k`, `d` [shapes]; `a`, `c` [shapes, pairs], NaN for pairs out of bounds.
    """

    scale: float
    k: np.ndarray
    d: np.ndarray
    a: np.ndarray
    c: np.ndarray

    def span(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest value of the curves at each size [m], percent."""
        x = np.asarray(sizes, float) / self.scale
        rows = max(1, _CHUNK // self.a.size)
        found = [self._span(x[i : i + rows]) for i in range(0, len(x), rows)]
        low, high = (np.concatenate(part) for part in zip(*found, strict=True))
        return low, high

    def _span(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = self.c - self.a * _shape(x[:, None], self.k, self.d)[..., None]
        return np.nanmin(values, axis=(1, 2)), np.nanmax(values, axis=(1, 2))


def plausible(
    sizes: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"], confidence: float
) -> Plausible:
    """The curves that scores in percent at increasing sizes, five or more, do not exclude.

    Raises `ValueError` for fewer sizes.
    """
    n = len(sizes)
    if n <= FITTED:
        raise ValueError(
            f"an interval needs scores at {FITTED + 1} sizes or more, and there are {n}"
        )
    x = np.asarray(sizes, float) / sizes[0]
    t = float(stats.t.ppf((1 + confidence) / 2, n - FITTED))
    k, d, bound = _region(x, scores, 1 + t**2 / (n - FITTED))
    mean, square, slope, residual = _lines(_shape(x, k[:, None], d[:, None]), scores)
    # For one shape, the (a, c) within the bound are an ellipse around the best.
    reach = np.sqrt(np.maximum(bound - residual, 0))[:, None, None] * _RADII[:, None]
    a = reach * np.cos(_ANGLES) / np.sqrt(square)[:, None, None] - slope[:, None, None]
    middle = scores.mean() + reach * np.sin(_ANGLES) / np.sqrt(n)
    c = middle + a * mean[:, None, None]
    allowed = (a >= 0) & (c <= 100) & (a <= c)
    if not allowed.any():  # scores beyond all bounds: level curves
        return Plausible(
            float(sizes[0]), k[:1], d[:1], np.zeros((1, 1)), np.array([[scores.mean()]])
        )
    a, c = (np.where(allowed, part, np.nan).reshape(len(k), -1) for part in (a, c))
    some = allowed.any((1, 2))
    return Plausible(float(sizes[0]), k[some], d[some], a[some], c[some])


def _region(x: np.ndarray, y: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Rates k and shapes d [shapes] that fit almost as well as the best, and the residuals allowed.

    They are a thin ridge: for each d the range of k is narrowed down, then that of d.
    """
    low, high = SHAPES
    while True:
        d = np.linspace(low, high, GRID)
        k, within, bound = _ridge(x, y, d, ratio)
        rows = np.flatnonzero(within.any(1))
        before, step = high - low, d[1] - d[0]
        low, high = max(d[rows[0]] - step, SHAPES[0]), min(d[rows[-1]] + step, SHAPES[1])
        if high - low > before / 2:
            return k[within], np.broadcast_to(d[:, None], k.shape)[within], bound


def _ridge(
    x: np.ndarray, y: np.ndarray, d: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """A grid of rates for each of the shapes [d, k], which of them fit, and the residuals allowed."""
    low, high = np.full(len(d), -LEFT), np.full(len(d), LEFT)
    best = np.inf
    for last in (False, False, False, True):
        logit = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID)
        k = np.logaddexp(0, -logit) / np.expm1(d * np.log(x[-1]))[:, None]  # -log of the share left
        residual = _lines(_shape(x, k[..., None], d[:, None, None]), y)[3]
        best = min(best, residual.min())
        bound = max(best, len(y) * ROUNDING**2) * ratio
        within = residual <= bound
        if last:
            within.flat[residual.argmin()] = True
            return k, within, bound
        any_, nearest = within.any(1), residual.argmin(1)
        first = np.where(any_, within.argmax(1), nearest)
        end = np.where(any_, GRID - 1 - within[:, ::-1].argmax(1), nearest)
        step = (high - low) / (GRID - 1)
        low, high = (
            low + np.maximum(first - 1, 0) * step, low + np.minimum(end + 1, GRID - 1) * step
        )  # fmt: skip
    raise AssertionError


def _shape(x: np.ndarray, k: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.exp(-k * np.expm1(d * np.log(x)))


def _lines(shape: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and spread of each shape [..., n], its least-squares slope (not above 0), and the residuals."""
    mean, off = shape.mean(-1), y - y.mean()
    apart = shape - mean[..., None]
    square = np.maximum((apart**2).sum(-1), 1e-300)
    slope = np.minimum(apart @ off / square, 0)
    return mean, square, slope, ((off - slope[..., None] * apart) ** 2).sum(-1)
