"""From the columns of a table to the codes and numbers that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from latebloom.methods.bandits.payments.world import Features

FEW = 30  # distinct whole numbers up to which a column of numbers counts as categories


@dataclass(frozen=True)
class Encoding:
    """How context columns become features; made by `learn_encoding`.

    - `levels`: for each categorical column the values that have a code of their own (from 1 on; 0
      is any other value).
    - `scales`: for each numeric column its mean and standard deviation; a gap becomes the mean, and
      what is not a finite number is refused.
    """

    levels: dict[str, tuple[str, ...]]
    scales: dict[str, tuple[float, float]]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(values) + 1 for values in self.levels.values())

    def __call__(self, frame: pd.DataFrame) -> Features:
        """Raises `ValueError` for a column that is missing, or holds something else than numbers."""
        for name in (*self.levels, *self.scales):
            if name not in frame.columns:
                raise ValueError(f"the table has no context column {name!r}")
        codes = np.zeros((len(frame), len(self.levels)), np.int32)
        for place, (name, values) in enumerate(self.levels.items()):
            known = {value: code for code, value in enumerate(values, 1)}
            codes[:, place] = _labels(frame[name]).map(known).fillna(0).astype(np.int32)
        numbers = np.zeros((len(frame), len(self.scales)), np.float32)
        for place, (name, (mean, deviation)) in enumerate(self.scales.items()):
            column = _finite(frame[name], name).fillna(mean)
            numbers[:, place] = (column - mean) / deviation
        return Features(jnp.asarray(codes), jnp.asarray(numbers))


def learn_encoding(
    frame: pd.DataFrame, columns: Sequence[str], *, most_levels: int = 200, few: int = FEW
) -> Encoding:
    """Categories are texts, and whole numbers with up to `few` values; the rest are numbers.

    A category keeps its `most_levels` commonest values; constant columns are left out. Raises
    `ValueError` for a column of numbers with fractions among which is something else.
    """
    levels: dict[str, tuple[str, ...]] = {}
    scales: dict[str, tuple[float, float]] = {}
    for name in columns:
        numbers = _numbers(frame[name]).to_numpy()
        there = numbers[np.isfinite(numbers)]
        texts = len(there) < int(np.sum(_labels(frame[name]) != ""))
        if texts and len(there) > len(numbers) / 2 and np.any(there % 1 != 0):
            _finite(frame[name], name)
        whole = bool(np.all(there % 1 == 0)) and len(np.unique(there)) <= few
        if texts or whole:
            counts = _labels(frame[name]).value_counts()
            if len(counts) > 1:
                levels[name] = tuple(counts.index[:most_levels])
        elif there.std() > 0:
            scales[name] = (float(there.mean()), float(there.std()))
    return Encoding(levels, scales)


def _finite(column: Any, name: str) -> pd.Series:
    """The numbers of a column, NaN in its gaps."""
    numbers = _numbers(column)
    wrong = ~np.isfinite(numbers.to_numpy()) & (_labels(column) != "").to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"column {name!r}, row {row}: {column.iloc[row]!r} is not a finite number")
    return numbers


def _numbers(column: Any) -> pd.Series:
    return pd.Series(pd.to_numeric(column, errors="coerce"), column.index, float)


def _labels(column: Any) -> pd.Series:
    """Values as text; 3 and 3.0 are one, and a gap is a value too."""
    numbers = _numbers(column)
    whole = (numbers.abs() < 2**53) & (numbers % 1 == 0)
    texts = column.map(str).str.strip().where(column.notna(), "")
    return texts.where(~whole, numbers.where(whole, 0).astype(np.int64).map(str))
