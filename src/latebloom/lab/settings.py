"""Settings given as text or as values, laid over a config dataclass."""

from __future__ import annotations

import csv
import dataclasses
import io
import types
import typing
from typing import Any

from latebloom.lab.naming import nearest


def override(config: Any, name: str, value: Any) -> Any:
    """The config with one field parsed from text, or from a value that reads as such text does.

    Raises `ValueError` for a field that does not exist (and suggests the nearest) or a value of
    the wrong type.
    """
    hints = typing.get_type_hints(type(config))
    if name not in hints:
        raise ValueError(f"there is no setting {name!r}{nearest(name, hints)}")
    try:
        parsed = _parse(_text(value), hints[name])
    except (ValueError, csv.Error):
        wanted = getattr(hints[name], "__name__", str(hints[name]))
        raise ValueError(f"setting {name} takes a value of type {wanted}, not {value!r}") from None
    return dataclasses.replace(config, **{name: parsed})


def _text(value: Any) -> str:
    if not isinstance(value, tuple | list):
        return str(value)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(value)  # quotes what holds a comma
    return line.getvalue()


def _parse(text: str, kind: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in inner:
            return None
        return _parse(text, next(k for k in inner if k is not type(None)))
    if origin is tuple:
        bare = text[1:-1] if text.startswith("(") and text.endswith(")") else text
        parts = next(csv.reader([bare], skipinitialspace=True, strict=True), [])
        return tuple(_parse(part, inner[0]) for part in parts if part.strip())
    if origin is typing.Literal:
        match = [value for value in inner if str(value) == text]
        if not match:
            raise ValueError
        return match[0]
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float, str):
        return kind(text.strip())
    raise ValueError
