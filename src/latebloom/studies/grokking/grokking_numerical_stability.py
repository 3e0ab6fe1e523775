"""Grokking at the Edge of Numerical Stability (Prieto et al., ICLR 2025, arXiv 2501.04697)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import optax
import xarray as xr

from latebloom import data, log_steps, losses, nn, optim, probes
from latebloom.core.process import Quantity
from latebloom.core.training import Supervised, trainable
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import (
    Curve,
    Effect,
    Measure,
    Traces,
    at,
    at_least,
    curve,
    derived,
    during,
    effect,
    final,
    first_step,
    highest,
    log1p,
    log10,
    lowest,
    measure,
    peak,
    pearson,
    setting,
    tail,
)
from latebloom.methods.grokking.interventions import Interruptible
from latebloom.probes.supervised import collapse, geometry


@dataclass(frozen=True)
class Config:
    """One run. Defaults: mod-113 addition, 40 % of the pairs, 2 x 200 ReLU without biases."""

    task: Literal["modular", "parity", "mnist"] = "modular"
    encoding: Literal["one-hot", "binary", "codes"] = "one-hot"
    p: int = 113
    operation: Literal["+", "-", "*"] = "+"
    train_fraction: float = 0.4
    network: Literal["mlp", "transformer"] = "mlp"
    width: int = 200
    hidden: int = 2048
    bias: bool = False
    loss: Literal["softmax", "stablemax", "squared"] = "softmax"
    softmax_precision: Literal["float16", "float32", "float64"] = "float32"
    weights: Literal["float32", "float64"] = "float32"
    logit_scale: float = 1.0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 0.01
    beta2: float = 0.99
    eps: float = 1e-25
    weight_decay: float = 0.0
    momentum: float = 0.2
    perp: Literal["no", "tensor", "network", "unscaled"] = "no"
    freeze_true_class_at: int = -1
    init_scale: float = 1.0
    steps: int = 300
    observations_per_decade: int = 25


def perp_wrapped(perp: str, base: optax.GradientTransformation) -> optax.GradientTransformation:
    if perp == "no":
        return base
    scope: Any = "network" if perp == "network" else "tensor"
    return optax.chain(optim.perp_grad(scope, keep_norm=perp != "unscaled"), base)


def adamw(perp: str, learning_rate: Any, b2: Any, eps: Any, weight_decay: Any) -> Any:
    return perp_wrapped(perp, optax.adamw(learning_rate, 0.9, b2, eps, weight_decay=weight_decay))


def sgd(perp: str, learning_rate: Any, momentum: Any, weight_decay: Any) -> Any:
    return perp_wrapped(perp, optim.sgd(learning_rate, momentum, weight_decay))


def build_mlp(sizes: tuple[int, int, int], config: Config, key: Any) -> nn.MLP:
    in_size, width, out_size = sizes
    return nn.MLP(
        in_size, (width, width), out_size, key=key, use_bias=config.bias,
        init_scale=config.init_scale, logit_scale=config.logit_scale, dtype=config.weights,
        one_hot=config.task == "modular" and config.encoding == "one-hot",
    )  # fmt: skip


def build_transformer(config: Config, key: Any) -> nn.Transformer:
    return nn.Transformer(
        config.p, config.p, key=key, hidden=config.hidden, logit_scale=config.logit_scale
    )


def make_data(config: Config) -> tuple[Any, int, int]:
    """What draws the data, inputs of an example, and classes."""
    if config.task == "mnist":
        whole = data.scaled(data.load("mnist-5k"), flat=True)
        return data.TrainingSubset(whole, 200), whole.x_train.shape[1], 10
    if config.task == "parity":
        parity = data.SparseParity(train_fraction=config.train_fraction)
        return parity, parity.in_size, 2
    encoding = "tokens" if config.network == "transformer" else config.encoding
    draw = data.ModularArithmetic(config.p, config.operation, config.train_fraction, encoding)
    return draw, draw.in_size, config.p


def make_process(config: Config) -> Supervised:
    draw, in_size, classes = make_data(config)
    if config.network == "transformer":
        model = partial(build_transformer, config)
    else:
        model = partial(build_mlp, (in_size, config.width, classes), config)
    hyper = {"learning_rate": config.learning_rate / config.logit_scale**2, "weight_decay": config.weight_decay}  # fmt: skip
    if config.optimiser == "adamw":
        hyper |= {"b2": config.beta2, "eps": config.eps}
    else:
        hyper |= {"momentum": config.momentum}
    loss = {
        "softmax": partial(losses.cross_entropy, precision=config.softmax_precision),
        "stablemax": losses.stablemax_cross_entropy,
        "squared": losses.mean_squared_error,
    }[config.loss]
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda k: trainable(model(k)), jax.random.key(0))
    tensors = {"tensor": probes.tensor_names(shapes)}
    return Interruptible(
        config.freeze_true_class_at,
        model=model,
        data=draw,
        optimiser=partial(adamw if config.optimiser == "adamw" else sgd, config.perp),
        hyper=hyper,
        loss=loss,
        probes={
            "collapse": partial(collapse, config.loss == "stablemax", config.softmax_precision),
            "geometry": geometry,
        },
        about={
            "collapsed_fraction": Quantity(about="share of training examples collapsed"),
            "logit_scaling": Quantity(dims=("tensor",), coords=tensors, about="cos(w, -gradient)"),
            "largest_margin": Quantity("nats", about="largest margin on training examples"),
        },
        x64="float64" in (config.softmax_precision, config.weights),
        seeds_by="map",
    )


def schedule(config: Config) -> np.ndarray:
    return log_steps(config.steps, config.observations_per_decade)


# The authors' commands use two settings of Adam: Fig. 2 (softmax) and Figs. 1 and 4 (StableMax).
# A fair comparison of the losses runs both losses at both.
FIG_2 = {"learning_rate": 5e-4, "beta2": 0.99, "eps": 1e-30, "steps": 20_000}
FIG_4 = {"learning_rate": 0.01, "beta2": 0.999, "eps": 1e-25, "steps": 100_000}
MORE = {"train_fraction": 0.7}
PARITY = {"task": "parity", "bias": True, "train_fraction": 0.5, "steps": 100_000}
PARITY |= {"learning_rate": 0.01, "beta2": 0.999, "eps": 1e-18}
TRANSFORMER = {"network": "transformer", "operation": "-", "learning_rate": 1e-3, "steps": 5000}
SGD = {"optimiser": "sgd", "learning_rate": 10.0, "loss": "stablemax", "steps": 500}
SGD |= {"weights": "float64", "softmax_precision": "float64"}

ARMS = {
    "perp-adamw": Config(perp="tensor", steps=500),
    "adamw": Config(steps=500),
    "stablemax": Config(loss="stablemax", **MORE, **FIG_4),
    "softmax-f32": Config(**MORE, **FIG_2),
    "softmax-f16": Config(softmax_precision="float16", **MORE, **FIG_2),
    "softmax-f64": Config(softmax_precision="float64", **MORE, **FIG_2),
    "softmax-f16-40": Config(softmax_precision="float16", **FIG_2),
    "softmax-f32-40": Config(**FIG_2),
    "softmax-f64-40": Config(softmax_precision="float64", **FIG_2),
    "softmax-fig4": Config(**MORE, **FIG_4),
    "stablemax-fig2": Config(loss="stablemax", **MORE, **FIG_2),
    "stablemax-product": Config(loss="stablemax", operation="*", **FIG_4),
    "softmax-bias": Config(bias=True, **MORE, **FIG_2),
    "frozen-true-class": Config(loss="stablemax", freeze_true_class_at=40_000, **MORE, **FIG_4),
    "parity-stablemax": Config(loss="stablemax", **PARITY),
    "parity-softmax": Config(**PARITY),
    "perp-sgd": Config(perp="tensor", momentum=0.8, **SGD),
    "sgd": Config(**SGD),
    "perp-unscaled": Config(perp="unscaled", steps=500),
    "perp-network": Config(perp="network", steps=500),
    "perp-default-adam": Config(perp="tensor", beta2=0.999, eps=1e-8, steps=500),
    "squared-error": Config(loss="squared", learning_rate=1e-3, steps=20_000),
    "codes": Config(encoding="codes", steps=1000),
    "binary": Config(encoding="binary", steps=1000),
    "transformer-perp": Config(perp="tensor", **TRANSFORMER),
    "transformer-decay": Config(weight_decay=1.5, **TRANSFORMER),
    "transformer": Config(**TRANSFORMER),
    "mnist-large-init": Config(task="mnist", init_scale=8.0, learning_rate=1e-3, steps=50_000),
    "mnist-perp": Config(
        task="mnist", init_scale=8.0, learning_rate=1e-3, perp="tensor", steps=50_000
    ),
}


SOFTMAX = ("softmax-f16", "softmax-f32", "softmax-f64")
SOFTMAX_40 = tuple(f"{arm}-40" for arm in SOFTMAX)
STABLEMAX = ("stablemax", "stablemax-fig2")

test, untrained, norm = final("test_accuracy"), at("test_accuracy", 0), final("weight_norm")
fits = final("train_accuracy")
fitted = first_step("train_accuracy", 1.0)
generalised = first_step("test_accuracy", 0.95)
all_but_all = first_step("test_accuracy", 0.99)
delay = generalised - first_step("train_accuracy", 0.95)
gap = curve("train_accuracy") - curve("test_accuracy")
onset = first_step("collapsed_fraction", 0.01)
collapsed = first_step("collapsed_fraction", 0.01, never="nan")


@measure("step at which test accuracy stops rising")
def stop(trace: xr.Dataset) -> np.ndarray:
    best = np.maximum.accumulate(trace.test_accuracy.values, axis=1)
    return trace.step.values[(best >= best[:, -1:] - 0.01).argmax(axis=1)]


@derived("cos(w, -gradient) of the output layer")
def alignment(trace: xr.Dataset) -> xr.DataArray:
    weights = [t for t in trace.tensor.values if str(t).endswith("weight")]
    return trace.logit_scaling.sel(tensor=weights[-1])


aligned_before = during(np.nanmean, alignment, before=fitted)
aligned_after = during(np.nanmax, alignment, since=fitted)


@effect("rise of StableMax's test accuracy after softmax collapsed", "softmax-f32", "stablemax")
def rise_without_collapse(traces: Traces) -> np.ndarray:
    onset = Measure("softmax's collapse", lambda _: collapsed(traces["softmax-f32"]))
    return (test - at("test_accuracy", onset))(traces["stablemax"])


@measure("largest change of test accuracy after the cut")
def change_after_freezing(trace: xr.Dataset) -> np.ndarray:
    cut = setting(trace, "freeze_true_class_at")
    later = trace.test_accuracy.values[:, trace.step.values >= cut]
    return np.abs(later - at("test_accuracy", cut)(trace)[:, None]).max(axis=1)


@effect("rise of test accuracy after the step of the cut", "stablemax", "frozen-true-class")
def rise_without_freezing(traces: Traces) -> np.ndarray:
    cut = setting(traces["frozen-true-class"], "freeze_true_class_at")
    return (test - at("test_accuracy", cut))(traces["stablemax"])


def best_of(of: Measure, *arms: str) -> Effect:
    return highest(of[arm] for arm in arms)


def gain(of: Measure) -> Effect:
    """StableMax over softmax, each at its better Adam setting."""
    return best_of(of, *STABLEMAX) - best_of(of, "softmax-f32", "softmax-fig4")


def overfits(*arms: str) -> tuple[Need]:
    return (Need(lowest(fits[arm] for arm in arms), "> 0.99", "the training data are not fitted"),)


stop_with_onset = pearson([log1p(onset[a]) for a in SOFTMAX], [log1p(stop[a]) for a in SOFTMAX])
LATER, TOP = "later collapse, higher test accuracy (Fig. 2)", "about 100 % (Fig. 4)"
ACC, COS, GAP = "test accuracy", "cos(w, -gradient)", "largest train - test gap"
CLAIMS = (
    Claim("C1.collapse", "softmax cross-entropy in float32 collapses on training examples once they are fitted",
          "share collapsed rises (Fig. 2)", tail("collapsed_fraction")["softmax-f32"], "> 0.1", "share collapsed",
          null=tail("collapsed_fraction")["stablemax"], added="after results"),
    Claim("C1.stops", "and from then on it learns no more", "learning stops (Figs. 1, 2)",
          (test - at("test_accuracy", collapsed))["softmax-f32"], "< 0.05", "rise of test accuracy",
          null=rise_without_collapse, added="after results"),
    Claim("C1.40", "with 40 % of the pairs no precision of softmax cross-entropy generalises",
          "test accuracy stays near chance", best_of(test, *SOFTMAX_40), "< 0.15", ACC, budget="full",
          needs=overfits(*SOFTMAX_40)),
    Claim("C1.16-32", "with more data float32 softmax ends with a higher test accuracy than float16", LATER,
          test["softmax-f32"] - test["softmax-f16"], "> 0.05", ACC, budget="thorough",
          null=untrained["softmax-f32"] - untrained["softmax-f16"]),
    Claim("C1.32-64", "with more data float64 softmax ends with a higher test accuracy than float32", LATER,
          test["softmax-f64"] - test["softmax-f32"], "> 0.05", ACC,
          null=untrained["softmax-f64"] - untrained["softmax-f32"]),
    Claim("C1.onset", "test accuracy stops rising when softmax collapse sets in", "stops at the onset (Fig. 2)",
          stop_with_onset, "> 0.8", "correlation over precisions", budget="thorough", null=0.0),  # independent steps
    Claim("C2.gain", "StableMax generalises where softmax does not, each at its better Adam setting",
          "about 100 % against chance (Fig. 4)", gain(test), "> 0.4", ACC, null=gain(untrained)),
    Claim("C2.level", "StableMax without regularisation reaches high test accuracy", TOP,
          best_of(test, *STABLEMAX), "> 0.9", ACC, null=best_of(untrained, *STABLEMAX)),
    Claim("C2.norm", "it does so while the weight norm grows", "grows severalfold (Fig. 4)",
          (norm / at("weight_norm", fitted))["stablemax"], "> 2", "norm at the end / norm when fitted",
          null=1.0),  # weights at rest
    Claim("C2.parity", "StableMax generalises on sparse parity", TOP, test["parity-stablemax"], "> 0.95", ACC,
          budget="thorough", null=untrained["parity-stablemax"]),
    Claim("C3.level", "after fitting, the output layer's gradient mostly scales the logits",
          "up to about 0.9 (Fig. 5)", aligned_after["softmax-f64"], "> 0.7", COS,
          null=at(alignment, 0)["softmax-f64"]),
    Claim("C3.rise", "it does so far more than while fitting", "rises after overfitting (Fig. 5)",
          aligned_after["softmax-f64"] / at_least(aligned_before["softmax-f64"], 1e-3), "> 3", "ratio of cosines",
          null=1.0),  # no rise
    Claim("C3.bias", "the same holds with biases", "up to about 0.9 (Fig. 5)", aligned_after["softmax-bias"], "> 0.7",
          COS, budget="full", null=at(alignment, 0)["softmax-bias"]),
    Claim("C4.perp", "perpAdamW generalises within 500 full-batch steps", "within 300 (Fig. 1)",
          at("test_accuracy", 500)["perp-adamw"], "> 0.95", ACC, null=untrained["perp-adamw"]),
    Claim("C4.plain", "AdamW without weight decay does not", "near chance (Fig. 6)",
          at("test_accuracy", 500)["adamw"], "< 0.3", ACC, needs=overfits("adamw")),
    Claim("C4.delay", "perpAdamW has no phase of overfitting", "none seen (Fig. 6)", delay["perp-adamw"], "< 100",
          "steps from train to test 95 %", null=delay["adamw"]),
    Claim("C4.sgd", "perpSGD generalises too", "100 % within 400 steps (Fig. 6)", all_but_all["perp-sgd"], "< 400",
          "steps to 99 %", budget="thorough", null=all_but_all["sgd"]),
    Claim("C4.transformer", "in a transformer perpAdamW beats strong weight decay", "sooner (Fig. 6)",
          log10(generalised["transformer-decay"] / generalised["transformer-perp"]), "> 0",
          "log10 of the ratio of steps to 95 %", budget="full"),
    Claim("C4.transformer-plain", "AdamW without weight decay never generalises there", "never (Fig. 6)",
          test["transformer"], "< 0.3", ACC, budget="full", needs=overfits("transformer")),
    Claim("C5.codes", "with random binary codes training and test rise together", "no grokking",
          peak(gap)["codes"], "< 0.2", GAP, budget="thorough", null=peak(gap)["adamw"]),
    Claim("C5.one-hot", "with one-hot inputs training and test do not rise together", "grokking", peak(gap)["adamw"], "> 0.8", GAP,
          null=at(gap, 0)["adamw"]),
    Claim("I.frozen", "cutting the true class's gradient stops generalisation as collapse does",
          "stops (App. B)", change_after_freezing["frozen-true-class"], "< 0.03", "largest change of test accuracy",
          budget="thorough", null=rise_without_freezing),
    Claim("I.control", "without the cut it would have gone on", "goes on (App. B)", rise_without_freezing, "> 0.03",
          "rise of test accuracy", budget="thorough", null=0.0),  # settled before the cut
)  # fmt: skip


def shaded(arms: dict[str, str]) -> pictures.Picture:
    """Training and test accuracy of each arm, and the share of collapsed examples as shading."""

    def shade(ax: Any, trace: xr.Dataset) -> None:
        share = trace.collapsed_fraction.values.mean(axis=0)
        ax.fill_between(trace.step.values, 0, share, color=style.colours[6], alpha=0.35, linewidth=0,
                        label="softmax collapsed", step="post")  # fmt: skip
        if (cut := setting(trace, "freeze_true_class_at")) >= 0:
            pictures.vertical(ax, cut, "cut")

    return pictures.observables(
        {"training": "train_accuracy", "test": "test_accuracy"}, arms, each=shade, log_steps=True,
        ylim=(-0.02, 1.05), xlabel="full-batch step", ylabel="accuracy, share collapsed",
    )  # fmt: skip


def by_tensor(trace: xr.Dataset) -> dict[str, Curve]:
    tensors = [t for t in map(str, trace.tensor.values) if "weight" in t or "embedding" in t]
    return {t.removesuffix(".weight"): curve("logit_scaling", tensor=t) for t in tensors}


def mark_fitted(ax: Any, trace: xr.Dataset) -> None:
    pictures.vertical(ax, fitted(trace).mean(), "training fitted")


STEP = "full-batch step"
PRECISION = "{softmax_precision} softmax, {train_fraction:.0%} of the pairs"
MARGINS = {"float16 collapses": 7.6, "float32 collapses": 16.6, "float64 collapses": 36.7}
FIGURES = (
    Figure("overview", "Training and test accuracy under softmax, StableMax and perpAdamW (compare Fig. 1 of the "
           "paper). Bands span the seeds.",
           shaded({"softmax-f32": "softmax cross-entropy", "stablemax": "StableMax cross-entropy",
                   "perp-adamw": "softmax with perpAdamW"}),
           ("softmax-f32", "stablemax", "perp-adamw")),
    Figure("precisions", "The same network with the softmax computed in three precisions; shading is the share of "
           "training examples whose softmax has collapsed (compare Fig. 2).",
           shaded(dict.fromkeys((*SOFTMAX_40, *SOFTMAX), PRECISION)), SOFTMAX),
    Figure("alignment", "Cosine between each layer's weights and the direction of descent (compare Fig. 5).",
           pictures.observables(
               by_tensor, {"softmax-f64": "MLP without biases", "softmax-bias": "MLP with biases",
                           "transformer": "transformer"},
               each=mark_fitted, log_steps=True, xlabel=STEP, ylabel="cos(weights, -gradient)"),
           ("softmax-f64",)),
    Figure("perp", "Test accuracy with gradients made perpendicular to the weights, its ablations, and the baselines "
           "(compare Fig. 6).",
           pictures.curves(
               "test_accuracy",
               ("addition, MLP", {"perp-adamw": "perpAdamW", "perp-unscaled": "perpAdamW, norm not restored",
                                  "perp-network": "perpAdamW, whole network at once",
                                  "perp-default-adam": "perpAdamW, β₂ .999, ε 1e-8", "adamw": "AdamW"}),
               ("addition, SGD with StableMax", {"perp-sgd": "perpSGD", "sgd": "SGD"}),
               ("subtraction, transformer", {"transformer-perp": "perpAdamW", "transformer": "AdamW",
                                             "transformer-decay": "AdamW, weight decay 1.5"}),
               xlabel=STEP, ylabel="test accuracy", ylim=(-0.02, 1.05)),
           ("perp-adamw", "adamw")),
    Figure("norms", "Weights keep growing while StableMax generalises; margins meet the limit of each precision "
           "(compare Fig. 4).",
           pictures.curves(
               {"norm of all weights": "weight_norm", "largest margin (nats)": "largest_margin"},
               ("", {arm: arm for arm in ("stablemax", "softmax-f32", "perp-adamw")}),
               levels={"largest margin (nats)": MARGINS}, own={"largest margin (nats)": {"yscale": "symlog"}},
               log_steps=True, xlabel=STEP),
           ("stablemax", "softmax-f32")),
    Figure("controls", "Controls: low-dimensional inputs, one-hot inputs, the intervention on gradients, sparse "
           "parity, digits.",
           shaded({"codes": "random binary codes", "binary": "binary digits", "adamw": "one-hot inputs",
                   "frozen-true-class": "true class's gradient cut", "parity-stablemax": "parity, StableMax",
                   "parity-softmax": "parity, softmax", "mnist-large-init": "MNIST-200, large init"}),
           ("codes", "adamw")),
)  # fmt: skip

# Smaller moduli, more of the pairs and smaller networks, chosen on other seeds (100 and up): the
# smallest setting in which StableMax generalises at all.
SMALL = {"p": 31, "train_fraction": 0.9, "width": 100, "steps": 12_000}
SETTINGS = {
    **{arm: {"steps": 250} for arm in ("perp-adamw", "adamw")},
    **dict.fromkeys((*SOFTMAX, *STABLEMAX, "softmax-fig4"), SMALL),
    "frozen-true-class": SMALL | {"freeze_true_class_at": 8000, "steps": 10_000},
    "parity-stablemax": {"width": 100, "steps": 10_000},
    **{arm: {"p": 59, "train_fraction": 0.5, "steps": 400} for arm in ("perp-sgd", "sgd")},
    "codes": {"p": 59, "train_fraction": 0.5, "steps": 500},
}

study = Study(
    paper=Paper(
        "grokking-numerical-stability", "Grokking at the Edge of Numerical Stability",
        "Lucas Prieto, Melih Barsbey, Pedro A. M. Mediano, Tolga Birdal", "ICLR", 2025, "2501.04697",
        "LucasPrietoAl/grokking-at-the-edge-of-numerical-stability",
    ),
    family="grokking",
    question="Is it rounding in the softmax that stops a network from grokking without "
    "regularisation, and do StableMax and perpendicular gradients cure it?",
    symptoms=(
        "test accuracy at chance long after training accuracy is 100%",
        "validation accuracy stays at chance, model memorised the training set",
        "training loss is exactly zero and gradients vanish",
        "grokking does not happen without weight decay",
        "logits grow without bound after overfitting",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, ("perp-adamw", "softmax-f16", "transformer", "parity-stablemax"),
                        {"p": 13, "width": 32, "hidden": 32, "steps": 20}),
        "quick": Budget(6, None, {"observations_per_decade": 15}, SETTINGS),
        "thorough": Budget(6, None, {"observations_per_decade": 15}, SETTINGS),
        "full": Budget(6),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="modular arithmetic and sparse parity (generated)",
    notes="Below the full budget perpAdamW and AdamW train on addition mod 113 for 250 steps as in the paper; "
    "the long runs (C1, C2, C3, I) use addition mod 31 with 90 % of the pairs, width 100 and 12,000 steps, the "
    "smallest setting found on other seeds in which StableMax generalises. The transformer, the networks with "
    "biases, the 40 % splits and the large-initialisation digits belong to the full budget.",
)  # fmt: skip
