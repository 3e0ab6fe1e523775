"""Units of work computed on a Ray cluster; this process alone writes the store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import logging
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from latebloom.core.checkpoint import write_atomically
from latebloom.core.progress import Tick
from latebloom.core.runs.recording import compile_options
from latebloom.lab import identity
from latebloom.lab.registry import load, module_of
from latebloom.lab.source import PACKAGE, is_followed, source_hash
from latebloom.lab.store import Store, Unit
from latebloom.lab.study import Study
from latebloom.lab.units import compute_quietly, naming, roots_of

RETRIES = 10  # of a unit whose process or node was lost
GRACE = 120.0  # seconds in which others may finish when a unit has failed
PATIENCE = 30.0  # seconds in which a cluster must answer
PAUSE = 1.0  # seconds between two looks at the progress, and two tellings of it

# Ray ends a process that gets no answer, so another one asks.
_ASK = """
import logging, sys
import ray
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def compute_on_cluster(
    study: Study, units: Sequence[Unit], store: Store, resume: bool, cluster: str,
    tick: Callable[[str, Tick], None],
) -> Iterator[tuple[Unit, xr.Dataset]]:  # fmt: skip
    """Each unit with its trace, as the cluster gets them done; `tick` is told arm and progress.

    `cluster` is "auto" (the one that Ray finds from here) or HOST:PORT. A process that is connected
    to one already uses that, with "auto". What the store knows by its program is not sent. A unit
    whose process or node is lost is computed again, `RETRIES` times at most.

    Raises `ValueError` if Ray or the cluster is missing, if a node would compute with other
    versions, sources or devices, and what a unit raises; `ChildProcessError` if one is lost for good.
    """
    ray, ours = _connected(cluster)
    waiting: dict[Any, Unit] = {}
    board = None
    try:
        send, board = _sender(ray, study, resume), _board(ray)
        known = any((store.folder / study.slug).glob("*.program"))
        for unit in units:
            if known and (found := _found(study, unit, store)) is not None:
                yield unit, found
            else:
                waiting[send(unit, board)] = unit
        asked = board.take.remote() if waiting else None
        while waiting:
            done, _ = ray.wait([*waiting], timeout=PAUSE)
            if ray.wait([asked], timeout=0)[0]:  # its answer is gone from the board: it is awaited
                with contextlib.suppress(ray.exceptions.RayError):  # progress is no result
                    for arm, told in ray.get(asked).items():
                        tick(arm, pickle.loads(told))
                asked = board.take.remote()
            for task in done:
                unit = waiting.pop(task)
                try:
                    kept = _keep(store, unit, *_result(ray, task, unit))
                except (ValueError, ChildProcessError):
                    _finish(ray, waiting, store)
                    raise
                yield unit, kept
    finally:
        _stop(ray, list(waiting))
        if board is not None:
            ray.kill(board)
        if ours:
            ray.shutdown()


def _stop(ray: Any, tasks: list[Any]) -> None:
    """Ends what is under way. A task may only be about to begin when it is told, so all are told again."""
    for _ in range(5):
        if not tasks:
            return
        with contextlib.suppress(Exception):
            for task in tasks:
                ray.cancel(task, force=True)
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=1)


def _connected(cluster: str) -> tuple[Any, bool]:
    """Ray, connected to the cluster, and whether it was not before."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ValueError('a cluster needs Ray: pip install "latebloom[ray]"') from None
    host, _, port = cluster.rpartition(":")
    if cluster != "auto" and not (host and port.isdigit() and "/" not in host):
        raise ValueError(
            f"cluster is auto or HOST:PORT, not {cluster!r}; run it on a machine of the cluster"
        )
    if ray.is_initialized():
        if cluster != "auto":
            raise ValueError('this process is connected to a Ray cluster already: use "auto"')
        return ray, False
    ask = [sys.executable, "-c", _ASK, cluster]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"no Ray cluster answers at {cluster} within {PATIENCE:g} s: start one with "
            "`ray start --head`"
        ) from None
    if asked.returncode:
        if "Could not find any running Ray instance" in asked.stderr:
            raise ValueError(
                "there is no Ray cluster here: start one with `ray start --head`, or give its "
                "HOST:PORT"
            )
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"the Ray cluster {cluster} cannot be joined from here: {reason}")
    printer: Any = importlib.import_module("ray._private.worker")
    printer.listen_error_messages = lambda *_: None  # of what befalls nodes, on standard output
    ray.init(cluster, log_to_driver=False, logging_level=logging.CRITICAL)
    return ray, True


def _sender(ray: Any, study: Study, resume: bool) -> Callable[[Unit, Any], Any]:
    """A function that gives a unit to the cluster, and progress to a board."""
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    if (largest := max(cpus, default=0)) < 1:
        raise ValueError("no node of the Ray cluster has a CPU to compute with")
    each = 1 if study.side_by_side else min(jax.local_device_count(), largest)
    where = {"env_vars": _environment()}
    task = ray.remote(num_cpus=each, max_retries=RETRIES, runtime_env=where)(_work)
    here, sources = _here(), ray.put(_sources(study))
    try:
        roots = pickle.dumps(roots_of(study))
    except (pickle.PicklingError, AttributeError) as error:
        raise ValueError(f"{study.slug} cannot be sent to other machines: {error}") from None

    def send(unit: Unit, board: Any) -> Any:
        return task.remote(here, sources, roots, pickle.dumps(unit), resume, study.watch, board)

    return send


def _environment() -> dict[str, str]:
    """What the bits of a result depend on: flags, and how many threads share out an operation."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    carried = {
        name: value for name, value in os.environ.items()
        if name.startswith(("JAX_", "XLA_", "LATEBLOOM_CHECKPOINT")) or name.endswith("_NUM_THREADS")
    }  # fmt: skip
    # The devices that JAX has here; the variable may have been set when it was too late for them.
    devices = f"--xla_force_host_platform_device_count={jax.local_device_count()}"
    carried["XLA_FLAGS"] = f"{compile_options()} {devices}".strip()
    return {"NPROC": os.environ.get("NPROC", str(cores)), "OMP_NUM_THREADS": str(cores)} | carried


def _here() -> dict[str, str]:
    """What must be alike on this machine and where a unit is computed, besides its sources."""
    versions = {name: version(name) for name in (PACKAGE, "jax", "jaxlib", "numpy", "scipy")}
    devices = f"{jax.default_backend()} x {jax.local_device_count()}"
    return versions | {"devices": devices, "compile options": compile_options()}


def _sources(study: Study) -> tuple[str, str, dict[str, bytes]]:
    """The name and path of a user's study, and the files that a node may lack, by path.

    Files are the study's, its neighbours', and what it has imported from folders below.
    """
    module = module_of(study)
    name, file = module.__name__, Path(module.__file__ or "").resolve()
    if name == "__main__":
        raise ValueError(
            f"{study.slug} is defined by the script under way, which other machines do not have: "
            "keep the study in a file of its own and import it"
        )
    if name.split(".")[0] == PACKAGE or not is_followed(name):
        return name, "", {}
    parts = tuple(name.split("."))
    inner = file.with_suffix("").parts[-len(parts) :] == parts
    root, files = (
        file.parents[len(parts) - 1] if inner else file.parent,
        {*file.parent.glob("*.py")},
    )
    for each, loaded in list(sys.modules.items()):
        path = Path(getattr(loaded, "__file__", None) or "").resolve()
        if path.suffix == ".py" and path.is_relative_to(root):
            if each.split(".")[0] != PACKAGE and is_followed(each):
                files.add(path)
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(files)}
    return name, file.relative_to(root).as_posix(), found


def _found(study: Study, unit: Unit, store: Store) -> xr.Dataset | None:
    with naming(unit):
        program = identity.key(study.process(unit.config), unit.seeds, unit.at)
    return store.find(unit, program) if program else None


def _board(ray: Any) -> Any:
    """Holds the latest progress of each arm, beside this process."""

    class Board:  # within: sent as it is, for a process that need not import JAX
        def __init__(self) -> None:
            self.told: dict[str, bytes] = {}

        def tell(self, arm: str, tick: bytes) -> None:
            self.told[arm] = tick

        def take(self) -> dict[str, bytes]:
            told, self.told = self.told, {}
            return told

    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    node = ray.get_runtime_context().get_node_id()
    here = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()


def _keep(store: Store, unit: Unit, trace: xr.Dataset, messages: Sequence[str]) -> xr.Dataset:
    """Write a unit's trace, and read it back."""
    for message in messages:
        warnings.warn(message, stacklevel=3)
    store.write(unit, trace)
    if program := identity.key_of(trace):
        store.remember(unit, program)
    kept = store.read(unit)
    assert kept is not None
    return kept


def _finish(ray: Any, waiting: dict[Any, Unit], store: Store) -> None:
    """Keep what other units come to within `GRACE` seconds, now that one has failed."""
    done, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=GRACE) if waiting else ([], [])
    for task in done:
        unit = waiting.pop(task)
        with contextlib.suppress(ValueError, ChildProcessError):
            _keep(store, unit, *_result(ray, task, unit))


def _result(ray: Any, task: Any, unit: Unit) -> tuple[xr.Dataset, list[str]]:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if "failed to import on the worker" in str(error.cause):
            reason = str(error.cause).strip().splitlines()[-1]
            raise ValueError(
                f"a node of the cluster cannot import {PACKAGE}.lab.cluster ({reason}): install there "
                "what is installed here"
            ) from None
        raise error.cause from None  # what the unit itself raised
    except ray.exceptions.RayError as error:
        raise ChildProcessError(
            f"{unit.study}, arm {unit.arm}: the cluster lost its process or node, and again in "
            f"{RETRIES} more tries ({type(error).__name__}); what was finished is kept"
        ) from None


def _work(
    asked: Mapping[str, str], sources: tuple[str, str, dict[str, bytes]], roots: bytes,
    payload: bytes, resume: bool, watch: str, board: Any,
) -> tuple[xr.Dataset, list[str]]:  # fmt: skip
    """On a node: a unit's trace, and the warnings it gave."""
    here = _here()
    for name, value in asked.items():
        if here[name] != value:
            raise ValueError(
                f"the node {platform.node()} computes with {name} {here[name] or 'none'}, this "
                f"machine with {value or 'none'}: make them the same"
            )
    name, file, files = sources
    mark = hashlib.sha256(repr((name, sorted(files.items()), sorted(asked.items()))).encode())
    scratch = Path(tempfile.gettempdir(), f"latebloom-{os.getuid()}", mark.hexdigest()[:20])
    process, source = _placed(scratch / "code", name, file, tuple(files.items()), roots)
    unit: Unit = pickle.loads(payload)
    if source != unit.source:
        raise ValueError(
            f"the node {platform.node()} has other sources of {unit.study} than this machine: "
            "install the same latebloom there"
        )
    told = 0.0

    def tick(arm: str, tick: Tick) -> None:
        nonlocal told
        if time.monotonic() - told >= PAUSE:
            told = time.monotonic()
            shown = {name: seen for name, seen in tick.observed.items() if name == watch}
            board.tell.remote(arm, pickle.dumps(replace(tick, observed=shown)))

    store = Store(scratch / "units")  # a unit that is sent here again goes on from its checkpoint
    trace, messages = compute_quietly(process, unit, store, resume, tick)
    store.path(unit).unlink(missing_ok=True)
    return trace, messages


@functools.cache
def _placed(
    folder: Path, name: str, file: str, files: tuple[tuple[str, bytes], ...], roots: bytes
) -> tuple[Any, str]:
    """The function that makes an arm's process, from files laid down in a folder; their hash."""
    for path, text in files:
        write_atomically(folder / path, text)
    try:
        if file:
            sys.path.insert(0, str(folder))
            load(folder / file, name)
        process, *others = pickle.loads(roots)
        return process, source_hash(importlib.import_module(name), [process, *others])
    except ImportError as error:
        raise ValueError(f"the node {platform.node()} cannot import the study: {error}") from None
