"""perp_grad against projections worked by hand and the invariants it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
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
    lost = float(
        jnp.finfo(jnp.float32).tiny
    )  # of an entry too small for single precision: all of it
    assert abs(out @ w) <= 2e-3 * size * size_w + lost * np.abs(w.astype(np.float64)).sum()
    np.testing.assert_allclose(size, size_g, rtol=1e-3, atol=lost * g.size)


def test_entries_too_small_for_single_precision_are_the_only_thing_lost():
    # found by the property above: five of the six projected entries are below the smallest normal
    g = np.full(6, 3.6978924e-38, np.float32)
    w = np.float32([1, 2, 2, 2, 2, 2])
    out = np.asarray(apply({"w": jnp.asarray(g)}, {"w": jnp.asarray(w)})["w"], np.float64)
    np.testing.assert_allclose(out, in_numpy(g, w), atol=jnp.finfo(jnp.float32).tiny, rtol=1e-5)


def in_numpy(g, w, keep_norm=True):
    """The same in double precision, where nothing here is too large or too small to be squared."""
    g, w = np.asarray(g, float), np.asarray(w, float)
    out = g - (w @ g) / (w @ w) * w
    return out * np.linalg.norm(g) / np.linalg.norm(out) if keep_norm else out


@pytest.mark.parametrize("keep_norm", [True, False])
@pytest.mark.parametrize("scope", ["tensor", "network"])
@pytest.mark.parametrize(
    ("dtype", "sizes", "close"),
    [
        (jnp.float32, (1e-30, 1e-12, 1.0, 1e12, 1e30), 1e-5),
        (jnp.bfloat16, (1e-30, 1e-12, 1.0, 1e12, 1e30), 2e-2),
        (jnp.float16, (1e-3, 1.0, 1e4), 2e-3),
    ],
)
def test_gradients_and_weights_may_be_of_any_size_and_precision(
    dtype, sizes, close, scope, keep_norm
):
    rng = np.random.default_rng(0)
    for size_g in sizes:
        for size_w in sizes:
            g, w = (jnp.asarray(rng.normal(size=200) * x, dtype) for x in (size_g, size_w))
            out = apply({"w": g}, {"w": w}, scope=scope, keep_norm=keep_norm)["w"]
            assert out.dtype == dtype
            expected = in_numpy(g, w, keep_norm)
            np.testing.assert_allclose(
                np.asarray(out, float), expected, atol=close * np.abs(expected).max()
            )


def test_weights_that_are_zero_leave_the_gradient_alone_in_every_precision():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        for scope in ("tensor", "network"):
            g = jnp.arange(1.0, 7.0, dtype=dtype)
            np.testing.assert_array_equal(apply(g, jnp.zeros(6, dtype), scope=scope), g)
            np.testing.assert_array_equal(apply(0 * g, g, scope=scope), 0 * g)


@pytest.mark.parametrize("scope", ["tensor", "network"])
def test_leaves_that_are_not_trained_pass(scope):
    """Frozen and integer leaves, as `eqx.filter_grad` leaves them: None beside an array."""
    w = {"w": jnp.array([2.0, 0.0]), "frozen": jnp.ones(3), "rows": jnp.arange(4), "none": None}
    g = {"w": jnp.array([3.0, 4.0]), "frozen": None, "rows": None, "none": None}
    out = apply(g, w, scope=scope)
    np.testing.assert_allclose(out["w"], [0, 5])
    assert out["frozen"] is None and out["rows"] is None
    whole = jax.grad(lambda w: w["w"].sum() * 1.0, allow_int=True)({"w": w["w"], "rows": w["rows"]})
    assert (
        apply(whole, {"w": w["w"], "rows": w["rows"]}, scope=scope)["rows"].dtype
        == jax.dtypes.float0
    )


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
