"""Training one model for a whole range of settings, at several learning rates side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.core.statistics import batch_statistics, trainable_leaves, update_statistics


class Task(Protocol):
    """What is to be learned: batches, a loss for a primary network at a setting, and its exam."""

    def sample(self, key: PRNGKeyArray) -> Any: ...

    def loss(self, primary: Any, settings: Float[Array, " d"], batch: Any) -> Float[Array, ""]: ...

    def evaluate(self, primary: Any, settings: Float[Array, " d"]) -> Float[Array, ""]: ...


class TrainingState(NamedTuple):
    models: Any  # one for each learning rate
    moments: Any
    alive: Bool[Array, " r"]
    key: PRNGKeyArray
    step: Int[Array, ""]


class ConditionalTraining(Process):
    """Gradient descent on the mean loss over settings that are drawn anew in every step.

    - `task`: a `Task`. `model(key)` builds a `Hypernetwork`, or anything with its `weights` and
      `combine`.
    - `draw(key)`: the settings of a step, [b, d]; all of them meet the same batch.
    - `optimiser(rate)`: an Optax transformation. `rates`: the learning rates, which share the
      start and the batches. A run whose weights stop being finite stands still, its loss is NaN.
    - `grid`: settings [g, d] at which the model is examined.
    - `by`: "vmap" trains the rates and evaluates the settings side by side, "map" one after
      another, which is right for convolutional networks.

    Observed: `loss` [rate] and `loss_at` [rate, setting], `alive` [rate].
    """

    task: Any
    model: Callable[[PRNGKeyArray], Any]
    draw: Callable[[PRNGKeyArray], Float[Array, "b d"]]
    optimiser: Callable[[Any], optax.GradientTransformation]
    rates: Float[Array, " r"]
    grid: Float[Array, "g d"]
    by: Literal["vmap", "map"] = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, task: Task, model: Callable[[PRNGKeyArray], Any],
        draw: Callable[[PRNGKeyArray], Array],
        optimiser: Callable[[Any], optax.GradientTransformation],
        rates: Sequence[float], grid: Float[Array, "g d"], by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if not len(rates) or min(rates) <= 0:
            raise ValueError(f"rates must be positive numbers, not {list(rates)}")
        self.task, self.model, self.draw, self.optimiser = task, model, draw, optimiser
        self.rates, self.grid = jnp.asarray(rates, jnp.float32), jnp.asarray(grid, jnp.float32)
        self.by, self.seeds_by = by, by

    def init(self, key: PRNGKeyArray) -> TrainingState:
        model_key, key = jax.random.split(key)
        model = self.model(model_key)

        def start(rate: Array) -> tuple[Any, Any]:
            flat, _ = ravel_pytree(eqx.filter(model, trainable_leaves(model)))
            return eqx.filter(model, eqx.is_array), self.optimiser(rate).init(flat)

        arrays, moments = jax.vmap(start, out_axes=0, axis_size=len(self.rates))(self.rates)
        models = eqx.combine(arrays, eqx.filter(model, eqx.is_array, inverse=True))
        return TrainingState(
            models, moments, jnp.ones(len(self.rates), bool), key, jnp.int32(0)
        )  # fmt: skip

    def objective(self, model: Any, settings: Float[Array, "b d"], batch: Any) -> tuple[Array, Any]:
        """Mean loss over the settings, and what batch normalisations saw."""
        with batch_statistics(model) as seen:
            weights = model.weights(settings, train=True)

        def one(weights: Any, settings: Array) -> Array:
            return self.task.loss(model.combine(weights), settings, batch)

        return _each(one, self.by, weights, settings).mean(), seen

    def step(self, state: TrainingState) -> TrainingState:
        batch_key, draw_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch, settings = self.task.sample(batch_key), self.draw(draw_key)
        arrays, rest = eqx.partition(state.models, eqx.is_array)

        def descend(arrays: Any, moments: Any, alive: Array, rate: Array) -> tuple[Any, Any, Array]:
            model = eqx.combine(arrays, rest)
            params, others = eqx.partition(model, trainable_leaves(model))
            # One vector of all parameters: the optimiser compiles to a few operations.
            flat, unravel = ravel_pytree(params)

            def value(flat: Array) -> tuple[Array, Any]:
                return self.objective(eqx.combine(unravel(flat), others), settings, batch)

            gradient, seen = jax.grad(value, has_aux=True)(flat)
            updates, moved = self.optimiser(rate).update(gradient, moments, flat)
            new = flat + jnp.asarray(updates)
            alive = alive & jnp.isfinite(new).all()
            moments = jax.tree.map(partial(jnp.where, alive), moved, moments)
            model = eqx.combine(unravel(jnp.where(alive, new, flat)), others)
            return eqx.filter(update_statistics(model, seen), eqx.is_array), moments, alive

        arrays, moments, alive = _each(
            descend, self.by, arrays, state.moments, state.alive, self.rates
        )
        models = eqx.combine(arrays, rest)
        return TrainingState(models, moments, alive, state.key, state.step + 1)

    def observe(self, state: TrainingState) -> dict[str, Array]:
        arrays, rest = eqx.partition(state.models, eqx.is_array)

        def exam(arrays: Any) -> Array:
            model = eqx.combine(arrays, rest)
            weights = model.weights(self.grid)
            one = lambda w, s: self.task.evaluate(model.combine(w), s)  # noqa: E731
            return _each(one, self.by, weights, self.grid)

        found = _each(exam, self.by, arrays)
        found = jnp.where(state.alive[:, None] & jnp.isfinite(found), found, jnp.nan)
        return {"loss": found.mean(-1), "loss_at": found, "alive": state.alive}

    def quantities(self) -> dict[str, Quantity]:
        rates, grid = np.asarray(self.rates).tolist(), np.asarray(self.grid)
        coords = {"rate": rates}
        places = {"setting": grid[:, 0].round(6).tolist()}
        return {
            "loss": Quantity("1", ("rate",), coords, "validation loss, mean over settings", True),
            "loss_at": Quantity("1", ("rate", "setting"), coords | places, "validation loss", True),
            "alive": Quantity("1", ("rate",), coords, "weights are finite"),
        }


class SeparateNetworks(eqx.Module):
    """One primary network for each of several settings: what a hypernetwork is measured against.

    `weights(settings)` gives those of the nearest setting.
    """

    networks: Any  # leading axis g
    kept: Any
    grid: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def __init__(self, primary: Callable[[PRNGKeyArray], Any], grid: Float[Array, "g d"], key: PRNGKeyArray):  # fmt: skip
        made = [primary(k) for k in jax.random.split(key, len(grid))]
        parts = [eqx.partition(p, trainable_leaves(p)) for p in made]
        self.networks = jax.tree.map(lambda *w: jnp.stack(w), *[p for p, _ in parts])
        self.kept = parts[0][1]
        self.grid = tuple(tuple(map(float, row)) for row in np.asarray(grid))

    def weights(self, settings: Float[Array, "b d"], *, train: bool = False) -> Any:
        distance = jnp.square(settings[:, None] - jnp.asarray(self.grid)).sum(-1)
        nearest = distance.argmin(-1)
        return jax.tree.map(lambda w: w[nearest], self.networks)

    def combine(self, weights: Any) -> Any:
        return eqx.combine(weights, self.kept)


def _each(function: Callable[..., Any], by: Literal["vmap", "map"], *arguments: Any) -> Any:
    if by == "vmap":
        return jax.vmap(function)(*arguments)
    return jax.lax.map(lambda one: function(*one), arguments)
