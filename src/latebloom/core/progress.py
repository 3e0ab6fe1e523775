"""A progress bar with the time left and the current values, where a person is watching."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Tick:
    """How far a run is: the step reached, the last step, seconds left, and what was observed."""

    step: int
    steps: int
    seconds_left: float
    values: Mapping[str, np.ndarray]  # latest values of the chosen observables, [seed, ...]
    observed_steps: np.ndarray
    observed: Mapping[str, np.ndarray]  # all values so far, [seed, observation, ...]


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min: seconds as a person says them."""
    if not np.isfinite(seconds):
        return "…"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def describe(values: Mapping[str, np.ndarray]) -> str:
    """`name 0.93 (0.90 to 0.97)`: mean and range over seeds of each value."""
    parts = []
    for name, value in values.items():
        value = np.asarray(value, float)
        value = value[np.isfinite(value)]
        if value.size:
            low, high = value.min(), value.max()
            spread = f" ({low:.3g} to {high:.3g})" if high > low else ""
            parts.append(f"{name.replace('_', ' ')} {value.mean():.3g}{spread}")
    return "  ".join(parts)


@contextlib.contextmanager
def progress_bar(title: str, wanted: bool | None) -> Iterator[Callable[[Tick], None]]:
    """A callable to hand ticks to. Silent if `wanted` is False, or None and nobody is watching."""
    console = Console(stderr=True)
    watching = console.is_terminal or console.is_jupyter
    if wanted is False or (wanted is None and not watching):
        yield lambda tick: None
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}  [cyan]{task.fields[values]}"),
    )
    with Progress(*columns, console=console, transient=not console.is_jupyter) as bar:
        task = bar.add_task(escape(title), total=None, left="compiling", values="")

        def report(tick: Tick) -> None:
            left = f"{duration(tick.seconds_left)} left"
            bar.update(task, total=tick.steps, completed=tick.step, left=left,
                       values=escape(describe(tick.values)))  # fmt: skip

        yield report
