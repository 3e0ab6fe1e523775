"""What a column of a user's table must hold, and which of a file's headers is meant by it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "integer", "text", "label", "time", "list"]
Unit = Literal["auto", "s", "ms", "us", "ns", "D"]
SHOWN_NAMES, SHOWN_CHARACTERS = 20, 60


class FileError(ValueError):
    """A file or table that cannot be used; the message says where and what to do."""


@dataclass(frozen=True)
class Column:
    """What a column must hold.

    - `kind`: "number"; "integer" (2.0 is 2); "text" as it is written, but for spaces around it;
      "label", the name of a class, an action, an item (2.0 is 2, and accents are composed); "time"
      (see `latebloom.data.times`), given in UTC; or "list" (see `latebloom.data.values.labels_of`).
    - `low`, `high`: bounds of a number, included unless `above` says that it must exceed `low`.
    - `required`: whether the table must have it; `gaps`: whether single values may be missing;
      `infinite`: whether a number may be infinite (and is then held to no bound).
    - `unit`: of numbers in a time column; "auto" tells it by their width.
    - `aliases`: what the field's tools call it, the most specific first.
    - `setting`: the option by which a user names the column, for messages.
    """

    kind: Kind = "number"
    low: float | None = None
    high: float | None = None
    above: bool = False
    required: bool = True
    gaps: bool = False
    infinite: bool = False
    unit: Unit = "auto"
    aliases: tuple[str, ...] = ()
    setting: str = ""


def listed(names: Iterable[object]) -> str:
    """Names for a message, on one line; of very many the first."""
    texts = [shown(str(name), quoted=False) for name in names]
    more = f", ... ({len(texts)} in all)" if len(texts) > SHOWN_NAMES else ""
    return ", ".join(texts[:SHOWN_NAMES]) + more


def shown(value: object, *, quoted: bool = True) -> str:
    """A value for a message: on one line and not too long, text in quotes."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + "…"
    if (quoted and isinstance(value, str)) or not text.isprintable():
        return repr(text)
    return text


def tidy(name: object) -> str:
    """A header as it is compared: without spaces around it, accents composed."""
    return unicodedata.normalize("NFC", str(name).strip())


def assign(
    header: Sequence[str], columns: Mapping[str, Column], chosen: Sequence[str] | None, where: str
) -> dict[str, str]:
    """Which header is meant by each column that is called otherwise: {header: column}.

    `chosen` are a user's own "column=header" pairs, or None where there is no such option. Other
    columns are looked for by their own name, then without regard to capitals and punctuation, then
    by each alias; "run name - ", which Weights & Biases puts before them, is passed over.
    Raises `FileError` for a required column that is not there, and where several are meant.
    """
    found = _chosen(header, columns, chosen or (), where)
    for name, column in columns.items():
        if name in found.values() or name in header:
            continue
        free = [h for h in header if h not in found and h not in columns]
        meant = next(filter(None, _meant(name, column.aliases, free)), [])
        option = _option(name, column, chosen)
        if len(meant) > 1:
            choose = f", or choose one with {option}" if option else ""
            raise FileError(
                f"{where}: {listed(meant)} may each be column {name!r}: keep one of them{choose}"
            )
        if meant:
            found[meant[0]] = name
        elif column.required:
            choose = f": choose one with {option}" if option else ""
            raise FileError(f"{where} has no column {name!r}; it has: {listed(header)}{choose}")
    return {h: name for h, name in found.items() if h != name}


def _chosen(
    header: Sequence[str], columns: Mapping[str, Column], pairs: Sequence[str], where: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, own = (tidy(part) for part in pair.partition("="))
        if name not in columns or name in found.values() or own in found:
            raise FileError(
                f"setting columns: {pair!r} is not NAME=COLUMN, once for each of {listed(columns)}"
            )
        if own not in header:
            raise FileError(f"{where} has no column {own!r} ({pair}); it has: {listed(header)}")
        found[own] = name
    return found


def _meant(name: str, aliases: Sequence[str], header: Sequence[str]) -> Iterable[list[str]]:
    """The headers that may stand for a column, the likeliest ways of writing it first."""
    extremes = ("__MIN", "__MAX")  # of a curve that Weights & Biases has thinned out
    plain = {h: _key(h) for h in header if not h.endswith(extremes)}
    last = {h: _key(h.rsplit(" - ", 1)[-1]) for h in plain}
    for alias in (name, *aliases):
        for keys in (plain, last):
            yield [h for h, key in keys.items() if key == _key(alias)]


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _option(name: str, column: Column, chosen: Sequence[str] | None) -> str:
    if column.setting:
        return f"--set {column.setting}=COLUMN"
    return "" if chosen is None else f"--set columns={name}=COLUMN"
