"""The vocabulary of effects against traces worked by hand."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import measures as m
from latebloom.measures import Effect, Measure, at, curve, final, first_step, growth

NAN = np.nan


def trace(steps=(0, 1, 10, 100), config=None, **observables):
    """A trace of observables [seed, step], or (dims, values, coords) for more dimensions."""
    variables, coords = {}, {"step": np.array(steps)}
    for name, values in observables.items():
        dims, labels = (), {}
        if isinstance(values, tuple):
            dims, values, labels = values
        variables[name] = (("seed", "step", *dims), np.asarray(values))
        coords |= labels
    seeds = len(next(iter(variables.values()))[1])
    attrs = {"config": json.dumps(config or {})}
    return xr.Dataset(variables, coords | {"seed": np.arange(seeds)}, attrs)


TWO = trace(test=[[0, 0, 0.5, 1.0], [0, 0.25, 0.75, 0.5]], train=[[0, 1, 1, 1], [0, 0.5, 1, 1]])


def same(found, wanted):
    np.testing.assert_array_equal(found, wanted)


def test_words_of_one_trace_on_two_seeds():
    same(final("test")(TWO), [1, 0.5])
    same(m.average("test")(TWO), [0.375, 0.375])
    same(m.tail("test", 0.5)(TWO), [0.75, 0.625])
    same(m.tail("test")(TWO), [1, 0.5])  # a tenth of four observations is one of them
    same(m.peak("test")(TWO), [1, 0.75])
    same(m.peak(curve("test")[:2])(TWO), [0, 0.25])
    same(m.peak_step("test")(TWO), [100, 10])
    same(m.peak_step("train")(TWO), [1, 10])  # the first of several
    same(at("train", m.peak_step("test"))(TWO), [1, 1])


def test_a_share_of_the_observations_is_not_cut_by_rounding():
    ten = trace(range(10), loss=[np.arange(10.0)])
    same(m.tail("loss", 0.3)(ten), [8])  # 7, 8, 9
    same(m.tail("loss", 1)(ten), [4.5])
    same(m.tail("loss", 0.01)(ten), [9])


def test_first_step_at_or_beyond_a_level():
    same(first_step("test", 0.5)(TWO), [10, 10])
    same(first_step("test", 0.9)(TWO), [100, 100])  # the second never does: the end, a lower bound
    same(first_step("test", 0.9, never="nan")(TWO), [100, NAN])
    falling = trace(loss=[[4, 3, 2, 1], [4, 4, 4, 4]])
    same(first_step("loss", 3, below=True)(falling), [1, 100])
    assert first_step("loss", 3, below=True).text == "first step with loss <= 3"


def test_first_step_skips_gaps_and_a_seed_of_gaps_alone_says_nothing():
    gaps = trace(x=[[NAN, 1, NAN, 0], [NAN, 0, NAN, 1], [0, 0, NAN, NAN], [NAN] * 4])
    same(first_step("x", 1)(gaps), [1, 100, 100, NAN])
    same(first_step("x", 1, never="nan")(gaps), [1, 100, NAN, NAN])


def test_nan_stays_nan():
    died = trace(x=[[1, 2, NAN, NAN], [1, 2, 4, 3]])
    for word in (final, m.average, m.tail, m.peak, m.peak_step):
        found = word("x")(died)
        assert np.isnan(found[0]) and np.isfinite(found[1]), word


def test_at_is_the_last_observation_up_to_a_step():
    same(at("test", 0)(TWO), [0, 0])
    same(at("test", 9)(TWO), [0, 0.25])
    same(at("test", 10)(TWO), [0.5, 0.75])
    same(at("test", 1e9)(TWO), [1, 0.5])
    same(at("test", first_step("train", 1))(TWO), [0, 0.75])


def test_at_a_step_before_the_first_observation():
    late = trace(
        (5, 6, 7, 8), test=TWO.test.values, start=[[9] * 4, [4] * 4], never=[[NAN] * 4] * 2
    )
    with pytest.raises(ValueError, match=r"test at step 3: it is observed from step 5 on"):
        at("test", 3)(late)
    same(at("test", final("start"))(late), [1, NAN])
    same(at("test", final("never"))(late), [NAN, NAN])


def test_observations_may_be_whole_numbers():
    counts = trace(n=np.array([[0, 1, 2, 3]]))
    same(final("n")(counts), [3])
    same(at("n", first_step("n", 2))(counts), [2])
    same(m.peak_step("n")(counts), [100])


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("uint8", 3, 5), ("uint8", 200, 200), ("int8", -100, 100), ("int32", 70_000, 70_000),
        ("float16", 60_000, 60_000), ("float32", 2.0**24, 1), ("bool", True, False),
    ],
)  # fmt: skip
def test_terms_compute_in_float64_whatever_an_observable_is_kept_in(kind, first, second):
    two = {
        arm: trace((0, 1), x=np.array([[value] * 2, [second] * 2], kind))
        for arm, value in (("a", first), ("b", second))
    }
    a, b = final("x")["a"], final("x")["b"]
    one, other = np.array([first, second], float), np.full(2, second, float)
    for function in (
        lambda x, y: x - y, lambda x, y: y - x, lambda x, y: x + y, lambda x, y: x * x,
        lambda x, y: -y, lambda x, y: 2 * x - 0.5,
    ):  # fmt: skip
        same(function(a, b)(two), function(one, other))
        same(function(final("x"), m.average("x"))(two["a"]), function(one, one))
        same(m.tail(function(curve("x"), curve("x")[:]))(two["a"]), function(one, one))
    same(m.mean([a, b])(two), (one + other) / 2)
    same(m.log1p(abs(a))(two), np.log1p(abs(one)))
    same(m.average("x")(two["a"]), one)


def test_a_level_is_reached_in_the_precision_of_the_observable():
    for kind in (np.float16, np.float32, np.float64):
        kept = trace(x=np.array([[1, 0.1, 0.01, 0]], kind))
        for level in (0.01, np.float64(0.01), np.float32(0.01)):
            if kind is np.float64 and isinstance(level, np.float32):
                continue  # which is not 0.01
            for line in ("x", curve("x")[:], curve("x")):
                same(first_step(line, level, below=True)(kept), [10])
    rising = trace(x=np.array([[0, 0.3, 0.7, 1]], np.float32))
    same(first_step("x", np.float64(0.7))(rising), [10])
    same(first_step("n", np.float64(1.5))(trace(n=np.array([[0, 1, 2, 3]], np.uint8))), [10])


def test_a_slope_over_equal_levels_is_unknown():
    traces, e = constant(a=[1, 2], b=[2, 4])
    same(m.slope((0.5, 0.5), [e["a"], e["b"]])(traces), [NAN, NAN])
    flat = trace(x=[[1.0, 2, 4, 8]] * 2, n=[[3, 3, 3, 3], [1, 2, 4, 8]])
    np.testing.assert_allclose(growth("x", against="n", since=0)(flat), [NAN, 1])
    alike = trace(x=[[1.0, 2, 4, 8]], n=[[3, 3, 3, 3]])
    same(growth("x", against="n", since=0)(alike), [NAN])


def test_growth_is_the_exponent_of_a_power_law():
    t = np.array([0, 1, 2, 4, 8, 16])
    found = growth("x", since=0)(trace(t, x=[3.0 * t**2, 5.0 * np.sqrt(t)]))
    np.testing.assert_allclose(found, [2, 0.5], rtol=1e-12)
    # Before the last half it goes otherwise; a point on the border counts.
    bent = trace(t, x=[np.array([9, 9, 9, 9, 8.0, 16])])
    np.testing.assert_allclose(growth("x", since=0.5)(bent), [1], rtol=1e-12)
    rounds = trace(range(6), x=[t**3.0], round=[t])
    np.testing.assert_allclose(growth("x", against="round", since=0)(rounds), [3], rtol=1e-12)


def test_growth_leaves_out_what_has_no_logarithm():
    t = np.array([1, 2, 4, 8])
    x = [[0, 4, 16, 64], [1, NAN, 16, 64], [0, 0, 0, 64], [0, 0, 0, 0], [1, 2, 4, np.inf]]
    found = growth("x", since=0)(trace(t, x=np.array(x, float)))
    np.testing.assert_allclose(found, [2, 2, NAN, NAN, 1], rtol=1e-12)
    own = trace(range(4), x=[[1.0, 2, 4, 8]] * 2, n=[[1, 2, 4, 8], [1, 4, 16, 64]])
    np.testing.assert_allclose(growth("x", against="n", since=0)(own), [1, 0.5], rtol=1e-12)


def test_the_slope_of_a_curve_on_another():
    x = np.array([[1.0, 2, 4, 8], [1, 1, 3, 7], [2, 2, 2, 2], [1, 2, 3, 4]])
    y = np.array([[3.0, 5, 9, 17], [0, 2, 1, 5], [1, 2, 3, 4], [1, NAN, 3, 4]])
    found = m.slope_of("y", on="x")(trace(x=x, y=y))
    wanted = [np.polyfit(x[seed], y[seed], 1)[0] for seed in (0, 1)]
    np.testing.assert_allclose(found, [*wanted, NAN, NAN])
    assert m.slope_of(m.log(curve("y")), on="x").text == "slope of log(y) on x"


def test_a_measure_of_the_observations_that_have_a_value():
    sweep = trace(
        size=[[1, 2, 2, 3]] * 2, rate=[[0.1, 0.1, 0.2, 0.2]] * 2, x=[[1, 2, 3, 4], [5, 6, 7, 8]]
    )
    same(m.within(m.average("x"), size=2)(sweep), [2.5, 6.5])
    same(m.within(final("x"), size=2, rate=0.1 + 1e-12)(sweep), [2, 6])
    same(m.within(final("x"), size=4)(sweep), [NAN, NAN])
    assert m.within(final("x"), size=2, rate=0.1).text == "final x at size = 2, rate = 0.1"
    apart = sweep.assign(size=(("seed", "step"), [[1, 2, 2, 3], [2, 2, 1, 3]]))
    with pytest.raises(ValueError, match="seeds have size at different observations"):
        m.within(final("x"), size=2)(apart)


def test_curves_are_chosen_from_and_computed_with():
    by_layer = trace(
        norm=(("layer",), np.arange(16.0).reshape(2, 4, 2), {"layer": ["body", "head"]})
    )
    same(final("norm", layer="head")(by_layer), [7, 15])
    ratio = curve("norm", layer="head") / curve("norm", layer="body")
    np.testing.assert_allclose(final(ratio)(by_layer), [7 / 6, 15 / 14])
    assert final(ratio).text == "final (norm[layer=head] / norm[layer=body])"
    gap = curve("train") - curve("test")
    same(m.peak(gap)(TWO), [1, 0.5])
    same(first_step(gap, 0.5)(TWO), [1, 100])
    same(m.average(curve("test")[1:-1])(TWO), [0.25, 0.5])
    # Steps stay with the observations that are left.
    same(m.peak_step(curve("test")[:-1])(TWO), [10, 10])


def test_what_a_trace_does_not_have_ends_in_one_sentence():
    layers = trace(norm=(("layer",), np.zeros((1, 4, 2)), {"layer": ["body", "head"]}))
    for measure, message in (
        (final("nrm"), r"no observable 'nrm'; there are: norm"),
        (final("norm", layer="tail"), r"norm has no layer 'tail'; there are: body, head"),
        (final("norm", part="head"), r"norm has no dimension 'part', only seed, step, layer"),
        (final("norm"), r"norm has the dimension 'layer' too: choose one, as in layer='body'"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(layers)
    unnamed = trace(x=(("place",), np.zeros((1, 4, 2)), {}))
    with pytest.raises(ValueError, match="x has no place 5; there are: 0, 1"):
        final("x", place=5)(unnamed)
    with pytest.raises(TypeError, match="choose layer where it is made"):
        final(curve("norm"), layer="head")


def test_terms_by_hand_must_have_the_right_shape():
    @m.measure("both ends")
    def ends(trace):
        return trace.test.values[:, [0, -1]]

    @m.derived("one end")
    def end(trace):
        return trace.test.values[:, -1]

    with pytest.raises(ValueError, match=r"both ends must be one number a seed, not \(2, 2\)"):
        ends(TWO)
    with pytest.raises(ValueError, match=r"one end must be \[seed, step\] = \(2, 4\), not \(2,\)"):
        final(end)(TWO)

    @m.derived("running best")
    def best(trace):
        return np.maximum.accumulate(trace.test.values, axis=1)

    same(final(best)(TWO), [1, 0.75])
    assert final(best).text == "final running best"


def test_an_effect_is_a_measure_of_an_arm_and_knows_its_arms():
    traces = {"a": TWO, "b": trace(test=[[0, 0, 0, 0.25], [0, 0, 0, 0.75]])}
    test = final("test")
    gain = test["a"] - test["b"]
    same(gain(traces), [0.75, -0.25])
    assert gain.arms == ("a", "b")
    assert gain.text == "(final test of a - final test of b)"
    assert (test - at("test", 0))["b"].text == "(final test - test at step 0) of b"
    with pytest.raises(KeyError, match="b"):
        gain({"a": TWO})

    @m.effect("by hand", "b", "a")
    def hand(traces):
        return traces["b"].test.values[:, -1] + traces["a"].test.values[:, -1]

    same(hand(traces), [1.25, 1.25])
    assert (gain / hand).arms == ("a", "b") and (hand / gain).arms == ("b", "a")


def constant(**values):
    """Effects with these values, and the traces that they read."""
    traces = {name: trace((0,), x=np.array(v, float)[:, None]) for name, v in values.items()}
    return traces, {name: final("x")[name] for name in values}


def test_words_of_several_effects():
    traces, e = constant(a=[1, 5], b=[3, 2], c=[2, 2])
    every = [e["a"], e["b"], e["c"]]
    same(m.mean(every)(traces), [2, 3])
    same(m.highest(every)(traces), [3, 5])
    same(m.lowest(every)(traces), [1, 2])
    same(m.best(every)(traces), [1, 5])  # means 3, 2.5 and 2
    same(m.best(every, lowest=True)(traces), [2, 2])
    same(m.at_least(e["a"], 2)(traces), [2, 5])
    same(m.log10(at_hundred := e["a"] * 0 + 100)(traces), [2, 2])
    same(m.log1p(at_hundred - 100)(traces), [0, 0])
    same(m.log(at_hundred / 100)(traces), [0, 0])
    assert m.highest(every).arms == ("a", "b", "c")
    same(m.combined("middle", lambda *v: np.median(v, axis=0), *every)(traces), [2, 2])


def test_the_best_on_average_is_one_that_all_seeds_can_say():
    traces, e = constant(a=[9, NAN], b=[1, 1])
    same(m.best([e["a"], e["b"]])(traces), [1, 1])
    same(m.best([e["a"], e["b"]], lowest=True)(traces), [1, 1])
    same(m.best([e["a"]])(traces), [9, NAN])


def test_correlations_over_arms_for_each_seed():
    traces, e = constant(a=[1, 1, 3, 0, 0], b=[2, 4, 2, 0, NAN], c=[3, 2, 1, 0, 0])
    ys = [e["a"], e["b"], e["c"]]
    np.testing.assert_allclose(m.spearman((1, 2, 4), ys)(traces), [1, 0.5, -1, NAN, NAN])
    np.testing.assert_allclose(m.pearson((0, 1, 2), ys)(traces)[:3], [1, 1 / np.sqrt(84 / 9), -1])
    assert np.isnan(m.pearson((0, 1, 2), ys)(traces)[3:]).all()
    np.testing.assert_allclose(m.spearman(ys, ys)(traces), [1, 1, 1, NAN, NAN])
    assert np.isnan(m.spearman((1, 1, 1), ys)(traces)).all()
    np.testing.assert_allclose(m.slope((0, 1, 2), ys)(traces), [1, 0.5, -1, 0, NAN], atol=1e-12)
    for word in (m.pearson, m.spearman, m.slope):
        assert word((1, 2, 4), ys).arms == ("a", "b", "c")
        with pytest.raises(ValueError, match="not 2 and 3"):
            word((1, 2), ys)


def test_one_seed_is_a_column_of_one():
    one = {"a": TWO.isel(seed=[0]), "b": TWO.isel(seed=[1])}
    test = final("test")
    every = [test["a"], test["b"]]
    for effect, wanted in (
        (test["a"] - test["b"], 0.5), (m.best(every), 1), (m.mean(every), 0.75),
        (m.spearman((1, 2), every), -1), (m.pearson((1, 2), every), -1),
        (m.slope((1, 2), every), -0.5), (at("test", first_step("train", 1))["b"], 0.75),
    ):  # fmt: skip
        np.testing.assert_allclose(effect(one), [wanted])
    t = np.array([1, 2, 4, 8])
    np.testing.assert_allclose(growth("x")(trace(t, x=[t**2.0])), [2])


def test_kinds_do_not_mix():
    test = final("test")
    for bad in (lambda: test - test["a"], lambda: curve("test") / test, lambda: test - "test"):
        with pytest.raises(TypeError):
            bad()
    with pytest.raises(TypeError, match="one kind, not Effect, Measure"):
        m.highest([test, test["a"]])
    with pytest.raises(TypeError, match="no term"):
        m.mean([])


def test_numbers_of_numpy_may_stand_on_either_side():
    traces, e = constant(a=[1, 2])
    for number in (2, 2.0, np.float64(2), np.int64(2)):
        same((number * e["a"])(traces), [2, 4])
        same((number - e["a"])(traces), [1, 0])
        same((e["a"] / number)(traces), [0.5, 1])
    assert isinstance(np.float64(2) / e["a"], Effect)
    assert isinstance(np.float64(2) / final("test"), Measure)


def test_settings_of_a_trace():
    assert m.setting(trace(config={"rate": 0.5}, x=[[0] * 4]), "rate") == 0.5


numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
columns = st.lists(numbers, min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(columns, columns, numbers)
def test_arithmetic_of_terms_is_arithmetic_of_their_values(one, other, number):
    a, b = np.array(one), np.array(other)
    traces, e = constant(a=one, b=other)
    with np.errstate(divide="ignore", invalid="ignore"):
        for function in (
            lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y,
            lambda x, y: abs(-x) - y * number, lambda x, y: number - x, lambda x, y: number / y,
            lambda x, y: number + x + number,
        ):  # fmt: skip
            same(function(e["a"], e["b"])(traces), function(a, b))
            measures = function(final("x"), m.peak("x"))
            same(measures(traces["a"]), function(a, a))
            same(final(function(curve("x"), curve("x")))(traces["a"]), function(a, a))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_arms_are_the_union_in_order(names):
    total = m.mean([final("x")[name] for name in names])
    assert total.arms == tuple(dict.fromkeys(names))
    difference = total - final("x")["e"] / final("x")["a"]
    assert difference.arms == tuple(dict.fromkeys([*names, "e", "a"]))


def test_a_function_of_each_seed_for_itself():
    @m.seedwise("step at which x passes y", "x", curve("y") + 1)
    def passes(steps, x, y):
        return steps[(x > y).argmax()]

    two = trace(x=[[0, 1, 2, 3], [0, 9, 9, 9]], y=[[1, 1, 0, 0], [1, 1, 1, 1]])
    same(passes(two), [10, 1])
    assert passes.text == "step at which x passes y"
    died = trace(x=[[0, 1, 2, 3], [0, 9, NAN, 9]], y=[[1, 1, 0, 0]] * 2)
    same(passes(died), [10, NAN])
    same(passes["a"]({"a": died}), [10, NAN])


def test_the_best_setting_on_the_other_seeds():
    values = np.array([[0.0, 9.0], [5.0, 4.0], [5.0, 4.0]])
    same(m.best_on_others(values, lowest=True), [1, 0, 0])  # what seed 0 has counts for the others
    same(m.best_on_others(-values), [1, 0, 0])
    same(m.best_on_others(values[:1]), [0])


def test_a_rival_is_chosen_on_the_other_seeds():
    traces = {"a": trace(x=[[0] * 4, [5] * 4, [5] * 4]), "b": trace(x=[[9] * 4, [4] * 4, [4] * 4])}
    rivals = [m.final("x")[arm] for arm in traces]
    same(m.chosen(rivals)(traces), [0, 4, 4])  # seed 0 would have had b, by its own luck
    same(m.chosen(rivals, lowest=True)(traces), [9, 5, 5])
    assert (
        m.chosen(rivals).arms == ("a", "b")
        and "highest on the other seeds" in m.chosen(rivals).text
    )
    died = traces | {"b": trace(x=[[9] * 4, [NAN] * 4, [NAN] * 4])}
    same(m.chosen(rivals)(died), [0, NAN, NAN])  # NaN counts as the 0 that is worst here
    same(m.chosen(rivals)({arm: trace(x=[[NAN] * 4, [NAN] * 4]) for arm in traces}), [NAN, NAN])


def test_the_steepest_rise_is_between_two_observations():
    late = trace(x=[[9, 0, 1, 2], [0, 0, 2, 3]], steps=(0, 1, 10, 1000))
    same(m.steepest_rise("x")(late), np.sqrt([10, 10]))  # what comes before step 1 does not count
    same(m.steepest_rise("x")(trace(x=[[0, 0, 0.1, 1]], steps=(0, 1, 10, 100))), np.sqrt([1000]))
    assert m.steepest_rise("x").text == "step of the steepest rise of x"


def test_a_part_of_the_observations_for_each_seed():
    two = trace(x=[[0, 1, 2, 3], [0, 4, 5, NAN]], y=[[0, 0, 1, 1], [0, 1, 1, 1]])
    reached = first_step("y", 1)
    same(m.during(np.nanmean, "x", since=reached)(two), [2.5, 4.5])
    same(m.during(np.nanmean, "x", before=reached)(two), [0.5, 0])
    same(m.during(np.nanmax, "x", since=1, before=100)(two), [2, 5])
    same(m.during(np.nanmax, "x", since=100)(two), [3, NAN])
    same(m.during(np.nanmax, "x", since=first_step("y", 2, never="nan"))(two), [NAN, NAN])
    assert m.during(np.nanmax, "x", since=1).text == "max of x from 1 to inf"
