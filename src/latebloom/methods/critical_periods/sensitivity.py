"""When does a deficit do lasting harm? Train with the same deficit at many onsets, and compare.

All onsets of a seed start from the same weights and see the same batches; the result is the
sensitivity curve (final metric against onset) and an estimate of where the critical period ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy import stats

from latebloom.core.dataset import check_targets
from latebloom.core.process import Process, Quantity
from latebloom.core.training import accuracy, batch_rows, each, gradients, trainable, update
from latebloom.core.unfold import unfold
from latebloom.methods.critical_periods.deficits import Deficit, Pathways

What = Literal["share", "alone", "metric"]
NEVER = -1  # the onset of the run without a deficit


class Views(eqx.Module):
    """Training and test examples of which every pathway sees a view of its own.

    `train`, `test`: one array [batch, ...] for each pathway. `y_train`, `y_test`: class indices or
    target rows.

    Raises `ValueError` where the numbers of views or examples do not match.
    """

    train: tuple[Array, ...]
    y_train: Array
    test: tuple[Array, ...]
    y_test: Array

    def __init__(
        self, train: Sequence[Array], y_train: Array, test: Sequence[Array], y_test: Array
    ):  # fmt: skip
        self.train, self.test = (tuple(map(_inexact, views)) for views in (train, test))
        self.y_train, self.y_test = jnp.asarray(y_train), jnp.asarray(y_test)
        if len(self.train) != len(self.test) or len(self.train) < 2:
            raise ValueError(
                f"give two views or more, as many for training as for testing, not {len(self.train)} "
                f"and {len(self.test)}"
            )
        for part, views, y in (
            ("train", self.train, self.y_train),
            ("test", self.test, self.y_test),
        ):
            for i, view in enumerate(views):
                if len(view) != len(y) or not len(y):
                    raise ValueError(
                        f"view {i} of the {part} part has {len(view)} examples and y_{part} "
                        f"{len(y)}: they must be the same number, at least 1"
                    )


def _inexact(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


class Runs(NamedTuple):
    model: Any  # leaves [run, ...]
    optimiser: Any
    key: PRNGKeyArray
    step: Int[Array, ""]


class DeprivedTraining(Process):
    """Training of one network without a deficit and with it at each of the `onsets`, side by side.

    - `model(key)` builds a `Pathways`; `data` are its `Views`.
    - `deficit`: its kind, pathway, length and strength; its start is replaced by the onsets.
    - `optimiser(**hyper)`, `loss(outputs, labels)` of each example, and `batch_size` are as in
      `Supervised`. `metric(outputs, labels)` is a number that is better when larger.

    Observed for each run (dimension onset, -1 without a deficit): `metric` on the test part; `alone`,
    the metric with the views of all other pathways set to zero; `share`, each pathway's part of what
    the outputs explain: the covariance of its outputs with the target over the test part, divided by
    that of the whole network (all pathways together have 1); `train_loss` on the training part.

    A gated pathway stays as it is, whatever the optimiser: its weights, statistics and moments
    (`Deficit.hold`).

    Raises `ValueError` for onsets that do not increase, a pathway that has no view, and labels that
    are not indices of the outputs.
    """

    model: Callable[[PRNGKeyArray], Pathways]
    data: Views
    deficit: Deficit
    optimiser: Callable[..., optax.GradientTransformation]
    hyper: Mapping[str, Array]
    loss: Callable[[Array, Array], Array]
    metric: Callable[[Array, Array], Array]
    onsets: Int[Array, " run"]
    batch_size: int | None = eqx.field(static=True)

    seeds_by = "map"

    def __init__(
        self, *, model: Callable[[PRNGKeyArray], Pathways], data: Views, deficit: Deficit,
        onsets: Sequence[int], optimiser: Callable[..., optax.GradientTransformation],
        hyper: Mapping[str, float], loss: Callable[[Array, Array], Array],
        metric: Callable[[Array, Array], Array] = accuracy, batch_size: int | None = None,
    ):  # fmt: skip
        at = np.asarray(onsets)
        if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) <= 0).any():
            raise ValueError(f"onsets must be increasing steps from 0 on, not {onsets!r}")
        if deficit.pathway >= len(data.train):
            raise ValueError(
                f"the deficit is of pathway {deficit.pathway}, but there are only {len(data.train)} "
                "views, from 0 on"
            )
        if batch_size is not None and not 1 <= batch_size <= len(data.y_train):
            raise ValueError(
                f"batch_size must be from 1 to {len(data.y_train)}, the training examples, not "
                f"{batch_size}"
            )
        self.model, self.data, self.deficit = model, data, deficit
        self.optimiser, self.loss, self.metric = optimiser, loss, metric
        self.hyper = {name: jnp.float32(value) for name, value in hyper.items()}
        self.onsets = jnp.asarray([NEVER, *at.tolist()], jnp.int32)
        self.batch_size = batch_size
        for part, views, y in (
            ("train", data.train, data.y_train), ("test", data.test, data.y_test)
        ):  # fmt: skip
            shape = eqx.filter_eval_shape(lambda key, x: model(key)(x), jax.random.key(0), views)
            check_targets(y, shape, f"the {part} labels")

    def init(self, key: PRNGKeyArray) -> Runs:
        model_key, run_key = jax.random.split(key)
        model = self.model(model_key)
        optimiser = self.optimiser(**self.hyper).init(trainable(model))

        def copies(x: Any) -> Any:
            return jnp.broadcast_to(x, (len(self.onsets), *x.shape)) if eqx.is_array(x) else x

        return Runs(
            jax.tree.map(copies, model), jax.tree.map(copies, optimiser), run_key, jnp.int32(0)
        )

    def step(self, state: Runs) -> Runs:
        data = self.data
        rows = batch_rows(state.key, state.step, len(data.y_train), self.batch_size)
        views = tuple(view[rows] for view in data.train)
        y, deficit_key = data.y_train[rows], jax.random.fold_in(state.key, 0xDEF)

        def descend(model: Any, optimiser: Any, onset: Array) -> tuple[Any, Any]:
            length = jnp.where(onset == NEVER, 0, self.deficit.length)
            deficit = self.deficit.at(onset, length)

            def objective(model: Any) -> Array:
                outputs = model(views, deficit, state.step, deficit_key)
                return self.loss(outputs, y).mean()

            rule = self.optimiser(**self.hyper)
            slopes, seen = gradients(objective, model)
            before = model, optimiser
            after = update(rule, slopes, optimiser, model, seen)
            return deficit.hold(after, before, state.step, deficit_key)

        model, optimiser = each("map", descend, state.model, state.optimiser, self.onsets)
        return Runs(model, optimiser, state.key, state.step + 1)

    def observe(self, state: Runs) -> dict[str, Array]:
        data = self.data

        def look(model: Pathways) -> dict[str, Array]:
            spoken = jnp.stack([path(x) for path, x in zip(model.paths, data.test, strict=True)])
            dark = [path(jnp.zeros_like(x)) for path, x in zip(model.paths, data.test, strict=True)]
            alone = [spoken[i] + sum(dark[:i]) + sum(dark[i + 1 :]) for i in range(len(dark))]
            return {
                "metric": self.metric(spoken.sum(axis=0), data.y_test),
                "alone": jnp.stack([self.metric(y, data.y_test) for y in alone]),
                "share": shares(spoken, data.y_test),
                "train_loss": self.loss(model(data.train), data.y_train).mean(),
            }

        return eqx.filter_vmap(look)(state.model)

    def quantities(self) -> dict[str, Quantity]:
        onset = {"onset": self.onsets.tolist()}
        return {
            "metric": Quantity("1", ("onset",), onset, "test metric"),
            "alone": Quantity("1", ("onset", "path"), onset, "test metric of one pathway alone"),
            "share": Quantity("1", ("onset", "path"), onset, "share of the fit", gaps=True),
            "train_loss": Quantity("nats or squared units", ("onset",), onset, "training loss"),
        }


def shares(outputs: Float[Array, "path batch output"], labels: Array) -> Float[Array, " path"]:
    """Each pathway's part of the covariance between the summed outputs and the target.

    `labels` are class indices, which stand for one-hot rows, or target rows. In a linear network
    this is the pathway's strength over that of both, weighted by the strength of the modes.
    """
    targets = labels
    if labels.ndim < outputs.ndim - 1:
        targets = jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    fits = jnp.einsum("pbk,bk->p", outputs, targets - targets.mean(axis=0))
    return fits / fits.sum()


@dataclass(frozen=True)
class Window:
    """Where the critical period ends, in steps, with an interval over seeds.

    - `harmful`: whether the harm at the worst onset `worst` is above 0 (t interval over seeds, the
      95 % shared out among the onsets).
    - `closes`: the onset after which the mean harm stays below half of its largest value, between
      onsets linearly; infinite if it does so at no onset, NaN if there is no harm. `low`, `high`: its
      95 % bootstrap interval over seeds.
    - `most`: the mean harm at `worst`.
    """

    harmful: bool
    worst: float
    most: float
    closes: float
    low: float
    high: float

    def __str__(self) -> str:
        if not self.harmful:
            return "no deficit does lasting harm that stands out from the differences between seeds"
        said = f"harm is largest ({self.most:.3g}) at onset {self.worst:g}; "
        if not np.isfinite(self.closes):
            return said + "the critical period is still open at the last onset"
        high = f"{self.high:.0f}" if np.isfinite(self.high) else "beyond the last onset"
        return (
            said + f"the critical period closes at step {self.closes:.0f} [{self.low:.0f}, {high}]"
        )


def critical_window(
    onsets: Sequence[float] | np.ndarray, harm: np.ndarray, *, level: float = 0.5, draws: int = 2000
) -> Window:
    """Estimate the end of the critical period from the harm [seed, onset] (larger is worse).

    `level`: share of the largest mean harm below which a deficit is taken to be harmless.

    Raises `ValueError` for fewer than two seeds or onsets, and shapes that do not match.
    """
    at, harm = np.asarray(onsets, float), np.asarray(harm, float)
    if harm.ndim != 2 or harm.shape[1] != len(at) or min(harm.shape) < 2:
        raise ValueError(
            f"harm must be [seed, onset] with two or more of both and one column for each of the "
            f"{len(at)} onsets, not {list(harm.shape)}"
        )
    if not 0 < level < 1 or (np.diff(at) <= 0).any() or not np.isfinite(harm).all():
        raise ValueError("level must be between 0 and 1, onsets increasing, and harm finite")
    mean = harm.mean(axis=0)
    worst = int(mean.argmax())
    spread = harm[:, worst].std(ddof=1) / np.sqrt(len(harm))
    quantile = stats.t.ppf(1 - 0.025 / len(at), len(harm) - 1)
    if not mean[worst] - quantile * spread > 0:
        return Window(False, at[worst], mean[worst], np.nan, np.nan, np.nan)
    drawn = np.random.default_rng(0).integers(len(harm), size=(draws, len(harm)))
    ends = [_closing(at, harm[rows].mean(axis=0), level) for rows in drawn]
    low, high = np.quantile(ends, [0.025, 0.975], method="nearest")
    return Window(True, at[worst], mean[worst], _closing(at, mean, level), float(low), float(high))


def _closing(at: np.ndarray, mean: np.ndarray, level: float) -> float:
    bar = level * mean.max()
    last = int(np.flatnonzero(mean >= bar)[-1])
    if last == len(at) - 1:
        return np.inf
    share = (mean[last] - bar) / (mean[last] - mean[last + 1])
    return float(at[last] + share * (at[last + 1] - at[last]))


def lasting_harm(trace: xr.Dataset, pathway: int, what: What) -> np.ndarray:
    """`Sensitivity.harm` of a trace of `DeprivedTraining`."""
    final = trace[what].isel(step=-1)
    if what != "metric":
        final = final.isel(path=pathway)
    return (final.sel(onset=NEVER) - final.drop_sel(onset=NEVER)).values


def outcomes(trace: xr.Dataset, pathway: int) -> xr.Dataset:
    """What a trace of `DeprivedTraining` came to in the end, [seed, onset].

    `share` and `alone` of one pathway, and the `metric` of the whole network.
    """
    last = trace.isel(step=-1, drop=True)
    own = last.isel(path=pathway)
    return xr.Dataset({"metric": last.metric, "share": own.share, "alone": own.alone})


@dataclass(frozen=True)
class Sensitivity:
    """What training with a deficit at every onset came to; `trace` is the dataset of `unfold`."""

    trace: xr.Dataset
    pathway: int

    def harm(self, what: What = "share") -> np.ndarray:
        """What the deficit took in the end, against the run without one, [seed, onset].

        `what`: "share" of the fit that the deprived pathway holds, its metric "alone", or the
        "metric" of the whole network.
        """
        return lasting_harm(self.trace, self.pathway, what)

    @property
    def onsets(self) -> np.ndarray:
        return self.trace.onset.drop_sel(onset=NEVER).values

    @property
    def curve(self) -> pd.DataFrame:
        """One row an onset: final metric, and share and metric alone of the deprived pathway.

        The row at onset -1 is the run without a deficit. Means over seeds, and their standard errors.
        """
        table = pd.DataFrame({"onset": self.trace.onset.values})
        for name, values in outcomes(self.trace, self.pathway).items():
            spread = values.std("seed", ddof=1).values
            table[name] = values.mean("seed").values
            table[f"{name}_error"] = spread / np.sqrt(values.sizes["seed"])
        return table

    def window(self, what: What = "share", level: float = 0.5) -> Window:
        """`critical_window` of the harm."""
        return critical_window(self.onsets, self.harm(what), level=level)


def sensitivity(
    *, model: Callable[[PRNGKeyArray], Pathways], data: Views, deficit: Deficit,
    onsets: Sequence[int], steps: int, optimiser: Callable[..., optax.GradientTransformation],
    hyper: Mapping[str, float],
    loss: Callable[[Array, Array], Array] = optax.softmax_cross_entropy_with_integer_labels,
    metric: Callable[[Array, Array], Array] = accuracy, batch_size: int | None = None,
    seeds: int | Sequence[int] = 4, progress: bool | None = None,
) -> Sensitivity:  # fmt: skip
    """Train a network of pathways without `deficit` and with it at each of the `onsets`.

    Arguments as in `DeprivedTraining`; all runs take `steps` steps.

    Raises `ValueError` as `DeprivedTraining` does, and for a deficit of no length or one that is not
    over when the run ends.
    """
    process = DeprivedTraining(
        model=model, data=data, deficit=deficit, onsets=onsets, optimiser=optimiser, hyper=hyper,
        loss=loss, metric=metric, batch_size=batch_size,
    )  # fmt: skip
    length = int(deficit.length)
    if length < 1 or max(onsets) + length > steps:
        raise ValueError(
            f"a deficit of {length} steps at onset {max(onsets)} must last at least 1 step and be over "
            f"by the end of the run, step {steps}"
        )
    every = max(1, steps // 50)
    trace = unfold(process, seeds=seeds, steps=steps, every=every, progress=progress)
    return Sensitivity(trace, deficit.pathway)
