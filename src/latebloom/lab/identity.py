"""Whether what was computed once is still what the code computes: by its program, not its source.

A hash of the sources says at once that nothing has changed. Where it differs, the program that an arm
is traced to says whether that matters; of a process that is not traced, its own class and what it holds.
Where these differ too, the bits of the first observations are a hint.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from latebloom.core.process import HostProcess
from latebloom.core.runs import LOOP_VERSION
from latebloom.core.runs.compiled import device_count
from latebloom.core.runs.program import digest
from latebloom.core.runs.recording import compile_options
from latebloom.core.unfold import prefix
from latebloom.lab.effects import object_hash

State = Literal["fresh", "same program", "same prefix", "unknown", "stale"]
STATES: tuple[State, ...] = ("fresh", "same program", "same prefix", "unknown", "stale")
PROVEN = STATES[:2]  # the first observations alone prove nothing of the later ones


def key(process: Any, seeds: Sequence[int], at: Sequence[int]) -> str:
    """Hash of all that the bits of a run depend on, or "" where that cannot be told.

    The program, JAX's version, the devices that it is spread over, and compile options.
    """
    devices = 1 if isinstance(process, HostProcess) else device_count(len(seeds), process)
    where = f"{jax.default_backend()} x {devices}"
    program = program_of(process, seeds, at)
    return program and _hash(program, jax.__version__, where, compile_options())


def program_of(process: Any, seeds: Sequence[int], at: Sequence[int]) -> str:
    """Hash of what a process computes: of what it is traced to or, of a host process, of its source
    and what it holds, with NumPy's and SciPy's versions. "" where it cannot be told."""
    if not isinstance(process, HostProcess):
        return digest(process, seeds, np.asarray(at))
    if not (own := object_hash(process)):
        return ""
    run = (own, tuple(seeds), tuple(map(int, at)), version("numpy"), version("scipy"), LOOP_VERSION)
    return "host-" + hashlib.sha256(repr(run).encode()).hexdigest()[:20]


def key_of(trace: xr.Dataset) -> str:
    """The `key` of the run that made a trace, wherever that was, from what the trace says."""
    program = trace.attrs["program"]
    return program and _hash(program, *(trace.attrs[n] for n in ("jax", "backend", "options")))


def _hash(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Arm:
    """What a record says of one of its arms: units' programs and prefixes, joined by "+"."""

    config: Any  # as the study has it now
    chunks: tuple[tuple[int, ...], ...]  # seeds of its units
    at: tuple[int, ...]
    program: str
    prefix: str


def state_of(process: Callable[[Any], Any], arm: Arm) -> State:
    """Whether an arm still computes what it did, by its program, else by its first observations.

    Raises what building the process raises, as where its data is not here.
    """
    built = process(arm.config)
    with contextlib.ExitStack() as stack:
        now = "+".join(program_of(built, seeds, arm.at) for seeds in arm.chunks).strip("+")
        if arm.program and now == arm.program:
            return "same program"
        if isinstance(built, HostProcess):
            stack.enter_context(threadpool_limits(1))
        if not arm.prefix:
            return "stale"
        now = "+".join(prefix(process(arm.config), seeds, arm.at) for seeds in arm.chunks)
    return "same prefix" if now == arm.prefix else "stale"


def worst(states: Iterable[State]) -> State:
    """The state of something that stands on parts in these states."""
    found = [STATES.index(state) for state in states]
    return STATES[max(found, default=0)]
