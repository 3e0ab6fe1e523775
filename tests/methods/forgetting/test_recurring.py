"""Plans of recurring classes against counts and brute force; replay against a schedule worked out in Python."""

import heapq
import itertools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import unfold
from latebloom.core.dataset import Dataset
from latebloom.core.stream import Exams, Stream, by_plan, class_incremental, drawn
from latebloom.methods.forgetting import recurring
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.recurring import (
    ByFrequency,
    Occurrences,
    Recurring,
    Relabelled,
    frequency_replay,
    random_replay,
    replaying,
)
from latebloom.nn import MLP

KEY = jax.random.key(5)


def test_frequencies_are_the_papers_law():
    np.testing.assert_allclose(recurring.frequencies(10), 0.1)
    # The authors' code: p - f i / N, normalised, to the power of g, normalised.
    for n, f, g in ((10, 0.05, 2.0), (100, 0.01, 4.0), (20, 0.05, 1.0)):
        p = 1 / n - (1 / n) * np.arange(n) * f
        p = (p / p.sum()) ** g
        np.testing.assert_allclose(recurring.frequencies(n, g), p / p.sum())
    np.testing.assert_allclose(recurring.frequencies(3, 1.0, 0.25), np.array([4, 3, 2]) / 9)


def test_weights_of_periods_and_of_vanishing_classes():
    np.testing.assert_array_equal(
        recurring.vanishing(4, 5),
        [[1, 1, 1, 1]] * 3 + [[1, 1, 0, 0]] * 2,
    )
    np.testing.assert_array_equal(recurring.vanishing(4, 4)[:, 3], [1, 1, 0, 0])
    np.testing.assert_array_equal(recurring.periods(4, 5), [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 2)
    plan = np.asarray(drawn(recurring.vanishing(6, 60), 2, key=KEY))
    assert (plan.sum(axis=1) == 2).all() and plan[:30].any(axis=0).all()
    assert not plan[30:, 3:].any() and plan[30:, :3].any(axis=0).all()


def test_cycles_are_all_combinations_in_their_order():
    every = list(itertools.combinations(range(5), 2))
    plan = np.asarray(recurring.cycled(5, 23, 2, key=KEY))
    assert [tuple(np.flatnonzero(row)) for row in plan] == (every * 3)[:23]
    loose = np.asarray(recurring.cycled(5, 3000, 2, random=0.4, key=KEY))
    fixed = np.asarray(recurring.cycled(5, 3000, 2, key=KEY))
    # Both are kept, or replaced by a class of the pair: (0.6 + 0.4 / 5)^2 + (0.4 / 5)^2.
    same = (loose == fixed).all(axis=1).mean()
    assert same == pytest.approx((0.6 + 0.08) ** 2 + 0.08**2, abs=0.03)
    assert set(loose.sum(axis=1)) == {1, 2}


def test_couples_are_a_share_of_all_and_groups_come_in_turn():
    plan = np.asarray(recurring.coupled(6, 400, 2, share=0.3, key=KEY))
    assert len({tuple(row) for row in plan}) == int(0.3 * 15) and (plan.sum(axis=1) == 2).all()
    other = np.asarray(recurring.coupled(6, 400, 2, share=0.3, key=jax.random.key(1)))
    assert {tuple(row) for row in plan} != {tuple(row) for row in other}
    turns = np.asarray(recurring.disjoint(6, 7, 2, key=KEY))
    assert (turns[:3].sum(axis=0) == 1).all() and (turns[3:6] == turns[:3]).all()
    stay = np.asarray(recurring.disjoint(6, 9, 3, stay=4, key=KEY))
    assert (stay[:4] == stay[0]).all() and (stay[4:8] == ~stay[0]).all() and (stay[8] == stay[0]).all()  # fmt: skip


def test_odds_that_fall_with_each_visit_make_classes_take_turns():
    even = np.full(6, 1 / 6)
    many = jax.vmap(lambda key: recurring.reduced(even, 30, 2, by=1e6, key=key))
    plans = np.asarray(many(jax.random.split(KEY, 5)))
    assert (plans.reshape(5, 10, 3, 6).sum(axis=2) == 1).all()
    free = np.asarray(recurring.reduced(even, 3000, 2, by=1.0, key=KEY))
    assert (free.sum(axis=1) == 2).all()
    np.testing.assert_allclose(free.mean(axis=0), 1 / 3, atol=0.04)
    # Weights 4, 1, 1 and one class a task: the second task by hand, after the first class came once.
    one = jax.vmap(lambda key: recurring.reduced(jnp.array([4.0, 1, 1]), 2, 1, by=2.0, key=key))
    first, second = np.asarray(one(jax.random.split(KEY, 20_000))).transpose(1, 0, 2)
    assert first.mean(axis=0)[0] == pytest.approx(4 / 6, abs=0.01)
    assert second[first[:, 0]].mean(axis=0)[0] == pytest.approx(2 / 4, abs=0.015)


def by_hand(plan, rule, worth=None):
    """The authors' loop, with a heap of (worth, class)."""
    times, value, found = {}, {}, []
    for task, here in enumerate(plan):
        current = np.flatnonzero(here).tolist()
        heap = [(v, c) for c, v in value.items()]
        heapq.heapify(heap)
        chosen = []
        while heap and len(chosen) < rule.count:
            v, c = heapq.heappop(heap)
            if c in current or times[c] < rule.least:
                continue
            if v / task > rule.high:
                break
            if v / task > rule.low:
                chosen.append(c)
        found.append(np.isin(np.arange(plan.shape[1]), chosen))
        for c in current + chosen:
            times[c] = times.get(c, 0) + 1
            value[c] = value.get(c, 0.0) + (1.0 if worth is None else float(worth[task, c]))
    return np.array(found)


replays = jax.jit(lambda plan, worth, rule: frequency_replay(plan, rule, worth), static_argnums=2)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(0.0, 0.3, 1), (0.05, 0.5, 3), (0.01, 0.1, 3)]),
    st.booleans(),
)
def test_frequency_replay_is_the_authors_loop(seed, bounds, weighed):
    rng = np.random.default_rng(seed)
    order = (rng.random((60, 9)) * np.geomspace(0.05, 1, 9)).argsort(axis=1)[:, -2:]
    plan = np.eye(9, dtype=bool)[order].any(axis=1)
    rule = ByFrequency(2, *bounds)
    # Eighths, so that sums are exact whatever their order.
    worth = rng.integers(0, 9, (60, 9)) / 8 if weighed else None
    found = replays(plan, np.ones((60, 9)) if worth is None else worth, rule)
    np.testing.assert_array_equal(found, by_hand(plan, rule, worth))


def test_occurrences_count_replays_and_weigh_them():
    seen = Occurrences.none(3).after(jnp.array([True, True, False]))
    seen = seen.after(jnp.array([True, False, False]), jnp.array([0.25, 0.5, 0.5]))
    assert seen.times.tolist() == [2, 1, 0] and seen.worth.tolist() == [1.25, 1, 0]
    assert int(seen.tasks) == 2


def test_random_replay_draws_as_many_from_those_that_came():
    plan = np.eye(5, dtype=bool)[[0, 1, 2, 0, 1, 2, 3, 0]]
    numbers = np.array([2, 2, 1, 2, 1, 0, 9, 2])
    many = jax.vmap(lambda key: random_replay(plan, numbers, key=key))
    again = np.asarray(many(jax.random.split(KEY, 3000)))
    assert (again.sum(axis=2) == [0, 1, 1, 2, 1, 0, 3, 2]).all()
    assert not (again & plan).any() and not again[:, :, 4].any()
    np.testing.assert_allclose(again[:, 7, 1:4].mean(axis=0), 2 / 3, atol=0.03)


def made(rows, labels, classes):
    """A stream of tasks of one batch each, as told."""
    rows = jnp.asarray(rows, jnp.int32)
    tasks = len(rows)
    here = np.zeros((tasks, classes), bool)
    for task, row in enumerate(np.asarray(rows)):
        here[task, np.asarray(labels)[row]] = True
    exams = Exams(jnp.zeros((classes, 1), jnp.int32), jnp.zeros(classes, jnp.int32), jnp.zeros(classes, jnp.int32))  # fmt: skip
    return Stream(rows, jnp.arange(tasks), jnp.asarray(here), exams, tuple(range(tasks)))


def test_a_memory_is_filled_at_once_and_renewed_by_a_share():
    labels = np.repeat([0, 1], 40)
    # Class 0: rows 0-7, then 8-15, then 16-23, and so on; class 1 rows from 40 on, with class 0 replayed.
    new = [list(range(8 * k, 8 * k + 8)) for k in range(4)]
    other = [[40 + k] * 8 for k in range(30)]
    order = [new[0], *other[:10], new[1], *other[10:20], new[2], *other[20:30]]
    again = np.array([[row[0] >= 40, False] for row in order])
    stream = made(order, labels, 2)

    def run(key):
        return replaying(stream, again, labels, count=1, places=6, memory=4, key=key).rows

    for rows in np.asarray(jax.vmap(run)(jax.random.split(KEY, 20))):
        sets = [set(rows[a : a + 10, :6].ravel().tolist()) for a in (1, 12, 23)]
        first, second, third = (np.array(sorted(s)) for s in sets)
        assert len(first) == len(second) == len(third) == 4
        assert (first < 8).all()
        # Replays count: 11 occurrences by then, and a twentieth of 4 is at least 1.
        assert sorted(second // 8).count(1) == 1 and sorted(third // 8).count(2) == 1
        np.testing.assert_array_equal(rows[1:11, 6:], np.array(other[:10])[:, 6:])
        np.testing.assert_array_equal(rows[[0, 11, 22]], new[:3])
    twice = made([new[0], new[1], other[0], other[1]], labels, 2)
    again = np.array([[False, False], [False, False], [True, False], [True, False]])
    rows = np.asarray(replaying(twice, again, labels, count=1, places=8, memory=4, key=KEY).rows)
    old = np.unique(rows[2:])
    assert (old < 8).sum() == (old // 8 == 1).sum() == 2  # after one occurrence a half is renewed


def test_replayed_classes_take_their_places_alone():
    labels = np.arange(120) % 6
    plan = drawn(np.ones((40, 6)), 2, key=KEY)
    stream = by_plan(labels, labels, plan, key=KEY, steps=3, batch_size=8, classes=2, exam_size=5)
    again = frequency_replay(plan, ByFrequency(2, 0.0, 1.0, 1))
    mixed = replaying(stream, again, labels, count=2, places=3, memory=5, key=KEY)
    assert mixed.rows.dtype == stream.rows.dtype and mixed.starts == stream.starts
    before, after = (np.asarray(s.rows).reshape(40, 3, 8) for s in (stream, mixed))
    np.testing.assert_array_equal(before[:, :, 6:], after[:, :, 6:])
    for task in range(40):
        wanted = np.flatnonzero(again[task]).tolist()
        for slot in range(2):
            place = after[task, :, 3 * slot : 3 * slot + 3]
            if slot < len(wanted):
                assert (labels[place] == wanted[slot]).all()
                shown = before[:task][np.asarray(plan)[:task, wanted[slot]]]
                assert set(place.ravel()) <= set(shown.ravel())
            else:
                np.testing.assert_array_equal(place, before[task, :, 3 * slot : 3 * slot + 3])


def test_each_task_has_one_version_of_its_examples():
    labels = np.arange(12) % 3
    plain = by_plan(labels, labels, np.ones((50, 3), bool), key=KEY, steps=2, batch_size=4, classes=3, exam_size=2)  # fmt: skip
    stream = recurring.in_versions(plain, 12, 4, key=KEY)
    version, row = np.divmod(np.asarray(stream.rows).reshape(50, 8), 12)
    np.testing.assert_array_equal(row, np.asarray(plain.rows).reshape(50, 8))
    assert (version == version[:, :1]).all() and set(version[:, 0]) == {0, 1, 2, 3}


rng = np.random.default_rng(0)
Y = np.arange(60, dtype=np.int32) % 4
X = (rng.normal(size=(60, 6)) + 2 * np.eye(6)[Y]).astype(np.float32)
DATA = Dataset(jnp.asarray(X[:40]), jnp.asarray(Y[:40]), jnp.asarray(X[40:]), jnp.asarray(Y[40:]))


def process(plan=None, **more):
    plan = np.eye(4, dtype=bool)[[0, 1, 0, 2]] if plan is None else plan

    def stream(key):
        return by_plan(Y[:40], Y[40:], plan, key=key, steps=3, batch_size=5, classes=1, exam_size=5)

    settings = {
        "model": lambda key: MLP(6, (5,), 4, key=key), "data": DATA, "stream": stream, "method": Method(),
        "optimiser": optax.sgd, "hyper": {"learning_rate": 0.1},
    }  # fmt: skip
    return Recurring(**(settings | more))


def test_what_is_told_of_each_class():
    trace = unfold(process(), seeds=2, at=[0, 1, 3, 4, 9, 12], progress=False)
    here = trace.present.sel(seed=0).values
    np.testing.assert_array_equal(here.argmax(axis=1), [0, 0, 0, 1, 0, 2])
    assert (here.sum(axis=1) == 1).all()
    often = trace.frequency.sel(seed=1).values
    np.testing.assert_allclose(often[[0, 2]], [[1, 0, 0, 0]] * 2)
    np.testing.assert_allclose(often[[3, 4, 5]], [[1 / 2, 1 / 2, 0, 0], [2 / 3, 1 / 3, 0, 0], [1 / 2, 1 / 4, 1 / 4, 0]])  # fmt: skip


@pytest.mark.parametrize("head", ["all", "batch"])
def test_a_relabelled_task_is_learned_under_other_names(head):
    two = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)

    def stream(key):
        return by_plan(Y[:40], Y[40:], two, key=key, steps=3, batch_size=5, classes=2, exam_size=5)

    names = np.array([[2, 0, 3, 1], [1, 3, 0, 2]])
    one = process(stream=stream, method=Relabelled(jnp.asarray(names)), head=head)
    step = eqx.filter_jit(type(one).step)
    state = one.init(KEY)._replace(step=jnp.int32(4))
    after = step(one, state)
    rows = np.asarray(state.stream.rows[4])
    y = names[1][Y[rows]]
    allowed = np.isin(np.arange(4), y) if head == "batch" else np.ones(4, bool)

    def loss(model):
        z = model(jnp.asarray(X[rows]))
        p = jax.nn.log_softmax(jnp.where(allowed, z, -jnp.inf))
        return -p[jnp.arange(5), y].mean()

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(state.model)
    wanted = eqx.apply_updates(state.model, jax.tree.map(lambda g: -0.1 * g, gradient))
    for a, b in zip(jax.tree.leaves(after.model), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    every = Relabelled.drawn(200, 4, key=KEY).labels
    assert (np.sort(every, axis=1) == np.arange(4)).all()
    np.testing.assert_allclose((np.asarray(every) == 0).mean(axis=0), 0.25, atol=0.1)


LAW = recurring.frequencies
PLAN = np.eye(4, dtype=bool)


def TRACED(key):
    return by_plan(Y, Y[40:], PLAN, key=key, steps=2, batch_size=3, classes=1, exam_size=2)


STREAM = made([[0, 1, 2, 3]] * 4, np.arange(4), 4)
BAD = {
    "step must be from 0 to less than": lambda: LAW(21, 1.0),
    "decrease must be finite": lambda: LAW(10, np.nan),
    "decrease must be finite and at least 0, not -1": lambda: LAW(10, -1),
    "classes must be a whole number from 1": lambda: LAW(0),
    "after must be from 0 to 1": lambda: recurring.vanishing(4, 5, after=1.5),
    "classes must be a whole number from 2": lambda: recurring.vanishing(1, 5),
    "5 classes cannot be shared evenly by 2 periods": lambda: recurring.periods(5, 10),
    "tasks must be a whole number from 2": lambda: recurring.periods(4, 1),
    "count must be at most the 4 classes": lambda: recurring.cycled(4, 5, 5, key=KEY),
    "random must be from 0 to 1": lambda: recurring.cycled(4, 5, 2, random=np.nan, key=KEY),
    "share 0.1 of 6 combinations is none": lambda: recurring.coupled(4, 5, 2, share=0.1, key=KEY),
    "combinations: give fewer": lambda: recurring.coupled(100, 5, 10, share=0.1, key=KEY),
    "cannot be divided into groups of 2": lambda: recurring.disjoint(5, 5, 2, key=KEY),
    "stay must be": lambda: recurring.disjoint(4, 5, 2, stay=0, key=KEY),
    "by must be finite and above 0": lambda: recurring.reduced(np.ones(4), 5, 2, by=0.0, key=KEY),
    "weights must be finite, not negative, and above 0 for 2 classes": lambda: recurring.reduced(np.eye(4)[0], 5, 2, by=2.0, key=KEY),
    "weights must be finite": lambda: recurring.reduced(np.array([1, 1, -1.0]), 5, 2, by=2.0, key=KEY),
    r"labels must be \[4, 4\], a name for each class in each task, not \[3, 4\]": lambda: process(method=Relabelled.drawn(3, 4, key=KEY)),
    "low and high": lambda: frequency_replay(PLAN, ByFrequency(2, 0.5, 0.1)),
    "low and high must": lambda: frequency_replay(PLAN, ByFrequency(2, np.nan, 0.1)),
    "least must be": lambda: frequency_replay(PLAN, ByFrequency(2, least=-1)),
    "do not fit into a batch of 4": lambda: replaying(STREAM, PLAN, np.arange(4), count=3, places=2, key=KEY),
    "places must be": lambda: replaying(STREAM, PLAN, np.arange(4), count=3, places=0, key=KEY),
    "again must be": lambda: replaying(STREAM, PLAN[:2], np.arange(4), count=1, places=1, key=KEY),
    "count must be at least the 2 classes that the stream gives a task, not 1": lambda: replaying(
        made([[0, 1]], np.arange(2), 2), np.zeros((1, 2), bool), np.arange(2), count=1, places=1, key=KEY),
    "count must be at least the 4 classes that again gives a task, not 1": lambda: replaying(
        made([[0, 0, 0, 0]] * 2, np.arange(4), 4), np.ones((2, 4), bool), np.arange(4), count=1, places=1, key=KEY),
    "labels must be all that the stream draws from, but there are 3 and it has row 3": lambda: replaying(
        STREAM, np.zeros((4, 4), bool), np.arange(3), count=4, places=1, key=KEY),
    "examples must be all that the stream draws from, but there are 3 and it has row 3": lambda: recurring.in_versions(STREAM, 3, 2, key=KEY),
    "examples must be the 60 that the stream draws from, not 40": lambda: jax.jit(lambda key: recurring.in_versions(TRACED(key), 40, 2, key=key))(KEY),
    "labels must be the 60 that the stream draws from, not 40": lambda: jax.jit(
        lambda key: replaying(TRACED(key), PLAN, Y[:40], count=1, places=1, key=key))(KEY),
    "draws from 60 train examples, but data has 40": lambda: process(stream=TRACED),
    "draws from 60 test examples, but data has 20": lambda: process(stream=lambda key: by_plan(
        Y[:40], Y, PLAN, key=key, steps=2, batch_size=3, classes=1, exam_size=2)),
    "draws from 80 train examples, but data has 40": lambda: process(stream=lambda key: recurring.in_versions(by_plan(
        Y[:40], Y[40:], PLAN, key=key, steps=2, batch_size=3, classes=1, exam_size=2), 40, 2, key=key)),
    r"worth must be \[4, 4\], as the plan, not \[4\]": lambda: frequency_replay(PLAN, ByFrequency(2), np.ones(4)),
    r"plan must be \[tasks, classes\], not \[4\]": lambda: frequency_replay(PLAN[0], ByFrequency(2)),
    "number must be one for each of the 4 tasks": lambda: random_replay(PLAN, 2, key=KEY),
    "same number of steps": lambda: replaying(
        class_incremental(Y, Y, key=KEY, tasks=2, steps=(2, 3), batch_size=4, exam_size=5), PLAN[:2], Y, count=1, places=1, key=KEY),
    "versions must be": lambda: recurring.in_versions(STREAM, 4, 0, key=KEY),
    "needs an exam for each of the 4 classes, not 2": lambda: process(stream=lambda key: class_incremental(
        Y[:40], Y[40:], key=key, tasks=2, steps=2, batch_size=4, exam_size=5)),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_inputs(message):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        BAD[message]()


def test_a_plan_that_leaves_tasks_empty_is_told_before_it_runs():
    y = np.tile(np.arange(4), 10)
    data = Dataset(jnp.ones((40, 3)), jnp.asarray(y), jnp.ones((40, 3)), jnp.asarray(y))

    def stream(key):
        plan = jax.random.bernoulli(key, 0.2, (6, 4))
        return by_plan(y, y, plan, key=key, steps=2, batch_size=4, classes=4, exam_size=5)

    with pytest.raises(ValueError, match="gives task [0-5] no class with some seeds"):
        Recurring(
            model=lambda key: MLP(3, (4,), 4, key=key), data=data, stream=stream, method=Method(),
            optimiser=optax.sgd, hyper={"learning_rate": 0.1},
        )  # fmt: skip
