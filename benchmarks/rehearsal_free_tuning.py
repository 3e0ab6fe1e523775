"""How strongly does each method of `rehearsal-free` want to hold on, and at which rate?

Run: python benchmarks/rehearsal_free_tuning.py [PART ...] [--regimes REGIME ...] [--losses LOSS ...]
On seeds 100 to 103, which the study does not use, by the accuracy over all classes at the end. For pre-trained networks and
those from scratch: fine-tuning's rate by each loss; each method's strength by softmax over the task's own classes and by
sigmoids, at the rate of fine-tuning by it; the rate of the better (PredKD's by both), and if that moved, its strength again;
beside PredKD, as it is alone by each of the two losses, the strength of a second, or in its place the rate of a slower body.
Then the transformer, by the own softmax. `--losses` leaves one of the two losses out for L2, EWC and FeatKD alone. Every
value of a grid is tried, and the grid goes on where its best is its first or last; prints what was tried, says where the best
lies on an edge all the same, and puts the winners into the table that the study reads.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tables import put

from latebloom import unfold
from latebloom.studies.forgetting import rehearsal_free as study

SEEDS = (100, 101, 102, 103)
TENS = tuple(float(f"1e{k}") for k in range(-8, 9))
THREES = tuple(float(f"{d}e{k}") for k in range(-4, 0) for d in (1, 3))
BEYOND = 3  # values that a grid may go on by at each end
RATES = (3e-3, 3e-2)  # first and last, on THREES; strengths on TENS
STRENGTHS = {
    "l2": (0.1, 100.0), "ewc": (1.0, 1e3), "featkd": (1e-4, 1e-1), "weighted": (1e-2, 10.0), "predkd": (0.1, 100.0),
}  # fmt: skip
BESIDE = STRENGTHS | {"featkd": (1e-5, 1e-2)}  # where PredKD holds, too
BODIES, SHARES = (3e-2, 0.3), (*THREES, 1.0)  # at 1 it is the method itself
HEADS = (1e-2, 3e-2)
TEACHING = ("local_ce", "bce")
VIT_RATES = {"full": (3e-4, 3e-3), "head": (3e-3, 3e-2), "l2p": (3e-2, 0.3), "dual": (1e-2, 0.1)}


def final(config: study.Config) -> float:
    """Mean final accuracy in %; NaN where a seed diverged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = unfold(study.make_process(config), seeds=SEEDS, at=study.schedule(config)[-1:], progress=False)  # fmt: skip
    return float(100 * trace.accuracy.values[:, -1].mean())


def scan(
    name: str, plain: study.Config, found: dict, field: str, ladder: tuple[float, ...], ends: tuple[float, float],
) -> dict:  # fmt: skip
    """`found` with the best value of a setting among all from one of the ladder's to another, and its score."""
    start = time.perf_counter()
    settings = {k: v for k, v in found.items() if k != "score"}
    scores: dict[int, float] = {}

    def at(place: int) -> float:
        if place not in scores:
            config = replace(plain, **settings | {field: ladder[place]})
            scores[place] = float(np.nan_to_num(final(config), nan=-np.inf))
        return scores[place]

    low, high = (ladder.index(end) for end in ends)
    least, most = max(0, low - BEYOND), min(len(ladder) - 1, high + BEYOND)
    best = max(range(low, high + 1), key=at)
    while best in (low, high) and (low > least or high < most):
        if best == low == least or best == high == most:
            break
        low, high = (low - 1, high) if best == low else (low, high + 1)
        best = max(range(low, high + 1), key=at)
    tried = "  ".join(f"{ladder[place]:g}: {scores[place]:.1f}" for place in sorted(scores))
    edge = ", on an edge" if best in (low, high) else ""
    said = ", ".join(f"{k} {v}" for k, v in settings.items() if k not in (field, "method"))
    print(f"{name} ({said}), {field} ({time.perf_counter() - start:.0f} s): {tried}; best {ladder[best]:g}{edge}", flush=True)  # fmt: skip
    return found | {field: ladder[best], "score": scores[best]}


def about(value: float, ladder: tuple[float, ...]) -> tuple[float, float]:
    """The values on both sides."""
    place = ladder.index(value)
    return ladder[max(place - 1, 0)], ladder[min(place + 1, len(ladder) - 1)]


def settled(name: str, plain: study.Config, found: dict, strengths: tuple[float, float]) -> dict:
    """With the best rate at its strength, and where that is another, the best strength at this rate."""
    rate = found["rate"]
    found = scan(name, plain, found, "rate", THREES, about(rate, THREES))
    if found["rate"] != rate:
        found = scan(name, plain, found, "one", TENS, strengths)
    return found


def save(name: str, found: dict) -> None:
    study.TUNED[name] = {k: v for k, v in found.items() if k != "score"}
    put(Path(study.__file__).with_suffix(".json"), study.TUNED)


def best_of(options: list[dict]) -> dict:
    return max(options, key=lambda option: option["score"])


def alone(regime: str, name: str, losses: Sequence[str]) -> None:
    """The strength by each loss; PredKD is kept by both, for what comes beside it."""
    plain = study.Config(pretrained=regime == "pretrained", method=name)
    if name == "weighted":
        losses = (study.TUNED[f"{regime}/featkd"]["loss"],)
    options = []
    for loss in losses:
        found = {"loss": loss, "rate": study.TUNED[f"{regime}/base/{loss}"]["rate"]}
        found = scan(f"{regime} {name}", plain, found, "one", TENS, STRENGTHS[name])
        if name == "predkd":
            found = settled(f"{regime} {name}", plain, found, STRENGTHS[name])
            save(f"{regime}/{name}/{loss}", found)
        options.append(found)
    best = best_of(options)
    if name != "predkd":
        best = settled(f"{regime} {name}", plain, best, STRENGTHS[name])
    save(f"{regime}/{name}", best)


def beside(regime: str, name: str) -> None:
    """By each loss, PredKD as it is alone and the strength of a second."""
    plain = study.Config(pretrained=regime == "pretrained", method=f"predkd+{name}")
    options = [
        scan(f"{regime} predkd+{name}", plain, study.TUNED[f"{regime}/predkd/{loss}"], "two", TENS, BESIDE[name])
        for loss in TEACHING
    ]  # fmt: skip
    save(f"{regime}/predkd+{name}", best_of(options))


def slow(regime: str, name: str) -> None:
    """A body slower than the head, at each of two rates of this: with fine-tuning by the own softmax, or PredKD by each loss."""
    plain = study.Config(pretrained=regime == "pretrained", method=name)
    of = ["base/local_ce"] if name == "base" else [f"{name}/{loss}" for loss in TEACHING]
    options = [
        scan(f"{regime} slow {o}", plain, study.TUNED[f"{regime}/{o}"] | {"rate": rate}, "body", SHARES, BODIES)
        for o in of for rate in HEADS
    ]  # fmt: skip
    save(f"{regime}/slow/{name}", best_of(options) | {"method": name})


def fine_tuned(regime: str) -> None:
    plain = study.Config(pretrained=regime == "pretrained")
    for loss in study.LOSSES:
        found = scan(f"{regime} base", plain, {"loss": loss}, "rate", THREES, RATES)
        save(f"{regime}/base/{loss}", found)


def transformer(name: str) -> None:
    plain = study.Config(network="vit", pretrained=True)
    found = {"loss": "local_ce", "learns": {"l2": "attention", "full": "all", "head": "head"}.get(name, "prompts"),
             "method": name if name in ("l2", "l2p", "dual") else "base", "one": {"l2p": 0.5, "dual": 1.0}.get(name, 0.0)}  # fmt: skip
    if name == "l2":
        found = scan("vit l2", plain, found | {"rate": 1e-2}, "one", TENS, STRENGTHS["l2"])
        found = settled("vit l2", plain, found, STRENGTHS["l2"])
    else:
        found = scan(f"vit {name}", plain, found, "rate", THREES, VIT_RATES[name])
    save(f"vit/{name}", found)


def main() -> None:
    parts = [
        "base", "predkd", "slow/base", "slow/predkd", "l2", "ewc", "featkd", "predkd+l2", "predkd+ewc", "predkd+featkd", "weighted",
        *(f"vit/{n}" for n in ("l2", "full", "head", "dual", "l2p")),
    ]  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--regimes", nargs="*", default=study.REGIMES, choices=study.REGIMES)
    parser.add_argument("--losses", nargs="*", default=TEACHING, choices=TEACHING)
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in parts]:
        parser.error(f"there is no part {unknown[0]!r}, only {', '.join(parts)}")
    for part in (p for p in parts if p in given.parts):
        if part.startswith("vit/"):
            transformer(part.removeprefix("vit/"))
            continue
        for regime in given.regimes:
            if part == "base":
                fine_tuned(regime)
            elif part.startswith("slow/"):
                slow(regime, part.removeprefix("slow/"))
            elif "+" in part:
                beside(regime, part.removeprefix("predkd+"))
            elif part != "weighted" or regime == "pretrained":
                alone(regime, part, TEACHING if part == "predkd" else given.losses)


if __name__ == "__main__":
    main()
