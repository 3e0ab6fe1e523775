"""The two pictures of a run: its path in concept space, and what the plain prompt hides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
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
