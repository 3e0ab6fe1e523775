"""The study at smoke, its effects on traces worked by hand, and its schemes' settings."""

import numpy as np
import pytest
import xarray as xr

from latebloom.lab import judge, style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.federated.weights import theory
from latebloom.studies.federated import async_federated as module
from latebloom.studies.federated.async_federated import ARMS, CLAIMS, Config, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def losses(*seeds, name="train_loss"):
    return xr.Dataset(
        {name: (("seed", "step"), np.array(seeds, float))}, {"step": range(len(seeds[0]))}
    )


def moving(late, optimum=(0.0, 0.0), wrong=(1.0, 0.0)):
    """A model that stands at `late` in the second half and far away before."""
    model = np.array([[[9.0, 9.0]] * 2 + [late] * 3])
    constant = {n: (("seed", "step", "dim"), np.full((1, 5, 2), v)) for n, v in
                (("optimum", optimum), ("surrogate_optimum", wrong))}  # fmt: skip
    return xr.Dataset({"model": (("seed", "step", "dim"), model), **constant})


def test_where_runs_end_is_a_ratio_of_distances_and_the_worst_counts():
    near, far = moving((0.2, 0.0)), moving((0.5, 0.0))
    traces = {f"quadratic-{fix}": near for fix in module.FIXES}
    traces |= {f"quadratic-{fix}": far for fix in module.SAME_FIXES}
    assert BY_ID["C1a.fedfix"].effect(traces) == pytest.approx(0.25)
    assert BY_ID["C1a.fedfix"].null(traces) == pytest.approx(1)
    assert BY_ID["C1a.fedfix"].effect(traces | {"quadratic-fedfix-0.5": far}) == pytest.approx(1)
    assert BY_ID["C1a.identical"].effect(
        {"quadratic-async-identical": near, "quadratic-async": far}
    ) == pytest.approx(4)


def test_effects_on_losses_by_hand():
    ten = np.arange(20.0)
    traces = {
        "mnist-skewed": losses(ten), "mnist-skewed-identical": losses(ten + 3),
        "mnist-iid": losses(ten), "mnist-iid-identical": losses(ten + 1),
        "f0-fedfix-0.5": losses([1.0, 10.0]), "f0-sync-server-2": losses([1.0, 1.0]),
        "f0-sync": losses([100.0, 10.0]), "small-async": losses(ten), "small-fedfix-0.5": losses(ten + 3),
    }  # fmt: skip
    assert BY_ID["C1b.loss.mnist-skewed"].effect(traces) == pytest.approx(-3)
    assert BY_ID["C1b.skew.mnist"].effect(traces) == pytest.approx(-2)
    assert BY_ID["C2.async-fedfix"].effect(traces) == pytest.approx(-3)
    assert BY_ID["C4.control"].effect(traces) == pytest.approx(1)
    assert BY_ID["C4.control"].null(traces) == pytest.approx(2)


def test_where_the_loss_still_falls_an_end_is_out_of_reach():
    flat = [9.0] * 8 + [2.0] * 12
    falling = [9.0] * 8 + [2.0] * 4 + [1.0] * 8
    traces = {"f80-sync": losses(flat, flat), "f80-async": losses(np.add(flat, 1), np.add(flat, 1))}
    assert judge(BY_ID["C3.f80"], traces).verdict == "holds"
    found = judge(BY_ID["C3.f80"], traces | {"f80-sync": losses(falling, falling)})
    assert found.verdict == "out of reach" and "still falls" in found.reason
    np.testing.assert_allclose(module.still_falls(losses(falling)), [0.5])


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


def test_thorough_runs_every_claim_but_those_of_many_clients():
    judged = {claim.id for claim in study.claims_of("thorough")}
    assert set(BY_ID) - judged == {"M50.f0", "M50.f80", "M50.fedfix"}
    ran = set(study.configs("thorough"))
    assert all(set(figure.arms) <= ran for figure in study.figures)
    assert set(study.configs("full")) == set(ARMS)


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    assert set(done.traces) == set(study.budget("smoke").arms)
    for arm, found in done.traces.items():
        assert np.isfinite(found.train_loss).all(), arm
    by_id = {v.claim: v for v in done.verdicts}
    assert by_id["C4.control"].verdict == "holds"
    for figure in study.figures:
        assert len(style.png(figure.draw(done.traces))) > 10_000
