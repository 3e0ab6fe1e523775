"""Taggers that go from left to right with a linear score of each tag: an averaged perceptron
(Collins 2002) and a maximum-entropy Markov model on scikit-learn's logistic regression by SGD."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import sparse
from sklearn.linear_model import SGDClassifier

from latebloom.methods.learning_curves.lexicon import Lexicon, Sentences

BLOCK = 1024  # tokens that one call of a compiled program takes
_MIX = 2654435761  # Knuth's multiplicative hash


def _hashed(slot: int, values: np.ndarray, rows: int) -> np.ndarray:
    mixed = ((values.astype(np.uint64) + np.uint64(slot << 40)) * np.uint64(_MIX)) >> np.uint64(7)
    return ((mixed ^ (mixed >> np.uint64(21))) % np.uint64(rows)).astype(np.int32)


def word_rows(lexicon: Lexicon, text: Sentences, rows: int) -> np.ndarray:
    """Rows of the weights that the words of and around each token stand for, int32 [n, 10]."""
    size = lexicon.shapes.size
    endings = np.concatenate([lexicon.endings, np.zeros((len(lexicon.endings), 1), np.int32)], 1)
    word = text.tokens
    before, after = (text.shifted(word, by, size) for by in (1, -1))
    slots = (
        word, endings[3][word], endings[2][word], endings[1][word], lexicon.starts[word],
        lexicon.shapes[word], before, after, endings[3][after], endings[3][before],
    )  # fmt: skip
    return np.stack([_hashed(slot, values, rows) for slot, values in enumerate(slots)], axis=1)


def tag_rows(last: Any, second: Any, word_row: Any, tags: int, rows: int) -> tuple[Any, Any, Any]:
    """Rows that the last tag, the last two, and the last one with the word stand for: three arrays, of
    NumPy or JAX as those given.

    A tag equal to `tags` stands for the outside of the sentence.
    """
    return (
        (last * 613 + 7) % rows,
        ((last * (tags + 1) + second) * 31 + 40_503) % rows,
        (word_row + last * 48_611) % rows,
    )


class AveragedPerceptron:
    """One pass over the tokens; tags by the average of the weights over all of them.

    While learning, the tags to the left are the ones that it gave itself.
    """

    def __init__(self, lexicon: Lexicon, tags: int, rows: int = 1 << 16):
        self.lexicon, self.tags, self.rows = lexicon, tags, rows
        self.weights = jnp.zeros((rows, tags), jnp.float32)
        self.late = jnp.zeros((rows, tags), jnp.float32)  # sum of updates, each times its time
        self.time = jnp.float32(1)

    def learn(self, part: Sentences) -> None:
        rows = word_rows(self.lexicon, part, self.rows)
        state = (self.weights, self.late, self.time)
        left = (jnp.int32(self.tags), jnp.int32(self.tags))
        for block in _blocks(rows, part.tags, part.first):
            state, left = _perceptron(state, left, *block)
        self.weights, self.late, self.time = state

    def tag(self, text: Sentences) -> np.ndarray:
        average = self.weights - self.late / self.time
        bias = jnp.zeros(self.tags, jnp.float32)
        return _greedy(average, bias, word_rows(self.lexicon, text, self.rows), text.first)


class MaximumEntropyMarkov:
    """One pass of scikit-learn's `SGDClassifier` with logistic loss, one tag against the rest.

    While learning, the tags to the left are the true ones.
    """

    def __init__(self, lexicon: Lexicon, tags: int, rows: int = 1 << 16, rate: float = 0.2):
        self.lexicon, self.tags, self.rows = lexicon, tags, rows
        self.model = SGDClassifier(
            loss="log_loss", alpha=1e-8, learning_rate="constant", eta0=rate, shuffle=False,
            random_state=0, n_jobs=2,
        )  # fmt: skip

    def learn(self, part: Sentences) -> None:
        rows = word_rows(self.lexicon, part, self.rows)
        last, second = (part.shifted(part.tags, by, self.tags) for by in (1, 2))
        context = tag_rows(last, second, rows[:, 0], self.tags, self.rows)
        columns = np.column_stack([rows, *context])
        n, slots = columns.shape
        table = sparse.csr_matrix(
            (np.ones(n * slots), columns.ravel(), np.arange(0, n * slots + 1, slots)),
            shape=(n, self.rows),
        )
        self.model.partial_fit(table, part.tags, classes=np.arange(self.tags))

    def tag(self, text: Sentences) -> np.ndarray:
        weights = jnp.asarray(np.asarray(self.model.coef_).T, jnp.float32)
        bias = jnp.asarray(self.model.intercept_, jnp.float32)
        return _greedy(weights, bias, word_rows(self.lexicon, text, self.rows), text.first)


def _blocks(*columns: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The tokens in blocks of one size, with a last column that is false where there is none."""
    n = len(columns[0])
    real = np.ones(n, bool)
    spare = -n % BLOCK
    padded = [np.pad(c, [(0, spare), *[(0, 0)] * (c.ndim - 1)]) for c in (*columns, real)]
    return [tuple(c[i : i + BLOCK] for c in padded) for i in range(0, n + spare, BLOCK)]


@partial(jax.jit, donate_argnums=0)
def _perceptron(
    state: tuple[Array, Array, Array], left: tuple[Array, Array], words: Int[Array, "n slots"],
    truth: Int[Array, " n"], first: Bool[Array, " n"], real: Bool[Array, " n"],
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:  # fmt: skip
    size, tags = state[0].shape

    def step(carry: tuple, token: tuple) -> tuple[tuple, None]:
        (weights, late, time), (last, second) = carry
        words, truth, first, real = token
        last, second = jnp.where(first, tags, last), jnp.where(first, tags, second)
        rows = jnp.concatenate([words, jnp.stack(tag_rows(last, second, words[0], tags, size))])
        said = weights[rows].sum(0).argmax().astype(jnp.int32)
        change = jnp.where(real & (said != truth), 1.0, 0.0)
        both = jnp.concatenate([rows, rows])
        columns = jnp.repeat(jnp.stack([truth, said]), len(rows))
        changes = jnp.repeat(jnp.stack([change, -change]), len(rows))
        weights = weights.at[both, columns].add(changes)
        late = late.at[both, columns].add(changes * time)
        return ((weights, late, time + real), (said, last)), None

    (state, left), _ = jax.lax.scan(step, (state, left), (words, truth, first, real))
    return state, left


def _greedy(
    weights: Array, bias: Array, words: np.ndarray, first: np.ndarray
) -> Int[np.ndarray, " n"]:
    """The best tag of each token given the ones chosen to its left, int32 [n]."""
    tags = weights.shape[1]
    left, found = (jnp.int32(tags), jnp.int32(tags)), []
    for words_block, first_block, _ in _blocks(words, first):
        left, said = _greedy_block(weights, bias, left, words_block, first_block)
        found.append(np.asarray(said))
    return np.concatenate(found)[: len(words)]


@jax.jit
def _greedy_block(
    weights: Float[Array, "rows tags"], bias: Float[Array, " tags"], left: tuple[Array, Array],
    words: Int[Array, "n slots"], first: Bool[Array, " n"],
) -> tuple[tuple[Array, Array], Int[Array, " n"]]:  # fmt: skip
    size, tags = weights.shape

    def step(carry: tuple, token: tuple) -> tuple[tuple, Array]:
        (last, second), (words, first) = carry, token
        last, second = jnp.where(first, tags, last), jnp.where(first, tags, second)
        rows = jnp.concatenate([words, jnp.stack(tag_rows(last, second, words[0], tags, size))])
        said = (weights[rows].sum(0) + bias).argmax().astype(jnp.int32)
        return (said, last), said

    return jax.lax.scan(step, left, (words, first))
