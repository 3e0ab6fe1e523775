"""The learning scheme on made-up text: sizes, folds, and runs that are killed."""

import pickle

import numpy as np
import pytest

from latebloom import unfold
from latebloom.data import read_tagged
from latebloom.methods.learning_curves import LearningScheme
from latebloom.methods.learning_curves.lexicon import Sentences
from latebloom.methods.learning_curves.scheme import corpus, lexicon_of, make_tagger

SIZES = (300, 900, 2700)


def scheme(**changes):
    return LearningScheme("generated", "bigram", SIZES, **({"folds": 5, "runs": 2} | changes))


def test_an_accuracy_is_that_of_a_tagger_trained_from_scratch():
    process = scheme(runs=1, test_words=500)
    trace = unfold(process, seeds=[3], at=[1, 2, 3])
    text = corpus("generated")
    lexicon = lexicon_of(text)
    order = np.random.default_rng(3).permutation(text.sentences)
    held = order[0::5]
    learned = order[np.arange(len(order)) % 5 != 0]
    ends = np.cumsum(np.diff(text.starts)[learned])
    cut = int(np.argmax(ends >= 900)) + 1
    tagger = make_tagger("bigram", lexicon, len(text.tag_names))
    train = Sentences.of(text, learned[:cut])
    tagger.learn(train)
    lengths = np.cumsum(np.diff(text.starts)[held])
    test = Sentences.of(text, held[: int(np.argmax(lengths >= 500)) + 1])
    right = tagger.tag(test) == test.tags
    new = ~np.isin(test.tokens, train.tokens)
    found = trace.isel(seed=0, step=1)
    assert float(found.accuracy) == pytest.approx(100 * right.mean())
    assert float(found.words) == ends[cut - 1] == len(train.tokens)
    assert float(found.unknown) == pytest.approx(100 * new.mean())
    assert float(found.unknown_accuracy) == pytest.approx(100 * right[new].mean())


def test_sizes_end_with_a_sentence_and_accuracies_are_means_over_folds():
    both = unfold(scheme(), seeds=[0], at=[1, 2, 3])
    words = both.words.values[0]
    assert ((words >= SIZES) & (words < np.array(SIZES) + 16)).all()
    assert (
        both.accuracy.values[0]
        > unfold(scheme(runs=1), seeds=[0], at=[1, 2, 3]).accuracy.values - 5
    ).all()
    process = scheme()
    alone = [process._measure(0, fold, 2)[1] for fold in range(2)]
    assert both.accuracy.values[0, 2] == pytest.approx(np.mean(alone))
    assert (np.diff(both.unknown.values) < 0).all()


def test_a_text_of_ones_own_is_learned_from():
    lines = [
        (f"the/at {w}/nn {v}/vb ./.", "") for w in ("dog", "cat", "cow") for v in ("ran", "sat")
    ]
    text = read_tagged(lines * 20)
    found = unfold(LearningScheme(text, "trigram", (40, 200), folds=3, runs=3), seeds=1, at=[1, 2])
    np.testing.assert_allclose(found.accuracy, 100)
    assert found.words.values[0, 0] == 40


def test_folds_part_the_corpus():
    process = scheme(runs=5)
    held = [process._split(1, fold)[1] for fold in range(5)]
    assert sorted(np.concatenate(held)) == list(range(corpus("generated").sentences))
    for fold in range(5):
        learned, out = process._split(1, fold)
        assert not set(learned) & set(out)
    as_it_comes = scheme(order="as it comes")._split(1, 0)
    assert (np.diff(as_it_comes[0]) > 0).all()
    np.testing.assert_array_equal(as_it_comes[1], held[0])


def test_a_run_goes_on_where_it_was_killed():
    process = scheme(runs=1)
    state = process.step(process.init(0))
    revived, state = pickle.loads(pickle.dumps((process, state)))
    assert not revived._live and len(pickle.dumps(state)) < 2000
    want = unfold(scheme(runs=1), seeds=[0], at=[3])
    for _ in range(2):
        state = revived.step(state)
    assert revived.observe(state)["accuracy"] == float(want.accuracy[0, 0])


@pytest.mark.parametrize("tagger", ["perceptron", "memm", "trigram"])
def test_a_killed_run_resumes_from_its_checkpoint(tmp_path, tagger):
    def process():
        return LearningScheme("generated", tagger, SIZES, folds=5, runs=1, test_words=500)

    ticks = []

    def die(tick):
        ticks.append(tick)
        if len(ticks) == 3:
            raise KeyboardInterrupt

    settings = {"seeds": [0, 1], "at": [1, 2, 3]}
    file = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        unfold(process(), **settings, checkpoint=file, checkpoint_seconds=0, progress=die)
    assert file.exists()
    resumed = unfold(process(), **settings, checkpoint=file)
    whole = unfold(process(), **settings)
    for name in ("accuracy", "unknown_accuracy", "words"):
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_schemes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="of 5 folds 6 cannot be held out"):
        scheme(runs=6)
    with pytest.raises(ValueError, match="sizes must increase"):
        LearningScheme("generated", "bigram", (10, 5))
    with pytest.raises(ValueError, match="900,000 words are to be learned from, and 3"):
        unfold(LearningScheme("generated", "bigram", (900_000,)), seeds=1, at=[1])
