"""Fits of need by recency: exact counts give their exponents back, logs are counted by loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from latebloom.methods.forgetting.recency import Need, fit_ages, fit_need, lag_counts, need


def drawn(exponent, rows=6, ages=10, size=1e4):
    """Expected counts of draws from the ages 1 to n, n = 2, 3, ..."""
    chances = np.tril(np.ones((rows, ages)), 1)
    odds = chances * np.arange(1, ages + 1.0) ** -exponent
    return size * odds / odds.sum(axis=1, keepdims=True), chances


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.5])
def test_exact_counts_give_the_exponent_back(exponent):
    counts, chances = drawn(exponent)
    found = fit_ages(counts, chances)
    assert found.exponent == pytest.approx(exponent, abs=1e-4)
    assert found.line == pytest.approx(exponent, abs=1e-9)
    assert found.against_exponential >= -1e-3 and (exponent == 0) == (found.z < 1)


def test_error_is_that_of_many_samples_and_ratios_know_an_exponential():
    rng, p = np.random.default_rng(0), np.arange(1, 21.0) ** -1.2
    samples = rng.multinomial(500, p / p.sum(), size=300)
    fits = [fit_ages(sample) for sample in samples]
    spread = np.std([fit.exponent for fit in fits])
    assert np.mean([fit.error for fit in fits]) == pytest.approx(spread, rel=0.15)
    assert np.mean([fit.exponent for fit in fits]) == pytest.approx(1.2, abs=0.02)
    assert np.mean([fit.z for fit in fits]) > 3
    q = np.exp(-0.3 * np.arange(20))
    assert np.mean([fit_ages(rng.multinomial(500, q / q.sum())).z for _ in range(20)]) < -3


def test_maximum_likelihood_against_a_plain_search():
    counts = np.array([40, 22, 9, 11, 3, 0, 2])
    age = np.arange(1, 8)

    def minus(d):
        p = age**-d
        return -(counts * np.log(p / p.sum())).sum()

    wanted = optimize.brute(lambda d: minus(d[0]), ((0, 4),), Ns=4001)[0]
    assert fit_ages(counts).exponent == pytest.approx(wanted, abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    events=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=25),
    more=st.integers(0, 4),
)
def test_need_counts_what_loops_count(events, more):
    task, time = np.array(events).T
    start, end = time.min(), time.max() + more
    met, chances = np.zeros(20, int), np.zeros(20, int)
    for i in set(task.tolist()):
        days = set(time[task == i].tolist())
        last = min(days)
        for day in range(last + 1, end + 1):
            chances[day - last] += 1
            if day in days:
                met[day - last] += 1
                last = day
    found = need(task, time, until=float(end))
    size = max(end - start, 1)
    assert found.met.tolist() == met[1 : size + 1].tolist()
    assert found.chances.tolist() == chances[1 : size + 1].tolist()
    assert not met[size + 1 :].any() and not chances[size + 1 :].any()


def test_periods_are_units_of_age_and_names_may_be_words():
    found = need(["b", "a", "a", "b"], [3600.0, 0.0, 7200.0, 100.0], period=3600.0)
    assert found.met.tolist() == [1, 1] and found.chances.tolist() == [3, 1]
    np.testing.assert_allclose(found.probability, [1 / 3, 1])


def test_lags_are_counted_where_they_had_time_to_end():
    met = np.zeros((8, 7))
    met[3, 2] = 5  # began at 0
    met[6, 2] = 7  # began at 3
    met[7, 2] = 9  # began at 4, in the second half
    assert lag_counts(met).tolist() == [0, 0, 12]


@pytest.mark.parametrize(("scale", "exponent"), [(0.5, 1.0), (0.2, 0.4), (0.9, 1.7)])
def test_exact_need_gives_scale_and_exponent_back(scale, exponent):
    age = np.arange(1, 31.0)
    chances = np.full(30, 10**6)
    met = np.round(chances * scale * age**-exponent).astype(int)
    found = fit_need(Need(age, met, chances))
    assert found.exponent == pytest.approx(exponent, abs=2e-3)
    assert found.scale == pytest.approx(scale, abs=2e-3)
    assert found.line == pytest.approx(exponent, abs=2e-3) and found.z > 2
    assert 0 < found.error < 0.01


def test_ages_of_ones_own_have_the_same_line():
    met = np.array([5000, 2500, 1250, 625])
    found = fit_need(Need(np.array([2.0, 4, 8, 16]), met, np.full(4, 10_000)))
    assert found.line == pytest.approx(1.0) and found.exponent == pytest.approx(1.0, abs=1e-4)


def test_what_is_all_as_young_or_old_as_it_could_be_has_no_finite_exponent():
    part = [[0, 4, 0], [7, 0, 0]]  # the youngest that there were are of age 2 and 1
    some = [[0, 1, 1], [1, 1, 1]]
    for found, exponent, events in (
        (fit_ages([9, 0, 0]), np.inf, 9),
        (fit_ages([0, 0, 9]), -np.inf, 9),
        (fit_ages(part, some), np.inf, 11),
        (fit_need(Need(np.array([1.0, 2, 4]), np.array([3, 0, 0]), np.full(3, 9))), np.inf, 3),
        (fit_need(Need(np.array([1.0, 2, 4]), np.array([0, 0, 3]), np.full(3, 9))), -np.inf, 3),
    ):
        assert found.exponent == exponent and found.error == np.inf and found.events == events
        assert (found.against_exponential, found.z) == (0, 0) and np.isnan(found.scale)
    assert np.isfinite(fit_ages([0, 9, 0]).exponent)


@pytest.mark.parametrize("exponent", [-7.0, 19.0])
def test_steep_laws_are_found_beyond_the_usual_range(exponent):
    p = np.array([1.0, 2.0]) ** -exponent
    assert fit_ages(1e9 * p / p.sum()).exponent == pytest.approx(exponent, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: need([None, "a", "b"], [0.0, 1.0, 2.0]), "event 0 has None"),
        (lambda: need(["a", "a"], [0.0, 1e9]), "into 1e\\+09 ages"),
        (lambda: need([1.0, np.nan], [0.0, 1.0]), "event 1 has nan"),
        (lambda: need(np.array(["a", 1], object), [0.0, 1.0]), "all of one kind"),
        (lambda: fit_ages([1.0, -1.0]), "not negative"),
        (lambda: fit_ages([[1.0, 2.0]], [[1.0, 0.0]]), "could not be"),
        (lambda: fit_ages([0.0, 0.0]), "a draw that had two ages"),
        (lambda: fit_ages([3.0, 1.0], [1.0, 1.0, 1.0]), "of one shape"),
        (lambda: need([1, 2], [0.0]), "the same length"),
        (lambda: need([], []), "at least 1"),
        (lambda: need([1], [np.nan]), "finite times"),
        (lambda: need([1], [2.0], until=1.0), "until must not be before"),
        (lambda: need([1], [2.0], until=np.nan), "until must not be before"),
        (lambda: need([1, 1], np.array(["2024-01-01", "NaT"], "M8[D]")), "dates as days"),
        (lambda: need([1], ["2024-01-01"]), "dates as days"),
        (lambda: fit_ages([3.0, 1.0], [1.0, np.nan]), "finite"),
        (
            lambda: fit_need(Need(np.array([1.0, 2.0]), np.array([7, 2]), np.array([5, 5]))),
            "to chances",
        ),
        (lambda: need([1], [2.0], period=0.0), "period must be above 0"),
        (lambda: fit_need(need([1, 2], [0.0, 3.0])), "something that came back"),
    ],
)
def test_bad_inputs(call, said):
    with pytest.raises(ValueError, match=said):
        call()
