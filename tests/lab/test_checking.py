"""The ledger against the code: a refactoring is proved, a changed constant is caught."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from latebloom.cli import app
from latebloom.core.unfold import unfold
from latebloom.lab import checking, ledger, units
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store

STUDY = """
from dataclasses import dataclass
import jax, jax.numpy as jnp, numpy as np
from latebloom import HostProcess, Process
from latebloom.lab import Budget, Claim, Paper, Study
from latebloom.measures import final

@dataclass(frozen=True)
class Config:
    rate: float = 0.5
    kind: str = "jax"

class Decay(Process):
    rate: float
    def init(self, key):
        return jax.random.uniform(key) + 1
    def step(self, state):
        return state * (1 - self.rate)
    def observe(self, state):
        return {"level": state}

class Dice(HostProcess):
    def init(self, seed):
        return [np.random.default_rng(seed), 0.0]
    def step(self, state):
        return [state[0], state[1] + state[0].normal()]
    def observe(self, state):
        return {"level": state[1]}

def process(config):
    return Decay(config.rate) if config.kind == "jax" else Dice()

def schedule(config):
    return np.arange(0, 20, 2)

level = final("level")
study = Study(
    paper=Paper("decays", "Decays", "A", "V", 2026, "0"), family="grokking", question="?", symptoms=("s",),
    arms={"slow": Config(0.1), "fast": Config(0.5), "dice": Config(kind="host")},
    process=process, schedule=schedule, budgets={"quick": Budget(6), "full": Budget(6)},
    claims=(
        Claim("C1", "slow leaves more", "more", level["slow"] - level["fast"], "> 0.1"),
        Claim("C2", "dice wander", "wander", abs(level["dice"]), "< 100"),
    ),
)
"""


@pytest.fixture
def recorded(tmp_path):
    """A study in a file of its own, run and recorded; change it by `edit(old, new)`."""
    path, results = tmp_path / "decays.py", tmp_path / "results"
    path.write_text(textwrap.dedent(STUDY))
    store = Store(tmp_path / "store")
    ledger.record(run(find(str(path)), store=store), results)

    def edit(old, new):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        (entry,) = ledger.entries(results)
        return checking.check(entry)

    return edit, results, store


def test_what_did_not_change_is_fresh(recorded):
    found = recorded[0]("study = Study(", "# a comment\nstudy = Study(")
    assert found.state == "fresh" and not found.changed and not found.notes
    assert set(found.arms["quick"].values()) == {"fresh"}


def test_a_refactoring_is_the_same_program_also_beside_host_processes(recorded):
    edit, results, store = recorded
    found = edit(
        "return state * (1 - self.rate)", "kept = 1 - self.rate\n        return state * kept"
    )
    assert found.arms["quick"] == {
        "slow": "same program", "fast": "same program", "dice": "same program",
    }  # fmt: skip
    assert found.state == "same program"
    ledger.write(checking.stamped(found, store), results)
    (entry,) = ledger.entries(results)
    assert checking.check(entry).state == "fresh"


def test_a_changed_constant_is_caught_where_it_counts(recorded):
    edit, results, store = recorded
    found = edit("jax.random.uniform(key) + 1", "jax.random.uniform(key) + 1.5")
    assert found.claims == {"C1": "stale", "C2": "same program"} and found.state == "stale"
    before = json.loads((results / "decays.json").read_text())["passes"]["quick"]["source"]
    ledger.write(checking.stamped(found, store), results)  # proves nothing of a stale pass
    assert json.loads((results / "decays.json").read_text())["passes"]["quick"]["source"] == before
    assert edit('"fast": Config(0.5)', '"fast": Config(0.4)').claims["C1"] == "stale"


def test_a_changed_constant_of_a_host_process_is_caught(recorded):
    found = recorded[0]("state[0].normal()", "state[0].normal() * 2")
    assert found.claims == {"C1": "same program", "C2": "stale"}


def test_a_changed_check_is_judged_again_from_what_the_store_has(recorded):
    edit, results, store = recorded
    found = edit('"> 0.1"', '"> 5"')
    assert found.changed == {"C1"} and found.claims["C1"] == "stale"
    ledger.write(checking.stamped(found, store), results)
    (entry,) = ledger.entries(results)
    verdicts = {row["claim"]: row["verdict"] for row in entry["claims"]}
    assert verdicts == {"C1": "contradicted", "C2": "holds"}
    assert checking.check(entry).state == "fresh"


def test_without_the_traces_a_changed_check_stays_stale(recorded, tmp_path):
    edit, results, _ = recorded
    found = edit('"> 0.1"', '"> 5"')
    ledger.write(checking.stamped(found, Store(tmp_path / "empty")), results)
    (entry,) = ledger.entries(results)
    assert checking.check(entry).claims["C1"] == "stale"


def test_another_version_of_jax_proves_nothing(recorded, monkeypatch):
    monkeypatch.setattr("latebloom.lab.checking.jax.__version__", "99.0")
    found = recorded[0]("study = Study(", "study  = Study(")
    assert found.state == "stale" and "99.0 here" in found.notes[0]


def test_a_trace_is_found_by_its_program_when_the_source_has_changed(
    recorded, tmp_path, monkeypatch
):
    edit, _, store = recorded
    edit("return state * (1 - self.rate)", "kept = 1 - self.rate\n        return state * kept")
    ran = []
    monkeypatch.setattr(
        units, "unfold", lambda process, **rest: (ran.append(process), unfold(process, **rest))[1]
    )
    again = run(find(str(tmp_path / "decays.py")), store=store)
    assert not ran
    whole = run(find(str(tmp_path / "decays.py")), store=Store(tmp_path / "other"))
    assert len(ran) == 3
    for arm in ("slow", "fast", "dice"):
        assert again.traces[arm].level.values.tobytes() == whole.traces[arm].level.values.tobytes()


def test_the_command_tells_what_is_to_be_made_again(recorded):
    edit, results, _ = recorded
    arguments = ["ledger", "--check", "--results", str(results)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "all proven" in done.stdout
    edit("Config(0.1)", "Config(0.2)")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "to be made again: C1" in done.stdout
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert rows[0]["claims"] == {"C1": "stale", "C2": "fresh"}


def test_the_first_observations_prove_nothing_of_the_later_ones(recorded):
    edit, results, store = recorded
    found = edit(
        "return state * (1 - self.rate)",
        "return jnp.where(state > 1e-3, state * (1 - self.rate), 0.5)",
    )
    assert found.arms["quick"]["fast"] == "same prefix" and found.state == "same prefix"
    ledger.write(checking.stamped(found, store), results)
    (entry,) = ledger.entries(results)
    assert checking.check(entry).state == "same prefix"  # not stamped


def test_a_shorter_run_is_not_the_same_prefix(recorded):
    found = recorded[0]("np.arange(0, 20, 2)", "np.arange(0, 20 if config.rate else 9, 2)")
    assert found.state == "same program"
    found = recorded[0]('kind: str = "jax"', 'kind: str = "jax"\n    more: int = 3')
    assert set(found.arms["quick"].values()) == {"same program"}


def test_a_study_that_cannot_be_built_is_unknown_and_no_crash(recorded):
    found = recorded[0]("def process(config):", "def process(config):\n    open('/no/such/file')")
    assert found.state == "unknown" and "no/such/file" in found.notes[0]


def test_a_host_process_is_told_by_what_it_holds_and_reaches(recorded):
    edit = recorded[0]
    assert (
        edit("return Decay(config.rate) if", "return Decay(config.rate * 1) if").state
        == "same program"
    )
    found = edit("state[1] + state[0].normal()", "state[1] + state[0].normal() * 1.0")
    assert found.claims["C2"] == "same prefix"  # another source; that it is the same nobody knows
