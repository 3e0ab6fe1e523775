"""Convolution over time by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.nn.conv1d import Conv1d


@settings(max_examples=20)  # each shape is compiled
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["same", "causal", "valid"])
)  # fmt: skip
def test_each_output_is_a_sum_over_taps(time, taps, dilation, padding):
    reach = (taps - 1) * dilation
    layer = Conv1d(2, 3, taps, key=jax.random.key(0), dilation=dilation, padding=padding)
    x = np.random.default_rng(time).normal(size=(2, time, 2)).astype(np.float32)
    if padding == "valid" and time <= reach:
        with pytest.raises(ValueError, match=f"at least {reach + 1} steps"):
            layer(jnp.asarray(x))
        return
    before = {"same": reach // 2, "causal": reach, "valid": 0}[padding]
    steps = time - reach if padding == "valid" else time
    expected = np.tile(np.asarray(layer.bias, float), (2, steps, 1))
    for t in range(steps):
        for k in range(taps):
            at = t + k * dilation - before
            if 0 <= at < time:
                expected[:, t] += x[:, at] @ np.asarray(layer.weight[k], float)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-5)


def test_a_causal_one_does_not_see_what_comes():
    layer = Conv1d(1, 1, 3, key=jax.random.key(0), dilation=2, padding="causal")
    x = jax.random.normal(jax.random.key(1), (1, 8, 1))
    seen = jax.jacobian(lambda x: layer(x)[0, :, 0])(x)[:, 0, :, 0]
    assert not np.triu(seen, 1).any()
    assert np.count_nonzero(seen) == 8 + 6 + 4


def test_first_values_and_refusals():
    layer = Conv1d(10, 40, 5, key=jax.random.key(0), use_bias=False)
    assert layer.bias is None
    assert np.abs(layer.weight).max() == pytest.approx(1 / np.sqrt(50), rel=0.01)
    assert layer(jnp.ones((1, 6, 10), jnp.int8)).shape == (1, 6, 40)
    for more, message in (({"padding": "full"}, "causal"), ({"dilation": 0}, "at least 1")):
        with pytest.raises(ValueError, match=message):
            Conv1d(1, 1, 2, key=jax.random.key(0), **more)
