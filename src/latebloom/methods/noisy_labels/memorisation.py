"""What a network says about examples whose labels are right, and about those whose labels are wrong."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.core.process import Quantity

FRACTIONS = {
    "clean_right": "examples with right labels, predicted right",
    "clean_other": "examples with right labels, predicted otherwise",
    "wrong_right": "examples with wrong labels, predicted as they truly are",
    "wrong_memorised": "examples with wrong labels, predicted as labelled",
    "wrong_other": "examples with wrong labels, predicted as neither",
}


def memorisation(
    logits: Float[Array, "n classes"], labels: Int[Array, " n"], true: Int[Array, " n"]
) -> dict[str, Float[Array, ""]]:
    """Shares of the clean and of the wrong subset by what is predicted (see `FRACTIONS`).

    Those of a subset sum to 1; NaN where it is empty.

    Source: Liu et al. 2020 (arXiv 2007.00151), Figures 1 and 2.
    """
    predicted, wrong = logits.argmax(axis=-1), labels != true
    right, memorised = predicted == true, predicted == labels

    def share(of: Array, subset: Array) -> Array:
        members = subset.sum()
        return jnp.where(members > 0, (of & subset).sum() / jnp.maximum(members, 1), jnp.nan)

    return {
        "clean_right": share(right, ~wrong),
        "clean_other": share(~right, ~wrong),
        "wrong_right": share(right, wrong),
        "wrong_memorised": share(memorised, wrong),
        "wrong_other": share(~right & ~memorised, wrong),
    }


def auroc(scores: Float[Array, " n"], positive: Bool[Array, " n"]) -> Float[Array, ""]:
    """Probability that a positive example scores higher than a negative one; ties count half.

    NaN where all are of one kind.
    """
    ordered = jnp.sort(scores)
    below, upto = (jnp.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    ranks = (below + upto + 1) / 2
    m = positive.sum().astype(jnp.float32)
    pairs = m * (len(scores) - m)
    above = jnp.where(positive, ranks, 0).sum() - m * (m + 1) / 2
    return jnp.where(pairs > 0, above / jnp.maximum(pairs, 1), jnp.nan)


def quantities() -> dict[str, Quantity]:
    """Units of what the probes record."""
    return {name: Quantity("1", about=about, gaps=True) for name, about in FRACTIONS.items()} | {
        "valid_accuracy": Quantity("1", about="accuracy on noisy validation labels"),
        "auroc_targets": Quantity("1", about="AUROC of wrong labels by target", gaps=True),
        "auroc_outputs": Quantity("1", about="AUROC of wrong labels by prediction", gaps=True),
    }
