"""What is observed, and the effects on curves made by hand."""

import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.data import Dataset
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.grokking import local_complexity_terms
from latebloom.studies.grokking import grokking_local_complexity as this
from latebloom.studies.grokking.grokking_local_complexity import study

STEPS = np.array([0, 1, 10, 100, 1000, 10_000])
UP_AND_DOWN = np.array([5.0, 2, 2, 10, 10, 4])
EFFECT = {claim.id: claim.effect for claim in study.claims}
NULL = {claim.id: claim.null for claim in study.claims}


@pytest.fixture(autouse=True)
def without_smoothing(monkeypatch):
    """Hand-made curves have a few points, which the filter would smear."""
    plain = local_complexity_terms.find_phases
    monkeypatch.setattr(
        local_complexity_terms, "find_phases", lambda curve: plain(curve, smoothing=0)
    )


def trace(train=UP_AND_DOWN, test=None, boundary=None, random=None, half_width=0.5, **more):
    """Two equal seeds; the layers share the curve 1 : 3; a second radius holds nonsense."""
    sets = [train, *(train if one is None else one for one in (test, random, boundary))]
    total = np.stack([np.asarray(values, float) for values in sets], axis=1)
    counts = total[None, :, :, None, None] * np.array([0.25, 0.75])
    counts = np.concatenate([np.full_like(counts, 99.0), counts], axis=3).repeat(2, axis=0)
    dims = ("seed", "step", "points", "radius", "layer")
    values = {
        "local_complexity": (dims, counts),
        "local_complexity_interval": (dims[:-1], np.full(counts.shape[:-1], half_width)),
    }
    for name, rows in more.items():
        rows = np.asarray(rows, float)[None].repeat(2, axis=0)
        values[name] = (("seed", "step", "epsilon")[: rows.ndim], rows)
    coords = {"seed": [0, 1], "step": STEPS, "points": list(this.POINT_SETS),
              "radius": [0.05, 0.5], "epsilon": [0.05, 0.1, 0.2]}  # fmt: skip
    return xr.Dataset(values, coords)


def robust(low, high):
    return np.stack([np.ones(6), low, high], axis=1)


def test_c1_is_the_weaker_phase_over_its_threshold():
    """Train: ascent 8, descent 6, threshold max(0.05 * 8, 3 * 0.5); test: descent 3 only."""
    test = np.array([5.0, 2, 2, 10, 10, 7])
    np.testing.assert_allclose(EFFECT["C1"]({"relu": trace()}), 4.0)
    np.testing.assert_allclose(EFFECT["C1"]({"relu": trace(test=test)}), 2.0)
    wide = trace(half_width=0.0)
    np.testing.assert_allclose(EFFECT["C1"]({"relu": wide}), 6 / 0.4)
    np.testing.assert_allclose(NULL["C1"]({"still": trace(np.ones(6))}), 0.0)


def test_a_diverged_seed_cannot_say():
    broken = trace(weight_norm=np.arange(1, 7))
    broken.local_complexity[1, 3:] = np.nan
    for id in ("C1", "C3", "C5"):
        assert np.isnan(EFFECT[id]({"relu": broken})).tolist() == [False, True]


def test_c2_compares_times_to_ninety_percent():
    """Clean at step 10; attacks of 0.1 and 0.2 at steps 1000 and 10,000; 0.05 is left out."""
    clean = [0.1, 0.5, 0.9, 0.9, 0.9, 0.9]
    attacked = robust([0, 0, 0, 0.1, 0.5, 0.5], [0, 0, 0, 0.1, 0.1, 0.5])
    made = trace(test_accuracy=clean, robust_accuracy=attacked)
    np.testing.assert_allclose(EFFECT["C2a"]({"relu": made}), 2.5)


def test_c2_ranks_only_after_clean_accuracy():
    clean = [0.1, 0.1, 0.1, 0.9, 0.9, 0.9]
    attacked = robust([9, 9, 9, 0.1, 0.2, 0.4], [9, 9, 9, 0.1, 0.2, 0.4])
    fall, rise = np.array([0.0, 0, 0, 9, 8, 7]), np.arange(6.0)
    made = trace(fall, random=rise, test_accuracy=clean, robust_accuracy=attacked)
    np.testing.assert_allclose(EFFECT["C2b"]({"relu": made}), -1.0)
    np.testing.assert_allclose(NULL["C2b"]({"relu": made}), 1.0)


def test_c2_stronger_attack():
    made = trace(robust_accuracy=robust(np.full(6, 0.4), np.full(6, 0.2)),
                 strong_robust_accuracy=robust(np.full(6, 0.3), np.full(6, 0.2)))  # fmt: skip
    np.testing.assert_allclose(EFFECT["C2c"]({"relu": made}), 0.05)


def test_c3_compares_the_end_with_the_end_of_the_ascent():
    made = trace(boundary=np.array([5.0, 2, 2, 15, 15, 12]), random=np.full(6, 3.0))
    np.testing.assert_allclose(EFFECT["C3"]({"relu": made}), (12 / 4) / (15 / 10))
    np.testing.assert_allclose(NULL["C3"]({"relu": made}), (3 / 4) / (3 / 10))


def test_c4_compares_peaks_over_common_steps():
    late = trace(np.array([5.0, 2, 2, 3, 10, 4]))
    rising = trace(np.array([5.0, 2, 3, 4, 5, 6])).isel(step=slice(0, 5))
    for narrow in (late, rising):
        np.testing.assert_allclose(EFFECT["C4-width"]({"relu": trace(), "narrow": narrow}), 1.0)
    np.testing.assert_allclose(EFFECT["C4-depth"]({"relu": late, "deep": trace()}), 1.0)
    flat = trace(np.array([5.0, 4, 5, 4, 4, 4]))
    effect = EFFECT["C4-norm"]({"relu": trace(), "batch-norm": flat})
    np.testing.assert_allclose(effect, 1 / 6)


def test_c5_needs_the_phases():
    norm = [1, 1, 1, 4, 4, 4]
    np.testing.assert_allclose(EFFECT["C5"]({"relu": trace(weight_norm=norm)}), 0.25)
    flat = trace(np.ones(6), weight_norm=norm)
    assert np.isnan(EFFECT["C5"]({"relu": flat})).all()


def test_control():
    np.testing.assert_allclose(EFFECT["C0"]({"still": trace()}), 0.75 * 5)
    np.testing.assert_allclose(EFFECT["C0"]({"still": trace(np.ones(6))}), 0.0)


def test_budgets():
    assert set(study.configs("quick")) == {"relu", "still"}
    thorough = study.configs("thorough")
    assert {arm: c.width for arm, c in thorough.items() if c.width != 100} == {"narrow": 50}
    assert {c.steps for c in thorough.values()} == {1000, 15_000, 40_000}
    assert {c.id for c in study.claims if c.budget == "full"} == {"C4-wider", "C4-data"}


def test_the_pool_is_drawn_apart():
    process = this.make_process(this.Config(pool=4, points=4, directions=4))
    data = process.data(jax.random.key(0))
    assert data.x_train.shape == (1000, 49) and data.x_test.shape == (2000, 49)
    both = np.concatenate([data.x_train, data.x_test])
    assert len(np.unique(both, axis=0)) == 3000 and 0 <= both.min() and both.max() <= 1


@pytest.mark.parametrize("train, test, points", [(30, 40, 30), (60, 20, 20), (200, 100, 50)])
def test_sets_are_no_larger_than_the_data(train, test, points):
    process = this.make_process(
        this.Config(pool=4, width=16, train_size=train, test_size=test, points=50, directions=4,
                    frames=1, batch_size=10)
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(1))
    # Without biases and with pixels centred, a network that has learned nothing tells some apart.
    model = jax.tree.map(lambda w: w if w.ndim == 2 else 0 * w, process.model(keys[0]))
    data = process.data(keys[1])
    data = Dataset(data.x_train - data.x_train.mean(0), data.y_train, data.x_test, data.y_test)
    counts = process.counts(model, data)
    assert counts.shape[:3] == (len(this.POINT_SETS), len(process.radii), points)
    boundary = counts[this.POINT_SETS.index("boundary")]
    assert np.isfinite(boundary).any() and np.isnan(boundary).any()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run(study, "smoke", store=Store(tmp_path_factory.mktemp("store")))


def test_smoke(smoke):
    verdicts = {verdict.claim: verdict.verdict for verdict in smoke.verdicts}
    assert verdicts["C0"] == "holds"
    assert verdicts["C1"] == "out of reach"  # forty steps do not fit the training data
    relu = smoke.traces["relu"]
    total = relu.local_complexity.sel(points=["train", "test", "random"]).values
    assert (total >= 0).all() and (total <= 16).all() and (total > 0).any()
    assert (relu.robust_accuracy <= relu.test_accuracy + 0.2).all()
    strong = relu.strong_robust_accuracy
    assert strong.isel(step=slice(None, -1)).isnull().all()
    assert strong.isel(step=-1).notnull().all()
    np.testing.assert_array_equal(smoke.traces["still"].weight_norm.std("step"), 0)


def test_recorded_slice_is_the_network(smoke):
    """The anchors are training points: the sliced network must tell their classes apart alike."""
    trace = smoke.traces["relu"].isel(seed=0)
    regions, anchors = this.recorded_slice(trace, -1)
    assert regions.areas.sum() == pytest.approx((1.5 * np.ptp(anchors, axis=0).max()) ** 2)
    distances = np.linalg.norm(anchors[:, None] - anchors[None], axis=-1)
    assert (distances[np.triu_indices(3, 1)] > 0.1).all()
