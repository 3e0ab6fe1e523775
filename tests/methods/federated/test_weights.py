"""Weights and theory against closed forms, played clocks, and sums worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.federated.clock import (
    buffer,
    everyone,
    first,
    fixed,
    scenario,
    schedule,
    window,
)
from latebloom.methods.federated.weights import (
    asynchronous_weights,
    chi_square,
    clock_cycle,
    clockless_weights,
    fedfix_weights,
    fednova_weights,
    polynomial_discount,
    surrogate,
    theory,
    uniform,
    weights_from_participation,
    whole_ticks,
    windows_per_round,
)

TAU = np.array([1.0, 2.0, 4.0])
P = np.array([0.5, 0.3, 0.2])


def test_weights_by_hand():
    np.testing.assert_allclose(asynchronous_weights(TAU, P), 1.75 * TAU * P)
    np.testing.assert_allclose(fedfix_weights(TAU, P, 1.5), [0.5, 0.6, 0.6])
    np.testing.assert_allclose(fedfix_weights(TAU, P, 4.0), P)  # a window for the slowest: FedAvg
    np.testing.assert_array_equal(windows_per_round([0.3, 1.1, 0.7], 0.1), [3, 11, 7])


def test_weights_that_look_at_no_clock_are_those_in_common_use():
    for scheme, each in (("async", 1.0), ("fedbuff", 0.2), ("fedfix", 0.1), ("sync", 0.1)):
        np.testing.assert_allclose(clockless_weights(scheme, 10, buffer_size=5), np.full(10, each))


def test_a_short_window_tends_to_asynchronous_weights():
    d = fedfix_weights(TAU, P, 1e-4)
    np.testing.assert_allclose(
        d / d.sum(), asynchronous_weights(TAU, P) / asynchronous_weights(TAU, P).sum()
    )


def test_logged_times_give_the_mean_of_the_windows():
    logged = [np.array([0.4, 1.2]), np.array([2.0])]
    np.testing.assert_allclose(fedfix_weights(logged, np.array([0.5, 0.5]), 0.5), [1.0, 2.0])
    rng = np.random.default_rng(0)
    drawn = [rng.exponential(t, 40_000) for t in TAU]
    closed = P / -np.expm1(-0.7 / TAU)  # E ceil(T / length) of an exponential T
    np.testing.assert_allclose(fedfix_weights(drawn, P, 0.7), closed, rtol=0.02)


@settings(max_examples=40)
@given(
    ticks=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    scheme=st.sampled_from(["sync", "async", "fedfix"]),
)
def test_closed_forms_are_those_of_the_played_clock(ticks, scheme):
    rule = {"sync": everyone, "async": first, "fedfix": window(2.0)}[scheme]
    played = clock_cycle(rule, ticks)
    found = theory(scheme, np.array(ticks, float), window=2.0)
    assert played.closed and found.cycle == played.length
    assert found.rate == pytest.approx(played.length / played.span)
    assert played.delay <= found.delay
    if scheme != "async":
        assert played.delay == found.delay
    # Theorem 4: over a cycle the default weights give each client its importance.
    np.testing.assert_allclose(played.participation * found.weights, uniform(len(ticks)))
    assert found.chi_square == pytest.approx(0, abs=1e-12)


def test_fedbuff_cycle_agrees_with_a_long_schedule():
    tau = scenario(4, 50)
    found = theory("fedbuff", tau, buffer_size=2)
    long = schedule(buffer(2), fixed(tau), 4, 4000)
    np.testing.assert_allclose(found.weights, 0.25 / long.participation, rtol=2e-3)
    assert found.rate == pytest.approx(len(long.times) / 4000, rel=2e-3)
    assert found.delay == long.staleness.max()
    assert found.chi_square == pytest.approx(0, abs=1e-12)


def test_a_clock_that_does_not_close_is_said_to_be_open(monkeypatch):
    monkeypatch.setattr("latebloom.methods.federated.weights.LONGEST_CYCLE", 50)
    found = clock_cycle(first, [97, 89, 83])
    assert not found.closed and found.length == 50 and found.participation.sum() == pytest.approx(1)


def test_theory_of_the_scenarios_by_hand():
    tau = scenario(5, 80)  # 1, .8, .6, .4, .2: in ticks 5, 4, 3, 2, 1
    assert whole_ticks(tau) == [5, 4, 3, 2, 1]
    late = theory("async", tau, weights=np.ones(5))
    assert late.cycle == 60 // 5 + 60 // 4 + 60 // 3 + 60 // 2 + 60
    assert late.delay == 2 + 2 + 3 + 5 and late.alpha == 0 and late.beta == 1
    np.testing.assert_allclose(late.surrogate, np.array([12, 15, 20, 30, 60]) / 137)
    assert late.chi_square == pytest.approx(sum((0.2 - q) ** 2 / q for q in late.surrogate))
    fix = theory("fedfix", tau, window=0.5)
    assert (fix.cycle, fix.delay, fix.alpha, fix.beta, fix.rate) == (2, 1, 1, 0, 2)
    np.testing.assert_allclose(fix.weights, [0.4, 0.4, 0.4, 0.2, 0.2])
    assert fix.largest_sum == pytest.approx(1.6)
    sync = theory("sync", tau, groups=[0, 0, 1, 1, 1])
    assert (sync.cycle, sync.delay, sync.rate, sync.largest_sum) == (1, 0, 1, 1)


def test_learning_rate_and_bound_by_hand():
    fix = theory("fedfix", scenario(5, 80), window=0.5)
    assert fix.largest_learning_rate(2.0, 10) == pytest.approx(1 / 960 / (3 * 1.6**2 * 2))
    terms = fix.bound(time=10, learning_rate=0.1, local_steps=3, residual=0.5, variance=2.0)
    assert terms["start"] == pytest.approx(1 / (0.1 * 3 * 20))
    assert terms["local work"] == pytest.approx(0.01 * 4 * 2.5)
    assert terms["alpha"] == pytest.approx((0.1 + 0.09) * (0.5 + 0.8))
    assert terms["beta"] == 0 and terms["cycle"] == pytest.approx(0.3)


def test_chi_square_sees_groups_and_absent_clients():
    """Example 1 of the source: fair to distributions although not to clients."""
    p = np.full(4, 0.25)
    q = np.array([0.5, 0.0, 0.5, 0.0])
    assert chi_square(p, q) == math.inf
    assert chi_square(p, q, groups=[0, 0, 1, 1]) == pytest.approx(0)
    assert chi_square(np.array([0.5, 0.5]), np.array([0.8, 0.2])) == pytest.approx(
        0.09 / 0.8 + 0.09 / 0.2
    )
    np.testing.assert_allclose(
        surrogate(np.array([1.0, 3.0]), np.array([0.6, 0.1])), [2 / 3, 1 / 3]
    )


@given(k=st.lists(st.integers(1, 12), min_size=2, max_size=5), mu=st.floats(0, 0.95))
def test_fednova_makes_every_gradient_count_alike(k, mu):
    """The coefficient sums of SGD with momentum, added up one gradient at a time."""
    total = []
    for steps in k:
        moved, velocity = 0.0, 0.0
        for _ in range(steps):
            velocity = mu * velocity + 1.0
            moved += velocity
        total.append(moved)
    p = uniform(len(k))
    np.testing.assert_allclose(fednova_weights(p, np.array(k), mu) * total, p * (p @ total))


def test_discount_falls_with_staleness():
    np.testing.assert_allclose(polynomial_discount(np.array([0, 3]), 0.5), [1, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: asynchronous_weights(TAU, np.array([0.5, 0.5])), "3 clients"),
        (lambda: asynchronous_weights(TAU, np.array([0.5, 0.7, -0.2])), "non-negative"),
        (lambda: fedfix_weights(TAU, P, 0.0), "longer than 0"),
        (lambda: weights_from_participation(np.array([1, 0, 1]), P), "client 1 never"),
        (lambda: theory("fedfix", TAU), "needs its window"),
        (lambda: theory("fedbuff", TAU), "needs its buffer_size"),
        (lambda: theory("fed", TAU), "must be sync"),
        (lambda: theory("sync", TAU, weights=np.ones(2)), "3 clients"),
        (lambda: fednova_weights(P, np.array([1, 1, 1]), 1.0), "momentum"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogate(np.array([1, -1.0]), np.ones(2)), "weights must be finite and none below 0"),
        (lambda: surrogate(np.ones(2), np.array([np.nan, 1])), "shares of aggregations must be finite"),
        (lambda: surrogate(np.zeros(2), np.ones(2)), "no client counts"),
        (lambda: surrogate(np.ones(2), np.ones(3)), r"weights \(2,\) and shares of aggregations \(3,\)"),
        (lambda: polynomial_discount(np.arange(3), -0.5), "power of a discount must be 0 or more, not -0.5"),
        (lambda: polynomial_discount(np.arange(3), np.nan), "must be 0 or more"),
        (lambda: asynchronous_weights([1.0, 2.0], np.array([np.nan, 1.0])), "non-negative and sum to 1"),
        (lambda: fednova_weights(np.ones(2) / 2, np.array([0, 1])), "at least one step"),
        (lambda: theory("async", [1.0, 2.0], weights=np.array([1.0, -1.0])), "none below 0"),
    ],
)  # fmt: skip
def test_numbers_that_weigh_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
