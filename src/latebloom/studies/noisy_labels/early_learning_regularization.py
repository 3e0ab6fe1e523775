"""Early-learning regularization prevents memorization of noisy labels.

Liu, Niles-Weed, Razavian, Fernandez-Granda (NeurIPS 2020, arXiv 2007.00151).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes

from latebloom.core.dataset import Dataset
from latebloom.core.process import Process
from latebloom.data import load
from latebloom.lab import Budget, Claim, Figure, Need, Paper, Study, pictures, style
from latebloom.measures import (
    Effect,
    Measure,
    Traces,
    at,
    best,
    final,
    lowest,
    mean,
    peak,
    peak_step,
)
from latebloom.methods.noisy_labels import (
    MNIST_PAIRS,
    CoTeaching,
    EarlyLearning,
    EarlyLearningPlus,
    LabelNoise,
    NoisyData,
    RobustLoss,
    TwoGaussians,
    held_out,
    side_by_side,
)
from latebloom.methods.noisy_labels.linear_terms import change, least_correlation, of_draws
from latebloom.nn import MLP, SmallCNN
from latebloom.optim import sgd


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
        "data": data, "optimiser": sgd, "batch_size": config.batch_size, "seeds_by": "map",
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


def _network(kind: str, width: int, shape: tuple[int, ...], key: PRNGKeyArray) -> MLP | SmallCNN:
    if kind == "cnn":
        return SmallCNN((shape[0], shape[1]), shape[2], key=key)
    return MLP(shape[0], (width,), 10, key=key)


@functools.cache
def _digits(name: str, limit: int | None, flat: bool) -> Dataset:
    images = load(name)

    def pixels(x: np.ndarray) -> Array:
        scaled = jnp.asarray(x, jnp.float32) / 255
        return scaled.reshape(len(x), -1) if flat else scaled[..., None]

    train, test = slice(limit), slice(limit and limit // 4)
    return Dataset(
        pixels(images.x_train[train]), jnp.asarray(images.y_train[train]),
        pixels(images.x_test[test]), jnp.asarray(images.y_test[test]),
    )  # fmt: skip


def _data(config: Config) -> NoisyData:
    noise = LabelNoise(config.rate, pairs=MNIST_PAIRS if config.asymmetric else None)
    return held_out(_digits(config.data, config.limit or None, config.network == "mlp"), noise)


SETTINGS = {"sym": Config(), "asym": Config(rate=0.4, asymmetric=True)}
# Each tuned with six settings on other seeds, by accuracy on noisy validation labels in the last epoch.
TUNED: dict[str, dict[str, dict[str, Any]]] = {  # method -> kind of noise -> its own settings
    "cross-entropy": {"sym": {}, "asym": {}},
    "gce": {"sym": {"q": 0.9}, "asym": {"q": 0.7}},
    "sce": {"sym": {"a": 0.01, "b": 0.3}, "asym": {"a": 0.01, "b": 1.0}},
    "soft-bootstrap": {"sym": {"trust": 0.8}, "asym": {"trust": 0.9}},
    "hard-bootstrap": {"sym": {"trust": 0.4}, "asym": {"trust": 0.6}},
    "forward": {"sym": {}, "asym": {}},
    "forward-estimated": {"sym": {"warmup": 2}, "asym": {"warmup": 5}},
    "co-teaching": {"sym": {"warmup": 2}, "asym": {"warmup": 5}},
    "elr": {"sym": {"strength": 7.0, "beta": 0.9}, "asym": {"strength": 3.0, "beta": 0.7}},
    "elr+": {"sym": {"strength": 3.0, "beta": 0.7}, "asym": {"strength": 3.0, "beta": 0.7}},
    "kl": {"sym": {"strength": 7.0, "beta": 0.9}},
}
METHODS = tuple(method for method, kinds in TUNED.items() if "asym" in kinds)
RIVALS = ("gce", "sce", "soft-bootstrap", "hard-bootstrap", "forward-estimated")  # of Table 1
# ELR+ with some of its parts: w, a weight average; m, mixup; t, twins.
PARTS = tuple(f"plus-{w}{m}{t}" for w in ("", "w") for m in ("", "m") for t in ("", "t"))
BETAS = {beta: f"beta-{beta:g}" for beta in (0.0, 0.3, 0.7, 0.9, 0.99)}  # with lambda 3
LAMBDAS = {1.0: "lambda-1", 3.0: "beta-0.7", 7.0: "lambda-7"}  # with beta 0.7


def _arm(kind: str, method: str, **more: Any) -> Config:
    settings = {"method": method} | TUNED[method][kind] | more
    return replace(SETTINGS[kind], **settings)


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
    **{arm: _arm("sym", "elr+", rate=0.8, average=0.997 if "w" in arm else 0.0, mixup="m" in arm,
                 twins="t" in arm) for arm in PARTS},
}  # fmt: skip


test, memorised = final("test_accuracy"), final("wrong_memorised")
fits = final("train_accuracy")
validated = peak_step("valid_accuracy")  # the epoch that noisy validation labels choose
chosen = at("test_accuracy", validated)


def gain(of: Measure, one: str, other: str) -> Effect:
    return of[one] - of[other]


def over_rivals(kind: str) -> Effect:
    return test[f"{kind}-elr"] - best(test[f"{kind}-{method}"] for method in RIVALS)


def finds(kind: str) -> Effect:
    """AUROC of ELR's targets minus that of cross-entropy's predictions in its best-validated epoch."""
    plain = at("auroc_outputs", validated)[f"{kind}-cross-entropy"]
    return final("auroc_targets")[f"{kind}-elr"] - plain


def part_effect(part: str) -> Effect:
    """Mean accuracy with a part of ELR+ minus that without, over the other two parts."""
    on, off = (mean(test[a] for a in PARTS if (part in a) is there) for there in (True, False))
    return on - off


def spread(*arms: str) -> Effect:
    effects = [test[arm] for arm in arms]
    return best(effects) - best(effects, lowest=True)


wrong_start, wrong_end, wrong_peak = (
    of_draws(of) for of in (at("wrong_accuracy", 0), final("wrong_accuracy"), peak("wrong_accuracy"))
)  # fmt: skip
clean_change, wrong_change = change("clean_residual"), change("wrong_residual")


def fitted(*arms: str) -> tuple[Need]:
    return (Need(lowest(fits[arm] for arm in arms), "> 0.95", "cross-entropy does not fit the noisy labels"),)  # fmt: skip


PLAIN = ("sym-cross-entropy", "asym-cross-entropy", "mild-ce")
SYM, ASYM = ("sym-elr", "sym-cross-entropy"), ("asym-elr", "asym-cross-entropy")
SHARE, ACCURACY, FOUND, KAPPA = "share of wrong labels", "test accuracy", "AUROC", "mean κ²"
OURS, BAND = "not in the paper", "p / n in (0.8, 1)"
CLAIMS = (
    Claim("C0", "Precondition: cross-entropy fits the noisy training labels", "(precondition)",
          lowest(fits[arm] for arm in PLAIN), "> 0.95", "training accuracy",
          null=lowest(at("train_accuracy", 0)[arm] for arm in PLAIN)),
    Claim("C1.sym", "Symmetric noise 60 %: ELR is 3 points better than cross-entropy in the last epoch",
          "86.12 against 74.14 (CIFAR-10)", gain(test, *SYM), "> 0.03", ACCURACY,
          null=gain(at("test_accuracy", 0), *SYM), needs=fitted("sym-cross-entropy")),
    Claim("C1.asym", "Asymmetric noise 40 %: ELR is better than cross-entropy in the last epoch",
          "90.12 against 80.11 (CIFAR-10)", gain(test, *ASYM), "> 0", ACCURACY, needs=fitted("asym-cross-entropy")),
    Claim("C1.sym-chosen", "The same for 60 % in each one's best-validated epoch (noisy validation labels)",
          "the table's rule", gain(chosen, *SYM), "> 0", ACCURACY),
    Claim("C1.asym-chosen", "The same for asymmetric 40 %", "the table's rule", gain(chosen, *ASYM), "> 0", ACCURACY),
    Claim("C1.sym-rivals", "Symmetric 60 %: ELR beats the best of GCE, SCE, both bootstraps and forward "
          "with an estimated matrix", "86.12 against 82.81 (SL)", over_rivals("sym"), "> 0", ACCURACY),
    Claim("C1.asym-rivals", "Asymmetric 40 %: the same", "90.12 against 82.51 (SL)", over_rivals("asym"), "> 0",
          ACCURACY),
    Claim("C2.early", "40 %: cross-entropy first predicts wrongly labelled examples right, most of them", "0.77",
          peak("wrong_right")["mild-ce"], "> 0.5", SHARE, null=at("wrong_right", 0)["mild-ce"]),
    Claim("C2.ce", "In the end it predicts them as labelled", "0.87", memorised["mild-ce"], "> 0.6", SHARE,
          null=at("wrong_memorised", 0)["mild-ce"], needs=fitted("mild-ce")),
    Claim("C2.elr", "ELR does not", "0.03", memorised["mild-elr"], "< 0.2", SHARE, null=memorised["mild-ce"]),
    Claim("C2.falls", "Cross-entropy's test accuracy falls from its best-validated epoch to the last", "0.83 to 0.65",
          (chosen - test)["mild-ce"], "> 0", ACCURACY, needs=fitted("mild-ce")),
    Claim("C3.sym", "Symmetric 60 %: ELR+ is better than ELR in the last epoch", "ELR+ is better throughout",
          gain(test, "sym-elr+", "sym-elr"), "> 0", ACCURACY),
    Claim("C3.asym", "Asymmetric 40 %: the same", "92.7 against 90.12", gain(test, "asym-elr+", "asym-elr"), "> 0",
          ACCURACY),
    Claim("C3.co-teaching", "Symmetric 60 %: ELR+ is better than co-teaching that knows the noise rate",
          "better than Co-teaching+", gain(test, "sym-elr+", "sym-co-teaching"), "> 0", ACCURACY),
    Claim("C4.average", "Symmetric 80 %: weight averaging helps, over all combinations of parts", "72.54 to 76.50",
          part_effect("w"), "> 0", ACCURACY, budget="thorough"),
    Claim("C4.mixup", "So does mixup", "76.50 to 81.43", part_effect("m"), "> 0", ACCURACY, budget="thorough"),
    Claim("C4.twins", "So do two networks", "81.43 to 88.62", part_effect("t"), "> 0", ACCURACY, budget="thorough"),
    Claim("C4.all", "All parts are better than none", "88.62 against 72.54", gain(test, "plus-wmt", "plus-"), "> 0",
          ACCURACY, budget="thorough"),
    Claim("C5.beta-0", "Symmetric 60 %: without averaging (beta 0) ELR loses 10 points", "38 % at beta 0",
          best(test[arm] for arm in BETAS.values()) - test["beta-0"], "> 0.1", ACCURACY, budget="thorough",
          null=best(test[arm] for arm in BETAS.values()) - test["beta-0.3"]),
    Claim("C5.beta", "With beta from 0.3 to 0.99 less than 10 points are between best and worst", "robust to beta",
          spread(*list(BETAS.values())[1:]), "< 0.1", ACCURACY, budget="thorough"),
    Claim("C5.lambda", "So with lambda from 1 to 7", "robust to lambda", spread(*LAMBDAS.values()), "< 0.1", ACCURACY,
          budget="thorough"),
    Claim("C5.kl", "A KL term to the same targets memorises more than ELR", "fails", gain(memorised, "kl", "sym-elr"),
          "> 0", SHARE, budget="thorough"),
    Claim("C6.peak", "Linear model: cross-entropy comes to predict wrongly labelled examples right",
          "theorem: early learning", wrong_peak["linear-ce"], "> 0.9", SHARE, null=wrong_start["linear-ce"]),
    Claim("C6.end", "And memorises their labels in the end", "theorem: memorisation", wrong_end["linear-ce"], "< 0.1",
          SHARE, null=wrong_start["linear-ce"]),
    Claim("C6.elr", "ELR keeps predicting them right", "stays near 1", wrong_end["linear-elr"], "> 0.8", SHARE,
          null=wrong_end["linear-ce"]),
    Claim("C6.correlation", "In the early stage the gradient is along v by a sixth or more (eta 0.05)", ">= 1/6",
          least_correlation["linear-slow"], "> 0.16667", "cosine", null=of_draws(final("correlation"))["linear-slow"]),
    Claim("C6.clean", "Residuals of right labels fall by 0.05 in the early stage", "by 0.05",
          clean_change["linear-slow"], "< -0.05", KAPPA, null=wrong_change["linear-slow"]),
    Claim("C6.wrong", "Those of wrong labels rise by 0.05", "by 0.05", wrong_change["linear-slow"], "> 0.05", KAPPA,
          null=clean_change["linear-slow"]),
    Claim("C6.peak-0.3", "With noise sigma 0.3 instead of 0.1 the peak is still above 0.9", "sigma small enough",
          wrong_peak["linear-ce-0.3"], "> 0.9", SHARE, null=wrong_start["linear-ce-0.3"]),
    Claim("C6.elr-0.3", "ELR keeps the wrongly labelled right at sigma 0.3", OURS, wrong_end["linear-elr-0.3"], "> 0.8",
          SHARE, null=wrong_end["linear-ce-0.3"]),
    Claim("C6.elr-0.6", "And at sigma 0.6", OURS, wrong_end["linear-elr-0.6"], "> 0.8", SHARE,
          null=wrong_end["linear-ce-0.6"]),
    Claim("C6.few", "Below the theorem's band (p / n = 0.5) cross-entropy memorises too", BAND,
          wrong_end["linear-ce-p100"], "< 0.1", SHARE, null=wrong_start["linear-ce-p100"]),
    Claim("C6.many", "Above it (p / n = 1.5) too", BAND, wrong_end["linear-ce-p300"], "< 0.1", SHARE,
          null=wrong_start["linear-ce-p300"]),
    Claim("C7.sym", "Symmetric 60 %: ELR's targets find wrong labels better than cross-entropy's predictions in its "
          "best-validated epoch", OURS, finds("sym"), "> 0", FOUND),
    Claim("C7.asym", "Asymmetric 40 %: the same", OURS, finds("asym"), "> 0", FOUND),
)  # fmt: skip


NAMES = {
    "cross-entropy": "cross-entropy", "soft-bootstrap": "bootstrap, soft",
    "hard-bootstrap": "bootstrap, hard", "gce": "GCE", "sce": "SCE",
    "forward-estimated": "forward, T estimated", "forward": "forward, T known",
    "co-teaching": "co-teaching", "elr": "ELR", "elr+": "ELR+",
}  # fmt: skip
TITLES = {"sym": "symmetric noise, 60 %", "asym": "asymmetric noise, 40 %"}
STACKS = {  # subset -> observable, label, colour
    "rightly": (("clean_right", "predicted right", 2), ("clean_other", "another class", 6)),
    "wrongly": (("wrong_right", "predicted right", 2), ("wrong_other", "another class", 6),
                ("wrong_memorised", "as labelled", 1)),
}  # fmt: skip


def in_percent(trace: xr.Dataset) -> xr.Dataset:
    """Steps after the first as shares of the run."""
    seen = trace.isel(step=slice(1, None))
    return seen.assign_coords(step=100 * seen.step / seen.step.values[-1])


@pictures.by_hand(4, 2, width=9.4, height=2.8, sharex=True, sharey=True, legend=True)
def draw_memorisation(traces: Traces, *axes: Axes) -> None:
    """Stacked shares of the clean and the wrong subset over the run."""
    for column, (arm, title) in enumerate({"mild-ce": "cross-entropy", "mild-elr": "ELR"}.items()):
        steps = traces[arm].step.values
        for ax, (subset, parts) in zip(axes[column::2], STACKS.items(), strict=True):
            shares = [100 * traces[arm][name].mean("seed").values for name, _, _ in parts]
            ax.stackplot(100 * steps / steps[-1], shares, labels=[label for _, label, _ in parts],
                         colors=[style.colours[c] for *_, c in parts], alpha=0.85)  # fmt: skip
            ax.set(xlim=(0, 100), ylim=(0, 100))
            if column == 0:
                ax.set_ylabel(f"% of {subset}\nlabelled examples")
        axes[column].set_title(title)
        axes[2 + column].set_xlabel("share of the run in %")


def by_method(kind: str) -> dict[str, dict[str, Effect]]:
    return {name: {"last epoch": test[f"{kind}-{method}"], "best-validated epoch": chosen[f"{kind}-{method}"]}
            for method, name in NAMES.items()}  # fmt: skip


def by_setting(arms: dict[float, str]) -> dict[str, tuple[list[float], list[Effect]]]:
    levels = list(arms)
    return {"ELR": (levels, [test[arm] for arm in arms.values()]),
            "cross-entropy": (levels, [test["sym-cross-entropy"]] * len(levels))}  # fmt: skip


LETTERS = {"w": "average", "m": "mixup", "t": "two nets"}
PLUS = {
    " + ".join(LETTERS[c] for c in arm[5:]) or "none: ELR": arm for arm in sorted(PARTS, key=len)
}
FIGURES = (
    Figure("memorisation", "What is predicted of rightly (top) and wrongly labelled examples (bottom), symmetric noise "
           "40 %, mean over seeds.", draw_memorisation, ("mild-ce", "mild-elr")),
    Figure("methods", "Test accuracy in the last epoch and in the one with the best accuracy on noisy validation labels.",
           pictures.dots({f"test accuracy, {title}": by_method(kind) for kind, title in TITLES.items()}),
           (*SYM, *ASYM)),
    Figure("parts", "Parts of ELR+ at symmetric noise of 80 %, last epoch.",
           pictures.dots({"test accuracy": {label: test[arm] for label, arm in PLUS.items()}}), PARTS),
    Figure("settings", "ELR by β (with λ = 3) and by λ (with β = 0.7), symmetric noise of 60 %, last epoch.",
           pictures.trend(("β", by_setting(BETAS)), ("λ", by_setting(LAMBDAS)), ylabel="test accuracy"),
           (*BETAS.values(), *LAMBDAS.values(), "sym-cross-entropy")),
    Figure("linear", "Softmax regression on two Gaussians (n = 200, p = 170), over the draws: examples with wrong labels "
           "(top) and with right ones (bottom).",
           pictures.curves({f"{label} ({subset})": f"{subset}_{what}" for subset in ("wrong", "clean") for what, label in (
               ("accuracy", "predicted right"), ("residual", "mean κ²"), ("pull", "mean |gradient in a logit|"))},
               ("", {"linear-elr": "ELR", "linear-ce": "cross-entropy"}), as_drawn=side_by_side, log_steps=True),
           ("linear-ce", "linear-elr")),
    Figure("conditions", "The linear model in other conditions, a dot for each draw.",
           pictures.dots({"wrongly labelled examples predicted right": {
               arm.removeprefix("linear-"): {"at best": wrong_peak[arm], "in the end": wrong_end[arm]} for arm in LINEAR}}),
           ("linear-ce", "linear-elr")),
    Figure("detection", "How well wrong labels are found by a low target or a low predicted probability of the label.",
           pictures.curves({"AUROC, targets": "auroc_targets", "AUROC, predictions": "auroc_outputs"},
                           *((title, {f"{kind}-elr": "ELR", f"{kind}-cross-entropy": "cross-entropy"})
                             for kind, title in TITLES.items()),
                           as_drawn=in_percent, xlabel="share of the run in %", ylim=(None, 1.005)),
           (*SYM, *ASYM)),
)  # fmt: skip

SMOKE = ("linear-ce", "linear-elr", "linear-slow", "mild-ce", "mild-elr")
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
        "quick": Budget(6),
        "thorough": Budget(6, also=(*LINEAR, "sym-forward", "asym-forward", "asym-co-teaching")),
        "full": Budget(6, settings={
            "data": "mnist", "limit": 8000, "network": "cnn", "epochs": 60, "rate_of_step": 0.02,
            "decay": 1e-3,
        }, arm_settings={arm: {"rate_of_step": c.rate_of_step} for arm, c in LINEAR.items()}),
    },
    claims=CLAIMS,
    figures=FIGURES,
    data="synthetic (two Gaussians); scikit-learn digits with labels made noisy",
    notes="Digits (1,295 training images, 143 for validation with equally noisy labels, 359 for testing) "
    "and an MLP stand in for CIFAR-10 and a ResNet; `--budget full` runs 8,000 MNIST images and a small "
    "convolutional network for 60 epochs. All methods share network, optimiser and length; the own "
    "settings of each were tuned with a grid of six on other seeds by the accuracy on noisy validation "
    "labels in the last epoch. No learning-rate decay, weight decay or augmentation below the full budget, "
    "so that cross-entropy memorises.",
    side_by_side=True,
)  # fmt: skip
