"""Sequences of tokens from files, and what is refused."""

import json

import numpy as np
import pytest

from latebloom.data.columns import FileError
from latebloom.data.sequences import pieces, read_sequences


def lines(*of):
    return "\n".join(json.dumps(each) for each in of).encode()


def test_a_line_a_row_or_a_list_is_a_sequence(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"the cat  sat\r\n\n  on\tthe mat \n")
    assert read_sequences(tmp_path / "a.txt") == [["the", "cat", "sat"], ["on", "the", "mat"]]
    np.save(tmp_path / "a.npy", np.array([[3, 4, -1], [0, 7, 7]], np.int16))
    assert read_sequences(tmp_path / "a.npy") == [[3, 4], [0, 7, 7]]
    told = lines([1, 2], {"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0]}, {"ids": [9]})
    (tmp_path / "a.jsonl").write_bytes(told)
    assert read_sequences(tmp_path / "a.jsonl") == [[1, 2], [5, 6], [9]]


def test_a_number_may_be_padding(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[3, 0, 4, 0], [0, 7, 7, 0], [0, 0, 3, 0]]))
    assert read_sequences(tmp_path / "a.npy", pad=0) == [[3, 0, 4], [7, 7], [3]]
    assert read_sequences(tmp_path / "a.npy") == [[3, 0, 4, 0], [0, 7, 7, 0], [0, 0, 3, 0]]
    (tmp_path / "a.jsonl").write_bytes(lines([1, 0, 0], [0], [0, 0, 5, 0, 6]))
    assert read_sequences(tmp_path / "a.jsonl", pad=0) == [[1], [], [5, 0, 6]]


@pytest.mark.parametrize(("name", "content", "says"), [
    ("a.jsonl", lines({"ids": [1], "attention_mask": [[1]]}), "attention_mask must hold a 0 or 1"),
    ("a.jsonl", b"[" + b"1" * 5000 + b"]", "line 1 is no JSON"),
    ("a.jsonl", b"[" * 5000, "line 1 is no JSON"),
    ("a.csv", b"a,b", "must be .txt, .npy or .jsonl"),
    ("a.npy", b"no", "is not an array that can be read"),
    ("a.jsonl", b"[1, 2]\n{", "line 2 is no JSON"),
    ("a.jsonl", lines({"text": "a b"}), "line 1 has none of input_ids, tokens"),
    ("a.jsonl", lines([1], [1.5]), "line 2 must hold a list of whole numbers or of text"),
    ("a.jsonl", lines({"ids": [1, 2], "attention_mask": [1]}), "attention_mask must hold a 0 or 1 for each of the 2"),
    ("a.jsonl", lines(["a"], [1]), "has both numbers and text"),
], ids=str)  # fmt: skip
def test_what_holds_no_sequences_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=says):
        read_sequences(tmp_path / name)


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros(3, int)], ids=("floats", "one row"))
def test_an_array_is_of_whole_numbers_in_rows(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FileError, match="must hold whole numbers"):
        read_sequences(tmp_path / "a.npy")


def test_pieces_lose_at_most_a_last_single_token():
    assert pieces([[1, 2, 3, 4, 5], [6], [7, 8]], 2) == [[1, 2], [3, 4], [7, 8]]
    assert pieces(["abcde"], 3) == [["a", "b", "c"], ["d", "e"]]
