"""Standardised data do not depend on unit, offset and range."""

import numpy as np
import pytest

from latebloom.data import Standardiser

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 5), (40, 4, 6), (40, 4, 6, 3)])
@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1e-12, 0), (1e9, 1e12), (1, 1e6), (255, 0)])
def test_mean_0_and_deviation_1_of_each_feature_or_channel(shape, scale, offset):
    raw = RNG.normal(size=shape) * np.arange(1, shape[-1] + 1)
    x = raw * scale + offset
    found = np.asarray(Standardiser.of(x)(x), float)
    assert found.shape == (shape if len(shape) != 3 else (*shape, 1))
    axes = {2: 0, 3: None, 4: (0, 1, 2)}[len(shape)]
    np.testing.assert_allclose(found.mean(axis=axes), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=axes), 1, atol=1e-6)
    expected = (raw - raw.mean(axis=axes)) / raw.std(axis=axes)
    np.testing.assert_allclose(found.reshape(shape), expected, atol=2e-3 if offset else 1e-5)


def test_the_numbers_are_those_of_the_data_it_was_made_of():
    x = np.array([[0, 10], [4, 10]], np.uint8)
    made = Standardiser.of(x)
    np.testing.assert_allclose(made(x), [[-1, 0], [1, 0]])
    np.testing.assert_allclose(
        made(np.array([[6.0, 11.0]])), [[2, 1]]
    )  # no deviation: its own unit
    with pytest.raises(ValueError, match=r"examples must be \[n, 2\], not \[1, 3\]"):
        made(np.zeros((1, 3)))
    for bad in (np.array([[1.0, np.nan]]), np.array([["a"]]), np.zeros((0, 2)), np.zeros(3)):
        with pytest.raises(ValueError, match="finite numbers"):
            Standardiser.of(bad)
