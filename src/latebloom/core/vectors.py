"""A network's weights as one vector, and back."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.statistics import trainable_leaves


def weights(model: Any, *, running: bool = False) -> Float[Array, " n"]:
    """All that is trained of a network, as one vector; with its `running` statistics if wanted.

    Half precision becomes single where both are there.
    """
    leaves = jax.tree.leaves(eqx.filter(model, _chosen(model, running)))
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def set_weights(model: Any, vector: Float[Array, " n"], *, running: bool = False) -> Any:
    """The network with its weights taken from a vector in the order of `weights`, in its own precision."""
    params, rest = eqx.partition(model, _chosen(model, running))
    leaves, tree = jax.tree.flatten(params)
    parts, start = [], 0
    for leaf in leaves:
        part = vector[start : start + leaf.size].reshape(leaf.shape)
        parts.append(part.astype(leaf.dtype))
        start += leaf.size
    return eqx.combine(jax.tree.unflatten(tree, parts), rest)


def _chosen(model: Any, running: bool) -> Any:
    return eqx.is_inexact_array if running else trainable_leaves(model)
