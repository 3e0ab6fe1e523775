"""Pictures of a run: its path in concept space, its samples, and what the plain prompt hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes

from latebloom.methods.grokking.concept_space.trajectory import capability_gap, smooth

_GREY, _GOAL = "#7F7F7F", "#D55E00"


def draw_corners(ax: Axes, first: str, second: str) -> None:
    """The square of two concepts: seen classes at three corners, the unseen combination at (1, 1)."""
    ax.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], ":", color=_GREY, linewidth=1)
    ax.scatter([0, 0, 1], [0, 1, 0], color=_GREY, s=40, zorder=3)
    ax.scatter([1], [1], marker="*", color=_GOAL, s=150, zorder=3)
    for x, y, text in ((0, 0, "00"), (1, 0, "10"), (0, 1, "01"), (1, 1, "11 unseen")):
        ax.annotate(text, (x, y), (0, 8 if y else -16), textcoords="offset points", ha="center")
    ax.set_xlim(-0.15, 1.22)
    ax.set_ylim(-0.15, 1.15)
    ax.set_xlabel(f"P({first} = 1)")
    ax.set_ylabel(f"P({second} = 1)")
    ax.set_aspect("equal")


def draw_onset(
    ax: Axes,
    steps: Float[np.ndarray, " steps"],
    naive: Float[np.ndarray, " steps"],
    intervened: Mapping[str, Float[np.ndarray, " steps"]],
) -> None:
    """Smoothed accuracy of the plain prompt and of each intervention, and the gap between them."""
    curves = {name: smooth(np.asarray(curve)) for name, curve in intervened.items()}
    plain = smooth(np.asarray(naive))
    gap = np.maximum(capability_gap(plain, curves), 0)
    for name, curve in curves.items():
        ax.plot(steps, curve, label=name)
    ax.plot(steps, plain, color="black", label="plain prompt")
    ax.fill_between(steps, plain, plain + gap, color=_GREY, alpha=0.2, label="hidden capability")
    ax.set_xlabel("step")
    ax.set_ylabel("accuracy on the unseen combination")
    ax.legend()


def draw_samples(
    axes: Sequence[Sequence[Axes]], seed: xr.Dataset, observations: Sequence[int],
    asked: Mapping[str, str],
) -> None:  # fmt: skip
    """Images of the class with every bit set: a row for what is asked, a column for an observation.

    - `axes`: [row, column]. `seed`: of one seed of an `ImageConceptSpace` with interventions.
    - `asked`: the rows, label -> "class" for the plain prompt, "over_prompt", "placebo_prompt",
      "linear" or "placebo_linear", of which the variant that is right most often is shown.
    """
    accuracy = {"class": np.ones((seed.sizes["step"], 1))}
    first, start = {"class": 0}, 1
    for name in ("over_prompt", "placebo_prompt", "linear", "placebo_linear"):  # as recorded
        accuracy[name], first[name] = seed[f"{name}_accuracy"].values, start
        start += accuracy[name].shape[1]
    for row, (label, name) in zip(axes, asked.items(), strict=True):
        for ax, k in zip(row, observations, strict=True):
            shown = seed.images.values[k, first[name] + int(accuracy[name][k].argmax())]
            ax.imshow(np.concatenate(list(shown), axis=1))
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for ax, k in zip(axes[0], observations, strict=True):
        ax.set_title(f"{seed.step.values[k]}", fontsize=9)
