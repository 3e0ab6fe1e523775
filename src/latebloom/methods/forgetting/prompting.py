"""Learning prompts before a frozen transformer (`nn.prompts`), task by task."""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Array, Float

from latebloom.core.stream import Stream
from latebloom.methods.forgetting.class_means import check_called
from latebloom.methods.forgetting.method import Lesson, Losses, Method, check
from latebloom.nn.prompts import DualPrompt, PromptPool


class Prompting(Method):
    """loss(new) + strength (1 - cosine of an image's query and its prompts' keys).

    The network is a `PromptPool` or a `DualPrompt`; which parts of it learn is the optimiser's affair
    (`optim.trained`, with `learns`). Nothing keeps the old but that the body stays and prompts are many.

    Raises `ValueError` for another network, for more tasks than experts, and for a process with an `apply` of its own.

    Source: L2P, Wang et al. 2022 (arXiv 2112.08654), Eq. 5, strength 0.5; DualPrompt, Wang et al. 2022 (arXiv
    2204.04799), Eq. 6, strength 1; both with `HeadLoss(..., "local_ce")`.
    """

    leads: ClassVar[bool] = True
    strength: Float[Array, ""] | float = 0.5

    def __check_init__(self) -> None:
        check(self, "strength")

    def init(self, model: Any, stream: Stream) -> Any:
        if not isinstance(model, PromptPool | DualPrompt):
            raise ValueError(
                f"Prompting needs a PromptPool or a DualPrompt, not a {type(model).__name__}"
            )
        if isinstance(model, DualPrompt) and stream.tasks > len(model.keys):
            raise ValueError(
                f"the network has {len(model.keys)} experts for {stream.tasks} tasks: give it as many"
            )
        return ()

    def losses(self, model: Any, own: Any, lesson: Lesson) -> Losses:
        check_called(self, lesson, model, lesson.new.x)
        learner = model.of_task(lesson.task)
        new = lesson.loss(lesson.logits(learner, lesson.new.x), lesson.new)
        return Losses(new + self.strength * learner.matching(lesson.new.x))


def learns(model: PromptPool | DualPrompt) -> list[Any]:
    """The parts that learn: keys, prompts and the head."""
    if isinstance(model, PromptPool):
        return [model.keys, model.prompts, model.vit.readout]
    return [model.keys, model.general, model.expert, model.vit.readout]
