"""Other ways to play last-switch dependent arms: look ahead, ignore the state, learn block by block."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, View
from latebloom.methods.bandits.last_switch.environment import Seen, pays_now
from latebloom.methods.bandits.last_switch.payoffs import advance


def _sure(action: Array) -> Decision:
    return Decision(action.astype(jnp.int32), jnp.float32(1))


def best_sequence(
    seen: Seen, depth: int, streak: int
) -> tuple[Float[Array, ""], Int[Array, " depth"]]:
    """The actions that earn most in the next `depth` rounds, and what they earn; all are tried."""
    arms, size = seen.payoffs.shape
    pays = jnp.append(pays_now(seen), 0.0)
    if depth == 1:
        return pays.max(), pays.argmax().astype(jnp.int32)[None]
    actions = jnp.arange(arms + 1)
    moved = advance(jnp.broadcast_to(seen.position, (arms + 1, arms)), actions, size, streak)
    later, rest = jax.vmap(
        lambda position: best_sequence(Seen(position, seen.payoffs), depth - 1, streak)
    )(moved)
    best = (pays + later).argmax()
    return (pays + later)[best], jnp.concatenate([best.astype(jnp.int32)[None], rest[best]])


class Lookahead(Policy):
    """Knows the payoffs: plays the first action of the best `depth` rounds; 1 is myopic greedy."""

    depth: int = eqx.field(static=True)
    streak: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def act(self, state: None, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        return _sure(best_sequence(view.features, self.depth, self.streak)[1][0])


class Follow(Policy):
    """Plays a fixed schedule of actions over and over; `arange(arms)` is round robin."""

    schedule: Int[Array, " period"]

    def init(self, key: PRNGKeyArray) -> None:
        return None

    def act(self, state: None, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        return _sure(self.schedule[round % len(self.schedule)])


class Tally(NamedTuple):
    """How often each arm was played in each position, and what it brought in all."""

    count: Float[Array, "k s"]
    total: Float[Array, "k s"]


def no_tally(arms: int, size: int) -> Tally:
    return Tally(jnp.zeros((arms, size)), jnp.zeros((arms, size)))


def tally(so_far: Tally, feedback: Feedback) -> Tally:
    """Count what arrived (one decision) under the arm and the position it was played in."""
    arms = len(so_far.count)
    action = feedback.action[0]
    arm = jnp.minimum(action, arms - 1)
    place = (arm, feedback.features.position[0, arm])
    played = (feedback.arrived[0] & (action < arms)).astype(jnp.float32)
    return Tally(
        so_far.count.at[place].add(played), so_far.total.at[place].add(played * feedback.reward[0])
    )


def upper_confidence(
    so_far: Tally, round: Array | float, width: Array | float
) -> Float[Array, "k s"]:
    """Mean + sqrt(width log(round) / count), at most 1; 1 where nothing was seen."""
    count = jnp.maximum(so_far.count, 1)
    slack = jnp.sqrt(width * jnp.log(jnp.maximum(round, 2)) / count)
    return jnp.where(so_far.count > 0, jnp.minimum(so_far.total / count + slack, 1.0), 1.0)


class Recording(Policy):
    """A policy, with a tally of what its plays brought by arm and position."""

    policy: Policy
    arms: int = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def init(self, key: PRNGKeyArray) -> tuple[Any, Tally]:
        return self.policy.init(key), no_tally(self.arms, self.size)

    def act(self, state: Any, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        return self.policy.act(state[0], view, round, key)

    def acted(self, state: Any, decision: Decision) -> tuple[Any, Tally]:
        return self.policy.acted(state[0], decision), state[1]

    def learn(self, state: Any, feedback: Feedback) -> tuple[Any, Tally]:
        return self.policy.learn(state[0], feedback), tally(state[1], feedback)


class UCB1(Policy):
    """Upper confidence bounds that know nothing of states (Auer et al. 2002): one mean an arm."""

    arms: int = eqx.field(static=True)
    width: Float[Array, ""] | float = 2.0

    def init(self, key: PRNGKeyArray) -> Tally:
        return Tally(jnp.zeros(self.arms), jnp.zeros(self.arms))

    def act(self, state: Tally, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        count = jnp.maximum(state.count, 1)
        bonus = jnp.sqrt(self.width * jnp.log(jnp.maximum(round, 1)) / count)
        return _sure(jnp.where(state.count > 0, state.total / count + bonus, jnp.inf).argmax())

    def learn(self, state: Tally, feedback: Feedback) -> Tally:
        arm = feedback.action[0]
        return Tally(state.count.at[arm].add(1), state.total.at[arm].add(feedback.reward[0]))


class Blocks(NamedTuple):
    tally: Tally
    sequence: Int[Array, " depth"]


class BlockLearner(Policy):
    """Optimism block by block: the sequence of `depth` actions that is best on upper bounds.

    CombUCB1 whose base arms are pairs of arm and state, after Laforgue et al. (AISTATS 2022,
    arXiv:2110.11819). A block begins in the states where the last one ended; its best sequence is
    found by trying all of them, where theirs rounds a linear program.
    """

    arms: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    streak: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    width: Float[Array, ""] | float = 1.5

    def init(self, key: PRNGKeyArray) -> Blocks:
        return Blocks(no_tally(self.arms, self.size), jnp.zeros(self.depth, jnp.int32))

    def _sequence(self, state: Blocks, view: View, round: Array) -> Array:
        def anew() -> Array:
            bounds = upper_confidence(state.tally, round, self.width)
            return best_sequence(
                Seen(view.features.position, bounds), self.depth, self.streak
            )[1]  # fmt: skip

        return jax.lax.cond(round % self.depth == 0, anew, lambda: state.sequence)

    def act(self, state: Blocks, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        return _sure(self._sequence(state, view, round)[0])

    def learn(self, state: Blocks, feedback: Feedback) -> Blocks:
        view = View(jax.tree.map(lambda x: x[0], feedback.features), feedback.allowed[0])
        sequence = self._sequence(state, view, feedback.round[0])
        return Blocks(tally(state.tally, feedback), jnp.roll(sequence, -1))
