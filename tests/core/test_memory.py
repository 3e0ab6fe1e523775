import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.core.memory import (
    CLASS_BALANCED,
    CLASS_RING,
    GREEDY,
    RESERVOIR,
    RING,
    Items,
    Policy,
    add,
    draw,
    empty,
)

KEY = jax.random.key(0)
keep = jax.jit(add, static_argnames=("policy", "once"))


def items(rows, labels=None, task=0):
    rows = jnp.asarray(rows, jnp.int32)
    labels = rows % 10 if labels is None else jnp.asarray(labels, jnp.int32)
    return Items(rows, labels, jnp.full(len(rows), task, jnp.int32))


def filled(policy, labels, batch=8, size=6, key=KEY):
    """A memory after a stream of labels, its rows being their places."""
    memory = empty(size)
    for step in range(len(labels) // batch):
        rows = np.arange(step * batch, (step + 1) * batch)
        memory = keep(memory, policy, items(rows, labels[rows]), jax.random.fold_in(key, step))
    return memory


def held(memory):
    return np.sort(np.asarray(memory.items.rows)[np.asarray(memory.filled)])


def test_a_reservoir_keeps_each_example_of_the_stream_with_the_same_probability():
    def run(key):
        memory = empty(6)
        for step in range(3):
            memory = add(memory, RESERVOIR, items(jnp.arange(8) + 8 * step), jax.random.fold_in(key, step))  # fmt: skip
        return memory.items.rows

    rows = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(KEY, 4000)))
    counts = np.bincount(rows.ravel(), minlength=24)
    expected = 4000 * 6 / 24
    assert ((counts - expected) ** 2 / (expected * (1 - 6 / 24))).sum() < 50  # 23 degrees, .999
    assert all(len(set(row)) == 6 for row in rows[:50])


def test_rings_keep_the_last():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2] * 2)
    assert held(filled(RING, labels)).tolist() == [10, 11, 12, 13, 14, 15]
    assert held(filled(CLASS_RING, labels)).tolist() == [7, 10, 11, 13, 14, 15]


@given(st.lists(st.integers(0, 3), min_size=24, max_size=24))
def test_classes_share_the_places_evenly(labels):
    labels = np.array(labels)
    for policy in (CLASS_BALANCED, GREEDY):
        memory = filled(policy, labels)
        kept = np.bincount(labels[held(memory)], minlength=4)
        there = np.bincount(labels, minlength=4)
        assert kept.sum() == 6 and (kept <= there).all()
        # Nobody has two more than one who would have liked another.
        short = kept < there
        assert not short.any() or kept.max() <= kept[short].min() + 1


def test_greedy_keeps_those_that_it_has():
    labels = np.array([0] * 3 + [1] * 5 + [0, 1] * 4)
    early, late = filled(GREEDY, labels[:8]), filled(GREEDY, labels)
    assert held(early).tolist() == held(late).tolist()


def test_first_of_each_task():
    policy = Policy("task", "first", 2)
    memory = keep(empty(6), policy, items([5, 3, 9, 1], task=0), KEY)
    memory = keep(memory, policy, items([2, 7, 8, 4], task=1), KEY)
    assert held(memory).tolist() == [2, 3, 5, 7]
    assert int(memory.count) == 4


def test_once_means_once():
    memory = keep(empty(6), RESERVOIR, items([4, 4, 2]), KEY, once=True)
    memory = keep(memory, RESERVOIR, items([2, 5, 4]), KEY, once=True)
    assert held(memory).tolist() == [2, 4, 5]
    memory = keep(memory, RESERVOIR, items([8, 9, 7]), KEY, jnp.array([True, False, True]), once=True)  # fmt: skip
    assert held(memory).tolist() == [2, 4, 5, 7, 8]


def test_a_row_of_two_tasks_is_two_examples():
    """As where each task shows the same images in an order of pixels of its own."""
    memory = keep(empty(8), RESERVOIR, items([4, 2, 4], task=0), KEY, once=True)
    memory = keep(memory, RESERVOIR, items([2, 4, 2, 7], task=1), KEY, once=True)
    there = np.asarray(memory.filled)
    found = zip(*(np.asarray(a)[there].tolist() for a in memory.items[:3:2]), strict=True)
    assert sorted(found) == [(2, 0), (2, 1), (4, 0), (4, 1), (7, 1)]


def test_what_belongs_to_an_example_stays_with_it():
    memory = empty(4, jax.ShapeDtypeStruct((2,), jnp.float32))
    for step in range(3):
        new = items(jnp.arange(3) + 3 * step)
        extra = jnp.stack([new.rows, -new.rows], axis=1).astype(jnp.float32)
        memory = keep(memory, RESERVOIR, new._replace(extra=extra), jax.random.fold_in(KEY, step))
    np.testing.assert_array_equal(memory.items.extra[:, 0], memory.items.rows)
    drawn, there = draw(memory, KEY, 3)
    np.testing.assert_array_equal(drawn.extra[:, 1], -drawn.rows)
    assert there.all() and len(set(np.asarray(drawn.rows))) == 3


def test_draws_are_uniform_and_say_what_is_missing():
    memory = keep(empty(8), RESERVOIR, items([1, 2, 3, 4, 5]), KEY)
    rows, there = jax.vmap(lambda k: draw(memory, k, 6))(jax.random.split(KEY, 2000))
    assert (np.asarray(there) == (np.arange(6) < 5)).all()  # those that there are come first
    few = jax.vmap(lambda k: draw(memory, k, 2))(jax.random.split(KEY, 2000))[0].rows
    counts = np.bincount(np.asarray(few).ravel(), minlength=6)[1:]
    assert ((counts - 800) ** 2 / 800).sum() < 16
    with pytest.raises(ValueError, match="9 examples cannot be drawn from a memory of 8"):
        draw(memory, KEY, 9)


def test_draws_by_class_take_turns_at_random():
    """Two classes of 1 and 7: three draws take the single one as sequential choice of a class does."""
    labels = np.array([0] + [1] * 7)
    memory = keep(empty(8), RESERVOIR, items(np.arange(8), labels), KEY)
    rows = jax.vmap(lambda k: draw(memory, k, 3, "class"))(jax.random.split(KEY, 4000))[0].rows
    single = (np.asarray(rows) == 0).any(axis=1).mean()
    assert abs(single - (1 - 0.5**3)) < 0.02
    others = np.bincount(np.asarray(rows).ravel(), minlength=8)[1:]
    assert ((others - others.mean()) ** 2 / others.mean()).sum() < 22
