"""Taggers against counts by hand, brute force over all tag sequences, and plain Python loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.data import read_tagged
from latebloom.methods.learning_curves import make_tagger
from latebloom.methods.learning_curves.counting import (
    EndingTagger,
    HiddenMarkov,
    WordTags,
    viterbi,
    viterbi_bigram,
)
from latebloom.methods.learning_curves.generated import generated_text
from latebloom.methods.learning_curves.lexicon import Lexicon, Sentences
from latebloom.methods.learning_curves.linear import (
    AveragedPerceptron,
    MaximumEntropyMarkov,
    tag_rows,
    word_rows,
)

LINES = [
    "the/at dog/nn runs/vb ./.",
    "the/at run/nn ended/vb ./.",
    "dogs/nns run/vb",
    "a/at walking/nn dog/nn walked/vb",
]
TEXT = read_tagged((line, "") for line in LINES)
TAG = {name: i for i, name in enumerate(TEXT.tag_names)}
LEXICON = Lexicon.of(TEXT.words)
EVERYTHING = Sentences.of(TEXT, np.arange(4))


def tagged(tagger, learn, say):
    tagger.learn(Sentences.of(TEXT, np.array(learn)))
    said = tagger.tag(Sentences.of(TEXT, np.array(say)))
    return [TEXT.tag_names[t] for t in said]


def test_sentences_are_taken_in_the_order_asked_for():
    some = Sentences.of(TEXT, np.array([2, 0]))
    assert [TEXT.words[w] for w in some.tokens] == ["dogs", "run", "the", "dog", "runs", "."]
    assert some.starts.tolist() == [0, 2, 6] and some.first.tolist() == [1, 0, 1, 0, 0, 0]
    assert some.shifted(some.tags, 1, -1).tolist() == [-1, some.tags[0], -1, *some.tags[2:5]]
    assert some.shifted(some.tags, -1, -1).tolist() == [some.tags[1], -1, *some.tags[3:6], -1]
    assert some.shifted(some.tags, 2, -1).tolist() == [-1, -1, -1, -1, *some.tags[2:4]]


def test_endings_and_shapes():
    words = ["walking", "Walking", "ing", "NATO", "x-1", "king"]
    lexicon = Lexicon.of(words)
    three = lexicon.endings[3]
    assert three[0] == three[2] == three[5] != three[1]
    assert lexicon.endings[4][0] == lexicon.endings[4][5] != lexicon.endings[4][2]
    assert lexicon.shapes.tolist() == [0, 1, 0, 3, 12, 0]
    assert lexicon.starts[0] == lexicon.starts[1] != lexicon.starts[5]


def test_the_ending_tagger_by_hand():
    # "run" was a noun; "a" and "walking" are unknown: the commonest of all, and -g as in "dog".
    assert tagged(EndingTagger(LEXICON, 5), [0, 1], [2, 3])[1:] == ["nn", "at", "nn", "nn", "vb"]
    # "dogs" ends like "runs", "walked" like "ended".
    assert tagged(EndingTagger(LEXICON, 5), [0, 1], [2])[0] == "vb"


def test_word_counts_add_up_part_by_part():
    whole, parts = WordTags(LEXICON, 5), WordTags(LEXICON, 5)
    whole.learn(EVERYTHING)
    for i in (3, 0, 2, 1):
        parts.learn(Sentences.of(TEXT, np.array([i])))
    np.testing.assert_array_equal(whole.counts, parts.counts)
    run = TEXT.words.index("run")
    assert whole.counts[run, TAG["nn"]] == 1 and whole.counts[run, TAG["vb"]] == 1
    for length in (0, 2, 3):
        words = np.arange(len(TEXT.words))
        np.testing.assert_array_equal(
            whole.by_ending(words, length), parts.by_ending(words, length)
        )
    d = whole.by_ending(np.array([TEXT.words.index("walked")]), 1)[0]
    assert d[TAG["vb"]] == 2 and d.sum() == 2  # ended, walked
    rare = whole.by_ending(np.array([TEXT.words.index("dog")]), 1, rare=1)[0]
    assert rare[TAG["nn"]] == 1 and rare.sum() == 1  # walking; dog itself was seen twice


def test_transitions_by_hand():
    bigram = HiddenMarkov(LEXICON, 5, order=1, longest=3)
    bigram.learn(Sentences.of(TEXT, np.array([0, 1, 2])))
    bi = bigram.trigrams.sum(0)
    assert bi[TAG["at"], TAG["nn"]] == 2 and bi[5, TAG["at"]] == 2 and bi[5, TAG["nns"]] == 1
    assert bi[TAG["vb"], 5] == 1 and bi[TAG["."], 5] == 2
    # Left-one-out: each pair votes for pair or single estimate; here by a loop.
    uni, before = bi.sum(0), bi.sum(1)
    votes = np.zeros(2)
    for i, j in zip(*np.nonzero(bi), strict=True):
        pair = (bi[i, j] - 1) / (before[i] - 1) if before[i] > 1 else 0
        votes[int(pair > (uni[j] - 1) / (uni.sum() - 1))] += bi[i, j]
    single, pair = votes / votes.sum()
    moves = bigram.transitions()
    want = single * uni[TAG["nn"]] / uni.sum() + pair * 2 / 2
    assert moves[TAG["at"], TAG["nn"]] == pytest.approx(want)
    trigram = HiddenMarkov(LEXICON, 5, order=2, longest=3)
    trigram.learn(EVERYTHING)
    seen = trigram.trigrams.sum(2) > 0
    np.testing.assert_allclose(trigram.transitions()[seen].sum(1), 1)


def test_unknown_words_are_smoothed_from_short_to_long_endings():
    model = HiddenMarkov(LEXICON, 5, order=1, longest=2)
    model.learn(Sentences.of(TEXT, np.array([0, 1])))
    uni = np.bincount(EVERYTHING.tags[:8], minlength=5) / 10  # 8 words and 2 ends of sentences
    uni /= uni.sum()
    pull = uni.std(ddof=1)
    found = uni
    # Of no letter: all words seen; -d: ended; -ed: ended.
    all_words = np.bincount(EVERYTHING.tags[:8], minlength=5) / 8
    verb = np.eye(5)[TAG["vb"]]
    for share in (all_words, verb, verb):
        found = (share + pull * found) / (1 + pull)
    walked = np.array([TEXT.words.index("walked")])
    np.testing.assert_allclose(model.by_ending(walked)[0], found)


@pytest.mark.parametrize("order", [1, 2])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15)
def test_viterbi_is_the_best_of_all_sequences(order, seed):
    rng = np.random.default_rng(seed)
    tags, k = 4, 3
    lengths = rng.integers(1, 5, 4)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    moves = np.log(rng.dirichlet(np.ones(tags + 1), (tags + 1,) * order))
    candidates = np.stack([rng.permutation(tags)[:k] for _ in range(starts[-1])])
    scores = np.where(rng.random((starts[-1], k)) < 0.2, -np.inf, rng.normal(size=(starts[-1], k)))
    scores[:, 0] = rng.normal(size=starts[-1])
    decode = viterbi if order == 2 else viterbi_bigram
    found = decode(moves, candidates, scores, starts)

    def value(path, begin):
        padded = [*[tags] * order, *(candidates[begin + i, j] for i, j in enumerate(path)), tags]
        total = sum(scores[begin + i, j] for i, j in enumerate(path))
        return total + sum(moves[tuple(padded[i : i + order + 1])] for i in range(len(path) + 1))

    for begin, length in zip(starts[:-1], lengths, strict=True):
        best = max(itertools.product(range(k), repeat=length), key=lambda p: value(p, begin))
        want = [candidates[begin + i, j] for i, j in enumerate(best)]
        assert found[begin : begin + length].tolist() == want


def test_the_perceptron_does_what_a_plain_loop_does():
    text = generated_text(60)
    lexicon, tags = Lexicon.of(text.words), len(text.tag_names)
    train, test = (Sentences.of(text, np.arange(*span)) for span in ((0, 50), (50, 60)))
    rows = 1 << 12
    tagger = AveragedPerceptron(lexicon, tags, rows)
    tagger.learn(Sentences.of(text, np.arange(20)))
    tagger.learn(Sentences.of(text, np.arange(20, 50)))

    weights, total = np.zeros((rows, tags)), np.zeros((rows, tags))

    def scores(w, words, last, second):
        more = np.asarray(tag_rows(last, second, words[0], tags, rows))
        return np.concatenate([words, more]), w[np.concatenate([words, more])].sum(0)

    columns = word_rows(lexicon, train, rows)
    last = second = tags
    for words, truth, first in zip(columns, train.tags, train.first, strict=True):
        if first:
            last = second = tags
        total += weights
        where, score = scores(weights, words, last, second)
        said = int(score.argmax())
        if said != truth:
            np.add.at(weights, (where, truth), 1)
            np.add.at(weights, (where, said), -1)
        last, second = said, last
    average = np.asarray(tagger.weights - tagger.late / tagger.time)
    want = (total + weights) / (len(train.tokens) + 1)
    np.testing.assert_allclose(average, want, atol=1e-3)
    found, last, second = [], tags, tags
    for words, first in zip(word_rows(lexicon, test, rows), test.first, strict=True):
        if first:
            last = second = tags
        _, score = scores(average, words, last, second)
        last, second = int(score.argmax()), last
        found.append(last)
    np.testing.assert_array_equal(tagger.tag(test), found)


def test_the_logistic_model_learns_scikit_learns_way():
    text = generated_text(400)
    lexicon, tags = Lexicon.of(text.words), len(text.tag_names)
    train, test = (Sentences.of(text, np.arange(*span)) for span in ((0, 350), (350, 400)))
    tagger = MaximumEntropyMarkov(lexicon, tags, 1 << 12)
    tagger.learn(train)
    right = (tagger.tag(test) == test.tags).mean()
    share = np.bincount(train.tags).max() / len(train.tags)
    assert right > share + 0.2
    weights, bias = np.asarray(tagger.model.coef_), np.asarray(tagger.model.intercept_)
    words = word_rows(lexicon, test, 1 << 12)[0]
    more = np.asarray(tag_rows(tags, tags, words[0], tags, 1 << 12))
    score = weights[:, np.concatenate([words, more])].sum(1) + bias
    assert tagger.tag(test)[0] == score.argmax()


@pytest.mark.parametrize("name", ["ending", "bigram", "trigram", "perceptron"])
def test_learning_by_parts_is_learning_at_once(name):
    text = generated_text(200)
    lexicon, tags = Lexicon.of(text.words), len(text.tag_names)
    test = Sentences.of(text, np.arange(150, 200))
    whole, parts = (make_tagger(name, lexicon, tags) for _ in range(2))
    whole.learn(Sentences.of(text, np.arange(150)))
    for begin in range(0, 150, 30):
        parts.learn(Sentences.of(text, np.arange(begin, begin + 30)))
    np.testing.assert_array_equal(whole.tag(test), parts.tag(test))


def test_context_helps_where_words_are_ambiguous():
    text = generated_text(2000)
    lexicon, tags = Lexicon.of(text.words), len(text.tag_names)
    test = Sentences.of(text, np.arange(1800, 2000))
    right = {}
    for name in ("ending", "bigram", "trigram"):
        tagger = make_tagger(name, lexicon, tags)
        tagger.learn(Sentences.of(text, np.arange(1800)))
        right[name] = (tagger.tag(test) == test.tags).mean()
    assert right["bigram"] > right["ending"] + 0.02
    assert right["trigram"] > right["bigram"] - 0.02
    assert not math.isclose(right["bigram"], right["trigram"])
