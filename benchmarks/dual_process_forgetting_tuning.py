"""How often are embeddings to be forgotten, until when, and how strong are the controls?

Run: python benchmarks/dual_process_forgetting_tuning.py [every] [active] [noise] [start] [decay] [rates]
On seeds 100 and 101, which the study does not use, with Zipf's law. Active forgetting, the first deviation of embeddings and decay are to answer most novel
sequences. Temporary forgetting and noise are to do both: novel sequences in context and switched words of the head in
weights; what counts is the lesser of the two shares. Novel words have their first embeddings; under noise, where nothing is drawn anew, those of deviation 1, as
in the study's claims. Where that is equal, as where all are 0, a hundredth of other shares decides:
of novel sequences answered if only the two words of the context may be told, and of the head. Prints all scores, says where the best lies on an edge, and
writes the table that the study reads. "rates" says what vanilla training and active forgetting come to at other rates, and writes nothing.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.forgetting import dual_process_forgetting as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
EVERY, UNTIL = (10, 25, 50, 100, 200), study.SEVERAL
ACTIVE = (50, 100, 200, 400, 800)
NOISE = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
START = (0.02, 0.1, 0.3, 1.0, 3.0)
RATES = (2.5e-4, 5e-4, 1e-3)
SHOWN = {
    "novel": ("in_context", "novel"), "of two words": ("chosen", "novel"), "mended": ("in_context", "novel/mended"), "unit": ("in_context", "novel/unit"),
    "head in weights": ("in_weights", "head/switched"), "tail in context": ("in_context", "tail/switched"), "seen": ("in_context", "seen"),
}  # fmt: skip
DECAY = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def last(**settings: object) -> xr.Dataset:
    """The last observation, means over seeds; says what it came to, so that a run that is killed has said something."""
    config = replace(study.plain, **settings)
    trace = unfold(study.make_process(config), seeds=SEEDS, at=[config.steps], progress=False)
    found = trace.isel(step=-1).mean("seed")
    told = "  ".join(f"{what} {share(found, *of):.3f}" for what, of in SHOWN.items())
    print(f"{settings}: {told}  loss {float(found.loss):.4f}", flush=True)
    return found


def share(found: xr.Dataset, of: str, exam: str) -> float:
    return float(found[of].sel(exam=exam))


def novel(**settings: object) -> float:
    found = last(**settings)
    return share(found, "in_context", "novel") + 0.01 * share(found, "chosen", "novel")


def both(exam: str = "novel", **settings: object) -> float:
    found = last(**settings)
    head = share(found, "in_weights", "head/switched")
    return min(share(found, "in_context", exam), head) + 0.01 * (
        share(found, "chosen", exam) + head
    )


def rates() -> None:
    for more in ({}, study.ACTIVE):
        for rate in RATES:
            last(rate=rate, **more)


def main() -> None:
    table = json.loads(TABLE.read_text())
    wanted = {
        ("every", "until"): (lambda k, n: both(every=int(k), until=int(n)), (EVERY, UNTIL)),
        ("active",): (lambda k: novel(every=int(k)), (ACTIVE,)),
        ("noise", "noise_until"): (
            lambda p, n: both("novel/unit", noise=p, noise_until=int(n)),
            (NOISE, UNTIL),
        ),
        ("start",): (lambda d: novel(start=d), (START,)),
        ("decay",): (lambda d: novel(decay=d), (DECAY,)),
    }
    for names, (score, grids) in wanted.items():
        if len(sys.argv) > 1 and names[0] not in sys.argv[1:]:
            continue
        found = climb(score, grids, [table[name] for name in names])
        told = "  ".join(
            f"{'/'.join(f'{v:g}' for v in at)} {s:.4f}" for at, s in found.tried.items()
        )
        edges = [name for name, edge in zip(names, found.on_edge, strict=True) if edge]
        print(f"{', '.join(names)}: {told}; best {found.best}" + "".join(f", {e} on an edge" for e in edges), flush=True)  # fmt: skip
        table |= {
            n: int(v) if float(v).is_integer() else v
            for n, v in zip(names, found.best, strict=True)
        }
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
        assert np.isfinite(found.score)
    if len(sys.argv) == 1 or "rates" in sys.argv[1:]:
        rates()


if __name__ == "__main__":
    main()
