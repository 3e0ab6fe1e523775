"""Lazy and rich learning in a polynomial committee machine, exactly.

Kumar, Bordelon, Gershman, Pehlevan (2024), "Grokking as the transition from lazy to rich training
dynamics", arXiv 2310.06110: the network f(x) = (alpha/N) sum_i phi(w_i.x), phi(h) = h + eps/2 h^2,
learns y = (beta.x)^2 / 2 from Gaussian inputs. It first fits the training set as a linear model in
its parameters would (lazy) and only later turns its weights towards beta (rich). `alpha` sets how
lazy it is, `eps` how well its initial tangent kernel suits the task.

The readout is fixed, so two statistics of the weights say everything: their mean wbar and second
moment M = (1/N) sum_i w_i w_i^T. The function is alpha (wbar.x + eps/2 x^T M x), its population
loss has a closed form in three terms, and gradient descent moves every neuron by one and the same
affine map, so that training costs O(P D^2 + D^3) a step whatever the width N, and N may be
infinite. The closed weight dynamics are derived here; they are not the paper's dynamical mean
field theory, which is not implemented.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.core.training import Supervised
from latebloom.data import Dataset
from latebloom.probes.ntk import (
    kernel_alignment,
    kernel_movement,
    kernel_weights,
    task_spectrum,
)


class Statistics(NamedTuple):
    """Mean and second moment of a committee's weight vectors."""

    mean: Float[Array, " D"]
    moment: Float[Array, "D D"]


class LossTerms(NamedTuple):
    """The three terms of the population loss; `total` is their sum."""

    linear: Float[Array, ""]
    misalignment: Float[Array, ""]
    trace: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        return self.linear + self.misalignment + self.trace


class Task(NamedTuple):
    """A training sample of the quadratic teacher."""

    x: Float[Array, "P D"]
    y: Float[Array, " P"]
    teacher: Float[Array, " D"]


def sample_task(key: PRNGKeyArray, samples: int, dim: int, dtype: jnp.dtype | type) -> Task:
    """Draw a teacher beta ~ N(0, I) and `samples` pairs x ~ N(0, I/D), y = (beta.x)^2 / 2."""
    key_x, key_teacher = jax.random.split(key)
    x = jax.random.normal(key_x, (samples, dim), dtype) / dim**0.5
    teacher = jax.random.normal(key_teacher, (dim,), dtype)
    return Task(x, (x @ teacher) ** 2 / 2, teacher)


class CommitteeMachine(eqx.Module):
    """The N-neuron network [batch, D] -> [batch]; only `weights` ~ scale * N(0, 1) are trained."""

    weights: Float[Array, "N D"]
    alpha: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        neurons: int,
        *,
        key: PRNGKeyArray,
        alpha: float = 1.0,
        epsilon: float = 0.25,
        scale: float = 1.0,
        dtype: jnp.dtype | type = jnp.float32,
    ):
        if dim < 1 or neurons < 1:
            raise ValueError(f"dim and neurons must be at least 1, got {dim} and {neurons}.")
        self.weights = scale * jax.random.normal(key, (neurons, dim), dtype)
        self.alpha = alpha
        self.epsilon = epsilon

    def __call__(
        self, x: Float[Array, "batch D"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, " batch"]:
        h = x @ self.weights.T
        return self.alpha * jnp.mean(h + self.epsilon / 2 * h**2, axis=1)


def statistics(weights: Float[Array, "N D"]) -> Statistics:
    """Return the mean and second moment of weight vectors."""
    return Statistics(weights.mean(axis=0), weights.T @ weights / weights.shape[0])


def infinite_width(dim: int, dtype: jnp.dtype | type) -> Statistics:
    """Return the statistics of infinitely many N(0, I) weight vectors: mean 0, moment I."""
    return Statistics(jnp.zeros(dim, dtype), jnp.eye(dim, dtype=dtype))


def output(
    x: Float[Array, "n D"], at: Statistics, alpha: Array | float, epsilon: Array | float
) -> Float[Array, " n"]:
    """Return f(x) = alpha (wbar.x + eps/2 x^T M x), exact at every width."""
    return alpha * (x @ at.mean + epsilon / 2 * jnp.sum((x @ at.moment) * x, axis=1))


def population_loss(
    at: Statistics,
    teacher: Float[Array, " D"],
    alpha: Array | float,
    epsilon: Array | float,
) -> LossTerms:
    """Return E (y - f)^2 over x ~ N(0, I/D), split as in the paper.

    With A = alpha eps M - beta beta^T: the useless linear power alpha^2 |wbar|^2 / D, the
    misalignment ||A||_F^2 / (2 D^2) and the trace (overall scale) term (tr A)^2 / (4 D^2).
    """
    dim = teacher.shape[0]
    gap = alpha * epsilon * at.moment - jnp.outer(teacher, teacher)
    return LossTerms(
        alpha**2 * jnp.sum(at.mean**2) / dim,
        jnp.sum(gap**2) / (2 * dim**2),
        jnp.trace(gap) ** 2 / (4 * dim**2),
    )


def target_power(teacher: Float[Array, " D"]) -> Float[Array, ""]:
    """Return E y^2 = 3 |beta|^4 / (4 D^2): the population loss of predicting zero."""
    return 3 * jnp.sum(teacher**2) ** 2 / (4 * teacher.shape[0] ** 2)


def tangent_kernel(
    x: Float[Array, "n D"],
    other: Float[Array, "m D"],
    at: Statistics,
    alpha: Array | float,
    epsilon: Array | float,
) -> Float[Array, "n m"]:
    """Return N times the exact tangent kernel (the step size eta is taken proportional to N).

    K(x, x') = alpha^2 (x.x') [1 + eps wbar.(x + x') + eps^2 x^T M x'].
    """
    linear = (x @ at.mean)[:, None] + (other @ at.mean)[None]
    return (
        alpha**2 * (x @ other.T) * (1 + epsilon * linear + epsilon**2 * (x @ at.moment @ other.T))
    )


def kernel_plateau(
    x: Float[Array, "P D"],
    y: Float[Array, " P"],
    at: Statistics,
    alpha: Array | float,
    epsilon: Array | float,
) -> Statistics:
    """Return the function that kernel regression of y with `tangent_kernel` at `at` ends in.

    That function is again alpha (w.x + eps/2 x^T Q x), so it comes as statistics (w, Q) for
    `population_loss` and `output`. The kernel's quadratic part is O(eps^2) of the whole: give
    float64 arrays, or the solve is noise.
    """
    dual = kernel_weights(tangent_kernel(x, x, at, alpha, epsilon), y)
    moved = x.T @ dual
    linear = alpha * (x.T @ (dual * (1 + epsilon * (x @ at.mean))))
    half = jnp.outer(moved, at.mean) + epsilon * (x.T * dual) @ x @ at.moment
    return Statistics(linear, alpha * (half + half.T))


def residual_moments(
    x: Float[Array, "P D"], residual: Float[Array, " P"]
) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
    """Return the sample means of Delta x and Delta x x^T, with Delta = y - f."""
    samples = x.shape[0]
    return residual @ x / samples, (x.T * residual) @ x / samples


def population_moments(
    at: Statistics, teacher: Float[Array, " D"], alpha: Array | float, epsilon: Array | float
) -> tuple[Float[Array, " D"], Float[Array, "D D"]]:
    """Return E Delta x = -alpha wbar / D and E Delta x x^T = -(A + tr(A)/2 I) / D^2 (P -> inf)."""
    dim = teacher.shape[0]
    gap = alpha * epsilon * at.moment - jnp.outer(teacher, teacher)
    second = gap + jnp.trace(gap) / 2 * jnp.eye(dim, dtype=gap.dtype)
    return -alpha * at.mean / dim, -second / dim**2


class Motion(NamedTuple):
    """The affine map w_i -> w_i + turn w_i + shift that took every neuron from its start."""

    turn: Float[Array, "D D"]
    shift: Float[Array, " D"]


def moved_statistics(start: Statistics, motion: Motion, linearised: bool = False) -> Statistics:
    """Return the statistics after a motion; to first order in the motion if `linearised`."""
    turned = motion.turn @ start.mean
    half = motion.turn @ start.moment + jnp.outer(motion.shift, start.mean)
    change = half + half.T
    if not linearised:
        crossed = jnp.outer(turned, motion.shift)
        change += half @ motion.turn.T + crossed + jnp.outer(motion.shift, motion.shift)
    return Statistics(start.mean + turned + motion.shift, start.moment + change)


# On a CPU, LAPACK shares out a batch of matrices over the threads from which it is called: called
# from all of them at once, as by seeds on several devices, the calls wait for one another for ever.
_one_by_one = jax.custom_batching.sequential_vmap


class ClosedState(NamedTuple):
    """State of `ClosedDynamics`: the draw of the data and of the initial weights, and the motion."""

    task: Task
    probes: Float[Array, "n D"]
    start: Statistics
    motion: Motion
    plateau: Float[Array, ""]


class ClosedDynamics(Process):
    """Full-batch gradient descent of the committee machine, without its neurons.

    Equal to training `CommitteeMachine` on L = mean (f - y)^2 / alpha^2 with step size eta, in
    rounding, for `rate = eta / N`: 1/2 in the paper's sweeps. With L = mean (f - y)^2 instead and
    eta = N / alpha^2, as in its Figure 1, `rate = alpha^2 eta / N = 1`. Either way alpha does not
    change the early speed in function space, only how far the weights must go.

    Data, teacher and initial weights are drawn anew for every seed.

    - `neurons=None`: the infinite-width limit, wbar = 0 and M = I.
    - `samples=None`: the population limit, gradients are exact averages over all x. There is no
      training set, so `train_loss` is the population loss and `plateau` is NaN.
    - `weight_scale` multiplies the initial weights (divide `rate` by its square to keep the speed).
    - `centred`: learn with f - f_0 in the place of f.
    - `linearised`: the linearised twin, trained by the same gradient descent.
    - `spectrum`: also record eigenvalues of the tangent kernel on the training set, and the task's
      coefficients on its eigenvectors (see `task_spectrum`).

    The draw and the kernel solve are in float64, which the solve needs (the condition number of K_0
    grows like 1/eps^2). The motion is kept as a displacement from the start, so that late steps,
    which float32 could not resolve in the weights themselves, are not lost: `dtype="float32"` is
    twice as fast and stays within about 1e-5 of the float64 losses over 20,000 steps.
    """

    x64: ClassVar[bool] = True

    alpha: float | Array = 1.0
    epsilon: float | Array = 0.25
    rate: float | Array = 0.5
    weight_scale: float | Array = 1.0
    dim: int = 100
    samples: int | None = 550
    neurons: int | None = 500
    probe_points: int = 500
    centred: bool = False
    linearised: bool = False
    spectrum: bool = False
    dtype: Literal["float32", "float64"] = "float64"

    def __check_init__(self) -> None:
        for name in ("dim", "samples", "neurons"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.probe_points < 2:
            raise ValueError(f"probe_points must be at least 2, got {self.probe_points}.")
        if self.spectrum and self.samples is None:
            raise ValueError("spectrum needs a training set: give samples.")
        for name in ("alpha", "epsilon", "rate", "weight_scale"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {self.dtype!r}.")

    def init(self, key: PRNGKeyArray) -> ClosedState:
        key_task, key_probes, key_weights = jax.random.split(key, 3)
        dtype = jnp.float64
        task = sample_task(key_task, self.samples or 1, self.dim, dtype)
        probes = jax.random.normal(key_probes, (self.probe_points, self.dim), dtype)
        if self.neurons is None:
            start = infinite_width(self.dim, dtype)
        else:
            start = statistics(jax.random.normal(key_weights, (self.neurons, self.dim), dtype))
        scale = self.weight_scale
        start = Statistics(scale * start.mean, scale**2 * start.moment)
        plateau = jnp.zeros((), dtype)
        if self.samples is not None:
            solved = _one_by_one(kernel_plateau)
            end = solved(task.x, task.y, start, self.alpha, self.epsilon)
            plateau = population_loss(end, task.teacher, self.alpha, self.epsilon).total
        still = Motion(jnp.zeros((self.dim, self.dim)), jnp.zeros(self.dim))
        state = ClosedState(task, probes / self.dim**0.5, start, still, plateau)
        return jax.tree.map(lambda a: a.astype(self.dtype), state)

    def step(self, state: ClosedState) -> ClosedState:
        alpha, epsilon, rate = self._knobs()
        at = self._function(state)
        if self.samples is None:
            first, second = population_moments(at, state.task.teacher, alpha, epsilon)
        else:
            first, second = residual_moments(state.task.x, self._residual(state, at))
        shift = 2 * rate / alpha * first
        turn = 2 * rate / alpha * epsilon * second
        before = state.motion
        if self.linearised:
            motion = Motion(before.turn + turn, before.shift + shift)
        else:
            motion = Motion(
                before.turn + turn + turn @ before.turn,
                before.shift + shift + turn @ before.shift,
            )
        return state._replace(motion=motion)

    def observe(self, state: ClosedState) -> dict[str, Array]:
        alpha, epsilon, _ = self._knobs()
        at = self._function(state)
        terms = population_loss(at, state.task.teacher, alpha, epsilon)
        weights = moved_statistics(state.start, state.motion)
        tangent = state.start if self.linearised else weights
        kernel, kernel_0 = (
            tangent_kernel(state.probes, state.probes, s, alpha, epsilon)
            for s in (tangent, state.start)
        )
        probe_targets = (state.probes @ state.task.teacher) ** 2 / 2
        power = target_power(state.task.teacher)
        fits = self.samples is not None
        seen = {
            "train_loss": jnp.mean(self._residual(state, at) ** 2) if fits else terms.total,
            "test_loss": terms.total,
            "linear_power": terms.linear,
            "misalignment": terms.misalignment,
            "trace_term": terms.trace,
            "plateau": state.plateau if fits else jnp.full_like(state.plateau, jnp.nan),
            "train_target_power": jnp.mean(state.task.y**2) if fits else power,
            "test_target_power": power,
            "ntk_alignment": kernel_alignment(kernel, probe_targets),
            "ntk_movement": kernel_movement(kernel, kernel_0),
            "parameter_movement": _squared_distance(state.start, state.motion)
            / jnp.trace(state.start.moment),
            "weight_norm": jnp.sqrt(jnp.trace(weights.moment)),
        }
        if self.spectrum:
            x = state.task.x
            kernel = tangent_kernel(x, x, tangent, alpha, epsilon)
            values, coefficients = _one_by_one(task_spectrum)(kernel, state.task.y)
            seen |= {"eigenvalue": values, "task_coefficient": coefficients}
        return seen

    def quantities(self) -> dict[str, Quantity]:
        loss = "squared error, mean over "
        seen = {
            "train_loss": Quantity(about=loss + "the training set"),
            "test_loss": Quantity(about=loss + "all x (exact)"),
            "linear_power": Quantity(about="loss from the linear component"),
            "misalignment": Quantity(about="loss from M not along the teacher"),
            "trace_term": Quantity(about="loss from the overall scale of M"),
            "plateau": Quantity(about="exact test loss of regression with K_0", gaps=True),
            "train_target_power": Quantity(about="mean y^2 of the training set"),
            "test_target_power": Quantity(about="E y^2"),
            "ntk_alignment": Quantity(about="centred alignment of the tangent kernel with y"),
            "ntk_movement": Quantity(about="||K_t - K_0|| / ||K_0||"),
            "parameter_movement": Quantity(about="|theta_t - theta_0|^2 / |theta_0|^2"),
            "weight_norm": Quantity(about="root mean square norm of a neuron's weights"),
        }
        if self.spectrum:
            assert self.samples is not None
            mode = {"mode": range(1, self.samples + 1)}
            about = "eigenvalue of the tangent kernel / P"
            seen["eigenvalue"] = Quantity(dims=("mode",), coords=mode, about=about)
            about = "<y, v_k>^2 / P"
            seen["task_coefficient"] = Quantity(dims=("mode",), coords=mode, about=about)
        return seen

    def _function(self, state: ClosedState) -> Statistics:
        at = moved_statistics(state.start, state.motion, self.linearised)
        if self.centred:
            return Statistics(at.mean - state.start.mean, at.moment - state.start.moment)
        return at

    def _residual(self, state: ClosedState, at: Statistics) -> Float[Array, " P"]:
        alpha, epsilon, _ = self._knobs()
        return state.task.y - output(state.task.x, at, alpha, epsilon)

    def _knobs(self) -> tuple[Array, Array, Array]:
        alpha, epsilon, rate = (
            jnp.asarray(value, self.dtype) for value in (self.alpha, self.epsilon, self.rate)
        )
        return alpha, epsilon, rate


def _squared_distance(start: Statistics, motion: Motion) -> Float[Array, ""]:
    """The mean over neurons of |w_i(t) - w_i(0)|^2."""
    turned = jnp.sum((motion.turn @ start.moment) * motion.turn)
    return turned + 2 * motion.shift @ motion.turn @ start.mean + jnp.sum(motion.shift**2)


def committee_training(
    *,
    dim: int = 100,
    samples: int = 550,
    neurons: int = 500,
    alpha: float = 1.0,
    epsilon: float = 0.25,
    rate: float = 0.5,
    weight_scale: float = 1.0,
    test_samples: int = 1000,
    twin: Callable[[Any], Any] | None = None,
    x64: bool = False,
) -> Supervised:
    """Return the same experiment with explicit neurons: autodiff and SGD on mean (f - y)^2.

    Slower than `ClosedDynamics` and tied to a finite width, but open to change: `twin` wraps the
    model (`Centred`, `Linearised`), and `test_loss` is that of a sample. The step size is `rate N / alpha^2`, see `ClosedDynamics`.
    """
    dtype = jnp.float64 if x64 else jnp.float32
    build = partial(
        CommitteeMachine, dim, neurons,
        alpha=alpha, epsilon=epsilon, scale=weight_scale, dtype=dtype,
    )  # fmt: skip
    return Supervised(
        model=partial(_build, build, twin),
        data=partial(_train_and_test, samples, test_samples, dim, dtype),
        optimiser=optax.sgd,
        hyper={"learning_rate": rate * neurons / alpha**2},
        loss=optax.squared_error,
        accuracy=False,
        x64=x64,
    )


def _build(build: Callable[..., Any], twin: Callable[[Any], Any] | None, key: PRNGKeyArray) -> Any:
    model = build(key=key)
    return model if twin is None else twin(model)


def _train_and_test(
    samples: int, test_samples: int, dim: int, dtype: Any, key: PRNGKeyArray
) -> Dataset:
    task = sample_task(key, samples + test_samples, dim, dtype)
    return Dataset(task.x[:samples], task.y[:samples], task.x[samples:], task.y[samples:])
