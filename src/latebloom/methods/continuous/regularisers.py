"""What makes learned equations cheap to solve: penalties on what the solver sees, everywhere or at one point; random ends."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latebloom.core.odes import TSIT5, Solution, Tableau, first_length, one_step
from latebloom.core.odes.solving import Caught, Field, forwards

Kind = Literal["error", "error_squared", "stiffness", "error_and_stiffness"]
Aggregate = Literal["sum", "mean", "max"]
KINDS = get_args(Kind)


def solver_penalty(
    solution: Solution, kind: str = "error", aggregate: str = "sum"
) -> Float[Array, "*each"]:
    """R_E = sum of E |h| over accepted steps, R_S = sum of S, or E^2 |h|, or E |h| + S / 10; or their mean, or the largest.

    A mean does not grow with the steps, and may reward more of them. E depends on the tolerances, and so does the right
    strength.

    Source: Pal et al. 2021 (arXiv 2105.03918), Sec. 3; the aggregates and E |h| + S / 10: the authors' code, which has no
    E^2 |h|.

    Raises `ValueError` for another kind or aggregate, for a solution by the adjoint equation, whose steps have no
    gradients, for stiffness by a method without an estimate of it, and for the largest of E |h| + S / 10, which is not kept.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if aggregate not in ("sum", "mean", "max"):
        raise ValueError(f"aggregate must be one of sum, mean, max, not {aggregate!r}")
    if not solution.exact:
        raise ValueError("steps of a solution by the adjoint equation have no gradients: use solve, or local_penalty")  # fmt: skip
    if kind == "error_and_stiffness":
        if aggregate == "max":
            raise ValueError("of error_and_stiffness there is a sum and a mean, no max")
        error, stiff = (solver_penalty(solution, k, aggregate) for k in ("error", "stiffness"))
        return error + 0.1 * stiff
    tally = {"error": solution.error, "error_squared": solution.error2, "stiffness": solution.stiffness}[kind]  # fmt: skip
    if tally is None:
        raise ValueError("the method has no estimate of stiffness: of stochastic ones SOSRI2 has")
    if aggregate == "max":
        return tally.max
    return tally.sum if aggregate == "sum" else tally.sum / jnp.maximum(solution.accepted, 1)


def point_to_catch(key: Array, start: Any, end: Any, sampler: str = "unbiased") -> Array:
    """What `solve(..., catch=...)` needs for `local_penalty`: a time, each as likely ("unbiased"), or a key to draw the start of an accepted step ("biased": more points where steps are short).

    Raises `ValueError` for another sampler.
    """
    if sampler not in ("unbiased", "biased"):
        raise ValueError(f'sampler must be "unbiased" or "biased", not {sampler!r}')
    if sampler == "biased":
        return key
    start, end = jnp.asarray(start), jnp.asarray(end)
    dtype = jnp.promote_types(jnp.result_type(start, end), jnp.float32)
    return start + jax.random.uniform(key, (), dtype) * (end - start)


def local_penalty(
    field: Field, caught: Caught, end: Any, *, kind: str = "error",
    rtol: Any = 1e-6, atol: Any = 1e-6, tableau: Tableau = TSIT5,
    length: str = "restart",
) -> Float[Array, ""]:  # fmt: skip
    """E |h| or S of one step from a point that the solver caught. Any solver may have caught it.

    Time, state, the first stage and h are constants: gradients reach what the later stages of the field depend on.
    - `length`: h of a solver that starts anew there ("restart", by Hairer's rule), or of the step that the point lies in
      ("solver"); never beyond `end`.

    It takes as many evaluations of the field as the method has stages, with "restart" one more.

    Source: Pal et al. 2023 (arXiv 2303.02262), Sec. 3.

    Raises `ValueError` for another kind or length.
    """
    if kind not in ("error", "stiffness") or length not in ("restart", "solver"):
        raise ValueError(f'kind must be "error" or "stiffness" and length "restart" or "solver", not {kind!r} and {length!r}')  # fmt: skip
    caught = jax.lax.stop_gradient(caught)
    dtype = jnp.result_type(*jax.tree.leaves(caught.state))
    time, end = caught.time, jax.lax.stop_gradient(jnp.asarray(end, dtype))
    sign = jnp.where(end < time, -1.0, 1.0).astype(dtype)
    slope = forwards(field, time, sign)
    zero, left = jnp.zeros((), dtype), sign * (end - time)
    rtol, atol = jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype)
    first = jax.lax.stop_gradient(slope(zero, caught.state))
    if length == "restart":
        h = first_length(slope, zero, caught.state, first, left, rtol, atol, tableau.order)
    else:
        h = jnp.minimum(caught.step, left)
    h = jax.lax.stop_gradient(h)
    _, _, error, stiff = one_step(slope, zero, caught.state, first, h, rtol, atol, tableau)
    return error * h if kind == "error" else stiff


def annealed(first: Any, last: Any, share: Any) -> Array:
    """A strength that falls (or rises) exponentially from `first` to `last` as `share` of the training goes from 0 to 1."""
    first, last = jnp.asarray(first), jnp.asarray(last)
    return first * (last / first) ** share


def random_end(key: Array, end: Any, width: Any) -> Array:
    """An end of time from U(end - width, end + width), for a step of training.

    Source: STEER, Behl et al. 2020 (arXiv 2006.10711).
    """
    end = jnp.asarray(end)
    dtype = jnp.promote_types(end.dtype, jnp.float32)
    return end + width * jax.random.uniform(key, (), dtype, -1.0, 1.0)


def random_times(key: Array, times: Any) -> Float[Array, " times"]:
    """Times of a series for a step of training: each moves evenly by up to half the gap before it, the first stays.

    None leaves the interval from the first to the last. They may change places.

    Source: STEER, in the authors' code for latent equations.

    Raises `ValueError` for fewer than two times.
    """
    times = jnp.asarray(times)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times must be at least two, [times], not of the shape {list(times.shape)}")  # fmt: skip
    moved = times[1:] + jnp.diff(times) * jax.random.uniform(key, (len(times) - 1,), times.dtype, -0.5, 0.5)  # fmt: skip
    return jnp.concatenate([times[:1], jnp.clip(moved, times[0], times[-1])])
