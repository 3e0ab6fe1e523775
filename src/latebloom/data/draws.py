"""Random numbers that depend on where they are used alone, not on what was drawn before."""

from __future__ import annotations

import operator

import numpy as np
from jaxtyping import Float


def uniforms(
    count: int, *, seed: int, stream: int, row: int, column: int = 0
) -> Float[np.ndarray, " count"]:
    """`count` numbers between 0 and 1 (never either), float64, that belong to a place in a stream.

    Philox's counter stands at the place, and its key is the seed and the row; its bits are the same on
    every platform, and in every version of NumPy.
    """
    key = np.array([seed, row], np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, column, 0, stream], np.uint64))
    return ((generator.random_raw(count) >> np.uint64(12)) + 0.5) * 2.0**-52


def natural(number: object, name: str) -> int:
    """A plain integer from 0 to 2^63 - 1; `ValueError` that names what it is where it is none."""
    try:
        found = operator.index(number)  # pyright: ignore[reportArgumentType]
    except TypeError:
        found = -1
    if isinstance(number, bool) or not 0 <= found < 2**63:
        raise ValueError(f"{name} takes integers from 0 to 2^63 - 1, not {number!r}")
    return found
