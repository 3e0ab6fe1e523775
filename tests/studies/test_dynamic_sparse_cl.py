"""What the arms are made of, and the study's effects on traces worked by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr
from scipy import stats

from latebloom.core.dataset import Dataset
from latebloom.methods.forgetting.interaction import gain_of_choice, interactions, permutation_p
from latebloom.methods.forgetting.subnetwork_rivals import PackNet, SeparateNetworks
from latebloom.methods.forgetting.topology import INITS
from latebloom.studies.forgetting import dynamic_sparse_cl as module
from latebloom.studies.forgetting.dynamic_sparse_cl import ARMS, CLAIMS, GRID, GROWTHS, TUNED, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def ended(*finals, first=None):
    """Seeds of two tasks: their final accuracies, all of them equal, and what the first had."""
    values = np.array([[[first or f, np.nan], [f, f]] for f in finals]) / 100
    return xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values),
         "learning": (("seed", "step"), np.tile([0, 1], (len(finals), 1)))},
        {"step": [3, 6], "seed": np.arange(len(finals)), "task": [0, 1]},
    )  # fmt: skip


def grid(value):
    """Traces of all arms of the grid, of two seeds, from value(percent, init, growth)."""
    return {arm: ended(*(value(*arm.split("/")) + s for s in (0, 1))) for arm in GRID}


def test_gains_of_erk_by_hand():
    gains = {("20", "erk"): 4, ("10", "erk"): -3, ("3", "erk"): 1}
    steps = dict(zip(GROWTHS, (0, 1, 2, 5), strict=True))

    def value(p, i, g):
        return 50 + gains.get((p, i), 0) + steps[g] * (2 if i == "erk" else 1)

    traces = grid(value)
    wanted = {
        "C1.erk": 4 + 2, "C2.uniform": 3 - 2, "C2.robust": 10 - 5, "C2.interaction": 7,
        "C2.extreme": 4, "C2.interaction-97": 3,
    }  # fmt: skip
    for name, number in wanted.items():
        np.testing.assert_allclose(BY_ID[name].effect(traces), number, err_msg=name)


def f_test(table):
    """p of the interaction in a two-way analysis of variance with repeated measures."""
    rest, (n, c, g) = interactions(table), table.shape
    mean, degrees = rest.mean(axis=0), (c - 1) * (g - 1)
    ratio = n * np.square(mean).sum() / (np.square(rest - mean).sum() / (n - 1))
    return stats.f.sf(ratio, degrees, (n - 1) * degrees)


def test_p_of_the_interaction_is_near_that_of_an_analysis_of_variance():
    rng = np.random.default_rng(0)
    main = 3 * np.arange(4) + 10 * np.arange(6)[:, None]
    tables = rng.normal(size=(20, 5, 6, 4)) + main
    found = np.array([[f_test(t), permutation_p(t, draws=199)] for t in tables])
    assert np.abs(found[:, 0] - found[:, 1]).max() < 0.15
    crossed = np.where(np.arange(6)[:, None] < 3, np.arange(4), -np.arange(4.0))
    assert permutation_p(tables[0] + 2 * crossed) == 1 / 1000
    np.testing.assert_allclose(interactions(main[None] + 0.0), 0, atol=1e-9)
    assert (gain_of_choice(0.1 * tables[0] + 2 * crossed) > 0).all()
    assert abs(gain_of_choice(0.01 * tables[0] + 20 * np.arange(4)).mean()) < 1e-9
    assert np.isnan(permutation_p(np.full((3, 2, 2), np.nan)))
    with pytest.raises(ValueError, match="an interaction needs two seeds"):
        permutation_p(np.zeros((1, 2, 3)))


def test_forgetting_is_none_or_some():
    traces = {"20/uniform/gradient": ended(60, 70), "not-frozen": ended(60, 70, first=90)}
    claim = BY_ID["Z.exact"]
    assert (claim.effect(traces) == 0).all()
    np.testing.assert_allclose(claim.null(traces), [30, 20])


def test_arms_that_differ_in_numbers_alone_share_a_program(monkeypatch):
    x, y = np.zeros((300, 196), np.float32), (np.arange(300) % 100).astype(np.int32)
    monkeypatch.setattr(module, "_first_classes", lambda *_: Dataset(x, y, x, y))
    static = {
        arm: str(eqx.filter(module.make_process(replace(ARMS[arm], exam=30)).topology, eqx.is_array, inverse=True))
        for arm in (*GRID[:3], "20/erk/static", "10/adaptive/random", "3/uniform/bandit", "not-frozen")
    }  # fmt: skip
    assert len(set(static.values())) == 1


def test_arms_are_what_they_say():
    of = {arm: module.make_process(ARMS[arm]) for arm in ("20/erk/momentum", "packnet", "separate-3", "own-head/20/erk")}  # fmt: skip
    topology = of["20/erk/momentum"].topology
    assert float(topology.density) == pytest.approx(0.2)
    assert float(topology.erk_above) == INITS["erk"] and int(topology.growth) == 3
    assert isinstance(of["packnet"], PackNet) and isinstance(of["separate-3"], SeparateNetworks)
    assert of["own-head/20/erk"].sparse_layers == ("layers[0]", "layers[1]")
    assert len(of["20/erk/momentum"].turns()) == 10 * 20 + 9
    assert ARMS["20/erk/random"].rate == TUNED["20"]["rate"]


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    arms = study.arms_of(budget)
    assert set(GRID) <= set(arms) and ("packnet" in arms) == (budget != "quick")
    if budget != "quick":
        assert set(arms) == set(ARMS)


def test_the_papers_scale_can_be_traced(monkeypatch):
    x, y = np.zeros((3000, 28, 28, 1), np.float32), np.arange(3000, dtype=np.int32)
    monkeypatch.setattr(module, "_first_classes", lambda *a: Dataset(x, y % a[-1], x, y % a[-1]))
    for arm in ("20/erk/gradient", "packnet", "conv/10/erk"):
        config = replace(study.configs("full")[arm], exam=10)
        process = module.make_process(config)
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        assert state.stream.rows.shape[1] == 64
        eqx.filter_eval_shape(process.step, state)
