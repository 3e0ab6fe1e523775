"""How strongly does each method of `rehearsal-free` want to hold on, and at which rate?

Run: python benchmarks/rehearsal_free_tuning.py [PART ...]
On seeds 100 and 101, which the study does not use, by the accuracy over all classes at the end. For pre-trained networks and
those from scratch: fine-tuning's rate by each loss; each method's strength by softmax over the task's own classes and by
sigmoids, at the rate of fine-tuning by it; the rate of the better, and if that moved, its strength again; PredKD as it is alone,
with the strength of a second. Then the transformer, by the own softmax. Goes to the best neighbour until none is better, prints
what was tried, says where the best lies on an edge, and puts the winners into the table that the study reads.
"""

import argparse
import json
import time
import warnings
from dataclasses import replace

import numpy as np

from latebloom import unfold
from latebloom.core.climbing import climb
from latebloom.studies.forgetting import rehearsal_free as study

SEEDS = (100, 101)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
VIT_RATES = {"l2": 1e-2, "full": 1e-3, "head": 3e-2, "l2p": 1e-1, "dual": 3e-2}
DECADES = tuple(10.0**k for k in range(-6, 7))
STARTS = {
    "pretrained": {"l2": 10.0, "ewc": 10.0, "featkd": 1e-3, "weighted": 0.1, "predkd": 10.0},
    "scratch": {"l2": 1.0, "ewc": 100.0, "featkd": 1e-3, "predkd": 1.0},
}


def final(config: study.Config) -> float:
    """Mean final accuracy in %; NaN where a seed diverged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=study.schedule(config)[-1:], progress=False)  # fmt: skip
    return float(100 * trace.accuracy.values[:, -1].mean())


def tune(name: str, config: study.Config, **grids: tuple[tuple[float, ...], float]) -> dict:
    """The settings of the grids (values, start) that a climb ends at."""
    start = time.perf_counter()
    names = list(grids)
    found = climb(
        lambda *values: final(replace(config, **dict(zip(names, values, strict=True)))),
        [grids[n][0] for n in names], [grids[n][1] for n in names],
    )  # fmt: skip
    tried = "  ".join(f"({', '.join(f'{v:g}' for v in at)}) {score:.1f}" for at, score in found.tried.items())  # fmt: skip
    edges = [n for n, edge in zip(names, found.on_edge, strict=True) if edge]
    print(f"{name} {', '.join(names)} ({time.perf_counter() - start:.0f} s): {tried}; best "
          f"{found.best}{', on an edge: ' + ', '.join(edges) if edges else ''}", flush=True)  # fmt: skip
    return dict(zip(names, found.best, strict=True)) | {"score": found.score}


def save(name: str, found: dict) -> None:
    study.TUNED[name] = {k: v for k, v in found.items() if k != "score"}
    lines = ",\n".join(f' "{k}": {json.dumps(v)}' for k, v in study.TUNED.items())
    study.TABLE.write_text(f"{{\n{lines}\n}}\n")


def settled(name: str, plain: study.Config, found: dict) -> dict:
    """With the best rate at its strength, and where that is another, the best strength at this rate."""

    def of() -> study.Config:
        return replace(plain, **{k: v for k, v in found.items() if k != "score"})

    rate = found["rate"]
    found = found | tune(name, of(), rate=(RATES, rate))
    if found["rate"] != rate:
        found = found | tune(name, of(), one=(DECADES, found["one"]))
    return found


def convolutional(regime: str, names: list[str]) -> None:
    plain = study.Config(pretrained=regime == "pretrained")
    if "base" in names:
        for loss in ("ce", "bce", "local_ce"):
            found = tune(f"{regime} base {loss}", replace(plain, loss=loss), rate=(RATES, 1e-2))
            save(f"{regime}/base/{loss}", found | {"loss": loss})
    for name, start in STARTS[regime].items():
        if name not in names:
            continue
        losses = (
            (study.TUNED[f"{regime}/featkd"]["loss"],)
            if name == "weighted"
            else ("local_ce", "bce")
        )
        options = []
        for loss in losses:
            rate = study.TUNED[f"{regime}/base/{loss}"]["rate"]
            of = replace(plain, method=name, loss=loss, rate=rate)
            held = tune(f"{regime} {name} {loss}", of, one=(DECADES, start))
            options.append(held | {"rate": rate, "loss": loss})
        best = max(options, key=lambda option: np.nan_to_num(option["score"]))
        save(f"{regime}/{name}", settled(f"{regime} {name}", replace(plain, method=name), best))
    for name in ("featkd", "l2", "ewc"):
        if f"predkd+{name}" not in names:
            continue
        first, second = (study.TUNED[f"{regime}/{n}"] for n in ("predkd", name))
        of = replace(plain, **first | {"method": f"predkd+{name}"})
        found = tune(f"{regime} predkd+{name}", of, two=(DECADES, second["one"]))
        save(f"{regime}/predkd+{name}", first | found)


def transformer(names: list[str]) -> None:
    plain = study.Config(network="vit", pretrained=True, loss="local_ce")
    kinds = {
        "l2": ("attention", {"one": (DECADES, 10.0)}), "full": ("all", {}),
        "head": ("head", {}), "l2p": ("prompts", {}), "dual": ("prompts", {}),
    }  # fmt: skip
    for name, (part, grids) in kinds.items():
        if f"vit-{name}" not in names:
            continue
        method = name if name in ("l2", "l2p", "dual") else "base"
        one = {"l2p": 0.5, "dual": 1.0}.get(name, 0.0)
        guess = VIT_RATES[name]
        of = replace(plain, method=method, learns=part, rate=guess, one=one)
        found = {"one": one, "rate": guess, "loss": "local_ce"}
        if grids:
            found |= tune(f"vit {name}", of, **grids)
            found = settled(f"vit {name}", of, found)
        else:
            found |= tune(f"vit {name}", of, rate=(RATES, guess))
        save(f"vit/{name}", found | {"learns": part, "method": method})


def main() -> None:
    parts = [
        "base", "l2", "ewc", "featkd", "weighted", "predkd", "predkd+featkd", "predkd+l2", "predkd+ewc",
        *(f"vit-{n}" for n in ("l2", "full", "head", "l2p", "dual")),
    ]  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=parts)
    parser.add_argument("--regimes", nargs="*", default=["pretrained", "scratch"])
    given = parser.parse_args()
    for regime in given.regimes:
        convolutional(regime, given.names)
    transformer(given.names)


if __name__ == "__main__":
    main()
