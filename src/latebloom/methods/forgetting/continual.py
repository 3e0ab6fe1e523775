"""Continual learning as a process: a stream of tasks, a network, a method against forgetting.

A method (`method.Method`) says what it adds to the loss, what it does to the gradient, and what it keeps when
a task is over. All else stands here once: batches and replay, heads, exams after any step, borders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from latebloom.core import memory as memories
from latebloom.core.calling import Apply, call
from latebloom.core.dataset import Dataset, check_finite, check_labels
from latebloom.core.memory import Items, Memory, Policy
from latebloom.core.process import Process, Quantity, Stepped
from latebloom.core.statistics import batch_statistics, trainable_leaves
from latebloom.core.stream import Stream
from latebloom.core.training import accuracy, step_key, trainable, update
from latebloom.methods.forgetting.method import (
    Batch,
    Displaced,
    Lesson,
    Method,
    check,
    norm,
    one_of,
    present,
)

Head = Literal["all", "seen", "task", "batch"]


class Replay(NamedTuple):
    """A memory and how it is used.

    - `size` places, kept by `policy`; `batch` are drawn at a step, by example or by class (`by`).
    - `at`: examples come in at each step, or when their task is over.
    """

    size: int
    batch: int
    policy: Policy = memories.RESERVOIR
    by: Literal["all", "class"] = "all"
    at: Literal["step", "task"] = "step"


class ContinualState(NamedTuple):
    model: Any
    optimiser: Any
    own: Any
    memory: Memory | None
    stream: Stream
    key: PRNGKeyArray
    step: Int[Array, ""]


class Continual(Process):
    """A network learns from a stream of tasks; it is examined after any step, on the tasks so far.

    - `model(key)` builds the network; `apply(model, x, key, train)` calls it, left out any network is.
    - `data`: the examples; `stream(key)` draws a stream of their rows for each seed.
    - `head`: which classes compete in training: "all"; those "seen" so far; those of the example's own
      "task" (task-incremental learning); those in the "batch", new or replayed (SCoLe's masking). So it
      is in exams, but "all" for "batch".
    - `optimiser(**hyper)` as in `Supervised`; its state is carried over borders, unless `fresh`.
    - `tell`: steps tell the norms of the gradients that learn the new and keep the old (what a
      projection adds keeps the old); these are then added up, which may round otherwise.

    Observed: `accuracy` [exam], NaN before an exam is first held; `learning`, the task of the update
    just made.

    Where the memory holds fewer than are drawn, those that there are stand in for the rest, or the new
    ones: they count in no loss, but a batch normalisation sees nobody else.

    Raises `ValueError` for inputs that are not finite, for labels that are not indices of outputs, for a stream of more
    examples than `data` has, for a memory that does not suit the method, for a method that looks back on more batches than a task has, and for `head="task"` where
    exams are not those of the tasks.
    """

    model: Callable[[PRNGKeyArray], Any]
    data: Dataset
    stream: Callable[[PRNGKeyArray], Stream]
    method: Method
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    apply: Apply
    replay: Replay | None = eqx.field(static=True)
    head: Head = eqx.field(static=True)
    fresh: bool = eqx.field(static=True)
    tell: bool = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore
    starts: tuple[int, ...] = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    exams: int = eqx.field(static=True)
    outputs: jax.ShapeDtypeStruct = eqx.field(static=True)

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: Dataset,
        stream: Callable[[PRNGKeyArray], Stream], method: Method,
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any],
        apply: Apply = call, replay: Replay | None = None, head: Head = "all", fresh: bool = False,
        tell: bool = False, seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        self.model, self.data, self.stream, self.method = model, data, stream, method
        self.optimiser = optimiser
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.apply, self.replay, self.head = apply, replay, head
        self.fresh, self.tell, self.seeds_by = fresh, tell, seeds_by
        shape = eqx.filter_eval_shape(stream, jax.random.key(0))
        self.starts, self.steps = shape.starts, shape.rows.shape[0]
        self.exams = shape.exams.task.shape[0]
        self.outputs = self._outputs()
        self._check(shape)
        model = eqx.filter_eval_shape(self.model, jax.random.key(0))
        eqx.filter_eval_shape(self.method.init, model, shape)

    def _check(self, stream: Stream) -> None:
        if self.head not in get_args(Head):
            raise ValueError(f"head must be one of {', '.join(get_args(Head))}, not {self.head!r}")
        replay, name = self.replay, type(self.method).__name__
        if (self.method.replays or self.method.remembers) and replay is None:
            raise ValueError(
                f"{name} remembers: give it a memory, as in replay=Replay(size=500, batch=32)"
            )
        if replay is not None and not 1 <= replay.batch <= replay.size:
            raise ValueError(
                f"a replayed batch must be from 1 to the {replay.size} places of the memory, not {replay.batch}"
            )
        if replay is not None:
            _check_replay(replay)
        shortest = min(
            b - a for a, b in zip(self.starts, [*self.starts[1:], self.steps], strict=True)
        )
        if self.method.looks_back > shortest:
            raise ValueError(
                f"{name} looks back on {self.method.looks_back} batches, but a task has {shortest}"
            )
        outputs = self.outputs
        if len(outputs.shape) != 2:
            raise ValueError(
                f"the network must make outputs [batch, classes], not {list(outputs.shape)}"
            )
        if self.head == "task" and self.exams % stream.tasks:
            raise ValueError(
                f"head='task' needs as many exams for each of the {stream.tasks} tasks, not {self.exams} in all"
            )
        for part in ("train", "test"):
            check_labels(getattr(self.data, f"y_{part}"), outputs.shape[1], f"the {part} labels")
            check_finite(getattr(self.data, f"x_{part}"), f"x_{part}")
        for part, number in zip(("train", "test"), stream.examples or (), strict=False):
            # Rows beyond the last would be read as the last.
            if number > (known := len(getattr(self.data, f"y_{part}"))):
                raise ValueError(
                    f"the stream draws from {number} {part} examples, but data has {known}: draw it with the labels of data"
                )
        if outputs.shape[1] < stream.classes.shape[1]:
            raise ValueError(
                f"the network has {outputs.shape[1]} outputs for {stream.classes.shape[1]} classes"
            )
        if (
            replay is not None
            and replay.at == "task"
            and jax.tree.leaves(self.method.remembered(self._one()))
        ):
            raise ValueError(
                f"{name} remembers outputs of the step: its memory must be filled at='step'"
            )

    def _outputs(self) -> jax.ShapeDtypeStruct:
        def outputs(key: PRNGKeyArray, x: Array) -> Array:
            return self.apply(self.model(key), x, None, False)

        return eqx.filter_eval_shape(outputs, jax.random.key(0), self.data.x_test)

    def _one(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.outputs.shape[1:], self.outputs.dtype)

    def init(self, key: PRNGKeyArray) -> ContinualState:
        model_key, stream_key, key = jax.random.split(key, 3)
        model, stream = self.model(model_key), self.stream(stream_key)
        memory = None
        if self.replay is not None:
            memory = memories.empty(self.replay.size, self.method.remembered(self._one()))
        moments = self.optimiser(**self.hyper).init(trainable(model))
        own = self.method.init(model, stream)
        return ContinualState(model, moments, own, memory, stream, key, jnp.int32(0))

    def turns(self) -> tuple[int, ...]:
        idle = not self.method.does("turn") and not self.fresh
        filled = self.replay is not None and self.replay.at == "task"
        return () if idle and not filled else self.starts[1:]

    def horizon(self) -> int:
        return self.steps

    def searched(self, state: ContinualState) -> ContinualState:
        return state._replace(memory=None, stream=None)  # pyright: ignore

    def step(self, state: ContinualState) -> ContinualState | Stepped:
        stream = state.stream
        items = Items(stream.rows[state.step], self.data.y_train[stream.rows[state.step]],
                      stream.origins(state.step))  # fmt: skip
        keys = jax.random.split(step_key(state.key, state.step), 4)
        lesson = self._lesson(state, items, keys)
        place = Displaced(state.model, state.model, state.own)
        if self.method.does("displaced"):
            place = self.method.displaced(state.model, state.own, lesson, keys[3])
        params, rest = eqx.partition(place.at, trainable_leaves(place.at))

        def value(params: Any) -> tuple[tuple[Array, Array], Any]:
            model = eqx.combine(params, rest)
            with batch_statistics(model) as seen:
                found = self.method.losses(model, place.own, lesson)
            new, old = (jnp.asarray(loss, jnp.float32) for loss in found[:2])
            kept = jax.lax.stop_gradient((found.remember, dict(found.told), found.own))
            return (new, old), (seen, *kept)

        (new, old), pull, (seen, remember, told, own) = jax.vjp(value, params, has_aux=True)
        one, zero = jnp.ones(()), jnp.zeros(())
        if self.tell or self.method.does("moved"):
            plastic, kept = pull((one, zero))[0], pull((zero, one))[0]
            total = jax.tree.map(jnp.add, plastic, kept)
        else:
            plastic = total = kept = pull((one, one))[0]
        total = self.method.directed(place.at, place.own, lesson, total)
        rule = self.optimiser(**self.hyper)
        model, moments = update(rule, total, state.optimiser, place.start, seen)
        own = place.own if own is None else own
        own = self.method.moved(own, plastic, trainable(place.start), trainable(model))
        memory = state.memory
        if memory is not None and self.replay is not None and self.replay.at == "step":
            items = items._replace(extra=remember)
            memory = memories.add(memory, self.replay.policy, items, keys[2])
        after = ContinualState(model, moments, own, memory, stream, state.key, state.step + 1)
        if not self.tell:
            return after
        if self.method.does("directed"):
            kept = jax.tree.map(jnp.subtract, total, plastic)
        info = {
            "plasticity": norm(plastic),
            "stability": norm(kept),
            "new_loss": new,
            "old_loss": old,
        }
        return Stepped(after, {**info, **told, **place.told})

    def _lesson(self, state: ContinualState, items: Items, keys: PRNGKeyArray) -> Lesson:
        stream, task = state.stream, state.stream.task[state.step]
        everyone = jnp.ones(items.rows.shape, bool)
        batch_of = self._batch_of(stream, stream.seen[task])
        new, old, other = batch_of(items, everyone), None, None
        if self.replay is not None and self.method.replays and state.memory is not None:
            draws = (
                memories.draw(state.memory, key, self.replay.batch, self.replay.by)
                for key in jax.random.split(keys[0])
            )
            old, other = (batch_of(repeated(drawn, there, items), there) for drawn, there in draws)
            if self.head == "batch":
                here, among = new.allowed[0], new.allowed[0] | old.allowed[0]
                new, old = (
                    b._replace(allowed=jnp.broadcast_to(among, b.allowed.shape)) for b in (new, old)
                )
                other = other._replace(allowed=other.allowed | here)
        before = stream.task[jnp.maximum(state.step - 1, 0)]
        return Lesson(
            lambda model, x: self.apply(model, x, keys[1], True),
            lambda model, x: self.apply(model, x, None, False), new, old, other, task,
            (state.step == 0) | (before != task), stream.seen[task], state.memory, batch_of,
            lambda: jax.random.fold_in(keys[3], 1), apply=self.apply,
        )  # fmt: skip

    def _batch_of(self, stream: Stream, seen: Array) -> Callable[[Items, Array], Batch]:
        def batch_of(items: Items, there: Array) -> Batch:
            x = stream.view(self.data.x_train[items.rows], items.task)
            allowed = self._allowed(stream, items.task, seen, len(items.rows))
            if self.head == "batch":
                here = present(items.labels, there, self.outputs.shape[1])
                allowed = jnp.broadcast_to(here, allowed.shape)
            return Batch(x, items.labels, items.task, allowed, there, items.extra)

        return batch_of

    def _allowed(
        self, stream: Stream, task: Array, seen: Array, n: int
    ) -> Bool[Array, "n classes"]:
        outputs = self.outputs.shape[1]
        spare = [(0, 0), (0, outputs - stream.classes.shape[1])]  # outputs that are no class
        if self.head == "task":
            return jnp.pad(stream.classes, spare)[task]
        if self.head == "seen":
            return jnp.broadcast_to(jnp.pad(seen[None], spare), (n, outputs))
        return jnp.ones((n, outputs), bool)

    def turn(self, state: ContinualState) -> ContinualState:
        stream, data = state.stream, self.data
        task = stream.task[state.step - 1]
        starts = jnp.asarray([*self.starts, self.steps])
        longest = max(
            b - a for a, b in zip(self.starts, [*self.starts[1:], self.steps], strict=True)
        )
        steps = jnp.minimum(starts[task] + jnp.arange(longest), self.steps - 1)
        origins = jax.vmap(stream.origins)(steps)
        items = Items(stream.rows[steps], data.y_train[stream.rows[steps]], origins)
        own, memory, moments = state.own, state.memory, state.optimiser
        key = step_key(state.key, self.steps + state.step)
        if self.method.does("turn"):
            first = jax.tree.map(lambda x: x[: self.method.looks_back], items)
            batch_of = self._batch_of(stream, stream.seen[task])
            batches = jax.lax.map(lambda i: batch_of(i, jnp.ones(i.rows.shape, bool)), first)
            lesson = Lesson(
                lambda model, x: self.apply(model, x, key, True),
                lambda model, x: self.apply(model, x, None, False), batches, None, None, task,
                jnp.array(False), stream.seen[task], memory, batch_of, apply=self.apply,
            )  # fmt: skip
            own = self.method.turn(state.model, own, lesson)
        if memory is not None and self.replay is not None and self.replay.at == "task":
            inside = starts[task] + jnp.arange(longest) < starts[task + 1]
            valid = jnp.repeat(inside, stream.rows.shape[1])
            flat = jax.tree.map(jnp.ravel, items)
            memory = memories.add(memory, self.replay.policy, flat, key, valid, once=True)
        if self.fresh:
            moments = self.optimiser(**self.hyper).init(trainable(state.model))
        return state._replace(own=own, memory=memory, optimiser=moments)

    def observe(self, state: ContinualState) -> dict[str, Array]:
        stream, exams = state.stream, state.stream.exams
        learning = stream.task[jnp.maximum(state.step - 1, 0)]
        scores_of = self._scores(state)

        def hold(exam: Array, found: Array) -> Array:
            rows, task = exams.rows[exam], jnp.full(exams.rows.shape[1], exams.task[exam])
            scores = scores_of(stream.view(self.data.x_test[rows], task))
            allowed = self._allowed(stream, task, stream.seen[learning], len(rows))
            scores = jnp.where(allowed, scores, -jnp.inf)
            return found.at[exam].set(accuracy(scores, self.data.y_test[rows]))

        held, order = (exams.since <= state.step).sum(), jnp.argsort(exams.since)
        nothing = jnp.full(self.exams, jnp.nan)
        found = jax.lax.fori_loop(0, held, lambda i, found: hold(order[i], found), nothing)
        return {"accuracy": found, "learning": learning}

    def _scores(self, state: ContinualState) -> Callable[[Array], Array]:
        if not self.method.does("scores"):
            return lambda x: self.apply(state.model, x, None, False)
        if state.memory is None:
            return lambda x: self.method.scores(state.model, state.own, x, None)  # pyright: ignore
        batch_of = self._batch_of(state.stream, state.stream.seen[-1])
        memory = batch_of(state.memory.items, state.memory.filled)
        return lambda x: self.method.scores(state.model, state.own, x, memory)  # pyright: ignore

    def quantities(self) -> dict[str, Quantity]:
        names = {"task": list(range(self.exams))}
        return {
            "accuracy": Quantity(
                "1", ("task",), names, "accuracy on the test examples of a task", gaps=True
            ),
            "learning": Quantity("1", about="task of the update just made"),
            "plasticity": Quantity("1", about="norm of the gradient that learns the new"),
            "stability": Quantity("1", about="norm of the gradient that keeps the old"),
            "new_loss": Quantity("nats", about="loss that learns the new, before the update"),
            "old_loss": Quantity("nats", about="loss that keeps the old, before the update"),
            **self.method.quantities(),
        }


def repeated(items: Items, there: Bool[Array, " n"], others: Items | None = None) -> Items:
    """Items of which those that are there, the first, stand in for the rest; where none is, the others."""
    place, count = jnp.arange(len(there)), there.sum()
    shown = jax.tree.map(lambda x: x[place % jnp.maximum(count, 1)], items)
    if others is None:
        return shown
    instead = jax.tree.map(lambda x: x[place % len(others.rows)], others._replace(extra=()))
    mixed = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), shown._replace(extra=()), instead)
    return mixed._replace(extra=shown.extra)


def _check_replay(replay: Replay) -> None:
    one_of(replay, "by", ("all", "class"))
    one_of(replay, "at", ("step", "task"))
    one_of(replay.policy, "by", ("all", "class", "task"))
    one_of(replay.policy, "prefer", ("random", "last", "first", "kept"))
    if replay.policy.share is not None:
        check(replay.policy, "share", 1)
