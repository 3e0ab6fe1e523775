"""Arms computed by several processes, on a study in a file of the user's own."""

import dataclasses
import enum
import json
import multiprocessing
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from lines import ending

from latebloom.lab.live import Silent
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store, Unit, config_dict

STUDY = '''
"""Lines that go up, warn, fail or kill."""

import os
import signal
import warnings
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_info

from latebloom.core.process import HostProcess
from latebloom.lab import Budget, Claim, Paper, Study
from latebloom.measures import final


@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    does: str = "go up"


class Line(HostProcess):
    def __init__(self, config):
        self.config = config

    def init(self, seed):
        return (seed, 0)

    def step(self, state):
        does = self.config.does
        if does == "fail":
            raise ValueError("the line is not straight")
        if does == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "warn" and state[1] == 0:
            warnings.warn("the line is long")
        return (state[0], state[1] + 1)

    def observe(self, state):
        height = float(state[0] + self.config.slope * state[1])
        threads = max(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")
        return {"height": height, "process": os.getpid(), "threads": threads}


def make_process(config):
    return Line(config)

''' + ending(
    """"steep": Config(2.0), "flat": Config(0.0), "same": Config(0.0), "warns": Config(1.0, "warn"),
          "fails": Config(1.0, "fail"), "kills": Config(1.0, "kill")""",
    ("same", "warns"),
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "lines_side_by_side.py"
    path.write_text(textwrap.dedent(STUDY))
    return find(str(path))


class Counts(Silent):
    def __init__(self):
        self.arms = []

    def found(self, arm, trace):
        self.arms.append(arm)


def test_two_processes_find_what_one_finds(tmp_path, study):
    watch = Counts()
    with pytest.warns(UserWarning, match="the line is long"):
        two = run(study, store=Store(tmp_path / "two"), jobs=2, watch=watch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = run(study, store=Store(tmp_path / "one"))
    assert sorted(watch.arms) == sorted(
        ["steep", "flat", "same", "warns"] * 2
    )  # 9 seeds: two units
    assert two.found == one.found == 0  # though two arms are one
    for arm in one.traces:
        xr.testing.assert_equal(
            one.traces[arm].drop_vars("process"), two.traces[arm].drop_vars("process")
        )
    assert [v.row() for v in one.verdicts] == [v.row() for v in two.verdicts]
    here = {int(one.traces["steep"].process.values[0, 0])}
    used = {int(p) for t in two.traces.values() for p in t.process.values.ravel()}
    assert not used & here
    assert all((t.threads == 1).all() for t in (*one.traces.values(), *two.traces.values()))
    assert (two.traces["flat"].process == two.traces["same"].process).all()  # computed once


def test_an_arm_that_fails_is_named_and_the_others_are_kept(tmp_path, study):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="lines, arm fails: the line is not straight"):
        run(study, arms=["steep", "fails"], seeds=2, store=store, jobs=2)
    run(study, arms=["steep"], seeds=2, store=store)
    assert len(list(tmp_path.rglob("*.nc"))) == 1
    assert not multiprocessing.active_children()


def test_a_process_that_was_killed_is_told(tmp_path, study):
    with pytest.raises(ChildProcessError, match="killed, most likely for want of memory"):
        run(study, arms=["steep", "kills"], seeds=2, store=Store(tmp_path), jobs=2)


def test_jobs_are_counted_from_one(tmp_path, study):
    with pytest.raises(ValueError, match="jobs must be at least 1, not 0"):
        run(study, store=Store(tmp_path), jobs=0)


@dataclasses.dataclass(frozen=True)
class Sgd:
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Adam:
    rate: float = 0.1


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Anything:
    value: object


LONG = np.arange(2000.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Sgd(), Adam()), (np.array([0.1000000001]), np.array([0.1000000002])), (1, True), (1, 1.0),
        (LONG, np.where(LONG == 1000, 0, LONG)), ((1,), [1]), ({1, 2}, {1, 3}), ("1", 1), (0.1, np.float32(0.1)),
        (Colour.RED, Colour.BLUE), (np.sin, np.cos), ({"a": 1}, {"a": 2}), (None, "None"), (Sgd, Adam),
        (LONG, LONG.astype(np.float32)), (jnp.ones(2), np.ones(2, np.float32)),
        (jax.random.key(0), jax.random.key(1)), (np.float32, np.float64),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_configs_that_differ_are_different_units(one, other):
    keys = [Unit("s", "a", Anything(v), (0,), (0, 1), "source").key for v in (one, other, one)]
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.parametrize("value", [lambda x: x, object()], ids=["lambda", "object"])
def test_a_config_that_cannot_be_told_apart_is_refused(value):
    with pytest.raises(ValueError, match="cannot be told from others like it"):
        _ = Unit("s", "a", Anything(value), (0,), (0, 1), "source").key


def test_a_config_is_shown_in_json():
    kinds = float("inf"), np.sin, np.float32, jax.random.key(0), jnp.ones(2)
    shown = config_dict(Anything((Sgd(), LONG, np.float32(0.5), Colour.RED, *kinds)))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["value"][0] == {"class": "Sgd", "rate": 0.1} and shown["value"][2:4] == [
        0.5,
        "Colour.RED",
    ]
