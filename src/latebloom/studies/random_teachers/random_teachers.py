"""Random teachers are good teachers.

Sarnthein, Bachmann, Anagnostidis, Hofmann (ICML 2023, arXiv 2302.12091).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray
from matplotlib.figure import Figure as MatplotlibFigure
from scipy import stats

from latebloom.core.dataset import Dataset
from latebloom.core.process import Process
from latebloom.data import load
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.compression.lottery import MaskedTraining, StepSchedule
from latebloom.methods.compression.student_tickets import Classifier, StudentTicket
from latebloom.methods.random_teachers import (
    BottleneckHead,
    ConvEncoder,
    Distillation,
    Distilled,
    Landscape,
    gratings,
)
from latebloom.nn import Linear, ResNet, ViT


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


class Network(eqx.Module):
    """Builds the network of a seed. What is an array may differ between arms that share a program."""

    architecture: str = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    widths: tuple[int, ...] = eqx.field(static=True)
    norm: bool = eqx.field(static=True)
    hidden: int = eqx.field(static=True)
    bottleneck: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    used: Int[Array, ""]
    unit_features: Bool[Array, ""]
    unit_rows: Bool[Array, ""]

    def encoder(self, key: PRNGKeyArray) -> ConvEncoder | ResNet | ViT:
        depth, size = len(self.widths), self.widths[-1]
        if self.architecture == "resnet":
            return ResNet(
                self.channels, size, key=key, width=self.widths[0], blocks_per_stage=(1,) * depth,
                norm="batch",
            )  # fmt: skip
        if self.architecture == "vit":
            return ViT(
                self.channels, size, key=key, patch=2, size=size, heads=4, hidden=2 * size,
                layers=depth,
            )  # fmt: skip
        return ConvEncoder(self.channels, self.widths, norm=self.norm, key=key)

    def __call__(self, key: PRNGKeyArray) -> Distilled:
        encoder_key, head_key = jax.random.split(key)
        head = BottleneckHead(
            self.widths[-1], key=head_key, hidden=self.hidden, bottleneck=self.bottleneck,
            out_size=self.classes, unit_features=self.unit_features, unit_rows=self.unit_rows,
            used=self.used,
        )  # fmt: skip
        return Distilled(self.encoder(encoder_key), head)


def make_process(config: Config) -> Process:
    data = images(config.data, config.whole, config.limit)
    network = Network(
        config.encoder, data.x_train.shape[-1], tuple(config.width * 2**i for i in range(config.layers)), config.norm,
        config.hidden, config.bottleneck, config.classes, jnp.int32(config.used or config.bottleneck),
        jnp.asarray(config.unit_features), jnp.asarray(config.unit_rows),
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
        return Landscape(distillation, at=places(config.places))
    if config.kind == "student":
        return distillation
    steps = config.labelled
    training = MaskedTraining(
        model=partial(_classifier, network), data=data, optimiser=_sgd, batch_size=config.batch_size,
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


def places(count: int) -> Array:
    """Coordinates on both axes of a landscape: 0 and 1 are among them for 4 k + 1."""
    return jnp.linspace(-0.5, 1.5, count)


def _classifier(network: Network, key: PRNGKeyArray) -> Classifier:
    encoder_key, readout_key = jax.random.split(key)
    return Classifier(network.encoder(encoder_key), Linear(network.widths[-1], 10, key=readout_key))


def _sgd(rate: Array, momentum: Array, decay: Array) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=momentum))  # pyright: ignore


@functools.cache
def images(name: str, whole: bool, limit: int) -> Dataset:
    """Images with mean 0 and variance 1 over all pixels for training."""
    if name == "gratings":
        digits = images("mnist" if whole else "digits", whole, limit)
        return gratings(len(digits.x_train), len(digits.x_test), side=digits.x_train.shape[1])
    found = load(name)

    def pixels(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float32) / 255
        if not whole and x.shape[1] == 28:
            x = x.reshape(len(x), 14, 2, 14, 2).mean((2, 4))
        return x[..., None]

    train = pixels(found.x_train[: limit or None])
    test = pixels(found.x_test[: limit // 4 or None])
    mean, spread = train.mean(), train.std()
    return Dataset(
        jnp.asarray((train - mean) / spread), jnp.asarray(found.y_train[: len(train)]),
        jnp.asarray((test - mean) / spread), jnp.asarray(found.y_test[: len(test)]),
    )  # fmt: skip


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
    "digits-scaled": replace(BASE, standardise=True),
    "gratings-scaled": replace(STRIPES, standardise=True),
    "noise-scaled": replace(BASE, noise=True, standardise=True),
    "resnet-digits-scaled": replace(BASE, encoder="resnet", standardise=True),
    "vit-digits-scaled": replace(BASE, encoder="vit", standardise=True),
    "landscape": replace(BASE, kind="landscape"),
    "ticket-student": TICKET,
    "ticket-random": replace(TICKET, random=True),
    "ticket-random-2": replace(TICKET, random=True, rewind=0.02),
    "ticket-random-10": replace(TICKET, random=True, rewind=0.1),
}


def last(traces: Traces, arm: str, what: str = "student_probe") -> np.ndarray:
    """At the last step, in percent, one a seed."""
    return 100 * traces[arm][what].isel(step=-1).values


def gain(arm: str, over: str, traces: Traces, *, by: str = "probe") -> np.ndarray:
    """The student minus its teacher, or the raw input."""
    return last(traces, arm, f"student_{by}") - last(traces, arm, f"{over}_{by}")


def between(one: str, other: str, traces: Traces) -> np.ndarray:
    """The student of one arm minus that of another."""
    return last(traces, one) - last(traces, other)


def near_over_far(traces: Traces) -> np.ndarray:
    """The worst (in the mean) of the students started at alpha <= 0.6 minus that started at 1."""
    worst = min(NEAR, key=lambda arm: last(traces, arm).mean())
    return between(worst, "alpha-1", traces)


def rank_with_samples(traces: Traces) -> np.ndarray:
    """Spearman's correlation of the number of images and the accuracy of the student's probe."""
    rows = np.stack([last(traces, arm) for arm in SAMPLES])
    return np.array([stats.spearmanr(list(SAMPLES.values()), row)[0] for row in rows.T])


def second_generation(traces: Traces) -> np.ndarray:
    """The student of the student minus the student, each after half of the steps."""
    values = 100 * traces["restart"].student_probe.values
    return values[:, -1] - values[:, -2]


def level(share: float, traces: Traces) -> int:
    """The first level at which at most that share of the weights is left."""
    left = traces["ticket-student"].density.mean("seed").values
    return int(np.argmax(left <= share)) if (left <= share).any() else len(left) - 1


def ticket_gain(one: str, other: str, share: float, traces: Traces) -> np.ndarray:
    """Test accuracy in points of one arm's tickets minus another's."""
    at = level(share, traces)
    found = [100 * traces[arm].test_accuracy.isel(step=at).values for arm in (one, other)]
    return found[0] - found[1]


def barriers(arm: str, traces: Traces) -> np.ndarray:
    """Error barrier of the dense networks in percentage points."""
    return 100 * traces[arm].barrier.isel(step=0).values


def barrier_share(traces: Traces) -> np.ndarray:
    """Barrier from the student minus half of that from random weights."""
    return barriers("ticket-student", traces) - 0.5 * barriers("ticket-random", traces)


POINTS = "percentage points"


def _gain(
    id: str, text: str, paper: str, arm: str, over: str, holds: str, by: str = "probe"
) -> Claim:
    return Claim(id, text, paper, (arm,), partial(gain, arm, over, by=by), holds, POINTS)


def _between(id: str, text: str, paper: str, one: str, other: str, holds: str = "> 0") -> Claim:
    return Claim(id, text, paper, (one, other), partial(between, one, other), holds, POINTS)


CLAIMS = (
    _gain("C1.digits", "Digits: the student is 3 points better than its random teacher (linear probe)",
          "46.02 against 35.50 (CIFAR-10)", "digits", "teacher", "> 3"),
    _gain("C1.gratings", "Gratings: the same", "46.02 against 35.50 (CIFAR-10)", "gratings", "teacher",
          "> 3"),
    _gain("C1.digits-input", "Digits: the student is better than raw pixels", "46.02 against 39.02",
          "digits", "input", "> 0"),
    _gain("C1.gratings-input", "Gratings: the same", "46.02 against 39.02", "gratings", "input", "> 0"),
    _gain("C1.digits-neighbours", "Digits: the student is better than its teacher by nearest neighbours",
          "44.67 against 37.65", "digits", "teacher", "> 0", "neighbours"),
    _gain("C1.gratings-neighbours", "Gratings: the same", "44.67 against 37.65", "gratings", "teacher",
          "> 0", "neighbours"),
    _gain("C1.digits-input-neighbours", "Digits: it is better than raw pixels by nearest neighbours",
          "44.67 against 33.61", "digits", "input", "> 0", "neighbours"),
    _gain("C1.gratings-input-neighbours", "Gratings: the same", "44.67 against 33.61", "gratings",
          "input", "> 0", "neighbours"),
    Claim("C2.near", "The worst start with alpha up to 0.6 ends better than alpha = 1 (digits)",
          "flat to 0.6, then falls", tuple(ALPHAS), near_over_far, "> 0", POINTS),
    _between("C2.gratings", "Gratings: the start at the teacher ends better than alpha = 1",
             "locality", "gratings", "gratings-alpha-1"),
    _gain("C2.far", "Digits: the student from alpha = 1 is still better than the teacher",
          "stays above the teacher", "alpha-1", "teacher", "> 0"),
    _gain("C2.gratings-far", "Gratings: the same", "stays above the teacher", "gratings-alpha-1",
          "teacher", "> 0"),
    _gain("C3.noise", "Distilled on noise, the student gains less than 1 point over the teacher (digits)",
          "no gain", "noise", "teacher", "< 1"),
    _gain("C3.gratings-noise", "Gratings: the same", "no gain", "gratings-noise", "teacher", "< 1"),
    Claim("C3.samples", "The more images are distilled on, the better is the student",
          "grows with n (500 to 5,000,000)", tuple(SAMPLES), rank_with_samples, "> 0", "Spearman"),
    _gain("C4.digits", "Distilled on gratings, the student is better than the teacher on digits",
          "TinyImageNet to CIFAR-10: 46.06", "gratings-to-digits", "teacher", "> 0"),
    _gain("C4.gratings", "Distilled on digits, it is better on gratings",
          "TinyImageNet to CIFAR-10: 46.06", "digits-to-gratings", "teacher", "> 0"),
    Claim("C5.student", "With a quarter of the weights, tickets rewound to the student beat tickets rewound "
          "to random weights", "the student is a ticket at l = 0, random weights are not",
          ("ticket-student", "ticket-random"),
          partial(ticket_gain, "ticket-student", "ticket-random", 0.27), "> 0", POINTS),
    Claim("C5.sparse", "So with the fewest weights", "the same down to 0.5 %",
          ("ticket-student", "ticket-random"),
          partial(ticket_gain, "ticket-student", "ticket-random", 0.0), "> 0", POINTS),
    Claim("C5.late", "With the fewest, random weights need some training first: 2 % beats none",
          "random weights need l of 1 epoch or more", ("ticket-student", "ticket-random-2", "ticket-random"),
          partial(ticket_gain, "ticket-random-2", "ticket-random", 0.0), "> 0", POINTS),
    Claim("C6.random", "Two data orders from random weights end with a barrier between them",
          "a large barrier", ("ticket-random",), partial(barriers, "ticket-random"), "> 0", POINTS),
    Claim("C6.student", "From the student the barrier is less than half as high", "nearly none",
          ("ticket-student", "ticket-random"), barrier_share, "< 0", POINTS),
    _between("C7.features", "Without unit features the student is worse", "the crucial part",
             "digits", "long-features"),
    _between("C7.rows", "That costs more than leaving the rows at any length", "the crucial part",
             "long-rows", "long-features"),
    _between("C7.bottleneck", "A bottleneck of 64 dimensions is better than one of 4",
             "a transition in the bottleneck's width", "digits", "bottleneck-4"),
    _gain("C8.norm", "With batch norm (teacher in evaluation mode) the student is better than the teacher",
          "every architecture improves", "norm", "teacher", "> 0"),
    _gain("C8.equal", "So from exactly equal weights", "alpha = 0 works with batch norm", "norm-equal",
          "teacher", "> 0"),
    *(
        _gain(f"C8.{encoder}-{data}", f"{data.capitalize()}: with {name} the student is better than the "
              "teacher", "every architecture improves", f"{encoder}-{data}", "teacher", "> 0")
        for encoder, name in ENCODERS.items() for data in ("digits", "gratings")
    ),
    *(
        _gain(f"P.{arm}", f"{text}, each feature scaled to variance 1 before the probe, the student is "
              "better than the teacher", "features optionally scaled", f"{arm}-scaled", "teacher", "> 0")
        for arm, text in SCALED.items()
    ),
    _gain("P.digits-input", "Digits: so scaled, the student is better than raw pixels", "46.02 against 39.02",
          "digits-scaled", "input", "> 0"),
    Claim("C9.restart", "A student of the student gains less than 1 point over it", "restarting gives nothing",
          ("restart",), second_generation, "< 1", POINTS),
)  # fmt: skip

LOOKS = {"student": 0, "teacher": 1, "input": 2}


STUDENTS = {
    "digits": "digits", "norm": "digits, batch norm", "noise": "digits, distilled on noise",
    "gratings-to-digits": "digits, distilled\non gratings", "gratings": "gratings",
    "gratings-noise": "gratings, distilled on noise",
    "digits-to-gratings": "gratings, distilled\non digits",
}  # fmt: skip
OTHERS = {
    f"{encoder}-{data}": f"{data}, {name}"
    for encoder, name in ENCODERS.items()
    for data in ("digits", "gratings")
}
PROBES = {f"{arm}-scaled": text for arm, text in SCALED.items()}


def draw_students(arms: Mapping[str, str], traces: Traces) -> MatplotlibFigure:
    """Probe accuracy of student, teacher and input."""
    shown = [arm for arm in arms if arm in traces]
    figure, axes = style.figure(1, 2, width=10, height=1.2 + 0.4 * len(shown), sharey=True)
    titles = {"probe": "linear probe", "neighbours": "20 nearest neighbours"}
    for ax, (by, title) in zip(axes, titles.items(), strict=True):
        for name, colour in LOOKS.items():
            mark = {"student": "o", "teacher": "s", "input": "|"}[name]
            for row, arm in enumerate(shown):
                values = last(traces, arm, f"{name}_{by}")
                ax.plot(values, np.full(len(values), row), ".", color=style.colours[colour], alpha=0.4,
                        markersize=4)  # fmt: skip
                ax.plot(values.mean(), row, mark, color=style.colours[colour], markersize=9,
                        label=name if not row else None)  # fmt: skip
        ax.set(xlabel="test accuracy in %", title=title)
    axes[0].set_yticks(range(len(shown)), [arms[arm] for arm in shown])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _swept(ax: Any, traces: Traces, arms: Sequence[str], at: Sequence[float]) -> None:
    for name in ("student", "teacher"):
        values = np.stack([last(traces, arm, f"{name}_probe") for arm in arms])
        colour = style.colours[LOOKS[name]]
        ax.plot(at, values.mean(1), "o-" if name == "student" else "--", color=colour, label=name)
        if name == "student":
            ax.plot(at, values, ".", color=colour, alpha=0.4)


def draw_sweeps(traces: Traces) -> MatplotlibFigure:
    """The student's probe against where it starts, how many images it sees, how wide the bottleneck is."""
    figure, axes = style.figure(1, 3, width=11, height=3.6, sharey=True)
    labels = ("start alpha", "images distilled on", "bottleneck dimensions")
    for ax, sweep, label in zip(axes, (ALPHAS, SAMPLES, WIDTHS), labels, strict=True):
        _swept(ax, traces, list(sweep), list(sweep.values()))
        ax.set_xlabel(label)
        if sweep is not ALPHAS:
            ax.set_xscale("log")
            names = [str(n) for n in sweep.values()]
            if sweep is SAMPLES:
                names[-1] = "all"
            ax.set_xticks(list(sweep.values()), names)
            ax.minorticks_off()
    for arm, mark, text in (("long-features", "v", "features of any length"), ("long-rows", "^", "rows of any length")):  # fmt: skip
        if arm in traces:
            axes[2].plot(
                64, last(traces, arm).mean(), mark, color=style.INK, markersize=7, label=text
            )
    axes[0].set_ylabel("linear probe, test accuracy in %")
    axes[0].legend()
    axes[2].legend(fontsize=8)
    return figure


def draw_landscape(traces: Traces) -> MatplotlibFigure:
    """Divergence and neighbours' accuracy on the plane through the teacher and two students."""
    trace = traces["landscape"].isel(seed=0, step=-1)
    figure, axes = style.figure(1, 2, width=10, height=4.2, sharey=True)
    apart = trace.divergence.transpose("b", "a").values
    shown = np.log10(np.maximum(apart, 1e-3 * apart.max()))
    right = 100 * trace.neighbours.transpose("b", "a").values
    panels = ((shown, "divergence from the teacher, log10 nats", "viridis_r"),
              (right, "nearest neighbours, test accuracy in %", "viridis"))  # fmt: skip
    for ax, (values, title, palette) in zip(axes, panels, strict=True):
        drawn = ax.contourf(trace.a, trace.b, values, 12, cmap=palette)
        figure.colorbar(drawn, ax=ax)
        for x, y, name in ((0, 0, "teacher"), (1, 0, "student\nfrom alpha ≈ 0"), (0, 1, "student\nfrom alpha = 1")):  # fmt: skip
            ax.plot(x, y, "o", color="white", markeredgecolor="black")
            ax.annotate(name, (x, y), (0, 9), textcoords="offset points", color="white", fontsize=8,
                        ha="center",
                        bbox={"facecolor": "black", "alpha": 0.5, "edgecolor": "none", "pad": 1.5})  # fmt: skip
        near, far = (float(trace.distances.sel(of=name)) for name in ("near", "far"))
        ax.set(title=title, xlabel=f"towards one student (1 is L2 distance {near:.1f})")
        ax.grid(False)
    axes[0].set_ylabel(f"towards the other (1 is {far:.1f})")
    return figure


def draw_tickets(traces: Traces) -> MatplotlibFigure:
    """Accuracy of tickets against what is left, and test error between two data orders."""
    figure, (left, right) = style.figure(1, 2, width=10, height=3.8)
    for place, (arm, label) in enumerate(TICKETS.items()):
        if arm not in traces:
            continue
        trace, colour = traces[arm], style.colours[place]
        share = 100 * trace.density.mean("seed").values
        values = 100 * trace.test_accuracy.values
        left.plot(share, values.mean(0), "o-", color=colour, markersize=4, label=label)
        left.fill_between(
            share, values.min(0), values.max(0), color=colour, alpha=0.12, linewidth=0
        )
        path = 100 * trace.path.isel(step=0).transpose("seed", "place").values
        right.plot(trace.place, path.mean(0), "o-", color=colour, markersize=4, label=label)
        right.fill_between(
            trace.place, path.min(0), path.max(0), color=colour, alpha=0.12, linewidth=0
        )
    left.set(xscale="log", xlabel="weights of the encoder left in %", ylabel="test accuracy in %")
    ticks = [t for t in (100, 64, 41, 26, 17, 11, 7) if t >= 0.95 * share[-1]]
    left.set_xticks(ticks, [str(t) for t in ticks])
    left.minorticks_off()
    left.invert_xaxis()
    left.legend(title="rewound to", fontsize=8)
    right.set(
        xlabel="place between two data orders (dense)", ylabel="test error in %", ylim=(0, None)
    )
    return figure


WEIGHTS = ("landscape", *TICKETS)
LIGHT = tuple(arm for arm in ARMS if arm not in (*WEIGHTS, *OTHERS, *PROBES))
SMOKE = {
    "steps": 8, "width": 2, "hidden": 8, "bottleneck": 8, "classes": 16, "limit": 96, "batch_size": 16,
    "probe_epochs": 1, "places": 5, "labelled": 6, "rounds": 1,
}  # fmt: skip
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
        slug="random-teachers",
        title="Random Teachers are Good Teachers",
        authors="Felix Sarnthein, Gregor Bachmann, Sotiris Anagnostidis, Thomas Hofmann",
        venue="ICML",
        year=2023,
        arxiv="2302.12091",
        code="safelix/dinopl",
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
        "smoke": Budget(2, None, SMOKE),
        "quick": Budget(4, LIGHT),
        "weights": Budget(4, WEIGHTS),
        "architectures": Budget(4, tuple(OTHERS)),
        "probes": Budget(4, tuple(PROBES)),
        "full": Budget(5, None, FULL, FULL_DIGITS),
    },
    claims=CLAIMS,
    figures=(
        Figure("students", "Test accuracy of a linear probe and of nearest neighbours on student, teacher and "
               "raw pixels; small dots are seeds.", partial(draw_students, STUDENTS), ("digits", "gratings")),
        Figure("probes", "The same with every feature scaled to variance 1 over the training set before "
               "the linear probe.", partial(draw_students, PROBES), tuple(PROBES)),
        Figure("architectures", "The same for a residual network and a vision transformer.",
               partial(draw_students, OTHERS), tuple(OTHERS)),
        Figure("sweeps", "Linear probe on the student: where it starts, how many images it sees, how wide the "
               "bottleneck is (digits). Dots are seeds.", draw_sweeps, (*ALPHAS, *SAMPLES, *WIDTHS)),
        Figure("landscape", "The plane through a random teacher, a student that starts at it and one that "
               "starts away from it (first seed).", draw_landscape, ("landscape",)),
        Figure("tickets", "Pruning in rounds, rewound to the student's encoder or to random weights (trained "
               "with labels for a share of the steps); the line between two data orders. Bands: lowest to "
               "highest seed.", draw_tickets, ("ticket-student", "ticket-random")),
    ),
    data="scikit-learn digits, 8 x 8; generated gratings",
    notes="The paper distils ResNet-18 and VGG-11 on CIFAR and the like for 100 epochs and more. Quick: three "
    "convolutions of 16, 32 and 64 channels, a head of 256, 64 and 1,024, 320 steps on batches of 32. The "
    "budget \"weights\" holds the landscape, the lottery tickets and the error barriers, \"architectures\" a "
    "residual network and a vision transformer, \"probes\" linear probes on scaled features.",
    watch="student_probe",
)  # fmt: skip
