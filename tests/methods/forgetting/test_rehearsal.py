"""Rehearsal by age: laws and shares by hand, encounters by closed forms and enumeration, streams by their rows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from latebloom import unfold
from latebloom.core.stream import domain_incremental
from latebloom.methods.forgetting import rehearsal as r
from latebloom.methods.forgetting.rehearsal import Environment, Exponential, PowerLaw, Window


def close(found, wanted, tolerance=1e-9):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=tolerance)


def test_laws_and_shares_by_hand():
    ages = np.array([1, 2, 4])
    close(PowerLaw(1.0)(ages), [1, 1 / 2, 1 / 4])
    close(Exponential(np.log(2))(ages), [1, 1 / 2, 1 / 8])
    close(Window()(ages), [1, 1, 1])
    close(Window(1.5)(ages), [1, 0.5, 0])
    close(r.shares(PowerLaw(1.0), 4)[3], np.array([1 / 3, 1 / 2, 1, 0]) / (11 / 6))
    close(r.shares(PowerLaw(1.0), 4, current=True)[2], np.array([1 / 3, 1 / 2, 1, 0]) / (11 / 6))
    close(r.shares(Window(), 4), [[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [1 / 3] * 3 + [0]])
    close(r.shares(Window(1.0), 4), [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    with pytest.raises(ValueError, match="finite odds"):
        r.shares(Window(0.0), 4)


def ages_of(law, tasks):
    """(age, weight) of everything that is rehearsed, by loops."""
    return [
        (k - i, law(np.array(k - i)) / sum(law(np.array(k - j)) for j in range(k)))
        for k in range(1, tasks)
        for i in range(k)
    ]


@pytest.mark.parametrize("kind", [Exponential, Window])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_rivals_have_the_same_mean_or_half_age(kind, exponent):
    def mean(law):
        ages, weights = np.array(ages_of(law, 12)).T
        return ages @ weights / weights.sum()

    law = PowerLaw(exponent)
    close(mean(r.matched(law, 12, kind)), mean(law), 1e-6)

    def half(law):
        ages, weights = np.array(ages_of(law, 12)).T
        below = [weights[ages <= a].sum() / weights.sum() for a in range(12)]
        k = next(a for a in range(12) if below[a] >= 0.5)
        return k - 1 + (0.5 - below[k - 1]) / (below[k] - below[k - 1])

    try:
        rival = r.matched(law, 12, kind, "half age")
    except ValueError:  # a steep law is younger than the youngest window
        assert kind is Window and exponent == 2.0
    else:
        close(half(rival), half(law), 1e-6)


def test_a_law_that_rises_has_no_rival():
    with pytest.raises(ValueError, match="no Exponential has the mean age"):
        r.matched(PowerLaw(-1.0), 8, Exponential)


def test_times_to_come_back_under_odds_k_over_age():
    k, a = 0.5, np.arange(1, 60)
    log = gammaln(a - k) - gammaln(a) - gammaln(1 - k)
    close(r.lag_probabilities(k / a), k / a * np.exp(log))
    far = np.array([2000.0, 4000.0])
    tail = r.lag_probabilities(k / np.arange(1, 4001))[[1999, 3999]]
    close(-np.diff(np.log(tail)) / np.diff(np.log(far)), 1 + k, 1e-3)


def test_meeting_probabilities_by_enumeration():
    odds = np.array([0.5, 0.2, 0.7, 0.1])
    found = np.zeros(4)
    for history in itertools.product([0, 1], repeat=4):
        chance, last = 1.0, 0
        for time, met in enumerate(history, start=1):
            p = odds[time - last - 1]
            chance *= p if met else 1 - p
            last = time if met else last
        found += chance * np.array(history)
    close(r.meeting_probabilities(odds), found)
    pairs = np.array([4, 3, 2, 1])
    law = {1: 0.5, 2: 0.2, 3: 0.7, 4: 0.1}
    scale = r.as_often(lambda a: np.vectorize(law.get)(a), 1.0, 5)
    close(scale * pairs.sum(), pairs @ found)


def test_encounters_are_as_likely_as_their_odds_and_never_none():
    odds = np.array([0.4, 0.3, 0.2, 0.1, 0.05, 0.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    met = np.asarray(jax.jit(jax.vmap(lambda key: r.encounters(odds, key=key)))(keys))
    assert not np.triu(np.ones((6, 6), bool))[None].repeat(4000, 0)[met].any()
    assert met[:, 1:].any(axis=2).all() and not met[:, 0].any()
    # Of time 2 by hand: at time 1 task 0 is met for sure, so that both are of age 1.
    both, one = 0.4**2, 2 * 0.4 * 0.6
    close(met[:, 2, :2].all(axis=1).mean(), both, 0.03)
    close((met[:, 2, :2].sum(axis=1) == 1).mean(), one + 0.36, 0.03)
    # Where none would come, the last of those with the highest odds does.
    close(met[:, 2, 1].mean(), 0.4 + 0.36, 0.03)
    never = r.encounters(np.full(4, 0.0), key=jax.random.key(1))
    assert np.asarray(never).sum(axis=1).tolist() == [0, 1, 1, 1]
    close(r.met_shares(jnp.asarray([[False, False], [True, False]])), [[1, 0], [1, 0]])


@pytest.mark.parametrize("since", ["introduced", "met"])
def test_events_keep_the_budget_and_the_ages(since):
    world = Environment(12, budget=300, since=since)
    events = world.events(3)
    assert (events.groupby("time").examples.sum().values[1:] == 300).all()
    assert (events.time.diff().dropna() >= 0).all()
    last = {}
    for row in events.itertuples():
        if row.age == 0:
            assert row.task == row.time and row.examples == 0
            last[row.task] = row.time
        else:
            assert row.age == row.time - last[row.task] > 0
            last[row.task] = row.time if since == "met" else last[row.task]
    assert events.equals(world.events(3)) and not events.equals(world.events(4))
    table = np.asarray(world.shares(jax.random.key(3)))
    close(table.sum(axis=1), np.ones(12), 1e-6)


@pytest.mark.parametrize("since", ["introduced", "met"])
def test_counted_ages_are_those_of_the_environment(since):
    world = Environment(8, PowerLaw(1.0), 200, since)
    trace = unfold(r.Ages(world), seeds=2, at=[100], progress=False)
    drawn, chances = (trace[n].values[:, -1].sum(axis=0) for n in ("drawn", "chances"))
    if since == "introduced":
        assert drawn[1:].sum(axis=1).tolist() == [200 * 200] * 7
        wanted = [np.trace(r.shares(PowerLaw(1.0), 8), -a) for a in range(1, 8)]
        close(drawn.sum(0) / drawn.sum(), np.array(wanted) / 7, 0.005)
        close(chances[5], [200] * 5 + [0] * 2)
    else:
        assert chances[1:].sum(axis=1).tolist() == [200.0 * n for n in range(1, 8)]
        late = drawn[4:].sum(0) / np.maximum(chances[4:].sum(0), 1)
        close(late[:4], world.odds[:4], 0.05)


def base(tasks=4, steps=6, batch=10):
    y, test = np.arange(200) % 10, np.arange(50) % 10
    return domain_incremental(
        y, test, key=jax.random.key(5), tasks=tasks, steps=steps, batch_size=batch, exam_size=10
    )


@pytest.mark.parametrize("when", ["after", "mixed"])
def test_a_rehearsed_stream_gives_the_same_places_to_earlier_tasks(when):
    plain = base()
    table = r.shares(PowerLaw(1.0), 4)
    made = r.rehearsed(plain, table, examples=24, key=jax.random.key(1), when=when)
    task, origin = np.asarray(made.task)[:, None], np.asarray(made.origin)
    rows, before = np.asarray(made.rows), np.asarray(plain.rows)
    assert ((origin < task).sum(axis=1).reshape(4, 6).sum(axis=1) == [0, 24, 24, 24]).all()
    assert (origin <= task).all() and (rows[:6] == before[:6]).all()
    if when == "after":
        assert (origin[task[:, 0] > 0].reshape(3, 60)[:, :36] == [[1], [2], [3]]).all()
    else:
        assert np.isin((origin < task)[6:].sum(axis=1), (3, 4, 5)).all()
    for k in range(4):
        part = slice(6 * k, 6 * k + 6)
        own = rows[part][origin[part] == k]
        assert (own == before[part].ravel()[: len(own)]).all()  # in their order
        for i in range(k):
            old = rows[part][origin[part] == i]
            known = before[6 * i : 6 * i + 6].ravel()[: 60 if i == 0 else 36]
            assert np.isin(old, known).all() and len(set(old.tolist())) == len(old)


def test_rehearsal_follows_its_shares_and_the_seed():
    plain, table = base(), r.shares(PowerLaw(1.0), 4)

    def origins(key):
        return r.rehearsed(plain, table, examples=24, key=key).origin

    found = np.asarray(jax.vmap(origins)(jax.random.split(jax.random.key(2), 300)))
    counts = np.array([(found[:, 18:] == i).sum() for i in range(3)])
    close(counts / counts.sum(), table[3, :3], 0.02)
    assert (found[0] != found[1]).any()
    kept = r.rehearsed(plain, np.eye(4), examples=24, key=jax.random.key(0))
    assert (np.asarray(kept.origin) == np.asarray(plain.task)[:, None]).all()
    none = r.rehearsed(plain, table, examples=0, key=jax.random.key(0))
    assert (none.rows == plain.rows).all()


@pytest.mark.parametrize(
    ("examples", "shares", "said"),
    [
        (60, np.eye(4), "less than the 60 places"),
        (2.5, np.eye(4), "a whole number"),
        (5, np.eye(3), r"shares must be \[4, 4\]"),
        (5, np.full((4, 4), 0.25), "none above the diagonal"),
        (5, np.zeros((4, 4)), "some above 0 in every row"),
        (5, -np.eye(4), "not negative"),
        (5, np.full((4, 4), np.nan), "finite"),
    ],
)
def test_streams_that_cannot_rehearse(examples, shares, said):
    with pytest.raises(ValueError, match=said):
        r.rehearsed(base(), shares, examples=examples, key=jax.random.key(0))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    part=st.floats(0, 1),
    exponent=st.floats(0, 3),
)
def test_a_plan_spends_the_budget_and_no_more_than_there_is(sizes, part, exponent):
    budget = int(part * sum(sizes))
    found = r.plan(sizes, budget, law=PowerLaw(exponent))
    count, size = found.examples.values, np.array(sizes)
    assert count.sum() == budget and (count >= 0).all() and (count <= size).all()
    # Slices that are not used up have examples in proportion to their odds, up to rounding.
    odds = np.arange(len(sizes), 0, -1.0) ** -exponent
    level = np.where(count < size, count / odds, np.inf)
    if (count < size).any():
        least = max(((count[i] - 1) / odds[i] for i in range(len(sizes)) if count[i]), default=0)
        assert level.min() >= least - 1 / odds.min() - 1e-6


def test_a_plan_by_hand():
    found = r.plan({"jan": 100, "feb": 1000, "mar": 50}, 600)
    assert found.examples.tolist() == [100, 450, 50] and found.slice.tolist() == [
        "jan",
        "feb",
        "mar",
    ]
    assert found.equals(r.plan(pd.Series({"jan": 100, "feb": 1000, "mar": 50}), 600))
    assert r.plan([500, 500], 300, ages=[4.0, 2.0]).examples.tolist() == [100, 200]
    assert r.plan([10, 10, 10], 20, law=Window(1.0)).examples.tolist() == [5, 5, 10]
    rows = r.planned_rows(found, 1)
    assert rows["mar"].tolist() == list(range(50)) and len(np.unique(rows["feb"])) == 450


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: r.plan([10, 10], 21), "up to the 20 examples"),
        (lambda: r.plan([10, 10], 2.5), "whole number"),
        (lambda: r.plan([10, -1], 2), "sizes must be"),
        (lambda: r.plan([], 0), "sizes must be"),
        (lambda: r.plan([10, 10], 2, ages=[1.0, 0.0]), "ages must be 2 finite"),
        (lambda: r.plan([10, 10], 2, ages=[1.0]), "ages must be 2 finite"),
        (lambda: r.plan([10, 10], 2, law=Window(0.0)), "finite odds"),
        (lambda: r.plan([10, 10], np.nan), "whole number"),
        (lambda: r.plan(pd.Series([1, 2], ["a", "a"]), 2), "names of its own"),
        (lambda: Environment(5, since="Met"), "since must be one of introduced, met"),
        (lambda: r.matched(PowerLaw(), 5, Exponential, "median"), "by must be one of"),
        (
            lambda: r.rehearsed(
                base(), np.eye(4), examples=5, key=jax.random.key(0), when="before"
            ),
            "when must",
        ),
        (lambda: r.shares(PowerLaw(), 0), "tasks must be a whole number from 1 on, not 0"),
        (lambda: r.matched(PowerLaw(), 1, Exponential), "from 2 on, not 1"),
        (
            lambda: r.rehearsed(
                r.rehearsed(base(), np.eye(4), examples=5, key=jax.random.key(0)),
                np.eye(4),
                examples=5,
                key=jax.random.key(0),
            ),
            "rehearses already",
        ),
        (lambda: Environment(5, PowerLaw(np.nan)), "finite odds"),
        (lambda: Environment(5, PowerLaw(np.nan), since="met"), "must give odds"),
        (lambda: Environment(5, Window(0.0), since="met"), "must give odds"),
        (lambda: Environment(1), "an environment needs 2 tasks"),
        (lambda: Environment(5, budget=0), "a budget of 1"),
        (lambda: Environment(5, scale=0.0), "a scale above 0"),
    ],
)
def test_bad_inputs(call, said):
    with pytest.raises(ValueError, match=said):
        call()
