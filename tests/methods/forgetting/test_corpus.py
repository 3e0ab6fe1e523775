"""Which words are held out of a corpus, what is asked about them, and how it is taken."""

from collections import Counter
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom import unfold
from latebloom.methods.forgetting.corpus import (
    EXAMS,
    FIRST,
    HIDDEN,
    Corpus,
    CorpusLearner,
    bias_at,
    embeddings_at,
    hidden,
    logits_at,
)
from latebloom.methods.forgetting.embeddings import Forgetting, new_after
from latebloom.methods.forgetting.unknown_words import (
    PLAIN,
    assess,
    components,
    trained_model,
    usual,
)
from latebloom.nn.masked_lm import MaskedLM
from latebloom.optim.parts import PART

RNG = np.random.default_rng(0)
NAMES = [f"n{i}" for i in range(60)]


def copies(n=400, names=60):
    """ "go x to y stop x y": two names, each of them twice."""
    found = []
    for _ in range(n):
        x, y = (NAMES[i] for i in RNG.choice(names, 2, replace=False))
        found.append(["go", x, "to", y, "stop", x, y])
    return found


SEQUENCES = copies()
CORPUS = Corpus.of(SEQUENCES, words=50, length=7)


def learner(corpus=CORPUS, network=None, **more):
    def small(vocabulary, positions, key):
        return MaskedLM(vocabulary, positions, key=key, size=8, hidden=8, layers=1, dropout=0.0)

    given = {"hyper": {"rate": 3e-3}, "batch": 8, "exam": 40} | more
    return CorpusLearner(corpus, network=small if network is None else network, optimiser=lambda rate: optax.adamw(rate), **given)  # fmt: skip


def test_words_are_numbered_by_how_often_they_come():
    once = dict.fromkeys(map(tuple, SEQUENCES))
    assert len(once) < len(SEQUENCES)
    counts = Counter(token for sequence in once for token in sequence)
    assert set(CORPUS.words[:3]) == {"go", "to", "stop"} and len(CORPUS.words) == 50
    assert list(CORPUS.counts) == [counts[word] for word in CORPUS.words]
    assert sorted(CORPUS.counts, reverse=True) == list(CORPUS.counts)
    assert CORPUS.left_out == pytest.approx(1 - sum(CORPUS.counts) / sum(counts.values()))
    table = np.asarray(CORPUS.tokens)
    told = [tuple(CORPUS.words[t - FIRST] if t >= FIRST else None for t in row) for row in table]
    assert len(set(told)) == len(told) == len(CORPUS.tokens)
    assert set(told) == {tuple(t if t in CORPUS.words else None for t in each) for each in once}
    for row, place, repeated in zip(CORPUS.row[:200], CORPUS.place[:200], CORPUS.repeated[:200], strict=True):  # fmt: skip
        assert ((table[row] == table[row, place]).sum() > 1) == repeated
    assert {CORPUS.words[c - FIRST] for c in np.asarray(CORPUS.candidates)} <= set(NAMES)


@pytest.fixture(scope="module")
def state():
    return eqx.filter_jit(learner().init)(jax.random.key(3))


def test_no_sequence_with_a_word_that_is_held_out_or_for_exams_is_drawn(state):
    held = np.flatnonzero(state.held)
    assert len(held) == CORPUS.held and set(held) <= set(np.asarray(CORPUS.candidates))
    weight = np.diff(np.asarray(state.law), prepend=0.0)
    drawn = np.asarray(CORPUS.tokens)[weight > 0]
    assert len(drawn) > 100 and not np.isin(drawn, held).any()
    questions = jax.tree.map(np.asarray, state.questions)
    trained = {tuple(row) for row in drawn}
    for i, exam in enumerate(name for name in EXAMS if name != "novel/mended"):
        counts = questions.counts[i]
        for tokens, place, answer, whole in zip(*(
            part[i][counts] for part in (questions.tokens, questions.place, questions.answer, questions.choices)
        ), strict=True):  # fmt: skip
            assert tokens[place] == HIDDEN and whole[place] == answer
            assert (np.delete(tokens, place) == np.delete(whole, place)).all()
            assert ((tokens == answer).sum() > 0) == (exam in ("novel", "repeated"))
            assert (answer in held) == (exam == "novel")
            assert exam == "novel" or not np.isin(whole, held).any()
            rank = (answer - FIRST) / 50
            assert exam != "once/common" or rank < 0.05
            assert exam != "once/rare" or rank >= 0.25
            assert tuple(whole) not in trained
    pairs = {(int(p), *map(int, w)) for p, w in zip(questions.place[0], questions.choices[0], strict=True)}  # fmt: skip
    assert len(pairs) == len(questions.place[0])


class Reader(eqx.Module):
    """Says, of any hidden place, the word at `of` of the sequence: as likely as its embedding is long."""

    embedding: jax.Array
    of: int = eqx.field(static=True)

    def __call__(self, x, *, key=None, train=False, at=slice(None)):
        said = jax.nn.one_hot(x[:, self.of], len(self.embedding))
        logits = said * jnp.linalg.norm(self.embedding, axis=1)
        return jnp.broadcast_to(logits[:, None], (*at.shape, logits.shape[-1]))


def test_a_network_that_reads_one_place_is_right_as_often_as_the_word_is_there():
    process = learner(network=lambda v, n, key: Reader(jnp.ones((v, 4)), 1))
    state = process.init(jax.random.key(3))
    seen = process.observe(state)
    questions = jax.tree.map(lambda x: np.asarray(x)[0], state.questions)
    expected = (questions.tokens[:, 1] == questions.answer)[questions.counts]
    assert 0 < expected.mean() < 1
    for exam in (0, 1):
        assert seen["right"][exam] == pytest.approx(expected.mean())
    distinct = [len({t for t in row if t >= FIRST}) for row in questions.choices[questions.counts]]
    assert seen["guess"][0] == pytest.approx(np.mean([1 / n for n in distinct]))
    assert seen["questions"][0] == questions.counts.sum()


def test_new_words_are_put_back_and_mended_in_exams_alone(state):
    process = learner()
    moved = state._replace(model=eqx.tree_at(
        lambda m: (m.embedding, m.bias), state.model, (state.model.embedding + 1, jnp.arange(CORPUS.vocabulary, dtype=jnp.float32))))  # fmt: skip
    held, words = np.asarray(state.held), np.arange(CORPUS.vocabulary) >= FIRST
    plain, mended = process.with_novel(moved, False), process.with_novel(moved, True)
    np.testing.assert_array_equal(plain.embedding[held], state.first[held])
    np.testing.assert_array_equal(plain.embedding[~held], moved.model.embedding[~held])
    np.testing.assert_array_equal(plain.bias, moved.model.bias)
    usual = np.linalg.norm(moved.model.embedding[words & ~held], axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(mended.embedding[held], axis=1), usual, rtol=1e-5)
    first = np.asarray(state.first[held])
    np.testing.assert_allclose(
        mended.embedding[held] / usual,
        first / np.linalg.norm(first, axis=1, keepdims=True),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        mended.bias[held], np.arange(len(held))[words & ~held].mean(), rtol=1e-6
    )
    np.testing.assert_array_equal(mended.bias[~held], moved.model.bias[~held])


def test_padding_and_other_words_are_neither_hidden_nor_asked_for():
    seen = []

    class Spy(eqx.Module):
        embedding: jax.Array

        def __call__(self, x, *, key=None, train=False, at=slice(None)):
            jax.debug.callback(lambda x, at: seen.append((np.array(x), np.array(at))), x, at)
            return jnp.zeros((*at.shape, len(self.embedding))) + self.embedding.sum()

    short = [s[: 2 + i % 6] for i, s in enumerate(SEQUENCES)]
    corpus = Corpus.of([*SEQUENCES, *short], words=40, length=7)
    process = learner(corpus, lambda v, n, key: Spy(jnp.ones((v, 2))))
    state = process.init(jax.random.key(0))
    for _ in range(5):
        state = process.step(state)
    jax.effects_barrier()
    table = np.asarray(corpus.tokens)
    assert len(seen) == 5
    for x, at in seen:
        assert at.shape == (8, 1)  # 15 % of seven
        for row, place in zip(x, at[:, 0], strict=True):
            rest = np.delete(row, place)
            whole = [t for t in table if (np.delete(t, place) == rest).all()]
            assert row[place] == HIDDEN and any(t[place] >= FIRST for t in whole)


def test_a_share_of_the_words_that_are_there_is_hidden():
    rng = np.random.default_rng(0)
    real = np.array([1, 3, 7, 10, 20, 32])
    tokens = np.zeros((6, 32), np.int32)
    for row, n in zip(tokens, real, strict=True):
        row[:n] = rng.integers(FIRST, 50, n)
    tokens[5, :16] = 2  # in no vocabulary
    asked, places, answers, counts = map(np.asarray, hidden(jnp.asarray(tokens), jax.random.key(0)))
    real[5] = 16
    np.testing.assert_array_equal(counts.sum(axis=1), [1, 1, 1, 2, 3, 2])
    np.testing.assert_array_equal(counts.sum(axis=1), np.maximum(1, np.round(0.15 * real)))
    for row in range(6):
        which = places[row][counts[row] > 0]
        assert (
            set(np.flatnonzero(asked[row] == HIDDEN)) == set(which)
            and (tokens[row, which] >= FIRST).all()
        )
        np.testing.assert_array_equal(answers[row][counts[row] > 0], tokens[row, which])
        np.testing.assert_array_equal(np.delete(asked[row], which), np.delete(tokens[row], which))


def test_no_exam_and_no_model_in_the_end_has_embeddings_just_drawn():
    process = learner(how=Forgetting(every=3))
    states = [process.init(jax.random.key(0))]
    step = eqx.filter_jit(process.step)
    for _ in range(6):
        states.append(step(states[-1]))
    changed = [
        float(jnp.abs(b.model.embedding - a.model.embedding).max()) for a, b in pairwise(states)
    ]
    assert [c > 0.5 for c in changed] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]  # after 3 and its exam, not after 6
    other = [float(jnp.abs(b.model.position - a.model.position).max()) for a, b in pairwise(states)]
    assert max(other) < 0.01
    count = [int(optax.tree.get(s.moments.inner_states[PART], "count")) for s in states]
    assert count == [0, 1, 2, 3, 1, 2, 3]


def test_how_many_are_examined_for_each_that_is_trained_on(state):
    held = np.isin(np.asarray(CORPUS.tokens), np.flatnonzero(state.held)).any(axis=1)
    trained = (np.diff(np.asarray(state.law), prepend=0.0) > 0).sum()
    ratio = learner().observe(state)["ratio"]
    assert ratio[0] == ratio[1] == pytest.approx(held.sum() / trained)
    np.testing.assert_allclose(ratio[2:], ((~held).sum() - trained) / trained, rtol=1e-6)


def test_forgetting_happens_when_it_is_said():
    trace = unfold(
        learner(how=Forgetting(every=3, until=7, spread=2.0)), seeds=1, at=range(9), progress=False
    )
    length = trace.length.values[0]
    jump = np.abs(np.diff(length)) > 0.5 * 2 * np.sqrt(8) - 0.6
    assert jump.tolist() == [i == 3 for i in range(8)]  # from 0.02 to 2, before the fourth update
    assert length[4:] == pytest.approx(2 * np.sqrt(8), rel=0.15)
    assert len(set(np.round(length[4:], 6))) == 5


def test_a_loop_outside_jax_is_told_what_its_embeddings_are_to_be():
    how = Forgetting(every=2, until=5, spread=3.0)
    told = [new_after(update, how, (2000, 4), seed=1) for update in range(1, 8)]
    assert [t is not None for t in told] == [False, True, False, True, False, False, False]
    assert told[1].std() == pytest.approx(3, rel=0.03) and not np.array_equal(told[1], told[3])
    np.testing.assert_array_equal(told[1], new_after(2, how, (2000, 4), seed=1))
    with pytest.raises(ValueError, match="every must be at least 1"):
        new_after(1, Forgetting(0), (2, 2), seed=0)


def test_a_model_without_words_held_out_is_what_the_steps_make_of_it():
    same = {"words": 50, "length": 7, "steps": 10, "batch": 8}
    model, words = trained_model(SEQUENCES, PLAIN, **same)
    assert words == CORPUS.words and model.embedding.shape == (53, 64)
    again, _ = trained_model(SEQUENCES, PLAIN, **same)
    np.testing.assert_array_equal(model.embedding, again.embedding)
    assert float(jnp.abs(model.embedding[FIRST:]).mean()) > 0.01


@pytest.mark.parametrize(("given", "says"), [
    ({"words": 5}, "words must be a whole number from 20"),
    ({"length": 2}, "length must be a whole number from 4"),
    ({"sequences": SEQUENCES[:20]}, "there are 20 different sequences of up to 7 tokens, and at least 100"),
    ({"sequences": [[f"{i}", *"abcdefg"] for i in range(200)]}, "0 words beyond the commonest come twice"),
    ({"steps": 1}, "steps must be a whole number from 10"),
    ({"seeds": 1}, "seeds must be a whole number from 2"),
    ({"rate": 0.0}, "rate must be above 0"),
    ({"methods": ("active forgetting",)}, 'methods must be "plain training" and any of'),
    ({"every": 0}, "every must be a whole number from 1"),
], ids=str)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        assess(**{"sequences": SEQUENCES, "words": 50, **given})


def test_a_network_without_a_row_for_each_word_is_refused():
    process = learner(
        network=lambda v, n, key: Reader(jnp.ones((4, 4)), 1), embedding=lambda m: m.embedding
    )
    with pytest.raises(ValueError, match=r"embedding must be \[53, size\], a row for each word"):
        process.init(jax.random.key(0))


class Plain(eqx.Module):
    """Of one sequence: the mean of its embeddings and its own, an affine map, a product with the embeddings."""

    tokens: eqx.nn.Embedding
    places: eqx.nn.Embedding
    mix: eqx.nn.Linear
    bias: jax.Array

    def __init__(self, vocabulary, positions, key):
        one, two, three = jax.random.split(key, 3)
        self.tokens = eqx.nn.Embedding(vocabulary, 6, key=one)
        self.places = eqx.nn.Embedding(positions, 6, key=two)
        self.mix, self.bias = eqx.nn.Linear(12, 6, key=three), jnp.zeros(vocabulary)

    def hidden(self, x):
        each = jax.vmap(self.tokens)(x) + self.places.weight[: len(x)]
        mean = jnp.broadcast_to(each.mean(axis=0), each.shape)
        return jax.vmap(self.mix)(jnp.concatenate([each, mean], axis=1))

    def __call__(self, x):
        return self.hidden(x) @ self.tokens.weight.T + self.bias


class Dropped(Plain):
    """The same with dropout, whose key it wants."""

    def __call__(self, x, *, key=None):
        h = eqx.nn.Dropout(0.5)(self.hidden(x), key=key, inference=key is None)
        return h @ self.tokens.weight.T + self.bias


class Whole(Plain):
    """The same of a whole batch."""

    def __call__(self, x):
        return jax.vmap(super().__call__)(x)


class Tied(eqx.Module):
    """Embeddings and output are one matrix; `keeps` is where it stays."""

    layers: eqx.nn.Shared
    mix: eqx.nn.Linear

    def __init__(self, vocabulary, key, keeps):
        one, two, three = jax.random.split(key, 3)
        pair = eqx.nn.Embedding(vocabulary, 6, key=one), eqx.nn.Linear(6, vocabulary, key=two)
        self.layers = eqx.nn.Shared(pair, lambda p: p[1 - keeps].weight, lambda p: p[keeps].weight)
        self.mix = eqx.nn.Linear(6, 6, key=three)

    def __call__(self, x):
        tokens, output = self.layers()
        each = jax.vmap(tokens)(x)
        return jax.vmap(output)(jax.vmap(self.mix)(each + each.mean(axis=0)))


STRANGERS = {
    "plain": (Plain, lambda m: m.tokens.weight, lambda m: m.bias),
    "dropout": (Dropped, lambda m: m.tokens.weight, lambda m: m.bias),
    "batch": (Whole, lambda m: m.tokens.weight, lambda m: m.bias),
    "tied, kept in front": (lambda v, n, key: Tied(v, key, 0), lambda m: m.layers.pytree[0].weight, lambda m: m.layers.pytree[1].bias),
    "tied, kept behind": (lambda v, n, key: Tied(v, key, 1), lambda m: m.layers.pytree[1].weight, lambda m: m.layers.pytree[1].bias),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_network_of_anybody_learns_forgets_and_is_examined(name):
    network, embedding, bias = STRANGERS[name]
    process = learner(network=network, how=Forgetting(2))
    state = process.init(jax.random.key(0))
    assert embeddings_at(state.model, 53)(state.model) is embedding(state.model)
    at = bias_at(state.model, 53)
    assert at is not None and at(state.model) is bias(state.model)
    step = eqx.filter_jit(process.step)
    states = [state]
    for _ in range(3):
        states.append(step(states[-1]))
    moved = [float(jnp.abs(embedding(b.model) - embedding(a.model)).max()) for a, b in pairwise(states)]  # fmt: skip
    assert (
        0 < max(moved[:2]) < 0.1 and moved[2] > 0.5
    )  # drawn anew after the second, before the third
    assert float(jnp.abs(states[3].model.mix.weight - state.model.mix.weight).max()) < 0.1
    mended = process.with_novel(states[3], True)
    held, words = np.asarray(state.held), np.arange(53) >= FIRST
    lengths = np.linalg.norm(embedding(mended), axis=1)
    assert lengths[held] == pytest.approx(np.full(held.sum(), lengths[words & ~held].mean()), rel=1e-4)  # fmt: skip
    np.testing.assert_allclose(bias(mended)[held], bias(states[3].model)[words & ~held].mean(), atol=1e-6)  # fmt: skip
    tokens, places = CORPUS.tokens[:4], jnp.array([[0, 2], [1, 1], [3, 0], [6, 5]])
    found = logits_at(state.model, tokens, places)
    for i in range(4):
        alone = state.model(tokens[i : i + 1])[0] if name == "batch" else state.model(tokens[i])
        np.testing.assert_allclose(found[i], alone[places[i]], rtol=1e-5, atol=1e-6)


def test_a_network_of_anybody_is_assessed_and_trained():
    given = {"words": 50, "steps": 10, "batch": 4, "network": Plain}
    found = assess(SEQUENCES, length=7, seeds=2, **given)
    assert found.exams["right"].notna().any() and len(found.ways) == 6
    model, words = trained_model(SEQUENCES, PLAIN, length=7, **given)
    rows = np.asarray(model.tokens.weight, np.float64)[FIRST:]
    length, bias = usual(model, len(words))
    assert length == pytest.approx(np.linalg.norm(rows, axis=1).mean())
    assert bias == pytest.approx(np.asarray(model.bias)[FIRST:].mean())
    centred = rows - rows.mean(axis=0)
    spread = np.sqrt(np.linalg.eigvalsh(centred.T @ centred)[::-1][:2])
    np.testing.assert_allclose(np.linalg.norm(components(model, 50), axis=0), spread, rtol=1e-6)


class Two(Plain):
    more: eqx.nn.Embedding

    def __init__(self, vocabulary, positions, key):
        super().__init__(vocabulary, positions, key)
        self.more = eqx.nn.Embedding(vocabulary, 6, key=key)


def test_which_of_two_embeddings_is_to_be_said():
    with pytest.raises(
        ValueError, match=r"2 matrices with a row for each of 53 tokens.*embedding=lambda"
    ):
        learner(network=Two).init(jax.random.key(0))
    with pytest.raises(ValueError, match="0 matrices with a row for each of 53 tokens"):
        learner(network=lambda v, n, key: eqx.nn.Linear(2, 2, key=key)).init(jax.random.key(0))
    process = learner(network=Two, embedding=lambda m: m.tokens.weight, how=Forgetting(1))
    state = process.init(jax.random.key(0))
    after = process.step(process.step(state))
    assert float(jnp.abs(after.model.tokens.weight - state.model.tokens.weight).max()) > 0.5
    np.testing.assert_allclose(after.model.more.weight, state.model.more.weight, rtol=1e-5)


def test_a_network_that_makes_no_logits_of_each_place_is_refused():
    class Pooled(Plain):
        def __call__(self, x):
            return super().__call__(x).mean(axis=0)

    process = learner(network=Pooled)
    with pytest.raises(
        ValueError, match=r"must make logits \[length, vocabulary\] of tokens \[length\]"
    ):
        process.step(process.init(jax.random.key(0)))
