"""Sequences of tokens from a user's file: words in lines, numbers in an array, or what a tokeniser put out."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from latebloom.data.columns import FileError, shown
from latebloom.data.delimited import read_text

FIELDS = ("input_ids", "tokens", "ids", "words")


def read_sequences(path: Path, pad: int = -1) -> list[list[Hashable]]:
    """The sequences of a file, each a list of tokens: text or whole numbers.

    - `.txt`: a sequence a line, tokens with white space between them; empty lines are passed over.
    - `.npy`: whole numbers [sequences, length]; below 0 is padding.
    - `.jsonl`: a line each, a list, or an object with one under `input_ids`, `tokens`, `ids` or `words`; where it
      has an `attention_mask`, what that leaves out is padding.

    - `pad`: this number at either end of a sequence is padding, too; -1: there is none.

    Raises `FileError` that names the line and what to do.
    """
    found = _read(path)
    return [_within(sequence, pad) for sequence in found]


def _within(sequence: list[Hashable], pad: int) -> list[Hashable]:
    """Without padding at its ends."""
    words = [i for i, token in enumerate(sequence) if token != pad]
    return sequence[words[0] : words[-1] + 1] if words else []


def _read(path: Path) -> list[list[Hashable]]:
    kind = path.suffix.lower()
    if kind == ".npy":
        return _array(path)
    if kind == ".jsonl":
        found = [_line(n, line, path) for n, line in _lines(path)]
    elif kind == ".txt":
        found = [line.split() for _, line in _lines(path)]
    else:
        raise FileError(f"{path} must be .txt, .npy or .jsonl: a sequence of tokens a line or row")
    kinds = {type(token) for sequence in found for token in sequence}
    if len(kinds) > 1:
        raise FileError(f"{path} has both numbers and text as tokens: give one or the other")
    return found  # pyright: ignore


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    text = read_text(path)
    return ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _line(n: int, line: str, path: Path) -> list[Hashable]:
    where = f"{path}, line {n}"
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where} is no JSON ({shown(error, quoted=False)})") from None
    kept = None
    if isinstance(read, dict):
        name = next((name for name in FIELDS if name in read), None)
        if name is None:
            raise FileError(f"{where} has none of {', '.join(FIELDS)}: put the tokens under one of them")  # fmt: skip
        kept, read = read.get("attention_mask"), read[name]
    if not isinstance(read, list) or not all(
        isinstance(token, int | str) and not isinstance(token, bool) for token in read
    ):
        raise FileError(f"{where} must hold a list of whole numbers or of text, not {shown(read)}")
    if kept is None:
        return read
    if not isinstance(kept, list) or len(kept) != len(read) or not all(k in (0, 1) for k in kept):
        raise FileError(f"{where}: attention_mask must hold a 0 or 1 for each of the {len(read)} tokens")  # fmt: skip
    return [token for token, whether in zip(read, kept, strict=True) if whether]


def _array(path: Path) -> list[list[Hashable]]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{path} is not an array that can be read ({shown(error, quoted=False)})") from None  # fmt: skip
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise FileError(f"{path} must hold whole numbers [sequences, length], not {found.dtype} {list(found.shape)}")  # fmt: skip
    return [row[row >= 0].tolist() for row in found]


def pieces(sequences: Iterable[Sequence[Hashable]], length: int) -> list[Sequence[Hashable]]:
    """Sequences cut into pieces of at most `length` tokens, one after the other; pieces of one token are left out."""
    found: list[Sequence[Hashable]] = []
    for sequence in sequences:
        rest = iter(sequence)
        while len(piece := list(islice(rest, length))) > 1:
            found.append(piece)
    return found
