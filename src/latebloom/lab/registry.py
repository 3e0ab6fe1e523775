"""All studies that the package has, and how to find one by name or by symptom."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import bm25s

from latebloom.lab.naming import nearest
from latebloom.lab.study import Study


@functools.cache
def studies() -> dict[str, Study]:
    """Every study by its slug, in order of family and slug."""
    found = [study for slug in slugs() if (study := known(slug))]
    return {s.slug: s for s in sorted(found, key=lambda s: (s.family, s.slug))}


def slugs() -> list[str]:
    """The names that studies can have, without importing any."""
    return list(_modules())


@functools.cache
def _modules() -> dict[str, str]:
    """The module of each study, by the slug that its name spells; modules of parts are left out."""
    package = importlib.import_module("latebloom.studies")
    names = [
        info.name
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not info.ispkg and not info.name.rpartition(".")[2].startswith("apply_")
    ]
    return {name.rpartition(".")[2].replace("_", "-"): name for name in names}


def known(slug: str) -> Study | None:
    """The package's study of that slug, or None; no other study is imported for it."""
    name = _modules().get(slug)
    study = getattr(importlib.import_module(name), "study", None) if name else None
    return study if isinstance(study, Study) and study.slug == slug else None


def find(slug: str) -> Study:
    """The study of that slug, or the `study` of a Python file of the user's own.

    Raises `ValueError` that suggests the nearest slug, or says what the file lacks.
    """
    if slug.endswith(".py"):
        return _load(Path(slug))
    study = known(slug)
    if study is None:
        raise ValueError(f"there is no study {slug!r}{nearest(slug, slugs())}")
    return study


def _load(path: Path) -> Study:
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise ValueError(f"{path} defines no `study = Study(...)`")
    return study


def module_of(study: Study) -> ModuleType:
    """The module that defines a study."""
    return sys.modules[study.process.__module__]


def search(text: str) -> list[tuple[Study, float]]:
    """Studies ranked by how well symptoms, question, title and claims match `text` (BM25).

    Those that share no word with it are left out.
    """
    all_studies = list(studies().values())
    documents = [
        " ".join(
            # Symptoms are what people type: they count threefold.
            [*(s.symptoms * 3), s.question, s.paper.title, s.slug.replace("-", " "), s.family]
            + [c.text for c in s.claims]
        )
        for s in all_studies
    ]
    ranker = bm25s.BM25()
    ranker.index(bm25s.tokenize(documents, show_progress=False), show_progress=False)
    words = bm25s.tokenize([text], show_progress=False, return_ids=False)
    if not words or not words[0]:
        return []
    rows, scores = ranker.retrieve(words, k=len(all_studies), show_progress=False)
    return [(all_studies[i], float(s)) for i, s in zip(rows[0], scores[0], strict=True) if s > 0]
