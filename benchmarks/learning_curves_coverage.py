"""How often do the forecasts of learning curves keep what they say?

Made-up curves of three families (power laws, exponentials, stretched exponentials of power 0.2 to 0.8) at 5 to
12 sizes, doubling or equally spaced, with 5 to 60 % of the rise left at the last size and noise of 0.1, 0.3
or 1 point. Of the 90 % intervals: the share that holds the noise-free score at 2, 4 and 10 times the last size, and
their median width at 4 times, in points; of the required sizes of the score at 4 times: the share whose
range holds it. Of the stop, on 40 equal steps: how often more than tau is left of the true curve where
the trend expects at most tau, and how often more than 1.1 tau.

    python benchmarks/learning_curves_coverage.py [--curves 200]
"""

import argparse
from collections.abc import Callable

import numpy as np

from latebloom.methods.learning_curves import Frame, LearningCurve, learning_trace
from latebloom.methods.learning_curves.traces import NEVER

KINDS = ("power", "exponential", "stretched")
NOISES = (0.1, 0.3, 1.0)


def curve_of(
    kind: str, x: np.ndarray, rng: np.random.Generator
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """The score at x = size / first size in percent, and its limit."""
    top, rise, left = rng.uniform(75, 99), rng.uniform(10, 40), rng.uniform(0.05, 0.6)
    if kind == "power":
        power = -np.log(left) / np.log(x[-1])
        return lambda z: top - rise * z**-power, top
    d = 1.0 if kind == "exponential" else rng.uniform(0.2, 0.8)
    rate = -np.log(left) / (x[-1] ** d - 1)
    return lambda z: top - rise * np.exp(-rate * (z**d - 1)), top


def intervals(kind: str, count: int, doubling: bool, curves: int) -> tuple[float, float, float]:
    rng = np.random.default_rng([count, doubling, KINDS.index(kind)])
    x = 2.0 ** np.arange(count) if doubling else np.arange(1.0, count + 1)
    inside, width, needed = [], [], []
    for number in range(curves):
        curve, _ = curve_of(kind, x, rng)
        scores = curve(x) + NOISES[number % 3] * rng.normal(size=count)
        fitted = LearningCurve(upper=100.0).fit(500 * x, np.clip(scores, 0, 100))
        ahead = x[-1] * np.array([2.0, 4.0, 10.0])
        _, low, high = fitted.forecast(500 * ahead)
        inside.append((low <= curve(ahead)) & (curve(ahead) <= high))
        width.append(high[1] - low[1])
        need = fitted.required_size(float(curve(ahead[1])))
        size = 500 * ahead[1]
        needed.append(need.low <= 1.006 * size and size <= 1.006 * need.high)  # a step of its grid
    return float(np.mean(inside)), float(np.median(width)), float(np.mean(needed))


def stops(kind: str, noise: float, tau: float, curves: int) -> tuple[int, float, float]:
    rng = np.random.default_rng([KINDS.index(kind), round(100 * noise), round(tau)])
    x = np.arange(1.0, 41)
    drawn = [curve_of(kind, x, rng) for _ in range(curves)]
    truth = np.array([curve(x) for curve, _ in drawn])
    scores = np.clip(truth + noise * rng.normal(size=truth.shape), 0, 100)
    trace = learning_trace(5000 * x, scores, frame=Frame(0.2 / 5000))
    at = trace.stop(tau)
    some = np.flatnonzero(at != NEVER)
    left = np.array([drawn[i][1] - truth[i, at[i] + 2] for i in some])
    if not len(some):
        return 0, np.nan, np.nan
    return len(some), float((left > tau).mean()), float((left > 1.1 * tau).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--curves", type=int, default=200)
    curves = parser.parse_args().curves
    print("curve        sizes           share inside  median width  required size held")
    for kind in KINDS:
        for doubling in (True, False):
            for count in (5, 6, 7, 8, 10, 12):
                inside, width, needed = intervals(kind, count, doubling, curves)
                spacing = "doubling" if doubling else "equal"
                print(
                    f"{kind:12} {count:2} {spacing:12} {inside:12.3f} {width:13.1f} {needed:18.3f}"
                )
    print("curve        noise  tau  stops  more than tau left  more than 1.1 tau left")
    for kind in KINDS:
        for noise in (0.05, 0.2):
            for tau in (2.0, 4.0, 6.0):
                found, false, wrong = stops(kind, noise, tau, 2 * curves)
                print(f"{kind:12} {noise:5g} {tau:4g} {found:6} {false:19.3f} {wrong:23.3f}")


if __name__ == "__main__":
    main()
