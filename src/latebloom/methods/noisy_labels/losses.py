"""Losses that resist wrong labels. All take logits and give one loss an example, as `optax.losses`.

targets = update_targets(targets, rows, logits, beta)     # first the average,
loss = elr_loss(logits, labels, targets[rows], strength)  # then the loss
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latebloom.losses import cross_entropy, pick

FLOOR = 1e-4  # probabilities are kept this far from 0 and 1
LOG_ZERO = -4.0  # what symmetric cross-entropy takes for log 0

Logits = Float[Array, "batch classes"]
Labels = Int[Array, " batch"]
PerExample = Float[Array, " batch"]


def clamped(logits: Logits) -> Float[Array, "batch classes"]:
    """Softmax kept within [1e-4, 1 - 1e-4], in single precision at least, where 1 - 1e-4 is not 1.

    No gradient flows through what is cut.
    """
    single = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return jnp.clip(jax.nn.softmax(single), FLOOR, 1 - FLOOR)


def predictions(logits: Logits) -> Float[Array, "batch classes"]:
    """Clamped probabilities that sum to 1 again, cut off from the gradient."""
    p = jax.lax.stop_gradient(clamped(logits))
    return p / p.sum(axis=-1, keepdims=True)


def moved(
    targets: Float[Array, "batch classes"], p: Float[Array, "batch classes"], beta: float | Array
) -> Float[Array, "batch classes"]:
    """beta t + (1 - beta) p, cut off from the gradient."""
    return jax.lax.stop_gradient(beta * targets + (1 - beta) * p)


def update_targets(
    targets: Float[Array, "n classes"], rows: Int[Array, " batch"], logits: Logits,
    beta: float | Array,
) -> Float[Array, "n classes"]:  # fmt: skip
    """Moves the running average of the batch's examples: t_i <- beta t_i + (1 - beta) p_i.

    `targets` has a row for every training example, 0 at the start; `rows` are those in the batch.

    Source: temporal ensembling (Laine & Aila 2017), as in Liu et al. 2020 (arXiv 2007.00151).
    """
    return targets.at[rows].set(moved(targets[rows], predictions(logits), beta))


def soft_cross_entropy(logits: Logits, labels: Float[Array, "batch classes"]) -> PerExample:
    """-sum_k y_k log p_k for labels that are distributions; where y_k is 0, p_k may be too."""
    there = labels > 0
    return -jnp.where(there, labels * jnp.where(there, jax.nn.log_softmax(logits), 0), 0).sum(-1)


def elr_term(logits: Logits, targets: Float[Array, "batch classes"]) -> PerExample:
    """log(1 - <p, t>), which is small where the prediction agrees with the target.

    It goes to log(1e-4) = -9.2 on examples of which network and target are sure, so that a total
    loss far below 0 is normal. No gradient flows through the targets.

    Source: Liu et al. 2020 (arXiv 2007.00151), Eq. 6.
    """
    agreement = (clamped(logits) * jax.lax.stop_gradient(targets)).sum(axis=-1)
    return jnp.log1p(-agreement)


def elr_loss(
    logits: Logits, labels: Labels, targets: Float[Array, "batch classes"], strength: float | Array
) -> PerExample:
    """Cross-entropy plus `strength` (the paper's lambda) times `elr_term`."""
    return cross_entropy(logits, labels) + strength * elr_term(logits, targets)


def elr_gradient(
    logits: Logits, labels: Labels, targets: Float[Array, "batch classes"], strength: float | Array
) -> Float[Array, "batch classes"]:
    """Gradient of `elr_loss` in the logits, where nothing is clamped.

    p - y + strength g, with g_c = p_c / (1 - <p, t>) sum_k (t_k - t_c) p_k: below 0 for the class
    that dominates in t, whatever the label says.

    Source: Liu et al. 2020 (arXiv 2007.00151), Lemma 2.
    """
    p = jax.nn.softmax(logits)
    agreement = (p * targets).sum(axis=-1, keepdims=True)
    g = p / (1 - agreement) * (agreement - targets)
    return p - jax.nn.one_hot(labels, p.shape[-1], dtype=p.dtype) + strength * g


def kl_loss(
    logits: Logits, labels: Labels, targets: Float[Array, "batch classes"], strength: float | Array
) -> PerExample:
    """Cross-entropy plus `strength` KL(t || p): the plain way to use targets, which memorises too.

    Source: Liu et al. 2020 (arXiv 2007.00151), appendix C.
    """
    t = jax.lax.stop_gradient(targets)
    entropy = -jax.scipy.special.xlogy(t, t).sum(axis=-1)
    return cross_entropy(logits, labels) + strength * (soft_cross_entropy(logits, t) - entropy)


def generalised_cross_entropy(logits: Logits, labels: Labels, q: float | Array) -> PerExample:
    """(1 - p_y^q) / q: cross-entropy as q goes to 0, mean absolute error at 1.

    Raises `ValueError` for a q that is not above 0.

    Source: Zhang & Sabuncu 2018 (arXiv 1805.07836), Eq. 6.
    """
    if isinstance(q, int | float) and not q > 0:
        raise ValueError(f"q must be above 0, not {q}: cross-entropy is the limit at 0")
    return -jnp.expm1(-q * cross_entropy(logits, labels)) / q


def symmetric_cross_entropy(
    logits: Logits, labels: Labels, a: float | Array, b: float | Array
) -> PerExample:
    """a CE + b RCE, where the reverse cross-entropy -sum_k p_k log y_k takes log 0 for -4.

    Source: Wang et al. 2019 (arXiv 1908.06112), Eq. 7.
    """
    reverse = -LOG_ZERO * (1 - pick(jax.nn.softmax(logits), labels))
    return a * cross_entropy(logits, labels) + b * reverse


def soft_bootstrap(logits: Logits, labels: Labels, beta: float | Array) -> PerExample:
    """-sum_k (beta y_k + (1 - beta) p_k) log p_k; the gradient flows through both p.

    Source: Reed et al. 2014 (arXiv 1412.6596), Eq. 6.
    """
    p = jax.nn.softmax(logits)
    return beta * cross_entropy(logits, labels) + (1 - beta) * soft_cross_entropy(logits, p)


def hard_bootstrap(logits: Logits, labels: Labels, beta: float | Array) -> PerExample:
    """-sum_k (beta y_k + (1 - beta) z_k) log p_k with z the class predicted at present.

    Source: Reed et al. 2014 (arXiv 1412.6596), Eq. 7.
    """
    predicted = logits.argmax(axis=-1)
    own = cross_entropy(logits, predicted)
    return beta * cross_entropy(logits, labels) + (1 - beta) * own


def forward_loss(
    logits: Logits, labels: Labels, transition: Float[Array, "classes classes"]
) -> PerExample:
    """-log (T^T p)_y: cross-entropy of what the noise would make of the prediction.

    T[i, j] is the probability that class i is labelled j.

    Source: Patrini et al. 2017 (arXiv 1609.03683), Theorem 2.
    """
    # In logarithms: a probability too small to write down still has a gradient.
    ways = jnp.log(jnp.maximum(transition, 1e-30)).T[labels]  # log T[:, y] of each example
    return -jax.nn.logsumexp(jax.nn.log_softmax(logits) + ways, axis=-1)


def estimate_transition(
    probabilities: Float[Array, "n classes"],
) -> Float[Array, "classes classes"]:
    """T from predictions of a network trained on the noisy labels, at its anchor points.

    Row i is the prediction at the example that is most surely of class i.

    Source: Patrini et al. 2017 (arXiv 1609.03683), Eq. 12 and 13.
    """
    anchors = probabilities[probabilities.argmax(axis=0)]
    return anchors / jnp.maximum(anchors.sum(axis=-1, keepdims=True), 1e-12)
