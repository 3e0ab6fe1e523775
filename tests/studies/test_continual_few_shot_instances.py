"""What the cells of a suite are, and the study's effects on traces worked by hand."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from latebloom.lab.verdict import judge
from latebloom.methods.forgetting.corrupted import KINDS, NOISES, OCCLUSIONS
from latebloom.methods.forgetting.episodes import by_class
from latebloom.methods.forgetting.examined import drop, lost_share
from latebloom.methods.forgetting.exams import FRACTIONS, STATISTICS, Plan
from latebloom.studies.forgetting import continual_few_shot_instances as module
from latebloom.studies.forgetting.continual_few_shot_instances import (
    ARMS,
    CLAIMS,
    LABELS,
    SEVERAL,
    TUNED,
    Config,
    along,
    arranged,
    asked,
    cells_of,
    gain,
    plan_of,
    study,
)

BY_ID = {claim.id: claim for claim in CLAIMS}


def traced(seeds=3, **cells):
    """A trace with accuracies of cells (numbers in per cent), the same for all seeds but for the seed's number."""
    names = list(cells)
    values = np.array([[cells[n] + s for n in names] for s in range(seeds)])[:, None] / 100
    return xr.Dataset({"accuracy": (("seed", "step", "cell"), values)},
                      {"cell": names, "seed": np.arange(seeds), "step": [1]})  # fmt: skip


def test_gains_are_means_over_arrangements():
    cells = {f"{t}/{a}/{how}": 10 * (t == "instance") + 5 * (a == "4x5") + {"replay": 40, "own": 20, "tune": 19}[how]
             for t in module.TESTS for a in SEVERAL for how in ("replay", "own", "tune")}  # fmt: skip
    cells["instance/10x2/replay"] += 8
    traces = {"pretrained": traced(**cells)}
    np.testing.assert_allclose(gain("class")(traces), 20)
    np.testing.assert_allclose(gain("instance")(traces), 24)
    np.testing.assert_allclose(BY_ID["C4.interaction"].effect(traces), 4)
    np.testing.assert_allclose(BY_ID["C4.class"].null(traces), 1)
    np.testing.assert_allclose(BY_ID["C3.comparable"].effect(traces), 10)


def test_knowing_the_last_set_alone_is_a_null_of_what_is_comparable():
    cells = [c for name, c in cells_of(Config()).items() if name.split("/")[2] == "tune" and name.split("/")[1] in SEVERAL]  # fmt: skip
    assert np.mean([100 / c.design.sets for c in cells]) == module.LAST
    told = {"C3.occlusion", "C3.noise", "C3.occlusion-pixels", "C3.comparable-once"}
    assert all(BY_ID[name].added == "after results" for name in told)


def test_the_spread_of_arrangements_is_told_by_other_seeds():
    cells = {f"class/{a}/tune": 10.0 * i for i, a in enumerate(LABELS)}
    np.testing.assert_allclose(arranged("class")({"pretrained": traced(**cells)}), 40)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):  # no difference but noise: none on average
        trace = traced(5, **cells)
        trace["accuracy"][:] = rng.normal(size=trace["accuracy"].shape) / 100
        found.append(arranged("class")({"pretrained": trace}).mean())
    assert abs(np.mean(found)) < 0.15


def test_accuracy_above_chance():
    n = np.array(Config().checks) * 10
    course = np.stack([1 / n, np.ones(5)])[:, None, None]
    trace = xr.Dataset({"course": (("seed", "step", "how", "check"), course)},
                       {"how": ["tune"], "check": range(5), "seed": [0, 1], "step": [1]})  # fmt: skip
    for effect in along("tune"):
        np.testing.assert_allclose(effect({"pretrained": trace}), [0, 1], atol=1e-12)


def coursed(**ways):
    """A trace with shares along the sequence of three seeds."""
    values = np.stack([np.tile(v, (3, 1)) for v in ways.values()], axis=1)[:, None]
    return xr.Dataset({"course": (("seed", "step", "how", "check"), values)},
                      {"how": list(ways), "check": range(5), "seed": range(3), "step": [1]})  # fmt: skip


def test_nulls_of_what_more_classes_cost_can_be_wrong():
    """They are measured: a curve that falls has a null that keeps its values and loses their order; an untrained
    network that fell as far would leave no evidence."""
    n = np.array(Config().checks) * 10
    above = np.array([0.8, 0.6, 0.4, 0.2, 0.1])
    falls, guesses = above * (1 - 1 / n) + 1 / n, 1 / n
    traces = {"pretrained": coursed(tune=falls), "dot": coursed(prototypes=falls), "untrained": coursed(prototypes=guesses)}  # fmt: skip
    more, prototypes = BY_ID["C1.more"], BY_ID["C1.prototypes"]
    np.testing.assert_allclose(more.effect(traces), 0.7)
    order = np.random.default_rng(0).permuted(np.tile(above, (3, 1)), axis=1)
    np.testing.assert_allclose(more.null(traces), order[:, 0] - order[:, -1])
    np.testing.assert_allclose(prototypes.null(traces), 0, atol=1e-12)
    assert judge(prototypes, traces).verdict == "holds"
    as_far = traces | {"untrained": traces["dot"]}
    assert judge(prototypes, as_far).verdict == "no evidence"


def test_what_statistics_cost_anyway_is_the_null_of_what_neighbours_cost():
    def leaking(name, batch, running, alone):
        values = np.tile([batch, running, alone], (3, 1, 1, 1)) + np.arange(3)[:, None, None, None] / 1e3  # fmt: skip
        return xr.Dataset({"leak": (("seed", "step", "leaking", "statistics"), values)},
                          {"leaking": [name], "statistics": list(STATISTICS), "seed": range(3), "step": [1]})  # fmt: skip

    claim = BY_ID["T.alone"]
    traces = {"dot": leaking("class/4x5/prototypes", 0.6, 0.65, 0.3)}
    np.testing.assert_allclose(claim.effect(traces), 30)
    np.testing.assert_allclose(claim.null(traces), -5)
    assert BY_ID["T.tune"].null.arms == ("pretrained",)


def test_drops_are_over_kinds():
    values = np.zeros((2, 1, 1, 4, 10))
    values[..., 0] = 0.9
    values[..., :2, 5], values[..., 2:, 5] = 0.3, 0.5
    trace = xr.Dataset({"robust": (("seed", "step", "asked", "kind", "fraction"), values)},
                       {"asked": ["instance/10x2/tune"], "kind": list(KINDS), "fraction": list(FRACTIONS),
                        "seed": [0, 1], "step": [1]})  # fmt: skip
    np.testing.assert_allclose(drop(*asked("tune"), OCCLUSIONS)({"pretrained": trace}), 60)
    np.testing.assert_allclose(drop(*asked("tune"), NOISES)({"pretrained": trace}), 40)
    shares = [lost_share(*asked("tune"), kinds, 5.0)({"pretrained": trace}) for kinds in (OCCLUSIONS, NOISES)]  # fmt: skip
    np.testing.assert_allclose(shares, [[60 / 85] * 2, [40 / 85] * 2])
    values[..., 0], values[..., 5] = 0.4, 0.05  # down to a guess: all of it
    np.testing.assert_allclose(lost_share(*asked("tune"), KINDS, 5.0)({"pretrained": trace}), 1)


@pytest.mark.parametrize("arm", ARMS)
def test_cells_are_what_they_say(arm):
    config = ARMS[arm]
    cells = cells_of(config)
    for name, cell in cells.items():
        test, label, _ = name.split("/")
        assert (cell.design.test == "instances") == (test not in ("class", "shots"))
        assert cell.design.sets * cell.design.images == 20, name
        if cell.how in ("tune", "replay", "own"):
            assert cell.rate in TUNED
        if not any(word in name for word in ("five", "many")) and cell.how in (
            "tune",
            "replay",
            "own",
        ):
            assert cell.design.sets * cell.steps == config.total, name  # as many steps in all
        assert cell.design.sets == int(label.split("x")[0])
        assert cell.statistics == ("batch" if cell.rate in TUNED and cell.how in ("tune", "replay", "own") else "running")  # fmt: skip
    replay, own = (cells.get(f"class/4x5/{how}") for how in ("replay", "own"))
    if replay is not None:
        assert replace(own, how="replay", rate=replay.rate) == replay
    plan = plan_of(config)
    assert set(plan.robust) <= set(cells) and set(plan.leaking) <= set(cells)
    if arm == "sweeps":
        assert cells["class/10x2/many"].steps == 120 and cells["class/10x2/five"].steps == 5
        assert cells["class/4x5/overwrite"].design.outputs == 5


def test_prototypes_do_not_know_how_their_images_were_arranged():
    """Nothing is tuned, and no statistics of a set are used: two images at a time or one, the answers are the same."""
    config = study.configs("smoke")["dot"]
    process = module.make_process(config)
    cells = tuple((n, c) for n, c in cells_of(config).items() if n.startswith("class/"))
    process = replace(process, plan=Plan(cells, 6, robust=(cells[0][0],)))
    assert [c.design.sets for _, c in cells] == [2, 4]
    state = eqx.filter_jit(process.init)(jax.random.key(0))
    found = eqx.filter_jit(lambda p, s: p.observe(s))(process, state)
    assert 0 < found["accuracy"][0] < 1 and found["accuracy"][0] == found["accuracy"][1]
    np.testing.assert_allclose(
        found["robust"][0, :, 0], found["accuracy"][0]
    )  # nothing is lost yet


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    assert ("sweeps" in study.arms_of(budget)) == (budget != "quick")
    if budget != "quick":
        assert set(study.arms_of(budget)) == set(ARMS)


def test_the_papers_scale_can_be_traced(monkeypatch):
    images = np.zeros((1700 * 2, 28, 28, 1), np.float32)
    shelf = by_class(np.repeat(np.arange(1700), 2))
    monkeypatch.setattr(module, "data_of", lambda *_: (images, shelf, {}))
    for arm in ("pretrained", "dot"):
        process = module.make_process(study.configs("full")[arm])
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        assert state.learner.body.convolutions[2].weight.shape[-1] == 384
        if arm == "pretrained":
            eqx.filter_eval_shape(process.step, state)
