"""From a log of which class came when to what fine-tuning on such a stream may be expected to know.

Tasks are periods of the log; how many classes one has, and how often each class comes, are estimated from it, and
a stream like it is simulated (`recurring`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike
from scipy import stats

from latebloom.core.dataset import Dataset
from latebloom.core.stream import Stream, by_plan, drawn
from latebloom.core.unfold import unfold
from latebloom.methods.forgetting.accumulation import by_class
from latebloom.methods.forgetting.method import Method
from latebloom.methods.forgetting.recurring import Recurring


@dataclass(frozen=True)
class Recurrence:
    """Which of the `classes` came in which period: `plan` [periods, classes], in the order of time.

    Periods in which nothing came are left out.
    """

    classes: tuple[Any, ...]
    plan: Bool[np.ndarray, "periods classes"]

    @property
    def count(self) -> int:
        """Classes a period, the mean rounded."""
        return max(1, round(float(self.plan.sum(axis=1).mean())))

    @property
    def frequency(self) -> Float[np.ndarray, " classes"]:
        """The share of the periods in which each class came."""
        return self.plan.mean(axis=0)

    @property
    def weights(self) -> Float[np.ndarray, " classes"]:
        """Weights under which draws without replacement bring each class about so often, summing to 1.

        Such a draw is a race of exponential arrivals with the weights as rates; a class that is in time with
        probability p has a rate of -log(1 - p). One that always came counts as absent in half a period.
        """
        p = np.minimum(self.frequency, 1 - 0.5 / len(self.plan))
        rates = -np.log1p(-p)
        return rates / rates.sum()

    @property
    def stickiness(self) -> float:
        """How often a class that came is there in the next period, too, over how often it would by its frequency alone.

        Near 1 classes come back at random, as the simulation has it; above it they come in bursts that are longer than
        a period (take a longer one); below it they take turns. NaN with one period.
        """
        if len(self.plan) < 2:
            return float("nan")
        again = (self.plan[1:] & self.plan[:-1]).sum()
        chance = (self.plan[:-1] * self.frequency).sum()
        return float(again / chance)


def recurrence(
    classes: ArrayLike, times: ArrayLike, *, period: float | np.timedelta64 | timedelta = 1.0
) -> Recurrence:
    """Reads a log: the class of each event, and its time, in any order.

    `period`: how long a task is, in the unit of the times (numbers, or a timedelta, NumPy's, pandas' or Python's, for dates); the first
    begins with the first event. A time that is a whole number of periods later, up to rounding, begins one.

    Raises `ValueError` for an empty log, columns of different lengths, values that are missing, and a period that
    is not above 0.
    """
    # A list that mixes strings and NaN would become strings, "nan" among them.
    absent = pd.isna(pd.Series(classes, dtype=object) if isinstance(classes, list | tuple) else classes)  # fmt: skip
    names, when = np.asarray(classes), np.asarray(times)
    if names.ndim != 1 or names.shape != when.shape or not len(names):
        raise ValueError(
            f"classes and times must be columns of one length, at least 1, not {names.shape} and {when.shape}"
        )
    for what, gone in (("classes", absent), ("times", pd.isna(when))):
        if (missing := np.flatnonzero(gone)).size:
            raise ValueError(f"{what}: row {missing[0]} has no value; leave out what is missing")
    if when.dtype.kind not in "iufM":
        raise ValueError("times must be numbers or dates without a time zone, as pandas.to_datetime(times).values has them")  # fmt: skip
    period = np.timedelta64(period) if isinstance(period, timedelta) else period
    dates, length = when.dtype.kind == "M", np.asarray(period)
    if not dates and (endless := np.flatnonzero(~np.isfinite(when))).size:
        raise ValueError(f"times: row {endless[0]} is infinite; leave it out")
    if length.shape or length.dtype.kind not in ("m" if dates else "iuf") or not length > length.dtype.type(0):  # fmt: skip
        unit = "a numpy.timedelta64, as times are dates" if dates else "a number in their unit"
        raise ValueError(f"period must be above 0 and {unit}, not {period!r}")
    if when.dtype.kind in "if":  # differences of small types overflow
        when = when.astype(np.int64 if when.dtype.kind == "i" else np.float64)
    try:
        since = (when - when.min()) / period
    except TypeError:
        raise ValueError(
            f"period {period!r} has no fixed length in the unit of the times: give days, as in numpy.timedelta64(30, 'D')"
        ) from None
    whole = np.rint(since)  # 0.3 / 0.1 is a little less than 3
    place = np.where(np.abs(since - whole) < 1e-9, whole, np.floor(since)).astype(np.int64)
    try:
        known, which = np.unique(names, return_inverse=True)
    except TypeError:
        raise ValueError("classes are of several kinds: 1 and '1' are two") from None
    held, row = np.unique(place, return_inverse=True)
    plan = np.zeros((len(held), len(known)), bool)
    plan[row, which] = True
    return Recurrence(tuple(known.tolist()), plan)


def expected(
    log: Recurrence, data: Dataset, *, model: Callable[[PRNGKeyArray], Any], steps: int, batch_size: int,
    tasks: int | None = None, optimiser: Callable[..., optax.GradientTransformation] = optax.sgd,
    learning_rate: float = 0.1, masked: bool = False, seeds: int = 5, exam_size: int = 30,
) -> pd.DataFrame:  # fmt: skip
    """What a network that is fine-tuned on such a stream is to know of each class by its end.

    - `data`: examples of as many classes, labels 0, 1, ... in the order of `log.classes`; your own, or made-up
      ones of like difficulty.
    - `steps` of `batch_size` examples in each period. `tasks`: so many periods are drawn by the frequencies of the log;
      left out, its own are taken, in their order.
    - `masked`: only the classes of a batch compete in its loss (`head="batch"`).

    Returns a row a class: `class`, its `frequency` in the log, and the mean `accuracy` over the last tenth of the tasks, with its
    interval over seeds (`low`, `high`, Student's t, 95 %).

    Raises `ValueError` for data of other classes, no tasks, and fewer than two seeds.
    """
    if tasks is not None and tasks < 1:
        raise ValueError(f"tasks must be at least 1, not {tasks}")
    labels, held = np.asarray(data.y_train), np.asarray(data.y_test)
    number = len(log.classes)
    if not np.array_equal(np.unique(labels), np.arange(number)):
        raise ValueError(f"data must have the labels 0 to {number - 1}, one for each class of the log")  # fmt: skip
    if seeds < 2:
        raise ValueError(f"an interval needs two seeds or more, not {seeds}")
    length = len(log.plan) if tasks is None else tasks
    most = int(log.plan.sum(axis=1).max()) if tasks is None else log.count

    def stream(key: PRNGKeyArray) -> Stream:
        plan_key, key = jax.random.split(key)
        plan = log.plan if tasks is None else drawn(np.tile(log.weights, (length, 1)), most, key=plan_key)  # fmt: skip
        return by_plan(
            labels, held, jnp.asarray(plan), key=key, steps=steps, batch_size=batch_size, classes=most,
            exam_size=exam_size,
        )  # fmt: skip

    process = Recurring(
        model=model, data=data, stream=stream, method=Method(), optimiser=optimiser,
        hyper={"learning_rate": learning_rate}, head="batch" if masked else "all",
    )  # fmt: skip
    late = np.unique(np.linspace(0.9 * length, length, 11).round().astype(int))
    trace = unfold(process, seeds=seeds, at=late[late > 0] * steps, progress=False)
    found = by_class(trace, 0, np.inf)
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(seeds)
    reach = error * stats.t.ppf(0.975, seeds - 1)
    return pd.DataFrame({
        "class": log.classes, "frequency": log.frequency, "accuracy": mean,
        "low": np.clip(mean - reach, 0, 1), "high": np.clip(mean + reach, 0, 1),
    })  # fmt: skip
