"""Model, learners, rules, calibration and selections against scikit-learn and hand-worked cases."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from latebloom.methods.bandits.payments import by_name, rules
from latebloom.methods.bandits.payments.calibration import (
    Recalibration,
    calibration_curve,
    expected_calibration_error,
    isotonic,
    recalibration,
)
from latebloom.methods.bandits.payments.learners import (
    Bootstrapped,
    Calibrated,
    Laplace,
    Supervised,
)
from latebloom.methods.bandits.payments.model import CrossedLogistic, Rows
from latebloom.methods.bandits.payments.resampling import (
    EveryRow,
    NegativeCount,
    NegativeShare,
    PickedSelection,
)
from latebloom.methods.bandits.payments.world import Features

SIZES, K, N = (3, 4), 3, 900
MODEL = CrossedLogistic(SIZES, 1, K, ridge=2.0, conjugate=40, tolerance=1e-8)


@cache
def rows(base=1.5, n=N):
    rng = np.random.default_rng(0)
    categories = np.stack([rng.integers(0, size, n) for size in SIZES], 1)
    numbers = rng.normal(size=(n, 1))
    action = rng.integers(0, K, n)
    effect = rng.normal(size=(sum(SIZES), K))
    z = base + effect[categories[:, 0], action] + effect[3 + categories[:, 1], action]
    z += 0.5 * numbers[:, 0]
    reward = rng.uniform(size=n) < 1 / (1 + np.exp(-z))
    features = Features(jnp.asarray(categories, jnp.int32), jnp.asarray(numbers, jnp.float32))
    return Rows(
        features, jnp.ones((n, K), bool), jnp.asarray(action, jnp.int32), jnp.full(n, 1 / K),
        jnp.asarray(reward, jnp.float32), jnp.ones(n),
    )  # fmt: skip


def design(data, action=None):
    """The crossed features, dense: shared ones, then one block for each action; no constant."""
    categories = np.asarray(data.features.categories)
    blocks = [np.eye(size)[c] for size, c in zip(SIZES, categories.T, strict=True)]
    x = np.hstack([*blocks, np.asarray(data.features.numbers)])
    own = np.hstack([x, np.ones((len(x), 1))])
    action = np.asarray(data.action) if action is None else np.full(len(x), action)
    crossed = np.hstack([own * (action == a)[:, None] for a in range(K)])
    return np.hstack([x, crossed])


fit = jax.jit(lambda model, data: model.fit(data))


def test_the_fit_is_scikit_learns():
    weights = fit(MODEL, rows())
    theirs = LogisticRegression(C=1 / 2.0, tol=1e-8, max_iter=2000).fit(
        design(rows()), np.asarray(rows().reward)
    )
    ours = np.asarray(MODEL.predict(weights, rows().features))
    for a in range(K):
        expected = theirs.predict_proba(design(rows(), a))[:, 1]
        np.testing.assert_allclose(ours[:, a], expected, atol=2e-3)


def test_weights_count_rows():
    weight = np.random.default_rng(1).integers(0, 3, N)
    weights = fit(MODEL, rows()._replace(weight=jnp.asarray(weight, jnp.float32)))
    theirs = LogisticRegression(C=1 / 2.0, tol=1e-8, max_iter=2000).fit(
        design(rows()), np.asarray(rows().reward), sample_weight=weight
    )
    expected = theirs.predict_proba(design(rows(), 1))[:, 1]
    np.testing.assert_allclose(MODEL.predict(weights, rows().features)[:, 1], expected, atol=2e-3)


def test_played_logits_are_those_of_all_actions():
    weights = fit(MODEL, rows())
    every = MODEL.logits(weights, rows().features)
    played = MODEL.played(weights, rows().features, rows().action)
    np.testing.assert_allclose(played, every[np.arange(N), rows().action], atol=1e-5)
    dense = np.concatenate([weights.shared[:-1], np.asarray(weights.crossed).T.reshape(-1)])
    np.testing.assert_allclose(played, design(rows()) @ dense + weights.shared[-1], atol=1e-4)


def test_the_gradient_vanishes_at_the_fit():
    weights = fit(MODEL, rows())
    gradient = jax.grad(MODEL.loss)(weights, rows())
    at_zero = jax.grad(MODEL.loss)(MODEL.start(), rows())
    assert max(float(jnp.abs(g).max()) for g in gradient) < 0.02
    assert max(float(jnp.abs(g).max()) for g in at_zero) > 10


def test_deviations_are_the_diagonal_of_the_curvature():
    weights = fit(MODEL, rows())
    found = MODEL.deviations(rows(), weights)
    p = 1 / (1 + np.exp(-np.asarray(MODEL.played(weights, rows().features, rows().action))))
    diagonal = 2.0 + (p * (1 - p)) @ design(rows()) ** 2
    np.testing.assert_allclose(found.shared[:-1], diagonal[:8] ** -0.5, rtol=1e-3)
    np.testing.assert_allclose(
        np.asarray(found.crossed).T.reshape(-1), diagonal[8:] ** -0.5, rtol=1e-3
    )


def test_laplace_draws_have_the_posterior_spread_and_widths_shrink_with_data():
    learner = Laplace(MODEL, spread=0.5, members=400)
    drawn = jax.jit(learner.fit)(rows(), jax.random.key(0))
    deviations = MODEL.deviations(rows(), drawn.weights)
    spread = np.asarray(drawn.draws.crossed).std(axis=0)
    np.testing.assert_allclose(spread, 0.5 * np.asarray(deviations.crossed), rtol=0.25)
    widths = []
    plain = Laplace(MODEL)
    fit_it = jax.jit(plain.fit)
    for n in (100, 900):
        few = rows()._replace(weight=jnp.where(jnp.arange(N) < n, 1.0, 0.0))
        state = fit_it(few, jax.random.key(0))
        widths.append(float(plain.predict(state, rows().features).width.mean()))
    assert widths[1] < widths[0] / 1.5


def test_bootstrap_members_scatter_about_the_plain_fit():
    learner = Bootstrapped(MODEL, members=12)
    found = jax.jit(lambda k: learner.predict(learner.fit(rows(), k), rows().features))(
        jax.random.key(0)
    )
    plain = MODEL.predict(fit(MODEL, rows()), rows().features)
    assert found.draws.shape == (N, 12, K)
    np.testing.assert_allclose(found.mean, found.draws.mean(1), atol=1e-6)
    assert np.abs(found.mean - plain).mean() < 0.02 < found.draws.std(1).mean()


# Selections


def counts(data):
    kept = np.asarray(data.weight) > 0
    reward = np.asarray(data.reward)
    return int((kept & (reward == 0)).sum()), int((kept & (reward == 1)).sum())


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_fixed_share_of_negatives(share):
    negatives, positives = counts(rows())
    assert 0.15 < negatives / N < 0.39
    kept, _ = NegativeShare(share)(rows(), jax.random.key(0))
    down, up = counts(kept)
    assert down / (down + up) == pytest.approx(share, abs=0.005)
    assert (down, up)[share < 0.2] == (negatives, positives)[share < 0.2]  # the rarer stays whole


def test_a_fixed_number_of_negatives():
    kept, offset = NegativeCount(50.0)(rows(), jax.random.key(0))
    negatives, positives = counts(rows())
    assert counts(kept) == (50, positives)
    assert offset == pytest.approx(np.log(50 / negatives), abs=1e-5)
    everything, offset = NegativeCount(1e6)(rows(), jax.random.key(0))
    assert counts(everything) == (negatives, positives) and offset == pytest.approx(0)


def test_predictions_keep_their_level_when_rows_are_dropped():
    """The offset makes up for the classes' changed odds."""
    plain = np.asarray(MODEL.predict(fit(MODEL, rows()), rows().features))
    for selection in (NegativeShare(0.5), NegativeCount(80.0)):
        learner = Supervised(MODEL, selection)
        state = jax.jit(learner.fit)(rows(), jax.random.key(0))
        found = np.asarray(learner.predict(state, rows().features).mean)
        assert found.mean() == pytest.approx(plain.mean(), abs=0.03)
        # Without it the mean prediction is that of the thinned rows.
        kept, _ = selection(rows(), jax.random.key(0))
        down, up = counts(kept)
        assert abs(up / (down + up) - plain.mean()) > 0.08


def test_picked_selections_and_rules_are_those_picked():
    choices = (EveryRow(), NegativeShare(0.4), NegativeCount(50.0))
    for place, alone in enumerate(choices):
        picked, offset = PickedSelection(choices, jnp.int32(place))(rows(), jax.random.key(1))
        by_itself, own = alone(rows(), jax.random.key(1))
        np.testing.assert_array_equal(picked.weight, by_itself.weight)
        assert offset == pytest.approx(float(own))
    every = (rules.Uniform(), rules.Greedy(), rules.SquareCB(30.0))
    for place, rule in enumerate(every):
        np.testing.assert_allclose(
            rules.Picked(every, jnp.int32(place))(SEEN, ALLOWED, jnp.float32(1)),
            rule(SEEN, ALLOWED, jnp.float32(1)),
        )


# Rules

ALLOWED = jnp.array([[True, True, False, True]])
SEEN = rules.Prediction(jnp.array([[0.9, 0.8, 0.99, 0.7]]))


def test_rules_worked_by_hand():
    one = jnp.float32(1)
    np.testing.assert_allclose(rules.Greedy()(SEEN, ALLOWED, one), [[1, 0, 0, 0]])
    found = rules.SquareCB(10.0)(SEEN, ALLOWED, one)[0]
    np.testing.assert_allclose(found, [1 - 1 / 4 - 1 / 5, 1 / 4, 0, 1 / 5], atol=1e-6)
    # FastCB: losses 0.1, 0.2, 0.3: l_b / (3 l_b + γ gap).
    found = rules.FastCB(10.0)(SEEN, ALLOWED, one)[0]
    np.testing.assert_allclose(np.asarray(found)[[1, 3]], [0.1 / 1.3, 0.1 / 2.3], atol=1e-5)
    # FALCON: γ = sqrt(3 * 1200 / 36) = 10.
    found = rules.Falcon(36.0)(SEEN, ALLOWED, jnp.float32(1200))[0]
    np.testing.assert_allclose(found, [0.55, 0.25, 0, 0.2], atol=1e-6)
    found = rules.Floored(rules.Greedy(), 0.3)(SEEN, ALLOWED, one)[0]
    np.testing.assert_allclose(found, [0.8, 0.1, 0, 0.1], atol=1e-6)


def test_optimism_and_draws():
    wide = SEEN._replace(width=jnp.array([[0.0, 0.2, 9.0, 0.1]]))
    one = jnp.float32(1)
    np.testing.assert_allclose(rules.UpperBound(1.0)(wide, ALLOWED, one)[0], [0, 1, 0, 0])
    draws = jnp.array([[[0.9, 0.8, 1.0, 0.1], [0.1, 0.2, 1.0, 0.3], [0.2, 0.1, 1.0, 0.3],
                        [0.5, 0.1, 1.0, 0.3]]])  # fmt: skip
    found = rules.OneDraw()(SEEN._replace(draws=draws), ALLOWED, one)[0]
    np.testing.assert_allclose(found, [0.5, 0, 0, 0.5])
    with pytest.raises(ValueError, match="widths"):
        rules.UpperBound()(SEEN, ALLOWED, one)
    with pytest.raises(ValueError, match="draws"):
        rules.OneDraw()(SEEN, ALLOWED, one)


@pytest.mark.parametrize(("name", "alone"), [
    ("uniform", rules.Uniform()), ("greedy", rules.Greedy()), ("epsilon", rules.EpsilonGreedy(0.3)),
    ("softmax", rules.Softmax(0.3)), ("squarecb", rules.SquareCB(0.3)), ("fastcb", rules.FastCB(0.3)),
    ("falcon", rules.Falcon(0.3)), ("floored", rules.Floored(rules.SquareCB(0.3), 0.2)),
])  # fmt: skip
def test_rules_by_name(name, alone):
    found = by_name.rule(name, 0.3, floor=0.2)(SEEN, ALLOWED, jnp.float32(50))
    np.testing.assert_allclose(found, alone(SEEN, ALLOWED, jnp.float32(50)), rtol=1e-6)


def test_learners_by_name():
    assert by_name.rule("optimism", 0.3) == rules.UpperBound(0.3)
    assert isinstance(by_name.rule("draw", 0.3), rules.OneDraw)
    laplace = by_name.learner("laplace", MODEL, strength=0.3, members=8)
    assert isinstance(laplace, Laplace) and (laplace.spread, laplace.members) == (0.3, 8)
    assert by_name.learner("bootstrapped", MODEL, members=5) == Bootstrapped(MODEL, members=5)
    assert isinstance(by_name.learner("calibrated", MODEL), Calibrated)
    few = by_name.learner("supervised", MODEL, balance="count", balance_level=50.0)
    kept, _ = few.selection(rows(), jax.random.key(1))
    assert isinstance(few, Supervised) and counts(kept)[0] == 50
    with pytest.raises(ValueError, match="rule must be one of uniform, .*: bold"):
        by_name.rule("bold", 1.0)
    with pytest.raises(ValueError, match="no learner 'supervised' with balance 'odd'"):
        by_name.learner("supervised", MODEL, balance="odd")


def test_the_cost_of_exploring_and_the_gamma_that_keeps_to_it():
    even = jnp.array([[1 / 3, 1 / 3, 0, 1 / 3]])
    assert rules.exploration_cost(even, SEEN.mean, ALLOWED) == pytest.approx(0.1)
    gamma = rules.gamma_for_cost(SEEN.mean, ALLOWED, 0.065)
    # At γ = 10: 0.1 / 4 + 0.2 / 5 = 0.065.
    assert gamma == pytest.approx(10.0, rel=1e-3)
    for cost in (0.001, 0.02):
        gamma = rules.gamma_for_cost(SEEN.mean, ALLOWED, cost)
        spent = rules.exploration_cost(
            rules.SquareCB(gamma)(SEEN, ALLOWED, jnp.float32(1)), SEEN.mean, ALLOWED
        )
        assert spent == pytest.approx(cost, rel=1e-3)


# Calibration


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.125, 4)), min_size=8, max_size=8))
@settings(max_examples=60)
def test_isotonic_is_scikit_learns(pairs):
    y, w = np.float32(list(zip(*pairs, strict=True)))
    theirs = IsotonicRegression().fit_transform(np.arange(8), y, sample_weight=w)
    np.testing.assert_allclose(isotonic(jnp.asarray(y), jnp.asarray(w)), theirs, atol=2e-5)


def test_isotonic_skips_entries_without_weight():
    y, w = jnp.array([0.2, 0.9, 0.1, 0.5]), jnp.array([1.0, 0.0, 1.0, 1.0])
    found = np.asarray(isotonic(y, w))
    np.testing.assert_allclose(found[[0, 2, 3]], [0.15, 0.15, 0.5], atol=1e-6)
    assert 0.15 - 1e-6 <= found[1] <= 0.5


def test_calibration_curve_by_hand():
    p = jnp.array([0.1, 0.9, 0.3, 0.7, 0.5])
    y = jnp.array([0.0, 1.0, 0.0, 1.0, 9.0])
    w = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0])
    curve = calibration_curve(p, y, w, bins=2)
    np.testing.assert_allclose(curve.predicted, [0.2, 0.8], atol=1e-6)
    np.testing.assert_allclose(curve.observed, [0.0, 1.0])
    assert expected_calibration_error(curve) == pytest.approx(0.2)


def test_recalibration_undoes_a_distortion():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.95, 40_000)
    y = (rng.uniform(size=40_000) < truth).astype(np.float32)
    distorted = jnp.asarray(truth**3, jnp.float32)
    fixed = recalibration(distorted, jnp.asarray(y), jnp.ones(40_000))(distorted)
    assert np.abs(np.asarray(fixed) - truth).mean() < 0.02 < np.abs(truth**3 - truth).mean()


def test_recalibrated_predictions_have_no_ties_and_go_on_beyond_the_bins():
    map_ = Recalibration(jnp.array([0.2, 0.4, 0.6]), jnp.array([0.5, 0.5, 0.7]))
    p = jnp.linspace(0.05, 0.9, 50)
    assert (jnp.diff(map_(p)) > 0).all()
    assert map_(jnp.array([0.7]))[0] == pytest.approx(0.999 * 0.8 + 0.0007, abs=1e-5)


def test_the_calibrated_learner_mends_a_model_that_is_too_shy():
    """A huge ridge draws all predictions to the mean; held-out recalibration spreads them again."""
    data = rows(1.5, 20_000)
    model = CrossedLogistic(SIZES, 1, K, ridge=3000.0)
    error = {}
    for learner in (Supervised(model), Calibrated(model, bins=12)):
        state = jax.jit(learner.fit)(data, jax.random.key(0))
        p = np.asarray(learner.predict(state, data.features).mean)[np.arange(20_000), data.action]
        curve = calibration_curve(jnp.asarray(p), data.reward, jnp.ones(20_000))
        error[type(learner)] = float(expected_calibration_error(curve))
    assert error[Calibrated] < 0.03 < 0.06 < error[Supervised]


def test_the_fit_holds_where_plain_newton_overshoots():
    """A rare action that is always declined where nearly all else is approved: at the start, where
    all logits are high, the curvature says little about how far its own has to go."""
    data = rows()
    rare = np.asarray(data.action) == 2
    kept = ~rare | (rare.cumsum() <= 12)
    reward = np.where(rare | (np.arange(N) % 150 == 0), 0.0, 1.0).astype(np.float32)
    data = data._replace(reward=jnp.asarray(reward), weight=jnp.asarray(kept.astype(np.float32)))
    model = CrossedLogistic(SIZES, 1, K, ridge=0.01, newton=30, conjugate=40, tolerance=1e-8)
    found = np.asarray(model.predict(fit(model, data), data.features))
    theirs = LogisticRegression(C=100.0, tol=1e-8, max_iter=5000).fit(
        design(data)[kept], reward[kept]
    )
    for a in range(K):
        expected = theirs.predict_proba(design(data, a))[:, 1]
        np.testing.assert_allclose(found[:, a], expected, atol=0.01)
