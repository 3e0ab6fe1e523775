"""A contextual bandit as an oracle that predicts losses and a rule that explores."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, View
from latebloom.methods.bandits.exploration import draw
from latebloom.methods.bandits.neural.rules import Rule

BINS = 10


class Tally(NamedTuple):
    """Sums over the rounds that were learned from.

    - `explored`: of the probability not on the likeliest action.
    - `error`: of (predicted - observed loss)² of the played action, before learning from it.
    - `log_loss`: of their cross-entropy, predictions clipped to [1e-4, 1 - 1e-4].
    - `counts`, `predicted`, `observed`: by bins of the predicted loss, for calibration.
    """

    explored: Float[Array, ""]
    error: Float[Array, ""]
    log_loss: Float[Array, ""]
    counts: Float[Array, " b"]
    predicted: Float[Array, " b"]
    observed: Float[Array, " b"]

    def add(self, p: Array, prediction: Array, y: Array, on: Array) -> Tally:
        q = jnp.clip(prediction, 1e-4, 1 - 1e-4)
        slot = jnp.clip((prediction * BINS).astype(jnp.int32), 0, BINS - 1)
        return Tally(
            self.explored + on * (1 - p.max()),
            self.error + on * (prediction - y) ** 2,
            self.log_loss - on * (y * jnp.log(q) + (1 - y) * jnp.log1p(-q)),
            self.counts.at[slot].add(on),
            self.predicted.at[slot].add(on * prediction),
            self.observed.at[slot].add(on * y),
        )


class OraclePolicy(Policy):
    """Plays by the rule on the oracle's predictions; the loss that it learns from is 1 - reward.

    An oracle has `init(key)`, `predict(state, x)`, which gives the loss of every arm in a context and
    their widths or None, and `learn(state, x, action, y, on)`, which learns from the loss of one.
    """

    oracle: Any
    rule: Rule

    def init(self, key: PRNGKeyArray) -> tuple[Any, Tally]:
        zero, bins = jnp.float32(0), jnp.zeros(BINS, jnp.float32)
        return self.oracle.init(key), Tally(zero, zero, zero, bins, bins, bins)

    def probabilities(
        self, state: Any, x: Float[Array, "*a d"], allowed: Bool[Array, " k"], round: Int[Array, ""]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Action probabilities in a context, and the predicted losses that they come from."""
        losses, widths = self.oracle.predict(state, x)
        return self.rule(losses, widths, allowed, round), losses

    def act(self, state: Any, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        p, _ = self.probabilities(state[0], view.features, view.allowed, round)
        return Decision(*draw(key, p))

    def learn(self, state: Any, feedback: Feedback) -> Any:
        def row(state: Any, i: Array | int) -> Any:
            x, allowed, action, _, reward, round, on = jax.tree.map(lambda v: v[i], tuple(feedback))
            oracle, tally = state
            p, losses = self.probabilities(oracle, x, allowed, round)
            tally = tally.add(p, losses[action], 1 - reward, on)
            return self.oracle.learn(oracle, x, action, 1 - reward, on), tally

        if len(feedback.action) == 1:
            return row(state, 0)
        rows = jnp.arange(len(feedback.action))
        return jax.lax.scan(lambda s, i: (row(s, i), None), state, rows)[0]

    def observe(self, state: Any) -> dict[str, Array]:
        return state[1]._asdict()
