"""Optimal linear decay learning rate schedules and further refinements.

Defazio, Cutkosky, Mehta, Mishchenko (arXiv 2310.07831, first version: "When, Why and How Much?
Adaptive Learning Rate Scheduling by Refinement").
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import LogLocator, NullFormatter

from latebloom.core.process import Process
from latebloom.data import block_means, load, load_table
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    Traces,
    best,
    curve,
    final,
    log,
    mean,
    spearman,
)
from latebloom.methods.schedules.contest_outcomes import pilot_norms, tuned, two_way_interval
from latebloom.methods.schedules.contest_terms import early_norms, entry, refined
from latebloom.methods.schedules.refinement import Refinement, fit_template, made_up_norms, refine
from latebloom.methods.schedules.schedule_sweep import Problem
from latebloom.methods.schedules.schedule_tuning import Contest, Tuning, tune
from latebloom.methods.schedules.worst_case import SCHEDULES, WorstCase
from latebloom.nn import MLP

FLOOR = 1e-3  # nats: training losses are compared as log(loss + FLOOR)
TUNING = 1000  # first of the seeds that tune; a budget's own seeds start at 0


@dataclass(frozen=True)
class Config:
    """One data set with all schedules, or the worst cases at one horizon.

    - `rows`: examples used (None: all), of which a fifth is held out. `width`: of the two hidden
      layers; None for logistic regression. `pool`: images are averaged over pool x pool pixels.
    - `peaks` learning rates are tried, powers of 2 up to 2^`top`.
    - `steps`, `repeats`: horizon and runs a seed of the worst cases.
    """

    task: Literal["classes", "worst-case"] = "classes"
    data: str = "iris"
    rows: int | None = None
    width: int | None = None
    pool: int = 1
    epochs: int = 30
    batch_size: int = 16
    peaks: int = 12
    top: int = 6
    warmup: float = 0.1
    tuning_seeds: int = 3
    steps: int = 100
    repeats: int = 5


def make_process(config: Config) -> Process:
    if config.task == "worst-case":
        return WorstCase(config.steps, config.repeats)
    return Contest(_problem(config), _tuning(config), _length(config))


def schedule(config: Config) -> np.ndarray:
    if config.task == "worst-case":
        return np.array([config.steps])
    return np.unique(np.linspace(0, 2 * _length(config), 13).astype(int))


def _length(config: Config) -> int:
    """Steps of a schedule; the contest runs for twice as many."""
    train = int(0.8 * len(_examples(config)[0]))
    return config.epochs * (train // config.batch_size)


@functools.cache
def _examples(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Standardised inputs and labels 0, 1, ..., a random selection of `rows`."""
    if config.width is None:
        table = load_table(config.data)
        x, y = table.x, table.y
    else:
        images = load(config.data)
        x = np.concatenate([images.x_train, images.x_test]).astype(np.float32)
        y = np.concatenate([images.y_train, images.y_test]).astype(np.int32)
        x = block_means(x, config.pool).reshape(len(x), -1)
    chosen = np.random.default_rng(0).permutation(len(x))[: config.rows]
    x, labels = x[chosen], np.unique(y[chosen], return_inverse=True)[1]
    centred, scale = x - x.mean(axis=0), x.std(axis=0)
    if config.width is not None:
        scale = scale.max()  # pixels that hardly vary stay small
    return (centred / np.maximum(scale, 1e-6)).astype(np.float32), labels.astype(np.int32)


def _problem(config: Config) -> Problem:
    x, y = _examples(config)
    classes = int(y.max()) + 1
    adam = config.width is not None
    return Problem(
        jnp.asarray(x), jnp.asarray(y), partial(_network, x.shape[1], config.width, classes),
        classes, int(0.8 * len(x)), config.batch_size,
        optax.scale_by_adam() if adam else optax.identity(), "l1" if adam else "l2",
    )  # fmt: skip


def _network(inputs: int, width: int | None, classes: int, key: PRNGKeyArray) -> MLP:
    """Two hidden layers, or logistic regression from 0."""
    if width is not None:
        return MLP(inputs, (width, width), classes, key=key)
    return jax.tree.map(jnp.zeros_like, MLP(inputs, (), classes, key=key))


@functools.cache
def _tuning(config: Config) -> Tuning:
    peaks = [2.0**power for power in range(config.top - config.peaks + 1, config.top + 1)]
    seeds = range(TUNING, TUNING + config.tuning_seeds)
    return tune(_problem(config), _length(config), peaks, seeds, config.warmup)


SUITE = (
    "iris", "glass", "vehicle", "vowel", "breast-cancer", "ionosphere", "satellite", "shuttle",
    "letter",
)  # fmt: skip
HORIZONS = (100, 1000, 10_000)
SCALES = (0.25, 0.5, 1.0, 2.0)  # multiples of the step size of theory, as the worst cases try them
THEORY = SCALES.index(1.0)
WORST = tuple(f"worst-{steps}" for steps in HORIZONS)
MLP_CONFIG = Config(
    data="mnist-5k", width=128, epochs=10, batch_size=32, peaks=8, top=-4, tuning_seeds=2
)
ARMS: dict[str, Config] = {
    **{name: Config(data=name) for name in SUITE},
    "dna": Config(data="dna"),
    "mlp": MLP_CONFIG,
    **{
        arm: Config(task="worst-case", steps=steps)
        for arm, steps in zip(WORST, HORIZONS, strict=True)
    },
}


def log_ratio(one: Curve, other: Curve) -> Measure:
    return log((final(one) + FLOOR) / (final(other) + FLOOR))


def against(one: str, other: str) -> Measure:
    """log(loss of `one` / loss of `other`) of the last iterates."""
    return log_ratio(entry(one), entry(other))


def pooled(of: Measure) -> Effect:
    return mean(of[name] for name in SUITE)


def from_linear(refinement: Refinement) -> float:
    return np.abs(refinement.over(1001) - np.linspace(1, 0, 1001)).mean()


warm_up, shuffled_warm_up = refined("warm-up", lambda r: r.peak_at)
late, shuffled_late = refined("height at 90 %, over linear decay's", lambda r: r.over(11)[9] / 0.1)
distance, shuffled_distance = refined("distance from linear decay", from_linear)


def longer_where_larger(of: Measure) -> Effect:
    """The rank correlation of a warm-up with early norms, over data sets."""
    return spearman([of[name] for name in SUITE], [early_norms[name] for name in SUITE])


def worst(schedule: str, scale: int = THEORY, arms: Sequence[str] = WORST) -> Effect:
    """On the problem and horizon where the mean over seeds is worst, at a step size."""

    def of(traces: Traces) -> np.ndarray:
        rows = [traces[arm].ratio.sel(schedule=schedule).isel(step=-1, scale=scale).values for arm in arms]  # fmt: skip
        cases = np.concatenate(rows, axis=1)
        return cases[:, cases.mean(axis=0).argmax()]

    text = f"worst ratio of {schedule} at {SCALES[scale]:g} of theory's step size"
    return Effect(tuple(arms), text, of)


def best_worst(schedule: str) -> Effect:
    """The same at the schedule's best step size."""
    return best([worst(schedule, scale) for scale in range(len(SCALES))], lowest=True)


RELATIVE, DEEP = "mean log ratio of training loss", "log ratio of training loss"
BEATS, MATCHES = "beats all default schedules", "matches or beats all default schedules"
GAINS, PILOT = "refinement improves on linear decay", "not in the paper: the pilot is not counted"
WORSE, EXCESS = "linear decay is worst-case optimal", "difference in D G / √T"
CLAIMS = (
    Claim("C1.cosine", "Linear decay is no worse than cosine, within 1 %, over nine logistic regressions",
          f"{MATCHES}, cosine included", pooled(against("linear", "cosine")), "< 0.01", RELATIVE),
    Claim("C1.flat", "Linear decay beats a flat schedule", BEATS, pooled(against("linear", "flat")), "< 0", RELATIVE),
    Claim("C1.inverse", "Linear decay beats 1/t", BEATS, pooled(against("linear", "inverse")), "< 0", RELATIVE),
    Claim("C1.inverse-sqrt", "Linear decay beats 1/sqrt(t)", BEATS, pooled(against("linear", "inverse-sqrt")), "< 0",
          RELATIVE),
    Claim("C1.step", "Linear decay is no worse than steps at 30, 60 and 90 %, within 1 %", MATCHES,
          pooled(against("linear", "step")), "< 0.01", RELATIVE),
    Claim("C1.stable", "Linear decay is no worse than warm-up-stable-decay, within 1 %", "not in the paper",
          pooled(against("linear", "stable-decay")), "< 0.01", RELATIVE),
    Claim("C1.deep", "Linear decay is no worse than cosine, within 1 %, for an MLP with Adam",
          f"{MATCHES}, cosine included", against("linear", "cosine")["mlp"], "< 0.01", DEEP),
    Claim("C2", "The refined schedule beats linear decay over nine logistic regressions", GAINS,
          pooled(against("refined", "linear")), "< 0", RELATIVE),
    Claim("C2.error", "The refined schedule has fewer training errors", GAINS,
          100 * pooled(final(entry("refined", "train_error")) - final(entry("linear", "train_error"))), "< 0",
          "percentage points, mean over sets"),
    Claim("C2.deep", "The refined schedule (L1) beats linear decay for an MLP with Adam", GAINS,
          against("refined", "linear")["mlp"], "< 0", DEEP),
    Claim("C2.deep-plain", "The same against linear decay without warm-up, which it was refined from", GAINS,
          log_ratio(entry("refined"), curve("train_loss", cell="linear"))["mlp"], "< 0", DEEP),
    Claim("C2.cost", "Pilot and refined run together beat linear decay over twice the steps", PILOT,
          pooled(against("refined", "linear-2x")), "< 0", RELATIVE),
    Claim("C2.cost-deep", "The same for the MLP", PILOT, against("refined", "linear-2x")["mlp"], "< 0", DEEP),
    Claim("C2.separable", "On a set that the model separates (dna), refinement does harm, 1 % or more",
          "may misbehave when norms go to zero", against("refined", "linear")["dna"], "> 0.01", DEEP,
          budget="thorough"),
    Claim("C3.warm-up", "Refined schedules warm up: they peak after 5 % of the run", "warm-up appears by itself",
          pooled(warm_up), "> 0.05", "share of the run", null=pooled(shuffled_warm_up)),
    Claim("C3.annealing", "At 90 % of the run they are still higher than linear decay, so fall faster",
          "rapid annealing near the end", pooled(late), "> 1", "height over 0.1",
          null=pooled(shuffled_late)),
    Claim("C3.early", "The larger the first norms, the longer the warm-up",
          "warm-up appears because early norms are large", longer_where_larger(warm_up), "> 0", "Spearman",
          null=longer_where_larger(shuffled_warm_up)),
    Claim("C3.shuffled", "From norms shuffled in time comes linear decay", "(control)", pooled(shuffled_distance),
          "< 0.05", "mean distance", null=pooled(distance)),
    Claim("C4.bound", "The last iterate of linear decay keeps to D G / sqrt(T) on its worst problem",
          "E f - f* <= D G / sqrt(T)", worst("linear"), "< 1", "D G / √T", null=best_worst("flat")),
    Claim("C4.flat", "A flat schedule has a worse worst problem, even at its best step size", WORSE,
          best_worst("flat") - worst("linear"), "> 0", EXCESS),
    Claim("C4.inverse-sqrt", "So has 1/sqrt(t)", WORSE, best_worst("inverse-sqrt") - worst("linear"), "> 0", EXCESS),
)  # fmt: skip


LABELS = {
    "linear": "linear decay", "cosine": "cosine", "polynomial": "polynomial", "step": "30-60-90 steps",
    "stable-decay": "stable, then decay", "inverse-sqrt": "1/√t", "inverse": "1/t", "flat": "flat",
    "refined": "refined", "linear-2x": "linear, 2 × steps",
}  # fmt: skip
ROWS = [name for name in LABELS if name != "linear"]
SHOWN = {"mlp": "MLP, Adam"}


def plain_logarithms(ax: Axes) -> None:
    """Few ticks in plain numbers on a logarithmic y axis."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def draw_refined(traces: Traces) -> MatplotlibFigure:
    """As the paper's figure: norms, smoothed norms, refined schedule; one row a problem."""
    shown = [name for name in ("glass", "vehicle", "letter", "mlp") if name in traces]
    figure, axes = style.figure(len(shown), 3, width=11, height=2.1 * len(shown) + 0.4, squeeze=False)  # fmt: skip
    for row, name in zip(axes, shown, strict=True):
        kind = "l1" if name == "mlp" else "l2"
        made = refine(pilot_norms(traces[name])[0], norm=kind)
        template, x = fit_template(made.schedule), np.linspace(0, 100, len(made.norms))
        row[0].plot(x, made.norms, color=style.colours[5], linewidth=0.5)
        row[1].plot(x, made.smoothed, color=style.colours[1])
        row[2].plot(x, made.schedule, color=style.colours[1])
        row[2].plot(np.linspace(0, 100, 500), template.over(500), "--", color=style.colours[0])
        row[2].text(0.98, 0.97, f"warm-up {template.warmup:.0%}, power {template.power:.2g}",
                    color=style.colours[0], ha="right", va="top", transform=row[2].transAxes)  # fmt: skip
        row[0].set(ylabel=f"{SHOWN.get(name, name)}\n{kind.upper()} norm")
        row[2].set(ylim=(0, 1.4), yticks=[0, 0.5, 1])
        plain_logarithms(row[0])
        plain_logarithms(row[1])
    titles = ("gradient norms", "median filter", "refined (dashed: template)")
    for first, last, title in zip(axes[0], axes[-1], titles, strict=True):
        first.set_title(title)
        last.set_xlabel("share of the run in %")
    return figure


@pictures.by_hand(8, 4, width=11, height=2.3, sharex=True, sharey="row")
def draw_synthetic(traces: Traces, *axes: Axes) -> None:
    rows = zip(axes[:4], axes[4:], made_up_norms().items(), strict=True)
    for above, below, (title, norms) in rows:
        made = refine(norms, window=0.001)  # the curves are smooth already
        x = np.linspace(0, 100, len(made.norms))
        above.plot(x, made.norms, color=style.colours[1])
        below.plot([0, 100], [1, 0], ":", color=style.colours[6], label="linear")
        below.plot(x, made.schedule, color=style.colours[0], label="refined")
        above.set_title(title)
        below.set_xlabel("share of the run in %")
    axes[0].set(ylabel="gradient norm", ylim=(0, 10))
    axes[4].set_ylabel("learning rate / peak")
    axes[4].legend(loc="upper right")


def in_percent(logs: np.ndarray) -> float:
    """The mean of logarithms of a ratio, as what that ratio is away from 1."""
    return 100 * np.expm1(logs.mean())


contest = pictures.table(
    {LABELS[row]: {SHOWN.get(name, name): against(row, "linear")[name] for name in (*SUITE, "mlp")} for row in ROWS},
    of=in_percent, text=lambda value: f"{value:+.1f}" if abs(value) < 99.5 else f"{value:+.0f}",
    norm=TwoSlopeNorm(0, -25, 25), title="training loss against linear decay, in % (each at its tuned peak)",
)  # fmt: skip


def draw_intervals(traces: Traces) -> MatplotlibFigure:
    """Pooled differences with intervals over data sets and seeds, and each set's own."""
    figure, ax = style.figure(1, width=7.5, height=4.2)
    for place, row in enumerate(ROWS):
        values = np.stack([against(row, "linear")(traces[name]) for name in SUITE])
        colour = style.colours[row == "refined"]
        each = ax.plot(100 * np.expm1(values.mean(axis=1)), [place] * len(values), "o",
                       markersize=4, color=style.colours[6], alpha=0.6)  # fmt: skip
        ax.plot(100 * np.expm1(two_way_interval(values)), [place] * 2, color=colour, linewidth=2.5)
        pooled = ax.plot(in_percent(values), place, "D", color=colour)
        if not place:
            figure.legend([*each, *pooled], ["one data set", "mean, 95 % over sets and seeds"],
                          loc="outside lower center", ncols=2)  # fmt: skip
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.set_yticks(range(len(ROWS)), [LABELS[row] for row in ROWS])
    ax.invert_yaxis()
    ax.set_xscale("symlog", linthresh=5, linscale=1.5)
    ticks = (-50, -20, -5, -2, 0, 2, 5, 20, 100)
    ax.set_xticks(ticks, [f"{t:+d}" if t else "0" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("training loss against linear decay in % (left is better)")
    return figure


def draw_tuning(traces: Traces) -> MatplotlibFigure:
    shown = [name for name in ("vehicle", "letter", "mlp") if name in traces]
    figure, axes = pictures.panels(len(shown), height=3.4)
    families = ("linear", "cosine", "refined", "stable-decay", "inverse-sqrt", "flat")
    for ax, name in zip(axes, shown, strict=True):
        losses = traces[name].tuning_loss.isel(seed=0, step=0)
        for family, colour in zip(families, style.colours, strict=False):
            tried = losses.sel(cell=tuned(traces[name], family))
            ax.plot(tried.tried_peak, tried, "o-", markersize=3, color=colour, label=LABELS[family])
        lowest = float(losses.drop_sel(cell="linear-2x").min())
        ax.set(xscale="log", xlabel="peak learning rate", title=SHOWN.get(name, name),
               ylim=(0.8 * lowest, 12 * lowest))  # fmt: skip
        plain_logarithms(ax)
    axes[0].set_ylabel("final training loss in nats")
    pictures.legend_below(figure)
    return figure


by_step_size = pictures.trend(
    *((f"T = {steps:,}", {LABELS[s]: (SCALES, [worst(s, i, (arm,)) for i in range(len(SCALES))])
                          for s in SCHEDULES}) for arm, steps in zip(WORST, HORIZONS, strict=True)),
    xlabel="step size / theory's", ylabel="worst excess loss in D G / √T", ylim=(0, 3.5),
    xscale="log", ticks=SCALES, levels={"": 1.0},
)  # fmt: skip
FIGURES = (
    Figure("refined", "Gradient norms of one run of linear decay, after the median filter, the refined schedule and "
           "the template nearest to it.", draw_refined),
    Figure("synthetic", "What norm curves refine to: constant norms to linear decay, large early norms to warm-up, "
           "rising norms to early and falling norms to late annealing.", draw_synthetic, ("vehicle",)),
    Figure("contest", "Training loss of the last iterate against linear decay, mean over seeds. Every family has the "
           "better of with and without warm-up; linear over twice the steps costs what pilot and refined run cost "
           "together.", contest, SUITE),
    Figure("intervals", "The same pooled over the nine logistic regressions.", draw_intervals, SUITE),
    Figure("tuning", "Final training loss by peak learning rate, mean over the tuning seeds.", draw_tuning,
           ("vehicle",)),
    Figure("worst", "Worst excess loss of the last iterate over nonsmooth convex problems of known size, by step "
           "size. Theory promises linear decay at most 1 at its own.", by_step_size, WORST),
)  # fmt: skip

SMALL: dict[str, dict[str, Any]] = {
    "dna": {"rows": 600, "epochs": 20},
    "mlp": {"rows": 2500, "width": 32, "pool": 2, "epochs": 5},
}
study = Study(
    paper=Paper(
        "refined-schedules", "Optimal Linear Decay Learning Rate Schedules and Further Refinements",
        "Aaron Defazio, Ashok Cutkosky, Harsh Mehta, Konstantin Mishchenko", "arXiv", 2023, "2310.07831",
        "facebookresearch/adaptive_scheduling",
    ),
    family="schedules",
    question="Which learning-rate schedule is best for the last iterate, and can it be read off the "
    "gradient norms of an earlier run?",
    symptoms=(
        "which learning rate schedule should I use",
        "how long should warm-up be, and how fast the decay",
        "cosine or linear decay",
        "learning rate schedule from gradient norms",
        "loss falls only when the learning rate is decayed at the end",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("mlp",), {"rows": 120, "epochs": 4, "peaks": 2, "tuning_seeds": 1, "width": 8,
                                      "pool": 4}),
        "quick": Budget(8, None, {"rows": 1000, "tuning_seeds": 2}, SMALL),
        "thorough": Budget(8, None, {"rows": 1000, "tuning_seeds": 2}, SMALL),
        "full": Budget(10),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="iris and breast cancer (scikit-learn), glass, vehicle, vowel, ionosphere, satellite, "
         "shuttle, letter and dna (UCI, from r-cran-mlbench), MNIST-5k; made-up convex problems",
    watch="train_loss",
    side_by_side=True,
    notes="Training losses are compared as log(loss + 0.001). Every family is tuned on three other "
    "seeds (MLP, quick and thorough: two): 12 peaks (8) with and without 10 % warm-up, two offsets for 1/t and 1/sqrt(t), "
    "two powers for polynomial decay. Below the full budget: at most 1,000 examples a set (dna 600 for 20 epochs), "
    "30 epochs, batches of 16; the MLP is 196-32-32-10 on 2,500 images of 14 x 14 for 5 epochs. Sets "
    "whose training loss reaches 0 under every schedule (wine, sonar, digits) are left out; dna stands "
    "for them.",
)  # fmt: skip
