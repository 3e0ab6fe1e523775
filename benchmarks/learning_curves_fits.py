"""How long does it take to fit a power law to every prefix of many learning curves, and how well?

Made-up power laws of 20 accuracies (5,000 to 100,000 words, noise falling with the root of the size),
their truth known up to 800,000 words. Median seconds a fit over rounds, in turns; the sum of squared
residuals over the lowest of all ways that fit the same curve; and the error of the last prefix's forecast
at 300,000 to 800,000 words:

- `latebloom`: variable projection, all curves and prefixes in one call;
- `scipy`: `curve_fit`, trust-region reflective, three starts, the best kept;
- `scipy, one start`;
- `learning-curves`: that package (0.2.2) picks the best of its families, with the last fit as the next
  start, as it does; only whole curves, since it often fails on short ones. Give an interpreter that has
  it: `--peer PYTHON`.

    python benchmarks/learning_curves_fits.py [--curves 40] [--rounds 3] [--peer PYTHON]
"""

import argparse
import json
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

from latebloom.methods.learning_curves import fit, mape
from latebloom.methods.learning_curves.generated import MadeUpCurve

SIZES = np.arange(5000.0, 105_000, 5000)
AHEAD = np.arange(300_000.0, 850_000, 50_000)
STARTS = ((100.0, 0.3, 95.0), (1000.0, 0.8, 90.0), (30.0, 0.1, 120.0))
PEER = """
import json, sys, time, warnings
import numpy as np
from learning_curves import LearningCurve
warnings.simplefilter("ignore")
given = json.load(sys.stdin)
x, ahead = np.array(given["sizes"]), np.array(given["ahead"])
said, seconds = [], 0.0
for y in given["scores"]:
    start = time.perf_counter()
    curve = LearningCurve()
    best = curve.best_predictor_cust(curve.predictors, x, np.array(y) / 100)
    seconds += time.perf_counter() - start
    said.append((100 * best(ahead)).tolist() if best.score is not None else None)
print(json.dumps({"said": said, "seconds": seconds}))
"""


def power(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return c - a * x**-b


def curves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [count, 20] and the truth ahead [count, 11], percent."""
    process = MadeUpCurve("power", tuple(int(s) for s in (*SIZES, *AHEAD)), 0.3, 0.0)
    rows = [
        [process.observe({"seed": seed, "level": level + 1}) for level in range(len(SIZES) + len(AHEAD))]
        for seed in range(count)
    ]  # fmt: skip
    scores = [[row["accuracy"] for row in curve[: len(SIZES)]] for curve in rows]
    return np.array(scores), np.array([[r["truth"] for r in c[len(SIZES) :]] for c in rows])


def ours(scores: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = np.where(np.arange(len(SIZES)) < levels[:, None], 1.0, 0.0)
    every = np.repeat(scores[:, None], len(levels), axis=1)
    found = fit(SIZES, every, weights=np.broadcast_to(seen, every.shape))
    return found.cost, found[:, -1](AHEAD)


def by_scipy(
    scores: np.ndarray, levels: np.ndarray, starts: tuple = STARTS
) -> tuple[np.ndarray, np.ndarray]:
    cost, ahead = np.full((len(scores), len(levels)), np.inf), np.empty((len(scores), len(AHEAD)))
    for i, row in enumerate(scores):
        for j, level in enumerate(levels):
            x, y = SIZES[:level], row[:level]
            for start in starts:
                try:
                    found, _ = optimize.curve_fit(
                        power, x, y, p0=start, bounds=([0, 0.01, 0], [np.inf, 4, 150]), max_nfev=2000
                    )  # fmt: skip
                except RuntimeError:
                    continue
                now = float(((power(x, *found) - y) ** 2).sum())
                if now < cost[i, j]:
                    cost[i, j] = now
                    if level == len(SIZES):
                        ahead[i] = power(AHEAD, *found)
    return cost, ahead


def timed(way: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = way()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="a Python with learning-curves 0.2.2")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    scores, truth = curves(options.curves)
    levels = np.arange(3, len(SIZES) + 1)
    ways = {
        "latebloom": lambda: ours(scores, levels),
        "scipy": lambda: by_scipy(scores, levels),
        "scipy, one start": lambda: by_scipy(scores, levels, STARTS[:1]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            spent, found[name] = timed(way)
            seconds[name].append(spent)
    lowest = np.min([cost for cost, _ in found.values()], axis=0)
    print(f"{'':<18} ms a fit  cost / lowest (median, worst)  MAPE ahead, mean and worst")
    for name, (cost, ahead) in found.items():
        ratio = cost[:, 2:] / lowest[:, 2:]  # with 5 observations and more
        off = mape(ahead, truth)
        each = 1000 * statistics.median(seconds[name]) / cost.size
        print(f"{name:<18} {each:8.3f}  {np.median(ratio):.6f}, {ratio.max():10.6f}         "
              f"{off.mean():.3f} %, {off.max():.3f} %")  # fmt: skip
    if options.peer:
        given = {"sizes": SIZES.tolist(), "ahead": AHEAD.tolist(), "scores": scores.tolist()}
        done = subprocess.run(
            [options.peer, "-c", PEER], input=json.dumps(given), capture_output=True, text=True, check=True
        )  # fmt: skip
        answer = json.loads(done.stdout.splitlines()[-1])
        usable = [(s, t) for s, t in zip(answer["said"], truth, strict=True)
                  if s is not None and np.isfinite(s).all()]  # fmt: skip
        off = np.array([mape(np.array(s), t) for s, t in usable])
        each = 1000 * answer["seconds"] / len(scores)
        print(f"{'learning-curves':<18} {each:8.3f}  (best of four families)        "
              f"{off.mean():.3f} %, {off.max():.3f} %, {len(usable)} of {len(scores)} curves")  # fmt: skip


if __name__ == "__main__":
    main()
