"""Training steps on noisy labels against loops written out by hand, on tiny networks."""

from functools import partial
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from latebloom.core.training import batch_rows
from latebloom.losses import cross_entropy
from latebloom.methods.noisy_labels import (
    CoTeaching,
    EarlyLearning,
    EarlyLearningPlus,
    LabelNoise,
    NoisyData,
    RobustLoss,
    TwoGaussians,
    elr_loss,
    estimate_transition,
    side_by_side,
    small_loss,
)
from latebloom.methods.noisy_labels.co_teaching import kept
from latebloom.methods.noisy_labels.early_learning_plus import averaged, mixed, ramp, reweighted
from latebloom.nn import MLP, SmallCNN

N, CLASSES, BATCH = 24, 3, 8
FAST = {"xla_backend_optimization_level": 0}  # what is compiled here runs a few times only

rows_of = jax.jit(batch_rows, static_argnums=(2, 3), compiler_options=FAST)


def network(key):
    return MLP(4, (6,), CLASSES, key=key)


def sgd(rate, momentum):
    return optax.sgd(rate, momentum=momentum)


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(N, 4)), jnp.float32)
    y = jnp.asarray(rng.integers(0, CLASSES, N), jnp.int32)
    data = NoisyData(x, y, x[:6], y[:6], x[:5], y[:5], LabelNoise(0.5, CLASSES))
    return {"model": network, "data": data, "optimiser": sgd, "batch_size": BATCH,
            "hyper": {"rate": 0.3, "momentum": 0.9}}  # fmt: skip


@pytest.fixture(scope="module")
def step():
    """One compiled step for all processes that differ in arrays alone."""

    @partial(jax.jit, static_argnums=1, compiler_options=FAST)
    def advance(leaves, static, state_leaves):
        process, fixed = static.value
        process = eqx.combine(leaves, process)
        return eqx.filter(process.step(eqx.combine(state_leaves, fixed)), eqx.is_array)

    known = []

    class Static:
        def __init__(self, value):
            self.value = value

    def run(process, state, steps=1):
        leaves, static = eqx.partition(process, eqx.is_array)
        arrays, fixed = eqx.partition(state, eqx.is_array)
        key = (type(process), jax.tree.structure(leaves), process.batch_size)
        held = next((s for k, s in known if k == key), None)
        if held is None:
            held = Static((static, fixed))
            known.append((key, held))
        for _ in range(steps):
            arrays = advance(leaves, held, arrays)
        return eqx.combine(arrays, fixed)

    return run


def weights(model):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))])


def one(tree, i):
    return jax.tree.map(lambda x: x[i] if eqx.is_array(x) else x, tree)


@pytest.fixture(scope="module")
def descend():
    """Gradient of a loss of (logits, labels, targets) and a step of momentum, written out."""

    @eqx.filter_jit
    def update(model, velocity, loss, x, *rest):
        gradient = eqx.filter_grad(lambda m: loss(m(x), *rest))(model)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        return eqx.apply_updates(model, jax.tree.map(lambda v: -0.3 * v, velocity)), velocity

    def start(model):
        return jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))

    return SimpleNamespace(update=update, start=start)


def test_elr_is_the_loop_written_out(parts, step, descend):
    beta, strength = 0.6, 2.0
    process = EarlyLearning(loss=RobustLoss("elr", strength=strength), beta=beta, **parts)
    state = process.init(jax.random.key(0))
    x, y = process.data.x_train, np.asarray(state.data.train)
    model, velocity = state.model, descend.start(state.model)
    targets = np.zeros((N, CLASSES))
    loss = lambda z, y, t: elr_loss(z, y, t, strength).mean()  # noqa: E731
    for i in range(7):  # more than two epochs: targets are met again
        rows = np.asarray(rows_of(state.key, jnp.int32(i), N, BATCH))
        p = np.clip(np.asarray(jax.nn.softmax(model(x[rows]))), 1e-4, 1 - 1e-4)
        targets[rows] = beta * targets[rows] + (1 - beta) * p / p.sum(1, keepdims=True)
        t = jnp.asarray(targets[rows], jnp.float32)
        model, velocity = descend.update(model, velocity, loss, x[rows], jnp.asarray(y[rows]), t)
    last = step(process, state, 7)
    np.testing.assert_allclose(last.targets, targets, atol=1e-5)
    np.testing.assert_allclose(weights(last.model), weights(model), atol=1e-5)
    visits = np.bincount(
        np.concatenate([rows_of(state.key, jnp.int32(i), N, BATCH) for i in range(7)]),
        minlength=N,
    )
    np.testing.assert_allclose(targets.sum(1), 1 - beta**visits, atol=1e-6)


def test_elr_without_strength_is_cross_entropy_step_for_step(parts, step):
    ours = EarlyLearning(loss=RobustLoss("elr", strength=0.0), **parts)
    plain = EarlyLearning(loss=RobustLoss("cross-entropy"), **parts)
    a, b = (p.init(jax.random.key(1)) for p in (ours, plain))
    for _ in range(6):
        a, b = step(ours, a), step(plain, b)
        np.testing.assert_array_equal(weights(a.model), weights(b.model))
        np.testing.assert_array_equal(a.targets, b.targets)


def test_an_epoch_meets_every_example_once(parts):
    key = jax.random.key(3)
    for epoch in range(3):
        rows = [rows_of(key, jnp.int32(3 * epoch + i), N, BATCH) for i in range(3)]
        assert sorted(np.concatenate(rows)) == list(range(N))
    np.testing.assert_array_equal(rows_of(key, jnp.int32(5), N, None), np.arange(N))


def test_the_transition_is_estimated_once_and_known_otherwise(parts, step):
    process = EarlyLearning(loss=RobustLoss("forward"), known=False, warmup=4, **parts)
    state = step(process, process.init(jax.random.key(0)), 3)
    np.testing.assert_array_equal(state.transition, np.eye(CLASSES))
    state = step(process, state)
    np.testing.assert_allclose(state.transition, estimate_transition(state.targets), atol=1e-6)
    np.testing.assert_array_equal(step(process, state, 2).transition, state.transition)
    known = EarlyLearning(loss=RobustLoss("forward"), **parts).init(jax.random.key(0))
    np.testing.assert_allclose(known.transition, LabelNoise(0.5, CLASSES).transition())


@pytest.fixture(scope="module")
def plus(parts):
    return EarlyLearningPlus(
        beta=0.5, strength=2.0, average=0.8, average_ramp=0, mixup=False, **parts
    )


def test_targets_come_from_the_average_of_the_other_network(parts, step, plus):
    state = plus.init(jax.random.key(0))
    state = state._replace(averages=jax.tree.map(  # averages that are not the networks
        lambda x: 1.5 * x if eqx.is_inexact_array(x) else x, state.averages))  # fmt: skip
    alone = eqx.tree_at(lambda p: p.twins, plus, jnp.asarray(False))
    for process, teacher in ((plus, (1, 0)), (alone, (0, 1))):
        after = step(process, state)
        for i in range(2):
            key = jax.random.fold_in(state.key, i)
            rows = rows_of(key, state.step, N, BATCH)
            p = jax.nn.softmax(one(state.averages, teacher[i])(plus.data.x_train[rows]))
            np.testing.assert_allclose(after.targets[i][rows], 0.5 * p, atol=1e-6)
            others = np.setdiff1d(np.arange(N), rows)
            assert not np.asarray(after.targets[i])[others].any()


def test_plus_is_the_loop_written_out(parts, step, descend, plus):
    mixing = eqx.tree_at(lambda p: p.mixup, plus, jnp.asarray(True))
    state = mixing.init(jax.random.key(2))
    x, y = plus.data.x_train, state.data.train
    models, averages = ([one(tree, i) for i in range(2)] for tree in (state.models, state.averages))
    velocities, targets = [descend.start(m) for m in models], np.zeros((2, N, CLASSES))

    def loss(z, labels, q):
        p = jnp.clip(jax.nn.softmax(z), 1e-4, 1 - 1e-4)
        ce = -(labels * jax.nn.log_softmax(z)).sum(1)
        return (ce + 2.0 * jnp.log(1 - (q * p).sum(1))).mean()

    for t in range(4):
        teachers = averages[::-1]
        new = []
        for i in range(2):
            key = jax.random.fold_in(state.key, i)
            rows = np.asarray(rows_of(key, jnp.int32(t), N, BATCH))
            now = jax.random.fold_in(jax.random.fold_in(key, 0x5EED), t)
            share_key, order_key = jax.random.split(now)
            share = float(jax.random.uniform(share_key))
            share, others = (
                max(share, 1 - share),
                np.asarray(jax.random.permutation(order_key, BATCH)),
            )
            p = np.asarray(jax.nn.softmax(teachers[i](x[rows])))
            targets[i][rows] = 0.5 * targets[i][rows] + 0.5 * p
            onehot = np.eye(CLASSES)[np.asarray(y)[rows]]
            mix = lambda v: share * v + (1 - share) * v[others]  # noqa: E731
            xm, ym, q = (
                jnp.asarray(mix(np.asarray(v)), jnp.float32)
                for v in (x[rows], onehot, targets[i][rows])
            )
            models[i], velocities[i] = descend.update(models[i], velocities[i], loss, xm, ym, q)
            new.append(jax.tree.map(lambda a, b: 0.8 * a + 0.2 * b, *(
                eqx.filter(m, eqx.is_array) for m in (averages[i], models[i]))))  # fmt: skip
        averages = [eqx.combine(a, m) for a, m in zip(new, models, strict=True)]
    last = step(mixing, state, 4)
    np.testing.assert_allclose(last.targets, targets, atol=1e-5)
    for i in range(2):
        np.testing.assert_allclose(weights(one(last.models, i)), weights(models[i]), atol=1e-5)
        np.testing.assert_allclose(weights(one(last.averages, i)), weights(averages[i]), atol=1e-5)
    seen = mixing.observe(last)
    logits = (models[0](plus.data.x_test) + models[1](plus.data.x_test)) / 2
    wanted = cross_entropy(logits, plus.data.y_test).mean()
    np.testing.assert_allclose(seen["test_loss"], wanted, rtol=1e-4)


def test_mixup_ramp_average_and_reweighting_by_hand():
    values = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    found = mixed(values, 0.75, jnp.array([1, 2, 0]))
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.875, 0.125], [0.375, 0.625]])
    for at, wanted in ((0, np.exp(-5)), (50, np.exp(-1.25)), (100, 1), (1000, 1)):
        np.testing.assert_allclose(ramp(jnp.int32(at), 100), wanted, rtol=1e-6)
    assert ramp(jnp.int32(0), 0) == 1
    a, b = ({"w": jnp.array([v]), "n": jnp.array([1])} for v in (1.0, 3.0))
    np.testing.assert_allclose(averaged(a, b, 0.75)["w"], [1.5])
    labels, targets = jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([[0.2, 0.6], [0.0, 1.0]])
    np.testing.assert_allclose(reweighted(labels, targets), [[0.25, 0.75], [1, 0]], rtol=1e-6)


def test_co_teaching_exchanges_small_losses(parts, step, descend):
    process = CoTeaching(forget=0.5, epochs=2, **parts)
    state = process.init(jax.random.key(0))
    state = state._replace(step=jnp.int32(3))  # second epoch: R = 1 - 0.25, six of eight are kept
    rows = rows_of(state.key, state.step, N, BATCH)
    x, y = process.data.x_train[rows], state.data.train[rows]
    models = [one(state.models, i) for i in range(2)]
    nll = [np.asarray(cross_entropy(m(x), y)) for m in models]
    chosen = [np.isin(np.arange(BATCH), sorted(range(BATCH), key=lambda i: z[i])[:6]) for z in nll]
    last = step(process, state)
    for i in range(2):
        weight = jnp.asarray(chosen[1 - i], jnp.float32)
        loss = lambda z, y, w: (w * cross_entropy(z, y)).sum() / 6  # noqa: E731
        model, _ = descend.update(models[i], descend.start(models[i]), loss, x, y, weight)
        np.testing.assert_allclose(weights(one(last.models, i)), weights(model), atol=1e-6)


def test_small_loss_and_kept_by_brute_force():
    rng = np.random.default_rng(0)
    losses = rng.random(9)
    for keep in range(1, 10):
        chosen = set(np.argsort(losses)[:keep])
        found = small_loss(jnp.asarray(losses, jnp.float32), keep)
        assert set(np.flatnonzero(np.asarray(found))) == chosen
    wanted = [64, 57, 51, 44, 44]  # floor of 64 (1 - 0.1 T), T up to 3
    assert [int(kept(epoch, 64, 0.3, 3)) for epoch in range(5)] == wanted
    assert kept(9, 10, 0.3, 3) == 7 and kept(9, 4, 0.9, 1) == 1


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_linear_model_is_softmax_regression(strength):
    process = TwoGaussians(n=30, p=7, most=10, sigma=0.5, rate=0.4, strength=strength, beta=0.8)
    state = jax.jit(lambda key: process.init(key), compiler_options=FAST)(jax.random.key(0))
    x, labels = state.x[0], (state.labels[0] < 0).astype(int)
    assert not x[:, 7:].any() and not state.theta[0, 7:].any()
    np.testing.assert_allclose(np.linalg.norm(state.theta[0]), 2, rtol=1e-5)
    both, targets = np.stack([state.theta[0], -state.theta[0]]), np.zeros((30, 2))

    def loss(both, t):
        return elr_loss(x @ both.T, labels, t, strength).mean()

    if strength == 0:  # the theorem's gradient, 1 / (2 n) sum x (tanh(theta x) - label)
        wanted = x.T @ (np.tanh(x @ both[0]) - state.labels[0]) / 60
        found = process._gradient(jax.tree.map(lambda v: v[0], state))[0]
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    advance, gradient = (
        jax.jit(f, compiler_options=FAST) for f in (lambda s: process.step(s), jax.grad(loss))
    )
    for _ in range(6):
        p = np.asarray(jax.nn.softmax(x @ jnp.asarray(both.T)))
        targets = 0.8 * targets + 0.2 * p
        both = both - 0.4 * np.asarray(gradient(jnp.asarray(both), jnp.asarray(targets)))
        state = advance(state)
    np.testing.assert_allclose(state.theta[0], both[0], atol=1e-5)
    np.testing.assert_allclose(-state.theta[0], both[1], atol=1e-5)


def test_problems_of_all_seeds_stand_side_by_side():
    values = np.arange(12.0).reshape(2, 2, 3)  # [seed, step, problem]
    drawn = side_by_side(xr.Dataset({"pull": (("seed", "step", "problem"), values)}))
    np.testing.assert_array_equal(
        drawn.pull.values, [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    )


def test_small_cnn_is_two_pooled_convolutions():
    x = jax.random.normal(jax.random.key(1), (2, 9, 10, 1))

    @partial(jax.jit, compiler_options=FAST)
    def both(key):
        model = SmallCNN((9, 10), 1, CLASSES, width=7, key=key)
        h = x
        for conv in (model.first, model.second):
            h = jax.lax.conv_general_dilated(
                h, conv.weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            h = jax.nn.relu(h + conv.bias)
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        h = jax.nn.relu(h.reshape(2, -1) @ model.hidden.weight + model.hidden.bias)
        return model(x), h @ model.readout.weight + model.readout.bias

    found, wanted = both(jax.random.key(0))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    with pytest.raises(ValueError, match="at least 4 x 4, not 3 x 8"):
        SmallCNN((3, 8), key=jax.random.key(0))


def test_bad_settings_are_refused(parts):
    with pytest.raises(ValueError, match="beta must be in"):
        EarlyLearning(loss=RobustLoss(), beta=1.0, **parts)
    with pytest.raises(ValueError, match="method must be one of cross-entropy, elr"):
        RobustLoss("mae")  # pyright: ignore
    with pytest.raises(ValueError, match="beta and average"):
        EarlyLearningPlus(average=1.0, **parts)
    with pytest.raises(ValueError, match="forget must be in"):
        CoTeaching(forget=1.0, **parts)
    with pytest.raises(ValueError, match="p must be from 2 to 5"):
        TwoGaussians(p=6, most=5)
    with pytest.raises(ValueError, match="batch_size 30 is more than the 24"):
        EarlyLearning(loss=RobustLoss(), **{**parts, "batch_size": 30})
    plain = EarlyLearning(loss=RobustLoss(), **{**parts, "data": "digits"})
    with pytest.raises(TypeError, match="data must be a NoisyData, not str"):
        plain.init(jax.random.key(0))
