"""Rules, policies and worlds: closed forms, NumPy by hand, and whole runs."""

from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from latebloom import unfold
from latebloom.core.interaction import Decision, Feedback, Interaction
from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.neural import (
    ArmNetwork,
    BestInHindsight,
    Choice,
    ClassificationBandit,
    EpsilonGreedy,
    Greedy,
    InverseGap,
    LinearRegression,
    LowerBound,
    NeuralRegression,
    OraclePolicy,
    Replay,
    SmallLossInverseGap,
    SyntheticBandit,
    Thompson,
    Uniform,
    contexts,
    linear_policy,
    load_contexts,
    neural_policy,
    table_bandit,
)
from latebloom.methods.bandits.neural.by_name import LinearName, NeuralName
from latebloom.methods.bandits.neural.policy import BINS
from latebloom.methods.bandits.neural.regression import loss_of
from latebloom.methods.bandits.neural.rules import probability_of_least

ALL = jnp.ones(3, bool)
LOSSES, WIDTHS = jnp.array([0.5, 0.2, 0.3]), jnp.array([0.1, 0.0, 0.5])
ROUND = jnp.int32(3)


def test_rules_explore_by_the_shared_formulas():
    np.testing.assert_array_equal(Uniform()(LOSSES, None, ALL, ROUND), exploration.uniform(ALL))
    np.testing.assert_array_equal(Greedy()(LOSSES, None, ALL, ROUND), [0, 1, 0])
    np.testing.assert_allclose(EpsilonGreedy(0.3)(LOSSES, None, ALL, ROUND), [0.1, 0.8, 0.1], rtol=1e-6)  # fmt: skip
    # γ = 10 sqrt(3 + 1) = 20 in the fourth round
    square = InverseGap(10.0)(LOSSES, None, ALL, ROUND)
    np.testing.assert_allclose(square, [1 / 9, 1 - 1 / 9 - 1 / 5, 1 / 5], rtol=1e-5)
    fast = SmallLossInverseGap(10.0)(LOSSES, None, ALL, ROUND)
    a, c = 0.2 / (0.6 + 20 * 0.3), 0.2 / (0.6 + 20 * 0.1)
    np.testing.assert_allclose(fast, [a, 1 - a - c, c], rtol=1e-5)
    np.testing.assert_array_equal(LowerBound(1.0)(LOSSES, WIDTHS, ALL, ROUND), [0, 0, 1])
    both = Choice((Greedy(), LowerBound(1.0)), jnp.int32(1))
    np.testing.assert_array_equal(both(LOSSES, WIDTHS, ALL, ROUND), [0, 0, 1])


def test_rules_that_need_widths_say_so():
    with pytest.raises(ValueError, match="needs widths"):
        LowerBound(1.0)(LOSSES, None, ALL, ROUND)


def test_thompson_of_two_is_the_normal_distribution_function():
    p = Thompson(2.0)(jnp.array([0.5, 0.3]), jnp.array([0.1, 0.2]), ALL[:2], ROUND)
    expected = norm.cdf((0.3 - 0.5) / (2 * np.hypot(0.1, 0.2)))
    np.testing.assert_allclose(p, [expected, 1 - expected], atol=1e-3)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 0.5)), min_size=4, max_size=4))
def test_the_probability_of_being_least_is_that_of_draws(pairs):
    means, deviations = np.array(pairs).T
    allowed = np.array([True, True, True, False])
    draws = np.random.default_rng(0).normal(means, deviations, (20000, 4))
    draws[:, ~allowed] = np.inf
    counted = np.bincount(draws.argmin(1), minlength=4) / 20000
    found = probability_of_least(jnp.asarray(means, jnp.float32), jnp.asarray(deviations, jnp.float32), jnp.asarray(allowed))  # fmt: skip
    np.testing.assert_allclose(found, counted, atol=0.03)
    assert found[3] == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_probability_of_being_least_is_exact_however_different_the_deviations(seed):
    """Against a trapezium rule in float64 on the points of all variables; it was off by 0.05."""
    rng = np.random.default_rng(seed)
    k = int(rng.choice([2, 3, 8, 20]))
    means, deviations = rng.normal(size=k) * rng.choice([0.01, 1]), 10 ** rng.uniform(-4, 0.5, k)
    t = np.sort(np.concatenate([m + s * np.linspace(-8, 8, 2001) for m, s in zip(means, deviations, strict=True)]))  # fmt: skip
    above = np.array([norm.logsf(t, m, s) for m, s in zip(means, deviations, strict=True)])
    density = np.array([norm.pdf(t, m, s) for m, s in zip(means, deviations, strict=True)])
    expected = np.trapezoid(density * np.exp(above.sum(0) - above), t, axis=1)
    found = probability_of_least(
        jnp.asarray(means, jnp.float32), jnp.asarray(deviations, jnp.float32), jnp.ones(k, bool)
    )
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_a_variable_without_deviation_is_least_as_often_as_the_others_are_above_it():
    found = probability_of_least(jnp.array([0.5, 0.5]), jnp.array([0.0, 0.3]), jnp.ones(2, bool))
    np.testing.assert_allclose(found, 0.5, atol=1e-3)
    found = probability_of_least(jnp.array([0.4, 0.5]), jnp.array([0.0, 0.1]), jnp.ones(2, bool))
    np.testing.assert_allclose(found[0], norm.cdf(1), atol=1e-3)


def world(n=40, noise=0.0, group=None, shuffle=True):
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    x = contexts(np.eye(3)[label] + 0.1 * rng.normal(size=(n, 3)))
    group = np.zeros(n, np.int32) if group is None else group
    return ClassificationBandit(
        3, jnp.asarray(x), jnp.asarray(label, jnp.int32), jnp.asarray(group), noise, shuffle
    )


def test_a_table_is_played_row_by_row_in_an_order_of_the_seed():
    orders = np.stack([np.asarray(world().init(jax.random.key(s))) for s in (0, 1)])
    assert (np.sort(orders, axis=1) == np.arange(40)).all() and (orders[0] != orders[1]).any()
    np.testing.assert_array_equal(world(shuffle=False).init(jax.random.key(0)), np.arange(40))
    group = np.repeat([0, 1, 2, 3], 10).astype(np.int32)
    blocks = group[np.asarray(world(group=group).init(jax.random.key(2)))].reshape(4, 10)
    assert (blocks == blocks[:, :1]).all()  # each block is one group
    view = world().look(orders[0], jax.random.key(0), jnp.int32(45))  # the rows begin again
    np.testing.assert_array_equal(view.features, world().x[orders[0][5]])


def test_rewards_name_the_label_and_flip_for_all_actions_alike():
    noisy, order = world(noise=0.25), jnp.arange(40)

    @jax.jit
    def play(action, key):
        view = noisy.look(order, key, jnp.int32(4))
        return noisy.step(order, view, Decision(action, jnp.float32(1)), key, jnp.int32(4))[1]

    keys = jax.random.split(jax.random.key(0), 2000)
    right, wrong = (jax.vmap(play, (None, 0))(jnp.int32(a), keys) for a in (1, 0))
    np.testing.assert_array_equal(right.reward, 1 - wrong.reward)
    assert abs(float(right.reward.mean()) - 0.75) < 0.03
    assert right.mean[0] == 0.75 and wrong.mean[0] == 0.25 and wrong.best[0] == 0.75


def test_bad_tables_are_refused():
    x, label = jnp.ones((4, 2)), jnp.array([0, 1, 2, 3], jnp.int32)
    with pytest.raises(ValueError, match="labels must be 0 .. 2"):
        ClassificationBandit(3, x, label, label)
    with pytest.raises(ValueError, match="one row each"):
        ClassificationBandit(4, x[:3], label, label)
    with pytest.raises(ValueError, match="no function 'h4'"):
        SyntheticBandit(function="h4")


def test_contexts_are_standardised_and_of_length_one():
    x = contexts(np.array([[1.0, 5.0], [3.0, 5.0]]))
    expected = np.array([[-1, 0, 1], [1, 0, 1]]) / np.sqrt(2)
    np.testing.assert_allclose(x, expected, rtol=1e-6)


@pytest.mark.parametrize("function", ["h1", "h2", "h3"])
def test_synthetic_rewards_follow_their_function(function):
    bandit = SyntheticBandit(function=function, actions=5, inputs=6)
    matrix, low, high = jax.jit(lambda k: bandit.init(k))(jax.random.key(1))
    x = np.asarray(bandit.look((matrix, low, high), jax.random.key(2), ROUND).features)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    a = np.asarray(matrix[0] / np.linalg.norm(matrix[0]))
    raw = {"h1": 10 * (x @ a) ** 2, "h2": [v @ matrix.T @ matrix @ v for v in x],
           "h3": np.cos(3 * x @ a)}[function]  # fmt: skip
    expected = np.clip((np.array(raw) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(bandit.means((matrix, low, high), x), expected, atol=1e-4)


def feedback(x, actions, rewards, rounds):
    n = len(actions)
    return Feedback(
        jnp.asarray(x), jnp.ones((n, 3), bool), jnp.array(actions), jnp.ones(n),
        jnp.array(rewards, jnp.float32), jnp.array(rounds), jnp.ones(n, bool),
    )  # fmt: skip


def test_late_rows_are_learned_one_after_another_and_tallied():
    policy = OraclePolicy(LinearRegression(3, 4), InverseGap(10.0))
    x = np.asarray(world().x[:2])
    start = policy.init(jax.random.key(0))
    learn = eqx.filter_jit(policy.learn)
    together = learn(start, feedback(x, [1, 2], [1.0, 0.0], [0, 1]))
    one = learn(start, feedback(x[:1], [1], [1.0], [0]))
    losses, _ = policy.oracle.predict(one[0], x[1])
    two = learn(one, feedback(x[1:], [2], [0.0], [1]))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    tally = two[1]
    # The first round was uniform (all predictions are 0); errors are 0 and (0 - 1)².
    second = policy.rule(losses, None, ALL, jnp.int32(1))
    np.testing.assert_allclose(tally.explored, 2 / 3 + 1 - second.max(), rtol=1e-5)
    np.testing.assert_allclose(tally.error, (losses[2] - 1) ** 2, rtol=1e-5)
    assert tally.counts.sum() == 2 and len(tally.counts) == BINS and tally.observed.sum() == 1


def test_a_neural_policy_learns_an_easy_table():
    oracle = NeuralRegression(ArmNetwork(3, 4, (16,), scale=0.2), "kl", 1.0)
    play = Interaction(world(), OraclePolicy(oracle, SmallLossInverseGap(30.0)))
    trace = unfold(play, seeds=4, steps=160, every=80)
    first, last = trace.regret.values[:, 1], np.diff(trace.regret.values)[:, 1]
    assert (last < first).all() and last.mean() < 15  # guessing costs 53


def test_the_network_in_hindsight_is_fitted_to_what_was_played():
    net = ArmNetwork(3, 4, (16,), scale=0.2)
    past = BestInHindsight(NeuralRegression(net, "square", 0.5, replay=Replay(40)), epochs=200)
    labels = np.arange(20) % 3
    actions = np.random.default_rng(0).integers(0, 3, 20)
    rows = feedback(world(20).x, actions, (labels == actions), np.arange(20))
    state = eqx.filter_jit(past.learn)(past.init(jax.random.key(0)), rows)
    fitted = float(eqx.filter_jit(past.observe)(state)["hindsight"])
    start = sum(
        float(loss_of(f[a], jnp.float32(labels[i] != a), "square"))
        for i, (f, a) in enumerate(
            zip(jax.vmap(lambda x: net.all(state.start, x))(world(20).x), actions, strict=True)
        )
    )
    assert fitted < 0.05 and start > 2


def test_the_loss_in_hindsight_is_the_sum_over_rounds():
    """Without passes it is that of the initial weights."""
    net = ArmNetwork(3, 4, (5,))
    past = BestInHindsight(NeuralRegression(net, "kl", replay=Replay(8)), epochs=0)
    state = past.init(jax.random.key(0))
    x, actions, rewards = np.asarray(world().x[:3]), [0, 2, 1], [1.0, 0.0, 0.0]
    state = eqx.filter_jit(past.learn)(state, feedback(x, actions, rewards, [0, 1, 2]))
    outputs = [jax.jit(net.all)(state.weights, v)[a] for v, a in zip(x, actions, strict=True)]
    expected = sum(loss_of(f, jnp.float32(1 - r), "kl") for f, r in zip(outputs, rewards, strict=True))  # fmt: skip
    np.testing.assert_allclose(
        eqx.filter_jit(past.observe)(state)["hindsight"], expected, rtol=1e-5
    )


NET = ArmNetwork(3, 4, (8,))
NAMED = {
    **{name: lambda name=name: neural_policy(name, NET, rate=0.1, explore=0.5, growth=0.25,
                                             replay=Replay(10)) for name in get_args(NeuralName)},
    **{name: lambda name=name: linear_policy(name, 3, 4, ridge=0.1, explore=0.5, growth=0.25)
       for name in get_args(LinearName)},
}  # fmt: skip
RULES = {
    "neu-fast": SmallLossInverseGap(0.5, 0.25), "neu-square": InverseGap(0.5, 0.25),
    "uniform-square": Uniform(), "uniform-kl": Uniform(), "neural-ucb": LowerBound(0.5),
    "neural-ts": Thompson(0.5), "neural-epsilon": EpsilonGreedy(0.5), "neural-greedy": Greedy(),
    "ee-net": Greedy(), "linucb": LowerBound(0.5), "kernel-ucb": LowerBound(0.5),
    "linear-square": InverseGap(0.5, 0.25), "linear-fast": SmallLossInverseGap(0.5, 0.25),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_policy_of_a_name_plays_by_its_rule(name):
    found = NAMED[name]().rule(LOSSES, WIDTHS, ALL, ROUND)
    np.testing.assert_allclose(found, RULES[name](LOSSES, WIDTHS, ALL, ROUND), rtol=1e-6)


def test_a_name_says_loss_and_widths():
    kl = {name: int(NAMED[name]().oracle.loss) for name in (
        "neu-fast", "uniform-kl", "neu-square", "uniform-square", "neural-ucb", "linear-fast", "linucb")}  # fmt: skip
    assert list(kl.values()) == [1, 1, 0, 0, 0, 1, 0]
    assert NAMED["neural-ts"]().oracle.ridge == 1.0 and NAMED["neu-fast"]().oracle.ridge is None


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no policy 'ucb'; there are: neu-fast"):
        neural_policy("ucb", NET, rate=0.1, explore=1.0)
    with pytest.raises(ValueError, match="there are: linucb"):
        linear_policy("ucb", 3, 4, ridge=0.1, explore=1.0)


def test_a_data_set_is_a_bandit_in_any_order_or_in_blocks_of_clusters():
    x, label, classes = load_contexts("digits-8x8")
    assert x.shape == (1797, 65) and classes == 10
    plain, blocks = table_bandit("digits-8x8", 0.1), table_bandit("digits-8x8", in_clusters=True)
    np.testing.assert_array_equal(plain.label, label)
    assert plain.noise == 0.1 and not plain.group.any()
    middles = np.stack([x[np.asarray(blocks.group) == k].mean(0) for k in range(8)])
    nearest = ((x[:, None] - middles) ** 2).sum(-1).argmin(1)
    assert (nearest == np.asarray(blocks.group)).mean() > 0.99  # k-means: each at its middle
