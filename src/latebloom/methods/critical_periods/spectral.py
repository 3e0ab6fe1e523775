"""How the singular values and vectors of a product of matrices move under gradient flow.

For balanced factors the product W = U S V^T follows an equation of its own (Arora, Cohen, Hu, Luo,
arXiv 1905.13655, theorem 3 and lemma 2; Kleinman, Achille, Soatto use it in arXiv 2308.12221).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.methods.critical_periods.factorisation import (
    LEADING,
    Factors,
    LowRankTasks,
    Task,
    leading,
    product,
)


def spectral_velocity(
    u: Float[Array, "n n"], s: Float[Array, " n"], v: Float[Array, "n n"],
    gradient: Float[Array, "n n"], depth: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """dU/dt, ds/dt, dV/dt of the product U diag(s) V^T of `depth` balanced square factors.

    `gradient` is dL/dW at the product. The singular values must be distinct and positive: the
    vectors turn at rates 1 / (s_j^(2/D) - s_i^(2/D)).
    """
    seen = u.T @ gradient @ v
    squares = s ** (2 / depth)
    gaps = squares[None, :] - squares[:, None]
    eye = jnp.eye(len(s), dtype=s.dtype)
    turning = (1 - eye) / jnp.where(eye > 0, 1, gaps)
    left = seen * s[None, :] + (seen * s[None, :]).T
    right = s[:, None] * seen + (s[:, None] * seen).T
    root = s ** (1 - 2 / depth)
    du = -u @ (turning * left) - (eye - u @ u.T) @ gradient @ (v * root)
    dv = -v @ (turning * right) - (eye - v @ v.T) @ gradient.T @ (u * root)
    return du, -depth * s ** (2 - 2 / depth) * jnp.diagonal(seen), dv


def end_to_end_velocity(
    w: Float[Array, "m n"], gradient: Float[Array, "m n"], depth: int
) -> Float[Array, "m n"]:
    """dW/dt of the product of `depth` balanced factors, for any singular values.

    -sum_j (W W^T)^((D-j)/D) G (W^T W)^((j-1)/D) for j = 1 ... D, by one singular value
    decomposition. Unlike the velocities of the vectors it is regular where singular values meet.

    Raises `ValueError` for a product that is not square.
    """
    if w.shape[0] != w.shape[1]:
        raise ValueError(f"the product must be square, not {list(w.shape)}")
    u, s, vt = jnp.linalg.svd(w)
    powers = [s ** (2 * j / depth) for j in range(depth)]
    weights = sum(powers[depth - 1 - j][:, None] * powers[j][None, :] for j in range(depth))
    return -u @ (weights * (u.T @ gradient @ vt.T)) @ vt


class Pair(NamedTuple):
    factors: Factors
    w: Float[Array, "n n"]
    first: Task
    second: Task
    step: Int[Array, ""]


class SpectralFlow(Process):
    """Gradient descent on the factors beside Euler steps of the flow of their product.

    Both start from factors scale^(1/D) I plus the same diagonal noise, which is balanced; both learn
    `tasks.first` for `switch` steps and then `tasks.second`, with steps of `rate`. Observed: the
    leading singular values of both and their largest difference over the largest singular value.
    In float64.
    """

    tasks: LowRankTasks
    switch: Array
    rate: np.float64
    scale: np.float64
    noise: np.float64
    depth: int = eqx.field(static=True)
    size: int = eqx.field(static=True)

    x64 = True
    seeds_by = "map"

    def __init__(
        self, tasks: LowRankTasks, switch: int, *, depth: int = 3, rate: float = 0.25, scale: float = 1e-3,
        noise: float = 1e-5,
    ):  # fmt: skip
        self.tasks, self.depth, self.size = tasks, depth, tasks.shape[0]
        self.switch = jnp.int32(switch)
        self.rate, self.scale, self.noise = (np.float64(x) for x in (rate, scale, noise))

    def init(self, key: PRNGKeyArray) -> Pair:
        task_key, noise_key = jax.random.split(key)
        curriculum = self.tasks(task_key)
        first, second = (
            Task(*(x.astype(jnp.float64) for x in task))
            for task in (curriculum.first, curriculum.second)
        )
        noise = self.noise * jax.random.normal(noise_key, (self.size,), jnp.float64)
        factor = jnp.diag(self.scale ** (1 / self.depth) + noise)
        factors = (factor,) * self.depth
        return Pair(factors, product(factors), first, second, jnp.int32(0))

    def step(self, state: Pair) -> Pair:
        late = state.step >= self.switch
        task = jax.tree.map(lambda a, b: jnp.where(late, b, a), state.first, state.second)
        gradients = jax.grad(task.loss)(state.factors)
        factors = jax.tree.map(lambda w, g: w - self.rate * g, state.factors, gradients)
        slope = jax.grad(lambda w: task.loss((w,)))(state.w)
        w = state.w + self.rate * end_to_end_velocity(state.w, slope, self.depth)
        return Pair(factors, w, state.first, state.second, state.step + 1)

    def observe(self, state: Pair) -> dict[str, Array]:
        descent, flow = leading(product(state.factors)), leading(state.w)
        return {
            "descent": descent,
            "flow": flow,
            "distance": jnp.abs(descent - flow).max() / descent[0],
            "error": jnp.mean((product(state.factors) - state.second.target) ** 2),
        }

    def quantities(self) -> dict[str, Quantity]:
        rank = {"rank": list(range(1, min(LEADING, self.size) + 1))}
        return {
            "descent": Quantity("1", ("rank",), rank, "singular values by gradient descent"),
            "flow": Quantity("1", ("rank",), rank, "singular values by the flow of the product"),
            "distance": Quantity("share of the largest", about="largest difference of the two"),
            "error": Quantity("1", about="reconstruction error of the true matrix"),
        }
