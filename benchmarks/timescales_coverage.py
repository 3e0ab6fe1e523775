"""How often do the intervals of `timescales` hold the truth, and which way do its estimates err?

Autoregressive activity of one timescale, or of two with equal variances, 60 units a setting; trials are drawn anew, or
blocks of one recording. Each line: the median estimate and the coverage of the tau of one exponential, the same of the
slower tau of the model that AIC chose, and how often it chose two exponentials.

    python benchmarks/timescales_coverage.py
"""

import numpy as np
from scipy.signal import lfilter

from latebloom.methods.recurrence.timescales import timescales

UNITS, BURN = 60, 500
SETTINGS = [(100, 200), (20, 200), (20, 1000), (20, 10_000), (1, 2_000), (1, 20_000)]
TRUTHS = [(3.0,), (15.0,), (2.0, 20.0)]  # in steps


def autoregressive(rng: np.random.Generator, tau: float, trials: int, time: int) -> np.ndarray:
    """Variance 1, autocorrelation exp(-lag / tau): [trials, time, units]."""
    keep = np.exp(-1 / tau)
    noise = rng.normal(size=(trials, time + BURN, UNITS)) * np.sqrt(1 - keep**2)
    return lfilter([1], [1, -keep], noise, axis=1)[:, BURN:]


def main() -> None:
    rng = np.random.default_rng(0)
    print("truth, trials x steps: one exponential | chosen by AIC | two chosen")
    for truth in TRUTHS:
        for trials, time in SETTINGS:
            x = sum(autoregressive(rng, tau, trials, time) for tau in truth)
            found = timescales(x)
            held = (found.low <= truth[-1]) & (truth[-1] <= found.high)
            one = (found.one_low <= truth[-1]) & (truth[-1] <= found.one_high)
            wide = np.isinf(found.high).mean()
            print(
                f"{truth}, {trials} x {time}: {np.median(found.one):.2f} {one.mean():.0%} | {np.median(found.tau):.2f} {held.mean():.0%}, "
                f"open above {wide:.0%} | {(found.models == 2).mean():.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
