"""Catastrophic interference in power-law environments: rehearsal by the age of a task.

Gandhi, Shah, Marupudi, Varma (2024, arXiv 2401.10393).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.stream import Stream, domain_incremental, rehearsing
from latebloom.core.views import Permutation
from latebloom.data import load_scaled
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Measure, Traces, lowest, slope
from latebloom.methods.forgetting import histories, phases, rehearsal
from latebloom.methods.forgetting.continual import Continual
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.facilitation import Restarted
from latebloom.methods.forgetting.histories import fitted
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.penalties import EWC, SI
from latebloom.methods.forgetting.phases import accuracy, interference, later, lost, needed, slowing
from latebloom.methods.forgetting.rehearsal import Exponential, Law, PowerLaw, Window
from latebloom.nn import MLP

Schedule = Literal[
    "power", "exponential", "half-age", "window", "uniform", "recency", "none", "joint", "met", "met-evenly"
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """- `schedule`: by age since a task was introduced: "power", "exponential" (of the same mean age),
      "half-age" (an exponential of the same half age), "window" (of the same mean age), "uniform", "recency"
      (the last task), "none" (more of the same task); by age since it was last met: "met" (a power law of
      odds `SCALE` at age 1), "met-evenly" (constant odds, as many encounters); "joint": all tasks at once.
    - `rate` of Adam; `strength` of the method. `current`: the task itself is rehearsed, too.
    - `examples` of each task; after them (or "mixed") the share `rehearsal` of as many of earlier ones.
    - `size`: the network has two layers of `width` times this. `dense`: exams while a task is learned.
      `fresh`: each task is learned by the network of the start.
    """

    schedule: Schedule = "power"
    method: Literal["none", "ewc", "si", "lwf"] = "none"
    rate: float = 1e-3
    strength: float = 0.0
    exponent: float = 1.0
    when: Literal["after", "mixed"] = "after"
    current: bool = False
    tasks: int = 20
    rehearsal: float = 0.5
    examples: int = 4000
    batch: int = 64
    width: int = 100
    size: float = 1.0
    data: str = "mnist-5k"
    side: int = 14
    exam: int = 200
    dense: bool = False
    fresh: bool = False

    @property
    def new_steps(self) -> int:
        return self.examples // self.batch

    @property
    def old_steps(self) -> int:
        return round(self.rehearsal * self.new_steps)

    @property
    def task_steps(self) -> int:
        return self.new_steps + self.old_steps


@dataclass(frozen=True)
class World:
    """An environment alone, and how many histories of it are counted; `odds` as in `Config.schedule`."""

    odds: Schedule = "power"
    since: Literal["introduced", "met"] = "introduced"
    world_tasks: int = 20
    histories: int = 1


SCALE = 0.5  # the odds that a task of age 1 is met


def law_of(config: Config) -> Law:
    power = PowerLaw(config.exponent)
    laws: dict[str, Callable[[], Law]] = {
        "power": lambda: power, "met": lambda: power,
        "exponential": lambda: rehearsal.matched(power, config.tasks, Exponential),
        "half-age": lambda: rehearsal.matched(power, config.tasks, Exponential, "half age"),
        "window": lambda: rehearsal.matched(power, config.tasks, Window),
        "uniform": Window, "met-evenly": Window, "recency": lambda: Window(1.0),
    }  # fmt: skip
    return laws[config.schedule]()


class Tasks(eqx.Module):
    """Permuted images and what each task rehearses: a table of shares, or odds by age since last met."""

    table: Array
    config: Config = eqx.field(static=True)  # of the sizes alone, so that arms share programs

    def __call__(self, key: PRNGKeyArray) -> Stream:
        own, view, met, again = jax.random.split(key, 4)
        config = self.config
        data = load_scaled(config.data, side=config.side, flat=True)
        stream = domain_incremental(
            data.y_train, data.y_test, key=own, tasks=config.tasks, steps=config.task_steps,
            batch_size=config.batch, exam_size=config.exam,
        )  # fmt: skip
        orders = Permutation.drawn(config.tasks, data.x_train[0].size, key=view)
        stream = eqx.tree_at(lambda s: s.view, stream, orders)
        if config.schedule == "joint":
            return rehearsing(stream, np.full((config.tasks,) * 2, 1 / config.tasks), key=again)
        table = self.table
        if table.ndim == 1:
            table = rehearsal.met_shares(rehearsal.encounters(table, key=met))
        places = config.old_steps * config.batch
        return rehearsal.rehearsed(stream, table, examples=places, key=again, when=config.when)


def table_of(config: Config) -> np.ndarray:
    """Shares [tasks, tasks], or by age since last met the odds [tasks]."""
    if config.schedule in ("none", "joint"):
        return np.eye(config.tasks)
    law = law_of(config)
    if config.schedule == "met":
        return SCALE * law(np.arange(1, config.tasks + 1))
    if config.schedule == "met-evenly":
        return np.full(config.tasks, rehearsal.as_often(PowerLaw(config.exponent), SCALE, config.tasks))  # fmt: skip
    return rehearsal.shares(law, config.tasks, current=config.current)


def make_process(config: Config | World) -> Any:
    if isinstance(config, World):
        like = Config(config.odds, tasks=config.world_tasks)
        scale = rehearsal.as_often(PowerLaw(), SCALE, config.world_tasks) if config.odds == "uniform" else SCALE  # fmt: skip
        return rehearsal.Ages(rehearsal.Environment(config.world_tasks, law_of(like), 1000, config.since, scale))  # fmt: skip
    data = load_scaled(config.data, side=config.side, flat=True)
    strength = jnp.asarray(config.strength, jnp.float32)
    method = {
        "none": Method, "si": partial(SI, strength), "lwf": partial(LwF, strength),
        "ewc": partial(EWC, strength, batches=min(10, config.task_steps)),
    }[config.method]()  # fmt: skip
    kept = ("tasks", "rehearsal", "examples", "batch", "exam", "when", "data", "side")
    sizes = Config("joint" if config.schedule == "joint" else "power", **{k: getattr(config, k) for k in kept})  # fmt: skip
    hidden = (round(config.width * config.size),) * 2
    kind: Any = Restarted if config.fresh else Continual
    return kind(
        model=partial(_network, data.x_train[0].size, hidden), data=data,
        stream=Tasks(jnp.asarray(table_of(config), jnp.float32), sizes), method=method,
        optimiser=optax.adam, hyper={"learning_rate": config.rate},
    )  # fmt: skip


def _network(pixels: int, hidden: tuple[int, ...], key: PRNGKeyArray) -> MLP:
    return MLP(pixels, hidden, 10, key=key)


def schedule(config: Config | World) -> np.ndarray:
    """The end of each task's own examples and of its rehearsal; if dense, eight times while it is learned."""
    if isinstance(config, World):
        return np.array([config.histories])
    looks = [config.new_steps, config.task_steps]
    if config.dense:
        looks += np.geomspace(2, config.new_steps, 9).round().astype(int).tolist()
    starts = config.task_steps * np.arange(config.tasks)
    return np.unique(np.concatenate([[0], (starts[:, None] + np.unique(looks)).ravel()]))


# What won on seeds 100 and 101 at twenty tasks, the quick budget's scale (benchmarks/power_law_rehearsal_tuning.py).
TUNED: dict[str, dict[str, float]] = tuned_beside(__file__)
DEFAULT = {"rate": 1e-3}
RIVALS = ("exponential", "half-age", "window", "uniform", "recency")


def tuned(name: str, **more: Any) -> Config:
    """A schedule, a regulariser, or "power+" one, with the settings that tuning found."""
    first, _, second = name.partition("+")
    method: Any = second or (first if first in ("ewc", "si", "lwf") else "none")
    plan: Any = "none" if first == method else first
    settings: Any = {**TUNED.get(name, DEFAULT), **more}
    return Config(plan, method, **settings)


SWEPT = ("power", "exponential", "uniform", "none")
TASKS, SIZES, AMOUNTS = (5, 10, 30), (0.25, 0.5, 2.0), (0.1, 0.25, 1.0)
ARMS: dict[str, Config | World] = {
    "power": tuned("power", dense=True),
    **{name: tuned(name) for name in RIVALS},
    "none": tuned("none", dense=True),
    "power-slow": replace(tuned("power", dense=True), rate=1e-3),
    "none-same-rate": replace(tuned("power", dense=True), schedule="none"),
    "fresh": replace(tuned("power", dense=True), schedule="none", fresh=True),
    "fresh-slow": Config("none", rate=1e-3, dense=True, fresh=True),
    **{name: tuned(name) for name in ("joint", "ewc", "si", "lwf", "power+ewc", "power+lwf")},
    **{f"tasks-{n}/{name}": tuned(name, tasks=n) for n in TASKS for name in SWEPT},
    **{f"size-{s:g}/{name}": tuned(name, size=s) for s in SIZES for name in SWEPT},
    **{f"amount-{a:g}/{name}": tuned(name, rehearsal=a) for a in AMOUNTS for name in SWEPT},
    **{f"power-{d:g}": tuned("power", exponent=d) for d in (0.5, 2.0)},
    **{f"mixed/{name}": tuned(name, when="mixed") for name in ("power", "exponential", "uniform")},
    "power-current": tuned("power", current=True),
    "met": replace(tuned("power"), schedule="met"),
    "met-evenly": replace(tuned("power"), schedule="met-evenly"),
    "ages": World(), "ages-exponential": World("exponential"), "ages-window": World("window"),
    "encounters": World("power", "met", 100, 30), "encounters-even": World("uniform", "met", 100, 30),
}  # fmt: skip


def over(one: str, other: str, of: Measure = accuracy) -> Effect:
    return of[one] - of[other]


def sweep(kind: str, one: str, other: str) -> list[Effect]:
    """The difference of two schedules at each level, the base's last."""
    levels = {"tasks": TASKS, "size": SIZES, "amount": AMOUNTS}[kind]
    swept = [over(f"{kind}-{level:g}/{one}", f"{kind}-{level:g}/{other}") for level in levels]
    return [*swept, over(one, other)]


POINTS, LOG = "percentage points", "log updates"
REGULARISERS = "comparable or superior to popular regularization methods"
NON_POWER = "comparable or superior to rehearsals in non-power-law environments"
MITIGATED, FASTER, ROBUST = (
    "catastrophic interference is mitigated",
    "forward facilitation, i.e. faster learning of later tasks",
    "robust",
)
CLAIMS = (
    Claim("C1.accuracy", "Power-law rehearsal ends more than 10 points above sequential training, at equal updates",
          MITIGATED, over("power", "none"), "> 10", POINTS, null=over("recency", "none")),
    Claim("C1.interference", "It loses less than half as much of what each task had when it was over", MITIGATED,
          interference["power"] / interference["none"], "< 0.5", "ratio", null=interference["recency"] / interference["none"]),
    Claim("C1.lost", "So it does of what each task had after its own examples, before the rehearsal", MITIGATED,
          lost["power"] / lost["none"], "< 0.5", "ratio", null=lost["recency"] / lost["none"], added="after results"),
    Claim("C1.gap", "It closes more than half of the gap between sequential and joint training", "(what remains)",
          over("power", "none") / over("joint", "none"), "> 0.5", "share", null=over("recency", "none") / over("joint", "none")),
    Claim("C2.ewc", "It is at most half a point below EWC", REGULARISERS, over("power", "ewc"), "> -0.5", POINTS, null=over("none", "ewc")),
    Claim("C2.si", "It is at most half a point below SI", REGULARISERS, over("power", "si"), "> -0.5", POINTS, null=over("none", "si")),
    thorough("C2.lwf", "It is at most half a point below LwF", REGULARISERS, over("power", "lwf"), "> -0.5", POINTS, null=over("none", "lwf")),
    Claim("C3.uniform", "It is at most half a point below uniform rehearsal, at equal budgets", NON_POWER,
          over("power", "uniform"), "> -0.5", POINTS, null=over("recency", "uniform")),
    Claim("C3.exponential", "It is better than exponential rehearsal of the same mean age", NON_POWER, over("power", "exponential"), "> 0", POINTS),
    thorough("C3.half-age", "It is better than exponential rehearsal of the same half age", NON_POWER, over("power", "half-age"), "> 0", POINTS),
    thorough("C3.window", "It is better than a uniform window of the same mean age", NON_POWER, over("power", "window"), "> 0", POINTS),
    Claim("C3.recency", "It is better than rehearsal of the last task alone", NON_POWER, over("power", "recency"), "> 0", POINTS),
    Claim("C3.needed", "Tasks weighing as much as the environment will need them, it beats uniform rehearsal",
          "(the measure that the setting suggests)", over("power", "uniform", needed), "> 0", POINTS),
    Claim("C4.slope", "Under power-law rehearsal later tasks take fewer updates to the criterion", FASTER,
          slowing["power"], "< 0", LOG, null=slowing["fresh"]),
    Claim("C4.first", "The last quarter of tasks take fewer than the first from the same initial weights", FASTER,
          later["power"], "< 0", LOG, null=later["fresh"]),
    Claim("C4.sequential", "The number falls faster than in sequential training at the same learning rate", FASTER,
          over("power", "none-same-rate", slowing), "< 0", LOG),
    thorough("C4.slow", "At a quarter of the learning rate later tasks take fewer updates to the criterion", FASTER,
             slowing["power-slow"], "< 0", LOG, null=slowing["fresh-slow"], added="after results"),
    thorough("C4.fresh", "In the last quarter of tasks it takes fewer updates than fresh networks on the same tasks", FASTER,
             over("power", "fresh", later), "< 0", LOG, added="after results"),
    thorough("C4.fresh-slow", "So it does at a quarter of the learning rate", FASTER,
             over("power-slow", "fresh-slow", later), "< 0", LOG, added="after results"),
    thorough("C4.sequential-slow", "And there it takes fewer than sequential training", FASTER,
             over("power-slow", "none", later), "< 0", LOG, added="after results"),
    thorough("C5.tasks", "With 5, 10, 20 or 30 tasks the gain over sequential training is more than 10 points", ROBUST,
             lowest(sweep("tasks", "power", "none")), "> 10", POINTS),
    thorough("C5.size", "So it is with layers of 25, 50, 100 and 200 units", ROBUST, lowest(sweep("size", "power", "none")), "> 10", POINTS),
    thorough("C5.amount", "And with a tenth to all of a task's examples rehearsed", ROBUST, lowest(sweep("amount", "power", "none")), "> 10", POINTS),
    thorough("C5.grows", "The gain over sequential training grows with the number of tasks", "the advantage grows with the number of phases (v3)",
             slope(np.log2([*TASKS, 20]).tolist(), sweep("tasks", "power", "none")), "> 0", "points a doubling"),
    thorough("C5.grows-exponential", "So does that over exponential rehearsal", "(same)",
             slope(np.log2([*TASKS, 20]).tolist(), sweep("tasks", "power", "exponential")), "> 0", "points a doubling"),
    *(thorough(f"C5.{kind}-{rival}", text, NON_POWER + ", " + ROBUST, lowest(sweep(kind, "power", rival)), holds, POINTS)
      for kind, what in (("tasks", "number of tasks"), ("size", "size of the network"), ("amount", "amount rehearsed"))
      for rival, text, holds in (
          ("uniform", f"At every {what} it is at most half a point below uniform rehearsal", "> -0.5"),
          ("exponential", f"At every {what} it is better than exponential rehearsal", "> 0"))),
    thorough("C6.ewc", "EWC added to power-law rehearsal adds accuracy", "orthogonal to other methods", over("power+ewc", "power"), "> 0", POINTS),
    thorough("C6.lwf", "LwF added to it adds accuracy", "orthogonal to other methods; gains with LwF (v3)", over("power+lwf", "power"), "> 0", POINTS),
    Claim("E.age", "The exponent of the environment's ages, by maximum likelihood, is within 0.05 of 1",
          "(the environment)", abs(fitted("age")["ages"] - 1.0), "< 0.05", "exponent",
          null=abs(fitted("age")["ages-exponential"] - 1.0)),
    thorough("E.need", "By age since last met, the odds fall with an exponent within 0.1 of 1", "(the environment)",
             abs(fitted("need")["encounters"] - 1.0), "< 0.1", "exponent",
             null=abs(fitted("need")["encounters-even"] - 1.0)),
    # Odds k / a leave lags of exponent 1 + k: the exponent of the odds is no exponent of the lags.
    thorough("E.lag", "Then the times to come back have an exponent within 0.15 of 1.5", "(the environment)",
             abs(fitted("lag")["encounters"] - (1 + SCALE)), "< 0.15", "exponent",
             null=abs(fitted("lag")["encounters-even"] - (1 + SCALE))),
    thorough("S.exponent", "With an exponent of 0.5, 1 or 2 the gain over sequential training is more than 10 points",
             "(its value is not told)", lowest(over(a, "none") for a in ("power", "power-0.5", "power-2")), "> 10", POINTS),
    thorough("S.mixed", "Mixed into the batches, power-law rehearsal is at most half a point below uniform",
             "(when is not told)", over("mixed/power", "mixed/uniform"), "> -0.5", POINTS),
    thorough("S.mixed-exponential", "And better than exponential rehearsal", "(when is not told)", over("mixed/power", "mixed/exponential"), "> 0", POINTS),
    thorough("S.current", "With the task itself among those rehearsed, the gain is more than 10 points",
             "(not told)", over("power-current", "none"), "> 10", POINTS),
    thorough("S.met", "By age since a task was last met, the gain is more than 10 points",
             "since it was last performed", over("met", "none"), "> 10", POINTS),
    thorough("S.met-evenly", "And it is at most half a point below as many encounters at constant odds", NON_POWER,
             over("met", "met-evenly"), "> -0.5", POINTS),
)  # fmt: skip


LABELS = {
    "power": "power law", "exponential": "exponential, same mean age", "uniform": "uniform",
    "none": "none (sequential)", "window": "window, same mean age", "recency": "last task alone", "joint": "joint",
}  # fmt: skip
ROWS = {
    **LABELS, "half-age": "exponential, same half age", "met": "power law since last met",
    "met-evenly": "constant odds, as often", "power-current": "power law, with the task itself",
    "power-0.5": "power law, exponent 0.5", "power-2": "power law, exponent 2", "ewc": "EWC", "si": "SI", "lwf": "LwF",
    "power+ewc": "power law and EWC", "power+lwf": "power law and LwF",
}  # fmt: skip
COLOURS = dict(zip(LABELS, style.colours, strict=True))
ENCOUNTERS = {"encounters": ("power law", COLOURS["power"]), "encounters-even": ("constant odds", COLOURS["recency"])}  # fmt: skip
WORLDS = {"ages": "power", "ages-exponential": "exponential", "ages-window": "window"}


@pictures.by_hand(3, width=12, height=3.6)
def draw_environment(traces: Traces, ages: Axes, odds: Axes, lags: Axes) -> None:
    """Ages of what the last task rehearses, odds by age since last met, and times to come back."""
    for arm, name in WORLDS.items():
        if arm in traces:
            label = histories.said(traces[arm], "age", LABELS[name]) if arm == "ages" else LABELS[name]  # fmt: skip
            histories.draw_ages(ages, traces[arm], color=COLOURS[name], label=label)
    for arm, (label, colour) in ENCOUNTERS.items():
        if (trace := traces.get(arm)) is None:
            continue
        histories.draw_need(odds, trace, color=colour, label=histories.said(trace, "need", label))
        if arm == "encounters":
            label = histories.said(trace, "lag", label)
        times = histories.draw_lags(lags, trace, color=colour, label=label)
        if arm == "encounters":
            theory = rehearsal.lag_probabilities(SCALE / times)
            lags.plot(times, theory / theory.sum(), color=style.INK, linewidth=1, label="in closed form")  # fmt: skip
    titles = {
        "what the last task rehearses": ("tasks since introduced", "share of the examples"),
        "how likely it comes": ("tasks since last met", "probability to be met"),
        "how long it takes to come back": ("tasks between two encounters", "share of the times"),
    }
    for ax, (title, (x, y)) in zip((ages, odds, lags), titles.items(), strict=True):
        ax.set(xscale="log", yscale="log", title=title, xlabel=x, ylabel=y)
        pictures.plain_ticks(ax, (1, 2, 5, 10, 20, 50, 100))
        ax.legend(fontsize=8)


@pictures.by_hand(width=7.2, height=4.2, legend=True)
def draw_by_age(traces: Traces, ax: Axes) -> None:
    for arm, label in LABELS.items():
        if arm in traces:
            last = 100 * traces[arm].accuracy.isel(step=-1).transpose("seed", "task").values
            ages, band = np.arange(last.shape[1])[::-1], arm in ("power", "uniform", "exponential")
            dashes = "--" if arm == "joint" else "-"
            style.spread(ax, ages, last, colour=COLOURS[arm], band=band, linestyle=dashes, label=label)  # fmt: skip
    ax.set(xlabel="age of the task: tasks learned since", ylabel="accuracy at the end in %", ylim=(0, 100))  # fmt: skip
    pictures.plain_ticks(ax, range(0, 40, 2))


@pictures.by_hand(2, width=9, height=3.6)
def draw_facilitation(traces: Traces, left: Axes, right: Axes) -> None:
    same = "sequential, same learning rate"
    for arm, label, like in (("power", "power law", "power"), ("none-same-rate", same, "none")):
        if (trace := traces.get(arm)) is not None:
            tasks, colour = np.arange(1, trace.sizes["task"] + 1), COLOURS[like]
            style.spread(left, tasks, phases.updates(trace), colour=colour, label=label)
            phases.draw_learning(
                right, trace, 0, linestyle=":", color=colour, label=f"{label}, first task"
            )
            phases.draw_learning(right, trace, -1, color=colour, label=f"{label}, last task")
    slow = {
        "power-slow": ("power law, learning rate 0.001", "power"),
        "none": ("sequential, the same", "none"),
    }
    for arm, (label, like) in slow.items() if set(slow) <= set(traces) else ():
        found = phases.updates(traces[arm]).mean(axis=0)
        left.plot(np.arange(1, len(found) + 1), found, "--", color=COLOURS[like], label=label)
    for arm, dashes, label in (
        ("fresh", "-", "fresh networks"),
        ("fresh-slow", "--", "fresh networks, 0.001"),
    ):
        if arm in traces:
            found = phases.updates(traces[arm]).mean(axis=0)
            left.plot(
                np.arange(1, len(found) + 1),
                found,
                dashes,
                color=style.INK,
                linewidth=1,
                label=label,
            )
    left.set(xlabel="number of the task", ylabel="updates to the criterion", ylim=(0, None))
    pictures.plain_ticks(left, (1, 5, 10, 15, 20))
    right.set(xlabel="updates on the task", ylabel="accuracy on it in %", ylim=(0, 100))
    left.legend(fontsize=7.5, ncol=2, loc="lower left")
    right.legend(fontsize=8)


def _swept(kind: str, levels: Sequence[float], base: float) -> Mapping[str, Any]:
    def effect(name: str, level: float) -> Effect:
        return accuracy[name if level == base else f"{kind}-{level:g}/{name}"]

    x = sorted([*levels, base])
    return {LABELS[name]: (x, [effect(name, level) for level in x]) for name in SWEPT}


SMOKE = {"data": "digits", "side": 8, "tasks": 4, "examples": 64, "batch": 16, "width": 8, "exam": 20,
         "world_tasks": 12, "histories": 2}  # fmt: skip
FULL = {"data": "fashion-mnist", "side": 28, "width": 256, "examples": 10_000, "exam": 1000}
study = Study(
    paper=Paper(
        "power-law-rehearsal",
        "Catastrophic Interference is Mitigated in Naturalistic Power-Law Learning Environments",
        "Atith Gandhi, Raj Sanjay Shah, Vijay Marupudi, Sashank Varma", "arXiv preprint", 2024, "2401.10393",
    ),
    family="forgetting",
    question="How much forgetting remains when old tasks come back at a rate that falls as a power law of their age?",
    symptoms=(
        "how should old and new data be mixed under a compute budget",
        "monthly slices of data, how much history to train on",
        "rehearsal schedule, how often to revisit earlier tasks",
        "catastrophic interference between tasks learned in sequence",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("power", "exponential", "none", "none-same-rate", "ewc", "met", "ages", "encounters"), SMOKE),
        "quick": Budget(8, also=("window", "ages-window", "encounters", "encounters-even")),
        "thorough": Budget(8, also=("ages-window",)),
        "full": Budget(5, settings=FULL),
    },
    claims=CLAIMS,
    figures=(
        Figure("by-age", "Accuracy on each task after the last of twenty, by how many tasks were learned since. Bands (of three): "
               "from the lowest to the highest seed.", draw_by_age, ("power",)),
        Figure("environment", "Left: what the last of twenty tasks rehearses, by the age of a task, with the exponent of "
               "all ages by maximum likelihood. Middle: the odds of a task that was last met so long ago (ages that were not rare), in histories "
               "of 100 tasks. Right: how long tasks take to come back.", draw_environment, ("ages",)),
        Figure("schedules", "Accuracy after the last of twenty tasks; dots are seeds, bars means. Right: each task weighs "
               "as much as a power law will need it, of exponent 1 where the row names none.",
               pictures.dots({"accuracy over all tasks in %": {label: accuracy[arm] for arm, label in ROWS.items()},
                              "accuracy by need in %": {label: needed[arm] for arm, label in ROWS.items()}}), ("power",)),
        Figure("facilitation", "Updates that a task takes to 85 % of what the first reached, and accuracy on the first and "
               "the last task while they are learned. Dashed: at a learning rate of 0.001. Black: networks that start anew with each task.", draw_facilitation, ("power", "none-same-rate")),
        Figure("sweeps", "Final accuracy by the number of tasks, the size of the network, and the amount rehearsed.",
               pictures.trend(
                   ("number of tasks", _swept("tasks", TASKS, 20)),
                   ("units of a layer, relative", _swept("size", SIZES, 1.0)),
                   ("rehearsed, share of a task", _swept("amount", AMOUNTS, 0.5)),
                   ylabel="accuracy in %"), ("tasks-5/power",)),
    ),
    data="MNIST-5k, 14 x 14, permuted",
    notes="The paper's schedule, exponent, amounts and networks are not told in what could be read: they are the study's "
    "own. Each of twenty tasks permutes the 196 pixels, has 4,000 examples once, and then half as many of earlier tasks; "
    "an MLP of two layers of 100 units, Adam, one head. All arms make the same number of updates; the regularisers and "
    "sequential training make them on the current task, so that rehearsal alone sees old examples again. Learning rates "
    "and strengths are the best on two other seeds at twenty tasks, and are kept in the sweeps. Full: Fashion-MNIST, 28 x 28, 256 units, 10,000 examples a task.",
    watch="accuracy",
)  # fmt: skip
