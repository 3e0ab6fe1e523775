"""Recurrent layers over [batch, time, features]: LSTM, GRU, leaky units, leaky integrate-and-fire neurons.

What of the input does not wait for the state is one product for all steps, before the loop over time.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from latebloom.nn import mlp
from latebloom.nn.mlp import Linear

ACTIVATIONS = {**mlp.ACTIVATIONS, "sigmoid": jax.nn.sigmoid}


class Recurrent(eqx.Module):
    """What has a state: (state, outputs [batch, time, size]) from inputs [batch, time, features].

    A subclass says with which state it starts, what enters a step of all inputs, and what a step is.
    """

    @abstractmethod
    def start(self, entering: Any) -> Any:
        """The state before the first step: zeros, of the dtype of what enters."""

    @abstractmethod
    def enter(self, x: Shaped[Array, "batch time features"], **given: Any) -> Any:
        """What of the inputs enters the steps: arrays [batch, time, ...]."""

    @abstractmethod
    def step(self, state: Any, entering: Any) -> tuple[Any, Array]:
        """The next state, and the output [batch, size]."""

    def __call__(
        self, x: Shaped[Array, "*shape"], state: Any = None, *,
        lengths: Shaped[Array, "*of"] | None = None, reverse: bool = False, **given: Any,
    ) -> tuple[Any, Float[Array, "batch time size"]]:  # fmt: skip
        """The last state and the outputs of all steps of `x` [batch, time, features].

        - `state`: that of before; else it is `start`'s.
        - `lengths` [batch]: how many steps each sequence has. After them its state stays and its outputs are 0, so that
          the last state is that of each sequence's last step.
        - `given`: what else enters, as `elapsed` time where a layer takes it.
        - `reverse`: from the last step to the first; with `lengths`, from each sequence's own last.

        Raises `ValueError` for inputs that are not [batch, time, features], and for lengths of another number.
        """
        if x.ndim != 3:
            raise ValueError(f"inputs must be [batch, time, features], not {list(x.shape)}: one sequence is x[None]")  # fmt: skip
        if lengths is not None and jnp.shape(lengths) != x.shape[:1]:
            raise ValueError(f"lengths must be one a sequence, {x.shape[0]}, not {list(jnp.shape(lengths))}")  # fmt: skip
        times = jnp.arange(x.shape[1])
        if lengths is not None:  # also for gradients: what pads may be anything
            x = jnp.where((times < lengths[:, None])[..., None], x, jnp.zeros_like(x))
        entering = self.enter(x, **given)
        state = self.start(entering) if state is None else state
        along = (jax.tree.map(lambda e: jnp.moveaxis(e, 1, 0), entering), times)

        def one(state: Any, at: tuple[Any, Array]) -> tuple[Any, Array]:
            entering, time = at
            new, output = self.step(state, entering)
            if lengths is None:
                return new, output
            on = time < lengths
            pick = lambda a, b: jnp.where(on.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
            return jax.tree.map(pick, new, state), pick(output, jnp.zeros_like(output))

        state, outputs = jax.lax.scan(one, state, along, reverse=reverse)
        return state, jnp.moveaxis(outputs, 0, 1)


def _pair(in_size: int, size: int, blocks: int, key: PRNGKeyArray) -> tuple[Linear, Linear]:
    """Maps of the input and of the state to `blocks` x size, all of it from U(-1/sqrt(size), 1/sqrt(size))."""
    one, two = jax.random.split(key)
    scale = float(np.sqrt(in_size / size))
    return Linear(in_size, blocks * size, key=one, init_scale=scale), Linear(size, blocks * size, key=two)  # fmt: skip


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

    The state is (output, cell), each [batch, size]. Gates stand in PyTorch's order: input, forget, cell, output; so do
    first weights, and both maps have a bias. `forget`: what is added to the first bias of the forget gate.
    """

    input: Linear
    hidden: Linear

    def __init__(self, in_size: int, size: int, *, key: PRNGKeyArray, forget: float = 0.0):
        self.input, self.hidden = _pair(in_size, size, 4, key)
        raised = self.input.bias.at[size : 2 * size].add(forget)  # pyright: ignore
        self.input = eqx.tree_at(lambda l: l.bias, self.input, raised)

    def start(self, entering: Float[Array, "batch time four"]) -> tuple[Array, Array]:
        zero = jnp.zeros((len(entering), self.hidden.weight.shape[0]), entering.dtype)
        return zero, zero

    def enter(self, x: Shaped[Array, "batch time features"]) -> Float[Array, "batch time four"]:
        return self.input(x)

    def step(
        self, state: tuple[Array, Array], entering: Float[Array, "batch four"]
    ) -> tuple[tuple[Array, Array], Float[Array, "batch size"]]:
        output, cell = state
        gates = entering + self.hidden(output)
        into, kept, new, out = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(kept) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
        output = jax.nn.sigmoid(out) * jnp.tanh(cell)
        return (output, cell), output


class GRU(Recurrent):
    """Gated recurrent units (Cho et al. 2014), in PyTorch's form: the reset gate is outside the product with the state.

    The state is [batch, size]. Gates: reset, update, new.
    """

    input: Linear
    hidden: Linear

    def __init__(self, in_size: int, size: int, *, key: PRNGKeyArray):
        self.input, self.hidden = _pair(in_size, size, 3, key)

    def start(self, entering: Float[Array, "batch time three"]) -> Float[Array, "batch size"]:
        return jnp.zeros((len(entering), self.hidden.weight.shape[0]), entering.dtype)

    def enter(self, x: Shaped[Array, "batch time features"]) -> Float[Array, "batch time three"]:
        return self.input(x)

    def step(
        self, state: Float[Array, "batch size"], entering: Float[Array, "batch three"]
    ) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
        into, own = (jnp.split(part, 3, axis=-1) for part in (entering, self.hidden(state)))
        reset, update = (jax.nn.sigmoid(a + b) for a, b in zip(into[:2], own[:2], strict=True))
        new = jnp.tanh(into[2] + reset * own[2])
        state = (1 - update) * new + update * state
        return state, state


class LeakyRNN(Recurrent):
    """Units with time constants that learn (Khajehabdollahi et al. 2024, arXiv 2309.12927, section 2).

    With tau of at least 1 step for each unit, and no unit acting upon itself:

    - `form="around"`: h <- phi((1 - 1/tau) h + (W h + U x) / tau), both maps with a bias;
    - `form="inside"`: h <- (1 - 1/tau) h + phi(W h + U x) / tau.

    The state is [batch, size]. `tau` starts from U(low, high), or with `tau=` a number of all units. Below 1 it counts
    as 1, with slope 0 there; with `optim.trained` it can be left as it is.

    Raises `ValueError` for another activation or form, and for first time constants below 1.
    """

    input: Linear
    hidden: Linear
    tau: Float[Array, " size"]
    activation: str = eqx.field(static=True)
    form: str = eqx.field(static=True)

    def __init__(
        self, in_size: int, size: int, *, key: PRNGKeyArray, tau: float | tuple[float, float] = (1.0, 2.0),
        activation: str = "leaky_relu", form: str = "around",
    ):  # fmt: skip
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")  # fmt: skip
        if form not in ("around", "inside"):
            raise ValueError(f'form must be "around" or "inside", not {form!r}')
        low, high = tau if isinstance(tau, tuple) else (tau, tau)
        if not 1 <= low <= high:
            raise ValueError(f"tau must be at least 1 step, and its range go up, not {tau}")
        one, two, three = jax.random.split(key, 3)
        self.input, self.hidden = Linear(in_size, size, key=one), Linear(size, size, key=two)
        self.tau = jax.random.uniform(three, (size,), jnp.float32, low, high)
        self.activation, self.form = activation, form

    @property
    def time_constants(self) -> Float[Array, " size"]:
        """In steps: `tau`, at least 1."""
        return jnp.where(self.tau >= 1, self.tau, jnp.ones_like(self.tau))

    def start(self, entering: Float[Array, "batch time size"]) -> Float[Array, "batch size"]:
        return jnp.zeros((len(entering), len(self.tau)), entering.dtype)

    def enter(self, x: Shaped[Array, "batch time features"]) -> Float[Array, "batch time size"]:
        return self.input(x)

    def step(
        self, state: Float[Array, "batch size"], entering: Float[Array, "batch size"]
    ) -> tuple[Float[Array, "batch size"], Float[Array, "batch size"]]:
        weight = self.hidden.weight * (1 - jnp.eye(len(self.tau), dtype=self.hidden.weight.dtype))
        drive = entering + state @ weight + self.hidden.bias  # pyright: ignore
        rate, phi = 1 / self.time_constants, ACTIVATIONS[self.activation]
        if self.form == "around":
            state = phi((1 - rate) * state + drive * rate)
        else:
            state = (1 - rate) * state + phi(drive) * rate
        return state, state


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def spike(v: Float[Array, "*n"], alpha: float = 2.0, surrogate: str = "atan") -> Float[Array, "*n"]:  # fmt: skip
    """1 where `v` >= 0, else 0; its slope is that of a surrogate (Neftci, Mostafa and Zenke 2019).

    - "atan": (alpha / 2) / (1 + (pi / 2 alpha v)^2) (Fang et al. 2021);
    - "sigmoid": alpha s (1 - s), s the logistic function of alpha v;
    - "triangle": max(0, alpha - alpha^2 |v|).

    Raises `ValueError` for another surrogate.
    """
    if surrogate not in ("atan", "sigmoid", "triangle"):
        raise ValueError(f'surrogate must be "atan", "sigmoid" or "triangle", not {surrogate!r}')
    return (v >= 0).astype(v.dtype)


@spike.defjvp
def _spike_jvp(
    alpha: float, surrogate: str, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (v,), (change,) = primals, tangents
    if surrogate == "atan":
        slope = alpha / 2 / (1 + jnp.square(np.pi / 2 * alpha * v))
    elif surrogate == "sigmoid":
        slope = alpha * jax.nn.sigmoid(alpha * v) * jax.nn.sigmoid(-alpha * v)
    else:
        slope = jax.nn.relu(alpha - alpha**2 * jnp.abs(v))
    return spike(v, alpha, surrogate), (slope * change).astype(v.dtype)


class LIF(Recurrent):
    """Leaky integrate-and-fire neurons, one a feature: spikes of 0 or 1 from currents.

    v <- v - (v - rest) / tau + x (or + x / tau: `decay_input`); a spike where v reaches `threshold`; then v is `rest`
    ("hard"), or loses `threshold` ("soft"). `tau` in steps, from 1 on. With `threshold=None` there are no spikes, and
    the output is v: a leaky integrator, for readouts. The state is v after the reset, [batch, features], at first `rest`.

    `through_reset`: whether gradients pass through the spike in the reset, too. Slopes of spikes: `spike`.

    Raises `ValueError` for tau below 1, a threshold not above rest, and another reset.
    """

    tau: float = eqx.field(static=True)
    threshold: float | None = eqx.field(static=True)
    rest: float = eqx.field(static=True)
    reset: str = eqx.field(static=True)
    decay_input: bool = eqx.field(static=True)
    through_reset: bool = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    surrogate: str = eqx.field(static=True)

    def __init__(
        self, tau: float, *, threshold: float | None = 1.0, rest: float = 0.0, reset: str = "hard",
        decay_input: bool = False, through_reset: bool = False, alpha: float = 2.0, surrogate: str = "atan",
    ):  # fmt: skip
        if not tau >= 1:
            raise ValueError(f"tau must be at least 1 step, not {tau}")
        if threshold is not None and not threshold > rest:
            raise ValueError(f"threshold must be above rest, {rest}, not {threshold}")
        if reset not in ("hard", "soft"):
            raise ValueError(f'reset must be "hard" or "soft", not {reset!r}')
        self.tau, self.threshold, self.rest, self.reset = tau, threshold, rest, reset
        self.decay_input, self.through_reset = decay_input, through_reset
        self.alpha, self.surrogate = alpha, surrogate

    def start(self, entering: Float[Array, "batch time features"]) -> Float[Array, "batch features"]:  # fmt: skip
        return jnp.full(entering[:, 0].shape, self.rest, entering.dtype)

    def enter(self, x: Shaped[Array, "batch time features"]) -> Float[Array, "batch time features"]:
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
        return x / self.tau if self.decay_input else x

    def step(
        self, state: Float[Array, "batch features"], entering: Float[Array, "batch features"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch features"]]:
        v = state - (state - self.rest) / self.tau + entering
        if self.threshold is None:
            return v, v
        fired = spike(v - self.threshold, self.alpha, self.surrogate)
        gone = fired if self.through_reset else jax.lax.stop_gradient(fired)
        v = v - gone * self.threshold if self.reset == "soft" else (1 - gone) * v + gone * self.rest
        return v, fired
