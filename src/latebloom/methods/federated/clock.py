"""The federated clock: who starts when, from which model, and who arrives when.

A `Schedule` is the outcome, separate from any training. A scheme is a waiting rule, a few lines: given
when the running local work of each client will arrive, it says when the server aggregates next, and
whom. Training replays the schedule (`latebloom.methods.federated.training`).

Source: Fraboni, Vidal, Kameni, Lorenzi 2023 (JMLR 24, arXiv:2206.10189), section 2.2, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Scheme = Literal["sync", "async", "fedbuff", "fedfix"]
TOLD = 2000  # aggregations after which is said how far the clock is
TOLERANCE = 1e-9  # relative to a window: rounding must not push an arrival out of it

Times = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""(clients, generator) -> how long each of these clients takes for its next local work."""

Rule = Callable[[Float[np.ndarray, " clients"], float], tuple[float, Int[np.ndarray, " some"]]]
"""(arrival time of each client, time of the last aggregation) -> time of the next one, and whom."""


@dataclass(frozen=True)
class Schedule:
    """Who takes part in which aggregation with work begun on which model.

    Visits are in order of aggregation. Model 0 is the initial one; aggregation n makes model n + 1,
    which goes to its participants alone.

    - `times` [aggregations]: when aggregation n happens; time starts at 0.
    - `client`, `aggregation`, `started_from` [visits]: the client, the aggregation n that takes its
      update, and the index of the model that the work began on.
    - `began`, `arrived` [visits]: when the client began, and when its update reached the server.
    - `horizon`: until when the clock was played; there may be more aggregations after it.
    """

    clients: int
    times: Float[np.ndarray, " aggregations"]
    client: Int[np.ndarray, " visits"]
    aggregation: Int[np.ndarray, " visits"]
    started_from: Int[np.ndarray, " visits"]
    began: Float[np.ndarray, " visits"]
    arrived: Float[np.ndarray, " visits"]
    horizon: float = np.inf

    @property
    def staleness(self) -> Int[np.ndarray, " visits"]:
        """Aggregations n - rho_i(n) that passed between the model a client had and its update."""
        return self.aggregation - self.started_from

    @property
    def participation(self) -> Float[np.ndarray, " clients"]:
        """Share of the aggregations in which each client takes part."""
        return np.bincount(self.client, minlength=self.clients) / max(len(self.times), 1)

    def matrix(self) -> Int[np.ndarray, "aggregations clients"]:
        """Index of the model that each client's update began on, or -1 where it takes no part."""
        found = np.full((len(self.times), self.clients), -1)
        found[self.aggregation, self.client] = self.started_from
        return found

    def rounds(
        self, clients: Sequence[int] | np.ndarray
    ) -> tuple[list[np.ndarray], Float[np.ndarray, " aggregations"]]:
        """When each of the clients worked, as (beginnings, arrivals), and the aggregations' times."""
        visits = (self.client == client for client in clients)
        return [np.stack([self.began[own], self.arrived[own]]) for own in visits], self.times

    def visits_until(self, times: Float[np.ndarray, " t"]) -> Int[np.ndarray, " t"]:
        """How many visits the aggregations up to each of the `times` have taken in."""
        done = np.searchsorted(self.times, np.asarray(times) * (1 + TOLERANCE), side="right")
        return np.searchsorted(self.aggregation, done)


def everyone(arrivals: np.ndarray, now: float) -> tuple[float, np.ndarray]:
    """Synchronous FedAvg: wait for the slowest."""
    return float(arrivals.max()), np.arange(len(arrivals))


def first(arrivals: np.ndarray, now: float) -> tuple[float, np.ndarray]:
    """Asynchronous FedAvg: aggregate at every single arrival; ties go to the lower index."""
    chosen = _next(arrivals, now)[:1]
    return float(arrivals[chosen[0]]), chosen


def buffer(count: int) -> Rule:
    """FedBuff: aggregate when `count` updates have arrived (Nguyen et al. 2022, arXiv:2106.06639).

    As in section 4.5 of the source, a client whose update lies in the buffer waits for the
    aggregation. Ties go to the lower index.
    """
    if count < 1:
        raise ValueError(f"the buffer must hold at least one update, not {count}")

    def rule(arrivals: np.ndarray, now: float) -> tuple[float, np.ndarray]:
        if count > len(arrivals):
            raise ValueError(
                f"a buffer of {count} updates never fills with {len(arrivals)} clients"
            )
        chosen = np.sort(_next(arrivals, now)[:count])
        return float(arrivals[chosen].max()), chosen

    return rule


def _next(arrivals: np.ndarray, now: float) -> np.ndarray:
    """The clients in order of arrival. What differs by rounding only is a tie."""
    wait = arrivals - now
    return np.argsort(np.round(wait / (wait.max() or 1.0), 9), kind="stable")


def window(length: float) -> Rule:
    """FedFix: aggregate every `length`, whoever has arrived, be it nobody (section 4.4)."""
    if not length > 0:
        raise ValueError(f"the window must be longer than 0, not {length}")

    def rule(arrivals: np.ndarray, now: float) -> tuple[float, np.ndarray]:
        end = now + length
        return end, np.flatnonzero(arrivals <= end + TOLERANCE * length)

    return rule


def rule_of(scheme: Scheme, *, buffer_size: int = 1, length: float = 1.0) -> Rule:
    """The waiting rule of a scheme by its name; "fedbuff" with `buffer_size`, "fedfix" with `length`.

    Raises `KeyError` for another name.
    """
    rules: dict[Scheme, Callable[[], Rule]] = {
        "sync": lambda: everyone, "async": lambda: first,
        "fedbuff": lambda: buffer(buffer_size), "fedfix": lambda: window(length),
    }  # fmt: skip
    return rules[scheme]()


def fixed(times: Sequence[float] | np.ndarray) -> Times:
    """Clients that always take the same time. Raises `ValueError` unless all are positive."""
    tau = positive_times(times)
    return lambda clients, rng: tau[clients]


def exponential(means: Sequence[float] | np.ndarray) -> Times:
    """Clients whose times are exponential with the given means."""
    tau = positive_times(means)
    return lambda clients, rng: rng.exponential(tau[clients])


def resampled(logged: Sequence[np.ndarray]) -> Times:
    """Clients whose times are drawn anew from those that were logged, one array a client."""
    pools = [positive_times(pool) for pool in logged]
    return lambda clients, rng: np.array([rng.choice(pools[i]) for i in clients])


def scenario(clients: int, percent: float) -> Float[np.ndarray, " clients"]:
    """Time scenario F-`percent`: the slowest takes 1, the fastest `percent` % less, evenly between.

    Source: section 5.1, "Hardware scenarios".
    """
    if clients < 1 or not 0 <= percent < 100:
        raise ValueError(
            f"a scenario needs a client and a percentage in [0, 100), not {clients}, {percent}"
        )
    return 1 - np.arange(clients) * (percent / 100) / max(clients - 1, 1)


def schedule(
    rule: Rule, times: Times, clients: int, horizon: float, *, seed: int = 0, most: int | None = None,
    say: Callable[[float], None] = lambda share: None,
) -> Schedule:  # fmt: skip
    """Play the clock until `horizon`: every aggregation at a time up to it.

    - `most`: aggregations after which it is cut short; the horizon is that of the last one then.
    - `say`: told now and then which share has been played.

    Raises `ValueError` if nothing is aggregated by then.
    """
    if clients < 1:
        raise ValueError(f"there must be at least one client, not {clients}")
    if most is not None and most < 1:
        raise ValueError(f"most must be at least one aggregation, not {most}")
    rng = np.random.default_rng(seed)
    began = np.zeros(clients)
    arrivals = np.array(times(np.arange(clients), rng), float)
    model = np.zeros(clients, np.int64)
    moments, chosen, visits = [], [], []
    now, limit = 0.0, horizon * (1 + TOLERANCE)
    while True:
        moment, some = rule(arrivals, now)
        now = max(now, moment)  # ties may differ by rounding
        if now > limit:
            break
        if len(moments) == most:
            horizon = moments[-1]
            break
        if len(moments) % TOLD == TOLD - 1:
            say(max(now / limit, len(moments) / (most or np.inf)))
        moments.append(now)
        chosen.append(some)
        visits.append((model[some], began[some], arrivals[some]))
        model[some] = len(moments)
        began[some] = now
        arrivals[some] = now + times(some, rng)
    if not any(len(some) for some in chosen):
        raise ValueError(f"no client arrives within the horizon {horizon:g}: make it longer")
    started, begun, arrived = (np.concatenate(part) for part in zip(*visits, strict=True))
    counts = [len(some) for some in chosen]
    return Schedule(
        clients, np.array(moments), np.concatenate(chosen).astype(np.int64),
        np.repeat(np.arange(len(moments)), counts), started, begun, arrived, horizon,
    )  # fmt: skip


def positive_times(times: Sequence[float] | np.ndarray) -> Float[np.ndarray, " n"]:
    """The times as an array. Raises `ValueError` unless there are some and all are positive."""
    found = np.asarray(times, float)
    if found.ndim != 1 or not len(found) or not (np.isfinite(found) & (found > 0)).all():
        raise ValueError("client times must be a list of positive finite numbers")
    return found
