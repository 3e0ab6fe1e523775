"""What each study says of itself, kept in a file: listing and searching import no study."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from latebloom.lab.study import Study


@dataclass(frozen=True)
class Entry:
    """A study's name, paper, question, symptoms and the texts of its claims."""

    slug: str
    family: str
    title: str
    arxiv: str
    question: str
    symptoms: list[str]
    claims: list[str]


def entry(study: Study) -> Entry:
    """What a study says of itself."""
    return Entry(
        study.slug, study.family, study.paper.title, study.paper.arxiv, study.question,
        list(study.symptoms), [claim.text for claim in study.claims],
    )  # fmt: skip


def slugs() -> list[str]:
    """The names that studies can have, without importing any."""
    return list(modules())


@functools.cache
def modules() -> dict[str, str]:
    """The module of each study, by the slug that its name spells."""
    package = importlib.import_module("latebloom.studies")
    names = [
        info.name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.ispkg
    ]
    return {name.rpartition(".")[2].replace("_", "-"): name for name in names}


@functools.cache
def entries() -> list[Entry]:
    """Every study of the package, in order of family and slug.

    They are read from the user's cache folder, and written there when the studies have changed.
    """
    path = Path(platformdirs.user_cache_dir("latebloom")) / "studies.json"
    sources = _hash()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text())
        if kept["sources"] == sources:
            return [Entry(**row) for row in kept["studies"]]
    from latebloom.core.checkpoint import write_atomically
    from latebloom.lab.registry import studies

    found = [entry(study) for study in studies().values()]
    rows = [dataclasses.asdict(e) for e in found]
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time, nothing else
        write_atomically(path, json.dumps({"sources": sources, "studies": rows}).encode())
    return found


def _hash() -> str:
    """Hash of the sources that studies are written in."""
    found = hashlib.sha256()
    for folder in map(Path, importlib.import_module("latebloom.studies").__path__):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
