"""A file of sequences through, a model that can be read again, and what is said of it."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from latebloom.apply.dual_process_forgetting import sentences
from latebloom.data.columns import FileError
from latebloom.lab import apply
from latebloom.methods.forgetting.corpus import EXAMS, FIRST, Corpus
from latebloom.methods.forgetting.unknown_words import (
    METHODS,
    PLAIN,
    Assessed,
    _costs,
    _ways,
    bands,
)
from latebloom.nn.masked_lm import MaskedLM

RNG = np.random.default_rng(0)
QUICK = {"words": 50, "length": 8, "steps": 10, "batch": 4, "seeds": 2, "every": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    rows = []
    for _ in range(300):
        x, y = RNG.choice(60, 2, replace=False)
        rows.append(f"go n{x} to n{y} stop n{x} n{y}")
    path.write_text("\n".join(rows))
    return path


def test_a_file_goes_through_and_its_model_is_read_again(text, tmp_path):
    said = []
    done = apply("dual-process-forgetting", [text], tmp_path, settings=QUICK, say=lambda what, share: said.append(share))  # fmt: skip
    names = {path.name for path in done.paths}
    assert names == {"exams.csv", "ways.csv", "costs.csv", "curves.csv", "exams.png", "course.png", "embeddings.png",
                     "model.eqx", "words.json", "result.json"}  # fmt: skip
    assert said == sorted(said)
    result = json.loads((tmp_path / "result.json").read_text())
    assert "2406.00053" in result["cite"] and result["summary"]["held_out_words"] >= 5
    assert result["found"][0].startswith("No way of training tells hidden words that it knows")
    ways = pd.read_csv(tmp_path / "ways.csv")
    assert set(ways["way"]) == {m + how for m in METHODS for how in ("", ", mended")}
    assert ways["right"].is_monotonic_decreasing and ways["way"][0] == result["summary"]["best"]
    assert len(pd.read_csv(tmp_path / "exams.csv")) == len(METHODS) * len(EXAMS)
    words = json.loads((tmp_path / "words.json").read_text())
    assert len(words) == 50 and {"go", "to", "stop"} == set(words[:3])
    like = MaskedLM(FIRST + 50, 7, key=jax.random.key(0), heads=2, layers=2)
    model = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", like)
    assert result["summary"]["positions"] == 7
    lengths = np.linalg.norm(np.asarray(model.embedding)[FIRST:], axis=1)
    assert result["summary"]["usual_length"] == pytest.approx(lengths.mean(), rel=1e-5)
    assert f"an embedding of length {lengths.mean():.3g} and a bias of" in result["found"][-1]
    assert np.isfinite(model(jnp.zeros((1, 7), int))).all()


@pytest.mark.parametrize(("settings", "says"), [
    ({"words": 3}, "t.txt: words must be a whole number from 20"),
    ({"methods": "forgetting"}, "t.txt: methods must be"),
], ids=str)  # fmt: skip
def test_settings_are_refused_with_the_file(text, tmp_path, settings, says):
    with pytest.raises(FileError, match=says):
        apply("dual-process-forgetting", [text], tmp_path, settings=QUICK | settings)
    with pytest.raises(FileError, match="give one file of sequences"):
        apply("dual-process-forgetting", [text, text], tmp_path, settings=QUICK)


def shares(rng, seeds=5):
    import xarray as xr

    return xr.Dataset(
        {"right": (("seed", "exam"), rng.uniform(0.3, 0.7, (seeds, len(EXAMS)))), "ratio": ("exam", [0.25] * 2 + [0.1] * 4)},
        {"exam": list(EXAMS)},
    )  # fmt: skip


def test_that_one_way_is_best_is_seldom_said_of_equals():
    rng = np.random.default_rng(1)
    last = [{m: shares(rng) for m in METHODS} for _ in range(300)]
    surely = [bool(_ways(one)["behind"][1:].all()) for one in last]
    assert np.mean(surely) <= 0.02
    few = {m: shares(rng, 3) + 0.8 * (m != PLAIN) for m in METHODS}
    assert not _ways({m: one.assign(ratio=last[0][m].ratio) for m, one in few.items()})[
        "behind"
    ].any()
    clear = _ways(
        {m: one.assign(right=one.right + 0.8 * (m != PLAIN)) for m, one in last[0].items()}
    ).set_index("way")
    assert clear.loc[[PLAIN, f"{PLAIN}, mended"], "behind"].all()


def test_costs_leave_out_what_was_not_asked():
    rng = np.random.default_rng(1)
    last = {m: shares(rng) for m in METHODS}
    last[METHODS[1]].right.loc[{"exam": "once/rare", "seed": slice(0, 4)}] = np.nan
    costs = _costs(last)
    assert len(costs) == 5 and (costs["low"] <= costs["cost"]).all()
    own = (last[PLAIN].right - last[METHODS[2]].right).sel(exam="once/rare").mean()
    row = costs[(costs["method"] == METHODS[2]) & (costs["exam"] == "once/rare")]
    assert row["cost"].iloc[0] == pytest.approx(float(own))


def test_sentences_say_no_more_than_was_found():
    corpus = Corpus.of([line.split() for line in text_lines()], words=83, length=7)
    ways = pd.DataFrame({"way": [METHODS[1], PLAIN, f"{PLAIN}, mended"], "right": [0.8, 0.1, 0.7], "right_low": 0.6, "right_high": 0.9,
                         "behind": [False, True, True]})  # fmt: skip
    exams = pd.DataFrame(
        {"method": PLAIN, "exam": ["repeated", "novel"], "right": [0.9, 0.1], "guess": [0.2, 0.25]}
    )
    costs = pd.DataFrame({"method": [METHODS[1]], "exam": ["once/rare"], "cost": [0.02], "low": [-0.01], "high": [0.05]})  # fmt: skip
    found = Assessed(exams, ways, costs, pd.DataFrame(), corpus, {}, True, 80)
    told = sentences(found)
    assert (
        "temporary forgetting tells 80 % [60 %, 90 %]" in told[0] and "surely the most" in told[0]
    )
    assert "where a pick among its words would tell 25 %" in told[0]
    assert "tells 10 % of them as it is, 70 %" in told[1] and "90 % of words as rare" in told[1]
    assert "rare 2.0 [-1.0, 5.0]" in told[2]
    unsure = ways.assign(behind=[False, True, False])
    told = sentences(replace(found, ways=unsure, learned=False, asked=10))
    assert (
        told[0].startswith("No way of training")
        and "not surely fewer: plain training, mended." in told[1]
    )
    assert "only 10 questions" in told[-1]
    unasked = sentences(replace(found, exams=exams.assign(right=[np.nan, 0.1]), learned=None))
    assert unasked[0].startswith("Too few sequences for exams on known words")
    assert "no word as rare that it knows was asked for" in unasked[2] and "nan" not in " ".join(
        unasked
    )


def text_lines():
    return [f"go n{i % 80} to n{i % 77} stop n{i % 80} n{i % 77}" for i in range(400)]


def test_bands_are_shares_of_the_vocabulary():
    assert np.bincount(bands(100)).tolist() == [5, 20, 75]
