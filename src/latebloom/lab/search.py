"""Search in plain words: what studies say of themselves, and what papers not built yet would answer.

A query is compared twice with each paper. *Words*: BM25, whose words lose their endings. *Meaning*:
static embeddings (WordLlama's, out of its package), in which "annotator" is near "label". JAX is
not imported, and nothing is fetched.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latebloom.lab.index import Entry, entries

SHARE_OF_WORDS = 0.3  # of the score; both chosen on tests/lab/search_development.csv
LEVEL = 0.27  # below it nothing fits
SATURATION, LENGTH = 1.2, 0.4  # BM25's k1 and b
BESIDE = 0.6  # of the best score, which others must reach to be shown with it
NEAREST = 3  # sentences of a paper that count beside its best one
TYPO = 0.84  # likeness of a misspelt word to the one that is meant

STOP_WORDS = frozenset(
    "a about all am an and any are as at be been but by can could did do does for from get had has "
    "have how i if in into is it its just like make me more most my no not of on or our own should "
    "so some such than that the their them then there these they this to use us want was we were "
    "what when where which while who whose why will with would you your".split()
)
ENDINGS = (
    "isations", "izations", "isation", "ization", "ations", "ation", "ising", "izing", "ised",
    "ized", "ises", "izes", "ings", "ise", "ize", "ing", "ies", "ers", "ed", "es", "er", "ly", "s",
    "e", "y",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A paper that fits a query, whether its study is built, and how well it fits, from 0 to 1."""

    entry: Entry
    built: bool
    score: float


@functools.cache
def planned() -> list[Entry]:
    """Papers whose studies are not built yet; one leaves the list when a study takes its name."""
    rows = json.loads(Path(__file__).with_name("planned.json").read_text(encoding="utf-8"))
    built = {e.slug for e in entries()}
    return [Entry(**row, claims=[]) for row in rows if row["slug"] not in built]


def search(text: str) -> list[Found]:
    """The papers that fit `text`, best first; none where nothing reaches the level.

    A paper's name, title or arXiv id scores 1. Otherwise three tenths of the score are for words
    that query and paper share, the rare ones counting more, and seven tenths for the cosine
    between the query and the paper's sentences.
    """
    known = Library.of_all()
    if named := [e for e in known.entries if _names(e, text)]:
        return [Found(e, e.slug in known.built, 1.0) for e in named]
    words, meaning = known.scores(text)
    total = SHARE_OF_WORDS * words + (1 - SHARE_OF_WORDS) * meaning
    order = np.argsort(-total, kind="stable")
    return [
        Found(known.entries[i], known.entries[i].slug in known.built, float(total[i]))
        for i in order
        if total[i] >= LEVEL
    ]


def shortlist(found: list[Found], most: int = 5) -> list[Found]:
    """The first few of what `search` found, without those that fit far worse than the best."""
    return [f for f in found[:most] if f.score >= BESIDE * found[0].score]


def _names(entry: Entry, text: str) -> bool:
    """Whether `text` is the paper's name or title, or holds its arXiv id."""
    plain = _plain(text).strip(" \"'.")
    ids = re.findall(r"(?<![\d.])\d{4}\.\d{4,5}(?=v\d|\D|$)", plain)
    return entry.arxiv in ids or re.sub(r"[\s_]+", "-", plain) == entry.slug or (
        plain == _plain(entry.title).strip(" .")
    )  # fmt: skip


def _plain(text: str) -> str:
    """Text in one case, compatible characters made one, spaces single."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def stem(word: str) -> str:
    """A word without its ending: labelled, labels and labelling are one."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            if ending != "y" or word[-2] not in "aeiou":  # delay, delays
                word = word[: -len(ending)]
            break
    word = word.replace("our", "or") if len(word) > 5 else word  # behaviour, behavior
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


def words_of(text: str) -> list[str]:
    """The words that bear meaning."""
    return [w for w in re.findall(r"\w+(?:\.\d+)?", _plain(text)) if w not in STOP_WORDS]


class _Embedding:
    """WordLlama's table of tokens (32,000 of 256 dimensions) and its tokenizer.

    They are read from the package's files: importing the package would set up the root logger.
    """

    def __init__(self) -> None:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        found = importlib.util.find_spec("wordllama")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(
                "search needs the package wordllama: pip install wordllama", name="wordllama"
            )
        folder = Path(found.submodule_search_locations[0])
        tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        with safe_open(folder / "weights" / "l2_supercat_256.safetensors", "np") as file:
            self.table = file.get_tensor("embedding.weight")

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Unit vectors [texts, 256]; zero where a text is empty."""
        plain = [_plain(t) for t in texts]
        vectors = np.zeros((len(texts), self.table.shape[1]), np.float32)
        for i, found in enumerate(self.tokenizer.encode_batch(plain, add_special_tokens=False)):
            vectors[i] = self.table[found.ids].sum(0, dtype=np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def knows(self, word: str) -> bool:
        """Whether a word is a token of its own: it is then no typing error."""
        return len(self.tokenizer.encode(word, add_special_tokens=False).ids) == 1


class Library:
    """Entries made ready to be compared with queries."""

    def __init__(self, built: list[Entry], coming: list[Entry]) -> None:
        self.entries, self.built = [*built, *coming], {e.slug for e in built}
        self.embedding = _Embedding()
        sentences = [
            [*e.symptoms, e.question, e.title, f"{e.slug}, {e.family}".replace("-", " ").replace("_", " ")]
            for e in self.entries
        ]  # fmt: skip
        self.owners = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
        self.sentences = self.embedding([s for of_one in sentences for s in of_one])
        # Symptoms are what people type: they count threefold.
        documents = [
            words_of(" ".join([*(e.symptoms * 2), *of_one, *e.claims]))
            for e, of_one in zip(self.entries, sentences, strict=True)
        ]
        self.spelt = sorted({w for d in documents for w in d if len(w) > 4 and w.isalpha()})
        counts = [Counter(map(stem, d)) for d in documents]
        self.column = {w: j for j, w in enumerate(sorted({w for c in counts for w in c}))}
        times = np.zeros((len(counts), len(self.column)))
        for i, c in enumerate(counts):
            times[i, [self.column[w] for w in c]] = list(c.values())
        lengths = times.sum(1, keepdims=True)
        self.said = times / (times + SATURATION * (1 - LENGTH + LENGTH * lengths / lengths.mean()))
        self.rarity = _rarity((times > 0).sum(0), len(counts))

    @staticmethod
    @functools.cache
    def of_all() -> Library:
        return Library(entries(), planned())

    def scores(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Words and meaning, each [entries], from 0 to 1.

        Words: BM25 over the root of the weight of all words of the query, since a long question
        has many that no paper uses. Meaning: the mean of the best sentence and of the best three.
        """
        nothing = np.zeros(len(self.entries))
        text = re.sub(r"\w+", lambda word: self._meant(word[0]), _plain(text))
        if not (words := words_of(text)):
            return nothing, nothing
        stems = set(map(stem, words))
        columns = [self.column[s] for s in stems if s in self.column]
        unknown = len(stems) - len(columns)
        weights = self.rarity[columns]
        rarest = _rarity(np.array(0), len(self.entries))
        asked = np.sqrt((weights.sum() + unknown * rarest) * rarest)
        by_word = np.minimum(self.said[:, columns] @ weights / asked, 1)

        near = np.maximum(self.sentences @ self.embedding([text])[0], 0)
        by_meaning = nothing.copy()
        for i in range(len(self.entries)):
            best = np.sort(near[self.owners == i])[::-1][:NEAREST]
            by_meaning[i] = (best[0] + best.mean()) / 2
        return by_word, by_meaning

    def _meant(self, word: str) -> str:
        """The word that entries use and that a misspelt one is like; otherwise the word itself."""
        if len(word) < 5 or stem(word) in self.column or self.embedding.knows(word):
            return word
        return next(iter(difflib.get_close_matches(word, self.spelt, 1, TYPO)), word)


def _rarity(papers: np.ndarray, of: int) -> np.ndarray:
    """BM25's weight of a word that so many papers use."""
    return np.log(1 + (of - papers + 0.5) / (papers + 0.5))
