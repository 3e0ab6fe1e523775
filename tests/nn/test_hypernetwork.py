"""Hypernetworks against what follows from their equations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.nn import MLP, Conv, Hypernetwork
from latebloom.nn.hypernetwork import encode

KEY = jax.random.key(0)
STANDARD = {"encoding": "none", "residual": False, "start": "fan_in"}


def mlp(widths=(8, 8), activation="relu"):
    return MLP(3, widths, 2, key=KEY, activation=activation)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_encoding_has_constant_length(values):
    values = jnp.array(values)
    assert jnp.linalg.norm(encode(values, "cos_sin")) == pytest.approx(len(values) ** 0.5, rel=1e-5)
    assert encode(values, "complement").sum() == pytest.approx(len(values), rel=1e-5)
    np.testing.assert_array_equal(encode(values, "none"), values)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 0.99), st.sampled_from(["relu", "leaky_relu"]))
def test_the_standard_one_predicts_weights_proportional_to_the_settings(factor, activation):
    hyper = Hypernetwork(mlp(), 2, (16, 16), key=KEY, activation=activation, **STANDARD)
    point = jnp.array([0.3, 0.9])
    both = hyper.weights(jnp.stack([point, factor * point]))
    for leaf in jax.tree.leaves(both):
        np.testing.assert_allclose(leaf[1], factor * leaf[0], rtol=1e-4, atol=1e-6)


def test_the_outputs_of_a_primary_grow_with_a_power_of_the_settings():
    hyper = Hypernetwork(MLP(3, (8, 8), 2, key=KEY, use_bias=False), 1, (16,), key=KEY, **STANDARD)
    x = jax.random.normal(KEY, (5, 3))
    small, large = (hyper.primary(v)(x) for v in (0.25, 0.5))
    np.testing.assert_allclose(large, 2**3 * small, rtol=1e-4)  # three layers of weights


def test_the_invariant_one_changes_weights_by_amounts_of_one_size():
    hyper = Hypernetwork(mlp((64, 64)), 1, (64, 64), key=KEY)
    grid = jnp.linspace(0, 1, 21)[:, None]
    change = jax.tree.map(lambda w, b: w - b, hyper.weights(grid), hyper.base)
    sizes = np.stack([np.std(flat(jax.tree.map(lambda w, i=i: w[i], change))) for i in range(21)])
    assert sizes.max() / sizes.min() < 1.5


def test_each_tensor_is_predicted_by_a_layer_with_its_own_fan_out():
    primary = MLP(30, (40,), 20, key=KEY)
    hyper = Hypernetwork(primary, 1, (256,), key=KEY, activation="relu")
    numbers = [int(np.prod(s)) for s in hyper.shapes]
    parts = np.split(np.asarray(hyper.head.weight), np.cumsum(numbers)[:-1], axis=1)
    for part, n in zip(parts, numbers, strict=True):
        assert part.std() == pytest.approx(np.sqrt(2 / n), rel=0.05)
    assert hyper.head.bias is None
    hidden = Hypernetwork(primary, 64, (512,), key=KEY, activation="relu").hidden[0]
    assert hidden.weight.std() == pytest.approx(np.sqrt(2 / 512), rel=0.05)  # fan-out
    assert (hidden.bias == 0).all()


def test_the_base_is_the_network_that_was_given():
    primary = mlp()
    hyper = Hypernetwork(primary, 1, (16,), key=KEY)
    np.testing.assert_array_equal(flat(hyper.base), flat(primary))
    silent = eqx.tree_at(lambda h: h.head.weight, hyper, jnp.zeros_like(hyper.head.weight))
    x = jax.random.normal(KEY, (4, 3))
    np.testing.assert_allclose(silent.primary(0.7)(x), primary(x), rtol=1e-6)
    bare = Hypernetwork(primary, 1, (16,), key=KEY, residual=False)
    assert bare.base is None
    np.testing.assert_array_equal(bare.head.bias, 0)


@pytest.mark.parametrize("use_bias", [False, True])
def test_hyperfan_in_keeps_the_variance_of_activations(use_bias):
    """With predicted biases too, which else add as much again in every layer."""
    primary = MLP(400, (300, 300, 300), 300, key=KEY, use_bias=use_bias)
    hyper = Hypernetwork(primary, 4, (64,), key=KEY, residual=False, start="hyperfan_in")
    x = jax.random.normal(KEY, (64, 400))
    ratios = []
    for point in jax.random.uniform(jax.random.key(1), (20, 4)):
        seen = hyper.primary(point).preactivations(x)
        ratios.append([float(jnp.square(s).mean()) for s in seen])
    np.testing.assert_allclose(np.mean(ratios, axis=0), 2.0, rtol=0.5)  # a Kaiming start gives 2


def test_several_settings_at_once_are_as_one_by_one():
    hyper = Hypernetwork(
        mlp(), 2, (16, 16), key=KEY, norm="layer", low=[-1.0, 0.0], high=[1.0, 10.0]
    )
    points = jnp.array([[-1.0, 0.0], [0.5, 5.0], [1.0, 10.0]])
    together = hyper.weights(points)
    for i, point in enumerate(points):
        alone = eqx.filter(hyper.primary(point), eqx.is_array)
        np.testing.assert_allclose(
            flat(alone), flat(jax.tree.map(lambda w, i=i: w[i], together)), rtol=1e-5, atol=1e-6
        )


def test_the_range_is_mapped_to_the_unit_interval():
    wide = Hypernetwork(mlp(), 1, (16,), key=KEY, low=-5.0, high=15.0)
    unit = Hypernetwork(mlp(), 1, (16,), key=KEY)
    np.testing.assert_allclose(flat(wide.primary(0.0)), flat(unit.primary(0.25)), rtol=1e-5)


def test_only_the_chosen_leaves_are_predicted():
    primary = mlp()
    biases = jax.tree.map(lambda x: eqx.is_array(x) and x.ndim == 1, primary)
    hyper = Hypernetwork(primary, 1, (16,), key=KEY, predicted=biases)
    assert {s for s in hyper.shapes} == {(8,), (2,)}
    made = hyper.primary(0.3)
    np.testing.assert_array_equal(made.layers[0].weight, primary.layers[0].weight)
    gradient = eqx.filter_grad(lambda h: h.primary(0.3)(jnp.ones((1, 3))).sum())(hyper)
    assert jnp.abs(gradient.kept.layers[0].weight).sum() > 0  # and the others learn as usual
    assert jnp.abs(gradient.base.layers[0].bias).sum() > 0


def test_it_works_on_any_equinox_network():
    primary = eqx.nn.MLP(3, 2, 8, 2, key=KEY)
    hyper = Hypernetwork(primary, 1, (16,), key=KEY, out_axis=0)
    assert hyper.primary(0.5)(jnp.ones(3)).shape == (2,)
    conv = Hypernetwork(Conv(1, 4, 3, key=KEY), 1, (16,), key=KEY, start="hyperfan_in")
    assert conv.primary(0.5)(jnp.ones((2, 6, 6, 1))).shape == (2, 6, 6, 4)


def test_weight_normalisation_is_idle_at_the_start_and_free_of_the_length_of_the_weights():
    normed = Hypernetwork(mlp(), 1, (16, 16), key=KEY, norm="weight")
    plain = Hypernetwork(mlp(), 1, (16, 16), key=KEY)
    np.testing.assert_allclose(
        flat(normed.primary(0.4)), flat(plain.primary(0.4)), rtol=1e-4, atol=1e-6
    )
    longer = eqx.tree_at(lambda h: h.hidden[0].weight, normed, 7 * normed.hidden[0].weight)
    np.testing.assert_allclose(
        flat(longer.primary(0.4)), flat(normed.primary(0.4)), rtol=1e-4, atol=1e-6
    )


def test_batch_normalisation_takes_the_statistics_of_the_settings_in_training():
    hyper = Hypernetwork(mlp(), 1, (16,), key=KEY, norm="batch")
    points = jnp.linspace(0, 1, 8)[:, None]
    assert not np.allclose(flat(hyper.weights(points, train=True)), flat(hyper.weights(points)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "sin"}, "encoding must be one of cos_sin, complement, none, not 'sin'"),
        ({"start": "xavier"}, "start must be one of"),
        ({"norm": "group"}, "norm must be one of"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"low": 1.0, "high": 1.0}, "setting 0 must have a finite low < high"),
        ({"high": float("inf")}, "setting 0 must have a finite low < high"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Hypernetwork(mlp(), 1, (16,), key=KEY, **options)


def test_settings_outside_of_the_range_are_refused():
    hyper = Hypernetwork(mlp(), 2, (16,), key=KEY, high=[1.0, 5.0])
    with pytest.raises(ValueError, match=r"setting 1 is 6, outside of its range \[0, 5\]"):
        hyper.primary([0.5, 6.0])
    with pytest.raises(ValueError, match="settings must be 2 numbers"):
        hyper.primary(0.5)
    with pytest.raises(ValueError, match="a hypernetwork needs"):
        Hypernetwork(mlp(), 0, (16,), key=KEY)
    nothing = jax.tree.map(lambda x: False, mlp())
    with pytest.raises(ValueError, match="nothing to predict"):
        Hypernetwork(mlp(), 1, (16,), key=KEY, predicted=nothing)


def test_settings_that_cannot_be_are_refused_wherever_they_come_in():
    hyper = Hypernetwork(mlp(), 2, (16,), key=KEY, low=-1.0)
    for values, says in (
        ([[0.5]], r"2 numbers each, \[b, 2\], not of shape \[1, 1\]"),
        ([0.5, 0.5], "not of shape"),
        ([[0.5, 0.5], [0.5, 1.5]], "setting 1 is 1.5, outside of its range"),
        ([[np.nan, 0.5]], "setting 0 is nan"),
    ):
        with pytest.raises(ValueError, match=says):
            hyper.weights(jnp.asarray(values))
    for values in (0.5, [0.5], [0.5, 2.0], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="setting"):
            hyper.primary(values)
    with pytest.raises(ValueError, match="not of shape"):
        eqx.filter_jit(hyper.weights)(jnp.ones((3, 1)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_predicted_weights_have_the_precision_of_the_primary_s(dtype):
    primary = MLP(3, (8,), 2, key=KEY, dtype=dtype)
    for residual in (True, False):
        hyper = Hypernetwork(primary, 1, (16,), key=KEY, residual=residual)
        made = hyper.primary(0.5)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(eqx.filter(made, eqx.is_array))} == {
            dtype
        }
        assert made(jnp.ones((4, 3), dtype)).dtype == dtype
