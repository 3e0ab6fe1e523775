"""Training on noisy labels with one network and a running average of what it says of each example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.training import (
    Supervised,
    accuracy,
    batch_rows,
    gradients,
    step_key,
    trainable,
    update,
)
from latebloom.losses import cross_entropy
from latebloom.methods.noisy_labels import losses
from latebloom.methods.noisy_labels.memorisation import auroc, memorisation, quantities
from latebloom.methods.noisy_labels.noise import NoisyData, NoisyLabels

Method = Literal[
    "cross-entropy", "elr", "kl", "gce", "sce", "soft-bootstrap", "hard-bootstrap", "forward"
]  # fmt: skip


NoisyLoss = Callable[[Array, Array, Array, Array], Array]  # of logits, labels, targets, transition


class EarlyLearningLoss(eqx.Module):
    """`losses.elr_loss` of a given strength."""

    strength: Float[Array, ""]

    def __call__(self, logits: Array, labels: Array, targets: Array, transition: Array) -> Array:
        return losses.elr_loss(logits, labels, targets, self.strength)


class RobustLoss(eqx.Module):
    """One of the losses of `latebloom.methods.noisy_labels.losses`, chosen by an array.

    So all of them share one compiled program. `strength` is that of "elr" and "kl", `q` that of
    "gce", `a` and `b` those of "sce", `trust` the beta of both bootstraps.

    Raises `ValueError` for an unknown method and numbers out of their range.
    """

    method: Int[Array, ""]
    strength: Float[Array, ""]
    q: Float[Array, ""]
    a: Float[Array, ""]
    b: Float[Array, ""]
    trust: Float[Array, ""]

    def __init__(
        self, method: Method = "elr", *, strength: float = 3.0, q: float = 0.7, a: float = 0.1,
        b: float = 1.0, trust: float = 0.8,
    ):  # fmt: skip
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        if not q > 0 or not 0 <= trust <= 1 or min(strength, a, b) < 0:
            raise ValueError(
                "q must be above 0, trust in [0, 1], and strength, a and b not negative, not "
                f"{q}, {trust}, {strength}, {a} and {b}"
            )
        self.method = jnp.int32(get_args(Method).index(method))
        values = map(jnp.float32, (strength, q, a, b, trust))
        self.strength, self.q, self.a, self.b, self.trust = values

    def __call__(
        self, logits: Float[Array, "batch classes"], labels: Int[Array, " batch"],
        targets: Float[Array, "batch classes"], transition: Float[Array, "classes classes"],
    ) -> Float[Array, " batch"]:  # fmt: skip
        branches = (
            lambda z, y, t, T: cross_entropy(z, y),
            lambda z, y, t, T: losses.elr_loss(z, y, t, self.strength),
            lambda z, y, t, T: losses.kl_loss(z, y, t, self.strength),
            lambda z, y, t, T: losses.generalised_cross_entropy(z, y, self.q),
            lambda z, y, t, T: losses.symmetric_cross_entropy(z, y, self.a, self.b),
            lambda z, y, t, T: losses.soft_bootstrap(z, y, self.trust),
            lambda z, y, t, T: losses.hard_bootstrap(z, y, self.trust),
            lambda z, y, t, T: losses.forward_loss(z, y, T),
        )
        return jax.lax.switch(self.method, branches, logits, labels, targets, transition)


class EarlyLearningState(NamedTuple):
    model: Any
    optimiser: Any
    data: NoisyLabels
    key: PRNGKeyArray
    step: Int[Array, ""]
    targets: Float[Array, "n classes"]
    transition: Float[Array, "classes classes"]


class EarlyLearning(Supervised):
    """Mini-batch training on noisy labels, by early-learning regularisation or what it is compared with.

    Each step moves the targets of the examples in the batch to the network's present predictions
    and then takes the loss with the targets so moved. The average is kept under every loss, so that
    suspects can be read from it.

    - `model`, `optimiser`, `hyper`, `apply`, `batch_size`, `seeds_by` are as in `Supervised`.
    - `loss(logits, labels, targets, transition)` of each example: an `EarlyLearningLoss`, a
      `RobustLoss`, or your own. `beta`: of the running average.
    - `known`: whether "forward" knows the noise's transition matrix; else it is that of cross-entropy
      until step `warmup`, when the matrix is read from the targets at its anchor points.

    Observed: loss (cross-entropy) and accuracy on the noisy training labels, `valid_accuracy` on the
    equally noisy validation labels, `test_accuracy` on clean ones; the shares of `memorisation`; and
    the AUROC with which one minus the label's target (`auroc_targets`) or present probability
    (`auroc_outputs`) finds the wrong training labels.

    Raises `ValueError` for a beta outside [0, 1) and a batch size that does not fit.
    """

    robust: NoisyLoss
    beta: Float[Array, ""]
    known: Bool[Array, ""]
    warmup: Int[Array, ""]

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: NoisyData,
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any],
        loss: NoisyLoss, beta: float = 0.7, known: bool = True, warmup: int = 0,
        batch_size: int | None = None, seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), not {beta}")
        super().__init__(model=model, data=data, optimiser=optimiser, hyper=hyper, loss=cross_entropy,
                         batch_size=batch_size, seeds_by=seeds_by)  # fmt: skip
        self.robust, self.beta = loss, jnp.float32(beta)
        self.known, self.warmup = jnp.asarray(known), jnp.int32(warmup)

    def init(self, key: PRNGKeyArray) -> EarlyLearningState:
        model_key, data_key, step_key = jax.random.split(key, 3)
        model, noise = self.model(model_key), noisy(self.data).noise
        optimiser = self.optimiser(**self.hyper).init(trainable(model))
        labels = noisy(self.data).draw(data_key)
        targets = jnp.zeros((len(labels.train), noise.classes))
        transition = jnp.where(self.known, noise.transition(), jnp.eye(noise.classes))
        return EarlyLearningState(
            model, optimiser, labels, step_key, jnp.int32(0), targets, transition
        )

    def step(self, state: EarlyLearningState) -> EarlyLearningState:  # pyright: ignore
        data, labels = noisy(self.data), state.data.train
        rows = batch_rows(state.key, state.step, len(labels), self.batch_size)
        key = step_key(state.key, state.step)

        def objective(model: Any) -> tuple[Array, Array]:
            logits = self.apply(model, data.x_train[rows], key, True)
            targets = losses.moved(state.targets[rows], losses.predictions(logits), self.beta)
            found = self.robust(logits, labels[rows], targets, state.transition)
            return found.mean(), targets

        slopes, seen, moved = gradients(objective, state.model, has_aux=True)
        rule = self.optimiser(**self.hyper)
        model, optimiser = update(rule, slopes, state.optimiser, state.model, seen)
        targets = state.targets.at[rows].set(moved)
        now = ~self.known & (state.step + 1 == self.warmup)
        transition = jnp.where(now, losses.estimate_transition(targets), state.transition)
        return state._replace(
            model=model, optimiser=optimiser, step=state.step + 1, targets=targets,
            transition=transition,
        )  # fmt: skip

    def observe(self, state: EarlyLearningState) -> dict[str, Array]:  # pyright: ignore
        def predict(x: Array) -> Array:
            return self.apply(state.model, x, None, False)

        return observed(noisy(self.data), state.data, predict, state.targets)

    def quantities(self) -> dict[str, Quantity]:
        return super().quantities() | quantities()


def noisy(data: Any) -> NoisyData:
    """The data as what it is; raises `TypeError` where it is not a `NoisyData`."""
    if not isinstance(data, NoisyData):
        raise TypeError(f"data must be a NoisyData, not {type(data).__name__}")
    return data


def observed(
    data: NoisyData, labels: NoisyLabels, predict: Callable[[Array], Array],
    targets: Float[Array, "n classes"],
) -> dict[str, Array]:  # fmt: skip
    """What is recorded of every method (see `EarlyLearning`)."""
    train, valid, test = (predict(x) for x in (data.x_train, data.x_valid, data.x_test))
    rows, wrong = jnp.arange(len(labels.train)), labels.train != data.y_train
    return {
        "train_loss": cross_entropy(train, labels.train).mean(),
        "test_loss": cross_entropy(test, data.y_test).mean(),
        "train_accuracy": accuracy(train, labels.train),
        "valid_accuracy": accuracy(valid, labels.valid),
        "test_accuracy": accuracy(test, data.y_test),
        **memorisation(train, labels.train, data.y_train),
        "auroc_targets": auroc(-targets[rows, labels.train], wrong),
        "auroc_outputs": auroc(cross_entropy(train, labels.train), wrong),
    }
