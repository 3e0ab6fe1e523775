"""Hypernetworks: a network that predicts the weights of another one from a vector of settings.

Gonzalez Ortiz, Guttag, Dalca, "Magnitude Invariant Parametrizations Improve Hypernetwork Learning"
(ICLR 2024, arXiv:2304.07645). With piecewise-linear activations and zero biases the prediction is
proportional to the settings, h(a γ) = a h(γ), and so are the predicted weights. Two changes end that:
an encoding of constant length, and predicting the change to weights that do not depend on γ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.statistics import trainable_leaves
from latebloom.nn.mlp import ACTIVATIONS
from latebloom.nn.norm import BatchNorm
from latebloom.nn.transformer import LayerNorm

ENCODINGS = ("cos_sin", "complement", "none")
STARTS = ("split", "fan_in", "hyperfan_in")
NORMS = ("none", "layer", "batch", "weight")


def encode(settings: Float[Array, "*b d"], encoding: str) -> Float[Array, "*b _e"]:
    """Settings in [0, 1] as the input of a hypernetwork.

    - "cos_sin": (cos πγ/2, sin πγ/2), of length sqrt(d) whatever γ is.
    - "complement": (γ, 1 - γ), whose entries sum to d.
    - "none": γ itself.
    """
    if encoding == "cos_sin":
        angle = settings * (np.pi / 2)
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    if encoding == "complement":
        return jnp.concatenate([settings, 1 - settings], axis=-1)
    return settings


class _Dense(eqx.Module):
    """An affine map of the last axis."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | None

    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b out"]:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Hypernetwork(eqx.Module):
    """Settings γ [d] -> a primary network with weights θ = θ_0 + h(E(γ)).

    - `primary`: any Equinox module, initialised or already trained. Its weights are θ_0, which is
      learned too; with `residual=False` they are dropped and θ = h(E(γ)).
    - `settings`: d. `low`, `high`: the range of the settings, mapped to [0, 1] before encoding.
    - `widths`: hidden layers of h. `activation`, `norm`: of those layers ("weight" is weight
      normalisation).
    - `start`: of the last layer's weights. "split" treats what predicts one tensor as a layer of
      its own with fan-out as large as the tensor, std gain / sqrt(numel); "fan_in" is the Kaiming
      start of the whole layer; "hyperfan_in" (Chang et al. 2020, arXiv:2312.08399) gives the
      primary's activations the variance that a Kaiming start would, half of it from the biases of a
      layer where these are predicted too.
    - `predicted`: which leaves of `primary` are predicted, a tree of booleans as for
      `eqx.partition`; by default all that are learned. The others stay in the model and are
      learned as usual. Predicting the biases alone is conditioning by shifts.
    - `out_axis`: of the primary's weight tensors, for "hyperfan_in": -1 in `latebloom.nn`, 0 in
      `equinox.nn`.

    The default is the magnitude invariant parametrisation; `encoding="none", residual=False,
    start="fan_in"` is the standard one. Predicted weights have the precision of the primary's. Raises
    `ValueError` for options that do not exist, an empty range, or nothing to predict.
    """

    hidden: tuple[_Dense, ...]
    norms: tuple[LayerNorm | BatchNorm, ...]
    gains: tuple[Float[Array, " width"], ...]
    head: _Dense
    base: Any
    kept: Any
    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)
    encoding: str = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    dtypes: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __init__(
        self, primary: Any, settings: int, widths: Sequence[int], *, key: PRNGKeyArray,
        encoding: str = "cos_sin", residual: bool = True, start: str = "split",
        activation: str = "leaky_relu", norm: str = "none", output_scale: float = 1.0,
        low: Sequence[float] | float = 0.0, high: Sequence[float] | float = 1.0,
        predicted: Any = None, out_axis: int = -1,
    ):  # fmt: skip
        _one_of("encoding", encoding, ENCODINGS)
        _one_of("start", start, STARTS)
        _one_of("norm", norm, NORMS)
        _one_of("activation", activation, tuple(ACTIVATIONS))
        if settings < 1 or not widths:
            raise ValueError("a hypernetwork needs a setting and a hidden layer at least")
        self.low, self.high = _range(low, high, settings)
        which = trainable_leaves(primary) if predicted is None else predicted
        weights, self.kept = eqx.partition(primary, which)
        leaves, self.structure = jax.tree.flatten(weights)
        if not leaves:
            raise ValueError(
                "nothing to predict: `predicted` selects no array of the primary network"
            )
        self.shapes = tuple(leaf.shape for leaf in leaves)
        self.dtypes = tuple(leaf.dtype for leaf in leaves)
        self.base = weights if residual else None
        self.encoding, self.activation, self.scale = encoding, activation, output_scale
        inputs = settings * (1 if encoding == "none" else 2)
        numbers = np.array([int(np.prod(shape)) for shape in self.shapes])
        sizes = [inputs, *widths]
        layers = [*pairwise(sizes), (widths[-1], int(numbers.sum()))]
        # One draw for all layers: every further one would add to the time of compilation.
        drawn = jax.random.normal(key, (sum(a * b for a, b in layers),))
        parts = jnp.split(drawn, np.cumsum([a * b for a, b in layers])[:-1])
        *hidden, head = (part.reshape(shape) for part, shape in zip(parts, layers, strict=True))
        gain = _gain(activation)
        self.hidden = tuple(
            _Dense(gain / np.sqrt(w) * h, jnp.zeros(w)) for h, w in zip(hidden, widths, strict=True)
        )
        self.norms = tuple(
            LayerNorm(w) if norm == "layer" else BatchNorm(w)
            for w in widths if norm in ("layer", "batch")
        )  # fmt: skip
        self.gains = tuple(_lengths(l.weight) for l in self.hidden) if norm == "weight" else ()
        if start == "split":
            variance = gain**2 / numbers
        elif start == "fan_in":
            variance = np.full(len(numbers), gain**2 / widths[-1])
        else:
            points = np.random.default_rng(0).uniform(size=(256, settings))
            energy = jnp.square(self._features(jnp.asarray(points, jnp.float32), train=True)).mean()
            wanted = np.array(_fan_in_variances(weights, out_axis))
            variance = wanted / widths[-1] / energy
        spread = jnp.sqrt(jnp.asarray(variance, jnp.float32))[
            np.repeat(np.arange(len(numbers)), numbers)
        ]
        self.head = _Dense(head * spread, None if residual else jnp.zeros(int(numbers.sum())))

    def weights(self, settings: Float[Array, ...], *, train: bool = False) -> Any:
        """The predicted weights for several settings [b, d]: the primary's tree, every leaf with a leading
        axis b, and None where nothing is predicted.

        With `train=True` batch normalisation uses the statistics of these settings. Raises
        `ValueError` for the wrong number of settings, one that is not finite or outside of the range;
        in a compiled program only their number is checked.
        """
        settings = self._checked(settings)
        scaled = (settings - jnp.asarray(self.low)) / (
            jnp.asarray(self.high) - jnp.asarray(self.low)
        )
        flat = self.scale * self.head(self._features(scaled, train=train))
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = jnp.split(flat, ends, axis=-1)
        found = [
            part.reshape(*part.shape[:-1], *shape).astype(dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        change = jax.tree.unflatten(self.structure, found)
        if self.base is None:
            return change
        return jax.tree.map(jnp.add, self.base, change)

    def combine(self, weights: Any) -> Any:
        """The primary network with these weights (of one setting, without a leading axis)."""
        return eqx.combine(weights, self.kept)

    def primary(self, settings: ArrayLike | Sequence[float]) -> Any:
        """The ordinary network for one vector of settings: to be called, saved, or trained on.

        Raises `ValueError` as `weights` does.
        """
        weights = self.weights(jnp.atleast_1d(jnp.asarray(settings, jnp.float32))[None])
        return self.combine(jax.tree.map(lambda w: w[0], weights))

    def _checked(self, settings: ArrayLike) -> Float[Array, "b d"]:
        values = jnp.asarray(settings, jnp.float32)
        if values.ndim != 2 or values.shape[1] != len(self.low):
            raise ValueError(
                f"settings must be {len(self.low)} numbers each, [b, {len(self.low)}], not of shape "
                f"{list(values.shape)}"
            )
        if isinstance(values, Tracer):
            return values
        known, ends = np.asarray(values), np.asarray([self.low, self.high], np.float32)
        outside = ~((known >= ends[0]) & (known <= ends[1]))
        if outside.any():
            row, i = np.argwhere(outside)[0]
            raise ValueError(
                f"setting {i} is {known[row, i]:g}, outside of its range [{self.low[i]:g}, "
                f"{self.high[i]:g}]"
            )
        return values

    def _features(self, scaled: Float[Array, "b d"], *, train: bool) -> Float[Array, "b width"]:
        """The last hidden layer of h, for settings already mapped to [0, 1]."""
        h = encode(scaled, self.encoding)
        for i, layer in enumerate(self.hidden):
            if self.gains:
                unit = layer.weight / _lengths(layer.weight)
                layer = eqx.tree_at(lambda l: l.weight, layer, unit * self.gains[i])
            h = layer(h)
            if self.norms:
                norm = self.norms[i]
                h = norm(h, train=train) if isinstance(norm, BatchNorm) else norm(h)
            h = ACTIVATIONS[self.activation](h)
        return h


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _range(
    low: Sequence[float] | float, high: Sequence[float] | float, settings: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    lows, highs = (np.broadcast_to(np.asarray(v, float), settings) for v in (low, high))
    for i, (a, b) in enumerate(zip(lows, highs, strict=True)):
        if not (np.isfinite([a, b]).all() and a < b):
            raise ValueError(f"setting {i} must have a finite low < high, not {a:g} and {b:g}")
    return tuple(lows.tolist()), tuple(highs.tolist())


def _gain(activation: str) -> float:
    """The Kaiming gain: of a rectifier for all but tanh and the identity."""
    slope = 0.01 if activation == "leaky_relu" else 0.0
    return {"tanh": 5 / 3, "identity": 1.0}.get(activation, float(np.sqrt(2 / (1 + slope**2))))


def _lengths(weight: Float[Array, "in out"]) -> Float[Array, " out"]:
    return jnp.sqrt(jnp.square(weight).sum(0))


def _fan_in_variances(weights: Any, out_axis: int) -> list[float]:
    """Variance of each tensor's entries at a Kaiming start: 2 / fan-in of a matrix, half of it where
    the bias beside it is predicted as well; 1 of a vector."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    beside = {
        path[:-1] for path, leaf in leaves
        if leaf.ndim == 1 and jax.tree_util.keystr(path[-1:]).strip(".[]'") == "bias"
    }  # fmt: skip
    found = []
    for path, leaf in leaves:
        share = 0.5 if path[:-1] in beside else 1.0
        fan_in = leaf.size / leaf.shape[out_axis] if leaf.ndim > 1 else 2.0 * share
        found.append(2.0 * share / fan_in)
    return found
