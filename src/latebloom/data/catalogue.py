"""Every data set by name: what there is, where it is, how to get it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from latebloom.data.bandit_logs import fetch_open_bandit, find_open_bandit, open_bandit_names
from latebloom.data.brown import brown_names, fetch_brown, find_brown
from latebloom.data.images import fetch_images, find_images, image_names
from latebloom.data.sources import DataError, cache_folder
from latebloom.data.spoken_digits import fetch_spoken, find_spoken, spoken_names
from latebloom.data.tables import fetch_table, find_table, table_names

Say = Callable[[str], None]


class Source(NamedTuple):
    """Data sets that are had in one way: their entries, the folder of one (None if it is not here), and how to get it."""

    names: Callable[[], dict[str, dict[str, str]]]
    find: Callable[[str], Path | None]
    fetch: Callable[[str, Say], Path]


def _table_folder(name: str) -> Path | None:
    table = find_table(name)
    return table.parent if table else None


SOURCES = (
    Source(image_names, find_images, fetch_images),
    Source(table_names, _table_folder, fetch_table),
    Source(open_bandit_names, lambda name: find_open_bandit(), lambda name, say: fetch_open_bandit(say)),
    Source(brown_names, lambda name: find_brown(), lambda name, say: fetch_brown(say)),
    Source(spoken_names, lambda name: find_spoken(), lambda name, say: fetch_spoken(say)),
)  # fmt: skip


def names() -> dict[str, dict[str, str]]:
    """What there is: name -> about, licence, and where it was found (or "" if it has to be got)."""
    return {name: entry for source in SOURCES for name, entry in source.names().items()}


def find(name: str) -> Path | None:
    """The folder that holds a data set's files; None if it has none, or has to be fetched.

    Raises `DataError` for an unknown name.
    """
    return _source(name).find(name)


def fetch(name: str, say: Say = lambda text: None) -> Path:
    """Get a data set into the user's cache and return its folder; `say` is told what is tried.

    Raises `DataError` for an unknown name, or if no source gives it.
    """
    source = _source(name)
    if source.names()[name]["where"] == "installed":
        say(f"{name} comes with an installed package")
        return cache_folder()
    return source.fetch(name, say)


def _source(name: str) -> Source:
    for source in SOURCES:
        if name in source.names():
            return source
    raise DataError(f"there is no data set {name!r}; there are: {', '.join(names())}")
