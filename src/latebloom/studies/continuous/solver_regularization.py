"""Opening the blackbox: neural differential equations that are cheap to solve, by the solver's own estimates of error and stiffness.

Pal, Ma, Shah, Rackauckas (ICML 2021, arXiv 2105.03918).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.dataset import Dataset
from latebloom.core.sdes import SOSRI, SOSRI2
from latebloom.data import load_scaled
from latebloom.data.dynamics import gaussian_ring, irregular_oscillators, spiral_moments
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.losses import cross_entropy
from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    at,
    average,
    curve,
    effect,
    final,
    log,
    log10,
    spearman,
    tail,
)
from latebloom.methods.continuous.flow import FlowLearner, squash_flow
from latebloom.methods.continuous.latent_ode import LatentODELearner, latent_ode, series_dataset
from latebloom.methods.continuous.neural_ode import NeuralODELearner, Penalty, classifier
from latebloom.methods.continuous.neural_sde import (
    MomentFit,
    NeuralSDELearner,
    Plane,
    stochastic_classifier,
)
from latebloom.methods.continuous.regularisers import Aggregate

Task = Literal["digits", "noise", "spiral", "series", "density"]


@dataclass(frozen=True)
class Config:
    """A task, a penalty, and how it is learned.

    - `task`: "digits" by an ordinary equation, or with "noise" by a stochastic one; moments of a noisy "spiral"; irregular
      "series" by a latent equation; "density" of points by a flow.
    - `penalty` with `strength`, at the end `last` (0: the same), put together by `aggregate`; `through`: gradients go
      through the lengths of steps; `steer`: random ends (of series: random times); `decay` of weights; `stiff`: the
      stochastic method that estimates stiffness, whatever the penalty.
    - `data`, `side`, `train`, `exam`: images; `hidden` units; `tolerance` of the solver, both; `rate`, `batch`, `steps`.
    - `valid`: examined on examples kept from training, for tuning.
    """

    task: Task = "digits"
    penalty: Penalty = "none"
    strength: float = 1.0
    last: float = 0.0
    aggregate: Aggregate = "sum"
    through: bool = True
    steer: float = 0.0
    decay: float = 0.0
    stiff: bool = False
    data: str = "mnist-5k"
    side: int = 7
    train: int = 3000
    exam: int = 1000
    hidden: int = 32
    tolerance: float = 1e-6
    rate: float = 0.1
    batch: int = 64
    steps: int = 600
    order: int = 3
    looks: int = 6
    valid: bool = False
    show: int = 0


def make_process(config: Config) -> NeuralODELearner | MomentFit:
    return {"digits": _digits, "noise": _noise, "spiral": _spiral, "series": _series, "density": _density}[config.task](config)  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The start, and evenly."""
    return np.unique(np.round(np.linspace(0, config.steps, config.looks + 1)).astype(int))


def images(config: Config) -> Dataset:
    """The examples; with `valid` those for the exam are the last of the training part, which are then not trained on."""
    data = load_scaled(config.data, side=config.side, flat=True)
    train = min(config.train, len(data.x_train) - (config.exam if config.valid else 0))
    x, y = data.x_train, data.y_train
    exam = (x[-config.exam :], y[-config.exam :]) if config.valid else (data.x_test[: config.exam], data.y_test[: config.exam])  # fmt: skip
    return Dataset(x[:train], y[:train], *exam)


def _penalised(config: Config) -> dict[str, Any]:
    last = config.last if config.last else config.strength
    return {
        "penalty": config.penalty, "strengths": (config.strength, last), "aggregate": config.aggregate,
        "through_steps": config.through, "horizon_steps": config.steps, "batch_size": config.batch, "seeds_by": "map",
        "hyper": {"rate": config.rate, "decay": config.decay},
    }  # fmt: skip


def _tolerances(config: Config) -> dict[str, Any]:
    return {"rtol": config.tolerance, "atol": config.tolerance, "max_steps": 200}


def _digits(config: Config) -> NeuralODELearner:
    with jax.enable_x64(True):  # stiffness is a quotient of tiny differences
        data = images(config)
        wide = (x.astype(jnp.float64) for x in (data.x_train, data.x_test))
        return NeuralODELearner(
            model=classifier(config.side**2, config.hidden, 10, dtype=jnp.float64, **_tolerances(config)),
            data=Dataset(next(wide), data.y_train, next(wide), data.y_test),
            loss=cross_entropy, x64=True, optimiser=momentum, end_width=config.steer, taylor_order=config.order, show=config.show,
            **_penalised(config),
        )  # fmt: skip


def _noise(config: Config) -> NeuralSDELearner:
    stiff = config.stiff or "stiffness" in config.penalty
    return NeuralSDELearner(
        model=stochastic_classifier(config.side**2, 32, config.hidden, 10, tableau=SOSRI2 if stiff else SOSRI, **_tolerances(config)),
        data=images(config), loss=cross_entropy, optimiser=adam, **_penalised(config),
    )  # fmt: skip


def _spiral(config: Config) -> MomentFit:
    moments = spiral_moments(jax.random.key(int(config.valid)))  # another draw for tuning
    return MomentFit(
        model=partial(_plane, config.hidden), start=[2.0, 0.0], times=moments.times, means=moments.means,
        variances=moments.variances, optimiser=belief, hyper={"rate": config.rate}, strength=config.strength,
        penalty=config.penalty, aggregate=config.aggregate, paths=config.batch, tolerance=config.tolerance,
    )  # fmt: skip


def _plane(hidden: int, key: PRNGKeyArray) -> Plane:
    return Plane(hidden, key=key)


def _series(config: Config) -> LatentODELearner:
    draw = partial(irregular_oscillators, jax.random.key(0), channels=config.side, times=25)
    parts = [
        draw(n, part=p) for n, p in ((config.train, 0), (config.exam, 2 if config.valid else 1))
    ]
    train, test = ((np.asarray(part.values), np.asarray(part.there)) for part in parts)
    return LatentODELearner(
        model=latent_ode(config.side, np.asarray(parts[0].times), state=20, gates=20, size=8, hidden=config.hidden, pairs=2, **_tolerances(config)),
        data=series_dataset(train, test), optimiser=adamax, moving=config.steer > 0, deviation=0.1,
        epoch_steps=max(1, config.train // config.batch), **_penalised(config),
    )  # fmt: skip


def _density(config: Config) -> FlowLearner:
    keys = jax.random.split(jax.random.key(7), 3)
    train, test = gaussian_ring(keys[0], config.train), gaussian_ring(keys[2 if config.valid else 1], config.exam)  # fmt: skip
    return FlowLearner(
        model=squash_flow(2, config.hidden, **_tolerances(config)),
        data=Dataset(train, train[:, 0], test, test[:, 0]), optimiser=adam, **_penalised(config),
    )  # fmt: skip


def momentum(rate: Any, decay: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=0.9))


def adam(rate: Any, decay: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))


def adamax(rate: Any, decay: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay), optax.adamax(rate))


def belief(rate: Any) -> optax.GradientTransformation:
    return optax.adabelief(rate)


# What won on seeds 100 and 101 (benchmarks/solver_regularization_tuning.py).
TUNED: dict[str, Any] = tuned_beside(__file__)
TASKS: dict[str, dict[str, Any]] = {
    "digits": {},
    "noise": {"hidden": 64, "tolerance": 0.14, "steps": 300, "batch": 128, "looks": 3},
    "spiral": {"hidden": 50, "tolerance": 0.3, "steps": 250, "batch": 100},
    "series": {"side": 10, "hidden": 30, "train": 400, "exam": 200, "batch": 100, "steps": 400, "tolerance": 1e-4},
    "density": {"hidden": 16, "train": 1536, "exam": 512, "batch": 512, "steps": 200, "tolerance": 1e-4},
}  # fmt: skip
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {}, "stiff-none": {"stiff": True}, "error": {"penalty": "error"}, "stiffness": {"penalty": "stiffness"},
    "both": {"penalty": "error_and_stiffness"}, "squared": {"penalty": "error_squared"}, "mean": {"penalty": "error", "aggregate": "mean"},
    "largest": {"penalty": "stiffness", "aggregate": "max"}, "taylor": {"penalty": "taylor"}, "kinetic": {"penalty": "kinetic"},
    "steer": {"steer": 0.5}, "decay": {},
}  # fmt: skip


def tuned(task: Task, kind: str, **more: Any) -> Config:
    """An arm with its tuned strength, or decay, and the task's rate."""
    table = TUNED[task]
    own = {"decay" if kind == "decay" else "strength": table[kind]} if kind in table else {}
    return Config(task, **(TASKS[task] | {"rate": table["rate"]} | PENALTIES[kind] | own | more))


digits = partial(tuned, "digits")
DOSES = (0.01, 0.1, 1.0, 10.0, 100.0)  # times the tuned strength
ERROR = TUNED["digits"]["error"]
ARMS: dict[str, Config] = {
    **{kind: digits(kind) for kind in PENALTIES if kind != "stiff-none"},
    "none": digits("none", show=64), "error": digits("error", show=64),
    "annealed": digits("error", strength=10**0.5 * ERROR, last=ERROR / 10**0.5),
    "detached": digits("error", through=False), "steer/error": digits("error", steer=0.5), "steer/stiffness": digits("stiffness", steer=0.5),
    **{f"error/{dose:g}": digits("error", strength=dose * ERROR) for dose in DOSES if dose != 1},
    **{f"noise/{kind}": tuned("noise", kind) for kind in ("none", "stiff-none", "error", "stiffness")},
    **{f"spiral/{kind}": tuned("spiral", kind) for kind in ("none", "error")},
    **{f"series/{kind}": tuned("series", kind) for kind in ("none", "error", "stiffness", "steer")},
    "series/steer/error": tuned("series", "error", steer=0.5),
    **{f"density/{kind}": tuned("density", kind) for kind in ("none", "error", "kinetic")},
}  # fmt: skip

cost, score = final("evaluations"), final("test_accuracy")
first_cost = at("evaluations", 0)
loss, hidden, fit = final("test_loss"), final("hidden_loss"), final("fit")
late, whole = tail("train_work", 1 / 3), average(curve("train_work")[1:])
training = tail("train_evaluations", 1 / 3)


def ratio(one: str, other: str = "none", of: Measure = cost) -> Effect:
    return of[one] / of[other]


def lost(one: str, other: str = "none") -> Effect:
    """Accuracy less than the other's, in points."""
    return 100 * (score[other] - score[one])


def spent(trace: xr.Dataset) -> np.ndarray:
    """Work of training up to each observation, [seed, observation]."""
    work = np.nan_to_num(trace.train_work.values.astype(float))
    return np.cumsum(work * np.diff(trace.step.values, prepend=0), axis=1)


def at_equal_cost(one: str, other: str) -> Effect:
    """Accuracy of one arm less the other's, in points, where each has spent what the one that spent less has in the end."""

    @effect(f"accuracy of {one} less {other}'s at equal work of training", one, other)
    def gap(traces: Traces) -> np.ndarray:
        work = {arm: spent(traces[arm]) for arm in (one, other)}
        budget = np.minimum(*(w[:, -1] for w in work.values()))
        found = [
            [np.interp(b, w, s) for b, w, s in zip(budget, work[arm], traces[arm].test_accuracy.values, strict=True)]
            for arm in (one, other)
        ]  # fmt: skip
        return 100 * (np.array(found[0]) - np.array(found[1]))

    return gap


LEAST = "force the NDE to learn the version with the least steps"
HALVE = "can halve the prediction time"
TRAINING = "similar reduction in training times"
TENFOLD = "other methods ... can increase the training time by an order of magnitude"
HIGHER = "high order automatic differentiation, leading to significantly higher training time"
SDE = "extends beyond Ordinary Differential Equations to accommodate Neural Stochastic Differential Equations"
CHEAP = "local error estimates and stiffness heuristics as cheap and accurate cost estimates"
SIMILAR, COMBINED = "(similar accuracy)", "(each can be combined with STEER)"
RATIO, POINTS, RANK = "ratio of evaluations", "points of accuracy", "rank correlation"
WORK = "ratio of work"
LEARNED = Need(score["none"], "> 0.8", "the digits were not learned")
GROWN = Need(
    cost["none"] / first_cost["none"], "> 1.2", "without a penalty evaluations did not grow"
)
STRONG = f"error/{DOSES[-1]:g}"
CLAIMS = (
    Claim("R.grow", "Without a penalty evaluations grow by more than a fifth in training", LEAST, cost["none"] / first_cost["none"], "> 1.2", RATIO,
          null=cost[STRONG] / first_cost[STRONG]),
    Claim("C1.error", "The error penalty leaves less than 0.8 of the evaluations at prediction", HALVE, ratio("error"), "< 0.8", RATIO, null=ratio("decay"), needs=(GROWN,)),
    Claim("C1.half", "It leaves less than half", HALVE, ratio("error"), "< 0.5", RATIO, null=ratio("decay"), needs=(GROWN,)),
    Claim("C1.accuracy", "At less than a point of accuracy", SIMILAR, lost("error"), "< 1", POINTS, null=lost(STRONG), needs=(LEARNED,)),
    Claim("C1.stiffness", "The stiffness penalty leaves less than 0.8 of the evaluations", HALVE, ratio("stiffness"), "< 0.8", RATIO, null=ratio("decay"), needs=(GROWN,)),
    Claim("C1.stiffness-accuracy", "At less than a point of accuracy", SIMILAR, lost("stiffness"), "< 1", POINTS, null=lost(STRONG), needs=(LEARNED,)),
    Claim("C2.train", "With the error penalty a step of training takes less work, too, in the last third", TRAINING, ratio("error", of=late), "< 1", WORK,
          null=ratio("taylor", of=late)),
    Claim("C2.stiffness", "So it does with the stiffness penalty", TRAINING, ratio("stiffness", of=late), "< 1", WORK, null=ratio("taylor", of=late)),
    Claim("C2.taylor", "With third derivatives (TayNODE) it takes more than 1.5 times as much", HIGHER, ratio("taylor", of=late), "> 1.5", WORK,
          null=ratio("error", of=late)),
    Claim("C2.tenfold", "Nearer to ten times than to once (log10)", TENFOLD, log10(ratio("taylor", of=late)), "> 0.5", "orders of magnitude",
          null=log10(ratio("error", of=late))),
    Claim("C2.equal", "At equal work of training the error penalty is at most a point below no penalty", TRAINING, at_equal_cost("error", "none"), "> -1", POINTS,
          null=at_equal_cost("taylor", "none"), needs=(LEARNED,)),
    Claim("C3.noise", "A stochastic classifier needs less than 0.95 of the evaluations", SDE, ratio("noise/error", "noise/none"), "< 0.95", RATIO),
    Claim("C3.accuracy", "At less than 1.5 points", SDE, lost("noise/error", "noise/none"), "< 1.5", POINTS),
    Claim("C3.spiral", "The spiral needs less than 0.9 of the evaluations", SDE, ratio("spiral/error", "spiral/none"), "< 0.9", RATIO),
    Claim("C3.fit", "And its fit is less than a quarter worse", SDE, ratio("spiral/error", "spiral/none", fit), "< 1.25", "ratio of misfits",
          null=at("fit", 0)["spiral/none"] / fit["spiral/none"]),
    Claim("C5.decay", "Weight decay, at less than a point, leaves more evaluations than the error penalty (ours)", CHEAP, ratio("decay", "error"), "> 1.1", RATIO,
          needs=(Need(-1 * lost("decay"), "> -1", "weight decay cost a point"),)),
    thorough("C5.dose", "The stronger the error penalty, the fewer evaluations (ours)", CHEAP,
             spearman([-d for d in DOSES], [cost["error" if d == 1 else f"error/{d:g}"] for d in DOSES]), "> 0.8", RANK),
    thorough("C2.taylor-cost", "Third derivatives leave less than 0.8 of the evaluations at prediction, too", HIGHER, ratio("taylor"), "< 0.8", RATIO, null=ratio("decay")),
    thorough("C2.kinetic", "Kinetic energy and Jacobian (RNODE) take more work a step than the error penalty", HIGHER, ratio("kinetic", "error", late), "> 1", WORK),
    thorough("C2.whole", "Over the whole of training the error penalty takes less work than none", TRAINING, ratio("error", of=whole), "< 1", WORK, null=ratio("taylor", of=whole)),
    thorough("C3.stiffness", "By stiffness the stochastic classifier needs less than 0.95 of the same method's evaluations", SDE,
             ratio("noise/stiffness", "noise/stiff-none"), "< 0.95", RATIO),
    thorough("C3.stiffness-accuracy", "At less than 1.5 points", SDE, lost("noise/stiffness", "noise/stiff-none"), "< 1.5", POINTS),
    thorough("C3.train", "Its training takes fewer evaluations, too", SDE, ratio("noise/error", "noise/none", training), "< 1", RATIO),
    thorough("C4.steer-error", "With random ends (STEER) the error penalty leaves less than 0.9 of their evaluations", COMBINED, ratio("steer/error", "steer"), "< 0.9", RATIO),
    thorough("C4.steer-stiffness", "So does the stiffness penalty", COMBINED, ratio("steer/stiffness", "steer"), "< 0.9", RATIO),
    thorough("C4.steer-accuracy", "The error penalty with random ends costs less than a point against random ends", COMBINED, lost("steer/error", "steer"), "< 1", POINTS,
             null=lost(STRONG)),
    thorough("C4.steer", "The error penalty leaves fewer evaluations than random ends do", HALVE, ratio("error", "steer"), "< 1", RATIO),
    thorough("C4.tasks", "Error and stiffness win on different tasks: of their log ratios on digits and series, one is negative", "(they win on different tasks)",
             log(ratio("error", "stiffness")) * log(ratio("series/error", "series/stiffness")), "< 0", "product of log ratios"),
    thorough("L.error", "A latent equation of irregular series needs less than 0.8 of the evaluations", HALVE, ratio("series/error", "series/none"), "< 0.8", RATIO,
             null=ratio("series/steer", "series/none")),
    thorough("L.stiffness", "By stiffness, too", HALVE, ratio("series/stiffness", "series/none"), "< 0.8", RATIO, null=ratio("series/steer", "series/none")),
    thorough("L.loss", "The error of values that it did not see is less than a quarter higher", SIMILAR, ratio("series/error", "series/none", hidden), "< 1.25", "ratio of errors",
             null=at("hidden_loss", 0)["series/none"] / hidden["series/none"]),
    thorough("L.stiffness-loss", "And with stiffness", SIMILAR, ratio("series/stiffness", "series/none", hidden), "< 1.25", "ratio of errors",
             null=at("hidden_loss", 0)["series/none"] / hidden["series/none"]),
    thorough("L.steer", "With random times it leaves less than 0.9 of theirs", COMBINED, ratio("series/steer/error", "series/steer"), "< 0.9", RATIO),
    thorough("F.error", "A flow needs less than 0.8 of the evaluations", HALVE, ratio("density/error", "density/none"), "< 0.8", RATIO),
    thorough("F.loss", "At less than 0.1 nats", SIMILAR, loss["density/error"] - loss["density/none"], "< 0.1", "nats", null=at("test_loss", 0)["density/none"] - loss["density/none"]),
    thorough("F.kinetic", "Its training takes less work than with kinetic energy and Jacobian", TRAINING, ratio("density/error", "density/kinetic", late), "< 1", WORK),
    thorough("A.through", "Gradients through the lengths of steps matter: without them evaluations are more than a twentieth higher (ours)", "(discrete adjoint)", ratio("detached", "error"), "> 1.05", RATIO),
    thorough("A.both", "Error and stiffness together leave less than 0.8 of the evaluations", "(the code's third variant)", ratio("both"), "< 0.8", RATIO, null=ratio("decay"), needs=(GROWN,)),
    thorough("A.squared", "So do squared errors (ours)", "(E^2 in place of E)", ratio("squared"), "< 0.8", RATIO, null=ratio("decay"), needs=(GROWN,)),
    thorough("A.largest", "So does the largest stiffness, as the code has it", "(the code's aggregate)", ratio("largest"), "< 0.8", RATIO, null=ratio("decay"), needs=(GROWN,)),
    thorough("A.mean", "The mean over steps, as the code has it, leaves more evaluations than the sum (ours)", "(the code's aggregate)", ratio("mean", "error"), "> 1", RATIO),
    thorough("A.annealed", "A strength that falls tenfold is no worse than a constant one: less than a twentieth more evaluations", "(annealed in the code)", ratio("annealed", "error"), "< 1.05", RATIO),
)  # fmt: skip

NAMES = {
    "none": "no penalty", "error": "error", "stiffness": "stiffness", "both": "error and stiffness", "squared": "squared error", "mean": "error, mean over steps",
    "largest": "largest stiffness", "detached": "error, steps constant", "annealed": "error, annealed", "steer": "random ends", "steer/error": "random ends, error",
    "steer/stiffness": "random ends, stiffness", "taylor": "third derivative (TayNODE)", "kinetic": "kinetic and Jacobian (RNODE)", "decay": "weight decay",
}  # fmt: skip
COURSE = {name: NAMES[name] for name in ("none", "error", "stiffness", "taylor", "decay")}


@pictures.by_hand(2, 2, legend=True, width=9.0, height=3.8)
def draw_front(traces: Traces, ax: Axes, work: Axes) -> None:
    """Accuracy against evaluations at prediction, and against work of training; a dot a seed, a cross the mean."""
    rows = {arm: name for arm, name in NAMES.items() if arm in traces}
    for i, (arm, name) in enumerate(rows.items()):
        look = pictures.nth_look(i)
        for panel, x in ((ax, cost(traces[arm])), (work, late(traces[arm]))):
            y = 100 * score(traces[arm])
            panel.plot(x, y, ".", color=look["colour"], alpha=0.35)
            panel.plot(x.mean(), y.mean(), marker="oD^vs"[i // 7], color=look["colour"], linestyle="", markersize=7, label=name)  # fmt: skip
    doses = [f"error/{d:g}" if d != 1 else "error" for d in DOSES]
    doses = [arm for arm in doses if arm in traces]
    line = [(cost(traces[a]).mean(), 100 * score(traces[a]).mean()) for a in doses]
    if len(line) > 1:
        ax.plot(*np.transpose(line), color=style.INK, linewidth=0.9, linestyle=":", label="error, strength from 1/100 to 100 times")  # fmt: skip
    ax.set(xlabel="evaluations at prediction", ylabel="test accuracy in %", xscale="log")
    work.set(xlabel="work of a step of training, last third", xscale="log")


@pictures.by_hand(2, 2, legend=True, width=8.5, height=3.4)
def draw_steps(traces: Traces, ax: Axes, errors: Axes) -> None:
    """Lengths and scaled errors of the steps along time, of the test examples after training; each seed a line."""
    for i, arm in enumerate(a for a in ("none", "error") if a in traces):
        trace = traces[arm]
        for k, when in ((0, 0), (-1, -1)):
            rows = trace.isel(step=when)
            if k == 0 and arm != "none":
                continue
            colour = style.colours[i] if k else style.INK
            label = NAMES[arm] if k else "before training"
            for n, seed in enumerate(rows.seed.values):
                one = rows.sel(seed=seed)
                seen = np.isfinite(one.length.values)
                t = one.start.values[seen]
                ax.step(t, one.length.values[seen], where="post", color=colour, alpha=0.6, label=label if not n else None)  # fmt: skip
                errors.plot(t, one.local_error.values[seen], ".-", color=colour, alpha=0.6, linewidth=0.8)  # fmt: skip
    ax.set(xlabel="time", ylabel="length of the step", yscale="log", xlim=(0, 1))
    errors.set(xlabel="time", ylabel="local error in tolerances", xlim=(0, 1), ylim=(0, 1.05))


@pictures.by_hand(2, 2, legend=True, width=8.5, height=3.2)
def draw_spiral(traces: Traces, *axes: Axes) -> None:
    """Means over paths, a band of a deviation, and the data, of the first seed."""
    truth = spiral_moments(jax.random.key(0))
    for ax, arm in zip(axes, ("spiral/none", "spiral/error"), strict=True):
        if arm not in traces:
            continue
        last = traces[arm].isel(seed=0, step=-1)
        for k in range(2):
            mean, deviation = last["mean"].values[:, k], np.sqrt(last.variance.values[:, k])
            ax.plot(truth.times, mean, color=style.colours[k], label=f"u{k + 1}")
            ax.fill_between(truth.times, mean - deviation, mean + deviation, color=style.colours[k], alpha=0.2)  # fmt: skip
            ax.errorbar(truth.times, truth.means[:, k], np.sqrt(truth.variances[:, k]), fmt=".", color=style.colours[k], markersize=3, linewidth=0.6)  # fmt: skip
        ax.set(title=f"{NAMES[arm.split('/')[1]]}: {int(last.evaluations)} evaluations", xlabel="time", ylabel="state")  # fmt: skip


def _tasks(of: Callable[[str], Effect]) -> dict[str, Effect]:
    return {
        "digits: error": of("error"), "digits: stiffness": of("stiffness"), "noisy digits: error": ratio("noise/error", "noise/none"),
        "noisy digits: stiffness": ratio("noise/stiffness", "noise/stiff-none"), "spiral: error": ratio("spiral/error", "spiral/none"),
        "series: error": ratio("series/error", "series/none"), "series: stiffness": ratio("series/stiffness", "series/none"),
        "density: error": ratio("density/error", "density/none"), "density: kinetic": ratio("density/kinetic", "density/none"),
    }  # fmt: skip


SMOKE = {
    "data": "digits", "side": 8, "train": 64, "exam": 32, "hidden": 6, "batch": 16, "steps": 4, "looks": 2, "tolerance": 1e-3,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    **{arm: {"tolerance": 0.3, "side": 8} for arm in ARMS if arm.startswith(("noise", "spiral"))},
    **{arm: {"side": 4} for arm in ARMS if arm.startswith("series")},
}
FULL = {"data": "mnist", "side": 28, "train": 60_000, "exam": 10_000, "hidden": 100, "batch": 512, "steps": 75 * 117, "tolerance": 1e-6}  # fmt: skip
FULL_ARMS: dict[str, dict[str, Any]] = {
    **{arm: {"hidden": 64, "steps": 40 * 117, "tolerance": 0.14} for arm in ARMS if arm.startswith("noise")},
    **{arm: {"hidden": 50, "batch": 100, "steps": 250, "tolerance": 0.3} for arm in ARMS if arm.startswith("spiral")},
    **{arm: {"side": 37, "train": 6400, "exam": 1600, "hidden": 50, "steps": 300 * 12} for arm in ARMS if arm.startswith("series")},
    **{arm: {"train": 1536, "exam": 512, "hidden": 16, "batch": 1024, "steps": 40} for arm in ARMS if arm.startswith("density")},
}  # fmt: skip

study = Study(
    paper=Paper(
        "solver-regularization", "Opening the Blackbox: Accelerating Neural Differential Equations by Regularizing Internal Solver Heuristics",
        "Avik Pal, Yingbo Ma, Viral Shah, Christopher Rackauckas", "ICML", 2021, "2105.03918", "avik-pal/RegNeuralDE.jl",
    ),
    family="continuous",
    question="Do neural differential equations become cheap to solve when the solver's own estimates of error and stiffness are penalised?",
    symptoms=(
        "the number of function evaluations of a neural ODE grows during training",
        "prediction with a neural ODE or SDE is too slow",
        "the learned dynamics are stiff, the solver takes tiny steps",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("none", "error", "taylor", "noise/error", "spiral/error", "series/error", "density/error"), SMOKE, SMALL),
        "quick": Budget(5),
        "thorough": Budget(5),
        "full": Budget(5, settings=FULL, arm_settings=FULL_ARMS),
    },
    claims=CLAIMS,
    figures=(
        Figure("front", "Test accuracy against evaluations at prediction and against work of training; dots are seeds, large marks their means. "
               "Work is in evaluations of the field with its gradient.", draw_front, ("none", "error")),
        Figure("course", "Evaluations for the test examples as one batch, and accuracy, over training; bands span the seeds.",
               pictures.curves({"evaluations": "evaluations", "test accuracy": "test_accuracy"}, ("digits", COURSE), xlabel="update"), ("none", "error")),
        Figure("steps", "Steps of the solver along time, for the test examples; each seed a line.", draw_steps, ("none", "error")),
        Figure("doses", "Evaluations and accuracy by the strength of the error penalty, in tuned strengths; seeds and their mean.", pictures.trend(
            ("evaluations", {"": (DOSES, [cost["error" if d == 1 else f"error/{d:g}"] for d in DOSES])}),
            ("test accuracy", {"": (DOSES, [score["error" if d == 1 else f"error/{d:g}"] for d in DOSES])}), xscale="log"), (f"error/{DOSES[0]:g}",)),
        Figure("tasks", "Evaluations at prediction, as a share of those without a penalty; dots are seeds, bars means.",
               pictures.dots({"share of evaluations": _tasks(ratio)}, levels={"as many": 1}), ("noise/error",)),
        Figure("spiral", "Mean and deviation of the paths, and of the data (dots), first seed.", draw_spiral, ("spiral/none", "spiral/error")),
    ),
    data="MNIST-5k, 7 x 7; a noisy spiral; irregular oscillators; a ring of Gaussians",
    notes="In place of MNIST there are 3,000 of its images at 7 x 7, 32 hidden units in place of 100, 64 bits and a tolerance of 1e-6 in place of 32 and 1.4e-8 "
    "(which is below their precision), 600 updates of 64 images; in place of PhysioNet's patients, oscillators of 10 channels at 25 irregular times. "
    "Time is counted: evaluations at prediction, and in training evaluations with gradient, weighted by their matrix products. "
    "Penalties are sums over steps; the authors' means and maxima are arms. Strengths are those with the fewest evaluations, on other seeds and "
    "examples, among those that cost less than an allowance (digits: 0.75 points).",
)  # fmt: skip
