"""The tracker of continual learners against their accuracies, reckoned by hand."""

import json
import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import f1_score

from latebloom.methods.forgetting import metrics
from latebloom.methods.forgetting.metrics import as_trace
from latebloom.methods.forgetting.tracker import (
    ContinualTracker,
    accuracy,
    from_table,
    join,
    save,
    table,
)

X = np.arange(10.0)
TASKS = {"low": (X, np.zeros(10, int)), "high": (X, np.ones(10, int))}


def above(threshold):
    """Says 1 from a threshold on: right on `threshold` tenths of low, and on the others of high."""
    return lambda x: (x >= threshold).astype(int)


def run(every=1, dense=50, **settings):
    tracker = ContinualTracker(TASKS, every=every, dense=dense, **settings)
    tracker.start(above(5), "low")
    for threshold in (6, 8, 10):
        tracker.update(above(threshold), "low")
    for threshold in (3, 4):
        tracker.update(above(threshold), "high")
    return tracker


def test_each_update_by_hand():
    tracker = run(ahead=True)
    wanted = as_trace(
        [[0.5, 0.5], [0.6, 0.4], [0.8, 0.2], [1.0, 0.0], [0.3, 0.7], [0.4, 0.6]],
        [0, 0, 0, 0, 1, 1], tasks=["low", "high"],
    )  # fmt: skip
    trace = tracker.trace()
    xr.testing.assert_allclose(trace.drop_vars("examples"), wanted)
    assert trace.examples.values.tolist() == [10, 10]
    assert metrics.min_accuracy(trace)[0, 0] == 0.3
    found = tracker.summary(beta=2, windows=(10,))
    assert found["worst_case_accuracy"] == pytest.approx((0.6 + 0.3) / 2)
    assert found["forgetting"] == pytest.approx(0.6) and found["drop"] == pytest.approx(0.7)
    assert found["recovery"] == pytest.approx(0.1) and found["forward_transfer"] == pytest.approx(
        -0.5
    )
    json.dumps(found, allow_nan=False)
    assert list(found) == [*metrics.summary(trace, beta=2, windows=(10,)), "undefined"]


def test_tasks_to_come_are_evaluated_when_asked_for():
    tracker = run()
    np.testing.assert_array_equal(np.isnan(tracker.trace().accuracy[0, :, 1]), [1, 1, 1, 1, 0, 0])
    found = tracker.summary(beta=2)
    assert found["forward_transfer"] is None
    assert "needs task 'high' evaluated at step 3" in found["undefined"]["forward_transfer"]
    assert tracker.update(above(5), "high") == {"low": 0.5, "high": 0.5}


def test_the_table_has_a_row_an_evaluation():
    rows = run().table()
    assert list(rows) == ["seed", "iteration", "learning", "task", "accuracy"]
    assert len(rows) == 4 + 2 * 2
    last = rows.iloc[-1]
    assert last.tolist() == [0, 5, "high", "high", 0.6]
    back = rows.pivot(index="iteration", columns="task", values="accuracy")[["low", "high"]]
    np.testing.assert_array_equal(back.to_numpy(), run().trace().accuracy[0])


def test_a_table_makes_the_trace_again():
    whole = join([run(seed=seed).trace() for seed in range(2)]).drop_vars("examples")
    rows = table(whole).sample(frac=1, random_state=0)
    back = from_table(rows)
    xr.testing.assert_identical(from_table(table(whole)), whole)
    pd.testing.assert_frame_equal(
        table(back).sort_values(list(rows)).reset_index(drop=True),
        rows.sort_values(list(rows)).reset_index(drop=True),
    )
    one = rows[rows.seed == 1].drop(columns="seed")
    assert from_table(one).seed.values.tolist() == [0]
    for bad, says in (
        (rows.drop(columns="task"), "the table has no column 'task'"),
        (pd.concat([rows, rows[:1]]), "two accuracies at iteration"),
        (rows.assign(learning=rows["task"]), "two tasks learned at iteration"),
        (rows[(rows["seed"] == 0) | (rows["iteration"] < 3)], "not all evaluated at the same"),
    ):
        with pytest.raises(ValueError, match=says):
            from_table(bad)


@pytest.mark.parametrize("name", ["run.csv", "run.parquet", "run.PQ"])
def test_a_table_is_written_whole(tmp_path, name):
    tracker = run()
    path = tmp_path / name
    path.write_text("before")
    tracker.save(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    back = pd.read_csv(path) if name.endswith("csv") else pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, tracker.table())


def test_dense_after_a_switch_and_sparse_elsewhere():
    tracker = ContinualTracker(TASKS, every=10, dense=3)
    seen = []
    for step in range(1, 101):
        name = "low" if step <= 55 else "high"
        if tracker.update(above(5), name, evaluate=True if step == 55 else None):
            seen.append(step)
    assert seen == [1, 2, 3, 10, 20, 30, 40, 50, 55, 56, 57, 58, 60, 70, 80, 90, 100]
    assert tracker.trace().step.values.tolist() == seen


def said(tracker, tasks):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for task in tasks:
            tracker.update(above(5), task)
    return [str(one.message) for one in caught]


def test_what_hides_a_gap_is_said_once():
    tasks = (["low"] * 55 + ["high"] * 55) * 2
    end, gap = said(ContinualTracker(TASKS, every=20, dense=1), tasks)
    assert end.startswith(
        "the last evaluation before update 55, the end of task 'low', is 15 updates older"
    )
    assert gap.startswith("20 updates near the switch to 'high' went by without an evaluation")
    assert said(ContinualTracker(TASKS, every=10, dense=1), tasks) == []
    (gap,) = said(ContinualTracker(TASKS, every=55, dense=1), tasks)
    assert gap.startswith("54 updates near the switch to 'high'")
    sparse = ContinualTracker(TASKS)
    sparse.update(above(5), "low", updates=30)
    with pytest.warns(UserWarning, match="25 updates near the switch to 'high' went by"):
        sparse.update(above(5), "high", updates=25)
    assert sparse.trace().step.values.tolist() == [30, 55]


def test_numbers_that_came_as_objects_are_numbers():
    y = pd.Series([0, 0, 1], dtype=object)
    assert accuracy(y, [0, 1, 1]) == accuracy([0, 0, 1], np.array([0, 1, 1], object)) == 2 / 3
    assert accuracy(np.array(["a", "b"], object), ["a", "a"]) == 0.5


def test_a_network_in_training_mode_is_refused():
    class Network:
        training = True

        def eval(self):
            self.training = False
            return self

        def __call__(self, x):
            return np.zeros(len(x))

    with pytest.raises(ValueError, match=r"training mode.* calls its eval\(\)"):
        ContinualTracker(TASKS).update(Network(), "low")
    assert ContinualTracker(TASKS).update(Network().eval(), "low") == {"low": 1.0}


def test_an_evaluation_after_every_update_hides_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()


def test_examples_are_drawn_once_by_the_seed():
    x = np.arange(1000.0)
    seen = {}

    def told(seed):
        def predict(x):
            seen.setdefault(seed, []).append(x)
            return np.zeros(len(x), int)

        tracker = ContinualTracker({"a": (x, x % 2)}, examples=100, seed=seed)
        tracker.update(predict, "a")
        tracker.update(predict, "a")
        return tracker

    one, two = told(1), told(2)
    first, again = seen[1]
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first)) == 100 and (np.diff(first) > 0).all()
    assert not np.array_equal(first, seen[2][0])
    assert one.trace().examples.item() == 100
    assert one.trace().accuracy[0, 0, 0] == np.mean(first % 2 == 0)
    assert two.trace().seed.item() == 2


def test_seeds_are_joined():
    traces = [run(seed=seed).trace() for seed in range(3)]
    both = join(traces)
    assert both.accuracy.shape == (3, 6, 2) and both.examples.dims == ("task",)
    np.testing.assert_allclose(metrics.min_accuracy(both).mean("task"), [0.3] * 3)
    assert len(table(both)) == 3 * len(table(traces[0]))
    for traces, says in (
        ([], "no traces to join"),
        ([run().trace(), run().trace()], "seed 0 occurs twice"),
        ([run().trace(), run(seed=1).trace().isel(step=slice(3))], "the steps of seed 1 differ"),
        ([run().trace(), run(seed=1).trace().isel(task=[1, 0])], "the tasks of seed 1 differ"),
    ):
        with pytest.raises(ValueError, match=says):
            join(traces)


# Whatever predicts


def test_a_scikit_learn_estimator_shows_its_gap():
    x, y = load_digits(return_X_y=True)
    x = x / 16
    tasks = {
        f"{a}{a + 1}": (x[(y == a) | (y == a + 1)], y[(y == a) | (y == a + 1)]) for a in (0, 2)
    }
    model = SGDClassifier("log_loss", random_state=0)
    tracker = ContinualTracker(tasks, examples=200)
    for name, (inputs, labels) in tasks.items():
        for start in range(0, 300, 30):
            part = slice(start, start + 30)
            model.partial_fit(inputs[part], labels[part], classes=np.arange(10))
            scores = tracker.update(model, name)
            chosen, wanted = tracker.data[name]
            assert scores[name] == model.score(chosen, wanted)
    found = tracker.summary()
    assert found["forgetting"] > 0.5 and found["drop"] > 0.5


def test_frames_text_labels_and_tasks_of_their_own_heads():
    frame = pd.DataFrame({"x": X})
    tasks = {"low": (frame, ["no"] * 10), "high": (frame, ["yes"] * 10)}
    heads = {"low": 8, "high": 3}

    def predict(x, task):
        return np.where(x["x"] >= heads[task], "yes", "no")

    tracker = ContinualTracker(tasks, examples=5, task_aware=True, ahead=True)
    found = tracker.update(predict, "low")
    for name, right in (("low", "no"), ("high", "yes")):
        chosen, _ = tracker.data[name]
        assert found[name] == np.mean(predict(chosen, name) == right)

    class Headed:
        def predict(self, x, task):
            return predict(x, task)

    assert tracker.update(Headed(), "low") == found


def test_jax_networks_and_scores():
    network = eqx.nn.Linear(1, 2, key=jax.random.key(0))
    network = eqx.tree_at(
        lambda n: (n.weight, n.bias), network, (jnp.array([[0.0], [1.0]]), jnp.array([3.5, 0.0]))
    )
    x = X[:, None].astype(np.float32)
    tracker = ContinualTracker({"low": (x, np.zeros(10, int))})
    assert tracker.update(network, "low") == {"low": 0.4}
    assert tracker.update(jax.vmap(network), "low") == {"low": 0.4}


def test_another_metric():
    x, y = np.arange(4), np.array([0, 1, 1, 1])
    tracker = ContinualTracker({"a": (x, y)}, metric=f1_score)
    assert tracker.update(lambda x: np.array([1, 1, 1, 1]), "a") == {"a": pytest.approx(6 / 7)}


def test_accuracy_by_hand():
    assert accuracy(np.array([0, 1, 2]), np.array([0.0, 1.0, 1.0])) == pytest.approx(2 / 3)
    assert accuracy(np.array([0, 1]), np.array([[0.2, 0.8], [0.1, 0.9]])) == 0.5
    assert accuracy(np.array([0, 0]), np.array([[np.nan, 0.8], [0.9, 0.1]])) == 0.5
    assert accuracy(np.array([0.0, 1.0]), np.array([np.nan, 1.0])) == 0.5
    assert accuracy(np.array([True, False]), np.array([1, 1])) == 0.5


# Bad inputs


def predicting(values):
    return lambda: ContinualTracker(TASKS).update(lambda x: np.asarray(values), "low")


def unseen_task():
    tracker = ContinualTracker(TASKS)
    tracker.start(above(5), "low")
    tracker.update(above(5), "low", evaluate=False)
    tracker.update(above(5), "high")


def started_otherwise():
    tracker = ContinualTracker(TASKS)
    tracker.start(above(5), "low")
    tracker.update(above(5), "high")


BAD = {
    "tasks is empty": lambda: ContinualTracker({}),
    "task 'a' must be a pair (x, y)": lambda: ContinualTracker({"a": 3}),
    "task 'a' has 10 examples and 9 labels": lambda: ContinualTracker({"a": (X, X[1:])}),
    "task 'a' has 0 examples": lambda: ContinualTracker({"a": ([], [])}),
    "task 'a': label 1 is missing": lambda: ContinualTracker({"a": ([1, 2], [0, np.nan])}),
    "every must be a whole number from 1 on, not 0": lambda: ContinualTracker(TASKS, every=0),
    "dense must be a whole number from 1 on, not 0": lambda: ContinualTracker(TASKS, dense=0),
    "examples must be a whole number from 1 on, not 0": lambda: ContinualTracker(TASKS, examples=0),
    "there is no task 'mid' to learn; there are 'low', 'high'": lambda: ContinualTracker(TASKS).update(above(5), "mid"),
    "updates must be a whole number": lambda: ContinualTracker(TASKS).update(above(5), "low", updates=0),
    "start comes once, before the first update": lambda: run().start(above(5), "low"),
    "task 'low' ends at update 0 and was not evaluated": started_otherwise,
    "task 'low' ends at update 1 and was not evaluated": unseen_task,
    "accuracy needs labels [n], not [10, 1]": lambda: ContinualTracker({"a": (X, X[:, None])}).update(above(5), "a"),
    "nothing was evaluated yet": lambda: ContinualTracker(TASKS).trace(),
    "task 'low': the predictor must give labels [10] or scores [10, classes], not [9]": predicting(X[1:]),
    "not [10, 1]": predicting(X[:, None]),
    "not [10, 2, 1]": predicting(np.zeros((10, 2, 1))),
    "the predictor gives 0.5, which is no label": predicting(X + 0.5),
    "labels such as 'a', the tasks have such as 0": predicting(["a"] * 10),
    "predictor must be a function of x or have a method predict, not int": lambda: ContinualTracker(TASKS).update(3, "low"),
    "task 'low': the metric is nan": lambda: ContinualTracker(TASKS, metric=lambda y, p: np.nan).update(above(5), "low"),
    "must end in .csv or .parquet": lambda: save(run().trace(), "run.txt"),
}  # fmt: skip


@pytest.mark.parametrize("says", BAD)
def test_bad_inputs(says):
    with pytest.raises(ValueError, match=re.escape(says)):
        BAD[says]()
