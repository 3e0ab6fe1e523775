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

from latebloom.core.progress import Tick
from latebloom.lab.effects import effect_hash
from latebloom.lab.live import Silent, Watcher
from latebloom.lab.naming import said
from latebloom.lab.plain import plain
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
    changes: Mapping[str, Any]  # the seeds, arms and settings that replaced the budget's
    traces: Mapping[str, xr.Dataset]
    paths: tuple[Path, ...]
    verdicts: tuple[Verdict, ...]  # of the budget's claims whose arms were run
    seconds: float  # building, compiling and running all units, also those found in the store
    waited: float  # seconds that this call took
    found: int  # runs, an arm for one seed each, that the store had already
    source: str
    date: str

    @property
    def changed(self) -> bool:
        """Whether it is another pass than that of the budget as it stands."""
        return bool(self.changes)

    @cached_property
    def figures(self) -> tuple[tuple[Figure, MatplotlibFigure], ...]:
        """The study's figures whose arms were run, drawn once.

        Raises `ValueError` that names the study and a figure that cannot be drawn.
        """
        ran = [f for f in self.study.figures if all(arm in self.traces for arm in f.arms)]
        return tuple((figure, self._drawn(figure)) for figure in ran)

    def _drawn(self, figure: Figure) -> MatplotlibFigure:
        try:
            return figure.draw(self.traces)
        except Exception as error:
            name = f"{self.study.slug}, figure {figure.name}"
            raise ValueError(f"{name} cannot be drawn: {said(error)}") from error

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
            "changes": plain(self.changes),
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

    What is found is kept in the store as "pass-<budget>"; where seeds, arms or settings are not the
    budget's own, as "changed-<budget>".

    Raises `ValueError` for a budget, arm or setting that does not exist, a budget that has nothing to
    run, seeds that cannot be, a claim that cannot be computed or a cluster that does not answer, and
    `ChildProcessError` if one of several processes was killed.
    """
    started = time.perf_counter()
    store, watch = store or Store(), watch or Silent()
    each = _seeds(study.budget(budget).seeds if seeds is None else seeds)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    if jobs > 1 and cluster:
        raise ValueError("give either jobs, for processes here, or a cluster")
    configs = study.configs(budget, tuple(arms) if arms else None, overrides)
    changes = {
        **({} if seeds is None else {"seeds": list(each)}),
        **({"arms": list(arms)} if arms else {}),
        **({"settings": dict(overrides)} if overrides else {}),
    }
    if not configs:
        able = ", ".join(name for name in study.budgets if study.arms_of(name))
        raise ValueError(
            f"{study.slug} has nothing to run at the budget {budget!r}, for no claim of it reads an arm"
            + (f"; it has at: {able}" if able else "")
        )
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
        every = [unit for arm in units.values() for unit in arm]
        ran = {unit.key for unit in every if (unit.arm, unit.seeds) in made}
        for arm in configs:
            parts = []
            for unit in units[arm]:
                if (trace := made.get((arm, unit.seeds))) is None:
                    tick = partial(_tell, watch, ran, unit)
                    trace = compute(study.process, unit, store, resume, tick)
                    watch.found(arm, trace)
                parts.append(trace)
            traces[arm] = joined(parts)
            paths += [store.path(unit) for unit in units[arm]]
        watch.judging()
        verdicts = [_judged(study, claim, traces) for claim in study.claims_of(budget)]
    finally:
        watch.stop()
    done = Pass(
        study, budget, each, configs, changes, traces,
        tuple(paths), tuple(v for v in verdicts if v.verdict != "not run"),
        sum(t.attrs["seconds"] for t in traces.values()), time.perf_counter() - started,
        sum(len(unit.seeds) for unit in every if unit.key not in ran), source,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    store.write_record(
        study.slug, f"{'changed' if done.changed else 'pass'}-{budget}", done.record()
    )
    return done


def _tell(watch: Watcher, ran: set[str], unit: Unit, tick: Tick) -> None:
    ran.add(unit.key)
    watch.tick(unit.arm, tick)


def _judged(study: Study, claim: Claim, traces: Mapping[str, xr.Dataset]) -> Verdict:
    try:
        return judge(claim, traces)
    except ValueError as error:
        raise ValueError(f"{study.slug}, {error}") from error


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
