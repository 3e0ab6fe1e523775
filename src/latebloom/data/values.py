"""Single values of a table: numbers, labels and lists from what a file or a frame has in a cell."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import partial

import numpy as np
import pandas as pd

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
GROUPS = re.compile(r"[+-]?[0-9]{1,3}(?:[.,'’ \u00a0\u202f][0-9]{3})+(?:[.,][0-9]*)?")
GAPS = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "nat", "<na>"})
WHOLE_LABEL = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
LIST_MARKS = "|,;"


def is_gap(text: str) -> bool:
    """Whether a text says that there is no number or time."""
    return text.strip().casefold() in GAPS


def number(value: object) -> float | None:
    """A number, infinity included; None for what is none (so NaN)."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if NUMBER.fullmatch(text) or INFINITE.fullmatch(text) else None
    if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating | Decimal):
        found = float(value)
        return None if np.isnan(found) else found
    return None


def integer(value: object) -> int | None:
    """A whole number below 2**63, exact; 2.0 and "2.0" are 2."""
    if isinstance(value, str):
        text = value.strip()
        exact = _decimal(text) if NUMBER.fullmatch(text) else None
    elif isinstance(value, bool | int | np.bool_ | np.integer):
        exact = Decimal(int(value))
    elif isinstance(value, float | np.floating) and np.isfinite(value):
        exact = Decimal(float(value))
    else:
        exact = value if isinstance(value, Decimal) and value.is_finite() else None
    if exact is None or (exact and exact.adjusted() > 18) or exact != exact.to_integral_value():
        return None
    found = int(exact)
    return found if -(2**63) <= found < 2**63 else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return None


def why_no_number(value: object) -> str:
    """What to do about a value that is no number, or "" where nothing can be said."""
    text = value.strip() if isinstance(value, str) else ""
    if GROUPS.fullmatch(text):
        return ": write it without separators of thousands and with a decimal point"
    if NUMBER.fullmatch(text.replace(",", ".", 1)):
        return ": write it with a decimal point, or separate the columns by semicolons"
    if NUMBER.fullmatch(text.removesuffix("%").strip()):
        return ": write it as a fraction, without %"
    return ""


def label(value: object) -> str | None:
    """The name of a class, an action, an item: without spaces around it, accents composed.

    2.0, which is what a table makes of 2 beside a gap, is "2". None for what is no name.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        text = value.strip()
        whole = WHOLE_LABEL.fullmatch(text)
        if whole:
            return "0" if whole[1] == "-0" else whole[1]
        return unicodedata.normalize("NFC", text) or None
    if isinstance(value, float | np.floating):
        whole = np.isfinite(value) and float(value).is_integer()
        return str(int(value)) if whole else None if np.isnan(value) else str(value)
    scalar = isinstance(value, bool | int | np.bool_ | np.integer | Decimal | pd.Timestamp)
    return label(str(value)) if scalar else None


def labels_of(value: object) -> list[str] | None:
    """The labels in a cell; None for what is no list, and where an entry is missing.

    A list or array; text as JSON or Python write a list ([0, 1], ['a', 'b'], (0, 1)), or values
    between "|", "," or ";" (one of them), or between spaces; a single value is a list of one.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return _all_labels(value)
    if not isinstance(value, str):
        one = label(value)
        return None if one is None else [one]
    text = value.strip()
    if text[:1] in ("[", "(", "{"):
        return _written_list(text)
    return _all_labels(_split(text))


def _written_list(text: str) -> list[str] | None:
    for parse in (partial(json.loads, parse_float=str), ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, set):
            found = sorted(found, key=str)
        return _all_labels(found) if isinstance(found, list | tuple) else None
    closing = {"[": "]", "(": ")", "{": "}"}[text[0]]
    inner = text[1:-1].strip()
    if not text.endswith(closing) or len(text) < 2 or set(inner) & set("[](){}\"'"):
        return None
    parts = _split(inner) if inner else []
    return _all_labels([None if is_gap(part) else part for part in parts])


def _split(text: str) -> list[str]:
    marks = [mark for mark in LIST_MARKS if mark in text]
    if len(marks) > 1:
        return [""]
    return [part.strip() for part in text.split(marks[0])] if marks else text.split()


def _all_labels(values: Iterable[object]) -> list[str] | None:
    found = [label(value) for value in values]
    return None if None in found else found  # pyright: ignore
