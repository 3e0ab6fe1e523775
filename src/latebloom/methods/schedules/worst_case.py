"""Nonsmooth convex problems of known size, on which last-iterate bounds can be held to their word.

Every problem starts at distance D = 1 from the point u that it is measured against, and its oracle
answers with E |g|^2 <= G^2 = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.optim.tail_weights import last_iterate


class Drifts(eqx.Module):
    """Several (c / sqrt(T)) |x| from 1, seen through signs that are wrong almost as often as right.

    The coordinates are problems of their own. c = sqrt(T) is |x| itself, seen exactly.
    """

    slopes: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(f"drift-{c:g}" for c in self.slopes), "absolute")

    def start(self, key: PRNGKeyArray, steps: int) -> tuple[Any, Float[Array, " dim"]]:
        """What this run draws, and where it starts."""
        steep = jnp.asarray([*self.slopes, steps**0.5], jnp.float32) / steps**0.5
        return steep, jnp.ones(len(steep))

    def excess(self, data: Any, x: Float[Array, " dim"]) -> Float[Array, " names"]:
        """f(x) - f(u) of each problem."""
        return data * jnp.abs(x)

    def oracle(self, data: Any, x: Float[Array, " dim"], key: PRNGKeyArray) -> Array:
        """A subgradient at x, plus noise of mean 0."""
        right = jax.random.bernoulli(key, (1 + data) / 2)
        return jnp.where(right == (x >= 0), 1.0, -1.0)


class Planes(eqx.Module):
    """max_i |<a_i, x>| with random a_i of length 1/2 and Gaussian noise of mean square 3/4."""

    dim: int = 10
    count: int = 20
    names: tuple[str, ...] = ("planes",)

    def start(self, key: PRNGKeyArray, steps: int) -> tuple[Any, Float[Array, " dim"]]:
        rows = jax.random.normal(key, (self.count + 1, self.dim))
        rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return rows[1:] / 2, rows[0]

    def excess(self, data: Any, x: Float[Array, " dim"]) -> Float[Array, " names"]:
        return jnp.abs(data @ x).max(keepdims=True)

    def oracle(self, data: Any, x: Float[Array, " dim"], key: PRNGKeyArray) -> Array:
        heights = data @ x
        top = jnp.abs(heights).argmax()
        noise = jax.random.normal(key, x.shape) * jnp.sqrt(0.75 / self.dim)
        return jnp.sign(heights[top]) * data[top] + noise


class Staircase(eqx.Module):
    """max_i <h_i, x>, cut off below at its value in u, from 0: hard for the last of T equal steps.

    Over T + 1 coordinates, h_i climbs by `rise` / (T + 2 - j) in every j < i and falls in the i-th.
    Each step falls off one plane onto the next, and all of them add up in the end.

    Source: the construction of Harvey et al. 2019 (arXiv 1812.05217), with other constants.
    """

    rise: float = 0.35
    names: tuple[str, ...] = ("staircase",)

    def start(self, key: PRNGKeyArray, steps: int) -> tuple[Any, Float[Array, " dim"]]:
        climb = self.rise / jnp.arange(steps + 2, 1, -1, dtype=jnp.float32)
        fall = jnp.sqrt(1 - jnp.sum(climb**2))  # so that no |h_i| exceeds 1

        def level(total: Array, a: Array) -> tuple[Array, Array]:
            u = (1 + total) / fall  # makes <h_i, u> = -1 for every i
            return total + a * u, u

        _, u = jax.lax.scan(level, jnp.float32(0), climb)
        return (climb, fall, 1 / jnp.linalg.norm(u)), jnp.zeros(steps + 1)

    def _heights(self, data: Any, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        climb, fall, _ = data
        return jnp.append(0.0, jnp.cumsum(climb * x)[:-1]) - fall * x

    def excess(self, data: Any, x: Float[Array, " dim"]) -> Float[Array, " names"]:
        return jnp.maximum(self._heights(data, x).max(keepdims=True) + data[2], 0.0)

    def oracle(self, data: Any, x: Float[Array, " dim"], key: PRNGKeyArray) -> Array:
        climb, fall, depth = data
        heights, places = self._heights(data, x), jnp.arange(len(x))
        highest = heights.max()
        top = (heights >= highest - 1e-6).argmax()  # of equals up to rounding, the first
        plane = jnp.where(places < top, climb, jnp.where(places == top, -fall, 0.0))
        return jnp.where(highest > -depth, plane, 0.0)


STAIRS = 1000  # the staircase has one dimension a step: longer runs do without it
SCHEDULES = ("linear", "flat", "inverse-sqrt")


def problems(steps: int) -> tuple[Any, ...]:
    """What a run of `steps` steps is held to."""
    return (Drifts(), Planes(), *((Staircase(),) if steps <= STAIRS else ()))


class WorstCaseState(NamedTuple):
    data: tuple[Any, ...]  # by problem, [repeat, ...] each
    x: dict[str, tuple[Array, ...]]  # by schedule and problem, [repeat, scale, dim] each
    optimisers: dict[str, tuple[Any, ...]]
    key: PRNGKeyArray
    step: Int[Array, ""]


class WorstCase(Process):
    """Subgradient descent with three schedules on all problems, at the step sizes that theory names.

    Linear decay is `last_iterate(optax.sgd(D / (G sqrt(T))), ones)`; the others are plain descent
    with D / (G sqrt(T)) and D / (G sqrt(t)). Each also runs at multiples `scales` of that.

    Observes `ratio`: (f(x) - f(u)) sqrt(T) / (D G), mean over `repeats` runs. Theory promises at
    most 1 for linear decay at scale 1 after all `steps` T.

    Raises `ValueError` for fewer than 2 steps or no repeats.
    """

    scales: Float[Array, " scales"]
    steps: int = eqx.field(static=True)
    repeats: int = eqx.field(static=True)

    def __init__(
        self, steps: int, repeats: int = 5, scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    ):
        if steps < 2 or repeats < 1:
            raise ValueError(f"steps must be at least 2, repeats 1, not {steps} and {repeats}")
        self.steps, self.repeats, self.scales = steps, repeats, jnp.asarray(scales, jnp.float32)

    def _optimiser(self, schedule: str, scale: Array) -> optax.GradientTransformation:
        rate = scale / self.steps**0.5
        if schedule == "linear":
            return last_iterate(optax.sgd(rate), np.ones(self.steps, np.float32))
        if schedule == "flat":
            return optax.sgd(rate)
        return optax.sgd(lambda count: scale / jnp.sqrt(count + 1.0))

    def _each(self, function: Callable[..., Any], shared: Any, *own: Any) -> Any:
        """`function(scale, shared, *own)` for every repeat and scale; `own` differ by scale too."""
        by_scale = jax.vmap(function, in_axes=(0, None, *(0 for _ in own)))
        return jax.vmap(lambda s, *o: by_scale(self.scales, s, *o))(shared, *own)

    def init(self, key: PRNGKeyArray) -> WorstCaseState:
        start_key, noise_key = jax.random.split(key)
        keys = jax.random.split(start_key, self.repeats)
        drawn = [jax.vmap(lambda k: p.start(k, self.steps))(keys) for p in problems(self.steps)]  # noqa: B023
        x = tuple(self._each(lambda _, z: z, start) for _, start in drawn)
        optimisers = {
            s: tuple(self._each(lambda c, z: self._optimiser(s, c).init(z), z) for _, z in drawn)  # noqa: B023
            for s in SCHEDULES
        }
        data = tuple(found for found, _ in drawn)
        return WorstCaseState(data, {s: x for s in SCHEDULES}, optimisers, noise_key, jnp.int32(0))

    def step(self, state: WorstCaseState) -> WorstCaseState:
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), self.repeats)
        x, optimisers = {}, {}
        for schedule in SCHEDULES:
            moved = [
                self._move(schedule, problem, data, keys, at, inner)
                for problem, data, at, inner in zip(
                    problems(self.steps), state.data, state.x[schedule],
                    state.optimisers[schedule], strict=True,
                )
            ]  # fmt: skip
            x[schedule], optimisers[schedule] = zip(*moved, strict=True)
        return WorstCaseState(state.data, x, optimisers, state.key, state.step + 1)

    def _move(
        self, schedule: str, problem: Any, data: Any, keys: Array, x: Array, inner: Any
    ) -> tuple[Array, Any]:
        def one(scale: Array, run: tuple[Any, Array], x: Array, inner: Any) -> tuple[Array, Any]:
            drawn, key = run
            gradient = problem.oracle(drawn, x, key)
            change, inner = self._optimiser(schedule, scale).update(gradient, inner, x)
            return jnp.add(x, change), inner  # pyright: ignore

        return self._each(one, (data, keys), x, inner)

    def observe(self, state: WorstCaseState) -> dict[str, Array]:
        def ratios(schedule: str) -> Array:
            found = [
                self._each(lambda _, d, z: p.excess(d, z), data, x).mean(axis=0)  # noqa: B023
                for p, data, x in zip(
                    problems(self.steps), state.data, state.x[schedule], strict=True
                )
            ]
            return jnp.concatenate(found, axis=-1) * self.steps**0.5

        return {"ratio": jnp.stack([ratios(schedule) for schedule in SCHEDULES])}

    def quantities(self) -> dict[str, Quantity]:
        names = [name for problem in problems(self.steps) for name in problem.names]
        dims = ("schedule", "scale", "instance")
        coords = {"schedule": SCHEDULES, "instance": names}
        return {"ratio": Quantity("D G / √T", dims, coords, "excess loss of the last iterate")}
