"""Effects on traces made by hand, and the settings that a trace goes through."""

import numpy as np
import xarray as xr

from latebloom.core.unfold import unfold
from latebloom.studies.bandits import sparse_misspecified_bandits as this
from latebloom.studies.bandits.sparse_misspecified_bandits import ARMS, CLAIMS, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def test_a_trace_goes_through_the_settings():
    config = study.configs("smoke")["all-actions"]
    trace = unfold(this.make_process(config), seeds=2, at=this.schedule(config), progress=False)
    assert (trace.gap == 0).all() and (trace.queries == 100).all()
    settings = np.stack([trace.d, trace.s, trace.setting_epsilon], axis=-1)
    np.testing.assert_array_equal(settings[0], [tuple(setting)[1:] for setting in config.settings])


def fake(gap, d=(6, 10, 16, 24), queries=0.0):
    dims = ("seed", "step")
    settings = [(s, e, x) for s, e in this.PAIRS for x in d]
    s, e, x = (np.tile(column, (2, 1)) for column in np.array(settings).T)
    return xr.Dataset(
        {"gap": (dims, gap(x)), "s": (dims, s), "setting_epsilon": (dims, e), "d": (dims, x),
         "net": (dims, x**s / e**s), "queries": (dims, np.exp(queries * s))},
        {"step": np.arange(1, len(settings) + 1)},
    )  # fmt: skip


def test_slopes_are_exponents():
    steep, flat = fake(lambda d: 0.7 * d**0.5), fake(lambda d: 0 * d)
    traces = dict.fromkeys(ARMS, flat) | {"design": steep}
    np.testing.assert_allclose(BY_ID["C0.slope"].effect(traces), 0.5)
    np.testing.assert_allclose(BY_ID["C0.slope"].null(traces), 0, atol=1e-12)
    np.testing.assert_allclose(BY_ID["C1.cost-d"].effect(traces), 0, atol=1e-12)
    one_d = {"net-sizes": fake(lambda d: d, d=(6,))}
    np.testing.assert_allclose(BY_ID["C1.cost-epsilon"].effect(one_d), 0, atol=1e-12)
    grow = {arm: fake(lambda d: d, queries=i + 0.5) for i, arm in enumerate(this.NEEDLE_ARMS)}
    np.testing.assert_allclose(BY_ID["C2.slope"].effect(grow), 0.5)


def test_violations_and_the_largest_loss_are_taken_a_seed():
    bad, good = fake(lambda d: np.where(d > 20, 7.0, 4.0)), fake(lambda d: 0 * d + 3)
    traces = dict.fromkeys(ARMS, good) | {"design": bad}
    for claim, effect, null in (
        ("C1.violations", 0, 0.25), ("C1.noisy", 0, 0.25), ("C1.guarantee", 3, 7),
        ("C3.general", 3, 4),
    ):  # fmt: skip
        np.testing.assert_allclose(BY_ID[claim].effect(traces), effect)
        np.testing.assert_allclose(BY_ID[claim].null(traces), null)


def test_recovery_by_dimension():
    gaussian = fake(lambda d: d / 100.0, d=(50, 200, 800))
    traces = {"l1-gaussian": gaussian, "l1-coherent": fake(lambda d: 0 * d + 3, d=(200,))}
    np.testing.assert_allclose(BY_ID["C3.growth"].effect(traces), 7.5)
    np.testing.assert_allclose(BY_ID["C3.bad"].effect(traces), 1)
    np.testing.assert_allclose(BY_ID["C3.bound"].effect(traces), 1.5)  # of 0.5, 2, 8 by 1 and by 2


def test_quick_runs_what_claims_and_their_figures_need():
    quick, thorough = study.arms_of("quick"), study.arms_of("thorough")
    assert {"design", "l1-recovery", "needle-lasso"} <= set(quick)
    assert not {"lin-ucb", "lasso", "unknown-epsilon"} & set(quick)
    assert set(thorough) == set(ARMS)
    assert all(study.configs("thorough")[arm] == ARMS[arm] for arm in ARMS)
    assert study.configs("full")["design"].actions == 2000
