"""Parameter isolation: each task has a sparse sub-network of one network, found by dynamic sparse training.

What earlier tasks use is frozen and may be used again; so nothing is forgotten, as long as there is room.

Source: Yildirim et al. 2024 (CPAL; arXiv 2308.14831) and its code. Rivals stand in `subnetwork_rivals`.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from latebloom.core.memory import Items
from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.core.training import accuracy, gradients, step_key, trainable, update
from latebloom.methods.forgetting.continual import Continual, ContinualState
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.topology import Topology
from latebloom.nn.masks import dense_masks, layer_names, masked
from latebloom.nn.rewiring import (
    GROWTHS,
    cosine_rate,
    dropped,
    erk_densities,
    grown,
    momentum_of,
    random_masks,
    uniform_densities,
)


class Found(NamedTuple):
    """A network, its mask, and its accuracy on what it was trained on last."""

    model: Any
    mask: Any
    accuracy: Float[Array, ""]


class Subnets(NamedTuple):
    """What is known beside the weights, which the state's `model` holds; masks are trees of booleans.

    - `task`: the one that is learned. `mask`: of it; `fired`: what was in it at any time; `used`: by a task that is over.
    - `masks`, `kept` [tasks, ...]: each finished task's mask, and its own values of what has no mask.
    - `right`, `count`: training examples answered rightly, and all, since the last update of the topology.
    - `best`: of the task so far, where it is kept. `rule`: by which the task grows; `tries`, `gains`
      [rules]: how often each was used, and the accuracy that it brought.
    """

    task: Int[Array, ""]
    mask: Any
    fired: Any
    used: Any
    masks: Any
    kept: Any
    right: Int[Array, ""]
    count: Int[Array, ""]
    best: Found | None
    rule: Int[Array, ""]
    tries: Float[Array, " rules"]
    gains: Float[Array, " rules"]


class Subnetworks(Continual):
    """Each task of a stream learns in a sub-network of its own; it is examined with it.

    As `Continual`, with `head="task"` and no method or memory. A task starts with new moments of the
    optimiser and a random mask over all weights (`Topology`): of those that earlier tasks use it takes the values and
    leaves them; the others are 0 until they are trained, but for the first task's. Moments follow the dense gradient,
    without that of frozen weights. What has no mask goes on from the last task's values.

    A frozen weight that is pruned and grown again has its old value, in training and in exams; in the authors'
    code it counts 0 in training and has its old value in exams.

    Observed beside `accuracy` and `learning`, of the layers: shares that are `free`, `used` by tasks so far and this
    one, `active` in this one's mask; of the active, the share `shared` with earlier tasks; `fired`, the share ever
    active in this task (ITOP). `grown_by`: place of its rule in `GROWTHS`; `fitted`: training accuracy since the
    last update of the topology.

    Raises `ValueError` where `Continual` does, for growth by momentum under an optimiser that has none, and for
    an optimiser that has it for some layers with masks, not for others.
    """

    topology: Topology
    sparse_layers: tuple[str, ...] = eqx.field(static=True)

    separate: ClassVar[bool] = False  # whether each task has a network of its own

    def __init__(self, *, topology: Topology, **more: Any):
        self.topology = topology
        model = eqx.filter_eval_shape(more["model"], jax.random.key(0))
        self.sparse_layers = layer_names(dense_masks(model, topology.ignore))
        super().__init__(**{"method": Method(), "head": "task"} | more)

    def _check(self, stream: Stream) -> None:
        super()._check(stream)
        if type(self.method) is not Method or self.replay is not None or self.head != "task":
            raise ValueError(
                "sub-networks are told the task and keep no examples: leave method, replay and head out"
            )
        rule = self.topology.growth

        def momentum_of_none(key: Any) -> Any:
            return momentum_of(self.optimiser(**self.hyper).init(trainable(self.model(key))))

        momentum = eqx.filter_eval_shape(momentum_of_none, jax.random.key(0))
        if momentum is None and (isinstance(rule, Tracer) or int(rule) >= 3):
            raise ValueError(
                "growth by momentum needs an optimiser with momentum, such as optax.adam"
            )
        self._check_moments(momentum)

    def _check_moments(self, momentum: Any) -> None:
        """Of layers with masks an optimiser keeps the momentum of all, or of none."""
        model = eqx.filter_eval_shape(self.model, jax.random.key(0))
        masks = dense_masks(model, self.topology.ignore)
        if momentum is None or len(masked_leaves(momentum, masks)) == len(self.sparse_layers):
            return
        without = jax.tree.map(
            lambda m, x: None if m is None or hasattr(x, "shape") else m,
            masks, momentum, is_leaf=lambda node: node is None,
        )  # fmt: skip
        names = layer_names(without)
        raise ValueError(
            f"the optimiser leaves {', '.join(names)} out, which would grow but never learn: a layer that it "
            f"freezes needs no mask, Topology(ignore={names})"
        )

    @property
    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, [*self.starts[1:], self.steps], strict=True))

    def _update_steps(self) -> list[int]:
        count = self.topology.updates
        steps = [start + (end - start) * k // (count + 1) for start, end in self._spans for k in range(1, count + 1)]  # fmt: skip
        return [step for step in steps if step not in self.starts]  # a short task has fewer

    def turns(self) -> tuple[int, ...]:
        return tuple(sorted({*self.starts[1:], *self._update_steps()}))

    def init(self, key: Any) -> ContinualState:
        state = super().init(key)
        model, tasks = state.model, len(self.starts)
        full = dense_masks(model, self.topology.ignore)
        none = jax.tree.map(jnp.zeros_like, full)
        model, mask = self.begun(model, model, none, step_key(key, jnp.int32(0)), jnp.ones(()))

        def of_tasks(tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (tasks, *x.shape)), tree)

        nothing = jnp.zeros((), jnp.int32)
        best = Found(model, mask, jnp.float32(-1)) if self.topology.keep == "best" else None
        rules = jnp.zeros(len(GROWTHS))
        rule = self._rule(rules, rules, step_key(key, jnp.int32(1)))
        kept = eqx.filter(self._unshared(model, full), eqx.is_array)
        own = Subnets(
            nothing, mask, mask, none, of_tasks(none), of_tasks(kept), nothing, nothing, best, rule, rules, rules
        )  # fmt: skip
        return state._replace(model=model, own=own)

    def _unshared(self, model: Any, mask: Any) -> Any:
        """What each task keeps for itself, the rest None: leaves without a mask."""
        if self.separate:
            return model
        return jax.tree.map(
            lambda m, x: x if m is None else None, mask, model, is_leaf=lambda node: node is None
        )

    def _frozen(self, own: Subnets) -> Any:
        isolate = self.topology.isolate & (not self.separate)
        return jax.tree.map(lambda flag: flag & isolate, own.used)

    def begun(self, model: Any, fresh: Any, used: Any, key: Any, scale: Array) -> tuple[Any, Any]:
        """The weights with which a task starts, and its mask: `used` weights stay, free ones in the mask are
        those of `fresh` times `scale`, all others 0."""
        mask = self._first_mask(used, key)

        def started(flag: Any, taken: Any, weight: Any, new: Any) -> Any:
            if flag is None:
                return weight
            return jnp.where(taken, weight, jnp.where(flag, (scale * new).astype(weight.dtype), 0))

        leaf = {"is_leaf": lambda node: node is None}
        return jax.tree.map(started, mask, used, model, fresh, **leaf), mask

    def _first_mask(self, used: Any, key: Any) -> Any:
        """A task's mask at its start."""
        shapes = [flag.shape for flag in jax.tree.leaves(used)]
        taken, size = sum(f.sum() for f in jax.tree.leaves(used)), sum(map(np.prod, shapes))
        by_erk = 1 - taken / size > self.topology.erk_above
        density = self.topology.density
        densities = jnp.where(by_erk, erk_densities(shapes, density), uniform_densities(shapes, density))  # fmt: skip
        return random_masks(used, densities, key)

    def _rule(self, tries: Array, gains: Array, key: Any) -> Int[Array, ""]:
        """The rule that a task grows by; of those never tried, any."""
        bonus = self.topology.exploration * jnp.sqrt(2 * jnp.log(jnp.maximum(tries.sum(), 1)) / jnp.maximum(tries, 1))  # fmt: skip
        index = jnp.where(tries > 0, gains / jnp.maximum(tries, 1) + bonus, 1e3)
        picked = jnp.argmax(index + 1e-6 * jax.random.uniform(key, index.shape))
        asked = self.topology.growth
        return jnp.where(asked == len(GROWTHS), picked, asked).astype(jnp.int32)

    def step(self, state: ContinualState) -> ContinualState:
        own, frozen = state.own, self._frozen(state.own)
        slopes, seen, right = self._slopes(state, frozen)

        def trained(updates: Any) -> Any:
            return masked(updates, jax.tree.map(lambda m, f: m & ~f, own.mask, frozen))

        rule = self.optimiser(**self.hyper)
        model, moments = update(rule, slopes, state.optimiser, state.model, seen, trained)
        own = own._replace(right=own.right + right.sum(), count=own.count + right.size)
        return state._replace(model=model, optimiser=moments, own=own, step=state.step + 1)

    def _slopes(self, state: ContinualState, frozen: Any) -> tuple[Any, Any, Array]:
        """Dense gradients of a step's loss at the masked weights, 0 where frozen; statistics; what was right."""
        rows = state.stream.rows[state.step]
        items = Items(rows, self.data.y_train[rows], state.stream.origins(state.step))
        keys = jax.random.split(step_key(state.key, state.step), 4)
        lesson = self._lesson(state, items, keys)

        def objective(model: Any) -> tuple[Array, Array]:
            logits = lesson.logits(model, lesson.new.x)
            return lesson.loss(logits, lesson.new), logits

        slopes, seen, logits = gradients(objective, masked(state.model, state.own.mask), True)
        scores = jnp.where(lesson.new.allowed, logits, -jnp.inf)
        right = scores.argmax(axis=1) == lesson.new.y
        return masked(slopes, jax.tree.map(jnp.logical_not, frozen)), seen, right

    def turn(self, state: ContinualState) -> ContinualState:
        border = jnp.isin(state.step, jnp.asarray(self.starts[1:], jnp.int32))
        rest = eqx.filter((state.model, state.optimiser, state.own), eqx.is_array, inverse=True)

        def over(after: Any) -> Any:
            def changed() -> Any:
                new = after(state)
                return eqx.filter((new.model, new.optimiser, new.own), eqx.is_array)

            return changed

        arrays = jax.lax.cond(border, over(self._next_task), over(self._updated))
        model, optimiser, own = eqx.combine(arrays, rest)
        return state._replace(model=model, optimiser=optimiser, own=own)

    def _updated(self, state: ContinualState) -> ContinualState:
        """After an update of the topology."""
        state = self._judged(state)
        state = self._rewired(state, step_key(state.key, self.steps + state.step))
        nothing = jnp.zeros((), jnp.int32)
        return state._replace(own=state.own._replace(right=nothing, count=nothing))

    def _rewired(self, state: ContinualState, key: Any) -> ContinualState:
        """Each layer prunes a share of its mask and grows as many, by the gradient of the last batch.

        What goes and comes back at once keeps its value, as in the authors' code.
        """
        own, frozen = state.own, self._frozen(state.own)
        slopes, _, _ = self._slopes(state._replace(step=state.step - 1), frozen)
        momentum = momentum_of(state.optimiser)
        momentum = slopes if momentum is None else momentum
        start, end = jnp.asarray(self._spans)[state.stream.task[state.step - 1]]
        drop = self.topology.drop
        rate = cosine_rate(drop, jnp.minimum(drop, 0.005), (state.step - start) / (end - start))
        flags, tree = jax.tree.flatten(own.mask)
        keys = iter(jax.random.split(key, 2 * len(flags)))
        masks = []
        for mask, weight, slope, moving, fired in zip(
            flags, *(masked_leaves(t, own.mask) for t in (state.model, slopes, momentum, own.fired)), strict=True
        ):  # fmt: skip
            gone = dropped(weight, slope, mask, rate, next(keys), self.topology.prune)
            left = mask & ~gone
            masks.append(left | grown(own.rule, slope, moving, fired, left, gone.sum(), next(keys)))
        new = jax.tree.unflatten(tree, masks)
        stays = jax.tree.map(lambda a, b, f: (a & b) | f, own.mask, new, frozen)
        fired = jax.tree.map(jnp.logical_or, own.fired, new)
        return state._replace(
            model=masked(state.model, stays), own=own._replace(mask=new, fired=fired)
        )

    def _judged(self, state: ContinualState) -> ContinualState:
        """The best network of the task so far, where it is kept."""
        own = state.own
        if own.best is None:
            return state
        return state._replace(own=own._replace(best=self._chosen(state)))

    def _chosen(self, state: ContinualState) -> Found:
        """The network of the task that is learned, as it would be kept now."""
        own = state.own
        last = Found(state.model, own.mask, own.right / jnp.maximum(own.count, 1))
        if own.best is None:
            return last
        better = last.accuracy >= own.best.accuracy
        return jax.tree.map(lambda a, b: jnp.where(better, a, b) if eqx.is_array(a) else a, last, own.best)  # fmt: skip

    def _next_task(self, state: ContinualState) -> ContinualState:
        """After a task is over and the next one's sub-network is drawn."""
        own, task = state.own, state.own.task
        found = self._chosen(state)

        def put(into: Any, tree: Any) -> Any:
            return jax.tree.map(lambda x, y: x.at[task].set(y), into, tree)

        masks = put(own.masks, found.mask)
        kept = put(own.kept, eqx.filter(self._unshared(found.model, found.mask), eqx.is_array))
        used = jax.tree.map(jnp.logical_or, own.used, found.mask)
        rule = jnp.arange(len(GROWTHS)) == own.rule
        tries, gains = own.tries + rule, own.gains + rule * found.accuracy
        keys = jax.random.split(step_key(state.key, self.steps + state.step), 3)
        fresh, none = self.model(keys[0]), jax.tree.map(jnp.zeros_like, used)
        if self.separate:
            model, mask = self.begun(fresh, fresh, none, keys[1], jnp.ones(()))
        else:
            model, mask = self.begun(found.model, fresh, used, keys[1], self.topology.refill)
        best = None if own.best is None else Found(model, mask, jnp.float32(-1))
        nothing, chosen = jnp.zeros((), jnp.int32), self._rule(tries, gains, keys[2])
        after = Subnets(
            task + 1, mask, mask, used, masks, kept, nothing, nothing, best, chosen, tries, gains
        )  # fmt: skip
        moments = self.optimiser(**self.hyper).init(trainable(model))
        return state._replace(model=model, optimiser=moments, own=after)

    def network(self, state: ContinualState, task: int | Int[Array, ""]) -> Any:
        """The sub-network of a task, with its biases, as it is examined: all other weights are 0."""
        own, now, task = state.own, self._chosen(state), jnp.asarray(task)
        current = task == own.task
        mask = jax.tree.map(lambda m, ms: jnp.where(current, m, ms[task]), now.mask, own.masks)
        mine = current | ~(self.topology.own_biases | jnp.array(self.separate))
        arrays, rest = eqx.partition(self._unshared(now.model, now.mask), eqx.is_array)
        kept = jax.tree.map(lambda a, b: jnp.where(mine, a, b[task]), arrays, own.kept)
        return masked(eqx.combine(kept, rest, now.model), mask)

    def observe(self, state: ContinualState) -> dict[str, Array]:
        stream, exams = state.stream, state.stream.exams
        learning = stream.task[jnp.maximum(state.step - 1, 0)]

        def hold(exam: Array, found: Array) -> Array:
            rows, task = exams.rows[exam], jnp.full(exams.rows.shape[1], exams.task[exam])
            x = stream.view(self.data.x_test[rows], task)
            scores = self.apply(self.network(state, exams.task[exam]), x, None, False)
            allowed = self._allowed(stream, task, stream.seen[learning], len(rows))
            right = accuracy(jnp.where(allowed, scores, -jnp.inf), self.data.y_test[rows])
            return found.at[exam].set(right)

        held, order = (exams.since <= state.step).sum(), jnp.argsort(exams.since)
        nothing = jnp.full(self.exams, jnp.nan)
        found = jax.lax.fori_loop(0, held, lambda i, found: hold(order[i], found), nothing)
        own, now = state.own, self._chosen(state)
        mask, used, fired = (jax.tree.leaves(t) for t in (now.mask, own.used, own.fired))
        pairs: list[tuple[Array, Array]] = list(zip(mask, used, strict=True))
        active = jnp.stack([m.mean() for m in mask])
        both = jnp.stack([jnp.mean(m & u) for m, u in pairs])
        taken = jnp.stack([jnp.mean(m | u) for m, u in pairs])
        return {
            "accuracy": found, "learning": learning, "free": 1 - taken, "used": taken, "active": active,
            "shared": both / jnp.maximum(active, 1e-9), "fired": jnp.stack([f.mean() for f in fired]),
            "grown_by": own.rule, "fitted": now.accuracy,
        }  # fmt: skip

    def quantities(self) -> dict[str, Quantity]:
        layers = {"layer": list(self.sparse_layers)}
        about = {
            "free": "share of a layer's weights that no task uses", "used": "share that a task uses",
            "active": "share that the task being learned uses",
            "shared": "share of these that an earlier task uses, too",
            "fired": "share that was active at any time in this task",
        }  # fmt: skip
        return super().quantities() | {
            **{name: Quantity("1", ("layer",), layers, text) for name, text in about.items()},
            "grown_by": Quantity("1", about="place of the growth rule"),
            "fitted": Quantity("1", about="training accuracy since the last update of the topology"),
        }  # fmt: skip


def masked_leaves(tree: Any, masks: Any) -> list[Array]:
    """The leaves of a tree that have a mask, in the order of the masks'."""
    held = jax.tree.map(
        lambda m, x: None if m is None else x, masks, tree, is_leaf=lambda node: node is None
    )
    return jax.tree.leaves(held)
