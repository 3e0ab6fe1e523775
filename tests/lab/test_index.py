"""Listing and searching: the same as the studies say, and without importing one."""

import json
import os
import subprocess
import sys

import pytest

from latebloom.lab import index
from latebloom.lab.registry import studies


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The file that entries are kept in, in a cache folder of its own."""
    monkeypatch.setattr(index.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    index.entries.cache_clear()
    yield tmp_path / "latebloom" / "studies.json"
    index.entries.cache_clear()


def again():
    index.entries.cache_clear()
    return index.entries()


def test_entries_say_what_the_studies_say(kept):
    found = index.entries()
    assert kept.exists() and again() == found
    assert [e.slug for e in found] == list(studies())
    for e in found:
        s = studies()[e.slug]
        assert (e.family, e.title, e.arxiv) == (s.family, s.paper.title, s.paper.arxiv)
        assert tuple(e.symptoms) == s.symptoms and e.claims == [c.text for c in s.claims]


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: "{",
        lambda kept: "[]",
        lambda kept: json.dumps(kept | {"studies": [{"slug": "only"}]}),
        lambda kept: json.dumps(kept | {"sources": "of another version"}),
    ],
)
def test_a_file_that_is_damaged_or_of_other_sources_is_written_anew(kept, damage):
    found = index.entries()
    whole = kept.read_text()
    kept.write_text(damage(json.loads(whole)))
    assert again() == found and kept.read_text() == whole


def test_a_cache_folder_that_cannot_be_written_costs_nothing_but_time(kept):
    found = index.entries()
    kept.unlink()
    kept.mkdir()
    assert again() == found


def test_what_was_listed_once_is_listed_without_jax(tmp_path):
    code = (
        "import sys; from latebloom.lab import index; found = index.entries();"
        "assert len(found) > 10 and len(index.slugs()) >= len(found);"
        "print(int('jax' in sys.modules))"
    )
    surroundings = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    loaded = [
        subprocess.run(
            [sys.executable, "-c", code], env=surroundings, capture_output=True, text=True
        )
        for _ in range(2)
    ]
    assert [done.stdout.strip() for done in loaded] == ["1", "0"], loaded


def test_parts_are_imported_when_asked_for():
    code = (
        "import sys, latebloom; assert 'jax' not in sys.modules;"
        "latebloom.unfold, latebloom.methods.grokking.diagnose, latebloom.nn.MLP, latebloom.lab.Study;"
        "assert set(latebloom.__all__) <= set(dir(latebloom));"
        "[getattr(latebloom, name) for name in latebloom.__all__];"
        "[getattr(latebloom.lab, name) for name in latebloom.lab.__all__];"
        "print(latebloom.unfolt)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'latebloom' has no attribute 'unfolt'" in done.stderr, done.stderr
