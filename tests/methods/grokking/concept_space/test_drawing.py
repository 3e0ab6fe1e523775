import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from latebloom.methods.grokking.concept_space import draw_corners, draw_onset, draw_samples


def test_pictures_show_corners_curves_and_gap():
    left, right = Figure().subplots(1, 2)
    draw_corners(left, "colour", "size")
    assert left.get_xlabel() == "P(colour = 1)"
    assert [t.get_text() for t in left.texts] == ["00", "10", "01", "11 unseen"]
    steps = np.arange(10)
    draw_onset(right, steps, np.zeros(10), {"over": np.ones(10), "worse": np.zeros(10)})
    labels = right.get_legend_handles_labels()[1]
    assert labels == ["over", "worse", "plain prompt", "hidden capability"]
    filled = right.collections[0].get_paths()[0].vertices
    assert filled[:, 1].max() == 1 and filled[:, 1].min() == 0


def test_samples_are_those_of_the_best_variant():
    """Images are numbered in the order in which prompts are asked: 0, 1 2, 3 4, 5 6, 7 8."""
    kept = np.arange(9, dtype=np.uint8)[None, :, None, None, None, None] * np.ones(
        (2, 1, 2, 3, 3, 3), np.uint8
    )
    names = ("over_prompt", "placebo_prompt", "linear", "placebo_linear")
    accuracy = np.array([[0.1, 0.9], [0.9, 0.1]])  # the second variant is best at first
    seed = xr.Dataset(
        {
            "images": (("step", "asked", "sample", "row", "column", "channel"), kept),
            **{f"{name}_accuracy": (("step", f"{name}_variant"), accuracy) for name in names},
        },
        {"step": [10, 20]},
    )
    axes = Figure().subplots(3, 2)
    asked = {"plain": "class", "steered": "linear", "sham": "placebo_prompt"}
    draw_samples(axes, seed, [0, 1], asked)
    shown = [[int(ax.images[0].get_array().max()) for ax in row] for row in axes]
    assert shown == [[0, 0], [6, 5], [4, 3]]
    assert axes[0, 0].images[0].get_array().shape == (3, 6, 3)
    assert [row[0].get_ylabel() for row in axes] == list(asked)
    assert [ax.get_title() for ax in axes[0]] == ["10", "20"]
