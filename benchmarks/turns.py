"""What the scripts that time a training step beside PyTorch's share: options, turns, a table."""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

Run = Callable[[int], float]  # steps -> seconds

FEW, MOST = 5, 5000
CORES = len(os.sched_getaffinity(0))


def options(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--eager-only", action="store_true", help="leave torch.compile out")
    return parser.parse_args()


def compare(contenders: Mapping[str, Run], turns: int, seconds: float) -> dict[str, float]:
    """Median seconds a step of each contender; they take turns of about `seconds`.

    A run of FEW steps is subtracted from each: what a run costs once is left out.
    """
    steps, taken = {}, {name: [] for name in contenders}

    def extra(name: str, more: int) -> float:
        run = contenders[name]
        return (run(FEW + more) - run(FEW)) / more

    for name, run in contenders.items():
        run(FEW)  # compiles
        steps[name] = min(MOST, max(20, round(seconds / max(extra(name, 40), 1e-5))))
    for _ in range(turns):
        for name in contenders:
            taken[name].append(extra(name, steps[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def report(
    rows: Sequence[dict[str, Any]], title: str, given: argparse.Namespace, **facts: Any
) -> None:
    """Rows of names and of seconds (floats; "ours" and its peers) as a table in ms, and as JSON."""
    labels = [name for name, value in rows[0].items() if not isinstance(value, float)]
    columns = [name for name in rows[0] if name not in labels]
    table = Table(title=f"ms {title}, {CORES} cores")
    for column in [*labels, *columns, "best torch / ours"]:
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        ratio = min(row[c] for c in columns if c != "ours") / row["ours"]
        cells = [f"{1e3 * row[c]:.3f}" for c in columns]
        table.add_row(*(str(row[name]) for name in labels), *cells, f"{ratio:.2f}")
    Console().print(table)
    if given.json:
        facts |= {
            "seconds": list(rows),
            "jax": version("jax"),
            "torch": version("torch"),
            "machine": platform.processor() or platform.machine(),
            "cores": CORES,
        }
        with open(given.json, "w") as file:
            json.dump(facts, file, indent=1)
