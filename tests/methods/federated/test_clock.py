"""Schedules against cases worked by hand, counts in closed form, and what must hold for any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.federated.clock import (
    buffer,
    everyone,
    exponential,
    first,
    fixed,
    resampled,
    rule_of,
    scenario,
    schedule,
    window,
)


def test_two_clients_by_hand():
    """Figure 1 of the source: client 0 takes 1, client 1 takes 2, windows of 1."""
    found = schedule(window(1.0), fixed([1, 2]), 2, 4)
    np.testing.assert_allclose(found.times, [1, 2, 3, 4])
    np.testing.assert_array_equal(found.matrix(), [[0, -1], [1, 0], [2, -1], [3, 2]])
    np.testing.assert_array_equal(found.staleness, [0, 0, 1, 0, 0, 1])
    np.testing.assert_allclose(found.participation, [1, 0.5])


def test_asynchronous_by_hand():
    found = schedule(first, fixed([2, 3]), 2, 6)
    np.testing.assert_allclose(found.times, [2, 3, 4, 6, 6])
    np.testing.assert_array_equal(found.client, [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(found.started_from, [0, 0, 1, 3, 2])
    np.testing.assert_allclose(found.began, [0, 0, 2, 4, 3])


def test_a_buffered_client_waits_for_the_aggregation():
    found = schedule(buffer(2), fixed([1, 2, 4]), 3, 6)
    # 0 arrives at 1 and waits for 1 at 2; both restart; at 4 arrive 1 and 2, 0 lies there since 3.
    np.testing.assert_allclose(found.times, [2, 4, 5, 6])
    np.testing.assert_array_equal(found.matrix(), [[0, 0, -1], [1, 1, -1], [2, -1, 0], [3, 2, -1]])
    np.testing.assert_allclose(found.arrived[:4], [1, 2, 3, 4])


def test_fedfix_restarts_at_the_end_of_the_window():
    """0.6 in windows of 0.5: period of two windows, not 0.6."""
    found = schedule(window(0.5), fixed([0.6]), 1, 3)
    np.testing.assert_allclose(found.times[found.aggregation], [1, 2, 3])
    np.testing.assert_allclose(found.began, [0, 1, 2])
    assert len(found.times) == 6  # windows in which nobody arrives count


@pytest.mark.parametrize(("tau", "length"), [(1 - 0.8, 0.2), (0.3, 0.1), (1.1, 0.1), (0.7, 0.1)])
def test_a_whole_number_of_windows_survives_rounding(tau, length):
    found = schedule(window(length), fixed([tau, 5.0]), 2, 20)
    ends = found.aggregation[found.client == 0]
    np.testing.assert_array_equal(np.diff(ends), round(tau / length))


def test_numbers_of_the_published_implementation():
    """Aggregations, visits and participations in T = 60 as the authors' scheduler gives them."""
    tau = scenario(10, 80)
    found = schedule(window(0.5), fixed(tau), 10, 60)
    assert len(found.times) == 120 and len(found.client) == 840
    np.testing.assert_array_equal(found.matrix()[:2], [[-1] * 6 + [0] * 4, [0] * 6 + [1] * 4])
    assert found.staleness.max() == 1
    assert len(schedule(window(0.8), fixed(tau), 10, 60).times) == 75
    five = schedule(buffer(5), fixed(tau), 10, 60)
    assert len(five.times) == 205
    counts = [51, 53, 68, 69, 69, 102, 103, 106, 199, 205]
    np.testing.assert_array_equal(np.bincount(five.client), counts)
    homogeneous = schedule(first, fixed(scenario(10, 0)), 10, 60)
    assert len(homogeneous.times) == 600 and (homogeneous.staleness[10:] == 9).all()


def test_asynchronous_counts_are_those_of_the_clients():
    tau = np.array([1.0, 0.7, 0.31])
    found = schedule(first, fixed(tau), 3, 50)
    np.testing.assert_array_equal(np.bincount(found.client), np.floor(50 / tau + 1e-6))


def test_rules_by_the_name_of_their_scheme():
    arrivals = np.array([3.0, 1.0, 2.0])
    found = {scheme: rule_of(scheme, buffer_size=2, length=2.5)(arrivals, 0.0)
             for scheme in ("sync", "async", "fedbuff", "fedfix")}  # fmt: skip
    assert {scheme: (at, some.tolist()) for scheme, (at, some) in found.items()} == {
        "sync": (3.0, [0, 1, 2]), "async": (1.0, [1]), "fedbuff": (2.0, [1, 2]), "fedfix": (2.5, [1, 2]),
    }  # fmt: skip
    with pytest.raises(KeyError):
        rule_of("none")


def test_scenario_is_even_between_its_ends():
    np.testing.assert_allclose(scenario(5, 80), [1, 0.8, 0.6, 0.4, 0.2])
    np.testing.assert_allclose(scenario(3, 0), [1, 1, 1])
    np.testing.assert_allclose(scenario(1, 80), [1])


def test_exponential_clients_participate_by_their_rates():
    means = np.array([1.0, 0.5, 0.2])
    found = schedule(first, exponential(means), 3, 3000, seed=3)
    np.testing.assert_allclose(np.bincount(found.client) / 3000, 1 / means, rtol=0.06)
    length = 0.3
    share = schedule(window(length), exponential(means), 3, 3000, seed=4).participation
    np.testing.assert_allclose(share, 1 - np.exp(-length / means), rtol=0.05)


def test_resampled_clients_take_times_of_their_log():
    found = schedule(first, resampled([np.array([1.0, 2.0]), np.array([5.0])]), 2, 200)
    took = found.arrived - found.began
    assert set(took[found.client == 0].round(9)) == {1.0, 2.0}
    assert set(took[found.client == 1].round(9)) == {5.0}


rules = st.one_of(
    st.just(everyone), st.just(first), st.integers(1, 3).map(buffer),
    st.floats(0.1, 3).map(window),
)  # fmt: skip


@settings(max_examples=60)
@given(
    rule=rules, tau=st.lists(st.floats(0.2, 3), min_size=3, max_size=6), random=st.booleans(),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_what_holds_for_any_schedule(rule, tau, random, seed):
    clients = len(tau)
    kind = exponential if random else fixed
    found = schedule(rule, kind(tau), clients, 30, seed=seed)
    assert (np.diff(found.times) >= 0).all() and found.times[-1] <= 30 * (1 + 1e-9)
    assert (found.staleness >= 0).all() and (np.diff(found.aggregation) >= 0).all()
    ends = found.times[found.aggregation]
    assert (found.arrived <= ends * (1 + 1e-8) + 1e-8).all()
    for client in range(clients):
        own = found.client == client
        # Each begins on the model of its last aggregation, at that moment.
        np.testing.assert_array_equal(found.started_from[own][1:], found.aggregation[own][:-1] + 1)
        np.testing.assert_allclose(found.began[own][1:], ends[own][:-1])
        assert own.sum() == 0 or found.started_from[own][0] == 0
        assert len(set(found.aggregation[own])) == own.sum()
    np.testing.assert_array_equal(
        (found.matrix() >= 0).sum(0), np.bincount(found.client, minlength=clients)
    )


def test_visits_until_counts_whole_aggregations():
    found = schedule(everyone, fixed([1, 2]), 2, 6)
    np.testing.assert_array_equal(
        found.visits_until(np.array([0, 1.9, 2, 4.5, 6])), [0, 0, 2, 4, 6]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixed([1, 0]), "positive"),
        (lambda: fixed([]), "positive"),
        (lambda: exponential([np.nan]), "positive"),
        (lambda: window(0), "longer than 0"),
        (lambda: buffer(0), "at least one"),
        (lambda: schedule(buffer(4), fixed([1, 2]), 2, 9), "never fills"),
        (lambda: schedule(first, fixed([5]), 1, 2), "make it longer"),
        (lambda: schedule(window(1), fixed([5]), 1, 2), "make it longer"),
        (lambda: schedule(first, fixed([5]), 0, 2), "at least one client"),
        (lambda: scenario(3, 100), "percentage"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
