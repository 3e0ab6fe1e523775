"""Which learning rate and strength does each method want in each kind of increment?

Run: python benchmarks/stability_gap_tuning.py [SETTING ...]
A climb on a grid of rates and strengths: from a start in the middle to the best neighbour until none is
better, by the final accuracy over all tasks on seeds 100 and 101, which the study does not use. Prints what was
tried, says where a winner is on the grid's edge, and puts the winners into the table that the study reads.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from latebloom import unfold
from latebloom.methods.forgetting.metrics import average_accuracy
from latebloom.studies.forgetting import stability_gap
from latebloom.studies.forgetting.stability_gap import SETTINGS, Config, make_process, schedule

TABLE = Path(stability_gap.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
STRENGTHS = {
    "fine-tuning": (0.0,),
    "er": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    "gem": (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    "ewc": (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5),
    "lwf": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
}
START = {"fine-tuning": 0.0, "er": 0.3, "gem": 0.5, "ewc": 10.0, "lwf": 1.0}


def score(config: Config) -> float:
    config = replace(config, every=config.steps)
    trace = unfold(make_process(config), seeds=SEEDS, at=schedule(config), progress=False)
    ended = trace.diverged_at.values < 0
    return float(average_accuracy(trace).mean()) if ended.all() else float("nan")


def climb(setting: str, method: str) -> tuple[float, float]:
    strengths, known = STRENGTHS[method], {}

    def at(i: int, j: int) -> float:
        if (i, j) not in known:
            config = Config(setting, method, rate=RATES[i], strength=strengths[j])
            known[i, j] = score(replace(config, **SETTINGS[setting]))
        return known[i, j]

    best = RATES.index(0.03), strengths.index(START[method])
    while True:
        i, j = best
        near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        near = [(a, b) for a, b in near if 0 <= a < len(RATES) and 0 <= b < len(strengths)]
        found = max(near, key=lambda place: np.nan_to_num(at(*place), nan=-1))
        if not at(*found) > np.nan_to_num(at(*best), nan=-1):
            break
        best = found
    i, j = best
    edges = {
        "rate": i in (0, len(RATES) - 1),
        "strength": len(strengths) > 1 and j in (0, len(strengths) - 1),
    }
    on_edge = "".join(f" ({name} on the edge)" for name, on in edges.items() if on)
    print(
        f"{setting} {method}: rate {RATES[i]:g}, strength {strengths[j]:g}, accuracy {at(i, j):.3f}{on_edge}",
        flush=True,
    )
    for (a, b), accuracy in sorted(known.items()):
        print(f"  rate {RATES[a]:<6g} strength {strengths[b]:<6g} {accuracy:.3f}", flush=True)
    return RATES[i], strengths[j]


def main() -> None:
    table = json.loads(TABLE.read_text())
    for setting in sys.argv[1:] or SETTINGS:
        for method in STRENGTHS:
            table[setting][method] = climb(setting, method)
            TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
