"""What is said of the traces of `Separation`, in the vocabulary of `latebloom.measures`.

All of it is at the end of training, but for the probe of unseen classes.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from latebloom.measures import Measure


def _last(name: str, trace: xr.Dataset) -> np.ndarray:
    """A quantity at the last observation, [seed, ...]."""
    return trace[name].isel(step=-1).transpose("seed", ...).values.astype(float)


def _between(trace: xr.Dataset) -> Float[np.ndarray, "seed pair"]:
    """Distances of the mean features of each pair of classes at the end, [seed, pair]."""
    apart = _last("apart", trace)
    return apart[:, *np.triu_indices(apart.shape[1], 1)]


def _confused(trace: xr.Dataset) -> Float[np.ndarray, "seed pair"]:
    """Per cent of both classes of each pair told as the other one at the end, [seed, pair]."""
    table = _last("confusion", trace)
    a, b = np.triu_indices(table.shape[1], 1)
    return 50 * (table[:, a, b] + table[:, b, a])


def _senses(trace: xr.Dataset) -> np.ndarray:
    near, confused = rankdata(-_between(trace), axis=1), rankdata(_confused(trace), axis=1)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(near, confused, strict=True)])


def _senses_shuffled(trace: xr.Dataset) -> np.ndarray:
    """The same for the distances of other pairs."""
    near, confused = rankdata(-_between(trace), axis=1), rankdata(_confused(trace), axis=1)
    order = np.random.default_rng(0).permutation(near.shape[1])
    return np.array([np.corrcoef(a[order], b)[0, 1] for a, b in zip(near, confused, strict=True)])


def _at_closest(trace: xr.Dataset) -> np.ndarray:
    """Confusion between the quarter of the pairs that are closest."""
    apart, confused = _between(trace), _confused(trace)
    order = np.argsort(apart, axis=1)[:, : apart.shape[1] // 4]
    return np.take_along_axis(confused, order, axis=1).mean(axis=1)


def _unseen(trace: xr.Dataset) -> np.ndarray:
    """Probe on classes not seen so far, mean over the ends of tasks that leave some."""
    return 100 * np.nanmean(trace.unseen.transpose("seed", "step").values[:, 1:], axis=1)


distance = Measure("mean distance of classes", lambda t: _between(t).mean(axis=1))
senses = Measure("Spearman of nearness and confusion", _senses)
senses_of_others = Measure("the same of other pairs", _senses_shuffled)
closest = Measure("confusion of the closest pairs", _at_closest)
unseen = Measure("probe on classes not seen so far", _unseen)
shifted = Measure("accuracy on shifted inputs", lambda t: 100 * _last("shifted", t))
evenness = Measure("evenness of the pairs", lambda t: np.nanmean(t.balance.transpose("seed", "step").values[:, 2:], axis=1))  # fmt: skip
