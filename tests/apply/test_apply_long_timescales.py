"""Activity through the application: its table, its pictures, what is said of what it cannot tell."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from latebloom.data.columns import FileError
from latebloom.lab import apply
from latebloom.methods.recurrence.timescales import timescales

QUICK = {"replicates": 100, "lags": 20}


def autoregressive(tau, trials, time, rng):
    noise = rng.normal(size=(trials, time + 200))
    return lfilter([1], [1, -np.exp(-1 / tau)], noise, axis=1)[:, 200:]


@pytest.fixture(scope="module")
def activity():
    rng = np.random.default_rng(0)
    return np.stack([autoregressive(t, 12, 400, rng) for t in (1.0, 3.0, 6.0)], axis=2)


def test_a_table_goes_through(activity, tmp_path):
    trials, time, _ = activity.shape
    frame = pd.DataFrame(activity.reshape(-1, 3), columns=["u", "v", "w"])
    frame.insert(0, "time", np.tile(np.arange(time) * 20.0, trials))
    frame.insert(0, "trial", np.repeat(np.arange(trials), time))
    frame["dead"] = 0.0
    frame.to_csv(tmp_path / "t.csv", index=False)
    said = []
    done = apply("long-timescales", [tmp_path / "t.csv"], tmp_path / "out", settings=QUICK | {"unit": "ms"},
                 say=lambda what, share: said.append(share))  # fmt: skip
    assert {path.name for path in done.paths} == {"timescales.csv", "autocorrelations.csv", "timescales.png", "autocorrelations.png", "result.json"}  # fmt: skip
    assert said == sorted(said) and said[-1] <= 1
    found = pd.read_csv(tmp_path / "out" / "timescales.csv").set_index("unit")
    want = timescales(activity, lags=20, replicates=100, step=20.0)
    np.testing.assert_allclose(found.loc[["u", "v", "w"], "tau"], want.tau, rtol=1e-4)
    assert found.loc["dead", "status"] == "silent" and np.isnan(found.loc["dead", "tau"])
    assert found.loc["v", "one_low"] < 60 < found.loc["v", "one_high"]
    lags = pd.read_csv(tmp_path / "out" / "autocorrelations.csv")
    assert len(lags) == 4 * 21 and lags["lag"].max() == 400
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert "2309.12927" in result["cite"] and result["summary"]["fitted"] == 3 and result["summary"]["step"] == 20  # fmt: skip
    told = " ".join(result["found"])
    assert (
        "Timescales of 3 units: median" in told
        and "ms" in told
        and "Units that are silent: 1." in told
    )
    assert "Intervals (95%) are from 12 trials" in told


def test_an_array_of_one_short_recording_says_what_it_lacks(activity, tmp_path):
    np.save(tmp_path / "a.npy", activity[0, :100])
    done = apply("long-timescales", [tmp_path / "a.npy"], tmp_path / "out", settings=QUICK)
    told = " ".join(done.applied.found)
    assert "no intervals are given" in told and "lose their means" in told
    assert done.applied.summary["drawn"] == 0
    np.savez(tmp_path / "b.npz", activity=activity[0], names=["a", "b", "c"], step=0.5)
    done = apply("long-timescales", [tmp_path / "b.npz"], tmp_path / "out", settings=QUICK | {"lags": 10, "unit": "s"})  # fmt: skip
    assert "from 10 blocks" in " ".join(done.applied.found)
    assert done.applied.tables["timescales"]["unit"].tolist() == ["a", "b", "c"]


def test_noise_is_told_to_have_no_memory_and_no_bias(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(2).normal(size=(10, 60, 4)))
    done = apply("long-timescales", [tmp_path / "a.npy"], tmp_path / "out", settings=QUICK)
    told = " ".join(done.applied.found)
    assert "Units that may forget within a step: 4." in told and "lose their means" not in told
    assert done.applied.summary["no_memory"] == 4


def test_nothing_to_fit_is_said_without_pictures(tmp_path):
    x = np.zeros((10, 50, 3))
    x[..., 1], x[3, 3, 2] = 2.0, np.nan
    np.save(tmp_path / "a.npy", x)
    done = apply("long-timescales", [tmp_path / "a.npy"], tmp_path / "out", settings=QUICK)
    assert done.applied.found == ("No unit can be fitted: 1 silent, 1 constant, 1 not finite.",)
    assert {path.name for path in done.paths} == {"timescales.csv", "autocorrelations.csv", "result.json"}  # fmt: skip


@pytest.mark.parametrize(("settings", "says"), [
    ({"lags": 500}, "a.npz: trials have 400 steps where 500 lags need at least 502"),
    ({"replicates": 3}, "a.npz: replicates must be 0 or at least 100"),
    ({"blocks": 13}, "a.npz: blocks must be a multiple of the 12 trials"),
    ({"step": 2.0}, "a.npz says that a step is 0.5, and the setting step 2"),
    ({"units": ("z",)}, "a.npz has no unit 'z'"),
], ids=str)  # fmt: skip
def test_settings_are_refused_with_the_file(activity, tmp_path, settings, says):
    np.savez(tmp_path / "a.npz", activity=activity, step=0.5)
    with pytest.raises(FileError, match=says):
        apply("long-timescales", [tmp_path / "a.npz"], tmp_path, settings=QUICK | settings)
    with pytest.raises(FileError, match="give one file of activity, not nothing"):
        apply("long-timescales", [], tmp_path, settings=QUICK)
