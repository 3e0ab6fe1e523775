"""What refresh learning has to beat at its own price: one more step, SAM, random directions, plain noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.stream import Stream
from latebloom.core.training import trainable
from latebloom.methods.forgetting.around import (
    PERTURBATION,
    UNLEARNED,
    Around,
    Kept,
    Pushes,
    check_push,
    gaussian,
    pushed,
    scaled,
    shifted,
    slope,
)
from latebloom.methods.forgetting.method import Displaced, Lesson, check, norm
from latebloom.methods.forgetting.refresh import as_long

TOLD = {"perturbation": PERTURBATION, "unlearned": UNLEARNED}


class _Push(Around):
    """Every so many updates the parameters are moved by `size`, of which each control says what it is."""

    size: Float[Array, ""] | float
    every: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        check_push(self)
        check(self, "size")

    def init(self, model: Any, stream: Stream) -> Kept:
        return Kept(self.host.init(model, stream), Pushes(jnp.int32(0)))

    def quantities(self) -> dict[str, Quantity]:
        return self.host.quantities() | TOLD


class ExtraStep(_Push):
    """A step down the same batch before the update: theta -= size gradient, as the host directs it.

    The price of `Refresh(host, steps=1)`, with the opposite sign.
    """

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        def push() -> tuple[Any, Any]:
            down = slope(self.host, model, own, lesson)
            down = self.host.directed(model, own.host, lesson, down)
            return shifted(trainable(model), scaled(down, -self.size)), ()

        return pushed(self, model, own, lesson, push)


class SAM(_Push):
    """Sharpness-aware minimisation: the gradient is taken at theta + size g / |g|, the update starts at theta.

    Source: Foret et al. 2021 (arXiv 2010.01412), Eq. 2 and Algorithm 1; `size` is its rho.
    """

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        def push() -> tuple[Any, Any]:
            up = slope(self.host, model, own, lesson)
            length = norm(up)
            by = self.size / jnp.where(length > 0, length, 1)
            return shifted(trainable(model), scaled(up, by)), ()

        return pushed(self, model, own, lesson, push, back=True)


class RandomStep(_Push):
    """Unlearning in a random direction: as far as `size` times the gradient is long, wherever that is.

    The price and length of `Refresh(host, gamma=size, steps=1, fisher="none", temperature=0)`.
    """

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        def push() -> tuple[Any, Any]:
            aim = gaussian(trainable(model), key)
            length = self.size * norm(slope(self.host, model, own, lesson))
            return shifted(trainable(model), scaled(aim, length / norm(aim))), ()

        return pushed(self, model, own, lesson, push)


class WeightNoise(_Push):
    """Each tensor moves in a random direction by `size` of its own length.

    As far as `ReleasedRefresh(host, delta=size)`, without its gradient.
    """

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        def push() -> tuple[Any, Any]:
            params = trainable(model)
            aim = jax.tree.map(as_long, gaussian(params, key), params)
            return shifted(params, scaled(aim, self.size)), ()

        return pushed(self, model, own, lesson, push)
