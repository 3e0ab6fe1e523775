"""The lab on a study small enough to check by hand."""

import json
import multiprocessing
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from lines import Config, Line, claim, make_study, study

from latebloom.data import DataError
from latebloom.lab import source
from latebloom.lab.registry import find, module_of, studies
from latebloom.lab.runner import run, source_of_units
from latebloom.lab.source import source_hash
from latebloom.lab.store import Store
from latebloom.lab.study import BUDGETS


@pytest.mark.parametrize(
    ("holds", "verdict"), [("> 5", "holds"), ("> 9", "contradicted"), ("< 9", "holds"), ("< 5", "contradicted")]
)  # fmt: skip
def test_verdicts_by_hand(tmp_path, holds, verdict):
    done = run(make_study(claim(holds)), store=Store(tmp_path))
    (v,) = done.verdicts
    assert (v.verdict, v.estimate, v.low, v.high, v.seeds) == (verdict, 8, 8, 8, 3)


def test_a_claim_whose_arms_were_not_run_is_not_judged(tmp_path):
    done = run(study, "smoke", store=Store(tmp_path))
    assert not done.verdicts and [c.id for c in done.unjudged] == ["C1"]
    assert list(done.traces["steep"].step) == [0, 1, 2]


def test_seeds_are_a_count_or_those_that_are_named(tmp_path):
    done = run(study, seeds=range(20, 30), store=Store(tmp_path))
    assert done.seeds == tuple(range(20, 30)) and done.changed
    assert list(done.traces["flat"].seed) == list(range(20, 30))
    assert list(done.traces["flat"].height[:, 0]) == list(range(20, 30))


def test_what_is_known_is_not_run_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = run(study, store=store)
    monkeypatch.setattr(Line, "step", None)
    again = run(study, store=store)
    xr.testing.assert_identical(first.traces["steep"], again.traces["steep"])
    assert again.verdicts == first.verdicts


def test_more_seeds_reuse_the_unit_of_the_first_eight(tmp_path):
    store = Store(tmp_path)
    run(study, seeds=8, store=store)
    files = set((tmp_path / "lines").glob("*.nc"))
    done = run(study, seeds=11, store=store)
    assert files < set((tmp_path / "lines").glob("*.nc"))
    assert list(done.traces["flat"].seed) == list(range(11))


def test_a_damaged_unit_is_named_set_aside_and_made_again(tmp_path):
    store = Store(tmp_path)
    first = run(study, store=store)
    blob = bytearray(first.paths[0].read_bytes())
    blob[len(blob) // 2] ^= 0xFF
    first.paths[0].write_bytes(bytes(blob))
    with pytest.warns(UserWarning, match=f"{first.paths[0].name} is damaged"):
        again = run(study, store=store)
    assert first.paths[0].with_suffix(".damaged").exists()
    assert (again.traces["steep"].height == first.traces["steep"].height).all()


def _run_in(folder):
    run(study, seeds=8, store=Store(folder))


def test_two_runs_at_once_do_no_harm(tmp_path):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_run_in, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    done = run(study, seeds=8, store=Store(tmp_path))
    assert done.verdicts[0].verdict == "holds"
    assert not list(tmp_path.rglob("*.checkpoint"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, st: run(s, "quik", store=st), "did you mean 'quick'"),
        (lambda s, st: run(s, arms=["stepe"], store=st), "no arm 'stepe'; did you mean 'steep'"),
        (lambda s, st: run(s, overrides={"slop": "1"}, store=st), "did you mean 'slope'"),
        (lambda s, st: run(s, overrides={"slope": "up"}, store=st), "slope takes a value of type float"),
        (lambda s, st: run(s, seeds=0, store=st), "seeds must be at least 1"),
        (lambda s, st: run(s, seeds=(3, 3), store=st), r"seeds must be different .* not \[3, 3\]"),
        (lambda s, st: run(s, seeds=(-1, 2), store=st), "seeds must be different numbers from 0"),
        (lambda s, st: run(s, seeds=range(5, 5), store=st), "seeds must be different numbers"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_nearest_name(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(study, Store(tmp_path))


def test_settings_are_parsed_by_their_types(tmp_path):
    done = run(study, overrides={"slope": "3", "tag": "none"}, store=Store(tmp_path))
    assert done.configs["flat"] == Config(3.0, 4, None)
    assert done.verdicts[0].estimate == 0


def test_source_hashes_see_code_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "m_one": "def f(x):\n    return g(x)\n\ndef g(x):\n    return x + 1\n\ndef figure():\n    return 1\n",
        "m_two": "# a comment\ndef f(x):\n    '''Doc.'''\n    return g(x)\ndef g(x): return x + 1\ndef figure(): return 2\n",
        "m_three": "def f(x):\n    return g(x)\n\ndef g(x):\n    return x + 2\n\ndef figure():\n    return 1\n",
    }  # fmt: skip
    hashes = []
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        module = __import__(name)
        hashes.append(source_hash(module, [module.f]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_study_is_whole():
    for slug, s in studies().items():
        assert s.slug == slug and s.symptoms and s.question.endswith("?") and s.claims and s.figures
        assert {"smoke", "quick", "full"} <= set(s.budgets)
        assert len({c.id for c in s.claims}) == len(s.claims)
        for name in s.budgets:
            for config in s.configs(name).values():
                try:
                    steps = np.asarray(s.schedule(config))
                except DataError:  # a schedule may depend on the length of a table to be fetched
                    assert name != "smoke"
                    continue
                assert (np.diff(steps) > 0).all() and steps[0] >= 0


def test_studies_speak_the_vocabulary_of_effects_and_have_seeds_enough():
    for slug, s in studies().items():
        assert set(s.budgets) == {"smoke", *BUDGETS}, slug
        for name in BUDGETS:
            assert s.budgets[name].seeds >= 5, (slug, name)


def test_a_study_in_a_file_of_the_users_own(tmp_path):
    from latebloom.lab.registry import find

    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from dataclasses import dataclass
        import numpy as np
        from latebloom.lab import Budget, Claim, Paper, Study
        from latebloom.measures import final
        from latebloom.core.process import HostProcess

        @dataclass(frozen=True)
        class Config:
            steps: int = 3

        class Count(HostProcess):
            def init(self, seed): return 0
            def step(self, state): return state + 1
            def observe(self, state): return {{"n": float(state)}}

        def make(config): return Count()
        def schedule(config): return np.arange(config.steps + 1)
        study = Study(paper=Paper("mine", "Mine", "Me", "here", 2026, ""), family="own",
                      question="Does it count?", symptoms=("it does not count",),
                      arms={{"a": Config()}}, process=make, schedule=schedule,
                      budgets={{"quick": Budget(2)}},
                      claims=(Claim("C1", "it counts", "yes", final("n")["a"], "> 2"),))
    """)
    )
    done = run(find(str(path)), store=Store(tmp_path / "store"))
    assert done.verdicts[0].verdict == "holds"
    assert (
        json.loads((tmp_path / "store" / "mine" / "pass-quick.json").read_text())["study"] == "mine"
    )
    with pytest.raises(ValueError, match="there is no file"):
        find("nowhere.py")
    sys.modules.pop("mine")


def test_source_hashes_follow_names_through_the_package_and_no_further(tmp_path, monkeypatch):
    (tmp_path / "m_four.py").write_text(
        "from latebloom import log_steps, losses, optim\n"
        "from latebloom.data import load\n"
        "def f(x):\n    from latebloom.probes import ntk\n"
        "    return log_steps(losses.cross_entropy(x)), load, ntk.kernel_alignment\n"
        "def unused():\n    return optim.perp_grad()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("m_four")
    own = source._parse((tmp_path / "m_four.py").read_text())
    reached = set(source._reach(module.__name__, own, [(module.__name__, "f")]))
    assert ("latebloom.losses", "cross_entropy") in reached
    assert ("latebloom.losses", "stablemax_cross_entropy") not in reached
    assert ("latebloom.data.images", "read_idx") in reached  # through load, through a re-export
    assert ("latebloom.probes.ntk", "kernel_alignment") in reached  # imported where it is used
    assert ("latebloom.core.process", "log_steps") in reached  # the package imports it when asked
    assert ("latebloom.core.runs.compiled", "CompiledRun") not in reached  # it has a version
    before = source_hash(module, [module.f])
    monkeypatch.setattr(source, "LOOP_VERSION", source.LOOP_VERSION + 1)
    assert source_hash(module, [module.f]) != before
    assert not any(place[0] == "latebloom.optim.perp_grad" for place in reached)


def test_a_module_that_is_handed_around_counts_whole(tmp_path, monkeypatch):
    text = "from latebloom import losses\ndef f(x):\n    return getattr(losses, x)\n"
    reached = set(source._reach("m", source._parse(text), [("m", "f")]))
    assert ("latebloom.losses", "stablemax") in reached


def test_the_variable_of_a_comprehension_defines_nothing():
    text = (
        "TABLE = {x: [y for y in (1, 2)] for x in (1, 2)}\n"
        "(a, (b, c)), d[0] = ((1, (2, 3)), [4])\n"
        "if a:\n    def g(z):\n        w = 1\nelse:\n    g = lambda z: [z for z in z]\n"
        "def f(x, y):\n    return x + y\n"
    )
    own = source._parse(text)
    assert set(own.definitions) == {"TABLE", "a", "b", "c", "g", "f"}
    assert {place[1] for place in source._reach("m", own, [("m", "f")]) if place[0] == "m"} == {
        "f",
        "",
    }


def test_a_check_made_by_a_function_counts_with_its_maker_and_values(tmp_path, monkeypatch):
    text = "from functools import partial\ndef make(limit):\n    def effect(x):\n        return x > limit\n    return effect\ndef plain(x, y):\n    return x + {}\n"
    (tmp_path / "m_five.py").write_text(text.format(1))
    (tmp_path / "m_six.py").write_text(text.format(2))
    monkeypatch.syspath_prepend(tmp_path)
    five, six = __import__("m_five"), __import__("m_six")
    made = [source_hash(five, [five.make(limit)]) for limit in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    from functools import partial

    partials = [
        source_hash(m, [partial(m.plain, y=y)]) for m, y in ((five, 1), (five, 2), (six, 1))
    ]
    assert len(set(partials)) == 3


def test_every_module_of_a_study_is_named_by_its_slug():
    from latebloom.lab.index import slugs
    from latebloom.lab.registry import known

    named = [slug for slug in slugs() if known(slug)]
    assert set(named) == set(studies())
    assert known("no-such-study") is None


def test_units_that_ran_on_different_devices_make_one_record(tmp_path):
    done = run(study, seeds=10, store=Store(tmp_path))
    for trace in done.traces.values():
        del trace.attrs["backend"]  # what is left of two units that disagree
    assert done.record()["versions"]["backend"] == "mixed"


METHOD = """
from latebloom.core.process import HostProcess

class Count(HostProcess):
    def init(self, seed): return 0
    def step(self, state): return state + {by}
    def observe(self, state): return {{"n": float(state)}}

def make(config): return Count()
"""
BESIDE = """
from dataclasses import dataclass
import numpy as np
from latebloom.lab import Budget, Claim, Paper, Study
from latebloom.measures import final
from {method} import make

@dataclass(frozen=True)
class Config:
    steps: int = 3

def schedule(config): return np.arange(config.steps + 1)
study = Study(paper=Paper("counts", "Counts", "Me", "here", 2026, ""), family="own",
              question="Does it count?", symptoms=("it does not count",),
              arms={{"a": Config(), "b": Config(4)}}, process=make, schedule=schedule,
              budgets={{"quick": Budget(2)}},
              claims=(Claim("C1", "it counts", "yes", final("n")["a"], "> 2"),))
"""


def beside(folder, by=1, method="counting", study="counts"):
    """The file of a study whose method lies beside it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{method}.py").write_text(METHOD.format(by=by))
    (folder / f"{study}.py").write_text(BESIDE.format(method=method))
    return str(folder / f"{study}.py")


@pytest.fixture
def import_state(monkeypatch):
    """What is loaded from a file of the user's own is forgotten after the test."""
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - modules:
        if name.partition("_")[0] in ("counts", "counting", "decays"):
            del sys.modules[name]


def counted(done):
    return float(done.traces["a"].n.values[0, -1])


def test_a_study_uses_the_method_beside_it(tmp_path, import_state):
    done = run(find(beside(tmp_path / "my folder")), store=Store(tmp_path / "store"))
    assert counted(done) == 3
    assert done.record()["file"] == str(tmp_path / "my folder" / "counts.py")


def test_a_changed_method_beside_a_study_is_run_again(tmp_path, import_state):
    store = Store(tmp_path / "store")
    sources = [run(find(beside(tmp_path / "a", by)), store=store).source for by in (1, 1)]
    assert sources[0] == sources[1]
    done = run(find(beside(tmp_path / "a", by=2)), store=store)
    assert counted(done) == 6 and done.source != sources[0]


def test_two_folders_may_use_the_same_names(tmp_path, import_state):
    one = find(beside(tmp_path / "a", by=1))
    first = run(one, store=Store(tmp_path / "one"))
    two = find(beside(tmp_path / "b", by=2))
    second = run(two, store=Store(tmp_path / "two"))
    assert (counted(first), counted(second)) == (3, 6)
    assert module_of(one) is not module_of(two)
    assert [Path(module_of(s).__file__).parent.name for s in (one, two)] == ["a", "b"]
    assert source_of_units(one) == first.source != second.source


@pytest.mark.processes
def test_processes_side_by_side_find_what_lies_beside_a_study(tmp_path, import_state):
    study = find(beside(tmp_path / "a", by=2))
    assert counted(run(study, store=Store(tmp_path / "store"), jobs=2)) == 6


def test_a_study_cannot_be_called_as_a_module_in_use(tmp_path, import_state):
    with pytest.raises(ValueError, match="'json' is: rename the file"):
        find(beside(tmp_path, study="json"))


OWN_DATA = """
from dataclasses import dataclass
from pathlib import Path
import jax.numpy as jnp, numpy as np
from latebloom import Process
from latebloom.lab import Budget, Claim, Paper, Study
from latebloom.measures import final

@dataclass(frozen=True)
class Config:
    steps: int = 3

class Grow(Process):
    by: float
    def init(self, key): return jnp.float32(0)
    def step(self, state): return state + self.by
    def observe(self, state): return {{"n": state}}

def schedule(config): return np.arange(config.steps + 1)
study = Study(paper=Paper("counts", "Counts", "Me", "here", 2026, ""), family="own",
              question="Does it count?", symptoms=("it does not count",),
              arms={{"a": Config()}}, process={process}, schedule=schedule, budgets={{"quick": Budget(2)}},
              claims=(Claim("C1", "it counts", "yes", final("n")["a"], "> 2"),))
"""


@pytest.mark.parametrize(
    "process", ["lambda config: Grow(float(Path({file!r}).read_text()))", "__import__('functools').partial(lambda f, c: Grow(float(f.read_text())), Path({file!r}))"]
)  # fmt: skip
def test_a_program_of_ones_own_counts_by_what_it_is_made_of(tmp_path, import_state, process):
    file, store = tmp_path / "by.txt", Store(tmp_path / "store")
    (tmp_path / "counts.py").write_text(OWN_DATA.format(process=process.format(file=str(file))))
    ends = []
    for by in ("1", "2", "1"):
        file.write_text(by)
        ends.append(counted(run(find(str(tmp_path / "counts.py")), store=store)))
    assert ends == [3, 6, 3]


@pytest.mark.parametrize(
    "more", ["for k in (1,):\n    T[k] = {}\n", "K = 1\nK = K + {}\n", "with open('/dev/null'):\n    K = {}\n"]
)  # fmt: skip
def test_what_a_module_does_on_import_counts(tmp_path, import_state, more):
    hashes = []
    for value in (1, 2, 1):
        folder = tmp_path / "a"
        path = beside(folder, study="counts")
        text = (
            "T = {}\nK = 0\n"
            + more.format(value)
            + METHOD.format(by=1).replace("state + 1", "state + K + len(T)")
        )
        (folder / "counting.py").write_text(text)
        hashes.append(source_of_units(find(path)))
    assert hashes[0] == hashes[2] != hashes[1]
