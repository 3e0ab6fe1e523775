"""Labelled data in, suspects out: digits with known wrong labels, and files that are refused."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latebloom.apply.early_learning_regularization import (
    Options,
    agreement,
    sentences,
)
from latebloom.data import load
from latebloom.data.files import FileError
from latebloom.data.labelled import read_examples
from latebloom.lab import apply
from latebloom.methods.noisy_labels import LabelErrors, find_label_errors, suspects

SLUG = "early-learning-regularization"


@pytest.fixture(scope="module")
def digits():
    """400 digits of which 40 are called the next one."""
    images = load("digits")
    x, y = images.x_train[:400], images.y_train[:400].copy()
    wrong = np.random.default_rng(0).permutation(400)[:40]
    y[wrong] = (y[wrong] + 1) % 10
    return x, y, wrong


def test_wrong_digits_come_first(digits, tmp_path):
    x, y, wrong = digits
    ids = np.array([f"digit-{i}" for i in range(400)])
    np.savez(tmp_path / "digits.npz", x=x, y=y, ids=ids)
    done = apply(
        SLUG, [tmp_path / "digits.npz"], tmp_path / "out", settings={"epochs": "30", "rate": "0.1"}
    )
    assert {p.name for p in done.paths} == {
        "suspects.csv", "pairs.csv", "targets.png", "contact_sheet.png", "result.json",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "suspects.csv")
    assert list(table.columns) == ["id", "label", "suggested", "t_label", "entropy", "suspect"]
    assert table["t_label"].is_monotonic_increasing and sorted(table["id"]) == sorted(ids)
    hits = np.isin(table["id"][:40], ids[wrong]).mean()
    assert hits > 0.85
    first = table[:30]
    truth = load("digits").y_train[[int(name.split("-")[1]) for name in first["id"]]]
    assert (first["suggested"] == truth).mean() > 0.85
    summary = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    assert 25 <= summary["suspects"] <= 60 and summary["examples"] == 400
    assert "labels look wrong" in done.applied.found[0]
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 20_000


def test_images_of_a_folder(digits, tmp_path):
    x, y, _ = digits
    names = [f"{i}.png" for i in range(30)]
    for name, image in zip(names, x, strict=False):
        Image.fromarray(image).save(tmp_path / name)
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"file": names, "label": [f"is{v}" for v in y[:30]]}).to_csv(labels, index=False)
    grey = read_examples([labels, tmp_path], 8)
    np.testing.assert_array_equal(grey.x, x[:30])
    assert grey.ids.tolist() == names and grey.y[3] == f"is{y[3]}"
    Image.fromarray(np.stack([x[7]] * 3, axis=-1)).save(tmp_path / "7.png")
    coloured = read_examples([tmp_path, labels], 16)
    assert coloured.x.shape == (30, 16, 16, 3)


def test_what_is_said_of_a_network_that_has_not_learned():
    targets = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    table = suspects(targets, np.array([1, 0, 0]), names=["cat", "dog"])
    found = LabelErrors(table, targets, ("cat", "dog"), 0.4, (), np.asarray)
    said = " ".join(sentences(found, Options()))
    assert "2 of 3 labels look wrong (66.7%)" in said and "do not trust" in said
    assert "labelled cat, but looks like dog" in said and "two classes" in said
    assert agreement(found) == pytest.approx(1 / 3)


def test_two_classes_of_features():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    x = np.where(y, 2.0, -2.0)[:, None] + rng.normal(size=(80, 3))
    given = y.copy()
    given[:6] = 1 - given[:6]
    found = find_label_errors(x, np.array(["no", "yes"])[given], epochs=10, seeds=1, progress=False)
    assert found.classes == ("no", "yes") and found.targets.shape == (80, 2)
    assert set(found.table["id"][:5]) <= set(range(6))
    assert found.pairs()["count"].sum() == found.table["suspect"].sum()


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


X, Y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, r"no array 'y'; it has: x: save it with np.savez"),
        ({"x": X, "y": Y[:29]}, r"must have one entry for each example, but are \[30, 4\], \[29\]"),
        ({"x": X, "y": Y, "ids": np.zeros(30)}, "a name appears twice"),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, "a label is not finite"),
        ({"x": X * np.where(Y[:, None] == 1, np.inf, 1), "y": Y}, "x must hold finite numbers"),
        ({"x": X[:10], "y": Y[:10]}, "there are 10 examples where at least 20"),
        ({"x": X, "y": Y * 0}, "all labels are 0"),
        ({"x": X[:, 0], "y": Y}, r"x must be \[n, features\]"),
        ({"x": X, "y": Y.astype(object)}, "holds Python objects"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    path = save(tmp_path / "data.npz", **arrays)
    with pytest.raises(FileError, match=message) as error:
        apply(SLUG, [path], tmp_path / "out")
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("out/*"))


def test_bad_files_are_refused(tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_text("no")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\nhere.png,a\n")
    (tmp_path / "here.png").write_text("no image")
    cases = (
        ([tmp_path / "none.npz"], "there is no such file"),
        ([broken], "is not an .npz that can be read"),
        ([labels], "give one .npz, or a folder of images and a CSV"),
        ([tmp_path, labels], "row 2: 'here.png' is not an image that can be read"),
    )
    for paths, message in cases:
        with pytest.raises(FileError, match=message):
            apply(SLUG, paths, tmp_path / "out")
    labels.write_text("file,label\ngone.png,a\n")
    with pytest.raises(FileError, match="row 2: there is no image 'gone.png'"):
        apply(SLUG, [tmp_path, labels], tmp_path / "out")
    path = save(tmp_path / "data.npz", x=X, y=Y)
    with pytest.raises(FileError, match="a cnn takes images"):
        apply(SLUG, [path], tmp_path / "out", settings={"network": "cnn"})
    with pytest.raises(ValueError, match="epochs and seeds must be at least 1"):
        apply(SLUG, [path], tmp_path / "out", settings={"epochs": "0"})
