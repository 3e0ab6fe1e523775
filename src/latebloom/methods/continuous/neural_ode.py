"""Classification by a network that is a differential equation, with the penalties that make it cheap to solve."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from latebloom.core.calling import call
from latebloom.core.odes import TSIT5, Solution, WithArguments, solve
from latebloom.core.process import Quantity, Stepped
from latebloom.core.training import Supervised, SupervisedState, gradients, step_key, update
from latebloom.methods.continuous.kinetic import with_kinetic
from latebloom.methods.continuous.regularisers import (
    KINDS,
    Aggregate,
    annealed,
    local_penalty,
    point_to_catch,
    random_end,
    solver_penalty,
)
from latebloom.methods.continuous.taylor import with_taylor
from latebloom.methods.continuous.work import backward_work
from latebloom.nn.mlp import Linear

Penalty = Literal[
    "none", "error", "error_squared", "stiffness", "error_and_stiffness", "local_error", "local_stiffness", "taylor", "kinetic",
]  # fmt: skip


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
    """Any network from [batch, size + 1], the state and time, to [batch, size], as a field. Its dropout is off.

    `time=False`: it sees the state alone, [batch, size].
    """

    network: Any
    time: bool = eqx.field(static=True, default=True)

    def __call__(self, t: Any, z: Shaped[Array, "batch size"]) -> Shaped[Array, "batch size"]:
        return call(self.network, _with_time(t, z) if self.time else z)


def as_field(given: Any, *, args: Any = None, time: bool = False) -> Any:
    """What others write, as a field of (t, y): a Diffrax term, f(t, y, args), f(t, y), or a network.

    - With one input it is a network of the state, or with `time` of the state and time in one, of a batch or an example.
    - `args`: the third input. Gradients reach arrays in both.

    Raises `TypeError` for what is called with none of that, and for terms that are no ordinary equations.
    """
    if hasattr(given, "vf"):
        return WithArguments(given, args)
    if not callable(given):
        raise TypeError(f"a field must be callable or a term, not {type(given).__name__}")
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(given).parameters.values()
    needed = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if len(needed) == 3:
        return WithArguments(given, args)
    if len(needed) == 2:
        return given
    if len(needed) == 1:
        return NetworkField(given, time)
    raise TypeError(f"a field is called with (t, y), (t, y, args) or (y), not ({', '.join(needed)})")  # fmt: skip


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


class Told(NamedTuple):
    """What a training step tells: evaluations of the field, the penalty before its strength, and work.

    Work is in evaluations of the plain field together with its gradient, by multiplications of matrix products.
    """

    evaluations: Array
    penalty: Array
    work: Array


class NeuralODELearner(Supervised):
    """Gradient descent on a `NeuralODE` with a penalty: cost of the solution and accuracy over training.

    - `penalty`: "error", "error_squared", "stiffness" or "error_and_stiffness" of all steps, gathered by `aggregate`;
      "local_error" or "local_stiffness" of one step from a point drawn by `sampler`; "taylor", the integral of the squared
      derivative of order `taylor_order` (TayNODE); "kinetic", that of kinetic energy and Jacobian (RNODE); or "none".
    - `strengths`: at the first step of `horizon_steps` and after the last, exponentially between; constant if one number.
    - `end_width`: ends of time are drawn from 1 - width to 1 + width in training (STEER); 0 for none.
    - `through_steps`: whether gradients go through the lengths of steps.
    - `show`: of so many first steps, for the test examples, start, length and local error are recorded.

    The rest is as in `Supervised`. Beside what that records, test examples as one batch, without a penalty, give
    `evaluations` of the field, `steps` and `rejected`; each training step tells `train_evaluations` (of the solver, and of
    the local step), `train_work` (see `Told`) and `penalty`.

    Raises what `Supervised` does, and `ValueError` for another penalty, aggregate or sampler, strengths that are not above
    0, a width that is not below 1.
    """

    strengths: Float[Array, " 2"]
    end_width: Float[Array, ""]
    penalty: str = eqx.field(static=True)
    aggregate: str = eqx.field(static=True)
    sampler: str = eqx.field(static=True)
    taylor_order: int = eqx.field(static=True)
    horizon_steps: int = eqx.field(static=True)
    through_steps: bool = eqx.field(static=True)
    show: int = eqx.field(static=True)

    def __init__(
        self, *, penalty: str = "none", strengths: float | tuple[float, float] = 1.0,
        aggregate: str = "sum", sampler: str = "unbiased",
        taylor_order: int = 3, end_width: float = 0.0, horizon_steps: int = 1, through_steps: bool = True,
        show: int = 0, **given: Any,
    ):  # fmt: skip
        if penalty not in self.penalties():
            raise ValueError(f"penalty must be one of {', '.join(self.penalties())}, not {penalty!r}")  # fmt: skip
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
        self.through_steps, self.show = through_steps, show

    @classmethod
    def penalties(cls) -> tuple[str, ...]:
        return get_args(Penalty)

    def strength(self, step: Array) -> Array:
        share = jnp.minimum(step / self.horizon_steps, 1.0)
        return annealed(self.strengths[0], self.strengths[1], share)

    def charged(self, loss: Array, told: Told, step: Array) -> tuple[Array, Told]:
        """The loss with the penalty, as what `cost` returns."""
        return loss + self.strength(step).astype(told.penalty.dtype) * told.penalty, told

    def cost(
        self, model: Any, x: Array, y: Array, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, Told]:
        """What a step descends, and what it tells. Override it for models of other kinds."""
        end_key, point_key, head_key = jax.random.split(key, 3)
        end = random_end(end_key, 1.0, self.end_width)
        last, told = self.solved(model.field, x, end, point_key, tolerances(model))
        return self.charged(self.objective(call(model.head, last, head_key, True), y, step), told, step)  # fmt: skip

    def solved(
        self, field: Any, y0: Any, end: Any, key: PRNGKeyArray, given: dict[str, Any], augmented: Any = None,
        **options: Any,
    ) -> tuple[Any, Told]:  # fmt: skip
        """The state at `end` (with `save`, the states there) of a training step, and what it tells, penalty included.

        `augmented`: the field of (y, integral) of the penalty, where that is not of the plain field alone.
        """
        local = self.penalty.removeprefix("local_") if self.penalty.startswith("local") else None
        options = options | given | {"through_steps": self.through_steps}
        if local:
            options["catch"] = point_to_catch(key, 0.0, end, self.sampler)
        work = 1.0
        if self.penalty == "taylor":
            augmented = with_taylor(field, self.taylor_order)
        elif self.penalty == "kinetic" and augmented is None:
            augmented = with_kinetic(field, jax.random.normal(key, y0.shape, y0.dtype))
        if augmented is None:
            found = solve(field, 0.0, end, y0, **options)
            last, extra, more = found.y, jnp.zeros(()), 0
        else:
            dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(y0))
            state = (y0, jnp.zeros((), dtype))
            found = solve(augmented, 0.0, end, state, counted=lambda s: s[0], **options)
            last, extra, more = found.y[0], found.y[1], 0
            work = backward_work(augmented, 0.0, state) / max(1, backward_work(field, 0.0, y0))
        if local:
            size = {name: options[name] for name in ("rtol", "atol")}
            extra, more = local_penalty(field, found.caught, end, kind=local, **size), len(TSIT5.c) + 1  # fmt: skip  # pyright: ignore
        elif self.penalty in KINDS:
            extra = solver_penalty(found, self.penalty, self.aggregate)
        if "save" in options:
            last = found.saved if augmented is None else found.saved[0]
        evaluations = (found.evaluations + more).astype(jnp.float32)
        return last, Told(evaluations, extra, work * evaluations)

    def step(self, state: SupervisedState) -> Stepped:
        x, y = self.batch(state)
        key = step_key(state.key, state.step)

        def objective(model: Any) -> tuple[Array, Any]:
            return self.cost(model, x, y, key, state.step)

        slopes, seen, told = gradients(objective, state.model, has_aux=True)
        rule = self.optimiser(**self.hyper)
        model, moments = update(rule, slopes, state.optimiser, state.model, seen)
        info = {"train_evaluations": told.evaluations, "train_work": told.work, "penalty": told.penalty}  # fmt: skip
        return Stepped(state._replace(model=model, optimiser=moments, step=state.step + 1), info)

    def costs(self, found: Solution) -> dict[str, Array]:
        """What is recorded of a solution for the test examples."""
        own = {"evaluations": found.evaluations, "steps": found.accepted, "rejected": found.rejected}  # fmt: skip
        if self.show:
            kept = {"start": found.steps.start, "length": found.steps.length, "local_error": found.steps.error}  # fmt: skip  # pyright: ignore
            own |= {name: row[: self.show] for name, row in kept.items()}
        return own

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        given = {"loop": "forward", "record": self.show > 0}
        found = state.model.solution(self.dataset(state).x_test, **given)
        return super().observe(state) | self.costs(found)

    def quantities(self) -> dict[str, Quantity]:
        shown = {
            name: Quantity(units, dims=("slot",), about=f"of a step, {about}", gaps=True)
            for name, units, about in (
                ("start", "1", "its time"), ("length", "1", "its length"), ("local_error", "tolerances", "its scaled error"),
            )
        }  # fmt: skip
        return super().quantities() | (shown if self.show else {}) | {
            "evaluations": Quantity("evaluations", about="of the field, for the test examples"),
            "steps": Quantity("steps", about="accepted, for the test examples"),
            "rejected": Quantity("steps", about="rejected, for the test examples"),
            "train_evaluations": Quantity("evaluations", about="of the field, of a training step", over="mean"),
            "train_work": Quantity("evaluations with gradient", about="matrix products of a training step", over="mean"),
            "penalty": Quantity("1", about="penalty of a training step", over="mean"),
        }  # fmt: skip


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


def tolerances(model: Any) -> dict[str, Any]:
    """What a model says of its solver."""
    return {"rtol": model.rtol, "atol": model.atol, "max_steps": model.max_steps}
