"""A calendar for the next rounds, with a certificate of how far from the best it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from latebloom.core.interaction import Interaction, Policy
from latebloom.core.unfold import unfold
from latebloom.methods.bandits.last_switch.environment import Fixed, LastSwitch
from latebloom.methods.bandits.last_switch.evaluation import best_rounding
from latebloom.methods.bandits.last_switch.oracle import dyadic_schedule
from latebloom.methods.bandits.last_switch.payoffs import check_payoffs, position_of, state_of
from latebloom.methods.bandits.last_switch.planner import Planned, make_plan
from latebloom.methods.bandits.last_switch.policies import Follow, Lookahead
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
    place = jnp.asarray(position_of(tau, size - streak, streak), jnp.int32)
    fixed = Fixed(jnp.asarray(table, jnp.float32))
    environment = LastSwitch(fixed, arms, streak, start=place)
    say("solving the relaxation", 0.1)
    plan, relaxation = make_plan(table, streak, heuristic=heuristic)
    bound = None
    if not heuristic:
        bound = horizon_bound(table, streak, tau, rounds)
    say("trying roundings of the plan", 0.3)
    key = jax.random.key(seed)
    drawn, _ = best_rounding(plan, environment, key, rounds=rounds, draws=draws, fill=True)
    while depth > 1 and (arms + 1) ** (depth - 1) > MOST_SEQUENCES:
        depth -= 1
    ways: dict[str, Policy] = {
        "planner": Planned(plan, True, False, drawn),
        "greedy": Lookahead(1, streak),
        "lookahead": Lookahead(depth, streak),
        "periodic": Follow(jnp.asarray(dyadic_schedule(table, streak), jnp.int32)),
    }
    found = {}
    for i, (way, policy) in enumerate(ways.items()):
        say(f"playing the calendar of the {way}", 0.5 + 0.1 * i)
        found[way] = _calendar(environment, policy, table, rounds)
    rewards = {way: float(expected.sum()) for way, (_, _, expected) in found.items()}
    best = max(rewards, key=rewards.__getitem__)
    actions, states, expected = found[best]
    return Schedule(actions, states, expected, best, rewards, bound, relaxation)


def _calendar(
    environment: LastSwitch, policy: Policy, table: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions, states and payoffs of each round."""
    process = Interaction(environment, policy)
    trace = unfold(process, seeds=1, steps=rounds, every=1, progress=False)
    actions = np.diff(trace["plays"].values[0], axis=0).argmax(1)
    arms = len(table)
    played = np.minimum(actions, arms - 1)
    place = trace["position"].values[0, np.arange(rounds), played]
    paid = np.where(actions < arms, table[played, place], 0.0)
    states = np.where(actions < arms, state_of(place, environment.streak), 0)
    return actions, states, paid
