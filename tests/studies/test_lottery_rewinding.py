"""What the arms are made of, and the study's effects on traces worked by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom import unfold
from latebloom.studies.compression import lottery_rewinding as module
from latebloom.studies.compression.lottery_rewinding import ARMS, CLAIMS, SWEEP, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def seen(dense, sparse, random=0.5, reinit=0.6, **distances):
    """One seed, two levels; distances of the ticket and of random masks at the last."""
    values = {
        "test_accuracy": [dense, sparse], "random_accuracy": [np.nan, random],
        "reinit_accuracy": [np.nan, reinit],
    }  # fmt: skip
    variables = {name: (("seed", "step"), [pair]) for name, pair in values.items()}
    cells = ("seed", "step", "masks")
    variables |= {n: (cells, [[[np.nan] * 2, list(pair)]]) for n, pair in distances.items()}
    coords = {"step": [1, 2], "masks": ["ticket", "random"]}
    return xr.Dataset(variables, coords, {"config": json.dumps({"steps": 400, "rewind": 0.05})})


def swept(accuracies, apart=(6, 5, 4, 3, 2, 1), travelled=(6, 5, 4, 3, 2, 1)):
    rows = zip(SWEEP, accuracies, apart, travelled, strict=True)
    return {
        arm: seen(0.9, a, pruning_distance=(d, 2 * d), order_distance=(7 - d, 8), travelled=(t, t))
        for arm, a, d, t in rows
    }


def test_accuracies_are_compared_in_points():
    traces = {"k-5": seen(0.90, 0.91), "k-0": seen(0.92, 0.88), "low-rate": seen(0.93, 0.9)}
    found = {id: BY_ID[id].effect(traces) for id in (
        "C1.fails", "C1.gain", "C1.best-dense", "C1.random", "C1.reinit")}  # fmt: skip
    wanted = (-4, 3, -2, 41, 31)
    assert list(found.values()) == [pytest.approx(points) for points in wanted]
    assert BY_ID["C1.matching"].null(traces) == pytest.approx(-40)


def test_early_gains_and_curvature():
    traces = swept([0.80, 0.85, 0.88, 0.89, 0.90, 0.85])
    assert BY_ID["C2.early"].effect(traces) == pytest.approx(9 - 0.8 * 10)
    k = np.log1p(400 * np.array(list(SWEEP.values())))
    traces = swept((80 + 5 * k - 0.7 * k**2) / 100)
    assert BY_ID["C2.concave"].effect(traces) == pytest.approx(-0.7)


def test_stabilities_against_k_and_accuracy():
    traces = swept([0.80, 0.85, 0.88, 0.89, 0.90, 0.85])
    assert BY_ID["C3.pruning"].effect(traces) == pytest.approx(-1)
    assert BY_ID["C3.order"].effect(traces) == pytest.approx(1)
    # the same distances, but most of the fall is that of the distance travelled
    traces = swept([0.8] * 6, apart=(12, 11, 10, 9, 8, 7), travelled=(6, 5, 4, 3, 2, 1))
    assert BY_ID["C3.pruning"].null(traces) == pytest.approx(-1)
    assert BY_ID["C3.pruning-relative"].effect(traces) == pytest.approx(1)
    traces = swept([0.80, 0.85, 0.88, 0.89, 0.0, 0.0])  # only k up to 10 % count
    assert BY_ID["C3.accuracy-pruning"].effect(traces) == pytest.approx(-1)
    assert BY_ID["C3.random-pruning"].effect(traces) == pytest.approx(0.5)
    assert BY_ID["C3.random-order"].effect(traces) == pytest.approx(3 / 8)


def test_arms_are_what_they_are_called():
    process = {
        arm: module.make_process(ARMS[arm]) for arm in ("k-0", "k-5", "k-100", "fine-tuning")
    }
    assert [int(p.rewind) for p in process.values()] == [0, 20, 400, 20]
    assert process["k-5"].controls_at.tolist() == [8]
    assert process["k-100"].controls_at.tolist() == [-1]
    tuned = process["fine-tuning"]
    assert bool(tuned.keep_weights) and float(tuned.retraining(jnp.int32(0))) == pytest.approx(0.01)
    assert float(tuned.training.schedule(jnp.int32(0))) == 1
    lenet = module.make_process(ARMS["lenet-k-5"])
    assert lenet.ignore == ("layers[2]",)
    assert module.schedule(ARMS["k-5"]).tolist() == list(range(1, 10))


def test_budgets():
    assert set(study.configs("quick")) == {*SWEEP, "low-rate"}
    assert study.configs("thorough") == ARMS
    full = study.configs("full")
    networks = {arm: config.network for arm, config in full.items()}
    assert networks == {a: "lenet" if a.startswith("lenet") else "resnet" for a in ARMS}
    assert full["low-rate"].rate < full["k-0"].rate


def test_distances_and_densities_of_a_small_run():
    config = study.configs("smoke")["k-5"]
    trace = unfold(study.process(config), seeds=2, at=study.schedule(config), progress=False)
    assert trace.pruning_distance.dims == ("seed", "step", "masks")
    assert trace.density.values[0].tolist() == [1.0, pytest.approx(0.8, abs=0.02)]
