"""Puts each study's verdicts, numbers and figures, as the ledger has them, into its page.

In the text of a study's page `{{ C4.perp }}` stands for the effect of that claim with its interval,
`{{ C4.perp.estimate }}`, `.verdict`, `.seeds` and `.null` for one thing about it. In any page
`{{ some-study:C4.perp }}` is that of another study.
"""

import re
from pathlib import Path

from mkdocs.exceptions import PluginError

from latebloom.lab.ledger import entries, tallies
from latebloom.lab.report import null_of, number, seeds, spread

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "src" / "latebloom" / "results"
BAR = r"\|"  # inside a cell of a table
FIELDS = {
    "estimate": lambda row: number(row["estimate"]),
    "verdict": lambda row: row["verdict"],
    "seeds": seeds,
    "null": null_of,
}


def _table(entry):
    lines = ["| claim | verdict | effect, mean over seeds [95 %] | holds if | the paper reports | budget |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in entry["claims"]:
        about = f"**{row['claim']}** {row['text']}" + (
            f" (added {row['added']})" if row["added"] else ""
        )
        verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
        effect = f"{spread(row)} {row['unit']}"
        if row["seeds"] < row["of"]:
            effect += f", {seeds(row)}"
        if row["null"]:
            effect += f"; null: {null_of(row)}"
        cells = (about, verdict, effect, row["threshold"], row["paper"], row["budget"])
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    made = [f"{budget}: {len(m['seeds'])} seeds, {m['seconds']:.0f} s of work, {m['date'][:10]}"
            for budget, m in entry["passes"].items()]  # fmt: skip
    return "\n".join([*lines, "", f"*{'; '.join(made)}. Data: {entry['data']}.*"])


def _figures(entry):
    return "\n\n".join(
        f"![{f['caption']}](../figures/{f['file']})\n\n*{f['caption']}*" for f in entry["figures"]
    )


def _ledger(found):
    lines = []
    for entry in found.values():
        counts = tallies(entry["claims"])
        if not lines:
            lines = [
                f"| study | {' | '.join(counts)} | seeds |",
                "| --- " * (len(counts) + 2) + "|",
            ]
        made = ", ".join(f"{b} {len(m['seeds'])}" for b, m in entry["passes"].items())
        cells = " | ".join(str(count or "–") for count in counts.values())
        lines.append(f"| [{entry['title']}]({entry['study']}.md) | {cells} | {made} |")
    return "\n".join(lines)


def _applications():
    from latebloom.lab.index import slugs
    from latebloom.lab.registry import application_of, applied_slugs

    pages = {
        slug: f"studies/{slug}.md" if slug in slugs() else f"{slug}.md" for slug in applied_slugs()
    }
    found = {slug: application_of(slug) for slug in applied_slugs()}
    return "\n".join(
        f"| {a.files} | {a.about} | `latebloom apply {slug} FILE... --out DIR` "
        f"([page]({pages[slug]})) |"
        for slug, a in found.items()
    )


def filled(markdown, entry, page, others=None):
    """The text with its numbers from a study's record; what stands in code is left alone.

    Raises `PluginError`, which ends the build, for a claim or field that the record lacks.
    """
    ledger = {"": entry, **(others or {})}

    def value(match):
        if match["code"]:
            return match["code"]
        study, _, whole = match["name"].rpartition(":")
        found = ledger.get(study)
        claims = {row["claim"]: row for row in found["claims"]} if found else {}
        name, _, field = whole.rpartition(".")
        if whole in claims:
            return spread(claims[whole])
        said = FIELDS[field](claims[name]) if name in claims and field in FIELDS else ""
        if not said:
            raise PluginError(f"{page}: the ledger has nothing for {{{{ {match['name']} }}}}")
        return said

    return re.sub(
        r"(?P<code>```.*?```|`[^`\n]*`)|\{\{ *(?P<name>[^{}]+?) *\}\}",
        value,
        markdown,
        flags=re.DOTALL,
    )


def on_config(config):
    config["ledger"] = {entry["study"]: entry for entry in entries(RESULTS)}
    return config


def on_page_markdown(markdown, page, config, files):
    entry = config["ledger"].get(Path(page.file.src_path).stem)
    markdown = filled(markdown, entry, page.file.src_path, config["ledger"])
    shown = f"{_table(entry)}\n\n{_figures(entry)}" if entry else ""
    markdown = markdown.replace("<!-- verdicts -->", shown)
    markdown = markdown.replace("<!-- applications -->", _applications())
    return markdown.replace("<!-- ledger -->", _ledger(config["ledger"]))


def on_files(files, config):
    from mkdocs.structure.files import File

    for path in sorted(RESULTS.glob("*/*.png")):
        name = f"figures/{path.parent.name}/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
