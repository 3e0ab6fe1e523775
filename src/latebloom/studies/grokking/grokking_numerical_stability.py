"""Grokking at the Edge of Numerical Stability (Prieto et al., ICLR 2025, arXiv 2501.04697)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from latebloom import data, log_steps, losses, nn, optim, probes
from latebloom.core.process import Quantity
from latebloom.core.training import Dataset, Snapshot, Supervised, trainable
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.grokking.interventions import without_true_class_gradient


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


class MnistSubset(eqx.Module):
    """200 training digits drawn for each seed, the test part whole; pixels in [0, 1]."""

    pool: data.Dataset
    in_size: int = eqx.field(static=True)

    def __init__(self, images: data.Images):
        x_train, x_test = (
            jnp.asarray(x.reshape(len(x), -1) / 255, jnp.float32)
            for x in (images.x_train, images.x_test)
        )
        self.pool = Dataset(
            x_train, jnp.asarray(images.y_train), x_test, jnp.asarray(images.y_test)
        )
        self.in_size = x_train.shape[1]

    def __call__(self, key: Any) -> Dataset:
        rows = jax.random.choice(key, len(self.pool.x_train), (200,), replace=False)
        pool = self.pool
        return Dataset(pool.x_train[rows], pool.y_train[rows], pool.x_test, pool.y_test)


def perp_wrapped(perp: str, base: optax.GradientTransformation) -> optax.GradientTransformation:
    if perp == "no":
        return base
    scope: Any = "network" if perp == "network" else "tensor"
    return optax.chain(optim.perp_grad(scope, keep_norm=perp != "unscaled"), base)


def adamw(perp: str, learning_rate: Any, b2: Any, eps: Any, weight_decay: Any) -> Any:
    return perp_wrapped(perp, optax.adamw(learning_rate, 0.9, b2, eps, weight_decay=weight_decay))


def sgd(perp: str, learning_rate: Any, momentum: Any, weight_decay: Any) -> Any:
    descent = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum)
    )
    return perp_wrapped(perp, descent)


class Interruptible(Supervised):
    """Supervised learning in which the true class may lose its gradient from a step on."""

    freeze_at: Any = 0

    def __init__(self, freeze_at: int, **supervised: Any):
        super().__init__(**supervised)
        self.freeze_at = jnp.int32(freeze_at)

    def objective(self, outputs: Any, labels: Any, step: Any) -> Any:
        frozen = (self.freeze_at >= 0) & (step >= self.freeze_at)
        return super().objective(without_true_class_gradient(outputs, labels, frozen), labels, step)


def build_mlp(sizes: tuple[int, int, int], config: Config, key: Any) -> nn.MLP:
    in_size, width, out_size = sizes
    return nn.MLP(
        in_size, (width, width), out_size, key=key, use_bias=config.bias,
        init_scale=config.init_scale, logit_scale=config.logit_scale, dtype=config.weights,
    )  # fmt: skip


def build_transformer(config: Config, key: Any) -> nn.Transformer:
    return nn.Transformer(
        config.p, config.p, key=key, hidden=config.hidden, logit_scale=config.logit_scale
    )


def collapse(
    loss: str, precision: Any, model: Any, dataset: Dataset, seen: Snapshot
) -> dict[str, Any]:
    """Collapse of the probabilities that the loss itself forms."""
    logits = seen.train_logits
    if loss == "stablemax":
        logits = losses.stablemax_logits(logits)
    return probes.softmax_collapse(logits, dataset.y_train, precision)


def geometry(model: Any, dataset: Dataset, seen: Snapshot) -> dict[str, Any]:
    params = trainable(model)
    return {
        "logit_scaling": probes.logit_scaling(params, seen.gradients).astype(jnp.float32),
        "weight_norm": probes.weight_norm(params).astype(jnp.float32),
    }


def make_process(config: Config) -> Supervised:
    if config.task == "mnist":
        draw: Any = MnistSubset(data.load("mnist-5k"))
        classes = 10
    elif config.task == "parity":
        draw, classes = data.SparseParity(train_fraction=config.train_fraction), 2
    else:
        encoding = "tokens" if config.network == "transformer" else config.encoding
        draw = data.ModularArithmetic(config.p, config.operation, config.train_fraction, encoding)
        classes = config.p
    if config.network == "transformer":
        model = partial(build_transformer, config)
    else:
        model = partial(build_mlp, (draw.in_size, config.width, classes), config)
    rate = config.learning_rate / config.logit_scale**2
    if config.optimiser == "adamw":
        hyper = {"learning_rate": rate, "b2": config.beta2, "eps": config.eps}
    else:
        hyper = {"learning_rate": rate, "momentum": config.momentum}
    loss = {
        "softmax": partial(losses.cross_entropy, precision=config.softmax_precision),
        "stablemax": losses.stablemax_cross_entropy,
        "squared": losses.mean_squared_error,
    }[config.loss]
    with jax.enable_x64(True):
        shapes = jax.eval_shape(lambda k: trainable(model(k)), jax.random.key(0))
    names = probes.tensor_names(shapes)
    return Interruptible(
        config.freeze_true_class_at,
        model=model,
        data=draw,
        optimiser=partial(adamw if config.optimiser == "adamw" else sgd, config.perp),
        hyper=hyper | {"weight_decay": config.weight_decay},
        loss=loss,
        probes={
            "collapse": partial(collapse, config.loss, config.softmax_precision),
            "geometry": geometry,
        },
        about={
            "collapsed_fraction": Quantity(about="share of training examples collapsed"),
            "logit_scaling": Quantity(
                dims=("tensor",), coords={"tensor": names}, about="cos(w, -gradient)"
            ),
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
PRECISIONS = ("float16", "float32", "float64")

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


def last(traces: Traces, arm: str, name: str = "test_accuracy") -> np.ndarray:
    return traces[arm][name].values[:, -1]


def first_step(traces: Traces, arm: str, name: str, level: float) -> np.ndarray:
    """First step at which each seed's observable reaches `level`; the run's end if it never does."""
    values, steps = traces[arm][name].values, traces[arm].step.values
    reached = values >= level
    return np.where(reached.any(axis=1), steps[reached.argmax(axis=1)], steps[-1])


def at_step(traces: Traces, arm: str, name: str, steps: np.ndarray) -> np.ndarray:
    """Each seed's value at the last observation up to its step."""
    rows = np.searchsorted(traces[arm].step.values, steps, side="right") - 1
    values = traces[arm][name].values
    return values[np.arange(len(values)), rows]


def gain(better: str, worse: str, traces: Traces) -> np.ndarray:
    return last(traces, better) - last(traces, worse)


def best_test(arms: tuple[str, ...], traces: Traces) -> np.ndarray:
    return np.max([last(traces, arm) for arm in arms], axis=0)


def stop_follows_collapse(traces: Traces) -> np.ndarray:
    """Correlation over precisions of log collapse onset and log step at which test stops rising."""
    onsets, stops = [], []
    for precision in ("f16", "f32", "f64"):
        arm = f"softmax-{precision}"
        onsets.append(first_step(traces, arm, "collapsed_fraction", 0.01))
        test, steps = traces[arm].test_accuracy.values, traces[arm].step.values
        best = np.maximum.accumulate(test, axis=1)
        stops.append(steps[(best >= best[:, -1:] - 0.01).argmax(axis=1)])
    x, y = (np.log1p(np.array(v, float)) for v in (onsets, stops))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.where(size > 0, (x * y).sum(axis=0) / np.where(size > 0, size, 1), np.nan)


def highest_of_three(traces: Traces) -> np.ndarray:
    return best_test(("softmax-f16-40", "softmax-f32-40", "softmax-f64-40"), traces)


def stablemax_gain(traces: Traces) -> np.ndarray:
    stablemax = best_test(("stablemax", "stablemax-fig2"), traces)
    return stablemax - best_test(("softmax-f32", "softmax-fig4"), traces)


def norm_growth(traces: Traces) -> np.ndarray:
    fitted = first_step(traces, "stablemax", "train_accuracy", 1.0)
    return last(traces, "stablemax", "weight_norm") / at_step(
        traces, "stablemax", "weight_norm", fitted
    )


def output_alignment(arm: str, traces: Traces) -> tuple[np.ndarray, np.ndarray]:
    """cos(w, -gradient) of the output layer's weights: (mean while fitting, largest afterwards)."""
    trace = traces[arm]
    tensors = [i for i, t in enumerate(trace.tensor.values) if str(t).endswith("weight")]
    cosine = trace.logit_scaling.values[:, :, tensors[-1]]
    fitted = first_step(traces, arm, "train_accuracy", 1.0)[:, None]
    before = np.where(trace.step.values < fitted, cosine, np.nan)
    after = np.where(trace.step.values >= fitted, cosine, np.nan)
    return np.nanmean(before, axis=1), np.nanmax(after, axis=1)


def alignment_after(arm: str, traces: Traces) -> np.ndarray:
    return output_alignment(arm, traces)[1]


def alignment_ratio(arm: str, traces: Traces) -> np.ndarray:
    before, after = output_alignment(arm, traces)
    return after / np.maximum(before, 1e-3)


def test_by(arm: str, step: int, traces: Traces) -> np.ndarray:
    seeds = len(traces[arm].seed)
    return at_step(traces, arm, "test_accuracy", np.full(seeds, step))


def delay(arm: str, traces: Traces) -> np.ndarray:
    test = first_step(traces, arm, "test_accuracy", 0.95)
    return test - first_step(traces, arm, "train_accuracy", 0.95)


def step_of_test(arm: str, level: float, traces: Traces) -> np.ndarray:
    return first_step(traces, arm, "test_accuracy", level).astype(float)


def perp_speedup(traces: Traces) -> np.ndarray:
    decay = first_step(traces, "transformer-decay", "test_accuracy", 0.95)
    perp = first_step(traces, "transformer-perp", "test_accuracy", 0.95)
    return np.log10(decay / perp)


def largest_gap(arm: str, traces: Traces) -> np.ndarray:
    return (traces[arm].train_accuracy - traces[arm].test_accuracy).values.max(axis=1)


def change_after_freezing(traces: Traces) -> np.ndarray:
    frozen = traces["frozen-true-class"]
    at = json.loads(frozen.attrs["config"])["freeze_true_class_at"]
    rows = frozen.step.values >= at
    start = test_by("frozen-true-class", at, traces)
    return np.abs(frozen.test_accuracy.values[:, rows] - start[:, None]).max(axis=1)


def rise_without_freezing(traces: Traces) -> np.ndarray:
    at = json.loads(traces["frozen-true-class"].attrs["config"])["freeze_true_class_at"]
    return last(traces, "stablemax") - test_by("stablemax", at, traces)


SOFTMAX = ("softmax-f16", "softmax-f32", "softmax-f64")
SOFTMAX_40 = tuple(f"{arm}-40" for arm in SOFTMAX)

CLAIMS = (
    Claim("C1.40", "with 40 % of the pairs no precision of softmax cross-entropy generalises",
          "test accuracy stays near chance", SOFTMAX_40, highest_of_three, "< 0.15", "test accuracy"),
    Claim("C1.16-32", "with more data float32 softmax ends with a higher test accuracy than float16",
          "later collapse, higher test accuracy (Fig. 2)", SOFTMAX[:2],
          partial(gain, "softmax-f32", "softmax-f16"), "> 0.05", "test accuracy"),
    Claim("C1.32-64", "with more data float64 softmax ends with a higher test accuracy than float32",
          "later collapse, higher test accuracy (Fig. 2)", SOFTMAX[1:],
          partial(gain, "softmax-f64", "softmax-f32"), "> 0.05", "test accuracy"),
    Claim("C1.onset", "test accuracy stops rising when softmax collapse sets in",
          "stops at the onset (Fig. 2)", SOFTMAX, stop_follows_collapse, "> 0.8",
          "correlation over precisions"),
    Claim("C2.gain", "StableMax generalises where softmax does not, each at its better Adam setting",
          "about 100 % against chance (Fig. 4)",
          ("stablemax", "stablemax-fig2", "softmax-f32", "softmax-fig4"), stablemax_gain, "> 0.4",
          "test accuracy"),
    Claim("C2.level", "StableMax without regularisation reaches high test accuracy",
          "about 100 % (Fig. 4)", ("stablemax", "stablemax-fig2"),
          partial(best_test, ("stablemax", "stablemax-fig2")), "> 0.9", "test accuracy"),
    Claim("C2.norm", "it does so while the weight norm grows", "grows severalfold (Fig. 4)",
          ("stablemax",), norm_growth, "> 2", "norm at the end / norm when fitted"),
    Claim("C2.parity", "StableMax generalises on sparse parity", "about 100 % (Fig. 4)",
          ("parity-stablemax",), partial(best_test, ("parity-stablemax",)), "> 0.95",
          "test accuracy"),
    Claim("C3.level", "after fitting, the output layer's gradient mostly scales the logits",
          "up to about 0.9 (Fig. 5)", ("softmax-f64",), partial(alignment_after, "softmax-f64"),
          "> 0.7", "cos(w, -gradient)"),
    Claim("C3.rise", "it does so far more than while fitting", "rises after overfitting (Fig. 5)",
          ("softmax-f64",), partial(alignment_ratio, "softmax-f64"), "> 3", "ratio of cosines"),
    Claim("C3.bias", "the same holds with biases", "up to about 0.9 (Fig. 5)", ("softmax-bias",),
          partial(alignment_after, "softmax-bias"), "> 0.7", "cos(w, -gradient)"),
    Claim("C4.perp", "perpAdamW generalises within 500 full-batch steps", "within 300 (Fig. 1)",
          ("perp-adamw",), partial(test_by, "perp-adamw", 500), "> 0.95", "test accuracy"),
    Claim("C4.plain", "AdamW without weight decay does not", "near chance (Fig. 6)", ("adamw",),
          partial(test_by, "adamw", 500), "< 0.3", "test accuracy"),
    Claim("C4.delay", "perpAdamW has no phase of overfitting", "none seen (Fig. 6)",
          ("perp-adamw",), partial(delay, "perp-adamw"), "< 100", "steps from train to test 95 %"),
    Claim("C4.sgd", "perpSGD generalises too", "100 % within 400 steps (Fig. 6)", ("perp-sgd",),
          partial(step_of_test, "perp-sgd", 0.99), "< 400", "steps to 99 %"),
    Claim("C4.transformer", "in a transformer perpAdamW beats strong weight decay",
          "sooner (Fig. 6)", ("transformer-perp", "transformer-decay"), perp_speedup, "> 0",
          "log10 of the ratio of steps to 95 %"),
    Claim("C4.transformer-plain", "AdamW without weight decay never generalises there",
          "never (Fig. 6)", ("transformer",), partial(best_test, ("transformer",)), "< 0.3",
          "test accuracy"),
    Claim("C5.codes", "with random binary codes training and test rise together", "no grokking",
          ("codes",), partial(largest_gap, "codes"), "< 0.2", "largest train - test gap"),
    Claim("C5.one-hot", "with one-hot inputs they do not", "grokking", ("adamw",),
          partial(largest_gap, "adamw"), "> 0.8", "largest train - test gap"),
    Claim("I.frozen", "cutting the true class's gradient stops generalisation as collapse does",
          "stops (App. B)", ("frozen-true-class",), change_after_freezing, "< 0.03",
          "largest change of test accuracy"),
    Claim("I.control", "without the cut it would have gone on", "goes on (App. B)",
          ("stablemax", "frozen-true-class"), rise_without_freezing, "> 0.03", "rise of test accuracy"),
)  # fmt: skip


def curves(ax: Any, traces: Traces, arm: str, title: str) -> None:
    """Training and test accuracy, and the share of collapsed examples as shading."""
    trace = traces[arm]
    style.band(ax, trace, "train_accuracy", label="training", colour=style.colours[0])
    style.band(ax, trace, "test_accuracy", label="test", colour=style.colours[1])
    share = trace.collapsed_fraction.values.mean(axis=0)
    ax.fill_between(trace.step.values, 0, share, color=style.colours[6], alpha=0.35, linewidth=0,
                    label="softmax collapsed", step="post")  # fmt: skip
    ax.set_title(title)
    ax.set_ylim(-0.02, 1.05)
    style.log_steps_axis(ax, "full-batch step")


def draw_overview(traces: Traces) -> Any:
    figure, axes = style.figure(1, 3, width=11.5, height=3.4, sharey=True)
    panels = (("softmax-f32", "softmax cross-entropy"), ("stablemax", "StableMax cross-entropy"),
              ("perp-adamw", "softmax with perpAdamW"))  # fmt: skip
    for ax, (arm, title) in zip(axes, panels, strict=True):
        curves(ax, traces, arm, title)
    axes[0].set_ylabel("accuracy, share collapsed")
    axes[0].legend(loc="center left")
    return figure


def draw_precisions(traces: Traces) -> Any:
    rows = [arms for arms in (SOFTMAX_40, SOFTMAX) if all(a in traces for a in arms)]
    figure, axes = style.figure(
        len(rows), 3, width=11.5, height=3.2 * len(rows), sharey=True, squeeze=False
    )
    for row, arms in zip(axes, rows, strict=True):
        fraction = json.loads(traces[arms[0]].attrs["config"])["train_fraction"]
        for ax, arm, precision in zip(row, arms, PRECISIONS, strict=True):
            curves(ax, traces, arm, f"{precision} softmax, {fraction:.0%} of the pairs")
        row[0].set_ylabel("accuracy, share collapsed")
    axes[0][0].legend(loc="center left")
    return figure


def draw_alignment(traces: Traces) -> Any:
    arms = [a for a in ("softmax-f64", "softmax-bias", "transformer") if a in traces]
    names = {"softmax-f64": "MLP without biases", "softmax-bias": "MLP with biases",
             "transformer": "transformer"}  # fmt: skip
    figure, axes = style.figure(1, len(arms), sharey=True, squeeze=False)
    for ax, arm in zip(axes[0], arms, strict=True):
        trace = traces[arm]
        weights = [t for t in trace.tensor.values if "weight" in str(t) or "embedding" in str(t)]
        for i, tensor in enumerate(weights):
            one = trace.sel(tensor=tensor)
            label = str(tensor).removesuffix(".weight")
            style.band(ax, one, "logit_scaling", label=label, colour=style.colours[i % 7])
        fitted = first_step(traces, arm, "train_accuracy", 1.0).mean()
        ax.axvline(fitted, color=style.INK, linestyle=":", linewidth=1)
        ax.annotate("training fitted", (fitted, 0.99), xycoords=("data", "axes fraction"),
                    rotation=90, ha="right", va="top", fontsize=8)  # fmt: skip
        ax.set_title(names[arm])
        style.log_steps_axis(ax, "full-batch step")
        ax.legend(fontsize=8, loc="lower left")
    axes[0][0].set_ylabel("cos(weights, -gradient)")
    return figure


def draw_perp(traces: Traces) -> Any:
    groups = [
        ("addition, MLP", ("perp-adamw", "perp-unscaled", "perp-network", "perp-default-adam",
                           "adamw")),
        ("addition, SGD with StableMax", ("perp-sgd", "sgd")),
        ("subtraction, transformer", ("transformer-perp", "transformer-decay", "transformer")),
    ]  # fmt: skip
    labels = {"perp-adamw": "perpAdamW", "perp-unscaled": "perpAdamW, norm not restored",
              "perp-network": "perpAdamW, whole network at once", "adamw": "AdamW",
              "perp-default-adam": "perpAdamW, β₂ .999, ε 1e-8", "perp-sgd": "perpSGD",
              "sgd": "SGD", "transformer-perp": "perpAdamW", "transformer": "AdamW",
              "transformer-decay": "AdamW, weight decay 1.5"}  # fmt: skip
    groups = [(title, [a for a in arms if a in traces]) for title, arms in groups]
    groups = [(title, arms) for title, arms in groups if arms]
    figure, axes = style.figure(1, len(groups), sharey=True, squeeze=False)
    for ax, (title, arms) in zip(axes[0], groups, strict=True):
        for i, arm in enumerate(arms):
            style.band(ax, traces[arm], "test_accuracy", label=labels[arm], colour=style.colours[i])
        ax.set_title(title)
        ax.set_xlabel("full-batch step")
        ax.set_ylim(-0.02, 1.05)
        ax.legend(fontsize=8)
    axes[0][0].set_ylabel("test accuracy")
    return figure


def draw_controls(traces: Traces) -> Any:
    panels = [("codes", "random binary codes"), ("binary", "binary digits"), ("adamw", "one-hot inputs"),
              ("frozen-true-class", "true class's gradient cut"), ("parity-stablemax", "parity, StableMax"),
              ("parity-softmax", "parity, softmax"), ("mnist-large-init", "MNIST-200, large init")]  # fmt: skip
    panels = [(arm, title) for arm, title in panels if arm in traces]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = style.figure(rows, columns, height=3.1 * rows, sharey=True, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (arm, title) in zip(axes.flat, panels, strict=False):
        curves(ax, traces, arm, title)
        at = json.loads(traces[arm].attrs["config"])["freeze_true_class_at"]
        if at >= 0:
            ax.axvline(at, color=style.INK, linestyle=":", linewidth=1)
    for row in axes:
        row[0].set_ylabel("accuracy, share collapsed")
    axes[0][0].legend(loc="center left")
    return figure


def draw_norms(traces: Traces) -> Any:
    figure, (left, right) = style.figure(1, 2)
    for i, arm in enumerate(a for a in ("stablemax", "softmax-f32", "perp-adamw") if a in traces):
        style.band(left, traces[arm], "weight_norm", label=arm, colour=style.colours[i])
        style.band(right, traces[arm], "largest_margin", label=arm, colour=style.colours[i])
    for limit, name in ((7.6, "float16"), (16.6, "float32"), (36.7, "float64")):
        right.axhline(limit, color=style.colours[6], linestyle=":", linewidth=1)
        right.annotate(f"{name} collapses", (0.02, limit), xycoords=("axes fraction", "data"),
                       va="bottom", fontsize=8)  # fmt: skip
    right.set_yscale("symlog", linthresh=1)
    left.set_ylabel("norm of all weights")
    right.set_ylabel("largest margin (nats)")
    for ax in (left, right):
        style.log_steps_axis(ax, "full-batch step")
    left.legend(loc="upper left")
    return figure


# Smaller moduli, more of the pairs and smaller networks, chosen on other seeds (100 and up) so that
# StableMax generalises at all and each budget fits in minutes.
SMALL = {"p": 31, "train_fraction": 0.9, "width": 100, "steps": 12_000}
QUICK = {
    "perp-adamw": {"steps": 250},
    "adamw": {"steps": 250},
    **{arm: SMALL for arm in ("stablemax", "softmax-f32")},
}
PRECISIONS = {arm: SMALL for arm in SOFTMAX}
ABLATIONS = {
    "adamw": QUICK["adamw"],
    **{arm: SMALL for arm in ("stablemax", "stablemax-fig2", "softmax-f32", "softmax-fig4")},
    "frozen-true-class": SMALL | {"freeze_true_class_at": 8000, "steps": 10_000},
    "parity-stablemax": {"width": 100, "steps": 10_000},
    "perp-sgd": {"p": 59, "train_fraction": 0.5, "steps": 400},
    "codes": {"p": 59, "train_fraction": 0.5, "steps": 500},
}

study = Study(
    paper=Paper(
        slug="grokking-numerical-stability",
        title="Grokking at the Edge of Numerical Stability",
        authors="Lucas Prieto, Melih Barsbey, Pedro A. M. Mediano, Tolga Birdal",
        venue="ICLR",
        year=2025,
        arxiv="2501.04697",
        code="LucasPrietoAl/grokking-at-the-edge-of-numerical-stability",
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
        "smoke": Budget(
            2,
            ("perp-adamw", "softmax-f16", "transformer", "parity-stablemax"),
            {"p": 13, "width": 32, "hidden": 32, "steps": 20},
        ),
        "quick": Budget(4, tuple(QUICK), {"observations_per_decade": 15}, QUICK),
        "precisions": Budget(4, tuple(PRECISIONS), {"observations_per_decade": 15}, PRECISIONS),
        "ablations": Budget(4, tuple(ABLATIONS), {"observations_per_decade": 15}, ABLATIONS),
        "full": Budget(5),
    },
    claims=CLAIMS,
    figures=(
        Figure(
            "overview",
            "Training and test accuracy under softmax, StableMax and perpAdamW (compare Fig. 1 of the paper). Bands span the seeds.",
            draw_overview,
            ("softmax-f32", "stablemax", "perp-adamw"),
        ),
        Figure(
            "precisions",
            "The same network with the softmax computed in three precisions; shading is the share of training examples whose softmax has collapsed (compare Fig. 2).",
            draw_precisions,
            SOFTMAX,
        ),
        Figure(
            "alignment",
            "Cosine between each layer's weights and the direction of descent (compare Fig. 5).",
            draw_alignment,
            ("softmax-f64",),
        ),
        Figure(
            "perp",
            "Test accuracy with gradients made perpendicular to the weights, its ablations, and the baselines (compare Fig. 6).",
            draw_perp,
            ("perp-adamw", "adamw"),
        ),
        Figure(
            "norms",
            "Weights keep growing while StableMax generalises; margins meet the limit of each precision (compare Fig. 4).",
            draw_norms,
            ("stablemax", "softmax-f32"),
        ),
        Figure(
            "controls",
            "Controls: low-dimensional inputs, one-hot inputs, the intervention on gradients, sparse parity, digits.",
            draw_controls,
            ("codes", "adamw"),
        ),
    ),
    data="modular arithmetic and sparse parity (generated)",
    notes="The quick budget trains addition mod 113 for 250 steps as the paper does for perpAdamW; the long "
    "runs (C1, C2, C3, I; also in precisions and ablations) use addition mod 31 with 90 % of the pairs, "
    "width 100 and 12,000 steps, the smallest setting found on other seeds in which StableMax "
    "generalises. The transformer, the 40 % splits and the large-initialisation digits belong to the "
    "full budget.",
)
