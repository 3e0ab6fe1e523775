"""MLP and transformer against explicit formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from latebloom import nn

KEY = jax.random.key(0)


def test_mlp_is_its_formula():
    model = nn.MLP(4, (6, 5), 3, key=KEY, logit_scale=2.5)
    x = jax.random.normal(jax.random.key(1), (7, 4))
    h = np.asarray(x)
    for layer in model.layers[:-1]:
        h = np.maximum(h @ layer.weight + layer.bias, 0)
    expected = 2.5 * (h @ model.layers[-1].weight + model.layers[-1].bias)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    assert [z.shape for z in model.preactivations(x)] == [(7, 6), (7, 5), (7, 3)]


def test_indices_stand_for_sums_of_one_hot_vectors():
    model = nn.MLP(10, (6,), 3, key=KEY, use_bias=False, one_hot=True)
    plain = nn.MLP(10, (6,), 3, key=KEY, use_bias=False)
    index = jnp.array([[0, 7], [3, 3]])
    one_hot = jax.nn.one_hot(index, 10).sum(axis=1)
    np.testing.assert_allclose(model(index), plain(one_hot), rtol=1e-6)
    for_index = jax.grad(lambda m: model_loss(m, index), allow_int=True)(model)
    for_one_hot = jax.grad(lambda m: model_loss(m, one_hot), allow_int=True)(plain)
    np.testing.assert_allclose(
        for_index.layers[0].weight, for_one_hot.layers[0].weight, rtol=1e-5, atol=1e-7
    )


def test_whole_numbers_are_features_like_any_others():
    model = nn.MLP(4, (6,), 3, key=KEY)
    x = jnp.array([[0, 1, 2, 255], [3, 3, 3, 3]], jnp.uint8)
    np.testing.assert_array_equal(model(x), model(x.astype(jnp.float32)))
    with pytest.raises(TypeError, match="indices, whole numbers"):
        nn.OneHotLinear(4, 2, key=KEY)(x.astype(jnp.float32))


def model_loss(model, x):
    return jnp.square(model(x)).sum()


def test_initial_weights_are_uniform_within_one_over_root_fan_in():
    model = nn.MLP(400, (300,), 10, key=KEY, init_scale=3.0)
    weight = np.asarray(model.layers[0].weight)
    assert np.abs(weight).max() <= 3 / 20
    np.testing.assert_allclose(weight.std(), 3 / 20 / np.sqrt(3), rtol=0.01)
    assert np.abs(np.asarray(model.layers[0].bias)).max() <= 3 / 20


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * norm.scale + norm.shift


def attention_by_hand(block, x):
    batch, n, size = x.shape
    q, k, v = np.split(x @ block.query_key_value.weight + block.query_key_value.bias, 3, axis=-1)
    d = size // block.heads
    out = np.zeros_like(x)
    for b in range(batch):
        for h in range(block.heads):
            part = slice(h * d, (h + 1) * d)
            scores = q[b, :, part] @ k[b, :, part].T / np.sqrt(d)
            out[b, :, part] = softmax(scores, axis=-1) @ v[b, :, part]
    return out @ block.out.weight + block.out.bias


@pytest.mark.parametrize("pre_norm", [False, True])
def test_transformer_is_its_formula(pre_norm):
    model = nn.Transformer(
        11, 5, key=KEY, size=8, heads=2, hidden=16, pre_norm=pre_norm, positions=3
    )
    tokens = jnp.array([[1, 2, 3], [4, 0, 10]])
    block = model.blocks[0]
    x = np.asarray(model.embedding[tokens] + model.position)

    def feed(h):
        return np.maximum(h @ block.up.weight + block.up.bias, 0) @ block.down.weight + (
            block.down.bias
        )

    first, second = block.norms
    if pre_norm:
        x = x + attention_by_hand(block, layer_norm(x, first))
        x = x + feed(layer_norm(x, second))
    else:
        x = layer_norm(x + attention_by_hand(block, x), first)
        x = layer_norm(x + feed(x), second)
    expected = x[:, -1] @ model.readout.weight + model.readout.bias
    np.testing.assert_allclose(model(tokens), expected, rtol=2e-4, atol=2e-5)


def test_dropout_only_in_training_and_keeps_the_mean():
    model = nn.Transformer(5, 3, key=KEY, size=8, heads=2, hidden=16, dropout=0.3)
    x = jnp.array([[0, 1]])
    np.testing.assert_array_equal(model(x, key=KEY), model(x))
    assert not np.allclose(model(x, key=KEY, train=True), model(x))
    from latebloom.nn.transformer import dropped

    kept = dropped(jnp.ones(200_000), 0.3, KEY)
    np.testing.assert_allclose(kept.mean(), 1, atol=0.01)


def test_bad_settings_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="activation must be one of relu"):
        nn.MLP(2, (2,), 2, key=KEY, activation="rlu")
    with pytest.raises(ValueError, match="norm must be None or 'batch'"):
        nn.MLP(2, (2,), 2, key=KEY, norm="layer")
    with pytest.raises(ValueError, match="size must be a multiple of heads"):
        nn.Transformer(5, 5, key=KEY, size=10, heads=4)


def test_scale_and_activation_are_not_trained():
    leaves = jax.tree.leaves(eqx.filter(nn.MLP(2, (3,), 2, key=KEY, logit_scale=4.0), eqx.is_array))
    assert len(leaves) == 4
