"""What each way of playing is worth on one instance whose payoffs are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from latebloom.core.interaction import Interaction
from latebloom.methods.bandits.last_switch.environment import (
    Fixed,
    LastSwitch,
    average_reward,
    run_rounds,
    stack,
)
from latebloom.methods.bandits.last_switch.oracle import (
    best_periodic,
    best_policy,
    cycle_value,
    dyadic_schedule,
)
from latebloom.methods.bandits.last_switch.planner import (
    Drawn,
    Plan,
    Planned,
    expected_virtual,
    make_plan,
    round_plan,
)
from latebloom.methods.bandits.last_switch.policies import Lookahead

WAYS = (
    "planner", "planner-fill", "planner-real", "planner-best", "planner-best-fill", "delay-only",
    "greedy", "lookahead", "dyadic", "round-robin", "periodic", "optimum",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Rewards a round on one instance.

    - `bound`: the relaxation's value; `virtual`: the planner's exact expectation at virtual states.
    - `reward`: by way of playing (`WAYS`); "periodic" and "optimum" are NaN where they are not asked
      for. `upper`: no policy earns more (from value iteration; NaN likewise).
    """

    bound: float
    virtual: float
    reward: Mapping[str, float]
    upper: float


@eqx.filter_jit
def _one_run(environment: LastSwitch, policy: Lookahead, rounds: int) -> jnp.ndarray:
    process = Interaction(environment, policy)
    return run_rounds(process, process.init(jax.random.key(0)), rounds).mean.value / rounds


def variants(plan: Plan, delay_only: Plan) -> Planned:
    """The planner, with fill, ranked by real states, and the delay-only planner, stacked."""
    no, yes = jnp.array(False), jnp.array(True)
    ways = [(plan, no, no), (plan, yes, no), (plan, no, yes), (delay_only, no, no)]
    return stack([Planned(*way) for way in ways])


def compare(
    payoffs: np.ndarray, streak: int, key: PRNGKeyArray, *, rounds: int = 2000, draws: int = 200,
    best_of: int = 64, depth: int = 3, period: int = 0, exact: bool = False,
) -> Comparison:  # fmt: skip
    """Play one instance, begun in states 1, in every way there is, without noise.

    - `draws`: roundings over which the planner's reward is averaged; "planner-best" keeps the best of
      the first `best_of` of them.
    - `depth`: rounds that "lookahead" sees ahead.
    - `period`: the longest period that "periodic" tries; 0 leaves it out.
    - `exact`: find the optimum too, by value iteration over all joint states.
    """
    plan, relaxation = make_plan(payoffs, streak)
    delay_only, _ = make_plan(payoffs, streak, longest_run=1)
    arms = len(payoffs)
    environment = LastSwitch(Fixed(jnp.asarray(payoffs, jnp.float32)), arms, streak)
    keys = jax.random.split(key, draws)
    found = np.asarray(
        average_reward(environment, variants(plan, delay_only), keys, jnp.int32(rounds)), np.float64
    )
    best = best_policy(payoffs, streak) if exact else None
    reward = {
        "planner": found[0].mean(),
        "planner-fill": found[1].mean(),
        "planner-real": found[2].mean(),
        "planner-best": found[0, :best_of].max(),
        "planner-best-fill": found[1, :best_of].max(),
        "delay-only": found[3].mean(),
        "greedy": float(_one_run(environment, Lookahead(1, streak), rounds)),
        "lookahead": float(_one_run(environment, Lookahead(depth, streak), rounds)),
        "dyadic": cycle_value(payoffs, streak, np.array(dyadic_schedule(payoffs, streak))),
        "round-robin": cycle_value(payoffs, streak, np.arange(arms)),
        "periodic": best_periodic(payoffs, streak, period).value if period else np.nan,
        "optimum": best.value if best else np.nan,
    }
    reward = {way: float(reward[way]) for way in WAYS}
    return Comparison(
        relaxation.bound, expected_virtual(plan), reward, best.upper if best else np.nan
    )


@eqx.filter_jit
def _round_all(plan: Plan, keys: PRNGKeyArray) -> Drawn:
    return jax.vmap(lambda key: round_plan(plan, key))(keys)


def best_rounding(
    plan: Plan, environment: LastSwitch, key: PRNGKeyArray, *, rounds: int, draws: int = 64,
    fill: bool = False,
) -> tuple[Drawn, np.ndarray]:  # fmt: skip
    """The rounding of a plan that earns most over `rounds` rounds, of `draws` tried; all their means.

    The guarantee of a plan is one of expectation over roundings; with known payoffs the best of many
    can be had for the trouble of trying them.
    """
    keys = jax.random.split(key, draws)
    drawn = _round_all(plan, keys)
    tried = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (draws, *x.shape)),
        Planned(plan, jnp.array(fill), jnp.array(False)),
    )
    tried = Planned(tried.plan, tried.fill, tried.by_real, drawn)
    means = np.asarray(average_reward(environment, tried, keys[:1], jnp.int32(rounds)))[:, 0]
    return jax.tree.map(lambda x: x[int(means.argmax())], drawn), means
