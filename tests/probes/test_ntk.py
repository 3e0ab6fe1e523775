"""The empirical tangent kernel and its summaries against explicit Jacobians and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latebloom.methods.grokking.lazy_rich import CommitteeMachine, statistics, tangent_kernel
from latebloom.nn import MLP
from latebloom.probes.ntk import (
    empirical_ntk,
    kernel_alignment,
    kernel_movement,
    kernel_regression,
    kernel_weights,
    parameter_movement,
    task_spectrum,
)


class LinearModel(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return x @ self.weight


def explicit_kernel(model, x, other):
    """By one flat Jacobian of all outputs with respect to all parameters."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def jacobian(points):
        return jax.jacfwd(lambda p: eqx.combine(unravel(p), static)(points))(flat)

    return jnp.einsum("aop,bqp->aboq", jacobian(x), jacobian(other))


@pytest.mark.parametrize("chunk", [3, 5, 100])
def test_kernel_is_the_product_of_jacobians_for_every_chunk_size(chunk):
    model = MLP(4, (6, 5), 3, key=jax.random.key(0), activation="tanh")
    x = jax.random.normal(jax.random.key(1), (7, 4))
    other = jax.random.normal(jax.random.key(2), (5, 4))
    want = explicit_kernel(model, x, other)
    full = empirical_ntk(model, x, other, outputs="full", chunk=chunk)
    trace = empirical_ntk(model, x, other, chunk=chunk)
    np.testing.assert_allclose(full, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trace, jnp.einsum("aboo->ab", want), rtol=1e-4, atol=1e-5)
    own = empirical_ntk(model, x, chunk=chunk)
    np.testing.assert_allclose(
        own, jnp.einsum("aboo->ab", explicit_kernel(model, x, x)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(own, own.T, rtol=1e-5)


def test_kernel_of_a_linear_model_is_the_gram_matrix_for_each_output():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    model = LinearModel(jnp.ones((4, 2)))
    gram = x @ x.T
    np.testing.assert_allclose(empirical_ntk(model, x), 2 * gram, rtol=1e-5, atol=1e-6)
    full = empirical_ntk(model, x, outputs="full")
    np.testing.assert_allclose(full, gram[:, :, None, None] * jnp.eye(2), rtol=1e-5, atol=1e-6)


def test_kernel_of_the_committee_machine_has_its_closed_form():
    with jax.enable_x64(True):
        model = CommitteeMachine(
            5, 9, key=jax.random.key(0), alpha=1.7, epsilon=0.3, dtype=jnp.float64
        )
        x = jax.random.normal(jax.random.key(1), (6, 5), jnp.float64)
        other = jax.random.normal(jax.random.key(2), (4, 5), jnp.float64)
        closed = tangent_kernel(x, other, statistics(model.weights), 1.7, 0.3)
        np.testing.assert_allclose(9 * empirical_ntk(model, x, other), closed, rtol=1e-12)


def test_kernel_can_be_taken_inside_a_compiled_program():
    model = MLP(3, (4,), 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    inside = eqx.filter_jit(lambda m, p: empirical_ntk(m, p, chunk=2))(model, x)
    np.testing.assert_allclose(inside, empirical_ntk(model, x), rtol=1e-5)


def test_alignment_of_worked_examples():
    y = jnp.array([1.0, -1.0, 3.0, 5.0])
    centred = y - 2.0
    assert kernel_alignment(jnp.outer(centred, centred), y) == pytest.approx(1.0)
    # K = I: y_c^T y_c / (||I - 1/4|| ||y_c||^2) with ||I - J/4||_F = sqrt(3).
    assert kernel_alignment(jnp.eye(4), y) == pytest.approx(1 / np.sqrt(3))


kernels = hnp.arrays(np.float64, (5, 5), elements=st.floats(-3, 3, width=32))
labels = hnp.arrays(np.float64, (5, 2), elements=st.floats(-3, 3, width=32))


@settings(max_examples=40, deadline=None)
@given(kernels, labels, st.floats(0.1, 10), st.floats(-5, 5), st.permutations(range(5)))
def test_alignment_ignores_scale_shift_order_and_rotation_of_the_outputs(root, y, a, b, order):
    kernel = root @ root.T + np.eye(5)
    y = y + np.arange(10).reshape(5, 2) ** 2  # never constant
    with jax.enable_x64(True):
        value = float(kernel_alignment(jnp.array(kernel), jnp.array(y)))
        turn = np.array([[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]])
        same = [
            (a * kernel, y),
            (kernel + b, y),
            (kernel, a * y + b),
            (kernel, y @ turn),
            (kernel[np.ix_(order, order)], y[np.array(order)]),
        ]
        for k, t in same:
            assert float(kernel_alignment(jnp.array(k), jnp.array(t))) == pytest.approx(value)
    assert 0 <= value <= 1 + 1e-9


def test_kernel_regression_interpolates_and_equals_least_squares_for_the_linear_kernel():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (4, 6), jnp.float64)
        new = jax.random.normal(jax.random.key(1), (3, 6), jnp.float64)
        y = jax.random.normal(jax.random.key(2), (4, 2), jnp.float64)
        got = kernel_regression(x @ x.T, y, new @ x.T)
        want = new @ np.linalg.lstsq(np.asarray(x), np.asarray(y))[0]  # minimum norm
        np.testing.assert_allclose(got, want, atol=1e-7)
        np.testing.assert_allclose(kernel_regression(x @ x.T, y, x @ x.T), y, atol=1e-7)


def test_jitter_is_relative_to_the_mean_eigenvalue():
    kernel = jnp.diag(jnp.array([2.0, 4.0]))
    # Ridge 0.5 * tr/n = 1.5.
    np.testing.assert_allclose(
        kernel_weights(kernel, jnp.array([7.0, 11.0]), jitter=0.5), [2.0, 2.0], rtol=1e-6
    )


def test_spectrum_is_ordered_and_holds_all_of_the_task():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (6, 3), jnp.float64)
        y = x @ jnp.array([1.0, 2.0, -1.0])
        values, coefficients = task_spectrum(x @ x.T, y)
        assert (np.diff(values) <= 1e-12).all()
        np.testing.assert_allclose(values.sum(), jnp.trace(x @ x.T) / 6)
        np.testing.assert_allclose(coefficients.sum(), (y**2).mean())
        np.testing.assert_allclose(coefficients[3:], 0, atol=1e-20)  # a linear task of rank 3


def test_movements():
    assert kernel_movement(3 * jnp.eye(2), jnp.eye(2)) == pytest.approx(2.0)
    before, after = LinearModel(jnp.array([3.0, 4.0])), LinearModel(jnp.array([3.0, 9.0]))
    assert parameter_movement(after, before) == pytest.approx(1.0)


class Wide(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return x[:, None, None] * self.weight


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: empirical_ntk(jnp.tanh, jnp.ones((2, 2))), "no floating-point arrays"),
        (lambda: empirical_ntk(Wide(jnp.ones(2)), jnp.ones(2)), "got 3 dimensions"),
        (lambda: empirical_ntk(LinearModel(jnp.ones(2)), jnp.ones((3, 2)), chunk=0), "chunk"),
        (
            lambda: empirical_ntk(LinearModel(jnp.ones(2)), jnp.ones((3, 2)), outputs="sum"),
            "outputs must be",
        ),
        (lambda: kernel_alignment(jnp.eye(3), jnp.ones(4)), r"kernel must be \[4, 4\]"),
        (lambda: kernel_weights(jnp.ones((2, 3)), jnp.ones(2)), "square"),
        (lambda: kernel_weights(jnp.eye(3), jnp.ones(2)), "one row per kernel row"),
        (lambda: kernel_regression(jnp.eye(3), jnp.ones(3), jnp.ones((2, 4))), "cross must be"),
        (lambda: kernel_movement(jnp.eye(3), jnp.eye(2)), "one shape"),
        (
            lambda: parameter_movement(LinearModel(jnp.ones(2)), LinearModel(jnp.ones(3))),
            "same arrays",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
