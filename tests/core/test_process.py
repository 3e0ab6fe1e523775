"""The core: traces against plain loops, divergence, checkpoints, borders."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom import DivergenceWarning, HostProcess, Process, Quantity, log_steps, unfold
from latebloom.core.process import Stepped, advanced
from latebloom.core.runs.compiled import device_count


class Walk(Process):
    """x <- rate x + noise, with the noise from a key in the state."""

    rate: float = 0.9

    def init(self, key):
        return {"x": jnp.zeros(3), "key": key, "n": jnp.int32(0)}

    def step(self, state):
        key, noise = jax.random.split(state["key"])
        x = self.rate * state["x"] + jax.random.normal(noise, (3,))
        return {"x": x, "key": key, "n": state["n"] + 1}

    def observe(self, state):
        return {"x": state["x"], "n": state["n"], "size": jnp.linalg.norm(state["x"])}

    def quantities(self):
        return {
            "x": Quantity("m", ("axis",), {"axis": ["a", "b", "c"]}, "position"),
            "size": Quantity("m"),
        }


class MappedWalk(Walk):
    seeds_by = "map"


class Explodes(Process):
    """Doubles; overflows float32 at step 128 for the seeds that start at 1."""

    def init(self, key):
        return jnp.float32(jax.random.key_data(key)[1] % 2)

    def step(self, state):
        return state * 2

    def observe(self, state):
        return {"value": state, "steady": jnp.float32(1)}


def by_hand(process, seed, steps):
    """The states of one seed, stepped from Python."""
    state = process.init(jax.random.key(seed))
    seen = [process.observe(state)]
    for _ in range(steps):
        state = process.step(state)
        seen.append(process.observe(state))
    return {name: np.stack([s[name] for s in seen]) for name in seen[0]}


@pytest.mark.parametrize("kind", [Walk, MappedWalk])
def test_a_trace_is_what_a_plain_loop_gives(kind):
    trace = unfold(kind(), seeds=[4, 7], steps=60, every=7)
    assert list(trace.step.values) == [*range(0, 60, 7), 60]
    for seed in (4, 7):
        expected = by_hand(Walk(), seed, 60)
        for name in ("x", "n", "size"):
            got = trace[name].sel(seed=seed).values
            np.testing.assert_allclose(got, expected[name][trace.step.values], rtol=1e-5)


def test_units_dimensions_and_provenance_are_in_the_trace():
    trace = unfold(Walk(), seeds=2, steps=5, every=5, config={"rate": 0.9})
    assert trace.x.dims == ("seed", "step", "axis")
    assert list(trace.axis.values) == ["a", "b", "c"]
    assert trace.x.attrs == {"units": "m", "long_name": "position"}
    assert trace.attrs["config"] == '{"rate": 0.9}'
    assert trace.attrs["jax"] == jax.__version__
    assert trace.attrs["compile_seconds"] > 0
    assert trace.attrs["run_seconds"] > 0


def test_hyperparameters_are_arguments_not_constants():
    unfold(Walk(rate=0.5), seeds=2, steps=5)
    start = time.perf_counter()
    trace = unfold(Walk(rate=0.0), seeds=2, steps=5)
    assert trace.attrs["compile_seconds"] <= time.perf_counter() - start
    np.testing.assert_allclose(
        trace.x.sel(seed=1).values[-1], by_hand(Walk(0.0), 1, 5)["x"][-1], rtol=1e-6
    )
    from latebloom.core.runs import program as programs

    before = len(programs._compiled)
    unfold(Walk(rate=0.7), seeds=2, steps=5)
    assert len(programs._compiled) == before


@given(st.integers(1, 10**7), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_log_steps_start_at_zero_grow_and_end_at_the_last_step(steps, per_decade):
    points = log_steps(steps, per_decade)
    assert points[0] == 0 and points[-1] == steps
    assert (np.diff(points) > 0).all()


def test_log_steps_are_evenly_spaced_once_they_are_far_apart():
    points = log_steps(10**6, 10)
    ratios = points[-20:] / points[-21:-1]
    np.testing.assert_allclose(ratios, 10**0.1, rtol=0.01)


def test_a_diverged_seed_is_frozen_marked_and_told_while_others_go_on():
    with pytest.warns(DivergenceWarning, match="seed 1 diverged: value was not finite at step 128"):
        trace = unfold(Explodes(), seeds=[0, 1], steps=200, every=16)
    assert list(trace.diverged_at.values) == [-1, 128]
    assert list(trace.diverged_in.values) == ["", "value"]
    lost = trace.sel(seed=1)
    assert np.isinf(lost.value.sel(step=128))
    assert np.isnan(lost.value.sel(step=slice(144, None))).all()
    assert np.isnan(lost.steady.sel(step=slice(144, None))).all()
    assert (trace.sel(seed=0).value == 0).all()
    assert (trace.sel(seed=0).steady == 1).all()


class HiddenNaN(Explodes):
    def step(self, state):
        return jnp.where(state > 2**10, jnp.nan, state * 2)

    def observe(self, state):
        return {"steady": jnp.float32(1)}


def test_a_nan_that_no_observable_shows_is_found_in_the_state():
    with pytest.warns(DivergenceWarning, match="state was not finite at step 20"):
        trace = unfold(HiddenNaN(), seeds=[1], steps=40, every=20)
    assert trace.diverged_in.item() == "state"


class Gappy(Explodes):
    def observe(self, state):
        return {"gap": jnp.float32(jnp.nan)}

    def quantities(self):
        return {"gap": Quantity(gaps=True)}


def test_gaps_are_not_divergence():
    trace = unfold(Gappy(), seeds=[0], steps=4, every=2)
    assert trace.diverged_at.item() == -1


class Grows(Walk):
    def step(self, state):
        return state | {"x": state["x"].astype(jnp.float16)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0, "steps": 3}, "seeds must be a positive count"),
        ({"seeds": [1, 1], "steps": 3}, "distinct"),
        ({"seeds": 1}, "give either steps"),
        ({"seeds": 1, "steps": 3, "at": [1]}, "give either steps"),
        ({"seeds": 1, "steps": 0}, "at least 1"),
        ({"seeds": 1, "at": [3, 2]}, "strictly increasing"),
        ({"seeds": 1, "at": [0, 1.5]}, "whole numbers"),
        ({"seeds": 1, "at": [3], "every": 2}, "every goes with steps"),
        ({"seeds": 1, "steps": 3, "show": ["nothing"]}, "show names 'nothing'"),
    ],
)
def test_bad_schedules_and_seeds_are_refused_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        unfold(Walk(), **arguments)


def test_a_step_that_changes_the_state_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"Grows changes the state at \['x'\]: float32\[3\] before"
    ):
        unfold(Grows(), seeds=1, steps=2)


class Dice(HostProcess):
    """A host process with a NumPy generator in its state."""

    def init(self, seed):
        return {"rng": np.random.default_rng(seed), "sum": 0.0}

    def step(self, state):
        state["sum"] += state["rng"].normal()
        return state

    def observe(self, state):
        return {"sum": state["sum"]}


def test_host_processes_go_through_the_same_door():
    trace = unfold(Dice(), seeds=[3, 5], steps=10, every=5)
    expected = np.random.default_rng(5).normal(size=10).cumsum()
    np.testing.assert_allclose(trace["sum"].sel(seed=5), [0, expected[4], expected[9]])


def test_ticks_tell_how_far_a_run_is():
    ticks = []
    unfold(Walk(), seeds=2, steps=50, every=5, progress=ticks.append, show=("size",))
    assert ticks[-1].step == ticks[-1].steps == 50
    assert ticks[-1].values["size"].shape == (2,)
    assert len(ticks[-1].observed_steps) == 11


def test_the_progress_bar_is_silent_without_a_person(capsys):
    unfold(Walk(), seeds=1, steps=5)
    assert capsys.readouterr() == ("", "")


CHILD = """
import sys
sys.path.insert(0, {folder!r})
from test_process import Slow, SlowDice
from latebloom import unfold
kind = {{"jax": Slow, "host": SlowDice}}[{kind!r}]
trace = unfold(kind(), seeds=3, at={at!r}, checkpoint={path!r}, checkpoint_seconds=0.0)
trace.to_netcdf({result!r}, engine="h5netcdf")
"""


class Slow(Walk):
    """Takes about 2 ms a step, so that there is time to be killed."""

    def step(self, state):
        def spin(i, m):
            return jnp.tanh(m @ m)

        m = jax.lax.fori_loop(0, 12, spin, jnp.full((160, 160), state["x"][0]) * 1e-3)
        return Walk.step(self, state | {"x": state["x"] + 1e-6 * m[0, 0]})


class SlowDice(Dice):
    def step(self, state):
        time.sleep(0.002)
        return super().step(state)


@pytest.mark.parametrize("kind", ["jax", "host"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kind):
    """Kills a child process at random moments until it gets through, then compares all bits."""
    at = [0, 1, 5, 40, 100, 101, 250, 400]
    rng = np.random.default_rng()

    def child(name):
        code = CHILD.format(
            folder=str(Path(__file__).parent), at=at, path=str(tmp_path / f"{name}.checkpoint"),
            result=str(tmp_path / f"{name}.nc"), kind=kind,
        )  # fmt: skip
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])

    assert child("whole").wait() == 0
    kills = 0
    for attempt in range(12):
        running = child("killed")
        checkpoint = tmp_path / "killed.checkpoint"
        begun = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while running.poll() is None:
            grown = checkpoint.exists() and checkpoint.stat().st_mtime_ns > begun
            if grown and attempt < 4:
                time.sleep(rng.uniform(0, 0.3))
                running.kill()
                kills += running.wait() != 0
                break
            time.sleep(0.005)
        if running.wait() == 0:
            break
    assert kills >= 1
    whole, resumed = (
        xr.open_dataset(tmp_path / f"{n}.nc", engine="h5netcdf") for n in ("whole", "killed")
    )
    for name in whole.variables:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name
    assert not (tmp_path / "killed.checkpoint").exists()


def test_a_damaged_checkpoint_is_named_and_the_run_starts_again(tmp_path):
    path = tmp_path / "run.checkpoint"
    path.write_bytes(b"latebloom-checkpoint-1\nnonsense")
    with pytest.warns(UserWarning, match="run.checkpoint is damaged"):
        trace = unfold(Walk(), seeds=1, steps=5, checkpoint=path)
    assert trace.n.values[0, -1] == 5


class StopHere(Exception):
    pass


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.checkpoint"

    def stop_early(tick):
        if tick.step > 0:
            raise StopHere

    with pytest.raises(StopHere):
        unfold(Walk(), seeds=1, steps=50, every=1, checkpoint=path, checkpoint_seconds=0,
               progress=lambda t: None if t.step < 1 else stop_early(t))  # fmt: skip
    assert path.exists()
    with pytest.raises(ValueError, match="belongs to another run"):
        unfold(Walk(rate=0.1), seeds=1, steps=50, every=1, checkpoint=path)


def test_seeds_are_sharded_over_the_devices_there_are():
    code = """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        import sys; sys.path.insert(0, {folder!r})
        from test_process import Walk, by_hand
        from latebloom import unfold
        import numpy as np
        trace = unfold(Walk(), seeds=8, steps=20, every=4)
        assert trace.attrs["backend"] == "cpu x 2", trace.attrs["backend"]
        for seed in range(8):
            expected = by_hand(Walk(), seed, 20)["x"][::4]
            np.testing.assert_allclose(trace.x.sel(seed=seed), expected, rtol=1e-5)
    """.format(folder=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_process_that_says_so_keeps_to_one_device(monkeypatch):
    class Alone(Walk):
        one_device: ClassVar[bool] = True

    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert [device_count(8, each()) for each in (Walk, Alone)] == [2, 1]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert device_count(8, Alone()) == 2


class Named(Explodes):
    name: str = eqx.field(static=True, default="a")

    def observe(self, state):
        return {self.name: state}


def test_processes_that_differ_in_names_only_share_a_program_but_not_their_names():
    a = unfold(Named("a"), seeds=[0], steps=3)
    b = unfold(Named("b"), seeds=[0], steps=3)
    assert "a" in a and "b" in b and "a" not in b


class Sums(HostProcess):
    """Observes whatever `look` makes of the number of steps."""

    def __init__(self, look):
        self.look = look

    def init(self, seed):
        return 0

    def step(self, state):
        return state + 1

    def observe(self, state):
        return self.look(state)


def test_rows_of_the_host_keep_their_type():
    trace = unfold(Sums(lambda n: {"x": 0.5 * n if n else 0, "word": "ab"[: n + 1]}), at=[0, 1, 2])
    assert trace.x.values.tolist() == [[0, 0.5, 1]]
    assert trace.word.values.tolist() == [["a", "ab", "ab"]]


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda n: {"x": 1} if n else {"x": 1, "y": 2}, "'y' at some times only"),
        (lambda n: {"x": np.zeros(2) if n else 1.0}, r"'x' in different shapes: \[\] and \[2\]"),
    ],
)
def test_rows_of_the_host_that_differ_are_refused(look, message):
    with pytest.raises(ValueError, match=message):
        unfold(Sums(look), at=[0, 1])


def test_a_host_process_needs_pickling_for_checkpoints_only(tmp_path):
    assert unfold(Sums(lambda n: {"x": n}), at=[0, 1]).x.values.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="Sums cannot be kept in a checkpoint"):
        unfold(
            Sums(lambda n: {"x": n}), at=[0, 1, 2], checkpoint=tmp_path / "c", checkpoint_seconds=0
        )


def test_a_host_process_has_no_turns_and_tells_nothing():
    class Turns(Sums):
        def turns(self):
            return [1]

    class Tells(Sums):
        def step(self, state):
            return Stepped(state, {})

    with pytest.raises(ValueError, match="Turns has turns"):
        unfold(Turns(lambda n: {"x": n}), at=[0, 1])
    with pytest.raises(ValueError, match="Tells must return the state alone"):
        unfold(Tells(lambda n: {"x": n}), at=[0, 1])


@pytest.mark.parametrize("resume", [True, False])
def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path, resume):
    path = tmp_path / "precious.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="precious.csv is no checkpoint"):
        unfold(Walk(), steps=2, checkpoint=path, resume=resume)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("seeds", [[2**32], [0.5, 1.7], "12", [True, 2], []])
def test_seeds_that_are_no_seeds(seeds):
    with pytest.raises(ValueError, match="from 0 to 2\\^32 - 1"):
        unfold(Walk(), seeds=seeds, steps=1)


def test_unsigned_steps_that_decrease():
    with pytest.raises(ValueError, match="strictly increasing"):
        unfold(Walk(), at=np.array([5, 2], np.uint64))


def test_steps_that_tell_are_advanced_as_those_that_do_not():
    class Telling(Walk):
        def step(self, state):
            return Stepped(super().step(state), {"size": jnp.linalg.norm(state["x"])})

    one, two = (
        advanced(process, process.init(jax.random.key(3)), 5) for process in (Walk(), Telling())
    )
    assert one["n"] == two["n"] == 5 and (one["x"] == two["x"]).all()
