"""What is said of the traces of `Separation`, in the vocabulary of `latebloom.measures`.

All of it is at the end of training, but for the probe of unseen classes.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from latebloom.measures import Effect, Measure, Traces, setting
from latebloom.methods.forgetting.mixing import CLOSEST


def _last(name: str, trace: xr.Dataset) -> np.ndarray:
    """A quantity at the last observation, [seed, ...]."""
    return trace[name].isel(step=-1).transpose("seed", ...).values.astype(float)


def _between(trace: xr.Dataset, name: str = "apart") -> Float[np.ndarray, "seed pair"]:
    """Distances of each pair of classes at the end, of their mean features or `online` prototypes, [seed, pair]."""
    apart = _last(name, trace)
    return apart[:, *np.triu_indices(apart.shape[1], 1)]


def _confused(trace: xr.Dataset) -> Float[np.ndarray, "seed pair"]:
    """Per cent of both classes of each pair told as the other one at the end, [seed, pair]."""
    table = _last("confusion", trace)
    a, b = np.triu_indices(table.shape[1], 1)
    return 50 * (table[:, a, b] + table[:, b, a])


def _spearman(apart: Float[np.ndarray, "seed pair"], confused: Float[np.ndarray, "seed pair"]) -> np.ndarray:  # fmt: skip
    """Rank correlation of nearness and confusion over the pairs that have a distance; NaN for fewer than three."""
    found = np.full(len(apart), np.nan)
    for i, (a, b) in enumerate(zip(apart, confused, strict=True)):
        there = np.isfinite(a)
        if there.sum() > 2 and np.ptp(a[there]) > 0 and np.ptp(b[there]) > 0:
            found[i] = np.corrcoef(rankdata(-a[there]), rankdata(b[there]))[0, 1]
    return found


def _others(apart: Float[np.ndarray, "seed pair"]) -> Float[np.ndarray, "seed pair"]:
    """Distances of other pairs: another order for each seed, since classes alike are alike in all."""
    return np.random.default_rng(0).permuted(apart, axis=1)


def senses_by(watched: str, arm: str) -> Effect:
    """How well nearness in one arm tells what another one confuses: the same networks, or others on the same seeds."""

    def of(traces: Traces) -> np.ndarray:
        return _spearman(_between(traces[watched]), _confused(traces[arm]))

    return Effect((watched, arm), f"Spearman of nearness in {watched} and confusion in {arm}", of)


def _moved(trace: xr.Dataset) -> np.ndarray:
    """Share of the pairs to be drawn that their distances move from one pair to another, against pairs drawn alike, after
    chances are rounded to counts (`mixing.pair_counts`); mean over the ends of tasks from the second."""
    replayed = setting(trace, "replay")
    drawn = replayed - int(setting(trace, "base") * replayed + 1e-4)
    apart = trace.online.transpose("seed", "step", ...).values[:, 2:].astype(float)
    apart = apart[..., *np.triu_indices(apart.shape[-1], 1)]
    there = np.isfinite(apart)
    known = there.sum(axis=-1, keepdims=True)
    near = setting(trace, "sharpness") / np.maximum(np.where(there, apart, 1), CLOSEST)
    weight = np.where(there, np.exp(near - np.where(there, near, 0).max(axis=-1, keepdims=True)), 0)
    counts = np.round(drawn * weight / np.where(known > 0, weight.sum(axis=-1, keepdims=True), np.nan))  # fmt: skip
    over = drawn - counts.sum(axis=-1, keepdims=True)
    may = np.where(over > 0, there, counts > 0)
    counts += over * may / np.maximum(may.sum(axis=-1, keepdims=True), 1)
    alike = drawn * there / np.maximum(known, 1)
    return (np.abs(counts - alike).sum(axis=-1) / (2 * drawn)).mean(axis=1)


def _at_closest(trace: xr.Dataset) -> np.ndarray:
    """Confusion between the quarter of the pairs that are closest."""
    apart, confused = _between(trace), _confused(trace)
    order = np.argsort(apart, axis=1)[:, : apart.shape[1] // 4]
    return np.take_along_axis(confused, order, axis=1).mean(axis=1)


def _unseen(trace: xr.Dataset) -> np.ndarray:
    """Probe on classes not seen so far, mean over the ends of tasks that leave some."""
    return 100 * np.nanmean(trace.unseen.transpose("seed", "step").values[:, 1:], axis=1)


distance = Measure("mean distance of classes", lambda t: _between(t).mean(axis=1))
senses = Measure(
    "Spearman of nearness and confusion", lambda t: _spearman(_between(t), _confused(t))
)
senses_of_others = Measure("the same of other pairs", lambda t: _spearman(_others(_between(t)), _confused(t)))  # fmt: skip
online = Measure("Spearman of nearness of online prototypes and confusion", lambda t: _spearman(_between(t, "online"), _confused(t)))  # fmt: skip
online_of_others = Measure("the same of other pairs", lambda t: _spearman(_others(_between(t, "online")), _confused(t)))  # fmt: skip
moved = Measure("share of drawn pairs that distance moves", _moved)
closest = Measure("confusion of the closest pairs", _at_closest)
unseen = Measure("probe on classes not seen so far", _unseen)
shifted = Measure("accuracy on shifted inputs", lambda t: 100 * _last("shifted", t))
evenness = Measure("evenness of the pairs", lambda t: np.nanmean(t.balance.transpose("seed", "step").values[:, 2:], axis=1))  # fmt: skip
