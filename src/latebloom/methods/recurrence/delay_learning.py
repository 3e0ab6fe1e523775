"""Learning of delays: of classes, and of a teacher's delays from its spikes.

Hammouamri, Khalfaoui-Hassani and Masquelier (ICLR 2024, arXiv 2306.17670). Networks are `spiking.SpikingDelays`, or
any Equinox model that is called as `model(x, sigma, key=..., train=...)` on [batch, time, channels].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from latebloom.core.dataset import check_labels
from latebloom.core.process import Process, Quantity
from latebloom.core.training import accuracy, batch_rows, gradients, step_key, trainable, update
from latebloom.methods.recurrence.spiking import (
    clipped,
    delay_rule,
    delays_of,
    every_delays,
    sigma_at,
    vote_loss,
    votes,
    whole,
)
from latebloom.nn.delays import Delays, delay_kernel, delayed
from latebloom.nn.recurrent import LIF


class Sequences(NamedTuple):
    """Labelled sequences to train on, and `exams` by name, each (x, y)."""

    x: Shaped[Array, "train time channels"]
    y: Int[Array, " train"]
    exams: Mapping[str, tuple[Array, Array]]


class State(NamedTuple):
    model: Any
    first: Any  # delays as they were at first
    moments: Any
    data: Sequences | None
    key: PRNGKeyArray
    step: Int[Array, ""]


class DelayLearner(Process):
    """A network with delays learns classes of sequences; one step is one update.

    - `network(key)`; `data`: `Sequences`, or a function of a key that draws them for each seed. There is an exam "valid"
      to choose by, and one "test".
    - `hyper`: `rate`, the peak of the weights' rate; `delay_rate`, that of delays in steps an update, 0 to leave them
      as they are; `sigma`, the deviation of taps in the first epoch.
    - `annealed`: sigma falls to 0.23 over the first quarter of `epochs`, or stays. `finish`: the share of epochs, the last
      ones, in which delays are whole and held and weights alone learn, with taps of one step (the network is given a
      sigma of -1, which `Delays` take so). `fixed`: delays are whole from the
      start, each tap is one step wide in training, too, and none is learned.
    - `show`: the input and the spikes of the first hidden layer for the first test example are recorded.

    Exams are taken with whole delays and taps of one step, which is what is built ("accuracy"), and as in training
    ("accuracy_real"); "accuracy_rounded" has whole delays, and taps as wide as in training.

    Raises `ValueError` for a batch that the data cannot fill, for a missing exam "test" or rate, for inputs and labels of
    another number, and, of data that seeds share, for inputs that are not finite and labels that are not class indices.
    """

    network: Callable[[PRNGKeyArray], Any]
    data: Sequences | Callable[[PRNGKeyArray], Sequences]
    hyper: Mapping[str, Any]
    epochs: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    count: int = eqx.field(static=True)
    annealed: bool = eqx.field(static=True)
    fixed: bool = eqx.field(static=True)
    show: bool = eqx.field(static=True)
    finish: float = eqx.field(static=True)
    seeds_by: Literal["vmap", "map"] = eqx.field(static=True)  # pyright: ignore

    def __init__(
        self, *, network: Callable[[PRNGKeyArray], Any], data: Sequences | Callable[[PRNGKeyArray], Sequences],
        hyper: Mapping[str, Any], epochs: int, batch: int = 64, annealed: bool = True, fixed: bool = False,
        show: bool = False, finish: float = 0.0, seeds_by: Literal["vmap", "map"] = "vmap",
    ):  # fmt: skip
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}")
        if not 0 <= finish < 1:
            raise ValueError(
                f"finish must be a share of the epochs, from 0 to below 1, not {finish}"
            )
        if missing := {"rate", "delay_rate", "sigma"} - set(hyper):
            raise ValueError(f"hyper must have {', '.join(sorted(missing))}")
        if not (isinstance(data, Sequences) or callable(data)):
            raise TypeError(f"data must be Sequences, or a function of a key that draws them, not {type(data).__name__}")  # fmt: skip
        if isinstance(data, Sequences):
            data = _checked(data, network)
        drawn = data if isinstance(data, Sequences) else jax.eval_shape(data, jax.random.key(0))
        if "test" not in drawn.exams:
            raise ValueError(
                f'there must be an exam "test", not {", ".join(drawn.exams) or "none"}'
            )
        if not 1 <= batch <= len(drawn.y):
            raise ValueError(f"batch must be from 1 to the {len(drawn.y)} training sequences, not {batch}")  # fmt: skip
        self.network, self.data = network, data
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.epochs, self.batch, self.count = epochs, batch, len(drawn.y)
        self.annealed, self.fixed, self.show, self.seeds_by = annealed, fixed, show, seeds_by
        self.finish = finish

    @property
    def an_epoch(self) -> int:
        return self.count // self.batch

    def sigma(self, step: Int[Array, ""]) -> Float[Array, ""] | None:
        """Of a step's taps; None where they are of one step in all of training, -1 in its last part."""
        if self.fixed:
            return None
        epoch, sigma = step // self.an_epoch, self.hyper["sigma"]
        if self.annealed:
            sigma = sigma_at(epoch, self.epochs, sigma)
        return jnp.where(step >= self._finishing, -1.0, sigma) if self.finish else sigma

    @property
    def _finishing(self) -> int:
        """The update from which on delays are whole."""
        return self.an_epoch * (self.epochs - round(self.finish * self.epochs))

    def turns(self) -> tuple[int, ...]:
        return (self._finishing,) if self.finish and not self.fixed else ()

    def turn(self, state: State) -> State:
        return state._replace(model=whole(state.model))

    def rule(self) -> optax.GradientTransformation:
        delay_rate = jnp.zeros(()) if self.fixed else self.hyper["delay_rate"]
        return delay_rule(self.epochs, self.an_epoch, rate=self.hyper["rate"], delay_rate=delay_rate)  # fmt: skip

    def init(self, key: PRNGKeyArray) -> State:
        model_key, data_key, key = jax.random.split(key, 3)
        model = self.network(model_key)
        model = whole(model) if self.fixed else model
        data = None if isinstance(self.data, Sequences) else self.data(data_key)
        first = [layer.delay for layer in delays_of(model)]
        return State(model, first, self.rule().init(trainable(model)), data, key, jnp.int32(0))

    def sequences(self, state: State) -> Sequences:
        return self.data if isinstance(self.data, Sequences) else state.data  # pyright: ignore

    def step(self, state: State) -> State:
        data = self.sequences(state)
        rows = batch_rows(state.key, state.step, self.count, self.batch)
        x, y, sigma = data.x[rows], data.y[rows], self.sigma(state.step)
        key = step_key(state.key, state.step)

        def objective(model: Any) -> Array:
            return vote_loss(model(x, sigma, key=key, train=True), y).mean()

        slopes, seen = gradients(objective, state.model)
        held = (lambda c: c) if not self.finish else partial(_held, state.step >= self._finishing)
        model, moments = update(self.rule(), slopes, state.moments, state.model, seen, held)
        return state._replace(model=clipped(model), moments=moments, step=state.step + 1)

    def observe(self, state: State) -> dict[str, Array]:
        data, sigma = self.sequences(state), self.sigma(state.step)
        built = whole(state.model)
        said = {name: (built(x, None), built(x, sigma), state.model(x, sigma), y) for name, (x, y) in sorted(data.exams.items())}  # fmt: skip
        found = {
            "accuracy": jnp.stack([accuracy(votes(v), y) for v, *_, y in said.values()]),
            "accuracy_rounded": jnp.stack([accuracy(votes(v), y) for _, v, _, y in said.values()]),
            "accuracy_real": jnp.stack([accuracy(votes(v), y) for *_, v, y in said.values()]),
            "loss": jnp.stack([vote_loss(v, y).mean() for v, *_, y in said.values()]),
            "sigma": jnp.float32(jnp.nan) if sigma is None else sigma,
        }
        layers = delays_of(state.model)
        if layers:
            at = jnp.arange(max(layer.taps for layer in layers))
            moved = [jnp.abs(d.delay - was).mean() for d, was in zip(layers, state.first, strict=True)]  # fmt: skip
            share = [(jnp.round(d.delay)[..., None] == at).mean((0, 1)) for d in layers]
            found |= {"moved": jnp.stack(moved), "delays": jnp.stack(share)}
        if hasattr(built, "spikes"):
            x = data.exams["test"][0]
            fired, _ = built.spikes(x, None)
            found["rate"] = jnp.stack([f.mean() for f in fired])
            found["events"] = sum((f.sum((1, 2)).mean() for f in fired), jnp.float32(0))
            if self.show:
                found |= {"raster_input": x[0].astype(jnp.float32), "raster": fired[0][0]}
        return found

    def quantities(self) -> dict[str, Quantity]:
        if isinstance(self.data, Sequences):
            exams = tuple(sorted(self.data.exams))
        else:
            exams = tuple(sorted(jax.eval_shape(self.data, jax.random.key(0)).exams))
        of: dict[str, Any] = {"dims": ("exam",), "coords": {"exam": exams}}
        return {
            "accuracy": Quantity(about="accuracy with whole delays", **of),
            "accuracy_rounded": Quantity(about="accuracy with whole delays and taps as in training", **of),
            "accuracy_real": Quantity(about="accuracy as in training", **of),
            "loss": Quantity("nats", about="loss with whole delays", **of),
            "sigma": Quantity("steps", about="deviation of taps", gaps=True),
            "moved": Quantity("steps", ("layer",), about="mean distance of delays from their start"),
            "delays": Quantity(dims=("layer", "delay"), about="share of connections with a delay"),
            "rate": Quantity("a step", ("hidden",), about="spikes of a neuron"),
            "events": Quantity("an example", about="spikes of hidden neurons"),
            "raster_input": Quantity(dims=("time", "channel"), about="spikes of the first test example"),
            "raster": Quantity(dims=("later", "neuron"), about="spikes of the first hidden layer for it"),
        }  # fmt: skip


def _held(now: Bool[Array, ""], changes: Any) -> Any:
    """The changes without those of delays, where `now`."""

    def still(layer: Delays) -> Delays:
        if not eqx.is_array(layer.delay):
            return layer
        return eqx.tree_at(lambda d: d.delay, layer, jnp.where(now, 0.0, layer.delay).astype(layer.delay.dtype))  # fmt: skip

    return every_delays(changes, still)


def _checked(data: Sequences, network: Callable[[PRNGKeyArray], Any]) -> Sequences:
    """The same as arrays, of which network and loss can make what they are to."""
    parts = {"the training sequences": (data.x, data.y)} | {f"exam {name}": pair for name, pair in data.exams.items()}  # fmt: skip
    made = {}
    for name, (x, y) in parts.items():
        x, y = (v if isinstance(v, jax.Array) else np.asarray(v) for v in (x, y))
        if jnp.ndim(x) != 3 or x.dtype.kind not in "biufV":  # V: bfloat16
            raise ValueError(f"inputs of {name} must be numbers, [examples, time, channels], not {x.dtype} {list(x.shape)}")  # fmt: skip
        if not len(x) or len(x) != len(y):
            raise ValueError(f"{name}: {len(x)} inputs and {len(y)} labels, they must be the same number, at least 1")  # fmt: skip
        if jnp.issubdtype(x.dtype, jnp.floating) and not bool(jnp.isfinite(x).all()):
            raise ValueError(f"inputs of {name} must be finite")
        made[name] = (x, y)
    x = made["the training sequences"][0]
    out = eqx.filter_eval_shape(lambda k: network(k)(jnp.asarray(x[:1]), 1.0), jax.random.key(0))
    if len(out.shape) != 3:
        raise ValueError(f"a network must give [batch, steps, classes], not {list(out.shape)}")
    for name, (_, y) in made.items():
        check_labels(y, out.shape[2], f"labels of {name}")
    first, *exams = ((jnp.asarray(x), jnp.asarray(y)) for x, y in made.values())
    return Sequences(*first, dict(zip(data.exams, exams, strict=True)))


class Found(NamedTuple):
    model: Delays
    teacher: Delays
    first: Float[Array, "inputs outputs"]
    moments: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class TeacherRecovery(Process):
    """Connections with known delays, and a student that sees what their neurons do: are the delays found again?

    A teacher has `inputs` x `outputs` connections with whole delays up to `taps` - 1 and weights from 0.5 to 1.5 of
    either sign, over sqrt(inputs x `activity`); its inputs fire at random, `activity` times a step. Each update sees
    `batch` new sequences of `steps` steps. The student is told the potentials ("membrane"), or the spikes alone, which
    it compares after a decay of `tau` steps ("spikes": van Rossum 2001).

    - `hyper`: `rate` and `delay_rate` of two Adams, both falling along a cosine over `updates`, and `sigma`, that at first.
    - `annealed`: sigma falls to 0.23 over the first half, or stays.

    `found`: the share of strong connections (the heavier half) whose delay is right within one step; `chance`: what
    it was before learning. `signs`: how many of these weights have their sign.
    """

    hyper: Mapping[str, Any]
    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    taps: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    updates: int = eqx.field(static=True)
    seen: Literal["membrane", "spikes"] = eqx.field(static=True)
    annealed: bool = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    activity: float = eqx.field(static=True)

    def __init__(
        self, *, hyper: Mapping[str, Any], updates: int, inputs: int = 12, outputs: int = 8, taps: int = 25,
        steps: int = 80, batch: int = 32, seen: Literal["membrane", "spikes"] = "membrane", annealed: bool = True,
        tau: float = 3.0, activity: float = 0.1,
    ):  # fmt: skip
        if seen not in ("membrane", "spikes"):
            raise ValueError(f'seen must be "membrane" or "spikes", not {seen!r}')
        if updates < 1:
            raise ValueError(f"updates must be at least 1, not {updates}")
        self.hyper = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
        self.inputs, self.outputs, self.taps, self.steps = inputs, outputs, taps, steps
        self.batch, self.updates, self.seen, self.annealed = batch, updates, seen, annealed
        self.tau, self.activity = tau, activity

    def sigma(self, step: Int[Array, ""]) -> Float[Array, ""]:
        if not self.annealed:
            return self.hyper["sigma"]
        return sigma_at(step, self.updates, self.hyper["sigma"], until=0.5)

    def rule(self) -> optax.GradientTransformation:
        falling = lambda name: optax.cosine_decay_schedule(self.hyper[name], self.updates)  # noqa: E731
        rules: dict[Any, Any] = {"weight": optax.adam(falling("rate")), "delay": optax.adam(falling("delay_rate"))}  # fmt: skip
        return optax.partition(rules, lambda p: eqx.tree_at(lambda d: (d.weight, d.delay), p, ("weight", "delay")))  # fmt: skip

    def init(self, key: PRNGKeyArray) -> Found:
        one, two, three, four, key = jax.random.split(key, 5)
        teacher = whole(Delays(self.inputs, self.outputs, self.taps, key=one))
        scale = 1 / float(self.inputs * self.activity) ** 0.5
        size = (self.inputs, self.outputs)
        strength = jax.random.uniform(two, size, jnp.float32, 0.5, 1.5)
        weight = scale * strength * jax.random.rademacher(three, size, jnp.float32)
        teacher = eqx.tree_at(lambda d: d.weight, teacher, weight)
        model = Delays(self.inputs, self.outputs, self.taps, key=four)
        model = eqx.tree_at(lambda d: d.weight, model, 0.1 * scale * jnp.sign(model.weight))
        return Found(model, teacher, model.delay, self.rule().init(trainable(model)), key, jnp.int32(0))  # fmt: skip

    def told(self, layer: Delays, x: Array, sigma: Float[Array, ""] | None) -> Array:
        """Of inputs [batch, steps, inputs], what is compared: potentials, or decaying spikes."""
        neuron = LIF(self.tau, threshold=1.0 if self.seen == "spikes" else None, alpha=5.0)
        kernel = delay_kernel(layer.weight, layer.delay, self.taps, sigma)
        _, out = neuron(delayed(x, kernel, self.taps - 1))
        return LIF(self.tau, threshold=None)(out)[1] if self.seen == "spikes" else out

    def step(self, state: Found) -> Found:
        key = step_key(state.key, state.step)
        size = (self.batch, self.steps, self.inputs)
        x = jax.random.bernoulli(key, self.activity, size).astype(jnp.float32)
        target = self.told(state.teacher, x, None)

        def objective(model: Delays) -> Array:
            return jnp.square(self.told(model, x, self.sigma(state.step)) - target).mean()

        slopes, _ = gradients(objective, state.model)
        model, moments = update(self.rule(), slopes, state.moments, state.model)
        return state._replace(model=model.clipped(), moments=moments, step=state.step + 1)

    def observe(self, state: Found) -> dict[str, Array]:
        strong = jnp.abs(state.teacher.weight) >= jnp.median(jnp.abs(state.teacher.weight))
        share = lambda right: jnp.mean(right, where=strong, dtype=jnp.float32)  # noqa: E731
        near = lambda delay: jnp.abs(jnp.round(delay) - state.teacher.delay) <= 1  # noqa: E731
        size = (self.batch, self.steps, self.inputs)
        x = jax.random.bernoulli(jax.random.fold_in(state.key, 7), self.activity, size)
        x = x.astype(jnp.float32)
        target = self.told(state.teacher, x, None)
        off = jnp.square(self.told(state.model, x, None) - target).mean()
        return {
            "found": share(near(state.model.delay)),
            "chance": share(near(state.first)),
            "signs": share(jnp.sign(state.model.weight) == jnp.sign(state.teacher.weight)),
            "error": off / jnp.square(target - target.mean((0, 1))).mean(),
            "learned_delay": state.model.delay.ravel(),
            "true_delay": state.teacher.delay.ravel(),
            "strength": jnp.abs(state.teacher.weight).ravel(),
        }

    def quantities(self) -> dict[str, Quantity]:
        of = {"dims": ("connection",)}
        return {
            "found": Quantity(about="strong connections with the right delay, within a step"),
            "chance": Quantity(about="the same before learning"),
            "signs": Quantity(about="strong connections with the right sign"),
            "error": Quantity(about="squared error with whole delays / variance"),
            "learned_delay": Quantity("steps", about="delay of the student", **of),  # pyright: ignore
            "true_delay": Quantity("steps", about="delay of the teacher", **of),  # pyright: ignore
            "strength": Quantity(about="|weight| of the teacher", **of),  # pyright: ignore
        }
