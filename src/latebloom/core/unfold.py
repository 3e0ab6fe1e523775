"""Runs a process for several seeds and records what it observes.

Steps and observations are loops inside one compiled program; the host sees chunks of them, at whose
borders it shows progress and writes checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from latebloom.core.checkpoint import check_is_checkpoint
from latebloom.core.process import HostProcess, Process
from latebloom.core.progress import Tick, progress_bar
from latebloom.core.runs.compiled import CompiledRun
from latebloom.core.runs.host import HostRun
from latebloom.core.runs.recording import Run


class DivergenceWarning(UserWarning):
    """A seed became NaN or infinite and was frozen."""


def unfold(
    process: Process | HostProcess,
    *,
    seeds: int | Sequence[int] = 1,
    steps: int | None = None,
    every: int | None = None,
    at: Sequence[int] | np.ndarray | None = None,
    progress: bool | Callable[[Tick], None] | None = None,
    show: Sequence[str] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    checkpoint_seconds: float = 10.0,
    config: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Run `process` for each seed and return what it observed.

    **Arguments:**

    - `seeds`: how many (0, 1, ...), or the list of seeds.
    - `steps`, `every`: observe at step 0, `every`, 2 `every`, ..., and at `steps`.
    - `at`: the observation steps themselves, increasing (see `log_steps`); the last one ends the
      run. Give either `steps` (and `every`) or `at`.
    - `progress`: `None` draws a progress bar if a person is watching (terminal or notebook),
      `False` never; a callable is handed a `Tick` after every chunk.
    - `show`: observables whose current values the progress bar shows.
    - `checkpoint`: a file to write the state to at chunk borders, at most once every
      `checkpoint_seconds`; with `resume` a run that was killed goes on from it and ends in the
      same bits. It is removed at the end.
    - `config`: anything JSON-able to keep in the trace's attributes.

    **Returns:** dataset with dimensions (seed, step, ...). Coordinate `diverged_at` (seed) is the
    step at which a seed was found to be NaN or infinite, or -1; `diverged_in` names the observable
    or state leaf. Such a seed is frozen, its later values are NaN, and a `DivergenceWarning` says
    so. Attributes hold versions, `config`, compile seconds apart from run seconds, and hashes of
    what was computed: `program` (of what is traced, "" for host processes) and `prefix` (of the
    bits of the first three observations).

    **Raises:** `ValueError` for schedules or seeds that make no sense, for a checkpoint that
    belongs to another run, for steps beyond the process's end, and for a `step` that changes the state's structure.
    """
    seed_list = _check_seeds(seeds)
    observation_steps = _check_schedule(steps, every, at)
    _check_horizon(process, int(observation_steps[-1]))
    if checkpoint is not None:
        check_is_checkpoint(checkpoint)
    with contextlib.ExitStack() as stack:
        if isinstance(process, Process) and process.x64:
            stack.enter_context(jax.enable_x64(True))
        if isinstance(process, HostProcess):
            this: Run = HostRun(process, seed_list, observation_steps)
        else:
            this = CompiledRun(process, seed_list, observation_steps)
        if checkpoint is not None and resume:
            this.restore(Path(checkpoint))
        if callable(progress):
            report = progress
        else:
            report = stack.enter_context(progress_bar(type(process).__name__, progress))
        saved = time.perf_counter()
        while not this.done:
            this.advance()
            report(this.tick(show))
            if checkpoint is not None and time.perf_counter() - saved >= checkpoint_seconds:
                this.save(Path(checkpoint))
                saved = time.perf_counter()
        trace = this.trace(config or {})
    _warn_of_divergence(trace)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return trace


def _check_seeds(seeds: int | Sequence[int]) -> list[int]:
    given = list(range(seeds)) if isinstance(seeds, int | np.integer) else list(seeds)
    whole = all(isinstance(s, int | np.integer) and not isinstance(s, bool) for s in given)
    found = [int(s) for s in given] if whole else []
    if not found or min(found) < 0 or max(found) >= 2**32 or len(set(found)) != len(found):
        raise ValueError(
            "seeds must be a positive count or a list of distinct integers from 0 to 2^32 - 1, not "
            f"{seeds!r}"
        )
    return found


def _check_schedule(
    steps: int | None, every: int | None, at: Sequence[int] | np.ndarray | None
) -> np.ndarray:
    if (at is None) == (steps is None):
        raise ValueError("give either steps (and every) or at, the list of observation steps")
    if at is None:
        assert steps is not None
        every = steps if every is None else every
        if steps < 1 or every < 1:
            raise ValueError(f"steps and every must be at least 1, not {steps} and {every}")
        at = np.unique(np.append(np.arange(0, steps + 1, every), steps))
    elif every is not None:
        raise ValueError("every goes with steps, not with at")
    at = np.asarray(at)
    if at.dtype.kind not in "iuf":
        raise ValueError("at must be strictly increasing whole numbers from 0 on")
    at = at.astype(np.float64)  # differences of unsigned numbers are never negative
    if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) <= 0).any() or (at % 1).any():
        raise ValueError("at must be strictly increasing whole numbers from 0 on")
    return at.astype(np.int64)


def _check_horizon(process: Process | HostProcess, last: int) -> None:
    end = process.horizon() if isinstance(process, Process) else None
    if end is not None and last > end:
        raise ValueError(
            f"{type(process).__name__} ends after {end} steps, so it cannot be observed after {last}"
        )


def _warn_of_divergence(trace: xr.Dataset) -> None:
    for seed in trace.seed.values[trace.diverged_at.values >= 0]:
        lost = trace.sel(seed=seed)
        warnings.warn(
            f"seed {seed} diverged: {lost.diverged_in.item()} was not finite at step "
            f"{lost.diverged_at.item()}; the seed is frozen and NaN from there on",
            DivergenceWarning,
            stacklevel=3,
        )


def prefix(
    process: Process | HostProcess, seeds: int | Sequence[int], at: Sequence[int] | np.ndarray
) -> str:
    """The `prefix` that a run would have, from its first three observations alone."""
    seed_list, steps = _check_seeds(seeds), _check_schedule(None, None, at)
    with contextlib.ExitStack() as stack:
        if isinstance(process, Process) and process.x64:
            stack.enter_context(jax.enable_x64(True))
        kind: Any = HostRun if isinstance(process, HostProcess) else CompiledRun
        this: Run = kind(process, seed_list, steps)
        while not (found := this.prefix()):
            this.advance()
    return found
