"""Identification and recommendation on systems that are known, and the advisor's memory."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.methods.bandits.dynamical_linear import (
    Advisor,
    Identification,
    LinearSystem,
    advertising_system,
    budget_grid,
    budget_splits,
    exact_bounds,
    ho_kalman,
    identification,
    identify,
    recommend,
)
from latebloom.methods.bandits.dynamical_linear.identification import (
    design,
    impulse_response,
    order_by_drop,
    steady_gain,
    system_of,
)
from latebloom.methods.bandits.dynamical_linear.recommendation import generous_lags

ADS = advertising_system()


def record(system, periods, noise, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0, 2, (periods, system.B.shape[1]))
    return inputs, system.simulate(inputs, noise, seed)


def test_ho_kalman_finds_the_system_again():
    A, B, C, values = ho_kalman(ADS.markov_parameters(20)[1:])
    assert len(A) == 3 and values[3] < 1e-9 * values[0]
    again = LinearSystem(A, B, C, ADS.D)
    np.testing.assert_allclose(
        again.markov_parameters(30), ADS.markov_parameters(30), atol=1e-9
    )  # fmt: skip
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(A)), np.sort_complex(np.linalg.eigvals(ADS.A)), atol=1e-8
    )


def wobbly_record():
    t = np.arange(400)
    inputs = np.stack([
        1 + np.sin(0.7 * t + 0.1 * t * t % 3),
        1 + np.cos(1.3 * t + 0.05 * t * t % 5),
        1 + np.sin(2.1 * t + 0.03 * t * t % 7),
    ], 1)  # fmt: skip
    heard = 0.05 * np.stack([np.sin(5 * t * t), np.sin(7 * t * t), np.sin(11 * t * t)], 1)
    return inputs, ADS.simulate(inputs) + heard


def test_finite_impulse_response_as_in_the_authors_code():
    """Numbers of their FIR identification with 12 lags at order 3 (they fit no constant)."""
    inputs, outputs = wobbly_record()
    past = np.hstack([inputs[11 - i : 400 - i] for i in range(12)])
    fitted = np.linalg.lstsq(past, outputs[11:], rcond=None)[0].reshape(12, 3, 3).transpose(0, 2, 1)
    A, B, C, _ = ho_kalman(fitted[1:], 3)
    found = LinearSystem(A, B, C, fitted[0])
    np.testing.assert_allclose(
        np.sort(np.abs(np.linalg.eigvals(A))), [0.0609990, 0.6761821, 0.6761821], atol=1e-6
    )
    np.testing.assert_allclose(found.response, [0.2555640, -0.0234316, 0.0903015], atol=1e-6)
    np.testing.assert_allclose((C @ A @ B)[0], [0.0215045, 0.0092135, 0.0335782], atol=1e-6)


def test_predictor_form_as_in_the_authors_code():
    """Numbers of their closed-loop identification, whose B lacks the part F D."""
    inputs, outputs = wobbly_record()
    past = [outputs[12 - i : 400 - i] for i in range(1, 13)]
    past += [inputs[12 - i : 400 - i] for i in range(13)]
    fitted = np.linalg.lstsq(np.hstack(past), outputs[12:], rcond=None)[0]
    blocks = fitted.reshape(25, 3, 3).transpose(0, 2, 1)
    own, now, driven = blocks[:12], blocks[12], blocks[13:]
    inner, both, C, _ = ho_kalman(np.concatenate([own, driven], axis=2)[:11], 3)
    F, theirs = both[:, :3], both[:, 3:]
    np.testing.assert_allclose(now[0], [0.1143089, 0.0972478, 0.0100988], atol=1e-6)
    np.testing.assert_allclose(
        np.sort(np.abs(np.linalg.eigvals(inner + F @ C))), [0.2532712, 0.8056086, 0.8056086],
        atol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose((C @ theirs)[0], [0.0383526, 0.1211083, -0.0136522], atol=1e-5)


@pytest.mark.parametrize(("method", "lags"), [("fir", 30), ("arx", 6)])
def test_without_noise_the_system_is_found_exactly(method, lags):
    inputs, outputs = record(ADS, 400, 0.0)
    found = identify(inputs, outputs + 7.0, lags=lags, method=method)
    assert found.order == 3
    np.testing.assert_allclose(found.system.response, ADS.response, atol=1e-4)
    np.testing.assert_allclose(found.gain.sum(0), ADS.response, atol=1e-4)
    np.testing.assert_allclose(found.impulse[:20], ADS.markov_parameters(19), atol=1e-4)
    np.testing.assert_allclose(found.fitted, outputs[lags:] + 7.0, atol=1e-4)


def test_units_do_not_matter():
    inputs, outputs = record(ADS, 500, 0.05)
    found = identify(inputs, outputs, lags=6)
    scaled = identify(inputs * [1e4, 1, 1e-3], outputs * [1, 1e3, 1], lags=6)
    assert scaled.order == found.order
    np.testing.assert_allclose(
        scaled.system.markov_parameters(8),
        found.system.markov_parameters(8) * np.array([1, 1e3, 1])[:, None] / [1e4, 1, 1e-3],
        rtol=1e-6, atol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["fir", "arx", "predictor"])
def test_with_noise_the_response_is_near_the_true_one(method):
    lags = {"fir": 20, "arx": 8, "predictor": 8}[method]
    inputs, outputs = record(ADS, 20_000, 0.02)
    found = identify(inputs, outputs, lags=lags, method=method, order=3)
    np.testing.assert_allclose(found.system.response, ADS.response, atol=0.02)
    np.testing.assert_allclose(found.gain.sum(0), ADS.response, atol=0.02)


def test_the_predictor_form_of_a_known_observer():
    """Coefficients of the observer x' = (A - F C) x + (B - F D) u + F y give the system back."""
    F = np.random.default_rng(0).normal(0, 0.1, (3, 3))
    inner, driven = ADS.A - F @ ADS.C, ADS.B - F @ ADS.D
    powers = [ADS.C @ np.linalg.matrix_power(inner, i) for i in range(12)]
    blocks = [ADS.D, *(p @ driven for p in powers), *(p @ F for p in powers)]
    made = design(np.zeros((99, 3)), np.zeros((99, 3)), 12, "predictor")
    coefficients = np.vstack([*(b.T for b in blocks), np.zeros((1, 3))])
    system, values = system_of(made, coefficients, 3)
    assert values[3] < 1e-9 * values[0]
    np.testing.assert_allclose(
        system.markov_parameters(20), ADS.markov_parameters(20), atol=1e-8
    )  # fmt: skip


def test_seasons_are_told_from_spends():
    system = LinearSystem(np.array([[0.5]]), np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    weekend = np.isin(np.arange(700) % 7, (5, 6))
    inputs = np.random.default_rng(0).uniform(0, 1, (700, 1)) + weekend[:, None]
    outputs = system.simulate(inputs, 0.1) - 20.0 * weekend[:, None]
    assert identify(inputs, outputs, lags=3, season=7).gain[0, 0] == pytest.approx(3, abs=0.3)
    assert abs(identify(inputs, outputs, lags=3).gain[0, 0] - 3) > 1


def test_ridge_shrinks_all_but_the_constants():
    inputs, outputs = record(ADS, 200, 0.05)
    free, shrunk = (design(inputs, outputs + 9, 3).coefficients(r) for r in (0.0, 1e9))
    assert np.abs(shrunk[:-1]).max() < 1e-3 * np.abs(free[:-1]).max()
    np.testing.assert_allclose(shrunk[-1], (outputs + 9)[3:].mean(0), rtol=1e-3)
    made = design(inputs, outputs, 3)
    plain = np.linalg.lstsq(made.columns, made.outputs, rcond=None)[0]
    np.testing.assert_allclose(made.coefficients(), plain, atol=1e-8)
    twice = np.repeat(np.arange(len(made.columns)), 2)
    np.testing.assert_allclose(made.resampled(twice, 4.0), made.coefficients(2.0), atol=1e-8)


def test_running_a_regression_forward():
    """y_t = 0.5 y_(t-1) + u_t + 2 u_(t-1): impulse 1, 2.5, 1.25, ..., sum 6."""
    driven, own = np.array([[[1.0]], [[2.0]]]), np.array([[[0.5]]])
    response = impulse_response(driven, own, 5).ravel()
    assert response.tolist() == [1, 2.5, 1.25, 0.625, 0.3125]
    made = design(np.zeros((9, 1)), np.zeros((9, 1)), 1, "arx")
    assert steady_gain(made, np.array([[1.0], [2.0], [0.5], [0.0]]))[0, 0] == pytest.approx(6)


def test_order_is_where_the_singular_values_drop():
    assert order_by_drop(np.array([5.0, 4.0, 3.0, 0.1, 0.09, 0.08])) == 3
    assert order_by_drop(np.array([5.0, 0.1, 0.0999, 0.0])) == 3  # exactly zero
    assert order_by_drop(np.array([2.0])) == 1


def test_records_that_are_too_short_are_refused():
    inputs, outputs = record(ADS, 30, 0.1)
    with pytest.raises(ValueError, match="30 periods are too few for 12 lags"):
        identify(inputs, outputs, lags=12)
    with pytest.raises(ValueError, match="lags must be at least 2"):
        identify(inputs, outputs, lags=1)
    with pytest.raises(ValueError, match="20 periods are too few for 3 channels"):
        generous_lags(20, 3, 3)
    assert generous_lags(10_000, 3, 1) == 12 and generous_lags(10_000, 3, 1, "fir") == 24
    lags = generous_lags(100, 3, 1)
    assert 100 - lags >= 3 * (3 * (lags + 1) + lags + 1)


@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_a_budget_grid_has_every_split_once(channels, parts, data):
    caps = data.draw(st.lists(st.integers(0, parts), min_size=channels, max_size=channels))
    every = np.stack(np.meshgrid(*[np.arange(c + 1) for c in caps], indexing="ij"), -1)
    expected = [tuple(s) for s in every.reshape(-1, channels) if s.sum() == parts]
    if not expected:
        with pytest.raises(ValueError, match="leave no way to spend"):
            budget_grid(3.0, np.array(caps) * 3.0 / parts, parts)
        return
    found = budget_grid(3.0, np.array(caps) * 3.0 / parts, parts)
    assert sorted(map(tuple, np.round(found * parts / 3.0).astype(int))) == sorted(expected)


def test_too_many_actions_are_refused():
    with pytest.raises(ValueError, match="more than 20,000 actions"):
        budget_grid(1.0, np.ones(8), 20)


BEHIND = LinearSystem(np.diag([0.8, 0.2]), np.eye(2), [[0.4, 0.1]], [[0.1, 1.2]])
SPEND = ["tv", "search"]


def campaign(seed, periods=400):
    rng = np.random.default_rng(seed)
    spend = rng.gamma(9, [3.0, 2.0], (periods, 2))
    table = pd.DataFrame(spend, columns=SPEND)
    return table.assign(sales=50 + BEHIND.simulate(spend, 2.0, seed)[:, 0])


@cache
def campaigns():
    return tuple(recommend(campaign(s), SPEND, ["sales"], replicates=60) for s in range(8))


def test_the_long_run_is_recommended_and_not_the_moment():
    """Search returns most at once (1.2 against 0.1), TV in the long run (2.1 against 1.325)."""
    for found in campaigns():
        assert found.best["tv"] > 4 * found.best["search"]
        assert found.channels.at_once.idxmax() == 1 and found.channels.response.idxmax() == 0
        best = found.actions.iloc[0]
        assert best.gain == found.actions.gain.max() and best.low < best.gain < best.high
    assert np.median([f.memory for f in campaigns()]) == pytest.approx(BEHIND.memory, rel=0.25)


def test_intervals_cover_the_truth():
    covered = [
        (f.channels.low.to_numpy() < BEHIND.response) & (BEHIND.response < f.channels.high.to_numpy())
        for f in campaigns()
    ]  # fmt: skip
    assert np.mean(covered) >= 0.8
    assert max(np.mean(f.channels.high - f.channels.low) for f in campaigns()) < 2


def grown(seed, periods=300):
    """A record that grows by 0.3 a period and has a season, for reasons of its own."""
    t = np.arange(periods)
    return campaign(seed, periods).assign(
        sales=lambda f: f.sales + 0.3 * t + 10 * np.sin(2 * np.pi * t / 7)
    )


def test_intervals_cover_the_truth_where_outcomes_grow_and_have_a_season():
    found = [recommend(grown(s), SPEND, ["sales"], season=7, replicates=60) for s in range(15)]
    low, high = (np.array([f.channels[name] for f in found]) for name in ("low", "high"))
    assert ((low < BEHIND.response) & (BEHIND.response < high)).mean() >= 0.85
    blind = recommend(grown(0), SPEND, ["sales"], season=7, trend=False, replicates=60).channels
    assert blind.response[0] > 1.7 * BEHIND.response[0]  # the growth passes for a memory
    assert max(f.channels.response[0] for f in found) < 1.5 * BEHIND.response[0]


def test_beyond_zero_means_better_than_the_past():
    """Of intervals that say "better than the past", as few are false as 95 % promise."""
    claims = []
    for found, table in ((f, campaign(s)) for s, f in enumerate(campaigns())):
        best = found.actions.iloc[0]
        truth = (best[SPEND].to_numpy(float) - table[SPEND].mean().to_numpy()) @ BEHIND.response
        claims.append(best.low <= 0 or truth > 0)
    assert all(claims)


def test_listed_actions_weights_and_caps():
    table = campaign(0).assign(returns=lambda t: 0.2 * t.sales + t.search)
    listed = pd.DataFrame({"search": [40.0, 0.0], "tv": [0.0, 40.0]})
    found = recommend(table, SPEND, ["sales"], candidates=listed, replicates=30)
    assert found.best == {"tv": 40.0, "search": 0.0} and len(found.actions) == 2
    minus = recommend(
        table, SPEND, ["sales", "returns"], weights=[1, -1], budget=30.0, caps=[12.0, 24.0],
        replicates=30, lags=4,
    )  # fmt: skip
    assert minus.best == {"tv": 12.0, "search": 18.0}  # as much TV as the cap allows
    assert minus.identified.lags == 4 and (minus.actions[SPEND].sum(axis=1).round(6) == 30).all()
    plain = recommend(table, SPEND, ["sales"], replicates=30, lags=4).channels.response
    assert minus.channels.response[1] == pytest.approx(0.8 * plain[1] - 1, abs=0.4)


def test_what_the_spends_explain():
    fit = campaigns()[0].fit
    late = fit.iloc[30:]
    truth = 50 + BEHIND.simulate(campaign(0)[SPEND].to_numpy())[:, 0]
    assert np.corrcoef(late.from_spend, truth[30:])[0, 1] > 0.97
    assert (late.observed - late.fitted).std() < (late.observed - late.observed.mean()).std()
    assert fit.fitted[: campaigns()[0].identified.lags].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(tv=3.0), "column 'tv' never changes"),
        (lambda t: t.assign(sales=3.0), "column 'sales' never changes"),
        (lambda t: t.assign(tv=t.search * 2 + 1), "'tv' and 'search' move together"),
        (lambda t: t.assign(sales=np.where(t.tv > 30, np.inf, 0)), "'sales' holds a value that is not"),
        (lambda t: t.head(15), "15 periods are too few for 2 channels"),
        (lambda t: t.assign(sales=t.sales + 1.05 ** np.arange(len(t))), "looks unstable"),
    ],
)  # fmt: skip
def test_records_that_say_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        recommend(change(campaign(0)), SPEND, ["sales"], replicates=20)
    with pytest.raises(ValueError, match="2 weights"):
        recommend(campaign(0), SPEND, ["sales"], weights=[1, 2], replicates=20)


def test_a_sum_of_others_is_no_channel_of_its_own():
    """Pairwise correlations of a sum are harmless; the budget would be counted twice."""
    table = campaign(0).assign(social=lambda t: np.random.default_rng(1).gamma(9, 2.0, len(t)))
    table = table.assign(total=table.tv + table.search + table.social)
    channels = [*SPEND, "social", "total"]
    assert np.abs(np.corrcoef(table[channels].T) - np.eye(4)).max() < 0.9
    with pytest.raises(ValueError, match="is a combination of .*leave one of them out"):
        recommend(table, channels, ["sales"], replicates=20)
    both = table.assign(returns=table.social, all=table.sales + table.social)
    with pytest.raises(ValueError, match="is a combination of 'returns', 'all'"):
        recommend(both, SPEND, ["sales", "returns", "all"], replicates=20)
    recommend(table, channels[:3], ["sales"], replicates=20)


def test_the_advisor_goes_on_from_its_file(tmp_path):
    actions = budget_splits()
    bounds = exact_bounds(ADS, actions, 0.01)

    def play(advisor, epochs):
        taken = []
        for _ in range(epochs):
            action, hold = advisor.advise()
            assert advisor.advise()[1] == hold  # asking twice changes nothing
            taken.append((tuple(action), hold))
            advisor.tell(float(ADS.response @ action))
        return taken

    whole = play(Advisor(actions, bounds, 500, seed=3), 30)
    advisor = Advisor(actions, bounds, 500, seed=3)
    first = play(advisor, 12)
    advisor.save(tmp_path / "advisor.json")
    again = Advisor.load(tmp_path / "advisor.json")
    assert first + play(again, 18) == whole
    assert [hold for _, hold in whole[:8]] == [1, 2, 3, 4, 4, 5, 5, 6]
    assert again.round == sum(hold for _, hold in whole)


def test_the_advisor_refuses_what_makes_no_sense(tmp_path):
    bounds = exact_bounds(ADS, budget_splits(), 0.01)
    advisor = Advisor(budget_splits(), bounds, 3)
    with pytest.raises(ValueError, match="ask for advice first"):
        advisor.tell(1.0)
    advisor.advise()
    with pytest.raises(ValueError, match="finite number"):
        advisor.tell(float("nan"))
    while advisor.round < 3:
        advisor.advise()
        advisor.tell(0.1)
    with pytest.raises(ValueError, match="all 3 rounds are over"):
        advisor.advise()
    with pytest.raises(ValueError, match="table of finite numbers"):
        Advisor(np.array([1.0, 2.0]), bounds, 3)
    for text in ("", "{}", json.dumps({"actions": [[1]], "bounds": {}})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="not a saved advisor"):
            Advisor.load(tmp_path / "bad.json")


def test_longer_records_find_the_response_and_the_best_action():
    process = Identification(ADS, budget_splits(), noise=0.01, method="arx", order=3)
    trace = unfold(process, seeds=2, steps=4, every=2, progress=False)
    assert trace.periods[0].values.tolist() == [100, 400, 1600]
    assert (trace.distance[:, -1] < 0.5 * trace.distance[:, 0]).all()
    assert (trace.regret[:, -1] == 0).all()


def test_of_a_system_that_comes_out_unstable_the_response_at_once_is_used(monkeypatch):
    unstable = LinearSystem(np.diag([1.2]), np.zeros((1, 2)), np.ones((1, 1)), [[1.0, 0.0]])
    found = type("Found", (), {"system": unstable})
    monkeypatch.setattr(identification, "identify", lambda *_, **__: found)
    system = LinearSystem(np.zeros((1, 1)), np.zeros((1, 2)), np.ones((1, 1)), [[1.0, 3.0]])
    seen = Identification(system, np.eye(2), noise=0.0).observe((0, 0))
    # Of responses 1 and 0 the first action looks best; it earns 1 where the other earns 3.
    assert (seen["regret"], seen["distance"]) == (2.0, 3.0)
