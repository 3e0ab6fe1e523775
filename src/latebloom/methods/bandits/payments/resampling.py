"""Which rows of a log are trained on: interventions on its class balance.

Each selection drops rows at random and tells by how much the logits of a model trained on the rest
must be moved, so that its probabilities are those of the full log (King and Zeng 2001, section 4.1).
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.methods.bandits.payments.model import Rows


class Selection(eqx.Module):
    """The rows to train on and the offset of the logits."""

    def __call__(self, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
        raise NotImplementedError(f"{type(self).__name__} is not callable")


class EveryRow(Selection):
    """All rows."""

    def __call__(self, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
        return rows, jnp.float32(0)


class NegativeShare(Selection):
    """Rows of the commoner class are dropped until negatives are a `share` of all."""

    share: float = 0.15

    def __call__(self, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
        negative, positive = classes(rows)
        odds = self.share / (1 - self.share)
        fewer_positives = negative.sum() / odds
        fewer_negatives = positive.sum() * odds
        rows, kept_negatives = thinned(rows, negative, fewer_negatives, key)
        rows, kept_positives = thinned(rows, positive, fewer_positives, key)
        return rows, jnp.log(kept_negatives / kept_positives)


class NegativeCount(Selection):
    """Negatives are dropped until `count` of them are left."""

    count: float = 1000.0

    def __call__(self, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
        rows, kept = thinned(rows, classes(rows)[0], jnp.asarray(self.count), key)
        return rows, jnp.log(kept)


class PickedSelection(Selection):
    """One of several selections, by its place, so that they share one compiled program."""

    selections: tuple[Selection, ...]
    place: Int[Array, ""] | int

    def __call__(self, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
        branches = [partial(_call, selection) for selection in self.selections]
        return jax.lax.switch(self.place, branches, rows, key)


def _call(selection: Selection, rows: Rows, key: PRNGKeyArray) -> tuple[Rows, Float[Array, ""]]:
    return selection(rows, key)


def classes(rows: Rows) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Rows that count and were declined, and those that were not."""
    there = rows.weight > 0
    return there & (rows.reward < 0.5), there & (rows.reward >= 0.5)


def thinned(
    rows: Rows, among: Bool[Array, " n"], count: Float[Array, ""], key: PRNGKeyArray
) -> tuple[Rows, Float[Array, ""]]:
    """`count` random rows of those in `among` (or all, if they are fewer), and the share kept."""
    lots = jnp.where(among, jax.random.uniform(key, among.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(lots))
    keep = ~among | (rank < jnp.round(count))
    share = (keep & among).sum() / jnp.maximum(among.sum(), 1)
    return rows._replace(weight=jnp.where(keep, rows.weight, 0.0)), share
