"""What words look like: endings and shapes, as whole numbers that taggers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latebloom.data import TaggedText

LONGEST = 10  # letters of an ending


@dataclass(frozen=True)
class Lexicon:
    """Of each word of a vocabulary [V]:

    - `endings` [LONGEST + 1, V]: number of the ending of 0, 1, ... letters (a shorter word is its own
      ending), words with and without a capital first letter apart.
    - `starts` [V]: number of the first letter. `shapes` [V]: capital, all capitals, digit, hyphen as
      the bits of a number below 16.
    """

    endings: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray

    @classmethod
    def of(cls, words: Sequence[str]) -> Lexicon:
        capital = np.array([word[:1].isupper() for word in words])
        kinds = [
            capital,
            np.array([word.isupper() and len(word) > 1 for word in words]),
            np.array([any(letter.isdigit() for letter in word) for word in words]),
            np.array(["-" in word for word in words]),
        ]
        shapes = sum(kind.astype(np.int32) << bit for bit, kind in enumerate(kinds))
        lower = [word.lower() for word in words]
        endings = [
            _numbered([(c, word[len(word) - m :] if m < len(word) else word)
                       for c, word in zip(capital.tolist(), lower, strict=True)])
            for m in range(LONGEST + 1)
        ]  # fmt: skip
        return cls(
            np.stack(endings), _numbered([word[:1] for word in lower]), np.asarray(shapes, np.int32)
        )


def _numbered(keys: Sequence[object]) -> np.ndarray:
    known: dict[object, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int32)


@dataclass(frozen=True)
class Sentences:
    """Some sentences of a text, one after the other.

    - `tokens`, `tags`: int32 [n]. `starts`: where each sentence begins, and n [sentences + 1].
    """

    tokens: np.ndarray
    tags: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, text: TaggedText, chosen: np.ndarray) -> Sentences:
        """The sentences of a text with these numbers, in this order."""
        lengths = np.diff(text.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(text.starts[chosen] - starts[:-1], lengths) + np.arange(starts[-1])
        return cls(text.tokens[places], text.tags[places], starts)

    @property
    def first(self) -> np.ndarray:
        """Whether a token begins a sentence [n]."""
        flags = np.zeros(len(self.tokens), bool)
        flags[self.starts[:-1]] = True
        return flags

    def shifted(self, values: np.ndarray, by: int, outside: int) -> np.ndarray:
        """`values` [n] of the token `by` places before (after, if negative) in the same sentence, or
        `outside`."""
        numbers = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        moved = np.full(len(values), outside, values.dtype)
        here = slice(by, None) if by > 0 else slice(None, by)
        there = slice(None, -by) if by > 0 else slice(-by, None)
        same = numbers[here] == numbers[there]
        moved[here] = np.where(same, values[there], outside)
        return moved
