"""Losses for noisy labels against closed forms, NumPy, automatic gradients and cases worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.noisy_labels import losses
from latebloom.methods.noisy_labels.losses import (
    elr_gradient,
    elr_loss,
    elr_term,
    estimate_transition,
    forward_loss,
    generalised_cross_entropy,
    hard_bootstrap,
    kl_loss,
    soft_bootstrap,
    symmetric_cross_entropy,
    update_targets,
)

RNG = np.random.default_rng(0)
Z = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 4, 6), jnp.int32)
P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
P_Y = P[np.arange(6), Y]
T = RNG.dirichlet(np.ones(4), 6)


def test_elr_by_hand():
    # p = (3/4, 1/4), first visit with beta 0.7: t = 0.3 p, <p, t> = 0.3 (9/16 + 1/16) = 3/16.
    logits = jnp.log(jnp.array([[3.0, 1.0]]))
    targets = update_targets(jnp.zeros((5, 2)), jnp.array([3]), logits, 0.7)
    np.testing.assert_allclose(targets[3], [0.225, 0.075], rtol=1e-6)
    assert not targets[jnp.array([0, 1, 2, 4])].any()
    value = elr_loss(logits, jnp.array([1]), targets[3:4], 3.0)
    np.testing.assert_allclose(value, [np.log(4) + 3 * np.log(13 / 16)], rtol=1e-6)


def test_elr_against_numpy_over_several_visits():
    beta, targets = 0.9, np.zeros((3, 4))
    ours = jnp.zeros((3, 4))
    for visit in range(3):
        rows = np.array([2, visit % 2])
        z = RNG.normal(size=(2, 4)) * 8  # sure enough to be clamped
        p = np.clip(np.exp(z) / np.exp(z).sum(1, keepdims=True), 1e-4, 1 - 1e-4)
        targets[rows] = beta * targets[rows] + (1 - beta) * p / p.sum(1, keepdims=True)
        ours = update_targets(ours, jnp.asarray(rows), jnp.asarray(z, jnp.float32), beta)
        np.testing.assert_allclose(ours, targets, atol=1e-6)
        term = np.log(1 - (p * targets[rows]).sum(1))
        np.testing.assert_allclose(
            elr_term(jnp.asarray(z, jnp.float32), ours[rows]), term, rtol=2e-4
        )


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), strength=st.floats(0, 10), sums=st.floats(0.05, 0.99))
def test_lemma_2_is_the_gradient(seed, strength, sums):
    rng = np.random.default_rng(seed)
    z = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 5, 3), jnp.int32)
    t = jnp.asarray(sums * rng.dirichlet(np.ones(5), 3), jnp.float32)
    found = jax.grad(lambda z: elr_loss(z, y, t, strength).sum())(z)
    np.testing.assert_allclose(elr_gradient(z, y, t, strength), found, atol=2e-5, rtol=1e-4)


def test_the_term_pulls_to_the_dominant_class_whatever_the_label_says():
    # Lemma 2: g < 0 for the class that dominates in t. A clean example that is learned keeps a
    # gradient; a wrong label's gradient is turned round.
    z = jnp.array([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    t = jnp.array([[0.9, 0.05, 0.05]] * 2)
    y = jnp.array([0, 1])
    plain, with_term = (elr_gradient(z, y, t, s) for s in (0.0, 3.0))
    assert (with_term[:, 0] < plain[:, 0]).all() and with_term[1, 0] < 0 < plain[1, 0]


def test_no_gradient_flows_through_targets_or_what_is_clamped():
    z = jnp.array([[30.0, 0.0, 0.0]])
    t = jnp.array([[0.9, 0.05, 0.05]])
    assert not jax.grad(lambda z: elr_term(z, t).sum())(z).any()
    assert not jax.grad(lambda t: elr_term(Z[:1, :3], t).sum())(t).any()
    moved = jax.grad(lambda z: losses.moved(t, losses.predictions(z), 0.5).sum())(Z[:1, :3])
    assert not moved.any()
    # sure and agreed: lambda log(1e-4 + ...), far below zero, is normal
    sure = elr_term(z, losses.predictions(z))
    np.testing.assert_allclose(sure, np.log(1 - (0.9999 * 0.9999 / 1.0001 + 2e-8)), rtol=1e-3)


def test_published_baselines_against_their_formulas():
    for q in (0.3, 0.7, 1.0):
        np.testing.assert_allclose(generalised_cross_entropy(Z, Y, q), (1 - P_Y**q) / q, rtol=1e-5)
    np.testing.assert_allclose(generalised_cross_entropy(Z, Y, 1e-4), -np.log(P_Y), rtol=1e-3)
    onehot = np.eye(4)[np.asarray(Y)]
    log_y = np.where(onehot > 0, 0.0, -4.0)
    reverse = -(P * log_y).sum(1)
    np.testing.assert_allclose(
        symmetric_cross_entropy(Z, Y, 0.1, 2.0), -0.1 * np.log(P_Y) + 2 * reverse, rtol=1e-5
    )
    soft = -((0.8 * onehot + 0.2 * P) * np.log(P)).sum(1)
    np.testing.assert_allclose(soft_bootstrap(Z, Y, 0.8), soft, rtol=1e-5)
    hard = -((0.8 * onehot + 0.2 * np.eye(4)[P.argmax(1)]) * np.log(P)).sum(1)
    np.testing.assert_allclose(hard_bootstrap(Z, Y, 0.8), hard, rtol=1e-5)
    kl = (T * np.log(T / P)).sum(1)
    np.testing.assert_allclose(
        kl_loss(Z, Y, jnp.asarray(T, jnp.float32), 2.0), -np.log(P_Y) + 2 * kl, rtol=1e-4
    )


def test_soft_bootstrap_lets_the_gradient_through_its_own_labels():
    # d/dz of -sum p log p is -p (log p + H); the cross-entropy part is p - y.
    entropy = -(P * np.log(P)).sum(1, keepdims=True)
    wanted = 0.8 * (P - np.eye(4)[np.asarray(Y)]) - 0.2 * P * (np.log(P) + entropy)
    found = jax.grad(lambda z: soft_bootstrap(z, Y, 0.8).sum())(Z)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_forward_correction_undoes_the_noise():
    # Two classes, symmetric noise 0.3: the loss of a prediction p of class 0 for label 0 is
    # -log(0.7 p + 0.3 (1 - p)).
    transition = jnp.array([[0.7, 0.3], [0.3, 0.7]])
    p = np.array([0.2, 0.9])
    z = jnp.log(jnp.stack([jnp.asarray(p), jnp.asarray(1 - p)], axis=1)).astype(jnp.float32)
    found = forward_loss(z, jnp.array([0, 0]), transition)
    np.testing.assert_allclose(found, -np.log(0.7 * p + 0.3 * (1 - p)), rtol=1e-5)
    identity = forward_loss(Z, Y, jnp.eye(4))
    np.testing.assert_allclose(identity, -np.log(P_Y), rtol=1e-5)
    # Its minimum over noisy labels is the clean posterior (Theorem 2): T row 0 of labels -> p = (1, 0)
    share = jnp.array([0.7, 0.3])

    def risk(z):
        both = jnp.stack([z, z])
        return (share * forward_loss(both, jnp.array([0, 1]), transition)).sum()

    z = jnp.zeros(2)
    z = jax.lax.fori_loop(0, 2000, lambda _, z: z - 2.0 * jax.grad(risk)(z), z)
    assert jax.nn.softmax(z)[0] > 0.97
    asymmetric = jnp.array([[1.0, 0.0], [0.4, 0.6]])
    np.testing.assert_allclose(
        forward_loss(z[None], jnp.array([1]), asymmetric),
        -jnp.log(0.6 * jax.nn.softmax(z)[1:]), rtol=1e-4,
    )  # fmt: skip


def test_transition_is_read_at_the_anchors():
    true = np.array([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.0, 0.3, 0.7]])
    clean = np.vstack([np.eye(3), RNG.dirichlet(np.ones(3), 50)])  # the first three are anchors
    found = estimate_transition(jnp.asarray(0.5 * clean @ true, jnp.float32))
    np.testing.assert_allclose(found, true, atol=1e-6)


def test_cross_entropy_is_elr_without_strength_and_optax_agrees():
    t = jnp.asarray(T, jnp.float32)
    wanted = optax.softmax_cross_entropy_with_integer_labels(Z, Y)
    np.testing.assert_allclose(elr_loss(Z, Y, t, 0.0), wanted, rtol=1e-5)
    onehot = jax.nn.one_hot(Y, 4)
    np.testing.assert_allclose(losses.soft_cross_entropy(Z, onehot), wanted, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_losses_stay_finite(scale):
    t = losses.predictions(scale * Z)
    for value in (
        elr_loss(scale * Z, Y, t, 10.0),
        kl_loss(scale * Z, Y, t, 1.0),
        forward_loss(scale * Z, Y, jnp.eye(4)),
        soft_bootstrap(scale * Z, Y, 0.5),
    ):
        assert np.isfinite(value).all()
