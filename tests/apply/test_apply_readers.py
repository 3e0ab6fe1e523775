"""What the field's own tools write, as it is read: training logs, bandit logs, client times, pictures."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latebloom.apply import (
    async_federated,
    dynamical_linear_bandits,
    last_switch_bandits,
    learning_curves,
    neural_bandits,
    payment_bandits,
    refined_schedules,
    sparse_misspecified_bandits,
)
from latebloom.data import labelled
from latebloom.data.files import FileError
from latebloom.lab import apply

NORMS = [round(float(x), 4) for x in 1 + np.random.default_rng(0).random(30)]


def write(folder, text, name="log.csv"):
    path = folder / name
    path.write_text(text)
    return path


def lines(header, rows):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def trainer_state():
    """As Hugging Face writes it: evaluations have entries of their own, at steps that have a norm."""
    history = [
        {"epoch": i / 10, "grad_norm": g, "loss": 1.0, "step": i} for i, g in enumerate(NORMS)
    ]
    for at in (29, 20, 10):
        history.insert(at + 1, {"eval_loss": 2.0, "epoch": at / 10, "step": at})
    history.append({"train_runtime": 9.5, "step": 30})
    return json.dumps({"best_metric": None, "global_step": 30, "log_history": history})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (lines("step,grad_norm", enumerate(NORMS)), "log.csv"),
        (lines('"Step","train/grad_norm"', enumerate(NORMS)), "wandb.csv"),
        (
            lines(
                '"Step","run-1 - train/grad_norm","run-1 - train/grad_norm__MIN","run-1 - train/grad_norm__MAX"',
                [(i, g, 0, 9) for i, g in enumerate(NORMS)],
            ),
            "wandb-chart.csv",
        ),
        (lines("Wall time,Step,Value", [(1.7e9, i, g) for i, g in enumerate(NORMS)]), "board.csv"),
        (
            lines("key,value,step,timestamp", [("g", g, i, 1) for i, g in enumerate(NORMS)]),
            "flow.csv",
        ),
        (
            lines("epoch,grad_2.0_norm_total,step", [(0, g, i) for i, g in enumerate(NORMS)]),
            "lightning.csv",
        ),
        (trainer_state(), "trainer_state.json"),
        (
            "\n".join(json.dumps({"step": i, "grad_norm": g}) for i, g in enumerate(NORMS)),
            "log.jsonl",
        ),
    ],
)
def test_training_logs_of_all_tools(tmp_path, text, name):
    found = refined_schedules.read_log(write(tmp_path, text, name))
    assert found.step[:30].tolist() == list(range(30))
    assert found.grad_norm[:30].tolist() == NORMS and found.grad_norm[30:].isna().all()


def test_an_unknown_export_names_its_columns_and_the_option(tmp_path):
    path = write(tmp_path, lines("Step,gradients/all (L2)", enumerate(NORMS)))
    with pytest.raises(FileError, match=r"it has: Step, gradients/all \(L2\): choose one with --set columns=grad_norm=COLUMN"):  # fmt: skip
        apply("refined-schedules", [path], tmp_path / "out")
    settings = {"columns": "grad_norm=gradients/all (L2)"}
    done = apply("refined-schedules", [path], tmp_path / "out", settings=settings)
    assert done.applied.summary["recorded"] <= 30
    path = write(tmp_path, lines('Step,"a, (b)"', enumerate(NORMS)))
    settings = {"columns": '"grad_norm=a, (b)",step=Step'}
    assert apply("refined-schedules", [path], tmp_path / "out", settings=settings)


def test_two_norms_at_one_step_are_refused(tmp_path):
    rows = [*enumerate(NORMS), (29, ""), (29, 3.0)]
    with pytest.raises(FileError, match="column 'step', row 33: steps must increase"):
        refined_schedules.read_log(write(tmp_path, lines("step,grad_norm", rows)))


def payments(stamp, late, n=100):
    rows = [
        (stamp(i), f'"{i % 2},2.0"', "2", 0.5, i % 2, "" if i % 3 else late(i)) for i in range(n)
    ]
    return lines("timestamp,allowed_actions,action,propensity,reward,reward_timestamp", rows)


SECOND = 1_735_689_600
FORMS = {
    "iso": lambda t: pd.Timestamp(t, unit="s", tz="UTC").isoformat(),
    "seconds": lambda t: t,
    "milliseconds": lambda t: t * 1000,
    "microseconds": lambda t: t * 10**6,
    "nanoseconds": lambda t: t * 10**9,
}


@pytest.mark.parametrize("form", FORMS)
def test_payments_with_times_of_any_unit_and_rewards_yet_to_come(tmp_path, form):
    write_time = FORMS[form]
    text = payments(lambda i: write_time(SECOND + i), lambda i: write_time(SECOND + i + 60))
    log = payment_bandits.read_log(write(tmp_path, text))
    assert log.timestamp[7] == pd.Timestamp(SECOND + 7, unit="s", tz="UTC")
    there = log.reward_timestamp.notna().to_numpy()
    assert there.tolist() == [i % 3 == 0 for i in range(100)]
    late = (log.reward_timestamp - log.timestamp)[there]
    assert (late == pd.Timedelta(60, unit="s")).all()
    assert log.allowed_actions[1] == ["1", "2"] and set(log.action) == {"2"}


def test_times_without_a_unit_are_refused_until_it_is_declared(tmp_path):
    path = write(tmp_path, payments(lambda i: i, lambda i: i + 1))
    with pytest.raises(
        FileError, match="column 'timestamp', row 2: '0' is not a time.*declare time_unit"
    ):
        payment_bandits.read_log(path)
    log = payment_bandits.read_log(path, "D")
    assert log.timestamp[99] == pd.Timestamp("1970-04-10", tz="UTC")
    path = write(tmp_path, lines("time,item,reward", [(i, "a", 1) for i in range(5)]))
    events = last_switch_bandits.read_events(path, "D")
    assert events.time.dt.day.tolist() == [1, 2, 3, 4, 5]
    rows = [(i, 1 + i % 2, i % 5) for i in range(25)]
    path = write(tmp_path, lines("when,spend,outcome", rows))
    options = dynamical_linear_bandits.Options(time="when", time_unit="D")
    assert dynamical_linear_bandits.read_record(path, options)[0].when[24].day == 25


COMMAS = {  # of each application, a file with semicolons and decimal commas, and two numbers of it
    "federated": (
        "client;seconds\na;1,5\nb;2,25\n",
        lambda p: [pool[0] for pool in async_federated.read_log(p).seconds],
        [1.5, 2.25],
    ),
    "dynamical": (
        "spend;outcome\n" + "1,5;2,25\n" * 20,
        lambda p: dynamical_linear_bandits.read_record(p, dynamical_linear_bandits.Options())[0].iloc[0].tolist(),
        [1.5, 2.25],
    ),
    "last switch": (
        "time;item;reward\n2024-01-01;a;1,5\n2024-01-02;a;0,25\n",
        lambda p: last_switch_bandits.read_events(p).reward.tolist(),
        [1.5, 0.25],
    ),
    "learning curves": (
        "size;score\n" + "".join(f"{i};{i},5\n" for i in range(1, 6)),
        lambda p: learning_curves.read_scores(p).score.tolist()[:2],
        [1.5, 2.5],
    ),
    "neural": (
        "age;action;reward;propensity\n" + "1,5;a;0,5;0,25\n2,5;b;1;0,25\n" * 25,
        lambda p: neural_bandits.read(p, neural_bandits.Options()).age.map(float).tolist()[:2],
        [1.5, 2.5],
    ),
    "payments": (
        "timestamp;amount;allowed_actions;action;propensity;reward\n"
        + "2024-01-01;1,5;0,1;0;0,5;0\n2024-01-01;2,5;0,1;1;0,5;1,0\n" * 50,
        lambda p: payment_bandits.read_log(p).amount.map(float).tolist()[:2],
        [1.5, 2.5],
    ),
    "refined": (
        "step;grad_norm\n" + "".join(f"{i};{i},5\n" for i in range(20)),
        lambda p: refined_schedules.read_log(p).grad_norm.tolist()[1:3],
        [1.5, 2.5],
    ),
    "sparse": (
        "a;b;result\n1,5;2,5;1\n2,5;1,5;\n1;2;3\n",
        lambda p: sparse_misspecified_bandits.read_candidates(
            p, sparse_misspecified_bandits.Options())[0].a.tolist()[:2],
        [1.5, 2.5],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMAS)
def test_decimal_commas_in_every_application(tmp_path, name):
    text, read, expected = COMMAS[name]
    assert read(write(tmp_path, text)) == expected


def test_pictures_of_16_bits_keep_their_greys(tmp_path):
    grey = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.fromarray((grey // 257).astype(np.uint8)).save(tmp_path / "plain.png")
    table = write(tmp_path, "File Name;class\ndeep.png;1.0\nplain.png;1\n")
    found = labelled.read_images(tmp_path, table, 4)
    np.testing.assert_array_equal(found.x[0], found.x[1])
    assert found.y.tolist() == ["1", "1"]
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    for text, message in (
        ("float.tif,1\n", "row 2: 'float.tif' has 32 bits"),
        ("plain.png,1\nplain.png,2\n", "row 3: 'plain.png' has a label already"),
        ("x" * 300 + ",1\n", "row 2: there is no image 'xxx"),
        (".,1\n", "row 2: there is no image"),
        ("log.csv,1\n", "row 2: 'log.csv' is not an image"),
    ):
        with pytest.raises(FileError, match=message):
            labelled.read_images(tmp_path, write(tmp_path, f"file,label\n{text}"), 4)


@pytest.mark.parametrize("y", [["a", " a", "b\u00a0"], np.array(["a", "a ", "b"], "S")])
def test_names_of_classes_lose_spaces_and_bytes(tmp_path, y):
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), y=y)
    assert labelled.read_npz(tmp_path / "t.npz").y.tolist() == ["a", "a", "b"]
