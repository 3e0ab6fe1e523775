"""The environment and the learners against runs written out in NumPy and against known answers."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.last_switch import (
    UCB1,
    BlockLearner,
    Fixed,
    Follow,
    Instances,
    LastSwitch,
    Learner,
    Lookahead,
    Recording,
    average_reward,
    exploration_schedule,
    isotonic_payoffs,
    make_plan,
    optimistic_payoffs,
    run_rounds,
    stack,
    upper_confidence,
)
from latebloom.methods.bandits.last_switch.planner import Planned
from latebloom.methods.bandits.last_switch.policies import Tally

TABLE = np.array([[0.1, 0.3, 0.5, 0.8], [0.2, 0.2, 0.3, 0.4]])  # p(-2), p(-1), p(1), p(2)


def world(noise="none", **more):
    return LastSwitch(Fixed(jnp.asarray(TABLE, jnp.float32)), 2, 2, noise=noise, **more)


def test_rewards_follow_the_states_by_hand():
    schedule = jnp.array([0, 0, 0, 1, 2, 0, 1])  # 2 plays nothing
    trace = unfold(Interaction(world(), Follow(schedule)), steps=7, every=1, progress=False)
    paid = np.diff(trace["mean"].values[0])
    np.testing.assert_allclose(paid, [0.5, 0.3, 0.1, 0.4, 0, 0.8, 0.4], atol=1e-6)
    assert trace.plays.values[0, -1].tolist() == [4, 2, 1]
    assert trace.position.values[0, 5].tolist() == [3, 2]  # arm 0 idle for 2, arm 1 for 1
    best = 0.5 + 0.4 + 0.4 + 0.4 + 0.5 + 0.8 + 0.4
    np.testing.assert_allclose(trace.regret[0, -1], best - 2.5, atol=1e-5)


@pytest.mark.parametrize(("noise", "spread"), [("bernoulli", 0.5), ("gaussian", 0.3)])
def test_noise_has_the_payoff_as_its_mean(noise, spread):
    process = Interaction(world(noise, scale=0.3), Follow(jnp.array([0, 2, 1])))
    trace = unfold(process, seeds=4, steps=3000, every=1, progress=False)
    error = np.diff(trace.reward.values - trace["mean"].values)
    assert abs(error.mean()) < 4 * spread / np.sqrt(8000)
    idle = error[:, 1::3]
    np.testing.assert_allclose(idle, 0, atol=1e-3)  # nothing played, nothing earned
    if noise == "gaussian":
        assert error[:, 0::3].std() == pytest.approx(0.3, rel=0.05)
    else:
        assert set(np.round(np.diff(trace.reward.values)[:, 2::3]).ravel()) == {0, 1}


def test_the_start_can_be_given():
    env = world(start=jnp.array([0, 3]))
    trace = unfold(Interaction(env, Follow(jnp.array([0, 1]))), steps=2, every=1, progress=False)
    np.testing.assert_allclose(np.diff(trace["mean"].values[0]), [0.1, 0.4], atol=1e-6)


@given(st.integers(2, 5), st.integers(1, 7), st.integers(2, 4), st.integers(1, 2))
def test_exploring_plays_every_arm_long_enough_after_every_rest(arms, idle, run, repeats):
    schedule = exploration_schedule(arms, idle, run, repeats)
    seen = np.zeros((arms, idle + 1), int)
    for arm in range(arms):
        played = np.flatnonzero(schedule == arm)
        starts = [i for i, t in enumerate(played) if i and t - played[i - 1] > 1]
        for i in starts:
            rest = played[i] - played[i - 1] - 1
            length = 1
            while i + length < len(played) and played[i + length] == played[i] + length:
                length += 1
            if rest <= idle and length >= run:
                seen[arm, rest] += 1
    assert (seen[:, 1:] >= repeats).all()


def test_isotonic_estimates_by_hand():
    count = np.array([[1.0, 1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0, 1.0], [0.0] * 5])
    total = np.array([[0.6, 0.2, 0.0, 1.0, 0.0], [0.0, 0.0, 1.5, 0.0, 0.9], [0.0] * 5])
    expected = [[0.4, 0.4, 0.4, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5, 0.9], [0.0] * 5]
    np.testing.assert_allclose(isotonic_payoffs(count, total), expected)


@given(st.integers(0, 1000))
def test_optimistic_bounds_are_monotone_and_above_the_truth(seed):
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.uniform(0, 1, (3, 6)), axis=1)
    count = rng.integers(0, 20, (3, 6)).astype(float)
    bounds = optimistic_payoffs(count, truth * count, 100, 0.5)
    assert (np.diff(bounds, axis=1) >= 0).all() and (bounds <= 1).all()
    assert (bounds >= truth - 1e-12).all()
    slack = np.sqrt(0.5 * np.log(100) / np.maximum(count, 1))
    assert (bounds[count > 0] <= (truth + slack)[count > 0] + 1e-12).all()


def test_a_recording_counts_by_arm_and_position():
    policy = Recording(Follow(jnp.array([0, 0, 1, 2])), 2, 4)
    process = Interaction(world(), policy)
    state = jax.jit(lambda s: run_rounds(process, s, 8))(process.init(jax.random.key(0)))
    count, total = state.policy[1]
    np.testing.assert_array_equal(count, [[0, 2, 1, 1], [0, 0, 0, 2]])
    np.testing.assert_allclose(total, np.asarray(count) * TABLE, atol=1e-5)


def test_ucb1_finds_the_best_arm_where_states_do_not_matter():
    flat = LastSwitch(Fixed(jnp.array([[0.2] * 3, [0.8] * 3, [0.5] * 3])), 3, 1, noise="bernoulli")
    trace = unfold(Interaction(flat, UCB1(3)), seeds=4, steps=3000, progress=False)
    assert (trace.plays.values[:, -1, 1] > 2500).all() and (
        trace.plays.values[:, -1, :3] > 10
    ).all()


def test_ucb1_by_hand():
    policy = UCB1(2)
    state = Tally(jnp.array([3.0, 2.0]), jnp.array([1.0, 1.0]))
    index = [1 / 3 + np.sqrt(2 * np.log(5) / 3), 1 / 2 + np.sqrt(2 * np.log(5) / 2)]
    assert policy.act(state, None, jnp.int32(5), None).action == np.argmax(index)
    fresh = Tally(jnp.array([3.0, 0.0]), jnp.array([3.0, 0.0]))
    assert policy.act(fresh, None, jnp.int32(5), None).action == 1


def test_upper_confidence_by_hand():
    seen = Tally(jnp.array([[4.0, 0.0, 400.0]]), jnp.array([[3.0, 0.0, 20.0]]))
    found = upper_confidence(seen, 10, 1.5)
    np.testing.assert_allclose(found[0], [1, 1, 0.05 + np.sqrt(1.5 * np.log(10) / 400)], rtol=1e-5)


def test_blocks_are_played_to_their_end_and_learn_the_best_sequence():
    table = jnp.array([[0.0, 0.0, 0.9], [0.3, 0.3, 0.3]])
    env = LastSwitch(Fixed(table), 2, 1, noise="bernoulli")
    process = Interaction(env, BlockLearner(2, 3, 1, 3))
    trace = unfold(process, seeds=2, steps=4000, every=1000, progress=False)
    late = np.diff(trace["mean"].values)[:, -1] / 1000
    best = (0.9 + 0.3 + 0.3) / 3  # arm 0 every third round
    assert (late > 0.9 * best).all()
    state, step = process.init(jax.random.key(3)), jax.jit(lambda s: process.step(s))
    sequences = []
    for _ in range(9):
        sequences.append(np.asarray(state.policy.sequence))
        state = step(state)
    for block in range(3):  # within a block the remaining sequence only moves on
        np.testing.assert_array_equal(
            sequences[3 * block + 2], np.roll(sequences[3 * block + 1], -1)
        )


@pytest.fixture(scope="module")
def instance():
    return LastSwitch(Instances("jump", 3, 4, 2), 3, 2, noise="bernoulli")


def test_the_learners_settings_are_checked(instance):
    for wrong in ((), (0, 5), (5, 5), (9, 3)):
        with pytest.raises(ValueError, match="rounds must be increasing"):
            Learner(instance, "optimistic", wrong)
    for setting in (
        {"growth": 1.0},
        {"first": 0},
        {"longest": 5},
        {"exploration": 0.0},
        {"width": 0.0},
    ):
        with pytest.raises(ValueError, match="must exceed 1"):
            Learner(instance, "optimistic", (9,), **setting)


def test_learners_reach_the_planner_and_beat_chance(instance):
    seeds, rounds = [3, 4], (1000, 5000)
    found = {
        name: unfold(Learner(instance, name, rounds), seeds=seeds, at=[0, 1, 2], progress=False)
        for name in ("planner", "explore-then-commit", "optimistic")
    }
    rates = {n: np.diff(t["mean"].values)[:, -1] / 4000 for n, t in found.items()}
    blind = unfold(Interaction(instance, UCB1(3)), seeds=seeds, at=[0, 1000, 5000], progress=False)
    lost = np.diff(blind["mean"].values)[:, -1].mean() / 4000
    assert rates["planner"].mean() > lost + 0.05
    for name in ("explore-then-commit", "optimistic"):
        assert rates[name].mean() > 0.85 * rates["planner"].mean(), name
    for trace in found.values():
        assert trace["round"].values[0].tolist() == [0, 1000, 5000]
        assert (trace.reward.values >= 0).all() and trace["mean"].values[:, -1].min() > 0
    assert (found["planner"].plans.values[:, -1] == 1).all()
    assert (found["explore-then-commit"].plans.values[:, -1] == 1).all()
    assert (found["optimistic"].plans.values[:, -1] > 8).all()


def test_the_planner_that_learns_nothing_earns_what_planning_expects(instance):
    learner = Learner(instance, "planner", (8000,))
    trace = unfold(learner, seeds=2, at=[0, 1], progress=False)
    for seed in range(2):
        payoffs = np.asarray(learner.init(seed).loop.environment.payoffs)
        plan, _ = make_plan(payoffs, 2)
        fixed = LastSwitch(Fixed(jnp.asarray(payoffs)), 3, 2)
        policy = stack([Planned(plan, jnp.array(False), jnp.array(False))])
        keys = jax.random.split(jax.random.key(9), 500)
        rate = float(np.asarray(average_reward(fixed, policy, keys, jnp.int32(500))).mean())
        assert trace["mean"].values[seed, -1] / 8000 == pytest.approx(rate, rel=0.08)


def test_the_instance_of_a_seed_is_that_of_an_interaction(instance):
    learner = Learner(instance, "optimistic", (10,))
    state = Interaction(instance, Lookahead(1, 2)).init(jax.random.key(5))
    found = learner.init(5).loop.environment.payoffs
    np.testing.assert_allclose(found, state.environment.payoffs, rtol=1e-6)


def test_a_learner_that_was_pickled_goes_on_in_the_same_bits(instance):
    learner = Learner(instance, "explore-then-commit", (200, 500))
    straight = learner.step(learner.step(learner.init(1)))
    held = pickle.loads(pickle.dumps(learner.step(learner.init(1))))
    resumed = pickle.loads(pickle.dumps(learner)).step(held)
    for name, value in learner.observe(straight).items():
        np.testing.assert_array_equal(value, learner.observe(resumed)[name])


def test_exploring_takes_its_share_of_the_horizon(instance):
    short = Learner(instance, "explore-then-commit", (500,)).init(0)
    once = len(exploration_schedule(3, 4, 3, 1))
    assert short.until >= once
    long = Learner(instance, "explore-then-commit", (20_000,)).init(0)
    room = 4 * 20_000 ** (2 / 3)
    each = len(exploration_schedule(3, 4, 3, 2)) - once
    assert room - each <= long.until <= room
