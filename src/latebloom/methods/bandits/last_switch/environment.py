"""Last-switch dependent bandits as an environment of the shared interaction loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.interaction import (
    Decision,
    Environment,
    Interaction,
    InteractionState,
    Outcome,
    Policy,
    View,
)
from latebloom.methods.bandits.last_switch.payoffs import advance

Noise = Literal["none", "bernoulli", "gaussian"]
Chosen = TypeVar("Chosen", bound=Policy)


class Seen(NamedTuple):
    """What there is to see. `payoffs` is the truth, for policies that are said to know it."""

    position: Int[Array, " k"]
    payoffs: Float[Array, "k s"]


class Fixed(eqx.Module):
    """The same payoff table, and the same states to begin in, for every seed."""

    payoffs: Float[Array, "k s"]

    def __call__(self, key: PRNGKeyArray) -> Float[Array, "k s"]:
        return self.payoffs


class LastSwitch(Environment):
    """Arms whose pay depends on how long they rested, or how often they ran in a row.

    Actions 0 to K - 1 are the arms, action K plays nothing. The table comes from `draw(key)`, once a
    seed. All arms begin in state 1 (idle for one round), or at the positions `start`.

    - `noise`: "bernoulli" draws 0 or 1 with the payoff as mean, "gaussian" adds noise of standard
      deviation `scale`, "none" pays the mean.

    An outcome's `best` is the best payoff among the states as they are, not what another past
    could have brought: regret against a planner is computed outside.
    """

    draw: Callable[[PRNGKeyArray], Float[Array, "k s"]]
    start: Int[Array, " k"] | None
    scale: Float[Array, ""] | float
    actions: int = eqx.field(static=True)
    memoryless: bool = eqx.field(static=True)
    streak: int = eqx.field(static=True)
    noise: Noise = eqx.field(static=True)

    def __init__(
        self, draw: Callable[[PRNGKeyArray], Array], arms: int, streak: int, *,
        start: Array | None = None, noise: Noise = "none", scale: float = 0.1,
    ):  # fmt: skip
        self.draw, self.start, self.scale = draw, start, scale
        self.actions, self.streak, self.noise = arms + 1, streak, noise
        self.memoryless = False

    def init(self, key: PRNGKeyArray) -> Seen:
        first = jnp.full(self.actions - 1, self.streak, jnp.int32)
        start = first if self.start is None else self.start
        return Seen(start, self.draw(key))

    def look(self, state: Seen, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        return View(state, jnp.ones(self.actions, bool))

    def step(
        self, state: Seen, view: View, decision: Decision, key: PRNGKeyArray, round: Int[Array, ""]
    ) -> tuple[Seen, Outcome]:
        played = decision.action < self.actions - 1
        arm = jnp.minimum(decision.action, self.actions - 2)
        mean = jnp.where(played, state.payoffs[arm, state.position[arm]], 0.0)
        reward = mean
        if self.noise == "bernoulli":
            reward = (jax.random.uniform(key) < mean).astype(jnp.float32)
        elif self.noise == "gaussian":
            reward = mean + jnp.where(played, self.scale * jax.random.normal(key), 0.0)
        size = state.payoffs.shape[-1]
        moved = advance(state.position, decision.action, size, self.streak)
        return Seen(moved, state.payoffs), Outcome(reward, reward, mean, pays_now(state).max())

    def observe(self, state: Seen) -> dict[str, Array]:
        return {"position": state.position}


def pays_now(seen: Seen) -> Float[Array, " k"]:
    """What each arm would pay if it were played now."""
    return jnp.take_along_axis(seen.payoffs, seen.position[:, None], axis=1)[:, 0]


def run_rounds(
    process: Interaction, state: InteractionState, rounds: Int[Array, ""] | int
) -> InteractionState:
    """The interaction `rounds` rounds later."""
    return jax.lax.fori_loop(0, rounds, lambda _, s: process.step(s), state)


@eqx.filter_jit
def average_reward(
    environment: LastSwitch, policies: Policy, keys: PRNGKeyArray, rounds: Int[Array, ""] | int
) -> Float[Array, "p d"]:
    """Mean reward a round over `rounds` rounds [policy, key], without noise.

    `policies` is one module whose array leaves have a leading axis: one policy a row. Keys give the
    policies' own draws, the same for all of them.
    """

    def one(policy: Any, key: PRNGKeyArray) -> Array:
        process = Interaction(environment, policy)
        return run_rounds(process, process.init(key), rounds).mean.value / rounds

    over_keys = eqx.filter_vmap(one, in_axes=(None, 0))
    return eqx.filter_vmap(over_keys, in_axes=(eqx.if_array(0), None))(policies, keys)


def stack(policies: Sequence[Chosen]) -> Chosen:
    """Policies of one shape as one module with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *policies)
