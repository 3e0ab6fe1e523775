"""A labelled data set in; its labels out, the most suspect first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from latebloom.core.progress import Tick
from latebloom.data.files import FileError
from latebloom.data.labelled import Labelled, read_examples
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.noisy_labels import LabelErrors, find_label_errors

SHOWN = 40  # images on the contact sheet
SAID = ("id", "label", "suggested", "t_label", "suspect")  # of each
UNLEARNED = 0.5  # agreement with the labels below which the suspects are not worth much


@dataclass(frozen=True)
class Options:
    """- `network`: "mlp", or "cnn" for images. `epochs` of training; `seeds` networks are averaged.
    - `strength` (lambda; "none": 3, with two classes 1; 0 is plain cross-entropy) and `beta` of the
      regularisation.
    - `rate`: learning rate of SGD with momentum. `size`: images of a folder are scaled to it.
    - `columns`: what the CSV calls them, where it calls them otherwise ("file=name,label=class").
    """

    network: Literal["mlp", "cnn"] = "mlp"
    epochs: int = 40
    seeds: int = 2
    strength: float | None = None
    beta: float = 0.7
    rate: float = 0.03
    size: int = 32
    columns: tuple[str, ...] = ()


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if options.epochs < 1 or options.seeds < 1 or options.size < 4:
        raise ValueError("epochs and seeds must be at least 1, and size at least 4")
    say("reading the examples", 0.0)
    data = read_examples(paths, options.size, options.columns)
    say("training", 0.05)
    try:
        found = find_label_errors(
            data.x, data.y, ids=data.ids, network=options.network, epochs=options.epochs,
            strength=options.strength, beta=options.beta, rate=options.rate, seeds=options.seeds,
            progress=partial(_tell, say),
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    say("drawing", 0.9)
    figures = {"targets": draw_targets(found)}
    if data.x.ndim > 2:
        figures["contact_sheet"] = draw_sheet(found, data)
    return Applied(
        sentences(found, options), summary(found), {"suspects": found.table, "pairs": found.pairs()}, figures
    )  # fmt: skip


def _tell(say: Say, tick: Tick) -> None:
    say("training", 0.05 + 0.85 * tick.step / tick.steps)


def agreement(found: LabelErrors) -> float:
    """Share of the labels with which the targets agree."""
    return 1 - len(found.suspects) / len(found.table)


def sentences(found: LabelErrors, options: Options) -> tuple[str, ...]:
    table, pairs, count = found.table, found.pairs(), len(found.suspects)
    said = [
        f"{count:,} of {len(table):,} labels look wrong ({count / len(table):.1%}): the network keeps to "
        "another class; look at the first rows of suspects.csv"
    ]
    if len(pairs):
        top = pairs.iloc[0]
        said.append(
            f"most often ({top['count']} times): labelled {top['label']}, but looks like {top['suggested']}"
        )
    said.append(
        f"{len(found.classes)} classes; after {options.epochs} epochs the network predicts "
        f"{found.train_accuracy:.1%} of the given labels"
    )
    if agreement(found) < UNLEARNED:
        said.append(
            "it agrees with less than half of the labels: it has not learned the classes, so do not trust "
            "the list; try more epochs, network=cnn for images, or another rate"
        )
    if len(found.classes) == 2:
        said.append(
            "with two classes a strong term may lock in a wrong first guess: compare strength=0.5"
        )
    return tuple(said)


def summary(found: LabelErrors) -> dict[str, object]:
    return {
        "examples": len(found.table),
        "classes": [str(name) for name in found.classes],
        "suspects": len(found.suspects),
        "agreement": agreement(found),
        "train_accuracy": found.train_accuracy,
    }


def draw_targets(found: LabelErrors) -> Figure:
    """How sure the targets are of the given labels."""
    figure, ax = style.figure(width=5.4, height=3.4)
    values, suspect = found.table["t_label"].to_numpy(), found.table["suspect"].to_numpy()
    edges = np.linspace(0, 1, 41)
    ax.hist([values[suspect], values[~suspect]], edges, stacked=True, linewidth=0,
            color=[style.colours[1], style.colours[0]], label=["suspect", "agrees"])  # fmt: skip
    ax.set(yscale="symlog", xlabel="target of the given label", ylabel="examples", xlim=(0, 1))
    ax.legend()
    return figure


def draw_sheet(found: LabelErrors, data: Labelled) -> Figure:
    """The most suspect examples: given label, and what the network keeps to."""
    table = found.table.head(SHOWN)
    places = {name: row for row, name in enumerate(data.ids.tolist())}
    columns = min(8, len(table))
    rows = -(-len(table) // columns)
    figure, axes = style.figure(
        rows, columns, width=1.35 * columns, height=1.65 * rows, squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    columns_of = zip(*(table[name] for name in SAID), strict=True)
    for ax, (name, label, suggested, t, suspect) in zip(axes.flat, columns_of, strict=False):
        image = data.x[places[name]]
        if image.ndim == 3 and image.shape[-1] == 1:
            image = image[..., 0]
        ax.imshow(image, cmap="gray", interpolation="nearest")
        ax.set_title(f"{_short(label)} → {_short(suggested)}\nt = {t:.2f}", fontsize=8,
                     color=style.colours[1] if suspect else style.INK)  # fmt: skip
    figure.suptitle("given label → what it looks like; t: target of the given label", fontsize=10)
    return figure


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 9 else f"{text[:8]}…"


application = Application(
    about="Examples with labels of which some may be wrong; out comes the list of labels, the most suspect "
    "first, with the class that each example looks like, and for images a contact sheet.",
    files="one .npz with the arrays x (features or images), y (labels) and, if wanted, ids; or a folder of "
    "images and a CSV with the columns file and label",
    options=Options,
    run=run,
)
