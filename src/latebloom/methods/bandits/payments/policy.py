"""A policy that is trained from scratch on the last logs, deployed, and trained again."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, View
from latebloom.methods.bandits import exploration
from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.off_policy import Evaluation, evaluate
from latebloom.methods.bandits.payments import diagnostics
from latebloom.methods.bandits.payments.learners import Learner
from latebloom.methods.bandits.payments.model import Rows
from latebloom.methods.bandits.payments.rules import Prediction, Rule
from latebloom.methods.bandits.payments.world import Features


class LogReport(NamedTuple):
    """What the last log looked like, and what it said.

    - `arrived`: rewards that came in time, of all decisions whose rewards were awaited.
    - `negative_share`, `negatives`, `reward`: of the rows the model was trained on.
    - `overlap`, `action_shift`: of the new policy with the last log.
    - `evaluation`: the greedy policy of the model that served, valued from the log it collected,
      which it was not trained on. All zeros, `mean_weight` too, where the log says nothing, as that
      of the first generation, which no model served.
    """

    arrived: Float[Array, ""]
    negative_share: Float[Array, ""]
    negatives: Float[Array, ""]
    reward: Float[Array, ""]
    overlap: Float[Array, ""]
    action_shift: Float[Array, ""]
    evaluation: Evaluation


class RetrainedState(NamedTuple):
    params: Any
    memory: Rows
    examples: Float[Array, ""]
    generation: Int[Array, ""]
    key: PRNGKeyArray
    report: LogReport


class Retrained(Policy):
    """Serve, wait, join what arrived, retrain on the last `window` logs, deploy.

    The first generation is served uniformly.

    - `rows`: entries of one log (the batch, plus what may wait).
    - `slice`: if above 0, that share of the traffic is served uniformly, and only it is trained on.
      The propensity logged is that of the whole mixture.
    - `weighting`: train with weights propensity^-`weighting`, scaled to a mean of 1: 0 is plain
      regression, 1 importance weighting.
    """

    learner: Learner
    rule: Rule
    rows: int = eqx.field(static=True)
    window: int = eqx.field(static=True, default=1)
    slice: float = 0.0
    weighting: float = 0.0

    def __check_init__(self) -> None:
        if self.window < 1 or self.rows < 1:
            raise ValueError(f"window and rows must be at least 1: {self.window}, {self.rows}")
        check_setting("slice", self.slice, 0.0, 0.999)
        check_setting("weighting", self.weighting, 0.0, 1.0)
        if self.slice and self.weighting:
            raise ValueError("a uniform slice is trained on as it is: give slice or weighting")

    def init(self, key: PRNGKeyArray) -> RetrainedState:
        model, count = self.learner.model, self.window * self.rows
        features = Features(
            jnp.zeros((count, len(model.sizes)), jnp.int32), jnp.zeros((count, model.numbers))
        )
        memory = Rows(
            features, jnp.ones((count, model.actions), bool), jnp.zeros(count, jnp.int32),
            jnp.ones(count), jnp.zeros(count), jnp.zeros(count),
        )  # fmt: skip
        params, zero = self.learner.start(), jnp.float32(0)
        report = jax.eval_shape(
            self._report, params, params, memory, memory, zero, zero, jnp.int32(0)
        )
        report = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), report)
        return RetrainedState(params, memory, zero, jnp.int32(0), key, report)

    def predict(self, state: RetrainedState, features: Features) -> Prediction:
        return self.learner.predict(state.params, features)

    def probabilities(
        self, state: RetrainedState, features: Features, allowed: Bool[Array, "*b k"]
    ) -> Float[Array, "*b k"]:
        """The policy, the uniform slice included: what an action's propensity is."""
        return self._policy(state.params, features, allowed, state.examples, state.generation)

    def act(
        self, state: RetrainedState, view: View, round: Int[Array, ""], key: PRNGKeyArray
    ) -> Decision:
        probabilities = self.probabilities(state, view.features, view.allowed)
        even = exploration.uniform(view.allowed)
        # The mixture less the uniform part is the rule's own.
        rest = (probabilities - self.slice * even) / (1 - self.slice)
        served = jnp.where(self._in_slice(round), even, jnp.maximum(rest, 0.0))
        action, _ = exploration.draw(key, served)
        return Decision(action, probabilities[action])

    def learn(self, state: RetrainedState, feedback: Feedback) -> RetrainedState:
        # Without it the compiler may compute a log anew for every use of it.
        feedback = jax.lax.optimization_barrier(feedback)
        arrived = feedback.arrived
        fresh = Rows(
            feedback.features, feedback.allowed, feedback.action,
            jnp.where(arrived, feedback.propensity, 1.0), jnp.where(arrived, feedback.reward, 0.0),
            arrived.astype(jnp.float32),
        )  # fmt: skip
        inside = jax.vmap(self._in_slice)(feedback.round) | (jnp.asarray(self.slice) == 0)
        kept = fresh._replace(weight=jnp.where(inside, fresh.weight, 0.0))
        memory = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new])[-len(old) :], state.memory, kept
        )
        weight = memory.weight * memory.propensity**-self.weighting
        scale = memory.weight.sum() / jnp.maximum(weight.sum(), 1e-9)
        rows = memory._replace(weight=weight * scale)
        key, fit = jax.random.split(state.key)
        params = self.learner.fit(rows, fit)
        examples = (memory.weight > 0).sum().astype(jnp.float32)
        # Places in the queue that were never filled have no propensity.
        arrived = arrived.sum() / jnp.maximum((feedback.propensity > 0).sum(), 1)
        report = self._report(
            state.params, params, fresh, memory, arrived, examples, state.generation
        )
        return RetrainedState(params, memory, examples, state.generation + 1, key, report)

    def _in_slice(self, round: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(0), round)) < self.slice

    def _policy(
        self, params: Any, features: Features, allowed: Array, examples: Array, generation: Array
    ) -> Array:
        own = self.rule(self.learner.predict(params, features), allowed, examples)
        own = exploration.with_floor(own, allowed, self.slice)
        return jnp.where(generation > 0, own, exploration.uniform(allowed))

    def _report(
        self, served: Any, params: Any, fresh: Rows, memory: Rows, arrived: Array, examples: Array,
        generation: Array,
    ) -> LogReport:  # fmt: skip
        there = fresh.weight > 0
        place = jnp.arange(len(fresh.action))
        model = self.learner.predict(served, fresh.features).mean
        best = jnp.where(fresh.allowed, model, -jnp.inf).argmax(-1)
        evaluation = evaluate(
            fresh.reward, fresh.propensity, (best == fresh.action).astype(jnp.float32),
            model[place, fresh.action], model[place, best], rows=there & (generation > 0),
        )  # fmt: skip
        new = self._policy(params, fresh.features, fresh.allowed, examples, generation + 1)
        share, count = diagnostics.negatives(memory)
        return LogReport(
            arrived, share, count,
            diagnostics.weighted_mean(memory.reward, memory.weight > 0),
            diagnostics.overlap(new[place, fresh.action] / fresh.propensity, there),
            diagnostics.action_shift(new.mean(0), fresh.action, fresh.weight),
            jax.tree.map(jnp.nan_to_num, evaluation),
        )  # fmt: skip
