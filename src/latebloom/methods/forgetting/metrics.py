"""What a continual learner keeps, loses and regains: metrics of its accuracies over time.

A trace is an `xarray.Dataset` (`as_trace` makes one of arrays) with

- `accuracy` [seed, step, task]: a score of which more is better, NaN where a task was not evaluated;
- `learning` [seed, step]: index of the task whose batch made the update before; at step 0, before all
  updates, the task of the first one;
- `step` [step]: how many updates were made, so what lies between two observations may be many updates.

A stretch is a run of observations under the same `learning`. A task ends with the last observation
of its stretch, A(E_i, t_i); a trace that was not evaluated there takes an earlier accuracy for it. Where
tasks recur, `accuracy_matrix`, `average_accuracy`, `min_accuracy`, `worst_case_accuracy`, the windowed
metrics and `gap` hold for all stretches (a task is of the past once its first has ended); forgetting,
transfer and the learning curve area speak of tasks that are learned once and refuse.

Metrics of a task are [seed, task], NaN for tasks that they do not speak of, so that `.mean("task")` is the
average that papers report. Every function raises `ValueError` for a dataset that is no trace, and
`Undefined` where an accuracy that the definition needs was not evaluated. Seeds that have diverged (coordinate
`diverged_at`, see `latebloom.unfold`) have NaN.

Source: De Lange, van de Ven, Tuytelaars, "Continual evaluation for lifelong learning: Identifying the
stability gap" (ICLR 2023; arXiv 2205.13452); Lopez-Paz and Ranzato (2017; arXiv 1706.08840) for
transfer; Chaudhry et al. (2018; arXiv 1801.10112) for forgetting, (2019; arXiv 1812.00420) for the learning
curve area.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from latebloom.methods.forgetting.course import (
    Undefined,
    as_trace,
    course_of,
    diverged,
    of_the_living,
)

__all__ = [
    "HIDES_A_GAP", "NEAR", "Undefined", "accuracy_matrix", "as_trace", "average_accuracy",
    "backward_transfer", "forgetting", "forward_transfer", "gap", "learning_curve_area", "min_accuracy",
    "per_seed", "summary", "windowed_forgetting", "windowed_plasticity", "worst_case_accuracy",
    "worst_case_curve",
]  # fmt: skip

# So many updates without an evaluation, among the first so many after a switch, may hide a gap.
HIDES_A_GAP, NEAR = 10, 50


# At the ends of tasks


@of_the_living
def accuracy_matrix(trace: xr.Dataset) -> xr.DataArray:
    """[seed, learned, task]: accuracy on each task after each stretch, in the order of learning.

    Its coordinates `after` and `step` [seed, learned] say which task that was, and after how many updates.
    NaN where a task was not evaluated.
    """
    course = course_of(trace)
    found = course.array(course.at_ends, "seed", "learned", "task")
    return found.assign_coords(
        learned=np.arange(course.order.shape[1]),
        after=(("seed", "learned"), course.tasks[course.order]),
        step=(("seed", "learned"), course.steps[course.ends]),
    )


def accuracy_when_learned(trace: xr.Dataset) -> xr.DataArray:
    """[seed, learned, task]: accuracy on each task when its stretch ends, NaN elsewhere."""
    ends = accuracy_matrix(trace)
    return ends.where(ends.after == ends.task)


@of_the_living
def average_accuracy(trace: xr.Dataset) -> xr.DataArray:
    """ACC [seed]: accuracy at the last observation, averaged over the tasks that were learned."""
    course = course_of(trace)
    needed = np.zeros_like(course.at_ends, bool)
    needed[:, -1] = course.learned
    final = course.demand(needed, "average accuracy")[:, -1]
    return course.array(np.where(course.learned, final, np.nan), "seed", "task").mean("task")


@of_the_living
def forgetting(trace: xr.Dataset, since: Literal["learned", "best"] = "learned") -> xr.DataArray:
    """FORG [seed, task]: what is lost on each task but the last, at the end.

    - `since`: "learned", A(E_i, t_i) - A(E_i, t_k) (De Lange et al., Avalanche); "best", the highest
      accuracy at the end of any task but the last, less the one at the end (Chaudhry et al. 2018:
      ends before the task was learned count where it was evaluated there).

    Negative where learning others helped.
    """
    if since not in ("learned", "best"):
        raise ValueError(f"since must be 'learned' or 'best', not {since!r}")
    course = course_of(trace)
    course.several("forgetting")
    course.once("forgetting")
    place = course.first(np.broadcast_to(np.arange(course.order.shape[1]), course.order.shape))
    k = course.order.shape[1] - 1
    at = np.arange(k + 1)[:, None]
    needed = (at >= place[:, None]) & (place[:, None] < k)
    if since == "learned":
        needed &= (at == place[:, None]) | (at == k)
    ends = course.demand(needed, "forgetting")
    if since == "learned":
        before = np.take_along_axis(ends, np.minimum(place, k)[:, None], axis=1)[:, 0]
    else:
        before = np.fmax.reduce(ends[:, :-1], axis=1)
    return course.array(np.where(place < k, before - ends[:, -1], np.nan), "seed", "task")


def backward_transfer(trace: xr.Dataset) -> xr.DataArray:
    """BWT [seed, task]: A(E_i, t_k) - A(E_i, t_i), what learning the later tasks did to each but the last.

    Source: Lopez-Paz and Ranzato 2017, eq. 3.
    """
    return -forgetting(trace)


@of_the_living
def forward_transfer(trace: xr.Dataset, baseline: ArrayLike | None = None) -> xr.DataArray:
    """FWT [seed, task]: accuracy on each task but the first right before it is learned, above a baseline.

    - `baseline`: accuracy without any learning: a number or [task]; None takes the observation at
      step 0, as Avalanche does.

    Source: Lopez-Paz and Ranzato 2017, eq. 4.
    """
    course = course_of(trace)
    course.several("forward transfer")
    course.once("forward transfer")
    needed = np.zeros_like(course.at_ends, bool)
    stretch = np.arange(course.order.shape[1] - 1)
    needed[course.rows, stretch, course.order[:, 1:]] = True
    before = course.demand(needed, "forward transfer")
    later = needed.any(axis=1)
    if baseline is None:
        none = course.accuracy[:, 0]
        if course.steps[0] != 0 or np.isnan(none[later]).any():
            raise Undefined(
                "forward transfer needs every task evaluated at step 0, before the first update, or a baseline"
            )
    else:
        given = np.asarray(baseline, float)
        if given.shape not in ((), (len(course.tasks),)):
            raise ValueError(
                f"baseline must be a number or [{len(course.tasks)}], one a task, not {list(given.shape)}"
            )
        none = np.broadcast_to(given, later.shape)
        if not np.isfinite(none[later]).all():
            raise ValueError("baseline must be finite for every task but the first")
    found = np.where(needed, before, 0.0).sum(axis=1) - none
    return course.array(np.where(later, found, np.nan), "seed", "task")


# Over all observations


@of_the_living
def min_accuracy(trace: xr.Dataset) -> xr.DataArray:
    """The least accuracy on each task after it was learned and while others are [seed, task].

    min-ACC is its mean over tasks, NaN for one that never was of the past. The minimum of noisy evaluations lies
    below what it would be without noise: see `min_accuracy_of_noise`.

    Source: De Lange et al.; the observation at t_i itself does not count.
    """
    course = course_of(trace)
    course.several("min-ACC")
    past = course.past
    lowest = np.where(past, np.nan_to_num(course.accuracy, nan=np.inf), np.inf).min(axis=1)
    lost = past.any(axis=1) & np.isinf(lowest)
    if lost.any():
        seed, task = np.argwhere(lost)[0]
        raise Undefined(
            f"min-ACC needs task {course.name(task)} of seed {course.seeds[seed]} evaluated after it was "
            "learned, while others are"
        )
    return course.array(np.where(np.isinf(lowest), np.nan, lowest), "seed", "task")


@of_the_living
def worst_case_curve(trace: xr.Dataset) -> xr.DataArray:
    """WC-ACC at every observation [seed, step]: the mean of the accuracy on the task that is being learned
    and of the least accuracies so far, after they were learned, on all others.

    NaN where the task that is being learned was not evaluated, or another not yet since its end.

    Source: De Lange et al.
    """
    course = course_of(trace)
    accuracy = course.accuracy
    running = np.where(course.past, np.nan_to_num(accuracy, nan=np.inf), np.inf)
    running = np.minimum.accumulate(running, axis=1)
    current = course.learning[..., None] == np.arange(len(course.tasks))
    values = np.where(current, accuracy, np.where(np.isinf(running), np.nan, running))
    begun = np.arange(len(course.steps))[:, None] >= course.first(course.starts)[:, None]
    total = np.where(begun, values, 0.0).sum(axis=-1)
    return course.array(total / begun.sum(axis=-1), "seed", "step")


def worst_case_accuracy(trace: xr.Dataset) -> xr.DataArray:
    """WC-ACC [seed] at the last observation: A(E_k) / k + (1 - 1/k) min-ACC; see `worst_case_curve`."""
    found = worst_case_curve(trace)[:, -1]
    lost = np.isnan(found.values) & ~diverged(trace)
    if lost.any():
        course = course_of(trace.isel(seed=lost))
        raise Undefined(
            f"WC-ACC needs task {course.name(course.order[0, -1])} evaluated at the last step, "
            f"{course.steps[-1]}, and the others once since they were learned"
        )
    return found.drop_vars("step")


@of_the_living
def windowed_forgetting(trace: xr.Dataset, window: int = 10) -> xr.DataArray:
    """WF [seed, task]: the largest drop A_m - A_n, 0 <= n - m < `window`, in updates; 0 where none is.

    A task counts from its first update on, also while it is learned; the first task from step 0 on. Where every
    update was evaluated, this is the window of as many evaluations of De Lange et al. Where one in p was, WF
    over D of their evaluations is `window` = p D here; drops between evaluations are not seen, which makes it a
    lower bound.

    NaN for a task that was never learned. Raises `Undefined` where a task was not evaluated, or no window holds
    two of its evaluations though there are as many.
    """
    return _windowed(trace, window, 1)


@of_the_living
def windowed_plasticity(trace: xr.Dataset, window: int = 10) -> xr.DataArray:
    """WP [seed, task]: the largest rise A_n - A_m, 0 <= n - m < `window`; see `windowed_forgetting`."""
    return _windowed(trace, window, -1)


def _windowed(trace: xr.Dataset, window: int, sign: int) -> xr.DataArray:
    if int(window) != window or window < 2:
        raise ValueError(f"window must be a whole number of updates from 2 on, not {window}")
    course = course_of(trace)
    begun = np.arange(len(course.steps))[:, None] >= course.first(course.starts)[:, None]
    accuracy = np.where(begun, sign * course.accuracy, np.nan)
    seen = ~np.isnan(accuracy)
    first = np.searchsorted(course.steps, course.steps - window, side="right")
    total = np.insert(seen.cumsum(axis=1), 0, 0, axis=1)
    pairs = seen & (total[:, 1:] - total[:, first] > 1)
    counts = total[:, -1]
    alone = course.learned & (counts != 1) & ~pairs.any(axis=1)
    if alone.any():
        seed, task = np.argwhere(alone)[0]
        raise Undefined(
            f"a window of {window} updates never holds two evaluations of task {course.name(task)} of seed "
            f"{course.seeds[seed]}: evaluate more often or give a wider window"
        )
    highest = _trailing_max(np.where(seen, accuracy, -np.inf), first)
    largest = np.fmax.reduce(highest - accuracy, axis=1)
    return course.array(largest, "seed", "task")


def _trailing_max(
    values: Float[np.ndarray, "seed step task"], first: Int[np.ndarray, " step"]
) -> Float[np.ndarray, "seed step task"]:
    """The maximum of values[:, first[n] : n + 1] for each n, by maxima over spans that double."""
    level = np.log2(np.arange(len(first)) - first + 1).astype(int)
    found, table, span = np.empty_like(values), values, 1
    for power in range(level.max() + 1):
        at = np.flatnonzero(level == power)
        found[:, at] = np.maximum(table[:, at], table[:, first[at] + span - 1])
        wider = table.copy()
        np.maximum(table[:, span:], table[:, :-span], out=wider[:, span:])
        table, span = wider, 2 * span
    return found


@of_the_living
def learning_curve_area(
    trace: xr.Dataset, beta: int = 10, *, zero_shot: bool = False
) -> xr.DataArray:
    """LCA [seed, task]: accuracy on each task, averaged over its first `beta` updates.

    - `zero_shot`: the accuracy before the first of them counts, too, which makes it the LCA of Chaudhry
      et al. 2019, a mean of beta + 1; without, it is the LCA of De Lange et al.

    Every one of those updates must have been evaluated.
    """
    if int(beta) != beta or beta < 1:
        raise ValueError(f"beta must be a whole number of updates from 1 on, not {beta}")
    course = course_of(trace)
    course.once("learning curve area")
    shots = np.arange(0 if zero_shot else 1, beta + 1)
    wanted = course.updates_before[..., None] + shots
    place = np.searchsorted(course.steps, wanted)
    within = place <= course.ends[..., None]
    place = np.minimum(place, len(course.steps) - 1)
    rows = course.rows[..., None]
    values = course.accuracy[rows, place, course.order[..., None]]
    there = within & (course.steps[place] == wanted) & ~np.isnan(values)
    if not there.all():
        seed, stretch, shot = np.argwhere(~there)[0]
        raise Undefined(
            f"learning curve area needs task {course.name(course.order[seed, stretch])} of seed "
            f"{course.seeds[seed]} evaluated after {shots[shot]} of its updates, at step "
            f"{wanted[seed, stretch, shot]}: evaluate every update after a switch, or give a smaller beta"
        )
    found = np.full((len(course.seeds), len(course.tasks)), np.nan)
    found[course.rows, course.order] = values.mean(axis=-1)
    return course.array(found, "seed", "task")


@of_the_living
def gap(trace: xr.Dataset, within: int | None = 50, level: float = 0.9) -> xr.Dataset:
    """What happens to tasks learned before, at every border between two stretches.

    - `within`: updates after the border in which the lowest accuracy is looked for; None for all of the
      stretch.
    - `level`: share of the drop that must be regained to have recovered.

    Variables [seed, border, task], NaN for a task that was not learned by then or is the one begun:

    - `before`, `lowest`, `after`: accuracy at the border, its least within the updates, and at the stretch's end;
    - `drop` = before - lowest, `recovery` = after - lowest;
    - `updates_to_lowest`, `updates_to_recover`: from the border to the lowest, and to the first evaluation
      from there on with at least lowest + level * drop; NaN where none comes in this stretch, 0 where nothing
      dropped.

    Coordinates [seed, border]: `finished`, `begun` (tasks) and `step` of the border. Of the task just
    finished alone, as the stability gap is most often told: `found.where(found.task == found.finished)`.

    Warns where, in the first 50 updates after a border, more than 10 go by without an evaluation.
    """
    if within is not None and not within >= 1:
        raise ValueError(f"within must be a number of updates from 1 on, or None, not {within}")
    if not 0 < level <= 1:
        raise ValueError(f"level must be above 0 and at most 1, not {level}")
    course = course_of(trace)
    course.several("a gap")
    borders = course.order.shape[1] - 1
    index = np.arange(borders + 1)
    started = np.arange(borders + 1)[:, None] > course.first(np.broadcast_to(index, course.order.shape))[:, None]  # fmt: skip
    old = started & (course.order[..., None] != np.arange(len(course.tasks)))
    old = old[:, 1:]
    needed = np.zeros_like(course.at_ends, bool)
    needed[:, :-1] |= old
    needed[:, 1:] |= old
    ends = course.demand(needed, "a gap")
    shape = (len(course.seeds), borders, len(course.tasks))
    lowest, to_lowest, to_recover = (np.full(shape, np.nan) for _ in range(3))
    late = 0
    for seed, border in np.ndindex(shape[:2]):
        end = course.ends[seed, border]
        part = slice(end + 1, course.ends[seed, border + 1] + 1)
        since = course.steps[part] - course.steps[end]
        apart = np.diff(since, prepend=0)
        late = max(late, apart[since - apart < NEAR].max())
        tasks = old[seed, border]
        seen = course.accuracy[seed, part][:, tasks]
        near = np.ones(len(since), bool) if within is None else since <= within
        if not (near[:, None] & ~np.isnan(seen)).any(axis=0).all():
            raise Undefined(
                f"a gap needs every task learned so far evaluated within {within} updates after the border at step "
                f"{course.steps[end]} of seed {course.seeds[seed]}: evaluate more often, or give a larger within"
            )
        place = np.where(near[:, None], np.nan_to_num(seen, nan=np.inf), np.inf).argmin(axis=0)
        least = seen[place, np.arange(len(place))]
        dropped = ends[seed, border, tasks] - least
        back = (seen >= least + level * dropped) & (np.arange(len(since))[:, None] >= place)
        took = np.where(back.any(axis=0), since[back.argmax(axis=0)], np.nan)
        lowest[seed, border, tasks], to_lowest[seed, border, tasks] = least, since[place]
        to_recover[seed, border, tasks] = np.where(dropped > 0, took, 0)
    if late > HIDES_A_GAP:
        warnings.warn(
            f"up to {late} of the first updates after a border go by without an evaluation, a gap may come and go "
            "in them: evaluate every update after a switch",
            stacklevel=3,
        )
    before, after = np.where(old, ends[:, :-1], np.nan), np.where(old, ends[:, 1:], np.nan)
    found = {
        "before": before, "lowest": lowest, "after": after, "drop": before - lowest,
        "recovery": after - lowest, "updates_to_lowest": to_lowest, "updates_to_recover": to_recover,
    }  # fmt: skip
    coords = {
        "seed": course.seeds, "border": np.arange(borders), "task": course.tasks,
        "finished": (("seed", "border"), course.tasks[course.order[:, :-1]]),
        "begun": (("seed", "border"), course.tasks[course.order[:, 1:]]),
        "step": (("seed", "border"), course.steps[course.ends[:, :-1]]),
    }  # fmt: skip
    return xr.Dataset({k: (("seed", "border", "task"), v) for k, v in found.items()}, coords)


# All of it


def summary(
    trace: xr.Dataset,
    *,
    windows: Sequence[int] = (10, 100),
    beta: int = 10,
    within: int | None = 50,
) -> xr.Dataset:
    """All metrics, averaged over their tasks, one number a seed [seed]; NaN for what is undefined.

    `attrs["undefined"]` says why, a sentence a metric. `drop` and `recovery` are those of the task just
    finished, averaged over borders (`gap`).
    """

    def finished(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
        def of(trace: xr.Dataset) -> xr.DataArray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = gap(trace, within)
            return of_finished(found, name).mean("task")

        return of

    metrics: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
        "average_accuracy": average_accuracy,
        "forgetting": forgetting,
        "forgetting_from_best": lambda t: forgetting(t, "best"),
        "backward_transfer": backward_transfer,
        "forward_transfer": forward_transfer,
        "min_accuracy": min_accuracy,
        "worst_case_accuracy": worst_case_accuracy,
        **{f"windowed_forgetting_{w}": lambda t, w=w: windowed_forgetting(t, w) for w in windows},
        **{f"windowed_plasticity_{w}": lambda t, w=w: windowed_plasticity(t, w) for w in windows},
        f"learning_curve_area_{beta}": lambda t: learning_curve_area(t, beta),
        "drop": finished("drop"),
        "recovery": finished("recovery"),
    }
    found, undefined = {}, {}
    for name, of in metrics.items():
        try:
            value = of(trace)
        except Undefined as error:
            undefined[name] = str(error)
            value = xr.DataArray(
                np.full(trace.sizes["seed"], np.nan), {"seed": trace.seed}, ("seed",)
            )
        found[name] = value.mean([dim for dim in value.dims if dim != "seed"])
    return xr.Dataset(found, attrs={"undefined": undefined})


def per_seed(metric: Callable[[xr.Dataset], xr.DataArray]) -> Callable[[xr.Dataset], np.ndarray]:
    """A metric as one number a seed: its mean over tasks and borders, NaN for all where all have diverged."""

    def of(trace: xr.Dataset) -> np.ndarray:
        if diverged(trace).all():
            return np.full(trace.sizes["seed"], np.nan)
        found = metric(trace)
        return found.mean([dim for dim in found.dims if dim != "seed"]).values

    return of


def of_finished(found: xr.Dataset, name: str) -> xr.DataArray:
    """A variable of `gap` of the task just finished alone, [seed, border, task] with NaN for the others."""
    return found[name].where(found.task == found.finished)
