"""Taggers that count: the most frequent tag with endings for unknown words, and hidden Markov models
of order 1 and 2, the latter after TnT (Brants, "TnT: a statistical part-of-speech tagger", 2000)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from latebloom.methods.learning_curves.lexicon import Lexicon, Sentences

RARE = 10  # times a word may occur for its endings to count, as in TnT


class WordTags:
    """How often each word had each tag; learns a part at a time."""

    def __init__(self, lexicon: Lexicon, tags: int):
        self.lexicon, self.tags = lexicon, tags
        self.counts = np.zeros((lexicon.shapes.size, tags), np.int32)
        self._seen = np.zeros(0, np.int64)  # word * tags + tag of every count above 0

    def learn(self, part: Sentences) -> None:
        codes, times = np.unique(
            part.tokens.astype(np.int64) * self.tags + part.tags, return_counts=True
        )
        flat = self.counts.reshape(-1)
        self._seen = np.concatenate([self._seen, codes[flat[codes] == 0]])
        flat[codes] += times.astype(np.int32)

    def known(self, words: np.ndarray) -> np.ndarray:
        return self.counts[words].max(1) > 0

    def by_ending(self, words: np.ndarray, length: int, rare: int | None = None) -> np.ndarray:
        """Tag counts [w, tags] of all words that share the ending of `length` letters with each of
        `words`; only of words seen at most `rare` times."""
        word, tag = np.divmod(self._seen, self.tags)
        times = self.counts.reshape(-1)[self._seen].astype(float)
        if rare is not None:
            totals = np.bincount(word, times, minlength=len(self.counts))
            times = np.where(totals[word] <= rare, times, 0.0)
        endings = self.lexicon.endings[length]
        table = sparse.csr_matrix(
            (times, (endings[word], tag)), shape=(int(endings.max()) + 1, self.tags)
        )
        return table[endings[words]].toarray()


class EndingTagger:
    """The most frequent tag of a word; of an unknown word, that of the longest known ending."""

    def __init__(self, lexicon: Lexicon, tags: int, longest: int = 3):
        self.words, self.longest = WordTags(lexicon, tags), longest

    def learn(self, part: Sentences) -> None:
        self.words.learn(part)

    def tag(self, text: Sentences) -> np.ndarray:
        types, which = np.unique(text.tokens, return_inverse=True)
        best = self.words.counts[types].argmax(1)
        unknown = np.flatnonzero(~self.words.known(types))
        for length in range(self.longest + 1):
            counts = self.words.by_ending(types[unknown], length)
            best[unknown] = np.where(counts.any(1), counts.argmax(1), best[unknown])
        return best[which].astype(np.int32)


class HiddenMarkov:
    """A hidden Markov model whose next tag depends on the last one or two (`order` 1 or 2).

    Transitions interpolate uni-, bi- and trigrams with weights by deleted interpolation; unknown words
    are known by endings of up to `longest` letters, smoothed from short to long. Decoding is exact among
    the `width` likeliest tags of each word.
    """

    def __init__(self, lexicon: Lexicon, tags: int, order: int, longest: int, width: int = 6):
        self.words, self.tags = WordTags(lexicon, tags), tags
        self.order, self.longest, self.width = order, longest, min(width, tags)
        self.trigrams = np.zeros((tags + 1,) * 3)  # the last index stands for outside the sentence

    def learn(self, part: Sentences) -> None:
        self.words.learn(part)
        before = part.shifted(part.tags, 1, self.tags)
        second = part.shifted(part.tags, 2, self.tags)
        ends = part.starts[1:] - 1
        self._count(second, before, part.tags)
        self._count(before[ends], part.tags[ends], np.full(len(ends), self.tags))

    def _count(self, second: np.ndarray, last: np.ndarray, tag: np.ndarray) -> None:
        places = np.ravel_multi_index((second, last, tag), self.trigrams.shape)
        np.add.at(self.trigrams.reshape(-1), places, 1)

    def transitions(self) -> np.ndarray:
        """P(tag | last) [tags + 1]^2 or P(tag | second last, last) [tags + 1]^3."""
        tri = self.trigrams
        pairs, bi = tri.sum(2), tri.sum(0)
        before, uni = bi.sum(1), bi.sum(0)
        total = uni.sum()
        single = np.broadcast_to((uni - 1) / max(total - 1, 1), bi.shape)
        double = _ratio(bi - 1, before[:, None] - 1)
        if self.order == 1:
            weight = _votes(bi, single, double)
            return weight[0] * uni / total + weight[1] * _ratio(bi, before[:, None])
        triple = _ratio(tri - 1, pairs[..., None] - 1)
        weight = _votes(tri, single, double, triple)
        lower = weight[0] * uni / total + weight[1] * _ratio(bi, before[:, None])
        return lower + weight[2] * _ratio(tri, pairs[..., None])

    def emissions(self, types: np.ndarray) -> np.ndarray:
        """P(word | tag) [w, tags], of unknown words up to a factor of the word."""
        counts = self.words.counts[types].astype(float)
        total = self.trigrams.sum((0, 1))[: self.tags]
        unknown = np.flatnonzero(~counts.any(1))
        found = _ratio(counts, total)
        found[unknown] = _ratio(self.by_ending(types[unknown]), total / total.sum())
        return found

    def by_ending(self, types: np.ndarray) -> np.ndarray:
        """P(tag | ending) [w, tags], smoothed from no letter to the longest known ending."""
        uni = self.trigrams.sum((0, 1))[: self.tags]
        uni = uni / uni.sum()
        pull = uni.std(ddof=1)
        found = np.broadcast_to(uni, (len(types), self.tags))
        for length in range(self.longest + 1):
            counts = self.words.by_ending(types, length, RARE)
            seen = counts.any(1, keepdims=True)
            share = _ratio(counts, counts.sum(1, keepdims=True))
            found = np.where(seen, (share + pull * found) / (1 + pull), found)
        return found

    def tag(self, text: Sentences) -> np.ndarray:
        types, which = np.unique(text.tokens, return_inverse=True)
        emissions = self.emissions(types)
        candidates = np.argsort(-emissions_by_tag(emissions, self.trigrams), 1, kind="stable")
        candidates = candidates[:, : self.width]
        with np.errstate(divide="ignore"):
            scores = np.log(np.take_along_axis(emissions, candidates, 1))
            moves = np.log(self.transitions())
        decode = viterbi if self.order == 2 else viterbi_bigram
        return decode(moves, candidates[which], scores[which], text.starts).astype(np.int32)


def emissions_by_tag(emissions: np.ndarray, trigrams: np.ndarray) -> np.ndarray:
    """P(word | tag) P(tag), by which candidate tags are ranked [w, tags]."""
    return emissions * trigrams.sum((0, 1))[: emissions.shape[1]]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is not positive."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)


def _votes(counts: np.ndarray, *estimates: np.ndarray) -> np.ndarray:
    """Weights of the estimates: every n-gram votes, by its count, for the one that would have been
    best had it been left out; ties go to the shorter one."""
    best = np.stack([np.broadcast_to(e, counts.shape) for e in estimates]).argmax(0)
    votes = np.bincount(best.ravel(), counts.ravel(), minlength=len(estimates))
    return votes / votes.sum()


def viterbi(
    moves: np.ndarray, candidates: np.ndarray, scores: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """The likeliest tags of each sentence under a trigram model, all sentences at once.

    - `moves`: log P(tag | second last, last) [tags + 1]^3, last index outside the sentence.
    - `candidates`: tags of each token [n, k]; `scores`: their log emissions. `starts`: of sentences.
    """
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    begin, lengths = starts[:-1][order], lengths[order]
    outside, k = moves.shape[0] - 1, candidates.shape[1]
    flat, side = moves.reshape(-1), moves.shape[0]
    last = np.full((len(order), k), outside)
    second = last.copy()
    best = np.full((len(order), k, k), -np.inf)
    best[:, 0, 0] = 0.0
    back = []
    for place in range(lengths.max(initial=0)):
        active = int((lengths > place).sum())
        now = candidates[begin[:active] + place]
        context = (second[:active, :, None] * side + last[:active, None, :]) * side
        reached = best[:active, :, :, None] + flat[context[..., None] + now[:, None, None, :]]
        back.append(reached.argmax(1).astype(np.int8))
        best[:active] = reached.max(1) + scores[begin[:active] + place][:, None, :]
        second[:active], last[:active] = last[:active], now
    final = best + moves[second[:, :, None], last[:, None, :], outside]
    one, two = np.divmod(final.reshape(len(order), -1).argmax(1), k)
    found = np.empty(len(candidates), np.int64)
    for place in range(len(back) - 1, -1, -1):
        active = back[place].shape[0]
        rows, at = np.arange(active), begin[:active] + place
        found[at] = candidates[at, two[:active]]
        before = back[place][rows, one[:active], two[:active]]
        one[:active], two[:active] = before, one[:active].copy()
    return found


def viterbi_bigram(
    moves: np.ndarray, candidates: np.ndarray, scores: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """As `viterbi`, under a bigram model: `moves` is log P(tag | last) [tags + 1]^2."""
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")
    begin, lengths = starts[:-1][order], lengths[order]
    outside, k = moves.shape[0] - 1, candidates.shape[1]
    last = np.full((len(order), k), outside)
    best = np.full((len(order), k), -np.inf)
    best[:, 0] = 0.0
    back = []
    for place in range(lengths.max(initial=0)):
        active = int((lengths > place).sum())
        now = candidates[begin[:active] + place]
        reached = best[:active, :, None] + moves[last[:active, :, None], now[:, None, :]]
        back.append(reached.argmax(1).astype(np.int8))
        best[:active] = reached.max(1) + scores[begin[:active] + place]
        last[:active] = now
    here = (best + moves[last, outside]).argmax(1)
    found = np.empty(len(candidates), np.int64)
    for place in range(len(back) - 1, -1, -1):
        active = back[place].shape[0]
        at = begin[:active] + place
        found[at] = candidates[at, here[:active]]
        here[:active] = back[place][np.arange(active), here[:active]]
    return found
