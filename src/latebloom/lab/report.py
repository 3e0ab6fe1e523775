"""Self-contained HTML pages: one for each study that was run, and an index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import xarray as xr

from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style
from latebloom.lab.ledger import is_stale
from latebloom.lab.registry import known
from latebloom.lab.runner import Pass
from latebloom.lab.store import Store
from latebloom.lab.study import Study


def number(value: float | None) -> str:
    """Three significant digits; infinity for a bound that is unknown."""
    if value is None or not np.isfinite(value):
        return "∞" if value is None else str(value)
    if value == 0 or 0.001 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def interval(verdict: Mapping[str, Any]) -> markupsafe.Markup:
    """A small picture of the interval against the threshold; the side that holds is shaded."""
    low, high, estimate = verdict["low"], verdict["high"], verdict["estimate"]
    if estimate is None or low is None or high is None:
        return markupsafe.Markup("")
    sign, threshold = verdict["threshold"].split()
    limit = float(threshold)
    seen = [low, high, estimate, limit, *(e for e in verdict["effects"] if e is not None)]
    span = max(seen) - min(seen) or 1.0
    left, scale = min(seen) - 0.12 * span, 140 / (1.24 * span)

    def x(value: float) -> float:
        return round(4 + (value - left) * scale, 1)

    start, stop = (x(limit), 148.0) if sign == ">" else (4.0, x(limit))
    dots = "".join(
        f'<circle cx="{x(e)}" cy="12" r="2.2" fill="currentColor" opacity=".45"/>'
        for e in verdict["effects"] if e is not None
    )  # fmt: skip
    label = f"effect {number(estimate)}, interval {number(low)} to {number(high)}, threshold {threshold}"
    return markupsafe.Markup(
        f'<svg class="interval {verdict["verdict"]}" viewBox="0 0 152 24" role="img" '
        f'aria-label="{label}">'
        f'<rect x="{start}" y="2" width="{max(stop - start, 0):.1f}" height="20" fill="currentColor" '
        'opacity=".12"/>'
        f'<line x1="{x(limit)}" x2="{x(limit)}" y1="2" y2="22" stroke="currentColor" '
        'stroke-dasharray="3 2"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="12" y2="12" stroke="currentColor" stroke-width="2.5"/>'
        f'{dots}<circle cx="{x(estimate)}" cy="12" r="4" fill="currentColor"/></svg>'
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latebloom.lab"), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"number": number, "interval": interval}
    return environment


def _tallies(verdicts: list[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(v["verdict"] for v in verdicts)
    order = ("holds", "contradicted", "undecided", "not run")
    return [(name, counts[name]) for name in order if counts[name]]


def _settings(record: Mapping[str, Any], traces: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    configs = record["configs"]
    names = list(next(iter(configs.values())))
    usual = {n: Counter(str(c[n]) for c in configs.values()).most_common(1)[0][0] for n in names}
    arms = [
        {
            "name": arm,
            "own": ", ".join(f"{n}={c[n]}" for n in names if str(c[n]) != usual[n]) or "–",
            "seconds": traces[arm].attrs["seconds"],
            "rate": traces[arm].attrs.get("steps_per_second"),
        }
        for arm, c in configs.items()
    ]
    return {"shared": list(usual.items()), "arms": arms}


def write_page(done: Pass, folder: Path) -> Path:
    """Write the page of a pass, self-contained, and bring the index up to date."""
    study, record = done.study, done.record()
    figures = [
        {"name": f.name, "caption": f.caption, "svg": markupsafe.Markup(style.svg(drawn))}
        for f, drawn in done.figures
    ]
    page = _environment().get_template("study.html").render(
        study=study, record=record, figures=figures, tallies=_tallies(record["verdicts"]),
        **_settings(record, done.traces),
    )  # fmt: skip
    path = folder / f"{study.slug}.html"
    write_atomically(path, page.encode())
    return path


def write_index(store: Store, folder: Path) -> Path:
    """Write the index of all pages in the folder, from the records in the store."""
    shown = [study for page in folder.glob("*.html") if (study := known(page.stem))]
    shown.sort(key=lambda study: (study.family, study.slug))
    rows = [_index_row(s, record) for s in shown if (record := latest(store, s))]
    path = folder / "index.html"
    write_atomically(path, _environment().get_template("index.html").render(rows=rows).encode())
    return path


def _index_row(study: Study, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "slug": study.slug,
        "title": study.paper.title,
        "family": study.family,
        "question": study.question,
        "tallies": _tallies(record["verdicts"]),
        "stale": is_stale(dict(record)),
        "budget": record["budget"],
        "date": record["date"],
    }


def latest(store: Store, study: Study, budget: str | None = None) -> dict[str, Any] | None:
    """The newest record of a study in the store (of one budget, if given), or None."""
    names = [budget] if budget else list(study.budgets)
    found = [store.read_record(study.slug, f"pass-{name}") for name in names]
    return max((r for r in found if r), key=lambda r: r["date"], default=None)
