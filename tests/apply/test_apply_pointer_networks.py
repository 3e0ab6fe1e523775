"""Files with points through: what is read, written, said; a network that is kept and used again."""

import json

import numpy as np
import pandas as pd
import pytest

from latebloom.apply.pointer_networks import Options, sentences
from latebloom.data.columns import FileError
from latebloom.data.tours import distances, tour_length
from latebloom.lab import apply
from latebloom.methods.recurrence.pointer import PointerNetwork
from latebloom.methods.recurrence.pointer_solving import Solver

RNG = np.random.default_rng(0)
QUICK = {"low": 3, "high": 5, "size": 8, "steps": 12, "batch": 8, "beam": 2}
TSPLIB = "NAME: five\nTYPE: TSP\nDIMENSION: 5\nEDGE_WEIGHT_TYPE: EUC_2D\nNODE_COORD_SECTION\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    rows = [f"{name},{x},{y}" for name, n in (("a", 4), ("b", 6)) for x, y in 100 * RNG.random((n, 2))]  # fmt: skip
    (folder / "p.csv").write_text("\n".join(["instance,x,y", *rows]))
    nodes = "\n".join(f"{i} {x} {y}" for i, (x, y) in enumerate(RNG.integers(0, 90, (5, 2)), 1))
    (folder / "five.tsp").write_text(f"{TSPLIB}{nodes}\nEOF\n")
    return folder


def test_tours_of_tables_and_instances_and_the_network_again(files, tmp_path):
    said = []
    done = apply("pointer-networks", [files / "p.csv", files / "five.tsp"], tmp_path / "one", settings=QUICK, say=lambda what, share: said.append(share))  # fmt: skip
    assert {path.name for path in done.paths} == {"sets.csv", "answers.csv", "answers.png", "pointers.png", "network.npz", "result.json"}  # fmt: skip
    assert said == sorted(said)
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert "1506.03134" in result["cite"] and result["summary"]["sets"] == 3
    sets = pd.read_csv(tmp_path / "one" / "sets.csv")
    answers = pd.read_csv(tmp_path / "one" / "answers.csv")
    assert sets["instance"].tolist() == ["a", "b", "five"] and sets["points"].tolist() == [4, 6, 5]
    assert (sets["value"] >= sets["bound"]).all() and sets["bound_is_exact"].all()
    table = pd.read_csv(files / "p.csv")
    for name in ("a", "b"):
        own, true = answers[answers["instance"] == name], table[table["instance"] == name]
        assert sorted(own["point"]) == list(range(1, len(true) + 1))
        points = true[["x", "y"]].to_numpy()
        np.testing.assert_allclose(own[["x", "y"]], points[own["point"] - 1])
        length = tour_length(distances(points), own["point"].to_numpy() - 1)
        assert float(length) == pytest.approx(sets.set_index("instance").loc[name, "value"])
    assert float(sets["value"].iloc[2]).is_integer()  # by the rules of TSPLIB
    assert any("more points than the 5" in s for s in result["found"])
    kept = str(tmp_path / "one" / "network.npz")
    again = apply("pointer-networks", [files / "p.csv"], tmp_path / "two", settings={"network": kept, "beam": 2})  # fmt: skip
    assert again.applied.summary["trained_on"] == [3, 5]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "two" / "sets.csv"), sets.iloc[:2])
    with pytest.raises(ValueError, match="was trained for kind=tour, not hull"):
        apply("pointer-networks", [files / "p.csv"], tmp_path / "three", settings={"network": kept, "kind": "hull"})  # fmt: skip


def test_hulls_that_are_not_written_are_the_exact_ones(files, tmp_path):
    done = apply("pointer-networks", [files / "five.tsp", files / "p.csv"], tmp_path, settings=QUICK | {"kind": "hull"})  # fmt: skip
    sets = pd.read_csv(tmp_path / "sets.csv")
    exact = sets["by"] == "exact"
    assert exact.any() and (sets["gap"][exact] == 0).all() and (sets["gap"] < 1).all()
    assert any(s.startswith(f"For {exact.sum()} of 3 the network wrote no polygon: there the exact hull stands") for s in done.applied.found)  # fmt: skip


@pytest.mark.parametrize(("text", "name", "settings", "says"), [
    ("x,y\n1,2\n", "f.csv", {"kind": "hull"}, "f.csv, instance 'all': a hull takes from 3 to 2,000 points, not 1"),
    ("x,y\n" + "1,2\n" * 2001, "f.csv", {}, "not 2,001"),
    (TSPLIB.replace("EUC_2D", "EXPLICIT").replace("NODE_COORD_SECTION", "EDGE_WEIGHT_FORMAT: UPPER_ROW\nEDGE_WEIGHT_SECTION") + "1 " * 10, "f.tsp", {}, "distances alone"),
    ("a,b\n1,2\n", "f.csv", {}, "f.csv.* no column 'x'"), ("x,y\n1,2\n", "f.csv", {"beam": 0}, "beam must be at least 1"),
    ("x,y\n1,2\n", "f.csv", {"high": 13}, "at most 12"), ("x,y\n1,2\n", "f.csv", {"network": "none.npz"}, "none.npz cannot be read"),
], ids=str)  # fmt: skip
def test_what_cannot_be_answered_is_refused(tmp_path, text, name, settings, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        apply("pointer-networks", [tmp_path / name], tmp_path / "out", settings=QUICK | settings)
    assert not list((tmp_path / "out").iterdir())


def test_no_file_is_refused(tmp_path):
    with pytest.raises(FileError, match="at least one file"):
        apply("pointer-networks", [], tmp_path / "out")


def test_sentences_say_no_more_than_was_found():
    import jax

    solver = Solver(PointerNetwork(4, key=jax.random.key(0)), "tour", 5, 10, 4)
    table = pd.DataFrame({"by": ["pointer"] * 2, "gap": [0.01, 0.03], "value": [2.0, 3.0], "rule": [2.0, 3.5], "points": [5, 40], "bound_is_exact": [True, False]})  # fmt: skip
    told = sentences(table, solver)
    assert told[0] == "2 sets answered by the network: 2.0 % longer than the shortest tour or a bound that no tour is below on average, 3.0 % at most."  # fmt: skip
    assert "shorter than the nearest neighbour's in 1 sets, longer in 0" in told[1]
    assert told[2].startswith("1 of 2 sets have more points than the 10")
    lost = sentences(table.assign(by="nearest neighbour"), solver)
    assert lost[0] == "For 2 of 2 the network wrote no tour: there the nearest neighbour answers in its place (column by)."  # fmt: skip
    nothing = table.assign(gap=np.nan, points=1)
    assert len(sentences(nothing, solver)) == 1 and Options().kind == "tour"
