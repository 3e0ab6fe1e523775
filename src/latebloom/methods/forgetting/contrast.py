"""Contrastive losses of online continual learning: between class prototypes, and between turned images.

Examples that are not `there` count in nothing. All is computed in single precision at least.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.methods.forgetting.method import wide
from latebloom.methods.forgetting.replay import unit

EPS = 1e-8  # of the probabilities in `instance_contrast`


class Prototypes(NamedTuple):
    """Mean unit features of each class, of two views; `present`: classes that have any example."""

    one: Float[Array, "classes d"]
    other: Float[Array, "classes d"]
    present: Bool[Array, " classes"]

    @property
    def both(self) -> Float[Array, "classes d"]:
        """The mean of both views; 0 for classes without an example."""
        return (self.one + self.other) / 2


def prototypes(
    z: Float[Array, "n d"], other: Float[Array, "n d"], labels: Int[Array, " n"],
    there: Bool[Array, " n"], classes: int,
) -> Prototypes:  # fmt: skip
    """Means by class of the features of two views, each brought to length 1 (OnPro, Eq. 1)."""
    belongs = (labels[:, None] == jnp.arange(classes)) & there[:, None]
    count = belongs.sum(axis=0)
    share = (belongs / jnp.maximum(count, 1)).T
    # What is not there may be anything: it must not get in by 0 * NaN.
    one, two = (jnp.where(there[:, None], unit(wide(v)), 0) for v in (z, other))
    return Prototypes(share @ one, share @ two, count > 0)


def prototype_contrast(found: Prototypes, temperature: Float[Array, ""] | float = 0.5) -> Float[Array, ""]:  # fmt: skip
    """InfoNCE between the prototypes of two views: those of a class attract, all others repel; 0 without any.

    Both are brought to length 1; the mean is over those of both views, and an anchor is not its own negative.

    Source: Wei et al. 2023 (arXiv 2308.00301), Eqs. 2 to 4.
    """
    p = unit(jnp.concatenate([found.one, found.other]))
    here = jnp.concatenate([found.present, found.present])
    n = len(found.present)
    logits = p @ p.T / temperature
    among = here[None] & ~jnp.eye(2 * n, dtype=bool)
    logits = jnp.where(among, logits, -jnp.inf)
    partner = jnp.roll(jnp.arange(2 * n), n)
    positive = jnp.where(here, p @ p.T / temperature, 0)[jnp.arange(2 * n), partner]
    # A row without anybody would be all -inf, and its gradient NaN.
    norm = jax.nn.logsumexp(jnp.where(among.any(axis=1)[:, None], logits, 0.0), axis=1)
    return jnp.where(here, norm - positive, 0).sum() / jnp.maximum(here.sum(), 1)


def similarity(
    z: Float[Array, "n p"], features: Float[Array, "n d"], start: Int[Array, ""], scale: Float[Array, ""] | float
) -> Float[Array, "n n"]:  # fmt: skip
    """scale (z h_w^T + z z^T), rows of both of length 1: h_w is a window of the features, as wide as z.

    Source: code of OCM (Guo et al. 2022, ICML), where the window starts anywhere.

    Raises `ValueError` where there are fewer features than z has.
    """
    if features.shape[1] < z.shape[1]:
        raise ValueError(
            f"the projection has {z.shape[1]} dimensions, but there are {features.shape[1]} features: "
            "a window of them must be as wide"
        )
    z, features = unit(wide(z)), unit(wide(features))
    window = jax.lax.dynamic_slice_in_dim(features, start, z.shape[1], axis=1)
    return scale * (z @ window.T + z @ z.T)


def instance_contrast(
    similarities: Float[Array, "2*n 2*n"], labels: Float[Array, " n"], there: Bool[Array, " n"],
    temperature: Float[Array, ""] | float = 0.07, *, pairs: bool,
) -> Float[Array, ""]:  # fmt: skip
    """OCM's loss of the similarities of n images and then their n other views; the same labels attract.

    - `labels`: pseudo-labels; of mixed images, mixtures of labels.
    - `pairs`: as for new examples: an image is no negative of its own, and the other view of it attracts,
      in addition to twice the mean over the same label; else as for replayed ones: once that mean, and
      an image is among its own negatives and positives.

    The released code also takes the masked diagonal into the mean of the labels, a constant of 2 log(1 / EPS)
    by the number of same labels; here it counts in the number alone.

    Source: Guo et al. 2022 (ICML, "Online Continual Learning through Mutual Information Maximization") and
    its code.
    """
    both, here = jnp.concatenate([labels, labels]), jnp.concatenate([there, there])
    n = len(labels)
    itself = jnp.eye(2 * n, dtype=bool)
    s = jnp.where(here[:, None] & here[None], similarities, -jnp.inf)
    s = jnp.where(here[:, None], s, 0.0)
    s = s - jax.lax.stop_gradient(s.max(axis=1, keepdims=True))
    among = here[None] & ~itself if pairs else jnp.broadcast_to(here[None], s.shape)
    e = jnp.where(among, jnp.exp(jnp.where(among, s, 0) / temperature), 0)
    surprise = -jnp.log(e / (e.sum(axis=1, keepdims=True) + EPS) + EPS)
    same = (both[:, None] == both[None]) & here[None]
    of = jnp.where(same & among, surprise, 0).sum(axis=1) / jnp.maximum(same.sum(axis=1), 1)
    if pairs:
        of = 2 * of + surprise[jnp.arange(2 * n), jnp.roll(jnp.arange(2 * n), n)]
    return jnp.where(here, of, 0).sum() / jnp.maximum(here.sum(), 1)


def anchored_contrast(
    z: Float[Array, "n d"], anchors: Float[Array, "n d"], labels: Float[Array, " n"],
    there: Bool[Array, " n"], temperature: Float[Array, ""] | float = 0.07,
) -> Float[Array, ""]:  # fmt: skip
    """The mean over the same label of -log p, p the softmax of the similarity with another network's features.

    Source: the distillation of OCM's code.
    """
    s = unit(wide(z)) @ unit(wide(anchors)).T
    s = s - jax.lax.stop_gradient(s.max(axis=1, keepdims=True))
    e = jnp.where(there[None], jnp.exp(s / temperature), 0)
    surprise = -jnp.log(e / (e.sum(axis=1, keepdims=True) + EPS) + EPS)
    same = (labels[:, None] == labels[None]) & there[None]
    of = jnp.where(same, surprise, 0).sum(axis=1) / jnp.maximum(same.sum(axis=1), 1)
    return jnp.where(there, of, 0).sum() / jnp.maximum(there.sum(), 1)
