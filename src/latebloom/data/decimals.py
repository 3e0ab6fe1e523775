"""Which mark a table of texts has before its decimals: a point, or the comma of much of the world.

Nothing is guessed: "1,5" is 1.5 only beside a separator that leaves room for it (a semicolon or a
tab), in a table whose other numbers agree; what may also be a separator of thousands is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from latebloom.data.columns import Column, FileError, shown
from latebloom.data.values import is_gap

POINT = re.compile(r"[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
COMMA = re.compile(r"[+-]?(?:[0-9]+,[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"[+-]?[0-9]+(?:[eE][+-]?[0-9]+)?")
GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")  # 12,345: thousands, or three decimals
MEND = "write all numbers with a decimal point and without separators of thousands"


class _Seen(NamedTuple):
    """A number with a mark: where it is, and whether the mark can only be that of decimals."""

    column: str
    place: int
    text: str
    mark: str
    clear: bool


def with_points(
    frame: pd.DataFrame, columns: Mapping[str, Column], separator: str, rows: np.ndarray, where: str
) -> pd.DataFrame:
    """The table with decimal points, wherever numbers are asked for or columns hold nothing else.

    `columns` says what is asked for; `rows` [n] are the numbers of the rows for messages. Lists and
    texts stay as they are. Raises `FileError` where marks differ, or may be those of thousands.
    """
    if separator not in (";", "\t"):
        return frame
    numeric = [name for name in frame.columns if _numeric(frame[name], columns.get(name))]
    seen = list(_marks(frame, numeric))
    commas, points = ([s for s in seen if s.mark == mark] for mark in ",.")

    def at(one: _Seen) -> str:
        return f"column {one.column!r}, row {rows[one.place]}: {shown(one.text)}"

    if commas and points:
        raise FileError(
            f"{where}, {at(commas[0])} has a decimal comma, but {at(points[0])}: {MEND}"
        )
    if seen and not any(s.clear for s in seen) and (commas or separator == ";"):
        raise FileError(
            f"{where}, {at(seen[0])} may have three decimals or a separator of thousands: {MEND}"
        )
    if not commas:
        return frame
    frame = frame.copy()
    for name in frame.columns:
        if name in numeric or _names(frame[name], columns.get(name)):
            frame[name] = frame[name].map(_pointed)
    return frame


def _numeric(values: Iterable[str], column: Column | None) -> bool:
    """Whether numbers are asked for, or nothing is and there is nothing else."""
    if column is not None:
        return column.kind in ("number", "integer", "time")
    return _names(values, Column("label"))


def _names(values: Iterable[str], column: Column | None) -> bool:
    """Whether a column of labels holds numbers only."""
    if column is None or column.kind != "label":
        return False
    return all(_is_number(text.strip()) or is_gap(text) for text in values)


def _marks(frame: pd.DataFrame, names: list[str]) -> Iterator[_Seen]:
    for name in names:
        for place, text in enumerate(frame[name]):
            text = text.strip()
            if COMMA.fullmatch(text) or POINT.fullmatch(text):
                mark = "," if "," in text else "."
                yield _Seen(name, place, text, mark, not GROUPED.fullmatch(text))


def _is_number(text: str) -> bool:
    return any(form.fullmatch(text) for form in (WHOLE, POINT, COMMA))


def _pointed(text: str) -> str:
    return text.replace(",", ".") if COMMA.fullmatch(text.strip()) else text
