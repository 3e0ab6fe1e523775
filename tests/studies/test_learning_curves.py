"""What the arms are run with, and the study's effects on curves worked by hand."""

import numpy as np
import xarray as xr

from latebloom import unfold
from latebloom.methods.learning_curves.distortion import as_measured, robustness_rates
from latebloom.methods.learning_curves.foresight import early, late, stop_at
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

BY_ID = {claim.id: claim for claim in CLAIMS}
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


def test_exact_power_laws_are_forecast_exactly():
    traces = exact()
    for arm in TAGGERS:
        assert BY_ID[f"C1.{arm}"].effect(traces).max() < 0.02
        assert BY_ID[f"C1.{arm}"].null(traces).min() > 0.3
    assert BY_ID["C5.worst"].effect(traces).max() < 0.02
    last = [
        np.mean(100 * (y - y[early(w) - 1])[late(w)] / y[late(w)])
        for w, y in (module.curves(traces[arm])[0] for arm in TAGGERS)
    ]
    np.testing.assert_allclose(BY_ID["C1.last"].effect(traces), -np.mean(last), atol=0.02)
    assert (BY_ID["C1.exponential"].effect(traces) < -0.3).all()


def test_ranks_follow_crossing_curves():
    traces = exact()
    bigram, trigram = (module.curves(traces[t])[0][1] for t in ("bigram", "trigram"))
    crossing = np.sign((bigram - trigram)[[early(WORDS) - 1, -1]])
    assert crossing.tolist() == [1, -1]
    np.testing.assert_allclose(BY_ID["C3"].effect(traces), 100)
    assert (BY_ID["C3.last"].effect(traces) > 0).all()


def test_coverage_counts_later_sizes_within_tau():
    traces = exact()
    for tau in (4.0, 2.0):
        np.testing.assert_allclose(module.coverage(tau)(traces), 1)
        np.testing.assert_allclose(module.coverage(tau, waiting=False)(traces), 1)  # exact laws
    assert np.isnan(module.coverage(0.01)(traces)).all()
    places = {arm: stop_at(*module.curves(traces[arm])[0], 4.0) for arm in TAGGERS}
    broken = exact()
    shifted = broken["bigram"].accuracy.values
    shifted[:, places["bigram"] + 1 :] -= 30
    stopped = sum(place != NEVER for place in places.values())
    np.testing.assert_allclose(module.coverage(4.0)(broken), 1 - 1 / stopped)
    assert stop_at(*module.curves(traces["bigram"])[0], 0.01) == NEVER


def test_anchoring_is_measured_on_distorted_traces():
    noisy = trace(*(power() + np.random.default_rng(0).normal(0, 0.05, (3, len(WORDS)))))
    traces = dict.fromkeys(module.CONSTANT, noisy)
    for id in ("C4", "C4.error", "C4.levels"):
        found = BY_ID[id].effect(traces)
        assert found.shape == (3,) and np.isfinite(found).all()
    found = BY_ID["C4.measured"].effect(traces)
    rows = [
        [robustness_rates(as_measured(WORDS, y), anchored=on)[0] for on in (True, False)]
        for y in noisy.accuracy.values
    ]
    np.testing.assert_allclose(found, [one - other for one, other in rows])


def test_stop_rules_are_tuned_to_the_same_size():
    traces = exact()
    for rule in ("gain", "change"):
        assert np.isfinite(BY_ID[f"U.{rule}"].effect(traces)).all()


def test_win_rates_by_hand():
    words = 16.0 * 2 ** (np.arange(12) / 2)
    law = 95 - 60 * words**-0.5
    flat = np.full(12, 80.0)
    scores = np.stack([law, flat], 1)  # the law is won, the flat curve is a tie
    table = xr.Dataset(
        {"words": (("seed", "step"), words[None]), "accuracy": (("seed", "step", "learner"), scores[None])}
    )  # fmt: skip
    traces = dict.fromkeys(TABLES, table)
    np.testing.assert_allclose(BY_ID["C5.last"].effect(traces), 0.75)


def test_made_up_curves_have_a_known_asymptote():
    law = power()[None]
    made_up = trace(law[0], asymptote=(("seed", "step"), np.full_like(law, 96.0)))
    traces = {"made-up-power": made_up}
    assert BY_ID["S.power"].effect(traces).max() < 0.1
    np.testing.assert_allclose(BY_ID["S.power"].null(traces), 120 * 100_000**-0.3)


def test_budgets_run_what_they_should():
    quick, thorough, full = (study.configs(b) for b in ("quick", "thorough", "full"))
    assert set(quick) == {*TAGGERS, *module.CONSTANT}
    assert set(thorough) == set(ARMS) - set(BY_GENRE[2:]) and full == ARMS
    assert all(thorough[arm] == config for arm, config in quick.items())
    assert np.diff(module.sizes(full["ending"])).tolist() == [5000] * 159
    assert full["ending"].runs == full["ending"].folds == 10 and full["ending"].test_words is None
    np.testing.assert_array_equal(module.sizes(quick["ending"]), WORDS)
    assert module.sizes(Config(task="classifiers", rows=64)) == (16, 23, 32, 45, 64)


def test_more_taggers_by_genre_are_read_where_they_were_run():
    traces = dict(zip(BY_GENRE, exact().values(), strict=True))
    off = trace(power() + 5 * (WORDS > 200_000), power() + 5 * (WORDS > 200_000))
    order = BY_ID["C5.order"].effect
    assert order(traces).max() < 0.02 < order(traces | {BY_GENRE[4]: off}).min()


def test_taggers_of_a_small_run_learn():
    config = study.configs("smoke")["trigram"]
    found = unfold(study.process(config), seeds=2, at=study.schedule(config), progress=False)
    assert (found.accuracy.isel(step=-1) > found.accuracy.isel(step=0)).all()
    assert (found.unknown.isel(step=-1) < found.unknown.isel(step=0)).all()


def test_every_arm_makes_its_process():
    kinds = {arm: type(module.make_process(config)).__name__ for arm, config in ARMS.items()}
    assert set(kinds.values()) == {"LearningScheme", "MadeUpCurve", "ClassifierCurves"}
    assert all(kinds[table] == "ClassifierCurves" for table in TABLES)
