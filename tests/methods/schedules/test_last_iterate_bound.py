"""The bound term by term, its exact minimiser against L-BFGS, and what the authors' code gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from latebloom.methods.schedules.last_iterate_bound import (
    last_iterate_bound,
    optimal_rates,
    tail_weight_bound,
)

norm_rows = st.lists(st.floats(0.1, 10), min_size=2, max_size=25)


def term_by_term(rates, norms, distance):
    n = len(rates)
    tail = [sum(rates[k:]) for k in range(n)]
    energy = [sum((norms[j] * rates[j]) ** 2 for j in range(k, n)) for k in range(n)]
    found = distance**2 / (2 * tail[0]) + energy[0] / (2 * tail[0])
    return found + 0.5 * sum(rates[k] / (tail[k] * tail[k + 1]) * energy[k] for k in range(n - 1))


@given(data=st.data(), norms=norm_rows, distance=st.floats(0.1, 5))
def test_the_bound_is_the_formula(data, norms, distance):
    rates = data.draw(
        st.lists(st.floats(0.01, 3), min_size=len(norms), max_size=len(norms)), "rates"
    )
    expected = term_by_term(rates, norms, distance)
    assert last_iterate_bound(rates, norms, distance) == pytest.approx(expected, rel=1e-9)


def test_constant_norms_give_nearly_linear_decay():
    rates, bound = optimal_rates(np.ones(100))
    assert bound == pytest.approx(0.2001144, abs=1e-6)  # what the authors' optimiser ends on
    distance = np.abs(rates / rates.max() - (1 - np.arange(100) / 100))
    assert distance[:75].max() < 0.02
    step = 1 / np.sqrt(100)
    linear = last_iterate_bound(step * (1 - np.arange(100) / 100), np.ones(100))
    flat = last_iterate_bound(np.full(100, step), np.ones(100))
    assert bound <= linear < 0.21 and flat > 0.3


@settings(max_examples=15)
@given(norms=norm_rows, distance=st.floats(0.2, 5))
def test_no_optimiser_finds_anything_better(norms, distance):
    rates, bound = optimal_rates(norms, distance)
    assert last_iterate_bound(rates, norms, distance) == pytest.approx(bound, rel=1e-9)

    def value(logs):
        return last_iterate_bound(np.exp(np.clip(logs, -30, 10)), norms, distance)

    start = np.full(len(norms), np.log(distance / np.mean(norms) / np.sqrt(len(norms))))
    options = {"maxfun": 100_000, "maxiter": 2000, "ftol": 1e-14, "maxcor": 20}
    found = optimize.minimize(value, start, method="L-BFGS-B", options=options)
    assert bound <= found.fun * (1 + 1e-9)
    assert found.fun <= bound * 1.001


@pytest.mark.parametrize(
    ("norms", "distance", "bound", "shape"),
    [
        (np.ones(100), 1.0, 0.200114358, [1.0, 0.75013, 0.50142, 0.25545, 0.09919]),
        (np.linspace(3, 1, 60), 2.0, 0.847407181, [0.2734, 0.35945, 0.47927, 0.60017, 1.0]),
    ],
)
def test_the_authors_optimiser_ends_here_too(norms, distance, bound, shape):
    rates, found = optimal_rates(norms, distance)
    n = len(rates)
    assert found == pytest.approx(bound, rel=1e-7)
    at = (rates / rates.max())[[0, n // 4, n // 2, 3 * n // 4, -1]]
    np.testing.assert_allclose(at, shape, atol=2e-3)


def test_two_steps_in_closed_form():
    # S_0 and r = S_1/S_0 by hand: c_1 = 2, c_0 = 1 * (sqrt(1 + 4) - 1).
    rates, bound = optimal_rates([1.0, 2.0], distance=3.0)
    cost = np.sqrt(5) - 1
    total = 3 / np.sqrt(2 * cost)
    np.testing.assert_allclose(rates, [total * (1 - 5**-0.5), total * 5**-0.5])
    assert bound == pytest.approx(3 * np.sqrt(2 * cost))


@given(norms=norm_rows, weights=st.data())
def test_inverse_square_weights_minimise_the_tail_weight_bound(norms, weights):
    w = weights.draw(st.lists(st.floats(0.1, 5), min_size=len(norms), max_size=len(norms)))
    g = np.array(norms)
    best = tail_weight_bound(g**-2.0, g, 2.0)
    assert best == pytest.approx(2 / np.sqrt(np.sum(g**-2.0)))
    assert best <= tail_weight_bound(np.array(w), g, 2.0) * (1 + 1e-12)


def test_uniform_weights_give_the_worst_case_rate():
    assert tail_weight_bound(np.ones(400), np.full(400, 3.0), 2.0) == pytest.approx(2 * 3 / 20)


@pytest.mark.parametrize("bad", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 1.0]]])
def test_numbers_that_are_none(bad):
    for call in (
        lambda: optimal_rates(bad),
        lambda: last_iterate_bound(bad, np.ones(np.shape(bad))),
        lambda: last_iterate_bound(np.ones(np.shape(bad)), bad),
        lambda: tail_weight_bound(bad, bad),
    ):
        with pytest.raises(ValueError, match="row of at least 2 finite numbers above 0"):
            call()


def test_lengths_and_distances_that_do_not_fit():
    with pytest.raises(ValueError, match="2 rates and 3 norms"):
        last_iterate_bound([1.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="distance"):
        optimal_rates([1.0, 1.0], distance=0.0)
