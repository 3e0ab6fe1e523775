"""One loop for all bandits: what is seen, the action with its propensity, the reward, perhaps late.

An environment and a policy are Equinox modules of pure functions. `Interaction` runs them as a
process, so that `unfold` gives many seeds, checkpoints and traces. The environment's randomness
comes from the seed and the round alone: policies that run on one seed meet the same contexts and
the same noise, and are compared pairwise.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity


class View(NamedTuple):
    """What a policy sees before it acts: features (any pytree), and which actions there are."""

    features: Any
    allowed: Bool[Array, " k"]


class Decision(NamedTuple):
    """An action, the probability with which it was drawn, and for how many rounds it is held."""

    action: Int[Array, ""]
    propensity: Float[Array, ""]
    hold: Int[Array, ""] | int = 1


class Outcome(NamedTuple):
    """What an action brought.

    - `reward`: what is learned from (of the last round, where an action is held for several).
    - `total`, `mean`, `best`: sums over the rounds held of the realised reward, of the action's
      known mean, and of the best mean there was; pseudo-regret is `best` - `mean`.
    - `delay`: rounds until the reward arrives; 0 for at once.
    """

    reward: Float[Array, ""]
    total: Float[Array, ""]
    mean: Float[Array, ""]
    best: Float[Array, ""]
    delay: Int[Array, ""] | int = 0


class Feedback(NamedTuple):
    """Rewards that arrived, each with the decision it belongs to; rows where not `arrived` are void."""

    features: Any
    allowed: Bool[Array, "m k"]
    action: Int[Array, " m"]
    propensity: Float[Array, " m"]
    reward: Float[Array, " m"]
    round: Int[Array, " m"]
    arrived: Bool[Array, " m"]


class Environment(eqx.Module):
    """Where rewards come from. `actions` is their number.

    With `memoryless = True` nothing that is done changes what comes later: `step` must return the
    state as it was, and rounds can be served in blocks, side by side.
    """

    actions: eqx.AbstractVar[int]
    memoryless: eqx.AbstractVar[bool]

    def init(self, key: PRNGKeyArray) -> Any:
        """The state before the first round; what is fixed for a seed (its instance) belongs to it."""
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def look(self, state: Any, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        """What there is to see in this round, drawn with the round's own key."""
        raise NotImplementedError(f"{type(self).__name__} has no look")

    def step(
        self, state: Any, view: View, decision: Decision, key: PRNGKeyArray, round: Int[Array, ""]
    ) -> tuple[Any, Outcome]:
        """The state after the action was held, and what it brought."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def observe(self, state: Any) -> dict[str, Array]:
        return {}


class Policy(eqx.Module):
    """Chooses actions and learns from what arrives."""

    def init(self, key: PRNGKeyArray) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def act(self, state: Any, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        """Choose an action. Every randomness comes from the key, and its probability is told."""
        raise NotImplementedError(f"{type(self).__name__} has no act")

    def acted(self, state: Any, decision: Decision) -> Any:
        """The state after acting, for policies that keep a plan."""
        return state

    def learn(self, state: Any, feedback: Feedback) -> Any:
        """The state after the rewards that arrived."""
        return state

    def observe(self, state: Any) -> dict[str, Array]:
        return {}


class Sum(NamedTuple):
    """A sum with its rounding error, so that a million small terms add up in float32."""

    value: Float[Array, ""]
    error: Float[Array, ""]

    def add(self, term: Float[Array, ""]) -> Sum:
        term = term - self.error
        value = self.value + term
        return Sum(value, (value - self.value) - term)


class InteractionState(NamedTuple):
    environment: Any
    policy: Any
    queue: Feedback | None
    due: Int[Array, " waiting"] | None
    world_key: PRNGKeyArray
    policy_key: PRNGKeyArray
    decision: Int[Array, ""]  # how many were made
    round: Int[Array, ""]
    reward: Sum
    mean: Sum
    regret: Sum
    plays: Int[Array, " k"]
    dropped: Int[Array, ""]


class Interaction(Process):
    """A policy in an environment; one step is one decision, or a block of them.

    - `block`: rounds that are served with the policy as it is before it learns again. More than one
      needs a memoryless environment; the rounds of a block are then computed side by side.
    - `waiting`: how many late rewards can be under way after a step. Those beyond it are lost and
      counted; with 0 every late reward is lost.

    Observed: `round`, cumulative `reward` (realised), `mean` (known means) and pseudo-`regret`,
    `plays` of each action, `dropped` where rewards can be late, and what environment and policy
    themselves show.
    """

    environment: Environment
    policy: Policy
    block: int = eqx.field(static=True)
    waiting: int = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, environment: Environment, policy: Policy, *, block: int = 1, waiting: int = 0,
        seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if block < 1 or waiting < 0:
            raise ValueError(
                f"block must be at least 1 and waiting at least 0, not {block}, {waiting}"
            )
        if block > 1 and not environment.memoryless:
            raise ValueError(
                f"{type(environment).__name__} remembers what was done: its rounds cannot be served "
                f"in blocks of {block}; use block=1"
            )
        self.environment, self.policy = environment, policy
        self.block, self.waiting, self.seeds_by = block, waiting, seeds_by

    def init(self, key: PRNGKeyArray) -> InteractionState:
        instance, world, policy_init, policy_key = jax.random.split(key, 4)
        environment = self.environment.init(instance)
        policy = self.policy.init(policy_init)
        zero, none = Sum(jnp.float32(0), jnp.float32(0)), jnp.int32(0)
        state = InteractionState(
            environment, policy, None, None, world, policy_key, none, none, zero, zero, zero,
            jnp.zeros(self.environment.actions, jnp.int32), none,
        )  # fmt: skip
        if self.waiting:
            _, fresh, _, _ = jax.eval_shape(self._serve, state)
            void = jax.tree.map(lambda x: jnp.zeros((self.waiting, *x.shape[1:]), x.dtype), fresh)
            state = state._replace(queue=void, due=jnp.zeros(self.waiting, jnp.int32))
        return state

    def _serve(self, s: InteractionState) -> tuple[Any, Feedback, Outcome, Decision]:
        """One block of rounds: environment state, feedback (none arrived yet), outcomes, decisions."""

        def one(environment: Any, i: Array) -> tuple[Any, Feedback, Outcome, Decision]:
            # A held action is one decision; its rounds share the key of the first.
            now = s.round + i
            see, act = jax.random.split(jax.random.fold_in(s.world_key, now))
            choose = jax.random.fold_in(s.policy_key, s.decision + i)
            view = self.environment.look(environment, see, now)
            decision = self.policy.act(s.policy, view, now, choose)
            environment, outcome = self.environment.step(environment, view, decision, act, now)
            row = Feedback(
                view.features, view.allowed, decision.action, decision.propensity, outcome.reward,
                now, jnp.array(True),
            )  # fmt: skip
            return environment, row, outcome, decision

        if self.block > 1:
            rounds = jnp.arange(self.block)
            _, feedback, outcome, decision = jax.vmap(one, in_axes=(None, 0))(s.environment, rounds)
            return s.environment, feedback, outcome, decision
        environment, feedback, outcome, decision = one(s.environment, jnp.int32(0))
        block = partial(jax.tree.map, lambda x: jnp.asarray(x)[None])
        return environment, block(feedback), block(outcome), block(decision)

    def step(self, s: InteractionState) -> InteractionState:
        environment, fresh, outcome, decision = self._serve(s)
        held = jnp.broadcast_to(jnp.asarray(decision.hold, jnp.int32), (self.block,))
        round = s.round + held.sum(dtype=jnp.int32)
        due = fresh.round + held - 1 + jnp.asarray(outcome.delay, jnp.int32)
        feedback, queue, due, lost = self._arrivals(s, fresh, due, round)
        policy = s.policy
        if self.block == 1:
            policy = self.policy.acted(policy, jax.tree.map(lambda x: x[0], decision))
        return InteractionState(
            environment, self.policy.learn(policy, feedback), queue, due, s.world_key,
            s.policy_key, s.decision + self.block, round, s.reward.add(outcome.total.sum()),
            s.mean.add(outcome.mean.sum()), s.regret.add((outcome.best - outcome.mean).sum()),
            s.plays.at[decision.action].add(held), s.dropped + lost,
        )  # fmt: skip

    def _arrivals(
        self, s: InteractionState, fresh: Feedback, due: Array, round: Array
    ) -> tuple[Feedback, Feedback | None, Array | None, Array]:
        """What has arrived before `round`, what still waits, and how many were lost."""
        rows = fresh
        if s.queue is not None and s.due is not None:
            rows = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), s.queue, fresh)
            due = jnp.concatenate([s.due, due])
        here = rows.arrived & (due < round)
        late = rows.arrived & ~here
        feedback = rows._replace(arrived=here)
        if s.queue is None:
            return feedback, None, None, late.sum(dtype=jnp.int32)
        order = jnp.argsort(~late, stable=True)[: self.waiting]
        queue = jax.tree.map(lambda x: x[order], rows)._replace(arrived=late[order])
        return feedback, queue, due[order], (late.sum() - late[order].sum()).astype(jnp.int32)

    def observe(self, s: InteractionState) -> dict[str, Array]:
        seen = {"round": s.round, "reward": s.reward.value, "mean": s.mean.value,
                "regret": s.regret.value, "plays": s.plays}  # fmt: skip
        if self.waiting:
            seen["dropped"] = s.dropped
        return seen | self.environment.observe(s.environment) | self.policy.observe(s.policy)

    def quantities(self) -> dict[str, Quantity]:
        return {
            "round": Quantity("rounds"),
            "reward": Quantity("reward", about="cumulative reward"),
            "mean": Quantity("reward", about="cumulative expected reward"),
            "regret": Quantity("reward", about="cumulative pseudo-regret"),
            "plays": Quantity("rounds", ("action",), {"action": range(self.environment.actions)}),
            "dropped": Quantity("rewards", about="late rewards that were lost"),
        }
