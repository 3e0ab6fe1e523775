"""Where contexts and losses come from: labelled tables played as bandits, and synthetic rewards."""

from __future__ import annotations

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.interaction import Decision, Environment, Outcome, View
from latebloom.data import load, load_table


class ClassificationBandit(Environment):
    """A labelled table as a bandit: the reward is 1 for naming the row's label, else 0.

    Rows come in an order drawn for each seed, and again from its start when they are used up.

    - `noise`: probability with which a reward is flipped (the same rounds for every policy).
    - `group`: rows of one group come in one block, the blocks in an order drawn for each seed; all
      zero for a plain shuffle. `shuffle=False`: rows come as they stand.

    Raises `ValueError` for lengths that differ and labels that are no action.
    """

    actions: int = eqx.field(static=True)
    x: Float[Array, "n d"]
    label: Int[Array, " n"]
    group: Int[Array, " n"]
    noise: float = 0.0
    shuffle: bool = eqx.field(static=True, default=True)
    memoryless: bool = eqx.field(static=True, default=True, init=False)

    def __check_init__(self) -> None:
        if not len(self.x) == len(self.label) == len(self.group):
            raise ValueError(
                f"x, label and group must have one row each, not "
                f"{len(self.x)}, {len(self.label)}, {len(self.group)}"
            )
        labels = np.asarray(self.label)
        if labels.min() < 0 or labels.max() >= self.actions:
            raise ValueError(f"labels must be 0 .. {self.actions - 1}")

    def init(self, key: PRNGKeyArray) -> Int[Array, " n"]:
        if not self.shuffle:
            return jnp.arange(len(self.x), dtype=jnp.int32)
        rows, blocks = jax.random.uniform(key, (2, len(self.x)))
        return jnp.lexsort((rows, blocks[self.group])).astype(jnp.int32)

    def look(self, order: Any, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        row = order[round % len(self.x)]
        return View(self.x[row], jnp.ones(self.actions, bool))

    def step(
        self, order: Any, view: View, decision: Decision, key: PRNGKeyArray, round: Int[Array, ""]
    ) -> tuple[Any, Outcome]:
        hit = self.label[order[round % len(self.x)]] == decision.action
        flipped = jax.random.uniform(key) < self.noise
        reward = (hit ^ flipped).astype(jnp.float32)
        mean = jnp.where(hit, 1 - self.noise, self.noise).astype(jnp.float32)
        return order, Outcome(reward, reward, mean, jnp.float32(1 - self.noise))


FUNCTIONS = ("h1", "h2", "h3")


def _function(name: str | Array) -> Array:
    """A number in the place of the name, so that the three share one compiled program."""
    if not isinstance(name, str):
        return name
    if name not in FUNCTIONS:
        raise ValueError(f"there is no function {name!r}; there are: {', '.join(FUNCTIONS)}")
    return jnp.int32(FUNCTIONS.index(name))


class SyntheticBandit(Environment):
    """Arms with unit contexts of their own; the mean reward is a function of the context.

    h1 = 10 (xᵀa)², h2 = xᵀAᵀA x, h3 = cos(3 xᵀa) (Zhou et al. 2020, arXiv:1911.04462, section 7.1),
    each moved and scaled to [0, 1] by its range over 4096 contexts and clipped; A has standard normal
    entries drawn for each seed, and `a` is its first row at length one. Rewards are Bernoulli.

    Raises `ValueError` for a `function` that is none of the three.
    """

    actions: int = eqx.field(static=True, default=4)
    function: Int[Array, ""] = eqx.field(converter=_function, default="h1")
    inputs: int = eqx.field(static=True, default=20)
    memoryless: bool = eqx.field(static=True, default=True, init=False)

    def init(self, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        instance, pool = jax.random.split(key)
        matrix = jax.random.normal(instance, (self.inputs, self.inputs), jnp.float32)
        values = self._raw(matrix, unit(jax.random.normal(pool, (4096, self.inputs), jnp.float32)))
        return matrix, values.min(), values.max()

    def _raw(self, matrix: Array, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        along = x @ (matrix[0] / jnp.linalg.norm(matrix[0]))
        values = (10 * along**2, jnp.sum((x @ matrix.T) ** 2, -1), jnp.cos(3 * along))
        return jnp.stack(values)[self.function]

    def means(self, instance: Any, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Mean rewards of contexts."""
        matrix, low, high = instance
        return jnp.clip((self._raw(matrix, x) - low) / (high - low), 0.0, 1.0)

    def look(self, instance: Any, key: PRNGKeyArray, round: Int[Array, ""]) -> View:
        x = unit(jax.random.normal(key, (self.actions, self.inputs), jnp.float32))
        return View(x, jnp.ones(self.actions, bool))

    def step(
        self, instance: Any, view: View, decision: Decision, key: PRNGKeyArray,
        round: Int[Array, ""],
    ) -> tuple[Any, Outcome]:  # fmt: skip
        means = self.means(instance, view.features)
        mean = means[decision.action]
        reward = (jax.random.uniform(key) < mean).astype(jnp.float32)
        return instance, Outcome(reward, reward, mean, means.max())


def unit(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Rows scaled to length one."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def contexts(x: np.ndarray) -> np.ndarray:
    """Features [n, d] as contexts [n, d + 1]: standardised, a constant added, of length one."""
    x = np.asarray(x, np.float64)
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1.0)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@cache
def load_contexts(
    name: str,
) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"], int]:
    """Contexts, labels and the number of classes of a data set; of MNIST 50 principal components."""
    if name != "mnist-5k":
        found = load_table(name)
        return contexts(found.x), found.y, len(found.classes)
    from sklearn.decomposition import PCA

    images = load(name)
    x = np.concatenate([images.x_train, images.x_test]).reshape(-1, 784)
    y = np.concatenate([images.y_train, images.y_test]).astype(np.int32)
    return contexts(PCA(50, random_state=0).fit_transform(x)), y, 10


@cache
def _clusters(name: str, count: int = 8) -> Int[np.ndarray, " n"]:
    """The k-means cluster of each row of a data set."""
    from sklearn.cluster import KMeans

    return KMeans(count, random_state=0).fit_predict(load_contexts(name)[0]).astype(np.int32)


def table_bandit(
    name: str, noise: float = 0.0, *, in_clusters: bool = False
) -> ClassificationBandit:
    """A data set played as a bandit; `in_clusters`: its rows come in blocks of eight k-means clusters."""
    x, y, classes = load_contexts(name)
    group = _clusters(name) if in_clusters else np.zeros(len(x), np.int32)
    return ClassificationBandit(classes, jnp.asarray(x), jnp.asarray(y), jnp.asarray(group), noise)


def draw_contexts(name: str, count: int, key: PRNGKeyArray) -> Float[Array, "n d"]:
    """`count` contexts: "orthogonal" ones, "random" ones in as many dimensions, or rows of a data set
    in random order."""
    if name == "orthogonal":
        return jnp.eye(count)
    if name == "random":
        return unit(jax.random.normal(key, (count, count)))
    rows = load_contexts(name)[0]
    return jnp.asarray(rows)[jax.random.permutation(key, len(rows))[:count]]
