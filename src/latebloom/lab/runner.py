"""Runs a study: units in, traces and verdicts out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.lab.live import Silent, Watcher
from latebloom.lab.registry import module_of
from latebloom.lab.source import source_hash
from latebloom.lab.store import Store, Unit, config_dict
from latebloom.lab.study import Figure, Study
from latebloom.lab.units import compute, compute_side_by_side
from latebloom.lab.verdict import Verdict, judge

SEEDS_PER_UNIT = 8


@dataclass(frozen=True)
class Pass:
    """A study run once: what was asked for, the traces, and what the claims came to."""

    study: Study
    budget: str
    seeds: tuple[int, ...]
    configs: Mapping[str, Any]
    changed: bool  # whether seeds, arms or settings differ from the budget's
    traces: Mapping[str, xr.Dataset]
    paths: tuple[Path, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float  # building, compiling and running all units, also those found in the store
    waited: float  # seconds that this call took
    source: str
    date: str

    @cached_property
    def figures(self) -> tuple[tuple[Figure, MatplotlibFigure], ...]:
        """The study's figures whose arms were run, drawn once."""
        ran = [f for f in self.study.figures if all(arm in self.traces for arm in f.arms)]
        return tuple((figure, figure.draw(self.traces)) for figure in ran)

    def record(self) -> dict[str, Any]:
        """The pass as JSON-able values, without the traces."""
        return {
            "study": self.study.slug,
            "title": self.study.paper.title,
            "citation": self.study.paper.citation(),
            "budget": self.budget,
            "changed": self.changed,
            "seeds": list(self.seeds),
            "date": self.date,
            "seconds": round(self.seconds, 1),
            "source": self.source,
            "data": self.study.data,
            "versions": {
                k: _first(self.traces).attrs.get(k, "mixed")
                for k in ("latebloom", "jax", "backend")
            },
            "configs": {arm: config_dict(config) for arm, config in self.configs.items()},
            "traces": [str(path) for path in self.paths],
            "verdicts": [verdict.row() for verdict in self.verdicts],
        }


def _first(traces: Mapping[str, xr.Dataset]) -> xr.Dataset:
    return next(iter(traces.values()))


def source_of_units(study: Study) -> str:
    """Hash of what the traces of a study depend on."""
    configs = {type(config) for config in study.arms.values()}
    return source_hash(module_of(study), [study.process, study.schedule, *configs])


def source_of_verdicts(study: Study) -> str:
    """Hash of what its verdicts depend on: the traces and the checks."""
    checks = [c.effect for c in study.claims]
    fixed = [f"{c.id} {c.holds}" for c in study.claims]
    own = source_hash(module_of(study), checks)
    text = repr((source_of_units(study), fixed, own))
    return hashlib.sha256(text.encode()).hexdigest()


def run(
    study: Study,
    budget: str = "quick",
    *,
    seeds: int | None = None,
    arms: Sequence[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    store: Store | None = None,
    resume: bool = True,
    jobs: int = 1,
    watch: Watcher | None = None,
) -> Pass:
    """Run what is missing of a study at a budget, judge its claims, keep a record in the store.

    - `seeds`, `arms`, `overrides` (setting -> text) replace the budget's own.
    - `resume=False` starts units afresh that were under way; finished ones are kept.
    - `jobs`: processes that compute arms side by side. A script that asks for more than one keeps
      its own work under `if __name__ == "__main__":`, as for any `multiprocessing`.
    - `watch` is told of progress.

    Raises `ValueError` for a budget, arm or setting that does not exist, and `ChildProcessError` if
    one of several processes was killed.
    """
    started = time.perf_counter()
    store, watch = store or Store(), watch or Silent()
    chosen = study.budget(budget)
    count = chosen.seeds if seeds is None else seeds
    if count < 1:
        raise ValueError(f"seeds must be at least 1, not {count}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    configs = study.configs(chosen, tuple(arms) if arms else None, overrides)
    source = source_of_units(study)
    chunks = [
        tuple(range(i, min(i + SEEDS_PER_UNIT, count))) for i in range(0, count, SEEDS_PER_UNIT)
    ]
    units = {
        arm: [
            Unit(study.slug, arm, config, chunk, _steps(study, config), source) for chunk in chunks
        ]
        for arm, config in configs.items()
    }
    traces, paths = {}, []
    watch.start(study, budget, {arm: len(chunks) for arm in configs})
    try:
        made = _side_by_side(study, units, store, resume, jobs, watch) if jobs > 1 else {}
        for arm in configs:
            parts = []
            for unit in units[arm]:
                if (trace := made.get((arm, unit.seeds))) is None:
                    trace = compute(study.process, unit, store, resume, partial(watch.tick, arm))
                    watch.found(arm, trace)
                parts.append(trace)
            traces[arm] = xr.concat(parts, "seed", combine_attrs="drop_conflicts") if (
                len(parts) > 1) else parts[0]  # fmt: skip
            traces[arm].attrs["seconds"] = sum(
                p.attrs["compile_seconds"] + p.attrs["run_seconds"] for p in parts
            )
            paths += [store.path(unit) for unit in units[arm]]
        watch.judging()
        verdicts = tuple(judge(claim, traces) for claim in study.claims)
    finally:
        watch.stop()
    done = Pass(
        study, budget, tuple(range(count)), configs, bool(arms or overrides or seeds is not None),
        traces, tuple(paths), verdicts, sum(t.attrs["seconds"] for t in traces.values()),
        time.perf_counter() - started, source_of_verdicts(study),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    store.write_record(study.slug, f"pass-{budget}", done.record())
    return done


def _steps(study: Study, config: Any) -> tuple[int, ...]:
    return tuple(int(step) for step in np.asarray(study.schedule(config)))


def _side_by_side(
    study: Study, units: Mapping[str, Sequence[Unit]], store: Store, resume: bool, jobs: int,
    watch: Watcher,
) -> dict[tuple[str, tuple[int, ...]], xr.Dataset]:  # fmt: skip
    """Traces by arm and seeds of what the store lacks; units that are alike are computed once."""
    missing = {u.key: u for arm in units.values() for u in arm if not store.path(u).exists()}
    if len(missing) < 2:
        return {}
    made = {}
    for unit, trace in compute_side_by_side(
        study.process, list(missing.values()), store, resume, jobs, watch.tick
    ):
        made[unit.arm, unit.seeds] = trace
        watch.found(unit.arm, trace)
    return made
