"""Latent ordinary differential equations for series that are observed at irregular times, with the penalties of their solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latebloom.core.dataset import Dataset
from latebloom.core.odes import Solution, solve
from latebloom.core.process import Quantity
from latebloom.core.training import SupervisedState
from latebloom.methods.continuous.neural_ode import NeuralODELearner, Told, tolerances
from latebloom.methods.continuous.regularisers import random_times
from latebloom.nn.mlp import Linear


def series_dataset(
    train: Sequence[Any], test: Sequence[Any], *, hidden: float = 0.3, seed: int = 0
) -> Dataset:
    """Series for a `LatentODELearner`: of (values, there), [series, times, channels] each, a share `hidden` kept from the encoder.

    x is what the encoder sees, [series, times, 2 channels]: values, 0 where not seen, and whether they are. y is the same
    of all that is there: the hidden are what a reconstruction is judged by, too.

    Raises `ValueError` for parts of another shape, a series without any value, values that are not finite where they
    are said to be there, a share that is not from 0 to below 1.
    """
    if not 0 <= hidden < 1:
        raise ValueError(f"hidden must be a share from 0 to below 1, not {hidden}")
    rng = np.random.default_rng([seed, 0x5EED])  # not the stream that drew the data
    parts = []
    for name, (values, there) in (("train", train), ("test", test)):
        values, there = np.asarray(values), np.asarray(there).astype(bool)
        if values.ndim != 3 or values.shape != there.shape:
            raise ValueError(f"{name}: values and there must be [series, times, channels], not {list(values.shape)} and {list(there.shape)}")  # fmt: skip
        if not there.any(axis=(1, 2)).all():
            raise ValueError(f"{name}: series {int(np.argmin(there.any(axis=(1, 2))))} has no value at all: leave it out")  # fmt: skip
        if not np.isfinite(values[there]).all():
            raise ValueError(f"{name}: values must be finite where they are there")
        known = np.where(there, values, 0).astype(np.float32)
        seen = there & (rng.random(there.shape) >= hidden)
        x, y = (np.concatenate([np.where(m, known, 0), m], axis=-1).astype(np.float32) for m in (seen, there))  # fmt: skip
        parts += [jnp.asarray(x), jnp.asarray(y)]
    return Dataset(*parts)


class LatentGRU(eqx.Module):
    """A gated unit whose state is a mean and a log variance, run over a series from its end to its start.

    Gates see both, the values, whether they are there, and the time to the step after. Where nothing is observed the
    state stays.

    Source: Rubanova et al. 2019 (arXiv 1907.03907), without an equation between observations; the authors' code.
    """

    gates: tuple[Linear, Linear]
    resets: tuple[Linear, Linear]
    news: tuple[Linear, Linear]
    size: int = eqx.field(static=True)

    def __init__(self, channels: int, hidden: int, size: int, *, key: PRNGKeyArray):
        keys, width = jax.random.split(key, 6), 2 * size + 2 * channels + 1
        self.gates = Linear(width, hidden, key=keys[0]), Linear(hidden, size, key=keys[1])
        self.resets = Linear(width, hidden, key=keys[2]), Linear(hidden, size, key=keys[3])
        self.news = Linear(width, hidden, key=keys[4]), Linear(hidden, 2 * size, key=keys[5])
        self.size = size

    def __call__(
        self, x: Float[Array, "series times both"], times: Float[Array, " times"]
    ) -> Float[Array, "series state"]:
        channels = x.shape[-1] // 2
        gaps = jnp.append(jnp.diff(times), 0.0).astype(x.dtype)
        steps = jnp.moveaxis(x, 1, 0)

        def through(pair: tuple[Linear, Linear], x: Array) -> Array:
            return pair[1](jnp.tanh(pair[0](x)))

        def one(state: tuple[Array, Array], at: tuple[Array, Array]) -> Any:
            (mean, spread), (row, gap) = state, at
            row = jnp.concatenate([row, jnp.full((len(row), 1), gap, row.dtype)], axis=-1)
            seen = jnp.concatenate([mean, spread, row], axis=-1)
            keep, reset = (jax.nn.sigmoid(through(pair, seen)) for pair in (self.gates, self.resets))  # fmt: skip
            offered = through(self.news, jnp.concatenate([mean * reset, spread * reset, row], axis=-1))  # fmt: skip
            there = (row[:, channels : 2 * channels] > 0).any(axis=-1, keepdims=True)
            new = (
                (1 - keep) * a + keep * b
                for a, b in zip(jnp.split(offered, 2, axis=-1), state, strict=True)
            )
            return tuple(jnp.where(there, a, b) for a, b in zip(new, state, strict=True)), None

        zero = jnp.zeros((len(x), self.size), x.dtype)
        (mean, spread), _ = jax.lax.scan(one, (zero, zero), (steps, gaps), reverse=True)
        return jnp.concatenate([mean, spread], axis=-1)


class LatentODE(eqx.Module):
    """Series to series: an encoder, the distribution of a first state, an equation from there, a readout at each time.

    - `encoder(x, times)` [series, features]; `first`: a network to mean and log variance, [series, 2 size]; `field(t, z)`;
      `readout`: a network to channels. `times`: increasing; the equation runs from the first to the last.

    Raises `ValueError` for times that do not increase.
    """

    encoder: Any
    first: Any
    field: Any
    readout: Any
    times: tuple[float, ...] = eqx.field(static=True)
    rtol: float = eqx.field(static=True, default=1e-5)
    atol: float = eqx.field(static=True, default=1e-5)
    max_steps: int = eqx.field(static=True, default=256)

    def __check_init__(self) -> None:
        if len(self.times) < 2 or (np.diff(self.times) <= 0).any():
            raise ValueError("times must be at least two and increase")

    def start(self, x: Float[Array, "series times both"]) -> tuple[Array, Array]:
        """Mean and log variance of the first state."""
        found = self.first(self.encoder(x, jnp.asarray(self.times, x.dtype)))
        mean, spread = jnp.split(found, 2, axis=-1)
        return mean, spread

    def solution(self, x: Float[Array, "series times both"], **options: Any) -> Solution:
        """From the mean of the first state."""
        given: dict[str, Any] = (
            tolerances(self) | {"save": jnp.asarray(self.times, x.dtype)} | options
        )
        return solve(self.field, self.times[0], self.times[-1], self.start(x)[0], **given)

    def read(self, saved: Float[Array, "times series size"]) -> Float[Array, "series times both"]:
        return jnp.moveaxis(self.readout(saved), 0, 1)

    def __call__(
        self, x: Float[Array, "series times both"], *, key: PRNGKeyArray | None = None, train: bool = False
    ) -> Float[Array, "series times channels"]:  # fmt: skip
        return self.read(self.solution(x).saved)


class LatentODELearner(NeuralODELearner):
    """`NeuralODELearner` of a `LatentODE` on a `series_dataset`, by the evidence lower bound.

    The likelihood is normal with deviation `deviation`, per value that is there; the divergence from N(0, 1), a mean
    over the state, has the weight max(0, 1 - 0.99^(epoch - 10)), `epoch_steps` steps an epoch. `moving=True`: times
    are drawn by `random_times` in training (STEER); `end_width` there is none.

    Observed: `train_loss` and `test_loss` are mean squared errors of all values, `hidden_loss` of those that the encoder
    does not see, of the test series; the rest is as in `NeuralODELearner`.
    """

    deviation: float = eqx.field(static=True)
    epoch_steps: int = eqx.field(static=True)
    moving: bool = eqx.field(static=True)

    def __init__(self, *, deviation: float = 0.01, epoch_steps: int = 1, moving: bool = False, **given: Any):  # fmt: skip
        if not deviation > 0 or epoch_steps < 1:
            raise ValueError(f"deviation must be above 0 and epoch_steps at least 1, not {deviation} and {epoch_steps}")  # fmt: skip
        if given.get("end_width", 0.0):
            raise ValueError("a latent equation has no end_width: moving=True draws its times")
        super().__init__(loss=per_value, accuracy=False, **given)
        self.deviation, self.epoch_steps, self.moving = deviation, epoch_steps, moving

    def cost(
        self, model: LatentODE, x: Array, y: Array, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, Told]:
        time_key, point_key, state_key = jax.random.split(key, 3)
        mean, spread = model.start(x)
        state = mean + jnp.exp(spread / 2) * jax.random.normal(state_key, mean.shape, mean.dtype)
        times = jnp.asarray(model.times, x.dtype)
        # from time 0 on, as penalties have it; the field sees its own times
        times = random_times(time_key, times) if self.moving else times
        begun = model.times[0]
        field = model.field if begun == 0 else _Later(model.field, begun)
        saved, told = self.solved(
            field, state, model.times[-1] - begun, point_key, tolerances(model), save=times - begun
        )
        off = per_value(model.read(saved), y)
        likelihood = off / (2 * self.deviation**2) + np.log(self.deviation) + np.log(2 * np.pi) / 2
        divergence = (jnp.exp(spread) + mean**2 - 1 - spread).mean(axis=-1) / 2
        epoch = step // self.epoch_steps
        weight = jnp.maximum(0.0, 1 - 0.99 ** (epoch - 10.0))
        return self.charged((likelihood + weight * divergence).mean(), told, step)

    def observe(self, state: SupervisedState) -> dict[str, Array]:
        data, model = self.dataset(state), state.model
        channels = data.x_test.shape[-1] // 2
        given = {"loop": "forward", "record": self.show > 0}
        found = model.solution(data.x_test, **given)
        train = model.read(model.solution(data.x_train, loop="forward").saved)
        test = model.read(found.saved)
        seen, there = data.x_test[..., channels:], data.y_test[..., channels:]
        hidden = (there > 0) & (seen == 0)
        off = jnp.where(hidden, (test - data.y_test[..., :channels]) ** 2, 0.0)
        return {
            "train_loss": per_value(train, data.y_train).mean(),
            "test_loss": per_value(test, data.y_test).mean(),
            "hidden_loss": off.sum() / jnp.maximum(hidden.sum(), 1),
        } | self.costs(found)

    def quantities(self) -> dict[str, Quantity]:
        return super().quantities() | {
            "hidden_loss": Quantity("squared units", about="test loss of values not seen")
        }


def per_value(
    outputs: Float[Array, "series times channels"], y: Float[Array, "series times both"]
) -> Float[Array, " series"]:
    """Mean squared error of each series over the values that are there."""
    values, there = jnp.split(y, 2, axis=-1)
    off = jnp.where(there > 0, (outputs - values) ** 2, 0.0)
    return off.sum(axis=(1, 2)) / jnp.maximum((there > 0).sum(axis=(1, 2)), 1)


class _Later(eqx.Module):
    field: Any
    begun: float = eqx.field(static=True)

    def __call__(self, t: Any, z: Array) -> Array:
        return self.field(t + self.begun, z)


class TanhChain(eqx.Module):
    """The paper's field: tanh of the state, then affine maps, a tanh after each. Time it does not see."""

    layers: tuple[Linear, ...]

    def __init__(self, size: int, hidden: int, pairs: int = 4, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 2 * pairs)
        sizes = (size, hidden) * pairs
        ends = (*sizes[1:], size)
        self.layers = tuple(Linear(a, b, key=k) for a, b, k in zip(sizes, ends, keys, strict=True))

    def __call__(self, t: Any, z: Float[Array, "series size"]) -> Float[Array, "series size"]:
        z = jnp.tanh(z)
        for layer in self.layers:
            z = jnp.tanh(layer(z))
        return z


class _First(eqx.Module):
    one: Linear
    two: Linear

    def __call__(self, x: Array) -> Array:
        return self.two(jnp.tanh(self.one(x)))


def latent_ode(
    channels: int, times: Any, *, state: int = 50, gates: int = 40, size: int = 20, hidden: int = 50,
    pairs: int = 4, **options: Any,
) -> Callable[[PRNGKeyArray], LatentODE]:  # fmt: skip
    """Builds the paper's network from a key: `LatentGRU` of `state` and `gates`, first states of `size`, a `TanhChain` of `hidden`."""
    held = tuple(float(t) for t in times)

    def build(key: PRNGKeyArray) -> LatentODE:
        keys = jax.random.split(key, 5)
        encoder = LatentGRU(channels, gates, state, key=keys[0])
        first = _First(Linear(2 * state, hidden, key=keys[1]), Linear(hidden, 2 * size, key=keys[2]))  # fmt: skip
        field = TanhChain(size, hidden, pairs, key=keys[3])
        return LatentODE(encoder, first, field, Linear(size, channels, key=keys[4]), held, **options)  # fmt: skip

    return build
