"""From a logged table to the next policy: encoding, cross-fitting, audit, and the simulator's truth."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from latebloom.methods.bandits.encoding import learn_encoding
from latebloom.methods.bandits.payments import logs
from latebloom.methods.bandits.payments.model import CrossedLogistic


def tiny():
    return pd.DataFrame(
        {
            "timestamp": pd.to_datetime(["2025-01-01T03:00Z"] * 2 + ["2025-01-02T15:00Z"] * 3),
            "generation": [1, 1, 2, 2, 2],
            "card": ["x", "x", "x", "y", "y"],
            "allowed_actions": [["a", "b"], ["a", "b"], ["a", "b", "c"], ["a", "b"], ["a"]],
            "action": ["a", "b", "c", "a", "a"],
            "propensity": [0.5, 0.5, 0.25, 0.5, 1.0],
            "reward": [1.0, 0.0, 1.0, 1.0, np.nan],
        }
    )


def test_columns_become_codes_and_numbers():
    table = pd.DataFrame(
        {
            "bank": ["b", "a", "b", None, "c"],
            "flag": [1, 0, 1, 1, 0],
            "amount": ["1.5", "2.5", "3.25", "", "1.0"],
            "same": [7] * 5,
        }
    )
    encoding = learn_encoding(table, ["bank", "flag", "amount", "same"], most_levels=2)
    assert encoding.levels["bank"][0] == "b" and len(encoding.levels["bank"]) == 2
    assert encoding.levels["flag"] == ("1", "0") and "same" not in encoding.levels
    mean, deviation = encoding.scales["amount"]
    assert mean == pytest.approx(np.mean([1.5, 2.5, 3.25, 1.0]))
    found = encoding(pd.DataFrame({"bank": ["b", "new"], "flag": [1.0, 5], "amount": [mean, None]}))
    np.testing.assert_array_equal(found.categories, [[1, 1], [0, 0]])
    np.testing.assert_allclose(found.numbers, [[0], [0]], atol=1e-6)
    assert encoding.sizes == (3, 3) and deviation > 0
    with pytest.raises(ValueError, match="no context column 'flag'"):
        encoding(table[["bank", "amount"]])
    for wrong in ("?", np.inf):
        with pytest.raises(ValueError, match="column 'amount', row 1: .* is not a finite number"):
            encoding(pd.DataFrame({"bank": "b", "flag": 1, "amount": [mean, wrong]}, dtype=object))


def test_actions_are_named_sorted_and_checked():
    assert logs.action_names(tiny()) == ("a", "b", "c")
    numbered = pd.DataFrame({"allowed_actions": [[10, 9], [2]]})
    assert logs.action_names(numbered) == ("2", "9", "10")
    np.testing.assert_array_equal(
        logs.action_sets(tiny(), ("a", "b", "c"))[2:], [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    )
    with pytest.raises(ValueError, match="row 2 allows 'c'"):
        logs.action_sets(tiny(), ("a", "b"))
    log = tiny()
    encoding = learn_encoding(logs.with_hour(log), logs.context_columns(log))
    assert set(encoding.levels) == {"card", "hour"}
    with pytest.raises(ValueError, match="row 4: action 'b' is not among"):
        logs.to_rows(log.assign(action=["a", "b", "c", "a", "b"]), encoding, ("a", "b", "c"))


def test_an_audit_by_hand():
    found = logs.audit(tiny(), ridge=1.0)
    first, second = found.iloc[0], found.iloc[1]
    assert (first["rows"], second["rows"]) == (2, 3)
    assert first["arrived"] == 1 and second["arrived"] == pytest.approx(2 / 3)
    assert first["negative_share"] == 0.5 and second["negatives"] == 0
    assert first["entropy"] == pytest.approx(1.0)  # uniform
    expected = -np.log([0.25, 0.5, 1.0]).mean() / np.log([3, 2, 2]).mean()
    assert second["entropy"] == pytest.approx(expected)
    assert second["least_propensity"] == 0.25
    assert first["reward_high"] - first["reward"] == pytest.approx(1.96 * np.sqrt(0.5 / 2))
    assert second["reward_shift"] == pytest.approx(0.5)
    # Rows with rewards: actions a, b against c, a; cards x, x against x, y; hours 3 against 15.
    assert second["action_shift"] == pytest.approx(0.5)
    assert second["context_shift"] == 1.0 and second["context_shift_in"] == "hour"
    assert np.isnan(first["log_loss"]) and 0 < second["log_loss"] < 2


def test_held_out_predictions_do_not_see_their_own_fold():
    log = tiny().iloc[:4]
    encoding = learn_encoding(logs.with_hour(log), logs.context_columns(log))
    rows = logs.to_rows(log, encoding, ("a", "b", "c"))
    model = CrossedLogistic(encoding.sizes, 0, 3, ridge=jnp.float32(1.0), conjugate=20)
    fold = np.array([0, 1, 0, 1])
    held = logs.cross_fit(model, rows, fold)
    turned = rows._replace(reward=jnp.where(jnp.asarray(fold == 0), 1 - rows.reward, rows.reward))
    again = logs.cross_fit(model, turned, fold)
    np.testing.assert_allclose(held[fold == 0], again[fold == 0], atol=1e-6)
    assert np.abs(held[fold == 1] - again[fold == 1]).max() > 0.01


@cache
def shop(n=3000, seed=0):
    """Two contexts, three actions; in each another action is best. Logged with known propensities."""
    rng = np.random.default_rng(seed)
    card = rng.integers(0, 2, n)
    means = np.array([[0.9, 0.6, 0.5], [0.5, 0.6, 0.9]])[card]
    logging = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])[card]
    action = (rng.uniform(size=n)[:, None] > logging.cumsum(1)).sum(1)
    row = np.arange(n)
    reward = (rng.uniform(size=n) < means[row, action]).astype(float)
    log = pd.DataFrame(
        {
            "timestamp": pd.Timestamp("2025-01-01T12:00Z") + pd.to_timedelta(row, unit="s"),
            "card": np.array(["debit", "credit"])[card],
            "allowed_actions": [["p", "q", "r"]] * n,
            "action": np.array(["p", "q", "r"])[action],
            "propensity": logging[row, action],
            "reward": reward,
        }
    )
    return log, means


@cache
def learned():
    return logs.learn_next_policy(shop()[0], cost_share=0.2, ridge=1.0, folds=3, resamples=200)


def estimate(policy, name, estimator):
    table = policy.estimates
    return table[(table.policy == name) & (table.estimator == estimator)].iloc[0]


def test_the_next_policy_is_better_and_its_value_is_told():
    log, means = shop()
    policy = learned()
    scores = policy.score(log)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    truth = (scores * means).sum(1).mean()
    uniform = means.mean()
    assert truth > uniform + 0.15
    for name in ("ips", "snips", "dr"):
        line = estimate(policy, "next", name)
        assert abs(line.value - truth) < 3 * line.error + 0.005
        assert line.bootstrap_low < line.value < line.bootstrap_high
    even = estimate(policy, "uniform", "dr")
    assert abs(even.value - uniform) < 3 * even.error
    own = estimate(policy, "logged", "mean")
    assert own.value == pytest.approx(log.reward.mean(), abs=1e-5)
    assert own.error == pytest.approx(stats.sem(log.reward), rel=1e-3)
    assert policy.effective_size["logged"] == pytest.approx(len(log))
    assert policy.mean_weight["next"] == pytest.approx(1, abs=0.1)
    assert policy.auc > 0.65 and policy.calibration_error < 0.05


def test_exploring_costs_what_was_asked():
    log, _ = shop()
    policy = learned()
    f = policy.predict(log)
    even = f.max(1).mean() - f.mean()
    assert policy.cost == pytest.approx(0.2 * even, rel=0.01)
    p = policy.score(log)
    assert (f.max(1) - (p * f).sum(1)).mean() == pytest.approx(policy.cost, rel=1e-3)


def test_sets_are_kept_when_scoring_new_rows():
    new = pd.DataFrame(
        {
            "timestamp": pd.to_datetime(["2025-02-01T09:00Z"] * 2),
            "card": ["debit", "never seen"],
            "allowed_actions": [["q", "r"], ["q"]],
        }
    )
    p = learned().score(new)
    assert p[0, 0] == 0 and p[0].sum() == pytest.approx(1)
    np.testing.assert_allclose(p[1], [0, 1, 0])
    with pytest.raises(ValueError, match="'z', which the policy does not know"):
        learned().score(new.assign(allowed_actions=[["q"], ["z"]]))


def test_settings_and_logs_that_make_no_sense_are_refused():
    log, _ = shop()
    for wrong in ({"floor": 1.0}, {"cost_share": 0.0}, {"folds": 1}):
        with pytest.raises(ValueError, match="floor must be"):
            logs.learn_next_policy(log, **wrong)
    with pytest.raises(ValueError, match="high and with low rewards"):
        logs.learn_next_policy(log.assign(reward=1.0))
