"""Online regression with a network: perturbed predictions, square and KL loss, projected descent.

Deb, Ban, Zuo, He, Banerjee, "Contextual Bandits with Online Neural Regression" (ICLR 2024,
arXiv:2312.07145), section 3. The prediction is f~_s = f + c <θ - θ_0, ε_s> with S draws ε_s of signs;
the loss is averaged over the draws. For the square loss the expectation over ε adds exactly
c²/2 ||θ - θ_0||² to (f - y)²/2: a pull to the start that makes the minimum unique.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latebloom.methods.bandits.exploration import check_setting
from latebloom.methods.bandits.neural.network import ArmNetwork, Weights

Loss = Literal["square", "kl"]
LOSSES = ("square", "kl")


def loss_number(loss: Loss | Int[Array, ""]) -> Int[Array, ""]:
    """0 for "square", 1 for "kl": a number, so that both share one compiled program.

    Raises `ValueError` for a name that is neither.
    """
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss must be 'square' or 'kl', not {loss!r}")
    return jnp.int32(LOSSES.index(loss))


def link(outputs: Float[Array, "*b"], loss: Loss | Int[Array, ""]) -> Float[Array, "*b"]:
    """Predicted losses from network outputs: themselves, or their sigmoid under the KL loss."""
    return jnp.where(loss_number(loss) == 0, outputs, jax.nn.sigmoid(outputs))


def loss_of(
    outputs: Float[Array, "*b"], y: Float[Array, "*b"], loss: Loss | Int[Array, ""]
) -> Float[Array, "*b"]:
    """(f - y)² / 2, or KL(y || σ(f)) = y log(y/q) + (1-y) log((1-y)/(1-q)).

    The derivative by f is the prediction minus y in both.
    """
    entropy = -xlogy(y, y) - xlogy(1 - y, 1 - y)
    kl = y * jax.nn.softplus(-outputs) + (1 - y) * jax.nn.softplus(outputs) - entropy
    return jnp.where(loss_number(loss) == 0, (outputs - y) ** 2 / 2, kl)


class Perturbation(eqx.Module):
    """Signs that are added to the prediction, and how they are drawn.

    - `draws`: S. `strength`: c = c_p m^{-1/4}.
    - `renew`: draw new signs after every update; otherwise one set is kept for good.
    """

    draws: int = eqx.field(static=True, default=8)
    strength: float = 0.01
    renew: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, not {self.draws}")
        check_setting("strength", self.strength)


class Replay(eqx.Module):
    """Train on everything seen, one example after another, on a schedule.

    The protocol of neural bandits (github.com/banyikun/EE-Net-ICLR-2022): shuffled passes of `rate`
    steps until `limit` of them are made or the mean loss of a pass is at most `tolerance`; after
    every 10th round of the first 1000 and every 100th afterwards.

    - `capacity`: rounds that are remembered; the oldest are overwritten.
    """

    capacity: int = eqx.field(static=True)
    limit: int = eqx.field(static=True, default=2000)
    tolerance: float = 1e-3

    def __check_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {self.capacity}")
        check_setting("limit", self.limit, 1.0)
        check_setting("tolerance", self.tolerance)

    def due(self, count: Int[Array, ""]) -> Bool[Array, ""]:
        """Whether to train after `count` examples."""
        round = count - 1
        return jnp.where(round < 1000, round % 10 == 0, round % 100 == 0)


class Memory(NamedTuple):
    x: Float[Array, "n ..."]
    action: Int[Array, " n"]
    y: Float[Array, " n"]


class Draws(NamedTuple):
    """Signs [S, ...] of every weight, their inner products with one another and with θ - θ_0."""

    signs: Weights
    gram: Float[Array, "s s"]
    inner: Float[Array, " s"]


class RegressionState(NamedTuple):
    weights: Weights
    start: Weights
    draws: Draws | None
    precision: Weights | None
    memory: Memory | None
    count: Int[Array, ""]
    key: PRNGKeyArray


class NeuralRegression(eqx.Module):
    """A network that predicts the loss of every arm and learns from the one that was played.

    - `loss`: "square", or "kl" (predictions pass a sigmoid).
    - `rate`, `decay`: step size of the t-th example, rate / (1 + decay t) (a replay uses `rate`).
    - `perturbation`: None for the plain network.
    - `replay`: None for one step an example (projected online gradient descent).
    - `radius`: of the Frobenius ball around the initial weights of each layer, to which weights are
      projected after every update (after the last step of a replay).
    - `ridge`: keep the diagonal precision U = ridge + Σ g² of played arms, from which `predict`
      tells widths, as NeuralUCB and NeuralTS need them; None: no widths.
    """

    network: ArmNetwork
    loss: Int[Array, ""] = eqx.field(converter=loss_number, default="square")
    rate: float = 0.1
    decay: float = 0.0
    perturbation: Perturbation | None = None
    replay: Replay | None = None
    radius: float = 100.0
    ridge: float | None = None

    def __check_init__(self) -> None:
        check_setting("rate", self.rate, above=True)
        check_setting("decay", self.decay)
        check_setting("radius", self.radius, above=True)
        if self.ridge is not None:
            check_setting("ridge", self.ridge, above=True)

    def init(self, key: PRNGKeyArray) -> RegressionState:
        weight_key, sign_key, key = jax.random.split(key, 3)
        weights = self.network.init(weight_key)
        precision = memory = None
        if self.ridge is not None:
            precision = tuple(jnp.full(w.shape, self.ridge, jnp.float32) for w in weights)
        if self.replay is not None:
            n, net = self.replay.capacity, self.network
            shape = (net.actions, net.inputs) if net.arms == "contexts" else (net.inputs,)
            memory = Memory(
                jnp.zeros((n, *shape), jnp.float32), jnp.zeros(n, jnp.int32),
                jnp.zeros(n, jnp.float32),
            )  # fmt: skip
        draws = self._draw(sign_key, weights, weights)
        return RegressionState(weights, weights, draws, precision, memory, jnp.int32(0), key)

    def predict(
        self, state: RegressionState, x: Float[Array, "*a d"]
    ) -> tuple[Float[Array, " k"], Float[Array, " k"] | None]:
        """Predicted losses of all arms at the mean perturbation, and their widths."""
        outputs = self.network.all(state.weights, x)
        if state.draws is not None and self.perturbation is not None:
            outputs += self.perturbation.strength * state.draws.inner.mean()
        widths = None
        if state.precision is not None and self.ridge is not None:
            widths = self.network.widths(state.weights, state.precision, x, self.ridge)
        return link(outputs, self.loss), widths

    def learn(
        self, state: RegressionState, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], on: Bool[Array, ""] | bool = True,
    ) -> RegressionState:  # fmt: skip
        """The state after an example; nothing changes where not `on`."""
        on = jnp.asarray(on)
        state = state._replace(precision=self._sharpened(state, x, action, on))
        if self.replay is None:
            return self._step(state, x, action, y, on)
        state = self.remember(state, x, action, y, on)
        key, train = jax.random.split(state.key)
        due = on & self.replay.due(state.count)
        weights, draws = jax.lax.cond(
            due, lambda: self.refit(state, train), lambda: (state.weights, state.draws)
        )
        return state._replace(weights=weights, draws=draws, key=key)

    def _step(
        self, state: RegressionState, x: Array, action: Array, y: Array, on: Array
    ) -> RegressionState:
        key, renew = jax.random.split(state.key)
        rate = jnp.where(on, self.rate / (1 + self.decay * state.count), 0.0)
        track, _ = self.descend(self.track(state), state.draws, x, action, y, rate)
        weights, draws = self.settle(state, track, renew)
        return state._replace(weights=weights, draws=draws, count=state.count + on, key=key)

    def remember(
        self, state: RegressionState, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], on: Bool[Array, ""] | bool = True,
    ) -> RegressionState:  # fmt: skip
        """The state with an example in its memory and nothing learned from it yet."""
        assert self.replay is not None and state.memory is not None
        capacity, memory = self.replay.capacity, state.memory
        slot = jnp.where(on, state.count % capacity, capacity)
        memory = Memory(
            memory.x.at[slot].set(x, mode="drop"),
            memory.action.at[slot].set(action, mode="drop"),
            memory.y.at[slot].set(y, mode="drop"),
        )
        return state._replace(memory=memory, count=state.count + on)

    def refit(self, state: RegressionState, key: PRNGKeyArray) -> tuple[Weights, Draws | None]:
        """The weights, and the draws that go with them, after a training on the memory."""
        assert self.replay is not None and state.memory is not None
        replay, memory = self.replay, state.memory
        shuffle, renew = jax.random.split(key)

        def step(track: Track, i: Array) -> tuple[Track, Array]:
            x, action, y = memory.x[i], memory.action[i], memory.y[i]
            return self.descend(track, state.draws, x, action, y, self.rate)

        seen, n = jnp.minimum(state.count, replay.capacity), replay.capacity
        track = passes(step, self.track(state), shuffle, seen, n, replay.limit, replay.tolerance)
        return self.settle(state, track, renew)

    def track(self, state: RegressionState) -> Track:
        """Where a training starts from."""
        inner = jnp.zeros(1, jnp.float32) if state.draws is None else state.draws.inner
        return Track(state.weights, inner, jnp.zeros_like(inner))

    def descend(
        self, track: Track, draws: Draws | None, x: Float[Array, "*a d"], action: Int[Array, ""],
        y: Float[Array, ""], rate: Float[Array, ""] | float,
    ) -> tuple[Track, Float[Array, ""]]:  # fmt: skip
        """One gradient step on the loss averaged over the draws, and that loss before it.

        The signs move every weight, along S directions only. How far along each is kept in
        `Track.along` and added to the weights at the end, so that a step touches one arm's weights.
        """
        net = self.network
        served, context = net.arm(track.weights, action), net.context(x, action)
        used, shift, strength = served, jnp.zeros(1, jnp.float32), jnp.float32(0)
        signs: Weights = ()
        if draws is not None and self.perturbation is not None:
            strength = jnp.asarray(self.perturbation.strength)
            signs = net.arm(draws.signs, action, axis=1)
            used = _add(served, _combine(track.along, signs))
            shift = strength * (track.inner + draws.gram @ track.along)
        output, gradient = jax.value_and_grad(net.one)(used, context)
        outputs = output + shift
        residuals = link(outputs, self.loss) - y
        move = jax.tree.map(lambda g: -rate * residuals.mean() * g, gradient)
        inner = track.inner + _inner(signs, move) if signs else track.inner
        along = track.along - rate * strength * residuals / len(residuals)
        weights = net.with_arm(track.weights, action, _add(served, move))
        return Track(weights, inner, along), loss_of(outputs, y, self.loss).mean()

    def settle(
        self, state: RegressionState, track: Track, key: PRNGKeyArray
    ) -> tuple[Weights, Draws | None]:
        """Weights with the signs' part added and projected to the balls, and the draws for them."""
        weights, draws = track.weights, state.draws
        if draws is not None:
            weights = _add(weights, _combine(track.along, draws.signs))
        weights = tuple(
            project(w, w0, self.radius) for w, w0 in zip(weights, state.start, strict=True)
        )
        if draws is None or self.perturbation is None:
            return weights, None
        if self.perturbation.renew:
            return weights, self._draw(key, weights, state.start)
        return weights, draws._replace(inner=_inner(draws.signs, _less(weights, state.start)))

    def _draw(self, key: PRNGKeyArray, weights: Weights, start: Weights) -> Draws | None:
        if self.perturbation is None:
            return None
        count = self.perturbation.draws
        flat = rademacher(key, count, sum(w.size for w in weights))
        # A single step starts from `along` = 0, so that only replays need the inner products.
        gram = jnp.zeros((count, count), jnp.float32) if self.replay is None else flat @ flat.T
        parts = jnp.split(flat, np.cumsum([w.size for w in weights])[:-1], axis=1)
        signs = tuple(p.reshape(count, *w.shape) for p, w in zip(parts, weights, strict=True))
        return Draws(signs, gram, _inner(signs, _less(weights, start)))

    def _sharpened(
        self, state: RegressionState, x: Array, action: Array, on: Array
    ) -> Weights | None:
        """The precision with the squared gradient of the played arm added."""
        if state.precision is None:
            return None
        net = self.network
        gradient = jax.grad(net.one)(net.arm(state.weights, action), net.context(x, action))
        served = net.arm(state.precision, action)
        more = tuple(u + on * g**2 for u, g in zip(served, gradient, strict=True))
        return net.with_arm(state.precision, action, more)


class Track(NamedTuple):
    """Weights on their way through a training: without the signs' part, which is Σ along_s ε_s;
    `inner` is <weights - θ_0, ε_s>, also without it."""

    weights: Weights
    inner: Float[Array, " s"]
    along: Float[Array, " s"]


def passes(
    step: Callable[[Any, Array], tuple[Any, Array]], carry: Any, key: PRNGKeyArray,
    count: Int[Array, ""], capacity: int, limit: Int[Array, ""] | int,
    tolerance: Float[Array, ""] | float,
) -> Any:  # fmt: skip
    """Shuffled passes of `step(carry, index) -> carry, loss` over examples 0 .. count - 1.

    Ends after `limit` steps, or a whole pass with a mean loss of at most `tolerance`.
    """
    lots = jax.random.uniform(key, (capacity,))
    order = jnp.argsort(jnp.where(jnp.arange(capacity) < count, lots, 2.0))

    def on(s: tuple[Any, Array, Array, Array]) -> Array:
        return (s[1] < limit) & ~s[3]

    def go(s: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
        carry, made, total, _ = s
        carry, value = step(carry, order[made % count])
        total, ended = total + value, (made + 1) % count == 0
        return carry, made + 1, jnp.where(ended, 0.0, total), ended & (total <= tolerance * count)

    start = (carry, jnp.int32(0), jnp.float32(0), jnp.array(False))
    return jax.lax.while_loop(on, go, start)[0]


def rademacher(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """Signs, thirty-two from each random word."""
    words = jax.random.bits(key, (-(-rows * columns // 32),), jnp.uint32)
    bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
    signs = 2 * bits.astype(jnp.float32).reshape(-1) - 1
    return signs[: rows * columns].reshape(rows, columns)


def project(
    w: Float[Array, "*s"], centre: Float[Array, "*s"], radius: Float[Array, ""] | float
) -> Float[Array, "*s"]:
    """The nearest point of the Frobenius ball around `centre`."""
    moved = w - centre
    norm = jnp.sqrt(jnp.sum(moved**2))
    return jnp.where(norm > radius, centre + moved * (radius / jnp.maximum(norm, radius)), w)


def _add(a: Weights, b: Weights) -> Weights:
    return jax.tree.map(jnp.add, a, b)


def _less(a: Weights, b: Weights) -> Weights:
    return jax.tree.map(jnp.subtract, a, b)


def _combine(along: Array, signs: Weights) -> Weights:
    return tuple(jnp.tensordot(along, s, 1) for s in signs)


def _inner(signs: Weights, moved: Weights) -> Array:
    parts = (s.reshape(len(s), -1) @ m.reshape(-1) for s, m in zip(signs, moved, strict=True))
    return sum(parts, jnp.zeros(len(signs[0]), jnp.float32))
