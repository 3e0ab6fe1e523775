"""What a continual learner meets, in order: a table of rows, and what it is examined on.

A task draws from groups of examples (classes, domains, the rows of a column), which a plan tells:
class-, task- and domain-incremental learning, joint training and classes that come back differ in
nothing else. What changes an input with its task (`core.views`) stands apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped

from latebloom.core.dataset import check_labels
from latebloom.core.training import permuted
from latebloom.core.views import Unchanged


class Exams(eqx.Module):
    """What is asked: for each exam its test examples, the task that it belongs to, and from when on."""

    rows: Int[Array, "exams n"]
    task: Int[Array, " exams"]
    since: Int[Array, " exams"]  # the step at which it is first held


class Stream(eqx.Module):
    """The batches of a run in order.

    - `rows`: the training examples of each step.
    - `task`: the task that each step belongs to, from 0; it never falls.
    - `origin`: the task that each example comes from, where that is not the step's (rehearsal).
    - `classes`: the classes of each task.
    - `starts`: the first step of each task.
    - `view(x, task)`: what changes inputs with their task (`latebloom.core.views`).
    - `examples`: of how many training and test examples its rows are, where that is known.
    - `fewest`: the fewest classes of a task, where that is known.
    """

    rows: Int[Array, "steps batch"]
    task: Int[Array, " steps"]
    classes: Bool[Array, "tasks classes"]
    exams: Exams
    starts: tuple[int, ...] = eqx.field(static=True)
    origin: Int[Array, "steps batch"] | None = None
    view: Callable[[Array, Array], Array] = Unchanged()
    examples: tuple[int, int] | None = eqx.field(static=True, default=None)
    fewest: int | None = eqx.field(static=True, default=None)

    @property
    def steps(self) -> int:
        return self.rows.shape[0]

    @property
    def tasks(self) -> int:
        return self.classes.shape[0]

    @property
    def seen(self) -> Bool[Array, "tasks classes"]:
        """The classes of each task and of those before it."""
        return jnp.cumsum(self.classes, axis=0) > 0

    def origins(self, step: Int[Array, ""]) -> Int[Array, " batch"]:
        """The task of each example of a step's batch."""
        if self.origin is not None:
            return self.origin[step]
        return jnp.full(self.rows.shape[1], self.task[step])


@dataclass(frozen=True)
class Groups:
    """Examples by group, for plans to draw from; `labels` [n] are whole numbers from 0, or anything sortable.

    - `order` [n]: rows in the order of their groups; `counts` [groups]; `values` [groups]: their labels.

    Raises `ValueError` for a group of `values` that has no example, or a label that is not among them.
    """

    order: np.ndarray
    counts: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(labels: Any, values: Any = None, what: str = "labels") -> Groups:
        labels = np.asarray(labels)
        known = np.unique(labels) if values is None else np.asarray(values)
        index = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        strange = np.flatnonzero(known[index] != labels)
        if len(strange):
            raise ValueError(
                f"{what}: row {strange[0]} has {labels[strange[0]]}, which is none of the "
                f"{len(known)} groups of the training examples"
            )
        counts = np.bincount(index, minlength=len(known))
        if not counts.all():
            raise ValueError(f"{what}: group {known[counts.argmin()]} has no example")
        return Groups(np.argsort(index, kind="stable"), counts, known)

    def most(self, groups: int) -> int:
        """The most examples that so many of the groups can have."""
        return int(np.sort(self.counts)[-groups:].sum())

    def draw(
        self, plan: Bool[Array, "tasks groups"], key: PRNGKeyArray, task: Int[Array, " k"],
        places: Int[Array, " k"], most: int,
    ) -> Int[Array, " k"]:  # fmt: skip
        """Rows at some places of a random order of the examples that the plan gives each task.

        Places beyond their number begin a next round, in another order. `most`: no more examples
        than these are in a task.
        """
        starts = jnp.asarray(np.concatenate([[0], np.cumsum(self.counts)[:-1]]))
        ends = jnp.cumsum(jnp.where(plan, jnp.asarray(self.counts), 0), axis=1)[task]
        n = ends[:, -1]
        rounds, places = jnp.divmod(places, n)
        # Orders of other tasks and rounds are told apart by a hash, which compiles fast.
        bits = jax.random.bits(key, (4, 1), jnp.uint32)
        salt = task.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) + rounds.astype(jnp.uint32)
        bits = bits ^ (salt * jnp.uint32(0xC2B2AE35))
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
        places = permuted(bits ^ (bits >> 13), places, n.astype(jnp.uint32), most)
        group = (places[:, None] >= ends).sum(axis=1)
        before = jnp.where(group > 0, jnp.take_along_axis(ends, jnp.maximum(group - 1, 0)[:, None], 1)[:, 0], 0)  # fmt: skip
        return jnp.asarray(self.order)[starts[group] + places - before].astype(jnp.int32)


def planned(
    plan: Bool[Array, "tasks groups"], train: Groups, test: Groups, classes: Bool[Array, "tasks classes"],
    *, key: PRNGKeyArray, steps: int | Sequence[int], batch_size: int, exam_size: int,
    most: int, exams: Bool[Array, "exams groups"] | None = None,
) -> Stream:  # fmt: skip
    """A stream whose tasks draw batches without replacement from the groups that a plan gives each.

    - `plan`: which groups each task draws from; its values may depend on a key.
    - `steps` of each task. An epoch's last batch is filled up from the next epoch.
    - `exams`: the groups of each exam, held from the start; left out, each task has one, on
      `exam_size` examples of its groups, from its first step on.
    - `most`: how many groups a task has at most.

    Raises `ValueError` for steps or sizes that make no stream.
    """
    tasks = plan.shape[0]
    one = isinstance(steps, int | np.integer)
    lengths = [int(steps)] * tasks if one else [int(n) for n in steps]
    if len(lengths) != tasks or min(lengths, default=0) < 1:
        raise ValueError(
            f"steps must be one number, or one for each of the {tasks} tasks, at least 1"
        )
    smallest = int(np.sort(test.counts)[0])
    if not 1 <= exam_size <= smallest * (1 if exams is not None else most):
        raise ValueError(
            f"exam_size must be from 1 to the {smallest} test examples of the smallest group, not {exam_size}"
        )
    if not 1 <= batch_size:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    starts = tuple(np.cumsum([0, *lengths])[:-1].tolist())
    task = np.repeat(np.arange(tasks), lengths)
    within = np.arange(len(task)) - np.asarray(starts)[task]
    train_key, test_key = jax.random.split(key)

    asked = plan if exams is None else exams
    count = asked.shape[0]
    place = (within[:, None] * batch_size + np.arange(batch_size)).ravel()
    rows = train.draw(plan, train_key, jnp.repeat(jnp.asarray(task), batch_size), jnp.asarray(place),
                      train.most(most))  # fmt: skip
    number, place = np.divmod(np.arange(count * exam_size), exam_size)
    questions = test.draw(asked, test_key, jnp.asarray(number), jnp.asarray(place), test.most(most))
    return Stream(
        rows=rows.reshape(len(task), batch_size),
        task=jnp.asarray(task, jnp.int32),
        classes=classes,
        exams=Exams(
            questions.reshape(count, exam_size),
            jnp.arange(count, dtype=jnp.int32) if exams is None else jnp.zeros(count, jnp.int32),
            jnp.asarray(starts, jnp.int32) if exams is None else jnp.zeros(count, jnp.int32),
        ),
        starts=starts,
        examples=(len(train.order), len(test.order)),
    )


def class_incremental(
    labels: Int[Any, " n"], test_labels: Int[Any, " m"], *, key: PRNGKeyArray, tasks: int,
    steps: int | Sequence[int], batch_size: int, order: Sequence[int] | None = None,
    exam_size: int = 200,
) -> Stream:  # fmt: skip
    """Each task brings classes of its own, as many as the others.

    - `order`: the classes in the order in which they come; left out, it is drawn from the key.

    Task-incremental learning is the same stream, learned with `head="task"`.

    Raises `ValueError` where the tasks do not share the classes evenly, and for labels that are no whole numbers from 0.
    """
    for what, of in (("labels", labels), ("test_labels", test_labels)):
        check_labels(of, np.iinfo(np.int32).max, what)
    train = Groups.of(labels, what="labels")
    test = Groups.of(test_labels, train.values, "test_labels")
    count = len(train.values)
    if tasks < 1 or count % tasks:
        raise ValueError(f"{count} classes cannot be shared evenly by {tasks} tasks")
    if order is None:
        places = jax.random.permutation(key, count)
    elif sorted(order) != list(range(count)):
        raise ValueError(f"order must hold each of the {count} classes 0 to {count - 1} once")
    else:
        places = jnp.asarray(order)
    task_of = jnp.zeros(count, int).at[places].set(jnp.arange(count) // (count // tasks))
    plan = task_of == jnp.arange(tasks)[:, None]
    stream = planned(
        plan, train, test, _classes(plan, train, labels), key=jax.random.fold_in(key, 1), steps=steps,
        batch_size=batch_size, exam_size=exam_size, most=count // tasks,
    )  # fmt: skip
    return dataclasses.replace(stream, fewest=count // tasks)


def domain_incremental(
    labels: Int[Any, " n"], test_labels: Int[Any, " m"], *, key: PRNGKeyArray,
    steps: int | Sequence[int], batch_size: int, tasks: int | None = None, domains: Any = None,
    test_domains: Any = None, exam_size: int = 200,
) -> Stream:  # fmt: skip
    """Each task has all classes, of another domain.

    - `domains` [n], `test_domains` [m]: a column of values; tasks come in their sorted order.
    - `tasks`: or so many tasks on the same examples, told apart by a view (`core.views`).

    Raises `ValueError` unless one of both is given.
    """
    if (tasks is None) == (domains is None):
        raise ValueError("give either domains and test_domains, or the number of tasks")
    if tasks is None:
        train = Groups.of(domains, what="domains")
        test = Groups.of(test_domains, train.values, "test_domains")
        plan = jnp.eye(len(train.values), dtype=bool)
    else:
        train, test = (Groups.of(np.zeros(len(y), int)) for y in (labels, test_labels))
        plan = jnp.ones((tasks, 1), bool)
    return planned(
        plan, train, test, _classes(plan, train, labels), key=key, steps=steps, batch_size=batch_size,
        exam_size=exam_size, most=1,
    )  # fmt: skip


def recurring(
    labels: Int[Any, " n"], test_labels: Int[Any, " m"], *, key: PRNGKeyArray, tasks: int, steps: int,
    batch_size: int, classes: int, exam_size: int = 100, weights: Shaped[Any, "tasks groups"] | None = None,
) -> Stream:  # fmt: skip
    """Each task has a few classes, drawn anew, so that they come back; each class is an exam.

    - `weights`: how likely each class is in each task, [classes] or [tasks, classes]; `classes` of
      them are drawn one after the other without replacement.

    Source: SCoLe (Lesort et al. 2023, arXiv 2207.04543), Sec. 3.
    """
    count = len(Groups.of(labels, what="labels").values)
    odds = np.ones((tasks, count)) if weights is None else np.broadcast_to(weights, (tasks, count))
    if not ((odds >= 0).all() and np.isfinite(odds).all()):
        raise ValueError("weights must be finite and not negative")
    if not 1 <= classes <= (least := int((odds > 0).sum(axis=1).min())):
        raise ValueError(
            f"classes must be from 1 to {least}, those that can be drawn, not {classes}"
        )
    plan = drawn(odds, classes, key=key)
    return by_plan(labels, test_labels, plan, key=jax.random.fold_in(key, 1), steps=steps,
                   batch_size=batch_size, classes=classes, exam_size=exam_size)  # fmt: skip


def drawn(
    weights: Shaped[Any, "tasks groups"], count: int, *, key: PRNGKeyArray
) -> Bool[Array, "tasks groups"]:
    """A plan in which each task draws so many groups one after the other, without replacement, by weights.

    Raises `ValueError`, unless the weights are traced, for weights that are negative or not finite, and
    for a task with fewer groups of a weight above 0 than it is to draw.
    """
    if np.ndim(weights) != 2:
        raise ValueError(f"weights must be [tasks, groups], not {list(np.shape(weights))}")
    if not isinstance(weights, Tracer):
        odds = np.asarray(weights)
        if not ((odds >= 0).all() and np.isfinite(odds).all()):
            raise ValueError("weights must be finite and not negative")
        if (able := (odds > 0).sum(axis=1)).min(initial=count) < count:
            task = int(np.flatnonzero(able < count)[0])
            raise ValueError(
                f"count must be at most the groups that can be drawn, not {count}, as task {task} has {able[task]}"
            )
    weights = jnp.asarray(weights, jnp.float32)
    race = jnp.log(weights) + jax.random.gumbel(key, weights.shape)
    chosen = jax.lax.top_k(race, count)[1]
    return jax.nn.one_hot(chosen, weights.shape[1], dtype=bool).any(axis=1)


def by_plan(
    labels: Int[Any, " n"], test_labels: Int[Any, " m"], plan: Bool[Any, "tasks groups"], *,
    key: PRNGKeyArray, steps: int, batch_size: int, classes: int, exam_size: int = 100,
) -> Stream:  # fmt: skip
    """Each task has the classes that a plan gives it; each class is an exam.

    - `plan`: the classes of each task, in the order of their labels; its values may depend on a key.
    - `classes`: how many a task has at most.

    Raises `ValueError` for a plan of other classes and, where it depends on no key, for a task without
    classes or with too many.
    """
    train = Groups.of(labels, what="labels")
    test = Groups.of(test_labels, train.values, "test_labels")
    count = len(train.values)
    if np.ndim(plan) != 2 or np.shape(plan)[1] != count:
        raise ValueError(f"plan must be [tasks, {count} classes], not {list(np.shape(plan))}")
    if not isinstance(plan, Tracer):
        each = np.asarray(plan).sum(axis=1)
        if not ((each >= 1) & (each <= classes)).all():
            task = int(np.flatnonzero((each < 1) | (each > classes))[0])
            raise ValueError(
                f"plan must give each task 1 to {classes} classes, but task {task} has {each[task]}"
            )
    plan = jnp.asarray(plan, bool)
    return planned(
        plan, train, test, _classes(plan, train, labels), key=key, steps=steps, batch_size=batch_size,
        exam_size=exam_size, most=classes, exams=jnp.eye(count, dtype=bool),
    )  # fmt: skip


def rehearsing(stream: Stream, shares: Shaped[Any, "tasks tasks"], *, key: PRNGKeyArray) -> Stream:
    """The stream with examples of other tasks mixed in: task k takes a share of each from row k.

    An example of another task is drawn at random from those that its own batches have. `shares` are
    not negative and sum to 1 in each row; a lower triangle of 1 / (k + 1) is joint training.

    Raises `ValueError` for other shares, and for a stream that rehearses already.
    """
    if stream.origin is not None:
        raise ValueError("the stream rehearses already: mix all tasks in at once")
    shares = np.asarray(shares, float)
    if (
        shares.shape != (stream.tasks,) * 2
        or (shares < 0).any()
        or not np.allclose(shares.sum(1), 1)
    ):
        raise ValueError(
            f"shares must be [{stream.tasks}, {stream.tasks}], not negative, and sum to 1 in each row"
        )
    origin_key, row_key = jax.random.split(key)
    odds = jnp.log(jnp.asarray(shares, jnp.float32))[stream.task]
    shape = stream.rows.shape
    origin = jax.random.categorical(origin_key, odds[:, None], shape=shape).astype(jnp.int32)
    starts = jnp.asarray(stream.starts)
    lengths = jnp.diff(jnp.asarray([*stream.starts, stream.steps]))
    at = jax.random.uniform(row_key, shape) * (lengths[origin] * shape[1])
    step, place = jnp.divmod(at.astype(int), shape[1])
    step = jnp.minimum(starts[origin] + step, stream.steps - 1)
    own = origin == stream.task[:, None]
    rows = jnp.where(own, stream.rows, stream.rows[step, place])
    return eqx.tree_at(
        lambda s: (s.rows, s.origin), stream, (rows, origin), is_leaf=lambda x: x is None
    )


def joint(tasks: int) -> np.ndarray:
    """Shares of `rehearsing` under which every task so far is as frequent."""
    below = np.tril(np.ones((tasks, tasks)))
    return below / below.sum(axis=1, keepdims=True)


def _classes(plan: Bool[Array, "tasks groups"], train: Groups, labels: Any) -> Any:
    """Which classes occur in the groups of each task: bool [tasks, classes]."""
    labels = np.asarray(labels)
    check_labels(labels, np.iinfo(np.int32).max)
    group = np.repeat(np.arange(len(train.counts)), train.counts)
    table = np.zeros((len(train.counts), int(labels.max()) + 1), bool)
    table[group, labels[train.order]] = True
    return (plan[:, :, None] & table).any(axis=1)


def dense_after(starts: Sequence[int], steps: int, dense: int = 50, sparse: int = 10) -> np.ndarray:
    """Observation steps: each of the first `dense` after a task starts, then every `sparse`th, and `steps`."""
    ends = [*starts[1:], steps]
    points = [
        np.concatenate([np.arange(a, min(a + dense, b)), np.arange(a + dense, b, sparse), [b]])
        for a, b in zip(starts, ends, strict=True)
    ]
    return np.unique(np.concatenate(points)).astype(int)
