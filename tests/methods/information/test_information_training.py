"""Training under control of I(X; Z) against steps worked by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import unfold
from latebloom.core.training import shuffled
from latebloom.data import Dataset
from latebloom.losses import cross_entropy
from latebloom.methods.information.representation import information
from latebloom.methods.information.stochastic_training import (
    UNIT_ENTROPY_SIGMA,
    DeterministicMLP,
    InformationTraining,
    Resampled,
    StochasticMLP,
    blobs,
)
from latebloom.methods.information.weights import Swag


def network(key):
    return StochasticMLP((2, 3, 5), key=key)


def small(key, instance, shared):
    return blobs(key, instance, shared, train=20, test=25, more=25)


@pytest.fixture(scope="module")
def process():
    return InformationTraining(
        network, small, instances=2, members=2, decay=0.1, dual_rate=0.02, multiplier=0.3,
        swa_start=3, examples=15, samples=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def states(process):
    step, state = eqx.filter_jit(process.step), eqx.filter_jit(process.init)(jax.random.key(0))
    found = [state]
    for _ in range(6):
        found.append(step(found[-1]))
    return found


def flat(model):
    return jax.flatten_util.ravel_pytree(eqx.filter(model, eqx.is_inexact_array))[0]


def one(state, instance, member):
    return jax.tree.map(lambda x: x[instance, member], state.learners)


def test_first_step_is_sgd_with_decay_and_dual_ascent(process, states):
    start, after = one(states[0], 1, 0), one(states[1], 1, 0)
    x, y = states[0].data.x[1, :15], states[0].data.y[1, :15]

    @jax.jit
    def drawn(key):
        key = jax.random.fold_in(jax.random.fold_in(key, 0), 0)
        return jax.random.normal(jax.random.split(key, (2, 2))[1, 0], (2, 20, 3))[:, :15]

    def loss(model, noise):
        mean = x @ model.mean.layers[0].weight + model.mean.layers[0].bias
        sigma = jax.nn.softplus(x @ model.spread.layers[0].weight + model.spread.layers[0].bias)
        logits = (mean + sigma * noise[0]) @ model.classifier.weight + model.classifier.bias
        log_p = jax.nn.log_softmax(logits)[jnp.arange(15), y]
        lack = 1.5 - information(mean + sigma * noise[1], mean, sigma)
        return -log_p.mean() + 0.3 * lack, lack

    slope = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))
    gradients, lack = slope(start.model, drawn(states[0].key))
    before, gradients = np.asarray(flat(start.model)), np.asarray(flat(gradients))
    want = before - 0.01 * (gradients + 0.1 * before)
    np.testing.assert_allclose(flat(after.model), want, atol=2e-6)
    assert after.multiplier == pytest.approx(0.3 + 0.02 * float(lack), abs=1e-5)


def test_momentum_carries_over(states):
    weights = [np.asarray(flat(one(s, 0, 1).model)) for s in states[:4]]
    trace = [s.learners.optimiser for s in states[:4]]
    moved = weights[2] - weights[1]
    velocity = next(x for x in jax.tree.leaves(trace[2]) if x.shape[-1:] == moved.shape)[0, 1]
    np.testing.assert_allclose(moved, -0.01 * velocity, atol=1e-6)


def test_snapshots_are_those_before_each_late_step(states):
    swag = Swag.start(one(states[0], 0, 0).model)
    for state in states[3:6]:
        swag = swag.collect(one(state, 0, 0).model)
    found = one(states[6], 0, 0).swag
    assert found.count == 3
    np.testing.assert_allclose(found.mean, swag.mean, atol=1e-7)
    np.testing.assert_allclose(found.squares, swag.squares, atol=1e-9)
    np.testing.assert_allclose(found.deviations, swag.deviations, atol=1e-7)
    assert (one(states[3], 0, 0).swag.count == 0) and (one(states[3], 0, 0).swag.mean == 0).all()


def test_an_epoch_of_batches_is_the_updates_one_after_another():
    process = InformationTraining(network, small, instances=2, members=1, batch_size=6, swa_start=0)
    state = eqx.filter_jit(process.init)(jax.random.key(3))
    after = eqx.filter_jit(process.step)(state)
    key = jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0), (2, 1))[1, 0]
    order = np.asarray(shuffled(jax.random.fold_in(state.key, 0), np.arange(20), 20))
    assert sorted(order.tolist()) == list(range(20))
    model, velocity = one(state, 1, 0).model, 0.0
    weights, back = jax.flatten_util.ravel_pytree(eqx.filter(model, eqx.is_inexact_array))
    static = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    @jax.jit
    @jax.grad
    def slope(weights, x, y, key):
        model = eqx.combine(back(weights), static)
        logits, _ = model.with_penalty(x, jnp.ones(6), key)
        return cross_entropy(logits, y).mean()

    x, y, weights = np.asarray(state.data.x[1]), np.asarray(state.data.y[1]), np.asarray(weights)
    for place in range(3):  # 20 examples: three batches of 6, and 2 that wait for the next order
        rows = order[6 * place : 6 * place + 6]
        velocity = 0.9 * velocity + np.asarray(
            slope(weights, x[rows], y[rows], jax.random.fold_in(key, place))
        )
        weights = weights - 0.01 * velocity
    np.testing.assert_allclose(flat(one(after, 1, 0).model), weights, atol=1e-6)
    np.testing.assert_array_equal(one(after, 1, 0).swag.mean, flat(model))


def test_resampled_instances_are_draws_from_one_pool():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 4, 40)
    data = Resampled(Dataset(x[:25], y[:25], x[25:], y[25:]), train=30, more=5)
    key = jax.random.key(0)
    first, same, other = (data(key, i) for i in (0, 0, 1))
    rows = zip(np.float32(x[:25]).tolist(), y[:25].tolist(), strict=True)
    pool = {(*row, label) for row, label in rows}
    drawn = [(*map(float, row), int(label)) for row, label in zip(first.x, first.y, strict=True)]
    assert len(drawn) == 30 and set(drawn) <= pool and len(set(drawn)) < 25  # with replacement
    np.testing.assert_array_equal(first.x, same.x)
    assert (first.x != other.x).any()
    np.testing.assert_array_equal(first.x_test, np.float32(x[25:35]))
    np.testing.assert_array_equal(other.y_more, y[35:])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x_train": np.ones((6, 2, 2))}, r"x_train must be .*its shape is \(6, 2, 2\)"),
        ({"x_test": np.array([[0.0], [np.nan], [1.0]])}, "x_test has values that are NaN"),
        ({"y_train": np.ones(6)}, "y_train must be one whole number"),
        ({"y_test": np.array([0, -1, 1])}, "y_test must be one whole number"),
        ({"train": 0}, "train must be at least 1, not 0"),
        ({"more": 3}, "between 1 and 2, not 3"),
        ({"more": 0}, "between 1 and 2, not 0"),
    ],
)
def test_resampled_says_what_is_wrong(change, message):
    whole = {
        "x_train": np.ones((6, 1)), "y_train": np.ones(6, int), "x_test": np.ones((3, 1)),
        "y_test": np.ones(3, int), "train": 4, "more": 1,
    } | change  # fmt: skip
    sizes = {name: whole.pop(name) for name in ("train", "more")}
    with pytest.raises(ValueError, match=message):
        Resampled(Dataset(**whole), **sizes)


def test_members_start_alike_on_every_instance(states):
    first, second = (flat(one(states[0], i, 0).model) for i in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != flat(one(states[0], 0, 1).model)).any()
    assert (flat(one(states[1], 0, 0).model) != flat(one(states[1], 1, 0).model)).any()


def test_halves_share_a_source_and_fresh_instances_do_not():
    key = jax.random.key(1)
    draw = jax.jit(blobs)
    halves = [draw(key, i, True) for i in (0, 1)]
    fresh = [draw(key, i, False) for i in (0, 1)]
    np.testing.assert_array_equal(halves[0].x_test, halves[1].x_test)
    in_both = {tuple(p) for p in np.asarray(halves[0].x)} & {
        tuple(p) for p in np.asarray(halves[1].x)
    }
    assert 5 < len(in_both) < 45 and halves[0].x.shape == (50, 2)
    assert (np.bincount(halves[0].y) == 10).all() and (halves[0].y == halves[1].y).all()
    with pytest.raises(ValueError, match="multiple of the 5 classes, not 12"):
        blobs(key, 0, train=12)
    assert not np.isclose(fresh[0].x_test, fresh[1].x_test).any()
    spread = [np.asarray(fresh[0].x_more[fresh[0].y_more == c]).std(0) for c in range(5)]
    np.testing.assert_allclose(spread, 0.7, rtol=0.25)


def test_plain_networks_have_a_norm_for_penalty_and_layers_to_look_at():
    model = eqx.filter_jit(DeterministicMLP)((2, 4, 3, 5), key=jax.random.key(0))
    x, key = np.random.default_rng(1).normal(size=(8, 2)).astype(np.float32), jax.random.key(2)
    logits, (first, last) = eqx.filter_jit(model)(x, key)
    assert logits.shape == (8, 5) and first.shape == (8, 4) and (last >= 0).all()
    same, penalty = eqx.filter_jit(model.with_penalty)(x, jnp.ones(8), key)
    noisy = last + UNIT_ENTROPY_SIGMA * np.asarray(jax.random.normal(key, last.shape))
    assert penalty == pytest.approx(np.linalg.norm(noisy, axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(same, logits, rtol=1e-6)
    # the noise has an entropy of 0 nats
    assert 0.5 * np.log(2 * np.pi * np.e * UNIT_ENTROPY_SIGMA**2) == pytest.approx(0, abs=1e-6)


def test_fixed_noise_and_errors():
    model = StochasticMLP((2, 4, 3), key=jax.random.key(0), noise=0.7)
    assert (model.encode(jnp.ones((2, 2)))[1] == 0.7).all()
    with pytest.raises(ValueError, match="input, code and classes"):
        StochasticMLP((2, 3), key=jax.random.key(0))
    with pytest.raises(ValueError, match="2 instances and 1 member"):
        InformationTraining(network, instances=1)
    for size in (0, 21):
        with pytest.raises(ValueError, match=f"between 1 and the 20 training examples, not {size}"):
            unfold(InformationTraining(network, small, batch_size=size), steps=1)
    assert [StochasticMLP.layer_of(p) for p in (".mean.layers[0].bias", ".classifier.bias")] == [
        0,
        1,
    ]
