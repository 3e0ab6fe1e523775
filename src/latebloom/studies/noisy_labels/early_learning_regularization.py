"""Early-learning regularization prevents memorization of noisy labels.

Liu, Niles-Weed, Razavian, Fernandez-Granda (NeurIPS 2020, arXiv 2007.00151).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from latebloom.core.process import Process
from latebloom.data import Images, load
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.methods.noisy_labels import (
    MNIST_PAIRS,
    CoTeaching,
    EarlyLearning,
    EarlyLearningPlus,
    LabelNoise,
    NoisyData,
    RobustLoss,
    SmallCNN,
    TwoGaussians,
)
from latebloom.nn import MLP


@dataclass(frozen=True)
class Config:
    """One method on noisy digits, or ("linear") softmax regression on two Gaussians.

    - `rate` of the labels are noisy, within pairs of classes if `asymmetric`. `limit` (0: none) of the
      training images of `data` are used, of which a tenth validates, with equally noisy labels.
    - `rate_of_step`, `momentum`, `decay`: SGD. `width` of the hidden layer.
    - `strength` (lambda) and `beta` of early-learning regularisation; `q` of GCE; `a`, `b` of SCE;
      `trust`: beta of the bootstraps; `warmup`: epochs until a transition matrix is estimated or
      co-teaching forgets its full share.
    - `average`, `mixup`, `twins`: the parts of ELR+; the weight average's decay is reached after
      `ramp` of the run (57 % in the paper).
    - linear: `n` examples of `p` features, `sigma`, `flipped` (Delta), `problems` draws a seed.
    """

    method: Literal[
        "cross-entropy", "elr", "kl", "gce", "sce", "soft-bootstrap", "hard-bootstrap", "forward",
        "forward-estimated", "co-teaching", "elr+", "linear"
    ] = "cross-entropy"  # fmt: skip
    rate: float = 0.6
    asymmetric: bool = False
    data: str = "digits"
    limit: int = 0
    network: Literal["mlp", "cnn"] = "mlp"
    width: int = 256
    epochs: int = 150
    batch_size: int = 64
    rate_of_step: float = 0.1
    momentum: float = 0.9
    decay: float = 0.0
    rows: int = 30

    strength: float = 3.0
    beta: float = 0.7
    q: float = 0.7
    a: float = 0.1
    b: float = 1.0
    trust: float = 0.8
    warmup: int = 10
    average: float = 0.997
    ramp: float = 0.57
    mixup: bool = True
    twins: bool = True

    n: int = 200
    p: int = 170
    sigma: float = 0.1
    flipped: float = 0.4
    steps: int = 3000
    problems: int = 5


MOST = 300  # features that every linear problem holds, so that all share one program


def make_process(config: Config) -> Process:
    if config.method == "linear":
        return TwoGaussians(
            n=config.n, p=config.p, most=MOST, sigma=config.sigma, flipped=config.flipped,
            rate=config.rate_of_step, strength=config.strength, beta=config.beta,
            problems=config.problems,
        )  # fmt: skip
    data = _data(config)
    common = {
        "model": partial(_network, config.network, config.width, tuple(data.x_train.shape[1:])),
        "data": data, "optimiser": _sgd, "batch_size": config.batch_size, "seeds_by": "map",
        "beta": config.beta,
        "hyper": {"rate": config.rate_of_step, "momentum": config.momentum, "decay": config.decay},
    }  # fmt: skip
    if config.method == "co-teaching":
        kept = jnp.diag(data.noise.transition())[data.y_train].mean()
        return CoTeaching(forget=float(1 - kept), epochs=config.warmup, **common)
    if config.method == "elr+":
        return EarlyLearningPlus(
            strength=config.strength, average=config.average, mixup=config.mixup, twins=config.twins,
            average_ramp=round(config.ramp * config.epochs * _batches(config)), **common,
        )  # fmt: skip
    estimated = config.method == "forward-estimated"
    loss = RobustLoss(
        "forward" if estimated else config.method,  # pyright: ignore
        strength=config.strength, q=config.q, a=config.a, b=config.b, trust=config.trust,
    )  # fmt: skip
    warmup = config.warmup * _batches(config)
    return EarlyLearning(loss=loss, known=not estimated, warmup=warmup, **common)


def schedule(config: Config) -> np.ndarray:
    if config.method == "linear":
        every = np.arange(min(31, config.steps + 1))  # the early stage, step by step
        later = np.geomspace(1, config.steps, 40)
        return np.unique(np.concatenate([every, later.round().astype(int)]))
    epochs = np.linspace(0, config.epochs, min(config.rows, config.epochs) + 1)
    return np.unique(epochs.astype(int)) * _batches(config)


def _batches(config: Config) -> int:
    """Steps of an epoch."""
    return len(_data(config).y_train) // config.batch_size


def _sgd(rate: Array, momentum: Array, decay: Array) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))


def _network(kind: str, width: int, shape: tuple[int, ...], key: PRNGKeyArray) -> MLP | SmallCNN:
    if kind == "cnn":
        return SmallCNN((shape[0], shape[1]), shape[2], key=key)
    return MLP(shape[0], (width,), 10, key=key)


def _data(config: Config) -> NoisyData:
    noise = LabelNoise(config.rate, pairs=MNIST_PAIRS if config.asymmetric else None)
    return replace(_digits(config.data, config.limit, config.network), noise=noise)


@functools.cache
def _digits(name: str, limit: int, network: str) -> NoisyData:
    """Training, test and validation part, pixels from 0 to 1; no noise yet."""
    images: Images = load(name)
    x, y = (v[: limit or None] for v in (images.x_train, images.y_train))
    x_test, y_test = (v[: limit // 4 or None] for v in (images.x_test, images.y_test))
    held = len(x) // 10

    def pixels(x: np.ndarray) -> Array:
        scaled = jnp.asarray(x, jnp.float32) / 255
        return scaled[..., None] if network == "cnn" else scaled.reshape(len(x), -1)

    def labels(y: np.ndarray) -> Array:
        return jnp.asarray(y, jnp.int32)

    return NoisyData(
        x_train=pixels(x[held:]), y_train=labels(y[held:]), x_test=pixels(x_test), y_test=labels(y_test),
        x_valid=pixels(x[:held]), y_valid=labels(y[:held]), noise=LabelNoise(0.0),
    )  # fmt: skip


SETTINGS = {"sym": Config(), "asym": Config(rate=0.4, asymmetric=True)}
# Each tuned with six settings on other seeds, by accuracy on noisy validation labels in the last epoch.
TUNED: dict[str, dict[str, dict[str, object]]] = {
    "sym": {
        "cross-entropy": {},
        "gce": {"q": 0.9},
        "sce": {"a": 0.01, "b": 0.3},
        "soft-bootstrap": {"trust": 0.8},
        "hard-bootstrap": {"trust": 0.4},
        "forward": {},
        "forward-estimated": {"warmup": 2},
        "co-teaching": {"warmup": 2},
        "elr": {"strength": 7.0, "beta": 0.9},
        "elr+": {"strength": 3.0, "beta": 0.7},
        "kl": {"strength": 7.0, "beta": 0.9},
    },
    "asym": {
        "cross-entropy": {},
        "gce": {"q": 0.7},
        "sce": {"a": 0.01, "b": 1.0},
        "soft-bootstrap": {"trust": 0.9},
        "hard-bootstrap": {"trust": 0.6},
        "forward": {},
        "forward-estimated": {"warmup": 5},
        "co-teaching": {"warmup": 5},
        "elr": {"strength": 3.0, "beta": 0.7},
        "elr+": {"strength": 3.0, "beta": 0.7},
    },
}
METHODS = tuple(TUNED["asym"])
RIVALS = ("gce", "sce", "soft-bootstrap", "hard-bootstrap", "forward-estimated")  # of Table 1
PARTS = tuple(
    f"plus-{'w' * w}{'m' * m}{'t' * t}" for w in (0, 1) for m in (0, 1) for t in (0, 1)
)  # weight average, mixup, twins
BETAS = {beta: f"beta-{beta:g}" for beta in (0.0, 0.3, 0.7, 0.9, 0.99)}  # with lambda 3
LAMBDAS = {1.0: "lambda-1", 3.0: "beta-0.7", 7.0: "lambda-7"}  # with beta 0.7


def _arm(kind: str, method: str, **more: object) -> Config:
    base = replace(SETTINGS[kind], method=method, **TUNED[kind][method])  # pyright: ignore
    return replace(base, **more)  # pyright: ignore


def _part(name: str) -> Config:
    on = name.removeprefix("plus-")
    return _arm("sym", "elr+", rate=0.8, average=0.997 if "w" in on else 0.0, mixup="m" in on,
                twins="t" in on)  # fmt: skip


CE = Config(method="linear", rate_of_step=0.9, strength=0.0, beta=0.9)
ELR = replace(CE, rate_of_step=0.5, strength=3.0)
LINEAR: dict[str, Config] = {
    "linear-ce": CE,
    "linear-elr": ELR,
    "linear-slow": replace(CE, rate_of_step=0.05),
    **{
        f"linear-{name}-{sigma}": replace(base, sigma=sigma)
        for name, base in (("ce", CE), ("elr", ELR))
        for sigma in (0.3, 0.6)
    },
    **{f"linear-ce-p{p}": replace(CE, p=p) for p in (100, 300)},
    **{f"linear-elr-lambda-{s}": replace(ELR, sigma=0.3, strength=float(s)) for s in (1, 7)},
}
ARMS: dict[str, Config] = {
    **LINEAR,
    **{f"{kind}-{method}": _arm(kind, method) for kind in SETTINGS for method in METHODS},
    "mild-ce": _arm("sym", "cross-entropy", rate=0.4),
    "mild-elr": _arm("sym", "elr", rate=0.4),
    **{arm: _arm("sym", "elr", strength=3.0, beta=beta) for beta, arm in BETAS.items()},
    **{arm: _arm("sym", "elr", strength=s, beta=0.7) for s, arm in LAMBDAS.items()},
    "kl": _arm("sym", "kl"),
    **{name: _part(name) for name in PARTS},
}


def last(traces: Traces, arm: str, what: str = "test_accuracy") -> np.ndarray:
    """In the last epoch, per seed."""
    return traces[arm][what].isel(step=-1).values


def chosen(traces: Traces, arm: str, what: str = "test_accuracy") -> np.ndarray:
    """In the epoch with the best accuracy on noisy validation labels, per seed."""
    trace = traces[arm]
    best = trace.valid_accuracy.values.argmax(axis=1)
    return trace[what].values[np.arange(len(best)), best]


def gain(one: str, other: str, traces: Traces) -> np.ndarray:
    return last(traces, one) - last(traces, other)


def chosen_gain(one: str, other: str, traces: Traces) -> np.ndarray:
    return chosen(traces, one) - chosen(traces, other)


def over_rivals(kind: str, traces: Traces) -> np.ndarray:
    """ELR minus the best (in the mean) of the losses of the paper's first table."""
    rival = max(RIVALS, key=lambda m: last(traces, f"{kind}-{m}").mean())
    return gain(f"{kind}-elr", f"{kind}-{rival}", traces)


def memorises(traces: Traces) -> np.ndarray:
    """The lowest training accuracy in the last epoch of the three runs with cross-entropy."""
    rows = [last(traces, arm, "train_accuracy") for arm in PLAIN]
    return np.min(rows, axis=0)


def memorised(arm: str, traces: Traces) -> np.ndarray:
    return last(traces, arm, "wrong_memorised")


def early_peak(traces: Traces) -> np.ndarray:
    return traces["mild-ce"].wrong_right.max("step").values


def falls(traces: Traces) -> np.ndarray:
    return chosen(traces, "mild-ce") - last(traces, "mild-ce")


def more_memorised(traces: Traces) -> np.ndarray:
    return memorised("kl", traces) - memorised("sym-elr", traces)


def part_effect(part: str, traces: Traces) -> np.ndarray:
    """Mean accuracy with a part of ELR+ minus that without, over the other two parts."""
    with_it, without = (
        np.mean([last(traces, a) for a in PARTS if (part in a[5:]) is on], axis=0)
        for on in (True, False)
    )
    return with_it - without


def collapse(traces: Traces) -> np.ndarray:
    """Accuracy at the best beta (in the mean) minus that at 0."""
    best = max(BETAS.values(), key=lambda arm: last(traces, arm).mean())
    return gain(best, "beta-0", traces)


def spread(arms: Sequence[str], traces: Traces) -> np.ndarray:
    """Best minus worst arm (in the mean)."""
    ordered = sorted(arms, key=lambda arm: last(traces, arm).mean())
    return gain(ordered[-1], ordered[0], traces)


def finds(kind: str, traces: Traces) -> np.ndarray:
    """AUROC of ELR's targets minus that of cross-entropy's predictions in its best-validated epoch."""
    plain = chosen(traces, f"{kind}-cross-entropy", "auroc_outputs")
    return last(traces, f"{kind}-elr", "auroc_targets") - plain


def draws(trace: xr.Dataset, what: str) -> np.ndarray:
    """[step, draw] of a linear arm, problems of all seeds side by side."""
    values = trace[what].transpose("step", "seed", "problem").values
    return values.reshape(len(values), -1)


def wrong_at_the_end(arm: str, traces: Traces) -> np.ndarray:
    return draws(traces[arm], "wrong_accuracy")[-1]


def wrong_peak(arm: str, traces: Traces) -> np.ndarray:
    return draws(traces[arm], "wrong_accuracy").max(axis=0)


def stage(trace: xr.Dataset) -> np.ndarray:
    """The row at which the early stage is over (theta . v >= 0.1) for each draw, -1 if it never is."""
    over = draws(trace, "alignment") >= 0.1
    return np.where(over.any(axis=0), over.argmax(axis=0), -1)


def least_correlation(traces: Traces) -> np.ndarray:
    """Least cosine of -gradient and v before the stage is over; NaN where it was over at the start."""
    end = stage(traces["linear-slow"])
    values = draws(traces["linear-slow"], "correlation")
    return np.array([values[:row, k].min() if row > 0 else np.nan for k, row in enumerate(end)])


def residual_change(what: str, traces: Traces) -> np.ndarray:
    """Of the mean squared residual over the early stage; NaN where it was over at the start."""
    values, end = draws(traces["linear-slow"], what), stage(traces["linear-slow"])
    change = values[np.maximum(end, 0), np.arange(len(end))] - values[0]
    return np.where(end > 0, change, np.nan)


PLAIN = ("sym-cross-entropy", "asym-cross-entropy", "mild-ce")
RIVAL_ARMS = {kind: tuple(f"{kind}-{m}" for m in ("elr", *RIVALS)) for kind in SETTINGS}
SHARE, ACCURACY, FOUND = "share of wrong labels", "test accuracy", "AUROC"
CLAIMS = (
    Claim("C0", "Precondition: cross-entropy fits the noisy training labels", "(precondition)", PLAIN,
          memorises, "> 0.95", "training accuracy"),
    Claim("C1.sym", "Symmetric noise 60 %: ELR is 3 points better than cross-entropy in the last epoch",
          "86.12 against 74.14 (CIFAR-10)", ("sym-elr", "sym-cross-entropy"),
          partial(gain, "sym-elr", "sym-cross-entropy"), "> 0.03", ACCURACY),
    Claim("C1.asym", "Asymmetric noise 40 %: ELR is better than cross-entropy in the last epoch",
          "90.12 against 80.11 (CIFAR-10)", ("asym-elr", "asym-cross-entropy"),
          partial(gain, "asym-elr", "asym-cross-entropy"), "> 0", ACCURACY),
    Claim("C1.sym-chosen", "The same for 60 % in each one's best-validated epoch (noisy validation labels)",
          "the table's rule", ("sym-elr", "sym-cross-entropy"),
          partial(chosen_gain, "sym-elr", "sym-cross-entropy"), "> 0", ACCURACY),
    Claim("C1.asym-chosen", "The same for asymmetric 40 %", "the table's rule",
          ("asym-elr", "asym-cross-entropy"),
          partial(chosen_gain, "asym-elr", "asym-cross-entropy"), "> 0", ACCURACY),
    Claim("C1.sym-rivals", "Symmetric 60 %: ELR beats the best of GCE, SCE, both bootstraps and forward "
          "with an estimated matrix", "86.12 against 82.81 (SL)", RIVAL_ARMS["sym"],
          partial(over_rivals, "sym"), "> 0", ACCURACY),
    Claim("C1.asym-rivals", "Asymmetric 40 %: the same", "90.12 against 82.51 (SL)",
          RIVAL_ARMS["asym"], partial(over_rivals, "asym"), "> 0", ACCURACY),
    Claim("C2.early", "40 %: cross-entropy first predicts wrongly labelled examples right, most of them",
          "0.77", ("mild-ce",), early_peak, "> 0.5", SHARE),
    Claim("C2.ce", "In the end it predicts them as labelled", "0.87", ("mild-ce",),
          partial(memorised, "mild-ce"), "> 0.6", SHARE),
    Claim("C2.elr", "ELR does not", "0.03", ("mild-elr",), partial(memorised, "mild-elr"), "< 0.2", SHARE),
    Claim("C2.falls", "Cross-entropy's test accuracy falls from its best-validated epoch to the last",
          "0.83 to 0.65", ("mild-ce",), falls, "> 0", ACCURACY),
    Claim("C3.sym", "Symmetric 60 %: ELR+ is better than ELR in the last epoch", "ELR+ is better throughout",
          ("sym-elr+", "sym-elr"), partial(gain, "sym-elr+", "sym-elr"), "> 0", ACCURACY),
    Claim("C3.asym", "Asymmetric 40 %: the same", "92.7 against 90.12", ("asym-elr+", "asym-elr"),
          partial(gain, "asym-elr+", "asym-elr"), "> 0", ACCURACY),
    Claim("C3.co-teaching", "Symmetric 60 %: ELR+ is better than co-teaching that knows the noise rate",
          "better than Co-teaching+", ("sym-elr+", "sym-co-teaching"),
          partial(gain, "sym-elr+", "sym-co-teaching"), "> 0", ACCURACY),
    Claim("C4.average", "Symmetric 80 %: weight averaging helps, over all combinations of parts",
          "72.54 to 76.50", PARTS, partial(part_effect, "w"), "> 0", ACCURACY),
    Claim("C4.mixup", "So does mixup", "76.50 to 81.43", PARTS, partial(part_effect, "m"), "> 0", ACCURACY),
    Claim("C4.twins", "So do two networks", "81.43 to 88.62", PARTS, partial(part_effect, "t"), "> 0",
          ACCURACY),
    Claim("C4.all", "All parts are better than none", "88.62 against 72.54", ("plus-wmt", "plus-"),
          partial(gain, "plus-wmt", "plus-"), "> 0", ACCURACY),
    Claim("C5.beta-0", "Symmetric 60 %: without averaging (beta 0) ELR loses 10 points", "38 % at beta 0",
          tuple(BETAS.values()), collapse, "> 0.1", ACCURACY),
    Claim("C5.beta", "With beta from 0.3 to 0.99 less than 10 points are between best and worst",
          "robust to beta", tuple(BETAS.values())[1:], partial(spread, tuple(BETAS.values())[1:]), "< 0.1",
          ACCURACY),
    Claim("C5.lambda", "So with lambda from 1 to 7", "robust to lambda", tuple(LAMBDAS.values()),
          partial(spread, tuple(LAMBDAS.values())), "< 0.1", ACCURACY),
    Claim("C5.kl", "A KL term to the same targets memorises more than ELR", "fails", ("kl", "sym-elr"),
          more_memorised, "> 0", SHARE),
    Claim("C6.peak", "Linear model: cross-entropy comes to predict wrongly labelled examples right",
          "theorem: early learning", ("linear-ce",), partial(wrong_peak, "linear-ce"), "> 0.9", SHARE),
    Claim("C6.end", "And memorises their labels in the end", "theorem: memorisation", ("linear-ce",),
          partial(wrong_at_the_end, "linear-ce"), "< 0.1", SHARE),
    Claim("C6.elr", "ELR keeps predicting them right", "stays near 1", ("linear-elr",),
          partial(wrong_at_the_end, "linear-elr"), "> 0.8", SHARE),
    Claim("C6.correlation", "In the early stage the gradient is along v by a sixth or more (eta 0.05)",
          ">= 1/6", ("linear-slow",), least_correlation, "> 0.16667", "cosine"),
    Claim("C6.clean", "Residuals of right labels fall by 0.05 in the early stage", "by 0.05",
          ("linear-slow",), partial(residual_change, "clean_residual"), "< -0.05", "mean κ²"),
    Claim("C6.wrong", "Those of wrong labels rise by 0.05", "by 0.05", ("linear-slow",),
          partial(residual_change, "wrong_residual"), "> 0.05", "mean κ²"),
    Claim("C6.peak-0.3", "With noise sigma 0.3 instead of 0.1 the peak is still above 0.9",
          "sigma small enough", ("linear-ce-0.3",), partial(wrong_peak, "linear-ce-0.3"), "> 0.9", SHARE),
    Claim("C6.elr-0.3", "ELR keeps the wrongly labelled right at sigma 0.3", "not in the paper",
          ("linear-elr-0.3",), partial(wrong_at_the_end, "linear-elr-0.3"), "> 0.8", SHARE),
    Claim("C6.elr-0.6", "And at sigma 0.6", "not in the paper", ("linear-elr-0.6",),
          partial(wrong_at_the_end, "linear-elr-0.6"), "> 0.8", SHARE),
    Claim("C6.few", "Below the theorem's band (p / n = 0.5) cross-entropy memorises too",
          "p / n in (0.8, 1)", ("linear-ce-p100",), partial(wrong_at_the_end, "linear-ce-p100"), "< 0.1",
          SHARE),
    Claim("C6.many", "Above it (p / n = 1.5) too", "p / n in (0.8, 1)", ("linear-ce-p300",),
          partial(wrong_at_the_end, "linear-ce-p300"), "< 0.1", SHARE),
    Claim("C7.sym", "Symmetric 60 %: ELR's targets find wrong labels better than cross-entropy's "
          "predictions in its best-validated epoch", "not in the paper",
          ("sym-elr", "sym-cross-entropy"), partial(finds, "sym"), "> 0", FOUND),
    Claim("C7.asym", "Asymmetric 40 %: the same", "not in the paper", ("asym-elr", "asym-cross-entropy"),
          partial(finds, "asym"), "> 0", FOUND),
)  # fmt: skip


NAMES = {
    "cross-entropy": "cross-entropy", "soft-bootstrap": "bootstrap, soft",
    "hard-bootstrap": "bootstrap, hard", "gce": "GCE", "sce": "SCE",
    "forward-estimated": "forward, T estimated", "forward": "forward, T known",
    "co-teaching": "co-teaching", "elr": "ELR", "elr+": "ELR+",
}  # fmt: skip


def _epochs(trace: xr.Dataset) -> np.ndarray:
    """Observation steps as shares of the run in percent."""
    return 100 * trace.step.values / trace.step.values[-1]


def draw_memorisation(traces: Traces) -> MatplotlibFigure:
    """Stacked shares of the clean and the wrong subset over the run."""
    figure, axes = style.figure(2, 2, width=9.4, height=5.6, sharex=True, sharey=True)
    stacks = (
        ("clean", (("clean_right", "predicted right", 2), ("clean_other", "another class", 6))),
        ("wrong", (("wrong_right", "predicted right", 2), ("wrong_other", "another class", 6),
                   ("wrong_memorised", "as labelled", 1))),
    )  # fmt: skip
    for column, (arm, title) in zip(
        axes.T, (("mild-ce", "cross-entropy"), ("mild-elr", "ELR")), strict=True
    ):
        for ax, (subset, parts) in zip(column, stacks, strict=True):
            shares = [100 * traces[arm][name].mean("seed").values for name, _, _ in parts]
            ax.stackplot(_epochs(traces[arm]), shares, colors=[style.colours[c] for *_, c in parts],
                         labels=[label for _, label, _ in parts], alpha=0.85)  # fmt: skip
            ax.set(xlim=(0, 100), ylim=(0, 100))
            if arm == "mild-ce":
                ax.set_ylabel(
                    f"% of {'rightly' if subset == 'clean' else 'wrongly'}\nlabelled examples"
                )
        column[0].set_title(title)
        column[1].set_xlabel("share of the run in %")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_methods(traces: Traces) -> MatplotlibFigure:
    """Accuracy of all methods in the last and in the best-validated epoch."""
    figure, axes = style.figure(1, 2, width=10.4, height=4.4, sharey=True)
    titles = {"sym": "symmetric noise, 60 %", "asym": "asymmetric noise, 40 %"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        for place, method in enumerate(reversed(NAMES)):
            for shift, take, colour, marker, label in (
                (0.16, last, 0, "o", "last epoch"),
                (-0.16, chosen, 4, "D", "best-validated epoch"),
            ):
                values = 100 * take(traces, f"{kind}-{method}")
                ax.plot([values.min(), values.max()], [place + shift] * 2, color=style.colours[colour],
                        linewidth=1.2, alpha=0.6)  # fmt: skip
                ax.plot(values.mean(), place + shift, marker, color=style.colours[colour], markersize=5,
                        label=label if place == 0 else None)  # fmt: skip
        ax.set(title=title, xlabel="test accuracy in %", xlim=(None, 100))
    axes[0].set_yticks(range(len(NAMES)), [NAMES[m] for m in reversed(NAMES)])
    axes[0].legend(loc="lower left")
    return figure


def draw_parts(traces: Traces) -> MatplotlibFigure:
    """ELR+ by its parts, and ELR by beta and lambda."""
    figure, (left, middle, right) = style.figure(
        1, 3, width=11.4, height=3.9, gridspec_kw={"width_ratios": [1.5, 1, 1]}
    )
    order = sorted(PARTS, key=len)
    letters = {"w": "average", "m": "mixup", "t": "two nets"}
    for place, arm in enumerate(order):
        values = 100 * last(traces, arm)
        left.plot(
            [values.min(), values.max()], [place, place], color=style.colours[0], linewidth=1.2
        )
        left.plot(values.mean(), place, "o", color=style.colours[0])
    called = [" + ".join(letters[c] for c in arm[5:]) or "none: ELR" for arm in order]
    left.set_yticks(range(len(order)), called)
    left.invert_yaxis()
    left.set(xlabel="test accuracy in %", title="parts of ELR+, symmetric 80 %")
    for ax, arms, label in ((middle, BETAS, "β"), (right, LAMBDAS, "λ")):
        rows = np.array([100 * last(traces, arm) for arm in arms.values()])
        ax.plot(
            range(len(arms)), rows.mean(axis=1), "o-", color=style.colours[0], label="last epoch"
        )
        ax.fill_between(range(len(arms)), rows.min(axis=1), rows.max(axis=1), color=style.colours[0],
                        alpha=0.18, linewidth=0)  # fmt: skip
        plain = 100 * last(traces, "sym-cross-entropy").mean()
        ax.axhline(
            plain, color=style.colours[6], linestyle="--", linewidth=1.2, label="cross-entropy"
        )
        ax.set_xticks(range(len(arms)), [f"{value:g}" for value in arms])
        ax.set(xlabel=label, ylim=(None, 100), title=f"ELR by {label}, symmetric 60 %")
    middle.set_ylabel("test accuracy in %")
    right.legend(loc="center right")
    return figure


def draw_linear(traces: Traces) -> MatplotlibFigure:
    """Both subsets, residuals and pulls of the linear model."""
    figure, axes = style.figure(1, 3, width=11.4, height=3.7)
    lines = (("linear-ce", "cross-entropy", 1), ("linear-elr", "ELR", 0))
    panels = (
        ("accuracy", "predicted right", "linear model, σ = 0.1"),
        ("residual", "mean κ²", "residuals"),
        ("pull", "mean |gradient in a logit|", "gradients"),
    )
    for ax, (what, label, title) in zip(axes, panels, strict=True):
        for arm, name, colour in lines:
            for subset, dashes in (("wrong", "-"), ("clean", ":")):
                values = draws(traces[arm], f"{subset}_{what}")
                said = f"{name}, {'wrong' if subset == 'wrong' else 'right'} labels"
                ax.plot(
                    traces[arm].step,
                    values.mean(axis=1),
                    dashes,
                    color=style.colours[colour],
                    label=said,
                )
        style.log_steps_axis(ax)
        ax.set(ylabel=label, title=title)
    axes[0].set_ylim(-0.03, 1.03)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_detection(traces: Traces) -> MatplotlibFigure:
    """AUROC of wrong labels over the run."""
    figure, axes = style.figure(1, 2, width=9.4, height=3.9, sharey=True)
    lines = (
        ("elr", "auroc_targets", "ELR, targets", 0, "-"),
        ("elr", "auroc_outputs", "ELR, predictions", 5, "--"),
        ("cross-entropy", "auroc_targets", "cross-entropy, averaged", 1, "-"),
        ("cross-entropy", "auroc_outputs", "cross-entropy, predictions", 4, "--"),
    )
    titles = {"sym": "symmetric noise, 60 %", "asym": "asymmetric noise, 40 %"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        for method, what, label, colour, dashes in lines:
            trace = traces[f"{kind}-{method}"]
            values = trace[what].values[:, 1:]
            ax.plot(
                _epochs(trace)[1:],
                values.mean(axis=0),
                dashes,
                color=style.colours[colour],
                label=label,
            )
            _band(ax, _epochs(trace)[1:], values, style.colours[colour])
        ax.set(xlabel="share of the run in %", title=title, xlim=(0, 100), ylim=(None, 1.005))
    axes[0].set_ylabel("AUROC of wrong labels")
    axes[0].legend(loc="lower left")
    return figure


def _band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: str) -> None:
    ax.fill_between(
        x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0
    )


SMOKE = ("linear-ce", "linear-elr", "linear-slow", "mild-ce", "mild-elr")
APART = ("plus-", "beta-", "lambda-", "kl")
study = Study(
    paper=Paper(
        "early-learning-regularization",
        "Early-Learning Regularization Prevents Memorization of Noisy Labels",
        "Liu, Niles-Weed, Razavian, Fernandez-Granda", "NeurIPS", 2020, "2007.00151",
        "shengliu66/ELR",
    ),
    family="noisy_labels",
    question="Wrong labels are memorised late: does it help to hold a network to what it said early?",
    symptoms=(
        "test accuracy rises, then falls while training accuracy goes to 100%",
        "the network memorises wrong labels",
        "some of my labels are wrong and I do not know which",
        "find mislabelled examples in my data",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(2, SMOKE, {"epochs": 2, "steps": 40, "problems": 2, "limit": 400}),
        "quick": Budget(4, tuple(arm for arm in ARMS if not arm.startswith(APART))),
        "parts": Budget(
            4, ("sym-cross-entropy", "sym-elr", *(arm for arm in ARMS if arm.startswith(APART)))
        ),
        "full": Budget(5, settings={
            "data": "mnist", "limit": 8000, "network": "cnn", "epochs": 60, "rate_of_step": 0.02,
            "decay": 1e-3,
        }, arm_settings={arm: {"rate_of_step": c.rate_of_step} for arm, c in LINEAR.items()}),
    },
    claims=CLAIMS,
    figures=(
        Figure("memorisation", "What is predicted of rightly (top) and wrongly labelled examples (bottom), "
               "symmetric noise 40 %, mean over seeds.", draw_memorisation, ("mild-ce", "mild-elr")),
        Figure("methods", "Test accuracy in the last epoch and in the one with the best accuracy on noisy "
               "validation labels. Lines span the seeds.", draw_methods,
               tuple(f"{kind}-{m}" for kind in SETTINGS for m in METHODS)),
        Figure("parts", "Parts of ELR+, and ELR by β and λ, last epoch. Lines and bands span the seeds.",
               draw_parts, (*PARTS, *BETAS.values(), *LAMBDAS.values(), "sym-cross-entropy")),
        Figure("linear", "Softmax regression on two Gaussians (n = 200, p = 170): means over the draws.",
               draw_linear, ("linear-ce", "linear-elr")),
        Figure("detection", "How well wrong labels are found by a low target or a low predicted probability "
               "of the label. Bands span the seeds.", draw_detection,
               tuple(f"{kind}-{m}" for kind in SETTINGS for m in ("elr", "cross-entropy"))),
    ),
    data="synthetic (two Gaussians); scikit-learn digits with labels made noisy",
    notes="Digits (1,295 training images, 143 for validation with equally noisy labels, 359 for testing) "
    "and an MLP stand in for CIFAR-10 and a ResNet; `--budget full` runs 8,000 MNIST images and a small "
    "convolutional network for 60 epochs. All methods share network, optimiser and length; the own "
    "settings of each were tuned with a grid of six on other seeds by the accuracy on noisy validation "
    "labels in the last epoch. No learning-rate decay, weight decay or augmentation in the quick budget, "
    "so that cross-entropy memorises.",
    side_by_side=True,
)  # fmt: skip
