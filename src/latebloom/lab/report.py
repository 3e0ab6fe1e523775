"""Self-contained HTML pages: one for each study that was run, and an index."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import xarray as xr

from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style, terminal
from latebloom.lab.ledger import as_entry, stale_claims, tallies
from latebloom.lab.naming import counted
from latebloom.lab.runner import Pass
from latebloom.lab.store import Store


def number(value: float | None) -> str:
    """Three significant digits; infinity for a bound that is unknown."""
    if value is None or not np.isfinite(value):
        return "∞" if value is None else str(value)
    if value == 0 or 0.001 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def spread(found: Mapping[str, Any]) -> str:
    """An estimate with its interval: "0.999 [0.998, 1]"; "–" where there is none."""
    return "–" if found["estimate"] is None else f"{number(found['estimate'])} {reach(found)}"


def reach(found: Mapping[str, Any]) -> str:
    """The interval: "[0.998, 1]"."""
    low = "-∞" if found["low"] is None else number(found["low"])
    return f"[{low}, {number(found['high'])}]"


def seeds(found: Mapping[str, Any]) -> str:
    """How many seeds said something: "8 seeds", "7 of 8 seeds"."""
    said, asked = found["seeds"], found["of"]
    return f"{said} of {counted(asked, 'seed')}" if said < asked else counted(asked, "seed")


def null_of(verdict: Mapping[str, Any]) -> str:
    """What the null scored: "0.03 [0.01, 0.05]", a plain number where that is given, "–" where it
    cannot say, or ""."""
    null = verdict["null"]
    if not null:
        return ""
    known = not null["text"] and null["estimate"] is not None
    return number(null["estimate"]) if known else spread(null)


def interval(verdict: Mapping[str, Any]) -> markupsafe.Markup:
    """A small picture of the interval against the threshold; the side that holds is shaded, the
    null is a hollow mark."""
    low, high, estimate = verdict["low"], verdict["high"], verdict["estimate"]
    if estimate is None or low is None or high is None:
        return markupsafe.Markup("")
    sign, threshold = verdict["threshold"].split()
    limit, null = float(threshold), (verdict["null"] or {}).get("estimate")
    effects = [e for e in verdict["effects"] if e is not None]
    seen = [low, high, estimate, limit, *effects, *([] if null is None else [null])]
    span = max(seen) - min(seen) or 1.0
    left, scale = min(seen) - 0.12 * span, 140 / (1.24 * span)

    def x(value: float) -> float:
        return round(4 + (value - left) * scale, 1)

    start, stop = (x(limit), 148.0) if sign == ">" else (4.0, x(limit))
    dots = "".join(
        f'<circle cx="{x(e)}" cy="12" r="2.2" fill="currentColor" opacity=".45"/>' for e in effects
    )
    label = f"effect {number(estimate)}, interval {number(low)} to {number(high)}, threshold {threshold}"
    hollow = ""
    if null is not None:
        label += f", null {number(null)}"
        at = x(null)
        hollow = (
            f'<path class="null" d="M{at - 4:.1f} 12 L{at} 7 L{at + 4:.1f} 12 L{at} 17 Z" '
            'fill="none" stroke="var(--ink)" stroke-width="1.5"/>'
        )
    return markupsafe.Markup(
        f'<svg class="interval {_class(verdict["verdict"])}" viewBox="0 0 152 24" role="img" '
        f'aria-label="{label}">'
        f'<rect x="{start}" y="2" width="{max(stop - start, 0):.1f}" height="20" fill="currentColor" '
        'opacity=".12"/>'
        f'<line x1="{x(limit)}" x2="{x(limit)}" y1="2" y2="22" stroke="currentColor" '
        'stroke-dasharray="3 2"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="12" y2="12" stroke="currentColor" stroke-width="2.5"/>'
        f'{dots}<circle cx="{x(estimate)}" cy="12" r="4" fill="currentColor"/>{hollow}</svg>'
    )


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latebloom.lab"), autoescape=True, trim_blocks=True
    )
    environment.filters |= {
        "number": number, "reach": reach, "seeds": seeds, "null_of": null_of,
        "interval": interval, "class_of": _class, "counted": counted,
        "changes": terminal.changes,
    }  # fmt: skip
    return environment


def _settings(record: Mapping[str, Any], traces: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    configs = {arm: made["config"] for arm, made in record["arms"].items()}
    names = list(dict.fromkeys(name for config in configs.values() for name in config))
    usual = {
        n: Counter(str(c[n]) for c in configs.values() if n in c).most_common(1)[0][0]
        for n in names
    }
    arms = [
        {
            "name": arm,
            "own": ", ".join(f"{n}={c[n]}" for n in c if str(c[n]) != usual[n]) or "–",
            "seconds": traces[arm].attrs["seconds"],
            "rate": traces[arm].attrs.get("steps_per_second"),
        }
        for arm, c in configs.items()
    ]
    return {"shared": list(usual.items()), "arms": arms}


def write_page(done: Pass, folder: Path, more: str = "") -> Path:
    """Write the page of a pass, self-contained; `more` says what larger budgets would add."""
    study, record = done.study, done.record()
    figures = [
        {"name": f.name, "caption": f.caption, "svg": markupsafe.Markup(style.svg(drawn))}
        for f, drawn in done.figures
    ]
    page = _environment().get_template("study.html").render(
        study=study, record=record, figures=figures, tallies=tallies(record["verdicts"]),
        more=more, unjudged=[claim.id for claim in done.unjudged],
        budgets={claim.id: claim.budget for claim in study.claims_of(done.budget)},
        **_settings(record, done.traces),
    )  # fmt: skip
    path = folder / f"{study.slug}.html"
    write_atomically(path, page.encode())
    return path


def write_index(store: Store, folder: Path) -> Path:
    """Write the index of all pages in the folder, from the records in the store."""
    shown = [r for page in folder.glob("*.html") if (r := latest(store, page.stem))]
    shown.sort(key=lambda record: (record["family"], record["study"]))
    rows = [
        record
        | {"tallies": tallies(record["verdicts"]), "stale": bool(stale_claims(as_entry(record)))}
        for record in shown
    ]
    path = folder / "index.html"
    write_atomically(path, _environment().get_template("index.html").render(rows=rows).encode())
    return path


def latest(store: Store, slug: str, budget: str | None = None) -> dict[str, Any] | None:
    """The newest record of a study in the store, or None.

    Of one budget, if given; then a pass of it as it stands comes before one with changed settings.
    """
    name = "*" if budget is None else glob.escape(budget)
    paths = [
        p for kind in ("pass", "changed") for p in (store.folder / slug).glob(f"{kind}-{name}.json")
    ]
    # Records from before arms had programs are passed over.
    found = [(r, path.stat().st_mtime) for path in paths
             if (r := store.read_record(slug, path.stem)) and "arms" in r]  # fmt: skip

    def order(made: tuple[dict[str, Any], float]) -> tuple[bool, str, float]:
        return budget is not None and not made[0].get("changed"), made[0]["date"], made[1]

    return max(found, key=order)[0] if found else None
