"""A learning scheme: a tagger trained on growing prefixes of a corpus, and how accurate it gets."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from latebloom.core.process import HostProcess, Quantity
from latebloom.data import TaggedText, load_brown
from latebloom.methods.learning_curves.counting import EndingTagger, HiddenMarkov
from latebloom.methods.learning_curves.generated import generated_text
from latebloom.methods.learning_curves.lexicon import Lexicon, Sentences
from latebloom.methods.learning_curves.linear import AveragedPerceptron, MaximumEntropyMarkov

TaggerName = Literal["ending", "bigram", "trigram", "perceptron", "memm"]
CorpusName = Literal["brown", "generated"]
Order = Literal["shuffled", "as it comes"]


class Tagger(Protocol):
    """Learns a corpus part by part, as if it had all parts at once, and tags sentences."""

    def learn(self, part: Sentences) -> None: ...
    def tag(self, text: Sentences) -> np.ndarray: ...


def make_tagger(name: TaggerName, lexicon: Lexicon, tags: int) -> Tagger:
    """A tagger that has learned nothing yet."""
    match name:
        case "ending":
            return EndingTagger(lexicon, tags)
        case "bigram":
            return HiddenMarkov(lexicon, tags, order=1, longest=3)
        case "trigram":
            return HiddenMarkov(lexicon, tags, order=2, longest=10)
        case "perceptron":
            return AveragedPerceptron(lexicon, tags)
        case "memm":
            return MaximumEntropyMarkov(lexicon, tags)


def corpus(name: CorpusName) -> TaggedText:
    """A tagged corpus. Raises `DataError` if it has to be fetched."""
    return load_brown() if name == "brown" else generated_text()


@functools.cache
def lexicon_of(text: TaggedText) -> Lexicon:
    """What the words of a text look like."""
    return Lexicon.of(text.words)


class LearningScheme(HostProcess):
    """Step i trains on the first words of the corpus, up to `sizes[i - 1]` and the end of a sentence.

    - `text`: the corpus, by its name or as `read_tagged` reads it.
    - `order`: of the sentences learned from: "shuffled" by the seed, or "as it comes" (the Brown
      corpus by genre, from newspapers to humour). Those held out are drawn by the seed either way.
    - `folds`: parts of equal size, each of which may be held out. The first `runs` are, one after the
      other, and accuracies are means over them, each on its first `test_words` words (None: all).

    Observed: `words` (mean size), `accuracy` and `unknown_accuracy` (of words not learned), percent,
    and `unknown` (their share, percent).
    """

    def __init__(
        self, text: CorpusName | TaggedText, tagger: TaggerName, sizes: tuple[int, ...], *,
        order: Order = "shuffled", folds: int = 10, runs: int = 10, test_words: int | None = None,
    ):  # fmt: skip
        if not 1 <= runs <= folds or folds < 2:
            raise ValueError(f"of {folds} folds {runs} cannot be held out one after the other")
        if list(sizes) != sorted(set(sizes)) or not sizes or sizes[0] < 1:
            raise ValueError("sizes must increase, from 1 word or more")
        self.text: CorpusName | TaggedText = text
        self.tagger: TaggerName = tagger
        self.order: Order = order
        self.sizes, self.folds, self.runs, self.test_words = sizes, folds, runs, test_words
        self._live: dict[tuple[int, int], tuple[int, Tagger]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_live": {}}  # what was learned can be learned again

    def init(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "level": 0, "measured": np.full((self.runs, 4), np.nan)}

    def step(self, state: dict[str, Any]) -> dict[str, Any]:
        seed, level = state["seed"], state["level"]
        measured = [self._measure(seed, fold, level) for fold in range(self.runs)]
        return {"seed": seed, "level": level + 1, "measured": np.array(measured)}

    def observe(self, state: dict[str, Any]) -> dict[str, Any]:
        measured = state["measured"]
        words, accuracy, unknown = measured[:, :3].mean(0)
        known = np.isfinite(measured[:, 3])
        there = measured[known, 3].mean() if known.any() else np.nan
        return {"words": words, "accuracy": accuracy, "unknown": unknown, "unknown_accuracy": there}

    def quantities(self) -> dict[str, Quantity]:
        gap = partial(Quantity, gaps=True)  # nothing is measured before the first step
        return {
            "words": gap("words"),
            "accuracy": gap("%"),
            "unknown": gap("%", about="share of words that were not learned from"),
            "unknown_accuracy": gap("%", about="accuracy on those words"),
        }

    def _measure(self, seed: int, fold: int, level: int) -> tuple[float, float, float, float]:
        text = self._text()
        learned, held_out = self._split(seed, fold)
        ends = np.cumsum(np.diff(text.starts)[learned])
        if self.sizes[level] > ends[-1]:
            raise ValueError(
                f"{self.sizes[level]:,} words are to be learned from, and {ends[-1]:,} are there"
            )
        cuts = np.searchsorted(ends, self.sizes[: level + 1]) + 1
        done, tagger = self._live.pop(
            (seed, fold), (0, make_tagger(self.tagger, lexicon_of(text), len(text.tag_names)))
        )
        for place in range(done, level + 1):
            begin = cuts[place - 1] if place else 0
            tagger.learn(Sentences.of(text, learned[begin : cuts[place]]))
        self._live[seed, fold] = (level + 1, tagger)
        test = Sentences.of(text, held_out)
        right = tagger.tag(test) == test.tags
        seen = np.zeros(len(text.words), bool)
        seen[Sentences.of(text, learned[: cuts[-1]]).tokens] = True
        new = ~seen[test.tokens]
        return (
            float(ends[cuts[-1] - 1]), 100 * right.mean(), 100 * new.mean(),
            100 * right[new].mean() if new.any() else np.nan,
        )  # fmt: skip

    def _text(self) -> TaggedText:
        return corpus(self.text) if isinstance(self.text, str) else self.text

    def _split(self, seed: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sentences to learn from, in order, and of those held out."""
        text = self._text()
        shuffled = np.random.default_rng(seed).permutation(text.sentences)
        held = np.arange(text.sentences) % self.folds == fold
        learned, held_out = shuffled[~held], shuffled[held]
        if self.order == "as it comes":
            learned = np.sort(learned)
        if self.test_words is not None:
            lengths = np.cumsum(np.diff(text.starts)[held_out])
            held_out = held_out[: np.searchsorted(lengths, self.test_words) + 1]
        return learned, held_out
