"""What the arms are made of; what measures say is tested beside them."""

import equinox as eqx
import jax
import numpy as np
import pytest

from latebloom.core.dataset import Dataset
from latebloom.core.memory import CLASS_BALANCED
from latebloom.data import load
from latebloom.methods.forgetting.recurring import Relabelled, frequencies
from latebloom.methods.forgetting.replay import ER
from latebloom.nn import LeNet
from latebloom.studies.forgetting import scole as module
from latebloom.studies.forgetting.scole import ARMS, CLAIMS, TUNED, study


def drawn(arm, seed=0, **more):
    """The stream of an arm, and the labels of its rows [task, place]."""
    config = module.replace(ARMS[arm], steps=2, **more)
    process = module.make_process(config)
    stream = eqx.filter_jit(process.stream)(jax.random.key(seed))
    labels = np.asarray(module.labels(config.data)[0])
    rows = np.asarray(stream.rows)
    return np.asarray(stream.classes), labels[rows % len(labels)].reshape(config.tasks, -1), rows


def test_streams_have_the_classes_that_they_say():
    plan, labels, _ = drawn("sgd")
    assert plan.shape == (500, 10) and (plan.sum(axis=1) == 2).all()
    assert all(set(seen) == set(np.flatnonzero(row)) for seen, row in zip(labels, plan, strict=True))  # fmt: skip
    assert drawn("iid")[0].all()
    gone = drawn("vanishing")[0]
    assert gone[:250].any(axis=0).all() and not gone[250:, 5:].any()
    once, again = drawn("disjoint")[0], drawn("repeated")[0]
    assert (once[:100] == once[0]).all() and (once[::100].sum(axis=0) == 1).all()
    assert (again[5:] == again[:-5]).all() and (again[:5].sum(axis=0) == 1).all()
    halves = drawn("periods")[0]
    assert not halves[:250, 5:].any() and not halves[250:, :5].any()


def test_arms_that_are_compared_meet_the_same_streams():
    for one, other in (("sgd", "masked-sgd"), ("sgd", "adam"), ("sgd", "null")):  # fmt: skip
        np.testing.assert_array_equal(drawn(one)[2], drawn(other)[2])
    np.testing.assert_array_equal(drawn("vanishing")[2], drawn("masked-vanishing")[2])


def test_replay_gives_as_many_places_to_rare_classes_as_to_random_ones():
    plan, plain, _ = drawn("rare")
    _, often, _ = drawn("rare-frequency")
    _, random, _ = drawn("rare-random")
    theirs = {"often": often, "random": random}
    old = {
        name: np.array(
            [~np.isin(seen, np.flatnonzero(row)) for seen, row in zip(of, plan, strict=True)]
        )
        for name, of in theirs.items()
    }
    assert old["often"].sum() == old["random"].sum() > 1000
    np.testing.assert_array_equal(old["often"].sum(axis=1), old["random"].sum(axis=1))
    share = plan.mean(axis=0)
    assert share[often[old["often"]]].mean() < 0.6 * share[random[old["random"]]].mean()
    # Classes differ in frequency as the law says, in an order of the seed's own.
    assert (np.argsort(share)[::-1] != np.arange(100)).mean() > 0.8
    wanted = np.sort(frequencies(100, 2.0))[::-1]
    np.testing.assert_allclose(np.sort(share)[::-1][:90:10], 10 * wanted[:90:10], rtol=0.25)


def test_corrupted_images_keep_their_labels():
    data = module.corrupted("digits", 8)
    images = load("digits")
    n = len(images.y_train)
    assert data.x_train.shape == (9 * n, 64)
    np.testing.assert_array_equal(np.asarray(data.y_train).reshape(9, n), np.tile(images.y_train, (9, 1)))  # fmt: skip
    apart = np.abs(np.asarray(data.x_train).reshape(9, n, 64) - np.asarray(data.x_train[:n])).mean(
        axis=(1, 2)
    )
    assert apart[0] == 0 and (apart[1:] > 0.005).all()
    _, _, rows = drawn("corrupted", data="digits", side=8, exam=20)
    version = rows.reshape(500, -1) // n
    assert (version == version[:, :1]).all() and set(version[:, 0]) == set(range(9))


def test_arms_are_what_they_are_called():
    made = {arm: module.make_process(ARMS[arm]) for arm in ("null", "er", "conv", "momentum-fresh", "unit", "masked-adam")}  # fmt: skip
    assert isinstance(made["null"].method, Relabelled) and isinstance(made["er"].method, ER)
    assert made["er"].replay.size == 200 and made["er"].replay.policy == CLASS_BALANCED
    assert made["momentum-fresh"].fresh and made["masked-adam"].head == "batch"
    conv = eqx.filter_eval_shape(made["conv"].model, jax.random.key(0))
    assert isinstance(conv, LeNet) and conv.hidden.weight.shape == (320, 50)
    unit = eqx.filter_eval_shape(made["unit"].model, jax.random.key(0))
    assert unit.readout.weight.shape == (50, 10)
    rates = {arm: float(p.hyper["learning_rate"]) for arm, p in made.items()}
    assert rates["masked-adam"] == pytest.approx(TUNED["masked adam"])
    same = [module.make_process(ARMS[arm]).stream for arm in ("sgd", "masked-adam", "width-200")]
    assert same[0].config == same[1].config == same[2].config


def test_rates_are_tuned_and_the_same_where_claims_say_so():
    assert list(TUNED) == list(module.CELLS)
    assert ARMS["momentum-same-rate"].rate == ARMS["sgd"].rate
    assert ARMS["sgd-slow"].rate == ARMS["momentum"].rate
    assert ARMS["momentum-0.01"].rate / (1 - 0.9) == pytest.approx(ARMS["sgd"].rate)
    assert ARMS["linear"].layers == 0 and ARMS["momentum-fresh"].fresh
    for null, arm in (("deep-null", "deep"), ("corrupted-null", "corrupted"), ("linear-null", "linear"), ("adam-null", "adam")):  # fmt: skip
        assert ARMS[null] == module.replace(ARMS[arm], relabelled=True)
    assert [ARMS[f"{head}{length}"].tasks for head in ("", "masked-") for length in ("short", "long")] == [2500, 125] * 2  # fmt: skip
    assert ARMS["masked-long"].mask and not ARMS["long"].mask


@pytest.mark.parametrize("budget", ["quick", "thorough", "full"])
def test_budgets_know_their_arms(budget):
    configs = study.configs(budget)
    assert set(configs) == set(ARMS) if budget != "quick" else len(configs) < 15
    assert all(claim.budget in ("quick", "thorough") for claim in CLAIMS)
    assert {c.tasks for c in configs.values()} >= {500, 1000}


def test_the_papers_scale_can_be_traced(monkeypatch):
    x = np.zeros((200, 28, 28, 1), np.float32)
    y = np.tile(np.arange(10, dtype=np.int32), 2000)

    def fake(name, *, side, flat):
        image = x[:100].reshape(100, -1) if flat else x[:100]
        return Dataset(image, y[:100], np.tile(image, (100, 1)), np.tile(y[:100], 100))

    monkeypatch.setattr(module, "load_scaled", fake)
    monkeypatch.setattr(module, "labels", lambda name: (y[:100], y[:10_000]))
    configs = study.configs("full")
    assert [configs[f"width-{w}"].width for w in (12, 200)] == [24, 400]
    assert [configs[arm].steps for arm in ("short", "masked-short", "sgd", "long")] == [
        37,
        37,
        188,
        752,
    ]
    for arm in ("sgd", "masked-vanishing", "width-200"):
        assert configs[arm].data == "fashion-mnist" and configs[arm].steps == 188
        process = module.make_process(configs[arm])
        state = eqx.filter_eval_shape(process.init, jax.random.key(0))
        assert state.model.layers[0].weight.shape == (784, configs[arm].width)
        assert state.stream.rows.shape == (500 * 188, 64)
        assert state.stream.exams.rows.shape == (10, 1000)
        eqx.filter_eval_shape(process.step, state)
