"""The shape of the bound: the gap is small where some layer's two informations are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from latebloom.methods.information.representation import NATS_PER_BIT


def gap_bound(
    given_class: Float[np.ndarray, "*models layers"], weights: Float[np.ndarray, "*models layers"],
    n: int, *, loss: float = 1.0, offset: float = 0.0, slack: float = 0.0,
) -> tuple[Float[np.ndarray, "*models"], np.ndarray]:  # fmt: skip
    """The bound on the generalisation gap and the layer that gives it (the lowest of all layers).

        min_l  loss * sqrt(((I(X; Z_l | Y) + I(S; theta_l)) ln 2 + offset) / n) + slack / sqrt(n)

    Informations are in bits, `n` is the number of training examples; `weights` of 0 give the bound
    for an encoder that has not seen the training set. `loss`, `offset` and `slack` stand for the
    paper's G3, G2 and G1: no more than constants here, so that the result has the right shape, not
    the right size. Raises `ValueError` for n below 1.

    Source: Kawaguchi et al. 2023, Theorems 1 and 2.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    total = np.maximum(combined(given_class, weights) * NATS_PER_BIT + offset, 0)
    by_layer = loss * np.sqrt(total / n) + slack / np.sqrt(n)
    return by_layer.min(-1), by_layer.argmin(-1)


def combined(
    given_class: Float[np.ndarray, "*models layers"], weights: Float[np.ndarray, "*models layers"],
) -> Float[np.ndarray, "*models layers"]:  # fmt: skip
    """I(X; Z_l | Y) + I(S; theta_l), unscaled. Raises `ValueError` where the layers do not match."""
    given_class, weights = np.asarray(given_class, float), np.asarray(weights, float)
    if given_class.shape[-1:] != weights.shape[-1:]:
        raise ValueError(
            f"the two informations have {given_class.shape[-1:]} and {weights.shape[-1:]} layers: give "
            "those of the same layers, in the same order"
        )
    return given_class + weights


def summarise_layers(
    values: Float[np.ndarray, "*models layers"],
) -> dict[str, Float[np.ndarray, "*models"]]:
    """What a model counts for: mean, max, min, first and last over its layers."""
    return {
        "mean": values.mean(-1), "max": values.max(-1), "min": values.min(-1),
        "first": values[..., 0], "last": values[..., -1],
    }  # fmt: skip
