import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom.core.stream import (
    Groups,
    by_plan,
    class_incremental,
    dense_after,
    domain_incremental,
    drawn,
    joint,
    recurring,
    rehearsing,
)

LABELS = np.array([0, 1, 2, 3] * 6 + [3] * 3)  # 6, 6, 6 and 9
TEST = np.array([3, 2, 1, 0] * 5)
KEY = jax.random.key(3)


def classes(**more):
    settings = {"tasks": 2, "steps": 6, "batch_size": 4, "exam_size": 5} | more
    return class_incremental(LABELS, TEST, key=KEY, **settings)


def test_a_task_draws_from_its_classes_alone_and_each_example_once_an_epoch():
    stream = classes(order=(2, 0, 1, 3), steps=(6, 8))
    labels = LABELS[np.asarray(stream.rows)]
    assert stream.starts == (0, 6)
    assert set(labels[:6].ravel()) == {0, 2} and set(labels[6:].ravel()) == {1, 3}
    assert np.asarray(stream.task).tolist() == [0] * 6 + [1] * 8
    first = np.asarray(stream.rows[:6]).ravel()  # 12 examples: two epochs of three steps
    for epoch in (first[:12], first[12:]):
        assert sorted(epoch) == sorted(np.flatnonzero(np.isin(LABELS, [0, 2])))
    assert first[:12].tolist() != first[12:].tolist()
    second = np.asarray(stream.rows[6:]).ravel()  # 15 examples: an epoch ends within a batch
    for epoch in (second[:15], second[15:30]):
        assert sorted(epoch) == sorted(np.flatnonzero(np.isin(LABELS, [1, 3])))


def test_classes_and_exams_belong_to_their_task():
    stream = classes(order=(2, 0, 1, 3))
    np.testing.assert_array_equal(stream.classes, [[1, 0, 1, 0], [0, 1, 0, 1]])
    np.testing.assert_array_equal(stream.seen, [[1, 0, 1, 0], [1, 1, 1, 1]])
    exams = stream.exams
    assert np.asarray(exams.task).tolist() == [0, 1] and np.asarray(exams.since).tolist() == [0, 6]
    for task, rows in enumerate(np.asarray(exams.rows)):
        assert set(TEST[rows]) <= set(np.flatnonzero(stream.classes[task]))
        assert len(set(rows)) == len(rows)


def test_seeds_differ_in_order_and_classes_and_a_seed_repeats_itself():
    keys = jax.random.split(KEY, 12)
    drawn = jax.vmap(
        lambda key: class_incremental(
            LABELS, TEST, key=key, tasks=2, steps=3, batch_size=4, exam_size=5
        )
    )(keys)
    assert len({tuple(c) for c in np.asarray(drawn.classes[:, 0]).tolist()}) > 2
    again = class_incremental(LABELS, TEST, key=keys[5], tasks=2, steps=3, batch_size=4, exam_size=5)  # fmt: skip
    np.testing.assert_array_equal(again.rows, drawn.rows[5])


def test_orders_are_uniform():
    """Each example comes first as often as any other: chi-square over 600 seeds."""
    first = jax.vmap(lambda key: classes_of(key).rows[0, 0])(jax.random.split(KEY, 600))
    counts = np.bincount(np.asarray(first), minlength=len(LABELS))
    expected = 600 / len(LABELS)
    assert ((counts - expected) ** 2 / expected).sum() < 52  # 26 degrees, 0.998


def classes_of(key):
    return domain_incremental(LABELS, TEST, key=key, tasks=2, steps=2, batch_size=9, exam_size=5)


def test_domains_come_in_the_order_of_their_values():
    domains = np.array(["b", "a", "c"] * 9)
    stream = domain_incremental(
        LABELS, TEST, key=KEY, domains=domains, test_domains=np.array(["c", "b", "a", "a"] * 5),
        steps=3, batch_size=3, exam_size=4,
    )  # fmt: skip
    for task, name in enumerate("abc"):
        assert set(domains[np.asarray(stream.rows)[3 * task : 3 * task + 3].ravel()]) == {name}


def test_recurring_classes_are_drawn_by_their_weights():
    stream = recurring(
        LABELS, TEST, key=KEY, tasks=400, steps=1, batch_size=4, classes=2, exam_size=5,
        weights=[1, 1, 2, 0],
    )  # fmt: skip
    drawn = np.asarray(stream.classes)
    assert (drawn.sum(axis=1) == 2).all()
    # Two of 1, 1, 2 without replacement: the third is left out with probability
    # 1/4 * 1/3 + 1/4 * 1/3 = 1/6.
    shares = drawn.mean(axis=0)
    assert shares[3] == 0 and abs(shares[2] - 5 / 6) < 0.07 and abs(shares[0] - 7 / 12) < 0.09
    labels = LABELS[np.asarray(stream.rows)]
    assert all(set(row) <= set(np.flatnonzero(c)) for row, c in zip(labels, drawn, strict=True))
    assert np.asarray(stream.exams.since).tolist() == [0] * 4


def test_rehearsing_mixes_in_other_tasks_by_their_shares():
    base = class_incremental(LABELS, TEST, key=KEY, tasks=4, steps=50, batch_size=40, order=(0, 1, 2, 3), exam_size=5)  # fmt: skip
    shares = np.array([[1, 0, 0, 0], [0.2, 0.8, 0, 0], [0, 0.5, 0.5, 0], *joint(4)[3:]])
    stream = rehearsing(base, shares, key=KEY)
    origin = np.asarray(stream.origin)
    np.testing.assert_array_equal(LABELS[np.asarray(stream.rows)], origin)  # class = task here
    for task in range(4):
        part = origin[50 * task : 50 * (task + 1)].ravel()
        found = np.bincount(part, minlength=4) / len(part)
        assert (found[shares[task] == 0] == 0).all()
        np.testing.assert_allclose(found, shares[task], atol=4 * np.sqrt(0.25 / len(part)))
    own = origin == np.asarray(base.task)[:, None]
    np.testing.assert_array_equal(np.asarray(stream.rows)[own], np.asarray(base.rows)[own])
    np.testing.assert_array_equal(np.tril(np.ones((3, 3))) / [[1], [2], [3]], joint(3))


def test_dense_after_each_start():
    assert dense_after((0, 10), 20, dense=3, sparse=4).tolist() == [
        0, 1, 2, 3, 7, 10, 11, 12, 13, 17, 20,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: classes(tasks=3), "4 classes cannot be shared evenly by 3 tasks"),
        (lambda: classes(order=(0, 1, 2, 2)), "each of the 4 classes 0 to 3 once"),
        (lambda: classes(exam_size=11), "exam_size must be from 1 to"),
        (lambda: classes(batch_size=0), "batch_size must be at least 1, not 0"),
        (lambda: classes(steps=(1, 2, 3)), "one for each of the 2 tasks"),
        (lambda: domain_incremental(LABELS, TEST, key=KEY, steps=1, batch_size=1), "either domains"),
        (lambda: Groups.of([0, 1, 5], [0, 1], "domains"), "domains: row 2 has 5, which is none"),
        (lambda: Groups.of([0, 0], [0, 1], "test_labels"), "test_labels: group 1 has no example"),
        (
            lambda: recurring(LABELS, TEST, key=KEY, tasks=2, steps=1, batch_size=1, classes=2, weights=[1, 0, 0, 0]),
            "classes must be from 1 to 1",
        ),
        (
            lambda: recurring(LABELS, TEST, key=KEY, tasks=2, steps=1, batch_size=1, classes=2, weights=[1, -1, 0, 0]),
            "not negative",
        ),
        (lambda: rehearsing(classes(), np.ones((2, 2)), key=KEY), "sum to 1 in each row"),
        (lambda: rehearsing(rehearsing(classes(), joint(2), key=KEY), joint(2), key=KEY), "rehearses already"),
    ],
)  # fmt: skip
def test_what_makes_no_stream_is_said(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_joint_batch_shows_each_example_under_its_own_view():
    """Origins tell the view: an example drawn from task 1 is turned as task 1 is."""
    base = classes_of(KEY)
    stream = rehearsing(base, joint(2), key=KEY)
    origins = jax.vmap(stream.origins)(jnp.arange(stream.steps))
    assert set(np.asarray(origins[:2]).ravel()) == {0} and set(np.asarray(origins[2:]).ravel()) == {0, 1}  # fmt: skip


def test_a_label_that_is_missing_is_told_where_it_stands():
    with pytest.raises(
        ValueError, match="^labels must be from 0 to .*, but row 5 has -1: leave rows"
    ):
        class_incremental(np.where(np.arange(len(LABELS)) == 5, -1, LABELS), TEST, key=KEY, tasks=2, steps=2, batch_size=2)  # fmt: skip


def test_it_is_known_how_many_classes_a_task_has_at_least():
    assert classes().fewest == 2 and classes(tasks=4).fewest == 1
    assert rehearsing(classes(tasks=4), joint(4), key=KEY).fewest == 1


@pytest.mark.parametrize("labels", [np.array(["cat", "dog"] * 6), np.tile([0.0, 1.0], 6)])
def test_labels_that_are_no_indices_are_told(labels):
    with pytest.raises(ValueError, match="labels must be class indices, int"):
        class_incremental(labels, labels, key=KEY, tasks=2, steps=2, batch_size=2, exam_size=2)


def test_a_plan_says_which_classes_each_task_has():
    plan = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1]], bool)
    stream = by_plan(LABELS, TEST, plan, key=KEY, steps=5, batch_size=6, classes=3, exam_size=5)
    labels = LABELS[np.asarray(stream.rows)].reshape(3, 30)
    for task in range(3):
        assert set(labels[task]) == set(np.flatnonzero(plan[task]))
    np.testing.assert_array_equal(stream.classes, plan)
    assert (TEST[np.asarray(stream.exams.rows)] == np.arange(4)[:, None]).all()
    settings = {"key": KEY, "steps": 5, "batch_size": 6, "exam_size": 5}
    for bad, classes, message in (
        (plan[:, :3], 3, r"plan must be \[tasks, 4 classes\]"),
        (plan, 2, "1 to 2 classes, but task 2 has 3"),
        (np.zeros((2, 4), bool), 2, "task 0 has 0"),
    ):
        with pytest.raises(ValueError, match=message):
            by_plan(LABELS, TEST, bad, classes=classes, **settings)


def test_draws_without_replacement_go_by_the_weights():
    weights = np.tile([4.0, 1.0, 1.0, 0.0], (30_000, 1))
    plan = np.asarray(drawn(weights, 2, key=KEY))
    assert (plan.sum(axis=1) == 2).all() and not plan[:, 3].any()
    # The first of weight 4 is missed if 1 comes first, then the other.
    np.testing.assert_allclose(plan[:, 0].mean(), 1 - 2 / 6 * 1 / 5, atol=0.01)


def test_draws_that_the_weights_do_not_allow_are_told():
    fine = np.ones((3, 4))
    gone = np.array([[1, 1, 1, 1], [1, 1, 0, 0.0]])
    for weights, count, message in (
        (gone, 3, "not 3, as task 1 has 2"),
        (fine, 5, "not 5, as task 0 has 4"),
        (-fine, 2, "finite and not negative"),
        (fine * np.nan, 2, "finite and not negative"),
        (np.ones(4), 2, r"\[tasks, groups\], not \[4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            drawn(weights, count, key=KEY)
