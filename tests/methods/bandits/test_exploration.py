"""Exploration rules against the formulas worked by hand, and what must hold of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.methods.bandits import exploration as ex

ALL = jnp.ones(3, bool)
RULES = {
    "uniform": lambda v, a: ex.uniform(a),
    "greedy": ex.greedy,
    "epsilon_greedy": lambda v, a: ex.epsilon_greedy(v, a, 0.3),
    "softmax": lambda v, a: ex.softmax(v, a, 0.1),
    "inverse_gap": lambda v, a: ex.inverse_gap(v, a, 50.0),
    "small_loss_inverse_gap": lambda v, a: ex.small_loss_inverse_gap(v, a, 50.0),
}


def test_inverse_gap_by_hand():
    p = ex.inverse_gap(jnp.array([0.5, 0.9, 0.8]), ALL, 10.0)
    np.testing.assert_allclose(p, [1 / 7, 1 - 1 / 7 - 1 / 4, 1 / 4], rtol=1e-6)
    losses = ex.inverse_gap(1 - jnp.array([0.5, 0.9, 0.8]), ALL, 10.0, feedback="loss")
    np.testing.assert_allclose(losses, p, rtol=1e-5)


def test_small_loss_inverse_gap_by_hand():
    p = ex.small_loss_inverse_gap(jnp.array([0.5, 0.1, 0.2]), ALL, 10.0)
    others = [0.1 / (0.3 + 4), 0.1 / (0.3 + 1)]
    np.testing.assert_allclose(p, [others[0], 1 - sum(others), others[1]], rtol=1e-5)
    sure = ex.small_loss_inverse_gap(jnp.array([0.5, 0.0, 0.2]), ALL, 10.0)
    assert sure[1] > 0.999  # no loss to expect, no exploration


def test_softmax_and_epsilon_greedy_by_hand():
    values = jnp.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(ex.softmax(values, ALL, 0.5), np.exp([0, 2, 4]) / np.exp([0, 2, 4]).sum(), rtol=1e-5)  # fmt: skip
    np.testing.assert_allclose(ex.epsilon_greedy(values, ALL, 0.3), [0.1, 0.1, 0.8], rtol=1e-6)
    np.testing.assert_allclose(ex.epsilon_greedy(values, ALL, 0.3, "loss"), [0.8, 0.1, 0.1], rtol=1e-6)  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_every_rule_gives_probabilities_on_the_action_set(rule, data):
    k = 5
    values = data.draw(st.lists(st.floats(0, 1, width=32), min_size=k, max_size=k))
    allowed = data.draw(st.lists(st.booleans(), min_size=k, max_size=k).filter(any))
    values, allowed = jnp.array(values, jnp.float32), jnp.array(allowed)
    p = np.asarray(RULES[rule](values, allowed))
    assert (p >= 0).all() and abs(p.sum() - 1) < 1e-5 and (p[~np.asarray(allowed)] == 0).all()
    if "inverse_gap" in rule:
        best = np.where(allowed, values if rule == "inverse_gap" else -values, -np.inf).argmax()
        assert p[best] >= 1 / allowed.sum() - 1e-6
    # What is not allowed has no influence, whatever was predicted for it.
    other = np.asarray(RULES[rule](jnp.where(allowed, values, 0.77), allowed))
    np.testing.assert_array_equal(p, other)


def test_a_floor_holds_and_keeps_the_sum():
    allowed = jnp.array([True, True, False, True])
    p = ex.with_floor(ex.greedy(jnp.array([0.1, 0.9, 1.0, 0.2]), allowed), allowed, 0.06)
    np.testing.assert_allclose(p, [0.02, 0.96, 0, 0.02], rtol=1e-5)


def test_actions_are_drawn_with_their_propensities():
    p = jnp.array([0.2, 0.0, 0.5, 0.3, 0.0])
    actions, told = jax.vmap(lambda key: ex.draw(key, p))(
        jax.random.split(jax.random.key(0), 20000)
    )
    np.testing.assert_allclose(np.bincount(actions, minlength=5) / 20000, p, atol=0.012)
    np.testing.assert_array_equal(told, p[actions])
