"""Federated training as the replay of a schedule.

The state holds the model versions that some client still works on. A visit is one client's update:
it trains from the version that it was given, and its difference to *that* version goes, weighted, into
the next model. Training at the moment of aggregation gives what eager training would.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.methods.federated.clock import TOLERANCE, Schedule

LEAST_ROOM = 4096  # visits; shorter schedules are padded to it and share their program


class Replay(eqx.Module):
    """A schedule as the program reads it, visit by visit; padded so that programs can be shared.

    `read` is the slot of the model version a visit starts from; `write` the slot for the new model
    after an aggregation's last visit, elsewhere the spare slot. `ticks[k]` visits are done when k
    units of learning time have passed.
    """

    client: Int[Array | np.ndarray, " visits"]
    read: Int[Array | np.ndarray, " visits"]
    write: Int[Array | np.ndarray, " visits"]
    weight: Float[Array | np.ndarray, " visits"]
    last: Bool[Array | np.ndarray, " visits"]
    ticks: Int[Array | np.ndarray, " times"]
    clients: int = eqx.field(static=True)


def replay(
    schedule: Schedule, weights: Float[np.ndarray, " clients"],
    moments: Float[np.ndarray, " times"], *,
    discount: Float[np.ndarray, " visits"] | None = None,
) -> Replay:  # fmt: skip
    """Prepare a schedule for training.

    - `weights`: d_i of each client; `discount` multiplies it at each visit (staleness).
    - `moments`: the simulated time at step 0, 1, ...; the first is 0 and they increase.

    Raises `ValueError` for weights of another length, below 0 or not finite, and moments that do not increase from 0 or go
    beyond the schedule's horizon, where nobody would train any more.
    """
    weights, moments = np.asarray(weights, float), np.asarray(moments, float)
    visits = len(schedule.client)
    if weights.shape != (schedule.clients,):
        raise ValueError(
            f"give one weight for each of the {schedule.clients} clients, not an array of shape "
            f"{weights.shape}"
        )
    _check_numbers("weights", weights, weights >= 0, "finite and none below 0")
    each = weights[schedule.client]
    if discount is not None:
        if np.shape(discount) != (visits,):
            raise ValueError(f"discount must have one factor for each of the {visits} visits")
        _check_numbers("discount", discount, np.asarray(discount) >= 0, "finite and none below 0")
        each = each * discount
    if moments.ndim != 1 or len(moments) < 2 or moments[0] != 0 or (np.diff(moments) <= 0).any():
        raise ValueError("the moments must increase from 0")
    if moments[-1] > schedule.horizon * (1 + TOLERANCE):
        raise ValueError(
            f"the last moment, {moments[-1]:g}, is beyond the schedule's horizon {schedule.horizon:g}: "
            "play the clock for longer"
        )
    last = np.append(np.diff(schedule.aggregation) > 0, True)
    read, write = _slots(schedule, last)
    room = max(LEAST_ROOM, 1 << (visits - 1).bit_length())

    def padded(values: np.ndarray, dtype: Any) -> Any:
        return np.pad(values, (0, room - visits)).astype(dtype)

    return Replay(
        padded(schedule.client, np.int32), padded(read, np.int32), padded(write, np.int32),
        padded(each, np.float64), padded(last, bool),
        schedule.visits_until(moments).astype(np.int32), schedule.clients,
    )  # fmt: skip


def _slots(schedule: Schedule, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slots to read from and to write to: a version's slot is free when its last reader is done.

    No more versions than clients are ever in use.
    """
    read = np.zeros(len(schedule.client), np.int64)
    write = np.full(len(schedule.client), schedule.clients)
    readers, slot = {0: schedule.clients}, {0: 0}
    free = list(range(schedule.clients - 1, 0, -1))
    members = 0
    for visit, version in enumerate(schedule.started_from.tolist()):
        read[visit] = slot[version]
        readers[version] -= 1
        members += 1
        if readers[version] == 0:
            free.append(slot[version])
        if last[visit]:
            new = int(schedule.aggregation[visit]) + 1
            slot[new], readers[new] = free.pop(), members
            write[visit], members = slot[new], 0
    return read, write


class Problem(Protocol):
    """What the clients learn. `data` is drawn for each seed.

    `start` gives any model, an Equinox module or a pytree: its floating-point arrays are learned, the
    rest stays. `gradient` is that of the model, with None where nothing is learned, as
    `equinox.filter_grad` gives it.
    """

    def draw(self, key: PRNGKeyArray) -> Any: ...

    def start(self, key: PRNGKeyArray) -> Any: ...

    def gradient(self, data: Any, params: Any, client: Array, key: PRNGKeyArray) -> Any: ...

    def observe(self, data: Any, params: Any, by: Weighing) -> dict[str, Array]: ...

    def quantities(self) -> dict[str, Quantity]: ...


class Weighing(NamedTuple):
    """Weights over clients: `importance` p_i (federated problem), `surrogate` q~_i."""

    importance: Float[Array | np.ndarray, " clients"]
    surrogate: Float[Array | np.ndarray, " clients"]

    def summary(self, name: str, values: Float[Array, " clients"]) -> dict[str, Array]:
        """Mean and standard deviation over clients under both weights, and the values themselves."""
        found = {f"client_{name}": values}
        for prefix, w in (("", self.importance), ("surrogate_", self.surrogate)):
            mean = jnp.vdot(w, values)
            found[f"{prefix}{name}"] = mean
            found[f"{prefix}{name}_spread"] = jnp.sqrt(jnp.vdot(w, (values - mean) ** 2))
        return found


class State(NamedTuple):
    model: Any
    pending: Any  # what the aggregation under way has summed up so far
    versions: Any  # [slots + 1, ...]: models that clients work on, and a spare slot
    data: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class Federated(Process):
    """Local SGD and aggregation along a schedule (eq. 5); one step is one of its `moments`.

    theta_{n+1} = theta_n + server_rate * sum_i d_i (local model_i - the model that i was sent)

    Local work: `local_steps` steps of SGD with a fresh momentum buffer and the gradient's norm
    clipped. Numbers are array leaves, so that a grid of learning rates shares one program;
    `learning_rate` and `local_steps` may differ from client to client.

    - `importance`: p_i of each client, sum 1; all the same unless given. It and `surrogate`, the
      weights of the surrogate problem, are for observation only.
    - `update`: "difference" to the stale model, or "mix" as in FedAsync (Xie et al. 2019):
      theta_{n+1} = theta_n + sum_i d_i (local model_i - theta_n).

    Raises `ValueError` for local steps below 1, rates below 0, a momentum outside [0, 1), a clip that is
    not positive, an unknown update, and importance or surrogate weights that are not one number a
    client, none below 0, that sum to 1.
    """

    seeds_by = "map"

    problem: Any
    plan: Replay
    learning_rate: Float[Array | np.ndarray, " clients"]
    local_steps: Int[Array | np.ndarray, " clients"]
    server_rate: Float[Array | np.ndarray, ""]
    momentum: Float[Array | np.ndarray, ""]
    clip: Float[Array | np.ndarray, ""]
    by: Weighing
    update: Literal["difference", "mix"] = eqx.field(static=True)
    x64: bool = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, problem: Problem, plan: Replay, *, learning_rate: float | np.ndarray,
        local_steps: int | np.ndarray = 1, server_rate: float = 1.0, momentum: float = 0.9,
        clip: float = 1e4, importance: np.ndarray | None = None,
        surrogate: np.ndarray | None = None,
        update: Literal["difference", "mix"] = "difference", x64: bool = False,
    ):  # fmt: skip
        clients = plan.clients
        if np.min(local_steps) < 1:
            raise ValueError(f"local_steps must be at least 1, not {local_steps}")
        if update not in ("difference", "mix"):
            raise ValueError(f"update must be 'difference' or 'mix', not {update!r}")
        for name, value, fits, what in (
            (
                "learning_rate",
                learning_rate,
                np.asarray(learning_rate) >= 0,
                "finite and not below 0",
            ),
            ("server_rate", server_rate, server_rate >= 0, "finite and not below 0"),
            ("momentum", momentum, 0 <= momentum < 1, "at least 0 and below 1"),
        ):
            _check_numbers(name, value, fits, what)
        if not clip > 0:
            raise ValueError(f"clip must be positive (infinity for none), not {clip}")
        kind = np.float64 if x64 else np.float32
        p = np.full(clients, 1 / clients) if importance is None else importance
        for name, weights in (
            ("importance", p),
            ("surrogate", p if surrogate is None else surrogate),
        ):
            _check_shares(name, np.asarray(weights, float), clients)
        self.problem, self.plan = problem, plan
        self.learning_rate = np.broadcast_to(np.asarray(learning_rate, kind), (clients,))
        self.local_steps = np.broadcast_to(np.asarray(local_steps, np.int32), (clients,))
        self.server_rate, self.momentum, self.clip = (
            np.asarray(value, kind) for value in (server_rate, momentum, clip)
        )
        self.by = Weighing(
            np.asarray(p, kind), np.asarray(p if surrogate is None else surrogate, kind)
        )
        self.update, self.x64 = update, x64

    def init(self, key: PRNGKeyArray) -> State:
        data_key, model_key, step_key = jax.random.split(key, 3)
        model = self.problem.start(model_key)
        learned = eqx.filter(model, eqx.is_inexact_array)
        versions = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (self.plan.clients + 1, *leaf.shape)), learned
        )
        pending = jax.tree.map(jnp.zeros_like, learned)
        return State(model, pending, versions, self.problem.draw(data_key), step_key, jnp.int32(0))

    def local_work(self, data: Any, sent: Any, client: Int[Array, ""], key: PRNGKeyArray) -> Any:
        """The model that a client has made of the one it was sent."""
        rate = self.learning_rate[client]
        sent, rest = eqx.partition(sent, eqx.is_inexact_array)

        def one(k: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, velocity = carry
            model, own = eqx.combine(params, rest), jax.random.fold_in(key, k)
            gradient = self.problem.gradient(data, model, client, own)
            gradient = eqx.filter(gradient, eqx.is_inexact_array)
            squares = [jnp.vdot(g, g) for g in jax.tree.leaves(gradient)]
            shrink = jnp.minimum(1.0, self.clip / jnp.sqrt(sum(squares)))
            velocity = jax.tree.map(
                lambda v, g: (self.momentum * v + shrink * g).astype(v.dtype), velocity, gradient
            )
            params = jax.tree.map(lambda p, v: (p - rate * v).astype(p.dtype), params, velocity)
            return params, velocity

        start = (sent, jax.tree.map(jnp.zeros_like, sent))
        return eqx.combine(jax.lax.fori_loop(0, self.local_steps[client], one, start)[0], rest)

    def visit(self, place: Int[Array, ""], state: State) -> State:
        """One client's update, and the new model if it is the last of its aggregation."""
        plan, client = self.plan, self.plan.client[place]
        current, rest = eqx.partition(state.model, eqx.is_inexact_array)
        sent = jax.tree.map(lambda v: v[plan.read[place]], state.versions)
        key = jax.random.fold_in(state.key, place)
        local = self.local_work(state.data, eqx.combine(sent, rest), client, key)
        local = eqx.filter(local, eqx.is_inexact_array)
        base = sent if self.update == "difference" else current
        gain, last = self.server_rate * plan.weight[place], plan.last[place]

        def add(total: Array, new: Array, old: Array) -> Array:
            return (total + gain * (new - old)).astype(total.dtype)

        total = jax.tree.map(add, state.pending, local, base)
        model = jax.tree.map(lambda m, t: jnp.where(last, m + t, m), current, total)
        pending = jax.tree.map(lambda t: jnp.where(last, 0, t), total)
        versions = jax.tree.map(lambda v, m: v.at[plan.write[place]].set(m), state.versions, model)
        model = eqx.combine(model, rest)
        return state._replace(model=model, pending=pending, versions=versions)

    def step(self, state: State) -> State:
        first, end = self.plan.ticks[state.step], self.plan.ticks[state.step + 1]
        arrays, rest = eqx.partition(state, eqx.is_array)  # a model may hold functions too

        def visit(place: Array, arrays: Any) -> Any:
            return eqx.filter(self.visit(place, eqx.combine(arrays, rest)), eqx.is_array)

        state = eqx.combine(jax.lax.fori_loop(first, end, visit, arrays), rest)
        return state._replace(step=state.step + 1)

    def observe(self, state: State) -> dict[str, Array]:
        return self.problem.observe(state.data, state.model, self.by)

    def quantities(self) -> dict[str, Quantity]:
        return self.problem.quantities()


def _check_numbers(name: str, values: Any, fits: Any, what: str) -> None:
    if not (np.isfinite(values) & fits).all():
        raise ValueError(f"{name} must be {what}, not {values}")


def _check_shares(name: str, weights: np.ndarray, clients: int) -> None:
    if weights.shape != (clients,) or not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-4:
        raise ValueError(
            f"{name} must be one share for each of the {clients} clients, none below 0, that sum to 1 "
            f"(divide by the sum), not {weights.tolist() if weights.size < 8 else list(weights.shape)}"
        )
