"""What a person sees while a study runs: a learning curve for every arm, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import xarray as xr
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from latebloom.core.progress import Tick, duration
from latebloom.lab.study import Study

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 36


class Watcher(Protocol):
    """Told of a pass as it goes on."""

    def start(self, study: Study, budget: str, units: Mapping[str, int]) -> None: ...
    def tick(self, arm: str, tick: Tick) -> None: ...
    def found(self, arm: str, trace: xr.Dataset) -> None: ...
    def judging(self) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """Watches without a word."""

    def start(self, study: Study, budget: str, units: Mapping[str, int]) -> None: ...
    def tick(self, arm: str, tick: Tick) -> None: ...
    def found(self, arm: str, trace: xr.Dataset) -> None: ...
    def judging(self) -> None: ...
    def stop(self) -> None: ...


def spark(steps: np.ndarray, values: np.ndarray, last: int, low: float, high: float) -> str:
    """A curve as a line of bars over [0, last], evenly spaced in log(1 + step)."""
    if not len(steps):
        return ""
    edges = np.expm1(np.linspace(0, np.log1p(last), WIDTH))
    reached = edges[edges <= steps[-1] + 0.5]
    rows = np.clip(np.searchsorted(steps, reached, side="right") - 1, 0, len(steps) - 1)
    share = (values[rows] - low) / (high - low) if high > low else np.zeros(len(rows))
    levels = np.nan_to_num(np.clip(share, 0, 1)) * (len(BARS) - 1)
    return "".join(BARS[round(level)] for level in levels)


@dataclass
class _Row:
    units: int
    done: int = 0
    state: str = "waiting"
    curve: str = ""
    value: str = ""
    step: str = ""
    seconds: float = 0.0
    started: float | None = None


@dataclass
class Curves:
    """Draws a table that grows with the curves, in a terminal or a notebook."""

    console: Console
    rows: dict[str, _Row] = field(default_factory=dict)

    def start(self, study: Study, budget: str, units: Mapping[str, int]) -> None:
        self.study, self.title = study, f"{study.slug} · {budget}"
        self.rows = {arm: _Row(count) for arm, count in units.items()}
        self.began = time.perf_counter()
        self.live = Live(console=self.console, refresh_per_second=8, get_renderable=self.table)
        self.live.start()

    def table(self) -> Table:
        took = duration(time.perf_counter() - self.began)
        watch = self.study.watch.replace("_", " ")
        table = Table(
            title=f"{self.title} · {took}", title_justify="left", box=None, pad_edge=False
        )
        table.add_column("arm", no_wrap=True)
        table.add_column(f"{watch} over log(step)", width=WIDTH, no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        shown = self._shown()
        for arm, row in shown.items():
            style = "dim" if row.state == "waiting" else ""
            table.add_row(Text(arm, style=style), Text(row.curve, style="cyan"), row.value, row.step,
                          Text(row.state, style="dim"))  # fmt: skip
        if hidden := len(self.rows) - len(shown):
            table.add_row(Text(f"… and {hidden} more arms", style="dim"))
        return table

    def _shown(self) -> dict[str, _Row]:
        """What fits the height: the arm under way, then the latest, then those to come."""
        room = max(4, self.console.size.height - 6)
        if len(self.rows) <= room:
            return self.rows
        arms = list(self.rows)
        active = next(
            (i for i, a in enumerate(arms) if self.rows[a].done < self.rows[a].units), len(arms)
        )
        first = min(max(0, active - room + 2), len(arms) - room)
        return {arm: self.rows[arm] for arm in arms[first : first + room]}

    def _draw(self, row: _Row, steps: np.ndarray, curve: np.ndarray | None, last: int) -> None:
        if curve is None or not curve.size:
            return
        flat = curve.reshape(*curve.shape[:2], -1).mean(axis=-1)
        if not np.isfinite(flat).any():
            return
        with np.errstate(all="ignore"):
            mean = np.nanmean(flat, axis=0)
        low, high = (0.0, 1.0) if "accuracy" in self.study.watch else (
            float(np.nanmin(mean)), float(np.nanmax(mean)))  # fmt: skip
        row.curve = spark(steps, mean, last, low, high)
        row.value = f"{mean[-1]:.3g}"

    def tick(self, arm: str, tick: Tick) -> None:
        row = self.rows[arm]
        self._draw(row, tick.observed_steps, tick.observed.get(self.study.watch), tick.steps)
        row.step = f"{tick.step:,}/{tick.steps:,}"
        row.state = f"{duration(tick.seconds_left)} left"

    def found(self, arm: str, trace: xr.Dataset) -> None:
        row = self.rows[arm]
        row.done += 1
        steps = trace.step.values
        curve = trace[self.study.watch].values if self.study.watch in trace else None
        self._draw(row, steps, curve, int(steps[-1]))
        row.seconds += trace.attrs["compile_seconds"] + trace.attrs["run_seconds"]
        row.step = f"{steps[-1]:,}"
        row.state = f"done in {duration(row.seconds)}" if row.done == row.units else "…"

    def judging(self) -> None:
        self.title += " · judging"

    def stop(self) -> None:
        self.title = self.title.removesuffix(" · judging")
        self.live.stop()
