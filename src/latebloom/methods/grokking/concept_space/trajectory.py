"""Concept space: where a generator's samples lie, when a concept is learned, what prompting hides.

`concept_trajectory` works with any conditional generator and any classifiers; the rest with curves.
Source: Park et al. (2024); learning times and their smoothing as in the authors' analysis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

SMOOTHING = 1.5
"""Standard deviation in checkpoints of the Gaussian that smooths curves before they are judged."""

Sampler = Callable[[Any, Any, int, int], Any]
"""`sample(checkpoint, prompt, count, seed)`: `count` samples of a generator."""


def checkpoints_in(folder: str | Path) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The `.npz` files of a folder as (step, arrays), by step, each read when it is its turn.

    The step is the last number in the file's name, as in `model-01500.npz`.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise ValueError(f"{folder} holds no .npz files: save each checkpoint with numpy.savez")
    found = {}
    for path in paths:
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise ValueError(f"{path} has no step in its name: call it, say, model-01500.npz")
        if int(numbers[-1]) in found:
            raise ValueError(f"{path} and {found[int(numbers[-1])]} are of the same step")
        found[int(numbers[-1])] = path

    def read() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for step, path in sorted(found.items()):
            with np.load(path) as arrays:
                yield step, dict(arrays)

    return read()


def concept_trajectory(
    sample: Sampler,
    classifiers: Mapping[str, Callable[[Any], Any]],
    prompts: Mapping[str, tuple[Any, Mapping[str, int]]],
    checkpoints: Mapping[int, Any] | Iterable[tuple[int, Any]],
    *,
    samples: int = 32,
    quality: Callable[[Any], Any] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Generate from every prompt at every checkpoint, and read the concepts of the samples.

    - `sample(checkpoint, prompt, count, seed)` returns `count` samples.
    - `classifiers`: for each concept a function from samples to P(concept = 1), `[count]`.
    - `prompts`: name -> (what `sample` is given, the values asked for: `{"colour": 1, "size": 0}`).
    - `checkpoints`: step -> checkpoint, or (step, checkpoint) pairs, such as `checkpoints_in`.
    - `quality`: function from samples to P(not garbage), `[count]`. Without it, a classifier that
      is sure of noise can fake a sudden turn.

    **Returns:** dataset over (step, prompt, concept): `probability` (mean of P(concept = 1)),
    `concept_accuracy` (share of samples with the wanted value), and over (step, prompt) `accuracy`
    (share with every wanted value, of quality above 0.5) and `quality` (its mean). A concept that a
    prompt does not ask for has accuracy NaN.

    **Raises:** `ValueError` for prompts, checkpoints or classifiers that do not fit together.
    """
    _check_request(sample, classifiers, prompts, samples)
    concepts, steps, rows = list(classifiers), [], []
    pairs = checkpoints.items() if isinstance(checkpoints, Mapping) else checkpoints
    for step, checkpoint in pairs:
        if steps and not steps[-1] < step:
            raise ValueError(
                f"checkpoints must come in increasing steps: {step} follows {steps[-1]}"
            )
        steps.append(step)
        row = []
        for i, (prompt, wanted) in enumerate(prompts.values()):
            made = sample(checkpoint, prompt, samples, seed + i)
            p = np.stack([_probability(c, classifiers[c], made, samples) for c in concepts], axis=1)
            q = (
                np.ones(samples)
                if quality is None
                else _probability("quality", quality, made, samples)
            )
            goal = np.array([wanted.get(c, np.nan) for c in concepts])
            right = (p > 0.5) == (goal == 1)
            asked = ~np.isnan(goal)
            each = np.where(asked, right.mean(0), np.nan)
            row.append((p.mean(0), each, (right[:, asked].all(1) & (q > 0.5)).mean(), q.mean()))
        rows.append(row)
    if not steps:
        raise ValueError("there are no checkpoints: give at least one (step, checkpoint) pair")
    return xr.Dataset(
        {
            "probability": (("step", "prompt", "concept"), [[r[0] for r in row] for row in rows]),
            "concept_accuracy": (
                ("step", "prompt", "concept"),
                [[r[1] for r in row] for row in rows],
            ),
            "accuracy": (("step", "prompt"), [[r[2] for r in row] for row in rows]),
            "quality": (("step", "prompt"), [[r[3] for r in row] for row in rows]),
        },
        {"step": steps, "prompt": list(prompts), "concept": concepts},
    )


def _check_request(
    sample: Any, classifiers: Mapping[str, Any], prompts: Mapping[str, Any], samples: int
) -> None:
    if not callable(sample):
        raise ValueError("sample must be a function of (checkpoint, prompt, count, seed)")
    if not classifiers or not all(map(callable, classifiers.values())):
        raise ValueError("classifiers must map each concept to a function from samples to P(1)")
    if not prompts:
        raise ValueError("prompts is empty: give at least one name -> (prompt, wanted values)")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    for name, entry in prompts.items():
        if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[1], Mapping):
            raise ValueError(f"prompt {name!r} must be a pair (prompt, {{concept: 0 or 1}})")
        for concept, value in entry[1].items():
            if concept not in classifiers:
                raise ValueError(
                    f"prompt {name!r} asks for {concept!r}, but there are classifiers for "
                    f"{', '.join(classifiers)} only"
                )
            if value not in (0, 1):
                raise ValueError(f"prompt {name!r} must want 0 or 1 of {concept!r}, not {value!r}")


def _probability(
    name: str, classifier: Callable[[Any], Any], made: Any, samples: int
) -> Float[np.ndarray, " n"]:
    p = np.asarray(classifier(made), float)
    if p.shape != (samples,):
        raise ValueError(
            f"the classifier of {name!r} must return one probability a sample, {samples} of them, "
            f"not an array of shape {p.shape}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"the classifier of {name!r} returned values outside of [0, 1]")
    return p


def _check_curve(steps: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    if steps.ndim != 1 or len(steps) < 2 or not (np.diff(steps) > 0).all():
        raise ValueError("steps must be two or more increasing numbers")
    if values.ndim < 1 or values.shape[0] != len(steps):
        raise ValueError(f"a curve of {len(steps)} steps is needed, not an array of {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the curve must be finite: drop the checkpoints that are not")
    return steps, values


def smooth(values: Float[np.ndarray, "steps ..."], sigma: float = SMOOTHING) -> np.ndarray:
    """The curve under a Gaussian of `sigma` checkpoints (0: as it is)."""
    return (
        gaussian_filter1d(np.asarray(values, float), sigma, axis=0)
        if sigma > 0
        else np.asarray(values)
    )


def learning_time(
    steps: Float[np.ndarray, " steps"],
    accuracy: Float[np.ndarray, " steps"],
    *,
    threshold: float = 0.9,
    consecutive: int = 3,
    smoothing: float = SMOOTHING,
) -> float:
    """First step from which the smoothed accuracy exceeds `threshold` at `consecutive` checkpoints.

    NaN if that never happens. The speed of learning of the paper is its inverse.
    """
    steps, accuracy = _check_curve(steps, accuracy)
    above = smooth(accuracy, smoothing) > threshold
    runs = np.lib.stride_tricks.sliding_window_view(above, min(consecutive, len(above))).all(1)
    return float(steps[np.argmax(runs)]) if runs.any() else float("nan")


def change_point(steps: Float[np.ndarray, " steps"], values: Float[np.ndarray, " steps"]) -> float:
    """The step at which a curve breaks: where two straight lines, one to each side, fit it best."""
    steps, values = _check_curve(steps, values)
    if len(steps) < 6:
        raise ValueError(f"a change point needs six checkpoints or more, not {len(steps)}")

    def misfit(part: slice) -> float:
        line = np.polyfit(steps[part], values[part], 1)
        return float(((np.polyval(line, steps[part]) - values[part]) ** 2).sum())

    cuts = range(3, len(steps) - 2)
    return float(steps[min(cuts, key=lambda k: misfit(slice(0, k)) + misfit(slice(k, None)))])


def turning_point(
    steps: Float[np.ndarray, " steps"],
    trajectory: Float[np.ndarray, "steps concepts"],
    smoothing: float = SMOOTHING,
) -> float:
    """The step of the sharpest turn of a trajectory in concept space.

    It is the checkpoint p for which the path start - p - end, of two straight legs, lies closest to
    all points of the smoothed trajectory (least squares).
    """
    steps, trajectory = _check_curve(steps, trajectory)
    if len(steps) < 3 or trajectory.ndim != 2:
        raise ValueError("a turning point needs [steps, concepts] with three checkpoints or more")
    points = smooth(trajectory, smoothing)

    def misfit(k: int) -> float:
        first = _squared_distance(points, points[0], points[k])
        second = _squared_distance(points, points[k], points[-1])
        return float(np.minimum(first, second).sum())

    return float(steps[min(range(1, len(steps) - 1), key=misfit)])


def _squared_distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Squared distance of each point from the segment start - end."""
    leg = end - start
    along = np.clip((points - start) @ leg / max(leg @ leg, 1e-12), 0.0, 1.0)
    return ((points - start - along[:, None] * leg) ** 2).sum(1)


def signed_area(trajectory: Float[np.ndarray, "steps 2"]) -> float:
    """Area between a trajectory in two concepts and the straight line from its start to its end.

    Positive if the first concept is ahead: 1/2 for (0, 0) - (1, 0) - (1, 1).
    """
    points = np.asarray(trajectory, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"the signed area is of trajectories [steps, 2], not {points.shape}")
    following = np.roll(points, -1, axis=0)
    return float(0.5 * (points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum())


@dataclass(frozen=True)
class Onset:
    """When a capability can be elicited, against when plain prompting shows it.

    `naive` and `intervened` are learning times in steps (NaN: never); `lead` is how many times
    earlier each intervention works (if naive prompting never does, a lower limit: the last step
    counts); `largest_gap` is the greatest difference of smoothed accuracies, best intervention less
    naive, found at `gap_step`.
    """

    naive: float
    intervened: dict[str, float]
    lead: dict[str, float]
    largest_gap: float
    gap_step: float


def capability_gap(
    naive: Float[np.ndarray, " steps"], intervened: Mapping[str, Float[np.ndarray, " steps"]]
) -> Float[np.ndarray, " steps"]:
    """Accuracy of the best intervention less that of the plain prompt, at every checkpoint."""
    if not intervened:
        raise ValueError("intervened is empty: give at least one name -> accuracy curve")
    return np.max([np.asarray(curve, float) for curve in intervened.values()], axis=0) - naive


def hidden_capability_onset(
    steps: Float[np.ndarray, " steps"],
    naive: Float[np.ndarray, " steps"],
    intervened: Mapping[str, Float[np.ndarray, " steps"]],
    *,
    threshold: float = 0.9,
    consecutive: int = 3,
    smoothing: float = SMOOTHING,
) -> Onset:
    """Compare when a plain prompt and when interventions first reach `threshold` accuracy.

    `naive` and the curves of `intervened` are accuracies on the same unseen combination at the same
    checkpoints.
    """
    rule = {"threshold": threshold, "consecutive": consecutive, "smoothing": smoothing}
    times = {name: learning_time(steps, curve, **rule) for name, curve in intervened.items()}
    plain = learning_time(steps, naive, **rule)
    steps, naive = _check_curve(steps, naive)
    until = steps[-1] if np.isnan(plain) else plain
    smoothed = {name: smooth(np.asarray(curve), smoothing) for name, curve in intervened.items()}
    gap = capability_gap(smooth(naive, smoothing), smoothed)
    return Onset(
        naive=plain,
        intervened=times,
        lead={
            name: float(until / time) if time > 0 else float("nan") for name, time in times.items()
        },
        largest_gap=float(gap.max()),
        gap_step=float(steps[gap.argmax()]),
    )
