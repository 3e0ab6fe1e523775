import math
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.nn import MLP, BatchNorm, ResNet
from latebloom.nn.masks import (
    as_ratio,
    dense_masks,
    dense_matrices,
    density,
    empty_layers,
    kept,
    layer_densities,
    layer_names,
    masked,
    named_masks,
    prune_by_magnitude,
    pruned_count,
    shuffled_masks,
)


def drawn(make):
    """A network with normal weights, made without compiling anything."""
    rng, shapes = np.random.default_rng(0), eqx.filter_eval_shape(make, jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype) if hasattr(x, "shape") else x, shapes
    )  # fmt: skip


def mlp(widths=(5,), inputs=4, outputs=3):
    return drawn(lambda key: MLP(inputs, widths, outputs, key=key, norm="batch"))


def small_resnet(key):
    return ResNet(1, key=key, width=4, blocks_per_stage=(1, 1), norm="batch")


_prune, _shuffle = eqx.filter_jit(prune_by_magnitude), eqx.filter_jit(shuffled_masks)


def with_weights(model, *weights):
    return eqx.tree_at(
        lambda m: [layer.weight for layer in m.layers], model, list(map(jnp.asarray, weights))
    )


def brute_force(weights, masks, fraction):
    """One sorted vector of what is left, with Python's own whole numbers."""
    left = sorted(abs(w) for W, M in zip(weights, masks, strict=True) for w, m in zip(W.flat, M.flat, strict=True) if m)  # fmt: skip
    place = math.ceil(Fraction(str(fraction)) * len(left))
    threshold = left[min(place, len(left) - 1)]
    return [M & (np.abs(W) > threshold) for W, M in zip(weights, masks, strict=True)]


def test_masks_cover_weights_of_convolutions_and_affine_maps_only():
    net = drawn(small_resnet)
    names = layer_names(dense_masks(net))
    assert names == (
        "stem", "blocks[0].first", "blocks[0].second", "blocks[1].first", "blocks[1].second",
        "blocks[1].shortcut", "readout",
    )  # fmt: skip
    layers = [eqx.nn.LayerNorm((2, 2, 2)), eqx.nn.Lambda(jnp.ravel)]
    masks = dense_masks(drawn(lambda key: eqx.nn.Sequential(
        [eqx.nn.Conv2d(1, 2, 3, key=key), *layers, eqx.nn.MLP(8, 3, 5, 1, key=key)]
    )))  # fmt: skip
    assert [m.shape for m in jax.tree.leaves(masks)] == [(2, 1, 3, 3), (5, 8), (3, 5)]
    assert float(density(masks)) == 1.0


def test_layers_can_be_left_out_by_name():
    net = drawn(small_resnet)
    names = layer_names(dense_masks(net, ignore=("readout", "blocks[1]")))
    assert names == ("stem", "blocks[0].first", "blocks[0].second")
    with pytest.raises(ValueError, match="no layer 'head' in it; layers: stem, "):
        dense_masks(net, ignore=("head",))
    with pytest.raises(ValueError, match="nothing to prune"):
        dense_masks(BatchNorm(3))


def test_a_case_worked_by_hand():
    """Ten weights, of which a fifth goes: sorted magnitudes 0 1 2 3 4 5 6 7 8 9, entry 2 is 2."""
    model = with_weights(
        mlp((2,), 2, 3), [[-4.0, 9.0], [0.0, -2.0]], [[1.0, -6.0, 3.0], [-8.0, 5.0, 7.0]]
    )
    masks = prune_by_magnitude(model, dense_masks(model), 0.2)
    first, second = jax.tree.leaves(masks)
    assert first.tolist() == [[True, True], [False, False]]
    assert second.tolist() == [[False, True, True], [True, True, True]]
    # Seven are left: 3 4 5 6 7 8 9. ceil(1.4) = 2, so that 3, 4 and 5 go.
    first, second = jax.tree.leaves(prune_by_magnitude(model, masks, 0.2))
    assert first.tolist() == [[False, True], [False, False]]
    assert second.tolist() == [[False, True, False], [True, False, True]]


def test_what_is_pruned_is_zero_and_the_rest_untouched():
    model = mlp((6,))
    masks = _prune(model, dense_masks(model), jnp.float32(0.5))
    thinned = masked(model, masks)
    for layer, old, mask in zip(thinned.layers, model.layers, jax.tree.leaves(masks), strict=True):
        np.testing.assert_array_equal(layer.weight, np.where(mask, old.weight, 0))
        np.testing.assert_array_equal(layer.bias, old.bias)
    np.testing.assert_array_equal(thinned.norms[0].scale, model.norms[0].scale)
    for tensor, layer in zip(kept(model, masks), thinned.layers, strict=True):
        np.testing.assert_array_equal(tensor, layer.weight)


@pytest.mark.parametrize(
    ("n", "fraction"),
    [
        (10_005, 0.2001),
        (100, 0.2),
        (35, 0.2),
        (3, 1 / 3),
        (30, 0.1),
        (266_200, 0.2),
        (999_999, 0.3001),
    ],
)
def test_the_count_is_exact_for_the_fraction_that_is_meant(n, fraction):
    """0.2 of 35 is 7, whatever 0.2 is in floating point; 0.2001 of 10,005 is a little above 2,002."""
    exact = -(-n * Fraction(str(fraction) if fraction != 1 / 3 else "1/3") // 1)
    assert int(pruned_count(n, fraction)) == exact
    assert int(jax.jit(lambda left: pruned_count(left, fraction))(n)) == exact
    assert as_ratio(fraction) and as_ratio(np.pi / 4) is None


def test_matrices_without_a_mask_are_named():
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(3, 4, key=jax.random.key(0)), eqx.nn.Embedding(5, 2, key=jax.random.key(0))]
    )
    masks = dense_masks(model)
    assert dense_matrices(model, masks) == ("layers[1].weight",)


def test_ties_and_exact_zeros_go_together():
    model = with_weights(mlp((2,), 2, 3), [[0.0, 0.0], [0.0, 0.0]], [[0, 0, 1.0], [1.0, 2.0, 3.0]])
    first, second = jax.tree.leaves(prune_by_magnitude(model, dense_masks(model), 0.1))
    assert not first.any()  # entry 1 is 0, and so are five others
    assert second.tolist() == [[False, False, True], [True, True, True]]
    first, second = jax.tree.leaves(prune_by_magnitude(model, dense_masks(model), 0.55))
    assert second.tolist() == [[False, False, False], [False, True, True]]  # both ones


def test_an_emptied_layer_is_told():
    model = with_weights(mlp((2,), 2, 3), [[0.1, 0.1], [0.1, 0.1]], np.ones((2, 3)))
    masks = prune_by_magnitude(model, dense_masks(model), 0.3)
    assert empty_layers(masks) == ("layers[0]",)
    assert layer_densities(masks) == {"layers[0]": 0.0, "layers[1]": 1.0}
    last = prune_by_magnitude(model, masks, 0.99)
    assert empty_layers(last) == ("layers[0]", "layers[1]")
    assert float(density(last)) == 0.0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2])
def test_a_fraction_outside_0_1_is_refused(fraction):
    model = mlp()
    with pytest.raises(ValueError, match="between 0 and 1"):
        prune_by_magnitude(model, dense_masks(model), fraction)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from((0.05, 0.1, 0.2, 0.3, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)),
    st.booleans(),
)  # fmt: skip
def test_rounds_equal_brute_force(seed, fraction, coarse):
    rng = np.random.default_rng(seed)
    shapes = ((4, 5), (5, 3))
    model, masks = mlp(), dense_masks(mlp())
    own = [np.ones(shape, bool) for shape in shapes]
    for _ in range(4):
        draws = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        draws = [draw.round(1) for draw in draws] if coarse else draws
        masks = _prune(with_weights(model, *draws), masks, jnp.float32(fraction))
        if not any(m.any() for m in own):
            break
        own = brute_force(draws, own, fraction)
        for mine, theirs in zip(jax.tree.leaves(masks), own, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_large_counts_are_exact():
    """266,200 weights of LeNet-300-100, a fifth of them: 53,240 and the one at the threshold."""
    model = drawn(lambda key: MLP(784, (300, 100), 10, key=key))
    masks, left = dense_masks(model), 266_200
    for _ in range(3):
        masks = _prune(model, masks, jnp.float32(0.2))
        left -= math.ceil(Fraction(1, 5) * left) + 1
        ties = left - int(sum(m.sum() for m in jax.tree.leaves(masks)))
        assert 0 <= ties <= 2  # float32 draws may tie


def test_random_masks_keep_each_layers_density():
    model = mlp((40, 30), 20)
    masks = _prune(model, dense_masks(model), jnp.float32(0.6))
    random = _shuffle(masks, jax.random.key(1))
    assert layer_densities(random) == layer_densities(masks)
    same = [np.mean(a == b) for a, b in zip(*map(jax.tree.leaves, (random, masks)), strict=True)]
    expected = [p**2 + (1 - p) ** 2 for p in map(float, layer_densities(masks).values())]
    np.testing.assert_allclose(same, expected, atol=0.12)
    other = _shuffle(masks, jax.random.key(2))
    assert not eqx.tree_equal(random, other)
    assert named_masks(random).keys() == named_masks(masks).keys()


def test_what_is_pruned_is_0_whatever_it_was():
    model = mlp()
    masks = jax.tree.map(lambda flag: flag.at[0].set(False), dense_masks(model))
    first, second = (layer.weight for layer in model.layers)
    broken = with_weights(model, first.at[0].set(jnp.nan), second.at[0].set(-jnp.inf))
    for one, other in zip(kept(broken, masks), kept(model, masks), strict=True):
        np.testing.assert_array_equal(one, other)
    assert eqx.tree_equal(masked(broken, masks), masked(model, masks))
    slopes = jax.grad(lambda m: sum((w**2).sum() for w in kept(m, masks)))(eqx.filter(broken, eqx.is_inexact_array))  # fmt: skip
    assert not slopes.layers[0].weight[0].any() and slopes.layers[0].weight[1].all()
