"""Methods that turn the gradient so that old losses do not rise: GEM and A-GEM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from latebloom.core.stream import Stream
from latebloom.core.training import gradients
from latebloom.methods.forgetting.continual import repeated
from latebloom.methods.forgetting.method import Batch, Lesson, Method, check


class AGEM(Method):
    """Averaged gradient episodic memory: if the gradient g would raise the loss on a replayed batch,
    of gradient r, its part along r is taken out: g - (g.r / r.r) r.

    The paper's memory holds past tasks alone, as one does that is filled at="task".

    Source: Chaudhry et al. 2019 (arXiv 1812.00420), Eq. 11.
    """

    replays: ClassVar[bool] = True

    def directed(self, model: Any, own: Any, lesson: Lesson, gradients: Any) -> Any:
        assert lesson.old is not None
        flat, back = _flat(gradients)
        reference, _ = _flat(_gradient(model, lesson, lesson.old))
        size = jnp.linalg.norm(reference)
        one = reference / jnp.where(size > 0, size, 1)
        return back(flat - jnp.minimum(product(flat, one), 0) * one)


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

    def __check_init__(self) -> None:
        check(self, "tasks", 1)
        check(self, "share", 1)
        check(self, "margin")

    def init(self, model: Any, stream: Stream) -> Any:
        if stream.tasks > self.tasks:
            raise ValueError(f"GEM is given tasks={self.tasks}, but the stream has {stream.tasks}")
        return ()

    def directed(self, model: Any, own: Any, lesson: Lesson, gradients: Any) -> Any:
        memory = lesson.memory
        assert memory is not None
        flat, back = _flat(gradients)

        def reference(task: Array, rows: Array) -> Array:
            mine = memory.filled & (memory.items.task == task)
            # Whatever belongs to the task comes first, in the order in which it came.
            order = jnp.argsort(jnp.where(mine, memory.time, jnp.iinfo(jnp.int32).max))
            there = mine[order[: self.share]]
            items = repeated(jax.tree.map(lambda x: x[order[: self.share]], memory.items), there)
            found = _gradient(model, lesson, lesson.batch_of(items, there))
            return rows.at[task].set(_flat(found)[0])

        past = jnp.arange(self.tasks) < lesson.task
        nothing = jnp.zeros((self.tasks, len(flat)), flat.dtype)
        rows = jax.lax.fori_loop(0, lesson.task, reference, nothing)
        v = project(product(rows, rows.T), product(rows, flat), past, self.margin)
        return back(flat + product(v, rows))


def project(
    products: Float[Array, "k k"], along: Float[Array, " k"], active: Bool[Array, " k"],
    margin: Float[Array, ""] | float = 0.5, ridge: float = 1e-3,
) -> Float[Array, " k"]:  # fmt: skip
    """Multipliers v of GEM: argmin v'(P + ridge I)v / 2 + along'v, v >= margin; 0 if no `along` is negative.

    - `products` = GG', `along` = Gg; rows that are not `active` take no part.

    By the active-set method: multipliers leave their floor one by one, the steepest first, and those
    that have left it are solved for together, as far as none falls below its floor.
    """
    broken = (active & (along < 0)).any()
    matrix = jnp.where(active[:, None] & active, products, 0) + ridge * jnp.eye(len(along))
    along = jnp.where(active, along, 0)
    floor = jnp.where(active, margin, 0.0).astype(along.dtype)

    def going(carry: tuple[Array, Array, Array]) -> Array:
        count, free, _ = carry
        return broken & free.any() & (count < 10 * len(along))

    def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, free, v = carry
        slope = product(matrix, v) + along
        system = jnp.where(free[:, None] & free, matrix, 0) + jnp.diag((~free).astype(v.dtype))
        step = jnp.linalg.solve(system, jnp.where(free, -slope, 0))
        room = jnp.where(free & (step < 0), (floor - v) / jnp.where(step < 0, step, -1), jnp.inf)
        size = jnp.minimum(1, room.min())
        v = jnp.where(room <= size, floor, jnp.maximum(v + size * step, floor))
        free = free & (room > size)
        leaving = leaves(v, free)
        return count + 1, jnp.where((size < 1) & free.any(), free, leaving), v

    def leaves(v: Array, free: Array) -> Array:
        """Those that are free and the steepest of the others; none if no other wants to go."""
        slope = product(matrix, v) + along
        rounding = 1e-6 * (product(jnp.abs(matrix), v) + jnp.abs(along))
        wish = jnp.where(active & ~free, -slope - rounding, 0)
        return jnp.where(wish.max() > 0, free | (jnp.arange(len(v)) == wish.argmax()), False)

    nobody = jnp.zeros(len(along), bool)
    _, _, v = jax.lax.while_loop(going, one, (jnp.int32(0), leaves(floor, nobody), floor))
    return jnp.where(broken & active, v, 0)


def product(a: Array, b: Array) -> Array:
    """a @ b in full precision, which accelerators do not take by themselves."""
    return jnp.matmul(a, b, precision="highest")


def _flat(tree: Any) -> tuple[Float[Array, " n"], Callable[[Array], Any]]:
    """All leaves as one vector of at least single precision, and the way back to theirs."""
    wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)
    flat, back = ravel_pytree(wide)
    return flat, lambda v: jax.tree.map(lambda x, like: x.astype(like.dtype), back(v), tree)


def _gradient(model: Any, lesson: Lesson, batch: Batch) -> Any:
    return gradients(lambda m: lesson.loss(lesson.logits(m, batch.x), batch), model)[0]
