"""From a table of candidates to the one to take, with the truth known."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from latebloom.cli import app
from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.methods.bandits.sparse_misspecified.screening import screen

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 6))
TRUTH = 2.0 * X[:, 1] - 1.5 * X[:, 4] + 0.2 * rng.choice([-1, 1], 60)


def table(measured):
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)])
    frame.insert(0, "name", [f"mix-{i}" for i in range(60)])
    frame["result"] = np.where(np.isin(np.arange(60), measured), TRUTH, np.nan)
    return frame


def test_following_the_advice_ends_at_a_good_candidate_in_few_measurements():
    results = np.full(60, np.nan)
    results[:6] = TRUTH[:6]
    for _ in range(60):
        found = screen(X, results, sparsity=2, epsilon=0.6, bound=25.0)
        if found.decided:
            break
        results[found.action] = TRUTH[found.action]
    assert found.decided and np.isfinite(results).sum() < 30
    assert TRUTH.max() - TRUTH[found.action] <= found.within
    assert set(np.argsort(-found.support_shares())[:2]) == {1, 4}
    assert (found.low - 1e-9 <= found.high).all()


def test_survivors_are_in_the_units_of_the_table():
    found = screen(X, TRUTH + 100, sparsity=2, epsilon=0.6, bound=25.0)
    residuals = TRUTH - found.survivors @ X.T
    assert len(found.survivors) > 0 and (np.ptp(residuals, axis=1) <= 4 * 0.6 + 1e-9).all()
    nearest = found.survivors[np.argmin(((found.survivors - [0, 2, 0, 0, -1.5, 0]) ** 2).sum(1))]
    np.testing.assert_allclose(nearest, [0, 2, 0, 0, -1.5, 0], atol=0.25)
    assert (found.low <= TRUTH + 100 + 1.2).all() and (found.high >= TRUTH + 100 - 1.2).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_candidate_that_is_taken_is_within_the_guarantee(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 4))
    y = 5 + x[:, 2] + 0.1 * rng.choice([-1, 1], 30)
    results = np.full(30, np.nan)
    results[:2] = y[:2]
    while not (found := screen(x, results, sparsity=1, epsilon=0.15, bound=4.0)).decided:
        results[found.action] = y[found.action]
    assert y.max() - y[found.action] <= found.within == pytest.approx(0.6)


def test_a_file_becomes_advice(tmp_path):
    table(range(12)).to_csv(tmp_path / "mixes.csv", index=False)
    done = apply("sparse-misspecified-bandits", [tmp_path / "mixes.csv"], tmp_path / "out")
    assert done.applied.found[0].startswith(("take mix-", "measure mix-"))
    candidates = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert len(candidates) == 60 and candidates.status.isin(["take", "measure next"]).sum() == 1
    summary = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    assert summary["surviving_models"] > 0 and set(summary["feature_shares"]) == {f"f{i}" for i in range(6)}  # fmt: skip
    assert (tmp_path / "out" / "predictions.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="result"), "no column 'result'"),
        (lambda t: t.assign(f2="x"), "column 'f2', row 2: 'x' is not a number"),
        (lambda t: t.assign(f2=np.where(t.f1 > 99, 0, 1.0)), "feature 2 is the same in all rows"),
        (lambda t: t.assign(result=np.nan), "0 candidates have results; at least 2"),
        (lambda t: t[["name", "f0", "result"]], "has 1 feature columns; 2 are needed"),
        (lambda t: t[:2], "has 2 rows where at least 3"),
    ],
)
def test_bad_tables_are_named(tmp_path, change, message):
    path = tmp_path / "mixes.csv"
    change(table(range(12))).to_csv(path, index=False)
    with pytest.raises(FileError, match=message) as error:
        apply("sparse-misspecified-bandits", [path], tmp_path / "out")
    assert "mixes.csv" in str(error.value)


def test_an_epsilon_at_which_nothing_agrees_is_said(tmp_path):
    table(range(60)).to_csv(tmp_path / "mixes.csv", index=False)
    call = ["apply", "sparse-misspecified-bandits", str(tmp_path / "mixes.csv"), "--out", str(tmp_path / "o"), "--set", "epsilon=0.05"]  # fmt: skip
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2 and "give a larger epsilon or sparsity" in done.stderr.replace("\n", " ")  # fmt: skip
