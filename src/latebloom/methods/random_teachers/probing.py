"""What frozen features are worth: a linear classifier on them, and their nearest neighbours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.core.dataset import check_targets
from latebloom.core.training import batch_rows
from latebloom.losses import cross_entropy


def linear_probe(
    train: Float[Array, "n d"], labels: Int[Array, " n"], test: Float[Array, "m d"],
    test_labels: Int[Array, " m"], key: PRNGKeyArray, *, classes: int = 10, epochs: int = 10,
    batch_size: int = 256, rate: float = 1e-3, standardise: bool | Bool[Array, ""] = False,
) -> Float[Array, ""]:  # fmt: skip
    """Test accuracy of an affine classifier trained on the features with AdamW.

    Weights and biases start uniform in +-1/sqrt(d); batches are drawn without replacement (all
    examples at once if there are fewer than `batch_size`). With `standardise` every feature is
    shifted and scaled to mean 0 and variance 1 over the training set. One key gives one probe: use
    the same for features that are compared. Raises `ValueError` for labels beyond `classes`.

    Source: Sarnthein et al. 2023 (arXiv 2302.12091), section 3 and code.
    """
    _check_classes(labels, test_labels, classes)
    mean = jnp.where(standardise, train.mean(0), 0)
    spread = jnp.where(standardise, train.std(0) + 1e-6, 1)
    train, test = (train - mean) / spread, (test - mean) / spread
    n, d = train.shape
    batch_size = min(batch_size, n)
    start_key, order_key = jax.random.split(key)
    bound = 1 / jnp.sqrt(d)
    weight = jax.random.uniform(start_key, (d + 1, classes), minval=-bound, maxval=bound)
    optimiser = optax.adamw(rate, weight_decay=1e-2)

    def logits(weight: Array, x: Array) -> Array:
        return x @ weight[:-1] + weight[-1]

    def step(carry: tuple[Array, optax.OptState], i: Array) -> tuple[tuple, None]:
        weight, moments = carry
        rows = batch_rows(order_key, i, n, batch_size)

        def loss(weight: Array) -> Array:
            return cross_entropy(logits(weight, train[rows]), labels[rows]).mean()

        updates, moments = optimiser.update(jax.grad(loss)(weight), moments, weight)
        return (optax.apply_updates(weight, updates), moments), None  # pyright: ignore

    steps = jnp.arange(epochs * (n // batch_size))
    (weight, _), _ = jax.lax.scan(step, (weight, optimiser.init(weight)), steps)
    return (logits(weight, test).argmax(-1) == test_labels).mean()


def nearest_neighbours(
    train: Float[Array, "n d"], labels: Int[Array, " n"], test: Float[Array, "m d"],
    test_labels: Int[Array, " m"], *, classes: int = 10, neighbours: int = 20,
) -> Float[Array, ""]:  # fmt: skip
    """Test accuracy of the most frequent label among the nearest training features (Euclidean).

    Ties go to the lower class. Raises `ValueError` for labels beyond `classes`. Source: Sarnthein et
    al. 2023, Table 3 (20 neighbours).
    """
    _check_classes(labels, test_labels, classes)
    middle = train.mean(0)  # squares of an offset would drown the distances
    train, test = train - middle, test - middle
    away = jnp.square(test).sum(-1)[:, None] + jnp.square(train).sum(-1) - 2 * test @ train.T
    nearest = jax.lax.top_k(-away, min(neighbours, len(train)))[1]
    votes = jax.nn.one_hot(labels[nearest], classes).sum(1)
    return (votes.argmax(-1) == test_labels).mean()


def _check_classes(labels: Array, test_labels: Array, classes: int) -> None:
    for name, y in (("labels", labels), ("test_labels", test_labels)):
        check_targets(y, jax.ShapeDtypeStruct((len(y), classes), jnp.float32), name)
