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
        file["extra/speaker"] = np.array(speaker, np.uint16)
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
        ({"speaker": (1,)}, "extra/speaker: 1 examples"),
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
