"""Curvature of a loss at a network's parameters: its largest eigenvalue, and gradients in the Fisher metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.statistics import trainable_leaves


def top_eigenvalue(
    loss: Callable[[Any], Float[Array, ""]], model: Any, key: PRNGKeyArray, iterations: int = 20
) -> Float[Array, ""]:
    """The largest eigenvalue of the Hessian of `loss(model)` in the parameters, from below.

    By Lanczos' method with full reorthogonalisation, from a random vector; the Hessian is only ever
    multiplied with vectors. Exact once there are as many iterations as parameters.

    Raises `ValueError` for less than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    params, rest = eqx.partition(model, trainable_leaves(model))
    flat, back = ravel_pytree(params)
    iterations = min(iterations, flat.size)

    def slope(v: Array) -> Array:
        return jax.grad(lambda v: loss(eqx.combine(back(v), rest)))(v)

    def one(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        basis, v = carry
        basis = basis.at[i].set(v)
        w = jax.jvp(slope, (flat,), (v,))[1]
        diagonal = v @ w
        for _ in range(2):  # twice is enough
            w = w - basis.T @ (basis @ w)
        size = jnp.linalg.norm(w)
        # What is left of the vector where the space is exhausted is rounding.
        some = size > 1e-5 * (jnp.abs(diagonal) + jnp.finfo(w.dtype).tiny)
        return (basis, jnp.where(some, w / jnp.where(some, size, 1), 0)), jnp.stack([
            diagonal, jnp.where(some, size, 0), (v @ v > 0).astype(v.dtype)
        ])  # fmt: skip

    start = jax.random.normal(key, flat.shape, flat.dtype)
    empty = jnp.zeros((iterations, flat.size), flat.dtype)
    first = start / jnp.linalg.norm(start)
    _, found = jax.lax.scan(one, (empty, first), jnp.arange(iterations))
    diagonal, beside, there = found.T
    # A place beyond the space takes a value inside of the spectrum.
    diagonal = jnp.where(there > 0, diagonal, diagonal[0])
    beside = beside[:-1] * there[1:]
    matrix = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    return jnp.linalg.eigvalsh(matrix)[-1]


def fisher_norm(
    gradients: Any, fisher: Any, damping: Float[Array, ""] | float = 1.0
) -> Float[Array, ""]:
    """|g| in the metric of an inverse diagonal Fisher matrix: sqrt(sum g^2 / (F + lambda)).

    lambda is `damping` times the mean entry of F. Both trees are alike. Infinite or NaN where all of F is 0.
    """
    g, _ = ravel_pytree(gradients)
    f, _ = ravel_pytree(fisher)
    return jnp.sqrt((jnp.square(g.astype(f.dtype)) / (f + damping * f.mean())).sum())
