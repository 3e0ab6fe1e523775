"""Training and test sets drawn out of a pool of examples, others for each seed."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.dataset import Dataset


class Subset(eqx.Module):
    """Draws a training and a test set out of one pool of examples, anew for each key.

    Of a random order of the pool the first `train_size` are for training, and `test_size` (or as many
    as there are) from place `test_from` on for testing. With `label_noise` a training label is
    replaced by a random one of `classes` with that probability.
    """

    x: Shaped[Array, "example ..."]
    y: Int[Array, " example"]
    label_noise: Float[Array, ""] | None
    train_size: int = eqx.field(static=True)
    test_from: int = eqx.field(static=True)
    test_size: int = eqx.field(static=True)
    classes: int | None = eqx.field(static=True)

    def __init__(
        self, x: Shaped[Array, "example ..."], y: Int[Array, " example"], train_size: int,
        test_size: int, *, test_from: int | None = None, label_noise: float | None = None,
        classes: int | None = None,
    ):  # fmt: skip
        if label_noise is not None and classes is None:
            raise ValueError("label_noise draws labels at random: give the number of classes")
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        self.label_noise = None if label_noise is None else jnp.float32(label_noise)
        self.train_size, self.test_size, self.classes = train_size, test_size, classes
        self.test_from = train_size if test_from is None else test_from

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        if self.label_noise is None:
            train, test = self._rows(key)
            return Dataset(self.x[train], self.y[train], self.x[test], self.y[test])
        order_key, noise_key, label_key = jax.random.split(key, 3)
        train, test = self._rows(order_key)
        random = jax.random.randint(label_key, train.shape, 0, self.classes, self.y.dtype)
        noisy = jax.random.bernoulli(noise_key, self.label_noise, train.shape)
        labels = jnp.where(noisy, random, self.y[train])
        return Dataset(self.x[train], labels, self.x[test], self.y[test])

    def _rows(self, key: PRNGKeyArray) -> tuple[Int[Array, " train"], Int[Array, " test"]]:
        order = jax.random.permutation(key, len(self.x))
        last = self.test_from + self.test_size
        return order[: self.train_size], order[self.test_from : last]


class TrainingSubset(eqx.Module):
    """Draws `size` training examples anew for each key; the test set stays whole."""

    pool: Dataset
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        pool = self.pool
        rows = jax.random.choice(key, len(pool.x_train), (self.size,), replace=False)
        return Dataset(pool.x_train[rows], pool.y_train[rows], pool.x_test, pool.y_test)
