"""The study at smoke, and its checks on curves worked by hand."""

import numpy as np
import pytest
import xarray as xr

from latebloom.lab import style
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.methods.learning_curves import fit
from latebloom.methods.learning_curves.traces import NEVER
from latebloom.studies.learning_curves import learning_curves as module
from latebloom.studies.learning_curves.learning_curves import (
    ARMS,
    BY_GENRE,
    CLAIMS,
    TABLES,
    TAGGERS,
    Config,
    study,
)

WORDS = np.concatenate([np.arange(5000.0, 101_000, 5000), np.arange(150_000, 801_000, 50_000)])


def power(top=96.0, a=120.0, b=0.3):
    return top - a * WORDS**-b


def trace(*rows, **more):
    """One seed a row, the same sizes for all."""
    scores = np.array(rows)
    words = np.broadcast_to(WORDS, scores.shape)
    return xr.Dataset(
        {"words": (("seed", "step"), words), "accuracy": (("seed", "step"), scores), **more},
        {"step": np.arange(1, len(WORDS) + 1)},
    )


def exact():
    """Power laws of five taggers, two of which cross between 100,000 and 300,000 words."""
    tops = {"ending": (91, 120, 0.4), "bigram": (96, 120, 0.33), "trigram": (97.2, 114, 0.29),
            "perceptron": (98, 200, 0.3), "memm": (97, 300, 0.31)}  # fmt: skip
    return {name: trace(power(*numbers), power(*numbers)) for name, numbers in tops.items()}


def test_early_and_control_sizes_of_the_papers_scale():
    assert WORDS[module.early(WORDS) - 1] == 100_000
    assert WORDS[module.control(WORDS)][0] == 300_000 and module.control(WORDS).sum() == 11
    late = WORDS + np.linspace(0, 30, len(WORDS))  # sentences run on
    assert module.early(late) == module.early(WORDS)
    assert module.control(late).sum() == 11


def test_exact_power_laws_are_forecast_exactly():
    traces = exact()
    for arm in TAGGERS:
        assert module.error_of(arm, traces).max() < 0.02
    assert module.worst_error(traces).max() < 0.02
    last = [
        np.mean(100 * (y - y[module.early(w) - 1])[module.control(w)] / y[module.control(w)])
        for w, y in (module.curves(traces[arm])[0] for arm in TAGGERS)
    ]
    np.testing.assert_allclose(module.error_against("last", traces), -np.mean(last), atol=0.02)
    assert (module.error_against("exponential", traces) < -0.3).all()


def test_ranks_follow_crossing_curves():
    traces = exact()
    bigram, trigram = (module.curves(traces[t])[0][1] for t in ("bigram", "trigram"))
    crossing = np.sign((bigram - trigram)[[module.early(WORDS) - 1, -1]])
    assert crossing.tolist() == [1, -1]
    np.testing.assert_allclose(module.reliability_of_trends(traces), 100)
    assert (module.reliability_gain(traces) > 0).all()


def test_coverage_counts_later_sizes_within_tau():
    traces = exact()
    for tau in (4.0, 2.0):
        np.testing.assert_allclose(module.coverage(tau, traces), 1)
    assert np.isnan(module.coverage(0.01, traces)).all()
    stop = module.stops(traces["bigram"], 4.0)[0]
    broken = exact()
    shifted = broken["bigram"].accuracy.values
    shifted[:, stop + 1 :] -= 30
    with_stop = sum(module.stops(traces[arm], 4.0)[0] != NEVER for arm in TAGGERS)
    np.testing.assert_allclose(module.coverage(4.0, broken), 1 - 1 / with_stop)
    assert module.stops(traces["bigram"], 0.01) == [NEVER] * 2


def test_distorted_copies_are_lower_in_a_twentieth():
    copies = module.distorted(power(), 0)
    off = copies - power()
    assert copies.shape == (10, 34) and set(np.round(off, 9).ravel()) == {0, -3}
    assert ((off < 0).sum(1) == 2).all()


def test_anchoring_is_measured_on_distorted_traces():
    noisy = trace(*(power() + np.random.default_rng(0).normal(0, 0.05, (3, len(WORDS)))))
    traces = dict.fromkeys(module.CONSTANT, noisy)
    for measure in (module.anchoring_robustness, module.anchoring_error, module.anchoring_levels):
        assert measure(traces).shape == (3,) and np.isfinite(measure(traces)).all()
    found = module.anchoring_robustness(traces, as_measured=True)
    rows = [
        [module.robustness_rates(WORDS, y[None], y, anchored)[0] for anchored in (True, False)]
        for y in noisy.accuracy.values
    ]
    np.testing.assert_allclose(found, [one - other for one, other in rows])
    broken = module.distorted(power(), 0)
    first = module.errors_from_quarter(WORDS, broken[:1], power(), False)[0]
    seen = WORDS <= 200_000
    at = WORDS >= 300_000
    alone = fit(WORDS[seen], broken[0, seen])(WORDS[at])
    assert first == pytest.approx(
        np.mean(100 * np.abs(alone - power()[at]) / power()[at]), rel=1e-6
    )
    for anchored in (True, False):
        needed = module.levels_needed(WORDS, power()[None], power(), anchored)
        found = module.trace_of(WORDS, power(), anchored)
        chi = 120 * WORDS**-0.3
        assert needed[0] == (np.argmax(chi <= 2) + 1 if (chi <= 2).any() else 34)
        assert found.working[0] == 0
        rates = module.robustness_rates(WORDS, power()[None], power(), anchored)
        assert 0 <= rates[0] <= 100


def test_means_leave_out_what_says_nothing():
    rows = np.array([[1, np.nan, np.nan], [3, 5, np.nan]])
    np.testing.assert_array_equal(module._mean_of_some(rows), [2, 5, np.nan])


def test_stop_rules_are_tuned_to_the_same_size():
    traces = exact()
    for rule in ("gain", "change"):
        assert np.isfinite(module.stop_spread(rule, traces)).all()
    assert module._last_gain_stop("change", WORDS, power(), 1e-9) == 33
    first = module._last_gain_stop("gain", WORDS, power(), 0.1)
    gain = np.diff(power()) / np.diff(WORDS) * 1000
    assert first == np.argmax(gain < 0.1) + 1


def test_win_rates_by_hand():
    words = 16.0 * 2 ** (np.arange(12) / 2)
    law = 95 - 60 * words**-0.5
    flat = np.full(12, 80.0)
    scores = np.stack([law, flat], 1)  # the law is won, the flat curve is a tie
    table = xr.Dataset(
        {"words": (("seed", "step"), words[None]), "accuracy": (("seed", "step", "learner"), scores[None])}
    )  # fmt: skip
    traces = dict.fromkeys(("digits-8x8", "breast-cancer"), table)
    np.testing.assert_allclose(module.win_rate("last", traces), 0.75)


def test_quick_and_full_run_what_they_should():
    quick, full = (study.configs(b) for b in ("quick", "full"))
    assert set(full) == set(ARMS) and set(quick) == set(ARMS) - set(BY_GENRE[2:])
    assert np.diff(module.sizes(full["ending"])).tolist() == [5000] * 159
    assert full["ending"].runs == full["ending"].folds == 10 and full["ending"].test_words is None
    np.testing.assert_array_equal(module.sizes(quick["ending"]), WORDS)
    assert module.sizes(Config(task="classifiers", rows=64)) == (16, 23, 32, 45, 64)
    needed = {arm for claim in CLAIMS for arm in claim.arms}
    assert needed <= set(quick)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run(study, "smoke", store=Store(tmp_path_factory.mktemp("store")))


def test_study_turns_at_smoke(smoke):
    assert {v.claim for v in smoke.verdicts} == {c.id for c in CLAIMS}
    assert all(v.verdict != "not run" for v in smoke.verdicts)
    for arm in TAGGERS:
        found = smoke.traces[arm]
        assert (found.diverged_at == -1).all()
        assert (found.accuracy.isel(step=-1) > found.accuracy.isel(step=0)).all()
        assert (found.unknown.isel(step=-1) < found.unknown.isel(step=0)).all()


def test_figures_are_drawn_from_small_traces(smoke):
    for figure in study.figures:
        assert len(style.png(figure.draw(smoke.traces))) > 10_000, figure.name


def test_every_arm_makes_its_process():
    kinds = {arm: type(module.make_process(config)).__name__ for arm, config in ARMS.items()}
    assert set(kinds.values()) == {"LearningScheme", "MadeUpCurve", "ClassifierCurves"}
    assert all(kinds[table] == "ClassifierCurves" for table in TABLES)
