"""Units of work computed, in this process or by several side by side."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from functools import partial
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from latebloom.core.process import HostProcess
from latebloom.core.progress import Tick
from latebloom.core.unfold import unfold
from latebloom.lab import identity
from latebloom.lab.registry import load, module_of
from latebloom.lab.source import PACKAGE
from latebloom.lab.store import Store, Unit, config_dict
from latebloom.lab.study import Study

SEEDS_PER_UNIT = 8


def chunks_of(seeds: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The seeds of each unit of an arm."""
    each = tuple(seeds)
    return tuple(each[i : i + SEEDS_PER_UNIT] for i in range(0, len(each), SEEDS_PER_UNIT))


def steps_of(study: Study, config: Any) -> tuple[int, ...]:
    """The observation steps of an arm."""
    return tuple(int(step) for step in np.asarray(study.schedule(config)))


def roots_of(study: Study) -> list[Callable[..., Any]]:
    """What the traces of a study are made by: its process, its schedule, its configs, and the
    functions that these hold."""
    configs = list(study.arms.values())
    held = [getattr(config, field.name) for config in configs for field in fields(config)]
    given = {each for each in held if callable(each) and hasattr(each, "__qualname__")}
    return [study.process, study.schedule, *{type(config) for config in configs}, *given]


def joined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The traces of an arm's units as one; their programs and prefixes are joined by "+"."""
    whole = parts[0].copy() if len(parts) == 1 else xr.concat(
        parts, "seed", combine_attrs="drop_conflicts")  # fmt: skip
    for name in ("program", "prefix"):
        whole.attrs[name] = "+".join(p.attrs.get(name, "") for p in parts).strip("+")
    whole.attrs["seconds"] = sum(p.attrs["compile_seconds"] + p.attrs["run_seconds"] for p in parts)
    return whole


@contextlib.contextmanager
def naming(unit: Unit) -> Iterator[None]:
    """What a unit finds wrong names its study and arm."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{unit.study}, arm {unit.arm}: {error}") from error


def compute(
    process: Callable[[Any], Any], unit: Unit, store: Store, resume: bool,
    tick: Callable[[Tick], None],
) -> xr.Dataset:  # fmt: skip
    """The unit's trace: found in the store, or run from its last checkpoint and kept there.

    It is found by the hash of its sources at once, or by that of the program they come to. A program
    of the user's own always counts: it may be made of more than sources show, such as files.
    """
    with store.lock(unit):
        found = store.read(unit)
        if found is not None and getattr(process, "__module__", "").split(".")[0] == PACKAGE:
            return found
        with naming(unit):
            begun = time.perf_counter()
            built = process(unit.config)
            program = identity.key(built, unit.seeds, unit.at)
            if found is not None and program in ("", identity.key_of(found)):
                return found
            if program and (found := store.find(unit, program)) is not None:
                return found
            building = time.perf_counter() - begun
            # How many threads NumPy uses changes the last bits of what it computes.
            with threadpool_limits(1 if isinstance(built, HostProcess) else None):
                trace = unfold(
                    built,
                    seeds=unit.seeds,
                    at=np.array(unit.at),
                    progress=tick,
                    checkpoint=store.checkpoint(unit),
                    checkpoint_seconds=float(os.environ.get("LATEBLOOM_CHECKPOINT_SECONDS", 10)),
                    resume=resume,
                    config=config_dict(unit.config),
                )
        if isinstance(built, HostProcess):
            trace.attrs["program"] = identity.program_of(built, unit.seeds, unit.at)
        trace.attrs["compile_seconds"] = round(trace.attrs["compile_seconds"] + building, 3)
        store.write(unit, trace)
        if program:
            store.remember(unit, program)
        return trace


def compute_side_by_side(
    study: Study, units: Sequence[Unit], store: Store, resume: bool, jobs: int,
    tick: Callable[[str, Tick], None],
) -> Iterator[tuple[Unit, xr.Dataset]]:  # fmt: skip
    """Each unit with its trace, as `jobs` processes get them done; `tick` is told arm and progress.

    Worth it for methods in plain Python, and for arms that each compile a program of their own; others
    use all cores by themselves. Processes end with this one, and when it stops early.

    Raises what a unit raises, or `ChildProcessError` if a process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    module = module_of(study)
    beginning = (told, module.__name__, getattr(module, "__file__", None))
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(units)), spawn, _begin, beginning)
    try:
        waiting = {pool.submit(_work, study.process, u, store.folder, resume): u for u in units}
        while waiting:
            done, _ = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            while not told.empty():
                tick(*told.get())
            for future in done:
                unit = waiting.pop(future)
                for message in future.result():
                    warnings.warn(message, stacklevel=2)
                trace = store.read(unit)
                assert trace is not None
                yield unit, trace
        pool.shutdown()
    except (pickle.PicklingError, AttributeError) as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(
            f"{study.slug} cannot be computed by several processes ({error}): define its process and "
            "configs by name at the top level of its file, or leave out --jobs"
        ) from None
    except BrokenProcessPool:
        raise ChildProcessError(
            "a process of this run was killed, most likely for want of memory: run the same command "
            "with --jobs 1; what was finished is kept"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in (left := set(multiprocessing.active_children()) - before):
            child.terminate()
        for child in left:
            child.join(10)


_told: Any = None


def _begin(told: Any, module: str, file: str | None) -> None:
    global _told
    _told = told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if file and module not in sys.modules and module.split(".")[0] != PACKAGE:
        load(Path(file), module)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _work(process: Callable[[Any], Any], unit: Unit, folder: Path, resume: bool) -> list[str]:
    """Computes a unit into the store; returns the warnings it gave."""
    return compute_quietly(process, unit, Store(folder), resume, lambda *told: _told.put(told))[1]


def compute_quietly(
    process: Callable[[Any], Any], unit: Unit, store: Store, resume: bool,
    tick: Callable[[str, Tick], None],
) -> tuple[xr.Dataset, list[str]]:  # fmt: skip
    """`compute` for a process that nobody sees: the trace, and the warnings it gave."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trace = compute(process, unit, store, resume, partial(tick, unit.arm))
    return trace, [str(w.message) for w in seen if issubclass(w.category, UserWarning)]
