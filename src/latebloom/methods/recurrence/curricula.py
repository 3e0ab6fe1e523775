"""Memory tasks learned one horizon after another: by one head, by a head for each, or by a window of heads.

Source: Khajehabdollahi et al. 2024 (arXiv 2309.12927), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from latebloom.core.process import Process, Quantity
from latebloom.methods.recurrence.memory_tasks import TASKS, answers, draw_bits, draw_length
from latebloom.nn.recurrent import LeakyRNN, Recurrent

Kind = Literal["single", "multi", "sliding", "none"]
KINDS = ("single", "multi", "sliding", "none")


class Network(eqx.Module):
    """A recurrent cell and linear heads on its output: `weight` [heads, size, 2], `bias` [heads, 2]."""

    cell: Recurrent
    weight: Float[Array, "heads size 2"]
    bias: Float[Array, "heads 2"]

    def __init__(self, cell: Recurrent, size: int, heads: int, *, key: PRNGKeyArray):
        one, two = jax.random.split(key)
        scale = float(1 / np.sqrt(size))
        self.cell = cell
        self.weight = jax.random.uniform(one, (heads, size, 2), minval=-scale, maxval=scale)
        self.bias = jax.random.uniform(two, (heads, 2), minval=-scale, maxval=scale)

    def __call__(
        self, bits: Float[Array, "batch length"], steps: Int[Array, ""], key: PRNGKeyArray
    ) -> Float[Array, "batch heads 2"]:
        """Logits after the last `steps` of the bits. Leaky units start from U(0, 0.1), others as they do."""
        entering = self.cell.enter(bits[..., None])
        state = self.cell.start(entering)
        if isinstance(self.cell, LeakyRNN):
            state = jax.random.uniform(key, state.shape, state.dtype, 0, 0.1)
        first = bits.shape[1] - steps

        def one(carry: Any, at: Any) -> tuple[Any, None]:
            state, _ = carry
            entering, time = at
            new = self.cell.step(state, entering)
            return jax.tree.map(lambda a, b: jnp.where(time >= first, a, b), new, carry), None

        start = state, jnp.zeros((len(bits), self.weight.shape[1]), bits.dtype)
        along = jnp.moveaxis(entering, 1, 0), jnp.arange(bits.shape[1])
        (_, output), _ = jax.lax.scan(one, start, along)
        return jnp.einsum("bs,hsc->bhc", output, self.weight) + self.bias


class State(NamedTuple):
    """`low`, `high`: the horizons that are learned now. `passed` [heads]: the epoch after which N = 2 + i was; -1: not yet."""

    network: Network
    moments: Any
    key: PRNGKeyArray
    epoch: Int[Array, ""]
    low: Int[Array, ""]
    high: Int[Array, ""]
    passed: Int[Array, " heads"]
    accuracy: Float[Array, " heads"]
    loss: Float[Array, ""]


class Curriculum(Process):
    """One step is an epoch: `updates` of the optimiser, then an exam of `exams` batches.

    Where the mean accuracy of the active horizons and that of the largest pass `enough`, the next horizon comes: alone
    ("single", with the same head), beside all earlier ones ("multi"), or in a window of `window` heads of which the `new`
    oldest go ("sliding"). "none": the first horizon alone, for ever. Losses of the heads are added, or with `mean` their mean.

    `cell(key)` builds the recurrent layer with `size` outputs. Raises `ValueError` for another task or kind, for numbers
    below 1, for first horizons beyond the heads, and, at the start, for `learn_tau=False` with a cell that has no time constants.
    """

    seeds_by = "map"
    cell: Callable[[PRNGKeyArray], Recurrent]
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    size: int = eqx.field(static=True)
    task: str = eqx.field(static=True, default="parity")
    kind: Kind = eqx.field(static=True, default="multi")
    heads: int = eqx.field(static=True, default=100)
    first: int = eqx.field(static=True, default=2)
    window: int = eqx.field(static=True, default=10)
    new: int = eqx.field(static=True, default=5)
    batch: int = eqx.field(static=True, default=256)
    updates: int = eqx.field(static=True, default=600)
    exams: int = eqx.field(static=True, default=50)
    enough: float = eqx.field(static=True, default=0.98)
    mean: bool = eqx.field(static=True, default=False)
    learn_tau: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {self.task!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if min(self.heads, self.batch, self.updates, self.exams) < 1:
            raise ValueError(
                f"heads, batch, updates and exams must be at least 1, not {self.heads}, {self.batch}, {self.updates} and {self.exams}"
            )
        if self.kind == "sliding" and not 1 <= self.new <= self.window:
            raise ValueError(f"new must be from 1 to window ({self.window}), not {self.new}")
        largest = self.first + (self.window if self.kind == "sliding" else 1) - 1
        if self.first < 2 or largest > self.heads + 1:
            raise ValueError(
                f"horizons go from 2 to heads + 1 = {self.heads + 1}: the first ones cannot be {self.first} to {largest}"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """To which batches are padded: each half as long again as the last, up to the longest."""
        found, most = [12], 4 * (self.heads + 1) + 1
        while found[-1] < most:
            found.append(min(most, found[-1] * 3 // 2))
        return tuple(found)

    def init(self, key: PRNGKeyArray) -> State:
        one, two, own = jax.random.split(key, 3)
        network = Network(self.cell(one), self.size, self.heads, key=two)
        if not self.learn_tau and not isinstance(network.cell, LeakyRNN):
            raise ValueError(
                f"learn_tau=False is for a LeakyRNN: {type(network.cell).__name__} has no time constants"
            )
        count = self.window if self.kind == "sliding" else 1
        number = lambda n: jnp.asarray(n, jnp.int32)  # noqa: E731
        return State(
            network, self.optimiser.init(eqx.filter(network, eqx.is_inexact_array)), own, number(0), number(self.first),
            number(self.first + count - 1), jnp.full(self.heads, -1, jnp.int32), -jnp.ones(self.heads), jnp.float32(0),
        )  # fmt: skip

    def _asked(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The horizon of each head, and whether it is active."""
        place = jnp.arange(self.heads)
        if self.kind in ("single", "none"):
            return jnp.full(self.heads, high), place == 0
        return place + 2, (place + 2 >= low) & (place + 2 <= high)

    def _batch(self, network: Network, key: PRNGKeyArray, low: Array, high: Array, of: Callable[..., Any]) -> Any:  # fmt: skip
        """`of(logits, answers, active)` of a batch, padded to the next of `lengths`."""
        one, two, three = jax.random.split(key, 3)
        steps = draw_length(one, high)
        horizons, active = self._asked(low, high)

        def at(length: int) -> Callable[[Network], Any]:
            def run(network: Network) -> Any:
                bits = draw_bits(two, self.task, self.batch, length)
                right = answers(bits, self.task, jnp.minimum(horizons, length))
                return of(network, bits, steps, three, right, active)

            return run

        place = jnp.searchsorted(jnp.asarray(self.lengths), steps)
        return jax.lax.switch(place, [at(length) for length in self.lengths], network)

    def _slope(self, network: Network, bits: Any, steps: Any, key: Any, right: Any, active: Any) -> Any:  # fmt: skip
        def loss(network: Network) -> Array:
            losses = optax.softmax_cross_entropy_with_integer_labels(network(bits, steps, key), right)  # fmt: skip
            each = jnp.where(active, losses.mean(0), 0).sum()
            return each / active.sum() if self.mean else each

        return eqx.filter_value_and_grad(loss)(network)

    @staticmethod
    def _right(network: Network, bits: Any, steps: Any, key: Any, right: Any, active: Any) -> Array:
        return (network(bits, steps, key).argmax(-1) == right).mean(0)

    def step(self, state: State) -> State:
        low, high = state.low, state.high
        key = jax.random.fold_in(state.key, state.epoch)
        params, rest = eqx.partition(state.network, eqx.is_inexact_array)

        def update(carry: Any, key: PRNGKeyArray) -> Any:
            params, moments = carry
            loss, slopes = self._batch(eqx.combine(params, rest), key, low, high, self._slope)
            if not self.learn_tau:
                slopes = eqx.tree_at(lambda n: n.cell.tau, slopes, jnp.zeros_like(slopes.cell.tau))
            changes, moments = self.optimiser.update(slopes, moments, params)
            return (eqx.apply_updates(params, changes), moments), loss

        one, two = jax.random.split(key)
        (params, moments), losses = jax.lax.scan(update, (params, state.moments), jax.random.split(one, self.updates))  # fmt: skip
        network = eqx.combine(params, rest)
        exam = lambda _, key: (None, self._batch(network, key, low, high, self._right))  # noqa: E731
        accuracy = jax.lax.scan(exam, None, jax.random.split(two, self.exams))[1].mean(0)
        active = self._asked(low, high)[1]
        last = accuracy[0] if self.kind in ("single", "none") else accuracy[high - 2]
        passes = (jnp.where(active, accuracy, 0).sum() / active.sum() > self.enough) & (last > self.enough)  # fmt: skip
        passed = jnp.where(passes & (state.passed < 0) & (jnp.arange(self.heads) + 2 <= high) & (jnp.arange(self.heads) + 2 >= low), state.epoch + 1, state.passed)  # fmt: skip
        moves = {"single": (1, 1), "multi": (0, 1), "sliding": (self.new, self.new), "none": (0, 0)}[self.kind]  # fmt: skip
        on = passes & (high + moves[1] <= self.heads + 1)
        return State(
            network, moments, state.key, state.epoch + 1, jnp.where(on, low + moves[0], low), jnp.where(on, high + moves[1], high),
            passed, jnp.where(active, accuracy, -1), losses.mean(),
        )  # fmt: skip

    def observe(self, state: State) -> dict[str, Array]:
        reached = jnp.where(state.passed >= 0, jnp.arange(self.heads) + 2, 0).max()
        found = {"reached": reached, "passed": state.passed, "accuracy": jnp.where(state.accuracy < 0, jnp.nan, state.accuracy), "loss": state.loss}  # fmt: skip
        if isinstance(state.network.cell, LeakyRNN):
            tau = state.network.cell.time_constants
            found |= {"tau": tau.mean(), "tau_spread": tau.std(), "tau_least": (tau <= 1).mean()}
        return found

    def quantities(self) -> dict[str, Quantity]:
        heads = {"head": list(range(self.heads))}
        return {
            "passed": Quantity("epoch", ("head",), heads),
            "accuracy": Quantity("1", ("head",), heads, gaps=True),
            "tau": Quantity("step"),
            "tau_spread": Quantity("step"),
        }


def sgd(
    rate: float = 0.05, momentum: float = 0.1, clip: float = 2.0
) -> optax.GradientTransformation:
    """The paper's optimiser: Nesterov's, gradients clipped to a norm."""
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.sgd(rate, momentum=momentum, nesterov=True)
    )
