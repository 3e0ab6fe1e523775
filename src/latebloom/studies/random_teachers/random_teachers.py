"""Random teachers are good teachers.

Sarnthein, Bachmann, Anagnostidis, Hofmann (ICML 2023, arXiv 2302.12091).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.dataset import Dataset
from latebloom.core.process import Process
from latebloom.data import load, scaled, standardised
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import Effect, Measure, Traces, at, best, curve, effect, final, spearman
from latebloom.methods.compression.lottery import MaskedTraining, StepSchedule
from latebloom.methods.compression.student_tickets import Classifier, StudentTicket
from latebloom.methods.random_teachers import Architecture, Distillation, Landscape, gratings
from latebloom.nn import Linear
from latebloom.optim import sgd


@dataclass(frozen=True)
class Config:
    """One student, its landscape, or the lottery tickets in its encoder.

    - `data` is distilled on ("gratings" are as many and as large as the digits, or as MNIST if `whole`),
      `probed` (empty: the same) probed on; 28 x 28 is averaged to 14 x 14 unless `whole`. `limit` (0: none) images for training.
    - The `encoder` "conv" has `layers` convolutions of `width`, 2 `width`, ... channels, with batch norm if
      `norm`; "resnet" as many stages with batch norm, "vit" as many blocks, both as many features.
    - `hidden`, `bottleneck`, `used` (0: all), `classes`, `unit_features`, `unit_rows`: the head.
    - `alpha`, `noise`, `examples` (0: all there are), `standardise`: as in `Distillation`. `restart`: the student becomes the
      teacher halfway.
    - tickets: distilled for `steps`, or not at all (`random`); then trained with labels for `labelled`
      steps at `labelled_rate`, rewound to the share `rewind` of them, pruned in `rounds` by `fraction`.
    """

    kind: Literal["student", "landscape", "tickets"] = "student"
    data: str = "digits"
    probed: str = ""
    whole: bool = False
    limit: int = 0
    encoder: Literal["conv", "resnet", "vit"] = "conv"
    layers: int = 3
    width: int = 16
    norm: bool = False
    hidden: int = 256
    bottleneck: int = 64
    used: int = 0
    classes: int = 1024
    unit_features: bool = True
    unit_rows: bool = True
    alpha: float = 1e-3
    noise: bool = False
    examples: int = 0
    restart: bool = False
    steps: int = 320
    batch_size: int = 32
    rate: float = 1e-3
    probe_epochs: int = 30
    probe_batch: int = 64
    standardise: bool = False
    places: int = 9
    random: bool = False
    labelled: int = 300
    labelled_rate: float = 0.1
    rewind: float = 0.0
    rounds: int = 5
    fraction: float = 0.36


def make_process(config: Config) -> Process:
    data = images(config.data, config.whole, config.limit)
    network = Architecture(
        config.encoder, data.x_train.shape[-1], tuple(config.width * 2**i for i in range(config.layers)),
        config.norm, config.hidden, config.bottleneck, config.classes, config.used or config.bottleneck,
        config.unit_features, config.unit_rows,
    )  # fmt: skip
    distillation = Distillation(
        model=network, data=data, hyper={"learning_rate": config.rate}, alpha=config.alpha,
        probed=images(config.probed or config.data, config.whole, config.limit), noise=config.noise,
        examples=min(config.examples or len(data.x_train), len(data.x_train)),
        generation=config.steps // 2 if config.restart else None, batch_size=config.batch_size,
        probe_epochs=config.probe_epochs, probe_batch=config.probe_batch,
        standardise=config.standardise, seeds_by="map",
    )  # fmt: skip
    if config.kind == "landscape":
        return Landscape(distillation, at=jnp.linspace(-0.5, 1.5, config.places))
    if config.kind == "student":
        return distillation
    steps = config.labelled
    training = MaskedTraining(
        model=partial(_classifier, network), data=data, optimiser=sgd, batch_size=config.batch_size,
        hyper={"rate": config.labelled_rate, "momentum": 0.9, "decay": 1e-4}, seeds_by="map",
        loss=optax.softmax_cross_entropy_with_integer_labels,
        schedule=StepSchedule((steps // 2, steps * 3 // 4)),
    )  # fmt: skip
    return StudentTicket(
        training, distillation, distilled=0 if config.random else config.steps, steps=steps,
        rewind=round(config.rewind * steps), fraction=config.fraction, controls_at=(0,),
    )  # fmt: skip


def schedule(config: Config) -> np.ndarray:
    if config.kind == "tickets":
        return np.arange(1, config.rounds + 2)  # step n is level n - 1
    steps = config.steps
    return np.array([steps] if config.kind == "landscape" else [steps // 8, steps // 2, steps])


def _classifier(network: Architecture, key: PRNGKeyArray) -> Classifier:
    encoder_key, readout_key = jax.random.split(key)
    return Classifier(network.encoder(encoder_key), Linear(network.widths[-1], 10, key=readout_key))


@functools.cache
def images(name: str, whole: bool, limit: int) -> Dataset:
    """Images with mean 0 and variance 1 over all pixels for training."""
    if name == "gratings":
        digits = images("mnist" if whole else "digits", whole, limit)
        return gratings(len(digits.x_train), len(digits.x_test), side=digits.x_train.shape[1])
    side = None if whole else 14
    found = scaled(load(name), side=side, examples=limit or None, tests=limit // 4 or None)
    return standardised(found)


BASE, STRIPES = Config(), Config(data="gratings")
ALPHAS = {"digits": 1e-3, "alpha-0.3": 0.3, "alpha-0.6": 0.6, "alpha-1": 1.0}
NEAR = ("digits", "alpha-0.3", "alpha-0.6")
SAMPLES = {"samples-20": 20, "samples-100": 100, "digits": 1438}
WIDTHS = {"bottleneck-4": 4, "bottleneck-16": 16, "digits": 64}
TICKETS = {
    "ticket-student": "the student", "ticket-random": "random weights",
    "ticket-random-2": "random, trained for 2 %", "ticket-random-10": "random, trained for 10 %",
}  # fmt: skip
TICKET = Config("tickets")
SCALED = {
    "digits": "Digits", "gratings": "Gratings", "noise": "Distilled on noise (digits)",
    "resnet-digits": "With a residual network (digits)",
    "vit-digits": "With a vision transformer (digits)",
}  # fmt: skip
ENCODERS = {"resnet": "a residual network", "vit": "a vision transformer"}
ARMS: dict[str, Config] = {
    "digits": BASE,
    "gratings": STRIPES,
    **{arm: replace(BASE, alpha=alpha) for arm, alpha in ALPHAS.items() if arm != "digits"},
    "gratings-alpha-1": replace(STRIPES, alpha=1.0),
    "noise": replace(BASE, noise=True),
    "gratings-noise": replace(STRIPES, noise=True),
    **{arm: replace(BASE, examples=n) for arm, n in SAMPLES.items() if arm != "digits"},
    "digits-to-gratings": replace(BASE, probed="gratings"),
    "gratings-to-digits": replace(STRIPES, probed="digits"),
    **{arm: replace(BASE, used=n) for arm, n in WIDTHS.items() if arm != "digits"},
    "long-features": replace(BASE, unit_features=False),
    "long-rows": replace(BASE, unit_rows=False),
    "restart": replace(BASE, restart=True),
    "norm": replace(BASE, norm=True),
    "norm-equal": replace(BASE, norm=True, alpha=0.0),
    **{
        f"{encoder}-{data}": replace(BASE, encoder=encoder, data=data)
        for encoder in ENCODERS
        for data in ("digits", "gratings")
    },
    "landscape": replace(BASE, kind="landscape"),
    "ticket-student": TICKET,
    "ticket-random": replace(TICKET, random=True),
    "ticket-random-2": replace(TICKET, random=True, rewind=0.02),
    "ticket-random-10": replace(TICKET, random=True, rewind=0.1),
}
ARMS |= {f"{arm}-scaled": replace(ARMS[arm], standardise=True) for arm in SCALED}


def score(who: str, by: str = "probe") -> Measure:
    """Test accuracy at the last step in percent, of student, teacher or input."""
    return 100 * final(f"{who}_{by}")


student, halfway = score("student"), 100 * final(curve("student_probe")[:-1])
barrier = 100 * at("barrier", 1)
ends = [100 * at(curve("path", place=place), 1) for place in (0.0, 1.0)]


def gain(arm: str, over: str = "teacher", by: str = "probe") -> Effect:
    return score("student", by)[arm] - score(over, by)[arm]


def ticket(arm: str, share: float) -> Effect:
    """Test accuracy in percent at the first level with at most that share of the weights, or the last."""

    @effect(f"test accuracy of {arm} with {share:.0%} of the weights", "ticket-student", arm)
    def of(traces: Traces) -> np.ndarray:
        left = traces["ticket-student"].density.mean("seed").values
        level = int(np.argmax(left <= share)) if (left <= share).any() else len(left) - 1
        return 100 * traces[arm].test_accuracy.values[:, level]

    return of


POINTS, AFTER, FEWEST = "percentage points", "after results", 0.0


def better(
    id: str, text: str, paper: str, arm: str, over: str = "teacher", by: str = "probe", **more: Any
) -> Claim:
    return Claim(id, text, paper, gain(arm, over, by), more.pop("holds", "> 0"), POINTS, **more)


def ahead(id: str, text: str, paper: str, one: str, other: str, **more: Any) -> Claim:
    return Claim(id, text, paper, student[one] - student[other], "> 0", POINTS, **more)


def sparse(id: str, text: str, paper: str, one: str, share: float, **more: Any) -> Claim:
    """Tickets of one arm against those rewound to random weights."""
    other = ticket("ticket-random", share)
    lost = 100 * at("test_accuracy", 1)["ticket-random"] - other
    needs = (Need(lost, "> 1", "pruning does not hurt random weights either"),)
    return Claim(id, text, paper, ticket(one, share) - other, "> 0", POINTS, needs=needs, **more)


def settled(arm: str) -> tuple[Need]:
    reason = "far from its teacher the student still improves in the second half of the steps"
    return (Need((student - halfway)[arm], "< 1", reason),)


CIFAR, BARE = "46.02 against 35.50 (CIFAR-10)", "46.02 against 39.02"
ACROSS = "TinyImageNet to CIFAR-10: 46.06"
EVERY, CRUCIAL, ABOVE = "every architecture improves", "the crucial part", "stays above the teacher"
CLAIMS = (
    better("C1.digits", "Digits: the student is 3 points better than its random teacher (linear probe)", CIFAR,
           "digits", holds="> 3"),
    better("C1.gratings", "Gratings: the same", CIFAR, "gratings", holds="> 3"),
    better("C1.digits-input", "Digits: the student is better than raw pixels", BARE, "digits", "input"),
    better("C1.gratings-input", "Gratings: the same", BARE, "gratings", "input"),
    better("C1.digits-neighbours", "Digits: the student is better than its teacher by nearest neighbours",
           "44.67 against 37.65", "digits", by="neighbours"),
    better("C1.gratings-neighbours", "Gratings: the same", "44.67 against 37.65", "gratings", by="neighbours"),
    better("C1.digits-input-neighbours", "Digits: it is better than raw pixels by nearest neighbours",
           "44.67 against 33.61", "digits", "input", "neighbours", added=AFTER),
    better("C1.gratings-input-neighbours", "Gratings: the same", "44.67 against 33.61", "gratings", "input",
           "neighbours", added=AFTER),
    Claim("C2.near", "The worst start with alpha up to 0.6 ends better than alpha = 1 (digits)",
          "flat to 0.6, then falls", best([student[arm] for arm in NEAR], lowest=True) - student["alpha-1"], "> 0",
          POINTS, needs=settled("alpha-1")),
    ahead("C2.gratings", "Gratings: the start at the teacher ends better than alpha = 1", "locality", "gratings",
          "gratings-alpha-1", needs=settled("gratings-alpha-1")),
    better("C2.far", "Digits: the student from alpha = 1 is still better than the teacher", ABOVE, "alpha-1",
           needs=settled("alpha-1")),
    better("C2.gratings-far", "Gratings: the same", ABOVE, "gratings-alpha-1", needs=settled("gratings-alpha-1")),
    better("C3.noise", "Distilled on noise, the student gains less than 1 point over the teacher (digits)", "no gain",
           "noise", holds="< 1", null=gain("digits")),
    better("C3.gratings-noise", "Gratings: the same", "no gain", "gratings-noise", holds="< 1", null=gain("gratings")),
    Claim("C3.samples", "The more images are distilled on, the better is the student",
          "grows with n (500 to 5,000,000)", spearman(list(SAMPLES.values()), [student[arm] for arm in SAMPLES]),
          "> 0", "Spearman"),
    better("C4.digits", "Distilled on gratings, the student is better than the teacher on digits", ACROSS,
           "gratings-to-digits"),
    better("C4.gratings", "Distilled on digits, it is better on gratings", ACROSS, "digits-to-gratings"),
    sparse("C5.student", "With a quarter of the weights, tickets rewound to the student beat tickets rewound to random "
           "weights", "the student is a ticket at l = 0, random weights are not", "ticket-student", 0.27),
    sparse("C5.sparse", "So with the fewest weights", "the same down to 0.5 %", "ticket-student", FEWEST),
    sparse("C5.late", "With the fewest, random weights need some training first: 2 % beats none",
           "random weights need l of 1 epoch or more", "ticket-random-2", FEWEST, budget="thorough"),
    Claim("C6.random", "Two data orders from random weights end with a barrier between them", "a large barrier",
          barrier["ticket-random"], "> 0", POINTS,
          null=(abs(ends[0] - ends[1]) / 2)["ticket-random"]),  # the worse end is the highest
    Claim("C6.student", "From the student the barrier is less than half as high", "nearly none",
          barrier["ticket-student"] - 0.5 * barrier["ticket-random"], "< 0", POINTS),
    ahead("C7.features", "Without unit features the student is worse", CRUCIAL, "digits", "long-features",
          budget="thorough"),
    ahead("C7.rows", "That costs more than leaving the rows at any length", CRUCIAL, "long-rows", "long-features",
          budget="thorough"),
    ahead("C7.bottleneck", "A bottleneck of 64 dimensions is better than one of 4",
          "a transition in the bottleneck's width", "digits", "bottleneck-4", budget="thorough"),
    better("C8.norm", "With batch norm (teacher in evaluation mode) the student is better than the teacher", EVERY,
           "norm", budget="thorough"),
    better("C8.equal", "So from exactly equal weights", "alpha = 0 works with batch norm", "norm-equal",
           budget="thorough"),
    *(better(f"C8.{encoder}-{data}", f"{data.capitalize()}: with {name} the student is better than the teacher",
             EVERY, f"{encoder}-{data}", budget="thorough")
      for encoder, name in ENCODERS.items() for data in ("digits", "gratings")),
    *(better(f"P.{arm}", f"{text}, each feature scaled to variance 1 before the probe, the student is better than the "
             "teacher", "features optionally scaled", f"{arm}-scaled", budget="thorough", added=AFTER)
      for arm, text in SCALED.items()),
    better("P.digits-input", "Digits: so scaled, the student is better than raw pixels", BARE, "digits-scaled",
           "input", budget="thorough", added=AFTER),
    Claim("C9.restart", "A student of the student gains less than 1 point over it", "restarting gives nothing",
          (student - halfway)["restart"], "< 1", POINTS, budget="thorough",
          null=(halfway - score("teacher"))["restart"]),
)  # fmt: skip


def students(arms: Mapping[str, str]) -> pictures.Picture:
    """What student, teacher and raw input are worth, by both probes."""
    whose = {"student": "student", "teacher": "teacher", "raw input": "input"}
    probes = {"probe": "linear probe, test accuracy in %",
              "neighbours": "20 nearest neighbours, test accuracy in %"}  # fmt: skip
    return pictures.dots({
        title: {text: {name: score(who, by)[arm] for name, who in whose.items()} for arm, text in arms.items()}
        for by, title in probes.items()
    })  # fmt: skip


def swept(
    arms: Mapping[str, float], scale: Callable[[Any], Any] = float
) -> dict[str, tuple[list[float], list[Effect]]]:
    levels = [float(scale(level)) for level in arms.values()]
    return {who: (levels, [score(who)[arm] for arm in arms]) for who in ("student", "teacher")}


def ticked(label: str, **ticks: float) -> dict[str, Any]:
    return {
        "title": "",
        "xlabel": label,
        "xticks": np.log2(list(ticks.values())),
        "xticklabels": list(ticks),
    }


def draw_landscape(traces: Traces) -> MatplotlibFigure:
    """Divergence and neighbours' accuracy on the plane through the teacher and two students."""
    trace = traces["landscape"].isel(seed=0, step=-1).transpose("b", "a", ...)
    apart, right = trace.divergence.values, 100 * trace.neighbours.values
    shown = {"divergence from the teacher, log10 nats": (np.log10(np.maximum(apart, 1e-3 * apart.max())), "viridis_r"),
             "nearest neighbours, test accuracy in %": (right, "viridis")}  # fmt: skip
    near, far = (float(trace.distances.sel(of=name)) for name in ("near", "far"))
    figure, axes = style.figure(1, 2, width=10, height=4.2, sharey=True)
    for ax, (title, (values, palette)) in zip(axes, shown.items(), strict=True):
        figure.colorbar(ax.contourf(trace.a, trace.b, values, 12, cmap=palette), ax=ax)
        for x, y, name in ((0, 0, "teacher"), (1, 0, "student\nfrom alpha ≈ 0"), (0, 1, "student\nfrom alpha = 1")):  # fmt: skip
            ax.plot(x, y, "o", color="white", markeredgecolor="black")
            box = {"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.5}
            ax.annotate(name, (x, y), (0, 9), textcoords="offset points", color="white", fontsize=8,
                        ha="center", bbox=box)  # fmt: skip
        ax.set(title=title, xlabel=f"towards one student (1 is L2 distance {near:.1f})")
        ax.grid(False)
    axes[0].set_ylabel(f"towards the other (1 is {far:.1f})")
    return figure


def by_weights(trace: xr.Dataset) -> xr.Dataset:
    return trace.assign_coords(step=100 * trace.density.mean("seed").values)


def along_path(trace: xr.Dataset) -> xr.Dataset:
    return trace.isel(step=0, drop=True).rename(place="step")


LINES = {arm: f"from {text}" for arm, text in TICKETS.items()}
DOTTED = {label: {"marker": "o", "markersize": 4} for label in LINES.values()}
FIGURES = (
    Figure("students", "Test accuracy of a linear probe and of nearest neighbours on student, teacher and raw pixels; "
           "dots are seeds, bars their means.",
           students({"digits": "digits", "norm": "digits, batch norm", "noise": "digits, distilled on noise",
                     "gratings-to-digits": "digits, distilled\non gratings", "gratings": "gratings",
                     "gratings-noise": "gratings, distilled on noise",
                     "digits-to-gratings": "gratings, distilled\non digits"}),
           ("digits", "gratings")),
    Figure("probes", "The same with every feature scaled to variance 1 over the training set before the linear probe.",
           students({f"{arm}-scaled": text for arm, text in SCALED.items()}), ("digits-scaled",)),
    Figure("architectures", "The same for a residual network and a vision transformer.",
           students({f"{encoder}-{data}": f"{data}, {name}" for encoder, name in ENCODERS.items()
                     for data in ("digits", "gratings")}), ("resnet-digits",)),
    Figure("sweeps", "Linear probe on the student: where it starts, how many images it sees, how wide the bottleneck "
           "is (digits). Small dots are seeds.",
           pictures.trend(
               ("alpha", swept(ALPHAS)), ("images", swept(SAMPLES, np.log2)),
               ("bottleneck", swept(WIDTHS, np.log2) | {
                   "features of any length": ([6.0], [student["long-features"]]),
                   "rows of any length": ([6.0], [student["long-rows"]])}),
               own={"alpha": {"title": "", "xlabel": "start alpha"},
                    "images": ticked("images distilled on", **{"20": 20, "100": 100, "all": 1438}),
                    "bottleneck": ticked("bottleneck dimensions", **{"4": 4, "16": 16, "64": 64})},
               ylabel="linear probe, test accuracy in %"),
           tuple(ALPHAS)),
    Figure("landscape", "The plane through a random teacher, a student that starts at it and one that starts away from "
           "it (first seed).", draw_landscape, ("landscape",)),
    Figure("tickets", "Pruning in rounds, rewound to the student's encoder or to random weights (trained with labels "
           "for a share of the steps). Bands: lowest to highest seed.",
           pictures.curves(100 * curve("test_accuracy"), ("", LINES), as_drawn=by_weights, look=DOTTED, xscale="log",
                           xlim=(112, 9.5), xlabel="weights of the encoder left in %", ylabel="test accuracy in %"),
           ("ticket-student", "ticket-random")),
    Figure("barriers", "Test error on the line between two data orders (dense), from the same starts.",
           pictures.curves(100 * curve("path"), ("", LINES), as_drawn=along_path, look=DOTTED,
                           xlabel="place between two data orders", ylabel="test error in %", ylim=(0, None)),
           ("ticket-student", "ticket-random")),
)  # fmt: skip

SMOKE = {
    "steps": 8, "width": 2, "hidden": 8, "bottleneck": 8, "classes": 16, "limit": 96, "batch_size": 16,
    "probe_epochs": 1, "places": 5, "labelled": 6, "rounds": 1,
}  # fmt: skip
ONE_PROGRAM = tuple(dict.fromkeys((*ALPHAS, *SAMPLES, *WIDTHS, "gratings", "noise")))
FULL = {
    "width": 64, "layers": 4, "hidden": 2048, "bottleneck": 256, "classes": 2**16, "whole": True,
    "steps": 23_400, "batch_size": 256, "probe_epochs": 10, "probe_batch": 256, "places": 21,
    "labelled": 37_440, "rounds": 20, "fraction": 0.2,
}  # fmt: skip
FULL_DIGITS = {
    arm: {"probed" if arm == "gratings-to-digits" else "data": "mnist"}
    for arm, config in ARMS.items()
    if "digits" in (config.data, config.probed)
}

study = Study(
    paper=Paper(
        "random-teachers", "Random Teachers are Good Teachers",
        "Felix Sarnthein, Gregor Bachmann, Sotiris Anagnostidis, Thomas Hofmann",
        "ICML", 2023, "2302.12091", "safelix/dinopl",
    ),
    family="random_teachers",
    question="What does a network learn from a teacher that never learned anything?",
    symptoms=(
        "I have no labels and no augmentations, only images",
        "does self-distillation need a trained teacher",
        "where does the gain of self-distillation come from",
        "warm-start a network on unlabelled images",
        "fine-tuning runs from one start end in different basins",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ONE_PROGRAM, SMOKE),
        "quick": Budget(6, also=("norm",)),
        "thorough": Budget(6, also=("bottleneck-16", "landscape", "ticket-random-10")),
        "full": Budget(5, None, FULL, FULL_DIGITS),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="scikit-learn digits, 8 x 8; generated gratings",
    notes="The paper distils ResNet-18 and VGG-11 on CIFAR and the like for 100 epochs and more. Below the "
    "full budget: three convolutions of 16, 32 and 64 channels, a head of 256, 64 and 1,024, 320 steps on batches "
    "of 32.",
    watch="student_probe",
)  # fmt: skip
