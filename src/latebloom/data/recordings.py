"""Recorded activity from a user's file: a table of steps x units, or an array of trials."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from latebloom.data.columns import Column, FileError, listed, shown
from latebloom.data.files import read_table, row_number
from latebloom.data.labelled import DAMAGE

EVEN = 0.01  # how far steps of time may differ, as a share of a step


@dataclass(frozen=True, eq=False)
class Recording:
    """`activity` [trials, time, units], NaN where a file has a gap; `step`: the time between two steps, if the file says."""

    activity: Float[np.ndarray, "trials time units"]
    names: tuple[str, ...]
    step: float | None


def read_recording(
    path: str | os.PathLike[str], *, time: str = "time", trial: str = "trial", units: Sequence[str] = (),
) -> Recording:  # fmt: skip
    """The activity in a file, one number a unit and step.

    - A table (as `read_table` takes them): a row a step, a column a unit. A column `trial` says which rows are one trial;
      all have as many. A column `time` must go up by equal steps in each trial. `units`: the columns that are units; all
      others, if none are named.
    - `.npy`: [time, units], or [trials, time, units]. `.npz`: such an array under `activity` (or the only one), and, if
      wanted, `names` of the units and the `step` of time.

    Raises `FileError` that says what is wrong, where.
    """
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz"):
        return _array(path, tuple(units))
    return _table(path, time, trial, tuple(units))


def _table(path: Path, time: str, trial: str, units: tuple[str, ...]) -> Recording:
    def columns(header: list[str]) -> dict[str, Column]:
        found = {name: Column("number") for name in header if name == time}
        found |= {name: Column("label") for name in header if name == trial}
        own = units if units else [name for name in header if name not in found]
        return found | {name: Column("number", gaps=True, infinite=True) for name in own}

    table = read_table(path, columns)
    names = tuple(units) if units else tuple(n for n in table if n not in (time, trial))
    if not names or len(set(names)) < len(names) or {time, trial} & set(names):
        raise FileError(f"{path} needs at least one column of a unit, each once, beside {time!r} and {trial!r}; it has: {listed(table.columns)}")  # fmt: skip
    values = table[list(names)].to_numpy(np.float64)
    if trial not in table:
        rows = [np.arange(len(table))]
    else:
        groups = table.groupby(trial, sort=False).indices
        rows, longest = [np.sort(r) for r in groups.values()], max(map(len, groups.values()))
        for name, own in zip(groups, rows, strict=True):
            if len(own) < longest:
                raise FileError(f"{path}, column {trial!r}: trial {shown(str(name))} has {len(own)} steps where another has {longest}: cut all to one length")  # fmt: skip
    step = _step(path, table, time, rows) if time in table else None
    return Recording(np.stack([values[own] for own in rows]), names, step)


def _step(path: Path, table: object, time: str, rows: list[np.ndarray]) -> float | None:
    """The time between two rows, the same throughout; None where trials have a row each."""
    times = np.stack([np.asarray(table[time], float)[own] for own in rows])  # pyright: ignore
    gaps = np.diff(times, axis=1)
    if not gaps.size:
        return None
    step = float(np.median(gaps))
    wrong = (gaps <= 0) | (np.abs(gaps - step) > EVEN * step)
    if wrong.any():
        where, at = np.argwhere(wrong)[0]
        row = row_number(table, int(rows[where][at + 1]))  # pyright: ignore
        raise FileError(f"{path}, column {time!r}, row {row}: time must go up by the same step, here {step:g} and not {gaps[where, at]:g}: fill gaps, sort, or say which rows are a trial")  # fmt: skip
    return step


def _array(path: Path, units: tuple[str, ...]) -> Recording:
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    names: np.ndarray | None = None
    step: float | None = None
    try:
        if path.suffix.lower() == ".npz":
            if not zipfile.is_zipfile(path):
                raise FileError(f"{path} is not an .npz that can be read: save it with numpy.savez")
            with np.load(path, allow_pickle=False) as arrays:
                there = list(arrays)
                rest = [name for name in there if name not in ("names", "step")]
                key = "activity" if "activity" in there else rest[0] if len(rest) == 1 else None
                if key is None:
                    raise FileError(f"{path} has no array 'activity'; it has: {listed(there) or 'none'}: save it with numpy.savez(path, activity=activity)")  # fmt: skip
                activity = arrays[key]
                names = arrays["names"] if "names" in there else None
                step = _positive(path, arrays["step"]) if "step" in there else None
        else:
            activity = np.load(path, allow_pickle=False)
    except FileError:
        raise
    except DAMAGE as error:
        if "Object arrays" in str(error):
            raise FileError(f"{path} holds Python objects: save one array of numbers [trials, time, units]") from None  # fmt: skip
        raise FileError(f"{path} is damaged ({shown(error, quoted=False)}): save it anew") from None
    if activity.dtype.kind not in "fiub" or activity.ndim not in (2, 3) or activity.size == 0:
        raise FileError(f"{path} must hold numbers [trials, time, units], or [time, units] of one recording, not {activity.dtype} {list(activity.shape)}")  # fmt: skip
    activity = activity[None] if activity.ndim == 2 else activity
    count = activity.shape[2]
    if names is not None and (names.shape != (count,) or names.dtype.kind not in "USiu"):
        raise FileError(f"{path}, array 'names' must hold {count} names, one a unit, not {names.dtype} {list(names.shape)}")  # fmt: skip
    plain = range(count) if names is None else names.astype(str)
    own = tuple(map(str, plain))
    if len(set(own)) < count:
        raise FileError(f"{path}, array 'names': a name appears twice: give each unit its own")
    for unit in units:
        if unit not in own:
            raise FileError(f"{path} has no unit {unit!r}; it has: {listed(own)}")
    kept = [own.index(unit) for unit in units] if units else list(range(count))
    return Recording(activity[:, :, kept].astype(np.float64), tuple(own[i] for i in kept), step)


def _positive(path: Path, step: np.ndarray) -> float:
    if step.size != 1 or step.dtype.kind not in "fiu" or not 0 < float(step.item()) < np.inf:
        raise FileError(f"{path}, array 'step' must be one number above 0: the time between two steps")  # fmt: skip
    return float(step.item())
