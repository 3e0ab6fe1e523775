"""The linearised twin against closed-form linear theory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from latebloom import unfold
from latebloom.core.training import trainable
from latebloom.methods.grokking.lazy_rich import CommitteeMachine, committee_training
from latebloom.nn import MLP
from latebloom.probes.linearised import Centred, Linearised
from latebloom.probes.ntk import empirical_ntk, kernel_regression


def gradient_descent(model, x, y, rate, steps):
    """Plain GD on the mean squared error."""

    @eqx.filter_jit
    def step(_, model):
        grads = eqx.filter_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -rate * g, grads))

    params, static = eqx.partition(model, eqx.is_array)
    done = jax.lax.fori_loop(
        0, steps, lambda i, p: eqx.filter(step(i, eqx.combine(p, static)), eqx.is_array), params
    )
    return eqx.combine(done, static)


def test_twin_of_a_model_that_is_linear_in_its_parameters_is_the_model():
    model = CommitteeMachine(4, 3, key=jax.random.key(0), epsilon=0.0)
    x = jax.random.normal(jax.random.key(1), (6, 4))
    twin = Linearised(model)
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-6)
    np.testing.assert_allclose(Linearised(model, centred=True)(x), 0, atol=1e-6)
    moved = jax.random.normal(jax.random.key(2), (3, 4))
    model = eqx.tree_at(lambda m: m.weights, model, moved)
    twin = eqx.tree_at(lambda m: m.params.weights, twin, moved)
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-5)


def test_twin_is_the_tangent_to_second_order():
    model = MLP(3, (8,), 2, key=jax.random.key(0), activation="tanh")
    x = jax.random.normal(jax.random.key(1), (5, 3))
    leaves = jax.tree.leaves(trainable(model))
    keys = jax.random.split(jax.random.key(2), len(leaves))
    move = jax.tree.unflatten(
        jax.tree.structure(trainable(model)),
        [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)],
    )

    def error(size):
        shift = jax.tree.map(lambda a: size * a, move)
        twin = Linearised(model)
        twin = eqx.tree_at(lambda t: t.params, twin, eqx.apply_updates(twin.params, shift))
        return float(jnp.abs(twin(x) - eqx.apply_updates(model, shift)(x)).max())

    assert 3.0 < error(0.1) / error(0.05) < 5.5  # the remainder is quadratic


def test_gradient_descent_on_the_twin_ends_in_kernel_regression_and_follows_its_closed_form():
    with jax.enable_x64(True):
        model = CommitteeMachine(3, 7, key=jax.random.key(0), epsilon=0.8, dtype=jnp.float64)
        x = jax.random.normal(jax.random.key(1), (5, 3), jnp.float64)
        new = jax.random.normal(jax.random.key(2), (4, 3), jnp.float64)
        y = jax.random.normal(jax.random.key(3), (5,), jnp.float64)
        kernel, cross = empirical_ntk(model, x), empirical_ntk(model, new, x)
        rate = 0.9 * 5 / float(jnp.linalg.eigvalsh(kernel)[-1])

        twin = gradient_descent(Linearised(model), x, y, rate, 60)
        shrink = np.linalg.matrix_power(np.eye(5) - 2 * rate / 5 * np.asarray(kernel), 60)
        np.testing.assert_allclose(twin(x) - y, shrink @ (model(x) - y), atol=1e-10)

        twin = gradient_descent(Linearised(model), x, y, rate, 60_000)
        ends = model(new) + kernel_regression(kernel, y - model(x), cross)
        np.testing.assert_allclose(twin(new), ends, atol=1e-6)
        twin = gradient_descent(Linearised(model, centred=True), x, y, rate, 60_000)
        np.testing.assert_allclose(twin(new), kernel_regression(kernel, y, cross), atol=1e-6)


def test_origin_is_no_parameter_so_that_weight_decay_leaves_it_alone():
    model = CommitteeMachine(3, 4, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    for twin in (Linearised(model), Centred(model)):
        assert len(jax.tree.leaves(trainable(twin))) == 1
        optimiser = optax.adamw(0.1, weight_decay=0.5)
        grads = eqx.filter_grad(lambda m: jnp.mean(m(x) ** 2))(twin)
        updates, _ = optimiser.update(grads, optimiser.init(trainable(twin)), trainable(twin))
        after = eqx.apply_updates(twin, updates)
        assert jnp.array_equal(after.origin.weights, twin.origin.weights)
        assert not jnp.array_equal(after.params.weights, twin.params.weights)


def test_centred_model_starts_at_zero_and_moves_with_the_model():
    model = MLP(3, (4,), 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    centred = Centred(model)
    np.testing.assert_allclose(centred(x), 0, atol=1e-7)
    moved = eqx.tree_at(lambda m: m.params, centred, MLP(3, (4,), 2, key=jax.random.key(2)))
    other = MLP(3, (4,), 2, key=jax.random.key(2))
    np.testing.assert_allclose(moved(x), other(x) - model(x), rtol=1e-5, atol=1e-6)


def test_twins_train_as_models_of_a_supervised_process():
    for twin in (Linearised, Centred):
        process = committee_training(dim=4, samples=8, neurons=6, test_samples=5, twin=twin)
        trace = unfold(process, seeds=2, steps=30, every=30, progress=False)
        assert (trace.train_loss.values[:, -1] < trace.train_loss.values[:, 0]).all()
