"""Training and test examples as arrays."""

from __future__ import annotations

import equinox as eqx
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
