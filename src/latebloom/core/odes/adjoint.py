"""Gradients by a second equation, solved backwards: memory does not grow with the steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from latebloom.core.odes.solving import Field, Scalar, Solution, as_state, check_field, solve

__all__ = ["solve_by_adjoint"]


def solve_by_adjoint(
    field: Field, start: Scalar, end: Scalar, y0: Any, *, save: Any = None, **options: Any
) -> Solution:
    """`solve` with the continuous adjoint: gradients of `y` and `saved` in the field's arrays, y0, start and end.

    With a(t) the gradient in y(t), da/dt = -a df/dy is solved backwards together with y, which starts anew at each
    saved state, and with the integral of a df/dp, whose error no step is chosen by. Gradients are those of the
    equation, not of the numbers that were computed: they differ from `solve`'s by about the tolerance. Evaluations of
    the way back are not counted. The tallies have no gradients, nor have the times to save.

    `options` are those of `solve`, but for `loop` and `through_steps`, which have no meaning here.

    Source: Chen et al. 2018 (arXiv 1806.07366), App. B and C; the norm: Kidger et al. 2021 (arXiv 2009.09457).

    Raises what `solve` raises.
    """
    for name in ("loop", "through_steps"):
        if name in options:
            raise ValueError(f"{name} has no meaning where gradients come from the adjoint equation")  # fmt: skip
    y0 = as_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    start, end = jnp.asarray(start, dtype), jnp.asarray(end, dtype)
    check_field(field, start, y0)
    if save is not None:
        save = jnp.asarray(save, dtype)
    closed = eqx.filter_closure_convert(field, start, y0)
    return _solved((closed, start, end, y0), save, options)


@eqx.filter_custom_vjp
def _solved(given: Any, save: Array | None, options: dict[str, Any]) -> Solution:
    field, start, end, y0 = given
    solution = solve(field, start, end, y0, save=save, loop="forward", **options)
    return replace(solution, exact=False)


@_solved.def_fwd
def _forward(perturbed: Any, given: Any, save: Any, options: Any) -> tuple[Solution, Any]:
    solution = _solved(given, save, options)
    return solution, (solution.y, solution.saved)


@_solved.def_bwd
def _backward(found: Any, slopes: Any, perturbed: Any, given: Any, save: Any, options: Any) -> Any:
    field, start, end, y0 = given
    params, rest = eqx.partition(field, eqx.is_inexact_array)
    last, saved = found
    a = _whole(slopes.y, last)
    total = jax.tree.map(jnp.zeros_like, params)

    def pull(t: Array, y: Any, a: Any) -> tuple[Any, Any, Any]:
        slope, back = jax.vjp(lambda p, y: eqx.combine(p, rest)(t, y), params, y)
        cast = jax.tree.map(lambda a, k: (-a).astype(k.dtype), a, slope)
        return slope, *reversed(back(cast))

    def both(t: Array, state: Any) -> Any:
        y, a, _ = state
        return pull(t, y, a)

    kept = {k: options[k] for k in ("rtol", "atol", "max_steps", "controller", "tableau", "failure") if k in options}  # fmt: skip
    counted = options.get("counted", lambda y: y)

    def back(late: Array, early: Array, y: Any, a: Any, total: Any) -> tuple[Any, Any, Any]:
        seen = lambda s: (counted(s[0]), counted(s[1]))  # noqa: E731
        return solve(both, late, early, (y, a, total), loop="forward", counted=seen, **kept).y

    def through(a: Any, t: Array, y: Any) -> Array:
        products = jax.tree.map(lambda a, k: jnp.sum(a * k), a, field(t, y))
        return jnp.asarray(sum(jax.tree.leaves(products)), t.dtype)

    slope_end = through(a, end, last)
    at, y = end, last
    if save is not None:
        order = jnp.argsort(jnp.where(end < start, save, -save))  # from the end to the start
        given_slopes = _whole(slopes.saved, saved)

        def one(carry: Any, row: Any) -> Any:
            late, y, a, total = carry
            time, state, slope = row
            _, a, total = back(late, time, y, a, total)
            return (time, state, jax.tree.map(jnp.add, a, slope), total), None

        rows = (save[order], *(jax.tree.map(lambda x: x[order], x) for x in (saved, given_slopes)))
        (at, y, a, total), _ = jax.lax.scan(one, (at, y, a, total), rows)
    _, a, total = back(at, start, y, a, total)
    slope_start = -through(a, start, y0)
    nothing = jax.tree.map(lambda _: None, rest)
    return eqx.combine(total, nothing), slope_start, slope_end, a


def _whole(slope: Any, like: Any) -> Any:
    """The gradient with zeros where it is None."""
    fill = lambda y, s: jnp.zeros_like(y) if s is None else s  # noqa: E731
    return jax.tree.map(fill, like, slope, is_leaf=lambda x: x is None)
