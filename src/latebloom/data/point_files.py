"""Sets of points from a user's files: tables with x and y, and instances of TSPLIB (Reinelt 1991).

Distances of TSPLIB are whole numbers by rules of its own, and lengths of its tours mean something by these alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from latebloom.data.columns import Column, FileError, shown
from latebloom.data.delimited import read_text
from latebloom.data.files import read_table
from latebloom.data.values import integer, number

POINTS = {
    "x": Column(aliases=("easting",)),
    "y": Column(aliases=("northing",)),
    "instance": Column("label", required=False, aliases=("set", "id")),
}
# Rows of a triangle of the matrix; a symmetric one's upper columns are its lower rows.
TRIANGLES = {
    "UPPER_ROW": ("upper", 1), "LOWER_COL": ("upper", 1), "UPPER_DIAG_ROW": ("upper", 0), "LOWER_DIAG_COL": ("upper", 0),
    "LOWER_ROW": ("lower", 1), "UPPER_COL": ("lower", 1), "LOWER_DIAG_ROW": ("lower", 0), "UPPER_DIAG_COL": ("lower", 0),
}  # fmt: skip
PLANE = ("EUC_2D", "CEIL_2D", "GEO")
SECTIONS = ("NODE_COORD_SECTION", "EDGE_WEIGHT_SECTION", "DISPLAY_DATA_SECTION")


@dataclass(frozen=True, eq=False)
class PointSets:
    """Sets of points [n, 2] in the file's order, by `names`; a file without instances is one set, "all"."""

    names: tuple[str, ...]
    sets: tuple[Float[np.ndarray, "n 2"], ...]

    def __len__(self) -> int:
        return len(self.names)


def read_points(path: str | os.PathLike[str], chosen: Sequence[str] | None = None) -> PointSets:
    """Points of a table with columns x and y, and, where a file has several sets, instance.

    Formats, and `chosen` as "column=header", as in `read_table`. Rows of an instance need not be together.

    Raises `FileError` that says what is missing or wrong, and in which row.
    """
    table = read_table(path, POINTS, chosen=chosen)
    places = table[["x", "y"]].to_numpy(np.float64)
    if "instance" not in table.columns:
        return PointSets(("all",), (places,))
    of = table["instance"].to_numpy(object)
    names = tuple(dict.fromkeys(of.tolist()))
    return PointSets(names, tuple(places[of == name] for name in names))


def unit_square(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points moved and scaled, both axes alike, so that they just fit in [0, 1]^2.

    Hulls, triangulations and the order of tours stay what they are. Points that are all equal go to (0, 0).
    """
    points = np.asarray(points, np.float64)
    half = points / 2  # the range of very large numbers is no number
    reach = (half.max(axis=0) - half.min(axis=0)).max()
    return (half - half.min(axis=0)) / (reach if reach > 0 else 1.0)


@dataclass(frozen=True, eq=False)
class TSPLIB:
    """One instance of TSPLIB.

    - `weights`: "EUC_2D", "CEIL_2D", "GEO" or "EXPLICIT".
    - `points` [n, 2] as they are written (GEO: latitude and longitude as degrees.minutes), or None where a matrix is
      given: `matrix` [n, n], else None.
    """

    name: str
    weights: str
    points: Float[np.ndarray, "n 2"] | None
    matrix: Float[np.ndarray, "n n"] | None

    def distances(self) -> Float[np.ndarray, "n n"]:
        """By the rules of TSPLIB 95: to the nearest whole number, or the next (CEIL_2D), or whole kilometres (GEO)."""
        if self.matrix is not None:
            return self.matrix
        assert self.points is not None
        if self.weights == "GEO":
            return _geographical(self.points)
        x, y = self.points.T
        exact = np.hypot(x[:, None] - x, y[:, None] - y)
        return np.ceil(exact) if self.weights == "CEIL_2D" else np.floor(exact + 0.5)


def read_tsplib(path: str | os.PathLike[str]) -> TSPLIB:
    """An instance in a .tsp file (or .atsp): EUC_2D, CEIL_2D, GEO, or EXPLICIT with a full matrix or a triangle.

    Raises `FileError`, with the line where there is one, for other types of problem and distance, and for what is
    missing, too much, or no number.
    """
    path = Path(path)
    header, sections = _parts(path)
    kind = header.get("TYPE", "TSP").split()[0].upper() if header.get("TYPE", "TSP") else ""
    if kind not in ("TSP", "ATSP"):
        raise FileError(f"{path} is of TYPE {shown(kind)}: only TSP and ATSP are read")
    for name in ("DIMENSION", "EDGE_WEIGHT_TYPE"):
        if name not in header:
            raise FileError(f"{path} has no {name}: it is needed before the first section")
    n = integer(header["DIMENSION"])
    if n is None or n < 1:
        raise FileError(f"{path}: DIMENSION must be a whole number from 1 on, not {shown(header['DIMENSION'])}")  # fmt: skip
    weights = header["EDGE_WEIGHT_TYPE"].upper()
    name = header.get("NAME", path.stem)
    if weights == "EXPLICIT":
        form = header.get("EDGE_WEIGHT_FORMAT", "").upper()
        if form != "FULL_MATRIX" and (form not in TRIANGLES or kind == "ATSP"):
            known = ["FULL_MATRIX"] if kind == "ATSP" else ["FULL_MATRIX", *TRIANGLES]
            raise FileError(f"{path}: EDGE_WEIGHT_FORMAT of {kind} must be one of {', '.join(known)}, not {shown(form)}")  # fmt: skip
        matrix = _matrix(path, n, form, _section(path, sections, "EDGE_WEIGHT_SECTION"))
        if kind == "TSP" and form == "FULL_MATRIX" and (matrix != matrix.T).any():
            i, j = np.argwhere(matrix != matrix.T)[0] + 1
            raise FileError(f"{path}: the distance from {i} to {j} is not that from {j} to {i}: TYPE must be ATSP")  # fmt: skip
        return TSPLIB(name, weights, None, matrix)
    if weights not in PLANE:
        raise FileError(f"{path}: EDGE_WEIGHT_TYPE must be one of {', '.join(PLANE)}, EXPLICIT, not {shown(weights)}")  # fmt: skip
    points = _nodes(path, n, _section(path, sections, "NODE_COORD_SECTION"))
    if weights == "GEO" and (np.abs(points) > (90, 180)).any():
        row = int((np.abs(points) > (90, 180)).any(axis=1).argmax()) + 1
        raise FileError(f"{path}: node {row} is at no latitude from -90 to 90 and longitude from -180 to 180")  # fmt: skip
    return TSPLIB(name, weights, points, None)


Lines = list[tuple[int, list[str]]]  # the number of each line, and its words


def _parts(path: Path) -> tuple[dict[str, str], dict[str, Lines]]:
    """The header's entries, and the lines of each section."""
    header: dict[str, str] = {}
    sections: dict[str, Lines] = {}
    current: Lines | None = None
    for count, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if words[0].upper() == "EOF":
            break
        entry = re.fullmatch(r"\s*([A-Za-z_][A-Za-z_0-9]*)\s*(?::(.*))?", line)
        if entry and entry[1].upper().endswith("_SECTION"):
            name = entry[1].upper()
            if name not in SECTIONS:
                raise FileError(f"{path}, line {count}: {name} is not read: remove it, or solve the problem without it")  # fmt: skip
            if name in sections:
                raise FileError(f"{path}, line {count}: {name} is there twice: keep one of them")
            current = sections[name] = []
        elif entry and entry[2] is not None:
            name = entry[1].upper()
            if name in header and name != "COMMENT":
                raise FileError(f"{path}, line {count}: {name} is there twice: keep one of them")
            header[name] = entry[2].strip()
            current = None
        elif current is not None:
            current.append((count, words))
        else:
            raise FileError(f"{path}, line {count}: {shown(line.strip())} is neither an entry, as NAME : value, nor in a section")  # fmt: skip
    if not header:
        raise FileError(f"{path} is no TSPLIB file: it has no entry, as NAME : value")
    return header, sections


def _section(path: Path, sections: dict[str, Lines], name: str) -> Lines:
    if name not in sections:
        raise FileError(f"{path} has no {name}: it may have been cut off")
    return sections[name]


def _value(path: Path, line: int, word: str) -> float:
    found = number(word)
    if found is None or not np.isfinite(found):
        raise FileError(f"{path}, line {line}: {shown(word)} is not a finite number")
    return found


def _nodes(path: Path, n: int, lines: Lines) -> np.ndarray:
    """Coordinates in the order of the nodes' numbers, which are 1 to n in any order."""
    found: dict[int, list[float]] = {}
    for line, words in lines:
        if len(words) != 3:
            raise FileError(f"{path}, line {line} has {len(words)} values where a node has three: its number, x and y")  # fmt: skip
        node = integer(words[0])
        if node is None or not 1 <= node <= n:
            raise FileError(f"{path}, line {line}: a node's number must be from 1 to {n}, not {shown(words[0])}")  # fmt: skip
        if node in found:
            raise FileError(f"{path}, line {line}: node {node} is there twice: keep one of them")
        found[node] = [_value(path, line, word) for word in words[1:]]
    if len(found) < n:
        lacking = next(node for node in range(1, n + 1) if node not in found)
        raise FileError(f"{path} has {len(found)} nodes where DIMENSION says {n}: node {lacking} is missing")  # fmt: skip
    return np.array([found[node] for node in range(1, n + 1)])


def _matrix(path: Path, n: int, form: str, lines: Lines) -> np.ndarray:
    """The matrix of what the lines hold, wherever they break."""
    words = [(line, word) for line, words in lines for word in words]
    side, off = TRIANGLES.get(form, ("", 0))
    wanted = n * n if form == "FULL_MATRIX" else n * (n + 1) // 2 - off * n
    if len(words) != wanted:
        raise FileError(f"{path} has {len(words)} distances where {form} of {n} nodes has {wanted}")
    values = np.array([_value(path, line, word) for line, word in words])
    if (values < 0).any():
        place = int((values < 0).argmax())
        raise FileError(f"{path}, line {words[place][0]}: the distance {values[place]:g} is below 0")  # fmt: skip
    if form == "FULL_MATRIX":
        return values.reshape(n, n)
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, off) if side == "upper" else np.tril_indices(n, -off)] = values
    return np.maximum(matrix, matrix.T)


def _geographical(points: np.ndarray) -> np.ndarray:
    """Kilometres on a sphere between places of degrees.minutes, with pi and the radius of TSPLIB 95."""
    degrees = np.trunc(points)
    latitude, longitude = (3.141592 * (degrees + 5 * (points - degrees) / 3) / 180).T
    q1, q2, q3 = (
        np.cos(longitude[:, None] - longitude), np.cos(latitude[:, None] - latitude), np.cos(latitude[:, None] + latitude),
    )  # fmt: skip
    angle = np.arccos(np.clip(0.5 * ((1 + q1) * q2 - (1 - q1) * q3), -1, 1))
    found = np.floor(6378.388 * angle + 1)
    np.fill_diagonal(found, 0)
    return found
