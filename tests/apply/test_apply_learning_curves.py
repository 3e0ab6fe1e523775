"""A table of scores in, a forecast out: known answers, and files that are refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latebloom.data.files import FileError
from latebloom.lab import apply

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "tagger-curve.csv"
SIZES = range(5000, 105_000, 5000)


def law(x, top=0.96):
    return top - 1.2 * x**-0.3


def write(path, rows, header="size,score"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def clean(path):
    return write(path, [f"{x},{law(x):.7f}" for x in SIZES])


def test_a_clean_curve_comes_out_as_it_is(tmp_path):
    options = {"target": "0.93", "at": "800000", "tau": "0.04"}
    done = apply(
        "learning-curves", [clean(tmp_path / "curve.csv")], tmp_path / "out", settings=options
    )
    assert {p.name for p in done.paths} == {
        "forecast.csv",
        "levels.csv",
        "curve.png",
        "result.json",
    }
    row = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]["learners"][0]
    assert row["forecast"] == pytest.approx(law(8e5), abs=2e-4)
    assert row["required_size"] == pytest.approx((1.2 / 0.03) ** (1 / 0.3), rel=0.02)
    assert row["required_low"] <= row["required_size"] <= row["required_high"]
    assert (row["a"], row["b"], row["c"]) == pytest.approx((1.2, 0.3, 0.96), rel=1e-2)
    assert row["stop_size"] == 85_000 and row["working_size"] == 15_000
    said = " ".join(done.applied.found)
    assert (
        "from size 85,000 on the trend expects at most 0.04 more (an estimate, no bound): stop"
        in said
    )
    assert "the target 0.93 needs size 21" in said or "the target 0.93 needs size 22" in said
    table = pd.read_csv(tmp_path / "out" / "forecast.csv")
    np.testing.assert_allclose(table.score, law(table["size"]), atol=3e-4)
    levels = pd.read_csv(tmp_path / "out" / "levels.csv")
    assert len(levels) == 18 and levels["size"].iloc[0] == 15_000
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000


def test_what_is_never_reached_and_what_is_reached_already(tmp_path):
    path = clean(tmp_path / "curve.csv")
    never = apply("learning-curves", [path], tmp_path / "a", settings={"target": "0.99"}).applied
    assert "is not reached at any size by the forecast" in " ".join(never.found)
    assert never.summary["learners"][0]["required_size"] is None
    done = apply("learning-curves", [path], tmp_path / "b", settings={"target": "0.9"}).applied
    assert "is reached already" in " ".join(done.found)
    go_on = apply("learning-curves", [path], tmp_path / "c", settings={"tau": "0.001"}).applied
    assert "more, above 0.001: go on" in " ".join(go_on.found)
    assert go_on.summary["learners"][0]["stop_size"] is None


def test_the_example_holds_real_taggers(tmp_path):
    done = apply("learning-curves", [EXAMPLE], tmp_path / "out", settings={"at": "800000"})
    rows = done.applied.summary["learners"]
    assert len(rows) > 1 and all(90 < row["forecast"] < 98 for row in rows)
    assert all(row["forecast_low"] < row["forecast"] < row["forecast_high"] for row in rows)
    assert "order expected at size 800,000" in done.applied.found[-1]
    assert EXAMPLE.stat().st_size < 20_000


def test_seeds_are_averaged_and_named_apart(tmp_path):
    rows = [
        f"{x},{law(x) + d:.6f},{s}" for s, d in (("a", -0.01), ("b", 0), ("c", 0.01)) for x in SIZES
    ]
    path = write(tmp_path / "curve.csv", rows, "size,score,seed")
    done = apply("learning-curves", [path], tmp_path / "out", settings={"at": "800000"}).applied
    row = done.summary["learners"][0]
    assert row["sizes"] == 20 and row["forecast"] == pytest.approx(law(8e5), abs=1e-3)
    assert row["forecast_high"] - row["forecast_low"] > 0.01
    write(path, [*rows, "5000,0.8,b"], "size,score,seed")
    with pytest.raises(
        FileError, match=r"column 'size', row 62: size 5000 has a score of seed 'b' already"
    ):
        apply("learning-curves", [path], tmp_path / "twice")


def test_an_unsettled_curve_says_so(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "c.csv", [f"{x},{60 + x / 5000 + rng.normal():.3f}" for x in SIZES])
    found = " ".join(apply("learning-curves", [path], tmp_path / "out").applied.found)
    assert "has not settled yet" in found and "above the best score" in found


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["100,0.5"] * 3, "size,score", "3 rows where at least 5"),
        ([f"{x},0.5" for x in SIZES], "n,score", "no column 'size'"),
        ([f"{x},{'high' if x == 20_000 else 0.5}" for x in SIZES], "size,score", "column 'score', row 5: 'high' is not a number"),
        ([f"{x - 5000},0.5" for x in SIZES], "size,score", "column 'size', row 2: 0 is outside"),
        ([f"{x},{-0.5 if x == 10_000 else 0.5}" for x in SIZES], "size,score", "column 'score', row 3: -0.5 is outside"),
        ([f"{x},{150 if x == 10_000 else 50}" for x in SIZES], "size,score", "column 'score', row 3: 150 is above the best score 100"),
        ([f"{x},{100 * law(x) if x == 15_000 else law(x)}" for x in SIZES], "size,score", "column 'score', row 4: .* is above 1 and others are not: give all scores as fractions or all in percent, or set upper"),
        ([f"{x},{law(x) * (100 if s == 'a' else 1)},{s}" for s in "abc" for x in SIZES if s != "c"] + ["1000,80,c"], "size,score,seed", "column 'score', row 22: .* is at most 1 and others are above"),
        ([f"{x},{1 - law(x)}" for x in SIZES], "size,score", "columns 'size' and 'score': scores fall"),
        ([f"100,{0.5 + i / 100}" for i in range(9)], "size,score", "at 5 training sizes or more, and there are 1"),
        ([f"{x},{law(x)},a" for x in SIZES] + ["1,0.1,b"], "size,score,learner", "learner 'b': a forecast needs"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_their_place(tmp_path, rows, header, message):
    path = write(tmp_path / "curve.csv", rows, header)
    with pytest.raises(FileError, match=message) as error:
        apply("learning-curves", [path], tmp_path / "out")
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"target": "93"}, "target is a score above 0 and of at most 1, not 93"),
        ({"target": 0.0}, "target is a score above 0"),
        ({"target": "high"}, "setting target takes a value of type float.*, not 'high'"),
        ({"target": [0.9, 0.94]}, "setting target takes a value of type float"),
        ({"confidence": "1.5"}, "confidence must lie between 0 and 1"),
        ({"tau": "-1"}, "tau must be positive, not -1"),
        ({"at": "nan"}, "at must be positive, not nan"),
        ({"upper": 0}, "upper, the best score there is, must be positive, not 0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        apply("learning-curves", [clean(tmp_path / "c.csv")], tmp_path / "out", settings=setting)


def test_settings_may_be_values(tmp_path):
    path = clean(tmp_path / "c.csv")
    values = apply(
        "learning-curves", [path], tmp_path / "a", settings={"target": 0.94, "at": 800_000}
    )
    text = apply(
        "learning-curves", [path], tmp_path / "b", settings={"target": ".94", "at": "800000"}
    )
    assert values.applied.found == text.applied.found
    assert "the target 0.94 needs size" in " ".join(values.applied.found)


def test_sizes_may_be_shares_of_the_data(tmp_path):
    shares = np.linspace(0.05, 1, 20)
    path = write(tmp_path / "c.csv", [f"{x},{96 - 8 * x**-0.3:.5f}" for x in shares])
    done = apply("learning-curves", [path], tmp_path / "out", settings={"at": 1.5, "target": 88.5})
    found = " ".join(done.applied.found)
    assert "at size 1.5 a score of 88.92 is expected" in found
    assert "the target 88.5 needs size 1.24" in found  # (8 / 7.5)^(1 / 0.3) = 1.240
    table = pd.read_csv(tmp_path / "out" / "forecast.csv")
    assert len(table) == 60 and table["size"].min() == pytest.approx(0.05)


def test_one_table_at_a_time(tmp_path):
    path = clean(tmp_path / "c.csv")
    with pytest.raises(FileError, match="not 2 files"):
        apply("learning-curves", [path, path], tmp_path / "out")
