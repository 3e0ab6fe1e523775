"""What holds a classifier back after it has fitted its training data.

Softmax collapse (probabilities that floating point rounds to exactly 0 and 1) and naive loss
minimisation (gradients that only scale the logits). Source: Prieto et al. 2025 (arXiv 2501.04697).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latebloom.losses import collapsed, cross_entropy, pick


def softmax_collapse(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    precision: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """How far a softmax of these logits has collapsed (Def. 3), in the given floating-point format.

    For a network that was trained with another loss see `stalled`.

    - `collapsed_fraction`: share of examples whose sum of shifted exponentials is exactly 1;
    - `zero_loss_fraction`: share of examples whose loss is exactly 0;
    - `largest_margin`: largest of (true logit - best other logit), in nats; collapse begins
      where it passes log(2) times the mantissa bits: about 7.6 in float16, 16.6 in float32,
      36.7 in float64.
    """
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    return {
        "collapsed_fraction": collapsed(logits, precision).mean(dtype=jnp.float32),
        "zero_loss_fraction": (cross_entropy(logits, labels, precision) == 0).mean(
            dtype=jnp.float32
        ),
        "largest_margin": (true - others.max(axis=-1)).max().astype(jnp.float32),
    }


def stalled(
    loss: Callable[[Array, Array], Float[Array, " batch"]],
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
) -> Float[Array, ""]:
    """Share of examples that are right and of which a loss has no gradient in their class's logit.

    Of `cross_entropy` these are those that have collapsed (Def. 3), of any other loss those that have
    met the same fate: of `stablemax_cross_entropy` none until its logits are larger by orders of
    magnitude.
    """
    found, slope = jax.vjp(lambda z: loss(z, labels), logits)
    (by_logit,) = slope(jnp.ones_like(found))
    right = logits.argmax(-1) == labels
    return (right & (pick(by_logit, labels) == 0)).mean(dtype=jnp.float32)


def tensor_names(params: Any) -> list[str]:
    """Names of the parameter tensors in tree order, as in `layers[0].weight`."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return [jax.tree_util.keystr(path).lstrip(".") for path, _ in paths]


def cosines(a: Any, b: Any) -> Float[Array, " tensors"]:
    """Cosine between two trees of tensors, tensor by tensor; 0 where one of them is zero."""

    def cosine(u: Array, v: Array) -> Array:
        # Gradients of a collapsed network are tiny: scale first, so that squares do not underflow.
        u, v = (x / jnp.maximum(jnp.abs(x).max(), jnp.finfo(x.dtype).tiny) for x in (u, v))
        norms = jnp.linalg.norm(u) * jnp.linalg.norm(v)
        return jnp.where(norms > 0, jnp.vdot(u, v) / jnp.where(norms > 0, norms, 1), 0)

    return jnp.stack(jax.tree.leaves(jax.tree.map(cosine, a, b)))


def logit_scaling(params: Any, gradients: Any) -> Float[Array, " tensors"]:
    """cos(w, -gradient) of each parameter tensor: near 1, descent only scales the logits.

    Such steps are naive loss minimisation (Def. 5): in a network that is homogeneous in its
    weights they lower the loss of correctly classified examples and change no prediction.
    """
    return -cosines(params, gradients)


def norms(params: Any) -> Float[Array, " tensors"]:
    """Euclidean norm of each parameter tensor."""
    return jnp.stack([jnp.linalg.norm(w) for w in jax.tree.leaves(params)])


def weight_norm(params: Any) -> Float[Array, ""]:
    """Euclidean norm of all parameters as one vector."""
    return jnp.linalg.norm(norms(params))
