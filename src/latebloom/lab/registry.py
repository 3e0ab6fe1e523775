"""All studies that the package has, and how to find one by name."""

from __future__ import annotations

import functools
import hashlib
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
        return _study_in(load(Path(slug)), slug)
    study = known(slug)
    if study is None:
        raise ValueError(f"there is no study {slug!r}{nearest(slug, slugs())}")
    return study


def application_of(slug: str) -> Any:
    """How the study's method is run on files, or None; `slug` as for `find`."""
    if slug.endswith(".py"):
        return getattr(load(Path(slug)), "application", None)
    if slug not in applied_slugs():
        return None
    return importlib.import_module(f"latebloom.apply.{slug.replace('-', '_')}").application


def applied_slugs() -> list[str]:
    """The studies whose methods run on files; none is imported for it."""
    package = importlib.import_module("latebloom.apply")
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(package.__path__))


def load(path: Path, name: str | None = None) -> ModuleType:
    """The module in a file of the user's own, run anew, with those that lie beside it in reach.

    Modules beside the files loaded before are forgotten: another folder may have others of the same
    names, and they may have changed. `name`: what the module is called (unless given, as its file is).

    Raises `ValueError` where there is no file, or where its name is that of a module in use.
    """
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    name = path.stem if name is None else name
    there = sys.modules.get(name)
    if there is not None and name not in _own | _beside:
        raise ValueError(f"{path} cannot be called as the module {name!r} is: rename the file")
    if there is not None and name in _own and _file(there) != path:
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    for gone in _beside:
        sys.modules.pop(gone, None)
    folder, before = str(path.parent), set(sys.modules)
    sys.path[:] = [folder, *(each for each in sys.path if each != folder)]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _own.add(name)
    try:
        spec.loader.exec_module(module)
    finally:
        new = set(sys.modules) - before - {name}
        _beside.update(n for n in new if path.parent in _file(sys.modules[n]).parents)
    return module


_own: set[str] = set()  # modules that `load` made
_beside: set[str] = set()  # modules that they brought in from their own folders


def _file(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or "").resolve()


def _study_in(module: ModuleType, path: str) -> Study:
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise ValueError(f"{path} defines no `study = Study(...)`")
    return study


def module_of(study: Study) -> ModuleType:
    """The module that defines a study; its process may come from one beside it."""
    for name in _own:
        if (module := sys.modules.get(name)) and getattr(module, "study", None) is study:
            return module
    return sys.modules[study.process.__module__]
