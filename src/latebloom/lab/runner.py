"""Runs a study: units in, traces and verdicts out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.lab.effects import effect_hash
from latebloom.lab.live import Silent, Watcher
from latebloom.lab.registry import module_of
from latebloom.lab.source import PACKAGE, source_hash
from latebloom.lab.store import Store, Unit, config_dict
from latebloom.lab.study import Claim, Figure, Study
from latebloom.lab.units import (
    chunks_of,
    compute,
    compute_side_by_side,
    joined,
    roots_of,
    steps_of,
)
from latebloom.lab.verdict import Verdict, judge


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
    verdicts: tuple[Verdict, ...]  # of the budget's claims whose arms were run
    seconds: float  # building, compiling and running all units, also those found in the store
    waited: float  # seconds that this call took
    source: str
    date: str

    @cached_property
    def figures(self) -> tuple[tuple[Figure, MatplotlibFigure], ...]:
        """The study's figures whose arms were run, drawn once."""
        ran = [f for f in self.study.figures if all(arm in self.traces for arm in f.arms)]
        return tuple((figure, figure.draw(self.traces)) for figure in ran)

    @property
    def unjudged(self) -> tuple[Claim, ...]:
        """Claims of the budget that need arms which were not run."""
        judged = {verdict.claim for verdict in self.verdicts}
        return tuple(c for c in self.study.claims_of(self.budget) if c.id not in judged)

    def record(self) -> dict[str, Any]:
        """The pass as JSON-able values, without the traces."""
        study, claims = self.study, {claim.id: claim for claim in self.study.claims}
        return {
            "study": study.slug,
            "title": study.paper.title,
            "citation": study.paper.citation(),
            "family": study.family,
            "question": study.question,
            "file": file_of(study),
            "data": study.data,
            "budget": self.budget,
            "changed": self.changed,
            "seeds": list(self.seeds),
            "date": self.date,
            "seconds": round(self.seconds, 1),
            "source": self.source,
            "versions": {
                k: _first(self.traces).attrs.get(k, "mixed")
                for k in ("latebloom", "jax", "backend")
            },
            "arms": {
                arm: {
                    "config": config_dict(config),
                    "program": self.traces[arm].attrs.get("program"),
                    "prefix": self.traces[arm].attrs.get("prefix"),
                }
                for arm, config in self.configs.items()
            },
            "traces": [str(path) for path in self.paths],
            "verdicts": [
                verdict.row()
                | {
                    "arms": list(claims[verdict.claim].arms),
                    "effect": effect_hash(study, claims[verdict.claim]),
                }
                for verdict in self.verdicts
            ],
        }


def _first(traces: Mapping[str, xr.Dataset]) -> xr.Dataset:
    return next(iter(traces.values()))


def file_of(study: Study) -> str | None:
    """The file of a study of the user's own, "" where that is a script under way; None for one of
    the package's."""
    module = module_of(study)
    if module.__name__.split(".")[0] == PACKAGE:
        return None
    return str(Path(module.__file__ or "").resolve()) if module.__name__ != "__main__" else ""


def source_of_units(study: Study) -> str:
    """Hash of what the traces of a study depend on."""
    return source_hash(module_of(study), roots_of(study))


def run(
    study: Study,
    budget: str = "quick",
    *,
    seeds: int | Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    store: Store | None = None,
    resume: bool = True,
    jobs: int = 1,
    cluster: str | None = None,
    watch: Watcher | None = None,
) -> Pass:
    """Run what is missing of a study at a budget, judge its claims, keep a record in the store.

    - `seeds` (how many, from 0 on, or which), `arms`, `overrides` (setting -> text) replace the
      budget's own.
    - `resume=False` starts units afresh that were under way; finished ones are kept.
    - `jobs`: processes that compute arms side by side. A script that asks for more than one keeps
      its own work under `if __name__ == "__main__":`, as for any `multiprocessing`.
    - `cluster`: a Ray cluster that computes what is missing: "auto" (the one that Ray finds from
      here) or the HOST:PORT of its head node.
    - `watch` is told of progress.

    Raises `ValueError` for a budget, arm or setting that does not exist, seeds that cannot be or a
    cluster that does not answer, and `ChildProcessError` if one of several processes was killed.
    """
    started = time.perf_counter()
    store, watch = store or Store(), watch or Silent()
    each = _seeds(study.budget(budget).seeds if seeds is None else seeds)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    if jobs > 1 and cluster:
        raise ValueError("give either jobs, for processes here, or a cluster")
    configs = study.configs(budget, tuple(arms) if arms else None, overrides)
    source = source_of_units(study)
    chunks = chunks_of(each)
    units = {
        arm: [
            Unit(study.slug, arm, config, chunk, steps_of(study, config), source)
            for chunk in chunks
        ]
        for arm, config in configs.items()
    }
    traces, paths = {}, []
    watch.start(study, budget, {arm: len(chunks) for arm in configs})
    try:
        made = _made_elsewhere(study, units, store, resume, jobs, cluster, watch)
        for arm in configs:
            parts = []
            for unit in units[arm]:
                if (trace := made.get((arm, unit.seeds))) is None:
                    trace = compute(study.process, unit, store, resume, partial(watch.tick, arm))
                    watch.found(arm, trace)
                parts.append(trace)
            traces[arm] = joined(parts)
            paths += [store.path(unit) for unit in units[arm]]
        watch.judging()
        verdicts = [judge(claim, traces) for claim in study.claims_of(budget)]
    finally:
        watch.stop()
    done = Pass(
        study, budget, each, configs, bool(arms or overrides or seeds is not None), traces,
        tuple(paths), tuple(v for v in verdicts if v.verdict != "not run"),
        sum(t.attrs["seconds"] for t in traces.values()), time.perf_counter() - started, source,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    store.write_record(study.slug, f"pass-{budget}", done.record())
    return done


def _seeds(asked: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(asked, int):
        if asked < 1:
            raise ValueError(f"seeds must be at least 1, not {asked}")
        return tuple(range(asked))
    each = tuple(int(seed) for seed in asked)
    if not each or min(each) < 0 or len(set(each)) < len(each):
        raise ValueError(f"seeds must be different numbers from 0 on, not {list(each)}")
    return each


def _made_elsewhere(
    study: Study, units: Mapping[str, Sequence[Unit]], store: Store, resume: bool, jobs: int,
    cluster: str | None, watch: Watcher,
) -> dict[tuple[str, tuple[int, ...]], xr.Dataset]:  # fmt: skip
    """Traces by arm and seeds of what the store lacks and other processes, here or on a cluster,
    compute; units that are alike are computed once."""
    unique = {u.key: u for arm in units.values() for u in arm if not store.path(u).exists()}
    missing = list(unique.values())
    if cluster and missing:
        from latebloom.lab.cluster import compute_on_cluster

        done = compute_on_cluster(study, missing, store, resume, cluster, watch.tick)
    elif jobs > 1 and len(missing) > 1:
        done = compute_side_by_side(study, missing, store, resume, jobs, watch.tick)
    else:
        return {}
    made = {}
    for unit, trace in done:
        made[unit.arm, unit.seeds] = trace
        watch.found(unit.arm, trace)
    return made
