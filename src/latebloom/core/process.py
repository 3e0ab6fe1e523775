"""A learning process unfolds in time: a state, a step, and something to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

Over = Literal["last", "mean", "sum", "max"]


@dataclass(frozen=True)
class Quantity:
    """What an observable is: units, the dimensions after (seed, step), their coordinates.

    `gaps=True` says that NaN is a legitimate value of it ("not defined here"), so that it does not
    count as divergence.

    `over` is for what a step tells (see `Stepped`): how it is gathered over the steps since the
    observation before: the last value, their mean, sum or largest.
    """

    units: str = "1"
    dims: tuple[str, ...] = ()
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    about: str = ""
    gaps: bool = False
    over: Over = "last"

    def __post_init__(self) -> None:
        if self.over not in get_args(Over):
            raise ValueError(f"over must be one of {', '.join(get_args(Over))}, not {self.over!r}")


class Stepped(NamedTuple):
    """What a step may return: the state, and by name what the step saw on its way.

    Norms of gradients, returns, events: they are recorded beside what `observe` returns, gathered as
    `Quantity.over` says, and need no place in the state. Where no step has been made since the last
    observation, a float is NaN (a sum is 0), an integer 0. Sums and means are taken in 32 bits at
    least. They do not count as divergence.
    """

    state: Any
    info: dict[str, Array]


class Process(eqx.Module):
    """A traceable learning process. Its array leaves are arguments of the compiled program.

    - `seeds_by`: "vmap" runs the seeds side by side; "map" one after another inside the program,
      which is right for convolutional networks.
    - `x64`: run with 64-bit types enabled (then give every dtype explicitly).
    - `one_device`: on CPUs, do not spread the seeds over host devices. Right where many large systems are
      solved at once: such a solve waits for threads that other devices hold, and never ends.
    """

    seeds_by: ClassVar[Literal["vmap", "map"]] = "vmap"
    x64: ClassVar[bool] = False
    one_device: ClassVar[bool] = False

    def init(self, key: PRNGKeyArray) -> Any:
        """The state at step 0: any pytree of arrays. What else is in it must stay as it is."""
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def step(self, state: Any) -> Any:
        """The state one unit of learning time later, of the same structure, or a `Stepped`."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def turns(self) -> Sequence[int]:
        """Steps after which `turn` is run, once, after the observation there, if there is one.

        For what happens at some steps only: task borders, a pruning, a Fisher matrix.
        """
        return ()

    def turn(self, state: Any) -> Any:
        """The state across a turn, of the same structure. It costs nothing at other steps."""
        return state

    def horizon(self) -> int | None:
        """After how many steps there is nothing left to learn from, or None: it may go on for ever."""
        return None

    def searched(self, state: Any) -> Any:
        """The part of the state that is searched for NaN at observations: all of it.

        Override it to leave out a large buffer.
        """
        return state

    def observe(self, state: Any) -> dict[str, Array]:
        """What is recorded at the observation steps: arrays of fixed shapes."""
        raise NotImplementedError(f"{type(self).__name__} has no observe")

    def quantities(self) -> dict[str, Quantity]:
        """Units and dimensions of the observables that have any."""
        return {}


@eqx.filter_jit
def advanced(process: Process, state: Any, steps: int | Array) -> Any:
    """The state `steps` steps later, in one compiled loop; nothing is observed, what steps tell and turns are left out."""
    arrays, rest = eqx.partition(state, eqx.is_array)

    def one(_: Array, arrays: Any) -> Any:
        new = process.step(eqx.combine(arrays, rest))
        return eqx.filter(new.state if isinstance(new, Stepped) else new, eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, steps, one, arrays), rest)


class HostProcess:
    """A process that cannot be traced (an LP, a simulator in C): the same methods in plain Python.

    The state must hold everything that the next step depends on, its random generator included, and
    like the process be picklable, so that a run resumes where it was killed. It has no turns and tells
    nothing but its observables.
    """

    def init(self, seed: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def step(self, state: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def observe(self, state: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} has no observe")

    def quantities(self) -> dict[str, Quantity]:
        return {}


def log_steps(steps: int, per_decade: int = 20) -> np.ndarray:
    """Observation steps 0, 1, ..., `steps`, evenly spaced in log10(step), without repeats."""
    if steps < 1 or per_decade < 1:
        raise ValueError(f"steps and per_decade must be at least 1, not {steps} and {per_decade}")
    points = np.logspace(0, np.log10(steps), int(np.ceil(per_decade * np.log10(steps))) + 1)
    return np.unique(np.concatenate([[0], np.round(points).astype(int), [steps]]))
