"""What the command line prints: studies, verdicts, the ledger, and what became of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from latebloom.lab.naming import counted

if TYPE_CHECKING:
    from latebloom.lab.study import Study

STYLES = {"holds": "green", "contradicted": "dark_orange", "undecided": "yellow",
          "out of reach": "blue", "no evidence": "magenta"}  # fmt: skip

EMPTY = "the ledger has no record yet; latebloom run STUDY --record --results FOLDER makes one"

Row = Mapping[str, Any]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def studies(rows: Sequence[Row]) -> Table:
    """One row a study."""
    table = _table("study", "family", "title", "arXiv")
    for r in rows:
        table.add_row(Text(r["slug"], style="bold"), r["family"], r["title"], r["arxiv"])
    return table


def fitting(found: Sequence[Any], more: int) -> RenderableType:
    """Studies that were searched for, with their questions and symptoms."""
    if not found:
        return "nothing here fits; `latebloom list` shows all studies"
    lines: list[RenderableType] = []
    for f in found:
        mark = "" if f.built else f" (not built yet, arXiv {f.entry.arxiv})"
        slug = (f.entry.slug, "bold" if f.built else "default")
        lines.append(Text.assemble(slug, (mark, "dim"), f"  {f.entry.question}"))
        symptoms = Text("; ".join(f.entry.symptoms), style="dim")
        lines.append(Padding(symptoms, (0, 0, 0, 4), expand=False))
    if more:
        lines.append(Text(f"{more} more that fit less well: --all shows them", style="dim"))
    return Group(*lines)


def named(name: str, text: str) -> Text:
    return Text.assemble((f"{name}: ", "dim"), text)


def application(slug: str, how: Row) -> list[RenderableType]:
    """How something is run on one's own files."""
    options = " ".join(f"{name}={value}" for name, value in how["options"].items())
    return [
        named("on your own files", f"latebloom apply {slug} FILE... --out DIR"),
        Text(f"    {how['about']}\n    {how['files']}"),
        named("    options", f"{options}\n"),
    ]


def study(of: Study, row: Row) -> Group:
    """A study's question, budgets, arms and claims, and how it is run on one's own files."""
    about = [(f"{of.paper.title}\n", "bold"), (f"{of.paper.citation()}\n", "dim")]
    lines: list[RenderableType] = [
        Text.assemble(*about, f"\n{of.question}\n"),
        named("for someone who sees", "; ".join(of.symptoms)),
        named("data", of.data),
    ]
    for name, budget in row["budgets"].items():
        sizes = (budget["seeds"], "seed"), (len(budget["arms"]), "arm"), (budget["claims"], "claim")
        lines.append(named(f"budget {name}", ", ".join(counted(*size) for size in sizes)))
    lines.append(named("arms", f"{', '.join(of.arms)}\n"))
    if how := row["apply"]:
        lines += application(of.slug, how)
    table = _table("claim", "", "holds if", "budget", "the paper reports")
    for c in of.claims:
        table.add_row(Text(c.id, style="bold"), c.text, f"{c.holds} {c.unit}", c.budget, c.paper)
    return Group(*lines, table if of.claims else "it makes no claims")


def data_sets(rows: Sequence[Row]) -> Table:
    """The data sets, and where each is or how it is had."""
    table = _table("name", "what it is", "licence", "where")
    for r in rows:
        missing = Text(f"latebloom data fetch {r['name']}", style="dim")
        where = r["where"].replace(str(Path.home()), "~")
        table.add_row(Text(r["name"], style="bold"), r["about"], r["licence"], where or missing)
    return table


def verdicts(rows: Sequence[Row], title: str) -> RenderableType:
    """Claims with their verdicts, effects, nulls and thresholds."""
    from latebloom.lab.report import null_of, seeds, spread

    if not rows:
        none = "no claim was judged: none reads only arms that were run"
        return Text.assemble((title, "bold"), "\n", none)
    table = Table(
        title=Text(title), title_justify="left", box=None, pad_edge=False, title_style="bold"
    )
    table.add_column("claim", overflow="fold", ratio=1, min_width=24)
    table.add_column("verdict", min_width=12)
    table.add_column("effect [95 %]", min_width=16)
    widest = max((len(r["threshold"]) for r in rows), default=0)
    table.add_column("holds if", no_wrap=True, min_width=widest)
    budgets = {r["budget"] for r in rows}
    if len(budgets) > 1:
        table.add_column("budget", no_wrap=True)
    for r in rows:
        verdict = Text(r["verdict"], style=STYLES[r["verdict"]])
        if r["stale"]:
            verdict.append("\n(stale)", style="magenta")
        effect = spread(r) if r["seeds"] == r["of"] else f"{spread(r)}\n{seeds(r)}"
        if r["null"]:
            effect += f"\nnull: {null_of(r)}"
        claim = Text.assemble((f"{r['claim']} ", "bold"), r["text"])
        if r["added"]:
            claim.append(f" (added {r['added']})", style="dim")
        if r["reason"]:
            claim.append(f"\n{r['reason']}", style="dim")
        own = (Text(r["budget"]),) if len(budgets) > 1 else ()
        table.add_row(claim, verdict, Text(effect), Text(r["threshold"]), *own)
    return table


def changes(record: Row) -> str:
    """What the record of a pass says that was not the budget's own: "seeds 20 to 21, steps=3"."""
    changed = record.get("changes")
    if not changed:  # as it was recorded before
        return "seeds, arms or settings" if record["changed"] else ""
    parts = []
    if seeds := changed.get("seeds"):
        whole = len(seeds) > 2 and seeds == [*range(seeds[0], seeds[-1] + 1)]
        listed = f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))
        parts.append(f"seed{'' if len(seeds) == 1 else 's'} {listed}")
    if arms := changed.get("arms"):
        parts.append(f"only {', '.join(arms)}")
    parts += [f"{name}={text}" for name, text in changed.get("settings", {}).items()]
    return "; ".join(parts)


def claims(listed: Mapping[str, Sequence[Row]], entries: Mapping[str, Any]) -> Group:
    """The claims of each study that is named, under its passes."""
    shown = []
    for slug, rows in listed.items():
        passes = [
            f"{budget}: {counted(len(made['seeds']), 'seed')}, {made['date'][:10]}, {made['seconds']:.0f} s"
            for budget, made in entries[slug]["passes"].items()
        ]
        shown += [verdicts(rows, f"{slug} · {' · '.join(passes)}"), Text()]
    return Group(*shown)


HYPHENATED = {
    "contradicted": "contra-\ndicted", "undecided": "unde-\ncided", "no evidence": "no evi-\ndence",
    "out of reach": "out of\nreach",
}  # fmt: skip


def summaries(rows: Sequence[Row]) -> RenderableType:
    """One row a study: how many claims came to each outcome."""
    from latebloom.lab.verdict import OUTCOMES

    if not rows:
        return Text(EMPTY)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [
        n
        for n in OUTCOMES
        if n in ("holds", "contradicted", "undecided") or any(r[n] for r in rows)
    ]
    table.add_column("study", no_wrap=True)
    for name in shown:
        broken = HYPHENATED.get(name, name)
        wide = max(map(len, broken.split("\n")))
        table.add_column(broken, justify="right", style=STYLES[name], min_width=wide)
    for name in ("seeds", ""):
        table.add_column(name, no_wrap=not name, overflow="fold", min_width=5)
    for r in rows:
        counts = [str(r[name]) if r[name] else "–" for name in shown]
        alike = len({*r["seeds"].values()}) == 1
        each = {str(count): None for count in r["seeds"].values()} if alike else [
            f"{budget} {count}" for budget, count in r["seeds"].items()]  # fmt: skip
        seeds = ", ".join(each)
        state = "unknown" if r["unknown"] else "stale" if r["stale"] else "fresh"
        state = Text(state, style="dim" if state == "fresh" else "magenta")
        table.add_row(Text(r["study"], style="bold"), *counts, Text(seeds), state)
    return table


def states(rows: Sequence[Row]) -> RenderableType:
    """Whether each record still is what the code computes, and what has to be made again."""
    from latebloom.lab.identity import PROVEN, STATES

    if not rows:
        return Text(EMPTY)
    table, lists = Table(box=None, pad_edge=False), []
    for name in ("study", "record", "arms"):
        table.add_column(name, overflow="fold")
    for row in rows:
        found = [state for arms in row["arms"].values() for state in arms.values()]
        counts = [f"{found.count(s)} {s}" for s in STATES if s in found]
        style = "green" if row["state"] in PROVEN else "magenta"
        table.add_row(Text(row["study"]), Text(row["state"], style=style), ", ".join(counts))
        left = {claim: state for claim, state in row["claims"].items() if state not in PROVEN}
        for what, wanted in (
            ("to be judged again, their checks have changed", left.keys() & {*row["changed"]}),
            ("cannot be told", {c for c, state in left.items() if state == "unknown"}),
            (
                "to be made again",
                {c for c, s in left.items() if s != "unknown"} - {*row["changed"]},
            ),
        ):
            if wanted:
                names = ", ".join(claim for claim in left if claim in wanted)
                lists.append(Text(f"{row['study']}, {what}: {names}"))
    if all(row["state"] in PROVEN for row in rows):
        lists.append(Text("all proven"))
    notes = dict.fromkeys(note for row in rows for note in row["notes"])
    return Group(table, *lists, *(Text(note, style="dim") for note in notes))


def larger_budgets(larger: Sequence[tuple[str, int, float | None]]) -> str:
    """One line about what larger budgets would judge besides."""
    from latebloom.core.progress import duration

    if not larger:
        return ""
    each = [
        f"--budget {budget} judges {counted(count, 'more claim')}"
        + (f", in about {duration(seconds)} on this machine" if seconds else "")
        for budget, count, seconds in larger
    ]
    return "; ".join(each)
