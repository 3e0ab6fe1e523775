"""What the command line prints, also at eighty columns."""

import io

import pytest
from rich.console import Console

from latebloom.lab import terminal

ROW = {
    "claim": "C1", "text": "a claim of many words that has to be broken into several lines",
    "verdict": "no evidence", "estimate": 0.95123, "low": 0.9123, "high": 0.99123, "seeds": 5, "of": 6,
    "threshold": "> 0.9537", "stale": True, "added": "after results", "reason": "the null passes too",
    "null": {"text": "untrained", "estimate": -0.00123, "low": -0.123, "high": 0.123}, "budget": "quick",
}  # fmt: skip

SUMMARY = {
    "study": "lines", "title": "On Lines", "seeds": {"quick": 5}, "date": "2026-01-01", "stale": False, "unknown": False,
    "holds": 1, "contradicted": 0, "undecided": 0, "out of reach": 0, "no evidence": 0,
}  # fmt: skip


def printed(shown, width):
    file = io.StringIO()
    Console(file=file, width=width).print(shown)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_off(width):
    text = printed(terminal.verdicts([ROW, ROW | {"threshold": "< -12.5"}], "title"), width)
    assert "> 0.9537" in text and "< -12.5" in text
    assert all(number in text for number in ("0.951", "[0.912,", "0.991]", "-0.00123", "5 of 6"))
    assert (
        "added after" in text
        and "the null passes" in text
        and max(map(len, text.splitlines())) <= width
    )


@pytest.mark.parametrize("mark", ["a[b]c", "[/x]", "[bold]", "[link=x]", ":smile:"])
def test_texts_are_printed_as_they_are(mark):
    row = ROW | {"text": mark, "reason": mark, "budget": mark}
    shown = (
        terminal.verdicts([row, row | {"budget": "quick"}], mark),
        terminal.verdicts([], mark),
        terminal.claims({mark: [row]}, {mark: {"passes": {}}}),
        terminal.summaries([SUMMARY | {"study": mark, "seeds": {mark: 5, "quick": 6}}]),
        terminal.states([{"study": mark, "state": "fresh", "arms": {}, "claims": {mark: "stale"}, "changed": [], "notes": [mark]}]),
    )  # fmt: skip
    for each, count in zip(shown, (4, 1, 3, 2, 3), strict=True):
        assert printed(each, 120).count(mark) >= count, each


def test_an_empty_table_is_a_sentence():
    text = printed(terminal.verdicts([], "lines · quick"), 80)
    assert text.startswith("lines · quick\n") and "no claim was judged" in text
    for empty in (terminal.summaries([]), terminal.states([])):
        assert "the ledger has no record yet" in printed(empty, 80)


def test_one_seed_is_one_seed():
    made = {"seeds": [0], "date": "2026-01-01", "seconds": 1.0}
    text = printed(terminal.claims({"lines": [ROW]}, {"lines": {"passes": {"quick": made}}}), 120)
    assert "quick: 1 seed, 2026" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"seeds": [20, 21, 22]}, "seeds 20 to 22"),
        ({"seeds": [4]}, "seed 4"),
        ({"seeds": [0, 2, 9], "arms": ["steep", "flat"]}, "seeds 0, 2, 9; only steep, flat"),
        ({"settings": {"steps": "3", "tag": "a[b]"}}, "steps=3; tag=a[b]"),
    ],
)
def test_what_was_changed_is_told(changed, said):
    assert terminal.changes({"changed": bool(changed), "changes": changed}) == said
    assert terminal.changes({"changed": True}) == "seeds, arms or settings"


def test_one_line_tells_what_larger_budgets_add():
    assert terminal.larger_budgets([]) == ""
    said = terminal.larger_budgets([("thorough", 7, 90.0), ("full", 1, None)])
    assert said == (
        "--budget thorough judges 7 more claims, in about 1 min 30 s on this machine; "
        "--budget full judges 1 more claim"
    )


def test_what_is_not_proven_is_named():
    row = {"study": "lines", "state": "stale", "arms": {"quick": {"a": "fresh", "b": "stale"}},
           "claims": {"C1": "fresh", "C2": "stale", "C3": "unknown", "C4": "stale"}, "changed": ["C4"],
           "notes": ["its data is not here"]}  # fmt: skip
    text = printed(terminal.states([row]), 100)
    assert "lines, to be made again: C2\n" in text and "1 fresh, 1 stale" in text
    assert "lines, cannot be told: C3" in text and "their checks have changed: C4" in text
    assert "all proven" not in text
    assert "its data is not here" in text
