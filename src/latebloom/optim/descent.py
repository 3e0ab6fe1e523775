"""Stochastic gradient descent as most papers mean it."""

from __future__ import annotations

import optax
from jaxtyping import Array


def sgd(
    rate: float | Array, momentum: float | Array = 0.9, decay: float | Array = 0.0
) -> optax.GradientTransformation:
    """Gradient descent with momentum, and with weight decay that goes through the momentum.

    v <- momentum v + gradient + decay w, then w <- w - rate v, as in PyTorch. The three may be arrays:
    trainings that differ in them share a compiled program.
    """
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))
