"""Arms computed on a Ray cluster of two nodes on this machine, on a study of the user's own."""

import json
import socket
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import jax
import pytest
import ray
import xarray as xr
from lines import ending
from ray.cluster_utils import Cluster

from latebloom.lab import cluster, runner
from latebloom.lab.live import Silent
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store

pytestmark = pytest.mark.processes

STUDY = '''
"""Lines that go up, warn, wait, fail or kill."""

import os
import signal
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from steepness_on_a_cluster import STEEP

from latebloom import HostProcess, Process
from latebloom.lab import Budget, Claim, Paper, Study
from latebloom.measures import final


@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    does: str = "go up"
    folder: str = ""


class Compiled(Process):
    slope: float

    def init(self, key):
        return jax.random.normal(key)

    def step(self, state):
        return state + self.slope

    def observe(self, state):
        return {"height": state}


class Line(HostProcess):
    def __init__(self, config):
        self.config = config

    def init(self, seed):
        return (seed, 0)

    def step(self, state):
        does, folder = self.config.does, Path(self.config.folder)
        begun = folder / f"{does} {state[0]}"
        if does == "fail":
            raise ValueError("the line is not straight")
        if does == "warn" and state[1] == 0:
            warnings.warn("the line is long")
        if does == "kill" and not begun.exists():
            if self.config.slope:
                begun.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "wait" and state[1] == 2:
            begun.write_text(f"{os.getpid()} {os.getppid()} ")
            for _ in range(2400):
                if (folder / "go").exists():
                    break
                time.sleep(0.05)
        return (state[0], state[1] + 1)

    def observe(self, state):
        height = float(state[0] + self.config.slope * state[1])
        return {"height": height, "here": Path(__file__).parent == Path(%r)}


def make_process(config):
    return Compiled(config.slope) if config.does == "compile" else Line(config)

''' + ending(
    """"steep": Config(STEEP), "flat": Config(0.0), "same": Config(0.0),
          "warns": Config(1.0, "warn"), "compiled": Config(1.0, "compile"),
          "fails": Config(1.0, "fail"), "kills once": Config(1.0, "kill"), "kills": Config(0.0, "kill"),
          "waits": Config(1.0, "wait")""",
    ("same", "warns", "compiled", "waits"), "side_by_side=True",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "steepness_on_a_cluster.py").write_text("STEEP = 2.0\n")
    path = folder / "lines_on_a_cluster.py"
    path.write_text(textwrap.dedent(STUDY) % str(folder))
    return find(str(path))


SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def nodes():
    """A cluster of one node with one CPU."""
    found = Cluster(initialize_head=True, head_node_args=SMALL)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def connected(nodes):
    """This process is connected to the cluster, as that of someone who uses Ray."""
    ray.init(nodes.address, log_to_driver=False, logging_level="CRITICAL")
    yield
    ray.shutdown()


class Counts(Silent):
    def __init__(self, go):
        self.go, self.arms, self.ticks = go, [], {}

    def found(self, arm, trace):
        self.arms.append(arm)

    def tick(self, arm, tick):
        self.ticks[arm] = tick
        if arm == "waits":
            self.go.touch()


def alike(one, two):
    assert one.keys() == two.keys()
    for arm in one:
        a, b = (traces[arm].drop_vars("here", errors="ignore") for traces in (one, two))
        xr.testing.assert_equal(a, b)
        assert all(a[name].values.tobytes() == b[name].values.tobytes() for name in a.data_vars)


def test_a_cluster_finds_what_this_machine_finds(tmp_path, study, connected):
    watch, changed = Counts(tmp_path / "go"), {"folder": str(tmp_path)}
    with pytest.warns(UserWarning, match="the line is long"):
        there = run(
            study, overrides=changed, store=Store(tmp_path / "a"), cluster="auto", watch=watch
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = run(study, overrides=changed, store=Store(tmp_path / "b"))
    alike(here.traces, there.traces)
    assert [v.row() for v in here.verdicts] == [v.row() for v in there.verdicts]
    each = ["steep", "flat", "same", "warns", "compiled", "waits"]
    assert sorted(watch.arms) == sorted(2 * each)  # 9 seeds: two units
    assert watch.ticks["waits"].step >= 0 and set(watch.ticks["waits"].observed) == {"height"}
    assert here.traces["steep"].here.all() and not there.traces["steep"].here.any()
    for name in ("program", "prefix", "jax", "backend", "options"):
        assert here.traces["compiled"].attrs[name] == there.traces["compiled"].attrs[name]
    programs = [{p.name for p in (tmp_path / s).rglob("*.program")} for s in ("a", "b")]
    assert programs[0] == programs[1] and len(programs[0]) == 10  # two units of five arms


def test_what_is_known_by_its_program_is_not_sent(tmp_path, study, connected, monkeypatch):
    store = Store(tmp_path)
    first = run(study, arms=["compiled"], seeds=2, store=store)
    monkeypatch.setattr(runner, "source_of_units", lambda study: "sources of another day")
    monkeypatch.setattr(cluster, "_work", lambda *_: pytest.fail("it was sent"))
    again = run(study, arms=["compiled"], seeds=2, store=store, cluster="auto")
    alike(first.traces, again.traces)


def test_a_node_with_other_versions_or_sources_is_refused(tmp_path, study, connected, monkeypatch):
    here = cluster._here()
    monkeypatch.setattr(cluster, "_here", lambda: here | {"jax": "0.1"})
    with pytest.raises(ValueError, match="computes with jax .*, this machine with 0.1: make them"):
        run(study, arms=["steep"], store=Store(tmp_path), cluster="auto")
    monkeypatch.undo()
    monkeypatch.setattr(runner, "source_of_units", lambda study: "sources of another day")
    with pytest.raises(ValueError, match="has other sources of lines than this machine"):
        run(study, arms=["steep"], store=Store(tmp_path), cluster="auto")


def test_a_method_that_fails_is_named_and_the_others_are_kept(tmp_path, study, connected):
    with pytest.raises(ValueError, match="^lines, arm fails: the line is not straight$"):
        run(study, arms=["flat", "fails"], seeds=2, store=Store(tmp_path), cluster="auto")
    assert len(list(tmp_path.rglob("*.nc"))) == 1


def wait_until(holds):
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def processes(*marks):
    """Processes that wait, by that of their node."""
    each = [mark.read_text().split() for mark in marks]
    return {int(node): int(process) for process, node in each}


def gone(process):
    """Whether a process has ended, also where nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class Stops(Silent):
    def tick(self, arm, tick):
        raise KeyboardInterrupt


def test_a_run_that_is_stopped_goes_on_and_a_process_that_is_killed_begins_again(
    tmp_path, study, connected, monkeypatch
):
    given = {"arms": ["waits", "kills once"], "overrides": {"folder": str(tmp_path)}, "seeds": 1}
    store = Store(tmp_path / "there")
    with pytest.raises(KeyboardInterrupt):
        run(study, **given, store=store, cluster="auto", watch=Stops())
    (waits,) = processes(tmp_path / "wait 0").values()
    wait_until(lambda: gone(waits))
    (tmp_path / "go").touch()
    there = run(study, **given, store=store, cluster="auto")
    assert (tmp_path / "kill 0").exists()
    alike(run(study, **given, store=Store(tmp_path / "here")).traces, there.traces)
    monkeypatch.setattr(cluster, "RETRIES", 0)
    with pytest.raises(ChildProcessError, match="lines, arm kills: the cluster lost its process"):
        run(study, arms=["kills"], seeds=2, store=store, cluster="auto")


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts a node with it
def test_a_node_that_is_killed_changes_no_bit(tmp_path, study, nodes):
    """From the command line: two units, one on each node, until the second node is killed."""
    second = nodes.add_node(**SMALL)
    raylet = second.all_processes["raylet"][0].process.pid
    command = [sys.executable, "-c", "from latebloom.cli import main; main()"]
    asked = ["run", runner.file_of(study), "--arms", "waits", "--set", f"folder={tmp_path}",
             "--seeds", "16", "--store", tmp_path / "there", "--cluster", nodes.address, "--json",
             "--no-report"]  # fmt: skip
    started = subprocess.Popen(
        [*command, *map(str, asked)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    marks = [tmp_path / "wait 0", tmp_path / "wait 8"]

    def under_way():
        assert started.poll() is None, started.communicate()
        return all(m.exists() and m.read_text().endswith(" ") for m in marks)

    wait_until(under_way)
    found = processes(*marks)
    assert raylet in found and len(found) == 2
    nodes.remove_node(second, allow_graceful=False)
    wait_until(lambda: gone(found[raylet]))
    (tmp_path / "go").touch()
    out, err = started.communicate()
    assert started.returncode == 0, err
    assert err == "" and json.loads(out)["study"] == "lines"  # of Ray, not a word
    given = {"arms": ["waits"], "overrides": {"folder": str(tmp_path)}, "seeds": 16}
    there, here = (run(study, **given, store=Store(tmp_path / s)) for s in ("there", "here"))
    alike(here.traces, there.traces)
    assert not there.traces["waits"].here.any()


def test_what_is_no_cluster_is_told_in_one_sentence(tmp_path, study, monkeypatch):
    def asked(address, **more):
        with pytest.raises(ValueError) as told:
            run(study, arms=["steep"], store=Store(tmp_path), cluster=address, **more)
        return str(told.value)

    assert "give either jobs" in asked("auto", jobs=2)
    for address in ("here", "ray://10.0.0.1:10001", "localhost:", ":6379"):
        assert f"cluster is auto or HOST:PORT, not {address!r}" in asked(address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "PATIENCE", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"no Ray cluster answers at {address} within 3 s" in asked(address)
        assert time.monotonic() - started < 30
    monkeypatch.setitem(sys.modules, "ray", None)
    assert asked("auto") == 'a cluster needs Ray: pip install "latebloom[ray]"'


def test_nodes_get_the_devices_that_there_are_not_those_asked_for_too_late(monkeypatch):
    there = jax.local_device_count()
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={there + 1}")
    asked = cluster._environment()["XLA_FLAGS"]
    assert asked == f"--xla_force_host_platform_device_count={there}"
