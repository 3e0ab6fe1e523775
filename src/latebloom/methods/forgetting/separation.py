"""How well a continual learner tells classes apart, and what its features are worth beyond them: watched at exams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latebloom.core.process import Quantity
from latebloom.methods.forgetting.continual import Continual, ContinualState
from latebloom.methods.forgetting.mixing import class_pairs, evenness, pair_chances
from latebloom.methods.forgetting.prototypes import Known
from latebloom.methods.forgetting.replay import unit


class Separation(Continual):
    """Continual learning that also observes, on all test examples,

    - `confusion` [class, told as]: shares of the examples of each class, NaN for one not seen so far;
    - `apart` [class, other]: distance of the mean features of two classes, features and means of length 1; NaN
      unless both are seen;
    - `unseen`: accuracy of a linear probe of the features among the classes not seen so far, of which it alone is
      given training examples (`probed` of them, from the first); NaN where fewer than two are left;
    - `balance`, of `OnPro`: how even the chances of pairs are after the last replayed batch (`mixing.evenness`);
    - `online` [class, other], of `OnPro`: distance of the prototypes of that batch; NaN unless both classes are in it;
    - `shifted`: accuracy on other inputs `shifted` [test, ...] for the same labels, the mean over the classes seen so far.

    `encode(model, x)` [n, features].
    """

    # LAPACK's solver for many seeds (`probe_accuracy`) waits for threads that the other host devices hold while they
    # wait for it: with as many devices as cores it never ends (jaxlib 0.10).
    one_device: ClassVar[bool] = True
    encode: Callable[[Any, Array], Array]
    shifted: Array | None
    probed: int = eqx.field(static=True)

    def __init__(
        self, *, encode: Callable[[Any, Array], Array], shifted: Array | None = None, probed: int = 1000,
        **settings: Any,
    ):  # fmt: skip
        super().__init__(**settings)
        self.encode, self.shifted, self.probed = encode, shifted, probed
        if shifted is not None and shifted.shape != self.data.x_test.shape:
            raise ValueError(
                f"shifted must be inputs {list(self.data.x_test.shape)} as the test examples, not {list(shifted.shape)}"
            )
        if probed < 1:
            raise ValueError(f"probed must be at least 1, not {probed}")

    def observe(self, state: ContinualState) -> dict[str, Array]:
        data, classes = self.data, state.stream.classes.shape[1]
        seen = state.stream.seen[state.stream.task[jnp.maximum(state.step - 1, 0)]]
        seen = jnp.where(state.step > 0, seen, False)
        scores_of = self._scores(state)

        def told(x: Array) -> Array:
            scores = scores_of(x)[:, :classes]
            return jnp.where(seen, scores, -jnp.inf) if self.head == "seen" else scores

        features = unit(self.encode(state.model, data.x_test).astype(jnp.float32))
        known = unit(self.encode(state.model, data.x_train[: self.probed]).astype(jnp.float32))
        table = confusion(told(data.x_test), data.y_test, seen)
        found = super().observe(state) | {
            "confusion": table,
            "apart": class_distances(features, data.y_test, seen),
            "unseen": probe_accuracy(
                known, data.y_train[: self.probed], features, data.y_test, ~seen
            ),
        }
        if isinstance(state.own, Known):
            between = state.own.distances
            pairs = between[class_pairs(classes)]
            found["balance"] = evenness(pair_chances(pairs), jnp.isfinite(pairs))
            found["online"] = jnp.where(jnp.isfinite(between), between, jnp.nan)
        if self.shifted is not None:
            moved = confusion(told(self.shifted), data.y_test, seen)
            found["shifted"] = jnp.nanmean(jnp.diagonal(moved))
        return found

    def quantities(self) -> dict[str, Quantity]:
        classes = list(range(self._classes))
        pairs = {"class": classes, "other": classes}
        own = {
            "confusion": Quantity(
                "1", ("class", "other"), pairs, "share of a class told as", gaps=True
            ),
            "apart": Quantity(
                "1", ("class", "other"), pairs, "distance of mean unit features", gaps=True
            ),
            "unseen": Quantity(
                "1", about="accuracy of a linear probe on classes not seen so far", gaps=True
            ),
            "balance": Quantity(
                "1", about="entropy of the pairs' chances / the highest", gaps=True
            ),
            "online": Quantity(
                "1", ("class", "other"), pairs, "distance of online prototypes", gaps=True
            ),
            "shifted": Quantity("1", about="accuracy on shifted inputs", gaps=True),
        }
        return super().quantities() | own

    @property
    def _classes(self) -> int:
        shape = eqx.filter_eval_shape(self.stream, jax.random.key(0))
        return shape.classes.shape[1]


def confusion(
    scores: Float[Array, "n classes"], labels: Int[Array, " n"], seen: Bool[Array, " classes"]
) -> Float[Array, "classes classes"]:
    """Share of each class told as each; NaN for one that is not seen or has no example."""
    classes = scores.shape[1]
    of, told = (jax.nn.one_hot(v, classes) for v in (labels, scores.argmax(axis=1)))
    count = of.sum(axis=0)
    return jnp.where((seen & (count > 0))[:, None], of.T @ told / count[:, None], jnp.nan)


def class_distances(
    features: Float[Array, "n d"], labels: Int[Array, " n"], seen: Bool[Array, " classes"]
) -> Float[Array, "classes classes"]:
    """Distances of the mean features of classes, the means of length 1; NaN unless both are seen and there."""
    of = jax.nn.one_hot(labels, len(seen))
    means = unit(of.T @ features)
    there = seen & (of.sum(axis=0) > 0)
    apart = jnp.sqrt(jnp.square(means[:, None] - means[None]).sum(axis=-1))
    return jnp.where(there[:, None] & there[None], apart, jnp.nan)


def probe_accuracy(
    known: Float[Array, "n d"], labels: Int[Array, " n"], x: Float[Array, "m d"], y: Int[Array, " m"],
    among: Bool[Array, " classes"], ridge: float = 0.1,
) -> Float[Array, ""]:  # fmt: skip
    """Accuracy on (x, y) of a ridge regression of the classes `among` which it is asked, fitted to `known`.

    The constant is not penalised. NaN for fewer than two classes.
    """
    inside = among[labels].astype(known.dtype)[:, None]
    centre = (inside * known).sum(axis=0) / jnp.maximum(inside.sum(), 1)
    z = (known - centre) * inside
    targets = jax.nn.one_hot(labels, len(among)) * inside
    mean = targets.sum(axis=0) / jnp.maximum(inside.sum(), 1)
    gram = z.T @ z + ridge * jnp.eye(z.shape[1])
    weights = jax.scipy.linalg.solve(gram, z.T @ (targets - mean * inside), assume_a="pos")
    scores = jnp.where(among, (x - centre) @ weights + mean, -jnp.inf)
    asked = among[y]
    right = (asked & (scores.argmax(axis=1) == y)).sum() / jnp.maximum(asked.sum(), 1)
    return jnp.where(among.sum() > 1, right, jnp.nan)
