"""Events (which unit fired when) as files hold them, and as counts in steps of time, which networks take.

`read_events` reads the layout of the Spiking Heidelberg Digits and Spiking Speech Commands (Cramer et al. 2020).
"""

from __future__ import annotations

import itertools
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

    Raises `ValueError` for parts that do not go together, and for times, units and labels that cannot be.
    """

    times: Float[np.ndarray, " events"]
    units: Int[np.ndarray, " events"]
    starts: Int[np.ndarray, " edges"]
    labels: Int[np.ndarray, " examples"]
    channels: int
    speakers: Int[np.ndarray, " examples"] | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times, units, starts, labels = (np.asarray(v) for v in (self.times, self.units, self.starts, self.labels))  # fmt: skip
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any():
            raise ValueError(f"labels must be whole numbers from 0 on, one an example, not {labels.dtype} {list(labels.shape)}")  # fmt: skip
        if times.ndim != 1 or times.shape != units.shape:
            raise ValueError(f"times and units must be one an event, not {list(times.shape)} and {list(units.shape)}")  # fmt: skip
        edges = starts.shape == (len(labels) + 1,) and starts.dtype.kind in "iu"
        if not (edges and starts[0] == 0 and starts[-1] == len(times) and (np.diff(starts) >= 0).all()):  # fmt: skip
            raise ValueError(f"starts must go up from 0 to the {len(times)} events, one more than the {len(labels)} labels")  # fmt: skip
        if not (np.isfinite(times).all() and (times >= 0).all()):
            raise ValueError("times must be seconds from 0 on")
        if len(units) and (units.dtype.kind not in "iu" or units.min() < 0 or units.max() >= self.channels):  # fmt: skip
            raise ValueError(f"units must be whole numbers from 0 to {self.channels - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    def binned(
        self, step: float = 0.01, steps: int = 100, pool: int = 1
    ) -> UInt8[np.ndarray, "examples steps channels"]:
        """How many events each group of `pool` neighbouring units has in each step of `step` seconds.

        Events after the last step are left out; a count ends at 255. Raises `ValueError` for a step that is not
        above 0, no steps, groups that do not divide the channels, and where all events come after the last step.
        """
        if not step > 0 or steps < 1:
            raise ValueError(f"step must be above 0 seconds and steps at least 1, not {step} and {steps}")  # fmt: skip
        if pool < 1 or self.channels % pool:
            raise ValueError(f"pool must divide the {self.channels} channels, unlike {pool}")
        # A time written as k steps is in step k, whatever its last bit.
        at = np.floor(np.minimum(self.times / step, steps) + 1e-6).astype(np.int64)
        if len(at) and at.min() >= steps:
            raise ValueError(f"no event is in the first {steps * step:g} seconds, the first is at {self.times.min():g}: times must be seconds, or take more steps")  # fmt: skip
        wide = self.channels // pool
        counts = np.zeros((len(self), steps, wide), np.uint8)
        for i, (first, last) in enumerate(itertools.pairwise(self.starts)):
            seen = at[first:last] < steps
            place = at[first:last][seen] * wide + self.units[first:last][seen] // pool
            often = np.bincount(place, minlength=steps * wide).reshape(steps, wide)
            counts[i] = np.minimum(often, 255)
        return counts


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
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < 2**63):  # fmt: skip
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
    if speakers is not None and np.asarray(speakers).dtype.kind not in "iu":
        raise DataError(f"{path}, extra/speaker: must be whole numbers, not {np.asarray(speakers).dtype}")  # fmt: skip
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
    """The same layout; all numbers in the least width that keeps them: half precision and 16 bits, as in the original files,
    or more."""
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    kept = (np.dtype(k) for k in (np.float16, np.float32))
    with np.errstate(over="ignore"):
        kind = next((k for k in kept if (events.times.astype(k) == events.times).all()), np.dtype(np.float64))  # fmt: skip
    with h5py.File(aside, "w") as file:
        for name, values, dtype in (("times", events.times, kind), ("units", events.units, _least(events.units))):  # fmt: skip
            ragged = file.create_dataset(f"spikes/{name}", (len(events),), h5py.vlen_dtype(dtype))
            for i, (first, last) in enumerate(zip(events.starts[:-1], events.starts[1:], strict=True)):  # fmt: skip
                ragged[i] = values[first:last].astype(dtype)
        file["labels"] = events.labels.astype(_least(events.labels))
        if events.speakers is not None:
            file["extra/speaker"] = events.speakers.astype(_least(events.speakers))
        if events.classes:
            file["extra/keys"] = np.array([name.encode() for name in events.classes])
    aside.replace(path)


def _least(values: Int[np.ndarray, " n"]) -> np.dtype:
    kinds = (np.dtype(k) for k in (np.uint16, np.uint32, np.int64))
    return next(k for k in kinds if (values.astype(k) == values).all())


def from_counts(
    counts: Int[np.ndarray, "examples steps channels"] | UInt8[np.ndarray, "examples steps channels"],
    labels: Int[np.ndarray, " examples"], step: float = 0.01, classes: tuple[str, ...] = (),
) -> Events:  # fmt: skip
    """Events of counts: as many at the start of a step of `step` seconds as it counts.

    Raises `ValueError` for counts that are not whole numbers from 0 on, and for labels of another number.
    """
    counts, labels = np.asarray(counts), np.asarray(labels)
    if counts.ndim != 3 or counts.dtype.kind not in "iu" or (counts.size and counts.min() < 0):
        raise ValueError(f"counts must be whole numbers from 0 on, [examples, steps, channels], not {counts.dtype} {list(counts.shape)}")  # fmt: skip
    if labels.shape != counts.shape[:1]:
        raise ValueError(f"labels must be one an example, {len(counts)}, not {list(labels.shape)}")
    example, at, unit = np.nonzero(counts)
    often = counts[example, at, unit]
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=(1, 2), dtype=np.int64))])
    return Events(
        np.repeat(at * step, often), np.repeat(unit, often), starts, labels,
        counts.shape[2], None, classes,
    )  # fmt: skip
