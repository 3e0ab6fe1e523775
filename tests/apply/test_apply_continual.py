"""Examples with tasks or times in; comparisons, sentences and figures out; files that are refused."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latebloom.apply.continual import Options, sentences
from latebloom.data.files import FileError
from latebloom.lab import apply

QUICK = {"methods": "fine-tuning,ER", "memory": "8,40", "seeds": "2", "epochs": "4"}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(4), 40)
    x = rng.normal(size=(4, 6))[y] * 3 + rng.normal(size=(160, 6))
    return x, y, y // 2


def test_arrays_a_table_and_periods_come_to_the_same(tmp_path, examples):
    x, y, task = examples
    np.savez(tmp_path / "a.npz", x=x, y=y, task=task)
    done = apply("continual", [tmp_path / "a.npz"], tmp_path / "a", settings=QUICK)
    names = {path.name for path in done.paths}
    assert names == {"methods.csv", "pairs.csv", "tasks.csv", "tried.csv", "course.png", "methods.png",
                     "memory.png", "result.json"}  # fmt: skip
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["study"] == "continual" and "2205.13452" in result["cite"]
    assert result["summary"]["tasks"] == {"0": 80, "1": 80}
    methods = pd.read_csv(tmp_path / "a" / "methods.csv")
    assert methods["name"].tolist() == ["fine-tuning", "ER, 8", "ER, 40"]
    found = " ".join(result["found"])
    assert (
        "160 examples of 4 classes in 2 tasks of 80 to 80; each class occurs in one alone" in found
    )
    assert (
        "With 40 remembered examples" in found
        and "Without a memory, fine-tuning ends with" in found
    )
    assert "More memory, ER:" in found and "nan" not in found

    table = pd.DataFrame(x, columns=[f"x{i}" for i in range(6)])
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(task * 50 + np.arange(160) / 100, unit="D")
    table.assign(label=y, site=task).to_csv(tmp_path / "t.csv", index=False)
    table.assign(label=y, timestamp=days).to_csv(tmp_path / "u.csv", index=False)
    chosen = {**QUICK, "columns": "task=site"}
    again = apply("continual", [tmp_path / "t.csv"], tmp_path / "t", settings=chosen)
    timed = apply(
        "continual", [tmp_path / "u.csv"], tmp_path / "u", settings={**QUICK, "periods": "2"}
    )
    for other in (again, timed):
        accuracy = other.applied.tables["methods"]["accuracy"]
        np.testing.assert_allclose(accuracy, methods["accuracy"], atol=0.03)


def test_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        name = f"{i}.png"
        pixels = rng.integers(0, 100, (9, 9)) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
        rows.append({"file": name, "label": "ab"[i % 2], "task": "north" if i < 60 else "south"})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    settings = {**QUICK, "methods": "fine-tuning", "size": "6", "epochs": "2"}
    done = apply("continual", [tmp_path, tmp_path / "t.csv"], tmp_path / "o", settings=settings)
    assert "some classes occur in several" in " ".join(done.applied.found)
    assert list(done.applied.summary["tasks"]) == ["north", "south"]
    assert not (tmp_path / "o" / "memory.png").exists()


class Told:
    """A comparison worked by hand."""

    sizes, classes, counts, shared, guess = (0, 20), ("a", "b"), (50, 70), False, 0.5
    cost = (0.2, -0.1, 0.5)

    def __init__(self, low=0.6, edge=False):
        self.table = pd.DataFrame({
            "name": ["fine-tuning", "EWC", "ER, 20", "all data kept"], "method": ["fine-tuning", "EWC", "ER", "all data kept"],
            "memory": [0, 0, 20, 0], "accuracy": [0.5, 0.6, 0.8, 0.9], "accuracy_low": [0.4, 0.5, 0.7, low],
            "on_edge": [edge, False, False, False],
        })  # fmt: skip

    def competing(self, memory):
        return ["fine-tuning", "EWC"] + ["ER, 20"] * (memory > 0)

    def top(self, memory):
        return ["ER, 20"] if memory else ["EWC", "fine-tuning"]


def test_what_is_claimed():
    said = sentences(Told())
    assert (
        said[0]
        == "With 20 remembered examples, ER, 20 is the most accurate, with 80.0 % over all tasks at the end."
    )
    assert "EWC is ahead with 60.0 % over all tasks at the end, but not surely the most accurate: so may be fine-tuning." in said[1]  # fmt: skip
    assert "no cost of forgetting can be told: 20.0 points [-10.0, 50.0]" in " ".join(said)
    assert "always saying the most frequent class would be right on 50.0 %" in said[-1]
    assert sentences(Told(low=0.45))[0].startswith("No method has surely learned more")
    assert "Of fine-tuning the best setting is the first or last" in sentences(Told(edge=True))[-1]


def test_labels_by_lot_are_not_called_learned(tmp_path):
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(200, 4)), y=rng.integers(0, 2, 200), task=np.arange(200) // 100)  # fmt: skip
    settings = {**QUICK, "seeds": "6", "memory": "20"}
    done = apply("continual", [tmp_path / "a.npz"], tmp_path / "o", settings=settings)
    assert done.applied.found[0].startswith("No method has surely learned more")


@pytest.mark.parametrize(
    ("arrays", "settings", "words"),
    [
        ({"task": None}, {}, "either 'task' or 'time' for each example, and has neither"),
        ({"time": np.arange(160)}, {}, "and has both"),
        ({"task": np.arange(3)}, {}, "array 'task' must have one entry for each of the 160 examples"),
        ({"task": np.full(160, np.nan)}, {}, "array 'task': a label is not finite"),
        ({"task": None, "time": np.full(160, "NaT", "M8[D]")}, {}, "array 'time' has type datetime64"),
        ({"task": None, "time": np.zeros(160)}, {}, "do not make 5 periods"),
        ({}, {"memory": "400"}, "no memory is smaller than the 112 training examples"),
        ({}, {"methods": "GDumb"}, "methods must be some of fine-tuning"),
        ({}, {"size": "2"}, "size must be at least 4"),
        ({}, {"network": "cnn"}, "a cnn takes images"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_told(tmp_path, examples, arrays, settings, words):
    x, y, task = examples
    kept = {k: v for k, v in ({"x": x, "y": y, "task": task} | arrays).items() if v is not None}
    np.savez(tmp_path / "a.npz", **kept)
    with pytest.raises(ValueError, match=words):
        apply("continual", [tmp_path / "a.npz"], tmp_path / "o", settings=settings)
    assert not list((tmp_path / "o").iterdir())


def test_a_table_needs_features(tmp_path):
    pd.DataFrame({"label": ["a", "b"] * 40, "task": [1, 2] * 40}).to_csv(tmp_path / "t.csv")
    with pytest.raises(FileError, match="no column of features beside label, task, time"):
        apply("continual", [tmp_path / "t.csv"], tmp_path / "o")
    pd.DataFrame({"label": ["a", "b"], "task": [1, 2], "x": ["1", "one"]}).to_csv(
        tmp_path / "t.csv"
    )
    with pytest.raises(FileError, match="column 'x', row 3"):
        apply("continual", [tmp_path / "t.csv"], tmp_path / "o")
    assert Options().periods == 5
