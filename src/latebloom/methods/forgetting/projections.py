"""Methods that turn the gradient so that old losses do not rise: GEM and A-GEM."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from latebloom.core.statistics import trainable_leaves
from latebloom.methods.forgetting.continual import Batch, Lesson, Method, norm


class AGEM(Method):
    """Averaged gradient episodic memory: if the gradient g would raise the loss on a replayed batch,
    of gradient r, its part along r is taken out: g - (g.r / r.r) r.

    Source: Chaudhry et al. 2019 (arXiv 1812.00420), Eq. 11.
    """

    replays: ClassVar[bool] = True

    def directed(self, model: Any, own: Any, lesson: Lesson, gradients: Any) -> Any:
        assert lesson.old is not None
        reference = _gradient(model, lesson, lesson.old)
        size = norm(reference)
        one = jax.tree.map(lambda r: r / jnp.where(size > 0, size, 1), reference)
        along = jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.vdot(a, b), gradients, one))
        return jax.tree.map(lambda g, r: g - jnp.minimum(along, 0) * r, gradients, one)


class GEM(Method):
    """Gradient episodic memory: the nearest gradient that raises the loss of no past task.

    Where the gradient g has a negative product with that of any past task on all it has in memory (rows
    of G), it becomes G'v + g, v solving the dual quadratic programme with v >= `margin`.

    - `share`: how many examples of each task are looked at; the memory should hold as many of each:
      `Replay(tasks * share, ..., policy=Policy("task", "first", share), at="task")`.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), Eq. 11, with 0.001 on the diagonal of GG' as in
    the authors' code.
    """

    remembers: ClassVar[bool] = True
    tasks: int = eqx.field(static=True)
    share: int = eqx.field(static=True)
    margin: Float[Array, ""] | float = 0.5

    def directed(self, model: Any, own: Any, lesson: Lesson, gradients: Any) -> Any:
        memory = lesson.memory
        assert memory is not None
        flat, back = ravel_pytree(gradients)

        def reference(task: Array, rows: Array) -> Array:
            mine = memory.filled & (memory.items.task == task)
            # Whatever belongs to the task comes first, in the order in which it came.
            places = jnp.argsort(jnp.where(mine, memory.time, jnp.iinfo(jnp.int32).max))[
                : self.share
            ]
            items = jax.tree.map(lambda x: x[places], memory.items)
            found = _gradient(model, lesson, lesson.batch_of(items, mine[places]))
            return rows.at[task].set(ravel_pytree(found)[0])

        past = jnp.arange(self.tasks) < lesson.task
        nothing = jnp.zeros((self.tasks, len(flat)), flat.dtype)
        rows = jax.lax.fori_loop(0, lesson.task, reference, nothing)
        v = project(rows @ rows.T, rows @ flat, past, self.margin)
        return back(flat + v @ rows)


def project(
    products: Float[Array, "k k"], along: Float[Array, " k"], active: Bool[Array, " k"],
    margin: Float[Array, ""] | float = 0.5, ridge: float = 1e-3,
) -> Float[Array, " k"]:  # fmt: skip
    """Multipliers v of GEM: argmin v'(P + ridge I)v / 2 + along'v, v >= margin; 0 if no `along` is negative.

    - `products` = GG', `along` = Gg; rows that are not `active` take no part.

    By coordinate descent, each minimum being exact, until nothing changes any more.
    """
    broken = (active & (along < 0)).any()
    matrix = jnp.where(active[:, None] & active, products, 0) + ridge * jnp.eye(len(along))
    diagonal, along = jnp.diagonal(matrix), jnp.where(active, along, 0)
    floor = jnp.where(active, margin, 0.0).astype(along.dtype)

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, v, _ = carry

        def one(i: Array, v: Array) -> Array:
            best = v[i] - (matrix[i] @ v + along[i]) / diagonal[i]
            return v.at[i].set(jnp.maximum(best, floor[i]))

        after = jax.lax.fori_loop(0, len(along), one, v)
        return count + 1, after, jnp.abs(after - v).max()

    def going(carry: tuple[Array, Array, Array]) -> Array:
        count, v, change = carry
        return (count < 2000) & (change > 1e-6 * (1 + jnp.abs(v).max()))

    _, v, _ = jax.lax.while_loop(
        going, sweep, (jnp.int32(0), floor, jnp.array(jnp.inf, along.dtype))
    )
    return jnp.where(broken & active, v, 0)


def _gradient(model: Any, lesson: Lesson, batch: Batch) -> Any:
    params, rest = eqx.partition(model, trainable_leaves(model))

    def loss(params: Any) -> Array:
        return lesson.loss(lesson.logits(eqx.combine(params, rest), batch.x), batch)

    return jax.grad(loss)(params)
