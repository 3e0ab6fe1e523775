"""Learning delays in spiking neural networks using dilated convolutions with learnable spacings.

Hammouamri, Khalfaoui-Hassani, Masquelier (ICLR 2024, arXiv 2306.17670).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.data.spoken_digits import CLASSES, load_spoken_digits
from latebloom.data.timed_patterns import TimedPatterns
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.lab.study import thorough, tuned_beside
from latebloom.measures import Effect, Measure, Traces, at, final, peak, peak_step, spearman
from latebloom.methods.recurrence.delay_learning import DelayLearner, Sequences, TeacherRecovery
from latebloom.methods.recurrence.spiking import (
    Gated,
    SpikingDelays,
    SpikingRecurrent,
    matched_width,
    parameters,
)

Kind = Literal["learned", "fixed", "none", "recurrent", "gated", "membrane", "spikes"]


@dataclass(frozen=True)
class Config:
    """What learns, from what, and how.

    - `kind` of network: delays that are learned or fixed, none, recurrent connections, gated units; or a student of a
      teacher's delays by its "membrane" or "spikes" alone. `width` of the `layers` hidden layers of the networks with
      delays; the others have as many parameters as learned delays at that width, or with `size` that width.
    - `data`: "timed" patterns of `classes` over `channels`, each a `burst` of so many steps that moves by a `jitter`,
      `train` drawn for each seed, in order or `shuffled` over time; or "spoken-digits".
    - `taps`: the longest delay and one; `sigma` of taps at first (0: half of the taps), `annealed` or not; `tau` of
      membranes; `connections` of each neuron (0: all); `trailing` steps; `redraw`: other first delays;
      `finish`: the last share of epochs, with whole delays that stay.
    - `rate` and `delay_rate` of the two optimisers, `dropout`, `batch` and `epochs`.
    """

    kind: Kind = "learned"
    data: str = "timed"
    classes: int = 20
    channels: int = 8
    train: int = 1000
    exam: int = 300
    burst: int = 3
    jitter: float = 1.0
    shuffled: bool = False
    width: int = 16
    layers: int = 1
    size: int = 0
    taps: int = 21
    sigma: float = 0.0
    annealed: bool = True
    tau: float = 1.005
    connections: int = 0
    trailing: bool = True
    finish: float = 0.0
    redraw: int = 0
    rate: float = 0.01
    delay_rate: float = 0.1
    dropout: float = 0.0
    batch: int = 50
    epochs: int = 30
    show: bool = False


def make_process(config: Config) -> DelayLearner | TeacherRecovery:
    sigma = config.sigma if config.sigma else float(config.taps // 2)
    hyper = {"rate": config.rate, "delay_rate": config.delay_rate, "sigma": sigma}
    if config.kind in ("membrane", "spikes"):
        return TeacherRecovery(
            hyper=hyper, updates=_updates(config), inputs=config.channels, outputs=config.width, taps=config.taps,
            batch=config.batch, seen=config.kind, annealed=config.annealed,
        )  # fmt: skip
    timed = config.data == "timed"
    return DelayLearner(
        network=partial(_network, config), data=partial(_timed, config) if timed else _spoken(config), hyper=hyper,
        epochs=config.epochs, batch=config.batch, annealed=config.annealed, show=config.show, finish=config.finish,
        fixed=config.kind in ("fixed", "none"),
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    """The start, four times while sigma falls, and eight times after it."""
    share = [0, 1 / 16, 1 / 8, 3 / 16, 1 / 4, *np.linspace(1 / 4, 1, 9)[1:]]
    each = _updates(config) // config.epochs
    return np.unique(np.round(np.array(share) * config.epochs).astype(int) * each)


def _updates(config: Config) -> int:
    count = _spoken(config).y.shape[0] if config.data == "spoken-digits" else config.train
    return config.epochs * (count // config.batch)


def sizes(config: Config) -> list[int]:
    """Inputs, hidden layers, classes of an arm's network."""
    ends = (40, len(CLASSES)) if config.data == "spoken-digits" else (config.channels, config.classes)  # fmt: skip
    delayed = [ends[0], *[config.width] * config.layers, ends[1]]
    wanted, width = parameters(delayed, True), config.width
    if config.size:
        width = config.size
    elif config.kind == "none":
        width = matched_width(delayed)
    elif config.kind in ("recurrent", "gated"):
        gates = 1 if config.kind == "recurrent" else 3
        count = lambda n: gates * (n * n + n * ends[0] + 2 * n) + n * ends[1]  # noqa: E731
        width = next(n for n in range(1, 10_000) if count(n) >= wanted)
    return [ends[0], *[width] * config.layers, ends[1]]


def _network(config: Config, key: PRNGKeyArray) -> Any:
    key = jax.random.fold_in(key, config.redraw) if config.redraw else key
    if config.kind == "recurrent":
        return SpikingRecurrent(sizes(config), key=key, tau=config.tau, dropout=config.dropout)
    if config.kind == "gated":
        return Gated(sizes(config), key=key, dropout=config.dropout)
    return SpikingDelays(
        sizes(config), 1 if config.kind == "none" else config.taps, key=key, tau=config.tau, dropout=config.dropout,
        connections=config.connections if config.connections else None, trailing=config.trailing,
    )  # fmt: skip


def _timed(config: Config, key: PRNGKeyArray) -> Sequences:
    keys = jax.random.split(key, 5)
    patterns = TimedPatterns(
        config.classes, config.channels, key=keys[0], span=30, shift=10, jitter=config.jitter, lost=0.1, noise=0.01, burst=config.burst
    )  # fmt: skip
    drawn = [patterns.draw(k, n) for k, n in zip(keys[1:4], (config.train, config.exam, config.exam), strict=True)]  # fmt: skip
    if config.shuffled:
        own = jax.random.split(keys[4], 3)
        drawn = [(_shuffled(k, x), y) for k, (x, y) in zip(own, drawn, strict=True)]
    return Sequences(*drawn[0], {"valid": drawn[1], "test": drawn[2]})


def _shuffled(key: PRNGKeyArray, x: Array) -> Array:
    """Each example's steps in an order of their own."""
    order = jnp.argsort(jax.random.uniform(key, x.shape[:2]), axis=1)
    return jnp.take_along_axis(x, order[..., None], axis=1)


def _spoken(config: Config) -> Sequences:
    digits, found = load_spoken_digits(), {}
    for name, y in digits.y.items():
        wanted = config.train if name == "train" else config.exam
        rows = _evenly(y, wanted) if wanted < len(y) else np.arange(len(y))
        found[name] = (jnp.asarray(digits.x[name][rows]), jnp.asarray(y[rows]))
    x, y = found.pop("train")
    return Sequences(x, y, found)


def _evenly(y: np.ndarray, wanted: int) -> np.ndarray:
    """Rows: as many of each class, spread over its speakers."""
    each = (np.flatnonzero(y == label) for label in range(len(CLASSES)))
    return np.sort(np.concatenate([rows[np.linspace(0, len(rows), wanted // len(CLASSES), endpoint=False).astype(int)] for rows in each]))  # fmt: skip


# What won on seeds 100 and 101 (benchmarks/spiking_delays_tuning.py).
TUNED: dict[str, Any] = tuned_beside(__file__)


def tuned(kind: Kind, data: str = "timed", of: str = "", **more: Any) -> Config:
    """With the settings that were tuned for `of`, or for the kind."""
    own = (
        {"train": 960, "exam": 480, "width": 32, "batch": 48, "epochs": 20}
        if data == "spoken-digits"
        else {}
    )
    return Config(kind, data, **(own | TUNED[data][of if of else kind] | more))


def student(kind: Kind, of: str = "", **more: Any) -> Config:
    own: dict[str, Any] = {"channels": 10, "width": 6, "taps": 25, "batch": 16, "train": 320, "epochs": 40}  # fmt: skip
    return Config(kind, **(own | TUNED["teacher"][of if of else kind] | more))


WIDTHS, TAPS, SLOW, SPARSE = (8, 16, 32, 64), (5, 11, 21, 31), 10.0, 5
spoken = partial(tuned, data="spoken-digits")
ARMS: dict[str, Config] = {
    "learned": tuned("learned", show=True), "fixed": tuned("fixed"), "fixed-again": tuned("fixed", redraw=1),
    "none": tuned("none"), "none-again": tuned("none", redraw=1), "shuffled": tuned("learned", shuffled=True),
    "recurrent": tuned("recurrent"), "recurrent-large": tuned("recurrent", of="recurrent-large", size=64), "gated": tuned("gated"),
    "finished": tuned("learned", finish=0.2), "sharp": tuned("learned", burst=1), "sharp/finished": tuned("learned", burst=1, finish=0.2),
    "constant": tuned("learned", of="constant", annealed=False), "wide": tuned("learned", annealed=False),
    "one-rate": tuned("learned", of="one-rate"), "cut": tuned("learned", trailing=False),
    **{f"{kind}/width-{w}": tuned(kind, of=f"{kind}/width-{w}", width=w) for w in WIDTHS if w != 16 for kind in ("learned", "fixed")},
    **{f"{kind}/sparse": tuned(kind, of=f"{kind}/sparse", connections=SPARSE, width=32) for kind in ("learned", "fixed")},
    **{f"{kind}/deep": tuned(kind, of=f"{kind}/deep", layers=2) for kind in ("learned", "fixed", "none")},
    "none/deep-again": tuned("none", of="none/deep", layers=2, redraw=1),
    **{f"{kind}/slow": tuned(kind, of=f"{kind}/slow", tau=SLOW) for kind in ("learned", "fixed", "none")},
    **{f"taps-{t}": tuned("learned", taps=t) for t in TAPS if t != 21},
    "teacher": student("membrane"), "teacher/constant": student("membrane", of="constant", annealed=False),
    "teacher/spikes": student("spikes"),
    "spoken/fixed-again": spoken("fixed", redraw=1),
    **{f"spoken/{kind}": spoken(kind, show=kind == "learned") for kind in ("learned", "fixed", "none", "recurrent")},
}  # fmt: skip

test, real = final("accuracy", exam="test"), final("accuracy_real", exam="test")
rounded = final("accuracy_rounded", exam="test")
people = final("accuracy", exam="people")
found, chance = final("found"), final("chance")
untrained, untrained_people = at("accuracy", 0, exam="test"), at("accuracy", 0, exam="people")  # fmt: skip
rounding = abs(test - real)
selected = peak("accuracy", exam="test") - at(
    "accuracy", peak_step("accuracy", exam="valid"), exam="test"
)


def over(one: str, other: str, of: Measure = test) -> Effect:
    return of[one] - of[other]


def gap(width: int) -> Effect:
    """Learned over fixed delays at a width."""
    return over("learned", "fixed") if width == 16 else over(f"learned/width-{width}", f"fixed/width-{width}")  # fmt: skip


HELP = "fixed random delays help"
MORE = "and learning them helps even more"
BEATS = "outperformed the state of the art without recurrent connections and with substantially fewer parameters"
ACCURACY, SHARE, RANK = "accuracy", "share of connections", "rank correlation"
# Shares that logistic regression on spike counts a channel has right, without timing (benchmarks/spoken_digits_by_counts.py).
COUNTS = {"test": 0.832, "people": 0.367}
LEARNED = Need(test["learned"], "> 0.5", "learned delays did not learn the task")
SLOWLY = Need(test["learned/slow"], "> 0.5", "learned delays did not learn the task")
HEARD = Need(test["spoken/learned"], "> 0.5", "the digits were not learned")
AGAIN = over("fixed-again", "fixed")
CLAIMS = (
    Claim("C1.fixed", "Fixed random delays beat no delays with as many parameters", HELP, over("fixed", "none"), "> 0", ACCURACY,
          null=over("none-again", "none")),
    Claim("C1.spoken", "So they do on spoken digits of voices never heard", HELP, over("spoken/fixed", "spoken/none"), "> 0", ACCURACY,
          null=over("spoken/fixed-again", "spoken/fixed")),
    Claim("C2.learned", "Learned delays beat fixed random ones", MORE, over("learned", "fixed"), "> 0", ACCURACY, null=AGAIN),
    Claim("C2.level", "Learned delays tell more than half of 20 classes that differ in timing alone", "(is the task learned?)",
          test["learned"], "> 0.5", ACCURACY, null=test["shuffled"]),
    Claim("C2.spoken", "Learned delays beat fixed ones on spoken digits", MORE, over("spoken/learned", "spoken/fixed"), "> 0", ACCURACY,
          null=over("spoken/fixed-again", "spoken/fixed"), needs=(HEARD,)),
    Claim("C2.real", "Before delays become whole, learned ones beat fixed ones (ours)", MORE, real["learned"] - test["fixed"], "> 0", ACCURACY, null=AGAIN,
          added="after results"),
    Claim("C2.counts", "Learned delays tell more digits of voices never heard than a linear classifier of spike counts a channel does (ours)", "(is it timing?)",
          test["spoken/learned"] - COUNTS["test"], "> 0", ACCURACY, null=test["spoken/none"] - COUNTS["test"], added="after results"),
    Claim("C2.people", "And more of people's recordings, after synthetic voices alone (ours)", "(recorded speech)", people["spoken/learned"] - COUNTS["people"],
          "> 0", ACCURACY, null=people["spoken/none"] - COUNTS["people"], added="after results"),
    Claim("C3.recurrent", "Learned delays beat recurrent connections with as many parameters", BEATS, over("learned", "recurrent"), "> 0",
          ACCURACY, null=over("none", "recurrent"), needs=(LEARNED,)),
    Claim("C4.sigma", "Taps that narrow beat taps that are narrow from the start", "decreasing sigma helps (ablation)", over("learned", "constant"),
          "> 0", ACCURACY, null=AGAIN),
    Claim("C5.rounding", "Whole delays cost less than a point", "(integer delays at test)", rounding["learned"], "< 0.01", ACCURACY,
          null=rounding["wide"], needs=(LEARNED,)),
    Claim("C5.finish", "A last fifth of training with whole delays, in which weights alone learn, adds to it (ours)", "(fine-tuning in the released code)",
          over("finished", "learned"), "> 0", ACCURACY, null=AGAIN),
    Claim("C5.position", "Of that, the rounding of delays costs less than a point: the rest is taps that become one step wide (ours)", "(integer delays at test)",
          abs(rounded - real)["learned"], "< 0.01", ACCURACY, null=abs(test - rounded)["learned"], needs=(LEARNED,), added="after results"),
    Claim("C2.finished", "With a last fifth of training at whole delays learned ones beat fixed ones (ours)", MORE, over("finished", "fixed"), "> 0", ACCURACY,
          null=AGAIN, added="after results"),
    Claim("T.found", "A teacher's delays are found within a step in more than 80 % of strong connections (ours)", "(are learned delays the right ones?)",
          found["teacher"], "> 0.8", SHARE, null=chance["teacher"]),
    thorough("C5.sharp", "Where spikes come one by one and timing is exact to a step, whole delays cost ten points more (ours)", "(integer delays at test)",
             (real - test)["sharp"] - (real - test)["learned"], "> 0.1", ACCURACY),
    thorough("C5.sharp-finish", "And the last fifth with whole delays halves that (ours)", "(fine-tuning in the released code)",
             over("sharp/finished", "sharp") - 0.5 * (real - test)["sharp"], "> 0", ACCURACY),
    thorough("T.sigma", "More of them than with taps that are narrow from the start (ours)", "decreasing sigma helps", over("teacher", "teacher/constant", found), "> 0", SHARE),
    thorough("T.spikes", "And so they are from the teacher's spikes alone (ours)", "(are learned delays the right ones?)", found["teacher/spikes"], "> 0.8", SHARE,
             null=chance["teacher/spikes"]),
    thorough("C2.width", "The narrower the network, the more learning adds to fixed delays", "the gap is larger for small networks",
             spearman(WIDTHS, [gap(w) for w in WIDTHS]), "< 0", RANK),
    thorough("C2.sparse", f"With {SPARSE} connections a neuron learning adds more than with all", "the gap is larger for sparse networks",
             over("learned/sparse", "fixed/sparse") - over("learned/width-32", "fixed/width-32"), "> 0", ACCURACY),
    thorough("C2.deep", "Learned delays beat fixed ones in two hidden layers", MORE, over("learned/deep", "fixed/deep"), "> 0", ACCURACY, null=AGAIN),
    thorough("C1.deep", "And fixed ones none", HELP, over("fixed/deep", "none/deep"), "> 0", ACCURACY, null=over("none/deep-again", "none/deep")),
    thorough("C3.fewer", "They beat recurrent connections with five times as many parameters", BEATS, over("learned", "recurrent-large"), "> 0", ACCURACY,
             null=over("none", "recurrent-large"), needs=(LEARNED,)),
    thorough("C3.spoken", "They beat recurrent connections on spoken digits", BEATS, over("spoken/learned", "spoken/recurrent"), "> 0", ACCURACY,
             null=over("spoken/none", "spoken/recurrent"), needs=(HEARD,)),
    thorough("C3.slow", "With membranes that keep ten steps learned delays beat recurrent connections", BEATS, over("learned/slow", "recurrent"), "> 0",
             ACCURACY, null=over("none", "recurrent"), needs=(SLOWLY,)),
    thorough("C3.gated", "They beat gated recurrent units with as many parameters (ours)", "(a rival that does not spike)", over("learned", "gated"), "> 0", ACCURACY,
             null=over("none", "gated"), needs=(LEARNED,)),
    thorough("S.memory", "Without delays, membranes that keep ten steps help", "(is it memory, or delays?)", over("none/slow", "none"), "> 0", ACCURACY),
    thorough("S.memory-or-delays", "Learned delays with membranes that forget beat membranes that remember, without delays (ours)", "(is it memory, or delays?)",
             over("learned", "none/slow"), "> 0", ACCURACY, null=over("none", "none/slow"), added="after results"),
    thorough("S.slow", "With such membranes learned delays still beat none", "(is it memory, or delays?)", over("learned/slow", "none/slow"), "> 0", ACCURACY),
    thorough("S.slow-fixed", "And fixed ones", MORE, over("learned/slow", "fixed/slow"), "> 0", ACCURACY),
    thorough("S.rate", "Delays need a rate of their own: with one rate for both, the best, they are worse", "(separate optimisers)", over("learned", "one-rate"), "> 0", ACCURACY),
    thorough("S.trailing", "Steps after the input's end help", "(padding on the right)", over("learned", "cut"), "> 0", ACCURACY),
    thorough("S.longest", "The longer the longest delay, the better", "(maximal delay)", spearman(TAPS, [test["learned" if t == 21 else f"taps-{t}"] for t in TAPS]), "> 0", RANK),
    thorough("S.people", "People's recordings: learned delays beat none (ours)", "(recorded speech)", over("spoken/learned", "spoken/none", people), "> 0", ACCURACY),
    thorough("S.selection", "Choosing the epoch on the test set, as the released code does, is worth more than half a point", "(how optimistic is it?)",
             selected["spoken/learned"], "> 0.005", ACCURACY),
)  # fmt: skip

NAMES = {
    "learned": "learned delays",
    "fixed": "fixed random delays",
    "none": "no delays",
    "recurrent": "recurrent",
}
MAIN = ("Timing alone, 20 classes", NAMES), ("Spoken digits, held-out voices", {f"spoken/{k}": n for k, n in NAMES.items()})  # fmt: skip


def draw_delays(traces: Traces) -> MatplotlibFigure:
    """Shares of connections by delay, before and after learning; mean over seeds."""
    shown = [arm for arm in ("learned", "spoken/learned") if arm in traces]
    figure, axes = pictures.panels(2 * len(shown), 2, width=8, height=2.6)
    for i, arm in enumerate(shown):
        for layer, ax in enumerate(axes[2 * i : 2 * i + 2]):
            share = traces[arm].delays.sel(layer=layer).mean("seed")
            for step, look in ((0, 0), (-1, 1)):
                rows = share.isel(step=step)
                ax.step(rows.delay, 100 * rows, where="mid", color=style.colours[look], label=("first", "learned")[look])  # fmt: skip
            ax.set(title=f"{'spoken digits' if '/' in arm else 'timing'}: {('into the hidden layer', 'into the readout')[layer]}",
                   xlabel="delay in steps", ylabel="% of connections", ylim=(0, None))  # fmt: skip
    pictures.legend_below(figure)
    return figure


def draw_raster(traces: Traces) -> MatplotlibFigure:
    """One test example: its input, and the hidden spikes before and after learning."""
    arm = next(a for a in ("spoken/learned", "learned") if a in traces)
    trace = traces[arm].isel(seed=0)
    parts = {"input": trace.raster_input.isel(step=0), "hidden layer, untrained": trace.raster.isel(step=0),
             "hidden layer, trained": trace.raster.isel(step=-1)}  # fmt: skip
    figure, axes = pictures.panels(3, 3, width=11, height=3.0)
    last = trace.sizes["later"]
    for ax, (title, spikes) in zip(axes, parts.items(), strict=True):
        time, unit = np.nonzero(spikes.values)
        ax.scatter(time, unit, s=5, marker="|", linewidths=1.2, color=style.colours[0])
        ax.set(title=title, xlabel="step", xlim=(-1, last), ylim=(-1, spikes.shape[1]))
    axes[0].set_ylabel("channel or neuron")
    return figure


def _teacher(traces: Traces, ax: Axes, course: Axes) -> None:
    trace = traces["teacher"].isel(step=-1)
    size = 14 * trace.strength.values / trace.strength.values.max()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, trace.true_delay.shape)
    ax.scatter(trace.true_delay + noise, trace.learned_delay, s=size, alpha=0.6, color=style.colours[0], linewidths=0)  # fmt: skip
    ax.plot([0, 24], [0, 24], color=style.INK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="the teacher's delay in steps", ylabel="the student's", title="after learning")
    labels = {"teacher": "narrowing taps, potentials seen", "teacher/constant": "narrow taps", "teacher/spikes": "spikes alone seen"}  # fmt: skip
    for i, (arm, label) in enumerate(labels.items()):
        if arm in traces:
            style.spread(course, traces[arm].step.values, traces[arm].found.values, colour=style.colours[i], label=label)  # fmt: skip
    pictures.horizontal(course, float(traces["teacher"].chance.mean()), "before learning")
    course.set(xlabel="update", ylabel="right within a step", ylim=(0, 1.02), title="strong connections")  # fmt: skip


SPOKEN = {NAMES[k]: {"held-out voices": test[f"spoken/{k}"], "people": people[f"spoken/{k}"]} for k in NAMES}  # fmt: skip
SMOKE = {
    "train": 60, "exam": 20, "width": 4, "batch": 20, "epochs": 4, "classes": 3, "channels": 4, "taps": 5,
}  # fmt: skip
FULL = {
    "channels": 40, "width": 256, "layers": 2, "epochs": 150, "taps": 25, "dropout": 0.4, "train": 8000, "batch": 256, "exam": 2000,
}  # fmt: skip
ONE, TEACHER = {"layers": 1}, {"channels": 10, "width": 6, "batch": 16, "train": 320}
FULL_ARMS: dict[str, dict[str, Any]] = {
    "recurrent": ONE, "recurrent-large": ONE | {"size": 1024}, "gated": ONE,
    **{f"spoken/{kind}": {"train": 1600, "batch": 80} for kind in ("learned", "fixed", "none")},
    "spoken/recurrent": ONE | {"train": 1600, "batch": 80},
    **{f"{kind}/width-{w}": {"width": 16 * w} for w in WIDTHS if w != 16 for kind in ("learned", "fixed")},
    **{f"{kind}/sparse": {"width": 512} for kind in ("learned", "fixed")},
    **{f"taps-{t}": {"taps": t} for t in TAPS if t != 21},
    **{arm: TEACHER for arm in ARMS if arm.startswith("teacher")},
}  # fmt: skip

study = Study(
    paper=Paper(
        "spiking-delays", "Learning Delays in Spiking Neural Networks using Dilated Convolutions with Learnable Spacings",
        "Ilyass Hammouamri, Ismail Khalfaoui-Hassani, Timothée Masquelier", "ICLR", 2024, "2306.17670", "Thvnvtos/SNN-delays",
    ),
    family="recurrence",
    question="Do learned transmission delays serve a spiking network more than further weights?",
    symptoms=(
        "a spiking neural network misses temporal patterns",
        "delays of connections as trainable parameters",
        "classify event streams or spike trains, audio on neuromorphic hardware",
        "learn axonal, synaptic or transmission delays; when a spike arrives matters",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("learned", "fixed", "none", "recurrent", "gated", "wide", "teacher", "teacher/spikes", "spoken/learned"), SMOKE),
        "quick": Budget(5, also=("spoken/recurrent",)),
        "thorough": Budget(5),
        "full": Budget(5, settings=FULL, arm_settings=FULL_ARMS),
    },
    claims=CLAIMS,
    figures=(
        Figure("course", "Test accuracy with whole delays; bands span the seeds. Taps narrow over the first quarter.",
               pictures.curves({"accuracy": "accuracy"}, *MAIN, as_drawn=lambda t: t.sel(exam="test"), xlabel="update", ylim=(0, 1.02)), ("learned",)),
        Figure("delays", "Delays before and after learning; mean over seeds.", draw_delays, ("learned",)),
        Figure("raster", "One test example of the first seed, with whole delays. The layer goes on after its input's end.", draw_raster, ("learned",)),
        Figure("teacher", "A teacher's delays and its student's, all seeds; dots as large as weights. Bands span the seeds.",
               pictures.by_hand(2, 2, legend=True, width=8.5, height=3.6)(_teacher), ("teacher",)),
        Figure("sizes", "What width and the longest delay are worth; seeds and their mean.", pictures.trend(
            ("width", {"learned": (WIDTHS, [test["learned" if w == 16 else f"learned/width-{w}"] for w in WIDTHS]),
                       "fixed": (WIDTHS, [test["fixed" if w == 16 else f"fixed/width-{w}"] for w in WIDTHS])}),
            ("longest delay and one, in steps", {"learned": (TAPS, [test["learned" if t == 21 else f"taps-{t}"] for t in TAPS])}),
            ylabel="test accuracy", ylim=(0, 1.02)), tuple(f"learned/width-{w}" for w in WIDTHS if w != 16)),
        Figure("spoken", "Spoken digits, 20 classes, after training on synthetic voices; dots are seeds, bars means.",
               pictures.dots({"accuracy": SPOKEN}, xlim=(0, 1), levels={"chance": 1 / 20}), ("spoken/learned",)),
    ),
    data="patterns that differ in timing alone; digits spoken by eSpeak NG, and by three people",
    notes="The Spiking Heidelberg Digits, Spiking Speech Commands and Google Speech Commands are not to be had here: "
    "`latebloom.data.read_events` reads the first two. In their place: 20 classes over 8 channels that each fire once, for three steps, and "
    "digits in English and Italian by 85 synthetic voices, of which those that sound alike are in one part, 20 mel bands, a spike for each 6 dB up or down, 40 steps of 16 ms. One hidden "
    "layer of 16 (digits: 32) neurons in place of two of 256, 30 (20) epochs of 20 updates in place of 150. The test set is "
    "never chosen by. Rates were chosen on other seeds by validation.",
    watch="accuracy",
)  # fmt: skip
