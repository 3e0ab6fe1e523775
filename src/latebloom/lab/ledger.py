"""The ledger: the verdicts of the last recorded pass of every study, with figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style
from latebloom.lab.registry import known
from latebloom.lab.runner import Pass, source_of_verdicts
from latebloom.lab.store import config_dict


def record(done: Pass, folder: Path) -> Path:
    """Write a pass into the ledger: `<slug>.json` and `<slug>/<figure>.png`, in place of the last one's.

    Passes of other budgets than quick stand beside it, as `<slug>-<budget>`.

    Raises `ValueError` for a pass whose seeds, arms or settings are not the budget's own.
    """
    if done.changed:
        raise ValueError(
            "only a budget as it stands is recorded: leave out --seeds, --arms and --set"
        )
    slug = done.study.slug if done.budget == "quick" else f"{done.study.slug}-{done.budget}"
    figures = []
    for figure, drawn in done.figures:
        write_atomically(folder / slug / f"{figure.name}.png", style.png(drawn))
        figures.append({"file": f"{slug}/{figure.name}.png", "caption": figure.caption})
    entry = {k: v for k, v in done.record().items() if k not in ("traces", "changed")}
    entry["figures"] = figures
    path = folder / f"{slug}.json"
    write_atomically(path, (json.dumps(entry, indent=1) + "\n").encode())
    for picture in (folder / slug).glob("*.png"):
        if f"{slug}/{picture.name}" not in {figure["file"] for figure in figures}:
            picture.unlink()
    return path


def entries(folder: Path) -> list[dict[str, Any]]:
    """What the ledger holds, one entry a study; a file that cannot be read is named.

    Raises `ValueError` for a damaged file.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except ValueError:
            raise ValueError(f"{path} is not JSON: remove it and record the study again") from None
    return found


def is_stale(entry: dict[str, Any]) -> bool:
    """Whether sources, or the settings of the budget's arms, have changed since the verdicts were
    made."""
    study = known(entry["study"])
    if study is None or source_of_verdicts(study) != entry["source"]:
        return True
    if entry["budget"] not in study.budgets or entry.get("changed"):
        return entry["budget"] not in study.budgets
    now = study.configs(study.budget(entry["budget"]))
    return {arm: config_dict(config) for arm, config in now.items()} != entry["configs"]


def rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a claim: study, claim, verdict, estimate, interval, threshold, seeds, budget, stale."""
    stale = is_stale(entry)
    return [
        {
            "study": entry["study"],
            "claim": v["claim"],
            "text": v["text"],
            "verdict": v["verdict"],
            "estimate": v["estimate"],
            "low": v["low"],
            "high": v["high"],
            "threshold": v["threshold"],
            "unit": v["unit"],
            "paper": v["paper"],
            "seeds": v["seeds"],
            "budget": entry["budget"],
            "date": entry["date"],
            "data": entry["data"],
            "stale": stale,
        }
        for v in entry["verdicts"]
    ]
