"""Learning a few images after the others: tuning with and without replay, prototypes, nearest neighbours.

All of it works on one episode (`methods.forgetting.episodes`) with pure functions; `jax.vmap` takes them to
many. What tunes changes all weights of a pretrained network; what compares features changes none, and
so forgets nothing.

Source: Kowadlo et al. 2024 (arXiv 2209.07863) and its code, Antoniou et al. 2020 (arXiv 2004.11967); Snell et
al. 2017 (arXiv 1703.05175) for prototypes.
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.calling import call
from latebloom.core.training import gradients, trainable, update
from latebloom.losses import cross_entropy
from latebloom.methods.forgetting.episodes import Episode
from latebloom.methods.forgetting.method import check

Statistics = Literal["batch", "running"]
Metric = Literal["dot", "euclidean"]
DESCENT = 300  # steps of logistic regression, with Nesterov's momentum


class Learner(eqx.Module):
    """A network that embeds, and a head on its features: logits [batch, outputs] of images [batch, ...].

    Both are any Equinox model or function; `eqx.nn.Identity()` heads a network that ends in logits.
    """

    body: Any
    head: Any

    def __call__(
        self, x: Shaped[Array, "batch ..."], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "batch outputs"]:
        own, other = (None, None) if key is None else jax.random.split(key)
        return call(self.head, call(self.body, x, own, train), other, train)


class Replay(eqx.Module):
    """What is shown again beside a support set: images of the last support sets.

    - `images`: drawn from them without replacement in each step, from 1.
    - `sets`: as many of the last ones are kept (first in, first out). It may be traced.
    - `earlier`: False shows as many images of the support set itself instead, so that steps and images are
      the same and nothing is remembered. It may be traced.

    Where fewer are kept than are drawn, images of the set itself take the free places.
    """

    images: int = eqx.field(static=True)
    sets: int | Int[Array, ""] = 1
    earlier: Any = True

    def __check_init__(self) -> None:
        check_whole(self, "images")
        check_whole(self, "sets")


class Tuning(eqx.Module):
    """Stochastic gradient descent on one support set after the other, of all weights.

    `rate`: learning rate of plain SGD. `steps` on each support set. Both may be traced.
    """

    rate: float | Float[Array, ""] = 0.01
    steps: int | Int[Array, ""] = 5
    replay: Replay | None = None

    def __check_init__(self) -> None:
        check(self, "rate")
        check_whole(self, "steps")


def check_whole(of: Any, name: str) -> None:
    """Raises `ValueError` where a setting is not a whole number from 1, or not known to be one."""
    value = getattr(of, name)
    if isinstance(value, jax.core.Tracer):  # pyright: ignore
        return
    values = np.asarray(value)
    if values.dtype.kind not in "iu" or (values < 1).any():
        raise ValueError(
            f"{name} of {type(of).__name__} must be a whole number from 1, not {value}"
        )


def shown(
    episode: Episode, number: Int[Array, ""], replay: Replay | None, key: PRNGKeyArray
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Rows and labels of one step on support set `number`: its own, then what is replayed."""
    own = episode.rows[number], episode.labels[number]
    if replay is None:
        return own
    sets, images = episode.rows.shape
    at = jnp.repeat(jnp.arange(sets), images)
    kept = (at < number) & (at >= number - replay.sets) & jnp.asarray(replay.earlier, bool)
    one, two = jax.random.split(key)
    lots = jnp.where(kept, jax.random.uniform(one, at.shape), -1.0)
    places = jnp.arange(replay.images)
    # Places that the memory cannot fill go through the set's own images in a random order.
    order = jax.random.permutation(two, images)[places % images]
    drawn = jnp.full((replay.images,), number * images) + order
    count = min(replay.images, len(at))
    best, where = jax.lax.top_k(lots, count)
    drawn = drawn.at[:count].set(jnp.where(best >= 0, where, drawn[:count]))
    rows, labels = episode.rows.ravel()[drawn], episode.labels.ravel()[drawn]
    return jnp.concatenate([own[0], rows]), jnp.concatenate([own[1], labels])


def tuned(
    learner: Learner, images: Shaped[Array, "n ..."], episode: Episode, tuning: Tuning, key: PRNGKeyArray,
    each: bool = False,
) -> Learner:  # fmt: skip
    """The learner after all support sets of an episode, each shown for so many steps of SGD on its
    cross-entropy, with what is replayed; with `each`, as it was after each set, stacked.

    Normalisation takes its statistics from the step's images; running ones move with them, and are what
    `answers(..., statistics="running")` uses.
    """
    images, rule = jnp.asarray(images), optax.sgd(tuning.rate)
    arrays, static = eqx.partition(learner, eqx.is_array)
    moments = rule.init(trainable(learner))

    def step(i: Array, arrays: Any, number: Array) -> Any:
        learner = eqx.combine(arrays, static)
        now = jax.random.fold_in(jax.random.fold_in(key, number), i)
        rows, labels = shown(episode, number, tuning.replay, now)

        def loss(learner: Learner) -> Array:
            logits = learner(images[rows], key=jax.random.fold_in(now, 1), train=True)
            return cross_entropy(logits.astype(jnp.float32), labels).mean()

        found, seen = gradients(loss, learner)
        after, _ = update(rule, found, moments, learner, seen)
        return eqx.filter(after, eqx.is_array)

    def lesson(arrays: Any, number: Array) -> tuple[Any, Any]:
        steps = jnp.asarray(tuning.steps)
        arrays = jax.lax.fori_loop(0, steps, lambda i, a: step(i, a, number), arrays)
        return arrays, arrays if each else None

    last, every = jax.lax.scan(lesson, arrays, jnp.arange(episode.rows.shape[0]))
    return eqx.combine(every if each else last, static)


def answers(
    model: Any, x: Shaped[Array, "targets ..."], statistics: Statistics = "batch"
) -> Float[Array, "targets outputs"]:
    """What a network gives for images: logits of a learner, or features of a body.

    - `statistics`: what batch normalisation goes by. "batch", as in the released code: by all images
      together, so that an image's answer depends on those beside it (a transductive test). "running": by
      those that training left, each image for itself (inductive). Without such layers both are the same.

    Raises `ValueError` for other statistics.
    """
    if statistics not in ("batch", "running"):
        raise ValueError(f"statistics must be 'batch' or 'running', not {statistics!r}")
    return call(model, jnp.asarray(x), None, statistics == "batch")


def embedded(
    body: Any, images: Shaped[Array, "n ..."], episode: Episode, statistics: Statistics = "batch"
) -> Float[Array, "support features"]:
    """Features of all support images, in order; by "batch" statistics each set is a batch, as it came."""
    images = jnp.asarray(images)
    sets = jax.vmap(lambda rows: answers(body, images[rows], statistics))(episode.rows)
    return sets.reshape(-1, *sets.shape[2:])


def prototypes(
    features: Float[Array, "support features"], labels: Int[Array, " support"], outputs: int
) -> Float[Array, "outputs features"]:
    """The mean of the features of each label, over all support sets; 0 of a label that none has."""
    own = jax.nn.one_hot(labels, outputs, dtype=features.dtype)
    return own.T @ features / jnp.maximum(own.sum(axis=0), 1)[:, None]


def compared(
    queries: Float[Array, "targets features"], centres: Float[Array, "outputs features"], metric: Metric
) -> Float[Array, "targets outputs"]:  # fmt: skip
    """Logits of queries by prototypes.

    "dot": q.p, which the released code computes under the name of cosine distance; "euclidean":
    -|q - p|^2, as in Snell et al. 2017. Computed in float32 at least, of bytes and half precision too.

    Raises `ValueError` for another metric.
    """
    if metric not in ("dot", "euclidean"):
        raise ValueError(f"metric must be 'dot' or 'euclidean', not {metric!r}")
    queries, centres = _single(queries), _single(centres)
    near = queries @ centres.T
    if metric == "dot":
        return near
    return 2 * near - (queries**2).sum(axis=1)[:, None] - (centres**2).sum(axis=1)


def _single(values: Any) -> Array:
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def nearest(
    queries: Float[Array, "targets features"], features: Float[Array, "support features"],
    labels: Int[Array, " support"], outputs: int,
) -> Float[Array, "targets outputs"]:  # fmt: skip
    """Logits by the nearest support image: for each label -|q - f|^2 of its nearest one; -inf without any."""
    near = compared(queries, features, "euclidean")
    return jnp.full((len(queries), outputs), -jnp.inf, near.dtype).at[:, labels].max(near)


def logistic(
    queries: Float[Array, "targets features"], features: Float[Array, "support features"],
    labels: Int[Array, " support"], outputs: int, strength: float | Array = 1.0, steps: int = DESCENT,
) -> Float[Array, "targets outputs"]:  # fmt: skip
    """Logits of logistic regression on all support images at once, which no sequence disturbs.

    Minimises the sum of cross-entropies plus |w|^2 / (2 `strength`) (biases are free) by gradient descent
    with Nesterov's momentum, from 0. Features are standardised by the support images.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = jnp.where(spread > 1e-6 * (1 + abs(mean)), spread, 1)
    x, q = (jnp.pad((f - mean) / spread, ((0, 0), (0, 1)), constant_values=1) for f in (features, queries))  # fmt: skip
    pull = jnp.ones((x.shape[1], 1)).at[-1].set(0) / strength
    own = jax.nn.one_hot(labels, outputs)
    length = 1 / (0.5 * (x**2).sum() + 1 / strength)  # a bound of the curvature

    def step(i: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        w, ahead = at
        slope = x.T @ (jax.nn.softmax(x @ ahead) - own) + pull * ahead
        new = ahead - length * slope
        return new, new + i / (i + 3.0) * (new - w)

    start = jnp.zeros((x.shape[1], outputs))
    return q @ jax.lax.fori_loop(0, steps, step, (start, start))[0]


def correct(
    logits: Float[Array, "targets outputs"], labels: Int[Array, " targets"]
) -> Float[Array, " targets"]:
    """1 for each target whose label has the highest logit, else 0; where all are equal or one is NaN, 0."""
    told = jnp.isfinite(jnp.where(jnp.isneginf(logits), 0, logits)).all(axis=1)
    some = logits.max(axis=1) > logits.min(axis=1)
    return ((logits.argmax(axis=1) == labels) & told & some).astype(jnp.float32)
