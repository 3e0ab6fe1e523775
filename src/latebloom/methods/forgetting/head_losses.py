"""By which loss a head learns classes that come a few at a time, and several methods at once.

Class-incrementally a head grows. Softmax losses over all classes push old outputs down wherever new classes are
learned; sigmoids do so less, and a softmax over the task's own classes not at all.

Source: Smith et al. 2023, "A Closer Look at Rehearsal-Free Continual Learning" (arXiv 2203.17269).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.losses import masked_binary_cross_entropy, masked_cross_entropy
from latebloom.methods.forgetting.around import Around, Kept
from latebloom.methods.forgetting.method import Batch, Displaced, Lesson, Losses, Method, one_of

Loss = Literal["ce", "bce", "local_ce", "local_bce"]


class HeadLoss(Around):
    """The host, learning the new by another loss; so it is in a Fisher matrix of the host.

    - "ce": softmax cross-entropy over the classes that compete (`head` of `Continual`; "seen" grows the head);
    - "bce": sigmoid cross-entropy of each of these, summed;
    - "local_ce": softmax over the classes of the example's own task, so that no other output has a gradient (of a task
      of one class, none has);
    - "local_bce": sigmoids of the classes of its own task (with `LwF(1.0, 1.0, over="each")`: LwF.MC).

    In exams nothing changes.

    Raises `ValueError` for "local_ce" on a stream that is known to have a class a task.

    Source: Smith et al. 2023 (arXiv 2203.17269); local: Smith et al. 2021 (arXiv 2106.09701); LwF.MC: Rebuffi et
    al. 2017 (arXiv 1611.07725).
    """

    loss: Loss = eqx.field(static=True, default="local_ce")

    def __check_init__(self) -> None:
        one_of(self, "loss", get_args(Loss))

    def does(self, part: str) -> bool:
        return part == "losses" or self.host.does(part)

    def init(self, model: Any, stream: Stream) -> Kept:
        if self.loss == "local_ce" and stream.fewest == 1:
            raise ValueError(
                "a task has one class, and a softmax over that alone teaches nothing: take loss='ce', 'bce' or 'local_bce'"
            )
        return Kept(self.host.init(model, stream), stream.classes)

    def losses(self, model: Any, own: Kept, lesson: Lesson) -> Losses:
        return super().losses(model, own, self._told(own, lesson))

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: Any) -> Displaced:
        return super().displaced(model, own, self._told(own, lesson), key)

    def directed(self, model: Any, own: Kept, lesson: Lesson, gradients: Any) -> Any:
        return super().directed(model, own, self._told(own, lesson), gradients)

    def turn(self, model: Any, own: Kept, lesson: Lesson) -> Kept:
        return super().turn(model, own, self._told(own, lesson))

    def _told(self, own: Kept, lesson: Lesson) -> Lesson:
        """The lesson with this loss, and with the classes that compete in it."""
        criterion = masked_binary_cross_entropy if "bce" in self.loss else masked_cross_entropy
        lesson = lesson._replace(criterion=criterion)
        if not self.loss.startswith("local"):
            return lesson

        def local(batch: Batch | None) -> Batch | None:
            if batch is None:
                return None
            spare = batch.allowed.shape[-1] - own.mine.shape[-1]  # outputs that are no class
            return batch._replace(allowed=jnp.pad(own.mine, [(0, 0), (0, spare)])[batch.task])

        new, old, other = (local(batch) for batch in (lesson.new, lesson.old, lesson.other))
        return lesson._replace(new=new, old=old, other=other)


class Together(Method):
    """Several methods at once: the new is learned as by the first; what all of them add to keep the old is summed.

    Each has its own strength. Methods beyond the first may keep things and add losses (L2, EWC, SI, LwF,
    `FeatureDistillation`); what replays, projects or moves parameters goes first, or around (`Around`).

    Raises `ValueError` for no methods, and for those that cannot come second.
    """

    parts: tuple[Method, ...]

    def __check_init__(self) -> None:
        if not self.parts or not all(isinstance(part, Method) for part in self.parts):
            raise ValueError(
                f"parts must be methods, at least one, as in (LwF(), L2()), not {self.parts!r}"
            )
        for part in self.parts[1:]:
            alone = [name for name in ("displaced", "directed", "scores") if part.does(name)]
            if part.replays or part.remembers or alone:
                raise ValueError(
                    f"{type(part).__name__} replays, directs gradients or answers exams: put it first"
                )
            if part.leads:
                raise ValueError(
                    f"{type(part).__name__} learns the new in its own way: put it first"
                )

    @property
    def remembers(self) -> bool:  # pyright: ignore
        return self.parts[0].remembers

    @property
    def replays(self) -> bool:  # pyright: ignore
        return self.parts[0].replays

    @property
    def leads(self) -> bool:  # pyright: ignore
        return self.parts[0].leads

    @property
    def looks_back(self) -> int:
        return max(part.looks_back for part in self.parts)

    def does(self, part: str) -> bool:
        return part == "losses" or any(one.does(part) for one in self.parts)

    def init(self, model: Any, stream: Stream) -> tuple[Any, ...]:
        return tuple(part.init(model, stream) for part in self.parts)

    def quantities(self) -> dict[str, Quantity]:
        return {name: what for part in self.parts for name, what in part.quantities().items()}

    def remembered(self, logits: jax.ShapeDtypeStruct) -> Any:
        return self.parts[0].remembered(logits)

    def losses(self, model: Any, own: tuple[Any, ...], lesson: Lesson) -> Losses:
        lesson = lesson._replace(logits=_once(lesson.logits), exam=_once(lesson.exam))
        found = [part.losses(model, its, lesson) for part, its in zip(self.parts, own, strict=True)]
        told = {name: value for one in found for name, value in one.told.items()}
        kept = tuple(
            its if one.own is None else one.own for its, one in zip(own, found, strict=True)
        )
        return found[0]._replace(stability=sum(one.stability for one in found), told=told, own=kept)

    def displaced(self, model: Any, own: tuple[Any, ...], lesson: Lesson, key: Any) -> Displaced:
        place = self.parts[0].displaced(model, own[0], lesson, key)
        return place._replace(own=(place.own, *own[1:]))

    def directed(self, model: Any, own: tuple[Any, ...], lesson: Lesson, gradients: Any) -> Any:
        return self.parts[0].directed(model, own[0], lesson, gradients)

    def moved(self, own: tuple[Any, ...], gradients: Any, before: Any, after: Any) -> Any:
        pairs = zip(self.parts, own, strict=True)
        return tuple(part.moved(its, gradients, before, after) for part, its in pairs)

    def turn(self, model: Any, own: tuple[Any, ...], lesson: Lesson) -> tuple[Any, ...]:
        def of(part: Method, its: Any) -> Any:
            if not part.does("turn"):
                return its
            first = jax.tree.map(lambda x: x[: part.looks_back], lesson.new)
            return part.turn(model, its, lesson._replace(new=first))

        return tuple(of(part, its) for part, its in zip(self.parts, own, strict=True))

    def scores(self, model: Any, own: Any, x: Array, memory: Batch | None) -> Array | None:
        return self.parts[0].scores(model, own[0], x, memory)


def _once(function: Callable[[Any, Array], Array]) -> Callable[[Any, Array], Array]:
    """A function of a network and inputs that is called once for the same ones: one pass serves all methods."""
    made: dict[tuple[int, int], tuple[Any, Any, Array]] = {}

    def of(model: Any, x: Array) -> Array:
        place = id(model), id(x)
        if place not in made:
            made[place] = model, x, function(model, x)  # kept, so that no other gets its number
        return made[place][2]

    return of
