"""The command line as a person or a script uses it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

COMMAND = [sys.executable, "-c", "from latebloom.cli import main; main()"]


def latebloom(*arguments, folder=None, code=0):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One smoke run of the first study, shared by the tests that read it."""
    store = tmp_path_factory.mktemp("store")
    done = latebloom(
        "run",
        "grokking-numerical-stability",
        "--budget",
        "smoke",
        "--store",
        store,
        "--json",
        "--jobs",
        2,
    )
    return store, json.loads(done.stdout)


def test_list_has_every_study_with_its_paper():
    rows = json.loads(latebloom("list", "--json").stdout)
    assert {"slug", "family", "title", "arxiv"} <= set(rows[0])
    slugs = {
        "grokking-numerical-stability",
        "grokking-lazy-rich",
        "grokking-local-complexity",
        "concept-space",
    }
    assert slugs <= {row["slug"] for row in rows}


def test_search_finds_the_study_for_a_symptom():
    rows = json.loads(latebloom("search", "test accuracy stays at chance", "--json").stdout)
    assert rows[0]["family"] == "grokking"
    assert [r["score"] for r in rows] == sorted((r["score"] for r in rows), reverse=True)


def test_show_says_what_a_study_is():
    row = json.loads(latebloom("show", "grokking-numerical-stability", "--json").stdout)
    claim = next(c for c in row["claims"] if c["claim"] == "C4.perp")
    assert (claim["threshold"], claim["budget"]) == ("> 0.95", "quick")
    assert "perp-adamw" in claim["arms"] and "perp-adamw" in claim["effect"]
    assert "softmax-f16" in row["arms"]
    counts = [row["budgets"][name]["claims"] for name in ("quick", "thorough", "full")]
    assert counts == sorted(counts) and counts[-1] == len(row["claims"])


def test_run_prints_only_json_and_leaves_traces_and_a_report(smoke):
    store, answer = smoke
    assert set(answer) == {"study", "traces", "verdicts", "unjudged", "larger", "seconds"}
    for path in answer["traces"]:
        with xr.open_dataset(path, engine="h5netcdf") as trace:
            assert trace.sizes["seed"] == 2
    assert (store / "reports" / "grokking-numerical-stability.html").exists()
    keys = {
        "study",
        "claim",
        "verdict",
        "estimate",
        "low",
        "high",
        "threshold",
        "seeds",
        "budget",
        "null",
        "needs",
        "stale",
    }
    assert answer["verdicts"] and all(keys <= set(row) for row in answer["verdicts"])
    assert "not run" not in {row["verdict"] for row in answer["verdicts"]}


def test_verdicts_and_report_read_what_was_run(smoke):
    store, answer = smoke
    rows = json.loads(
        latebloom("verdicts", "grokking-numerical-stability", "--store", store, "--json").stdout
    )
    assert rows == answer["verdicts"]
    index = Path(json.loads(latebloom("report", "--store", store, "--json").stdout)["report"])
    assert "grokking-numerical-stability.html" in index.read_text()


def test_the_ledger_has_a_row_a_study_and_the_claims_of_those_that_are_named(tmp_path):
    rows = json.loads(latebloom("ledger", "--json", folder=tmp_path).stdout)
    assert len({row["study"] for row in rows}) == len(rows)
    chosen = next(row for row in rows if row["study"] == "concept-space")
    claims = json.loads(latebloom("ledger", "concept-space", "--json").stdout)
    for outcome in ("holds", "contradicted", "undecided", "out of reach", "no evidence"):
        assert chosen[outcome] == sum(claim["verdict"] == outcome for claim in claims)
    assert {claim["budget"] for claim in claims} == set(chosen["seeds"])
    assert "concept-space" in latebloom("ledger").stdout


def test_settings_and_arms_can_be_changed(tmp_path):
    done = latebloom(
        "run", "grokking-numerical-stability", "--budget", "smoke", "--arms", "perp-adamw",
        "--set", "steps=3", "--seeds", "20:22", "--store", tmp_path, "--json", "--no-report",
    )  # fmt: skip
    (path,) = json.loads(done.stdout)["traces"]
    with xr.open_dataset(path, engine="h5netcdf") as trace:
        assert int(trace.step[-1]) == 3
        assert list(trace.seed) == [20, 21]


@pytest.mark.parametrize(
    ("study", "given", "jobs"),
    [("learning-curves", [], "CORES"), ("grokking-numerical-stability", [], 1), ("learning-curves", ["--jobs", "1"], 1)],
)  # fmt: skip
def test_a_study_that_gains_by_it_takes_a_process_for_each_core(
    tmp_path, monkeypatch, study, given, jobs
):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    from latebloom import cli
    from latebloom.lab import runner

    def asked(*_, jobs, **more):
        raise ValueError(f"{jobs} jobs")

    monkeypatch.setattr(runner, "run", asked)
    done = CliRunner().invoke(cli.app, ["run", study, "--store", str(tmp_path), *given])
    assert f"{cli.CORES if jobs == 'CORES' else jobs} jobs" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "grokking-numerical-stabilty"], "did you mean 'grokking-numerical-stability'?"),
        (["run", "grokking-lazy-rich", "--budget", "ful"], "did you mean 'full'?"),
        (["run", "grokking-lazy-rich", "--set", "steps"], "--set takes key=value"),
        (["run", "grokking-lazy-rich", "--jobs", "0"], "jobs must be at least 1, not 0"),
        (
            ["run", "grokking-lazy-rich", "--jobs", "1", "--cluster", "auto"],
            "give either --jobs, for processes here, or --cluster",
        ),
        (
            ["run", "grokking-lazy-rich", "--seeds", "2:"],
            "a count or a range such as 20:25, not '2:'",
        ),
        (
            ["run", "grokking-lazy-rich", "--seeds", "9:9"],
            "seeds must be different numbers from 0 on",
        ),
        (
            ["run", "concept-space", "--record", "--results", "/proc/nothing"],
            "the ledger /proc/nothing cannot be made",
        ),
        (["show", "nothing-like-it"], "there is no study"),
        (["search", " "], "say what you see"),
        (["data", "path", "mnits"], "there is no data set 'mnits'"),
        (["data", "path", "digits"], "comes with an installed package"),
        (["ledger", "--results", "nowhere"], "there is no ledger in nowhere"),
        (
            ["ledger", "concept-spcae"],
            "the ledger has no study 'concept-spcae'; did you mean 'concept-space'?",
        ),
        (["verdicts", "grokking-lazy-rich", "--store", "{tmp}"], "has not been run here yet"),
        (["run", "concept-space", "--store", "/proc/nothing"], "cannot be used"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    # The command line asks JAX for a device a core: not in a process that other tests share.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    from latebloom.cli import app

    done = CliRunner().invoke(app, [a.format(tmp=tmp_path) for a in arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


ODD = """
import dataclasses, sys
sys.path.insert(0, {lines!r})
from lines import Config, Line, claim, height, make_study
from latebloom.lab import Claim, Paper
def make(config): return Line(config.slope)
study = make_study(
    claim("> 5", null=float("nan")), Claim("C2", "[/x] soars [bold]", "[/y]", height["steep"], "> 5", "[z]"),
    paper=Paper("lines", "On [/x] Lines", "A. [/b]", "Elements", -300, ""), question="Is it [/x]?",
    symptoms=("[/x] and :smile:",), arms={{"steep": Config(2.0, tag="[/x]"), "flat": Config(float("inf"))}},
    process=make, notes="[/x]", data="[/x]",
)
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Calls the command on a study whose texts look like markup, in a folder that does too."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    folder = tmp_path / "st[j]"
    folder.mkdir()
    path = folder / "odd_lines.py"
    path.write_text(ODD.format(lines=str(Path(__file__).parent / "lab")))
    from latebloom import cli

    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "width", 300)

    def call(*arguments, code=0):
        given = [str(a).format(study=path, folder=folder) for a in arguments]
        done = CliRunner().invoke(cli.app, given)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    return call


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.filterwarnings("ignore:.*diverged")
def test_texts_and_paths_are_printed_as_they_are_and_json_is_json(odd, tmp_path):
    shown = odd("show", "{study}").stdout
    for text in (
        "On [/x] Lines",
        "A. [/b]",
        "Is it [/x]?",
        "[/x] and :smile:",
        "[/x] soars [bold]",
        "> 5 [z]",
        "[/y]",
    ):
        assert text in shown, text
    store = ("--store", "{folder}/kept[a]")
    ran = odd("run", "{study}", *store).stdout
    assert (
        "[/x] soars [bold]" in ran and f"report  {tmp_path}/st[j]/kept[a]/reports/lines.html" in ran
    )
    title = odd("verdicts", "{study}", *store).stdout.replace("\n", "")
    assert title.startswith(f"{tmp_path}/st[j]/odd_lines.py · quick")
    assert "st[j]/kept[a]/reports" in odd("report", *store).stdout
    record = ("--record", "--results", "{folder}/led[b]")
    assert (
        f"ledger  {tmp_path}/st[j]/led[b]/lines.json"
        in odd("run", "{study}", *store, *record).stdout
    )
    ledger = ("ledger", "--results", "{folder}/led[b]")
    for call in (
        ("show", "{study}"),
        ("run", "{study}", *store),
        ("verdicts", "{study}", *store),
        ledger,
        (*ledger, "lines"),
    ):
        json.loads(odd(*call, "--json").stdout, parse_constant=refuse)
    assert "there is no file" in odd("show", "{folder}/a[b].py", code=2).stderr
    assert "[b].py" in odd("show", "{folder}/a[b].py", code=2).stderr


@pytest.mark.filterwarnings("ignore:.*diverged")
def test_a_changed_pass_says_so_and_does_not_hide_that_of_the_budget(odd):
    store = ("--store", "{folder}")
    odd("run", "{study}", *store, "--no-report")
    changes = ("--seeds", "1", "--arms", "flat", "--set", "steps=3")
    told = "changed: seed 0; only flat; steps=3"
    ran = odd("run", "{study}", *store, "--no-report", *changes).stdout
    assert told in ran and "quick · 1 seed\n" in ran and "no claim was judged" in ran
    newest = odd("verdicts", "{study}", *store).stdout
    assert told in newest and "no claim was judged" in newest
    assert "--budget quick shows the budget as it stands" in newest
    standing = odd("verdicts", "{study}", *store, "--budget", "quick").stdout
    assert "but changed" not in standing and "quick · 3 seeds" in standing and "soars" in standing
    rows = json.loads(odd("verdicts", "{study}", *store, "--budget", "quick", "--json").stdout)
    assert [row["changed"] for row in rows] == [False, False]
    again = odd("run", "{study}", *store, "--no-report").stdout
    assert "; 6 of 6 runs found in the store" in again and "but changed" not in again


def test_a_disk_that_is_full_is_one_sentence(odd, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("latebloom.lab.store.write_atomically", full)
    done = odd("run", "{study}", "--store", "{folder}", code=2)
    assert done.stderr.splitlines()[-1] == "error: No space left on device"
    assert "Traceback" not in done.stderr


def test_the_studies_that_are_applied_are_listed_once(odd):
    done = odd("apply", "concept-space", "{study}", "--out", "{folder}/out", code=2)
    assert done.stderr.count("learning-curves") == 1


def test_an_empty_ledger_is_a_sentence(odd):
    assert "no record yet" in odd("ledger", "--results", "{folder}").stdout
    assert json.loads(odd("ledger", "--results", "{folder}", "--json").stdout) == []


def test_a_process_of_its_own_ends_in_one_sentence_too(tmp_path):
    done = latebloom("show", "nothing-like-it", folder=tmp_path, code=2)
    assert len(done.stderr.strip().splitlines()) == 1 and "there is no study" in done.stderr


def test_help_names_the_commands():
    text = latebloom("--help").stdout
    for command in ("list", "search", "show", "run", "verdicts", "ledger", "report", "data"):
        assert command in text


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    arguments = ["run", "grokking-numerical-stability", "--arms", "softmax-f32", "--seeds", "2",
                 "--set", "p=13", "--set", "width=32", "--set", "steps=20000", "--json",
                 "--no-report"]  # fmt: skip

    def start(store):
        command = [*COMMAND, *arguments, "--resume", "--store", str(store)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=os.environ | {"LATEBLOOM_CHECKPOINT_SECONDS": "0.2"})  # fmt: skip

    killed = start(tmp_path / "killed")
    for _ in range(12_000):
        if list((tmp_path / "killed").rglob("*.checkpoint")) or killed.poll() is not None:
            break
        time.sleep(0.05)
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / "killed").rglob("*.checkpoint"))
    traces = []
    for name in ("killed", "whole"):
        out, problems = start(tmp_path / name).communicate()
        assert out, problems
        (path,) = json.loads(out)["traces"]
        with xr.open_dataset(path, engine="h5netcdf") as trace:
            traces.append(trace.load())
    for name in traces[0].variables:
        assert traces[0][name].values.tobytes() == traces[1][name].values.tobytes(), name


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_renders_at_desktop_and_phone_width_in_light_and_dark(smoke):
    from playwright.sync_api import sync_playwright

    store, answer = smoke
    pages = store / "reports"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                problems = []
                page.on("pageerror", lambda error: problems.append(str(error)))
                page.on("requestfailed", lambda request: problems.append(request.url))
                page.goto((pages / "grokking-numerical-stability.html").as_uri())
                assert not problems
                # Nothing reaches beyond the page, and text stands out from its ground.
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                ink, ground = (
                    page.evaluate(f"getComputedStyle(document.body).{p}") for p in ("color", "backgroundColor")
                )  # fmt: skip
                assert abs(luminance(ink) - luminance(ground)) > 0.5
                shown = page.locator("#verdicts tbody tr")
                assert shown.count() == len(answer["verdicts"])
                for i, verdict in enumerate(answer["verdicts"]):
                    row = shown.nth(i)
                    assert row.get_attribute("data-claim") == verdict["claim"]
                    assert row.locator(".verdict").inner_text() == verdict["verdict"]
                    if verdict["estimate"] is not None:
                        text = row.locator(".estimate").inner_text().replace(",", "")
                        np.testing.assert_allclose(
                            float(text), verdict["estimate"], rtol=0.01, atol=1e-12
                        )
                page.close()
        index = browser.new_page()
        index.goto((pages / "index.html").as_uri())
        index.get_by_role("link").first.click()
        assert "Numerical Stability" in index.inner_text("h1")
        browser.close()


def luminance(colour):
    r, g, b = (int(c) / 255 for c in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "latebloom", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "run" in done.stdout, done.stderr
