"""Users' tables at the border: what is read, and how each kind of damage is named."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latebloom.data.files import Column, FileError, check_table, read_json, read_table, row_number

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


def table(folder, content, columns=None, name="log.csv", **more):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(
        path, {"a": Column("text"), "x": Column()} if columns is None else columns, **more
    )


@pytest.mark.parametrize(
    "inner", ["\u2028", "\x0c", "\x85", "\x1c", "two\nlines", "two\r\nlines", "\r", 'a "q" b']
)
def test_lines_end_where_csv_ends_them(tmp_path, inner):
    quoted = inner.replace('"', '""')
    found = table(tmp_path, f'a,x\n"-{quoted}-",1\nlast,2\n')
    assert found.a.tolist() == [f"-{inner}-", "last"] and found.x.tolist() == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"a,x\r\nb,1\r\nc,2\r\n",
        b"a,x\rb,1\rc,2",
        b"a,x\r\r\nb,1\r\r\nc,2\r\r\n",
        b"\n\n a , x \n\nb,1\n   \nc,2\n\n\n",
        b'\xef\xbb\xbf"a","x"\n"b","1"\n"c","2"',
        b"sep=;\na;x\nb;1\nc;2\n",
        "a\tx\nb\t1\nc\t2\n".encode("utf-16"),
        "a;x\nb;1\nc;2\n".encode("utf-32"),
        b'a, x\nb, "1"\nc, 2\n',
        b",a,x\n0,b,1\n1,c,2\n",
        b"a,x,\nb,1,\nc,2,\n,,\n",
        b"a,x\nb,1.0\nc,+2e0\n",
    ],
)
def test_a_table_is_the_same_however_it_is_written(tmp_path, content):
    found = table(tmp_path, content)
    assert found.columns.tolist() == ["a", "x"]
    assert found.a.tolist() == ["b", "c"] and found.x.tolist() == [1, 2]


def test_a_field_may_be_of_any_length(tmp_path):
    import csv

    limit = csv.field_size_limit()
    assert len(table(tmp_path, f"a,x\n{'y' * 300_000},1\n").a[0]) == 300_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,x\nZoé,1\n".encode("latin-1"), "line 2 is not text in UTF-8 .byte 0xe9.: save it as CSV"),
        ("a,x\n1,1\n".encode("utf-16-le"), "line 1 holds a NUL"),
        (b"PK\x03\x04...", "is an Excel workbook or another archive: save the sheet as CSV"),
        (b"\x1f\x8b...", "is compressed: unpack it"),
        (b",,\n,,\n", "has no header"),
        (b'a,x\n"b,1\nc,2\n', "line 2: a quoted value does not end"),
        (b'a,x\n"b" c,1\n', "line 2: a quoted value does not end"),
        (b'a,x\n"b\nb",1\nc,2,3\n', "line 4 has 3 values"),
        (b"a,x,\nb,1,7\n", "line 1: column 3 has no name"),
        (b',a,x\n7,b,1\n', "line 1: column 1 has no name"),
        (b'a,x\n"b\nb",1\n\nc,y\n', "column 'x', row 4: 'y' is not a number"),
        (b'a,x\nb,"1,234"\n', "column 'x', row 2: '1,234' is not a number: write it without separators"),
        (b'a,x\nb,"1,5"\n', "column 'x', row 2: '1,5' is not a number: write it with a decimal point"),
        (b"a,x\nb,12%\n", "row 2: '12%' is not a number: write it as a fraction"),
        (b"a,x\nb,1_000\n", "'1_000' is not a number"),
        ("a,x\nb,１２\n", "'１２' is not a number"),
        (b"a,x\nb," + b"y" * 500 + b"\n", "row 2: 'yyy.{50,80} is not a number$"),
        (b"a x\nb 1\n", "has no column 'a'; it has: a x$"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_with_its_place(tmp_path, content, message):
    with pytest.raises(FileError, match=rf"log\.csv.*{message}"):
        table(tmp_path, content)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_decimal_commas_beside_semicolons_and_tabs(tmp_path, mark):
    """Typed columns, and those of context that nobody asked for; lists and texts stay."""
    text = "a|x|context|pair|when|allowed\n0,5|12,345|-,5|u,v|2024-01-02|0,1\n1,5|7|3e0|2,5|2024-01-03|1\n"
    columns = {
        "x": Column(),
        "a": Column("text"),
        "allowed": Column("list"),
        "when": Column("time"),
    }
    found = table(tmp_path, text.replace("|", mark), columns)
    assert found.x.tolist() == [12.345, 7] and found.a.tolist() == ["0,5", "1,5"]
    assert found.context.map(float).tolist() == [-0.5, 3] and found.pair.tolist() == ["u,v", "2,5"]
    assert found.allowed.tolist() == [["0", "1"], ["1"]] and found.when.dt.day.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b;12,345\nc;7,250\n", "column 'x', row 2: '12,345' may have three decimals or a separator"),
        ("b;12.345\nc;7.250\n", "column 'x', row 2: '12.345' may have three decimals or a separator"),
        ("b;0,5\nc;1.5\n", "column 'x', row 2: '0,5' has a decimal comma, but column 'x', row 3: '1.5'"),
        ("b;0,5\nc;1.234,5\n", "column 'x', row 3: '1.234,5' is not a number: write it without separ"),
        ("b;0,5\nc;1 234\n", "column 'x', row 3: '1 234' is not a number: write it without separators"),
        ("b;1,234,567\nc;0,5\n", "column 'x', row 2: '1,234,567' is not a number: write it without"),
    ],
)  # fmt: skip
def test_thousands_are_never_taken_for_decimals(tmp_path, rows, message):
    with pytest.raises(FileError, match=message):
        table(tmp_path, "a;x\n" + rows)


SECOND = 1_735_689_845  # 2025-01-01T00:04:05Z
MOMENT = pd.Timestamp("2025-01-01T00:04:05Z")


@pytest.mark.parametrize(
    ("written", "expected", "unit"),
    [
        ("2025-01-01T00:04:05Z", MOMENT, "auto"),
        ("2025-01-01 00:04:05", MOMENT, "auto"),
        ("2025-01-01 02:04:05+0200", MOMENT, "auto"),
        ("2025-01-01 00:04:05 UTC", MOMENT, "auto"),
        ("2025/1/1 0:04:05", MOMENT, "auto"),
        ("20250101T000405Z", MOMENT, "auto"),
        ("20250101000405", MOMENT, "auto"),
        ("20250101", MOMENT.normalize(), "auto"),
        ("20250101.0", MOMENT.normalize(), "auto"),
        ("2025-01", MOMENT.normalize(), "auto"),
        (f"{SECOND}", MOMENT, "auto"),
        (f"{SECOND}.25", MOMENT + pd.Timedelta("250ms"), "auto"),
        (f"{SECOND}123", MOMENT + pd.Timedelta("123ms"), "auto"),
        (f"{SECOND}123456", MOMENT + pd.Timedelta("123456us"), "auto"),
        (f"{SECOND}123456789", MOMENT + pd.Timedelta("123456789ns"), "auto"),
        ("86400", pd.Timestamp("1970-01-02T00:00:00Z"), "s"),
        ("20250101", pd.Timestamp("1970-08-23T09:01:41Z"), "s"),
        ("5", pd.Timestamp("1970-01-01T00:00:00.005Z"), "ms"),
        ("20089", MOMENT.normalize(), "D"),
    ],
)
def test_a_time_is_told_by_its_form_or_its_declared_unit(tmp_path, written, expected, unit):
    columns = {"when": Column("time", unit=unit)}
    assert table(tmp_path, f"when,a\n{written},b\n", columns).when[0] == expected


@pytest.mark.parametrize(
    "values", [[SECOND], [SECOND * 10**3], [SECOND * 10**6], [SECOND * 10**9], [float(SECOND)],
               [np.datetime64("2025-01-01T00:04:05")], [MOMENT.to_pydatetime()], [MOMENT]]
)  # fmt: skip
def test_the_times_of_a_frame(values):
    found = check_table(pd.DataFrame({"when": values}), {"when": Column("time")})
    assert found.when[0] == MOMENT


def test_a_time_may_be_missing_whatever_its_form(tmp_path):
    columns = {"when": Column("time", gaps=True)}
    for one in (f"{SECOND}000", f"{SECOND}", "2025-01-01T00:04:05Z"):
        found = table(tmp_path, f"when,a\n,b\n{one},c\nNaT,d\n", columns)
        assert found.when.isna().tolist() == [True, False, True] and found.when[1] == MOMENT
    assert table(tmp_path, "when,a\n,b\n,c\n", columns).when.isna().all()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("now", "not a time that can be told"),
        ("today", "not a time that can be told"),
        ("01/02/2025", "not a time that can be told: write ISO 8601"),
        ("2025", "not a time that can be told"),
        ("86400", "not a time that can be told.*or declare time_unit"),
        ("170000000000", "not a time that can be told"),
        ("1.7e9", "not a time that can be told"),
        ("2025-01 05", "not a time that can be told"),
        ("20251301", "no time of the calendar"),
        ("2025-02-30", "no time of the calendar"),
        ("2025-01-01T25:00:00", "no time of the calendar"),
        (f"{SECOND}", "is seconds since 1970, where rows before have milliseconds since 1970"),
        ("2025-01-01", "is a date or time, where rows before have milliseconds"),
    ],
)
def test_what_is_no_time_is_refused(tmp_path, written, message):
    first = "2024-12-31" if "calendar" in message else f"{SECOND}000"
    with pytest.raises(FileError, match=rf"column 'when', row 3: '.*' (is )?{message}"):
        table(tmp_path, f"when,a\n{first},b\n{written},c\n", {"when": Column("time")})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"0,1,2"', ["0", "1", "2"]),
        ('"[0, 1, 2]"', ["0", "1", "2"]),
        ('"[0.0, 1.0, 2.50]"', ["0", "1", "2.50"]),
        ("0|1|2", ["0", "1", "2"]),
        ("0 | 1", ["0", "1"]),
        ("0;1;2", ["0", "1", "2"]),
        ("0 1 2", ["0", "1", "2"]),
        ("[0 1 2]", ["0", "1", "2"]),
        ('"(0, 1)"', ["0", "1"]),
        ("\"['a b', 'c']\"", ["a b", "c"]),
        ('"[""a|b"", ""c""]"', ["a|b", "c"]),
        ("card a|card b", ["card a", "card b"]),
        ("2.0", ["2"]),
        ("[]", []),
    ],
)
def test_lists_as_tools_write_them(tmp_path, written, expected):
    assert table(tmp_path, f"l,b\n{written},1\n", {"l": Column("list")}).l[0] == expected


@pytest.mark.parametrize(
    "written", ["[0", '"0,,1"', '"0,1|2"', "[[0]]", '"{""a"": 1}"', "[null]", "[nan]", "|"]
)
def test_what_is_no_list_is_refused(tmp_path, written):
    with pytest.raises(FileError, match="column 'l', row 2: .* is not a list"):
        table(tmp_path, f"l,b\n{written},1\n", {"l": Column("list")})


def test_labels_are_one_however_they_are_written(tmp_path):
    text = "l,t\n2,2\n2.0, 2.0\n 2 ,2\n02,02\n1.10,1\nZoe\u0301,2\nZo\u00e9,2\n"
    found = table(tmp_path, text, {"l": Column("label"), "t": Column("text")})
    assert found.l.tolist() == ["2", "2", "2", "02", "1.10", "Zoé", "Zoé"]
    assert found.t.tolist()[:2] == ["2", "2.0"]
    frame = pd.DataFrame({"l": [2.0, 1.0], "m": [2, 1]})
    found = check_table(frame, {"l": Column("label"), "m": Column("label")})
    assert found.l.tolist() == found.m.tolist() == ["2", "1"]


def test_whole_numbers_are_exact(tmp_path):
    found = table(tmp_path, "n,b\n9007199254740993,1\n2.0,2\n", {"n": Column("integer")})
    assert found.n.tolist() == [9007199254740993, 2]
    for wrong in ("9223372036854775808", "1e999999999", "1e99999999999999999999", "2.5"):
        with pytest.raises(FileError, match="row 2: .* is not a whole number"):
            table(tmp_path, f"n,b\n{wrong},1\n", {"n": Column("integer")})


@pytest.mark.parametrize(
    ("header", "chosen", "expected"),
    [
        ("Step,Grad Norm", None, "Grad Norm"),
        ("step,other,train/grad_norm", None, "train/grad_norm"),
        (
            'step,"run 1 - train/grad_norm","run 1 - train/grad_norm__MIN"',
            None,
            "run 1 - train/grad_norm",
        ),
        ("step,grad_norm,Grad Norm", None, "grad_norm"),
        ("step,grad_norm,other", ["grad_norm=other"], "other"),
    ],
)
def test_columns_are_recognised_or_chosen(tmp_path, header, chosen, expected):
    columns = {"step": Column(), "grad_norm": Column(aliases=("train/grad_norm",))}
    names = [name.strip('"') for name in header.split(",")]
    text = header + "\n" + ",".join(str(i) for i in range(len(names))) + "\n"
    found = table(tmp_path, text, columns, chosen=chosen)
    assert found.grad_norm[0] == names.index(expected)
    assert found.columns.tolist().count("grad_norm") == 1


@pytest.mark.parametrize(
    ("header", "chosen", "message"),
    [
        ("Step,train/loss", [], "no column 'grad_norm'; it has: Step, train/loss: choose one with --set columns=grad_norm=COLUMN"),
        ("step,a - grad_norm,b - grad_norm", [], "a - grad_norm, b - grad_norm may each be column 'grad_norm'"),
        ("step,x", ["grad_norm=y"], "has no column 'y' .grad_norm=y.; it has: step, x"),
        ("step,x", ["norm=x"], "setting columns: 'norm=x' is not NAME=COLUMN, once for each of step, grad_norm"),
        ("step,x", None, "has no column 'grad_norm'; it has: step, x$"),
    ],
)  # fmt: skip
def test_where_columns_are_not_recognised_the_option_is_named(tmp_path, header, chosen, message):
    columns = {"step": Column(), "grad_norm": Column()}
    with pytest.raises(FileError, match=message):
        table(tmp_path, header + "\n" + "1," * header.count(",") + "1\n", columns, chosen=chosen)


def test_json_in_lists_lines_and_trainer_states(tmp_path):
    rows = [{"a": "b", "x": 1}, {"a": "c", "x": None}, {"a": "d"}]
    columns = {"a": Column("text"), "x": Column(gaps=True)}
    lines = "\n".join(map(json.dumps, rows))
    for name, text in (("t.json", json.dumps(rows)), ("t.jsonl", lines),
                       ("t.json", json.dumps({"log_history": rows, "epoch": 1}))):  # fmt: skip
        found = table(tmp_path, text, columns, name)
        assert found.a.tolist() == ["b", "c", "d"] and found.x.isna().tolist() == [
            False,
            True,
            True,
        ]
    with pytest.raises(FileError, match="column 'x', row 2: 'y' is not a number"):
        table(tmp_path, '[{"a": "b", "x": 1}, {"a": "b", "x": "y"}]', columns, "t.json")
    for text, message in (
        ("[1]", "holds no table"), ("{}", "holds no table"), ("[]", "holds no table"),
        ('[{"a": 1, "a": 2}]', "'a' appears twice"), ("[" * 100_000, "nested too deeply"),
        ("{", "is not JSON"), ("9" * 5000, "is not JSON"),
    ):  # fmt: skip
        with pytest.raises(FileError, match=message):
            table(tmp_path, text, columns, "t.json")
        if "table" not in message:
            with pytest.raises(FileError, match=message):
                read_json(tmp_path / "t.json")


def test_parquet_keeps_its_named_index_and_needs_no_ending(tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index(["b", "c"], name="a"))
    frame.to_parquet(tmp_path / "t.csv")
    found = read_table(tmp_path / "t.csv", {"a": Column("text"), "x": Column()})
    assert found.a.tolist() == ["b", "c"] and row_number(found, 1) == 2


def test_rows_are_numbered_as_the_file_has_them(tmp_path):
    found = table(tmp_path, 'a,x\n\n"b\nb",1\n\n\nc,2\nd,3\n')
    assert [row_number(found, place) for place in range(3)] == [3, 6, 7]
    assert row_number(pd.DataFrame({"x": [1]}), 0) == 0


def test_infinity_where_it_may_be():
    column = Column(low=0, gaps=True, infinite=True)
    found = check_table(pd.DataFrame({"x": ["inf", "-Infinity", "NaN", "", "2"]}), {"x": column})
    np.testing.assert_array_equal(found.x, [np.inf, -np.inf, np.nan, np.nan, 2])
    with pytest.raises(FileError, match="row 0: -1 is outside"):
        check_table(pd.DataFrame({"x": [-1.0]}), {"x": column})
