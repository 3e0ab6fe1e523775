"""Recordings as tables and arrays, read to the values written or refused with the place."""

import numpy as np
import pandas as pd
import pytest

from latebloom.data.columns import FileError
from latebloom.data.recordings import read_recording

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 2))


def table(**changes):
    rows = X.reshape(-1, 2)
    base = {"trial": np.repeat(["a", "b", "c"], 6), "time": np.tile(np.arange(6) * 0.02, 3), "n1": rows[:, 0], "n2": rows[:, 1]}  # fmt: skip
    return pd.DataFrame({name: value for name, value in (base | changes).items() if value is not None})  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_tables_of_trials_with_time(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    shuffled = table().sort_values("time", kind="stable")  # trials in turns
    if kind == "csv":
        shuffled.to_csv(path, index=False)
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        shuffled.to_parquet(path)
    else:
        shuffled.to_json(path, orient="records", lines=True, double_precision=15)
    read = read_recording(path)
    np.testing.assert_allclose(read.activity, X, rtol=1e-12)
    assert read.names == ("n1", "n2") and read.step == pytest.approx(0.02)


def test_one_recording_with_gaps_and_chosen_units(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b;note\n1,5;;x\n2,5;3;y\n")
    read = read_recording(path, units=("b", "a"))
    np.testing.assert_array_equal(read.activity[0], [[np.nan, 1.5], [3, 2.5]])
    assert read.names == ("b", "a") and read.step is None
    other = tmp_path / "o.csv"
    table(when=table()["time"], time=None, run=table()["trial"], trial=None).to_csv(other, index=False)  # fmt: skip
    read = read_recording(other, time="when", trial="run")
    assert read.activity.shape == (3, 6, 2) and read.step == pytest.approx(0.02)


def test_arrays(tmp_path):
    np.save(tmp_path / "a.npy", X.astype(np.float32))
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npy").activity, X.astype(np.float32))
    np.save(tmp_path / "b.npy", (X[0] > 0))
    assert read_recording(tmp_path / "b.npy").activity.shape == (1, 6, 2)
    np.savez(tmp_path / "c.npz", activity=X, other=np.zeros(3), names=["u", "v"], step=2)
    read = read_recording(tmp_path / "c.npz", units=("v",))
    assert read.names == ("v",) and read.step == 2
    np.testing.assert_array_equal(read.activity, X[:, :, 1:])
    np.savez(tmp_path / "d.npz", rates=X)
    assert read_recording(tmp_path / "d.npz").names == ("0", "1")


@pytest.mark.parametrize(("changes", "says"), [
    ({"time": np.tile([0, 1, 2, 3, 5, 6.0], 3)}, "column 'time', row 6: time must go up by the same step, here 1 and not 2"),
    ({"time": np.tile([0, 1, 1, 2, 3, 4.0], 3)}, "row 4: time must go up by the same step, here 1 and not 0"),
    ({"trial": ["a"] * 7 + ["b"] * 5 + ["c"] * 6}, "trial 'b' has 5 steps where another has 7: cut all"),
    ({"n1": ["x"] * 18}, "column 'n1', row 2: x is not a number|column 'n1', row 2: 'x' is not a number"),
    ({"n1": None, "n2": None}, "needs at least one column of a unit"),
], ids=str)  # fmt: skip
def test_tables_are_refused_with_the_place(tmp_path, changes, says):
    path = tmp_path / "t.csv"
    table(**changes).to_csv(path, index=False)
    with pytest.raises(FileError, match=f"t.csv.*({says})"):
        read_recording(path)


@pytest.mark.parametrize(("arrays", "says"), [
    ({"x": X, "y": X}, "no array 'activity'; it has: x, y: save it"),
    ({"activity": X[0, 0]}, r"\[time, units\] of one recording, not float64 \[2\]"),
    ({"activity": X[:, :0]}, r"not float64 \[3, 0, 2\]"),
    ({"activity": X.astype(str)}, "must hold numbers"),
    ({"activity": X.astype(object)}, "Python objects"),
    ({"activity": X, "names": ["a"]}, "array 'names' must hold 2 names"),
    ({"activity": X, "names": ["a", "a"]}, "a name appears twice"),
    ({"activity": X, "step": [1, 2]}, "array 'step' must be one number above 0"),
    ({"activity": X, "step": 0}, "array 'step' must be"),
], ids=str)  # fmt: skip
def test_arrays_are_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **{name: np.asarray(value) for name, value in arrays.items()})
    with pytest.raises(FileError, match=f"a.npz.*{says}"):
        read_recording(tmp_path / "a.npz")


def test_files_that_are_no_arrays(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        read_recording(tmp_path / "a.npy")
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(b"no array")
        with pytest.raises(FileError, match="is damaged|is not an .npz"):
            read_recording(tmp_path / name)
    np.save(tmp_path / "b.npy", X)
    cut = (tmp_path / "b.npy").read_bytes()[:-9]
    (tmp_path / "b.npy").write_bytes(cut)
    with pytest.raises(FileError, match="is damaged"):
        read_recording(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", X)
    with pytest.raises(FileError, match="has no unit 'z'; it has: 0, 1"):
        read_recording(tmp_path / "c.npy", units=("z",))
