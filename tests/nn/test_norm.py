"""Batch normalisation by hand: batch statistics, running statistics, and the tape."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from latebloom.core.statistics import batch_statistics, update_statistics
from latebloom.nn.mlp import MLP
from latebloom.nn.norm import BatchNorm


def test_training_normalises_by_the_batch():
    norm = BatchNorm(2, eps=0.5)
    norm = eqx.tree_at(lambda n: (n.scale, n.shift), norm, (jnp.array([2.0, 1]), jnp.array([1, 0])))
    x = jnp.array([[1.0, 5], [3, 5]])
    # Column means 2 and 5; biased variances 1 and 0; eps 0.5.
    want = [[1 - 2 / np.sqrt(1.5), 0], [1 + 2 / np.sqrt(1.5), 0]]
    np.testing.assert_allclose(norm(x, train=True), want, atol=1e-6)


def test_evaluation_uses_running_statistics_and_gives_them_no_gradient():
    norm = BatchNorm(1, eps=0.0)
    norm = eqx.tree_at(lambda n: (n.mean, n.variance), norm, (jnp.array([3.0]), jnp.array([4.0])))
    np.testing.assert_allclose(norm(jnp.array([[5.0]])), [[1.0]])
    grads = eqx.filter_grad(lambda n: jnp.sum(n(jnp.array([[5.0]]))))(norm)
    np.testing.assert_allclose([grads.scale[0], grads.shift[0]], [1, 1])
    np.testing.assert_allclose([grads.mean[0], grads.variance[0]], [0, 0])


def test_any_leading_axes_are_one_batch():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    norm = BatchNorm(5)
    flat = norm(x.reshape(-1, 5), train=True)
    np.testing.assert_allclose(norm(x, train=True), flat.reshape(x.shape), atol=1e-5)


def test_running_statistics_move_towards_the_batch_with_its_biased_variance():
    norm = BatchNorm(1)
    with batch_statistics(norm) as seen:
        norm(jnp.array([[0.0], [4.0]]), train=True)
    moved = update_statistics(norm, seen, momentum=0.75)
    # mean: 0.75 * 0 + 0.25 * 2; variance: 0.75 * 1 + 0.25 * 4 (PyTorch would take 8, unbiased).
    np.testing.assert_allclose([moved.mean[0], moved.variance[0]], [0.5, 1.75])
    assert norm.mean[0] == 0


def test_nothing_is_seen_outside_training_or_outside_the_block():
    norm = BatchNorm(1)
    with batch_statistics(norm) as seen:
        norm(jnp.ones((2, 1)))
    norm(jnp.ones((2, 1)), train=True)
    assert seen == [None]
    assert eqx.tree_equal(update_statistics(norm, seen), norm)


def test_the_tape_works_in_gradients_inside_a_scan():
    model = MLP(2, (3, 3), 1, norm="batch", key=jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (3, 8, 2))

    def loss(model, x):
        with batch_statistics(model) as seen:
            y = model(x, train=True)
        return jnp.sum(y**2), seen

    def step(model, x):
        _, seen = eqx.filter_grad(loss, has_aux=True)(model, x)
        return update_statistics(model, seen, momentum=0.5), None

    end, _ = jax.jit(lambda model: jax.lax.scan(step, model, xs))(model)
    want = np.zeros(3)
    for x in xs:
        want = 0.5 * want + 0.5 * np.asarray(model.layers[0](x)).mean(0)
    np.testing.assert_allclose(end.norms[0].mean, want, atol=1e-5)
