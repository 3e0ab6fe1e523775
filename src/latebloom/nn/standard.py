"""The networks that can be asked for by name, for examples whose shape a user brings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.calling import builder, call
from latebloom.nn.mlp import MLP
from latebloom.nn.smallcnn import SmallCNN

NAMES = ("mlp", "cnn")


def network_for(
    network: Any, inputs: Array, classes: int, *, hidden: tuple[int, ...] = (100, 100)
) -> Callable[[PRNGKeyArray], Any]:
    """What builds the network for such inputs [n, ...] and as many logits as classes.

    - `network`: "mlp", of `hidden` layers, for inputs [n, d]; "cnn", a `SmallCNN`, for images [n,
      height, width, channels]; an Equinox model, or `model(key)` that builds one.

    Raises `ValueError` for another name, inputs that do not suit it, and a model that gives other outputs.
    """
    shape = inputs.shape[1:]
    if isinstance(network, str):
        if network not in NAMES:
            raise ValueError(
                f"network must be 'mlp', 'cnn' or a model of your own, not {network!r}"
            )
        if network == "cnn" and len(shape) != 3:
            raise ValueError("a cnn takes images [n, height, width], not features: use network mlp")
        build = (
            partial(_mlp, int(np.prod(shape)), hidden, classes)
            if network == "mlp"
            else partial(_cnn, shape, classes)
        )
    else:
        build = builder(network)
    model = eqx.filter_eval_shape(build, jax.random.key(0))
    found = eqx.filter_eval_shape(call, model, inputs).shape
    if found != (len(inputs), classes):
        raise ValueError(
            f"the network makes {list(found)} of {len(inputs)} examples of {classes} classes: it must "
            f"give {classes} logits each"
        )
    return build


def _mlp(inputs: int, hidden: tuple[int, ...], classes: int, key: PRNGKeyArray) -> MLP:
    return MLP(inputs, hidden, classes, key=key)


def _cnn(shape: tuple[int, ...], classes: int, key: PRNGKeyArray) -> SmallCNN:
    height, width, channels = shape
    return SmallCNN((height, width), channels, classes, key=key)
