"""Effects on traces worked by hand, and what the arms are made of."""

import numpy as np
import pytest
import xarray as xr

from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.bandits.payments.chain import Chain
from latebloom.methods.bandits.payments.host import HostChain
from latebloom.studies.bandits import payment_bandits as module
from latebloom.studies.bandits.payment_bandits import ARMS, CLAIMS, SQUARE, SQUARES, study

BY_ID = {claim.id: claim for claim in CLAIMS}


def trace(gain, **more):
    """One seed; `gain` is that of the policy and of its model."""
    values = {"gain": gain, "greedy_gain": gain, "value": 0.8 + np.array(gain) / 10, **more}
    values = {n: (("seed", "step"), np.array([v], float)) for n, v in values.items()}
    return xr.Dataset(values, {"step": np.arange(len(gain)), "seed": [0]})


FALLS = trace([0, 0.6, 0.4, 0.5, 0.3], reward=[0, 0.8, 0.9, 0.9, 0.9])
STILL = trace([0, 0.6, 0.6, 0.6, 0.6])


def test_drops_and_means_by_hand():
    traces = {SQUARE: FALLS, "uniform": STILL, "uniform-thinned": trace([0, 0.5, 0.5, 0.5, 0.5])}
    expected = {
        "C2": -0.2,
        "C2.model": -0.2,
        "C2.still": 0,
        "C2.control": -0.2,
        "C2.data": 0.1,
        "C1": -0.01,
    }
    for claim, effect in expected.items():
        assert BY_ID[claim].effect(traces) == pytest.approx(effect), claim
    assert BY_ID["C2.still"].null(traces) == pytest.approx(-0.2)
    # The policies that serve generations 2, 3 and 4 are those of the models 1, 2 and 3.
    assert module.served("gain")(FALLS) == pytest.approx(0.5)
    # Thinning costs 0.1 of the 0.2 that SquareCB's own logs cost.
    assert BY_ID["C3.reverse"].effect(traces) == pytest.approx(0.5)
    assert np.isnan(BY_ID["C3.reverse"].effect(traces | {SQUARE: STILL})).all()


def test_alternation_by_hand():
    zigzag = trace([0, 0.6, 0.4, 0.6, 0.4, 0.6, 0.4, 0.6])
    wave = trace([0, 0.6, *(0.5 + 0.1 * np.sin(np.linspace(0, 2 * np.pi, 12)))])
    assert module.alternation(zigzag) < -0.7 < 0.3 < module.alternation(wave)
    assert module.fast(zigzag) > 0.8 > 0.3 > module.fast(wave)
    assert module.swing(zigzag) == pytest.approx(0.1, abs=0.01)
    assert BY_ID["C4"].effect({SQUARE: zigzag, "uniform": wave}) < -1


def test_the_slope_of_imbalance_is_that_of_a_regression_with_the_shifts():
    rng = np.random.default_rng(0)
    traces = {}
    for arm in SQUARES:
        share, overlap, shift = rng.normal(size=(3, 30)).cumsum(axis=1)
        gain = 0.7 * share - 0.5 * overlap + 0.01 * rng.normal(size=30)
        traces[arm] = trace(
            gain, negative_share=share, overlap=overlap + 0.8 * share, action_shift=shift
        )
    # gain = (0.7 + 0.4) share - 0.5 (overlap + 0.8 share): the slope is positive, given the overlap.
    assert 0.5 < BY_ID["C3"].effect(traces)[0] < 1.5
    turned = {arm: t.assign(greedy_gain=-t.greedy_gain) for arm, t in traces.items()}
    assert BY_ID["C3"].effect(turned)[0] < -0.5


def test_off_policy_gaps_are_those_to_the_model_that_served():
    seen = trace(
        [0, 0.6, 0.4, 0.5], greedy_value=[0.7, 0.8, 0.85, 0.9], dr_value=[0, 0.7, 0.83, 0.86],
        dr_error=[0, 0.01, 0.01, 0.01],
    )  # fmt: skip
    gap, _ = module.off_policy_gaps(seen, "dr")
    np.testing.assert_allclose(gap, [[0.03, 0.01]])
    assert module.coverage("dr")(seen) == pytest.approx(0.5)
    assert module.off_policy_error("dr")(seen) == pytest.approx(np.sqrt((0.03**2 + 0.01**2) / 2))


def test_a_null_asks_for_the_value_of_another_seed_or_campaign():
    two = xr.concat([
        trace([0, 0, 0, 0], greedy_value=[0, v, v, 0], dr_value=[0, 0, 0.8, 0.8], dr_error=[0, 0.01, 0.01, 0.01])
        for v in (0.8, 0.5)], "seed")  # fmt: skip
    assert module.coverage("dr")(two).tolist() == [1, 0]
    assert module.coverage("dr", world=1)(two).tolist() == [0, 1]
    open_bandit = trace([0, 0, 0], snips_value=[1, 2, 3], snips_error=[0.1] * 3, on_policy=[1, 2, 2],
                        on_policy_error=[0.1] * 3)  # fmt: skip
    assert module.wrong_campaign(open_bandit) == pytest.approx(1 / 3)
    assert np.isnan(module.wrong_campaign(open_bandit * np.nan)).all()


def test_only_the_papers_scale_has_other_learners_and_worlds():
    quick = study.configs("quick")
    for claim in CLAIMS:
        assert (set(claim.arms) <= set(quick)) == (claim.budget == "quick"), claim.id
    assert {c.id for c in CLAIMS if c.budget == "full"} == {"C2.small", "C2.trees"}
    assert quick["squarecb-long"].window == 4
    assert study.configs("full")["squarecb-long"].window == 24
    assert set(study.configs("full")) == set(ARMS)


def test_every_arm_makes_the_process_it_names():
    for arm, config in ARMS.items():
        if config.kind != "open-bandit":
            process = module.make_process(config)
            assert isinstance(process, Chain if config.kind == "chain" else HostChain), arm
    with pytest.raises(ValueError, match="rule must be one of"):
        module.make_process(module.Config(rule="bold"))


def test_all_chains_start_from_the_model_of_one_uniform_log(store_folder):
    done = run(study, "smoke", store=Store(store_folder), arms=SQUARES)
    first = {arm: done.traces[arm].greedy_gain.values[:, 1] for arm in SQUARES}
    for arm, values in first.items():
        assert np.isfinite(done.traces[arm].greedy_gain).all(), arm
        np.testing.assert_allclose(values, first[SQUARE], atol=1e-5)
