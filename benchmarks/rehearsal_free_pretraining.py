"""What do the pre-trained networks of `rehearsal-free` know, and how well do their features tell new classes?

Run: python benchmarks/rehearsal_free_pretraining.py [--check] [--networks NAME ...]
Trains each network from three seeds on glyph classes of which no stream has one, and writes the bodies (heads
left out, in half precision) to the file beside the study. Prints the accuracy on new drawings of the classes that were
trained on, and on the stream's classes by the nearest mean of features: as drawn, and after training. With `--check`
nothing is written: it says whether the file has what was trained now, and ends with an error where it has not.
"""

import argparse
import sys
import time
from functools import partial

import equinox as eqx
import jax
import numpy as np
import optax

from latebloom.core.calling import call
from latebloom.core.training import Supervised
from latebloom.data import glyph_images, scaled
from latebloom.losses import cross_entropy
from latebloom.methods.forgetting.distillation import parted, with_features
from latebloom.studies.forgetting import rehearsal_free as study

SEEDS, BASE, DRAWINGS = (200, 201, 202), range(200, 300), (60, 10)
SETTINGS = {"conv": (1500, 64, 3e-3), "normed": (1000, 64, 3e-3), "vit": (3000, 64, 2e-3)}


def nearest_mean(model, data, outputs: int) -> float:
    both = with_features(model, study.readout)
    train, test = (
        np.asarray(parted(call(both, x), outputs)[0]) for x in (data.x_train, data.x_test)
    )
    y = np.asarray(data.y_train)
    means = np.stack([train[y == c].mean(0) for c in range(y.max() + 1)])
    apart = ((test[:, None] - means) ** 2).sum(-1)
    return float((apart.argmin(1) == np.asarray(data.y_test)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--networks", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    given = parser.parse_args()
    if not given.check and set(given.networks) != set(SETTINGS):
        parser.error("the file has all networks: only a check may leave one out")
    found: dict[str, np.ndarray] = {}
    base = scaled(glyph_images(BASE, *DRAWINGS, seed=0, size=study.SIDE))
    new = study.images("glyphs")
    for name in given.networks:
        steps, batch, rate = SETTINGS[name]
        start = time.perf_counter()
        process = Supervised(
            model=partial(study.fresh, name, len(BASE)), data=base, optimiser=optax.adamw,
            hyper={"learning_rate": rate}, loss=cross_entropy, batch_size=batch, seeds_by="map",
        )  # fmt: skip
        bodies = []
        for seed in SEEDS:
            model, accuracy, before = trained(process, seed, steps)
            as_drawn, after = (nearest_mean(m, new, len(BASE)) for m in (before, model))
            print(f"{name}, seed {seed}: {accuracy:.3f} on its classes; nearest mean on new ones "
                  f"{as_drawn:.3f} as drawn, {after:.3f} ({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
            bodies.append(jax.tree.leaves(study.body(model)))
        for place, parts in enumerate(zip(*bodies, strict=True)):
            found[f"{name}/{place}"] = np.stack(parts).astype(np.float16)
    if not given.check:
        np.savez_compressed(study.WEIGHTS, **found)
        return
    with np.load(study.WEIGHTS) as file:
        shipped = {place: file[place] for place in file.files if place.split("/")[0] in given.networks}  # fmt: skip
    if said := differences(shipped, found):
        sys.exit("not what was trained now: " + "; ".join(said))
    print(f"the weights in {study.WEIGHTS.name} are those that were trained now")


def differences(shipped: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> list[str]:
    """A sentence for each array that is missing, of another shape, or of other values."""
    said = [f"{place} is missing" for place in sorted(found.keys() - shipped.keys())]
    said += [f"{place} is not made" for place in sorted(shipped.keys() - found.keys())]
    for place in sorted(found.keys() & shipped.keys()):
        one, other = shipped[place], found[place]
        if one.shape != other.shape:
            said.append(f"{place} is {list(one.shape)} and was {list(other.shape)}")
        elif not np.array_equal(one, other):
            apart = np.abs(one.astype(np.float64) - other).max(axis=tuple(range(1, one.ndim)))
            said.append(f"{place} differs by at most {', '.join(f'{a:.2g}' for a in apart)} (by body)")  # fmt: skip
    return said


def trained(process: Supervised, seed: int, steps: int):
    """The network, its accuracy on new drawings, and the network as it was drawn."""
    state = process.init(jax.random.key(seed))
    before = state.model

    @eqx.filter_jit
    def run(state):
        return jax.lax.fori_loop(0, steps, lambda _, s: process.step(s), state)

    state = run(state)
    seen = eqx.filter_jit(process.observe)(state)
    return state.model, float(seen["test_accuracy"]), before


if __name__ == "__main__":
    main()
