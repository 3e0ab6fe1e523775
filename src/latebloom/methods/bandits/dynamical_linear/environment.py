"""The linear system as an environment in which an action may be held for many rounds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from latebloom.core.interaction import Decision, Environment, Outcome, View
from latebloom.methods.bandits.dynamical_linear.noise import normals
from latebloom.methods.bandits.dynamical_linear.system import LinearSystem


class Dynamics(NamedTuple):
    """x' = A x + B u, reward = <omega, x> + <theta, u>, and the actions u to choose from."""

    A: Float[Array, "n n"]
    B: Float[Array, "n p"]
    omega: Float[Array, " n"]
    theta: Float[Array, " p"]
    actions: Float[Array, "k p"]

    def steady_rewards(self) -> Float[Array, " k"]:
        """Mean reward a round of each action, held for ever."""
        left = jnp.linalg.solve((jnp.eye(len(self.A), dtype=self.A.dtype) - self.A).T, self.omega)
        return self.actions @ (self.theta + self.B.T @ left)


class Fixed(eqx.Module):
    """The same dynamics for every seed."""

    dynamics: Dynamics

    def __init__(self, system: LinearSystem, actions: Float[np.ndarray, "k p"]):
        parts = (system.A, system.B, system.omega, system.theta, actions)
        self.dynamics = Dynamics(*(jnp.asarray(part, float) for part in parts))

    def __call__(self, key: PRNGKeyArray) -> Dynamics:
        return self.dynamics


class RandomDynamics(eqx.Module):
    """Dynamics drawn for each seed: A = radius Q S Qᵀ (Q a random rotation, S random signs).

    B has operator norm 1, omega and theta length 1, and the actions are drawn from the unit ball.
    Only systems are kept in which the action that is best at once is not the one that is best in
    the long run.
    """

    radius: float
    dim: int = eqx.field(static=True)
    actions: int = eqx.field(static=True, default=20)

    def __call__(self, key: PRNGKeyArray) -> Dynamics:
        def is_wanted(drawn: Dynamics) -> Array:
            at_once = (drawn.actions @ drawn.theta).argmax()
            return at_once != drawn.steady_rewards().argmax()

        def again(carry: tuple[PRNGKeyArray, Dynamics]) -> tuple[PRNGKeyArray, Dynamics]:
            key = jax.random.fold_in(carry[0], 1)
            return key, self._draw(key)

        start = (key, self._draw(key))
        return jax.lax.while_loop(lambda carry: ~is_wanted(carry[1]), again, start)[1]

    def _draw(self, key: PRNGKeyArray) -> Dynamics:
        d, k = self.dim, self.actions
        sizes = np.cumsum([d * d, d, d * d, d, d, k * d])
        # One call: each call of a generator costs a second of compiling.
        parts = jnp.split(jax.random.normal(key, (sizes[-1] + k,)), sizes)
        rotation, triangle = jnp.linalg.qr(parts[0].reshape(d, d))
        rotation = rotation * jnp.sign(jnp.diag(triangle))
        B, direction = parts[2].reshape(d, d), parts[5].reshape(k, d)
        length = jax.scipy.special.ndtr(parts[6][:, None]) ** (1 / d)
        return Dynamics(
            self.radius * (rotation * jnp.sign(parts[1])) @ rotation.T,
            B / jnp.linalg.norm(B, 2),
            parts[3] / jnp.linalg.norm(parts[3]),
            parts[4] / jnp.linalg.norm(parts[4]),
            length * direction / jnp.linalg.norm(direction, axis=1, keepdims=True),
        )


class Holds(NamedTuple):
    """The law of (state, last reward, sum of rewards) after an action was held 1, 2, ... rounds.

    Given state and action it is normal with mean `mean` @ (state, action) and covariance
    `root`ᵀ @ `root`.
    """

    mean: Float[Array, "holds n+2 n+p"]
    root: Float[Array, "holds n+2 n+2"]


def hold_laws(
    dynamics: Dynamics, state_noise: Float[Array, ""] | float,
    reward_noise: Float[Array, ""] | float, longest: int,
) -> Holds:  # fmt: skip
    """The laws of holding an action for 1 ... `longest` rounds.

    Within a round the reward comes from the state before the action's effect. Covariances are
    carried as square roots by QR steps, which holds in float32 too, and for noise of zero.
    """
    A, B, omega, theta, _ = dynamics
    n, p, dtype = len(A), B.shape[1], A.dtype
    # One round as a linear map of (state, last reward, sum), of the action, and of the noise.
    step = jnp.zeros((n + 2, n + 2), dtype).at[:n, :n].set(A).at[n:, :n].set(omega)
    step = step.at[n + 1, n + 1].set(1)
    drive = jnp.concatenate([B, theta[None], theta[None]])
    noise = jnp.zeros((n + 1, n + 2), dtype)
    noise = noise.at[:n, :n].set(state_noise * jnp.eye(n, dtype=dtype)).at[n, n:].set(reward_noise)

    def held_once_more(carry: Any, _: None) -> tuple[Any, Any]:
        mean, root = carry
        mean = (step @ mean).at[:, n:].add(drive)
        root = jnp.linalg.qr(jnp.concatenate([root @ step.T, noise]), mode="r")
        return (mean, root), (mean, root)

    nothing = jnp.eye(n + 2, n, dtype=dtype)
    start = (jnp.concatenate([nothing, jnp.zeros((n + 2, p), dtype)], 1),
             jnp.zeros((n + 2, n + 2), dtype))  # fmt: skip
    return Holds(*jax.lax.scan(held_once_more, start, None, length=longest)[1])


class SystemState(NamedTuple):
    x: Float[Array, " n"]
    dynamics: Dynamics
    rewards: Float[Array, " k"]
    holds: Holds
    noise_key: UInt32[Array, " words"]


class HeldLinearSystem(Environment):
    """A dynamical linear bandit whose rounds under one action are passed in one draw.

    - `draw(key)`: the dynamics of a seed, see `Fixed` and `RandomDynamics`.
    - `state_noise`, `reward_noise`: standard deviations, of each state and of the reward.
    - `actions`: how many; `longest`: the most rounds that an action may be held. A policy that
      holds one longer gets NaN as reward.
    - What is seen are the actions [K, p] themselves.
    - `learn_from`: the reward of the "last" round held, or the "mean" over them.

    Pseudo-regret is measured on steady-state rewards: an action's `mean` is <h, u> a round (Mussi,
    Metelli, Restelli 2023, arXiv:2211.08997). Rounds played one at a time share their noise among
    policies; an action that is held uses the draw of its first round.
    """

    draw: Callable[[PRNGKeyArray], Dynamics]
    state_noise: float
    reward_noise: float
    actions: int = eqx.field(static=True)
    longest: int = eqx.field(static=True, default=1)
    learn_from: Literal["last", "mean"] = eqx.field(static=True, default="last")
    memoryless: bool = eqx.field(static=True, default=False, init=False)

    def init(self, key: PRNGKeyArray) -> SystemState:
        instance, noise = jax.random.split(key)
        dynamics = self.draw(instance)
        holds = hold_laws(dynamics, self.state_noise, self.reward_noise, self.longest)
        x, words = jnp.zeros_like(dynamics.omega), jax.random.key_data(noise)[:2]
        return SystemState(x, dynamics, dynamics.steady_rewards(), holds, words)

    def look(self, state: SystemState, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        return View(state.dynamics.actions, jnp.ones(self.actions, bool))

    def step(
        self, state: SystemState, view: View, decision: Decision, key: PRNGKeyArray,
        round: Int[Array, ""],
    ) -> tuple[SystemState, Outcome]:  # fmt: skip
        n, hold = len(state.x), jnp.asarray(decision.hold, jnp.int32)
        mean, root = (table[hold - 1] for table in state.holds)
        given = jnp.concatenate([state.x, state.dynamics.actions[decision.action]])
        drawn = normals(state.noise_key, round, n + 2)
        # Sums instead of matrix products: they fuse, and a round is as short as a call of BLAS.
        seen = (mean * given).sum(1) + (drawn[:, None] * root).sum(0)
        reward, total = seen[n], seen[n + 1]
        learned = reward if self.learn_from == "last" else total / hold
        learned = jnp.where(hold <= self.longest, learned, jnp.nan)
        steady = state.rewards[decision.action]
        return state._replace(x=seen[:n]), Outcome(
            learned, total, hold * steady, hold * state.rewards.max()
        )
