"""What online regression is measured against: the best network in hindsight."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, View
from latebloom.methods.bandits.exploration import draw, uniform
from latebloom.methods.bandits.neural.regression import (
    Memory,
    NeuralRegression,
    RegressionState,
    loss_of,
    passes,
)


class BestInHindsight(Policy):
    """Plays uniformly, and when it is observed fits a network to all rounds so far, offline.

    Uniform policies on one seed meet the same contexts and draw the same actions, so that
    `hindsight`, the fitted network's loss summed over the rounds, is what an online learner's
    cumulative loss is compared with.

    - `oracle`: a network with replay (whose capacity must hold all rounds) and no perturbation.
    - `epochs`: passes over the rounds, from the oracle's initial weights, at its step size.
    """

    oracle: NeuralRegression
    epochs: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        if self.oracle.replay is None or self.oracle.perturbation is not None:
            raise ValueError("the network in hindsight has replay and no perturbation")

    def init(self, key: PRNGKeyArray) -> RegressionState:
        return self.oracle.init(key)

    def act(self, state: RegressionState, view: View, round: Array, key: PRNGKeyArray) -> Decision:
        return Decision(*draw(key, uniform(view.allowed)))

    def learn(self, state: RegressionState, feedback: Feedback) -> RegressionState:
        def row(i: Array, state: RegressionState) -> RegressionState:
            x = jax.tree.map(lambda v: v[i], feedback.features)
            return self.oracle.remember(
                state, x, feedback.action[i], 1 - feedback.reward[i], feedback.arrived[i]
            )

        return jax.lax.fori_loop(0, len(feedback.action), row, state)

    def observe(self, state: RegressionState) -> dict[str, Array]:
        memory, net = state.memory, self.oracle.network
        assert memory is not None and self.oracle.replay is not None
        capacity = self.oracle.replay.capacity
        weights = self._fit(state, memory, capacity)

        def total(i: Array, sum: Array) -> Array:
            x = net.context(memory.x[i], memory.action[i])
            output = net.one(net.arm(weights, memory.action[i]), x)
            return sum + loss_of(output, memory.y[i], self.oracle.loss)

        return {"hindsight": jax.lax.fori_loop(0, state.count, total, jnp.float32(0))}

    def _fit(self, state: RegressionState, memory: Memory, capacity: int):
        def step(track, i: Array):
            x, action, y = memory.x[i], memory.action[i], memory.y[i]
            return self.oracle.descend(track, None, x, action, y, self.oracle.rate)

        count = jnp.maximum(state.count, 1)
        limit = self.epochs * count
        track = passes(step, self.oracle.track(state), state.key, count, capacity, limit, 1e-4)
        return self.oracle.settle(state, track, state.key)[0]
