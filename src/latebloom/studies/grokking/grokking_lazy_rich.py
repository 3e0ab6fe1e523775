"""Grokking as the transition from lazy to rich training dynamics.

Kumar, Bordelon, Gershman, Pehlevan (ICLR 2024, arXiv 2310.06110).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as MatplotlibFigure
from scipy import stats

from latebloom.core.process import Process, log_steps
from latebloom.core.training import Snapshot, Supervised
from latebloom.data import Dataset, ModularArithmetic, load
from latebloom.lab import Budget, Figure, Paper, Study, style
from latebloom.lab import legacy_claim as Claim
from latebloom.lab.study import Traces
from latebloom.losses import mean_squared_error
from latebloom.methods.grokking.lazy_rich import ClosedDynamics, ScaledMLP
from latebloom.nn.transformer import Transformer
from latebloom.probes.linearised import Centred
from latebloom.probes.ntk import empirical_ntk, kernel_alignment

TRAINED, GENERALISED = 0.1, 0.2  # loss / mean(y^2) that dates fitting and generalising


@dataclass(frozen=True)
class Config:
    """One run. The first half is the polynomial committee machine, the second the networks.

    - `alpha`: output scale; larger is lazier. `epsilon`: quadratic part of the activation.
    - `rate`: step size over width, see `ClosedDynamics`.
    - `samples`, `neurons`: None for infinitely many. `samples` is also the size of the
      networks' training set of images.
    - `task`: "committee", "images" (ReLU network), "modular" (one-layer transformer), or
      "teacher" (two-layer ReLU student of `width` units, teacher of three).
    """

    task: Literal["committee", "images", "modular", "teacher"] = "committee"
    alpha: float = 1.0
    epsilon: float = 0.25
    rate: float = 0.5
    weight_scale: float = 1.0
    dim: int = 100
    samples: int | None = 550
    neurons: int | None = 500
    centred: bool = False
    linearised: bool = False
    spectrum: bool = False
    dtype: Literal["float32", "float64"] = "float64"

    data: str = "mnist-5k"
    modulus: int = 97
    width: int = 200
    batch_size: int | None = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    probe_points: int = 300
    steps: int = 60_000
    per_decade: int = 15


def make_process(config: Config) -> Process:
    if config.task == "committee":
        return ClosedDynamics(
            alpha=config.alpha, epsilon=config.epsilon, rate=config.rate,
            weight_scale=config.weight_scale, dim=config.dim, samples=config.samples,
            neurons=config.neurons, probe_points=config.probe_points, centred=config.centred,
            linearised=config.linearised, spectrum=config.spectrum, dtype=config.dtype,
        )  # fmt: skip
    training: dict[str, Any] = {
        "optimiser": _adamw,
        "hyper": {"learning_rate": config.learning_rate, "weight_decay": config.weight_decay},
        "loss": mean_squared_error,
        "batch_size": config.batch_size,
    }
    probes: dict[str, Any] = {
        "train_target_power": partial(_target_power, "train"),
        "test_target_power": partial(_target_power, "test"),
        "weight_norm": _weight_norm,
    }
    if config.task == "images":
        data = _images(config)
        probes["ntk_alignment"] = partial(_alignment, config.probe_points)
    elif config.task == "modular":
        data = ModularArithmetic(config.modulus, train_fraction=0.5, encoding="tokens")
    else:
        data = _Teacher(config.dim, config.samples or 1)
        rate = config.rate * config.width / config.alpha**2
        training = {
            "optimiser": optax.sgd,
            "hyper": {"learning_rate": rate},
            "loss": optax.squared_error,
            "accuracy": False,
        }
    return Supervised(model=partial(_network, config), data=data, probes=probes, **training)


def schedule(config: Config) -> np.ndarray:
    return log_steps(config.steps, config.per_decade)


def _network(config: Config, key: PRNGKeyArray) -> eqx.Module:
    if config.task == "modular":
        p = config.modulus
        return Transformer(
            p, p, key=key, hidden=4 * 128, dropout=0.0, positions=2, logit_scale=config.alpha
        )
    if config.task == "teacher":
        sizes = (config.dim, config.width, 1)
        return Centred(ScaledMLP(sizes, key=key, alpha=config.alpha, scale=config.weight_scale))
    inputs = 64 if config.data == "digits" else 784
    sizes = (inputs, config.width, config.width, config.width, 10)
    return ScaledMLP(sizes, key=key, alpha=config.alpha, scale=config.weight_scale)


class _Subset(eqx.Module):
    """Draws the training images anew for each seed; up to 2000 of the rest are the test set."""

    x: Float[Array, "n pixels"]
    y: Int[Array, " n"]
    samples: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        order = jax.random.permutation(key, len(self.x))
        train, test = order[: self.samples], order[self.samples : self.samples + 2000]
        return Dataset(self.x[train], self.y[train], self.x[test], self.y[test])


class _Teacher(eqx.Module):
    """Draws a ReLU teacher of width 3 and Gaussian inputs for each seed; y has mean square 1."""

    dim: int = eqx.field(static=True)
    samples: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Dataset:
        input_key, teacher_key = jax.random.split(key)
        x = jax.random.normal(input_key, (self.samples + 1000, self.dim))
        y = ScaledMLP((self.dim, 3, 1), key=teacher_key)(x)
        y = y / jnp.sqrt(jnp.mean(y**2))
        n = self.samples
        return Dataset(x[:n], y[:n], x[n:], y[n:])


def _images(config: Config) -> _Subset:
    if config.samples is None:
        raise ValueError("samples must be a number where the task is images.")
    images = load(config.data)
    x = np.concatenate([images.x_train, images.x_test]).astype(np.float32)
    y = np.concatenate([images.y_train, images.y_test]).astype(np.int32)
    return _Subset(jnp.asarray(x.reshape(len(x), -1) / x.max()), jnp.asarray(y), config.samples)


def _adamw(learning_rate: Array, weight_decay: Array) -> optax.GradientTransformation:
    # The output scale of the transformer is an array too, but no weight.
    return optax.adamw(
        learning_rate, weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 0, params),
    )  # fmt: skip


def _target_power(part: str, model: Any, data: Dataset, snapshot: Snapshot) -> Array:
    y = data.y_train if part == "train" else data.y_test
    if jnp.issubdtype(y.dtype, jnp.integer):
        return jnp.float32(1 / snapshot.train_logits.shape[-1])  # mean square of one-hot labels
    return jnp.mean(y**2)


def _weight_norm(model: Any, data: Dataset, snapshot: Snapshot) -> Array:
    return optax.tree.norm(eqx.filter(model, eqx.is_inexact_array))


def _alignment(points: int, model: Any, data: Dataset, snapshot: Snapshot) -> Array:
    kernel = empirical_ntk(model, data.x_test[:points])
    labels = jax.nn.one_hot(data.y_test[:points], snapshot.test_logits.shape[-1])
    return kernel_alignment(kernel, labels)


ALPHAS = (0.25, 1.0, 4.0, 16.0)
MORE_ALPHAS = (0.5, 2.0, 8.0, 32.0)
EPSILONS = (0.125, 0.25, 0.5, 1.0, 2.0)
RATIOS = (1, 2, 4, 8, 16, 32)  # training samples per dimension
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
IMAGE_ALPHAS = (0.001, 0.05, 0.5)
TOKEN_ALPHAS = (1.0, 4.0, 16.0)
STUDENT_ALPHAS = (0.25, 1.0, 4.0)

BASE = Config()
IMAGES = replace(
    BASE, task="images", weight_scale=150.0, samples=1000, steps=250_000, probe_points=100
)
TOKENS = replace(BASE, task="modular", batch_size=None, steps=20_000)
STUDENT = replace(
    BASE, task="teacher", dim=20, samples=100, rate=0.2, weight_scale=10.0, steps=20_000
)


def _alpha_arm(alpha: float) -> str:
    return f"alpha-{alpha:g}"


def _epsilon_arm(epsilon: float) -> str:
    return _alpha_arm(1.0) if epsilon == BASE.epsilon else f"epsilon-{epsilon:g}"


ARMS: dict[str, Config] = {
    "base": BASE,
    "base-linearised": replace(BASE, linearised=True, centred=True),
    "figure-1": replace(BASE, epsilon=0.02, rate=1.0, steps=100_000),
    "alpha-0.03125": replace(BASE, alpha=2**-5),
    **{_alpha_arm(a): replace(BASE, alpha=a, spectrum=a == 1.0) for a in ALPHAS + MORE_ALPHAS},
    **{_epsilon_arm(e): replace(BASE, epsilon=e) for e in EPSILONS if e != BASE.epsilon},
    "epsilon-4": replace(BASE, epsilon=4.0),
    **{f"samples-{r}d": replace(BASE, samples=r * BASE.dim) for r in RATIOS},
    **{f"norm-{s:g}": replace(BASE, weight_scale=s, rate=0.5 / s**2, centred=True) for s in SCALES},
    "infinite-width": replace(BASE, neurons=None),
    "population": replace(BASE, neurons=None, samples=None),
    **{f"images-{a:g}": replace(IMAGES, alpha=a) for a in IMAGE_ALPHAS},
    **{f"images-decay-{a:g}": replace(IMAGES, alpha=a, weight_decay=0.01) for a in IMAGE_ALPHAS},
    **{f"transformer-{a:g}": replace(TOKENS, alpha=a) for a in TOKEN_ALPHAS},
    **{f"student-{a:g}": replace(STUDENT, alpha=a) for a in STUDENT_ALPHAS},
}
ALPHA_ARMS = tuple(map(_alpha_arm, ALPHAS))
EPSILON_ARMS = tuple(map(_epsilon_arm, EPSILONS))
SAMPLE_ARMS = tuple(f"samples-{r}d" for r in RATIOS)
NORM_ARMS = tuple(f"norm-{s:g}" for s in SCALES)
IMAGE_ARMS = tuple(f"images-{a:g}" for a in IMAGE_ALPHAS)
DECAY_ARMS = tuple(f"images-decay-{a:g}" for a in IMAGE_ALPHAS)
STUDENT_ARMS = tuple(f"student-{a:g}" for a in STUDENT_ALPHAS)
TOKEN_ARMS = tuple(f"transformer-{a:g}" for a in TOKEN_ALPHAS)


def relative_loss(trace: xr.Dataset, part: str) -> np.ndarray:
    """Loss over mean(y^2), [seed, step]."""
    return (trace[f"{part}_loss"] / trace[f"{part}_target_power"]).values


def crossing(trace: xr.Dataset, part: str) -> np.ndarray:
    """First step with relative loss below the threshold, per seed; the last step if there is none."""
    limit = TRAINED if part == "train" else GENERALISED
    below = relative_loss(trace, part) < limit
    first = np.where(below.any(axis=1), below.argmax(axis=1), below.shape[1] - 1)
    return np.maximum(trace.step.values[first], 1).astype(float)


def delay(trace: xr.Dataset) -> np.ndarray:
    """log10(t_test / t_train), a lower bound where the run ends first; NaN if it never fits."""
    fits = (relative_loss(trace, "train") < TRAINED).any(axis=1)
    return np.where(fits, np.log10(crossing(trace, "test") / crossing(trace, "train")), np.nan)


def _at(trace: xr.Dataset, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Per seed, the value at an observation step of its own."""
    return values[np.arange(len(values)), np.searchsorted(trace.step.values, steps)]


def _per_seed(statistic: Any, levels: Sequence[float], values: Sequence[np.ndarray]) -> np.ndarray:
    """A correlation of levels with values over arms, one per seed; NaN if the values are all one."""
    columns = np.stack(values, axis=1)
    said = np.isfinite(columns).all(axis=1) & (np.ptp(columns, axis=1) > 0)
    return np.array(
        [
            statistic(levels, row).statistic if ok else np.nan
            for row, ok in zip(columns, said, strict=True)
        ]
    )


def fall_after_fit(traces: Traces) -> np.ndarray:
    loss = relative_loss(traces["base"], "test")
    return _at(traces["base"], loss, crossing(traces["base"], "train")) / loss[:, -1]


def distance_from_plateau(traces: Traces) -> np.ndarray:
    trace = traces["base"]
    at_fit = _at(trace, trace.test_loss.values, crossing(trace, "train"))
    return np.abs(at_fit / trace.plateau.values[:, 0] - 1)


def final_loss(traces: Traces) -> np.ndarray:
    return relative_loss(traces["base"], "test")[:, -1]


def base_delay(traces: Traces) -> np.ndarray:
    return delay(traces["base"])


def order_of_alpha(traces: Traces) -> np.ndarray:
    times = [crossing(traces[arm], "test") for arm in ALPHA_ARMS]
    return _per_seed(stats.spearmanr, ALPHAS, times)


def order_of_all_alphas(traces: Traces) -> np.ndarray:
    levels = (2**-5, *ALPHAS, *MORE_ALPHAS)
    times = [crossing(traces[_alpha_arm(a)], "test") for a in levels]
    return _per_seed(stats.spearmanr, levels, times)


def delay_of_small_alpha(traces: Traces) -> np.ndarray:
    return delay(traces["alpha-0.03125"]) - delay(traces["alpha-1"])


def order_of_epsilon(traces: Traces) -> np.ndarray:
    times = [crossing(traces[arm], "test") for arm in EPSILON_ARMS]
    return _per_seed(stats.spearmanr, EPSILONS, times)


def order_of_delay_in_epsilon(traces: Traces) -> np.ndarray:
    return _per_seed(stats.spearmanr, EPSILONS, [delay(traces[arm]) for arm in EPSILON_ARMS])


def steepest_rise(values: xr.DataArray) -> np.ndarray:
    """Per seed, the step at which the values rise fastest per log step."""
    later = values.sel(step=values.step > 0)
    steps = later.step.values
    slope = np.diff(later.values, axis=1) / np.diff(np.log(steps))
    return np.sqrt(steps[1:] * steps[:-1])[slope.argmax(axis=1)]


def _rises_together(traces: Traces, fall: Any) -> np.ndarray:
    """Over the epsilon arms: when alignment rises fastest against when `fall(loss)` does."""
    trace = [traces[arm] for arm in EPSILON_ARMS]
    aligns = np.stack([steepest_rise(t.ntk_alignment) for t in trace], axis=1)
    drops = np.stack([steepest_rise(fall(t.test_loss)) for t in trace], axis=1)
    return np.array(
        [
            np.corrcoef(np.log10(a), np.log10(b))[0, 1] if np.ptp(a) and np.ptp(b) else np.nan
            for a, b in zip(aligns, drops, strict=True)
        ]
    )


def alignment_with_drop_of_log_loss(traces: Traces) -> np.ndarray:
    return _rises_together(traces, lambda loss: -np.log(loss))


def alignment_with_drop_of_loss(traces: Traces) -> np.ndarray:
    return _rises_together(traces, lambda loss: -loss)


def twin_at_plateau(traces: Traces) -> np.ndarray:
    trace = traces["base-linearised"]
    return trace.test_loss.values[:, -1] / trace.plateau.values[:, -1]


def delay_by_samples(traces: Traces) -> np.ndarray:
    """Delay for each training set size, [size, seed]; 0 where the run does not generalise."""
    return np.stack(
        [
            np.where(
                (relative_loss(traces[arm], "test") < GENERALISED).any(1), delay(traces[arm]), 0
            )
            for arm in SAMPLE_ARMS
            if arm in traces
        ]
    )


def interior_delay(traces: Traces) -> np.ndarray:
    delays = delay_by_samples(traces)
    return delays[1:-1].max(axis=0) - np.maximum(delays[0], delays[-1])


def loss_of_few_samples(traces: Traces) -> np.ndarray:
    return relative_loss(traces[SAMPLE_ARMS[0]], "test")[:, -1]


def norm_during_drop(traces: Traces) -> np.ndarray:
    trace = traces["base"]
    norms = (_at(trace, trace.weight_norm.values, crossing(trace, p)) for p in ("train", "test"))
    before, after = norms
    return after / before - 1


def delay_from_small_norm(traces: Traces) -> np.ndarray:
    return delay(traces["norm-0.25"])


def _longer(traces: Traces, arms: Sequence[str]) -> np.ndarray:
    """Delay of the last arm beyond that of the first; NaN where the first never generalises."""
    first, last = traces[arms[0]], traces[arms[-1]]
    generalises = (relative_loss(first, "test") < GENERALISED).any(axis=1)
    return np.where(generalises, delay(last) - delay(first), np.nan)


def image_delays(traces: Traces) -> np.ndarray:
    return _longer(traces, IMAGE_ARMS)


def image_delays_with_decay(traces: Traces) -> np.ndarray:
    return _longer(traces, DECAY_ARMS)


def transformer_delays(traces: Traces) -> np.ndarray:
    return _longer(traces, TOKEN_ARMS)


def student_delays(traces: Traces) -> np.ndarray:
    return _longer(traces, STUDENT_ARMS)


CLAIMS = (
    Claim("C1", "After fitting, the test loss falls much further, by plain gradient descent",
          "test loss stays high long after the training loss, then falls to about 0 (Fig. 1)",
          ("base",), fall_after_fit, "> 3", "test loss at fit / at end"),
    Claim("C1b", "When the training set is fitted, the test loss is near that of regression with K_0",
          "the plateau is the kernel regression error (Fig. 1)",
          ("base",), distance_from_plateau, "< 0.25", "relative distance"),
    Claim("C1c", "In the end it generalises", "test loss near 0 (Fig. 1)",
          ("base",), final_loss, "< 0.2", "loss / mean y^2"),
    Claim("C1d", "There is a delay between fitting and generalising", "orders of magnitude (Fig. 1)",
          ("base",), base_delay, "> 0", "log10 of steps"),
    Claim("C2", "The larger alpha, the later it generalises: rank correlation over alpha 1/4 to 16",
          "monotone over 2^-5 to 2^5", ALPHA_ARMS, order_of_alpha, "> 0.7", "Spearman"),
    Claim("C2b", "The same over nine alphas from 2^-5 to 2^5", "monotone over 2^-5 to 2^5",
          ("alpha-0.03125", *ALPHA_ARMS, *map(_alpha_arm, MORE_ALPHAS)),
          order_of_all_alphas, "> 0.7", "Spearman"),
    Claim("C2c", "A small alpha (2^-5) shortens the delay itself",
          "alpha small: train and test fall together",
          ("alpha-0.03125", "alpha-1"), delay_of_small_alpha, "< 0", "log10 of steps"),
    Claim("C3", "The smaller eps, the later it generalises: rank correlation over eps 1/8 to 2",
          "worse initial alignment: longer delay", EPSILON_ARMS, order_of_epsilon, "< -0.7",
          "Spearman"),
    Claim("C3b", "Log test loss falls fastest when the kernel aligns fastest: correlation over eps",
          "the drop coincides with the rise in alignment", EPSILON_ARMS,
          alignment_with_drop_of_log_loss, "> 0.8", "Pearson, log steps"),
    Claim("C3c", "The smaller eps, the longer the delay counted from the fit (log10 t_test/t_train)",
          "worse initial alignment: longer delay", EPSILON_ARMS, order_of_delay_in_epsilon,
          "< -0.7", "Spearman"),
    Claim("C3d", "As C3b for the loss itself (added when the log loss turned out to fall to the end)",
          "the drop coincides with the rise in alignment", EPSILON_ARMS,
          alignment_with_drop_of_loss, "> 0.8", "Pearson, log steps"),
    Claim("C4", "The linearised twin never generalises: it stays at the plateau",
          "grokking is not in the kernel (Fig. 1)",
          ("base-linearised",), twin_at_plateau, "> 0.8", "loss / K_0 regression loss"),
    Claim("C5", "The delay is longest at a training set of middling size",
          "a window of sizes: too few never generalise, too many need no delay",
          SAMPLE_ARMS, interior_delay, "> 0", "log10 of steps"),
    Claim("C5b", "One sample per dimension is too few to generalise", "too few: never generalises",
          (SAMPLE_ARMS[0],), loss_of_few_samples, "> 0.2", "loss / mean y^2"),
    Claim("C6", "The weights grow while the test loss drops, without weight decay",
          "a falling weight norm is not needed", ("base",), norm_during_drop, "> 0",
          "relative change"),
    Claim("C6b", "A start with a quarter of the weight norm is delayed too",
          "a large initial norm is not needed", ("norm-0.25",), delay_from_small_norm, "> 0",
          "log10 of steps"),
    Claim("C7", "In a ReLU network on images a larger output scale gives a longer delay, without decay",
          "alpha controls grokking on MNIST", (IMAGE_ARMS[0], IMAGE_ARMS[-1]), image_delays,
          "> 0", "log10 of steps"),
    Claim("C7b", "The same with weight decay 0.01", "alpha controls grokking on MNIST",
          (DECAY_ARMS[0], DECAY_ARMS[-1]), image_delays_with_decay, "> 0", "log10 of steps"),
    Claim("C7c", "And in a one-layer transformer on modular addition",
          "alpha controls grokking in a transformer", TOKEN_ARMS, transformer_delays, "> 0",
          "log10 of steps"),
    Claim("C7d", "And in a two-layer ReLU student of a narrow teacher",
          "the same in student-teacher networks", STUDENT_ARMS, student_delays, "> 0",
          "log10 of steps"),
)  # fmt: skip


def _loss_curves(ax: Axes, trace: xr.Dataset, colour: str, label: str | None = None) -> None:
    for part, dashes in (("train", (0, (4, 2))), ("test", "-")):
        relative = xr.Dataset(
            {"loss": (("seed", "step"), relative_loss(trace, part))}, trace.coords
        )
        style.band(ax, relative, "loss", colour=colour, linestyle=dashes,
                   label=label if part == "test" else None)  # fmt: skip


def _loss_axis(ax: Axes, title: str) -> None:
    style.log_steps_axis(ax)
    ax.set(ylim=(0, 1.6), ylabel="loss / mean y²", title=title)


def draw_transition(traces: Traces) -> MatplotlibFigure:
    arms = [arm for arm in ("base", "figure-1") if arm in traces]
    figure, axes = style.figure(1, len(arms), width=5.2 * len(arms), squeeze=False)
    for ax, arm in zip(axes[0], arms, strict=True):
        trace = traces[arm]
        _loss_curves(ax, trace, style.colours[0], "network (dashed: training)")
        if arm == "base":
            _loss_curves(ax, traces["base-linearised"], style.colours[6], "linearised twin")
        plateau = float((trace.plateau / trace.test_target_power).isel(step=0).mean())
        ax.axhline(plateau, color=style.colours[1], linewidth=1.2, label="regression with $K_0$")
        _loss_axis(ax, {"base": "ε = 0.25, α = 1", "figure-1": "ε = 0.02, α = 1"}[arm])
        right = ax.twinx()
        right.plot(trace.step, trace.ntk_alignment.mean("seed"), color=style.colours[2],
                   linestyle=":", label="alignment (right axis)")  # fmt: skip
        right.set(ylabel="NTK alignment", ylim=(0, None))
        right.grid(False)
        right.spines["right"].set_visible(True)
        if arm == "base":
            lines = [*ax.get_lines(), *right.get_lines()]
            shown = [line for line in lines if not str(line.get_label()).startswith("_")]
            figure.legend(handles=shown, loc="outside lower center", ncols=2 * len(arms),
                          frameon=False)  # fmt: skip
    return figure


def _sweep(ax: Axes, traces: Traces, arms: Sequence[str], symbol: str, field: str | None) -> None:
    """Curves of `field` (None: the relative losses) for each arm, from dark (low) to light."""
    for place, arm in enumerate(arms):
        if arm not in traces:
            continue
        colour = to_hex(colormaps["viridis"](0.9 * place / (len(arms) - 1)))
        label = f"{symbol} = {_level(traces[arm], symbol):g}"
        if field is None:
            _loss_curves(ax, traces[arm], colour, label)
        else:
            style.band(ax, traces[arm], field, colour=colour, label=label)


def _level(trace: xr.Dataset, symbol: str) -> float:
    name = {"α": "alpha", "ε": "epsilon", "σ": "weight_scale"}[symbol]
    return json.loads(trace.attrs["config"])[name]


def draw_alpha(traces: Traces) -> MatplotlibFigure:
    every = map(_alpha_arm, sorted((2**-5, *ALPHAS, *MORE_ALPHAS)))
    arms = [arm for arm in every if arm in traces]
    figure, (left, middle, right) = style.figure(1, 3)
    _sweep(left, traces, arms, "α", None)
    _loss_axis(left, "losses (dashed: training)")
    moved = {arm: traces[arm].sel(step=slice(1, None)) for arm in arms}
    _sweep(middle, moved, arms, "α", "ntk_movement")
    style.log_steps_axis(middle)
    middle.set(ylabel="$||K_t - K_0|| / ||K_0||$", title="movement of the kernel", yscale="log",
               ylim=(1e-3, 1e3))  # fmt: skip
    middle.legend(loc="upper left", ncols=2)
    levels = [_level(traces[arm], "α") for arm in arms]
    for part, colour in (("train", style.colours[1]), ("test", style.colours[0])):
        times = np.stack([crossing(traces[arm], part) for arm in arms])
        right.plot(levels, times, ".", color=colour, alpha=0.5)
        right.plot(levels, np.exp(np.log(times).mean(axis=1)), color=colour, label=f"{part} fitted")
    right.axhline(traces[arms[0]].step.values[-1], color=style.INK, linewidth=0.8, linestyle=":")
    right.set(xscale="log", yscale="log", xlabel="output scale α", ylabel="step",
              title="times (dotted: end of run)")  # fmt: skip
    right.legend()
    return figure


def draw_epsilon(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2)
    arms = [arm for arm in (*EPSILON_ARMS, "epsilon-4") if arm in traces]
    _sweep(left, traces, arms, "ε", None)
    _loss_axis(left, "losses (dashed: training)")
    _sweep(right, traces, arms, "ε", "ntk_alignment")
    style.log_steps_axis(right)
    right.set(ylabel="NTK alignment", title="alignment of the kernel with the task")
    right.legend()
    return figure


def draw_goldilocks(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2)
    ratios = RATIOS
    finals = np.stack([relative_loss(traces[arm], "test")[:, -1] for arm in SAMPLE_ARMS])
    for ax, values, label in (
        (left, finals, "final test loss / mean y²"),
        (right, delay_by_samples(traces), "delay: log10($t_{test}/t_{train}$)"),
    ):
        ax.plot(ratios, values, ".", color=style.colours[0], alpha=0.5)
        ax.plot(ratios, np.nanmean(values, axis=1), color=style.colours[0])
        ax.set(xscale="log", xlabel="training samples / dimension", ylabel=label)
        ax.set_xticks(ratios, [str(r) for r in ratios])
        ax.minorticks_off()
    left.axhline(GENERALISED, color=style.colours[1], linestyle=":", label="generalises below")
    left.set_title("too few never generalise")
    left.legend()
    right.set_title("the delay (0: does not generalise)")
    return figure


def draw_terms(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure()
    trace = traces["base"]
    relative = trace / trace.test_target_power
    for place, (name, label) in enumerate((
        ("test_loss", "test loss"), ("misalignment", "misalignment"),
        ("linear_power", "linear power"), ("trace_term", "trace term"),
    )):  # fmt: skip
        style.band(ax, relative, name, colour=style.colours[place], label=label)
    style.log_steps_axis(ax)
    ax.set(ylabel="loss / E y²", title="what the test loss is made of")
    ax.legend()
    return figure


def draw_limits(traces: Traces) -> MatplotlibFigure:
    figure, ax = style.figure()
    for place, (arm, label) in enumerate((
        ("alpha-1", "finite width, finite sample"), ("infinite-width", "infinite width"),
        ("population", "infinite width and sample"),
    )):  # fmt: skip
        _loss_curves(ax, traces[arm], style.colours[place], label)
    _loss_axis(ax, "limits (dashed: training)")
    ax.legend()
    return figure


def draw_spectrum(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2)
    trace = traces["alpha-1"]
    for place, row in enumerate((0, -1)):
        colour, label = style.colours[place], f"step {trace.step.values[row]:,}"
        values = trace.eigenvalue.isel(step=row).mean("seed")
        coefficients = trace.task_coefficient.isel(step=row)
        share = coefficients.cumsum("mode") / coefficients.sum("mode")
        left.plot(trace.mode, values / values[0], color=colour, label=label)
        right.plot(trace.mode, share.mean("seed"), color=colour, label=label)
        right.fill_between(trace.mode, share.min("seed"), share.max("seed"), color=colour,
                           alpha=0.18, linewidth=0)  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="mode k", ylabel="eigenvalue / largest",
             title="spectrum of the tangent kernel")  # fmt: skip
    right.set(xscale="log", ylim=(0, 1), xlabel="mode k",
              ylabel="share of the task in modes 1 to k", title="task: cumulated ⟨y, v⟩²")  # fmt: skip
    left.legend()
    return figure


def draw_norm(traces: Traces) -> MatplotlibFigure:
    figure, (left, right) = style.figure(1, 2)
    _sweep(left, traces, NORM_ARMS, "σ", None)
    _loss_axis(left, "losses (dashed: training)")
    _sweep(right, traces, NORM_ARMS, "σ", "weight_norm")
    style.log_steps_axis(right)
    right.set(ylabel="norm of a neuron's weights (rms)", title="no weight decay", yscale="log")
    right.legend()
    return figure


def draw_networks(traces: Traces) -> MatplotlibFigure:
    groups = [
        (IMAGE_ARMS, "images, no decay"), (DECAY_ARMS, "images, weight decay"),
        (TOKEN_ARMS, "transformer, modular addition"), (STUDENT_ARMS, "student and teacher"),
    ]  # fmt: skip
    groups = [(arms, title) for arms, title in groups if any(arm in traces for arm in arms)]
    figure, axes = style.figure(1, len(groups), squeeze=False)
    for ax, (arms, title) in zip(axes[0], groups, strict=True):
        _sweep(ax, traces, arms, "α", None)
        _loss_axis(ax, title + " (dashed: training)")
        ax.set(yscale="log", ylim=(1e-2, None))
        ax.legend()
    return figure


FULL_ONLY = (
    *TOKEN_ARMS, *map(_alpha_arm, MORE_ALPHAS), "epsilon-4", NORM_ARMS[0], IMAGE_ARMS[1],
    DECAY_ARMS[1],
)  # fmt: skip
SMALL = {"dim": 50, "samples": 200, "neurons": 250, "steps": 20_000}
QUICK_IMAGES = {
    "data": "digits", "width": 100, "batch_size": 100, "weight_scale": 30.0,
    "learning_rate": 6e-3, "steps": 6000, "probe_points": 20, "per_decade": 10,
}  # fmt: skip


def _short() -> dict[str, Budget]:
    """The smaller scale in parts of a few minutes each: what `quick` holds, and three more."""
    settings: dict[str, dict[str, Any]] = {}
    for arm, config in ARMS.items():
        if arm in FULL_ONLY:
            continue
        if config.task == "images":
            settings[arm] = QUICK_IMAGES
        elif arm in STUDENT_ARMS:
            settings[arm] = {"steps": 5000}
        elif arm in ("base", "base-linearised"):
            settings[arm] = {"steps": 20_000}
        elif arm in SAMPLE_ARMS:
            per_dimension = RATIOS[SAMPLE_ARMS.index(arm)]
            steps = 20_000 if per_dimension <= 4 else 4000
            settings[arm] = SMALL | {"samples": 50 * per_dimension, "steps": steps}
        else:
            settings[arm] = SMALL | ({"steps": 10_000} if arm in NORM_ARMS else {})
    settings["infinite-width"]["neurons"] = None
    settings["population"] |= {"neurons": None, "samples": None}
    settings["figure-1"]["steps"] = 40_000
    parts: dict[str, list[str]] = {
        "quick": [],
        "alignment": ["alpha-1"],
        "samples": ["alpha-1"],
        "networks": [],
    }
    for arm in settings:
        if arm in ("infinite-width", "population") or arm in SAMPLE_ARMS:
            parts["samples"].append(arm)
        elif ARMS[arm].task != "committee":
            parts["networks"].append(arm)
        elif arm.startswith("epsilon") or arm in NORM_ARMS:
            parts["alignment"].append(arm)
        else:
            parts["quick"].append(arm)
    shared = {"dtype": "float32", "per_decade": 10}
    return {
        name: Budget(5, tuple(arms), shared, {arm: settings[arm] for arm in arms})
        for name, arms in parts.items()
    }


study = Study(
    paper=Paper(
        slug="grokking-lazy-rich",
        title="Grokking as the Transition from Lazy to Rich Training Dynamics",
        authors="Tanishq Kumar, Blake Bordelon, Samuel J. Gershman, Cengiz Pehlevan",
        venue="ICLR",
        year=2024,
        arxiv="2310.06110",
    ),
    family="grokking",
    question="Is grokking the moment when a network stops behaving like its own linearisation?",
    symptoms=(
        "test loss stays high long after training loss is low, then falls",
        "test loss plateaus at the kernel regression error",
        "is my network lazy or does it learn features",
        "grokking without weight decay",
        "large output scale or large initialisation delays generalisation",
        "neural tangent kernel does not move",
    ),
    arms=ARMS,
    process=make_process,
    schedule=schedule,
    budgets={
        "smoke": Budget(
            2,
            ("base", "base-linearised", "images-0.05"),
            {"steps": 30, "per_decade": 5, "dim": 8, "samples": 30, "neurons": 10, "width": 8,
             "probe_points": 6, "data": "digits", "batch_size": 20, "modulus": 11},
        ),
        **_short(),
        "full": Budget(5),
    },
    claims=CLAIMS,
    figures=(
        Figure("transition", "Training and test loss, the linearised twin, regression with the "
               "initial kernel, and the kernel's alignment with the task. Bands span the seeds.",
               draw_transition, ("base", "base-linearised")),
        Figure("alpha", "Output scale: losses, movement of the kernel, and the times at which "
               "training loss falls below 0.1 and test loss below 0.2 of mean y².",
               draw_alpha, ALPHA_ARMS),
        Figure("epsilon", "Quadratic part of the activation: losses and kernel alignment.",
               draw_epsilon, EPSILON_ARMS),
        Figure("goldilocks", "Size of the training set.", draw_goldilocks, SAMPLE_ARMS),
        Figure("terms", "The three terms of the population loss.", draw_terms, ("base",)),
        Figure("limits", "Infinite width, and an infinite training set as well.", draw_limits,
               ("alpha-1", "infinite-width", "population")),
        Figure("spectrum", "The tangent kernel on the training set at the start and at the end, "
               "and how much of the task its leading modes hold.", draw_spectrum, ("base", "alpha-1")),
        Figure("norm", "Initial weight scale σ with step size 1/σ²: losses and weight norm.",
               draw_norm, NORM_ARMS[1:]),
        Figure("networks", "Output scale in other networks, trained on squared error: with AdamW, "
               "the student by gradient descent.", draw_networks, (IMAGE_ARMS[0], IMAGE_ARMS[-1])),
    ),
    data="synthetic (Gaussian inputs, quadratic teacher); scikit-learn digits in networks, MNIST-5k "
         "at full; modular addition (generated)",
    watch="test_loss",
    side_by_side=True,
    notes="Quick, alignment, samples and networks are one smaller scale in four parts: the sweeps run "
    "at D=50, P=200, N=250 (base and its twin at the paper's D=100, P=550, N=500 for 20,000 steps), "
    "images are 8x8 digits with width 100, initial scale 30 and 6,000 steps at 6e-3 in the place of "
    "MNIST, 200, 150 and 250,000 at 1e-3; batches are reshuffled every epoch. Test losses are exact "
    "population losses. Infinite width and infinite sample are limits of the closed weight dynamics, "
    "not the paper's mean field theory. The transformer's settings (squared error, Adam, alpha 1 to "
    "16; full only) and the student's (20 dimensions, 100 samples, centred, gradient descent) are ours.",
)  # fmt: skip
