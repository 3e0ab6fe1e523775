"""How often are embeddings to be forgotten, until when, and how strong are the controls?

Run: python benchmarks/dual_process_forgetting_tuning.py
On seeds 100 and 101, which the study does not use, with Zipf's law. Active forgetting, the first deviation of embeddings and decay are to answer most novel
sequences. Temporary forgetting and noise are to do both: novel sequences in context and switched words of the head in
weights; what counts is the lesser of the two shares. Where that is equal, as where all are 0, a hundredth of other shares decides:
of novel sequences answered if only the two words of the context may be told, and of the head. Prints all scores, says where the best lies on an edge, and
writes the table that the study reads.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.forgetting import dual_process_forgetting as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
EVERY, UNTIL = (10, 25, 50, 100, 200), study.SEVERAL
ACTIVE = (50, 100, 200, 400, 800)
NOISE = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
START = (0.02, 0.1, 0.3, 1.0, 3.0)
DECAY = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def ended(**settings: object) -> tuple[float, float, float]:
    """Shares of novel sequences in context, of the switched head in weights, and of novel ones of two words; means over seeds."""
    config = replace(study.plain, **settings)
    trace = unfold(study.make_process(config), seeds=SEEDS, at=[config.steps], progress=False)
    last = trace.isel(step=-1).mean("seed")
    return (
        float(last.in_context.sel(exam="novel")),
        float(last.in_weights.sel(exam="head/switched")),
        float(last.chosen.sel(exam="novel")),
    )


def novel(**settings: object) -> float:
    found, _, known = ended(**settings)
    return found + 0.01 * known


def both(**settings: object) -> float:
    found, head, known = ended(**settings)
    return min(found, head) + 0.01 * (known + head)


def main() -> None:
    table = json.loads(TABLE.read_text())
    wanted = {
        ("every", "until"): (lambda k, n: both(every=int(k), until=int(n)), (EVERY, UNTIL)),
        ("active",): (lambda k: novel(every=int(k)), (ACTIVE,)),
        ("noise",): (lambda p: both(noise=p, noise_until=int(table["until"])), (NOISE,)),
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


if __name__ == "__main__":
    main()
