"""Against sums over windows, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import nn


def convolved(x, weight, bias, stride):
    """Cross-correlation [h, w, in] with zeros around, centred as XLA's "SAME" does."""
    h, w, _ = x.shape
    out = -(-h // stride), -(-w // stride)
    before = [max((o - 1) * stride + 3 - n, 0) // 2 for o, n in zip(out, (h, w), strict=True)]
    padded = np.pad(x, ((before[0], 3), (before[1], 3), (0, 0)))
    return np.array([
        [np.tensordot(padded[stride * i :, stride * j :][:3, :3], weight, 3) + bias
         for j in range(out[1])] for i in range(out[0])
    ])  # fmt: skip


def test_a_small_image_by_hand():
    model = nn.ConvNet(4, 5, key=jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, 6, 8, 1)))
    assert [layer.weight.shape[-1] for layer in model.layers] == [2, 4, 8]
    wanted = []
    for image in x:
        for layer, stride in zip(model.layers, (1, 2, 2), strict=True):
            image = convolved(image, np.asarray(layer.weight), np.asarray(layer.bias), stride)
            image = np.where(image > 0, image, 0.01 * image)
        readout = model.readout
        wanted.append(image.mean((0, 1)) @ np.asarray(readout.weight) + np.asarray(readout.bias))
    np.testing.assert_allclose(model(jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-5)


def test_it_normalises_before_each_activation():
    model = nn.ConvNet(4, 5, key=jax.random.key(0), norm="batch")
    x = jax.random.normal(jax.random.key(1), (3, 6, 8, 1))
    h = x
    for layer, norm in zip(model.layers, model.norms, strict=True):
        h = layer(h)
        h = (h - h.mean((0, 1, 2))) / np.sqrt(h.var((0, 1, 2)) + norm.eps)
        h = jax.nn.leaky_relu(h)
    np.testing.assert_allclose(
        model(x, train=True), model.readout(h.mean((1, 2))), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="norm must be None or 'batch', not 'layer'"):
        nn.ConvNet(4, 5, key=jax.random.key(0), norm="layer")
