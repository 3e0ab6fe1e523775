"""The lab on a study small enough to check by hand."""

import json
import multiprocessing
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.core.process import HostProcess
from latebloom.data import DataError
from latebloom.lab import Budget, Claim, Figure, Paper, Study, judge, ledger, report, source, style
from latebloom.lab.registry import studies
from latebloom.lab.runner import run
from latebloom.lab.source import source_hash
from latebloom.lab.store import Store
from latebloom.lab.verdict import interval


@dataclass(frozen=True)
class Config:
    slope: float = 1.0
    steps: int = 4
    tag: str | None = None


class Line(HostProcess):
    """Observes seed + slope * step."""

    def __init__(self, slope):
        self.slope = slope

    def init(self, seed):
        return (seed, 0)

    def step(self, state):
        return (state[0], state[1] + 1)

    def observe(self, state):
        return {"height": float(state[0] + self.slope * state[1])}


def make_process(config):
    return Line(config.slope)


def schedule(config):
    return np.arange(config.steps + 1)


def lead(traces):
    return (traces["steep"].height - traces["flat"].height).values[:, -1]


def draw(traces):
    figure, ax = style.figure()
    style.band(ax, traces["steep"], "height", label="steep")
    ax.set_xlabel("step")
    return figure


def claim(holds, arms=("steep", "flat"), effect=lead):
    return Claim("C1", "steep ends above flat", "by 8", arms, effect, holds, "m")


def make_study(*claims, **changes):
    options = dict(
        paper=Paper("lines", "On Lines", "A. Euclid", "Elements", -300, "0000.00000"),
        family="geometry", question="Which line ends higher?", symptoms=("my line is flat",),
        arms={"steep": Config(2.0), "flat": Config(0.0)}, process=make_process, schedule=schedule,
        budgets={"quick": Budget(3), "one": Budget(2, ("steep",), {"steps": 2})},
        claims=claims or (claim("> 5"),), watch="height",
        figures=(Figure("lines", "Heights.", draw, ("steep",)),),
    )  # fmt: skip
    return Study(**(options | changes))


study = make_study()


@pytest.mark.parametrize(
    ("holds", "verdict"), [("> 5", "holds"), ("> 9", "contradicted"), ("< 9", "holds"), ("< 5", "contradicted")]
)  # fmt: skip
def test_verdicts_by_hand(tmp_path, holds, verdict):
    done = run(make_study(claim(holds)), store=Store(tmp_path))
    (v,) = done.verdicts
    assert (v.verdict, v.estimate, v.low, v.high, v.seeds) == (verdict, 8, 8, 8, 3)


def traces_of(effects):
    return {"steep": None, "flat": None}, lambda traces: np.array(effects)


@pytest.mark.parametrize(
    ("effects", "verdict", "seeds"),
    [
        ([1.0, 1.1, 0.9, 1.05], "holds", 4),
        ([0.4, 0.6, 0.45, 0.55], "undecided", 4),
        ([0.1, 0.2, 0.1, 0.15], "contradicted", 4),
        ([np.nan, 1.0, 1.1, np.inf], "holds", 2),
        ([2.0], "undecided", 1),
        ([np.nan, np.nan], "undecided", 0),
    ],
)
def test_intervals_decide(effects, verdict, seeds):
    traces, effect = traces_of(effects)
    found = judge(claim("> 0.5", effect=effect), traces)
    assert (found.verdict, found.seeds) == (verdict, seeds)


def test_the_interval_covers_the_mean_of_normal_samples_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = sum(
        low <= 0 <= high for low, high in (interval(rng.normal(size=25)) for _ in range(120))
    )
    assert 0.86 <= covered / 120 <= 1


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
@settings(max_examples=15, deadline=None)
def test_the_interval_lies_within_the_range_of_the_effects(effects):
    low, high = interval(np.array(effects))
    assert min(effects) - 1e-9 <= low <= high <= max(effects) + 1e-9


def test_a_claim_whose_arms_were_not_run_says_so(tmp_path):
    done = run(study, "one", store=Store(tmp_path))
    assert done.verdicts[0].verdict == "not run"
    assert list(done.traces["steep"].step) == [0, 1, 2]


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
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_nearest_name(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(study, Store(tmp_path))


def test_settings_are_parsed_by_their_types(tmp_path):
    done = run(study, overrides={"slope": "3", "tag": "none"}, store=Store(tmp_path))
    assert done.configs["flat"] == Config(3.0, 4, None)
    assert done.verdicts[0].estimate == 0


@pytest.mark.parametrize("holds", ["5", "> five", ">= 5", "= 3"])
def test_a_threshold_that_says_nothing_is_refused(holds):
    with pytest.raises(ValueError, match="holds must read"):
        claim(holds)


def test_a_study_that_names_an_arm_it_lacks_is_refused():
    with pytest.raises(ValueError, match="there is no arm 'round'"):
        make_study(claim("> 1", arms=("round",)))


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


def test_the_ledger_holds_what_the_lab_wrote_and_knows_when_it_is_stale(tmp_path, monkeypatch):
    done = run(study, store=Store(tmp_path / "store"))
    earlier = tmp_path / "results" / "lines" / "drawn-no-more.png"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    ledger.record(done, tmp_path / "results")
    assert not earlier.exists()
    (entry,) = ledger.entries(tmp_path / "results")
    assert (tmp_path / "results" / "lines" / "lines.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(ledger, "known", {"lines": study}.get)
    (row,) = ledger.rows(entry)
    wanted = {
        "study",
        "claim",
        "verdict",
        "estimate",
        "low",
        "high",
        "threshold",
        "seeds",
        "budget",
        "stale",
    }
    assert wanted <= set(row)
    assert (row["verdict"], row["estimate"], row["stale"]) == ("holds", 8, False)
    monkeypatch.setattr(ledger, "known", {"lines": make_study(claim("> 7"))}.get)
    assert ledger.rows(entry)[0]["stale"]
    other = make_study(arms={"steep": Config(3.0), "flat": Config(0.0)})
    monkeypatch.setattr(ledger, "known", {"lines": other}.get)
    assert ledger.rows(entry)[0]["stale"]


def test_a_changed_pass_does_not_enter_the_ledger(tmp_path):
    done = run(study, seeds=2, store=Store(tmp_path))
    with pytest.raises(ValueError, match="only a budget as it stands"):
        ledger.record(done, tmp_path)


def test_a_damaged_ledger_file_is_named(tmp_path):
    (tmp_path / "lines.json").write_text("{")
    with pytest.raises(ValueError, match=r"lines.json is not JSON"):
        ledger.entries(tmp_path)


def test_the_report_is_self_contained_and_says_what_the_store_says(tmp_path, monkeypatch):
    store = Store(tmp_path)
    done = run(study, store=store)
    page = report.write_page(done, tmp_path / "reports").read_text()
    assert "On Lines" in page and "<svg" in page and ">8</span> [8, 8]" in page
    assert "<script" not in page and "<link" not in page and "src=" not in page
    assert "currentColor" in page and style.INK not in page
    monkeypatch.setattr(report, "known", {"lines": study}.get)
    index = report.write_index(store, tmp_path / "reports").read_text()
    assert 'href="lines.html"' in index and "1 holds" in index


@pytest.mark.parametrize("value, text", [(0.1234, "0.123"), (0, "0"), (12345.6, "12,346"), (1e-9, "1.00e-09"), (None, "∞")])  # fmt: skip
def test_numbers_are_written_for_people(value, text):
    assert report.number(value) == text


def test_every_study_is_whole():
    for slug, s in studies().items():
        assert s.slug == slug and s.symptoms and s.question.endswith("?") and s.claims and s.figures
        assert {"smoke", "quick", "full"} <= set(s.budgets)
        assert s.budgets["quick"].seeds >= 4
        assert len({c.id for c in s.claims}) == len(s.claims)
        for name, budget in s.budgets.items():
            for config in s.configs(budget).values():
                try:
                    steps = np.asarray(s.schedule(config))
                except DataError:  # a schedule may depend on the length of a table to be fetched
                    assert name != "smoke"
                    continue
                assert (np.diff(steps) > 0).all() and steps[0] >= 0


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
        def end(traces): return traces["a"].n.values[:, -1]

        study = Study(paper=Paper("mine", "Mine", "Me", "here", 2026, ""), family="own",
                      question="Does it count?", symptoms=("it does not count",),
                      arms={{"a": Config()}}, process=make, schedule=schedule,
                      budgets={{"quick": Budget(2)}},
                      claims=(Claim("C1", "it counts", "yes", ("a",), end, "> 2"),))
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
    reached = set(source._reach(module.__name__, own, ["f"]))
    assert ("latebloom.losses", "cross_entropy") in reached
    assert ("latebloom.losses", "stablemax_cross_entropy") not in reached
    assert ("latebloom.data.images", "read_idx") in reached  # through load, through a re-export
    assert ("latebloom.probes.ntk", "kernel_alignment") in reached  # imported where it is used
    assert ("latebloom.core.process", "log_steps") in reached  # the package imports it when asked
    assert ("latebloom.core.runs.compiled", "CompiledRun") in reached
    assert not any(place[0] == "latebloom.optim.perp_grad" for place in reached)


def test_a_module_that_is_handed_around_counts_whole(tmp_path, monkeypatch):
    text = "from latebloom import losses\ndef f(x):\n    return getattr(losses, x)\n"
    reached = set(source._reach("m", source._parse(text), ["f"]))
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
    assert {place[1] for place in source._reach("m", own, ["f"]) if place[0] == "m"} == {"f", ""}


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
