"""Planes through the weights of teacher and students, and what the divergence does on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.core.vectors import set_weights, weights
from latebloom.methods.random_teachers.distillation import (
    Distillation,
    DistillationState,
    divergence,
)
from latebloom.methods.random_teachers.probing import nearest_neighbours


class Plane(NamedTuple):
    """Weights origin + a first + b second; all else is that of `model`."""

    model: Any
    origin: Float[Array, " n"]
    first: Float[Array, " n"]
    second: Float[Array, " n"]

    def at(self, a: float | Array, b: float | Array) -> Any:
        """The network at coordinates (a, b)."""
        return set_weights(self.model, self.origin + a * self.first + b * self.second)

    def coordinates(self, model: Any) -> Float[Array, " 2"]:
        """Of the point of the plane that is nearest to a network."""
        axes = jnp.stack([self.first, self.second], 1)
        return jnp.linalg.lstsq(axes, weights(model) - self.origin)[0]


def plane_through(origin: Any, one: Any, other: Any, *, orthogonal: bool = False) -> Plane:
    """The plane in which three networks lie: origin (0, 0), one (1, 0), other (0, 1).

    With `orthogonal` the axes are at right angles and of length 1, the first towards `one`, so that
    distances in the plane are distances of weights.

    Raises `ValueError` where the three lie on one line.

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 4: the teacher with the students started
    at alpha 1 before and after training, or the students started at alpha 0 and at 1.
    """
    base = weights(origin)
    first, second = weights(one) - base, weights(other) - base
    away = second - (second @ first) / jnp.maximum(first @ first, 1e-30) * first
    if float(jnp.linalg.norm(away)) <= 1e-6 * float(jnp.linalg.norm(second)) or not first.any():
        raise ValueError("the three networks lie on one line: choose others to span the plane")
    if orthogonal:
        first, second = (v / jnp.linalg.norm(v) for v in (first, away))
    return Plane(origin, base, first, second)


def on_grid(
    plane: Plane, a: Float[Array, " k"], b: Float[Array, " l"], look: Callable[[Any], Array]
) -> Float[Array, "k l *out"]:
    """`look(network)` at every (a, b) of a grid, one after another in one program."""
    points = jnp.stack(jnp.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    values = eqx.filter_jit(
        lambda plane, points: jax.lax.map(lambda point: look(plane.at(*point)), points)
    )(plane, points)
    return values.reshape(len(a), len(b), *values.shape[1:])


class Landscape(Process):
    """Two students of one teacher, started at it (`near`) and away from it (`far`), and the plane
    through the three.

    A step is one step of both, on the same batches. `distillation` gives all but alpha.

    Observed: `divergence` [a, b] in nats from the teacher to the networks at (a, b), where (0, 0) is
    the teacher, (1, 0) the near and (0, 1) the far student, and `neighbours` [a, b], the test accuracy
    of nearest neighbours on their encoder's features, both on the first `shown` training and test
    images; `distances` from the teacher to the near and the far student, and between them (L2 over all
    weights, head included).

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 4, "shared view".
    """

    distillation: Distillation
    seeds_by: ClassVar[Literal["vmap", "map"]] = "map"

    near: Float[Array, ""]
    far: Float[Array, ""]
    at: Float[Array, " k"]
    shown: int = eqx.field(static=True)

    def __init__(
        self, distillation: Distillation, *, at: Float[Array, " k"], near: float = 1e-3,
        far: float = 1.0, shown: int = 300,
    ):  # fmt: skip
        self.distillation, self.at, self.shown = distillation, jnp.asarray(at, jnp.float32), shown
        self.near, self.far = jnp.float32(near), jnp.float32(far)

    def init(self, key: PRNGKeyArray) -> tuple[DistillationState, ...]:
        return tuple(self._of(alpha).init(key) for alpha in (self.near, self.far))

    def _of(self, alpha: Array) -> Distillation:
        return eqx.tree_at(lambda d: d.alpha, self.distillation, alpha)

    def step(self, state: tuple[DistillationState, ...]) -> tuple[DistillationState, ...]:
        parts = [eqx.partition(one, eqx.is_array) for one in state]
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *(arrays for arrays, _ in parts))

        def one(arrays: Any) -> Any:
            new = self.distillation.step(eqx.combine(arrays, parts[0][1]))
            return eqx.filter(new, eqx.is_array)

        after = jax.lax.map(one, stacked)
        return tuple(
            eqx.combine(jax.tree.map(lambda x: x[i], after), rest)  # noqa: B023
            for i, (_, rest) in enumerate(parts)
        )

    def observe(self, state: tuple[DistillationState, ...]) -> dict[str, Array]:
        teacher, near, far = state[0].teacher, state[0].student, state[1].student
        base = weights(teacher)
        plane = Plane(teacher, base, weights(near) - base, weights(far) - base)
        data = self.distillation.data
        train, test = data.x_train[: self.shown], data.x_test[: self.shown]
        said = teacher(test, train=False)

        def look(model: Any) -> Array:
            apart = divergence(said, model(test, train=False)).mean()
            features = (model.encoder(x, train=False) for x in (train, test))
            labels = data.y_train[: self.shown], data.y_test[: self.shown]
            (one, other), (known, wanted) = features, labels
            return jnp.stack([apart, nearest_neighbours(one, known, other, wanted)])

        seen = on_grid(plane, self.at, self.at, look)
        lengths = [plane.first, plane.second, plane.first - plane.second]
        return {
            "divergence": seen[..., 0],
            "neighbours": seen[..., 1],
            "distances": jnp.stack([jnp.linalg.norm(v) for v in lengths]),
        }

    def quantities(self) -> dict[str, Quantity]:
        places = [float(x) for x in self.at]
        grid = ("a", "b"), {"a": places, "b": places}
        of = ("of",), {"of": ["near", "far", "near-far"]}
        return {
            "divergence": Quantity("nats", *grid, "KL from the teacher"),
            "neighbours": Quantity("1", *grid, "20 nearest neighbours"),
            "distances": Quantity("L2", *of, "distance of weights"),
        }
