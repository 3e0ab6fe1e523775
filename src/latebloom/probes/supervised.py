"""Probes as `core.training.Supervised` takes them: functions of a model, its data and a `Snapshot`.

What comes before these three is given by `functools.partial`.
"""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from latebloom.core.dataset import Dataset
from latebloom.core.training import Snapshot, trainable
from latebloom.losses import stablemax_logits
from latebloom.probes.collapse import logit_scaling, softmax_collapse, weight_norm
from latebloom.probes.ntk import empirical_ntk, kernel_alignment


def target_power(
    part: Literal["train", "test"], model: Any, data: Dataset, snapshot: Snapshot
) -> Float[Array, ""]:
    """Mean square of the targets, the squared error of predicting zero; labels count as one-hot."""
    y = data.y_train if part == "train" else data.y_test
    if jnp.issubdtype(y.dtype, jnp.integer):
        return jnp.float32(1 / snapshot.train_logits.shape[-1])
    return jnp.mean(y**2)


def parameter_norm(model: Any, data: Dataset, snapshot: Snapshot) -> Float[Array, ""]:
    """L2 norm of all floating-point arrays of the model."""
    return optax.tree.norm(eqx.filter(model, eqx.is_inexact_array))


def ntk_alignment(points: int, model: Any, data: Dataset, snapshot: Snapshot) -> Float[Array, ""]:
    """`kernel_alignment` of the tangent kernel with the labels, on the first `points` of the test set."""
    kernel = empirical_ntk(model, data.x_test[:points])
    labels = jax.nn.one_hot(data.y_test[:points], snapshot.test_logits.shape[-1])
    return kernel_alignment(kernel, labels)


def collapse(
    stablemax: bool, precision: str | None, model: Any, data: Dataset, snapshot: Snapshot
) -> dict[str, Float[Array, ""]]:
    """`softmax_collapse` of the probabilities, softmax or StableMax, of the training set."""
    logits = snapshot.train_logits
    return softmax_collapse(
        stablemax_logits(logits) if stablemax else logits, data.y_train, precision
    )


def geometry(model: Any, data: Dataset, snapshot: Snapshot) -> dict[str, Array]:
    """`logit_scaling` [tensor] and `weight_norm` of the parameters, in single precision."""
    params = trainable(model)
    return {
        "logit_scaling": logit_scaling(params, snapshot.gradients).astype(jnp.float32),
        "weight_norm": weight_norm(params).astype(jnp.float32),
    }
