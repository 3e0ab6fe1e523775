"""Units of work on disk: each the traces of one arm for some seeds, addressed by what made it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import jax
import numpy as np
import platformdirs
import xarray as xr

from latebloom.core.checkpoint import is_key, write_atomically
from latebloom.lab import identity
from latebloom.lab.plain import plain


def default_folder() -> Path:
    """$LATEBLOOM_STORE, or the store in the user's cache folder."""
    return Path(
        os.environ.get("LATEBLOOM_STORE")
        or Path(platformdirs.user_cache_dir("latebloom")) / "store"
    )


@dataclass(frozen=True)
class Unit:
    """One arm of a study for some seeds; its key says all that its result depends on."""

    study: str
    arm: str
    config: Any
    seeds: tuple[int, ...]
    at: tuple[int, ...]
    source: str
    made_as: str = ""  # the key it is kept under, where that is another's

    @property
    def key(self) -> str:
        if self.made_as:
            return self.made_as
        # Not the arm: arms with equal configs are one result.
        identity = self.study, exactly(self.config), self.seeds, self.at, self.source
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:20]


def exactly(value: Any) -> Any:
    """A config, or a value in one, as text and tuples that differ where types or bits do.

    Raises `ValueError` for what cannot be told from another of its kind.
    """
    kind = type(value).__qualname__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return kind, [(f.name, exactly(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if _is_array(value):
        leaf: Any = value
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        if array.dtype != object:
            return kind, str(leaf.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if isinstance(value, dict):
        return kind, sorted((repr(exactly(k)), exactly(v)) for k, v in value.items())
    if isinstance(value, tuple | list):
        return kind, [exactly(each) for each in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(exactly(each)) for each in value)
    if isinstance(value, str | int | float | complex | bytes | None | Enum | PurePath):
        return kind, repr(value)
    name = getattr(value, "__qualname__", "<")
    if callable(value) and "<" not in name:  # one of a module's own
        return value.__module__, name
    raise ValueError(
        f"a config holds {value!r}, which cannot be told from others like it: give numbers, text, "
        "arrays, dataclasses, or functions that a module defines by name"
    )


def config_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-able values, for people; those within it with their classes' names."""
    return {f.name: plain(_shown(getattr(config, f.name))) for f in dataclasses.fields(config)}


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type)


def _shown(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__qualname__} | config_dict(value)
    if isinstance(value, dict):
        return {str(k): _shown(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_shown(each) for each in value]
    if isinstance(value, bool | int | float | str | np.generic | None):
        return value
    if _is_array(value):
        _, dtype, shape, bits = exactly(value)
        return f"{dtype}{list(shape)} {bits[:12]}"
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return str(value)


class Store:
    """A folder of units. Files are written aside and renamed; each has its checksum beside it.

    Raises `ValueError` if the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        self.folder = Path(folder) if folder is not None else default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(os.scandir(self.folder)):
                pass
        except OSError as error:
            raise ValueError(f"the store {self.folder} cannot be used: {error.strerror}") from None
        if not os.access(self.folder, os.W_OK):
            raise ValueError(
                f"the store {self.folder} cannot be written to; give another with --store"
            )

    def _stem(self, unit: Unit) -> Path:
        return self.folder / unit.study / f"{unit.key}"

    def path(self, unit: Unit) -> Path:
        """The NetCDF file of a unit."""
        return self._stem(unit).with_suffix(".nc")

    def checkpoint(self, unit: Unit) -> Path:
        """Where the unit's run keeps its state while it is under way."""
        return self._stem(unit).with_suffix(".checkpoint")

    @contextlib.contextmanager
    def lock(self, unit: Unit) -> Iterator[None]:
        """Held while a unit is computed: a second run waits and then finds the result.

        The system releases it when its process ends, however it ends.
        """
        path = self._stem(unit).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self, unit: Unit) -> xr.Dataset | None:
        """The unit's trace, or None if it has to be computed.

        A damaged file is named in a warning, set aside, and counts as absent.
        """
        path = self.path(unit)
        if not path.exists():
            return None
        try:
            expected = path.with_suffix(".sha256").read_text().strip()
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                raise ValueError("its checksum does not match")
            with xr.open_dataset(path, engine="h5netcdf") as trace:
                return trace.load()
        except (OSError, ValueError, KeyError) as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            warnings.warn(
                f"{path} is damaged ({error}); it was moved to {aside.name} and is computed again",
                stacklevel=2,
            )
            return None

    def write(self, unit: Unit, trace: xr.Dataset) -> Path:
        """Keep a unit's trace; returns its path."""
        path = self.path(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        payload = bytes(trace.to_netcdf(engine="h5netcdf", encoding=_compression(trace)))  # pyright: ignore
        digest = hashlib.sha256(payload).hexdigest()
        # The checksum goes first: a kill between the two leaves a unit that is absent, not wrong.
        write_atomically(path.with_suffix(".sha256"), digest.encode())
        write_atomically(path, payload)
        return path

    def find(self, unit: Unit, program: str) -> xr.Dataset | None:
        """A trace that the same program made, whatever its source was then; kept as the unit's own."""
        link = self.folder / unit.study / f"{program}.program"
        if not link.exists():
            return None
        made = dataclasses.replace(unit, made_as=link.read_text().strip())
        if (trace := self.read(made)) is None or identity.key_of(trace) != program:
            return None  # what was kept there has gone, or is another program's by now
        trace.attrs["config"] = json.dumps(config_dict(unit.config), default=str, sort_keys=True)
        self.write(unit, trace)
        return trace

    def remember(self, unit: Unit, program: str) -> None:
        """Note that the unit's trace was made by a program, for `find`."""
        write_atomically(self.folder / unit.study / f"{program}.program", unit.key.encode())

    def write_record(self, study: str, name: str, record: dict[str, Any]) -> Path:
        """Keep a JSON record of a pass beside its units."""
        path = self.folder / study / f"{name}.json"
        write_atomically(path, json.dumps(record, indent=1).encode())
        return path

    def read_record(self, study: str, name: str) -> dict[str, Any] | None:
        """A record written by `write_record`, or None."""
        path = self.folder / study / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


def _compression(trace: xr.Dataset) -> dict[str, dict[str, Any]]:
    large = [n for n, v in trace.data_vars.items() if v.size > 4096 and v.dtype.kind in "fiu"]
    return {str(name): {"zlib": True, "complevel": 1} for name in large}
