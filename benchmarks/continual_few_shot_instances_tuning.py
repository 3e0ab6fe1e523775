"""Which learning rates do pretraining, tuning and replay want, in each arrangement of both tests?

Run: python benchmarks/continual_few_shot_instances_tuning.py [pretraining|tuning|scratch ...]
At the scale of the study, on validation classes, on seeds 100 and 101, which the study does not use. Every rate
of a grid is tried; the best goes into the table that the study reads, and the script says so where it is the
first or last. Pretraining is tried on the first of the seeds.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tables import put

from latebloom import unfold
from latebloom.methods.forgetting.episodes import Design, draw_many
from latebloom.methods.forgetting.few_shot import correct
from latebloom.methods.forgetting.pretraining import by_prototypes, pretrained
from latebloom.studies.forgetting import continual_few_shot_instances as study

TABLE = Path(study.__file__).with_suffix(".json")
SEEDS = (100, 101)
PRETRAINING = (1e-3, 3e-3, 1e-2, 3e-2)
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def said(name: str, rates: tuple[float, ...], scores: np.ndarray) -> float:
    place = int(np.nan_to_num(scores).argmax())
    edge = ", on an edge" if place in (0, len(rates) - 1) else ""
    shown = "  ".join(f"{r:g} {100 * s:.1f}" for r, s in zip(rates, scores, strict=True))
    print(f"{name}: {shown}; best {rates[place]:g}{edge}", flush=True)
    return rates[place]


def tune_pretraining() -> None:
    """By prototypes of one drawing each of 20 validation classes, running statistics; one seed."""
    for arm, name in (("pretrained", "classes"), ("dot", "dot"), ("euclidean", "euclidean")):
        process = study.make_process(study.ARMS[arm])
        metric = "dot" if name == "dot" else "euclidean"
        design = Design(1, 20)

        @eqx.filter_jit
        def score(process, state, metric=metric, design=design):
            shelf = process.part(state, "validation")
            many = draw_many(jax.random.key(0), design, shelf, 60)

            def one(e):
                x = process.images[e.target_rows]
                logits = by_prototypes(state.learner.body, process.images, e, x, design.outputs, metric, "running")  # fmt: skip
                return correct(logits, e.target_labels).mean()

            return jax.lax.map(one, many).mean()

        scores = []
        for rate in PRETRAINING:
            each = eqx.tree_at(lambda p: p.rate, process, jnp.float32(rate))
            scores.append(float(score(each, pretrained(each, jax.random.key(SEEDS[0])))))
        best = said(f"pretraining, {name}", PRETRAINING, np.array(scores))
        put(TABLE, {f"pretraining/{name}": best} | ({"pretraining/seen": best} if name == "classes" else {}))  # fmt: skip


def tune(kind: str) -> None:
    arm = {"tuning": "pretrained", "scratch": "scratch"}[kind]
    config = replace(study.ARMS[arm], part="validation", rates=RATES, episodes=6)  # fmt: skip
    cells = {n: c for n, c in study.cells_of(config).items() if c.how in ("tune", "replay", "own")}
    if kind == "tuning":
        cells |= {f"course/{how}": study.sequence(config, how) for how in ("tune", "replay")}
    process = study.make_process(config)
    process = replace(process, plan=replace(process.plan, cells=tuple(cells.items()), course=()))
    trace = unfold(process, seeds=SEEDS, at=study.schedule(config), progress=False)
    scores = trace.accuracy.values[:, -1].mean(axis=0)
    put(
        TABLE,
        {c.rate: said(c.rate, RATES, row) for c, row in zip(cells.values(), scores, strict=True)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["pretraining", "tuning", "scratch"])
    for what in parser.parse_args().what:
        start = time.process_time()
        tune_pretraining() if what == "pretraining" else tune(what)
        print(f"{what}: {time.process_time() - start:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
