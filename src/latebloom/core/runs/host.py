"""A process that cannot be traced, stepped from Python."""

from __future__ import annotations

import hashlib
import pickle
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from latebloom.core.checkpoint import save_arrays
from latebloom.core.process import HostProcess, Quantity, Stepped
from latebloom.core.runs.recording import Run, check_names, unlike


class HostRun(Run):
    """One seed step after another in Python; a chunk ends at an observation."""

    process: HostProcess

    def __init__(self, process: HostProcess, seeds: list[int], at: np.ndarray):
        super().__init__(process, seeds, at)
        if hasattr(process, "turns") or hasattr(process, "turn"):
            raise ValueError(f"{type(process).__name__} has turns, which a HostProcess cannot take")
        self.states = [process.init(seed) for seed in seeds]
        check_names(process, process.observe(self.states[0]))

    @cached_property
    def fingerprint(self) -> str:
        identity = type(self.process).__qualname__, self.process, self.seeds, self.at.tolist()
        return hashlib.sha256(self._pickled(identity)).hexdigest()

    def _pickled(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{type(self.process).__name__} cannot be kept in a checkpoint ({error}): define its "
                "class and functions at the top level of a module"
            ) from None

    def advance(self) -> None:
        start = time.perf_counter()
        target, rows = int(self.at[self.row]), []
        for i in range(len(self.seeds)):
            alive = self.died[i] < 0
            for _ in range(target - self.step if alive else 0):
                self.states[i] = self.process.step(self.states[i])
            if isinstance(self.states[i], Stepped):
                raise ValueError(
                    f"step() of {type(self.process).__name__} must return the state alone"
                )
            row = {n: np.asarray(v) for n, v in self.process.observe(self.states[i]).items()}
            bad = [n for n, v in row.items() if self._not_finite(n, v)]
            if alive and bad:
                self.died[i], self.died_of[i] = target, bad[0]
            if not alive:
                row = {n: v * np.nan if v.dtype.kind in "fc" else v for n, v in row.items()}
            rows.append(row)
        self.step = target
        for row in rows:
            if (wrong := unlike(rows[0], row)) is not None:
                raise ValueError(f"observe() of {type(self.process).__name__} returns {wrong}")
        self.record({n: np.stack([r[n] for r in rows])[:, None] for n in rows[0]}, 1)
        self.run_seconds += time.perf_counter() - start

    def _not_finite(self, name: str, value: np.ndarray) -> bool:
        gaps = self.quantities.get(name, Quantity()).gaps
        return value.dtype.kind in "fc" and not gaps and not np.isfinite(value).all()

    def save(self, path: Path) -> None:
        states = np.frombuffer(self._pickled(self.states), np.uint8)
        save_arrays(path, {"states": states, **self.record_leaves()}, self.note())

    def restore(self, path: Path) -> None:
        if found := self.read(path):
            self.states = pickle.loads(found[0]["states"].tobytes())
