"""What few-shot learners know before: a body trained on many classes that no episode has.

As a classifier of all training classes, or episode by episode by prototypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.process import Process, advanced
from latebloom.core.training import gradients, trainable, update
from latebloom.losses import cross_entropy
from latebloom.methods.forgetting.episodes import Design, Episode, Shelf, draw
from latebloom.methods.forgetting.few_shot import (
    Learner,
    Metric,
    answers,
    check_whole,
    compared,
    embedded,
    prototypes,
)
from latebloom.methods.forgetting.method import check, one_of
from latebloom.nn import Linear

SHARES = (
    0.74,
    0.13,
)  # of the classes, for training and validation, as for Omniglot (Antoniou et al. 2020)


class Pretrained(NamedTuple):
    """A learner whose head tells the training classes; `order`: of all classes, training ones first."""

    learner: Learner
    moments: Any
    order: Int[Array, " classes"]
    key: PRNGKeyArray
    step: Int[Array, ""]


class Pretraining(Process):
    """AdamW with a cosine down to a tenth of its rate, on batches of the training classes.

    - `body(key)` builds the network; `images` [n, ...] and their `shelf`. Each seed has classes of its own
      for training, validation and testing, in shares of .74, .13 and the rest; at least one each.
    - `objective`: "classes": cross-entropy of a linear head with an output for each training class;
      "prototypes": of the targets of an episode of `design` by prototypes with `metric`.
    - `seen`: training classes are taken from all, test classes among them: what disjointness is worth.

    Raises `ValueError` for settings out of range, or classes too few for the design.
    """

    body: Callable[[PRNGKeyArray], Any]
    images: Shaped[Array, "n ..."]
    shelf: Shelf
    objective: Literal["classes", "prototypes"] = eqx.field(static=True, default="classes")
    metric: Metric = eqx.field(static=True, default="dot")
    design: Design = eqx.field(static=True, default=Design(1, 20))
    batch: int = eqx.field(static=True, default=64)
    steps: int = eqx.field(static=True, default=1000)
    rate: Any = 1e-3
    decay: Any = 1e-4
    seen: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        one_of(self, "objective", ("classes", "prototypes"))
        one_of(self, "metric", ("dot", "euclidean"))
        check_whole(self, "batch")
        check_whole(self, "steps")
        check(self, "rate", above=True)
        check(self, "decay")
        if min(self.counts()) < 1:
            raise ValueError(
                f"{len(self.shelf.rows)} classes leave none for training, validation or testing: take 5 at least"
            )
        if self.objective == "prototypes" and self.counts()[0] < self.design.classes:
            raise ValueError(
                f"an episode of the design draws {self.design.classes} classes; {self.counts()[0]} are for training"
            )

    def counts(self) -> tuple[int, int, int]:
        """How many classes are for training, validation and testing."""
        n = len(self.shelf.rows)
        train = round(SHARES[0] * n)
        validation = max(1, round(SHARES[1] * n)) if n > 2 else 0
        return train, validation, n - train - validation

    def part(self, state: Pretrained, name: Literal["train", "validation", "test"]) -> Shelf:
        """The classes of a part."""
        train, validation, _ = self.counts()
        first = {"train": 0, "validation": train, "test": train + validation}[name]
        last = {"train": train, "validation": train + validation, "test": None}[name]
        return self.shelf.of(state.order[first:last])

    def init(self, key: PRNGKeyArray) -> Pretrained:
        body_key, head_key, order_key, own = jax.random.split(key, 4)
        body = self.body(body_key)
        shape = jax.ShapeDtypeStruct((2, *self.images.shape[1:]), self.images.dtype)
        features = eqx.filter_eval_shape(answers, body, shape).shape[-1]
        outputs = len(self.shelf.rows) if self.seen else self.counts()[0]
        learner = Learner(body, Linear(features, outputs, key=head_key))
        order = jax.random.permutation(order_key, len(self.shelf.rows))
        moments = self._rule().init(trainable(learner))
        return Pretrained(learner, moments, order, own, jnp.int32(0))

    def step(self, state: Pretrained) -> Pretrained:
        key = jax.random.fold_in(state.key, state.step)
        lesson = self._classes if self.objective == "classes" else self._episode
        found, seen = gradients(lambda learner: lesson(learner, state, key), state.learner)
        learner, moments = update(self._rule(), found, state.moments, state.learner, seen)
        return state._replace(learner=learner, moments=moments, step=state.step + 1)

    def _rule(self) -> optax.GradientTransformation:
        return optax.adamw(_cosine(self.rate, self.steps), weight_decay=self.decay)

    def _taught(self, state: Pretrained) -> Shelf:
        return self.shelf.of(state.order) if self.seen else self.part(state, "train")

    def _classes(self, learner: Learner, state: Pretrained, key: PRNGKeyArray) -> Float[Array, ""]:
        shelf = self._taught(state)
        one, two, three = jax.random.split(key, 3)
        labels = jax.random.randint(one, (self.batch,), 0, len(shelf.rows))
        own = shelf.rows[labels]
        place = jax.random.uniform(two, labels.shape) * (own >= 0).sum(axis=1)
        rows = jnp.take_along_axis(own, place.astype(int)[:, None], axis=1)[:, 0]
        logits = learner(self.images[rows], key=three, train=True)
        return cross_entropy(logits.astype(jnp.float32), labels).mean()

    def _episode(self, learner: Learner, state: Pretrained, key: PRNGKeyArray) -> Float[Array, ""]:
        episode = draw(key, self.design, self._taught(state))
        logits = by_prototypes(
            learner.body, self.images, episode, self.images[episode.target_rows], self.design.outputs, self.metric
        )  # fmt: skip
        return cross_entropy(logits.astype(jnp.float32), episode.target_labels).mean()

    def learner(self, state: Pretrained, outputs: int) -> Learner:
        """The body with a head for an episode's labels, drawn once: every episode starts from the same."""
        features = state.learner.head.weight.shape[0]
        key = jax.random.fold_in(state.key, 2**30 + outputs)
        return Learner(state.learner.body, Linear(features, outputs, key=key))

    def observe(self, state: Pretrained) -> dict[str, Array]:
        """Loss on a batch of the training classes that is not learned from."""
        key = jax.random.fold_in(state.key, 2**31 - 1)
        lesson = self._classes if self.objective == "classes" else self._episode
        return {"loss": lesson(state.learner, state, key)}


def _cosine(rate: Any, steps: int) -> optax.Schedule:
    """From `rate` to a tenth of it, half a turn of a cosine."""
    return lambda count: rate * (0.55 + 0.45 * jnp.cos(jnp.pi * jnp.minimum(count / steps, 1)))


def by_prototypes(
    body: Any, images: Shaped[Array, "n ..."], episode: Episode, x: Shaped[Array, "targets ..."],
    outputs: int, metric: Metric, statistics: Literal["batch", "running"] = "batch",
) -> Float[Array, "targets outputs"]:  # fmt: skip
    """Logits of target images x by the prototypes of an episode's support sets."""
    features = embedded(body, images, episode, statistics)
    centres = prototypes(features, episode.labels.ravel(), outputs)
    return compared(answers(body, x, statistics), centres, metric)


def pretrained(process: Pretraining, key: PRNGKeyArray) -> Pretrained:
    """The state after all of its steps, in one compiled loop."""
    return advanced(process, eqx.filter_jit(process.init)(key), process.steps)
