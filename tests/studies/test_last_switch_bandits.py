"""Effects on traces worked by hand, the instances that learners meet, and the method on files."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.methods.bandits.last_switch import Instances
from latebloom.methods.bandits.last_switch.evaluation import WAYS
from latebloom.methods.bandits.last_switch.logs import fatigue_log
from latebloom.studies.bandits import last_switch_bandits as module
from latebloom.studies.bandits.last_switch_bandits import ARMS, CLAIMS, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def compared(bound=1.0, virtual=0.7, **rewards):
    """Two seeds of two instances; every reward is a list of four."""
    table = np.full((2, 1, 2, len(WAYS)), np.nan)
    for way, values in rewards.items():
        table[..., WAYS.index(way.replace("_", "-"))] = np.reshape(values, (2, 1, 2))
    dims = ("seed", "step", "instance")
    return xr.Dataset(
        {
            "bound": (dims, np.full((2, 1, 2), bound)),
            "virtual": (dims, np.broadcast_to(np.reshape(virtual, (-1, 1, 1)), (2, 1, 2))),
            "reward": ((*dims, "way"), table),
        },
        {"way": list(WAYS)},
    )


def learned(rounds, mean):
    """Two seeds with the same expected reward at each observed round."""
    dims = ("seed", "step")
    return xr.Dataset(
        {
            "round": (dims, np.tile(rounds, (2, 1))),
            "mean": (dims, np.tile(np.asarray(mean, float), (2, 1))),
        }
    )


def test_shares_are_of_the_bound_and_the_worst_number_of_arms_counts():
    plain = compared(2.0, planner=[1.8] * 4, greedy=[1.8] * 4, round_robin=[1.8] * 4)
    traces = {arm: plain for arm in module.planning_arms("jump")} | {
        "jump-2": compared(2.0, planner=[1.8, 1.6, 1.8, 1.6], greedy=[1.0, 1.2, 1.0, 1.2], round_robin=[1.8] * 4),
        "jump-10": compared(2.0, planner=[1.4, 1.4, 1.2, 1.6], greedy=[1.5, 1.7, 1.5, 1.7], round_robin=[0.4] * 4),
    }  # fmt: skip
    np.testing.assert_allclose(module.share(traces["jump-2"], "planner"), [[0.9, 0.8], [0.9, 0.8]])
    np.testing.assert_allclose(BY_ID["C1.jump"].effect(traces), [0.7, 0.7])
    np.testing.assert_allclose(BY_ID["C1.jump"].null(traces), [0.2, 0.2])
    np.testing.assert_allclose(BY_ID["U1.jump"].effect(traces), [0.05, 0.05])


def test_certificate_slack_and_limit():
    plain = {arm: compared(2.0, 1.4) for arm in module.ALL_PLANNING}
    plain["jump-10"] = compared(2.0, [1.3, 1.5])
    np.testing.assert_allclose(BY_ID["C1.certificate"].effect(plain), [0.65, 0.7])
    small = {arm: compared(optimum=[0.9, 0.8, 0.7, 1.0]) for arm in module.ALL_SMALL}
    np.testing.assert_allclose(BY_ID["C1.bound"].effect(small), [0.1, 0.0])
    limits = [1 - (1 - 1 / k) ** k for k in module.TIGHT]
    tight = {
        f"tight-{k}": compared(planner=[limit, limit, limit + 0.02, limit], round_robin=[1] * 4)
        for k, limit in zip(module.TIGHT, limits, strict=True)
    }
    np.testing.assert_allclose(BY_ID["C1.limit"].effect(tight), [0, 0.01], atol=1e-12)
    np.testing.assert_allclose(BY_ID["C1.limit"].null(tight), [1 - min(limits)] * 2)


def test_worth_of_options_is_averaged_over_all_arms():
    same = {a: compared(planner=[0.5] * 4, planner_fill=[0.5] * 4) for a in module.ALL_PLANNING}
    same["tight-4"] = compared(planner=[0.5] * 4, planner_fill=[0.5, 0.5, 1.0, 1.0])
    expected = [0.0, 0.5 / len(module.ALL_PLANNING)]
    np.testing.assert_allclose(BY_ID["V.fill"].effect(same), expected)


def learning(power):
    """Regret 2 T^power against a planner that earns 0.5 a round."""
    rounds = np.array([0, 100, 1_000, 10_000, 100_000])
    mean = 0.5 * rounds - 2 * rounds**power
    traces = {"jump-reference": compared(planner=[0.5] * 4), "jump-ucb1": learned(rounds, mean)}
    for i, horizon in enumerate(module.HORIZONS):
        traces[f"jump-etc-{horizon}"] = learned(rounds[: i + 3], mean[: i + 3])
    return traces


@pytest.mark.parametrize("power", [0.4, 2 / 3, 0.95])
def test_slopes_are_those_of_the_regret(power):
    traces = learning(power)
    np.testing.assert_allclose(module.regret(traces, "jump", "ucb1")[:, 2], 2 * 1000**power)
    np.testing.assert_allclose(BY_ID["C2.commit.jump"].effect(traces), [power] * 2)
    np.testing.assert_allclose(BY_ID["C2.blind.jump"].effect(traces), [power] * 2)


def test_whoever_meets_the_planner_has_a_regret_of_one():
    traces = learning(0.5)
    traces["jump-etc-long"]["mean"][:, -1] = 0.6 * 100_000
    expected = np.polyfit([3, 4, 5], [np.log10(2 * 1000**0.5), np.log10(200), 0], 1)[0]
    np.testing.assert_allclose(BY_ID["C2.commit.jump"].effect(traces), [expected] * 2)
    beyond = 1 - np.exp(-1) - 0.6
    np.testing.assert_allclose(BY_ID["C2.approximate.jump"].effect(traces), [beyond] * 2)


def test_the_reference_is_the_instance_that_learners_meet():
    config = ARMS["jump-reference"]
    draw = Instances(config.family, config.arms, config.idle, config.streak)
    learner = module.make_process(ARMS["jump-optimistic"])
    traced = module.make_process(ARMS["jump-ucb1"])
    for seed in (0, 3):
        payoffs = np.asarray(draw(module.instance_key(seed, 0)))
        met = [learner.init(seed), traced.init(jax.random.key(seed))]
        np.testing.assert_allclose(met[0].loop.environment.payoffs, payoffs, rtol=1e-6)
        np.testing.assert_allclose(met[1].environment.payoffs, payoffs, rtol=1e-6)
    others = [np.asarray(draw(module.instance_key(0, number))) for number in range(3)]
    assert not np.allclose(others[0], others[1]) and not np.allclose(others[1], others[2])


def test_horizons_are_among_the_marks():
    marks = module.marks(100_000)
    assert set(module.HORIZONS.values()) <= set(marks) and marks[-1] == 100_000
    assert module.marks(1500) == (100, 215, 464, 1000, 1500)


def test_fifty_arms_take_fewer_roundings_below_full():
    for budget, draws in (("quick", 100), ("thorough", 100), ("full", 200)):
        assert study.configs(budget)["jump-50"].draws == draws
    assert study.configs("full")["jump-2"].instances == 3


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "events.csv"
    events, truth = fatigue_log(days=400, seed=2)
    events.to_csv(path, index=False)
    return path, truth


def test_a_log_becomes_a_calendar(log, tmp_path):
    path, truth = log
    done = apply("last-switch-bandits", [path], tmp_path / "out", settings={"draws": "16", "horizon": "14", "depth": "1"})  # fmt: skip
    written = {p.name for p in done.paths}
    assert written == {
        "calendar.csv", "payoffs.csv", "cycles.csv", "payoffs.png", "calendar.png", "certificate.png",
        "result.json",
    }  # fmt: skip
    calendar = pd.read_csv(tmp_path / "out" / "calendar.csv")
    assert len(calendar) == 14 and calendar["begins"].iloc[0].startswith("2025-02-04 00:00:00")
    assert set(calendar["item"].dropna()) <= set(truth)
    result = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    assert calendar["expected_reward"].sum() == pytest.approx(result["expected_reward"])
    assert 0.6 < result["certificate"] <= 1 and result["interval"][0] < result["interval"][1]
    assert f"{result['certificate']:.1%} of what any calendar" in done.applied.found[0]
    # What it would really bring is near what it says, and beats sending the best item every day.
    tau = dict(result["start"])
    earned = 0.0
    for item in calendar["item"].fillna(""):
        if item:
            state = int(np.clip(tau[item], -3, 10))
            earned += truth[item][state + 3 if state < 0 else state + 2]
        tau = {
            name: (-1 if t > 0 else t - 1) if name == item else (1 if t < 0 else t + 1)
            for name, t in tau.items()
        }
    assert earned == pytest.approx(result["expected_reward"], rel=0.15)
    assert earned > 1.5 * 14 * max(curve[0] for curve in truth.values())


TABLES = {
    "items": {
        "a": {"idle": [0.2, 0.6], "streak": [0.1]},
        "b": {"idle": [0.3], "streak": [0.3, 0.2]},
    },
    "start": {"a": -1},
}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_payoff_tables_become_a_calendar(tmp_path):
    path = write(tmp_path / "tables.json", TABLES)
    done = apply("last-switch-bandits", [path], tmp_path / "out", settings={"draws": "8", "horizon": "6", "depth": "1"})  # fmt: skip
    summary = done.applied.summary
    assert summary["start"] == {"a": -1, "b": 2} and summary["interval"] is None
    payoffs = pd.read_csv(tmp_path / "out" / "payoffs.csv")
    assert payoffs[payoffs["item"] == "a"].payoff.tolist() == [0.1, 0.1, 0.2, 0.6]
    # a rests twice and then pays 0.6; b fills in between: 0.3 + 0.3 + 0.6 every three rounds.
    assert summary["expected_reward"] == pytest.approx(2 * (0.3 + 0.3 + 0.6))
    assert done.applied.tables["calendar"]["item"].tolist() == ["b", "b", "a"] * 2


def change(**parts):
    return {**TABLES, **parts}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ([1], "must hold"),
        ({"items": {}}, "must hold"),
        (
            {"items": {"a": {"idle": [0.5]}}},
            "item 'a': 'streak' must be a list of numbers, not None",
        ),
        ({"items": {"a": {"idle": ["x"], "streak": [0]}}}, "'idle' must be a list of numbers"),
        ({"items": {"a": {"idle": [-1], "streak": [0]}}}, "finite numbers, 0 or more"),
        (
            {"items": {"a": {"idle": [0.5, 0.2], "streak": [0.1]}}},
            "item 'a': payoffs must not fall",
        ),
        (change(start={"c": 1}), "start: there is no item 'c'"),
        (change(start={"a": 0}), "start of 'a': 0 is no state"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, message):
    path = write(tmp_path / "tables.json", content)
    with pytest.raises(FileError, match=message):
        apply("last-switch-bandits", [path], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("time,item,reward\n2024-01-01,a,1\n2024-01-02,a,-1\n", r"column 'reward', row 3: -1 is outside"),
        ("time,item\n2024-01-01,a\n2024-01-02,a\n", "has no column 'reward'"),
        ("time,item,reward\nsoon,a,1\n2024-01-02,a,1\n", "column 'time', row 2: 'soon'"),
        ("time,item,reward\n2024-01-01,a,1\n2024-01-03,a,1\n", "log.csv: the log has no item with 5 plays"),
    ],
)  # fmt: skip
def test_logs_that_cannot_be_used_end_in_one_sentence(tmp_path, content, message):
    path = write(tmp_path / "log.csv", content)
    with pytest.raises(FileError, match=message):
        apply("last-switch-bandits", [path], tmp_path / "out")


def test_one_file_that_exists_is_wanted(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        apply("last-switch-bandits", [tmp_path / "no.json"], tmp_path / "out")
    with pytest.raises(ValueError, match="give one file"):
        apply("last-switch-bandits", [tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out")
