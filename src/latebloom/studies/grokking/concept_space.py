"""Hidden capabilities: a generator can compose unseen concepts before prompting shows it.

Park, Okawa, Lee, Lubana & Tanaka (NeurIPS 2024, arXiv:2406.19370).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from scipy.stats import spearmanr

from latebloom.core.process import Process
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.grokking.concept_space import (
    ConceptClassifier,
    ConceptSpace,
    Discs,
    ImageConceptSpace,
    MLPDenoiser,
    UNet,
    VectorReader,
    Vectors,
    draw_corners,
    landscape_trajectory,
    learning_time,
    signed_area,
    smooth,
    train_classifier,
    turning_point,
)

TARGET = -1  # the class with every bit set comes last
COLOUR, OTHER = 0, 1


@dataclass(frozen=True)
class Config:
    """The paper's 2x2 images and variational diffusion model.

    Attributes:
        world: rendered discs, or their fast twin of Gaussian vectors.
        concepts: the first is the colour.
        sep_colour, sep_size, sep_background: signal of each concept, the distance of its two means.
        channels, blocks, patched: of the U-Net (patched: 2x2 pixels as one).
        widths: of the vectors' denoiser.
        clip_norm, data_noise, gamma_min, gamma_max: of the training loss, as in the authors' code.
        mask: probability that the colour is missing from a condition of the second class.
        p_cfg, w_cfg: classifier-free guidance, if `guidance`.
        deterministic: squared-error regression from the condition to the sample.
        interventions: over-prompt, steer, and try placebos at every observation.
        patched_embedding: try the embedding module of the end of the run, too.
        over_prompts: half distances of the exaggerated colours.
        scales: of the linear intervention.
        checkpoints, first_check: observations, spaced quadratically from the first to the last.
        classifier_steps: of training the concept classifier, for images.
    """

    world: Literal["images", "vectors"] = "images"
    concepts: tuple[str, ...] = ("colour", "size")
    sep_colour: float = 0.3
    sep_size: float = 0.4
    sep_background: float = 0.8
    image_size: int = 32
    nuisance: int = 2
    channels: tuple[int, ...] = (64, 128, 256)
    blocks: int = 2
    patched: bool = False
    widths: tuple[int, ...] = (64, 64, 64)
    time_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    init_scale: float = 1.0
    clip_norm: float = 0.01
    data_noise: float = 1e-3
    gamma_min: float = -5.0
    gamma_max: float = 10.0
    batch_size: int = 64
    per_class: int = 1740
    mask: float = 0.0
    guidance: bool = False
    p_cfg: float = 0.0
    w_cfg: float = 0.5
    deterministic: bool = False
    interventions: bool = False
    patched_embedding: bool = False
    over_prompts: tuple[float, ...] = (0.1, 0.15, 0.25, 0.35, 0.45)
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0)
    samples: int = 32
    sampler_steps: int = 50
    steps: int = 20_000
    checkpoints: int = 60
    first_check: int = 100
    classifier_steps: int = 10_000


VECTORS = Config(
    world="vectors", time_size=16, gamma_min=-9.0, gamma_max=5.0, steps=4000, checkpoints=60,
    first_check=30,
)  # fmt: skip


@cache
def classifier(concepts: tuple[str, ...], size: int, steps: int) -> tuple[ConceptClassifier, float]:
    """The images' concept classifier, one for all arms and seeds, and its accuracy on all concepts."""
    trained, report = train_classifier(
        jax.random.key(0),
        Discs(concepts=concepts, image_size=size),
        steps=steps,
        learning_rate=5e-3,
    )
    if report["all"] < 0.9:
        raise ValueError(
            f"the concept classifier is right on {report['all']:.0%} of images: raise classifier_steps"
        )
    return trained, report["all"]


def make_process(config: Config) -> Process:
    """The learning process of an arm."""
    seps = {
        "colour": config.sep_colour,
        "size": config.sep_size,
        "background": config.sep_background,
    }
    settings = {
        name: getattr(config, name)
        for name in (
            "learning_rate", "weight_decay", "clip_norm", "data_noise", "init_scale", "mask", "p_cfg",
            "w_cfg", "batch_size", "per_class", "samples", "sampler_steps", "interventions",
            "guidance", "deterministic", "over_prompts", "scales",
        )
    }  # fmt: skip
    settings["gamma_range"] = (config.gamma_min, config.gamma_max)
    settings["patch_from"] = config.steps if config.patched_embedding else 0
    if config.world == "vectors":
        world = Vectors(
            jnp.array([seps[name] for name in config.concepts]), config.concepts, config.nuisance
        )
        network = partial(MLPDenoiser, world.shape[0], config.widths, time_size=config.time_size)
        return ConceptSpace(world, VectorReader(world), network, **settings)
    world = Discs(**{f"sep_{n}": v for n, v in seps.items()}, concepts=config.concepts,
                  image_size=config.image_size)  # fmt: skip
    network = partial(
        UNet, config.channels, config.blocks, patched=config.patched, time_size=config.time_size
    )
    reader, accuracy = classifier(config.concepts, config.image_size, config.classifier_steps)
    return ImageConceptSpace(
        world,
        reader,
        network,
        keep_images=config.interventions,
        reader_accuracy=accuracy,
        **settings,
    )


def schedule(config: Config) -> np.ndarray:
    """Observation steps, spaced quadratically as in the paper."""
    first = min(config.first_check, config.steps)
    roots = np.linspace(np.sqrt(first), np.sqrt(config.steps), config.checkpoints)
    return np.unique(np.append((roots**2).astype(int), config.steps))


COLOURS, SIZES = (0.1, 0.2, 0.4, 0.8), (0.1, 0.2, 0.4)
IMAGE_COLOURS, IMAGE_SIZES = (0.2, 0.4, 0.6, 0.8), (0.1, 0.2, 0.3, 0.4)
MASKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _sweep(world: str, colour: float, size: float) -> str:
    return f"{world}-c{colour}-s{size}"


def _mask(world: str, probability: float) -> str:
    return f"{world}-mask-{probability}"


IMAGES = Config()
SHAPES = replace(IMAGES, concepts=("colour", "shape"), sep_colour=0.8)
THREE = ("colour", "size", "background")
GUIDED = {"guidance": True, "p_cfg": 0.1}
ARMS: dict[str, Config] = {
    "vectors-hidden": replace(
        VECTORS, sep_colour=0.1, sep_size=0.4, interventions=True, patched_embedding=True
    ),
    **{
        _sweep("vectors", c, s): replace(VECTORS, sep_colour=c, sep_size=s)
        for c in COLOURS
        for s in SIZES
    },
    **{_mask("vectors", p): replace(VECTORS, sep_colour=0.4, mask=p) for p in MASKS},
    "vectors-three": replace(
        VECTORS, concepts=THREE, sep_colour=0.4, sep_size=0.4, sep_background=0.1
    ),
    "vectors-cfg": replace(VECTORS, sep_colour=0.1, **GUIDED),
    "vectors-regression": replace(VECTORS, sep_colour=0.1, deterministic=True),
    "images-hidden": replace(IMAGES, interventions=True),
    **{
        _sweep("images", c, s): replace(IMAGES, sep_colour=c, sep_size=s)
        for c in IMAGE_COLOURS
        for s in IMAGE_SIZES
    },
    **{_mask("images", p): replace(SHAPES, mask=p) for p in MASKS},
    "images-three": replace(
        IMAGES, concepts=THREE, sep_colour=0.6, sep_size=0.35, sep_background=0.1, steps=40_000,
        checkpoints=120, first_check=50,
    ),
    "images-cfg": replace(IMAGES, **GUIDED),
    "images-regression": replace(IMAGES, deterministic=True),
    "images-small-init": replace(IMAGES, init_scale=0.1),
    "images-strong-decay": replace(IMAGES, weight_decay=0.05),
}  # fmt: skip
CONTROLS = ("vectors-cfg", "vectors-regression", "vectors-three")
QUICK_ARMS = tuple(name for name in ARMS if name.startswith("vectors") and name not in CONTROLS)


def best(trace: xr.Dataset, name: str) -> np.ndarray:
    """Accuracy `[seed, step]` on the target class of the best variant at each checkpoint."""
    values = trace[name]
    return values.max(str(values.dims[-1])).values


def naive(trace: xr.Dataset) -> np.ndarray:
    """Accuracy `[seed, step]` of the plain prompt on the target class."""
    return trace.accuracy.isel({"class": TARGET}).values


def times(
    trace: xr.Dataset, curves: np.ndarray, threshold: float = 0.9, censored: bool = True
) -> np.ndarray:
    """Learning time of each seed's curve; the last step (or NaN) if it is not reached."""
    found = np.array([learning_time(trace.step.values, c, threshold=threshold) for c in curves])
    return np.where(np.isnan(found), trace.step.values[-1], found) if censored else found


def concept_times(trace: xr.Dataset, concept: int, threshold: float = 0.9) -> np.ndarray:
    """Learning time of a concept on the target class, each seed; the last step if never."""
    curves = trace.concept_accuracy.isel({"class": TARGET, "concept": concept}).values
    return times(trace, curves, threshold)


def target_path(trace: xr.Dataset) -> np.ndarray:
    """Smoothed trajectory of the target class `[seed, step, concept]`."""
    path = trace.probability.isel({"class": TARGET}).values
    return np.stack([smooth(one) for one in path])


def speed_order(traces: Traces, world: str, concept: int) -> np.ndarray:
    """Rank correlation of a concept's signal with its speed 1/T, mean over the other's signal."""
    colours, sizes = (COLOURS, SIZES) if world == "vectors" else (IMAGE_COLOURS, IMAGE_SIZES)
    t = np.array(
        [[concept_times(traces[_sweep(world, c, s)], concept) for s in sizes] for c in colours]
    )
    t = t if concept == COLOUR else t.swapaxes(0, 1)
    signals = colours if concept == COLOUR else sizes
    return np.array(
        [
            np.mean([_rank(signals, 1 / t[:, j, k]) for j in range(t.shape[1])])
            for k in range(t.shape[2])
        ]
    )


def _rank(signal: tuple[float, ...], response: np.ndarray) -> float:
    """Spearman's correlation; 0 for a response that does not vary, as it shows no order."""
    return 0.0 if np.ptp(response) == 0 else float(spearmanr(signal, response)[0])  # type: ignore[arg-type]


def order_switch(traces: Traces, colour_strong: str, size_strong: str) -> np.ndarray:
    """How surely the trajectory bends first to the stronger concept, whichever that is."""
    colour_first = [signed_area(path) for path in target_path(traces[colour_strong])]
    size_first = [signed_area(path) for path in target_path(traces[size_strong])]
    return np.minimum(colour_first, np.negative(size_first))


def detour(traces: Traces, arm: str) -> np.ndarray:
    """Largest lead of the strong concept over the weak colour: 1 at the wrong corner, 0 on the way."""
    path = target_path(traces[arm])
    return (path[..., OTHER] - path[..., COLOUR]).max(1)


def lead(traces: Traces, arm: str, intervention: str) -> np.ndarray:
    """log10 of T(naive) / T(intervention); NaN where the intervention never succeeds."""
    trace = traces[arm]
    early = times(trace, best(trace, intervention), censored=False)
    return np.log10(times(trace, naive(trace)) / early)


def at_onset(traces: Traces, arm: str, quantity: str) -> np.ndarray:
    """A smoothed accuracy of each seed at the step where over-prompting first succeeds.

    "placebo_prompt_accuracy": the best placebo; "accuracy": the worst class seen in training.
    """
    trace = traces[arm]
    onset = times(trace, best(trace, "over_prompt_accuracy"), censored=False)
    seen = trace["class"].str.count("1").values <= 1
    values = (
        trace.accuracy.values[..., seen].min(2) if quantity == "accuracy" else best(trace, quantity)
    )
    found = [smooth(v)[np.searchsorted(trace.step.values, t)] if t == t else np.nan
             for v, t in zip(values, onset, strict=True)]  # fmt: skip
    return np.array(found)


def spread(traces: Traces, arm: str) -> np.ndarray:
    """Deviation of T(over-prompt) from its mean less that of T(naive), in steps."""
    trace = traces[arm]
    over = times(trace, best(trace, "over_prompt_accuracy"))
    plain = times(trace, naive(trace))
    return np.abs(over - over.mean()) - np.abs(plain - plain.mean())


def masking_delay(traces: Traces, world: str) -> np.ndarray:
    """Rank correlation of the masking probability with the colour's learning time, threshold 0.8."""
    t = np.array([concept_times(traces[_mask(world, p)], COLOUR, threshold=0.8) for p in MASKS])
    return np.array([_rank(MASKS, t[:, k]) for k in range(t.shape[1])])


def final_colour(traces: Traces, arm: str) -> np.ndarray:
    """Colour accuracy on the target class at the end."""
    curves = traces[arm].concept_accuracy.isel({"class": TARGET, "concept": COLOUR}).values
    return np.stack([smooth(c) for c in curves])[:, -1]


def weak_concept_deficit(traces: Traces, arm: str) -> np.ndarray:
    """Final accuracy of the strong concepts less that of the weak one, over unseen combinations of it."""
    end = traces[arm].concept_accuracy.isel(step=-1).values
    weak = end.shape[2] - 1
    labels = traces[arm]["class"].values
    unseen = np.array([label[weak] == "1" and label.count("1") > 1 for label in labels])
    return end[:, unseen, :weak].mean((1, 2)) - end[:, unseen, weak].mean(1)


def _claims(world: str, colour_strong: str, size_strong: str) -> tuple[Claim, ...]:
    colours, sizes = (COLOURS, SIZES) if world == "vectors" else (IMAGE_COLOURS, IMAGE_SIZES)
    sweep = tuple(_sweep(world, c, s) for c in colours for s in sizes)
    hidden = f"{world}-hidden"
    masks = tuple(_mask(world, p) for p in MASKS)

    def claim(
        number: str, text: str, paper: str, arms: tuple[str, ...], effect: Callable[..., np.ndarray],
        holds: str, unit: str, **arguments: object,
    ) -> Claim:  # fmt: skip
        return Claim(
            f"{number}-{world}",
            f"{text} ({world})",
            paper,
            arms,
            partial(effect, **arguments),
            holds,
            unit,
        )

    ratio = "log10 of a ratio of steps"
    return (
        claim("C1-colour", "The stronger the colour's signal, the sooner the colour is learned",
              "1/T grows with the colour separation", sweep, speed_order, "> 0.8",
              "rank correlation", world=world, concept=COLOUR),
        claim("C1-size", "The stronger the size's signal, the sooner the size is learned",
              "1/T grows with the size separation", sweep, speed_order, "> 0.8",
              "rank correlation", world=world, concept=OTHER),
        claim("C2-order", "The path of the unseen class bends first to the stronger concept",
              "the trajectory follows the relative signal", (colour_strong, size_strong), order_switch,
              "> 0", "signed area", colour_strong=colour_strong, size_strong=size_strong),
        claim("C2-corner", "With a weak colour the unseen class first goes to a wrong corner",
              "memorised corner first, then a sudden turn", (size_strong,), detour, "> 0.5",
              "probability", arm=size_strong),
        claim("C3-over", "Over-prompting succeeds on the unseen class before the plain prompt does",
              "thousands of steps earlier", (hidden,), lead, "> 0.0792", ratio, arm=hidden,
              intervention="over_prompt_accuracy"),
        claim("C3-linear", "Linear intervention succeeds before the plain prompt does",
              "thousands of steps earlier", (hidden,), lead, "> 0.0792", ratio, arm=hidden,
              intervention="linear_accuracy"),
        claim("C3-placebo", "A random prompt of equal norm does not do it when over-prompting does",
              "the direction matters", (hidden,), at_onset, "< 0.8", "accuracy", arm=hidden,
              quantity="placebo_prompt_accuracy"),
        claim("C3-seen", "The classes of the training set are by then generated rightly",
              "the capability is hidden, not absent", (hidden,), at_onset, "> 0.9", "accuracy",
              arm=hidden, quantity="accuracy"),
        claim("C3-spread", "The onset varies less between seeds than the plain prompt's success",
              "nearly the same step in every run", (hidden,), spread, "< 0", "steps", arm=hidden),
        claim("C4-delay", "Leaving the colour out of prompts slows the learning of colour",
              "the more is masked, the slower", masks, masking_delay, "> 0.8", "rank correlation",
              world=world),
        claim("C4-fails", "With all colours of a class masked its unseen counterpart keeps that colour",
              "a blue triangle comes out red", (masks[-1],), final_colour, "< 0.2", "accuracy",
              arm=masks[-1]),
        claim("C6-weak", "Of three concepts the weak one lags on unseen combinations at the end",
              "a weak-signal concept may never generalise", (f"{world}-three",),
              weak_concept_deficit, "> 0.1", "accuracy", arm=f"{world}-three"),
    )  # fmt: skip


CLAIMS = (
    *_claims("vectors", _sweep("vectors", 0.4, 0.1), _sweep("vectors", 0.1, 0.4)),
    *_claims("images", _sweep("images", 0.8, 0.1), _sweep("images", 0.2, 0.4)),
)


def draw_trajectories(traces: Traces) -> MatplotlibFigure:
    """Concept space: the unseen class of the sweep, of one image run, and of the toy model."""
    with_images = "images-hidden" in traces
    figure, axes = style.figure(ncols=3 if with_images else 2, height=4.4)
    for ax in axes:
        draw_corners(ax, "colour", "size")
    left, right = axes[0], axes[-1]
    ratios = [(0.1, 0.4), (0.2, 0.4), (0.4, 0.4), (0.4, 0.2), (0.4, 0.1)]
    for (c, s), colour in zip(ratios, style.colours, strict=False):
        path = target_path(traces[_sweep("vectors", c, s)]).mean(0)
        left.plot(*path.T, "o-", markersize=2.5, linewidth=1.4, color=colour)
        toy = landscape_trajectory(np.linspace(0, 100, 2000), np.array([c, s]))
        right.plot(*toy.T, color=colour, label=f"{c} : {s}")
    left.set_title("vectors")
    right.set_title("toy model")
    right.legend(title="colour : size", loc="center")
    if with_images:
        _draw_image_paths(axes[1], traces["images-hidden"])
    return figure


def _draw_image_paths(ax: Axes, trace: xr.Dataset) -> None:
    for seed, path, colour in zip(
        trace.seed.values, target_path(trace), style.colours * 9, strict=False
    ):
        ax.plot(*path.T, "o-", markersize=2.5, label=f"seed {seed}", color=colour, linewidth=1.2)
    for label in ("00", "01", "10"):
        path = smooth(trace.probability.sel({"class": label}).mean("seed").values)
        ax.plot(*path.T, "--", color=style.colours[6], linewidth=1, zorder=1)
    ax.legend(loc="center right")
    ax.set_title("images, colour 0.3 : size 0.4")


def draw_speeds(traces: Traces) -> MatplotlibFigure:
    """Learning speed on the unseen class against a concept's signal."""
    figure, axes = style.figure(ncols=2, sharey=True)
    for ax, concept, own, other, name in (
        (axes[0], COLOUR, COLOURS, SIZES, "colour"), (axes[1], OTHER, SIZES, COLOURS, "size"),
    ):  # fmt: skip
        for fixed, colour in zip(other, style.colours, strict=False):
            arms = [(x, fixed) if concept == COLOUR else (fixed, x) for x in own]
            t = np.array([concept_times(traces[_sweep("vectors", *arm)], concept) for arm in arms])
            speed = 1000 / t
            what = "size" if concept == COLOUR else "colour"
            ax.plot(own, speed.mean(1), "o-", color=colour, label=f"{what} {fixed}")
            ax.fill_between(own, speed.min(1), speed.max(1), color=colour, alpha=0.15, linewidth=0)
        ax.set_xscale("log")
        ax.set_xticks(own, [str(x) for x in own])
        ax.minorticks_off()
        ax.set_xlabel(f"separation of the {name}")
        ax.set_title(f"the {name} is learned")
        ax.legend()
    axes[0].set_ylabel("speed 1/T (per 1000 steps)")
    return figure


CURVES = (
    ("over_prompt_accuracy", "over-prompt", 1),
    ("linear_accuracy", "linear intervention", 2),
    ("patched_accuracy", "final embedding", 3),
    ("placebo_prompt_accuracy", "random prompt", 4),
    ("placebo_linear_accuracy", "random direction", 5),
)


def draw_hidden(traces: Traces) -> MatplotlibFigure:
    """Accuracy on the unseen class: asked plainly, and elicited."""
    arms = [arm for arm in ("vectors-hidden", "images-hidden") if arm in traces]
    figure, axes = style.figure(ncols=len(arms), squeeze=False, width=5.6 * len(arms), sharey=True)
    for ax, arm in zip(axes[0], arms, strict=True):
        trace = traces[arm]
        steps = trace.step.values
        for name, label, colour in CURVES:
            if name in trace:
                _smooth_band(ax, steps, best(trace, name), label, style.colours[colour])
        _smooth_band(ax, steps, naive(trace), "plain prompt", style.colours[0])
        turns = [turning_point(steps, p) for p in trace.probability.isel({"class": TARGET}).values]
        ax.axvline(np.median(turns), color=style.colours[6], linestyle=":", label="turn (median)")
        ax.set_xlabel("step")
        ax.set_title(arm.removesuffix("-hidden"))
    axes[0, 0].set_ylabel("accuracy on class 11")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _smooth_band(ax: Axes, steps: np.ndarray, curves: np.ndarray, label: str, colour: str) -> None:
    smoothed = np.stack([smooth(c) for c in curves])
    ax.plot(steps, smoothed.mean(0), color=colour, label=label)
    ax.fill_between(steps, smoothed.min(0), smoothed.max(0), color=colour, alpha=0.15, linewidth=0)


def draw_samples(traces: Traces) -> MatplotlibFigure:
    """Samples of the unseen class around the turn of one run."""
    trace = traces["images-hidden"].isel(seed=0)
    steps = trace.step.values
    turn = turning_point(steps, trace.probability.isel({"class": TARGET}).values)
    centre = int(np.searchsorted(steps, turn))
    columns = np.unique(np.clip(centre + np.array([-9, -6, -4, -2, 0, 2]), 0, len(steps) - 1))
    n_over, n_linear = trace.sizes["half"], trace.sizes["scale"]
    # Order of the recorded prompts: plain, over-prompts, their placebos, linear, its placebos.
    groups = {
        "plain prompt": (0, None),
        "over-prompt": (1, "over_prompt_accuracy"),
        "random prompt": (1 + n_over, "placebo_prompt_accuracy"),
        "linear": (1 + 2 * n_over, "linear_accuracy"),
        "random direction": (1 + 2 * n_over + n_linear, "placebo_linear_accuracy"),
    }
    figure, axes = style.figure(
        nrows=len(groups),
        ncols=len(columns),
        width=1.55 * len(columns) + 1,
        height=1.15 * len(groups) + 0.4,
    )
    for row, (label, (start, accuracy)) in zip(axes, groups.items(), strict=True):
        for ax, k in zip(row, columns, strict=True):
            chosen = 0 if accuracy is None else int(trace[accuracy].values[k].argmax())
            ax.imshow(np.concatenate(list(trace.images.values[k, start + chosen]), axis=1))
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, k in zip(axes[0], columns, strict=True):
        ax.set_title(f"{steps[k]}", fontsize=9)
    figure.suptitle("two samples of class 11 (small, blue) at each step", fontsize=10)
    return figure


def draw_masking(traces: Traces) -> MatplotlibFigure:
    """How masked prompts delay, and at 100 % prevent, the colour of the unseen class."""
    figure, (left, right) = style.figure(ncols=2)
    finals = []
    for p, colour in zip(MASKS, style.colours, strict=False):
        trace = traces[_mask("vectors", p)]
        curves = trace.concept_accuracy.isel({"class": TARGET, "concept": COLOUR}).values
        _smooth_band(left, trace.step.values, curves, f"{p:.0%} masked", colour)
        finals.append(final_colour(traces, _mask("vectors", p)))
    left.set_xlabel("step")
    left.set_ylabel("colour accuracy on class 11")
    left.legend()
    ends = np.array(finals)
    right.plot(MASKS, ends.mean(1), "o-", color=style.colours[0])
    right.plot(MASKS, ends, ".", color=style.colours[0], alpha=0.5)
    right.set_xlabel("probability that the colour is masked")
    right.set_ylabel("final colour accuracy on class 11")
    right.set_ylim(-0.05, 1.05)
    return figure


def draw_controls(traces: Traces) -> MatplotlibFigure:
    """Losses show nothing sudden; guided and non-diffusion generators for comparison."""
    figure, (left, right) = style.figure(ncols=2)
    plain = _sweep("vectors", 0.1, 0.4)
    for name, label, colour in (
        ("train_loss", "training samples", 0), ("test_loss", "fresh samples", 2),
        ("target_loss", "unseen class", 1),
    ):  # fmt: skip
        style.band(left, traces[plain], name, label=label, colour=style.colours[colour])
    left.set_xlabel("step")
    left.set_ylabel("diffusion loss (bits per coordinate)")
    left.set_title("vectors, colour 0.1 : size 0.4")
    left.legend()
    for arm, label, colour in (
        (plain, "diffusion", 0), ("vectors-cfg", "guided, w = 0.5", 2),
        ("vectors-regression", "regression (no diffusion)", 3),
    ):  # fmt: skip
        trace = traces[arm]
        curves = trace.concept_accuracy.isel({"class": TARGET, "concept": COLOUR}).values
        _smooth_band(right, trace.step.values, curves, label, style.colours[colour])
    right.set_xlabel("step")
    right.set_ylabel("colour accuracy on class 11")
    right.legend()
    return figure


_SWEEP = tuple(_sweep("vectors", c, s) for c in COLOURS for s in SIZES)
_MASKED = tuple(_mask("vectors", p) for p in MASKS)
_VECTORS_QUICK = {"steps": 1200, "checkpoints": 30, "sampler_steps": 30}
_IMAGES_QUICK = {
    "image_size": 16, "channels": (16, 32), "blocks": 1, "patched": True, "time_size": 32,
    "learning_rate": 2e-3, "data_noise": 0.05, "batch_size": 32, "samples": 16, "sampler_steps": 20,
    "over_prompts": (0.15, 0.25, 0.35, 0.45), "scales": (1.0, 2.0, 3.0), "steps": 3000,
    "checkpoints": 20, "first_check": 100, "classifier_steps": 600,
}  # fmt: skip

study = Study(
    paper=Paper(
        slug="concept-space",
        title="Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space",
        authors="Park, Okawa, Lee, Lubana, Tanaka",
        venue="NeurIPS 2024",
        year=2024,
        arxiv="2406.19370",
        code="cfpark00/concept-learning",
    ),
    family="grokking",
    question=(
        "When does a conditional generator learn each concept, and can it combine concepts before "
        "prompting shows that it can?"
    ),
    symptoms=(
        "my generator ignores part of the prompt",
        "a text-to-image model cannot combine two concepts it has seen apart",
        "an ability of a generative model appears suddenly in training",
        "benchmark by prompting says the model cannot, but a stronger prompt makes it",
        "which of two attributes does my diffusion model learn first",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(
            seeds=2,
            arms=("vectors-hidden",),
            settings={
                "steps": 40, "checkpoints": 6, "samples": 4, "sampler_steps": 4, "per_class": 64,
                "widths": (16,), "patched_embedding": False,
            },
        ),
        "quick": Budget(seeds=5, arms=QUICK_ARMS, settings=_VECTORS_QUICK),
        "controls": Budget(
            seeds=5,
            arms=(_sweep("vectors", 0.1, 0.4), *CONTROLS),
            settings=_VECTORS_QUICK,
        ),
        "images": Budget(seeds=4, arms=("images-hidden",), settings=_IMAGES_QUICK),
        "full": Budget(seeds=5),
    },
    claims=CLAIMS,
    figures=(
        Figure("trajectories", "Concept space: mean path of the unseen class 11 in the vector twin for "
               "five ratios of signal, of every image seed (dashed: seen classes), and in the toy model.",
               draw_trajectories, _SWEEP),
        Figure("speeds", "Learning speed of a concept on the unseen class against its signal.",
               draw_speeds, _SWEEP),
        Figure("hidden", "Accuracy on the unseen class over training: the plain prompt, interventions "
               "(best variant at each checkpoint) and placebos of equal norm.",
               draw_hidden, ("vectors-hidden",)),
        Figure("samples", "Samples of the unseen class around the turn of seed 0.", draw_samples,
               ("images-hidden",)),
        Figure("masking", "The colour of the unseen class when prompts leave it out.", draw_masking,
               _MASKED),
        Figure("controls", "Loss curves, guidance, and a generator without diffusion.", draw_controls,
               (_sweep("vectors", 0.1, 0.4), "vectors-cfg", "vectors-regression")),
    ),
    data="synthetic discs and Gaussian vectors",
    notes=(
        "Vectors are a fast twin of the images: Gaussian concept coordinates in place of pixels. The "
        "quick and controls budgets run the vectors only; their separations, schedule and length were "
        "chosen after runs that showed the effect. The images budget (several minutes) has 16x16 pixels and a small U-Net on "
        "2x2 patches, trained with a data noise of 0.05 (the paper: 0.001), which lets it learn in 3,000 "
        "steps. C3-placebo is judged at the step where over-prompting first succeeds. The masked and "
        "three-concept images run at full only. CelebA (Gender x Hat) is not available; use "
        "concept_trajectory on your own generator. C2-corner's and C6's thresholds are ours."
    ),
    watch="target_loss",
    side_by_side=True,
)  # fmt: skip
