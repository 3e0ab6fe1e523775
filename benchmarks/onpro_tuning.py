"""Which rate, and which weights of its own, does each method want on one pass over two classes at a time?

Run: python benchmarks/onpro_tuning.py [NAME ...]
On seeds 100 and 101, which the study does not use, at its own scale but for a memory of 100, which lies between
its two. Climbs from the middle of each grid to the best neighbour. The score is the mean accuracy after the last task,
on the coloured ground with the cue broken; a best on the edge of its grid is told. The winners go into the
table that the study reads.
"""

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.methods.forgetting import metrics
from latebloom.studies.forgetting import onpro as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "er": {"rate": RATES, "one": (0.1, 0.25, 0.5, 0.75)},
    "erace": {"rate": RATES},
    "der": {"rate": RATES, "one": (0.03, 0.1, 0.3, 1.0), "two": (0.25, 0.5, 1.0, 2.0)},
    "scr": {"rate": RATES, "one": (0.03, 0.07, 0.15, 0.3, 0.6)},
    "ins": {"rate": RATES, "scale": (0.25, 0.5, 1.0, 2.0)},
    "ocm": {"rate": RATES, "scale": (0.25, 0.5, 1.0, 2.0)},
    "onpro": {"rate": RATES, "scale": (0.25, 0.5, 1.0, 2.0), "chance": (0.2, 0.4, 0.6, 0.8)},
}
START = {"rate": 0.01, "one": 0.1, "two": 0.5, "scale": 0.5, "chance": 0.6}
STARTS = {"er": {"one": 0.5}, "der": {"one": 0.3}}


def final(config: study.Config) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=study.schedule(config)[-1:], progress=False)  # fmt: skip
    if config.ground == "cue":
        return 100 * float(np.nan_to_num(trace.shifted.values[:, -1]).mean())
    found = metrics.per_seed(metrics.average_accuracy)(trace)
    return 100 * float(np.nan_to_num(found).mean())


def tune(method: str, **more: Any) -> dict[str, Any]:
    """The best settings of a method; of those that may, with and without random views."""
    grids = GRIDS[method]
    best: tuple[float, dict[str, Any]] = (-np.inf, {})
    for views in (True, False) if method in ("er", "erace", "der") else (True,):
        base = study.Config(method, memory=100, views=views, **more)  # pyright: ignore

        def score(*values: float, base: study.Config = base) -> float:
            return final(replace(base, **dict(zip(grids, values, strict=True))))

        start = [(START | STARTS.get(method, {}))[name] for name in grids]
        if method == "scr":
            start[1] = 0.15
        found = climb(score, [*grids.values()], start)
        edges = [n for n, edge in zip(grids, found.on_edge, strict=True) if edge]
        settings = dict(zip(grids, found.best, strict=True)) | {"views": views}
        print(f"{method} {more} {settings}: {found.score:.1f} of {len(found.tried)}" + (f"; on an edge: {edges}" if edges else ""), flush=True)  # fmt: skip
        best = max(best, (found.score, settings), key=lambda pair: pair[0])
    return best[1]


CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in GRIDS},
    "joint": ("er", {"joint": True}),
    **{f"cue/{name}": (name, {"ground": "cue"}) for name in ("er", "ins", "ocm", "onpro")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CELLS))
    for name in parser.parse_args().names:
        method, more = CELLS[name]
        table = json.loads(TABLE.read_text()) | {name: tune(method, **more)}
        order = [cell for cell in CELLS if cell in table]
        lines = ",\n".join(f' "{cell}": {json.dumps(table[cell])}' for cell in order)
        TABLE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
