"""A method applied to files: what is written, and what is refused."""

import dataclasses
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from latebloom.cli import app
from latebloom.lab import apply
from latebloom.lab.settings import override

STUDY = """
from dataclasses import dataclass
import pandas as pd
from latebloom.data.files import Column, read_table
from latebloom.lab import Application, Applied, Budget, Paper, Study, style

@dataclass(frozen=True)
class Config:
    rate: float = 0.1

@dataclass(frozen=True)
class Options:
    factor: float = 2.0

def process(config): ...
def schedule(config): ...

def run(paths, options, say):
    say("adding", 0.5)
    table = read_table(paths[0], {"x": Column()})
    total = float(table.x.sum()) * options.factor
    figure, ax = style.figure(1)
    return Applied((f"the sum is {total:g}",), {"sum": total}, {"sums": pd.DataFrame({"sum": [total]})}, {"picture": figure})

study = Study(
    paper=Paper("sums", "Sums", "A", "V", 2026, "0"), family="bandits", question="?", symptoms=("s",),
    arms={"a": Config()}, process=process, schedule=schedule, budgets={"quick": Budget(1)}, claims=(),
)
application = Application("numbers in, their sum out", "CSV with a column x", Options, run)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "sums.py").write_text(STUDY)
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    return tmp_path


def test_a_table_a_json_and_a_figure_come_out(files):
    done = apply(str(files / "sums.py"), [files / "x.csv"], files / "out", settings={"factor": "3"})
    assert done.applied.found == ("the sum is 9",)
    assert pd.read_csv(files / "out" / "sums.csv")["sum"].tolist() == [9]
    result = json.loads((files / "out" / "result.json").read_text())
    assert result["summary"] == {"sum": 9} and result["options"] == {"factor": 3}
    assert (files / "out" / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert {p.name for p in done.paths} == {"sums.csv", "picture.png", "result.json"}


def test_the_command_says_what_it_found_and_where(files):
    call = ["apply", str(files / "sums.py"), str(files / "x.csv"), "--out", str(files / "out")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0 and "the sum is 6" in done.stdout and "sums.csv" in done.stdout
    rows = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert rows["summary"] == {"sum": 6} and len(rows["written"]) == 3


def test_folders_are_printed_as_they_are_and_what_json_lacks_is_null(files):
    path = files / "sums.py"
    path.write_text(
        path.read_text().replace('{"sum": total}, {"sums"', '{"sum": float("nan")}, {"sums"')
    )
    call = ["apply", str(path), str(files / "x.csv"), "--out", str(files / "sch[a]")]
    call += ["--set", "factor=inf"]
    assert f"wrote {files}/sch[a]/result.json" in CliRunner().invoke(app, call).stdout
    texts = (
        (files / "sch[a]" / "result.json").read_text(),
        CliRunner().invoke(app, [*call, "--json"]).stdout,
    )
    for text in texts:
        assert json.loads(text, parse_constant=pytest.fail)["summary"] == {"sum": None}
    assert json.loads(texts[0])["options"] == {"factor": "inf"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "x.csv").write_text("y\n1\n"), "has no column 'x'"),
        (lambda f: (f / "x.csv").unlink(), "there is no such file"),
        (lambda f: (f / "out").write_text(""), "cannot be made"),
    ],
)
def test_bad_files_end_in_one_sentence_and_nothing_written(files, change, message):
    change(files)
    call = ["apply", str(files / "sums.py"), str(files / "x.csv"), "--out", str(files / "out")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")
    assert not list(files.glob("out/*"))


def test_unknown_options_and_studies_without_files_are_refused(files):
    with pytest.raises(ValueError, match="no setting 'factr'; did you mean 'factor'"):
        apply(str(files / "sums.py"), [files / "x.csv"], files / "out", settings={"factr": "1"})
    with pytest.raises(ValueError, match="concept-space is not applied to files"):
        apply("concept-space", [files / "x.csv"], files / "out")


def test_show_says_what_files_must_hold(files):
    done = CliRunner().invoke(app, ["show", str(files / "sums.py")])
    assert "CSV with a column x" in done.stdout and "factor=2.0" in done.stdout


@dataclasses.dataclass(frozen=True)
class Names:
    columns: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a,b", ("a", "b")),
        ("(a, b)", ("a", "b")),
        ("a=norm (l2)", ("a=norm (l2)",)),
        ('"a=x, y",b=z', ("a=x, y", "b=z")),
        (["a=x, y", "b=z"], ("a=x, y", "b=z")),
        ("", ()),
    ],
)
def test_names_in_a_setting_may_hold_commas_and_brackets(given, expected):
    assert override(Names(), "columns", given).columns == expected
    with pytest.raises(ValueError, match="setting columns takes a value of type"):
        override(Names(), "columns", '"a" b')
