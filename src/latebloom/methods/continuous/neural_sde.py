"""Neural stochastic differential equations with the penalties of their solver: classification, and the fit of moments over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from latebloom.core.calling import call
from latebloom.core.odes import Solution
from latebloom.core.process import Process, Quantity, Stepped
from latebloom.core.sdes import SOSRI, SOSRI2, StochasticTableau, solve_sde
from latebloom.core.training import SupervisedState, gradients, step_key, trainable, update
from latebloom.methods.continuous.neural_ode import NeuralODELearner, Told
from latebloom.methods.continuous.regularisers import KINDS, solver_penalty
from latebloom.nn.mlp import Linear


class NeuralSDE(eqx.Module):
    """[batch, features] -> [batch, classes]: a readout at time 1 of a stochastic equation that starts from `before(x)` at 0.

    - `drift(t, z)`, `diffusion(t, z)`: modules over batches, to what z is; noise is diagonal. `before`, `after`: networks.
    - `trajectories`: how many are averaged, of the readout, outside of training; in training it is one. All of them
      are one system, steps in common.

    Without a key the noise is the same at each call.
    """

    before: Any
    drift: Any
    diffusion: Any
    after: Any
    rtol: float = eqx.field(static=True, default=0.14)
    atol: float = eqx.field(static=True, default=0.14)
    max_steps: int = eqx.field(static=True, default=256)
    trajectories: int = eqx.field(static=True, default=10)
    tableau: StochasticTableau = eqx.field(static=True, default=SOSRI)

    def solution(
        self, x: Shaped[Array, "batch features"], key: PRNGKeyArray | None = None, trajectories: int | None = None,
        **options: Any,
    ) -> Solution:  # fmt: skip
        """The state at the end is [trajectories x batch, size]."""
        count = self.trajectories if trajectories is None else trajectories
        key = jax.random.key(0) if key is None else key
        start = jnp.tile(call(self.before, x), (count, 1))
        given = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps, "tableau": self.tableau}  # fmt: skip
        return solve_sde(self.drift, self.diffusion, 0.0, 1.0, start, key=key, **(given | options))

    def read(self, found: Solution, batch: int) -> Float[Array, "batch classes"]:
        out = call(self.after, found.y)
        return out.reshape(-1, batch, out.shape[-1]).mean(axis=0)

    def __call__(
        self, x: Shaped[Array, "batch features"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch classes"]:  # fmt: skip
        return self.read(self.solution(x, key, 1 if train else None), len(x))


class NeuralSDELearner(NeuralODELearner):
    """`NeuralODELearner` of a `NeuralSDE`: penalties of all its steps, one trajectory of each example in training.

    `evaluations` are of the drift. Random ends, local steps, "taylor" and "kinetic" there are not.
    """

    def __init__(self, **given: Any):
        super().__init__(**given)
        if given.get("end_width", 0.0) or given.get("show", 0):
            raise ValueError("a stochastic learner has no end_width and no show")

    @classmethod
    def penalties(cls) -> tuple[str, ...]:
        return ("none", *KINDS)

    def cost(
        self, model: NeuralSDE, x: Array, y: Array, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, Told]:
        found = model.solution(x, key, 1, through_steps=self.through_steps)
        told = _told(found, self.penalty, self.aggregate)
        return self.charged(self.objective(model.read(found, len(x)), y, step), told, step)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        found = state.model.solution(self.dataset(state).x_test, loop="forward")
        return super(NeuralODELearner, self).observe(state) | self.costs(found)


class Plane(eqx.Module):
    """Drift and diffusion of the spiral: W2 tanh(W1 u^3), and an affine map of u."""

    first: Linear
    second: Linear
    noise: Linear

    def __init__(self, hidden: int, *, key: PRNGKeyArray):
        one, two, three = jax.random.split(key, 3)
        self.first, self.second = Linear(2, hidden, key=one), Linear(hidden, 2, key=two)
        self.noise = Linear(2, 2, key=three)

    def drift(self, t: Any, u: Float[Array, "paths 2"]) -> Float[Array, "paths 2"]:
        return self.second(jnp.tanh(self.first(u**3)))

    def diffusion(self, t: Any, u: Float[Array, "paths 2"]) -> Float[Array, "paths 2"]:
        return self.noise(u)


class MomentState(NamedTuple):
    model: Any
    optimiser: Any
    key: PRNGKeyArray
    step: Array


class MomentFit(Process):
    """A stochastic equation whose paths from `start` are to have given means and variances at given times.

    - `model(key)` has `drift(t, u)` and `diffusion(t, u)` of paths [paths, size]. `means`, `variances`: [times, size].
    - loss: mean squared error of the means plus that of the variances, of `paths` new paths at each step; plus
      `strength` x the penalty ("none", or one of `solver_penalty`).

    Observed with noise of its own, the same at each observation: `fit` (the loss without the penalty), `evaluations` of
    the drift, `steps`, `rejected`. Steps tell `train_evaluations` and `penalty`.

    Source: the spiral of Pal et al. 2021 (arXiv 2105.03918), Sec. 4, and their code.

    Raises `ValueError` for moments that are not [times, size] of the start's size, another penalty, a strength below 0.
    """

    model: Callable[[PRNGKeyArray], Any]
    start: Float[Array, " size"]
    times: Float[Array, " times"]
    means: Float[Array, "times size"]
    variances: Float[Array, "times size"]
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Any]
    strength: Float[Array, ""]
    penalty: str = eqx.field(static=True)
    aggregate: str = eqx.field(static=True)
    paths: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    tableau: StochasticTableau = eqx.field(static=True)

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], start: Any, times: Any, means: Any, variances: Any,
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any], strength: float = 0.2,
        penalty: str = "none", aggregate: str = "sum", paths: int = 100, tolerance: float = 0.3,
        max_steps: int = 256,
    ):  # fmt: skip
        start, times, means, variances = (jnp.asarray(a, jnp.float32) for a in (start, times, means, variances))  # fmt: skip
        wanted = (len(times), *start.shape)
        if start.ndim != 1 or means.shape != wanted or variances.shape != wanted:
            raise ValueError(f"means and variances must be [times, size], {list(wanted)}, not {list(means.shape)} and {list(variances.shape)}")  # fmt: skip
        if penalty not in ("none", *KINDS) or strength < 0:
            raise ValueError(f"penalty must be none or one of {', '.join(KINDS)}, and strength from 0 on, not {penalty!r} and {strength}")  # fmt: skip
        self.model, self.optimiser = model, optimiser
        self.start, self.times, self.means, self.variances = start, times, means, variances
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.strength = jnp.asarray(strength, jnp.float32)
        self.penalty, self.aggregate, self.paths = penalty, aggregate, paths
        self.tolerance, self.max_steps = tolerance, max_steps
        self.tableau = SOSRI2 if "stiffness" in penalty else SOSRI

    def init(self, key: PRNGKeyArray) -> MomentState:
        one, two = jax.random.split(key)
        model = self.model(one)
        rule = self.optimiser(**self.hyper)
        return MomentState(model, rule.init(trainable(model)), two, jnp.int32(0))

    def solution(self, model: Any, key: PRNGKeyArray, **options: Any) -> Solution:
        paths = jnp.tile(self.start, (self.paths, 1))
        given = {"rtol": self.tolerance, "atol": self.tolerance, "max_steps": self.max_steps, "tableau": self.tableau}  # fmt: skip
        return solve_sde(
            model.drift, model.diffusion, self.times[0], self.times[-1], paths, key=key, save=self.times, **given, **options,
        )  # fmt: skip

    def fit(self, found: Solution) -> Array:
        paths = found.saved  # [times, paths, size]
        missed = paths.mean(axis=1) - self.means
        spread = paths.var(axis=1, ddof=1) - self.variances
        return (missed**2).mean() + (spread**2).mean()

    def step(self, state: MomentState) -> Stepped:
        key = step_key(state.key, state.step)

        def objective(model: Any) -> tuple[Array, Told]:
            found = self.solution(model, key)
            told = _told(found, self.penalty, self.aggregate)
            return self.fit(found) + self.strength * told.penalty, told

        slopes, seen, told = gradients(objective, state.model, has_aux=True)
        model, moments = update(self.optimiser(**self.hyper), slopes, state.optimiser, state.model, seen)  # fmt: skip
        info = {"train_evaluations": told.evaluations, "penalty": told.penalty}
        return Stepped(MomentState(model, moments, state.key, state.step + 1), info)

    def observe(self, state: MomentState) -> dict[str, Array]:
        found = self.solution(state.model, jax.random.fold_in(state.key, 0xE5A), loop="forward")
        return {"fit": self.fit(found), "evaluations": found.evaluations, "steps": found.accepted, "rejected": found.rejected,
                "mean": found.saved.mean(axis=1), "variance": found.saved.var(axis=1, ddof=1)}  # fmt: skip

    def quantities(self) -> dict[str, Quantity]:
        axes: Any = {"dims": ("time", "axis"), "coords": {"time": [float(t) for t in self.times]}}
        return {
            "fit": Quantity("squared units", about="misfit of means and variances"),
            "evaluations": Quantity(
                "evaluations", about="of the drift, of all paths as one system"
            ),
            "steps": Quantity("steps", about="accepted"),
            "rejected": Quantity("steps", about="rejected"),
            "mean": Quantity("1", **axes),
            "variance": Quantity("1", **axes),
            "train_evaluations": Quantity(
                "evaluations", about="of the drift, of a training step", over="mean"
            ),
            "penalty": Quantity("1", about="penalty of a training step", over="mean"),
        }


def stochastic_classifier(
    size: int, width: int, hidden: int, classes: int, **options: Any
) -> Callable[[PRNGKeyArray], NeuralSDE]:
    """Builds the paper's network from a key: an affine map to `width`, drift by `hidden` tanh units, affine diffusion, readout."""

    def build(key: PRNGKeyArray) -> NeuralSDE:
        keys = jax.random.split(key, 5)
        drift = _Tanh(Linear(width, hidden, key=keys[1]), Linear(hidden, width, key=keys[2]))
        diffusion = _Affine(Linear(width, width, key=keys[3]))
        ends = Linear(size, width, key=keys[0]), Linear(width, classes, key=keys[4])
        return NeuralSDE(ends[0], drift, diffusion, ends[1], **options)

    return build


class _Tanh(eqx.Module):
    first: Linear
    second: Linear

    def __call__(self, t: Any, z: Array) -> Array:
        return self.second(jnp.tanh(self.first(z)))


class _Affine(eqx.Module):
    map: Linear

    def __call__(self, t: Any, z: Array) -> Array:
        return self.map(z)


def _told(found: Solution, penalty: str, aggregate: str) -> Told:
    extra = jnp.zeros(()) if penalty == "none" else solver_penalty(found, penalty, aggregate)
    evaluations = found.evaluations.astype(jnp.float32)
    return Told(evaluations, extra, evaluations)
