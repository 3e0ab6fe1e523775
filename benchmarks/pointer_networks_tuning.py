"""Which rate does each network want: hulls by three networks, fed otherwise, by plain descent; triangulations; tours, and a teacher's?

Run: python benchmarks/pointer_networks_tuning.py [--steps UPDATES] [ARM ...]
A climb on a grid, from the rate in the table to the best neighbour until none is better, by the loss over the last quarter of
training: problems are drawn anew at each update, so it is that of problems never seen, and of no exam. On seeds 100 and 101, which
the study does not use. Prints what was tried, says where a winner is on the grid's edge, and puts it into the table that the study
reads, with the number of updates by which it was chosen: those of the study, or fewer with --steps.

With --look UPDATES nothing is put there: it shows how far a number of updates, a size and a batch get, scores of the exams too.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.recurrence import pointer_networks
from latebloom.studies.recurrence.pointer_networks import PLAIN, Config, make_process, tuned

TABLE = Path(pointer_networks.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SGD_RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def score(config: Config) -> float:
    at = [3 * config.steps // 4, config.steps]
    trace = unfold(make_process(replace(config, exam=8)), seeds=SEEDS, at=at, progress=False)
    return float("nan") if (trace.diverged_at.values >= 0).any() else -float(trace.train_loss.isel(step=-1).mean())  # fmt: skip


def tune(arm: str, steps: int) -> float:
    grid = SGD_RATES if PLAIN[arm].optimiser == "sgd" else RATES

    def at(rate: float) -> float:
        start = time.perf_counter()
        found = score(replace(tuned(arm), rate=rate, steps=steps))
        print(f"  {arm}, rate {rate:g}: {found:.4f} ({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
        return found

    found = climb(at, (grid,), (pointer_networks.TUNED[arm]["rate"],))
    print(f"{arm}: {found.best[0]:g}, {found.score:.4f}{' (on the edge)' if found.on_edge[0] else ''}", flush=True)  # fmt: skip
    return found.best[0]


def look(arm: str, steps: int, **more: int) -> None:
    """How far an arm gets in so many updates."""
    start = time.perf_counter()
    config = replace(tuned(arm, **more), steps=steps, exam=500)
    trace = unfold(make_process(config), seeds=SEEDS, at=[0, steps], progress=False).isel(step=-1)
    took = time.perf_counter() - start
    for name in ("exact", "failed", "area", "covered", "gap"):
        if name in trace:
            shown = trace[name].mean("seed").to_series().round(3).to_dict()
            print(f"{arm}, {steps} updates, {took:.0f} s, {name}: {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("arms", nargs="*", default=list(PLAIN))
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--look", type=int)
    parser.add_argument("--size", type=int, default=Config.size)
    parser.add_argument("--batch", type=int, default=Config.batch)
    told = parser.parse_args()
    for arm in told.arms:
        if told.look:
            look(arm, told.look, size=told.size, batch=told.batch)
            continue
        best = tune(arm, told.steps)
        table = json.loads(TABLE.read_text())
        table[arm] = {"rate": best, "updates": told.steps}
        TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
