"""Trend fits against known curves, SciPy's optimum and brute force; anchoring as one more point."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from latebloom.methods.learning_curves import fit
from latebloom.methods.learning_curves.trends import FAMILIES, HIGHEST

SIZES = np.arange(5000.0, 105_000, 5000)


def power(x, a, b, c):
    return -a * x**-b + c


def by_scipy(sizes, scores, starts=((100, 0.3, 95), (1000, 0.8, 90), (30, 0.1, 120))):
    """The paper's way: trust-region reflective from several starts; the best cost."""
    costs = []
    for start in starts:
        found, _ = optimize.curve_fit(
            power, sizes, scores, p0=start, bounds=([0, 0.01, 0], [np.inf, 4, HIGHEST]), maxfev=20_000
        )  # fmt: skip
        costs.append(((power(sizes, *found) - scores) ** 2).sum())
    return min(costs)


@pytest.mark.parametrize(("a", "b", "c"), [(120, 0.3, 96), (2000, 0.6, 91), (40, 0.12, 99)])
def test_a_power_law_without_noise_comes_back(a, b, c):
    found = fit(SIZES, power(SIZES, a, b, c)).power_law()
    np.testing.assert_allclose(found, (a, b, c), rtol=1e-3)


def test_noisy_power_laws_come_back_on_average():
    rng = np.random.default_rng(0)
    scores = power(SIZES, 500, 0.5, 93) + rng.normal(0, 0.05, (200, len(SIZES)))
    _, b, c = fit(SIZES, scores).power_law()
    assert abs(b.mean() - 0.5) < 0.02 and abs(c.mean() - 93) < 0.05
    assert c.std() < 0.5


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_costs_are_those_of_scipy_or_less(noise):
    rng = np.random.default_rng(1)
    scores = power(SIZES, 120, 0.3, 96) + rng.normal(0, noise, (8, len(SIZES)))
    scores[0, 4] -= 3
    found = fit(SIZES, scores)
    for row, cost in zip(scores, found.cost, strict=True):
        assert cost <= by_scipy(SIZES, row) * (1 + 1e-6) + 1e-9
    said = ((found(SIZES) - scores) ** 2).sum(1)
    np.testing.assert_allclose(found.cost, said, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items() if len(f.low) == 2])
def test_families_of_four_numbers_reach_scipys_optimum(family):
    kind = FAMILIES[family]
    rng = np.random.default_rng(2)
    scores = power(SIZES, 300, 0.45, 94) + rng.normal(0, 0.1, len(SIZES))
    x = SIZES / SIZES[0]

    def residuals(p):
        return p[1] - p[0] * kind.shape(x, *np.exp(p[2:])) - scores

    low, high = np.log(kind.low), np.log(kind.high)
    ends = ([0, 0, *low], [np.inf, HIGHEST, *high])
    costs = [
        2 * optimize.least_squares(
            residuals, [10, 92, *(low + s * (high - low))], bounds=ends, max_nfev=5000
        ).cost
        for s in (0.3, 0.5, 0.7)
    ]  # fmt: skip
    assert fit(SIZES, scores, family=family).cost <= min(costs) * (1 + 1e-3)


def test_bounds_hold_and_the_best_within_them_is_found():
    linear = 50 + SIZES / 5000  # wants c far above the bound
    found = fit(SIZES, linear)
    assert found.c == pytest.approx(HIGHEST)
    assert found.cost <= by_scipy(SIZES, linear) * (1 + 1e-5)
    falling = fit(SIZES, 90 - SIZES / 1e5)
    assert falling.a == 0 and falling.c == pytest.approx((90 - SIZES / 1e5).mean())


@given(
    st.sampled_from(list(FAMILIES)), st.integers(0, 2**31), st.floats(0.0, 2.0), st.integers(3, 15)
)
@settings(max_examples=40)
def test_trends_rise_to_their_asymptote(family, seed, noise, count):
    rng = np.random.default_rng(seed)
    sizes = np.cumsum(rng.uniform(1, 100, count))
    scores = 90 - 30 * (sizes / sizes[0]) ** -rng.uniform(0.1, 2) + rng.normal(0, noise, count)
    found = fit(sizes, scores, family=family)
    ahead = np.geomspace(sizes[0], sizes[-1] * 1e4, 50)
    values = found(ahead)
    assert (np.diff(values) >= -1e-9).all() and found.a >= 0
    assert (values <= found.asymptote + 1e-9).all()
    if family in ("exponential", "weibull") and found.theta[-1] > 0.3 and found.theta[0] > 0.1:
        assert values[-1] == pytest.approx(found.asymptote, abs=0.05)


@given(st.integers(0, 2**31), st.floats(1.0, 100.0))
@settings(max_examples=20)
def test_the_unit_of_sizes_does_not_matter(seed, unit):
    rng = np.random.default_rng(seed)
    scores = power(SIZES, 120, 0.3, 96) + rng.normal(0, 0.1, len(SIZES))
    one, other = fit(SIZES, scores), fit(SIZES / unit, scores)
    np.testing.assert_allclose(one(SIZES * 5), other(SIZES * 5 / unit), rtol=1e-7)


def test_an_anchor_is_one_more_observation_far_away():
    rng = np.random.default_rng(3)
    scores = power(SIZES, 120, 0.3, 96) + rng.normal(0, 0.2, (5, len(SIZES)))
    anchors = np.array([94, 95, 96, 97, 98.0])
    anchored = fit(SIZES, scores, anchor=anchors, anchor_weight=2.0)
    for row, anchor, cost in zip(scores, anchors, anchored.cost, strict=True):

        def residuals(p, row=row, anchor=anchor):
            curve = p[2] - p[0] * (SIZES / SIZES[0]) ** -p[1] - row
            return np.append(curve, np.sqrt(2.0) * (p[2] - anchor))

        found = optimize.least_squares(
            residuals, [10, 0.3, 95], bounds=([0, 0.01, 0], [np.inf, 4, HIGHEST]), xtol=1e-12, ftol=1e-12
        )  # fmt: skip
        assert cost == pytest.approx(2 * found.cost, rel=1e-6)
    far = np.append(SIZES, 1e60)
    with_point = fit(far, np.column_stack([scores, anchors]), weights=[1.0] * len(SIZES) + [2.0])
    np.testing.assert_allclose(with_point.c, anchored.c, rtol=1e-6)


def test_a_heavy_anchor_decides_the_asymptote():
    scores = power(SIZES, 120, 0.3, 96)
    assert fit(SIZES, scores, anchor=np.array(93.0), anchor_weight=1e9).c == pytest.approx(
        93, abs=1e-3
    )


def test_weights_and_missing_scores_are_points_left_out():
    rng = np.random.default_rng(4)
    scores = power(SIZES, 120, 0.3, 96) + rng.normal(0, 0.2, len(SIZES))
    kept = np.arange(len(SIZES)) % 3 > 0
    kept[0] = True  # sets the scale
    want = fit(SIZES[kept], scores[kept])
    by_weight = fit(SIZES, scores, weights=kept.astype(float))
    by_gap = fit(SIZES, np.where(kept, scores, np.nan))
    for found in (by_weight, by_gap):
        np.testing.assert_allclose(found(SIZES), want(SIZES), rtol=1e-9)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="no family 'cubic'; there are: power"):
        fit(SIZES, SIZES, family="cubic")
    with pytest.raises(ValueError, match="sizes must be positive, and the least is 0"):
        fit(SIZES - 5000, SIZES)
    with pytest.raises(ValueError, match="no asymptote that could be anchored"):
        fit(SIZES, SIZES, family="logarithmic", anchor=np.array(90.0))
    with pytest.raises(ValueError, match="no score that counts"):
        fit(SIZES, np.full(len(SIZES), np.nan))
    with pytest.raises(ValueError, match="exponential trend has no power-law"):
        fit(SIZES, power(SIZES, 120, 0.3, 96), family="exponential").power_law()
