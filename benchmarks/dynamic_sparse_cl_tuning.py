"""Which learning rate does each density, each anchor want, and which growth rule is best at it?

Run: python benchmarks/dynamic_sparse_cl_tuning.py [NAME ...]
At the scale of the quick and thorough budgets, on seeds 100 and 101, which the study does not use. Climbs a
grid of rates (and strengths) until no neighbour is better, and puts the winners into the table that the study
reads. A density's rate is the best on average of uniform and ERK initialisation with growth at random and by
gradient, so that none of what is compared is favoured.
"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import put

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.forgetting import dynamic_sparse_cl as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
RATES = (6.25e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2)
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
GROUPS = {
    **{str(p): [f"{p}/{i}/{g}" for i in study.INITS for g in ("random", "gradient")] for p in study.PERCENTS},
    **{f"static-{p}": [f"{p}/{i}/static" for i in study.INITS] for p in study.PERCENTS},
    **{f"separate-{p}": [f"separate-{p}"] for p in study.PERCENTS},
    **{f"gmp-{p}": [f"gmp-{p}"] for p in study.PERCENTS},
    "mnist": [f"mnist/20/{i}" for i in study.INITS],
    "conv": [f"conv/20/{i}" for i in study.INITS],
    "packnet": ["packnet"],
    "dense": ["dense"],
    "ewc": ["ewc"],
}  # fmt: skip


def final(arm: str, **settings: float) -> float:
    """Mean final accuracy of an arm; 0 where a seed diverged."""
    config = replace(study.ARMS[arm], **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(
            study.make_process(config), seeds=SEEDS, at=study.schedule(config)[-1:], progress=False
        )
    return float(np.nan_to_num(trace.accuracy.values[:, -1].mean(axis=1)).mean())


def tune(name: str) -> None:
    start = time.perf_counter()
    grids = (RATES, STRENGTHS) if name == "ewc" else (RATES,)

    def score(rate: float, *strength: float) -> float:
        more = {"strength": strength[0]} if strength else {}
        return float(np.mean([final(arm, rate=rate, **more) for arm in GROUPS[name]]))

    first = 2.5e-3 if name in ("dense", "packnet", "ewc") else 1e-2
    found = climb(score, grids, (first, 100.0)[: len(grids)])
    shown = "  ".join(f"{k} {100 * v:.1f}" for k, v in sorted(found.tried.items()))
    print(f"{name} ({time.perf_counter() - start:.0f} s): {shown}")
    print(f"  best {found.best}" + (", on an edge" if any(found.on_edge) else ""), flush=True)
    put(TABLE, {name: dict(zip(("rate", "strength"), found.best, strict=False))})


def choose() -> None:
    """The best growth rule of each density and initialisation, and the best pair of each density."""
    rates = json.loads(TABLE.read_text())
    best = {}
    for p in study.PERCENTS:
        found = {f"{i}/{g}": final(f"{p}/{i}/{g}", rate=rates[str(p)]["rate"]) for i in study.INITS for g in study.GROWTHS}  # fmt: skip
        best[str(p)] = max(found, key=lambda pair: found[pair])
        for i in study.INITS:
            rules = {g: found[f"{i}/{g}"] for g in study.GROWTHS}
            best[f"{p}/{i}"] = max(rules, key=lambda rule: rules[rule])
        print(p, {k: round(100 * v, 1) for k, v in found.items()}, best, flush=True)
    put(TABLE, {"best": best})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*GROUPS, "best"])
    for name in parser.parse_args().names:
        choose() if name == "best" else tune(name)


if __name__ == "__main__":
    main()
