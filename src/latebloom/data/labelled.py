"""A user's labelled examples: an .npz, a folder of images with a table, or a table of features."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from latebloom.data.columns import Column, FileError, shown
from latebloom.data.files import read_table, row_number
from latebloom.data.values import label as label_of

DAMAGE = (OSError, EOFError, ValueError, RuntimeError, KeyError, SyntaxError, MemoryError,
          zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip
LABEL = Column("label", aliases=("class", "class_name"))
FILE = Column("text", aliases=("file_name", "filename", "image", "image_path", "path"))


@dataclass(frozen=True)
class Labelled:
    """Examples x [n, ...], labels y [n], names ids [n]; `more`: what else was asked for, each [n]; `features`: what
    the columns of x are called, where they came from a table."""

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    more: Mapping[str, np.ndarray] = field(default_factory=dict)
    features: tuple[str, ...] = ()


def read_examples(
    paths: Sequence[Path], size: int, chosen: Sequence[str] = (), more: Mapping[str, Column] | None = None,
    features: bool = False,
) -> Labelled:  # fmt: skip
    """One .npz, or a folder of images and a table; if `features`, or a table alone, of numbers.

    - `size`: images of a folder are scaled to it. `chosen`: the user's "column=header" pairs.
    - `more`: further columns of the table, or arrays of the .npz; where they are not required, they
      are there if the file has them.

    Raises `FileError` that says what is wrong.
    """
    more = {} if more is None else more
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return read_npz(paths[0], more)
    folders = [path for path in paths if path.is_dir()]
    tables = [path for path in paths if not path.is_dir()]
    if len(folders) == 1 and len(tables) == 1:
        return read_images(folders[0], tables[0], size, chosen, more)
    if features and len(tables) == 1 and not folders:
        return read_features(tables[0], chosen, more)
    named = ", ".join(map(str, paths)) or "nothing"
    alone = ", or a table of features and labels" if features else ""
    raise FileError(
        f"give one .npz, or a folder of images and a CSV with their labels{alone}, not {named}"
    )


def read_npz(path: Path, more: Mapping[str, Column] | None = None) -> Labelled:
    """Arrays x and y, and ids and others where there are any."""
    more = {} if more is None else more
    if not path.is_file():
        raise FileError(f"{path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise FileError(f"{path} is not an .npz that can be read: save it with np.savez")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            asked = ["x", "y", *(name for name, column in more.items() if column.required)]
            lacking = [name for name in asked if name not in arrays]
            if lacking:
                names = ", ".join(f"{name}={name}" for name in asked)
                raise FileError(
                    f"{path} has no array {lacking[0]!r}; it has: {', '.join(arrays) or 'none'}: save it "
                    f"with np.savez(path, {names})"
                )
            x, y = arrays["x"], arrays["y"]
            ids = arrays["ids"] if "ids" in arrays else np.arange(y.size)
            others = {name: arrays[name] for name in more if name in arrays}
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
    for name, values in others.items():
        if values.shape != y.shape:
            raise FileError(
                f"{path}, array {name!r} must have one entry for each of the {len(y)} examples, but is "
                f"{list(values.shape)}"
            )
    kept = {name: _entries(values, more[name], name, path) for name, values in others.items()}
    return Labelled(x, _named(y, "y", path), ids, kept)


def _entries(values: np.ndarray, column: Column, name: str, path: Path) -> np.ndarray:
    if column.kind == "label":
        return _named(values, name, path)
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and np.isfinite(values).all())
    if whole or (values.dtype.kind == "M" and not np.isnat(values).any()):
        return values
    raise FileError(
        f"{path}, array {name!r} has type {values.dtype}, or gaps: give finite numbers or datetime64"
    )


def _named(y: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Labels as whole numbers, where they are, or as names."""
    what = "drop examples without a label" if name == "y" else f"drop examples without a {name}"
    if y.dtype.kind in "iub":
        return y
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
        if not np.isfinite(y).all():
            raise FileError(f"{path}, array {name!r}: a label is not finite: {what}")
        whole = (y == np.round(y)).all() and (np.abs(y) < 2**53).all()
        return y.astype(np.int64) if whole else y
    if y.dtype.kind not in "US":
        raise FileError(f"{path}, array {name!r} has type {y.dtype}: give whole numbers or names")
    names = [label_of(value) for value in y.tolist()]
    if None in names:
        row = names.index(None)
        raise FileError(f"{path}, array {name!r}, entry {row} is no name: {what}")
    return np.array(names)


def read_images(
    folder: Path, table: Path, size: int, chosen: Sequence[str] = (),
    more: Mapping[str, Column] | None = None,
) -> Labelled:  # fmt: skip
    """Images [n, size, size] or, if one has colours, [n, size, size, 3], with labels from a table."""
    more = {} if more is None else more
    rows = read_table(table, {"file": FILE, "label": LABEL, **more}, chosen=chosen)
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
    labels, ids = rows["label"].to_numpy(str), rows["file"].to_numpy(str)
    return Labelled(_stacked(pictures), labels, ids, _more(rows, more))


PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
UNREAD = (".heic", ".heif")


def read_folders(folder: Path, size: int) -> Labelled:
    """Images as `read_images` gives them, in a folder for each class, at any depth: a class is called by
    the path from `folder` to it. What is hidden (a name that begins with a dot), and files that are no images, do
    not count. Raises `FileError` where there are none, one lies outside of a class, or one is no image."""
    files = sorted(
        f for f in folder.rglob("*") if f.is_file() and not _hidden(f.relative_to(folder))
    )
    images = [f for f in files if f.suffix.lower() in PICTURES]
    inside = [f for f in images if f.parent != folder]
    if not inside:
        raise FileError(
            f"{folder} has no folders of images ({', '.join(PICTURES)}): make one for each class, or give a "
            "table too"
        )
    if loose := [f for f in images if f.parent == folder]:
        raise FileError(f"{loose[0]} lies in no folder of a class: move it into one, or away")
    if unread := [f for f in files if f.suffix.lower() in UNREAD]:
        raise FileError(f"{unread[0]} cannot be read: save it as .jpg")
    pictures = [_picture(f, size, str(f)) for f in inside]
    labels = np.array([f.parent.relative_to(folder).as_posix() for f in inside])
    ids = np.array([f.relative_to(folder).as_posix() for f in inside])
    return Labelled(_stacked(pictures), labels, ids)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """Grey, or all in colours where one is."""
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in pictures]
    return np.stack(pictures)


def read_features(
    table: Path, chosen: Sequence[str] = (), more: Mapping[str, Column] | None = None
) -> Labelled:
    """A column `label`, those of `more`, and numbers in all others: x [n, others]."""
    more = {} if more is None else more
    known = {"label": LABEL, **more}
    found = read_table(table, known, chosen=chosen)
    others = [name for name in found if name not in known]
    if not others:
        raise FileError(f"{table} has no column of features beside {', '.join(known)}")
    rows = read_table(table, {**known, **dict.fromkeys(others, Column())}, chosen=chosen)
    labels = rows["label"].to_numpy(str)
    x, ids = rows[others].to_numpy(float), np.arange(len(rows))
    return Labelled(x, labels, ids, _more(rows, more), tuple(map(str, others)))


def _more(rows: pd.DataFrame, more: Mapping[str, Column]) -> dict[str, np.ndarray]:
    return {
        name: rows[name].to_numpy(str) if column.kind == "label" else rows[name].to_numpy("M8[ns]")
        for name, column in more.items()
        if name in rows
    }


def _picture(path: Path, size: int, where: str) -> np.ndarray:
    """One image scaled to `size`, in grey or in colours, each 0 to 255."""
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)  # as a phone was held
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


def given_labels(y: Sequence[object] | np.ndarray, name: str = "y") -> np.ndarray:
    """Labels [n] of any kind, words without the blanks around them. Raises `ValueError` where one is missing."""
    labels = np.asarray(y)
    what = "label" if name == "y" else name
    if labels.ndim != 1:
        raise ValueError(f"{name} must be one {what} an example, [n], not {list(labels.shape)}")
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        raise ValueError(
            f"example {missing[0]} has no {what} ({labels[missing[0]]}), nor have {len(missing) - 1} "
            "others: leave them out"
        )
    if labels.dtype == object or labels.dtype.kind in "US":
        words = [isinstance(label, str) for label in labels.tolist()]
        if any(words) and not all(words):
            raise ValueError(f"some {what}s are words and some are not: 1 and '1' are two")
        if all(words):
            labels = np.array([label.strip() for label in labels.tolist()])
            if len(empty := np.flatnonzero(labels == "")):
                raise ValueError(f"example {empty[0]} has no {what} (''): leave it out")
    return labels


def check_examples(x: np.ndarray, y: np.ndarray, fewest: int, own: bool = False) -> None:
    """Raises `ValueError` unless x is features or images (or anything, for a network of one's `own`), one
    for each of enough labels of two classes or more."""
    if x.ndim < 2 or len(x) != len(y) or (not own and x.ndim > 4):
        raise ValueError(
            "x must be [n, features] or [n, height, width] or [n, height, width, channels] and y [n], "
            f"not {list(x.shape)} and {list(y.shape)}"
        )
    if len(x) < fewest:
        raise ValueError(f"there are {len(x)} examples where at least {fewest} are needed")
    if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"x looks like images with the channels first, {list(x.shape)}: put them last, as in "
            "np.moveaxis(x, 1, -1)"
        )
    if len(np.unique(y)) < 2:
        raise ValueError(f"all labels are {y.tolist()[0]!r}: there must be two classes or more")
