"""perp_grad against projections worked by hand and the invariants it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from latebloom.optim import perp_grad

vectors = hnp.arrays(np.float32, 6, elements=st.floats(-10, 10, width=32, allow_subnormal=False))


def apply(gradient, weights, **options):
    transform = perp_grad(**options)
    return transform.update(gradient, transform.init(weights), weights)[0]


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_the_result_is_perpendicular_and_as_long_as_the_gradient(g, w):
    out = np.asarray(apply({"w": jnp.asarray(g)}, {"w": jnp.asarray(w)})["w"], np.float64)
    size_g, size_w, size = (np.linalg.norm(v.astype(np.float64)) for v in (g, w, out))
    if size == 0:
        return  # the gradient lay along the weights, or was zero
    assume(size_w > 1e-13 and size_g > 1e-15)  # below, squares leave the range of float32
    assert abs(out @ w) <= 2e-3 * size * size_w
    np.testing.assert_allclose(size, size_g, rtol=1e-3)


def test_weights_too_small_to_point_anywhere_leave_the_gradient_alone():
    g = jnp.arange(1.0, 7.0)
    for w in (jnp.zeros(6), jnp.full(6, 3e-34)):
        np.testing.assert_allclose(apply(g, w), g, rtol=1e-6)
    out = np.asarray(apply(g, jnp.full(6, 1e-12)))
    assert abs(out.sum()) < 1e-2 * np.abs(out).sum()


def test_by_hand():
    g, w = jnp.array([3.0, 4.0]), jnp.array([2.0, 0.0])
    np.testing.assert_allclose(apply(g, w), [0, 5])
    np.testing.assert_allclose(apply(g, w, keep_norm=False), [0, 4])


def test_network_scope_projects_all_parameters_as_one_vector():
    g = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
    w = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([1.0])}
    flat_g, flat_w = np.array([1.0, 2, 3]), np.array([1.0, 0, 1])
    expected = flat_g - (flat_w @ flat_g) / 2 * flat_w
    out = apply(g, w, scope="network", keep_norm=False)
    np.testing.assert_allclose(np.concatenate([out["a"], out["b"]]), expected, rtol=1e-6)


def test_guards_single_elements_zeros_and_parallel_gradients():
    assert apply(jnp.array([3.0]), jnp.array([2.0])) == 3
    np.testing.assert_array_equal(apply(jnp.array([3.0, 1.0]), jnp.zeros(2)), [3, 1])
    w = jnp.array([0.1, 0.7, -0.3])
    np.testing.assert_array_equal(apply(3 * w, w), 0)


def test_minus_the_result_is_a_descent_direction():
    """Proposition 2 of the paper: the inner product with the gradient is not negative."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        g, w = jnp.asarray(rng.normal(size=(2, 50)), jnp.float32)
        assert jnp.vdot(g, apply(g, w)) > 0


def test_it_composes_with_any_optimiser_under_jit():
    transform = optax.chain(perp_grad(), optax.adamw(0.1))
    w = jnp.array([1.0, 2.0, 3.0])
    state = transform.init(w)
    updates, _ = jax.jit(transform.update)(jnp.array([1.0, 0.0, 0.0]), state, w)
    assert np.isfinite(updates).all()


def test_bad_use_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="scope must be"):
        perp_grad("layer")
    transform = perp_grad()
    with pytest.raises(ValueError, match="needs the parameters"):
        transform.update(jnp.ones(3), transform.init(jnp.ones(3)))
