"""How flat the loss of all tasks so far is, and how well classes are told where the task is: watched at exams."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from latebloom.core.process import Quantity
from latebloom.core.training import accuracy, gradients
from latebloom.losses import cross_entropy
from latebloom.methods.forgetting.continual import Continual, ContinualState
from latebloom.methods.forgetting.method import mean_of
from latebloom.probes.curvature import fisher_norm, top_eigenvalue
from latebloom.probes.fisher import fisher_diagonal


class Watched(Continual):
    """Continual learning that also observes `task_accuracy` [exam], where only the classes of the exam's own task
    compete, and if it is `flat`, the mean cross-entropy of training examples of all tasks so far:

    - `eigenvalue`: the largest of its Hessian, by `iterations` of Lanczos' method;
    - `fisher_norm`: its gradient in the norm of the inverse Fisher matrix of these examples (`fisher_norm`).

    The examples are those of the first `looks` batches of each task; all classes compete. NaN before an update.
    """

    flat: bool = eqx.field(static=True)
    looks: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)

    def __init__(self, *, flat: bool = True, looks: int = 2, iterations: int = 12, **settings: Any):
        super().__init__(**settings)
        self.flat, self.looks, self.iterations = flat, looks, iterations
        if flat and looks < 1:
            raise ValueError(f"looks must be at least 1, not {looks}")

    def observe(self, state: ContinualState) -> dict[str, Array]:
        found = super().observe(state) | {"task_accuracy": self._told(state)}
        return found | self._flatness(state) if self.flat else found

    def quantities(self) -> dict[str, Quantity]:
        own = {
            "task_accuracy": Quantity(
                "1", ("task",), {"task": list(range(self.exams))}, "accuracy among the classes of the task",
                gaps=True,
            ),
            "eigenvalue": Quantity("nats", about="largest eigenvalue of the Hessian", gaps=True),
            "fisher_norm": Quantity("1", about="gradient in the inverse Fisher norm", gaps=True),
        }  # fmt: skip
        return super().quantities() | own

    def _told(self, state: ContinualState) -> Array:
        stream, exams, scores_of = state.stream, state.stream.exams, self._scores(state)
        spare = self.outputs.shape[1] - stream.classes.shape[1]
        classes = jnp.pad(stream.classes, [(0, 0), (0, spare)])

        def hold(rows: Array, task: Array) -> Array:
            x = stream.view(self.data.x_test[rows], jnp.full(rows.shape, task))
            scores = scores_of(x)
            return accuracy(jnp.where(classes[task], scores, -jnp.inf), self.data.y_test[rows])

        found = jax.lax.map(lambda one: hold(*one), (exams.rows, exams.task))
        return jnp.where(exams.since <= state.step, found, jnp.nan)

    def _flatness(self, state: ContinualState) -> dict[str, Array]:
        stream, batch = state.stream, state.stream.rows.shape[1]
        ends = [*self.starts[1:], self.steps]
        places = [
            place
            for a, b in zip(self.starts, ends, strict=True)
            for place in range(a, min(a + self.looks, b))
        ]
        rows, steps = stream.rows[jnp.asarray(places)].ravel(), jnp.asarray(places)
        origins = jax.vmap(stream.origins)(steps).ravel()
        x, y = stream.view(self.data.x_train[rows], origins), self.data.y_train[rows]
        there = jnp.repeat(steps < state.step, batch)

        def loss(model: Any) -> Array:
            return mean_of(cross_entropy(self.apply(model, x, None, False), y), there)

        def losses(model: Any, one: tuple[Array, Array, Array]) -> Array:
            x, y, there = one
            return jnp.where(there, cross_entropy(self.apply(model, x, None, False), y), 0)

        each = tuple(part.reshape(len(places), batch, *part.shape[1:]) for part in (x, y, there))
        fisher = fisher_diagonal(losses, state.model, each)
        share = jnp.maximum(there.mean(), 1 / there.size)  # of the examples that count
        fisher = jax.tree.map(lambda f: f / share, fisher)
        slopes, _ = gradients(loss, state.model)
        key = jax.random.fold_in(state.key, 0xF1A7)
        top = top_eigenvalue(loss, state.model, key, self.iterations)
        begun = state.step > 0
        norm = fisher_norm(slopes, fisher)
        return {
            "eigenvalue": jnp.where(begun, top, jnp.nan),
            "fisher_norm": jnp.where(begun, norm, jnp.nan),
        }
