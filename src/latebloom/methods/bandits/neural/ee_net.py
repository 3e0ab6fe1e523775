"""EE-Net: a second network learns what is to be gained over the first one's prediction.

Ban, Yan, Banerjee, He, "EE-Net" (ICLR 2022, arXiv:2110.03177); widths, pooling, labels and schedule
as in github.com/banyikun/EE-Net-ICLR-2022 with its linear decision maker.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.neural.network import Weights
from latebloom.methods.bandits.neural.regression import NeuralRegression, RegressionState, passes

KERNEL, STRIDE, HIDDEN = 100, 50, 100
OTHER_ARMS = 1.2  # label of the arms not played, after a round without reward
EARLY = 1000  # rounds in which other arms are labelled


class Explorer(NamedTuple):
    """f2: a convolution over the pooled gradient, a hidden layer, one output."""

    kernel: Float[Array, " w"]
    bias: Float[Array, ""]
    hidden: Float[Array, "h n"]
    hidden_bias: Float[Array, " h"]
    output: Float[Array, " h"]
    output_bias: Float[Array, ""]


class Gradients(NamedTuple):
    """Pooled gradients with their labels; the part of an arm's own layer is stored without the
    zeros of the other arms."""

    own: Float[Array, "n p"]
    shared: Float[Array, "n q"]
    action: Int[Array, " n"]
    label: Float[Array, " n"]
    count: Int[Array, ""]


class EENetState(NamedTuple):
    exploiter: RegressionState
    explorer: Explorer
    gradients: Gradients
    key: PRNGKeyArray


class EENet(eqx.Module):
    """Predicted loss = f1 - w (f2 - 1), to be played greedily.

    - `exploiter`: f1, a network with replay, no perturbation.
    - `weight`: w in the first 1000 rounds; a tenth of it afterwards.
    - `rate`: of Adam for f2. `pool`: neighbouring gradient entries that are averaged.
    """

    exploiter: NeuralRegression
    weight: float = 0.1
    rate: float = 1e-3
    pool: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        if self.exploiter.replay is None or self.exploiter.perturbation is not None:
            raise ValueError("EE-Net's exploiter is a network with replay and no perturbation")
        check_setting("weight", self.weight)
        check_setting("rate", self.rate, above=True)
        if self.pool < 1:
            raise ValueError(f"pool must be at least 1, not {self.pool}")

    def _sizes(self) -> tuple[int, int, int]:
        """Entries of a pooled gradient: of an arm's own layer, of shared layers, in total."""
        net = self.exploiter.network
        sizes = [
            int(np.prod(w.shape[1:] if i == net.own else w.shape))
            for i, w in enumerate(jax.eval_shape(net.init, jax.random.key(0)))
        ]
        own = -(-sizes[net.own] // self.pool) if net.own is not None else 0
        shared = sum(-(-n // self.pool) for i, n in enumerate(sizes) if i != net.own)
        return own, shared, own * net.actions + shared

    def init(self, key: PRNGKeyArray) -> EENetState:
        first, second, key = jax.random.split(key, 3)
        own, shared, total = self._sizes()
        net, replay = self.exploiter.network, self.exploiter.replay
        assert replay is not None
        n = replay.capacity + (net.actions - 1) * min(replay.capacity, EARLY)
        gradients = Gradients(
            jnp.zeros((n, own), jnp.float32), jnp.zeros((n, shared), jnp.float32),
            jnp.zeros(n, jnp.int32), jnp.zeros(n, jnp.float32), jnp.int32(0),
        )  # fmt: skip
        return EENetState(self.exploiter.init(first), init_explorer(second, total), gradients, key)

    def predict(
        self, state: EENetState, x: Float[Array, "*a d"]
    ) -> tuple[Float[Array, " k"], None]:
        losses, _ = self.exploiter.predict(state.exploiter, x)
        own, shared = self._pooled(state.exploiter.weights, x)
        gains = jax.vmap(lambda o, s, a: self._gain(state.explorer, o, s, a))(
            own, shared, jnp.arange(self.exploiter.network.actions)
        )
        weight = jnp.where(state.exploiter.count <= EARLY, self.weight, self.weight / 10)
        return losses - weight * (gains - 1), None

    def learn(
        self, state: EENetState, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], on: Bool[Array, ""] | bool = True,
    ) -> EENetState:  # fmt: skip
        replay = self.exploiter.replay
        assert replay is not None
        on = jnp.asarray(on)
        losses, _ = self.exploiter.predict(state.exploiter, x)
        own, shared = self._pooled(state.exploiter.weights, x)
        early = (state.exploiter.count < EARLY) & (y >= 1)
        gradients = _remember(
            state.gradients, own, shared, action, losses[action] - y + 1, on, early
        )
        exploiter = self.exploiter.learn(state.exploiter, x, action, y, on)
        key, shuffle = jax.random.split(state.key)
        due = on & replay.due(exploiter.count)
        explorer = jax.lax.cond(
            due,
            lambda: self._train(state.explorer, gradients, shuffle, replay.limit),
            lambda: state.explorer,
        )
        return EENetState(exploiter, explorer, gradients, key)

    def _pooled(self, weights: Weights, x: Array) -> tuple[Array, Array]:
        """Pooled gradients of all arms: [k, p] of their own layer, [k, q] of the shared ones."""
        net = self.exploiter.network

        def pooled(served: Weights, x: Array) -> tuple[Array, Array]:
            gradient = jax.grad(net.one)(served, x)
            parts = [_pool(g.reshape(-1), self.pool) for g in gradient]
            mine = parts.pop(net.own) if net.own is not None else jnp.zeros(0, jnp.float32)
            return mine, jnp.concatenate(parts)

        return net.over_arms(pooled, weights)(x)  # pyright: ignore

    def _gain(self, explorer: Explorer, own: Array, shared: Array, action: Array) -> Array:
        block = jnp.zeros(own.shape[0] * self.exploiter.network.actions, own.dtype)
        block = jax.lax.dynamic_update_slice(block, own, (action * own.shape[0],))
        return explore(explorer, jnp.concatenate([block, shared]))

    def _train(
        self, explorer: Explorer, gradients: Gradients, key: PRNGKeyArray, limit: int
    ) -> Explorer:
        optimiser = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(self.rate))

        def step(carry: tuple[Explorer, optax.OptState], i: Array):
            explorer, moments = carry
            own, shared, action, label = (part[i] for part in gradients[:4])

            def error(explorer: Explorer) -> Array:
                return (self._gain(explorer, own, shared, action) - label) ** 2

            value, gradient = jax.value_and_grad(error)(explorer)
            updates, moments = optimiser.update(gradient, moments, explorer)
            return (optax.apply_updates(explorer, updates), moments), value

        start = (explorer, optimiser.init(explorer))
        n = len(gradients.label)
        return passes(step, start, key, gradients.count, n, limit, 2e-3)[0]


def init_explorer(key: PRNGKeyArray, inputs: int) -> Explorer:
    """f2 for pooled gradients of that many entries, uniform in ±1/sqrt(fan-in)."""
    width = min(KERNEL, inputs)
    windows = (inputs - width) // STRIDE + 1
    fans = (width, width, windows, windows, HIDDEN, HIDDEN)
    shapes = ((width,), (), (HIDDEN, windows), (HIDDEN,), (HIDDEN,), ())
    keys = jax.random.split(key, 6)
    return Explorer(*(
        jax.random.uniform(k, s, jnp.float32, -1.0, 1.0) / float(np.sqrt(fan))
        for k, s, fan in zip(keys, shapes, fans, strict=True)
    ))  # fmt: skip


def explore(explorer: Explorer, pooled: Float[Array, " p"]) -> Float[Array, ""]:
    """f2's output for a pooled gradient."""
    width, windows = len(explorer.kernel), explorer.hidden.shape[1]
    places = np.arange(windows)[:, None] * STRIDE + np.arange(width)
    convolved = pooled[places] @ explorer.kernel + explorer.bias
    hidden = jax.nn.relu(explorer.hidden @ convolved + explorer.hidden_bias)
    return explorer.output @ hidden + explorer.output_bias


def _pool(gradient: Float[Array, " n"], size: int) -> Float[Array, " p"]:
    """Means of `size` neighbours; the last ones are filled up with zeros."""
    padding = -len(gradient) % size
    return jnp.pad(gradient, (0, padding)).reshape(-1, size).mean(-1)


def _remember(
    g: Gradients, own: Array, shared: Array, action: Array, label: Array, on: Array, early: Array
) -> Gradients:
    """Append the played arm, and in early rounds without reward the other arms too."""
    actions, place = jnp.arange(len(own), dtype=jnp.int32), len(g.label)
    first = actions == action
    wanted = on & (first | early)
    rank = jnp.where(first, 0, jnp.where(actions < action, actions + 1, actions))
    slot = jnp.where(wanted, g.count + rank, place)
    return Gradients(
        g.own.at[slot].set(own, mode="drop"), g.shared.at[slot].set(shared, mode="drop"),
        g.action.at[slot].set(actions, mode="drop"),
        g.label.at[slot].set(jnp.where(first, label, OTHER_ARMS), mode="drop"),
        g.count + wanted.sum(dtype=jnp.int32),
    )  # fmt: skip
