"""The residual network: its layout, its norm inside a compiled loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from latebloom.core.statistics import batch_statistics, update_statistics
from latebloom.nn.conv import conv2d
from latebloom.nn.resnet import ResidualBlock, ResNet


def test_parameters_of_preact_resnet_18():
    model = eqx.filter_eval_shape(
        lambda key: ResNet(3, width=64, norm="batch", key=key), jax.random.key(0)
    )
    leaves = jax.tree_util.tree_leaves_with_path(model)
    trained = [leaf for path, leaf in leaves if path[-1].name not in ("mean", "variance")]
    # 11,171,146 is what the usual PyTorch version counts, which lacks the last norm (2 x 512).
    assert sum(leaf.size for leaf in trained) == 11_171_146 + 1024


def test_a_block_by_hand():
    block = ResidualBlock(2, 3, 2, False, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 2))
    h = jnp.maximum(x, 0)
    first, second = block.first, block.second
    inner = jnp.maximum(conv2d(h, first.weight, first.bias, stride=2), 0)
    want = h[:, ::2, ::2] @ block.shortcut.weight[0, 0]
    want += conv2d(inner, second.weight, second.bias)
    np.testing.assert_allclose(block(x), want, atol=1e-5)


def test_it_learns_inside_a_scan():
    model = ResNet(1, 2, width=4, blocks_per_stage=(1, 1), norm="batch", key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    y = (x.mean((1, 2, 3)) > 0).astype(int)

    def loss(model):
        with batch_statistics(model) as seen:
            logits = model(x, train=True)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(16), y]), seen

    def step(model, _):
        (value, seen), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        model = jax.tree.map(lambda p, g: p - 0.3 * g, model, grads)
        return update_statistics(model, seen), value

    trained, losses = jax.jit(lambda model: lax.scan(step, model, length=100))(model)
    assert losses[-1] < 0.7 * losses[0]
    # The running statistics have followed those of the batch.
    assert np.corrcoef(trained(x)[:, 0], trained(x, train=True)[:, 0])[0, 1] > 0.99


def test_without_norm():
    model = ResNet(3, 5, width=4, blocks_per_stage=(1, 2), key=jax.random.key(0))
    assert jax.jit(lambda x: model(x))(jnp.ones((2, 7, 9, 3))).shape == (2, 5)


def test_unknown_norm():
    with pytest.raises(ValueError, match="norm must be"):
        ResNet(1, norm="layer", key=jax.random.key(0))
