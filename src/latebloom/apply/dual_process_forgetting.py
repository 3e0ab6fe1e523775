"""Sequences of tokens in; whether forgetting embeddings helps with words that were never seen, and a model, out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from matplotlib.figure import Figure

from latebloom.core.checkpoint import write_atomically
from latebloom.data.columns import FileError
from latebloom.data.sequences import read_sequences
from latebloom.lab import Application, Applied, pictures
from latebloom.lab.application import Say
from latebloom.methods.forgetting.corpus import FIRST
from latebloom.methods.forgetting.unknown_words import (
    MENDED,
    METHODS,
    PLAIN,
    Assessed,
    assess,
    bands,
    components,
    trained_model,
    usual,
)

BANDS = ("common", "middle", "rare")
NAMES = {"novel": "never seen", "novel/mended": "never seen, mended", "repeated": "known, as rare", "once/common": "common, once",
         "once/middle": "in the middle, once", "once/rare": "rare, once"}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """- `words`: the vocabulary is so many of the most frequent tokens. `length`: sequences are cut to it.
    - `pad`: this number at either end of sequences of numbers is padding (0, mostly); -1: they have none.
    - `methods` that are compared; `steps` updates on `batch` sequences at `rate`, on `seeds` splits.
    - Embeddings are forgotten every `every` updates, before update `until` (0: half of the steps) under temporary
      forgetting.
    """

    words: int = 2000
    length: int = 32
    pad: int = -1
    methods: tuple[str, ...] = METHODS
    steps: int = 10_000
    every: int = 50
    until: int = 0
    rate: float = 1e-3
    batch: int = 32
    seeds: int = 5


def run(paths: Sequence[Path], options: Options, say: Say) -> Applied:
    if len(paths) != 1:
        raise FileError(f"give one file of sequences, not {', '.join(map(str, paths)) or 'nothing'}")  # fmt: skip
    say("reading the sequences", 0.0)
    sequences = read_sequences(paths[0], options.pad)
    same: dict[str, Any] = {
        "words": options.words, "length": options.length, "steps": options.steps, "every": options.every,
        "until": options.until if options.until else None, "rate": options.rate, "batch": options.batch,
    }  # fmt: skip
    try:
        found = assess(
            sequences, methods=options.methods, seeds=options.seeds, **same,
            say=lambda what, share: say(what, 0.02 + 0.75 * share),
        )  # fmt: skip
    except ValueError as error:
        raise FileError(f"{paths[0]}: {error}") from None
    say("training on all words", 0.8)
    method = found.best.removesuffix(MENDED)
    model, words = trained_model(sequences, method, **same)
    length, bias = usual(model, len(words))
    say("drawing", 0.97)
    summary = {
        "sequences": len(found.corpus.tokens), "vocabulary": len(words), "not_in_the_vocabulary": found.corpus.left_out,
        "held_out_words": found.corpus.held, "learned": found.learned, "best": found.best, "alike": found.alike,
        "model": method, "first_word": FIRST, "positions": found.corpus.tokens.shape[1], "usual_length": length, "usual_bias": bias,
    }  # fmt: skip
    figures = {"exams": draw_exams(found), "course": draw_course(found), "embeddings": draw_embeddings(model, len(words), method)}  # fmt: skip
    files = {"model.eqx": partial(write_model, model), "words.json": partial(write_words, words)}
    new = f"Give a word that is new to the model an embedding of length {length:.3g}" + (
        "." if bias is None else f" and a bias of {bias:.3g}."
    )
    return Applied(
        (*sentences(found), new), summary, {"exams": found.exams, "ways": found.ways, "costs": found.costs, "curves": found.curves}, figures, files
    )  # fmt: skip


def write_model(model: Any, path: Path) -> None:
    """Leaves of a `MaskedLM`, to be read by `equinox.tree_deserialise_leaves`."""
    aside = path.with_name(path.name + ".part")
    eqx.tree_serialise_leaves(aside, model)
    aside.replace(path)


def write_words(words: Sequence[Any], path: Path) -> None:
    write_atomically(path, (json.dumps(list(words), ensure_ascii=False) + "\n").encode())


def sentences(found: Assessed) -> tuple[str, ...]:
    corpus, ways = found.corpus, found.ways.set_index("way")
    exams = found.exams.set_index(["exam", "method"])
    plain, guess = exams.loc[("repeated", PLAIN), "right"], exams.loc[("novel", PLAIN), "guess"]
    known = (
        "no word as rare that it knows was asked for"
        if np.isnan(plain)
        else f"{percent(plain)} of words as rare that it knows"
    )
    best, others = found.best, found.alike
    told = f"[{percent(ways.loc[best, 'right_low'])}, {percent(ways.loc[best, 'right_high'])}]"
    said = [
        f"Of hidden words that were never trained on, {best} tells {percent(ways.loc[best, 'right'])} {told} from their other place in the "
        f"sequence, where a pick among its words would tell {percent(guess)}" + (f"; not surely fewer: {', '.join(others)}." if others else ", surely the most."),
        f"Plain training tells {percent(ways.loc[PLAIN, 'right'])} of them as it is, {percent(ways.loc[PLAIN + MENDED, 'right'])} where a new word's "
        f"embedding and bias are given the length and value that known words have; {known}.",
    ]  # fmt: skip
    for method in found.costs["method"].unique():
        rows = found.costs[found.costs["method"] == method]
        told = ", ".join(
            f"{str(row['exam']).removeprefix('once/')} {points(row['cost'])} [{points(row['low'])}, {points(row['high'])}]"
            for _, row in rows.iterrows()
        )
        said.append(f"What {method} costs on known words that come once, in points: {told}.")
    if found.learned is None:
        said.insert(
            0,
            "Too few sequences for exams on known words: whether anything was learned cannot be told.",
        )
    elif not found.learned:
        said.insert(0, "No way of training tells hidden words that it knows more often than a guess among those of the sequence: "
                       "nothing can be said of forgetting; try more steps.")  # fmt: skip
    said.append(
        f"{len(corpus.tokens):,} sequences of up to {corpus.tokens.shape[1]} tokens; {percent(corpus.left_out)} of the tokens are none of the "
        f"{len(corpus.words):,} words of the vocabulary; {corpus.held} words are held out in a split."
    )  # fmt: skip
    if found.asked < 50:
        said.append(f"Some split has only {found.asked} questions about repeated words: read the shares with care.")  # fmt: skip
    return tuple(said)


def percent(value: Any) -> str:
    return f"{100 * float(value):.0f} %"


def points(value: Any) -> str:
    return f"{100 * float(value):.1f}"


def draw_exams(found: Assessed) -> Figure:
    figure, (ax,) = pictures.panels(1, width=8, height=3.8)
    methods = list(found.traces)
    for i, method in enumerate(methods):
        rows = found.exams[found.exams["method"] == method]
        x = np.arange(len(rows)) + 0.18 * (i - (len(methods) - 1) / 2)
        middle = 100 * rows["right"]
        bars = [middle - 100 * rows["right_low"], 100 * rows["right_high"] - middle]
        ax.errorbar(x, middle, yerr=bars, fmt="osD"[i % 3], markersize=5, capsize=2, color=pictures.nth_look(i)["colour"], label=method)  # fmt: skip
    ax.set_xticks(range(len(NAMES)), [name.replace(", ", ",\n") for name in NAMES.values()])
    ax.set(ylabel="hidden words told in %, 95 %", ylim=(-2, 102))
    pictures.legend_below(figure)
    return figure


def draw_course(found: Assessed) -> Figure:
    shown = ("novel", "novel/mended", "repeated", "once/common")
    figure, axes = pictures.panels(4, 4, width=12.5, height=3.3, sharey=True)
    for ax, exam in zip(axes, shown, strict=True):
        for i, method in enumerate(found.traces):
            rows = found.curves[(found.curves["exam"] == exam) & (found.curves["method"] == method)]
            look = pictures.nth_look(i)
            ax.plot(rows["update"], 100 * rows["right"], color=look["colour"], linestyle=look["linestyle"], label=method)  # fmt: skip
            ax.fill_between(rows["update"], 100 * rows["least"], 100 * rows["most"], color=look["colour"], alpha=0.15, linewidth=0)  # fmt: skip
        ax.set(title=NAMES[exam], xlabel="update", ylim=(-2, 102))
    axes[0].set_ylabel("hidden words told in %")
    pictures.legend_below(figure)
    return figure


def draw_embeddings(model: Any, words: int, method: str) -> Figure:
    figure, (ax,) = pictures.panels(1, width=5, height=4.2)
    places, band = components(model, words), bands(words)
    for i in (2, 1, 0):
        ax.scatter(*places[band == i].T, s=8, alpha=0.7, color=pictures.nth_look(i)["colour"], marker="osD"[i], label=BANDS[i])  # fmt: skip
    ax.set(xlabel="first principal component", ylabel="second principal component", title=f"embeddings, {method}")  # fmt: skip
    ax.legend(fontsize=8, title="words")
    return figure


application = Application(
    about="Sequences of tokens: a masked language model is trained with and without forgetting its embeddings; out come how often it tells "
    "words that it never saw, what that costs on known ones, and a trained model.",
    files="one file of sequences: .txt with a sequence a line, .npy of whole numbers [sequences, length], or .jsonl with lists, or objects "
    "with input_ids or tokens",
    options=Options,
    run=run,
)
