"""Co-teaching: two networks, each taught by the examples on which the other has a small loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.training import Supervised, batch_rows, each, step_key, trainable
from latebloom.losses import cross_entropy
from latebloom.methods.noisy_labels import losses
from latebloom.methods.noisy_labels.early_learning import noisy, observed
from latebloom.methods.noisy_labels.memorisation import quantities
from latebloom.methods.noisy_labels.noise import NoisyData, NoisyLabels
from latebloom.methods.noisy_labels.pairs import pair, partners


class CoTeachingState(NamedTuple):
    models: Any  # leaves [2, ...], as those of the next
    optimisers: Any
    data: NoisyLabels
    key: PRNGKeyArray
    step: Int[Array, ""]
    targets: Float[Array, "n classes"]


class CoTeaching(Supervised):
    """Both networks see the same batch; each learns only from the other's small-loss examples.

    - `forget`: share that is left out in the end (tau), best the share of wrong labels; reached
      linearly over `epochs`: R(T) = 1 - min(tau T / epochs, tau) of the batch is kept in epoch T.
    - `beta`: of the running average of the mean prediction, which is only looked at.

    Predictions are the mean of both networks' logits. Other arguments and what is observed are as in
    `EarlyLearning`.

    Raises `ValueError` for a `forget` outside [0, 1) or no epochs.

    Source: Han et al. 2018 (arXiv 1804.06872), Algorithm 1.
    """

    forget: Float[Array, ""]
    epochs: Float[Array, ""]
    beta: Float[Array, ""]

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: NoisyData,
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any],
        forget: float, epochs: int = 10, beta: float = 0.7, batch_size: int | None = None,
        seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if not 0 <= forget < 1 or epochs < 1:
            raise ValueError(
                f"forget must be in [0, 1) and epochs at least 1, not {forget} and {epochs}"
            )
        super().__init__(model=model, data=data, optimiser=optimiser, hyper=hyper, loss=cross_entropy,
                         batch_size=batch_size, seeds_by=seeds_by)  # fmt: skip
        self.forget, self.epochs, self.beta = map(jnp.float32, (forget, epochs, beta))

    def init(self, key: PRNGKeyArray) -> CoTeachingState:
        model_key, data_key, step_key = jax.random.split(key, 3)
        models = pair(self.model, model_key)
        optimisers = each("vmap", self.optimiser(**self.hyper).init, trainable(models))
        labels = noisy(self.data).draw(data_key)
        targets = jnp.zeros((len(labels.train), noisy(self.data).noise.classes))
        return CoTeachingState(models, optimisers, labels, step_key, jnp.int32(0), targets)

    def step(self, state: CoTeachingState) -> CoTeachingState:  # pyright: ignore
        n = len(state.data.train)
        rows = batch_rows(state.key, state.step, n, self.batch_size)
        x, y = noisy(self.data).x_train[rows], state.data.train[rows]
        key = step_key(state.key, state.step)
        epoch = state.step // (n // len(rows))
        keep = kept(epoch, len(rows), self.forget, self.epochs)

        def look(model: Any) -> Array:
            return self.apply(model, x, key, True)

        logits = each(self.seeds_by, look, state.models)
        taught = jax.vmap(lambda z: small_loss(cross_entropy(z, y), keep))(logits)

        def one(model: Any, optimiser: Any, weights: Array) -> tuple[Any, Any]:
            def objective(network: Any) -> Array:
                loss = cross_entropy(self.apply(network, x, key, True), y)
                return (weights * loss).sum() / weights.sum()

            return self.descend(objective, model, optimiser)

        models, optimisers = each(
            self.seeds_by, one, state.models, state.optimisers, partners(taught, True)
        )
        p = losses.predictions(logits.mean(axis=0))
        targets = state.targets.at[rows].set(losses.moved(state.targets[rows], p, self.beta))
        return CoTeachingState(models, optimisers, state.data, state.key, state.step + 1, targets)

    def observe(self, state: CoTeachingState) -> dict[str, Array]:  # pyright: ignore
        def predict(x: Array) -> Array:
            look = lambda model: self.apply(model, x, None, False)  # noqa: E731
            return each(self.seeds_by, look, state.models).mean(axis=0)

        return observed(noisy(self.data), state.data, predict, state.targets)

    def quantities(self) -> dict[str, Quantity]:
        return super().quantities() | quantities()


def kept(
    epoch: Array | int, batch: int, forget: Array | float, epochs: Array | float
) -> Int[Array, ""]:
    """How many examples of a batch are kept in an epoch (from 0): floor(R(T) batch), at least 1."""
    share = 1 - jnp.minimum(forget * epoch / epochs, forget)
    return jnp.maximum(jnp.floor(share * batch + 1e-4), 1).astype(jnp.int32)  # rounding


def small_loss(losses: Float[Array, " batch"], keep: Array | int) -> Float[Array, " batch"]:
    """1 for the `keep` examples of smallest loss, 0 for the others."""
    rank = jnp.argsort(jnp.argsort(losses))
    return (rank < keep).astype(losses.dtype)
