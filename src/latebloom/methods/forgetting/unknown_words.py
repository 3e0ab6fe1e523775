"""Does forgetting embeddings help a language model with words it never saw, on sequences of one's own?

`assess` trains masked language models with and without it, and asks them for words that were held out, in
sequences where the word comes twice and one of the two is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pandas as pd
import xarray as xr
from jaxtyping import PRNGKeyArray

from latebloom.core.process import advanced
from latebloom.core.unfold import unfold
from latebloom.methods.forgetting.corpus import (
    COMMON,
    EXAMS,
    FIRST,
    MIDDLE,
    Corpus,
    CorpusLearner,
    bias_at,
    embeddings_at,
)
from latebloom.methods.forgetting.embeddings import Forgetting
from latebloom.methods.forgetting.intervals import not_behind, resampled_interval
from latebloom.nn.masked_lm import MaskedLM

PLAIN, TEMPORARY, ACTIVE = "plain training", "temporary forgetting", "active forgetting"
METHODS = (PLAIN, TEMPORARY, ACTIVE)
AS_DRAWN, MENDED = "", ", mended"
FEWEST = 4  # splits, before a lead can be sure


@dataclass(frozen=True)
class Assessed:
    """What was found.

    - `exams`: of each method and exam the share told `right` of all words, and `chosen` of those of the sequence, with
      95 % intervals over splits, and what a `guess` among the latter would get.
    - `ways`: each method, and each with its new embeddings mended, on words that were held out, the best first;
      `behind`: whether the best is surely above it.
    - `costs`: what a method tells fewer of the known words that come once than plain training does, by frequency.
    - `learned`: whether any method surely tells known words more often than a guess; None if none was asked for.
    - `curves`: shares by update. `asked`: the least number of questions about words that were held out, or known and repeated, that a split had.
    """

    exams: pd.DataFrame
    ways: pd.DataFrame
    costs: pd.DataFrame
    curves: pd.DataFrame
    corpus: Corpus
    traces: Mapping[str, xr.Dataset]
    learned: bool | None
    asked: int

    @property
    def best(self) -> str:
        return str(self.ways["way"].iloc[0])

    @property
    def alike(self) -> list[str]:
        """Ways that the best is not surely above."""
        return self.ways["way"][1:][~self.ways["behind"][1:].astype(bool)].tolist()


def assess(
    sequences: Sequence[Sequence[Hashable]], *, words: int = 2000, length: int = 32, methods: Sequence[str] = METHODS,
    steps: int = 10_000, every: int = 50, until: int | None = None, rate: float = 1e-3, batch: int = 32, seeds: int = 5,
    network: Callable[[int, int, PRNGKeyArray], Any] | None = None, embedding: Callable[[Any], Any] | None = None,
    say: Callable[[str, float], None] = lambda what, share: None,
) -> Assessed:  # fmt: skip
    """Masked language models, each trained in several ways on `seeds` splits of the sequences.

    - Tokens are anything that can be a key. Sequences are cut into pieces of `length`; the `words` most frequent tokens
      are the vocabulary.
    - Embeddings are forgotten every `every` updates before update `until` (half of the `steps`, if None), or, as
      "active forgetting", to the end. AdamW at `rate`, `batch` sequences an update.
    - `network(vocabulary, positions, key)`: two layers of 64 features, or any Equinox module that `CorpusLearner` takes;
      `embedding(model)`: where its embeddings are, if that is not found.

    Raises `ValueError` for too few or too short sequences, unknown methods, and settings out of range.
    """
    least = {"steps": (steps, 10), "every": (every, 1), "batch": (batch, 1), "seeds": (seeds, 2)}
    until = max(steps // 2, 1) if until is None else until
    for name, (value, low) in (least | {"until": (until, 1)}).items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{name} must be a whole number from {low}, not {value}")
    if not 0 < rate < np.inf:
        raise ValueError(f"rate must be above 0, not {rate}")
    unknown = [name for name in methods if name not in METHODS]
    if unknown or PLAIN not in methods:
        raise ValueError(f'methods must be "{PLAIN}" and any of {", ".join(METHODS[1:])}, not {", ".join(methods)}')  # fmt: skip
    corpus = Corpus.of(sequences, words=words, length=length)
    learner = partial(
        _learner,
        network=network,
        embedding=embedding,
        rate=rate,
        batch=batch,
        every=every,
        until=until,
    )
    traces = {}
    for i, method in enumerate(methods):
        say(method, i / len(methods))
        at = np.unique(np.linspace(0, steps, 21).round().astype(int))
        traces[method] = unfold(learner(corpus, method), seeds=seeds, at=at, progress=False)
        if (traces[method].diverged_at >= 0).any():
            raise ValueError(f"{method} diverged at rate {rate:g}: take a smaller one")
    last = {method: trace.isel(step=-1) for method, trace in traces.items()}
    exams = pd.DataFrame([_row(method, exam, last[method].sel(exam=exam)) for method in methods for exam in EXAMS])  # fmt: skip
    known = exams[(exams["exam"] == "repeated") & exams["chosen"].notna()]
    return Assessed(
        exams, _ways(last), _costs(last), _curves(traces), corpus, traces,
        bool((known["chosen_low"] > known["guess"]).any()) if len(known) else None, int(last[PLAIN].questions.sel(exam=["novel", "repeated"]).min()),
    )  # fmt: skip


def trained_model(
    sequences: Sequence[Sequence[Hashable]], method: str, *, words: int = 2000, length: int = 32, steps: int = 10_000, every: int = 50,
    until: int | None = None, rate: float = 1e-3, batch: int = 32, seed: int = 0,
    network: Callable[[int, int, PRNGKeyArray], Any] | None = None, embedding: Callable[[Any], Any] | None = None,
) -> tuple[Any, tuple[Hashable, ...]]:  # fmt: skip
    """A model trained as `assess` trains, but no word is held out; and its words, whose first row is FIRST.

    A tenth of the sequences is left out all the same.
    """
    corpus = replace(Corpus.of(sequences, words=words, length=length), held=0)
    until = max(steps // 2, 1) if until is None else until
    process = _learner(corpus, method, network=network, embedding=embedding, rate=rate, batch=batch, every=every, until=until)  # fmt: skip
    state = eqx.filter_jit(process.init)(jax.random.key(seed))
    return advanced(process, state, steps).model, corpus.words


def usual(
    model: Any, words: int, embedding: Callable[[Any], Any] | None = None
) -> tuple[float, float | None]:
    """Mean length of the embeddings of a model's `words`, and mean output bias if it has one: what a new word may be given."""
    length = np.linalg.norm(_rows(model, words, embedding), axis=1).mean()
    at = bias_at(model, FIRST + words)
    return float(length), None if at is None else float(np.asarray(at(model), np.float64)[FIRST:].mean())  # fmt: skip


def _rows(model: Any, words: int, embedding: Callable[[Any], Any] | None) -> np.ndarray:
    """Embeddings [words, size] of a model."""
    where = embeddings_at(model, FIRST + words) if embedding is None else embedding
    return np.asarray(where(model), np.float64)[FIRST:]


def _learner(
    corpus: Corpus, method: str, *, network: Callable[[int, int, PRNGKeyArray], Any] | None, embedding: Callable[[Any], Any] | None,
    rate: float, batch: int, every: int, until: int,
) -> CorpusLearner:  # fmt: skip
    how = {PLAIN: None, TEMPORARY: Forgetting(every, until), ACTIVE: Forgetting(every)}[method]
    return CorpusLearner(
        corpus, network=_small if network is None else network, optimiser=lambda rate: optax.adamw(rate, weight_decay=0.01),
        hyper={"rate": rate}, how=how, batch=batch, embedding=embedding,
    )  # fmt: skip


def _small(vocabulary: int, positions: int, key: PRNGKeyArray) -> MaskedLM:
    return MaskedLM(vocabulary, positions, key=key, size=64, heads=2, hidden=128, layers=2, dropout=0.1)  # fmt: skip


def _row(method: str, exam: str, last: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"method": method, "exam": exam}
    for name in ("right", "chosen"):
        found |= _interval(name, last[name].values, _ratio(last))
    return found | {"guess": _interval("guess", last["guess"].values, 0.0)["guess"]}


def _ratio(last: xr.Dataset) -> float:
    """Of sequences examined to those trained on: splits overlap by so much."""
    return float(last["ratio"].mean())


def _interval(name: str, values: np.ndarray, ratio: float) -> dict[str, float]:
    """Mean and 95 % interval over splits that had such questions, within 0 and 1; NaN for fewer than two of them."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = resampled_interval(values, ratio)
    return {name: float(values.mean()), f"{name}_low": max(low, 0.0), f"{name}_high": min(high, 1.0)}  # fmt: skip


def _ways(last: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """On words that were held out, the best first. With fewer than FEWEST splits none is surely behind it."""
    ratio = _ratio(last[PLAIN].sel(exam="novel"))
    right = {
        method + how: trace.right.sel(exam=f"novel{'/mended' if how else ''}").values
        for method, trace in last.items() for how in (AS_DRAWN, MENDED)
    }  # fmt: skip
    order = sorted(right, key=lambda way: -right[way].mean())
    near = not_behind(np.stack([right[way] for way in order]), ratio, FEWEST)
    rows = [
        {"way": way, **_interval("right", right[way], ratio), "behind": not close}
        for way, close in zip(order, near.tolist(), strict=True)
    ]
    return pd.DataFrame(rows)


def _costs(last: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    rows = []
    for method, trace in last.items():
        for exam in EXAMS[3:]:
            if method == PLAIN:
                continue
            cost = (last[PLAIN].right - trace.right).sel(exam=exam).values
            cost = cost[np.isfinite(cost)]
            if len(cost) < 2:
                continue
            low, high = resampled_interval(cost, _ratio(trace.sel(exam=exam)))
            rows.append({"method": method, "exam": exam, "cost": float(cost.mean()), "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "exam", "cost", "low", "high"])


def _curves(traces: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    rows = []
    for method, trace in traces.items():
        for exam in EXAMS:
            values = trace.right.sel(exam=exam).transpose("seed", "step").values
            for step, each in zip(trace.step.values, values.T, strict=True):
                if np.isfinite(each).any():
                    rows.append({"method": method, "exam": exam, "update": int(step), "right": float(np.nanmean(each)),
                                 "least": float(np.nanmin(each)), "most": float(np.nanmax(each))})  # fmt: skip
    return pd.DataFrame(rows)


def bands(words: int) -> np.ndarray:
    """Of each word in order of frequency: 0 common, 1 in the middle, 2 rare."""
    return np.digitize(np.arange(words) / words, [COMMON, MIDDLE])


def components(model: Any, words: int, embedding: Callable[[Any], Any] | None = None) -> np.ndarray:
    """Two principal components [words, 2] of embeddings."""
    rows = _rows(model, words, embedding)
    rows = rows - rows.mean(axis=0)
    left, size, _ = np.linalg.svd(rows, full_matrices=False)
    return left[:, :2] * size[:2]
