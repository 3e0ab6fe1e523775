"""What the arms are run with, and the study's effects on traces worked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from latebloom import unfold
from latebloom.data import load
from latebloom.methods.information.model_tables import COMBINED, GATE, model_table
from latebloom.studies.information import information_bottleneck as module
from latebloom.studies.information.information_bottleneck import BY_SIZE, CLAIMS, CLUSTERS, study

BY_ID = {claim.id: claim for claim in CLAIMS}
MODEL = ("seed", "step", "instance", "member")


def setting(gap, weights, given, plain=None, size=100.0, accuracy=1.0, loss=None, examples=None):
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
    return xr.Dataset(variables, attrs={"config": json.dumps({"examples": examples})})


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
    table = model_table(module.ran("clusters", clusters), 0)
    assert len(table) == 12 and table.setting.nunique() == 4
    np.testing.assert_allclose(table[COMBINED], table.gap)
    # of 66 pairs 12 are tied in I(S; θ): tau-b = 54 / sqrt(54 * 66)
    best = 54 / np.sqrt(54 * 66)
    assert BY_ID["C1"].effect(clusters) == pytest.approx(1 - best)
    low = BY_ID["C1.settings"].effect(clusters)[0]
    assert 0 <= low <= 1 - best
    assert np.isnan(BY_ID["C1.sizes"].effect(clusters))  # all sizes and norms are equal here
    assert BY_ID["C1.within"].effect(clusters) == pytest.approx(0)
    assert BY_ID["C1.partial"].effect(clusters) == pytest.approx(1)
    assert np.isnan(BY_ID["C1.partial"].null(clusters))


def test_models_that_did_not_learn_are_left_out(clusters):
    name = next(iter(clusters))
    clusters[name] = setting([5, 5, 5], 1e9, [1, 1, 1], accuracy=0.85)
    assert len(model_table(module.ran("clusters", clusters), 0)) == 9


def test_conditioning_and_control():
    plain, dual = list(CLUSTERS)[:2]
    assert dual == plain.replace("dual-0", "dual-0.0005")
    traces = {
        plain: setting([1, 2, 3], 1.0, [1, 2, 3], plain=[3, 2, 1]),
        dual: setting([0.5, 1.5, 2.5], 1.0, [0, 1, 2.5], plain=[4, 3, 2]),
    }
    assert BY_ID["C3.mc"].effect(traces)[0] > 1
    assert BY_ID["C4"].effect(traces) == pytest.approx(-0.5)


def test_profiles_of_layers():
    given = np.broadcast_to([3.0, 1.0, 1.5, 2.0], (1, 1, 2, 1, 4))
    weights = np.array([1.0, 2.0, 4.0, 4.0, 9.0]).reshape(1, 1, 1, 5)
    trace = xr.Dataset({
        "given_class_bins": ((*MODEL, "layer"), given),
        "weights_jensen": (("seed", "step", "member", "depth"), weights),
    })  # fmt: skip
    traces = {next(iter(module.LAYERS)): trace}
    np.testing.assert_array_equal(BY_ID["C2.bins"].effect(traces), [-1])
    np.testing.assert_array_equal(BY_ID["C2.weights"].effect(traces), [1])
    np.testing.assert_array_equal(module.interior(traces), [1])  # 4, 3, 5.5, 6


def test_exponent_of_the_gap():
    traces = {}
    for n in module.SIZES:
        gap = 0.3 * ((2.0 + 5.0) / n) ** 0.5
        traces[f"examples-{n}"] = setting([gap] * 3, 5.0, [2.0] * 3, examples=n)
    off = BY_ID["C5"]
    assert off.effect(traces) == pytest.approx(0, abs=1e-9)
    assert BY_ID["C5.encoder"].effect(traces) == pytest.approx(0, abs=1e-9)
    # with as much information at any size, n alone says as much
    assert off.null(traces) == pytest.approx(0, abs=1e-9)
    traces["examples-25"] = setting([-1] * 3, 5.0, [2.0] * 3, examples=25)
    assert off.effect(traces) == pytest.approx(0, abs=1e-9)
    for n in (50, 100):
        traces[f"examples-{n}"] = setting([-1] * 3, 5.0, [2.0] * 3, examples=n)
    assert np.isnan(off.effect(traces))


def test_budgets():
    quick, thorough, full = (study.configs(name) for name in ("quick", "thorough", "full"))
    assert {arm.split("-")[0] for arm in quick} == {"clusters", "halves"} and len(quick) == 18
    assert len(thorough) == 18 + 6 + 5 + 2 * 16 and all(thorough[a] == c for a, c in quick.items())
    assert {c.members for c in thorough.values()} == {2}
    # what claims name is the narrow part of a grid; they read all of it where it was run
    whole = {**dict.fromkeys(CLUSTERS, setting([1, 2, 3], 1.0, [1, 2, 3]))}
    assert (
        len(model_table(module.ran("clusters", whole), 0))
        == 3 * len(CLUSTERS)
        > 3 * len(BY_ID["C1"].arms)
    )
    grid = [c for arm, c in full.items() if arm in CLUSTERS]
    assert len(grid) * grid[0].instances * grid[0].members == 216
    assert sum(c.network == "deterministic" for c in full.values()) * 9 == 162
    assert {c.examples for arm, c in full.items() if arm in BY_SIZE} == set(module.SIZES)
    assert module.schedule(full["layers-128-decay-0-penalty-0"]).tolist() == [200]
    pictures = [c for c in full.values() if c.source != "clusters"]
    assert len(pictures) == 64 and {c.source for c in pictures} == {"mnist", "fashion-mnist"}
    assert {(c.pixels, c.train) for c in pictures} == {(28, 8000)}


def test_digits_train_on_means_over_pixels_and_are_told_apart():
    config = module.DIGITS["digits-32-batch-32-decay-0-dual-0.001"]
    config = replace(config, more=100, members=1, epochs=8, swa_start=5)
    process = module.make_process(config)
    images = load("mnist-5k")
    corner = images.x_train[7, :2, 4:6].mean() / 255, images.x_train[7, 12:14, 14:16].mean() / 255
    np.testing.assert_allclose(
        (process.data.x[7, 2], process.data.x[7, 6 * 14 + 7]), corner, rtol=1e-6
    )
    assert process.data.x.shape == (4000, 196) and process.hyper["target"] == 3.5
    trace = unfold(process, at=module.schedule(config), progress=False)
    assert (trace.test_accuracy > 0.5).all() and (trace.information_mc <= np.log2(100) + 1e-3).all()


def test_networks_of_a_small_run_pass_the_gate_and_share_weights_information():
    names = list(CLUSTERS)[:2]
    plain, dual = (
        unfold(study.process(c), seeds=2, at=study.schedule(c), progress=False)
        for c in study.configs("smoke", tuple(names)).values()
    )
    for trace in (plain, dual):
        assert (trace.train_accuracy > GATE).any()
        assert (trace.weights_jensen.diff("depth") > 0).all()
        assert (trace.weights_kl <= 1 + 1e-5).all()  # two instances
    assert (plain.multiplier == 0).all() and (dual.multiplier != 0).all()
