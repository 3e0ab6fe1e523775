"""One of two optimisers, chosen by a value, so that runs with either share a compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

Optimiser = Callable[[Any], optax.GradientTransformation]


class Either(eqx.Module):
    """`one(rate)` where `pick` is true, else `other(rate)`; both keep their moments.

    `Either(pick, optax.adam, optax.sgd)` is what takes a learning rate to an Optax transformation.
    """

    pick: Bool[Array, ""]
    one: Optimiser
    other: Optimiser

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        both = self.one(rate), self.other(rate)

        def init(params: Any) -> Any:
            return tuple(each.init(params) for each in both)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            (first, one), (second, other) = (
                each.update(updates, s, params) for each, s in zip(both, state, strict=True)
            )
            chosen = jax.tree.map(lambda a, b: jnp.where(self.pick, a, b), first, second)
            return chosen, (one, other)

        return optax.GradientTransformation(init, update)
