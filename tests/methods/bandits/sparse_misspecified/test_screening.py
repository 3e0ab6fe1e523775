"""From a table of candidates to the one to take, with the truth known."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog
from typer.testing import CliRunner

from latebloom.cli import app
from latebloom.data.files import FileError
from latebloom.lab import apply
from latebloom.methods.bandits.sparse_misspecified.screening import screen, standardised

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
        found = screen(X, results, sparsity=2, epsilon=0.6)
        if found.decided:
            break
        results[found.action] = TRUTH[found.action]
    assert found.decided and np.isfinite(results).sum() < 30
    assert TRUTH.max() - TRUTH[found.action] <= found.within
    assert set(np.argsort(-found.support_shares())[:2]) == {1, 4}
    assert (found.low - 1e-9 <= found.high).all()


def test_survivors_are_in_the_units_of_the_table():
    found = screen(X, TRUTH + 100, sparsity=2, epsilon=0.6)
    residuals = TRUTH - found.survivors @ X.T
    assert len(found.survivors) > 0 and (np.ptp(residuals, axis=1) <= 2 * 0.6 + 1e-9).all()
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
    while not (found := screen(x, results, sparsity=1, epsilon=0.15)).decided:
        results[found.action] = y[found.action]
    assert y.max() - y[found.action] <= found.within <= 0.3 * (1 + 1e-6)


def instance(seed, sparsity=2):
    """Random candidates, a sparse truth of any size, an error of 0, random or extreme, and results of
    a few random rows."""
    rng = np.random.default_rng(seed)
    d, n, epsilon = int(rng.integers(sparsity, 6)), 30, float(rng.choice([1e-3, 0.1, 0.5]))
    x, theta = rng.normal(size=(n, d)) * rng.choice([1e-6, 1.0, 1e6]), np.zeros(d)
    theta[rng.choice(d, sparsity, replace=False)] = 3 * rng.normal(size=sparsity) / np.abs(x).max()
    error = (0 * x[:, 0], rng.uniform(-1, 1, n), rng.choice([-1, 1], n))[rng.integers(3)]
    truth = x @ theta + epsilon * error + rng.choice([0, 1000])
    results = np.full(n, np.nan)
    some = rng.choice(n, int(rng.integers(2, 12)), replace=False)
    results[some] = truth[some]
    return x, truth, results, epsilon


def test_of_a_thousand_certificates_none_is_false_and_all_truths_are_in_their_range():
    decided = 0
    for seed in range(1000):
        x, truth, results, epsilon = instance(seed)
        found = screen(x, results, sparsity=2, epsilon=epsilon)
        room = epsilon + 1e-6
        assert (found.low - room <= truth).all() and (truth <= found.high + room).all(), seed
        if found.decided:
            decided += 1
            assert np.isfinite(results[found.action]) and found.within <= 2 * epsilon * (1 + 1e-6)
            assert truth.max() - truth[found.action] <= found.within + 1e-6, seed
        else:
            assert np.isnan(results[found.action]), seed
    assert decided > 100


def test_without_error_an_epsilon_read_from_the_results_certifies_the_truth():
    """The case in which a norm bound fitted to three rows gave 7 false certificates of 120."""
    for seed in range(120):
        rng = np.random.default_rng(seed)
        x, theta = rng.normal(size=(40, 5)), np.zeros(5)
        theta[rng.choice(5, 2, replace=False)] = rng.normal(size=2) * 3
        truth = x @ theta
        results = np.where(np.arange(40) < 3 + seed % 6, truth, np.nan)
        found = screen(x, results)
        if found.decided:
            assert truth.max() - truth[found.action] <= found.within + 1e-9, seed


@pytest.mark.parametrize("seed", range(6))
def test_ranges_are_those_of_linear_programs_over_all_sets_of_features(seed):
    sparsity = 1 + seed % 2
    x, _, results, epsilon = instance(seed, sparsity)
    found, known = screen(x, results, sparsity=sparsity, epsilon=epsilon), np.isfinite(results)
    unit = standardised(x)[0]
    y = results - results[known].mean()
    low, high = np.full(len(x), np.inf), np.full(len(x), -np.inf)
    for support in itertools.combinations(range(x.shape[1]), sparsity):
        rows = np.column_stack([unit[:, support], np.ones(len(x))])
        limits = np.concatenate([y[known] + epsilon, epsilon - y[known]])
        for i in range(0, len(x), 5):
            ends = [
                linprog(sign * rows[i], A_ub=np.vstack([rows[known], -rows[known]]), b_ub=limits,
                        bounds=(None, None))
                for sign in (1, -1)
            ]  # fmt: skip
            if 2 not in (ends[0].status, ends[1].status):  # 2: infeasible; 3: unbounded
                low[i] = min(low[i], ends[0].fun if ends[0].status == 0 else -np.inf)
                high[i] = max(high[i], -ends[1].fun if ends[1].status == 0 else np.inf)
    tried, middle = slice(0, len(x), 5), results[known].mean()
    np.testing.assert_allclose(found.low[tried], low[tried] + middle, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.high[tried], high[tried] + middle, rtol=1e-3, atol=1e-3)


def test_small_errors_and_many_features_in_a_model_take_no_time_and_no_memory():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    truth = x @ [3.0, -2.0, 0.0, 1.0, 0.5]
    results = np.where(np.arange(60) < 8, truth, np.nan)
    for epsilon in (1e-6, 0.1):
        found = screen(x, results, sparsity=4, epsilon=epsilon)
        assert found.decided or np.isnan(results[found.action])
    assert found.epsilon == pytest.approx(0.1) and found.sets == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be a positive number, not 0: leave it out"),
        ({"epsilon": -1.0}, "epsilon must be a positive number"),
        ({"epsilon": np.nan}, "epsilon must be a positive number"),
        ({"sparsity": 0}, "the sparsity must be from 1 to 6, not 0"),
        ({"sparsity": 7}, "the sparsity must be from 1 to 6, not 7"),
        ({"results": np.where(np.arange(60) < 5, np.inf, 0)}, "result of row 0 is infinite"),
        ({"results": TRUTH[:5]}, "60 rows of features but 5 results"),
        ({"features": np.where(X > 2, np.nan, X)}, "feature 0 holds a value that is not finite"),
        ({"features": rng.normal(size=(60, 60)), "sparsity": 4}, "487,635 sets of 4, and at most"),
    ],
)
def test_what_cannot_be_screened_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        screen(**{"features": X, "results": TRUTH, **change})


def test_a_file_becomes_advice(tmp_path):
    table(range(12)).to_csv(tmp_path / "mixes.csv", index=False)
    done = apply("sparse-misspecified-bandits", [tmp_path / "mixes.csv"], tmp_path / "out")
    assert done.applied.found[0].startswith(("take mix-", "measure mix-"))
    candidates = pd.read_csv(tmp_path / "out" / "candidates.csv")
    assert len(candidates) == 60 and candidates.status.isin(["take", "measure next"]).sum() == 1
    summary = json.loads((tmp_path / "out" / "result.json").read_text())["summary"]
    assert summary["surviving_sets"] > 0 and set(summary["feature_shares"]) == {f"f{i}" for i in range(6)}  # fmt: skip
    assert (tmp_path / "out" / "predictions.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="result"), "no column 'result'"),
        (lambda t: t.assign(f2="x"), "column 'f2', row 2: 'x' is not a number"),
        (lambda t: t.assign(f2=np.where(t.f1 > 99, 0, 1.0)), "'f2' is the same in all rows"),
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


def test_an_epsilon_read_from_noisy_results_is_rarely_too_small():
    """What it costs to leave epsilon out: of searches that follow the advice, few end in a false
    sentence, and the sentence says on what it rests."""
    false = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(30, 4))
        truth = 3 * x[:, 0] - 2 * x[:, 2] + 0.3 * rng.normal(size=30)
        results = np.where(np.arange(30) < 6, truth, np.nan)
        while not (found := screen(x, results)).decided:
            results[found.action] = truth[found.action]
        assert not found.epsilon_given
        false += bool(truth.max() - truth[found.action] > found.within)
    assert false <= 5
