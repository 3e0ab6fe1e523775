"""Times as logs have them: ISO 8601, or a number since 1970 whose unit is declared or unmistakable."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd

from latebloom.data.columns import Unit

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1, "D": 86_400 * 10**9}
WIDTHS = {10: "s", 13: "ms", 16: "us", 19: "ns"}  # of whole digits, from 2001 to 2286
FORMS = {
    "iso": "a date or time",
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "D": "days since 1970",
}
_ISO = re.compile(
    r"(?P<year>[0-9]{4})(?:"
    r"(?P<mark>[-/])(?P<month>[0-9]{1,2})(?:(?P=mark)(?P<day>[0-9]{1,2}))?"
    r"|(?P<compact>[0-9]{4}))"
    r"(?:(?:[Tt]| +)(?P<hour>[0-9]{1,2})(?::?(?P<minute>[0-9]{2})(?::?(?P<second>[0-9]{2})"
    r"(?:[.,](?P<part>[0-9]{1,9}))?)?)?"
    r" *(?P<zone>[Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_PACKED = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")


def times(
    cells: Sequence[object] | pd.Series, gaps: np.ndarray, unit: Unit = "auto"
) -> tuple[Any, int | None, str]:
    """Times in UTC (one without a zone is in UTC), and the first value that is none, with the reason.

    Numbers count from 1970 in `unit`; "auto" takes 10 digits before the point for seconds, 13, 16
    and 19 for milli-, micro- and nanoseconds, eight for a date (20250131) and 14 for a date with
    its time, and no others. All values of a column have one form. `gaps` [n] stay gaps.
    """
    if isinstance(cells, pd.Series):  # of times already
        return pd.to_datetime(cells, utc=True), None, ""
    texts = ["" if gap else _text(cell) for cell, gap in zip(cells, gaps, strict=True)]
    forms = [_form(text, unit) if text else None for text in texts]
    first = next((form for form in forms if form), "iso")
    for place, form in enumerate(forms):
        if form is None and not gaps[place]:
            return None, place, f"is not a time that can be told: {_mend(unit)}"
        if form not in (None, first):
            why = f"is {FORMS[form]}, where rows before have {FORMS[first]}: use one"
            return None, place, why
    if first == "iso":
        dates = pd.Series([_iso(text) if text else None for text in texts], dtype=object)
        found = pd.to_datetime(dates, utc=True, errors="coerce", format="ISO8601")
    else:
        found = _since_1970(texts, NANOSECONDS[first])
    wrong = found.isna().to_numpy(bool) & ~gaps
    if wrong.any():
        return None, int(wrong.argmax()), "is no time of the calendar: correct it"
    return found, None, ""


def _mend(unit: Unit) -> str:
    if unit != "auto":
        return f"give a number of {FORMS[unit]}, or ISO 8601"
    return (
        "write ISO 8601 (2025-01-31T23:59:00Z), or a number since 1970 whose digits tell its unit "
        "(10 seconds, 13 milliseconds, 16 microseconds, 19 nanoseconds), or declare time_unit"
    )


def _text(value: object) -> str:
    """A number's digits in full, so that they can be counted; a whole one without a point."""
    if isinstance(value, bool | np.bool_):
        return "?"
    if isinstance(value, float | np.floating):
        return f"{Decimal(repr(float(value))):f}".removesuffix(".0") if np.isfinite(value) else "?"
    if isinstance(value, datetime.date | np.datetime64):
        return pd.Timestamp(value).isoformat()
    text = str(value).strip()
    return text.rstrip("0")[:-1] if re.fullmatch(r"[0-9]+\.0+", text) else text


def _form(text: str, unit: Unit) -> str | None:
    """One of `FORMS`, or None where the text has none that can be told."""
    if not _NUMBER.fullmatch(text):
        found = _ISO.fullmatch(text)
        return "iso" if found and (found["day"] or found["compact"] or not found["hour"]) else None
    if unit != "auto":
        return unit
    whole = text.split(".")[0]
    if whole[0] not in "123456789":
        return None
    if text == whole and len(text) in (8, 14):
        return "iso" if 1900 <= int(text[:4]) <= 2100 else None
    return WIDTHS.get(len(whole))


def _iso(text: str) -> str | None:
    """In the one way of writing that leaves no doubt, or None where it cannot be."""
    if packed := _PACKED.fullmatch(text):
        text = "{}-{}-{}T{}:{}:{}".format(*packed.groups())
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    compact = found["compact"]
    month, day = (compact[:2], compact[2:]) if compact else (found["month"], found["day"] or "01")
    zone = found["zone"] or "Z"
    zone = "Z" if zone in ("Z", "z", "UTC") else zone
    clock = f"{int(found['hour'] or 0):02}:{found['minute'] or '00'}:{found['second'] or '00'}"
    part = f".{found['part']}" if found["part"] else ""
    return f"{found['year']}-{int(month):02}-{int(day):02}T{clock}{part}{zone}"


def _since_1970(texts: Sequence[str], scale: int) -> pd.Series:
    """Exact to the nanosecond where the number is; a gap, and one beyond the calendar, is NaT."""
    found = []
    for text in texts:
        try:
            count = int(Decimal(text) * scale) if text else None
        except InvalidOperation:
            count = None
        found.append(count)
    there = [count for count in found if count is not None]
    unit, divisor = ("us", 1000) if all(c % 1000 == 0 for c in there) else ("ns", 1)
    limit = 2**63 - 1 if unit == "ns" else 253_402_300_800 * 10**6  # the end of the year 9999
    least = -limit if unit == "ns" else -62_135_596_800 * 10**6
    whole = [None if c is None else c // divisor for c in found]
    fits = [None if c is None or not least <= c < limit else c for c in whole]
    nat = np.datetime64("NaT", unit)
    stamps = np.array([nat if c is None else np.datetime64(c, unit) for c in fits], f"M8[{unit}]")
    return pd.Series(pd.DatetimeIndex(stamps).tz_localize("UTC"))
