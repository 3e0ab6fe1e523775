"""Events as the Heidelberg digits have them: read, written, counted; damaged files are refused with their place."""

import h5py
import numpy as np
import pytest

from latebloom.data.sources import DataError
from latebloom.data.spikes import Events, from_counts, read_events, write_events

TIMES = [[0.3, 0.004, 0.0101], [], [0.02, 0.02, 0.9]]
UNITS = [[699, 4, 5], [], [0, 9, 3]]


def made(path, times=TIMES, units=UNITS, labels=(3, 0, 19), speaker=(1, 2, 2), keys=None):
    """As h5py lays `shd_train.h5` out: arrays of half precision and of 16 bits, one an example."""
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            if rows is None:
                continue
            at = file.create_dataset(f"spikes/{name}", (len(rows),), h5py.vlen_dtype(kind))
            for i, row in enumerate(rows):
                at[i] = np.array(row, kind)
        if labels is not None:
            file["labels"] = np.array(labels)
        file["extra/speaker"] = np.array(speaker)
        if keys:
            file["extra/keys"] = np.array([k.encode() for k in keys])
    return path


def test_events_are_read_in_order_of_time(tmp_path):
    found = read_events(made(tmp_path / "a.h5"))
    assert len(found) == 3 and found.starts.tolist() == [0, 3, 3, 6] and found.labels.tolist() == [3, 0, 19]  # fmt: skip
    np.testing.assert_allclose(found.times[:3], [0.004, 0.0101, 0.3], rtol=1e-3)
    assert found.units[:3].tolist() == [4, 5, 699] and found.speakers.tolist() == [1, 2, 2]
    x = found.binned(0.01, 40, pool=5)
    assert x.shape == (3, 40, 140) and x[0, 0, 0] == 1 and x[0, 1, 1] == 1 and x[0, 30, 139] == 1
    assert x[1].sum() == 0 and x[2].sum() == 2  # the event at 0.9 s is after the last step
    np.testing.assert_array_equal(found.binned(0.01, 40).reshape(3, 40, 140, 5).sum(-1), x)


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.05, (6, 30, 20))
    events = from_counts(counts, rng.integers(0, 4, 6), 0.01, tuple("abcd"))
    write_events(events, tmp_path / "b.h5")
    again = read_events(tmp_path / "b.h5", channels=20)
    assert again.classes == ("a", "b", "c", "d") and again.labels.tolist() == events.labels.tolist()
    np.testing.assert_array_equal(again.units, events.units)
    np.testing.assert_array_equal(events.binned(0.01, 30), counts)
    long = from_counts(rng.poisson(0.05, (2, 500, 20)), np.array([0, 70_000]), 0.01)
    write_events(long, tmp_path / "c.h5")
    again = read_events(tmp_path / "c.h5", channels=20)
    np.testing.assert_array_equal(again.binned(0.01, 500), long.binned(0.01, 500))
    np.testing.assert_array_equal(again.times, long.times)
    assert again.labels.tolist() == [0, 70_000]
    wide = Events(np.array([0.5, 0.25]), np.array([70_000, 5]), np.array([0, 1, 2]), np.array([0, 1]), 80_000)  # fmt: skip
    write_events(wide, tmp_path / "c.h5")
    assert read_events(tmp_path / "c.h5", 80_000).units.tolist() == [70_000, 5]
    with h5py.File(tmp_path / "c.h5") as file:  # as narrow as may be
        assert h5py.check_vlen_dtype(file["spikes/times"].dtype) == np.float16
    late = Events(np.array([5.0]), np.array([1]), np.array([0, 1]), np.array([0]), 2)
    write_events(late, tmp_path / "c.h5")
    assert read_events(tmp_path / "c.h5", 2).times == pytest.approx([5.0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"times": None}, "no spikes/times"),
        ({"labels": None}, "no labels"),
        ({"labels": (1, 2)}, "3 examples, but there are 2 labels"),
        ({"labels": (1, -2, 0)}, "labels: must be whole numbers from 0"),
        ({"labels": (0.5, 1, 1)}, "labels: must be whole numbers"),
        ({"units": [[1, 2], [], [0, 9, 3]]}, "example 0: 3 times, but 2 units"),
        ({"units": [[1, 2, 3], [], [0, 700, 3]]}, "example 2: units must be from 0 to 699"),
        ({"times": [[0.1, np.nan, 1], [], [0, 0, 0]]}, "example 0: times must be seconds"),
        ({"times": [[0.1, 0, 1], [], [0, -1, 0]]}, "example 2: times must be seconds"),
        (
            {"labels": np.array([0, 1, 2**64 - 1], np.uint64)},
            "labels: must be whole numbers from 0",
        ),
        ({"speaker": (1,)}, "extra/speaker: 1 examples"),
        ({"speaker": (1.5, 1, 2)}, "extra/speaker: must be whole numbers"),
        ({"keys": ("zero", "one")}, "extra/keys names 2 classes"),
        ({"times": [], "units": [], "labels": np.zeros(0, int), "speaker": ()}, "no examples"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, changes, said):
    with pytest.raises(DataError, match=said):
        read_events(made(tmp_path / "a.h5", **changes))


def test_what_is_no_file_is_said(tmp_path):
    (tmp_path / "a.h5").write_text("no")
    for name in ("a.h5", "none.h5"):
        with pytest.raises(DataError, match=f"{name} cannot be read as HDF5"):
            read_events(tmp_path / name)
    events = read_events(made(tmp_path / "b.h5"))
    for wrong in ({"step": 0.0}, {"steps": 0}, {"pool": 3}):
        with pytest.raises(ValueError, match="must"):
            events.binned(**{"step": 0.01, "steps": 5, "pool": 1} | wrong)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"times": np.array([-0.005, 0.1])}, "times must be seconds from 0 on"),
        ({"times": np.array([np.nan, 0.1])}, "times must be seconds from 0 on"),
        ({"units": np.array([-1, 0])}, "units must be whole numbers from 0 to 2"),
        ({"units": np.array([0, 3])}, "units must be whole numbers from 0 to 2"),
        ({"units": np.array([0])}, r"not \[2\] and \[1\]"),
        ({"starts": np.array([0, 1])}, "starts must go up from 0 to the 2 events"),
        ({"starts": np.array([0, 1, 1])}, "starts must go up from 0 to the 2 events"),
        ({"labels": np.array(["a", "b"])}, "labels must be whole numbers"),
    ],
)
def test_events_of_ones_own_go_together(changes, said):
    right = {"times": np.array([0.1, 0.2]), "units": np.array([0, 2]), "starts": np.array([0, 1, 2]), "labels": np.array([0, 1]), "channels": 3}  # fmt: skip
    assert Events(**right).binned(0.01, 30).sum() == 2
    with pytest.raises(ValueError, match=said):
        Events(**right | changes)


def test_times_that_are_not_seconds_are_said():
    events = Events(np.array([2e5, 1e20]), np.array([0, 1]), np.array([0, 2]), np.array([0]), 2)
    with pytest.raises(ValueError, match="the first is at 200000: times must be seconds"):
        events.binned(0.01, 100)
    mixed = Events(np.array([0.5, 1e20]), np.array([0, 1]), np.array([0, 2]), np.array([0]), 2)
    assert mixed.binned(0.01, 100).sum() == 1
    many = Events(np.full(300, 0.5), np.zeros(300, int), np.array([0, 300]), np.array([0]), 2)
    assert many.binned(0.01, 100)[0, 50].tolist() == [255, 0]


def test_counts_are_whole_numbers():
    for counts, labels, said in ((-np.ones((1, 2, 2), int), [0], "counts must"), (np.ones((1, 2, 2)), [0], "counts must"),
                                 (np.ones((2, 2), int), [0, 1], "counts must"), (np.ones((1, 2, 2), int), [0, 1], "labels must")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            from_counts(counts, np.array(labels))
