"""Perturbed online regression against dense autodiff, NumPy by hand, and the exact expectation."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy.special import rel_entr

from latebloom.methods.bandits.neural import (
    ArmNetwork,
    EENet,
    KernelRegression,
    LinearRegression,
    NeuralRegression,
    Perturbation,
    Replay,
)
from latebloom.methods.bandits.neural.regression import Draws, loss_of, passes, project, rademacher

KEY = jax.random.key(3)
SHAPES = {"disjoint": (4,), "heads": (4,), "contexts": (3, 4)}


learn = eqx.filter_jit(NeuralRegression.learn)
remember = eqx.filter_jit(NeuralRegression.remember)
kl_and_slope = jax.jit(jax.value_and_grad(lambda f, y: loss_of(f, y, "kl")))
to_ball = jax.jit(project)


def network(arms="disjoint", hidden=(5,)):
    return ArmNetwork(3, 4, hidden, arms)


@pytest.mark.parametrize("hidden", [(5,), (5, 6)])
def test_disjoint_arms_are_one_network_on_a_block_vector(hidden):
    net = network(hidden=hidden)
    w = [np.asarray(v) for v in net.init(KEY)]
    x = np.array([0.5, -0.5, 0.1, 0.7], np.float32)
    for a, output in enumerate(np.asarray(net.all(net.init(KEY), jnp.asarray(x)))):
        block = np.zeros(12, np.float32)
        block[4 * a : 4 * a + 4] = x
        h = np.maximum(np.concatenate(w[0], axis=1) @ block, 0)
        for layer in w[1:-1]:
            h = np.maximum(layer @ h / np.sqrt(len(h)), 0)
        np.testing.assert_allclose(output, w[-1] @ [*h, 1] / np.sqrt(len(h)), rtol=1e-4)


def test_heads_share_their_trunk_and_contexts_their_network():
    x = jnp.array([0.5, -0.5, 0.1, 0.7])
    net = network("heads")
    w, v = net.init(KEY)
    expected = np.asarray(v) @ [*np.maximum(w @ x, 0), 1] / np.sqrt(5)
    np.testing.assert_allclose(net.all((w, v), x), expected, rtol=1e-5)
    net = network("contexts")
    w, v = net.init(KEY)
    rows = jnp.stack([x, -x, 2 * x])
    expected = (np.maximum(rows @ w.T, 0) @ v[:-1] + v[-1]) / np.sqrt(5)
    np.testing.assert_allclose(net.all((w, v), rows), expected, rtol=1e-5)


def test_a_network_that_first_met_losses_alone_still_learns_that_there_are_none():
    """Without an output bias all outputs end up positive, and a row without loss at a half."""
    oracle = NeuralRegression(network(hidden=(20,)), "kl", 1.0, replay=Replay(40, 4000))
    state, rng = oracle.init(KEY), np.random.default_rng(0)
    for t in range(40):
        x = jnp.asarray([*rng.normal(size=3), 1.0], jnp.float32) / 2
        state = remember(oracle, state, x, jnp.int32(t % 3), jnp.float32(t % 8 > 0))
    fit = eqx.filter_jit(lambda s, key: s._replace(weights=oracle.refit(s, key)[0]))
    for key in jax.random.split(KEY, 3):
        state = fit(state, key)
    x, actions, y = state.memory
    found = jax.jit(jax.vmap(lambda x, a: oracle.predict(state, x)[0][a]))(x, actions)
    np.testing.assert_allclose(found, y, atol=0.2)


def test_a_network_without_units_is_refused():
    with pytest.raises(ValueError, match="at least one action"):
        ArmNetwork(3, 4, ())
    with pytest.raises(ValueError, match="draws must be at least 1"):
        Perturbation(0)


def test_widths_are_those_of_the_gradient_by_hand():
    net, x = network(), np.array([0.5, -0.5, 0.1, 0.7], np.float32)
    w, v = net.init(KEY)
    keys = jax.random.split(jax.random.key(9), 2)
    u = tuple(0.5 + jax.random.uniform(k, s.shape) for k, s in zip(keys, (w, v), strict=True))
    found = jax.jit(net.widths)((w, v), u, jnp.asarray(x), 0.7)
    for a in range(3):
        h = np.asarray(w[a] @ x)
        slope = np.outer(np.asarray(v)[:-1] * (h > 0), x) / np.sqrt(5)
        total = (slope**2 / u[0][a]).sum() + (
            np.array([*np.maximum(h, 0), 1]) ** 2 / 5 / u[1]
        ).sum()
        np.testing.assert_allclose(found[a], np.sqrt(0.7 * total), rtol=1e-4)


def test_the_precision_grows_by_the_squared_gradient_of_the_played_arm():
    net, x = network(), jnp.array([0.5, -0.5, 0.1, 0.7])
    oracle = NeuralRegression(net, ridge=0.3, rate=0.1)
    state = oracle.init(KEY)
    h = np.asarray(state.weights[0][1] @ x)
    after = learn(oracle, state, x, jnp.int32(1), jnp.float32(1))
    slope = np.outer(np.asarray(state.weights[1])[:-1] * (h > 0), x) / np.sqrt(5)
    np.testing.assert_allclose(after.precision[0][1], 0.3 + slope**2, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(after.precision[0])[[0, 2]], 0.3, rtol=1e-6)
    last = np.array([*np.maximum(h, 0), 1]) ** 2 / 5
    np.testing.assert_allclose(after.precision[1], 0.3 + last, rtol=1e-5)


def dense_loss(flat, oracle, state, x, action, y):
    """The averaged perturbed loss as a function of all weights at once."""
    start, unravel = ravel_pytree(state.start)
    signs = jnp.concatenate(
        [s.reshape(len(s), -1) for s in state.draws.signs], axis=1
    )  # in the order in which weights are flattened
    outputs = oracle.network.all(unravel(flat), x)[action]
    outputs = outputs + oracle.perturbation.strength * signs @ (flat - start)
    return loss_of(outputs, y, oracle.loss).mean()


@eqx.filter_jit
def descend(oracle, state, track, *row):
    return oracle.descend(track, state.draws, *row, 0.3)


dense = eqx.filter_jit(eqx.filter_value_and_grad(dense_loss))


@pytest.mark.parametrize("arms", SHAPES)
@pytest.mark.parametrize("loss", ["square", "kl"])
def test_steps_along_the_signs_are_dense_gradient_descent(arms, loss):
    oracle = NeuralRegression(
        network(arms), loss, 0.3, perturbation=Perturbation(3, 0.2), replay=Replay(8), radius=1e9
    )
    state = oracle.init(KEY)
    rng = np.random.default_rng(0)
    track, flat = oracle.track(state), ravel_pytree(state.weights)[0]
    for _ in range(5):
        x = jnp.asarray(rng.normal(size=SHAPES[arms]), jnp.float32)
        action, y = jnp.int32(rng.integers(3)), jnp.float32(rng.random())
        track, value = descend(oracle, state, track, x, action, y)
        expected, gradient = dense(flat, oracle, state, x, action, y)
        np.testing.assert_allclose(value, expected, rtol=2e-4)
        flat = flat - 0.3 * gradient
    weights, draws = oracle.settle(state, track, KEY)
    np.testing.assert_allclose(ravel_pytree(weights)[0], flat, atol=2e-5)
    moved = flat - ravel_pytree(state.start)[0]
    signs = jnp.concatenate([s.reshape(3, -1) for s in state.draws.signs], axis=1)
    np.testing.assert_allclose(draws.inner, signs @ moved, atol=1e-4)


def test_in_expectation_the_perturbation_is_a_pull_to_the_start():
    """All sign vectors at once: the exact expectation, value and gradient."""
    net = ArmNetwork(1, 2, (2,))
    start = net.init(KEY)
    flat, unravel = ravel_pytree(start)
    every = jnp.array(list(itertools.product([-1.0, 1.0], repeat=7)))
    signs = (every[:, :4].reshape(128, 1, 2, 2), every[:, 4:])
    moved = flat + 0.1 * jnp.arange(7)
    c, x, y = 0.3, jnp.array([0.6, 0.8]), jnp.float32(0.4)
    oracle = NeuralRegression(net, "square", perturbation=Perturbation(128, c), radius=1e9)
    inner = every @ (moved - flat)
    state = oracle.init(KEY)._replace(
        start=start, weights=unravel(moved), draws=Draws(signs, jnp.zeros((128, 128)), inner)
    )
    descend = jax.jit(lambda s: oracle.descend(oracle.track(s), s.draws, x, jnp.int32(0), y, 1.0))
    track, value = descend(state)

    def expected(flat_weights):
        plain = loss_of(net.all(unravel(flat_weights), x)[0], y, "square")
        return plain + c**2 / 2 * jnp.sum((flat_weights - flat) ** 2)

    np.testing.assert_allclose(value, expected(moved), rtol=1e-5)
    after, _ = oracle.settle(state, track, KEY)
    np.testing.assert_allclose(moved - ravel_pytree(after)[0], jax.grad(expected)(moved), atol=1e-5)


@given(st.floats(-8, 8), st.floats(0, 1))
def test_kl_is_the_relative_entropy(output, y):
    q = 1 / (1 + np.exp(-output))
    expected = rel_entr(y, q) + rel_entr(1 - y, 1 - q)
    found, slope = kl_and_slope(jnp.float32(output), jnp.float32(y))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(slope, q - y, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 99), st.floats(0.01, 5))
def test_projection_is_onto_the_ball(seed, radius):
    rng = np.random.default_rng(seed)
    w, centre = rng.normal(size=(2, 3, 4)).astype(np.float32)
    found = np.asarray(to_ball(jnp.asarray(w), jnp.asarray(centre), radius))
    distance = np.linalg.norm(w - centre)
    if distance <= radius:
        np.testing.assert_array_equal(found, w)
    else:
        np.testing.assert_allclose(np.linalg.norm(found - centre), radius, rtol=1e-4)
        # On the segment from the centre.
        np.testing.assert_allclose(found - centre, (w - centre) * radius / distance, atol=1e-5)


def test_online_descent_by_hand_with_a_falling_rate_and_a_ball():
    net = network()
    oracle = NeuralRegression(net, "square", 0.5, 0.1, radius=0.3)
    state = oracle.init(KEY)
    w, v = (np.asarray(p, np.float64) for p in state.weights)
    w0, v0 = w.copy(), v.copy()
    rng = np.random.default_rng(1)
    for t in range(6):
        x = rng.normal(size=4)
        a, y = int(rng.integers(3)), float(rng.random())
        state = learn(oracle, state, jnp.asarray(x, jnp.float32), jnp.int32(a), jnp.float32(y))
        h = w[a] @ x
        last = np.array([*np.maximum(h, 0), 1]) / np.sqrt(5)
        residual = v @ last - y
        rate = 0.5 / (1 + 0.1 * t)
        gw, gv = np.outer(v[:-1] * (h > 0), x) / np.sqrt(5), last
        w[a], v = w[a] - rate * residual * gw, v - rate * residual * gv
        for p, p0 in ((w, w0), (v, v0)):
            norm = np.linalg.norm(p - p0)
            if norm > 0.3:
                p[...] = p0 + (p - p0) * 0.3 / norm
        np.testing.assert_allclose(state.weights[0], w, atol=1e-5)
        np.testing.assert_allclose(state.weights[1], v, atol=1e-5)
    assert np.linalg.norm(w - w0) > 0.29  # the ball was felt


def test_predictions_add_the_mean_perturbation_and_pass_the_link():
    net, x = network(), jnp.array([0.5, -0.5, 0.1, 0.7])
    for loss in ("square", "kl"):
        oracle = NeuralRegression(net, loss, perturbation=Perturbation(4, 0.5))
        state = oracle.init(KEY)
        plain = net.all(state.weights, x)
        state = state._replace(draws=state.draws._replace(inner=jnp.array([1.0, 2.0, 3.0, 6.0])))
        expected = plain + 0.5 * 3
        if loss == "kl":
            expected = 1 / (1 + np.exp(-expected))
        np.testing.assert_allclose(oracle.predict(state, x)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("renew", [False, True])
def test_signs_are_kept_or_drawn_anew_after_every_update(renew):
    oracle = NeuralRegression(network(), perturbation=Perturbation(4, 0.5, renew))
    state = oracle.init(KEY)
    after = learn(oracle, state, jnp.ones(4), jnp.int32(0), jnp.float32(1))
    same = bool((after.draws.signs[0] == state.draws.signs[0]).all())
    assert same != renew
    moved = [np.asarray(a - b).ravel() for a, b in zip(after.weights, after.start, strict=True)]
    signs = np.concatenate([np.asarray(s).reshape(4, -1) for s in after.draws.signs], axis=1)
    np.testing.assert_allclose(after.draws.inner, signs @ np.concatenate(moved), rtol=1e-4)


def test_signs_are_fair_and_independent():
    signs = np.asarray(rademacher(KEY, 8, 4001))
    assert signs.shape == (8, 4001) and set(np.unique(signs)) == {-1.0, 1.0}
    assert np.abs(signs.mean(1)).max() < 0.06
    assert np.abs(signs @ signs.T / 4001 - np.eye(8)).max() < 0.06


@pytest.mark.parametrize("training", ["online", "replay"])
def test_a_row_that_is_off_changes_nothing(training):
    replay = Replay(5, 20) if training == "replay" else None
    oracle = NeuralRegression(network(), "kl", 0.5, perturbation=Perturbation(2), replay=replay, ridge=1.0)  # fmt: skip
    state = learn(
        oracle, oracle.init(KEY), jnp.ones(4), jnp.int32(0), jnp.float32(1), jnp.array(True)
    )
    off = learn(oracle, state, 2 * jnp.ones(4), jnp.int32(1), jnp.float32(0), jnp.array(False))
    for name in ("weights", "precision", "memory", "count"):
        for a, b in zip(jax.tree.leaves(getattr(state, name)), jax.tree.leaves(getattr(off, name)), strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)


def test_replay_is_due_on_the_schedule():
    due = jax.vmap(Replay(1).due)(jnp.arange(1, 1301))
    expected = [*range(1, 1000, 10), *range(1001, 1301, 100)]
    np.testing.assert_array_equal(np.flatnonzero(due) + 1, expected)


def visits(count, limit, value):
    def step(carry, i):
        return (carry[0].at[i].add(1), carry[1] + 1), jnp.float32(value)

    start = (jnp.zeros(7, jnp.int32), jnp.int32(0))
    run = jax.jit(lambda n: passes(step, start, KEY, n, 7, limit, 0.5))
    seen, made = run(jnp.int32(count))
    return np.asarray(seen), int(made)


def test_passes_visit_every_example_alike_until_the_limit():
    seen, made = visits(4, 14, 1.0)
    assert made == 14 and sorted(seen[:4]) == [3, 3, 4, 4] and (seen[4:] == 0).all()


def test_passes_end_after_one_that_is_good_enough():
    seen, made = visits(5, 100, 0.5)
    assert made == 5 and seen.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_a_replay_learns_what_it_remembers_and_forgets_the_oldest():
    oracle = NeuralRegression(network(hidden=(30,)), "square", 0.3, replay=Replay(3, 600), radius=1e9)  # fmt: skip
    state = oracle.init(KEY)
    rows = jnp.eye(4)
    for t in range(5):
        state = remember(oracle, state, rows[t % 4], jnp.int32(t % 3), jnp.float32(t / 4))
    assert sorted(np.asarray(state.memory.y).tolist()) == [0.5, 0.75, 1.0]
    state = state._replace(count=jnp.int32(20))  # the next example makes training due
    state = learn(oracle, state, rows[0], jnp.int32(2), jnp.float32(0.2))
    for x, a, y in zip(state.memory.x, state.memory.action, state.memory.y, strict=True):
        np.testing.assert_allclose(oracle.predict(state, x)[0][a], y, atol=0.05)


def test_nothing_changes_its_type_where_64_bits_are_enabled():
    net = network()
    with jax.enable_x64(True):
        for oracle in (
            NeuralRegression(net, "kl", perturbation=Perturbation(2, renew=True), ridge=1.0),
            NeuralRegression(net, perturbation=Perturbation(2), replay=Replay(9, 20)),
            EENet(NeuralRegression(net, replay=Replay(9, 20))),
            LinearRegression(3, 4),
            KernelRegression(3, 4, 9),
        ):
            state = jax.eval_shape(oracle.init, KEY)
            row = (jnp.ones(4, jnp.float32), jnp.int32(1), jnp.float32(1))
            after = jax.eval_shape(lambda s, o=oracle, r=row: o.learn(s, *r), state)
            same = jax.tree.map(lambda a, b: a.dtype == b.dtype, state, after)
            assert all(jax.tree.leaves(same)), oracle
