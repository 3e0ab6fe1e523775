"""A fair contest of learning-rate schedules: every family tuned alike, one refined from a pilot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latebloom.core.process import Quantity
from latebloom.core.unfold import unfold
from latebloom.methods.schedules.refinement import Refinement, refine
from latebloom.methods.schedules.schedule_sweep import Problem, ScheduleSweep, SweepState
from latebloom.optim.schedules import (
    Shape,
    cosine_decay,
    flat,
    inverse_decay,
    inverse_sqrt_decay,
    polynomial_decay,
    schedule_values,
    stable_decay,
    step_decay,
)

WARM = "+warm-up"


@dataclass(frozen=True)
class Candidate:
    """One shape to be tuned; of those of equal `name` the best is taken."""

    name: str
    values: Float[Array, " steps"]


@dataclass(frozen=True)
class Entry:
    """A schedule at the peak that tuning chose: step sizes [steps], and the tuning loss by peak."""

    name: str
    values: np.ndarray
    peak: float
    losses: np.ndarray

    def rates(self, steps: int) -> np.ndarray:
        """Step sizes of a run of `steps` steps: 0 after the schedule's own end."""
        return self.peak * np.pad(self.values, (0, steps - len(self.values)))


@dataclass(frozen=True)
class Tuning:
    """All entries, the refined schedule with what it was made from, and the peaks tried."""

    entries: tuple[Entry, ...]
    refinement: Refinement
    peaks: np.ndarray


def families(steps: int) -> dict[str, tuple[Shape, ...]]:
    """The shapes of every family, for a run of `steps` steps; linear decay comes first.

    1/t and 1/sqrt(t) come with the textbook's offset of one step and with a tenth of the run.
    """
    offsets = (1 / steps, 0.1)
    return {
        "linear": (polynomial_decay(1.0),),
        "cosine": (cosine_decay(),),
        "polynomial": (polynomial_decay(0.5), polynomial_decay(2.0)),
        "step": (step_decay(),),
        "stable-decay": (stable_decay(),),
        "inverse-sqrt": tuple(map(inverse_sqrt_decay, offsets)),
        "inverse": tuple(map(inverse_decay, offsets)),
        "flat": (flat(),),
    }


def candidates(steps: int, warmup: float) -> list[Candidate]:
    """Every shape of every family, without and with warm-up over that share of the run."""
    return [
        Candidate(name + suffix, schedule_values(shape, steps, share))
        for name, shapes in families(steps).items()
        for suffix, share in (("", 0.0), (WARM, warmup))
        for shape in shapes
    ]


def tune(
    problem: Problem, steps: int, peaks: Sequence[float], seeds: Sequence[int], warmup: float = 0.1
) -> Tuning:
    """Choose the peak of every family by its final training loss, mean over `seeds`.

    The refined schedule is made from one run of linear decay at its best peak, the first of the
    seeds, and is then tuned like the others. "linear-2x" is linear decay (with warm-up if that was
    better) over twice the steps, which costs what a pilot and a refined run cost together.
    """
    tried = candidates(steps, warmup)
    table = np.stack([c.values for c in tried], axis=1)
    losses, norms = _sweep(problem, table, peaks, seeds, len(peaks))
    entries: dict[str, Entry] = {}
    for place, candidate in enumerate(tried):
        entry = _entry(candidate.name, table[:, place], peaks, losses[place])
        best = entries.get(candidate.name)
        if best is None or entry.losses.min() < best.losses.min():
            entries[candidate.name] = entry
    refinement = refine(norms[:, int(np.argmin(losses[0]))], norm=problem.norm)
    warm = entries["linear" + WARM].losses.min() < entries["linear"].losses.min()
    longer = schedule_values(polynomial_decay(1.0), 2 * steps, warmup if warm else 0.0)
    late = {"refined": refinement.over(steps), "linear-2x": np.asarray(longer)}
    table = np.stack([np.pad(v, (0, 2 * steps - len(v))) for v in late.values()], axis=1)
    losses, _ = _sweep(problem, table, peaks, seeds, 1)
    for place, (name, values) in enumerate(late.items()):
        entries[name] = _entry(name, values, peaks, losses[place])
    return Tuning(tuple(entries.values()), refinement, np.asarray(peaks, np.float64))


def _sweep(
    problem: Problem, table: np.ndarray, peaks: Sequence[float], seeds: Sequence[int], recorded: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean final training loss [schedule, peak], and the first seed's norms [steps, recorded]."""
    grid = table[:, :, None] * np.asarray(peaks)
    rates = grid.reshape(len(table), -1)
    names = [str(i) for i in range(rates.shape[1])]
    process = ScheduleSweep(problem, jnp.asarray(rates, jnp.float32), names, recorded)
    trace = unfold(process, seeds=seeds, steps=len(table), every=len(table), progress=False)
    final = trace.train_loss.isel(step=-1).mean("seed").values.reshape(grid.shape[1:])
    final = np.where(np.isfinite(final), final, np.inf)
    return final, trace.gradient_norm.isel(seed=0, step=-1).values


def _entry(name: str, values: np.ndarray, peaks: Sequence[float], losses: np.ndarray) -> Entry:
    return Entry(name, values, float(peaks[int(np.argmin(losses))]), losses)


class Contest(ScheduleSweep):
    """All tuned entries side by side, for fresh seeds; the run lasts twice the steps of a schedule.

    "linear" comes first and its gradient norms are recorded. Beside the scores it shows what
    tuning found: `peak` of every entry, `tuning_loss` by peak, and the `refined` schedule.
    """

    found_peaks: Float[Array, " cells"]
    tuning_losses: Float[Array, "cells peaks"]
    refined: Float[Array, " points"]
    peaks: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, problem: Problem, tuning: Tuning, steps: int, points: int = 200):
        entries = tuning.entries
        rates = np.stack([entry.rates(2 * steps) for entry in entries], axis=1)
        names = [entry.name for entry in entries]
        super().__init__(problem, jnp.asarray(rates, jnp.float32), names, 1)
        self.found_peaks = jnp.asarray([entry.peak for entry in entries], jnp.float32)
        self.tuning_losses = jnp.asarray(np.stack([e.losses for e in entries]), jnp.float32)
        self.refined = jnp.asarray(tuning.refinement.over(points), jnp.float32)
        self.peaks = tuple(tuning.peaks.tolist())

    def observe(self, state: SweepState) -> dict[str, Array]:
        tuned = {"peak": self.found_peaks, "tuning_loss": self.tuning_losses}
        return super().observe(state) | tuned | {"refined": self.refined}

    def quantities(self) -> dict[str, Quantity]:
        share = {"share": np.linspace(0, 1, len(self.refined)).tolist()}
        return super().quantities() | {
            "peak": Quantity("1", ("cell",), {}, "peak learning rate"),
            "tuning_loss": Quantity(
                "nats", ("cell", "tried_peak"), {"tried_peak": self.peaks}, "tuning loss", gaps=True
            ),
            "refined": Quantity("1", ("share",), share, "refined schedule"),
        }
