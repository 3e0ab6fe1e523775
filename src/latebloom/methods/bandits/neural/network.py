"""Networks that predict one number for every arm of a bandit, and their gradients arm by arm.

f(θ; x) = m_L^{-1/2} vᵀ φ(m_{L-1}^{-1/2} W_L ... φ(W_1 x)) for contexts of length one, with every weight
drawn from N(0, scale²): the tangent parametrisation (Deb et al. 2024, arXiv:2312.07145, section 2,
with v / sqrt(m) the unit vector), in which gradients stay of order one whatever the width. The last
hidden layer has one unit more that is always 1, an output bias: without it, positive units under
positive weights leave no output below zero, and no sigmoid of it below a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Weights = tuple[Array, ...]


class ArmNetwork(eqx.Module):
    """How arms share one network; the weights themselves are passed around.

    - `arms="disjoint"`: the context [inputs] stands in block a of a vector of all arms, so each arm
      has a first layer of its own and the rest is shared: the protocol of neural bandits.
    - `arms="heads"`: one trunk, one output vector an arm.
    - `arms="contexts"`: every arm has a context of its own [actions, inputs], one network for all.
    - `hidden`: widths of the hidden layers; `scale`: standard deviation of the initial weights.

    Raises `ValueError` for sizes below one.
    """

    actions: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True, default=(100,))
    arms: Literal["disjoint", "heads", "contexts"] = eqx.field(static=True, default="disjoint")
    scale: float = 1.0
    activation: Callable[[Array], Array] = eqx.field(static=True, default=jax.nn.relu)

    def __check_init__(self) -> None:
        if not self.hidden or min(self.actions, self.inputs, *self.hidden) < 1:
            raise ValueError(
                f"a network needs at least one action, input and hidden unit, not "
                f"{self.actions}, {self.inputs}, {self.hidden}"
            )

    @property
    def own(self) -> int | None:
        """Which layer each arm has for itself."""
        return {"disjoint": 0, "heads": len(self.hidden), "contexts": None}[self.arms]

    def init(self, key: PRNGKeyArray) -> Weights:
        """The weights: first layer [m, inputs], further ones [m, m'], output [m + 1] with the bias
        last; with a leading axis of arms on the layer that arms have for themselves."""
        layers = zip(self.hidden, (self.inputs, *self.hidden), strict=False)
        shapes: list[tuple[int, ...]] = [*layers, (self.hidden[-1] + 1,)]
        if self.own is not None:
            shapes[self.own] = (self.actions, *shapes[self.own])
        sizes = [int(np.prod(shape)) for shape in shapes]
        flat = self.scale * jax.random.normal(key, (sum(sizes),), jnp.float32)
        parts = jnp.split(flat, np.cumsum(sizes)[:-1])
        return tuple(w.reshape(shape) for w, shape in zip(parts, shapes, strict=True))

    def arm(self, weights: Weights, action: Int[Array, ""], axis: int = 0) -> Weights:
        """The weights that serve one arm; `axis` is where the axis of arms stands."""
        return tuple(
            jax.lax.dynamic_index_in_dim(w, action, axis, keepdims=False) if i == self.own else w
            for i, w in enumerate(weights)
        )

    def with_arm(self, weights: Weights, action: Int[Array, ""], served: Weights) -> Weights:
        """All weights, with those that serve one arm replaced."""
        return tuple(
            jax.lax.dynamic_update_index_in_dim(w, new, action, 0) if i == self.own else new
            for i, (w, new) in enumerate(zip(weights, served, strict=True))
        )

    def context(self, x: Float[Array, "*a d"], action: Int[Array, ""]) -> Float[Array, " d"]:
        """What the network of one arm sees."""
        return x[action] if self.arms == "contexts" else x

    def one(self, served: Weights, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The output of one arm's network for one context."""
        a = self.activation(served[0] @ x)
        for w in served[1:-1]:
            a = self.activation(w @ a / jnp.sqrt(jnp.float32(a.shape[0])))
        output, bias = served[-1][:-1], served[-1][-1]
        return (output @ a + bias) / jnp.sqrt(jnp.float32(a.shape[0]))

    def over_arms(self, function: Callable[..., Array], *weights: Weights) -> Callable[..., Array]:
        """Map `function(served, ..., x)` over all arms."""
        own = tuple(0 if i == self.own else None for i in range(len(weights[0])))
        x_axis = 0 if self.arms == "contexts" else None
        mapped = jax.vmap(
            function, in_axes=(*(own for _ in weights), x_axis), axis_size=self.actions
        )
        return lambda x: mapped(*weights, x)

    def all(self, weights: Weights, x: Float[Array, "*a d"]) -> Float[Array, " k"]:
        """The outputs of all arms in one context."""
        return self.over_arms(self.one, weights)(x)

    def widths(
        self, weights: Weights, precision: Weights, x: Float[Array, "*a d"], ridge: Array | float
    ) -> Float[Array, " k"]:
        """sqrt(ridge Σ g² / U) for each arm, with g its gradient and U the diagonal `precision`."""

        def width(served: Weights, precision: Weights, x: Array) -> Array:
            gradient = jax.grad(self.one)(served, x)
            terms = [jnp.sum(g**2 / u) for g, u in zip(gradient, precision, strict=True)]
            return jnp.sqrt(ridge * sum(terms))

        return self.over_arms(width, weights, precision)(x)
