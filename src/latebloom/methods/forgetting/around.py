"""Methods around another: all that they leave alone is their host's; some move the parameters first."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.statistics import trainable_leaves
from latebloom.core.stream import Stream
from latebloom.core.training import gradients, trainable
from latebloom.methods.forgetting.method import (
    Batch,
    Displaced,
    Lesson,
    Losses,
    Method,
    check,
    norm,
    wide,
)


class Kept(NamedTuple):
    """What a host keeps, and what the method around it does."""

    host: Any
    mine: Any = ()


class Around(Method):
    """A method around a `host`, any `Method`, which may be around another one itself.

    Raises `ValueError` for a host that is no method.
    """

    host: Method

    def __check_init__(self) -> None:
        if not isinstance(self.host, Method):
            raise ValueError(
                f"the host of {type(self).__name__} must be a Method such as ER(), not {self.host!r}"
            )

    @property
    def remembers(self) -> bool:  # pyright: ignore
        return self.host.remembers

    @property
    def replays(self) -> bool:  # pyright: ignore
        return self.host.replays

    @property
    def leads(self) -> bool:  # pyright: ignore
        return self.host.leads

    @property
    def looks_back(self) -> int:
        return self.host.looks_back

    def does(self, part: str) -> bool:
        return getattr(type(self), part) is not getattr(Around, part) or self.host.does(part)

    def init(self, model: Any, stream: Stream) -> Kept:
        return Kept(self.host.init(model, stream))

    def quantities(self) -> dict[str, Quantity]:
        return self.host.quantities()

    def remembered(self, logits: jax.ShapeDtypeStruct) -> Any:
        return self.host.remembered(logits)

    def losses(self, model: Any, own: Kept, lesson: Lesson) -> Losses:
        found = self.host.losses(model, own.host, lesson)
        return found._replace(own=None if found.own is None else own._replace(host=found.own))

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        place = self.host.displaced(model, own.host, lesson, key)
        return place._replace(own=own._replace(host=place.own))

    def directed(self, model: Any, own: Kept, lesson: Lesson, gradients: Any) -> Any:
        return self.host.directed(model, own.host, lesson, gradients)

    def moved(self, own: Kept, gradients: Any, before: Any, after: Any) -> Kept:
        return own._replace(host=self.host.moved(own.host, gradients, before, after))

    def turn(self, model: Any, own: Kept, lesson: Lesson) -> Kept:
        if not self.host.does("turn"):
            return own
        first = jax.tree.map(lambda x: x[: self.host.looks_back], lesson.new)
        return own._replace(host=self.host.turn(model, own.host, lesson._replace(new=first)))

    def scores(self, model: Any, own: Kept, x: Array, memory: Batch | None) -> Array | None:
        return self.host.scores(model, own.host, x, memory)


PERTURBATION = Quantity(
    "1", about="length of the perturbation / of the parameters, largest since the last", over="max"
)
UNLEARNED = Quantity("nats", about="rise of the loss by the perturbation, mean", over="mean")


class Pushes(NamedTuple):
    """How often an update was at hand, and the diagonal of a Fisher matrix, or ()."""

    count: Int[Array, ""]
    fisher: Any = ()


def check_push(of: Any) -> None:
    """Raises `ValueError` for an `every` below 1, and for a host that moves parameters itself."""
    check(of, "every", 1)
    if isinstance(of.host, Method) and of.host.does("displaced"):
        raise ValueError(
            f"{type(of.host).__name__} moves the parameters before each update itself: put "
            f"{type(of).__name__} around its host instead"
        )


def pushed(
    of: Any, model: Any, own: Kept, lesson: Lesson, push: Callable[[], tuple[Any, Any]], back: bool = False
) -> Displaced:  # fmt: skip
    """`push`, which returns a tree like `trainable(model)` and a Fisher matrix, at every `of.every`-th update.

    - `back`: the update starts from where the network was; its gradient is taken where it was pushed.

    Told: `perturbation` and `unlearned`, by how much the host's loss rose.
    """
    before, mine = trainable(model), own.mine
    if of.every == 1:
        after, fisher = push()
    else:
        due = mine.count % of.every == 0
        after, fisher = jax.lax.cond(due, push, lambda: (before, mine.fisher))
    _, rest = eqx.partition(model, trainable_leaves(model))
    at = eqx.combine(after, rest)
    own = own._replace(mine=Pushes(mine.count + 1, fisher))
    difference = jax.tree.map(lambda a, b: wide(a) - wide(b), after, before)
    size = norm(before)
    told = {
        "perturbation": norm(difference) / jnp.where(size > 0, size, 1),
        "unlearned": whole_loss(of.host, at, own, lesson) - whole_loss(of.host, model, own, lesson),
    }
    return Displaced(model if back else at, at, own, told)


def whole_loss(host: Method, model: Any, own: Kept, lesson: Lesson) -> Float[Array, ""]:
    """What the host minimises at a step."""
    found = host.losses(model, own.host, lesson)
    return jnp.asarray(found.plasticity, jnp.float32) + jnp.asarray(found.stability, jnp.float32)


def slope(host: Method, model: Any, own: Kept, lesson: Lesson) -> Any:
    """The gradient of `whole_loss`, before the host directs it."""
    return gradients(lambda m: whole_loss(host, m, own, lesson), model)[0]


def shifted(params: Any, by: Any) -> Any:
    """params + by, summed in single precision at least, in the precision of the parameters."""
    return jax.tree.map(lambda p, d: (wide(p) + wide(d)).astype(p.dtype), params, by)


def gaussian(like: Any, key: PRNGKeyArray) -> Any:
    """Independent normal numbers of mean 0 and variance 1, a tree like another, in single precision at least."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([x.size for x in leaves])
    # One draw for all: a draw for each leaf takes seconds to compile.
    drawn = jnp.split(jax.random.normal(key, (int(ends[-1]) if leaves else 0,)), ends[:-1].tolist())
    shaped = (d.reshape(x.shape).astype(wide(x).dtype) for d, x in zip(drawn, leaves, strict=False))
    return jax.tree.unflatten(tree, list(shaped))


def scaled(tree: Any, by: Array | float) -> Any:
    """A tree times a number, in single precision at least."""
    return jax.tree.map(lambda x: by * wide(x), tree)


def total(tree: Any) -> Array:
    """Sum of all entries of all leaves."""
    return jax.tree.reduce(operator.add, jax.tree.map(jnp.sum, tree), jnp.zeros(()))
