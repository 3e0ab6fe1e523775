"""Spiking networks by brute force in NumPy, schedules by PyTorch's numbers, the rule by Adam's first step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latebloom.core.training import trainable
from latebloom.methods.recurrence import spiking
from latebloom.methods.recurrence.spiking import (
    Gated,
    RecurrentLIF,
    SpikingDelays,
    SpikingRecurrent,
    clipped,
    delay_rule,
    delays_of,
    matched_width,
    one_cycle,
    parameters,
    sigma_at,
    vote_loss,
    votes,
    whole,
)
from latebloom.nn.delays import Delays
from latebloom.nn.recurrent import LIF

KEY = jax.random.key(0)


def lif(current, tau, threshold):
    """Potentials or spikes of [time, n], one neuron and step after the other."""
    out = np.zeros_like(current)
    v = np.zeros(current.shape[1])
    for t in range(len(current)):
        v = v * (1 - 1 / tau) + current[t]
        if threshold is None:
            out[t] = v
        else:
            out[t] = v >= threshold
            v = np.where(v >= threshold, 0.0, v)
    return out


def taps_of(weight, delay, taps, sigma):
    n = np.arange(taps)[:, None, None]
    g = np.exp(-0.5 * ((n - delay) / (abs(sigma) + 0.27)) ** 2)
    return weight * g / (g.sum(0) + 1e-7)


def convolved(x, kernel, after):
    y = np.zeros((len(x) + after, kernel.shape[2]))
    for t in range(len(y)):
        for d in range(len(kernel)):
            if 0 <= t - d < len(x):
                y[t] += x[t - d] @ kernel[d]
    return y


@pytest.mark.parametrize("trailing", [True, False])
def test_a_network_in_training_is_layers_statistics_neurons_and_an_integrator(trailing):
    model = SpikingDelays((4, 5, 3), 7, key=KEY, tau=1.5, trailing=trailing)
    x = np.random.default_rng(0).integers(0, 3, (6, 9, 4))
    after = 3 if trailing else 0
    kernels = [taps_of(np.asarray(d.weight), np.asarray(d.delay), 7, 1.3) for d in model.layers]
    current = np.stack([convolved(e, kernels[0], after) for e in x])
    flat = current.reshape(-1, 5)
    normal = (current - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    fired = np.stack([lif(e, 1.5, 1.0) for e in normal])
    v = np.stack([lif(convolved(e, kernels[1], after), 1.5, None) for e in fired])
    found, told = model.spikes(jnp.asarray(x), 1.3, train=True)
    assert 0.05 < fired.mean() < 0.5
    np.testing.assert_array_equal(found[0], fired)
    np.testing.assert_allclose(told, v, atol=1e-4)


def test_votes_are_shares_of_each_step_and_the_loss_has_a_second_softmax():
    v = np.random.default_rng(1).normal(size=(2, 5, 3))
    shares = np.exp(v) / np.exp(v).sum(-1, keepdims=True)
    logits = shares.sum(1)
    told = np.log(np.exp(logits).sum(-1)) - logits[[0, 1], [2, 0]]
    np.testing.assert_allclose(votes(jnp.asarray(v)), logits, rtol=1e-5)
    np.testing.assert_allclose(vote_loss(jnp.asarray(v), jnp.array([2, 0])), told, rtol=1e-5)
    # Far from zero, where a naive softmax would overflow.
    assert np.isfinite(vote_loss(jnp.asarray(v * 1e4), jnp.array([2, 0]))).all()


def test_sigma_falls_as_the_authors_code_lets_it():
    sigma, epochs = 12.0, 40
    by_hand = []
    for epoch in range(epochs):
        by_hand.append(sigma)
        if epoch < epochs // 4 and sigma > 0.23:
            sigma *= (0.23 / 12.0) ** (1 / (epochs // 4))
    found = [float(sigma_at(e, epochs, 12.0)) for e in range(epochs)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)
    assert float(sigma_at(39, 40, 0.1)) == pytest.approx(0.1)  # already below: it stays
    assert float(sigma_at(1, 1, 3.0)) == pytest.approx(0.23)


def test_rates_are_pytorchs():
    """torch 2.13: OneCycleLR(max_lr=5e-3, total_steps=10), CosineAnnealingLR(T_max=10) from 0.1, a step an epoch."""
    cycle = [
        0.0002,
        0.0026,
        0.005,
        0.00475242,
        0.00405873,
        0.00305631,
        0.00194371,
        0.000941292,
        0.000247597,
        2e-08,
    ]
    found = [float(one_cycle(5e-3, 10, 3)(jnp.int32(3 * e + 2))) for e in range(10)]
    np.testing.assert_allclose(found, cycle, rtol=1e-3)
    cosine = [0.1, 0.0975528, 0.0904508, 0.0793893, 0.0654508, 0.05, 0.0345492, 0.0206107, 0.00954915, 0.00244717]  # fmt: skip
    falling = [float(spiking.half_cosine(0.1, 10, 3)(jnp.int32(3 * e))) for e in range(10)]
    np.testing.assert_allclose(falling, cosine, rtol=1e-4)


@pytest.mark.parametrize(
    ("epochs", "torch"),
    [
        (2, [4.05872e-3, 2e-8]),
        (3, [4.97208e-3, 2.31305e-3, 2e-8]),
        (4, [2e-4, 4.05872e-3, 1.41646e-3, 2e-8]),
    ],
)
def test_rates_of_few_epochs_are_pytorchs(epochs, torch):
    """torch 2.14: OneCycleLR(max_lr=5e-3, total_steps=epochs)."""
    found = [float(one_cycle(5e-3, epochs, 1)(jnp.int32(e))) for e in range(epochs)]
    np.testing.assert_allclose(found, torch, rtol=3e-3)
    for wrong in ((0, 1), (2, 0)):
        for rates in (one_cycle, spiking.half_cosine):
            with pytest.raises(ValueError, match="an epoch and a step"):
                rates(0.1, *wrong)


def test_delays_have_an_optimiser_of_their_own():
    """The first step of Adam is the rate against the gradient's sign; decay counts in weights alone."""
    model = SpikingDelays((3, 4, 2), 5, key=KEY)
    params = trainable(model)
    rule = delay_rule(10, 1, rate=5e-3, delay_rate=0.1, decay=1.0)
    slopes = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), params)
    changes, _ = rule.update(slopes, rule.init(params), params)
    for layer in changes.layers:
        np.testing.assert_allclose(layer.delay, -0.1, rtol=1e-3)
    weight = np.asarray(model.layers[0].weight)
    np.testing.assert_allclose(changes.layers[0].weight, -2e-4 * np.sign(weight + 1e-3), rtol=0.05)
    np.testing.assert_allclose(changes.norms[0].scale, -2e-4, rtol=1e-2)
    held = delay_rule(10, 1, rate=5e-3, delay_rate=0.0)
    changes, _ = held.update(slopes, held.init(params), params)
    assert all((layer.delay == 0).all() for layer in changes.layers)


class Mine(eqx.Module):
    """A model of a user's: delays between two maps, of which one is frozen, and a whole number."""

    first: eqx.nn.Linear
    late: Delays
    table: jax.Array
    last: eqx.nn.Linear

    def __call__(self, x, sigma, *, key=None, train=False):
        h = self.late(jax.vmap(jax.vmap(self.first))(x.astype(jnp.float32)), sigma)
        return jax.vmap(jax.vmap(self.last))(h)


def test_any_model_with_delays_is_clipped_rounded_and_trained():
    one, two, three = jax.random.split(KEY, 3)
    model = Mine(eqx.nn.Linear(3, 4, key=one), Delays(4, 4, 5, key=two), jnp.arange(3), eqx.nn.Linear(4, 2, key=three))  # fmt: skip
    away = eqx.tree_at(lambda m: m.late.delay, model, jnp.linspace(-3, 9, 16).reshape(4, 4))
    assert delays_of(clipped(away))[0].delay.min() == 0 and clipped(away).late.delay.max() == 4
    assert set(np.unique(whole(away).late.delay)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    rule = delay_rule(4, 2)
    state = rule.init(trainable(model))
    x, y = jax.random.bernoulli(one, 0.3, (6, 8, 3)), jnp.array([0, 1, 0, 1, 0, 1])
    slopes = eqx.filter_grad(lambda m: vote_loss(m(x, 2.0), y).mean())(model)
    changes, _ = rule.update(slopes, state, trainable(model))
    assert np.abs(changes.late.delay).min() > 0.09  # of Adam's first step
    assert (eqx.apply_updates(model, changes).table == model.table).all()


class Tied(eqx.Module):
    """Two layers with the same delays, and weights each."""

    both: eqx.nn.Shared

    def __init__(self, key):
        one, two = jax.random.split(key)
        pair = (Delays(4, 4, 5, key=one), Delays(4, 4, 5, key=two))
        self.both = eqx.nn.Shared(pair, lambda p: p[1].delay, lambda p: p[0].delay)

    def __call__(self, x, sigma, *, key=None, train=False):
        first, second = self.both()
        return second(first(x, sigma), sigma)


def test_tied_delays_are_one():
    model = Tied(KEY)
    assert len(delays_of(model)) == 1
    far = eqx.tree_at(lambda m: m.both.pytree[0].delay, model, jnp.full((4, 4), 7.3))
    one, two = clipped(whole(far)).both()
    assert (one.delay == 4).all() and (two.delay == 4).all()
    x = jax.random.bernoulli(KEY, 0.3, (2, 8, 4))
    slopes = eqx.filter_grad(lambda m: vote_loss(m(x, 2.0), jnp.array([0, 1])).mean())(model)
    rule = delay_rule(4, 2)
    changes, _ = rule.update(slopes, rule.init(trainable(model)), trainable(model))
    assert np.abs(changes.both.pytree[0].delay).min() > 0.09


def test_what_is_partitioned_off_stays_off():
    model = SpikingDelays((3, 4, 2), 5, key=KEY)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    again = eqx.combine(clipped(params), clipped(static))
    assert eqx.tree_equal(again, model)
    assert eqx.tree_equal(whole(static), static) and not delays_of(static)


def test_biases_of_convolutions_are_not_decayed():
    assert jax.tree.leaves(spiking.kinds(trainable(eqx.nn.Conv1d(2, 3, 3, key=KEY)))) == ["weight", "other"]  # fmt: skip
    assert jax.tree.leaves(spiking.kinds(trainable(Delays(2, 3, 3, key=KEY)))) == ["weight", "delay"]  # fmt: skip


def test_rivals_refuse_what_cannot_be():
    x = jnp.ones((2, 7, 5))
    for rival in (SpikingRecurrent, Gated):
        with pytest.raises(ValueError, match="sizes must be inputs, the hidden layer"):
            rival((5, 6, 6, 3), key=KEY)
        with pytest.raises(ValueError, match="dropout must be"):
            rival((5, 6, 3), key=KEY, dropout=1.0)
        with pytest.raises(ValueError, match="dropout needs a key"):
            rival((5, 6, 3), key=KEY, dropout=0.5)(x, train=True)
    with pytest.raises(ValueError, match=r"must give \[batch, steps, classes\]"):
        votes(jnp.ones((4, 3)))


def test_slopes_reach_delays_through_spikes_and_not_through_the_reset():
    model = SpikingDelays((6, 8, 3), 9, key=KEY)
    x = jax.random.bernoulli(KEY, 0.2, (5, 12, 6))
    slopes = eqx.filter_grad(lambda m: vote_loss(m(x, 2.0, train=True), jnp.zeros(5, int)).mean())(model)  # fmt: skip
    for layer in slopes.layers:
        assert np.isfinite(layer.delay).all() and (layer.delay != 0).mean() > 0.9
    assert not model.neuron.through_reset and model.neuron.alpha == 5 and model.readout.threshold is None  # fmt: skip
    silent = eqx.filter_grad(lambda m: vote_loss(m(jnp.zeros_like(x), 2.0, train=True), jnp.zeros(5, int)).mean())(model)  # fmt: skip
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(silent))


def test_connections_are_so_many_a_neuron_and_stay():
    model = SpikingDelays((12, 9, 3), 5, key=KEY, connections=4)
    assert all((np.asarray(m).sum(0) == 4).all() for m in model.masks)
    assert all((np.asarray(w)[~np.asarray(m)] == 0).all() for w, m in zip(model.weights(), model.masks, strict=True))  # fmt: skip
    x = jax.random.bernoulli(KEY, 0.2, (5, 8, 12))
    slopes = eqx.filter_grad(lambda m: m(x, 1.0, train=True).sum())(model)
    assert (np.asarray(slopes.layers[0].weight)[~np.asarray(model.masks[0])] == 0).all()


def test_dropout_silences_neurons_for_a_whole_example_of_training():
    dropped = spiking._dropped(KEY, jnp.ones((40, 6, 30)), 0.4)
    assert ((dropped == 0).all(1) | (dropped > 1.6).all(1)).all()
    assert float((dropped == 0).mean()) == pytest.approx(0.4, abs=0.05)
    model = SpikingDelays((3, 4, 2), 3, key=KEY, dropout=0.5)
    x = jnp.ones((2, 5, 3))
    assert (model(x, 1.0) == model(x, 1.0, key=KEY)).all()
    with pytest.raises(ValueError, match="dropout needs a key"):
        model(x, 1.0, train=True)


def test_recurrent_spikes_by_hand():
    layer = RecurrentLIF(3, LIF(2.0), key=KEY)
    x = 2 * np.random.default_rng(0).random((1, 10, 3))
    v, s, seen = np.zeros(3), np.zeros(3), []
    for t in range(10):
        v = v / 2 + x[0, t] + s @ np.asarray(layer.weight)
        s = (v >= 1).astype(float)
        v = np.where(s > 0, 0.0, v)
        seen.append(s)
    np.testing.assert_array_equal(layer(jnp.asarray(x))[1][0], np.array(seen))


def test_rivals_take_and_give_the_same():
    x = jax.random.bernoulli(KEY, 0.2, (4, 7, 5)).astype(jnp.uint8)
    for model in (SpikingRecurrent((5, 6, 3), key=KEY, dropout=0.3), Gated((5, 6, 3), key=KEY, dropout=0.3)):  # fmt: skip
        assert model(x, None).shape == (4, 7, 3)
        assert not np.allclose(model(x, None, key=KEY, train=True), model(x, None))
    assert SpikingDelays((5, 6, 3), 1, key=KEY)(x, None).shape == (4, 7, 3)


def test_widths_match_in_parameters():
    for sizes in ((20, 16, 10), (40, 32, 32, 20)):
        model = SpikingDelays(sizes, 5, key=KEY)
        count = sum(leaf.size for leaf in jax.tree.leaves(trainable(model)))
        assert count == parameters(sizes, True)
        width = matched_width(sizes)
        plain = [sizes[0], *[width] * (len(sizes) - 2), sizes[-1]]
        less = [sizes[0], *[width - 1] * (len(sizes) - 2), sizes[-1]]
        assert parameters(less, False) < count <= parameters(plain, False)


def test_what_cannot_be_is_refused():
    for wrong, said in (({"sizes": (3, 2)}, "a hidden layer or more"), ({"dropout": 1.0}, "dropout must"),
                        ({"connections": 0}, "connections must")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            SpikingDelays(**{"sizes": (3, 4, 2), "taps": 3, "key": KEY} | wrong)


def test_an_update_of_the_rule_is_an_optax_transformation():
    rule = optax.chain(optax.clip_by_global_norm(1.0), delay_rule(2, 1))
    params = trainable(SpikingDelays((3, 4, 2), 5, key=KEY))
    changes, _ = rule.update(params, rule.init(params), params)
    assert jax.tree.structure(changes) == jax.tree.structure(params)
