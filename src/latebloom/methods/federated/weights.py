"""Aggregation weights d_i that make a scheme unbiased, and what the theory says of a scheme.

Source: Fraboni, Vidal, Kameni, Lorenzi 2023 (JMLR 24, arXiv:2206.10189), sections 3 and 4, table 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latebloom.methods.federated.clock import TOLERANCE, Rule, Scheme, buffer, positive_times

LONGEST_CYCLE = 20_000  # aggregations within which a repetition is looked for


def uniform(clients: int) -> Float[np.ndarray, " clients"]:
    """The same importance 1 / M for every client."""
    return np.full(clients, 1 / clients)


def clockless_weights(
    scheme: Scheme, clients: int, *, buffer_size: int = 1
) -> Float[np.ndarray, " clients"]:
    """The same d_i for all clients, as schemes are commonly run: 1 for a lone update ("async"), else a
    mean over the updates that are awaited, `buffer_size` of them for "fedbuff"."""
    each = {"async": 1.0, "fedbuff": 1 / buffer_size}.get(scheme, 1 / clients)
    return np.full(clients, each)


def asynchronous_weights(
    times: Sequence[float] | np.ndarray, importance: Float[np.ndarray, " clients"]
) -> Float[np.ndarray, " clients"]:
    """d_i = (sum_j 1 / tau_j) tau_i p_i for asynchronous FedAvg ("time-based", eq. 12).

    `times` are the mean times of the clients: by renewal it is right for random ones too.
    """
    tau = positive_times(times)
    return (1 / tau).sum() * tau * _importance(importance, len(tau))


def windows_per_round(times: Sequence[float] | np.ndarray, length: float) -> Int[np.ndarray, " n"]:
    """ceil(tau / length): how many FedFix windows a local work takes.

    A ratio that is a whole number up to rounding counts as that number.
    """
    if not length > 0:
        raise ValueError(f"the window must be longer than 0, not {length}")
    ratio = positive_times(times) / length
    return np.maximum(np.ceil(ratio - TOLERANCE), 1).astype(np.int64)


def fedfix_weights(
    times: Sequence[float] | Sequence[np.ndarray] | np.ndarray,
    importance: Float[np.ndarray, " clients"], length: float,
) -> Float[np.ndarray, " clients"]:  # fmt: skip
    """d_i = ceil(tau_i / length) p_i for FedFix (eq. 14).

    `times` are one time for each client, or an array of logged times for each; then the mean of the
    ceilings stands for the ceiling, because a client takes part once in that many windows.
    """
    rounds = [windows_per_round(np.atleast_1d(np.asarray(t, float)), length).mean() for t in times]
    return np.array(rounds) * _importance(importance, len(rounds))


def weights_from_participation(
    participation: Float[np.ndarray, " clients"], importance: Float[np.ndarray, " clients"]
) -> Float[np.ndarray, " clients"]:
    """d_i = p_i / (share of aggregations in which i takes part), right for any scheme (theorem 4).

    Raises `ValueError` for a client that never takes part: no weight makes up for that.
    """
    share = np.asarray(participation, float)
    p = _importance(importance, len(share))
    missing = np.flatnonzero(share <= 0)
    if len(missing):
        raise ValueError(f"client {missing[0]} never takes part: make the schedule longer")
    return p / share


def surrogate(
    weights: Float[np.ndarray, " clients"], participation: Float[np.ndarray, " clients"]
) -> Float[np.ndarray, " clients"]:
    """q~_i: the importance that a scheme in effect gives to each client, normalised (eq. 6).

    Raises `ValueError` for weights or shares below 0 or not finite, of other lengths, or all 0.
    """
    d, share = np.asarray(weights, float), np.asarray(participation, float)
    if d.shape != share.shape:
        raise ValueError(f"there are weights {d.shape} and shares of aggregations {share.shape}")
    for name, values in (("weights", d), ("shares of aggregations", share)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} must be finite and none below 0, not {values}")
    q = d * share
    if not q.sum() > 0:
        raise ValueError("no client counts: all weights or shares of aggregations are 0")
    return q / q.sum()


def chi_square(
    importance: Float[np.ndarray, " clients"], surrogate: Float[np.ndarray, " clients"],
    groups: Sequence[int] | np.ndarray | None = None,
) -> float:  # fmt: skip
    """sum_j (r_j - s~_j)^2 / s~_j: the bias of a scheme (theorem 4), infinite where s~_j = 0 < r_j.

    `groups` names the data distribution of each client; by default each has its own.
    """
    label = np.arange(len(importance)) if groups is None else np.unique(groups, return_inverse=True)[1]  # fmt: skip
    r, s = np.bincount(label, importance), np.bincount(label, surrogate)
    if (s[r > 0] <= 0).any():
        return math.inf
    return float(((r - s)[s > 0] ** 2 / s[s > 0]).sum())


def polynomial_discount(
    staleness: Int[np.ndarray, " visits"], power: float
) -> Float[np.ndarray, " visits"]:
    """(1 + staleness)^-power: FedAsync's discount (Xie, Koyejo, Gupta 2019, arXiv:1903.03934).

    Raises `ValueError` for a power below 0, which would favour what is stale.
    """
    if not power >= 0:
        raise ValueError(f"the power of a discount must be 0 or more, not {power}")
    return (1.0 + np.asarray(staleness)) ** -power


def fednova_weights(
    importance: Float[np.ndarray, " clients"], steps: Int[np.ndarray, " clients"],
    momentum: float = 0.0,
) -> Float[np.ndarray, " clients"]:  # fmt: skip
    """Weights that undo unequal numbers of local steps (FedNova, Wang et al. 2020, arXiv:2007.07481).

    p_i (sum_j p_j a_j) / a_i with a_i the sum of the coefficients with which the client's gradients
    enter its update: K_i for plain SGD, more with momentum. For another scheme than synchronous
    FedAvg multiply its weights by these over p_i.
    """
    k = np.asarray(steps, float)
    p = _importance(importance, len(k))
    if not 0 <= momentum < 1 or not (k >= 1).all():
        raise ValueError("FedNova needs at least one step a client and a momentum in [0, 1)")
    a = (k - momentum * (1 - momentum**k) / (1 - momentum)) / (1 - momentum)
    return p * (p @ a) / a


@dataclass(frozen=True)
class Theory:
    """What the convergence bounds of theorems 1 and 4 need to know of a scheme.

    - `weights`, `surrogate` [clients]: d_i, and the importance q~_i that they amount to.
    - `rate`: aggregations per unit of time.
    - `alpha`, `beta`: correlation of participations (property 1), max_i d_i - alpha q_i(n).
    - `delay`: tau, the most aggregations that an update may be late.
    - `cycle`: W, aggregations after which each client has had its share; None if it is longer than
      can be told.
    - `largest_sum`: rho, the larger of 1 and the highest sum of weights in one aggregation.
    - `chi_square`: bias of `surrogate` against the importance asked for.
    """

    weights: Float[np.ndarray, " clients"]
    surrogate: Float[np.ndarray, " clients"]
    rate: float
    alpha: float
    beta: float
    delay: int
    cycle: int | None
    largest_sum: float
    chi_square: float

    def largest_learning_rate(
        self, smoothness: float, local_steps: int, server_rate: float = 1.0
    ) -> float:
        """The local learning rate up to which theorem 1 holds."""
        least = min(1.0, 1 / (3 * self.largest_sum**2 * server_rate * (self.delay + 1)))
        return least / (48 * local_steps * smoothness)

    def bound(
        self, *, time: float, learning_rate: float, local_steps: int = 1, server_rate: float = 1.0,
        distance: float = 1.0, residual: float = 0.0, variance: float = 1.0,
    ) -> dict[str, float]:  # fmt: skip
        """The terms of the bound after `time`, without their numerical constants.

        `distance` is ||theta_0 - theta*||, `residual` R({L_n}), `variance` Sigma. max q_i(n) in
        eps_alpha is max d_i. `cycle` is infinite where it is not known.
        """
        k, eta = local_steps, server_rate * learning_rate
        late = eta + (eta * k * self.delay) ** 2
        cycle = math.inf if self.cycle is None else self.cycle
        return {
            "start": distance**2 / (eta * k * self.rate * time),
            "local work": (learning_rate * (k - 1)) ** 2 * (residual + variance),
            "alpha": self.alpha * late * (residual + float(self.weights.max()) * variance),
            "beta": self.beta * late * (residual + variance),
            "cycle": eta * (cycle - 1) * k,
        }


def theory(
    scheme: Scheme, times: Sequence[float] | np.ndarray,
    importance: Float[np.ndarray, " clients"] | None = None, *,
    weights: Float[np.ndarray, " clients"] | None = None,
    window: float | None = None, buffer_size: int | None = None,
    groups: Sequence[int] | np.ndarray | None = None,
) -> Theory:  # fmt: skip
    """What the bounds need for a scheme with clients of fixed `times` (table 2).

    `weights` are the d_i in use, by default those that make the scheme unbiased; "fedfix" needs its
    `window` and "fedbuff" its `buffer_size`. FedBuff has no closed form: its numbers are those of
    the cycle into which its clock falls, or of its first aggregations if that is long. Fixed times
    make its rounds known beforehand, so that alpha = 1 and beta = 0, as for FedFix.

    Raises `ValueError` for bad times, importance or a missing parameter.
    """
    tau = positive_times(times)
    p = uniform(len(tau)) if importance is None else _importance(importance, len(tau))
    share, rate, delay, cycle, most = _clockwork(scheme, tau, window, buffer_size)
    d = weights_from_participation(share, p) if weights is None else np.asarray(weights, float)
    if d.shape != tau.shape:
        raise ValueError(f"there are {len(tau)} clients, but weights of shape {d.shape}")
    q = surrogate(d, share)
    alone = scheme == "async"
    largest = d.max() if alone else np.sort(d)[-most:].sum()
    return Theory(
        weights=d, surrogate=q, rate=rate, alpha=0.0 if alone else 1.0,
        beta=float(d.max()) if alone else 0.0, delay=delay, cycle=cycle,
        largest_sum=max(1.0, float(largest)), chi_square=chi_square(p, q, groups),
    )  # fmt: skip


def _clockwork(
    scheme: Scheme, tau: np.ndarray, window: float | None, size: int | None
) -> tuple[np.ndarray, float, int, int | None, int]:
    """Participation, aggregations per time, delay, cycle, most clients in one aggregation."""
    clients = len(tau)
    if scheme == "sync":
        return np.ones(clients), 1 / tau.max(), 0, 1, clients
    if scheme == "async":
        rate, ticks = float((1 / tau).sum()), whole_ticks(tau)
        together = math.lcm(*ticks)
        # While the slowest works, client j delivers at most ceil(tau_M / tau_j) times.
        delay = int(windows_per_round(tau.max() / tau, 1.0).sum()) - 1
        return 1 / tau / rate, rate, delay, sum(together // t for t in ticks), 1
    if scheme == "fedfix":
        if window is None:
            raise ValueError("fedfix needs its window")
        rounds = windows_per_round(tau, window)
        delay, cycle = int(rounds.max()) - 1, math.lcm(*map(int, rounds))
        return 1 / rounds, 1 / window, delay, cycle, clients
    if scheme != "fedbuff":
        raise ValueError(f"the scheme must be sync, async, fedbuff or fedfix, not {scheme!r}")
    if size is None:
        raise ValueError("fedbuff needs its buffer_size")
    ticks = whole_ticks(tau)
    found = clock_cycle(buffer(size), ticks)
    rate = found.length / found.span * max(ticks) / tau.max()
    return found.participation, rate, found.delay, found.length if found.closed else None, size


def whole_ticks(times: Sequence[float] | np.ndarray) -> list[int]:
    """The times as whole multiples of one unit, exact for ratios of numbers up to 10,000."""
    tau = positive_times(times)
    parts = [Fraction(float(t / tau.max())).limit_denominator(10_000) for t in tau]
    unit = math.lcm(*(part.denominator for part in parts))
    return [max(int(part * unit), 1) for part in parts]


class ClockCycle(NamedTuple):
    """How a clock with fixed times goes on for ever.

    `length` aggregations in `span` ticks, each client's share of them, and the largest staleness.
    Not `closed`: no repetition was found, and these are the first `LONGEST_CYCLE` aggregations.
    """

    participation: Float[np.ndarray, " clients"]
    length: int
    span: float
    delay: int
    closed: bool


def clock_cycle(rule: Rule, ticks: Sequence[int]) -> ClockCycle:
    """Play a rule with clients that take whole numbers of ticks until the clock repeats itself."""
    tau = np.asarray(ticks, float)
    arrivals, model = tau.copy(), np.zeros(len(tau), np.int64)
    seen: dict[bytes, int] = {}
    moments, members, delay = [0.0], [], 0
    while True:
        state = (arrivals - moments[-1]).tobytes()
        if state in seen or len(members) == LONGEST_CYCLE:
            break
        seen[state] = len(members)
        now, some = rule(arrivals, moments[-1])
        delay = max(delay, int((len(members) - model[some]).max(initial=0)))
        moments.append(now)
        members.append(some)
        model[some] = len(members)
        arrivals[some] = now + tau[some]
    first = seen.get(state, 0)
    length = len(members) - first
    share = np.bincount(np.concatenate(members[first:]), minlength=len(tau)) / length
    return ClockCycle(share, length, moments[-1] - moments[first], delay, state in seen)


def _importance(importance: np.ndarray, clients: int) -> Float[np.ndarray, " clients"]:
    p = np.asarray(importance, float)
    if p.shape != (clients,):
        raise ValueError(f"there are {clients} clients, but importance has shape {p.shape}")
    if not (p >= 0).all() or not abs(p.sum() - 1) <= 1e-6:
        raise ValueError("importance must be non-negative and sum to 1")
    return p
