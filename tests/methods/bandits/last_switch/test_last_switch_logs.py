"""From a log to states, curves and a calendar, with the truth known."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.data.files import FileError
from latebloom.methods.bandits.last_switch import (
    Fixed,
    Follow,
    Instances,
    LastSwitch,
    Lookahead,
    best_policy,
    calendars,
    make_plan,
    state_of,
)
from latebloom.methods.bandits.last_switch.logs import fatigue_log, payoff_curves, plays_by_state
from latebloom.methods.bandits.last_switch.scheduling import schedule

DAY = pd.Timedelta("1D")


def log(days, item="a", rewards=None, **more):
    times = pd.Timestamp("2024-03-01T08:00:00Z") + pd.to_timedelta(days, unit="D")
    rewards = np.arange(len(days)) * 0.1 if rewards is None else rewards
    return pd.DataFrame({"time": times, "item": item, "reward": rewards, **more})


def test_states_by_hand():
    events = pd.concat(
        [log([0, 1, 4, 5, 6, 8]), log([3, 3, 4, 7], "b", [1.0, 3.0, 5.0, 7.0])], ignore_index=True
    )
    found = plays_by_state(events, DAY)
    a, b = found[found["item"] == "a"], found[found["item"] == "b"]
    # The run that opens the log may have begun before it; idle 2, two more in a row, idle 1.
    assert a.state.tolist() == [0, 0, 2, -1, -2, 1]
    assert b.state.tolist() == [0, -1, 2] and b.reward.tolist() == [2, 5, 7]
    assert b.number.tolist() == [3, 4, 7]
    hours = plays_by_state(log([0, 0.25, 1.0, 1.25]), pd.Timedelta("6h"))
    assert hours.state.tolist() == [0, -1, 2, -1]


def test_users_have_states_of_their_own():
    events = pd.concat([log([1, 3], user="u"), log([2, 3], user="v"), log([0, 9], user="w")])
    found = plays_by_state(events, DAY).set_index("user")
    assert found.loc["u", "state"].tolist() == [0, 1]
    assert found.loc["v", "state"].tolist() == [0, -1]
    assert found.loc["w", "state"].tolist() == [0, 8]


@given(st.lists(st.booleans(), min_size=12, max_size=40))
def test_states_agree_with_the_model_written_out(played):
    days = np.flatnonzero([True, False, *played])
    if len(days) < 2:
        return
    found = plays_by_state(log(days), DAY)
    tau, states = 0, []
    for one in [True, False, *played]:
        if one:
            states.append(tau)
            tau = -1 if tau >= 0 else tau - 1
        else:
            tau = 1 if tau < 0 else tau + 1
    assert found.state.tolist() == states


def test_the_truth_is_found_and_covered():
    events, truth = fatigue_log(days=1500, seed=1)
    curves = payoff_curves(events, max_idle=10, max_streak=3, confidence=0.95)
    real = np.stack([truth[item] for item in curves.items])
    seen = curves.plays >= 10
    assert np.abs(curves.payoffs - real)[seen].max() < 0.1
    assert np.abs(curves.payoffs - real)[seen].mean() < 0.02
    inside = (curves.low - 1e-9 <= real) & (real <= curves.high + 1e-9)
    assert inside[seen].mean() > 0.8
    assert (np.diff(curves.payoffs, axis=1) >= -1e-12).all() and curves.at_once == 2
    frame = curves.frame()
    row = frame[(frame["item"] == "recap") & (frame["state"] == 4)].iloc[0]
    assert row.payoff == curves.payoffs[curves.items.index("recap"), 6]
    assert frame["state"].unique().tolist() == state_of(np.arange(13), 3).tolist()


def test_where_items_stand_and_what_is_left_out():
    parts = [log(range(0, 40, 2), "often"), log([0, 38, 39, 40], "late"), log([3, 40], "rare")]
    curves = payoff_curves(pd.concat(parts), min_plays=3)
    assert curves.items == ("late", "often") and curves.dropped == ("rare",)
    assert curves.start.tolist() == [-3, 2]
    assert curves.next_period == pd.Timestamp("2024-04-11T00:00:00Z")
    with_users = payoff_curves(pd.concat(parts).assign(user="u"), min_plays=3)
    assert (with_users.start == with_users.payoffs.shape[1] - with_users.streak).all()


def test_states_never_seen_take_the_value_below():
    events = log([0, 2, 4, 6, 8, 12, 16, 20, 24], rewards=[0.1] * 5 + [0.4] * 4)
    curves = payoff_curves(events, max_idle=6, max_streak=2)
    np.testing.assert_allclose(curves.payoffs[0], [0.1, 0.1, 0.1, 0.1, 0.4, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="item"), "the log has no column 'item'"),
        (lambda t: t.assign(reward=-1.0), r"column 'reward', row 0: -1 is outside \[0"),
        (lambda t: t.assign(time="soon"), "'soon' is not a time"),
        (lambda t: t.head(1), "has 1 rows where at least 2 are needed"),
        (lambda t: t.head(3), "no item with 5 plays"),
    ],
)
def test_logs_that_cannot_be_used(change, message):
    with pytest.raises(FileError, match=message):
        payoff_curves(change(log([0, 2, 3, 5, 6, 8])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"period": "often"}, "period must be a length of time"),
        ({"period": "-1D"}, "period must be a length of time"),
        ({"max_idle": 0}, "max_idle must be at least 1"),
        ({"confidence": 1.0}, "confidence must be in"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        payoff_curves(log(range(0, 30, 2)), **settings)


def replay(table, streak, actions, start):
    tau, earned, states = list(start), [], []
    for action in actions:
        if action < len(table):
            here = int(np.clip(tau[action], -streak, table.shape[1] - streak))
            earned.append(table[action][here + streak if here < 0 else here + streak - 1])
            states.append(here)
        else:
            earned.append(0.0)
            states.append(0)
        tau = [
            (-1 if t > 0 else t - 1) if i == action else (1 if t < 0 else t + 1)
            for i, t in enumerate(tau)
        ]
    return np.array(earned), np.array(states)


def test_a_calendar_brings_what_it_says_and_keeps_its_certificate():
    rng = np.random.default_rng(0)
    table = np.sort(rng.uniform(0, 20, (3, 7)), axis=1)  # any scale will do
    start = np.array([-2, 1, 5])
    plan = schedule(table, 3, 20, start=start, draws=16, depth=2)
    earned, states = replay(table, 3, plan.actions, start)
    np.testing.assert_allclose(plan.expected, earned)
    np.testing.assert_array_equal(plan.states, states)
    assert (
        plan.total == pytest.approx(max(plan.rewards.values()))
        and plan.rewards[plan.way] == plan.total
    )
    assert plan.total <= plan.bound and 0.6 < plan.certificate <= 1
    assert best_policy(table, 3, tolerance=1e-3).value <= plan.long_run.bound + 1e-9


def test_a_calendar_for_payoffs_that_fall_has_no_certificate():
    falling = np.array([[0.5, 0.9, 0.1], [0.2, 0.3, 0.4]])
    with pytest.raises(ValueError, match="heuristic=True"):
        schedule(falling, 1, 5)
    plan = schedule(falling, 1, 5, heuristic=True, draws=4, depth=1)
    assert plan.bound is None and plan.certificate is None and plan.total > 0


def test_calendars_that_make_no_sense():
    table = np.array([[0.1, 0.2], [0.1, 0.3]])
    with pytest.raises(ValueError, match="at least 1"):
        schedule(table, 1, 0)
    with pytest.raises(ValueError, match="one state an arm"):
        schedule(table, 1, 5, start=np.array([1]))


@pytest.mark.parametrize("family", ["random", "jump", "satiation"])
def test_calendars_in_numpy_are_those_of_the_compiled_policies(family):
    table = np.asarray(Instances(family, 3, 6, 3)(jax.random.key(3)), np.float64)
    start = np.array([3, 8, 0])
    environment = LastSwitch(Fixed(jnp.asarray(table, jnp.float32)), 3, 3, start=jnp.asarray(start))
    order = jnp.array([0, 1, 3, 2])
    for choose, policy in (
        (calendars.lookahead(table, 3, 1), Lookahead(1, 3)),
        (calendars.lookahead(table, 3, 3), Lookahead(3, 3)),
        (calendars.follow(np.array(order)), Follow(order)),
    ):
        found = calendars.play(choose, table, 3, start, 25)
        trace = unfold(Interaction(environment, policy), seeds=1, steps=25, every=1, progress=False)
        np.testing.assert_array_equal(
            found.actions, np.diff(trace["plays"].values[0], axis=0).argmax(1)
        )
        assert found.paid.sum() == pytest.approx(float(trace["reward"].values[0, -1]), rel=1e-4)


def test_a_planned_calendar_pays_what_its_actions_pay_and_keeps_the_guarantee():
    table = np.asarray(Instances("jump", 4, 8, 4)(jax.random.key(5)), np.float64)
    plan, relaxation = make_plan(table, 4)
    start = np.full(4, 11)
    found = calendars.planned(plan, table, start, 400, draws=64, seed=0)
    again = calendars.play(lambda positions, t: int(found.actions[t]), table, 4, start, 400)
    np.testing.assert_allclose(again.paid, found.paid)
    assert found.paid.mean() >= (1 - np.exp(-1)) * relaxation.bound
    few = calendars.planned(plan, table, start, 400, draws=2, seed=0)
    assert found.paid.sum() >= few.paid.sum()


def test_a_plan_of_one_item_takes_no_time():
    began = time.process_time()
    plan = schedule(np.array([[0.05, 0.1, 0.2, 0.5, 0.6]]), 2, 28)
    assert plan.total <= plan.bound and time.process_time() - began < 5
