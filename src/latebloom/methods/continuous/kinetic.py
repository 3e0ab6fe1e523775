"""RNODE: the kinetic energy of the solution and the size of the field's Jacobian, as a penalty."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from latebloom.core.odes.solving import Field


def kinetic_and_jacobian(
    field: Field, t: Any, y: Array, noise: Array
) -> tuple[Array, Array, Array]:
    """The slope f, the mean over elements of f^2, and that of (noise df/dy)^2, which is of the Jacobian in expectation.

    `noise`: like y, of unit variance, the same all along a solution. One backward pass more than f.

    Source: Finlay et al. 2020 (arXiv 2002.02798), Sec. 3.
    """
    slope, back = jax.vjp(lambda y: field(t, y), y)
    (row,) = back(noise.astype(slope.dtype))
    return slope, jnp.mean(slope * slope), jnp.mean(row * row)


def with_kinetic(field: Field, noise: Array) -> Field:
    """The field of (y, r): r gathers the integral over time of the kinetic energy and the Jacobian's size together.

    Begin with r = 0. and let no step be chosen by it: `solve(..., counted=lambda state: state[0])`.
    """

    def both(t: Any, state: Any) -> Any:
        y, r = state
        slope, energy, size = kinetic_and_jacobian(field, t, y, noise)
        return slope, (energy + size).astype(r.dtype)

    return both
