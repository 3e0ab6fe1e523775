"""A calendar for the next rounds, with a certificate of how far from the best it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from latebloom.methods.bandits.last_switch.calendars import follow, lookahead, planned, play
from latebloom.methods.bandits.last_switch.oracle import dyadic_schedule
from latebloom.methods.bandits.last_switch.payoffs import check_payoffs, position_of, state_of
from latebloom.methods.bandits.last_switch.planner import make_plan
from latebloom.methods.bandits.last_switch.relaxation import Relaxation, horizon_bound

MOST_SEQUENCES = 5000


@dataclass(frozen=True)
class Schedule:
    """What to play in the next rounds.

    - `actions` [rounds]: the arm, or the number of arms for nothing. `states`: its state tau when
      played, 0 for nothing. `expected`: the payoff of each round.
    - `way`: how it was found, the best of `rewards`, total reward by way.
    - `bound`: no policy expects more from these rounds; None where payoffs are not monotone.
    - `long_run`: the relaxation, whose `bound` holds for every policy in the long run.
    """

    actions: np.ndarray
    states: np.ndarray
    expected: np.ndarray
    way: str
    rewards: Mapping[str, float]
    bound: float | None
    long_run: Relaxation

    @property
    def total(self) -> float:
        return float(self.expected.sum())

    @property
    def certificate(self) -> float | None:
        """The schedule's reward over the bound: it is at least this close to the best there is."""
        return self.total / self.bound if self.bound else None


def schedule(
    payoffs: np.ndarray, streak: int, rounds: int, *, start: np.ndarray | None = None,
    draws: int = 256, depth: int = 3, heuristic: bool = False, seed: int = 0,
    say: Callable[[str, float], None] = lambda what, share: None,
) -> Schedule:  # fmt: skip
    """The best calendar that four ways find: planner, greedy, lookahead, periodic.

    `payoffs` [arms, streak + idle] along the axis -M, ..., -1, 1, ..., N, not negative; `start` the
    states tau that the arms are in, by default all rested. The planner's is the best of `draws`
    roundings, with the rounds that it leaves free filled. Lookahead sees `depth` rounds ahead, fewer
    where there are many arms; the periods of "periodic" are powers of two (`dyadic_schedule`).

    Raises `ValueError` for a table that is no payoff table, or that is not monotone, unless
    `heuristic`: then there is a schedule, but no certificate for the planner.
    """
    table = check_payoffs(payoffs, streak)
    arms, size = table.shape
    if rounds < 1 or draws < 1 or depth < 1:
        raise ValueError("rounds, draws and depth must be at least 1")
    tau = np.full(arms, size - streak) if start is None else np.asarray(start)
    if tau.shape != (arms,):
        raise ValueError(f"start must give one state an arm, {arms}, not {tau.shape}")
    place = position_of(tau, size - streak, streak)
    say("solving the relaxation", 0.1)
    plan, relaxation = make_plan(table, streak, heuristic=heuristic)
    bound = None
    if not heuristic:
        bound = horizon_bound(table, streak, tau, rounds)
    say("trying roundings of the plan", 0.3)
    found = {"planner": planned(plan, table, place, rounds, draws=draws, seed=seed)}
    while depth > 1 and (arms + 1) ** (depth - 1) > MOST_SEQUENCES:
        depth -= 1
    say("playing the other ways", 0.7)
    for way, choose in (
        ("greedy", lookahead(table, streak, 1)),
        ("lookahead", lookahead(table, streak, depth)),
        ("periodic", follow(np.array(dyadic_schedule(table, streak)))),
    ):
        found[way] = play(choose, table, streak, place, rounds)
    rewards = {way: float(calendar.paid.sum()) for way, calendar in found.items()}
    best = max(rewards, key=rewards.__getitem__)
    actions, places, paid = found[best]
    states = np.where(actions < arms, state_of(places, streak), 0)
    return Schedule(actions, states, paid, best, rewards, bound, relaxation)
