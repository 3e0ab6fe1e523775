"""What the arms are made of, what rules answer, and effects on traces worked by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.data.planar import delaunay, hull
from latebloom.data.tours import distances, held_karp, tour_length
from latebloom.methods.recurrence.pointer import AttentionSeq2Seq, PointerNetwork, Seq2Seq
from latebloom.methods.recurrence.pointer_answers import task
from latebloom.studies.recurrence import pointer_networks as module
from latebloom.studies.recurrence.pointer_networks import ARMS, CLAIMS, Config, study

BY_ID = {claim.id: claim for claim in CLAIMS}
EXAMS = ["low", "high", "x1.5", "x2", "x3", "ring", "clusters", "beam-5"]


def trace(first=0.0, **last):
    """Two seeds, two observations; of each observable the last, a number or {exam: number}."""
    values = {}
    for name, told in last.items():
        rows = [told.get(e, np.nan) if isinstance(told, dict) else told for e in EXAMS]
        values[name] = (
            ("seed", "step", "exam"),
            np.tile(np.stack([np.full(8, first), rows]), (2, 1, 1)),
        )
    return xr.Dataset(values, {"seed": [0, 1], "step": [0, 10], "exam": EXAMS})


def test_effects_by_hand():
    pointer = trace(
        first=0.9,
        exact={"low": 0.9, "high": 0.7, "x1.5": 0.4, "x2": 0.2, "x3": 0.05, "ring": 0.5},
        area={"high": 0.99, "x2": 0.98},
        failed={"high": 0.1, "x2": 0.3},
    )
    rival = trace(exact={"high": 0.4, "x2": 0.0}, failed={"high": 0.3})
    traces = {
        "hull/pointer": pointer,
        "hull/attention": rival,
        "hull/plain": rival,
        "hull/one-size": rival,
        "hull/extremes": trace(area=0.7),
    }
    for claim, value in (
        ("C1.attention", 0.3), ("C1.area", 0.99), ("C1.failed", 0.2), ("C2.beyond", 0.2), ("C2.dictionary", 0.0), ("C2.fall", -1),
        ("C2.one", 0.3), ("C2.ring", 0.2), ("C2.failed", 0.3),
    ):  # fmt: skip
        assert BY_ID[claim].effect(traces) == pytest.approx([value] * 2, abs=1e-12), claim
    assert BY_ID["C2.failed"].null(traces) == pytest.approx([0.9] * 2)
    assert BY_ID["C1.area"].null(traces) == pytest.approx([0.7] * 2)
    tours = {
        "tour/pointer": trace(
            length={"high": 3.0, "beam-5": 2.9, "x2": 5.0, "low": 2.0}, gap={"low": 0.01}
        ),
        "tour/student": trace(length={"beam-5": 3.1}),
        "tour/nearest": trace(length={"high": 3.2, "beam-5": 3.2, "x2": 4.5, "low": 2.1}),
        "tour/christofides": trace(length=3.0),
        "tour/random": trace(length=5.0),
    }
    for claim, value in (("C4.beam", 0.1), ("C4.teacher", 0.1), ("C4.christofides", 0.1), ("C5.beyond", 0.5)):  # fmt: skip
        assert BY_ID[claim].effect(tours) == pytest.approx([value] * 2), claim
    assert BY_ID["C4.teacher"].null(tours) == pytest.approx([-1.8] * 2)


def test_arms_differ_in_what_they_say():
    own = ARMS["hull/pointer"]
    assert replace(ARMS["hull/one-size"], low=own.low) == own
    assert replace(ARMS["delaunay/unordered"], order="incentre") == ARMS["delaunay/pointer"]
    assert ARMS["tour/student"].labels == "nearest" and ARMS["hull/sgd"].optimiser == "sgd"
    for arm, kind in (("hull/pointer", PointerNetwork), ("hull/attention", AttentionSeq2Seq), ("hull/plain", Seq2Seq)):  # fmt: skip
        made = module.make_process(replace(ARMS[arm], exam=4)).network(jax.random.key(0))
        assert isinstance(made, kind)
    assert made.readout.bias.shape == (31,)  # room for the largest exam, and the end
    assert {c.size for c in ARMS.values()} == {own.size}
    assert {ARMS[a].steps for a in ("hull/attention", "hull/plain", "hull/sgd")} == {own.steps}


def test_exams_are_the_same_for_all_and_as_large_as_they_say():
    hulls = module.exams_of(Config(exam=3))
    counts = {name: set(np.asarray(exam.counts).tolist()) for name, exam in hulls.items()}
    assert counts == {"low": {5}, "high": {10}, "x1.5": {15}, "x2": {20}, "x3": {30}, "ring": {10}, "clusters": {10}}  # fmt: skip
    assert module.exams_of(Config(who="plain", exam=3))["x2"] is hulls["x2"]
    assert not np.allclose(hulls["ring"].points, hulls["high"].points)
    tours = module.exams_of(Config("tour", exam=3))
    assert tours["beam-5"] is tours["high"] and "x3" not in tours
    d = distances(np.asarray(tours["x2"].points, np.float64))
    long = tour_length(d, np.asarray(tours["x2"].targets) - 1)
    assert (long < 1.5 * 6).all() and tours["x2"].points.shape == (3, 20, 2)
    assert list(module.exams_of(Config("delaunay", high=5, exam=3))) == ["high"]


def test_rules_answer_by_their_word():
    exam = module._exam("tour", 5, "uniform", 20)
    for who in ("random", "nearest", "christofides"):
        config = Config("tour", who)
        scores = task("tour").scores(jax.numpy.asarray(module.rule(config, exam)), exam)
        assert not scores["failed"].any()
        best = held_karp(distances(np.asarray(exam.points, np.float64))).length
        np.testing.assert_allclose(scores["length"] / (1 + scores["gap"]), best, rtol=1e-4)
        assert scores["gap"].max() <= (0.5 if who == "christofides" else 5)
    exam = module._exam("hull", 20, "uniform", 40)
    scores = task("hull").scores(jax.numpy.asarray(module.rule(Config(who="extremes"), exam)), exam)
    assert scores["failed"].mean() < 0.1 and 0.4 < np.nanmean(scores["area"]) < 0.9
    config = Config("delaunay", "random", high=5, exam=200)
    exam = module.exams_of(config)["high"]
    tokens = module.rule(config, exam)
    scores = task("delaunay").scores(jax.numpy.asarray(tokens), exam)
    assert not scores["failed"].any()
    share = (np.asarray(exam.lengths) // 3 / 10).mean()  # of ten triples
    assert scores["covered"].mean() == pytest.approx(share, abs=0.04)
    assert len(delaunay(exam.points[0])) == (exam.lengths[0] - 1) // 3


def test_the_full_budget_is_of_the_papers_recipe():
    full = study.configs("full")
    own = full["hull/pointer"]
    assert (own.high, own.size, own.batch, own.optimiser, own.rate, own.bound) == (50, 256, 128, "sgd", 1.0, 0.08)  # fmt: skip
    assert full["hull/one-size"].low == 50 and full["tour/pointer"].high == 12
    assert full["delaunay/larger"].low == 10 and full["delaunay/random"].high == 5


def test_each_kind_tells_what_it_says():
    configs = study.configs("smoke")
    for arm in ("hull/attention", "hull/extremes", "delaunay/pointer", "tour/student"):
        config = configs[arm]
        process = module.make_process(config)
        seen = eqx.filter_eval_shape(
            lambda k, p=process: p.observe(_state(p.step(p.init(k)))), jax.random.key(0)
        )
        assert set(process.quantities()) - {"train_loss", "gradient_norm"} == set(seen), arm
        assert module.schedule(config)[-1] == (16 if config.who in module.LEARNERS else 1)


def _state(stepped):
    return getattr(stepped, "state", stepped)


def test_answers_are_drawn_as_far_as_they_go():
    figure, (ax,) = module.pictures.panels(1)
    points = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    module._outline(ax, "hull", points, np.array([1, 2, 3, 0, 0]), {})
    module._outline(ax, "delaunay", points, np.array([1, 2, 3, 1, 3, 4, 2, 0]), {})
    module._outline(ax, "hull", points, np.array([0, 0]), {})
    lines = [line.get_xydata() for line in ax.lines]
    assert len(lines) == 3 and [len(one) for one in lines] == [4, 4, 4]
    assert lines[2].tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]]
    assert hull(points).tolist() == [0, 1, 2, 3]
