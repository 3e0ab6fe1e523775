"""Two networks side by side in one tree of arrays [2, ...]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray


def pair(build: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray) -> Any:
    """Two of what `build` makes, from different keys, as one tree of arrays [2, ...]."""
    return eqx.filter_vmap(build)(jax.random.split(key))


def partners(tree: Any, swap: Bool[Array, ""] | bool) -> Any:
    """The other network's slice in each place if `swap`, else each network's own."""
    order = jnp.where(jnp.asarray(swap), jnp.array([1, 0]), jnp.array([0, 1]))
    return jax.tree.map(lambda x: x[order] if eqx.is_array(x) else x, tree)
