"""Dynamic sparse training: how many weights each layer has, which ones go, which ones come instead.

Layers are those of a tree of masks (`latebloom.nn.masks`), in its order. Everything here works inside
`jit` and `vmap`, where counts are traced: the k largest are found by bisection of their bits, not by a sort.

Source: Mocanu et al. 2018 (arXiv 1707.04780) for SET; Dettmers & Zettlemoyer 2019 (arXiv 1907.04840) for
SNFS; Evci et al. 2020 (arXiv 1911.11134) for RigL and ERK; Liu et al. 2021 (arXiv 2102.02887) for ITOP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.nn.masks import Masks, pruned_count

GROWTHS = ("random", "unfired", "gradient", "momentum")
PRUNES = ("magnitude", "set", "taylor")
Prune = Literal["magnitude", "set", "taylor"]


def uniform_densities(
    shapes: Sequence[tuple[int, ...]], density: float | Array
) -> Float[Array, " layers"]:
    """The same density in every layer."""
    return jnp.full(len(shapes), density, jnp.float32)


def erk_densities(
    shapes: Sequence[tuple[int, ...]], density: float | Array
) -> Float[Array, " layers"]:
    """Erdős-Rényi-Kernel: a layer of dimensions d_1, d_2, ... is as dense as epsilon sum(d) / prod(d).

    Epsilon is such that all layers together have the given density. While it makes a layer more than
    dense, the one that is furthest beyond becomes dense and epsilon is found anew for the others.

    Source: Evci et al. 2020, Sec. 3(1) and Appendix D; for linear layers Mocanu et al. 2018.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], np.float32)
    raw = np.array([sum(shape) for shape in shapes], np.float32) / sizes

    def scaled(dense: Array) -> Array:
        budget = density * sizes.sum() - jnp.where(dense, sizes, 0).sum()
        odds = jnp.where(dense, 0, raw * sizes).sum()
        epsilon = budget / jnp.where(odds > 0, odds, 1)
        return jnp.where(dense, 1, epsilon * raw)

    def filled(_: Array, dense: Array) -> Array:
        most = jnp.where(dense, -jnp.inf, raw).max()
        return dense | ((raw == most) & (scaled(dense) > 1))

    dense = jax.lax.fori_loop(0, len(shapes), filled, jnp.zeros(len(shapes), bool))
    return scaled(dense).astype(jnp.float32)


def random_masks(like: Masks, densities: Float[Array, " layers"], key: PRNGKeyArray) -> Masks:
    """Masks in which each weight of a layer is there with the probability of the layer."""
    flags, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(flags))
    drawn = [
        jax.random.uniform(k, flag.shape) < densities[i]
        for i, (k, flag) in enumerate(zip(keys, flags, strict=True))
    ]
    return jax.tree.unflatten(tree, drawn)


def largest(
    values: Float[Array, "*shape"], among: Bool[Array, "*shape"], count: int | Int[Array, ""],
    key: PRNGKeyArray,
) -> Bool[Array, "*shape"]:  # fmt: skip
    """Which `count` of those `among` have the largest values, exactly so many; ties are broken at random.

    All of them where there are fewer. Values are not negative; they are compared in single precision.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    return _highest(bits, among, count, key)


def smallest(
    values: Float[Array, "*shape"], among: Bool[Array, "*shape"], count: int | Int[Array, ""],
    key: PRNGKeyArray,
) -> Bool[Array, "*shape"]:  # fmt: skip
    """Which `count` of those `among` have the smallest values; see `largest`."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    return _highest(bits ^ _MOST, among, count, key)


_MOST = np.uint32(2**31 - 1)  # all bits of a number that is not negative


def _highest(bits: Array, among: Array, count: int | Array, key: PRNGKeyArray) -> Array:
    limit = _threshold(bits, among, count, 31)
    above, level = among & (bits > limit), among & (bits == limit)
    missing = count - above.sum()
    places = max(1, (bits.size - 1).bit_length())
    order = _shuffled(bits.size, places, key).reshape(bits.shape)
    return above | (level & (order >= _threshold(order, level, missing, places)) & (missing > 0))


def _threshold(bits: Array, among: Array, count: int | Array, places: int) -> Array:
    """The highest number that at least `count` of those `among` reach, 0 where there are fewer."""

    def raised(i: Array, low: Array) -> Array:
        tried = low | (jnp.uint32(1) << (places - 1 - i).astype(jnp.uint32))
        return jnp.where((among & (bits >= tried)).sum() >= count, tried, low)

    return jax.lax.fori_loop(0, places, raised, jnp.uint32(0))


def _shuffled(n: int, places: int, key: PRNGKeyArray) -> Array:
    """n different numbers of so many bits, in an order that the key fixes."""
    a, b, c = jax.random.bits(key, (3,), jnp.uint32)
    mask, half = jnp.uint32((1 << places) - 1), (places + 1) // 2
    x = jnp.arange(n, dtype=jnp.uint32)
    for odd in (a, b, c):  # each is one to one: an odd factor, and a shift that is xored in
        x = (x ^ odd) * (odd << 1 | 1) * jnp.uint32(0x85EBCA6B) & mask
        x = x ^ (x >> half)
    return x


def dropped(
    weight: Float[Array, "*shape"], slope: Float[Array, "*shape"], mask: Bool[Array, "*shape"],
    rate: float | Float[Array, ""], key: PRNGKeyArray, rule: str = "magnitude",
) -> Bool[Array, "*shape"]:  # fmt: skip
    """Which of a layer's weights go: ceil(rate n) of the n that there are.

    - "magnitude": the smallest |w|.
    - "set": half of them the smallest that are not negative, half the negative ones closest to 0; fewer
      where one sign has fewer.
    - "taylor": the smallest (w g)^2, g being the gradient `slope`.

    Weights that are 0, such as those that just came, are as small as any and count like any.

    Raises `ValueError` for another rule.
    """
    if rule not in PRUNES:
        raise ValueError(f"prune must be one of {', '.join(PRUNES)}, not {rule!r}")
    count, size = pruned_count(mask.sum(), jnp.asarray(rate)), jnp.abs(weight)
    if rule == "magnitude":
        return smallest(size, mask, count, key)
    if rule == "taylor":
        return smallest(jnp.square((weight * slope).astype(jnp.float32)), mask, count, key)
    half, keys = (count + 1) // 2, jax.random.split(key)
    up = smallest(size, mask & (weight >= 0), half, keys[0])
    return up | smallest(size, mask & (weight < 0), count - half, keys[1])


def grown(
    wanted: Int[Array, ""] | int, slope: Float[Array, "*shape"], momentum: Float[Array, "*shape"],
    fired: Bool[Array, "*shape"], there: Bool[Array, "*shape"], count: Int[Array, ""] | int, key: PRNGKeyArray,
) -> Bool[Array, "*shape"]:  # fmt: skip
    """Which `count` weights come that are not `there`; `wanted` is the place of a rule in `GROWTHS`.

    - "random": any; "unfired": first those that never have been there (`fired`), then any.
    - "gradient" (RigL): the largest |slope|; "momentum" (SNFS): the largest |momentum|.

    The number is exact, where the authors' code for Yildirim et al. 2024 keeps it in expectation.
    """
    never, nothing = (~fired).astype(jnp.float32), jnp.zeros(fired.shape, jnp.float32)
    moving, steep = (jnp.abs(x).astype(jnp.float32) for x in (momentum, slope))
    values = jax.lax.select_n(
        jnp.broadcast_to(jnp.asarray(wanted, jnp.int32), fired.shape), nothing, never, steep, moving
    )
    return largest(values, ~there, count, key)


def momentum_of(moments: Any) -> Any | None:
    """What SNFS grows by, a tree like the parameters: m / (sqrt(v) + 1e-8) of Adam's moments, or the
    trace of momentum; None where an optimiser's state has neither."""
    kinds = (optax.ScaleByAdamState, optax.TraceState)
    found = [s for s in jax.tree.leaves(moments, is_leaf=lambda s: isinstance(s, kinds)) if isinstance(s, kinds)]  # fmt: skip
    if not found:
        return None
    if isinstance(found[0], optax.TraceState):
        return found[0].trace
    return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-8), found[0].mu, found[0].nu)


def cosine_rate(first: float | Array, last: float | Array, done: float | Array) -> Float[Array, ""]:
    """The share that is pruned when a share `done` of the training is over: from `first` to `last` by a
    half cosine."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * jnp.asarray(done, jnp.float32))) / 2
