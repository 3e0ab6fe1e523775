"""Tagged text by hand; the Brown corpus itself where it has been fetched."""

import numpy as np
import pytest

from latebloom import data
from latebloom.data.brown import _FILES, find_brown, simple_tag

needs_brown = pytest.mark.skipif(
    find_brown() is None, reason="the Brown corpus is not here: latebloom data fetch brown"
)


def test_tagged_lines_become_numbers():
    text = data.read_tagged(
        [("The/at dog/nn", "a"), ("  ", "a"), ("and\\/or/cc the/at dog/nn-hl", "b")]
    )
    assert text.words == ("The", "dog", "and\\/or", "the") and text.tag_names == ("at", "nn", "cc")
    assert text.tokens.tolist() == [0, 1, 2, 3, 1] and text.tags.tolist() == [0, 1, 2, 0, 1]
    assert text.starts.tolist() == [0, 2, 5] and text.genres.tolist() == ["a", "b"]
    assert text.sentences == 2 and text.tokens.dtype == np.int32


@pytest.mark.parametrize(
    ("tag", "simple"),
    [("nn-tl", "nn"), ("NP-TL-HL", "np"), ("fw-in+at-tl", "in"), ("ppss+bem", "ppss"), ("md*", "md"),
     ("*", "*"), ("--", "--"), ("np$", "np$"), (".-hl", "."), ("vbg+to", "vbg"), ("*-hl", "*"),
     ("wps+bez-nc", "wps"), ("'", "'"), ("dod*", "dod")],
)  # fmt: skip
def test_simple_tags(tag, simple):
    assert simple_tag(tag) == simple


@pytest.mark.parametrize("token", ["dog", "/nn", "dog/"])
def test_a_word_without_tag_is_named(token):
    with pytest.raises(
        data.DataError, match=f"text.txt, line 2: '{token}' is not of the form word/tag"
    ):
        data.read_tagged([("a/b", ""), (f"c/d {token}", "")], "text.txt")
    with pytest.raises(data.DataError, match="holds no tagged words"):
        data.read_tagged([("", "")])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_absent_corpus_says_how_to_get_it(empty_cache):
    assert data.names()["brown"]["where"] == "" and data.find("brown") is None
    with pytest.raises(data.DataError, match="latebloom data fetch brown"):
        data.load_brown()


def test_a_changed_corpus_is_refused(empty_cache):
    folder = empty_cache / "brown"
    folder.mkdir()
    for name in _FILES:
        (folder / name).write_text("a/at")
    assert data.find("brown") == folder
    with pytest.raises(data.DataError, match="is not the original corpus"):
        data.load_brown()


def test_a_failing_fetch_says_where_to_put_the_files(empty_cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(data.DataError, match="put the 500 files ca01 to cr09 into"):
        data.fetch("brown")
    assert not (empty_cache / "brown").exists()


@needs_brown
def test_the_corpus_has_the_known_numbers():
    brown = data.load_brown()
    assert brown.sentences == 57_340 and len(brown.tokens) == 1_161_192
    assert len(brown.words) == 56_057 and len(brown.tag_names) == 92
    assert "".join(dict.fromkeys(brown.genres)) == "abcdefghjklmnpr"
    first = brown.tokens[: brown.starts[1]]
    assert [brown.words[w] for w in first[:4]] == ["The", "Fulton", "County", "Grand"]
    assert [brown.tag_names[t] for t in brown.tags[:4]] == ["at", "np", "nn", "jj"]
    assert np.bincount(brown.tags)[brown.tag_names.index("at")] == 99_161
