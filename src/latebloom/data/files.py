"""Users' tables, checked at the border: every error names the file, the column, the row, the mend."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latebloom.data.columns import Column, FileError, Unit, assign, listed, shown, tidy
from latebloom.data.decimals import with_points
from latebloom.data.delimited import read_bytes, read_delimited, read_text
from latebloom.data.times import times
from latebloom.data.values import integer, is_gap, label, labels_of, number, why_no_number

__all__ = ["Column", "FileError", "Unit", "check_table", "read_json", "read_table", "row_number"]

Columns = Mapping[str, Column] | Callable[[list[str]], Mapping[str, Column]]
ROWS = "latebloom_rows"  # in `attrs`, as JSON: the first row's number, and those passed over


def read_table(
    path: str | os.PathLike[str], columns: Columns, *, min_rows: int = 1,
    chosen: Sequence[str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Read a table and check its columns.

    - A CSV: separated by commas, semicolons or tabs; in UTF-8, or UTF-16 with a byte order mark;
      with decimal points, or, beside semicolons or tabs, with decimal commas throughout.
    - A Parquet file, whose named index becomes columns.
    - JSON: a list of objects, the `log_history` of a Hugging Face trainer's state, or one object a
      line (.jsonl). What an object lacks is a gap.

    `columns` says what is asked for, or is a function of the file's column names that does. `chosen`
    are the user's own "column=header" pairs; where it is None there is no such option. Columns that
    are not asked for are kept as they come, but for decimal points in those of numbers alone.

    Raises `FileError` for a file that is missing, empty, of another format, too short, or has a
    column missing or a value wrong.
    """
    path = Path(path)
    content = read_bytes(path)
    suffix = path.suffix.lower()
    separator = ""
    if content.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
        frame = _parquet(path)
        rows = np.arange(1, len(frame) + 1)
    elif suffix in (".json", ".jsonl"):
        frame = _records(path, suffix == ".jsonl")
        rows = np.arange(1, len(frame) + 1)
    else:
        read = read_delimited(path, read_text(path))
        frame, separator, rows = read.frame, read.separator, read.rows
    names = list(frame.columns)
    asked = columns(names) if callable(columns) else columns
    meant = assign(names, asked, chosen, str(path))
    displaced = [name for name in names if name in meant.values() and name not in meant]
    frame = frame.drop(columns=displaced).rename(columns=meant)
    if separator:
        frame = with_points(frame, asked, separator, rows, str(path))
    frame.attrs[ROWS] = _packed(rows)
    return check_table(frame, asked, where=str(path), min_rows=min_rows)


def check_table(
    frame: pd.DataFrame, columns: Mapping[str, Column], *, where: str = "the table",
    min_rows: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """A copy of `frame` in which the columns have the types asked for.

    Rows are named in messages as the file numbers them (in a CSV the header is row 1), or from 0 on
    where the table comes from no file. Raises `FileError`.
    """
    missing = [n for n, c in columns.items() if c.required and n not in frame.columns]
    if missing:
        raise FileError(f"{where} has no column {missing[0]!r}; it has: {listed(frame.columns)}")
    if len(frame) < min_rows:
        raise FileError(
            f"{where} has {len(frame)} rows where at least {min_rows} are needed: give more data"
        )
    numbering = frame.attrs.get(ROWS)
    frame = frame.reset_index(drop=True)
    if numbering is not None:
        frame.attrs[ROWS] = numbering
    for name, column in columns.items():
        if name in frame.columns:
            frame[name] = _checked(frame, name, column, where)
    return frame


def row_number(table: pd.DataFrame, position: int) -> int:
    """How a file numbers the row at a position of its table: as a text editor or a spreadsheet does.

    For a table that comes from no file, the position.
    """
    first, passed = json.loads(table.attrs.get(ROWS, "[0, []]"))
    found = first + int(position)
    for blank in passed:
        if blank <= found:
            found += 1
    return found


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds; raises `FileError` for what is no JSON, and for a name given twice."""
    return _parsed(read_text(Path(path)), str(path))


def _packed(rows: np.ndarray) -> str:
    """As text, which pandas copies with every table at no cost."""
    first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (1, 0)
    return json.dumps([first, np.setdiff1d(np.arange(first, last + 1), rows).tolist()])


def _parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise FileError(
            f"{path}: reading Parquet needs pyarrow: pip install 'latebloom[parquet]'"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise FileError(
            f"{path} is not a Parquet file that can be read ({shown(error, quoted=False)})"
        ) from None
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=named) if named else frame  # pyright: ignore
    return _tidied(frame, str(path))


def _records(path: Path, lines: bool) -> pd.DataFrame:
    text = read_text(path)
    if lines:
        parts = [(n, part) for n, part in enumerate(text.split("\n"), 1) if part.strip()]
        found: Any = [_parsed(part, f"{path}, line {n}") for n, part in parts]
    else:
        found = _parsed(text, str(path))
        if isinstance(found, dict):  # a Hugging Face trainer's state
            found = found.get("log_history")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found) or not found:
        raise FileError(
            f"{path} holds no table: it needs a list of objects, or an object with a list log_history"
        )
    names = dict.fromkeys(name for one in found for name in one)
    frame = {name: pd.Series([one.get(name) for one in found], dtype=object) for name in names}
    return _tidied(pd.DataFrame(frame), str(path))


def _parsed(text: str, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise FileError(
                f"{where}: {shown(twice)} appears twice in one object: keep one of them"
            )
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except FileError:
        raise
    except RecursionError:
        raise FileError(f"{where} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise FileError(f"{where} is not JSON: {error}") from None


def _tidied(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """With the names of its columns as text, each once."""
    names = [tidy(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileError(f"{where}: column {twice!r} appears twice: rename one of them")
    frame = frame.set_axis(names, axis=1)
    frame.attrs = {}
    return frame


def _checked(frame: pd.DataFrame, name: str, column: Column, where: str) -> Any:
    """A column's values in its type."""
    values: Any = frame[name]
    where = f"{where}, column {name!r}, row"
    if column.kind == "time" and pd.api.types.is_datetime64_any_dtype(values):
        cells, gaps = values, values.isna().to_numpy(bool)
    else:
        cells = values.tolist()
        marked = column.gaps and column.kind in ("number", "integer", "time")
        gaps = values.isna().to_numpy(bool) | [
            isinstance(v, str) and (not v.strip() or (marked and is_gap(v))) for v in cells
        ]
    if gaps.any() and not column.gaps:
        first = row_number(frame, int(gaps.argmax()))
        raise FileError(f"{where} {first} is empty: fill it or drop the row")
    if column.kind == "time":
        found, place, why = times(cells, gaps, column.unit)
    else:
        found, place, why = _converted(cells, gaps, column.kind)
    if place is not None:
        raise FileError(f"{where} {row_number(frame, place)}: {shown(cells[place])} {why}")
    if column.kind in ("number", "integer") and (outside := _outside(found, column)).any():
        place = int(outside.argmax())
        raise FileError(
            f"{where} {row_number(frame, place)}: {found[place]:.15g} is outside {_interval(column)}"
        )
    return found


def _converted(cells: list[Any], gaps: np.ndarray, kind: str) -> tuple[Any, int | None, str]:
    """The values in their type, and the first that has none, with the reason."""
    convert, what = _CONVERTERS[kind]
    found = [None if gap else convert(cell) for cell, gap in zip(cells, gaps, strict=True)]
    lacking = [place for place, one in enumerate(found) if one is None and not gaps[place]]
    if lacking:
        why = why_no_number(cells[lacking[0]]) if kind in ("number", "integer") else ""
        return found, lacking[0], f"is not {what}{why}"
    if kind in ("number", "integer"):
        return np.array(found, float if kind == "number" or gaps.any() else np.int64), None, ""
    return pd.Series(found, dtype=object), None, ""


def _outside(values: np.ndarray, column: Column) -> np.ndarray:
    outside = np.isinf(values)
    if column.low is not None:
        outside |= values <= column.low if column.above else values < column.low
    if column.high is not None:
        outside |= values > column.high
    return outside & ~(np.isinf(values) & column.infinite)


def _interval(column: Column) -> str:
    bracket = "(" if column.above or column.low is None else "["
    low = "-∞" if column.low is None else f"{column.low:g}"
    return f"{bracket}{low}, " + ("∞)" if column.high is None else f"{column.high:g}]")


_CONVERTERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "number": (number, "a number"),
    "integer": (integer, "a whole number"),
    "text": (lambda value: str(value).strip(), "text"),
    "label": (label, "a name"),
    "list": (labels_of, "a list (like [1, 2] or 1|2)"),
}
