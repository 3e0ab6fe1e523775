"""Seeds, steps and observations as loops inside one compiled program."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from latebloom.core.checkpoint import save_arrays
from latebloom.core.process import Process, Quantity
from latebloom.core.runs.program import (
    RUNS_ONCE,
    bits,
    compiled_once,
    program_of,
    use_compilation_cache,
)
from latebloom.core.runs.recording import Run

SECONDS_PER_CHUNK = 0.5
OBSERVATIONS_PER_CHUNK = 64
STEPS = "steps since the last observation"  # kept beside what steps saw


class _Carry(NamedTuple):
    state: Any
    info: dict[str, Array]  # what steps saw since the last observation, gathered
    died_row: Array  # int32: the row of this chunk at which the seed died; -1 alive, -2 long dead
    died_of: Array  # int32: which check failed
    rows: tuple[Array, ...]  # in the order of the observables


class CompiledRun(Run):
    """Seeds by vmap or map, steps and observations by loops inside one compiled program.

    The program takes a list of segments: advance by `gaps[i]` steps, then observe if `record[i]`,
    then turn if `turn[i]`. How a run is cut into chunks therefore changes no bit of its result.
    """

    process: Process

    def __init__(self, process: Process, seeds: list[int], at: np.ndarray):
        super().__init__(process, seeds, at)
        use_compilation_cache()
        start = time.perf_counter()
        self.traced = program_of(process)
        self.capacity = min(OBSERVATIONS_PER_CHUNK, len(at))
        self.devices = device_count(len(seeds), process)
        # A mapped axis of length one would still turn plain products into batched ones.
        self.seeds_by = "map" if len(seeds) == self.devices else process.seeds_by
        self._initialise()
        self.program, self.fingerprint = self._compile()
        self.compile_seconds = time.perf_counter() - start
        self.seconds_per_step = 0.0

    @property
    def identity(self) -> str:
        return self.traced.digest(self.seeds, self.at)

    def _initialise(self) -> None:
        keys = jax.vmap(jax.random.key)(np.array(self.seeds, np.uint32))

        def every(arrays: Any, keys: Any) -> Any:
            if self.seeds_by == "vmap":
                return jax.vmap(self.traced.init, (None, 0))(arrays, keys)
            return jax.lax.map(lambda key: self.traced.init(arrays, key), keys)

        program, _ = compiled_once(
            jax.jit(every), self.traced.arrays, keys, options=RUNS_ONCE
        )  # fmt: skip
        self.states = program(self.traced.arrays, keys)
        shape = (len(self.seeds),)
        self.info = {
            name: jnp.full(shape + value.shape, _nothing(self._over(name), value.dtype))
            for name, value in self.traced.info.items()
        }
        if self.info:
            self.info[STEPS] = jnp.zeros(shape, jnp.int32)

    def _over(self, name: str) -> str:
        return self.quantities.get(name, Quantity()).over

    def _advance(self, arrays: Any, state: Any, info: dict[str, Array]) -> Any:
        """One step of one seed, and what it saw gathered to what steps before it saw."""
        state, seen = self.traced.step(arrays, state)
        if not seen:
            return state, info
        gathered = {name: _gather(self._over(name), info[name], new) for name, new in seen.items()}
        return state, gathered | {STEPS: info[STEPS] + 1}

    def _look(self, row: Array, arrays: Any, old: Any, carry: _Carry) -> _Carry:
        """Observe one seed into `row`, and freeze it at `old` if it is no longer finite."""
        seen = self.traced.observe(arrays, carry.state)
        failed = self.traced.failed(arrays, carry.state, seen)
        was_alive = carry.died_row == -1
        dies = was_alive & failed.any()
        steps = carry.info.get(STEPS)
        told = {name: _told(self._over(name), carry.info[name], steps) for name in self.traced.info}
        rows = tuple(
            into.at[row].set(
                jnp.where(was_alive, value, jnp.nan)
                if jnp.issubdtype(into.dtype, jnp.inexact) else value
            )
            for value, into in zip([*seen.values(), *told.values()], carry.rows, strict=True)
        )  # fmt: skip
        fresh = {
            name: value if name != STEPS and self._over(name) == "last"
            else jnp.full_like(value, _nothing(self._over(name), value.dtype))
            for name, value in carry.info.items()
        }  # fmt: skip
        return _Carry(
            _choose(dies, old, carry.state),
            fresh,
            jnp.where(dies, row.astype(jnp.int32), carry.died_row),
            jnp.where(dies, jnp.argmax(failed).astype(jnp.int32), carry.died_of),
            rows,
        )

    def _whole(
        self, arrays: Any, states: Any, info: Any, alive: Array, gaps: Array, record: Array,
        turn: Array, count: Array,
    ) -> _Carry:  # fmt: skip
        """All segments, of one seed, or of all of them side by side.

        Side by side, the loops and conditions stand outside of what is mapped over the seeds: a
        condition that differed from seed to seed would copy the process, data included, to each.
        """
        beside = self.seeds_by == "vmap"

        def each(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
            return jax.vmap(function, axes) if beside else function

        advance = each(self._advance, (None, 0, 0))
        look = each(self._look, (None, None, 0, 0))
        choose = each(_choose, (0, 0, 0))
        row_of = jnp.cumsum(record) - 1

        def segment(i: Array, carry: _Carry) -> _Carry:
            living = carry.died_row == -1
            gap = jnp.where(living.any(), gaps[i], 0)
            state, info = jax.lax.fori_loop(
                0, gap, lambda _, c: advance(arrays, *c), (carry.state, carry.info)
            )
            new = carry._replace(state=choose(living, state, carry.state), info=info)
            seen = jax.lax.cond(
                record[i], lambda: look(row_of[i], arrays, carry.state, new), lambda: new
            )
            if self.traced.turn is None:
                return seen
            over_turn = each(self.traced.turn, (None, 0))

            def turned() -> Any:
                return choose(seen.died_row == -1, over_turn(arrays, seen.state), seen.state)

            return seen._replace(state=jax.lax.cond(turn[i], turned, lambda: seen.state))

        lead = alive.shape
        shapes = [*self.traced.observed.values()]
        shapes += [_told_shape(self._over(n), v) for n, v in self.traced.info.items()]
        rows = tuple(jnp.zeros((*lead, self.capacity, *v.shape), v.dtype) for v in shapes)
        died_row = jnp.where(alive, -1, -2).astype(jnp.int32)
        start = _Carry(states, info, died_row, jnp.zeros(lead, jnp.int32), rows)
        return jax.lax.fori_loop(jnp.int32(0), count, segment, start)

    def _compile(self) -> tuple[Callable[..., _Carry], str]:
        def one_by_one(arrays: Any, states: Any, info: Any, alive: Array, *rest: Array) -> _Carry:
            return jax.lax.map(
                lambda one: self._whole(arrays, *one, *rest), (states, info, alive)
            )  # fmt: skip

        program: Callable[..., _Carry] = self._whole if self.seeds_by == "vmap" else one_by_one
        if self.devices > 1:
            devices, kind = jax.devices()[: self.devices], jax.sharding.AxisType.Auto
            mesh = jax.make_mesh((self.devices,), ("seed",), (kind,), devices=devices)
            by_seed, same = PartitionSpec("seed"), PartitionSpec()
            program = jax.shard_map(
                program, mesh=mesh, in_specs=(same, *[by_seed] * 3, *[same] * 4),
                out_specs=by_seed, check_vma=False,
            )  # fmt: skip
        jitted = jax.jit(program, donate_argnums=(1, 2))
        compiled, identity = compiled_once(jitted, *self._arguments([], [], []))
        identity.update(repr((list(self.traced.observed), self.traced.paths)).encode())
        for leaf in [*self.traced.arrays, *self.states, self.at]:
            identity.update(bits(leaf))
        return compiled, identity.hexdigest()

    def _arguments(self, gaps: list[int], record: list[bool], turn: list[bool]) -> tuple[Any, ...]:
        length = self.capacity + len(self.traced.turns)
        padding = length - len(gaps)
        return (
            self.traced.arrays,
            self.states,
            self.info,
            jnp.asarray(self.died < 0),
            jnp.asarray([*gaps, *[0] * padding], jnp.int32),
            jnp.asarray([*record, *[False] * padding], bool),
            jnp.asarray([*turn, *[False] * padding], bool),
            jnp.int32(len(gaps)),
        )

    def _next_segments(self) -> tuple[list[int], list[bool], list[bool]]:
        """As many segments as should take about SECONDS_PER_CHUNK; each ends at a turn at the latest."""
        rate = self.seconds_per_step
        budget = max(1, int(SECONDS_PER_CHUNK / rate)) if rate else 1
        budget = min(budget, 2**30)
        rows = self.at[self.row : self.row + self.capacity].tolist()
        last = rows[-1]
        stops = sorted({*rows, *(t for t in self.traced.turns if self.step < t <= last)})
        gaps, record, turn, step = [], [], [], self.step
        for target in stops:
            gap = min(target - step, budget)
            there = step + gap == target
            gaps.append(gap)
            record.append(there and target in rows)
            turn.append(there and target in self.traced.turns)
            step, budget = step + gap, budget - max(gap, 1)
            if budget <= 0 or not there:
                break
        return gaps, record, turn

    def advance(self) -> None:
        gaps, record, turn = self._next_segments()
        start = time.perf_counter()
        carry = jax.block_until_ready(self.program(*self._arguments(gaps, record, turn)))
        self.states, self.info = carry.state, carry.info
        steps_before, count = self.step, sum(record)
        names = [*self.traced.observed, *self.traced.info]
        rows = {n: np.asarray(v) for n, v in zip(names, carry.rows, strict=True)}
        died_row, died_of = np.asarray(carry.died_row), np.asarray(carry.died_of)
        for i in np.flatnonzero(died_row >= 0):
            self.died[i] = self.at[self.row + died_row[i]]
            self.died_of[i] = self.traced.checks[died_of[i]]
        self.record(rows, count)
        self.step += sum(gaps)
        seconds = time.perf_counter() - start
        self.run_seconds += seconds
        work = max(self.step - steps_before, 1)
        self.seconds_per_step = seconds / work

    def save(self, path: Path) -> None:
        paths = self.traced.paths
        leaves = {f"state{p}": x for p, x in zip(paths, self.states, strict=True)}
        leaves |= {f"info/{name}": x for name, x in self.info.items()}
        save_arrays(path, leaves | self.record_leaves(), self.note())

    def restore(self, path: Path) -> None:
        if found := self.read(path):
            # Copies of JAX's own: their buffers are given away to the program.
            self.states = tuple(jnp.array(found[0][f"state{p}"]) for p in self.traced.paths)
            self.info = {name: jnp.array(found[0][f"info/{name}"]) for name in self.info}


def _choose(which: Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), one, other)


def _nothing(over: str, dtype: Any) -> Any:
    """What is there before a step saw anything."""
    if over == "max" and not jnp.issubdtype(dtype, jnp.bool_):
        least = -jnp.inf if jnp.issubdtype(dtype, jnp.inexact) else jnp.iinfo(dtype).min
        return jnp.array(least, dtype)
    if over in ("sum", "mean") and jnp.dtype(dtype).itemsize < 4:  # many small numbers
        return jnp.zeros((), jnp.float32 if jnp.issubdtype(dtype, jnp.inexact) else jnp.int32)
    gap = over == "last" and jnp.issubdtype(dtype, jnp.inexact)
    return jnp.array(jnp.nan if gap else 0, dtype)


def _gather(over: str, before: Array, new: Array) -> Array:
    if over in ("sum", "mean"):
        return before + new.astype(before.dtype)
    return jnp.maximum(before, new) if over == "max" else new


def _told(over: str, gathered: Array, steps: Array | None) -> Array:
    """What is recorded of it: a mean over no steps, or a largest of none, is NaN, or 0 of integers."""
    assert steps is not None
    if over == "mean":
        return jnp.where(steps > 0, gathered / jnp.maximum(steps, 1), jnp.nan)
    if over == "max":
        none = jnp.nan if jnp.issubdtype(gathered.dtype, jnp.inexact) else 0
        return jnp.where(steps > 0, gathered, jnp.asarray(none, gathered.dtype))
    return gathered


def _told_shape(over: str, value: Any) -> Any:
    return jax.eval_shape(
        lambda v: _told(over, v, jnp.int32(0)),
        jax.ShapeDtypeStruct(value.shape, _nothing(over, value.dtype).dtype),
    )


def device_count(seeds: int, process: Process) -> int:
    """Devices to shard the seeds over: on CPUs only where each gets two seeds or more.

    With fewer, the threads that one device's own operations could use are worth more. One for a process that says
    `one_device`.
    """
    on_cpus = jax.default_backend() == "cpu"
    if on_cpus and process.one_device:
        return 1
    least = 2 if on_cpus and process.seeds_by == "vmap" else 1
    counts = range(jax.local_device_count(), 0, -1)
    return next((d for d in counts if seeds % d == 0 and seeds // d >= least), 1)
