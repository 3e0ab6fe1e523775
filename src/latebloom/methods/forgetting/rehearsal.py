"""Rehearsal by age: how much of each earlier task comes back, by the time since it was met.

A law gives the odds of an age; from it follow the shares of earlier tasks in what each task rehearses, an
environment that draws them (by age since a task was introduced, or since it was last met), a stream to
train on, and a plan for data of one's own. Fits of laws to what happened stand in `recency`.

Source: Gandhi, Shah, Marupudi, Varma 2024 (arXiv 2401.10393); need odds that fall as a power of the time
since the last need: Anderson & Schooler 1991 (Psychological Science 2(6)), Eq. 2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped
from scipy.optimize import brentq

from latebloom.core.process import Process, Quantity
from latebloom.core.stream import Stream

Law = Callable[[np.ndarray], np.ndarray]  # odds of ages from 1 on
By = Literal["mean age", "half age"]
Since = Literal["introduced", "met"]
When = Literal["after", "mixed"]


@dataclass(frozen=True)
class PowerLaw:
    """age^-exponent."""

    exponent: float = 1.0

    def __call__(self, age: np.ndarray) -> np.ndarray:
        return np.asarray(age, float) ** -self.exponent


@dataclass(frozen=True)
class Exponential:
    """exp(-rate age)."""

    rate: float

    def __call__(self, age: np.ndarray) -> np.ndarray:
        return np.exp(-self.rate * (np.asarray(age, float) - 1))


@dataclass(frozen=True)
class Window:
    """The same for all ages up to `width`, whose last unit may be a fraction; none beyond.

    `Window()` is uniform, `Window(1)` the last task alone.
    """

    width: float = np.inf

    def __call__(self, age: np.ndarray) -> np.ndarray:
        return np.clip(self.width + 1 - np.asarray(age, float), 0, 1)


def shares(law: Law, tasks: int, *, current: bool = False) -> Float[np.ndarray, "tasks tasks"]:
    """What each task k rehearses: the share of each earlier task i < k, as the law says of the age k - i.

    - `current`: the task itself is among them, as if all were older by 1.

    Rows sum to 1; the first task has none but itself. Raises `ValueError` for a law that leaves a
    task nothing to rehearse, and for no tasks.
    """
    _check_tasks(tasks, 1)
    age = np.arange(tasks)[:, None] - np.arange(tasks) + (1 if current else 0)
    odds = np.where(age > 0, law(np.maximum(age, 1)), 0.0)
    odds[0, 0] = 1.0
    total = odds.sum(axis=1, keepdims=True)
    if not (np.isfinite(odds).all() and (odds >= 0).all() and (total > 0).all()):
        raise ValueError(f"{law} must give finite odds, and some above 0, to the ages 1 to {tasks}")
    return odds / total


def rehearsed_ages(shares: Float[np.ndarray, "tasks tasks"]) -> Float[np.ndarray, " tasks-1"]:
    """The share of each age from 1 on in all that earlier tasks have in rehearsal."""
    found = np.array([np.trace(shares, -age) for age in range(1, len(shares))])
    return found / found.sum()


def mean_age(shares: Float[np.ndarray, "tasks tasks"]) -> float:
    """The mean age of what is rehearsed over all tasks."""
    weights = rehearsed_ages(shares)
    return float(weights @ np.arange(1, len(weights) + 1))


def half_age(shares: Float[np.ndarray, "tasks tasks"]) -> float:
    """The age that half of what is rehearsed does not exceed, age a being spread from a - 1 to a."""
    below = np.concatenate([[0.0], np.cumsum(rehearsed_ages(shares))])
    return float(np.interp(0.5, below, np.arange(len(below))))


def matched(
    law: Law, tasks: int, kind: type[Exponential] | type[Window], by: By = "mean age"
) -> Exponential | Window:
    """The exponential or window whose rehearsed examples are as old as those of another law.

    - `by`: whether their mean age is the same, or their half age. It is that of all tasks together, at
      equal budgets, so that what differs is the tail.

    Raises `ValueError` where there is none, as for a law under which odds rise with age, and for fewer than 2 tasks.
    """
    _check("by", by, By)
    _check_tasks(tasks, 2)
    age = mean_age if by == "mean age" else half_age
    wanted = age(shares(law, tasks))

    def off(setting: float) -> float:
        return age(shares(kind(setting), tasks)) - wanted

    low, high = (1e-9, 50.0) if kind is Exponential else (1.0, float(tasks))
    if off(low) * off(high) > 0:
        raise ValueError(f"no {kind.__name__} has the {by} {wanted:.3g} that {law} has with {tasks} tasks")  # fmt: skip
    return kind(float(brentq(off, low, high, xtol=1e-12)))  # pyright: ignore


def _check(name: str, value: str, known: Any) -> None:
    if value not in get_args(known):
        raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")


def _check_tasks(tasks: int, least: int) -> None:
    if int(tasks) != tasks or tasks < least:
        raise ValueError(f"tasks must be a whole number from {least} on, not {tasks}")


def encounters(odds: Shaped[Any, " ages"], *, key: PRNGKeyArray) -> Bool[Array, "tasks tasks"]:
    """Which earlier tasks i are met while task k is learned, [k, i], each by itself with its own odds.

    - `odds` [tasks]: the probability of meeting a task that was last met (or introduced) 1, 2, ... tasks
      ago. What is met is as young again as what was just introduced.

    Where none would be met, the one with the highest odds is; of several, the youngest, and of these the
    newest. The number of ages is that of tasks.
    """
    odds = jnp.clip(jnp.asarray(odds, jnp.float32), 0, 1)
    tasks = len(odds)
    places = jnp.arange(tasks)

    def phase(last: Array, now: tuple[Array, PRNGKeyArray]) -> tuple[Array, Array]:
        task, key = now
        earlier = places < task
        chance = jnp.where(earlier, odds[jnp.maximum(task - last - 1, 0)], -1.0)
        met = earlier & (jax.random.uniform(key, (tasks,)) < chance)
        ties = jnp.where(chance == chance.max(), last * tasks + places, -1)
        met = met | (earlier & ~met.any() & (places == ties.argmax()))
        return jnp.where(met | (places == task), task, last), met

    return jax.lax.scan(phase, jnp.zeros(tasks, int), (places, jax.random.split(key, tasks)))[1]


def met_shares(met: Bool[Array, "tasks tasks"]) -> Float[Array, "tasks tasks"]:
    """Equal shares of the tasks that are met; where none is, the task itself."""
    met = met | (~met.any(axis=1, keepdims=True) & jnp.eye(len(met), dtype=bool))
    return met / met.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Environment:
    """A world that brings a new task at each time, and earlier ones again, as a law says of their age.

    - `budget`: examples of earlier tasks that come at each time but the first.
    - `since`: age counts since a task was "introduced", and the budget is drawn by the shares of the law; or since
      it was last "met": each task is met with probability min(1, scale law(age)), and those that are
      met share the budget evenly.

    Under "met" and a power law, the time between two encounters is a power law only for an exponent of 1,
    whose lags fall as lag^-(1 + scale); for less they fall faster than any power, for more some tasks
    never come back (`lag_probabilities`).
    """

    tasks: int
    law: Law = PowerLaw()
    budget: int = 1000
    since: Since = "introduced"
    scale: float = 0.5

    def __post_init__(self) -> None:
        _check("since", self.since, Since)
        if self.tasks < 2 or self.budget < 1 or not self.scale > 0:
            raise ValueError(
                "an environment needs 2 tasks, a budget of 1 and a scale above 0, or more, not "
                f"{self.tasks}, {self.budget} and {self.scale}"
            )
        if self.since == "introduced":
            shares(self.law, self.tasks)
        elif not (np.isfinite(self.odds).all() and self.odds.any()):
            raise ValueError(f"{self.law} must give odds, and some above 0, to the ages 1 to {self.tasks}")  # fmt: skip

    @property
    def odds(self) -> Float[np.ndarray, " tasks"]:
        """The probability that a task is met, by its age from 1 on (of "met")."""
        return np.clip(self.scale * self.law(np.arange(1, self.tasks + 1)), 0, 1)

    def shares(self, key: PRNGKeyArray) -> Float[Array, "tasks tasks"]:
        """What each task rehearses, as `rehearsal.shares`; drawn from the key under "met"."""
        if self.since == "met":
            return met_shares(encounters(self.odds, key=key))
        return jnp.asarray(shares(self.law, self.tasks), jnp.float32)

    def events(self, seed: int = 0) -> pd.DataFrame:
        """What comes, in order: `time`, `task`, the `age` that it had then, and how many `examples` of it.

        New tasks have age 0 and 0 examples, since how many new ones come is not the environment's.
        """
        table = np.asarray(_shares_of(self)(jax.random.key(seed)), float)
        table /= table.sum(axis=1, keepdims=True)
        rng = np.random.default_rng(seed)
        counts = np.stack([rng.multinomial(self.budget, row) for row in table])
        counts[0] = 0
        again = table > 0 if self.since == "met" else counts > 0
        again[0] = False
        last = np.arange(self.tasks)
        rows = []
        for time in range(self.tasks):
            rows += [
                (time, i, time - last[i], counts[time, i]) for i in np.flatnonzero(again[time])
            ]
            rows.append((time, time, 0, 0))
            if self.since == "met":
                last[again[time]] = time
        return pd.DataFrame(rows, columns=["time", "task", "age", "examples"])


@functools.lru_cache
def _shares_of(environment: Environment) -> Callable[[PRNGKeyArray], Array]:
    return jax.jit(environment.shares)


def lag_probabilities(odds: Shaped[Any, " ages"]) -> Float[np.ndarray, " ages"]:
    """The probability that a task comes back after 1, 2, ... times: odds(a) prod_{b < a} (1 - odds(b)).

    They sum to 1 less the probability of a longer time. Under odds k / a they are near k a^-(1 + k) /
    Gamma(1 - k).
    """
    odds = np.clip(np.asarray(odds, float), 0, 1)
    return odds * np.concatenate([[1.0], np.cumprod(1 - odds)[:-1]])


def meeting_probabilities(odds: Shaped[Any, " ages"]) -> Float[np.ndarray, " ages"]:
    """The probability that a task is met 1, 2, ... times after it was introduced, however often before."""
    lags = lag_probabilities(odds)
    found = np.zeros(len(lags) + 1)
    found[0] = 1.0
    for age in range(1, len(found)):
        found[age] = found[:age][::-1] @ lags[:age]
    return found[1:]


def as_often(law: Law, scale: float, tasks: int) -> float:
    """The scale at which `Window()`, the same odds at every age, meets as many tasks as a law under "met"."""
    odds = np.clip(scale * law(np.arange(1, tasks)), 0, 1)
    pairs = np.arange(tasks - 1, 0, -1)  # tasks that come to be 1, 2, ... old
    return float(pairs @ meeting_probabilities(odds) / pairs.sum())


class Counted(NamedTuple):
    key: PRNGKeyArray
    drawn: Float[Array, "time age"]
    chances: Float[Array, "time age"]


class Ages(Process):
    """What an environment brings, counted: a step is a history of all its tasks.

    Observed: `drawn` [time, age], how often something of an age (since it was introduced, or last met) came,
    and `chances` [time, age], how many tasks were of that age.
    """

    environment: Environment = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> Counted:
        nothing = jnp.zeros((self.environment.tasks, self.environment.tasks - 1))
        return Counted(key, nothing, nothing)

    def step(self, state: Counted) -> Counted:
        world, (key, draw) = self.environment, jax.random.split(state.key)
        n = world.tasks
        places, times = jnp.arange(n), jnp.arange(n)[:, None]
        if world.since == "met":
            came = encounters(world.odds, key=draw)
            met = jnp.where(came | (places == times), times, -1)
            last = jnp.concatenate([jnp.full((1, n), -1), jax.lax.cummax(met, axis=0)[:-1]])
            counts = came.astype(jnp.float32)
        else:
            odds = jnp.log(world.shares(draw))
            which = jax.random.categorical(draw, odds[:, None], shape=(n, world.budget))
            counts = jax.nn.one_hot(which, n).sum(axis=1)
            last = jnp.broadcast_to(places, (n, n))
        earlier = places < times
        age = jnp.where(earlier, times - last, 0)
        slots = jax.nn.one_hot(age - 1, n - 1)
        drawn = (slots * jnp.where(earlier, counts, 0)[..., None]).sum(axis=1)
        chances = (slots * earlier[..., None]).sum(axis=1)
        return Counted(key, state.drawn + drawn, state.chances + chances)

    def observe(self, state: Counted) -> dict[str, Array]:
        return {"drawn": state.drawn, "chances": state.chances}

    def quantities(self) -> dict[str, Quantity]:
        n = self.environment.tasks
        coords = {"time": list(range(n)), "age": list(range(1, n))}
        return {
            "drawn": Quantity("1", ("time", "age"), coords, "how often something of an age came"),
            "chances": Quantity("1", ("time", "age"), coords, "tasks of that age, over histories"),
        }


def rehearsed(
    stream: Stream, shares: Shaped[Any, "tasks tasks"], *, examples: int, key: PRNGKeyArray,
    when: When = "after",
) -> Stream:  # fmt: skip
    """The stream in which each task but the first gives places to earlier ones, as many in every task.

    - `shares` [task, origin]: of each task in what a task rehearses; they may depend on a key. A task that
      has a share in its own rehearsal sees examples of its own again.
    - `examples`: how many places of each task's batches are given away; its own examples come in their
      order in what is left.
    - `when`: in the last batches of the task, or "mixed" evenly into all.

    Origins are drawn by their shares for each place (multinomial counts), and examples of an origin without
    replacement from those that it learned, as long as they suffice. All old examples can be drawn: this is
    an environment, no memory of limited size.

    Raises `ValueError` where a task has no more than `examples` places, for a stream that rehearses already, or for
    shares of another shape and, where they are numbers and depend on no key, such as are none, or of tasks to come.
    """
    _check("when", when, When)
    if stream.origin is not None:
        raise ValueError(
            "stream rehearses already: give one whose examples are all of their own task"
        )
    lengths = np.diff([*stream.starts, stream.steps]) * stream.rows.shape[1]
    if int(examples) != examples or not 0 <= examples < lengths.min():
        raise ValueError(
            f"examples must be a whole number from 0 to less than the {lengths.min()} places that a task has, not {examples}"
        )
    table = jnp.asarray(shares, jnp.float32)
    if table.shape != (stream.tasks,) * 2:
        raise ValueError(f"shares must be [{stream.tasks}, {stream.tasks}], not {table.shape}")
    if not isinstance(shares, Tracer):
        _check_shares(np.asarray(shares, float))
    examples = int(examples)
    starts, counts = np.cumsum([0, *lengths[:-1]]), lengths - examples
    counts[0] = lengths[0]
    task = np.repeat(np.arange(stream.tasks), lengths)
    place = np.arange(len(task)) - starts[task]
    if when == "after":
        old = place >= counts[task]
    else:
        length = lengths[task]
        old = (place + 1) * examples // length > place * examples // length
    old &= task > 0
    flat = stream.rows.ravel()
    own = np.flatnonzero(~old)
    # Own examples keep their order: the n-th own place has the task's n-th example.
    source = np.concatenate([start + np.arange(n) for start, n in zip(starts, counts, strict=True)])
    rows = jnp.zeros_like(flat).at[own].set(flat[source])
    origin = jnp.asarray(task, jnp.int32)
    if examples and stream.tasks > 1:
        draw_key, turn_key = jax.random.split(key)
        shape = (stream.tasks - 1, examples)
        drawn = jax.random.categorical(draw_key, jnp.log(table[1:, None]), shape=shape)
        ranks = jax.nn.one_hot(drawn, stream.tasks, dtype=jnp.int32).cumsum(axis=1)
        rank = jnp.take_along_axis(ranks, drawn[..., None], axis=2)[..., 0] - 1
        have = jnp.asarray(counts)
        turn = jax.random.randint(turn_key, (stream.tasks - 1, stream.tasks), 0, have)
        at = (jnp.take_along_axis(turn, drawn, axis=1) + rank) % have[drawn]
        there = np.flatnonzero(old)
        rows = rows.at[there].set(flat[(jnp.asarray(starts)[drawn] + at).ravel()])
        origin = origin.at[there].set(drawn.ravel().astype(jnp.int32))
    shape = stream.rows.shape
    return eqx.tree_at(
        lambda s: (s.rows, s.origin), stream, (rows.reshape(shape), origin.reshape(shape)),
        is_leaf=lambda x: x is None,
    )  # fmt: skip


def _check_shares(table: Float[np.ndarray, "tasks tasks"]) -> None:
    if not (np.isfinite(table).all() and (table >= 0).all() and (table[1:].sum(axis=1) > 0).all()):
        raise ValueError("shares must be finite and not negative, with some above 0 in every row")
    if np.triu(table[1:], 2).any():
        raise ValueError(
            "shares must be of the task itself and earlier ones: none above the diagonal"
        )


def plan(
    sizes: Mapping[Any, int] | pd.Series | Sequence[int], budget: int, *, law: Law = PowerLaw(),
    ages: Sequence[float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """How many old examples of each slice to train on again beside the new one.

    - `sizes`: how many examples each earlier slice has, oldest first: by name, as in a `dict` or a
      `Series`, or in a list.
    - `budget`: how many old examples in all.
    - `ages`: how long ago each slice was met, above 0, in any unit; left out, the last one has age 1, the
      one before it 2, ...

    Returns a row a slice: `slice`, `age`, `size`, `share` (as the law says) and `examples`: of all plans in
    which no slice gives more than it has, the one nearest to the shares; what a slice cannot give is given
    by the others as the law says. Fractions go to the largest.

    Raises `ValueError` for a budget that the slices cannot fill, and ages or sizes that are none.
    """
    named = (
        dict(sizes.items()) if isinstance(sizes, Mapping | pd.Series) else dict(enumerate(sizes))
    )
    names, have = list(named), np.asarray(list(named.values()))
    age = np.arange(len(have), 0, -1.0) if ages is None else np.asarray(ages, float)
    if (
        len(have) != len(sizes)
        or have.ndim != 1
        or not len(have)
        or have.dtype.kind not in "iu"
        or (have < 0).any()
    ):
        raise ValueError(
            "sizes must be one whole number from 0 on for each earlier slice, of names of its own"
        )
    if age.shape != have.shape or not (np.isfinite(age) & (age > 0)).all():
        raise ValueError(f"ages must be {len(have)} finite numbers above 0, one for each slice")
    if not np.isfinite(budget) or int(budget) != budget or not 0 <= budget <= have.sum():
        raise ValueError(f"budget must be a whole number up to the {have.sum()} examples of all slices, not {budget}")  # fmt: skip
    odds = np.asarray(law(age), float)
    if not (np.isfinite(odds).all() and (odds >= 0).all() and odds.sum() > 0):
        raise ValueError(f"{law} must give the ages finite odds, some of them above 0")
    wanted = np.zeros(len(have))
    full = np.zeros(len(have), bool)
    while True:
        left, rest = budget - wanted[full].sum(), np.where(full, 0.0, odds)
        if rest.sum() == 0:  # a law without a tail: what it leaves comes from all others alike
            rest = np.where(full, 0.0, 1.0)
        if left <= 0 or full.all():
            break
        wanted = np.where(full, wanted, left * rest / rest.sum())
        if not (over := ~full & (wanted > have)).any():
            break
        wanted, full = np.where(over, have, wanted), full | over
    count = np.floor(wanted + 1e-9).astype(int)
    order = np.argsort(-np.where(count < have, wanted - count, -1.0), kind="stable")
    count[order[: int(budget) - count.sum()]] += 1
    return pd.DataFrame({
        "slice": names, "age": age, "size": have, "share": odds / odds.sum(), "examples": count
    })  # fmt: skip


def planned_rows(plan: pd.DataFrame, seed: int = 0) -> dict[Any, np.ndarray]:
    """Which rows of each slice to take for a plan, drawn without replacement, in ascending order."""
    rng = np.random.default_rng(seed)
    return {
        row.slice: np.sort(rng.choice(row.size, row.examples, replace=False))  # pyright: ignore
        for row in plan.itertuples(index=False)
    }
