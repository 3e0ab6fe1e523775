"""Masks over the weights of any Equinox model, and pruning by magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.nn import Conv, Linear

# Masks: a tree shaped like the model, booleans where a weight may be pruned and None elsewhere.
Masks = Any

LAYERS = (Linear, Conv, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)


def prunable_leaves(model: Any) -> Any:
    """Which leaves may be pruned: weights of convolutions and affine maps, not biases, not norms.

    A tree of booleans, for `eqx.filter` and `eqx.partition`. A layer whose weight is tied to another
    (`equinox.nn.Shared`), None or of integers has none of its own.
    """

    def mark(node: Any) -> Any:
        marks = jax.tree.map(lambda _: False, node)
        kind = getattr(node.weight, "dtype", None) if isinstance(node, LAYERS) else None
        own = kind is not None and jnp.issubdtype(kind, jnp.inexact)
        return eqx.tree_at(lambda n: n.weight, marks, True) if own else marks

    return jax.tree.map(mark, model, is_leaf=lambda node: isinstance(node, LAYERS))


def dense_masks(model: Any, ignore: Sequence[str] = ()) -> Masks:
    """Masks that keep every prunable weight.

    `ignore` names layers that are never pruned ("readout"), or parts of the model ("head" for all
    layers of it), as `layer_names` writes them.

    Raises `ValueError` for a model without prunable layers and a name that is none of them.
    """
    marks = jax.tree_util.tree_leaves_with_path(prunable_leaves(model))
    names = [_name(path) for path, mark in marks if mark]
    unused = [part for part in ignore if not any(_within(name, part) for name in names)]
    if not names or unused:
        what = f"no layer {unused[0]!r} in it" if unused else "nothing to prune in this model"
        known = ", ".join(names) or "none: prunable are convolutions and linear layers"
        raise ValueError(f"there is {what}; layers: {known}")

    def ones(path: Any, mark: bool, leaf: Any) -> Any:
        if not mark or any(_within(_name(path), part) for part in ignore):
            return None
        return jnp.ones(leaf.shape, bool)

    return jax.tree_util.tree_map_with_path(ones, prunable_leaves(model), model)


def masked(model: Any, masks: Masks) -> Any:
    """The model with pruned weights set to 0, whatever they are, NaN too; what has no mask is left alone."""
    return jax.tree.map(
        lambda mask, weight: weight if mask is None else jnp.where(mask, weight, jnp.zeros_like(weight)),
        masks, model, is_leaf=lambda node: node is None,
    )  # fmt: skip


def kept(model: Any, masks: Masks) -> list[Array]:
    """The masked tensors of a model, pruned weights as 0, in the order of `layer_names`."""
    held = jax.tree.map(
        lambda mask, weight: None if mask is None else jnp.where(mask, weight, jnp.zeros_like(weight)),
        masks, model, is_leaf=lambda node: node is None,
    )  # fmt: skip
    return jax.tree.leaves(held)


def prune_by_magnitude(
    weights: Any, masks: Masks, fraction: float | Array, *, also: int = 0
) -> Masks:
    """Prune a fraction of the weights that are left, the smallest of all layers together.

    With n weights left, the threshold is entry ceil(fraction n), counted from 0, of their sorted
    magnitudes, and what is larger stays. So ceil(fraction n) + 1 weights go, and all that tie with the
    last of these, exact zeros too. A layer may lose all its weights: see `empty_layers`.

    - `weights`: the trained model that `masks` belong to.
    - `also`: so many weights without a mask count in n as well, as those of ignored layers do in the
      authors' code.

    Works inside `jit` and `vmap`; a traced fraction has single precision (`pruned_count`). Raises
    `ValueError` for a fraction outside (0, 1).

    Source: the global pruning of the authors' code for Frankle et al. 2019 (arXiv 1903.01611). With
    the same number of weights `torch.nn.utils.prune.global_unstructured` gives the same masks.
    """
    if not isinstance(fraction, jax.Array) and not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, not {fraction}")
    left = sum(flag.sum() for flag in jax.tree.leaves(masks)) + also
    return prune_smallest(weights, masks, pruned_count(left, fraction))


def prune_smallest(weights: Any, masks: Masks, count: int | Int[Array, ""]) -> Masks:
    """Keep what is larger than entry `count`, from 0, of the sorted magnitudes of the weights left."""
    flags, tree = jax.tree.flatten(masks)
    magnitudes = [jnp.abs(weight) for weight in kept(weights, masks)]
    pairs = list(zip(magnitudes, flags, strict=True))
    ranked = jnp.sort(jnp.concatenate([jnp.where(m, w, jnp.inf).ravel() for w, m in pairs]))
    threshold = ranked[jnp.minimum(count, len(ranked) - 1)]
    return jax.tree.unflatten(tree, [flag & (size > threshold) for size, flag in pairs])


def pruned_count(left: int | Array, fraction: float | Array) -> Int[Array, ""]:
    """ceil(fraction left), exact for a known fraction of up to four decimals.

    A traced one is rounded to single precision, so that its product with `left` may be a little above
    a whole number that is meant: 3e-7 of it are forgiven.
    """
    if not isinstance(fraction, jax.Array) and (known := as_ratio(fraction)):
        return ceil_share(jnp.asarray(left, jnp.int32), *known)
    return jnp.ceil(fraction * left * (1 - 3e-7)).astype(jnp.int32)


def as_ratio(fraction: float) -> tuple[int, int] | None:
    """Numerator and denominator of a fraction meant as a ratio of numbers up to 40,000, if it is one."""
    near = Fraction(fraction).limit_denominator(40_000)
    return near.as_integer_ratio() if abs(near - Fraction(fraction)) < 1e-12 else None


def ceil_share(left: Array, numerator: int | Array, denominator: int | Array) -> Int[Array, ""]:
    """ceil(left numerator / denominator) for a ratio below 1 of numbers up to 40,000, in 32 bits."""
    whole, rest = jnp.divmod(left, denominator)
    return whole * numerator - (-rest * numerator) // denominator


def shuffled_masks(masks: Masks, key: PRNGKeyArray) -> Masks:
    """Random masks that keep as many weights of each layer as `masks` do."""
    flags, tree = jax.tree.flatten(masks)
    flat = jnp.concatenate([flag.ravel() for flag in flags])
    layer = jnp.concatenate([jnp.full(flag.size, place) for place, flag in enumerate(flags)])
    # One sort for all layers: a sort, or a draw, for each would take longer to compile than to run.
    drawn = jax.lax.sort((layer, jax.random.bits(key, flat.shape), flat), num_keys=2)[-1]
    parts = jnp.split(drawn, np.cumsum([flag.size for flag in flags])[:-1])
    shaped = [part.reshape(flag.shape) for part, flag in zip(parts, flags, strict=True)]
    return jax.tree.unflatten(tree, shaped)


def density(masks: Masks) -> Float[Array, ""]:
    """Share of the prunable weights that is left."""
    flags = jax.tree.leaves(masks)
    left, size = sum(flag.sum() for flag in flags), sum(flag.size for flag in flags)
    # A compiler may multiply by a rounded 1 / size, so that 1 is only almost reached.
    return jnp.where(left == size, 1.0, left / size).astype(jnp.float32)


def named_masks(masks: Masks) -> dict[str, Bool[Array | np.ndarray, "*shape"]]:
    """The mask of each layer by its name."""
    return {_name(path): mask for path, mask in jax.tree_util.tree_leaves_with_path(masks)}


def layer_names(masks: Masks) -> tuple[str, ...]:
    """Names of the layers that have a mask, as `blocks[0].first`."""
    return tuple(named_masks(masks))


def dense_matrices(model: Any, masks: Masks) -> tuple[str, ...]:
    """Names of the weight tensors (two or more dimensions) that have no mask, as of embeddings."""
    held = jax.tree.map(
        lambda mask, leaf: leaf if mask is None else None,
        masks, model, is_leaf=lambda node: node is None,
    )  # fmt: skip
    leaves = jax.tree_util.tree_leaves_with_path(held)
    return tuple(
        jax.tree_util.keystr(path).removeprefix(".") for path, leaf in leaves
        if getattr(leaf, "ndim", 0) > 1 and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )  # fmt: skip


def layer_densities(masks: Masks) -> dict[str, Float[Array, ""] | np.floating]:
    """Share of each layer's weights that is left."""
    return {name: mask.mean() for name, mask in named_masks(masks).items()}


def empty_layers(masks: Masks) -> tuple[str, ...]:
    """Names of layers that have no weight left, so that nothing passes them. Not inside `jit`."""
    return tuple(name for name, mask in named_masks(masks).items() if not mask.any())


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path).removesuffix(".weight").removeprefix(".")


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith((f"{part}.", f"{part}["))
