"""The HTML report, on a study small enough to check by hand."""

import re
from dataclasses import dataclass

import pytest
from lines import OWN, Config, claim, height, lead, make_study

from latebloom.lab import Budget, Claim, Need, report, style
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store

CLAIMS = (
    claim("> 5", null=height["flat"]),
    Claim("C2", "flat rises", "–", height["flat"], "> 3", added="after results"),
    Claim("C3", "steep rises", "–", height["steep"], "> 5", null=7.0),
    Claim("C4", "steep soars", "–", height["steep"], "> 90",
          needs=(Need(height["flat"], "> 9", "the slope is low"),)),
    Claim("C5", "flat is high", "–", lead, "> 8", budget="full"),
)  # fmt: skip
OUTCOMES = {"C1": "holds", "C2": "undecided", "C3": "no evidence", "C4": "out of reach"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    study = make_study(*CLAIMS, budgets={"quick": Budget(3), "full": Budget(9)})
    folder = store.folder / "reports"
    page = report.write_page(run(study, store=store), folder, "--budget full judges 1 more")
    return page.read_text(), report.write_index(store, folder).read_text(), store


def rows_of(page):
    return dict(re.findall(r'<tr data-claim="(\w+)">(.*?)</tr>', page, re.DOTALL))


def test_the_report_is_self_contained(pages):
    page = pages[0]
    assert "On Lines" in page and "<svg" in page
    assert "<script" not in page and "<link" not in page and "src=" not in page
    assert "currentColor" in page and style.INK not in page


def test_the_report_shows_each_claim_of_its_budget(pages):
    rows = rows_of(pages[0])
    assert list(rows) == list(OUTCOMES)
    for name, outcome in OUTCOMES.items():
        assert f'verdict {outcome.replace(" ", "-")}">{outcome}</span>' in rows[name]
    assert '<span class="estimate">8</span> [8, 8]' in rows["C1"] and "m, 3 seeds" in rows["C1"]
    assert "null: 1 [-1.48, 3.48]" in rows["C1"] and 'title="final height of flat"' in rows["C1"]
    assert "null: 7</span>" in rows["C3"] and "null" not in rows["C2"]
    assert "the null passes too" in rows["C3"] and "the slope is low" in rows["C4"]
    assert "(added after results)" in rows["C2"]
    assert "--budget full judges 1 more" in pages[0]
    assert "not run" not in pages[0]


def test_the_index_counts_outcomes(pages):
    index = pages[1]
    assert 'href="lines.html"' in index and "1 holds" in index and "1 no evidence" in index
    assert "contradicted</span>" not in index


def test_a_null_is_a_hollow_mark_in_the_picture_of_the_interval():
    found = {
        "estimate": 3.0, "low": 2.0, "high": 4.0, "threshold": "> 1.0", "verdict": "out of reach",
        "effects": [2.5, 3.5, None], "null": {"estimate": 0.0},
    }  # fmt: skip
    picture = str(report.interval(found))
    # From 0 to 4 with 12 % to either side, over 140 dots from the fourth on.
    x = [round(4 + (v + 0.48) * 140 / 4.96, 1) for v in (0, 1, 3)]
    assert f"L{x[0]} 7" in picture and f'x1="{x[1]}"' in picture and f'cx="{x[2]}"' in picture
    assert 'class="interval out-of-reach"' in picture and "null 0" in picture
    assert picture.count("<circle") == 3
    assert report.interval(found | {"low": None}) == ""
    assert "null" not in str(report.interval(found | {"null": None}))


@pytest.mark.parametrize(
    "value, text",
    [(0.1234, "0.123"), (0, "0"), (12345.6, "12,346"), (1e-9, "1.00e-09"), (None, "∞")],
)
def test_numbers_are_written_for_people(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize(
    "said, asked, text",
    [(8, 8, "8 seeds"), (7, 8, "7 of 8 seeds"), (1, 1, "1 seed"), (0, 2, "0 of 2 seeds")],
)
def test_seeds_that_cannot_say_are_told(said, asked, text):
    assert report.seeds({"seeds": said, "of": asked}) == text


def test_a_null_that_cannot_say_is_a_dash():
    silent = {"text": "", "estimate": None, "low": None, "high": None}
    assert (
        report.null_of({"null": silent}) == report.null_of({"null": silent | {"text": "x"}}) == "–"
    )
    assert report.null_of({"null": silent | {"estimate": 0.5}}) == "0.5"
    assert report.null_of({"null": None}) == ""


def test_an_interval_without_an_end_is_written_so():
    whole = {"estimate": 2.0, "low": None, "high": None}
    assert report.spread(whole) == "2 [-∞, ∞]" and report.spread({"estimate": None}) == "–"


def test_a_study_in_a_file_of_its_own_is_in_the_index_and_not_stale(tmp_path):
    path, store = tmp_path / "shown_lines.py", Store(tmp_path / "store")
    path.write_text(OWN)
    done = run(find(str(path)), store=store)
    page = report.write_page(done, tmp_path / "reports").read_text()
    assert f"latebloom run {path}" in page
    index = report.write_index(store, tmp_path / "reports").read_text()
    assert 'href="lines.html"' in index and "badge stale" not in index
    path.unlink()
    index = report.write_index(store, tmp_path / "reports").read_text()
    assert 'href="lines.html"' in index and "badge stale" not in index


@dataclass(frozen=True)
class Bent:
    slope: float = 1.0
    bend: float = 0.5
    steps: int = 4


def test_arms_may_have_configs_of_several_classes(tmp_path):
    arms = {"steep": Config(2.0), "flat": Config(0.0), "bent": Bent(2.0)}
    study = make_study(arms=arms, budgets={"quick": Budget(2, also=("bent",))})
    page = report.write_page(run(study, store=Store(tmp_path)), tmp_path).read_text()
    own = dict(re.findall(r"<tr><td><code>(\w+)</code></td><td><code>(.*?)</code>", page))
    assert own == {"steep": "–", "flat": "slope=0.0", "bent": "–"}
    assert "bend = 0.5" in page and "tag = None" in page


def test_the_page_of_a_changed_pass_says_what_was_changed_and_that_nothing_was_judged(tmp_path):
    done = run(
        make_study(), seeds=1, arms=["flat"], overrides={"steps": "3"}, store=Store(tmp_path)
    )
    page = report.write_page(done, tmp_path).read_text()
    assert "changed: seed 0; only flat; steps=3" in page and "1 seed (0)" in page
    assert "No claim was judged" in page and "arms that were not run: C1" in page


def test_the_newest_record_counts(tmp_path):
    store = Store(tmp_path)
    for budget, date in (("quick", "2026-01-02"), ("full", "2026-01-01"), ("old", "2026-02-01")):
        made = {"date": date, "budget": budget} | ({} if budget == "old" else {"arms": {}})
        store.write_record("lines", f"pass-{budget}", made)
    assert report.latest(store, "lines")["budget"] == "quick"
    assert report.latest(store, "lines", "full")["budget"] == "full"
    assert report.latest(store, "circles") is None
    changed = {"date": "2026-01-03", "budget": "quick", "arms": {}, "changed": True}
    store.write_record("lines", "changed-quick", changed)
    assert report.latest(store, "lines") == changed
    assert report.latest(store, "lines", "quick")["date"] == "2026-01-02"
    store.write_record("lines", "changed-thorough", changed)
    assert report.latest(store, "lines", "thorough") == changed
