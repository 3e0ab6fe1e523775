"""Sequences in which the role of a word shows twice: in its place, and in which word it is.

The synthetic parts of speech of Anand, Lepori, Merullo and Pavlick (ICLR 2025, arXiv 2406.00053, section 3). Half
of the words are nouns, half adjectives. A sequence has a context of three, a query, and an answer of three that the
network sees masked:

    copula adjective noun | query | answer        or        noun copula adjective | query | answer

An adjective as the query is answered by itself three times; a noun by the adjective once and itself twice. Which
of two words is the adjective can be read from their places (in context) or remembered of each word (in weights).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

LENGTH, ANSWER = 7, 3  # tokens of a sequence, and how many at its end are to be told


class Sequences(NamedTuple):
    """`tokens` as a network sees them; the answer `in_context`, and the one `in_weights`, as words are mostly used."""

    tokens: Int[Array, "n 7"]
    in_context: Int[Array, "n 3"]
    in_weights: Int[Array, "n 3"]


class Roles(eqx.Module):
    """Nouns and adjectives, how often each comes, and which of them are used as either.

    Tokens: nouns from 0, the commonest first, adjectives from `words // 2`, the copula, the mask, then `novel` words
    that no training sequence holds. Among n words of a kind the r-th has a probability in proportion to r^-alpha; 0
    is uniform. `share` of the words in each band of frequency are ambiguous: whenever one is drawn, a toss of a
    coin replaces it by an ambiguous word of the other kind, drawn by the same law.

    (In the authors' code the commonest noun and adjective are never drawn: their Zipf law starts at 1, their
    list at 0. Here they are.)
    """

    ambiguous: Bool[Array, " words"]
    listed: Int[Array, "2 k"]  # the ambiguous nouns, and adjectives, the commonest first
    law: Float[Array, " half"]  # cumulative
    law_ambiguous: Float[Array, " k"]
    words: int = eqx.field(static=True)
    novel: int = eqx.field(static=True)

    def __init__(
        self, words: int, *, key: PRNGKeyArray, alpha: float | Float[Array, ""] = 1.0001, share: float = 0.1,
        novel: int | None = None, bands: int = 5,
    ):  # fmt: skip
        """Raises `ValueError` for an odd number of words, more bands than words of a kind, a share outside 0 to 1."""
        if words < 4 or words % 2:
            raise ValueError(f"words must be even and at least 4, half of them nouns, not {words}")
        half = words // 2
        if not 1 <= bands <= half:
            raise ValueError(f"bands must be from 1 to {half}, the words of a kind, not {bands}")
        if not 0 <= share <= 1:
            raise ValueError(f"share, of ambiguous words, must be from 0 to 1, not {share}")
        novel = max(words // 10, 2) if novel is None else novel
        if novel < 2:
            raise ValueError(f"novel must be at least 2 words, not {novel}")
        self.words, self.novel = words, novel
        # `round` first: 0.1 x 30 is a little more than 3.
        edges = [*(half // bands * np.arange(bands)), half]
        sizes = [int(np.ceil(round(n * share, 9))) for n in np.diff(edges)]
        chosen = [
            jnp.stack([
                first + jnp.sort(jax.random.permutation(k, int(n))[:size])
                for k in jax.random.split(jax.random.fold_in(key, band), 2)
            ])
            for band, (first, n, size) in enumerate(zip(edges, np.diff(edges), sizes, strict=False))
        ]  # fmt: skip
        ranks = jnp.concatenate(chosen, axis=1)
        self.listed = ranks + jnp.array([[0], [half]])
        self.ambiguous = jnp.zeros(words, bool).at[self.listed.reshape(-1)].set(True)
        self.law = _cumulative(half, alpha)
        self.law_ambiguous = _cumulative(max(sum(sizes), 1), alpha)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are in all."""
        return self.words + 2 + self.novel

    @property
    def novel_words(self) -> Int[Array, " novel"]:
        return self.words + 2 + jnp.arange(self.novel)

    def word(self, key: PRNGKeyArray, n: int, kind: int) -> Int[Array, " n"]:
        """`n` nouns (kind 0) or adjectives (kind 1) by the law, without ambiguity."""
        return kind * (self.words // 2) + _by(self.law, key, n)

    def used(self, key: PRNGKeyArray, n: int, kind: int) -> Int[Array, " n"]:
        """`n` words in the role of a kind, as they come in training: ambiguous ones may be of the other."""
        one, two, coin = jax.random.split(key, 3)
        word = self.word(one, n, kind)
        if not self.listed.shape[1]:
            return word
        other = self.listed[1 - kind][_by(self.law_ambiguous, two, n)]
        return jnp.where(self.ambiguous[word] & jax.random.bernoulli(coin, 0.5, (n,)), other, word)

    def unseen(self, key: PRNGKeyArray, n: int) -> Int[Array, " n"]:
        """`n` novel words."""
        return self.words + 2 + jax.random.randint(key, (n,), 0, self.novel)

    def sequences(
        self, key: PRNGKeyArray, adjective: Int[Array, " n"], noun: Int[Array, " n"]
    ) -> Sequences:
        """Sequences with these words in these roles, in four forms, each as often.

        In weights a word is a noun or an adjective by its token. Where both words are of one kind (ambiguous
        or novel ones can be), roles cannot be told by them, and the answer in weights is the one in context.
        """
        draw = jax.random.uniform(key, adjective.shape)
        early, of_adjective = draw < 0.5, (draw < 0.25) | (draw >= 0.75)
        copula, mask = (jnp.full_like(noun, self.words + i) for i in (0, 1))
        context = jnp.where(early[:, None], jnp.stack([copula, adjective, noun], 1),
                            jnp.stack([noun, copula, adjective], 1))  # fmt: skip
        query = jnp.where(of_adjective, adjective, noun)

        def answer(adjective: Array, noun: Array) -> Array:
            return jnp.stack([adjective, query, query], axis=1)

        half = self.words // 2
        swapped = (adjective < half) & (noun >= half) & (noun < self.words)
        tokens = jnp.concatenate([context, jnp.stack([query, mask, mask, mask], 1)], axis=1)
        return Sequences(
            tokens,
            answer(adjective, noun),
            jnp.where(swapped[:, None], answer(noun, adjective), answer(adjective, noun)),
        )

    def training(self, key: PRNGKeyArray, n: int) -> Sequences:
        """`n` sequences by the law of training."""
        words, form = jax.random.split(key)
        one, two = jax.random.split(words)
        return self.sequences(form, self.used(one, n, 1), self.used(two, n, 0))

    def novel_sequences(self, key: PRNGKeyArray, n: int) -> Sequences:
        """`n` sequences of two different novel words."""
        form, one, two = jax.random.split(key, 3)
        adjective = self.unseen(one, n)
        step = jax.random.randint(two, (n,), 1, self.novel)
        noun = self.words + 2 + (adjective - self.words - 2 + step) % self.novel
        return self.sequences(form, adjective, noun)

    def ranked(
        self, key: PRNGKeyArray, n: int, first: int, last: int, *, switched: bool, lawful: bool = False
    ) -> Sequences:  # fmt: skip
        """`n` sequences of words of ranks `first` to `last - 1`, in their own roles or `switched`: nouns as adjectives.

        Each word comes as often, or by the law of training (`lawful`). Ambiguous words are left out, unless all are:
        no answer in weights can be expected of them.

        Raises `ValueError` for ranks that no word has.
        """
        form, *keys = jax.random.split(key, 3)
        noun, adjective = (self._sure(k, n, i, first, last, lawful) for i, k in enumerate(keys))
        if switched:
            noun, adjective = adjective, noun
        return self.sequences(form, adjective, noun)

    def _sure(
        self, key: PRNGKeyArray, n: int, kind: int, first: int, last: int, lawful: bool
    ) -> Int[Array, " n"]:
        half = self.words // 2
        if not 0 <= first < last <= half:
            raise ValueError(f"ranks must be from 0 to {half}, not {first} to {last}")
        odds = jnp.diff(self.law, prepend=0.0) if lawful else jnp.ones(half)
        places = kind * half + jnp.arange(first, last)
        sure = jnp.where(self.ambiguous[places], 0.0, odds[first:last])
        sure = jnp.where(sure.sum() > 0, sure, odds[first:last])
        return places[_by(jnp.cumsum(sure) / sure.sum(), key, n)]


def _cumulative(n: int, alpha: float | Array) -> Float[Array, " n"]:
    weight = jnp.arange(1, n + 1, dtype=jnp.float32) ** -jnp.asarray(alpha, jnp.float32)
    return jnp.cumsum(weight) / weight.sum()


def _by(law: Float[Array, " m"], key: PRNGKeyArray, n: int) -> Int[Array, " n"]:
    """`n` places by a cumulative law."""
    drawn = jnp.searchsorted(law, jax.random.uniform(key, (n,)), side="right")
    return jnp.minimum(drawn, len(law) - 1).astype(jnp.int32)
