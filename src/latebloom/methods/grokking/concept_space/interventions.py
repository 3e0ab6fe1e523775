"""Ways to ask a conditional model for more than its plain prompt shows.

All but over-prompting act on the embeddings of the condition (a tuple of one array for each block),
so they apply to any model that is conditioned through embeddings.
Source: Park et al. (2024), section 4.3; latent arithmetic at the embedding after the condition's MLP.
"""

from __future__ import annotations

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Model = TypeVar("Model", bound=eqx.Module)

OVER_PROMPT_HALVES = (0.1, 0.15, 0.25, 0.35, 0.45)
"""The authors' over-prompts: blue = (0.5 - h, 0.5 - h, 0.5 + h), from (.4, .4, .6) to (.05, .05, .95)."""

LINEAR_SCALES = (0.5, 1.0, 2.0, 3.0, 4.0)
"""Multiples of the concept direction that the linear intervention adds."""


def concept_direction(with_concept: PyTree, without: PyTree) -> PyTree:
    """Difference of the embeddings of two prompts that differ in one concept."""
    return jax.tree.map(jnp.subtract, with_concept, without)


def steer(embeddings: PyTree, direction: PyTree, scale: float | Float[Array, ""]) -> PyTree:
    """Embeddings moved by `scale` times the direction, block by block (linear intervention)."""
    return jax.tree.map(lambda e, d: e + scale * d, embeddings, direction)


def placebo(key: PRNGKeyArray, direction: PyTree) -> PyTree:
    """A random direction, for every row of every array of the same norm as the one given."""
    leaves, structure = jax.tree.flatten(direction)
    keys = jax.random.split(key, len(leaves))

    def equal_norm(k: PRNGKeyArray, d: Float[Array, "n c"]) -> Float[Array, "n c"]:
        noise = jax.random.normal(k, d.shape)
        size = jnp.linalg.norm(d, axis=-1, keepdims=True)
        return noise * size / jnp.linalg.norm(noise, axis=-1, keepdims=True)

    return jax.tree.unflatten(structure, map(equal_norm, keys, leaves))


def patch_embedding(model: Model, donor: Model) -> Model:
    """`model` with the embedding module (`condition`) of a later checkpoint `donor`."""
    for name, one in (("model", model), ("donor", donor)):
        if not hasattr(one, "condition"):
            raise ValueError(f"{name} has no embedding module: it needs an attribute `condition`")
    shapes = [jax.tree.map(jnp.shape, one.condition) for one in (model, donor)]  # type: ignore[attr-defined]
    if shapes[0] != shapes[1]:
        raise ValueError("model and donor must be checkpoints of one architecture: shapes differ")
    return eqx.tree_at(lambda m: m.condition, model, donor.condition)  # type: ignore[attr-defined]
