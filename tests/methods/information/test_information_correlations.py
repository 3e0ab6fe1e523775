"""Correlations against SciPy, the cluster bootstrap against explicit resamples."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from latebloom.methods.information.bound import combined, gap_bound, summarise_layers
from latebloom.methods.information.correlations import (
    KINDS,
    cluster_interval,
    cluster_weights,
    correlation,
    correlation_table,
    partial_correlation,
    weighted_correlation,
    within_groups,
)
from latebloom.methods.information.drawing import draw_correlations, draw_profiles

SCIPY = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_correlations_of_resamples_are_scipys(seed, kind):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, (2, 12)).astype(float)
    counts = rng.integers(0, 3, (1, 12))
    xs, ys = np.repeat(x, counts[0]), np.repeat(y, counts[0])
    found = weighted_correlation(x, y, counts, kind)[0] if len(xs) else np.nan
    if len(xs) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(SCIPY[kind](xs, ys)[0], abs=1e-8)


def test_unknown_kind():
    with pytest.raises(ValueError, match="pearson, spearman, kendall, not 'phi'"):
        correlation(np.arange(3.0), np.arange(3.0), "phi")


def test_clusters_are_resampled_whole():
    clusters = np.repeat(["a", "b", "c", "d"], [3, 1, 2, 4])
    weights = cluster_weights(clusters, 500)
    for name in "abcd":
        rows = weights[:, clusters == name]
        assert (rows == rows[:, :1]).all()
    firsts = weights[:, [0, 3, 4, 6]]
    assert (firsts.sum(1) == 4).all()
    np.testing.assert_allclose(firsts.mean(0), 1, atol=0.15)
    with pytest.raises(ValueError, match="two clusters at least"):
        cluster_weights(["a"] * 5)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(8), 20)
    x, y = rng.normal(size=(2, 8))[:, clusters] + 0.05 * rng.normal(size=(2, 160))
    low, high = cluster_interval(x, y, clusters)
    narrow = cluster_interval(x, y, np.arange(160))
    assert high - low > 2 * (narrow[1] - narrow[0])
    ahead = cluster_interval(y, y, clusters, against=[x, -x])
    want = [1 - max(r, -r) for r in weighted_correlation(x, y, cluster_weights(clusters))]
    assert ahead == pytest.approx(tuple(np.quantile(want, [0.025, 0.975])))


def test_within_groups_forgets_what_differs_between_them():
    groups = np.repeat([0, 1, 2], [5, 5, 2])
    x = np.array([0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 0, 0], float)
    y = np.array([4, 3, 2, 1, 0, 14, 13, 12, 11, 10, 5, 6], float)
    assert within_groups(x, y, groups) == pytest.approx(-1)
    assert correlation(x[:10], y[:10]) > 0
    assert np.isnan(within_groups(x[:2], y[:2], [0, 1]))


def test_partial_correlation():
    rng = np.random.default_rng(1)
    z = rng.normal(size=300)
    x, y = z + 0.5 * rng.normal(size=300), z + 0.5 * rng.normal(size=300)
    fits = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    want = stats.pearsonr(*fits)[0]
    assert partial_correlation(x, y, z, "pearson") == pytest.approx(want)
    assert abs(partial_correlation(x, y, z)) < 0.2 < correlation(x, y)
    assert np.isnan(partial_correlation(x, y, x))
    assert partial_correlation(x, y, np.ones(300)) == pytest.approx(correlation(x, y))


def test_table_of_correlations():
    rng = np.random.default_rng(2)
    n = 24
    table = pd.DataFrame({
        "gap": np.arange(n), "setting": [f"s{i % 6}" for i in range(n)], "instance": np.arange(n) % 2,
        "train_loss": rng.normal(size=n), "good": np.arange(n) ** 2, "bad": -np.arange(n), "none": 1.0,
    })  # fmt: skip
    found = correlation_table(table, ["bad", "good", "none"], draws=99)
    assert list(found.index) == ["good", "bad", "none"]
    assert found.loc["good", ["kendall", "spearman", "low", "high", "within"]].tolist() == [1] * 5
    assert found.loc["bad", "kendall"] == -1 and np.isnan(found.loc["none", "kendall"])
    with pytest.raises(ValueError, match="no column 'better'"):
        correlation_table(table, ["better"])


def test_shape_of_the_bound():
    given_class, weights = np.array([[4.0, 2.0, 1.0]]), np.array([[1.0, 1.5, 9.0]])
    np.testing.assert_allclose(combined(given_class, weights), [[5, 3.5, 10]])
    value, layer = gap_bound(given_class, weights, 100)
    assert layer == 1 and value == pytest.approx(np.sqrt(3.5 * np.log(2) / 100))
    quarter, _ = gap_bound(given_class, weights, 400, offset=0.3, slack=0.2, loss=2.0)
    whole, _ = gap_bound(given_class, weights, 100, offset=0.3, slack=0.2, loss=2.0)
    assert quarter == pytest.approx(whole / 2)
    assert whole == pytest.approx(2 * np.sqrt((3.5 * np.log(2) + 0.3) / 100) + 0.02)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        gap_bound(given_class, weights, 0)
    with pytest.raises(ValueError, match="same layers"):
        combined(given_class, weights[:, :2])
    summary = summarise_layers(given_class)
    assert {k: v.item() for k, v in summary.items()} == {
        "mean": pytest.approx(7 / 3), "max": 4, "min": 1, "first": 4, "last": 1,
    }  # fmt: skip


def test_pictures_have_a_row_a_measure_and_a_line_a_label():
    ax = Figure().subplots()
    columns = ("kendall", "within", "partial", "low", "high")
    found = pd.DataFrame({name: [0.5, 0.1] for name in columns}, ["good", "bad"])
    draw_correlations(ax, found)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["good", "bad"]
    assert len(ax.get_legend_handles_labels()[1]) == 3
    ax = Figure().subplots()
    draw_profiles(ax, {"bits": np.arange(12.0).reshape(2, 2, 3)})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [4.5, 5.5, 6.5])
