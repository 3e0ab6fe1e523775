"""Magnitude invariant parametrisations improve hypernetwork learning.

Gonzalez Ortiz, Guttag, Dalca (ICLR 2024, arXiv 2304.07645).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray

from latebloom.core.process import Process
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import Effect, Measure, Traces, at, best, curve, final, log, log10, lowest
from latebloom.methods.hypernetworks import terms
from latebloom.methods.hypernetworks.conditional_tasks import Waves, digits_with_costs
from latebloom.methods.hypernetworks.conditional_training import (
    ConditionalTraining,
    SeparateNetworks,
)
from latebloom.methods.hypernetworks.registration import UNet, register_blobs
from latebloom.methods.hypernetworks.start import Start
from latebloom.methods.hypernetworks.terms import FLOOR, area, log_loss, share_below, validation
from latebloom.nn import MLP, ConvNet, Hypernetwork
from latebloom.optim import Either

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
    build: Callable[[PRNGKeyArray], Any] = partial(make_model, config)
    points = np.linspace(0, 1, config.points)
    if config.task == "start":
        return Start(build, jnp.asarray(np.geomspace(0.02, 1, config.points), jnp.float32))
    others = np.random.default_rng(0).uniform(size=(config.points, config.settings - 1))
    grid = jnp.asarray(np.concatenate([points[:, None], others], 1), jnp.float32)
    draw: Callable[..., Array] = partial(jax.random.uniform, shape=(config.draws, config.settings))
    if config.model == "separate":
        draw = lambda key: grid  # noqa: E731
        build = partial(SeparateNetworks, partial(make_primary, config), grid)
    cut = (len(RATES[config.optimiser]) - config.rates) // 2
    rates = RATES[config.optimiser][cut : cut + config.rates]
    by = "vmap" if config.task == "waves" else "map"
    adam = jnp.asarray(config.optimiser == "adam")
    optimiser = Either(adam, optax.adam, partial(optax.sgd, momentum=0.9))
    return ConditionalTraining(make_task(config), build, draw, optimiser, rates, grid, by)


def make_primary(config: Config, key: PRNGKeyArray) -> Any:
    if config.task == "costs":
        return ConvNet(config.width, 10, key=key)
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
        return digits_with_costs(config.size)
    return register_blobs(config.rows, config.pixels, config.size)


def schedule(config: Config) -> np.ndarray:
    if config.task == "start":
        return np.array([0, 1])
    return np.unique(np.linspace(0, config.steps, config.observations + 1).astype(int))


OPTIMISERS = ("adam", "sgd")
PAIR = ("standard", "invariant")
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
ACTIVATIONS = ("leaky_relu", "relu", "gelu", "tanh")
CELLS: dict[str, dict[str, Any]] = {
    f"{a}/{n}/{d}/{len(h)}": {"activation": a, "norm": n, "settings": d, "hidden": h}
    for a in ACTIVATIONS
    for n in ("none", "layer", "batch")
    for d in (1, 4, 16)
    for h in ((16, 32, 64), (64,))
}
PLAIN = "leaky_relu/none/1/3"
FOUR_CELLS = (PLAIN, "gelu/none/1/3", "leaky_relu/layer/1/3", "leaky_relu/none/1/1")


def _name(task: str, optimiser: str, model: str) -> str:
    return f"{task}/{optimiser}/{model}"


def _cell(cell: str, model: str) -> str:
    return _name("waves", "adam", model) if cell == PLAIN else f"cell/{cell}/{model}"


ARMS: dict[str, Config] = {
    **{_name(task, optimiser, model): replace(BASE[task], model=model, optimiser=optimiser)
       for task in TASKS for optimiser in OPTIMISERS for model in MODELS[task]},
    **{_cell(cell, model): Config(model=model, draws=8 if "batch" in cell else 2, **options)
       for cell, options in CELLS.items() for model in PAIR},
    **{f"start/{activation}/{model}": Config("start", model, activation=activation, hidden=(16, 64, 128))
       for activation in ACTIVATIONS for model in PAIR},
}  # fmt: skip
CONSTANT = {"waves": 0.5, "costs": float(np.log(10))}  # loss of a predictor that looks at nothing


def faster(task: str, optimiser: str, model: str = "invariant", than: str = "standard") -> Effect:
    return log_loss[_name(task, optimiser, model)] - log_loss[_name(task, optimiser, than)]


def steps_needed(new: str, old: str) -> Effect:
    """Share of the steps after which the one is where the other ends; 1 if it never is."""

    def of(traces: Traces) -> np.ndarray:
        seen, goal = validation(traces[new]), final(validation)(traces[old])
        reached = seen.values <= goal[:, None]
        steps = seen.step.values
        return np.where(reached.any(1), steps[reached.argmax(1)] / steps[-1], 1.0)

    return Effect((new, old), f"share of the steps until {new} is where {old} ends", of)


def more_failures(task: str, optimiser: str, share: float = 1.0) -> Effect:
    """Failures of the standard one less those of the invariant one, over the rates up to three
    times the standard one's best. To fail is to end at `share` of a constant predictor's loss."""
    standard, invariant = (_name(task, optimiser, m) for m in PAIR)
    worst = share * CONSTANT[task]

    def of(traces: Traces) -> np.ndarray:
        old, new = traces[standard], traces[invariant]
        best = float(old.rate[int(area(old).mean(0).argmin())])
        gap = terms.failed(old, worst).astype(float) - terms.failed(new, worst)
        return gap[:, old.rate.values <= 3.5 * best].mean(1)

    return Effect((standard, invariant), f"failures above {worst:g}, standard less invariant", of)


def ahead(cell: str) -> Effect:
    return log_loss[_cell(cell, "invariant")] - log_loss[_cell(cell, "standard")]


def share_ahead(cells: Iterable[str]) -> Effect:
    return share_below(0.0, [ahead(cell) for cell in cells])


def learns(task: str, optimiser: str) -> tuple[Need, ...]:
    if task not in CONSTANT:
        return ()
    ends = lowest(final(validation)[_name(task, optimiser, m)] for m in PAIR)
    return (Need(ends / CONSTANT[task], "< 0.9", "neither of the two leaves the constant prediction"),)  # fmt: skip


grows, third = terms.exponent("spread"), abs(terms.exponent("activation", layer=2) - 3)
end, untrained = log(final(validation) + FLOOR), log(at(validation, 0) + FLOOR)
BEFORE, TRAINED = "start/leaky_relu", _name("waves", "adam", "invariant")
PROPORTIONAL, FASTER = "predicted weights scale with the input", "more stable, faster convergence"
DEFAULT = "the default may not learn at all"
WORDS = {"waves": "waves", "costs": "digits with shifting costs", "registration": "registration",
         "adam": "Adam", "sgd": "momentum"}  # fmt: skip
QUICK, FULL = {"waves": "quick"}, {"costs": "full"}  # budgets, by task
AREA, SHARE = "log loss, mean over training", "share of the steps"
CLAIMS = (
    *(Claim(f"C1.{a}", f"With {a} units the standard weights grow in proportion to the settings (|exponent - 1|)",
            PROPORTIONAL, abs(grows - 1)[f"start/{a}/standard"], "< 0.1", "exponent",
            null=abs(grows - 1)[f"{BEFORE}/invariant"]) for a in ("leaky_relu", "relu")),
    Claim("C1.tanh", "With tanh the exponent is lower", "piecewise linear units",
          grows["start/tanh/standard"] - grows[f"{BEFORE}/standard"], "< 0", "exponent"),
    Claim("C1.layers", "The third layer of the primary grows with the third power (|exponent - 3|)", PROPORTIONAL,
          third[f"{BEFORE}/standard"], "< 0.3", "exponent", null=third[f"{BEFORE}/invariant"]),
    Claim("C1.invariant", "The invariant weights do not grow (|exponent|)", "constant magnitude",
          abs(grows)[f"{BEFORE}/invariant"], "< 0.05", "exponent", null=abs(grows)[f"{BEFORE}/standard"]),
    Claim("C1.gradient", "Gradient norms vary less over settings", "more stable gradients",
          terms.variation[f"{BEFORE}/invariant"] - terms.variation[f"{BEFORE}/standard"], "< 0",
          "coefficient of variation"),
    *(Claim(f"C2.{t}.{o}", f"It learns faster than the standard one: {WORDS[t]}, {WORDS[o]}", FASTER, faster(t, o),
            "< 0", AREA, budget=QUICK.get(t, "thorough"), needs=learns(t, o)) for t in TASKS for o in OPTIMISERS),
    *(Claim(f"C2.{t}.{o}.steps", f"It is where the standard one ends after less than 0.8 of the steps: {WORDS[t]}, "
            f"{WORDS[o]}", FASTER, steps_needed(_name(t, o, "invariant"), _name(t, o, "standard")), "< 0.8", SHARE,
            budget=QUICK.get(t, "thorough"), needs=learns(t, o),
            null=steps_needed(_name(t, o, "standard"), _name(t, o, "standard"))) for t in TASKS for o in OPTIMISERS),
    Claim("C2.starts", "It learns faster than the best standard one with another start (hyperfan-in, by tensor, "
          "scaled): waves, Adam", "not compared",
          log_loss[TRAINED] - best([log_loss[_name("waves", "adam", m)]
                                    for m in ("standard", "hyperfan", "split", "scaled")], lowest=True),
          "< 0", AREA, budget="thorough"),
    *(Claim(f"A.{half}.{t}", f"Both halves together beat the {half} alone: {WORDS[t]}, Adam", "each contributes",
            faster(t, "adam", "invariant", half), "< 0", AREA, budget=FULL.get(t, "quick"))
      for half in ("residual", "encoding") for t in ("waves", "costs")),
    Claim("C3", "It is the better one in 9 of 10 choices of units, normalisation and depth (four tried)",
          "in all of them", share_ahead(FOUR_CELLS), "> 0.9", "share of choices", budget="thorough",
          null=0.5),  # a coin
    Claim("C3.all", "The same over all 72 choices", "in all of them", share_ahead(CELLS), "> 0.9",
          "share of choices", budget="full", null=0.5),
    *(Claim(f"C4.{t}.{o}", "The standard one fails where it does not, at rates up to three times the standard one's "
            f"best: {WORDS[t]}, {WORDS[o]}", DEFAULT, more_failures(t, o), "> 0", "share of runs",
            budget=QUICK.get(t, "thorough")) for t in CONSTANT for o in OPTIMISERS),
    *(Claim(f"C4.{t}.{o}.stuck", "So if all that ends above 0.9 of a constant predictor's loss has failed: "
            f"{WORDS[t]}, {WORDS[o]}", DEFAULT, more_failures(t, o, 0.9), "> 0", "share of runs",
            budget=QUICK.get(t, "thorough"), added="after results") for t in CONSTANT for o in OPTIMISERS),
    Claim("R.separate", "It ends at no more than twice the loss of separate networks (waves, Adam)", "not compared",
          end[TRAINED] - end["waves/adam/separate"], "< 0.69", "log ratio",
          null=untrained[TRAINED] - end["waves/adam/separate"]),
)  # fmt: skip

NAMES = {
    "standard": "standard", "invariant": "invariant (both)", "encoding": "encoding alone",
    "residual": "residual alone", "hyperfan": "standard, hyperfan-in", "split": "standard, by tensor",
    "scaled": "standard, output x 0.1", "biases": "biases alone", "separate": "separate networks",
}  # fmt: skip


def groups(task: str) -> list[tuple[str, dict[str, str]]]:
    """A panel for each optimiser, a line for each model."""
    return [(f"{WORDS[task]}, {WORDS[o]}", {_name(task, o, m): NAMES[m] for m in MODELS[task]})
            for o in OPTIMISERS]  # fmt: skip


def at_rate(rate: float) -> Measure:
    """NaN where it was not tried."""

    def of(trace: xr.Dataset) -> np.ndarray:
        tried = np.isclose(trace.rate.values, rate, rtol=1e-3)
        return np.where(tried, np.exp(area(trace)), np.nan)[:, tried.argmax()]

    return Measure(f"mean loss at rate {rate:g}", of)


def over_settings(trace: xr.Dataset) -> xr.Dataset:
    """The last losses at the tuned rate against the settings, mean over seeds."""
    ends = terms.at_tuned(trace.loss_at.values[:, -1], trace).mean(0)
    return xr.Dataset({"ends": (("seed", "step"), ends[None])}, {"step": trace.setting.values})


def over_sizes(trace: xr.Dataset) -> xr.Dataset:
    return trace.isel(step=0, drop=True).rename(size="step")


def figures_of(task: str) -> tuple[Figure, ...]:
    arms, lines = tuple(_name(task, "adam", m) for m in PAIR), groups(task)
    rates = [
        (title, {label: (RATES[o], [at_rate(rate)[arm] for rate in RATES[o]])
                 for arm, label in models.items() if label != NAMES["separate"]})
        for o, (title, models) in zip(OPTIMISERS, lines, strict=True)
    ]  # fmt: skip
    return (
        Figure(f"learning-{task}", "Validation loss in training, each at the learning rate that the other seeds "
               f"chose; bands from the lowest to the highest seed. Task: {WORDS[task]}.",
               pictures.curves(log10(validation), *lines, ylabel="log10 of the validation loss"),
               arms),
        Figure(f"rates-{task}", f"How much the learning rate matters. Task: {WORDS[task]}.",
               pictures.trend(*rates, xscale="log", yscale="log", xlabel="learning rate",
                              ylabel="loss, geometric mean over training"), arms),
        Figure(f"settings-{task}", f"Where in the range of settings the loss is. Task: {WORDS[task]}.",
               pictures.curves("ends", *lines, as_drawn=over_settings, yscale="log",
                               xlabel="setting γ", ylabel="validation loss at the end"), arms),
    )  # fmt: skip


def cell_in_words(cell: str) -> str:
    activation, norm, settings, depth = cell.split("/")
    normed = "no norm" if norm == "none" else f"{norm} norm"
    several, layered = ("" if n == "1" else "s" for n in (settings, depth))
    return f"{activation}, {normed}, {settings} setting{several}, {depth} hidden layer{layered}"


STARTS = {f"start/{a}/{m}": (f"{NAMES[m]}, {a}", {"colour": colour, "linestyle": dashes})
          for m, colour in zip(PAIR, style.colours, strict=False)
          for a, dashes in zip(ACTIVATIONS, ("-", "--", ":", "-."), strict=True)}  # fmt: skip
FIGURES = (
    Figure("start", "Before training: what the size of the settings does.",
           pictures.curves(
               {"std of predicted weights": "spread", "norm of the gradient": "gradient",
                "rms before the third activation": curve("activation", layer=2)},
               ("", {arm: label for arm, (label, _) in STARTS.items()}), look=dict(STARTS.values()),
               as_drawn=over_sizes, xscale="log", yscale="log", xlabel="size of the setting γ"),
           (f"{BEFORE}/standard", f"{BEFORE}/invariant")),
    *(figure for task in TASKS for figure in figures_of(task)),
    Figure("cells", "Units, normalisation, number of settings and depth of the hypernetwork (waves, Adam). One dot a "
           "seed; below 0 the invariant one is faster.",
           pictures.dots({"log loss: invariant less standard": {cell_in_words(c): ahead(c) for c in CELLS}},
                         levels={"": 0}), tuple(_cell(FOUR_CELLS[1], m) for m in PAIR)),
)  # fmt: skip

SMOKE = (
    "start/leaky_relu/standard", "start/leaky_relu/invariant", "start/tanh/standard",
    *(_name("waves", o, m) for o in OPTIMISERS for m in PAIR),
)  # fmt: skip
SHORT = {
    "costs": {"steps": 400, "observations": 10},
    "registration": {"steps": 300, "observations": 10, "rates": 3, "rows": 100, "pixels": 32},
}
SMALL = {_name(task, o, m): SHORT[task] for task in SHORT for o in OPTIMISERS for m in MODELS[task]}
HALVES = tuple(_name("waves", "sgd", m) for m in ("encoding", "residual"))
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
        "quick": Budget(6, None, {"steps": 3000}),
        "thorough": Budget(6, None, {"steps": 3000}, SMALL, HALVES),
        "full": Budget(10, settings={"rates": 7}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic waves; scikit-learn digits; synthetic pairs of deformed images",
    notes="The paper's scripts are not public and its tasks use medical images and flowers that no "
    "package ships: a family of sine waves, digits whose costs shift with the setting, and "
    "registration of synthetic images stand in for them. The learning rate of a seed is the best one "
    "on the other seeds, out of five (registration: three).",
    watch="loss",
)  # fmt: skip
