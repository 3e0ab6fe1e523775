"""A table of accuracies in, gaps out: hand-worked tables, and files that are refused."""

import json

import numpy as np
import pandas as pd
import pytest

from latebloom.data.files import FileError
from latebloom.lab import apply

LOW = 0.4


def rows(seeds=1, deep=LOW):
    """Two tasks of 60 updates: the first falls from 0.9 to `deep` ten updates after the switch, and is at 0.8 from
    the thirtieth on."""
    table = []
    for seed, step in np.ndindex(seeds, 121):
        since = step - 60
        first = 0.9 if since <= 0 else deep if since == 10 else 0.8 if since >= 30 else 0.7
        task = "cats" if step <= 60 else "dogs"
        table.append((seed, step, "cats", first, task))
        if step >= 60:
            table.append((seed, step, "dogs", 0.5, task))
    return pd.DataFrame(table, columns=["seed", "iteration", "task", "accuracy", "learning"])


def run(tmp_path, table, **settings):
    path = tmp_path / "accuracies.csv"
    table.to_csv(path, index=False)
    return apply("stability-gap", [path], tmp_path / "out", settings=settings)


def test_the_gap_of_a_table_worked_by_hand(tmp_path):
    done = run(tmp_path, rows(), examples=400)
    assert {p.name for p in done.paths} == {
        "accuracy.png", "metrics.csv", "result.json", "switch.png", "switches.csv",
    }  # fmt: skip
    switch = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]["switches"][0]
    wanted = {"step": 60, "before": 0.9, "lowest": LOW, "after": 0.8, "drop": 0.5, "recovery": 0.4,
              "updates_to_lowest": 10, "updates_to_recover": None}  # fmt: skip
    assert {k: switch[k] for k in wanted} == pytest.approx(wanted)
    said = " ".join(done.applied.found)
    assert (
        "accuracy on 'cats' goes from 0.9 to 0.4 within 50 updates, and is 0.8 when 'dogs' is over: beyond noise"
        in said
    )
    assert (
        "accuracy is 0.65 at the end; on those learned before, the worst that it ever was is 0.4"
        in said
    )
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index("metric")["mean"]
    assert metrics["worst_case_accuracy"] == pytest.approx((0.5 + LOW) / 2)


def test_what_noise_may_do_is_no_gap(tmp_path):
    table = rows()
    falls = (table["task"] == "cats") & (table["iteration"] > 60)
    table.loc[falls, "accuracy"] = 0.88
    found = run(tmp_path, table, examples=100).applied.found
    assert "no more than noise may do" in " ".join(found)


def test_noise_is_that_of_the_evaluations_that_there_were(tmp_path):
    table = rows()
    table.loc[(table["task"] == "cats") & (table["iteration"] > 60), "accuracy"] = 0.75
    assert "no more than noise may do" in " ".join(run(tmp_path, table, examples=150).applied.found)
    few = table[table["iteration"] % 10 == 0]
    assert ": beyond noise" in " ".join(run(tmp_path, few, examples=150).applied.found)
    switch = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]["switches"][0]
    assert switch["evaluations"] == 5


def test_the_sentence_beyond_noise_is_rarely_false(tmp_path):
    """A learner that forgets nothing, evaluated 60 times, and at the border, on 200 examples of its own each: in at
    most 5 % (of 100 seeds, at most 11 by chance) it is said to be beyond noise."""
    rng = np.random.default_rng(0)
    table = rows(seeds=100)
    old = table["task"] == "cats"
    table.loc[old, "accuracy"] = rng.binomial(200, 0.9, old.sum()) / 200
    said = " ".join(run(tmp_path, table, examples=200).applied.found)
    beyond = int(said.split(" of 100 seeds beyond noise")[0].split("(")[-1])
    assert beyond <= 11


def test_starts_stand_in_for_what_was_learned(tmp_path):
    given = run(tmp_path, rows().drop(columns="learning"), starts="cats=0,dogs=60")
    there = run(tmp_path, rows())
    assert given.applied.found == there.applied.found


@pytest.mark.parametrize(
    "names",
    [
        {"iteration": "step", "task": "key", "accuracy": "value", "seed": "run_id"},  # MLflow
        {"iteration": "step", "task": "tag", "accuracy": "value", "seed": "run"},  # TensorBoard
        {"iteration": "Step", "task": "eval_exp", "accuracy": "eval_accuracy", "learning": "training_exp"},  # Avalanche
    ],
)  # fmt: skip
def test_columns_are_found_by_the_names_that_trackers_give_them(tmp_path, names):
    found = run(tmp_path, rows(2).rename(columns=names))
    assert found.applied.found == run(tmp_path, rows(2)).applied.found


def test_a_column_a_task_as_trackers_of_experiments_export_it(tmp_path):
    table = rows()
    wide = table.pivot(index="iteration", columns="task", values="accuracy")
    wide.columns = [f"run 1 - acc/{name}" for name in wide]
    wide = wide.assign(**{"run 1 - acc/cats__MIN": 0.0}).reset_index(names="Step")
    tasks = "cats=run 1 - acc/cats,dogs=run 1 - acc/dogs"
    found = run(tmp_path, wide, tasks=tasks, starts="cats=0,dogs=60", examples=400).applied.found
    assert found == run(tmp_path, table, examples=400).applied.found
    with pytest.raises(FileError, match="column 'cats', row 2: 90 is outside"):
        run(tmp_path, wide.replace(0.9, 90.0), tasks=tasks, starts="cats=0,dogs=60", examples=400)
    for wrong in ("cats", "cats=a,cats=b", "seed=a"):
        with pytest.raises(ValueError, match="tasks must be of different names and columns"):
            run(tmp_path, wide, tasks=wrong)


def test_iterations_of_a_logger_that_counts_from_0(tmp_path):
    table = rows()
    there = run(tmp_path, table).applied.found
    # Its first entry of dogs, 60, is made after the first update on them: with one added, all is as it was.
    logged = table[table["iteration"] > 0].assign(iteration=table["iteration"] - 1)
    assert logged["iteration"][logged["learning"] == "dogs"].min() == 60
    mended = logged.assign(iteration=logged["iteration"] + 1).drop(columns="learning")
    assert run(tmp_path, mended, starts="cats=0,dogs=60").applied.found == there


def test_where_the_task_begun_is_not_evaluated_the_old_one_is_told_alone(tmp_path):
    found = run(tmp_path, rows().query("task == 'cats'")).applied.found
    assert found[0] == "On those learned before, the worst that it ever was is 0.4."
    assert "from 0.9 to 0.4" in found[1] and "nan" not in " ".join(found)


def test_less_may_be_better(tmp_path):
    table = rows()
    table["accuracy"] = 2 - table["accuracy"]
    found = run(
        tmp_path, table.rename(columns={"accuracy": "loss"}), columns="accuracy=loss", lower=True
    )
    assert "loss on 'cats' goes from 1.1 to 1.6 within 50 updates, and is 1.2" in " ".join(
        found.applied.found
    )


def test_few_evaluations_are_said_to_hide_a_gap(tmp_path):
    table = rows()
    found = run(tmp_path, table[table["iteration"] % 20 == 0]).applied.found
    assert "evaluate every update after a switch" in found[-1]


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda t: t.drop(columns="learning"), {}, "no column 'learning'.* starts=cats=0"),
        (lambda t: t, {"starts": "cats=0"}, "starts are of no use"),
        (lambda t: t.drop(columns="learning"), {"starts": "cow=0"}, "no task 'cow'"),
        (lambda t: t.drop(columns="learning"), {"starts": "cats=5,dogs=60"}, "must begin with 0"),
        (lambda t: t.drop(columns="learning"), {"starts": "cats"}, "cats=0,dogs=300, not 'cats'"),
        (lambda t: t.drop(columns="learning"), {"starts": "cats=0,dogs=60,cats=90"}, "'cats' twice"),
        (lambda t: t.drop(columns="learning"), {"starts": "cats=0,dogs=120"}, "last iteration .* is 120"),
        (lambda t: t.assign(learning=t["learning"].str.title()), {}, r"learned \(Cats, Dogs\) none is evaluated"),
        (lambda t: t, {"lower": True, "examples": 9}, "leave one out"),
        (lambda t: t.assign(accuracy=90), {"examples": 100}, "row 2: 90 is no share of"),
        (lambda t: t, {"within": 0}, "within must be a number of updates from 1 on"),
        (lambda t: t, {"level": 2.0}, "level must be above 0 and at most 1"),
        (lambda t: t, {"level": 2}, "level must be above 0 and at most 1"),
        (lambda t: t, {"examples": 0}, "examples must be at least 1"),
        (lambda t: t[t["learning"] == "cats"], {}, "only 'cats' was learned"),
        (lambda t: pd.concat([t, t.tail(1)]), {}, "two accuracies at iteration 120"),
        (lambda t: t.assign(iteration=t["iteration"] + 0.5), {}, "column 'iteration', row 2"),
    ],
)  # fmt: skip
def test_bad_tables_and_settings_are_refused_in_a_sentence(tmp_path, change, settings, words):
    with pytest.raises((FileError, ValueError), match=words) as error:
        run(tmp_path, change(rows()), **settings)
    assert "\n" not in str(error.value) and str(error.value).count("accuracies.csv") <= 1
    assert not (tmp_path / "out" / "result.json").exists()
