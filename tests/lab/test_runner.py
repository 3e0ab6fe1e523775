"""What a pass keeps, counts and refuses."""

import json

import pytest
from lines import Config, claim, make_study, study

from latebloom.lab import Budget, Claim, Figure, report
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.measures import Effect


@pytest.mark.parametrize(
    "changes", [{"seeds": 2}, {"arms": ["steep", "flat"]}, {"overrides": {"steps": "2"}}]
)
def test_a_changed_pass_leaves_that_of_the_budget_alone(tmp_path, changes):
    store = Store(tmp_path)
    kept = run(study, store=store).record()
    changed = run(study, store=store, **changes)
    assert changed.changed and store.read_record("lines", "pass-quick") == kept
    found = store.read_record("lines", "changed-quick")
    assert found is not None and found["changed"] and not kept["changed"]
    names = {"overrides": "settings"}
    values = {"seeds": [0, 1]}
    assert found["changes"] == {names.get(n, n): values.get(n, v) for n, v in changes.items()}
    assert report.latest(store, "lines") == found and report.latest(store, "lines", "quick") == kept


def test_runs_that_the_store_had_are_counted(tmp_path):
    twins = {"steep": Config(2.0), "flat": Config(0.0), "same": Config(0.0)}
    three = make_study(arms=twins, budgets={"quick": Budget(3, also=("same",))})
    store = Store(tmp_path)
    assert run(three, store=store).found == 0  # also where two arms are one
    assert run(three, store=store).found == 9
    assert run(three, arms=["flat"], store=store).found == 3
    assert run(three, overrides={"steps": "5"}, store=store).found == 0
    run(three, seeds=8, arms=["flat"], store=store)
    assert run(three, seeds=10, arms=["flat", "steep"], store=store).found == 8


def test_a_damaged_unit_is_not_found(tmp_path):
    store = Store(tmp_path)
    first = run(study, store=store)
    first.paths[0].write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"):
        assert run(study, store=store).found == 3


def test_a_budget_that_has_nothing_to_run_is_one_sentence(tmp_path):
    late = make_study(claim("> 5", budget="full"), budgets={"quick": Budget(3), "full": Budget(3)})
    with pytest.raises(
        ValueError, match="lines has nothing to run at the budget 'quick', .*at: full"
    ):
        run(late, store=Store(tmp_path))
    assert run(late, "full", store=Store(tmp_path)).verdicts[0].verdict == "holds"


def broken(traces):
    return [1, 2][5]


def test_what_cannot_be_computed_or_drawn_is_named(tmp_path):
    bad = make_study(Claim("C7", "it breaks", "", Effect(("flat",), "bad", broken), "> 1"))
    with pytest.raises(
        ValueError, match="lines, claim C7: its effect cannot be computed: IndexError: "
    ):
        run(bad, store=Store(tmp_path))
    done = run(
        make_study(figures=(Figure("heights", "", broken, ("flat",)),)), store=Store(tmp_path)
    )
    with pytest.raises(ValueError, match="lines, figure heights cannot be drawn: IndexError: list"):
        report.write_page(done, tmp_path)


def test_records_are_json_whatever_the_null(tmp_path):
    run(make_study(claim("> 5", null=float("nan"))), store=Store(tmp_path))
    text = (tmp_path / "lines" / "pass-quick.json").read_text()
    (row,) = json.loads(text, parse_constant=pytest.fail)["verdicts"]
    assert (row["verdict"], row["null"]["estimate"]) == ("undecided", None)
