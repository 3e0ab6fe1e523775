"""What the arms are made of, and effects on traces worked by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.core.sdes import SOSRI, SOSRI2
from latebloom.methods.continuous.neural_sde import MomentFit
from latebloom.studies.continuous import solver_regularization as module
from latebloom.studies.continuous.solver_regularization import ARMS, CLAIMS, DOSES, ERROR, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(evaluations=60.0, accuracy=0.9, work=None, **more):
    """Two seeds, three observations after the start; one number, or one an observation."""
    values = {"evaluations": evaluations, "test_accuracy": accuracy, "train_work": evaluations if work is None else work, **more}  # fmt: skip
    rows = {n: (("seed", "step"), np.tile(np.broadcast_to(np.asarray(v, float), 4), (2, 1))) for n, v in values.items()}  # fmt: skip
    return xr.Dataset(rows, {"seed": [0, 1], "step": [0, 10, 20, 30]})


def test_ratios_and_losses_are_of_the_last_observation():
    traces = {"none": trace([50, 60, 70, 80], [0.1, 0.9, 0.92, 0.95]), "error": trace(32, [0.1, 0.9, 0.9, 0.944]), "decay": trace(72)}  # fmt: skip
    assert BY_ID["C1.error"].effect(traces) == pytest.approx([0.4, 0.4])
    assert BY_ID["C1.error"].null(traces) == pytest.approx([0.9, 0.9])
    assert BY_ID["C1.accuracy"].effect(traces) == pytest.approx([0.6, 0.6])
    assert BY_ID["R.grow"].effect(traces) == pytest.approx([1.6, 1.6])


def test_work_is_that_of_the_last_third():
    traces = {"none": trace(work=[np.nan, 10, 20, 30]), "taylor": trace(work=[np.nan, 10, 90, 300])}
    assert BY_ID["C2.taylor"].effect(traces) == pytest.approx([10, 10])
    assert BY_ID["C2.tenfold"].effect(traces) == pytest.approx([1, 1])
    traces["error"] = trace(work=[np.nan, 10, 10, 10])
    assert BY_ID["C2.whole"].effect(traces) == pytest.approx([0.5, 0.5])


def test_equal_cost_is_where_the_cheaper_one_ends():
    none = trace(accuracy=[0, 0.4, 0.8, 0.9], work=[np.nan, 20, 20, 20])
    error = trace(accuracy=[0, 0.3, 0.6, 0.9], work=[np.nan, 10, 10, 10])
    np.testing.assert_allclose(module.spent(none)[0], [0, 200, 400, 600])
    # the cheaper has spent 300 in the end, where the other is between 0.4 and 0.8
    assert BY_ID["C2.equal"].effect({"none": none, "error": error}) == pytest.approx([30, 30])
    assert BY_ID["C2.equal"].effect({"none": error, "error": none}) == pytest.approx([-30, -30])


def test_doses_and_tasks_by_hand():
    arms = {"error" if d == 1 else f"error/{d:g}": trace(90 - 5 * i) for i, d in enumerate(DOSES)}
    assert BY_ID["C5.dose"].effect(arms) == pytest.approx([1, 1])
    traces = {"error": trace(40), "stiffness": trace(60), "series/error": trace(60), "series/stiffness": trace(40)}  # fmt: skip
    assert BY_ID["C4.tasks"].effect(traces) == pytest.approx([-(np.log(1.5) ** 2)] * 2)


def test_arms_differ_in_what_they_say():
    error = replace(ARMS["error"], show=0)
    assert replace(ARMS["detached"], through=True) == error
    assert replace(ARMS["steer/error"], steer=0.0) == error
    assert replace(ARMS["error/0.1"], strength=ERROR) == error
    assert ARMS["annealed"].strength / ARMS["annealed"].last == pytest.approx(10)
    assert replace(ARMS["annealed"], strength=ERROR, last=0.0) == error
    assert replace(ARMS["decay"], decay=0.0) == replace(ARMS["none"], show=0) and ARMS["decay"].decay > 0  # fmt: skip
    assert {ARMS[a].aggregate for a in ("mean", "largest", "error")} == {"mean", "max", "sum"}
    small = study.configs("smoke", ("noise/none", "noise/error", "spiral/none"))
    stiff = study.configs("smoke", ("noise/stiffness", "noise/stiff-none"))
    for configs, tableau in ((small, SOSRI), (stiff, SOSRI2)):
        for config in configs.values():
            process = module.make_process(config)
            found = process.tableau if isinstance(process, MomentFit) else process.model(jax.random.key(0)).tableau  # fmt: skip
            assert found is tableau


def test_examples_for_tuning_are_of_the_training_part():
    config = replace(study.configs("smoke", ("none",))["none"], train=10_000)
    exam, tuning = module.images(config), module.images(replace(config, valid=True))
    assert len(tuning.x_train) == len(exam.x_train) - config.exam
    np.testing.assert_array_equal(tuning.x_test, exam.x_train[-config.exam :])
    assert module.schedule(config).tolist() == [0, 2, 4]


def test_arms_that_the_short_budget_leaves_out_take_a_step():
    arms = ("both", "largest", "steer/error", "noise/stiffness", "series/steer/error", "density/kinetic")  # fmt: skip
    for arm, config in study.configs("smoke", arms).items():
        process = module.make_process(config)
        with jax.enable_x64(process.x64):
            seen = eqx.filter_eval_shape(
                lambda k, p=process: p.observe(p.step(p.init(k)).state), jax.random.key(0)
            )
        assert "evaluations" in seen, arm


def test_the_full_budget_is_of_the_papers_sizes():
    full = study.configs("full")
    assert full["none"].hidden == 100 and full["none"].batch == 512 and full["none"].side == 28
    assert full["spiral/none"].steps == 250 and full["spiral/none"].tolerance == 0.3
    assert full["noise/error"].tolerance == 0.14 and full["series/error"].side == 37
