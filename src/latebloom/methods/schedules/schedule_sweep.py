"""Many learning-rate schedules trained side by side on the same mini-batches, as one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.calling import call
from latebloom.core.dataset import check_targets
from latebloom.core.process import Process, Quantity
from latebloom.core.statistics import trainable_leaves
from latebloom.core.training import batch_rows, shuffled, trainable
from latebloom.methods.schedules.refinement import Norm


class Problem(eqx.Module):
    """What is learned, and by what kind of steps: all but the step sizes.

    - `x` [n, features], `y` [n]: all examples; each seed draws its own `train` of them for training
      and holds the others out.
    - `model(key)`: any network with `classes` outputs; running statistics stay as they are.
    - `direction`: Optax transformation from gradients to what is multiplied by the step size and
      subtracted: `optax.identity()` for SGD, `optax.scale_by_adam()` for Adam.
    - `norm`: the gradient norm that refinement wants for it, "l2" for SGD and "l1" for Adam.

    Raises `ValueError` for a training set that is empty, holds no batch, or leaves nothing out, and for
    labels that are not from 0 to `classes` - 1.
    """

    x: Float[Array, "n features"]
    y: Int[Array, " n"]
    model: Callable[[PRNGKeyArray], Any] = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    train: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    direction: optax.GradientTransformation = eqx.field(static=True)
    norm: Norm = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 < self.train < len(self.x) or not 0 < self.batch_size <= self.train:
            raise ValueError(
                f"train must leave some of the {len(self.x)} examples and hold a batch of "
                f"{self.batch_size}, not {self.train}"
            )
        check_targets(self.y, jax.ShapeDtypeStruct((len(self.y), self.classes), jnp.float32), "y")

    def scores(
        self, params: Any, x: Float[Array, "batch features"], y: Float[Array, "batch classes"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Mean cross-entropy (nats) and share of errors; labels are rows of zeros and a one."""
        model = self.model(jax.random.key(0))
        _, rest = eqx.partition(model, trainable_leaves(model))
        logits = call(eqx.combine(params, rest), x)
        wrong = logits.argmax(axis=-1) != y.argmax(axis=-1)
        return optax.softmax_cross_entropy(logits, y).mean(), wrong.mean(dtype=jnp.float32)


class SweepState(NamedTuple):
    params: Any  # [cell, ...] each
    direction: Any  # [cell, ...] each
    rows: Int[Array, " n"]  # this seed's order of the examples, training part first
    norms: Float[Array, "steps recorded"]  # of the mini-batch gradients, so far
    key: PRNGKeyArray
    step: Int[Array, ""]


class ScheduleSweep(Process):
    """Networks that differ in nothing but their step sizes.

    A cell is one column of the table `rates`. All cells of a seed start from the same weights and
    see the same mini-batches (reshuffled every epoch), so that they are compared in pairs, and so
    that a step is a few large matrix products instead of many small ones. A cell whose gradient is
    not finite stands still.

    - `rates` [steps, cells]: step sizes. A schedule that is over stays at 0, so that runs of
      several lengths share one table.
    - `cells`: their names; the gradient norms of the first `recorded` are kept for every step.

    Observes training and held-out loss (nats) and error (share) of the last iterates.

    Raises `ValueError` for a table that does not fit the cells.
    """

    problem: Problem
    rates: Float[Array, "steps cells"]
    cells: tuple[str, ...] = eqx.field(static=True)
    recorded: int = eqx.field(static=True)

    def __init__(self, problem: Problem, rates: Array, cells: Sequence[str], recorded: int = 0):
        if rates.ndim != 2 or rates.shape[1] != len(cells) or recorded > len(cells):
            raise ValueError(
                f"rates must be [steps, {len(cells)}] and recorded at most {len(cells)}, "
                f"not {rates.shape} and {recorded}"
            )
        self.problem, self.rates = problem, jnp.asarray(rates, jnp.float32)
        self.cells, self.recorded = tuple(cells), recorded

    def init(self, key: PRNGKeyArray) -> SweepState:
        model_key, row_key, batch_key = (jax.random.fold_in(key, i) for i in range(3))
        count, n = len(self.cells), len(self.problem.x)
        params = jax.tree.map(
            lambda p: jnp.broadcast_to(p, (count, *p.shape)),
            trainable(self.problem.model(model_key)),
        )
        return SweepState(
            params,
            jax.vmap(self.problem.direction.init)(params),
            shuffled(row_key, jnp.arange(n), n),
            jnp.zeros((len(self.rates), self.recorded), jnp.float32),
            batch_key,
            jnp.int32(0),
        )

    def _examples(self, rows: Int[Array, " batch"]) -> tuple[Array, Array]:
        return self.problem.x[rows], jax.nn.one_hot(self.problem.y[rows], self.problem.classes)

    def batch(self, state: SweepState) -> tuple[Array, Array]:
        """Inputs and one-hot labels that all cells use in the next step."""
        problem = self.problem
        rows = batch_rows(state.key, state.step, problem.train, problem.batch_size)
        return self._examples(state.rows[rows])

    def step(self, state: SweepState) -> SweepState:
        x, y = self.batch(state)
        slope = jax.grad(lambda p: self.problem.scores(p, x, y)[0])
        gradients = jax.vmap(slope)(state.params)
        order = 1 if self.problem.norm == "l1" else 2
        norms = jax.vmap(partial(optax.tree.norm, ord=order))(gradients)
        towards, direction = jax.vmap(self.problem.direction.update)(gradients, state.direction)
        sizes = self.rates[state.step]
        moved = jax.tree.map(
            lambda p, d: (p - _along(sizes, d) * d).astype(p.dtype), state.params, towards
        )
        return SweepState(
            _where(jnp.isfinite(norms), moved, state.params),
            _where(jnp.isfinite(norms), direction, state.direction),
            state.rows,
            state.norms.at[state.step].set(norms[: self.recorded]),
            state.key,
            state.step + 1,
        )

    def observe(self, state: SweepState) -> dict[str, Array]:
        seen = {"gradient_norm": state.norms} if self.recorded else {}
        n = self.problem.train
        for part, rows in (("train", state.rows[:n]), ("test", state.rows[n:])):
            x, y = self._examples(rows)
            score = partial(self.problem.scores, x=x, y=y)
            seen[f"{part}_loss"], seen[f"{part}_error"] = jax.vmap(score)(state.params)
        return seen

    def quantities(self) -> dict[str, Quantity]:
        coords = {"cell": self.cells}
        found = {
            f"{part}_{what}": Quantity(unit, ("cell",), coords, f"{words} {what}", gaps=True)
            for part, words in (("train", "training"), ("test", "held-out"))
            for what, unit in (("loss", "nats"), ("error", "1"))
        }
        about = f"{self.problem.norm} norm of the mini-batch gradient"
        dims = ("iteration", "recorded")
        return found | {"gradient_norm": Quantity("1", dims, {}, about, gaps=True)}


def _along(row: Array, like: Array) -> Array:
    return row.reshape(row.shape + (1,) * (like.ndim - 1))


def _where(keep: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(_along(keep, a), a, b), new, old)
