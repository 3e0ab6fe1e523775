"""Exploration rules against the formulas worked by hand, and what must hold of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.methods.bandits import exploration as ex
from latebloom.methods.bandits.neural import rules as neural
from latebloom.methods.bandits.neural.linear import KernelRegression, LinearRegression
from latebloom.methods.bandits.neural.network import ArmNetwork
from latebloom.methods.bandits.neural.regression import NeuralRegression, Replay
from latebloom.methods.bandits.payments import by_name
from latebloom.methods.bandits.payments import rules as payments
from latebloom.methods.bandits.payments.model import CrossedLogistic

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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda v, a: ex.inverse_gap(v, a, -5.0),
            "gamma must be a finite number at least 0, not -5",
        ),
        (lambda v, a: ex.inverse_gap(v, a, np.nan), "gamma must be a finite number"),
        (lambda v, a: ex.inverse_gap(v, a, np.inf), "gamma must be a finite number"),
        (lambda v, a: ex.small_loss_inverse_gap(v, a, -1.0), "gamma must be"),
        (lambda v, a: ex.small_loss_inverse_gap(v, a, 1.0, least=0.0), "least must be .* above 0"),
        (lambda v, a: ex.softmax(v, a, 0.0), "temperature must be a finite number above 0"),
        (lambda v, a: ex.epsilon_greedy(v, a, 1.5), "epsilon must be .* at most 1, not 1.5"),
        (lambda v, a: ex.with_floor(ex.uniform(a), a, -0.1), "floor must be .* at least 0"),
        (lambda v, a: ex.uniform(a & False), "row 0 allows no action"),
        (lambda v, a: ex.greedy(v, a & False), "row 0 allows no action"),
        (lambda v, a: by_name.rule("epsilon", 5.0), "epsilon must be .* at most 1, not 5"),
        (lambda v, a: by_name.rule("softmax", 0.0), "temperature must be"),
        (lambda v, a: by_name.rule("floored", -1.0), "gamma must be"),
        (lambda v, a: neural.InverseGap(-1.0), "gamma must be"),
        (lambda v, a: neural.SmallLossInverseGap(1.0, -1.0), "growth must be"),
        (lambda v, a: neural.EpsilonGreedy(2.0), "epsilon must be"),
        (lambda v, a: neural.LowerBound(-1.0), "nu must be"),
        (lambda v, a: neural.Thompson(np.nan), "nu must be"),
        (lambda v, a: payments.SquareCB(-1.0), "gamma must be"),
        (lambda v, a: payments.FastCB(-1.0), "gamma must be"),
        (lambda v, a: payments.Falcon(0.0), "complexity must be"),
        (lambda v, a: payments.Softmax(0.0), "temperature must be"),
        (lambda v, a: payments.EpsilonGreedy(-0.1), "epsilon must be"),
        (lambda v, a: payments.UpperBound(-0.1), "nu must be"),
        (lambda v, a: payments.Floored(payments.Greedy(), 1.1), "floor must be"),
        (lambda v, a: CrossedLogistic((2,), 1, 3, ridge=-1.0), "ridge must be"),
        (lambda v, a: LinearRegression(3, 2, 0.0), "ridge must be .* above 0"),
        (lambda v, a: KernelRegression(3, 2, 0), "memory must be .* at least 1"),
        (lambda v, a: Replay(0), "capacity must be at least 1"),
        (lambda v, a: NeuralRegression(ArmNetwork(2, 2), rate=-0.1), "rate must be .* above 0"),
        (lambda v, a: NeuralRegression(ArmNetwork(2, 2), radius=0.0), "radius must be"),
    ],
)
def test_settings_out_of_range_and_sets_without_action_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.array([0.1, 0.5, 0.3]), ALL)


def test_probabilities_are_right_at_the_ends_of_the_settings():
    values = jnp.array([0.1, 0.5, 0.3])
    np.testing.assert_allclose(ex.inverse_gap(values, ALL, 0.0), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(ex.inverse_gap(values, ALL, 1e9), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(ex.epsilon_greedy(values, ALL, 1.0), 1 / 3, rtol=1e-6)
    traced = jax.jit(lambda gamma: ex.inverse_gap(values, ALL, gamma))  # what is traced passes
    np.testing.assert_allclose(traced(2.0), ex.inverse_gap(values, ALL, 2.0))


def test_predictions_of_another_width_are_refused_and_not_broadcast():
    with pytest.raises(Exception, match=r"1 predictions do not fit 3 actions|[Tt]ype-check error"):
        ex.inverse_gap(jnp.ones(1), ALL, 1.0)
