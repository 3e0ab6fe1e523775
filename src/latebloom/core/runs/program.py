"""A process traced once, as functions of flat arrays; its digest, and programs compiled once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from jax.extend.core import Literal, jaxpr_as_fun
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.checkpoint import is_key
from latebloom.core.process import Process, Quantity, Stepped
from latebloom.core.runs import LOOP_VERSION
from latebloom.core.runs.recording import check_names


class Traced:
    """A function of pytrees of arrays, traced once and callable within other traces.

    `result`: the shapes of what it returns; `jaxpr`: what was traced.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.jaxpr, self.result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self._tree = jax.tree.structure(self.result)
        self._evaluate = jaxpr_as_fun(self.jaxpr)

    def __call__(self, *arguments: Any) -> Any:
        return jax.tree.unflatten(self._tree, self._evaluate(*jax.tree.leaves(arguments)))


class Program:
    """A process taken apart into array leaves, which are arguments, and what is traced of them.

    - `arrays`: the process' leaves; `init(arrays, key)`, `step(arrays, state)` -> (state, info),
      `observe(arrays, state)`, `turn(arrays, state)` work on one seed, the state being a tuple of
      its leaves, at `paths`, of shapes and types `state`.
    - `observed`, `info`: shapes of the observables, and of what a step saw.
    - `checks`: names of what is searched for NaN, in the order of `failed(arrays, state, seen)`.

    Each is traced once: the caller's loops take over what was traced, without a mark of it.

    Raises `ValueError` for a step or a turn that changes the state's structure, and for an
    observable that bears the name of something a step saw.
    """

    def __init__(self, process: Process):
        self.process = jax.tree.map(_as_array, process)
        self.quantities: dict[str, Quantity] = process.quantities()
        self.turns = frozenset(int(step) for step in process.turns())
        if self.turns and min(self.turns) < 1:
            raise ValueError(
                f"{type(process).__name__} turns at step {min(self.turns)}: turns are steps from 1 on"
            )
        arrays, self._static = eqx.partition(self.process, eqx.is_array)
        # Flat tuples go in and out of the program, so that processes which differ only in names
        # or static values that leave no mark on it can share it.
        leaves, self._tree = jax.tree.flatten(arrays)
        self.arrays = tuple(leaves)
        self.init = Traced(self._init, self.arrays, jax.random.key(0))
        self.state = self.init.result
        self.step = Traced(self._step, self.arrays, self.state)
        self._same_structure("step")
        self.info = self.step.result[1]
        self.observe = Traced(self._observe, self.arrays, self.state)
        self.observed = self.observe.result
        self.turn = Traced(self._turn, self.arrays, self.state) if self.turns else None
        if self.turns:
            self._same_structure("turn")
        if twice := sorted(set(self.observed) & set(self.info)):
            raise ValueError(
                f"{type(process).__name__}: {twice[0]!r} is both observed and told by step()"
            )
        check_names(process, [*self.observed, *self.info])
        self._finite = [
            name for name, value in self.observed.items()
            if jnp.issubdtype(value.dtype, jnp.inexact)
            and not self.quantities.get(name, Quantity()).gaps
        ]  # fmt: skip
        searched = jax.eval_shape(self._searched, self.arrays, self.state)
        self.checks = self._finite + [f"state{path}" for path in searched]

    def _join(self, arrays: Any) -> Process:
        return eqx.combine(jax.tree.unflatten(self._tree, arrays), self._static)

    def _whole(self, state: Any) -> Any:
        return eqx.combine(jax.tree.unflatten(self._state_tree, state), self._state_static)

    def _init(self, arrays: Any, key: PRNGKeyArray) -> tuple[Array, ...]:
        state, self._state_static = eqx.partition(self._join(arrays).init(key), eqx.is_array)
        leaves, self._state_tree = jax.tree.flatten(state)
        self.paths = list(_leaves(state))
        return tuple(leaves)

    def _flat(self, state: Any) -> tuple[Array, ...]:
        state, self._rest_after = eqx.partition(state, eqx.is_array)
        self._after = {path: jax.typeof(x) for path, x in _leaves(state).items()}
        return tuple(jax.tree.leaves(state))

    def _step(self, arrays: Any, state: Any) -> tuple[tuple[Array, ...], dict[str, Array]]:
        new = self._join(arrays).step(self._whole(state))
        new, info = new if isinstance(new, Stepped) else (new, {})
        return self._flat(new), {name: jnp.asarray(value) for name, value in info.items()}

    def _turn(self, arrays: Any, state: Any) -> tuple[Array, ...]:
        return self._flat(self._join(arrays).turn(self._whole(state)))

    def _observe(self, arrays: Any, state: Any) -> dict[str, Array]:
        seen = self._join(arrays).observe(self._whole(state))
        return {name: jnp.asarray(value) for name, value in seen.items()}

    def _searched(self, arrays: Any, state: Any) -> dict[str, Array]:
        """The state's leaves that are searched for NaN, by their paths."""
        part = eqx.filter(self._join(arrays).searched(self._whole(state)), eqx.is_inexact_array)
        return {p: x for p, x in _leaves(part).items() if jnp.issubdtype(x.dtype, jnp.inexact)}

    def failed(self, arrays: Any, state: Any, seen: Mapping[str, Array]) -> Array:
        """Which of `checks` a state and its observables fail; a last entry is always true."""
        finite = [jnp.isfinite(seen[name]).all() for name in self._finite]
        leaves = self._searched(arrays, state).values()
        return ~jnp.stack([*finite, *(~jnp.isnan(x).any() for x in leaves), jnp.array(True)])

    def _same_structure(self, what: str) -> None:
        """Arrays keep their shapes and types; what is none is a constant of the program and stays."""
        before, after = dict(zip(self.paths, self.state, strict=True)), self._after
        for path in before | after:
            if path not in before or path not in after or not _same(before[path], after[path]):
                raise ValueError(
                    f"{what}() of {type(self.process).__name__} changes the state at "
                    f"{path or 'its root'}: {_show(before.get(path))} before, "
                    f"{_show(after.get(path))} after"
                )
        before, after = _leaves(self._state_static), _leaves(self._rest_after)
        for path in before | after:
            old, new = before.get(path), after.get(path)
            if old is not new and not (
                type(old) is type(new) and np.array_equal(np.asarray(old), np.asarray(new))
            ):
                raise ValueError(
                    f"{what}() of {type(self.process).__name__} changes the state at "
                    f"{path or 'its root'} from {old!r} to {new!r}, which are no arrays: let init() "
                    "return an array there, such as jnp.asarray(...)"
                )

    def digest(self, seeds: Sequence[int], at: np.ndarray) -> str:
        """Hash of what a run computes, made without running it.

        It covers the traced init, step, observe and turn with their constants, the values of the
        array leaves, seeds, observation steps, the observables' names and meaning, and the version
        of the loop; not JAX's version, devices and compile options, which stand beside it. "" where
        Python is called back from the program, which no trace of it shows.
        """
        traces = [t.jaxpr for t in (self.init, self.step, self.observe, self.turn) if t is not None]
        if any(calls_back(jaxpr) for jaxpr in traces):
            return ""
        found = hashlib.sha256(repr(sorted(self.turns)).encode())
        for jaxpr in traces:
            found.update(_text(jaxpr).encode() + b"".join(map(bits, constants(jaxpr))))
        for leaf in self.arrays:
            found.update(f"{leaf.dtype}{leaf.shape}".encode() + bits(leaf))
        process = self.process
        about = {
            name: (q.units, q.dims, q.gaps, q.over, sorted((d, list(map(str, c))) for d, c in q.coords.items()))
            for name, q in self.quantities.items()
        }  # fmt: skip
        named = (list(self.observed), list(self.info), self.checks, sorted(about.items()))
        run = (tuple(seeds), tuple(map(int, at)), process.seeds_by, process.x64, LOOP_VERSION)
        found.update(repr((named, run)).encode())
        return found.hexdigest()[:20]


_waiting: list[tuple[Process, Program]] = []  # at most one, from its digest to its run


def digest(process: Process, seeds: Sequence[int], at: np.ndarray) -> str:
    """`Program.digest` of a process, under its own types."""
    with contextlib.ExitStack() as stack:
        if process.x64:
            stack.enter_context(jax.enable_x64(True))
        program = Program(process)
        _waiting[:] = [(process, program)]
        return program.digest(seeds, np.asarray(at))


def program_of(process: Process) -> Program:
    """The program of a process, traced now unless a digest of the same object just was."""
    waiting = _waiting.pop() if _waiting else None
    return waiting[1] if waiting and waiting[0] is process else Program(process)


def _text(jaxpr: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(jaxpr))


def _within(jaxpr: Any) -> Iterator[Any]:
    """A traced function and those that its operations hold, such as loops and jitted functions."""
    yield jaxpr
    for equation in jaxpr.eqns:
        held = jax.tree.leaves(dict(equation.params), is_leaf=lambda x: hasattr(x, "eqns"))
        for each in held:
            if hasattr(each, "eqns"):
                yield from _within(each)


def constants(jaxpr: Any) -> Iterator[Any]:
    """The arrays that a traced function holds, at whatever depth; its text does not show them."""
    for each in _within(jaxpr):
        yield from getattr(each, "consts", ())
        for equation in each.eqns:
            yield from (x.val for x in equation.invars if isinstance(x, Literal) and np.ndim(x.val))


def calls_back(jaxpr: Any) -> bool:
    """Whether Python functions are called while the program runs."""
    return any("callback" in e.primitive.name for each in _within(jaxpr) for e in each.eqns)


_compiled: dict[str, Callable[..., Any]] = {}

# What runs once costs more to optimise than to run.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


def compiled_once(
    program: Any, *arguments: Any, options: Mapping[str, Any] | None = None
) -> tuple[Callable[..., Any], Any]:
    """A jitted program for these arguments, compiled unless its like has been; and its hash.

    One that calls Python back is always compiled.
    """
    traced = program.trace(*arguments)
    places = [str(getattr(x, "sharding", "")) for x in jax.tree.leaves(arguments)]
    identity = hashlib.sha256(f"{jax.__version__} {places} {_text(traced.jaxpr)}".encode())
    for constant in constants(traced.jaxpr):
        identity.update(bits(constant))
    if calls_back(traced.jaxpr):  # nothing in it tells what is called
        return traced.lower().compile(dict(options or {})), identity
    key = identity.hexdigest()
    if key not in _compiled:
        _compiled[key] = traced.lower().compile(dict(options or {}))
    return _compiled[key], identity


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless the user has chosen another."""
    if getattr(jax.config, "jax_compilation_cache_dir") is None:
        folder = Path(platformdirs.user_cache_dir("latebloom")) / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def bits(leaf: Any) -> bytes:
    """The bytes of an array or of keys."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes()


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float | np.ndarray | np.generic) else leaf


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _show(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
