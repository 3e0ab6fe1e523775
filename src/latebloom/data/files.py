"""Users' tables, checked at the border: every error names the file, the column, the row, the mend."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["number", "integer", "text", "time", "list"]


class FileError(ValueError):
    """A file or table that cannot be used; the message says where and what to do."""


@dataclass(frozen=True)
class Column:
    """What a column must hold.

    - `kind`: "number", "integer", "text", "time" (ISO 8601, or any that pandas reads) or "list"
      (a JSON list, or values separated by spaces or "|").
    - `low`, `high`: bounds of a number, included unless `above` says that it must exceed `low`.
    - `required`: whether the table must have it; `gaps`: whether single values may be missing.
    """

    kind: Kind = "number"
    low: float | None = None
    high: float | None = None
    above: bool = False
    required: bool = True
    gaps: bool = False


def read_table(
    path: str | os.PathLike[str], columns: Mapping[str, Column], *, min_rows: int = 1
) -> pd.DataFrame:
    """Read a CSV (comma, semicolon or tab) or a Parquet file and check its columns.

    Columns that are not asked for are kept as they come. Raises `FileError` for a file that is
    missing, empty, of another format, too short, or has a column missing or a value wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    if path.suffix.lower() in (".parquet", ".pq"):
        frame, first = _parquet(path), 1
    else:
        frame, first = _csv(path), 2
    return check_table(frame, columns, where=str(path), min_rows=min_rows, first_row=first)


def check_table(
    frame: pd.DataFrame, columns: Mapping[str, Column], *,
    where: str = "the table", min_rows: int = 1, first_row: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A copy of `frame` in which the columns have the types asked for.

    `first_row` is the number by which messages call the first row (2 in a CSV, whose header is
    line 1). Raises `FileError`.
    """
    missing = [n for n, c in columns.items() if c.required and n not in frame.columns]
    if missing:
        raise FileError(
            f"{where} has no column {missing[0]!r}; it has: {', '.join(map(str, frame.columns))}"
        )
    if len(frame) < min_rows:
        raise FileError(
            f"{where} has {len(frame)} rows where at least {min_rows} are needed: give more data"
        )
    frame = frame.reset_index(drop=True)
    for name, column in columns.items():
        if name in frame.columns:
            frame[name] = _checked(
                pd.Series(frame[name]), column, f"{where}, column {name!r}", first_row
            )
    return frame


def _csv(path: Path) -> pd.DataFrame:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text in UTF-8: save it as CSV (UTF-8)") from None
    if not text.strip():
        raise FileError(f"{path} is empty: it needs a header line and rows")
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    lines = list(csv.reader(text.splitlines(), delimiter=separator))
    names = [name.strip() for name in lines[0]]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise FileError(f"{path}, line 1: column {twice!r} appears twice: rename one of them")
    rows = lines[1:]
    while rows and not any(rows[-1]):
        rows.pop()
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise FileError(
                f"{path}, line {number} has {len(row)} values where the header names {len(names)}"
                " columns: quote values that contain the separator"
            )
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=object)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise FileError(
            f"{path}: reading Parquet needs pyarrow: pip install 'latebloom[parquet]'"
        ) from None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is not a Parquet file that can be read ({error})") from None


def _checked(values: pd.Series, column: Column, where: str, first_row: int) -> pd.Series:
    empty = values.isna() | values.map(lambda v: isinstance(v, str) and not v.strip())
    if empty.any() and not column.gaps:
        raise FileError(f"{where}, row {_row(empty, first_row)} is empty: fill it or drop the row")
    converted = _CONVERTERS[column.kind](values.where(~empty))
    wrong = converted.isna() & ~empty
    if wrong.any():
        value = values[_first(wrong)]
        raise FileError(
            f"{where}, row {_row(wrong, first_row)}: {value!r} is not {_A[column.kind]}"
        )
    if column.kind in ("number", "integer"):
        _check_range(converted, column, where, first_row)
        if column.kind == "integer" and not empty.any():
            converted = converted.astype(np.int64)
    return converted


def _check_range(values: pd.Series, column: Column, where: str, first_row: int) -> None:
    outside = pd.Series(~np.isfinite(values.fillna(0)), values.index)
    if column.low is not None:
        outside |= values <= column.low if column.above else values < column.low
    if column.high is not None:
        outside |= values > column.high
    if outside.any():
        bracket = "(" if column.above else "["
        low = "-∞" if column.low is None else f"{column.low:g}"
        high = "∞)" if column.high is None else f"{column.high:g}]"
        raise FileError(
            f"{where}, row {_row(outside, first_row)}: {values[_first(outside)]:g} is outside"
            f" {bracket if column.low is not None else '('}{low}, {high}"
        )


def _first(where: pd.Series) -> int:
    return int(np.flatnonzero(where.to_numpy())[0])


def _row(where: pd.Series, first_row: int) -> int:
    return _first(where) + first_row


def _numbers(values: pd.Series) -> pd.Series:
    return pd.Series(pd.to_numeric(values, errors="coerce"), values.index, float)


def _integers(values: pd.Series) -> pd.Series:
    numbers = _numbers(values)
    return numbers.where(numbers == numbers.round())


def _times(values: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(values):
        return pd.to_datetime(values, utc=True)
    numbers = _numbers(values)
    if numbers.notna().all():
        return pd.to_datetime(numbers, unit="s", utc=True)
    return pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")


def _lists(values: pd.Series) -> pd.Series:
    def parse(value: object) -> object:
        if isinstance(value, list | tuple | np.ndarray):
            return list(value)
        if not isinstance(value, str):
            return None
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                return None
        return value.replace("|", " ").split()

    return values.map(parse)


def _texts(values: pd.Series) -> pd.Series:
    return values.map(str, na_action="ignore")


_CONVERTERS = {
    "number": _numbers,
    "integer": _integers,
    "text": _texts,
    "time": _times,
    "list": _lists,
}
_A = {
    "number": "a number",
    "integer": "a whole number",
    "text": "text",
    "time": "a time (ISO 8601, or seconds since 1970)",
    "list": "a list (like [1, 2] or 1|2)",
}
