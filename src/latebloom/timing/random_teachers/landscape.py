"""Planes through the weights of teacher and students, and what the loss does on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.nn import trainable_leaves


class Plane(NamedTuple):
    """Weights origin + a first + b second; all else is that of `model`."""

    model: Any
    origin: Float[Array, " n"]
    first: Float[Array, " n"]
    second: Float[Array, " n"]

    def at(self, a: float | Array, b: float | Array) -> Any:
        """The network at coordinates (a, b)."""
        return set_weights(self.model, self.origin + a * self.first + b * self.second)

    def coordinates(self, model: Any) -> Float[Array, " 2"]:
        """Of the point of the plane that is nearest to a network."""
        axes = jnp.stack([self.first, self.second], 1)
        return jnp.linalg.lstsq(axes, weights(model) - self.origin)[0]


def weights(model: Any) -> Float[Array, " n"]:
    """All that is trained of a network, as one vector."""
    leaves = jax.tree.leaves(eqx.filter(model, trainable_leaves(model)))
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def set_weights(model: Any, vector: Float[Array, " n"]) -> Any:
    """The network with its weights taken from a vector in the order of `weights`."""
    params, rest = eqx.partition(model, trainable_leaves(model))
    leaves, tree = jax.tree.flatten(params)
    parts, start = [], 0
    for leaf in leaves:
        parts.append(vector[start : start + leaf.size].reshape(leaf.shape))
        start += leaf.size
    return eqx.combine(jax.tree.unflatten(tree, parts), rest)


def plane_through(origin: Any, one: Any, other: Any, *, orthogonal: bool = False) -> Plane:
    """The plane in which three networks lie: origin (0, 0), one (1, 0), other (0, 1).

    With `orthogonal` the axes are at right angles and of length 1, the first towards `one`, so that
    distances in the plane are distances of weights.

    Raises `ValueError` where the three lie on one line.

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 4: the teacher with the students started
    at alpha 1 before and after training, or the students started at alpha 0 and at 1.
    """
    base = weights(origin)
    first, second = weights(one) - base, weights(other) - base
    away = second - (second @ first) / jnp.maximum(first @ first, 1e-30) * first
    if float(jnp.linalg.norm(away)) <= 1e-6 * float(jnp.linalg.norm(second)) or not first.any():
        raise ValueError("the three networks lie on one line: choose others to span the plane")
    if orthogonal:
        first, second = (v / jnp.linalg.norm(v) for v in (first, away))
    return Plane(origin, base, first, second)


def on_grid(
    plane: Plane, a: Float[Array, " k"], b: Float[Array, " l"], look: Callable[[Any], Array]
) -> Float[Array, "k l *out"]:
    """`look(network)` at every (a, b) of a grid, one after another in one program."""
    points = jnp.stack(jnp.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    values = eqx.filter_jit(
        lambda plane, points: jax.lax.map(lambda point: look(plane.at(*point)), points)
    )(plane, points)
    return values.reshape(len(a), len(b), *values.shape[1:])
