"""Labelled examples as vectors on one scale, whatever data set they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latebloom.data.images import image_names, load
from latebloom.data.tables import load_table


class Examples(NamedTuple):
    """Inputs [n, features] and labels [n], in a training and a test part."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_examples(name: str) -> Examples:
    """A data set of images (see `load`) or a table (see `load_table`), standardised.

    Pixels lose the mean over all training pixels and are divided by their deviation, so that those that
    hardly vary stay small; the columns of a table each their own. A table is split in four fifths and one
    fifth, in a fixed random order.
    """
    if name in image_names():
        images = load(name)
        train, test = (x.reshape(len(x), -1).astype(np.float32) for x in (images.x_train, images.x_test))  # fmt: skip
        labels = images.y_train, images.y_test
        mean, deviation = train.mean(), train.std()
    else:
        table = load_table(name)
        order = np.random.default_rng(0).permutation(len(table.x))
        first, last = np.split(order, [round(0.8 * len(order))])
        train, test = table.x[first], table.x[last]
        labels = table.y[first], table.y[last]
        mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = ((x - mean) / np.maximum(deviation, 1e-6) for x in (train, test))
    return Examples(train, labels[0], test, labels[1])
