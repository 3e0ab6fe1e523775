"""The study at smoke, and its checks on traces worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from latebloom import unfold
from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.grokking import grokking_lazy_rich as module
from latebloom.studies.grokking.grokking_lazy_rich import ARMS, CLAIMS, study

STEPS = np.array([0, 1, 10, 100, 1000])


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


def test_times_and_delay():
    assert module.crossing(GROKS, "train") == 10
    assert module.crossing(GROKS, "test") == 1000
    assert module.delay(GROKS) == pytest.approx(2.0)
    assert module.crossing(slow(5), "test") == 1000  # never: the end of the run
    assert np.isnan(module.delay(trace([1] * 5, [1] * 5))).all()


def test_effects_on_the_base_arm():
    traces = {"base": GROKS, "base-linearised": GROKS}
    assert module.fall_after_fit(traces) == pytest.approx(8.0)
    assert module.distance_from_plateau(traces) == pytest.approx(1.6 / 1.5 - 1)
    assert module.final_loss(traces) == pytest.approx(0.1)
    assert module.base_delay(traces) == pytest.approx(2.0)
    assert module.norm_during_drop(traces) == pytest.approx(0.5)
    assert module.twin_at_plateau(traces) == pytest.approx(0.2 / 1.5)


def test_order_of_the_sweeps():
    up = dict(zip(module.ALPHA_ARMS, map(slow, (1, 10, 100, 1000)), strict=True))
    assert module.order_of_alpha(up) == pytest.approx(1.0)
    # A run that never generalises ties with one that does so at the very end.
    tied = dict(zip(module.ALPHA_ARMS, map(slow, (1, 10, 1000, 5)), strict=True))
    assert module.order_of_alpha(tied) == pytest.approx(
        stats.spearmanr([1, 2, 3, 4], [1, 2, 3.5, 3.5]).statistic
    )
    same = dict.fromkeys(module.ALPHA_ARMS, slow(10))
    assert np.isnan(module.order_of_alpha(same)).all()
    down = dict(zip(module.EPSILON_ARMS, map(slow, (1000, 100, 100, 10, 1)), strict=True))
    assert module.order_of_epsilon(down) < -0.97
    assert module.order_of_delay_in_epsilon(down) < -0.97
    pair = {"alpha-0.03125": slow(10), "alpha-1": slow(100)}
    assert module.delay_of_small_alpha(pair) == pytest.approx(-1.0)


def test_drop_and_alignment_are_timed_between_observations():
    rises_late = trace([1] * 5, [1, 1, 0.9, 0.2, 0.19], ntk_alignment=[0, 0, 0.1, 0.2, 0.6])
    assert module.steepest_rise(rises_late.ntk_alignment) == pytest.approx(np.sqrt(100 * 1000))
    assert module.steepest_rise(-rises_late.test_loss) == pytest.approx(np.sqrt(10 * 100))
    early = trace([1] * 5, [1, 1, 0.2, 0.19, 0.18], ntk_alignment=[0, 0, 0.1, 0.6, 0.7])
    arms = (early, early, rises_late, rises_late, rises_late)
    traces = dict(zip(module.EPSILON_ARMS, arms, strict=True))
    assert module.alignment_with_drop_of_loss(traces) == pytest.approx(1.0)
    assert module.alignment_with_drop_of_log_loss(traces) == pytest.approx(1.0)
    traces[module.EPSILON_ARMS[0]] = rises_late
    assert module.alignment_with_drop_of_loss(traces) == pytest.approx(1.0)
    same = dict.fromkeys(module.EPSILON_ARMS, early)
    assert np.isnan(module.alignment_with_drop_of_loss(same)).all()


def test_the_window_of_training_sizes_counts_only_runs_that_generalise():
    sizes = (5, 1000, 100, 10, 10, 10)  # 5: never
    traces = dict(zip(module.SAMPLE_ARMS, map(slow, sizes), strict=True))
    np.testing.assert_allclose(module.delay_by_samples(traces)[:, 0], [0, 3, 2, 1, 1, 1])
    assert module.interior_delay(traces) == pytest.approx(2.0)
    assert module.loss_of_few_samples(traces) == pytest.approx(0.9)
    traces[module.SAMPLE_ARMS[0]] = slow(1000)
    assert module.interior_delay(traces) == pytest.approx(0.0)


def test_a_seed_whose_small_alpha_never_generalises_cannot_say():
    ends = (module.STUDENT_ARMS[0], module.STUDENT_ARMS[-1])
    assert module.student_delays(dict(zip(ends, (slow(10), slow(1000)), strict=True))) == 2.0
    assert module.student_delays(dict(zip(ends, (slow(10), slow(5)), strict=True))) == 2.0
    assert np.isnan(module.student_delays(dict(zip(ends, (slow(5), slow(10)), strict=True))))


def test_short_budgets_run_every_claim_but_those_of_the_full_budget():
    short = [
        set(study.configs(b)) for b in ("quick", "alignment", "samples", "networks")
    ]
    missing = {c.id for c in CLAIMS if not any(set(c.arms) <= arms for arms in short)}
    assert missing == {"C2b", "C7c"}
    assert set(study.configs("full")) == set(ARMS)


@pytest.mark.parametrize("arm", ["transformer-1", "student-1"])
def test_networks_outside_smoke_turn_too(arm):
    config = replace(ARMS[arm], **study.budget("smoke").settings)
    found = unfold(study.process(config), seeds=1, steps=20, every=20, progress=False)
    assert (found.diverged_at == -1).all()
    assert module.relative_loss(found, "train")[0, -1] < module.relative_loss(found, "train")[0, 0]


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    assert {v.claim for v in done.verdicts} == {c.id for c in CLAIMS}
    for arm, found in done.traces.items():
        assert (found.diverged_at == -1).all(), arm
        assert np.isfinite(found.train_loss).all(), arm
    drawn = [f for f in study.figures if all(arm in done.traces for arm in f.arms)]
    assert {f.name for f in drawn} >= {"transition"}
    for figure in drawn:
        assert len(style.png(figure.draw(done.traces))) > 10_000
