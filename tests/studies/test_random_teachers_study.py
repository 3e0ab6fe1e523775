"""Effects on traces worked by hand, what arms are, and figures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import judge, style
from latebloom.nn import ResNet, ViT
from latebloom.studies.random_teachers import random_teachers as module
from latebloom.studies.random_teachers.random_teachers import ALPHAS, ARMS, CLAIMS, SAMPLES, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def probed(student, teacher=0.5, inputs=0.6, neighbours=0.0, half=0.1):
    """One seed whose student is at the given accuracy at the last of three steps, `half` before."""
    before = [0.1, half]
    values = {
        "student_probe": [*before, student], "teacher_probe": [*before, teacher],
        "input_probe": [*before, inputs], "student_neighbours": [*before, neighbours],
        "teacher_neighbours": [*before, 0.25],
    }  # fmt: skip
    return xr.Dataset(
        {name: (("seed", "step"), [row]) for name, row in values.items()}, {"step": [40, 160, 320]}
    )


def test_students_are_compared_at_the_last_step_in_points():
    traces = {"digits": probed(0.62, neighbours=0.2), "noise": probed(0.55), "long-features": probed(0.55)}  # fmt: skip
    for claim, effect in (
        ("C1.digits", 12), ("C1.digits-input", 2), ("C1.digits-neighbours", -5), ("C3.noise", 5),
        ("C7.features", 7),
    ):  # fmt: skip
        assert BY_ID[claim].effect(traces) == pytest.approx(effect), claim
    assert BY_ID["C3.noise"].null(traces) == pytest.approx(12)


def test_the_worst_near_start_counts_and_far_ones_must_have_settled():
    traces = {a: probed(v, half=0.7) for a, v in zip(ALPHAS, (0.7, 0.6, 0.65, 0.62), strict=True)}
    assert BY_ID["C2.near"].effect(traces) == pytest.approx(-2)
    assert judge(BY_ID["C2.near"], traces).verdict != "out of reach"
    traces["alpha-1"] = probed(0.62, half=0.6)
    assert judge(BY_ID["C2.near"], traces).verdict == "out of reach"


def test_more_images_and_a_second_generation():
    traces = {a: probed(v) for a, v in zip(SAMPLES, (0.6, 0.5, 0.7), strict=True)}
    # ranks 2, 1, 3 against 1, 2, 3: 1 - 6 * (1 + 1) / 24
    assert BY_ID["C3.samples"].effect(traces) == pytest.approx(0.5)
    restarted = {"restart": probed(0.65, half=0.6)}
    assert BY_ID["C9.restart"].effect(restarted) == pytest.approx(5)
    assert BY_ID["C9.restart"].null(restarted) == pytest.approx(10)


def pruned(accuracies, barrier):
    """Errors of 0.1 and 0.2 at the ends of the path."""
    path = np.broadcast_to([0.1, 0.15 + barrier, 0.2], (1, 4, 3))
    return xr.Dataset({
        "density": (("seed", "step"), [[1.0, 0.64, 0.27, 0.17]]),
        "test_accuracy": (("seed", "step"), [accuracies]),
        "barrier": (("seed", "step"), [[barrier, np.nan, np.nan, np.nan]]),
        "path": (("seed", "step", "place"), path),
    }, {"step": [1, 2, 3, 4], "place": [0.0, 0.5, 1.0]})  # fmt: skip


def test_tickets_at_a_quarter_and_at_the_end_and_barriers():
    traces = {
        "ticket-student": pruned([0.9, 0.9, 0.85, 0.7], 0.02),
        "ticket-random": pruned([0.8, 0.8, 0.81, 0.72], 0.10),
    }
    assert BY_ID["C5.student"].effect(traces) == pytest.approx(4)
    assert BY_ID["C5.sparse"].effect(traces) == pytest.approx(-2)
    assert BY_ID["C6.random"].effect(traces) == pytest.approx(10)
    assert BY_ID["C6.random"].null(traces) == pytest.approx(5)
    assert BY_ID["C6.student"].effect(traces) == pytest.approx(2 - 5)
    lost = {claim: BY_ID[claim].needs[0].effect(traces) for claim in ("C5.student", "C5.sparse")}
    assert lost == {"C5.student": pytest.approx(-1), "C5.sparse": pytest.approx(8)}


def test_arms_are_what_they_are_called():
    made = {arm: module.make_process(ARMS[arm]) for arm in (
        "digits", "samples-20", "restart", "bottleneck-4", "long-features", "gratings-to-digits",
        "ticket-random-10", "ticket-student", "landscape",
    )}  # fmt: skip
    assert int(made["samples-20"].examples) == 20 and int(made["digits"].examples) == 1438
    assert int(made["restart"].generation) == 160 and module.schedule(ARMS["restart"])[1] == 160
    assert int(made["bottleneck-4"].model.used) == 4
    assert not made["long-features"].model.unit_features and made["digits"].model.unit_features
    moved = made["gratings-to-digits"]
    np.testing.assert_array_equal(moved.probed.x_test, made["digits"].data.x_test)
    assert not np.array_equal(moved.data.x_test, moved.probed.x_test)
    assert int(made["ticket-random-10"].rewind) == 30
    assert int(made["ticket-random-10"].distilled) == 0
    assert int(made["ticket-student"].distilled) == 320
    assert made["ticket-student"].ignore == ("readout",)
    assert made["landscape"].at[jnp.array([2, 6])].tolist() == [
        0,
        1,
    ]  # teacher and students lie there


def test_arms_share_programs():
    """What differs between arms is in arrays, so that few programs are compiled."""
    shared = [*module.ONE_PROGRAM, "digits-to-gratings", "long-features", "long-rows", "restart"]
    programs = {
        str(jax.tree.structure(module.make_process(ARMS[arm]))) for arm in shared[:3] + shared[-6:]
    }
    assert len(programs) == 1


def test_images_are_standardised_and_averaged():
    digits = module.images("digits", False, 0)
    assert float(digits.x_train.mean()) == pytest.approx(0, abs=1e-4)
    assert float(jnp.std(digits.x_train)) == pytest.approx(1, abs=1e-3)
    assert module.images("mnist-5k", False, 40).x_train.shape == (40, 14, 14, 1)
    assert module.images("mnist-5k", True, 40).x_test.shape == (10, 28, 28, 1)
    assert module.images("gratings", False, 40).x_test.shape == (10, 8, 8, 1)


@pytest.mark.parametrize(("arm", "kind"), [("resnet-digits", ResNet), ("vit-gratings", ViT)])
def test_students_of_other_architectures_can_be_trained(arm, kind):
    process = module.make_process(ARMS[arm])
    state = eqx.filter_eval_shape(process.init, jax.random.key(0))
    assert isinstance(state.student.encoder, kind)
    after = eqx.filter_eval_shape(process.step, state)
    assert jax.tree.structure(after.student) == jax.tree.structure(state.student)
    features = eqx.filter_eval_shape(state.student.encoder, process.data.x_test)
    assert features.shape == (len(process.data.x_test), 64)


def test_quick_leaves_out_the_parts_of_the_head_and_other_networks():
    quick = study.arms_of("quick")
    assert {"ticket-student", "ticket-random", "noise"} <= set(quick)
    assert not {"long-rows", "restart", "landscape", "resnet-digits", "digits-scaled"} & set(quick)
    assert set(study.arms_of("thorough")) == set(ARMS)
    assert study.configs("thorough") == ARMS
    full = study.configs("full")
    assert full["gratings-to-digits"].probed == full["digits"].data == "mnist"
    assert full["gratings"].data == "gratings"


def test_figures_of_what_smoke_does_not_run():
    rng = np.random.default_rng(0)
    places, cells = np.linspace(-0.5, 1.5, 5), ("seed", "step", "a", "b")
    landscape = xr.Dataset(
        {
            "divergence": (cells, rng.uniform(0, 1e-3, (1, 1, 5, 5))),
            "neighbours": (cells, rng.uniform(0.5, 0.9, (1, 1, 5, 5))),
            "distances": (("seed", "step", "of"), [[[3.0, 40.0, 41.0]]]),
        },
        {"a": places, "b": places, "of": ["near", "far", "near-far"]},
    )
    names = [f"{who}_{by}" for who in ("student", "teacher", "input") for by in ("probe", "neighbours")]  # fmt: skip
    trace = xr.Dataset({name: (("seed", "step"), rng.uniform(0.3, 0.9, (3, 2))) for name in names})
    traces = dict.fromkeys(ARMS, trace) | {"landscape": landscape}
    traces |= dict.fromkeys(module.TICKETS, pruned([0.9, 0.9, 0.85, 0.7], 0.02))
    for figure in study.figures:
        assert len(style.png(figure.draw(traces))) > 10_000, figure.name
