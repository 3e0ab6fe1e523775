"""When a claim's check counts as changed."""

import dataclasses
import textwrap

import numpy as np
import pytest

from latebloom.lab.effects import effect_hash, object_hash
from latebloom.lab.registry import find

STUDY = """
    from dataclasses import dataclass
    from functools import partial
    import numpy as np
    from latebloom.core.process import HostProcess
    from latebloom.lab import Budget, Claim, Need, Paper, Study
    from latebloom.measures import Effect, Measure, final, peak, tail

    @dataclass(frozen=True)
    class Config:
        steps: int = 3

    def make(config):
        return None

    def schedule(config):
        return np.arange(config.steps + 1)

    LIMIT = 1

    def scale(x):
        return x * LIMIT

    def mine(trace):
        return scale(trace.n.values[:, -1])

    def gap(one, other, traces):
        return mine(traces[one]) - mine(traces[other])

    end = final("n")
    study = Study(paper=Paper("{slug}", "Mine", "Me", "here", 2026, ""), family="own", question="?",
                  symptoms=("none",), arms=dict.fromkeys("abc", Config()), process=make,
                  schedule=schedule, budgets={{"quick": Budget(5), "other": Budget(5)}},
                  claims=(Claim("C1", "{text}", "", {effect}, "{holds}", null={null}, needs={needs}),))
"""
PLAIN = {"slug": "m", "text": "it counts", "effect": 'end["a"] - end["b"]', "holds": "> 2",
         "null": "None", "needs": "()"}  # fmt: skip


@pytest.fixture
def hashed(tmp_path):
    made = iter(range(100))

    def of(replace=("", ""), **changes):
        text = textwrap.dedent(STUDY).format(**PLAIN | changes).replace(*replace)
        path = tmp_path / f"effects_{next(made)}.py"
        path.write_text(text)
        study = find(str(path))
        return effect_hash(study, study.claims[0])

    return of


def test_words_layout_and_the_name_of_the_file_do_not_count(hashed):
    assert hashed() == hashed() == hashed(text="it counts up", slug="other")
    assert hashed() == hashed(("    return None", "    # nothing\n    return None"))


@pytest.mark.parametrize(
    "changes",
    [
        {"effect": 'end["a"] - end["c"]'},
        {"effect": 'end["b"] - end["a"]'},
        {"effect": 'end["a"] + end["b"]'},
        {"effect": 'tail("n")["a"] - end["b"]'},
        {"effect": 'tail("n", 0.2)["a"] - end["b"]'},
        {"effect": 'end["a"] - 2 * end["b"]'},
        {"effect": 'final("m")["a"] - end["b"]'},
        {"holds": "> 3"},
        {"null": '0.5'},
        {"null": 'end["c"]'},
        {"needs": '(Need(end["a"], "> 1", "short"),)'},
        {"needs": '(Need(end["a"], "> 2", "short"),)'},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_computed_counts(hashed, changes):
    assert hashed(**changes) == hashed(**changes) != hashed()


@pytest.mark.parametrize(
    "effect",
    [
        'Measure("mine", mine)["a"]',
        'Measure("mine", lambda trace: scale(trace.n.values[:, -1]))["a"]',
        'Effect(("a", "b"), "gap", partial(gap, "a", "b"))',
        'Effect(("a", "b"), "gap", lambda traces, one="a": gap(one, "b", traces))',
    ],
)
def test_functions_count_with_all_that_they_name(hashed, effect):
    before = hashed(effect=effect)
    assert before == hashed(effect=effect)
    assert before != hashed(("LIMIT = 1", "LIMIT = 2"), effect=effect)
    assert before != hashed(("return x * LIMIT", "return x / LIMIT"), effect=effect)
    assert before == hashed(("return None", "return 1"), effect=effect)
    other = effect.replace('"a"', '"c"')
    assert before != hashed(effect=other)


def test_values_of_a_closure_count():
    from lines import claim, make_study

    from latebloom.measures import Effect

    def above(limits):
        return Effect(("steep",), "above", lambda traces: limits)

    hashes = {
        effect_hash(make_study(c), c)
        for c in (claim("> 1", above(np.array(v))) for v in ([1.0, 2.0], [1.0, 3.0], [1.0, 3.0]))
    }
    assert len(hashes) == 2


@dataclasses.dataclass
class Scaled:
    by: float

    def __call__(self, values):
        return values * self.by

    def method(self, values):
        return values + self.by


def closing_over(value):
    return lambda traces: value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closing_over({1, 2}), closing_over({1, 3})), (Scaled(1.0), Scaled(2.0)),
        (Scaled(1.0).method, Scaled(2.0).method), (closing_over(Scaled(1.0)), closing_over(Scaled(2.0))),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (np.arange(5000.0), np.arange(5000.0) + (np.arange(5000) == 2500)), (np.log, np.log10),
    ],
    ids=["set", "callable", "method", "object", "generator", "array", "ufunc"],
)  # fmt: skip
def test_whatever_a_check_holds_counts(one, other):
    found = [object_hash(Scaled(each)) for each in (one, other, one)]
    assert found[0] and found[0] == found[2] != found[1]


def test_what_holds_itself_cannot_be_told():
    ring = Scaled(1.0)
    ring.by = ring
    assert object_hash(ring) == ""
