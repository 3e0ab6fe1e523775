"""Challenging common assumptions about catastrophic forgetting and knowledge accumulation: SCoLe.

Lesort, Ostapenko, Misra, Arefin, Rodriguez, Charlin, Rish (CoLLAs 2023, arXiv 2207.04543).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.dataset import Dataset
from latebloom.core.memory import CLASS_BALANCED
from latebloom.core.stream import Stream, by_plan, drawn
from latebloom.data import Images, load, load_scaled, noisy, occluded, scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Traces, log, slope
from latebloom.methods.forgetting import knowledge, recurring
from latebloom.methods.forgetting.continual import Head, Replay
from latebloom.methods.forgetting.knowledge import (
    kept_after,
    late,
    left,
    rarest,
    rise,
    settings,
    taken,
)
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.recurring import ByFrequency, Recurring, Relabelled
from latebloom.methods.forgetting.replay import ER
from latebloom.nn import MLP, LeNet, UnitMLP

Kind = Literal[
    "random", "iid", "disjoint", "repeated", "vanishing", "periods", "cycled", "coupled", "reduced"
]


@dataclass(frozen=True)
class Config:
    """- `kind` of stream: classes drawn at "random", by weights that fall with `decrease`; all classes in every task
      ("iid"); groups of classes one after the other ("disjoint"), or in turn over and over ("repeated"); "vanishing", "periods",
      "cycled", "coupled", "reduced" as in `recurring`, of a strength of `amount`.
    - `count` classes in each of `tasks` tasks, of `steps` updates.
    - `mask`: only the classes of a batch compete. `rule`: the optimiser, at `rate`.
    - `replay`: of rare classes by "frequency", or of as many at "random"; "er" replays from a memory of 200.
    - `relabelled`: each task permutes the labels. `corrupted`: each task has its own corruption of the images.
    """

    kind: Kind = "random"
    mask: bool = False
    rule: Literal["sgd", "momentum", "adam"] = "sgd"
    rate: float = 0.1
    decrease: float = 0.0
    amount: float = 0.0
    replay: Literal["", "frequency", "random", "er"] = ""
    relabelled: bool = False
    corrupted: bool = False
    fresh: bool = False
    net: Literal["mlp", "unit", "conv"] = "mlp"
    width: int = 50
    layers: int = 2
    tasks: int = 500
    count: int = 2
    steps: int = 50
    batch: int = 32
    data: str = "mnist-5k"
    side: int = 14
    classes: int = 10
    exam: int = 100
    every: int = 4


# Settings in which no stream differs.
OTHERS: dict[str, Any] = {"mask": False, "rule": "sgd", "rate": 0.0, "relabelled": False, "fresh": False, "net": "mlp", "width": 0, "layers": 0, "every": 1}  # fmt: skip


class Streams(eqx.Module):
    """Draws the stream of a config, of its sizes alone, so that arms with other rates share a program."""

    weights: Array
    config: Config = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Stream:
        config, sizes = self.config, (self.config.classes, self.config.tasks, self.config.count)
        train, test = labels(config.data)
        shuffle, key, rows, again, version = jax.random.split(key, 5)
        weights = self.weights
        if config.decrease:
            weights = jax.random.permutation(shuffle, weights, axis=1)
        plan = {
            "iid": lambda: jnp.ones((config.tasks, config.classes), bool),
            "disjoint": lambda: recurring.disjoint(*sizes, stay=config.tasks * config.count // config.classes, key=key),
            "repeated": lambda: recurring.disjoint(*sizes, key=key),
            "cycled": lambda: recurring.cycled(*sizes, random=config.amount, key=key),
            "coupled": lambda: recurring.coupled(*sizes, share=config.amount, key=key),
            "reduced": lambda: recurring.reduced(weights[0], *sizes[1:], by=config.amount, key=key),
        }.get(config.kind, lambda: drawn(weights, config.count, key=key))()  # fmt: skip
        stream = by_plan(
            train, test, plan, key=rows, steps=config.steps, batch_size=config.batch,
            classes=config.classes if config.kind == "iid" else config.count, exam_size=config.exam,
        )  # fmt: skip
        if config.replay in ("frequency", "random"):
            chosen = recurring.frequency_replay(plan, ByFrequency(config.count))
            if config.replay == "random":
                chosen = recurring.random_replay(
                    plan, chosen.sum(axis=1), key=jax.random.fold_in(again, 1)
                )
            stream = recurring.replaying(
                stream, chosen, train, count=config.count, places=1, memory=20, key=again
            )
        if config.corrupted:
            versions = 1 + len(CORRUPTIONS)
            stream = recurring.in_versions(stream, len(train), versions, key=version)
        return stream


@functools.cache
def labels(name: str) -> tuple[np.ndarray, np.ndarray]:
    images = load(name)
    return images.y_train, images.y_test


CORRUPTIONS = (
    *(partial(noisy, fraction=f, seed=1, kind=k) for k in ("salt-and-pepper", "uniform") for f in (0.1, 0.3)),
    *(partial(occluded, fraction=f, seed=2, shape=s) for s in ("disc", "square") for f in (0.1, 0.3)),
)  # fmt: skip


@functools.lru_cache(maxsize=2)
def corrupted(name: str, side: int) -> Dataset:
    """The images as they are and in every corruption, one after the other."""
    plain = load(name)
    x = np.concatenate([plain.x_train, *(change(plain.x_train) for change in CORRUPTIONS)])
    y = np.tile(plain.y_train, 1 + len(CORRUPTIONS))
    every = Images(name, x, y, plain.x_test, plain.y_test, plain.source)
    return scaled(every, side=side, flat=True)


def _network(config: Config, pixels: int, key: PRNGKeyArray) -> eqx.Module:
    if config.net == "conv":
        return LeNet(config.side, config.classes, key=key)
    build = UnitMLP if config.net == "unit" else MLP
    return build(pixels, (config.width,) * config.layers, config.classes, key=key)


def _rule(name: str, learning_rate: Array) -> optax.GradientTransformation:
    rule = {"sgd": optax.sgd, "momentum": partial(optax.sgd, momentum=0.9), "adam": optax.adam}[
        name
    ]
    return optax.chain(optax.clip_by_global_norm(10.0), rule(learning_rate))


def make_process(config: Config) -> Recurring:
    data = load_scaled(config.data, side=config.side, flat=config.net != "conv")
    if config.corrupted:
        data = corrupted(config.data, config.side)
    weights = {
        "vanishing": lambda: recurring.vanishing(config.classes, config.tasks),
        "periods": lambda: recurring.periods(config.classes, config.tasks),
    }.get(config.kind, lambda: np.tile(recurring.frequencies(config.classes, config.decrease), (config.tasks, 1)))()  # fmt: skip
    names = Relabelled.drawn(config.tasks, config.classes, key=jax.random.key(7))
    head: Head = "batch" if config.mask else "all"
    return Recurring(
        model=partial(_network, config, config.side**2), data=data,
        stream=Streams(jnp.asarray(weights, jnp.float32), replace(config, **OTHERS)),
        method=names if config.relabelled else ER(0.5) if config.replay == "er" else Method(),
        replay=Replay(200, config.batch, CLASS_BALANCED) if config.replay == "er" else None,
        optimiser=partial(_rule, config.rule), hyper={"learning_rate": config.rate}, head=head,
        fresh=config.fresh, seeds_by="map" if config.net == "conv" else "vmap",
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """After every few tasks, when the full test set is asked."""
    return np.unique([*range(0, config.tasks + 1, config.every), config.tasks]) * config.steps


# What won on seeds 100 and 101 (benchmarks/scole_tuning.py).
TUNED: dict[str, float] = tuned_beside(__file__)
RULES = ("sgd", "momentum", "adam")
GLYPHS: dict[str, Any] = {"data": "glyphs-100", "classes": 100, "count": 10, "tasks": 1000, "steps": 20, "exam": 30, "width": 100, "layers": 1, "every": 10}  # fmt: skip
DIGITS: dict[str, Any] = {"data": "digits", "side": 8, "exam": 30}
CONV: dict[str, Any] = {"net": "conv", "side": 28, "tasks": 100, "steps": 30, "every": 2}
# As many updates in shorter and in longer tasks.
LENGTHS: dict[str, dict[str, Any]] = {"short": {"tasks": 2500, "steps": 10, "every": 20}, "long": {"tasks": 125, "steps": 200, "every": 1}}  # fmt: skip
WIDTHS = (12, 25, 50, 100, 200)
CELLS: dict[str, Config] = {  # what is tuned
    **{f"{head}{rule}": Config(mask=bool(head), rule=rule) for head in ("", "masked ") for rule in RULES},
    "iid": Config("iid"), "unit": Config(net="unit"), "er": Config(replay="er"), "glyphs": Config(**GLYPHS),
    "masked rare": Config(mask=True, decrease=2.0, **GLYPHS), "conv": Config(**CONV),
    "linear": Config(layers=0), "fresh momentum": Config(rule="momentum", fresh=True),
    **{f"{head}{length}": Config(mask=bool(head), **sizes) for head in ("", "masked ") for length, sizes in LENGTHS.items()},
    **{f"width {w}": Config(width=w) for w in WIDTHS if w != 50},
}  # fmt: skip


def tuned(cell: str, **more: Any) -> Config:
    return replace(CELLS[cell], **({"rate": TUNED.get(cell, 0.1)} | more))


RARE = "masked rare"
ARMS: dict[str, Config] = {
    **{(f"masked-{rule}" if mask else rule): tuned(f"{'masked ' if mask else ''}{rule}")
       for mask in (False, True) for rule in RULES},
    "null": tuned("sgd", relabelled=True),
    "iid": tuned("iid"),
    "disjoint": tuned("sgd", kind="disjoint"),
    "repeated": tuned("sgd", kind="repeated"),
    "vanishing": tuned("sgd", kind="vanishing", every=1),
    "masked-vanishing": tuned("masked sgd", kind="vanishing", every=1),
    "rare": tuned(RARE), "rare-frequency": tuned(RARE, replay="frequency"), "rare-random": tuned(RARE, replay="random"),
    "rare-unmasked": tuned("glyphs", decrease=2.0),
    "momentum-same-rate": tuned("momentum", rate=tuned("sgd").rate),
    **{f"{rule}-0.01": tuned(rule, rate=0.01) for rule in ("sgd", "momentum")},
    "sgd-slow": tuned("sgd", rate=tuned("momentum").rate),
    "adam-1e-3": tuned("adam", rate=1e-3), "adam-1e-4": tuned("adam", rate=1e-4),
    "momentum-fresh": tuned("fresh momentum"),
    **{name: tuned(name) for name in ("glyphs", "conv", "unit", "er", "linear")},
    "digits": tuned("sgd", **DIGITS), "deep": tuned("sgd", layers=4),
    "digits-null": tuned("sgd", relabelled=True, **DIGITS), "glyphs-null": tuned("glyphs", relabelled=True),
    "conv-null": tuned("conv", relabelled=True), "deep-null": tuned("sgd", layers=4, relabelled=True),
    **{f"{name}-null": tuned(name, relabelled=True) for name in ("momentum", "adam", "linear")},
    **{f"width-{w}": tuned(f"width {w}") for w in WIDTHS if w != 50},
    **{f"{head}{length}": tuned(f"{head}{length}".replace("-", " ")) for head in ("", "masked-") for length in LENGTHS},
    "cycled-0": tuned("sgd", kind="cycled", amount=0.0), "cycled-0.5": tuned("sgd", kind="cycled", amount=0.5),
    "coupled": tuned("sgd", kind="coupled", amount=0.5),
    "periods": tuned("sgd", kind="periods"), "reduced": tuned("sgd", kind="reduced", amount=2.0),
    "corrupted": tuned("sgd", corrupted=True), "corrupted-null": tuned("sgd", corrupted=True, relabelled=True),
}  # fmt: skip


def gained(length: str) -> Effect:
    """What masking adds at a length of the tasks."""
    one, other = (f"masked-{length}", length) if length else ("masked-sgd", "sgd")
    return late[one] - late[other]


share = (late - knowledge.chance)["sgd"] / (late - knowledge.chance)["iid"]
meant = knowledge.between(0.01, 0.1)  # where frequency replay looks
POINTS, SHARE, RANK = "percentage points", "share", "Spearman"
LINEAR = "SGD training on linear models accumulates knowledge"
ANY = "DNNs trained with SGD or any standard gradient-based optimization accumulate knowledge"
GATHERS = "despite CF, SGD training accumulates knowledge"
LIMITED = "catastrophic forgetting has a limited effect on DNNs trained with SGD"
IMPROVES = "on long sequences with data sparsely re-occurring, the overall accuracy improves"
SHORT_DROP = "(short, disjoint) setups: CF always leads to a quick and significant drop in performance in past tasks"
STRATEGY = "simple and scalable strategies to increase knowledge accumulation"
FREQUENCIES = "under various data occurrence frequencies"
CONSISTENT = "consistently on various datasets and architectures"
VARIANT = "(a variant of the streams)"
FORGETS = Need(
    taken["sgd"], "> 20", "a task does not take enough from the others for forgetting to matter"
)


def alive(arm: str) -> Need:
    """With outputs that fall back on their biases one of two classes is right, 50 %."""
    return Need(
        knowledge.learned[arm],
        "> 75",
        "the network does not even learn the task at hand: it is dead",
    )


later = partial(thorough, added="after results")
CLAIMS = (
    Claim("C1.rise", "Plain SGD: accuracy on all classes over the last fifth of 500 tasks is more than 15 points above the first twenty tasks",
          IMPROVES, rise["sgd"], "> 15", POINTS, null=rise["null"]),
    Claim("C1.beyond", "And more than 15 points above the tasks by which every class has come", IMPROVES, knowledge.beyond["sgd"], "> 15", POINTS, null=knowledge.beyond["null"]),
    Claim("C1.forgets", "All the same each task takes from the others: its own classes are more than 10 points above them",
          GATHERS, taken["sgd"], "> 10", POINTS, null=knowledge.taken_null["sgd"]),
    Claim("C1.share", "It ends with more than half of what iid training in as many updates knows, above chance", LIMITED, share, "> 0.5", SHARE,
          null=(late - knowledge.chance)["disjoint"] / (late - knowledge.chance)["iid"]),
    Claim("C1.disjoint", "Five disjoint tasks, once, in as many updates: less than a fifth is left of what is not of the last one",
          SHORT_DROP, left["disjoint"], "< 0.2", SHARE, null=left["sgd"]),
    Claim("C1.quick", "And four tasks after a group came last, less than a fifth of it is left", SHORT_DROP, knowledge.soon["disjoint"], "< 0.2", SHARE,
          null=knowledge.soon["sgd"], added="after results"),
    Claim("C1.repeated", "The same five over and over: accuracy is more than 15 points above the first twenty tasks",
          "especially visible when tasks reoccur", rise["repeated"], "> 15", POINTS, null=rise["disjoint"]),
    *(thorough(f"C2.{arm}", f"{what}: accuracy rises by more than 15 points", CONSISTENT, rise[arm], "> 15", POINTS, null=rise[null])
      for arm, what, null in (
          ("digits", "Digits", "digits-null"), ("glyphs", "A hundred glyphs, ten a task, 1,000 tasks", "glyphs-null"),
          ("conv", "The paper's convolutional network, 100 tasks", "conv-null"))),
    later("C2.deep", "Four hidden layers: accuracy rises by more than 15 points", CONSISTENT, rise["deep"], "> 15", POINTS, null=rise["deep-null"]),
    *(later(f"C2.{arm}", f"{what}: accuracy rises by more than 15 points", ANY, rise[arm], "> 15", POINTS, null=rise[f"{arm}-null"])
      for arm, what in (("momentum", "SGD with momentum"), ("adam", "Adam"))),
    later("C2.linear", "A linear model, no network: accuracy rises by more than 15 points", LINEAR, rise["linear"], "> 15", POINTS, null=rise["linear-null"]),
    later("C2.hidden", "Two hidden layers end above it", ANY, late["sgd"] - late["linear"], "> 0", POINTS, needs=(FORGETS,)),
    Claim("C3.mask", "Plain SGD: masking the classes that are not in the batch adds accuracy", STRATEGY,
          late["masked-sgd"] - late["sgd"], "> 0", POINTS, needs=(FORGETS,)),
    Claim("C3.soon", "So it does on average over the whole stream", STRATEGY, knowledge.through["masked-sgd"] - knowledge.through["sgd"], "> 0", POINTS, needs=(FORGETS,)),
    *(thorough(f"C3.mask-{rule}", f"So it does with {what}", STRATEGY, late[f"masked-{rule}"] - late[rule], "> 0", POINTS, needs=(FORGETS,))
      for rule, what in (("momentum", "momentum"), ("adam", "Adam"))),
    Claim("C3.momentum", "Without masking SGD without momentum ends above SGD with momentum, each at its best rate", STRATEGY,
          late["sgd"] - late["momentum"], "> 0", POINTS, needs=(FORGETS,)),
    Claim("C3.adam", "And above Adam", STRATEGY, late["sgd"] - late["adam"], "> 0", POINTS, needs=(FORGETS,)),
    thorough("C3.same-rate", "At the same rate momentum ends lower", STRATEGY, late["sgd"] - late["momentum-same-rate"], "> 0", POINTS,
             needs=(alive("momentum-same-rate"),)),
    later("C3.slow", "So it does at momentum's own best rate", STRATEGY, late["sgd-slow"] - late["momentum"], "> 0", POINTS, needs=(alive("sgd-slow"), alive("momentum"))),
    later("C3.effective", "Where rate / (1 - momentum) is SGD's best rate momentum ends lower", STRATEGY, late["sgd"] - late["momentum-0.01"], "> 0", POINTS,
          needs=(alive("momentum-0.01"),)),
    thorough("C3.authors", "So it does at the authors' rate of 0.01", STRATEGY, late["sgd-0.01"] - late["momentum-0.01"], "> 0", POINTS,
             needs=(alive("momentum-0.01"),), added="after results"),
    thorough("C3.low", "Without masking Adam at 0.0001 ends above Adam at 0.001", "(the authors' settings)",
             late["adam-1e-4"] - late["adam-1e-3"], "> 0", POINTS, needs=(FORGETS,)),
    Claim("C4.rank", "The more often one of a hundred classes comes, the better it is known", FREQUENCIES, knowledge.rank["rare"], "> 0.5", RANK, null=knowledge.rank_null["rare"]),
    Claim("C4.random", "Replay of rare classes is better for the rarest third than replay of as many samples of random classes",
          STRATEGY, rarest["rare-frequency"] - rarest["rare-random"], "> 0", POINTS),
    Claim("C4.none", "And better than none", STRATEGY, rarest["rare-frequency"] - rarest["rare"], "> 0", POINTS),
    Claim("C4.cost", "It costs the most frequent third less than 3 points", STRATEGY, knowledge.commonest["rare-frequency"] - knowledge.commonest["rare"], "> -3", POINTS,
          null=knowledge.commonest["glyphs-null"] - knowledge.commonest["rare"], budget="thorough"),
    Claim("C4.meant", "Of the classes that it is meant for, in 1 to 10 % of the tasks, replay of rare ones is better than of random ones", STRATEGY,
          meant["rare-frequency"] - meant["rare-random"], "> 0", POINTS, added="after results"),
    thorough("C4.unmasked", "Without masking, too, frequency decides", FREQUENCIES, knowledge.rank["rare-unmasked"], "> 0.5", RANK, null=knowledge.rank_null["rare-unmasked"]),
    thorough("C4.needed", "A class that comes in fewer than 5 % of the tasks reaches half of the accuracy of equally frequent classes (10 %)", FREQUENCIES,
             knowledge.needed("rare", "glyphs"), "< 0.05", "share of tasks", null=knowledge.needed("rare", "glyphs", forgetful=True), added="after results"),
    later("C4.needed-unmasked", "So it does without masking", FREQUENCIES, knowledge.needed("rare-unmasked", "glyphs"), "< 0.05", "share of tasks",
          null=knowledge.needed("rare-unmasked", "glyphs", forgetful=True)),
    Claim("C5.kept", "Plain SGD: fifty tasks after half of the classes came last, more than half of their accuracy above chance is left", LIMITED,
          kept_after(0.1)["vanishing"], "> 0.5", SHARE, null=left["disjoint"]),
    Claim("C5.masked", "So it is with masking", LIMITED, kept_after(0.1)["masked-vanishing"], "> 0.5", SHARE, null=left["disjoint"]),
    Claim("C5.half-life", "Masking makes their half-life longer", STRATEGY, log(knowledge.half_life["masked-vanishing"]) - log(knowledge.half_life["vanishing"]), "> 0", "log"),
    Claim("C5.mask", "Fifty tasks on masking has kept a larger share", STRATEGY, kept_after(0.1)["masked-vanishing"] - kept_after(0.1)["vanishing"], "> 0", SHARE,
          added="after results"),
    thorough("C5.end", "With masking they are forgotten all the same: 200 tasks on, less than 0.9 is left", "(what does not come back is forgotten)",
             kept_after(0.4)["masked-vanishing"], "< 0.9", SHARE, null=kept_after(0.4, gone=False)["masked-vanishing"]),
    thorough("C6.width", "Wider networks accumulate more: 12 to 200 units a layer", "(width factor)",
             slope(np.log2(WIDTHS).tolist(), [late["sgd" if w == 50 else f"width-{w}"] for w in WIDTHS]), "> 0", "points a doubling"),
    thorough("S.short", "In 2,500 tasks of a fifth of the length masking adds accuracy, too", STRATEGY, gained("short"), "> 0", POINTS),
    thorough("S.long", "And in 125 tasks of four times the length", STRATEGY, gained("long"), "> 0", POINTS),
    thorough("S.length", "The longer a task, the more masking adds", "(length of a task)",
             slope([math.log2(n) for n in (10, 50, 200)], [gained("short"), gained(""), gained("long")]), "> 0", "points a doubling"),
    thorough("S.order", "The more random the order of the pairs, the lower it ends", VARIANT,
             slope([0, 0.5, 1], [late["cycled-0"], late["cycled-0.5"], late["sgd"]]), "< 0", POINTS),
    thorough("S.couples", "Where half of the pairs never meet it ends less than 10 points lower", VARIANT,
             late["coupled"] - late["sgd"], "> -10", POINTS, null=late["disjoint"] - late["sgd"], added="after results"),
    thorough("S.meet", "So it is where each class meets one other alone (the five tasks in turn)", VARIANT, late["repeated"] - late["sgd"], "> -10", POINTS,
             null=late["disjoint"] - late["sgd"], added="after results"),
    thorough("S.periods", "After a second long period with the other classes less than half is left of those of the first", "(long-range forgetting)",
             kept_after(0.4, gone=False)["periods"], "< 0.5", SHARE, null=kept_after(0.4, gone=False)["vanishing"]),
    thorough("S.reduced", "Odds that are halved whenever a class came, so that classes take turns, raise it", VARIANT, late["reduced"] - late["sgd"], "> 0", POINTS),
    later("S.corrupted", "With another corruption of the images in each task accuracy rises by more than 15 points", VARIANT, rise["corrupted"], "> 15", POINTS, null=rise["corrupted-null"]),
    thorough("S.unit", "Class vectors of length 1 without bias raise it", "(an option of the code)", late["unit"] - late["sgd"], "> 0", POINTS),
    thorough("S.fresh", "Momentum that starts anew in each task raises that with momentum", "(an option of the code)", late["momentum-fresh"] - late["momentum"], "> 0", POINTS),
    thorough("S.replay", "Replay from 200 examples, at twice the cost of a step, ends above plain SGD", "less expensive than existing CL algorithms", late["er"] - late["sgd"], "> 0", POINTS),
)  # fmt: skip


LINES = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "masked-sgd": "SGD, masked", "iid": "iid (bound)",
         "repeated": "five disjoint tasks, repeated", "disjoint": "five disjoint tasks, once"}  # fmt: skip
LOOKS = {arm: pictures.nth_look(k) for k, arm in enumerate(LINES)}
CLOSER = "the same, closer"
REPLAYS = {
    "rare": "no replay",
    "rare-random": "replay of random classes",
    "rare-frequency": "replay of rare classes",
}
ROWS = {
    **LINES, "masked-momentum": "momentum, masked", "masked-adam": "Adam, masked", "momentum-same-rate": "momentum, rate of SGD", "sgd-slow": "SGD, rate of momentum", "sgd-0.01": "SGD at 0.01", "momentum-0.01": "momentum at 0.01",
    "momentum-fresh": "momentum, anew in each task", "adam-1e-3": "Adam at 0.001", "adam-1e-4": "Adam at 0.0001",
    "unit": "unit head", "er": "replay of 200 examples", "deep": "four layers", "linear": "linear model", "corrupted": "corrupted images", "cycled-0": "pairs in a cycle",
    "cycled-0.5": "half random, half cycle", "coupled": "half of the pairs", "reduced": "taking turns", "periods": "two long periods",
    "digits": "digits", "glyphs": "100 glyphs", "conv": "convolutional, 100 tasks", "null": "labels permuted in each task",
}  # fmt: skip


def _line(ax: Axes, trace: xr.Dataset, values: np.ndarray, **look: Any) -> None:
    tasks = trace.step.values / settings(trace)["steps"]
    style.spread(ax, tasks, 100 * values, **look)


@pictures.by_hand(2, width=9, height=4.3, legend=True)
def draw_accumulation(traces: Traces, left: Axes, right: Axes) -> None:
    """Accuracy on all classes against the tasks, and on those of the task just learned and the others."""
    for arm, label in LINES.items():
        if arm in traces:
            band = arm in ("sgd", "masked-sgd")
            _line(left, traces[arm], traces[arm].accuracy.mean("task").values, label=label, band=band, **LOOKS[arm])  # fmt: skip
    if (trace := traces.get("null")) is not None:
        _line(left, trace, trace.accuracy.mean("task").values, colour=style.INK, linestyle=":", label="SGD, labels permuted in each task")  # fmt: skip
    if (trace := traces.get("sgd")) is not None:
        here = trace.present > 0
        _line(right, trace, trace.accuracy.where(here).mean("task").values, colour=style.INK, linestyle="-.", label="of the task just learned")  # fmt: skip
        _line(right, trace, trace.accuracy.where(~here).mean("task").values, colour=style.INK, linestyle="--", label="all others")  # fmt: skip
    left.set(title="all classes", ylabel="accuracy on the full test set in %")
    right.set(title="SGD, by class")
    for ax in (left, right):
        ax.set(xlabel="tasks", ylim=(0, 102))


@pictures.by_hand(2, width=8.4, height=3.8, legend=True)
def draw_vanishing(traces: Traces, left: Axes, right: Axes) -> None:
    for ax, before, after in ((left, 100, 250), (right, 4, 16)):
        for arm, label, place in (("vanishing", "SGD", 0), ("masked-vanishing", "SGD, masked", 3)):
            if arm in traces:
                knowledge.draw_parting(ax, traces[arm], before, after, label, style.colours[place])
        ax.axvline(0, color=style.INK, linewidth=0.8)
        ax.set(xlabel="tasks since half of the classes came last", ylim=(0, 102))
    left.set(ylabel="accuracy in %")


@pictures.by_hand(2, width=9, height=3.8, legend=True)
def draw_frequency(traces: Traces, left: Axes, right: Axes) -> None:
    heads = {"rare-unmasked": "not masked", "rare": "masked"}
    for ax, arms in ((left, heads), (right, REPLAYS)):
        for place, (arm, label) in enumerate(arms.items()):
            if arm in traces:
                look: dict[str, Any] = {
                    "color": style.colours[place if ax is right else 4 + place],
                    "marker": "os^"[place],
                }
                knowledge.draw_by_frequency(ax, traces[arm], label, dots=ax is left, **look)  # fmt: skip
        ax.set(xscale="log", xlabel="share of the tasks that have the class", ylim=(0, 102))
        pictures.plain_ticks(ax, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3))
    left.set(ylabel="accuracy on the class in %")
    for bound in (0.01, 0.1):
        right.axvline(bound, color=style.INK, linewidth=0.7, linestyle=":")


SMOKE = {"data": "digits", "side": 8, "classes": 10, "count": 2, "tasks": 40, "steps": 2, "batch": 16, "width": 8, "exam": 20, "every": 4}  # fmt: skip


def paper_scale(config: Config) -> dict[str, Any]:
    """Of an arm on MNIST-5k: tasks of 188 batches of 64, or as much shorter and longer, and layers twice as wide."""
    length, width = 188 * config.steps // 50, 2 * config.width
    return {
        "data": "fashion-mnist",
        "side": 28,
        "steps": length,
        "batch": 64,
        "exam": 1000,
        "width": width,
    }


study = Study(
    paper=Paper(
        "scole",
        "Challenging Common Assumptions about Catastrophic Forgetting and Knowledge Accumulation",
        "Timothée Lesort, Oleksiy Ostapenko, Diganta Misra, Md Rifat Arefin, Pau Rodríguez, Laurent Charlin, Irina Rish",
        "Conference on Lifelong Learning Agents", 2023, "2207.04543", "TLESORT/SCoLe-SCaling-Continual-Learning",
    ),
    family="forgetting",
    question="Does plain gradient descent gather knowledge over a long stream in which classes come back?",
    symptoms=(
        "data arrive in bursts of a few categories that recur",
        "will fine-tuning converge in the long run, or is replay needed",
        "rare classes are forgotten, frequent ones are not",
        "momentum or Adam makes forgetting worse",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("sgd", "masked-sgd", "null", "vanishing", "masked-vanishing", "rare", "rare-frequency", "rare-random"), SMOKE),
        "quick": Budget(5),
        "thorough": Budget(5),
        "full": Budget(5, settings={}, arm_settings={arm: paper_scale(c) for arm, c in ARMS.items() if c.data == "mnist-5k" and c.net != "conv"}),
    },
    claims=CLAIMS,
    figures=(
        Figure("accumulation", "Accuracy on the full test set over 500 tasks of two digits each; lines are means, bands (of SGD, masked and not) "
               "go from the lowest to the highest seed. Right: plain SGD, on the two classes of the task just learned and on the other eight.",
               draw_accumulation, ("sgd",)),
        Figure("vanishing", "After 250 tasks half of the classes come no more. Left the whole course, right the first tasks. Bands: lowest to highest seed.",
               draw_vanishing, ("vanishing",)),
        Figure("frequency", "A hundred glyphs, ten a task, some a hundred times as often as others. Accuracy by the share of tasks that had the class: dots are classes "
               "of all seeds, lines means of ten groups. Right: with replay of as many samples, of rare classes (between the dotted lines) or any.",
               draw_frequency, ("rare",)),
        Figure("arms", "Accuracy over the last fifth of the tasks; dots are seeds, bars means.",
               pictures.dots({title: {label: late[arm] for arm, label in ROWS.items()} for title in ("accuracy on the full test set in %", CLOSER)},
                             own={CLOSER: {"xlim": (80, 98)}}), ("sgd",)),
        Figure("scales", "Accuracy by the width of a layer, and by the length of a task at as many updates in all.",
               pictures.trend(
                   ("units a layer", {"SGD": (WIDTHS, [late["sgd" if w == 50 else f"width-{w}"] for w in WIDTHS])}),
                   ("updates a task", {"SGD": ((10, 50, 200), [late[a] for a in ("short", "sgd", "long")]),
                                       "SGD, masked": ((10, 50, 200), [late[f"masked-{a}"] for a in ("short", "sgd", "long")])}),
                   ylabel="accuracy in %", xscale="log", own={"units a layer": {"ticks": WIDTHS}, "updates a task": {"ticks": (10, 50, 200)}}),
               ("width-100",)),
    ),
    data="MNIST-5k at 14 x 14; digits; glyphs-100",
    notes="500 tasks of two of ten digits, 50 updates of 32 examples each (two passes over the pair's 800 images; the paper makes one over "
    "12,000), an MLP of two layers of 50 units, the gradient's norm clipped at 10 as in the authors' code, the optimiser's state "
    "kept. Learning rates are the best on two other seeds for each optimiser, head, width and length of a task; digits, four layers and other "
    "streams have those of the plain stream. The paper's network at 28 x 28 has 100 tasks. Replay keeps 20 examples a class and gives each replayed class one place of 32 "
    "in every batch. Full: Fashion-MNIST at 28 x 28, one pass over a pair in batches of 64.",
    watch="accuracy",
)  # fmt: skip
