"""Spiking networks whose connections have delays, those without, and those with recurrent connections.

Hammouamri, Khalfaoui-Hassani and Masquelier (ICLR 2024, arXiv 2306.17670). All take spikes [batch, time, channels]
and give the potential of a leaky integrator for each class, at each step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from latebloom.nn.delays import Delays, delayed
from latebloom.nn.mlp import Linear
from latebloom.nn.norm import BatchNorm
from latebloom.nn.recurrent import GRU, LIF, Recurrent

Sigma = float | Float[Array, ""] | None


class SpikingDelays(eqx.Module):
    """Layers of delayed connections, batch normalisation, leaky integrate-and-fire neurons and dropout; an integrator last.

    - `sizes`: inputs, hidden layers, classes. `taps`: the longest delay and one, in steps; 1 is a network without delays.
    - `tau` of membranes, in steps: 1.005 forgets all but .5 % in a step, so that delays are the memory.
    - `connections`: so many inputs of each neuron, chosen at random; None for all.
    - `trailing`: each layer goes on for (taps - 1) // 2 steps after its input's end, so that late spikes arrive.
    - `dropout`: the share of a layer's neurons that are silent through an example of training.

    `sigma` is the deviation of taps (see `latebloom.nn.delays.delay_kernel`); None, or a negative number, is taps of one
    step at whole delays.

    Raises `ValueError` for fewer than two layers and for connections or dropout that cannot be.
    """

    layers: tuple[Delays, ...]
    norms: tuple[BatchNorm, ...]
    masks: tuple[Bool[Array, "inputs outputs"], ...] | None
    neuron: LIF
    readout: LIF
    dropout: float = eqx.field(static=True)
    trailing: bool = eqx.field(static=True)

    def __init__(
        self, sizes: Sequence[int], taps: int, *, key: PRNGKeyArray, tau: float = 1.005, alpha: float = 5.0,
        dropout: float = 0.0, connections: int | None = None, trailing: bool = True,
    ):  # fmt: skip
        if len(sizes) < 3 or min(sizes) < 1:
            raise ValueError(f"sizes must be inputs, a hidden layer or more, and classes, each at least 1, not {tuple(sizes)}")  # fmt: skip
        _check_dropout(dropout)
        if connections is not None and connections < 1:
            raise ValueError(f"connections must be at least 1 a neuron, not {connections}")
        keys = jax.random.split(key, 2 * len(sizes))
        pairs = list(itertools.pairwise(sizes))
        self.layers = tuple(Delays(a, b, taps, key=k) for (a, b), k in zip(pairs, keys[::2], strict=False))  # fmt: skip
        self.norms = tuple(BatchNorm(size) for size in sizes[1:-1])
        self.masks = None
        if connections is not None:
            self.masks = tuple(
                _chosen(k, a, b, connections) for (a, b), k in zip(pairs, keys[1::2], strict=False)
            )
        self.neuron, self.readout = LIF(tau, alpha=alpha), LIF(tau, threshold=None)
        self.dropout, self.trailing = dropout, trailing

    def weights(self) -> tuple[Float[Array, "inputs outputs"], ...]:
        """Of each layer, 0 where there is no connection."""
        found = tuple(layer.weight for layer in self.layers)
        if self.masks is None:
            return found
        return tuple(jnp.where(m, w, jnp.zeros_like(w)) for w, m in zip(found, self.masks, strict=True))  # fmt: skip

    def spikes(
        self, x: Shaped[Array, "batch time inputs"], sigma: Sigma, *, key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> tuple[tuple[Float[Array, "batch ..."], ...], Float[Array, "batch steps classes"]]:  # fmt: skip
        """Spikes of each hidden layer, before dropout, and the integrators' potentials."""
        after = (self.layers[0].taps - 1) // 2 if self.trailing else 0
        fired, at = [], x
        for i, (layer, weight) in enumerate(zip(self.layers, self.weights(), strict=True)):
            current = delayed(at, layer.kernel(sigma, weight), after)
            if i == len(self.norms):
                return tuple(fired), self.readout(current)[1]
            _, at = self.neuron(self.norms[i](current, train=train))
            fired.append(at)
            if train and self.dropout > 0:
                at = _dropped(jax.random.fold_in(_needed(key), i), at, self.dropout)
        raise AssertionError

    def __call__(
        self, x: Shaped[Array, "batch time inputs"], sigma: Sigma, *, key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> Float[Array, "batch steps classes"]:  # fmt: skip
        return self.spikes(x, sigma, key=key, train=train)[1]


class RecurrentLIF(Recurrent):
    """Leaky integrate-and-fire neurons that hear each other's spikes of the step before; the state is (v, spikes)."""

    neuron: LIF
    weight: Float[Array, "size size"]

    def __init__(self, size: int, neuron: LIF, *, key: PRNGKeyArray):
        bound = float(1 / np.sqrt(size))
        self.neuron = neuron
        self.weight = jax.random.uniform(key, (size, size), jnp.float32, -bound, bound)

    def start(self, entering: Float[Array, "batch time size"]) -> tuple[Array, Array]:
        rest = self.neuron.start(entering)
        return rest, jnp.zeros_like(rest)

    def enter(self, x: Shaped[Array, "batch time size"]) -> Float[Array, "batch time size"]:
        return self.neuron.enter(x)

    def step(
        self, state: tuple[Array, Array], entering: Float[Array, "batch size"]
    ) -> tuple[tuple[Array, Array], Float[Array, "batch size"]]:
        v, fired = state
        v, fired = self.neuron.step(v, entering + fired @ self.weight)
        return (v, fired), fired


class SpikingRecurrent(eqx.Module):
    """The rival with recurrent connections: a hidden layer that hears itself, without delays; `sigma` has no meaning."""

    input: Linear
    norm: BatchNorm
    hidden: RecurrentLIF
    output: Linear
    readout: LIF
    dropout: float = eqx.field(static=True)

    def __init__(
        self, sizes: Sequence[int], *, key: PRNGKeyArray, tau: float = 1.005, alpha: float = 5.0,
        dropout: float = 0.0,
    ):  # fmt: skip
        inputs, size, classes = _three(sizes)
        _check_dropout(dropout)
        one, two, three = jax.random.split(key, 3)
        self.input = Linear(inputs, size, key=one, use_bias=False)
        self.norm = BatchNorm(size)
        self.hidden = RecurrentLIF(size, LIF(tau, alpha=alpha), key=two)
        self.output = Linear(size, classes, key=three, use_bias=False)
        self.readout, self.dropout = LIF(tau, threshold=None), dropout

    def spikes(
        self, x: Shaped[Array, "batch time inputs"], sigma: Sigma = None, *, key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> tuple[tuple[Array, ...], Float[Array, "batch time classes"]]:  # fmt: skip
        _, fired = self.hidden(self.norm(self.input(x.astype(jnp.float32)), train=train))
        at = fired
        if train and self.dropout > 0:
            at = _dropped(_needed(key), at, self.dropout)
        return (fired,), self.readout(self.output(at))[1]

    def __call__(
        self, x: Shaped[Array, "batch time inputs"], sigma: Sigma = None, *, key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> Float[Array, "batch time classes"]:  # fmt: skip
        return self.spikes(x, sigma, key=key, train=train)[1]


class Gated(eqx.Module):
    """The rival that does not spike: gated recurrent units and a linear readout at each step."""

    hidden: GRU
    output: Linear
    dropout: float = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], *, key: PRNGKeyArray, dropout: float = 0.0):
        inputs, size, classes = _three(sizes)
        _check_dropout(dropout)
        one, two = jax.random.split(key)
        self.hidden, self.output = GRU(inputs, size, key=one), Linear(size, classes, key=two)
        self.dropout = dropout

    def __call__(
        self, x: Shaped[Array, "batch time inputs"], sigma: Sigma = None, *, key: PRNGKeyArray | None = None,
        train: bool = False,
    ) -> Float[Array, "batch time classes"]:  # fmt: skip
        at = self.hidden(x.astype(jnp.float32))[1]
        if train and self.dropout > 0:
            at = _dropped(_needed(key), at, self.dropout)
        return self.output(at)


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, not {dropout}")


def _three(sizes: Sequence[int]) -> Sequence[int]:
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"sizes must be inputs, the hidden layer, and classes, each at least 1, not {tuple(sizes)}")  # fmt: skip
    return sizes


def _needed(key: PRNGKeyArray | None) -> PRNGKeyArray:
    if key is None:
        raise ValueError("dropout needs a key in training: model(x, sigma, key=..., train=True)")
    return key


def _dropped(key: PRNGKeyArray, at: Array, share: float) -> Array:
    """Some neurons silent through the whole example, the others louder."""
    kept = jax.random.bernoulli(key, 1 - share, (at.shape[0], 1, at.shape[2]))
    return jnp.where(kept, at / (1 - share), jnp.zeros_like(at))


def _chosen(key: PRNGKeyArray, inputs: int, outputs: int, count: int) -> Bool[Array, "i o"]:
    ranks = jnp.argsort(jnp.argsort(jax.random.uniform(key, (inputs, outputs)), axis=0), axis=0)
    return ranks < count


# What any model with `Delays` in it is trained by


def votes(v: Float[Array, "batch steps classes"]) -> Float[Array, "batch classes"]:
    """The sum over steps of each step's softmax: what is the prediction, and logits of the loss.

    Raises `ValueError` for what is not [batch, steps, classes].
    """
    if v.ndim != 3:
        raise ValueError(f"a network must give [batch, steps, classes], not {list(v.shape)}")
    return jax.nn.softmax(v, axis=-1).sum(axis=1)


def vote_loss(
    v: Float[Array, "batch steps classes"], y: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Cross-entropy of the votes, which a second softmax makes probabilities."""
    return optax.softmax_cross_entropy_with_integer_labels(votes(v), y)


def sigma_at(
    epoch: Int[Array, ""] | int, epochs: int, first: float | Float[Array, ""], last: float = 0.23,
    until: float = 0.25,
) -> Float[Array, ""]:  # fmt: skip
    """The deviation of taps in an epoch, geometrically from `first` to `last` over the first `until` of `epochs`, then `last`.

    A `first` that is not above `last` stays as it is.
    """
    first = jnp.asarray(first, jnp.float32)
    ending = max(int(epochs * until), 1)
    share = jnp.minimum(jnp.asarray(epoch), ending) / ending
    return jnp.where(first > last, first * (last / first) ** share, first)


def every_delays(model: Any, change: Callable[[Delays], Any]) -> Any:
    """The model with `change(layer)` in the place of each `Delays`."""
    there = lambda node: isinstance(node, Delays)  # noqa: E731
    return jax.tree.map(lambda n: change(n) if there(n) else n, model, is_leaf=there)


def clipped(model: Any) -> Any:
    """The model with all delays in their range."""
    return every_delays(model, lambda layer: layer.clipped())


def whole(model: Any) -> Any:
    """The model with all delays in whole steps, as it is examined and built."""
    return every_delays(model, _whole)


def _whole(layer: Delays) -> Delays:
    if not eqx.is_array(layer.delay):  # another layer's, or partitioned off
        return layer
    nearest = jnp.clip(jnp.round(layer.delay), 0, layer.taps - 1)
    return eqx.tree_at(lambda d: d.delay, layer, nearest)


def delays_of(model: Any) -> list[Delays]:
    """Each `Delays` in the model, but for those whose delays are another's."""
    there = lambda node: isinstance(node, Delays)  # noqa: E731
    return [n for n in jax.tree.leaves(model, is_leaf=there) if there(n) and eqx.is_array(n.delay)]


def one_cycle(peak: float | Array, epochs: int, steps_an_epoch: int) -> optax.Schedule:
    """PyTorch's OneCycleLR, a step an epoch: from peak / 25 up to `peak` over .3 of the epochs, then down to 4e-6 of it.

    Below four epochs there is no way up, and a single epoch has the last rate, so small that nothing is learned.

    Raises `ValueError` for fewer than one epoch, or one step an epoch.
    """
    _check_length(epochs, steps_an_epoch)
    up = 0.3 * epochs - 1
    down = epochs - 1 - up

    def rate(count: Any) -> Array:
        epoch = jnp.minimum(count // steps_an_epoch, epochs - 1)
        rising = jnp.clip(epoch / up, 0, 1) if up > 0 else jnp.ones(())
        falling = jnp.clip((epoch - up) / down, 0, 1)
        low, least = peak / 25, peak / 25 / 1e4
        climb = peak + (low - peak) * 0.5 * (1 + jnp.cos(jnp.pi * rising))
        fall = least + (peak - least) * 0.5 * (1 + jnp.cos(jnp.pi * falling))
        return jnp.where(epoch <= up, climb, fall)

    return rate


def _check_length(epochs: int, steps_an_epoch: int) -> None:
    if epochs < 1 or steps_an_epoch < 1:
        raise ValueError(f"there must be an epoch and a step in it at least, not {epochs} and {steps_an_epoch}")  # fmt: skip


def half_cosine(first: float | Array, epochs: int, steps_an_epoch: int) -> optax.Schedule:
    """From `first` to 0 along half a cosine, a step an epoch; raises as `one_cycle`."""
    _check_length(epochs, steps_an_epoch)

    def rate(count: Any) -> Array:
        epoch = jnp.minimum(count // steps_an_epoch, epochs)
        return first * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))

    return rate


def delay_rule(
    epochs: int, steps_an_epoch: int, *, rate: float | Array = 5e-3, delay_rate: float | Array = 0.1,
    decay: float = 1e-5,
) -> optax.GradientTransformation:  # fmt: skip
    """Adam for weights, with `decay` x weight in the gradient, and an Adam of their own for delays, which are not decayed.

    - `rate`: the peak of weights' one cycle. `delay_rate`, in steps an update, falls along a cosine; 0 holds delays.
    - Biases and normalisations go with the weights, but are not decayed.

    After each update delays have to be put back into their range: `clipped`.
    """
    cycle = one_cycle(rate, epochs, steps_an_epoch)
    rules: dict[Any, optax.GradientTransformation] = {
        "weight": optax.chain(optax.add_decayed_weights(decay), optax.adam(cycle)),
        "other": optax.adam(cycle),
        "delay": optax.adam(half_cosine(delay_rate, epochs, steps_an_epoch)),
    }
    return optax.partition(rules, kinds)


def kinds(parameters: Any) -> Any:
    """A tree like the parameters: "delay", "weight" for matrices, "other"; a convolution's bias is no matrix."""

    def kind(path: Any, node: Any) -> Any:
        if isinstance(node, Delays):
            return jax.tree_util.tree_map_with_path(lambda p, _: p[-1].name if p[-1].name in ("weight", "delay") else "other", node)  # fmt: skip
        bias = bool(path) and getattr(path[-1], "name", None) == "bias"
        return "weight" if jnp.ndim(node) > 1 and not bias else "other"

    return jax.tree_util.tree_map_with_path(kind, parameters, is_leaf=lambda node: isinstance(node, Delays))  # fmt: skip


def parameters(sizes: Sequence[int], delays: bool) -> int:
    """How many learn in `SpikingDelays`: a weight, and with `delays` a delay, a connection; two a hidden neuron."""
    pairs = sum(a * b for a, b in itertools.pairwise(sizes))
    return (2 if delays else 1) * pairs + 2 * sum(sizes[1:-1])


def matched_width(sizes: Sequence[int]) -> int:
    """The width at which hidden layers without delays have as many parameters as these with delays, or a few more."""
    wanted, hidden, width = parameters(sizes, True), len(sizes) - 2, 1
    while parameters([sizes[0], *[width] * hidden, sizes[-1]], False) < wanted:
        width += 1
    return width
