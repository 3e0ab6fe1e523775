"""Traces of `InformationTraining` as tables of models and profiles of layers, and what they say.

A table has a row a model; measures are in bits, the generalisation gap and losses in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from latebloom.methods.information.bound import combined, summarise_layers
from latebloom.methods.information.correlations import (
    cluster_interval,
    correlation,
    partial_correlation,
    within_groups,
)

GATE = 0.85  # training accuracy above which a model counts
CODES = {
    "I(X;Z), mc": "information_mc", "I(X;Z), jensen": "information_jensen",
    "I(X;Z|Y), mc": "given_class_mc", "I(X;Z|Y), jensen": "given_class_jensen",
}  # fmt: skip
COMBINED = "I(S;θ) + I(X;Z|Y), jensen"
RESCALED = "the sum, parts rescaled"
Told = Callable[[pd.DataFrame, str], float]  # how a measure goes with the gap, in a table


def model_table(
    traces: Mapping[str, xr.Dataset], seed: int, *, least_accuracy: float = GATE
) -> pd.DataFrame:
    """The models of one seed (by position) that learned their training set, all measures in bits.

    `traces`: by setting, at their last observation. Columns: the four informations of the code (`CODES`),
    those of the weights up to it and of all layers, the sum of both by "jensen", sizes and norms, the gap, training loss and
    accuracy, `setting` and `instance`. In `RESCALED` both parts of the sum have the same mean.
    """
    every = [_models(trace.isel(step=-1, seed=seed), setting, seed) for setting, trace in traces.items()]  # fmt: skip
    table = pd.concat(every, ignore_index=True)
    table = table.loc[table.train_accuracy > least_accuracy].reset_index(drop=True)
    scale = table["I(X;Z|Y), jensen"].mean() / table["I(S;θ)"].mean()
    table[RESCALED] = scale * table["I(S;θ)"] + table["I(X;Z|Y), jensen"]
    return table


def _models(trace: xr.Dataset, setting: str, seed: int) -> pd.DataFrame:
    """All models of one setting and seed; the weights know of members, or of neither."""
    shape = instances, members = trace.sizes["instance"], trace.sizes["member"]

    def of_weights(name: str, depth: int) -> np.ndarray:
        return np.broadcast_to(trace[name].isel(depth=depth), shape).ravel()

    columns = {name: trace[variable].isel(layer=0).values.ravel()
               for name, variable in CODES.items()}  # fmt: skip
    size = trace.parameters.values.ravel()
    columns |= {
        "I(S;θ)": of_weights("weights_jensen", 0),
        "I(S;θ), several seeds": of_weights("weights_multi", 0),
        "I(S;θ), published": of_weights("weights_published", 0),
        "I(S;θ), all layers": of_weights("weights_jensen", -1),
        "parameters": size, "m log m": size * np.log2(size),
        "sum of norms": trace.norm_sum.values.ravel(),
        "product of norms": trace.norm_product.values.ravel(),
    }  # fmt: skip
    layers = combined(columns["I(X;Z|Y), jensen"][:, None], columns["I(S;θ)"][:, None])
    columns[COMBINED] = summarise_layers(layers)["min"]
    columns |= {n: trace[n].values.ravel() for n in ("gap", "train_loss", "train_accuracy")}
    instance = [f"{seed}-{i}" for i in np.repeat(np.arange(instances), members)]
    return pd.DataFrame(columns | {"setting": setting, "instance": instance})


def tau(table: pd.DataFrame, name: str) -> float:
    """Kendall's tau of a measure with the gap."""
    x, y = _columns(table, name, "gap")
    return correlation(x, y)


def tau_inside(table: pd.DataFrame, name: str) -> float:
    """The same inside data instances, which differ in difficulty."""
    x, y = _columns(table, name, "gap")
    return within_groups(x, y, table.instance.to_numpy())


def tau_at_equal_loss(table: pd.DataFrame, name: str) -> float:
    """The same with the training loss held fixed."""
    x, y, loss = _columns(table, name, "gap", "train_loss")
    return partial_correlation(x, y, loss)


def lead(table: pd.DataFrame, name: str, rivals: Sequence[str], told: Told = tau) -> float:
    """How much better a measure goes with the gap than the best of others; NaN if it cannot be said."""
    return told(table, name) - np.fmax.reduce([told(table, rival) for rival in rivals])


def least_lead(table: pd.DataFrame, name: str, rivals: Sequence[str]) -> float:
    """Lower end of the 95 % interval of the lead when settings are resampled."""
    x, y, *others = _columns(table, name, "gap", *rivals)
    return cluster_interval(x, y, table.setting.to_numpy(), against=others)[0]


def _columns(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy(float) for name in names]


def layer_profiles(
    traces: Sequence[xr.Dataset], name: str
) -> Float[np.ndarray, "seed model layer"]:
    """A measure by hidden layer at the end, of all models of several settings.

    Of measures of weights, the classifier's depth is left out, and all instances have the same.
    """
    rows = []
    for trace in (trace.isel(step=-1) for trace in traces):
        if name.startswith("weights"):  # the classifier's depth comes last
            values = trace[name].transpose("seed", "member", "depth").values[:, None, :, :-1]
            values = np.repeat(values, trace.sizes["instance"], axis=1)
        else:
            values = trace[name].transpose("seed", "instance", "member", "layer").values
        rows.append(values.reshape(len(values), -1, values.shape[-1]))
    return np.concatenate(rows, axis=1)


def rising_minus_falling(
    profiles: Float[np.ndarray, "*seeds model layer"],
) -> Float[np.ndarray, "*seeds"]:
    """Share of models that gain with depth minus share that lose, by the slope on the layer."""
    depth = np.arange(profiles.shape[-1]) - (profiles.shape[-1] - 1) / 2
    return np.sign(profiles @ depth).mean(-1)


def lowest_inside(profiles: Float[np.ndarray, "*seeds model layer"]) -> Float[np.ndarray, "*seeds"]:
    """Share of models whose lowest layer is neither the first nor the last."""
    lowest = profiles.argmin(-1)
    return ((lowest > 0) & (lowest < profiles.shape[-1] - 1)).mean(-1)
