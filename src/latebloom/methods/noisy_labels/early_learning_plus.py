"""ELR+: two networks that give each other their targets, weight averaging, and mixup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.process import Quantity
from latebloom.core.training import Supervised, batch_rows, each, step_key, trainable
from latebloom.losses import cross_entropy
from latebloom.methods.noisy_labels import losses
from latebloom.methods.noisy_labels.early_learning import noisy, observed
from latebloom.methods.noisy_labels.memorisation import quantities
from latebloom.methods.noisy_labels.noise import NoisyData, NoisyLabels
from latebloom.methods.noisy_labels.pairs import pair, partners


class PlusState(NamedTuple):
    models: Any  # leaves [2, ...], as those of the next two
    optimisers: Any
    averages: Any
    data: NoisyLabels
    key: PRNGKeyArray
    step: Int[Array, ""]
    targets: Float[Array, "2 n classes"]


class EarlyLearningPlus(Supervised):
    """Two networks trained by early-learning regularisation, each on targets made by the other.

    In every step, for each network: the weight average of the *other* network looks, in training
    mode, at the batch as it is, and the targets of its examples move there; inputs, one-hot labels
    and targets are mixed by the same pairs and the same share; the loss of the mixed batch is taken;
    after the update the network's own weight average moves. Predictions are the mean of both
    networks' logits (not of the averages).

    - `strength`, `strength_ramp`: lambda, reached by `ramp` after so many steps (0: at once).
    - `average`, `average_ramp`: decay of the weight average, reached likewise; 0 keeps no average.
    - `mixup`: whether shares are drawn from Beta(1, 1) (and the larger part taken), else no mixing.
    - `twins`: False trains one network on its own average's targets (the other is computed and
      ignored), for ablations.
    - `reweight`: multiplies mixed labels by the targets and renormalises (the CIFAR-100 setting).

    Other arguments and what is observed are as in `EarlyLearning`. Both networks step together; in
    the authors' code each runs a whole epoch in turn. Weight averages start at the networks.

    Raises `ValueError` for decays outside [0, 1).

    Source: Liu et al. 2020 (arXiv 2007.00151), Algorithm 2 and code.
    """

    beta: Float[Array, ""]
    strength: Float[Array, ""]
    strength_ramp: Float[Array, ""]
    average: Float[Array, ""]
    average_ramp: Float[Array, ""]
    mixup: Bool[Array, ""]
    twins: Bool[Array, ""]
    reweight: Bool[Array, ""]

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Any], data: NoisyData,
        optimiser: Callable[..., optax.GradientTransformation], hyper: Mapping[str, Any],
        beta: float = 0.7, strength: float = 3.0, strength_ramp: int = 0, average: float = 0.997,
        average_ramp: int = 40_000, mixup: bool = True, twins: bool = True, reweight: bool = False,
        batch_size: int | None = None, seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if not (0 <= beta < 1 and 0 <= average < 1):
            raise ValueError(f"beta and average must be in [0, 1), not {beta} and {average}")
        super().__init__(model=model, data=data, optimiser=optimiser, hyper=hyper, loss=cross_entropy,
                         batch_size=batch_size, seeds_by=seeds_by)  # fmt: skip
        self.beta, self.strength, self.average = map(jnp.float32, (beta, strength, average))
        self.strength_ramp, self.average_ramp = map(jnp.float32, (strength_ramp, average_ramp))
        self.mixup, self.twins, self.reweight = map(jnp.asarray, (mixup, twins, reweight))

    def init(self, key: PRNGKeyArray) -> PlusState:
        model_key, data_key, step_key = jax.random.split(key, 3)
        models = pair(self.model, model_key)
        optimisers = each("vmap", self.optimiser(**self.hyper).init, trainable(models))
        labels = noisy(self.data).draw(data_key)
        shape = (2, len(labels.train), noisy(self.data).noise.classes)
        return PlusState(
            models, optimisers, models, labels, step_key, jnp.int32(0), jnp.zeros(shape)
        )

    def step(self, state: PlusState) -> PlusState:  # pyright: ignore
        strength = self.strength * ramp(state.step, self.strength_ramp)
        decay = self.average * ramp(state.step + 1, self.average_ramp)
        keys = jax.vmap(lambda i: jax.random.fold_in(state.key, i))(jnp.arange(2))

        def one(
            model: Any, optimiser: Any, own: Any, teacher: Any, targets: Array, key: PRNGKeyArray
        ) -> tuple[Any, Any, Any, Array]:
            rows = batch_rows(key, state.step, len(state.data.train), self.batch_size)
            now = step_key(key, state.step)
            x, y = noisy(self.data).x_train[rows], state.data.train[rows]
            p = jax.nn.softmax(self.apply(teacher, x, now, True))
            moved = losses.moved(targets[rows], p, self.beta)
            share, others = mixing(now, len(rows), self.mixup)
            labels = jax.nn.one_hot(y, p.shape[-1])
            x, labels, q = (mixed(v, share, others) for v in (x, labels, moved))
            labels = jnp.where(self.reweight, reweighted(labels, q), labels)

            def objective(network: Any) -> Array:
                logits = self.apply(network, x, now, True)
                loss = losses.soft_cross_entropy(logits, labels)
                return (loss + strength * losses.elr_term(logits, q)).mean()

            model, optimiser = self.descend(objective, model, optimiser)
            return model, optimiser, averaged(own, model, decay), targets.at[rows].set(moved)

        teachers = partners(state.averages, self.twins)
        models, optimisers, averages, targets = each(
            self.seeds_by, one, state.models, state.optimisers, state.averages, teachers,
            state.targets, keys,
        )  # fmt: skip
        return PlusState(
            models, optimisers, averages, state.data, state.key, state.step + 1, targets
        )

    def observe(self, state: PlusState) -> dict[str, Array]:  # pyright: ignore
        def joined(both: Array) -> Array:
            return jnp.where(self.twins, both.mean(axis=0), both[0])

        def predict(x: Array) -> Array:
            look = lambda model: self.apply(model, x, None, False)  # noqa: E731
            return joined(each(self.seeds_by, look, state.models))

        return observed(noisy(self.data), state.data, predict, joined(state.targets))

    def quantities(self) -> dict[str, Quantity]:
        return super().quantities() | quantities()


def ramp(step: Array | float, length: Array | float) -> Float[Array, ""]:
    """exp(-5 (1 - step / length)^2) up to `length`, then 1; 1 throughout if `length` is 0."""
    left = 1 - jnp.clip(step / jnp.maximum(length, 1), 0, 1)
    return jnp.where(length == 0, 1.0, jnp.exp(-5 * left**2))


def mixing(
    key: PRNGKeyArray, batch: int, on: Bool[Array, ""] | bool
) -> tuple[Float[Array, ""], Int[Array, " batch"]]:
    """The larger part l' = max(l, 1 - l), l ~ Beta(1, 1), and whom each example is mixed with."""
    share_key, order_key = jax.random.split(key)
    share = jax.random.uniform(share_key)
    share = jnp.where(on, jnp.maximum(share, 1 - share), 1.0)
    return share, jax.random.permutation(order_key, batch)


def mixed(values: Array, share: Array | float, others: Int[Array, " batch"]) -> Array:
    """share v_i + (1 - share) v_j, with j the partner of i (Zhang et al. 2018, arXiv 1710.09412)."""
    return share * values + (1 - share) * values[others]


def reweighted(
    labels: Float[Array, "batch classes"], targets: Float[Array, "batch classes"]
) -> Float[Array, "batch classes"]:
    """labels * targets, normalised; labels where the two have nothing in common."""
    both = labels * targets
    total = both.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0, both / jnp.where(total > 0, total, 1), labels)


def averaged(average: Any, model: Any, decay: Array | float) -> Any:
    """decay * average + (1 - decay) * model for what is trained; the rest as in `model`."""
    mine, params = trainable(average), trainable(model)
    new = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, mine, params)
    return eqx.combine(new, model)
