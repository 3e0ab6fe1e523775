"""Learning the payoffs while playing: explore then commit, and optimism in epochs.

Both replan with a linear program now and then; between two plans the rounds run in one compiled
loop. The paper (arXiv:2306.00338) states sublinear regret against the planner that knows the payoffs;
these two learners are reconstructions, not its pseudocode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import isotonic_regression

from latebloom.core.interaction import Interaction, InteractionState, Policy
from latebloom.core.process import HostProcess, Quantity
from latebloom.methods.bandits.last_switch.environment import LastSwitch, run_rounds
from latebloom.methods.bandits.last_switch.planner import Planned, make_plan
from latebloom.methods.bandits.last_switch.policies import Follow, Recording

Strategy = Literal["explore-then-commit", "optimistic", "planner"]


def exploration_schedule(arms: int, idle: int, run: int, repeats: int) -> np.ndarray:
    """Actions that play every arm for `run` rounds in a row after n rounds of rest, n = 1, ..., `idle`.

    For each n the arms go in groups of 1 + n // run, whose runs follow each other, so that one arm
    rests while the others are explored; what is left of n is filled with single plays of arms outside
    the group, or with nothing (action `arms`). Every group goes round `repeats` + 1 times; the first
    round only sets the clock.
    """
    schedule: list[int] = []
    for n in range(1, idle + 1):
        together = min(1 + n // run, arms)
        for first in range(0, arms, together):
            group = [(first + i) % arms for i in range(together)]
            others = [arm for arm in range(arms) if arm not in group] or [arms]
            wait = n - (together - 1) * run
            filler = [others[i % len(others)] for i in range(wait)]
            for _ in range(repeats + 1):
                schedule += [arm for arm in group for _ in range(run)] + filler
    return np.array(schedule, np.int32)


def isotonic_payoffs(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Least-squares nondecreasing curve through the mean rewards of each arm [arms, positions].

    Positions without a sample take the value of the nearest one below, or, below all samples, of the
    lowest; an arm without any sample is taken to pay nothing. Means are weighted by their counts.
    """
    table = np.zeros(count.shape)
    for arm, (counts, totals) in enumerate(zip(count, total, strict=True)):
        seen = np.flatnonzero(counts > 0)
        if len(seen):
            means = totals[seen] / counts[seen]
            fitted = isotonic_regression(means, weights=counts[seen]).x
            below = np.searchsorted(seen, np.arange(len(counts)), side="right") - 1
            table[arm] = fitted[np.maximum(below, 0)]
    return np.clip(table, 0, None)


def optimistic_payoffs(
    count: np.ndarray, total: np.ndarray, rounds: int, width: float
) -> np.ndarray:
    """Upper confidence bounds, at most 1, tightened by monotonicity [arms, positions].

    A position pays no more than any above it, so its bound is the least of theirs and its own.
    """
    times = np.maximum(count, 1)
    bounds = total / times + np.sqrt(width * math.log(max(rounds, 2)) / times)
    bounds = np.minimum(np.where(count > 0, bounds, 1.0), 1.0)
    return np.minimum.accumulate(bounds[:, ::-1], axis=1)[:, ::-1]


@dataclass(frozen=True)
class LearnerState:
    """Where a learner stands; `until` is the round at which it plans or draws anew."""

    loop: InteractionState
    policy: Policy
    key: Any
    step: int = 0
    round: int = 0
    until: int = 0
    plans: int = 0


@eqx.filter_jit
def _play(
    environment: LastSwitch, policy: Policy, loop: InteractionState, rounds: Any
) -> InteractionState:
    return run_rounds(Interaction(environment, policy), loop, rounds)


@eqx.filter_jit
def _begin(environment: LastSwitch, policy: Policy, key: Any) -> InteractionState:
    return Interaction(environment, policy).init(key)


@eqx.filter_jit
def _draw(policy: Policy, key: Any, round: Any) -> Any:
    return policy.init(jax.random.fold_in(key, round))


class Learner(HostProcess):
    """Plays `environment` without knowing its payoffs. Step i ends at round `rounds[i - 1]`.

    - "explore-then-commit": the schedule of `exploration_schedule` with as many repeats as fit into
      `exploration` T^(2/3) rounds, one at least, T the last of `rounds`; then isotonic estimates, one
      relaxation, and its plan to the end.
    - "planner": knows the payoffs, and plans once; what the other two are measured against.
    - "optimistic": in epochs, each `growth` - 1 of the rounds so far, but at least `first` and at most
      `longest` rounds: upper bounds of all payoffs, the relaxation on them, its plan.

    A plan's rounding is drawn anew every `longest` rounds, since it is good on average only. With one
    seed, key and instance are those of an `Interaction` in the same environment.

    Observed: `round`, cumulative `reward` and `mean`, and `plans`, how often a relaxation was solved.
    """

    def __init__(
        self, environment: LastSwitch, strategy: Strategy, rounds: tuple[int, ...], *,
        exploration: float = 4.0, width: float = 0.5, first: int = 50, growth: float = 1.5,
        longest: int = 1000,
    ):  # fmt: skip
        if list(rounds) != sorted(set(rounds)) or not rounds or rounds[0] < 1:
            raise ValueError(f"rounds must be increasing and at least 1, not {rounds}")
        if growth <= 1 or first < 1 or longest < first or exploration <= 0 or width <= 0:
            raise ValueError(
                "growth must exceed 1, exploration and width 0, first be at least 1, longest not less"
            )
        self.environment, self.strategy, self.rounds = environment, strategy, rounds
        self.exploration, self.width = exploration, width
        self.first, self.growth, self.longest = first, growth, longest

    def init(self, seed: int) -> LearnerState:
        key = jax.random.key(seed)
        arms = self.environment.actions - 1
        size = eqx.filter_eval_shape(self.environment.init, key).payoffs.shape[1]
        exploring = self.strategy == "explore-then-commit"
        first = self._exploration(arms, size) if exploring else jnp.full(1, arms, jnp.int32)
        policy = Recording(Follow(first), arms, size)
        loop = _begin(self.environment, policy, key)
        until = len(first) if exploring else 0
        return LearnerState(loop, policy, jax.random.fold_in(key, 1), until=until)

    def _exploration(self, arms: int, size: int) -> jnp.ndarray:
        idle, run = size - self.environment.streak, self.environment.streak + 1
        once, twice = (len(exploration_schedule(arms, idle, run, r)) for r in (1, 2))
        room = self.exploration * self.rounds[-1] ** (2 / 3)
        repeats = 1 + max(0, int((room - once) / (twice - once)))
        return jnp.asarray(exploration_schedule(arms, idle, run, repeats))

    def step(self, state: LearnerState) -> LearnerState:
        target = self.rounds[state.step]
        while state.round < target:
            if state.round == state.until:
                state = self._turn(state)
            stretch = min(state.until, target) - state.round
            loop = _play(self.environment, state.policy, state.loop, jnp.int32(stretch))
            state = replace(state, loop=loop, round=state.round + stretch)
        return replace(state, step=state.step + 1)

    def _turn(self, state: LearnerState) -> LearnerState:
        """A new plan where one is due, and a new rounding of it."""
        policy, plans = state.policy, state.plans
        assert isinstance(policy, Recording)
        tally = state.loop.policy[1]
        count, total = np.asarray(tally.count, np.float64), np.asarray(tally.total, np.float64)
        streak, length = self.environment.streak, self.longest
        if self.strategy == "optimistic":
            table = optimistic_payoffs(count, total, state.round, self.width)
            policy = _with_policy(policy, Planned(make_plan(table, streak)[0]))
            length = min(max(self.first, int((self.growth - 1) * state.round)), self.longest)
            plans += 1
        elif plans == 0:
            known = np.asarray(state.loop.environment.payoffs, np.float64)
            table = known if self.strategy == "planner" else isotonic_payoffs(count, total)
            policy = _with_policy(policy, Planned(make_plan(table, streak)[0]))
            plans += 1
        drawn = _draw(policy.policy, state.key, jnp.int32(state.round))
        loop = state.loop._replace(policy=(drawn, tally))
        return replace(state, policy=policy, loop=loop, until=state.round + length, plans=plans)

    def observe(self, state: LearnerState) -> dict[str, Any]:
        seen = {"reward": state.loop.reward.value, "mean": state.loop.mean.value}
        return {k: np.asarray(v, np.float64) for k, v in seen.items()} | {
            "round": np.int64(state.round),
            "plans": np.int64(state.plans),
        }

    def quantities(self) -> dict[str, Quantity]:
        return {
            "round": Quantity("rounds"),
            "reward": Quantity("reward", about="cumulative reward"),
            "mean": Quantity("reward", about="cumulative expected reward"),
            "plans": Quantity("1", about="relaxations solved"),
        }


def _with_policy(recording: Recording, policy: Policy) -> Recording:
    """The same record keeping around another policy."""
    return Recording(policy, recording.arms, recording.size)
