"""Which rate does each task want without a penalty, and how strong is each penalty to be?

Run: python benchmarks/solver_regularization_tuning.py [TASK[/NAME] ...]
On seeds 100 and 101, examined on examples kept from training (series, points, moments: another draw), none of which the study
uses. The rate is the best one without a penalty. A strength is the one with the fewest evaluations at prediction among those
that cost less than the task's allowance against none; so is weight decay, by the same rule. A climb on a grid, from what the
table says to the best neighbour until none is better. Prints what was tried, says where a winner is on the grid's edge, and
puts it into the table that the study reads.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.continuous import solver_regularization
from latebloom.studies.continuous.solver_regularization import Config, make_process, schedule, tuned

TABLE = Path(solver_regularization.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = tuple(float(r) for r in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
STRENGTHS = tuple(float(f"1e{k}") for k in range(-7, 7))
ALLOWED = {
    "digits": 0.75,
    "noise": 1.0,
    "spiral": 0.15,
    "series": 0.15,
    "density": 0.05,
}  # see `loss`


def loss(config: Config) -> tuple[float, float]:
    """What a task is judged by (points of error; logarithms of misfits; nats), and the evaluations."""
    trace = unfold(make_process(config), seeds=SEEDS, at=[int(schedule(config)[-1])], progress=False)  # fmt: skip
    if (trace.diverged_at.values >= 0).any():
        return float("inf"), float("nan")
    last = trace.isel(step=-1)
    found = {
        "digits": lambda: 100 * (1 - last.test_accuracy), "noise": lambda: 100 * (1 - last.test_accuracy),
        "spiral": lambda: np.log(last.fit), "series": lambda: np.log(last.hidden_loss), "density": lambda: last.test_loss,
    }[config.task]()  # fmt: skip
    return float(found.mean()), float(last.evaluations.mean())


def tune_rate(task: Any, now: float) -> float:
    plain = replace(tuned(task, "none"), valid=True)

    def worth(rate: float) -> float:
        found, evaluations = loss(replace(plain, rate=rate))
        print(f"  rate {rate:g}: {found:.3f}, {evaluations:.0f} evaluations", flush=True)
        return -found

    found = climb(worth, (RATES,), (now,))
    print(f"{task}/rate: {found.best[0]:g}{' (on the edge)' if found.on_edge[0] else ''}", flush=True)  # fmt: skip
    return found.best[0]


def tune_strength(task: Any, kind: str, now: float) -> float:
    plain = replace(tuned(task, kind), valid=True)
    base = "stiff-none" if task == "noise" and kind == "stiffness" else "none"
    limit = loss(replace(tuned(task, base), valid=True))[0] + ALLOWED[task]
    knob = "decay" if kind == "decay" else "strength"

    def worth(value: float) -> float:
        found, evaluations = loss(replace(plain, **{knob: value}))
        print(f"  {kind} {value:g}: {found:.3f}, {evaluations:.0f} evaluations", flush=True)
        return -evaluations if found < limit else float("nan")

    found = climb(worth, (STRENGTHS,), (now,))
    edge = " (on the edge)" if found.on_edge[0] else " (none is within the allowance)" if np.isnan(found.score) else ""  # fmt: skip
    print(f"{task}/{kind}: {found.best[0]:g}, below {limit:.3f}{edge}", flush=True)
    return found.best[0]


def main() -> None:
    table = json.loads(TABLE.read_text())
    every = [f"{task}/{name}" for task, names in table.items() for name in names]
    asked = [name for name in every if not sys.argv[1:] or any(name == a or name.startswith(f"{a}/") for a in sys.argv[1:])]  # fmt: skip
    for name in asked:
        task, kind = name.split("/")
        now = table[task][kind]
        table[task][kind] = tune_rate(task, now) if kind == "rate" else tune_strength(task, kind, now)  # fmt: skip
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
        solver_regularization.TUNED[task][kind] = table[task][kind]


if __name__ == "__main__":
    main()
