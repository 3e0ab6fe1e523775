import numpy as np
from matplotlib.figure import Figure

from latebloom.methods.grokking.concept_space import draw_corners, draw_onset


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
