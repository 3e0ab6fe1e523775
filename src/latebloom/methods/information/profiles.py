"""One call for trained models: which layer keeps what, and what goes with the gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from latebloom.core.calling import call
from latebloom.core.dataset import Dataset, check_targets
from latebloom.losses import cross_entropy
from latebloom.methods.information.bound import combined, summarise_layers
from latebloom.methods.information.correlations import correlation_table
from latebloom.methods.information.representation import (
    NATS_PER_BIT,
    Marginal,
    information,
    probe_with_noise,
)
from latebloom.methods.information.weights import (
    Swag,
    cumulative_log_densities,
    layer_index,
    single_seed_information,
    stack,
)


class Trained(NamedTuple):
    """A trained model with the data it was trained and is tested on.

    `setting` names its hyperparameters, `instance` its training set, `seed` its start. `posterior` holds
    its snapshots: I(S; theta) compares models of one setting and seed on different instances.
    """

    model: Any
    data: Dataset
    setting: str
    instance: int
    seed: int = 0
    posterior: Swag | None = None


class Profiles(NamedTuple):
    """Tables in bits (gaps in nats): a row a model and layer, a row a model, a row a measure."""

    layers: pd.DataFrame
    models: pd.DataFrame
    correlations: pd.DataFrame


def information_profiles(
    trained: Sequence[Trained], layers: Callable[[Any, Array], Sequence[Any]],
    logits: Callable[[Any, Array], Array] = call, *,
    layer_of: Callable[[str], int] = layer_index, how: Marginal = "mc", least_accuracy: float = 0.85,
    rows: int = 400, samples: int = 10, seed: int = 0,
) -> Profiles:  # fmt: skip
    """I(X; Z), I(X; Z | Y), I(S; theta) and their sum for every layer, and rank correlations with the gap.

    - `layers(model, x)`: for inputs [n, ...], one entry a layer in order of depth: activations [n, d], to
      which a noise probe is applied, or a pair (mean, sigma) of a stochastic layer.
    - `logits(model, x)` [n, classes], unless given as the model takes its inputs; labels are whole numbers from 0.
    - `layer_of`: the layer of an array by its path, counted from 0 like `layers`; deeper arrays (the
      classifier) are left out of I(S; theta_l).
    - `how`: estimate of I(X; Z) and I(X; Z | Y), "mc" or "jensen" (`information`); the columns bear its
      name, as in "I(X;Z), mc" and "combined, mc", since the two differ widely. The paper's sum, and the
      study's, is "combined, jensen". I(S; theta) is that of `single_seed_information` by "jensen".
    - `least_accuracy`: models at or below it on their training set are left out of the correlations.
    - `rows`: at most so many training inputs serve for I(X; Z).

    Without posteriors I(S; theta) and the sum are NaN. Per model, `min`, `mean`, ... run over layers.

    Raises `ValueError` for fewer than three models, an unknown estimate, posteriors of only one instance
    in a setting, numbers of layers that do not match, or labels that are not indices of the logits.
    """
    if len(trained) < 3:
        raise ValueError(f"correlations need at least 3 models, not {len(trained)}")
    if how not in get_args(Marginal):
        raise ValueError(f"how must be 'mc' or 'jensen', not {how!r}")
    weights = _weights(trained, layer_of, samples, seed)
    by_layer, by_model = [], []
    for place, one in enumerate(trained):
        data, key = one.data, jax.random.fold_in(jax.random.key(seed), place)
        chosen = jax.random.permutation(jax.random.fold_in(key, 1), len(data.x_train))[:rows]
        told = _told(layers(one.model, data.x_train[chosen]), data.y_train[chosen], key, how)
        keeps = weights.get(place, np.full(len(told), np.nan))[: len(told)]
        if len(keeps) != len(told):
            raise ValueError(
                f"model {place} has {len(told)} layers but weights of {len(keeps)}: let layer_of count them "
                "from 0 in the order of layers"
            )
        here = {"model": place, "setting": one.setting, "instance": one.instance, "seed": one.seed}
        total = combined(told[:, 1], keeps)
        columns = {
            f"I(X;Z), {how}": told[:, 0], f"I(X;Z|Y), {how}": told[:, 1], "I(S;θ)": keeps,
            f"combined, {how}": total,
        }  # fmt: skip
        by_layer += [
            here | {"layer": i, "sigma": told[i, 2], **{n: v[i] for n, v in columns.items()}}
            for i in range(len(told))
        ]
        measures = {
            f"{how} {name}": float(value) for name, column in columns.items()
            for how, value in summarise_layers(column).items()
        }  # fmt: skip
        by_model.append(here | _performance(one, logits) | _size(one.model) | measures)
    models = pd.DataFrame(by_model)
    usable = models.loc[models.train_accuracy > least_accuracy]
    measures = [c for c in usable if c not in _NOT_MEASURES and np.isfinite(usable[c]).all()]
    table = pd.DataFrame()
    if len(usable) > 2 and usable.setting.nunique() > 1:
        table = correlation_table(usable, measures)
    return Profiles(pd.DataFrame(by_layer), models, table)


_NOT_MEASURES = (
    "model", "setting", "instance", "seed", "gap", "train_loss", "test_loss", "train_accuracy",
    "test_accuracy",
)  # fmt: skip


def _told(layers: Sequence[Any], y: Array, key: Array, how: Marginal) -> np.ndarray:
    """I(X; Z), I(X; Z | Y) in bits and the noise of every layer."""
    if not any(isinstance(layer, tuple) for layer in layers):
        flat = [jnp.reshape(z, (len(z), -1)) for z in layers]
        probe = probe_with_noise(flat, y, key, how=how)
        nats = jnp.stack([probe.information, probe.given_class], 1) / NATS_PER_BIT
        return np.concatenate([nats, np.asarray(probe.sigma)[:, None]], axis=1)
    found = []
    for place, layer in enumerate(layers):
        if not isinstance(layer, tuple):
            raise ValueError("layers mixes stochastic layers, as (mean, sigma), with plain ones")
        mean, sigma = layer
        z = mean + sigma * jax.random.normal(jax.random.fold_in(key, place), mean.shape)
        both = (information(z, mean, sigma, how, labels) / NATS_PER_BIT for labels in (None, y))
        found.append([*map(float, both), float(sigma.mean())])
    return np.array(found)


def _weights(
    trained: Sequence[Trained], layer_of: Callable[[str], int], samples: int, seed: int
) -> dict[int, np.ndarray]:
    """I(S; theta_l) in bits of the models that have posteriors, by their place."""
    groups: dict[tuple[str, int], list[int]] = {}
    for place, one in enumerate(trained):
        if one.posterior is not None:
            groups.setdefault((one.setting, one.seed), []).append(place)
    found = {}
    for (setting, member), places in groups.items():
        instances = {trained[p].instance for p in places}
        if len(instances) < 2 or len(instances) < len(places):
            raise ValueError(
                f"setting {setting!r}, seed {member}: I(S; theta) needs one model on each of two or more "
                f"instances, not {len(places)} models on {len(instances)}"
            )
        posteriors = stack([trained[p].posterior for p in places])  # pyright: ignore
        log_q = cumulative_log_densities(
            posteriors, jax.random.key(seed), samples=samples, layer_of=layer_of
        )
        nats = single_seed_information(log_q[:, :, None, :, :, None])[:, 0]
        found |= dict.fromkeys(places, np.asarray(nats) / NATS_PER_BIT)
    return found


def _performance(one: Trained, logits: Callable[[Any, Array], Array]) -> dict[str, float]:
    found = {}
    for part in ("train", "test"):
        x, y = getattr(one.data, f"x_{part}"), getattr(one.data, f"y_{part}")
        outputs = logits(one.model, x)
        check_targets(y, outputs, f"the {part} labels of setting {one.setting!r}")
        found[f"{part}_loss"] = float(cross_entropy(outputs, y).mean())
        found[f"{part}_accuracy"] = float((outputs.argmax(-1) == y).mean())
    return found | {"gap": found["test_loss"] - found["train_loss"]}


def _size(model: Any) -> dict[str, float]:
    """Baselines that look at the weights alone."""
    arrays = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    norms = np.array([float(jnp.linalg.norm(a)) for a in arrays])
    m = sum(a.size for a in arrays)
    return {
        "parameters": m, "m log m": m * np.log2(m), "sum of norms": norms.sum(),
        "log product of norms": np.log(norms).sum(),
    }  # fmt: skip
