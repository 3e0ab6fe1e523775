"""What a method against forgetting is: its losses, the direction it follows, what it keeps; and what it is told.

`continual.Continual` runs one on a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.calling import Apply
from latebloom.core.memory import Items, Memory
from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.losses import masked_cross_entropy


class Batch(NamedTuple):
    """Examples with their tasks, the classes that compete for each, and which of them there are."""

    x: Array
    y: Int[Array, " batch"]
    task: Int[Array, " batch"]
    allowed: Bool[Array, "batch classes"]
    there: Bool[Array, " batch"]
    extra: Any = ()


class Lesson(NamedTuple):
    """What a method has to work with at a step, or when a task is over.

    - `logits(model, x)` [batch, classes], in training mode with the step's key; `exam(model, x)`, not
      in training mode.
    - `new`: the step's batch; when a task is over, the first batches of it, [number, batch, ...].
    - `old`, `other`: two batches drawn from the memory, where the method replays.
    - `task`: the task of the step; `first`: whether the step is its first; `seen`: classes up to it.
    - `batch_of(items, there)`: examples of the memory as a batch.
    - `key()`: the step's key for what a method draws itself; None where a task is over.
    - `criterion(logits, labels, allowed)` [batch]: the loss of each example; a method around another may
      replace it (`head_losses`).
    - `apply`: what the process calls the network by in both, where that is told.
    """

    logits: Callable[[Any, Array], Float[Array, "batch classes"]]
    exam: Callable[[Any, Array], Float[Array, "batch classes"]]
    new: Batch
    old: Batch | None
    other: Batch | None
    task: Int[Array, ""]
    first: Bool[Array, ""]
    seen: Bool[Array, " classes"]
    memory: Memory | None
    batch_of: Callable[[Items, Array], Batch]
    key: Callable[[], PRNGKeyArray] | None = None
    criterion: Callable[[Array, Array, Array], Float[Array, " batch"]] = masked_cross_entropy
    apply: Apply | None = None

    def loss(self, logits: Array, batch: Batch) -> Float[Array, ""]:
        """Mean loss of the examples that there are; 0 without any."""
        return mean_of(self.criterion(logits, batch.y, batch.allowed), batch.there)


class Losses(NamedTuple):
    """What makes it learn the new, what makes it keep the old; their sum is minimised.

    `remember`: what is kept in memory with each example of the new batch. `told`: by name what else
    the step tells (`Method.quantities` says what it is). `own`: what the method keeps from now on, None
    for what it kept.
    """

    plasticity: Float[Array, ""]
    stability: Float[Array, ""] | float = 0.0
    remember: Any = ()
    told: Mapping[str, Array] = MappingProxyType({})
    own: Any = None


class Displaced(NamedTuple):
    """A network from which an update starts, one at which its gradient is taken, and what is kept.

    `told`: by name what the step tells.
    """

    start: Any
    at: Any
    own: Any
    told: Mapping[str, Array] = MappingProxyType({})


class Method(eqx.Module):
    """What is done against forgetting; this one does nothing (fine-tuning).

    A method overrides what it needs. What it keeps beside the network, `own`, is a tree of arrays.

    - `remembers`: whether it needs a memory; `replays`: whether batches are drawn from it.
    - `leads`: whether it changes how the new is learned, so that among several (`head_losses.Together`) it comes first.
    """

    remembers: ClassVar[bool] = False
    replays: ClassVar[bool] = False
    leads: ClassVar[bool] = False

    @property
    def looks_back(self) -> int:
        """How many batches of a task it looks at when the task is over."""
        return 0

    def does(self, part: str) -> bool:
        """Whether it overrides a part; a method around another one asks that, too."""
        return getattr(type(self), part) is not getattr(Method, part)

    def init(self, model: Any, stream: Stream) -> Any:
        """What is kept at the start."""
        return ()

    def quantities(self) -> dict[str, Quantity]:
        """Units and dimensions of what its steps tell."""
        return {}

    def remembered(self, logits: jax.ShapeDtypeStruct) -> Any:
        """Shapes and types of what `losses` has remembered of one example, given those of its logits."""
        return ()

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        """The losses of a step."""
        return Losses(lesson.loss(lesson.logits(model, lesson.new.x), lesson.new))

    def displaced(self, model: Any, own: Any, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        """Where the update starts and where its gradient is taken, before either is done."""
        return Displaced(model, model, own)

    def directed(self, model: Any, own: Any, lesson: Lesson, gradients: Any) -> Any:
        """The gradient that is followed, given that of the losses."""
        return gradients

    def moved(self, own: Any, gradients: Any, before: Any, after: Any) -> Any:
        """What is kept after an update of the parameters, given the gradient that learns the new."""
        return own

    def turn(self, model: Any, own: Any, lesson: Lesson) -> Any:
        """What is kept after a task."""
        return own

    def scores(self, model: Any, own: Any, x: Array, memory: Batch | None) -> Array | None:
        """How classes are told in exams, [batch, classes], where it is not by the network's outputs.

        `memory`: all that is remembered, as a batch, where there is a memory.
        """
        return None


def mean_of(values: Float[Array, " batch"], there: Bool[Array, " batch"]) -> Float[Array, ""]:
    """Mean of the values of the examples that there are; 0 without any."""
    return jnp.where(there, values, 0).sum() / jnp.maximum(there.sum(), 1)


def present(
    labels: Int[Array, " batch"], there: Bool[Array, " batch"], classes: int
) -> Bool[Array, " classes"]:
    """Which classes occur among the examples that there are."""
    return ((labels[:, None] == jnp.arange(classes)) & there[:, None]).any(axis=0)


def norm(tree: Any) -> Float[Array, ""]:
    """Euclidean norm of all leaves, in single precision at least."""
    return optax.tree.norm(
        jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)
    )


def check(of: Any, name: str, low: float = 0, high: float = np.inf, *, above: bool = False) -> None:
    """Raises `ValueError` where a setting is outside of [low, high], or, if `above`, is `low`."""
    value = getattr(of, name)
    if isinstance(value, Tracer):
        return
    values = np.asarray(value, float)
    if not ((values > low if above else values >= low) & (values <= high)).all():
        least = f"above {low:g}" if above else f"at least {low:g}"
        what = f"from {low:g} to {high:g}" if high < np.inf else least
        raise ValueError(f"{name} of {type(of).__name__} must be {what}, not {value}")


def one_of(of: Any, name: str, known: tuple[str, ...]) -> None:
    """Raises `ValueError` where a setting is none of those known."""
    if (value := getattr(of, name)) not in known:
        raise ValueError(
            f"{name} of {type(of).__name__} must be one of {', '.join(known)}, not {value!r}"
        )


def wide(x: Array) -> Array:
    """At least in single precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
