"""Every data set by name: what there is, where it is, how to get it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latebloom.data.bandit_logs import (
    NAME,
    fetch_open_bandit,
    find_open_bandit,
    open_bandit_names,
)
from latebloom.data.brown import NAME as BROWN
from latebloom.data.brown import brown_names, fetch_brown, find_brown
from latebloom.data.images import fetch_images, find_images, image_names
from latebloom.data.sources import DataError, cache_folder
from latebloom.data.spoken_digits import NAME as SPOKEN
from latebloom.data.spoken_digits import fetch_spoken, find_spoken, spoken_names
from latebloom.data.tables import fetch_table, find_table, table_names


def names() -> dict[str, dict[str, str]]:
    """What there is: name -> about, licence, and where it was found (or "" if it has to be got)."""
    return image_names() | table_names() | open_bandit_names() | brown_names() | spoken_names()


def find(name: str) -> Path | None:
    """The folder that holds a data set's files; None if it has none, or has to be fetched.

    Raises `DataError` for an unknown name.
    """
    _check(name)
    if name == NAME:
        return find_open_bandit()
    if name == BROWN:
        return find_brown()
    if name == SPOKEN:
        return find_spoken()
    if name in image_names():
        return find_images(name)
    table = find_table(name)
    return table.parent if table else None


def fetch(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Get a data set into the user's cache and return its folder; `say` is told what is tried.

    Raises `DataError` for an unknown name, or if no source gives it.
    """
    _check(name)
    if names()[name]["where"] == "installed":
        say(f"{name} comes with an installed package")
        return cache_folder()
    if name == NAME:
        return fetch_open_bandit(say)
    if name == BROWN:
        return fetch_brown(say)
    if name == SPOKEN:
        return fetch_spoken(say)
    return fetch_images(name, say) if name in image_names() else fetch_table(name, say)


def _check(name: str) -> None:
    if name not in names():
        raise DataError(f"there is no data set {name!r}; there are: {', '.join(names())}")
