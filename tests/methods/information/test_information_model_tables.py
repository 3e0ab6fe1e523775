"""Traces as tables of models and profiles of layers, on numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from latebloom.methods.information.model_tables import (
    COMBINED,
    RESCALED,
    layer_profiles,
    lead,
    least_lead,
    lowest_inside,
    model_table,
    rising_minus_falling,
    tau,
    tau_at_equal_loss,
    tau_inside,
)

MODEL = ("seed", "step", "instance", "member")


def trace(shift=0.0, accuracy=1.0):
    """Two seeds, two observations, three instances of two members, two depths; numbers all differ."""
    cells = shift + np.arange(24.0).reshape(2, 2, 3, 2)
    weights = 100 + shift + np.arange(16.0).reshape(2, 2, 2, 2)  # [seed, step, member, depth]
    codes = ("information_mc", "information_jensen", "given_class_mc", "given_class_jensen")
    return xr.Dataset({
        **{name: ((*MODEL, "layer"), (1 + i) * cells[..., None]) for i, name in enumerate(codes)},
        **{name: (("seed", "step", "member", "depth"), weights + i)
           for i, name in enumerate(("weights_jensen", "weights_published"))},
        "weights_multi": (("seed", "step", "depth"), weights[:, :, 0]),
        **{name: (MODEL, cells + 1) for name in ("gap", "train_loss", "norm_sum", "norm_product")},
        "parameters": (MODEL, np.full_like(cells, 8.0)),
        "train_accuracy": (MODEL, np.full_like(cells, accuracy)),
    })  # fmt: skip


def test_a_row_a_model_that_learned():
    traces = {"wide": trace(), "narrow": trace(1000.0), "lazy": trace(accuracy=0.85)}
    table = model_table(traces, 1)
    assert len(table) == 12 and table.setting.tolist() == ["wide"] * 6 + ["narrow"] * 6
    last = np.arange(18.0, 24)  # of the second seed at the end: instances, then members
    np.testing.assert_array_equal(table["I(X;Z), mc"][:6], last)
    np.testing.assert_array_equal(table["I(X;Z|Y), jensen"][:6], 4 * last)
    np.testing.assert_array_equal(table["I(S;θ)"][:6], [112, 114] * 3)  # of members, first depth
    np.testing.assert_array_equal(table["I(S;θ), all layers"][:6], [113, 115] * 3)
    np.testing.assert_array_equal(table["I(S;θ), published"][:6], [113, 115] * 3)
    np.testing.assert_array_equal(table["I(S;θ), several seeds"][:6], [112] * 6)
    np.testing.assert_array_equal(table[COMBINED], table["I(S;θ)"] + table["I(X;Z|Y), jensen"])
    np.testing.assert_array_equal(table["m log m"], 24)
    assert table.instance[:6].tolist() == ["1-0", "1-0", "1-1", "1-1", "1-2", "1-2"]
    part = table[RESCALED] - table["I(X;Z|Y), jensen"]
    assert part.mean() == pytest.approx(table["I(X;Z|Y), jensen"].mean())
    np.testing.assert_allclose(part / table["I(S;θ)"], part[0] / table["I(S;θ)"][0])
    assert len(model_table(traces, 1, least_accuracy=0.8)) == 18


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    gap = rng.normal(size=24)
    return pd.DataFrame({
        "gap": gap, "good": gap + 0.3 * rng.normal(size=24), "poor": gap + 3 * rng.normal(size=24),
        "flat": 1.0, "train_loss": rng.normal(size=24),
        "instance": np.repeat(list("abc"), 8), "setting": np.tile(list("wxyz"), 6),
    })  # fmt: skip


def test_taus_against_scipy(table):
    def kendall(x, y):
        return stats.kendalltau(x, y)[0]

    assert tau(table, "good") == pytest.approx(kendall(table.good, table.gap))
    inside = [kendall(part.good, part.gap) for _, part in table.groupby("instance")]
    assert tau_inside(table, "good") == pytest.approx(np.mean(inside))
    xy, xz, yz = (kendall(table[a], table[b]) for a, b in
                  (("good", "gap"), ("good", "train_loss"), ("gap", "train_loss")))  # fmt: skip
    partial = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert tau_at_equal_loss(table, "good") == pytest.approx(partial)


def test_leads_are_over_the_best_that_can_be_said(table):
    ahead = tau(table, "good") - tau(table, "poor")
    assert lead(table, "good", ["poor", "flat"]) == pytest.approx(ahead)
    assert lead(table, "good", ["poor", "gap"]) == pytest.approx(tau(table, "good") - 1)
    assert np.isnan(lead(table, "good", ["flat"]))
    assert lead(table, "good", ["poor"], tau_inside) == pytest.approx(
        tau_inside(table, "good") - tau_inside(table, "poor")
    )
    assert least_lead(table, "good", ["poor"]) < ahead
    assert least_lead(table, "good", ["good"]) == 0


def test_profiles_of_layers():
    codes = np.arange(12.0).reshape(1, 1, 2, 2, 3)
    weights = np.arange(8.0).reshape(1, 1, 2, 4)
    one = xr.Dataset({
        "given_class_bins": ((*MODEL, "layer"), codes),
        "weights_jensen": (("seed", "step", "member", "depth"), weights),
    })  # fmt: skip
    found = layer_profiles([one, one], "given_class_bins")
    np.testing.assert_array_equal(found[0], np.tile(np.arange(12.0).reshape(4, 3), (2, 1)))
    found = layer_profiles([one], "weights_jensen")  # without the classifier, alike for instances
    np.testing.assert_array_equal(found[0], [[0, 1, 2], [4, 5, 6]] * 2)


def test_shares_of_rising_models_and_of_lowest_inner_layers():
    profiles = np.array([[[1.0, 2, 3], [3, 2, 1], [1, 0, 9], [5, 1, 5]], [[3, 2, 1]] * 4])
    np.testing.assert_array_equal(rising_minus_falling(profiles), [0.25, -1])  # 2 rise, 1 falls
    np.testing.assert_array_equal(lowest_inside(profiles), [0.5, 0])
