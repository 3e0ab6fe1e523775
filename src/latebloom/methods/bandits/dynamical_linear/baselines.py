"""Policies that know no linear model: Exp3 (in batches too), AR2, and a constant action."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Feedback, Policy, Sum, View
from latebloom.methods.bandits.dynamical_linear.epochs import growing_epochs
from latebloom.methods.bandits.dynamical_linear.optimistic import Bounds
from latebloom.methods.bandits.exploration import draw, softmax, with_floor


class Constant(Policy):
    """Always the same action, told to the environment in stretches of `hold` rounds."""

    action: int | np.integer
    hold: int | np.integer
    horizon: int | np.integer

    def init(self, key: PRNGKeyArray) -> tuple[()]:
        return ()

    def act(
        self, state: tuple[()], view: View, round: Int[Array, ""], key: PRNGKeyArray
    ) -> Decision:
        hold = jnp.minimum(self.hold, self.horizon - round)
        return Decision(jnp.int32(self.action), jnp.float32(1), hold)


class Exp3(Policy):
    """Exponential weights of importance-weighted rewards, mixed with the uniform policy.

    (Auer, Cesa-Bianchi, Freund, Schapire 2002.) `scale` bounds |reward|: rewards are moved by
    2 `scale` and divided by 4 `scale`. With `batch` above 1 an action is held for so many rounds;
    let the environment give their mean then.
    """

    mixing: float
    scale: float
    batch: int | np.integer
    horizon: int | np.integer
    arms: int

    def init(self, key: PRNGKeyArray) -> Sum:
        zeros = jnp.zeros(self.arms)
        return Sum(zeros, zeros)

    def probabilities(self, state: Sum, allowed: Bool[Array, " k"]) -> Float[Array, " k"]:
        """The chance of each action."""
        return with_floor(
            softmax(state.value, allowed, self.arms / self.mixing), allowed, self.mixing
        )

    def act(self, state: Sum, view: View, round: Int[Array, ""], key: PRNGKeyArray) -> Decision:
        action, propensity = draw(key, self.probabilities(state, view.allowed))
        return Decision(action, propensity, jnp.minimum(self.batch, self.horizon - round))

    def learn(self, state: Sum, feedback: Feedback) -> Sum:
        gain = (feedback.reward + 2 * self.scale) / (4 * self.scale) / feedback.propensity
        chosen = jax.nn.one_hot(feedback.action, self.arms)
        return state.add(jnp.where(feedback.arrived, gain, 0.0) @ chosen)


def exp3(arms: int, bounds: Bounds, horizon: int, *, batch: int = 1) -> Exp3:
    """Exp3 with the rate that suits a horizon: mixing = sqrt(K log K / ((e - 1) 2/3 T / batch)).

    Raises `ValueError` for fewer than two arms, and a horizon or batch below 1.
    """
    if arms < 2 or horizon < 1 or batch < 1:
        raise ValueError(
            f"arms must be at least 2, horizon and batch at least 1, not {arms}, {horizon}, {batch}"
        )
    rounds = horizon / batch
    mixing = min(1.0, np.sqrt(arms * np.log(arms) / ((np.e - 1) * 2 * rounds / 3)))
    steady = bounds.theta + bounds.omega * bounds.drive / (1 - bounds.radius)
    return Exp3(float(mixing), steady * bounds.action, np.int32(batch), np.int32(horizon), arms)


def batch_size(radius: float, horizon: int) -> int:
    """Rounds a batch: ceil(log m / log(1 / radius)), m the last of DynLin-UCB's epochs."""
    last = int(growing_epochs(radius, horizon).until(horizon))
    return max(1, int(np.ceil(np.log(last) / np.log(1 / radius)))) if radius > 0 else 1


class Alternation(NamedTuple):
    estimates: Float[Array, " k"]
    pulled: Int[Array, " k"]  # the round of each arm's last pull
    triggered: Float[Array, " k"]  # the round at which it was triggered; infinite if it is not
    last: Int[Array, ""]
    before: Int[Array, ""]
    round: Int[Array, ""]  # 1, 2, ...


class AR2(Policy):
    """Alternates the superior arm with arms that may have become better, and restarts.

    For rewards that follow an AR(1) process of coefficient `alpha` around zero and innovations
    `sigma` (Chen, Golrezaei, Bouneffouf 2022, arXiv:2210.16386). `width` is 24 c0 sigma, `epoch`
    the rounds between restarts.
    """

    alpha: float
    width: float
    epoch: int | np.integer
    arms: int

    def init(self, key: PRNGKeyArray) -> Alternation:
        zeros, none = jnp.zeros(self.arms), jnp.int32(0)
        never = jnp.full(self.arms, jnp.inf)
        return Alternation(zeros, jnp.zeros(self.arms, jnp.int32), never, none, none, none + 1)

    def _place(self, state: Alternation) -> Array:
        """The round's place in its epoch: 0, 1, ..."""
        return (state.round - 1) % self.epoch

    def _consider(self, state: Alternation) -> tuple[Array, Array]:
        """The superior arm, and when each of the others was triggered."""
        estimates, a2 = state.estimates, self.alpha**2
        last, before = state.last, state.before
        superior = jnp.where(estimates[last] >= estimates[before], last, before)
        age = state.round - state.pulled + 1
        doubt = self.width * jnp.sqrt((a2 - a2**age) / (1 - a2))
        may_be_better = estimates[superior] - estimates <= doubt
        is_new = may_be_better & jnp.isinf(state.triggered) & (jnp.arange(self.arms) != superior)
        triggered = jnp.where(is_new, state.round, state.triggered)
        return superior, jnp.where(self._place(state) < self.arms, jnp.inf, triggered)

    def act(
        self, state: Alternation, view: View, round: Int[Array, ""], key: PRNGKeyArray
    ) -> Decision:
        superior, triggered = self._consider(state)
        earliest = triggered == triggered.min()
        chosen = jnp.argmax(jnp.where(earliest, jax.random.uniform(key, (self.arms,)), -1.0))
        explores = jnp.isfinite(triggered.min()) & (state.round % 2 == 1)
        action = jnp.where(explores, chosen.astype(jnp.int32), superior)
        chance = jnp.where(explores, 1 / earliest.sum(), 1.0).astype(jnp.float32)
        place = self._place(state)
        starts = place < self.arms
        return Decision(
            jnp.where(starts, self.arms - 1 - place, action), jnp.where(starts, 1.0, chance)
        )

    def acted(self, state: Alternation, decision: Decision) -> Alternation:
        _, triggered = self._consider(state)
        return state._replace(
            triggered=triggered.at[decision.action].set(jnp.inf),
            pulled=state.pulled.at[decision.action].set(state.round),
            last=decision.action,
            before=state.last,
        )

    def learn(self, state: Alternation, feedback: Feedback) -> Alternation:
        seen = state.estimates.at[feedback.action[0]].set(feedback.reward[0])
        return state._replace(estimates=self.alpha * seen, round=state.round + 1)


def ar2(arms: int, bounds: Bounds) -> AR2:
    """AR2 with alpha the spectral radius and the constants of its analysis.

    Epochs of ceil(K alpha⁻³ sigma⁻³) rounds; c0² = 4 log(1/(alpha sigma)) + 4 log(epoch) + 2 log(4K).
    Raises `ValueError` for a radius or a noise of 0: rewards without memory, or without noise, leave
    nothing to alternate for, and the constants are infinite.
    """
    if arms < 1 or bounds.radius == 0 or bounds.noise == 0:
        raise ValueError(
            "AR2 is for rewards with memory and noise: arms must be at least 1, radius and noise"
            f" above 0, not {arms}, {bounds.radius:g}, {bounds.noise:g}"
        )
    alpha, sigma = bounds.radius, bounds.noise
    epoch = np.ceil(arms * alpha**-3 * sigma**-3)
    c0 = np.sqrt(4 * np.log(1 / (alpha * sigma)) + 4 * np.log(epoch) + 2 * np.log(4 * arms))
    return AR2(alpha, float(24 * c0 * sigma), np.int32(min(epoch, 2**30)), arms)
