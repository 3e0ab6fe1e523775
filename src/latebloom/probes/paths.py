"""The straight line between two trained networks, and the error barrier on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latebloom.core.calling import Apply, call
from latebloom.core.statistics import batch_statistics, update_statistics


class LinearPath(NamedTuple):
    """Test error (1 - accuracy) at `places` from one network (0) to the other (1)."""

    places: Float[Array, " points"]
    errors: Float[Array, " points"]

    @property
    def barrier(self) -> Float[Array, ""]:
        """Largest error on the path minus the mean of the errors at its two ends."""
        return barrier(self.errors)


def interpolate(one: Any, other: Any, place: float | Array) -> Any:
    """(1 - place) one + place other, in parameters and in running statistics of batch norms alike.

    Raises `ValueError` where the two are not networks of the same architecture.
    """
    first, rest = eqx.partition(one, eqx.is_inexact_array)
    second = eqx.filter(other, eqx.is_inexact_array)
    if jax.tree.structure(first) != jax.tree.structure(second) or any(
        a.shape != b.shape for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True)
    ):
        raise ValueError("there is a line only between networks of the same architecture")
    between = jax.tree.map(lambda a, b: (1 - place) * a + place * b, first, second)
    return eqx.combine(between, rest)


def with_statistics_of(model: Any, x: Array, apply: Apply = call) -> Any:
    """The network with the running statistics of its batch norms set to those of the inputs x."""
    with batch_statistics(model) as seen:
        apply(model, x, None, True)
    return update_statistics(model, seen, momentum=0.0)


def linear_path(
    one: Any, other: Any, x: Array, y: Int[Array, " n"], *, points: int = 11,
    statistics_of: Array | None = None, apply: Apply = call,
) -> LinearPath:  # fmt: skip
    """Test error on (x, y) at evenly spaced networks on the line from `one` to `other`.

    Running statistics of batch norms are interpolated like parameters. That is not what a network in
    between would have seen: with `statistics_of`, training inputs [m, ...], they are measured anew
    on these at every point, the ends included.

    Works inside `jit` and `vmap`. Raises `ValueError` for fewer than 3 points and for networks that
    differ in architecture.

    Source: Frankle, Dziugaite, Roy, Carbin 2020 (arXiv 1912.05671), section 2.
    """
    if points < 3:
        raise ValueError(f"a path needs at least 3 points, not {points}")
    places = jnp.linspace(0.0, 1.0, points)

    def error(place: Array) -> Array:
        model = interpolate(one, other, place)
        if statistics_of is not None:
            model = with_statistics_of(model, statistics_of, apply)
        return (apply(model, x, None, False).argmax(-1) != y).mean()

    return LinearPath(places, jax.lax.map(error, places))


def barrier(errors: Float[Array, " points"]) -> Float[Array, ""]:
    """Largest of the errors on a path minus the mean of the first and the last. 0 is no barrier."""
    return errors.max() - (errors[0] + errors[-1]) / 2
