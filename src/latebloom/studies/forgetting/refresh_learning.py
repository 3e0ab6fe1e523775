"""A unified and general framework for continual learning: one objective, and refresh learning.

Wang, Li, Shen, Huang (ICLR 2024, arXiv 2403.13249).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.dataset import Dataset
from latebloom.core.stream import Stream, class_incremental, domain_incremental
from latebloom.core.views import Permutation
from latebloom.data import load_scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    chosen,
    combined,
    highest,
    log10,
    lowest,
    mean,
)
from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.confidence import CPR
from latebloom.methods.forgetting.continual import Replay
from latebloom.methods.forgetting.distillation import LwF
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.objective import Compared, Objective, Output, Weight, as_objective
from latebloom.methods.forgetting.penalties import EWC, L2
from latebloom.methods.forgetting.perturbed import SAM, ExtraStep, RandomStep, WeightNoise
from latebloom.methods.forgetting.refresh import Refresh, ReleasedRefresh
from latebloom.methods.forgetting.replay import DER, ER
from latebloom.methods.forgetting.sharpness import Watched
from latebloom.methods.forgetting.terms import percent
from latebloom.nn import MLP

Setting = Literal["class", "permuted"]
Host = Literal["er", "der", "ewc", "lwf", "cpr", "dark", "l2", "mixed"]
Variant = Literal[
    "off", "paper", "ascent", "released", "scaled", "extra", "sam", "random", "noise", "twin", "other"
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """A host, and what moves its parameters before each update.

    - `setting`: two classes a task, told in exams without the task ("class"), or pixels "permuted".
    - `rate` of plain gradient descent; `one`, `two`: the host's own weights, in the order of its fields (of
      CPR around EWC: EWC's and CPR's).
    - `variant`: the paper's refresh with its noise ("paper") or without ("ascent"), the code's as shipped
      ("released") or with a `size` of its own ("scaled"), and four controls; `size` is gamma, delta, rho. Or
      nothing is moved, and the gradient compared with that of its "twin", the host written as an instance of
      the objective, or with that of another ("other").
    - `climb` steps of refresh, up `objective`, with the `fisher` of a task, a step or none; `every` so many
      updates.
    - `flat`: flatness is watched, and what perturbations do.
    - `tasks` of `steps` updates with `batch` new examples and `replay` of the `memory`.
    """

    setting: Setting = "class"
    host: Host = "der"
    variant: Variant = "off"
    rate: float = 0.1
    one: float = 0.5
    two: float = 0.5
    size: float = 0.0
    climb: int = 1
    every: int = 1
    objective: Literal["all", "new"] = "all"
    fisher: Literal["task", "step", "none"] = "task"
    tasks: int = 5
    steps: int = 150
    batch: int = 16
    replay: int = 32
    memory: int = 200
    width: int = 100
    data: str = "mnist-5k"
    side: int = 14
    exam: int = 150
    flat: bool = False


# Three spaces at once: logits and labels of old examples, confident predictions, weights.
MIXED = Objective(
    (
        Output(2.0, "square", "stored"),
        Output(0.5, "entropy", "label", "other"),
        Output(0.1, "entropy", "uniform", "new", "output"),
    ),
    (Weight(2.0, "fisher", batches=5),),
)


def host_of(config: Config) -> Method:
    one, two = (jnp.asarray(x, jnp.float32) for x in (config.one, config.two))
    elastic = partial(EWC, one, batches=min(20, config.steps))
    hosts: dict[str, Callable[[], Method]] = {
        "er": lambda: ER(one), "der": lambda: DER(one, two), "ewc": elastic,
        "lwf": lambda: LwF(one, over="seen"), "cpr": lambda: CPR(elastic(), two),
        "dark": lambda: DER(one, 0.0), "l2": lambda: L2(one), "mixed": lambda: MIXED,
    }  # fmt: skip
    return hosts[config.host]()


def method_of(config: Config) -> Method:
    host, size = host_of(config), jnp.asarray(config.size, jnp.float32)
    batches = min(20, config.steps)
    refresh = partial(
        Refresh, host, size, config.climb, config.objective, config.fisher, every=config.every, batches=batches
    )  # fmt: skip
    variants: dict[str, Callable[[], Method]] = {
        "off": lambda: host, "paper": partial(refresh, temperature=1.0), "ascent": partial(refresh, temperature=0.0),
        "released": lambda: ReleasedRefresh(host, batches=batches),
        "scaled": lambda: ReleasedRefresh(host, size, batches=batches),
        "extra": lambda: ExtraStep(host, size, config.every), "sam": lambda: SAM(host, size, config.every),
        "random": lambda: RandomStep(host, size, config.every),
        "noise": lambda: WeightNoise(host, size, config.every),
        "twin": lambda: Compared(host, as_objective(host)),
        "other": lambda: Compared(host, as_objective(ER(0.5))),
    }  # fmt: skip
    return variants[config.variant]()


def make_process(config: Config) -> Watched:
    data = load_scaled(config.data, side=config.side, flat=True)
    method = method_of(config)
    return Watched(
        model=partial(_network, data.x_train.shape[1], config.width), data=data,
        stream=partial(_stream, config, data), method=method,
        replay=Replay(config.memory, config.replay) if method.replays else None,
        optimiser=_sgd, hyper={"rate": config.rate}, tell=config.flat or config.variant in ("twin", "other") or config.host == "mixed", flat=config.flat,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The ends of tasks; of the mixed objective, every tenth of a task."""
    parts = 10 if config.host == "mixed" else 1
    return np.unique(np.linspace(0, config.tasks * config.steps, parts * config.tasks + 1).round().astype(int))  # fmt: skip


def _network(pixels: int, width: int, key: PRNGKeyArray) -> MLP:
    return MLP(pixels, (width, width), 10, key=key)


def _sgd(rate: Array) -> optax.GradientTransformation:
    return optax.sgd(rate)


def _stream(config: Config, data: Dataset, key: PRNGKeyArray) -> Stream:
    sizes: dict[str, Any] = {
        "tasks": config.tasks, "steps": config.steps, "batch_size": config.batch, "exam_size": config.exam,
    }  # fmt: skip
    if config.setting == "class":
        return class_incremental(data.y_train, data.y_test, key=key, **sizes)
    stream = domain_incremental(data.y_train, data.y_test, key=key, **sizes)
    orders = Permutation.drawn(config.tasks, data.x_train.shape[1], key=key)
    return eqx.tree_at(lambda s: s.view, stream, orders)


# What won on seeds 100 and 101 (benchmarks/refresh_learning_tuning.py): rate, weights, and a size for each variant.
TUNED: dict[str, dict[str, dict[str, float]]] = tuned_beside(__file__)
NAMES: dict[Host, str] = {
    "er": "ER",
    "der": "DER++",
    "ewc": "EWC",
    "lwf": "LwF",
    "cpr": "CPR on EWC",
}
CLASS: tuple[Host, ...] = ("er", "der")
FORMS: dict[Variant, str] = {
    "paper": "refresh, paper", "ascent": "refresh, paper, no noise", "released": "refresh, code as shipped",
    "scaled": "refresh, code, larger",
}  # fmt: skip
CONTROLS: dict[Variant, str] = {
    "extra": "extra step down", "sam": "SAM", "random": "random direction", "noise": "weight noise",
}  # fmt: skip

ROWS = {**FORMS, **CONTROLS}


def tuned(host: Host, variant: Variant = "off", **more: Any) -> Config:
    """A host in its setting, and a variant around it, with the settings that tuning found."""
    found = TUNED.get(host, {})
    setting: Setting = "class" if host in CLASS else "permuted"
    own: dict[str, Any] = {"batch": 32, "exam": 500} if setting == "permuted" else {}
    own |= found.get("host", {}) | {"size": found.get("size", {}).get(variant, 0.0)}
    return Config(setting, host, variant, **own | more)


GAMMAS, CLIMBS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (1, 2, 4)
NOISY = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
LONG = 500  # updates a task, ten passes over its examples
LONGER: dict[str, Host] = {"long": "der", "long-er": "er"}
ABLATED: dict[str, dict[str, Any]] = {
    "fisher-none": {"fisher": "none"}, "fisher-step": {"fisher": "step"}, "new": {"objective": "new"},
    "every-2": {"every": 2}, "every-4": {"every": 4},
    "silent": {"size": TUNED["der"]["size"]["paper"]},
}  # fmt: skip
TWINS: dict[str, Config] = {
    "er": Config("class", "er", "twin"), "der": Config("class", "dark", "twin"),
    "der++": Config("class", "der", "twin"), "lwf": Config("class", "lwf", "twin"),
    "l2": Config("class", "l2", "twin"), "ewc": Config("class", "ewc", "twin"),
    "cpr": Config("class", "cpr", "twin"), "other": Config("class", "der", "other"),
}  # fmt: skip
ARMS: dict[str, Config] = {
    **{f"{host}/{variant}": tuned(host, variant, flat=host == "der")
       for host in NAMES for variant in ("off", *FORMS, *CONTROLS)},
    **{f"twin/{name}": replace(config, steps=40) for name, config in TWINS.items()},
    **{f"climb-{j}/{g:g}": tuned("der", "ascent", climb=j, size=g) for j in CLIMBS for g in GAMMAS},
    **{f"noisy/{g:g}": tuned("der", "paper", size=g) for g in NOISY},
    **{name: tuned("der", "ascent", **more) for name, more in ABLATED.items()},
    **{f"{long}/{variant}": tuned(host, variant, steps=LONG)
       for long, host in LONGER.items() for variant in ("off", "paper", "ascent", "released", "noise")},
    **{f"long-ewc/{variant}": tuned("ewc", variant, steps=750) for variant in ("off", "paper", "extra", "noise")},  # six passes
    "mixed": Config("class", "mixed", "off", rate=0.1),
}  # fmt: skip


def _later(name: str, trace: xr.Dataset) -> np.ndarray:
    """A quantity at all observations but the first, [step, seed]."""
    return trace[name].transpose("step", "seed", ...).values[1:].astype(float)


accuracy = percent("average accuracy", metrics.average_accuracy)
survived = Measure("average accuracy, 0 where it diverged", lambda t: np.nan_to_num(accuracy(t)))
transfer = percent("backward transfer", metrics.backward_transfer)
when_learned = percent("accuracy on a task when it is over", metrics.accuracy_when_learned)
told = Measure(
    "accuracy, told the task", lambda t: 100 * t.task_accuracy.values[:, -1].mean(axis=1)
)
apart = Measure("largest difference of gradients", lambda t: _later("apart", t).max(axis=0))
unlearned = Measure("rise of the loss", lambda t: _later("unlearned", t).mean(axis=0))
moved = Measure("mean perturbation / parameters", lambda t: _later("perturbation", t).mean(axis=0))
ratio = Measure(
    "largest perturbation / parameters", lambda t: _later("perturbation", t).max(axis=0)
)
per_length = unlearned / moved


def _passes(trace: xr.Dataset) -> np.ndarray:
    config = json.loads(trace.attrs["config"])
    examples = len(load_scaled(config["data"], side=config["side"], flat=True).y_train)
    a_task = examples / (config["tasks"] if config["setting"] == "class" else 1)
    return np.full(trace.sizes["seed"], config["steps"] * config["batch"] / a_task)


passes = Measure("passes over each task", _passes)
steep = Measure("log Fisher norm", lambda t: np.log(_later("fisher_norm", t)).mean(axis=0))
curved = Measure(
    "log eigenvalue", lambda t: np.log(_later("eigenvalue", t).clip(1e-6)).mean(axis=0)
)


def gain(host: str, variant: str, of: Measure = accuracy) -> Effect:
    return of[f"{host}/{variant}"] - of[f"{host}/off"]


def over_best(host: str, variant: str) -> Effect:
    """A variant less the best control of the same host."""
    controls = [accuracy[f"{host}/{control}"] for control in CONTROLS]
    return accuracy[f"{host}/{variant}"] - chosen(controls)


def fails(climb: int) -> Effect:
    """log10 of the least gamma with an accuracy more than 5 points below the host's; of ten times the largest
    where none is."""

    def of(host: np.ndarray, *values: np.ndarray) -> np.ndarray:
        low = np.stack(values) < host - 5
        grid = np.log10([*GAMMAS, 10 * GAMMAS[-1]])
        return grid[np.where(low.any(axis=0), low.argmax(axis=0), len(GAMMAS))]

    swept = [survived[f"climb-{climb}/{g:g}"] for g in GAMMAS]
    return combined("gamma of failure", of, accuracy["der/off"], *swept)


POINTS, FLATTER = (
    "percentage points",
    "theoretical analysis: L and its Fisher-weighted gradient norm",
)
ENHANCES, PLUGIN = "specifically designed to enhance the CL performance", "a versatile plug-in that seamlessly integrates with existing CL methods"  # fmt: skip
SPECIAL = "encompassing established CL approaches as special instances within a unified objective"
RETAINS, ACQUIRES = "sheds outdated information to improve the retention of crucial knowledge", "and facilitate the acquisition of new information"  # fmt: skip
UNLEARNS = "operates by initially unlearning current data and subsequently relearning it"


def when(host: str) -> str:
    return "quick" if host in ("der", "ewc") else "thorough"


CEILING = "told the task, the host is at its ceiling"
FEW, REMEMBERS = (
    "each task is passed over fewer than 5 times, by the paper 50 and more times",
    "the host forgets less than 5 points",
)


def regime(*arms: str) -> tuple[Need, ...]:
    """Where the paper speaks: tasks are passed over often enough (a tenth of its number), and forgotten."""
    return (
        Need(lowest(passes[arm] for arm in arms), "> 5", FEW),
        Need(mean([transfer[arm] for arm in arms]), "< -5", REMEMBERS),
    )


# What rounding does: two programs of one run.
ROUNDING = abs(accuracy["climb-1/0.003"] - accuracy["der/ascent"])
NEVER = accuracy["der/off"] - accuracy["der/ascent"]  # refreshed at no update
CLAIMS = (
    Claim("C1.same", "ER, DER, DER++, LwF, L2, EWC and CPR, written as two lists of terms, have the same gradients at every "
          "update (relative)", SPECIAL, highest(apart[f"twin/{name}"] for name in TWINS if name != "other"), "< 1e-5",
          "ratio", null=apart["twin/other"]),
    *(Claim(f"C2.{form}.{host}", f"{name}, {text}: more than a point above {name}", ENHANCES, gain(host, form), "> 1", POINTS,
            budget=when(host), null=gain(host, "noise"), needs=regime(f"{host}/off"))
      for host, name in NAMES.items() for form, text in FORMS.items()),
    *(Claim(f"C2.best.{form}.{host}", f"{name}, {text}: above the best control of the same price", f"{ENHANCES} (controls are ours)",
            over_best(host, form), "> 0", POINTS, budget=when(host), null=over_best(host, "off"))
      for host, name in NAMES.items() for form, text in FORMS.items()),
    *(thorough(f"C2.all.{form}", f"{text}: more than a point above the host, mean of five hosts", PLUGIN,
               mean([gain(host, form) for host in NAMES]), "> 1", POINTS, null=mean([gain(host, "noise") for host in NAMES]),
               needs=regime(*(f"{host}/off" for host in NAMES)))
      for form, text in FORMS.items()),
    *(thorough(f"C2.task.{form}.{host}", f"{NAMES[host]}, {text}: told the task, more than a point above {NAMES[host]}",
               ENHANCES + " (task-incremental)", gain(host, form, told), "> 1", POINTS, null=gain(host, "noise", told),
               needs=(Need(told[f"{host}/off"], "< 97", CEILING), *regime(f"{host}/off")))
      for host in CLASS for form, text in FORMS.items()),
    *(thorough(f"C2.long.{form}", f"So it is for DER++ after ten passes over each task: {FORMS[form]}", ENHANCES,
               accuracy[f"long/{form}"] - accuracy["long/off"], "> 1", POINTS, null=accuracy["long/noise"] - accuracy["long/off"], needs=regime("long/off"))
      for form in ("paper", "ascent", "released")),
    *(thorough(f"C2.long.{form}.er", f"So it is for ER after ten passes over each task: {FORMS[form]}", ENHANCES,
               accuracy[f"long-er/{form}"] - accuracy["long-er/off"], "> 1", POINTS, null=accuracy["long-er/noise"] - accuracy["long-er/off"],
               needs=regime("long-er/off"), added="after results")
      for form in ("paper", "ascent", "released")),
    *(thorough(f"C2.long.{form}.ewc", f"EWC after six passes over each task, {ROWS[form]}: more than a point above EWC", paper,
               accuracy[f"long-ewc/{form}"] - accuracy["long-ewc/off"], "> 1", POINTS, null=accuracy["long-ewc/noise"] - accuracy["long-ewc/off"],
               needs=regime("long-ewc/off"), added="after results")
      for form, paper in (("paper", ENHANCES), ("extra", "(ours: whether a control's gain is more than too few updates)"))),
    *(Claim(f"C3.{form}.{host}", f"{name}, {FORMS[form]}: backward transfer is better", RETAINS, gain(host, form, transfer), "> 0",
            POINTS, budget=when(host), null=gain(host, "noise", transfer), needs=regime(f"{host}/off"))
      for host, name in NAMES.items() for form in ("paper", "ascent")),
    *(Claim(f"C3.new.{form}.{host}", f"{name}, {FORMS[form]}: tasks are known better when they are over", ACQUIRES,
            gain(host, form, when_learned), "> 0", POINTS, budget=when(host), null=gain(host, "noise", when_learned), needs=regime(f"{host}/off"))
      for host, name in NAMES.items() for form in ("paper", "ascent")),
    *(thorough(f"{id}.{form}", f"DER++ after ten passes over each task, {FORMS[form]}: {text}", paper, of[f"long/{form}"] - of["long/off"],
               "> 0", POINTS, null=of["long/noise"] - of["long/off"], needs=regime("long/off"), added="after results")
      for id, text, paper, of in (("C3.long", "backward transfer is better", RETAINS, transfer),
                                  ("C3.long.new", "tasks are known better when they are over", ACQUIRES, when_learned))
      for form in ("paper", "ascent")),
    *(Claim(f"M.{form}", f"DER++, {text}: a perturbation raises the loss by more for its length than one in a random direction",
            UNLEARNS, per_length[f"der/{form}"] - per_length["der/random"], "> 0", "nats a length", null=per_length["der/noise"] - per_length["der/random"])
      for form, text in FORMS.items()),
    Claim("R.ratio", "As shipped, no perturbation is more than 0.0001 of the parameters", "(delta = 0.00001 in the code)",
          ratio["der/released"], "< 1e-4", "ratio", null=ratio["der/ascent"]),
    thorough("R.rounding", "As shipped it changes a run of DER++ by less than a point more than rounding alone does (two "
             "programs of one run)", "(ours)", abs(gain("der", "released")) - ROUNDING, "< 1", POINTS,
             null=mean([abs(gain("der", control)) for control in CONTROLS]) - ROUNDING, added="after results"),
    *(Claim(f"C4.norm.{form}", f"DER++, {FORMS[form]}: the Fisher norm of the gradient is smaller at the ends of tasks",
            FLATTER, gain("der", form, steep), "< 0", "log ratio", null=gain("der", "noise", steep))
      for form in ("paper", "ascent", "scaled")),
    *(Claim(f"C4.eigen.{form}", f"DER++, {FORMS[form]}: so is the largest eigenvalue of the Hessian",
            "flatter (ours)", gain("der", form, curved), "< 0", "log ratio", null=gain("der", "noise", curved))
      for form in ("paper", "ascent", "scaled")),
    thorough("C5.range", "DER++ gains at every gamma from 0.003 to 0.03 and 1, 2 or 4 steps (least)", "effective (ablation of gamma and J)",
             chosen((accuracy[f"climb-{j}/{g:g}"] - accuracy["der/off"] for j in CLIMBS for g in GAMMAS[:3]), lowest=True), "> 0", POINTS),
    thorough("C5.boundary", "Four steps fail at a smaller gamma than one", "(ours)", fails(1) - fails(4), "> 0", "log10"),
    thorough("S.noise", "The paper's form with noise, at the gamma tuned for it, beats that without, at its own", "(Langevin step)",
             accuracy["der/paper"] - accuracy["der/ascent"], "> 0", POINTS),
    thorough("S.same", "At one gamma, that tuned with the noise, the noise is worth having", "(Langevin step)",
             accuracy["der/paper"] - accuracy["silent"], "> 0", POINTS, null=accuracy["der/off"] - accuracy["silent"], added="after results"),
    thorough("S.langevin", "At gamma = 0.01 the noise costs more than 5 points (0 % where it diverged)", "(ours)",
             survived["noisy/0.01"] - survived["climb-1/0.01"], "< -5", POINTS, null=survived["climb-1/0.01"] - survived["der/off"], added="after results"),
    thorough("S.fisher", "The preconditioner of past tasks is worth having", "(inverse Fisher matrix)", accuracy["der/ascent"] - accuracy["fisher-none"], "> 0", POINTS),
    thorough("S.running", "So is one of the gradients on the way", "(inverse Fisher matrix)", accuracy["fisher-step"] - accuracy["fisher-none"], "> 0", POINTS),
    thorough("S.objective", "Unlearning all that is minimised beats unlearning the new batch", "(the paper's against the code's)", accuracy["der/ascent"] - accuracy["new"], "> 0", POINTS),
    thorough("S.every", "Refreshed at every second update it is at most half a point worse", "every second for speed", accuracy["every-2"] - accuracy["der/ascent"], "> -0.5", POINTS, null=NEVER),
    thorough("S.seldom", "At every fourth, too", "(ours)", accuracy["every-4"] - accuracy["der/ascent"], "> -0.5", POINTS, null=NEVER),
)  # fmt: skip


GAIN = "points above it alone"


def gains(*hosts: Host) -> dict[str, Effect]:
    return {text: mean([gain(host, form) for host in hosts]) for form, text in ROWS.items()}


@pictures.by_hand(width=7.5, height=3.9, legend=True)
def draw_terms(traces: Traces, ax: Axes) -> None:
    trace = traces["mixed"]
    names = {
        "new: entropy to label": "new labels", "old: square to stored": "stored logits",
        "other: entropy to label": "old labels", "new: entropy to uniform": "confidence",
        "weights: fisher from the last task": "weights, Fisher metric",
    }  # fmt: skip
    marks = ("o", "s", "^", "D", "v")
    for (name, label), mark, colour in zip(names.items(), marks, style.colours, strict=False):
        values = trace.terms.sel(term=name).transpose("seed", "step").values
        style.spread(ax, trace.step.values, values, colour=colour, marker=mark, markersize=4, markevery=5, label=label)  # fmt: skip
    config = json.loads(trace.attrs["config"])
    for task in range(1, config["tasks"]):
        ax.axvline(task * config["steps"], color=style.INK, linestyle=":", linewidth=0.8)
    ax.set(xlabel="updates (dotted: a new task)", ylabel="contribution to the loss in nats")
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set_ylim(bottom=0)


GAINS = {f"{name}: {GAIN}": gains(host) for host, name in NAMES.items()} | {
    f"mean of five hosts: {GAIN}": gains(*NAMES)
}
ALIKE = {title: {"xlim": (-6, 10)} for title in GAINS}
RISE = "rise of the loss in nats"
SMOKE = {"data": "digits", "side": 8, "tasks": 5, "steps": 6, "batch": 8, "replay": 8, "memory": 20, "width": 8, "exam": 10}  # fmt: skip
FULL = {"data": "fashion-mnist", "side": 28, "steps": 1200, "batch": 10, "replay": 128, "exam": 1000}  # fmt: skip
study = Study(
    paper=Paper(
        "refresh-learning", "A Unified and General Framework for Continual Learning",
        "Zhenyi Wang, Yan Li, Li Shen, Heng Huang", "ICLR", 2024, "2403.13249", "joey-wang123/CL-refresh-learning",
    ),
    family="forgetting",
    question="Are regularisation and replay one objective, and does a short step of unlearning before each update help?",
    symptoms=(
        "old knowledge stands in the way of new tasks, loss of plasticity",
        "improve a replay method such as DER++ by a plug-in",
        "how do EWC, replay and distillation relate",
        "is it worth a second gradient a step: SAM, unlearning, weight noise",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("der/off", "der/paper", "der/released", "der/noise", "twin/cpr", "mixed"), SMOKE),
        "quick": Budget(8, also=("mixed",)),
        "thorough": Budget(8, also=("mixed", *(f"climb-2/{g:g}" for g in GAMMAS), *(f"noisy/{g:g}" for g in NOISY))),
        "full": Budget(5, settings=FULL, arm_settings={a: {"steps": 10 * FULL["steps"]} for a in ARMS if a.startswith("long")}),
    },
    claims=CLAIMS,
    figures=(
        Figure("gains", "Accuracy after the last task less that of the host alone: dots are seeds, bars means. All but "
               "weight noise take two gradients an update, the host one.",
               pictures.dots(GAINS, levels={"": 0.0}, own=ALIKE),
               ("der/off",)),
        Figure("sweep", "DER++ with the paper's refresh. Left: by gamma and the number of steps, without noise. Right: with the "
               "noise of a Langevin step, as long as the root of gamma. A run that diverged counts as 0.",
               pictures.trend(
                   ("without noise", {f"J = {j}": (GAMMAS, [survived[f"climb-{j}/{g:g}"] for g in GAMMAS]) for j in CLIMBS}),
                   ("with noise", {"J = 1": (NOISY, [survived[f"noisy/{g:g}"] for g in NOISY])}),
                   xscale="log", xlabel="gamma", ylabel="accuracy in %"), ("climb-1/0.01", "noisy/1e-05")),
        Figure("perturbation", "DER++: how far an update moves the parameters before its gradient is taken (largest), and by how much "
               "that raises the loss (mean).",
               pictures.dots({"perturbation / parameters, log10": {text: log10(ratio[f"der/{form}"]) for form, text in ROWS.items()},
                              RISE: {text: unlearned[f"der/{form}"] for form, text in ROWS.items()}},
                             own={RISE: {"ticks": (-0.1, -0.05, 0, 0.05)}}), ("der/paper",)),
        Figure("flatness", "DER++: flatness at the ends of tasks against the host's, mean log ratio: below 0 is flatter.",
               pictures.dots({"Fisher norm of the gradient, log ratio": {text: gain("der", form, steep) for form, text in ROWS.items()},
                              "largest eigenvalue, log ratio": {text: gain("der", form, curved) for form, text in ROWS.items()}},
                             levels={"": 0.0}), ("der/off",)),
        Figure("terms", "What each term of a mixed objective contributes, over five tasks: mean and range of seeds.", draw_terms, ("mixed",)),
    ),
    data="MNIST-5k, 14 x 14: two classes a task, or permuted",
    notes="Five tasks of 150 updates (thorough: also 500, of EWC 750, where the paper's claims on accuracy are "
    "judged), an MLP of two layers of 100 units, plain gradient descent. Class-incremental for what replays (16 new and 32 old examples, memory of 200), permuted pixels for EWC, LwF and CPR (32 examples), which cannot tell "
    "classes of different tasks apart. Rates and weights are the best on two other seeds; sizes of perturbations are "
    "the best of five for each form and control. Paper: CIFAR and Tiny ImageNet with a ResNet-18. Full: "
    "Fashion-MNIST, 28 x 28, 1,200 updates a task.",
    watch="accuracy",
)  # fmt: skip
