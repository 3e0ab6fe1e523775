"""Users' tables at the border: what is read, and how each kind of damage is named."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.data.files import Column, FileError, check_table, read_table

WANTED = {
    "when": Column("time"),
    "item": Column("text"),
    "pull": Column("integer", low=0),
    "p": Column("number", low=0, high=1, above=True),
    "allowed": Column("list", required=False),
}
GOOD = "when,item,pull,p,allowed\n2024-01-02,a,1,0.5,[1]\n2024-01-03T04:05:06Z,b,2,1,1|2\n"


def write(folder, text, name="log.csv"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_with_its_types(tmp_path, separator):
    text = GOOD.replace(",", separator) + "\n"
    table = read_table(write(tmp_path, text), WANTED)
    assert table.item.tolist() == ["a", "b"] and table["pull"].dtype == np.int64
    assert table.p.tolist() == [0.5, 1.0] and table.when.dt.day.tolist() == [2, 3]
    assert table.allowed.tolist() == [["1"], ["1", "2"]]


def test_parquet_holds_the_same(tmp_path):
    frame = read_table(write(tmp_path, GOOD.replace("[1]", '["1"]')), WANTED)
    frame.to_parquet(tmp_path / "log.parquet")
    again = read_table(
        tmp_path / "log.parquet", {n: c for n, c in WANTED.items() if n != "allowed"}
    )
    pd.testing.assert_frame_equal(again.drop(columns="allowed"), frame.drop(columns="allowed"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.csv is empty"),
        ("when,item,pull,p\n", r"has 0 rows where at least 1 are needed"),
        ("when,item,p\n2024-01-02,a,0.5\n", r"has no column 'pull'; it has: when, item, p"),
        ("when,item,item,p\n1,a,b,0.5\n", r"line 1: column 'item' appears twice"),
        ("when,item,pull,p\n2024-01-02,a,1\n", r"line 2 has 3 values where the header names 4"),
        (GOOD + "2024-01-04,a,,0.5,[]\n", r"column 'pull', row 4 is empty"),
        (GOOD + "2024-01-04,a,1.5,0.5,[]\n", r"column 'pull', row 4: '1.5' is not a whole number"),
        (GOOD + "2024-01-04,a,-1,0.5,[]\n", r"column 'pull', row 4: -1 is outside \[0, ∞\)"),
        (GOOD + "2024-01-04,a,1,0,[]\n", r"column 'p', row 4: 0 is outside \(0, 1\]"),
        (GOOD + "2024-01-04,a,1,nan,[]\n", r"column 'p', row 4: 'nan' is not a number"),
        (GOOD + "2024-01-04,a,1,half,[]\n", r"column 'p', row 4: 'half' is not a number"),
        (GOOD + "yesterday,a,1,0.5,[]\n", r"column 'when', row 4: 'yesterday' is not a time"),
        (GOOD + "2024-01-04,a,1,0.5,[1\n", r"column 'allowed', row 4: '\[1' is not a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(FileError, match=message) as error:
        read_table(write(tmp_path, text), WANTED)
    assert "log.csv" in str(error.value)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.csv: there is no such file"):
        read_table(tmp_path / "nothing.csv", {})
    with pytest.raises(FileError, match="is not a Parquet file"):
        read_table(write(tmp_path, "x", "a.parquet"), {})
    (tmp_path / "b.csv").write_bytes(b"x\n\xff")
    with pytest.raises(FileError, match="is not text in UTF-8"):
        read_table(tmp_path / "b.csv", {})


def test_infinity_is_outside_and_gaps_may_be_allowed():
    frame = pd.DataFrame({"x": [1.0, np.inf]})
    with pytest.raises(FileError, match="the table, column 'x', row 1: inf is outside"):
        check_table(frame, {"x": Column()})
    frame = pd.DataFrame({"x": ["", "2"]})
    assert np.isnan(check_table(frame, {"x": Column(gaps=True)}).x[0])


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_numbers_survive_the_way_through_a_csv(values):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        pd.DataFrame({"x": values}).to_csv(path, index=False)
        assert read_table(path, {"x": Column()}).x.tolist() == values
