"""Two networks side by side in one tree of arrays [2, ...]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray


def pair(build: Callable[[PRNGKeyArray], Any], key: PRNGKeyArray) -> Any:
    """Two of what `build` makes, from different keys, as one tree of arrays [2, ...]."""
    return eqx.filter_vmap(build)(jax.random.split(key))


def each(how: Literal["vmap", "map"], function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of each network's slice of `trees`, side by side or one after the other."""
    if how == "vmap":
        return eqx.filter_vmap(function)(*trees)
    arrays, static = eqx.partition(trees, eqx.is_array)
    out_static = []

    def one(arrays: Any) -> Any:
        out, rest = eqx.partition(function(*eqx.combine(arrays, static)), eqx.is_array)
        out_static.append(rest)
        return out

    return eqx.combine(jax.lax.map(one, arrays), out_static[0])


def partners(tree: Any, swap: Bool[Array, ""] | bool) -> Any:
    """The other network's slice in each place if `swap`, else each network's own."""
    order = jnp.where(jnp.asarray(swap), jnp.array([1, 0]), jnp.array([0, 1]))
    return jax.tree.map(lambda x: x[order] if eqx.is_array(x) else x, tree)
