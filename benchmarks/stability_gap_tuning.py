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

from latebloom import unfold
from latebloom.core.climbing import climb
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


def tune(setting: str, method: str) -> tuple[float, float]:
    def at(rate: float, strength: float) -> float:
        config = Config(setting, method, rate=rate, strength=strength)
        return score(replace(config, **SETTINGS[setting]))

    found = climb(at, (RATES, STRENGTHS[method]), (0.03, START[method]))
    edges = [name for name, on in zip(("rate", "strength"), found.on_edge, strict=True) if on]
    on_edge = "".join(f" ({name} on the edge)" for name in edges)
    rate, strength = found.best
    print(f"{setting} {method}: rate {rate:g}, strength {strength:g}, accuracy {found.score:.3f}{on_edge}", flush=True)  # fmt: skip
    for (r, s), accuracy in sorted(found.tried.items()):
        print(f"  rate {r:<6g} strength {s:<6g} {accuracy:.3f}", flush=True)
    return rate, strength


def main() -> None:
    table = json.loads(TABLE.read_text())
    for setting in sys.argv[1:] or SETTINGS:
        for method in STRENGTHS:
            table[setting][method] = tune(setting, method)
            TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
