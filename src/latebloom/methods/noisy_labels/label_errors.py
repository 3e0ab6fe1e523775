"""Find the labels of a data set that look wrong, by training on it with early-learning regularisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.training import accuracy
from latebloom.core.unfold import unfold
from latebloom.methods.noisy_labels.early_learning import (
    EarlyLearning,
    EarlyLearningLoss,
    EarlyLearningState,
    noisy,
)
from latebloom.methods.noisy_labels.networks import SmallCNN
from latebloom.methods.noisy_labels.noise import LabelNoise, NoisyData
from latebloom.methods.noisy_labels.suspects import suspects
from latebloom.nn import MLP

FEWEST = 20


@dataclass(frozen=True)
class LabelErrors:
    """What was found.

    - `table`: see `suspects`; the most suspect label first.
    - `targets` [n, classes]: mean of the networks' running averages, rows sum to 1.
    - `classes`: what they are called, in the order of the columns of `targets`.
    - `train_accuracy`: on the given labels at the end, mean over the networks.
    """

    table: pd.DataFrame
    targets: np.ndarray
    classes: tuple[Any, ...]
    train_accuracy: float

    @property
    def suspects(self) -> pd.DataFrame:
        """The rows of the table whose targets have another class on top than the label."""
        return self.table.loc[self.table["suspect"]]

    def pairs(self) -> pd.DataFrame:
        """Suspects counted by label and suggestion, the most frequent first."""
        counts = self.suspects.groupby(["label", "suggested"], as_index=False).size()
        table = pd.DataFrame(counts).rename(columns={"size": "count"})
        return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def find_label_errors(
    x: np.ndarray, y: Sequence[Any] | np.ndarray, *, ids: Sequence[Any] | np.ndarray | None = None,
    network: Literal["mlp", "cnn"] = "mlp", epochs: int = 40, strength: float | None = None,
    beta: float = 0.7, rate: float = 0.03, seeds: int = 2, progress: Any = None,
) -> LabelErrors:  # fmt: skip
    """Train `seeds` small networks with early-learning regularisation and rank all labels.

    - `x`: features [n, d], which are standardised, or images [n, height, width] or [n, height, width,
      channels] (divided by 255 if they go beyond 1). `y` [n]: labels of any kind. `ids`: names of the examples.
    - `network`: an MLP with one hidden layer of 256, or for images a `SmallCNN`.
    - `strength` (lambda): 3 unless given, but 1 for two classes, where a strong term may lock in what
      was believed too early. `beta`, `rate` of SGD with momentum 0.9, `epochs`.
    - `progress` as in `latebloom.unfold`.

    Raises `ValueError` for shapes that do not match, values that are not finite, fewer than 20
    examples or two classes, and a CNN for features.
    """
    x, y = np.asarray(x), np.asarray(y)
    _check(x, y, network)
    classes, labels = np.unique(y, return_inverse=True)
    inputs, model = _prepared(x, network, len(classes))
    n = len(labels)
    batch_size = int(np.clip(n // 8, 4, 64))
    known = jnp.asarray(labels, jnp.int32)
    few = inputs[:1], known[:1]  # there is nothing to validate or test on
    process = _Watched(  # pyright: ignore
        model=model, data=NoisyData(inputs, known, *few, *few, LabelNoise(0.0, len(classes))),
        optimiser=_sgd, hyper={"rate": rate}, beta=beta, batch_size=batch_size, seeds_by="map",
        loss=EarlyLearningLoss(jnp.float32(strength or (3.0 if len(classes) > 2 else 1.0))),
    )  # fmt: skip
    trace = unfold(process, seeds=seeds, at=[epochs * (n // batch_size)], progress=progress)
    targets = trace.targets.isel(step=-1).values
    targets = (targets / np.maximum(targets.sum(axis=-1, keepdims=True), 1e-12)).mean(axis=0)
    table = suspects(targets, labels, ids, classes.tolist())
    return LabelErrors(table, targets, tuple(classes.tolist()), float(trace.train_accuracy.mean()))


class _Watched(EarlyLearning):
    """Early learning of data of which the truth is unknown."""

    def observe(self, state: EarlyLearningState) -> dict[str, Array]:  # pyright: ignore
        logits = self.apply(state.model, noisy(self.data).x_train, None, False)
        return {
            "train_accuracy": accuracy(logits, state.data.train),
            "targets": state.targets,
        }


def _check(x: np.ndarray, y: np.ndarray, network: str) -> None:
    if x.ndim not in (2, 3, 4) or y.ndim != 1 or len(x) != len(y):
        raise ValueError(
            "x must be [n, features] or [n, height, width] or [n, height, width, channels] and y [n], "
            f"not {list(x.shape)} and {list(y.shape)}"
        )
    if len(x) < FEWEST:
        raise ValueError(f"there are {len(x)} examples where at least {FEWEST} are needed")
    if x.dtype.kind not in "uifb" or not np.isfinite(x).all():
        raise ValueError("x must hold finite numbers: fill or drop what is missing")
    if len(np.unique(y)) < 2:
        raise ValueError(f"all labels are {y.tolist()[0]!r}: there must be two classes or more")
    if network == "cnn" and x.ndim == 2:
        raise ValueError("a cnn takes images [n, height, width], not features: use network mlp")


def _prepared(x: np.ndarray, network: str, classes: int) -> tuple[Array, Any]:
    """Inputs as the network takes them, and what builds it."""
    scaled = x.astype(np.float32)
    if x.ndim > 2 and scaled.max() > 1:
        scaled /= 255
    if network == "cnn":
        images = scaled if x.ndim == 4 else scaled[..., None]
        return jnp.asarray(images), partial(_cnn, images.shape[1:], classes)
    flat = scaled.reshape(len(x), -1)
    if x.ndim == 2:
        flat = (flat - flat.mean(axis=0)) / np.maximum(flat.std(axis=0), 1e-6)
    return jnp.asarray(flat), partial(_mlp, flat.shape[1], classes)


def _cnn(shape: tuple[int, int, int], classes: int, key: PRNGKeyArray) -> SmallCNN:
    return SmallCNN(shape[:2], shape[2], classes, key=key)


def _mlp(inputs: int, classes: int, key: PRNGKeyArray) -> MLP:
    return MLP(inputs, (256,), classes, key=key)


def _sgd(rate: Array) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)
