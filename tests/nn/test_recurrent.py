"""Recurrent layers against PyTorch and SpikingJelly (benchmarks/recurrent_against_pytorch.py), and by hand in NumPy."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.nn.recurrent import GRU, LIF, LSTM, LeakyRNN, spike

with np.load(Path(__file__).with_name("recurrent.npz")) as part:
    PYTORCH = {name: part[name] for name in part.files}

KINDS = {"lstm": LSTM, "gru": GRU}
NEURONS = {
    "decay": {"tau": 2.0, "decay_input": True, "through_reset": True},
    "plain": {"tau": 1.5},
    "rest": {"tau": 3.0, "decay_input": True, "rest": -0.2},
    "soft": {"tau": 2.5, "reset": "soft", "through_reset": True},
}


def with_their_weights(name):
    layer = KINDS[name](3, 4, key=jax.random.key(0))
    ours = lambda l: (l.input.weight, l.hidden.weight, l.input.bias, l.hidden.bias)  # noqa: E731
    theirs = (PYTORCH[f"{name}/{w}_l0"] for w in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return eqx.tree_at(ours, layer, tuple(jnp.asarray(w.T) for w in theirs))


@pytest.mark.parametrize("kind", ["whole", "lengths"])
@pytest.mark.parametrize("name", KINDS)
def test_gated_layers_are_pytorchs(name, kind):
    layer, x = with_their_weights(name), jnp.asarray(PYTORCH["x"])
    lengths = jnp.asarray(PYTORCH["lengths"]) if kind == "lengths" else None

    def weighed(x):
        return (layer(x, lengths=lengths)[1] * PYTORCH["weighing"]).sum()

    state, outputs = layer(x, lengths=lengths)
    expected = {part: PYTORCH[f"{name}/{kind}/{part}"] for part in ("outputs", "state", "slopes")}
    np.testing.assert_allclose(outputs, expected["outputs"], atol=2e-6)
    last = jnp.stack(state)[:, None] if name == "lstm" else state[None]
    np.testing.assert_allclose(last, expected["state"], atol=2e-6)
    np.testing.assert_allclose(jax.grad(weighed)(x), expected["slopes"], atol=2e-6)


@pytest.mark.parametrize("surrogate", ["atan", "sigmoid"])
@pytest.mark.parametrize("name", NEURONS)
def test_neurons_are_spikingjellys(name, surrogate):
    alpha = {"atan": 3.0, "sigmoid": 4.0}[surrogate]
    layer = LIF(**NEURONS[name], alpha=alpha, surrogate=surrogate)
    x, weighing = (jnp.asarray(np.moveaxis(PYTORCH[n], 0, 1)) for n in ("current", "current_weighing"))  # fmt: skip
    v, spikes = layer(x)
    expected = {p: PYTORCH[f"lif/{name}/{surrogate}/{p}"] for p in ("spikes", "slopes", "v")}
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(np.moveaxis(spikes, 1, 0), expected["spikes"])
    np.testing.assert_allclose(v, expected["v"], atol=1e-6)
    slopes = jax.grad(lambda x: (layer(x)[1] * weighing).sum())(x)
    np.testing.assert_allclose(np.moveaxis(slopes, 1, 0), expected["slopes"], atol=2e-6)


@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
@pytest.mark.parametrize("form", ["around", "inside"])
def test_leaky_units_by_hand(form, activation):
    layer = LeakyRNN(2, 5, key=jax.random.key(0), form=form, activation=activation)
    layer = eqx.tree_at(lambda l: l.tau, layer, jnp.array([0.3, 1.0, 1.5, 4.0, 20.0]))
    x, h = np.random.default_rng(0).normal(size=(3, 4, 2)), np.full((3, 5), 0.05)
    tau = np.array([1.0, 1.0, 1.5, 4.0, 20.0])
    phi = np.tanh if activation == "tanh" else lambda z: np.where(z > 0, z, 0.01 * z)
    weight = np.array(layer.hidden.weight, float)
    np.fill_diagonal(weight, 0)
    expected = []
    for t in range(4):
        drive = x[:, t] @ np.array(layer.input.weight, float) + layer.input.bias + h @ weight + layer.hidden.bias  # fmt: skip
        h = phi((1 - 1 / tau) * h + drive / tau) if form == "around" else (1 - 1 / tau) * h + phi(drive) / tau  # fmt: skip
        expected.append(h)
    state, outputs = layer(jnp.asarray(x, jnp.float32), jnp.full((3, 5), 0.05))
    np.testing.assert_allclose(outputs, np.stack(expected, 1), atol=1e-6)
    np.testing.assert_allclose(state, outputs[:, -1])


def test_time_constants_have_a_slope_at_one_and_none_below():
    layer = LeakyRNN(1, 3, key=jax.random.key(0), tau=1.0, activation="tanh")
    x = jax.random.normal(jax.random.key(1), (2, 5, 1))

    def loss(tau, layer=layer):
        return jnp.square(eqx.tree_at(lambda l: l.tau, layer, tau)(x)[1]).sum()

    slope = jax.grad(loss)(jnp.array([0.9, 1.0, 1.5]))
    assert slope[0] == 0 and slope[1] != 0
    for i, at in ((1, 1.0), (2, 1.5)):  # from above: one-sided differences at the kink
        step = 1e-2
        tau = jnp.array([0.9, 1.0, 1.5])
        zero, one, two = (float(loss(tau.at[i].set(at + k * step))) for k in (0, 1, 2))
        by = (-3 * zero + 4 * one - two) / (2 * step)
        assert float(slope[i]) == pytest.approx(by, rel=0.02)
    # No unit acts upon itself, whatever its weight is.
    own = jax.grad(lambda l: jnp.square(l(x)[1]).sum(), allow_int=True)(layer).hidden.weight
    assert not np.diag(own).any() and np.abs(own).sum() > 0


@pytest.mark.parametrize(
    ("surrogate", "slope"),
    [
        ("atan", lambda v: 1.5 / (1 + (np.pi / 2 * 3 * v) ** 2)),
        ("sigmoid", lambda v: 3 * np.exp(-3 * v) / (1 + np.exp(-3 * v)) ** 2),
        ("triangle", lambda v: np.maximum(0, 3 - 9 * np.abs(v))),
    ],
)
def test_a_spike_is_a_step_with_the_slope_of_its_surrogate(surrogate, slope):
    v = jnp.array([-1.0, -0.2, -0.0, 0.0, 0.1, 2.0])
    assert spike(v, 3.0, surrogate).tolist() == [0, 0, 1, 1, 1, 1]
    found = jax.grad(lambda v: spike(v, 3.0, surrogate).sum())(v)
    np.testing.assert_allclose(found, slope(np.array(v, float)), rtol=1e-5)
    far = jax.grad(lambda v: spike(v, 100.0, surrogate).sum())(jnp.array([-1e30, 1e30]))
    assert np.isfinite(far).all()
    half = jax.grad(lambda v: spike(v, 3.0, surrogate).sum())(v.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


@settings(max_examples=5)  # each shape is compiled
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_a_sequence_in_two_parts_is_the_whole(first, second, seed):
    for layer in (LSTM(2, 3, key=jax.random.key(seed)), GRU(2, 3, key=jax.random.key(seed)),
                  LeakyRNN(2, 3, key=jax.random.key(seed)), LIF(2.0)):  # fmt: skip
        x = 2 * jax.random.normal(jax.random.key(seed), (2, first + second, 2))
        state, whole = layer(x)
        middle, one = layer(x[:, :first])
        end, two = layer(x[:, first:], middle)
        np.testing.assert_allclose(jnp.concatenate([one, two], 1), whole, atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, end)


@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_nothing(reverse):
    layer = GRU(2, 3, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 6, 2))
    padded = x.at[1, 4:].set(jnp.nan).at[2, 1:].set(jnp.nan)
    lengths = jnp.array([6, 4, 1])
    state, outputs = layer(padded, lengths=lengths, reverse=reverse)
    for i, n in enumerate((6, 4, 1)):
        own, alone = layer(x[i : i + 1, :n], reverse=reverse)
        np.testing.assert_allclose(outputs[i, :n], alone[0], atol=1e-6)
        np.testing.assert_allclose(state[i], own[0], atol=1e-6)
        assert not outputs[i, n:].any()

    def loss(layer, x):
        return jnp.square(layer(x, lengths=lengths, reverse=reverse)[1]).sum()

    slopes = jax.tree.leaves(eqx.filter_grad(loss)(layer, padded))
    for found, expected in zip(slopes, jax.tree.leaves(eqx.filter_grad(loss)(layer, x)), strict=True):  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_first_weights_and_a_raised_forget_gate():
    layer = LSTM(9, 100, key=jax.random.key(0), forget=1.0)
    for weight in (layer.input.weight, layer.hidden.weight):
        assert np.abs(weight).max() == pytest.approx(0.1, rel=0.01)
    bias = layer.input.bias
    assert np.mean(bias[100:200]) == pytest.approx(1, abs=0.02) and np.abs(bias[:100]).max() < 0.1
    tau = LeakyRNN(1, 500, key=jax.random.key(0)).tau
    assert tau.min() > 1 and tau.max() < 2 and np.mean(tau) == pytest.approx(1.5, abs=0.05)


def test_whole_numbers_and_half_precision():
    spikes = LIF(2.0)(jnp.ones((1, 3, 2), jnp.int32))[1]
    assert spikes.dtype == jnp.float32 and spikes.tolist() == [[[1, 1]] * 3]
    for layer in (LSTM(2, 3, key=jax.random.key(0)), LeakyRNN(2, 3, key=jax.random.key(0))):
        half = jax.tree.map(lambda w: w.astype(jnp.bfloat16) if eqx.is_inexact_array(w) else w, layer)  # fmt: skip
        assert half(jnp.ones((1, 3, 2), jnp.bfloat16))[1].dtype == jnp.bfloat16
        assert layer(jnp.ones((1, 3, 2), jnp.int8))[1].dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRU(2, 3, key=jax.random.key(0))(jnp.ones((4, 2))), "one sequence is x"),
        (lambda: GRU(2, 3, key=jax.random.key(0))(jnp.ones((4, 5, 2)), lengths=jnp.ones(3)), "one a sequence, 4"),
        (lambda: LeakyRNN(1, 2, key=jax.random.key(0), tau=0.5), "at least 1 step"),
        (lambda: LeakyRNN(1, 2, key=jax.random.key(0), tau=(2.0, 1.0)), "its range go up"),
        (lambda: LeakyRNN(1, 2, key=jax.random.key(0), activation="swish"), "relu, leaky_relu"),
        (lambda: LeakyRNN(1, 2, key=jax.random.key(0), form="beside"), "around"),
        (lambda: LIF(0.5), "at least 1 step"),
        (lambda: LIF(2.0, threshold=0.0), "above rest"),
        (lambda: LIF(2.0, reset="slow"), "hard"),
        (lambda: spike(jnp.ones(2), 2.0, "step"), "surrogate must be"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
