"""Which rates does each network want: learned and fixed delays, none, recurrent connections, gated units; and the student of a teacher?

Run: python benchmarks/spiking_delays_tuning.py [DATA/ENTRY ...], as timed/learned or timed/none/slow
Climbs on a grid, to the best neighbour until none is better, from the table and, of two rates, from 0.2 for both. What counts is accuracy on
the validation exam with whole delays (of the student: the error of its potentials or spikes, which knows no delay), on seeds from 100 on,
which the study does not use: six of the networks that the headline compares, for they differ much, two of others. Prints what was
tried, says where a winner is on the grid's edge, and puts it into the table that the study reads.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tables import put

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.recurrence import spiking_delays as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS, MORE = (100, 101), (100, 101, 102, 103, 104, 105)
HEADLINE = ("timed/learned", "timed/fixed", "timed/constant", "timed/one-rate")
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DELAY_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
TAUS = (1.005, 1.5, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
SIGMAS = (0.01, 0.03, 0.1, 0.23, 0.5, 1.0, 2.0, 4.0)
# Entries of the table -> the arm that reads it; others are the arms' names.
ARMS = {
    **{f"timed/{arm}": arm for arm in study.ARMS if study.ARMS[arm].data == "timed" and not arm.startswith("teacher")},
    **{f"spoken-digits/{arm.split('/')[1]}": arm for arm in study.ARMS if arm.startswith("spoken/")},
    "teacher/membrane": "teacher", "teacher/constant": "teacher/constant", "teacher/spikes": "teacher/spikes",
}  # fmt: skip


def grids_of(name: str) -> dict[str, tuple[float, ...]]:
    config = study.ARMS[ARMS[name]]
    if config.kind == "recurrent":
        return {"rate": RATES, "tau": TAUS}
    if name == "timed/one-rate" or config.kind not in ("learned", "membrane", "spikes"):
        return {"rate": RATES}
    constant = {"sigma": SIGMAS} if name.endswith("/constant") else {}
    return {"rate": RATES, "delay_rate": DELAY_RATES} | constant


def score(config: study.Config, seeds: tuple[int, ...]) -> float:
    last = int(study.schedule(config)[-1])
    trace = unfold(study.make_process(config), seeds=seeds, at=[last], progress=False)
    if (trace.diverged_at.values >= 0).any():
        return float("nan")
    if config.kind in ("membrane", "spikes"):
        return -float(trace.error.mean())
    return float(trace.accuracy.sel(exam="valid").isel(step=-1).mean())


def tune(name: str, now: dict[str, float]) -> dict[str, Any]:
    grids, plain = grids_of(name), replace(study.ARMS[ARMS[name]], show=False)

    def settings(*values: float) -> dict[str, float]:
        found = dict(zip(grids, values, strict=True))
        return found | ({"delay_rate": found["rate"]} if name == "timed/one-rate" else {})

    seeds = MORE if name in HEADLINE else SEEDS

    def at(*values: float) -> float:
        found = score(replace(plain, **settings(*values)), seeds)  # pyright: ignore
        print(f"  {' '.join(f'{n} {v:g}' for n, v in zip(grids, values, strict=True))}: {found:.3f}", flush=True)  # fmt: skip
        return found

    starts = [tuple(now[name] for name in grids)]
    if {"rate", "delay_rate"} <= grids.keys():  # the best may lie on two ridges
        starts.append(tuple({"rate": 0.2, "delay_rate": 0.2}.get(n, now[n]) for n in grids))
    found = max(
        (climb(at, tuple(grids.values()), start) for start in starts), key=lambda c: c.score
    )
    edges = [name for name, on in zip(grids, found.on_edge, strict=True) if on]
    best = settings(*found.best)
    print(f"{name}: {best}, {found.score:.3f}{' (on the edge: ' + ', '.join(edges) + ')' if edges else ''}", flush=True)  # fmt: skip
    return best


def main() -> None:
    for data, kinds in study.TUNED.items():
        for kind, now in kinds.items():
            name = f"{data}/{kind}"
            if not sys.argv[1:] or name in sys.argv[1:]:
                put(TABLE, {data: json.loads(TABLE.read_text())[data] | {kind: tune(name, now)}})


if __name__ == "__main__":
    main()
