"""Training and test sets drawn out of a pool of examples, others for each seed."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.dataset import Dataset


class Subset(eqx.Module):
    """Draws a training and a test set out of one pool of examples, anew for each key.

    The pool is both parts of a `Dataset`. Of a random order of it the first `train_size` are for
    training, the next `test_size`, or as many as there are, for testing; with `test_last` the last
    ones. With `label_noise` a training label is with that probability replaced by a random one of
    `classes`.
    """

    x: Shaped[Array, "example ..."]
    y: Shaped[Array, "example ..."]
    label_noise: Float[Array, ""] | None
    train_size: int = eqx.field(static=True)
    test_size: int = eqx.field(static=True)
    test_last: bool = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __init__(
        self, pool: Dataset, train_size: int, test_size: int, *, test_last: bool = False,
        label_noise: float | None = None, classes: int = 0,
    ):  # fmt: skip
        if label_noise is not None and classes < 1:
            raise ValueError("label_noise draws labels at random: give the number of classes")
        self.x = jnp.concatenate([pool.x_train, pool.x_test])
        self.y = jnp.concatenate([pool.y_train, pool.y_test])
        self.label_noise = None if label_noise is None else jnp.float32(label_noise)
        self.train_size, self.test_size, self.classes = train_size, test_size, classes
        self.test_last = test_last

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
        train = order[: self.train_size]
        if self.test_last:
            return train, order[-self.test_size :]
        return train, order[self.train_size : self.train_size + self.test_size]


class TrainingSubset(eqx.Module):
    """Draws `size` training examples anew for each key; the test set stays whole."""

    pool: Dataset
    size: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        pool = self.pool
        rows = jax.random.choice(key, len(pool.x_train), (self.size,), replace=False)
        return Dataset(pool.x_train[rows], pool.y_train[rows], pool.x_test, pool.y_test)
