"""Verdicts, against intervals worked out by hand and by SciPy, and their coverage simulated."""

import json

import numpy as np
import pytest
from lines import claim, lead
from scipy import stats

from latebloom.lab import Need, judge
from latebloom.lab.verdict import interval, rejudged
from latebloom.measures import Effect

TRACES = {"steep": None, "flat": None}


def effect(*values):
    return Effect(("steep", "flat"), "what was given", lambda traces: np.array(values, float))


def test_an_interval_by_hand():
    # Mean 2, standard deviation 1, standard error 1 / sqrt(3); t of two degrees of freedom at
    # 97.5 % is 4.302653.
    low, high = interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(
        [low, high], 2 + np.array([-1, 1]) * 4.302653 / np.sqrt(3), rtol=1e-6
    )


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(0).normal(3, 2, 7)
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(interval(values, 0.9), [wanted.low, wanted.high], rtol=1e-12)


def test_the_interval_of_what_agrees_is_a_point_and_of_one_seed_infinite():
    assert interval(np.full(5, 0.1)) == (0.1, 0.1)
    assert interval(np.array([0.1])) == (-np.inf, np.inf)


def covers(draw, mean, seeds, times=4000):
    """How often the interval holds the mean, and how often it lies wholly above and below it."""
    values = draw(np.random.default_rng(seeds), (times, seeds))
    bounds = np.array([interval(v) for v in values])
    return ((bounds[:, 0] <= mean) & (mean <= bounds[:, 1])).mean(), (bounds[:, 0] > mean).mean(), (
        bounds[:, 1] < mean).mean()  # fmt: skip


@pytest.mark.parametrize("seeds", [4, 5, 6, 8, 10])
def test_the_interval_of_normal_effects_covers_their_mean(seeds):
    share, above, below = covers(lambda rng, shape: rng.normal(size=shape), 0.0, seeds)
    assert 0.94 <= share <= 0.96
    # A null exactly at the threshold is said to hold in 2.5 % (one side), give or take the noise.
    assert max(above, below) <= 0.032


@pytest.mark.parametrize(
    ("draw", "mean", "reached"),
    [
        (lambda rng, shape: rng.exponential(size=shape), 1.0, (0.865, 0.915)),  # 0.88 to 0.90
        (lambda rng, shape: rng.lognormal(size=shape), np.exp(0.5), (0.805, 0.855)),  # 0.82 to 0.84
    ],
    ids=["exponential", "lognormal"],
)
@pytest.mark.parametrize("seeds", [5, 8, 10])
def test_the_interval_of_skewed_effects_covers_less_and_errs_to_the_short_side(
    draw, mean, reached, seeds
):
    share, above, below = covers(draw, mean, seeds)
    assert reached[0] <= share <= reached[1]
    # Effects with a long upper tail are seldom said to be above what they are not above.
    assert above <= 0.01 and below > 0.08


@pytest.mark.parametrize(
    ("effects", "verdict", "seeds"),
    [
        ([1.0, 1.1, 0.9, 1.05], "holds", 4),
        ([0.4, 0.6, 0.45, 0.55], "undecided", 4),
        ([0.1, 0.2, 0.1, 0.15], "contradicted", 4),
        ([1.0, 1.0, np.nan, 1.0], "holds", 3),
        ([1.0, 1.1, np.inf, 1.05], "holds", 3),
        ([1.0, 1.1, np.nan, np.nan, 1.0], "undecided", 3),
        ([0.5, 0.5, 0.5], "undecided", 3),  # at the threshold is not beyond it
        ([2.0], "undecided", 1),
        ([np.nan, np.nan], "undecided", 0),
    ],
)
def test_outcomes_by_hand(effects, verdict, seeds):
    found = judge(claim("> 0.5", effect(*effects)), TRACES)
    assert (found.verdict, found.seeds, found.of) == (verdict, seeds, len(effects))
    below = judge(claim("< 0.5", effect(*effects)), TRACES).verdict
    swapped = {"holds": "contradicted", "contradicted": "holds"}
    assert below == swapped.get(verdict, verdict)


def test_too_many_silent_seeds_are_told():
    found = judge(claim("> 0.5", effect(1, 1, np.nan, np.nan)), TRACES)
    assert found.reason == "only 2 of 4 seeds can say"
    assert found.effects == (1, 1, None, None) and found.estimate == 1


@pytest.mark.parametrize(
    ("null", "verdict", "scored"),
    [
        (effect(0.1, 0.2, 0.1, 0.2), "holds", 0.15),
        (effect(0.9, 0.8, 0.9, 0.8), "no evidence", 0.85),
        (effect(0.9, 0.1, 0.9, 0.1), "holds", 0.5),  # a null that is undecided does not pass
        (0.4, "holds", 0.4),
        (0.5, "holds", 0.5),
        (0.6, "no evidence", 0.6),
        (0, "holds", 0),
        (np.float32(0.5), "holds", 0.5),
    ],
)
def test_a_null_is_judged_by_the_same_rule(null, verdict, scored):
    found = judge(claim("> 0.5", effect(1, 1.1, 0.9, 1), null=null), TRACES)
    assert found.verdict == verdict and found.null is not None
    assert found.null["estimate"] == pytest.approx(scored)
    assert found.reason == ("the null passes too" if verdict == "no evidence" else "")


@pytest.mark.parametrize(
    "values", [(0.1, 0.2, 0.1, 0.2), (0.9, 0.1, 0.9, 0.1), (1, np.nan, np.nan, 1)]
)
@pytest.mark.parametrize("null", [0.9, np.nan, effect(0.9, 0.8, 0.9, 0.8), effect(*[np.nan] * 4)])
def test_a_null_takes_away_only_from_a_claim_that_holds(values, null):
    alone = judge(claim("> 0.5", effect(*values)), TRACES)
    found = judge(claim("> 0.5", effect(*values), null=null), TRACES)
    assert (found.verdict, found.reason) == (alone.verdict, alone.reason)
    assert alone.verdict in ("contradicted", "undecided") and found.null is not None


@pytest.mark.parametrize(
    "null",
    [np.nan, np.inf, effect(*[np.nan] * 4), effect(0.1, 0.1, np.nan, np.nan), effect(*[-np.inf] * 4)],
)  # fmt: skip
def test_a_null_that_cannot_say_leaves_a_claim_undecided(null):
    found = judge(claim("> 0.5", effect(1, 1.1, 0.9, 1), null=null), TRACES)
    assert (found.verdict, found.reason) == ("undecided", "the null cannot say")
    kept = json.loads(json.dumps(found.row(), allow_nan=False))
    assert json.loads(json.dumps(rejudged(kept), allow_nan=False)) == kept


def test_a_null_without_a_text_is_an_effect_all_the_same():
    null = Effect(("flat",), "", lambda traces: np.array([0.6, 0.7]))
    found = judge(claim("> 0.5", effect(1, 1.1), null=null), TRACES)
    assert found.null is not None and found.null["text"] and found.null["of"] == 2


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda bad: claim("> 5", bad), "claim C1: its effect cannot be computed: KeyError: 'x'"),
        (lambda bad: claim("> 5", effect(1), null=bad), "claim C1: its null cannot be computed: KeyError"),
        (lambda bad: claim("> 5", effect(1), needs=(Need(bad, "> 1", "short"),)),
         "claim C1: its need 'short' cannot be computed: KeyError"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_named(broken, message):
    bad = Effect(("flat",), "bad", lambda traces: {}["x"])
    with pytest.raises(ValueError, match=message):
        judge(broken(bad), TRACES)


@pytest.mark.parametrize(
    ("reached", "verdict"),
    [
        ([3, 4, 5], "holds"), ([1, 2, 3], "out of reach"), ([1, 2, 3.3], "holds"),
        ([np.inf] * 3, "holds"), ([3, 4, np.inf], "holds"), ([5, -np.inf, 5], "out of reach"),
        ([np.inf, -np.inf, 5], "out of reach"), ([3, 4, 5, np.nan], "holds"),
    ],
)  # fmt: skip
def test_a_need_is_met_where_its_mean_is_beyond(reached, verdict):
    needs = (
        Need(effect(*reached), "> 2", "the horizon is short"),
        Need(effect(0, 0, 0), "< 1", "–"),
    )
    for values in ([1, 1, 1], [0, 0, 0]):
        found = judge(claim("> 0.5", effect(*values), needs=needs), TRACES)
        expected = (
            verdict if verdict == "out of reach" else ("holds" if values[0] else "contradicted")
        )
        assert found.verdict == expected
        assert [n["met"] for n in found.needs] == [verdict == "holds", True]
        assert found.reason == ("the horizon is short" if verdict == "out of reach" else "")


@pytest.mark.parametrize(
    ("reached", "count"), [([np.nan] * 3, "0 of 3"), ([5, np.nan, np.nan], "1 of 3"), ([5, 6, np.nan], "2 of 3")]
)  # fmt: skip
def test_a_need_of_which_too_few_seeds_say_is_not_met(reached, count):
    need = Need(effect(*reached), "> 2", "the horizon is short")
    found = judge(claim("> 0.5", effect(1, 1, 1), needs=(need,)), TRACES)
    assert found.verdict == "out of reach" and not found.needs[0]["met"]
    assert found.reason == f"the horizon is short (only {count} seeds can say)"


def test_an_infinite_need_is_kept_as_json():
    needs = (Need(effect(np.inf, 1), "> 2", "–"), Need(effect(-np.inf, 1), "< 2", "–"))
    found = judge(claim("> 0.5", effect(1, 1), needs=needs), TRACES)
    assert found.verdict == "holds" and found.needs[0]["estimate"] == np.inf
    kept = json.loads(json.dumps(found.row(), allow_nan=False))
    assert [n["estimate"] for n in kept["needs"]] == ["inf", "-inf"]
    assert json.loads(json.dumps(rejudged(kept), allow_nan=False)) == kept
    for need in kept["needs"]:  # as rows were kept before
        del need["seeds"], need["of"]
    assert rejudged(kept)["verdict"] == "holds"


def test_what_is_out_of_reach_is_not_called_no_evidence():
    short = Need(effect(0, 0), "> 2", "the horizon is short")
    found = judge(claim("> 0.5", effect(1, 1), null=1.0, needs=(short,)), TRACES)
    assert found.verdict == "out of reach"


def test_a_claim_whose_arms_are_missing_is_not_run():
    assert judge(claim("> 5", lead), {"steep": None}).verdict == "not run"
    needy = claim("> 5", effect(1), needs=(Need(Effect(("long",), "", lambda t: t), "> 1", "–"),))
    assert judge(needy, TRACES).verdict == "not run"


def test_an_effect_is_one_number_a_seed():
    odd = effect(1, 2)
    object.__setattr__(odd, "of", lambda traces: np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"one number a seed, not \(2, 2\)"):
        judge(claim("> 5", odd), TRACES)


def test_verdicts_are_judged_again_from_what_is_kept():
    needs = (Need(effect(3, 4), "> 2", "the horizon is short"),)
    for null in (None, 0.3, 0.7, effect(0.9, 0.8)):
        made = judge(claim("> 0.5", effect(1, 1.2, np.nan, 1, 1.1), null=null, needs=needs), TRACES)
        kept = json.loads(json.dumps(made.row()))
        assert json.loads(json.dumps(rejudged(kept))) == kept
        kept["threshold"] = "< 0.5"
        assert rejudged(kept)["verdict"] == "contradicted"
