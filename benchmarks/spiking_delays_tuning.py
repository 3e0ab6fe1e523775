"""Which rates does each network want: learned and fixed delays, none, recurrent connections, gated units; and the student of a teacher?

Run: python benchmarks/spiking_delays_tuning.py [DATA[/KIND] ...]
A climb on a grid, from the middle to the best neighbour until none is better, by accuracy on the validation exam with whole
delays (of the student: by the error of its potentials or spikes, which knows no delay), on seeds 100 and 101, which the
study does not use. Prints what was tried, says where a winner is on the grid's edge, and puts it into the table that the
study reads.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.recurrence import spiking_delays
from latebloom.studies.recurrence.spiking_delays import Config, make_process, schedule

TABLE = Path(spiking_delays.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DELAY_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
TAUS = (1.005, 1.5, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
SIGMAS = (0.01, 0.03, 0.1, 0.23, 0.5, 1.0, 2.0, 4.0)
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "learned": {"rate": RATES, "delay_rate": DELAY_RATES},
    "constant": {"rate": RATES, "delay_rate": DELAY_RATES, "sigma": SIGMAS},
    "membrane": {"rate": RATES, "delay_rate": DELAY_RATES}, "spikes": {"rate": RATES, "delay_rate": DELAY_RATES},
    "recurrent": {"rate": RATES, "tau": TAUS},
    **{kind: {"rate": RATES} for kind in ("fixed", "none", "gated")},
}  # fmt: skip


def score(config: Config) -> float:
    last = int(schedule(config)[-1])
    trace = unfold(make_process(config), seeds=SEEDS, at=[last], progress=False)
    if (trace.diverged_at.values >= 0).any():
        return float("nan")
    if config.kind in ("membrane", "spikes"):
        return -float(trace.error.mean())
    return float(trace.accuracy.sel(exam="valid").isel(step=-1).mean())


def tune(data: str, kind: str, now: dict[str, float]) -> dict[str, Any]:
    grids = GRIDS[kind]
    network = {"constant": "membrane" if data == "teacher" else "learned"}.get(kind, kind)
    how = {"of": kind, "annealed": kind != "constant"}
    plain = spiking_delays.student(network, **how) if data == "teacher" else spiking_delays.tuned(network, data, **how)  # pyright: ignore # fmt: skip

    def at(*values: float) -> float:
        found = score(replace(plain, **dict(zip(grids, values, strict=True))))
        print(f"  {' '.join(f'{n} {v:g}' for n, v in zip(grids, values, strict=True))}: {found:.3f}", flush=True)  # fmt: skip
        return found

    found = climb(at, tuple(grids.values()), tuple(now[name] for name in grids))
    edges = [name for name, on in zip(grids, found.on_edge, strict=True) if on]
    best = dict(zip(grids, found.best, strict=True))
    print(f"{data}/{kind}: {best}, {found.score:.3f}{' (on the edge: ' + ', '.join(edges) + ')' if edges else ''}", flush=True)  # fmt: skip
    return best


def main() -> None:
    table = json.loads(TABLE.read_text())
    every = [f"{data}/{kind}" for data, kinds in table.items() for kind in kinds]
    asked = [name for name in every if not sys.argv[1:] or any(name == a or name.startswith(f"{a}/") for a in sys.argv[1:])]  # fmt: skip
    for name in asked:
        data, kind = name.split("/")
        table[data][kind] = tune(data, kind, table[data][kind])
        TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
