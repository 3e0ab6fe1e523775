"""Continual few-shot learning with many classes, and of instances: tuning, replay, prototypes, and simpler things.

Kowadlo, Ahmed, Mayan, Rawlinson (PLOS ONE 2024, arXiv 2209.07863).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.data import glyphs, load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Traces, final, mean, spearman
from latebloom.methods.forgetting import examined
from latebloom.methods.forgetting.corrupted import KINDS, NOISES, OCCLUSIONS
from latebloom.methods.forgetting.episodes import Design, Shelf, by_class
from latebloom.methods.forgetting.examined import (
    above_chance,
    by_lot,
    corrupted_at,
    drop,
    leak,
    lost_share,
    recency,
    trend_by_lot,
)
from latebloom.methods.forgetting.exams import FRACTIONS, Cell, Exams, Plan
from latebloom.nn import StageNet

LABELS = ("1x20", "2x10", "4x5", "10x2", "20x1")  # sets x images of each, at constant total
SEVERAL = LABELS[2:4]  # where tuning is set, and what headline claims of replay are about
TESTS = ("class", "instance")
REAL = ("mnist-5k", "digits")


@dataclass(frozen=True)
class Config:
    """- `pretraining`: a classifier, prototypes by "dot" or "euclidean" distance, none; or a classifier "seen" that
      had the test classes as well. `steps` of it, in batches of `batch`.
    - `suite`: which cells are examined; `episodes` of each.
    - `arrangements`: (sets, images of each), named `LABELS`; `total` inner steps of an episode, equal for all.
    - `course`: a long episode of so many sets of `way` new classes, `inner` steps on each, examined on all classes
      so far after the sets numbered in `checks`.
    - `replayed` images in each step from the last `memory` sets; `released` steps a set with replay, as
      in the authors' configurations, which give 5 without; of these every third episode is run.
    - `classes` made-up characters with `instances` drawings each, `side` pixels wide.
    """

    pretraining: Literal["classes", "dot", "euclidean", "none", "seen"] = "classes"
    suite: Literal["headline", "simple", "scratch", "sweeps", "seen"] = "headline"
    steps: int = 400
    batch: int = 64
    episodes: int = 12
    arrangements: tuple[tuple[int, int], ...] = ((1, 20), (2, 10), (4, 5), (10, 2), (20, 1))
    total: int = 40
    course: int = 20
    checks: tuple[int, ...] = (1, 2, 5, 10, 20)
    way: int = 10
    inner: int = 10
    replayed: int = 4
    memory: int = 10
    released: int = 120
    classes: int = 1623
    instances: int = 20
    side: int = 14
    filters: int = 16
    part: Literal["test", "validation"] = "test"
    rates: tuple[float, ...] = ()  # tuning: each cell at each of them instead of its own
    metric: Literal["dot", "euclidean"] = "dot"  # of the prototypes of a simple suite


# What won on seeds 100 and 101 (benchmarks/continual_few_shot_instances_tuning.py).
TUNED: dict[str, float] = tuned_beside(__file__)


def design_of(config: Config, test: str, label: str) -> Design:
    sets, images = config.arrangements[LABELS.index(label)]
    return Design(sets, images) if test == "class" else Design.instances(sets, images)


def cell(config: Config, test: str, label: str, how: str, **more: Any) -> Cell:
    design = design_of(config, test, label)
    replays = {"memory": config.memory, "replayed": config.replayed} if how in ("replay", "own") else {}  # fmt: skip
    steps = {"steps": max(1, config.total // design.sets), "rate": f"{test}/{label}/{how}"}
    return Cell(design, how, **{**replays, **steps, **more})


def sequence(config: Config, how: str) -> Cell:
    """The long episode, learned in one way."""
    replayed = config.replayed if how == "replay" else 0
    return Cell(Design(config.course, config.way), how, config.inner, f"course/{how}", config.memory, replayed)  # fmt: skip


def cells_of(config: Config) -> dict[str, Cell]:
    """Every cell of a suite by its name: test/arrangement/way of learning."""
    one = partial(cell, config)
    if config.suite == "headline":
        found = {f"{t}/{a}/tune": one(t, a, "tune") for t in TESTS for a in LABELS}
        found |= {f"{t}/{a}/{how}": one(t, a, how) for t in TESTS for a in SEVERAL for how in ("replay", "own")}  # fmt: skip
        return found | {f"{t}/{a}/{how}": one(t, a, how) for t in TESTS for a in SEVERAL for how in ("nearest", "logistic", "pixels")}  # fmt: skip
    if config.suite == "scratch":
        return {f"class/{a}/tune": one("class", a, "tune", rate=f"class/{a}/scratch") for a in (LABELS[0], *SEVERAL)}  # fmt: skip
    if config.suite == "simple":
        return {f"{t}/{a}/prototypes": one(t, a, config.metric) for t in TESTS for a in SEVERAL}
    if config.suite == "seen":
        return {f"class/{a}/tune": one("class", a, "tune") for a in SEVERAL}
    ten, four, found = "10x2", "4x5", {}
    for t in TESTS:
        more = {"steps": config.released, "episodes": 3, "rate": "released"}
        found[f"{t}/{ten}/five"] = one(t, ten, "tune", steps=5, rate="released", episodes=3)
        found[f"{t}/{ten}/many"] = one(t, ten, "tune", **more)
        found[f"{t}/{ten}/many-replay"] = one(t, ten, "replay", **more)
        found |= {f"{t}/{ten}/memory-{n}": one(t, ten, "replay", memory=n) for n in (1, 2, 4, 9)}
        found |= {f"{t}/{ten}/replayed-{n}": one(t, ten, "replay", replayed=n) for n in (8,)}
    sets, images = config.arrangements[2]
    found[f"class/{four}/forwards"] = one("class", four, "tune")
    found[f"class/{four}/backwards"] = one("class", four, "tune", backwards=True)
    found[f"class/{four}/overwrite"] = replace(
        one("class", four, "tune"), design=Design(sets, images, overwrite=True)
    )
    for label, k in (("1x20", 4), ("4x5", 1)):  # 5 classes, 4 images of each in all
        sets, images = config.arrangements[LABELS.index(label)]
        design = Design(sets, max(1, images // k), k, sets)
        found[f"shots/{label}/tune"] = Cell(design, "tune", max(1, config.total // sets), f"class/{label}/tune")  # fmt: skip
    for data in REAL:
        found |= {f"{data}/{a}/{how}": one("instance", a, how, images=data) for a in SEVERAL for how in ("tune", "replay", "own", "pixels")}  # fmt: skip
    return found


ONCE = "instance/1x20/tune"
LEAKING = ("class/4x5/tune", "class/4x5/prototypes")
ORDERED = ("class/4x5/tune", "class/4x5/prototypes")
COURSES = {"headline": ("tune", "nearest", "pixels"), "simple": ("prototypes",), "sweeps": ("replay",)}  # fmt: skip
ROBUST = ("tune", "replay", "own", "prototypes", "nearest", "pixels")


def plan_of(config: Config) -> Plan:
    cells = cells_of(config)
    names, course = [], []
    if config.suite not in ("scratch", "seen"):
        names = [n for n, c in cells.items() if n == ONCE or (n.startswith("instance/10x2/") and n.split("/")[-1] in ROBUST)]  # fmt: skip
    for how in COURSES.get(config.suite, ()):
        course.append((how, sequence(config, config.metric if how == "prototypes" else how)))
    return Plan(
        tuple(cells.items()), config.episodes, tuple(course), config.checks, tuple(names),
        tuple(n for n in LEAKING if n in cells and names), tuple(n for n in ORDERED if n in cells and names),
        config.part, config.rates,
    )  # fmt: skip


@functools.cache
def data_of(classes: int, instances: int, side: int, more: bool) -> tuple[np.ndarray, Shelf, dict[str, Shelf]]:  # fmt: skip
    """Glyphs as [n, side, side, 1] in classes, and after them other images with their shelves."""
    drawn = glyphs(classes, instances, seed=0, size=side).reshape(-1, side, side, 1)
    images, shelves = [drawn.astype(np.float32) / 255], {}
    for name in ("mnist-5k", "digits") if more else ():
        data = load_scaled(name, side=14 if name == "mnist-5k" else 8, flat=False)
        x = np.asarray(data.x_test).reshape(len(data.x_test), *data.x_test.shape[1:3], 1)
        x = np.asarray(jax.image.resize(jnp.asarray(x), (len(x), side, side, 1), "linear"))
        first, shelf = sum(map(len, images)), by_class(data.y_test)  # pyright: ignore
        shelves[name] = Shelf(jnp.where(shelf.rows >= 0, shelf.rows + first, -1))
        images.append(x.astype(np.float32))  # pyright: ignore
    return np.concatenate(images), by_class(np.repeat(np.arange(classes), instances)), shelves


def _body(side: int, filters: int, key: PRNGKeyArray) -> StageNet:
    return StageNet((side, side), filters=filters, key=key)


def make_process(config: Config) -> Exams:
    images, shelf, shelves = data_of(config.classes, config.instances, config.side, config.suite == "sweeps")  # fmt: skip
    episodic = config.pretraining in ("dot", "euclidean")
    metric: Any = config.pretraining if episodic else "dot"
    ways = max(2, config.batch // 3)  # an image to learn from and two targets for each class
    return Exams(
        partial(_body, config.side, config.filters), jnp.asarray(images), shelf, "prototypes" if episodic else "classes",
        metric, Design(1, ways, queries=2), config.batch, config.steps, TUNED[f"pretraining/{config.pretraining}"],
        seen=config.pretraining == "seen", plan=plan_of(config), shelves=shelves,
        rates={name: jnp.float32(rate) for name, rate in TUNED.items() if "pretraining" not in name},
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """When pretraining is over, or before it starts."""
    return np.array([0 if config.pretraining == "none" else config.steps])


ARMS: dict[str, Config] = {
    "pretrained": Config(),
    "dot": Config("dot", "simple"),
    "euclidean": Config("euclidean", "simple", metric="euclidean"),
    "scratch": Config("none", "scratch"),
    "untrained": Config("none", "simple"),
    "sweeps": Config(suite="sweeps"),
    "seen": Config("seen", "seen"),
}


accuracy = partial(examined.accuracy, arm="pretrained")


def over(test: str, how: str, arm: str = "pretrained", labels: Iterable[str] = SEVERAL) -> Effect:
    """Mean over arrangements."""
    return mean(accuracy(f"{test}/{label}/{how}", arm=arm) for label in labels)


def gain(test: str, how: str = "replay", less: str = "own") -> Effect:
    return over(test, how) - over(test, less)


CHANCE = 5.0  # per cent of 20 labels
LAST = 17.5  # of four sets of five and ten sets of two, where the last set alone is known, and all of it


def along(how: str, arm: str = "pretrained") -> list[Effect]:
    """Accuracy above chance along the long sequence, after each check."""
    return above_chance(how, arm, [n * Config().way for n in Config().checks])


def arranged(test: str, by_lot: bool = False) -> Effect:
    return examined.spread([f"{test}/{a}/tune" for a in LABELS], "pretrained", by_lot=by_lot)


def asked(how: str) -> tuple[str, str]:
    """The cell of corrupted targets of a way of learning, and its arm."""
    return f"instance/10x2/{how}", "pretrained"


def released(test: str, how: str) -> Effect:
    return accuracy(f"{test}/10x2/{how}", arm="sweeps")


HARDER = "learning more classes is more difficult than the original CFSL experiments"
WAY = (
    "the way in which image instances and classes are presented affects classification performance"
)
COMPARABLE = "accuracy in the baseline instance test is comparable to other classification tasks"
POOR = "but poor given significant occlusion and noise"
REPLAY = "The use of replay for consolidation substantially improves performance for both types of tasks, but particularly for the instance test"
BEST, OWN = "ProtoNets typically perform best (summary)", "(not in the paper)"
POINTS = "percentage points"
LEARNED = Need(over("class", "tune") - CHANCE, "> 5", "tuning learned no more than chance")
HIGH = Need(  # after results: without it both claims would be contradicted by what they cannot reach
    corrupted_at(*asked("tune"), KINDS, 0.0) - CHANCE, "> 20", "whole targets are known too seldom above chance to lose 20 points"
)  # fmt: skip
ROOM = Need(over("instance", "own"), "< 90", "without replay the instance test is solved already")
CLAIMS = (
    Claim("C1.monotone", "Along a sequence to 200 classes the accuracy of Pretrain+Tune above chance falls: rank correlation with the number of classes",
          HARDER, spearman(Config().checks, along("tune")), "< -0.9", null=trend_by_lot(along("tune"), "pretrained")),
    Claim("C1.more", "It is higher at 10 classes than at 200, chance taken off", HARDER, along("tune")[0] - along("tune")[-1], "> 0.1", null=by_lot(along("tune"), "pretrained")[0] - by_lot(along("tune"), "pretrained")[-1]),
    Claim("C1.prototypes", "So is that of prototypes by dot product, which forget nothing", HARDER,
          along("prototypes", "dot")[0] - along("prototypes", "dot")[-1], "> 0.1", null=along("prototypes", "untrained")[0] - along("prototypes", "untrained")[-1]),
    Claim("C2.class", "Class test: twenty images at equal steps, the best arrangement less the worst", WAY, arranged("class"), "> 5", POINTS, null=arranged("class", by_lot=True), needs=(LEARNED,)),
    Claim("C2.instance", "The same in the instance test", WAY, arranged("instance"), "> 5", POINTS, null=arranged("instance", by_lot=True)),
    Claim("C3.comparable", "Clean instance accuracy of Pretrain+Tune is at most ten points below its class accuracy", COMPARABLE,
          over("instance", "tune") - over("class", "tune"), "> -10", POINTS, null=LAST - over("class", "tune"), needs=(LEARNED,)),
    Claim("C3.comparable-once", "So it is where all twenty images come as one set and nothing can be forgotten", COMPARABLE,
          accuracy("instance/1x20/tune") - accuracy("class/1x20/tune"), "> -10", POINTS, null=CHANCE - accuracy("class/1x20/tune"), added="after results"),
    Claim("C3.occlusion", "Half of the image hidden: it drops by 20 points or more", POOR, drop(*asked("tune"), OCCLUSIONS), "> 20", POINTS,
          null=drop(*asked("tune"), OCCLUSIONS, 0.1), needs=(HIGH,), added="after results"),
    Claim("C3.noise", "Half of the pixels replaced: so it does", POOR, drop(*asked("tune"), NOISES), "> 20", POINTS, null=drop(*asked("tune"), NOISES, 0.1),
          needs=(HIGH,), added="after results"),
    *(Claim(f"C3.{word}-once", f"Where all twenty images come as one set, {what} costs Pretrain+Tune more than 20 points", POOR, drop(ONCE, "pretrained", kinds), "> 20", POINTS,
            null=drop(*asked("pixels"), kinds), added="after results")
      for word, what, kinds in (("occlusion", "half of the image hidden", OCCLUSIONS), ("noise", "half of the pixels replaced", NOISES))),
    *(Claim(f"C3.{word}-replay", f"With replay, which knows whole targets well, {what} costs more than 20 points", POOR, drop(*asked("replay"), kinds), "> 20", POINTS,
            null=drop(*asked("pixels"), kinds), added="after results")
      for word, what, kinds in (("occlusion", "half of the image hidden", OCCLUSIONS), ("noise", "half of the pixels replaced", NOISES))),
    *(Claim(f"C3.{word}-pixels", f"{what} costs Pretrain+Tune a larger share of what it knew above chance than a nearest neighbour in pixels", OWN,
            lost_share(*asked("tune"), kinds, CHANCE) - lost_share(*asked("pixels"), kinds, CHANCE), "> 0", "1", added="after results")
      for word, what, kinds in (("occlusion", "Half of the image hidden", OCCLUSIONS), ("noise", "Half of the pixels replaced", NOISES))),
    Claim("C4.class", "Replay beats as many steps on as many images of the set itself, class test", REPLAY, gain("class"), "> 0", POINTS,
          null=gain("class", "own", "tune"), needs=(LEARNED,)),
    Claim("C4.instance", "The same, instance test", REPLAY, gain("instance"), "> 0", POINTS, null=gain("instance", "own", "tune"), needs=(ROOM,)),
    Claim("C4.interaction", "Replay gains more in the instance test", REPLAY, gain("instance") - gain("class"), "> 0", POINTS,
          null=gain("instance", "own", "tune") - gain("class", "own", "tune"), needs=(ROOM,)),
    Claim("C4.robust", "With half of the image hidden or of the pixels replaced replay still gains in the instance test", REPLAY,
          corrupted_at(*asked("replay"), KINDS, 0.5) - corrupted_at(*asked("own"), KINDS, 0.5), "> 0", POINTS),
    *(Claim(f"C5.{arm}", f"Prototypes by {word} beat Pretrain+Tune with replay in the class test", BEST,
            over("class", "prototypes", arm) - over("class", "replay"), "> 0", POINTS, null=over("class", "prototypes", "untrained") - over("class", "replay"))
      for arm, word in (("dot", "dot product, as released,"), ("euclidean", "Euclid's distance"))),
    Claim("C5.instance", "Prototypes by dot product beat Pretrain+Tune with replay in the clean instance test", BEST,
          over("instance", "prototypes", "dot") - over("instance", "replay"), "> 0", POINTS, null=over("instance", "prototypes", "untrained") - over("instance", "replay")),
    Claim("B.nearest", "In the class test prototypes by dot product beat nearest neighbours in the frozen features of the classifier", OWN,
          over("class", "prototypes", "dot") - over("class", "nearest"), "> 0", POINTS),
    Claim("B.replay", "Tuning with replay beats nearest neighbours in the frozen features that it starts from, class test", OWN,
          over("class", "replay") - over("class", "nearest"), "> 0", POINTS),
    Claim("B.logistic", "And logistic regression on all of those features at once", OWN, over("class", "replay") - over("class", "logistic"), "> 0", POINTS),
    Claim("B.memoriser", "In the clean instance test a nearest neighbour in pixels is always right", "(pitfall: the targets are the training images)",
          over("instance", "pixels"), "> 99.5", "%", null=over("class", "pixels")),
    Claim("B.scratch", "Pretraining helps tuning in the class test, where all but the last set is forgotten", "(tune from scratch)", over("class", "tune") - over("class", "tune", "scratch"), "> 0", POINTS),
    Claim("B.scratch-once", "So it does where all twenty classes come as one set and nothing is forgotten", "(tune from scratch)",
          accuracy("class/1x20/tune") - accuracy("class/1x20/tune", arm="scratch"), "> 0", POINTS, added="after results"),
    Claim("P.euclidean", "Euclid's distance beats the dot product, each trained with its own", OWN,
          over("class", "prototypes", "euclidean") - over("class", "prototypes", "dot"), "> 0", POINTS),
    Claim("T.batch", "Statistics of the whole target batch give prototypes by dot product more than running ones", "(pitfall: transductive)",
          leak("class/4x5/prototypes", "dot", "running"), "> 0", POINTS),
    Claim("T.alone", "Targets of one class as a batch cost them more than ten points: an answer depends on its neighbours", "(pitfall: transductive)",
          leak("class/4x5/prototypes", "dot", "alone"), "> 10", POINTS, null=leak("class/4x5/prototypes", "dot", "running")),
    Claim("T.tune", "So they cost Pretrain+Tune", "(pitfall: transductive)", leak("class/4x5/tune", "pretrained", "alone"), "> 10", POINTS, null=leak("class/4x5/tune", "pretrained", "running")),
    Claim("O.recency", "Pretrain+Tune knows the classes of the last support set better than those of the first", "(order of support sets)",
          recency("class/4x5/tune", "pretrained", 3), "> 10", POINTS, null=recency("class/4x5/prototypes", "dot", 3)),
    thorough("O.backwards", "With the sets in reverse order as much is known in all, to within five points", "(order of support sets)",
             abs(accuracy("class/4x5/backwards", arm="sweeps") - accuracy("class/4x5/forwards", arm="sweeps")), "< 5", POINTS,
             null=abs(recency("class/4x5/tune", "pretrained", 3)), needs=(Need(accuracy("class/4x5/forwards", arm="sweeps") - CHANCE, "> 5", "tuning learned no more than chance"),)),
    *(thorough(f"R.{t}", f"As released, replay at 120 steps a set against none at 5, {t} test", REPLAY, released(t, "many-replay") - released(t, "five"), "> 0", POINTS,
               null=released(t, "many") - released(t, "five")) for t in TESTS),
    *(thorough(f"R.{t}-equal", f"At 120 steps both and the released rate, {t} test", REPLAY, released(t, "many-replay") - released(t, "many"), "> 0", POINTS) for t in TESTS),
    *(thorough(f"M.{t}", f"A memory of nine sets beats one of one, {t} test", "(buffer of 1 to 10 sets)", released(t, "memory-9") - released(t, "memory-1"), "> 0", POINTS) for t in TESTS),
    *(thorough(f"M.{t}-images", f"Eight replayed images a step beat four, {t} test", "(2 to 8 samples)", released(t, "replayed-8") - released(t, "memory-9"), "> 0", POINTS) for t in TESTS),
    thorough("M.course", "At 200 classes replay beats none", REPLAY, 100 * (final("course", how="replay", check=4)["sweeps"] - final("course", how="tune", check=4)["pretrained"]), "> 0", POINTS),
    thorough("S.shots", "Five classes, four images of each: all at once beats one image of each in four sets", WAY,
             accuracy("shots/1x20/tune", arm="sweeps") - accuracy("shots/4x5/tune", arm="sweeps"), "> 0", POINTS),
    thorough("S.overwrite", "Labels used again leave less above chance than labels of their own", "(overwritten labels)",
             (accuracy("class/4x5/forwards", arm="sweeps") - CHANCE) / 95 - (accuracy("class/4x5/overwrite", arm="sweeps") - 20) / 80, "> 0", "1"),
    thorough("S.seen", "Pretraining that saw the test classes raises the accuracy of tuning: classes must be disjoint", "(disjoint classes)",
             over("class", "tune", "seen") - over("class", "tune"), "> 0", POINTS),
    *(thorough(f"D.{d}", f"Replay gains in the instance test of {d}", REPLAY, over(d, "replay", "sweeps") - over(d, "own", "sweeps"), "> 0", POINTS,
               null=over(d, "own", "sweeps") - over(d, "tune", "sweeps")) for d in REAL),
)  # fmt: skip


WAYS = {  # label: arm, way of learning
    "tuned": ("pretrained", "tune"), "tuned, more of the set itself": ("pretrained", "own"), "tuned with replay": ("pretrained", "replay"),
    "prototypes, dot product": ("dot", "prototypes"), "prototypes, Euclid": ("euclidean", "prototypes"),
    "nearest, frozen features": ("pretrained", "nearest"), "nearest, pixels": ("pretrained", "pixels"),
}  # fmt: skip
LOOKS = {label: {"color": style.colours[i % len(style.colours)], "marker": "osvD^Px"[i], "linestyle": ("-", "--", "-.")[i % 3]} for i, label in enumerate(WAYS)}  # fmt: skip


def _line(ax: Axes, x: Sequence[float], values: np.ndarray, label: str) -> None:
    """Mean over seeds [seed, x] with a band from the lowest to the highest."""
    look = LOOKS[label]
    ax.plot(x, values.mean(axis=0), label=label, markersize=4, linewidth=1.4, **look)  # pyright: ignore
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.15, linewidth=0)  # fmt: skip


@pictures.by_hand(2, width=9, height=3.7, legend=True)
def draw_course(traces: Traces, left: Axes, right: Axes) -> None:
    for label, (arm, how) in WAYS.items():
        arm = "sweeps" if how == "replay" else arm
        if arm not in traces or "course" not in traces[arm] or how not in traces[arm].how:
            continue
        trace = traces[arm]
        config = json.loads(trace.attrs["config"])
        n = config["way"] * np.array(config["checks"])
        values = trace.course.sel(how=how).isel(step=-1).values
        _line(left, n, 100 * values, label)
        _line(right, n, 100 * (values - 1 / n) / (1 - 1 / n), label)
    left.set(xscale="log", xlabel="classes learned", ylabel="accuracy on all of them in %", ylim=(0, 102))  # fmt: skip
    right.set(xscale="log", xlabel="classes learned", ylabel="of what is possible above chance, in %", ylim=(0, 102))  # fmt: skip
    for ax in (left, right):
        pictures.plain_ticks(ax, (10, 20, 50, 100, 200))


@pictures.by_hand(2, width=9, height=3.7, sharey=True, legend=True)
def draw_arrangements(traces: Traces, left: Axes, right: Axes) -> None:
    for ax, test in ((left, "class"), (right, "instance")):
        for label, (arm, how) in WAYS.items():
            if arm not in traces:
                continue
            there = [(i, f"{test}/{a}/{how}") for i, a in enumerate(LABELS) if f"{test}/{a}/{how}" in traces[arm].cell]  # fmt: skip
            if there:
                values = np.stack([accuracy(name, arm=arm)(traces) for _, name in there], axis=1)
                _line(ax, [i for i, _ in there], values, label)
        ax.set_xticks(range(len(LABELS)), [a.replace("x", " x ") for a in LABELS])
        ax.set(title=f"{test} test", xlabel="support sets x images of each", ylim=(0, 102))
    left.set_ylabel("accuracy in %")


@pictures.by_hand(4, 4, width=12.5, height=3.3, sharey=True, legend=True)
def draw_robust(traces: Traces, *axes: Axes) -> None:
    titles = ("a disc hidden", "a square hidden", "salt and pepper", "uniform noise")
    for ax, kind, title in zip(axes, KINDS, titles, strict=True):
        for label, (arm, how) in WAYS.items():
            name = f"instance/10x2/{how}"
            if arm in traces and "robust" in traces[arm] and name in traces[arm].asked:
                values = traces[arm].robust.sel(asked=name, kind=kind).isel(step=-1)
                _line(ax, list(FRACTIONS), 100 * values.transpose("seed", "fraction").values, label)
        ax.axhline(CHANCE, color=style.INK, linewidth=0.8, linestyle=":")
        ax.set(title=title, xlabel="share of the pixels", ylim=(0, 102))
    axes[0].set_ylabel("instances recognised in %")


def rows_of(test: str) -> dict[str, Effect]:
    more = {"logistic, frozen features": ("pretrained", "logistic"), "prototypes, untrained": ("untrained", "prototypes")}  # fmt: skip
    if test == "class":
        more["tuned from scratch"] = ("scratch", "tune")
    return {label: over(test, how, arm) for label, (arm, how) in (WAYS | more).items()}


BIG = {"no replay, 5 steps": "five", "no replay, 120 steps": "many", "replay, 120 steps": "many-replay"}  # fmt: skip
SMOKE: dict[str, Any] = {
    "steps": 2, "batch": 9, "episodes": 1, "arrangements": ((1, 4), (2, 2), (2, 2), (4, 1), (4, 1)), "total": 4, "course": 2,
    "checks": (1, 1, 2, 2, 2), "way": 2, "inner": 1, "replayed": 1, "memory": 2, "released": 2, "classes": 40, "instances": 10, "filters": 2, "side": 8,
}  # fmt: skip
FULL: dict[str, Any] = {"steps": 5000, "batch": 128, "episodes": 100, "side": 28, "filters": 128, "total": 400, "inner": 20}  # fmt: skip

study = Study(
    paper=Paper(
        "continual-few-shot-instances",
        "Expanding continual few-shot learning benchmarks to include recognition of specific instances",
        "Gideon Kowadlo, Abdelrahman Ahmed, Amir Mayan, David Rawlinson",
        "PLOS ONE", 2024, "2209.07863", "Cerenaut/cfsl",
    ),
    family="forgetting",
    question="Can a network that learns classes one after another from a few images also recognise the very object it was shown?",
    symptoms=(
        "few-shot classes arrive in sequence and the earlier ones are lost",
        "tell individual objects of one class apart, enrolled from one photo",
        "recognition breaks under occlusion and noise",
        "many classes, few examples each, fine-tuning with replay",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("dot", "scratch"), SMOKE),
        "quick": Budget(5),
        "thorough": Budget(5, arm_settings={"sweeps": {"episodes": 6}}),
        "full": Budget(5, settings=FULL),
    },
    claims=CLAIMS,
    figures=(
        Figure("course", "Classes of one drawing each, ten at a time, examined on five other drawings of all so far. Lines are means, bands go from the lowest to the highest seed. "
               "Right: 0 is chance, 100 perfect.", draw_course, ("dot",)),
        Figure("arrangements", "Twenty images in sets of different sizes, as many steps of tuning in all.", draw_arrangements, ("dot",)),
        Figure("robust", "The instance test (twenty drawings of one character, ten sets of two) by how much of the target image is lost. Dotted: chance.", draw_robust, ("dot",)),
        Figure("methods", "Accuracy in the class test and the clean instance test, mean of four sets of five and ten sets of two images; dots are seeds, bars means.",
               pictures.dots({f"{t} test, accuracy in %": rows_of(t) for t in TESTS}), ("dot",)),
        Figure("replay", "Ten sets of two images: sets in memory, replayed images a step, and what the released configurations compare, at their learning rate.",
               pictures.dots({f"{t} test, accuracy in %": {
                   **{f"memory of {n} set{'s' * (n > 1)}": accuracy(f"{t}/10x2/memory-{n}", arm="sweeps") for n in (1, 2, 4, 9)},
                   "nine sets, 8 replayed images": accuracy(f"{t}/10x2/replayed-8", arm="sweeps"),
                   **{label: released(t, how) for label, how in BIG.items()}} for t in TESTS}), ("sweeps",)),
    ),
    data="1,623 made-up characters of 20 drawings each, 14 x 14; MNIST-5k and digits",
    notes="The paper uses Omniglot at 28 x 28 and networks of 128 filters; here drawn characters, as many classes and drawings, a network "
    "of 16, 32 and 48 filters, 400 steps of pretraining, each way at the rate that is best on another seed. Prototypes and neighbours go by running statistics of batch normalisation, tuning by those of its batches, both as released. A seed has its own split of the classes, network and twelve episodes a cell. Arrangements have the same images and 40 "
    "steps in all; rates of tuning, of replay and of its control are the best on two other seeds and on validation classes for each arrangement of each test and for the long sequence, those of five and 120 steps the released one. "
    "Other memories, numbers of replayed images, orders and sets of images go by the rate of their arrangement. "
    "The authors' network for prototypes normalises after its leaky ReLU, and has no biases before; here all have the one for tuning. Their replay shows fewer "
    "images while its memory has fewer, here the set's own fill the batch, so that all ways go through as many. "
    "The sequence of 200 classes has a head for all from the start; it is asked about those so far. Full: 28 x 28, 128 filters, 5,000 steps of pretraining, 100 episodes.",
    watch="accuracy",
)  # fmt: skip
