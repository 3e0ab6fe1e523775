"""The loop of policy and environment against runs written out by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import unfold
from latebloom.core.interaction import Decision, Environment, Interaction, Outcome, Policy, View
from latebloom.methods.bandits.exploration import draw, epsilon_greedy


class Late(Environment):
    """Two arms of known means; the reward of round t is t and arrives t % 4 rounds later."""

    actions: int = 2
    memoryless: bool = True

    def init(self, key):
        return jnp.array([0.25, 0.75])

    def look(self, means, key, round):
        return View(jax.random.normal(key, (2,)), jnp.array([True, True]))

    def step(self, means, view, decision, key, round):
        reward = round.astype(jnp.float32)
        return means, Outcome(reward, reward, means[decision.action], means.max(), round % 4)


class Streak(Environment):
    """Remembers: an arm pays as many units as it has been played in a row."""

    actions: int = 2
    memoryless: bool = False

    def init(self, key):
        return (jnp.int32(-1), jnp.int32(0))

    def look(self, state, key, round):
        return View((), jnp.array([True, True]))

    def step(self, state, view, decision, key, round):
        last, run = state
        run = jnp.where(decision.action == last, run, 0)
        gains = run * decision.hold + decision.hold * (decision.hold + 1) // 2
        run = run + decision.hold
        gained, final = gains.astype(jnp.float32), run.astype(jnp.float32)
        return (decision.action, run), Outcome(final, gained, gained, gained)


class Recorder(Policy):
    """Plays uniformly and keeps what arrived: the sum of rewards, and when."""

    def init(self, key):
        return {"rewards": jnp.float32(0), "count": jnp.int32(0), "features": jnp.zeros(2)}

    def act(self, state, view, round, key):
        values = jnp.zeros(2)
        return Decision(*draw(key, epsilon_greedy(values, view.allowed, 1.0)))

    def learn(self, state, feedback):
        on = feedback.arrived
        return {
            "rewards": state["rewards"] + jnp.where(on, feedback.reward, 0).sum(),
            "count": state["count"] + on.sum(),
            "features": state["features"] + jnp.where(on[:, None], feedback.features, 0).sum(0),
        }

    def observe(self, state):
        return {"arrived": state["count"], "sum": state["rewards"], "features": state["features"]}


class Hold(Recorder):
    def act(self, state, view, round, key):
        return Decision(jnp.int32(1), jnp.float32(1), jnp.where(round < 3, 3, 2))

    def learn(self, state, feedback):
        return state | {"rewards": state["rewards"] + feedback.reward.sum()}


def arrived(after, waiting=99, block=1):
    """Rounds whose rewards are known at the end of each step, and how many were lost by then."""
    known, under_way, lost, history = [], [], 0, []
    for end in range(block, after + 1, block):
        under_way += [(t + t % 4, t) for t in range(end - block, end)]
        known += [t for due, t in under_way if due < end]
        under_way = [(due, t) for due, t in under_way if due >= end]
        lost += max(len(under_way) - waiting, 0)
        under_way = under_way[:waiting]
        history.append((len(known), sum(known), lost))
    return history


@pytest.mark.parametrize(("block", "waiting"), [(1, 8), (1, 1), (5, 8), (5, 2)])
def test_late_rewards_arrive_when_they_are_due(block, waiting):
    trace = unfold(Interaction(Late(), Recorder(), block=block, waiting=waiting), seeds=2, steps=12, every=1)  # fmt: skip
    expected = np.array(arrived(12 * block, waiting, block))
    np.testing.assert_array_equal(trace.arrived[0, 1:], expected[:, 0])
    np.testing.assert_array_equal(trace["sum"][1, 1:], expected[:, 1])
    np.testing.assert_array_equal(trace.dropped[0, 1:], expected[:, 2])
    np.testing.assert_array_equal(trace["round"][0], np.arange(13) * block)


def test_without_a_queue_late_rewards_are_lost():
    trace = unfold(Interaction(Late(), Recorder()), steps=16)
    assert trace.arrived[0, -1] == 4 and trace["sum"][0, -1] == 0 + 4 + 8 + 12


def test_regret_and_plays_follow_from_known_means():
    trace = unfold(Interaction(Late(), Recorder(), block=50), seeds=3, steps=40)
    plays = trace.plays[:, -1].values
    assert (plays.sum(1) == 2000).all() and (np.abs(plays[:, 0] - 1000) < 100).all()
    np.testing.assert_allclose(trace.regret[:, -1], 0.5 * plays[:, 0], rtol=1e-6)
    np.testing.assert_allclose(trace["mean"][:, -1], plays @ [0.25, 0.75], rtol=1e-6)


def test_blocks_meet_the_same_world_as_single_rounds():
    single = unfold(Interaction(Late(), Recorder(), waiting=8), seeds=2, steps=60)
    blocks = unfold(Interaction(Late(), Recorder(), waiting=8, block=6), seeds=2, steps=10)
    for name in ("plays", "reward", "arrived", "features"):
        np.testing.assert_allclose(single[name][:, -1], blocks[name][:, -1], rtol=1e-5)


def test_an_action_that_is_held_counts_for_all_its_rounds():
    trace = unfold(Interaction(Streak(), Hold()), steps=3, every=1)
    assert trace["round"][0].values.tolist() == [0, 3, 5, 7]
    assert trace.reward[0].values.tolist() == [0, 6, 15, 28]  # 1 + 2 + 3, + 4 + 5, + 6 + 7
    assert trace["sum"][0].values.tolist() == [0, 3, 8, 15]  # the last of each hold
    assert trace.plays[0, -1].values.tolist() == [0, 7]


def test_a_million_small_rewards_add_up():
    class Tenth(Late):
        def step(self, means, view, decision, key, round):
            return means, Outcome(*[jnp.float32(0.1)] * 3, jnp.float32(0.2))

    trace = unfold(Interaction(Tenth(), Recorder()), steps=1_000_000)
    np.testing.assert_allclose(trace.regret[0, -1], 1e5, rtol=1e-6)


def test_blocks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="Streak remembers what was done"):
        Interaction(Streak(), Recorder(), block=2)
    with pytest.raises(ValueError, match="block must be at least 1"):
        Interaction(Late(), Recorder(), block=0)
