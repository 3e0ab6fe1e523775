"""Training and test examples as arrays."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Shaped


class Dataset(eqx.Module):
    """Training and test examples.

    Raises `ValueError` where inputs and labels do not match in number, or a part is empty.
    """

    x_train: Shaped[Array, "train ..."]
    y_train: Shaped[Array, "train ..."]
    x_test: Shaped[Array, "test ..."]
    y_test: Shaped[Array, "test ..."]

    def __check_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if len(x) != len(y) or not len(x):
                raise ValueError(
                    f"x_{part} has {len(x)} examples and y_{part} {len(y)}: "
                    "they must be the same number, at least 1"
                )


def check_labels(labels: Any, classes: int, name: str = "labels") -> None:
    """Raises `ValueError` for labels that are not class indices, int [n] from 0 to `classes` - 1.

    Nothing would tell of them later: an index out of range is cut to the range, counted from the end
    or NaN, as it happens.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{name} must be class indices, int [n], not {y.dtype} {list(y.shape)}")
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if len(wrong):
        raise ValueError(
            f"{name} must be from 0 to {classes - 1}, but row {wrong[0]} has {y[wrong[0]]}"
            + (f" (so have {len(wrong) - 1} others)" if len(wrong) > 1 else "")
            + ": leave rows without a label out, and number the classes from 0"
        )


def check_finite(x: Any, name: str = "x") -> None:
    """Raises `ValueError` for examples [n, ...] with a value that is no finite number; traced ones pass."""
    if isinstance(x, Tracer) or not jnp.issubdtype(x.dtype, jnp.inexact):
        return
    wrong = np.flatnonzero(~np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"{name} must be finite, but row {wrong[0]} has a NaN or infinite value"
            + (f" (so have {len(wrong) - 1} other rows)" if len(wrong) > 1 else "")
            + ": fill or drop such rows first"
        )


def check_targets(targets: Any, outputs: Any, name: str = "labels") -> None:
    """`check_labels` of class indices, int [n], that are to be told by outputs (or their shape) [n, classes].

    Other targets pass: rows, those of a single output, and those whose values are not known yet, as
    while JAX traces.
    """
    if isinstance(targets, Tracer) or np.ndim(targets) != 1 or len(outputs.shape) != 2:
        return
    if np.asarray(targets).dtype.kind in "iu" and outputs.shape[1] > 1:
        check_labels(targets, outputs.shape[1], name)
