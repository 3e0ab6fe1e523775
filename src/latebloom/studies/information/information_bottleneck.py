"""How does information bottleneck help deep learning?

Kawaguchi, Deng, Ji, Huang (ICML 2023, arXiv 2305.18887).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, PRNGKeyArray
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom import data
from latebloom.core.process import Process
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.information import (
    DeterministicMLP,
    InformationTraining,
    Resampled,
    StochasticMLP,
    blobs,
    cluster_interval,
    combined,
    correlation,
    correlation_table,
    partial_correlation,
    summarise_layers,
    within_groups,
)

GATE = 0.85  # training accuracy above which a model counts
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
        partial(_network, _architecture(config)),
        partial(blobs, train=config.train, more=config.more) if clusters else _images(config),
        instances=config.instances, members=config.members, decay=config.decay,
        target=target, dual_rate=config.dual_rate, multiplier=-config.penalty,
        swa_start=config.swa_start, shared=config.shared, examples=config.examples,
        batch_size=config.batch_size,
    )  # fmt: skip


def _images(config: Config) -> Resampled:
    images = data.load(config.source)
    x_train, x_test = (_reduced(x, config.pixels) for x in (images.x_train, images.x_test))
    y_train, y_test = jnp.asarray(images.y_train), jnp.asarray(images.y_test)
    return Resampled(
        data.Dataset(x_train, y_train, x_test, y_test), train=config.train, more=config.more
    )


def _reduced(images: np.ndarray, pixels: int) -> Array:
    """Images in [0, 1] as vectors, means over blocks where `pixels` is less than their side."""
    block = images.shape[1] // pixels
    parts = images.reshape(len(images), pixels, block, pixels, block)
    return jnp.asarray(parts.mean((2, 4)).reshape(len(images), -1) / 255, jnp.float32)


def _architecture(config: Config) -> Config:
    """The config without what is no matter of the program, so that settings share one."""
    return Config(
        config.network, config.width, config.depth, noise=config.noise,
        source=config.source, pixels=config.pixels,
    )  # fmt: skip


def _network(config: Config, key: PRNGKeyArray) -> StochasticMLP | DeterministicMLP:
    half = config.depth // 2
    wide, narrow = [config.width] * (config.depth - half), [config.width // 2] * half
    ends = (2, 5) if config.source == "clusters" else (config.pixels**2, 10)
    sizes = (ends[0], *wide, *narrow, ends[1])
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

PARTS = {
    "I(X;Z), mc": "information_mc", "I(X;Z), jensen": "information_jensen",
    "I(X;Z|Y), mc": "given_class_mc", "I(X;Z|Y), jensen": "given_class_jensen",
}  # fmt: skip
COMBINED = "I(S;θ) + I(X;Z|Y)"
RESCALED = "the sum, parts rescaled"


def models(traces: Traces, arms: Sequence[str], seed: int) -> pd.DataFrame:
    """A row a model of one seed that learned its training set, all measures in bits."""
    tables = []
    for setting in arms:
        if setting not in traces:
            continue
        trace = traces[setting].isel(step=-1, seed=seed)
        instances, members = trace.sizes["instance"], trace.sizes["member"]
        shape = (instances, members)

        def of_weights(name: str, depth: int) -> np.ndarray:
            return np.broadcast_to(trace[name].isel(depth=depth), shape).ravel()  # noqa: B023

        columns = {name: trace[variable].isel(layer=0).values.ravel()
                   for name, variable in PARTS.items()}  # fmt: skip
        size = trace.parameters.values.ravel()
        columns |= {
            "I(S;θ)": of_weights("weights_jensen", 0),
            "I(S;θ), several seeds": of_weights("weights_multi", 0),
            "I(S;θ), published": of_weights("weights_published", 0),
            "I(S;θ), all layers": of_weights("weights_jensen", -1),
            "parameters": size, "m log m": size * np.log2(size),
            "sum of norms": trace.norm_sum.values.ravel(),
            "product of norms": trace.norm_product.values.ravel(),
        }  # fmt: skip
        layers = combined(columns["I(X;Z|Y), jensen"][:, None], columns["I(S;θ)"][:, None])
        columns[COMBINED] = summarise_layers(layers)["min"]
        here = {
            name: trace[name].values.ravel() for name in ("gap", "train_loss", "train_accuracy")
        }
        instance = np.repeat(np.arange(instances), members)
        tables.append(pd.DataFrame(here | columns | {
            "setting": setting, "instance": [f"{seed}-{i}" for i in instance],
        }))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    table = table.loc[table.train_accuracy > GATE].reset_index(drop=True)
    scale = table["I(X;Z|Y), jensen"].mean() / table["I(S;θ)"].mean()
    table[RESCALED] = scale * table["I(S;θ)"] + table["I(X;Z|Y), jensen"]
    return table


BASELINES = (
    *PARTS, "I(S;θ)", "I(S;θ), several seeds", "I(S;θ), all layers", "parameters", "m log m",
    "sum of norms", "product of norms",
)  # fmt: skip
MEASURES = (COMBINED, RESCALED, *BASELINES, "I(S;θ), published")


def per_seed(traces: Traces, arms: Sequence[str]) -> list[pd.DataFrame]:
    first = next(traces[arm] for arm in arms if arm in traces)
    return [models(traces, arms, seed) for seed in range(first.sizes["seed"])]


def _each(
    traces: Traces, arms: Sequence[str], measure: Callable[[pd.DataFrame], float]
) -> np.ndarray:
    """`measure` of every seed's models; NaN where those that learned are of one setting."""
    tables = per_seed(traces, arms)
    return np.array([measure(t) if t.setting.nunique() > 1 else np.nan for t in tables])


def _tau(table: pd.DataFrame, name: str) -> float:
    return correlation(table[name].to_numpy(float), table.gap.to_numpy(float))


def _best(table: pd.DataFrame, names: Sequence[str]) -> float:
    return np.fmax.reduce([_tau(table, name) for name in names])


def over_best(traces: Traces, arms: Sequence[str] = tuple(CLUSTERS)) -> np.ndarray:
    """Kendall's tau of the combined measure with the gap, minus the best baseline's."""
    return _each(traces, arms, lambda t: _tau(t, COMBINED) - _best(t, BASELINES))


def over_best_by_settings(traces: Traces) -> np.ndarray:
    """Lower end of the 95 % interval of that difference when settings are resampled."""

    def low(table: pd.DataFrame) -> float:
        x, y = table[COMBINED].to_numpy(float), table.gap.to_numpy(float)
        others = [table[name].to_numpy(float) for name in BASELINES]
        return cluster_interval(x, y, table.setting.to_numpy(), against=others)[0]

    return _each(traces, tuple(CLUSTERS), low)


def over_sizes(traces: Traces, arms: Sequence[str] = tuple(CLUSTERS)) -> np.ndarray:
    """The combined measure against parameter counts and norms alone."""
    return _each(
        traces, arms, lambda t: _tau(t, COMBINED) - _best(t, BASELINES[-4:])
    )  # fmt: skip


def within_best(traces: Traces) -> np.ndarray:
    """The same difference as `over_best` with Kendall's tau inside data instances."""

    def ahead(table: pd.DataFrame) -> float:
        y, instance = table.gap.to_numpy(float), table.instance.to_numpy()
        taus = [within_groups(table[name].to_numpy(float), y, instance)
                for name in (COMBINED, *BASELINES)]  # fmt: skip
        return taus[0] - np.fmax.reduce(taus[1:])

    return _each(traces, tuple(CLUSTERS), ahead)


def partial_tau(traces: Traces, arms: Sequence[str] = tuple(CLUSTERS)) -> np.ndarray:
    """Kendall's tau of the combined measure with the gap, the training loss held fixed."""

    def at_equal_loss(table: pd.DataFrame) -> float:
        x, y, z = (table[c].to_numpy(float) for c in (COMBINED, "gap", "train_loss"))
        return partial_correlation(x, y, z)

    return _each(traces, arms, at_equal_loss)


def conditional_gain(how: str, traces: Traces, arms: Sequence[str] = tuple(CLUSTERS)) -> np.ndarray:
    """tau of I(X;Z|Y) minus tau of I(X;Z)."""
    given, plain = f"I(X;Z|Y), {how}", f"I(X;Z), {how}"
    return _each(traces, arms, lambda t: _tau(t, given) - _tau(t, plain))


def control(traces: Traces, arms: Mapping[str, Config] = CLUSTERS) -> np.ndarray:
    """Gap with dual ascent minus gap without, same data and starts, mean over models."""
    rows = []
    for arm, config in arms.items():
        if arm in traces and config.dual_rate:
            plain = traces[arm.replace(f"dual-{config.dual_rate:g}", "dual-0")]
            both = (t.gap.isel(step=-1).mean(("instance", "member")) for t in (traces[arm], plain))
            rows.append(np.subtract(*(b.values for b in both)))
    return np.mean(rows, axis=0)


def layer_profiles(traces: Traces, name: str) -> np.ndarray:
    """A measure by hidden layer [seed, model, layer] of the plain networks."""
    rows = []
    for arm in LAYERS:
        if arm not in traces:
            continue
        trace = traces[arm].isel(step=-1)
        if name.startswith("weights"):  # the classifier's depth comes last
            values = trace[name].transpose("seed", "member", "depth").values[:, None, :, :-1]
            values = np.repeat(values, trace.sizes["instance"], axis=1)
        else:
            values = trace[name].transpose("seed", "instance", "member", "layer").values
        rows.append(values.reshape(len(values), -1, values.shape[-1]))
    return np.concatenate(rows, axis=1)


def layer_slope(name: str, traces: Traces) -> np.ndarray:
    """Share of models that gain with depth minus share that lose, by the slope on the layer."""
    profiles = layer_profiles(traces, name)
    depth = np.arange(profiles.shape[-1]) - (profiles.shape[-1] - 1) / 2
    return np.sign(profiles @ depth).mean(1)


def interior(traces: Traces) -> np.ndarray:
    """Share of models whose combined measure is lowest at neither the first nor the last layer."""
    given = layer_profiles(traces, "given_class_bins")
    lowest = combined(given, layer_profiles(traces, "weights_jensen")).argmin(-1)
    return ((lowest > 0) & (lowest < given.shape[-1] - 1)).mean(1)


def size_points(traces: Traces, weights: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Information over n, and gap, means over models [seed, size]."""
    rates, gaps = [], []
    for arm, config in BY_SIZE.items():
        trace = traces[arm].isel(step=-1).mean(("instance", "member"))
        total = trace.given_class_mc.isel(layer=0).values
        if weights:
            total = total + trace.weights_jensen.isel(depth=0).values
        assert config.examples is not None
        rates.append(total / config.examples)
        gaps.append(trace.gap.values)
    return np.array(rates).T, np.array(gaps).T


def exponent(traces: Traces, weights: bool = True) -> np.ndarray:
    """Slope of log gap on log (information / n); NaN where fewer than three gaps are positive."""
    found = []
    for rate, gap in zip(*size_points(traces, weights), strict=True):
        usable = gap > 0
        fit = (
            np.polyfit(np.log(rate[usable]), np.log(gap[usable]), 1)
            if usable.sum() > 2
            else [np.nan]
        )
        found.append(fit[0])
    return np.array(found)


def exponent_off(traces: Traces, weights: bool = True) -> np.ndarray:
    return np.abs(exponent(traces, weights) - 0.5)


CLAIMS = (
    Claim("C1", "the combined measure goes with the gap better than every baseline and either part",
          "best of all measures on every data set", tuple(CLUSTERS)[:2], over_best, "> 0",
          "difference of Kendall's tau"),
    Claim("C1.settings", "so it does when settings are resampled (lower end of the interval)", "–",
          tuple(CLUSTERS)[:2], over_best_by_settings, "> 0", "difference of Kendall's tau"),
    Claim("C1.sizes", "it goes with the gap better than parameter counts and norms",
          "better", tuple(CLUSTERS)[:2], over_sizes, "> 0", "difference of Kendall's tau"),
    Claim("C1.within", "it is the best measure inside data sets, which differ in difficulty", "–",
          tuple(CLUSTERS)[:2], within_best, "> 0", "difference of Kendall's tau"),
    Claim("C1.partial", "it still goes with the gap at equal training loss", "–",
          tuple(CLUSTERS)[:2], partial_tau, "> 0", "Kendall's partial tau"),
    Claim("C1.halves", "it is the best measure when data sets are halves of one", "–",
          tuple(HALVES)[:1], partial(over_best, arms=tuple(HALVES)), "> 0",
          "difference of Kendall's tau"),
    Claim("C2.bins", "I(X;Z|Y) by bins falls with depth", "falls", tuple(LAYERS)[:1],
          partial(layer_slope, "given_class_bins"), "< 0", "rising minus falling models"),
    Claim("C2.probe", "I(X;Z|Y) by the noise probe falls with depth", "falls", tuple(LAYERS)[:1],
          partial(layer_slope, "given_class_probe"), "< 0", "rising minus falling models"),
    Claim("C2.weights", "I(S;θ) rises with depth", "rises", tuple(LAYERS)[:1],
          partial(layer_slope, "weights_jensen"), "> 0", "rising minus falling models"),
    Claim("C2.interior", "the combined measure is lowest at an inner layer", "a trade-off",
          tuple(LAYERS)[:1], interior, "> 0.5", "share of models"),
    Claim("C3", "I(X;Z|Y) is the better predictor than I(X;Z), upper bounds", "better",
          tuple(CLUSTERS)[:2], partial(conditional_gain, "jensen"), "> 0",
          "difference of Kendall's tau"),
    Claim("C3.mc", "I(X;Z|Y) is the better predictor than I(X;Z), Monte Carlo", "better",
          tuple(CLUSTERS)[:2], partial(conditional_gain, "mc"), "> 0",
          "difference of Kendall's tau"),
    Claim("C4", "controlling I(X;Z) by dual ascent lowers the gap", "lowers it",
          tuple(CLUSTERS)[:2], control, "< 0", "nats"),
    Claim("C5", "the gap grows as ((I(X;Z|Y) + I(S;θ)) / n)^0.5 (distance of the exponent)",
          "exponent 0.5 in the bound", tuple(BY_SIZE), exponent_off, "< 0.2", "1"),
    Claim("C5.encoder", "the gap grows as (I(X;Z|Y) / n)^0.5 (distance of the exponent)", "–",
          tuple(BY_SIZE), partial(exponent_off, weights=False), "< 0.2", "1"),
)  # fmt: skip


def of_pictures(name: str, thing: str) -> tuple[Claim, ...]:
    """The claims on networks that were trained on pictures."""
    arms = tuple(PICTURES[name])
    tau = "difference of Kendall's tau"
    return (
        Claim(f"C1.{name}", f"{thing}: the combined measure goes with the gap better than every baseline "
              "and either part", "best of all measures", arms[:2], partial(over_best, arms=arms),
              "> 0", tau),
        Claim(f"C1.{name}-sizes", f"{thing}: it goes with the gap better than parameter counts and norms",
              "better", arms[:2], partial(over_sizes, arms=arms), "> 0", tau),
        Claim(f"C1.{name}-partial", f"{thing}: it goes with the gap at equal training loss", "–",
              arms[:2], partial(partial_tau, arms=arms), "> 0", "Kendall's partial tau"),
        Claim(f"C3.{name}", f"{thing}: I(X;Z|Y) is the better predictor than I(X;Z), Monte Carlo",
              "better", arms[:2], partial(conditional_gain, "mc", arms=arms), "> 0", tau),
        Claim(f"C4.{name}", f"{thing}: controlling I(X;Z) by dual ascent lowers the gap", "–",
              arms[:2], partial(control, arms=PICTURES[name]), "< 0", "nats"),
    )  # fmt: skip


def draw_correlations(arms: Sequence[str], traces: Traces) -> MatplotlibFigure:
    """Every measure's tau: over all models with an interval, inside instances, at equal loss."""
    figure, ax = style.figure(width=7.6, height=4.8)
    table = pd.concat(per_seed(traces, arms), ignore_index=True)
    found = correlation_table(table, MEASURES).loc[list(MEASURES)]
    rows = np.arange(len(found))[::-1]
    ax.hlines(rows + 0.22, found.low, found.high, color=style.colours[0], linewidth=1.2)
    for place, (column, mark, label) in enumerate((
        ("kendall", "o", "all models, 95 % over settings"),
        ("within", "s", "inside data sets"),
        ("partial", "^", "at equal training loss"),
    )):  # fmt: skip
        ax.plot(found[column], rows + 0.22 * (1 - place), mark, color=style.colours[place], markersize=5,
                label=label)  # fmt: skip
    ax.axvline(0, color=style.colours[6], linestyle=":")
    ax.set(title=f"{len(table)} models", xlabel="Kendall's tau with the gap", xlim=(-0.6, 0.8))
    ax.set_yticks(rows, list(found.index))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_scatter(traces: Traces) -> MatplotlibFigure:
    """Both parts and the sum against the gap, by weight decay."""
    figure, axes = style.figure(1, 3, sharey=True)
    table = pd.concat(per_seed(traces, tuple(CLUSTERS)), ignore_index=True)
    for ax, name in zip(axes, ("I(X;Z|Y), jensen", "I(S;θ)", COMBINED), strict=True):
        for place, decay in enumerate(DECAYS):
            rows = table[[CLUSTERS[s].decay == decay for s in table.setting]]
            if len(rows):
                ax.plot(rows[name], rows.gap, ".", color=style.colours[place], alpha=0.6,
                        label=f"weight decay {decay:g}")  # fmt: skip
        ax.set(xscale="log", xlabel=f"{name} in bits")
    axes[0].set_ylabel("test loss minus training loss in nats")
    axes[0].legend()
    return figure


def draw_layers(traces: Traces) -> MatplotlibFigure:
    """What the layers of plain networks keep, mean and range of settings."""
    figure, (left, middle, right) = style.figure(1, 3)
    for ax, names, title in (
        (left, {"information_bins": "I(X;Z)", "given_class_bins": "I(X;Z|Y)"}, "10 bins"),
        (middle, {"information_probe": "I(X;Z)", "given_class_probe": "I(X;Z|Y)"}, "noise probe"),
        (
            right,
            {"weights_jensen": "I(S;θ)", "weights_published": "the authors' density"},
            "weights",
        ),
    ):
        for place, (name, label) in enumerate(names.items()):
            profiles = layer_profiles(traces, name)
            profiles = profiles.reshape(-1, profiles.shape[-1])
            low, mean, high = (np.quantile(profiles, q, axis=0) for q in (0.1, 0.5, 0.9))
            depth = np.arange(1, len(mean) + 1)
            ax.plot(
                depth,
                mean,
                "os"[place] + "-",
                markersize=4,
                color=style.colours[place],
                label=label,
            )
            ax.fill_between(depth, low, high, color=style.colours[place], alpha=0.15, linewidth=0)
        ax.set(title=title, xlabel="hidden layer", ylabel="bits")
        ax.set_xticks(depth)
        ax.legend()
    right.set_yscale("log")
    return figure


def draw_sizes(traces: Traces) -> MatplotlibFigure:
    """The gap against information over n."""
    figure, axes = style.figure(1, 2)
    for ax, weights, label in (
        (axes[0], True, "(I(X;Z|Y) + I(S;θ)) / n in bits"), (axes[1], False, "I(X;Z|Y) / n in bits"),
    ):  # fmt: skip
        rates, gaps = size_points(traces, weights)
        for rate, gap in zip(rates, gaps, strict=True):
            ax.plot(rate, np.where(gap > 0, gap, np.nan), ".-", color=style.colours[0], alpha=0.5)
        x = np.sort(rates.mean(0))
        middle = np.exp(np.log(np.maximum(gaps.mean(0), 1e-4)).mean())
        ax.plot(x, middle * (x / np.exp(np.log(x).mean())) ** 0.5, "--", color=style.colours[1],
                label="slope 0.5")  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="gap in nats")
        ax.legend()
    return figure


QUICK = tuple(arm for arm, c in (CLUSTERS | HALVES).items() if c.width in (32, 64))
BY_LAYER = tuple(arm for arm, c in LAYERS.items() if c.width == 128)
SMALL = {
    name: tuple(arm for arm, c in arms.items() if c.width < 128) for name, arms in PICTURES.items()
}
SMOKE = (*tuple(CLUSTERS)[:2], *tuple(HALVES)[:1])
WHOLE = {"pixels": 28, "train": 8000, "more": 2000}
TINY = {
    "width": 4,
    "depth": 2,
    "epochs": 8,
    "swa_start": 4,
    "members": 1,
    "instances": 2,
    "train": 50,
    "more": 40,
}

study = Study(
    paper=Paper(
        slug="information-bottleneck",
        title="How Does Information Bottleneck Help Deep Learning?",
        authors="Kenji Kawaguchi, Zhun Deng, Xu Ji, Jiaoyang Huang",
        venue="ICML",
        year=2023,
        arxiv="2305.18887",
        code="xu-ji/information-bottleneck",
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
        "smoke": Budget(2, SMOKE, TINY),
        "quick": Budget(4, QUICK, {"members": 2}),
        "layers": Budget(4, BY_LAYER, {"members": 2}),
        "sizes": Budget(4, tuple(BY_SIZE), {"members": 2}),
        **{name: Budget(4, arms, {"members": 2}) for name, arms in SMALL.items()},
        "full": Budget(
            5, arm_settings=
            dict.fromkeys(DIGITS, {"source": "mnist"} | WHOLE) | dict.fromkeys(CLOTHES, WHOLE)
        ),
    },
    claims=(*CLAIMS, *of_pictures("digits", "handwritten digits"), *of_pictures("clothes", "clothes")),
    figures=(
        *(
            Figure(name, f"Kendall's tau of each measure with the generalisation gap: {about}. Models "
                   "with training accuracy above 0.85.", partial(draw_correlations, tuple(arms)),
                   tuple(arms)[:1])
            for name, about, arms in (
                ("correlations", "fresh data sets", CLUSTERS),
                ("correlations-halves", "halves of one data set", HALVES),
                ("correlations-digits", "handwritten digits", DIGITS),
                ("correlations-clothes", "pictures of clothes", CLOTHES),
            )
        ),
        Figure("scatter", "Both parts of the combined measure and their sum, which is the larger part "
               "alone.", draw_scatter, tuple(CLUSTERS)[:1]),
        Figure("layers", "What the hidden layers of plain networks keep: median of models, bands from "
               "the tenth to the ninetieth percentile.", draw_layers, tuple(LAYERS)[:1]),
        Figure("sizes", "The gap of networks with encoder noise 1, trained on 25 to 400 examples; a line "
               "a seed.", draw_sizes, tuple(BY_SIZE)),
    ),
    data="synthetic (Gaussian clusters in the plane), MNIST, Fashion-MNIST",
    watch="train_accuracy",
    notes="A seed is a replicate: three data sets and two (full: three) starts of every setting. The "
    "budget quick: widths 32 and 64 of 32 to 256; layers: plain networks of width 128 of 128 to "
    "512; sizes: 25 to 400 examples. Encoders have a single stochastic layer, so "
    "the minimum over layers is that layer. digits and clothes: widths 32 and 64 of 32 to "
    "256, images of 14 by 14, 1,000 of them (full: of 28 by 28, 8,000). CIFAR networks were not trained.",
)  # fmt: skip
