"""Events (which unit fired when) as files hold them, and as counts in steps of time, which networks take.

`read_events` reads the layout of the Spiking Heidelberg Digits and Spiking Speech Commands (Cramer et al. 2020).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int, UInt8

from latebloom.data.sources import DataError

UNITS = 700  # of the artificial cochlea of both sets


@dataclass(frozen=True, eq=False)
class Events:
    """Examples of events, one after the other. Equal only to itself.

    - `times` in seconds from each example's start, `units` from 0 to `channels` - 1: [events]; each example's in order
      of time.
    - `starts` [examples + 1]: where each example begins, and the number of events.
    - `labels` [examples] from 0 on; `speakers` [examples], or None; `classes`: names of the labels, or ().
    """

    times: Float[np.ndarray, " events"]
    units: Int[np.ndarray, " events"]
    starts: Int[np.ndarray, " edges"]
    labels: Int[np.ndarray, " examples"]
    channels: int
    speakers: Int[np.ndarray, " examples"] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def binned(
        self, step: float = 0.01, steps: int = 100, pool: int = 1
    ) -> UInt8[np.ndarray, "examples steps channels"]:
        """How many events each group of `pool` neighbouring units has in each step of `step` seconds.

        Events after the last step are left out; a count ends at 255. Raises `ValueError` for a step that is not
        above 0, no steps, and groups that do not divide the channels.
        """
        if not step > 0 or steps < 1:
            raise ValueError(f"step must be above 0 seconds and steps at least 1, not {step} and {steps}")  # fmt: skip
        if pool < 1 or self.channels % pool:
            raise ValueError(f"pool must divide the {self.channels} channels, unlike {pool}")
        example = np.repeat(np.arange(len(self)), np.diff(self.starts))
        # A time written as k steps is in step k, whatever its last bit.
        at = np.floor(self.times / step + 1e-6).astype(np.int64)
        seen = at < steps
        counts = np.zeros((len(self), steps, self.channels // pool), np.int64)
        np.add.at(counts, (example[seen], at[seen], self.units[seen] // pool), 1)
        return np.minimum(counts, 255).astype(np.uint8)


def read_events(path: str | os.PathLike[str], channels: int = UNITS) -> Events:
    """Events of an HDF5 file with `spikes/times`, `spikes/units` (an array for each example) and `labels`.

    `extra/speaker` and `extra/keys` are read where there are any, as in `shd_train.h5`.

    Raises `DataError` that says what is missing or wrong, and in which example.
    """
    try:
        with h5py.File(path, "r") as file:
            return _events(file, str(path), channels)
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from None


def _events(file: h5py.File, path: str, channels: int) -> Events:
    parts = {name: _dataset(file, name, path) for name in ("spikes/times", "spikes/units", "labels")}  # fmt: skip
    labels = np.asarray(parts["labels"])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise DataError(f"{path}, labels: must be whole numbers from 0 on, one an example")
    count = len(labels)
    for name in ("spikes/times", "spikes/units"):
        if len(parts[name]) != count:
            raise DataError(f"{path}, {name}: {len(parts[name])} examples, but there are {count} labels")  # fmt: skip
    if not count:
        raise DataError(f"{path} has no examples")
    times, units = [], []
    for i, (when, which) in enumerate(zip(parts["spikes/times"], parts["spikes/units"], strict=True)):  # fmt: skip
        when, which = np.atleast_1d(np.asarray(when)), np.atleast_1d(np.asarray(which))
        if when.shape != which.shape or when.ndim != 1:
            raise DataError(f"{path}, example {i}: {when.size} times, but {which.size} units")
        if when.dtype.kind not in "fiu" or which.dtype.kind not in "iu":
            raise DataError(f"{path}, example {i}: times must be numbers and units whole numbers, not {when.dtype} and {which.dtype}")  # fmt: skip
        when = when.astype(np.float64)
        if not (np.isfinite(when).all() and (when >= 0).all()):
            raise DataError(f"{path}, example {i}: times must be seconds from 0 on")
        if len(which) and not (0 <= int(which.min()) and int(which.max()) < channels):
            raise DataError(f"{path}, example {i}: units must be from 0 to {channels - 1}, not {int(which.min())} to {int(which.max())}: say how many channels there are")  # fmt: skip
        order = np.argsort(when, kind="stable")
        times.append(when[order])
        units.append(which.astype(np.int64)[order])
    starts = np.concatenate([[0], np.cumsum([len(when) for when in times])])
    more = {name: at[()] for name in ("speaker", "keys") if isinstance(at := file.get(f"extra/{name}"), h5py.Dataset)}  # fmt: skip
    speakers = more.get("speaker")
    if speakers is not None and np.shape(speakers) != (count,):
        raise DataError(f"{path}, extra/speaker: {np.size(speakers)} examples, but there are {count} labels")  # fmt: skip
    names = np.atleast_1d(more.get("keys", ()))
    classes = tuple(k.decode() if isinstance(k, bytes) else str(k) for k in names)
    if classes and labels.max() >= len(classes):
        raise DataError(f"{path}, labels: {labels.max()}, but extra/keys names {len(classes)} classes")  # fmt: skip
    return Events(
        np.concatenate(times), np.concatenate(units), starts, labels.astype(np.int64), channels,
        None if speakers is None else np.asarray(speakers).astype(np.int64), classes,
    )  # fmt: skip


def _dataset(file: h5py.File, name: str, path: str) -> Any:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path} has no {name}: it must have spikes/times, spikes/units and labels")  # fmt: skip
    if found.ndim < 1:
        raise DataError(f"{path}, {name}: must have an entry for each example")
    return found[()]


def write_events(events: Events, path: str | os.PathLike[str]) -> None:
    """The same layout, times in half precision as in the original files where that keeps a millisecond."""
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    longest = events.times.max() if len(events.times) else 0.0
    kind = np.dtype(np.float16 if longest < 2 else np.float32)
    with h5py.File(aside, "w") as file:
        for name, values, dtype in (("times", events.times, kind), ("units", events.units, np.dtype(np.uint16))):  # fmt: skip
            ragged = file.create_dataset(f"spikes/{name}", (len(events),), h5py.vlen_dtype(dtype))
            for i, (first, last) in enumerate(zip(events.starts[:-1], events.starts[1:], strict=True)):  # fmt: skip
                ragged[i] = values[first:last].astype(dtype)
        file["labels"] = events.labels.astype(np.uint16)
        if events.speakers is not None:
            file["extra/speaker"] = events.speakers.astype(np.uint16)
        if events.classes:
            file["extra/keys"] = np.array([name.encode() for name in events.classes])
    aside.replace(path)


def from_counts(
    counts: Int[np.ndarray, "examples steps channels"] | UInt8[np.ndarray, "examples steps channels"],
    labels: Int[np.ndarray, " examples"], step: float = 0.01, classes: tuple[str, ...] = (),
) -> Events:  # fmt: skip
    """Events of counts: as many at the start of a step of `step` seconds as it counts."""
    example, at, unit = np.nonzero(counts)
    often = counts[example, at, unit]
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=(1, 2), dtype=np.int64))])
    return Events(
        np.repeat(at * step, often), np.repeat(unit, often), starts, np.asarray(labels).astype(np.int64),
        counts.shape[2], None, classes,
    )  # fmt: skip
