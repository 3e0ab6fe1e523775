"""Methods compared on one's own examples: the splits, the intervals, what is claimed, what is refused."""

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from latebloom import nn
from latebloom.core.stream import Stream
from latebloom.methods.forgetting import compare as module
from latebloom.methods.forgetting.compare import (  # fmt: skip
    FINE_TUNING,
    KEPT,
    by_time,
    compare,
    resampled_interval,
)

RNG = np.random.default_rng(0)
SIZES = (60, 45, 83)
TASKS = np.repeat([0, 1, 2], SIZES)[RNG.permutation(sum(SIZES))]
LABELS = RNG.integers(0, 4, sum(SIZES))


def blobs(n=40, spread=0.5):
    """Six classes in three tasks, far apart, as words in an order of their own."""
    centres = np.random.default_rng(1).normal(size=(6, 5)) * 3
    y = np.tile(np.arange(6), n)
    x = centres[y] + np.random.default_rng(2).normal(size=(6 * n, 5)) * spread
    return x, np.array(list("fbdace"))[y], np.array(["late", "early", "mid"])[y // 2]


@pytest.mark.parametrize("seed", range(3))
def test_every_split_has_each_example_once_and_every_label_in_all_parts(seed):
    split = module._Split.of(LABELS, TASKS, 3)
    assert (split.train + split.valid + split.test).tolist() == list(SIZES)
    assert split.train.tolist() == [42, 32, 58] and split.test.tolist() == [12, 9, 17]
    rows = np.asarray(split.rows(jax.random.key(seed)))
    assert sorted(rows) == list(range(sum(SIZES)))
    parts = [split.places(part, int(n.max())) for part, n in enumerate((split.train, split.valid, split.test))]  # fmt: skip
    taken = [set(rows[p].ravel().tolist()) for p in parts]
    assert len(set.union(*taken)) == sum(SIZES) == sum(map(len, taken))
    for task in range(3):
        for part in parts:
            assert (TASKS[rows[part[task]]] == task).all()
        inside = rows[parts[2][task]][: split.test[task]]
        counts = np.bincount(LABELS[inside], minlength=4)
        expected = 0.2 * np.bincount(LABELS[TASKS == task], minlength=4)
        assert (np.abs(counts - expected) <= 1).all()


@pytest.mark.parametrize("rehearses", [False, True])
def test_training_and_exams_have_no_example_in_common(rehearses):
    split = module._Split.of(LABELS, TASKS, 3)
    stream: Stream = module._Own(split, (9, 7, 12), 8, rehearses)(jax.random.key(5))
    rows, exams = np.asarray(stream.rows), np.asarray(stream.exams.rows)
    assert not set(rows.ravel()) & set(exams.ravel())
    assert not set(exams[:3].ravel()) & set(exams[3:].ravel())
    assert (TASKS[exams] == np.tile([0, 1, 2], 2)[:, None]).all()
    task = np.repeat([0, 1, 2], (9, 7, 12))
    assert (TASKS[rows] <= task[:, None]).all()
    assert rehearses == bool((TASKS[rows] < task[:, None]).any())
    if not rehearses:  # every training example once before any comes again
        first = rows[:5].ravel()[:40]
        assert len(set(first)) == 40


def test_the_interval_by_hand_and_how_often_it_holds_when_splits_overlap():
    values = np.array([1.0, 2, 4, 5])
    error = values.std(ddof=1) * np.sqrt(1 / 4 + 0.25)
    reach = stats.t.ppf(0.975, 3) * error
    np.testing.assert_allclose(resampled_interval(values, 0.25), [3 - reach, 3 + reach])
    rho, rng, held = 0.2, np.random.default_rng(0), 0  # a fifth of the examples is for exams
    for _ in range(2000):
        found = np.sqrt(rho) * rng.normal() + np.sqrt(1 - rho) * rng.normal(size=8)
        low, high = resampled_interval(found, rho / (1 - rho))
        held += low < 0 < high
    assert 0.93 < held / 2000 < 0.97


def test_the_most_accurate_is_seldom_left_out():
    """Six methods that are equal: whoever is meant to be the most accurate stays in 95 of 100 comparisons."""
    rng, names, rho, out = np.random.default_rng(1), list("abcdef"), 0.2, 0
    table = pd.DataFrame({"name": names, "memory": 0, "method": names})
    for _ in range(300):
        each = np.sqrt(rho) * rng.normal(size=(6, 1)) + np.sqrt(1 - rho) * rng.normal(size=(6, 8))
        measured = {name: {"accuracy": values} for name, values in zip(names, each, strict=True)}
        pairs = module._pairs(table, measured, rho / (1 - rho))
        out += "a" in set(pairs[pairs["apart"]]["b"])
    assert out / 300 < 0.08


def test_replay_is_told_from_forgetting():
    x, y, task = blobs()
    seen = []
    found = compare(
        x, y, task, methods=(FINE_TUNING, "ER", KEPT), memory=(60, 10**6), seeds=6, epochs=40,
        progress=lambda what, share: seen.append((what, share)),
    )  # fmt: skip
    assert found.names == ("late", "early", "mid") and found.classes == tuple("abcdef")
    assert found.counts == (80, 80, 80) and not found.shared and found.guess == pytest.approx(1 / 6)
    assert found.table["name"].tolist() == [FINE_TUNING, "ER, 60", KEPT]
    assert found.sizes == [0, 60] and found.top(60) == ["ER, 60"] and found.top(0) == [FINE_TUNING]
    rows = found.table.set_index("name")
    assert rows.loc["ER, 60", "accuracy"] > 0.85 and found.cost is not None and found.cost[1] > 0.05
    trace = found.traces["ER, 60"]
    assert rows.loc["ER, 60", "accuracy"] == pytest.approx(
        float(trace.accuracy.isel(step=-1).mean())
    )
    by_task = found.tasks[found.tasks["name"] == "ER, 60"]
    lost = (by_task["learned"] - by_task["at_the_end"]).iloc[:-1].mean()
    assert rows.loc["ER, 60", "forgetting"] == pytest.approx(lost)
    assert [what for what, _ in seen] == [*rows.index, "comparing"]
    chosen = found.tried[found.tried["name"] == "ER, 60"].sort_values("accuracy_chosen_by").iloc[-1]
    assert (
        chosen["accuracy_chosen_by"] <= 1
        and rows.loc["ER, 60", "rate"] in found.tried["rate"].tolist()
    )


def test_the_task_may_be_told_and_the_network_ones_own():
    x, y, task = blobs(20)
    import equinox as eqx

    found = compare(
        x, y, task, methods=(FINE_TUNING,), told=True, seeds=2, epochs=6,
        network=lambda key: eqx.nn.MLP(5, 6, 16, 1, key=key),
    )  # fmt: skip
    assert found.table.loc[0, "accuracy"] > 0.8 and found.guess == pytest.approx(0.5)
    assert found.cost is None and len(found.pairs) == 0
    image = np.random.default_rng(0).random((120, 8, 8)) + (np.arange(120) % 2)[:, None, None]
    found = compare(image, np.arange(120) % 2, np.arange(120) // 60, methods=(FINE_TUNING,), seeds=2, epochs=2, network="cnn")  # fmt: skip
    assert found.shared and found.names == (0, 1)
    assert isinstance(nn.SmallCNN((8, 8), key=jax.random.key(0)), nn.SmallCNN)


def test_each_methods_update_pays_for_the_same_examples():
    for name, candidate in module.candidates(20).items():
        replayed = 12 - candidate.new if candidate.memory else 0
        teacher = candidate.new / 3 if name == "LwF" else 0
        assert candidate.new + replayed + teacher == 12
        assert candidate.start in candidate.strengths


def test_periods_hold_as_many_examples_and_never_part_equal_times():
    time = np.repeat(np.arange(10), [5, 5, 5, 5, 5, 5, 5, 5, 5, 55])
    period = by_time(time, 2)
    assert period[time == 9].tolist() == [1] * 55 and (period[time < 9] == 0).all()
    even = by_time(np.random.default_rng(0).permutation(100), 4)
    assert np.bincount(even).tolist() == [25] * 4
    days = np.array(["2024-01-02", "2024-01-01", "2024-02-01", "2024-03-01"], "M8[ns]")
    assert by_time(days, 2).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="do not make 4 periods"):
        by_time(time, 4)
    with pytest.raises(ValueError, match="at least 2, not 1"):
        by_time(time, 1)


OK = {"x": blobs()[0], "y": blobs()[1], "task": blobs()[2]}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"task": OK["task"][:-1]}, "one for each of the 240 examples, not 239"),
        ({"task": np.zeros(240)}, "all examples are of task 0.0"),
        ({"task": np.where(np.arange(240) < 10, "few", "many")}, "'few' has 10 examples where at least 30"),
        ({"task": [None, *OK["task"][1:]]}, "example 0 has no task"),
        ({"y": ["a"] * 240}, "two classes or more"),
        ({"y": OK["y"][:5]}, r"x must be \[n, features\]"),
        ({"x": np.where(OK["x"] > 3, np.nan, OK["x"])}, "finite numbers"),
        ({"methods": ("ER", "GDumb")}, "methods must be some of fine-tuning, EWC"),
        ({"methods": "ER"}, "methods must be some of"),
        ({"methods": ()}, "methods must be some of"),
        ({"memory": ()}, "memory must be numbers of examples"),
        ({"memory": (0, 5)}, "memory must be numbers of examples"),
        ({"memory": (10**6,), "methods": ("ER",)}, "no memory is smaller than the 168 training examples"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"epochs": np.nan}, "epochs must be above 0"),
        ({"seeds": 1}, "seeds at least 2"),
        ({"batch_size": 50}, "multiple of 12, not 50"),
        ({"network": "rnn"}, "network must be 'mlp', 'cnn' or a model of your own"),
        ({"network": "cnn"}, "a cnn takes images"),
        ({"network": lambda key: nn.MLP(5, (4,), 3, key=key)}, "must give 6 logits each"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        compare(**(OK | wrong))
