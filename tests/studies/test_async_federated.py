"""The study at smoke, its effects on traces worked by hand, and its schemes' settings."""

import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.federated.weights import theory
from latebloom.studies.federated import async_federated as module
from latebloom.studies.federated.async_federated import ARMS, CLAIMS, Config, study


def losses(*seeds, name="train_loss"):
    return xr.Dataset({name: (("seed", "step"), np.array(seeds, float))})


def moving(late, optimum=(0.0, 0.0), wrong=(1.0, 0.0)):
    """A model that stands at `late` in the second half and far away before."""
    model = np.array([[[9.0, 9.0]] * 2 + [late] * 3])
    constant = {n: (("seed", "step", "dim"), np.full((1, 5, 2), v)) for n, v in
                (("optimum", optimum), ("surrogate_optimum", wrong))}  # fmt: skip
    return xr.Dataset({"model": (("seed", "step", "dim"), model), **constant})


def test_where_a_run_ends_is_a_ratio_of_distances():
    traces = {"a": moving((0.2, 0.0)), "b": moving((0.5, 0.0))}
    assert module.ends_at_the_optimum(["a"], traces) == pytest.approx(0.25)
    assert module.ends_at_the_surrogate(["a"], traces) == pytest.approx(4)
    assert module.ends_at_the_optimum(["a", "b"], traces) == pytest.approx(1)  # the worst counts


def test_effects_on_losses_by_hand():
    ten = np.arange(20.0)
    traces = {
        "mnist-skewed": losses(ten), "mnist-skewed-identical": losses(ten + 3),
        "mnist-iid": losses(ten), "mnist-iid-identical": losses(ten + 1),
        "f0-fedfix-0.5": losses([1.0, 10.0]), "f0-sync-server-2": losses([1.0, 1.0]),
    }  # fmt: skip
    assert module.tail(traces["mnist-iid"], "train_loss") == pytest.approx(18.5)
    skewed = module.difference("mnist-skewed", "mnist-skewed-identical", "train_loss", traces)
    assert skewed == pytest.approx(-3)
    assert module.more_with_skew("mnist", traces) == pytest.approx(-2)
    assert module.over_time("mnist-iid", "mnist-skewed-identical", traces) == pytest.approx(-3)
    assert module.same_curve(traces) == pytest.approx(1)


def test_identical_weights_are_those_of_the_schemes_in_common_use():
    for scheme, each in (("async", 1.0), ("fedbuff", 0.2), ("fedfix", 0.1), ("sync", 0.1)):
        np.testing.assert_allclose(module.identical_weights(Config(scheme=scheme)), each)


def test_processes_take_the_weights_of_the_theory():
    for scheme, options in (("async", {}), ("fedfix", {"window": 0.5}), ("sync", {})):
        config = Config(scheme=scheme, horizon=400.0)
        process = module.make_process(config)
        found = theory(scheme, module.clock.scenario(10, 80), **options)
        used = np.zeros(10)
        visits = process.plan.ticks[-1]
        used[process.plan.client[:visits]] = process.plan.weight[:visits]
        np.testing.assert_allclose(used, found.weights, rtol=5e-3)
    surrogate = module.make_process(Config(weights="identical", horizon=400.0)).by.surrogate
    rates = 1 / module.clock.scenario(10, 80)
    np.testing.assert_allclose(surrogate, rates / rates.sum(), rtol=5e-3)


def test_quick_and_networks_run_every_claim_but_those_of_many_clients():
    budgets = [set(study.configs(name)) for name in ("quick", "networks")]
    missing = {c.id for c in CLAIMS if not any(set(c.arms) <= arms for arms in budgets)}
    assert missing == {"M50.f0", "M50.f80", "M50.fedfix"}
    assert all(any(set(f.arms) <= arms for arms in budgets) for f in study.figures)
    assert set(study.configs("full")) == set(ARMS)


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    assert set(done.traces) == set(study.budget("smoke").arms)
    for arm, found in done.traces.items():
        assert np.isfinite(found.train_loss).all(), arm
    by_id = {v.claim: v for v in done.verdicts}
    assert by_id["C4.control"].verdict == "holds"
    assert by_id["C1b.loss.letter-skewed"].verdict == "not run"
    drawn = [f for f in study.figures if all(arm in done.traces for arm in f.arms)]
    assert {f.name for f in drawn} == {f.name for f in study.figures}
    for figure in drawn:
        assert len(style.png(figure.draw(done.traces))) > 10_000
