"""Losses against NumPy in the stated formats, closed forms and invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax

from latebloom import losses

logits_strategy = hnp.arrays(
    np.float32, (4, 5), elements=st.floats(-60, 60, width=32, allow_subnormal=False)
)
labels = jnp.array([0, 1, 4, 2], jnp.int32)


@given(hnp.arrays(np.float32, 20, elements=st.floats(-1e5, 1e5, width=32)))
@settings(max_examples=200, deadline=None)
def test_rounding_to_half_is_numpys(x):
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    # Values that float32 hardware flushes to zero are below half of float16's least step anyway.
    np.testing.assert_array_equal(np.asarray(jax.jit(losses.round_to_half)(x)), expected)


@pytest.mark.parametrize("value", [6e-8, 2.9e-8, 3.1e-8, 5.96e-5, 65503.9, 65520.0, -7e4, 0.0])
def test_rounding_to_half_at_its_edges(value):
    with np.errstate(over="ignore"):
        expected = np.float32(np.float16(np.float32(value)))
    assert float(losses.round_to_half(jnp.float32(value))) == expected


@given(logits_strategy)
@settings(max_examples=50, deadline=None)
def test_stablemax_is_the_ratio_of_the_papers_s(z):
    s = np.where(z >= 0, z + 1, 1 / (1 - np.minimum(z, 0).astype(np.float64)))
    expected = s / s.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(losses.stablemax(jnp.asarray(z)), expected, rtol=3e-5)
    nll = -np.log(expected[np.arange(4), np.asarray(labels)])
    np.testing.assert_allclose(
        losses.stablemax_cross_entropy(jnp.asarray(z), labels), nll, rtol=1e-4, atol=1e-5
    )


@given(logits_strategy)
@settings(max_examples=50, deadline=None)
def test_stablemax_keeps_the_order_of_the_logits(z):
    probabilities = np.asarray(losses.stablemax(jnp.asarray(z)))
    for row, p in zip(z, probabilities, strict=True):
        assert (np.diff(p[np.argsort(row)]) >= -1e-7).all()


def test_stablemax_is_not_shift_invariant_but_softmax_is():
    z = jnp.array([[1.0, 2.0, -1.0]])
    np.testing.assert_allclose(jax.nn.softmax(z + 5), jax.nn.softmax(z), rtol=1e-6)
    assert not np.allclose(losses.stablemax(z + 5), losses.stablemax(z), rtol=0.1)


def numpy_half_cross_entropy(z, y):
    """log_softmax in float16 as PyTorch computes it: float32 accumulation, results rounded."""
    half = np.float16
    z = z.astype(half)
    shifted = z - z.max(axis=-1, keepdims=True)
    total = half(np.exp(shifted.astype(np.float32)).astype(half).astype(np.float32).sum(-1))
    log_total = half(np.log(total.astype(np.float32)))
    log_probabilities = shifted - log_total[:, None]
    return -log_probabilities[np.arange(len(y)), y], total


@given(logits_strategy)
@settings(max_examples=100, deadline=None)
def test_half_precision_cross_entropy_is_numpys(z):
    expected, total = numpy_half_cross_entropy(z, np.asarray(labels))
    got = np.asarray(losses.cross_entropy(jnp.asarray(z), labels, "float16"))
    # Exponentials and logarithms may differ in the last float32 bit, so by one float16 step.
    steps = np.spacing(np.maximum(np.abs(expected), np.float16(2**-14))).astype(np.float32)
    assert (np.abs(got - expected.astype(np.float32)) <= 2 * steps).all()
    agree = np.asarray(losses.collapsed(jnp.asarray(z), "float16")) == (total == 1)
    assert agree.all()


def test_half_precision_gradient_is_probability_minus_target_and_keeps_small_terms():
    z = jnp.array([[2.0, 0.0, -3.0]])
    gradient = jax.grad(lambda z: losses.cross_entropy(z, jnp.array([0]), "float16")[0])(z)[0]
    p = np.exp(log_softmax(np.asarray(z[0], np.float64)))
    np.testing.assert_allclose(gradient, p - [1, 0, 0], atol=2e-3)
    mean = jax.grad(lambda z: losses.cross_entropy(z, jnp.array([0]), "float16")[0] / 1000)(z)[0]
    assert float(mean[2]) != 0  # subnormal in float16, not flushed


@pytest.mark.parametrize(("precision", "bits"), [("float16", 10), ("float32", 23), ("float64", 52)])
def test_collapse_begins_where_the_other_term_is_absorbed(precision, bits):
    """1 + exp(-m) rounds to 1 once exp(-m) is below half a unit in the last place of 1."""
    limit = (bits + 1) * np.log(2)
    with jax.enable_x64(precision == "float64"):
        dtype = jnp.float64 if precision == "float64" else jnp.float32
        for margin, expected in ((limit - 0.05, False), (limit + 0.05, True)):
            z = jnp.array([[margin, 0.0]], dtype)
            assert bool(losses.collapsed(z, precision)[0]) is expected
            loss, gradient = jax.value_and_grad(
                lambda z: losses.cross_entropy(z, jnp.array([0]), precision)[0]
            )(z)
            if expected:
                assert loss == 0
                assert gradient[0, 0] == 0


def test_float64_softmax_needs_64_bit_types():
    with pytest.raises(ValueError, match="needs 64-bit types"):
        losses.cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), "float64")
    with pytest.raises(ValueError, match="precision must be"):
        losses.cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), "float8")


def test_squared_error_by_hand():
    loss = losses.mean_squared_error(jnp.array([[0.5, 0.0]]), jnp.array([0]))
    np.testing.assert_allclose(loss, [(0.25 + 0) / 2])


masked = jax.jit(
    jax.value_and_grad(
        lambda z, y, allowed: (lambda each: (each.sum(), each))(
            losses.masked_cross_entropy(z, y, allowed)
        ),
        has_aux=True,
    )
)


@given(logits_strategy, hnp.arrays(bool, (4, 5)), st.sampled_from(["float32", "bfloat16", "float16"]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_masked_cross_entropy_is_that_of_the_allowed_classes_alone(z, allowed, dtype):
    """Class by class, by taking the others out; a label that is not allowed is taken for allowed."""
    given = jnp.asarray(z, dtype)
    (_, found), gradient = masked(given, labels, allowed)
    assert found.dtype == gradient.dtype == given.dtype
    rough = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}[dtype]
    for i, y in enumerate(np.asarray(labels)):
        among = np.flatnonzero(allowed[i] | (np.arange(5) == y))
        part = np.asarray(given, float)[i, among]
        logs, place = log_softmax(part), list(among).index(y)
        np.testing.assert_allclose(float(found[i]), -logs[place], rtol=rough, atol=2 * rough)
        slope = np.zeros(5)
        slope[among] = np.exp(logs) - (among == y)
        np.testing.assert_allclose(np.asarray(gradient[i], float), slope, atol=rough)
        assert not np.asarray(gradient[i], float)[np.setdiff1d(np.arange(5), among)].any()
        if len(among) == 1:
            assert found[i] == 0 and not np.asarray(gradient[i], float).any()


def test_a_mask_may_be_that_of_all_examples():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    one = jnp.array([[True, True, False, False, True]])
    np.testing.assert_array_equal(
        losses.masked_cross_entropy(z, labels, one),
        losses.masked_cross_entropy(z, labels, jnp.repeat(one, 4, 0)),
    )
