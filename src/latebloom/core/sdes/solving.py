"""Initial value problems of stochastic differential equations, solved by steps of their own length, with gradients through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.odes.solving import (
    Controller,
    Field,
    Loop,
    Scalar,
    Solution,
    Steps,
    Tally,
    as_state,
    check_field,
    check_positive,
    failed,
    looped,
    put_step,
    rms,
    scale_of,
    times_to_save,
    unsaved,
)
from latebloom.core.sdes.brownian import Pending, Piece, drawn, nothing_pending, put, split
from latebloom.core.sdes.tableaus import SOSRI, StochasticTableau

CAUTIOUS = Controller(grow=1.125)  # OrdinaryDiffEq.jl's PI controller as StochasticDiffEq.jl has it


class _Carry(NamedTuple):
    t: Array
    h: Array
    y: Array
    before: Array
    earlier: Array
    stuck: Array
    accepted: Array
    rejected: Array
    error: Tally
    error2: Tally
    stiffness: Tally
    saved: Array | None
    pending: Pending
    steps: Steps | None


def solve_sde(
    drift: Field, diffusion: Field, start: Scalar, end: Scalar, y0: Any, *, key: PRNGKeyArray,
    rtol: Scalar = 1e-2, atol: Scalar = 1e-2, save: Any = None, land: bool = False, max_steps: int = 1024,
    first_step: Scalar | None = None, controller: Controller = CAUTIOUS, tableau: StochasticTableau = SOSRI,
    through_steps: bool = True, record: bool = False, loop: str = "checkpointed",
    failure: str = "nan", most_pending: int = 8,
) -> Solution:  # fmt: skip
    """Solves dy = drift(t, y) dt + diffusion(t, y) dW from `start` to a later `end`, in Itô's calculus. A batch is one system.

    Each element of y has a Brownian motion of its own (diagonal noise): both fields return what y is. After a step that
    is rejected its noise is not drawn anew but split, so that the path stays the same.

    - `save` [times]: states there, on the line between those of the steps, whose variance is too low between them;
      with `land` steps end at these times.
    - `most_pending`: how often in a row a step may be rejected.

    All else is as in `odes.solve`. E is of (delta h sum of drifts + the method's part of higher order in the noise), which
    limits the drift itself, not an estimate of its error: strengths of a penalty are not those of ordinary equations.
    `stiffness` is None for a method without an estimate of it (all but `SOSRI2`). `evaluations` are of the drift; of the
    diffusion there are four a step, and as many as of the drift for the first length (two, with `first_step` none).

    Source: Rößler 2010; Rackauckas and Nie 2017 (doi:10.3934/dcdsb.2017133) for error, controller and rejection (RSwM1).

    Raises what `odes.solve` raises, and `ValueError` for an end that is known not to be later.
    """
    if loop not in get_args(Loop) or failure not in ("nan", "raise"):
        raise ValueError(f'loop must be one of {", ".join(get_args(Loop))} and failure "nan" or "raise", not {loop!r} and {failure!r}')  # fmt: skip
    if max_steps < 1 or most_pending < 1:
        raise ValueError(f"max_steps and most_pending must be at least 1, not {max_steps} and {most_pending}")  # fmt: skip
    y0 = as_state(y0)
    flat, unravel = ravel_pytree(y0)
    dtype = flat.dtype
    check_positive(dtype, rtol=rtol, atol=atol, first_step=first_step)
    start, end = jnp.asarray(start, dtype), jnp.asarray(end, dtype)
    span = end - start
    if not isinstance(span, Tracer) and not bool(span > 0):
        raise ValueError(f"the end must be later than the start: {float(end):g} is not later than {float(start):g}")  # fmt: skip
    for field, name in ((drift, "drift"), (diffusion, "diffusion")):
        check_field(field, start, y0, name)
    f, g = (_flat(field, start, unravel, dtype) for field in (drift, diffusion))
    rtol, atol = jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype)
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    if first_step is None:
        h = first_length(f, g, zero, flat, span, rtol, atol, tableau.order)
    else:
        h = jnp.minimum(jnp.asarray(first_step, dtype), span)
    freely = (lambda x: x) if through_steps else jax.lax.stop_gradient
    at = None if save is None else times_to_save(save, start, jnp.ones((), dtype), span, dtype)
    saved = None if at is None else unsaved(at, flat)
    tally = Tally(zero, zero)
    steps = Steps.empty(max_steps, dtype) if record else None
    floor = jnp.asarray(controller.floor, dtype)

    def going(carry: _Carry) -> Array:
        return (carry.t < span) & ~carry.stuck

    def body(carry: _Carry) -> _Carry:
        t, y, pending = carry.t, carry.y, carry.pending
        left = span - t
        goal = left
        if land and at is not None:
            goal = jnp.minimum(left, jnp.min(jnp.where(at > t, at - t, jnp.inf)))
        goal = jnp.where(left > 0, goal, 1.0)  # where nothing is left, what follows is not used
        top = jnp.maximum(pending.count - 1, 0)
        some = pending.count > 0
        whole = Piece(*(jnp.where(some, x[top], 1.0) for x in pending[:3]))
        most = jnp.where(some & (whole.length < goal), whole.length, goal)
        h = jnp.where(carry.h >= 0.95 * most, most, carry.h)
        lands = h >= goal
        one, two = jax.random.normal(jax.random.fold_in(key, carry.accepted + carry.rejected), (2, y.size), dtype)  # fmt: skip
        inner = some & (h < whole.length)
        part, rest = split(whole, jnp.where(inner, h, 0.5 * whole.length), one, two)
        part = Piece(*(jnp.where(inner, p, jnp.where(some, w, d)) for p, w, d in zip(part, whole, drawn(h, one, two), strict=True)))  # fmt: skip
        after, error, stiff = one_step(f, g, t, y, h, part.w, part.h, rtol, atol, tableau)
        ok = error <= 1  # not of NaN
        pending = put(pending, top, Piece(*(jnp.where(inner, r, w) for r, w in zip(rest, whole, strict=True))))  # fmt: skip
        count = pending.count - (some & ~inner)
        full = ~ok & (count >= most_pending)
        pending = put(pending, jnp.minimum(count, most_pending - 1), part)._replace(count=count + ~ok)  # fmt: skip
        wanted = h * controller.factor(error, carry.before, carry.earlier, ok, tableau.order)
        wanted = jnp.where(
            ok & (h < carry.h), jnp.maximum(wanted, carry.h), wanted
        )  # if it was cut
        too_short = ~ok & (h <= 4 * jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(start), span))
        kept = freely(jnp.maximum(error, controller.floor))
        ended = jnp.where(lands & (goal >= left), span, t + h)
        saved = carry.saved
        if at is not None and saved is not None:
            inside = ok & (at > t) & ((at <= t + h * (1 + 10 * jnp.finfo(dtype).eps)) | (ended >= span))  # fmt: skip
            share = jnp.where(inside, jnp.minimum((at - t) / h, 1.0), 0.0)
            saved = jnp.where(inside[:, None], y + share[:, None] * (after - y), saved)
            ended = jnp.where(lands & (goal < left), jnp.max(jnp.where(inside, at, t)), ended) if land else ended  # fmt: skip
        return _Carry(
            t=jnp.where(ok, ended, t),
            h=freely(wanted),
            y=jnp.where(ok, after, y),
            before=jnp.where(ok, kept, carry.before),
            earlier=jnp.where(ok, carry.before, carry.earlier),
            stuck=too_short | full,
            accepted=carry.accepted + ok,
            rejected=carry.rejected + ~ok,
            error=carry.error.plus(error * h, ok),
            error2=carry.error2.plus(error * (error * h), ok),
            stiffness=carry.stiffness.plus(stiff, ok),
            saved=saved,
            pending=pending,
            steps=put_step(carry.steps, carry.accepted, ok, (start + t, h, error, stiff)),
        )

    first = _Carry(
        zero, freely(h), flat, floor, floor, jnp.array(False), none, none, tally, tally, tally, saved,
        nothing_pending(most_pending, flat.size, dtype), steps,
    )  # fmt: skip
    done = looped(going, body, first, max_steps, loop)
    reached = failed(done.t >= span, max_steps, failure)
    known = lambda x: jax.tree.map(lambda x: jnp.where(reached, x, jnp.nan), x)  # noqa: E731
    tries = done.accepted + done.rejected
    return Solution(
        unravel(known(done.y)), None if done.saved is None else jax.vmap(unravel)(done.saved), reached, done.accepted,
        done.rejected, tableau.drifts * tries + (0 if first_step is not None else 2), known(done.error),
        known(done.error2), None if tableau.alike is None else known(done.stiffness), None, done.steps, True,
    )  # fmt: skip


def one_step(
    drift: Field, diffusion: Field, t: Array, y: Array, h: Array, w: Array, area: Array, rtol: Array, atol: Array,
    tableau: StochasticTableau,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The state [n] after one step of length h, its scaled local error E, its stiffness S (0 without an estimate).

    `w` and `area`: increment and space-time area of the Brownian motion, as in `brownian.Piece`.
    """
    root = jnp.sqrt(h)
    double = (w * w - h) / (2 * root)
    mean = w / 2 + area
    triple = (w**3 - 3 * w * h) / (6 * h)
    f: list[Array] = []
    g: list[Array] = []
    seen = []

    def total(weights: tuple[float, ...], stages: list[Array]) -> Array:
        parts = [a * k for a, k in zip(weights, stages, strict=False) if a]
        return sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)

    for i in range(len(tableau.c0)):
        if i < tableau.drifts:
            seen.append(y + h * total(tableau.a0[i], f) + mean * total(tableau.b0[i], g))
            f.append(drift(t + tableau.c0[i] * h, seen[i]))
        inner = y + h * total(tableau.a1[i], f) + root * total(tableau.b1[i], g)
        g.append(diffusion(t + tableau.c1[i] * h, inner))
    by = [total(weights, g) for weights in tableau.beta]
    noise = mean * by[2] + triple * by[3]
    after = y + h * total(tableau.alpha, f) + w * by[0] + double * by[1] + noise
    local = tableau.delta * h * sum(f[1:], f[0]) + noise
    error = rms(local / scale_of(y, after, rtol, atol))
    if tableau.alike is None:
        return after, error, jnp.zeros((), y.dtype)
    p, q = tableau.alike
    bent, between = rms(f[q] - f[p]), rms(seen[q] - seen[p])
    apart = between > 0
    ratio = jnp.where(apart, bent / jnp.where(apart, between, 1.0), 0.0)
    return after, error, jnp.where(jnp.isfinite(ratio), ratio, 0.0) / tableau.stability


def first_length(
    drift: Field,
    diffusion: Field,
    t: Array,
    y: Array,
    span: Array,
    rtol: Array,
    atol: Array,
    order: float,
) -> Array:
    """The length of a first step, no more than `span`: Hairer's rule for the drift and thrice the diffusion; two evaluations of each."""
    scale = scale_of(y, y, rtol, atol)
    f, g = drift(t, y), 3 * diffusion(t, y)
    d0 = rms(y / scale)
    d1 = rms(jnp.maximum(jnp.abs(f + g), jnp.abs(f - g)) / scale)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = jnp.minimum(jnp.where(small, 1e-6, 0.01 * d0 / jnp.where(small, 1.0, d1)), span)
    moved = y + h0 * f
    bent, other = drift(t + h0, moved) - f, 3 * diffusion(t + h0, moved)
    turn = jnp.maximum(jnp.abs(g - other), jnp.abs(g + other))
    d2 = rms(jnp.maximum(jnp.abs(bent + turn), jnp.abs(bent - turn)) / scale) / h0
    most = jnp.maximum(d1, d2)
    flat = most <= 1e-15
    h1 = jnp.where(flat, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / jnp.where(flat, 1.0, most)) ** (1 / (order + 0.5)))  # fmt: skip
    h = jnp.minimum(jnp.minimum(100 * h0, h1), span)
    return jnp.where(jnp.isfinite(h), h, 1e-3 * span)


def _flat(field: Field, start: Array, unravel: Any, dtype: Any) -> Callable[[Array, Array], Array]:
    return lambda t, y: ravel_pytree(field(start + t, unravel(y)))[0].astype(dtype)
