"""Grokking as the transition from lazy to rich training dynamics.

Kumar, Bordelon, Gershman, Pehlevan (ICLR 2024, arXiv 2310.06110).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom import log_steps
from latebloom.core.process import Process
from latebloom.core.training import Supervised
from latebloom.data import ModularArithmetic, Subset, load, scaled
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.losses import mean_squared_error
from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    Observable,
    Traces,
    at,
    at_least,
    curve,
    final,
    first_step,
    highest,
    log,
    log10,
    measure,
    pearson,
    spearman,
    steepest_rise,
)
from latebloom.methods.grokking.lazy_rich import ClosedDynamics
from latebloom.methods.grokking.scaled_mlp import NarrowTeacher, ScaledMLP
from latebloom.nn.transformer import Transformer
from latebloom.probes.linearised import Centred
from latebloom.probes.supervised import ntk_alignment, parameter_norm, target_power

TRAINED, GENERALISED = 0.1, 0.2  # loss / mean(y^2) that dates fitting and generalising


@dataclass(frozen=True)
class Config:
    """One run. The first half is the polynomial committee machine, the second the networks.

    - `alpha`: output scale; larger is lazier. `epsilon`: quadratic part of the activation.
    - `rate`: step size over width, see `ClosedDynamics`.
    - `samples`, `neurons`: None for infinitely many. `samples` is also the size of the
      networks' training set of images.
    - `task`: "committee", "images" (ReLU network), "modular" (one-layer transformer), or
      "teacher" (two-layer ReLU student of `width` units, teacher of three).
    """

    task: Literal["committee", "images", "modular", "teacher"] = "committee"
    alpha: float = 1.0
    epsilon: float = 0.25
    rate: float = 0.5
    weight_scale: float = 1.0
    dim: int = 100
    samples: int | None = 550
    neurons: int | None = 500
    centred: bool = False
    linearised: bool = False
    spectrum: bool = False
    dtype: Literal["float32", "float64"] = "float64"

    data: str = "mnist-5k"
    modulus: int = 97
    width: int = 200
    batch_size: int | None = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    probe_points: int = 300
    steps: int = 60_000
    per_decade: int = 15


def make_process(config: Config) -> Process:
    if config.task == "committee":
        return ClosedDynamics(
            alpha=config.alpha, epsilon=config.epsilon, rate=config.rate,
            weight_scale=config.weight_scale, dim=config.dim, samples=config.samples,
            neurons=config.neurons, probe_points=config.probe_points, centred=config.centred,
            linearised=config.linearised, spectrum=config.spectrum, dtype=config.dtype,
        )  # fmt: skip
    training: dict[str, Any] = {
        "optimiser": _adamw,
        "hyper": {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay},
        "loss": mean_squared_error,
        "batch_size": config.batch_size,
    }
    probes: dict[str, Any] = {
        "train_target_power": partial(target_power, "train"),
        "test_target_power": partial(target_power, "test"),
        "weight_norm": parameter_norm,
    }
    if config.task == "images":
        if config.samples is None:
            raise ValueError("samples must be a number where the task is images.")
        data = Subset(scaled(load(config.data), flat=True), config.samples, 2000)
        probes["ntk_alignment"] = partial(ntk_alignment, config.probe_points)
    elif config.task == "modular":
        data = ModularArithmetic(config.modulus, train_fraction=0.5, encoding="tokens")
    else:
        data = NarrowTeacher(config.dim, config.samples or 1)
        rate = config.rate * config.width / config.alpha**2
        training = {
            "optimiser": optax.sgd,
            "hyper": {"learning_rate": rate},
            "loss": optax.squared_error,
            "accuracy": False,
        }
    return Supervised(model=partial(_network, config), data=data, probes=probes, **training)


def schedule(config: Config) -> np.ndarray:
    return log_steps(config.steps, config.per_decade)


def _network(config: Config, key: PRNGKeyArray) -> eqx.Module:
    if config.task == "modular":
        p = config.modulus
        return Transformer(
            p, p, key=key, hidden=4 * 128, dropout=0.0, positions=2, logit_scale=config.alpha
        )
    if config.task == "teacher":
        sizes = (config.dim, config.width, 1)
        return Centred(ScaledMLP(sizes, key=key, alpha=config.alpha, scale=config.weight_scale))
    inputs = 64 if config.data == "digits" else 784
    sizes = (inputs, config.width, config.width, config.width, 10)
    return ScaledMLP(sizes, key=key, alpha=config.alpha, scale=config.weight_scale)


def _adamw(learning_rate: Array, weight_decay: Array) -> optax.GradientTransformation:
    # The output scale of the transformer is an array too, but no weight.
    return optax.adamw(
        learning_rate, weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 0, params),
    )  # fmt: skip


# Sweeps: level -> arm
ALPHA_ARMS = {a: f"alpha-{a:g}" for a in (0.25, 1.0, 4.0, 16.0)}
EVERY_ALPHA_ARM = {a: f"alpha-{a:g}" for a in (2**-5, *ALPHA_ARMS, 0.5, 2.0, 8.0, 32.0)}
EPSILON_ARMS = {0.125: "epsilon-0.125", 0.25: "alpha-1"} | {e: f"epsilon-{e:g}" for e in (0.5, 1.0, 2.0)}  # fmt: skip
SAMPLE_ARMS = {r: f"samples-{r}d" for r in (1, 2, 4, 8, 16, 32)}  # training samples per dimension
NORM_ARMS = {s: f"norm-{s:g}" for s in (0.125, 0.25, 0.5, 1.0, 2.0)}
IMAGE_ARMS = {a: f"images-{a:g}" for a in (0.001, 0.05, 0.5)}
DECAY_ARMS = {a: f"images-decay-{a:g}" for a in IMAGE_ARMS}
TOKEN_ARMS = {a: f"transformer-{a:g}" for a in (1.0, 4.0, 16.0)}
STUDENT_ARMS = {a: f"student-{a:g}" for a in (0.25, 1.0, 4.0)}

BASE = Config()
IMAGES = replace(
    BASE, task="images", weight_scale=150.0, samples=1000, steps=250_000, probe_points=100
)
TOKENS = replace(BASE, task="modular", batch_size=None, steps=20_000)
STUDENT = replace(
    BASE, task="teacher", dim=20, samples=100, rate=0.2, weight_scale=10.0, steps=20_000
)


ARMS: dict[str, Config] = {
    "base": BASE,
    "base-linearised": replace(BASE, linearised=True, centred=True),
    "figure-1": replace(BASE, epsilon=0.02, rate=1.0, steps=100_000),
    **{arm: replace(BASE, alpha=a, spectrum=a == 1.0) for a, arm in EVERY_ALPHA_ARM.items()},
    **{arm: replace(BASE, epsilon=e) for e, arm in EPSILON_ARMS.items() if e != BASE.epsilon},
    "epsilon-4": replace(BASE, epsilon=4.0),
    **{arm: replace(BASE, samples=r * BASE.dim) for r, arm in SAMPLE_ARMS.items()},
    **{arm: replace(BASE, weight_scale=s, rate=0.5 / s**2, centred=True) for s, arm in NORM_ARMS.items()},
    "infinite-width": replace(BASE, neurons=None),
    "population": replace(BASE, neurons=None, samples=None),
    **{arm: replace(IMAGES, alpha=a) for a, arm in IMAGE_ARMS.items()},
    **{arm: replace(IMAGES, alpha=a, weight_decay=0.01) for a, arm in DECAY_ARMS.items()},
    **{arm: replace(TOKENS, alpha=a) for a, arm in TOKEN_ARMS.items()},
    **{arm: replace(STUDENT, alpha=a) for a, arm in STUDENT_ARMS.items()},
}  # fmt: skip

train = curve("train_loss") / curve("train_target_power")  # over the mean of y^2
test = curve("test_loss") / curve("test_target_power")


def falls_to(loss: Curve, level: float, never: Literal["end", "nan"] = "end") -> Measure:
    return at_least(first_step(loss, level, below=True, never=never), 1)


fit, generalised = falls_to(train, TRAINED), falls_to(test, GENERALISED)
fit_if_ever, generalised_if_ever = falls_to(train, TRAINED, "nan"), falls_to(test, GENERALISED, "nan")  # fmt: skip
delay = log10(generalised / fit_if_ever)  # where a run ends before it generalises: a lower bound
fall_after_fit = at(test, fit) / final(test)
plateau = curve("test_loss") / curve("plateau")


@measure("delay, 0 where it never generalises")
def window_delay(trace: xr.Dataset) -> np.ndarray:
    return np.where(np.isnan(generalised_if_ever(trace)), 0, delay(trace))


def aligns_with(rise: Curve) -> Effect:
    """Over the epsilon arms: when alignment rises fastest against when `rise` does."""
    aligns, rises = (log10(steepest_rise(line)) for line in (curve("ntk_alignment"), rise))
    arms = EPSILON_ARMS.values()
    return pearson([aligns[arm] for arm in arms], [rises[arm] for arm in arms])


def order(of: Measure, arms: Mapping[float, str]) -> Effect:
    return spearman(list(arms), [of[arm] for arm in arms.values()])


def longer(arms: Mapping[float, str]) -> Effect:
    """Delay of the last arm beyond that of the first, where that one generalises at all."""
    first, *_, last = arms.values()
    return delay[last] - log10(generalised_if_ever / fit_if_ever)[first]


few, *middling, many = (window_delay[arm] for arm in SAMPLE_ARMS.values())
SLOWER, COINCIDES = "worse initial alignment: longer delay", "the drop coincides with the rise in alignment"  # fmt: skip
LOSS, STEPS, RANK, PEARSON = "loss / mean y^2", "log10 of steps", "Spearman", "Pearson, log steps"
CLAIMS = (
    Claim("C1", "After fitting, the test loss falls much further, by plain gradient descent",
          "test loss stays high long after the training loss, then falls to about 0 (Fig. 1)",
          fall_after_fit["base"], "> 3", "test loss at fit / at end", null=fall_after_fit["base-linearised"]),
    Claim("C1b", "When the training set is fitted, the test loss is near that of regression with K_0",
          "the plateau is the kernel regression error (Fig. 1)", abs(at("test_loss", fit) / at("plateau", 0) - 1)["base"],
          "< 0.25", "relative distance", null=abs(at(plateau, 0) - 1)["base"]),
    Claim("C1c", "In the end it generalises", "test loss near 0 (Fig. 1)", final(test)["base"], "< 0.2", LOSS,
          null=final(test)["base-linearised"]),
    Claim("C1d", "There is a delay between fitting and generalising", "orders of magnitude (Fig. 1)",
          delay["base"], "> 0", STEPS, null=delay["samples-32d"]),
    Claim("C2", "The larger alpha, the later it generalises: rank correlation over alpha 1/4 to 16",
          "monotone over 2^-5 to 2^5", order(generalised, ALPHA_ARMS), "> 0.7", RANK,
          null=0.0),  # in any order
    Claim("C2b", "The same over nine alphas from 2^-5 to 2^5", "monotone over 2^-5 to 2^5",
          order(generalised, EVERY_ALPHA_ARM), "> 0.7", RANK, budget="full", null=0.0),
    Claim("C2c", "A small alpha (2^-5) shortens the delay itself", "alpha small: train and test fall together",
          delay["alpha-0.03125"] - delay["alpha-1"], "< 0", STEPS),
    Claim("C3", "The smaller eps, the later it generalises: rank correlation over eps 1/8 to 2", SLOWER,
          order(generalised, EPSILON_ARMS), "< -0.7", RANK, null=0.0),
    Claim("C3b", "Log test loss falls fastest when the kernel aligns fastest: correlation over eps", COINCIDES,
          aligns_with(-log(curve("test_loss"))), "> 0.8", PEARSON, null=aligns_with(-log(curve("train_loss")))),
    Claim("C3c", "The smaller eps, the longer the delay counted from the fit (log10 t_test/t_train)", SLOWER,
          order(delay, EPSILON_ARMS), "< -0.7", RANK, null=0.0),
    Claim("C3d", "As C3b for the loss itself (added when the log loss turned out to fall to the end)", COINCIDES,
          aligns_with(-curve("test_loss")), "> 0.8", PEARSON, null=aligns_with(-curve("train_loss")),
          added="after results"),
    Claim("C4", "The linearised twin never generalises: it stays at the plateau", "grokking is not in the kernel (Fig. 1)",
          final(plateau)["base-linearised"], "> 0.8", "loss / K_0 regression loss", null=final(plateau)["base"]),
    Claim("C5", "The delay is longest at a training set of middling size",
          "a window of sizes: too few never generalise, too many need no delay", highest(middling) - highest((few, many)),
          "> 0", STEPS),
    Claim("C5b", "One sample per dimension is too few to generalise", "too few: never generalises",
          final(test)["samples-1d"], "> 0.2", LOSS, null=final(test)["samples-32d"]),
    Claim("C6", "The weights grow while the test loss drops, without weight decay", "a falling weight norm is not needed",
          (at("weight_norm", generalised) / at("weight_norm", fit) - 1)["base"], "> 0", "relative change"),
    Claim("C6b", "A start with a quarter of the weight norm is delayed too", "a large initial norm is not needed",
          delay["norm-0.25"], "> 0", STEPS, null=delay["samples-32d"]),
    Claim("C7", "In a ReLU network on images a larger output scale gives a longer delay, without decay",
          "alpha controls grokking on MNIST", longer(IMAGE_ARMS), "> 0", STEPS),
    Claim("C7b", "The same with weight decay 0.01", "alpha controls grokking on MNIST", longer(DECAY_ARMS), "> 0", STEPS,
          budget="thorough"),
    Claim("C7c", "And in a one-layer transformer on modular addition", "alpha controls grokking in a transformer",
          longer(TOKEN_ARMS), "> 0", STEPS, budget="full"),
    Claim("C7d", "And in a two-layer ReLU student of a narrow teacher", "the same in student-teacher networks",
          longer(STUDENT_ARMS), "> 0", STEPS, budget="thorough"),
)  # fmt: skip


def sweep_labels(symbol: str, arms: Mapping[float, str]) -> dict[str, str]:
    return {arm: f"{symbol} = {level:g}" for level, arm in sorted(arms.items())}


STARTS = tuple(NORM_ARMS.values())[1:]
LOSSES = {"training loss / mean y²": train, "test loss / mean y²": test}
HEIGHTS = {label: {"ylim": (0, 1.6)} for label in LOSSES}


def sweep(arms: dict[str, str], more: dict[str, Observable], **scale: Any) -> pictures.Picture:
    """Both losses, and one observable more."""
    return pictures.curves({**LOSSES, **more}, ("", arms), log_steps=True, look=pictures.shades(arms.values()),
                           own=HEIGHTS | dict.fromkeys(more, scale))  # fmt: skip


def mark_plateau(ax: Axes, trace: xr.Dataset) -> None:
    height = float((trace.plateau / trace.test_target_power).isel(step=0).mean())
    pictures.horizontal(ax, height, "regression with $K_0$")


def window(of: Measure, label: str, levels: Mapping[str, float] | None = None) -> pictures.Picture:
    ratios, arms = list(SAMPLE_ARMS), SAMPLE_ARMS.values()
    return pictures.trend(("", {"": (ratios, [of[arm] for arm in arms])}), xscale="log", ylabel=label, levels=levels,
                          xlabel="training samples / dimension", ticks=ratios)  # fmt: skip


def draw_times(traces: Traces) -> MatplotlibFigure:
    alphas, arms = zip(*sorted(EVERY_ALPHA_ARM.items()), strict=True)
    lines = {label: (alphas, [times[arm] for arm in arms]) for label, times in (("training loss below 0.1", fit), ("test loss below 0.2", generalised))}  # fmt: skip
    end = {"end of the run": traces["alpha-1"].step.values[-1]}
    return pictures.trend(("", lines), geometric=True, levels=end, xscale="log", yscale="log",
                          xlabel="output scale α", ylabel="step")(traces)  # fmt: skip


@pictures.by_hand(2, legend=True)
def draw_spectrum(traces: Traces, left: Axes, right: Axes) -> None:
    trace = traces["alpha-1"]
    for row, colour in ((0, style.colours[0]), (-1, style.colours[1])):
        values = trace.eigenvalue.isel(step=row).mean("seed")
        coefficients = trace.task_coefficient.isel(step=row)
        share = coefficients.cumsum("mode") / coefficients.sum("mode")
        left.plot(trace.mode, values / values[0], color=colour, label=f"step {trace.step.values[row]:,}")  # fmt: skip
        right.plot(trace.mode, share.mean("seed"), color=colour)
        right.fill_between(trace.mode, share.min("seed"), share.max("seed"), color=colour,
                           alpha=0.18, linewidth=0)  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="mode k", ylabel="eigenvalue / largest",
             title="spectrum of the tangent kernel")  # fmt: skip
    right.set(xscale="log", ylim=(0, 1), xlabel="mode k",
              ylabel="share of the task in modes 1 to k", title="task: cumulated ⟨y, v⟩²")  # fmt: skip


NETWORKS = {"images, no decay": IMAGE_ARMS, "images, weight decay": DECAY_ARMS,
            "transformer, modular addition": TOKEN_ARMS, "student and teacher": STUDENT_ARMS}  # fmt: skip
SCALED = sorted({*IMAGE_ARMS, *TOKEN_ARMS, *STUDENT_ARMS})
FIGURES = (
    Figure("transition", "Training and test loss, the linearised twin, regression with the initial kernel, and the "
           "kernel's alignment with the task. Bands span the seeds.",
           pictures.observables(
               {"training loss": train, "test loss": test, "NTK alignment": "ntk_alignment"},
               {"base": "ε = {epsilon:g}, α = {alpha:g}", "base-linearised": "its linearised twin",
                "figure-1": "ε = {epsilon:g}, α = {alpha:g}"},
               each=mark_plateau, log_steps=True, ylim=(0, 1.6), ylabel="loss / mean y², alignment"),
           ("base", "base-linearised")),
    Figure("alpha", "Output scale: losses and movement of the kernel.",
           sweep(sweep_labels("α", EVERY_ALPHA_ARM),
                 {"$||K_t - K_0|| / ||K_0||$": curve("ntk_movement")[1:]}, yscale="log", ylim=(1e-3, 1e3)),
           tuple(ALPHA_ARMS.values())),
    Figure("times", "Output scale: the times at which training loss falls below 0.1 and test loss below 0.2 of mean y².",
           draw_times, tuple(ALPHA_ARMS.values())),
    Figure("epsilon", "Quadratic part of the activation: losses and alignment of the kernel with the task.",
           sweep(sweep_labels("ε", {**EPSILON_ARMS, 4.0: "epsilon-4"}), {"NTK alignment": "ntk_alignment"}),
           tuple(EPSILON_ARMS.values())),
    Figure("goldilocks", "Size of the training set: too few samples never generalise.",
           window(final(test), "final test loss / mean y²", {"generalises below": GENERALISED}),
           tuple(SAMPLE_ARMS.values())),
    Figure("delays", "Size of the training set: the delay; 0 where it does not generalise.",
           window(window_delay, "log10($t_{test}/t_{train}$)"), tuple(SAMPLE_ARMS.values())),
    Figure("terms", "The three terms of the population loss.",
           pictures.observables({name.replace("_", " "): curve(name) / curve("test_target_power") for name in
                                 ("test_loss", "misalignment", "linear_power", "trace_term")},
                                {"base": ""}, log_steps=True, ylabel="loss / mean y²"),
           ("base",)),
    Figure("limits", "Infinite width, and an infinite training set as well.",
           pictures.curves(LOSSES, ("", {"alpha-1": "finite width, finite sample", "infinite-width": "infinite width",
                                         "population": "infinite width and sample"}), log_steps=True, own=HEIGHTS),
           ("alpha-1", "infinite-width", "population")),
    Figure("spectrum", "The tangent kernel on the training set at the start and at the end, and how much of the task its "
           "leading modes hold.", draw_spectrum, ("alpha-1",)),
    Figure("norm", "Initial weight scale σ with step size 1/σ²: losses, and the norm of a neuron's weights, without decay.",
           sweep(sweep_labels("σ", NORM_ARMS), {"norm (rms)": "weight_norm"}, yscale="log"), STARTS),
    Figure("networks", "Output scale in other networks, trained on squared error: with AdamW, the student by gradient "
           "descent.",
           pictures.curves(LOSSES, *((title, sweep_labels("α", arms)) for title, arms in NETWORKS.items()),
                           look=pictures.shades(f"α = {a:g}" for a in SCALED), log_steps=True, yscale="log", ylim=(1e-2, 1.6)),
           ("images-0.001", "images-0.5")),
)  # fmt: skip

SMALL = {"dim": 50, "samples": 200, "neurons": 250, "steps": 20_000}
DIGITS = {
    "data": "digits", "width": 100, "batch_size": 100, "weight_scale": 30.0,
    "learning_rate": 6e-3, "steps": 6000, "probe_points": 20, "per_decade": 10,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys((arm for arm, config in ARMS.items() if config.task == "committee"), SMALL),
    **{arm: {"steps": 20_000} for arm in ("base", "base-linearised")},
    "figure-1": SMALL | {"steps": 40_000},
    **{arm: SMALL | {"samples": 50 * r, "steps": 20_000 if r <= 4 else 4000}
       for r, arm in SAMPLE_ARMS.items()},
    **dict.fromkeys(NORM_ARMS.values(), SMALL | {"steps": 10_000}),
    "infinite-width": SMALL | {"neurons": None},
    "population": SMALL | {"neurons": None, "samples": None},
    **dict.fromkeys((*IMAGE_ARMS.values(), *DECAY_ARMS.values()), DIGITS),
    **{arm: {"steps": 5000} for arm in STUDENT_ARMS.values()},
}  # fmt: skip
SHARED = {"dtype": "float32", "per_decade": 10}

study = Study(
    paper=Paper(
        "grokking-lazy-rich", "Grokking as the Transition from Lazy to Rich Training Dynamics",
        "Tanishq Kumar, Blake Bordelon, Samuel J. Gershman, Cengiz Pehlevan", "ICLR", 2024, "2310.06110",
    ),
    family="grokking",
    question="Is grokking the moment when a network stops behaving like its own linearisation?",
    symptoms=(
        "test loss stays high long after training loss is low, then falls",
        "test loss plateaus at the kernel regression error",
        "is my network lazy or does it learn features",
        "grokking without weight decay",
        "large output scale or large initialisation delays generalisation",
        "neural tangent kernel does not move",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("base", "base-linearised", "images-0.05"),
                        {"steps": 30, "per_decade": 5, "dim": 8, "samples": 30, "neurons": 10, "width": 8,
                         "probe_points": 6, "data": "digits", "batch_size": 20, "modulus": 11}),
        "quick": Budget(6, None, SHARED, SETTINGS),
        "thorough": Budget(6, None, SHARED, SETTINGS,
                           also=("figure-1", "infinite-width", "population", *STARTS, "student-1")),
        "full": Budget(6),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic (Gaussian inputs, quadratic teacher); scikit-learn digits in networks, MNIST-5k "
         "at full; modular addition (generated)",
    watch="test_loss",
    side_by_side=True,
    notes="Below the full budget the sweeps run at D=50, P=200, N=250 (base and its twin at the "
    "paper's D=100, P=550, N=500 for 20,000 steps), images are 8x8 digits with width 100, initial scale 30 and 6,000 steps at 6e-3 in the place of "
    "MNIST, 200, 150 and 250,000 at 1e-3; batches are reshuffled every epoch. Test losses are exact "
    "population losses. Infinite width and infinite sample are limits of the closed weight dynamics, "
    "not the paper's mean field theory. The transformer's settings (squared error, Adam, alpha 1 to "
    "16; full only) and the student's (20 dimensions, 100 samples, centred, gradient descent) are ours.",
)  # fmt: skip
