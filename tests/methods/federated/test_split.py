"""Shares of classes against what was asked for."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latebloom.methods.federated.split import DirichletSplit

Y_TRAIN = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 120))
Y_TEST = np.repeat(np.arange(5), 40)
SPLITS = {
    a: jax.jit(DirichletSplit(Y_TRAIN, Y_TEST, 6, a).__call__) for a in (0.0, 0.1, 100.0, np.inf)
}


def shares(labels, rows, classes=5):
    return np.array([np.bincount(labels[r], minlength=classes) for r in np.asarray(rows)]) / rows.shape[1]  # fmt: skip


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), alpha=st.sampled_from([0.1, 100.0]))
def test_clients_have_their_proportions_in_both_parts(seed, alpha):
    found = SPLITS[alpha](jax.random.key(seed))
    assert found.train.shape == (6, 100) and found.test.shape == (6, 33)
    proportions = np.asarray(found.proportions)
    np.testing.assert_allclose(proportions.sum(1), 1, rtol=1e-5)
    for labels, rows in ((Y_TRAIN, found.train), (Y_TEST, found.test)):
        got, size = shares(labels, rows), rows.shape[1]
        floor = np.floor(proportions * size + 1e-4)
        np.testing.assert_allclose(got[:, :-1] * size, floor[:, :-1], atol=1e-4)
        assert (got[:, -1] * size > proportions[:, -1] * size - 1e-3).all()


def test_extremes():
    one = SPLITS[0.0](jax.random.key(0))
    np.testing.assert_array_equal(shares(Y_TRAIN, one.train).argmax(1), [0, 1, 2, 3, 4, 0])
    assert shares(Y_TRAIN, one.train).max(1).min() == 1
    even = SPLITS[np.inf](jax.random.key(0))
    np.testing.assert_allclose(shares(Y_TRAIN, even.train), 0.2)
    near = SPLITS[100.0](jax.random.key(0))
    np.testing.assert_allclose(shares(Y_TRAIN, near.train), 0.2, atol=0.1)


def test_skew_is_that_of_the_dirichlet_distribution():
    """E sum_c p_c^2 = (alpha + 1) / (C alpha + 1)."""
    for alpha in (0.1, 1.0):
        split = DirichletSplit(Y_TRAIN, Y_TEST, 40, alpha)
        p = np.concatenate(jax.vmap(split.proportions)(jax.random.split(jax.random.key(0), 50)))
        expected = (alpha + 1) / (5 * alpha + 1)
        assert (p**2).sum(1).mean() == pytest.approx(expected, rel=0.03)


def test_rows_are_drawn_anew_within_a_class():
    rows = np.asarray(SPLITS[0.0](jax.random.key(1)).train[0])
    # 100 draws with replacement from 120 rows: about 120 (1 - exp(-100 / 120)) = 68 differ.
    assert 55 < len(set(rows)) < 80
    other = SPLITS[0.0](jax.random.key(2))
    assert set(rows) != set(np.asarray(other.train[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Y_TRAIN, Y_TEST, 5, -0.1), "at least 0"),
        ((Y_TRAIN, Y_TEST, 201, 1.0), "cannot share"),
        ((Y_TRAIN, Y_TEST, 0, 1.0), "cannot share"),
        ((Y_TRAIN, Y_TEST[Y_TEST != 2], 5, 1.0), "class 2"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DirichletSplit(*arguments)
