"""From a user's log to the next policy: the example file, the simulator's truth, and bad files."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from latebloom.apply.payment_bandits import Options, application, read_log
from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.methods.bandits.next_policy import NextPolicy
from latebloom.methods.bandits.payments.serving import keys_of
from latebloom.methods.bandits.payments.world import Features, PaymentWorld

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "payment-log.csv"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("applied")
    return apply("payment-bandits", [EXAMPLE], out, settings={"resamples": "100", "ridge": "10"})


def test_from_the_file_to_the_next_policy(written):
    names = {path.name for path in written.paths}
    assert names >= {"policy.csv", "values.csv", "calibration.csv", "actions.csv",
                     "generations.csv", "result.json", "propensities.png", "calibration.png",
                     "values.png", "generations.png"}  # fmt: skip
    log = pd.read_csv(EXAMPLE)
    policy = pd.read_csv(written.folder / "policy.csv")
    p = policy.filter(like="p_")
    assert len(p) == len(log)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-4)
    for row in (0, 100, len(log) - 1):
        allowed = {f"p_{a}" for a in str(log.allowed_actions[row]).split("|")}
        assert set(p.columns[p.iloc[row] > 0]) == allowed
    result = json.loads((written.folder / "result.json").read_text())
    summary = result["summary"]
    assert summary["rows"] == len(log)
    assert summary["arrived"] == log.reward.notna().sum()
    assert summary["negatives"] == (log.reward == 0).sum()
    own = next(line for line in summary["values"] if line["policy"] == "logged")
    assert own["value"] == pytest.approx(log.reward.mean(), abs=1e-5)
    assert len(summary["generations"]) == log.generation.nunique()
    assert "the next policy earns" in result["found"][0]


def test_the_value_holds_the_truth_of_the_simulator(written):
    """The example comes from the world that its page names, whose probabilities are known."""
    world = PaymentWorld(batch=300, actions=4, merchants=8, issuers=12, generations=3, lift=0.7)
    instance = world.init(keys_of(0).instance)
    log = pd.read_csv(EXAMPLE)
    hour = pd.to_datetime(log.timestamp).dt.hour
    codes = [log[name].str[1:].astype(int) for name in ("merchant", "issuer", "card", "region")]
    features = Features(
        jnp.asarray(np.stack([*codes, hour], axis=1), jnp.int32),
        jnp.asarray(np.stack([np.log(log.amount) - 3.5, log.recurring], axis=1), jnp.float32),
    )
    means = jax.vmap(lambda f: world.means(instance, f, jnp.int32(0)))(features)
    p = pd.read_csv(written.folder / "policy.csv").filter(like="p_").to_numpy()
    truth = float((p * np.asarray(means)).sum(axis=1).mean())
    values = pd.read_csv(written.folder / "values.csv")
    found = values[(values.policy == "next") & (values.estimator != "direct")]
    assert ((found.low < truth) & (truth < found.high)).all()
    sets = log.allowed_actions.astype(str).map(lambda x: [int(a) for a in x.split("|")])
    uniform = np.mean([m[a].mean() for m, a in zip(np.asarray(means), sets, strict=True)])
    assert truth > uniform + 0.02


def bad(tmp_path, change):
    table = pd.read_csv(EXAMPLE, dtype=object)
    path = tmp_path / "log.csv"
    change(table).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda t: t.drop(columns="propensity"), "has no column 'propensity'"),
        (lambda t: t.head(20), "20 rows where at least 100"),
        (lambda t: t.assign(propensity="0"), "column 'propensity', row 2: 0 is outside \\(0, 1\\]"),
        (lambda t: t.assign(reward="3"), "column 'reward', row 2: 3 is outside \\[0, 1\\]"),
        (lambda t: t.assign(reward="1"), "column 'reward': all .* rewards are the same"),
        (lambda t: t.assign(reward=""), "column 'reward': all 0 rewards"),
        (lambda t: t.assign(propensity="1.5"), "column 'propensity', row 2: 1.5 is outside"),
        (lambda t: t.assign(propensity=""), "column 'propensity', row 2"),
        (lambda t: t.assign(timestamp=""), "column 'timestamp', row 2"),
        (lambda t: t.assign(action=""), "column 'action', row 2"),
        (lambda t: t.assign(allowed_actions=""), "column 'allowed_actions', row 2"),
        (lambda t: t.assign(action="99"), "column 'action', row 2: 99 is not among"),
        (lambda t: t.assign(timestamp="noon"), "column 'timestamp', row 2: 'noon' is not a time"),
        (lambda t: t.assign(reward_timestamp="2001-01-01"), "the reward comes before the decision"),
        (lambda t: t.assign(allowed_actions="[1, "), "column 'allowed_actions', row 2"),
    ],
)  # fmt: skip
def test_bad_logs_are_named_with_row_and_mend(tmp_path, change, says):
    with pytest.raises(FileError, match=says):
        read_log(bad(tmp_path, change))


def test_one_file_and_a_window_that_the_log_can_give(tmp_path):
    with pytest.raises(FileError, match="give one log, not 2"):
        application.run([EXAMPLE, EXAMPLE], Options(), lambda text, share: None)
    path = bad(tmp_path, lambda t: t.drop(columns="generation"))
    with pytest.raises(FileError, match="no column 'generation', which window=1 needs"):
        application.run([path], Options(window=1), lambda text, share: None)


def test_what_is_saved_serves_new_rows(written):
    policy = NextPolicy.load(written.folder / "policy.saved")
    log = read_log(EXAMPLE)
    told = pd.read_csv(written.folder / "policy.csv").filter(like="p_").to_numpy()
    np.testing.assert_allclose(policy.score(log), told, atol=2e-6)
    np.testing.assert_allclose(
        policy.score(log.drop(columns=["reward", "action"])), told, atol=2e-6
    )
    new = log.head(4).assign(
        merchant="never seen", allowed_actions=[["0"], ["1", "2"], ["0"], ["3"]]
    )
    names, propensities = policy.draw(new, np.random.default_rng(0))
    assert names[0] == "0" and names[1] in ("1", "2") and propensities[0] == pytest.approx(1)
    assert policy.predict(new).shape == (4, 4)
    with pytest.raises(ValueError, match="no context column 'amount'"):
        policy.score(log.drop(columns="amount"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": -5.0}, "gamma must be a number, 0 or more, not -5"),
        ({"gamma": np.inf}, "gamma must be a number"),
        ({"ridge": -1.0}, "ridge must be a number above 0, not -1"),
        ({"ridge": 0.0}, "ridge must be a number above 0, not 0"),
        ({"floor": 1.0}, r"floor must be in \[0, 1\)"),
        ({"cost_share": 0.0}, r"cost_share must be in \(0, 1\]"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"resamples": 0}, "resamples must be at least 1"),
        ({"window": -1}, "window must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(FileError, match=message):
        application.run([EXAMPLE], Options(**settings), lambda text, share: None)


def test_rewards_that_are_not_there_have_no_time_either(tmp_path):
    """The normal case: an empty reward with an empty reward_timestamp."""
    log = read_log(EXAMPLE)
    assert log.reward.isna().any() and (log.reward_timestamp.isna() == log.reward.isna()).all()


def test_a_column_that_was_written_after_the_reward_is_named(tmp_path):
    path = bad(tmp_path, lambda t: t.assign(code=t.reward.map({"1": "ok", "0": "no"})))
    quick = Options(resamples=20, ridge=10.0, folds=2)
    found = application.run([path], quick, lambda text, share: None)
    assert any("'code' alone tells high rewards from low" in line for line in found.found)
    assert found.summary["leaking"] == ["code"]


def test_halved_propensities_are_said_and_not_valued(tmp_path):
    half = bad(tmp_path, lambda t: t.assign(propensity=(t.propensity.astype(float) / 2).map(str)))
    quick = Options(resamples=20, ridge=10.0, folds=2)
    found = application.run([half], quick, lambda text, share: None)
    assert found.summary["verdict"] == "not covered" and "check the propensities" in found.found[0]


def test_a_number_that_is_none_is_named(tmp_path):
    path = bad(tmp_path, lambda t: t.assign(amount=["n/a", *t.amount[1:]]))
    with pytest.raises(FileError, match="column 'amount', row 0: 'n/a' is not a finite number"):
        application.run([path], Options(resamples=20), lambda text, share: None)
