"""All studies that the package has, and how to find one by name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from latebloom.lab.index import modules, slugs
from latebloom.lab.naming import nearest
from latebloom.lab.study import Study


@functools.cache
def studies() -> dict[str, Study]:
    """Every study by its slug, in order of family and slug."""
    found = [study for slug in slugs() if (study := known(slug))]
    return {s.slug: s for s in sorted(found, key=lambda s: (s.family, s.slug))}


def known(slug: str) -> Study | None:
    """The package's study of that slug, or None; no other study is imported for it."""
    name = modules().get(slug)
    study = getattr(importlib.import_module(name), "study", None) if name else None
    return study if isinstance(study, Study) and study.slug == slug else None


def find(slug: str) -> Study:
    """The study of that slug, or the `study` of a Python file of the user's own.

    Raises `ValueError` that suggests the nearest slug, or says what the file lacks.
    """
    if slug.endswith(".py"):
        return _study_in(_load(Path(slug)), slug)
    study = known(slug)
    if study is None:
        raise ValueError(f"there is no study {slug!r}{nearest(slug, slugs())}")
    return study


def application_of(slug: str) -> Any:
    """How the study's method is run on files, or None; `slug` as for `find`."""
    if slug.endswith(".py"):
        return getattr(_load(Path(slug)), "application", None)
    if slug not in applied_slugs():
        return None
    return importlib.import_module(f"latebloom.apply.{slug.replace('-', '_')}").application


def applied_slugs() -> list[str]:
    """The studies whose methods run on files; none is imported for it."""
    package = importlib.import_module("latebloom.apply")
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(package.__path__))


def _load(path: Path) -> ModuleType:
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _study_in(module: ModuleType, path: str) -> Study:
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise ValueError(f"{path} defines no `study = Study(...)`")
    return study


def module_of(study: Study) -> ModuleType:
    """The module that defines a study."""
    return sys.modules[study.process.__module__]
