"""Effects on traces worked by hand, schedules of the policies, and the method on a file."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from latebloom.apply import dynamical_linear_bandits as applied
from latebloom.data.files import FileError
from latebloom.lab import apply, style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.bandits.dynamical_linear import LinearSystem, growing_epochs
from latebloom.studies.bandits import dynamical_linear_bandits as module
from latebloom.studies.bandits.dynamical_linear_bandits import ARMS, BASELINES, CLAIMS, study

BY_ID = {claim.id: claim for claim in CLAIMS}

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "spend.csv"


def trace(regret, plays=None):
    """Seeds by rounds 0, 1, 10, ..., and how often each action was played at the last two."""
    regret = np.atleast_2d(regret)
    rounds = np.concatenate([[0], 10.0 ** np.arange(regret.shape[1] - 1)])
    values = {
        "round": (("seed", "step"), np.tile(rounds, (len(regret), 1))),
        "regret": (("seed", "step"), regret),
    }
    if plays is not None:
        values["plays"] = (("seed", "step", "action"), np.asarray(plays))
    return xr.Dataset(values)


def test_slope_is_that_of_the_last_decade():
    rising = trace([[0, 1, 10, 100, 1000.0], [0, 5, 6, 7, 70.0]])
    np.testing.assert_allclose(BY_ID["C1.slope-0.5"].effect({"radius-0.5": rising}), [1, 1])
    root = trace([0, 1, 9, 100, 100 * 10**0.5])
    np.testing.assert_allclose(BY_ID["C1.slope-0.5"].effect({"radius-0.5": root}), [0.5])


def test_effects_pair_the_seeds():
    traces = {"ads-dynlin": trace([[0, 5.0], [0, 7.0]]), "ads-ar2": trace([[0, 6.0], [0, 4.0]])}
    assert BY_ID["C3.ar2"].effect(traces).tolist() == [1, -3]
    traces = {
        f"{noise}-{policy}": trace([[0, level]])
        for noise, levels in zip(module.SYNTHETIC, ((5.0, 9), (5, 4), (5, 8)), strict=True)
        for policy, level in zip(("dynlin", "exp3"), levels, strict=True)
    }
    assert BY_ID["C2.exp3"].effect(traces).tolist() == [-1]
    traces = {"radius-0.9": trace([0, 1000.0]), "radius-0.5": trace([0, 100.0])}
    assert BY_ID["C1.radius"].effect(traces).tolist() == [1]
    traces = {"radius-0": trace([0, 10.0]), "radius-0-linucb": trace([0, 100.0])}
    assert BY_ID["C4.control"].effect(traces).tolist() == [1]


def test_the_action_played_most_in_the_end():
    assert module.best_action("advertising") == 4 and module.best_action("synthetic") == 5
    plays = np.zeros((2, 3, 6))
    plays[:, 1] = [90, 0, 0, 0, 0, 0]
    plays[0, 2] = [92, 0, 0, 0, 8, 0]
    plays[1, 2] = [92, 8, 0, 0, 0, 0]
    ends = trace([[0, 1, 2.0]] * 2, plays)
    ends["round"] = (("seed", "step"), [[0.0, 90, 100]] * 2)
    assert module.settles(ends).tolist() == [1, 0]


def test_any_action_would_not_pass_for_the_best():
    claim = BY_ID["I.action"]
    assert claim.null == pytest.approx(0.1439, abs=1e-4) and claim.null > 0.03


def test_all_policies_are_seen_after_equally_many_rounds():
    rounds = {}
    for policy in ("dynlin", "linucb", "batch-exp3", "clairvoyant"):
        config = replace(ARMS[f"ads-{policy}"], horizon=3000)
        steps, (hold, decisions) = module.schedule(config), module._hold(config)
        assert steps[-1] == decisions
        if policy == "dynlin":
            assert growing_epochs(module.bounds_of(config).radius, 3000).until(3000) == decisions
        else:
            rounds[policy] = np.minimum(steps * hold, 3000)
    assert rounds["linucb"][-1] == rounds["batch-exp3"][-1] == rounds["clairvoyant"][-1] == 3000
    every = np.linspace(0, 3000, 21).astype(int)
    assert set(every) <= set(rounds["linucb"])
    nearest = np.abs(rounds["batch-exp3"][:, None] - every).min(axis=0)
    assert nearest.max() < module._hold(replace(ARMS["ads-batch-exp3"], horizon=3000))[0]


def test_a_misjudged_radius_reaches_the_policy():
    exact, wrong = (module.bounds_of(ARMS[arm]) for arm in ("ads-dynlin", "ads-half-radius"))
    assert wrong.radius == pytest.approx(0.5 * exact.radius) and wrong.gain == exact.gain


def test_every_policy_of_the_study_can_be_made():
    for arm, config in ARMS.items():
        made = module.make_process(replace(config, horizon=500))
        assert made is not None and len(module.schedule(replace(config, horizon=500))) > 1, arm
    assert {f"C2.{b}" for b in BASELINES} | {f"C3.{b}" for b in (*BASELINES, "expert")} <= {*BY_ID}


def test_all_rounds_are_played_and_regret_is_the_steady_loss(store_folder):
    done = run(study, "smoke", store=Store(store_folder), arms=("ads-dynlin", "ads-expert"))
    for arm, found in done.traces.items():
        assert (found["round"][:, -1] == 2000).all(), arm
        assert (found.plays[:, -1].sum("action") == 2000).all(), arm
    expert = done.traces["ads-expert"]
    gap = np.diff(expert.regret[0].values) / np.diff(expert["round"][0].values)
    np.testing.assert_allclose(gap, 0.2157, atol=2e-4)  # 0.3046 - 0.0889 a round


def test_synthetic_runs_have_a_million_rounds_at_the_papers_scale_only():
    for budget, horizon in (("quick", 100_000), ("thorough", 100_000), ("full", 1_000_000)):
        configs = study.configs(budget)
        assert configs["noise-0.1-dynlin"].horizon == horizon
        assert configs["ads-dynlin"].horizon == 1_000_000
    assert study.configs("quick")["radius-0.9"].horizon == 200_000


def test_sweeps_are_drawn_next_to_the_theory():
    arms = [module.radius_arm(r) for r in module.RADII] + ["dim-2", "dim-10"]
    runs = np.array([[0, 1, 10, 100, 1000.0], [0, 2, 20, 150, 900.0]])
    traces = {arm: trace(runs) for arm in arms}
    assert len(style.png(module.draw_scaling(traces))) > 10_000
    assert len(style.png(module.draw_growth(traces))) > 10_000


BEHIND = LinearSystem(
    A=np.diag([0.8, 0.2, 0.5]), B=np.eye(3), C=[[0.4, 0.1, 0.3]], D=[[0.1, 1.2, 0.2]]
)


def test_the_example_is_made_as_its_page_says():
    spend = np.random.default_rng(1).gamma(9, [4, 3, 1.5], (600, 3))
    orders = 100 + BEHIND.simulate(spend, noise=4.0, seed=1)[:, 0]
    table = pd.read_csv(EXAMPLE)
    np.testing.assert_allclose(table.filter(like="spend"), spend[60:], atol=0.005001)
    np.testing.assert_allclose(table.outcome_orders, orders[60:], atol=0.05001)


def test_from_a_file_to_a_recommendation(tmp_path):
    settings = {"time": "date", "draws": "60"}
    said = []
    done = apply(
        "dynamical-linear-bandits", [EXAMPLE], tmp_path, settings=settings,
        say=lambda what, share: said.append((what, share)),
    )  # fmt: skip
    channels = pd.read_csv(tmp_path / "channels.csv").set_index("channel")
    covered = (channels.low < BEHIND.response) & (BEHIND.response < channels.high)
    assert covered.all()
    assert channels.response.idxmax() == "spend_tv" and channels.at_once.idxmax() == "spend_search"
    result = json.loads((tmp_path / "result.json").read_text())["summary"]
    assert result["recommended"]["spend_tv"] > 60
    assert result["memory"] == pytest.approx(BEHIND.memory, rel=0.2)
    assert result["gain_at_once"] < 0 < result["gain_low"]
    assert result["explained_by_spend"] > 0.7
    again = LinearSystem(*(np.array(result[m]) for m in "ABCD"))
    assert again.spectral_radius == pytest.approx(result["spectral_radius"])
    assert any("most in the long run" in s for s in done.applied.found)
    assert {p.stem for p in done.paths} >= {"actions", "impulse", "fit", "hankel", "channels"}
    assert ("bootstrap", 0.5) in said
    impulse = pd.read_csv(tmp_path / "impulse.csv").query("channel == 'spend_tv'")
    truth = BEHIND.markov_parameters(8)[:, 0, 0]
    np.testing.assert_allclose(impulse.system[:9], truth, atol=0.08)


def test_actions_may_be_listed_in_a_second_file(tmp_path):
    listed = tmp_path / "actions.csv"
    listed.write_text("spend_search;spend_social;spend_tv\n60;10;0\n0;10;60\n")
    paths = [EXAMPLE, listed]
    done = applied.run(paths, applied.Options(draws=20, lags=6), lambda what, share: None)
    assert done.summary["recommended"] == {
        "spend_tv": 60.0, "spend_search": 0.0, "spend_social": 10.0
    }  # fmt: skip


def small(tmp_path, change):
    table = change(pd.read_csv(EXAMPLE).head(120))
    table.to_csv(tmp_path / "small.csv", index=False)
    return tmp_path / "small.csv"


def put(table, row, column, value):
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: put(t, 3, "spend_tv", "lots"), {}, "column 'spend_tv', row 5: 'lots' is not a number"),
        (lambda t: put(t, 3, "spend_tv", -1), {}, r"row 5: -1 is outside \[0"),
        (lambda t: put(t, 0, "outcome_orders", ""), {}, "column 'outcome_orders', row 2 is empty"),
        (lambda t: t.drop(columns="outcome_orders"), {}, "--set outcome=orders"),
        (lambda t: t[["date", "outcome_orders"]], {}, "--set spend=tv,search"),
        (lambda t: t, {"spend": ("tv",)}, "has no column 'tv'"),
        (lambda t: t, {"outcome": ("spend_tv",)}, "is both a spend and an outcome"),
        (lambda t: t.head(10), {}, "10 rows where at least 20 are needed"),
        (lambda t: t.head(25), {}, "25 periods are too few for 3 channels"),
        (lambda t: t.assign(spend_tv=5.0), {}, "column 'spend_tv' never changes"),
        (lambda t: t.drop(index=60), {"time": "date"}, "is not one period of 1 days"),
        (lambda t: t, {"time": "day"}, "has no column 'day'"),
        (lambda t: t, {"caps": (1.0, 2.0)}, "setting caps has 2 values for 3 columns"),
        (lambda t: t, {"weights": (1.0, 2.0)}, "setting weights has 2 values for 1 columns"),
        (lambda t: t, {"caps": (1.0, 2.0, 3.0)}, "leave no way to spend"),
        (lambda t: t, {"lags": 60}, "120 periods are too few for 60 lags"),
        (lambda t: t, {"lags": 1}, "setting lags must be at least 2"),
        (lambda t: t, {"parts": 0}, "setting parts must be at least 1"),
        (lambda t: t, {"budget": 0.0}, "setting budget must be a number above 0"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_say_where_and_what_to_do(tmp_path, change, settings, message):
    path = small(tmp_path, change)
    with pytest.raises(FileError, match=message):
        applied.run([path], applied.Options(draws=20, **settings), lambda what, share: None)
    with pytest.raises(FileError, match="at most one list of actions"):
        applied.run([path] * 3, applied.Options(), lambda what, share: None)


def test_rows_may_come_in_any_order_and_months_differ_in_length(tmp_path):
    options = applied.Options(draws=20, time="date", lags=3)
    months = lambda t: t.assign(date=pd.date_range("2015-01-01", periods=len(t), freq="MS"))  # noqa: E731
    straight = applied.read_record(small(tmp_path, months), options)[0]
    mixed = applied.read_record(small(tmp_path, lambda t: months(t).sample(frac=1, random_state=0)), options)[0]  # fmt: skip
    pd.testing.assert_frame_equal(straight, mixed)


def test_an_unstable_system_is_called_so(tmp_path):
    """A record whose reward keeps growing: said, or refused in one sentence."""
    path = small(tmp_path, lambda t: t.assign(outcome_orders=t.outcome_orders + 1.05 ** np.arange(len(t)) * 100))  # fmt: skip
    with pytest.raises(FileError, match="looks unstable"):
        applied.run([path], applied.Options(draws=20, lags=3), lambda what, share: None)
