"""Baselines against their definitions, made-up curves, and the scikit-learn style estimator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from latebloom import unfold
from latebloom.methods.learning_curves import LearningCurve, fit, train_until
from latebloom.methods.learning_curves.classifiers import LEARNERS, ClassifierCurves, _every_class
from latebloom.methods.learning_curves.forecasts import (
    FORECASTS,
    bayesian,
    ensemble,
    stop_by_change,
    stop_by_gain,
)
from latebloom.methods.learning_curves.generated import MadeUpCurve
from latebloom.methods.learning_curves.intervals import plausible

SIZES = np.arange(5000.0, 105_000, 5000)
AHEAD = np.array([2e5, 8e5])


def truth(x):
    return 96 - 120 * np.asarray(x) ** -0.3


def noisy(runs=3, noise=0.05, seed=0):
    return truth(SIZES) + np.random.default_rng(seed).normal(0, noise, (runs, len(SIZES)))


@pytest.mark.parametrize("how", FORECASTS)
def test_every_forecast_has_its_shape_and_takes_missing_scores(how):
    scores = noisy()
    scores[1, -1] = np.nan
    found = FORECASTS[how](SIZES, scores, AHEAD)
    assert found.shape == (3, 2) and np.isfinite(found).all()
    if how not in ("exponential", "logarithmic", "last"):
        np.testing.assert_allclose(found, np.tile(truth(AHEAD), (3, 1)), atol=1.2)
    if how == "last":
        np.testing.assert_array_equal(found, scores[[0, 1, 2], [-1, -2, -1]][:, None].repeat(2, 1))


def test_weights_follow_the_size():
    scores = noisy()
    want = fit(SIZES, scores, weights=SIZES / SIZES[-1])(AHEAD)
    np.testing.assert_allclose(FORECASTS["weighted"](SIZES, scores, AHEAD), want)


def test_the_ensemble_is_the_median_of_resamples():
    scores = noisy(1)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(SIZES), np.full(len(SIZES), 1 / len(SIZES)), size=40)
    each = [fit(SIZES, scores[0], weights=w)(AHEAD) for w in weights.astype(float)]
    np.testing.assert_allclose(
        ensemble(SIZES, scores, AHEAD)[0], np.median(each, axis=0), rtol=1e-6
    )


def test_the_posterior_mean_is_that_of_a_fine_numerical_integral():
    # One family on its grid: weights by integrating exp(-rss / 2 s^2) over a, c and log s numerically.
    sizes, rng = np.array([1.0, 2, 4, 8, 16]), np.random.default_rng(0)
    scores = 90 - 20 * sizes**-0.5 + rng.normal(0, 0.3, 5)
    a, c = np.meshgrid(np.linspace(0, 80, 801), np.linspace(70, 130, 601), indexing="ij")
    grid = np.geomspace(0.01, 4, 49)
    weights, values = [], []
    for b in grid:
        shape = sizes**-b
        rss = sum((y - c + a * s) ** 2 for y, s in zip(scores, shape, strict=True))
        best = rss.min()
        cell = np.unravel_index(rss.argmin(), rss.shape)
        if c[cell] > 100 or 0 in cell or cell[0] == 800:
            continue
        density = (rss / best) ** -2.5  # integral over log s of s^-5 exp(-rss / 2 s^2)
        weights.append(density.sum() * best**-2.5)
        values.append(c[cell] - a[cell] * 64.0**-b)
    want = np.average(values, weights=weights)
    found = bayesian(sizes, scores[None], np.array([64.0]), families=("power",))[0, 0]
    assert found == pytest.approx(want, abs=0.05)


def test_a_bayesian_forecast_without_a_usable_curve_is_the_last_value():
    falling = 90 - SIZES[None] / 1e5
    np.testing.assert_array_equal(bayesian(SIZES, falling, AHEAD), np.full((1, 2), falling[0, -1]))


def test_stopping_rules_by_hand():
    sizes, scores = (
        np.array([1e3, 2e3, 4e3, 5e3]),
        np.array([[80, 84, 86, 86.5], [1, 10, 20, 30.0]]),
    )
    assert stop_by_gain(sizes, scores, 1.5).tolist() == [2, -1]
    assert stop_by_gain(sizes, scores, 0.6).tolist() == [3, -1]
    assert stop_by_change(scores, 2.5).tolist() == [2, -1]


def test_a_forecast_from_clean_scores_is_the_truth():
    curve = LearningCurve().fit(SIZES, truth(SIZES) / 100)
    np.testing.assert_allclose(curve.predict(AHEAD), truth(AHEAD) / 100, atol=1e-4)
    assert curve.asymptote_ == pytest.approx(0.96, abs=1e-3) and curve.upper_ == 1
    need = curve.required_size(0.93)
    assert need.size == pytest.approx((120 / 3) ** (1 / 0.3), rel=0.01)
    assert need.low <= need.size <= need.high
    assert curve.required_size(0.97).size == np.inf
    assert curve.working_size_ == SIZES[2] and curve.prediction_size_ == SIZES[2]
    assert curve.remaining() == pytest.approx(1.2 * 1e5**-0.3, rel=0.01)
    stop = curve.stop_size(0.04)  # 0.06 is passed before the working level is known
    assert curve.stop_size(0.06) == SIZES[8]
    assert stop == SIZES[np.argmax(1.2 * SIZES**-0.3 <= 0.04)] and curve.stop_size(0.001) is None


def test_percent_and_fractions_say_the_same():
    scores = noisy(1)[0]
    percent, fraction = LearningCurve().fit(SIZES, scores), LearningCurve().fit(SIZES, scores / 100)
    for one, other in zip(percent.forecast(AHEAD), fraction.forecast(AHEAD), strict=True):
        np.testing.assert_allclose(one, 100 * other, rtol=1e-9)
    assert percent.remaining() == pytest.approx(100 * fraction.remaining())


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside = [
        (low <= truth(AHEAD)) & (truth(AHEAD) <= high)
        for scores in noisy(40, 0.1, 1)
        for _, low, high in [LearningCurve(draws=40).fit(SIZES, scores).forecast(AHEAD)]
    ]
    assert np.mean(inside) > 0.85
    wide = LearningCurve(confidence=0.99).fit(SIZES, noisy(1, 0.1)[0]).forecast(AHEAD)
    narrow = LearningCurve(confidence=0.5).fit(SIZES, noisy(1, 0.1)[0]).forecast(AHEAD)
    assert (wide.high - wide.low > narrow.high - narrow.low).all()


def test_runs_are_averaged_and_their_spread_widens_intervals():
    rng = np.random.default_rng(0)
    offsets = np.repeat([-2.0, 0.0, 2.0], len(SIZES))
    scores = np.tile(truth(SIZES), 3) + offsets + rng.normal(0, 0.02, 3 * len(SIZES))
    runs = np.repeat(["a", "b", "c"], len(SIZES))
    order = rng.permutation(len(scores))
    size = np.tile(SIZES, 3)
    apart = LearningCurve().fit(size[order], scores[order], runs[order])
    mean = LearningCurve().fit(size, scores)
    np.testing.assert_allclose(apart.scores_, truth(SIZES), atol=0.05)
    np.testing.assert_allclose(apart.predict(AHEAD), mean.predict(AHEAD))
    width = [f.high - f.low for f in (apart.forecast(AHEAD), mean.forecast(AHEAD))]
    assert (width[0] > 2 * width[1]).all()


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=10)
def test_forecasts_rise_and_stay_within_intervals(seed, noise):
    curve = LearningCurve(draws=10).fit(SIZES, np.clip(noisy(1, noise, seed)[0], 0, 100))
    found = curve.forecast(np.geomspace(SIZES[0], 1e7, 30))
    assert (np.diff(found.score) >= -1e-9).all()
    assert (found.low <= np.minimum(found.score, 100) + 1e-9).all()
    assert (np.minimum(found.score, 100) <= found.high + 1e-9).all()
    assert found.low.min() >= 0 and found.high.max() <= 100


def test_the_estimator_is_of_scikit_learns_kind():
    curve = LearningCurve(lookahead=3, confidence=0.8)
    assert clone(curve).get_params()["lookahead"] == 3
    with pytest.raises(NotFittedError, match="call fit first"):
        curve.predict(AHEAD)
    column = curve.fit(SIZES[:, None], truth(SIZES)).predict(AHEAD[:, None])
    np.testing.assert_allclose(column, curve.predict(AHEAD))


MIXED = np.concatenate([truth(SIZES[:10]) / 100, truth(SIZES[10:])])


@pytest.mark.parametrize(
    ("settings", "sizes", "scores", "message"),
    [
        ({}, SIZES[:4], truth(SIZES[:4]), "at 5 training sizes or more, and there are 4"),
        ({}, SIZES, truth(SIZES[:-1]), r"sizes \(20,\) and scores \(19,\)"),
        ({}, SIZES, np.where(SIZES > 9e4, np.nan, 90), "must be finite"),
        ({}, SIZES - 5000, truth(SIZES), "must be positive"),
        ({}, SIZES, truth(SIZES) + 30, "between 0 and 100"),
        ({}, SIZES, 1 - truth(SIZES) / 100, "give accuracies, not errors"),
        ({}, SIZES, MIXED, "all as fractions or all in percent, or say with `upper`"),
        ({"upper": 1.0}, SIZES, MIXED, "between 0 and 1;"),
        ({"upper": 0.0}, SIZES, truth(SIZES), "upper, the best score there is, must be positive, not 0"),
        ({"upper": np.nan}, SIZES, truth(SIZES), "must be positive, not nan"),
        ({"confidence": 1.0}, SIZES, truth(SIZES), "confidence must lie between 0 and 1, not 1"),
    ],
)  # fmt: skip
def test_bad_curves_are_refused(settings, sizes, scores, message):
    with pytest.raises(ValueError, match=message):
        LearningCurve(**settings).fit(sizes, scores)


def test_one_seed_in_percent_and_another_in_fractions_are_refused():
    both = np.concatenate([truth(SIZES), truth(SIZES) / 100])
    with pytest.raises(ValueError, match="some scores are above 1 and some are not"):
        LearningCurve().fit(np.tile(SIZES, 2), both, np.repeat(["a", "b"], len(SIZES)))


def test_a_declared_best_score_lets_percentages_begin_below_one():
    scores = np.concatenate([[0.4], truth(SIZES[1:])])
    assert LearningCurve(upper=100).fit(SIZES, scores).upper_ == 100
    assert LearningCurve(upper=50).fit(SIZES, truth(SIZES) / 2).asymptote_ == pytest.approx(48)


def test_a_forecast_lies_within_its_interval_and_below_the_best_score():
    # The power law of these scores tends to more than 100 %.
    sizes, scores = 100 * 2.0 ** np.arange(6), np.array([0.2, 0.3, 0.42, 0.55, 0.69, 0.84])
    curve = LearningCurve().fit(sizes, scores)
    assert curve.asymptote_ > 1
    found = curve.forecast(np.geomspace(100, 1e9, 40))
    assert (found.low <= found.score).all() and (found.score <= found.high).all()
    assert found.score.max() <= 1 and found.high.max() <= 1
    assert curve.required_size(1.0).size == np.inf and curve.required_size(1.0).high == np.inf
    assert 0 <= curve.remaining() <= 1 - curve.predict(sizes[-1:])[0] + 1e-12


def curve_of(kind, count, noise, rng):
    """Sizes, noisy scores, and the noise-free curve, of which 5 to 60 % of the rise are left at the end."""
    x = 2.0 ** np.arange(count) if rng.random() < 0.5 else np.arange(1.0, count + 1)
    top, rise, left = rng.uniform(75, 99), rng.uniform(10, 40), rng.uniform(0.05, 0.6)
    if kind == "power":
        power = -np.log(left) / np.log(x[-1])
        rest = lambda z: z**-power  # noqa: E731
    else:
        d = 1.0 if kind == "exponential" else rng.uniform(0.2, 0.8)
        rate = -np.log(left) / (x[-1] ** d - 1)
        rest = lambda z: np.exp(-rate * (z**d - 1))  # noqa: E731
    curve = lambda sizes: top - rise * rest(np.asarray(sizes) / 500)  # noqa: E731
    return 500 * x, curve(500 * x) + noise * rng.normal(size=count), curve


@pytest.mark.parametrize("kind", ["power", "exponential", "stretched"])
def test_intervals_cover_curves_of_several_families_from_few_sizes(kind):
    # 90 % are promised; benchmarks/learning_curves_coverage.py has the figures of many more curves.
    inside, needed = [], []
    for seed in range(32):
        rng = np.random.default_rng(seed)
        sizes, scores, curve = curve_of(kind, 5 + seed % 8, (0.1, 0.3, 1.0)[seed % 3], rng)
        fitted = LearningCurve(upper=100.0).fit(sizes, np.clip(scores, 0, 100))
        at = sizes[-1] * np.array([2.0, 4.0, 10.0])
        _, low, high = fitted.forecast(at)
        inside.append((low <= curve(at)) & (curve(at) <= high))
        need = fitted.required_size(float(curve(at[1])))
        needed.append(
            need.low <= 1.006 * at[1] and at[1] <= 1.006 * need.high
        )  # a step of the grid
    assert np.mean(inside, axis=0).min() >= 0.88 and np.mean(needed) >= 0.88


def test_plausible_curves_are_those_that_an_optimiser_finds():
    sizes, rng = np.array([1.0, 2, 4, 8, 16, 32, 64]), np.random.default_rng(0)
    scores = 90 - 30 * np.exp(-0.6 * (sizes**0.5 - 1)) + 0.3 * rng.normal(size=7)
    found = plausible(sizes, scores, 0.9)

    def value(p, x):
        a, c, k, d = p
        return c - a * np.exp(-np.exp(k) * np.expm1(d * np.log(x)))

    def residual(p):
        return ((scores - value(p, sizes)) ** 2).sum()

    start = (30.0, 90.0, np.log(0.6), 0.5)
    best = optimize.least_squares(lambda p: scores - value(p, sizes), start).x
    bound = residual(best) * (1 + stats.t.ppf(0.95, 3) ** 2 / 3)
    limits = [(0, 100), (0, 100), (-8, 6), (0.005, 1.6)]
    inside = [{"type": "ineq", "fun": lambda p: bound - residual(p)},
              {"type": "ineq", "fun": lambda p: p[1] - p[0]}]  # fmt: skip
    for sign, end in zip((1.0, -1.0), found.span(np.array([256.0])), strict=True):
        ends = [
            optimize.minimize(
                lambda p, s=sign: s * value(p, 256.0), begin, method="SLSQP", bounds=limits,
                constraints=inside, options={"maxiter": 500},
            ).fun
            for begin in (best, start)
        ]  # fmt: skip
        assert end[0] == pytest.approx(sign * min(ends), abs=0.05)


def test_bad_questions_are_refused():
    curve = LearningCurve().fit(SIZES, truth(SIZES))
    with pytest.raises(ValueError, match="positive finite"):
        curve.predict(np.array([0.0]))
    with pytest.raises(ValueError, match="20 scores and 2 runs"):
        curve.fit(SIZES, truth(SIZES), np.array(["a", "b"]))
    with pytest.raises(ValueError, match="position 3 belongs to no run"):
        curve.fit(SIZES, truth(SIZES), np.array([*"aaa", None, *"a" * 16], object))
    for score in (-1.0, 101.0, np.nan):
        with pytest.raises(ValueError, match="the score must lie between 0 and 100"):
            curve.required_size(score)


def test_training_stops_when_little_is_left():
    asked = []

    def train(size):
        asked.append(size)
        return float(truth(size))

    curve = train_until(train, range(5000, 10**6, 5000), tau=4.5)
    assert curve.stop_size(4.5) == asked[-1] == int(np.ceil((120 / 4.5) ** (1 / 0.3) / 5000)) * 5000
    short = train_until(train, range(5000, 40_000, 5000), tau=0.1)
    assert short.stop_size(0.1) is None and len(short.sizes_) == 7


@pytest.mark.parametrize("kind", ["power", "exponential", "two-phase"])
def test_made_up_curves_are_their_truth_and_noise(kind):
    sizes = tuple(range(5000, 805_000, 5000))
    trace = unfold(MadeUpCurve(kind, sizes, 0.3, 0.1), seeds=4, at=np.arange(1, 161))
    top = trace.asymptote.values[:, :1]
    assert (np.diff(trace.truth.values) > 0).all() and (trace.truth.values < top).all()
    missing = np.isnan(trace.accuracy.values)
    assert 0.05 < missing.mean() < 0.15 and not missing[:, :3].any()
    z = (trace.accuracy - trace.truth).values * np.sqrt(trace.words.values / 5000) / 0.3
    assert np.nanstd(z) == pytest.approx(1, abs=0.1)
    if kind == "power":
        found = fit(np.array(sizes), trace.truth.values)
        np.testing.assert_allclose(found.c, top[:, 0], atol=1e-2)


def test_classifier_curves_rise():
    trace = unfold(ClassifierCurves("breast-cancer", (16, 64, 256), 2), seeds=2, at=[1, 2, 3])
    assert trace.learner.values.tolist() == list(LEARNERS)
    mean = trace.accuracy.mean(("seed", "learner")).values
    assert 80 < mean[0] < mean[-1] < 100
    with pytest.raises(ValueError, match="500 rows are to be learned from, and 398 are there"):
        unfold(ClassifierCurves("breast-cancer", (500,), 1), seeds=1, at=[1])


def test_small_samples_hold_two_of_each_class():
    labels = np.array([0] * 10 + [1, 2, 2, 2, 1])
    chosen = _every_class(np.arange(15), labels, 6)
    assert sorted(labels[chosen].tolist()) == [0, 0, 1, 1, 2, 2]
    assert sorted(_every_class(np.arange(15), labels, 15)) == list(range(15))
