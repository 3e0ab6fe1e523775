"""Files with points: what is read, and what is refused in a sentence with the place."""

import math

import numpy as np
import pytest

from latebloom.data.columns import FileError
from latebloom.data.point_files import read_points, read_tsplib, unit_square

CITIES = (
    "NAME: three\nTYPE : TSP\nCOMMENT: a : b\nCOMMENT: more\nDIMENSION: 3\nEDGE_WEIGHT_TYPE : {}\n"
)
NODES = CITIES + "NODE_COORD_SECTION\n2 3.0 4e0\n1 0 0\n 3 -1.5 2\nEOF\nwhat follows is not read"
MATRIX = CITIES.format("EXPLICIT") + "EDGE_WEIGHT_FORMAT: {}\nEDGE_WEIGHT_SECTION\n{}\nEOF\n"
WHOLE = [[0, 5, 7], [5, 0, 9], [7, 9, 0]]


def written(folder, text, name="f.tsp"):
    path = folder / name
    path.write_text(text)
    return path


def test_points_of_one_set_and_of_several(tmp_path):
    one = read_points(written(tmp_path, "x;y\n1,5;2\n3;-4e1\n", "f.csv"))
    assert one.names == ("all",) and one.sets[0].tolist() == [[1.5, 2], [3, -40]]
    text = "Instance,X,colour,Y\nb,1,red,2\na,3,,4\nb,5,blue,6\n"
    several = read_points(written(tmp_path, text, "f.csv"))
    assert len(several) == 2 and several.names == ("b", "a")
    assert several.sets[0].tolist() == [[1, 2], [5, 6]] and several.sets[1].tolist() == [[3, 4]]
    chosen = read_points(written(tmp_path, "a,b\n1,2\n", "f.csv"), chosen=["x=b", "y=a"])
    assert chosen.sets[0].tolist() == [[2, 1]]


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "is empty"), ("x\n1\n", "no column 'y'"), ("x,y\n", "has 0 rows"), ("x,y\n1,2\n3,\n", "'y', row 3 is empty"),
        ("x,y\n1,two\n", "'y', row 2: 'two' is not a number"), ("x,y\n1,inf\n", "outside"), ("x,y\n1,2,3\n", "line 2 has 3 values"),
        ("x,y,instance\n1,2,\n", "'instance', row 2 is empty"), ("x,y,x\n1,2,3\n", "appears twice"), ("x,y\nnan,2\n", "row 2"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused(tmp_path, text, why):
    with pytest.raises(FileError, match=why):
        read_points(written(tmp_path, text, "f.csv"))


def test_the_unit_square_keeps_the_shape():
    found = unit_square(np.array([[10.0, -5], [30, 5], [20, 0]]))
    np.testing.assert_allclose(found, [[0, 0], [1, 0.5], [0.5, 0.25]])
    assert unit_square(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
    assert unit_square(np.array([[-1.7e308, 0], [1.7e308, 0]])).tolist() == [[0, 0], [1, 0]]


def test_distances_in_the_plane_are_whole(tmp_path):
    found = read_tsplib(written(tmp_path, NODES.format("EUC_2D")))
    assert found.name == "three" and found.points.tolist() == [[0, 0], [3, 4], [-1.5, 2]]
    assert found.distances().tolist() == [[0, 5, 3], [5, 0, 5], [3, 5, 0]]  # 2.5 is 3, 4.92 is 5
    up = read_tsplib(written(tmp_path, NODES.format("CEIL_2D").replace("4e0", "4.1")))
    assert up.distances()[0, 1] == math.ceil(math.hypot(3, 4.1)) == 6


def test_geographical_distances_by_the_rules(tmp_path):
    # A quarter of the way around, by degrees.minutes: 45.30 is 45 degrees and a half.
    text = NODES.format("GEO").replace("2 3.0 4e0", "2 0 90").replace("3 -1.5 2", "3 -45.30 0.00")
    found = read_tsplib(written(tmp_path, text)).distances()
    quarter = 6378.388 * math.pi / 2
    assert found[0, 1] == math.floor(quarter + 1) and (np.diag(found) == 0).all()
    assert found[0, 2] == math.floor(6378.388 * math.radians(45.5) + 1)
    assert (found == found.T).all()


@pytest.mark.parametrize(
    "form, numbers",
    [
        ("FULL_MATRIX", "0 5 7 5\n0 9 7 9 0"), ("UPPER_ROW", "5 7\n9"), ("LOWER_ROW", "5 7 9"), ("UPPER_DIAG_ROW", "0 5 7\n0 9\n0"),
        ("LOWER_DIAG_ROW", "0\n5 0\n7 9 0"), ("UPPER_COL", "5\n7 9"), ("LOWER_COL", "5 7 9"), ("UPPER_DIAG_COL", "0 5 0 7 9 0"),
        ("LOWER_DIAG_COL", "0 5 7 0 9 0"),
    ],
)  # fmt: skip
def test_matrices_in_every_form(tmp_path, form, numbers):
    found = read_tsplib(written(tmp_path, MATRIX.format(form, numbers)))
    assert found.distances().tolist() == WHOLE and found.points is None


def test_what_is_not_symmetric_must_say_so(tmp_path):
    text = MATRIX.format("FULL_MATRIX", "0 1 2 3 0 4 5 6 0")
    with pytest.raises(FileError, match="from 1 to 2 is not that from 2 to 1: TYPE must be ATSP"):
        read_tsplib(written(tmp_path, text))
    found = read_tsplib(written(tmp_path, text.replace("TSP\nC", "ATSP\nC")))
    assert found.distances().tolist() == [[0, 1, 2], [3, 0, 4], [5, 6, 0]]
    with pytest.raises(FileError, match="of ATSP must be one of FULL_MATRIX, not 'UPPER_ROW'"):
        read_tsplib(written(tmp_path, MATRIX.format("UPPER_ROW", "1 2 3").replace("TSP\nC", "ATSP\nC")))  # fmt: skip


EUC = NODES.format("EUC_2D")


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "no TSPLIB file"), ("x,y\n1,2\n", "line 1: 'x,y' is neither"), ("\x00" * 3, "NUL"),
        (EUC.replace("TYPE : TSP", "TYPE : CVRP"), "of TYPE 'CVRP'"), (EUC.replace("TYPE : TSP", "TYPE :"), "of TYPE ''"),
        (EUC.replace("DIMENSION: 3\n", ""), "has no DIMENSION"), (EUC.replace("N: 3", "N: three"), "not 'three'"),
        (EUC.replace("N: 3", "N: 0"), "from 1 on, not '0'"), (EUC.replace("N: 3", "N: 4"), "3 nodes where DIMENSION says 4: node 4"),
        (EUC.replace("N: 3", "N: 999999999"), "node 4 is missing"), (EUC.replace("N: 3", "N: 2"), "line 10: a node's number must be from 1 to 2, not '3'"),
        (EUC.replace("\n1 0 0", "\n2 0 0"), "line 9: node 2 is there twice"), (EUC.replace("\n1 0 0", "\n1 0"), "line 9 has 2 values"),
        (EUC.replace("\n1 0 0", "\n1 0 zero"), "line 9: 'zero' is not a finite"), (EUC.replace("\n1 0 0", "\n1 0 inf"), "not a finite"),
        (EUC.replace("\n1 0 0", "\n1.5 0 0"), "not '1.5'"), (EUC.replace("EUC_2D", "ATT"), "not 'ATT'"),
        (EUC.replace("NODE_COORD_SECTION", "DISPLAY_DATA_SECTION"), "no NODE_COORD_SECTION"),
        (EUC.replace("EOF", "FIXED_EDGES_SECTION\n1 2\n-1\nEOF"), "line 11: FIXED_EDGES_SECTION is not read"),
        (EUC.replace("EOF", "NODE_COORD_SECTION\n1 2 3"), "line 11: NODE_COORD_SECTION is there twice"),
        (EUC.replace("COMMENT: more", "NAME: b"), "line 4: NAME is there twice"),
        (EUC.replace("COMMENT: more", "hello there"), "line 4: 'hello there' is neither"),
        (CITIES.format("EXPLICIT"), "EDGE_WEIGHT_FORMAT of TSP must be one of FULL_MATRIX"),
        (MATRIX.format("UPPER_ROW", "1 2"), "2 distances where UPPER_ROW of 3 nodes has 3"),
        (MATRIX.format("FULL_MATRIX", "1 2 3"), "3 distances where FULL_MATRIX of 3 nodes has 9"),
        (MATRIX.format("LOWER_ROW", "1 2\n-3"), "line 10: the distance -3 is below 0"),
        (MATRIX.format("LOWER_ROW", "1 2\nx"), "line 10: 'x' is not a finite"),
        (NODES.format("GEO").replace("4e0", "200"), "node 2 is at no latitude"),
    ],
)  # fmt: skip
def test_bad_instances_are_refused(tmp_path, text, why):
    with pytest.raises(FileError, match=why):
        read_tsplib(written(tmp_path, text))


def test_what_is_no_file_is_refused(tmp_path):
    for read in (read_tsplib, read_points):
        with pytest.raises(FileError, match="no such file"):
            read(tmp_path / "none")
