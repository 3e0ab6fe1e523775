"""Find the labels of a data set that look wrong, by training on it with early-learning regularisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from latebloom.core.calling import call
from latebloom.core.training import accuracy
from latebloom.core.unfold import unfold
from latebloom.core.vectors import set_weights, weights
from latebloom.data import Standardiser
from latebloom.data.labelled import check_examples, given_labels
from latebloom.methods.noisy_labels.early_learning import (
    EarlyLearning,
    EarlyLearningLoss,
    EarlyLearningState,
    noisy,
)
from latebloom.methods.noisy_labels.noise import LabelNoise, NoisyData
from latebloom.methods.noisy_labels.suspects import suspects
from latebloom.nn.standard import network_for
from latebloom.optim import sgd

FEWEST = 20


class NotLearned(ValueError):
    """The networks agree with the labels no more than chance would: nothing can be said of them."""


@dataclass(frozen=True)
class LabelErrors:
    """What was found.

    - `table`: see `suspects`; the most suspect label first.
    - `targets` [n, classes]: mean of the networks' running averages, rows sum to 1.
    - `classes`: what they are called, in the order of the columns of `targets`.
    - `train_accuracy`: on the given labels at the end, mean over the networks.
    - `networks`: those that were trained, one a seed; `prepare(x)` makes their inputs of examples.
    """

    table: pd.DataFrame
    targets: np.ndarray
    classes: tuple[Any, ...]
    train_accuracy: float
    networks: tuple[Any, ...]
    prepare: Callable[[np.ndarray], Array]

    @property
    def suspects(self) -> pd.DataFrame:
        """The rows of the table whose targets have another class on top than the label."""
        return self.table.loc[self.table["suspect"]]

    def pairs(self) -> pd.DataFrame:
        """Suspects counted by label and suggestion, the most frequent first."""
        counts = self.suspects.groupby(["label", "suggested"], as_index=False).size()
        table = pd.DataFrame(counts).rename(columns={"size": "count"})
        return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Probabilities [n, classes] of other examples, mean over the networks."""
        inputs = self.prepare(np.asarray(x))
        found = [
            jax.nn.softmax(call(network, inputs).astype(jnp.float32)) for network in self.networks
        ]
        return np.mean(found, axis=0)


def find_label_errors(
    x: np.ndarray, y: Sequence[Any] | np.ndarray, *, ids: Sequence[Any] | np.ndarray | None = None,
    network: Any = "mlp", epochs: int = 40, strength: float | None = None, beta: float = 0.7,
    rate: float = 0.03, seeds: int = 2, progress: Any = None,
) -> LabelErrors:  # fmt: skip
    """Train `seeds` networks with early-learning regularisation and rank all labels.

    - `x`: features [n, d], or images [n, height, width] or [n, height, width, channels]. Features are
      standardised one by one, images as a whole (each channel), so that units, offsets and ranges are
      no matter. `y` [n]: labels of any kind, words without the blanks around them. `ids`: names of the
      examples.
    - `network`: "mlp", with one hidden layer of 256; "cnn", a `SmallCNN` for images; or your own, an
      Equinox model or `model(key)` that builds one, which is handed what `prepare` makes of `x` (images
      keep their shape, with a last axis of channels) and gives a logit a class in sorted order.
    - `strength` (lambda): 3 unless given, but 1 for two classes, where a strong term may lock in what
      was believed too early; 0 is plain cross-entropy. `beta`, `rate` of SGD with momentum 0.9,
      `epochs`.
    - `progress` as in `latebloom.unfold`.

    Raises `ValueError` for shapes that do not match, values that are not finite, labels that are
    missing, fewer than 20 examples or two classes, settings out of their range and a training that
    diverges; `NotLearned`, a `ValueError`, where the networks agree with the labels no more than chance
    would (three standard errors of Cohen's kappa).
    """
    x, y = np.asarray(x), given_labels(y)
    check_examples(x, y, FEWEST, own=not isinstance(network, str))
    _check_settings(epochs, strength, beta, rate, seeds)
    classes, labels = np.unique(y, return_inverse=True)
    prepare: Any = Standardiser.of(x)
    if isinstance(network, str) and network == "mlp":
        prepare = _Flat(prepare)
    inputs = prepare(x)
    model = network_for(network, inputs, len(classes), hidden=(256,))
    n = len(labels)
    batch_size = int(np.clip(n // 8, 4, 64))
    known = jnp.asarray(labels, jnp.int32)
    few = inputs[:1], known[:1]  # there is nothing to validate or test on
    if strength is None:
        strength = 3.0 if len(classes) > 2 else 1.0
    process = _Watched(  # pyright: ignore
        model=model, data=NoisyData(inputs, known, *few, *few, LabelNoise(0.0, len(classes))),
        optimiser=sgd, hyper={"rate": rate}, beta=beta, batch_size=batch_size, seeds_by="map",
        loss=EarlyLearningLoss(jnp.float32(strength)),
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, at=[epochs * (n // batch_size)], progress=progress)
    if (trace.diverged_at >= 0).any():
        raise ValueError(f"training diverged: take a lower rate than {rate:g}")
    end = trace.isel(step=-1)
    targets = end.targets.values.astype(float)
    # An epoch leaves an incomplete batch out, so that a few examples may not have been seen.
    targets = np.where(targets.sum(-1, keepdims=True) > 0, targets, end.predictions.values)
    targets = (targets / targets.sum(-1, keepdims=True)).mean(axis=0)
    targets /= targets.sum(-1, keepdims=True)
    agreed = float(trace.train_accuracy.mean())
    _check_learned(targets.argmax(1), labels, len(classes), agreed)
    table = suspects(targets, labels, ids, classes.tolist())
    starts = (process.init(jax.random.key(seed)).model for seed in range(seeds))
    networks = tuple(
        set_weights(start, jnp.asarray(vector), running=True)
        for start, vector in zip(starts, end.weights.values, strict=True)
    )
    return LabelErrors(table, targets, tuple(classes.tolist()), agreed, networks, prepare)


@dataclass(frozen=True)
class _Flat:
    """Prepared examples as vectors."""

    prepare: Standardiser

    def __call__(self, x: np.ndarray) -> Array:
        return self.prepare(x).reshape(len(x), -1)


class _Watched(EarlyLearning):
    """Early learning of data of which the truth is unknown."""

    def observe(self, state: EarlyLearningState) -> dict[str, Array]:  # pyright: ignore
        logits = self.apply(state.model, noisy(self.data).x_train, None, False)
        return {
            "train_accuracy": accuracy(logits, state.data.train),
            "targets": state.targets,
            "predictions": jax.nn.softmax(logits.astype(jnp.float32)),
            "weights": weights(state.model, running=True),
        }


def _check_settings(
    epochs: int, strength: float | None, beta: float, rate: float, seeds: int
) -> None:
    if epochs < 1 or seeds < 1:
        raise ValueError(f"epochs and seeds must be at least 1, not {epochs} and {seeds}")
    if not (rate > 0 and np.isfinite(rate)) or not 0 <= beta < 1:
        raise ValueError(f"rate must be above 0 and beta in [0, 1), not {rate} and {beta}")
    if strength is not None and not (strength >= 0 and np.isfinite(strength)):
        raise ValueError(f"strength must not be negative, not {strength}")


def _check_learned(
    said: np.ndarray, labels: np.ndarray, classes: int, train_accuracy: float
) -> None:
    """Raises where what is said agrees with the labels no more than by chance."""
    shares = [np.bincount(values, minlength=classes) / len(labels) for values in (said, labels)]
    chance = float(np.dot(*shares))
    error = np.sqrt(chance * (1 - chance) / len(labels))
    agreed = float((said == labels).mean())
    if not agreed > chance + 3 * error:
        raise NotLearned(
            f"the networks agree with {agreed:.1%} of the labels where chance alone would with "
            f"{chance:.1%}: they have not learned the classes (training accuracy {train_accuracy:.1%}), so "
            "no label can be called suspect; try more epochs, another rate, or network 'cnn' for images"
        )
