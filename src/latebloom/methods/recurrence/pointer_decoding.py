"""Writing answers with a pointer network, or any `Writer`: greedily, or by the beam, as one compiled program."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from latebloom.methods.recurrence.pointer import Writer


class Written(NamedTuple):
    """`tokens` of the beam, the likeliest first, 0 from their end on; and the logarithm of their probability."""

    tokens: Int[Array, "batch width steps"]
    log_p: Float[Array, "batch width"]


@eqx.filter_jit
def write(
    model: Writer, points: Shaped[Array, "batch n features"], counts: Int[Array, " batch"], *, steps: int,
    width: int = 1, tours: bool = False,
) -> Written:  # fmt: skip
    """The `width` likeliest sequences that a search by the beam finds; with a width of 1 it is greedy.

    - `steps`: after so many a sequence is cut off. It then has no 0, or is as long as that.
    - `tours`: only sequences with each of a set's points once are looked at, and then they are over, without an end.
      Probabilities are those of the model, not made to sum to 1 over tours.

    A beam that is wider than there are sequences is filled with such of log p -inf, which mean nothing.

    Raises `ValueError` for no steps, a width below 1, and tours cut off before their end.
    """
    batch, n = points.shape[:2]
    if steps < 1 or width < 1:
        raise ValueError(f"steps and width must be at least 1, not {steps} and {width}")
    if tours and steps < n:
        raise ValueError(f"a tour of {n} points takes {n} steps, not {steps}")
    context, state = model.encode(points, counts)
    context, state = jax.tree.map(lambda a: jnp.repeat(a, width, axis=0), (context, state))
    slot, each = jnp.arange(n + 1), jnp.arange(batch)[:, None]
    open_ = (slot > 0) & (slot <= counts[:, None, None])

    def one(carry: tuple, time: Array) -> tuple[tuple, None]:
        state, total, last, over, seen, tokens = carry
        state, scores = model.step(context, state, last.reshape(-1))
        log_p = jax.nn.log_softmax(scores.astype(total.dtype)).reshape(batch, width, n + 1)
        if tours:
            log_p = jnp.where(open_ & ~seen, log_p, -jnp.inf)
            over = over | (time >= counts)[:, None]
        log_p = jnp.where(over[..., None], jnp.where(slot == 0, 0, -jnp.inf), log_p)
        total, at = jax.lax.top_k((total[..., None] + log_p).reshape(batch, -1), width)
        of, token = at // (n + 1), at % (n + 1)
        keep = lambda a: a.reshape(batch, width, *a.shape[1:])[each, of].reshape(a.shape)  # noqa: E731
        tokens = tokens[each, of].at[:, :, time].set(token)
        seen = seen[each, of] | (slot == token[..., None])
        return (jax.tree.map(keep, state), total, token, over[each, of] | (token == 0), seen, tokens), None  # fmt: skip

    kind = jnp.promote_types(jax.tree.leaves(state)[0].dtype, jnp.float32)
    total = jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0, -jnp.inf).astype(kind), (batch, width))  # fmt: skip
    last = jnp.full((batch, width), -1)
    over, seen = jnp.zeros((batch, width), bool), jnp.zeros((batch, width, n + 1), bool)
    start = (state, total, last, over, seen, jnp.zeros((batch, width, steps), last.dtype))
    (_, total, *_, tokens), _ = jax.lax.scan(one, start, jnp.arange(steps))
    return Written(tokens, total)
