"""A labelled data set in; its labels out, the most suspect first."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from latebloom.core.progress import Tick
from latebloom.data.columns import shown
from latebloom.data.files import Column, FileError, read_table, row_number
from latebloom.data.values import label as label_of
from latebloom.lab import Application, Applied, style
from latebloom.lab.application import Say
from latebloom.methods.noisy_labels import LabelErrors, find_label_errors

SHOWN = 40  # images on the contact sheet
SAID = ("id", "label", "suggested", "t_label", "suspect")  # of each
UNLEARNED = 0.5  # agreement with the labels below which the suspects are not worth much


DAMAGE = (OSError, EOFError, ValueError, RuntimeError, KeyError, SyntaxError, MemoryError,
          zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip
COLUMNS = {
    "file": Column("text", aliases=("file_name", "filename", "image", "image_path", "path")),
    "label": Column("label", aliases=("class", "class_name")),
}


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


class Labelled(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray


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


def read_examples(paths: Sequence[Path], size: int, chosen: Sequence[str] = ()) -> Labelled:
    """One NPZ, or a folder of images and a CSV; raises `FileError` that says what is wrong."""
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return read_npz(paths[0])
    folders = [path for path in paths if path.is_dir()]
    tables = [path for path in paths if not path.is_dir()]
    if len(folders) == 1 and len(tables) == 1:
        return read_images(folders[0], tables[0], size, chosen)
    named = ", ".join(map(str, paths)) or "nothing"
    raise FileError(
        f"give one .npz, or a folder of images and a CSV with their labels, not {named}"
    )


def read_npz(path: Path) -> Labelled:
    """Arrays x and y, and ids where there are any."""
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path} is not an .npz that can be read: save it with np.savez")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lacking = [name for name in ("x", "y") if name not in arrays]
            if lacking:
                raise FileError(
                    f"{path} has no array {lacking[0]!r}; it has: {', '.join(arrays) or 'none'}: save it "
                    "with np.savez(path, x=x, y=y)"
                )
            x, y = arrays["x"], arrays["y"]
            ids = arrays["ids"] if "ids" in arrays else np.arange(y.size)
    except FileError:
        raise
    except DAMAGE as error:
        if isinstance(error, ValueError) and "Object arrays" in str(error):
            raise FileError(
                f"{path} holds Python objects: save x, y and ids as plain arrays"
            ) from None
        raise FileError(
            f"{path} is damaged ({shown(error, quoted=False)}): save it anew with np.savez"
        ) from None
    if x.ndim == 0 or y.ndim != 1 or len(x) != len(y) or ids.shape != y.shape:
        raise FileError(
            f"{path}: x, y and ids must have one entry for each example, but are {list(x.shape)}, "
            f"{list(y.shape)} and {list(ids.shape)}"
        )
    if len(np.unique(ids)) < len(ids):
        raise FileError(f"{path}, array 'ids': a name appears twice: give each example its own")
    return Labelled(x, _labels(y, path), ids)


def _labels(y: np.ndarray, path: Path) -> np.ndarray:
    """Labels as whole numbers, where they are, or as names."""
    if y.dtype.kind in "iub":
        return y
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
        if not np.isfinite(y).all():
            raise FileError(
                f"{path}, array 'y': a label is not finite: drop examples without a label"
            )
        whole = (y == np.round(y)).all() and (np.abs(y) < 2**53).all()
        return y.astype(np.int64) if whole else y
    if y.dtype.kind not in "US":
        raise FileError(f"{path}, array 'y' has type {y.dtype}: give whole numbers or names")
    names = [label_of(name) for name in y.tolist()]
    if None in names:
        row = names.index(None)
        raise FileError(f"{path}, array 'y', entry {row} is no name: drop examples without a label")
    return np.array(names)


def read_images(folder: Path, table: Path, size: int, chosen: Sequence[str] = ()) -> Labelled:
    """Images [n, size, size] or, if one has colours, [n, size, size, 3], with labels from a CSV."""
    rows = read_table(table, COLUMNS, chosen=chosen)
    twice = rows["file"].duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise FileError(
            f"{table}, column 'file', row {row_number(rows, row)}: {shown(rows['file'][row])} has a "
            "label already: keep one of them"
        )
    pictures = []
    for row, name in enumerate(rows["file"]):
        where = f"{table}, column 'file', row {row_number(rows, row)}"
        if not os.path.isfile(folder / name):
            raise FileError(f"{where}: there is no image {shown(name)} in {folder}")
        pictures.append(_picture(folder / name, size, where))
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pictures]
    return Labelled(np.stack(pictures), rows["label"].to_numpy(str), rows["file"].to_numpy(str))


def _picture(path: Path, size: int, where: str) -> np.ndarray:
    """One image scaled to `size`, in grey or in colours, each 0 to 255."""
    try:
        with Image.open(path) as image:
            image.load()
    except (*DAMAGE, Image.DecompressionBombError):
        raise FileError(f"{where}: {shown(path.name)} is not an image that can be read") from None
    if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise FileError(
            f"{where}: {shown(path.name)} has 32 bits, whose range nothing tells: save it with 8 or 16"
        )
    grey = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))


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
