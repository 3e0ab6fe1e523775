"""The relaxation over pairs: how often each arm should rest n rounds and then be played m in a row.

Foussoul, Goyal, Papadigenopoulos, Zeevi (ICML 2023, arXiv:2306.00338) solve last-switch dependent
bandits through a higher-dimensional relaxation; what follows is a reconstruction of it from the
abstract, with a proof of its own (see `relax`), not the paper's text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from latebloom.methods.bandits.last_switch.payoffs import check_payoffs

NONZERO = 1e-9


@dataclass(frozen=True)
class Relaxation:
    """A vertex of the relaxation.

    - `bound`: its value, reward a round; no policy earns more in the long run.
    - `rate` [arms, N + 1, M + 1]: cycles a round of resting n rounds and playing m. Column n = 0 has
      continuous play at m = 1, the rest of it is empty.
    """

    bound: float
    rate: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Share of the rounds that each arm spends in each kind of cycle [arms, N + 1, M + 1]."""
        n, m = np.ogrid[: self.rate.shape[1], : self.rate.shape[2]]
        return self.rate * (n + m)


def cycle_values(payoffs: np.ndarray, streak: int) -> np.ndarray:
    """What one cycle brings [arms, N, M]: p(n) + p(-1) + ... + p(-(m - 1)), n and m from 1."""
    rested, ran = payoffs[:, streak:], payoffs[:, streak - 1 :: -1]
    later = np.concatenate([np.zeros((len(payoffs), 1)), np.cumsum(ran[:, :-1], axis=1)], axis=1)
    return rested[:, :, None] + later[:, None, :]


def relax(
    payoffs: np.ndarray, streak: int, *, longest_run: int | None = None,
    budget: np.ndarray | float = 1.0,
) -> Relaxation:  # fmt: skip
    """Solve the linear program over pairs to a vertex (dual simplex).

    maximise    sum_i [ sum_{n,m} x_i(n, m) v_i(n, m) + y_i p_i(-M) ]
    subject to  sum_{n,m} (n + m) x_i(n, m) + y_i <= budget_i       for every arm i
                sum_i [ sum_{n,m} m x_i(n, m) + y_i ] <= 1,         x, y >= 0

    with v from `cycle_values` and y the rate of continuous play. Whatever a policy does to an arm is a
    sequence of cycles (idle n, play m). Idle times beyond N pay like N and cost more rounds; plays
    beyond the M-th pay p(-M), as y does. So its rates are feasible, and the optimum bounds every
    policy from above, whether or not the payoffs are monotone. There are one row an arm and one more:
    at a vertex every arm has one cycle or none, except for one arm with two.

    - `longest_run=1` allows single plays and continuous play only: the delay-only relaxation of
      recharging bandits, which is no bound where longer runs pay.
    - `budget`: rounds that an arm may use for every round played; more than 1 where it comes rested
      (see `horizon_bound`).

    Raises `ValueError` for a table that is no payoff table.
    """
    table = check_payoffs(payoffs, streak)
    arms, size = table.shape
    idle, run = size - streak, streak if longest_run is None else longest_run
    if not 1 <= run <= streak:
        raise ValueError(f"longest_run must be from 1 to {streak}, not {longest_run}")
    gain = cycle_values(table, streak)[:, :, :run].reshape(arms, -1)
    n, m = (x.ravel() for x in np.mgrid[1 : idle + 1, 1 : run + 1])
    gain = np.concatenate([gain, table[:, :1]], axis=1)  # continuous play comes last
    rounds, plays = np.append(n + m, 1), np.append(m, 1)
    rows = np.repeat(np.arange(arms), len(rounds))
    columns = np.arange(gain.size)
    matrix = csr_array(
        (
            np.concatenate([np.tile(rounds, arms), np.tile(plays, arms)]).astype(float),
            (np.concatenate([rows, np.full(gain.size, arms)]), np.tile(columns, 2)),
        )
    )
    limits = np.append(np.broadcast_to(np.asarray(budget, float), arms), 1.0)
    found = linprog(-gain.ravel(), A_ub=matrix, b_ub=limits, method="highs-ds")
    if found.status != 0:
        raise RuntimeError(f"the relaxation was not solved: {found.message}")
    solution = np.where(found.x > NONZERO, found.x, 0.0).reshape(arms, -1)
    rate = np.zeros((arms, idle + 1, streak + 1))
    rate[:, n, m] = solution[:, :-1]
    rate[:, 0, 1] = solution[:, -1]
    return Relaxation(float(-found.fun), rate)


def horizon_bound(payoffs: np.ndarray, streak: int, start: np.ndarray, horizon: int) -> float:
    """No policy expects more than this from `horizon` rounds, begun in the states `start` (tau).

    An arm that comes rested has used rounds that lie before the first: the first cycle of an arm in
    state tau may reach back min(max(tau, 1), N) rounds. Needs monotone payoffs (a streak under way
    is then worth no more than one that begins).
    """
    idle = np.shape(payoffs)[1] - streak
    back = np.clip(np.asarray(start), 1, idle)
    return horizon * relax(payoffs, streak, budget=1 + back / horizon).bound
