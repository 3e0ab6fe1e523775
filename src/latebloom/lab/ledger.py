"""The ledger: one record a study, each claim once with the pass that judged it, and figures.

A record holds `study`, `title`, `citation`, `data`, `file` (of a study outside the package);
`passes`, by budget: seeds, date, seconds, source, versions, and each arm's config and program;
`claims`: rows of verdicts, each with the `budget` of its pass and the hash of its `effect`;
`figures`: file, caption and the budget that drew them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style
from latebloom.lab.effects import effect_hash
from latebloom.lab.plain import plain
from latebloom.lab.registry import find, known
from latebloom.lab.runner import Pass, source_of_units
from latebloom.lab.store import config_dict
from latebloom.lab.study import BUDGETS, Claim, Study
from latebloom.lab.verdict import OUTCOMES

ABOUT_STUDY = ("study", "title", "citation", "data", "file")
ABOUT_PASS = ("seeds", "date", "seconds", "source", "versions", "arms", "changed")


def as_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one pass as one of the ledger, without figures."""
    made = {k: record[k] for k in ABOUT_PASS}
    claims = [row | {"budget": record["budget"]} for row in record["verdicts"]]
    about = {k: record[k] for k in ABOUT_STUDY}
    return about | {"passes": {record["budget"]: made}, "claims": claims, "figures": []}


def check_writable(folder: Path) -> None:
    """Raises `ValueError` for a folder that a ledger cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the ledger {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(
            f"the ledger {folder} cannot be written to; give another folder with --results"
        )


def record(done: Pass, folder: Path) -> Path:
    """Bring the study's record up to date with a pass: `<slug>.json` and `<slug>/<figure>.png`.

    What the pass judged takes the place of earlier verdicts; the others stay while their claim does.
    A figure that a larger budget drew stays, for it shows more.

    A pass of some arms alone is added to the recorded pass of its budget, whose other arms and the
    claims on them stay; and so do its figures, which may show arms that were not run.

    Raises `ValueError` for a pass whose seeds or settings are not the budget's own, for some arms where
    no pass of the same seeds and sources is recorded, or for a folder that cannot be written.
    """
    check_recordable(done.study, done.budget, done.changes, folder)
    slug = done.study.slug
    made, before = as_entry(done.record()), entry_of(folder, slug)
    if before and done.changed:
        made["passes"] = {
            done.budget: _extended(before["passes"][done.budget], made["passes"][done.budget])
        }
    larger = {
        Path(f["file"]).stem for f in (before["figures"] if before else ())
        if f.get("budget") in BUDGETS
        and _rank(f["budget"]) > (_rank(done.budget) if not done.changed else (-1, ""))
    }  # fmt: skip
    for figure, drawn in done.figures:
        if figure.name in larger:
            continue
        file = f"{slug}/{figure.name}.png"
        write_atomically(folder / file, style.png(drawn))
        made["figures"].append({"file": file, "caption": figure.caption, "budget": done.budget})
    path = write(merged(before, made, done.study) if before else made, folder)
    _clear(folder, json.loads(path.read_text()), before)
    return path


def check_recordable(study: Study, budget: str, changes: Mapping[str, Any], folder: Path) -> None:
    """Raises `ValueError`, before anything is run, for what `record` would not take.

    `changes` are the seeds, arms and settings that replace the budget's own, as of a `Pass`.
    """
    if set(changes) - {"arms"}:
        raise ValueError("only a budget as it stands is recorded: leave out --seeds and --set")
    check_writable(folder)
    if not changes:
        return
    earlier = (entry_of(folder, study.slug) or {"passes": {}})["passes"].get(budget)
    if earlier is None or earlier["seeds"] != list(range(study.budget(budget).seeds)):
        raise ValueError(
            f"arms are added to a record, and of {study.slug} none is at the budget {budget} with its seeds: leave out --arms"
        )
    if earlier["source"] != source_of_units(study):
        raise ValueError(
            f"arms are added to a record of the same sources: `latebloom ledger --check --stamp {study.slug}` says whether "
            "that of other arms still is what the code computes; else leave out --arms"
        )


def _extended(earlier: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded pass of a budget with those arms that were run now."""
    new = len(made["arms"].keys() - earlier["arms"].keys()) / len(made["arms"])
    versions = {
        k: v if earlier["versions"][k] == v else "mixed" for k, v in made["versions"].items()
    }
    return dict(made) | {
        "arms": earlier["arms"] | made["arms"], "versions": versions, "changed": earlier["changed"],
        "seconds": round(earlier["seconds"] + new * made["seconds"], 1),
    }  # fmt: skip


def merged(before: Mapping[str, Any], made: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Two records of a study as one; what the second has judged and drawn counts."""
    judged = {row["claim"] for row in made["claims"]}
    now = {claim.id: claim for claim in study.claims}
    kept = [r for r in before["claims"] if r["claim"] not in judged and _same(r, now)]
    own = f"{study.slug}/"  # not those that stand under the name of an earlier budget
    figures = [f for f in before["figures"] if f["file"].startswith(own)]
    shown = {Path(f["file"]).stem: f for f in [*figures, *made["figures"]]}
    figures = [shown[figure.name] for figure in study.figures if figure.name in shown]
    return _whole(made, before["passes"] | made["passes"], [*kept, *made["claims"]],
                  figures, list(now))  # fmt: skip


def _same(row: Mapping[str, Any], now: Mapping[str, Claim]) -> bool:
    claim = now.get(row["claim"])
    said = (row["text"], row["threshold"], row["arms"])
    return claim is not None and said == (claim.text, claim.holds, list(claim.arms))


def _whole(
    about: Mapping[str, Any], passes: Mapping[str, Any], claims: list[dict[str, Any]],
    figures: list[dict[str, Any]], order: list[str],
) -> dict[str, Any]:  # fmt: skip
    """A record with its claims in order, and those passes that a claim refers to."""
    place = {claim: i for i, claim in enumerate(order)}
    claims = sorted(claims, key=lambda row: place.get(row["claim"], len(place)))
    used = sorted({row["budget"] for row in claims}, key=_rank)
    return {k: about[k] for k in ABOUT_STUDY} | {
        "passes": {budget: passes[budget] for budget in used},
        "claims": claims,
        "figures": figures,
    }


def _rank(budget: str) -> tuple[int, str]:
    return (BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS)), budget


def write(entry: Mapping[str, Any], folder: Path) -> Path:
    """Write a record into the ledger's folder, aside and renamed."""
    path = folder / f"{entry['study']}.json"
    text = json.dumps(plain(entry), indent=1, allow_nan=False)
    write_atomically(path, (text + "\n").encode())
    return path


def _clear(folder: Path, entry: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    """Remove pictures that the record lists no more."""
    listed = {folder / figure["file"] for figure in entry["figures"]}
    seen = {folder / f["file"] for f in before["figures"]} if before else set()
    for picture in (seen | {*(folder / entry["study"]).glob("*.png")}) - listed:
        picture.unlink(missing_ok=True)
        if not any(picture.parent.iterdir()):
            picture.parent.rmdir()


def entries(folder: Path) -> list[dict[str, Any]]:
    """What the ledger holds, one record a study.

    Raises `ValueError` for a damaged file.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def entry_of(folder: Path, slug: str) -> dict[str, Any] | None:
    """What the ledger holds of one study, or None. Raises `ValueError` for a damaged file."""
    path = folder / f"{slug}.json"
    return _read(path) if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(path.read_text())
        if {*ABOUT_STUDY, "passes", "claims", "figures"} <= entry.keys():
            return entry
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"{path} is no record of a study: remove it and record the study again")


@contextlib.contextmanager
def study_of(entry: Mapping[str, Any]) -> Iterator[Study | None]:
    """The study of a record, also where it is in a file of its own; None where that has gone."""
    if not entry["file"]:  # of the package, or a script, which is not run for this
        yield known(entry["study"]) if entry["file"] is None else None
        return
    name = Path(entry["file"]).stem
    before = sys.modules.get(name)
    try:
        study = find(entry["file"])
    except Exception:  # a file of the user's own that has gone, or is being written
        study = None
    try:
        yield study
    finally:  # what was loaded before goes on being itself
        if before is not None:
            sys.modules[name] = before


def stale_claims(entry: Mapping[str, Any]) -> set[str]:
    """The claims whose check, or the source or settings of whose arms, have changed since.

    Of a study whose own file has gone, or cannot be loaded, there are none.
    """
    with study_of(entry) as study:
        if study is None:
            return {row["claim"] for row in entry["claims"]} if entry["file"] is None else set()
        now, source = {claim.id: claim for claim in study.claims}, source_of_units(study)
        return {
            row["claim"] for row in entry["claims"]
            if (claim := now.get(row["claim"])) is None
            or entry["passes"][row["budget"]]["source"] != source
            or row["effect"] != effect_hash(study, claim)
            or not _same_configs(study, claim, row["budget"], entry["passes"][row["budget"]])
        }  # fmt: skip


def _same_configs(study: Study, claim: Claim, budget: str, made: Mapping[str, Any]) -> bool:
    if budget not in study.budgets:
        return False
    now = study.configs(budget, claim.arms) if claim.arms else {}
    recorded = {arm: made["arms"].get(arm, {}).get("config") for arm in now}
    return made["changed"] or recorded == {a: config_dict(c) for a, c in now.items()}


def rows(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a claim: study, claim, verdict, estimate, interval, threshold, null, needs, seeds,
    budget, date, changed (whether seeds, arms or settings were not the budget's own), stale."""
    stale = stale_claims(entry)
    left_out = ("effects", "effect", "arms")
    return [
        {"study": entry["study"]}
        | {k: v for k, v in row.items() if k not in left_out}
        | {k: entry["passes"][row["budget"]][k] for k in ("date", "changed")}
        | {"data": entry["data"]}
        | {"stale": row["claim"] in stale}
        for row in entry["claims"]
    ]


def tallies(claims: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims came to each outcome."""
    counts = Counter(row["verdict"] for row in claims)
    return {name: counts[name] for name in OUTCOMES}


def summary(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A study in one row: its outcomes, the seeds of each budget, the newest date, whether a claim is
    stale, and whether that is unknown, for its own file has gone or cannot be loaded."""
    passes = entry["passes"]
    with study_of(entry) as study:
        unknown = study is None and entry["file"] is not None
    return {
        "study": entry["study"],
        "title": entry["title"],
        **tallies(entry["claims"]),
        "seeds": {budget: len(made["seeds"]) for budget, made in passes.items()},
        "date": max((made["date"] for made in passes.values()), default=""),
        "stale": bool(stale_claims(entry)),
        "unknown": unknown,
    }


def beyond(done: Pass, folder: Path) -> list[tuple[str, int, float | None]]:
    """What larger budgets would judge besides: (budget, claims, seconds here if it is known).

    The seconds are those recorded, by the ratio of this pass's to those recorded of its budget.
    """
    study, found = done.study, []
    if done.budget not in BUDGETS:
        return []
    entry = entry_of(folder, study.slug) or {"passes": {}}
    seconds = {budget: made["seconds"] for budget, made in entry["passes"].items()}
    judged = len(study.claims_of(done.budget))
    for budget in BUDGETS[BUDGETS.index(done.budget) + 1 :]:
        if budget in study.budgets and (count := len(study.claims_of(budget))) > judged:
            here = None
            if budget in seconds and seconds.get(done.budget) and not done.changed:
                here = seconds[budget] * done.seconds / seconds[done.budget]
            found.append((budget, count - judged, here))
            judged = count
    return found
