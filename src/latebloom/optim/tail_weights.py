"""From the regret of any optimiser to a bound on its last iterate: updates times tail weights."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int


class LastIterateState(NamedTuple):
    step: Int[Array, ""]
    iterate: Any  # z_t, where the base optimiser stands
    base: Any


def tail_fractions(weights: Float[Array | np.ndarray, " steps"]) -> Float[Array, " steps"]:
    """The weight that is left after each step, as a share of all: w_{t+1:T} / w_{1:T}.

    Uniform weights give 1 - t / T: linear decay. The last entry is 0.

    Source: Defazio et al. 2023 (arXiv 2310.07831), Theorem 1.
    """
    sums = jnp.cumsum(jnp.asarray(weights)[::-1])[::-1]
    return jnp.append(sums[1:], 0.0) / sums[0]


def last_iterate(
    base: optax.GradientTransformation, weights: Float[Array | np.ndarray, " steps"]
) -> optax.GradientTransformation:
    """Wrap any base optimiser so that its regret bounds the loss of the last iterate.

    The base is handed w_t g_t, with g_t taken at x_t, and makes its own iterates z_t; the
    parameters move by x_{t+1} = x_t + (w_{t+1:T} / w_{1:T}) (z_{t+1} - z_t). For convex f then

    E f(x_T) - f(u) <= (1 / w_{1:T}) sum_t w_t <g_t, z_t - u>.

    With plain gradient descent (`optax.sgd(eta)`) and uniform weights this is linear decay from
    eta. The base sees its own z_t as parameters (for projections and weight decay), which costs a
    copy of them. After the last of the T steps nothing moves any more.

    Raises `ValueError` for weights that are not one positive number a step (where they are known
    when it is called), and where `update` is called without `params`.

    Source: Defazio et al. 2023 (arXiv 2310.07831), Theorem 1.
    """
    known = _check(weights)
    # Known weights are summed here and now, not anew in every step of a compiled loop.
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        weights, fractions = jnp.asarray(weights), tail_fractions(weights)

    def init(params: Any) -> LastIterateState:
        return LastIterateState(jnp.zeros((), jnp.int32), params, base.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "last_iterate needs the parameters: call update(updates, state, params)"
            )
        weighted = jax.tree.map(lambda g: weights[state.step].astype(g.dtype) * g, updates)
        delta, inner = base.update(weighted, state.base, state.iterate)
        iterate = eqx.apply_updates(state.iterate, delta)
        moved = jax.tree.map(lambda d: fractions[state.step].astype(d.dtype) * d, delta)
        return moved, LastIterateState(state.step + 1, iterate, inner)

    return optax.GradientTransformation(init, update)


def _check(weights: Array | np.ndarray) -> bool:
    """Whether the values are known, not traced; raises where they cannot be weights."""
    if weights.ndim != 1 or len(weights) < 2:
        raise ValueError(
            f"weights must be one number a step, at least 2 of them, not {weights.shape}"
        )
    try:
        known = np.asarray(weights)
    except jax.errors.TracerArrayConversionError:
        return False
    if not np.isfinite(known).all() or (known <= 0).any():
        raise ValueError("weights must be finite and above 0")
    return True
