"""A finished method on a user's own files: read, run, and leave a table, a JSON and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style
from latebloom.lab.plain import plain
from latebloom.lab.registry import application_of, applied_slugs, find
from latebloom.lab.settings import override

Say = Callable[[str, float | None], None]  # what is being done, and the share done so far


@dataclass(frozen=True)
class Applied:
    """What a method came to on a user's files.

    - `found`: sentences, the most important first: what the files hold, what follows from them.
    - `summary`: JSON-able values; `tables` and `figures` by name.
    - `files`: what else is written, by file name: each is called with the path to write to.
    """

    found: tuple[str, ...]
    summary: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, MatplotlibFigure] = field(default_factory=dict)
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Application:
    """How a study's method, or what several share, is run on files: `application` of
    `latebloom.apply.<slug>`, or of the user's own file that defines the study.

    - `about`: one sentence: what goes in and what comes out.
    - `files`: what each file must hold, with its columns.
    - `options`: a frozen dataclass whose fields have defaults.
    - `run(paths, options, say)`: reads, checks and computes; raises `ValueError` on bad input.
    - `cite`: what to cite, where it belongs to no one study; its page is then `docs/<slug>.md`.
    """

    about: str
    files: str
    options: type
    run: Callable[[Sequence[Path], Any, Say], Applied]
    cite: str = ""


@dataclass(frozen=True)
class Written:
    """A result on disk."""

    applied: Applied
    folder: Path
    paths: tuple[Path, ...]


def apply(
    study: str, files: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *,
    settings: Mapping[str, Any] | None = None, say: Say = lambda what, share: None,
) -> Written:  # fmt: skip
    """Run a study's method on files and write what it found into the folder `out`.

    Settings are values of the application's options, or text that reads as such. Writes `<table>.csv`,
    `<figure>.png`, `result.json` and perhaps files of its own, such as a policy that was learned, each
    aside and renamed.

    Raises `ValueError` for a study that takes no files, a file that cannot be used, an unknown
    setting or one of the wrong type, and a folder that cannot be written to.
    """
    application = application_of(study)
    if application is None:
        find(study)
        raise ValueError(
            f"{study} is not applied to files; these are: {', '.join(applied_slugs())}"
        )
    options = application.options()
    for name, text in (settings or {}).items():
        options = override(options, name, text)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be made: {error.strerror}") from None
    own = None if application.cite else find(study)
    name, cite = (study, application.cite) if own is None else (own.slug, own.paper.citation())
    applied = application.run([Path(file) for file in files], options, say)
    result = {
        "study": name,
        "files": [str(file) for file in files],
        "options": vars(options),
        "cite": cite,
    }
    return Written(applied, folder, tuple(_write(applied, folder, result)))


def _write(applied: Applied, folder: Path, about: Mapping[str, Any]) -> list[Path]:
    paths = []
    for name, table in applied.tables.items():
        paths.append(folder / f"{name}.csv")
        write_atomically(paths[-1], table.to_csv(index=False).encode())
    for name, figure in applied.figures.items():
        paths.append(folder / f"{name}.png")
        write_atomically(paths[-1], style.png(figure))
    for name, write in applied.files.items():
        paths.append(folder / name)
        write(paths[-1])
    kept = {name: value for name, value in about.items() if name != "cite"}
    result = {
        **kept,
        "found": list(applied.found),
        "summary": applied.summary,
        "cite": about["cite"],
    }
    paths.append(folder / "result.json")
    text = json.dumps(plain(result), indent=1, ensure_ascii=False, default=str, allow_nan=False)
    write_atomically(paths[-1], (text + "\n").encode())
    return paths
