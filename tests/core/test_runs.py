"""The loop around a process: turns, what a step saw, what is searched, identity, fixed bits."""

import dataclasses
import hashlib
import subprocess
import sys
import textwrap
import warnings
from itertools import pairwise
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import Process, Quantity, unfold
from latebloom.core.process import Stepped
from latebloom.core.runs.program import Program, digest
from latebloom.core.unfold import prefix


class Counting(Process):
    """Adds 1 a step; at a turn adds 100."""

    borders: tuple[int, ...] = eqx.field(static=True, default=(3, 7))

    def init(self, key):
        return {"n": jnp.int32(0), "of": jax.random.key_data(key)[1].astype(jnp.int32)}

    def step(self, state):
        return state | {"n": state["n"] + 1}

    def turns(self):
        return self.borders

    def turn(self, state):
        return state | {"n": state["n"] + 100}

    def observe(self, state):
        return {"n": state["n"], "of": state["of"]}


class OneByOne(Counting):
    seeds_by = "map"


@pytest.mark.parametrize("kind", [Counting, OneByOne])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_turn_comes_once_after_the_observation_at_its_step(kind, seeds):
    trace = unfold(kind(), seeds=seeds, at=[0, 2, 3, 4, 6, 7, 8])
    assert (trace.n.values == [0, 2, 3, 104, 106, 107, 208]).all()
    between = unfold(kind(), seeds=seeds, at=[0, 5, 10])  # no observation at the turns themselves
    assert (between.n.values == [0, 105, 210]).all()


def test_turns_past_the_last_observation_none_and_many():
    assert unfold(Counting((50,)), at=[0, 4]).n.values.tolist() == [[0, 4]]
    assert unfold(Counting(()), at=[0, 4]).n.values.tolist() == [[0, 4]]
    many = unfold(Counting(tuple(range(1, 400))), at=[0, 399])
    assert many.n.values.tolist() == [[0, 399 + 100 * 398]]


def test_a_turn_before_the_first_step_is_refused():
    with pytest.raises(ValueError, match=r"Counting turns at step 0: turns are steps from 1 on"):
        unfold(Counting((0, 3)), steps=4)


class Growing(Counting):
    def turn(self, state):
        return state | {"n": state["n"].astype(jnp.float32)}


def test_a_turn_that_changes_the_state_is_refused_by_name():
    with pytest.raises(ValueError, match=r"turn\(\) of Growing changes the state at \['n'\]"):
        unfold(Growing(), steps=9)


class Telling(Process):
    """Tells the number of each step, gathered in four ways."""

    def init(self, key):
        return jnp.int32(0)

    def step(self, state):
        n = state + 1
        told = {name: n.astype(jnp.float32) for name in ("last", "mean", "sum", "max")}
        return Stepped(n, told | {"events": (n % 3 == 0).astype(jnp.int32)})

    def observe(self, state):
        return {"n": state}

    def quantities(self):
        return {
            **{name: Quantity("steps", over=name) for name in ("last", "mean", "sum", "max")},
            "events": Quantity(over="sum"),
        }


class TellingOneByOne(Telling):
    seeds_by = "map"


@pytest.mark.parametrize("kind", [Telling, TellingOneByOne])
def test_what_steps_saw_is_gathered_between_observations(kind):
    at = [0, 1, 4, 10, 11]
    trace = unfold(kind(), seeds=3, at=at)
    spans = [np.arange(a + 1, b + 1) for a, b in pairwise(at)]
    for name, of in (
        ("last", lambda x: x[-1]),
        ("mean", np.mean),
        ("sum", np.sum),
        ("max", np.max),
    ):
        assert (trace[name].values[:, 1:] == [of(span) for span in spans]).all(), name
    assert (trace.events.values[:, 1:] == [(span % 3 == 0).sum() for span in spans]).all()
    assert trace.events.dtype == np.int32 and (trace.events.values[:, 0] == 0).all()
    assert np.isnan(trace["mean"].values[:, 0]).all() and (trace.diverged_at.values == -1).all()
    assert trace["max"].attrs["units"] == "steps"


def test_what_steps_saw_survives_a_stop_between_observations(tmp_path, monkeypatch):
    monkeypatch.setattr("latebloom.core.runs.compiled.SECONDS_PER_CHUNK", 0.0)  # one step a chunk
    at, path = [0, 7, 40], tmp_path / "run.checkpoint"

    class Stop(Exception):
        pass

    def stop(tick):
        if tick.step == 23:
            raise Stop

    with pytest.raises(Stop):
        unfold(Telling(), seeds=2, at=at, checkpoint=path, checkpoint_seconds=0, progress=stop)
    resumed = unfold(Telling(), seeds=2, at=at, checkpoint=path)
    whole = unfold(Telling(), seeds=2, at=at)
    for name in whole.data_vars:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name


class Twice(Telling):
    def observe(self, state):
        return {"mean": state}


def test_a_name_that_is_both_observed_and_told_is_refused():
    with pytest.raises(ValueError, match="'mean' is both observed and told by step"):
        unfold(Twice(), steps=3)


class Reserved(Counting):
    def observe(self, state):
        return {"step": state["n"]}


def test_names_that_a_trace_itself_uses_are_refused():
    with pytest.raises(ValueError, match="Reserved records 'step', a name that every trace"):
        unfold(Reserved(), steps=3)


class Buffered(Process):
    """A buffer that is NaN where nothing was written yet."""

    def init(self, key):
        return {"x": jnp.float32(0), "buffer": jnp.full(4, jnp.nan)}

    def step(self, state):
        return state | {"x": state["x"] + 1}

    def observe(self, state):
        return {"x": state["x"]}


class Exempt(Buffered):
    def searched(self, state):
        return state["x"]


def test_a_buffer_can_be_left_out_of_the_search_for_nan():
    with pytest.warns(UserWarning, match=r"state\['buffer'\] was not finite"):
        unfold(Buffered(), steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unfold(Exempt(), steps=3).x.values[0, -1] == 3


class Fixed(Process):
    """Integer work whose bits are the same on every machine."""

    table: jax.Array = dataclasses.field(default_factory=lambda: jnp.arange(7, dtype=jnp.uint32))

    def init(self, key):
        return jax.random.key_data(key)[1], jnp.float32(1)

    def step(self, state):
        x, half = state
        x = x * jnp.uint32(1664525) + jnp.uint32(1013904223) + self.table[x % 7]
        return Stepped((x, jnp.where(half < 1e-3, 1.0, half / 2)), {"parity": x % 2})

    def turns(self):
        return (5, 64)

    def turn(self, state):
        return state[0] ^ jnp.uint32(0xABCDEF), state[1]

    def observe(self, state):
        return {"x": state[0], "half": state[1]}

    def quantities(self):
        return {"parity": Quantity(over="sum")}


class FixedOneByOne(Fixed):
    seeds_by = "map"


def fixed_bits(kind, seeds):
    trace = unfold(kind(), seeds=seeds, at=[0, 1, 2, 5, 60, 64, 65, 200])
    found = hashlib.sha256()
    for name in ("x", "half", "parity"):
        found.update(np.ascontiguousarray(trace[name].values).tobytes())
    return found.hexdigest()[:16]


def by_hand(seed):
    rows, parity, x, half = [], 0, np.uint64(seed), np.float32(1)
    for step in range(201):
        if step:
            x = (x * 1664525 + 1013904223 + x % 7) % 2**32
            half, parity = (np.float32(1) if half < 1e-3 else half / 2), parity + int(x % 2)
        if step in (0, 1, 2, 5, 60, 64, 65, 200):
            rows.append((x, half, parity))
            parity = 0
        if step in (5, 64):
            x = np.uint64(int(x) ^ 0xABCDEF)
    return rows


# If these change, LOOP_VERSION must be raised: every recorded trace was made by another loop.
FIXED = {4: "888dc9df5ad71be8", 1: "2786b936ade34b46"}


@pytest.mark.parametrize("kind", [Fixed, FixedOneByOne])
@pytest.mark.parametrize("seeds", [1, 4])
def test_the_loop_gives_the_bits_it_always_gave(kind, seeds):
    trace = unfold(kind(), seeds=seeds, at=[0, 1, 2, 5, 60, 64, 65, 200])
    for seed in range(seeds):
        x, half, parity = (np.array(v) for v in zip(*by_hand(seed), strict=True))
        assert (trace.x.sel(seed=seed).values == x.astype(np.uint32)).all()
        assert (trace.half.sel(seed=seed).values == half.astype(np.float32)).all()
        assert (trace.parity.sel(seed=seed).values == parity).all()
    assert fixed_bits(kind, seeds) == FIXED[seeds]


@pytest.mark.processes
def test_two_devices_give_the_same_bits_and_the_same_identity():
    code = """
        import os, sys
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        sys.path.insert(0, {folder!r})
        from test_runs import AT, FIXED, Fixed, digest, fixed_bits
        assert fixed_bits(Fixed, 4) == FIXED[4]
        print(digest(Fixed(), range(4), AT))
    """.format(folder=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    assert done.stdout.split()[-1] == digest(Fixed(), range(4), AT)


AT = [0, 2, 9]


def test_the_digest_knows_what_is_computed_and_nothing_else():
    one = digest(Counting(), [0, 1], AT)

    class Renamed(Counting):
        """Another class with other words that computes the same."""

        def step(self, state):
            if state["n"].dtype != jnp.int32:
                raise ValueError("a reworded message")
            return {"of": state["of"], "n": 1 + state["n"] - 0 * 0 if False else state["n"] + 1}

    class Other(Counting):
        def step(self, state):
            return state | {"n": state["n"] + 2}

    class Watched(Counting):
        def observe(self, state):
            return {"m": state["n"], "of": state["of"]}

    class Started(Counting):
        def init(self, key):
            return super().init(jax.random.fold_in(key, 1))

    assert digest(Renamed(), [0, 1], AT) == one
    others = [
        digest(Other(), [0, 1], AT), digest(Watched(), [0, 1], AT), digest(Started(), [0, 1], AT),
        digest(Counting((3,)), [0, 1], AT), digest(OneByOne(), [0, 1], AT),
        digest(Counting(), [0, 2], AT), digest(Counting(), [0, 1], [0, 2, 10]),
    ]  # fmt: skip
    assert len({one, *others}) == 8


def test_the_digest_knows_values_that_leave_no_mark_on_the_program():
    class Rate(Counting):
        rate: float = 0.5

        def observe(self, state):
            return {"n": state["n"] * self.rate}

    assert digest(Rate(), [0], AT) != digest(Rate(rate=0.25), [0], AT)
    assert digest(Fixed(), [0], AT) != digest(Fixed(jnp.arange(1, 8, dtype=jnp.uint32)), [0], AT)


def test_a_trace_carries_its_identity_and_the_bits_of_its_beginning():
    trace = unfold(Fixed(), seeds=2, at=[0, 1, 5, 300])
    assert trace.attrs["program"] == digest(Fixed(), [0, 1], [0, 1, 5, 300])
    assert trace.attrs["prefix"] == prefix(Fixed(), 2, [0, 1, 5, 300])
    assert trace.attrs["prefix"] != prefix(Fixed(), [0, 2], [0, 1, 5, 300])
    # The end of a run is not part of its beginning.
    assert trace.attrs["prefix"] == prefix(Fixed(), 2, [0, 1, 5, 10**6])


class Costly(Counting):
    """Tells Python how often its functions are traced."""

    def step(self, state):
        calls["step"] += 1
        return super().step(state)

    def observe(self, state):
        calls["observe"] += 1
        return super().observe(state)


calls = {"step": 0, "observe": 0}


def test_step_and_observe_are_traced_once():
    calls.update(step=0, observe=0)
    unfold(Costly(), seeds=4, steps=9)
    assert calls == {"step": 1, "observe": 1}


def test_the_data_is_not_copied_to_every_seed():
    """The compiled loop holds no array of the data's size times the seeds."""
    from latebloom.core.runs.compiled import CompiledRun

    class Reads(Process):
        data: jax.Array

        def init(self, key):
            return jnp.int32(0), jnp.float32(0)

        def step(self, state):
            return state[0] + 1, state[1] + self.data[state[0] % 1000].sum()

        def observe(self, state):
            return {"sum": state[1]}

    run = CompiledRun(Reads(jnp.ones((1000, 50))), [0, 1, 2, 3], np.array([0, 5]))
    assert "4,1000,50" not in run.program.as_text()
    assert Program(Reads(jnp.ones((1000, 50)))).observed["sum"].shape == ()


def jitted_constant(values):
    held = jnp.asarray(values)
    return jax.jit(lambda x: x * held)


def called_back(by):
    def f(x):
        return np.asarray(x) * np.float32(by)

    return lambda x: jax.pure_callback(
        f, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"
    )


class Applied(Process):
    """x <- f(x), from ones."""

    f: object = eqx.field(static=True)

    def init(self, key):
        return jnp.ones(2)

    def step(self, state):
        return self.f(state)

    def observe(self, state):
        return {"x": state}


@pytest.mark.parametrize("make", [jitted_constant, called_back], ids=["jitted", "callback"])
def test_what_a_program_holds_at_any_depth_tells_it_apart(make):
    values = ([2.0, 3.0], [2.0, 5.0]) if make is jitted_constant else (2.0, 3.0)
    lasts = [unfold(Applied(make(v)), at=[0, 1]).x.values[0, -1].tolist() for v in values]
    assert lasts == [np.broadcast_to(v, 2).tolist() for v in values]
    found = [digest(Applied(make(v)), [0], [0, 1]) for v in values]
    assert found == ["", ""] if make is called_back else found[0] != found[1]


class Kept(Process):
    """Counts in what is no array."""

    start: object = eqx.field(static=True)

    def init(self, key):
        return {"n": self.start, "x": jnp.zeros(())}

    def step(self, state):
        return state | {"n": state["n"] + 1}

    def observe(self, state):
        return {"n": state["n"]}


def test_a_number_of_python_in_the_state_may_stay_but_not_change():
    with pytest.raises(ValueError, match=r"state at \['n'\] from 0 to 1, which are no arrays"):
        unfold(Kept(0), at=[0, 3])
    assert unfold(Kept(np.int32(0)), at=[0, 3]).n.values.tolist() == [[0, 3]]

    class Stays(Kept):
        def step(self, state):
            return state

    assert unfold(Stays(7), at=[0, 3]).n.values.tolist() == [[7, 7]]


class Events(Process):
    """Tells an event at every step, in a small type."""

    value: object = eqx.field(static=True)
    over: str = eqx.field(static=True)

    def init(self, key):
        return jnp.int32(0)

    def step(self, state):
        return Stepped(state + 1, {"event": jnp.asarray(self.value)})

    def observe(self, state):
        return {"n": state}

    def quantities(self):
        return {"event": Quantity(over=self.over)}


@pytest.mark.parametrize(
    "value", [np.bool_(True), np.uint8(1), np.int32(1), jnp.bfloat16(1)], ids=str
)
def test_events_of_small_types_are_gathered_in_large_ones(value):
    sums, means, largest = (
        unfold(Events(value, over), at=[0, 300]).event.values[0] for over in ("sum", "mean", "max")
    )
    assert (sums == [0, 300]).all() and means[1] == 1 and np.isnan(means[0])
    assert largest[1] == 1 and (largest[0] == 0 or np.isnan(largest[0]))


def test_a_way_of_gathering_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="over must be one of last, mean, sum, max, not 'min'"):
        Quantity(over="min")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_recorded_in_what_files_know(dtype):
    class Half(Counting):
        def observe(self, state):
            return {"half": (state["n"] / 2).astype(dtype)}

    trace = unfold(Half(()), at=[0, 3])
    assert trace.half.dtype == np.float32 and trace.half.values.tolist() == [[0, 1.5]]
