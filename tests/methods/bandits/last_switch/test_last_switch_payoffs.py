"""States, positions and payoff tables of last-switch bandits, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.methods.bandits.last_switch import (
    Instances,
    advance,
    is_monotone,
    position_of,
    state_of,
)
from latebloom.methods.bandits.last_switch.payoffs import check_payoffs, table


def step(tau, played):
    """The state one round later, by its definition."""
    if played:
        return -1 if tau > 0 else tau - 1
    return 1 if tau < 0 else tau + 1


@given(st.lists(st.booleans(), min_size=1, max_size=25), st.integers(1, 5), st.integers(1, 6))
def test_positions_move_as_states_do(played, streak, idle):
    tau, position = 1, jnp.array([streak])
    for one in played:
        position = advance(position, jnp.int32(0 if one else 1), streak + idle, streak)
        tau = step(tau, one)
        assert position[0] == position_of(tau, idle, streak)
        assert state_of(position, streak)[0] == np.clip(tau, -streak, idle)


def test_the_axis_by_hand():
    assert position_of(np.array([-9, -2, -1, 1, 3, 9]), 3, 2).tolist() == [0, 0, 1, 2, 4, 4]
    assert state_of(np.arange(5), 2).tolist() == [-2, -1, 1, 2, 3]
    with pytest.raises(ValueError, match="no arm is ever in state 0"):
        position_of(0, 3, 2)


def test_curves_of_different_lengths_saturate():
    found = table([[0.5, 0.7], [0.2]], [[0.3], [0.2, 0.1]])
    np.testing.assert_array_equal(found, [[0.3, 0.3, 0.5, 0.7], [0.1, 0.2, 0.2, 0.2]])
    with pytest.raises(ValueError, match="one value at least"):
        table([[0.5], []], [[0.1], [0.1]])


@pytest.mark.parametrize("family", ["random", "jump", "satiation", "tight"])
def test_instances_are_monotone_payoffs_in_the_unit_interval(family):
    arms, idle = (6, 5) if family == "tight" else (4, 9)
    draw = Instances(family, arms, idle, 3)
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(7), 50))
    assert drawn.shape == (50, arms, 3 + idle)
    assert all(is_monotone(one) for one in drawn) and (drawn >= 0).all() and (drawn <= 1).all()


def test_families_by_their_formulas():
    jump = np.asarray(Instances("jump", 50, 9, 3)(jax.random.key(1)), float)
    base = jump[:, 3] / 1.02
    np.testing.assert_allclose(jump[:, 2], 0.4 * base, rtol=1e-5)
    np.testing.assert_allclose(jump[:, 0], 0.5 * base * 0.8**3, rtol=1e-5)
    recovered = (jump[:, 3:] > 0.5).argmax(1) + 1  # the d of each arm
    assert set(recovered) == {5, 6, 7, 8, 9}
    tired = np.asarray(Instances("satiation", 50, 9, 3)(jax.random.key(1)), float)
    free = tired[:, 2] < tired[:, 3] - 1e-6  # not capped at p(1)
    rho = tired[free, 1] / tired[free, 2]
    assert free.any() and (rho > 0.5 - 1e-5).all() and (rho < 0.95 + 1e-5).all()
    tight = np.asarray(Instances("tight", 4, 3, 2)(jax.random.key(1)))
    np.testing.assert_array_equal(tight, [[0, 0, 0, 0, 1]] * 4)


@pytest.mark.parametrize(
    ("payoffs", "streak", "message"),
    [
        (np.ones(3), 1, r"not of shape \(3,\)"),
        (np.ones((2, 3)), 3, "streak = 3"),
        (np.array([[0.1, np.nan]]), 1, "finite and not negative"),
        (np.array([[-0.1, 1.0]]), 1, "finite and not negative"),
    ],
)
def test_what_is_no_payoff_table_is_refused(payoffs, streak, message):
    with pytest.raises(ValueError, match=message):
        check_payoffs(payoffs, streak)


def test_families_of_impossible_size_are_refused():
    with pytest.raises(ValueError, match="idle = arms - 1 = 3"):
        Instances("tight", 4, 4, 1)
    with pytest.raises(ValueError, match="at least 1"):
        Instances("jump", 4, 0, 1)
