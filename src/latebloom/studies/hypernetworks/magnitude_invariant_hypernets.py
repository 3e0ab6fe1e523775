"""Magnitude invariant parametrisations improve hypernetwork learning.

Gonzalez Ortiz, Guttag, Dalca (ICLR 2024, arXiv 2304.07645).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.process import Process, Quantity
from latebloom.data import load_table
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.hypernetworks.conditional_tasks import ShiftingCosts, Waves
from latebloom.methods.hypernetworks.conditional_training import (
    ConditionalTraining,
    SeparateNetworks,
)
from latebloom.methods.hypernetworks.registration import Registration, UNet, blob_pairs
from latebloom.nn import MLP, Conv, Hypernetwork, Linear

Model = Literal[
    "standard", "invariant", "encoding", "residual", "hyperfan", "split", "scaled", "biases",
    "separate",
]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "standard": {"encoding": "none", "residual": False, "start": "fan_in"},
    "invariant": {},
    "encoding": {"residual": False, "start": "fan_in"},
    "residual": {"encoding": "none"},
    "hyperfan": {"encoding": "none", "residual": False, "start": "hyperfan_in"},
    "split": {"encoding": "none", "residual": False},
    "scaled": {"encoding": "none", "residual": False, "start": "fan_in", "output_scale": 0.1},
    "biases": {},
}


@dataclass(frozen=True)
class Config:
    """A model trained on a task, or ("start") looked at before training.

    - `model`: "invariant" is the paper's, "encoding" and "residual" are its halves, "hyperfan",
      "split" and "scaled" are standard but for the start of the last layer, "biases" predicts the
      biases alone, "separate" trains one network for each setting of the exam.
    - `settings`: how many; `draws`: vectors of them in a step.
    - `width`: of the primary network. `hidden`: layers of the hypernetwork.
    - `rates`: how many of the learning rates are tried, the middle ones.
    - `rows`, `pixels`: pairs of images and their size, for registration.
    """

    task: Literal["waves", "costs", "registration", "start"] = "waves"
    model: Model = "invariant"
    optimiser: Literal["adam", "sgd"] = "adam"
    activation: str = "leaky_relu"
    norm: str = "none"
    settings: int = 1
    hidden: tuple[int, ...] = (16, 32, 64)
    width: int = 16
    draws: int = 2
    size: int = 32
    rates: int = 5
    rows: int = 200
    pixels: int = 64
    steps: int = 2000
    observations: int = 20
    points: int = 11


RATES = {
    "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "sgd": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
}


def make_process(config: Config) -> Process:
    build = partial(make_model, config)
    points = np.linspace(0, 1, config.points)
    if config.task == "start":
        sizes = jnp.asarray(np.geomspace(0.02, 1, config.points), jnp.float32)
        return Start(build, sizes)
    rng = np.random.default_rng(0)
    grid = np.concatenate(
        [points[:, None], rng.uniform(size=(config.points, config.settings - 1))], 1
    )
    grid = jnp.asarray(grid, jnp.float32)
    if config.model == "separate":
        draw: Callable[..., Array] = lambda key: grid  # noqa: E731
        build = partial(SeparateNetworks, partial(make_primary, config), grid)
        build = partial(_keyed, build)
    else:
        draw = partial(_uniform, config.draws, config.settings)
    cut = (len(RATES[config.optimiser]) - config.rates) // 2
    rates = RATES[config.optimiser][cut : cut + config.rates]
    by = "vmap" if config.task == "waves" else "map"
    adam = jnp.asarray(config.optimiser == "adam")
    return ConditionalTraining(make_task(config), build, draw, Either(adam), rates, grid, by)


def _keyed(build: Callable[..., Any], key: PRNGKeyArray) -> Any:
    return build(key=key)


def _uniform(draws: int, settings: int, key: PRNGKeyArray) -> Array:
    return jax.random.uniform(key, (draws, settings))


class Either(eqx.Module):
    """Adam, or gradient descent with momentum 0.9, in one program."""

    adam: Array

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        both = optax.adam(rate), optax.sgd(rate, 0.9)

        def init(params: Any) -> Any:
            return tuple(each.init(params) for each in both)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            (adam, first), (plain, second) = (
                each.update(updates, s, params) for each, s in zip(both, state, strict=True)
            )
            pick = lambda a, b: jnp.where(self.adam, a, b)  # noqa: E731
            return jax.tree.map(pick, adam, plain), (first, second)

        return optax.GradientTransformation(init, update)


class ConvNet(eqx.Module):
    """Three convolutions, the mean over the image, an affine map: [b, h, w, 1] -> [b, 10]."""

    layers: tuple[Conv, ...]
    readout: Linear

    def __init__(self, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        channels = (1, width // 2, width, 2 * width)
        self.layers = tuple(
            Conv(channels[i], channels[i + 1], 3, stride=1 if i == 0 else 2, key=keys[i])
            for i in range(3)
        )
        self.readout = Linear(2 * width, 10, key=keys[3])

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x))
        return self.readout(x.mean((1, 2)))


def make_primary(config: Config, key: PRNGKeyArray) -> Any:
    if config.task == "costs":
        return ConvNet(config.width, key=key)
    if config.task == "registration":
        return UNet(config.width, key=key)
    if config.task == "start":
        return MLP(8, (32, 32, 32), 1, key=key, activation="leaky_relu", use_bias=False)
    return MLP(1, (config.width, config.width), 1, key=key, activation="tanh")


def make_model(config: Config, key: PRNGKeyArray) -> Hypernetwork:
    primary_key, key = jax.random.split(key)
    primary = make_primary(config, primary_key)
    more: dict[str, Any] = {}
    if config.model == "biases":
        more["predicted"] = jax.tree.map(lambda x: eqx.is_array(x) and x.ndim == 1, primary)
    return Hypernetwork(
        primary, config.settings, config.hidden, key=key, activation=config.activation,
        norm=config.norm, **OPTIONS[config.model], **more,
    )  # fmt: skip


def make_task(config: Config) -> Any:
    if config.task == "waves":
        return Waves(config.size)
    if config.task == "costs":
        x, y = digits()
        return ShiftingCosts(x[:1400], y[:1400], x[1400:], y[1400:], config.size)
    (pairs, _), (exam, labels) = registration_pairs(config.rows, config.pixels)
    return Registration(pairs, exam, labels, config.size)


@cache
def digits() -> tuple[Array, Array]:
    table = load_table("digits-8x8")
    order = np.random.default_rng(0).permutation(len(table.x))
    x = table.x.reshape(-1, 8, 8, 1)[order] / 16
    return jnp.asarray(x, jnp.float32), jnp.asarray(table.y[order], jnp.int32)


@cache
def registration_pairs(rows: int, pixels: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    images, labels = map(jnp.asarray, blob_pairs(rows, pixels, 0))
    cut = rows - rows // 5
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


class Start(Process):
    """A hypernetwork before training, as the size of its settings grows; a step changes nothing.

    Observed: `spread` [size], standard deviation of the predicted weights; `activation` [size,
    layer], root mean square before each activation of the primary; `gradient` [size], norm of the
    gradient of the squared output.
    """

    model: Callable[[PRNGKeyArray], Hypernetwork]
    sizes: Array

    def init(self, key: PRNGKeyArray) -> tuple[Hypernetwork, Array]:
        model_key, input_key = jax.random.split(key)
        return self.model(model_key), jax.random.normal(input_key, (64, 8))

    def step(self, state: tuple[Hypernetwork, Array]) -> tuple[Hypernetwork, Array]:
        return state

    def observe(self, state: tuple[Hypernetwork, Array]) -> dict[str, Array]:
        model, x = state
        params, rest = eqx.partition(model, eqx.is_inexact_array)

        def at(size: Array) -> tuple[Array, Array, Array]:
            weights = model.weights(size[None, None])
            flat = jnp.concatenate([w.ravel() for w in jax.tree.leaves(weights)])
            seen = model.primary(size[None]).preactivations(x)

            def loss(params: Any) -> Array:
                return jnp.square(eqx.combine(params, rest).primary(size[None])(x) - 1).mean()

            norm = optax.tree.norm(jax.grad(loss)(params))
            return flat.std(), jnp.stack([jnp.sqrt(jnp.square(s).mean()) for s in seen]), norm

        spread, activation, gradient = jax.lax.map(at, self.sizes)
        return {"spread": spread, "activation": activation, "gradient": gradient}

    def quantities(self) -> dict[str, Quantity]:
        sizes = {"size": np.asarray(self.sizes).tolist()}
        return {
            "spread": Quantity("1", ("size",), sizes, "std of predicted weights"),
            "activation": Quantity("1", ("size", "layer"), sizes, "rms pre-activation"),
            "gradient": Quantity("1", ("size",), sizes, "norm of the gradient"),
        }


def schedule(config: Config) -> np.ndarray:
    if config.task == "start":
        return np.array([0, 1])
    return np.unique(np.linspace(0, config.steps, config.observations + 1).astype(int))


OPTIMISERS = ("adam", "sgd")
TASKS = ("waves", "costs", "registration")
MODELS = {
    "waves": (*OPTIONS, "separate"),
    "costs": ("standard", "invariant", "encoding", "residual", "hyperfan", "separate"),
    "registration": ("standard", "invariant", "encoding", "residual", "hyperfan"),
}
BASE: dict[str, Config] = {
    "waves": Config(),
    "costs": Config("costs", hidden=(16, 32, 32), draws=1, size=64),
    "registration": Config("registration", hidden=(16, 32, 32), width=8, draws=1, size=4),
}
CELLS: dict[str, dict[str, Any]] = {
    f"{a}/{n}/{d}/{len(h)}": {"activation": a, "norm": n, "settings": d, "hidden": h}
    for a in ("leaky_relu", "relu", "gelu", "tanh")
    for n in ("none", "layer", "batch")
    for d in (1, 4, 16)
    for h in ((16, 32, 64), (64,))
}
PLAIN = "leaky_relu/none/1/3"
QUICK_CELLS = (PLAIN, "gelu/none/1/3", "leaky_relu/layer/1/3", "leaky_relu/none/1/1")
ACTIVATIONS = ("leaky_relu", "relu", "gelu", "tanh")


def _name(task: str, optimiser: str, model: str) -> str:
    return f"{task}/{optimiser}/{model}"


def _cell(cell: str, model: str) -> str:
    return _name("waves", "adam", model) if cell == PLAIN else f"cell/{cell}/{model}"


def _arms() -> dict[str, Config]:
    arms = {
        _name(task, optimiser, model): replace(BASE[task], model=model, optimiser=optimiser)
        for task in TASKS for optimiser in OPTIMISERS for model in MODELS[task]
    }  # fmt: skip
    for cell, options in CELLS.items():
        for model in ("standard", "invariant"):
            arms[_cell(cell, model)] = Config(
                model=model, **{**options, "draws": 8 if "batch" in cell else 2}
            )
    for activation in ACTIVATIONS:
        for model in ("standard", "invariant"):
            arms[f"start/{activation}/{model}"] = Config(
                "start", model, activation=activation, hidden=(16, 64, 128)
            )
    return arms


ARMS = _arms()
FLOOR = 1e-4
CONSTANT = {"waves": 0.5, "costs": float(np.log(10))}  # loss of a predictor that looks at nothing


def area(trace: xr.Dataset) -> np.ndarray:
    """Mean over training of log(validation loss), [seed, rate]; the start does not count, a run
    that broke down counts with the worst loss of the trace at the start."""
    loss = trace.loss.values
    worst = np.nanmax(loss[:, 0])
    return np.log(np.where(np.isfinite(loss), np.minimum(loss, worst), worst) + FLOOR)[:, 1:].mean(
        1
    )


def tuned(values: np.ndarray) -> np.ndarray:
    """Which rate each seed uses: the best one on the other seeds, [seed]."""
    total = values.sum(0)
    others = (total - values) / max(len(values) - 1, 1)
    return others.argmin(1)


def at_tuned(trace: xr.Dataset) -> np.ndarray:
    """The area at the rate that the other seeds chose, per seed."""
    values = area(trace)
    return values[np.arange(len(values)), tuned(values)]


def faster(task: str, optimiser: str, model: str = "invariant", than: str = "standard") -> Any:
    def effect(traces: Traces) -> np.ndarray:
        new, old = (traces[_name(task, optimiser, m)] for m in (model, than))
        return at_tuned(new) - at_tuned(old)

    return effect


def steps_needed(task: str, optimiser: str) -> Any:
    """Share of the steps after which the invariant one is where the standard one ends."""

    def effect(traces: Traces) -> np.ndarray:
        new, old = (traces[_name(task, optimiser, m)] for m in ("invariant", "standard"))
        shares = []
        for seed, (a, b) in enumerate(zip(tuned(area(new)), tuned(area(old)), strict=True)):
            goal, curve = old.loss.values[seed, -1, b], new.loss.values[seed, :, a]
            reached = np.flatnonzero(curve <= goal)
            shares.append(
                new.step.values[reached[0]] / new.step.values[-1] if len(reached) else 1.0
            )
        return np.array(shares)

    return effect


def failed(trace: xr.Dataset, loss: float) -> np.ndarray:
    """Whether a run ends at that loss or above it, [seed, rate]."""
    last = trace.loss.values[:, -1]
    return ~np.isfinite(last) | (last >= loss)


def more_failures(task: str, optimiser: str, share: float = 1.0) -> Any:
    """Failures of the standard one less those of the invariant one, over the rates up to three
    times the standard one's best. To fail is to end at `share` of a constant predictor's loss."""

    def effect(traces: Traces) -> np.ndarray:
        old, new = (traces[_name(task, optimiser, m)] for m in ("standard", "invariant"))
        best = float(old.rate[int(area(old).mean(0).argmin())])
        tried = old.rate.values <= 3.5 * best
        worst = share * CONSTANT[task]
        gap = failed(old, worst).astype(float) - failed(new, worst)
        return gap[:, tried].mean(1)

    return effect


def exponent(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Slope of log(value) on log(size), per seed."""
    return np.polyfit(np.log(sizes), np.log(values).T, 1)[0]


def spread_exponent(trace: xr.Dataset) -> np.ndarray:
    return exponent(trace.spread.values[:, 0], trace["size"].values)


def off(activation: str, model: str, expected: float) -> Any:
    def effect(traces: Traces) -> np.ndarray:
        return np.abs(spread_exponent(traces[f"start/{activation}/{model}"]) - expected)

    return effect


def tanh_below(traces: Traces) -> np.ndarray:
    return spread_exponent(traces["start/tanh/standard"]) - spread_exponent(
        traces["start/leaky_relu/standard"]
    )


def third_layer(traces: Traces) -> np.ndarray:
    trace = traces["start/leaky_relu/standard"]
    return np.abs(exponent(trace.activation.values[:, 0, :, 2], trace["size"].values) - 3)


def steadier(traces: Traces) -> np.ndarray:
    """Coefficient of variation of gradient norms over settings: invariant less standard."""
    found = [
        traces[f"start/leaky_relu/{m}"].gradient.values[:, 0] for m in ("invariant", "standard")
    ]
    new, old = (g.std(1) / g.mean(1) for g in found)
    return new - old


def better_cells(cells: Sequence[str]) -> Any:
    def effect(traces: Traces) -> np.ndarray:
        gaps = [at_tuned(traces[_cell(c, "invariant")]) - at_tuned(traces[_cell(c, "standard")])
                for c in cells if _cell(c, "invariant") in traces]  # fmt: skip
        return (np.stack(gaps) < 0).mean(0)

    return effect


def against_best_start(traces: Traces) -> np.ndarray:
    rivals = np.stack([at_tuned(traces[_name("waves", "adam", m)]) for m in ("standard", "hyperfan", "split", "scaled")])  # fmt: skip
    best = rivals.mean(1).argmin()
    return at_tuned(traces["waves/adam/invariant"]) - rivals[best]


def behind_separate(traces: Traces) -> np.ndarray:
    """Log of final losses at the tuned rates, invariant less separate networks."""
    ends = []
    for model in ("invariant", "separate"):
        trace = traces[_name("waves", "adam", model)]
        pick = tuned(area(trace))
        ends.append(np.log(trace.loss.values[np.arange(len(pick)), -1, pick] + FLOOR))
    return ends[0] - ends[1]


def _pair(task: str, optimiser: str) -> tuple[str, ...]:
    return tuple(_name(task, optimiser, m) for m in ("standard", "invariant"))


PROPORTIONAL, FASTER = "predicted weights scale with the input", "more stable, faster convergence"
WORDS = {"waves": "waves", "costs": "digits with shifting costs", "registration": "registration",
         "adam": "Adam", "sgd": "momentum"}  # fmt: skip
AREA, SHARE = "log loss, mean over training", "share of the steps"
CLAIMS = (
    *(Claim(f"C1.{a}", f"With {a} units the standard weights grow in proportion to the settings "
            "(|exponent - 1|)", PROPORTIONAL, (f"start/{a}/standard",), off(a, "standard", 1),
            "< 0.1", "exponent") for a in ("leaky_relu", "relu")),
    Claim("C1.tanh", "With tanh the exponent is lower", "piecewise linear units",
          ("start/tanh/standard", "start/leaky_relu/standard"), tanh_below, "< 0", "exponent"),
    Claim("C1.layers", "The third layer of the primary grows with the third power (|exponent - 3|)",
          PROPORTIONAL, ("start/leaky_relu/standard",), third_layer, "< 0.3", "exponent"),
    Claim("C1.invariant", "The invariant weights do not grow (|exponent|)", "constant magnitude",
          ("start/leaky_relu/invariant",), off("leaky_relu", "invariant", 0), "< 0.05", "exponent"),
    Claim("C1.gradient", "Gradient norms vary less over settings", "more stable gradients",
          ("start/leaky_relu/invariant", "start/leaky_relu/standard"), steadier, "< 0",
          "coefficient of variation"),
    *(Claim(f"C2.{t}.{o}", f"It learns faster than the standard one: {WORDS[t]}, {WORDS[o]}", FASTER,
            _pair(t, o), faster(t, o), "< 0", AREA) for t in TASKS for o in OPTIMISERS),
    *(Claim(f"C2.{t}.{o}.steps", "It is where the standard one ends after less than 0.8 of the "
            f"steps: {WORDS[t]}, {WORDS[o]}", FASTER, _pair(t, o), steps_needed(t, o), "< 0.8", SHARE)
      for t in TASKS for o in OPTIMISERS),
    Claim("C2.starts", "It learns faster than the best standard one with another start (hyperfan-in, "
          "by tensor, scaled): waves, Adam", "not compared",
          tuple(_name("waves", "adam", m) for m in ("invariant", "standard", "hyperfan", "split", "scaled")),
          against_best_start, "< 0", AREA),
    *(Claim(f"A.{half}.{t}", f"Both halves together beat the {half} alone: {WORDS[t]}, Adam",
            "each contributes", (_name(t, "adam", "invariant"), _name(t, "adam", half)),
            faster(t, "adam", "invariant", half), "< 0", AREA)
      for half in ("residual", "encoding") for t in ("waves", "costs")),
    Claim("C3", "It is the better one in 9 of 10 choices of units, normalisation and depth (four tried)",
          "in all of them",
          tuple(_cell(c, m) for c in QUICK_CELLS for m in ("standard", "invariant")),
          better_cells(QUICK_CELLS), "> 0.9", "share of choices"),
    Claim("C3.all", "The same over all 72 choices", "in all of them",
          tuple(_cell(c, m) for c in CELLS for m in ("standard", "invariant")),
          better_cells(tuple(CELLS)), "> 0.9", "share of choices"),
    *(Claim(f"C4.{t}.{o}", "The standard one fails where it does not, at rates up to three times the "
            f"standard one's best: {WORDS[t]}, {WORDS[o]}", "the default may not learn at all",
            _pair(t, o), more_failures(t, o), "> 0", "share of runs")
      for t in ("waves", "costs") for o in OPTIMISERS),
    *(Claim(f"C4.{t}.{o}.stuck", "So if all that ends above 0.9 of a constant predictor's loss has failed: "
            f"{WORDS[t]}, {WORDS[o]}", "the default may not learn at all",
            _pair(t, o), more_failures(t, o, 0.9), "> 0", "share of runs")
      for t in ("waves", "costs") for o in OPTIMISERS),
    Claim("R.separate", "It ends at no more than twice the loss of separate networks (waves, Adam)",
          "not compared", ("waves/adam/invariant", "waves/adam/separate"), behind_separate, "< 0.69",
          "log ratio"),
)  # fmt: skip

NAMES = {
    "standard": "standard", "invariant": "invariant (both)", "encoding": "encoding alone",
    "residual": "residual alone", "hyperfan": "standard, hyperfan-in", "split": "standard, by tensor",
    "scaled": "standard, output x 0.1", "biases": "biases alone", "separate": "separate networks",
}  # fmt: skip
COLOURS = dict(zip(NAMES, (1, 0, 2, 4, 3, 5, 6, 5, 6), strict=True))


def draw_start(traces: Traces) -> MatplotlibFigure:
    figure, (left, middle, right) = style.figure(1, 3, width=12.0, height=3.7)
    lines = dict(zip(ACTIVATIONS, ("-", "--", ":", "-."), strict=True))
    for model in ("standard", "invariant"):
        colour = style.colours[COLOURS[model]]
        for activation, line in lines.items():
            trace = traces.get(f"start/{activation}/{model}")
            if trace is None:
                continue
            x = trace["size"].values
            left.plot(x, trace.spread.values[:, 0].mean(0), line, color=colour,
                      label=f"{NAMES[model]}, {activation}")  # fmt: skip
        trace = traces[f"start/leaky_relu/{model}"]
        for layer in range(trace.sizes["layer"]):
            middle.plot(x, trace.activation.values[:, 0, :, layer].mean(0), color=colour,
                        alpha=1 - 0.22 * layer)  # fmt: skip
        right.plot(x, trace.gradient.values[:, 0].mean(0), color=colour)
    left.set(title="std of predicted weights")
    middle.set(title="rms before activations, layers 1 to 4")
    right.set(title="norm of the gradient")
    for ax in (left, middle, right):
        ax.set(xscale="log", yscale="log", xlabel="size of the setting γ")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _learning(ax: Axes, trace: xr.Dataset, model: str) -> None:
    pick = tuned(area(trace))
    curves = trace.loss.values[np.arange(len(pick)), :, pick]
    colour = style.colours[COLOURS[model]]
    ax.plot(trace.step, np.exp(np.log(curves).mean(0)), color=colour, label=NAMES[model],
            linestyle="--" if model in ("separate", "biases") else "-")  # fmt: skip
    ax.fill_between(trace.step, curves.min(0), curves.max(0), color=colour, alpha=0.13, linewidth=0)


def _side_by_side(task: str, traces: Traces, draw: Callable[..., None]) -> MatplotlibFigure:
    """A panel for each optimiser that was run; `draw(ax, optimiser)` fills it."""
    seen = [o for o in OPTIMISERS if all(arm in traces for arm in _pair(task, o))]
    figure, axes = style.figure(
        1, len(seen), width=max(5.2 * len(seen), 6.4), height=4.0, squeeze=False, sharey=True
    )
    for ax, optimiser in zip(axes[0], seen, strict=True):
        draw(ax, optimiser)
        ax.set(yscale="log", title=f"{WORDS[task]}, {WORDS[optimiser]}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _of_models(
    task: str, optimiser: str, traces: Traces, *, leave_out: Sequence[str] = ()
) -> Iterator[tuple[str, xr.Dataset]]:
    """Every model that was run on the task, and its trace."""
    for model in MODELS[task]:
        arm = _name(task, optimiser, model)
        if arm in traces and model not in leave_out:
            yield model, traces[arm]


def draw_learning(task: str, traces: Traces) -> MatplotlibFigure:
    def draw(ax: Axes, optimiser: str) -> None:
        for model, trace in _of_models(task, optimiser, traces):
            _learning(ax, trace, model)
        ax.set(xlabel="step", ylabel="validation loss, mean over settings")

    return _side_by_side(task, traces, draw)


def draw_rates(task: str, traces: Traces) -> MatplotlibFigure:
    def draw(ax: Axes, optimiser: str) -> None:
        for model, trace in _of_models(task, optimiser, traces, leave_out=("separate",)):
            values = np.exp(area(trace))
            colour = style.colours[COLOURS[model]]
            ax.plot(
                trace.rate, values.mean(0), "o-", color=colour, label=NAMES[model], markersize=4
            )
            every = np.tile(trace.rate, (len(values), 1))
            ax.plot(every, values, ".", color=colour, alpha=0.35, markersize=4)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss, geometric mean over training")

    return _side_by_side(task, traces, draw)


def draw_settings(task: str, traces: Traces) -> MatplotlibFigure:
    def draw(ax: Axes, optimiser: str) -> None:
        for model, trace in _of_models(task, optimiser, traces):
            pick = tuned(area(trace))
            ends = trace.loss_at.values[np.arange(len(pick)), -1, pick]
            ax.plot(trace.setting, ends.mean(0), "--" if model == "separate" else "-",
                    color=style.colours[COLOURS[model]], label=NAMES[model])  # fmt: skip
        ax.set(xlabel="setting γ", ylabel="validation loss at the end")

    return _side_by_side(task, traces, draw)


def draw_cells(traces: Traces) -> MatplotlibFigure:
    cells = [c for c in CELLS if _cell(c, "invariant") in traces]
    figure, ax = style.figure(width=8.0, height=1.4 + 0.3 * len(cells))
    for place, cell in enumerate(cells):
        gap = at_tuned(traces[_cell(cell, "invariant")]) - at_tuned(traces[_cell(cell, "standard")])
        ax.plot(gap, np.full(len(gap), -place), ".", color=style.colours[0], alpha=0.45)
        ax.plot(
            [gap.mean()], [-place], "|", color=style.colours[0], markersize=12, markeredgewidth=2.2
        )
    ax.set_yticks(-np.arange(len(cells)), [_words_of_cell(cell) for cell in cells])
    ax.set_ylim(-len(cells) + 0.4, 0.6)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    ax.set(xlabel="log loss: invariant less standard", title="below 0: the invariant one is faster")
    return figure


def _words_of_cell(cell: str) -> str:
    activation, norm, settings, depth = cell.split("/")
    normed = "no norm" if norm == "none" else f"{norm} norm"
    return (
        f"{activation}, {normed}, {settings} setting{'s' if settings != '1' else ''}, "
        f"{depth} hidden layer{'s' if depth != '1' else ''}"
    )


STARTS = tuple(f"start/{a}/{m}" for a in ACTIVATIONS for m in ("standard", "invariant"))
WAVES = tuple(_name("waves", o, m) for o in OPTIMISERS for m in MODELS["waves"])
QUICK = (
    *(f"start/{a}/standard" for a in ("leaky_relu", "relu", "tanh")), "start/leaky_relu/invariant",
    *(_name("waves", o, m) for o in OPTIMISERS
      for m in ("standard", "invariant", "encoding", "residual")),
    "waves/adam/separate",
)  # fmt: skip
DIGITS, REGISTRATION = (
    tuple(arm for o in OPTIMISERS for arm in _pair(task, o)) for task in ("costs", "registration")
)
CHOICES = (
    *(_name("waves", "adam", m) for m in ("standard", "invariant", "hyperfan", "split", "scaled")),
    *(_cell(c, m) for c in QUICK_CELLS[1:] for m in ("standard", "invariant")),
)  # fmt: skip
SMOKE = (
    "start/leaky_relu/standard", "start/leaky_relu/invariant", "start/tanh/standard",
    *_pair("waves", "adam"), *_pair("waves", "sgd"),
)  # fmt: skip
study = Study(
    paper=Paper(
        "magnitude-invariant-hypernets",
        "Magnitude Invariant Parametrizations Improve Hypernetwork Learning",
        "Jose Javier Gonzalez Ortiz, John Guttag, Adrian V. Dalca", "ICLR", 2024, "2304.07645",
        "JJGO/hyperlight",
    ),
    family="hypernetworks",
    question="Do hypernetworks learn faster when the size of their input cannot scale what they predict?",
    symptoms=(
        "a hypernetwork trains slowly or not at all",
        "training is unstable when the conditioning input is near zero",
        "one network for all values of a hyperparameter or regularisation weight",
        "predicted weights explode or vanish with the size of the conditioning vector",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE, settings={"steps": 10, "observations": 2, "points": 3, "rates": 3}),
        "quick": Budget(5, QUICK, settings={"steps": 3000}),
        "digits": Budget(4, DIGITS, settings={"steps": 400, "observations": 10}),
        "registration": Budget(
            4, REGISTRATION,
            settings={"steps": 300, "observations": 10, "rates": 3, "rows": 100, "pixels": 32},
        ),
        "choices": Budget(4, CHOICES, settings={"steps": 3000}),
        "full": Budget(10, settings={"rates": 7}),
    },
    claims=CLAIMS,
    figures=(
        Figure("start", "Before training: what the size of the settings does.", draw_start,
               ("start/leaky_relu/standard", "start/leaky_relu/invariant")),
        *(
            Figure(f"{name}-{task}", f"{caption} Task: {WORDS[task]}.", partial(draw, task),
                   _pair(task, "adam"))
            for task in TASKS for name, caption, draw in (
                ("learning", "Validation loss in training, each at the learning rate that the other "
                 "seeds chose; bands from the lowest to the highest seed.", draw_learning),
                ("rates", "How much the learning rate matters.", draw_rates),
                ("settings", "Where in the range of settings the loss is.", draw_settings),
            )
        ),
        Figure("cells", "Units, normalisation, number of settings and depth of the hypernetwork "
               "(waves, Adam). One dot a seed.", draw_cells,
               tuple(_cell(QUICK_CELLS[1], m) for m in ("standard", "invariant"))),
    ),
    data="synthetic waves; scikit-learn digits; synthetic pairs of deformed images",
    notes="The paper's scripts are not public and its tasks use medical images and flowers that no "
    "package ships: a family of sine waves, digits whose costs shift with the setting, and "
    "registration of synthetic images stand in for them. The learning rate of a seed is the best one "
    "on the other seeds, out of five (registration: three).",
    watch="loss",
)  # fmt: skip
