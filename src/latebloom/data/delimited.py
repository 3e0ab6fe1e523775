"""Separated text as it comes: its encoding, its separator, and its rows as users count them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from latebloom.data.columns import FileError, tidy

SEPARATORS = ",;\t"
SAMPLE = 50  # rows by which the separator is told
BYTE_ORDER_MARKS = {  # UTF-32 first, whose mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = {
    b"PK\x03\x04": "an Excel workbook or another archive: save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "compressed: unpack it",
    b"%PDF": "a PDF: save its table as CSV (UTF-8)",
}


@dataclass(frozen=True)
class Delimited:
    """A table of texts. `rows`: the number of each row in the file, where the header's is 1."""

    frame: pd.DataFrame
    separator: str
    rows: np.ndarray


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises `FileError`."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "there is no such file"
        raise FileError(f"{path}: {what}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """Text in UTF-8, or with a byte order mark in UTF-16 or UTF-32; raises `FileError`.

    Other encodings cannot be told from each other, and are refused with the line.
    """
    content = read_bytes(path)
    for magic, what in NO_TEXT.items():
        if content.startswith(magic):
            raise FileError(f"{path} is {what}")
    encoding = next((e for m, e in BYTE_ORDER_MARKS.items() if content.startswith(m)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{path}, line {line} is not text in {encoding.removesuffix('-sig').upper()} (byte "
            f"0x{content[error.start]:02x}): save it as CSV (UTF-8)"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FileError(
            f"{path}, line {line} holds a NUL character, as UTF-16 without a byte order mark does: "
            "save it as CSV (UTF-8)"
        )
    return text


def read_delimited(path: Path, text: str) -> Delimited:
    """The rows below a header, split by the separator with which the header makes most columns.

    Lines end only where CSV has them end: not at a form feed, nor within quotes. Empty lines are
    passed over. A column without a name is dropped where it is empty, or counts the rows as the
    index of pandas does. Raises `FileError`.
    """
    if not text.strip():
        raise FileError(f"{path} is empty: it needs a header line and rows")
    hint = re.match(r"sep=([,;\t])\r?\n", text)  # Excel's own first line
    separator = hint[1] if hint else _separator(text)
    found = _records(text, separator, path)[1 if hint else 0 :]
    top = next((place for place, record in enumerate(found) if _filled(record[2])), None)
    if top is None:
        raise FileError(f"{path} has no header: it needs a first line that names the columns")
    names, where = [tidy(name) for name in found[top][2]], f"{path}, line {found[top][1]}"
    rows, numbers = [], []
    for number, line, row in found[top + 1 :]:
        if len(row) == len(names):
            rows.append(row)
            numbers.append(number)
        elif _filled(row):
            raise FileError(
                f"{path}, line {line} has {len(row)} values where the header names {len(names)} "
                "columns: quote values that contain the separator"
            )
    while len(names) > 1 and rows and not _filled(rows[-1]):
        rows.pop()
        numbers.pop()
    values = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    kept = _named(names, values, where)
    twice = next((names[i] for i in kept if [names[k] for k in kept].count(names[i]) > 1), None)
    if twice is not None:
        raise FileError(f"{where}: column {twice!r} appears twice: rename one of them")
    frame = pd.DataFrame({names[i]: pd.Series(values[i], dtype=object) for i in kept})
    return Delimited(frame, separator, np.array(numbers, np.int64))


def _filled(row: list[str]) -> bool:
    return any(value.strip() for value in row)


def _separator(text: str) -> str:
    """The candidate that splits the first rows like the header, and the header most."""
    best = (False, 1, ",")
    for candidate in SEPARATORS:
        try:
            with _fields_of_any_length(text):
                widths = [
                    len(row) for row in islice(_reader(text, candidate), SAMPLE) if _filled(row)
                ]
        except csv.Error:
            continue
        even, width = len(set(widths)) == 1, widths[0] if widths else 1
        if width > 1 and (best[1] == 1 or (even, width) > best[:2]):
            best = (even, width, candidate)
    return best[2]


def _records(text: str, separator: str, path: Path) -> list[tuple[int, int, list[str]]]:
    """Number of each row, line on which it begins, and its values."""
    reader, line, found = _reader(text, separator), 1, []
    try:
        with _fields_of_any_length(text):
            for number, row in enumerate(reader, 1):
                found.append((number, line, row))
                line = reader.line_num + 1
    except csv.Error:
        raise FileError(
            f"{path}, line {line}: a quoted value does not end where its column does: double the "
            'quotes within it, like "say ""so"""'
        ) from None
    return found


def _reader(text: str, separator: str):
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)


@contextmanager
def _fields_of_any_length(text: str) -> Iterator[None]:
    before = csv.field_size_limit(len(text) + 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _named(names: list[str], values: list[tuple[str, ...]], where: str) -> list[int]:
    """The columns that count: those with a name, once those without have been seen to be nothing."""
    for place, name in enumerate(names):
        index = place == 0 and _counts(values[place])
        if not name and not index and any(value.strip() for value in values[place]):
            raise FileError(f"{where}: column {place + 1} has no name: give it one")
    return [place for place, name in enumerate(names) if name]


def _counts(values: tuple[str, ...]) -> bool:
    """Whether they are 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(list(values) == [str(i + first) for i in range(len(values))] for first in (0, 1))
