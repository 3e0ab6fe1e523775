"""Whether what was computed once is still what the code computes: by its program, not its source.

A hash of the sources says at once that nothing has changed. Where it differs, the program that an arm
is traced to says whether that matters; and where the program differs too, the bits of the first
observations do.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from latebloom.core.process import HostProcess
from latebloom.core.runs.compiled import device_count
from latebloom.core.runs.program import digest
from latebloom.core.runs.recording import compile_options
from latebloom.core.unfold import prefix

State = Literal["fresh", "same program", "same prefix", "unknown", "stale"]
STATES: tuple[State, ...] = ("fresh", "same program", "same prefix", "unknown", "stale")
PROVEN = STATES[:3]


def key(process: Any, seeds: Sequence[int], at: Sequence[int]) -> str:
    """Hash of all that the bits of a run depend on, or "" for a host process.

    The program, JAX's version, the devices that it is spread over, and compile options.
    """
    if isinstance(process, HostProcess):
        return ""
    where = f"{jax.default_backend()} x {device_count(len(seeds), process.seeds_by)}"
    return _hash(digest(process, seeds, np.asarray(at)), jax.__version__, where, compile_options())


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
        if isinstance(built, HostProcess):
            stack.enter_context(threadpool_limits(1))
        else:
            now = "+".join(digest(built, seeds, np.asarray(arm.at)) for seeds in arm.chunks)
            if arm.program and now == arm.program:
                return "same program"
        if not arm.prefix:
            return "stale"
        now = "+".join(prefix(process(arm.config), seeds, arm.at) for seeds in arm.chunks)
    return "same prefix" if now == arm.prefix else "stale"


def worst(states: Iterable[State]) -> State:
    """The state of something that stands on parts in these states."""
    found = [STATES.index(state) for state in states]
    return STATES[max(found, default=0)]
