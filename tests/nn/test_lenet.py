"""The small network with pooling, and the readout of unit vectors, against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from latebloom.nn import LeNet, UnitLinear, UnitMLP


def test_a_pass_by_hand_and_its_gradient():
    net = LeNet(16, 3, key=jax.random.key(0), channels=(2, 3), hidden=4)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    wanted = []
    for image in x:
        maps = image
        for conv in net.convs:
            w, b = np.asarray(conv.weight), np.asarray(conv.bias)
            out = np.stack([
                sum(correlate2d(maps[..., i], w[:, :, i, o], "valid") for i in range(w.shape[2])) + b[o]
                for o in range(w.shape[3])
            ], -1)  # fmt: skip
            h = out.shape[0] // 2
            maps = np.maximum(out.reshape(h, 2, h, 2, -1).max(axis=(1, 3)), 0)
        seen = np.maximum(maps.ravel() @ np.asarray(net.hidden.weight) + np.asarray(net.hidden.bias), 0)  # fmt: skip
        wanted.append(seen @ np.asarray(net.readout.weight) + np.asarray(net.readout.bias))
    call = jax.jit(lambda net, x: net(x))
    np.testing.assert_allclose(call(net, jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: net(x).sum()))(jnp.asarray(x))
    step = np.zeros_like(x)
    step[0, 7, 8, 0] = 1e-2
    slope = (call(net, x + step).sum() - call(net, x - step).sum()) / 2e-2
    assert float(gradient[0, 7, 8, 0]) == pytest.approx(float(slope), abs=5e-3)
    for side in (14, 12, 18):
        with pytest.raises(ValueError, match="side must be a multiple of 4 from 16 on"):
            LeNet(side, 3, key=jax.random.key(0))
    with_unit = LeNet(28, 5, key=jax.random.key(0), readout=UnitLinear)
    assert with_unit.hidden.weight.shape == (320, 50)
    assert jax.eval_shape(with_unit, jnp.zeros((3, 28, 28, 1))).shape == (3, 5)


def test_unit_vectors_do_not_grow_and_zero_is_zero():
    layer = UnitLinear(5, 3, key=jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (4, 5))
    w = np.asarray(layer.weight)
    np.testing.assert_allclose(layer(x), np.asarray(x) @ (w / np.linalg.norm(w, axis=0)), rtol=1e-5)
    gradient = jax.grad(lambda w: jnp.square(_with(layer, w)(x)).sum())(layer.weight)
    np.testing.assert_allclose((np.asarray(gradient) * w).sum(axis=0), 0, atol=1e-4)
    empty = _with(layer, layer.weight.at[:, 1].set(0))
    assert (np.asarray(empty(x))[:, 1] == 0).all()
    assert np.isfinite(jax.grad(lambda w: _with(layer, w)(x).sum())(empty.weight)).all()
    # The square of 300 is beyond float16.
    large = _with(layer, (300 * layer.weight).astype(jnp.float16))(x.astype(jnp.float16))
    assert large.dtype == jnp.float16
    np.testing.assert_allclose(large, layer(x), atol=0.01)


def _with(layer, weight):
    return eqx.tree_at(lambda m: m.weight, layer, weight)


def test_an_mlp_with_a_unit_readout():
    net = UnitMLP(5, (6, 4), 3, key=jax.random.key(3))
    x = jax.random.normal(jax.random.key(4), (2, 5))
    h = np.maximum(np.asarray(net.body(x)), 0)
    w = np.asarray(net.readout.weight)
    np.testing.assert_allclose(net(x), h @ (w / np.linalg.norm(w, axis=0)), rtol=1e-5)
    assert h.shape == (2, 4) and w.shape == (4, 3)
