"""What a run has observed so far, and the bookkeeping that both kinds of run share."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from latebloom.core.checkpoint import DamagedFile, load_arrays
from latebloom.core.process import Quantity
from latebloom.core.progress import Tick

PREFIX = 3  # observations by which a run is recognised without running it to its end

OWN = ("seed", "step", "diverged_at", "diverged_in")  # coordinates of every trace


def check_names(process: Any, names: Iterable[str]) -> None:
    """Raise `ValueError` for an observable that bears the name of a coordinate of every trace."""
    if taken := sorted(set(names) & set(OWN)):
        raise ValueError(
            f"{type(process).__name__} records {taken[0]!r}, a name that every trace has for "
            "itself: choose another"
        )


def compile_options() -> str:
    """The XLA flags in force that may change bits; how many host devices there are is told apart."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted(f for f in flags if "xla_force_host_platform_device_count" not in f))


def unlike(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str | None:
    """How the names or shapes of two rows of observables differ, or None."""
    for name in {*one, *other}:
        if name not in one or name not in other:
            return f"{name!r} at some times only"
        if (a := np.shape(one[name])) != (b := np.shape(other[name])):
            return f"{name!r} in different shapes: {list(a)} and {list(b)}"
    return None


class Run:
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

    fingerprint: str  # of the run, for its checkpoints
    devices: int = 1

    @property
    def identity(self) -> str:
        """Hash of what the run computes, where it can be had without running it; else ""."""
        return ""

    def prefix(self) -> str:
        """Hash of the bits of the first observations, or "" where there are none yet."""
        if self.row < (rows := min(PREFIX, len(self.at))):
            return ""
        found = hashlib.sha256()
        for name in sorted(self.records):
            first = np.ascontiguousarray(self.records[name][:, :rows])
            found.update(f"{name}{first.dtype}{first.shape}".encode() + first.tobytes())
        return found.hexdigest()[:20]

    def advance(self) -> None:
        raise NotImplementedError

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def restore(self, path: Path) -> None:
        raise NotImplementedError

    @property
    def done(self) -> bool:
        return self.row == len(self.at)

    def record(self, rows: Mapping[str, np.ndarray], count: int) -> None:
        """Take over `count` rows [seed, count, ...] of every observable.

        A record's type is one that holds all its rows, and one that files know: floats of 32 bits or
        more.
        """
        first = {name: values[0, 0] for name, values in self.records.items()} if self.row else None
        if first is not None and (
            wrong := unlike(first, {name: values[0, 0] for name, values in rows.items()})
        ):
            raise ValueError(f"observe() of {type(self.process).__name__} returns {wrong}")
        for name, values in rows.items():
            if values.dtype.kind == "V" or values.dtype == np.float16:
                values = values.astype(np.float32)
            if name not in self.records:
                shape = (len(self.seeds), len(self.at), *values.shape[2:])
                self.records[name] = np.zeros(shape, values.dtype)
            held = np.result_type(self.records[name], values)
            self.records[name] = self.records[name].astype(held, copy=False)
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

    def note(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "row": self.row,
            "died": self.died.tolist(),
            "died_of": self.died_of,
            "run_seconds": self.run_seconds,
        }

    def read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
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

    def record_leaves(self) -> dict[str, np.ndarray]:
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
            "program": self.identity,
            "prefix": self.prefix(),
            "process": type(self.process).__qualname__,
            "config": json.dumps(dict(config), default=str, sort_keys=True),
            "latebloom": version("latebloom"),
            "jax": version("jax"),
            "backend": f"{jax.default_backend()} x {self.devices}",
            "options": compile_options(),
            "compile_seconds": round(self.compile_seconds, 3),
            "run_seconds": round(self.run_seconds, 3),
            "steps_per_second": round(len(self.seeds) * self.step / max(self.run_seconds, 1e-9), 2),
        }
        return xr.Dataset(variables, coords, attrs)
