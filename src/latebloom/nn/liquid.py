"""Liquid networks: units whose time constants depend on what they see, by an equation of state and in closed form.

Outputs are the state of all units; time between steps is given with the inputs.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from latebloom.nn.mlp import Linear
from latebloom.nn.recurrent import Recurrent

Elapsed = float | Shaped[Array, "*shape"]
RANGES = {"leak": (0.001, 1.0), "rest": (-0.2, 0.2), "capacity": (0.4, 0.6)}
SYNAPSES = {"weight": (0.001, 1.0), "steepness": (3.0, 8.0), "middle": (0.3, 0.8)}


class Synapses(eqx.Module):
    """Conductances between two groups of units: weight x sigmoid(steepness (v - middle)), towards a `reversal` potential.

    `there` [from, to]: which synapses there are. Reversal potentials start at 1, a third of them at -1.
    """

    weight: Float[Array, "from to"]
    steepness: Float[Array, "from to"]
    middle: Float[Array, "from to"]
    reversal: Float[Array, "from to"]
    there: Bool[Array, "from to"] | None

    def __init__(self, sources: int, targets: int, there: Bool[Array, ...] | None, *, key: PRNGKeyArray):  # fmt: skip
        if there is not None and there.shape != (sources, targets):
            raise ValueError(f"synapses must be [{sources}, {targets}], from and to, not {list(there.shape)}")  # fmt: skip
        keys = jax.random.split(key, 4)
        self.weight, self.steepness, self.middle = (
            jax.random.uniform(k, (sources, targets), jnp.float32, *SYNAPSES[name])
            for k, name in zip(keys, SYNAPSES, strict=False)
        )
        inhibits = jax.random.bernoulli(keys[3], 1 / 3, (sources, targets))
        self.reversal = jnp.where(inhibits, -1.0, 1.0)
        self.there = there

    def __call__(
        self, v: Float[Array, "*batch from"], weight: Float[Array, "from to"]
    ) -> tuple[Float[Array, "*batch to"], Float[Array, "*batch to"]]:
        """The sum of conductances into each target, and of conductance x reversal potential."""
        open_ = jax.nn.sigmoid(self.steepness * (v[..., None] - self.middle)) * weight
        if self.there is not None:
            open_ = jnp.where(self.there, open_, jnp.zeros_like(open_))
        return open_.sum(axis=-2), (open_ * self.reversal).sum(axis=-2)


class LTC(Recurrent):
    """Liquid time constants (Hasani et al., AAAI 2021, arXiv 2006.04439), with the conductances of the authors' package.

    A unit of potential v loses by its leak, and gains by synapses from inputs and units, whose conductances s depend on what is
    before them:

        capacity dv/dt = leak (rest - v) + sum of s (reversal - v)

    so that its time constant, capacity / (leak + sum of s), does, too. Each step of `elapsed` time takes `unfolds` fused
    (semi-implicit) Euler steps. Inputs and outputs have an affine map of each feature. The state is [batch, size].

    - `positive="clip"`: leaks, capacities and weights must not be negative: `clipped` after each update.
      "softplus": they are the softplus of what is learned.
    - `wiring` [size, size] and `senses` [in, size], of bool: which synapses there are; all, if None.

    Raises `ValueError` for fewer than one unfold, another `positive`, synapses of another shape.
    """

    leak: Float[Array, " size"]
    rest: Float[Array, " size"]
    capacity: Float[Array, " size"]
    synapses: Synapses
    sensory: Synapses
    input_scale: Float[Array, " in"]
    input_shift: Float[Array, " in"]
    output_scale: Float[Array, " size"]
    output_shift: Float[Array, " size"]
    unfolds: int = eqx.field(static=True)
    positive: str = eqx.field(static=True)

    def __init__(
        self, in_size: int, size: int, *, key: PRNGKeyArray, unfolds: int = 6, positive: str = "clip",
        wiring: Bool[Array, ...] | None = None, senses: Bool[Array, ...] | None = None,
    ):  # fmt: skip
        if unfolds < 1:
            raise ValueError(f"unfolds must be at least 1, not {unfolds}")
        if positive not in ("clip", "softplus"):
            raise ValueError(f'positive must be "clip" or "softplus", not {positive!r}')
        keys = jax.random.split(key, 5)
        self.leak, self.rest, self.capacity = (
            jax.random.uniform(k, (size,), jnp.float32, *RANGES[name])
            for k, name in zip(keys, RANGES, strict=False)
        )
        self.synapses = Synapses(size, size, wiring, key=keys[3])
        self.sensory = Synapses(in_size, size, senses, key=keys[4])
        self.input_scale, self.input_shift = jnp.ones(in_size), jnp.zeros(in_size)
        self.output_scale, self.output_shift = jnp.ones(size), jnp.zeros(size)
        self.unfolds, self.positive = unfolds, positive

    def _of(self, learned: Array) -> Array:
        return jax.nn.softplus(learned) if self.positive == "softplus" else learned

    def clipped(self) -> LTC:
        """The same with no leak, capacity or weight below 0."""
        if self.positive == "softplus":
            return self
        where = lambda l: (l.leak, l.capacity, l.synapses.weight, l.sensory.weight)  # noqa: E731
        return eqx.tree_at(where, self, tuple(jax.nn.relu(w) for w in where(self)))

    def start(self, entering: Any) -> Float[Array, "batch size"]:
        return jnp.zeros_like(entering[0][:, 0])

    def enter(self, x: Shaped[Array, "batch time in"], elapsed: Elapsed = 1.0) -> Any:
        """Conductances of the senses, these x reversal potentials, and the length of an Euler step."""
        into, towards = self.sensory(
            x * self.input_scale + self.input_shift, self._of(self.sensory.weight)
        )
        return into, towards, _durations(elapsed, x) / self.unfolds

    def step(
        self, state: Float[Array, "batch size"], entering: Any
    ) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
        into, towards, duration = entering
        weight, leak = self._of(self.synapses.weight), self._of(self.leak)
        inert = self._of(self.capacity)

        def euler(v: Array, _: None) -> tuple[Array, None]:
            own, own_towards = self.synapses(v, weight)
            gained = inert * v + duration * (leak * self.rest + own_towards + towards)
            return gained / (inert + duration * (leak + own + into + 1e-8)), None

        state, _ = jax.lax.scan(euler, state, None, length=self.unfolds, unroll=True)
        return state, state * self.output_scale + self.output_shift

    def time_constants(
        self, x: Shaped[Array, "batch time in"], states: Float[Array, "batch time size"]
    ) -> Float[Array, "batch time size"]:
        """Of each unit at each step, for inputs and the states they meet: capacity / (leak + conductances)."""
        into, _, _ = self.enter(x)
        own, _ = self.synapses(states, self._of(self.synapses.weight))
        return self._of(self.capacity) / (self._of(self.leak) + own + into)


class CfC(Recurrent):
    """Continuous time in closed form (Hasani et al. 2022, arXiv 2106.13898): no solver.

    From a layer of (inputs, state) with `backbone` units and the activation 1.7159 tanh(0.666 x) come two candidates, f and g, and the
    gate between them, sigmoid(a elapsed + b): the state is f (1 - gate) + g gate, [batch, size]. Matrices start
    Xavier-uniform, biases as a linear layer's.
    """

    backbone: Linear
    heads: tuple[Linear, Linear, Linear, Linear]  # f, g, a, b

    def __init__(self, in_size: int, size: int, *, key: PRNGKeyArray, backbone: int = 128):
        keys = jax.random.split(key, 5)

        def xavier(inputs: int, outputs: int, key: PRNGKeyArray) -> Linear:
            layer = Linear(inputs, outputs, key=key)
            by = float(np.sqrt(6 / (inputs + outputs)) * np.sqrt(inputs))
            return eqx.tree_at(lambda l: l.weight, layer, layer.weight * by)

        self.backbone = xavier(in_size + size, backbone, keys[0])
        self.heads = tuple(xavier(backbone, size, k) for k in keys[1:])  # pyright: ignore

    def start(self, entering: Any) -> Float[Array, "batch size"]:
        x = entering[0]
        return jnp.zeros((len(x), self.heads[0].weight.shape[1]), x.dtype)

    def enter(self, x: Shaped[Array, "batch time in"], elapsed: Elapsed = 1.0) -> Any:
        """What of the inputs enters the layer, and how long each step is."""
        x = x.astype(jnp.promote_types(x.dtype, self.backbone.weight.dtype))
        weight = self.backbone.weight[: x.shape[2]]
        return x @ weight + self.backbone.bias, _durations(elapsed, x)  # pyright: ignore

    def step(
        self, state: Float[Array, "batch size"], entering: Any
    ) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
        drive, duration = entering
        h = drive + state @ self.backbone.weight[-state.shape[1] :]
        h = 1.7159 * jnp.tanh(0.666 * h)
        f, g, a, b = (head(h) for head in self.heads)
        gate = jax.nn.sigmoid(a * duration + b)
        state = jnp.tanh(f) * (1 - gate) + jnp.tanh(g) * gate
        return state, state


def _durations(elapsed: Elapsed, x: Shaped[Array, "batch time in"]) -> Float[Array, "batch time 1"]:
    """`elapsed` of each step: a number, one a step [time], or [batch, time]. Raises `ValueError` for another shape."""
    shape = jnp.shape(elapsed)
    if shape not in ((), x.shape[1:2], x.shape[:2]):
        raise ValueError(f"elapsed must be a number, [time] or [batch, time], {list(x.shape[:2])}, not {list(shape)}")  # fmt: skip
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.broadcast_to(jnp.asarray(elapsed, dtype), x.shape[:2])[..., None]
