"""Gradients made orthogonal to the weights, so that no step merely scales the network."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array


def perp_grad(scope: str = "tensor", keep_norm: bool = True) -> optax.GradientTransformation:
    """Project each gradient onto the orthogonal complement of its weights.

    Chain it before any optimiser: `optax.chain(perp_grad(), optax.adamw(0.01))`.

    - `scope`: "tensor" projects every parameter tensor for itself (biases and embeddings
      included), "network" all parameters as one vector.
    - `keep_norm`: rescale the projected gradient to the norm of the original.

    Weights and gradients may be of any size and precision: both are scaled before they are squared,
    and half precision is projected in single. Leaves without a floating-point gradient (None, and
    what is not trained) pass as they are.

    Guards: a tensor with a single element would lose its whole gradient, so it passes unchanged,
    as does a gradient of weights that are all zero, which have no direction (the published formula
    adds 1e-30 to their squared norm); a gradient that lies along the weights up to rounding becomes
    zero instead of rescaled noise.

    Raises `ValueError` where `update` is called without `params`.

    Source: Prieto et al. 2025 (arXiv 2501.04697), Eq. 12. The rescaling is in the authors' code,
    not in the equation.
    """
    if scope not in ("tensor", "network"):
        raise ValueError(f"scope must be 'tensor' or 'network', not {scope!r}")

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("perp_grad needs the parameters: call update(updates, state, params)")
        leaves, tree = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
        weights = tree.flatten_up_to(params)
        learned = [i for i, leaf in enumerate(leaves) if eqx.is_inexact_array(leaf)]
        groups = [[i] for i in learned] if scope == "tensor" else [learned]
        for group in filter(None, groups):
            found = _perpendicular(
                [leaves[i] for i in group], [weights[i] for i in group], keep_norm
            )
            for i, leaf in zip(group, found, strict=True):
                leaves[i] = leaf
        return jax.tree.unflatten(tree, leaves), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _perpendicular(gradients: list[Array], weights: list[Array], keep_norm: bool) -> list[Array]:
    """Of a group of tensors as one vector."""
    if sum(w.size for w in weights) < 2:
        return gradients
    g, size = _scaled(gradients)
    w, _ = _scaled(weights)
    squared = _dot(w, w)
    along = jnp.where(squared > 0, _dot(w, g) / jnp.where(squared > 0, squared, 1), 0)
    projected = [a - along * b for a, b in zip(g, w, strict=True)]
    if keep_norm:
        before, after = jnp.sqrt(_dot(g, g)), jnp.sqrt(_dot(projected, projected))
        rounding = 8 * max(float(jnp.finfo(a.dtype).eps) for a in gradients) * before
        left = after > rounding
        scale = jnp.where(left, before / jnp.where(left, after, 1), 0)
        projected = [scale * a for a in projected]
    return [(a * size).astype(old.dtype) for a, old in zip(projected, gradients, strict=True)]


def _scaled(tensors: list[Array]) -> tuple[list[Array], Array]:
    """The tensors, in single precision at least, over the size of their largest entry, and that size.

    It is a power of 2, so that to divide by it and to multiply with it again changes no digit.
    """
    kind = jnp.result_type(jnp.float32, *tensors)
    largest = jnp.stack([jnp.abs(t).max(initial=0).astype(kind) for t in tensors]).max()
    known = (largest > 0) & jnp.isfinite(largest)
    info = jnp.finfo(kind)
    bits = jax.lax.bitcast_convert_type(largest, f"uint{info.bits}")
    exponent = bits >> info.nmant << info.nmant  # the digits cut off
    size = jnp.where(known, jax.lax.bitcast_convert_type(exponent, kind), 1)
    return [t.astype(kind) / size for t in tensors], size


def _dot(one: list[Array], other: list[Array]) -> Array:
    return jnp.stack([jnp.vdot(a, b) for a, b in zip(one, other, strict=True)]).sum()
