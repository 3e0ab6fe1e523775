"""Initial value problems of ordinary differential equations, solved by steps of their own length, with gradients through it.

The loop tells what its controller saw: local errors, stiffness, evaluations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from latebloom.core.odes.tableaus import TSIT5, Tableau

Field = Callable[[Any, Any], Any]
Loop = Literal["checkpointed", "scan", "forward"]
Scalar = ArrayLike


@dataclass(frozen=True)
class Controller:
    """How long the next step is: h (safety E^-b1 before^b2 earlier^-b3), no less than `shrink` and no more than `grow` times h.

    E is the scaled local error of this step, `before` and `earlier` those of the two accepted steps before, not below
    `floor`, where they start. With the order k of the method, k b1 = proportional + integral + derivative,
    k b2 = proportional + 2 derivative, k b3 = derivative. After a step with E > 1 the next is as E alone says.

    The defaults are the PI controller of OrdinaryDiffEq.jl. `Controller(0, 1)` is the elementary one.
    """

    proportional: float = 0.4
    integral: float = 0.3
    derivative: float = 0.0
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1 < self.grow:
            raise ValueError(f"shrink must be between 0 and 1 and grow above 1, not {self.shrink} and {self.grow}")  # fmt: skip
        if not 0 < self.safety < 1 or not 0 < self.floor <= 1:
            raise ValueError(f"safety must be between 0 and 1 and floor above 0 up to 1, not {self.safety} and {self.floor}")  # fmt: skip
        if self.proportional + self.integral + self.derivative <= 0:
            raise ValueError("proportional + integral + derivative must be above 0, or large errors would make long steps")  # fmt: skip

    def factor(
        self, error: Array, before: Array, earlier: Array, accepted: Array, order: int | float
    ) -> Array:
        """By what the step is multiplied; finite and with finite gradients whatever the errors."""
        p, i, d = self.proportional, self.integral, self.derivative
        known = jnp.isfinite(error)
        size = jnp.where(known, error, 1.0)
        alone = self.safety * jnp.where(size > 1e-10, size, 1e-10) ** (-(p + i + d) / order)
        longer = alone * before ** ((p + 2 * d) / order) * earlier ** (-d / order)
        wanted = jnp.clip(jnp.where(accepted, longer, alone), self.shrink, self.grow)
        return jnp.where(known, wanted, self.shrink)


class Tally(eqx.Module):
    """The sum of something over accepted steps, and the largest."""

    sum: Float[Array, "*each"]
    max: Float[Array, "*each"]

    def plus(self, value: Array, there: Array) -> Tally:
        value = jnp.where(there, value, 0.0)
        return Tally(self.sum + value, jnp.maximum(self.max, value))


class Caught(eqx.Module):
    """A point of the solution without gradients: its time, its state, the length of the step it lies in (at its start, if drawn by a key)."""

    time: Float[Array, "*each"]
    state: Any
    step: Float[Array, "*each"]


class Steps(eqx.Module):
    """Of each accepted step, without gradients; NaN after the last: where it starts, its length, error, stiffness."""

    start: Float[Array, "*each steps"]
    length: Float[Array, "*each steps"]
    error: Float[Array, "*each steps"]
    stiffness: Float[Array, "*each steps"]

    @classmethod
    def empty(cls, most: int, dtype: Any) -> Steps:
        nothing = jnp.full(most, jnp.nan, dtype)
        return cls(nothing, nothing, nothing, nothing)


class Solution(eqx.Module):
    """What `solve` found. Where the end was not `reached`, `y`, the tallies and states later than that are NaN.

    - `y`: the state at the end. `saved`: at the times asked for, a leading axis [times] more than the state.
    - `error`, `error2`, `stiffness`: of E |h|, E^2 |h| and S, over accepted steps. E is the scaled local error,
      rms(error / (atol + rtol max(|y|, |y after|))); S is |k_a - k_b| / |u_a - u_b| / (extent of the region of
      stability), of two stages at the same time; None for a method that has no estimate of it.
    - `accepted`, `rejected` steps; `evaluations` of the field: those of rejected steps and the first step's length
      count.
    """

    y: Any
    saved: Any
    reached: Bool[Array, "*each"]
    accepted: Int[Array, "*each"]
    rejected: Int[Array, "*each"]
    evaluations: Int[Array, "*each"]
    error: Tally
    error2: Tally
    stiffness: Tally | None
    caught: Caught | None
    steps: Steps | None
    exact: bool = eqx.field(static=True)  # whether the tallies have gradients


class _Carry(NamedTuple):
    t: Array  # from 0 to the length of the interval, whatever its direction
    h: Array
    y: Any
    slope: Any
    before: Array
    earlier: Array
    stuck: Array
    accepted: Array
    rejected: Array
    error: Tally
    error2: Tally
    stiffness: Tally
    saved: Any
    caught: Caught | None
    steps: Steps | None


def solve(
    field: Field, start: Scalar, end: Scalar, y0: Any, *, rtol: Scalar = 1e-6, atol: Scalar = 1e-6,
    save: Any = None, max_steps: int = 4096, first_step: Scalar | None = None,
    controller: Controller = Controller(), tableau: Tableau = TSIT5, through_steps: bool = True,
    counted: Callable[[Any], Any] = lambda y: y, catch: ArrayLike | None = None, record: bool = False,
    loop: str = "checkpointed", failure: str = "nan",
) -> Solution:  # fmt: skip
    """Solves dy/dt = field(t, y) from `start` to `end`, which may lie before it. A batch is one system, with steps in common.

    - `y0`: any pytree of floating-point arrays; half precision is widened to single. Arrays may be closed over by
      `field`, or be leaves of it: gradients reach them, y0, start, end and `save`.
    - `save` [times], in any order: states there, by the interpolant of the method; no step is shortened for them.
      Each costs a weighted sum of the stages at every step.
    - `rtol`, `atol`: a step is accepted if the root mean square of error / (atol + rtol |y|) is at most 1, over the
      elements of `counted(y)`: all, if not given.
    - `first_step`: its length; by Hairer's rule, if not given (one evaluation more).
    - `through_steps`: gradients go through the lengths of the steps too, so that they are those of the number that is
      computed; or the lengths are constants.
    - `max_steps`: accepted and rejected together. `failure`: when they do not suffice, or steps become too short for
      the precision, results are NaN, or "raise" an error when the program runs.
    - `catch`: a time, or a key to draw the start of an accepted step, each as likely: see `Caught`.
    - `record`: keeps what `Steps` says.
    - `loop`: "checkpointed" has reverse-mode gradients in little memory; "scan" all of them, with memory and, side by
      side under `vmap`, time for `max_steps`; "forward" no reverse mode.

    Source: Hairer, Norsett, Wanner 1993, II.4; Pal et al. 2021 (arXiv 2105.03918) for what is tallied.

    Raises `ValueError` for tolerances, a first step or `max_steps` that are not positive, times to save outside the
    interval (if they are known when the program is traced; else states there are NaN), a field that does not return
    what y0 is; `TypeError` for a state of other than real floating-point arrays.
    """
    if loop not in get_args(Loop) or failure not in ("nan", "raise"):
        raise ValueError(f'loop must be one of {", ".join(get_args(Loop))} and failure "nan" or "raise", not {loop!r} and {failure!r}')  # fmt: skip
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, not {max_steps}")
    y0 = as_state(y0)
    dtype = jnp.result_type(*jax.tree.leaves(y0))
    check_positive(dtype, rtol=rtol, atol=atol, first_step=first_step)
    start, end = jnp.asarray(start, dtype), jnp.asarray(end, dtype)
    sign = jnp.where(end < start, -1.0, 1.0).astype(dtype)
    span = sign * (end - start)
    check_field(field, start, y0)

    slope = forwards(field, start, sign)
    rtol, atol = jnp.asarray(rtol, dtype), jnp.asarray(atol, dtype)
    zero, none = jnp.zeros((), dtype), jnp.int32(0)
    k0 = slope(zero, y0)
    if first_step is None:
        h = first_length(slope, zero, y0, k0, span, rtol, atol, tableau.order, counted)
    else:
        h = jnp.minimum(jnp.asarray(first_step, dtype), span)
    freely = (lambda x: x) if through_steps else jax.lax.stop_gradient
    tallied = Tally(zero, zero)
    at = None if save is None else times_to_save(save, start, sign, span, dtype)
    saved = None if at is None else jax.tree.map(lambda y: unsaved(at, y), y0)
    drawn = catch is not None and _is_key(catch)
    caught = None if catch is None else Caught(zero, _still(y0), _still(jnp.minimum(h, span)))
    if catch is not None and not drawn:
        sought = _still(sign * (jnp.asarray(catch, dtype) - start))
        caught = eqx.tree_at(lambda c: c.time, caught, sought)
    steps = Steps.empty(max_steps, dtype) if record else None

    def going(carry: _Carry) -> Array:
        return (carry.t < span) & ~carry.stuck

    def body(carry: _Carry) -> _Carry:
        t, y = carry.t, carry.y
        left = span - t
        last = carry.h * (1 + 100 * jnp.finfo(dtype).eps) >= left
        h = jnp.where(last, left, carry.h)
        stages, after, error, stiff = one_step(
            slope, t, y, carry.slope, h, rtol, atol, tableau, counted
        )
        ok = error <= 1  # not of NaN
        next_h = freely(h * controller.factor(error, carry.before, carry.earlier, ok, tableau.order))  # fmt: skip
        too_short = ~ok & (h <= 4 * jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(start), span))
        pick = lambda new, old: jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)  # noqa: E731
        kept = freely(jnp.maximum(error, controller.floor))
        saved = carry.saved
        if at is not None:
            saved = jax.tree.map(
                lambda s, y, *k, at=at: _interpolated(s, y, k, at, t, h, ok, last, tableau),
                saved, y, *stages,
            )  # fmt: skip
        return _Carry(
            t=jnp.where(ok, jnp.where(last, span, t + h), t),
            h=next_h,
            y=pick(after, y),
            slope=pick(stages[-1], carry.slope),
            before=jnp.where(ok, kept, carry.before),
            earlier=jnp.where(ok, carry.before, carry.earlier),
            stuck=too_short,
            accepted=carry.accepted + ok,
            rejected=carry.rejected + ~ok,
            error=carry.error.plus(error * h, ok),
            error2=carry.error2.plus(error * (error * h), ok),
            stiffness=carry.stiffness.plus(stiff, ok),
            saved=saved,
            caught=_catch(carry, catch, drawn, stages, y, t, h, ok, last, tableau),
            steps=put_step(carry.steps, carry.accepted, ok, (start + sign * t, h, error, stiff)),
        )

    floor = jnp.asarray(controller.floor, dtype)
    first = _Carry(
        zero, freely(h), y0, k0, floor, floor, jnp.array(False), none, none, tallied, tallied, tallied, saved,
        caught, steps,
    )  # fmt: skip
    done = looped(going, body, first, max_steps, loop)
    reached = failed(done.t >= span, max_steps, failure)
    known = lambda x: jax.tree.map(lambda x: jnp.where(reached, x, jnp.nan), x)  # noqa: E731
    caught = done.caught
    if caught is not None:
        caught = known(eqx.tree_at(lambda c: c.time, caught, start + sign * caught.time))
    tries = done.accepted + done.rejected
    return Solution(
        known(done.y), done.saved, reached, done.accepted, done.rejected,
        (len(tableau.c) - 1) * tries + (1 if first_step is not None else 2),
        known(done.error), known(done.error2), known(done.stiffness), caught, done.steps, True,
    )  # fmt: skip


def solve_each(field: Field, start: Scalar, end: Scalar, y0: Any, **options: Any) -> Solution:
    """`solve` of each example by itself, with steps of its own: the leading axis of y0's leaves are the examples.

    - `field` sees a batch of one example, [1, ...]. `start`, `end` are numbers or [batch], `save` is [times] of all.

    Everything in the solution has the leading axis [batch], `saved` too: [batch, times, ...]. Programs run until the
    last example is done.

    Raises what `solve` raises, and `ValueError` for leaves of different lengths, or one key to catch by for all.
    """
    lengths = {jnp.shape(y)[:1] for y in jax.tree.leaves(y0)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"the leaves of y0 must have one leading axis, of examples, not the lengths {sorted(lengths)}")  # fmt: skip
    catch = options.pop("catch", None)
    if catch is not None and jnp.shape(catch)[:1] not in lengths and (_is_key(catch) or jnp.shape(catch)):  # fmt: skip
        raise ValueError("each example needs a key of its own to catch by: split it")

    def single(t: Any, y: Any) -> Any:
        slopes = field(t, jax.tree.map(lambda y: y[None], y))
        return jax.tree.map(lambda k: k[0], slopes)

    def one(start: Any, end: Any, y: Any, catch: Any) -> Solution:
        return solve(single, start, end, y, catch=catch, **options)

    axes = [0 if jnp.ndim(t) else None for t in (start, end)]
    axis = None if catch is None or not jnp.shape(catch) else 0
    return jax.vmap(one, in_axes=(*axes, 0, axis))(start, end, y0, catch)


def forwards(field: Field, start: Array, sign: Array) -> Field:
    """The field along the way from `start`, whose time grows in either direction (`sign` 1 or -1), in the state's precision."""

    def slope(t: Array, y: Any) -> Any:
        found = field(start + sign * t, y)
        return jax.tree.map(lambda k, y: sign.astype(y.dtype) * k.astype(y.dtype), found, y)

    return slope


def one_step(
    slope: Field, t: Array, y: Any, first: Any, h: Array, rtol: Array, atol: Array, tableau: Tableau,
    counted: Callable[[Any], Any] = lambda y: y,
) -> tuple[list[Any], Any, Array, Array]:  # fmt: skip
    """The stages of one step of length h, the state after it, its scaled local error E, its stiffness S.

    `first` is the first stage, slope(t, y).
    """

    def moved(weights: tuple[float, ...]) -> Any:
        parts = [(w, k) for w, k in zip(weights, stages, strict=False) if w]
        return jax.tree.map(lambda *k: h.astype(k[0].dtype) * sum(w * one for (w, _), one in zip(parts, k, strict=True)), *(k for _, k in parts))  # fmt: skip

    stages = [first]
    after = y
    for c, a in zip(tableau.c[1:], tableau.a[1:], strict=True):
        after = jax.tree.map(jnp.add, y, moved(a))
        stages.append(slope(t + c * h, after))
    scales = jax.tree.map(lambda y, z: scale_of(y, z, rtol, atol), y, after)
    error = rms(counted(jax.tree.map(jnp.divide, moved(tableau.error), scales)))
    p, q = tableau.alike
    rows = [(*tableau.a[i], *(0.0,) * (len(tableau.c) - len(tableau.a[i]))) for i in (q, p)]
    between = rms(counted(moved(tuple(a - b for a, b in zip(*rows, strict=True)))))
    bent = rms(counted(jax.tree.map(jnp.subtract, stages[q], stages[p])))
    apart = between > 0
    ratio = jnp.where(apart, bent / jnp.where(apart, between, 1.0), 0.0)
    stiff = jnp.where(jnp.isfinite(ratio), ratio, 0.0) / tableau.stability
    return stages, after, error, stiff


def first_length(
    slope: Field, t: Array, y: Any, first: Any, span: Array, rtol: Array, atol: Array, order: int | float,
    counted: Callable[[Any], Any] = lambda y: y,
) -> Array:  # fmt: skip
    """The length of a first step by Hairer's rule, no more than `span` (Hairer, Norsett, Wanner 1993, II.4); one evaluation."""
    scales = jax.tree.map(lambda y: scale_of(y, y, rtol, atol), y)
    size = lambda x: rms(counted(jax.tree.map(jnp.divide, x, scales)))  # noqa: E731
    d0, d1 = size(y), size(first)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = jnp.where(small, 1e-6, 0.01 * d0 / jnp.where(small, 1.0, d1))
    h0 = jnp.minimum(h0, span)
    moved = jax.tree.map(lambda y, k: y + h0.astype(y.dtype) * k, y, first)
    change = jax.tree.map(jnp.subtract, slope(t + h0, moved), first)
    d2 = size(change) / jnp.where(h0 > 0, h0, 1.0)
    most = jnp.maximum(d1, d2)
    flat = most <= 1e-15
    h1 = jnp.where(flat, jnp.maximum(1e-6, 1e-3 * h0), (0.01 / jnp.where(flat, 1.0, most)) ** (1 / order))  # fmt: skip
    h = jnp.minimum(jnp.minimum(100 * h0, h1), span)
    return jnp.where(jnp.isfinite(h), h, 1e-3 * span)


def as_state(y: Any) -> Any:
    """y as arrays of single precision at least. Raises `TypeError` for leaves of another kind."""
    leaves = jax.tree_util.tree_leaves_with_path(y)
    if not leaves:
        raise TypeError("the state has no arrays")
    for path, leaf in leaves:
        if not (eqx.is_array_like(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"the state y0{jax.tree_util.keystr(path)} must be an array of real floating-point numbers, not {kind}")  # fmt: skip
    return jax.tree.map(lambda y: jnp.asarray(y, jnp.promote_types(jnp.result_type(y), jnp.float32)), y)  # fmt: skip


def check_field(field: Field, t: Array, y: Any, name: str = "field") -> None:
    """Raises `ValueError` where the field does not return what the state is."""
    found = eqx.filter_eval_shape(field, t, y)
    kinds = [jax.tree.map(lambda x: (tuple(x.shape), jnp.issubdtype(x.dtype, jnp.floating)), tree) for tree in (found, y)]  # fmt: skip
    if kinds[0] != kinds[1]:
        shown = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (found, y)]
        raise ValueError(f"{name}(t, y) must return what y is, {shown[1]}, not {shown[0]}")


def check_positive(dtype: Any, **numbers: Any) -> None:
    """Raises `ValueError` for a known number that is not above 0; warns of a relative tolerance below the precision."""
    for name, value in numbers.items():
        if value is None or isinstance(value, Tracer):
            continue
        if not np.all(np.asarray(value) > 0):
            raise ValueError(f"{name} must be above 0, not {value}")
        if name == "rtol" and np.any(np.asarray(value) < float(jnp.finfo(dtype).eps)):
            warnings.warn(f"rtol {value} is below the precision of {jnp.dtype(dtype)}: local errors will be those of rounding; use 64 bits, or a larger one", stacklevel=3)  # fmt: skip


def put_step(steps: Steps | None, place: Array, ok: Array, told: tuple[Array, ...]) -> Steps | None:
    """`steps` with what a step tells of its start, length, error and stiffness, if it is accepted."""
    if steps is None:
        return None
    rows = steps.start, steps.length, steps.error, steps.stiffness
    put = lambda row, new: row.at[place].set(_still(jnp.where(ok, new, jnp.nan)))  # noqa: E731
    return Steps(*(put(row, new) for row, new in zip(rows, told, strict=True)))


def failed(reached: Array, most: int, failure: str) -> Array:
    """`reached`, which may raise an error when the program runs."""
    if failure == "nan":
        return reached
    return eqx.error_if(
        reached, ~reached,
        f"the solver did not reach the end: {most} steps (max_steps) were too few, or they became too short "
        "for the precision, as where the solution or the field is not finite",
    )  # fmt: skip


def looped(going: Any, body: Any, first: Any, most: int, loop: str) -> Any:
    """`body` as long as it is `going`, no more than `most` times."""
    if loop == "scan":
        step = lambda carry, _: (jax.lax.cond(going(carry), body, lambda c: c, carry), None)  # noqa: E731
        return jax.lax.scan(step, first, None, length=most)[0]
    kind = "lax" if loop == "forward" else "checkpointed"
    return eqxi.while_loop(going, body, first, max_steps=most, kind=kind)


def scale_of(y: Array, after: Array, rtol: Array, atol: Array) -> Array:
    return atol + rtol * jnp.maximum(jnp.abs(y), jnp.abs(after))


def rms(tree: Any) -> Array:
    """The root of the mean square of all elements; its gradient at 0 is 0."""
    leaves = jax.tree.leaves(tree)
    mean = sum(jnp.sum(x * x) for x in leaves) / max(1, sum(x.size for x in leaves))
    there = mean != 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, mean, 1.0)), 0.0)


def times_to_save(save: Any, start: Array, sign: Array, span: Array, dtype: Any) -> Array:
    at = sign * (jnp.asarray(save, dtype) - start)
    if at.ndim != 1:
        raise ValueError(f"save must be the times [times], not of the shape {list(at.shape)}")
    outside = (at < 0) | (at > span)
    if not isinstance(outside, Tracer) and bool(outside.any()):
        raise ValueError(f"times to save must lie between start and end; {int(outside.sum())} of {len(at)} do not")  # fmt: skip
    return at


def unsaved(at: Array, y: Array) -> Array:
    there = (at == 0).reshape(-1, *[1] * y.ndim)
    return jnp.where(there, y, jnp.full_like(y, jnp.nan))


def _weights(share: Array, tableau: Tableau) -> Array:
    """[..., stages]: by which h x stage enters the state at a share of the step."""
    powers = jnp.stack([share ** (i + 1) for i in range(len(tableau.dense[0]))], axis=-1)
    return powers @ jnp.asarray(tableau.dense, share.dtype).T


def _interpolated(
    saved: Array, y: Array, stages: tuple[Array, ...], at: Array, t: Array, h: Array, ok: Array, last: Array,
    tableau: Tableau,
) -> Array:  # fmt: skip
    inside = ok & (at > t) & ((at <= t + h) | last)
    share = jnp.where(inside, (at - t) / h, 1.0)
    weights = (h * _weights(share, tableau)).astype(y.dtype)
    inner = y + jnp.tensordot(weights, jnp.stack(stages), axes=1)
    return jnp.where(inside.reshape(-1, *[1] * y.ndim), inner, saved)


def _catch(
    carry: _Carry, catch: Any, drawn: bool, stages: Any, y: Any, t: Array, h: Array, ok: Array, last: Array,
    tableau: Tableau,
) -> Caught | None:  # fmt: skip
    if catch is None:
        return None
    now = carry.caught
    if drawn:  # of n starts so far, the newest is taken with probability 1/n
        n = carry.accepted + 1
        take = ok & (jax.random.uniform(jax.random.fold_in(catch, n)) * n < 1)
        new = Caught(t, y, h)
    else:
        time = now.time  # pyright: ignore
        take = ok & (time >= t) & ((time < t + h) | last) & (time <= t + h)
        one = lambda y, *k: _interpolated(y[None], y, k, time[None], t, h, take, last, tableau)[0]  # noqa: E731
        new = Caught(time, jax.tree.map(one, y, *stages), h)
    return _still(jax.tree.map(lambda a, b: jnp.where(take, a, b), new, now))


def _still(tree: Any) -> Any:
    return jax.lax.stop_gradient(tree)


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
