"""The ledger: one record a study, put together from passes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from lines import OWN, Config, claim, draw, height, lead, make_study, study

from latebloom.lab import Budget, Claim, Figure, ledger, runner
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store

C1, C2, C3 = (
    claim("> 5"),
    Claim("C2", "steep rises", "by 8", height["steep"], "> 5", budget="thorough", null=height["flat"]),
    Claim("C3", "flat stays", "0", height["flat"], "< 9", budget="full"),
)  # fmt: skip
BUDGETS = {"quick": Budget(3), "thorough": Budget(4, settings={"steps": 6}), "full": Budget(2)}


def larger(*claims, **changes):
    return make_study(*(claims or (C1, C2, C3)), **{"budgets": BUDGETS} | changes)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Runs a study at a budget into a ledger, as the study that the package knows."""

    monkeypatch.setattr(runner, "file_of", lambda study: None)

    def record(whole, budget="quick"):
        monkeypatch.setattr(ledger, "known", {"lines": whole}.get)
        done = run(whole, budget, store=Store(tmp_path / "store"))
        return json.loads(ledger.record(done, tmp_path / "results").read_text())

    return record


def judged_by(entry):
    return {row["claim"]: row["budget"] for row in entry["claims"]}


def test_a_pass_is_kept_with_all_that_it_stands_on(tmp_path, recorded):
    earlier = tmp_path / "results" / "lines" / "drawn-no-more.png"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    entry = recorded(study)
    assert not earlier.exists()
    assert (tmp_path / "results" / "lines" / "lines.png").read_bytes()[:4] == b"\x89PNG"
    made = entry["passes"]["quick"]
    assert made["seeds"] == [0, 1, 2] and set(made["arms"]) == {"steep", "flat"}
    assert made["arms"]["steep"]["config"] == {"slope": 2.0, "steps": 4, "tag": None}
    assert {"program", "prefix"} < set(made["arms"]["steep"])
    (row,) = entry["claims"]
    assert (row["verdict"], row["estimate"], row["effects"], row["of"]) == (
        "holds",
        8,
        [8, 8, 8],
        3,
    )
    assert row["budget"] == "quick" and row["arms"] == ["steep", "flat"]
    assert entry["figures"] == [
        {"file": "lines/lines.png", "caption": "Heights.", "budget": "quick"}
    ]
    assert ledger.entries(tmp_path / "results") == [entry]
    (shown,) = ledger.rows(entry)
    wanted = {"study", "claim", "verdict", "estimate", "low", "high", "threshold", "seeds", "budget", "stale"}  # fmt: skip
    assert wanted <= set(shown) and shown["stale"] is False


@pytest.mark.parametrize(
    "changed",
    [
        make_study(claim("> 7")),
        make_study(claim("> 5", lead + 1)),
        make_study(claim("> 5", null=0.0)),
        make_study(arms={"steep": Config(3.0), "flat": Config(0.0)}),
        make_study(budgets={"quick": Budget(3, settings={"steps": 5})}),
        make_study(Claim("C9", "other", "", height["flat"], "> 1")),
        make_study(schedule=lambda config: [0, 1]),
    ],
)
def test_a_claim_is_stale_where_its_check_settings_or_sources_changed(
    recorded, monkeypatch, changed
):
    entry = recorded(study)
    monkeypatch.setattr(ledger, "known", {"lines": changed}.get)
    assert ledger.stale_claims(entry) == {"C1"}
    assert ledger.rows(entry)[0]["stale"] and ledger.summary(entry)["stale"]


def test_infinite_settings_are_kept_as_json_and_are_not_stale(tmp_path, recorded):
    endless = make_study(arms={"steep": Config(np.inf), "flat": Config(0.0)}, figures=())
    with np.errstate(invalid="ignore"):
        entry = recorded(endless)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    kept = json.loads((tmp_path / "results" / "lines.json").read_text(), parse_constant=refuse)
    assert kept["passes"]["quick"]["arms"]["steep"]["config"]["slope"] == "inf"
    (found,) = ledger.entries(tmp_path / "results")
    assert ledger.stale_claims(found) == set() and ledger.write(found, tmp_path).exists()
    assert json.loads((tmp_path / "lines.json").read_text()) == kept == entry
    store = Store(tmp_path / "store")
    passed = (store.folder / "lines" / "pass-quick.json").read_text()
    assert json.loads(passed, parse_constant=refuse)["verdicts"][0]["effects"] == [None] * 3
    assert ledger.stale_claims(ledger.as_entry(json.loads(passed))) == set()


def test_the_records_of_the_package_are_json():
    from latebloom.cli import RESULTS

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for path in RESULTS.glob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_a_claim_is_not_stale_for_what_others_changed(recorded, monkeypatch):
    entry = recorded(larger(), "thorough")
    arms = {"steep": Config(2.0), "flat": Config(1.0)}
    budgets = BUDGETS | {"thorough": Budget(9, settings={"steps": 6})}
    monkeypatch.setattr(ledger, "known", {"lines": larger(arms=arms, budgets=budgets)}.get)
    assert ledger.stale_claims(entry) == {"C1", "C2"}  # the null of C2 reads flat
    monkeypatch.setattr(ledger, "known", {"lines": larger(claim("> 6"))}.get)
    assert ledger.stale_claims(entry) == {"C1", "C2"}
    monkeypatch.setattr(ledger, "known", {"lines": larger(C1, C3)}.get)
    assert ledger.stale_claims(entry) == {"C2"}


def test_passes_make_one_record_in_which_the_later_counts(tmp_path, recorded):
    assert judged_by(recorded(larger())) == {"C1": "quick"}
    entry = recorded(larger(), "thorough")
    assert judged_by(entry) == {"C1": "thorough", "C2": "thorough"}
    assert list(entry["passes"]) == ["thorough"]  # no claim refers to the other
    entry = recorded(larger())
    assert judged_by(entry) == {"C1": "quick", "C2": "thorough"}
    assert {b: len(p["seeds"]) for b, p in entry["passes"].items()} == {"quick": 3, "thorough": 4}
    assert [row["of"] for row in entry["claims"]] == [3, 4]
    assert [p.name for p in (tmp_path / "results").iterdir() if p.is_file()] == ["lines.json"]
    summary = ledger.summary(entry)
    assert (summary["holds"], summary["no evidence"], summary["seeds"]) == (
        2,
        0,
        {"quick": 3, "thorough": 4},
    )


@pytest.mark.parametrize(
    ("now", "left"),
    [
        ((C1, C2), ["C1", "C2"]),
        ((C1,), ["C1"]),
        ((C1, Claim("C2", "steep rises", "by 8", height["steep"], "> 6", budget="thorough", null=height["flat"])), ["C1"]),
        ((C1, Claim("C2", "steep soars", "by 8", height["steep"], "> 5", budget="thorough", null=height["flat"])), ["C1"]),
        ((C1, Claim("C2", "steep rises", "by 8", height["steep"], "> 5", budget="thorough")), ["C1"]),
    ],
    ids=["same", "gone", "threshold", "text", "arms"],
)  # fmt: skip
def test_earlier_verdicts_stay_while_their_claim_does(recorded, now, left):
    recorded(larger(), "thorough")
    assert list(judged_by(recorded(larger(*now)))) == left


def test_figures_stay_while_the_study_has_them(tmp_path, recorded):
    both = tuple(Figure(name, "Heights.", draw, ("steep", "flat")) for name in ("one", "two"))
    recorded(larger(figures=both), "thorough")
    third = Figure("three", "Heights.", draw, ("steep",))
    entry = recorded(larger(figures=(both[0], third)))
    assert [f["file"] for f in entry["figures"]] == ["lines/one.png", "lines/three.png"]
    assert {p.name for p in (tmp_path / "results" / "lines").iterdir()} == {"one.png", "three.png"}
    assert [f["budget"] for f in entry["figures"]] == ["thorough", "quick"]
    assert recorded(larger(figures=both), "thorough")["figures"][0]["budget"] == "thorough"
    for of in (None, "tables"):  # a record of earlier times, or of a budget that is no more
        for figure in entry["figures"]:
            figure.pop("budget", None) if of is None else figure.update(budget=of)
        ledger.write(entry, tmp_path / "results")
        again = recorded(larger(figures=both))["figures"]
        assert [f["budget"] for f in again] == ["quick", "quick"]


def test_some_arms_are_added_to_what_is_recorded(tmp_path, recorded, monkeypatch):
    store, results = Store(tmp_path / "store"), tmp_path / "results"
    third = Claim("C4", "middle rises", "by 4", height["middle"], "> 3", budget="thorough")
    both = (
        Figure("lines", "Heights.", draw, ("steep",)),
        Figure("new", "Heights.", draw, ("steep",)),
    )
    arms = {"steep": Config(2.0), "flat": Config(0.0), "middle": Config(1.0)}
    before = recorded(larger(), "thorough")
    picture = (results / "lines" / "lines.png").read_bytes()
    whole = larger(C1, C2, C3, third, arms=arms, figures=both)
    monkeypatch.setattr(ledger, "known", {"lines": whole}.get)
    path = ledger.record(run(whole, "thorough", arms=["middle", "steep"], store=store), results)
    entry = json.loads(path.read_text())
    assert judged_by(entry) == dict.fromkeys(("C1", "C2", "C4"), "thorough")
    assert entry["claims"][:2] == before["claims"] and ledger.stale_claims(entry) == set()
    (made,), (earlier,) = entry["passes"].values(), before["passes"].values()
    assert set(made["arms"]) == set(arms) and made["changed"] is False
    assert made["seconds"] >= earlier["seconds"] and made["versions"] == earlier["versions"]
    assert (results / "lines" / "lines.png").read_bytes() == picture
    assert [Path(f["file"]).stem for f in entry["figures"]] == ["lines", "new"]
    # what an arm that is run again comes to counts, and the claims on it alone are judged anew
    entry["claims"][2]["estimate"] = 99
    ledger.write(entry, results)
    ledger.record(run(whole, "thorough", arms=["middle"], store=store), results)
    assert json.loads(path.read_text())["claims"][2]["estimate"] == 7.5


def test_arms_are_not_added_to_what_is_not_recorded_or_no_longer_so(
    tmp_path, recorded, monkeypatch
):
    store, results = Store(tmp_path / "store"), tmp_path / "results"
    done = run(larger(), "thorough", arms=["steep"], store=store)
    with pytest.raises(ValueError, match="of lines none is at the budget thorough"):
        ledger.record(done, results)
    with pytest.raises(ValueError, match="of lines none is at the budget full"):
        ledger.check_recordable(larger(), "full", {"arms": ["steep"]}, results)
    entry = recorded(larger(), "thorough")
    entry["passes"]["thorough"]["source"] = "of yesterday"
    ledger.write(entry, results)
    with pytest.raises(ValueError, match="latebloom ledger --check --stamp lines"):
        ledger.record(done, results)
    entry["passes"]["thorough"]["seeds"] = [0, 1]
    ledger.write(entry, results)
    with pytest.raises(ValueError, match="with its seeds: leave out --arms"):
        ledger.record(done, results)


def test_a_changed_pass_does_not_enter_the_ledger(tmp_path):
    done = run(study, seeds=2, store=Store(tmp_path))
    with pytest.raises(ValueError, match="only a budget as it stands"):
        ledger.record(done, tmp_path)
    with pytest.raises(ValueError, match="only a budget as it stands"):
        ledger.check_recordable(study, "quick", {"settings": {"steps": "2"}}, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"lines"'])
def test_a_damaged_ledger_file_is_named(tmp_path, text):
    (tmp_path / "lines.json").write_text(text)
    with pytest.raises(ValueError, match=r"lines.json is no record of a study"):
        ledger.entries(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/results cannot be made: Not a directory"):
        ledger.check_writable(tmp_path / "file" / "results")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(
        ValueError, match=r"cannot be written to; give another folder with --results"
    ):
        ledger.check_writable(tmp_path)


def test_what_larger_budgets_would_add_with_the_time_it_takes_here(tmp_path, recorded):
    recorded(larger(), "thorough")
    recorded(larger())
    path = tmp_path / "results" / "lines.json"
    entry = json.loads(path.read_text())
    entry["passes"]["quick"]["seconds"], entry["passes"]["thorough"]["seconds"] = 10.0, 70.0
    path.write_text(json.dumps(entry))
    store = Store(tmp_path / "store")
    done = run(larger(), store=store)
    thorough, full = ledger.beyond(done, tmp_path / "results")
    assert thorough[:2] == ("thorough", 1) and full == ("full", 1, None)
    assert thorough[2] == pytest.approx(7 * done.seconds)
    assert ledger.beyond(run(larger(), "thorough", store=store), tmp_path / "nowhere") == [
        ("full", 1, None)
    ]
    assert ledger.beyond(run(larger(), "full", store=store), tmp_path / "results") == []
    changed = run(larger(), seeds=2, store=store)
    assert ledger.beyond(changed, tmp_path / "results")[0] == ("thorough", 1, None)


def test_a_study_in_a_file_of_its_own_is_not_stale_until_it_changes(tmp_path):
    path, store = tmp_path / "own_lines.py", Store(tmp_path / "store")
    text = OWN
    path.write_text(text)
    done = run(find(str(path)), store=store)
    entry = json.loads(ledger.record(done, tmp_path / "results").read_text())
    assert entry["file"] == str(path) and ledger.stale_claims(entry) == set()
    path.write_text(text.replace("config.slope)", "config.slope + 1)"))
    assert ledger.stale_claims(entry) == {"C1"}
    path.write_text("no Python")
    assert ledger.stale_claims(entry) == set()
    path.unlink()
    assert ledger.stale_claims(entry) == set() and ledger.rows(entry)[0]["stale"] is False
    assert (
        ledger.summary(entry)["unknown"] and not ledger.summary(entry | {"file": None})["unknown"]
    )
    assert ledger.stale_claims(entry | {"file": None}) == {"C1"}  # the package knows no such study


def test_a_script_is_not_run_again_to_see_whether_it_changed(tmp_path):
    path = tmp_path / "script.py"
    text = OWN
    path.write_text(text + textwrap.dedent("""
        from pathlib import Path
        from latebloom.lab import ledger
        from latebloom.lab.runner import run
        from latebloom.lab.store import Store
        import sys
        folder = Path(sys.argv[1])
        ledger.record(run(study, store=Store(folder / "store")), folder / "results")
    """))  # fmt: skip
    subprocess.run([sys.executable, path, tmp_path], check=True)
    (entry,) = ledger.entries(tmp_path / "results")
    assert entry["file"] == "" and ledger.stale_claims(entry) == set()
