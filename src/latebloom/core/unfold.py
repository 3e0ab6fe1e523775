"""Runs a process for several seeds and records what it observes.

Steps and observations are loops inside one compiled program; the host sees chunks of them, at whose
borders it shows progress and writes checkpoints.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
import xarray as xr
from jax.sharding import PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.checkpoint import DamagedFile, is_key, load_arrays, save_arrays
from latebloom.core.process import HostProcess, Process, Quantity
from latebloom.core.progress import Tick, progress_bar

SECONDS_PER_CHUNK = 0.5
OBSERVATIONS_PER_CHUNK = 64


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
    so. Attributes hold versions, `config`, and compile seconds apart from run seconds.

    **Raises:** `ValueError` for schedules or seeds that make no sense, for a checkpoint that
    belongs to another run, and for a `step` that changes the state's structure.
    """
    seed_list = _check_seeds(seeds)
    observation_steps = _check_schedule(steps, every, at)
    with contextlib.ExitStack() as stack:
        if isinstance(process, Process) and process.x64:
            stack.enter_context(jax.enable_x64(True))
        if isinstance(process, HostProcess):
            this: _Run = _HostRun(process, seed_list, observation_steps)
        else:
            this = _CompiledRun(process, seed_list, observation_steps)
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
    found = list(range(seeds)) if isinstance(seeds, int | np.integer) else [int(s) for s in seeds]
    if not found or min(found) < 0 or len(set(found)) != len(found):
        raise ValueError(
            f"seeds must be a positive count or a list of distinct non-negative integers, not {seeds!r}"
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
    if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) <= 0).any() or (at % 1).any():
        raise ValueError("at must be strictly increasing whole numbers from 0 on")
    return at.astype(np.int64)


def _warn_of_divergence(trace: xr.Dataset) -> None:
    for seed in trace.seed.values[trace.diverged_at.values >= 0]:
        lost = trace.sel(seed=seed)
        warnings.warn(
            f"seed {seed} diverged: {lost.diverged_in.item()} was not finite at step "
            f"{lost.diverged_at.item()}; the seed is frozen and NaN from there on",
            DivergenceWarning,
            stacklevel=3,
        )


class _Run:
    """The observation rows so far, and the bookkeeping that both kinds of run share."""

    def __init__(self, process: Any, seeds: list[int], at: np.ndarray):
        self.process, self.seeds, self.at = process, seeds, at
        self.quantities: dict[str, Quantity] = process.quantities()
        self.records: dict[str, np.ndarray] = {}
        self.died = np.full(len(seeds), -1)
        self.died_of = [""] * len(seeds)
        self.step = 0
        self.row = 0
        self.compile_seconds = 0.0
        self.run_seconds = 0.0
        self.started_at = 0

    fingerprint: str

    def advance(self) -> None:
        raise NotImplementedError

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def restore(self, path: Path) -> None:
        raise NotImplementedError

    @property
    def done(self) -> bool:
        return self.row == len(self.at)

    def _record(self, rows: Mapping[str, np.ndarray], count: int) -> None:
        """Take over `count` rows [seed, count, ...] of every observable."""
        for name, values in rows.items():
            if name not in self.records:
                shape = (len(self.seeds), len(self.at), *values.shape[2:])
                self.records[name] = np.zeros(shape, values.dtype)
            self.records[name][:, self.row : self.row + count] = values[:, :count]
        self.row += count

    def tick(self, show: Sequence[str]) -> Tick:
        missing = [name for name in show if name not in self.records and self.row]
        if missing:
            raise ValueError(
                f"show names {missing[0]!r}, but observed are: {', '.join(self.records)}"
            )
        rate = (self.step - self.started_at) / self.run_seconds if self.run_seconds else 0.0
        left = (self.at[-1] - self.step) / rate if rate else float("nan")
        row = max(self.row - 1, 0)
        values = {n: self.records[n][:, row] for n in show if n in self.records}
        observed = {n: v[:, : self.row] for n, v in self.records.items()}
        return Tick(self.step, int(self.at[-1]), left, values, self.at[: self.row], observed)

    def _note(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "row": self.row,
            "died": self.died.tolist(),
            "died_of": self.died_of,
            "run_seconds": self.run_seconds,
        }

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if not path.exists():
            return None
        try:
            leaves, note = load_arrays(path)
        except DamagedFile as damage:
            warnings.warn(f"{damage}; the run starts from its beginning", stacklevel=4)
            return None
        if note["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{path} belongs to another run (other code, settings, seeds, schedule, devices or "
                "JAX version): remove it, or give another checkpoint path"
            )
        self.step, self.row = note["step"], note["row"]
        self.started_at, self.run_seconds = 0, note["run_seconds"]
        self.died, self.died_of = np.array(note["died"]), note["died_of"]
        self.records = {
            n.removeprefix("record/"): a.copy()
            for n, a in leaves.items()
            if n.startswith("record/")
        }
        return leaves, note

    def _record_leaves(self) -> dict[str, np.ndarray]:
        return {f"record/{name}": values for name, values in self.records.items()}

    def trace(self, config: Mapping[str, Any]) -> xr.Dataset:
        variables, coords = {}, {}
        for name, values in self.records.items():
            quantity = self.quantities.get(name, Quantity())
            inner = quantity.dims or tuple(f"{name}_{i}" for i in range(values.ndim - 2))
            if len(inner) != values.ndim - 2:
                raise ValueError(
                    f"quantities() gives {name!r} the dimensions {inner}, but observe() returns "
                    f"{values.ndim - 2} of them"
                )
            attrs = {"units": quantity.units, "long_name": quantity.about or name.replace("_", " ")}
            variables[name] = (("seed", "step", *inner), values, attrs)
            coords |= {dim: (dim, list(labels)) for dim, labels in quantity.coords.items()}
        coords |= {
            "seed": ("seed", self.seeds),
            "step": ("step", self.at, {"units": "steps"}),
            "diverged_at": ("seed", self.died, {"units": "steps"}),
            "diverged_in": ("seed", np.array(self.died_of, dtype=np.str_)),
        }
        attrs = {
            "process": type(self.process).__qualname__,
            "config": json.dumps(dict(config), default=str, sort_keys=True),
            "latebloom": version("latebloom"),
            "jax": version("jax"),
            "backend": f"{jax.default_backend()} x {self.devices}",
            "compile_seconds": round(self.compile_seconds, 3),
            "run_seconds": round(self.run_seconds, 3),
            "steps_per_second": round(len(self.seeds) * self.step / max(self.run_seconds, 1e-9), 2),
        }
        return xr.Dataset(variables, coords, attrs)

    devices: int = 1


class _HostRun(_Run):
    """One seed step after another in Python; a chunk ends at an observation."""

    process: HostProcess

    def __init__(self, process: HostProcess, seeds: list[int], at: np.ndarray):
        super().__init__(process, seeds, at)
        identity = pickle.dumps((type(process).__qualname__, process, seeds, at.tolist()))
        self.fingerprint = hashlib.sha256(identity).hexdigest()
        self.states = [process.init(seed) for seed in seeds]

    def advance(self) -> None:
        start = time.perf_counter()
        target, rows = int(self.at[self.row]), []
        for i in range(len(self.seeds)):
            alive = self.died[i] < 0
            for _ in range(target - self.step if alive else 0):
                self.states[i] = self.process.step(self.states[i])
            row = {n: np.asarray(v) for n, v in self.process.observe(self.states[i]).items()}
            bad = [n for n, v in row.items() if self._not_finite(n, v)]
            if alive and bad:
                self.died[i], self.died_of[i] = target, bad[0]
            if not alive:
                row = {n: v * np.nan if v.dtype.kind == "f" else v for n, v in row.items()}
            rows.append(row)
        self.step = target
        self._record({n: np.stack([r[n] for r in rows])[:, None] for n in rows[0]}, 1)
        self.run_seconds += time.perf_counter() - start

    def _not_finite(self, name: str, value: np.ndarray) -> bool:
        gaps = self.quantities.get(name, Quantity()).gaps
        return value.dtype.kind == "f" and not gaps and not np.isfinite(value).all()

    def save(self, path: Path) -> None:
        states = np.frombuffer(pickle.dumps(self.states), np.uint8)
        save_arrays(path, {"states": states, **self._record_leaves()}, self._note())

    def restore(self, path: Path) -> None:
        if found := self._read(path):
            self.states = pickle.loads(found[0]["states"].tobytes())


class _Carry(NamedTuple):
    state: Any
    died_row: Array  # int32: the row of this chunk at which the seed died; -1 alive, -2 long dead
    died_of: Array  # int32: which check failed
    rows: tuple[Array, ...]  # in the order of the observables


class _CompiledRun(_Run):
    """Seeds by vmap or map, steps and observations by loops inside one compiled program.

    The program takes a list of segments: advance by `gaps[i]` steps, then observe if `record[i]`.
    How a run is cut into chunks therefore changes no bit of its result.
    """

    process: Process
    state_tree: Any
    state_static: Any
    state_paths: list[str]

    def __init__(self, process: Process, seeds: list[int], at: np.ndarray):
        super().__init__(process, seeds, at)
        _use_compilation_cache()
        start = time.perf_counter()
        process = jax.tree.map(_as_array, process)
        arrays, self.static = eqx.partition(process, eqx.is_array)
        # Flat tuples go in and out of the program, so that processes which differ only in names
        # or static values that leave no mark on it can share it.
        leaves, self.array_tree = jax.tree.flatten(arrays)
        self.arrays = tuple(leaves)
        self.capacity = min(OBSERVATIONS_PER_CHUNK, len(at))
        self.devices = _device_count(len(seeds), process.seeds_by)
        # A mapped axis of length one would still turn plain products into batched ones.
        self.seeds_by = "map" if len(seeds) == self.devices else process.seeds_by
        self._initialise(jax.vmap(jax.random.key)(np.array(seeds, np.uint32)))
        self.checks = self._check_step()
        self.program, self.fingerprint = self._compile()
        self.compile_seconds = time.perf_counter() - start
        self.seconds_per_step = 0.0

    def _initialise(self, keys: PRNGKeyArray) -> None:
        def init(arrays: Any, key: PRNGKeyArray) -> Any:
            state, self.state_static = eqx.partition(self._join(arrays).init(key), eqx.is_array)
            leaves, self.state_tree = jax.tree.flatten(state)
            self.state_paths = list(_leaves(state))
            return tuple(leaves)

        program, _ = _compiled_once(
            jax.jit(_over_seeds(init, self.seeds_by)), self.arrays, keys, options=_RUNS_ONCE
        )
        self.states = program(self.arrays, keys)

    def _join(self, arrays: Any) -> Process:
        return eqx.combine(jax.tree.unflatten(self.array_tree, arrays), self.static)

    def _join_state(self, state: Any) -> Any:
        return eqx.combine(jax.tree.unflatten(self.state_tree, state), self.state_static)

    def _next_state(self, arrays: Any, state: Any) -> Any:
        return eqx.filter(self._join(arrays).step(self._join_state(state)), eqx.is_array)

    def _step(self, arrays: Any, state: Any) -> Any:
        return tuple(jax.tree.leaves(self._next_state(arrays, state)))

    def _observe(self, arrays: Any, state: Any) -> dict[str, Array]:
        seen = self._join(arrays).observe(self._join_state(state))
        return {name: jnp.asarray(value) for name, value in seen.items()}

    def _check_step(self) -> list[str]:
        """Names of the divergence checks; raises if step changes the state's structure."""
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.states)
        before = dict(zip(self.state_paths, one, strict=True))
        after = _leaves(jax.eval_shape(self._next_state, self.arrays, one))
        for path in before | after:
            if path not in before or path not in after or not _same(before[path], after[path]):
                raise ValueError(
                    f"step() of {type(self.process).__name__} changes the state at {path or 'its root'}:"
                    f" {_show(before.get(path))} before, {_show(after.get(path))} after"
                )
        self.observed = jax.eval_shape(self._observe, self.arrays, one)
        self.checked = [
            n
            for n, v in self.observed.items()
            if jnp.issubdtype(v.dtype, jnp.inexact) and not self.quantities.get(n, Quantity()).gaps
        ]
        inexact = [p for p, v in before.items() if jnp.issubdtype(v.dtype, jnp.inexact)]
        return self.checked + [f"state{path}" for path in inexact]

    def _failed_checks(self, state: Any, seen: Mapping[str, Array]) -> Array:
        finite = [jnp.isfinite(seen[name]).all() for name in self.checked]
        leaves = [x for x in state if jnp.issubdtype(x.dtype, jnp.inexact)]
        return ~jnp.stack([*finite, *(~jnp.isnan(x).any() for x in leaves), jnp.array(True)])

    def _one_seed(
        self, arrays: Any, state: Any, alive: Array, gaps: Array, record: Array, count: Array
    ) -> _Carry:
        def look(i: Array, old: Any, new: Any, carry: _Carry) -> _Carry:
            seen = self._observe(arrays, new)
            failed = self._failed_checks(new, seen)
            was_alive = carry.died_row == -1
            dies = was_alive & failed.any()
            rows = tuple(
                row.at[i].set(
                    jnp.where(was_alive, seen[name], jnp.nan)
                    if jnp.issubdtype(row.dtype, jnp.inexact)
                    else seen[name]
                )
                for name, row in zip(self.observed, carry.rows, strict=True)
            )
            state = jax.tree.map(lambda a, b: jnp.where(dies, a, b), old, new)
            return _Carry(
                state,
                jnp.where(dies, i, carry.died_row),
                jnp.where(dies, jnp.argmax(failed).astype(jnp.int32), carry.died_of),
                rows,
            )

        def segment(i: Array, carry: _Carry) -> _Carry:
            advance = partial(jax.lax.fori_loop, 0, gaps[i], lambda _, s: self._step(arrays, s))
            alive_now = carry.died_row == -1
            new = jax.lax.cond(alive_now, advance, lambda s: s, carry.state)
            return jax.lax.cond(
                record[i],
                lambda: look(i, carry.state, new, carry),
                lambda: carry._replace(state=new),
            )

        shapes = self.observed.values()
        rows = tuple(jnp.zeros((self.capacity, *v.shape), v.dtype) for v in shapes)
        start = _Carry(state, jnp.where(alive, -1, -2).astype(jnp.int32), jnp.int32(0), rows)
        return jax.lax.fori_loop(jnp.int32(0), count, segment, start)

    def _compile(self) -> tuple[Callable[..., _Carry], str]:
        program = _over_seeds(self._one_seed, self.seeds_by)
        if self.devices > 1:
            devices, kind = jax.devices()[: self.devices], jax.sharding.AxisType.Auto
            mesh = jax.make_mesh((self.devices,), ("seed",), (kind,), devices=devices)
            by_seed, same = PartitionSpec("seed"), PartitionSpec()
            program = jax.shard_map(
                program, mesh=mesh, in_specs=(same, by_seed, by_seed, same, same, same),
                out_specs=by_seed, check_vma=False,
            )  # fmt: skip
        compiled, identity = _compiled_once(jax.jit(program), *self._arguments([], []))
        identity.update(repr((list(self.observed), self.state_paths)).encode())
        for leaf in [*self.arrays, *self.states, self.at]:
            identity.update(_bits(leaf))
        return compiled, identity.hexdigest()

    def _arguments(self, gaps: list[int], record: list[bool]) -> tuple[Any, ...]:
        padding = self.capacity - len(gaps)
        return (
            self.arrays,
            self.states,
            jnp.asarray(self.died < 0),
            jnp.asarray([*gaps, *[0] * padding], jnp.int32),
            jnp.asarray([*record, *[False] * padding], bool),
            jnp.int32(len(gaps)),
        )

    def _next_segments(self) -> tuple[list[int], list[bool]]:
        """As many segments as should take about SECONDS_PER_CHUNK."""
        rate = self.seconds_per_step
        budget = max(1, int(SECONDS_PER_CHUNK / rate)) if rate else 1
        budget = min(budget, 2**30)
        gaps, record, step = [], [], self.step
        for target in self.at[self.row : self.row + self.capacity].tolist():
            gap = min(target - step, budget)
            gaps.append(gap)
            record.append(step + gap == target)
            step, budget = step + gap, budget - max(gap, 1)
            if budget <= 0 or not record[-1]:
                break
        return gaps, record

    def advance(self) -> None:
        gaps, record = self._next_segments()
        start = time.perf_counter()
        carry = jax.block_until_ready(self.program(*self._arguments(gaps, record)))
        self.states = carry.state
        steps_before, count = self.step, sum(record)
        rows = {n: np.asarray(v) for n, v in zip(self.observed, carry.rows, strict=True)}
        died_row, died_of = np.asarray(carry.died_row), np.asarray(carry.died_of)
        for i in np.flatnonzero(died_row >= 0):
            self.died[i] = self.at[self.row + died_row[i]]
            self.died_of[i] = self.checks[died_of[i]]
        self._record(rows, count)
        self.step += sum(gaps)
        seconds = time.perf_counter() - start
        self.run_seconds += seconds
        work = max(self.step - steps_before, 1)
        self.seconds_per_step = seconds / work

    def save(self, path: Path) -> None:
        leaves = {f"state{p}": x for p, x in zip(self.state_paths, self.states, strict=True)}
        save_arrays(path, leaves | self._record_leaves(), self._note())

    def restore(self, path: Path) -> None:
        if found := self._read(path):
            self.states = tuple(jnp.asarray(found[0][f"state{p}"]) for p in self.state_paths)


_compiled: dict[str, Callable[..., Any]] = {}


# What runs once costs more to optimise than to run.
_RUNS_ONCE = {"xla_backend_optimization_level": 0}


def _compiled_once(
    program: Any, *arguments: Any, options: Mapping[str, Any] | None = None
) -> tuple[Callable[..., Any], Any]:
    """A jitted program for these arguments, compiled unless its like has been; and its hash."""
    traced = program.trace(*arguments)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(traced.jaxpr))
    places = [str(getattr(x, "sharding", "")) for x in jax.tree.leaves(arguments)]
    identity = hashlib.sha256(f"{jax.__version__} {places} {text}".encode())
    for constant in traced.jaxpr.consts:
        identity.update(_bits(constant))
    key = identity.hexdigest()
    if key not in _compiled:
        _compiled[key] = traced.lower().compile(dict(options or {}))
    return _compiled[key], identity


def _bits(leaf: Any) -> bytes:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes()


def _over_seeds(function: Callable[..., Any], seeds_by: str) -> Callable[..., Any]:
    """Map `function(arrays, state, [alive, gaps, record, count])` over the seeds of its state."""
    if seeds_by == "vmap":
        return lambda arrays, state, *rest: jax.vmap(
            function, in_axes=(None, 0, *(0 if i == 0 else None for i in range(len(rest))))
        )(arrays, state, *rest)
    return lambda arrays, state, *rest: jax.lax.map(
        lambda one: function(arrays, *one, *rest[1:]), (state, *rest[:1])
    )


def _device_count(seeds: int, seeds_by: str) -> int:
    """Devices to shard the seeds over: on CPUs only where each gets two seeds or more.

    With fewer, the threads that one device's own operations could use are worth more.
    """
    least = 2 if jax.default_backend() == "cpu" and seeds_by == "vmap" else 1
    counts = range(jax.local_device_count(), 0, -1)
    return next((d for d in counts if seeds % d == 0 and seeds // d >= least), 1)


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float | np.ndarray | np.generic) else leaf


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _show(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless the user has chosen another."""
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        folder = Path(platformdirs.user_cache_dir("latebloom")) / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
