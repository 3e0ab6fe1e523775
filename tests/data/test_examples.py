"""Examples of images and of tables are on one scale, by what training examples say."""

import numpy as np

from latebloom import data


def test_images_are_standardised_by_all_training_pixels():
    found, images = data.load_examples("digits"), data.load("digits")
    mean, deviation = images.x_train.mean(), images.x_train.std()
    assert found.x_train.shape == (1438, 64) and found.x_train.dtype == np.float32
    np.testing.assert_allclose(
        found.x_test[5], (images.x_test[5].ravel() - mean) / deviation, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(found.y_train, images.y_train)
    np.testing.assert_array_equal(found.y_test, images.y_test)


def test_tables_are_standardised_by_column_and_split_without_loss():
    found, table = data.load_examples("iris"), data.load_table("iris")
    assert [len(part) for part in found] == [120, 120, 30, 30]
    np.testing.assert_allclose(found.x_train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.x_train.std(axis=0), 1, rtol=1e-4)
    order = np.random.default_rng(0).permutation(150)
    np.testing.assert_array_equal(np.concatenate([found.y_train, found.y_test]), table.y[order])
    train = table.x[order[:120]]
    np.testing.assert_allclose(
        found.x_test, (table.x[order[120:]] - train.mean(axis=0)) / train.std(axis=0), rtol=1e-4
    )


def test_columns_that_do_not_vary_are_nothing():
    assert np.isfinite(data.load_examples("digits-8x8").x_train).all()
