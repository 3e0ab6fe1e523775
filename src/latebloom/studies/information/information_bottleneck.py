"""How does information bottleneck help deep learning?

Kawaguchi, Deng, Ji, Huang (ICML 2023, arXiv 2305.18887).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom import data
from latebloom.core.process import Process
from latebloom.lab import Budget, Claim, Figure, Paper, Study, pictures, style
from latebloom.measures import Effect, Measure, Traces, effect, setting
from latebloom.methods.information import (
    DeterministicMLP,
    InformationTraining,
    Resampled,
    StochasticMLP,
    blobs,
    combined,
    correlation_table,
    model_tables,
)
from latebloom.methods.information.drawing import draw_correlations, draw_profiles
from latebloom.methods.information.model_tables import CODES, COMBINED, RESCALED, Told, tau

DECAYS, DUAL_RATES = (0.0, 0.01, 0.1), (0.0, 5e-4)
SIZES = (25, 50, 100, 200, 400)


@dataclass(frozen=True)
class Config:
    """One setting, trained on `instances` data sets from `members` starts each.

    - "stochastic": an encoder with learned noise (or `noise`), multiplier by dual ascent at `dual_rate`
      towards I(X; Z) = 1.5 nats. "deterministic": a plain network, penalty on its last layer's norm.
    - `depth` hidden layers, the first half of them of `width`, the others half as wide. `shared`: instances are random halves of
      one data set. `examples` of `train` are used. Epochs `epochs`, snapshots from `swa_start` on.
    - `source`: "clusters", or images by their name, reduced to `pixels` a side: then an instance is `train`
      of the training images drawn with replacement, and the target is 3.5 nats.
    """

    network: Literal["stochastic", "deterministic"] = "stochastic"
    width: int = 32
    depth: int = 4
    decay: float = 0.0
    dual_rate: float = 0.0
    penalty: float = 0.0
    noise: float | None = None
    shared: bool = False
    train: int = 50
    examples: int | None = None
    more: int = 500
    batch_size: int | None = None
    epochs: int = 300
    swa_start: int = 200
    instances: int = 3
    members: int = 3
    source: str = "clusters"
    pixels: int = 14


def make_process(config: Config) -> Process:
    clusters = config.source == "clusters"
    target = 0.0 if config.network == "deterministic" else 1.5 if clusters else 3.5
    return InformationTraining(
        partial(_network, config),
        partial(blobs, train=config.train, more=config.more) if clusters else _images(config),
        instances=config.instances, members=config.members, decay=config.decay,
        target=target, dual_rate=config.dual_rate, multiplier=-config.penalty,
        swa_start=config.swa_start, shared=config.shared, examples=config.examples,
        batch_size=config.batch_size,
    )  # fmt: skip


def _images(config: Config) -> Resampled:
    images = data.load(config.source)
    x_train, x_test = (_vectors(x, config.pixels) for x in (images.x_train, images.x_test))
    y_train, y_test = jnp.asarray(images.y_train), jnp.asarray(images.y_test)
    return Resampled(
        data.Dataset(x_train, y_train, x_test, y_test), train=config.train, more=config.more
    )


def _vectors(images: np.ndarray, pixels: int) -> Array:
    """Images of `pixels` a side, in [0, 1], as vectors."""
    means = data.block_means(images, images.shape[1] // pixels)
    return jnp.asarray(means.reshape(len(images), -1) / 255, jnp.float32)


def _network(config: Config, key: PRNGKeyArray) -> StochasticMLP | DeterministicMLP:
    half = config.depth // 2
    wide, narrow = [config.width] * (config.depth - half), [config.width // 2] * half
    first, last = (2, 5) if config.source == "clusters" else (config.pixels**2, 10)
    sizes = (first, *wide, *narrow, last)
    if config.network == "deterministic":
        return DeterministicMLP(sizes, key=key)
    return StochasticMLP(sizes, key=key, noise=config.noise)


def schedule(config: Config) -> np.ndarray:
    return np.array([config.epochs])


WIDTHS, PLAIN_WIDTHS = (32, 64, 128, 256), (128, 256, 512)
PLAIN = Config("deterministic", more=250, batch_size=25, epochs=200, swa_start=150)
GROWING = Config(noise=1.0, train=400)
CLUSTERS = {
    f"clusters-{width}-decay-{decay:g}-dual-{dual:g}": Config(width=width, decay=decay, dual_rate=dual)
    for width in WIDTHS for decay in DECAYS for dual in DUAL_RATES
}  # fmt: skip
HALVES = {
    f"halves-{width}-decay-{decay:g}": Config(width=width, decay=decay, shared=True)
    for width in WIDTHS for decay in DECAYS
}  # fmt: skip
LAYERS = {
    f"layers-{width}-decay-{decay:g}-penalty-{penalty:g}":
    replace(PLAIN, width=width, decay=decay, penalty=penalty)
    for width in PLAIN_WIDTHS for decay in (0.0, 1e-3, 1e-2) for penalty in (0.0, 1.0)
}  # fmt: skip
BY_SIZE = {f"examples-{n}": replace(GROWING, examples=n) for n in SIZES}
IMAGES = Config(depth=2, train=1000, more=400, epochs=40, swa_start=30)
PICTURES = {
    name: {
        f"{name}-{width}-batch-{batch}-decay-{decay:g}-dual-{dual:g}":
        replace(IMAGES, source=source, width=width, batch_size=batch, decay=decay, dual_rate=dual)
        for width in WIDTHS for batch in (128, 32) for decay in (0.0, 1e-3) for dual in (0.0, 1e-3)
    }
    for name, source in (("digits", "mnist-5k"), ("clothes", "fashion-mnist"))
}  # fmt: skip
DIGITS, CLOTHES = PICTURES.values()
ARMS: dict[str, Config] = CLUSTERS | HALVES | LAYERS | BY_SIZE | DIGITS | CLOTHES


def ran(grid: str, traces: Traces) -> dict[str, xr.Dataset]:
    """The settings of a grid that were run, by the beginning of their names."""
    return {arm: traces[arm] for arm in ARMS if arm.startswith(grid) and arm in traces}


def always(grid: str) -> tuple[str, ...]:
    """The narrow settings of a grid, which every budget runs: claims name these, and read all that were run."""
    most = 128 if grid == "layers" else 64
    return tuple(arm for arm, c in ARMS.items() if arm.startswith(grid) and c.width <= most)


BASELINES = (
    *CODES, "I(S;θ)", "I(S;θ), several seeds", "I(S;θ), all layers", "parameters", "m log m",
    "sum of norms", "product of norms",
)  # fmt: skip
MEASURES = (COMBINED, RESCALED, *BASELINES, "I(S;θ), published")
PLAIN_ONES = BASELINES[-4:]  # parameter counts and norms


def per_seed(traces: Traces, grid: str) -> list[pd.DataFrame]:
    """The models of each seed that learned their training set."""
    found = ran(grid, traces)
    return [
        model_tables.model_table(found, seed)
        for seed in range(next(iter(found.values())).sizes["seed"])
    ]


Score = Callable[[pd.DataFrame], float]


def of_models(text: str, grid: str, score: Score) -> Effect:
    """`score` of every seed's models; NaN where those that learned are of one setting."""

    @effect(text, *always(grid))
    def of(traces: Traces) -> np.ndarray:
        tables = per_seed(traces, grid)
        return np.array([score(t) if t.setting.nunique() > 1 else np.nan for t in tables])

    return of


def combined_leads(grid: str, rivals: Sequence[str], told: Told = tau) -> Effect:
    """Of the combined measure over the best of others."""
    score = partial(model_tables.lead, name=COMBINED, rivals=rivals, told=told)
    return of_models(f"lead over {', '.join(rivals)}", grid, score)


def at_equal_loss(grid: str, name: str = COMBINED, text: str = "partial tau") -> Effect:
    return of_models(text, grid, partial(model_tables.tau_at_equal_loss, name=name))


def gain(grid: str, how: str) -> Effect:
    """Of knowing the class."""
    one, other = f"I(X;Z|Y), {how}", f"I(X;Z), {how}"
    return of_models(f"gain, {how}", grid, lambda table: tau(table, one) - tau(table, other))


def mean_of(name: str, **place: int) -> Measure:
    """The mean over models at the end."""

    def of(trace: xr.Dataset) -> np.ndarray:
        dims = [dim for dim in ("instance", "member") if dim in trace[name].dims]
        return trace[name].isel(step=-1).mean(dims).isel(place).values

    return Measure(f"final {name}, mean over models", of)


gap, encoder = mean_of("gap"), mean_of("given_class_mc", layer=0)
whole = encoder + mean_of("weights_jensen", depth=0)
nothing = Measure("1", lambda trace: np.ones(trace.sizes["seed"]))


def control(grid: str) -> Effect:
    """Gap with dual ascent minus gap without, same data and starts, mean over models."""

    @effect("gap with dual ascent minus gap without", *always(grid))
    def of(traces: Traces) -> np.ndarray:
        controlled = [arm for arm in ran(grid, traces) if ARMS[arm].dual_rate]
        pairs = [(arm, f"{arm[: arm.rindex('dual-')]}dual-0") for arm in controlled]
        return np.mean([gap(traces[one]) - gap(traces[other]) for one, other in pairs], axis=0)

    return of


def layers(traces: Traces, name: str) -> np.ndarray:
    """A measure by hidden layer [seed, model, layer] of the plain networks."""
    return model_tables.layer_profiles(list(ran("layers", traces).values()), name)


def layer_slope(name: str) -> Effect:
    """Share of models that gain with depth minus share that lose, by the slope on the layer."""

    @effect(f"models in which {name} rises minus those in which it falls", *always("layers"))
    def of(traces: Traces) -> np.ndarray:
        return model_tables.rising_minus_falling(layers(traces, name))

    return of


@effect("share of models whose combined measure is lowest at an inner layer", *always("layers"))
def interior(traces: Traces) -> np.ndarray:
    given, weights = (layers(traces, name) for name in ("given_class_bins", "weights_jensen"))
    return model_tables.lowest_inside(combined(given, weights))


def size_points(traces: Traces, of: Measure) -> tuple[np.ndarray, np.ndarray]:
    """A measure over n, and the gap, means over models [seed, size]."""
    found = [traces[arm] for arm in BY_SIZE]
    rates = np.array([of(trace) / setting(trace, "examples") for trace in found])
    return rates.T, np.array([gap(trace) for trace in found]).T


def exponent_off(of: Measure) -> Effect:
    """Slope of log gap on log(measure / n), away from 0.5; NaN where fewer than three gaps are positive."""

    @effect(f"|exponent of the gap in {of.text} / n - 0.5|", *BY_SIZE)
    def off(traces: Traces) -> np.ndarray:
        found = []
        for rate, gaps in zip(*size_points(traces, of), strict=True):
            rate, gaps = rate[gaps > 0], gaps[gaps > 0]
            found.append(np.polyfit(np.log(rate), np.log(gaps), 1)[0] if len(gaps) > 2 else np.nan)
        return np.abs(np.array(found) - 0.5)

    return off


PARAMETERS_ALONE = ("parameters", "partial tau of the number of parameters")
TAU, RISING = "difference of Kendall's tau", "rising minus falling models"


def of_pictures(grid: str, thing: str) -> tuple[Claim, ...]:
    """The claims on networks that were trained on pictures."""
    claim = partial(Claim, budget="thorough")
    return (
        claim(f"C1.{grid}", f"{thing}: the combined measure goes with the gap better than every baseline and either part",
              "best of all measures", combined_leads(grid, BASELINES), "> 0", TAU),
        claim(f"C1.{grid}-sizes", f"{thing}: it goes with the gap better than parameter counts and norms", "better",
              combined_leads(grid, PLAIN_ONES), "> 0", TAU),
        claim(f"C1.{grid}-partial", f"{thing}: it goes with the gap at equal training loss", "–",
              at_equal_loss(grid), "> 0", "Kendall's partial tau",
              null=at_equal_loss(grid, *PARAMETERS_ALONE)),
        claim(f"C3.{grid}", f"{thing}: I(X;Z|Y) is the better predictor than I(X;Z), Monte Carlo", "better",
              gain(grid, "mc"), "> 0", TAU),
        claim(f"C4.{grid}", f"{thing}: controlling I(X;Z) by dual ascent lowers the gap", "–", control(grid), "< 0", "nats"),
    )  # fmt: skip


CLAIMS = (
    Claim("C1", "the combined measure goes with the gap better than every baseline and either part",
          "best of all measures on every data set", combined_leads("clusters", BASELINES), "> 0", TAU),
    Claim("C1.settings", "so it does when settings are resampled (lower end of the interval)", "–",
          of_models("lower end of the lead", "clusters",
                    partial(model_tables.least_lead, name=COMBINED, rivals=BASELINES)), "> 0", TAU),
    Claim("C1.sizes", "it goes with the gap better than parameter counts and norms",
          "better", combined_leads("clusters", PLAIN_ONES), "> 0", TAU),
    Claim("C1.within", "it is the best measure inside data sets, which differ in difficulty", "–",
          combined_leads("clusters", BASELINES, model_tables.tau_inside), "> 0", TAU),
    Claim("C1.partial", "it still goes with the gap at equal training loss", "–",
          at_equal_loss("clusters"), "> 0", "Kendall's partial tau",
          null=at_equal_loss("clusters", *PARAMETERS_ALONE)),
    Claim("C1.halves", "it is the best measure when data sets are halves of one", "–",
          combined_leads("halves", BASELINES), "> 0", TAU),
    Claim("C2.bins", "I(X;Z|Y) by bins falls with depth", "falls", layer_slope("given_class_bins"), "< 0", RISING,
          budget="thorough"),
    Claim("C2.probe", "I(X;Z|Y) by the noise probe falls with depth", "falls", layer_slope("given_class_probe"),
          "< 0", RISING, budget="thorough"),
    Claim("C2.weights", "I(S;θ) rises with depth", "rises", layer_slope("weights_jensen"), "> 0", RISING,
          budget="thorough", null=1.0),  # the number of weights up to a layer rises in every model
    Claim("C2.interior", "the combined measure is lowest at an inner layer", "a trade-off", interior, "> 0.5",
          "share of models", budget="thorough", null=0.5),  # any one of four layers
    Claim("C3", "I(X;Z|Y) is the better predictor than I(X;Z), upper bounds", "better",
          gain("clusters", "jensen"), "> 0", TAU),
    Claim("C3.mc", "I(X;Z|Y) is the better predictor than I(X;Z), Monte Carlo", "better",
          gain("clusters", "mc"), "> 0", TAU),
    Claim("C4", "controlling I(X;Z) by dual ascent lowers the gap", "lowers it", control("clusters"), "< 0", "nats"),
    Claim("C5", "the gap grows as ((I(X;Z|Y) + I(S;θ)) / n)^0.5 (distance of the exponent)",
          "exponent 0.5 in the bound", exponent_off(whole), "< 0.2", budget="thorough",
          null=exponent_off(nothing)),
    Claim("C5.encoder", "the gap grows as (I(X;Z|Y) / n)^0.5 (distance of the exponent)", "–",
          exponent_off(encoder), "< 0.2", budget="thorough", null=exponent_off(nothing)),
    *of_pictures("digits", "handwritten digits"),
    *of_pictures("clothes", "clothes"),
)  # fmt: skip


def correlations(grid: str) -> pictures.Picture:
    """Every measure's tau: over all models with an interval, inside instances, at equal loss."""

    @pictures.by_hand(width=7.6, height=4.8, legend=True)
    def draw(traces: Traces, ax: Axes) -> None:
        table = pd.concat(per_seed(traces, grid), ignore_index=True)
        draw_correlations(ax, correlation_table(table, MEASURES).loc[list(MEASURES)])
        ax.set(title=f"{len(table)} models", xlim=(-0.6, 0.8))

    return draw


@pictures.by_hand(3, sharey=True, legend=True)
def draw_scatter(traces: Traces, *axes: Axes) -> None:
    """Both parts and the sum against the gap, by weight decay."""
    table = pd.concat(per_seed(traces, "clusters"), ignore_index=True)
    for ax, name in zip(axes, ("I(X;Z|Y), jensen", "I(S;θ)", COMBINED), strict=True):
        for colour, decay in zip(style.colours, DECAYS, strict=False):
            rows = table[[ARMS[arm].decay == decay for arm in table.setting]]
            if len(rows):
                ax.plot(rows[name], rows.gap, ".", color=colour, alpha=0.6,
                        label=f"weight decay {decay:g}")  # fmt: skip
        ax.set(xscale="log", xlabel=f"{name} in bits")
    axes[0].set_ylabel("test loss minus training loss in nats")


BY_LAYER = {
    "10 bins": {"information_bins": "I(X;Z)", "given_class_bins": "I(X;Z|Y)"},
    "noise probe": {"information_probe": "I(X;Z)", "given_class_probe": "I(X;Z|Y)"},
    "weights": {"weights_jensen": "I(S;θ)", "weights_published": "the authors' density"},
}


@pictures.by_hand(3)
def draw_layers(traces: Traces, *axes: Axes) -> None:
    """What the layers of plain networks keep, median and range of models."""
    for ax, (title, names) in zip(axes, BY_LAYER.items(), strict=True):
        draw_profiles(ax, {label: layers(traces, name) for name, label in names.items()})
        ax.set(title=title, ylabel="bits")
    axes[2].set_yscale("log")


@pictures.by_hand(2)
def draw_sizes(traces: Traces, *axes: Axes) -> None:
    """The gap against information over n."""
    shown = {"(I(X;Z|Y) + I(S;θ)) / n": whole, "I(X;Z|Y) / n": encoder}
    for ax, (label, of) in zip(axes, shown.items(), strict=True):
        rates, gaps = size_points(traces, of)
        found = np.where(gaps > 0, gaps, np.nan)
        ax.plot(rates.T, found.T, ".-", color=style.colours[0], alpha=0.5)
        x = np.sort(rates.mean(0))
        middle = np.exp(np.log(np.maximum(gaps.mean(0), 1e-4)).mean())
        ax.plot(x, middle * (x / np.exp(np.log(x).mean())) ** 0.5, "--", color=style.colours[1],
                label="slope 0.5")  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel=f"{label} in bits", ylabel="gap in nats")
        ax.legend()


FIGURES = (
    *(Figure(name, f"Kendall's tau of each measure with the generalisation gap: {about}. Models with training "
             "accuracy above 0.85.", correlations(grid), always(grid)) for name, about, grid in (
        ("correlations", "fresh data sets", "clusters"), ("correlations-halves", "halves of one data set", "halves"),
        ("correlations-digits", "handwritten digits", "digits"),
        ("correlations-clothes", "pictures of clothes", "clothes"))),
    Figure("scatter", "Both parts of the combined measure and their sum, which is the larger part alone.",
           draw_scatter, always("clusters")),
    Figure("layers", "What the hidden layers of plain networks keep: median of models, bands from "
           "the tenth to the ninetieth percentile.", draw_layers, always("layers")),
    Figure("sizes", "The gap of networks with encoder noise 1, trained on 25 to 400 examples; a line a seed.",
           draw_sizes, tuple(BY_SIZE)),
)  # fmt: skip

WHOLE = {"pixels": 28, "train": 8000, "more": 2000}
# Enough for networks to pass the gate.
TINY = {"width": 16, "depth": 2, "epochs": 40, "swa_start": 20, "members": 1, "instances": 2, "train": 50,
        "more": 40}  # fmt: skip

study = Study(
    paper=Paper(
        "information-bottleneck", "How Does Information Bottleneck Help Deep Learning?",
        "Kenji Kawaguchi, Zhun Deng, Xu Ji, Jiaoyang Huang", "ICML", 2023, "2305.18887",
        "xu-ji/information-bottleneck",
    ),
    family="information",
    question="Do networks generalise better where a layer forgets what does not matter, and is what the "
    "layer and its weights remember a good measure of the gap?",
    symptoms=(
        "training loss is near zero but test loss is not",
        "which of several trained models will generalise best",
        "a measure for the generalisation gap without test data",
        "does my layer compress its input",
        "how many bits do the weights hold about the training set",
        "parameter count does not predict overfitting",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, (*always("clusters"), "halves-32-decay-0"), TINY),
        "quick": Budget(6, settings={"members": 2}),
        "thorough": Budget(6, settings={"members": 2}),
        "full": Budget(6, arm_settings=dict.fromkeys(DIGITS, {"source": "mnist"} | WHOLE)
                       | dict.fromkeys(CLOTHES, WHOLE)),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic (Gaussian clusters in the plane), MNIST, Fashion-MNIST",
    watch="train_accuracy",
    notes="A seed is a replicate: three data sets and two (full: three) starts of every setting. Below the full "
    "budget widths are 32 and 64 of 32 to 256 and, of plain networks, 128 of 128 to 512; pictures are 1,000 of 14 by "
    "14 (full: 8,000 of 28 by 28). Encoders have a single stochastic layer, so the minimum over layers is that layer. "
    "CIFAR networks were not trained.",
)  # fmt: skip
