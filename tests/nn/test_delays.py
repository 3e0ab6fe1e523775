"""Delays by brute force in NumPy; the kernel is that of DCLS (benchmarks/recurrent_against_pytorch.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.nn.delays import Delays, delay_kernel, delayed


def by_hand(x, kernel, after):
    """y[b, t, o] = sum over d and i of x[b, t - d, i] kernel[d, i, o]."""
    batch, time, _ = x.shape
    y = np.zeros((batch, time + after, kernel.shape[2]))
    for t in range(time + after):
        for d in range(len(kernel)):
            if 0 <= t - d < time:
                y[:, t] += x[:, t - d] @ kernel[d]
    return y


@settings(max_examples=12)  # each shape is compiled
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 12), st.integers(0, 5))
def test_delaying_is_a_sum_over_the_past(time, taps, after, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(2, time, 3)), rng.normal(size=(taps, 3, 2))
    found = delayed(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), after)
    np.testing.assert_allclose(found, by_hand(x, kernel, after), atol=1e-5)


@pytest.mark.parametrize("sigma", [12.0, 0.23, -0.23])
def test_the_kernel_is_that_of_dcls(sigma):
    """There taps count from the past to now, and positions from the middle one."""
    with np.load(Path(__file__).with_name("recurrent.npz")) as part:
        weight, position = part["dcls/weight"].T, part["dcls/position"].T  # [inputs, outputs]
        expected = part[f"dcls/{abs(sigma)}"].transpose(2, 1, 0)[::-1]
    delay = 24 - (position + 12)
    found = delay_kernel(jnp.asarray(weight), jnp.asarray(delay), 25, sigma)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found.sum(0), weight, rtol=1e-3)


def test_whole_delays_are_one_tap():
    weight, delay = jnp.array([[2.0, -1.0]]), jnp.array([[3.4, 9.0]])
    kernel = delay_kernel(weight, delay, 6, None)
    assert kernel[3, 0, 0] == 2 and kernel[5, 0, 1] == -1 and np.count_nonzero(kernel) == 2
    x = jnp.zeros((1, 4, 1)).at[0, 1, 0].set(1.0)
    found = delayed(x, kernel, after=5)
    expected = np.zeros((1, 9, 2))
    expected[0, 4, 0], expected[0, 6, 1] = 2, -1
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # The narrow density is nearly that.
    close = delay_kernel(weight, jnp.array([[3.0, 5.0]]), 6, 0.0)
    assert close[3, 0, 0] == pytest.approx(2, abs=0.01)


def test_slopes_are_finite_differences():
    layer = Delays(2, 3, 7, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 9, 2))

    def loss(delay, weight=layer.weight, sigma=0.8):
        return jnp.square(delayed(x, delay_kernel(weight, delay, 7, sigma), 3)).sum()

    slope = jax.grad(loss)(layer.delay)
    for i, j in np.ndindex(2, 3):
        step = 2e-2
        one, two = (float(loss(layer.delay.at[i, j].add(by))) for by in (step, -step))
        by = (one - two) / (2 * step)
        assert float(slope[i, j]) == pytest.approx(by, rel=0.02, abs=0.02)
    # Far outside of a narrow kernel, where all densities are 0 in single precision.
    far = jax.grad(lambda d: loss(d, sigma=0.0))(jnp.full((2, 3), 60.0))
    assert np.isfinite(far).all()


def test_a_teachers_delays_are_found_again():
    """Twelve connections, one step each of Adam, from a wide density to a narrow one."""
    teacher = Delays(3, 4, 9, key=jax.random.key(0))
    delay = jnp.round(teacher.delay)
    weight = jnp.sign(teacher.weight) * (0.5 + jnp.abs(teacher.weight))
    x = jax.random.normal(jax.random.key(1), (16, 40, 3))
    target = delayed(x, delay_kernel(weight, delay, 9, None))
    learner = Delays(3, 4, 9, key=jax.random.key(2))

    import optax

    rules = optax.adam(0.05)

    def step(carry, sigma):
        parts, state = carry

        def loss(parts):
            return jnp.square(delayed(x, delay_kernel(*parts, 9, sigma)) - target).mean()

        changes, state = rules.update(jax.grad(loss)(parts), state)
        weight, delay = optax.apply_updates(parts, changes)
        return ((weight, jnp.clip(delay, 0, 8)), state), None

    parts = (learner.weight, learner.delay)
    sigmas = jnp.geomspace(4.0, 0.23, 600)
    ((weight_found, delay_found), _), _ = jax.lax.scan(step, (parts, rules.init(parts)), sigmas)
    assert np.mean(np.abs(delay_found - delay) < 1) > 0.8
    assert np.corrcoef(np.ravel(weight_found), np.ravel(weight))[0, 1] > 0.8


def test_a_negative_sigma_is_taps_of_one_step():
    layer = Delays(3, 4, 7, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 9, 3))
    for sigma in (-1.0, jnp.float32(-1)):
        np.testing.assert_array_equal(layer(x, sigma, 2), layer(x, None, 2))
    assert not np.allclose(layer(x, 1.0, 2), layer(x, None, 2))


def test_inputs_of_another_shape_are_said():
    layer = Delays(3, 4, 7, key=jax.random.key(0))
    for wrong, said in (((9, 3), r"not \[9, 3\]: one sequence is x\[None\]"), ((2, 9, 4), r"must be \[batch, time, 3\], not \[2, 9, 4\]"),
                        ((1, 2, 9, 3), r"not \[1, 2, 9, 3\]")):  # fmt: skip
        for taps in (1, 7):
            with pytest.raises(ValueError, match=said):
                Delays(3, 4, taps, key=jax.random.key(0))(jnp.ones(wrong), 1.0)
    assert layer(jnp.ones((1, 1, 3)), 1.0).shape == (1, 1, 4)


def test_first_values_and_their_range():
    layer = Delays(50, 40, 5, key=jax.random.key(0))
    assert np.abs(layer.weight).max() == pytest.approx(np.sqrt(6 / 50), rel=0.01)
    assert layer.delay.min() >= 0 and layer.delay.max() <= 4
    moved = Delays(1, 2, 5, key=jax.random.key(0))
    object.__setattr__(moved, "delay", jnp.array([[-1.0, 7.0]]))
    assert moved.clipped().delay.tolist() == [[0, 4]]
    assert layer(jnp.ones((2, 6, 50), jnp.int8), 1.0, 2).shape == (2, 8, 40)
    with pytest.raises(ValueError, match="longest delay and one"):
        Delays(1, 1, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least 0 steps"):
        delayed(jnp.ones((1, 2, 1)), jnp.ones((1, 1, 1)), -1)
