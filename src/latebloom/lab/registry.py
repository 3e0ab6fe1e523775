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
    found = {}
    package = importlib.import_module("latebloom.studies")
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not info.ispkg:
            study = getattr(importlib.import_module(info.name), "study", None)
            if isinstance(study, Study):
                found[study.slug] = study
    return dict(sorted(found.items(), key=lambda item: (item[1].family, item[0])))


def find(slug: str) -> Study:
    """The study of that slug, or the `study` of a Python file of the user's own.

    Raises `ValueError` that suggests the nearest slug, or says what the file lacks.
    """
    if slug.endswith(".py"):
        return _load(Path(slug))
    known = studies()
    if slug not in known:
        raise ValueError(f"there is no study {slug!r}{nearest(slug, known)}")
    return known[slug]


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
    known = list(studies().values())
    documents = [
        " ".join(
            # Symptoms are what people type: they count threefold.
            [*(s.symptoms * 3), s.question, s.paper.title, s.slug.replace("-", " "), s.family]
            + [c.text for c in s.claims]
        )
        for s in known
    ]
    ranker = bm25s.BM25()
    ranker.index(bm25s.tokenize(documents, show_progress=False), show_progress=False)
    words = bm25s.tokenize([text], show_progress=False, return_ids=False)
    if not words or not words[0]:
        return []
    rows, scores = ranker.retrieve(words, k=len(known), show_progress=False)
    return [(known[i], float(s)) for i, s in zip(rows[0], scores[0], strict=True) if s > 0]
