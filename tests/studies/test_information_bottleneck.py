"""The study at smoke, and its checks on traces worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from latebloom import unfold
from latebloom.data import load
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.studies.information import information_bottleneck as module
from latebloom.studies.information.information_bottleneck import BY_SIZE, CLUSTERS, study

MODEL = ("seed", "step", "instance", "member")


def setting(gap, weights, given, plain=None, size=100.0, accuracy=1.0, loss=None):
    """One seed, three instances of one member."""
    gap = np.reshape(np.asarray(gap, float), (1, 1, 3, 1))
    given = np.reshape(np.asarray(given, float), (1, 1, 3, 1, 1))
    plain = given if plain is None else np.reshape(np.asarray(plain, float), given.shape)
    same = np.ones_like(gap)
    per_depth = np.full((1, 1, 1, 2), float(weights))
    variables = {
        "gap": (MODEL, gap), "train_loss": (MODEL, same if loss is None else np.reshape(loss, gap.shape)),
        "train_accuracy": (MODEL, accuracy * same), "parameters": (MODEL, size * same),
        "norm_sum": (MODEL, same), "norm_product": (MODEL, same),
        "weights_multi": (("seed", "step", "depth"), per_depth[:, :, 0]),
    }  # fmt: skip
    for how in ("mc", "jensen"):
        variables[f"information_{how}"] = ((*MODEL, "layer"), plain)
        variables[f"given_class_{how}"] = ((*MODEL, "layer"), given)
    for how in ("jensen", "published"):
        variables[f"weights_{how}"] = (("seed", "step", "member", "depth"), per_depth)
    return xr.Dataset(variables)


@pytest.fixture
def clusters():
    """The gap is the sum; weights tell between settings, codes inside them."""
    names = list(CLUSTERS)[:4]
    given = [0.0, 1.0, 2.0]
    return {
        name: setting([10 * i + g for g in given], 10 * i, given, plain=[0, 0, 0])
        for i, name in enumerate(names)
    }


def test_combined_measure_beats_its_parts(clusters):
    table = module.models(clusters, list(CLUSTERS), 0)
    assert len(table) == 12 and table.setting.nunique() == 4
    np.testing.assert_allclose(table[module.COMBINED], table.gap)
    # of 66 pairs 12 are tied in I(S; θ): tau-b = 54 / sqrt(54 * 66)
    best = 54 / np.sqrt(54 * 66)
    assert module.over_best(clusters) == pytest.approx(1 - best)
    low = module.over_best_by_settings(clusters)[0]
    assert 0 <= low <= 1 - best
    assert np.isnan(module.over_sizes(clusters)) or module.over_sizes(clusters) > 0
    assert module.within_best(clusters) == pytest.approx(0)
    assert module.partial_tau(clusters) == pytest.approx(1)


def test_models_that_did_not_learn_are_left_out(clusters):
    name = next(iter(clusters))
    clusters[name] = setting([5, 5, 5], 1e9, [1, 1, 1], accuracy=0.85)
    assert len(module.models(clusters, list(CLUSTERS), 0)) == 9


def test_conditioning_and_control():
    plain, dual = list(CLUSTERS)[:2]
    assert dual == plain.replace("dual-0", "dual-0.0005")
    traces = {
        plain: setting([1, 2, 3], 1.0, [1, 2, 3], plain=[3, 2, 1]),
        dual: setting([0.5, 1.5, 2.5], 1.0, [0, 1, 2.5], plain=[4, 3, 2]),
    }
    assert module.conditional_gain("mc", traces)[0] > 1
    assert module.control(traces) == pytest.approx(-0.5)


def test_profiles_of_layers():
    given = np.broadcast_to([3.0, 1.0, 1.5, 2.0], (1, 1, 2, 1, 4))
    weights = np.array([1.0, 2.0, 4.0, 4.0, 9.0]).reshape(1, 1, 1, 5)
    trace = xr.Dataset({
        "given_class_bins": ((*MODEL, "layer"), given),
        "weights_jensen": (("seed", "step", "member", "depth"), weights),
    })  # fmt: skip
    traces = {next(iter(module.LAYERS)): trace}
    np.testing.assert_array_equal(module.layer_slope("given_class_bins", traces), [-1])
    np.testing.assert_array_equal(module.layer_slope("weights_jensen", traces), [1])
    np.testing.assert_array_equal(module.interior(traces), [1])  # 4, 3, 5.5, 6


def test_exponent_of_the_gap():
    traces = {}
    for n in module.SIZES:
        gap = 0.3 * ((2.0 + 5.0) / n) ** 0.5
        traces[f"examples-{n}"] = setting([gap] * 3, 5.0, [2.0] * 3)
    assert module.exponent(traces) == pytest.approx(0.5)
    assert module.exponent_off(traces, weights=False) == pytest.approx(0, abs=1e-9)
    traces["examples-25"] = setting([-1] * 3, 5.0, [2.0] * 3)
    assert module.exponent(traces) == pytest.approx(0.5)


def test_budgets():
    names = ("quick", "layers", "sizes", "digits", "clothes")
    short = [arm for name in names for arm in study.budget(name).arms]
    assert {arm for claim in study.claims for arm in claim.arms} <= set(short)
    full = study.configs("full")
    grid = [c for arm, c in full.items() if arm in CLUSTERS]
    assert len(grid) * grid[0].instances * grid[0].members == 216
    assert sum(c.network == "deterministic" for c in full.values()) * 9 == 162
    assert {c.examples for arm, c in full.items() if arm in BY_SIZE} == set(module.SIZES)
    assert module.schedule(full["layers-128-decay-0-penalty-0"]).tolist() == [200]
    pictures = [c for c in full.values() if c.source != "clusters"]
    assert len(pictures) == 64 and {c.source for c in pictures} == {"mnist", "fashion-mnist"}
    assert {(c.pixels, c.train) for c in pictures} == {(28, 8000)}


def test_digits_train_on_means_over_pixels_and_are_told_apart():
    config = replace(module.DIGITS["digits-32-batch-32-decay-0-dual-0.001"], more=100, members=1)
    process = module.make_process(config)
    images = load("mnist-5k")
    corner = images.x_train[7, :2, 4:6].mean() / 255, images.x_train[7, 12:14, 14:16].mean() / 255
    np.testing.assert_allclose(
        (process.data.x[7, 2], process.data.x[7, 6 * 14 + 7]), corner, rtol=1e-6
    )
    assert process.data.x.shape == (4000, 196) and process.hyper["target"] == 3.5
    trace = unfold(process, at=module.schedule(config), progress=False)
    assert (trace.test_accuracy > 0.5).all() and (trace.information_mc <= np.log2(100) + 1e-3).all()


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    assert {v.claim for v in done.verdicts} == {c.id for c in study.claims}
    for trace in done.traces.values():
        assert (trace.diverged_at == -1).all()
        assert (trace.weights_jensen.diff("depth") > 0).all()
        assert (trace.weights_kl <= 1 + 1e-5).all()  # two instances
    plain, dual = (done.traces[name] for name in list(CLUSTERS)[:2])
    assert (plain.multiplier == 0).all() and (dual.multiplier != 0).all()
