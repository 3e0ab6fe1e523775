"""Numbers in the pages come from the ledger, or the build ends."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(claim, **changes):
    return {
        "claim": claim, "text": "it | rises", "paper": "yes", "verdict": "holds", "reason": "",
        "estimate": 0.9991, "low": 0.9981, "high": 1.0, "threshold": "> 0.9", "unit": "share",
        "seeds": 8, "of": 8, "null": None, "added": "", "budget": "quick",
    } | changes  # fmt: skip


NULL = {"text": "untrained", "estimate": 0.03, "low": 0.02, "high": 0.04}
MADE = {"seeds": [0, 1], "seconds": 12.3, "date": "2026-01-02T03:04:05+00:00"}
ENTRY = {
    "study": "lines", "title": "On Lines", "data": "none", "figures": [],
    "passes": {"quick": MADE, "thorough": MADE},
    "claims": [
        row("C4.perp", null=NULL),
        row("C4.perp.plain", verdict="out of reach", reason="too short", budget="thorough"),
        row("C1.16-32", seeds=7, estimate=-2.0, low=None, high=None, added="after results"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ C4.perp }}", "0.999 [0.998, 1]"),
        ("{{C4.perp.estimate}}", "0.999"),
        ("{{ C4.perp.verdict }}", "holds"),
        ("{{ C4.perp.null }}", "0.03 [0.02, 0.04]"),
        ("{{ C4.perp.plain.verdict }} of {{ C1.16-32.seeds }}", "out of reach of 7 of 8 seeds"),
        ("{{ C1.16-32 }}", "-2 [-∞, ∞]"),
        ("`{{ C9 }}` and\n```\nf'{{ x }}'\n```\n{{ C4.perp.seeds }}", "`{{ C9 }}` and\n```\nf'{{ x }}'\n```\n8 seeds"),
        ("no numbers { C9 }", "no numbers { C9 }"),
    ],
)  # fmt: skip
def test_numbers_in_the_text_are_those_of_the_ledger(hooks, text, said):
    assert hooks.filled(text, ENTRY, "lines.md") == said


def test_a_page_may_quote_other_studies(hooks):
    text = "{{ lines:C4.perp.verdict }}, {{ lines:C4.perp.estimate }}"
    assert hooks.filled(text, None, "overview.md", {"lines": ENTRY}) == "holds, 0.999"
    for name in ("rows:C4.perp", "lines:C9", ":C4.perp"):
        with pytest.raises(PluginError, match=rf"overview.md: .*{name}"):
            hooks.filled(f"{{{{ {name} }}}}", None, "overview.md", {"lines": ENTRY})


@pytest.mark.parametrize("name", ["C9", "C4.perp.mean", "C4", "C4.perp.plain.null", "estimate"])
def test_an_unknown_claim_or_field_ends_the_build(hooks, name):
    with pytest.raises(
        PluginError, match=rf"studies/lines.md: the ledger has nothing for .*{name}"
    ):
        hooks.filled(f"It is {{{{ {name} }}}}.", ENTRY, "studies/lines.md")
    with pytest.raises(PluginError, match="lines.md"):
        hooks.filled("{{ C4.perp }}", None, "lines.md")


def test_the_table_has_each_claim_once_with_its_budget(hooks):
    lines = hooks._table(ENTRY).splitlines()
    assert lines[2] == (r"| **C4.perp** it \| rises | holds | 0.999 [0.998, 1] share; "
                        "null: 0.03 [0.02, 0.04] | > 0.9 | yes | quick |")  # fmt: skip
    assert "out of reach: too short" in lines[3] and lines[3].endswith("| thorough |")
    assert "(added after results)" in lines[4] and "share, 7 of 8 seeds" in lines[4]
    assert lines[6].startswith("*quick: 2 seeds, 12 s of work, 2026-01-02; thorough: 2 seeds")


def test_the_ledger_is_one_row_a_study(hooks):
    head, _, line = hooks._ledger({"lines": ENTRY}).splitlines()
    assert (
        head == "| study | holds | contradicted | undecided | out of reach | no evidence | seeds |"
    )
    assert line == "| [On Lines](lines.md) | 2 | – | – | 1 | – | quick 2, thorough 2 |"
