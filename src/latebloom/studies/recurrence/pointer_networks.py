"""Pointer Networks.

Vinyals, Fortunato, Jaitly (NIPS 2015, arXiv 1506.03134).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations
from math import ceil
from typing import Any, Literal

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.ticker import MaxNLocator

from latebloom.data.planar import Delaunays, Hulls, Law, Problems, draw_points, label_all
from latebloom.data.tours import MOST_DRAWN, Tours, christofides, distances, nearest_neighbour
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Measure, Traces, at, final, spearman
from latebloom.methods.recurrence.pointer import AttentionSeq2Seq, PointerNetwork, Seq2Seq, Writer
from latebloom.methods.recurrence.pointer_answers import Kind
from latebloom.methods.recurrence.pointer_learning import (
    Answered,
    Drawn,
    PointerLearner,
    clipped_adam,
    clipped_sgd,
)

Who = Literal["pointer", "attention", "plain", "extremes", "random", "nearest", "christofides"]
LEARNERS = ("pointer", "attention", "plain")
SHOWN = 4  # problems of each exam whose answers are drawn


@dataclass(frozen=True)
class Config:
    """Who answers what.

    - `kind` of problem: "hull", "delaunay" or "tour", of `low` to `high` points. `labels` of tours are the "shortest" or
      those of the "nearest" neighbour; triangles go by their incentres or in a "random" `order`.
    - `who`: a "pointer" network, a network with a fixed dictionary, with "attention" or "plain"; or a rule: the polygon of
      the "extremes" of x and y; what is "random"; for tours the "nearest" neighbour, "christofides".
    - `size` of the LSTMs; what the decoder is fed, a `feed` of the "point" or its "encoded" state; `bound` of the uniform
      start (0: that of each layer).
    - `optimiser`: "adam", whose `rate` falls along a cosine, or "sgd", whose rate stays; `batch` and `steps`.
    - `exam`: problems of each exam.
    """

    kind: Kind = "hull"
    who: Who = "pointer"
    low: int = 5
    high: int = 10
    labels: Literal["shortest", "nearest"] = "shortest"
    order: Literal["incentre", "random"] = "incentre"
    size: int = 64
    feed: Literal["point", "encoded"] = "point"
    bound: float = 0.0
    optimiser: Literal["adam", "sgd"] = "adam"
    rate: float = 3e-3
    batch: int = 64
    steps: int = 6000
    exam: int = 500


def make_process(config: Config) -> PointerLearner | Answered:
    exams = exams_of(config)
    if config.who not in LEARNERS:
        answers = {name: rule(config, exam) for name, exam in exams.items()}
        return Answered(exams=exams, answers=answers, kind=config.kind, show=SHOWN)
    return PointerLearner(
        network=partial(_network, config, max(e.points.shape[1] for e in exams.values())), problems=_drawn(config),
        kind=config.kind, exams=exams, optimiser=partial(_optimiser, config), hyper={"learning_rate": config.rate},
        batch=config.batch, bound=config.bound if config.bound > 0 else None, widths=widths(config), show=SHOWN,
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    if config.who not in LEARNERS:
        return np.array([0, 1])
    return np.unique(np.round(config.steps * np.array([0, 1 / 8, 1 / 4, 1 / 2, 1])).astype(int))  # fmt: skip


def _network(config: Config, most: int, key: PRNGKeyArray) -> Writer:
    if config.who == "pointer":
        return PointerNetwork(config.size, key=key, feed=config.feed)
    return {"attention": AttentionSeq2Seq, "plain": Seq2Seq}[config.who](config.size, most, key=key)


def _optimiser(config: Config, learning_rate: Any) -> optax.GradientTransformation:
    if config.optimiser == "sgd":
        return clipped_sgd(learning_rate)
    return clipped_adam(optax.cosine_decay_schedule(learning_rate, config.steps))


def _drawn(config: Config) -> Drawn:
    if config.kind == "hull":
        return Hulls(config.low, config.high)
    if config.kind == "delaunay":
        return Delaunays(config.low, config.high, order=config.order)
    return Tours(config.low, config.high, labels=config.labels)


SIZES = {"low": 0.0, "high": 1.0, "x1.5": 1.5, "x2": 2.0, "x3": 3.0}  # of exams, times `high`
BEAMS = {"beam-3": 3, "beam-5": 5}  # of tours through `high` points


def points_of(config: Config, exam: str) -> int:
    """How many points the sets of an exam have."""
    return config.low if exam == "low" else ceil(SIZES.get(exam, 1.0) * config.high)


def exams_of(config: Config) -> dict[str, Problems]:
    """Exams by name, the same for all that have as many points."""
    names: dict[str, Law] = dict.fromkeys(SIZES, "uniform")
    if config.kind == "hull":
        names |= {"ring": "ring", "clusters": "clusters"}
    elif config.kind == "tour":
        del names["x3"]
        names |= dict.fromkeys(BEAMS, "uniform")
    else:
        names = {"high": "uniform"}
    return {name: _exam(config.kind, points_of(config, name), law, config.exam) for name, law in names.items()}  # fmt: skip


def widths(config: Config) -> dict[str, int]:
    return BEAMS if config.kind == "tour" else {}


@lru_cache
def _exam(kind: Kind, n: int, law: Law, count: int) -> Problems:
    key = jax.random.fold_in(jax.random.key(1506), n)  # no seed trains on it
    if kind == "hull":
        return Hulls(n, n, law).draw(key, count)
    if kind == "delaunay":
        return Delaunays(n, n, law).draw(key, count)
    if n <= MOST_DRAWN:
        return Tours(n, n, law).draw(key, count)
    points, _ = draw_points(key, count, n, n, law)
    return label_all(list(np.asarray(points)), lambda p: christofides(distances(p)).cities, end=False)  # fmt: skip


def rule(config: Config, exam: Problems) -> np.ndarray:
    """What a rule answers, tokens [problems, steps]."""
    points, n = np.asarray(exam.points, np.float64), exam.points.shape[1]
    if config.kind == "tour":
        find: dict[str, Callable[[np.ndarray], Any]] = {
            "random": lambda p: np.arange(n), "nearest": lambda p: nearest_neighbour(distances(p)).cities,
            "christofides": lambda p: christofides(distances(p)).cities,
        }  # fmt: skip
        return 1 + np.array([find[config.who](one) for one in points])
    if config.kind == "delaunay":
        rng, triples = np.random.default_rng(0), np.array(list(combinations(range(n), 3)))
        wanted = np.asarray(exam.lengths) // 3
        tokens = np.zeros((len(points), exam.targets.shape[1]), int)
        for row, count in zip(tokens, wanted, strict=True):
            row[: 3 * count] = 1 + rng.permutation(triples)[:count].ravel()
        return tokens
    around = (points[..., 1].argmin(1), points[..., 0].argmax(1), points[..., 1].argmax(1), points[..., 0].argmin(1))  # fmt: skip
    rings = [list(dict.fromkeys(ring)) for ring in (1 + np.stack(around, axis=1)).tolist()]
    return np.array([ring + [0] * (5 - len(ring)) for ring in rings])


# What won on seeds 100 and 101 (benchmarks/pointer_networks_tuning.py).
TUNED: dict[str, dict[str, Any]] = tuned_beside(__file__)

PLAIN: dict[str, Config] = {
    "hull/pointer": Config(), "hull/attention": Config(who="attention"), "hull/plain": Config(who="plain"),
    "hull/encoded": Config(feed="encoded"), "hull/sgd": Config(optimiser="sgd", bound=0.08),
    "delaunay/pointer": Config("delaunay", high=5), "tour/pointer": Config("tour"), "tour/student": Config("tour", labels="nearest"),
}  # fmt: skip


def tuned(arm: str, **more: Any) -> Config:
    return replace(PLAIN[arm], rate=TUNED[arm]["rate"], **more)


ARMS: dict[str, Config] = {
    **{arm: tuned(arm) for arm in PLAIN},
    "hull/one-size": tuned("hull/pointer", low=PLAIN["hull/pointer"].high), "hull/extremes": Config(who="extremes"),
    "delaunay/unordered": tuned("delaunay/pointer", order="random"), "delaunay/larger": tuned("delaunay/pointer", low=8, high=8),
    "delaunay/random": Config("delaunay", "random", high=5),
    **{f"tour/{who}": Config("tour", who) for who in ("random", "nearest", "christofides")},
}  # fmt: skip

Ask = Callable[..., Measure]
exact, failed, area = (partial(final, name) for name in ("exact", "failed", "area"))
covered, length, gap = final("covered", exam="high"), partial(final, "length"), partial(final, "gap")  # fmt: skip


def over(one: str, other: str, of: Measure) -> Effect:
    return of[one] - of[other]


BEYOND = ("high", "x1.5", "x2", "x3")
LEARN = (
    "Ptr-Nets can be used to learn approximate solutions to three challenging geometric problems"
)
IMPROVE = "Ptr-Nets not only improve over sequence-to-sequence with input attention"
VARIABLE = "but also allow us to generalize to variable size output dictionaries"
GENERALIZE = "the learnt models generalize beyond the maximum lengths they were trained on"
RIGHT, SHARE, AREA, LONGER = "share of right answers", "share of answers", "share of the area", "share of the length"  # fmt: skip
HULLS = Need(exact(exam="low")["hull/pointer"], "> 0.5", "hulls of the fewest points were not learned")  # fmt: skip
TRIANGLES = Need(covered["delaunay/pointer"], "> 0.6", "triangulations were not learned")
TOURS = Need(gap(exam="low")["tour/pointer"], "< 0.05", "tours of the fewest points were not learned")  # fmt: skip
CLAIMS = (
    Claim("C1.attention", "Of hulls of ten points pointers get more right than a sequence-to-sequence network with attention",
          f"{IMPROVE}: 72.6 against 38.9 % (Table 1)", over("hull/pointer", "hull/attention", exact(exam="high")), "> 0", RIGHT),
    Claim("C1.plain", "Which gets more right than one without", "38.9 against 1.9 %", over("hull/attention", "hull/plain", exact(exam="high")), "> 0", RIGHT),
    Claim("C1.area", "Where they are polygons, hulls by pointers cover more than 97 % of the true area", f"{LEARN}: 99.9 %",
          area(exam="high")["hull/pointer"], "> 0.97", AREA, null=area(exam="high")["hull/extremes"]),
    Claim("C1.failed", "Without attention more answers are no simple polygons than by pointers", "(LSTM: FAIL)",
          over("hull/plain", "hull/pointer", failed(exam="high")), "> 0", SHARE),
    Claim("C2.area", "Of twice as many points as were ever trained on, hulls that are polygons cover more than 97 % of the area", f"{GENERALIZE}: 99.9 %",
          area(exam="x2")["hull/pointer"], "> 0.97", AREA, null=area(exam="x2")["hull/extremes"], needs=(HULLS,)),
    Claim("C2.failed", "Of them, fewer than 1 % are no simple polygons", f"{GENERALIZE} (FAIL from 1 % on)",
          failed(exam="x2")["hull/pointer"], "< 0.01", SHARE, null=at("failed", 0, exam="x2")["hull/pointer"], needs=(HULLS,)),
    Claim("C2.beyond", "More than a tenth of hulls of twice as many points are right", f"{GENERALIZE}: 50.3 %",
          exact(exam="x2")["hull/pointer"], "> 0.1", RIGHT, null=exact(exam="x2")["hull/attention"], needs=(HULLS,)),
    Claim("C2.dictionary", "A dictionary with room for them gets fewer than 1 % of those right", VARIABLE, exact(exam="x2")["hull/attention"], "< 0.01",
          RIGHT, null=exact(exam="x2")["hull/pointer"], needs=(HULLS,)),
    Claim("C3.covered", "Of triangulations of five points more than 80 % of the triangles are right", f"{LEARN}: 93.0 %", covered["delaunay/pointer"],
          "> 0.8", "share of triangles", null=covered["delaunay/random"]),
    Claim("C3.right", "And more than half of the triangulations", f"{LEARN}: 80.7 %", final("exact", exam="high")["delaunay/pointer"], "> 0.5", RIGHT,
          null=final("exact", exam="high")["delaunay/random"]),
    Claim("C4.five", "Tours through five points are less than 2 % longer than the shortest", f"{LEARN}: 2.12 against 2.12", gap(exam="low")["tour/pointer"],
          "< 0.02", LONGER, null=gap(exam="low")["tour/nearest"]),
    Claim("C4.ten", "Tours through ten points, too", f"{LEARN}: 2.88 against 2.87", gap(exam="high")["tour/pointer"], "< 0.02", LONGER,
          null=gap(exam="high")["tour/nearest"]),
    Claim("C4.valid", "Left free, it writes more than 1 % that are no tours for twice as many points as trained on", "(why the beam is held to tours)",
          final("free_failed", exam="x2")["tour/pointer"], "> 0.01", SHARE, null=final("failed", exam="x2")["tour/pointer"], needs=(TOURS,)),
    thorough("C2.fall", "The more points, the fewer hulls are right", "72.6, 50.3, 22.1, 1.3 % of 50, 100, 200, 500",
             spearman(range(len(BEYOND)), [exact(exam=name)["hull/pointer"] for name in BEYOND]), "< 0", "rank correlation", needs=(HULLS,)),
    thorough("C2.one", "One network for five to ten points is at most ten points worse at ten than one for ten alone", f"{VARIABLE}: 69.6 against 72.6 %",
             over("hull/pointer", "hull/one-size", exact(exam="high")), "> -0.1", RIGHT, null=over("hull/attention", "hull/one-size", exact(exam="high"))),
    thorough("C2.ring", "On points of another law, a ring, fewer are right (ours)", "(negative control)",
             (exact(exam="high") - exact(exam="ring"))["hull/pointer"], "> 0", RIGHT, needs=(HULLS,)),
    thorough("C2.clusters", "And on clusters (ours)", "(negative control)", (exact(exam="high") - exact(exam="clusters"))["hull/pointer"], "> 0", RIGHT, needs=(HULLS,)),
    thorough("C3.order", "Triangles in a random order are learned worse than by their incentres", "unordered targets learn clearly worse",
             over("delaunay/pointer", "delaunay/unordered", covered), "> 0", "share of triangles"),
    thorough("C3.larger", "Of triangulations of eight points fewer triangles are right", "93.0 % of 5, 81.3 % of 10, 52.8 % of 50",
             over("delaunay/pointer", "delaunay/larger", covered), "> 0", "share of triangles", needs=(TRIANGLES,)),
    thorough("C4.beam", "A beam of five finds shorter tours through ten points than a greedy writer", "beam search",
             (length(exam="high") - length(exam="beam-5"))["tour/pointer"], "> 0", "length", needs=(TOURS,)),
    thorough("C4.teacher", "Trained on tours of the nearest neighbour, it finds shorter ones through ten points than that", "6.42 against its teacher's 6.46",
             over("tour/nearest", "tour/student", length(exam="beam-5")), "> 0", "length", null=over("tour/nearest", "tour/random", length(exam="high"))),
    thorough("C4.christofides", "Tours through ten points are shorter than those of Christofides", "2.88 against 2.93 (a third heuristic)",
             over("tour/christofides", "tour/pointer", length(exam="beam-5")), "> 0", "length", null=over("tour/christofides", "tour/nearest", length(exam="high"))),
    thorough("C5.beyond", "Through twice as many points as trained on, they are longer than the nearest neighbour's", "7.66 against 6.46 (of 50, trained on 5 to 20)",
             over("tour/pointer", "tour/nearest", length(exam="x2")), "> 0", "length", null=over("tour/pointer", "tour/nearest", length(exam="low")), needs=(TOURS,)),
    thorough("S.feed", "The decoder is better fed with the point than with its encoded state (ours)", "(a public implementation feeds the latter)",
             over("hull/pointer", "hull/encoded", exact(exam="high")), "> 0", RIGHT),
    thorough("S.sgd", "Plain descent, as in the paper, gets within ten points of Adam in as many updates (ours)", "(SGD at a rate of 1, no tuning)",
             over("hull/sgd", "hull/pointer", exact(exam="high")), "> -0.1", RIGHT, null=over("hull/plain", "hull/pointer", exact(exam="high"))),
)  # fmt: skip

NAMES = {"hull/pointer": "pointer", "hull/attention": "attention", "hull/plain": "sequence to sequence", "hull/extremes": "extremes of x and y"}  # fmt: skip
TOUR_NAMES = {"tour/pointer": "pointer", "tour/student": "pointer, taught by the nearest neighbour", "tour/nearest": "nearest neighbour",
              "tour/christofides": "Christofides", "tour/random": "random"}  # fmt: skip


def config_of(traces: Traces, arm: str) -> Config:
    return Config(**json.loads(traces[arm].attrs["config"]))


def draw_sizes(traces: Traces) -> MatplotlibFigure:
    """Of hulls, what is right, failed and covered against the number of points; of tours, the length."""
    figure, axes = pictures.panels(4, 4, width=13, height=3.2)
    whats = {"exact": "right", "failed": "no simple polygon", "area": "of the area, where polygons"}
    for ax, (what, title) in zip(axes, whats.items(), strict=False):
        for i, (arm, label) in enumerate(NAMES.items()):
            if arm in traces:
                _by_size(ax, traces, arm, what, i, label, ("low", *BEYOND))
        ax.set(title=f"hulls: {title}", ylim=(0.5 if what == "area" else -0.03, 1.03))
    for i, (arm, label) in enumerate(TOUR_NAMES.items()):
        if arm in traces and arm != "tour/random":
            _by_size(axes[3], traces, arm, "length", i, label, ("low", "high", "x1.5", "x2"))
    axes[3].set(title="tours: length")
    for ax in axes:
        ax.set_xlabel("points")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _trained(axes, traces)
    for ax in axes[2:]:
        ax.legend(fontsize=7)
    return figure


def _by_size(ax: Axes, traces: Traces, arm: str, what: str, look: int, label: str, exams: tuple[str, ...]) -> None:  # fmt: skip
    config, last = config_of(traces, arm), traces[arm][what].isel(step=-1)
    x = np.array([points_of(config, name) for name in exams])
    style.spread(ax, x, last.sel(exam=list(exams)).values, marker="o", markersize=4, label=label, **_look(look))  # fmt: skip


def _look(place: int) -> dict[str, Any]:
    return dict(pictures.nth_look(place))


def _trained(axes: list[Axes], traces: Traces) -> None:
    """The most points that were trained on, as a line."""
    for ax, arm in zip(axes, ["hull/pointer"] * 3 + ["tour/pointer"], strict=True):
        if arm in traces:
            pictures.vertical(ax, config_of(traces, arm).high, "trained up to here")


PICTURED = (("hull/pointer", "high"), ("hull/pointer", "x2"), ("hull/attention", "x2"), ("delaunay/pointer", "high"), ("tour/pointer", "high"), ("tour/pointer", "x2"))  # fmt: skip
TITLES = {"hull/pointer": "hull", "hull/attention": "hull, attention", "delaunay/pointer": "Delaunay", "tour/pointer": "tour"}  # fmt: skip


def draw_answers(traces: Traces) -> MatplotlibFigure:
    """Answers of the first seed after training, over the right ones."""
    shown = [(arm, exam) for arm, exam in PICTURED if arm in traces]
    figure, axes = pictures.panels(2 * len(shown), len(shown), width=2.3 * max(len(shown), 1), height=2.4)  # fmt: skip
    for i, (arm, exam) in enumerate(shown):
        config = config_of(traces, arm)
        answers = traces[arm].answer.isel(seed=0, step=-1).sel(exam=exam).values.astype(int)
        asked = exams_of(config)[exam]
        for row in (0, 1):
            ax = axes[row * len(shown) + i]
            points, true = np.asarray(asked.points[row]), np.asarray(asked.targets[row])
            for tokens, look in (
                (true, {"color": style.INK, "linestyle": ":", "linewidth": 1.2}),
                (answers[row], {"color": style.colours[0], "linewidth": 1.4}),
            ):
                _outline(ax, config.kind, points, tokens, look)  # fmt: skip
            ax.plot(*points.T, ".", color=style.colours[1], markersize=5)
            ax.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal", xticks=[], yticks=[])
            if row == 0:
                ax.set_title(f"{TITLES[arm]}, {len(points)} points", fontsize=9)
    return figure


def _outline(ax: Axes, kind: Kind, points: np.ndarray, tokens: np.ndarray, look: dict[str, Any]) -> None:  # fmt: skip
    """The polygon, tour or triangles of an answer, as far as they go."""
    end = int((tokens == 0).argmax()) if (tokens == 0).any() else len(tokens)
    at_ = tokens[:end] - 1
    rings = at_[: 3 * (end // 3)].reshape(-1, 3) if kind == "delaunay" else at_[None]
    for ring in rings:
        if len(ring):
            ax.plot(*points[np.append(ring, ring[0])].T, **look)


TOUR_GAPS = {
    label: {"5 points": gap(exam="low")[arm], "10 points": gap(exam="high")[arm],
            **({"10 points, beam 5": gap(exam="beam-5")[arm]} if arm in ("tour/pointer", "tour/student") else {})}
    for arm, label in TOUR_NAMES.items() if arm != "tour/random"
}  # fmt: skip
TRIANGLE_ROWS = {"by incentres": covered["delaunay/pointer"], "in random order": covered["delaunay/unordered"], "eight points": covered["delaunay/larger"],
                 "random triangles": covered["delaunay/random"]}  # fmt: skip
SMOKE_ARMS = ("hull/pointer", "hull/attention", "hull/plain", "hull/extremes", "delaunay/pointer", "delaunay/random", "tour/student", "tour/nearest", "tour/random")  # fmt: skip
SMOKE = {"size": 8, "high": 6, "batch": 8, "steps": 16, "exam": 8}
FULL = {"size": 256, "low": 5, "high": 50, "batch": 128, "steps": 100_000, "exam": 1000, "optimiser": "sgd", "rate": 1.0, "bound": 0.08}  # fmt: skip
FULL_ARMS: dict[str, dict[str, Any]] = {
    "hull/one-size": {"low": 50},
    **{f"delaunay/{name}": {"high": 5} for name in ("pointer", "unordered", "random")}, "delaunay/larger": {"low": 10, "high": 10},
    **{f"tour/{name}": {"high": 12} for name in ("pointer", "student", "nearest", "christofides", "random")},
}  # fmt: skip

study = Study(
    paper=Paper("pointer-networks", "Pointer Networks", "Oriol Vinyals, Meire Fortunato, Navdeep Jaitly", "NIPS", 2015, "1506.03134"),
    family="recurrence",
    question="Can attention that points at the inputs solve problems whose answer is a sequence of input positions?",
    symptoms=(
        "the output vocabulary depends on the length of the input",
        "convex hull, Delaunay triangulation or travelling salesman tour by a network",
        "a sequence-to-sequence model does not carry over to longer inputs",
        "select or order elements of a set",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE_ARMS, SMOKE, {arm: {"high": 5} for arm in SMOKE_ARMS if arm.startswith("delaunay/")}),
        "quick": Budget(5),
        "thorough": Budget(5),
        "full": Budget(5, settings=FULL, arm_settings=FULL_ARMS),
    },
    claims=CLAIMS,
    figures=(
        Figure("answers", "Answers of the first seed (blue) over the right ones (dotted), two problems of each kind.", draw_answers, ("hull/pointer",)),
        Figure("sizes", "Against the number of points, up to sizes that were never trained on; bands span the seeds.", draw_sizes, ("hull/pointer",)),
        Figure("course", "Hulls of ten points while learning; bands span the seeds.",
               pictures.curves({"right": "exact", "no simple polygon": "failed"}, ("hulls", {a: n for a, n in NAMES.items() if a != "hull/extremes"} | {"hull/sgd": "pointer, plain descent", "hull/encoded": "pointer, fed encoded states"}),
                               as_drawn=lambda t: t.sel(exam="high"), xlabel="update", ylim=(-0.03, 1.03)), ("hull/pointer",)),
        Figure("gaps", "Tours: how much longer than the shortest; dots are seeds, bars means.", pictures.dots({"length over the shortest, less 1": TOUR_GAPS}), ("tour/pointer",)),
        Figure("triangles", "Delaunay triangulations: true triangles that were found; dots are seeds, bars means.",
               pictures.dots({"share of the triangles": TRIANGLE_ROWS}, xlim=(0, 1.02)), ("delaunay/pointer",)),
    ),
    data="points drawn evenly in the unit square, labelled exactly",
    notes="The paper trains networks of 256 or 512 units on a million examples of up to 50 points, by plain descent at a rate of 1; here they have "
    "64 units, sets of 5 to 10 points are drawn anew at each update, and Adam's rate falls along a cosine. The table of rates says by how many updates each was chosen, on other seeds (0: not yet). The "
    "dictionaries have room for the largest exam. The paper's first two heuristics for tours are not known to us: the nearest neighbour stands "
    "for the worse one. Tours through more than twelve points are judged by their length alone, or against Christofides.",
    watch="exact",
)  # fmt: skip
