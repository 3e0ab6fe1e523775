"""Rank correlations of a measure with the generalisation gap, with intervals that know of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

Kind = Literal["pearson", "spearman", "kendall"]
KINDS: tuple[Kind, ...] = ("pearson", "spearman", "kendall")


def weighted_correlation(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], weights: Float[np.ndarray, "draws n"],
    kind: Kind = "kendall",
) -> Float[np.ndarray, " draws"]:  # fmt: skip
    """Correlation where observation i occurs `weights[draw, i]` times; ties as in tau-b and midranks.

    With weights of 1 it equals SciPy's pearsonr, spearmanr and kendalltau. NaN where x or y is
    constant.
    """
    weights = np.asarray(weights, float)
    if kind == "kendall":
        sx, sy = (np.sign(v[:, None] - v) for v in (x, y))
        top, left, right = (
            np.einsum("di,ij,dj->d", weights, m, weights, optimize=True)
            for m in (sx * sy, np.abs(sx), np.abs(sy))
        )
        return _ratio(top, np.sqrt(left * right))
    if kind == "spearman":
        x, y = (weights @ ((v[:, None] < v) + 0.5 * (v[:, None] == v)) for v in (x, y))
    elif kind != "pearson":
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    share = weights / weights.sum(1, keepdims=True)
    x, y = (v - (share * v).sum(1, keepdims=True) for v in (x, y))
    top = (share * x * y).sum(1)
    return _ratio(top, np.sqrt((share * x**2).sum(1) * (share * y**2).sum(1)))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    flat = bottom < 1e-12
    return np.where(flat, np.nan, top / np.where(flat, 1, bottom))


def correlation(x: np.ndarray, y: np.ndarray, kind: Kind = "kendall") -> float:
    """One number; see `weighted_correlation`."""
    return float(weighted_correlation(x, y, np.ones((1, len(x))), kind)[0])


def cluster_weights(clusters: ArrayLike, draws: int = 999, seed: int = 0) -> np.ndarray:
    """How often each observation occurs in each of `draws` resamples of whole clusters [draws, n]."""
    names, places = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            "a cluster bootstrap needs two clusters at least: all models have one setting"
        )
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)[:, places]


def cluster_interval(
    x: np.ndarray, y: np.ndarray, clusters: ArrayLike, kind: Kind = "kendall", *,
    against: Sequence[np.ndarray] = (), draws: int = 999, level: float = 0.95,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of the correlation of x with y when whole clusters are resampled.

    `against`: measures whose best correlation is subtracted in every resample.
    """
    weights = cluster_weights(clusters, draws)
    values = weighted_correlation(x, y, weights, kind)
    if against:
        others = [weighted_correlation(np.asarray(o), y, weights, kind) for o in against]
        values = values - np.fmax.reduce(others)
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def within_groups(x: np.ndarray, y: np.ndarray, groups: ArrayLike, kind: Kind = "kendall") -> float:
    """Mean correlation inside the groups, weighted by their sizes; groups that cannot say are left out."""
    names = np.asarray(groups)
    insides = (names == name for name in np.unique(names))
    found = [(correlation(x[i], y[i], kind), i.sum()) for i in insides if i.sum() > 2]
    said = [(r, n) for r, n in found if np.isfinite(r)]
    if not said:
        return float("nan")
    values, sizes = zip(*said, strict=True)
    return float(np.average(values, weights=sizes))


def partial_correlation(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, kind: Kind = "kendall"
) -> float:
    """Correlation of x and y with `given` held fixed: (r_xy - r_xz r_yz) / sqrt((1 - r_xz²)(1 - r_yz²)).

    For "kendall" that is Kendall's partial tau.
    """
    xy, xz, yz = (correlation(a, b, kind) for a, b in ((x, y), (x, given), (y, given)))
    if not np.isfinite([xz, yz]).all():
        return xy
    rest = (1 - xz**2) * (1 - yz**2)
    return float("nan") if rest < 1e-12 else (xy - xz * yz) / rest**0.5


def correlation_table(
    table: pd.DataFrame, measures: Sequence[str], *, gap: str = "gap", setting: str = "setting",
    instance: str = "instance", train_loss: str = "train_loss", draws: int = 999,
) -> pd.DataFrame:  # fmt: skip
    """How every measure goes with the gap, one row each, best Kendall tau first.

    `table` has a row a model. Models of one setting share much (I(S; theta) altogether), so intervals
    resample settings. `within` is Kendall's tau inside data instances, which differ in difficulty,
    `partial` that with the training loss held fixed, which a longer training lowers while the gap
    rises. Raises `ValueError` for a missing column or fewer than two settings.
    """
    needed = (*measures, gap, setting, instance, train_loss)
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {', '.join(table)}")
    y = table[gap].to_numpy(float)
    rows = []
    for name in measures:
        x = table[name].to_numpy(float)
        low, high = cluster_interval(x, y, table[setting].to_numpy(), draws=draws)
        rows.append({
            "measure": name,
            **{kind: correlation(x, y, kind) for kind in KINDS},
            "low": low, "high": high,
            "within": within_groups(x, y, table[instance].to_numpy()),
            "partial": partial_correlation(x, y, table[train_loss].to_numpy(float)),
        })  # fmt: skip
    found = pd.DataFrame(rows).set_index("measure")
    return found.sort_values("kendall", ascending=False, kind="stable")
