"""The convolution against brute force, and its gradients against autodiff of XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from scipy.signal import correlate

from latebloom.nn import conv
from latebloom.nn.conv import Conv, conv2d


def reference(x, w, strides, padding, groups):
    return lax.conv_general_dilated(
        x,
        w,
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def draw(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_same_gradients(x, w, stride, padding, groups=1):
    """Value and both gradients equal XLA's to rounding."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    pads = ((padding, padding),) * 2 if isinstance(padding, int) else padding

    @jax.jit
    def both(x, w):
        want, pull = jax.vjp(lambda x, w: reference(x, w, strides, pads, groups), x, w)
        got, ours = jax.vjp(
            lambda x, w: conv2d(x, w, stride=stride, padding=padding, groups=groups), x, w
        )
        dy = draw(*want.shape, seed=3, dtype=want.dtype)
        return (got, *ours(dy)), (want, *pull(dy))

    for mine, truth in zip(*both(x, w), strict=True):
        np.testing.assert_allclose(mine, truth, atol=1e-3, rtol=1e-3)


def test_value_is_scipys_correlation():
    x, w, b = draw(2, 6, 7, 3), draw(3, 2, 3, 4, seed=1), draw(4, seed=2)
    got = conv2d(x, w, b, padding="VALID")
    for n in range(2):
        for o in range(4):
            planes = [correlate(x[n, :, :, c], w[:, :, c, o], mode="valid") for c in range(3)]
            np.testing.assert_allclose(got[n, :, :, o], sum(planes) + b[o], atol=1e-5)


def test_strided_padded_groups_by_brute_force():
    x, w = draw(1, 5, 4, 4), draw(3, 2, 2, 6, seed=1)
    got = conv2d(x, w, stride=(2, 1), padding=((1, 2), (0, 1)), groups=2)
    padded = np.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))
    want = np.zeros((1, 3, 4, 6))
    for i, j, o in np.ndindex(3, 4, 6):
        block = padded[0, 2 * i : 2 * i + 3, j : j + 2, 2 * (o // 3) : 2 * (o // 3) + 2]
        want[0, i, j, o] = np.sum(block * w[:, :, :, o])
    np.testing.assert_allclose(got, want, atol=1e-5)


# Which of the ways to compute a product is taken depends on sizes; make small cases take each.
WAYS = {
    "pairs": {},
    "patches": {"_PAIR_CHANNELS": 0},
    "strip": {"_PAIR_CHANNELS": 0, "_PATCH_BYTES": 0},
    "chunks": {"_PAIR_CHANNELS": 0, "_CHUNK_BYTES": 1},
}


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_gradients_are_autodiffs(way, data):
    batch, height, width = (data.draw(st.integers(1, n)) for n in (3, 9, 9))
    kernel = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    per_group = data.draw(st.integers(1, 2))
    low = [max(0, k - n) for k, n in zip(kernel, (height, width), strict=True)]
    explicit = tuple((data.draw(st.integers(n, n + 2)), data.draw(st.integers(0, 5))) for n in low)
    padding = data.draw(st.sampled_from(["SAME", explicit]))
    x = draw(batch, height, width, groups * per_group)
    w = draw(*kernel, per_group, groups * data.draw(st.integers(1, 2)), seed=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(conv, name, value)
        assert_same_gradients(x, w, stride, padding, groups)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "groups"),
    [
        ((64, 16, 16, 32), (3, 3, 32, 32), 1, "SAME", 1),  # convolved as a strip
        ((64, 17, 16, 16), (3, 3, 16, 24), 2, 1, 1),
        ((64, 28, 28, 1), (5, 5, 1, 8), 1, 2, 1),
        ((8, 9, 9, 16), (1, 1, 16, 8), 2, "VALID", 1),
        ((8, 9, 8, 6), (3, 3, 1, 12), 2, "SAME", 6),  # depthwise, two outputs a channel
    ],
)
def test_gradients_at_the_sizes_of_networks(shape, kernel, stride, padding, groups):
    assert_same_gradients(draw(*shape), draw(*kernel, seed=1) / 9, stride, padding, groups)


def test_bias_gradient_and_a_compiled_loop():
    layer = Conv(2, 3, 3, key=jax.random.key(0))
    x = draw(4, 5, 5, 2)

    def loss(layer):
        return jnp.sum(layer(x) ** 2)

    def step(layer, _):
        return jax.tree.map(lambda p, g: p - 1e-3 * g, layer, jax.grad(loss)(layer)), loss(layer)

    trained, losses = jax.jit(lambda layer: lax.scan(step, layer, length=5))(layer)
    assert np.all(np.diff(losses) < 0)
    y = layer(x)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(layer).bias, 2 * y.sum((0, 1, 2)), rtol=1e-4)
    assert trained.weight.shape == (3, 3, 2, 3)


def test_vmap_and_second_derivatives():
    xs, w = draw(3, 2, 5, 5, 2), draw(3, 3, 2, 2, seed=1)
    mapped = jax.jit(jax.vmap(conv2d, (0, None)))(xs, w)
    np.testing.assert_allclose(mapped, jnp.stack([conv2d(x, w) for x in xs]), atol=1e-5)

    def bend(f):
        slope = jax.grad(lambda w: jnp.sum(jnp.tanh(f(xs[0], w))))
        return jax.jit(jax.grad(lambda w: jnp.sum(slope(w) ** 2)))(w)

    want = bend(lambda x, w: reference(x, w, (1, 1), "SAME", 1))
    np.testing.assert_allclose(bend(conv2d), want, atol=1e-3, rtol=1e-3)


def test_float64_is_exact_and_bfloat16_keeps_its_type():
    with jax.enable_x64(True):
        x, w = draw(2, 5, 5, 3, dtype=np.float64), draw(3, 3, 3, 2, seed=1, dtype=np.float64)
        want = reference(x, w, (1, 1), "SAME", 1)
        np.testing.assert_allclose(conv2d(x, w), want, rtol=1e-13, atol=1e-13)
    half = conv2d(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), want, atol=0.15)


def test_initial_weights_fill_the_bound():
    layer = Conv(8, 64, 3, groups=2, key=jax.random.key(1))
    bound = 1 / np.sqrt(3 * 3 * 4)
    assert layer.weight.shape == (3, 3, 4, 64) and layer.bias.shape == (64,)
    assert 0.98 * bound < np.abs(layer.weight).max() <= bound
    assert abs(float(layer.weight.mean())) < 0.05 * bound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": np.zeros((3, 3, 4, 2), np.float32)}, "does not fit x"),
        ({"groups": 3}, "groups=3"),
        ({"w": np.zeros((3, 3, 2, 2), np.float16)}, "float dtype"),
        ({"stride": 0}, "stride must be"),
        ({"padding": "same"}, "padding must be"),
        ({"padding": -1}, "negative"),
        ({"x": np.zeros((1, 2, 2, 2), np.float32), "padding": "VALID"}, "larger than the padded"),
    ],
)
def test_bad_inputs_are_named(change, message):
    good = {"x": np.zeros((1, 5, 5, 2), np.float32), "w": np.zeros((3, 3, 2, 2), np.float32)}
    with pytest.raises(ValueError, match=message):
        conv2d(**{k: jnp.asarray(v) if k in "xwb" else v for k, v in (good | change).items()})


def test_groups_must_divide():
    with pytest.raises(ValueError, match="must divide"):
        Conv(3, 4, 3, groups=2, key=jax.random.key(0))
