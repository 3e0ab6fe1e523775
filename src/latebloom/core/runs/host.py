"""A process that cannot be traced, stepped from Python."""

from __future__ import annotations

import hashlib
import pickle
import time
from pathlib import Path

import numpy as np

from latebloom.core.checkpoint import save_arrays
from latebloom.core.process import HostProcess, Quantity
from latebloom.core.runs.recording import Run, check_names


class HostRun(Run):
    """One seed step after another in Python; a chunk ends at an observation."""

    process: HostProcess

    def __init__(self, process: HostProcess, seeds: list[int], at: np.ndarray):
        super().__init__(process, seeds, at)
        identity = pickle.dumps((type(process).__qualname__, process, seeds, at.tolist()))
        self.fingerprint = hashlib.sha256(identity).hexdigest()
        self.states = [process.init(seed) for seed in seeds]
        check_names(process, process.observe(self.states[0]))

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
        self.record({n: np.stack([r[n] for r in rows])[:, None] for n in rows[0]}, 1)
        self.run_seconds += time.perf_counter() - start

    def _not_finite(self, name: str, value: np.ndarray) -> bool:
        gaps = self.quantities.get(name, Quantity()).gaps
        return value.dtype.kind == "f" and not gaps and not np.isfinite(value).all()

    def save(self, path: Path) -> None:
        states = np.frombuffer(pickle.dumps(self.states), np.uint8)
        save_arrays(path, {"states": states, **self.record_leaves()}, self.note())

    def restore(self, path: Path) -> None:
        if found := self.read(path):
            self.states = pickle.loads(found[0]["states"].tobytes())
