"""Optimal linear decay learning rate schedules and further refinements.

Defazio, Cutkosky, Mehta, Mishchenko (arXiv 2310.07831, first version: "When, Why and How Much?
Adaptive Learning Rate Scheduling by Refinement").
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import ndimage, stats

from latebloom.core.process import Process
from latebloom.data import load, load_table
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.schedules.refinement import Refinement, fit_template, refine
from latebloom.methods.schedules.schedule_sweep import Problem
from latebloom.methods.schedules.schedule_tuning import WARM, Contest, Tuning, tune
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
        n, height, width = x.shape
        shape = (n, height // config.pool, config.pool, width // config.pool, config.pool)
        x = x.reshape(shape).mean(axis=(2, 4)).reshape(n, -1)
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


def final(trace: xr.Dataset, cell: str, what: str = "train_loss") -> np.ndarray:
    """Of the last iterate, per seed."""
    return trace[what].sel(cell=cell).isel(step=-1).values


def tuned(trace: xr.Dataset, family: str) -> str:
    """The family with or without warm-up, whichever tuned better."""
    lowest = trace.tuning_loss.isel(seed=0, step=0).min("tried_peak")
    pair = [name for name in (family, family + WARM) if name in trace.cell.values]
    return min(pair, key=lambda name: float(lowest.sel(cell=name)))


def log_ratio(trace: xr.Dataset, cell: str, other: str) -> np.ndarray:
    """log(loss of `cell` / loss of `other`) of the last iterates, per seed."""
    return np.log((final(trace, cell) + FLOOR) / (final(trace, other) + FLOOR))


def against(trace: xr.Dataset, one: str, other: str) -> np.ndarray:
    """`log_ratio` of two families, each with warm-up if that tuned better."""
    return log_ratio(trace, tuned(trace, one), tuned(trace, other))


def by_set(traces: Traces, one: str, other: str) -> np.ndarray:
    """`against` for every data set of the suite, [set, seed]."""
    return np.stack([against(traces[name], one, other) for name in SUITE if name in traces])


def pooled(one: str, other: str, traces: Traces) -> np.ndarray:
    return by_set(traces, one, other).mean(axis=0)


def deep(one: str, other: str, traces: Traces) -> np.ndarray:
    return against(traces["mlp"], one, other)


def deep_without_warmup(traces: Traces) -> np.ndarray:
    return log_ratio(traces["mlp"], "refined", "linear")


def collapsed(traces: Traces) -> np.ndarray:
    return against(traces["dna"], "refined", "linear")


def error_difference(traces: Traces) -> np.ndarray:
    """Training errors of refined minus linear decay in percentage points, mean over the suite."""
    rows = [
        final(traces[name], "refined", "train_error")
        - final(traces[name], tuned(traces[name], "linear"), "train_error")
        for name in SUITE
        if name in traces
    ]
    return 100 * np.mean(rows, axis=0)


def recorded_norms(trace: xr.Dataset) -> np.ndarray:
    """Norms of every step of plain linear decay at its tuned peak, [seed, step]."""
    norms = trace.gradient_norm.isel(step=-1, recorded=0).values
    return norms[:, : norms.shape[1] // 2]


def refinements(traces: Traces, shuffled: bool = False) -> list[list[Refinement]]:
    """What each seed's run of linear decay refines to, [set][seed]."""
    found = []
    for name in SUITE:
        if name not in traces:
            continue
        rows = recorded_norms(traces[name])
        if shuffled:
            rows = [np.random.default_rng(i).permutation(row) for i, row in enumerate(rows)]
        found.append([refine(row) for row in rows])
    return found


def warmup_share(traces: Traces) -> np.ndarray:
    return np.mean([[r.peak_at for r in row] for row in refinements(traces)], axis=0)


def late_height(traces: Traces) -> np.ndarray:
    """Height of the refined schedule at 90 % of the run over that of linear decay there."""
    heights = [[r.over(11)[9] / 0.1 for r in row] for row in refinements(traces)]
    return np.mean(heights, axis=0)


def early_excess(traces: Traces) -> np.ndarray:
    """Per seed, rank correlation over the suite of warm-up with how large the first norms are."""
    peaks = np.array([[r.peak_at for r in row] for row in refinements(traces)])
    norms = [recorded_norms(traces[name]) for name in SUITE if name in traces]
    excess = np.array(
        [np.median(n[:, : n.shape[1] // 20], axis=1) / np.median(n, axis=1) for n in norms]
    )
    ranked = (stats.spearmanr(p, e) for p, e in zip(peaks.T, excess.T, strict=True))
    return np.array([rank for rank, _ in ranked])


def shuffled_distance(traces: Traces) -> np.ndarray:
    """Mean distance from linear decay after the norms were shuffled in time."""
    linear = np.linspace(1, 0, 1001)
    rows = refinements(traces, shuffled=True)
    return np.mean([[np.abs(r.over(1001) - linear).mean() for r in row] for row in rows], axis=0)


def worst_ratio(traces: Traces, schedule: str, scale: int) -> np.ndarray:
    """Per seed, the ratio on the problem and horizon where its mean over seeds is worst."""
    rows = np.concatenate(
        [
            traces[arm].ratio.sel(schedule=schedule).isel(step=-1, scale=scale).values
            for arm in WORST
            if arm in traces
        ],
        axis=1,
    )
    return rows[:, rows.mean(axis=0).argmax()]


def linear_worst(traces: Traces) -> np.ndarray:
    return worst_ratio(traces, "linear", 2)


def excess_of(schedule: str, traces: Traces) -> np.ndarray:
    """Worst ratio of a schedule at the best of its step sizes, minus linear decay's at theory's."""
    scales = traces[WORST[0]].sizes["scale"]
    best = min((worst_ratio(traces, schedule, i) for i in range(scales)), key=np.mean)
    return best - linear_worst(traces)


RELATIVE, DEEP = "mean log ratio of training loss", "log ratio of training loss"
CLAIMS = (
    Claim("C1.cosine", "Linear decay is no worse than cosine, within 1 %, over nine logistic regressions",
          "matches or beats all default schedules, cosine included", SUITE,
          partial(pooled, "linear", "cosine"), "< 0.01", RELATIVE),
    Claim("C1.flat", "Linear decay beats a flat schedule", "beats all default schedules", SUITE,
          partial(pooled, "linear", "flat"), "< 0", RELATIVE),
    Claim("C1.inverse", "Linear decay beats 1/t", "beats all default schedules", SUITE,
          partial(pooled, "linear", "inverse"), "< 0", RELATIVE),
    Claim("C1.inverse-sqrt", "Linear decay beats 1/sqrt(t)", "beats all default schedules", SUITE,
          partial(pooled, "linear", "inverse-sqrt"), "< 0", RELATIVE),
    Claim("C1.step", "Linear decay is no worse than steps at 30, 60 and 90 %, within 1 %",
          "matches or beats all default schedules", SUITE, partial(pooled, "linear", "step"),
          "< 0.01", RELATIVE),
    Claim("C1.stable", "Linear decay is no worse than warm-up-stable-decay, within 1 %",
          "not in the paper", SUITE, partial(pooled, "linear", "stable-decay"), "< 0.01", RELATIVE),
    Claim("C1.deep", "Linear decay is no worse than cosine, within 1 %, for an MLP with Adam",
          "matches or beats all default schedules, cosine included", ("mlp",),
          partial(deep, "linear", "cosine"), "< 0.01", DEEP),
    Claim("C2", "The refined schedule beats linear decay over nine logistic regressions",
          "refinement improves on linear decay", SUITE, partial(pooled, "refined", "linear"), "< 0",
          RELATIVE),
    Claim("C2.error", "The refined schedule has fewer training errors",
          "refinement improves on linear decay", SUITE, error_difference, "< 0",
          "percentage points, mean over sets"),
    Claim("C2.deep", "The refined schedule (L1) beats linear decay for an MLP with Adam",
          "refinement improves on linear decay", ("mlp",), partial(deep, "refined", "linear"), "< 0",
          DEEP),
    Claim("C2.deep-plain", "The same against linear decay without warm-up, which it was refined from",
          "refinement improves on linear decay", ("mlp",), deep_without_warmup, "< 0", DEEP),
    Claim("C2.cost", "Pilot and refined run together beat linear decay over twice the steps",
          "not in the paper: the pilot is not counted", SUITE,
          partial(pooled, "refined", "linear-2x"), "< 0", RELATIVE),
    Claim("C2.cost-deep", "The same for the MLP", "not in the paper: the pilot is not counted",
          ("mlp",), partial(deep, "refined", "linear-2x"), "< 0", DEEP),
    Claim("C2.separable", "On a set that the model separates (dna), refinement does harm, 1 % or more",
          "may misbehave when norms go to zero", ("dna",), collapsed, "> 0.01", DEEP),
    Claim("C3.warm-up", "Refined schedules warm up: they peak after 5 % of the run",
          "warm-up appears by itself", SUITE, warmup_share, "> 0.05", "share of the run"),
    Claim("C3.annealing", "At 90 % of the run they are still higher than linear decay, so fall faster",
          "rapid annealing near the end", SUITE, late_height, "> 1", "height over 0.1"),
    Claim("C3.early", "The larger the first norms, the longer the warm-up",
          "warm-up appears because early norms are large", SUITE, early_excess, "> 0", "Spearman"),
    Claim("C3.shuffled", "From norms shuffled in time comes linear decay", "(control)", SUITE,
          shuffled_distance, "< 0.05", "mean distance"),
    Claim("C4.bound", "The last iterate of linear decay keeps to D G / sqrt(T) on its worst problem",
          "E f - f* <= D G / sqrt(T)", WORST, linear_worst, "< 1", "D G / √T"),
    Claim("C4.flat", "A flat schedule has a worse worst problem, even at its best step size",
          "linear decay is worst-case optimal", WORST, partial(excess_of, "flat"), "> 0",
          "difference in D G / √T"),
    Claim("C4.inverse-sqrt", "So has 1/sqrt(t)", "linear decay is worst-case optimal", WORST,
          partial(excess_of, "inverse-sqrt"), "> 0", "difference in D G / √T"),
)  # fmt: skip


LABELS = {
    "linear": "linear decay", "cosine": "cosine", "polynomial": "polynomial", "step": "30-60-90 steps",
    "stable-decay": "stable, then decay", "inverse-sqrt": "1/√t", "inverse": "1/t", "flat": "flat",
    "refined": "refined", "linear-2x": "linear, 2 × steps",
}  # fmt: skip


SHOWN = {"mlp": "MLP, Adam"}


def _plain_logarithms(ax: Axes) -> None:
    """Few ticks in plain numbers on the logarithmic y axis."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def two_way_interval(rows: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """95 % interval of the mean of [set, seed], sets and seeds drawn anew."""
    rng = np.random.default_rng(0)
    sets, seeds = rows.shape
    i = rng.integers(sets, size=(draws, sets, 1))
    j = rng.integers(seeds, size=(draws, 1, seeds))
    low, high = np.percentile(rows[i, j].mean(axis=(1, 2)), [2.5, 97.5])
    return float(low), float(high)


def draw_refined(traces: Traces) -> MatplotlibFigure:
    """As the paper's figure: norms, smoothed norms, refined schedule; one row a problem."""
    shown = [name for name in ("glass", "vehicle", "letter", "mlp") if name in traces]
    figure, axes = style.figure(
        len(shown), 3, width=11, height=2.1 * len(shown) + 0.4, squeeze=False
    )
    for row, name in zip(axes, shown, strict=True):
        kind = "l1" if name == "mlp" else "l2"
        made = refine(recorded_norms(traces[name])[0], norm=kind)
        template = fit_template(made.schedule)
        x = np.linspace(0, 100, len(made.norms))
        row[0].plot(x, made.norms, color=style.colours[5], linewidth=0.5)
        row[1].plot(x, made.smoothed, color=style.colours[1])
        row[2].plot(x, made.schedule, color=style.colours[1])
        row[2].plot(np.linspace(0, 100, 500), template.over(500), "--", color=style.colours[0])
        fit = f"warm-up {template.warmup:.0%}, power {template.power:.2g}"
        row[2].text(0.98, 0.97, fit, color=style.colours[0], ha="right", va="top",
                    transform=row[2].transAxes)  # fmt: skip
        row[0].set(ylabel=f"{SHOWN.get(name, name)}\n{kind.upper()} norm", yscale="log")
        row[1].set(yscale="log")
        row[2].set(ylim=(0, 1.4), yticks=[0, 0.5, 1])
        for ax in row[:2]:
            _plain_logarithms(ax)
    for ax, title in zip(
        axes[0], ("gradient norms", "median filter", "refined (dashed: template)"), strict=True
    ):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel("share of the run in %")
    return figure


def synthetic_norms(points: int = 2000) -> list[np.ndarray]:
    """The paper's four made-up norm curves: constant, falling early, then rising or falling late."""
    x, knots = np.linspace(0, 1, points), [0, 0.003, 0.02, 0.03, 0.1, 1]
    heights = [[1] * 6, [15, 6, 4, 2, 1, 1], [15, 6, 4, 2, 1, 2], [15, 6, 4, 2, 1, 0.7]]
    return [
        ndimage.gaussian_filter1d(np.interp(x, knots, h), points / 50, mode="nearest")
        for h in heights
    ]


def draw_synthetic(traces: Traces) -> MatplotlibFigure:
    titles = ("constant", "large at first", "and rising later", "and falling later")
    figure, axes = style.figure(2, 4, width=11, height=4.6, sharex=True, sharey="row")
    for column, norms, title in zip(axes.T, synthetic_norms(), titles, strict=True):
        made = refine(norms, window=0.001)  # the curves are smooth already
        x = np.linspace(0, 100, len(made.norms))
        column[0].plot(x, made.norms, color=style.colours[1])
        column[1].plot([0, 100], [1, 0], ":", color=style.colours[6], label="linear")
        column[1].plot(x, made.schedule, color=style.colours[0], label="refined")
        column[0].set_title(title)
        column[1].set_xlabel("share of the run in %")
    axes[0, 0].set(ylabel="gradient norm", ylim=(0, 10))
    axes[1, 0].set_ylabel("learning rate / peak")
    axes[1, 0].legend(loc="upper right")
    return figure


def draw_contest(traces: Traces) -> MatplotlibFigure:
    """Training loss of every entry against linear decay, data sets across."""
    sets = [name for name in (*SUITE, "mlp") if name in traces]
    rows = [name for name in LABELS if name != "linear"]
    values = np.array([[against(traces[s], r, "linear").mean() for s in sets] for r in rows])
    percent = 100 * np.expm1(values)
    figure, ax = style.figure(1, width=1.5 + 0.85 * len(sets), height=4.6)
    ax.imshow(percent, cmap="PuOr_r", norm=TwoSlopeNorm(0, -25, 25), aspect="auto")
    for (i, j), value in np.ndenumerate(percent):
        light = abs(value) > 17
        text = f"{value:+.1f}" if abs(value) < 99.5 else f"{value:+.0f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=8,
                color="white" if light else "#222222")  # fmt: skip
    ax.set_xticks(range(len(sets)), [SHOWN.get(s, s) for s in sets], rotation=30, ha="right")
    ax.set_yticks(range(len(rows)), [LABELS[r] for r in rows])
    ax.set_title("training loss against linear decay, in % (each at its tuned peak)")
    ax.grid(False)
    ax.tick_params(length=0)
    return figure


def draw_intervals(traces: Traces) -> MatplotlibFigure:
    """Pooled differences with intervals over data sets and seeds, and each set's own."""
    rows = [name for name in LABELS if name != "linear"]
    figure, ax = style.figure(1, width=7.5, height=4.2)
    for place, name in enumerate(rows):
        values = by_set(traces, name, "linear")
        low, high = (100 * np.expm1(v) for v in two_way_interval(values))
        mean = 100 * np.expm1(values.mean())
        colour = style.colours[1 if name == "refined" else 0]
        ax.plot(100 * np.expm1(values.mean(axis=1)), np.full(len(values), place), "o",
                markersize=4, color=style.colours[6], alpha=0.6,
                label=None if place else "one data set")  # fmt: skip
        ax.plot([low, high], [place, place], color=colour, linewidth=2.5)
        ax.plot(
            mean,
            place,
            "D",
            color=colour,
            label=None if place else "mean, 95 % over sets and seeds",
        )
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [LABELS[r] for r in rows])
    ax.invert_yaxis()
    ax.set_xscale("symlog", linthresh=5, linscale=1.5)
    ticks = (-50, -20, -5, -2, 0, 2, 5, 20, 100)
    ax.set_xticks(ticks, [f"{t:+d}" if t else "0" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("training loss against linear decay in % (left is better)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_tuning(traces: Traces) -> MatplotlibFigure:
    shown = [name for name in ("vehicle", "letter", "mlp") if name in traces]
    figure, axes = style.figure(1, len(shown), height=3.6, squeeze=False)
    entries = ("linear", "cosine", "refined", "stable-decay", "inverse-sqrt", "flat")
    for ax, name in zip(axes[0], shown, strict=True):
        losses = traces[name].tuning_loss.isel(seed=0, step=0)
        for entry, colour in zip(entries, style.colours, strict=False):
            curve = losses.sel(cell=tuned(traces[name], entry))
            ax.plot(curve.tried_peak, curve, "o-", markersize=3, color=colour, label=LABELS[entry])
        best = float(losses.drop_sel(cell="linear-2x").min())
        ax.set(xscale="log", yscale="log", xlabel="peak learning rate",
               title=SHOWN.get(name, name), ylim=(0.8 * best, 12 * best))  # fmt: skip
        _plain_logarithms(ax)
    axes[0, 0].set_ylabel("final training loss in nats")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6,
                  frameon=False)  # fmt: skip
    return figure


def draw_worst(traces: Traces) -> MatplotlibFigure:
    figure, axes = style.figure(1, len(WORST), sharey=True)
    for ax, arm, steps in zip(axes, WORST, HORIZONS, strict=True):
        ratio = traces[arm].ratio.isel(step=-1).mean("seed").max("instance")
        scales = 0.25 * 2.0 ** np.arange(ratio.sizes["scale"])
        for place, name in enumerate(SCHEDULES):
            ax.plot(scales, ratio.sel(schedule=name), "o-", color=style.colours[place],
                    label=LABELS[name])  # fmt: skip
        ax.axhline(1, color=style.INK, linewidth=0.8, linestyle=":")
        ax.set(xscale="log", title=f"T = {steps:,}", ylim=(0, 3.5),
               xlabel="step size / theory's")  # fmt: skip
        ax.set_xticks(scales, [f"{c:g}" for c in scales])
        ax.minorticks_off()
    axes[0].set_ylabel("worst excess loss in D G / √T")
    axes[0].legend(loc="upper left")
    return figure


QUICK_MLP = {"rows": 2500, "width": 32, "pool": 2, "epochs": 5}
study = Study(
    paper=Paper(
        slug="refined-schedules",
        title="Optimal Linear Decay Learning Rate Schedules and Further Refinements",
        authors="Aaron Defazio, Ashok Cutkosky, Harsh Mehta, Konstantin Mishchenko",
        venue="arXiv",
        year=2023,
        arxiv="2310.07831",
        code="facebookresearch/adaptive_scheduling",
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
        "smoke": Budget(
            2, ("mlp",),
            {"rows": 120, "epochs": 4, "peaks": 2, "tuning_seeds": 1, "width": 8, "pool": 4},
        ),
        "quick": Budget(
            8, (*SUITE, "dna", *WORST), {"rows": 1000, "tuning_seeds": 2},
            {"dna": {"rows": 600, "epochs": 20}},
        ),
        "deep": Budget(8, ("mlp",), {"tuning_seeds": 2}, {"mlp": QUICK_MLP}),
        "full": Budget(10),
    },
    claims=CLAIMS,
    figures=(
        Figure("refined", "Gradient norms of one run of linear decay, after the median filter, the "
               "refined schedule and the template nearest to it.", draw_refined),
        Figure("synthetic", "What norm curves refine to: constant norms to linear decay, large early "
               "norms to warm-up, rising norms to early and falling norms to late annealing.",
               draw_synthetic, ("vehicle",)),
        Figure("contest", "Training loss of the last iterate against linear decay, mean over seeds. "
               "Every family has the better of with and without warm-up; linear over twice the steps "
               "costs what pilot and refined run cost together.", draw_contest, SUITE),
        Figure("intervals", "The same pooled over the nine logistic regressions.", draw_intervals,
               SUITE),
        Figure("tuning", "Final training loss by peak learning rate, mean over the tuning seeds.",
               draw_tuning, ("vehicle",)),
        Figure("worst", "Worst excess loss of the last iterate over nonsmooth convex problems of "
               "known size, by step size. Theory promises linear decay at most 1 at its own.",
               draw_worst, WORST),
    ),
    data="iris and breast cancer (scikit-learn), glass, vehicle, vowel, ionosphere, satellite, "
         "shuttle, letter and dna (UCI, from r-cran-mlbench), MNIST-5k; made-up convex problems",
    watch="train_loss",
    side_by_side=True,
    notes="Training losses are compared as log(loss + 0.001). Every family is tuned on three other "
    "seeds (MLP and quick: two): 12 peaks (8) with and without 10 % warm-up, two offsets for 1/t and 1/sqrt(t), "
    "two powers for polynomial decay. Quick: at most 1,000 examples a set (dna 600 for 20 epochs), "
    "30 epochs, batches of 16; the MLP (budget deep) is 196-32-32-10 on 2,500 images of 14 x 14 for 5 epochs. Sets "
    "whose training loss reaches 0 under every schedule (wine, sonar, digits) are left out; dna stands "
    "for them.",
)  # fmt: skip
