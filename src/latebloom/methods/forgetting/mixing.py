"""Mixtures of replayed images: with any other of the batch, and of classes whose prototypes are close.

A mixture is (1 - amount) x_a + amount x_b with labels a and b.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

CLOSEST = 1e-6  # a smaller distance counts as this one, or its inverse would not be finite


class Mixed(NamedTuple):
    """Which example is mixed with which other one [n], and how much of the other."""

    one: Int[Array, " n"]
    other: Int[Array, " n"]
    amount: Float[Array, " n"]


def mixed(
    x: Shaped[Array, "n ..."], other: Shaped[Array, "n ..."], amount: Float[Array, " n"]
) -> Shaped[Array, "n ..."]:
    """(1 - amount) x + amount other, in the type of x; x as it is where nothing is mixed in."""
    part = amount.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(part == 0, x, ((1 - part) * x + part * other).astype(x.dtype))


def mixed_up(
    n: int, count: Int[Array, ""], chance: Float[Array, ""] | float, most: Float[Array, ""] | float, key: PRNGKeyArray
) -> Mixed:  # fmt: skip
    """Each of the first `count` of n examples with another of them: by a permutation, so that some stay alone.

    Two coins of the same `chance` are thrown, one for all and one for each (as kornia's RandomMixUpV2
    does); the amount is uniform on [0, `most`].
    """
    every, *luck = jnp.split(jax.random.uniform(key, (1 + 3 * n,)), [1, 1 + n, 1 + 2 * n])
    rows = jnp.arange(n)
    partner = jnp.where(rows < count, jnp.argsort(jnp.where(rows < count, luck[0], jnp.inf)), rows)
    chosen = (every < chance) & (luck[1] < chance) & (rows < count)
    return Mixed(rows, partner, jnp.where(chosen, luck[2] * most, 0))


def class_pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes of each unordered pair, the smaller first."""
    return np.triu_indices(classes, 1)


def pair_distances(
    prototypes: Float[Array, "classes d"], present: Bool[Array, " classes"]
) -> Float[Array, " pairs"]:
    """Euclidean distances of the prototypes of all pairs of classes; inf where one of them is not present."""
    a, b = class_pairs(len(present))
    # From differences: norms would cancel for prototypes that lie close.
    apart = jnp.sqrt(jnp.square(prototypes[a] - prototypes[b]).sum(axis=1))
    return jnp.where(present[a] & present[b], apart, jnp.inf)


def pair_chances(
    distances: Float[Array, " pairs"], sharpness: Float[Array, ""] | float = 1.0, closest: float = CLOSEST
) -> Float[Array, " pairs"]:  # fmt: skip
    """softmax(sharpness / d) over the pairs with a finite distance; 0 for the others, and for all where there is none.

    In the paper the sharpness is 1; of 0 all pairs are alike. A distance below `closest` counts as that.

    Source: Wei et al. 2023 (arXiv 2308.00301), Eq. 8.
    """
    there = jnp.isfinite(distances)
    near = sharpness / jnp.maximum(jnp.where(there, distances, 1), closest)
    near = jnp.where(there, near, -jnp.inf)
    return jnp.where(there, jax.nn.softmax(jnp.where(there.any(), near, 0)), 0)


def evenness(chances: Float[Array, " pairs"], known: Bool[Array, " pairs"]) -> Float[Array, ""]:
    """Entropy of the pairs' chances by the highest that those `known` can have: 1 if all are alike; NaN below two.

    A pair that is known may have a chance of 0: where two prototypes coincide, all others have.
    """
    n = known.sum()
    entropy = -jnp.where(
        chances > 0, chances * jnp.log(jnp.where(chances > 0, chances, 1)), 0
    ).sum()
    return jnp.where(n > 1, entropy / jnp.log(jnp.maximum(n, 2)), jnp.nan)


def pair_counts(
    chances: Float[Array, " pairs"], n: Int[Array, ""], key: PRNGKeyArray
) -> Int[Array, " pairs"]:
    """n shared out by the chances, rounded; what is over or short goes to random ones of those that can."""
    counts = jnp.round(chances * n).astype(jnp.int32)
    over = n - counts.sum()
    may = jnp.where(over > 0, chances > 0, counts > 0)
    order = jnp.argsort(jnp.where(may, jax.random.uniform(key, chances.shape), jnp.inf))
    rank = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.arange(len(order), dtype=jnp.int32))
    chosen = may & (rank < jnp.abs(over))
    return counts + jnp.where(chosen, jnp.sign(over), 0)


def drawn_pairs(
    counts: Int[Array, " pairs"], labels: Int[Array, " size"], filled: Bool[Array, " size"],
    present: Bool[Array, " classes"], n: int, *, chance: Float[Array, ""] | float,
    alpha: Float[Array, ""] | float, key: PRNGKeyArray,
) -> Mixed:  # fmt: skip
    """For each place that the counts give a pair, an example of either class from a memory, with replacement.

    - `labels`, `filled` of the memory's places; the result names places.
    - A coin of `chance` a pair says whether it is mixed at all; the amount is Beta(alpha, alpha).
    - A class that is no longer in the memory is replaced by any that is present and in it.

    Only the first `counts.sum()` of n mean anything.
    """
    classes, size = len(present), len(labels)
    keys = jax.random.split(key)
    a, b = (jnp.asarray(part) for part in class_pairs(classes))
    pair = (jnp.arange(n)[:, None] >= jnp.cumsum(counts)).sum(axis=1)
    pair = jnp.minimum(pair, len(a) - 1)
    belongs = (labels[:, None] == jnp.arange(classes)) & filled[:, None]
    able = present & belongs.any(axis=0)
    # One draw for all: each takes long to compile.
    luck = jax.random.uniform(keys[0], (2 * n * (size + classes) + len(a),))
    coins, spare, rest = jnp.split(luck, [len(a), len(a) + 2 * n * classes])
    instead = jnp.where(able, spare.reshape(2, n, classes), -1).argmax(axis=2)
    of = jnp.stack([a[pair], b[pair]])
    of = jnp.where(belongs.any(axis=0)[of], of, instead)
    places = jnp.where(belongs.T[of], rest.reshape(2, n, size), -1).argmax(axis=2)
    alpha = jnp.asarray(alpha, jnp.float32)
    amount = jax.random.beta(keys[1], alpha, alpha, (n,))
    return Mixed(places[0], places[1], jnp.where(coins[pair] < chance, amount, 0))
