"""The study at smoke, and its checks on traces worked by hand."""

import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.bandits.payments.chain import Chain
from latebloom.methods.bandits.payments.host import HostChain
from latebloom.studies.bandits import payment_bandits as module
from latebloom.studies.bandits.payment_bandits import ARMS, CLAIMS, SQUARE, SQUARES, study


def trace(gain, **more):
    """One seed; `gain` is that of the policy and of its model."""
    values = {"gain": gain, "greedy_gain": gain, "value": 0.8 + np.array(gain) / 10, **more}
    values = {n: (("seed", "step"), np.array([v], float)) for n, v in values.items()}
    return xr.Dataset(values, {"step": np.arange(len(gain)), "seed": [0]})


FALLS = trace([0, 0.6, 0.4, 0.5, 0.3], reward=[0, 0.8, 0.9, 0.9, 0.9])
STILL = trace([0, 0.6, 0.6, 0.6, 0.6])


def test_drops_and_means_by_hand():
    traces = {SQUARE: FALLS, "uniform": STILL, "uniform-thinned": trace([0, 0.5, 0.5, 0.5, 0.5])}
    assert module.drop_served(traces) == pytest.approx(-0.2)
    assert module.drop_of_model(traces) == pytest.approx(-0.2)
    assert module.drop_of_control(traces) == pytest.approx(0)
    assert module.drop_beyond(SQUARE, "uniform")(traces) == pytest.approx(-0.2)
    assert module.training_reward_gained(traces) == pytest.approx(0.1)
    # The policies that serve generations 2, 3 and 4 are those of the models 1, 2 and 3.
    assert module.served(FALLS, "gain") == pytest.approx(0.5)
    assert module.better_than(SQUARE, "uniform")(traces) == pytest.approx(-0.01)
    # Thinning costs 0.1 of the 0.2 that SquareCB's own logs cost.
    assert module.share_explained(traces) == pytest.approx(0.5)
    assert np.isnan(module.share_explained(traces | {SQUARE: STILL})).all()


def test_alternation_by_hand():
    zigzag = trace([0, 0.6, 0.4, 0.6, 0.4, 0.6, 0.4, 0.6])
    wave = trace([0, 0.6, *(0.5 + 0.1 * np.sin(np.linspace(0, 2 * np.pi, 12)))])
    line = trace([0, 0.6, *np.linspace(0.2, 0.8, 8)])
    assert module.lag_one(zigzag) < -0.7 < 0.3 < module.lag_one(wave)
    assert module.fast_share(zigzag) > 0.8 > 0.3 > module.fast_share(wave)
    np.testing.assert_allclose(module.detrended(line), 0, atol=1e-12)
    assert module.swing(zigzag) == pytest.approx(0.1, abs=0.01)
    effect = module.less_of(module.lag_one, SQUARE, "uniform")
    assert effect({SQUARE: zigzag, "uniform": wave}) < -1


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
    assert 0.5 < module.slope_of_imbalance(traces)[0] < 1.5
    turned = {arm: t.assign(greedy_gain=-t.greedy_gain) for arm, t in traces.items()}
    assert module.slope_of_imbalance(turned)[0] < -0.5


def test_off_policy_gaps_are_those_to_the_model_that_served():
    seen = trace(
        [0, 0.6, 0.4, 0.5], greedy_value=[0.7, 0.8, 0.85, 0.9], dr_value=[0, 0.7, 0.83, 0.86],
        dr_error=[0, 0.01, 0.01, 0.01],
    )  # fmt: skip
    gap, _ = module.off_policy_gaps(seen, "dr")
    np.testing.assert_allclose(gap, [[0.03, 0.01]])
    assert module.coverage("x", "dr")({"x": seen}) == pytest.approx(0.5)
    assert module.off_policy_error(seen) == pytest.approx(np.sqrt((0.03**2 + 0.01**2) / 2))


def test_quick_runs_every_claim_but_those_of_the_full_budget():
    arms = set(study.configs("quick"))
    missing = {claim.id for claim in CLAIMS if not set(claim.arms) <= arms}
    assert missing == {"C2.small", "C2.trees"}
    assert set(study.configs("full")) == set(ARMS)


def test_every_arm_makes_the_process_it_names():
    for arm, config in ARMS.items():
        if config.kind != "open-bandit":
            process = module.make_process(config)
            assert isinstance(process, Chain if config.kind == "chain" else HostChain), arm
    with pytest.raises(ValueError, match="rule must be one of"):
        module.make_process(module.Config(rule="bold"))


def test_study_turns_at_smoke(store_folder):
    done = run(study, "smoke", store=Store(store_folder))
    ran = {v.claim for v in done.verdicts if v.verdict != "not run"}
    assert ran >= {"C1", "C2", "C3", "C3.ratio", "C3.reverse", "C4", "C5.dr"}
    for arm, found in done.traces.items():
        assert (found.diverged_at == -1).all(), arm
        assert np.isfinite(found.greedy_gain).all(), arm
    # The first log is uniform for all, so that all chains start from one model.
    first = {arm: done.traces[arm].greedy_gain.values[:, 1] for arm in SQUARES}
    for values in first.values():
        np.testing.assert_allclose(values, first[SQUARE], atol=1e-5)
    drawn = [f for f in study.figures if all(arm in done.traces for arm in f.arms)]
    assert {f.name for f in drawn} >= {"causes", "oscillation", "logs", "rules", "off-policy"}
    for figure in drawn:
        assert len(style.png(figure.draw(done.traces))) > 10_000
