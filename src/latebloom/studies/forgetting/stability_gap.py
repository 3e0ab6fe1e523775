"""Continual evaluation for lifelong learning: identifying the stability gap.

De Lange, van de Ven, Tuytelaars (ICLR 2023, arXiv 2205.13452).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.dataset import Dataset
from latebloom.core.memory import CLASS_BALANCED, Policy
from latebloom.core.stream import (
    Stream,
    class_incremental,
    domain_incremental,
    joint,
    rehearsing,
)
from latebloom.core.views import Rotation
from latebloom.data import load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import tuned_beside
from latebloom.measures import Measure, Traces, setting, spearman
from latebloom.methods.forgetting import metrics, switches
from latebloom.methods.forgetting.continual import Continual, Replay
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC
from latebloom.methods.forgetting.projections import GEM
from latebloom.methods.forgetting.replay import ER
from latebloom.nn import MLP

Setting = Literal["class", "task", "rotation"]
Name = Literal["fine-tuning", "er", "gem", "ewc", "lwf", "joint"]


@dataclass(frozen=True)
class Config:
    """A run on `tasks` of some classes each (told in exams which task it is, "task", or not, "class"), or of all
    classes under other `angles`, "rotation".

    - `strength`: the weight of the new in ER, the margin of GEM, lambda of EWC, the weight of
      distillation in LwF. "joint" trains on all tasks so far.
    - `memory` places, filled when a task is over; as many examples are replayed as are new.
    - `drop`: the rate is divided by this from the first border on. `fresh`: momentum starts anew at borders.
    - `side` of the images in pixels (28: as they are); `examples` for training (0: all).
    """

    setting: Setting = "class"
    method: Name = "er"
    strength: float = 0.5
    rate: float = 0.03
    momentum: float = 0.9
    drop: float = 1.0
    fresh: bool = False
    tasks: int = 5
    angles: tuple[float, ...] = (0.0, 36.0, 72.0, 108.0, 144.0)
    memory: int = 500
    steps: int = 200
    batch_size: int = 128
    width: int = 200
    data: str = "mnist-5k"
    side: int = 14
    examples: int = 0
    exam_size: int = 150
    every: int = 1


def make_process(config: Config) -> Continual:
    data = load_scaled(config.data, side=config.side, examples=config.examples or None, flat=True)
    tasks = _tasks(config)
    share = config.memory // tasks
    first = Policy("task", "first", share)
    replay = Replay(config.memory, config.batch_size, first if config.method == "gem" else CLASS_BALANCED,
                    by="class", at="task")  # fmt: skip
    method = {
        "er": lambda: ER(config.strength),
        "gem": lambda: GEM(tasks=tasks, share=share, margin=config.strength),
        "ewc": lambda: EWC(
            config.strength, batches=min(20, config.steps), fisher="batch", combine="average"
        ),
        "lwf": lambda: LwF(config.strength),
    }.get(config.method, Method)()
    return Continual(
        model=partial(_network, data.x_train.shape[1], config.width, int(data.y_train.max()) + 1), data=data,
        stream=partial(_stream, config, data), method=method,
        optimiser=partial(_sgd, config.momentum, config.drop, config.steps), hyper={"rate": config.rate},
        replay=replay if method.replays or method.remembers else None,
        head="task" if config.setting == "task" else "all", fresh=config.fresh, tell=True,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    return np.arange(0, _tasks(config) * config.steps + 1, config.every)


def _tasks(config: Config) -> int:
    return len(config.angles) if config.setting == "rotation" else config.tasks


def _network(pixels: int, width: int, classes: int, key: PRNGKeyArray) -> MLP:
    return MLP(pixels, (width, width), classes, key=key)


def _sgd(momentum: float, drop: float, steps: int, rate: Array) -> optax.GradientTransformation:
    falls = optax.piecewise_constant_schedule(1.0, {steps: 1 / drop} if drop != 1 else None)
    return optax.chain(optax.trace(momentum), optax.scale_by_schedule(falls), optax.scale(-rate))


def _stream(config: Config, data: Dataset, key: PRNGKeyArray) -> Stream:
    sizes: dict[str, Any] = {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "exam_size": config.exam_size,
    }
    if config.setting == "rotation":
        angles = config.angles
        stream = domain_incremental(data.y_train, data.y_test, key=key, tasks=len(angles), **sizes)
        side = math.isqrt(data.x_train.shape[1])
        stream = eqx.tree_at(lambda s: s.view, stream, Rotation(angles, side))
    else:
        stream = class_incremental(data.y_train, data.y_test, key=key, tasks=config.tasks, **sizes)
    return rehearsing(stream, joint(stream.tasks), key=key) if config.method == "joint" else stream


SETTINGS: dict[Setting, dict[str, Any]] = {
    "class": {}, "task": {"data": "glyphs-100", "exam_size": 200}, "rotation": {},
}  # fmt: skip
METHODS: tuple[Name, ...] = ("fine-tuning", "er", "gem", "ewc", "lwf")
TUNED = tuned_beside(__file__)  # rate and strength, by setting and method


def tuned(setting: Setting, method: Name, **more: Any) -> Config:
    rate, strength = TUNED[setting][method]
    own: dict[str, Any] = {"rate": rate, "strength": strength} | SETTINGS[setting] | more
    return Config(setting, method, **own)


ANGLES = (0, 15, 30, 45, 60, 90)
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
PLAIN = tuned("class", "er")
ARMS: dict[str, Config] = {
    **{f"{setting}-{method}": tuned(setting, method) for setting in SETTINGS for method in METHODS},
    **{f"angle-{a}": tuned("rotation", "er", strength=0.5, angles=(0.0, float(a))) for a in ANGLES},
    **{f"weight-{w:g}": replace(PLAIN, strength=w) for w in WEIGHTS},
    "slower": replace(PLAIN, drop=10.0),
    "fresh": replace(PLAIN, fresh=True),
    "no-momentum": replace(PLAIN, momentum=0.0, rate=10 * PLAIN.rate),
    "joint": Config("rotation", "joint", rate=0.1, momentum=0.0, angles=(0.0, 80.0, 160.0), steps=500),
}  # fmt: skip

SOON = 50  # updates after a switch in which the gradient has to come back


def by_seed(text: str, metric: Callable[..., xr.DataArray], *args: Any, **more: Any) -> Measure:
    """A metric of continual learning as a measure."""
    return Measure(text, metrics.per_seed(lambda trace: metric(trace, *args, **more)))


def finished(trace: xr.Dataset, name: str) -> xr.DataArray:
    return metrics.of_finished(metrics.gap(trace), name)


drop = by_seed("drop of the task just finished", finished, "drop")
back = by_seed("recovery of the task just finished", finished, "recovery")
regained = back - 0.5 * drop
ends = by_seed("average accuracy", metrics.average_accuracy)
worst = by_seed("worst case accuracy", metrics.worst_case_accuracy)
lost = by_seed("forgetting", metrics.forgetting)
windowed = by_seed("windowed forgetting over 10 updates", metrics.windowed_forgetting, 10)
RATIO = "ratio of the gradients"
at_once = by_seed(f"{RATIO} at the first update after a switch", switches.gradient_ratio, 1, 1)
soon = by_seed(
    f"{RATIO} {SOON - 9} to {SOON} updates after it", switches.gradient_ratio, SOON - 9, SOON
)
late_ratio = by_seed(f"{RATIO} in the last fifth of a task", switches.late_gradient_ratio)
unsettled = by_seed(
    "gradient on a task at its end / on the next one at its start", switches.unsettled
)
PEAK = f"norm of the gradient that keeps the old / its peak in {SOON} updates"
rise = by_seed(f"{PEAK} from a switch on", switches.rise, SOON)
late_rise = by_seed(f"{PEAK} before a task is over", switches.rise, SOON, late=True)
GAP, BACK = "a drop right after the switch", "and recovery"
KINDS = "class-, task- and domain-incremental"
ACCURACY, OF_GRADIENTS, RANK = "accuracy", "ratio of norms", "Spearman"
NAMES = {"fine-tuning": "fine-tuning", "er": "ER", "gem": "GEM", "ewc": "EWC", "lwf": "LwF"}
same_task = drop["angle-0"]  # the next task is the same one


def at_minimum(arm: str) -> tuple[Need, ...]:
    return (
        Need(
            unsettled[arm],
            "< 0.3",
            "at the switch the network is not near a minimum for the old task",
        ),
    )


def gap_claims(id: str, arm: str, paper: str, budget: str = "quick") -> tuple[Claim, Claim]:
    kind, method = arm.split("-", 1)
    where = {
        "class": "Class-incremental",
        "task": "Task-incremental",
        "rotation": "Rotated digits",
    }[kind]
    dropped = Need(drop[arm], "> 0.05", "there was no drop to come back from")
    return (
        Claim(f"{id}.drop", f"{where}, {NAMES[method]}: accuracy on the task just learned drops by more than 0.05 "
              "within 50 updates", paper, drop[arm], "> 0.05", ACCURACY, budget=budget, null=same_task,
              needs=at_minimum(arm)),
        Claim(f"{id}.back", f"{where}, {NAMES[method]}: more than half of it is regained by the end of the next task",
              BACK, regained[arm], "> 0", ACCURACY, budget=budget, null=regained[f"{kind}-fine-tuning"],
              needs=(*at_minimum(arm), dropped)),
    )  # fmt: skip


def learned(arm: str) -> Need:
    return Need(ends[arm], "> 0.7", "the tasks were not learned")


CLAIMS = (
    *gap_claims("C1.er", "class-er", f"replay: {GAP}"),
    *gap_claims("C1.gem", "class-gem", f"constraints: {GAP}"),
    *gap_claims("C1.ewc", "rotation-ewc", f"parameter regularisation: {GAP}"),
    *gap_claims("C1.lwf", "rotation-lwf", f"distillation: {GAP}"),
    *gap_claims("C2.task", "task-er", f"the gap occurs in {KINDS} learning"),
    *gap_claims("C2.rotation", "rotation-er", f"the gap occurs in {KINDS} learning"),
    *(claim for kind in SETTINGS for method in METHODS[1:] if f"{kind}-{method}" not in
      ("class-er", "class-gem", "rotation-ewc", "rotation-lwf", "task-er", "rotation-er")
      for claim in gap_claims(f"C2.{kind}-{method}", f"{kind}-{method}", KINDS, "thorough")),
    Claim("C3.worst", "ER: the worst case (WC-ACC) is more than 0.1 below the accuracy at the end",
          "task-end metrics hide it", (ends - worst)["class-er"], "> 0.1", ACCURACY,
          null=(ends - worst)["class-fine-tuning"]),
    Claim("C3.forgetting", "ER: forgetting at the end is less than half of the drop", "task-end metrics hide it",
          (lost - 0.5 * drop)["class-er"], "< 0", ACCURACY, null=(lost - 0.5 * drop)["class-fine-tuning"],
          needs=(Need(drop["class-er"], "> 0.05", "there was no drop"),)),
    Claim("C4.rank", "The further the next task is turned, the deeper is the drop", "the gap grows with dissimilarity",
          spearman(ANGLES, [drop[f"angle-{a}"] for a in ANGLES]), "> 0.8", RANK, null=0.0),
    Claim("C4.window", "And the larger is windowed forgetting over ten updates", "the gap grows with dissimilarity",
          spearman(ANGLES, [windowed[f"angle-{a}"] for a in ANGLES]), "> 0.8", RANK, null=0.0),
    Claim("C4.same", "Where the next task is the same there is no gap of 0.05", "(control)",
          same_task, "< 0.05", ACCURACY, null=drop["angle-90"]),
    Claim("C5.er", "ER: at the switch the gradient that keeps the old is less than 0.3 of that which learns the new",
          "stability gradients vanish at the switch", at_once["class-er"], "< 0.3", OF_GRADIENTS, null=late_ratio["class-er"]),
    Claim("C5.rise", "ER: within 50 updates it is more than 0.7 of what it comes to",
          "and rise only after the drop", (soon / late_ratio)["class-er"], "> 0.7", "of the late ratio",
          null=(at_once / late_ratio)["class-er"]),
    Claim("C5.gem", "GEM: so is the part that the constraints add", "small for GEM, too",
          at_once["class-gem"], "< 0.3", OF_GRADIENTS, null=late_ratio["class-gem"]),
    *(Claim(f"C5.{m}-norm", f"{NAMES[m]}: at the switch the norm of the gradient that keeps the old is less than half of its "
            "peak in the 50 updates from there on", "vanish at the switch, and rise", rise[f"class-{m}"], "< 0.5",
            "of the peak", null=late_rise[f"class-{m}"], added="after results") for m in ("er", "gem")),
    Claim("C6.joint", "Trained on all tasks so far, by plain SGD, it drops by more than 0.05 all the same",
          "(van de Ven's demonstration: the gap is one of optimisation)", drop["joint"], "> 0.05", ACCURACY,
          budget="thorough", null=same_task),
    Claim("C6.back", "And regains more than half of it", BACK, regained["joint"], "> 0", ACCURACY,
          budget="thorough", null=regained["rotation-fine-tuning"],
          needs=(Need(drop["joint"], "> 0.05", "there was no drop to come back from"),)),
    Claim("X.slower", "A tenth of the learning rate from the switch on makes the drop smaller", "(control)",
          drop["slower"] - drop["class-er"], "< 0", ACCURACY, budget="thorough",
          needs=(learned("slower"),)),
    Claim("X.fresh", "So does momentum that starts anew at the switch", "(control)",
          drop["fresh"] - drop["class-er"], "< 0", ACCURACY, budget="thorough", needs=(learned("fresh"),)),
    Claim("X.momentum", "So does no momentum, at ten times the rate", "(control)",
          drop["no-momentum"] - drop["class-er"], "< 0", ACCURACY, budget="thorough", needs=(learned("no-momentum"),)),
    Claim("X.weight", "The more the new counts in ER's loss, the deeper is the drop", "(control)",
          spearman(WEIGHTS, [drop[f"weight-{w:g}"] for w in WEIGHTS]), "> 0", RANK, budget="thorough"),
)  # fmt: skip

MAIN = {f"class-{m}": NAMES[m] for m in ("er", "gem", "fine-tuning")}
AROUND = {
    "class": "class-incremental",
    "task": "task-incremental (glyphs)",
    "rotation": "rotated by 36°",
}


def draw_iterations(traces: Traces) -> MatplotlibFigure:
    """Accuracy on the first task at each update; large dots where task-end evaluation looks."""
    figure, ax = style.figure(width=8, height=3.8)
    for colour, (arm, label) in zip(style.colours, MAIN.items(), strict=False):
        if arm in traces:
            accuracy = traces[arm].accuracy.sel(task=0).mean("seed")
            ends = np.arange(1, traces[arm].sizes["task"] + 1) * setting(traces[arm], "steps")
            ax.plot(accuracy.step, accuracy, color=colour, linewidth=1, label=label)
            ax.plot(ends, accuracy.sel(step=ends), "o", color=colour, markersize=7)
            for end in ends[:-1]:
                ax.axvline(end, color=style.INK, linewidth=0.6, linestyle=":")
    ax.set(xlabel="update", ylabel="accuracy on the first task", ylim=(0, 1.02), xlim=(0, None))
    pictures.legend_below(figure)
    return figure


around = pictures.curves(
    "change", *((title, {f"{kind}-{m}": NAMES[m] for m in NAMES}) for kind, title in AROUND.items()),
    as_drawn=switches.aligned, xlabel="updates since the switch", ylabel="change of accuracy", ylim=(-0.65, 0.12),
)  # fmt: skip
gradients = pictures.curves(
    {"|gradient| that learns the new": "plasticity", "|gradient| that keeps the old": "stability"},
    ("", {"class-er": "ER", "class-gem": "GEM"}), as_drawn=switches.aligned,
    xlabel="updates since the switch",  yscale="log", ylim=(1e-3, None),
)  # fmt: skip
METRICS = {"accuracy at the end": ends, "worst case (WC-ACC)": worst}
SMOKE = {
    "steps": 6,
    "width": 8,
    "data": "digits",
    "side": 28,
    "exam_size": 20,
    "batch_size": 16,
    "memory": 50,
}
FULL = {
    "width": 400,
    "side": 28,
    "data": "mnist",
    "memory": 2000,
    "batch_size": 256,
    "steps": 470,
    "exam_size": 1000,
}

study = Study(
    paper=Paper(
        "stability-gap", "Continual evaluation for lifelong learning: Identifying the stability gap",
        "Matthias De Lange, Gido M. van de Ven, Tinne Tuytelaars", "ICLR", 2023, "2205.13452",
        "Mattdl/ContinualEvaluation",
    ),
    family="forgetting",
    question="How much is lost in the first steps of a new task and won back before the next evaluation?",
    symptoms=(
        "accuracy on old tasks drops at a task switch and recovers",
        "worst-case performance of a deployed continual learner between evaluations",
        "replay works at the end of the tasks but not in between",
        "continual evaluation, min-ACC, windowed forgetting",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("class-er", "class-gem", "class-fine-tuning", "rotation-ewc", "rotation-lwf", "joint"),
                        SMOKE, {"joint": {"angles": (0.0, 80.0)}}),
        "quick": Budget(6, also=("task-fine-tuning", "rotation-fine-tuning")),
        "thorough": Budget(6),
        "full": Budget(5, settings=FULL, arm_settings={
            arm: {"data": "glyphs-100", "exam_size": 600} for arm in ARMS if arm.startswith("task")}),
    },
    claims=CLAIMS,
    figures=(
        Figure("iterations", "Accuracy on the first of five tasks after every update; mean over seeds. Dots: the ends of "
               "tasks (dotted lines), where it is usually evaluated.", draw_iterations, tuple(MAIN)),
        Figure("around", "The switch: accuracy on the task just learned, less what it was then, mean over switches (fine-tuning and EWC go on to -0.98). "
               "Bands span the seeds.", around, ("class-er",)),
        Figure("worst", "Accuracy over all tasks at the end, and the worst case on the way; dots are seeds, bars means.",
               pictures.dots({"accuracy": {f"{AROUND[kind]}, {NAMES[m]}": {label: of[f"{kind}-{m}"] for label, of in METRICS.items()}
                                           for kind in SETTINGS for m in METHODS}}, xlim=(0, 1)), ("class-er",)),
        Figure("gradients", "Both gradients around a switch, class-incremental, mean over borders.", gradients, ("class-er", "class-gem")),
        Figure("angles", "ER on digits, then on the same digits turned by an angle: the drop within 50 updates, and the "
               "largest one within any ten.", pictures.trend(("", {
                   "drop": (ANGLES, [drop[f"angle-{a}"] for a in ANGLES]),
                   "windowed forgetting, 10 updates": (ANGLES, [windowed[f"angle-{a}"] for a in ANGLES])}),
                   xlabel="angle in degrees", ylabel="accuracy lost"), tuple(f"angle-{a}" for a in ANGLES)),
    ),
    data="MNIST-5k, 14 x 14 (task-incremental: stroke glyphs, 100 classes)",
    notes="The paper's image sets but MNIST are not at hand: task-incremental learning "
    "is on five tasks of 20 made-up characters. Below the full budget an MLP of 200-200 on 14 x 14 images, 200 updates a task in batches of 128, 500 places of memory, exams on 150 (200) test "
    "examples a task after every update; rates and strengths chosen by final accuracy on other seeds. ER and the "
    "memories of GEM are filled when a task is over, as in the authors' code, so that the first task's loss has the "
    "weight of the new. Momentum of 0.9 is carried over borders (the authors' code starts it anew, as the arm fresh "
    "does). Joint training takes its batches of one size. EWC's Fisher matrix is of the first 20 batches of a task "
    "(the authors': of all). Full keeps the rates and strengths found below it.",
    watch="accuracy",
)  # fmt: skip
