"""Refresh learning: unlearn the batch for a moment, then learn it again, around any method.

What the paper derives and what its authors released differ, and both are here. `Refresh` is the paper's:
steps up the whole loss, preconditioned by the inverse of a Fisher matrix, with the noise of a Langevin
equation. `ReleasedRefresh` is that of the code: one step up the loss of the new batch alone, each tensor's
part brought to the length of the tensor and multiplied by 0.00001.

Source: Wang et al. 2024 (arXiv 2403.13249); github.com/joey-wang123/CL-refresh-learning, models/derpp.py.
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.statistics import trainable_leaves
from latebloom.core.stream import Stream
from latebloom.core.training import gradients, trainable
from latebloom.losses import masked_cross_entropy
from latebloom.methods.forgetting.around import (
    PERTURBATION,
    UNLEARNED,
    Around,
    Kept,
    Pushes,
    check_push,
    gaussian,
    pushed,
    shifted,
    slope,
    total,
    wide,
)
from latebloom.methods.forgetting.method import Displaced, Lesson, check, norm, one_of
from latebloom.probes.fisher import fisher_diagonal


class Refresh(Around):
    """The paper's refresh: `steps` times theta += gamma P grad L(theta) + N(0, 2 gamma temperature P),
    then the host's own update from there.

    - `objective`: L is "all" that the host minimises, or the cross-entropy of the "new" batch alone. What a host
      does to the gradient of its losses (A-GEM's projection) is left to the update.
    - `fisher`: P = 1 / (1 + F / lambda), lambda being `damping` times the mean of F. F is estimated when a
      "task" is over, F <- decay F + F_task, from its first `batches`; or at each "step", as the running mean
      of the squared gradients, F <- decay F + (1 - decay) g^2; or there is "none", and P = 1. So is P as
      long as F is 0, through the first task.
    - `temperature`: 1 is the paper's noise, 0 none. Its standard deviation is sqrt(2 gamma temperature P), however
      small the gradient is, so that gamma must be far smaller with it than without.
    - `every`: so many updates from one refresh to the next.

    The paper's P is F^-1, which has no bound where a weight does not matter: with lambda added to F, its
    gamma is lambda times ours, and the largest entry of P is 1. By its theorem the method goes down
    about L + sigma |grad L| in the norm of F^-1, so that it would seek flat places.

    Told: `perturbation`, the length of the move against that of the parameters; `unlearned`, the loss's rise.

    Source: Wang et al. 2024, the Langevin step of its section on refresh learning. Defaults are ours (the paper's noise
    at this gamma destroys what was learned) but `every`, at which the paper runs it.
    """

    gamma: Float[Array, ""] | float = 0.01
    steps: int = eqx.field(static=True, default=1)
    objective: Literal["all", "new"] = eqx.field(static=True, default="all")
    fisher: Literal["task", "step", "none"] = eqx.field(static=True, default="task")
    damping: Float[Array, ""] | float = 1.0
    decay: Float[Array, ""] | float = 0.9
    temperature: Float[Array, ""] | float = 0.0
    every: int = eqx.field(static=True, default=2)
    batches: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        check_push(self)
        for name in ("gamma", "temperature"):
            check(self, name)
        check(self, "damping", above=True)
        check(self, "decay", 0, 1)
        check(self, "steps", 1)
        check(self, "batches", 1)
        one_of(self, "objective", ("all", "new"))
        one_of(self, "fisher", ("task", "step", "none"))

    @property
    def looks_back(self) -> int:
        return max(self.host.looks_back, self.batches if self.fisher == "task" else 0)

    def does(self, part: str) -> bool:
        if part == "turn" and self.fisher != "task":
            return self.host.does("turn")
        return super().does(part)

    def init(self, model: Any, stream: Stream) -> Kept:
        fisher = () if self.fisher == "none" else nothing(model)
        return Kept(self.host.init(model, stream), Pushes(jnp.int32(0), fisher))

    def quantities(self) -> dict[str, Quantity]:
        own = {"perturbation": PERTURBATION, "unlearned": UNLEARNED}
        return self.host.quantities() | own

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        params, fisher = trainable(model), own.mine.fisher
        _, rest = eqx.partition(model, trainable_leaves(model))

        def climb(carry: tuple[Any, Any], key: PRNGKeyArray) -> tuple[tuple[Any, Any], None]:
            params, fisher = carry
            at = eqx.combine(params, rest)
            if self.objective == "all":
                up = slope(self.host, at, own, lesson)
            else:
                up = new_slope(at, lesson)
            if self.fisher == "step":
                fisher = jax.tree.map(
                    lambda f, g: self.decay * f + (1 - self.decay) * jnp.square(wide(g)), fisher, up
                )
            share = self._preconditioner(params, fisher)
            move = jax.tree.map(lambda p, g: self.gamma * p * wide(g), share, up)
            if not self._silent:
                spread = 2 * self.gamma * self.temperature
                move = jax.tree.map(
                    lambda m, p, xi: m + jnp.sqrt(spread * p) * xi, move, share, gaussian(params, key)
                )  # fmt: skip
            return (shifted(params, move), fisher), None

        def push() -> tuple[Any, Any]:
            if self.steps == 1:
                return climb((params, fisher), key)[0]
            return jax.lax.scan(climb, (params, fisher), jax.random.split(key, self.steps))[0]

        return pushed(self, model, own, lesson, push)

    @property
    def _silent(self) -> bool:
        """Whether no noise need be drawn: the temperature is a number, and 0."""
        return isinstance(self.temperature, int | float) and self.temperature == 0

    def _preconditioner(self, params: Any, fisher: Any) -> Any:
        if self.fisher == "none":
            return jax.tree.map(lambda p: jnp.ones_like(wide(p)), params)
        return preconditioner(fisher, self.damping)

    def turn(self, model: Any, own: Kept, lesson: Lesson) -> Kept:
        own = super().turn(model, own, lesson)
        if self.fisher != "task":
            return own
        found = label_fisher(model, lesson, self.batches)
        fisher = jax.tree.map(lambda a, b: self.decay * a + b, own.mine.fisher, found)
        return own._replace(mine=own.mine._replace(fisher=fisher))


class ReleasedRefresh(Around):
    """The refresh of the authors' code: at every update each tensor theta moves by
    delta (N + noise xi) / (1 + weight F), N being the gradient of the new batch's cross-entropy brought to the
    length of theta, xi standard normal.

    F <- tau F + F_task when a task is over: the mean over examples of p(y) (grad log p(y))^2, here of the task's
    first `batches`, there of all. With the values shipped, which are the defaults, the divisor is 1 in
    effect, the noise is small beside N where a tensor's length is 1 and more, and an update moves the
    parameters by 0.00001 of their length.

    A tensor of zeros, such as a fresh bias, does not move but by the noise. Told: as in `Refresh`.

    Source: github.com/joey-wang123/CL-refresh-learning, models/derpp.py, where it is written into DER++.
    """

    delta: Float[Array, ""] | float = 1e-5
    tau: Float[Array, ""] | float = 1e-5
    noise: Float[Array, ""] | float = 1e-3
    weight: Float[Array, ""] | float = 1e-3
    every: int = eqx.field(static=True, default=1)
    batches: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        check_push(self)
        for name in ("delta", "tau", "noise", "weight"):
            check(self, name)
        check(self, "batches", 1)

    @property
    def looks_back(self) -> int:
        return max(self.host.looks_back, self.batches)

    def init(self, model: Any, stream: Stream) -> Kept:
        return Kept(self.host.init(model, stream), Pushes(jnp.int32(0), nothing(model)))

    def quantities(self) -> dict[str, Quantity]:
        own = {"perturbation": PERTURBATION, "unlearned": UNLEARNED}
        return self.host.quantities() | own

    def displaced(self, model: Any, own: Kept, lesson: Lesson, key: PRNGKeyArray) -> Displaced:
        params, fisher = trainable(model), own.mine.fisher

        def push() -> tuple[Any, Any]:
            def move(p: Array, up: Array, f: Array, xi: Array) -> Array:
                aim = as_long(up, p)
                return self.delta * (aim + self.noise * xi) / (1 + self.weight * f)

            up = new_slope(model, lesson)
            moves = jax.tree.map(move, params, up, fisher, gaussian(params, key))
            return shifted(params, moves), fisher

        return pushed(self, model, own, lesson, push)

    def turn(self, model: Any, own: Kept, lesson: Lesson) -> Kept:
        own = super().turn(model, own, lesson)
        found = label_fisher(model, lesson, self.batches, by_probability=True)
        fisher = jax.tree.map(lambda a, b: self.tau * a + b, own.mine.fisher, found)
        return own._replace(mine=own.mine._replace(fisher=fisher))


def preconditioner(fisher: Any, damping: Float[Array, ""] | float) -> Any:
    """1 / (1 + F / lambda), lambda being `damping` times the mean entry of F; 1 where all of F is 0."""
    count = sum(f.size for f in jax.tree.leaves(fisher))
    floor = damping * total(fisher) / max(count, 1)
    return jax.tree.map(lambda f: 1 / (1 + f / jnp.where(floor > 0, floor, 1)), fisher)


def label_fisher(model: Any, lesson: Lesson, batches: int, by_probability: bool = False) -> Any:
    """The empirical Fisher diagonal from the first batches of a task that is over.

    - `by_probability`: each example counts as much as the probability of its label.
    """

    def losses(model: Any, batch: Any) -> Float[Array, " batch"]:
        found = masked_cross_entropy(lesson.exam(model, batch.x), batch.y, batch.allowed)
        # The square of a gradient weighed by the root is weighed by the probability.
        return found * jax.lax.stop_gradient(jnp.exp(-found / 2)) if by_probability else found

    first = jax.tree.map(lambda x: x[:batches], lesson.new)
    return fisher_diagonal(losses, model, first)


def new_slope(model: Any, lesson: Lesson) -> Any:
    """The gradient of the new batch's cross-entropy alone."""
    return gradients(lambda m: lesson.loss(lesson.logits(m, lesson.new.x), lesson.new), model)[0]


def nothing(model: Any) -> Any:
    """Zeros like the parameters, in single precision at least."""
    return jax.tree.map(lambda p: jnp.zeros_like(wide(p)), trainable(model))


def as_long(x: Array, other: Array) -> Array:
    """x brought to the length of another array; 0 where x is."""
    size = norm(x)
    return wide(x) * (norm(other) / jnp.where(size > 0, size, 1))


NONE, LARGE, UNMOVED = 1e-4, 0.1, 1e-3


def perturbation_alert(trace: xr.Dataset) -> str | None:
    """What is wrong with the perturbations of a run that tells them, in a sentence, or None.

    - `trace.diverged_at` [seed]: a seed that diverged is named first.
    - `trace.perturbation` [seed, step]: length of a perturbation over that of the parameters. Below 0.0001
      throughout the updates are what they would be without; above 0.1 anywhere there is little left of what was
      learned before.
    - `trace.unlearned`, `trace.new_loss`, `trace.old_loss`: where the loss rises by less than 0.001 of itself on
      average, the parameters move, but nothing is unlearned: it is noise that moves them.

    Raises `ValueError` where the run does not tell it, or no update lies before its observations.
    """
    if "perturbation" not in trace:
        raise ValueError(
            "the trace has no 'perturbation': wrap the method in Refresh and run it with tell=True"
        )
    values = trace.perturbation.values
    if "diverged_at" in trace and (lost := trace.diverged_at.values >= 0).any():
        return (
            f"{lost.sum()} of {lost.size} seeds diverged, the first after {trace.diverged_at.values[lost].min():.0f} "
            "updates: where the host alone does not, lower gamma (or delta), the steps or the temperature"
        )
    if np.isnan(values).all():
        raise ValueError("no update was made before any observation of this trace")
    largest = float(np.nanmax(values))
    if largest < NONE:
        return (
            f"perturbations are at most {largest:.1g} of the parameters: this is the host without "
            "refresh, in effect; raise gamma (or delta)"
        )
    if largest > LARGE:
        return (
            f"perturbations reach {largest:.0%} of the parameters: what was learned before may not "
            "survive them; lower gamma, the steps or the temperature"
        )
    if all(name in trace for name in ("unlearned", "new_loss", "old_loss")):
        loss = abs(float((trace.new_loss + trace.old_loss).mean()))
        if abs(float(trace.unlearned.mean())) < UNMOVED * loss:
            return (
                f"perturbations reach {largest:.1g} of the parameters and leave the loss as it was: nothing is "
                "unlearned, it is noise that moves them; lower the temperature and raise gamma"
            )
    return None
