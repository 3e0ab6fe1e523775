"""Gradients made orthogonal to the weights, so that no step merely scales the network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

_TINY = 1e-30


def perp_grad(scope: str = "tensor", keep_norm: bool = True) -> optax.GradientTransformation:
    """Project each gradient onto the orthogonal complement of its weights.

    Chain it before any optimiser: `optax.chain(perp_grad(), optax.adamw(0.01))`.

    - `scope`: "tensor" projects every parameter tensor for itself (biases and embeddings
      included), "network" all parameters as one vector.
    - `keep_norm`: rescale the projected gradient to the norm of the original.

    Guards: a tensor with a single element would lose its whole gradient, so it passes unchanged;
    a tensor of zeros, or of a norm below about 1e-13, has nothing to project on (the published
    formula adds 1e-30 to its squared norm); a gradient that lies along the weights up to rounding
    becomes zero instead of rescaled noise.

    Raises `ValueError` where `update` is called without `params`.

    Source: Prieto et al. 2025 (arXiv 2501.04697), Eq. 12. The rescaling is in the authors' code,
    not in the equation.
    """
    if scope not in ("tensor", "network"):
        raise ValueError(f"scope must be 'tensor' or 'network', not {scope!r}")

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("perp_grad needs the parameters: call update(updates, state, params)")
        if scope == "tensor":
            return jax.tree.map(
                lambda g, w: _perpendicular(g, w, keep_norm), updates, params
            ), state
        gradient, restore = ravel_pytree(updates)
        weights, _ = ravel_pytree(params)
        return restore(_perpendicular(gradient, weights, keep_norm)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _perpendicular(gradient: Array, weights: Array, keep_norm: bool) -> Array:
    if weights.size < 2:
        return gradient
    along = jnp.vdot(weights, gradient) / (jnp.vdot(weights, weights) + _TINY)
    projected = gradient - along * weights
    if not keep_norm:
        return projected
    before, after = jnp.linalg.norm(gradient), jnp.linalg.norm(projected)
    rounding = 8 * jnp.finfo(gradient.dtype).eps * before
    scale = jnp.where(after > rounding, before / (after + _TINY), 0)
    return projected * scale
