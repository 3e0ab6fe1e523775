"""The effective dimension in the regret bounds of NeuralUCB and NeuralTS.

d~ = log det(I + H / λ) / log(1 + T K / λ), with H the tangent kernel's Gram matrix of all T K contexts
(Zhou et al. 2020, arXiv:1911.04462). Deb et al. (2024, arXiv:2312.07145, section 2) note that it can
grow linearly in T, which leaves the bounds empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import HostProcess, Quantity


def tangent_gram(
    key: PRNGKeyArray, x: Float[Array, "n d"], width: int = 1024
) -> Float[Array, "n n"]:
    """Tangent kernel of a random ReLU network of one hidden layer, v·relu(W x)/sqrt(m), on contexts.

    Without the gradients themselves: Σ_i v_i² 1[w_i·x > 0] 1[w_i·x' > 0] x·x' / m + relu·relu' / m.
    """
    hidden, output = jax.random.split(key)
    w = jax.random.normal(hidden, (width, x.shape[1]))
    v = jax.random.normal(output, (width,))
    inner = x @ w.T
    slopes = v * (inner > 0)
    values = jax.nn.relu(inner)
    return (slopes @ slopes.T * (x @ x.T) + values @ values.T) / width


def log_det_growth(gram: Float[Array, "n n"], ridge: float = 1.0) -> Float[np.ndarray, " n"]:
    """log det(I + H_t / ridge) of the first t contexts, for t = 1 .. n.

    From one Cholesky factor, whose leading blocks are the factors of the leading blocks.
    """
    h = np.asarray(gram, np.float64)
    factor = np.linalg.cholesky(np.eye(len(h)) + h / ridge)
    return np.cumsum(2 * np.log(np.diag(factor)))


def effective_dimension(gram: Float[Array, "n n"], ridge: float = 1.0) -> Float[np.ndarray, " n"]:
    """d~ of the first t contexts (all arms counted), for t = 1 .. n."""
    t = np.arange(1, len(gram) + 1)
    return log_det_growth(gram, ridge) / np.log1p(t / ridge)


class LogDet(HostProcess):
    """Meets one context more a step; observed is log det(I + H) of those met.

    - `contexts(key)`: the contexts [n, d] of a seed, in the order in which they are met.
    - `width`: hidden units of the network whose tangent kernel's Gram matrix H is.
    """

    def __init__(self, contexts: Callable[[PRNGKeyArray], Float[Array, "n d"]], width: int = 1024):
        self.contexts, self.width = contexts, width

    def init(self, seed: int) -> tuple[int, np.ndarray]:
        order, net = jax.random.split(jax.random.key(seed))
        return 0, log_det_growth(tangent_gram(net, self.contexts(order), self.width))

    def step(self, state: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
        return state[0] + 1, state[1]

    def observe(self, state: tuple[int, np.ndarray]) -> dict[str, Any]:
        met, growth = state
        return {"log_det": np.float64(growth[met - 1] if met else 0.0)}

    def quantities(self) -> dict[str, Quantity]:
        return {"log_det": Quantity("1", about="log det(I + H)")}
