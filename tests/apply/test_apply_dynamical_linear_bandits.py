"""From a record of spends and outcomes to advice: columns, order of rows, and what is said of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latebloom.apply.dynamical_linear_bandits import Options, application, read_record
from latebloom.data.files import FileError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "spend.csv"


def advice(path, **options):
    return application.run([path], Options(draws=30, parts=4, **options), lambda what, share: None)


def written(tmp_path, frame):
    path = tmp_path / "spend.csv"
    frame.to_csv(path, index=False)
    return path


def test_rows_that_are_shuffled_are_put_in_order_or_refused(tmp_path):
    frame = pd.read_csv(EXAMPLE)
    shuffled = written(tmp_path, frame.sample(frac=1, random_state=0))
    with pytest.raises(
        FileError, match=r"order of the times in column 'date': give --set time=date"
    ):
        advice(shuffled)
    with_time = advice(shuffled, time="date")
    assert with_time.summary["response"] == advice(EXAMPLE, time="date").summary["response"]


def test_columns_that_are_not_used_are_named(tmp_path):
    frame = pd.read_csv(EXAMPLE).rename(columns={"spend_social": "social"})
    found = advice(written(tmp_path, frame)).found
    assert "Not used: date, social. Give --set time=date" in found[-1]
    assert "name all spends with --set spend=" in found[-1]
    assert not any("Not used" in line for line in advice(EXAMPLE, time="date").found)


def test_the_sentence_on_the_interval_is_that_of_its_sign(tmp_path):
    """A listed action that is far below the past is not said to include 0."""
    frame, said = pd.read_csv(EXAMPLE), []
    for share in (0.1, 1.0, 1.3):
        spends = frame.filter(like="spend_").mean().mul(share).to_frame().T
        listed = tmp_path / f"actions-{share}.csv"
        spends.to_csv(listed, index=False)
        done = application.run(
            [EXAMPLE, listed], Options(draws=30, time="date"), lambda what, share: None
        )
        summary, text = done.summary, " ".join(done.found)
        said.append(("below 0" in text, "includes 0" in text))
        assert said[-1][0] == (summary["gain_high"] < 0)
    assert said == [(True, False), (False, True), (False, False)]


def test_a_slow_drift_is_said(tmp_path):
    frame = pd.read_csv(EXAMPLE)
    t = np.arange(len(frame))
    frame["outcome_orders"] += 60 * np.sin(t / (len(frame) / 3))
    assert any("slow drift" in line for line in advice(written(tmp_path, frame), time="date").found)
    assert not any("slow drift" in line for line in advice(EXAMPLE, time="date").found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": float("nan")}, "setting ridge must be at least 0"),
        ({"draws": 3}, "setting draws must be at least 20"),
        ({"budget": float("inf")}, "setting budget must be a number above 0"),
        ({"caps": (-1.0, 5.0, 5.0)}, "setting caps must be numbers, 0 or more"),
        ({"weights": (float("nan"),)}, "setting weights must be finite"),
        ({"spend": ("nothing",)}, "no column 'nothing'"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(FileError, match=message):
        application.run([EXAMPLE], Options(**options), lambda what, share: None)


def test_a_sum_of_the_channels_is_refused_and_named(tmp_path):
    frame = pd.read_csv(EXAMPLE)
    frame["spend_total"] = frame.filter(like="spend_").sum(axis=1)
    with pytest.raises(FileError, match=r"spend.csv: column 'spend_\w+' is a combination of"):
        advice(written(tmp_path, frame), time="date")
    assert read_record(EXAMPLE, Options())[1] == ["spend_tv", "spend_search", "spend_social"]
