"""A log of gradient norms in, a schedule out: the known answer, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latebloom.data.files import FileError
from latebloom.lab import apply

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "gradient-norms.csv"


def write(path, rows, header="step,grad_norm"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def rising(path, count=3000, every=2):
    """Norms (1 - s)^-1/4, whose squares refine to (1 - s)^2."""
    s = np.arange(count) / count
    norms = (1 - s) ** -0.25
    return write(path, [f"{every * i},{g:.6g}" for i, g in enumerate(norms)])


def test_a_power_of_two_comes_back(tmp_path):
    options = {"window": "0.01", "trim": "0"}
    done = apply(
        "refined-schedules", [rising(tmp_path / "log.csv")], tmp_path / "out", settings=options
    )
    assert {p.name for p in done.paths} == {
        "schedule.csv", "norms.csv", "schedule.png", "result.json"
    }  # fmt: skip
    result = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    assert result["power"] == pytest.approx(2.0, abs=0.1) and result["warmup"] < 0.02
    assert result["steps"] == 5999 and result["bound_over_linear"] < 1
    table = pd.read_csv(tmp_path / "out" / "schedule.csv")
    np.testing.assert_allclose(table.refined, (1 - table.step / 5998) ** 2, atol=0.03)
    assert table.refined.max() == 1 and table.refined.iloc[-1] == 0
    assert (tmp_path / "out" / "schedule.png").stat().st_size > 10_000


def test_the_example_has_a_long_warmup(tmp_path):
    done = apply("refined-schedules", [EXAMPLE], tmp_path / "out", settings={"steps": "500"})
    summary = done.applied.summary
    assert summary["steps"] == len(done.applied.tables["schedule"]) == 500
    assert 0.1 < summary["peak_at"] < 0.9
    assert "tune the peak learning rate anew" in done.applied.found[-1]
    assert EXAMPLE.stat().st_size < 100_000


def test_overflow_and_collapse_are_told_of(tmp_path):
    norms = [*["Infinity", "nan", ""], *["1.0"] * 150, *["1e-7"] * 100]
    path = write(tmp_path / "log.csv", [f"{i},{g}" for i, g in enumerate(norms)])
    found = " ".join(apply("refined-schedules", [path], tmp_path / "out").applied.found)
    assert "3 that were not finite left out" in found and "floor=0.1" in found
    options = {"floor": "0.5", "norm": "l1"}
    again = apply("refined-schedules", [path], tmp_path / "l1", settings=options).applied
    assert "floor" not in " ".join(again.found) and again.summary["bound_over_linear"] is None
    assert "optimal" not in again.tables["schedule"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["0,1"] * 5, "step,grad_norm", "5 rows where at least 20"),
        ([f"{i},1" for i in range(30)], "step,norm", "no column 'grad_norm'"),
        ([f"{i},{'x' if i == 7 else 1}" for i in range(30)], "step,grad_norm", "row 9: 'x' is not a"),
        ([f"{i},{-1 if i == 3 else 1}" for i in range(30)], "step,grad_norm", "row 5: -1 is outside"),
        ([f"{i % 20},1" for i in range(30)], "step,grad_norm", "column 'step', row 22: steps must"),
        ([f"{i},0" for i in range(30)], "step,grad_norm", "log.csv: the gradient norms are mostly 0"),
        ([f"{i},inf" for i in range(30)], "step,grad_norm", "0 finite norms are left"),
        ([f"-{i},1" for i in range(30)], "step,grad_norm", "outside"),
    ],
)  # fmt: skip
def test_bad_logs_are_refused_with_their_place(tmp_path, rows, header, message):
    path = write(tmp_path / "log.csv", rows, header)
    with pytest.raises(FileError, match=message):
        apply("refined-schedules", [path], tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_one_log_at_a_time(tmp_path):
    path = rising(tmp_path / "log.csv", 50)
    with pytest.raises(FileError, match="not 2 files"):
        apply("refined-schedules", [path, path], tmp_path / "out")
