"""From a file of round trips to tables, JSON and figures; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latebloom.apply.async_federated import Options, application, run
from latebloom.core.checkpoint import write_atomically
from latebloom.lab import style
from latebloom.methods.federated import planning

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "client-times.csv"


def nothing(what, share):
    pass


def test_the_example_file():
    said = []
    found = run([EXAMPLE], Options(horizon=30.0), lambda what, share: said.append(share))
    table = pd.read_csv(EXAMPLE)
    means = table.groupby("client").seconds.mean()
    clients = found.tables["clients"].set_index("client")
    assert len(clients) == 16 and clients.rounds_logged.sum() == len(table)
    expected = (1 / means).sum() * means / 16
    np.testing.assert_allclose(clients.weight_async, expected.loc[clients.index])
    share = (1 / means) / (1 / means).sum()
    chi = ((1 / 16 - share) ** 2 / share).sum()
    assert found.summary["chi_square_identical"] == pytest.approx(chi)
    assert "16 clients, 400 round trips" in found.found[0] and f"{chi:.3g}" in found.found[1]
    json.dumps(found.summary, allow_nan=False)
    assert found.summary["recommended_window_seconds"] in found.tables["schemes"]["window_seconds"].values  # fmt: skip
    assert set(found.figures) == {"weights", "rounds", "staleness", "schemes"}
    for figure in found.figures.values():
        assert len(style.png(figure)) > 10_000
    assert said == sorted(said) and 0 <= said[0] and said[-1] < 1


def test_few_rounds_are_said_and_another_scheme_can_be_in_use(tmp_path):
    path = tmp_path / "log.csv"
    write_atomically(path, b"client;seconds;importance\na;1;3\nb;2;1\nb;2;1\n")
    found = run([path], Options(scheme="fedfix", window=1.0, horizon=20.0), nothing)
    assert found.summary["scheme_in_use"] == "fedfix-1"
    assert found.summary["recommended_weights"]["sync"] == {"a": 0.75, "b": 0.25}
    assert "2 clients have fewer than 5" in found.found[-1]
    # b takes two windows: identical weights give it a third, not a quarter.
    chi = (0.75 - 2 / 3) ** 2 / (2 / 3) + (0.25 - 1 / 3) ** 2 / (1 / 3)
    assert found.summary["chi_square_identical"] == pytest.approx(chi)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client,secs\na,1\nb,2\n", "has no column 'seconds'"),
        ("client,seconds\na,1\nb,fast\n", "row 3: 'fast' is not a number"),
        ("client,seconds\na,1\nb,0\n", "row 3: 0 is outside"),
        ("client,seconds\na,1\n,2\n", "row 3 is empty"),
        ("client,seconds\na,1\na,2\n", "two clients"),
        ("client,seconds,importance\na,1,1\nb,2,1\nb,2,2\n", "row 4: 2 differs"),
    ],
)
def test_bad_files_are_refused_with_file_and_row(tmp_path, text, message):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        application.run([path], Options(), nothing)
    assert "log.csv" in str(error.value)


def test_one_file_is_wanted():
    with pytest.raises(ValueError, match="one file"):
        run([EXAMPLE, EXAMPLE], Options(), nothing)


def test_what_was_not_simulated_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "LONGEST", 20_000)
    path = tmp_path / "log.csv"
    rows = [
        f"{name},{seconds}"
        for name, seconds in (("a", 1), ("b", 2), ("c", 86_400))
        for _ in range(6)
    ]
    path.write_text("\n".join(["client,seconds", *rows]))
    found = run([path], Options(), nothing)
    said = " ".join(found.found)
    assert "async was not simulated" in said and "nan" not in said
    assert "the clock of async, fedbuff-1 was cut short at 20,000 aggregations" in said
    assert "simulated over 20 of the slowest client's times, not 100" in said
    json.dumps(found.summary, allow_nan=False)
    for figure in found.figures.values():
        assert len(style.png(figure)) > 10_000
