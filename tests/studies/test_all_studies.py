"""Every study from end to end at its smallest budget: run, judged, drawn, written, found again."""

import json
import warnings

import pytest

from latebloom import data
from latebloom.lab import report
from latebloom.lab.index import slugs
from latebloom.lab.registry import find
from latebloom.lab.runner import run
from latebloom.lab.store import Store
from latebloom.lab.verdict import OUTCOMES


def arms_with_data(study):
    """The smallest budget's arms, but those on a data set that has to be fetched first."""
    missing = {name for name, facts in data.names().items() if not facts["where"]}
    configs = study.configs("smoke")
    return [arm for arm, config in configs.items() if missing.isdisjoint(map(str, vars(config).values()))]  # fmt: skip


@pytest.mark.parametrize("slug", slugs())
def test_a_study_runs_is_judged_and_drawn(slug, tmp_path):
    study, store = find(slug), Store(tmp_path)
    arms = arms_with_data(study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a smoke budget is too small for much that effects compute
        done = run(study, "smoke", arms=arms, store=store)
        again = run(study, "smoke", arms=arms, store=store)
        page = report.write_page(done, tmp_path / "reports").read_text()
    ran = {claim.id for claim in study.claims if set(claim.arms) <= set(done.traces)}
    assert {verdict.claim for verdict in done.verdicts} == ran
    assert all(verdict.verdict in OUTCOMES for verdict in done.verdicts)
    # A seed may hold several independent problems; each then says one number.
    assert all(len(verdict.effects) % len(done.seeds) == 0 for verdict in done.verdicts)
    assert json.dumps([v.row() for v in again.verdicts]) == json.dumps(
        [v.row() for v in done.verdicts]
    )
    for figure, drawn in done.figures:
        assert drawn.axes and f"figure-{figure.name}" in page
        assert any(ax.has_data() or ax.texts or ax.tables for ax in drawn.axes), figure.name
    assert any(study.watch in trace for trace in done.traces.values()), study.watch
