"""TayNODE: the mean square of a high total derivative along the solution, as a penalty."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from latebloom.core.odes.solving import Field


def total_derivative(
    field: Field, t: Any, y: Any, order: int, by: str = "jet"
) -> Float[Array, " n"]:
    """d^order y / dt^order along the solution of dy/dt = field(t, y) through (t, y), as one vector.

    By Taylor-mode differentiation ("jet"; JAX lacks its rule for some operations), or nested forward-mode ("jvp"), which
    takes every operation and costs exponentially in the order.

    Source: Kelly et al. 2020 (arXiv 2007.04504), Sec. 3.

    Raises `ValueError` for an order below 1 or another way.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    if by not in ("jet", "jvp"):
        raise ValueError(f'by must be "jet" or "jvp", not {by!r}')
    flat, unravel = ravel_pytree(y)
    point = jnp.append(flat, jnp.asarray(t, flat.dtype))

    def flow(point: Array) -> Array:  # of the state and time
        slope = ravel_pytree(field(point[-1], unravel(point[:-1])))[0]
        return jnp.append(slope.astype(point.dtype), jnp.ones((), point.dtype))

    if by == "jvp":
        derivative = flow
        for _ in range(order - 1):
            derivative = _along(flow, derivative)
        return derivative(point)[:-1]
    series = [flow(point)]
    for _ in range(order - 1):
        _, more = jet(flow, (point,), ((series),))
        series.append(more[-1])
    return series[-1][:-1]


def with_taylor(field: Field, order: int = 3, by: str = "jet") -> Field:
    """The field of (y, r): r gathers R_K, the integral over time of |d^order y / dt^order|^2 / (size of y).

    Begin with r = 0. and let no step be chosen by it: `solve(..., counted=lambda state: state[0])`.
    """

    def both(t: Any, state: Any) -> Any:
        y, r = state
        high = total_derivative(field, t, y, order, by)
        return field(t, y), jnp.mean(high * high).astype(r.dtype)

    return both


def _along(flow: Any, derivative: Any) -> Any:
    return lambda point: jax.jvp(derivative, (point,), (flow(point),))[1]
