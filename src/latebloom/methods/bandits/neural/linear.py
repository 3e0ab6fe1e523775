"""Linear oracles: ridge regression, online logistic regression, and regression with a kernel.

With `LowerBound` the ridge oracle is LinUCB (Li et al. 2010) and the kernel oracle KernelUCB (Valko
et al. 2013); with the inverse-gap rules they are linear SquareCB and FastCB.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.neural.regression import link, loss_number


class LinearState(NamedTuple):
    weights: Float[Array, "k d"]
    inverse: Float[Array, "k d d"]


class LinearRegression(eqx.Module):
    """Regression of the loss on the context, each arm for itself, updated exactly row by row.

    - `loss="square"`: ridge regression with penalty `ridge`.
    - `loss="kl"`: logistic regression by online Newton steps: the inverse covariance grows by
      p (1 - p) x xᵀ, and the weights follow the gradient through it.
    - `shared`: one regression for all arms, which then have contexts of their own [actions, d].

    Widths are sqrt(xᵀ A⁻¹ x).
    """

    actions: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    ridge: float = 1.0
    loss: Int[Array, ""] = eqx.field(converter=loss_number, default="square")
    shared: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_setting("ridge", self.ridge, above=True)

    def init(self, key: PRNGKeyArray) -> LinearState:
        k = 1 if self.shared else self.actions
        inverse = jnp.broadcast_to(
            jnp.eye(self.inputs, dtype=jnp.float32) / self.ridge, (k, self.inputs, self.inputs)
        )
        return LinearState(jnp.zeros((k, self.inputs), jnp.float32), inverse)

    def predict(
        self, state: LinearState, x: Float[Array, "*a d"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        each = x if self.shared else jnp.broadcast_to(x, (self.actions, self.inputs))
        outputs = jnp.sum(each * state.weights, -1)
        squares = jnp.einsum("kd,kde,ke->k", each, jnp.broadcast_to(
            state.inverse, (self.actions, self.inputs, self.inputs)), each)  # fmt: skip
        return link(outputs, self.loss), jnp.sqrt(jnp.maximum(squares, 0.0))

    def learn(
        self, state: LinearState, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], on: Bool[Array, ""] | bool = True,
    ) -> LinearState:  # fmt: skip
        arm, x = (0, x[action]) if self.shared else (action, x)
        w, inverse = state.weights[arm], state.inverse[arm]
        output = w @ x
        prediction = link(output, self.loss)
        slope = jnp.maximum(prediction * (1 - prediction), 1e-3)
        curvature = jnp.where(self.loss == 0, 1.0, slope) * on
        direction = inverse @ x
        inverse = inverse - curvature * jnp.outer(direction, direction) / (
            1 + curvature * (x @ direction)
        )
        w = w - on * (prediction - y) * (inverse @ x)
        return LinearState(state.weights.at[arm].set(w), state.inverse.at[arm].set(inverse))


class KernelState(NamedTuple):
    x: Float[Array, "n d"]
    action: Int[Array, " n"]
    y: Float[Array, " n"]
    inverse: Float[Array, "n n"]  # of K + ridge 1 over what is remembered, zero elsewhere
    count: Int[Array, ""]


class KernelRegression(eqx.Module):
    """Kernel ridge regression of the loss on (context, arm) with k = exp(-distance).

    Contexts of different arms stand in different blocks, as in the disjoint network, so that unit
    contexts of two arms are sqrt(2) apart. The first `memory` rounds are remembered; what comes
    later is not learned (as in github.com/banyikun/EE-Net-ICLR-2022, with 1000). Widths are
    posterior deviations, sqrt(1 - kᵀ (K + ridge)⁻¹ k).

    - `shared`: arms have contexts of their own [actions, d], compared directly.
    """

    actions: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    memory: int = eqx.field(static=True, default=1000)
    ridge: float = 1.0
    shared: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_setting("ridge", self.ridge, above=True)
        check_setting("memory", self.memory, 1.0)

    def init(self, key: PRNGKeyArray) -> KernelState:
        n = self.memory
        return KernelState(
            jnp.zeros((n, self.inputs), jnp.float32), jnp.zeros(n, jnp.int32),
            jnp.zeros(n, jnp.float32), jnp.zeros((n, n), jnp.float32), jnp.int32(0),
        )  # fmt: skip

    def kernel(self, state: KernelState, x: Float[Array, "*a d"]) -> Float[Array, "k n"]:
        """Kernel values of all arms with what is remembered, zero for empty places."""
        dots, norms = state.x @ x.T, jnp.sum(state.x**2, -1)
        if self.shared:
            squares = norms + jnp.sum(x**2, -1)[:, None] - 2 * dots.T
        else:
            same = state.action == jnp.arange(self.actions)[:, None]
            squares = norms + x @ x - 2 * jnp.where(same, dots, 0.0)
        values = jnp.exp(-jnp.sqrt(jnp.maximum(squares, 0.0)))
        return jnp.where(jnp.arange(self.memory) < state.count, values, 0.0)

    def predict(
        self, state: KernelState, x: Float[Array, "*a d"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        k = self.kernel(state, x)
        weights = k @ state.inverse
        # Losses are centred at 1, what an arm never tried is taken to lose.
        losses = 1 + weights @ (state.y - 1)
        return losses, jnp.sqrt(jnp.maximum(1 - jnp.sum(weights * k, -1), 0.0))

    def learn(
        self, state: KernelState, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], on: Bool[Array, ""] | bool = True,
    ) -> KernelState:  # fmt: skip
        k = self.kernel(state, x)[action]
        on = jnp.asarray(on) & (state.count < self.memory)
        solved = state.inverse @ k
        rest = 1 + self.ridge - k @ solved
        column = solved.at[state.count].add(-1.0, mode="drop")
        inverse = state.inverse + jnp.where(on, 1 / rest, 0.0) * jnp.outer(column, column)
        slot = jnp.where(on, state.count, self.memory)
        return KernelState(
            state.x.at[slot].set(x[action] if self.shared else x, mode="drop"),
            state.action.at[slot].set(action, mode="drop"),
            state.y.at[slot].set(y, mode="drop"), inverse, state.count + on,
        )  # fmt: skip
