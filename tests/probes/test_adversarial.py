from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.probes.adversarial import pgd, robust_accuracy, survives_pgd

WEIGHT = jax.random.normal(jax.random.key(0), (12, 2))
X = jax.random.uniform(jax.random.key(1), (200, 12))
PIXELS = (0.0, 1.0)


def linear(x):
    return x @ WEIGHT


def bent(x):
    return jnp.sin(3 * x) @ jax.random.normal(jax.random.key(5), (12, 4))


LABELS = jnp.argmax(linear(X), axis=-1)
ATTACK = jax.jit(partial(pgd, bent, steps=3))


def test_epsilon_zero_is_clean():
    labels = jnp.where(jnp.arange(200) % 4 == 0, 1 - LABELS, LABELS)
    key = jax.random.key(2)
    np.testing.assert_array_equal(pgd(linear, X, labels, key, 0.0, domain=PIXELS), X)
    assert robust_accuracy(linear, X, labels, key, 0.0, domain=PIXELS) == pytest.approx(0.75)


@given(
    epsilon=st.floats(0.0, 0.5),
    step_size=st.floats(0.0, 1.0),
    low=st.floats(-0.5, 0.0),
    high=st.floats(1.0, 1.5),
)
@settings(max_examples=25, deadline=None)
def test_stays_in_the_ball_and_the_domain(epsilon, step_size, low, high):
    key = jax.random.key(0)
    adversarial = ATTACK(X[:20], LABELS[:20], key, epsilon, step_size=step_size, domain=(low, high))
    assert np.abs(adversarial - X[:20]).max() <= epsilon + 1e-6
    assert adversarial.min() >= low - 1e-6 and adversarial.max() <= high + 1e-6


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_reaches_the_worst_case_of_a_linear_classifier(epsilon):
    """Against two linear classes the worst corner of ball and domain is known."""
    other_minus_true = (WEIGHT[:, 1 - LABELS] - WEIGHT[:, LABELS]).T
    worst = jnp.clip(X + epsilon * jnp.sign(other_minus_true), 0.0, 1.0)
    found = pgd(linear, X, LABELS, jax.random.key(3), epsilon, domain=PIXELS)
    np.testing.assert_allclose(found, worst, atol=1e-6)
    expected = np.mean(jnp.argmax(linear(worst), axis=-1) == LABELS)
    assert 0 < expected < 1
    accuracy = robust_accuracy(
        linear, X, LABELS, jax.random.key(3), jnp.array([epsilon, 0.0]), domain=PIXELS
    )
    np.testing.assert_allclose(accuracy, [expected, 1.0], atol=1e-6)


def test_restarts_only_lower_the_accuracy():
    labels = jnp.argmax(bent(X), axis=-1)
    key = jax.random.key(4)
    one = survives_pgd(bent, X, labels, jax.random.split(key, 3)[0], 0.1, steps=2, domain=None)
    many = survives_pgd(bent, X, labels, key, 0.1, steps=2, restarts=3, domain=None)
    assert 0 < many.mean() <= one.mean() + 0.02


def test_what_is_wrong_already_is_not_robust():
    survived = survives_pgd(linear, X, 1 - LABELS, jax.random.key(0), 0.01, domain=PIXELS)
    assert not survived.any()


def test_the_range_of_the_inputs_is_told_and_never_guessed():
    """Standardised features clipped to [0, 1] were another data set (accuracy 0.72 where it is 1)."""
    x = (X - X.mean(0)) / X.std(0)
    labels, key = jnp.argmax(linear(x), axis=-1), jax.random.key(0)
    assert robust_accuracy(linear, x, labels, key, 0.0, domain=None) == 1
    assert robust_accuracy(linear, x, labels, key, 0.0, domain=(-9.0, 9.0)) == 1
    with pytest.raises(TypeError, match="domain"):
        robust_accuracy(linear, x, labels, key, 0.0)
    for attack in (pgd, survives_pgd, robust_accuracy):
        with pytest.raises(ValueError, match="outside the domain"):
            attack(linear, x, labels, key, 0.1, domain=PIXELS)


def test_whole_numbers_are_attacked_too_and_one_example_is_enough_for_the_network():
    pixels = jnp.round(X * 255).astype(jnp.uint8)
    labels, key = jnp.argmax(linear(pixels / 255), axis=-1), jax.random.key(3)

    def one(x):
        return linear(x[None] / 255)[0]

    shares = robust_accuracy(one, pixels, labels, key, jnp.array([0.0, 76.5]), domain=(0, 255))
    floats = robust_accuracy(
        linear, pixels / 255, labels, key, jnp.array([0.0, 0.3]), domain=PIXELS
    )
    np.testing.assert_allclose(shares, floats, atol=0.011)
    assert shares[1] < 1 == shares[0]
