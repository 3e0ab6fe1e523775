"""How long does it take to find the step sizes that minimise the last-iterate bound?

Median seconds over rounds, in turns, for norms that are constant, and that fall early and rise
later, and what each way ends on:

- `recursion`: `optimal_rates`, exact, one backward pass;
- `scipy`: L-BFGS-B on the logarithms of the step sizes, NumPy, gradients by hand;
- `authors`: `find_schedule` of the authors' repository (PyTorch gradients, L-BFGS-B), if the folder
  of a checkout is given and PyTorch is installed.

Then the refined schedule itself (weights to multipliers) for a long record: `tail_schedule` against
the authors' `find_closed_form_schedule`.

    python benchmarks/last_iterate_optimum.py [--authors FOLDER] [--rounds 3]
"""

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage, optimize

from latebloom.methods.schedules.last_iterate_bound import last_iterate_bound, optimal_rates
from latebloom.methods.schedules.refinement import tail_schedule


def curves(n: int) -> dict[str, np.ndarray]:
    shape = np.interp(np.linspace(0, 1, n), [0, 0.003, 0.02, 0.03, 0.1, 1], [15, 6, 4, 2, 1, 2])
    return {"constant": np.ones(n), "falling, rising": ndimage.gaussian_filter1d(shape, n / 50)}


def by_scipy(norms: np.ndarray) -> np.ndarray:
    def value_and_slope(logs: np.ndarray) -> tuple[float, np.ndarray]:
        rates = np.exp(logs)
        tails = np.cumsum(rates[::-1])[::-1]
        now, later, g = tails[:-1], tails[1:], norms[:-1] ** 2
        steps = now - later
        value = 1 / tails[0] + np.sum(g * steps**2 / later) + norms[-1] ** 2 * tails[-1]
        slope = np.zeros_like(tails)
        slope[:-1] += 2 * g * steps / later
        slope[1:] -= 2 * g * steps / later + g * steps**2 / later**2
        slope[0] -= 1 / tails[0] ** 2
        slope[-1] += norms[-1] ** 2
        return value / 2, np.cumsum(slope) / 2 * rates

    start = np.full(len(norms), -0.5 * np.log(len(norms)))
    options = {"maxiter": 100_000, "maxfun": 100_000, "ftol": 1e-14, "gtol": 1e-10, "maxcor": 20}
    found = optimize.minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options=options)
    return np.exp(found.x)


def timed(way: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = way()
    return time.perf_counter() - start, found


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, Any]]:
    runs = [{name: timed(way) for name, way in ways.items()} for _ in range(rounds)]
    return {n: (statistics.median(r[n][0] for r in runs), runs[0][n][1]) for n in ways}


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact recursion against iterative optimisers.")
    parser.add_argument("--authors", help="folder with the authors' find_schedule.py")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    authors = None
    if arguments.authors:
        import torch

        sys.path.insert(0, arguments.authors)
        authors = importlib.import_module("find_schedule")
    for n in (100, 400):
        for name, norms in curves(n).items():
            ways = {"recursion": lambda: optimal_rates(norms)[0], "scipy": lambda: by_scipy(norms)}  # noqa: B023
            if authors is not None:

                def ask() -> np.ndarray:
                    with contextlib.redirect_stdout(io.StringIO()):
                        return np.asarray(authors.find_schedule(torch.tensor(norms)))  # noqa: B023

                ways["authors"] = ask
            found = in_turns(ways, arguments.rounds)
            best = found["recursion"][1]
            print(f"n = {n}, {name} norms")
            for way, (seconds, rates) in found.items():
                bound = last_iterate_bound(rates, norms)
                apart = np.abs(rates / rates.max() - best / best.max()).max()
                print(
                    f"  {way:10s} {seconds:10.6f} s   bound {bound:.8f}   shape apart {apart:.1e}"
                )
    norms = curves(50_000)["falling, rising"]
    ways = {"ours": lambda: tail_schedule(norms**-2.0)}
    if authors is not None:
        ways["authors"] = lambda: authors.find_closed_form_schedule(norms)
    found = in_turns(ways, arguments.rounds)
    print(f"refined schedule of {len(norms):,} norms")
    for way, (seconds, values) in found.items():
        apart = np.abs(values / values.max() - found["ours"][1]).max()
        print(f"  {way:10s} {seconds:10.6f} s   apart {apart:.1e}")


if __name__ == "__main__":
    main()
