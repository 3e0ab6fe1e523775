"""The study at smoke, and its checks on traces worked by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.nn import ResNet, ViT
from latebloom.studies.random_teachers import random_teachers as module
from latebloom.studies.random_teachers.random_teachers import ALPHAS, ARMS, SAMPLES, study


def probed(student, teacher=0.5, inputs=0.6, neighbours=0.0):
    """One seed whose student is at the given accuracy at the last of three steps, 0.1 before."""
    before = [0.1, 0.1]
    values = {
        "student_probe": [*before, student], "teacher_probe": [*before, teacher],
        "input_probe": [*before, inputs], "student_neighbours": [*before, neighbours],
        "teacher_neighbours": [*before, 0.25],
    }  # fmt: skip
    return xr.Dataset({name: (("seed", "step"), [row]) for name, row in values.items()})


def test_students_are_compared_at_the_last_step_in_points():
    traces = {"digits": probed(0.62, neighbours=0.2), "noise": probed(0.55)}
    assert module.gain("digits", "teacher", traces) == pytest.approx(12)
    assert module.gain("digits", "input", traces) == pytest.approx(2)
    assert module.gain("digits", "teacher", traces, by="neighbours") == pytest.approx(-5)
    assert module.between("digits", "noise", traces) == pytest.approx(7)


def test_the_worst_near_start_is_what_counts():
    traces = {a: probed(v) for a, v in zip(ALPHAS, (0.7, 0.6, 0.65, 0.62), strict=True)}
    assert module.near_over_far(traces) == pytest.approx(-2)


def test_more_images_and_a_second_generation():
    traces = {a: probed(v) for a, v in zip(SAMPLES, (0.6, 0.5, 0.7), strict=True)}
    # ranks 2, 1, 3 against 1, 2, 3: 1 - 6 * (1 + 1) / 24
    assert module.rank_with_samples(traces) == pytest.approx(0.5)
    half = xr.Dataset({"student_probe": (("seed", "step"), [[0.9, 0.6, 0.65], [0.9, 0.7, 0.6]])})
    np.testing.assert_allclose(module.second_generation({"restart": half}), [5, -10])


def pruned(accuracies, barrier):
    return xr.Dataset({
        "density": (("seed", "step"), [[1.0, 0.64, 0.27, 0.17]]),
        "test_accuracy": (("seed", "step"), [accuracies]),
        "barrier": (("seed", "step"), [[barrier, np.nan, np.nan, np.nan]]),
    })  # fmt: skip


def test_tickets_at_a_quarter_and_at_the_end_and_barriers():
    traces = {
        "ticket-student": pruned([0.9, 0.9, 0.85, 0.7], 0.02),
        "ticket-random": pruned([0.8, 0.8, 0.81, 0.72], 0.10),
    }
    one = "ticket-student", "ticket-random"
    assert module.ticket_gain(*one, 0.27, traces) == pytest.approx(4)
    assert module.ticket_gain(*one, 0.0, traces) == pytest.approx(-2)
    assert module.barriers("ticket-random", traces) == pytest.approx(10)
    assert module.barrier_share(traces) == pytest.approx(2 - 5)


def test_arms_are_what_they_are_called():
    made = {arm: module.make_process(ARMS[arm]) for arm in (
        "digits", "samples-20", "restart", "bottleneck-4", "long-features", "gratings-to-digits",
        "ticket-random-10", "ticket-student",
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


def test_arms_share_programs():
    """What differs between arms is in arrays, so that few programs are compiled."""
    shared = [a for a, c in ARMS.items() if a in module.LIGHT and not c.norm]
    programs = {
        str(jax.tree.structure(module.make_process(ARMS[arm]))) for arm in shared[:3] + shared[-5:]
    }
    assert len(programs) == 1


def test_images_are_standardised_and_averaged():
    digits = module.images("digits", False, 0)
    assert float(digits.x_train.mean()) == pytest.approx(0, abs=1e-4)
    assert float(jnp.std(digits.x_train)) == pytest.approx(1, abs=1e-3)
    assert module.images("mnist-5k", False, 40).x_train.shape == (40, 14, 14, 1)
    assert module.images("mnist-5k", True, 40).x_test.shape == (10, 28, 28, 1)
    assert module.images("gratings", False, 40).x_test.shape == (10, 8, 8, 1)
    assert module.places(9)[jnp.array([2, 6])].tolist() == [0, 1]


def plane():
    """What a landscape and tickets leave, without running them (their own tests do)."""
    places, rng = np.array(module.places(5)), np.random.default_rng(0)
    cells = ("seed", "step", "a", "b")
    landscape = xr.Dataset(
        {
            "divergence": (cells, rng.uniform(0, 1e-3, (1, 1, 5, 5))),
            "neighbours": (cells, rng.uniform(0.5, 0.9, (1, 1, 5, 5))),
            "distances": (("seed", "step", "of"), [[[3.0, 40.0, 41.0]]]),
        },
        {"a": places, "b": places, "of": ["near", "far", "near-far"]},
    )
    ticket = pruned([0.9, 0.9, 0.85, 0.7], 0.02)
    ticket["path"] = (("seed", "step", "place"), rng.uniform(0, 0.1, (1, 4, 3)))
    return {"landscape": landscape} | {
        arm: ticket.assign_coords(place=[0, 0.5, 1]) for arm in module.TICKETS
    }


def test_the_study_runs_at_smoke_and_draws(tmp_path):
    swept = {**module.ALPHAS, **module.SAMPLES, **module.WIDTHS, "gratings": 0, "noise": 0}
    arms = list(swept)  # one compiled program
    done = run(study, "smoke", arms=arms, store=Store(tmp_path))
    judged = {verdict.claim for verdict in done.verdicts if verdict.verdict != "not run"}
    assert judged == {claim.id for claim in study.claims if set(claim.arms) <= set(arms)}
    traces = {**plane(), **done.traces}
    drawn = [f for f in study.figures if set(f.arms) <= set(traces)]
    assert {f.name for f in drawn} == {"students", "sweeps", "landscape", "tickets"}
    for figure in drawn:
        assert len(style.png(figure.draw(traces))) > 10_000


@pytest.mark.parametrize(("arm", "kind"), [("resnet-digits", ResNet), ("vit-gratings", ViT)])
def test_students_of_other_architectures_can_be_trained(arm, kind):
    process = module.make_process(ARMS[arm])
    state = eqx.filter_eval_shape(process.init, jax.random.key(0))
    assert isinstance(state.student.encoder, kind)
    after = eqx.filter_eval_shape(process.step, state)
    assert jax.tree.structure(after.student) == jax.tree.structure(state.student)
    features = eqx.filter_eval_shape(state.student.encoder, process.data.x_test)
    assert features.shape == (len(process.data.x_test), 64)


@pytest.mark.parametrize("name", ["architectures", "probes"])
def test_figures_of_other_budgets(name):
    rng = np.random.default_rng(0)
    names = [f"{who}_{by}" for who in module.LOOKS for by in ("probe", "neighbours")]
    trace = xr.Dataset({name: (("seed", "step"), rng.uniform(0.3, 0.9, (3, 2))) for name in names})
    figure = next(f for f in study.figures if f.name == name)
    assert len(style.png(figure.draw(dict.fromkeys(figure.arms, trace)))) > 10_000
