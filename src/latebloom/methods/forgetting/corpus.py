"""A masked language model on sequences of one's own, examined on words that it never saw.

Some words are held out: no sequence that has one is trained on. Where such a word comes twice in a sequence, one
of the two is hidden and asked for; only the other tells it. Words that were trained on are asked for likewise.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.calling import call
from latebloom.core.process import Process, Quantity
from latebloom.core.training import gradients, step_key, trainable, update
from latebloom.data.sequences import pieces
from latebloom.methods.forgetting.embeddings import Forgetting, drawn, forgotten
from latebloom.optim.parts import trained

PAD, HIDDEN, OTHER, FIRST = 0, 1, 2, 3
HELD = 0.2  # at most about this share of the sequences is left out of training for the words that are held out
EXAM = 0.1  # this share of all others is for exams
EXAMS = ("novel", "novel/mended", "repeated", "once/common", "once/middle", "once/rare")
COMMON, MIDDLE = (
    0.05,
    0.25,
)  # words up to these shares of the vocabulary are common, and in the middle
SHARE = 0.15  # of the tokens of a sequence are hidden in training, as in BERT


class Corpus(eqx.Module):
    """Sequences of numbered words, and all questions that can be asked about them.

    - `tokens`: 0 is padding, 1 what is hidden, 2 any word that is not in the vocabulary, from 3 on the words, the
      most frequent first. `words` names those.
    - A question is a `row` and a `place` of `tokens`: its word is asked for. `repeated`: whether it comes again there.
    - `candidates`: words that may be held out; `held` of them are, anew for each seed.
    """

    tokens: Int[Array, "n length"]
    row: Int[Array, " questions"]
    place: Int[Array, " questions"]
    repeated: Bool[Array, " questions"]
    candidates: Int[Array, " k"]
    held: int = eqx.field(static=True)
    words: tuple[Hashable, ...] = eqx.field(static=True)
    counts: tuple[int, ...] = eqx.field(static=True)
    left_out: float = eqx.field(static=True)  # share of tokens that are no word of the vocabulary

    @property
    def vocabulary(self) -> int:
        return FIRST + len(self.words)

    @staticmethod
    def of(
        sequences: Sequence[Sequence[Hashable]], *, words: int = 2000, length: int = 32
    ) -> Corpus:
        """Sequences are cut into pieces of `length`, of which each is taken once; the `words` most frequent tokens in
        them are the vocabulary.

        A word may be held out if it comes twice in some piece and is not common.

        Raises `ValueError` for settings out of range, and sequences in which too few words come twice.
        """
        for name, value, least in (("words", words, 20), ("length", length, 4)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {value}")
        length = min(length, max(map(len, sequences), default=0))
        cut = [*dict.fromkeys(map(tuple, pieces(sequences, length)))]
        if len(cut) < 100:
            raise ValueError(f"there are {len(cut)} different sequences of up to {length} tokens, and at least 100 are wanted")  # fmt: skip
        ranked = Counter(token for piece in cut for token in piece).most_common(words)
        number = {word: FIRST + i for i, (word, _) in enumerate(ranked)}
        tokens = np.zeros((len(cut), length), np.int32)
        for row, piece in zip(tokens, cut, strict=True):
            row[: len(piece)] = [number.get(token, OTHER) for token in piece]
        tokens = tokens[
            np.sort(np.unique(tokens, axis=0, return_index=True)[1])
        ]  # alike but for other words
        row, place = np.nonzero(tokens >= FIRST)
        word = tokens[row, place]
        same = (tokens[row] == word[:, None]).sum(axis=1)
        twice = np.unique(word[same > 1])
        twice = twice[twice >= FIRST + COMMON * len(ranked)]
        sequences_of = np.bincount(np.unique(np.stack([row, word]), axis=1)[1], minlength=FIRST + len(ranked))  # fmt: skip
        fit = int(HELD * len(cut) / max(sequences_of[twice].mean(), 1)) if len(twice) else 0
        held = min(len(twice) // 2, fit)
        if held < 5:
            raise ValueError(
                f"{len(twice)} words beyond the commonest come twice in a sequence, and {held} of them can be held out; at least 5 "
                "are wanted: give more or longer sequences, or a larger length"
            )
        total = sum(map(len, cut))
        return Corpus(
            *map(jnp.asarray, (tokens, row.astype(np.int32), place.astype(np.int32), same > 1, twice)), held=held,
            words=tuple(word for word, _ in ranked), counts=tuple(n for _, n in ranked),
            left_out=1 - sum(n for _, n in ranked) / total,
        )  # fmt: skip


class Questions(NamedTuple):
    """Sequences with one place hidden; what does not `count` is there to fill up."""

    tokens: Int[Array, "*exam length"]
    place: Int[Array, " *exam"]
    answer: Int[Array, " *exam"]
    choices: Int[Array, "*exam length"]  # the words of the sequence, with the hidden one
    counts: Bool[Array, " *exam"]


class State(NamedTuple):
    model: Any
    moments: Any
    held: Bool[Array, " vocabulary"]
    law: Float[Array, " n"]  # cumulative: from which sequences batches are drawn
    questions: Questions
    first: Float[Array, "vocabulary size"]  # embeddings of words that are held out, in exams
    key: PRNGKeyArray
    step: Int[Array, ""]


class CorpusLearner(Process):
    """A masked language model on a `Corpus`; one step is one update on `batch` sequences, SHARE of their tokens hidden.

    - `network(vocabulary, positions, key)`: any Equinox module from tokens [positions] to logits [positions,
      vocabulary], or from a batch of such to a batch (`core.calling.how_to_call`); one with `at`, as `nn.MaskedLM`, is
      asked for those places alone. Its output should be tied to its embeddings: otherwise a word that is held out can never
      be told. The one vector [vocabulary] that it has, a bias of its output, is mended in exams.
    - `embedding(model)`: the matrix [vocabulary, size] of its embeddings; None: what `embeddings_at` finds.
    - `optimiser(**hyper)`, and `how` embeddings are forgotten, or None.
    - `exam`: at most so many questions of each kind.

    Observed for each exam: the share that is `right`, and that of `chosen` if only the words of the sequence may be
    told; `guess`, a pick among them. Embeddings are forgotten before the update that follows, so that no exam looks at new ones. "novel": words that are held out, with embeddings as they were at first;
    "novel/mended": these have the length and bias that trained words have on average; "repeated": words like them
    that were trained on; "once/...": words that come once, by how frequent they are.
    """

    corpus: Corpus
    network: Callable[[int, int, PRNGKeyArray], Any]
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    how: Forgetting | None = eqx.field(static=True)
    embedding: Callable[[Any], Any] | None = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    exam: int = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, corpus: Corpus, *, network: Callable[[int, int, PRNGKeyArray], Any],
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any], how: Forgetting | None = None,
        batch: int = 32, exam: int = 500, embedding: Callable[[Any], Any] | None = None, seeds_by: Literal["vmap", "map"] = "map",
    ):  # fmt: skip
        for name, value in {"batch": batch, "exam": exam}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if how is not None:
            how.check()
        self.corpus, self.network, self.optimiser = corpus, network, optimiser
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.how, self.batch, self.exam, self.seeds_by = how, batch, exam, seeds_by
        self.embedding = embedding

    def where(self, model: Any) -> Callable[[Any], Any]:
        """Where a network has its embeddings."""
        return (
            embeddings_at(model, self.corpus.vocabulary)
            if self.embedding is None
            else self.embedding
        )

    def rule(self, model: Any) -> optax.GradientTransformation:
        rule = self.optimiser(**self.hyper)
        return rule if self.how is None else trained(rule, self.where(model), others=rule)

    def init(self, key: PRNGKeyArray) -> State:
        held_key, exam_key, model_key, new_key, key = jax.random.split(key, 5)
        corpus, size = self.corpus, self.corpus.vocabulary
        chosen = jax.random.permutation(held_key, corpus.candidates)[: corpus.held]
        held = jnp.zeros(size, bool).at[chosen].set(True)
        with_held = held[corpus.tokens].any(axis=1)
        apart_key, *keys = jax.random.split(exam_key, 6)
        apart = ~with_held & (jax.random.uniform(apart_key, with_held.shape) < EXAM)
        weight = (~with_held & ~apart).astype(jnp.float32)
        model = self.network(size, corpus.tokens.shape[1], model_key)
        first = self.where(model)(model)
        if getattr(first, "ndim", 0) != 2 or len(first) != size:
            told = (
                list(getattr(first, "shape", [])) if eqx.is_array(first) else type(first).__name__
            )
            raise ValueError(f"the network's embedding must be [{size}, size], a row for each word, not {told}")  # fmt: skip
        if self.how is not None:
            first = drawn(new_key, first, self.how.spread)
        word = corpus.tokens[corpus.row, corpus.place]
        like = (
            jnp.zeros(size, bool).at[corpus.candidates].set(True)
        )  # as frequent as those that are held out
        rank, known = (word - FIRST) / len(corpus.words), apart[corpus.row]
        once = known & ~corpus.repeated
        asked = (held[word] & corpus.repeated, known & corpus.repeated & like[word], once & (rank < COMMON),
                 once & (rank >= COMMON) & (rank < MIDDLE), once & (rank >= MIDDLE))  # fmt: skip
        exams = [self._drawn(k, which) for k, which in zip(keys, asked, strict=True)]
        questions = jax.tree.map(lambda *x: jnp.stack(x), *exams)
        return State(
            model, self.rule(model).init(trainable(model)), held, jnp.cumsum(weight) / weight.sum(), questions, first, key, jnp.int32(0)
        )  # fmt: skip

    def _drawn(self, key: PRNGKeyArray, which: Bool[Array, " questions"]) -> Questions:
        """`exam` of these questions, each at most once."""
        corpus, n = self.corpus, min(self.exam, len(which))
        order = jnp.argsort(jnp.where(which, jax.random.uniform(key, which.shape), 2.0))[:n]
        row, place = corpus.row[order], corpus.place[order]
        whole = corpus.tokens[row]
        asked = whole.at[jnp.arange(n), place].set(HIDDEN)
        return Questions(asked, place, whole[jnp.arange(n), place], whole, which[order])

    def step(self, state: State) -> State:
        key = step_key(state.key, state.step)
        draw, hide, dropout = jax.random.split(key, 3)
        drawn_rows = jnp.searchsorted(
            state.law, jax.random.uniform(draw, (self.batch,)), side="right"
        )
        tokens = self.corpus.tokens[jnp.minimum(drawn_rows, len(state.law) - 1)]
        asked, places, answers, real = hidden(tokens, hide)
        model, moments, rule = state.model, state.moments, self.rule(state.model)
        if self.how is not None:  # after an update and its exams, before the next update
            model, moments = self._forgotten(rule, state, self.how)

        def objective(model: Any) -> Array:
            logits = logits_at(model, asked, places, dropout, True).astype(jnp.float32)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
            return (each * real).sum() / jnp.maximum(real.sum(), 1)

        slopes, seen = gradients(objective, model)
        model, moments = update(rule, slopes, moments, model, seen)
        return state._replace(model=model, moments=moments, step=state.step + 1)

    def _forgotten(self, rule: Any, state: State, how: Forgetting) -> tuple[Any, Any]:
        """Model and moments, with embeddings drawn anew where it is time."""
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0xF0), state.step)
        arrays, rest = eqx.partition((state.model, state.moments), eqx.is_array)

        def new(arrays: Any) -> Any:
            model, moments = eqx.combine(arrays, rest)
            return eqx.filter(
                forgotten(rule, model, moments, self.where(model), how, key), eqx.is_array
            )

        return eqx.combine(jax.lax.cond(how.now(state.step), new, lambda same: same, arrays), rest)

    def observe(self, state: State) -> dict[str, Array]:
        novel, *known = (
            jax.tree.map(lambda x, i=i: x[i], state.questions) for i in range(len(EXAMS) - 1)
        )
        plain, mended = self.with_novel(state, False), self.with_novel(state, True)
        asked = [(plain, novel), (mended, novel), *((state.model, each) for each in known)]
        found = [_judged(model, questions) for model, questions in asked]
        trained = ~state.held & (jnp.arange(len(state.held)) >= FIRST)
        return {
            **{name: jnp.stack([one[name] for one in found]) for name in found[0]},
            "ratio": self._ratio(state),
            "length": jnp.mean(
                _lengths(self.where(state.model)(state.model)), where=trained[:, None]
            ),
        }

    def _ratio(self, state: State) -> Float[Array, " exams"]:
        """Of each exam: sequences that it may draw from, for each that is trained on."""
        trained = (jnp.diff(state.law, prepend=0.0) > 0).sum()
        with_held = state.held[self.corpus.tokens].any(axis=1).sum()
        apart = len(self.corpus.tokens) - with_held - trained
        return jnp.array([with_held] * 2 + [apart] * (len(EXAMS) - 2)) / trained

    def with_novel(self, state: State, mended: bool) -> Any:
        """The model with embeddings of words that are held out as they were at first, or mended."""
        where, held = self.where(state.model), state.held[:, None]
        embedding = where(state.model)
        words = jnp.arange(len(state.held)) >= FIRST
        trained, rows = words[:, None] & ~held, state.first
        model = state.model
        if mended:
            mean = jnp.mean(_lengths(embedding), where=trained)
            rows = rows * (mean / _lengths(rows)).astype(rows.dtype)
            if (at := bias_at(model, len(state.held))) is not None:
                usual = jnp.mean(at(model), where=trained[:, 0])
                model = eqx.tree_at(at, model, jnp.where(state.held, usual, at(model)))
        return eqx.tree_at(where, model, jnp.where(held, rows, embedding))

    def quantities(self) -> dict[str, Quantity]:
        exams = {"dims": ("exam",), "coords": {"exam": EXAMS}}
        return {
            "right": Quantity(about="share of hidden words told, of all words", gaps=True, **exams),  # pyright: ignore
            "chosen": Quantity(about="the same, of the words of the sequence", gaps=True, **exams),  # pyright: ignore
            "guess": Quantity(about="share that a pick among the words of the sequence tells", gaps=True, **exams),  # pyright: ignore
            "questions": Quantity(about="questions asked", **exams),  # pyright: ignore
            "ratio": Quantity(about="sequences examined / trained on", **exams),  # pyright: ignore
            "length": Quantity(about="mean length of trained embeddings"),
        }  # fmt: skip


def hidden(
    tokens: Int[Array, "batch length"], key: PRNGKeyArray
) -> tuple[
    Int[Array, "batch length"],
    Int[Array, "batch k"],
    Int[Array, "batch k"],
    Float[Array, "batch k"],
]:
    """Sequences with SHARE of the words of each hidden, one at least: as they are asked, places, answers, and which of
    these count. Padding and what is not in the vocabulary is never hidden.
    """
    words = tokens >= FIRST
    luck = jnp.where(words, jax.random.uniform(key, tokens.shape), -1.0)
    _, places = jax.lax.top_k(luck, max(1, round(SHARE * tokens.shape[1])))
    which, rank = jnp.arange(len(tokens))[:, None], jnp.arange(places.shape[1])
    wanted = jnp.maximum(1, jnp.round(SHARE * words.sum(axis=1)))
    answers = tokens[which, places]
    counts = (rank < wanted[:, None]) & (answers >= FIRST)
    asked = tokens.at[which, places].set(jnp.where(counts, HIDDEN, answers))
    return asked, places, answers, counts.astype(jnp.float32)


def _judged(model: Any, of: Questions) -> dict[str, Array]:
    """Shares of the questions that count; NaN where none does."""
    logits = logits_at(model, of.tokens, of.place[:, None])[:, 0].astype(jnp.float32)
    offered = jnp.zeros(logits.shape, bool).at[jnp.arange(len(logits))[:, None], of.choices].set(True)  # fmt: skip
    words = jnp.arange(logits.shape[1]) >= FIRST
    offered &= words

    def share(values: Array) -> Array:
        return jnp.mean(values, where=of.counts, dtype=jnp.float32)

    return {
        "right": share(jnp.where(words, logits, -jnp.inf).argmax(axis=1) == of.answer),
        "chosen": share(jnp.where(offered, logits, -jnp.inf).argmax(axis=1) == of.answer),
        "guess": share(1 / jnp.maximum(offered.sum(axis=1), 1)),
        "questions": of.counts.sum(),
    }


def _lengths(rows: Float[Array, "n size"]) -> Float[Array, "n 1"]:
    return jnp.sqrt(jnp.square(rows.astype(jnp.float32)).sum(axis=1, keepdims=True))


def logits_at(
    model: Any, tokens: Int[Array, "batch length"], places: Int[Array, "batch k"], key: Any = None, train: bool = False
) -> Float[Array, "batch k vocabulary"]:  # fmt: skip
    """The logits of any network at some places of each sequence.

    Raises `ValueError` for a network that does not make logits of each place of a sequence.
    """
    if "at" in inspect.signature(model).parameters:
        return model(tokens, key=key, train=train, at=places)
    logits = call(model, tokens, key, train)
    if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise ValueError(
            f"the network must make logits [length, vocabulary] of tokens [length], but of a batch {list(tokens.shape)} it "
            f"makes {list(logits.shape)}"
        )
    return jnp.take_along_axis(logits, places[..., None], axis=1)


def embeddings_at(model: Any, words: int) -> Callable[[Any], Float[Array, "words size"]]:
    """Where a network has its embeddings, as `equinox.tree_at` takes it.

    They are its attribute `embedding` if that is a matrix, else the one `equinox.nn.Embedding` with a row for each
    word, else the one matrix that has as many. What `equinox.nn.Shared` ties to it goes with it.

    Raises `ValueError` where that leaves none or several.
    """

    def rows(x: Any) -> bool:
        return eqx.is_inexact_array(x) and x.ndim == 2 and len(x) == words

    if rows(getattr(model, "embedding", None)):
        return lambda m: m.embedding
    leaves = jax.tree_util.tree_leaves_with_path(model)
    layers = jax.tree_util.tree_leaves_with_path(model, is_leaf=_is_embedding)
    within = [path for path, node in layers if _is_embedding(node)]
    matrices = [path for path, leaf in leaves if rows(leaf)]
    found = [path for path in matrices if path[:-1] in within]
    if len(found := found if found else matrices) != 1:
        raise ValueError(
            f"the network has {len(found)} matrices with a row for each of {words} tokens, and one is wanted: say which its "
            "embeddings are, as in embedding=lambda m: m.tokens.weight"
        )
    return partial(_along, found[0])


def _along(path: tuple[Any, ...], tree: Any) -> Any:
    """What is at a path of `jax.tree_util` in a tree of the same structure."""
    for step in path:
        tree = (
            getattr(tree, step.name)
            if hasattr(step, "name")
            else tree[getattr(step, "idx", getattr(step, "key", None))]
        )
    return tree


def bias_at(model: Any, words: int) -> Callable[[Any], Float[Array, " words"]] | None:
    """Where a network has its output's bias: its attribute `bias` if that is a vector with a number for each word, else the one
    such vector; None if there is none, or several."""

    def fits(x: Any) -> bool:
        return eqx.is_inexact_array(x) and x.shape == (words,)

    if fits(getattr(model, "bias", None)):
        return lambda m: m.bias
    found = [path for path, x in jax.tree_util.tree_leaves_with_path(model) if fits(x)]
    return partial(_along, found[0]) if len(found) == 1 else None


def _is_embedding(node: Any) -> bool:
    return isinstance(node, eqx.nn.Embedding)
