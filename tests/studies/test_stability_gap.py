"""The study's measures on traces worked by hand, and what its arms are made of."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom import unfold
from latebloom.core.views import Rotation
from latebloom.methods.forgetting.metrics import accuracy_matrix
from latebloom.studies.forgetting import stability_gap as module
from latebloom.studies.forgetting.stability_gap import ARMS, CLAIMS, Config, make_process, study

BY_ID = {claim.id: claim for claim in CLAIMS}
LENGTH = 100


def trace(lowest, after, turn=10, stability=(0.1, 1.0)):
    """Two seeds, three tasks of 100 updates: a task falls from 0.9 to `lowest` at `turn` updates after its end."""
    steps = np.arange(3 * LENGTH + 1)
    accuracy = np.full((2, len(steps), 3), np.nan)
    for task in range(3):
        accuracy[:, LENGTH * task :, task] = 0.9
        for later in range(task + 1, 3):
            accuracy[:, LENGTH * later + 1 :, task] = after
            accuracy[:, LENGTH * later + turn, task] = lowest
    learning = np.minimum(np.maximum(steps - 1, 0) // LENGTH, 2)
    since = (steps - 1) % LENGTH
    old = np.where(since < 40, stability[0], stability[1])
    config = {"steps": LENGTH, "exam_size": 100}
    return xr.Dataset(
        {
            "accuracy": (("seed", "step", "task"), accuracy),
            "learning": (("seed", "step"), np.stack([learning] * 2)),
            "stability": (("seed", "step"), np.stack([old, 2 * old])),
            "plasticity": (("seed", "step"), np.stack([np.ones(len(steps)), 4 * np.ones(len(steps))])),
        },
        {"seed": [0, 1], "step": steps, "task": [0, 1, 2]},
        {"config": json.dumps(config)},
    )  # fmt: skip


def test_drops_and_what_is_regained_are_of_the_task_just_finished():
    traces = {"class-er": trace(0.5, 0.8), "class-fine-tuning": trace(0.2, 0.2), "angle-0": trace(0.89, 0.9)}  # fmt: skip
    assert BY_ID["C1.er.drop"].effect(traces) == pytest.approx([0.4, 0.4])
    assert BY_ID["C1.er.drop"].null(traces) == pytest.approx([0.01, 0.01])
    assert BY_ID["C1.er.back"].effect(traces) == pytest.approx([0.3 - 0.2] * 2)
    assert BY_ID["C1.er.back"].null(traces) == pytest.approx([-0.35] * 2)
    # A_0 and A_1 end at 0.8, from 0.9.
    assert BY_ID["C3.forgetting"].effect(traces) == pytest.approx([0.1 - 0.2] * 2)


def test_the_worst_case_against_the_end():
    claim = BY_ID["C3.worst"]
    found = {"class-er": trace(0.5, 0.8), "class-fine-tuning": trace(0.0, 0.0)}
    worst = 0.9 / 3 + 2 / 3 * 0.5
    assert claim.effect(found) == pytest.approx([(0.8 + 0.8 + 0.9) / 3 - worst] * 2)
    assert claim.null(found) == pytest.approx([0, 0])


def test_gaps_need_a_minimum_and_a_drop():
    near, dropped = BY_ID["C2.task.back"].needs
    found = {"task-er": trace(0.5, 0.8)}
    found["task-er"]["plasticity"][:, LENGTH + 1] = 5.0
    found["task-er"]["plasticity"][:, 2 * LENGTH + 1] = 20.0
    # Before both borders the gradients are 1 and 4.
    assert near.effect(found) == pytest.approx([(1 / 5 + 1 / 20) / 2, (4 / 5 + 4 / 20) / 2])
    assert dropped.effect(found) == pytest.approx([0.4, 0.4])


def test_a_gradient_that_rises_after_the_switch():
    found = {"class-er": trace(0.5, 0.8)}
    claim = BY_ID["C5.er-norm"]
    assert claim.effect(found) == pytest.approx([0.1, 0.1]) and claim.null(found) == pytest.approx(
        [1, 1]
    )


def test_ratios_of_gradients_around_borders():
    found = {"class-er": trace(0.5, 0.8), "class-gem": trace(0.5, 0.8)}
    assert BY_ID["C5.er"].effect(found) == pytest.approx([0.1, 0.05])
    assert BY_ID["C5.er"].null(found) == pytest.approx([1, 0.5])
    assert BY_ID["C5.rise"].effect(found) == pytest.approx([1, 1])
    assert BY_ID["C5.rise"].null(found) == pytest.approx([0.1, 0.1])


def test_an_arm_that_diverged_says_nothing():
    dead = trace(0.5, 0.8).assign_coords(diverged_at=("seed", [3, 3]))
    for of in (module.drop, module.ends, module.windowed):
        assert np.isnan(of(dead)).all() and len(of(dead)) == 2


def test_angles_are_ranked():
    traces = {f"angle-{a}": trace(0.8 - a / 200, 0.8) for a in module.ANGLES}
    assert BY_ID["C4.rank"].effect(traces) == pytest.approx([1, 1])
    assert BY_ID["C4.same"].effect(traces) == pytest.approx([0.1, 0.1])


def test_arms_differ_in_what_they_say():
    same = make_process(ARMS["angle-90"])
    assert same.steps == 2 * ARMS["angle-90"].steps
    assert ARMS["slower"].drop == 10 and ARMS["no-momentum"].momentum == 0
    assert {ARMS[f"weight-{w:g}"].strength for w in module.WEIGHTS} == set(module.WEIGHTS)
    assert {c.method for arm, c in ARMS.items() if arm.startswith("task")} == set(module.METHODS)


def test_the_rate_falls_at_the_first_border_alone():
    rule = module._sgd(0.0, 10.0, 3, np.float32(0.5))
    state, moved = rule.init(np.zeros(1)), []
    for _ in range(5):
        update, state = rule.update(np.ones(1), state)
        moved.append(float(update[0]))
    assert moved == pytest.approx([-0.5, -0.5, -0.5, -0.05, -0.05])


@pytest.mark.parametrize("method", ["er", "gem", "joint"])
def test_a_small_run_keeps_old_tasks_that_fine_tuning_loses(method):
    small = {"data": "digits", "side": 28, "steps": 60, "width": 32, "exam_size": 60, "batch_size": 32,
             "memory": 200, "every": 60, "rate": 0.05}  # fmt: skip
    kept, lost = (
        accuracy_matrix(
            unfold(make_process(config), seeds=2, at=module.schedule(config), progress=False)
        )
        for config in (Config("class", method, **small), Config("class", "fine-tuning", **small))
    )
    assert lost[:, -1, :-1].mean() < 0.2 < 0.4 < kept[:, -1, :-1].mean()


def test_the_full_budget_is_made_of_the_papers_sizes():
    full = study.configs("full")["class-er"]
    assert (full.width, full.side, full.memory, full.batch_size, full.exam_size) == (
        400,
        28,
        2000,
        256,
        1000,
    )
    assert isinstance(
        make_process(study.configs("smoke")["joint"]).stream(jax.random.key(0)).view, Rotation
    )


def test_the_arms_of_the_short_budget_can_be_run():
    for config in study.configs("smoke").values():
        process = make_process(config)
        eqx.filter_eval_shape(lambda key, p=process: p.step(p.turn(p.init(key))), jax.random.key(0))
