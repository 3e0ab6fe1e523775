"""Classification by a network that is a differential equation, with the penalties that make it cheap to solve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from latebloom.core.calling import call
from latebloom.core.odes import TSIT5, Solution, solve
from latebloom.core.process import Quantity, Stepped
from latebloom.core.training import Supervised, SupervisedState, gradients, step_key, update
from latebloom.methods.continuous.regularisers import (
    Aggregate,
    annealed,
    local_penalty,
    point_to_catch,
    random_end,
    solver_penalty,
)
from latebloom.methods.continuous.taylor import with_taylor
from latebloom.nn.mlp import Linear

Penalty = Literal["none", "error", "error_squared", "stiffness", "local_error", "local_stiffness", "taylor"]  # fmt: skip


class TanhField(eqx.Module):
    """f(t, z) = tanh(W2 [tanh(W1 [z; t]); t]), the field of the papers' classifiers: z [batch, size].

    `bounded=False` leaves out the outer tanh, as the local paper does.
    """

    first: Linear
    second: Linear
    bounded: bool = eqx.field(static=True)

    def __init__(self, size: int, hidden: int, *, key: PRNGKeyArray, bounded: bool = True):
        one, two = jax.random.split(key)
        self.first = Linear(size + 1, hidden, key=one)
        self.second = Linear(hidden + 1, size, key=two)
        self.bounded = bounded

    def __call__(self, t: Any, z: Shaped[Array, "batch size"]) -> Float[Array, "batch size"]:
        slope = self.second(_with_time(t, jnp.tanh(self.first(_with_time(t, z)))))
        return jnp.tanh(slope) if self.bounded else slope


class NetworkField(eqx.Module):
    """Any network from [batch, size + 1], the state and time, to [batch, size], as a field. Its dropout is off."""

    network: Any

    def __call__(self, t: Any, z: Shaped[Array, "batch size"]) -> Shaped[Array, "batch size"]:
        return call(self.network, _with_time(t, z))


class NeuralODE(eqx.Module):
    """[batch, size] -> [batch, classes]: a readout of the state at time 1 of an equation that starts from the inputs at 0.

    - `field(t, z)`: a module over batches; `head`: any network.

    The batch is one system: steps are in common. `solution(x)` says what they cost.
    """

    field: Any
    head: Any
    rtol: float = eqx.field(static=True, default=1e-5)
    atol: float = eqx.field(static=True, default=1e-5)
    max_steps: int = eqx.field(static=True, default=256)

    def solution(self, x: Shaped[Array, "batch size"], end: Any = 1.0, **options: Any) -> Solution:
        given = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps} | options
        return solve(self.field, 0.0, end, x, **given)

    def __call__(
        self, x: Shaped[Array, "batch size"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch classes"]:  # fmt: skip
        return call(self.head, self.solution(x).y, key, train)


class NeuralODELearner(Supervised):
    """Gradient descent on a `NeuralODE` with a penalty: cost of the solution and accuracy over training.

    - `penalty`: "error", "error_squared" or "stiffness" of all steps, gathered by `aggregate`; "local_error" or
      "local_stiffness" of one step from a point drawn by `sampler`; "taylor", the integral of the squared derivative of
      order `taylor_order`; or "none".
    - `strengths`: at the first step of `horizon_steps` and after the last, exponentially between; constant if one number.
    - `end_width`: ends of time are drawn from 1 - width to 1 + width in training (STEER); 0 for none.
    - `through_steps`: whether gradients go through the lengths of steps.

    The rest is as in `Supervised`. Beside what that records, test examples as one batch, without a penalty, give
    `evaluations` of the field, `steps` and `rejected`; each training step tells `train_evaluations` (of the solver, and of
    the local step) and `penalty`.

    Raises what `Supervised` does, and `ValueError` for another penalty, aggregate or sampler, strengths that are not above
    0, a width that is not below 1.
    """

    strengths: Float[Array, " 2"]
    end_width: Float[Array, ""]
    penalty: Penalty = eqx.field(static=True)
    aggregate: Aggregate = eqx.field(static=True)
    sampler: Literal["unbiased", "biased"] = eqx.field(static=True)
    taylor_order: int = eqx.field(static=True)
    horizon_steps: int = eqx.field(static=True)
    through_steps: bool = eqx.field(static=True)

    def __init__(
        self, *, penalty: Penalty = "none", strengths: float | tuple[float, float] = 1.0,
        aggregate: Aggregate = "sum", sampler: Literal["unbiased", "biased"] = "unbiased",
        taylor_order: int = 3, end_width: float = 0.0, horizon_steps: int = 1, through_steps: bool = True,
        **given: Any,
    ):  # fmt: skip
        if penalty not in get_args(Penalty):
            raise ValueError(f"penalty must be one of {', '.join(get_args(Penalty))}, not {penalty!r}")  # fmt: skip
        if aggregate not in get_args(Aggregate) or sampler not in ("unbiased", "biased"):
            raise ValueError(f'aggregate must be sum, mean or max and sampler "unbiased" or "biased", not {aggregate!r} and {sampler!r}')  # fmt: skip
        pair = strengths if isinstance(strengths, tuple) else (strengths, strengths)
        if not all(s > 0 for s in pair):
            raise ValueError(f"strengths must be above 0, not {strengths}")
        if not 0 <= end_width < 1 or horizon_steps < 1:
            raise ValueError(f"end_width must be from 0 to below 1 and horizon_steps at least 1, not {end_width} and {horizon_steps}")  # fmt: skip
        super().__init__(**given)
        self.strengths = jnp.asarray(pair, jnp.float32)
        self.end_width = jnp.asarray(end_width, jnp.float32)
        self.penalty, self.aggregate, self.sampler = penalty, aggregate, sampler
        self.taylor_order, self.horizon_steps = taylor_order, horizon_steps
        self.through_steps = through_steps

    def cost(
        self, model: NeuralODE, x: Array, y: Array, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        """What a step descends; the evaluations it took and its penalty, before the strength."""
        end_key, point_key, head_key = jax.random.split(key, 3)
        end = random_end(end_key, 1.0, self.end_width)
        local = self.penalty.removeprefix("local_") if self.penalty.startswith("local") else None
        options: dict[str, Any] = {"through_steps": self.through_steps}
        if local:
            options["catch"] = point_to_catch(point_key, 0.0, end, self.sampler)
        if self.penalty == "taylor":
            found, extra = _with_taylor(model, x, end, self.taylor_order, options)
            last, more = found.y[0], 0
        else:
            found = model.solution(x, end, **options)
            last, extra, more = found.y, jnp.zeros(()), 0
        if local:
            tolerances = {"rtol": model.rtol, "atol": model.atol}
            extra, more = local_penalty(model.field, found.caught, end, kind=local, **tolerances), len(TSIT5.c) + 1  # fmt: skip  # pyright: ignore
        elif self.penalty in ("error", "error_squared", "stiffness"):
            extra = solver_penalty(found, self.penalty, self.aggregate)
        loss = self.objective(call(model.head, last, head_key, True), y, step)
        share = jnp.minimum(step / self.horizon_steps, 1.0)
        weight = annealed(self.strengths[0], self.strengths[1], share).astype(extra.dtype)
        return loss + weight * extra, (found.evaluations + more, extra)

    def step(self, state: SupervisedState) -> Stepped:
        x, y = self.batch(state)
        key = step_key(state.key, state.step)

        def objective(model: Any) -> tuple[Array, Any]:
            return self.cost(model, x, y, key, state.step)

        slopes, seen, (evaluations, extra) = gradients(objective, state.model, has_aux=True)
        rule = self.optimiser(**self.hyper)
        model, moments = update(rule, slopes, state.optimiser, state.model, seen)
        told = {"train_evaluations": evaluations.astype(jnp.float32), "penalty": extra}
        return Stepped(state._replace(model=model, optimiser=moments, step=state.step + 1), told)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        found = state.model.solution(self.dataset(state).x_test, loop="forward")
        own = {
            "evaluations": found.evaluations,
            "steps": found.accepted,
            "rejected": found.rejected,
        }
        return super().observe(state) | own

    def quantities(self) -> dict[str, Quantity]:
        return super().quantities() | {
            "evaluations": Quantity("evaluations", about="of the field, for the test examples"),
            "steps": Quantity("steps", about="accepted, for the test examples"),
            "rejected": Quantity("steps", about="rejected, for the test examples"),
            "train_evaluations": Quantity(
                "evaluations", about="of the field, of a training step", over="mean"
            ),
            "penalty": Quantity("1", about="penalty of a training step", over="mean"),
        }


def classifier(
    size: int, hidden: int, classes: int, *, bounded: bool = True, dtype: Any = jnp.float32,
    **tolerances: Any,
) -> Callable[[PRNGKeyArray], NeuralODE]:  # fmt: skip
    """Builds the papers' network from a key: a `TanhField` over the inputs, and a linear readout, in `dtype`."""

    def build(key: PRNGKeyArray) -> NeuralODE:
        one, two = jax.random.split(key)
        field = TanhField(size, hidden, key=one, bounded=bounded)
        model = NeuralODE(field, Linear(size, classes, key=two), **tolerances)
        return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, model)

    return build


def _with_time(t: Any, z: Array) -> Array:
    column = jnp.full((*z.shape[:-1], 1), t, z.dtype)
    return jnp.concatenate([z, column], axis=-1)


def _with_taylor(
    model: NeuralODE, x: Array, end: Any, order: int, options: dict[str, Any]
) -> tuple[Solution, Array]:
    state = (x, jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32)))
    tolerances = {"rtol": model.rtol, "atol": model.atol, "max_steps": model.max_steps}
    found = solve(with_taylor(model.field, order), 0.0, end, state, counted=lambda s: s[0], **tolerances, **options)  # fmt: skip
    return found, found.y[1]
