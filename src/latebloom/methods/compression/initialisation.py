"""Networks that start as those in which lottery tickets were found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from latebloom.nn import BatchNorm
from latebloom.nn.masks import prunable_leaves


def as_published(model: Any, key: PRNGKeyArray) -> Any:
    """The model with weights drawn from N(0, 2 / fan_in) and scales of batch norms from U(0, 1).

    Weights are what can be pruned (`prunable_leaves`); all else stays.

    Source: Frankle et al. 2019 (arXiv 1903.01611), the authors' code.
    """
    weight_key, scale_key = jax.random.split(key)
    weights, rest = eqx.partition(model, prunable_leaves(model))
    drawn = jax.tree.map(
        lambda weight: weight * np.sqrt(2 / np.prod(weight.shape[:-1])),
        _drawn_at_once(jax.random.normal, weight_key, weights),
    )
    scales = _drawn_at_once(jax.random.uniform, scale_key, _scales(model))
    return eqx.tree_at(_scales, eqx.combine(drawn, rest), scales)


def _scales(model: Any) -> list[Array]:
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, BatchNorm))
    return [node.scale for node in nodes if isinstance(node, BatchNorm)]


def _drawn_at_once(draw: Callable[..., Array], key: PRNGKeyArray, like: Any) -> Any:
    """Many draws take long to compile."""
    flat, unflatten = ravel_pytree(like)
    return unflatten(draw(key, flat.shape))
