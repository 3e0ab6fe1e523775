"""Pictures are drawn whatever was run, with labels that can be told apart and read."""

import json

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure

from latebloom.lab import pictures as p
from latebloom.lab import style
from latebloom.measures import curve, final


def trace(shift=0.0, **config):
    steps = np.array([0, 1, 10, 100])
    values = shift + np.arange(8.0).reshape(2, 4)
    names = {"loss": 10 - values, "accuracy": values / 10, "norm": values + 1}
    variables = {name: (("seed", "step"), v) for name, v in names.items()}
    attrs = {"config": json.dumps({"rate": 0.5} | config)}
    return xr.Dataset(variables, {"seed": [0, 1], "step": steps}, attrs)


TRACES = {f"arm-{i}": trace(i, rate=0.1 * i) for i in range(12)}
ALL = {arm: f"method {i}" for i, arm in enumerate(TRACES)}


def part(first, last):
    return dict(list(ALL.items())[first:last])


def shown(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


def entries(figure):
    """The texts of each legend of a figure."""
    legends = [*figure.legends, *(ax.get_legend() for ax in shown(figure))]
    return [[text.get_text() for text in legend.get_texts()] for legend in legends if legend]


def looks(ax):
    """Colour and dashes of the lines that a panel's legend is about."""
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    return [(to_hex(line.get_color()), line.get_linestyle()) for line in lines]


def check(figure):
    """What holds for every picture."""
    for ax in shown(figure):
        found = looks(ax)
        assert len(set(found)) == len(found), "two lines of a panel look alike"
    for texts in entries(figure):
        assert len(set(texts)) == len(texts), "an entry of a legend is there twice"
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legends = [*figure.legends, *(ax.get_legend() for ax in shown(figure))]
    for legend in filter(None, legends):
        box = legend.get_window_extent(canvas.get_renderer())
        for ax in shown(figure):
            assert not box.overlaps(ax.get_window_extent()), "a legend covers data"
    return figure


def test_curves_of_groups_share_colours_and_one_legend_where_they_can():
    draw = p.curves("accuracy", ("one", part(0, 3)), ("two", part(1, 5)), ylabel="accuracy (1)")
    figure = check(draw(TRACES))
    assert [ax.get_title() for ax in shown(figure)] == ["one", "two"]
    assert entries(figure) == [[f"method {i}" for i in range(5)]]
    one, two = map(looks, shown(figure))
    assert one[1:] == two[:2]
    assert [ax.get_xlabel() for ax in shown(figure)] == ["step", "step"]
    assert [ax.get_ylabel() for ax in shown(figure)] == ["accuracy (1)", ""]


def test_groups_with_many_labels_have_a_legend_each():
    draw = p.curves("loss", ("one", part(0, 5)), ("two", part(4, 12)))
    figure = check(draw(TRACES))
    first, second = entries(figure)
    assert first == [f"method {i}" for i in range(5)]
    assert second == [f"method {i}" for i in range(4, 12)]
    one, two = map(looks, shown(figure))
    assert one[4] == two[0]  # what is in both panels looks the same


def test_more_labels_than_colours_are_told_apart_by_dashes():
    figure = check(p.curves("loss", ("all", ALL))(TRACES))
    assert len(looks(shown(figure)[0])) == 12
    assert len({colour for colour, _ in looks(shown(figure)[0])}) == 7
    assert entries(figure) == [list(ALL.values())]
    assert len({tuple(p.nth_look(i).values()) for i in range(28)}) == 28
    with pytest.raises(ValueError, match="28 lines"):
        p.nth_look(28)


def test_a_line_that_lies_on_another_may_look_otherwise():
    draw = p.curves("loss", ("", part(0, 2)), look={"method 1": {"linestyle": ":"}})
    (ax,) = shown(check(draw(TRACES)))
    assert [dashes for _, dashes in looks(ax)] == ["-", ":"]


def test_two_lines_of_one_name_are_refused():
    with pytest.raises(ValueError, match="called 'same'"):
        p.curves("loss", ("one", {"arm-0": "same", "arm-1": "same"}))(TRACES)


def test_arms_that_were_not_run_are_left_out():
    ran = {arm: TRACES[arm] for arm in ("arm-1", "arm-5")}
    groups = (("one", part(0, 3)), ("two", part(4, 6)), ("three", part(8, 10)))
    figure = check(p.curves("loss", *groups)(ran))
    assert [ax.get_title() for ax in shown(figure)] == ["one", "two"]
    assert entries(figure) == [["method 1", "method 5"]]
    figure = check(p.observables({"loss (nats)": "loss"}, part(0, 4))(ran))
    assert [ax.get_title() for ax in shown(figure)] == ["method 1"]
    rows = {label: final("loss")[arm] for arm, label in ALL.items()}
    figure = check(p.dots({"loss": rows, "none": {"x": final("loss")["arm-9"]}})(ran))
    assert [text.get_text() for text in shown(figure)[0].get_yticklabels()] == [
        "method 1", "method 5",
    ]  # fmt: skip
    assert len(shown(figure)) == 1
    effects = [final("loss")[arm] for arm in ALL]
    figure = check(p.trend(("sweep", {"tuned": (range(12), effects)}))(ran))
    assert list(shown(figure)[0].get_lines()[0].get_xdata()) == [1, 5]


@pytest.mark.parametrize("draw", [
    p.curves("loss", ("one", ALL)), p.observables({"loss": "loss"}, ALL),
    p.curves({"a": "loss", "b": "norm"}, ("one", ALL), ("two", ALL)),
    p.dots({"loss": {"row": final("loss")["arm-0"]}}),
    p.trend(("", {"x": ([1], [final("loss")["arm-0"]])})),
])  # fmt: skip
def test_nothing_run_is_an_empty_figure(draw):
    check(draw({}))


def test_one_group_has_a_panel_for_each_observable():
    names = {"norm of all weights": "norm", "gap": curve("loss") - curve("accuracy")}
    levels = {"gap": {"collapse": 3.0}}
    own = {"gap": {"yscale": "symlog"}}
    draw = p.curves(names, ("", part(0, 3)), levels=levels, own=own, log_steps=True, xlabel="epoch")
    left, right = shown(check(draw(TRACES)))
    assert [left.get_ylabel(), right.get_ylabel()] == list(names)
    assert (left.get_yscale(), right.get_yscale()) == ("linear", "symlog")
    assert left.get_xscale() == "symlog" and left.get_xlabel() == right.get_xlabel() == "epoch"
    assert [text.get_text() for text in right.texts] == ["collapse"] and not left.texts


def test_several_groups_of_several_observables_are_a_grid():
    names = {"loss (nats)": "loss", "norm": "norm"}
    groups = (("A", part(0, 2)), ("B", part(0, 2)), ("C", part(0, 2)))
    figure = check(p.curves(names, *groups, own={"B": {"yscale": "log"}})(TRACES))
    axes = np.reshape(shown(figure), (2, 3))
    assert [ax.get_title() for ax in axes.flat] == ["A", "B", "C", "", "", ""]
    assert [ax.get_ylabel() for ax in axes.flat] == ["loss (nats)", "", "", "norm", "", ""]
    assert [ax.get_xlabel() for ax in axes.flat] == ["", "", "", "step", "step", "step"]
    assert [ax.get_yscale() for ax in axes[0]] == ["linear", "log", "linear"]
    assert len(figure.legends) == 1 and entries(figure) == [["method 0", "method 1"]]


def test_traces_may_change_before_they_are_drawn():
    def hours(trace):
        return trace.assign_coords(step=trace.step / 10)

    figure = p.curves(curve("loss")[1:], ("", part(0, 1)), as_drawn=hours)(TRACES)
    line = shown(figure)[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.1, 1, 10])
    np.testing.assert_array_equal(line.get_ydata(), [7, 6, 5])  # mean of 9, 8, 7 and 5, 4, 3


def test_labels_and_titles_name_settings():
    titles = dict.fromkeys(("arm-1", "arm-2"), "rate {rate:.0%}")
    figure = check(p.observables({"loss": "loss"}, titles)(TRACES))
    assert [ax.get_title() for ax in shown(figure)] == ["rate 10%", "rate 20%"]
    figure = p.curves("loss", ("", {"arm-3": "η = {rate:.1f}"}))(TRACES)
    assert entries(figure) == [["η = 0.3"]]


def test_a_limit_that_is_left_open_holds_for_all_panels():
    """Axes are shared: what is drawn last must not be cut off by what was drawn first."""
    norm = final("norm")
    levels = ([1, 2], [norm["arm-0"], 50 * norm["arm-1"]])
    pictures = (
        p.curves("loss", ("low", part(0, 1)), ("high", part(1, 2)), ylim=(0, None),
                 as_drawn=lambda t: t * (1 if t.attrs == TRACES["arm-0"].attrs else 50)),
        p.trend(("low", {"": ([1], [norm["arm-0"]])}), ("high", {"": levels}), ylim=(0, None)),
    )  # fmt: skip
    for draw in pictures:
        low, high = shown(check(draw(TRACES)))
        assert low.get_ylim() == high.get_ylim() and low.get_ylim()[0] == 0
        top = max(line.get_ydata().max() for ax in (low, high) for line in ax.get_lines())
        assert low.get_ylim()[1] >= top


def test_more_is_drawn_on_each_panel_of_an_arm():
    def shade(ax, trace):
        ax.fill_between(trace.step, 0, trace.accuracy.mean("seed"), label="share")
        p.vertical(ax, trace.step[1], "fitted")

    figure = check(p.observables({"loss": "loss", "norm": "norm"}, part(0, 4), each=shade)(TRACES))
    assert entries(figure) == [["loss", "norm", "share"]]
    assert all([text.get_text() for text in ax.texts] == ["fitted"] for ax in shown(figure))
    assert len(figure.axes) == 6 and len(shown(figure)) == 4  # two rows of three


def test_observables_may_change_look_otherwise_and_stay_out_of_the_legend():
    draw = p.observables(
        {"loss": "loss", "_norm": "norm"}, part(0, 3), as_drawn=lambda t: t.isel(seed=[1]), columns=2,
        look={"_norm": {"colour": "#D55E00", "linestyle": ":"}},
    )  # fmt: skip
    figure = check(draw(TRACES))
    assert entries(figure) == [["loss"]] and len(figure.axes) == 4  # two rows of two
    loss, norm = shown(figure)[0].get_lines()
    np.testing.assert_array_equal(loss.get_ydata(), [6, 5, 4, 3])  # of the second seed alone
    assert (norm.get_color(), norm.get_linestyle()) == ("#D55E00", ":")


def test_curves_may_have_a_dot_at_each_observation():
    (ax,) = shown(check(p.curves("loss", ("", part(0, 2)), markers=True)(TRACES)))
    assert [line.get_marker() for line in ax.get_lines()] == ["o", "o"]


def test_ticks_are_the_only_ones_and_plain():
    norm = final("norm")
    effects = [norm["arm-0"], norm["arm-3"]]
    groups = [(title, {"": ((0.25, 2), effects)}) for title in ("here", "there")]
    draw = p.trend(*groups, xscale="log", own={"here": {"ticks": (0.25, 2)}}, levels={"bound": 7.0})
    here, there = shown(check(draw(TRACES)))
    assert [text.get_text() for text in here.get_xticklabels()] == ["0.25", "2"]
    assert not len(here.get_xticks(minor=True)) and len(there.get_xticks(minor=True))
    assert [text.get_text() for text in here.texts] == ["bound"]
    assert any(set(line.get_ydata()) == {7.0} for line in there.get_lines())


def test_dots_have_rows_colours_and_a_bar_at_the_mean():
    loss, norm = final("loss"), final("norm")
    table = {"loss (nats)": {"one": {"raw": loss["arm-0"], "tuned": loss["arm-1"]},
                             "two": {"raw": loss["arm-2"]}}, "norm": {"one": norm["arm-0"]}}  # fmt: skip
    figure = check(p.dots(table, levels={"chance": 5.0}, own={"norm": {"xlim": (0, 9)}})(TRACES))
    left, right = shown(figure)
    assert (left.get_xlabel(), right.get_xlabel()) == ("loss (nats)", "norm")
    assert right.get_xlim() == (0, 9)
    assert entries(figure) == [["raw", "tuned"]]
    bars = [line for line in left.get_lines() if line.get_marker() == "|"]
    assert [bar.get_xdata()[0] for bar in bars] == [5, 4, 3]  # means of 7, 3; 6, 2; and 5, 1
    assert [round(float(bar.get_ydata()[0])) for bar in bars] == [0, 0, 1]
    (alone,) = (line for line in right.get_lines() if line.get_marker() == "|")
    assert list(alone.get_ydata()) == [0]  # the other panel's labels move nothing
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first row on top


def test_trend_of_effects_over_levels():
    norm = final("norm")
    levels, effects = (1, 10), [norm["arm-0"], norm["arm-3"]]
    gap = [norm["arm-0"] - norm["arm-1"], norm["arm-3"] - norm["arm-2"]]
    groups = (("rate", {"norm": (levels, effects), "gap": (levels, gap)}),)
    (ax,) = shown(check(p.trend(*groups, xscale="log", own={"rate": {"xlabel": "η"}})(TRACES)))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_title()) == ("log", "η", "rate")
    lines = dict(zip("nd", ax.get_lines()[:1], strict=False))
    np.testing.assert_allclose(lines["n"].get_ydata(), [6, 9])  # means of 4, 8 and of 7, 11
    (ax,) = shown(p.trend(("", {"norm": (levels, effects)}), geometric=True)(TRACES))
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), np.sqrt([32, 77]))


def test_trend_leaves_out_seeds_that_say_nothing():
    broken = {"arm-0": trace().where(trace().seed == 0), "arm-1": trace() * np.nan}
    effects = [final("norm")["arm-0"], final("norm")["arm-1"]]
    (ax,) = shown(check(p.trend(("", {"norm": ((1, 2), effects)}))(broken)))
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), [[1, 4]])


def test_gantt_shows_work_waits_and_events():
    figure, ax = style.figure()
    spans = [np.array([[0.0, 2, 5], [1, 4, 6]]), np.array([[0.0], [3]])]
    p.gantt(ax, spans, np.array([1.0, 3, 9]), until=4)
    assert ax.get_xlim() == (0, 4) and len(ax.get_lines()) == 2  # the last event is later
    bars = [path.get_extents() for c in ax.collections for path in c.get_paths()]
    assert sorted((b.x0, b.x1) for b in bars) == [(0, 1), (0, 3), (2, 4)]


def test_a_guide_is_a_power_between_two_places():
    figure, ax = style.figure()
    p.guide(ax, (2.0, 3.0), 8.0, 1.5, "steep")
    (line,), (text,) = ax.get_lines(), ax.texts
    np.testing.assert_allclose(line.get_xydata(), [[2, 3], [8, 24]])  # 3 · 4^1.5
    assert (text.get_text(), text.xy) == ("steep", (8, 24))


@pytest.mark.parametrize(
    ("span", "labels"),
    [((1, 1e4), []), ((30, 400), ["50", "200"]), ((0.3, 0.8), ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"])],
)  # fmt: skip
def test_labels_of_a_logarithmic_axis_do_not_run_into_each_other(span, labels):
    figure = Figure()
    ax = figure.add_subplot()
    ax.set_xscale("log")
    ax.set_xlim(*span)
    style.png(figure)
    places, texts = ax.get_xticks(minor=True), ax.get_xticklabels(minor=True)
    shown = [
        text.get_text() for place, text in zip(places, texts, strict=True)
        if text.get_text() and span[0] * 0.999 <= place <= span[1] * 1.001
    ]  # fmt: skip
    assert shown == labels


def test_a_table_has_a_number_for_each_cell_that_was_run():
    loss = final("loss")
    cells = {"raw": {"one": loss["arm-0"], "two": loss["arm-1"]}, "late": {"two": loss["arm-2"]}, "none": {}}  # fmt: skip
    draw = p.table(cells, norm=LogNorm(0.1, 10), text="{:.1f}", of=np.max, title="loss (nats)")
    (ax,) = shown(check(draw(TRACES)))
    assert [text.get_text() for text in ax.texts] == [
        "7.0",
        "6.0",
        "",
        "5.0",
    ]  # of 7, 3; 6, 2; 5, 1
    assert [text.get_text() for text in ax.get_xticklabels()] == ["one", "two"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["raw", "late"]
    assert {ax.texts[i].get_color() for i in (0, 1)} <= {"white", "#222222"}
    assert ax.get_title() == "loss (nats)"
    check(draw({}))
    dark, light = (p.table({"": {"": loss["arm-0"]}}, norm=Normalize(*ends))(TRACES).axes[0].texts[0]
                   for ends in ((0, 5), (0, 10)))  # fmt: skip
    assert (dark.get_color(), light.get_color()) == ("white", "#222222")  # the middle is light


def test_shades_go_from_dark_to_light_in_order():
    found = p.shades(["a", "b", "a", "c"])
    light = [sum(np.array(to_rgb(look["colour"])) * (0.2, 0.7, 0.1)) for look in found.values()]
    assert list(found) == ["a", "b", "c"] and light == sorted(light) and light[0] < 0.2 < light[-1]
    assert {look["linestyle"] for look in found.values()} == {"-"} and len(p.shades(["one"])) == 1


def test_what_is_drawn_by_hand_has_its_panels_and_one_legend():
    @p.by_hand(2, width=6, height=2.5, sharey=True, legend=True)
    def drawn(traces, left, right):
        for ax in (left, right):
            ax.plot(traces["arm-0"].loss.mean("seed"), label="loss")

    figure = drawn(TRACES)
    check(figure)
    assert len(shown(figure)) == 2 and entries(figure) == [["loss"]]
    assert p.by_hand()(lambda traces, ax: None)({}).get_figheight() == 3.3
