"""Long streams in which classes come back: which come when, what is replayed, and the null without knowledge.

A plan [tasks, classes] says which classes each task has; `core.stream.by_plan` makes a stream of it. Plans are
drawn ahead, whole, so that a stream of thousands of tasks stays one program.

Source: SCoLe (Lesort et al. 2023, arXiv 2207.04543), and the authors' code for what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.methods.forgetting.continual import Continual, ContinualState
from latebloom.methods.forgetting.method import Lesson, Losses, Method

MOST_COMBINATIONS = 1_000_000


# How likely each class is in each task


def frequencies(
    classes: int, decrease: float = 0.0, step: float | None = None
) -> Float[np.ndarray, " classes"]:
    """Weights q_i = (1 - step i)^decrease / sum, i from 0 on: 0 is uniform, 2 leaves the last ones rare.

    `step` is 0.05 (of 100 classes 0.01) where left out. The order of the classes is the caller's to shuffle.

    Raises `ValueError` for classes, or a step, that leave a weight of 0 or less.
    """
    _whole("classes", classes, 1)
    step = (0.01 if classes == 100 else 0.05) if step is None else step
    if not 0 <= step * (classes - 1) < 1:
        raise ValueError(
            f"step must be from 0 to less than 1 / {max(classes - 1, 1)} for {classes} classes, not {step:g}"
        )
    if not 0 <= decrease < math.inf:
        raise ValueError(f"decrease must be finite and at least 0, not {decrease}")
    weights = (1 - step * np.arange(classes)) ** decrease
    return weights / weights.sum()


def vanishing(classes: int, tasks: int, *, after: float = 0.5) -> Float[np.ndarray, "tasks classes"]:  # fmt: skip
    """Equal weights; after a share of the tasks the second half of the classes comes no more."""
    _whole("classes", classes, 2)
    _whole("tasks", tasks, 1)
    if not 0 <= after <= 1:
        raise ValueError(f"after must be from 0 to 1, not {after}")
    stays = np.arange(classes) < classes // 2
    return np.where(np.arange(tasks)[:, None] < after * tasks, 1.0, stays)


def periods(classes: int, tasks: int, *, number: int = 2) -> Float[np.ndarray, "tasks classes"]:
    """Equal weights in long periods, each with as many classes of its own, in their order.

    Raises `ValueError` where the classes do not divide into so many periods.
    """
    _whole("number", number, 1)
    _whole("tasks", tasks, number)
    if classes % number:
        raise ValueError(f"{classes} classes cannot be shared evenly by {number} periods")
    period = np.arange(tasks) * number // tasks
    return (np.arange(classes) // (classes // number) == period[:, None]).astype(float)


# Plans that are no table of weights


def cycled(
    classes: int, tasks: int, count: int, *, random: Float[Array, ""] | float = 0.0, key: PRNGKeyArray
) -> Bool[Array, "tasks classes"]:  # fmt: skip
    """All combinations of so many classes in their order, again and again; each class is replaced by any
    class with the probability `random`, so that a task may have one class fewer."""
    _share("random", random)
    order = itertools.cycle(itertools.combinations(range(classes), _count(count, classes)))
    fixed = jnp.asarray(list(itertools.islice(order, tasks)))
    replaced, by = jax.random.split(key)
    other = jax.random.randint(by, fixed.shape, 0, classes)
    chosen = jnp.where(jax.random.uniform(replaced, fixed.shape) < random, other, fixed)
    return jax.nn.one_hot(chosen, classes, dtype=bool).any(axis=1)


def coupled(
    classes: int, tasks: int, count: int, *, share: float, key: PRNGKeyArray
) -> Bool[Array, "tasks classes"]:
    """Each task has one of a random share of all combinations of so many classes, at random: most never meet.

    Classes that are in none of the combinations drawn never come.

    Raises `ValueError` for a share of no combination, or where there are more than a million.
    """
    _share("share", share)
    number = math.comb(classes, _count(count, classes))
    if number > MOST_COMBINATIONS:
        raise ValueError(f"{count} of {classes} classes have {number} combinations: give fewer classes")  # fmt: skip
    kept = int(share * number + 1e-9)
    if kept < 1:
        raise ValueError(f"share {share:g} of {number} combinations is none of them")
    every = jnp.asarray(list(itertools.combinations(range(classes), count)))
    which, when = jax.random.split(key)
    chosen = every[jax.random.permutation(which, number)[:kept]]
    taken = chosen[jax.random.randint(when, (tasks,), 0, kept)]
    return jax.nn.one_hot(taken, classes, dtype=bool).any(axis=1)


def disjoint(
    classes: int, tasks: int, count: int, *, stay: int = 1, key: PRNGKeyArray
) -> Bool[Array, "tasks classes"]:
    """Classes divided once into groups that come in turn, over and over, each for `stay` tasks at a time.

    `stay=1` repeats a classical sequence of disjoint tasks; with `stay` the share of a group of all tasks, it is
    that sequence, once.

    Raises `ValueError` where groups of so many do not divide the classes.
    """
    _whole("stay", stay, 1)
    if classes % _count(count, classes):
        raise ValueError(f"{classes} classes cannot be divided into groups of {count}")
    group = jax.random.permutation(key, jnp.arange(classes) // count)
    return group == (jnp.arange(tasks) // stay % (classes // count))[:, None]


def reduced(
    weights: Shaped[Any, " classes"], tasks: int, count: int, *, by: Float[Array, ""] | float,
    key: PRNGKeyArray,
) -> Bool[Array, "tasks classes"]:  # fmt: skip
    """So many classes a task without replacement, the weight of each divided by a number once it came.

    Raises `ValueError` for a number that is not above 0 and, unless they are traced, for weights that are
    negative, not finite, or above 0 for too few classes.
    """
    if not isinstance(by, Tracer) and not 0 < float(by) < math.inf:
        raise ValueError(f"by must be finite and above 0, not {by}")
    _count(count, len(weights))
    if not isinstance(weights, Tracer):
        odds = np.asarray(weights)
        if not ((odds >= 0).all() and np.isfinite(odds).all() and (odds > 0).sum() >= count):
            raise ValueError(
                f"weights must be finite, not negative, and above 0 for {count} classes"
            )
    start = jnp.log(jnp.asarray(weights, jnp.float32))

    def task(odds: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        chosen = jax.lax.top_k(odds + jax.random.gumbel(key, odds.shape), count)[1]
        here = jax.nn.one_hot(chosen, len(odds), dtype=bool).any(axis=0)
        odds = odds - here * jnp.log(by)
        return odds - jax.nn.logsumexp(odds), here  # normalised, lest it drift

    return jax.lax.scan(task, start, jax.random.split(key, tasks))[1]


# What is replayed: by how often each class occurred


class Occurrences(NamedTuple):
    """How often each class occurred or was replayed, the sum of what each time was worth, and the tasks so far."""

    times: Int[Array, " classes"]
    worth: Float[Array, " classes"]
    tasks: Int[Array, ""]

    @staticmethod
    def none(classes: int) -> Occurrences:
        return Occurrences(jnp.zeros(classes, jnp.int32), jnp.zeros(classes), jnp.int32(0))

    def after(
        self, here: Bool[Array, " classes"], worth: Float[Array, " classes"] | float = 1.0
    ) -> Occurrences:
        """With one more task; `worth` at most 1, such as the validation accuracy of each class ("freq_acc")."""
        return Occurrences(
            self.times + here, self.worth + jnp.where(here, worth, 0), self.tasks + 1
        )


class ByFrequency(NamedTuple):
    """Frequency replay: the rarest classes, if not too rare.

    Before each task up to `count` classes with the least worth are chosen of those that occurred `least` times,
    are not in the task, and have a frequency (worth over tasks) above `low` and at most `high`.

    Source: Lesort et al. 2023, Sec. 5; defaults of the authors' code. Ties go to the lower number.
    """

    count: int
    low: float = 0.01
    high: float = 0.1
    least: int = 3

    def __call__(self, seen: Occurrences, here: Bool[Array, " classes"]) -> Bool[Array, " classes"]:
        # Products, since a quotient such as 3 / 30 may come out above 0.1.
        often = (seen.worth > self.low * seen.tasks) & (seen.worth <= self.high * seen.tasks)
        able = often & ~here & (seen.times >= self.least)
        order = jnp.argsort(jnp.where(able, seen.worth, jnp.inf), stable=True)
        rank = jnp.zeros(len(order), int).at[order].set(jnp.arange(len(order)))
        return able & (rank < self.count)


def frequency_replay(
    plan: Bool[Any, "tasks classes"], rule: ByFrequency, worth: Float[Any, "tasks classes"] | None = None
) -> Bool[Array, "tasks classes"]:  # fmt: skip
    """The classes that are replayed in each task of a plan.

    A replayed class has occurred. `worth`: of an occurrence in each task, left out 1.
    """
    _check_rule(rule)
    plan = _planned(plan)
    each = jnp.ones(plan.shape) if worth is None else jnp.asarray(worth, jnp.float32)
    if each.shape != plan.shape:
        raise ValueError(f"worth must be {list(plan.shape)}, as the plan, not {list(each.shape)}")

    def task(seen: Occurrences, now: tuple[Array, Array]) -> tuple[Occurrences, Array]:
        here, worth = now
        again = rule(seen, here)
        return seen.after(here | again, worth), again

    return jax.lax.scan(task, Occurrences.none(plan.shape[1]), (plan, each))[1]


def random_replay(
    plan: Bool[Any, "tasks classes"], number: Int[Any, " tasks"], *, key: PRNGKeyArray
) -> Bool[Array, "tasks classes"]:
    """So many classes in each task, at random from those that came before and are not in it; fewer where
    there are not as many. The paper draws the numbers from Binomial(count, budget).

    Raises `ValueError` for numbers that are not one for each task."""
    plan = _planned(plan)
    if np.shape(number) != plan.shape[:1]:
        raise ValueError(f"number must be one for each of the {len(plan)} tasks, not {list(np.shape(number))}")  # fmt: skip
    came = jnp.cumsum(plan, axis=0) - plan > 0
    luck = jnp.where(came & ~plan, jax.random.uniform(key, plan.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(luck, axis=1), axis=1)
    return (luck < jnp.inf) & (rank < jnp.asarray(number)[:, None])


def replaying(
    stream: Stream, again: Bool[Any, "tasks classes"], labels: Int[Any, " n"], *, count: int, places: int,
    memory: int = 200, key: PRNGKeyArray,
) -> Stream:  # fmt: skip
    """The stream in which each replayed class takes so many `places` of every batch of its task.

    - `again`: the classes replayed in each task. `count`: how many classes a task has, and replays, at most.
    - `memory`: places of each class, filled from the examples that tasks showed: at its first occurrence
      all, after n occurrences a share 1 / (n + 1) of them, at least a twentieth, each in place of any.

    Examples of the task itself keep the rest of their places, so that all streams have batches of one size.
    A class that is not in memory is not replayed.

    Raises `ValueError` for tasks of several lengths, batches with fewer than `count * places` places and,
    unless they are traced, for tasks with more than `count` classes, new or replayed; for labels of other examples.
    """
    for name, value in (("count", count), ("places", places), ("memory", memory)):
        _whole(name, value, 1)
    tasks, batch = stream.tasks, stream.rows.shape[1]
    steps = stream.steps // tasks
    if stream.starts != tuple(range(0, tasks * steps, steps)) or stream.steps != tasks * steps:
        raise ValueError("replaying needs tasks of the same number of steps")
    if count * places > batch:
        raise ValueError(
            f"{count} classes of {places} places do not fit into a batch of {batch}: give fewer"
        )
    if np.shape(again) != stream.classes.shape:
        raise ValueError(f"again must be {list(stream.classes.shape)}, not {list(np.shape(again))}")
    # More would neither be kept nor come back, and nobody would be told.
    for name, plan in (("the stream", stream.classes), ("again", again)):
        if not isinstance(plan, Tracer) and (most := int(np.sum(plan, axis=1).max())) > count:
            raise ValueError(f"count must be at least the {most} classes that {name} gives a task, not {count}")  # fmt: skip
    _rows_of(stream, len(labels), "labels")
    y, classes = jnp.asarray(labels), stream.classes.shape[1]
    shown, n = min(memory, steps * batch), jnp.arange(memory)
    slot = np.arange(count * places) // places

    def task(now: tuple[Array, Array, Array], given: tuple[Array, ...]) -> tuple[Any, Array]:
        kept, filled, times = now  # rows [classes, memory]; how many of them; occurrences
        own, here, wanted, key = given
        draw_key, luck_key, key = jax.random.split(key, 3)
        wanted = wanted & (filled > 0)
        chosen = jnp.argsort(~wanted, stable=True)[:count]
        of = chosen[slot]
        at = jax.random.randint(draw_key, (steps, len(slot)), 0, jnp.maximum(filled[of], 1))
        mixed = own.reshape(steps, batch)
        old = jnp.where(wanted[of], kept[of, at], mixed[:, : len(slot)])
        mixed = mixed.at[:, : len(slot)].set(old)
        luck = jax.random.uniform(luck_key, own.shape)

        def renewed(c: Array, key: Array) -> tuple[Array, Array]:
            mine = y[own] == c
            fresh = own[jax.lax.top_k(jnp.where(mine, luck, -1.0), shown)[1]]
            share = jnp.maximum(memory // (times[c] + 1), max(memory // 20, 1))
            number = jnp.minimum(jnp.where(times[c] == 0, memory, share), mine.sum())
            number = jnp.where(here[c], jnp.minimum(number, shown), 0)
            # Empty places first, in their order; then any.
            wish = jnp.where(n < filled[c], 1 + jax.random.uniform(key, (memory,)), n / memory)
            rank = jnp.zeros(memory, int).at[jnp.argsort(wish)].set(n)
            rows = jnp.where(rank < number, fresh[jnp.minimum(rank, shown - 1)], kept[c])
            return rows, jnp.minimum(memory, filled[c] + number)

        mine = jnp.argsort(~here, stable=True)[:count]
        rows, full = jax.vmap(renewed)(mine, jax.random.split(key, len(mine)))
        after = kept.at[mine].set(rows), filled.at[mine].set(full), times + (here | wanted)
        return after, mixed

    none = jnp.zeros(classes, int)
    empty = jnp.zeros((classes, memory), stream.rows.dtype), none, none
    rows = stream.rows.reshape(tasks, steps * batch)
    given = rows, stream.classes, jnp.asarray(again, bool), jax.random.split(key, tasks)
    mixed = jax.lax.scan(task, empty, given)[1]
    return eqx.tree_at(lambda s: s.rows, stream, mixed.reshape(stream.rows.shape))


# Images that are corrupted differently in each task


def in_versions(stream: Stream, examples: int, versions: int, *, key: PRNGKeyArray) -> Stream:
    """The stream in which each task has a random version of its examples.

    The training examples are versions one after the other, each of so many `examples`, such as corruptions of the
    same images (`data.corruptions`); the stream is one of the first.

    Raises `ValueError` for a stream of other examples.
    """
    _whole("examples", examples, 1)
    _whole("versions", versions, 1)
    _rows_of(stream, examples, "examples")
    known = stream.examples and (examples * versions, stream.examples[1])
    version = jax.random.randint(key, (stream.tasks,), 0, versions)
    rows = stream.rows + examples * version[stream.task][:, None]
    return dataclasses.replace(stream, rows=rows, examples=known)


# The null, and the process


class Relabelled(Method):
    """Fine-tuning on labels that each task permutes anew, so that there is nothing to accumulate over tasks.

    `labels` [tasks, classes]: what each class is called in each task.

    Raises `ValueError` for labels of another shape than the stream's plan.
    """

    labels: Int[Array, "tasks classes"]

    @staticmethod
    def drawn(tasks: int, classes: int, *, key: PRNGKeyArray) -> Relabelled:
        keys = jax.random.split(key, tasks)
        return Relabelled(jax.vmap(lambda k: jax.random.permutation(k, classes))(keys))

    def init(self, model: Any, stream: Stream) -> Any:
        # A task without names of its own would take those of the last one: no null any more.
        if np.shape(self.labels) != (wanted := stream.classes.shape):
            raise ValueError(f"labels must be {list(wanted)}, a name for each class in each task, not {list(np.shape(self.labels))}")  # fmt: skip
        return super().init(model, stream)

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        names = self.labels[lesson.task]
        new = lesson.new
        columns = jnp.arange(new.allowed.shape[1]).at[names].set(jnp.arange(len(names)))
        new = new._replace(y=names[new.y], allowed=new.allowed[:, columns])
        return Losses(lesson.loss(lesson.logits(model, new.x), new))


class Recurring(Continual):
    """`Continual` on a stream of classes that come back, each class an exam; it tells more of each class.

    Observed besides: `present` [class], whether it is in the task of the update just made (at step 0, of the first
    one), and `frequency` [class], the share of the tasks so far, this one included, that had it.

    Raises `ValueError` where exams are not those of the classes, and where a task has no class.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        shape = eqx.filter_eval_shape(self.stream, jax.random.key(0))
        keys = jax.random.split(jax.random.key(0), 8)
        # A plan that depends on a key is known for a key alone; where a task has no class, its rows are sought for ever.
        known = jax.jit(jax.vmap(lambda key: self.stream(key).classes.any(axis=1)))(keys)
        if not known.all():
            task = int(jnp.argmin(known.all(axis=0)))
            raise ValueError(
                f"the plan gives task {task} no class with some seeds: give each task one"
            )
        if self.exams != shape.classes.shape[1]:
            raise ValueError(f"needs an exam for each of the {shape.classes.shape[1]} classes, not {self.exams}")  # fmt: skip

    def observe(self, state: ContinualState) -> dict[str, Array]:
        stream = state.stream
        now = stream.task[jnp.maximum(state.step - 1, 0)]
        past = (jnp.arange(stream.tasks) <= now)[:, None]
        often = (stream.classes & past).sum(axis=0) / (now + 1)
        seen = {"present": stream.classes[now].astype(jnp.float32), "frequency": often}
        return super().observe(state) | seen

    def quantities(self) -> dict[str, Quantity]:
        names = {"task": list(range(self.exams))}
        return super().quantities() | {
            "present": Quantity("1", ("task",), names, "whether a class is in the task just learned"),
            "frequency": Quantity("1", ("task",), names, "share of the tasks so far that had a class"),
        }  # fmt: skip


def _planned(plan: Any) -> Bool[Array, "tasks classes"]:
    if np.ndim(plan) != 2:
        raise ValueError(f"plan must be [tasks, classes], not {list(np.shape(plan))}")
    return jnp.asarray(plan, bool)


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")


def _rows_of(stream: Stream, number: int, name: str) -> None:
    """A row beyond the last would be read as the last one."""
    if stream.examples is not None:
        if number != stream.examples[0]:
            raise ValueError(f"{name} must be the {stream.examples[0]} that the stream draws from, not {number}")  # fmt: skip
    elif not isinstance(stream.rows, Tracer) and (last := int(jnp.max(stream.rows))) >= number:
        raise ValueError(f"{name} must be all that the stream draws from, but there are {number} and it has row {last}")  # fmt: skip


def _share(name: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")


def _count(count: int, classes: int) -> int:
    _whole("count", count, 1)
    if count > classes:
        raise ValueError(f"count must be at most the {classes} classes, not {count}")
    return count


def _check_rule(rule: ByFrequency) -> None:
    _whole("count", rule.count, 1)
    _whole("least", rule.least, 0)
    if not 0 <= rule.low <= rule.high < math.inf:
        raise ValueError(
            f"low and high must be frequencies, the first the lower, not {rule.low} and {rule.high}"
        )
