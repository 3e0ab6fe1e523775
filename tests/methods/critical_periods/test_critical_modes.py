"""The flow of one mode: numbers worked out apart, conserved quantities, SciPy's integrators."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import integrate

from latebloom import unfold
from latebloom.methods.critical_periods import (
    ModeCompetition,
    age,
    dominance,
    drift,
    final_dominance,
    runge_kutta,
    settle,
    strength,
    strength_velocity,
    weight,
)
from latebloom.methods.critical_periods.drawing import draw_flow

weights = st.floats(0.05, 1.2)


def flow(p, s, depth, constant, until, free=(1.0, 1.0)):
    """dp/dt = (p^2 + c)^((D-1)/2) (s - sum K) by SciPy, written out by hand."""

    def slope(_, p):
        gain = (p**2 + constant) ** ((depth - 1) / 2)
        return np.array(free) * gain * (s - (p * gain).sum())

    return integrate.solve_ivp(slope, (0, until), p, method="LSODA", rtol=1e-10, atol=1e-12).y[
        :, -1
    ]


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_dominance_by_length_of_the_window(depth):
    """Euler steps of 0.01 from K = 0.01, s = 3.873, windows of 2, 5, 10, 20 and 40 steps."""
    table = {
        2: (0.075, 0.187, 0.361, 0.637, 0.904),
        3: (0.138, 0.328, 0.570, 0.814, 0.947),
        4: (0.199, 0.445, 0.689, 0.872, 0.958),
        6: (0.307, 0.599, 0.799, 0.916, 0.968),
    }
    process = ModeCompetition(
        3.873, depth, 0, (2, 5, 10, 20, 40), dt=0.01, mean=0.01 ** (1 / depth), spread=0.0
    )
    final = unfold(process, steps=3000, progress=False).strength.values[0, -1, :, 0]
    np.testing.assert_allclose(dominance(final), table[depth], atol=6e-4)


def test_depth_two_in_closed_form():
    """A window of n Euler steps multiplies p_a by (1 + s dt)^n while K is small: tanh(n ln ...)."""
    process = ModeCompetition(3.873, 2, 0, 5, dt=0.01, mean=1e-3, spread=0.0)
    final = unfold(process, steps=4000, progress=False).strength.values[0, -1, 0, 0]
    assert dominance(final) == pytest.approx(np.tanh(5 * np.log1p(0.03873)), abs=1e-4)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_late_windows_leave_both_pathways_equal(depth):
    process = ModeCompetition(
        4.0, depth, (0, 400, 750), (150,), dt=0.01, mean=0.01 ** (1 / depth), spread=0.0
    )
    final = unfold(process, steps=1500, progress=False).strength.values[0, -1, :, 0]
    assert final[0] == pytest.approx([3.99, 0.01], abs=0.01)
    np.testing.assert_allclose(final[1:], 2.0, atol=1e-3)


def test_large_initial_weights():
    """s = 10, steps of 0.001, windows of 15: 0.144, 0.662, 0.833, 0.917 for 40 other starts."""
    for depth, wanted in ((2, 0.144), (5, 0.662), (8, 0.833), (13, 0.917)):
        process = ModeCompetition(
            10.0, depth, (0, 100), 15, dt=0.001, constant=1.0, mean=0.0, spread=0.01,
            trajectories=200,
        )  # fmt: skip
        final = unfold(process, steps=1000, progress=False).strength.values[0, -1]
        early, late = np.asarray(dominance(final)).mean(axis=1)
        assert early == pytest.approx(wanted, abs=0.06)
        assert abs(late) < 0.12


@settings(max_examples=40)
@given(weights, weights, st.sampled_from([1, 2, 3, 4, 7]), st.sampled_from([0.0, 1.0]))
def test_the_difference_of_ages_is_conserved(p_a, p_b, depth, constant):
    start = np.array([p_a, p_b])
    end = flow(start, 5.0, depth, constant, until=0.3)
    before, after = (np.subtract(*age(p, depth, constant)) for p in (start, end))
    assert after == pytest.approx(before, rel=1e-5, abs=1e-6)


@settings(max_examples=25)
@given(weights, weights, st.integers(2, 6))
def test_conserved_quantities_as_published(p_a, p_b, depth):
    """ln(p_a / p_b) for depth 2 and p_a^(2-D) - p_b^(2-D) for more, up to a factor."""
    end = flow([p_a, p_b], 4.0, depth, 0.0, until=0.2)
    if depth == 2:
        assert np.log(end[0] / end[1]) == pytest.approx(np.log(p_a / p_b), abs=1e-6)
    else:
        quantity = end ** (2.0 - depth)
        wanted = p_a ** (2.0 - depth) - p_b ** (2.0 - depth)
        assert quantity[0] - quantity[1] == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("constant", [0.5, 1.0, 2.0])
def test_age_is_the_integral_it_says(depth, constant):
    wanted, _ = integrate.quad(lambda q: (q**2 + constant) ** (-(depth - 1) / 2), 0, 1.3)
    assert age(1.3, depth, constant) == pytest.approx(wanted, rel=1e-9)


def test_a_deficit_ages_one_pathway_only():
    start = np.array([0.3, 0.3])
    end = flow(start, 4.0, 3, 0.0, until=0.4, free=(1.0, 0.0))
    assert age(end[1], 3) == age(0.3, 3)
    gaps, _ = integrate.quad(
        lambda t: 4 - (flow(start, 4.0, 3, 0.0, t, (1.0, 0.0)) ** 3).sum() if t else 4 - 2 * 0.027,
        0, 0.4,
    )  # fmt: skip
    assert age(end[0], 3) - age(0.3, 3) == pytest.approx(gaps, rel=1e-5)


@settings(max_examples=20)
@given(st.floats(0.2, 1.2), st.floats(0.2, 1.2), st.integers(1, 5))
def test_settle_is_where_the_flow_ends(p_a, p_b, depth):
    end = settle((p_a, p_b), 6.0, depth)
    assert end.sum() == pytest.approx(6.0)
    wanted = flow([p_a, p_b], 6.0, depth, 0.0, until=30.0) ** depth
    np.testing.assert_allclose(end, wanted, atol=2e-5)


def test_deeper_pathways_amplify_a_lead():
    shares = [dominance(settle(np.array([0.02, 0.01]) ** (1 / d), 4.0, d)) for d in (2, 3, 4, 6)]
    assert (np.diff(shares) > 0).all()
    assert shares[0] == pytest.approx((2 - 1) / (2 + 1))  # depth 2 freezes the ratio


def test_runge_kutta_against_scipy():
    p = jnp.array([[0.3, 0.2]])
    for _ in range(100):
        p = runge_kutta(lambda p: drift(p, jnp.array([3.0]), 3), p, 0.01)
    np.testing.assert_allclose(p[0], flow([0.3, 0.2], 3.0, 3, 0.0, 1.0), rtol=1e-5)


def test_what_is_held_or_hidden_does_not_move():
    p = jnp.full((2, 2), 0.4)
    free, shown = jnp.array([1.0, 0.0]), jnp.array([[0.0, 1.0], [1.0, 1.0]])
    slope = drift(p, jnp.array([3.0, 2.0]), 4, 0.0, free, shown)
    assert slope[0, 0] == slope[0, 1] == slope[1, 1] == 0
    assert slope[1, 0] == pytest.approx(0.4**3 * (2 - 2 * 0.4**4))


def test_strength_in_both_regimes():
    assert strength(jnp.float32(2), 3) == pytest.approx(8)
    assert strength(jnp.float32(-2), 4) == pytest.approx(-16)
    assert strength(jnp.float32(2), 3, 1.0) == pytest.approx(2 * 5)


@pytest.mark.parametrize(
    ("depth", "constant"), [(1, 1.0), (2, 0.0), (2, 1.0), (13, 0.0), (13, 1.0)]
)
def test_weight_turns_strength_round(depth, constant):
    p = np.array([0.0, 1e-3, 0.4, 2.0])
    k = p * (p**2 + constant) ** ((depth - 1) / 2)
    np.testing.assert_allclose(weight(k, depth, constant), p, rtol=1e-9)


@pytest.mark.parametrize(("depth", "constant"), [(2, 1.0), (5, 1.0), (3, 0.0)])
def test_velocity_of_strengths_is_that_of_the_weights(depth, constant):
    """dK/dt by differences along a short step of the weights, both pathways learning."""
    p, s, dt = np.array([[0.3, 0.9], [1.1, 0.2]]), 4.0, 1e-6
    here, there = (q * (q**2 + constant) ** ((depth - 1) / 2)
                   for q in (p, np.stack([flow(row, s, depth, constant, dt) for row in p])))  # fmt: skip
    np.testing.assert_allclose(
        strength_velocity(here, s, depth, constant), (there - here) / dt, rtol=1e-3
    )


def test_final_dominance_is_the_mean_over_trajectories():
    ends = np.array(
        [[[3.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [1.0, 3.0]]]
    )  # [case, trajectory, path]
    cells = np.stack([np.ones_like(ends), ends])[None]
    dims = ("seed", "step", "case", "trajectory", "path")
    np.testing.assert_allclose(
        final_dominance(xr.Dataset({"strength": (dims, cells)})), [[0.25, -0.75]]
    )


def test_bad_inputs():
    with pytest.raises(ValueError, match="at least 1"):
        ModeCompetition(1.0, 0, 0, 1, dt=0.1, mean=0.1, spread=0.0)
    with pytest.raises(ValueError, match="positive"):
        ModeCompetition(1.0, 2, 0, 1, dt=0.0, mean=0.1, spread=0.0)
    for p in ((0.1, -0.1), (3.0, 3.0), (0.1, 0.1, 0.1)):
        with pytest.raises(ValueError, match="two positive weights"):
            settle(p, 4.0, 3)


def test_the_flow_is_drawn_where_both_strengths_are_positive():
    ax = Figure().subplots()
    draw_flow(ax, 10, 3, constant=1.0, color="k")
    places = np.concatenate(ax.collections[0].get_segments())
    assert places.min() > 0 and places.max() <= 10
