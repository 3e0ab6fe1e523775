"""From a table to the next policy: a log whose truth is known, labels, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from latebloom.apply.neural_bandits import Options, run
from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.lab.style import png
from latebloom.methods.bandits.neural.next_policy import (
    OnlinePolicy,
    Scaling,
    Settings,
    learn_from_log,
    simulate,
)
from latebloom.methods.bandits.next_policy import NextPolicy

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "shop-offers.csv"
FAST = {"hidden": "16", "steps": "100"}


def truth(frame: pd.DataFrame) -> np.ndarray:
    """Click probabilities [n, 3] of the example's generator."""
    young, big = frame.age < 40, frame.basket > 35
    best = np.where(young ^ big, 0, np.where(frame.device == "phone", 1, 2))
    p = np.full((len(frame), 3), 0.15)
    p[np.arange(len(frame)), best] = 0.7
    return p


def test_the_example_s_next_policy_is_worth_what_it_is_said_to_be(tmp_path):
    done = apply("neural-bandits", [EXAMPLE], tmp_path, settings={"hidden": "30"})
    table = pd.read_csv(tmp_path / "policy.csv")
    p = table[["p_A", "p_B", "p_C"]].to_numpy()
    assert len(table) == 2000 and np.allclose(p.sum(1), 1, atol=1e-4)
    test = (table.part == "test").to_numpy()
    true = (p * truth(pd.read_csv(EXAMPLE))).sum(1)[test].mean()
    assert true > 0.58  # the logged policy earns 0.36, the best 0.7, the best single offer 0.43
    values = json.loads((tmp_path / "result.json").read_text())["summary"]["values"]
    for name in ("IPS", "SNIPS", "doubly robust"):
        value, low, high = values[name]
        assert low < value < high and low - 0.02 < true < high + 0.02, name
    assert abs(values["logged policy"][0] - 0.356) < 0.04
    assert "better" in done.applied.found[0]
    for figure in done.applied.figures.values():
        assert len(png(figure)) > 5_000


def test_a_linear_oracle_cannot_tell_who_likes_what(tmp_path):
    """The best offer hangs on two features together, so that the network earns more."""
    apply("neural-bandits", [EXAMPLE], tmp_path, settings={"oracle": "linear"})
    p = pd.read_csv(tmp_path / "policy.csv")[["p_A", "p_B", "p_C"]].to_numpy()
    assert (p * truth(pd.read_csv(EXAMPLE))).sum(1)[1000:].mean() < 0.55


def test_labels_are_played_and_the_mistakes_counted(tmp_path):
    frame = load_iris(as_frame=True).frame.rename(columns={"target": "label"})
    frame.to_csv(tmp_path / "iris.csv", index=False)
    settings = FAST | {"seeds": "2", "rate": "1.0"}
    done = apply("neural-bandits", [tmp_path / "iris.csv"], tmp_path / "out", settings=settings)
    summary = done.applied.summary
    assert summary["mode"] == "labels" and summary["mistakes"]["commonest label"] == 100
    assert all(len(summary["mistakes"][k]) == 2 for k in ("neural", "linear"))
    assert np.mean(summary["mistakes"]["neural"]) < 45  # guessing costs 100
    table = pd.read_csv(tmp_path / "out" / "policy.csv")
    assert (table.likeliest == frame.label).mean() > 0.8
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert (np.diff(curves.neural) >= 0).all() and curves["round"].iloc[-1] == 150
    for figure in done.applied.figures.values():
        assert len(png(figure)) > 5_000


def log(n=60, **changed):
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.normal(size=n).round(3), "kind": rng.choice(["a", "b"], n),
        "action": rng.choice(["l", "r"], n), "reward": rng.integers(0, 2, n),
        "propensity": np.full(n, 0.5),
    }  # fmt: skip
    return pd.DataFrame({**columns, **changed})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (log(40), "has 40 rows where at least 50"),
        (log().drop(columns="reward"), "has neither a column 'label'"),
        (log().drop(columns="propensity"), "has no column 'propensity'"),
        (log(reward=[2.0] + [1.0] * 59), r"column 'reward', row 2: 2 is outside \[0, 1\]"),
        (log(propensity=[0.5, 0.0] + [0.5] * 58), r"column 'propensity', row 3: 0 is outside \(0, 1\]"),
        (log(action=["l"] * 60), "holds one value only"),
        (log(action=[str(i) for i in range(60)]), "60 different values in 60 rows"),
        (log()[["action", "reward", "propensity"]], "has no context column"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_place_and_mend(tmp_path, frame, message):
    frame.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(FileError, match=message):
        run([tmp_path / "log.csv"], Options(), lambda what, share: None)


def silent(what, share):
    pass


@pytest.mark.parametrize("named", ["", "x"])
def test_a_gap_is_filled_and_said_and_drops_no_column(tmp_path, named):
    x = log().x.astype(object)
    x[3] = None
    log(x=x).to_csv(tmp_path / "log.csv", index=False)
    done = run([tmp_path / "log.csv"], Options(oracle="linear", context=named), silent)
    assert any("context: 1 numbers" in line and "gaps filled with the mean: x (1)" in line
               for line in done.found)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"context": "x, z"}, "no column 'z'"),
        ({"x": ["n/a", *log().x[1:]]}, {}, "column 'x', row 2: 'n/a' is not a finite number"),
        ({"x": ["inf", *log().x[1:]]}, {}, "column 'x', row 2: .*inf.* is not a finite number"),
        ({"x": 1.0}, {"context": "x"}, "no context column that varies"),
        ({}, {"context": "x,reward"}, "'reward' cannot be context"),
        ({"label": "a"}, {}, "say which with --set mode=log or --set mode=labels"),
        ({}, {"train_share": 1.0}, "train_share must be in"),
        ({}, {"seeds": 0}, "seeds must be at least 1"),
        ({}, {"gamma": -1.0}, "gamma must be positive"),
        ({}, {"gamma": float("inf")}, "gamma must be positive and finite"),
        ({}, {"growth": float("nan")}, "growth must be at least 0"),
        ({}, {"strength": -1.0}, "strength must be at least 0"),
    ],
)
def test_what_cannot_be_context_or_setting_is_refused(tmp_path, change, options, message):
    log(**change).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=message):
        run([tmp_path / "log.csv"], Options(**options), silent)
    with pytest.raises(FileError, match="give one file"):
        run([], Options(), silent)


def test_a_log_with_labels_is_what_one_says_it_is(tmp_path):
    log(label=["a", "b"] * 30).to_csv(tmp_path / "log.csv", index=False)
    for mode in ("log", "labels"):
        done = run(
            [tmp_path / "log.csv"], Options(mode=mode, oracle="linear", steps=20, seeds=1), silent
        )
        assert done.summary["mode"] == mode


def test_halved_propensities_are_no_improvement(tmp_path):
    """Of pure noise with propensities half of what they were, IPS alone said "better"."""
    rng = np.random.default_rng(0)
    frame = log(400, x=rng.normal(size=400), reward=rng.integers(0, 2, 400), propensity=0.25)
    frame["action"] = rng.choice(["l", "r"], 400)
    frame.to_csv(tmp_path / "log.csv", index=False)
    done = run([tmp_path / "log.csv"], Options(oracle="linear"), silent)
    assert done.summary["verdict"] == "not covered" and "check the propensities" in done.found[0]


def test_a_column_that_knows_the_reward_is_named(tmp_path):
    known = log(n=200)
    known["refunded"] = np.where(known.reward == 1, "no", "yes")
    known.to_csv(tmp_path / "log.csv", index=False)
    done = run([tmp_path / "log.csv"], Options(oracle="linear"), silent)
    assert any("'refunded' alone tells high rewards from low" in line for line in done.found)
    log(n=200).to_csv(tmp_path / "log.csv", index=False)
    done = run([tmp_path / "log.csv"], Options(oracle="linear"), silent)
    assert not any("alone tells" in line for line in done.found)


@pytest.mark.parametrize("settings", [{"oracle": "linear"}, FAST])
def test_what_is_saved_serves_new_rows(tmp_path, settings):
    apply("neural-bandits", [EXAMPLE], tmp_path, settings=settings)
    policy = NextPolicy.load(tmp_path / "policy.saved")
    frame, table = pd.read_csv(EXAMPLE), pd.read_csv(tmp_path / "policy.csv")
    p = policy.score(frame)
    np.testing.assert_allclose(p, table[["p_A", "p_B", "p_C"]], atol=2e-6)
    limited = frame.head(3).assign(allowed_actions=[["A"], ["A", "B"], ["C"]], device="watch")
    q = policy.score(limited)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-6)
    assert (q[[0, 1, 1], [0, 0, 1]] > 0).all() and (q[[0, 1, 2], [1, 2, 0]] == 0).all()
    names, told = policy.draw(frame.head(500), np.random.default_rng(0))
    assert (told == p[np.arange(500), [policy.actions.index(n) for n in names]]).all()
    assert abs(np.mean([n == "A" for n in names]) - p[:500, 0].mean()) < 0.07
    for wrong, message in (
        (frame.drop(columns="age"), "no context column 'age'"),
        (frame.assign(age="old"), "column 'age', row 0: 'old' is not a finite number"),
        (frame.head(1).assign(allowed_actions=[["Z"]]), "'Z', which the policy does not know"),
        (frame.head(1).assign(allowed_actions=[[]]), "must be a list of actions"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.score(wrong)
    (tmp_path / "not").write_text("a policy")
    with pytest.raises(ValueError, match="is not a saved policy"):
        NextPolicy.load(tmp_path / "not")


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="oracle must be 'neural' or 'linear'"):
        Settings(oracle="deep")
    with pytest.raises(ValueError, match="gamma must be positive"):
        Settings(gamma=0.0)


def small(n=80):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 2))
    action = rng.integers(0, 2, n)
    return x, action, ((x[:, 0] > 0) == action).astype(float)


@pytest.mark.parametrize("oracle", ["neural", "linear"])
def test_a_policy_goes_on_after_it_was_saved(tmp_path, oracle):
    x, action, reward = small()
    policy = OnlinePolicy(Settings(oracle, hidden=8, steps=300), ("l", "r"), Scaling.of(x), 100)
    policy.update(x, action, reward)
    assert (policy.predict_proba(x).argmax(1) == (x[:, 0] > 0)).mean() > 0.9
    policy.save(tmp_path / "policy")
    other = OnlinePolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(policy.predict_proba(x), other.predict_proba(x))
    for p in (policy, other):
        p.update(x[:20], action[:20], reward[:20])
    np.testing.assert_array_equal(policy.predict_proba(x), other.predict_proba(x))
    assert other.rounds == 100 and other.actions == ("l", "r")


def test_a_policy_refuses_what_it_cannot_learn_from(tmp_path):
    x, action, reward = small(10)
    policy = OnlinePolicy(Settings("linear"), ("l", "r"), Scaling.of(x), 10)
    with pytest.raises(ValueError, match="positions 0 .. 1"):
        policy.update(x, action + 1, reward)
    with pytest.raises(ValueError, match="rewards must be in"):
        policy.update(x, action, reward * 2)
    before = policy.predict_proba(x)
    holed = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, x)
    for call, message in (
        (lambda: policy.predict_proba(x[:, :1]), r"contexts must be \[rows, 2\]"),
        (lambda: policy.predict_proba(x[0]), r"contexts must be \[rows, 2\]"),
        (lambda: policy.predict(np.hstack([x, x])), r"contexts must be \[rows, 2\]"),
        (lambda: policy.predict_proba(holed), "row 3 holds a value that is not finite"),
        (lambda: policy.update(holed, action, reward), "row 3 holds a value that is not finite"),
        (lambda: policy.update(x, action[:5], reward), "10 contexts, 5 actions and 10 rewards"),
        (lambda: policy.update(x, action, reward * np.nan), "rewards must be in"),
        (lambda: policy.predict_proba(x, np.zeros((10, 2), bool)), "row 0 allows no action"),
        (lambda: policy.predict_proba(x, np.ones((10, 3), bool)), r"allowed must be \[10, 2\]"),
    ):
        with pytest.raises(Exception, match=message + "|[Tt]ype-check error"):
            call()
    np.testing.assert_array_equal(policy.predict_proba(x), before)  # and nothing was learned
    (tmp_path / "not").write_text("a policy")
    with pytest.raises(ValueError, match="is not a saved policy"):
        OnlinePolicy.load(tmp_path / "not")


def test_tables_that_leave_a_part_empty_are_refused():
    x, action, reward = small(10)
    with pytest.raises(ValueError, match="leaves a part empty"):
        learn_from_log(x, action, reward, np.full(10, 0.5), ("l", "r"), train_share=1.0)
    with pytest.raises(ValueError, match="there must be rows and seeds"):
        simulate(x, action, ("l", "r"), seeds=0)
