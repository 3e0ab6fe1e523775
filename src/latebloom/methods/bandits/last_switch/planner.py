"""Planning with known payoffs: round the relaxation, let virtual states run, play the best of them.

Foussoul et al. (ICML 2023, arXiv:2306.00338) call it mirroring the evolution of virtual states. This
is a reconstruction from the abstract: constants and details may differ from the paper's.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Policy, View
from latebloom.methods.bandits.last_switch.environment import Seen, pays_now
from latebloom.methods.bandits.last_switch.payoffs import check_payoffs, is_monotone
from latebloom.methods.bandits.last_switch.relaxation import Relaxation, relax

GUARANTEE = 1 - np.exp(-1)


class Plan(eqx.Module):
    """What each arm may be set to do: kinds of cycle with their probabilities.

    - `rest`, `run` [arms, kinds]: idle rounds and plays of a cycle; rest 0, run 1 is continuous play.
    - `share` [arms, kinds]: probabilities; with what is missing to 1 the arm is not used.
    - `payoffs` [arms, positions]: the table that virtual states are ranked by.
    """

    rest: Int[Array, "k c"]
    run: Int[Array, "k c"]
    share: Float[Array, "k c"]
    payoffs: Float[Array, "k s"]
    streak: int = eqx.field(static=True)


class Drawn(NamedTuple):
    """One rounding: each arm's cycle, and where in it the arm is; run 0 for arms that are not used."""

    rest: Int[Array, " k"]
    run: Int[Array, " k"]
    clock: Int[Array, " k"]


def plan_of(relaxation: Relaxation, payoffs: np.ndarray, streak: int) -> Plan:
    """The cycles that a solved relaxation uses, two kinds an arm (more if it is no vertex)."""
    share = relaxation.share
    arms = len(share)
    kinds = max(2, int((share > 0).sum((1, 2)).max()))
    rest, run = np.zeros((arms, kinds), np.int32), np.zeros((arms, kinds), np.int32)
    shares = np.zeros((arms, kinds), np.float32)
    for arm in range(arms):
        n, m = np.nonzero(share[arm])
        rest[arm, : len(n)], run[arm, : len(n)] = n, m
        shares[arm, : len(n)] = share[arm, n, m]
    table = jnp.asarray(payoffs, jnp.float32)
    return Plan(jnp.asarray(rest), jnp.asarray(run), jnp.asarray(shares), table, streak)


def make_plan(
    payoffs: np.ndarray, streak: int, *, longest_run: int | None = None, heuristic: bool = False
) -> tuple[Plan, Relaxation]:
    """Solve the relaxation for known payoffs [arms, streak + idle] and keep its cycles.

    Interleaved by `Planned`, the plan expects (1 - 1/e) of the relaxation's bound, and so of the best
    policy, up to a start-up cost that does not grow with the horizon.

    Raises `ValueError` for a table that is no payoff table, and for payoffs that are not monotone:
    there the argument fails, and `heuristic=True` plans without it (see `best_policy` for small
    instances).
    """
    table = check_payoffs(payoffs, streak)
    if not heuristic and not is_monotone(table):
        raise ValueError(
            "payoffs must not fall along the axis -M, ..., -1, 1, ..., N: the guarantee needs it; "
            "heuristic=True plans without a guarantee"
        )
    relaxation = relax(table, streak, longest_run=longest_run)
    return plan_of(relaxation, table, streak), relaxation


def round_plan(plan: Plan, key: PRNGKeyArray) -> Drawn:
    """Draw for every arm, independently, its cycle by its share, and a uniform phase."""
    which, phase = jax.random.uniform(key, (2, len(plan.share)))
    edges = jnp.cumsum(plan.share, axis=1)
    kind = (which[:, None] >= edges).sum(1)
    used = kind < plan.share.shape[1]
    pick = jnp.minimum(kind, plan.share.shape[1] - 1)[:, None]
    rest = jnp.where(used, jnp.take_along_axis(plan.rest, pick, 1)[:, 0], 0)
    run = jnp.where(used, jnp.take_along_axis(plan.run, pick, 1)[:, 0], 0)
    length = rest + run
    clock = jnp.minimum(jnp.floor(phase * length), jnp.maximum(length - 1, 0))
    return Drawn(rest, run, clock.astype(jnp.int32))


def virtual_position(drawn: Drawn, streak: int) -> tuple[Bool[Array, " k"], Int[Array, " k"]]:
    """Whether each virtual state says "play", and its position (where it does)."""
    due = (drawn.run > 0) & (drawn.clock >= drawn.rest)
    played = drawn.clock - drawn.rest
    position = jnp.where(played == 0, streak + drawn.rest - 1, streak - played)
    return due, jnp.where(drawn.rest == 0, 0, position)


class Planned(Policy):
    """Of the arms whose virtual cycle says "play", play the one worth most at its virtual state.

    All virtual cycles go on, whoever is played; an arm that is passed over just rests. So the real
    state is never below the virtual one, and by monotonicity never pays less. O(arms) a round.

    - `fill`: where no cycle says "play", play the arm worth most now among those the rounding left
      unused. Nothing else is touched, so the guarantee stays.
    - `by_real`: rank by the real state. A heuristic: the proof does not cover it.
    - `drawn`: a rounding to use, or else one is drawn with the policy's key.
    """

    plan: Plan
    fill: Bool[Array, ""] | bool = False
    by_real: Bool[Array, ""] | bool = False
    drawn: Drawn | None = None

    def init(self, key: PRNGKeyArray) -> Drawn:
        return round_plan(self.plan, key) if self.drawn is None else self.drawn

    def act(self, state: Drawn, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        due, position = virtual_position(state, self.plan.streak)
        now = pays_now(Seen(view.features.position, self.plan.payoffs))
        virtual = jnp.take_along_axis(self.plan.payoffs, position[:, None], axis=1)[:, 0]
        worth = jnp.where(due, jnp.where(self.by_real, now, virtual), -1.0)
        spare = jnp.where(state.run == 0, now, -1.0)
        worth = jnp.where(due.any(), worth, jnp.where(self.fill, spare, -1.0))
        action = jnp.where(worth.max() >= 0, worth.argmax(), len(worth))
        return Decision(action.astype(jnp.int32), jnp.float32(1))

    def acted(self, state: Drawn, decision: Decision) -> Drawn:
        clock = state.clock + 1
        return state._replace(clock=jnp.where(clock >= state.rest + state.run, 0, clock))


def expected_virtual(plan: Plan) -> float:
    """Expected payoff a round at the virtual states, exactly: a lower bound of the planner's reward.

    In every round the virtual values V_i are independent over arms, and sum_i P(V_i > v) is at most
    1, so that E max_i V_i = int 1 - prod_i (1 - P(V_i > v)) dv is at least (1 - 1/e) of the bound.
    """
    table = np.asarray(plan.payoffs, np.float64)
    values, owners, chances = [], [], []
    for arm in range(len(table)):
        for n, m, share in zip(
            np.asarray(plan.rest[arm]), np.asarray(plan.run[arm]),
            np.asarray(plan.share[arm], np.float64), strict=True,
        ):  # fmt: skip
            places = [0] if n == 0 else [plan.streak + n - 1, *plan.streak - np.arange(1, m)]
            for place in places if share > 0 else []:
                values.append(table[arm, place])
                owners.append(arm)
                chances.append(share / (n + m))
    order = np.argsort(values)[::-1]
    above = np.zeros(len(table))
    total = 0.0
    for here, after in zip(order, [*order[1:], None], strict=True):
        above[owners[here]] += chances[here]
        step = values[here] - (0.0 if after is None else values[after])
        total += step * (1 - np.prod(1 - above))
    return float(total)
