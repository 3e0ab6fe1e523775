"""Systems, epochs, noise and the environment, against loops and algebra written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32

from latebloom import unfold
from latebloom.core.interaction import Decision, Interaction
from latebloom.methods.bandits.dynamical_linear import (
    Constant,
    Fixed,
    HeldLinearSystem,
    LinearSystem,
    RandomDynamics,
    advertising_system,
    budget_splits,
    expert_split,
    growing_epochs,
    synthetic_system,
)
from latebloom.methods.bandits.dynamical_linear.environment import hold_laws
from latebloom.methods.bandits.dynamical_linear.noise import normals, threefry

ACTIONS = budget_splits()


def test_published_systems_have_their_known_responses():
    synthetic, ads = synthetic_system(), advertising_system()
    np.testing.assert_allclose(synthetic.response, [0.5625, 0.5, 1 / 9], rtol=1e-12)
    np.testing.assert_allclose(synthetic.theta, [0, 0.5, 0.1], atol=1e-12)
    np.testing.assert_allclose(ads.response, [0.2515, -0.0363, 0.1061], atol=5e-5)
    assert ads.spectral_radius == pytest.approx(0.667, abs=5e-4)
    assert ads.transient_gain() == pytest.approx(2.78, abs=5e-3)
    assert synthetic.transient_gain() == pytest.approx(1.0)
    best = ACTIONS[np.argmax(ACTIONS @ ads.response)]
    assert best.tolist() == [1, 0, 0.5]
    assert ACTIONS[np.argmax(ACTIONS @ ads.theta)].tolist() == [0.5, 1, 0]


def test_budget_is_split_by_filling_campaigns_in_turn():
    assert sorted(map(tuple, ACTIONS)) == sorted(
        {(1, 0.5, 0), (1, 0, 0.5), (0.5, 1, 0), (0, 1, 0.5), (0.5, 0, 1), (0, 0.5, 1)}
    )
    assert budget_splits(2, 1.0, 1.0, 0.25).tolist() == [[0.25, 0.75], [0.75, 0.25]]
    shares = np.array([1641952, 259591273, 716354611]) / 977587836
    scale = (1 / 3) / shares[:2].sum()  # the third is capped at two thirds
    np.testing.assert_allclose(expert_split(), [*(1.5 * scale * shares[:2]), 1.0], rtol=1e-9)


def test_a_constant_input_brings_the_response_in_the_end():
    system, action = advertising_system(), np.array([1.0, 0.0, 0.5])
    outputs = system.simulate(np.tile(action, (80, 1)))
    assert outputs[0].sum() == pytest.approx(system.theta @ action)
    assert outputs[-1].sum() == pytest.approx(system.response @ action, rel=1e-9)
    impulse = system.markov_parameters(79).sum(1) @ action
    np.testing.assert_allclose(outputs.sum(1), np.cumsum(impulse), rtol=1e-9)


def test_memory_and_gain_of_simple_systems():
    one = np.ones((1, 1))
    assert LinearSystem(0.9 * one, one, one, one).memory == pytest.approx(43.7, abs=0.01)
    still = LinearSystem(0 * one, one, one, one)
    assert still.memory == 0 and still.transient_gain() == 1 and still.spectral_radius == 0
    assert LinearSystem(1.1 * one, one, one, one).memory == np.inf
    shift = LinearSystem(np.eye(2, k=1), np.eye(2), np.eye(2), np.eye(2))
    assert shift.transient_gain() == np.inf
    # A Jordan block: the norm of its powers over 0.5^i is largest at the last power looked at.
    jordan = LinearSystem(np.array([[0.5, 1], [0, 0.5]]), np.eye(2), np.eye(2), np.eye(2))
    power = np.linalg.matrix_power(np.array([[1, 2.0], [0, 1]]), 10)
    assert jordan.transient_gain(10) == pytest.approx(np.linalg.norm(power, 2))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_matrices_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="A, B, C, D must be"):
        LinearSystem(np.eye(2), np.ones(shape), np.ones((1, 2)), np.ones((1, 2)))


def lengths(radius, count):
    m = np.arange(1, count + 1)
    return np.floor(np.log(m) / np.log(1 / radius)).astype(int) + 1


@given(st.floats(0.01, 0.97), st.integers(1, 3000))
def test_epochs_are_as_long_as_their_formula_says(radius, horizon):
    epochs = growing_epochs(radius, horizon)
    every = lengths(radius, horizon)
    needed = int(np.searchsorted(np.cumsum(every), horizon)) + 1
    assert epochs.until(horizon) == needed
    assert epochs.longest == every[:needed].max()
    held = (epochs.starts[None] <= np.arange(1, needed + 1)[:, None]).sum(1)
    np.testing.assert_array_equal(held, every[:needed])
    some = np.arange(horizon + 1)
    ends = np.concatenate([[0], np.cumsum(every)])
    np.testing.assert_array_equal(epochs.until(some), np.searchsorted(ends, some))


def test_epochs_of_the_published_systems():
    """Counts of the authors' loop over a million rounds."""
    for system, count, last in ((synthetic_system(), 137_206, 7), (advertising_system(), 41_212, 26)):  # fmt: skip
        epochs = growing_epochs(system.spectral_radius, 10**6)
        assert int(epochs.until(10**6)) == count and epochs.longest == last + 1


def test_without_memory_every_round_is_an_epoch():
    assert growing_epochs(0.0, 50).starts.tolist() == [1]
    assert growing_epochs(0.0, 50).until(50) == 50


@pytest.mark.parametrize(("radius", "horizon"), [(1.0, 10), (-0.1, 10), (0.5, 0)])
def test_epochs_that_make_no_sense_are_refused(radius, horizon):
    with pytest.raises(ValueError, match="radius must be in"):
        growing_epochs(radius, horizon)


def test_threefry_is_the_function_that_jax_uses():
    zero = jnp.zeros(2, jnp.uint32)
    assert [int(x) for x in threefry(zero, zero[0], zero[0])] == [0x6B200159, 0x99BA4EFE]
    key, counts = jnp.array([7, 9], jnp.uint32), jnp.array([3, 4], jnp.uint32)
    np.testing.assert_array_equal(
        np.array(threefry(key, counts[0], counts[1])), threefry_2x32(key, counts)
    )


def test_noise_is_normal_and_independent_over_rounds():
    key = jax.random.key_data(jax.random.key(5))
    drawn = np.asarray(jax.vmap(lambda t: normals(key, t, 5))(jnp.arange(40_000)))
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(5), atol=0.03)
    np.testing.assert_allclose((drawn**4).mean(0), 3, atol=0.2)
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.02


def environment(system=None, *, noise=0.0, longest=1, actions=ACTIONS, learn_from="last"):
    return HeldLinearSystem(
        draw=Fixed(system or advertising_system(), actions), state_noise=noise,
        reward_noise=2 * noise, actions=len(actions), longest=longest, learn_from=learn_from,
    )  # fmt: skip


def by_hand(system, x, action, rounds, noises):
    """State, last reward and sum of rewards after `rounds`, noise rows (state ..., reward)."""
    total = 0.0
    for noise in noises[:rounds]:
        reward = system.omega @ x + system.theta @ action + noise[-1]
        x, total = system.A @ x + system.B @ action + noise[:-1], total + reward
    return np.array([*x, reward, total])


def test_holding_an_action_has_the_law_of_its_rounds():
    system, n, longest = advertising_system(), 3, 7
    dynamics = Fixed(system, ACTIONS)(None)
    law = hold_laws(dynamics, 0.5, 2.0, longest)
    x, action = np.array([0.3, -1.0, 0.7]), ACTIONS[1]
    scale = np.array([0.5, 0.5, 0.5, 2.0])
    for k in range(1, longest + 1):
        quiet = by_hand(system, x, action, k, np.zeros((k, n + 1)))
        np.testing.assert_allclose(
            law.mean[k - 1] @ np.concatenate([x, action]), quiet, rtol=1e-5, atol=1e-6
        )
        effects = []  # of each unit of noise, one at a time
        for i in range(k * (n + 1)):
            noises = np.zeros(k * (n + 1))
            noises[i] = scale[i % (n + 1)]
            effects.append(by_hand(system, x, action, k, noises.reshape(k, -1)) - quiet)
        covariance = np.array(effects).T @ np.array(effects)
        root = np.asarray(law.root[k - 1])
        np.testing.assert_allclose(root.T @ root, covariance, rtol=1e-4, atol=1e-5)


def test_drawn_rewards_go_with_the_states_they_end_in():
    env = environment(noise=0.3, longest=4)
    start = env.init(jax.random.key(0))
    decision = Decision(jnp.int32(2), jnp.float32(1), jnp.int32(4))
    step = jax.vmap(lambda t: env.step(start, None, decision, None, t))
    state, outcome = step(jnp.arange(40_000))
    seen = np.column_stack([state.x, outcome.reward, outcome.total])
    root = np.asarray(start.holds.root[3])
    expected = root.T @ root
    np.testing.assert_allclose(np.cov(seen.T), expected, atol=0.03 * expected.max())


@pytest.mark.parametrize("hold", [1, 3])
def test_without_noise_it_is_the_system_itself(hold):
    trace = unfold(
        Interaction(environment(longest=10), Constant(np.int32(4), np.int32(hold), np.int32(30))),
        steps=30 // hold, every=1,
    )  # fmt: skip
    system = advertising_system()
    outputs = system.simulate(np.tile(ACTIONS[4], (30, 1))).sum(1)
    played = trace["round"].values[0]
    np.testing.assert_allclose(
        trace.reward[0], np.concatenate([[0], np.cumsum(outputs)])[played], rtol=1e-5, atol=1e-6
    )
    steady = ACTIONS @ system.response
    np.testing.assert_allclose(
        trace.regret[0], (steady.max() - steady[4]) * played, rtol=1e-4, atol=1e-5
    )


def test_whoever_plays_meets_the_same_noise():
    env = environment(noise=1.0)
    start = env.init(jax.random.key(3))

    def reward(action, t):
        decision = Decision(jnp.int32(action), jnp.float32(1))
        return float(env.step(start, None, decision, None, jnp.int32(t))[1].reward)

    quiet = advertising_system().theta @ (ACTIONS[3] - ACTIONS[0])
    assert reward(3, 5) - reward(0, 5) == pytest.approx(quiet, rel=1e-5)
    assert abs(reward(0, 5) - reward(0, 6)) > 1e-3


def test_the_mean_over_the_rounds_held_can_be_learned_from():
    env = environment(longest=5, learn_from="mean")
    decision = Decision(jnp.int32(0), jnp.float32(1), jnp.int32(5))
    _, outcome = env.step(env.init(jax.random.key(0)), None, decision, None, jnp.int32(0))
    outputs = advertising_system().simulate(np.tile(ACTIONS[0], (5, 1))).sum(1)
    assert float(outcome.reward) == pytest.approx(outputs.mean(), rel=1e-5)


def test_holding_too_long_shows():
    env = environment(longest=2)
    decision = Decision(jnp.int32(0), jnp.float32(1), jnp.int32(3))
    _, outcome = env.step(env.init(jax.random.key(0)), None, decision, None, jnp.int32(0))
    assert np.isnan(float(outcome.reward))


def test_random_systems_are_as_they_should_be():
    draw = jax.jit(jax.vmap(RandomDynamics(0.8, 3, 20)))
    drawn = draw(jax.random.split(jax.random.key(0), 50))
    norms = np.linalg.norm(drawn.A, 2, axis=(1, 2)), np.linalg.norm(drawn.B, 2, axis=(1, 2))
    np.testing.assert_allclose(norms, [[0.8] * 50, [1.0] * 50], rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(drawn.A)), 0.8, rtol=1e-4)
    for name in ("omega", "theta"):
        np.testing.assert_allclose(np.linalg.norm(getattr(drawn, name), axis=1), 1, rtol=1e-5)
    length = np.linalg.norm(drawn.actions, axis=2)
    assert length.max() <= 1 + 1e-6 and 0.7 < length.mean() < 0.8  # 3/4 in a uniform ball
    steady = np.asarray(jax.vmap(lambda d: d.steady_rewards())(drawn))
    at_once = np.einsum("skp,sp->sk", drawn.actions, drawn.theta)
    assert (steady.argmax(1) != at_once.argmax(1)).all()
