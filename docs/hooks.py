"""Puts each study's verdicts and figures, as the ledger has them, into its page."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "src" / "latebloom" / "results"
BAR = r"\|"  # inside a cell of a table


def _number(value):
    return "∞" if value is None else f"{value:.3g}"


def _table(entry, elsewhere):
    """The verdicts; claims that were not run are left out where another budget ran them."""
    lines = ["| claim | verdict | effect, mean over seeds [95 %] | holds if | the paper reports |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for v in entry["verdicts"]:
        if v["verdict"] == "not run" and (entry["budget"] != "quick" or v["claim"] in elsewhere):
            continue
        effect = "–"
        if v["estimate"] is not None:
            effect = (
                f"{_number(v['estimate'])} [{_number(v['low'])}, {_number(v['high'])}] {v['unit']}"
            )
        cells = (f"**{v['claim']}** {v['text']}", v["verdict"], effect, v["threshold"], v["paper"])
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    made = (f"{entry['budget']} budget, {len(entry['seeds'])} seeds, {entry['seconds']:.0f} s of work, "
            f"{entry['date'][:10]}. Data: {entry['data']}.")  # fmt: skip
    return "\n".join([*lines, "", f"*{made}*"])


def _figures(entry):
    return "\n\n".join(
        f"![{f['caption']}](../figures/{f['file']})\n\n*{f['caption']}*" for f in entry["figures"]
    )


def _quick_first(path):
    return len(path.stem), path.stem


def _ledger():
    lines = [
        "| study | holds | contradicted | undecided | not run | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        entry = json.loads(path.read_text())
        counts = [sum(v["verdict"] == o for v in entry["verdicts"])
                  for o in ("holds", "contradicted", "undecided", "not run")]  # fmt: skip
        cells = " | ".join(map(str, [*counts, len(entry["seeds"])]))
        budget = "" if entry["budget"] == "quick" else f", {entry['budget']}"
        lines.append(f"| [{entry['title']}]({entry['study']}.md){budget} | {cells} |")
    return "\n".join(lines)


def _applications():
    from latebloom.lab.registry import application_of, applied_slugs

    found = {slug: application_of(slug) for slug in applied_slugs()}
    return "\n".join(
        f"| {a.files} | {a.about} | `latebloom apply {slug} FILE... --out DIR` "
        f"([page](studies/{slug}.md)) |"
        for slug, a in found.items()
    )


def on_page_markdown(markdown, page, config, files):
    slug = Path(page.file.src_path).stem
    entries = [e for path in sorted(RESULTS.glob(f"{slug}*.json"), key=_quick_first)
               if (e := json.loads(path.read_text()))["study"] == slug]  # fmt: skip
    ran = {v["claim"] for e in entries for v in e["verdicts"] if v["verdict"] != "not run"}
    shown = "\n\n".join(f"{_table(e, ran)}\n\n{_figures(e)}" for e in entries)
    markdown = markdown.replace("<!-- verdicts -->", shown)
    markdown = markdown.replace("<!-- applications -->", _applications())
    return markdown.replace("<!-- ledger -->", _ledger())


def on_files(files, config):
    from mkdocs.structure.files import File

    for path in sorted(RESULTS.glob("*/*.png")):
        name = f"figures/{path.parent.name}/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
