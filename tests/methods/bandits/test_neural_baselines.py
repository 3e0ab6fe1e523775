"""Linear and kernel oracles, EE-Net and the effective dimension against direct computations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from latebloom import unfold
from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.neural import (
    ArmNetwork,
    ClassificationBandit,
    EENet,
    Greedy,
    KernelRegression,
    LinearRegression,
    LogDet,
    NeuralRegression,
    OraclePolicy,
    Perturbation,
    Replay,
    contexts,
    draw_contexts,
    effective_dimension,
    load_contexts,
    log_det_growth,
    tangent_gram,
)
from latebloom.methods.bandits.neural.ee_net import explore, init_explorer

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = contexts(RNG.normal(size=(12, 3)))
ACTIONS = RNG.integers(0, 3, 12)
Y = RNG.random(12).astype(np.float32)
NEW = contexts(RNG.normal(size=(12, 3)))[0]


def learned(oracle, x=X, actions=ACTIONS, y=Y):
    rows = (jnp.asarray(x), jnp.asarray(actions, jnp.int32), jnp.asarray(y))

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, r: (oracle.learn(s, *r), None), state, rows)[0]

    return run(oracle.init(KEY))


def test_ridge_regression_is_the_normal_equations():
    oracle = LinearRegression(3, 4, ridge=0.5)
    losses, widths = oracle.predict(learned(oracle), jnp.asarray(NEW))
    for a in range(3):
        mine = ACTIONS == a
        covariance = X[mine].T @ X[mine] + 0.5 * np.eye(4)
        w = np.linalg.solve(covariance, X[mine].T @ Y[mine])
        np.testing.assert_allclose(losses[a], w @ NEW, rtol=1e-4)
        width = np.sqrt(NEW @ np.linalg.solve(covariance, NEW))
        np.testing.assert_allclose(widths[a], width, rtol=1e-4)


def test_one_ridge_regression_can_serve_all_arms():
    oracle, rows = LinearRegression(3, 4, ridge=0.5, shared=True), np.stack([X, NEW - X, -X], 1)
    losses, _ = oracle.predict(learned(oracle, rows), jnp.asarray(rows[5]))
    seen = rows[np.arange(12), ACTIONS]
    w = np.linalg.solve(seen.T @ seen + 0.5 * np.eye(4), seen.T @ Y)
    np.testing.assert_allclose(losses, rows[5] @ w, rtol=1e-4)


def test_online_logistic_regression_by_hand():
    oracle = LinearRegression(3, 4, ridge=0.5, loss="kl")
    w, a = np.zeros((3, 4)), np.stack([0.5 * np.eye(4)] * 3)
    for x, k, y in zip(X, ACTIONS, Y, strict=True):
        q = 1 / (1 + np.exp(-w[k] @ x))
        a[k] += max(q * (1 - q), 1e-3) * np.outer(x, x)
        w[k] -= (q - y) * np.linalg.solve(a[k], x)
    losses, _ = oracle.predict(learned(oracle), jnp.asarray(NEW))
    np.testing.assert_allclose(losses, 1 / (1 + np.exp(-w @ NEW)), rtol=1e-4)


@pytest.mark.parametrize("memory", [20, 7])
def test_kernel_regression_is_the_posterior_of_what_is_remembered(memory):
    oracle = KernelRegression(3, 4, memory, ridge=0.3)
    losses, widths = oracle.predict(learned(oracle), jnp.asarray(NEW))
    n = min(memory, 12)
    blocks = np.zeros((n, 12))
    for i in range(n):
        blocks[i, 4 * ACTIONS[i] : 4 * ACTIONS[i] + 4] = X[i]
    for a in range(3):
        point = np.zeros(12)
        point[4 * a : 4 * a + 4] = NEW
        gram = np.exp(-np.linalg.norm(blocks[:, None] - blocks, axis=-1)) + 0.3 * np.eye(n)
        k = np.exp(-np.linalg.norm(blocks - point, axis=1))
        np.testing.assert_allclose(losses[a], 1 + k @ np.linalg.solve(gram, Y[:n] - 1), rtol=1e-4)
        np.testing.assert_allclose(widths[a], np.sqrt(1 - k @ np.linalg.solve(gram, k)), rtol=1e-4)


def test_kernels_compare_contexts_of_arms_directly_where_each_has_its_own():
    oracle, rows = KernelRegression(3, 4, 20, 0.3, True), np.stack([X, NEW - X, -X], 1)
    state = learned(oracle, rows)
    seen = rows[np.arange(12), ACTIONS]
    expected = np.exp(-np.linalg.norm(rows[5][:, None] - seen, axis=-1))
    found = np.asarray(oracle.kernel(state, jnp.asarray(rows[5])))
    np.testing.assert_allclose(found[:, :12], expected, atol=2e-3)
    assert (found[:, 12:] == 0).all()


@pytest.mark.parametrize("oracle", [LinearRegression(3, 4), KernelRegression(3, 4, 20)])
def test_a_row_that_is_off_is_not_learned(oracle):
    state = learned(oracle)
    off = oracle.learn(state, jnp.asarray(NEW), jnp.int32(1), jnp.float32(1), jnp.array(False))
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(off), strict=True):
        np.testing.assert_array_equal(a, b)


def ee_net(pool=4):
    net = ArmNetwork(3, 4, (6,))
    return EENet(NeuralRegression(net, "square", 0.1, replay=Replay(30, 40)), 0.5, pool=pool)


def test_gradients_are_pooled_in_blocks_and_put_in_the_place_of_their_arm():
    oracle = ee_net()
    state, net = oracle.init(KEY), oracle.exploiter.network
    own, shared = eqx.filter_jit(oracle._pooled)(state.exploiter.weights, jnp.asarray(NEW))
    assert own.shape == (3, 6) and shared.shape == (3, 2)  # 24 / 4, and 7 / 4 filled up
    gains = [oracle._gain(state.explorer, own[a], shared[a], jnp.int32(a)) for a in range(3)]
    for a in range(3):
        gradient = jax.grad(lambda w, a=a: net.all(w, jnp.asarray(NEW))[a])(state.exploiter.weights)
        flat = np.asarray(ravel_pytree(gradient)[0])
        pooled = np.pad(flat, (0, 1)).reshape(-1, 4).mean(1)
        np.testing.assert_allclose(gains[a], explore(state.explorer, pooled), rtol=1e-4)
    losses, _ = eqx.filter_jit(oracle.predict)(state, jnp.asarray(NEW))
    plain, _ = oracle.exploiter.predict(state.exploiter, jnp.asarray(NEW))
    np.testing.assert_allclose(losses, plain - 0.5 * (np.array(gains) - 1), rtol=1e-4)


def test_the_explorer_is_a_convolution_and_two_layers():
    pooled = RNG.normal(size=230).astype(np.float32)
    f = init_explorer(KEY, 230)
    windows = np.array([pooled[s : s + 100] @ np.asarray(f.kernel) for s in (0, 50, 100)])
    hidden = np.maximum(np.asarray(f.hidden) @ (windows + f.bias) + f.hidden_bias, 0)
    np.testing.assert_allclose(explore(f, pooled), f.output @ hidden + f.output_bias, rtol=1e-3)
    assert abs(f.kernel).max() <= 0.1 and abs(f.hidden).max() <= 1 / np.sqrt(3)


def test_early_rounds_without_reward_label_the_other_arms():
    oracle = ee_net()
    start = oracle.init(KEY)
    x, learn = jnp.asarray(NEW), eqx.filter_jit(oracle.learn)
    losses, _ = oracle.exploiter.predict(start.exploiter, x)
    state = learn(start, x, jnp.int32(1), jnp.float32(1))  # no reward
    g = state.gradients
    assert g.count == 3 and g.action[:3].tolist() == [1, 0, 2]
    np.testing.assert_allclose(g.label[:3], [losses[1] - 1 + 1, 1.2, 1.2], rtol=1e-5)
    losses, _ = oracle.exploiter.predict(state.exploiter, x)
    state = learn(state, x, jnp.int32(2), jnp.float32(0))  # a reward: the played arm alone
    assert state.gradients.count == 4
    np.testing.assert_allclose(state.gradients.label[3], losses[2] - 0 + 1, rtol=1e-5)
    late = start._replace(exploiter=start.exploiter._replace(count=jnp.int32(1000)))
    assert learn(late, x, jnp.int32(0), jnp.float32(1)).gradients.count == 1


def test_ee_net_learns_an_easy_table():
    label = np.arange(60) % 3
    x = contexts(np.eye(3)[label] + 0.1 * RNG.normal(size=(60, 3)))
    world = ClassificationBandit(3, jnp.asarray(x), jnp.asarray(label, jnp.int32), jnp.zeros(60, jnp.int32))  # fmt: skip
    net = NeuralRegression(ArmNetwork(3, 4, (20,), scale=0.2), "square", 0.3, replay=Replay(60, 200))  # fmt: skip
    play = Interaction(world, OraclePolicy(EENet(net, 0.3), Greedy()), seeds_by="map")
    trace = unfold(play, seeds=2, steps=60, every=30)
    assert (np.diff(trace.regret.values)[:, 1] < 5).all()  # guessing costs 20


def test_ee_net_wants_a_plain_network_with_replay():
    net = ArmNetwork(3, 4, (6,))
    for wrong in (NeuralRegression(net), NeuralRegression(net, perturbation=Perturbation(), replay=Replay(9))):  # fmt: skip
        with pytest.raises(ValueError, match="exploiter is a network with replay"):
            EENet(wrong)


def test_growth_is_the_log_determinant_of_leading_blocks():
    a = RNG.normal(size=(9, 6))
    gram = a @ a.T
    growth = log_det_growth(jnp.asarray(gram), 0.7)
    for t in (1, 4, 9):
        np.testing.assert_allclose(growth[t - 1], np.linalg.slogdet(np.eye(t) + gram[:t, :t] / 0.7)[1], rtol=1e-4)  # fmt: skip
    np.testing.assert_allclose(effective_dimension(jnp.asarray(gram), 0.7)[3], growth[3] / np.log(1 + 4 / 0.7), rtol=1e-6)  # fmt: skip


def test_the_tangent_gram_is_that_of_explicit_gradients():
    x, hidden = jnp.asarray(X[:5]), jax.random.split(KEY)
    w, v = jax.random.normal(hidden[0], (7, 4)), jax.random.normal(hidden[1], (7,))
    net = ArmNetwork(1, 4, (7,), "heads")
    start = (w, jnp.append(v, 0.0)[None])  # without the output bias
    rows = [ravel_pytree(jax.grad(lambda p: net.all(p, r)[0])(start))[0][:-1] for r in x]
    expected = np.stack(rows) @ np.stack(rows).T
    np.testing.assert_allclose(tangent_gram(KEY, x, 7), expected, rtol=1e-4, atol=1e-5)


def test_a_seed_meets_its_contexts_one_by_one():
    x = jnp.asarray(X)
    trace = unfold(LogDet(lambda key: x, width=8), seeds=[3], steps=len(X), every=1, progress=False)
    _, net = jax.random.split(jax.random.key(3))
    gram = np.asarray(tangent_gram(net, x, 8), np.float64)
    wanted = [np.linalg.slogdet(np.eye(t) + gram[:t, :t])[1] for t in range(len(X) + 1)]
    np.testing.assert_allclose(trace.log_det.values[0], wanted, rtol=1e-6, atol=1e-12)


def test_contexts_are_orthogonal_random_or_rows_in_a_random_order():
    np.testing.assert_array_equal(draw_contexts("orthogonal", 5, KEY), np.eye(5))
    x = np.asarray(draw_contexts("random", 300, KEY))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    assert np.abs(x @ x.T - np.eye(300)).max() < 0.4  # nearly orthogonal in so many dimensions
    drawn, rows = np.asarray(draw_contexts("digits-8x8", 40, KEY)), load_contexts("digits-8x8")[0]
    places = [np.flatnonzero((rows == row).all(1)) for row in drawn]
    assert all(len(place) for place in places) and len({place[0] for place in places}) == 40
    assert [place[0] for place in places] != sorted(place[0] for place in places)
