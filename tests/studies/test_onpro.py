"""What the arms are made of, and effects on traces worked by hand."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from latebloom.core.dataset import Dataset
from latebloom.methods.forgetting import mixing, separated
from latebloom.methods.forgetting.prototypes import OnPro
from latebloom.studies.forgetting import onpro as module
from latebloom.studies.forgetting.onpro import ARMS, BASELINES, CLAIMS, TUNED, study

BY_ID = {claim.id: claim for claim in CLAIMS}
NAN = np.nan


def trace(first, last, **more):
    """Two seeds, two tasks, three classes: accuracy when the first task is over [seed], and of both at the end [seed, task]."""
    values = np.full((2, 3, 2), NAN)
    values[:, 1, 0], values[:, 2] = first, last
    table = {name: (("seed", "step", "class", "other")[: np.ndim(v)], np.array(v, float)) for name, v in more.items()}  # fmt: skip
    return xr.Dataset(
        {"accuracy": (("seed", "step", "task"), values), "learning": (("seed", "step"), [[0, 0, 1]] * 2), **table},
        {"step": [0, 80, 160], "seed": [0, 1], "task": [0, 1], "diverged_at": ("seed", [NAN, NAN])}, {"config": json.dumps({})},
    )  # fmt: skip


def test_margins_and_the_best_baseline_by_hand():
    level = {"er": (0.5, 0.6), "erace": (0.4, 0.4), "der": (0.7, 0.5), "scr": (0.6, 0.8), "ins": (0.6, 0.7), "ocm": (0.5, 0.5)}  # fmt: skip
    traces = {arm: trace([0.9, 0.9], [[v, v] for v in of]) for arm, of in level.items()}
    traces["onpro"] = trace([0.9, 0.8], [[0.7, 0.9], [0.7, 0.7]])
    traces["sham"] = trace([0.9, 0.8], [[0.6, 0.6], [0.6, 0.6]])
    assert BY_ID["C1.er"].effect(traces) == pytest.approx([30, 10])
    assert BY_ID["C1.floor"].effect(traces) == pytest.approx([20, 0])
    assert BY_ID["C1.floor"].null(traces) == pytest.approx([0, -10])
    # SCR is best on the second seed, DER++ on the first.
    assert BY_ID["C1.best"].effect(traces) == pytest.approx([20, 20])
    # Lost on the first task: 0.2 and 0.1 against 0.3 and 0.2.
    assert BY_ID["C4"].effect(traces) == pytest.approx([-10, -10])


def test_what_is_read_from_confusions_and_distances():
    apart = np.full((2, 3, 3, 3), NAN)
    apart[:, 2] = [[0, 0.2, 1.0], [0.2, 0, 0.8], [1.0, 0.8, 0]]
    told = np.full((2, 3, 3, 3), NAN)
    told[:, 2] = [[0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]]
    found = trace([1, 1], np.ones((2, 2)), apart=apart, confusion=told)
    assert separated.distance(found) == pytest.approx([2 / 3] * 2)
    assert separated.senses(found) == pytest.approx([1, 1])
    assert separated._confused(found)[0] == pytest.approx([30, 0, 10])


def test_nearness_in_another_arm_is_that_arms_and_pairs_that_are_not_known_count_in_nothing():
    apart, online = np.full((2, 3, 3, 3), NAN), np.full((2, 3, 4, 4), NAN)
    apart[:, 2] = [[0, 1.0, 0.2], [1.0, 0, 0.8], [0.2, 0.8, 0]]
    told = np.full((2, 3, 3, 3), NAN)
    told[:, 2] = [[0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]]
    traces = {"a": trace([1, 1], np.ones((2, 2)), apart=apart), "b": trace([1, 1], np.ones((2, 2)), confusion=told)}  # fmt: skip
    assert separated.senses_by("a", "b")(traces) == pytest.approx([-1, -1])
    # Of four classes the last is in no batch.
    told, near = np.zeros((2, 3, 4, 4)), [[0, 0.2, 1.0], [0.2, 0, 0.8], [1.0, 0.8, 0]]
    told[:, 2, :3, :3] = [[0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]]
    online[:, 2, :3, :3] = near
    found = trace([1, 1], np.ones((2, 2)), online=online, confusion=told)
    assert separated.online(found) == pytest.approx([1, 1])
    online[1, 2, 0, 2] = NAN  # two pairs are too few
    assert np.isnan(separated.online(found.assign(online=(found.online.dims, online)))[1])


def test_others_are_in_another_order_for_each_seed():
    apart = np.tile(np.arange(45.0), (6, 1))
    others = separated._others(apart)
    assert len({tuple(row) for row in others}) == 6
    np.testing.assert_array_equal(np.sort(others, axis=1), apart)


@pytest.mark.parametrize(("near", "sharpness", "share"), [
    (0.95, 1.0, 1 / 5 + 4 / 50 - 0.1),  # 0.52 draws for one pair, 0.497 for the others: one is rounded up, four go to anyone
    (0.1, 1.0, 0.9),  # one pair has all five
    (0.4, 1.0, 2 / 5 + 3 / 50 - 0.1),  # two of five, and a tenth of the other three
    (0.1, 0.0, 0.0),  # where distances do not count
])  # fmt: skip
def test_what_distances_move_is_what_the_learner_draws(near, sharpness, share):
    online = np.full((2, 3, 5, 5), NAN)
    online[:, 2] = 1 - np.eye(5)
    online[:, 2, 0, 1] = near
    found = trace([1, 1], np.ones((2, 2)), online=online)
    found.attrs["config"] = json.dumps({"replay": 20, "base": 0.75, "sharpness": sharpness})
    assert separated.moved(found) == pytest.approx([share] * 2)
    a, b = np.triu_indices(5, 1)
    chances = mixing.pair_chances(jnp.asarray(online[0, 2, a, b]), sharpness)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.vmap(lambda key: mixing.pair_counts(chances, jnp.int32(5), key))(keys).mean(axis=0)
    assert np.abs(drawn - 0.5).sum() / 10 == pytest.approx(share, abs=0.02)


def test_probes_are_of_the_ends_of_tasks_and_drops_are_of_the_end():
    found = trace(
        [0.9, 0.9],
        [[0.8, 0.6], [0.5, 0.5]],
        unseen=[[0.1, 0.4, NAN], [0.1, 0.6, NAN]],
        shifted=[[NAN, 0.8, 0.5], [NAN, 0.8, 0.5]],
    )
    assert separated.unseen(found) == pytest.approx([40, 60])
    assert module.dropped(found) == pytest.approx([20, 0])


def test_arms_are_what_they_say():
    methods = {arm: module.method_of(ARMS[arm]) for arm in ARMS}
    full, floor, sham = methods["onpro"], methods["ins"], methods["sham"]
    assert isinstance(full, OnPro) and full.feedback and full.copies == 4 and full.sharpness == 1
    assert methods["no-new"].new == methods["no-seen"].seen == methods["uniform"].sharpness == 0
    for bare in (floor, methods["ope"], sham):
        assert bare.chance == 0 and bare.base == 1
    assert floor.new == floor.seen == 0 and not floor.distilled
    assert methods["ocm"].distilled and isinstance(sham, module.Sham) and sham.new == sham.seen == 1
    for part in ("ope", "apf", "no-new", "uniform", "sham"):
        assert ARMS[part].rate == ARMS["onpro"].rate and ARMS[part].scale == ARMS["onpro"].scale
    same, slow = ARMS["ins-same"], ARMS["er-slow"]
    assert (same.method, same.rate, same.scale) == ("ins", ARMS["onpro"].rate, ARMS["onpro"].scale)
    assert replace(ARMS["cue/ins-same"], ground="plain") == same
    bare = methods["bare"]
    assert replace(ARMS["bare"], method="ins") == ARMS["ins"] and bare.instance == bare.new == 0
    assert slow.rate == ARMS["ins"].rate and replace(slow, rate=ARMS["er"].rate) == ARMS["er"]
    twin = ARMS["ins-same-200"]
    assert replace(twin, memory=50) == same and replace(twin, method="onpro") == ARMS["onpro-200"]
    assert replace(ARMS["shuffled/ins-same"], ground="plain") == same
    for arm in ("er", "onpro"):
        assert replace(ARMS[f"shuffled/{arm}"], ground="plain") == ARMS[arm]
    assert (
        ARMS["cue/er-views"].views and replace(ARMS["cue/er-views"], views=False) == ARMS["cue/er"]
    )
    # Its probe solves for all seeds at once, which never ends on as many host devices as cores.
    assert module.make_process(replace(same, data="digits", side=8, exam=7)).one_device
    assert set(TUNED) == {*BASELINES, "onpro", "joint"}


def test_gdumb_learns_from_a_balanced_memory_alone():
    labels = jnp.asarray(np.repeat([0, 1, 2], [50, 30, 20]))
    rows = module.remembered_alone(labels, 12, 9, 5, jax.random.key(0))
    assert rows.shape == (9, 5)
    kept = np.unique(rows)
    assert len(kept) == 12 and np.bincount(np.asarray(labels)[kept]).tolist() == [4, 4, 4]
    # Two batches an epoch, the incomplete rest is dropped: no example twice in one.
    assert all(len(set(np.ravel(rows[i : i + 2]).tolist())) == 10 for i in range(0, 8, 2))
    other = module.remembered_alone(labels, 12, 9, 5, jax.random.key(1))
    assert set(np.unique(other)) != set(kept)
    process = module.make_process(replace(ARMS["gdumb"], data="digits", side=8, exam=7))
    assert process.replay is None and process.steps == 400


def test_the_colour_tells_the_classes_of_a_task_and_is_broken_in_the_other_exam():
    data, broken = module.on_ground("digits", 8, "cue")
    corner = np.asarray(data.x_test)[:, 0, 0]
    parity = np.asarray(data.y_test) % 2
    hue = corner.argmax(axis=1)
    assert all(len(set(hue[parity == p])) == 1 for p in (0, 1)) and len(set(hue)) == 2
    assert len(set(np.asarray(broken)[:, 0, 0].argmax(axis=1))) == 3
    assert broken.shape == data.x_test.shape


def test_grounds_alike_have_the_two_colours_of_the_cue_and_tell_nothing():
    told, broken = module.on_ground("digits", 8, "cue")
    data, same = module.on_ground("digits", 8, "alike")
    hues = [np.asarray(d.x_train)[:, 0, 0].argmax(axis=1) for d in (told, data)]
    assert set(hues[0]) == set(hues[1])
    parity = np.asarray(data.y_train) % 2
    one = hues[1] == hues[1][0]
    assert abs(one[parity == 0].mean() - one[parity == 1].mean()) < 0.1 and 0.4 < one.mean() < 0.6
    np.testing.assert_array_equal(same, broken)


def test_shuffled_colours_tell_the_classes_of_each_task_but_never_keep_their_places():
    data, broken = module.on_ground("digits", 8, "shuffled")
    corner, label = np.asarray(data.x_test)[:, 0, 0], np.asarray(data.y_test)
    level = corner - corner.min(axis=1, keepdims=True)
    blue = level[:, 2] / level.max(axis=1)
    red = level[:, 0] / level.max(axis=1)
    assert np.all(red[np.isin(label, (0, 5, 7))] > 0.99) and np.all(blue[np.isin(label, (0, 5, 7))] < 0.7)  # fmt: skip
    assert np.all(blue[np.isin(label, (1, 2, 6, 9))] > 0.99)
    pairs = [tuple(pair) for pair in module.SHUFFLED.reshape(5, 2).tolist()]
    assert len(set(pairs)) == 5 and all(a != b for a, b in pairs)
    places = [{place for pair in pairs for place in (0, 1) if pair[place] == c} for c in range(3)]
    assert places == [{0, 1}] * 3
    assert broken.shape == data.x_test.shape


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    configs = study.configs(budget)
    assert "cue/onpro" in configs and ("apf" in configs) == (budget != "quick")


def test_the_papers_scale_can_be_traced(monkeypatch):
    x = np.zeros((40, 28, 28, 1), np.float32)
    y = (np.arange(40) % 10).astype(np.int32)
    big = Dataset(x, y, np.tile(x, (250, 1, 1, 1)), np.tile(y, 250))
    monkeypatch.setattr(module, "load_scaled", lambda name, **_: big)
    configs = study.configs("full")
    assert configs["onpro-200"].memory == 500
    process = module.make_process(configs["onpro"])
    state = eqx.filter_eval_shape(process.init, jax.random.key(0))
    assert state.stream.rows.shape == (6000, 10)
    assert state.model.projection.weight.shape == (512, 128)
    eqx.filter_eval_shape(process.step, state)
    assert module.schedule(configs["onpro"])[-1] == 6000
