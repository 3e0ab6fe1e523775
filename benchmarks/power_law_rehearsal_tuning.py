"""Which learning rate and strength does each schedule and regulariser want?

Run: python benchmarks/power_law_rehearsal_tuning.py [NAME ...]
Twenty permuted tasks at the scale of the quick budget, on seeds 100 and 101, which the study does not use.
Prints the final accuracy of each setting, says where the best lies on an edge of its grid, and puts the
winners into the table that the study reads.
"""

import argparse
import itertools
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import put

from latebloom import unfold
from latebloom.studies.forgetting import power_law_rehearsal as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SLOW = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
GRIDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    **{name: (RATES, (0.0,)) for name in ("power", *study.RIVALS, "joint")},
    "none": (SLOW, (0.0,)),
    "ewc": (RATES[1:4], (0.1, 0.3, 1.0, 3.0, 10.0)),
    "si": (RATES[1:], (0.1, 0.3, 1.0, 3.0)),
    "lwf": (SLOW[:4], (1.0, 3.0, 10.0, 30.0)),
    "power+ewc": (RATES[2:3], (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "power+lwf": (RATES[2:3], (0.01, 0.03, 0.1, 0.3, 1.0)),
}


def final(name: str, rate: float, strength: float) -> float:
    """Mean final accuracy; 0 where a seed diverged."""
    config = replace(study.tuned(name), rate=rate, strength=strength)
    end = np.array([config.tasks * config.task_steps])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=end, progress=False)
    return float(np.nan_to_num(trace.accuracy.values[:, -1].mean(axis=1)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(GRIDS))
    for name in parser.parse_args().names:
        start, grid = time.perf_counter(), GRIDS[name]
        found = {pair: final(name, *pair) for pair in itertools.product(*grid)}
        rate, strength = chosen = max(found, key=lambda pair: found[pair])
        edges = [
            what
            for what, values, value in zip(("rate", "strength"), grid, chosen, strict=True)
            if len(values) > 1 and value in (values[0], values[-1])
        ]
        shown = "  ".join(f"({r:g}, {s:g}) {100 * v:.1f}" for (r, s), v in found.items())
        print(f"{name} ({time.perf_counter() - start:.0f} s): {shown}")
        print(f"  best ({rate:g}, {strength:g})" + "".join(f", on the edge of {e}" for e in edges), flush=True)  # fmt: skip
        put(TABLE, {name: {"rate": rate} | ({"strength": strength} if strength else {})})


if __name__ == "__main__":
    main()
