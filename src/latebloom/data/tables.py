"""Real tables for classification and regression: from installed packages, or fetched from Debian's
r-cran-mlbench."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from latebloom.core.checkpoint import write_atomically
from latebloom.data.sources import DataError, cache_folder, from_debian


@dataclass(frozen=True)
class Table:
    """Features [n, d] float32 and labels [n]: int32 for classes, float32 for `classes` = ()."""

    name: str
    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    classes: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class _Mlbench:
    about: str
    object: str
    label: str
    sha256: str


_BUNDLED = {
    "iris": ("150 flowers, 4 measures, 3 species", "load_iris"),
    "wine": ("178 wines, 13 measures, 3 growers", "load_wine"),
    "breast-cancer": ("569 tumours, 30 measures, 2 classes", "load_breast_cancer"),
    "digits-8x8": ("1,797 handwritten digits, 64 pixels, 10 classes", "load_digits"),
    "diabetes": ("442 patients, 10 measures, disease progression after a year", "load_diabetes"),
}

_MLBENCH = {
    "letter": _Mlbench(
        "20,000 printed letters, 16 measures, 26 classes", "LetterRecognition", "lettr",
        "967a1a3e10b548d7269cbe50182bcecd6365cc58ea07638bbc34c51f17f34f1d"),
    "satellite": _Mlbench(
        "6,435 pixels of a Landsat image, 36 bands, 6 soils", "Satellite", "classes",
        "29f8cf9bb1bc51b769d694c9caf740fd1c36ed6a7c87603edf5985962e330f64"),
    "shuttle": _Mlbench(
        "58,000 radiator states, 9 sensors, 7 classes", "Shuttle", "Class",
        "5b1db218b76a47c83f575f1ff38d7a7d36e569b0e27d8bf4aa92eae6c0bcb826"),
    "vowel": _Mlbench(
        "990 vowels by 15 speakers, 10 measures, 11 classes", "Vowel", "Class",
        "6577f9ca304153797ec7621d79020b010d160c425da2007639b9e6a2b23fb127"),
    "vehicle": _Mlbench(
        "846 silhouettes of vehicles, 18 measures, 4 classes", "Vehicle", "Class",
        "ea993a1fe72b2611a609101aa6ebee43b6a9dd07c329c9acd1a184ba971a2710"),
    "dna": _Mlbench(
        "3,186 splice junctions, 180 bits, 3 classes", "DNA", "Class",
        "df941ad89a49f705a29bf38e52c91dc34029539cedb13fa24f803f1224278c9e"),
    "glass": _Mlbench(
        "214 pieces of glass, 9 measures, 6 classes", "Glass", "Type",
        "dd6d25227d9b49c30a4de04566bec1a2877e790b7690544ad848d847144f32b7"),
    "sonar": _Mlbench(
        "208 sonar returns, 60 bands, mine or rock", "Sonar", "Class",
        "e75dbab91efeba53ff00d13281977619a9e584bd2ccff48550e8a252f7c49cd4"),
    "ionosphere": _Mlbench(
        "351 radar returns, 34 measures, good or bad", "Ionosphere", "Class",
        "1e72974db40749e025434dbb45c815c826d3cce7c1b324fd07ee89aee44e08b7"),
}  # fmt: skip
_DEBIAN = "r-cran-mlbench"
_INSTALLED = Path("/usr/lib/R/site-library/mlbench/data")


def table_names() -> dict[str, dict[str, str]]:
    """What there is: name -> about, licence, and where it was found (or "")."""
    found = {
        name: {"about": about, "licence": "BSD-3-Clause (package)", "where": "installed"}
        for name, (about, _) in _BUNDLED.items()
    }
    for name, facts in _MLBENCH.items():
        where = find_table(name)
        found[name] = {
            "about": facts.about,
            "licence": "GPL-2 (package)",
            "where": str(where.parent if where else ""),
        }
    return found


def find_table(name: str) -> Path | None:
    """The file of a table that does not come with an installed package, or None."""
    if name not in _MLBENCH:
        return None
    file = f"{_MLBENCH[name].object}.rda"
    candidates = (cache_folder() / "mlbench" / file, _INSTALLED / file)
    return next((path for path in candidates if path.is_file()), None)


def load_table(name: str) -> Table:
    """Load a table by name; `latebloom data list` shows them.

    Raises `DataError` for an unknown name, a table that has to be fetched, and a file that is not
    the original.
    """
    if name in _BUNDLED:
        return _from_sklearn(name)
    _check(name)
    path = find_table(name)
    if path is None:
        raise DataError(f"{name} is not here: run `latebloom data fetch {name}`")
    _verify(path, _MLBENCH[name].sha256)
    return _table(name, read_rda(path, _MLBENCH[name].object), _MLBENCH[name].label, str(path))


def read_rda(path: Path, object_name: str) -> pd.DataFrame:
    """The data frame of that name in a file of R's. Raises `DataError` that names the file."""
    import rdata

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = rdata.read_rda(path)[object_name]
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} holds no readable R data frame {object_name} ({error})") from None
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{path}: {object_name} is not a data frame but {type(frame).__name__}")
    return frame


def fetch_table(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Get all tables of Debian's r-cran-mlbench into the user's cache; returns the folder.

    Raises `DataError` if the package cannot be had or a file is not the original.
    """
    _check(name)
    target = cache_folder() / "mlbench"
    say(f"{name}: Debian package {_DEBIAN}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            from_debian(_DEBIAN, Path(scratch))
        except (OSError, DataError) as error:
            raise DataError(
                f"{name} could not be had ({error}): install {_DEBIAN}, or put "
                f"{_MLBENCH[name].object}.rda into {target}"
            ) from None
        for facts in _MLBENCH.values():
            path = next(Path(scratch).rglob(f"{facts.object}.rda"))
            _verify(path, facts.sha256)
            write_atomically(target / path.name, path.read_bytes())
    return target


def _check(name: str) -> None:
    if name not in _MLBENCH:
        raise DataError(f"there is no table {name!r}; there are: {', '.join(table_names())}")


def _verify(path: Path, sha256: str) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"{path} is not the original file (its checksum differs): fetch it again")


def _table(name: str, frame: pd.DataFrame, label: str, source: str) -> Table:
    labels = frame[label].astype("category")
    inputs = frame.drop(columns=label)
    numbers = {
        column: inputs[column].cat.codes
        if isinstance(inputs[column].dtype, pd.CategoricalDtype)
        else inputs[column]
        for column in inputs
    }
    x = pd.DataFrame(numbers).to_numpy(np.float32)
    return Table(
        name, x, labels.cat.codes.to_numpy(np.int32), tuple(map(str, inputs.columns)),
        tuple(map(str, labels.cat.categories)), source,
    )  # fmt: skip


def _from_sklearn(name: str) -> Table:
    from sklearn import datasets

    bunch = getattr(datasets, _BUNDLED[name][1])()
    classes = tuple(map(str, getattr(bunch, "target_names", ())))
    kind = np.int32 if classes else np.float32
    features = tuple(map(str, bunch.feature_names))
    return Table(
        name, np.asarray(bunch.data, np.float32), np.asarray(bunch.target, kind), features, classes,
        "scikit-learn",
    )  # fmt: skip
