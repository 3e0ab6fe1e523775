"""Which learning rate does each optimiser, head and data set want on a long stream of classes that come back?

Run: python benchmarks/scole_tuning.py [NAME ...]
On seeds 100 and 101, which the study does not use, at its own scale. The score is the mean accuracy on the full test
set over the last fifth of the tasks, 0 for a seed that diverged. Prints it for each rate, goes on to
higher or lower ones as long as the best lies on the edge, and puts the winners into the table that the study reads.
"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from latebloom import unfold
from latebloom.studies.forgetting import scole as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
GRIDS = {"sgd": (0.03, 0.1, 0.3), "momentum": (0.001, 0.003, 0.01), "adam": (0.0003, 0.001, 0.003)}


def beside(rate: float, up: bool) -> float:
    """The neighbour in 1, 3, 10, 30, ..."""
    power = np.floor(np.log10(rate) + 1e-9)
    digit = round(rate / 10**power)
    higher = {1: 3.0, 3: 10.0}[digit] if up else {1: 0.3, 3: 1.0}[digit]
    return float(f"{higher * 10**power:.0e}")


def late(name: str, rate: float) -> float:
    config = replace(study.CELLS[name], rate=rate)
    at = study.schedule(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=at[at >= 0.8 * at[-1]], progress=False)  # fmt: skip
    return float(np.nan_to_num(trace.accuracy.mean(("step", "task"), skipna=False).values).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(study.CELLS))
    for name in parser.parse_args().names:
        start = time.perf_counter()
        found = {rate: late(name, rate) for rate in GRIDS[study.CELLS[name].rule]}
        while (best := max(found, key=lambda r: found[r])) in (min(found), max(found)):
            further = beside(best, up=best == max(found))
            found[further] = late(name, further)
        shown = "  ".join(f"{rate:g}: {100 * found[rate]:.1f}" for rate in sorted(found))
        print(
            f"{name} ({time.perf_counter() - start:.0f} s): {shown}; best {best:g}",
            flush=True,
        )
        table = json.loads(TABLE.read_text()) | {name: best}
        order = [cell for cell in study.CELLS if cell in table]
        TABLE.write_text(json.dumps({cell: table[cell] for cell in order}, indent=1) + "\n")


if __name__ == "__main__":
    main()
