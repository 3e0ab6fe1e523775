"""Labelled examples dealt out to clients with unequal shares of the classes."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Split(NamedTuple):
    """Rows of the data set that each client has, and its class proportions."""

    train: Int[Array, "clients train"]
    test: Int[Array, "clients test"]
    proportions: Float[Array, "clients classes"]


class DirichletSplit(eqx.Module):
    """Deals out examples with class proportions drawn from a Dirichlet distribution.

    Every client has the same number of examples (all of them over the number of clients), drawn with
    replacement within each class, and the same proportions in the training and the test part.

    - `alpha`: concentration. 0 gives client i the class i modulo the number of classes alone, and
      infinity the same proportions to all.

    Source: the experiments of Fraboni et al. 2023 (arXiv:2206.10189, section 5.1). As there, the
    numbers of each class are rounded down and the last class has what remains.

    Raises `ValueError` for a negative `alpha`, fewer examples than clients, or a class without
    examples.
    """

    train_order: Int[np.ndarray, " train"]  # rows sorted by class
    test_order: Int[np.ndarray, " test"]
    train_counts: Int[np.ndarray, " classes"]
    test_counts: Int[np.ndarray, " classes"]
    clients: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True)

    def __init__(self, y_train: np.ndarray, y_test: np.ndarray, clients: int, alpha: float):
        y_train, y_test = np.asarray(y_train), np.asarray(y_test)
        classes = int(max(y_train.max(), y_test.max())) + 1
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0, not {alpha}")
        if not 1 <= clients <= min(len(y_train), len(y_test)):
            raise ValueError(
                f"{clients} clients cannot share {len(y_train)} training and {len(y_test)} test examples"
            )
        self.train_order, self.train_counts = _by_class(y_train, classes)
        self.test_order, self.test_counts = _by_class(y_test, classes)
        self.clients, self.alpha = clients, alpha

    def __call__(self, key: PRNGKeyArray) -> Split:
        share_key, train_key, test_key = jax.random.split(key, 3)
        proportions = self.proportions(share_key)
        return Split(
            _deal(train_key, proportions, self.train_order, self.train_counts),
            _deal(test_key, proportions, self.test_order, self.test_counts),
            proportions,
        )

    def proportions(self, key: PRNGKeyArray) -> Float[Array, "clients classes"]:
        """Share of each class in each client's examples."""
        classes = len(self.train_counts)
        if self.alpha == 0:
            return jax.nn.one_hot(jnp.arange(self.clients) % classes, classes, dtype=jnp.float32)
        if np.isinf(self.alpha):
            return jnp.full((self.clients, classes), 1 / classes, jnp.float32)
        concentration = jnp.full(classes, self.alpha, jnp.float32)
        return jax.random.dirichlet(key, concentration, (self.clients,))


def _by_class(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(
            f"class {counts.argmin()} has no examples in the training or the test part"
        )
    return np.argsort(labels, kind="stable").astype(np.int32), counts.astype(np.int32)


def _deal(
    key: PRNGKeyArray, proportions: Float[Array, "clients classes"], order: np.ndarray,
    counts: np.ndarray,
) -> Int[Array, "clients size"]:  # fmt: skip
    size = len(order) // len(proportions)
    # A proportion of exactly k / size must not be rounded below k.
    wanted = jnp.floor(proportions[:, :-1] * size + 1e-4).astype(jnp.int32)
    ends = jnp.cumsum(wanted, axis=1)
    label = jax.vmap(lambda end: jnp.searchsorted(end, jnp.arange(size), side="right"))(ends)
    starts = jnp.asarray(np.cumsum(counts) - counts, jnp.int32)
    place = jax.random.randint(key, label.shape, 0, jnp.asarray(counts)[label])
    return jnp.asarray(order)[starts[label] + place]
