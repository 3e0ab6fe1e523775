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
    NextPolicy,
    Scaling,
    Settings,
    learn_from_log,
    simulate,
)

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


def test_named_context_columns_must_exist_and_be_whole(tmp_path):
    log(x=[None, *np.zeros(59)]).to_csv(tmp_path / "log.csv", index=False)
    silent = lambda what, share: None  # noqa: E731
    with pytest.raises(FileError, match="column 'x', row 2 is empty"):
        run([tmp_path / "log.csv"], Options(context="x"), silent)
    with pytest.raises(FileError, match="no column 'z'"):
        run([tmp_path / "log.csv"], Options(context="x, z"), silent)
    with pytest.raises(FileError, match="give one file"):
        run([], Options(), silent)


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
    policy = NextPolicy(Settings(oracle, hidden=8, steps=300), ("l", "r"), Scaling.of(x), 100)
    policy.update(x, action, reward)
    assert (policy.predict_proba(x).argmax(1) == (x[:, 0] > 0)).mean() > 0.9
    policy.save(tmp_path / "policy")
    other = NextPolicy.load(tmp_path / "policy")
    np.testing.assert_array_equal(policy.predict_proba(x), other.predict_proba(x))
    for p in (policy, other):
        p.update(x[:20], action[:20], reward[:20])
    np.testing.assert_array_equal(policy.predict_proba(x), other.predict_proba(x))
    assert other.rounds == 100 and other.actions == ("l", "r")


def test_a_policy_refuses_what_it_cannot_learn_from(tmp_path):
    x, action, reward = small(10)
    policy = NextPolicy(Settings("linear"), ("l", "r"), Scaling.of(x), 10)
    with pytest.raises(ValueError, match="positions 0 .. 1"):
        policy.update(x, action + 1, reward)
    with pytest.raises(ValueError, match="rewards must be in"):
        policy.update(x, action, reward * 2)
    (tmp_path / "not").write_text("a policy")
    with pytest.raises(ValueError, match="is not a saved policy"):
        NextPolicy.load(tmp_path / "not")


def test_tables_that_leave_a_part_empty_are_refused():
    x, action, reward = small(10)
    with pytest.raises(ValueError, match="leaves a part empty"):
        learn_from_log(x, action, reward, np.full(10, 0.5), ("l", "r"), train_share=1.0)
    with pytest.raises(ValueError, match="there must be rows and seeds"):
        simulate(x, action, ("l", "r"), seeds=0)
