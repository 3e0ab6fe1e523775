"""Curves in concept space, on curves made by hand; and the road for the user's own generator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.grokking.concept_space import (
    capability_gap,
    change_point,
    checkpoints_in,
    concept_trajectory,
    hidden_capability_onset,
    landscape_trajectory,
    learning_time,
    signed_area,
    switch_time,
    turning_point,
)

STEPS = np.arange(0, 1000, 50.0)


def sigmoid(middle, width=20.0):
    return 1 / (1 + np.exp(-(STEPS - middle) / width))


def test_learning_time_of_a_step_curve():
    curve = (STEPS >= 400).astype(float)
    assert learning_time(STEPS, curve, smoothing=0) == 400
    curve[STEPS == 200] = 1.0  # one lucky checkpoint is not learning
    assert learning_time(STEPS, curve, smoothing=0) == 400
    assert np.isnan(learning_time(STEPS, 0 * curve))


@given(st.floats(100, 700), st.floats(0.5, 0.95))
@settings(max_examples=30, deadline=None)
def test_later_curves_and_higher_thresholds_come_later(middle, threshold):
    early, late = sigmoid(middle - 80), sigmoid(middle)
    first = learning_time(STEPS, early, threshold=threshold)
    assert first <= learning_time(STEPS, late, threshold=threshold)
    assert first >= learning_time(STEPS, early, threshold=threshold / 2)


def test_change_point_of_a_broken_line():
    assert change_point(STEPS, np.maximum(0, STEPS - 500)) == pytest.approx(500, abs=50)
    assert change_point(STEPS, np.where(STEPS < 300, 0.1, 0.9)) == 300


def test_turning_point_and_area_of_a_path_by_the_wrong_corner():
    up = np.stack([np.zeros(10), np.linspace(0, 1, 10)], axis=1)
    right = np.stack([np.linspace(0, 1, 10), np.ones(10)], axis=1)
    path = np.concatenate([up, right])
    assert turning_point(STEPS, path, smoothing=0) in (450, 500)
    assert signed_area(path) == pytest.approx(-0.5)
    assert signed_area(path[:, ::-1]) == pytest.approx(0.5)
    assert signed_area(np.stack([STEPS, STEPS], axis=1)) == pytest.approx(0, abs=1e-6)


@given(st.floats(0, 1), st.floats(-1, 1), st.floats(-1, 1))
@settings(deadline=None)
def test_area_does_not_move_with_the_path(angle, dx, dy):
    path = np.array([[0, 0], [1, 0.2], [1, 1]])
    assert signed_area(path + np.array([dx, dy])) == pytest.approx(signed_area(path), abs=1e-9)


def test_onset_of_a_hidden_capability():
    naive, over, sham = sigmoid(700, 10), sigmoid(300, 10), 0 * STEPS
    found = hidden_capability_onset(STEPS, naive, {"over": over, "sham": sham}, smoothing=0)
    assert found.intervened["over"] == 350 and found.naive == 750
    assert found.lead["over"] == pytest.approx(750 / 350)
    assert np.isnan(found.intervened["sham"]) and np.isnan(found.lead["sham"])
    assert found.largest_gap == pytest.approx(1, abs=0.01) and 350 <= found.gap_step <= 650
    never = hidden_capability_onset(STEPS, sham, {"over": over}, smoothing=0)
    assert np.isnan(never.naive) and never.lead["over"] == pytest.approx(STEPS[-1] / 350)


def test_gap_is_of_the_best_intervention():
    gap = capability_gap(
        np.array([0.1, 0.5]), {"a": np.array([0.2, 0.9]), "b": np.array([0.6, 0.1])}
    )
    assert np.allclose(gap, [0.5, 0.4])
    with pytest.raises(ValueError, match="intervened is empty"):
        capability_gap(np.zeros(2), {})


def test_toy_model_in_closed_form_equals_euler():
    signals = np.array([0.1, 0.4])
    switch, step = switch_time(signals), 0.01
    assert np.exp(-0.1 * switch) == pytest.approx(0.1)
    times = np.arange(0, 60, step)
    a, path = np.zeros(2), []
    for t in times:
        path.append(a)
        a = a + step * signals * (np.array([0.0 if t < switch else 1.0, 1.0]) - a)
    assert np.allclose(landscape_trajectory(times, signals), path, atol=5e-3)
    with pytest.raises(ValueError, match="signals must be positive"):
        switch_time(np.array([0.0, 1.0]))


# A "generator" whose checkpoint is a pair of gains: samples are gain * prompt + noise.
def sample(checkpoint, prompt, count, seed):
    noise = 0.1 * np.random.default_rng(seed).normal(size=(count, 2))
    return np.asarray(checkpoint["gain"]) * prompt + noise


CLASSIFIERS = {
    "colour": lambda x: (x[:, 0] > 0).astype(float),
    "size": lambda x: (x[:, 1] > 0) * 1.0,
}
PROMPTS = {
    "11": (np.array([1.0, 1.0]), {"colour": 1, "size": 1}),
    "0?": (np.array([-1.0, 1.0]), {"colour": 0}),
}
CHECKPOINTS = {0: {"gain": [0.0, 0.0]}, 10: {"gain": [-1.0, 1.0]}, 20: {"gain": [1.0, 1.0]}}


def test_trajectory_of_an_own_generator(tmp_path):
    found = concept_trajectory(sample, CLASSIFIERS, PROMPTS, CHECKPOINTS, samples=200)
    assert found.accuracy.sel(prompt="11").values[1:].tolist() == [0.0, 1.0]
    assert found.probability.sel(prompt="11", step=10).values.tolist() == [0.0, 1.0]
    assert np.isnan(found.concept_accuracy.sel(prompt="0?", concept="size")).all()
    assert found.accuracy.sel(prompt="0?", step=20) == 1.0
    assert 0.1 < found.accuracy.sel(prompt="11", step=0) < 0.4
    for step, arrays in CHECKPOINTS.items():
        np.savez(tmp_path / f"model-{step:03}.npz", **arrays)
    again = concept_trajectory(sample, CLASSIFIERS, PROMPTS, checkpoints_in(tmp_path), samples=200)
    assert again.identical(found)


def test_garbage_does_not_count():
    found = concept_trajectory(
        sample, CLASSIFIERS, PROMPTS, CHECKPOINTS, quality=lambda x: np.zeros(len(x))
    )
    assert (found.accuracy == 0).all() and (found.quality == 0).all()
    assert found.concept_accuracy.sel(prompt="11", step=20).values.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": "model.npz"}, "sample must be a function"),
        ({"classifiers": {}}, "classifiers must map"),
        ({"classifiers": {"colour": lambda x: x, "size": lambda x: x}}, "one probability a sample"),
        (
            {"classifiers": {"colour": lambda x: x[:, 0] * 9, "size": lambda x: x[:, 1]}},
            "outside of",
        ),
        ({"prompts": {}}, "prompts is empty"),
        ({"prompts": {"11": np.ones(2)}}, "must be a pair"),
        ({"prompts": {"11": (np.ones(2), {"weight": 1})}}, "asks for 'weight'"),
        ({"prompts": {"11": (np.ones(2), {"size": 2})}}, "must want 0 or 1"),
        ({"checkpoints": {}}, "no checkpoints"),
        ({"checkpoints": [(2, CHECKPOINTS[0]), (1, CHECKPOINTS[0])]}, "increasing steps"),
        ({"samples": 0}, "samples must be"),
    ],
)
def test_bad_requests(change, message):
    request = {
        "sample": sample, "classifiers": CLASSIFIERS, "prompts": PROMPTS, "checkpoints": CHECKPOINTS,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        concept_trajectory(**request)


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "no .npz files"), (("model",), "no step in its name"), (("a-1", "b-01"), "same step")],
)
def test_bad_folders(tmp_path, names, message):
    for name in names:
        np.savez(tmp_path / f"{name}.npz", x=1)
    with pytest.raises(ValueError, match=message):
        checkpoints_in(tmp_path)


def test_bad_curves():
    with pytest.raises(ValueError, match="increasing"):
        learning_time(STEPS[::-1], STEPS)
    with pytest.raises(ValueError, match="a curve of"):
        learning_time(STEPS, STEPS[:3])
    with pytest.raises(ValueError, match="finite"):
        learning_time(STEPS, STEPS * np.nan)
    with pytest.raises(ValueError, match="signed area"):
        signed_area(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="six checkpoints"):
        change_point(STEPS[:4], STEPS[:4])
