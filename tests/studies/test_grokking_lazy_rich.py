"""What the arms are made of, and the effects on traces worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from latebloom import unfold
from latebloom.studies.grokking import grokking_lazy_rich as module
from latebloom.studies.grokking.grokking_lazy_rich import ARMS, CLAIMS, study

STEPS = np.array([0, 1, 10, 100, 1000])
EFFECT = {claim.id: claim.effect for claim in CLAIMS}
NULL = {claim.id: claim.null for claim in CLAIMS}


def trace(train, test, **more):
    """One seed; losses are relative, the target's power is 2."""
    values = {
        "train_loss": 2 * np.array([train]),
        "test_loss": 2 * np.array([test]),
        "train_target_power": np.full((1, 5), 2.0),
        "test_target_power": np.full((1, 5), 2.0),
        **{name: np.array([value]) for name, value in more.items()},
    }
    return xr.Dataset({n: (("seed", "step"), v) for n, v in values.items()}, {"step": STEPS})


GROKS = trace(
    [1, 0.5, 0.05, 0.01, 0.0],
    [1, 1.2, 0.8, 0.3, 0.1],
    plateau=[1.5] * 5,
    weight_norm=[4.0, 4.0, 5.0, 6.0, 7.5],
)


def slow(t_test):
    """Fits at step 1 and generalises at `t_test`; never if that is not an observed step."""
    return trace([1, 0, 0, 0, 0], np.where(np.isin(STEPS, t_test).cumsum() > 0, 0.1, 0.9))


def over(arms, *times):
    return dict(zip(arms.values(), map(slow, times), strict=True))


def test_times_and_delay():
    assert module.fit(GROKS) == 10 and module.generalised(GROKS) == 1000
    assert module.delay(GROKS) == pytest.approx(2.0)
    assert module.generalised(slow(5)) == 1000  # never: the end of the run
    assert np.isnan(module.delay(trace([1] * 5, [1] * 5))).all()
    at_once = trace([0] * 5, [1, 1, 0, 0, 0])
    assert module.delay(at_once) == pytest.approx(1.0)  # step 0 counts as step 1


def test_effects_on_the_base_arm():
    traces = {"base": GROKS, "base-linearised": GROKS}
    assert EFFECT["C1"](traces) == pytest.approx(8.0)
    assert EFFECT["C1b"](traces) == pytest.approx(1.6 / 1.5 - 1)
    assert NULL["C1b"](traces) == pytest.approx(2 / 1.5 - 1)  # at the start
    assert EFFECT["C1c"](traces) == pytest.approx(0.1)
    assert EFFECT["C4"](traces) == pytest.approx(0.2 / 1.5)
    assert EFFECT["C6"](traces) == pytest.approx(0.5)


def test_order_of_the_sweeps():
    assert EFFECT["C2"](over(module.ALPHA_ARMS, 1, 10, 100, 1000)) == pytest.approx(1.0)
    # A run that never generalises ties with one that does so at the very end.
    assert EFFECT["C2"](over(module.ALPHA_ARMS, 1, 10, 1000, 5)) == pytest.approx(
        stats.spearmanr([1, 2, 3, 4], [1, 2, 3.5, 3.5]).statistic
    )
    assert np.isnan(EFFECT["C2"](over(module.ALPHA_ARMS, 10, 10, 10, 10))).all()
    down = over(module.EPSILON_ARMS, 1000, 100, 100, 10, 1)
    assert EFFECT["C3"](down) < -0.97 and EFFECT["C3c"](down) < -0.97
    nine = over(module.EVERY_ALPHA_ARM, 1, 1, 10, 100, 1000, 1, 100, 1000, 5)
    assert EFFECT["C2b"](nine) > 0.9  # the arms are not in the order of their alphas


def test_drop_and_alignment_are_timed_between_observations():
    rises_late = trace([1] * 5, [1, 1, 0.9, 0.2, 0.19], ntk_alignment=[0, 0, 0.1, 0.2, 0.6])
    steepest = module.steepest_rise(module.curve("ntk_alignment"))
    assert steepest(rises_late) == pytest.approx(np.sqrt(100 * 1000))
    early = trace([1] * 5, [1, 1, 0.2, 0.19, 0.18], ntk_alignment=[0, 0, 0.1, 0.6, 0.7])
    arms = (early, early, rises_late, rises_late, rises_late)
    traces = dict(zip(module.EPSILON_ARMS.values(), arms, strict=True))
    assert EFFECT["C3d"](traces) == pytest.approx(1.0)
    assert EFFECT["C3b"](traces) == pytest.approx(1.0)
    same = dict.fromkeys(traces, early)
    assert np.isnan(EFFECT["C3d"](same)).all()


def test_the_window_of_training_sizes_counts_only_runs_that_generalise():
    traces = over(module.SAMPLE_ARMS, 5, 1000, 100, 10, 10, 10)  # 5: never
    delays = [module.window_delay(found)[0] for found in traces.values()]
    np.testing.assert_allclose(delays, [0, 3, 2, 1, 1, 1])
    assert EFFECT["C5"](traces) == pytest.approx(2.0)
    assert EFFECT["C5b"](traces) == pytest.approx(0.9)
    traces["samples-1d"] = slow(1000)
    assert EFFECT["C5"](traces) == pytest.approx(0.0)


def test_a_seed_whose_small_alpha_never_generalises_cannot_say():
    assert EFFECT["C7d"](over(module.STUDENT_ARMS, 10, 5, 1000)) == 2.0
    assert EFFECT["C7d"](over(module.STUDENT_ARMS, 10, 5, 5)) == 2.0
    assert np.isnan(EFFECT["C7d"](over(module.STUDENT_ARMS, 5, 5, 10)))


def test_budgets():
    assert {c.id for c in CLAIMS if c.budget == "full"} == {"C2b", "C7c"}
    quick, thorough = study.configs("quick"), study.configs("thorough")
    assert {"figure-1", "infinite-width", "student-1"} & set(quick) == set()
    assert all(thorough[arm] == config for arm, config in quick.items())
    assert len(thorough) == 31 and study.configs("full") == ARMS
    for ratio, arm in module.SAMPLE_ARMS.items():  # the small scale keeps the ratio of the arm
        assert quick[arm].samples == ratio * quick[arm].dim


@pytest.mark.parametrize("arm", ["transformer-1", "student-1"])
def test_networks_outside_smoke_turn_too(arm):
    config = replace(ARMS[arm], **study.budget("smoke").settings)
    found = unfold(study.process(config), seeds=1, steps=20, every=20, progress=False)
    loss = module.train(found).values[0]
    assert (found.diverged_at == -1).all()
    assert loss[-1] < loss[0]
