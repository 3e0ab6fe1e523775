"""Supervised learning against hand-written loops; batches, batch statistics, borders."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import losses, nn, unfold
from latebloom.core.statistics import trainable_leaves
from latebloom.core.training import (
    Dataset,
    Supervised,
    accuracy,
    batch_rows,
    gradients,
    per_example,
    shuffled,
    step_key,
    trainable,
    update,
)

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(40, 5)), jnp.float32)
Y = jnp.asarray(rng.integers(0, 3, 40), jnp.int32)
DATA = Dataset(X[:30], Y[:30], X[30:], Y[30:])


def mlp(key):
    return nn.MLP(5, (8,), 3, key=key)


def process(**changes):
    options = dict(
        model=mlp, data=DATA, optimiser=optax.adamw, loss=losses.cross_entropy,
        hyper={"learning_rate": 0.01, "weight_decay": 0.1},
    )  # fmt: skip
    return Supervised(**(options | changes))


def test_full_batches_are_a_plain_optax_loop():
    trace = unfold(process(), seeds=[3], steps=20, every=5)
    model_key, _, _ = jax.random.split(jax.random.key(3), 3)
    model = mlp(model_key)
    optimiser = optax.adamw(0.01, weight_decay=0.1)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = optimiser.init(params)

    def loss(params, x, y):
        return losses.cross_entropy(eqx.combine(params, static)(x), y).mean()

    expected = []
    for step in range(21):
        if step % 5 == 0:
            expected.append(float(loss(params, X[30:], Y[30:])))
        updates, state = optimiser.update(jax.grad(loss)(params, X[:30], Y[:30]), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(trace.test_loss.sel(seed=3), expected, rtol=1e-4)


@given(st.integers(1, 700), st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_shuffled_is_a_permutation(n, seed):
    order = np.asarray(jax.jit(partial(shuffled, n=n))(jax.random.key(seed), jnp.arange(n)))
    assert sorted(order) == list(range(n))


def test_shuffled_orders_differ_and_look_random():
    keys = jax.vmap(jax.random.key)(jnp.arange(200))
    orders = np.asarray(jax.jit(jax.vmap(lambda k: shuffled(k, jnp.arange(100), 100)))(keys))
    assert len({tuple(o) for o in orders}) == 200
    means = orders.mean(axis=0)  # each place sees all samples: 49.5 with standard error 2
    assert abs(means - 49.5).max() < 4.5 * 100 / np.sqrt(12 * 200)


def test_an_epoch_visits_every_example_once():
    p = process(batch_size=7)
    state = p.init(jax.random.key(0))
    rows = []
    for step in range(4):
        x, _ = p.batch(state._replace(step=jnp.int32(step)))
        rows += [int(np.flatnonzero((np.asarray(X) == np.asarray(v)).all(axis=1))[0]) for v in x]
    assert len(set(rows)) == 28 and max(rows) < 30


def test_batches_follow_the_seed_not_the_clock():
    a, b = (unfold(process(batch_size=5), seeds=[1], steps=30, every=10) for _ in range(2))
    assert a.train_loss.values.tobytes() == b.train_loss.values.tobytes()


def test_accuracy_counts_exactly():
    logits = jnp.eye(3)[jnp.array([0, 1, 2, 2])]
    assert accuracy(logits, jnp.array([0, 1, 2, 2])) == 1.0
    assert accuracy(logits, jnp.array([1, 2, 0, 0])) == 0.0
    assert accuracy(logits, jnp.array([0, 1, 2, 0])) == 0.75
    assert accuracy(logits, jnp.eye(3)[jnp.array([0, 1, 2, 0])]) == 0.75


def plain_equinox(key):
    return eqx.nn.MLP(5, 3, 8, 1, key=key)


def test_plain_equinox_modules_train_too():
    trace = unfold(process(model=plain_equinox, apply=per_example), seeds=2, steps=50, every=50)
    assert (trace.train_loss.values[:, -1] < trace.train_loss.values[:, 0]).all()


def normed(key):
    return nn.MLP(5, (8, 6), 3, key=key, norm="batch")


def test_batch_statistics_move_to_what_training_sees():
    p = process(model=normed, hyper={"learning_rate": 0.0, "weight_decay": 0.0})
    state = p.init(jax.random.key(0))
    step = jax.jit(lambda s: p.step(s))
    for _ in range(150):
        state = step(state)
    hidden = state.model.layers[0](X[:30])
    np.testing.assert_allclose(state.model.norms[0].mean, hidden.mean(0), atol=1e-4)
    np.testing.assert_allclose(state.model.norms[0].variance, hidden.var(0), rtol=1e-3)
    train, test = (state.model(X[:30], train=t) for t in (True, False))
    np.testing.assert_allclose(train, test, atol=1e-3)


def test_weight_decay_leaves_running_statistics_alone():
    p = process(model=normed, hyper={"learning_rate": 0.0, "weight_decay": 1e9})
    leaves = jax.tree.leaves(trainable_leaves(p.init(jax.random.key(0)).model))
    assert leaves.count(False) == 4
    kept = eqx.filter(nn.BatchNorm(2), trainable_leaves(nn.BatchNorm(2)))
    assert kept.mean is None and kept.variance is None and kept.scale is not None


def test_batch_norm_by_hand():
    x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    out = nn.BatchNorm(2, eps=0.0)(x, train=True)
    np.testing.assert_allclose(out, [[-1, -1], [1, 1]], rtol=1e-6)
    np.testing.assert_allclose(nn.BatchNorm(2, eps=0.0)(x), x)


def test_bad_arguments_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="batch_size 31 is more than the 30"):
        process(batch_size=31)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        process(batch_size=0)
    with pytest.raises(ValueError, match="x_train has 3 examples and y_train 2"):
        Dataset(X[:3], Y[:2], X, Y)


def test_hyperparameters_share_one_program():
    from latebloom.core.runs import program as core

    unfold(process(), seeds=2, steps=4)
    before = len(core._compiled)
    other = process(hyper={"learning_rate": 0.3, "weight_decay": 0.0})
    unfold(other, seeds=2, steps=4)
    assert len(core._compiled) == before


def test_gradients_are_those_of_the_parameters_and_tell_what_normalisations_saw():
    model = normed(jax.random.key(1))
    slopes, seen, outputs = gradients(
        lambda m: (((out := m(X, train=True)) ** 2).sum() / 2, out), model, has_aux=True
    )
    step, read = 1e-2, model.layers[-1].bias
    for place in range(3):
        sides = [
            float((eqx.tree_at(lambda m: m.layers[-1].bias, model,
                               read.at[place].add(sign * step))(X, train=True) ** 2).sum() / 2)
            for sign in (1, -1)
        ]  # fmt: skip
        np.testing.assert_allclose(
            slopes.layers[-1].bias[place], (sides[0] - sides[1]) / (2 * step), rtol=1e-2
        )
    np.testing.assert_allclose(outputs, model(X, train=True), rtol=1e-4, atol=1e-5)
    hidden = np.asarray(model.layers[0](X))
    np.testing.assert_allclose(seen[0][0], hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(seen[0][1], hidden.var(0), rtol=1e-4)
    assert jax.tree.structure(slopes) == jax.tree.structure(trainable(model))


def test_an_update_may_be_masked_and_scaled():
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, trainable(model))
    rule = optax.sgd(0.5)

    def only_bias(updates):
        return eqx.tree_at(
            lambda u: u.weight, jax.tree.map(lambda u: 2 * u, updates), jnp.zeros((2, 2))
        )

    moved, _ = update(rule, ones, rule.init(trainable(model)), model, change=only_bias)
    np.testing.assert_array_equal(moved.weight, model.weight)
    np.testing.assert_allclose(moved.bias, model.bias - 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "optimiser"),
    [("bfloat16", optax.adamw), ("bfloat16", optax.sgd), ("float16", optax.sgd)],
)
def test_a_model_in_half_precision_trains_and_stays_so(dtype, optimiser):
    def half(key):
        cast = lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf  # noqa: E731
        return jax.tree.map(cast, normed(key))

    data = Dataset(X[:30].astype(dtype), Y[:30], X[30:].astype(dtype), Y[30:])
    p = process(model=half, data=data, optimiser=optimiser, hyper={"learning_rate": 0.05})
    before = p.init(jax.random.key(0))
    after = jax.jit(lambda state: p.step(state))(before)
    kinds = [
        [leaf.dtype for leaf in jax.tree.leaves(eqx.filter(s, eqx.is_array))]
        for s in (before, after)
    ]
    assert kinds[0] == kinds[1]
    trace = unfold(p, seeds=2, steps=60, every=60)
    assert (trace.train_loss.values[:, -1] < trace.train_loss.values[:, 0]).all()


def test_rows_of_a_batch_are_an_epoch_without_its_rest():
    key = jax.random.key(5)
    rows = [np.asarray(batch_rows(key, jnp.int32(step), 10, 3)) for step in range(6)]
    for epoch in (rows[:3], rows[3:]):
        assert len(set(np.concatenate(epoch).tolist())) == 9
    assert np.concatenate(rows[:3]).tolist() != np.concatenate(rows[3:]).tolist()
    np.testing.assert_array_equal(batch_rows(key, jnp.int32(4), 10, None), np.arange(10))
    drawn = [jax.random.key_data(step_key(key, jnp.int32(step))).tolist() for step in range(3)]
    assert len(set(map(tuple, drawn))) == 3


@pytest.mark.parametrize(("label", "row"), [(3, 1), (-1, 0), (-100, 4)])
def test_labels_that_are_no_outputs_are_refused(label, row):
    y = np.array([0, 1, 2, 0, 1])
    wrong = np.where(np.arange(5) == row, label, y)

    def make(train, test, **more):
        return Supervised(
            model=lambda key: eqx.nn.Linear(2, 3, key=key), optimiser=optax.sgd, hyper={"learning_rate": 0.1},
            loss=optax.softmax_cross_entropy_with_integer_labels,
            data=Dataset(jnp.ones((5, 2)), jnp.asarray(train), jnp.ones((5, 2)), jnp.asarray(test)), **more,
        )  # fmt: skip

    said = f"labels must be from 0 to 2, but row {row} has {label}"
    for data, part in (((wrong, y), "train"), ((y, wrong), "test")):
        with pytest.raises(ValueError, match=f"the {part} {said}"):
            make(*data)
    make(wrong, y, accuracy=False)  # then they mean what the loss takes them for
