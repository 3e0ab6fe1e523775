"""Which rate, and which weights of its own, does each method want on one pass over two classes at a time?

Run: python benchmarks/onpro_tuning.py [NAME ...]
On seeds 100 and 101, which the study does not use, at its own scale but for a memory of 100, which lies between
its two, and on plain digits. Climbs to the best neighbour on each grid, from two rates, since accuracy may have two peaks
in it. The score is the mean accuracy after the
last task; a best on the edge of its grid is told. The winners go into the table that the study reads.
"""

import argparse
import functools
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tables import put

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.forgetting import onpro as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "er": {"rate": RATES, "one": (0.003, 0.01, 0.03, 0.1, 0.3, 0.6)},
    "erace": {"rate": RATES},
    "der": {"rate": RATES, "one": (0.3, 1.0, 3.0, 10.0), "two": (1.0, 2.0, 4.0, 8.0)},
    "scr": {"rate": RATES, "one": (0.03, 0.07, 0.15, 0.3, 0.6)},
    "gdumb": {"rate": (0.00001, 0.00003, 0.0001, *RATES)},
    "ins": {"rate": RATES, "scale": (0.25, 0.5, 1.0, 2.0, 4.0)},
    "ocm": {"rate": RATES, "scale": (0.25, 0.5, 1.0, 2.0, 4.0)},
    "onpro": {
        "rate": RATES,
        "scale": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        "chance": (0.2, 0.4, 0.6, 0.8),
    },
}
FIRST = (0.001, 0.01)  # rates from which it climbs
START = {"one": 0.1, "two": 0.5, "scale": 0.5, "chance": 0.6}
STARTS: dict[str, dict[str, float]] = {
    "er": {"one": 0.03},
    "der": {"one": 1.0, "two": 2.0},
    "scr": {"one": 0.15},
}


def final(config: study.Config) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=study.schedule(config)[-1:], progress=False)  # fmt: skip
    return 100 * float(np.nan_to_num(trace.accuracy.values[:, -1].mean(axis=1)).mean())


def tune(method: str, known: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """The best settings of a method; of those that may, with and without random views; or climbing on from `known`."""
    grids = GRIDS[method]
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    either = (True, False) if method in study.SEE else (True,)
    for views in either if known is None else (known["views"],):
        base = study.Config(method, memory=100, views=views, **more)  # pyright: ignore

        @functools.cache
        def score(*values: float, base: study.Config = base) -> float:
            return final(replace(base, **dict(zip(grids, values, strict=True))))

        for begin in [START | STARTS.get(method, {}) | {"rate": rate} for rate in FIRST] if known is None else [START | known]:  # fmt: skip
            found = climb(score, [*grids.values()], [begin[name] for name in grids])
            edges = [n for n, edge in zip(grids, found.on_edge, strict=True) if edge]
            settings = dict(zip(grids, found.best, strict=True)) | {"views": views}
            print(f"{method} {more} {settings}: {found.score:.1f} of {len(found.tried)}" + (f"; on an edge: {edges}" if edges else ""), flush=True)  # fmt: skip
            best = max(best, (found.score, settings), key=lambda pair: pair[0])
    return best[1]


CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in GRIDS},
    "joint": ("er", {"joint": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CELLS))
    parser.add_argument(
        "--on", action="store_true", help="climb on from the table, after a grid has grown"
    )
    given = parser.parse_args()
    for name in given.names:
        method, more = CELLS[name]
        table = json.loads(TABLE.read_text())
        start = table.get(name, table[method]) if given.on else None
        put(TABLE, {name: tune(method, start, **more)}, tuple(CELLS))


if __name__ == "__main__":
    main()
